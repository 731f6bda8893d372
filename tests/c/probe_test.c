/*
** probe_test.c -- probes of products by point (field/probe.h): at n points what they are at each alone, and at one point the
** numbers of the product itself along their directions, for layers, weights used twice, kinetics, images, batches of matrices,
** tables, captures of rows, and matrices spread out of few numbers, whose sides are multiples of the points.
*/
#include "graphs.h"
#include "runtime/exec/backend.h"
#include "runtime/field/system.h"

enum { ROWS = 16, POINTS = 4, MOST = 8 };

typedef struct problem {
  const char *name;
  gq_shape state;
  int n;
  gq_shape capture[MOST];
  gq_ref (*f)(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c);
  bool columns;
} problem;

/* tanh(z W + b + t u) V */
static gq_ref layers(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_ref h = gq_emit2(g, GQ_OP_ADD, gq_matmul(g, z, c[0], 0), c[1]);
  h = gq_emit2(g, GQ_OP_ADD, h, gq_emit2(g, GQ_OP_MUL, t, c[2]));
  return gq_matmul(g, gq_emit1(g, GQ_OP_TANH, h), c[3], 0);
}

/* tanh([z, t] W) V, the time as one more input */
static gq_ref with_time(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_ref rows = gq_expand(g, t, gq_shape_of(2, (int64_t[]){ gq_graph_node(g, z)->shape.dim[0], 1 }));
  gq_ref h = gq_emit1(g, GQ_OP_TANH, gq_matmul(g, gq_cat(g, 2, (gq_ref[]){ z, rows }, 1), c[0], 0));
  return gq_matmul(g, h, c[1], 0);
}

/* -p1 z + p2 sin(p3 t) z^2, the numbers taken out of one tensor */
static gq_ref kinetics(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_ref p[3];
  for (int i = 0; i < 3; i++) {
    gq_attr attr = { .shape = SHAPE(1), .start = { i }, .step = { 1 } };
    p[i] = gq_reshape(g, gq_emit(g, GQ_OP_SLICE, 1, &c[0], &attr), SCALAR);
  }
  gq_ref s = gq_emit2(g, GQ_OP_MUL, p[1], gq_emit1(g, GQ_OP_SIN, gq_emit2(g, GQ_OP_MUL, p[2], t)));
  s = gq_emit2(g, GQ_OP_MUL, s, gq_emit1(g, GQ_OP_SQUARE, z));
  return gq_emit2(g, GQ_OP_SUB, s, gq_emit2(g, GQ_OP_MUL, p[0], z));
}

/* sin(z C) + c z, with a matrix {3, 3} that meets {rows, 2, 3} and a number for each row */
static gq_ref matrices(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  return gq_emit2(g, GQ_OP_ADD, gq_emit1(g, GQ_OP_SIN, gq_matmul(g, z, c[0], 0)),
                  gq_emit2(g, GQ_OP_MUL, c[1], z));
}

/* The weight multiplies from the left of the transposed state, and there is a cube of numbers. */
static gq_ref unusual(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_ref zt = gq_permute(g, z, (int[]){ 1, 0 });
  gq_ref x = gq_permute(g, gq_matmul(g, c[0], zt, 0), (int[]){ 1, 0 });
  gq_ref cube = gq_reshape(g, gq_sum_axes(g, gq_emit1(g, GQ_OP_EXP, c[1]), 1), SHAPE(3, 2));
  return gq_emit1(g, GQ_OP_TANH,
                  gq_matmul(g, gq_emit2(g, GQ_OP_MUL, x, t), gq_matmul(g, cube, cube, GQ_TB), 0));
}

/* A convolution of images {rows, channels, 5, 5} in two groups, then one without, with padding: 3 x 3. */
static gq_ref convolved(gq_graph *g, gq_ref z, gq_ref w, int64_t groups) {
  gq_shape s = gq_graph_node(g, z)->shape, k = gq_graph_node(g, w)->shape, out = s;
  gq_attr pad = { .shape = SHAPE(s.dim[0], s.dim[1], 7, 7), .start = { 0, 0, 1, 1 }, .step = { 1, 1, 1, 1 } };
  gq_attr a = { .axis = 2, .flags = 2, .start = { 0, 0, 1, 1 }, .step = { 0, 0, 1, 1 } };
  int64_t K = k.dim[1] * 9;
  a.shape = SHAPE(s.dim[0], s.dim[1], 3, 3, 5, 5);
  z = gq_emit(g, GQ_OP_PAD, 1, &z, &pad);
  z = gq_emit(g, GQ_OP_WINDOW, 1, &z, &a);
  if (groups == 1) {
    w = gq_reshape(g, w, SHAPE(k.dim[0], K));
    z = gq_reshape(g, z, SHAPE(s.dim[0], K, 25));
  } else {
    w = gq_reshape(g, w, SHAPE(groups, k.dim[0] / groups, K));
    z = gq_reshape(g, z, SHAPE(s.dim[0], groups, K, 25));
  }
  out.dim[1] = k.dim[0];
  return gq_reshape(g, gq_matmul(g, w, z, 0), out);
}

static gq_ref images(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_ref h = gq_emit2(g, GQ_OP_ADD, convolved(g, z, c[0], 2), gq_reshape(g, c[1], SHAPE(4, 1, 1)));
  return convolved(g, gq_emit1(g, GQ_OP_TANH, gq_emit2(g, GQ_OP_MUL, h, t)), c[2], 1);
}

/* -dV/dz of V = the sum of tanh(tanh(z W + b) U) v: W and U multiply on the way back, too. */
static gq_ref energy(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_ref h = gq_emit1(g, GQ_OP_TANH, gq_emit2(g, GQ_OP_ADD, gq_matmul(g, z, c[0], 0), c[1]));
  h = gq_matmul(g, gq_emit1(g, GQ_OP_TANH, gq_matmul(g, h, c[2], 0)), c[3], 0);
  gq_ref v = gq_reshape(g, gq_sum_axes(g, h, 3), SCALAR), minus = gq_const(g, GQ_F64, -1), out;
  must(gq_vjp(g, 1, &v, &minus, 1, &z, &out));
  return out;
}

/* tanh(tanh(z W + b) W' - b[1:3] + t c) + z, where c is of each row: a weight there and back, and part of a bias */
static gq_ref tied(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_attr attr = { .shape = SHAPE(3), .start = { 1 }, .step = { 1 } };
  gq_ref b = gq_emit(g, GQ_OP_SLICE, 1, &c[1], &attr);
  gq_ref h = gq_emit1(g, GQ_OP_TANH, gq_emit2(g, GQ_OP_ADD, gq_matmul(g, z, c[0], 0), c[1]));
  h = gq_emit2(g, GQ_OP_SUB, gq_matmul(g, h, gq_permute(g, c[0], (int[]){ 1, 0 }), 0), b);
  h = gq_emit1(g, GQ_OP_TANH, gq_emit2(g, GQ_OP_ADD, h, gq_emit2(g, GQ_OP_MUL, t, c[2])));
  return gq_emit2(g, GQ_OP_ADD, h, z);
}

/* tanh(z W) V + tanh(m W) V, m the mean of the rows: products over 16 rows and over one, rows of another */
static gq_ref means(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_ref m = gq_sum_axes(g, z, 1), out[2];
  for (int i = 0; i < 2; i++) {
    gq_ref h = gq_emit2(g, GQ_OP_ADD, gq_matmul(g, i ? m : z, c[0], 0), c[1]);
    out[i] = gq_matmul(g, gq_emit1(g, GQ_OP_TANH, h), c[2], 0);
  }
  return gq_emit2(g, GQ_OP_ADD, out[0], gq_emit2(g, GQ_OP_MUL, out[1], t));
}

/* z p, where p is the row of c of the time: of one of four intervals */
static gq_ref looked_up(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_ref at = gq_emit2(g, GQ_OP_MUL, t, gq_const(g, GQ_F64, 4));
  at = gq_emit2(g, GQ_OP_ADD, gq_cast(g, at, GQ_I64), gq_const(g, GQ_I64, 1));
  gq_attr attr = { .axis = 0 };
  gq_ref p = gq_emit(g, GQ_OP_INDEX_SELECT, 2, (gq_ref[]){ c[0], gq_reshape(g, at, SHAPE(1)) }, &attr);
  return gq_emit2(g, GQ_OP_MUL, gq_reshape(g, p, SHAPE(2)), z);
}

/* tanh(z W) t, every number of W one of c's */
static gq_ref spread(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  int64_t d = gq_graph_node(g, z)->shape.dim[1];
  gq_ref h = gq_matmul(g, z, gq_expand(g, c[0], SHAPE(d, d)), 0);
  return gq_emit2(g, GQ_OP_MUL, gq_emit1(g, GQ_OP_TANH, h), t);
}

/* tanh(z (W t)), of another matrix at every point */
static gq_ref spread_in_time(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  int64_t d = gq_graph_node(g, z)->shape.dim[1];
  gq_ref w = gq_emit2(g, GQ_OP_MUL, gq_expand(g, c[0], SHAPE(d, d)), t);
  return gq_emit1(g, GQ_OP_TANH, gq_matmul(g, z, w, 0));
}

/* tanh(z + b t) b', b the numbers of c one after the other, b' each of them several times */
static gq_ref biases(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  int64_t d = gq_graph_node(g, z)->shape.dim[1], n = gq_graph_node(g, c[0])->shape.dim[0];
  gq_ref over = gq_expand(g, gq_reshape(g, c[0], SHAPE(1, n)), SHAPE(d / n, n));
  gq_ref each = gq_expand(g, gq_reshape(g, c[0], SHAPE(n, 1)), SHAPE(n, d / n));
  gq_ref h = gq_emit2(g, GQ_OP_MUL, gq_reshape(g, over, SHAPE(d)), t);
  h = gq_emit1(g, GQ_OP_TANH, gq_emit2(g, GQ_OP_ADD, z, h));
  return gq_emit2(g, GQ_OP_MUL, h, gq_reshape(g, each, SHAPE(d)));
}

/* tanh(z K') V t, K and V of eight tokens, all alike */
static gq_ref tokens(gq_graph *g, gq_ref t, gq_ref z, const gq_ref *c) {
  gq_shape s = SHAPE(8, gq_graph_node(g, z)->shape.dim[1]);
  gq_ref k = gq_emit1(g, GQ_OP_TANH, gq_matmul(g, z, gq_expand(g, c[0], s), GQ_TB));
  return gq_emit2(g, GQ_OP_MUL, gq_matmul(g, k, gq_expand(g, c[1], s), 0), t);
}

static gq_tensor *in[64];
static int nin;

static gq_tensor *point_of(gq_tensor *x, gq_shape state, gq_shape at, bool columns, int point) {
  gq_tensor *y = tensor(GQ_F64, at);
  int64_t n = gq_numel(state), rows = columns ? state.dim[state.ndim - 1] : n;
  for (int64_t i = 0; i < n; i++)
    numbers(y)[i] =
      columns ? numbers(x)[i / rows * rows * POINTS + point * rows + i % rows] : numbers(x)[point * n + i];
  return y;
}

static gq_tensor *direction[MOST][GQ_PROBE_INPUTS]; /* of every boundary */

/* Boundary values, whatever they are, and the directions. */
static void with_boundaries(const gq_field *f) {
  int d = 0;
  for (int j = 0; j < f->nb; j++) {
    gq_graph *g = f->class_body[0];
    in[nin++] = random_tensor(gq_graph_node(g, gq_graph_input(g, 2 + j))->shape, -1, 1);
  }
  for (int j = 0; j < f->nb; j++) {
    gq_probe p = gq_field_probe(f, 0, j);
    for (int k = 0; k < p.inputs; k++) {
      int i = f->directed[j][k];
      if (i == d) {
        in[nin] = tensor(GQ_F64, p.input[k]), d++;
        memcpy(numbers(in[nin++]), f->direction[i], gq_numel(p.input[k]) * 8);
      }
      direction[j][k] = in[3 + f->nb + i];
    }
  }
}

/* Number i of the product's probe. */
static double projection(const gq_probe *p, const double *product, gq_shape s, gq_tensor *const *along,
                         int i) {
  double sum = 0;
  int64_t n = gq_numel(s), first = s.ndim ? s.dim[0] : 1, last = n / first;
  if (p->inputs == 0) return product[i];
  for (int64_t k = 0; k < n; k++) {
    double d = p->inputs == 2
                 ? numbers(along[0])[i * first + k / last] * numbers(along[1])[i * last + k % last]
                 : numbers(along[0])[i * n + k];
    sum += d * product[k];
  }
  return sum;
}

static void probes(const problem *p) {
  gq_graph *g = gq_graph_new();
  gq_ref c[MOST], t = gq_input(g, GQ_F64, SCALAR), z = gq_input(g, GQ_F64, p->state);
  bool want[MOST];
  gq_field *f;
  gq_system one, many;
  for (int i = 0; i < p->n; i++) {
    c[i] = gq_input(g, GQ_F64, p->capture[i]);
    want[i] = true;
  }
  gq_ref out = p->f(g, t, z, c);
  gq_graph_set_outputs(g, 1, &out);
  must(gq_graph_status(g));
  gq_set_threads(1);
  must(gq_field_new(&gq_cpu_backend, g, p->n, want, p->columns, &f));
  must(gq_field_probes(f));
  CHECK(f->columns == p->columns);
  must(gq_system_nodes(f, 0, &(gq_pointkind){ .n = POINTS, .probes = true }, &many));
  must(gq_system_nodes(f, 0, &(gq_pointkind){ .n = 1, .probes = true }, &one));
  int products = 0;
  for (int r = 0; r < gq_graph_size(many.g); r++) products += gq_graph_node(many.g, r)->op == GQ_OP_MATMUL;
  if (p->f == images) CHECK(products == 10); /* of f, its derivatives, and two a weight's probe */
  if (p->f == energy) CHECK(products == (p->columns ? 24 : 26));
  if (p->f == tied) CHECK(products == (p->columns ? 14 : 16));
  int n = f->nb, parts = gq_graph_outputs(many.g) - many.nq; /* probes, then their sizes */
  CHECK(parts == 2 * n && gq_graph_outputs(one.g) - one.nq == parts);
  CHECK(many.columns == p->columns);
  gq_shape state = f->class_shape[0], all = state;
  if (many.columns) all.dim[all.ndim - 1] *= POINTS;
  else {
    for (int i = all.ndim++; i > 0; i--) all.dim[i] = all.dim[i - 1];
    all.dim[0] = POINTS;
  }
  gq_tensor *times = random_tensor(SHAPE(POINTS), 0, 1), *zs = random_tensor(all, -1, 1),
            *as = random_tensor(all, -1, 1);
  nin = 0, in[nin++] = times, in[nin++] = zs, in[nin++] = as;
  with_boundaries(f);
  gq_tensor *together[MOST];
  for (int i = 0; i < parts; i++) together[i] = value_of(many.g, in, gq_graph_output(many.g, i));
  for (int k = 0; k < POINTS; k++) {
    gq_shape first = gq_graph_node(one.g, gq_graph_input(one.g, 0))->shape;
    in[0] = tensor(GQ_F64, first), numbers(in[0])[0] = numbers(times)[k];
    gq_shape at = gq_graph_node(one.g, gq_graph_input(one.g, 1))->shape;
    in[1] = point_of(zs, state, at, many.columns, k), in[2] = point_of(as, state, at, many.columns, k);
    for (int i = 0; i < n; i++) {
      int j = one.of[one.nq + i];
      gq_probe q = gq_field_probe(f, 0, j);
      gq_tensor *alone = value_of(one.g, in, gq_graph_output(one.g, i));
      gq_tensor *size = value_of(one.g, in, gq_graph_output(one.g, n + i));
      gq_tensor *product = value_of(one.g, in, gq_graph_output(one.g, parts + i));
      double sum = 0;
      for (int r = 0; r < q.numbers; r++) {
        double a = numbers(alone)[r], b = numbers(together[i])[r * POINTS + k];
        CHECK(fabs(a - b) <= 1e-12 * (1 + fabs(a)));
        double d = projection(&q, gq_tensor_data(product), product->shape, direction[j], r);
        CHECK(fabs(a - d) <= 1e-12 * (1 + fabs(d)));
        sum += fabs(a);
      }
      CHECK(numbers(size)[0] >= sum * (1 - 1e-12) && numbers(together[n + i])[k] >= sum * (1 - 1e-12));
      gq_tensor_unref(alone);
      gq_tensor_unref(size);
      gq_tensor_unref(product);
    }
    for (int i = 0; i < 3; i++) gq_tensor_unref(in[i]);
  }
  for (int i = 3; i < nin; i++) gq_tensor_unref(in[i]);
  for (int i = 0; i < parts; i++) gq_tensor_unref(together[i]);
  gq_tensor_unref(times);
  gq_tensor_unref(zs);
  gq_tensor_unref(as);
  gq_system_done(&one);
  gq_system_done(&many);
  gq_field_free(f);
  gq_graph_free(g);
}

/* With d numbers a row. */
static void spreads(int64_t rows, int64_t d, bool columns) {
  gq_shape state = SHAPE(rows, d);
  problem list[] = {
    { "matrix of a vector", state, 1, { SHAPE(d) }, spread, columns },
    { "matrix of a column", state, 1, { SHAPE(d, 1) }, spread, columns },
    { "matrix of a row", state, 1, { SHAPE(1, d) }, spread, columns },
    { "matrix of a number", state, 1, { SCALAR }, spread, columns },
    { "matrix of a column in time", state, 1, { SHAPE(d, 1) }, spread_in_time, false },
    { "matrix of a row in time", state, 1, { SHAPE(1, d) }, spread_in_time, false },
    { "matrix of a number in time", state, 1, { SCALAR }, spread_in_time, false },
    { "biases", state, 1, { SHAPE(4) }, biases, columns },
    { "tokens", state, 2, { SHAPE(1, d), SHAPE(d) }, tokens, columns },
  };
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    printf("%s, rows %d of %d%s\n", list[i].name, (int)rows, (int)d, list[i].columns ? "" : " in front");
    RUN(probes(&list[i]));
  }
}

int main(void) {
  problem list[] = {
    { "layers", SHAPE(ROWS, 3), 4, { SHAPE(3, 20), SHAPE(20), SHAPE(1, 20), SHAPE(20, 3) }, layers, true },
    { "layers in front",
      SHAPE(ROWS, 3),
      4,
      { SHAPE(3, 20), SHAPE(20), SHAPE(1, 20), SHAPE(20, 3) },
      layers,
      false },
    { "time", SHAPE(ROWS, 3), 2, { SHAPE(4, 20), SHAPE(20, 3) }, with_time, true },
    { "time in front", SHAPE(ROWS, 3), 2, { SHAPE(4, 20), SHAPE(20, 3) }, with_time, false },
    { "few numbers", SHAPE(ROWS, 2), 4, { SHAPE(2, 5), SHAPE(5), SHAPE(5), SHAPE(5, 2) }, layers, true },
    { "kinetics", SHAPE(ROWS, 2), 1, { SHAPE(3) }, kinetics, true },
    { "kinetics in front", SHAPE(ROWS, 2), 1, { SHAPE(3) }, kinetics, false },
    { "one number", SCALAR, 1, { SHAPE(3) }, kinetics, false },
    { "matrices", SHAPE(ROWS, 2, 3), 2, { SHAPE(3, 3), SHAPE(ROWS, 1, 1) }, matrices, false },
    { "images", SHAPE(3, 2, 5, 5), 3, { SHAPE(4, 1, 3, 3), SHAPE(4), SHAPE(2, 4, 3, 3) }, images, false },
    { "energy", SHAPE(ROWS, 3), 4, { SHAPE(3, 20), SHAPE(20), SHAPE(20, 20), SHAPE(20, 1) }, energy, true },
    { "energy in front",
      SHAPE(ROWS, 3),
      4,
      { SHAPE(3, 20), SHAPE(20), SHAPE(20, 20), SHAPE(20, 1) },
      energy,
      false },
    { "tied", SHAPE(ROWS, 3), 3, { SHAPE(3, 20), SHAPE(20), SHAPE(ROWS, 3) }, tied, true },
    { "tied in front", SHAPE(ROWS, 3), 3, { SHAPE(3, 20), SHAPE(20), SHAPE(ROWS, 3) }, tied, false },
    { "means", SHAPE(ROWS, 3), 3, { SHAPE(3, 40), SHAPE(40), SHAPE(40, 3) }, means, false },
    { "looked up", SHAPE(ROWS, 2), 1, { SHAPE(4, 2) }, looked_up, true },
    { "looked up in front", SHAPE(ROWS, 2), 1, { SHAPE(4, 2) }, looked_up, false },
    { "unusual", SHAPE(ROWS, 3), 2, { SHAPE(3, 3), SHAPE(2, 3, 2) }, unusual, false },
  };
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    printf("%s\n", list[i].name);
    RUN(probes(&list[i]));
  }
  for (int columns = 0; columns < 2; columns++) {
    spreads(16, 16, columns);
    spreads(8, 8, columns);
  }
  spreads(3, 4, false);
  spreads(1, 16, false);
  return DONE();
}
