/*
** l_linear.c -- what lua/gq/linear.lua and arrays.lua are made of and what needs numbers: LAPACK, orders, places.
*/
#include <stdlib.h>
#include <string.h>
#include "bind.h"

static gq_tensor *operand(lua_State *L, int arg, const char *what) {
  gq_tensor *t = gqL_checktensor(L, arg);
  if (!t->storage)
    gqL_error(
      L, "gq.%s has no traced form: call it outside of the dynamics function, or solve with trace = false",
      what);
  return t;
}

/* solve(a, b): A X = B */
static int core_solve(lua_State *L) {
  gq_tensor *a = operand(L, 1, "solve"), *b = operand(L, 2, "solve"), **h = gqL_pushtensor(L);
  gqL_retry(L, gq_linear_solve(a, b, false, h));
  gqL_held(L, 1);
  gqL_counted(L);
  return 1;
}

static int core_det(lua_State *L) {
  gq_tensor *a = operand(L, 1, "det"), **h = gqL_pushtensor(L);
  gqL_retry(L, gq_linear_det(a, h));
  gqL_held(L, 1);
  gqL_counted(L);
  return 1;
}

static int core_cholesky(lua_State *L) {
  gq_tensor *a = operand(L, 1, "cholesky"), **h = gqL_pushtensor(L);
  gqL_retry(L, gq_linear_cholesky(a, h));
  gqL_held(L, 1);
  gqL_counted(L);
  return 1;
}

static int core_eigh(lua_State *L) {
  gq_tensor *a = operand(L, 1, "eigh"), **w = gqL_pushtensor(L), **v = gqL_pushtensor(L), *out[2];
  gqL_retry(L, gq_linear_eigh(a, out));
  *w = out[0], *v = out[1];
  gqL_held(L, 2);
  gqL_counted(L);
  return 2;
}

/* ---- orders ---- */

typedef struct entry {
  int64_t key, at;
} entry;

static int rising(const void *a, const void *b) {
  const entry *x = a, *y = b;
  if (x->key != y->key) return x->key < y->key ? -1 : 1;
  return x->at < y->at ? -1 : 1;
}

/* An integer that orders as the number does: NaN last. */
static int64_t key_of(const gq_tensor *t, const void *p, int64_t i) {
  double x;
  int64_t bits;
  switch (t->dtype) {
    case GQ_F32: x = (double)((const float *)p)[i]; break;
    case GQ_F64: x = ((const double *)p)[i]; break;
    case GQ_I64: return ((const int64_t *)p)[i];
    default: return ((const uint8_t *)p)[i];
  }
  if (x != x) return INT64_MAX;
  x += 0.0; /* -0 is 0 */
  memcpy(&bits, &x, sizeof bits);
  return bits < 0 ? bits ^ INT64_MAX : bits;
}

/* argsort(x, falling): positions that sort the last dimension; equal numbers stay in their order. */
static int core_argsort(lua_State *L) {
  gq_tensor *t = operand(L, 1, "sort"), **h = gqL_pushtensor(L), **to = gqL_pushtensor(L);
  bool falling = lua_toboolean(L, 2);
  if (t->shape.ndim == 0) return gqL_error(L, "sort: a tensor without dimensions has nothing to sort");
  gqL_retry(L, gq_tensor_host(t, h));
  gqL_retry(L, gq_tensor_empty(GQ_I64, t->shape, to));
  int64_t n = t->shape.dim[t->shape.ndim - 1], rows = n ? gq_numel(t->shape) / n : 0,
          *out = gq_tensor_data(*to);
  entry *e = lua_newuserdatauv(L, (size_t)n * sizeof *e + 1, 0);
  const void *from = gq_tensor_data(*h);
  for (int64_t r = 0; r < rows; r++, out += n) {
    for (int64_t i = 0; i < n; i++) {
      int64_t key = key_of(t, from, r * n + i);
      e[i] = (entry){ falling ? ~key : key, i };
    }
    qsort(e, (size_t)n, sizeof *e, rising);
    for (int64_t i = 0; i < n; i++) out[i] = e[i].at + 1;
  }
  lua_pop(L, 1);
  gqL_counted(L);
  return 1;
}

/* places(mask): where a bool tensor is true, counted along its numbers. */
static int core_places(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1), **h = gqL_pushtensor(L), **to = gqL_pushtensor(L);
  gqL_checknumbers(L, t, "x[mask]");
  gqL_retry(L, gq_tensor_host(t, h));
  const uint8_t *v = gq_tensor_data(*h);
  int64_t n = gq_numel(t->shape), count = 0;
  for (int64_t i = 0; i < n; i++) count += v[i];
  gqL_retry(L, gq_tensor_empty(GQ_I64, (gq_shape){ 1, { count } }, to));
  int64_t *out = gq_tensor_data(*to);
  for (int64_t i = 0; i < n; i++)
    if (v[i]) *out++ = i + 1;
  gqL_counted(L);
  return 1;
}

void gqL_open_linear(lua_State *L) {
  static const luaL_Reg functions[] = { { "solve_equations", core_solve },
                                        { "det", core_det },
                                        { "cholesky", core_cholesky },
                                        { "eigh", core_eigh },
                                        { "argsort", core_argsort },
                                        { "places", core_places },
                                        { NULL, NULL } };
  gqL_core(L, functions);
}
