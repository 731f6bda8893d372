/*
** l_index.c -- x[i] and x[{i, {a, b}, {a, b, step}, {}}]: views, and assignment through them.
*/
#include "bind.h"

/* What a key selects: a SLICE of t, then the shape without the dimensions an index dropped. */
typedef struct selection {
  gq_attr slice;
  gq_shape kept;
} selection;

/* 1-based or negative position -> 0-based. */
static int64_t position(lua_State *L, int64_t i, int64_t size, int dim, const char *what) {
  if (i == 0 || i > size || i < -size)
    gqL_error(L, "%s %I is out of range in dimension %d of size %I%s", what, (LUAI_UACINT)i, dim + 1,
              (LUAI_UACINT)size,
              i == 0          ? " (indices count from 1)"
              : i == size + 1 ? "; loop with for i = 1, #x, or for i, row in x:ipairs()"
                              : "");
  return i > 0 ? i - 1 : i + size;
}

static int64_t table_int(lua_State *L, int i, const char *what) {
  int isint = 0;
  lua_rawgeti(L, -1, i);
  lua_Integer v = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &isint) : 0;
  if (!isint) gqL_error(L, "index: the %s of a range must be an integer, got %s", what, gqL_typename(L, -1));
  lua_pop(L, 1);
  return v;
}

/* The table {a, b[, step]} or {} on top selects from dimension `dim`. {a, a - 1} is empty. */
static void select_range(lua_State *L, selection *s, int dim) {
  int64_t size = s->slice.shape.dim[dim];
  lua_Unsigned n = lua_rawlen(L, -1);
  if (n == 0) return;
  if (n == 1 || n > 3)
    gqL_error(L, "index: a range is {first, last}, {first, last, step} or {}, got a table of %I",
              (LUAI_UACINT)n);
  int64_t step = n == 3 ? table_int(L, 3, "step") : 1;
  int64_t a = table_int(L, 1, "start"), b = table_int(L, 2, "end");
  if (step < 1) gqL_error(L, "index: the step of a range must be at least 1, got %I", (LUAI_UACINT)step);
  int64_t last = b == 0 && a == 1 ? -1 : position(L, b, size, dim, "range end");
  int64_t first = a == last + 2 && a > 0 ? last + 1 : position(L, a, size, dim, "range start");
  if (first > last + 1)
    gqL_error(L, "index: the range {%I, %I} runs backwards in dimension %d of size %I", (LUAI_UACINT)a,
              (LUAI_UACINT)b, dim + 1, (LUAI_UACINT)size);
  bool empty = first > last;
  s->slice.start[dim] = empty ? 0 : first;
  int64_t count = empty ? 0 : (last - first) / step + 1;
  s->slice.step[dim] = count > 1 ? step : 1; /* a step to nowhere may be too long for a stride */
  s->slice.shape.dim[dim] = count;
}

/* The entry on top: a number drops the dimension, a table is a range. */
static void select_dim(lua_State *L, selection *s, int dim) {
  if (lua_istable(L, -1)) {
    select_range(L, s, dim);
    s->kept.dim[s->kept.ndim++] = s->slice.shape.dim[dim];
    return;
  }
  int isint = 0;
  lua_Integer i = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &isint) : 0;
  if (!isint) {
    const char *hint = gqL_totensor(L, -1) ? " (see gq.index_select, gq.gather and gq.where)" : "";
    const char *given = gqL_typename(L, -1);
    gqL_error(L, "index: integer or range {first, last} expected, got %s%s", given, hint);
  }
  s->slice.start[dim] = position(L, i, s->slice.shape.dim[dim], dim, "index");
  s->slice.shape.dim[dim] = 1;
}

static selection select_key(lua_State *L, const gq_tensor *t, int key) {
  selection s = { .slice.shape = t->shape };
  int n = 1, dims = t->shape.ndim;
  for (int i = 0; i < dims; i++) s.slice.step[i] = 1;
  bool list = lua_istable(L, key);
  if (list) {
    n = (int)lua_rawlen(L, key);
    if (n == 0 && (lua_pushnil(L), lua_next(L, key)))
      gqL_error(L, "index: integers and ranges expected, got a table with other keys");
  }
  if (n > dims)
    gqL_error(L, "index: %d indices for a tensor of %d dimensions%s", n, dims,
              dims == 0 ? "; the number of a 0-d tensor is x:item()" : "");
  for (int i = 0; i < dims; i++) {
    if (i >= n) {
      s.kept.dim[s.kept.ndim++] = t->shape.dim[i];
      continue;
    }
    if (list) lua_rawgeti(L, key, i + 1);
    else lua_pushvalue(L, key);
    select_dim(L, &s, i);
    lua_pop(L, 1);
  }
  return s;
}

/* x[mask], x[indices] and their assignments are arrays.lua's. */
int gqL_index(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (gqL_totensor(L, 2)) return gqL_callcore(L, "index_tensor", 1);
  selection s = select_key(L, t, 2);
  t = gqL_op(L, GQ_OP_SLICE, 1, &t, &s.slice);
  if (s.kept.ndim != t->shape.ndim) gqL_op(L, GQ_OP_RESHAPE, 1, &t, &(gq_attr){ .shape = s.kept });
  return 1;
}

/* ---- assignment ---- */

/* The selected numbers as a view that no tape sees, pushed. */
static gq_tensor *target(lua_State *L, const gq_tensor *t, const selection *s) {
  int64_t stride[GQ_MAXDIM], offset = t->offset;
  for (int i = 0, n = t->shape.ndim; i < n; i++) {
    offset += s->slice.shape.dim[i] ? s->slice.start[i] * t->stride[i] : 0;
    stride[i] = t->stride[i] * s->slice.step[i];
  }
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_view(t, s->slice.shape, stride, offset, h));
  return *h;
}

/* The number or boolean at arg, for every entry. */
static void assign_number(lua_State *L, gq_tensor *to, int arg) {
  int isint = 1;
  double x = lua_isboolean(L, arg) ? lua_toboolean(L, arg) : lua_tonumber(L, arg);
  lua_Integer i = lua_isboolean(L, arg) ? lua_toboolean(L, arg) : lua_tointegerx(L, arg, &isint);
  if ((to->dtype == GQ_I64 && !isint) || (to->dtype == GQ_BOOL && x != 0 && x != 1))
    gqL_error(L, "assignment: number %f has no %s form", (LUAI_UACNUMBER)x, gq_dtype_name(to->dtype));
  gqL_try(L, to->dtype == GQ_I64 ? gq_tensor_fill_int(to, i) : gq_tensor_fill(to, x));
}

/* v stretched to the shape s, without tape, pushed. */
static gq_tensor *stretched(lua_State *L, const gq_tensor *v, gq_shape s) {
  int lead = s.ndim - v->shape.ndim;
  int64_t stride[GQ_MAXDIM] = { 0 };
  bool fits = lead >= 0;
  for (int i = 0; i < v->shape.ndim && fits; i++) {
    fits = v->shape.dim[i] == 1 || v->shape.dim[i] == s.dim[i + lead];
    stride[i + lead] = v->shape.dim[i] == 1 ? 0 : v->stride[i];
  }
  if (!fits) {
    char a[256], b[256];
    gqL_error(L, "assignment: a value of shape %s does not fit the entries of shape %s",
              gq_shape_text(v->shape, a, sizeof a), gq_shape_text(s, b, sizeof b));
  }
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_view(v, s, stride, v->offset, h));
  return *h;
}

static void check_value(lua_State *L, const gq_tensor *v, const gq_tensor *to) {
  if (v->storage == NULL)
    gqL_error(
      L, "assignment: a traced value cannot be stored; build the result with gq.where, gq.cat or gq.stack");
  if (v->requires_grad && gq_recording())
    gqL_error(
      L,
      "assignment: the value carries a gradient that would be lost; build the result with gq.where, gq.cat "
      "or gq.stack, or assign v:detach()");
  if (gq_is_float(v->dtype) && !gq_is_float(to->dtype))
    gqL_error(L, "assignment: a %s value into a tensor of dtype %s: convert with :to(\"%s\")",
              gq_dtype_name(v->dtype), gq_dtype_name(to->dtype), gq_dtype_name(to->dtype));
}

/* x[key] = value, for arguments x, key, value. */
int gqL_newindex(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  gqL_checkwritable(L, t, "assignment");
  if (gqL_totensor(L, 2)) return gqL_callcore(L, "assign_tensor", 0);
  selection s = select_key(L, t, 2);
  gq_tensor *to = target(L, t, &s);
  bool single = lua_type(L, 3) == LUA_TNUMBER || (lua_isboolean(L, 3) && to->dtype == GQ_BOOL);
  if (single) {
    assign_number(L, to, 3);
    return 0;
  }
  gq_tensor *v = lua_istable(L, 3) ? gqL_fromtable(L, 3, to->dtype) : gqL_operand(L, 3, to->dtype);
  check_value(L, v, to);
  /* the value meets the shape without dropped dimensions; `to` has them as 1 */
  gq_tensor **shaped = gqL_pushtensor(L);
  gq_tensor *fit = stretched(L, v, s.kept);
  gqL_retry(L, gq_tensor_contiguous_get(fit, shaped));
  int64_t stride[GQ_MAXDIM];
  gq_shape_strides(to->shape, stride);
  gq_tensor **same = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_view(*shaped, to->shape, stride, (*shaped)->offset, same));
  gqL_retry(L, gq_tensor_copy(to, *same));
  return 0;
}
