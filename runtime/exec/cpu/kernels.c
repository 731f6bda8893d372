/*
** kernels.c -- the element-wise kernels of ir/ops.def and the reductions, as plain loops that
** the compiler vectorises. Compiled once for each instruction set: -DGQ_KERNELS=portable, avx2
** (-mavx2 -mfma) and avx512 (-mavx512f -mavx512dq -mavx512bw -mavx512vl on top).
*/
#ifndef GQ_KERNELS
#define GQ_KERNELS portable
#endif

/* None of them changes a result: no floating-point trap is enabled. Only vmath.h asks for fused multiply-add. */
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* of loops that are left as they are */
#define APART _Pragma("clang loop vectorize(assume_safety)")
#else
#pragma GCC optimize("O3", "no-trapping-math")
#define APART _Pragma("GCC ivdep")
#endif

#include "cpu.h"
#include "vmath.h"

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

#define KERNEL(name) static void name(void *o, const void *a, const void *b, const void *c, size_t n)
#define EACH APART for (size_t i = 0; i < n; i++) /* out may be a or b itself */

/* ---- float32 and float64, from the table ---- */

#define UNARY(name, T, f) CAST(name, T, T, f)
#define CAST(name, T, R, f) \
  KERNEL(name) {            \
    R *out = o;             \
    const T *p = a;         \
    (void)b, (void)c;       \
    EACH {                  \
      T x = p[i];           \
      out[i] = (R)(f);      \
    }                       \
  }

#define BINARY(name, T, R, f)          \
  KERNEL(name##_vv) {                  \
    R *out = o;                        \
    const T *p = a, *q = b;            \
    (void)c;                           \
    EACH {                             \
      T x = p[i], y = q[i];            \
      out[i] = (R)(f);                 \
    }                                  \
  }                                    \
  KERNEL(name##_sv) {                  \
    R *out = o;                        \
    const T x = *(const T *)a, *q = b; \
    (void)c;                           \
    EACH {                             \
      T y = q[i];                      \
      out[i] = (R)(f);                 \
    }                                  \
  }                                    \
  KERNEL(name##_vs) {                  \
    R *out = o;                        \
    const T *p = a, y = *(const T *)b; \
    (void)c;                           \
    EACH {                             \
      T x = p[i];                      \
      out[i] = (R)(f);                 \
    }                                  \
  }

#define GQ_UNARY(N, n, meta, takes, vjp, jet, f, doc) UNARY(N##_f32, float, f) UNARY(N##_f64, double, f)
#define GQ_BINARY(N, n, meta, takes, vjp, jet, f, doc) \
  BINARY(N##_f32, float, float, f) BINARY(N##_f64, double, double, f)
#define GQ_COMPARE(N, n, takes, f, doc) \
  BINARY(N##_f32, float, uint8_t, f)    \
  BINARY(N##_f64, double, uint8_t, f)   \
  BINARY(N##_i64, int64_t, uint8_t, f) BINARY(N##_bool, uint8_t, uint8_t, f)
#include "../../ir/ops.def"

/* ---- what vmath.h does not reach: arguments of sin, cos and tan beyond TRIG_MAX ---- */

#define TRIG(N, T, S, exact)                                       \
  KERNEL(N##_all_##S) {                                            \
    const T *p = a;                                                \
    T *out = o;                                                    \
    unsigned far = 0;                                              \
    for (size_t i = 0; i < n; i++) far |= ABS(p[i]) > (T)TRIG_MAX; \
    if (!far) {                                                    \
      N##_##S(o, a, b, c, n);                                      \
      return;                                                      \
    }                                                              \
    for (size_t i = 0; i < n; i++) {                               \
      T x = p[i];                                                  \
      N##_##S(&out[i], &x, b, c, 1);                               \
      if (ABS(x) > (T)TRIG_MAX) out[i] = exact(x);                 \
    }                                                              \
  }
TRIG(SIN, float, f32, sinf)
TRIG(COS, float, f32, cosf)
TRIG(TAN, float, f32, tanf)
TRIG(SIN, double, f64, sin)
TRIG(COS, double, f64, cos)

/* softplus(a) to out and sigmoid(a) to b: one exponential */
#define DUO(name, T, fall, plus, sigm)                                               \
  static void name(void *o, const void *a, const void *b, const void *c, size_t n) { \
    T *out = o, *second = (T *)(uintptr_t)b;                                         \
    const T *p = a;                                                                  \
    (void)c;                                                                         \
    EACH {                                                                           \
      T x = p[i], e = fall(x);                                                       \
      out[i] = plus(x, e);                                                           \
      second[i] = sigm(x, e);                                                        \
    }                                                                                \
  }
DUO(duo_f32, float, fall_s, softplus_of_s, sigmoid_of_s)
DUO(duo_f64, double, fall_d, softplus_of_d, sigmoid_of_d)

UNARY(fall_f32, float, -expm1_s(-x))
UNARY(fall_f64, double, -expm1_d(-x))

/* ---- int64 (wrapping, as two's complement) and bool ---- */

#define U(x) ((uint64_t)(x))
/* What would trap: by 0 gives 0 (the bindings refuse it), by -1 wraps. */
static inline int64_t floor_divide(int64_t x, int64_t y) {
  if (y == 0) return 0;
  if (y == -1) return (int64_t)-U(x);
  return x / y - (x % y != 0 && (x ^ y) < 0);
}
UNARY(NEG_i64, int64_t, -U(x))
UNARY(ABS_i64, int64_t, x < 0 ? -U(x) : U(x))
UNARY(SIGN_i64, int64_t, (x > 0) - (x < 0))
UNARY(SQUARE_i64, int64_t, U(x) * U(x))
UNARY(RELU_i64, int64_t, x > 0 ? x : 0)
BINARY(ADD_i64, int64_t, int64_t, U(x) + U(y))
BINARY(SUB_i64, int64_t, int64_t, U(x) - U(y))
BINARY(MUL_i64, int64_t, int64_t, U(x) * U(y))
BINARY(FLOOR_DIVIDE_i64, int64_t, int64_t, floor_divide(x, y))
BINARY(REMAINDER_i64, int64_t, int64_t,
       y == 0 || y == -1 ? 0 : x % y + (x % y != 0 && (x % y ^ y) < 0 ? y : 0))
BINARY(MAXIMUM_i64, int64_t, int64_t, x > y ? x : y)
BINARY(MINIMUM_i64, int64_t, int64_t, x < y ? x : y)
BINARY(MUL_bool, uint8_t, uint8_t, x &y)
BINARY(MAXIMUM_bool, uint8_t, uint8_t, x | y)
BINARY(MINIMUM_bool, uint8_t, uint8_t, x &y)

/* ---- where, cast, multiply-add ---- */

/* a: condition; b and c: the two values, each a vector or one number */
#define WHERE_FORM(name, T, X, Y) \
  KERNEL(name) {                  \
    T *out = o;                   \
    const uint8_t *p = a;         \
    const T *x = b, *y = c;       \
    EACH out[i] = p[i] ? X : Y;   \
  }
#define WHERE(S, T)                         \
  WHERE_FORM(WHERE_##S##_vv, T, x[i], y[i]) \
  WHERE_FORM(WHERE_##S##_sv, T, *x, y[i])   \
  WHERE_FORM(WHERE_##S##_vs, T, x[i], *y)   \
  WHERE_FORM(WHERE_##S##_ss, T, *x, *y)
WHERE(f32, float)
WHERE(f64, double)
WHERE(i64, int64_t)
WHERE(bool, uint8_t)

/* Out of range to int64: the nearest int64; NaN: 0. */
static inline int64_t to_int(double x) {
  return x != x ? 0 : x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : (int64_t)x;
}
#define CAST_FROM(S, T)                      \
  CAST(CAST_##S##_f32, T, float, (float)x)   \
  CAST(CAST_##S##_f64, T, double, (double)x) \
  CAST(CAST_##S##_bool, T, uint8_t, x != 0)
CAST_FROM(f32, float)
CAST_FROM(f64, double)
CAST_FROM(i64, int64_t)
CAST_FROM(bool, uint8_t)
CAST(CAST_f32_i64, float, int64_t, to_int((double)x))
CAST(CAST_f64_i64, double, int64_t, to_int(x))
CAST(CAST_i64_i64, int64_t, int64_t, x)
CAST(CAST_bool_i64, uint8_t, int64_t, x)

/* Not contracted: a fused program gives the bits of the separate operations. */
#define MULADD(name, T, f)                     \
  KERNEL(name) {                               \
    T *out = o;                                \
    const T *p = a, *q = b, s = *(const T *)c; \
    EACH {                                     \
      T m = p[i] * s, y = q[i];                \
      out[i] = f;                              \
    }                                          \
  }
#define MULADDS(S, T)         \
  MULADD(madd_##S, T, y + m)  \
  MULADD(mrsub_##S, T, y - m) \
  MULADD(msub_##S, T, m - y)
MULADDS(f32, float)
MULADDS(f64, double)

/* ---- sums, in float64, in an order that depends on n alone ---- */

enum { LANES = 32 };
#define SUMS(S, T)                                                                                    \
  static double sum_##S(const void *x, size_t n) {                                                    \
    const T *p = x;                                                                                   \
    double lane[LANES], all = 0, rest = 0;                                                            \
    size_t i = n / LANES * LANES;                                                                     \
    for (; i < n; i++) rest += (double)p[i];                                                          \
    if (n < LANES) return all + rest;                                                                 \
    for (int j = 0; j < LANES; j++) lane[j] = 0.0 + (double)p[j];                                     \
    for (i = LANES; i + LANES <= n; i += LANES)                                                       \
      for (int j = 0; j < LANES; j++) lane[j] += (double)p[i + j];                                    \
    _Pragma("GCC unroll 5") for (int w = LANES / 2; w; w /= 2) for (int j = 0; j < w; j++) lane[j] += \
      lane[j + w];                                                                                    \
    all = lane[0];                                                                                    \
    return all + rest;                                                                                \
  }                                                                                                   \
  static void colsum_##S(double *acc, const void *x, size_t rows, size_t cols, size_t ld) {           \
    const T *p = x;                                                                                   \
    for (size_t r = 0; r < rows; r++, p += ld) {                                                      \
      APART for (size_t j = 0; j < cols; j++) acc[j] += (double)p[j];                                 \
    }                                                                                                 \
  }
SUMS(f32, float)
SUMS(f64, double)

/* Mean and sum of squared differences from it, in float64: exact where all numbers are equal. And what a row's
** numbers get from those of the two: out = c[0] + c[1] (x - c[2]). */
enum { FIT = 8 };
#define FITS(S, T)                                                                \
  static double fit_##S(const void *x, size_t n, double *squares) {               \
    const T *p = x;                                                               \
    const double first = (double)p[0];                                            \
    double lane[FIT] = { 0 }, square[FIT] = { 0 };                                \
    size_t i = 0;                                                                 \
    for (; i + FIT <= n; i += FIT)                                                \
      for (int j = 0; j < FIT; j++) lane[j] += (double)p[i + j] - first;          \
    for (int j = 0; i < n; i++, j++) lane[j] += (double)p[i] - first;             \
    for (int w = FIT / 2; w; w /= 2)                                              \
      for (int j = 0; j < w; j++) lane[j] += lane[j + w];                         \
    const double mean = lane[0] / (double)n;                                      \
    for (i = 0; i + FIT <= n; i += FIT)                                           \
      for (int j = 0; j < FIT; j++) {                                             \
        double d = (double)p[i + j] - first - mean;                               \
        square[j] += d * d;                                                       \
      }                                                                           \
    for (int j = 0; i < n; i++, j++) {                                            \
      double d = (double)p[i] - first - mean;                                     \
      square[j] += d * d;                                                         \
    }                                                                             \
    for (int w = FIT / 2; w; w /= 2)                                              \
      for (int j = 0; j < w; j++) square[j] += square[j + w];                     \
    *squares = square[0];                                                         \
    return first + mean;                                                          \
  }                                                                               \
  static void fit_pull_##S(void *o, const void *x, const double c[3], size_t n) { \
    T *out = o;                                                                   \
    const T *p = x, base = (T)c[0], slope = (T)c[1], mean = (T)c[2];              \
    EACH out[i] = base + slope * (p[i] - mean);                                   \
  }
FITS(f32, float)
FITS(f64, double)

/* ---- small products ---- */

#include "small.h"

#include "tile.h"
#include "turn.h"
#include "winograd.h"

/* ---- small linear systems, GQ_LANES side by side ---- */

typedef double lanes[GQ_LANES];
#define PARTS for (int l = 0; l < GQ_LANES; l += WIDTH_f64) /* the vectors of a lanes */
#define PIVOT 0.01 /* rows change places where a pivot squared is less of its column squared: seldom */

/* m[i][k] += f_i m[p][k] + g_i m[p + 1][k] for 1 or 2 rows from i, columns p + 2 .. n: f_i and g_i stand in columns
** p and p + 1. */
static inline __attribute__((always_inline)) void eliminate(lanes *m, size_t n, size_t p, size_t i,
                                                            int rows) {
  const lanes *first = m + p * (n + 1), *second = first + n + 1;
  lanes *to = m + i * (n + 1);
  PARTS {
    vec_f64 f[2], g[2];
    for (int r = 0; r < rows; r++)
      f[r] = VLOAD_f64(&to[r * (n + 1) + p][l]), g[r] = VLOAD_f64(&to[r * (n + 1) + p + 1][l]);
    for (size_t k = p + 2; k <= n; k++) {
      vec_f64 x = VLOAD_f64(&first[k][l]), y = VLOAD_f64(&second[k][l]);
      for (int r = 0; r < rows; r++) {
        double *t = &to[r * (n + 1) + k][l];
        VSTORE_f64(t, VFMA_f64(g[r], y, VFMA_f64(f[r], x, VLOAD_f64(t))));
      }
    }
  }
}

/* System l: the row below with the largest number in column p takes the place of row p, from column `from` on. */
static __attribute__((noinline)) void change_rows(lanes *m, size_t n, size_t from, size_t p, int l) {
  size_t best = p;
  for (size_t i = p + 1; i < n; i++)
    if (ABS(m[i * (n + 1) + p][l]) > ABS(m[best * (n + 1) + p][l])) best = i;
  for (size_t k = from; k <= n; k++) {
    double v = m[p * (n + 1) + k][l];
    m[p * (n + 1) + k][l] = m[best * (n + 1) + k][l], m[best * (n + 1) + k][l] = v;
  }
}

/* Choose the pivot of column p; its inverse takes its place, the factors of its row in those below theirs. */
static inline void pivot(lanes *m, size_t n, size_t from, size_t p) {
  lanes size;
  double *diagonal = m[p * (n + 1) + p];
  PARTS {
    vec_f64 sum = VSET_f64(0);
    for (size_t i = p; i < n; i++) {
      vec_f64 x = VLOAD_f64(&m[i * (n + 1) + p][l]);
      sum = VFMA_f64(x, x, sum);
    }
    VSTORE_f64(&size[l], sum);
  }
  for (int l = 0; l < GQ_LANES; l++)
    if (diagonal[l] * diagonal[l] < PIVOT * size[l]) change_rows(m, n, from, p, l);
  PARTS {
    vec_f64 inverse = VSET_f64(1) / VLOAD_f64(&diagonal[l]);
    VSTORE_f64(&diagonal[l], inverse);
    for (size_t i = p + 1; i < n; i++) {
      double *x = &m[i * (n + 1) + p][l];
      VSTORE_f64(x, -inverse * VLOAD_f64(x));
    }
  }
}

/* to[k] += f from[k] */
static inline void add_row(const double *f, const lanes *from, lanes *to, size_t n) {
  PARTS {
    vec_f64 x = VLOAD_f64(&f[l]);
    for (size_t k = 0; k < n; k++)
      VSTORE_f64(&to[k][l], VFMA_f64(x, VLOAD_f64(&from[k][l]), VLOAD_f64(&to[k][l])));
  }
}

/* Gaussian elimination, two columns at a time; m[n][n + 1] with the right-hand sides last, then solutions there. */
static void solve(lanes *m, size_t n) {
  size_t w = n + 1;
  for (size_t p = 0; p < n; p += 2) {
    pivot(m, n, p, p);
    if (p + 1 == n) break;
    for (size_t i = p + 1; i < n; i++) add_row(m[i * w + p], m + p * w + p + 1, m + i * w + p + 1, 1);
    pivot(m, n, p, p + 1);
    add_row(m[(p + 1) * w + p], m + p * w + p + 2, m + (p + 1) * w + p + 2, n - p - 1);
    size_t i = p + 2;
    for (; i + 1 < n; i += 2) eliminate(m, n, p, i, 2);
    if (i < n) eliminate(m, n, p, i, 1);
  }
  for (size_t p = n; p-- > 0;) {
    PARTS {
      vec_f64 sum = VLOAD_f64(&m[p * w + n][l]);
      for (size_t k = p + 1; k < n; k++)
        sum = VFMA_f64(-VLOAD_f64(&m[p * w + k][l]), VLOAD_f64(&m[k * w + n][l]), sum);
      VSTORE_f64(&m[p * w + n][l], sum * VLOAD_f64(&m[p * w + p][l]));
    }
  }
}

static void collocate(size_t n, size_t dim, const double *a, const double *jacobian, double *matrix,
                      double *vector, double *result) {
  const lanes *j = (const lanes *)jacobian;
  lanes *m = (lanes *)matrix, *x = (lanes *)vector, *y = (lanes *)result;
  size_t size = n * dim;
  for (size_t r = 0; r < size; r++) {
    lanes *row = m + r * (size + 1);
    for (size_t q = 0; q < n; q++) {
      const lanes *from = j + q * dim * dim + r % dim;
      vec_f64 w = VSET_f64(-a[q * n + r / dim]);
      for (size_t k = 0; k < dim; k++)
        PARTS VSTORE_f64(&row[q * dim + k][l], w * VLOAD_f64(&from[k * dim][l]));
    }
    PARTS VSTORE_f64(&row[r][l], VSET_f64(1) + VLOAD_f64(&row[r][l]));
    PARTS VSTORE_f64(&row[size][l], VLOAD_f64(&x[r][l]));
  }
  solve(m, size);
  for (size_t r = 0; r < size; r++) {
    PARTS VSTORE_f64(&x[r][l], VLOAD_f64(&m[r * (size + 1) + size][l]));
    add_row(x[r], j + r * dim, y, dim);
  }
}

/* ---- the table ---- */

#pragma GCC diagnostic ignored "-Woverride-init" /* sin, cos and tan, checked for range */

#define FORMS(k) \
  { k##_vv, k##_sv, k##_vs, NULL }
#define WHERES(k) \
  { k##_vv, k##_sv, k##_vs, k##_ss }
#define CASTS(S) \
  { CAST_##S##_f32, CAST_##S##_f64, CAST_##S##_i64, CAST_##S##_bool }

#define ROW(N) [GQ_OP_##N]
const gq_kernels PASTE(gq_kernels_, GQ_KERNELS) = {
  .name = TEXT(GQ_KERNELS),
  .op = {
#define GQ_UNARY(N, n, meta, takes, vjp, jet, f, doc) \
  ROW(N)[GQ_F32][GQ_VV] = N##_f32, ROW(N)[GQ_F64][GQ_VV] = N##_f64,
#define GQ_BINARY(N, n, meta, takes, vjp, jet, f, doc) \
  ROW(N)[GQ_F32] = FORMS(N##_f32), ROW(N)[GQ_F64] = FORMS(N##_f64),
#define GQ_COMPARE(N, n, takes, f, doc)                                                        \
  ROW(N)                                                                                       \
  [GQ_F32] = FORMS(N##_f32), ROW(N)[GQ_F64] = FORMS(N##_f64), ROW(N)[GQ_I64] = FORMS(N##_i64), \
  ROW(N)[GQ_BOOL] = FORMS(N##_bool),
#include "../../ir/ops.def"
    ROW(SIN)[GQ_F32][GQ_VV] = SIN_all_f32,
    ROW(SIN)[GQ_F64][GQ_VV] = SIN_all_f64,
    ROW(COS)[GQ_F32][GQ_VV] = COS_all_f32,
    ROW(COS)[GQ_F64][GQ_VV] = COS_all_f64,
    ROW(TAN)[GQ_F32][GQ_VV] = TAN_all_f32,
    ROW(NEG)[GQ_I64][GQ_VV] = NEG_i64,
    ROW(ABS)[GQ_I64][GQ_VV] = ABS_i64,
    ROW(SIGN)[GQ_I64][GQ_VV] = SIGN_i64,
    ROW(SQUARE)[GQ_I64][GQ_VV] = SQUARE_i64,
    ROW(RELU)[GQ_I64][GQ_VV] = RELU_i64,
    ROW(ADD)[GQ_I64] = FORMS(ADD_i64),
    ROW(SUB)[GQ_I64] = FORMS(SUB_i64),
    ROW(MUL)[GQ_I64] = FORMS(MUL_i64),
    ROW(FLOOR_DIVIDE)[GQ_I64] = FORMS(FLOOR_DIVIDE_i64),
    ROW(REMAINDER)[GQ_I64] = FORMS(REMAINDER_i64),
    ROW(MAXIMUM)[GQ_I64] = FORMS(MAXIMUM_i64),
    ROW(MINIMUM)[GQ_I64] = FORMS(MINIMUM_i64),
    ROW(MUL)[GQ_BOOL] = FORMS(MUL_bool),
    ROW(MAXIMUM)[GQ_BOOL] = FORMS(MAXIMUM_bool),
    ROW(MINIMUM)[GQ_BOOL] = FORMS(MINIMUM_bool),
    ROW(WHERE)[GQ_F32] = WHERES(WHERE_f32),
    ROW(WHERE)[GQ_F64] = WHERES(WHERE_f64),
    ROW(WHERE)[GQ_I64] = WHERES(WHERE_i64),
    ROW(WHERE)[GQ_BOOL] = WHERES(WHERE_bool),
  },
  .cast = {CASTS(f32), CASTS(f64), CASTS(i64), CASTS(bool)},
  .duo = {duo_f32, duo_f64},
  .fall = {fall_f32, fall_f64},
  .madd = {{madd_f32, mrsub_f32, msub_f32}, {madd_f64, mrsub_f64, msub_f64}},
  .combine = {combine_f32, combine_f64},
  .sum = {sum_f32, sum_f64},
  .colsum = {colsum_f32, colsum_f64},
  .fit = {fit_f32, fit_f64},
  .fit_pull = {fit_pull_f32, fit_pull_f64},
  .small = {small_f32, small_f64},
  .crossed = {crossed_f32, crossed_f64},
  .inner = {inner_f32, inner_f64},
  .streamed = {streamed_f32, streamed_f64},
  .dots = {dots_f32, dots_f64},
  .tile = {tile_f32, tile_f64},
  .tile_rows = ROWS,
  .tile_width = {WIDTH_f32, WIDTH_f64},
  .lines = {lines_f32, lines_f64},
  .turn = turn_f32,
  .winograd = {winograd_1, winograd_3, winograd_4},
  .winograd_at = {winograd_0, winograd_2},
  .collocate = collocate,
};
