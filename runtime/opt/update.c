/*
** update.c -- the loops of update.h for float and double, plain and AVX2, and the choice among
** them. Without fused multiply-add both give the same bits.
*/
#include "rule.h"
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

typedef struct loops {
  gq_opt_loop *loop[GQ_NLOOP];
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

gq_opt_loop *gq_opt_loop_get(gq_opt_loops which, gq_dtype d) { return table(d)->loop[which]; }

bool gq_opt_finite(gq_dtype d, size_t n, const void *g) { return table(d)->finite(n, g); }
