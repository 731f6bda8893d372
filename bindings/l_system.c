/*
** l_system.c -- the machine and the run: clock, threads, seeds, dtype, devices, memory, and in
** debug builds gq.debug, where tests make allocations and file operations fail.
*/
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bind.h"

static int sys_clock(lua_State *L) {
  lua_pushnumber(L, gq_clock());
  return 1;
}

static int set_threads(lua_State *L) {
  gqL_try(L, gq_set_threads((int)gqL_checkint(L, 1, 1, 256, "threads")));
  return 0;
}

static int threads(lua_State *L) {
  lua_pushinteger(L, gq_threads());
  return 1;
}

static int set_default_dtype(lua_State *L) {
  gq_dtype d = gqL_checkdtype(L, 1);
  if (!gq_is_float(d))
    return gqL_error(L, "set_default_dtype: \"float32\" or \"float64\" expected, got \"%s\"",
                     gq_dtype_name(d));
  gqL_getstate(L)->dtype = d;
  return 0;
}

static int default_dtype(lua_State *L) {
  lua_pushstring(L, gq_dtype_name(gqL_default_dtype(L)));
  return 1;
}

/* "cpu", ... pushed */
const char *gqL_devices(lua_State *L) {
  lua_pushliteral(L, "");
  for (int i = 0; gq_backend_at(i); i++) {
    lua_pushfstring(L, "%s\"%s\"", i ? ", " : "", gq_backend_at(i)->device->name);
    lua_concat(L, 2);
  }
  return lua_tostring(L, -1);
}

/* ": why" a device that this build knows by name is not there, or "" */
static const char *missing(lua_State *L, const char *name) {
  const char *why = gq_backend_missing(name);
  return *why ? lua_pushfstring(L, ": %s", why) : "";
}

const gq_device *gqL_device(lua_State *L, const char *name, const char *what) {
  const gq_backend *b = gq_backend_find(name);
  if (b == NULL)
    gqL_error(L, "%s: device \"%s\" is not there%s; this build has %s", what, name, missing(L, name),
              gqL_devices(L));
  return b->device;
}

static int devices(lua_State *L) {
  bool described = lua_toboolean(L, 1);
  lua_newtable(L);
  for (int i = 0; gq_backend_at(i); i++) {
    const gq_backend *b = gq_backend_at(i);
    const char *name = b->device->name, *about = b->about ? b->about : name;
    if (described) gqL_setstring(L, name, about);
    else lua_pushstring(L, name), lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int set_default_device(lua_State *L) {
  if (lua_type(L, 1) != LUA_TSTRING)
    return gqL_error(L, "set_default_device: the name of a device expected, got %s; this build has %s",
                     gqL_typename(L, 1), gqL_devices(L));
  gqL_getstate(L)->device = gqL_device(L, lua_tostring(L, 1), "set_default_device");
  return 0;
}

static int default_device(lua_State *L) {
  lua_pushstring(L, gqL_default_device(L)->name);
  return 1;
}

static int memory(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)gq_live_bytes());
  lua_pushinteger(L, (lua_Integer)gq_peak_bytes());
  return 2;
}

static int peak_reset(lua_State *L) {
  gq_peak_reset();
  return 0;
}

static bool silent;

bool gqL_warn(const char *text) {
  if (!silent) fprintf(stderr, "warning: %s\n", text);
  return !silent;
}

static void to_stderr(const char *text) { fputs(text, stderr); }

static int narrate(lua_State *L) {
  bool off = lua_type(L, 1) == LUA_TBOOLEAN && !lua_toboolean(L, 1);
  if (!off) gqL_checktype(L, 1, LUA_TSTRING);
  gqL_try(L, gq_narrate(off ? "" : lua_tostring(L, 1), to_stderr));
  return 0;
}

static int warnings(lua_State *L) {
  bool before = !silent;
  if (!lua_isnoneornil(L, 1)) {
    gqL_checktype(L, 1, LUA_TBOOLEAN);
    silent = !lua_toboolean(L, 1);
  }
  lua_pushboolean(L, before);
  return 1;
}

static int allow_tf32(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) {
    if (!lua_isboolean(L, 1))
      gqL_error(L, "gq.allow_tf32: true or false expected, got %s", gqL_typename(L, 1));
    gq_allow_tf32 = lua_toboolean(L, 1);
  }
  lua_pushboolean(L, gq_allow_tf32);
  return 1;
}

static int sys_isatty(lua_State *L) {
  lua_pushboolean(L, isatty((int)gqL_checkint(L, 1, 0, 1023, "file descriptor")));
  return 1;
}

/* Columns, and rows, of the terminal on stdout; 0 where there is none. */
int gqL_columns(int *rows) {
  struct winsize size;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return 0;
  if (rows) *rows = size.ws_row;
  return size.ws_col;
}

/* terminal_size(): columns and rows; nothing where there is no terminal. */
static int terminal_size(lua_State *L) {
  int rows, columns = gqL_columns(&rows);
  if (!columns) return 0;
  lua_pushinteger(L, columns);
  lua_pushinteger(L, rows);
  return 2;
}

/* make_directory(path): with those above it; one that is there is fine. */
static int make_directory(lua_State *L) {
  size_t n;
  const char *path = luaL_checklstring(L, 1, &n);
  luaL_argcheck(L, n > 0 && strlen(path) == n, 1, "a path expected");
  char *part = lua_newuserdatauv(L, n + 1, 0);
  memcpy(part, path, n + 1);
  for (char *p = part + 1; p <= part + n; p++) {
    if (*p != '/' && *p != '\0') continue;
    char c = *p;
    *p = '\0';
    if (mkdir(part, 0777) != 0 && errno != EEXIST && errno != EISDIR)
      return gqL_error(L, "make_directory: %s: %s", part, strerror(errno));
    *p = c;
  }
  struct stat st;
  if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
    return gqL_error(L, "make_directory: %s is there and is no directory", path);
  return 0;
}

/* ---- random numbers ---- */

static int manual_seed(lua_State *L) {
  gqL_state *s = gqL_getstate(L);
  s->seed = (uint64_t)gqL_checkint(L, 1, INT64_MIN, INT64_MAX, "seed");
  s->counter = 0;
  return 0;
}

static int rng_state(lua_State *L) {
  gqL_state *s = gqL_getstate(L);
  lua_createtable(L, 0, 2);
  gqL_setinteger(L, "seed", s->seed);
  gqL_setinteger(L, "counter", s->counter);
  return 1;
}

static int set_rng_state(lua_State *L) {
  static const char *const known[] = { "seed", "counter", NULL };
  gqL_checktype(L, 1, LUA_TTABLE);
  gqL_checkoptions(L, 1, known, "set_rng_state");
  int64_t seed = gqL_optint(L, 1, "seed", 0, INT64_MIN, INT64_MAX);
  int64_t counter = gqL_optint(L, 1, "counter", 0, 0, INT64_MAX);
  gqL_state *s = gqL_getstate(L);
  s->seed = (uint64_t)seed;
  s->counter = (uint64_t)counter;
  return 0;
}

static const gqL_function functions[] = {
  { "clock", sys_clock, false, "gq.clock(): monotonic seconds" },
  { "set_threads", set_threads, false,
    "gq.set_threads(n): how many threads work; by default one for each processor that the process may use, "
    "by its affinity and by the quota of its control group (container), or GQ_THREADS of the environment" },
  { "threads", threads, false, "gq.threads(): how many threads work" },
  { "set_default_dtype", set_default_dtype, false,
    "gq.set_default_dtype(dtype): what constructors make: float32 or float64" },
  { "default_dtype", default_dtype, false, "gq.default_dtype(): what constructors make" },
  { "devices", devices, false,
    "gq.devices(): the names that opts.device takes. gq.devices(true): what is behind each, {cuda = \"NVIDIA "
    "...\"}" },
  { "set_default_device", set_default_device, false,
    "gq.set_default_device(name): where constructors and gq.load put their tensors: one of gq.devices()" },
  { "default_device", default_device, false, "gq.default_device(): where constructors put their tensors" },
  { "memory", memory, false, "gq.memory(): bytes of tensors and solvers alive now, and their peak" },
  { "peak_reset", peak_reset, false, "gq.peak_reset(): the peak of gq.memory starts again from now" },
  { "warnings", warnings, false,
    "gq.warnings([on]): do solves warn on stderr, once for each kind? info.warning tells in any case" },
  { "narrate", narrate, false,
    "gq.narrate(topics): from now on solves and their ways back tell on stderr what they do, a line each: "
    "\"step\" their tried steps (not those that a device or rows with steps of their own decide, nor an "
    "audit's), "
    "\"quad\" rounds of the quadrature by error control, \"mem\" bytes and evaluations in the end, \"ir\" "
    "programs "
    "as they are compiled; several as \"step,quad\", false: none. GQ_TRACE=step,quad of the environment does "
    "the same" },
  { "allow_tf32", allow_tf32, false,
    "gq.allow_tf32([on]): may float32 products on a GPU be rounded to 11 bits before they are made, where "
    "its units for that are faster? Those of solves by tiles are not (info.lowering). Tells what holds, at "
    "first false" },
  { "isatty", sys_isatty, false, "gq.isatty(fd): is this file descriptor a terminal?" },
  { "terminal_size", terminal_size, false,
    "gq.terminal_size(): columns and rows of the terminal; nil where stdout is none" },
  { "make_directory", make_directory, false, "gq.make_directory(path): make a directory and those above it" },
  { "manual_seed", manual_seed, false, "gq.manual_seed(n): start the random generator again" },
  { "rng_state", rng_state, false, "gq.rng_state(): the generator's state, a table for gq.set_rng_state" },
  { "set_rng_state", set_rng_state, false, "gq.set_rng_state(t): continue from gq.rng_state()" },
  { NULL, NULL, false, NULL }
};

/* ---- debug builds ---- */

#ifdef GQ_DEBUG
static int fail_alloc(lua_State *L) {
  gq_alloc_fail((long)luaL_checkinteger(L, 1), lua_toboolean(L, 2));
  return 0;
}

static int live_blocks(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)gq_live_blocks());
  return 1;
}

static int alloc_count(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)gq_alloc_count());
  return 1;
}

static int interrupt(lua_State *L) {
  gq_interrupt();
  return 0;
}

/* fail_alloc(n, persistent): n more succeed; a negative n: off. */
static const luaL_Reg debug_functions[] = { { "fail_alloc", fail_alloc },
                                            { "live_blocks", live_blocks },
                                            { "alloc_count", alloc_count },
                                            { "interrupt", interrupt },
                                            { NULL, NULL } };
#endif

static int version_text(lua_State *L) {
  lua_pushliteral(L, GQ_VERSION);
  return 1;
}

static void push_version(lua_State *L) {
  lua_createtable(L, 0, 4);
  gqL_setstring(L, "gq", GQ_VERSION);
  gqL_setstring(L, "lua", LUA_RELEASE);
  gqL_setstring(L, "blas", gq_blas_name());
  gqL_setstring(L, "kernels", gq_cpu_kernels());
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, version_text);
  lua_setfield(L, -2, "__tostring");
  lua_setmetatable(L, -2);
}

void gqL_open_system(lua_State *L) {
  const char *topics = getenv("GQ_TRACE");
  if (topics && gq_narrate(topics, to_stderr) != GQ_OK) {
    lua_pushfstring(L, "GQ_TRACE: %s", gq_message());
    gqL_warn(lua_tostring(L, -1));
    lua_pop(L, 1);
  }
  gqL_register(L, functions);
  push_version(L);
  lua_setfield(L, -2, "version");
#ifdef GQ_DEBUG
  luaL_newlib(L, debug_functions);
  lua_setfield(L, -2, "debug");
#endif
}
