/*
** mirror.c -- a backend for tests: the CPU, whose addresses are offset so that reading one as the host's faults, and
** whose memory starts as NaN. What runs on it touches numbers through its backend alone, and its programs take no
** address of the host's that is not shared.
*/
#include "compile.h"
#include "cpu/cpu.h"

#include <pthread.h>
#include <string.h>

/* An address of the host's lies below 2^47; one of the mirror's is not even canonical there. */
#define OFFSET ((uintptr_t)1 << 46)
#define EDGE ((uintptr_t)1 << 47)

#define CPU (&gq_cpu_vectors)

/* What the CPU calls it; addresses of the host stay. */
static void *real(const void *p) {
  uintptr_t at = (uintptr_t)p;
  return (void *)(at >= EDGE ? at - OFFSET : at);
}

static void *allocate(const gq_device *d, size_t bytes) {
  char *p = gq_alloc(bytes);
  if (p && (uintptr_t)p + OFFSET < EDGE) { /* the heap of a program that stands low: no room for a mirror */
    gq_free(p);
    p = NULL;
  }
  if (!p) return NULL;
  memset(p, 0xff, bytes); /* NaN of either dtype */
  return (void *)((uintptr_t)p + OFFSET);
}

static void release(const gq_device *d, void *p_) {
  if (p_) gq_free(real(p_));
}

typedef struct block { /* one that is shared, and its numbers */
  struct block *next;
  size_t bytes;
  double number[];
} block;

static block *blocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *share(const gq_device *d, size_t bytes) {
  block *b = gq_alloc(sizeof *b + bytes);
  if (!b) return NULL;
  b->bytes = bytes;
  pthread_mutex_lock(&lock);
  b->next = blocks, blocks = b;
  pthread_mutex_unlock(&lock);
  return b->number;
}

static void unshare(const gq_device *d, void *p_) {
  block **at = &blocks, *b;
  if (!p_) return;
  pthread_mutex_lock(&lock);
  while ((*at)->number != p_) at = &(*at)->next;
  b = *at, *at = b->next;
  pthread_mutex_unlock(&lock);
  gq_free(b);
}

/* May a program read there? */
static bool reachable(const void *p) {
  uintptr_t at = (uintptr_t)p;
  if (at >= EDGE) return true;
  pthread_mutex_lock(&lock);
  const block *b = blocks;
  while (b && !(at >= (uintptr_t)b->number && at < (uintptr_t)b->number + b->bytes)) b = b->next;
  pthread_mutex_unlock(&lock);
  return b != NULL;
}

static void copy(const gq_device *d, void *dst, const void *src, size_t bytes) {
  memcpy(real(dst), real(src), bytes);
}

static void fill_bytes(const gq_device *d, void *dst, int byte, size_t bytes) {
  memset(real(dst), byte, bytes);
}
static void nothing(const gq_device *d) {}

/* ---- tensors: the same ones as the CPU sees them ---- */

typedef struct seen {
  gq_tensor t;
  gq_storage s;
} seen;

static gq_tensor *see(const gq_tensor *t, seen *x) {
  x->t = *t, x->s = *t->storage;
  x->s.data = real(x->s.data), x->s.device = gq_host;
  x->t.storage = &x->s;
  x->t.refs = x->s.refs = 2; /* never the last */
  return &x->t;
}

static void move(gq_tensor *dst, const gq_tensor *src) {
  seen to, from;
  gq_host->move(see(dst, &to), see(src, &from));
}

static int apply(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_tensor *out) {
  seen *x = gq_calloc((size_t)nargs + 1, sizeof *x);
  gq_tensor **there = gq_calloc((size_t)nargs + 1, sizeof *there);
  int status = x && there ? GQ_OK : gq_nomem((size_t)nargs * sizeof *x);
  for (int i = 0; i < nargs && status == GQ_OK; i++) there[i] = see(args[i], &x[i]);
  if (status == GQ_OK) status = gq_cpu_apply(op, nargs, there, attr, see(out, &x[nargs]));
  gq_free(there);
  gq_free(x);
  return status;
}

/* ---- vectors ---- */

/* Those whose addresses are arguments. */
#define MIRROR(result, call, parameters, given) \
  static result call parameters { return CPU->call given; }
/* clang-format off */
MIRROR(void, axpy, (gq_dtype d, size_t n, double s, const void *src, void *dst), (d, n, s, real(src), real(dst)))
MIRROR(void, add, (gq_dtype d, size_t n, double s, const void *src, size_t from, void *dst, size_t to),
       (d, n, s, real(src), from, real(dst), to))
MIRROR(void, scale, (gq_dtype d, size_t n, double s, const void *src, size_t from, void *dst, size_t to),
       (d, n, s, real(src), from, real(dst), to))
MIRROR(double, dot, (gq_dtype d, size_t n, const void *x, const void *y), (d, n, real(x), real(y)))
MIRROR(double, largest, (gq_dtype d, size_t n, const void *x), (d, n, real(x)))
MIRROR(void, rms, (gq_dtype d, size_t rows, size_t n, size_t apart, const void *x, double *out),
       (d, rows, n, apart, real(x), out))
MIRROR(void, weighted, (gq_dtype d, size_t n, const void *x, const void *minus_, const void *y, double atol,
                        double rtol, double *sum, double *top),
       (d, n, real(x), real(minus_), real(y), atol, rtol, sum, top))
MIRROR(void, apart, (gq_dtype d, size_t n, const void *x, const void *y, double sum[2]),
       (d, n, real(x), real(y), sum))
MIRROR(bool, nonzero, (gq_dtype d, size_t n, const void *x), (d, n, real(x)))
MIRROR(size_t, nonfinite, (gq_dtype d, size_t n, const void *x), (d, n, real(x)))
MIRROR(void, fill, (gq_dtype d, size_t n, double value, void *dst, size_t to), (d, n, value, real(dst), to))
MIRROR(void, cast, (gq_dtype from, gq_dtype to, size_t n, const void *src, void *dst),
       (from, to, n, real(src), real(dst)))
MIRROR(void, get, (gq_dtype d, size_t n, const void *x, size_t stride, double *out), (d, n, real(x), stride, out))
MIRROR(void, put, (gq_dtype d, size_t n, const double *in, void *x, size_t stride), (d, n, in, real(x), stride))
MIRROR(void, spread, (size_t size, size_t n, const void *src, size_t from, void *dst, size_t to),
       (size, n, real(src), from, real(dst), to))
MIRROR(void, blend, (gq_dtype d, size_t rows, size_t cols, const bool *taken, const void *src, void *dst),
       (d, rows, cols, taken, real(src), real(dst)))
MIRROR(void, turn, (size_t size, size_t rows, size_t cols, const void *src, void *dst),
       (size, rows, cols, real(src), real(dst)))
MIRROR(void, fit, (gq_dtype d, size_t rows, size_t n, const void *x, void *saved, void *mean, void *deviation),
       (d, rows, n, real(x), real(saved), real(mean), real(deviation)))
MIRROR(void, fit_pull, (gq_dtype d, size_t rows, size_t n, const void *x, const void *saved, const void *mean_,
                        const void *deviation_, void *out),
       (d, rows, n, real(x), real(saved), real(mean_), real(deviation_), real(out)))
/* clang-format on */

/* And those with lists of them. */

static void combine(gq_dtype d, int parts, const size_t *n, int k, const double *s, void *const *at) {
  void *there[GQ_TERMS + 2];
  for (int p = 0; p < parts; p++) {
    for (int i = 0; i < k + 2; i++, at++) there[i] = real(*at);
    CPU->combine(d, 1, n + p, k, s, there);
  }
}

static void joined(gq_dtype d, size_t n, int k, size_t ld, void *const *x, void *const *y_, double *sum) {
  void *p[k], *q[k];
  for (int r = 0; r < k; r++) p[r] = real(x[r * ld]), q[r] = y_ ? real(y_[r * ld]) : NULL;
  CPU->joined(d, n, k, 1, p, y_ ? q : NULL, sum);
}

static int gauss(gq_dtype d, const gq_gauss *g, int *bad) {
  gq_gauss there = *g;
  gq_gauss_rows part[g->parts];
  for (int i = 0; i < g->parts; i++) {
    part[i] = g->part[i];
    part[i].jacobian = real(part[i].jacobian), part[i].v = real(part[i].v);
  }
  there.part = part, there.g = real(g->g), there.a = real(g->a);
  return CPU->gauss(d, &there, bad);
}

static void update(gq_opt_rule rule, gq_dtype d, size_t n, void *p, const void *g,
                   void *const s[GQ_OPT_STATES], const gq_opt_coef *k) {
  void *state[GQ_OPT_STATES];
  for (int i = 0; i < GQ_OPT_STATES; i++) state[i] = real(s[i]);
  CPU->update(rule, d, n, real(p), real(g), state, k);
}

static const gq_vectors vectors = { .gauss = gauss, .update = update, GQ_VECTORS(GQ_VECTOR) };

/* ---- programs ---- */

static int run(const gq_program *p, int phase, void *arena, void *rest, const void *const *in,
               void *const *out) {
  const void *from[p->nin + 1];
  void *to[p->nout + 1];
  for (int i = p->phase[phase]; i < p->phase[phase + 1]; i++)
    for (int l = 0; l < p->instr[i].nloc; l++) { /* those that are bound: not all are in every phase */
      const gq_loc *at = &p->instr[i].loc[l];
      if (at->kind != LOC_IN && at->kind != LOC_OUT) continue;
      if (!reachable(at->kind == LOC_IN ? in[at->index] : out[at->index]))
        return gq_fail(GQ_ESTATE, "mirror: instruction %d has an address of the host's", i);
      if (at->kind == LOC_IN) from[at->index] = real(in[at->index]);
      else to[at->index] = real(out[at->index]);
    }
  return gq_cpu_run(p, phase, real(arena), real(rest), from, to);
}

static const gq_lowering mirrored = {
  .name = "mirror",
  .columns = true,
  .convolutions = true,
  .slices = gq_cpu_slices,
  .most = 64,
  .pack = gq_cpu_pack,
  .lower = gq_cpu_lower,
  .run = run,
  .release = gq_cpu_release,
  .print = gq_cpu_print,
};

static const gq_device device = {
  .name = "mirror",
  .backend = &gq_mirror_backend,
  .allocate = allocate,
  .release = release,
  .share = share,
  .unshare = unshare,
  .copy = copy,
  .fill = fill_bytes,
  .wait = nothing,
  .move = move,
};

const gq_backend gq_mirror_backend = {
  .device = &device,
  .vec = &vectors,
  .apply = apply,
  .lowering = &mirrored,
};
