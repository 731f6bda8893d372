/*
** l_json.c -- JSON for records and headers, on cJSON. Integers stay integers up to 2^53, as far as
** a double tells them apart; an empty table is an object unless json_array marked it; null is
** json_null, so that arrays keep their length. Keys are sorted: equal tables give equal text.
*/
#include "bind.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TREE "gq.json"
#define ARRAY "gq.json_array" /* metatable of a table that is an array even if empty */

enum { MAX_DEPTH = 200 };

/* ---- memory ----
** cJSON's hooks are global: ours are set around each call that allocates or frees, and nothing of
** Lua runs in between, so that a program that embeds us and uses cJSON keeps its own allocator. */

static __thread bool starved; /* an allocation failed in the last call */

static void *json_alloc(size_t n) {
  void *p = gq_alloc(n);
  if (!p) starved = true;
  return p;
}

static void enter(void) {
  starved = false;
  cJSON_InitHooks(&(cJSON_Hooks){ json_alloc, gq_free });
}

static void leave(void) { cJSON_InitHooks(NULL); }

/* cJSON's function of that name, with our hooks. */
#define OURS(type, name, of, call) \
  static type made_##name(of) {    \
    enter();                       \
    type made = cJSON_##call;      \
    leave();                       \
    return made;                   \
  }
OURS(cJSON *, string, const char *s, CreateString(s))
OURS(cJSON *, raw, const char *s, CreateRaw(s))
OURS(cJSON *, bool, bool x, CreateBool(x))
OURS(cJSON *, null, void, CreateNull())
OURS(cJSON *, array, void, CreateArray())
OURS(cJSON *, object, void, CreateObject())
OURS(char *, text, const cJSON *item, PrintUnformatted(item))

/* A tree, and the text made from it. */
typedef struct tree {
  cJSON *root;
  char *text;
} tree;

static void empty(tree *t) {
  enter();
  cJSON_Delete(t->root);
  leave();
  gq_free(t->text);
  *t = (tree){ NULL, NULL };
}

static int tree_gc(lua_State *L) {
  tree *t = luaL_testudata(L, 1, TREE);
  if (t) empty(t);
  return 0;
}

static tree *pushtree(lua_State *L) {
  tree *t = lua_newuserdatauv(L, sizeof *t, 0);
  *t = (tree){ NULL, NULL };
  luaL_setmetatable(L, TREE);
  return t;
}

/* ---- encoding ---- */

static cJSON *encode(lua_State *L, int arg, cJSON *parent, const char *key, int depth);

/* Hang a new item into the tree, which owns it from then on. Raises only after freeing it. */
static cJSON *attach(lua_State *L, cJSON *parent, const char *key, cJSON *item) {
  bool ok = item != NULL;
  enter();
  if (ok && parent) ok = key ? cJSON_AddItemToObject(parent, key, item) : cJSON_AddItemToArray(parent, item);
  if (!ok) cJSON_Delete(item);
  leave();
  if (!ok) gqL_try(L, gq_nomem(sizeof *item));
  return item;
}

/* The shortest text that reads back as x, with a dot whatever the locale says. */
static void format_number(double x, char buf[40]) {
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(buf, 40, "%.*g", digits, x);
    if (strtod(buf, NULL) == x) break;
  }
  size_t n = strspn(buf, "-0123456789");
  if (buf[n] == '\0') memcpy(buf + n, ".0", 3);
  else if (buf[n] != 'e') buf[n] = '.';
}

static int fail(lua_State *L, const char *text) { return gqL_error(L, "json_encode: %s", text); }

static cJSON *number(lua_State *L, int arg) {
  char buf[40];
  double x = lua_tonumber(L, arg);
  if (lua_isinteger(L, arg)) snprintf(buf, sizeof buf, "%lld", (long long)lua_tointeger(L, arg));
  else if (!isfinite(x)) fail(L, "NaN and infinity have no place in JSON: write a string or json_null");
  else format_number(x, buf);
  return made_raw(buf);
}

static const char *text(lua_State *L, int arg) {
  size_t n;
  const char *s = lua_tolstring(L, arg, &n);
  if (strlen(s) != n) fail(L, "a string contains a zero byte");
  if (!gq_utf8(s, n)) fail(L, "a string is not UTF-8 text");
  return s;
}

/* -1: an object; otherwise the length of an array. */
static lua_Integer array_length(lua_State *L, int arg) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, arg), keys = 0;
  bool marked = false, strings = false;
  if (lua_getmetatable(L, arg)) {
    luaL_getmetatable(L, ARRAY);
    marked = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    if (lua_type(L, -2) == LUA_TSTRING) strings = true;
    else keys++;
  }
  if (strings && keys)
    fail(L, "a table has both string keys and others: it is neither an object nor an array");
  if (keys && keys != n) fail(L, "a table with keys other than strings and 1, 2, ... n has no place in JSON");
  return n > 0 || (marked && !strings) ? n : -1;
}

static int compare(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Keys of the table at `arg`, sorted, in a userdata (pushed); lent by the table. */
static const char **sorted_keys(lua_State *L, int arg, size_t *count) {
  size_t n = 0, i = 0;
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) n++;
  const char **keys = lua_newuserdatauv(L, (n + 1) * sizeof *keys, 0);
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) keys[i++] = text(L, lua_gettop(L) - 1);
  if (n) qsort(keys, n, sizeof *keys, compare);
  *count = n;
  return keys;
}

static cJSON *encode_table(lua_State *L, int arg, cJSON *parent, const char *key, int depth) {
  size_t n;
  if (depth > MAX_DEPTH) fail(L, "nested more than 200 deep, or a table contains itself");
  if (!lua_checkstack(L, 10)) fail(L, "nested too deep");
  lua_Integer length = array_length(L, arg);
  if (length >= 0) {
    cJSON *array = attach(L, parent, key, made_array());
    for (lua_Integer i = 1; i <= length; i++, lua_pop(L, 1)) {
      lua_rawgeti(L, arg, i);
      encode(L, lua_gettop(L), array, NULL, depth + 1);
    }
    return array;
  }
  cJSON *object = attach(L, parent, key, made_object());
  const char **keys = sorted_keys(L, arg, &n);
  for (size_t i = 0; i < n; i++, lua_pop(L, 1)) {
    lua_pushstring(L, keys[i]);
    lua_rawget(L, arg);
    encode(L, lua_gettop(L), object, keys[i], depth + 1);
  }
  lua_pop(L, 1);
  return object;
}

static cJSON *encode(lua_State *L, int arg, cJSON *parent, const char *key, int depth) {
  switch (lua_type(L, arg)) {
    case LUA_TBOOLEAN: return attach(L, parent, key, made_bool(lua_toboolean(L, arg)));
    case LUA_TNUMBER: return attach(L, parent, key, number(L, arg));
    case LUA_TSTRING: return attach(L, parent, key, made_string(text(L, arg)));
    case LUA_TTABLE: return encode_table(L, arg, parent, key, depth);
    case LUA_TLIGHTUSERDATA:
      if (!lua_touserdata(L, arg)) return attach(L, parent, key, made_null());
      break;
    default: break;
  }
  gqL_error(L, "json_encode: %s has no place in JSON", gqL_typename(L, arg));
  return NULL;
}

/* The whole tree hangs in an array of one, owned by the userdata before anything can fail. */
static int json_encode(lua_State *L) {
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  tree *t = pushtree(L);
  t->root = attach(L, NULL, NULL, made_array());
  cJSON *item = encode(L, 1, t->root, NULL, 1);
  t->text = made_text(item);
  if (!t->text) gqL_try(L, gq_nomem(0));
  lua_pushstring(L, t->text);
  empty(t);
  return 1;
}

/* ---- decoding ---- */

static void decode(lua_State *L, const cJSON *item, int depth);

static void decode_number(lua_State *L, double x) {
  if (!isfinite(x)) gqL_error(L, "json_decode: a number is too large");
  if (x == floor(x) && fabs(x) < 0x1p53) lua_pushinteger(L, (lua_Integer)x);
  else lua_pushnumber(L, x);
}

static void decode_list(lua_State *L, const cJSON *item, int depth) {
  lua_Integer i = 0;
  lua_newtable(L);
  if (cJSON_IsArray(item) && !item->child) luaL_setmetatable(L, ARRAY);
  for (const cJSON *child = item->child; child; child = child->next) {
    decode(L, child, depth + 1);
    if (cJSON_IsArray(item)) lua_rawseti(L, -2, ++i);
    else {
      lua_pushstring(L, child->string);
      lua_insert(L, -2);
      lua_rawset(L, -3);
    }
  }
}

static void decode(lua_State *L, const cJSON *item, int depth) {
  if (depth > MAX_DEPTH) gqL_error(L, "json_decode: nested more than %d deep", MAX_DEPTH);
  luaL_checkstack(L, 6, "json_decode");
  if (cJSON_IsBool(item)) lua_pushboolean(L, cJSON_IsTrue(item));
  else if (cJSON_IsNumber(item)) decode_number(L, item->valuedouble);
  else if (cJSON_IsString(item)) lua_pushstring(L, item->valuestring);
  else if (cJSON_IsNull(item)) lua_pushlightuserdata(L, NULL);
  else decode_list(L, item, depth);
}

/* \u0000 would end a C string early. */
static void check_source(lua_State *L, const char *s, size_t n) {
  size_t good = gq_utf8_prefix(s, n);
  if (strlen(s) != n) gqL_error(L, "json_decode: byte %d is zero", (int)strlen(s) + 1);
  if (good != n) gqL_error(L, "json_decode: byte %d: the text is not UTF-8", (int)good + 1);
  for (const char *p = s; (p = strchr(p, '\\')); p += 2)
    if (strncmp(p, "\\u0000", 6) == 0)
      gqL_error(L, "json_decode: byte %d: \\u0000 is not supported", (int)(p - s) + 1);
    else if (p[1] == '\0') break;
}

static int json_decode(lua_State *L) {
  size_t n;
  const char *end = NULL;
  if (lua_type(L, 1) != LUA_TSTRING)
    gqL_badarg(L, 1, lua_pushfstring(L, "a string expected, got %s", gqL_typename(L, 1)));
  const char *s = lua_tolstring(L, 1, &n);
  check_source(L, s, n);
  tree *t = pushtree(L);
  enter();
  t->root = cJSON_ParseWithLengthOpts(s, n + 1, &end, true);
  leave();
  if (!t->root && starved) gqL_try(L, gq_nomem(n));
  if (!t->root) return gqL_error(L, "json_decode: not JSON at byte %d", end ? (int)(end - s) + 1 : 1);
  decode(L, t->root, 1);
  empty(t);
  return 1;
}

/* Mark a table as an array; a table with another metatable is left alone. */
static int json_array(lua_State *L) {
  if (lua_isnoneornil(L, 1)) lua_settop(L, 0), lua_newtable(L);
  gqL_checktype(L, 1, LUA_TTABLE);
  if (lua_getmetatable(L, 1)) {
    luaL_getmetatable(L, ARRAY);
    luaL_argcheck(L, lua_rawequal(L, -1, -2), 1, "the table has a metatable already");
  }
  lua_settop(L, 1);
  luaL_setmetatable(L, ARRAY);
  return 1;
}

static const gqL_function functions[] = {
  { "json_encode", json_encode, false,
    "json_encode(value): a table, string, number or boolean as JSON on one line" },
  { "json_decode", json_decode, false, "json_decode(text): the value of a JSON text; null is gq.json_null" },
  { "json_array", json_array, false,
    "json_array([table]): marks a table as an array, so that {} is [] in JSON" },
  { NULL, NULL, false, NULL },
};

void gqL_open_json(lua_State *L) {
  gqL_pushclass(L, TREE, tree_gc);
  luaL_newmetatable(L, ARRAY);
  lua_pop(L, 2);
  gqL_register(L, functions);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "json_null");
}
