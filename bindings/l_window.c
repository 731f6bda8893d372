/*
** l_window.c -- what convolutions are made of, for the library's own Lua files (gq.core): windows over dimensions, the
** adjoint, zeros around. Dimensions count from 1; what does not fit is an error of the operation.
*/
#include <string.h>
#include "l_ode.h"

/* The integers of the table at arg. */
static int sizes(lua_State *L, int arg, int64_t *v) {
  gqL_checktype(L, arg, LUA_TTABLE);
  int n = (int)lua_rawlen(L, arg);
  luaL_argcheck(L, n >= 1 && n <= GQ_MAXDIM, arg, "one to eight integers expected");
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, arg, i + 1);
    v[i] = luaL_checkinteger(L, -1);
    lua_pop(L, 1);
  }
  return n;
}

/* Windows from dim `axis` on of the steps at arg 4 and the distances at arg 5: attributes but for the shape. */
static gq_attr windows(lua_State *L, int n) {
  gq_attr a = { .axis = (int)luaL_checkinteger(L, 2) - 1, .flags = n };
  int64_t step[GQ_MAXDIM], apart[GQ_MAXDIM];
  luaL_argcheck(L, sizes(L, 4, step) == n, 4, "one a dimension expected");
  luaL_argcheck(L, sizes(L, 5, apart) == n, 5, "one a dimension expected");
  luaL_argcheck(L, a.axis >= 0 && a.axis + n <= GQ_MAXDIM, 2, "no such dimension");
  for (int i = 0; i < n; i++) a.step[a.axis + i] = step[i], a.start[a.axis + i] = apart[i];
  return a;
}

/* windows(x, axis, {k..}, {step..}, {apart..}): as many as there are */
static int core_windows(lua_State *L) {
  gq_tensor *x = gqL_checktensor(L, 1);
  int64_t k[GQ_MAXDIM];
  int n = sizes(L, 3, k);
  gq_attr a = windows(L, n);
  gq_shape s = x->shape;
  luaL_argcheck(L, a.axis + n <= s.ndim && s.ndim + n <= GQ_MAXDIM, 1, "too many or too few dimensions");
  a.shape = s, a.shape.ndim += n;
  for (int i = a.axis; i < s.ndim; i++) a.shape.dim[i + n] = s.dim[i];
  for (int i = 0; i < n; i++) {
    int64_t room = s.dim[a.axis + i] - (k[i] - 1) * a.start[a.axis + i] - 1, step = a.step[a.axis + i];
    a.shape.dim[a.axis + i] = k[i];
    a.shape.dim[a.axis + n + i] = step < 1 || room < 0 ? 0 : room / step + 1;
  }
  gqL_op(L, GQ_OP_WINDOW, 1, &x, &a);
  return 1;
}

/* windows_add(x, axis, {size..}, {step..}, {apart..}) */
static int core_windows_add(lua_State *L) {
  gq_tensor *x = gqL_checktensor(L, 1);
  int64_t size[GQ_MAXDIM];
  int n = sizes(L, 3, size);
  gq_attr a = windows(L, n);
  luaL_argcheck(L, a.axis + 2 * n <= x->shape.ndim, 1, "too few dimensions");
  a.shape = x->shape, a.shape.ndim -= n;
  for (int i = a.axis + n; i < a.shape.ndim; i++) a.shape.dim[i] = x->shape.dim[i + n];
  for (int i = 0; i < n; i++) a.shape.dim[a.axis + i] = size[i];
  gqL_op(L, GQ_OP_WINDOW_ADD, 1, &x, &a);
  return 1;
}

/* pad(x, {before..}, {after..}): zeros around, for each dim */
static int core_pad(lua_State *L) {
  gq_tensor *x = gqL_checktensor(L, 1);
  int64_t after[GQ_MAXDIM];
  gq_attr a = { .shape = x->shape };
  luaL_argcheck(L, sizes(L, 2, a.start) == x->shape.ndim, 2, "one a dimension expected");
  luaL_argcheck(L, sizes(L, 3, after) == x->shape.ndim, 3, "one a dimension expected");
  for (int i = 0; i < x->shape.ndim; i++) a.step[i] = 1, a.shape.dim[i] += a.start[i] + after[i];
  gqL_op(L, GQ_OP_PAD, 1, &x, &a);
  return 1;
}

/* solving(): true in a trace; inside a solve that calls back, its number; else nil */
static int core_solving(lua_State *L) {
  int64_t number = gqL_call_running();
  if (number) lua_pushinteger(L, number);
  else if (gq_trace_current()) lua_pushboolean(L, 1);
  else lua_pushnil(L);
  return 1;
}

void gqL_open_window(lua_State *L) {
  static const luaL_Reg list[] = { { "windows", core_windows },
                                   { "windows_add", core_windows_add },
                                   { "pad", core_pad },
                                   { "solving", core_solving },
                                   { NULL, NULL } };
  gqL_core(L, list);
}
