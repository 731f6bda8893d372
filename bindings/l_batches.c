/*
** l_batches.c -- rows of data sets for Lua files, a batch at a time (io/batches.c), and images moved.
*/
#include "bind.h"
#include "../runtime/io/io.h"

#define BATCHES "gq.batches"

/* One on the host, whose numbers lie in a row. */
static gq_tensor *packed(lua_State *L, int arg) {
  gq_tensor *t = gqL_checktensor(L, arg);
  gqL_checknumbers(L, t, "batches");
  luaL_argcheck(L, gq_tensor_device(t) == gq_host && gq_tensor_contiguous(t), arg, "contiguous, on the host");
  return t;
}

static gq_tensor *integers(lua_State *L, int arg, int64_t numbers) {
  gq_tensor *t = packed(L, arg);
  luaL_argcheck(L, t->dtype == GQ_I64 && gq_numel(t->shape) == numbers, arg, "int64, as long as the rows");
  return t;
}

static int batches_gc(lua_State *L) {
  gq_batches **b = luaL_checkudata(L, 1, BATCHES);
  gq_batches_free(*b);
  *b = NULL;
  return 0;
}

/* batches(list, order, size, drop_last, thread [, which of the list, moves]) */
static int core_batches(lua_State *L) {
  gqL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 7);
  gq_batches_of w = { .n = (int)luaL_len(L, 1),
                      .size = luaL_checkinteger(L, 3),
                      .drop_last = lua_toboolean(L, 4),
                      .thread = lua_toboolean(L, 5),
                      .moved = (int)luaL_optinteger(L, 6, 0) - 1 };
  luaL_argcheck(L, w.n > 0 && w.n < 1 << 16, 1, "tensors");
  luaL_argcheck(L, w.size > 0 && w.moved < w.n, 3, "rows");
  gq_tensor **from = lua_newuserdatauv(L, (size_t)w.n * sizeof *from, 0);
  for (int i = 0; i < w.n; i++) {
    lua_rawgeti(L, 1, i + 1);
    from[i] = packed(L, -1);
    luaL_argcheck(L, from[i]->shape.ndim > 0, 1, "rows");
    lua_pop(L, 1);
  }
  w.from = from;
  w.order = packed(L, 2);
  w.order = integers(L, 2, gq_numel(w.order->shape));
  if (w.moved >= 0) {
    luaL_argcheck(L, from[w.moved]->shape.ndim == 4, 1, "images");
    w.moves_ = integers(L, 7, 3 * gq_numel(w.order->shape));
  }
  gq_batches **b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = NULL;
  luaL_setmetatable(L, BATCHES);
  gqL_retry(L, gq_batches_new(&w, b));
  lua_pushinteger(L, w.n);
  return 2;
}

/* next_batch(batches, n): a list of tensors, or nil */
static int core_next_batch(lua_State *L) {
  gq_batches *b = *(gq_batches **)luaL_checkudata(L, 1, BATCHES);
  int n = (int)luaL_checkinteger(L, 2);
  if (!b) return 0;
  gq_tensor **to = lua_newuserdatauv(L, (size_t)n * sizeof *to, 0);
  lua_createtable(L, n, 0);
  int list = lua_gettop(L);
  for (int i = 0; i < n; i++) {
    gqL_pushtensor(L);
    lua_rawseti(L, list, i + 1);
  }
  gqL_retry(L, gq_batches_next(b, to));
  for (int i = 0; i < n; i++) { /* handles as they are: none has a tensor before all have */
    lua_rawgeti(L, list, i + 1);
    *(gq_tensor **)lua_touserdata(L, -1) = to[i];
    lua_pop(L, 1);
  }
  if (!to[0]) return 0;
  gqL_counted(L);
  return 1;
}

/* batchable(x): may batches take it? */
static int core_batchable(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  lua_pushboolean(L, t->storage && gq_tensor_device(t) == gq_host && gq_tensor_contiguous(t));
  return 1;
}

/* moved(x, moves): images {n, c, h, w}, moved as {n, 3} says */
static int core_moved(lua_State *L) {
  gq_tensor *x = packed(L, 1);
  luaL_argcheck(L, x->shape.ndim == 4, 1, "images");
  const int64_t *d = x->shape.dim, *m = gq_tensor_data(integers(L, 2, 3 * d[0]));
  gq_tensor **y = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(x->dtype, x->shape, y));
  size_t number = gq_dtype_size(x->dtype), each = (size_t)(d[1] * d[2] * d[3]) * number;
  const char *from = gq_tensor_data(x);
  char *to = gq_tensor_data(*y);
  for (int64_t i = 0; i < d[0]; i++, m += 3, from += each, to += each)
    gq_image_move(number, d[1], d[2], d[3], from, (gq_moved){ m[0], m[1], m[2] }, to);
  gqL_counted(L);
  return 1;
}

void gqL_open_batches(lua_State *L) {
  static const luaL_Reg functions[] = { { "batches", core_batches },
                                        { "next_batch", core_next_batch },
                                        { "batchable", core_batchable },
                                        { "moved", core_moved },
                                        { NULL, NULL } };
  gqL_pushclass(L, BATCHES, batches_gc);
  lua_pushcfunction(L, batches_gc);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
  gqL_core(L, functions);
}
