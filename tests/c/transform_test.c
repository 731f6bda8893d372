/*
** transform_test.c -- graph to graph: folded graphs against one operation at a time, batching
** against item by item, hoisting and row slices against the whole, on random graphs and on those
** that models give.
*/
#include "graphs.h"
#include "runtime/exec/backend.h"

enum { MOST = 80, STEPS = 40, INPUTS = 9, OUTPUTS = 3 };

/* A graph, and every value of it computed at once without graph, folding or sharing. */
typedef struct twin {
  gq_graph *g;
  int n, nin;
  int64_t rows, width;
  gq_ref ref[MOST];
  gq_tensor *val[MOST], *in[INPUTS];
  gq_ref out[OUTPUTS];
  gq_tensor *want[OUTPUTS];
} twin;

static gq_ref put_input(twin *w, gq_tensor *t) {
  gq_ref r = gq_input(w->g, t->dtype, t->shape);
  w->ref[w->n] = r;
  w->val[w->n++] = gq_tensor_ref(t);
  w->in[w->nin++] = t;
  return r;
}

static void put_inputs(twin *w) {
  int64_t b = w->rows, d = w->width;
  put_input(w, random_tensor(SCALAR, -1, 1));
  put_input(w, random_tensor(SHAPE(b, d), -1, 1));
  put_input(w, random_tensor(SHAPE(d, d), -1, 1));
  put_input(w, random_tensor(SHAPE(d), -1, 1));
  put_input(w, random_tensor(SHAPE(b, 1), -1, 1));
  put_input(w, random_tensor(SHAPE(3, b), -1, 1));
  put_input(w, random_tensor(SHAPE(2, b, d), -1, 1));
  put_input(w, random_indices(SHAPE(3), (int)d));
  put_input(w, random_indices(SHAPE(b, 2), (int)d));
}

static int pick(const twin *w, bool floats) {
  for (;;) {
    int late = (int)rnd(2),
        i = late ? w->n - 1 - (int)rnd((uint32_t)(w->n < 8 ? w->n : 8)) : (int)rnd((uint32_t)w->n);
    if (!floats || w->val[i]->dtype == GQ_F64) return i;
  }
}

static gq_shape random_factors(int64_t n) {
  gq_shape s = { .ndim = 0 };
  while (n > 1 && s.ndim < 4) {
    int64_t f = 1 + rnd((uint32_t)n);
    if (n % f) continue;
    s.dim[s.ndim++] = f;
    n /= f;
  }
  if (n > 1 || rnd(3) == 0) s.dim[s.ndim++] = n;
  return s;
}

/* A reshape of the kind that models use: dims merged or split next to each other. */
static gq_shape merged(gq_shape s) {
  if (s.ndim < 2) return random_factors(gq_numel(s));
  int at = (int)rnd((uint32_t)s.ndim - 1);
  s.dim[at] *= s.dim[at + 1];
  for (int i = at + 1; i < s.ndim - 1; i++) s.dim[i] = s.dim[i + 1];
  s.ndim--;
  return s;
}

static void shuffle(gq_attr *a, int n) {
  for (int i = 0; i < n; i++) a->perm[i] = i;
  for (int i = n - 1; i > 0; i--) {
    int j = (int)rnd((uint32_t)i + 1), t = a->perm[i];
    a->perm[i] = a->perm[j];
    a->perm[j] = t;
  }
}

static void random_range(gq_attr *a, gq_shape s, bool slice) {
  a->shape = s;
  for (int i = 0; i < s.ndim; i++) {
    a->step[i] = 1 + (rnd(4) == 0);
    if (rnd(2)) continue;
    a->start[i] = rnd(2);
    if (slice)
      a->shape.dim[i] = s.dim[i] > a->start[i] ? (s.dim[i] - a->start[i] + a->step[i] - 1) / a->step[i] : 0;
    else a->shape.dim[i] = a->start[i] + s.dim[i] * a->step[i] + rnd(2);
  }
  for (int i = 0; i < s.ndim && slice; i++)
    if (a->step[i] > 1 && a->start[i] == 0) a->shape.dim[i] = (s.dim[i] + 1) / 2;
  for (int i = 0; i < s.ndim && !slice; i++)
    if (a->step[i] > 1 && a->shape.dim[i] == s.dim[i]) a->shape.dim[i] = 2 * s.dim[i];
}

/* Over one or two dims from a->axis on; the adjoint: of whatever s may be windows of. */
static void random_windows(gq_attr *a, gq_shape s, bool window) {
  int n = a->flags = 1 + (int)rnd(2), grows = window ? n : -n;
  a->shape = s, a->shape.ndim += grows;
  for (int i = a->axis + (window ? n : 2 * n); i < s.ndim; i++) a->shape.dim[i + grows] = s.dim[i];
  for (int i = a->axis; i < a->axis + n && i < GQ_MAXDIM - n; i++) {
    int64_t k = window ? 1 + rnd(3) : s.dim[i], step = a->step[i] = 1 + rnd(2),
            apart = a->start[i] = 1 + rnd(2);
    int64_t whole = (k - 1) * apart + 1;
    if (!window) a->shape.dim[i] = whole + (s.dim[i + n] - 1) * step + rnd(2);
    else a->shape.dim[i] = k, a->shape.dim[i + n] = s.dim[i] < whole ? 0 : (s.dim[i] - whole) / step + 1;
  }
}

static gq_shape grown(gq_shape s) {
  if (rnd(2) && s.ndim < 4) {
    for (int i = s.ndim; i > 0; i--) s.dim[i] = s.dim[i - 1];
    s.dim[0] = 1 + rnd(3);
    s.ndim++;
  }
  for (int i = 0; i < s.ndim; i++)
    if (s.dim[i] == 1 && rnd(2)) s.dim[i] = 2;
  return s;
}

static const gq_op bounded[] = { GQ_OP_SIN, GQ_OP_COS, GQ_OP_TANH, GQ_OP_SIGMOID,
                                 GQ_OP_NEG, GQ_OP_ABS, GQ_OP_RELU };
static const gq_op moves[] = { GQ_OP_SUM,     GQ_OP_AMAX,    GQ_OP_AMIN,   GQ_OP_RESHAPE,
                               GQ_OP_RESHAPE, GQ_OP_PERMUTE, GQ_OP_EXPAND, GQ_OP_SLICE,
                               GQ_OP_PAD,     GQ_OP_ARGMAX,  GQ_OP_WINDOW, GQ_OP_WINDOW_ADD };

/* A random operation with operands; false: try again. */
static bool propose(twin *w, gq_op *op, int *n, int *arg, gq_attr *a) {
  gq_shape s;
  *n = 1;
  arg[0] = pick(w, true);
  s = w->val[arg[0]]->shape;
  switch (rnd(10)) {
    case 0:
    case 1: *op = bounded[rnd(7)]; return true;
    case 2:
    case 3:
      *n = 2, arg[1] = pick(w, true);
      *op = GQ_OP_ADD + rnd(3);
      return true;
    case 4:
      *n = 2, arg[1] = pick(w, true);
      *op = rnd(2) ? GQ_OP_MAXIMUM : GQ_OP_LT;
      return true;
    case 5:
      *n = 2, arg[1] = pick(w, true);
      *op = GQ_OP_MATMUL, a->flags = (int)rnd(4);
      return true;
    case 6:
      *op = GQ_OP_CAT, *n = 1 + (int)rnd(5);
      for (int i = 1; i < *n; i++) arg[i] = rnd(3) ? arg[0] : pick(w, true);
      a->axis = s.ndim ? (int)rnd((uint32_t)s.ndim) : 0;
      return true;
    case 7:
      *n = 2, arg[1] = rnd(2) ? 7 : 8;
      *op = arg[1] == 7 ? (rnd(2) ? GQ_OP_INDEX_ADD : GQ_OP_INDEX_SELECT) : GQ_OP_GATHER;
      a->axis = s.ndim ? (int)rnd((uint32_t)s.ndim) : 0, a->shape = s;
      if (*op == GQ_OP_INDEX_ADD && s.ndim) a->shape.dim[a->axis] = 6;
      return s.ndim && s.dim[a->axis] >= (*op == GQ_OP_INDEX_ADD ? 3 : 6); /* indices fit */
    default:
      *op = moves[rnd(12)];
      a->flags = s.ndim ? (int)rnd(1u << s.ndim) : 0;
      a->axis = s.ndim ? (int)rnd((uint32_t)s.ndim) : 0;
      shuffle(a, s.ndim);
      a->shape = rnd(3) ? merged(s) : random_factors(gq_numel(s));
      if (*op == GQ_OP_EXPAND) a->shape = grown(s);
      if (*op == GQ_OP_WINDOW || *op == GQ_OP_WINDOW_ADD) random_windows(a, s, *op == GQ_OP_WINDOW);
      if (*op == GQ_OP_SLICE || *op == GQ_OP_PAD) random_range(a, s, *op == GQ_OP_SLICE);
      return true;
  }
}

static bool grow(twin *w) {
  gq_op op;
  int n, arg[8];
  gq_attr a = { .axis = 0 };
  gq_dtype d[8], dtype;
  gq_shape s[8], shape;
  gq_ref refs[8];
  gq_tensor *vals[8], *made;
  if (!propose(w, &op, &n, arg, &a)) return false;
  for (int i = 0; i < n; i++) {
    vals[i] = w->val[arg[i]];
    refs[i] = w->ref[arg[i]];
    d[i] = vals[i]->dtype;
    s[i] = vals[i]->shape;
  }
  if (gq_infer(op, n, d, s, &a, &dtype, &shape) != GQ_OK || shape.ndim > 4 || gq_numel(shape) > 300)
    return false;
  must(gq_apply(op, n, vals, &a, &made));
  w->ref[w->n] = gq_emit(w->g, op, n, refs, &a);
  w->val[w->n++] = made;
  if (dtype != GQ_F64) { /* into numbers that the rest can use */
    must(gq_apply(GQ_OP_CAST, 1, &made, &(gq_attr){ .dtype = GQ_F64 }, &w->val[w->n]));
    w->ref[w->n] = gq_cast(w->g, w->ref[w->n - 1], GQ_F64);
    w->n++;
  }
  return true;
}

static twin new_twin(unsigned seed) {
  rnd_state = seed * 7919u + 17;
  twin w = { .g = gq_graph_new(), .rows = 4 + rnd(3), .width = 6 };
  put_inputs(&w);
  for (int i = 0; i < STEPS; i++)
    while (!grow(&w)) {}
  for (int j = 0; j < OUTPUTS; j++) {
    int k = w.n - 1 - j;
    w.out[j] = w.ref[k];
    must(gq_tensor_contiguous_get(w.val[k], &w.want[j]));
  }
  gq_graph_set_outputs(w.g, OUTPUTS, w.out);
  must(gq_graph_status(w.g));
  return w;
}

static void done_twin(twin *w) {
  gq_graph_free(w->g);
  unref_all(w->val, w->n);
  unref_all(w->in, w->nin);
  unref_all(w->want, OUTPUTS);
}

static bool outputs_match(const gq_graph *g, gq_tensor *const *in, gq_tensor *const *want, int n) {
  bool ok = true;
  for (int j = 0; j < n && ok; j++) {
    gq_tensor *got = value_of(g, in, gq_graph_output(g, j));
    ok = close_tensors(got, want[j], 1e-9);
    gq_tensor_unref(got);
  }
  return ok;
}

/* ---- folding and inlining ---- */

static void test_folded(void) {
  for (unsigned seed = 0; seed < 400; seed++) {
    twin w = new_twin(seed);
    bool ok = outputs_match(w.g, w.in, w.want, OUTPUTS);
    if (!ok) printf("folded graph %u\n", seed);
    CHECK(ok);
    done_twin(&w);
  }
}

static void test_inlined(void) {
  for (unsigned seed = 0; seed < 50; seed++) {
    twin w = new_twin(seed);
    gq_graph *to = gq_graph_new();
    gq_ref bind[INPUTS], out[OUTPUTS];
    for (int i = 0; i < INPUTS; i++) bind[i] = gq_input(to, w.in[i]->dtype, w.in[i]->shape);
    must(gq_inline(to, w.g, bind, out));
    gq_graph_set_outputs(to, OUTPUTS, out);
    CHECK(outputs_match(to, w.in, w.want, OUTPUTS));
    gq_ref again[OUTPUTS];
    int size = gq_graph_size(to);
    must(gq_inline(to, w.g, bind, again));
    CHECK(memcmp(out, again, sizeof out) == 0 && gq_graph_size(to) == size);
    gq_graph_free(to);
    done_twin(&w);
  }
}

/* More operands than nodes. */
static void test_wide(void) {
  gq_graph *g = gq_graph_new(), *to = gq_graph_new(), *pro, *body;
  gq_ref x = gq_input(g, GQ_F64, SHAPE(4, 2)), list[50], y, bind, out, grad;
  int *direct, axis = 0;
  for (int i = 0; i < 50; i++) list[i] = x;
  y = gq_cat(g, 50, list, 1);
  gq_graph_set_outputs(g, 1, &y);
  bind = gq_input(to, GQ_F64, SHAPE(4, 2));
  must(gq_inline(to, g, &bind, &out));
  must(gq_vjp(to, 1, &out, &out, 1, &bind, &grad));
  CHECK(gq_shape_equal(gq_graph_node(to, out)->shape, SHAPE(4, 100)) &&
        gq_graph_node(to, grad)->shape.dim[1] == 2);
  must(gq_hoist(g, 1, &pro, &body, &direct));
  must(gq_rows(g, 4, &axis));
  gq_graph_free(to);
  must(gq_rows_resize(g, 4, 2, &axis, &to));
  CHECK(gq_shape_equal(gq_graph_node(to, gq_graph_output(to, 0))->shape, SHAPE(2, 100)));
  gq_graph_free(to);
  to = gq_graph_new();
  bind = gq_input(to, GQ_F64, SHAPE(3, 4, 2));
  must(gq_batch(to, g, 3, &bind, (bool[]){ true }, &out));
  CHECK(gq_shape_equal(gq_graph_node(to, out)->shape, SHAPE(3, 4, 100)));
  gq_graph_free(to);
  gq_graph_free(pro);
  gq_graph_free(body);
  gq_free(direct);
  gq_graph_free(g);
}

static void test_wrong_bindings(void) {
  gq_graph *g = gq_graph_new(), *to = gq_graph_new();
  gq_ref x = gq_input(g, GQ_F64, SHAPE(2)), y = gq_emit1(g, GQ_OP_SIN, x), out;
  gq_graph_set_outputs(g, 1, &y);
  gq_ref bind = gq_input(to, GQ_F64, SHAPE(3));
  CHECK(gq_inline(to, g, &bind, &out) == GQ_ESHAPE && out == GQ_NONE &&
        strstr(gq_message(), "bound to float64 {3}"));
  CHECK(gq_graph_status(to) == GQ_ESHAPE);
  gq_graph_free(to);
  gq_graph_free(g);
}

/* ---- batching ---- */

static gq_tensor *stacked(gq_tensor *const *items, int n) {
  gq_shape s = { .ndim = items[0]->shape.ndim + 1 };
  s.dim[0] = n;
  for (int i = 1; i < s.ndim; i++) s.dim[i] = items[0]->shape.dim[i - 1];
  gq_tensor *t = tensor(items[0]->dtype, s);
  size_t bytes = (size_t)gq_numel(items[0]->shape) * gq_dtype_size(t->dtype);
  for (int i = 0; i < n; i++)
    memcpy((char *)gq_tensor_data(t) + (size_t)i * bytes, gq_tensor_data(items[i]), bytes);
  return t;
}

enum { ITEMS = 3 };

/* Inputs for every item; batched ones differ. dst[i] is what the batched graph is given. */
static void make_items(const twin *w, const bool *batched, gq_tensor *item[ITEMS][INPUTS], gq_tensor **dst) {
  for (int i = 0; i < INPUTS; i++) {
    gq_tensor *list[ITEMS];
    for (int k = 0; k < ITEMS; k++) {
      if (!batched[i]) list[k] = gq_tensor_ref(w->in[i]);
      else if (w->in[i]->dtype == GQ_I64) list[k] = random_indices(w->in[i]->shape, (int)w->width);
      else list[k] = random_tensor(w->in[i]->shape, -1, 1);
      item[k][i] = list[k];
    }
    dst[i] = batched[i] ? stacked(list, ITEMS) : gq_tensor_ref(w->in[i]);
  }
}

static bool batch_matches(const twin *w, const bool *batched) {
  gq_tensor *item[ITEMS][INPUTS], *in[INPUTS];
  gq_ref bind[INPUTS], out[OUTPUTS];
  gq_graph *g = gq_graph_new();
  bool ok = true;
  make_items(w, batched, item, in);
  for (int i = 0; i < INPUTS; i++) bind[i] = gq_input(g, in[i]->dtype, in[i]->shape);
  must(gq_batch(g, w->g, ITEMS, bind, batched, out));
  for (int j = 0; j < OUTPUTS; j++) {
    gq_tensor *list[ITEMS], *got = value_of(g, in, out[j]), *want;
    for (int k = 0; k < ITEMS; k++) list[k] = value_of(w->g, item[k], gq_graph_output(w->g, j));
    want = stacked(list, ITEMS);
    ok &= close_tensors(got, want, 1e-9);
    unref_all(list, ITEMS);
    gq_tensor_unref(got);
    gq_tensor_unref(want);
  }
  for (int k = 0; k < ITEMS; k++) unref_all(item[k], INPUTS);
  unref_all(in, INPUTS);
  gq_graph_free(g);
  return ok;
}

static void test_batched(void) {
  for (unsigned seed = 1000; seed < 1400; seed++) {
    twin w = new_twin(seed);
    bool batched[INPUTS];
    for (int i = 0; i < INPUTS; i++) batched[i] = rnd(2);
    bool ok = batch_matches(&w, batched);
    if (!ok) printf("batched graph %u\n", seed);
    CHECK(ok);
    done_twin(&w);
  }
}

/* A layer over a batch is one product, and parameters are not repeated. */
static void test_batched_layer(void) {
  gq_graph *g = gq_graph_new(), *b = gq_graph_new();
  gq_ref z = gq_input(g, GQ_F32, SHAPE(5, 4)), w = gq_input(g, GQ_F32, SHAPE(4, 3)),
         c = gq_input(g, GQ_F32, SHAPE(3));
  gq_ref y = gq_emit1(g, GQ_OP_TANH, gq_emit2(g, GQ_OP_ADD, gq_matmul(g, z, w, 0), c)), out;
  gq_graph_set_outputs(g, 1, &y);
  gq_ref bind[3] = { gq_input(b, GQ_F32, SHAPE(7, 5, 4)), gq_input(b, GQ_F32, SHAPE(4, 3)),
                     gq_input(b, GQ_F32, SHAPE(3)) };
  must(gq_batch(b, g, 7, bind, (bool[]){ true, false, false }, &out));
  int products = 0;
  for (int r = 0; r < gq_graph_size(b); r++) {
    const gq_node *n = gq_graph_node(b, r);
    CHECK(n->op != GQ_OP_EXPAND);
    if (n->op != GQ_OP_MATMUL) continue;
    products++;
    CHECK(gq_shape_equal(n->shape, SHAPE(35, 3)) && n->arg[1] == bind[1]);
  }
  CHECK(products == 1);
  gq_graph_free(b);
  b = gq_graph_new();
  bind[0] = gq_input(b, GQ_F32, SHAPE(5, 4)), bind[1] = gq_input(b, GQ_F32, SHAPE(4, 3));
  CHECK(gq_batch(b, g, 7, bind, (bool[]){ true, false, false }, &out) == GQ_ESHAPE && out == GQ_NONE);
  gq_graph_free(b);
  gq_graph_free(g);
}

/* ---- hoisting ---- */

static bool hoist_matches(const twin *w, int nvar) {
  gq_graph *pro, *body;
  int *direct;
  gq_tensor *in[MOST];
  must(gq_hoist(w->g, nvar, &pro, &body, &direct));
  CHECK(gq_graph_inputs(pro) == INPUTS - nvar && gq_graph_inputs(body) == nvar + gq_graph_outputs(pro));
  for (int i = 0; i < nvar; i++) in[i] = gq_tensor_ref(w->in[i]);
  for (int j = 0; j < gq_graph_outputs(pro); j++) {
    in[nvar + j] = value_of(pro, w->in + nvar, gq_graph_output(pro, j));
    CHECK(direct[j] < 0 || close_tensors(in[nvar + j], w->in[nvar + direct[j]], 0));
    CHECK((direct[j] >= 0) == (gq_graph_node(pro, gq_graph_output(pro, j))->op == GQ_OP_INPUT));
  }
  bool ok = outputs_match(body, in, w->want, OUTPUTS);
  unref_all(in, gq_graph_inputs(body));
  gq_graph_free(pro);
  gq_graph_free(body);
  gq_free(direct);
  return ok;
}

static void test_hoisted(void) {
  for (unsigned seed = 2000; seed < 2200; seed++) {
    twin w = new_twin(seed);
    CHECK(hoist_matches(&w, 2));
    CHECK(hoist_matches(&w, 0));
    CHECK(hoist_matches(&w, INPUTS));
    done_twin(&w);
  }
}

static void test_hoisted_parts(void) {
  gq_graph *g = gq_graph_new(), *pro, *body;
  int *direct;
  gq_ref z = gq_input(g, GQ_F32, SHAPE(5, 4)), w = gq_input(g, GQ_F32, SHAPE(4)),
         k = gq_input(g, GQ_F32, SCALAR);
  gq_ref big = gq_expand(g, gq_scale(g, k, 3), SHAPE(5, 1));
  gq_ref y = gq_emit2(g, GQ_OP_ADD, gq_emit2(g, GQ_OP_MUL, z, w), gq_emit1(g, GQ_OP_EXP, w));
  y = gq_cat(g, 3, REFS(y, big, gq_zeros(g, GQ_F32, SHAPE(5, 1))), 1);
  gq_graph_set_outputs(g, 1, &y);
  must(gq_hoist(g, 1, &pro, &body, &direct));
  CHECK(gq_graph_outputs(pro) == 3 && direct[0] == 0 && direct[1] == -1 && direct[2] == -1);
  CHECK(gq_graph_node(pro, gq_graph_output(pro, 1))->op == GQ_OP_EXP);
  CHECK(gq_graph_node(pro, gq_graph_output(pro, 2))->shape.ndim == 0); /* expanded in the body */
  gq_graph_free(g);
  gq_graph_free(pro);
  gq_graph_free(body);
  gq_free(direct);
}

/* ---- rows ---- */

/* Outputs of a slice of the rows equal the slice of the outputs. */
static bool slice_matches(const gq_graph *g, gq_tensor *const *in, const int *axis, int64_t rows,
                          int64_t first, int64_t count) {
  gq_graph *part;
  gq_tensor *cuts[INPUTS];
  bool ok = true;
  must(gq_rows_resize(g, rows, count, axis, &part));
  for (int i = 0; i < gq_graph_inputs(g); i++)
    cuts[i] = axis[i] < 0 ? gq_tensor_ref(in[i]) : cut(in[i], axis[i], first, count);
  for (int j = 0; j < gq_graph_outputs(g); j++) {
    gq_tensor *all = value_of(g, in, gq_graph_output(g, j)), *want = cut(all, 0, first, count);
    gq_tensor *got = value_of(part, cuts, gq_graph_output(part, j));
    ok &= close_tensors(got, want, 1e-9);
    gq_tensor_unref(all);
    gq_tensor_unref(want);
    gq_tensor_unref(got);
  }
  unref_all(cuts, gq_graph_inputs(g));
  gq_graph_free(part);
  return ok;
}

static bool slices_match(const gq_graph *g, gq_tensor *const *in, const int *axis, int64_t rows) {
  return slice_matches(g, in, axis, rows, 0, rows) && slice_matches(g, in, axis, rows, 1, 2) &&
         slice_matches(g, in, axis, rows, rows - 1, 1);
}

/* Dim `axis` moved to the end, packed. */
static gq_tensor *moved_last(gq_tensor *t, int axis) {
  gq_attr attr = { .axis = 0 };
  gq_tensor *v, *c;
  int k = 0, rank = t->shape.ndim;
  for (int i = 0; i < rank; i++)
    if (i != axis) attr.perm[k++] = i;
  attr.perm[k] = axis;
  must(gq_apply(GQ_OP_PERMUTE, 1, &t, &attr, &v));
  must(gq_tensor_contiguous_get(v, &c));
  gq_tensor_unref(v);
  return c;
}

enum { POINTS = 3 };

/* Rows first..first+count of g, turned innermost, at one point or at several of time and state. */
static int columns_match(const gq_graph *g, gq_tensor *const *in, const int *axis, int64_t rows,
                         int64_t first, int64_t count, int points, bool *ok) {
  gq_graph *turned;
  gq_tensor *given[INPUTS], *list[POINTS], *want[POINTS];
  bool each[INPUTS] = { true, true };
  int n = points ? points : 1;
  int status = gq_rows_last(g, rows, count, points, each, axis, &turned);
  if (status != GQ_OK) return status;
  for (int k = 0; k < n; k++) {
    gq_tensor *at[INPUTS], *all;
    memcpy(at, in, sizeof at);
    if (k) at[0] = random_tensor(SCALAR, -1, 1), at[1] = random_tensor(in[1]->shape, -1, 1);
    else at[0] = gq_tensor_ref(in[0]), at[1] = gq_tensor_ref(in[1]);
    all = value_of(g, at, gq_graph_output(g, 0));
    gq_tensor *part = cut(all, 0, first, count), *state = cut(at[1], 0, first, count);
    want[k] = moved_last(part, 0), list[k] = moved_last(state, 0);
    if (!points) given[0] = gq_tensor_ref(at[0]);
    else if (k == 0) given[0] = tensor(GQ_F64, SHAPE(points));
    if (points) numbers(given[0])[k] = *numbers(at[0]);
    unref_all((gq_tensor *[]){ all, part, state, at[0], at[1] }, 5);
  }
  int last = list[0]->shape.ndim - 1, wanted = want[0]->shape.ndim - 1;
  must(gq_apply(GQ_OP_CAT, n, list, &(gq_attr){ .axis = last }, &given[1]));
  for (int i = 2; i < INPUTS; i++) {
    gq_tensor *part = axis[i] < 0 ? gq_tensor_ref(in[i]) : cut(in[i], axis[i], first, count);
    given[i] = axis[i] < 0 ? gq_tensor_ref(part) : moved_last(part, axis[i]);
    gq_tensor_unref(part);
  }
  gq_tensor *got = value_of(turned, given, gq_graph_output(turned, 0)), *expected;
  must(gq_apply(GQ_OP_CAT, n, want, &(gq_attr){ .axis = wanted }, &expected));
  *ok = close_tensors(got, expected, 1e-9);
  gq_tensor_unref(got);
  gq_tensor_unref(expected);
  unref_all(list, n);
  unref_all(want, n);
  unref_all(given, INPUTS);
  gq_graph_free(turned);
  return GQ_OK;
}

static void test_random_columns(void) {
  int tried = 0, turned[2] = { 0 };
  for (unsigned seed = 3000; seed < 4000; seed++) {
    twin w = new_twin(seed);
    for (int k = INPUTS; k < w.n; k++) {
      if (w.val[k]->shape.ndim == 0 || w.val[k]->shape.dim[0] != w.rows || w.rows < 2) continue;
      int axis[INPUTS] = { -1, 0, -1, -1, -1, -1, -1, -1, -1 };
      gq_graph_set_outputs(w.g, 1, &w.ref[k]);
      if (gq_rows(w.g, w.rows, axis) != GQ_OK) continue;
      tried++;
      for (int several = 0; several < 2; several++) {
        bool ok = false;
        int status =
          columns_match(w.g, w.in, axis, w.rows, several, w.rows - several, several ? POINTS : 0, &ok);
        CHECK(status == GQ_OK || status == GQ_EUNSUPPORTED);
        if (status != GQ_OK) continue;
        turned[several]++;
        if (!ok) printf("columns of graph %u, node %d, %d points\n", seed, w.ref[k], several ? POINTS : 0);
        CHECK(ok);
      }
    }
    done_twin(&w);
  }
  CHECK(turned[0] > tried / 2 && turned[1] > tried / 2);
}

/* A layer of the state and the time: one product, to which a column is added. */
static void test_columns_of_a_layer(void) {
  gq_graph *g = gq_graph_new(), *to;
  gq_ref t = gq_input(g, GQ_F32, SCALAR), z = gq_input(g, GQ_F32, SHAPE(10, 4)),
         w = gq_input(g, GQ_F32, SHAPE(3, 5)), b = gq_input(g, GQ_F32, SHAPE(3));
  gq_ref x = gq_cat(g, 2, REFS(z, gq_expand(g, t, SHAPE(10, 1))), 1);
  gq_ref y = gq_emit1(g, GQ_OP_TANH, gq_emit2(g, GQ_OP_ADD, gq_matmul(g, x, w, GQ_TB), b));
  int axis[4] = { -1, 0, -1, -1 };
  gq_graph_set_outputs(g, 1, &y);
  must(gq_rows(g, 10, axis));
  must(gq_rows_last(g, 10, 10, 0, NULL, axis, &to));
  const gq_node *n = gq_graph_node(to, gq_graph_output(to, 0)), *layer = gq_graph_node(to, n->args[0]);
  CHECK(n->op == GQ_OP_TANH && gq_shape_equal(n->shape, SHAPE(3, 10)));
  CHECK(layer->op == GQ_OP_AFFINE && layer->args[1] == gq_graph_input(to, 1));
  CHECK(gq_shape_equal(gq_graph_node(to, layer->args[2])->shape, SHAPE(3, 1)));
  gq_graph_free(to);
  gq_graph_free(g);
}

/* Three products of one form in a sum of five terms, whichever operands are transposed; short ones stay apart. */
static void test_stacked_products(void) {
  for (int flags = 0; flags < 4; flags++)
    for (int wide = 0; wide < 2; wide++) {
      int64_t m = wide ? 30 : 2, n = wide ? 40 : 3, k = 7;
      gq_graph *g = gq_graph_new();
      gq_tensor *in[8];
      gq_ref x[8], sum = GQ_NONE;
      for (int i = 0; i < 8; i++) {
        int64_t inner = i < 6 ? k + i / 2 : m;
        gq_shape s = i == 6 || (i < 6 && i % 2 == 0) ? flags & GQ_TA ? SHAPE(inner, m) : SHAPE(m, inner)
                     : flags & GQ_TB ? SHAPE(n, inner)
                                                     : SHAPE(inner, n);
        in[i] = random_tensor(i == 7 ? SHAPE(m, n) : i == 6 ? SHAPE(n) : s, -1, 1);
        x[i] = gq_input(g, GQ_F64, in[i]->shape);
      }
      for (int i = 0; i < 3; i++) {
        gq_ref p = gq_matmul(g, x[2 * i], x[2 * i + 1], flags);
        sum = sum == GQ_NONE ? p : gq_emit2(g, GQ_OP_ADD, sum, p);
        if (i == 1) sum = gq_emit2(g, GQ_OP_ADD, gq_emit1(g, GQ_OP_TANH, x[7]), sum);
      }
      sum = gq_emit2(g, GQ_OP_ADD, sum, gq_expand(g, x[6], SHAPE(m, n)));
      gq_ref one = gq_stack_products(g, sum);
      gq_tensor *a = value_of(g, in, sum), *b = value_of(g, in, one);
      CHECK((one != sum) == (wide == 1));
      CHECK(gq_shape_equal(a->shape, b->shape));
      bool same = true;
      for (int64_t i = 0; i < m * n; i++) same = same && close_to(entry(a, i), entry(b, i), 1e-13);
      CHECK(same);
      CHECK(gq_stack_products(g, one) == one && gq_stack_products(g, GQ_NONE) == GQ_NONE);
      gq_tensor_unref(a), gq_tensor_unref(b);
      for (int i = 0; i < 8; i++) gq_tensor_unref(in[i]);
      gq_graph_free(g);
    }
}

/* A sum of itself, again and again: 2^40 terms and no end if each were looked at. */
static void test_stacked_doubling(void) {
  gq_graph *g = gq_graph_new();
  gq_ref x = gq_input(g, GQ_F64, SHAPE(40, 5)), y = gq_matmul(g, x, x, GQ_TB);
  for (int i = 0; i < 40; i++) y = gq_emit2(g, GQ_OP_ADD, y, y);
  gq_tensor *in = random_tensor(SHAPE(40, 5), -1, 1), *a = value_of(g, &in, y),
            *b = value_of(g, &in, gq_stack_products(g, y));
  bool same = true;
  for (int64_t i = 0; i < 1600; i++) same = same && close_to(entry(a, i), entry(b, i), 1e-13);
  CHECK(same);
  gq_tensor_unref(a), gq_tensor_unref(b), gq_tensor_unref(in);
  gq_graph_free(g);
}

/* Whatever is proved is true. */
static void test_random_rows(void) {
  int proved = 0, tried = 0;
  for (unsigned seed = 3000; seed < 4000; seed++) {
    twin w = new_twin(seed);
    for (int k = INPUTS; k < w.n; k++) {
      if (w.val[k]->shape.ndim == 0 || w.val[k]->shape.dim[0] != w.rows) continue;
      int axis[INPUTS] = { -1, 0, -1, -1, -1, -1, -1, -1, -1 };
      gq_graph_set_outputs(w.g, 1, &w.ref[k]);
      tried++;
      if (gq_rows(w.g, w.rows, axis) != GQ_OK) continue;
      proved++;
      bool ok = slices_match(w.g, w.in, axis, w.rows);
      if (!ok) printf("rows of graph %u, node %d\n", seed, w.ref[k]);
      CHECK(ok);
    }
    done_twin(&w);
  }
  CHECK(proved > 2000 && proved < tried);
}

typedef struct field {
  gq_graph *g;
  gq_ref t, z;
  int nin;
  gq_tensor *in[INPUTS];
} field;

static gq_ref field_input(field *f, gq_shape s) {
  f->in[f->nin++] = random_tensor(s, -1, 1);
  return gq_input(f->g, GQ_F64, s);
}

static field new_field(gq_shape s) {
  field f = { .g = gq_graph_new() };
  f.t = field_input(&f, SCALAR);
  f.z = field_input(&f, s);
  return f;
}

/* Is `y` proved, with `want` the expected axes of the captures? */
static bool proves(field *f, gq_ref y, int64_t rows, const int *want) {
  int axis[INPUTS] = { -1, 0, -1, -1, -1, -1, -1, -1, -1 };
  gq_graph_set_outputs(f->g, 1, &y);
  must(gq_graph_status(f->g));
  bool ok = gq_rows(f->g, rows, axis) == GQ_OK;
  if (!ok) printf("%s\n", gq_message());
  for (int i = 2; i < f->nin && ok; i++) ok = axis[i] == want[i - 2];
  if (ok && rows > 2) ok = slices_match(f->g, f->in, axis, rows);
  gq_graph_free(f->g);
  unref_all(f->in, f->nin);
  return ok;
}

static bool refuses(field *f, gq_ref y, int64_t rows, const char *text) {
  int axis[INPUTS] = { -1, 0, -1, -1, -1, -1, -1, -1, -1 };
  gq_graph_set_outputs(f->g, 1, &y);
  must(gq_graph_status(f->g));
  bool ok = gq_rows(f->g, rows, axis) == GQ_EUNSUPPORTED && strstr(gq_message(), "row independence") &&
            strstr(gq_message(), text);
  if (!ok) printf("%s\n", gq_message());
  gq_graph_free(f->g);
  unref_all(f->in, f->nin);
  return ok;
}

/* Two layers with time as a feature; state {rows, d} or {rows, k, d}. */
static gq_ref mlp(field *f, gq_ref z, int64_t d) {
  gq_shape s = gq_graph_node(f->g, z)->shape, one = s;
  one.dim[s.ndim - 1] = 1;
  gq_ref w1 = field_input(f, SHAPE(7, d + 1)), b1 = field_input(f, SHAPE(7)),
         w2 = field_input(f, SHAPE(d, 7));
  gq_ref x = gq_cat(f->g, 2, REFS(z, gq_expand(f->g, f->t, one)), s.ndim - 1);
  gq_ref h = gq_emit2(f->g, GQ_OP_ADD, gq_matmul(f->g, x, w1, GQ_TB), b1);
  return gq_matmul(f->g, gq_emit1(f->g, GQ_OP_TANH, h), w2, GQ_TB);
}

static void test_rows_of_networks(void) {
  static const int none[] = { -1, -1, -1, -1, -1 };
  for (int64_t b = 1; b <= 8; b++) { /* 7 and 3 are sizes of layers too */
    field f = new_field(SHAPE(b, 3)), k = new_field(SHAPE(b, 4, 3));
    CHECK(proves(&f, mlp(&f, f.z, 3), b, none));
    CHECK(proves(&k, mlp(&k, k.z, 3), b, none));
  }
}

/* The Wong-Zakai noise: cosines of t times coefficients with one column a row. */
static void test_rows_of_noise(void) {
  field f = new_field(SHAPE(6, 1));
  gq_ref drift = mlp(&f, f.z, 1), freq = field_input(&f, SHAPE(1, 4)), xi = field_input(&f, SHAPE(4, 6));
  gq_ref cosines = gq_emit1(f.g, GQ_OP_COS, gq_emit2(f.g, GQ_OP_MUL, freq, f.t));
  gq_ref noise = gq_reshape(f.g, gq_matmul(f.g, cosines, xi, 0), SHAPE(6, 1));
  CHECK(proves(&f, gq_emit2(f.g, GQ_OP_ADD, drift, noise), 6, (int[]){ -1, -1, -1, -1, 1 }));
  f = new_field(SHAPE(6, 2));
  drift = mlp(&f, f.z, 2), freq = field_input(&f, SHAPE(4, 1)), xi = field_input(&f, SHAPE(4, 6, 2));
  cosines = gq_reshape(f.g, gq_emit1(f.g, GQ_OP_COS, gq_emit2(f.g, GQ_OP_MUL, freq, f.t)), SHAPE(4, 1, 1));
  noise = gq_reshape(f.g, gq_sum_axes(f.g, gq_emit2(f.g, GQ_OP_MUL, cosines, xi), 1), SHAPE(6, 2));
  CHECK(proves(&f, gq_emit2(f.g, GQ_OP_ADD, drift, noise), 6, (int[]){ -1, -1, -1, -1, 1 }));
  f = new_field(SHAPE(6, 2));
  drift = mlp(&f, f.z, 2), freq = field_input(&f, SHAPE(1, 4)), xi = field_input(&f, SHAPE(4, 6, 2));
  cosines = gq_emit1(f.g, GQ_OP_COS, gq_emit2(f.g, GQ_OP_MUL, freq, f.t));
  noise = gq_reshape(f.g, gq_matmul(f.g, cosines, gq_reshape(f.g, xi, SHAPE(4, 12)), 0), SHAPE(6, 2));
  CHECK(proves(&f, gq_emit2(f.g, GQ_OP_ADD, drift, noise), 6, (int[]){ -1, -1, -1, -1, 1 }));
}

static void test_rows_of_captures(void) {
  field f = new_field(SHAPE(5, 3)); /* one rate a row, softmax over features, a table looked up */
  gq_ref rate = field_input(&f, SHAPE(5)), e = gq_emit1(f.g, GQ_OP_EXP, f.z);
  gq_ref p = gq_emit2(f.g, GQ_OP_DIV, e, gq_sum_axes(f.g, e, 2));
  gq_ref y = gq_emit2(f.g, GQ_OP_MUL, p, gq_reshape(f.g, rate, SHAPE(5, 1)));
  CHECK(proves(&f, y, 5, (int[]){ 0 }));
  f = new_field(SHAPE(5, 4)); /* [x, v] -> [v, a] */
  gq_attr half = { .shape = SHAPE(5, 2), .start = { 0, 2 }, .step = { 1, 1 } };
  gq_ref v = gq_emit(f.g, GQ_OP_SLICE, 1, &f.z, &half);
  gq_ref k = field_input(&f, SHAPE(5, 5));
  CHECK(proves(&f, gq_cat(f.g, 2, REFS(v, gq_emit1(f.g, GQ_OP_NEG, v)), 1), 5, (int[]){ -1 }));
  (void)k;                    /* a capture that nothing uses */
  f = new_field(SHAPE(5, 3)); /* constant in z */
  gq_ref c = field_input(&f, SHAPE(3));
  CHECK(proves(&f, gq_expand(f.g, c, SHAPE(5, 3)), 5, (int[]){ -1 }));
}

static void test_rows_refused(void) {
  field f = new_field(SHAPE(5, 3));
  CHECK(refuses(&f, gq_emit2(f.g, GQ_OP_SUB, f.z, gq_sum_axes(f.g, f.z, 1)), 5, "sum"));
  f = new_field(SHAPE(5, 3));
  CHECK(refuses(&f, gq_matmul(f.g, field_input(&f, SHAPE(5, 5)), f.z, 0), 5, "matmul"));
  f = new_field(SHAPE(5, 5));
  CHECK(refuses(&f, gq_permute(f.g, f.z, (int[]){ 1, 0 }), 5, "dimension 1"));
  f = new_field(SHAPE(5, 5));
  CHECK(refuses(&f, gq_emit2(f.g, GQ_OP_ADD, f.z, gq_permute(f.g, f.z, (int[]){ 1, 0 })), 5, "add"));
  f = new_field(SHAPE(4, 6));
  CHECK(refuses(&f, gq_reshape(f.g, gq_emit1(f.g, GQ_OP_SIN, gq_reshape(f.g, f.z, SHAPE(6, 4))), SHAPE(4, 6)),
                4, "reshape"));
  f = new_field(SHAPE(5, 5)); /* by row and whole */
  gq_ref w = field_input(&f, SHAPE(5, 5));
  CHECK(refuses(&f, gq_emit2(f.g, GQ_OP_ADD, gq_matmul(f.g, f.z, w, 0), w), 5, "add"));
  f = new_field(SHAPE(5, 3));
  gq_attr turn = { .shape = SHAPE(4, 3), .start = { 1, 0 }, .step = { 1, 1 } }, head = turn;
  head.shape.dim[0] = 1, head.start[0] = 0;
  gq_ref a = gq_emit(f.g, GQ_OP_SLICE, 1, &f.z, &turn), b = gq_emit(f.g, GQ_OP_SLICE, 1, &f.z, &head);
  CHECK(refuses(&f, gq_cat(f.g, 2, REFS(a, b), 0), 5, "slice"));
  f = new_field(SCALAR);
  CHECK(refuses(&f, gq_emit1(f.g, GQ_OP_SIN, f.z), 1, "input 2"));
  f = new_field(SHAPE(0, 3));
  CHECK(refuses(&f, gq_emit1(f.g, GQ_OP_SIN, f.z), 0, "no rows"));
}

/* ---- no memory ---- */

static int transform_all(const gq_graph *g, int64_t rows) {
  gq_graph *pro = NULL, *body = NULL, *part = NULL, *turned = NULL, *to = gq_graph_new();
  int *direct = NULL, axis[INPUTS] = { -1, 0, -1, -1, -1, -1, -1, -1, -1 };
  gq_ref bind[INPUTS], out, cot, grad[INPUTS];
  bool batched[INPUTS] = { true, true };
  char *text = gq_graph_print(g), *key = NULL;
  size_t n;
  int status = to && text ? gq_graph_key(g, &key, &n) : GQ_ENOMEM;
  if (status == GQ_OK) status = gq_hoist(g, 2, &pro, &body, &direct);
  if (status == GQ_OK) status = gq_rows(g, rows, axis);
  if (status == GQ_OK) status = gq_rows_resize(g, rows, 2, axis, &part);
  if (status == GQ_OK) status = gq_rows_last(g, rows, 2, 3, batched, axis, &turned);
  for (int i = 0; status == GQ_OK && i < gq_graph_inputs(part); i++) {
    gq_shape s = gq_graph_node(part, gq_graph_input(part, i))->shape, b = { s.ndim + 1, { 3 } };
    for (int k = 0; k < s.ndim; k++) b.dim[k + 1] = s.dim[k];
    bind[i] = gq_input(to, GQ_F64, batched[i] ? b : s);
  }
  if (status == GQ_OK) status = gq_batch(to, part, 3, bind, batched, &out);
  if (status == GQ_OK) {
    cot = gq_emit1(to, GQ_OP_SIN, out);
    status = gq_vjp(to, 1, &out, &cot, gq_graph_inputs(part), bind, grad);
  }
  gq_free(text);
  gq_free(key);
  gq_free(direct);
  gq_graph_free(pro);
  gq_graph_free(body);
  gq_graph_free(part);
  gq_graph_free(turned);
  gq_graph_free(to);
  return status;
}

static void test_failing_memory(void) {
  field f = new_field(SHAPE(6, 2));
  gq_ref y = mlp(&f, f.z, 2);
  gq_graph_set_outputs(f.g, 1, &y);
  size_t blocks = gq_live_blocks();
  int status = GQ_ENOMEM;
  long after = 0;
  for (; status == GQ_ENOMEM && after < 2000; after++) {
    gq_alloc_fail(after, true);
    status = transform_all(f.g, 6);
    gq_alloc_fail(-1, false);
    CHECK(gq_live_blocks() == blocks);
  }
  CHECK(status == GQ_OK && after > 30);
  gq_graph_free(f.g);
  unref_all(f.in, f.nin);
}

#ifdef GQ_DEBUG
/* ---- rows of ops.def without rules ---- */

static bool named(int status, gq_op op) {
  bool ok = status != GQ_OK && strstr(gq_message(), gq_ops[op].name);
  if (!ok) printf("%s: %d %s\n", gq_ops[op].name, status, gq_message());
  return ok;
}

/* y = op(z, ..) over {3, 2}: a graph in which every pass must say that it does not know op. */
static field bare_field(gq_op op, gq_ref *y) {
  field f = new_field(SHAPE(3, 2));
  *y = gq_emit(f.g, op, gq_ops[op].nargs, REFS(f.z, f.z, f.z), NULL);
  gq_graph_set_outputs(f.g, 1, y);
  must(gq_graph_status(f.g));
  return f;
}

static int batch_of(const gq_graph *src) {
  gq_graph *g = gq_graph_new();
  gq_ref out, bind[] = { gq_input(g, GQ_F64, SCALAR), gq_input(g, GQ_F64, SHAPE(4, 3, 2)) };
  int status = gq_batch(g, src, 4, bind, (bool[]){ false, true }, &out);
  gq_graph_free(g);
  return status;
}

/* Columns need what rows prove, which a bare row never is: it stands beside the state, lifted by the time. */
static int columns_of(gq_op op) {
  field f = new_field(SHAPE(3, 2));
  gq_ref x = gq_expand(f.g, f.t, SHAPE(1, 2)), a = gq_emit(f.g, op, gq_ops[op].nargs, REFS(x, x, x), NULL),
         y = gq_emit2(f.g, GQ_OP_ADD, f.z, a);
  gq_graph *to = NULL;
  gq_graph_set_outputs(f.g, 1, &y);
  must(gq_graph_status(f.g));
  int status = gq_rows_last(f.g, 3, 3, 2, (bool[]){ true, true }, (int[]){ -1, 0 }, &to);
  gq_graph_free(to);
  gq_graph_free(f.g);
  unref_all(f.in, f.nin);
  return status;
}

static int compiled(const gq_graph *g, gq_ref y) {
  gq_program *p = NULL;
  int status = gq_program_new(&gq_cpu_backend, g, 1, &(gq_outspec){ y, 0, GQ_STORE }, &p);
  gq_program_free(p);
  return status;
}

static int pulled(gq_graph *g, gq_ref z, gq_ref y) {
  gq_ref cot = gq_input(g, GQ_F64, SHAPE(3, 2)), grad;
  return gq_vjp(g, 1, &y, &cot, 1, &z, &grad);
}

static void test_bare(gq_op op) {
  gq_ref y;
  gq_graph *g = NULL;
  gq_tensor *out = NULL;
  field f = bare_field(op, &y);
  CHECK(named(gq_rows(f.g, 3, (int[]){ -1, 0 }), op));
  CHECK(named(batch_of(f.g), op));
  CHECK(named(columns_of(op), op));
  CHECK(named(gq_jet(f.g, 2, &g), op));
  CHECK(named(gq_evaluate(f.g, f.in, 1, &y, &out), op));
  CHECK(named(compiled(f.g, y), op));
  CHECK(named(pulled(f.g, f.z, y), op));
  gq_graph_free(f.g);
  unref_all(f.in, f.nin);
}

static void test_bare_rows(void) {
  int n = 0;
  for (gq_op op = 0; op < GQ_NOP; op++)
    if (strncmp(gq_ops[op].name, "bare_", 5) == 0) test_bare(op), n++;
  CHECK(n == GQ_WINDOWED + 1); /* one of each class */
}
#endif

int main(void) {
  RUN(test_folded());
  RUN(test_inlined());
  RUN(test_wide());
  RUN(test_wrong_bindings());
  RUN(test_batched());
  RUN(test_batched_layer());
  RUN(test_hoisted());
  RUN(test_hoisted_parts());
  RUN(test_random_rows());
  RUN(test_random_columns());
  RUN(test_columns_of_a_layer());
  RUN(test_stacked_products());
  RUN(test_stacked_doubling());
  RUN(test_rows_of_networks());
  RUN(test_rows_of_noise());
  RUN(test_rows_of_captures());
  RUN(test_rows_refused());
  RUN(test_failing_memory());
#ifdef GQ_DEBUG
  RUN(test_bare_rows());
#endif
  RUN(CHECK(gq_live_blocks() == 0));
  return DONE();
}
