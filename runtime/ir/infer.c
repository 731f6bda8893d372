/*
** infer.c -- the dtype and shape that each operation gives, shared by graphs and by immediate
** evaluation, so both refuse the same calls in the same words. Dimensions in texts count from 1.
*/
#include "internal.h"

#include <string.h>

typedef struct call {
  gq_op op;
  const char *name;
  int nargs;
  const gq_dtype *d;
  const gq_shape *s;
  const gq_attr *attr;
  gq_dtype *dtype;
  gq_shape *shape;
} call;

#define TEXT(s) gq_shape_text(s, (char[200]){ 0 }, 200)

static int gives(const call *c, gq_dtype d, gq_shape s) {
  *c->dtype = d, *c->shape = s;
  return GQ_OK;
}

/* ---- dtypes ---- */

static int same_dtype(const call *c, int i, int j) {
  if (c->d[i] == c->d[j]) return GQ_OK;
  return gq_fail(GQ_EDTYPE, "%s: %s and %s: convert one with :to(\"%s\")", c->name, gq_dtype_name(c->d[i]),
                 gq_dtype_name(c->d[j]), gq_dtype_name(c->d[i] == GQ_BOOL ? c->d[j] : c->d[i]));
}

static int want_float(const call *c, int i) {
  if (gq_is_float(c->d[i])) return GQ_OK;
  return gq_fail(GQ_EDTYPE, "%s: %s tensor; expected float32 or float64", c->name, gq_dtype_name(c->d[i]));
}

static int want_number(const call *c, int i) {
  if (c->d[i] != GQ_BOOL) return GQ_OK;
  return gq_fail(GQ_EDTYPE, "%s: bool tensor; expected float32, float64 or int64", c->name);
}

static int want_index(const call *c, int i) {
  if (c->d[i] == GQ_I64) return GQ_OK;
  return gq_fail(GQ_EDTYPE, "%s: indices are %s; expected int64: convert with :to(\"int64\")", c->name,
                 gq_dtype_name(c->d[i]));
}

static int want_any(const call *c, int i) { return GQ_OK; }

/* Of the element-wise rows. */
static int (*const takes[GQ_NOP])(const call *c, int i) = {
#define GQ_UNARY(N, n, meta, takes, ...) [GQ_OP_##N] = want_##takes,
#define GQ_BINARY(N, n, meta, takes, ...) [GQ_OP_##N] = want_##takes,
#define GQ_COMPARE(N, n, takes, ...) [GQ_OP_##N] = want_##takes,
#include "ops.def"
};

/* ---- element-wise ---- */

static int broadcast(const call *c, gq_shape a, gq_shape b, gq_shape *out) {
  if (gq_shape_equal(a, b)) {
    *out = a;
    return GQ_OK;
  }
  for (int i = 1; i <= a.ndim && i <= b.ndim; i++) {
    int64_t x = a.dim[a.ndim - i], y = b.dim[b.ndim - i];
    if (x != y && x != 1 && y != 1)
      return gq_fail(GQ_ESHAPE, "%s: %s and %s do not broadcast: sizes %lld and %lld differ", c->name,
                     TEXT(a), TEXT(b), (long long)x, (long long)y);
  }
  return gq_shape_broadcast(a, b, out);
}

static int infer_same(call *c) { return gives(c, c->d[0], c->s[0]); }

static int infer_unary(call *c) {
  GQ_TRY(takes[c->op](c, 0));
  return infer_same(c);
}

static int infer_binary(call *c) {
  GQ_TRY(same_dtype(c, 0, 1));
  GQ_TRY(takes[c->op](c, 0));
  *c->dtype = c->d[0];
  return broadcast(c, c->s[0], c->s[1], c->shape);
}

static int infer_compare(call *c) {
  GQ_TRY(infer_binary(c));
  *c->dtype = GQ_BOOL;
  return GQ_OK;
}

static int infer_where(call *c) {
  if (c->d[0] != GQ_BOOL)
    return gq_fail(GQ_EDTYPE, "where: condition is %s; expected bool, as :gt or :eq give",
                   gq_dtype_name(c->d[0]));
  GQ_TRY(same_dtype(c, 1, 2));
  *c->dtype = c->d[1];
  gq_shape s;
  GQ_TRY(broadcast(c, c->s[1], c->s[2], &s));
  return broadcast(c, c->s[0], s, c->shape);
}

static int infer_cast(call *c) {
  if ((unsigned)c->attr->dtype >= GQ_NDTYPE) return gq_fail(GQ_EDTYPE, "cast: unknown dtype");
  return gives(c, c->attr->dtype, c->s[0]);
}

/* ---- products and reductions ---- */

static gq_shape leading(gq_shape s) {
  s.ndim -= 2;
  return s;
}

static int infer_matmul(call *c) {
  gq_shape a = c->s[0], b = c->s[1], lead;
  GQ_TRY(same_dtype(c, 0, 1));
  GQ_TRY(want_float(c, 0));
  if (a.ndim < 2 || b.ndim < 2)
    return gq_fail(GQ_ESHAPE, "matmul: %s by %s: expected at least 2 dimensions each", TEXT(a), TEXT(b));
  bool ta = c->attr->flags & GQ_TA, tb = c->attr->flags & GQ_TB;
  int64_t m = a.dim[a.ndim - (ta ? 1 : 2)], ka = a.dim[a.ndim - (ta ? 2 : 1)];
  int64_t kb = b.dim[b.ndim - (tb ? 1 : 2)], n = b.dim[b.ndim - (tb ? 2 : 1)];
  if (ka != kb)
    return gq_fail(GQ_ESHAPE, "matmul: %s%s by %s%s: inner sizes %lld and %lld differ", TEXT(a),
                   ta ? " transposed" : "", TEXT(b), tb ? " transposed" : "", (long long)ka, (long long)kb);
  GQ_TRY(broadcast(c, leading(a), leading(b), &lead));
  lead.dim[lead.ndim] = m;
  lead.dim[lead.ndim + 1] = n;
  lead.ndim += 2;
  return gives(c, c->d[0], lead);
}

static int infer_affine(call *c) {
  GQ_TRY(infer_matmul(c));
  gq_shape column = *c->shape;
  column.dim[1] = 1;
  GQ_TRY(same_dtype(c, 0, 2));
  if (c->shape->ndim == 2 && gq_shape_equal(c->s[2], column)) return GQ_OK;
  return gq_fail(GQ_ESHAPE, "affine: %s added to %s: expected {%lld, 1} and a matrix", TEXT(c->s[2]),
                 TEXT(*c->shape), (long long)column.dim[0]);
}

static int want_axis(const call *c, gq_shape s) {
  if (c->attr->axis >= 0 && c->attr->axis < s.ndim) return GQ_OK;
  return gq_fail(GQ_ESHAPE, "%s: dimension %d of %s: expected 1 to %d", c->name, c->attr->axis + 1, TEXT(s),
                 s.ndim);
}

/* Reduced dims become 1. An extremum of nothing is an error. */
static int reduce(call *c, int mask, bool empty_ok) {
  gq_shape s = c->s[0];
  for (int i = 0; i < s.ndim; i++)
    if (mask >> i & 1) s.dim[i] = 1;
  for (int i = 0; !empty_ok && i < s.ndim; i++)
    if (mask >> i & 1 && c->s[0].dim[i] == 0 && !gq_zero_dims(s))
      return gq_fail(GQ_ESHAPE, "%s: dimension %d of %s is empty", c->name, i + 1, TEXT(c->s[0]));
  *c->shape = s;
  return GQ_OK;
}

static int infer_reduction(call *c) {
  if (c->attr->flags < 0 || c->attr->flags >> c->s[0].ndim)
    return gq_fail(GQ_ESHAPE, "%s: no such dimension in %s", c->name, TEXT(c->s[0]));
  if (c->op != GQ_OP_SUM) GQ_TRY(want_number(c, 0));
  *c->dtype = c->d[0] == GQ_BOOL ? GQ_I64 : c->d[0];
  return reduce(c, c->attr->flags, c->op == GQ_OP_SUM);
}

static int infer_arg(call *c) {
  GQ_TRY(want_number(c, 0));
  GQ_TRY(want_axis(c, c->s[0]));
  *c->dtype = GQ_I64;
  return reduce(c, 1 << c->attr->axis, false);
}

/* ---- moving numbers ---- */

static int infer_reshape(call *c) {
  *c->dtype = c->d[0];
  *c->shape = c->attr->shape;
  GQ_TRY(gq_shape_check(c->attr->shape, c->d[0], NULL));
  if (gq_numel(c->s[0]) == gq_numel(c->attr->shape)) return GQ_OK;
  return gq_fail(GQ_ESHAPE, "reshape: %s has %lld numbers, %s needs %lld", TEXT(c->s[0]),
                 (long long)gq_numel(c->s[0]), TEXT(c->attr->shape), (long long)gq_numel(c->attr->shape));
}

static int infer_permute(call *c) {
  gq_shape s = c->s[0];
  unsigned seen = 0;
  for (int i = 0; i < s.ndim; i++) {
    int p = c->attr->perm[i];
    if (p < 0 || p >= s.ndim || seen >> p & 1)
      return gq_fail(GQ_ESHAPE, "permute: expected each of the dimensions 1 to %d of %s once", s.ndim,
                     TEXT(s));
    seen |= 1u << p;
    c->shape->dim[i] = s.dim[p];
  }
  c->shape->ndim = s.ndim;
  *c->dtype = c->d[0];
  return GQ_OK;
}

static int infer_expand(call *c) {
  gq_shape from = c->s[0], to = c->attr->shape;
  GQ_TRY(gq_shape_check(to, c->d[0], NULL));
  bool ok = from.ndim <= to.ndim;
  for (int i = 1; ok && i <= from.ndim; i++) {
    int64_t x = from.dim[from.ndim - i];
    ok = x == 1 || x == to.dim[to.ndim - i];
  }
  if (!ok) return gq_fail(GQ_ESHAPE, "expand: %s does not broadcast to %s", TEXT(from), TEXT(to));
  return gives(c, c->d[0], to);
}

/* Positions start, start + step, ... of each dim of `whole` hold the dims of `part`. */
static int fits(const call *c, gq_shape whole, gq_shape part) {
  if (part.ndim != whole.ndim)
    return gq_fail(GQ_ESHAPE, "%s: %s and %s: expected as many dimensions", c->name, TEXT(whole), TEXT(part));
  for (int i = 0; i < whole.ndim; i++) {
    int64_t start = c->attr->start[i], step = c->attr->step[i], n = part.dim[i], size = whole.dim[i];
    bool ok = start >= 0 && step > 0 && start <= size &&
              (n == 0 || (start < size && (size - 1 - start) / step >= n - 1));
    if (!ok)
      return gq_fail(GQ_EINDEX, "%s: %lld numbers from %lld in steps of %lld do not fit dimension %d of %s",
                     c->name, (long long)n, (long long)start + 1, (long long)step, i + 1, TEXT(whole));
  }
  return GQ_OK;
}

static int range(call *c, gq_shape whole, gq_shape part) {
  GQ_TRY(gq_shape_check(c->attr->shape, c->d[0], NULL));
  GQ_TRY(fits(c, whole, part));
  return gives(c, c->d[0], c->attr->shape);
}

static int infer_slice(call *c) { return range(c, c->s[0], c->attr->shape); }
static int infer_pad(call *c) { return range(c, c->attr->shape, c->s[0]); }

/* Windows over attr.flags dims of `whole` from attr.axis on: those of `part`, k and then counts in their place. */
static int windows(call *c, gq_shape whole, gq_shape part) {
  int axis = c->attr->axis, n = c->attr->flags;
  GQ_TRY(gq_shape_check(c->attr->shape, c->d[0], NULL));
  bool ok =
    axis >= 0 && n >= 1 && n <= GQ_MAXDIM / 2 && axis + n <= whole.ndim && part.ndim == whole.ndim + n;
  for (int i = 0; ok && i < part.ndim; i++)
    if (i < axis || i >= axis + 2 * n) ok = part.dim[i] == whole.dim[i < axis ? i : i - n];
  if (!ok) return gq_fail(GQ_ESHAPE, "%s: %s and %s do not agree", c->name, TEXT(whole), TEXT(part));
  for (int i = axis; i < axis + n; i++) {
    int64_t step = c->attr->step[i], apart = c->attr->start[i], k = part.dim[i], count = part.dim[i + n],
            last;
    ok = step > 0 && apart > 0 && k > 0;
    if (ok && count > 0)
      ok = !__builtin_mul_overflow(k - 1, apart, &last) && last < whole.dim[i] &&
           (whole.dim[i] - 1 - last) / step >= count - 1;
    if (!ok)
      return gq_fail(
        GQ_EINDEX,
        "%s: %lld windows in steps of %lld, of %lld numbers %lld apart, do not fit dimension %d of %s",
        c->name, (long long)count, (long long)step, (long long)k, (long long)apart, i + 1, TEXT(whole));
  }
  return gives(c, c->d[0], c->attr->shape);
}

static int infer_window(call *c) { return windows(c, c->s[0], c->attr->shape); }

static int infer_window_add(call *c) {
  GQ_TRY(want_float(c, 0));
  return windows(c, c->attr->shape, c->s[0]);
}

/* All but dimension `axis` agree. */
static bool alike(gq_shape a, gq_shape b, int axis) {
  if (a.ndim != b.ndim) return false;
  a.dim[axis] = b.dim[axis];
  return gq_shape_equal(a, b);
}

static int infer_cat(call *c) {
  gq_shape s = c->s[0];
  if (s.ndim == 0) return gq_fail(GQ_ESHAPE, "cat: operand 1 is 0-d; expected at least 1 dimension");
  GQ_TRY(want_axis(c, s));
  int axis = c->attr->axis;
  for (int i = 1; i < c->nargs; i++) {
    GQ_TRY(same_dtype(c, 0, i));
    if (!alike(c->s[i], c->s[0], axis))
      return gq_fail(GQ_ESHAPE, "cat: %s and %s (operands 1 and %d) differ outside dimension %d",
                     TEXT(c->s[0]), TEXT(c->s[i]), i + 1, axis + 1);
    s.dim[axis] += c->s[i].dim[axis];
  }
  gives(c, c->d[0], s);
  return gq_shape_check(*c->shape, *c->dtype, NULL);
}

static int infer_index_select(call *c) {
  GQ_TRY(want_index(c, 1));
  GQ_TRY(want_axis(c, c->s[0]));
  if (c->s[1].ndim != 1)
    return gq_fail(GQ_ESHAPE, "%s: indices of shape %s; expected 1 dimension", c->name, TEXT(c->s[1]));
  *c->dtype = c->d[0];
  *c->shape = c->s[0];
  c->shape->dim[c->attr->axis] = c->s[1].dim[0];
  return gq_shape_check(*c->shape, c->d[0], NULL);
}

static int infer_index_add(call *c) {
  int axis = c->attr->axis;
  GQ_TRY(want_number(c, 0));
  GQ_TRY(want_index(c, 1));
  GQ_TRY(want_axis(c, c->attr->shape));
  GQ_TRY(gq_shape_check(c->attr->shape, c->d[0], NULL));
  if (!alike(c->s[0], c->attr->shape, axis))
    return gq_fail(GQ_ESHAPE, "%s: %s into %s: they differ outside dimension %d", c->name, TEXT(c->s[0]),
                   TEXT(c->attr->shape), axis + 1);
  if (c->s[1].ndim != 1 || c->s[1].dim[0] != c->s[0].dim[axis])
    return gq_fail(GQ_ESHAPE, "%s: indices of shape %s for dimension %d of %s; expected {%lld}", c->name,
                   TEXT(c->s[1]), axis + 1, TEXT(c->s[0]), (long long)c->s[0].dim[axis]);
  return gives(c, c->d[0], c->attr->shape);
}

static int infer_gather(call *c) {
  GQ_TRY(want_index(c, 1));
  GQ_TRY(want_axis(c, c->s[0]));
  if (!alike(c->s[1], c->s[0], c->attr->axis))
    return gq_fail(GQ_ESHAPE,
                   "gather: indices of shape %s for %s: expected the same sizes outside dimension %d",
                   TEXT(c->s[1]), TEXT(c->s[0]), c->attr->axis + 1);
  return gives(c, c->d[0], c->s[1]);
}

static int infer_scatter_add(call *c) {
  GQ_TRY(want_number(c, 0));
  GQ_TRY(want_index(c, 1));
  GQ_TRY(want_axis(c, c->attr->shape));
  GQ_TRY(gq_shape_check(c->attr->shape, c->d[0], NULL));
  if (!gq_shape_equal(c->s[0], c->s[1]) || !alike(c->s[0], c->attr->shape, c->attr->axis))
    return gq_fail(GQ_ESHAPE, "scatter_add: %s at indices of shape %s into %s: sizes do not agree",
                   TEXT(c->s[0]), TEXT(c->s[1]), TEXT(c->attr->shape));
  return gives(c, c->d[0], c->attr->shape);
}

/* callback, t, z and whatever else */
static int want_callback(call *c) {
  if (c->nargs >= 3 && c->d[0] == GQ_I64 && c->s[0].ndim == 0 && gq_is_float(c->d[2]) && c->d[1] == c->d[2])
    return GQ_OK;
  return gq_fail(GQ_EARG, "%s: expected a callback, t and z of one float dtype", c->name);
}

static int infer_call(call *c) {
  GQ_TRY(want_callback(c));
  return gives(c, c->d[2], c->s[2]);
}

static int infer_call_pull(call *c) {
  GQ_TRY(want_callback(c));
  gives(c, c->d[2], c->attr->shape);
  return gq_shape_check(*c->shape, *c->dtype, NULL);
}

static int infer_refuse(call *c) { return gq_fail(GQ_EUNSUPPORTED, "%s is made by programs alone", c->name); }

static int infer_leaf(call *c) {
  if ((unsigned)c->attr->dtype >= GQ_NDTYPE) return gq_fail(GQ_EDTYPE, "%s: unknown dtype", c->name);
  gives(c, c->attr->dtype, c->op == GQ_OP_INPUT ? c->attr->shape : (gq_shape){ 0 });
  return gq_shape_check(*c->shape, *c->dtype, NULL);
}

/* ---- the table ---- */

static int (*const rules[GQ_NOP])(call *c) = {
#define GQ_UNARY(N, ...) [GQ_OP_##N] = infer_unary,
#define GQ_BINARY(N, ...) [GQ_OP_##N] = infer_binary,
#define GQ_COMPARE(N, ...) [GQ_OP_##N] = infer_compare,
#define GQ_OTHER(N, n, class, nargs, attr, infer, ...) [GQ_OP_##N] = infer_##infer,
#include "ops.def"
};

int gq_infer(gq_op op, int nargs, const gq_dtype *dtypes, const gq_shape *shapes, const gq_attr *attr_,
             gq_dtype *dtype, gq_shape *shape) {
  static const gq_attr none;
  if ((unsigned)op >= GQ_NOP) return gq_fail(GQ_EARG, "no operation %d", (int)op);
  int want = gq_ops[op].nargs;
  if (want >= 0 ? nargs != want : nargs < 1)
    return gq_fail(GQ_EARG, "%s: %d operands; expected %s%d", gq_ops[op].name, nargs,
                   want < 0 ? "at least " : "", want < 0 ? 1 : want);
  memset(shape, 0, sizeof *shape);
  call c = { op, gq_ops[op].name, nargs, dtypes, shapes, attr_ ? attr_ : &none, dtype, shape };
  return rules[op](&c);
}
