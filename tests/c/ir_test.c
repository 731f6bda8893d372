/*
** ir_test.c -- graphs: what shape rules refuse and say, folding, sharing, keys, and the derivative
** rule of every operation up to third order against differences.
*/
#include "graphs.h"

/* ---- shape rules ---- */

static bool says(int status, int code, const char *text) {
  if (status == code && strstr(gq_message(), text)) return true;
  printf("status %d, message: %s\n", status, gq_message());
  return false;
}

static int infer2(gq_op op, gq_dtype da, gq_shape a, gq_dtype db, gq_shape b, const gq_attr *attr,
                  gq_shape *out) {
  gq_dtype d;
  return gq_infer(op, 2, (gq_dtype[]){ da, db }, (gq_shape[]){ a, b }, attr, &d, out);
}

static int infer1(gq_op op, gq_dtype da, gq_shape a, const gq_attr *attr, gq_dtype *d, gq_shape *out) {
  return gq_infer(op, 1, &da, &a, attr, d, out);
}

static void test_refusals(void) {
  gq_shape s;
  gq_dtype d;
  gq_attr axis5 = { .axis = 5 }, perm = { .perm = { 0, 0 } }, to5 = { .shape = SHAPE(5) };
  gq_attr slice = { .shape = SHAPE(3, 2), .start = { 2, 0 }, .step = { 1, 1 } };
  gq_attr backwards = { .shape = SHAPE(1, 1), .start = { 2, 0 }, .step = { -1, 1 } };
  CHECK(says(infer2(GQ_OP_MATMUL, GQ_F32, SHAPE(3, 4), GQ_F32, SHAPE(5, 6), NULL, &s), GQ_ESHAPE,
             "matmul: {3, 4} by {5, 6}: inner sizes 4 and 5 differ"));
  CHECK(says(infer2(GQ_OP_MATMUL, GQ_F32, SHAPE(3), GQ_F32, SHAPE(3, 6), NULL, &s), GQ_ESHAPE,
             "at least 2 dimensions"));
  CHECK(says(infer2(GQ_OP_MATMUL, GQ_I64, SHAPE(3, 3), GQ_I64, SHAPE(3, 6), NULL, &s), GQ_EDTYPE,
             "matmul: int64 tensor"));
  CHECK(says(infer2(GQ_OP_ADD, GQ_F32, SHAPE(3), GQ_F64, SHAPE(3), NULL, &s), GQ_EDTYPE,
             "add: float32 and float64: convert one with :to("));
  CHECK(says(infer2(GQ_OP_MUL, GQ_F32, SHAPE(3, 2), GQ_F32, SHAPE(4, 2), NULL, &s), GQ_ESHAPE,
             "mul: {3, 2} and {4, 2} do not broadcast: sizes 3 and 4 differ"));
  CHECK(says(infer1(GQ_OP_EXP, GQ_I64, SHAPE(3), NULL, &d, &s), GQ_EDTYPE,
             "exp: int64 tensor; expected float32 or float64"));
  CHECK(
    says(infer2(GQ_OP_DIV, GQ_I64, SHAPE(3), GQ_I64, SHAPE(3), NULL, &s), GQ_EDTYPE, "div: int64 tensor"));
  CHECK(says(infer2(GQ_OP_LT, GQ_BOOL, SHAPE(3), GQ_BOOL, SHAPE(3), NULL, &s), GQ_EDTYPE, "lt: bool tensor"));
  CHECK(says(infer1(GQ_OP_RESHAPE, GQ_F32, SHAPE(2, 3), &to5, &d, &s), GQ_ESHAPE,
             "reshape: {2, 3} has 6 numbers, {5} needs 5"));
  CHECK(says(infer1(GQ_OP_EXPAND, GQ_F32, SHAPE(3), &to5, &d, &s), GQ_ESHAPE,
             "expand: {3} does not broadcast to {5}"));
  CHECK(says(infer1(GQ_OP_PERMUTE, GQ_F32, SHAPE(3, 4), &perm, &d, &s), GQ_ESHAPE, "permute"));
  CHECK(says(infer1(GQ_OP_SLICE, GQ_F32, SHAPE(4, 2), &slice, &d, &s), GQ_EINDEX,
             "3 numbers from 3 in steps of 1"));
  CHECK(says(infer1(GQ_OP_SLICE, GQ_F32, SHAPE(4, 2), &backwards, &d, &s), GQ_EINDEX, "steps of -1"));
  CHECK(says(infer1(GQ_OP_ARGMAX, GQ_F32, SHAPE(4, 2), &axis5, &d, &s), GQ_ESHAPE,
             "argmax: dimension 6 of {4, 2}"));
  CHECK(says(infer1(GQ_OP_AMAX, GQ_F32, SHAPE(4, 0), &(gq_attr){ .flags = 2 }, &d, &s), GQ_ESHAPE,
             "dimension 2 of {4, 0} is empty"));
  CHECK(says(infer2(GQ_OP_CAT, GQ_F32, SHAPE(4, 2), GQ_F32, SHAPE(4, 3), NULL, &s), GQ_ESHAPE,
             "cat: {4, 2} and {4, 3}"));
  CHECK(says(infer2(GQ_OP_GATHER, GQ_F32, SHAPE(4, 2), GQ_F32, SHAPE(4, 2), NULL, &s), GQ_EDTYPE,
             "indices are float32"));
  CHECK(says(infer2(GQ_OP_GATHER, GQ_F32, SHAPE(4, 2), GQ_I64, SHAPE(3, 1), NULL, &s), GQ_ESHAPE,
             "outside dimension 1"));
  CHECK(says(infer2(GQ_OP_ADD, GQ_F32, SHAPE(1 << 30, 1), GQ_F32, SHAPE(1, 1 << 30), NULL, &s), GQ_ESHAPE,
             "2^40"));
  CHECK(says(gq_infer(GQ_OP_WHERE, 2, NULL, NULL, NULL, &d, &s), GQ_EARG, "where: 2 operands; expected 3"));
}

static void test_shapes(void) {
  gq_shape s;
  gq_dtype d;
  CHECK(infer2(GQ_OP_MATMUL, GQ_F32, SHAPE(7, 1, 4, 3), GQ_F32, SHAPE(5, 4, 6), &(gq_attr){ .flags = GQ_TA },
               &s) == GQ_OK);
  CHECK(gq_shape_equal(s, SHAPE(7, 5, 3, 6)));
  CHECK(infer2(GQ_OP_ADD, GQ_I64, SHAPE(3, 1), GQ_I64, SHAPE(0), NULL, &s) == GQ_OK &&
        gq_shape_equal(s, SHAPE(3, 0)));
  CHECK(infer1(GQ_OP_SUM, GQ_BOOL, SHAPE(3, 2), &(gq_attr){ .flags = 1 }, &d, &s) == GQ_OK);
  CHECK(d == GQ_I64 && gq_shape_equal(s, SHAPE(1, 2)));
  CHECK(infer2(GQ_OP_CAT, GQ_F32, SHAPE(4, 2), GQ_F32, SHAPE(4, 3), &(gq_attr){ .axis = 1 }, &s) == GQ_OK);
  CHECK(gq_shape_equal(s, SHAPE(4, 5)));
  CHECK(infer1(GQ_OP_ARGMIN, GQ_I64, SHAPE(4, 2), &(gq_attr){ .axis = 0 }, &d, &s) == GQ_OK && d == GQ_I64);
}

/* The first error stays, everything after it is harmless. */
static void test_sticky(void) {
  gq_graph *g = gq_graph_new();
  gq_ref a = gq_input(g, GQ_F64, SHAPE(3)), b = gq_input(g, GQ_F64, SHAPE(4)), grad;
  gq_ref bad = gq_emit2(g, GQ_OP_ADD, a, b);
  CHECK(bad == GQ_NONE && gq_graph_status(g) == GQ_ESHAPE);
  CHECK(gq_emit1(g, GQ_OP_EXP, bad) == GQ_NONE && gq_sum_to(g, bad, SHAPE(1)) == GQ_NONE &&
        gq_scale(g, bad, 2) == GQ_NONE);
  CHECK(gq_emit1(g, GQ_OP_EXP, a) == GQ_NONE && gq_graph_node(g, bad)->op == GQ_NOP);
  gq_graph_set_outputs(g, 1, &bad);
  CHECK(gq_graph_outputs(g) == 0 && gq_graph_status(g) == GQ_ESHAPE);
  CHECK(gq_vjp(g, 1, &a, &a, 1, &a, &grad) == GQ_ESHAPE && grad == GQ_NONE);
  gq_graph_free(g);
  g = gq_graph_new();
  gq_graph_set_outputs(g, 1, &bad);
  CHECK(gq_graph_status(g) == GQ_EARG);
  gq_graph_free(g);
}

/* ---- folding and sharing ---- */

static void test_folding(void) {
  gq_graph *g = gq_graph_new();
  gq_ref x = gq_input(g, GQ_F32, SHAPE(3, 4)), w = gq_input(g, GQ_F32, SHAPE(4, 5)),
         row = gq_input(g, GQ_F32, SHAPE(4));
  gq_ref one = gq_const(g, GQ_F32, 1), zero = gq_const(g, GQ_F32, 0), two = gq_const(g, GQ_F32, 2);
  gq_ref zeros = gq_zeros(g, GQ_F32, SHAPE(3, 4)), wt = gq_permute(g, w, (int[]){ 1, 0 });
  CHECK(gq_emit2(g, GQ_OP_MUL, x, one) == x && gq_emit2(g, GQ_OP_MUL, one, x) == x && gq_scale(g, x, 1) == x);
  CHECK(gq_emit2(g, GQ_OP_ADD, x, zero) == x && gq_emit2(g, GQ_OP_ADD, zeros, x) == x);
  CHECK(gq_emit2(g, GQ_OP_SUB, x, zeros) == x && gq_emit2(g, GQ_OP_DIV, x, one) == x);
  CHECK(gq_emit2(g, GQ_OP_POW, x, one) == x &&
        gq_emit2(g, GQ_OP_POW, x, two) == gq_emit1(g, GQ_OP_SQUARE, x));
  CHECK(gq_emit2(g, GQ_OP_MUL, x, x) == gq_emit1(g, GQ_OP_SQUARE, x));
  CHECK(gq_emit1(g, GQ_OP_NEG, gq_emit1(g, GQ_OP_NEG, x)) == x);
  CHECK(gq_emit2(g, GQ_OP_MUL, x, zero) != zero &&
        gq_emit2(g, GQ_OP_MUL, x, zeros) == gq_emit2(g, GQ_OP_MUL, x, zero));
  CHECK(gq_emit2(g, GQ_OP_ADD, row, zeros) == gq_expand(g, row, SHAPE(3, 4))); /* the shape stays */
  CHECK(gq_emit2(g, GQ_OP_ADD, x, gq_expand(g, row, SHAPE(3, 4))) == gq_emit2(g, GQ_OP_ADD, x, row));
  CHECK(gq_emit2(g, GQ_OP_ADD, one, one) == two && gq_emit2(g, GQ_OP_MUL, zeros, one) == zeros);
  CHECK(gq_reshape(g, gq_reshape(g, x, SHAPE(12)), SHAPE(3, 4)) == x &&
        gq_reshape(g, zeros, SHAPE(3, 4)) == zeros);
  CHECK(gq_permute(g, wt, (int[]){ 1, 0 }) == w && gq_permute(g, w, (int[]){ 0, 1 }) == w);
  CHECK(gq_matmul(g, x, wt, GQ_TB) == gq_matmul(g, x, w, 0));
  CHECK(gq_matmul(g, gq_permute(g, x, (int[]){ 1, 0 }), wt, GQ_TA | GQ_TB) == gq_matmul(g, x, w, 0));
  CHECK(gq_sum_axes(g, gq_reshape(g, x, SHAPE(3, 1, 4)), 2) == gq_reshape(g, x, SHAPE(3, 1, 4)));
  CHECK(gq_cast(g, x, GQ_F32) == x && gq_cast(g, gq_cast(g, x, GQ_F64), GQ_F32) == x);
  CHECK(gq_cat(g, 1, &x, 0) == x && gq_sum_to(g, x, SHAPE(3, 4)) == x && gq_expand(g, x, SHAPE(3, 4)) == x);
  CHECK(gq_emit1(g, GQ_OP_TANH, x) == gq_emit1(g, GQ_OP_TANH, x));
  CHECK(gq_emit2(g, GQ_OP_ADD, x, row) == gq_emit2(g, GQ_OP_ADD, row, x));
  CHECK(gq_emit2(g, GQ_OP_SUB, x, row) != gq_emit2(g, GQ_OP_SUB, row, x));
  CHECK(gq_const(g, GQ_F64, 1) != one && gq_const(g, GQ_F32, 0.1) == gq_const(g, GQ_F32, (float)0.1));
  gq_ref cat = gq_cat(g, 2, REFS(x, gq_emit1(g, GQ_OP_TANH, x)), 1);
  gq_attr left = { .shape = SHAPE(3, 4), .step = { 1, 1 } };
  CHECK(gq_emit(g, GQ_OP_SLICE, 1, &cat, &left) == x);
  gq_ref pad =
    gq_emit(g, GQ_OP_PAD, 1, &x, &(gq_attr){ .shape = SHAPE(9, 9), .start = { 1, 1 }, .step = { 2, 1 } });
  CHECK(gq_emit(g, GQ_OP_SLICE, 1, &pad,
                &(gq_attr){ .shape = SHAPE(3, 4), .start = { 1, 1 }, .step = { 2, 1 } }) == x);
  pad = gq_emit(g, GQ_OP_PAD, 1, &x, &(gq_attr){ .shape = SHAPE(3, 9), .start = { 0, 2 }, .step = { 1, 1 } });
  CHECK(gq_emit(g, GQ_OP_SLICE, 1, &pad,
                &(gq_attr){ .shape = SHAPE(3, 3), .start = { 0, 6 }, .step = { 1, 1 } }) ==
        gq_zeros(g, GQ_F32, SHAPE(3, 3)));
  CHECK(gq_graph_node(g, gq_emit(g, GQ_OP_SLICE, 1, &pad,
                                 &(gq_attr){ .shape = SHAPE(3, 3), .start = { 0, 5 }, .step = { 1, 1 } }))
          ->op == GQ_OP_SLICE);
  must(gq_graph_status(g));
  gq_graph_free(g);
}

/* A batch of rows times one matrix is one product; nothing to sum over gives zeros. */
static void test_products(void) {
  gq_graph *g = gq_graph_new();
  gq_ref x = gq_input(g, GQ_F64, SHAPE(6, 3, 4)), w = gq_input(g, GQ_F64, SHAPE(4, 5));
  gq_ref e = gq_input(g, GQ_F64, SHAPE(3, 0)), f = gq_input(g, GQ_F64, SHAPE(0, 5));
  const gq_node *y = gq_graph_node(g, gq_matmul(g, x, w, 0));
  CHECK(y->op == GQ_OP_RESHAPE && gq_shape_equal(y->shape, SHAPE(6, 3, 5)));
  y = gq_graph_node(g, y->arg[0]);
  CHECK(y->op == GQ_OP_MATMUL && gq_shape_equal(y->shape, SHAPE(18, 5)));
  gq_ref v = gq_input(g, GQ_F64, SHAPE(1, 4)), vt = gq_permute(g, v, (int[]){ 1, 0 });
  CHECK(gq_matmul(g, gq_reshape(g, x, SHAPE(18, 4)), vt, 0) ==
        gq_matmul(g, gq_reshape(g, x, SHAPE(18, 4)), v, GQ_TB));
  CHECK(gq_matmul(g, e, f, 0) == gq_zeros(g, GQ_F64, SHAPE(3, 5)));
  gq_ref twos = gq_expand(g, gq_const(g, GQ_F64, 2), SHAPE(1, 7)); /* one row among zeros: a column of w */
  gq_attr third = { .shape = SHAPE(5, 7), .start = { 2, 0 }, .step = { 1, 1 } };
  gq_attr column = { .shape = SHAPE(4, 1), .start = { 0, 2 }, .step = { 1, 1 } };
  gq_ref unit = gq_emit(g, GQ_OP_PAD, 1, &twos, &third);
  CHECK(gq_matmul(g, w, unit, 0) ==
        gq_expand(g, gq_scale(g, gq_emit(g, GQ_OP_SLICE, 1, &w, &column), 2), SHAPE(4, 7)));
  must(gq_graph_status(g));
  gq_graph_free(g);
}

/* The derivative of taking columns apart is putting them together. */
static void test_columns(void) {
  gq_graph *g = gq_graph_new();
  gq_ref x = gq_input(g, GQ_F64, SHAPE(6, 3)), column[3], c[3], grad;
  for (int i = 0; i < 3; i++) {
    column[i] =
      gq_emit(g, GQ_OP_SLICE, 1, &x, &(gq_attr){ .shape = SHAPE(6, 1), .start = { 0, i }, .step = { 1, 1 } });
    c[i] = gq_input(g, GQ_F64, SHAPE(6, 1));
  }
  must(gq_vjp(g, 3, column, c, 1, &x, &grad));
  CHECK(grad == gq_cat(g, 3, c, 1));
  CHECK(gq_cat(g, 2, REFS(gq_cat(g, 2, c, 1), c[2]), 1) == grad);
  must(gq_graph_status(g));
  gq_graph_free(g);
}

static gq_graph *keyed(double c, int64_t size, int outputs) {
  gq_graph *g = gq_graph_new();
  gq_ref x = gq_input(g, GQ_F64, SHAPE(size)), y = gq_scale(g, x, c);
  gq_graph_set_outputs(g, outputs, REFS(y, x));
  return g;
}

static bool same_key(gq_graph *a, gq_graph *b) {
  char *p, *q;
  size_t m, n;
  must(gq_graph_key(a, &p, &m));
  must(gq_graph_key(b, &q, &n));
  bool same = m == n && memcmp(p, q, n) == 0;
  gq_free(p);
  gq_free(q);
  gq_graph_free(a);
  gq_graph_free(b);
  return same;
}

/* x of {3, 3, 3} through `op` with attribute set `a`. */
static gq_graph *through(gq_op op, gq_attr a) {
  gq_graph *g = gq_graph_new();
  gq_ref x = gq_input(g, GQ_F64, SHAPE(3, 3, 3)),
         y = gq_emit(g, op, gq_ops[op].nargs == 1 ? 1 : 2, REFS(x, x), &a);
  gq_graph_set_outputs(g, 1, &y);
  return g;
}

/* Each attribute that an operation uses tells nodes apart; others are no part of a node. */
static void test_attributes(void) {
  gq_attr cut = { .shape = SHAPE(1, 1, 1), .step = { 1, 1, 1 } }, later = cut,
          all = { .axis = 2, .flags = 3, .x = 1 };
  later.start[2] = 1;
  CHECK(!same_key(through(GQ_OP_CAT, (gq_attr){ .axis = 0 }), through(GQ_OP_CAT, (gq_attr){ .axis = 1 })));
  CHECK(!same_key(through(GQ_OP_MATMUL, (gq_attr){ .flags = GQ_TA }), through(GQ_OP_MATMUL, (gq_attr){ 0 })));
  CHECK(!same_key(through(GQ_OP_PERMUTE, (gq_attr){ .perm = { 1, 2, 0 } }),
                  through(GQ_OP_PERMUTE, (gq_attr){ .perm = { 2, 0, 1 } })));
  CHECK(!same_key(through(GQ_OP_SLICE, cut), through(GQ_OP_SLICE, later)));
  CHECK(!same_key(through(GQ_OP_CAST, (gq_attr){ .dtype = GQ_F32 }),
                  through(GQ_OP_CAST, (gq_attr){ .dtype = GQ_I64 })));
  CHECK(same_key(through(GQ_OP_TANH, all), through(GQ_OP_TANH, (gq_attr){ 0 })));
  all.step[5] = 7, all.shape = SHAPE(9), memcpy(all.perm, (int32_t[]){ 1, 2, 0, 8, 8 }, 5 * sizeof(int32_t));
  CHECK(same_key(through(GQ_OP_PERMUTE, all), through(GQ_OP_PERMUTE, (gq_attr){ .perm = { 1, 2, 0 } })));
}

static void test_keys(void) {
  CHECK(same_key(keyed(3, 4, 1), keyed(3, 4, 1)));
  CHECK(!same_key(keyed(3, 4, 1), keyed(5, 4, 1)));
  CHECK(!same_key(keyed(3, 4, 1), keyed(3, 5, 1)));
  CHECK(!same_key(keyed(3, 4, 1), keyed(3, 4, 2)));
  gq_graph *g = keyed(3, 4, 1);
  char *text = gq_graph_print(g);
  CHECK(text && strcmp(text, "%0 = input 1 : float64 {4}\n%1 = const 3 : float64 {}\n"
                             "%2 = mul %0 %1 : float64 {4}\nreturn %2\n") == 0);
  gq_free(text);
  gq_graph_free(g);
}

/* A graph larger than any chunk, with long concatenations, in any order of allocation failures. */
static int build_large(gq_graph **out) {
  gq_graph *g = gq_graph_new();
  if (!g) return GQ_ENOMEM;
  gq_ref x = gq_input(g, GQ_F64, SHAPE(2)), list[40], sum = x;
  for (int i = 0; i < 40; i++) list[i] = gq_emit1(g, GQ_OP_SIN, gq_scale(g, x, i + 2));
  for (int i = 0; i < 300; i++) sum = gq_emit2(g, GQ_OP_ADD, gq_emit1(g, GQ_OP_TANH, sum), list[i % 40]);
  gq_ref cat = gq_cat(g, 40, list, 0), outs[2] = { sum, cat };
  gq_ref cot = gq_emit1(g, GQ_OP_COS, cat), grad;
  if (gq_vjp(g, 1, &cat, &cot, 1, &x, &grad) == GQ_OK) outs[1] = grad;
  gq_graph_set_outputs(g, 2, outs);
  int status = gq_graph_status(g);
  if (status == GQ_OK) *out = g;
  else gq_graph_free(g);
  return status;
}

static void test_failing_memory(void) {
  size_t blocks = gq_live_blocks();
  int status = GQ_ENOMEM, failures = -1;
  gq_graph *g = NULL;
  for (long after = 0; status != GQ_OK && after < 1000; after++, failures++) {
    gq_alloc_fail(after, true);
    status = build_large(&g);
    gq_alloc_fail(-1, false);
    CHECK(status == GQ_OK || (status == GQ_ENOMEM && gq_live_blocks() == blocks));
  }
  CHECK(status == GQ_OK && failures > 5 && gq_graph_size(g) > 600);
  gq_graph_free(g);
  CHECK(gq_live_blocks() == blocks);
}

/* ---- derivatives of every operation ---- */

typedef struct deriv {
  gq_graph *g;
  int n; /* inputs to differentiate by; then constants of the problem (indices, directions) */
  gq_ref x[8];
  int nin;
  gq_tensor *in[40];
} deriv;

static gq_ref add_input(deriv *d, gq_tensor *t) {
  d->in[d->nin++] = t;
  return gq_input(d->g, t->dtype, t->shape);
}

static gq_ref variable(deriv *d, gq_shape s, double low, double high) {
  return d->x[d->n++] = add_input(d, random_tensor(s, low, high));
}

/* sum over all numbers of y times fresh random weights: 0-d */
static gq_ref weigh(deriv *d, gq_ref y) {
  gq_shape s = gq_graph_node(d->g, y)->shape;
  gq_ref w = add_input(d, random_tensor(s, 0.5, 1.5));
  return gq_sum_to(d->g, gq_emit2(d->g, GQ_OP_MUL, y, w), SCALAR);
}

/* Along random directions: (L(x + e v) - L(x - e v)) / 2e */
static double difference(deriv *d, gq_ref loss, gq_tensor **v, double e) {
  double at[2];
  for (int k = 0; k < 2; k++) {
    gq_tensor *in[40];
    memcpy(in, d->in, sizeof in);
    for (int i = 0; i < d->n; i++) {
      in[i] = tensor(GQ_F64, d->in[i]->shape);
      for (int64_t j = 0; j < gq_numel(in[i]->shape); j++)
        numbers(in[i])[j] = numbers(d->in[i])[j] + (k ? e : -e) * numbers(v[i])[j];
    }
    at[k] = number_of(d->g, in, loss);
    unref_all(in, d->n);
  }
  return (at[1] - at[0]) / (2 * e);
}

static bool derivative_matches(deriv *d, gq_ref loss, const gq_ref *grad) {
  gq_tensor *v[8];
  double want, got = 0;
  for (int i = 0; i < d->n; i++) {
    v[i] = random_tensor(d->in[i]->shape, -1, 1);
    gq_tensor *t = grad[i] == GQ_NONE ? NULL : value_of(d->g, d->in, grad[i]);
    for (int64_t j = 0; t && j < gq_numel(t->shape); j++) got += numbers(t)[j] * numbers(v[i])[j];
    gq_tensor_unref(t);
  }
  want = difference(d, loss, v, 1e-5);
  unref_all(v, d->n);
  if (close_to(want, got, 2e-7)) return true;
  printf("derivative %.10g, difference %.10g\n", got, want);
  return false;
}

/* First to third derivatives of what the inputs (already declared, variables first) give in y. */
static bool derivatives(deriv *d, gq_ref y) {
  gq_ref loss = weigh(d, y), grad[8];
  gq_ref one = gq_const(d->g, GQ_F64, 1);
  bool ok = true;
  for (int order = 1; order <= 3 && ok; order++) {
    must(gq_vjp(d->g, 1, &loss, &one, d->n, d->x, grad));
    ok = derivative_matches(d, loss, grad);
    if (!ok) printf("order %d\n", order);
    gq_ref next = GQ_NONE;
    for (int i = 0; i < d->n; i++) {
      if (grad[i] == GQ_NONE) continue;
      gq_ref part = weigh(d, grad[i]);
      next = next == GQ_NONE ? part : gq_emit2(d->g, GQ_OP_ADD, next, part);
    }
    if (next == GQ_NONE) break;
    loss = next;
  }
  return ok;
}

static deriv start(void) { return (deriv){ .g = gq_graph_new() }; }

static bool finish(deriv *d, gq_ref y, const char *what) {
  bool ok = derivatives(d, y);
  if (!ok) printf("derivatives of %s\n", what);
  gq_graph_free(d->g);
  unref_all(d->in, d->nin);
  return ok;
}

static double low_of(gq_op op) {
  bool positive =
    op == GQ_OP_LOG || op == GQ_OP_SQRT || op == GQ_OP_RSQRT || op == GQ_OP_RECIP || op == GQ_OP_LOG1P;
  return positive ? 0.4 : -1.3;
}

static void test_unary(void) {
  for (gq_op op = 0; op < GQ_NOP; op++) {
    if (gq_ops[op].kind != GQ_K_UNARY) continue;
    deriv d = start();
    gq_ref x = variable(&d, SHAPE(3, 4), low_of(op), 1.4);
    CHECK(finish(&d, gq_emit1(d.g, op, x), gq_ops[op].name));
  }
}

static void test_binary(void) {
  gq_shape shapes[][2] = { { SHAPE(3, 4), SHAPE(3, 4) },
                           { SHAPE(3, 4), SHAPE(4) },
                           { SHAPE(3, 1), SHAPE(1, 4) },
                           { SCALAR, SHAPE(2, 3) },
                           { SHAPE(2, 1, 3), SHAPE(4, 1) } };
  for (gq_op op = 0; op < GQ_NOP; op++)
    for (int k = 0; gq_ops[op].kind == GQ_K_BINARY && k < 5; k++) {
      deriv d = start();
      double low = op == GQ_OP_POW || op == GQ_OP_DIV ? 0.5 : -1.2;
      gq_ref x = variable(&d, shapes[k][0], low, 1.7), y = variable(&d, shapes[k][1], low, 1.7);
      CHECK(finish(&d, gq_emit2(d.g, op, x, y), gq_ops[op].name));
    }
}

static void test_constant_powers(void) {
  for (double e = -2; e <= 4; e += 0.5) {
    deriv d = start();
    gq_ref x = variable(&d, SHAPE(5), 0.5, 1.7);
    CHECK(finish(&d, gq_emit2(d.g, GQ_OP_POW, x, gq_const(d.g, GQ_F64, e)), "pow by a constant"));
  }
}

/* Every combination of transposes and of leading dims. */
static void test_matmul(void) {
  gq_shape lead[][2] = { { SCALAR, SCALAR },        { SHAPE(2), SHAPE(2) },    { SHAPE(2), SCALAR },
                         { SCALAR, SHAPE(2) },      { SHAPE(1), SHAPE(3) },    { SHAPE(3, 1), SHAPE(1, 2) },
                         { SHAPE(2, 3), SHAPE(3) }, { SHAPE(3), SHAPE(2, 1) }, { SHAPE(2, 3), SHAPE(1) } };
  for (int k = 0; k < 9; k++)
    for (int flags = 0; flags < 4; flags++) {
      gq_shape a = lead[k][0], b = lead[k][1];
      a.dim[a.ndim] = flags & GQ_TA ? 4 : 3, a.dim[a.ndim + 1] = flags & GQ_TA ? 3 : 4, a.ndim += 2;
      b.dim[b.ndim] = flags & GQ_TB ? 2 : 4, b.dim[b.ndim + 1] = flags & GQ_TB ? 4 : 2, b.ndim += 2;
      deriv d = start();
      gq_ref x = variable(&d, a, -1, 1), y = variable(&d, b, -1, 1);
      CHECK(finish(&d, gq_emit1(d.g, GQ_OP_SIN, gq_matmul(d.g, x, y, flags)), "matmul"));
    }
}

static void test_reductions(void) {
  for (int mask = 0; mask < 8; mask++)
    for (int k = 0; k < 3; k++) {
      gq_op op = k == 0 ? GQ_OP_SUM : k == 1 ? GQ_OP_AMAX : GQ_OP_AMIN;
      deriv d = start();
      gq_ref x = variable(&d, SHAPE(2, 3, 4), -1, 1);
      gq_ref y = gq_emit(d.g, op, 1, &x, &(gq_attr){ .flags = mask });
      CHECK(finish(&d, gq_emit1(d.g, GQ_OP_EXP, y), gq_ops[op].name));
    }
}

static gq_ref moved(deriv *d, gq_op op, gq_ref x) {
  static const gq_attr reshape = { .shape = { 2, { 6, 4 } } }, permute = { .perm = { 2, 0, 1 } },
                       expand = { .shape = { 4, { 5, 2, 3, 4 } } },
                       slice = { .shape = { 3, { 1, 2, 2 } }, .start = { 1, 0, 1 }, .step = { 1, 2, 2 } },
                       pad = { .shape = { 3, { 3, 6, 4 } }, .start = { 1, 1, 0 }, .step = { 1, 2, 1 } },
                       window = { .shape = { 5, { 2, 2, 3, 2, 1 } },
                                  .axis = 1,
                                  .flags = 2,
                                  .start = { 0, 1, 1 },
                                  .step = { 0, 1, 2 } },
                       window_add = {
                         .shape = { 2, { 6, 4 } }, .axis = 0, .flags = 1, .start = { 2 }, .step = { 1 }
                       };
  const gq_attr *attr = op == GQ_OP_RESHAPE      ? &reshape
                        : op == GQ_OP_PERMUTE    ? &permute
                        : op == GQ_OP_EXPAND     ? &expand
                        : op == GQ_OP_SLICE      ? &slice
                        : op == GQ_OP_WINDOW     ? &window
                        : op == GQ_OP_WINDOW_ADD ? &window_add
                                                 : &pad;
  return gq_emit(d->g, op, 1, &x, attr);
}

static void test_movement(void) {
  static const gq_op ops[] = { GQ_OP_RESHAPE, GQ_OP_PERMUTE, GQ_OP_EXPAND,    GQ_OP_SLICE,
                               GQ_OP_PAD,     GQ_OP_WINDOW,  GQ_OP_WINDOW_ADD };
  for (int k = 0; k < 7; k++) {
    gq_op op = ops[k];
    deriv d = start();
    gq_ref x = variable(&d, SHAPE(2, 3, 4), -1, 1);
    CHECK(finish(&d, gq_emit1(d.g, GQ_OP_SIN, moved(&d, op, x)), gq_ops[op].name));
  }
  deriv d = start();
  gq_ref x[4];
  for (int i = 0; i < 4; i++) x[i] = variable(&d, SHAPE(2, i + 1), -1, 1);
  CHECK(finish(&d, gq_emit1(d.g, GQ_OP_SIN, gq_cat(d.g, 4, x, 1)), "cat"));
}

static void test_indexing(void) {
  static const gq_op ops[] = { GQ_OP_INDEX_SELECT, GQ_OP_INDEX_ADD, GQ_OP_GATHER, GQ_OP_SCATTER_ADD };
  for (int k = 0; k < 4; k++) {
    gq_op op = ops[k];
    bool one = op == GQ_OP_INDEX_SELECT || op == GQ_OP_INDEX_ADD;
    deriv d = start();
    gq_ref x = variable(&d, SHAPE(2, 5, 3), -1, 1);
    gq_ref idx = add_input(&d, random_indices(one ? SHAPE(5) : SHAPE(2, 5, 3), 4));
    gq_ref y = gq_emit(d.g, op, 2, REFS(x, idx), &(gq_attr){ .axis = 1, .shape = SHAPE(2, 7, 3) });
    CHECK(finish(&d, gq_emit1(d.g, GQ_OP_SIN, y), gq_ops[op].name));
  }
}

static void test_where(void) {
  deriv d = start();
  gq_ref x = variable(&d, SHAPE(3, 4), -1, 1), y = variable(&d, SHAPE(4), -1, 1);
  gq_ref c = gq_emit2(d.g, GQ_OP_GT, x, gq_const(d.g, GQ_F64, 0.1));
  CHECK(finish(&d, gq_emit1(d.g, GQ_OP_EXP, gq_where(d.g, c, gq_emit1(d.g, GQ_OP_SIN, x), y)), "where"));
}

/* Values of d y / d x_i with cotangent 1, the variables being 0-d or vectors of given numbers. */
static void gradient_at(gq_op op, int flags, const double *x, int nx, const double *y, double *gx,
                        double *gy) {
  deriv d = start();
  gq_tensor *tx = tensor(GQ_F64, SHAPE(nx)), *ty = tensor(GQ_F64, SHAPE(nx));
  memcpy(numbers(tx), x, (size_t)nx * sizeof *x);
  if (y) memcpy(numbers(ty), y, (size_t)nx * sizeof *y);
  gq_ref a[2] = { add_input(&d, tx), add_input(&d, ty) }, grad[2], cot;
  gq_ref r = gq_emit(d.g, op, y ? 2 : 1, a, &(gq_attr){ .flags = flags });
  cot = gq_expand(d.g, gq_const(d.g, GQ_F64, 1), gq_graph_node(d.g, r)->shape);
  must(gq_vjp(d.g, 1, &r, &cot, 2, a, grad));
  for (int k = 0; k < 2; k++) {
    if (grad[k] == GQ_NONE) continue;
    gq_tensor *t = value_of(d.g, d.in, grad[k]);
    memcpy(k ? gy : gx, numbers(t), (size_t)nx * sizeof *gx);
    gq_tensor_unref(t);
  }
  gq_graph_free(d.g);
  unref_all(d.in, d.nin);
}

static void test_corners(void) {
  double gx[3], gy[3];
  gradient_at(GQ_OP_MAXIMUM, 0, (double[]){ 1, 2, 3 }, 3, (double[]){ 1, 5, 0 }, gx, gy);
  CHECK(gx[0] == 0.5 && gy[0] == 0.5 && gx[1] == 0 && gy[1] == 1 && gx[2] == 1 && gy[2] == 0);
  gradient_at(GQ_OP_AMAX, 1, (double[]){ 4, 4, 3 }, 3, NULL, gx, gy);
  CHECK(gx[0] == 0.5 && gx[1] == 0.5 && gx[2] == 0);
  gradient_at(GQ_OP_ABS, 0, (double[]){ 0, -2, 3 }, 3, NULL, gx, gy);
  CHECK(gx[0] == 0 && gx[1] == -1 && gx[2] == 1);
  gradient_at(GQ_OP_RELU, 0, (double[]){ 0, -2, 3 }, 3, NULL, gx, gy);
  CHECK(gx[0] == 0 && gx[1] == 0 && gx[2] == 1);
  gradient_at(GQ_OP_POW, 0, (double[]){ 0, 0, 0 }, 3, (double[]){ 0, 1, 2 }, gx, gy);
  CHECK(gx[0] == 0 && gx[1] == 1 && gx[2] == 0 && gy[0] == 0 && gy[1] == 0 && gy[2] == 0);
  gradient_at(GQ_OP_POW, 0, (double[]){ -2, 2, -1 }, 3, (double[]){ 3, -1, 2 }, gx, gy);
  CHECK(gx[0] == 12 && gx[1] == -0.25 && gx[2] == -2 && isnan(gy[0]));
}

/* A variable may be the output, an inner node, unconnected or an integer. */
static void test_variables(void) {
  gq_graph *g = gq_graph_new();
  gq_ref x = gq_input(g, GQ_F64, SHAPE(3)), u = gq_input(g, GQ_F64, SHAPE(3)),
         i = gq_input(g, GQ_I64, SHAPE(3));
  gq_ref y = gq_emit1(g, GQ_OP_SIN, x), z = gq_emit1(g, GQ_OP_EXP, y), c = gq_input(g, GQ_F64, SHAPE(3));
  gq_ref k = gq_cast(g, gq_emit2(g, GQ_OP_MUL, i, gq_cast(g, y, GQ_I64)), GQ_F64), grad[5];
  CHECK(gq_vjp(g, 2, REFS(z, k), REFS(c, c), 5, REFS(z, y, x, u, i), grad) == GQ_OK);
  CHECK(grad[0] == c && grad[1] == gq_emit2(g, GQ_OP_MUL, c, z) && grad[3] == GQ_NONE && grad[4] == GQ_NONE);
  CHECK(grad[2] == gq_emit2(g, GQ_OP_MUL, grad[1], gq_emit1(g, GQ_OP_COS, x)));
  CHECK(gq_vjp(g, 1, &z, REFS(GQ_NONE), 1, &x, grad) == GQ_OK && grad[0] == GQ_NONE);
  CHECK(gq_vjp(g, 1, &z, REFS(gq_const(g, GQ_F64, 1)), 1, &x, grad) == GQ_ESHAPE &&
        strstr(gq_message(), "cotangent"));
  gq_graph_free(g);
}

int main(void) {
  RUN(test_refusals());
  RUN(test_shapes());
  RUN(test_sticky());
  RUN(test_folding());
  RUN(test_products());
  RUN(test_columns());
  RUN(test_keys());
  RUN(test_attributes());
  RUN(test_failing_memory());
  RUN(test_unary());
  RUN(test_binary());
  RUN(test_constant_powers());
  RUN(test_matmul());
  RUN(test_reductions());
  RUN(test_movement());
  RUN(test_indexing());
  RUN(test_where());
  RUN(test_corners());
  RUN(test_variables());
  RUN(CHECK(gq_live_blocks() == 0));
  return DONE();
}
