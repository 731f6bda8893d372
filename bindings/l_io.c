/*
** l_io.c -- files for Lua: whole files, lines, .npy and .safetensors. What a loader made sits in a
** userdata until the last tensor is in a handle of its own, so an error half way leaks nothing.
*/
#include "bind.h"

#include <stdlib.h>
#include <string.h>

#define BOX "gq.io"

/* What the runtime hands over; freed by the collector or at once. */
typedef struct box {
  char *bytes;
  gq_named *list;
  gq_pair *meta;
  int n, nmeta;
  size_t size;
} box;

static void empty(box *b) {
  gq_free(b->bytes);
  gq_named_free(b->list, b->n);
  gq_pairs_free(b->meta, b->nmeta);
  memset(b, 0, sizeof *b);
}

static int box_gc(lua_State *L) {
  box *b = luaL_testudata(L, 1, BOX);
  if (b) empty(b);
  return 0;
}

static box *pushbox(lua_State *L) {
  box *b = lua_newuserdatauv(L, sizeof *b, 0);
  memset(b, 0, sizeof *b);
  luaL_setmetatable(L, BOX);
  return b;
}

/* A string without zero bytes: C would read the path up to the first one. */
static const char *checkpath(lua_State *L, int arg) {
  size_t n;
  if (lua_type(L, arg) != LUA_TSTRING)
    gqL_badarg(L, arg, lua_pushfstring(L, "a path expected, got %s", gqL_typename(L, arg)));
  const char *path = lua_tolstring(L, arg, &n);
  luaL_argcheck(L, strlen(path) == n, arg, "a path cannot contain a zero byte");
  luaL_argcheck(L, n > 0, arg, "a path cannot be empty");
  return path;
}

static const char *checkbytes(lua_State *L, int arg, size_t *n) {
  if (lua_type(L, arg) != LUA_TSTRING)
    gqL_badarg(L, arg, lua_pushfstring(L, "a string expected, got %s", gqL_typename(L, arg)));
  return lua_tolstring(L, arg, n);
}

/* ---- whole files ---- */

static int file_read(lua_State *L) {
  const char *path = checkpath(L, 1);
  box *b = pushbox(L);
  gqL_retry(L, gq_file_read(path, PTRDIFF_MAX - 1, &b->bytes, &b->size));
  lua_pushlstring(L, b->bytes, b->size);
  empty(b);
  return 1;
}

static int file_write(lua_State *L) {
  size_t n;
  const char *path = checkpath(L, 1), *bytes = checkbytes(L, 2, &n);
  gqL_retry(L, gq_file_write(path, bytes, n));
  return 0;
}

static int file_append(lua_State *L) {
  size_t n;
  const char *path = checkpath(L, 1), *line = checkbytes(L, 2, &n);
  luaL_argcheck(L, !memchr(line, '\n', n), 2, "a line cannot contain a newline");
  gqL_retry(L, gq_file_append_line(path, line, n));
  return 0;
}

/* ---- one tensor ---- */

static int npy_load(lua_State *L) {
  const char *path = checkpath(L, 1);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_npy_load(path, h));
  gqL_place(L, gqL_default_device(L));
  gqL_counted(L);
  return 1;
}

static int npy_save(lua_State *L) {
  const char *path = checkpath(L, 1);
  gq_tensor *t = gqL_checktensor(L, 2);
  gqL_checknumbers(L, t, "npy_save");
  gqL_retry(L, gq_npy_save(path, t));
  return 0;
}

/* ---- named tensors ---- */

static int safetensors_load(lua_State *L) {
  const char *path = checkpath(L, 1);
  box *b = pushbox(L);
  gqL_retry(L, gq_safetensors_load(path, &b->list, &b->n, &b->meta, &b->nmeta));
  lua_createtable(L, 0, b->n);
  for (int i = 0; i < b->n; i++) {
    gq_tensor **h = gqL_pushtensor(L);
    *h = b->list[i].tensor;
    b->list[i].tensor = NULL;
    gqL_place(L, gqL_default_device(L));
    lua_setfield(L, -2, b->list[i].name);
  }
  lua_createtable(L, 0, b->nmeta);
  for (int i = 0; i < b->nmeta; i++) gqL_setstring(L, b->meta[i].key, b->meta[i].value);
  empty(b);
  gqL_counted(L);
  return 2;
}

/* Number of entries of the table at `arg`; raises on a key that is no C string. */
static int countkeys(lua_State *L, int arg) {
  int n = 0;
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1), n++) {
    if (lua_type(L, -2) != LUA_TSTRING)
      gqL_badarg(L, arg, lua_pushfstring(L, "names are strings, got %s", gqL_typename(L, -2)));
    if (strlen(lua_tostring(L, -2)) != lua_rawlen(L, -2))
      gqL_badarg(L, arg, "a name cannot contain a zero byte");
    if (n == INT32_MAX) gqL_badarg(L, arg, "too many entries");
  }
  return n;
}

/* Of gq_named and of gq_pair, which begin with their name. */
static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The table at `arg` as a list in a userdata (pushed), by name so that equal tables make equal
** files. Names and tensors are lent by the table. */
static gq_named *checknamed(lua_State *L, int arg, int *count) {
  gqL_checktype(L, arg, LUA_TTABLE);
  int n = countkeys(L, arg), i = 0;
  gq_named *list = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *list, 0);
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1), i++) {
    gq_tensor *t = gqL_totensor(L, -1);
    const char *name = lua_tostring(L, -2);
    if (!t) {
      const char *help = lua_istable(L, -1)
                           ? ": gq.checkpoint.save(path, {model = net, optimiser = opt, ...}) "
                             "saves modules, optimisers and numbers together"
                           : "";
      gqL_badarg(
        L, arg, lua_pushfstring(L, "entry '%s': tensor expected, got %s%s", name, gqL_typename(L, -1), help));
    }
    gqL_checknumbers(L, t, "safetensors_save");
    list[i] = (gq_named){ (char *)name, t };
  }
  if (n) qsort(list, (size_t)n, sizeof *list, by_name);
  *count = n;
  return list;
}

static gq_pair *checkpairs(lua_State *L, int arg, int *count) {
  *count = 0;
  if (lua_isnoneornil(L, arg)) return NULL;
  gqL_checktype(L, arg, LUA_TTABLE);
  int n = countkeys(L, arg), i = 0;
  gq_pair *list = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *list, 0);
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1), i++) {
    const char *key = lua_tostring(L, -2);
    if (lua_type(L, -1) != LUA_TSTRING)
      gqL_badarg(L, arg,
                 lua_pushfstring(L, "metadata '%s': string expected, got %s", key, gqL_typename(L, -1)));
    if (strlen(lua_tostring(L, -1)) != lua_rawlen(L, -1))
      gqL_badarg(L, arg, lua_pushfstring(L, "metadata '%s' contains a zero byte", key));
    list[i] = (gq_pair){ (char *)key, (char *)lua_tostring(L, -1) };
  }
  if (n) qsort(list, (size_t)n, sizeof *list, by_name);
  *count = n;
  return list;
}

static int safetensors_save(lua_State *L) {
  int n, nmeta;
  const char *path = checkpath(L, 1);
  lua_settop(L, 3);
  gq_named *list = checknamed(L, 2, &n);
  gq_pair *meta = checkpairs(L, 3, &nmeta);
  gqL_retry(L, gq_safetensors_save(path, list, n, meta, nmeta));
  return 0;
}

static const gqL_function functions[] = {
  { "file_read", file_read, false, "file_read(path): the bytes of a file as a string" },
  { "file_write", file_write, false,
    "file_write(path, bytes): replaces a file at once, all of it or nothing" },
  { "file_append", file_append, false,
    "file_append(path, line): adds a line in a single write, behind half a line a new one" },
  { "npy_load", npy_load, false, "npy_load(path): the tensor in an .npy file" },
  { "npy_save", npy_save, false, "npy_save(path, tensor): saves a tensor as .npy, at once" },
  { "safetensors_load", safetensors_load, false,
    "safetensors_load(path): a table of tensors by name, and its metadata" },
  { "safetensors_save", safetensors_save, false,
    "safetensors_save(path, tensors [, metadata]): saves a table of tensors by name, at once" },
  { NULL, NULL, false, NULL },
};

void gqL_open_io(lua_State *L) {
  gqL_pushclass(L, BOX, box_gc);
  lua_pop(L, 1);
  gqL_register(L, functions);
}
