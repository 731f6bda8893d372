/*
** vec.c -- the calls of vec.h: kernels of kernels.h. Sums are joined by threads and blocks in an order that their number
** alone gives, so the same numbers give the same bits.
*/
#include "cuda.h"

#include "../../base/bridge.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct args {
  gq_u64 p[4];
  long long n, from, to, rows;
  double s[4];
} args;

typedef struct tally {
  double sum, more, top, first;
} tally;

enum { MOST_PARTS = 256 };
#define NOWHERE 1e300

typedef struct source {
  int threads;
  const char *sections[4];
} source;
/* A small system has few numbers, and barriers of few threads cost less. */
enum { GAUSS_THREADS = 64 };
static const source of_vec = { GQ_NT, { "vec" } }, of_path = { GQ_NT, { "normal", "bridge", "path" } },
                    of_gauss = { GAUSS_THREADS, { "gauss" } },
                    of_rules = { GQ_NT, { "update", "optimisers", "rules" } };

/* Kernels, and where they are; at last the optimisers' in the order of gq_opt_rule. */
/* clang-format off */
#define KERNELS(X)                                                                                        \
  X(add, vec) X(scale, vec) X(fill, vec) X(get, vec) X(put, vec) X(blend, vec) X(dot, vec) X(largest, vec) \
  X(rms, vec) X(weighted, vec) X(apart, vec) X(joined, vec) X(nonzero, vec) X(nonfinite, vec)              \
  X(finish, vec) X(fit, vec) X(fit_pull, vec) X(path, path) X(gauss, gauss)                                \
  X(adam, rules) X(sgd, rules) X(momentum, rules) X(rmsprop, rules) X(rmsprop_full, rules)
/* clang-format on */
#define KERNEL(name, source) K_##name,
typedef enum which { KERNELS(KERNEL) NKERNEL } which;
#undef KERNEL
#define KERNEL(name, source) { #name, &of_##source },
static const struct {
  const char *name;
  const source *of;
} kernels[] = { KERNELS(KERNEL) };
#undef KERNEL

static int kernel(which k, gq_dtype d, gq_cufunction *f) {
  static gq_cufunction known[NKERNEL][2];
  char name[32];
  gq_text t = { 0 };
  int status = GQ_OK;
  if (!known[k][d]) {
    snprintf(name, sizeof name, "%s_%s", kernels[k].name, gq_cuda_suffix[d]);
    gq_cuda_text(&t, kernels[k].of->threads);
    gq_cuda_names(&t, d);
    gq_cuda_sections(&t, kernels[k].of->sections);
    status = gq_cuda_make(&t, name, &known[k][d]);
  }
  *f = known[k][d];
  return status;
}

static int call(which k, gq_dtype d, int64_t threads, const void *a) {
  gq_cufunction f;
  GQ_TRY(kernel(k, d, &f));
  return gq_cuda_launch(f, gq_cuda_blocks(threads), a);
}

static void combine(gq_dtype d, int parts, const size_t *n, int k, const double *s, void *const *given) {
  gq_cuda_later(gq_cuda_combine(d, parts, n, k, s, given));
}

static void axpy(gq_dtype d, size_t n, double s, const void *src, void *dst) {
  combine(d, 1, &n, 1, &s, (void *[]){ dst, dst, (void *)(uintptr_t)src });
}

static void strided(which k, gq_dtype d, size_t n, double s, const void *src, size_t from, void *dst,
                    size_t to) {
  args a = {
    { gq_far(dst), gq_far(src) }, .n = (long long)n, .from = (long long)from, .to = (long long)to, .s = { s }
  };
  gq_cuda_later(call(k, d, (int64_t)n, &a));
}

static void add(gq_dtype d, size_t n, double s, const void *src, size_t from, void *dst, size_t to) {
  strided(K_add, d, n, s, src, from, dst, to);
}

static void scale(gq_dtype d, size_t n, double s, const void *src, size_t from, void *dst, size_t to) {
  strided(K_scale, d, n, s, src, from, dst, to);
}

static void fill(gq_dtype d, size_t n, double value, void *dst, size_t to) {
  if (to == 1) gq_cuda_later(gq_cuda_fill(d, n, value, dst));
  else strided(K_fill, d, n, value, NULL, 1, dst, to);
}

/* ---- numbers for the host ---- */

static tally *parts; /* [MOST_PARTS + 1] of the device */

static int parts_of(int64_t n) {
  int blocks = gq_cuda_blocks((n + 7) / 8);
  return blocks > MOST_PARTS ? MOST_PARTS : blocks;
}

/* Into the last of to[tallies(n)]. */
static int tallies(int64_t n) { return parts_of(n) > 1 ? parts_of(n) + 1 : 1; }
static int tally_to(which k, gq_dtype d, args *a, tally *to) {
  int blocks = parts_of(a->n);
  gq_cufunction f;
  a->p[0] = gq_far(to);
  GQ_TRY(kernel(k, d, &f));
  GQ_TRY(gq_cuda_launch(f, blocks, a));
  if (blocks == 1) return GQ_OK;
  GQ_TRY(kernel(K_finish, d, &f));
  return gq_cuda_launch(f, 1, &(args){ { gq_far(to) }, .n = blocks });
}

static int tallied(which k, gq_dtype d, args *a, tally *out) {
  if (!parts && !(parts = gq_cuda_allocate((MOST_PARTS + 1) * sizeof *parts)))
    return gq_nomem(MOST_PARTS * sizeof *parts);
  GQ_TRY(tally_to(k, d, a, parts));
  return gq_cuda_get(out, parts + tallies(a->n) - 1, sizeof *out);
}

/* Not finite where it cannot be told: whoever reads it stops. */
static tally tell(which k, gq_dtype d, args a) {
  tally out = { 0, 0, 0, NOWHERE };
  if (a.n == 0) return out;
  int status = tallied(k, d, &a, &out);
  gq_cuda_later(status);
  return status == GQ_OK ? out : (tally){ NAN, NAN, NAN, 0 };
}

static double dot(gq_dtype d, size_t n, const void *x, const void *y) {
  return tell(K_dot, d, (args){ { 0, gq_far(x), gq_far(y) }, .n = (long long)n }).sum;
}

static double largest(gq_dtype d, size_t n, const void *x) {
  return tell(K_largest, d, (args){ { 0, gq_far(x) }, .n = (long long)n }).top;
}

static int room_for(size_t bytes, void **there) {
  *there = gq_cuda_allocate(bytes);
  return *there ? GQ_OK : gq_nomem(bytes);
}

/* What is there by now comes, or is NaN, and its room goes. */
static void bring(int status, void *there, size_t n, double *out) {
  if (status == GQ_OK) status = gq_cuda_get(out, there, n * sizeof *out);
  else memset(out, 0xff, n * sizeof *out);
  gq_cuda_release(there);
  gq_cuda_later(status);
}

static void rms(gq_dtype d, size_t rows, size_t n, size_t apart, const void *x, double *out) {
  void *there;
  int status = room_for(rows * sizeof *out, &there);
  args a = {
    { gq_far(there), gq_far(x) }, .n = (long long)n, .from = (long long)apart, .rows = (long long)rows
  };
  if (status == GQ_OK) status = call(K_rms, d, (int64_t)rows * GQ_NT, &a);
  bring(status, there, rows, out);
}

static void weighted(gq_dtype d, size_t n, const void *x, const void *minus_, const void *y, double atol,
                     double rtol, double *sum, double *top) {
  tally t =
    tell(K_weighted, d,
         (args){ { 0, gq_far(x), gq_far(y), gq_far(minus_) }, .n = (long long)n, .s = { atol, rtol } });
  *sum = t.sum, *top = t.top;
}

/* Each leaves its numbers in a row of the block, which is fetched at once. */
static int sizes_by(gq_dtype d, size_t n, int count, gq_size *of, tally *here, tally *there) {
  int each = tallies((int64_t)n);
  for (int i = 0; i < count; i++) {
    const gq_size *x = &of[i];
    tally *to = there + i * each;
    args norm = { { 0, gq_far(x->x), gq_far(x->y_), gq_far(x->minus_) },
                  .n = (long long)n,
                  .s = { x->atol, x->rtol } };
    args plain = {
      { gq_far(to + each - 1), gq_far(x->x) }, .n = (long long)n, .from = (long long)n, .rows = 1
    };
    GQ_TRY(x->y_ ? tally_to(K_weighted, d, &norm, to) : call(K_rms, d, GQ_NT, &plain));
  }
  GQ_TRY(gq_cuda_get(here, there, (size_t)(count * each) * sizeof *here));
  for (int i = 0; i < count; i++) {
    const tally *t = &here[(i + 1) * each - 1];
    of[i].out = t->sum, of[i].top = t->top; /* sum: the first of them */
  }
  return GQ_OK;
}

static void sizes(gq_dtype d, size_t n, int count, gq_size *of) {
  size_t bytes = (size_t)(count * tallies((int64_t)n)) * sizeof(tally);
  for (int i = 0; i < count; i++) of[i].out = of[i].top = n ? NAN : 0;
  if (!n || !count) return;
  tally *here = gq_alloc(bytes), *there = gq_cuda_allocate(bytes);
  gq_cuda_later(here && there ? sizes_by(d, n, count, of, here, there) : gq_nomem(bytes));
  gq_free(here);
  gq_cuda_release(there);
}

static void apart(gq_dtype d, size_t n, const void *x, const void *y, double sum[2]) {
  tally t = tell(K_apart, d, (args){ { 0, gq_far(x), gq_far(y) }, .n = (long long)n });
  sum[0] += t.sum, sum[1] += t.more;
}

static int join(gq_dtype d, size_t n, int k, size_t ld, void *const *x, void *const *y_, double *sum) {
  size_t bytes = 2 * (size_t)k * sizeof(gq_u64);
  gq_u64 *table = gq_alloc(bytes);
  void *there = gq_cuda_allocate(bytes);
  tally out = { 0 };
  int status = table && there ? GQ_OK : gq_nomem(bytes);
  for (int r = 0; r < k && status == GQ_OK; r++)
    table[r] = gq_far(x[(size_t)r * ld]), table[k + r] = y_ ? gq_far(y_[(size_t)r * ld]) : 0;
  if (status == GQ_OK) status = gq_cuda_put(there, table, bytes);
  if (status == GQ_OK)
    status = tallied(K_joined, d, &(args){ { 0, 0, gq_far(there) }, .n = (long long)n, .rows = k }, &out);
  gq_free(table);
  gq_cuda_release(there);
  *sum += status == GQ_OK ? out.sum : NAN;
  return status;
}

/* k is the number of slices. */
static void joined(gq_dtype d, size_t n, int k, size_t ld, void *const *x, void *const *y_, double *sum) {
  if (n) gq_cuda_later(join(d, n, k, ld, x, y_, sum));
}

static bool nonzero(gq_dtype d, size_t n, const void *x) {
  return tell(K_nonzero, d, (args){ { 0, gq_far(x) }, .n = (long long)n }).first < NOWHERE;
}

static size_t nonfinite(gq_dtype d, size_t n, const void *x) {
  double first = tell(K_nonfinite, d, (args){ { 0, gq_far(x) }, .n = (long long)n }).first;
  return first < NOWHERE ? (size_t)first + 1 : 0;
}

/* ---- moves ---- */

static void get(gq_dtype d, size_t n, const void *x, size_t stride, double *out) {
  void *there;
  int status = room_for(n * sizeof *out, &there);
  args a = { { gq_far(there), gq_far(x) }, .n = (long long)n, .from = (long long)stride };
  if (status == GQ_OK) status = call(K_get, d, (int64_t)n, &a);
  bring(status, there, n, out);
}

/* A kernel that reads so many bytes of the host's as its number p. */
static void given(which k, gq_dtype d, int64_t threads, args a, int p, const void *from, size_t bytes) {
  void *there;
  int status = room_for(bytes, &there);
  a.p[p] = gq_far(there);
  if (status == GQ_OK) status = gq_cuda_put(there, from, bytes);
  if (status == GQ_OK) status = call(k, d, threads, &a);
  gq_cuda_release(there);
  gq_cuda_later(status);
}

static void put(gq_dtype d, size_t n, const double *in, void *x, size_t stride) {
  args a = { { gq_far(x) }, .n = (long long)n, .to = (long long)stride };
  if (n > 4) given(K_put, d, (int64_t)n, a, 1, in, n * sizeof *in);
  for (size_t i = 0; i < n && n <= 4; i++)
    gq_cuda_later(gq_cuda_fill(d, 1, in[i], (char *)x + i * stride * gq_dtype_size(d)));
}

static int run_move(int status, const gq_launch *l, void *dst, const void *src) {
  return status == GQ_OK ? gq_cuda_run(l, (void *[]){ dst, (void *)(uintptr_t)src }, true) : status;
}

static gq_layout line(size_t n, size_t stride) {
  return (gq_layout){ .ndim = 1, .dim = { (int64_t)n }, .stride = { (int64_t)stride } };
}

static void cast(gq_dtype from, gq_dtype to, size_t n, const void *src, void *dst) {
  gq_layout x = line(n, 1);
  gq_launch l;
  gq_cuda_later(run_move(gq_cuda_move(&l, to, from, &x, (int64_t[]){ 1 }), &l, dst, src));
}

static void spread(size_t size, size_t n, const void *src, size_t from, void *dst, size_t to) {
  gq_layout x = line(n, from);
  gq_launch l;
  gq_cuda_later(run_move(gq_cuda_bytes(&l, size, &x, (int64_t[]){ (int64_t)to }), &l, dst, src));
}

static void turn(size_t size, size_t rows, size_t cols, const void *src, void *dst) {
  gq_layout x = { .ndim = 2, .dim = { (int64_t)rows, (int64_t)cols }, .stride = { 1, (int64_t)rows } };
  gq_launch l;
  gq_cuda_later(run_move(gq_cuda_bytes(&l, size, &x, (int64_t[]){ (int64_t)cols, 1 }), &l, dst, src));
}

static void blend(gq_dtype d, size_t rows, size_t cols, const bool *taken, const void *src, void *dst) {
  args a = { { gq_far(dst), gq_far(src) }, .n = (long long)cols, .rows = (long long)rows };
  given(K_blend, d, (int64_t)(rows * cols), a, 2, taken, cols);
}

/* ---- rows ---- */

static void fit(gq_dtype d, size_t rows, size_t n, const void *x, void *saved, void *mean, void *deviation) {
  args a = { { gq_far(x), gq_far(saved), gq_far(mean), gq_far(deviation) },
             .n = (long long)n,
             .rows = (long long)rows };
  gq_cuda_later(call(K_fit, d, (int64_t)rows * GQ_NT, &a));
}

static void fit_pull(gq_dtype d, size_t rows, size_t n, const void *x, const void *saved, const void *mean_,
                     const void *deviation_, void *out) {
  args a = { { gq_far(x), gq_far(saved), gq_far(mean_), gq_far(deviation_) },
             .n = (long long)n,
             .rows = (long long)rows };
  a.to = (long long)gq_far(out);
  gq_cuda_later(call(K_fit_pull, d, (int64_t)(rows * n), &a));
}

/* ---- gauss: a block a row ---- */

typedef struct gauss_args {
  gq_u64 bad, inner, end, element, weight, part, g, a, room;
  long long rows, apart;
  int n, dim, count, parts;
} gauss_args;

enum { MOST_ROWS = 4096, NEAR = 16 }; /* at a time; what the kernel shares besides */

/* What the host holds, and the answer in front of it, as one block; without `here` it is measured. */
static size_t gauss_cargo(const gq_gauss *g, char *here, gq_u64 there, gauss_args *a) {
  size_t n = (size_t)g->n, top = sizeof(gq_u64), jumps = 0;
  for (int e = 0; e < g->count; e++) jumps += (size_t)g->element[e].jumps;
  const struct {
    const void *from;
    size_t bytes;
    gq_u64 *to;
  } all[] = { { g->inner, n * n * sizeof(double), &a->inner },
              { g->end, n * sizeof(double), &a->end },
              { g->element, (size_t)g->count * sizeof *g->element, &a->element },
              { g->part, (size_t)g->parts * sizeof *g->part, &a->part } };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    if (here) memcpy(here + top, all[i].from, all[i].bytes);
    *all[i].to = there + top, top += all[i].bytes;
  }
  a->weight = there + top;
  for (size_t i = 0; here && i < jumps; i++)
    memcpy(here + top + i * n * sizeof(double), g->weight - i * n, n * sizeof(double));
  return top + jumps * n * sizeof(double);
}

static int gauss_by(gq_dtype d, const gq_gauss *g, gauss_args *a, char *here, void *there, size_t bytes,
                    gq_u64 *bad) {
  size_t all = (size_t)g->n * g->dim,
         shared = (all * (all + 1) + all * g->dim + all + g->dim) * sizeof(double);
  int blocks = a->rows < MOST_ROWS ? (int)a->rows : MOST_ROWS;
  void *room = NULL;
  gq_cufunction f;
  *bad = (gq_u64)g->count;
  memcpy(here, bad, sizeof *bad);
  gauss_cargo(g, here, gq_far(there), a);
  a->bad = gq_far(there), a->g = gq_far(g->g), a->a = gq_far(g->a);
  GQ_TRY(kernel(K_gauss, d, &f));
  GQ_TRY(gq_cuda_put(there, here, bytes));
  if (shared + NEAR > gq_cuda.shared) {
    if (blocks > gq_cuda.processors) blocks = gq_cuda.processors;
    room = gq_cuda_allocate(blocks * shared);
    if (!room) return gq_nomem(blocks * shared);
    a->room = gq_far(room), shared = 0;
  }
  int status = gq_cuda_check(gq_cu.set_attribute(f, GQ_CU_DYNAMIC_SHARED, (int)shared), "cuFuncSetAttribute");
  if (status == GQ_OK) status = gq_cuda_launch_near(f, blocks, GAUSS_THREADS, shared, a);
  gq_cuda_release(room);
  return status == GQ_OK ? gq_cuda_get(bad, there, sizeof *bad) : status;
}

static int gauss(gq_dtype d, const gq_gauss *g, int *bad) {
  gauss_args a = {
    .apart = (long long)g->apart, .n = g->n, .dim = g->dim, .count = g->count, .parts = g->parts
  };
  size_t bytes = gauss_cargo(g, NULL, 0, &a);
  gq_u64 first = 0;
  for (int i = 0; i < g->parts; i++) a.rows += g->part[i].rows;
  char *here = gq_alloc(bytes);
  void *there = gq_cuda_allocate(bytes);
  int status = here && there ? gauss_by(d, g, &a, here, there, bytes, &first) : gq_nomem(bytes);
  gq_free(here);
  gq_cuda_release(there);
  *bad = (int)first;
  return status;
}

/* ---- noise ---- */

typedef struct path_args {
  gq_u64 p;
  long long n;
  double s, t;
  gq_bridge tree;
} path_args;

static void path(gq_dtype d, size_t n, const gq_bridge *b, double s, double t, void *dst) {
  path_args a = { gq_far(dst), (long long)n, s, t, *b };
  gq_cuda_later(call(K_path, d, (int64_t)(n + 1) / 2, &a));
}

/* ---- optimisers: the CPU's loops, a number a thread ---- */

typedef struct update_args {
  gq_u64 p[5];
  long long n;
  gq_opt_coef k;
} update_args;

static void update(gq_opt_rule rule, gq_dtype d, size_t n, void *p, const void *g,
                   void *const s[GQ_OPT_STATES], const gq_opt_coef *k) {
  update_args a = { { gq_far(p), gq_far(g) }, (long long)n, *k };
  for (int i = 0; i < GQ_OPT_STATES; i++) a.p[2 + i] = gq_far(s[i]);
  gq_cuda_later(call((which)(K_adam + rule), d, (int64_t)n, &a));
}

const gq_vectors gq_cuda_vectors = {
  .sizes = sizes, .gauss = gauss, .path = path, .update = update, GQ_VECTORS(GQ_VECTOR)
};
