/*
** conv_test.c -- convolutions in programs: the pattern is found in f, its derivatives, batches and nodes, nothing else runs
** beside it, and the numbers are those of the operations one by one.
*/
#include "graphs.h"
#include "runtime/exec/cpu/cpu.h"

typedef struct shape { /* of a random convolution of images {b, g c, h, w} */
  gq_dtype dtype;
  int64_t n, b, g, c, m, size[2], k[2], step[2], apart[2], pad[2], count[2];
} shape;

static shape random_windows(void) {
  shape s = { .dtype = rnd(2) ? GQ_F32 : GQ_F64, .n = 1 + rnd(3), .b = 1 + rnd(3), .g = 1 + rnd(2) };
  s.c = 1 + rnd(rnd(4) ? 5 : 40), s.m = 1 + rnd(rnd(4) ? 5 : 40);
  for (int i = 0; i < 2; i++) {
    s.k[i] = 1 + rnd(4), s.step[i] = 1 + rnd(3) / 2, s.apart[i] = 1 + rnd(3) / 2, s.pad[i] = rnd(3);
    int64_t span = (s.k[i] - 1) * s.apart[i] + 1, least = span - 2 * s.pad[i];
    s.size[i] = (least < 1 ? 1 : least) + rnd(rnd(6) ? 9 : 60);
    s.count[i] = (s.size[i] + 2 * s.pad[i] - span) / s.step[i] + 1;
  }
  return s;
}

/* 3 x 3 and channels enough that tiles of results are made at once. */
static shape random_tiled(void) {
  shape s = { .dtype = GQ_F32, .n = 1 + rnd(2), .b = 1 + rnd(5), .g = 1 + rnd(2), .k = { 3, 3 } };
  s.c = 8 + rnd(rnd(3) ? 9 : 60), s.m = 8 + rnd(rnd(3) ? 9 : 60);
  for (int i = 0; i < 2; i++) {
    s.step[i] = s.apart[i] = 1, s.pad[i] = rnd(4), s.size[i] = 4 + rnd(rnd(6) ? 9 : 60);
    s.count[i] = s.size[i] + 2 * s.pad[i] - 2;
  }
  return s;
}

static shape random_shape(void) {
  shape s = random_windows();
  if (s.k[0] * s.k[1] == 1)
    s.k[0] = 2, s.size[0] += s.apart[0], s.step[0] = 1, s.pad[0] = 0, s.count[0] = s.size[0] - s.apart[0];
  return s;
}

static gq_ref padded(gq_graph *g, const shape *s, gq_ref x) {
  gq_attr pad = { .shape = gq_graph_node(g, x)->shape,
                  .start = { 0, 0, s->pad[0], s->pad[1] },
                  .step = { 1, 1, 1, 1 } };
  for (int i = 0; i < 2; i++) pad.shape.dim[2 + i] += 2 * s->pad[i];
  return gq_emit(g, GQ_OP_PAD, 1, &x, &pad);
}

static gq_attr windows(const shape *s) {
  gq_attr a = { .axis = 2,
                .flags = 2,
                .start = { 0, 0, s->apart[0], s->apart[1] },
                .step = { 0, 0, s->step[0], s->step[1] } };
  return a;
}

/* As lua/gq/spatial.lua writes it: {b, g m, count, count}. */
static gq_ref convolve(gq_graph *g, const shape *s, gq_ref x, gq_ref w) {
  int64_t K = s->c * s->k[0] * s->k[1], P = s->count[0] * s->count[1];
  gq_attr a = windows(s);
  x = padded(g, s, x);
  a.shape = SHAPE(s->b, s->g * s->c, s->k[0], s->k[1], s->count[0], s->count[1]);
  gq_ref win = gq_emit(g, GQ_OP_WINDOW, 1, &x, &a), y;
  if (s->g == 1) y = gq_matmul(g, gq_reshape(g, w, SHAPE(s->m, K)), gq_reshape(g, win, SHAPE(s->b, K, P)), 0);
  else
    y = gq_matmul(g, gq_reshape(g, w, SHAPE(s->g, s->m, K)), gq_reshape(g, win, SHAPE(s->b, s->g, K, P)), 0);
  return gq_reshape(g, y, SHAPE(s->b, s->g * s->m, s->count[0], s->count[1]));
}

static int occurrences(const char *text, const char *word) {
  int n = 0;
  for (const char *p = text; (p = strstr(p, word)); p++) n++;
  return n;
}

/* Compile the outputs (mode ADD where adds), run them over `in`, compare, and count what runs. */
static void check_program(gq_graph *g, int nin, gq_tensor **in, int nout, const gq_ref *out, bool adds,
                          int convs, const char *what) {
  gq_program *p;
  gq_outspec spec[3];
  gq_tensor *want[3], *got[3];
  void *to[3];
  const void *from[4];
  must(gq_graph_status(g));
  for (int i = 0; i < nout; i++) {
    spec[i] = (gq_outspec){ out[i], 0, adds ? GQ_ADD : GQ_STORE };
    want[i] = value_of(g, in, out[i]);
    got[i] = tensor(want[i]->dtype, want[i]->shape);
    to[i] = gq_tensor_data(got[i]);
    memset(to[i], adds ? 0 : 0xff, (size_t)gq_numel(got[i]->shape) * gq_dtype_size(got[i]->dtype));
  }
  for (int i = 0; i < nin; i++) from[i] = gq_tensor_data(in[i]);
  must(gq_program_new(&gq_cpu_backend, g, nout, spec, &p));
  char *text = gq_program_print(p), head[64];
  snprintf(head, sizeof head, "program: %d instructions", convs);
  CHECK(text && occurrences(text, " conv ") == convs && strncmp(text, head, strlen(head)) == 0);
  if (occurrences(text, " conv ") != convs || strncmp(text, head, strlen(head))) printf("%s\n%s", what, text);
  void *arena = gq_alloc(gq_program_arena(p) + 1);
  size_t before = gq_alloc_count();
  must(gq_program_run(p, 0, arena, from, to));
  CHECK(gq_alloc_count() == before);
  for (int i = 0; i < nout; i++) {
    bool close = close_tensors(got[i], want[i], want[i]->dtype == GQ_F32 ? 3e-4 : 1e-11);
    CHECK(close);
    if (!close) printf("  %s, output %d\n%s", what, i, text);
  }
  gq_free(text);
  gq_free(arena);
  gq_program_free(p);
  unref_all(want, nout);
  unref_all(got, nout);
}

static gq_tensor *random_of(gq_dtype d, gq_shape s) {
  gq_tensor *t = tensor(d, s);
  for (int64_t i = 0; i < gq_numel(s); i++)
    if (d == GQ_F32) ((float *)gq_tensor_data(t))[i] = (float)unit();
    else numbers(t)[i] = unit();
  return t;
}

static gq_shape in_front(int64_t n, gq_shape s) {
  for (int i = s.ndim++; i > 0; i--) s.dim[i] = s.dim[i - 1];
  s.dim[0] = n;
  return s;
}

/* f and its derivatives by images and weight, of `points` batches (0: of one) at once */
static void test_one(const shape *s, int64_t points) {
  gq_shape xs = SHAPE(s->b, s->g * s->c, s->size[0], s->size[1]);
  gq_shape ws = SHAPE(s->g * s->m, s->c, s->k[0], s->k[1]);
  gq_shape ys = SHAPE(s->b, s->g * s->m, s->count[0], s->count[1]);
  gq_graph *f = gq_graph_new(), *g = gq_graph_new();
  gq_ref fx = gq_input(f, s->dtype, xs), fw = gq_input(f, s->dtype, ws), y = convolve(f, s, fx, fw);
  gq_graph_set_outputs(f, 1, &y);
  if (points) xs = in_front(points, xs), ys = in_front(points, ys);
  gq_ref in[3] = { gq_input(g, s->dtype, xs), gq_input(g, s->dtype, ws), gq_input(g, s->dtype, ys) }, grad[2];
  if (points) must(gq_batch(g, f, points, in, (bool[]){ true, false }, &y));
  else must(gq_inline(g, f, in, &y));
  gq_tensor *value[3] = { random_of(s->dtype, xs), random_of(s->dtype, ws), random_of(s->dtype, ys) };
  check_program(g, 3, value, 1, &y, false, 1, "f");
  must(gq_vjp(g, 1, &y, &in[2], 2, in, grad));
  check_program(g, 3, value, 2, grad, false, 2, "derivatives");
  check_program(g, 3, value, 1, &grad[1], true, 1, "the weight's derivative, added");
  check_program(g, 3, value, 3, REFS(y, grad[0], grad[1]), false, 3, "all");
  unref_all(value, 3);
  gq_graph_free(f);
  gq_graph_free(g);
}

/* The adjoint as a map of its own: conv_transpose2d, and its derivatives. */
static void test_adjoint(const shape *s) {
  int64_t K = s->c * s->k[0] * s->k[1], P = s->count[0] * s->count[1];
  gq_graph *g = gq_graph_new();
  gq_shape xs = SHAPE(s->b, s->m, P), ws = SHAPE(s->m, K);
  gq_shape ys = SHAPE(s->b, s->c, s->size[0] + 2 * s->pad[0], s->size[1] + 2 * s->pad[1]);
  gq_ref in[3] = { gq_input(g, s->dtype, xs), gq_input(g, s->dtype, ws), gq_input(g, s->dtype, ys) }, grad;
  gq_attr a = windows(s);
  a.shape = ys;
  gq_ref cols = gq_reshape(g, gq_matmul(g, in[1], in[0], GQ_TA),
                           SHAPE(s->b, s->c, s->k[0], s->k[1], s->count[0], s->count[1]));
  gq_ref y = gq_emit(g, GQ_OP_WINDOW_ADD, 1, &cols, &a);
  gq_tensor *value[3] = { random_of(s->dtype, xs), random_of(s->dtype, ws), random_of(s->dtype, ys) };
  check_program(g, 3, value, 1, &y, false, 1, "adjoint");
  must(gq_vjp(g, 1, &y, &in[2], 1, in, &grad));
  check_program(g, 3, value, 1, &grad, false, 1, "adjoint of the adjoint");
  unref_all(value, 3);
  gq_graph_free(g);
}

/* Weights that are inputs are packed once a run, for images of any size, those that are computed for each: f(f(x)) and f(u)
** by w, f(f(x)) by 2 w and 3 w. The second run reads other weights at the same place. */
static void test_packed(gq_dtype d, int64_t m) {
  shape s = { .dtype = d, .b = 3, .g = 1, .c = m, .m = m, .k = { 3, 3 } }, large;
  for (int i = 0; i < 2; i++) s.size[i] = s.count[i] = 7, s.pad[i] = s.step[i] = s.apart[i] = 1;
  large = s, large.size[0] = large.count[0] = 12;
  gq_graph *g = gq_graph_new();
  gq_shape xs = SHAPE(s.b, m, 7, 7), us = SHAPE(s.b, m, 12, 7), ws = SHAPE(m, m, 3, 3);
  gq_ref x = gq_input(g, d, xs), w = gq_input(g, d, ws), u = gq_input(g, d, us), by[3] = { w };
  for (int i = 1; i < 3; i++) by[i] = gq_emit2(g, GQ_OP_MUL, w, gq_const(g, d, 1 + i));
  gq_ref y[3] = { convolve(g, &s, convolve(g, &s, x, w), w), convolve(g, &large, u, w),
                  convolve(g, &s, convolve(g, &s, x, by[1]), by[2]) };
  must(gq_graph_status(g));
  gq_tensor *in[3] = { random_of(d, xs), random_of(d, ws), random_of(d, us) }, *got[3];
  gq_program *p;
  gq_outspec out[3];
  void *to[3];
  for (int i = 0; i < 3; i++) {
    out[i] = (gq_outspec){ y[i], 0, GQ_STORE };
    got[i] = tensor(d, gq_graph_node(g, y[i])->shape), to[i] = gq_tensor_data(got[i]);
  }
  must(gq_program_new(&gq_cpu_backend, g, 3, out, &p));
  void *arena = gq_alloc(gq_program_arena(p) + 1);
  for (int run = 0; run < 2; run++) {
    const void *from[3] = { gq_tensor_data(in[0]), gq_tensor_data(in[1]), gq_tensor_data(in[2]) };
    must(gq_program_run(p, 0, arena, from, to));
    for (int i = 0; i < 3; i++) {
      gq_tensor *want = value_of(g, in, y[i]);
      CHECK(close_tensors(got[i], want, d == GQ_F32 ? 3e-4 : 1e-11));
      gq_tensor_unref(want);
    }
    gq_tensor *other = random_of(d, ws);
    memcpy(gq_tensor_data(in[1]), gq_tensor_data(other), (size_t)gq_numel(ws) * gq_dtype_size(d));
    gq_tensor_unref(other);
  }
  gq_free(arena);
  gq_program_free(p);
  unref_all(in, 3);
  unref_all(got, 3);
  gq_graph_free(g);
}

/* Without memory an error, and nothing left. */
static void test_failing(void) {
  shape s = random_shape();
  gq_graph *g = gq_graph_new();
  gq_ref x = gq_input(g, s.dtype, SHAPE(s.b, s.g * s.c, s.size[0], s.size[1]));
  gq_ref y = convolve(g, &s, x, gq_input(g, s.dtype, SHAPE(s.g * s.m, s.c, s.k[0], s.k[1])));
  size_t blocks = gq_live_blocks();
  int status = GQ_ENOMEM;
  for (long after = 0; status == GQ_ENOMEM; after++) {
    gq_program *p = NULL;
    gq_alloc_fail(after, after % 2);
    status = gq_program_new(&gq_cpu_backend, g, 1, &(gq_outspec){ y, 0, GQ_STORE }, &p);
    gq_alloc_fail(-1, false);
    CHECK((status == GQ_OK) == (p != NULL));
    gq_program_free(p);
    CHECK(gq_live_blocks() == blocks);
  }
  CHECK(status == GQ_OK);
  gq_graph_free(g);
}

/* Results of a tile are as near to the exact sums as one by one: errors of units in the last place of the sizes that are
** summed. */
static void test_accuracy(void) {
  enum { C = 32, M = 40, N = 13, OUT = 13 };
  gq_tensor *x = random_of(GQ_F32, SHAPE(C, N, N)), *w = random_of(GQ_F32, SHAPE(M, C, 3, 3)),
            *y = tensor(GQ_F32, SHAPE(M, OUT, OUT));
  float *at = gq_tensor_data(x), *by = gq_tensor_data(w), *to = gq_tensor_data(y);
  gq_conv v = { GQ_CONV,  GQ_F32,   false,        1,        1,        M,       C,
                { N, N }, { 3, 3 }, { OUT, OUT }, { 1, 1 }, { 1, 1 }, { 1, 1 } };
  gq_convolution p = gq_conv_plan(&v);
  char *scratch = gq_alloc(p.scratch + p.shared + 128), *from = scratch + (64 - (uintptr_t)scratch % 64);
  CHECK(p.tiled);
  must(gq_conv_run(&p, by, at, to, false, from, p.scratch, from + (p.scratch + 63) / 64 * 64, false, 1));
  double worst = 0;
  for (int m = 0; m < M; m++)
    for (int i = 0; i < OUT; i++)
      for (int j = 0; j < OUT; j++) {
        double sum = 0, size = 0;
        for (int k = 0; k < 9 * C; k++) {
          int r = i + k % 9 / 3 - 1, s = j + k % 3 - 1;
          bool in = r >= 0 && r < N && s >= 0 && s < N;
          double term = in ? (double)by[m * 9 * C + k] * at[(k / 9 * N + r) * N + s] : 0;
          sum += term, size += fabs(term);
        }
        double e = fabs(to[(m * OUT + i) * OUT + j] - sum) / size;
        if (e > worst) worst = e;
      }
  CHECK(worst < 1e-6);
  if (!(worst < 1e-6)) printf("  %g\n", worst);
  gq_free(scratch);
  gq_tensor *all[] = { x, w, y };
  unref_all(all, 3);
}

static void test_shapes(void) {
  static const char *const names[] = { "portable", "avx2", "avx512" };
  for (unsigned seed = 0; seed < 240; seed++) {
    gq_cpu_use(gq_cpu_find(names[seed % 4 % 3])); /* NULL where this processor has none: the best */
    gq_set_threads(1 + (int)(seed / 4 % 3));
    rnd_state = seed * 977 + 5;
    shape s = seed % 5 ? random_shape() : random_tiled();
    test_one(&s, 0);
    test_one(&s, s.n);
    s.g = 1;
    test_adjoint(&s);
  }
}

int main(void) {
  RUN(test_shapes());
  RUN(test_packed(GQ_F32, 9));
  RUN(test_packed(GQ_F32, 16));
  RUN(test_packed(GQ_F64, 16));
  RUN(test_accuracy());
  RUN(test_failing());
  RUN(CHECK(gq_live_blocks() == 0));
  return DONE();
}
