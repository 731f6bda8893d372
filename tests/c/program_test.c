/*
** program_test.c -- compiled programs against the plain evaluation of the same graph: random
** graphs over all operations, output modes, phases, aliases, poisoned and concurrent arenas, and
** no allocation while running.
*/
#include <pthread.h>

#include "graphs.h"
#include "runtime/gq.h"
#include "runtime/exec/cpu/cpu.h"

static void check(bool ok, const char *what, unsigned seed) {
  if (ok) tests_passed++;
  else tests_failed++, printf("FAILED: %s (graph %u)\n", what, seed);
}

/* ---- random graphs ---- */

enum { NODES = 400, INPUTS = 7, OUTPUTS = 10 };

typedef struct random_graph {
  gq_graph *g;
  int n;
  gq_ref ref[NODES];
  bool exact[NODES]; /* the same bits however it is computed: safe to compare, cast or index with */
  gq_tensor *in[INPUTS];
  int64_t b, w;
} random_graph;

static gq_shape shape_of(const random_graph *r, int kind) {
  int64_t b = r->b, w = r->w;
  switch (kind) {
    case 0: return gq_shape_of(0, NULL);
    case 1: return gq_shape_of(1, &w);
    case 2: return gq_shape_of(2, (int64_t[]){ 1, w });
    case 3: return gq_shape_of(2, (int64_t[]){ b, 1 });
    case 4: return gq_shape_of(2, (int64_t[]){ w, w });
    case 5: return gq_shape_of(3, (int64_t[]){ 2, b, w });
    default: return gq_shape_of(2, (int64_t[]){ b, w });
  }
}

static void add_input(random_graph *r, int i, gq_dtype d) {
  gq_shape s = shape_of(r, i < 6 ? i : 6);
  gq_tensor *t;
  must(gq_tensor_new(d, s, &t));
  double *p64 = gq_tensor_data(t);
  float *p32 = gq_tensor_data(t);
  for (int64_t k = 0; k < gq_numel(s); k++)
    if (d == GQ_F64) p64[k] = unit();
    else p32[k] = (float)unit();
  r->in[i] = t;
  r->ref[r->n] = gq_input(r->g, d, s);
  r->exact[r->n++] = true;
}

static const gq_op smooth[] = { GQ_OP_NEG,      GQ_OP_TANH, GQ_OP_SIN, GQ_OP_COS, GQ_OP_SIGMOID,
                                GQ_OP_SOFTPLUS, GQ_OP_TANH, GQ_OP_ABS, GQ_OP_ERF, GQ_OP_RELU };
static const gq_op binary[] = { GQ_OP_ADD,     GQ_OP_MUL, GQ_OP_SUB, GQ_OP_MAXIMUM,
                                GQ_OP_MINIMUM, GQ_OP_ADD, GQ_OP_MUL };
static const gq_op compare[] = { GQ_OP_LT, GQ_OP_LE, GQ_OP_GT, GQ_OP_GE, GQ_OP_EQ, GQ_OP_NE };
static const gq_op views[] = { GQ_OP_RESHAPE, GQ_OP_PERMUTE, GQ_OP_EXPAND, GQ_OP_SLICE, GQ_OP_PAD };
#define PICK(list) list[rnd(sizeof list / sizeof *list)]

static void random_attr(const gq_node *x, gq_op op, gq_attr *a) {
  int nd = x->shape.ndim;
  a->shape = x->shape;
  if (op == GQ_OP_RESHAPE) {
    int64_t n = gq_numel(x->shape);
    if (rnd(2)) a->shape = gq_shape_of(1, &n);
    else a->shape = gq_shape_of(2, n % 2 ? (int64_t[]){ 1, n } : (int64_t[]){ n / 2, 2 });
  } else if (op == GQ_OP_PERMUTE) {
    a->shape = (gq_shape){ 0 };
    for (int i = 0; i < nd; i++) a->perm[i] = nd - 1 - i;
  } else if (op == GQ_OP_EXPAND) {
    for (int i = 0; i < nd; i++)
      if (x->shape.dim[i] == 1) a->shape.dim[i] = 3;
    if (nd < 3 && rnd(2)) {
      memmove(a->shape.dim + 1, a->shape.dim, (size_t)nd * sizeof *a->shape.dim);
      a->shape.dim[0] = 2;
      a->shape.ndim++;
    }
  } else {
    for (int i = 0; i < nd; i++) {
      int64_t d = x->shape.dim[i];
      a->start[i] = rnd(2);
      a->step[i] = 1 + rnd(2);
      a->shape.dim[i] =
        op == GQ_OP_PAD ? a->start[i] + d * a->step[i] : (d - a->start[i] + a->step[i] - 1) / a->step[i];
      if (a->shape.dim[i] < 0) a->shape.dim[i] = 0;
    }
  }
}

/* Emit if the shapes allow it. */
static void try_emit(random_graph *r, gq_op op, int nargs, const int *arg, const gq_attr *attr, bool exact) {
  gq_dtype d[3], dtype;
  gq_shape s[3], shape;
  gq_ref a[3];
  for (int i = 0; i < nargs; i++) {
    a[i] = r->ref[arg[i]];
    d[i] = gq_graph_node(r->g, a[i])->dtype;
    s[i] = gq_graph_node(r->g, a[i])->shape;
    exact = exact && r->exact[arg[i]];
  }
  if (gq_infer(op, nargs, d, s, attr, &dtype, &shape) != GQ_OK || gq_numel(shape) > 20000) return;
  gq_ref ref = gq_emit(r->g, op, nargs, a, attr);
  if (ref == GQ_NONE) must(gq_graph_status(r->g));
  r->ref[r->n] = ref;
  r->exact[r->n++] = exact;
}

static void grow(random_graph *r) {
  int a[3] = { (int)rnd((uint32_t)r->n), (int)rnd((uint32_t)r->n), (int)rnd((uint32_t)r->n) };
  const gq_node *x = gq_graph_node(r->g, r->ref[a[0]]);
  gq_attr attr = { 0 };
  int before = r->n;
  switch (rnd(12)) {
    case 0:
    case 1: try_emit(r, PICK(smooth), 1, a, NULL, false); break;
    case 2:
    case 3:
    case 4: try_emit(r, PICK(binary), 2, a, NULL, true); break;
    case 5:
      if (r->exact[a[0]] && r->exact[a[1]]) try_emit(r, PICK(compare), 2, a, NULL, true);
      break;
    case 6: try_emit(r, GQ_OP_WHERE, 3, a, NULL, true); break;
    case 7:
    case 8: {
      gq_op op = PICK(views);
      random_attr(x, op, &attr);
      if (op == GQ_OP_PERMUTE) attr.shape = (gq_shape){ 0 };
      try_emit(r, op, 1, a, &attr, true);
      break;
    }
    case 9:
      attr.flags = (int32_t)rnd(4);
      try_emit(r, GQ_OP_MATMUL, 2, a, &attr, false);
      break;
    case 10:
      attr.flags = x->shape.ndim ? (int32_t)rnd(1u << x->shape.ndim) : 0;
      if (rnd(3)) try_emit(r, GQ_OP_SUM, 1, a, &attr, false);
      else try_emit(r, rnd(2) ? GQ_OP_AMAX : GQ_OP_AMIN, 1, a, &attr, true);
      break;
    default:
      if (x->shape.ndim == 0) break;
      attr.axis = (int32_t)rnd((uint32_t)x->shape.ndim);
      if (rnd(2)) try_emit(r, GQ_OP_CAT, 1 + (int)rnd(3), a, &attr, true);
      else if (r->exact[a[0]]) try_emit(r, rnd(2) ? GQ_OP_ARGMAX : GQ_OP_ARGMIN, 1, a, &attr, true);
  }
  /* positions are good indices */
  int last = r->n - 1;
  const gq_node *idx = gq_graph_node(r->g, r->ref[last]);
  if (r->n > before && (idx->op == GQ_OP_ARGMAX || idx->op == GQ_OP_ARGMIN) && idx->args[0] == r->ref[a[0]]) {
    attr = (gq_attr){ .axis = idx->attr.axis };
    int g[2] = { a[0], last };
    try_emit(r, GQ_OP_GATHER, 2, g, &attr, true);
    attr = (gq_attr){ .axis = idx->attr.axis, .shape = gq_graph_node(r->g, r->ref[a[0]])->shape };
    int s[2] = { r->n - 1, last };
    try_emit(r, GQ_OP_SCATTER_ADD, 2, s, &attr, false);
  }
}

static void make(random_graph *r, unsigned seed) {
  static const int64_t bs[] = { 1, 3, 7, 40, 130 }, ws[] = { 1, 2, 5, 20, 33 };
  rnd_state = seed * 2654435761u + 12345;
  memset(r, 0, sizeof *r);
  r->g = gq_graph_new();
  r->b = PICK(bs);
  r->w = PICK(ws);
  gq_dtype d = rnd(3) ? GQ_F64 : GQ_F32;
  for (int i = 0; i < INPUTS; i++) add_input(r, i, d);
  r->ref[r->n] = gq_const(r->g, d, 0.7);
  r->exact[r->n++] = true;
  int size = r->n + 10 + (int)rnd(80);
  for (int k = 0; k < 2000 && r->n < size; k++) grow(r);
  must(gq_graph_status(r->g));
}

static void drop(random_graph *r) {
  for (int i = 0; i < INPUTS; i++) gq_tensor_unref(r->in[i]);
  gq_graph_free(r->g);
}

/* ---- comparing ---- */

static bool all_close(gq_dtype d, const void *got, const void *want, int64_t n, double times, double plus) {
  double tol = d == GQ_F32 ? 5e-4 : 1e-9;
  for (int64_t i = 0; i < n; i++) {
    double x = number_at(d, got, i), y = number_at(d, want, i) * times + plus;
    if (!(fabs(x - y) <= tol * (1 + fabs(y))) && !(x != x && y != y) && x != y) {
      printf("  [%lld] %.9g, expected %.9g\n", (long long)i, x, y);
      return false;
    }
  }
  return true;
}

typedef struct runner {
  const gq_program *p;
  void *arena, *rest; /* rest: of another arena, or the same */
  const void *const *in;
  void *out[OUTPUTS];
  int phases;
} runner;

static void poison(void *p, size_t bytes) { memset(p, 0xff, bytes); /* NaN, and a bad index */ }

static void run_phase(runner *r, int phase) {
  if (r->rest != r->arena) poison(r->rest, gq_program_arena(r->p));
  must(gq_program_run_apart(r->p, phase, r->arena, r->rest, r->in, r->out));
}

static void *run_all(void *arg) {
  runner *r = arg;
  for (int phase = 0; phase < r->phases; phase++) run_phase(r, phase);
  return NULL;
}

typedef struct setup {
  random_graph r;
  int n;
  gq_outspec outs[OUTPUTS];
  gq_tensor *want[OUTPUTS];
  const void *in[INPUTS];
  unsigned seed;
} setup;

static void start(setup *s, runner *r, const gq_program *p, int phases) {
  bool apart = s->seed % 2;
  size_t bytes = apart ? gq_program_lasting(p) : gq_program_arena(p);
  *r = (runner){ .p = p, .in = s->in, .phases = phases, .arena = gq_alloc(bytes + 64) };
  r->rest = apart ? gq_alloc(gq_program_arena(p) + 64) : r->arena;
  poison(r->arena, bytes);
  for (int i = 0; i < s->n; i++) {
    size_t size = (size_t)gq_numel(s->want[i]->shape) * gq_dtype_size(s->want[i]->dtype);
    r->out[i] = gq_alloc(size + 64);
    if (s->outs[i].mode == GQ_ADD)
      for (int64_t k = 0; k < gq_numel(s->want[i]->shape); k++)
        if (s->want[i]->dtype == GQ_F32) ((float *)r->out[i])[k] = 0.25f;
        else if (s->want[i]->dtype == GQ_F64) ((double *)r->out[i])[k] = 0.25;
        else ((int64_t *)r->out[i])[k] = 3;
    else poison(r->out[i], size);
  }
}

static void compare_outputs(setup *s, runner *r, const char *what, int times) {
  for (int i = 0; i < s->n; i++) {
    bool add = s->outs[i].mode == GQ_ADD;
    int last = s->outs[i].phase == r->phases - 1 ? times : 1;
    const void *got = s->outs[i].mode == GQ_KEEP ? gq_program_at(r->p, r->arena, i) : r->out[i];
    gq_dtype d = s->want[i]->dtype;
    double plus = !add ? 0 : gq_is_float(d) ? 0.25 : 3;
    bool ok =
      all_close(d, got, gq_tensor_data(s->want[i]), gq_numel(s->want[i]->shape), add ? last : 1, plus);
    check(ok, what, s->seed);
    if (!ok) printf("  output %d mode %d phase %d\n", i, s->outs[i].mode, s->outs[i].phase);
  }
}

static void stop(setup *s, runner *r) {
  for (int i = 0; i < s->n; i++) gq_free(r->out[i]);
  if (r->rest != r->arena) gq_free(r->rest);
  gq_free(r->arena);
}

static void choose_outputs(setup *s, int phases) {
  s->n = 1 + (int)rnd(OUTPUTS);
  for (int i = 0; i < s->n; i++) {
    uint32_t from = rnd(2) ? (uint32_t)s->r.n : (uint32_t)(s->r.n + 3) / 4;
    gq_ref ref = s->r.ref[s->r.n - 1 - (int)rnd(from)];
    if (i && rnd(8) == 0) ref = s->outs[i - 1].ref;
    gq_outmode mode = (gq_outmode)rnd(3);
    if (mode == GQ_ADD && gq_graph_node(s->r.g, ref)->dtype == GQ_BOOL) mode = GQ_STORE;
    s->outs[i] = (gq_outspec){ ref, (int)rnd((uint32_t)phases), mode };
  }
}

static void one_graph(unsigned seed) {
  setup s = { .seed = seed };
  gq_ref refs[OUTPUTS];
  gq_program *p;
  runner a, b;
  make(&s.r, seed);
  int phases = 1 + (int)rnd(3);
  choose_outputs(&s, phases);
  phases = 0;
  for (int i = 0; i < s.n; i++) {
    refs[i] = s.outs[i].ref;
    if (s.outs[i].phase >= phases) phases = s.outs[i].phase + 1;
  }
  for (int i = 0; i < INPUTS; i++) s.in[i] = gq_tensor_data(s.r.in[i]);
  must(gq_evaluate(s.r.g, s.r.in, s.n, refs, s.want));
  for (int i = 0; i < s.n; i++) { /* plain arrays to compare with */
    gq_tensor *c;
    must(gq_tensor_contiguous_get(s.want[i], &c));
    gq_tensor_unref(s.want[i]);
    s.want[i] = c;
  }
  int status = gq_program_new(&gq_cpu_backend, s.r.g, s.n, s.outs, &p);
  check(status == GQ_OK, gq_message(), seed);
  if (status == GQ_OK) {
    start(&s, &a, p, phases);
    start(&s, &b, p, phases);
    size_t before = gq_alloc_count();
    run_all(&a);
    check(gq_alloc_count() == before, "no allocation while running", seed);
    compare_outputs(&s, &a, "program gives what evaluation gives", 1);
    run_phase(&a, phases - 1);
    compare_outputs(&s, &a, "a phase runs again on the same arena", 2);
    pthread_t thread;
    stop(&s, &a);
    start(&s, &a, p, phases);
    if (pthread_create(&thread, NULL, run_all, &b)) exit(1);
    run_all(&a);
    pthread_join(thread, NULL);
    compare_outputs(&s, &b, "two arenas at once", 1);
    compare_outputs(&s, &a, "two arenas at once", 1);
    char *text = gq_program_print(p);
    check(text && strstr(text, "phase 0"), "prints", seed);
    if (tests_failed && getenv("VERBOSE")) {
      char *g = gq_graph_print(s.r.g);
      printf("%s%s", g, text);
      exit(1);
    }
    gq_free(text);
    stop(&s, &a);
    stop(&s, &b);
    gq_program_free(p);
  }
  for (int i = 0; i < s.n; i++) gq_tensor_unref(s.want[i]);
  drop(&s.r);
}

/* Compilation and plain evaluation under failing memory: an error and nothing left, never a crash. */
static void failing_memory(unsigned seed, bool persistent) {
  random_graph r;
  gq_outspec outs[3];
  make(&r, seed);
  for (int i = 0; i < 3; i++) outs[i] = (gq_outspec){ r.ref[r.n - 1 - i], i, (gq_outmode)(i % 2) };
  size_t blocks = gq_live_blocks();
  int status = GQ_ENOMEM;
  bool clean = true;
  for (long after = 0; status == GQ_ENOMEM; after++) {
    gq_program *p = NULL;
    gq_alloc_fail(after, persistent);
    status = gq_program_new(&gq_cpu_backend, r.g, 3, outs, &p);
    gq_alloc_fail(-1, false);
    clean = clean && (status == GQ_OK) == (p != NULL);
    gq_program_free(p);
    clean = clean && gq_live_blocks() == blocks;
  }
  check(status == GQ_OK && clean, "a compilation without memory leaves nothing", seed);
  status = GQ_ENOMEM;
  clean = true;
  for (long after = 0; status == GQ_ENOMEM; after++) {
    gq_tensor *out = NULL;
    gq_alloc_fail(after, persistent);
    status = gq_evaluate(r.g, r.in, 1, &outs[0].ref, &out);
    gq_alloc_fail(-1, false);
    gq_tensor_unref(out);
    clean = clean && gq_live_blocks() == blocks;
  }
  check(status == GQ_OK && clean, "an evaluation without memory leaves nothing", seed);
  drop(&r);
}

static void bad_outputs(void) {
  gq_graph *g = gq_graph_new();
  gq_ref x = gq_input(g, GQ_F32, gq_shape_of(1, (int64_t[]){ 3 }));
  gq_program *p;
  check(gq_program_new(&gq_cpu_backend, g, 1, &(gq_outspec){ 7, 0, GQ_KEEP }, &p) == GQ_EARG && !p,
        "no such node", 0);
  check(gq_program_new(&gq_cpu_backend, g, 1, &(gq_outspec){ x, -1, GQ_KEEP }, &p) == GQ_EARG && !p,
        "no such phase", 0);
  must(gq_program_new(&gq_cpu_backend, g, 1, &(gq_outspec){ x, 0, GQ_STORE }, &p));
  check(gq_program_at(p, NULL, 0) == NULL && gq_program_at(p, NULL, 1) == NULL,
        "only KEEP outputs have an address", 0);
  gq_program_free(p);
  gq_graph_free(g);
}

/* The derivative of softplus is computed with it and kept in place of its operand, where nobody else wants that later. */
static void softplus_and_sigmoid(void) {
  for (int wanted = 0; wanted < 2; wanted++) {
    gq_graph *g = gq_graph_new();
    gq_shape many = gq_shape_of(1, (int64_t[]){ 96 });
    gq_ref a = gq_input(g, GQ_F32, many), x = gq_emit2(g, GQ_OP_MUL, a, a),
           y = gq_emit1(g, GQ_OP_SOFTPLUS, x), s = gq_emit1(g, GQ_OP_SIGMOID, x),
           d = gq_emit2(g, GQ_OP_MUL, s, y);
    if (wanted) d = gq_emit2(g, GQ_OP_ADD, d, x);
    gq_program *p;
    must(gq_program_new(&gq_cpu_backend, g, 2, (gq_outspec[]){ { y, 0, GQ_STORE }, { d, 1, GQ_STORE } }, &p));
    char *text = gq_program_print(p), *second = strstr(text, "phase 1");
    check((strstr(second, "sigmoid") != NULL) == wanted, "where the sigmoid is computed", wanted);
    gq_free(text);
    gq_program_free(p);
    gq_graph_free(g);
  }
}

/* Of softplus(x) alone its sigmoid is one pass, where nobody wants what is on the way. */
static void sigmoid_by_softplus(void) {
  for (int wanted = 0; wanted < 2; wanted++) {
    gq_graph *g = gq_graph_new();
    gq_shape many = gq_shape_of(1, (int64_t[]){ 96 });
    gq_ref y = gq_input(g, GQ_F32, many), e = gq_emit1(g, GQ_OP_EXPM1, gq_emit1(g, GQ_OP_NEG, y)),
           s = gq_emit1(g, GQ_OP_NEG, e);
    gq_program *p;
    must(gq_program_new(&gq_cpu_backend, g, 1 + wanted,
                        (gq_outspec[]){ { s, 0, GQ_STORE }, { e, 0, GQ_STORE } }, &p));
    char *text = gq_program_print(p);
    check((strstr(text, "sigmoid by softplus") == NULL) == wanted, "a sigmoid by softplus", wanted);
    check((strstr(text, "expm1") != NULL) == wanted, "its expm1", wanted);
    gq_free(text);
    gq_program_free(p);
    gq_graph_free(g);
  }
}

/* An index out of range is the one failure of a run. */
static void bad_index(void) {
  gq_graph *g = gq_graph_new();
  gq_ref a[2] = { gq_input(g, GQ_F32, gq_shape_of(1, (int64_t[]){ 3 })),
                  gq_input(g, GQ_I64, gq_shape_of(1, (int64_t[]){ 2 })) };
  gq_ref y = gq_emit(g, GQ_OP_INDEX_SELECT, 2, a, &(gq_attr){ 0 });
  float x[3] = { 1, 2, 3 }, out[2];
  int64_t idx[2] = { 3, 1 };
  gq_program *p;
  must(gq_program_new(&gq_cpu_backend, g, 1, &(gq_outspec){ y, 0, GQ_STORE }, &p));
  void *arena = gq_alloc(gq_program_arena(p) + 1);
  const void *in[2] = { x, idx };
  void *to[1] = { out };
  check(gq_program_run(p, 0, arena, in, to) == GQ_OK && out[0] == 3 && out[1] == 1, "index_select runs", 0);
  idx[1] = 4;
  check(gq_program_run(p, 0, arena, in, to) == GQ_EINDEX, "a bad index is an error", 0);
  gq_free(arena);
  gq_program_free(p);
  gq_graph_free(g);
}

int main(void) {
  unsigned first = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : 0;
  static const char *const names[] = { "portable", "avx2", "avx512" };
  for (unsigned seed = first; seed < first + 1500 && tests_failed < 20; seed++) {
    gq_cpu_use(gq_cpu_find(names[seed % 4 % 3])); /* NULL where this processor has none: the best */
    one_graph(seed);
  }
  for (unsigned seed = 0; seed < 12; seed++) failing_memory(seed, seed % 2);
  bad_outputs();
  softplus_and_sigmoid();
  sigmoid_by_softplus();
  bad_index();
  size_t blocks = gq_live_blocks();
  check(blocks == 0, "nothing left", 0);
  return DONE();
}
