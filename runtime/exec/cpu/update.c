/*
** update.c -- the loops of update.h for float and double, plain and AVX2, the choice among them, and a
** step cut into pieces for the threads. Without fused multiply-add both give the same bits.
*/
#include "cpu.h"

#include <math.h>

#if defined(__OPTIMIZE__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-trapping-math") /* vectorise; no result changes */
#endif

#define TARGET
#define T float
#define SQRT sqrtf
#define FN(name) name##_f32
#include "update.h"
#undef T
#undef SQRT
#undef FN
#define T double
#define SQRT sqrt
#define FN(name) name##_f64
#include "update.h"
#undef T
#undef SQRT
#undef FN
#undef TARGET

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2 1
#define TARGET __attribute__((target("avx2")))
#define T float
#define SQRT sqrtf
#define FN(name) name##_f32_avx2
#include "update.h"
#undef T
#undef SQRT
#undef FN
#define T double
#define SQRT sqrt
#define FN(name) name##_f64_avx2
#include "update.h"
#endif

/* p, g and the three state blocks s (NULL where unused): n numbers of one dtype each. */
typedef void loop(size_t n, void *p, const void *g, void *const *s, const gq_opt_coef *k);

typedef struct loops {
  loop *rule[GQ_NRULE];
  int (*finite)(size_t n, const void *g);
} loops;

static const loops plain[2] = {
  { { adam_f32, sgd_f32, momentum_f32, rmsprop_f32, rmsprop_full_f32 }, finite_f32 },
  { { adam_f64, sgd_f64, momentum_f64, rmsprop_f64, rmsprop_full_f64 }, finite_f64 },
};
#ifdef HAVE_AVX2
static const loops wide[2] = {
  { { adam_f32_avx2, sgd_f32_avx2, momentum_f32_avx2, rmsprop_f32_avx2, rmsprop_full_f32_avx2 },
    finite_f32_avx2 },
  { { adam_f64_avx2, sgd_f64_avx2, momentum_f64_avx2, rmsprop_f64_avx2, rmsprop_full_f64_avx2 },
    finite_f64_avx2 },
};
#endif

static const loops *table(gq_dtype d) {
  const loops *t = plain;
#ifdef HAVE_AVX2
  if (__builtin_cpu_supports("avx2")) t = wide;
#endif
  return t + (d == GQ_F64);
}

bool gq_cpu_finite(gq_dtype d, size_t n, const void *x) { return table(d)->finite(n, x); }

typedef struct work { /* cut into pieces for the threads */
  loop *loop;
  const gq_opt_coef *k;
  size_t n, piece, size;
  char *p;
  const char *g;
  char *const *s;
} work;

static void run_piece(void *ctx, int i) {
  const work *w = ctx;
  size_t from = (size_t)i * w->piece, n = w->n - from < w->piece ? w->n - from : w->piece;
  void *s[GQ_OPT_STATES];
  for (int k = 0; k < GQ_OPT_STATES; k++) s[k] = w->s[k] ? w->s[k] + from * w->size : NULL;
  w->loop(n, w->p + from * w->size, w->g + from * w->size, s, w->k);
}

enum { PARALLEL = 1 << 16 }; /* numbers below which waking a thread costs more than it saves */

void gq_cpu_update(gq_opt_rule rule, gq_dtype d, size_t n, void *p, const void *g,
                   void *const s[GQ_OPT_STATES], const gq_opt_coef *k) {
  size_t pieces = n > PARALLEL ? (size_t)gq_threads() : 1, size = gq_dtype_size(d);
  work w = { table(d)->rule[rule], k, n, ((n + pieces - 1) / pieces + 15) / 16 * 16, size, p, g,
             (char *const *)s };
  gq_parallel((int)((n + w.piece - 1) / w.piece), run_piece, &w);
}
