/*
** probe.c -- see probe.h. Products are followed through sums, parts and turns to products of matrices and sums over rows,
** whose probes by point cost little. Those of other dynamics (tables looked up by the time) are had by differentiating the
** product's projection, which is linear in a, in a: that is df/dtheta T, and times a, row by row, it is what a point adds.
*/
#include "probe.h"

void gq_probe_of(gq_shape s, bool cut, gq_probe *p) {
  *p = (gq_probe){ .numbers = GQ_DIRECTIONS };
  if (!cut && s.ndim <= 1 && gq_numel(s) <= GQ_PROBE_ITSELF) {
    p->numbers = (int)gq_numel(s);
  } else if (!cut && s.ndim >= 1) {
    int64_t size = gq_numel(s), first = s.dim[0];
    p->sides = true, p->inputs = s.ndim > 1 ? 2 : 1;
    p->input[0] = gq_shape_of(2, (int64_t[]){ GQ_DIRECTIONS, first });
    if (s.ndim > 1) p->input[1] = gq_shape_of(2, (int64_t[]){ GQ_DIRECTIONS, first ? size / first : 0 });
  } else {
    p->inputs = 1;
    p->input[0] = gq_shape_of(1, (int64_t[]){ GQ_DIRECTIONS });
    for (int i = 0; i < s.ndim; i++) p->input[0].dim[p->input[0].ndim++] = s.dim[i];
  }
}

double gq_probe_direction(int j, int k, size_t i) {
  uint64_t h = gq_mix(((uint64_t)j << 40) + ((uint64_t)k << 36) + i + 1);
  return (h & 1 ? 1 : -1) * (0.5 + (double)(h >> 11) / (1ull << 53));
}

typedef struct prober {
  gq_graph *g;
  const gq_probe *p;
  int64_t n;
  const gq_label *at;    /* where points are in what was there before */
  bool columns, by_rows; /* by_rows: what is summed up is to be looked at */
  gq_ref product, a;
} prober;

static gq_shape shape_of(const prober *b, gq_ref r) { return gq_graph_node(b->g, r)->shape; }

/* What r was reshaped from. */
static gq_ref origin(const prober *b, gq_ref r) {
  while (gq_graph_node(b->g, r)->op == GQ_OP_RESHAPE) r = gq_graph_node(b->g, r)->args[0];
  return r;
}

/* Dim `axis` of x has the points, the numbers of one after those of the other. */
static bool along(const prober *b, gq_ref x, int axis) {
  return b->n == 1 || (b->at[x].axis == axis && b->at[x].inner * b->n == shape_of(b, x).dim[axis]);
}

/* x {k, n rows} -> {k, n} */
static gq_ref over_rows(const prober *b, gq_ref x) {
  if (x == GQ_NONE) return x;
  gq_shape s = shape_of(b, x), to = gq_shape_of(3, (int64_t[]){ s.dim[0], b->n, s.dim[1] / b->n });
  x = gq_sum_axes(b->g, gq_reshape(b->g, x, to), 4);
  return gq_reshape(b->g, x, gq_shape_of(2, (int64_t[]){ s.dim[0], b->n }));
}

/* Numbers at n points: what adds up to them over the rows, {k, n rows}, and what there is besides, {k, n}. Both
** GQ_NONE: they cannot be seen so. */
typedef struct seen {
  gq_ref rows, s;
} seen;

static const seen none = { GQ_NONE, GQ_NONE };

static bool unseen(seen x) { return x.rows == GQ_NONE && x.s == GQ_NONE; }

static gq_ref plus(const prober *b, gq_ref x, gq_ref y) {
  return x == GQ_NONE ? y : y == GQ_NONE ? x : gq_emit2(b->g, GQ_OP_ADD, x, y);
}

static seen times(const prober *b, seen x, gq_ref y) {
  return (seen){ x.rows == GQ_NONE ? GQ_NONE : gq_emit2(b->g, GQ_OP_MUL, x.rows, y),
                 x.s == GQ_NONE ? GQ_NONE : gq_emit2(b->g, GQ_OP_MUL, x.s, y) };
}

static seen negative(const prober *b, seen x) {
  return times(b, x, gq_const(b->g, gq_graph_node(b->g, b->a)->dtype, -1));
}

static gq_ref sizes(const prober *b, gq_ref x) { return x == GQ_NONE ? x : gq_emit1(b->g, GQ_OP_ABS, x); }

static gq_ref summed(const prober *b, seen x) { return plus(b, over_rows(b, x.rows), x.s); }

/* A sum over rows, kept apart by point: {numbers, n}. */
static gq_ref of_sum(const prober *b, gq_ref sum) {
  gq_graph *g = b->g;
  gq_node r = *gq_graph_node(g, origin(b, sum));
  int64_t size = gq_numel(r.shape);
  if (r.op != GQ_OP_SUM) return GQ_NONE;
  gq_ref x = r.arg[0];
  gq_shape from = shape_of(b, x), to = from;
  int axis = b->columns ? from.ndim - 1 : 0, mask = r.attr.flags, low = (1 << axis) - 1;
  if (from.ndim == 0 || from.ndim == GQ_MAXDIM || !(mask >> axis & 1) || !along(b, x, axis)) return GQ_NONE;
  for (int i = from.ndim; i > axis; i--) to.dim[i] = from.dim[i - 1];
  to.dim[axis] = b->n, to.dim[axis + 1] = from.dim[axis] / b->n, to.ndim++;
  x = gq_sum_axes(g, gq_reshape(g, x, to), (mask & low) | (mask & ~low) << 1);
  if (gq_numel(shape_of(b, x)) != size * b->n) return GQ_NONE;
  if (b->columns) return gq_reshape(g, x, gq_shape_of(2, (int64_t[]){ size, b->n }));
  return gq_permute(g, gq_reshape(g, x, gq_shape_of(2, (int64_t[]){ b->n, size })), (int[]){ 1, 0 });
}

/* What a sum over rows adds up, {numbers, n rows}. */
static gq_ref by_row(const prober *b, gq_ref sum) {
  gq_graph *g = b->g;
  gq_node r = *gq_graph_node(g, origin(b, sum));
  int64_t size = gq_numel(r.shape), rows = 1;
  if (r.op != GQ_OP_SUM) return GQ_NONE;
  gq_ref x = r.arg[0];
  gq_shape from = shape_of(b, x);
  int mask = r.attr.flags, kept = 0;
  for (int i = 0; i < from.ndim && mask >> i & 1; i++) kept |= 1 << i;
  if (b->columns) kept = mask & (1 << from.ndim) >> 1;
  for (int i = 0; i < from.ndim; i++)
    if (kept >> i & 1) rows *= from.dim[i];
  if (!kept || !along(b, x, b->columns ? from.ndim - 1 : 0)) return GQ_NONE;
  x = gq_sum_axes(g, x, mask & ~kept);
  if (b->columns) return gq_reshape(g, x, gq_shape_of(2, (int64_t[]){ size, rows }));
  return gq_permute(g, gq_reshape(g, x, gq_shape_of(2, (int64_t[]){ rows, size })), (int[]){ 1, 0 });
}

/* The numbers of a vector at n points: {numbers, n}. */
static gq_ref of_vector(const prober *b, gq_ref v) {
  if (b->n > 1) return of_sum(b, v);
  return gq_reshape(b->g, v, gq_shape_of(2, (int64_t[]){ gq_numel(shape_of(b, v)), 1 }));
}

/* direction x, of x {size, n rows}. A factor that rows have of their own, such as the time, comes after: what it
** multiplies is projected for other tensors too. */
static gq_ref project(const prober *b, gq_ref direction, gq_ref x) {
  gq_node r = *gq_graph_node(b->g, x);
  for (int i = 0; r.op == GQ_OP_MUL && i < 2; i++) {
    gq_shape s = shape_of(b, r.arg[i]);
    if (s.ndim && gq_numel(s) == s.dim[s.ndim - 1] && gq_shape_equal(shape_of(b, r.arg[1 - i]), r.shape))
      return gq_emit2(b->g, GQ_OP_MUL, project(b, direction, r.arg[1 - i]), r.arg[i]);
  }
  return gq_matmul(b->g, direction, x, 0);
}

/* The numbers of a vector, before they are summed over rows where sizes are asked for. */
static seen of_numbers(const prober *b, gq_ref v) {
  seen x = { b->by_rows ? by_row(b, v) : GQ_NONE, GQ_NONE };
  return unseen(x) ? (seen){ GQ_NONE, of_vector(b, v) } : x;
}

/* direction v of a vector, before it is summed over rows where that can be: fewer numbers are left. */
static seen of_direction(const prober *b, gq_ref v, gq_ref direction) {
  gq_node r = *gq_graph_node(b->g, v);
  bool few = b->n > 1 || (b->columns && gq_numel(r.shape) > GQ_PROBE_ITSELF);
  gq_ref x = few || b->by_rows ? by_row(b, v) : GQ_NONE;
  if (x != GQ_NONE) return (seen){ project(b, direction, x), GQ_NONE };
  x = of_vector(b, v);
  return (seen){ GQ_NONE, x == GQ_NONE ? x : gq_matmul(b->g, direction, x, 0) };
}

/* x, whose axis `rows` holds those of all points: a matrix a point, {n, ..}. */
static gq_ref by_point(const prober *b, gq_ref x, int rows) {
  gq_shape s = shape_of(b, x);
  int64_t each = s.dim[rows] / b->n;
  if (rows == 0) return gq_reshape(b->g, x, gq_shape_of(3, (int64_t[]){ b->n, each, s.dim[1] }));
  x = gq_reshape(b->g, x, gq_shape_of(3, (int64_t[]){ s.dim[0], b->n, each }));
  return gq_permute(b->g, x, (int[]){ 1, 0, 2 });
}

/* u'Xv of a matrix X a point, {n, ..}. */
static seen between(const prober *b, gq_ref x, const gq_ref *direction) {
  gq_graph *g = b->g;
  x = gq_emit2(g, GQ_OP_MUL, gq_matmul(g, x, direction[1], GQ_TB),
               gq_permute(g, direction[0], (int[]){ 1, 0 }));
  x = gq_reshape(g, gq_sum_axes(g, x, b->n > 1 ? 2 : 1), gq_shape_of(2, (int64_t[]){ b->n, GQ_DIRECTIONS }));
  return (seen){ GQ_NONE, gq_permute(g, x, (int[]){ 1, 0 }) };
}

/* u'(AB)v: the product itself, point by point. */
static seen of_small(const prober *b, gq_ref r, const gq_ref *direction) {
  gq_node m = *gq_graph_node(b->g, r);
  if (b->n > 1)
    r = gq_matmul(b->g, by_point(b, m.arg[0], m.attr.flags & GQ_TA ? 0 : 1),
                  by_point(b, m.arg[1], m.attr.flags & GQ_TB ? 1 : 0), m.attr.flags);
  return between(b, r, direction);
}

/* The same of any tensor but a vector, where points are summed last. */
static seen of_whole(const prober *b, const gq_ref *direction) {
  gq_graph *g = b->g;
  gq_ref x = of_vector(b, b->product);
  if (x == GQ_NONE || b->p->inputs < 2) return none;
  int64_t each[] = { b->n, b->p->input[0].dim[1], b->p->input[1].dim[1] };
  x = gq_permute(g, x, (int[]){ 1, 0 });
  return between(b, gq_reshape(g, x, b->n > 1 ? gq_shape_of(3, each) : gq_shape_of(2, each + 1)), direction);
}

/* A matrix product over rows: u'A and B v, row by row, unless its own numbers cost less. */
static seen of_matmul(const prober *b, gq_ref r, const gq_ref *direction) {
  enum { DEARER = 2 }; /* products with few rows on one side, a number */
  gq_graph *g = b->g;
  gq_node m = *gq_graph_node(g, r);
  gq_shape s = m.shape, from = shape_of(b, m.arg[0]);
  int ta = m.attr.flags & GQ_TA, tb = m.attr.flags & GQ_TB;
  if (from.ndim != 2 || shape_of(b, m.arg[1]).ndim != 2) return none;
  if (!along(b, m.arg[0], ta ? 0 : 1) || !along(b, m.arg[1], tb ? 1 : 0)) return none;
  if (!b->by_rows && s.dim[0] * s.dim[1] < DEARER * GQ_DIRECTIONS * (s.dim[0] + s.dim[1]))
    return of_small(b, r, direction);
  return (seen){ gq_emit2(g, GQ_OP_MUL, gq_matmul(g, direction[0], m.arg[0], ta ? GQ_TB : 0),
                          gq_matmul(g, direction[1], m.arg[1], tb ? 0 : GQ_TB)),
                 GQ_NONE };
}

/* The weight of a convolution, a sum over images of A B', whose groups are its first rows: u'A and B v, the latter a
** convolution of few channels, summed over all but images. */
static seen of_windows(const prober *b, gq_ref r, const gq_ref *direction) {
  gq_graph *g = b->g;
  gq_ref product = origin(b, r);
  gq_node sum = *gq_graph_node(g, product), m = sum;
  if (sum.op == GQ_OP_SUM) product = sum.arg[0], m = *gq_graph_node(g, product);
  gq_shape s = m.shape, u = gq_shape_of(1, (int64_t[]){ GQ_DIRECTIONS });
  int lead = s.ndim - 2, images = 0, mask = sum.op == GQ_OP_SUM ? sum.attr.flags : 0;
  int64_t count = 1;
  while (images < lead && mask >> images & 1) count *= s.dim[images++];
  if (b->columns || m.op != GQ_OP_MATMUL || mask >> images || count % b->n || !along(b, product, 0))
    return none;
  int turned[GQ_MAXDIM]; /* u {directions, groups, rows} -> {groups, directions, rows} */
  for (int i = images; i <= lead; i++) turned[i - images] = u.ndim, u.dim[u.ndim++] = s.dim[i];
  turned[u.ndim - 2] = 0, turned[u.ndim - 1] = u.ndim - 1;
  if (gq_numel(u) != gq_numel(shape_of(b, direction[0])) ||
      s.dim[lead + 1] != shape_of(b, direction[1]).dim[1])
    return none;
  int left = m.attr.flags & GQ_TA ? GQ_TB : 0, right = m.attr.flags & GQ_TB ? 0 : GQ_TB;
  gq_ref rows = gq_permute(g, gq_reshape(g, direction[0], u), turned);
  gq_ref x =
    gq_emit2(g, GQ_OP_MUL, gq_matmul(g, rows, m.arg[0], left),
             gq_matmul(g, direction[1], m.arg[1], right)); /* {images, groups, directions, windows} */
  x = gq_sum_axes(g, x, ((1 << lead) - (1 << images)) | 1 << (lead + 1));
  x = gq_reshape(g, x, gq_shape_of(2, (int64_t[]){ count, GQ_DIRECTIONS }));
  return (seen){ gq_permute(g, x, (int[]){ 1, 0 }), GQ_NONE };
}

/* What is cut with the rows, along directions of its shape, before points are summed. */
static seen of_cut(const prober *b, gq_ref r, gq_ref direction) {
  gq_graph *g = b->g;
  gq_shape s = shape_of(b, b->product), x = s, d;
  int at = b->columns ? s.ndim - 1 : 0; /* of points, before the rows */
  if (s.ndim > GQ_MAXDIM - 2) return none;
  for (int i = x.ndim++; i > at; i--) x.dim[i] = x.dim[i - 1];
  x.dim[at] = b->n;
  if (b->n > 1) {
    gq_node sum = *gq_graph_node(g, r);
    if (sum.op != GQ_OP_SUM || sum.attr.flags != 1 << at || !gq_shape_equal(shape_of(b, sum.arg[0]), x) ||
        !along(b, sum.arg[0], at))
      return none;
    r = sum.arg[0];
  }
  d = x, d.dim[at] = 1;
  for (int i = d.ndim++; i > 0; i--) d.dim[i] = d.dim[i - 1];
  d.dim[0] = GQ_DIRECTIONS;
  r = gq_emit2(g, GQ_OP_MUL, gq_reshape(g, direction, d), gq_reshape(g, r, x));
  r = gq_sum_axes(g, r, ((1 << d.ndim) - 1) & ~(1 | 6 << at));
  return (seen){ gq_reshape(g, r, gq_shape_of(2, (int64_t[]){ GQ_DIRECTIONS, b->n * s.dim[at] })), GQ_NONE };
}

/* The directions of a part of the tensor. n: one of a vector, two of a matrix; 0: its numbers are looked at. */
typedef struct way {
  int n;
  gq_ref direction[GQ_PROBE_INPUTS];
} way;

static seen see(const prober *b, gq_ref r, way w);

/* A row or a column of numbers, between its directions and the single one of the other side. */
static seen of_line(const prober *b, gq_ref r, way w) {
  int side = shape_of(b, r).dim[0] == 1 ? 1 : 0;
  return times(b, see(b, r, (way){ 1, { w.direction[side] } }), w.direction[1 - side]);
}

/* What is no sum of others. */
static seen of_term(const prober *b, gq_ref r, way w) {
  gq_shape s = shape_of(b, r);
  if (b->p->inputs && !b->p->sides) return of_cut(b, r, w.direction[0]);
  if (w.n == 0) return of_numbers(b, r);
  if (w.n == 1) return of_direction(b, r, w.direction[0]);
  if (s.ndim != 2) return of_windows(b, r, w.direction);
  if (gq_graph_node(b->g, r)->op == GQ_OP_MATMUL) return of_matmul(b, r, w.direction);
  return s.dim[0] == 1 || s.dim[1] == 1 ? of_line(b, r, w) : none;
}

/* x {k, ..} as numbers start, start + step, .. of `size`. */
static gq_ref padded(const prober *b, gq_ref x, int64_t size, int64_t start, int64_t step) {
  if (x == GQ_NONE) return x;
  gq_attr attr = { .shape = gq_shape_of(2, (int64_t[]){ size, shape_of(b, x).dim[1] }),
                   .start = { start },
                   .step = { step, 1 } };
  return gq_emit(b->g, GQ_OP_PAD, 1, &x, &attr);
}

/* x, which has numbers start, start + step, .. of the axes of a larger one. */
static seen of_part(const prober *b, gq_ref x, gq_shape whole, const int64_t *start, const int64_t *step,
                    way w) {
  gq_graph *g = b->g;
  gq_shape s = shape_of(b, x);
  if (s.ndim != (w.n ? w.n : 1) || (b->p->inputs && !b->p->sides)) return none;
  for (int i = 0; i < w.n; i++) {
    gq_attr attr = { .shape = gq_shape_of(2, (int64_t[]){ GQ_DIRECTIONS, s.dim[i] }),
                     .start = { 0, start[i] },
                     .step = { 1, step[i] } };
    w.direction[i] = gq_emit(g, GQ_OP_SLICE, 1, &w.direction[i], &attr);
  }
  seen part = see(b, x, w);
  if (w.n || unseen(part)) return part;
  int64_t first = start[0], by = step[0];
  return (seen){ padded(b, part.rows, whole.dim[0], first, by), padded(b, part.s, whole.dim[0], first, by) };
}

static seen together(const prober *b, seen x, seen y) {
  if (unseen(x) || unseen(y)) return none;
  if (x.rows != GQ_NONE && y.rows != GQ_NONE && !gq_shape_equal(shape_of(b, x.rows), shape_of(b, y.rows)))
    y = (seen){ GQ_NONE, summed(b, y) };
  return (seen){ plus(b, x.rows, y.rows), plus(b, x.s, y.s) };
}

/* A product along its directions; unseen where it is made in another way than by products of matrices, sums and parts. */
static seen see(const prober *b, gq_ref r, way w) {
  gq_graph *g = b->g;
  if (w.n < 2 || gq_shape_equal(shape_of(b, origin(b, r)), shape_of(b, r))) r = origin(b, r);
  gq_node m = *gq_graph_node(g, r);
  seen x = of_term(b, r, w);
  if (!unseen(x)) return x;
  switch (m.op) {
    case GQ_OP_NEG: return negative(b, see(b, m.arg[0], w));
    case GQ_OP_ADD:
    case GQ_OP_SUB:
      if (!gq_shape_equal(shape_of(b, m.arg[0]), shape_of(b, m.arg[1]))) return none;
      x = see(b, m.arg[1], w);
      return together(b, see(b, m.arg[0], w), m.op == GQ_OP_ADD ? x : negative(b, x));
    case GQ_OP_MUL:
      for (int i = 0; i < 2; i++)
        if (gq_numel(shape_of(b, m.arg[i])) == 1 && gq_numel(shape_of(b, m.arg[1 - i])) == gq_numel(m.shape))
          return times(b, see(b, m.arg[1 - i], w), gq_reshape(g, m.arg[i], gq_shape_of(0, NULL)));
      return none;
    case GQ_OP_PERMUTE:
      return w.n == 2 && m.shape.ndim == 2 ? see(b, m.arg[0], (way){ 2, { w.direction[1], w.direction[0] } })
                                           : none;
    case GQ_OP_PAD: return of_part(b, m.arg[0], m.shape, m.attr.start, m.attr.step, w);
    case GQ_OP_CAT: {
      int64_t start[GQ_MAXDIM] = { 0 }, step[GQ_MAXDIM];
      for (int i = 0; i < GQ_MAXDIM; i++) step[i] = 1;
      for (int i = 0; i < m.nargs; i++) {
        gq_ref arg = gq_graph_node(g, r)->args[i];
        seen one = of_part(b, arg, m.shape, start, step, w);
        x = i ? together(b, x, one) : one;
        if (unseen(x)) return x;
        start[m.attr.axis] += shape_of(b, arg).dim[m.attr.axis];
      }
      return x;
    }
    default: return none;
  }
}

/* Number i of the tensor, or direction i: of the tensor's shape. */
static gq_ref tangent(const prober *b, int i, const gq_ref *direction) {
  gq_graph *g = b->g;
  const gq_probe *p = b->p;
  gq_shape s = shape_of(b, b->product);
  gq_dtype d = gq_graph_node(g, b->product)->dtype;
  if (p->inputs == 0) {
    gq_ref one = gq_expand(g, gq_const(g, d, 1), gq_shape_of(1, (int64_t[]){ 1 }));
    return gq_reshape(g, gq_pad(g, one, 0, i, gq_numel(s)), s);
  }
  gq_ref part[GQ_PROBE_INPUTS];
  for (int k = 0; k < p->inputs; k++) part[k] = gq_slice(g, direction[k], 0, i, 1);
  return gq_reshape(g, p->inputs == 2 ? gq_matmul(g, part[0], part[1], GQ_TA) : part[0], s);
}

/* One number at n points, from what is linear in a: {1, n rows or more} before the sum over rows. */
static gq_ref of_tangent(const prober *b, gq_ref t) {
  gq_graph *g = b->g;
  gq_shape s = shape_of(b, b->a);
  gq_ref dot = gq_emit2(g, GQ_OP_MUL, b->product, t), jt, one;
  dot = gq_reshape(g, gq_sum_axes(g, dot, (1 << shape_of(b, dot).ndim) - 1), gq_shape_of(0, NULL));
  if (dot == GQ_NONE) return GQ_NONE;
  one = gq_const(g, gq_graph_node(g, dot)->dtype, 1);
  if (gq_vjp(g, 1, &dot, &one, 1, &b->a, &jt) != GQ_OK) return GQ_NONE;
  if (jt == GQ_NONE) jt = gq_zeros(g, gq_graph_node(g, dot)->dtype, s);
  gq_ref x = gq_emit2(g, GQ_OP_MUL, jt, b->a);
  if (b->columns && s.ndim > 1) x = gq_sum_axes(g, x, (1 << (s.ndim - 1)) - 1);
  return gq_reshape(g, x, gq_shape_of(2, (int64_t[]){ 1, b->columns ? s.dim[s.ndim - 1] : gq_numel(s) }));
}

static seen of_tangents(const prober *b, const gq_ref *direction) {
  gq_ref x[GQ_PROBE_ITSELF];
  for (int i = 0; i < b->p->numbers; i++)
    if ((x[i] = of_tangent(b, tangent(b, i, direction))) == GQ_NONE) return none;
  return (seen){ gq_cat(b->g, b->p->numbers, x, 0), GQ_NONE };
}

static seen see_all(const prober *b, const gq_ref *direction) {
  way w = { .n = b->p->inputs };
  for (int i = 0; i < w.n; i++) w.direction[i] = direction[i];
  seen x = see(b, b->product, w);
  if (unseen(x)) x = of_whole(b, direction);
  return unseen(x) ? of_tangents(b, direction) : x;
}

gq_ref gq_probe_emit(gq_graph *g, const gq_probe *p, int64_t n, const gq_label *at, bool columns,
                     gq_ref product, gq_ref a, const gq_ref *direction, gq_ref *size_) {
  prober b = { g, p, n, at, columns, true, product, a };
  seen x = size_ ? see_all(&b, direction) : none;
  if (size_) *size_ = gq_sum_axes(g, summed(&b, (seen){ sizes(&b, x.rows), sizes(&b, x.s) }), 1);
  b.by_rows = false;
  return summed(&b, see_all(&b, direction));
}
