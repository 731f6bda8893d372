/*
** l_dense.c -- the interpolant that gq.odeint gives with dense = true: called with times, it gives states.
*/
#include "bind.h"

#include <string.h>

#define INTERPOLANT "gq.interpolant"

static gq_dense *check_interpolant(lua_State *L) {
  gq_dense **d = luaL_checkudata(L, 1, INTERPOLANT);
  if (!*d) gqL_error(L, "this interpolant was freed");
  return *d;
}

static int interpolant_gc(lua_State *L) {
  gq_dense **d = luaL_checkudata(L, 1, INTERPOLANT);
  gq_dense_free(*d);
  *d = NULL;
  return 0;
}

/* at(t): a number or 0-d tensor gives a state, a table or 1-d tensor of n times {n, ...}. */
static int interpolant_call(lua_State *L) {
  gq_dense *d = check_interpolant(L);
  bool number = lua_type(L, 2) == LUA_TNUMBER;
  gq_tensor *x = number ? NULL : gqL_totensor(L, 2);
  if (!number && !x && !lua_istable(L, 2))
    return gqL_error(L, "interpolant: a time, or a tensor or table of times expected, got %s",
                     gqL_typename(L, 2));
  if (x && x->trace) return gqL_error(L, "interpolant: the time is a traced value; it must be known");
  if (x && (x->shape.ndim > 1 || x->dtype == GQ_BOOL))
    return gqL_error(L, "interpolant: times are numbers in one dimension, got %s", gqL_typename(L, 2));
  if (x) x = gqL_onhost(L, x);
  bool many = x ? x->shape.ndim == 1 : !number;
  int64_t n = !many ? 1 : x ? x->shape.dim[0] : (int64_t)lua_rawlen(L, 2);
  double *t = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *t, 0);
  for (int64_t i = 0; i < n; i++) {
    if (x) t[i] = gq_tensor_get(x, &i);
    else if (number) t[i] = lua_tonumber(L, 2);
    else {
      if (lua_rawgeti(L, 2, i + 1) != LUA_TNUMBER)
        return gqL_error(L, "interpolant: t[%d] is %s, not a number", (int)i + 1, gqL_typename(L, -1));
      t[i] = lua_tonumber(L, -1);
      lua_pop(L, 1);
    }
  }
  gq_shape s = gq_dense_shape(d), shape = { .ndim = s.ndim + many, .dim = { n } };
  for (int i = 0; i < s.ndim; i++) shape.dim[i + many] = s.dim[i];
  gq_tensor **out = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_new_on(gq_dense_device(d), gq_dense_dtype(d), shape, out));
  gqL_try(L, gq_dense_at(d, n, t, *out));
  gqL_counted(L);
  return 1;
}

/* at.t0, at.t1, at.steps */
static int interpolant_index(lua_State *L) {
  gq_dense *d = check_interpolant(L);
  const char *key = luaL_checkstring(L, 2);
  if (!strcmp(key, "t0")) lua_pushnumber(L, gq_dense_first(d));
  else if (!strcmp(key, "t1")) lua_pushnumber(L, gq_dense_last(d));
  else if (!strcmp(key, "steps")) lua_pushinteger(L, gq_dense_steps(d));
  else
    return gqL_error(L, "an interpolant has t0, t1, steps and derivative, and is called with times; not '%s'",
                     key);
  return 1;
}

static int interpolant_tostring(lua_State *L) {
  gq_dense **d = luaL_checkudata(L, 1, INTERPOLANT);
  if (!*d) lua_pushliteral(L, "interpolant (freed)");
  else
    lua_pushfstring(L, "interpolant on [%f, %f], %d steps", gq_dense_first(*d), gq_dense_last(*d),
                    (int)gq_dense_steps(*d));
  return 1;
}

gq_dense **gqL_pushinterpolant(lua_State *L) {
  static const luaL_Reg meta[] = {
    { "__gc", interpolant_gc },       { "__close", interpolant_gc },          { "__call", interpolant_call },
    { "__index", interpolant_index }, { "__tostring", interpolant_tostring }, { NULL, NULL }
  };
  gq_dense **d = lua_newuserdatauv(L, sizeof *d, 0);
  *d = NULL;
  if (luaL_newmetatable(L, INTERPOLANT)) {
    luaL_setfuncs(L, meta, 0);
    gqL_setboolean(L, "__metatable", false);
  }
  lua_setmetatable(L, -2);
  return d;
}
