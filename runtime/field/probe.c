/*
** probe.c -- see probe.h. Products of MLPs are matrix products and sums over rows, whose probes by point cost little; those
** of other dynamics are had by differentiating the product's projection, which is linear in a, in a: that is df/dtheta T,
** and times a, row by row, it is what a point adds.
*/
#include "probe.h"

void gq_probe_of(gq_shape s, bool cut, gq_probe *p) {
  *p = (gq_probe){ .numbers = GQ_DIRECTIONS };
  if (!cut && s.ndim <= 1 && gq_numel(s) <= GQ_PROBE_ITSELF) {
    p->numbers = (int)gq_numel(s);
  } else if (!cut && s.ndim >= 1 && s.ndim <= 2) {
    p->axis = 1;
    for (int i = 0; i < s.ndim; i++)
      p->input[p->inputs++] = gq_shape_of(2, (int64_t[]){ s.dim[i], GQ_DIRECTIONS });
  } else {
    p->inputs = 1;
    p->input[0] = gq_shape_of(1, (int64_t[]){ GQ_DIRECTIONS });
    for (int i = 0; i < s.ndim; i++) p->input[0].dim[p->input[0].ndim++] = s.dim[i];
  }
}

double gq_probe_direction(int j, int k, size_t i) {
  uint64_t h = ((uint64_t)j << 40) + ((uint64_t)k << 36) + i + 1;
  h *= 0x9e3779b97f4a7c15u; /* splitmix64 (Steele, Lea and Flood 2014) */
  h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
  h = (h ^ h >> 27) * 0x94d049bb133111ebu;
  h ^= h >> 31;
  return (h & 1 ? 1 : -1) * (0.5 + (double)(h >> 11) / (1ull << 53));
}

typedef struct prober {
  gq_graph *g;
  int64_t n;
  bool columns;
  gq_ref product, a;
} prober;

static gq_shape shape_of(const prober *b, gq_ref r) { return gq_graph_node(b->g, r)->shape; }

/* What the product was reshaped from. */
static gq_ref origin(const prober *b) {
  gq_ref r = b->product;
  while (gq_graph_node(b->g, r)->op == GQ_OP_RESHAPE) r = gq_graph_node(b->g, r)->args[0];
  return r;
}

/* x {k, n rows} -> {k, n} */
static gq_ref over_rows(const prober *b, gq_ref x) {
  gq_shape s = shape_of(b, x), to = gq_shape_of(3, (int64_t[]){ s.dim[0], b->n, s.dim[1] / b->n });
  x = gq_sum_axes(b->g, gq_reshape(b->g, x, to), 4);
  return gq_reshape(b->g, x, gq_shape_of(2, (int64_t[]){ s.dim[0], b->n }));
}

/* The numbers s {k, n} and, of what they were summed up from, x {k, n rows}, the sum of sizes: {k + 1, n}. */
static gq_ref with_magnitude(const prober *b, gq_ref s, gq_ref x) {
  gq_ref size = gq_sum_axes(b->g, over_rows(b, gq_emit1(b->g, GQ_OP_ABS, x)), 1);
  return gq_cat(b->g, 2, (gq_ref[]){ s, size }, 0);
}

/* A matrix product over rows: u'A and B v, row by row. */
static gq_ref of_matmul(const prober *b, const gq_ref *direction) {
  gq_graph *g = b->g;
  gq_ref r = origin(b);
  gq_node m = *gq_graph_node(g, r);
  int64_t rows =
    m.op == GQ_OP_MATMUL && m.shape.ndim == 2 ? shape_of(b, m.arg[0]).dim[m.attr.flags & GQ_TA ? 0 : 1] : 0;
  if (!rows || rows % b->n || m.shape.dim[0] != shape_of(b, direction[0]).dim[0]) return GQ_NONE;
  if (shape_of(b, m.arg[0]).ndim != 2 || shape_of(b, m.arg[1]).ndim != 2) return GQ_NONE;
  gq_ref left = gq_matmul(g, direction[0], m.arg[0], GQ_TA | (m.attr.flags & GQ_TA ? GQ_TB : 0));
  gq_ref right = gq_matmul(g, direction[1], m.arg[1], GQ_TA | (m.attr.flags & GQ_TB ? 0 : GQ_TB));
  gq_ref x = gq_emit2(g, GQ_OP_MUL, left, right);
  return with_magnitude(b, over_rows(b, x), x);
}

/* A sum over rows, kept apart by point: {numbers, n}. */
static gq_ref of_sum(const prober *b) {
  gq_graph *g = b->g;
  gq_node r = *gq_graph_node(g, origin(b));
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

/* {numbers, n} -> with the sum of their sizes. */
static gq_ref with_sizes(const prober *b, gq_ref s) {
  return gq_cat(b->g, 2, (gq_ref[]){ s, gq_sum_axes(b->g, gq_emit1(b->g, GQ_OP_ABS, s), 1) }, 0);
}

/* V's {k, directions} on numbers {k, n}. */
static gq_ref along(const prober *b, gq_ref direction, gq_ref s) {
  return gq_matmul(b->g, direction, s, GQ_TA);
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
    attr.shape.dim[p->axis] = 1, attr.start[p->axis] = i;
    for (int j = 0; j < attr.shape.ndim; j++) attr.step[j] = 1;
    part[k] = gq_emit(g, GQ_OP_SLICE, 1, &direction[k], &attr);
  }
  return gq_reshape(g, p->inputs == 2 ? gq_matmul(g, part[0], part[1], GQ_TB) : part[0], s);
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
  if (jt == GQ_NONE) return gq_zeros(g, gq_graph_node(g, dot)->dtype, gq_shape_of(2, (int64_t[]){ 1, b->n }));
  gq_ref x = gq_emit2(g, GQ_OP_MUL, jt, b->a);
  if (b->columns && s.ndim > 1) x = gq_sum_axes(g, x, (1 << (s.ndim - 1)) - 1);
  return gq_reshape(g, x, gq_shape_of(2, (int64_t[]){ 1, b->columns ? s.dim[s.ndim - 1] : gq_numel(s) }));
}

static gq_ref of_tangents(const prober *b, const gq_probe *p, const gq_ref *direction) {
  gq_ref s[GQ_PROBE_ITSELF + 1], size = GQ_NONE;
  for (int i = 0; i < p->numbers; i++) {
    gq_ref x = of_tangent(b, tangent(b, p, i, direction));
    if (x == GQ_NONE) return GQ_NONE;
    gq_ref m = over_rows(b, gq_emit1(b->g, GQ_OP_ABS, x));
    s[i] = over_rows(b, x);
    size = size == GQ_NONE ? m : gq_emit2(b->g, GQ_OP_ADD, size, m);
  }
  s[p->numbers] = size;
  return gq_cat(b->g, p->numbers + 1, s, 0);
}

gq_ref gq_probe_emit(gq_graph *g, const gq_probe *p, int64_t n, bool columns, gq_ref product, gq_ref a,
                     const gq_ref *direction) {
  prober b = { g, n, columns, product, a };
  gq_ref s = GQ_NONE;
  if (p->inputs == 2) {
    s = of_matmul(&b, direction);
    return s != GQ_NONE ? s : of_tangents(&b, p, direction);
  }
  if (shape_of(&b, product).ndim <= 1 && (!p->inputs || p->axis == 1)) {
    s = n == 1 ? gq_reshape(g, product, gq_shape_of(2, (int64_t[]){ gq_numel(shape_of(&b, product)), 1 }))
               : of_sum(&b);
    if (s != GQ_NONE) return with_sizes(&b, p->inputs ? along(&b, direction[0], s) : s);
  }
  return of_tangents(&b, p, direction);
}
