/*
** bind.c -- what the binding files share: errors, argument checks, options, and when to collect.
** Tensors among it: l_handle.c.
*/
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bind.h"

/* ---- the state of one Lua state ---- */

static const char state_key = 0;

gqL_state *gqL_getstate(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  gqL_state *s = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (s != NULL) return s;
  s = lua_newuserdatauv(L, sizeof *s, 0);
  *s = (gqL_state){ .dtype = GQ_F32, .device = gq_host };
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
  return s;
}

gq_dtype gqL_default_dtype(lua_State *L) { return gqL_getstate(L)->dtype; }
const gq_device *gqL_default_device(lua_State *L) { return gqL_getstate(L)->device; }

uint64_t gqL_nextseed(lua_State *L) {
  gqL_state *s = gqL_getstate(L);
  uint32_t u[2];
  gq_random_u32(gq_key_make(s->seed, GQ_FOR_USER), s->counter++, 0, 2, u);
  return (uint64_t)u[1] << 32 | u[0];
}

/* ---- errors and memory ---- */

/* Is the function at this level of our own Lua files (bindings/gq.c names them), or of C called by one? */
static bool inside(lua_State *L, int level, bool below) {
  lua_Debug ar;
  if (!lua_getstack(L, level, &ar) || !lua_getinfo(L, "S", &ar)) return false;
  return !strncmp(ar.source, "=gq/", 4) || (below && *ar.what == 'C');
}

/* The place in the script that an error is about: not in our own Lua files, where it called one of these. */
static void push_where(lua_State *L) {
  int level = 1;
  while (inside(L, level, level > 1)) level++;
  luaL_where(L, level);
}

int gqL_error(lua_State *L, const char *format, ...) {
  va_list list;
  push_where(L);
  va_start(list, format);
  lua_pushvfstring(L, format, list);
  va_end(list);
  if (gq_pending() != GQ_OK) lua_pop(L, 1), lua_pushstring(L, gq_message()); /* what this one follows from */
  lua_concat(L, 2);
  return lua_error(L);
}

int gqL_argerror(lua_State *L, int arg, const char *name, const char *text) {
  if (!inside(L, 1, false)) return luaL_argerror(L, arg, text);
  return gqL_error(L, "bad argument #%d to '%s' (%s)", arg, name, text);
}

/* The same under the name by which this function was called; of a method the first argument is no argument. */
int gqL_badarg(lua_State *L, int arg, const char *text) {
  lua_Debug ar;
  if (!inside(L, 1, false) || !lua_getstack(L, 0, &ar) || !lua_getinfo(L, "n", &ar))
    return luaL_argerror(L, arg, text);
  if (!strcmp(ar.namewhat, "method")) arg--;
  if (arg == 0) return gqL_error(L, "calling '%s' on a bad self (%s)", ar.name, text);
  return gqL_error(L, "bad argument #%d to '%s' (%s)", arg, ar.name ? ar.name : "?", text);
}

void gqL_pushclass(lua_State *L, const char *name, lua_CFunction gc) {
  if (!luaL_newmetatable(L, name)) return;
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  gqL_setboolean(L, "__metatable", false);
}

void gqL_class(lua_State *L, const char *name, const luaL_Reg *meta, const luaL_Reg *methods_) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, meta, 0);
  if (methods_) {
    lua_newtable(L);
    luaL_setfuncs(L, methods_, 0);
    lua_setfield(L, -2, "__index");
  }
  lua_pop(L, 1);
}

void gqL_newweak(lua_State *L, const char *mode) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  gqL_setstring(L, "__mode", mode);
  lua_setmetatable(L, -2);
}

void gqL_pushweak(lua_State *L, const void *key, const char *mode) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, key) == LUA_TTABLE) return;
  lua_pop(L, 1);
  gqL_newweak(L, mode);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void gqL_checktype(lua_State *L, int arg, int type) {
  if (lua_type(L, arg) == type) return;
  gqL_badarg(L, arg, lua_pushfstring(L, "%s expected, got %s", lua_typename(L, type), gqL_typename(L, arg)));
}

const char *gqL_notensor(lua_State *L, int arg) {
  const char *given = gqL_typename(L, arg);
  switch (lua_type(L, arg)) {
    case LUA_TNIL:
    case LUA_TNONE: return lua_pushfstring(L, "%s: is a return missing?", given);
    case LUA_TNUMBER: return lua_pushfstring(L, "%s: a constant is 0 * z + c", given);
    case LUA_TTABLE: return lua_pushfstring(L, "%s: return the tensor itself, not one that holds it", given);
    default: return given;
  }
}

int gqL_cause(int status) {
  int earlier = status == GQ_OK ? GQ_OK : gq_pending();
  return earlier == GQ_OK ? status : earlier;
}

int gqL_try(lua_State *L, int status) {
  int earlier = gq_pending(); /* of a call that had no status to tell it */
  if (earlier != GQ_OK) status = earlier;
  if (status == GQ_EINTERRUPT) gq_interrupt_clear(); /* this error is its one consequence */
  if (status != GQ_OK) return gqL_error(L, "%s", gq_message());
  return status;
}

int gqL_guarded(lua_State *L, int nargs, int nresults) {
  bool main = lua_pushthread(L) == 1;
  lua_pop(L, 1);
  if (!main) return lua_pcall(L, nargs, nresults, 0);
  lua_call(L, nargs, nresults);
  return LUA_OK;
}

void gqL_collect(lua_State *L) {
  lua_gc(L, LUA_GCCOLLECT);
  gqL_getstate(L)->survived = gq_live_bytes();
}

int gqL_room(lua_State *L) {
  gqL_collect(L);
  int earlier = gq_pending();
  return earlier == GQ_ENOMEM ? GQ_OK : earlier;
}

/* Lua's collector sees a few bytes of each tensor. So it is told what was added since the last time as if it had been
** allocated by Lua, up to a page, since a cycle costs by the size of Lua's heap and not of what it frees: garbage
** that grows beyond the caches costs more. Collected fully above a floor and twice what survived the last time. */
enum { TELL = 4096 };
#define COLLECT_FLOOR ((size_t)64 << 20)

void gqL_counted(lua_State *L) {
  gqL_state *state = gqL_getstate(L);
  size_t live = gq_live_bytes(), more = live > state->told ? live - state->told : 0;
  state->told = live, state->owed += more < TELL ? more : TELL;
  if (live > COLLECT_FLOOR && live / 2 > state->survived) gqL_collect(L);
  else if (state->owed >= TELL && lua_gc(L, LUA_GCISRUNNING)) {
    int kilobytes = (int)(state->owed >> 10);
    state->owed = 0, lua_gc(L, LUA_GCSTEP, kilobytes);
  }
}

/* ---- tensors ---- */

/* luaL_newmetatable's, found by an address, not by its name: every operation asks for it. */
static const char tensor_key;

void gqL_pushtensorclass(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &tensor_key) != LUA_TNIL) return;
  lua_pop(L, 1);
  luaL_newmetatable(L, GQL_TENSOR);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &tensor_key);
}

gq_tensor **gqL_tohandle(lua_State *L, int arg) {
  gq_tensor **h = lua_touserdata(L, arg);
  if (h == NULL || !lua_getmetatable(L, arg)) return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tensor_key);
  if (!lua_rawequal(L, -1, -2)) h = NULL;
  lua_pop(L, 2);
  return h;
}

gq_tensor *gqL_totensor(lua_State *L, int arg) {
  gq_tensor **h = gqL_tohandle(L, arg);
  return h ? *h : NULL;
}

const char *gqL_typename(lua_State *L, int arg) {
  gq_tensor **h = gqL_tohandle(L, arg);
  if (h != NULL) {
    char text[256];
    if (*h == NULL) return lua_pushliteral(L, "a tensor that was freed");
    return lua_pushfstring(L, "%stensor %s %s", (*h)->trace ? "traced " : "", gq_dtype_name((*h)->dtype),
                           gq_shape_text((*h)->shape, text, sizeof text));
  }
  switch (lua_type(L, arg)) {
    case LUA_TNONE: return lua_pushliteral(L, "nothing");
    case LUA_TNUMBER:
      if (lua_isinteger(L, arg)) return lua_pushfstring(L, "number %I", (LUAI_UACINT)lua_tointeger(L, arg));
      return lua_pushfstring(L, "number %f", (LUAI_UACNUMBER)lua_tonumber(L, arg));
    case LUA_TSTRING: {
      const char *s = lua_tostring(L, arg);
      return strlen(s) <= 40 ? lua_pushfstring(L, "string \"%s\"", s) : lua_pushliteral(L, "a string");
    }
    case LUA_TBOOLEAN: return lua_toboolean(L, arg) ? "true" : "false";
    case LUA_TLIGHTUSERDATA: return "light userdata";
    default:
      if (luaL_getmetafield(L, arg, "__name") == LUA_TSTRING) return lua_tostring(L, -1);
      return luaL_typename(L, arg);
  }
}

/* ---- arguments ---- */

int64_t gqL_checkint(lua_State *L, int arg, int64_t min, int64_t max, const char *what) {
  int isint = 0;
  lua_Integer i = lua_type(L, arg) == LUA_TNUMBER ? lua_tointegerx(L, arg, &isint) : 0;
  if (!isint)
    return gqL_badarg(L, arg, lua_pushfstring(L, "%s: integer expected, got %s", what, gqL_typename(L, arg)));
  if (i < min || i > max) {
    const char *text = max == INT64_MAX ? lua_pushfstring(L, "%s: at least %I expected, got %I", what,
                                                          (LUAI_UACINT)min, (LUAI_UACINT)i)
                                        : lua_pushfstring(L, "%s: %I to %I expected, got %I", what,
                                                          (LUAI_UACINT)min, (LUAI_UACINT)max, (LUAI_UACINT)i);
    return gqL_badarg(L, arg, text);
  }
  return i;
}

double gqL_checknumber(lua_State *L, int arg, const char *what) {
  if (lua_type(L, arg) != LUA_TNUMBER)
    gqL_badarg(L, arg, lua_pushfstring(L, "%s: number expected, got %s", what, gqL_typename(L, arg)));
  return lua_tonumber(L, arg);
}

gq_shape gqL_checkshape(lua_State *L, int arg) {
  gqL_checktype(L, arg, LUA_TTABLE);
  lua_Unsigned n = lua_rawlen(L, arg);
  if (n > GQ_MAXDIM)
    gqL_badarg(L, arg, lua_pushfstring(L, "at most %d dimensions, got %I", GQ_MAXDIM, (LUAI_UACINT)n));
  if (n == 0 && (lua_pushnil(L), lua_next(L, arg)))
    gqL_badarg(L, arg, "sizes expected, got a table with other keys");
  gq_shape s = { .ndim = (int)n };
  for (int i = 0; i < s.ndim; i++) {
    lua_rawgeti(L, arg, i + 1);
    int isint = 0;
    lua_Integer size = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &isint) : 0;
    if (!isint || size < 0)
      gqL_badarg(
        L, arg,
        lua_pushfstring(L, "size %d: integer of at least 0 expected, got %s", i + 1, gqL_typename(L, -1)));
    s.dim[i] = size;
    lua_pop(L, 1);
  }
  return s;
}

int gqL_axis(lua_State *L, int arg, int ndim) {
  int64_t i = gqL_checkint(L, arg, INT32_MIN, INT32_MAX, "dimension");
  if (i == 0 || i > ndim || i < -ndim) {
    const char *hint = i == 0 ? ": they count from 1, and -1 is the last" : "";
    gqL_badarg(L, arg, lua_pushfstring(L, "dimension %d of a tensor of %d dimensions%s", (int)i, ndim, hint));
  }
  return (int)(i > 0 ? i - 1 : i + ndim);
}

gq_dtype gqL_checkdtype(lua_State *L, int arg) {
  gq_dtype d = GQ_F32;
  if (lua_type(L, arg) != LUA_TSTRING || !gq_dtype_of(lua_tostring(L, arg), &d))
    gqL_badarg(L, arg,
               lua_pushfstring(L, "dtype \"float32\", \"float64\", \"int64\" or \"bool\" expected, got %s",
                               gqL_typename(L, arg)));
  return d;
}

/* ---- options ---- */

static int edit_distance(const char *a, const char *b) {
  int n = (int)strlen(b), row[65];
  if (n > 64 || strlen(a) > 64) return 99;
  for (int j = 0; j <= n; j++) row[j] = j;
  for (int i = 1; *a != '\0'; i++, a++) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= n; j++) {
      int best = diagonal + (*a != b[j - 1]);
      diagonal = row[j];
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      row[j] = best;
    }
  }
  return row[n];
}

const char *gqL_nearest(const char *name, const char *const *known) {
  const char *best = NULL;
  int least = 3 + (int)strlen(name) / 4; /* further away is no help */
  for (; *known != NULL; known++) {
    int d = edit_distance(name, *known);
    if (d < least) {
      least = d;
      best = *known;
    }
  }
  return best;
}

/* The names with commas between them, pushed. */
static const char *push_list(lua_State *L, const char *const *names) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 0; names[i] != NULL; i++) {
    if (i > 0) luaL_addstring(&b, ", ");
    luaL_addstring(&b, names[i]);
  }
  luaL_pushresult(&b);
  return lua_tostring(L, -1);
}

int gqL_choose(lua_State *L, const char *what, const char *key, const char *given, const char *const *names) {
  for (int i = 0; names[i] != NULL; i++)
    if (strcmp(names[i], given) == 0) return i;
  const char *alike = gqL_alike(given, names), *near = alike ? alike : gqL_nearest(given, names);
  const char *list = push_list(L, names);
  if (near != NULL)
    return gqL_error(L, "%s: %s = \"%s\" is not known; did you mean \"%s\"? There are: %s", what, key, given,
                     near, list);
  return gqL_error(L, "%s: %s = \"%s\" is not known; there are: %s", what, key, given, list);
}

int gqL_chooserow(lua_State *L, const char *what, const char *key, const char *given,
                  const char *(*name)(int i)) {
  int n = 0;
  for (; name(n) != NULL; n++)
    if (strcmp(name(n), given) == 0) return n;
  const char **names = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *names, 0);
  for (int i = 0; i <= n; i++) names[i] = name(i);
  return gqL_choose(L, what, key, given, names);
}

/* "gq = {nodes = ...}" where a table among the options of `what` has the key (options.lua), pushed; NULL if none has. */
static const char *place_of(lua_State *L, const char *key, const char *what) {
  lua_getfield(L, LUA_REGISTRYINDEX, GQL_CORE);
  lua_getfield(L, -1, "place_of");
  lua_pushstring(L, key);
  lua_pushstring(L, what);
  lua_call(L, 2, 1);
  return lua_tostring(L, -1);
}

static void unknown_option(lua_State *L, const char *key, const char *const *known, const char *what) {
  const char *hint = gqL_hint(key, known, what), *near = gqL_nearest(key, known), *list = push_list(L, known);
  if (hint == NULL) hint = place_of(L, key, what);
  if (hint != NULL) gqL_error(L, "%s: unknown option '%s'; here: %s (known: %s)", what, key, hint, list);
  if (near != NULL)
    gqL_error(L, "%s: unknown option '%s', did you mean '%s'? (known: %s)", what, key, near, list);
  gqL_error(L, "%s: unknown option '%s' (known: %s)", what, key, list);
}

/* The options at arg with what an __index gives, which runs here, before the caller holds anything. */
void gqL_plainoptions(lua_State *L, int arg, const char *const *known) {
  arg = lua_absindex(L, arg);
  if (!lua_istable(L, arg) || luaL_getmetafield(L, arg, "__index") == LUA_TNIL) return;
  lua_newtable(L);
  for (; *known != NULL; known++) {
    lua_getfield(L, arg, *known);
    lua_setfield(L, -2, *known);
  }
  lua_replace(L, arg);
  lua_pop(L, 1);
}

void gqL_checkoptions(lua_State *L, int arg, const char *const *known, const char *what) {
  if (lua_isnoneornil(L, arg)) return;
  arg = lua_absindex(L, arg);
  if (!lua_istable(L, arg)) gqL_error(L, "%s: options are one table, got %s", what, gqL_typename(L, arg));
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      gqL_error(L, "%s: option names are strings, got the key %s", what, gqL_typename(L, -2));
    const char *key = lua_tostring(L, -2);
    bool found = false;
    for (int i = 0; known[i] != NULL && !found; i++) found = *known[i] == *key && strcmp(known[i], key) == 0;
    if (!found) unknown_option(L, key, known, what);
  }
  gqL_plainoptions(L, arg, known);
}

/* Push option `key`; false (nothing pushed) if it is not given. */
static bool getoption(lua_State *L, int arg, const char *key) {
  if (lua_isnoneornil(L, arg)) return false;
  if (lua_getfield(L, arg, key) != LUA_TNIL) return true;
  lua_pop(L, 1);
  return false;
}

static void option_error(lua_State *L, const char *key, const char *expected) {
  gqL_error(L, "option %s: %s expected, got %s", key, expected, gqL_typename(L, -1));
}

bool gqL_given(lua_State *L, int arg, const char *key) {
  if (!lua_istable(L, arg) || !getoption(L, arg, key)) return false;
  lua_pop(L, 1);
  return true;
}

double gqL_optnumber(lua_State *L, int arg, const char *key, double def) {
  if (!getoption(L, arg, key)) return def;
  if (lua_type(L, -1) != LUA_TNUMBER) option_error(L, key, "number");
  double x = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return x;
}

double gqL_optpositive(lua_State *L, int arg, const char *what, const char *key, double def) {
  double x = gqL_optnumber(L, arg, key, def);
  if (gqL_given(L, arg, key) && (!(x > 0) || isinf(x)))
    gqL_error(L, "%s: %s is %f: expected a positive, finite number", what, key, x);
  return x;
}

double gqL_optlimit(lua_State *L, int arg, const char *what, const char *key, double none, double def) {
  double x = gqL_optnumber(L, arg, key, def);
  return x == 0 || x == none ? 0 : gqL_optpositive(L, arg, what, key, def);
}

int64_t gqL_optint(lua_State *L, int arg, const char *key, int64_t def, int64_t min, int64_t max) {
  if (!getoption(L, arg, key)) return def;
  int isint = 0;
  lua_Integer i = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &isint) : 0;
  if (!isint) option_error(L, key, "integer");
  if (i < min) gqL_error(L, "option %s: at least %I expected, got %I", key, (LUAI_UACINT)min, (LUAI_UACINT)i);
  if (i > max) gqL_error(L, "option %s: at most %I expected, got %I", key, (LUAI_UACINT)max, (LUAI_UACINT)i);
  lua_pop(L, 1);
  return i;
}

bool gqL_optbool(lua_State *L, int arg, const char *key, bool def) {
  if (!getoption(L, arg, key)) return def;
  if (!lua_isboolean(L, -1)) option_error(L, key, "true or false");
  bool b = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return b;
}

const char *gqL_optstring(lua_State *L, int arg, const char *key, const char *def) {
  if (!getoption(L, arg, key)) return def;
  if (lua_type(L, -1) != LUA_TSTRING) option_error(L, key, "string");
  const char *s = lua_tostring(L, -1);
  lua_pop(L, 1);
  return s;
}

int gqL_optchoice(lua_State *L, int arg, const char *what, const char *key, const char *def,
                  const char *const *names) {
  const char *dot = strrchr(key, '.');
  return gqL_choose(L, what, key, gqL_optstring(L, arg, dot ? dot + 1 : key, def), names);
}

bool gqL_optindependent(lua_State *L, int arg, const char *what) {
  static const char *const names[] = { "joint", "independent", NULL };
  return gqL_optchoice(L, arg, what, "batch", "joint", names) == 1;
}

uint64_t gqL_optseed(lua_State *L, int arg) {
  bool given = gqL_given(L, arg, "seed");
  return given ? (uint64_t)gqL_optint(L, arg, "seed", 0, INT64_MIN, INT64_MAX) : gqL_nextseed(L);
}

gq_dtype gqL_optdtype(lua_State *L, int arg, const char *key) {
  const char *name = gqL_optstring(L, arg, key, NULL);
  gq_dtype d = gqL_default_dtype(L);
  if (name != NULL && !gq_dtype_of(name, &d))
    gqL_error(L, "option %s: \"float32\", \"float64\", \"int64\" or \"bool\" expected, got \"%s\"", key,
              name);
  return d;
}

/* ---- tables ---- */

void gqL_setinteger(lua_State *L, const char *key, int64_t v) {
  lua_pushinteger(L, v);
  lua_setfield(L, -2, key);
}

void gqL_setnumber(lua_State *L, const char *key, double v) {
  lua_pushnumber(L, v);
  lua_setfield(L, -2, key);
}

void gqL_setstring(lua_State *L, const char *key, const char *v_) {
  lua_pushstring(L, v_);
  lua_setfield(L, -2, key);
}

void gqL_setboolean(lua_State *L, const char *key, bool v) {
  lua_pushboolean(L, v);
  lua_setfield(L, -2, key);
}

/* ---- registration ---- */

void gqL_setfunction(lua_State *L, const char *name, bool method, const char *doc) {
  int f = lua_gettop(L), gq = f - 1;
  lua_getfield(L, gq, "docs");
  lua_pushvalue(L, f);
  lua_pushstring(L, doc);
  lua_rawset(L, -3);
  lua_getfield(L, gq, "core");
  lua_getfield(L, -1, "methods");
  if (method) {
    lua_pushvalue(L, f);
    lua_setfield(L, -2, name);
  }
  lua_settop(L, f);
  lua_setfield(L, gq, name);
}

void gqL_core(lua_State *L, const luaL_Reg *list) {
  lua_getfield(L, -1, "core");
  luaL_setfuncs(L, list, 0);
  lua_pop(L, 1);
}

int gqL_callcore(lua_State *L, const char *name, int nresults) {
  lua_getfield(L, LUA_REGISTRYINDEX, GQL_CORE);
  lua_getfield(L, -1, name);
  lua_insert(L, 1);
  lua_pop(L, 1);
  lua_call(L, lua_gettop(L) - 1, nresults);
  return lua_gettop(L);
}

void gqL_register(lua_State *L, const gqL_function *list) {
  for (; list->name != NULL; list++) {
    lua_pushcfunction(L, list->f);
    gqL_setfunction(L, list->name, list->method, list->doc);
  }
}
