/*
** probe.c -- see probe.h. Products of MLPs are matrix products and sums over rows, whose probes by point cost little;
** those of other dynamics are had by differentiating the product's projection, which is linear in a, in a: that is
** df/dtheta T, and times a, row by row, it is what a point adds.
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
  int64_t n;
  bool columns, by_rows; /* by_rows: what is summed up is to be looked at */
  gq_ref product, a;
} prober;

static gq_shape shape_of(const prober *b, gq_ref r) { return gq_graph_node(b->g, r)->shape; }

/* What r was reshaped from. */
static gq_ref origin(const prober *b, gq_ref r) {
  while (gq_graph_node(b->g, r)->op == GQ_OP_RESHAPE) r = gq_graph_node(b->g, r)->args[0];
  return r;
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

static bool unseen(seen x) { return x.rows == GQ_NONE && x.s == GQ_NONE; }

static gq_ref plus(const prober *b, gq_ref x, gq_ref y) {
  return x == GQ_NONE ? y : y == GQ_NONE ? x : gq_emit2(b->g, GQ_OP_ADD, x, y);
}

static seen times(const prober *b, seen x, gq_ref y) {
  return (seen){ x.rows == GQ_NONE ? GQ_NONE : gq_emit2(b->g, GQ_OP_MUL, x.rows, y),
                 x.s == GQ_NONE ? GQ_NONE : gq_emit2(b->g, GQ_OP_MUL, x.s, y) };
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
  if (from.ndim == 0 || from.ndim == GQ_MAXDIM || !(mask >> axis & 1) || from.dim[axis] % b->n)
    return GQ_NONE;
  for (int i = from.ndim; i > axis; i--) to.dim[i] = from.dim[i - 1];
  to.dim[axis] = b->n, to.dim[axis + 1] = from.dim[axis] / b->n, to.ndim++;
  x = gq_sum_axes(g, gq_reshape(g, x, to), (mask & low) | (mask & ~low) << 1);
  if (gq_numel(shape_of(b, x)) != size * b->n) return GQ_NONE;
  if (b->columns) return gq_reshape(g, x, gq_shape_of(2, (int64_t[]){ size, b->n }));
  return gq_permute(g, gq_reshape(g, x, gq_shape_of(2, (int64_t[]){ b->n, size })), (int[]){ 1, 0 });
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

/* direction v of a vector, before it is summed over rows where that can be: fewer numbers are left. */
static seen along(const prober *b, gq_ref direction, gq_ref v) {
  gq_graph *g = b->g;
  gq_node r = *gq_graph_node(g, origin(b, v));
  for (int i = 0; r.op == GQ_OP_MUL && i < 2; i++)
    if (gq_numel(shape_of(b, r.arg[i])) == 1 && gq_numel(shape_of(b, r.arg[1 - i])) == gq_numel(r.shape))
      return times(b, along(b, direction, r.arg[1 - i]), gq_reshape(g, r.arg[i], gq_shape_of(0, NULL)));
  gq_shape from = r.op == GQ_OP_SUM ? shape_of(b, r.arg[0]) : (gq_shape){ 0 };
  if (b->columns && from.ndim == 2 && r.attr.flags == 2 && from.dim[1] % b->n == 0 &&
      (b->n > 1 || b->by_rows || from.dim[0] > GQ_PROBE_ITSELF))
    return (seen){ project(b, direction, r.arg[0]), GQ_NONE };
  gq_ref x = of_vector(b, v);
  return (seen){ GQ_NONE, x == GQ_NONE ? x : gq_matmul(g, direction, x, 0) };
}

/* x, whose axis `rows` holds those of all points: a matrix a point, {n, ..}. */
static gq_ref by_point(const prober *b, gq_ref x, int rows) {
  gq_shape s = shape_of(b, x);
  int64_t each = s.dim[rows] / b->n;
  if (rows == 0) return gq_reshape(b->g, x, gq_shape_of(3, (int64_t[]){ b->n, each, s.dim[1] }));
  x = gq_reshape(b->g, x, gq_shape_of(3, (int64_t[]){ s.dim[0], b->n, each }));
  return gq_permute(b->g, x, (int[]){ 1, 0, 2 });
}

/* u'(AB)v: the product itself, point by point. */
static gq_ref of_small(const prober *b, gq_ref r, const gq_ref *direction) {
  gq_graph *g = b->g;
  gq_node m = *gq_graph_node(g, r);
  if (b->n > 1)
    r = gq_matmul(g, by_point(b, m.arg[0], m.attr.flags & GQ_TA ? 0 : 1),
                  by_point(b, m.arg[1], m.attr.flags & GQ_TB ? 1 : 0), m.attr.flags);
  gq_ref x = gq_emit2(g, GQ_OP_MUL, gq_matmul(g, r, direction[1], GQ_TB),
                      gq_permute(g, direction[0], (int[]){ 1, 0 }));
  x = gq_reshape(g, gq_sum_axes(g, x, b->n > 1 ? 2 : 1), gq_shape_of(2, (int64_t[]){ b->n, GQ_DIRECTIONS }));
  return gq_permute(g, x, (int[]){ 1, 0 });
}

/* A matrix product over rows: u'A and B v, row by row, unless its own numbers cost less. */
static seen of_matmul(const prober *b, gq_ref r, const gq_ref *direction) {
  enum { DEARER = 2 }; /* products with few rows on one side, a number */
  gq_graph *g = b->g;
  gq_node m = *gq_graph_node(g, r);
  gq_shape s = m.shape, from = shape_of(b, m.arg[0]);
  int ta = m.attr.flags & GQ_TA, tb = m.attr.flags & GQ_TB;
  if (from.ndim != 2 || from.dim[ta ? 0 : 1] % b->n || shape_of(b, m.arg[1]).ndim != 2)
    return (seen){ GQ_NONE, GQ_NONE };
  if (!b->by_rows && s.dim[0] * s.dim[1] < DEARER * GQ_DIRECTIONS * (s.dim[0] + s.dim[1]))
    return (seen){ GQ_NONE, of_small(b, r, direction) };
  return (seen){ gq_emit2(g, GQ_OP_MUL, gq_matmul(g, direction[0], m.arg[0], ta ? GQ_TB : 0),
                          gq_matmul(g, direction[1], m.arg[1], tb ? 0 : GQ_TB)),
                 GQ_NONE };
}

/* A row or a column of numbers, between its directions and the single one of the other side. */
static seen of_line(const prober *b, gq_ref r, const gq_ref *direction) {
  int side = shape_of(b, r).dim[0] == 1 ? 1 : 0;
  return times(b, along(b, direction[side], r), direction[1 - side]);
}

/* The weight of a convolution, a sum over images of A B', whose groups are its first rows: u'A and B v, the latter a
** convolution of few channels, summed over all but images. */
static seen of_windows(const prober *b, gq_ref r, const gq_ref *direction) {
  gq_graph *g = b->g;
  seen none = { GQ_NONE, GQ_NONE };
  gq_node sum = *gq_graph_node(g, origin(b, r)), m = sum;
  if (sum.op == GQ_OP_SUM) m = *gq_graph_node(g, sum.arg[0]);
  gq_shape s = m.shape, u = gq_shape_of(1, (int64_t[]){ GQ_DIRECTIONS });
  int lead = s.ndim - 2, images = 0, mask = sum.op == GQ_OP_SUM ? sum.attr.flags : 0;
  int64_t count = 1;
  while (images < lead && mask >> images & 1) count *= s.dim[images++];
  if (b->columns || m.op != GQ_OP_MATMUL || mask >> images || count % b->n) return none;
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

/* Numbers first .. first + n - 1 of the directions. */
static gq_ref part_of(const prober *b, gq_ref direction, int64_t first, int64_t n) {
  gq_attr attr = { .shape = gq_shape_of(2, (int64_t[]){ GQ_DIRECTIONS, n }),
                   .start = { 0, first },
                   .step = { 1, 1 } };
  return gq_emit(b->g, GQ_OP_SLICE, 1, &direction, &attr);
}

/* A matrix between its directions; unseen where it is made in another way than by products, sums and joining. */
static seen of_matrix(const prober *b, gq_ref r, const gq_ref *direction) {
  gq_graph *g = b->g;
  gq_node m = *gq_graph_node(g, r);
  seen all = { GQ_NONE, GQ_NONE };
  if (m.op == GQ_OP_RESHAPE && gq_shape_equal(shape_of(b, origin(b, r)), m.shape))
    return of_matrix(b, origin(b, r), direction);
  if (m.op == GQ_OP_MATMUL) return of_matmul(b, r, direction);
  if (m.op != GQ_OP_CAT) return m.shape.dim[0] == 1 || m.shape.dim[1] == 1 ? of_line(b, r, direction) : all;
  int axis = m.attr.axis;
  int64_t first = 0;
  for (int i = 0; i < m.nargs; i++) {
    gq_ref arg = gq_graph_node(g, r)->args[i], part[2] = { direction[0], direction[1] };
    int64_t n = shape_of(b, arg).dim[axis];
    part[axis] = part_of(b, direction[axis], first, n);
    seen one = of_matrix(b, arg, part);
    if (unseen(one)) return one;
    all.rows = plus(b, all.rows, one.rows), all.s = plus(b, all.s, one.s);
    first += n;
  }
  return all;
}

/* Number i of the tensor, or direction i: of the tensor's shape. */
static gq_ref tangent(const prober *b, const gq_probe *p, int i, const gq_ref *direction) {
  gq_graph *g = b->g;
  gq_shape s = shape_of(b, b->product);
  gq_dtype d = gq_graph_node(g, b->product)->dtype;
  gq_attr attr = { .shape = gq_shape_of(1, (int64_t[]){ gq_numel(s) }), .start = { i }, .step = { 1 } };
  if (p->inputs == 0) {
    gq_ref one = gq_expand(g, gq_const(g, d, 1), gq_shape_of(1, (int64_t[]){ 1 }));
    return gq_reshape(g, gq_emit(g, GQ_OP_PAD, 1, &one, &attr), s);
  }
  gq_ref part[GQ_PROBE_INPUTS];
  for (int k = 0; k < p->inputs; k++) {
    attr = (gq_attr){ .shape = p->input[k] };
    attr.shape.dim[0] = 1, attr.start[0] = i;
    for (int j = 0; j < attr.shape.ndim; j++) attr.step[j] = 1;
    part[k] = gq_emit(g, GQ_OP_SLICE, 1, &direction[k], &attr);
  }
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

static seen of_tangents(const prober *b, const gq_probe *p, const gq_ref *direction) {
  gq_ref x[GQ_PROBE_ITSELF];
  for (int i = 0; i < p->numbers; i++)
    if ((x[i] = of_tangent(b, tangent(b, p, i, direction))) == GQ_NONE) return (seen){ GQ_NONE, GQ_NONE };
  return (seen){ gq_cat(b->g, p->numbers, x, 0), GQ_NONE };
}

static seen see(const prober *b, const gq_probe *p, const gq_ref *direction) {
  seen x = { GQ_NONE, GQ_NONE };
  if (p->inputs == 2 && shape_of(b, b->product).ndim == 2) x = of_matrix(b, b->product, direction);
  else if (p->inputs == 2) x = of_windows(b, b->product, direction);
  else if (p->sides) x = along(b, direction[0], b->product);
  else if (!p->inputs) x.s = of_vector(b, b->product);
  return unseen(x) ? of_tangents(b, p, direction) : x;
}

gq_ref gq_probe_emit(gq_graph *g, const gq_probe *p, int64_t n, bool columns, gq_ref product, gq_ref a,
                     const gq_ref *direction, gq_ref *size_) {
  prober b = { g, n, columns, true, product, a };
  seen x = size_ ? see(&b, p, direction) : (seen){ GQ_NONE, GQ_NONE };
  if (size_) *size_ = gq_sum_axes(g, summed(&b, (seen){ sizes(&b, x.rows), sizes(&b, x.s) }), 1);
  b.by_rows = false;
  return summed(&b, see(&b, p, direction));
}
