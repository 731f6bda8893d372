/*
** fold.c -- algebra on emit: what needs no node of its own. Only identities that hold for NaN
** and infinity too (x * 0 stays); the sign of a zero may change (x + 0 is x).
*/
#include "internal.h"

#include <math.h>
#include <string.h>

bool gq_uniform(const gq_graph *g, gq_ref r, double *x) {
  const gq_node *n = gq_at(g, r);
  if (n->op == GQ_OP_EXPAND) n = gq_at(g, n->arg[0]);
  *x = n->attr.x;
  return n->op == GQ_OP_CONST;
}

static bool is(const gq_graph *g, gq_ref r, double value) {
  double x;
  return gq_uniform(g, r, &x) && x == value;
}

static gq_ref fill(gq_graph *g, const gq_node *n, double x) {
  return gq_expand(g, gq_const(g, n->dtype, x), n->shape);
}

/* The operand of r if r is an `op`, or GQ_NONE. */
static gq_ref under(const gq_graph *g, gq_ref r, gq_op op) {
  const gq_node *n = gq_at(g, r);
  return n->op == op ? n->arg[0] : GQ_NONE;
}

/* ---- element-wise ---- */

/* An expanded operand is used as it was before, where the result keeps its shape. */
static void drop_expands(gq_graph *g, const gq_node *n, gq_ref *own) {
  for (int i = 0; i < n->nargs; i++) {
    gq_ref base = under(g, own[i], GQ_OP_EXPAND);
    if (base == GQ_NONE) continue;
    gq_shape s = gq_at(g, base)->shape;
    bool ok = true;
    for (int j = 0; ok && j < n->nargs; j++)
      if (j != i) ok = gq_shape_broadcast(s, gq_at(g, own[j])->shape, &s) == GQ_OK;
    if (ok && gq_shape_equal(s, n->shape)) own[i] = base;
  }
}

/* Exactly rounded operations only, in the dtype's own arithmetic. */
static bool compute(gq_op op, gq_dtype d, double x, double y, double *out) {
  float a = (float)x, b = (float)y;
  bool f = d == GQ_F32;
  switch (op) {
    case GQ_OP_NEG: *out = -x; return true;
    case GQ_OP_ABS: *out = fabs(x); return true;
    case GQ_OP_SQRT: *out = f ? (double)sqrtf(a) : sqrt(x); return true;
    case GQ_OP_SQUARE: *out = f ? (double)(a * a) : x * x; return true;
    case GQ_OP_RECIP: *out = f ? (double)(1 / a) : 1 / x; return true;
    case GQ_OP_ADD: *out = f ? (double)(a + b) : x + y; return true;
    case GQ_OP_SUB: *out = f ? (double)(a - b) : x - y; return true;
    case GQ_OP_MUL: *out = f ? (double)(a * b) : x * y; return true;
    case GQ_OP_DIV: *out = f ? (double)(a / b) : x / y; return true;
    default: return false;
  }
}

static gq_ref fold_unary(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0];
  double x, value;
  if (gq_is_float(n->dtype) && gq_uniform(g, a, &x) && compute(n->op, n->dtype, x, 0, &value))
    return fill(g, n, value);
  gq_ref inner = under(g, a, GQ_OP_NEG);
  if (inner == GQ_NONE) return GQ_NONE;
  if (n->op == GQ_OP_NEG) return inner;
  if (n->op == GQ_OP_SQUARE || n->op == GQ_OP_ABS || n->op == GQ_OP_COS) return gq_emit1(g, n->op, inner);
  return GQ_NONE;
}

/* Identities that give x itself, broadcast to the result; *x set. */
static bool neutral(const gq_graph *g, gq_op op, gq_ref a, gq_ref b, gq_ref *x) {
  *x = a;
  switch (op) {
    case GQ_OP_ADD:
      if (is(g, b, 0)) return true;
      *x = b;
      return is(g, a, 0);
    case GQ_OP_MUL:
      if (is(g, b, 1)) return true;
      *x = b;
      return is(g, a, 1);
    case GQ_OP_SUB: return is(g, b, 0);
    case GQ_OP_DIV:
    case GQ_OP_POW: return is(g, b, 1);
    default: return false;
  }
}

static gq_ref spread(gq_graph *g, const gq_node *n, gq_op op, gq_ref a) {
  return gq_expand(g, gq_emit1(g, op, a), n->shape);
}

/* The only axis along which n pads, in steps of 1; -1: none such. */
static int padded_axis(const gq_graph *g, const gq_node *n) {
  int axis = -1;
  if (n->op != GQ_OP_PAD) return -1;
  gq_shape from = gq_at(g, n->arg[0])->shape;
  for (int i = 0; i < n->shape.ndim; i++) {
    if (from.dim[i] == n->shape.dim[i]) continue;
    if (axis >= 0 || n->attr.step[i] != 1) return -1;
    axis = i;
  }
  return axis;
}

/* The sum of two pads side by side is a pad of their concatenation: what the derivative of taking a
** state apart, component by component, comes to. */
static gq_ref join_pads(gq_graph *g, const gq_node *p, const gq_node *q) {
  int axis = padded_axis(g, p);
  if (axis < 0 || padded_axis(g, q) != axis || !gq_shape_equal(p->shape, q->shape)) return GQ_NONE;
  if (p->attr.start[axis] > q->attr.start[axis]) return join_pads(g, q, p);
  if (p->attr.start[axis] + gq_at(g, p->arg[0])->shape.dim[axis] != q->attr.start[axis]) return GQ_NONE;
  gq_ref both = gq_cat(g, 2, (gq_ref[]){ p->arg[0], q->arg[0] }, axis);
  return gq_emit(g, GQ_OP_PAD, 1, &both, &p->attr);
}

static gq_ref fold_binary(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0], b = args[1];
  double x, y, value;
  gq_ref r;
  if (gq_is_float(n->dtype) && gq_uniform(g, a, &x) && gq_uniform(g, b, &y) &&
      compute(n->op, n->dtype, x, y, &value))
    return fill(g, n, value);
  if (neutral(g, n->op, a, b, &r)) return gq_expand(g, r, n->shape);
  switch (n->op) {
    case GQ_OP_ADD:
      if ((r = join_pads(g, gq_at(g, a), gq_at(g, b))) != GQ_NONE) return r;
      if ((r = under(g, b, GQ_OP_NEG)) != GQ_NONE) return gq_emit2(g, GQ_OP_SUB, a, r);
      if ((r = under(g, a, GQ_OP_NEG)) != GQ_NONE) return gq_emit2(g, GQ_OP_SUB, b, r);
      break;
    case GQ_OP_SUB:
      if ((r = under(g, b, GQ_OP_NEG)) != GQ_NONE) return gq_emit2(g, GQ_OP_ADD, a, r);
      if (is(g, a, 0)) return spread(g, n, GQ_OP_NEG, b);
      break;
    case GQ_OP_MUL:
      if (a == b) return gq_emit1(g, GQ_OP_SQUARE, a);
      if (is(g, a, -1)) return spread(g, n, GQ_OP_NEG, b);
      if (is(g, b, -1)) return spread(g, n, GQ_OP_NEG, a);
      break;
    case GQ_OP_DIV:
      if (is(g, b, -1)) return spread(g, n, GQ_OP_NEG, a);
      if (is(g, a, 1)) return spread(g, n, GQ_OP_RECIP, b);
      break;
    case GQ_OP_POW:
      if (is(g, b, 2)) return spread(g, n, GQ_OP_SQUARE, a);
      if (is(g, b, 0)) return fill(g, n, 1); /* C's pow: also of NaN */
      break;
    case GQ_OP_MAXIMUM:
    case GQ_OP_MINIMUM:
      if (a == b) return a;
      break;
    default: break;
  }
  return GQ_NONE;
}

static gq_ref fold_where(gq_graph *g, gq_node *n, const gq_ref *a) {
  double x;
  if (gq_uniform(g, a[0], &x)) return gq_expand(g, x != 0 ? a[1] : a[2], n->shape);
  return a[1] == a[2] ? gq_expand(g, a[1], n->shape) : GQ_NONE;
}

static gq_ref fold_cast(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0];
  const gq_node *from = gq_at(g, a);
  double x;
  if (from->dtype == n->dtype) return a;
  if (gq_uniform(g, a, &x)) return fill(g, n, x);
  if (from->op == GQ_OP_CAST && from->dtype == GQ_F64 && n->dtype == GQ_F32 &&
      gq_at(g, from->arg[0])->dtype == GQ_F32)
    return from->arg[0]; /* widened, then back */
  return GQ_NONE;
}

/* ---- views ---- */

static gq_ref fold_reshape(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0];
  double x;
  if (gq_shape_equal(gq_at(g, a)->shape, n->shape)) return a;
  if (gq_uniform(g, a, &x)) return fill(g, n, x);
  gq_ref inner = under(g, a, GQ_OP_RESHAPE);
  return inner == GQ_NONE ? GQ_NONE : gq_reshape(g, inner, n->shape);
}

/* s is t with ones put before it. */
static bool leading_ones(gq_shape s, gq_shape t) {
  int lead = s.ndim - t.ndim;
  for (int i = 0; i < lead; i++)
    if (s.dim[i] != 1) return false;
  for (int i = 0; lead >= 0 && i < t.ndim; i++)
    if (s.dim[i + lead] != t.dim[i]) return false;
  return lead >= 0;
}

static gq_ref fold_expand(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0];
  const gq_node *from = gq_at(g, a);
  if (gq_shape_equal(from->shape, n->shape)) return a;
  if (from->op == GQ_OP_CONST) return GQ_NONE; /* the one form of a uniform value */
  if (leading_ones(n->shape, from->shape)) return gq_reshape(g, a, n->shape);
  if (from->op == GQ_OP_EXPAND) return gq_expand(g, from->arg[0], n->shape);
  if (from->op == GQ_OP_RESHAPE && leading_ones(from->shape, gq_at(g, from->arg[0])->shape))
    return gq_expand(g, from->arg[0], n->shape);
  return GQ_NONE;
}

/* The dims that are not 1 keep their order: numbers stay where they are. */
static bool moves_ones(gq_shape from, const int32_t *perm) {
  int last = -1;
  for (int i = 0; i < from.ndim; i++) {
    if (from.dim[perm[i]] == 1) continue;
    if (perm[i] < last) return false;
    last = perm[i];
  }
  return true;
}

static gq_ref fold_permute(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0];
  const gq_node *from = gq_at(g, a);
  double x;
  if (gq_uniform(g, a, &x)) return fill(g, n, x);
  if (moves_ones(from->shape, n->attr.perm)) return gq_reshape(g, a, n->shape);
  if (from->op != GQ_OP_PERMUTE) return GQ_NONE;
  gq_attr attr = { .axis = 0 };
  for (int i = 0; i < n->shape.ndim; i++) attr.perm[i] = from->attr.perm[n->attr.perm[i]];
  return gq_emit(g, GQ_OP_PERMUTE, 1, from->arg, &attr);
}

/* Operands of a concatenation from place `first` along its axis on, `count` in all, if they are whole. */
static gq_ref whole_operands(gq_graph *g, const gq_node *cat, int64_t first, int64_t count) {
  int64_t at = 0;
  int i = 0, m = 0;
  for (; i < cat->nargs && at < first; i++) at += gq_at(g, cat->args[i])->shape.dim[cat->attr.axis];
  if (at != first) return GQ_NONE;
  for (; i + m < cat->nargs && at < first + count; m++)
    at += gq_at(g, cat->args[i + m])->shape.dim[cat->attr.axis];
  return at == first + count ? gq_cat(g, m, cat->args + i, cat->attr.axis) : GQ_NONE;
}

static bool cuts_along(const gq_node *n, const gq_node *from, int axis) {
  for (int i = 0; i < n->shape.ndim; i++)
    if (n->attr.step[i] != 1 || (i != axis && n->shape.dim[i] != from->shape.dim[i])) return false;
  return true;
}

/* A slice of a concatenation that lies inside one operand, or is some of them. */
static gq_ref slice_of_cat(gq_graph *g, const gq_node *n, const gq_node *cat) {
  int axis = cat->attr.axis;
  int64_t first = n->attr.start[axis], count = n->shape.dim[axis], at = 0;
  if (count == 0) return GQ_NONE;
  int64_t last = first + (count - 1) * n->attr.step[axis];
  for (int i = 0; i < cat->nargs; i++) {
    int64_t size = gq_at(g, cat->args[i])->shape.dim[axis];
    if (first >= at && last < at + size) {
      gq_attr attr = n->attr;
      attr.start[axis] -= at;
      return gq_emit(g, GQ_OP_SLICE, 1, &cat->args[i], &attr);
    }
    at += size;
  }
  return cuts_along(n, cat, axis) ? whole_operands(g, cat, first, count) : GQ_NONE;
}

/* Slice n lies beside what the pad `from` puts among its zeros. */
static bool misses(const gq_graph *g, const gq_node *n, const gq_node *from) {
  int axis = padded_axis(g, from);
  if (axis < 0 || n->attr.step[axis] < 0 || n->shape.dim[axis] == 0) return false;
  int64_t first = n->attr.start[axis], last = first + (n->shape.dim[axis] - 1) * n->attr.step[axis],
          at = from->attr.start[axis];
  return last < at || first >= at + gq_at(g, from->arg[0])->shape.dim[axis];
}

static gq_ref fold_slice(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0];
  const gq_node *from = gq_at(g, a);
  double x;
  if (gq_shape_equal(from->shape, n->shape)) return a; /* only the whole has its shape */
  if (gq_uniform(g, a, &x)) return fill(g, n, x);
  if (from->op == GQ_OP_CAT) return slice_of_cat(g, n, from);
  if (misses(g, n, from)) return fill(g, n, 0);
  if (from->op == GQ_OP_PAD && gq_shape_equal(gq_at(g, from->arg[0])->shape, n->shape) &&
      memcmp(from->attr.start, n->attr.start, sizeof n->attr.start) == 0 &&
      memcmp(from->attr.step, n->attr.step, sizeof n->attr.step) == 0)
    return from->arg[0];
  if (from->op != GQ_OP_SLICE) return GQ_NONE;
  gq_attr attr = n->attr;
  for (int i = 0; i < n->shape.ndim; i++) {
    attr.start[i] = n->shape.dim[i] ? from->attr.start[i] + n->attr.start[i] * from->attr.step[i]
                                    : 0; /* an empty one starts anywhere */
    if (__builtin_mul_overflow(n->attr.step[i], from->attr.step[i], &attr.step[i])) return GQ_NONE;
  }
  return gq_emit(g, GQ_OP_SLICE, 1, from->arg, &attr);
}

static gq_ref fold_pad(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0];
  if (gq_shape_equal(gq_at(g, a)->shape, n->shape)) return a;
  return is(g, a, 0) ? fill(g, n, 0) : GQ_NONE;
}

/* Windows of one number each that are all there are, or numbers all alike. WINDOW_ADD: of zeros. */
static gq_ref fold_window(gq_graph *g, gq_node *n, const gq_ref *args) {
  const gq_node *from = gq_at(g, args[0]);
  gq_shape whole = n->shape, part = from->shape;
  double x;
  if (n->op == GQ_OP_WINDOW) whole = from->shape, part = n->shape;
  bool same = gq_numel(whole) == gq_numel(part);
  for (int i = n->attr.axis; i < n->attr.axis + n->attr.flags; i++) same &= part.dim[i] == 1;
  if (same) return gq_reshape(g, args[0], n->shape);
  return gq_uniform(g, args[0], &x) && (n->op == GQ_OP_WINDOW || x == 0) ? fill(g, n, x) : GQ_NONE;
}

/* Operands of a concatenation along the same axis are taken in, empty ones dropped; their number.
** Without `to` they are only counted. */
static int flatten_cat(const gq_graph *g, const gq_node *n, const gq_ref *args, gq_ref *to) {
  int m = 0, axis = n->attr.axis;
  for (int i = 0; i < n->nargs; i++) {
    const gq_node *a = gq_at(g, args[i]);
    bool inner = a->op == GQ_OP_CAT && a->attr.axis == axis;
    for (int j = 0; j < (inner ? a->nargs : 1); j++) {
      gq_ref r = inner ? a->args[j] : args[i];
      if (gq_at(g, r)->shape.dim[axis] == 0) continue;
      if (to) to[m] = r;
      m++;
    }
  }
  return m;
}

/* q begins in their common source where p ends along the axis. */
static bool follows(const gq_node *p, const gq_node *q, int axis) {
  if (p->op != GQ_OP_SLICE || q->op != GQ_OP_SLICE || p->arg[0] != q->arg[0]) return false;
  for (int i = 0; i < p->shape.ndim; i++) {
    int64_t ahead = i == axis ? p->shape.dim[i] * p->attr.step[i] : 0;
    if (p->attr.step[i] != q->attr.step[i] || p->attr.start[i] + ahead != q->attr.start[i]) return false;
  }
  return true;
}

/* Slices side by side become one: what is taken apart and put together again. Their number. */
static int join_slices(gq_graph *g, int n, gq_ref *flat, int axis) {
  int m = 0;
  for (int i = 0; i < n; i++) {
    const gq_node *p = m ? gq_at(g, flat[m - 1]) : NULL, *q = gq_at(g, flat[i]);
    if (!p || !follows(p, q, axis)) {
      flat[m++] = flat[i];
      continue;
    }
    gq_attr attr = p->attr;
    attr.shape = p->shape;
    attr.shape.dim[axis] += q->shape.dim[axis];
    flat[m - 1] = gq_emit(g, GQ_OP_SLICE, 1, p->arg, &attr);
    if (flat[m - 1] == GQ_NONE) return 0;
  }
  return m;
}

static gq_ref fold_cat(gq_graph *g, gq_node *n, const gq_ref *args) {
  int m = flatten_cat(g, n, args, NULL);
  if (n->nargs == 1 || m == 0) return args[0];
  gq_ref *flat = gq_alloc((size_t)m * sizeof *flat);
  if (!flat) return gq_graph_fail(g, gq_nomem((size_t)m * sizeof *flat));
  flatten_cat(g, n, args, flat);
  m = join_slices(g, m, flat, n->attr.axis);
  bool new = m != n->nargs || memcmp(flat, args, (size_t)m * sizeof *flat) != 0;
  gq_ref r = m == 1 ? flat[0] : m && new ? gq_cat(g, m, flat, n->attr.axis) : GQ_NONE;
  gq_free(flat);
  return r;
}

/* ---- reductions and products ---- */

static gq_ref fold_reduction(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0];
  const gq_node *from = gq_at(g, a);
  double x, count = 1;
  for (int i = 0; i < n->shape.ndim; i++)
    if (from->shape.dim[i] == 1) n->attr.flags &= ~(1 << i);
  if (n->attr.flags == 0) return gq_cast(g, a, n->dtype);
  if (gq_uniform(g, a, &x) && gq_is_float(n->dtype)) {
    for (int i = 0; i < n->shape.ndim; i++)
      if (n->attr.flags >> i & 1) count *= (double)from->shape.dim[i];
    if (count == 0) x = 0;
    return fill(g, n, n->op == GQ_OP_SUM ? count * x : x);
  }
  if (from->op != n->op || from->dtype != n->dtype) return GQ_NONE;
  gq_attr attr = { .flags = n->attr.flags | from->attr.flags };
  return gq_emit(g, n->op, 1, from->arg, &attr);
}

/* A permutation that swaps the last two dims and nothing else. */
static bool is_transpose(const gq_node *n) {
  int k = n->shape.ndim;
  if (n->op != GQ_OP_PERMUTE || k < 2 || n->attr.perm[k - 1] != k - 2) return false;
  for (int i = 0; i < k - 2; i++)
    if (n->attr.perm[i] != i) return false;
  return true;
}

/* A reshape that turns a row into a column or back, as a transpose of one does. */
static bool turns_vector(const gq_graph *g, const gq_node *n) {
  if (n->op != GQ_OP_RESHAPE) return false;
  gq_shape s = gq_at(g, n->arg[0])->shape, t = n->shape;
  int k = t.ndim;
  if (k < 2 || s.ndim != k || (t.dim[k - 1] != 1 && t.dim[k - 2] != 1)) return false;
  t.dim[k - 1] = n->shape.dim[k - 2];
  t.dim[k - 2] = n->shape.dim[k - 1];
  return gq_shape_equal(s, t);
}

static int64_t batch_of(gq_shape s) {
  s.ndim -= 2;
  return gq_numel(s);
}

/* {.., rows, cols} as {(..) rows, cols} */
static gq_ref flat(gq_graph *g, gq_ref a) {
  gq_shape s = gq_at(g, a)->shape, to = { 2, { batch_of(s) * s.dim[s.ndim - 2], s.dim[s.ndim - 1] } };
  return gq_reshape(g, a, to);
}

/* op(a) b where all rows of b but one are zero and that one repeats a number, as a derivative of one output has
** it: a column of op(a), so many times. */
static gq_ref one_column(gq_graph *g, const gq_node *n, gq_ref a, const gq_node *b) {
  double x;
  bool ta = n->attr.flags & GQ_TA;
  gq_shape s = gq_at(g, a)->shape;
  if (n->attr.flags & GQ_TB || s.ndim != 2 || b->shape.ndim != 2 || padded_axis(g, b) != 0) return GQ_NONE;
  if (gq_at(g, b->arg[0])->shape.dim[0] != 1 || !gq_uniform(g, b->arg[0], &x)) return GQ_NONE;
  gq_ref column = gq_slice(g, a, ta ? 0 : 1, b->attr.start[0], 1);
  column = gq_reshape(g, column, gq_shape_of(2, (int64_t[]){ n->shape.dim[0], 1 }));
  return gq_expand(g, gq_scale(g, column, x), n->shape);
}

/* Transposes become flags; with one right factor for all, the batch is more rows of one product. */
static gq_ref fold_matmul(gq_graph *g, gq_node *n, const gq_ref *args) {
  gq_ref a = args[0], b = args[1];
  int flags = n->attr.flags;
  if (is_transpose(gq_at(g, a))) return gq_matmul(g, gq_at(g, a)->arg[0], b, flags ^ GQ_TA);
  if (is_transpose(gq_at(g, b)) || turns_vector(g, gq_at(g, b)))
    return gq_matmul(g, a, gq_at(g, b)->arg[0], flags ^ GQ_TB);
  gq_shape sa = gq_at(g, a)->shape, sb = gq_at(g, b)->shape;
  if (sa.dim[sa.ndim - (flags & GQ_TA ? 2 : 1)] == 0) return fill(g, n, 0);
  bool one = batch_of(sb) == 1 && (!(flags & GQ_TA) || batch_of(sa) == 1);
  if (sa.ndim == 2 && sb.ndim == 2) return one_column(g, n, a, gq_at(g, b));
  if (!one) return GQ_NONE;
  return gq_reshape(g, gq_matmul(g, flat(g, a), flat(g, b), flags), n->shape);
}

static gq_ref fold_none(gq_graph *g, gq_node *n, const gq_ref *a) { return GQ_NONE; }

static gq_ref (*const rules[GQ_NOP])(gq_graph *g, gq_node *n, const gq_ref *a) = {
#define GQ_UNARY(N, ...) [GQ_OP_##N] = fold_unary,
#define GQ_BINARY(N, ...) [GQ_OP_##N] = fold_binary,
#define GQ_COMPARE(N, ...) [GQ_OP_##N] = fold_none,
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, ...) [GQ_OP_##N] = fold_##fold,
#include "ops.def"
};

gq_ref gq_fold(gq_graph *g, gq_node *n, gq_ref *own, const gq_ref *args) {
  if (own && n->nargs > 1 && gq_op_elementwise(n->op)) drop_expands(g, n, own);
  return rules[n->op](g, n, args);
}
