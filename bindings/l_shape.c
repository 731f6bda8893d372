/*
** l_shape.c -- functions that move numbers and leave them as they are: reshape, permute, expand,
** cat, split, index_select, gather.
*/
#include <math.h>
#include <string.h>
#include "bind.h"

/* Integers from argument 2 on, as numbers or one table: count, at most GQ_MAXDIM. */
static int list_arg(lua_State *L, int64_t *v, const char *what) {
  bool list = lua_istable(L, 2);
  if (list && lua_gettop(L) > 2) gqL_error(L, "%s: either one table or numbers, not both", what);
  int n = list ? (int)lua_rawlen(L, 2) : lua_gettop(L) - 1;
  if (n > GQ_MAXDIM) gqL_error(L, "%s: at most %d dimensions, got %d", what, GQ_MAXDIM, n);
  for (int i = 0; i < n; i++) {
    int isint = 0;
    if (list) lua_rawgeti(L, 2, i + 1);
    else lua_pushvalue(L, i + 2);
    v[i] = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &isint) : 0;
    if (!isint) gqL_error(L, "%s: integers expected, got %s", what, gqL_typename(L, -1));
    lua_pop(L, 1);
  }
  return n;
}

/* ---- reshape ---- */

/* Sizes with at most one -1, which is found from the number of entries. */
static gq_shape new_shape(lua_State *L, const gq_tensor *t, const char *what) {
  gq_shape s = { 0 };
  int unknown = -1;
  int64_t known = 1, n = gq_numel(t->shape);
  s.ndim = list_arg(L, s.dim, what);
  for (int i = 0; i < s.ndim; i++) {
    if (s.dim[i] == -1 && unknown < 0) unknown = i;
    else if (s.dim[i] < 0)
      gqL_error(L, "%s: sizes are at least 0, and one may be -1; got %I", what, (LUAI_UACINT)s.dim[i]);
    else if (__builtin_mul_overflow(known, s.dim[i], &known)) gqL_error(L, "%s: sizes overflow", what);
  }
  if (unknown >= 0) {
    if (known == 0 || n % known != 0)
      gqL_error(L, "%s: %I numbers do not divide into the other sizes (%I)", what, (LUAI_UACINT)n,
                (LUAI_UACINT)known);
    else s.dim[unknown] = n / known;
  } else if (known != n) {
    char a[256], b[256];
    gqL_error(L, "%s: a tensor of shape %s (%I numbers) cannot have shape %s (%I numbers)", what,
              gq_shape_text(t->shape, a, sizeof a), (LUAI_UACINT)n, gq_shape_text(s, b, sizeof b),
              (LUAI_UACINT)known);
  }
  return s;
}

static int tensor_reshape(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  gqL_reshape(L, t, new_shape(L, t, "reshape"));
  return 1;
}

static int tensor_view(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  gq_tensor *v = gqL_reshape(L, t, new_shape(L, t, "view"));
  if (t->storage != NULL && v->storage != t->storage)
    return gqL_error(L, "view: the numbers are not laid out for this shape: use reshape, which copies");
  return 1;
}

static int tensor_flatten(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  gq_shape from = t->shape, s = { 0 };
  if (from.ndim == 0) return gqL_reshape(L, t, (gq_shape){ 1, { 1 } }), 1;
  int a = lua_isnoneornil(L, 2) ? 0 : gqL_axis(L, 2, from.ndim);
  int b = lua_isnoneornil(L, 3) ? from.ndim - 1 : gqL_axis(L, 3, from.ndim);
  if (a > b) return gqL_error(L, "flatten: the first dimension (%d) comes after the last (%d)", a + 1, b + 1);
  for (int i = 0; i < from.ndim; i++) {
    if (i > a && i <= b) s.dim[s.ndim - 1] *= from.dim[i];
    else s.dim[s.ndim++] = from.dim[i];
  }
  gqL_reshape(L, t, s);
  return 1;
}

/* unflatten(dim, sizes): the inverse of flatten. */
static int tensor_unflatten(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  int axis = gqL_axis(L, 2, t->shape.ndim);
  gq_shape inner = gqL_checkshape(L, 3), s = { 0 };
  int64_t n = 1;
  for (int i = 0; i < inner.ndim; i++)
    if (__builtin_mul_overflow(n, inner.dim[i], &n)) return gqL_error(L, "unflatten: sizes overflow");
  if (n != t->shape.dim[axis])
    return gqL_error(L, "unflatten: dimension %d has size %I, the sizes given multiply to %I", axis + 1,
                     (LUAI_UACINT)t->shape.dim[axis], (LUAI_UACINT)n);
  if (t->shape.ndim - 1 + inner.ndim > GQ_MAXDIM)
    return gqL_error(L, "unflatten: at most %d dimensions", GQ_MAXDIM);
  for (int i = 0; i < t->shape.ndim; i++) {
    if (i != axis) s.dim[s.ndim++] = t->shape.dim[i];
    for (int k = 0; i == axis && k < inner.ndim; k++) s.dim[s.ndim++] = inner.dim[k];
  }
  gqL_reshape(L, t, s);
  return 1;
}

static int tensor_squeeze(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  int only = lua_isnoneornil(L, 2) ? -1 : gqL_axis(L, 2, t->shape.ndim);
  gq_shape s = { 0 };
  for (int i = 0; i < t->shape.ndim; i++)
    if (t->shape.dim[i] != 1 || (only >= 0 && i != only)) s.dim[s.ndim++] = t->shape.dim[i];
  gqL_reshape(L, t, s);
  return 1;
}

static gq_shape with_one(lua_State *L, gq_shape s, int axis) {
  if (s.ndim == GQ_MAXDIM) gqL_error(L, "at most %d dimensions", GQ_MAXDIM);
  memmove(s.dim + axis + 1, s.dim + axis, (size_t)(s.ndim - axis) * sizeof *s.dim);
  s.dim[axis] = 1;
  s.ndim++;
  return s;
}

static int tensor_unsqueeze(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  int axis = gqL_axis(L, 2, t->shape.ndim + 1);
  gqL_reshape(L, t, with_one(L, t->shape, axis));
  return 1;
}

/* ---- permute, expand ---- */

static gq_tensor *permuted(lua_State *L, gq_tensor *t, const int *perm) {
  gq_attr attr = { 0 };
  for (int i = 0; i < t->shape.ndim; i++) attr.perm[i] = perm[i];
  return gqL_op(L, GQ_OP_PERMUTE, 1, &t, &attr);
}

static gq_tensor *swapped(lua_State *L, gq_tensor *t, int a, int b) {
  int perm[GQ_MAXDIM];
  for (int i = 0; i < t->shape.ndim; i++) perm[i] = i == a ? b : i == b ? a : i;
  return permuted(L, t, perm);
}

static int tensor_transpose(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  int n = t->shape.ndim;
  bool given = !lua_isnoneornil(L, 2) || !lua_isnoneornil(L, 3);
  if (!given && n != 2)
    return gqL_error(L, "transpose: name two dimensions of a tensor with %d, as in x:transpose(1, 2)", n);
  swapped(L, t, given ? gqL_axis(L, 2, n) : 0, given ? gqL_axis(L, 3, n) : 1);
  return 1;
}

static int tensor_t(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (t->shape.ndim > 2)
    return gqL_error(L, "t: at most 2 dimensions expected, got %d: use transpose(a, b)", t->shape.ndim);
  if (t->shape.ndim == 2) swapped(L, t, 0, 1);
  else lua_settop(L, 1);
  return 1;
}

static int tensor_permute(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  int64_t v[GQ_MAXDIM];
  int perm[GQ_MAXDIM], n = list_arg(L, v, "permute");
  unsigned seen = 0;
  if (n != t->shape.ndim) return gqL_error(L, "permute: %d dimensions expected, got %d", t->shape.ndim, n);
  for (int i = 0; i < n; i++) {
    if (v[i] == 0 || v[i] > n || v[i] < -n)
      return gqL_error(L, "permute: dimension %I of a tensor of %d dimensions", (LUAI_UACINT)v[i], n);
    perm[i] = (int)(v[i] > 0 ? v[i] - 1 : v[i] + n);
    if (seen >> perm[i] & 1) return gqL_error(L, "permute: dimension %d is named twice", perm[i] + 1);
    seen |= 1u << perm[i];
  }
  permuted(L, t, perm);
  return 1;
}

static gq_tensor *expanded(lua_State *L, gq_tensor *t, gq_shape s) {
  return gqL_op(L, GQ_OP_EXPAND, 1, &t, &(gq_attr){ .shape = s });
}

/* -1 keeps a size; new dimensions come first. */
static int tensor_expand(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  gq_shape s = { 0 };
  s.ndim = list_arg(L, s.dim, "expand");
  int lead = s.ndim - t->shape.ndim;
  for (int i = 0; i < s.ndim; i++) {
    if (s.dim[i] == -1 && i >= lead) s.dim[i] = t->shape.dim[i - lead];
    if (s.dim[i] < 0)
      return gqL_error(L, "expand: sizes are at least 0, or -1 to keep one; got %I", (LUAI_UACINT)s.dim[i]);
  }
  expanded(L, t, s);
  return 1;
}

static int tensor_expand_as(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  expanded(L, t, gqL_checktensor(L, 2)->shape);
  return 1;
}

/* ---- cat, stack, split, narrow ---- */

/* The tensors of the list at arg, of one dtype; pointers in a userdata that is pushed. */
static gq_tensor **check_list(lua_State *L, int arg, int *n, const char *what) {
  if (!lua_istable(L, arg))
    gqL_error(L, "%s: a list of tensors expected, got %s", what, gqL_typename(L, arg));
  lua_Unsigned len = lua_rawlen(L, arg);
  if (len == 0 || len > 100000)
    gqL_error(L, "%s: a list of 1 to 100000 tensors expected, got %I", what, (LUAI_UACINT)len);
  gq_tensor **t = lua_newuserdatauv(L, len * sizeof *t, 0);
  for (lua_Unsigned i = 0; i < len; i++) {
    lua_rawgeti(L, arg, (lua_Integer)i + 1);
    t[i] = gqL_totensor(L, -1);
    if (t[i] == NULL)
      gqL_error(L, "%s: entry %I must be a tensor, got %s", what, (LUAI_UACINT)i + 1, gqL_typename(L, -1));
    lua_pop(L, 1);
  }
  *n = (int)len;
  gqL_promote(L, *n, t, what);
  return t;
}

static gq_tensor *join(lua_State *L, int n, gq_tensor *const *t, int axis) {
  return gqL_op(L, GQ_OP_CAT, n, t, &(gq_attr){ .axis = axis });
}

static int tensor_cat(lua_State *L) {
  int n;
  lua_settop(L, 2);
  gq_tensor **t = check_list(L, 1, &n, "cat");
  join(L, n, t, lua_isnil(L, 2) ? 0 : gqL_axis(L, 2, t[0]->shape.ndim));
  return 1;
}

static int tensor_stack(lua_State *L) {
  int n;
  lua_settop(L, 2);
  gq_tensor **t = check_list(L, 1, &n, "stack");
  gq_shape first = t[0]->shape;
  int axis = lua_isnil(L, 2) ? 0 : gqL_axis(L, 2, first.ndim + 1);
  luaL_checkstack(L, n + 4, "stack");
  for (int i = 0; i < n; i++) {
    if (!gq_shape_equal(t[i]->shape, first)) {
      char a[256], b[256];
      return gqL_error(L, "stack: entry 1 has shape %s, entry %d has shape %s",
                       gq_shape_text(first, a, sizeof a), i + 1, gq_shape_text(t[i]->shape, b, sizeof b));
    }
    t[i] = gqL_reshape(L, t[i], with_one(L, first, axis));
  }
  join(L, n, t, axis);
  return 1;
}

static gq_tensor *narrowed(lua_State *L, gq_tensor *t, int axis, int64_t start, int64_t n) {
  gq_attr attr = { .shape = t->shape };
  for (int i = 0; i < t->shape.ndim; i++) attr.step[i] = 1;
  attr.start[axis] = n ? start : 0;
  attr.shape.dim[axis] = n;
  return gqL_op(L, GQ_OP_SLICE, 1, &t, &attr);
}

static int tensor_narrow(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  int axis = gqL_axis(L, 2, t->shape.ndim);
  int64_t size = t->shape.dim[axis], start = gqL_checkint(L, 3, -size, size + 1, "start");
  int64_t n = gqL_checkint(L, 4, 0, INT64_MAX, "length");
  int64_t first = start < 0 ? start + size : start - 1;
  if (start == 0 || n > size - first)
    return gqL_error(L, "narrow: %I entries from %I on are out of range in dimension %d of size %I",
                     (LUAI_UACINT)n, (LUAI_UACINT)start, axis + 1, (LUAI_UACINT)size);
  narrowed(L, t, axis, first, n);
  return 1;
}

/* The size of piece i: the table's entry, or the common one, cut at the end. */
static int64_t piece_size(lua_State *L, lua_Integer i, int64_t each, int64_t left) {
  if (!lua_istable(L, 2)) return each < left ? each : left;
  int isint = 0;
  lua_rawgeti(L, 2, i);
  lua_Integer n = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &isint) : 0;
  if (!isint || n < 0 || n > left)
    gqL_error(L, "split: size %d: an integer from 0 to the %I entries left expected, got %s", (int)i,
              (LUAI_UACINT)left, gqL_typename(L, -1));
  lua_pop(L, 1);
  return n;
}

/* split(size | {sizes}, dim): a list of views. */
static int tensor_split(lua_State *L) {
  lua_settop(L, 3);
  gq_tensor *t = gqL_checktensor(L, 1);
  if (lua_isnil(L, 3)) {
    lua_pushinteger(L, 1);
    lua_replace(L, 3);
  }
  int axis = gqL_axis(L, 3, t->shape.ndim);
  int64_t size = t->shape.dim[axis], at = 0;
  int64_t each = lua_istable(L, 2) ? 1 : gqL_checkint(L, 2, 1, INT64_MAX, "size");
  lua_Integer pieces = lua_istable(L, 2) ? (lua_Integer)lua_rawlen(L, 2) : size / each + (size % each != 0);
  lua_newtable(L);
  for (lua_Integer i = 1; i <= pieces; i++) {
    int64_t n = piece_size(L, i, each, size - at);
    narrowed(L, t, axis, at, n);
    lua_rawseti(L, 4, i);
    at += n;
  }
  if (at != size)
    return gqL_error(L, "split: the sizes add up to %I, dimension %d has %I entries", (LUAI_UACINT)at,
                     axis + 1, (LUAI_UACINT)size);
  return 1;
}

/* ---- indices ---- */

static void check_range(lua_State *L, const gq_tensor *idx, int64_t size, const char *what) {
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_host((gq_tensor *)idx, h));
  const int64_t *v = gq_tensor_data(*h);
  for (int64_t i = 0, n = gq_numel(idx->shape); i < n; i++)
    if (v[i] < 1 || v[i] > size)
      gqL_error(L, "%s: index %I is out of range 1 to %I", what, (LUAI_UACINT)v[i], (LUAI_UACINT)size);
  lua_pop(L, 1);
}

/* Floats that are whole numbers, as gq.tensor{1, 3} makes them, or an error. */
static gq_tensor *whole(lua_State *L, const gq_tensor *t, const char *what) {
  gqL_checknumbers(L, t, what);
  gq_tensor **d = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_F64, t->shape, d));
  gqL_try(L, gq_tensor_copy(*d, t));
  const double *v = gq_tensor_data(*d);
  for (int64_t i = 0, n = gq_numel(t->shape); i < n; i++)
    if (v[i] != floor(v[i]))
      gqL_error(L, "%s: indices are integers, got %f: make them with {dtype = \"int64\"} or :to(\"int64\")",
                what, (LUAI_UACNUMBER)v[i]);
  gq_tensor **idx = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_I64, t->shape, idx));
  gqL_try(L, gq_tensor_copy(*idx, *d));
  return *idx;
}

/* Indices for index_select and gather: an int64 tensor, a table, or floats that are integral; lent, pushed if made.
** Checked against 1..size where the numbers are known. */
static gq_tensor *indices(lua_State *L, int arg, int64_t size, const char *what) {
  gq_tensor *t = lua_istable(L, arg) ? gqL_fromtable(L, arg, GQ_I64) : gqL_checktensor(L, arg);
  if (t->dtype == GQ_BOOL) gqL_error(L, "%s: integer indices expected, got bool: choose with gq.where", what);
  if (t->dtype != GQ_I64) t = whole(L, t, what);
  if (t->storage != NULL) check_range(L, t, size, what);
  const gq_tensor *x = gqL_totensor(L, 1); /* indices go where their tensor is */
  if (t->storage == NULL || x == NULL) return t;
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_on(t, gq_place_of(x), h));
  return *h;
}

static int tensor_index_select(lua_State *L) {
  lua_settop(L, 3);
  gq_tensor *t = gqL_checktensor(L, 1);
  int axis = gqL_axis(L, 2, t->shape.ndim);
  gq_tensor *idx = indices(L, 3, t->shape.dim[axis], "index_select");
  if (idx->shape.ndim == 0) idx = gqL_reshape(L, idx, (gq_shape){ 1, { 1 } });
  gqL_op(L, GQ_OP_INDEX_SELECT, 2, (gq_tensor *[]){ t, idx }, &(gq_attr){ .axis = axis });
  return 1;
}

static int tensor_gather(lua_State *L) {
  lua_settop(L, 3);
  gq_tensor *t = gqL_checktensor(L, 1);
  int axis = gqL_axis(L, 2, t->shape.ndim);
  gq_tensor *idx = indices(L, 3, t->shape.dim[axis], "gather");
  gqL_op(L, GQ_OP_GATHER, 2, (gq_tensor *[]){ t, idx }, &(gq_attr){ .axis = axis });
  return 1;
}

static const gqL_function functions[] = {
  { "reshape", tensor_reshape, true,
    "x:reshape(sizes...): the same numbers in another shape; one size may be -1" },
  { "view", tensor_view, true, "x:view(sizes...): reshape that never copies" },
  { "flatten", tensor_flatten, true, "x:flatten([first [, last]]): dimensions first to last as one" },
  { "unflatten", tensor_unflatten, true, "x:unflatten(dim, {sizes}): one dimension as several" },
  { "squeeze", tensor_squeeze, true, "x:squeeze([dim]): without dimensions of size 1" },
  { "unsqueeze", tensor_unsqueeze, true, "x:unsqueeze(dim): a new dimension of size 1 at dim" },
  { "transpose", tensor_transpose, true, "x:transpose(a, b): dimensions a and b exchanged" },
  { "t", tensor_t, true, "x:t(): transpose of a matrix" },
  { "permute", tensor_permute, true,
    "x:permute(dims...): dimension i of the result is dimension dims[i] of x" },
  { "expand", tensor_expand, true,
    "x:expand(sizes...): sizes of 1 repeated without a copy; -1 keeps a size" },
  { "expand_as", tensor_expand_as, true, "x:expand_as(y): expand to y's shape" },
  { "cat", tensor_cat, false, "gq.cat(list [, dim = 1]): tensors one after the other along dim" },
  { "stack", tensor_stack, false, "gq.stack(list [, dim = 1]): tensors along a new dimension" },
  { "split", tensor_split, true, "x:split(size | {sizes} [, dim = 1]): a list of views" },
  { "narrow", tensor_narrow, true, "x:narrow(dim, start, length): a view of length entries from start" },
  { "index_select", tensor_index_select, true,
    "x:index_select(dim, indices): the entries named by 1-based indices" },
  { "gather", tensor_gather, true, "x:gather(dim, indices): out[..i..] = x[..indices[..i..]..] along dim" },
  { NULL, NULL, false, NULL }
};

void gqL_open_shape(lua_State *L) { gqL_register(L, functions); }
