/*
** kernels_test.c -- the kernels of every instruction set that this processor runs, called
** directly: functions against the C library in a wider type to the ulps that vmath.h states,
** special values, results that do not depend on where in a vector a number stands.
*/
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "runtime/exec/cpu/cpu.h"

static void check(bool ok, const char *kernels, const char *op, const char *what, double x) {
  if (ok) tests_passed++;
  else tests_failed++, printf("FAILED: %s %s: %s (%.17g)\n", kernels, op, what, x);
}

/* ---- references in long double ---- */

static long double r_neg(long double x) { return -x; }
static long double r_rsqrt(long double x) { return 1 / sqrtl(x); }
static long double r_sign(long double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
static long double r_sigmoid(long double x) { return x > 0 ? 1 / (1 + expl(-x)) : expl(x) / (1 + expl(x)); }
static long double r_softplus(long double x) {
  return (x > 0 ? x : 0) + log1pl(expl(-fabsl(x))) + 0 * (x != x ? x : 0);
}
static long double r_relu(long double x) { return x > 0 ? x : x != x ? x : 0; }
static long double r_square(long double x) { return x * x; }
static long double r_recip(long double x) { return 1 / x; }

/* limits in ulps of the result, float32 and float64; lo..hi: where finite arguments are drawn */
typedef struct row {
  gq_op op;
  long double (*f)(long double x);
  double lo, hi, ulp32, ulp64;
} row;

static const row rows[] = {
  { GQ_OP_NEG, r_neg, -1e30, 1e30, 0, 0 },
  { GQ_OP_EXP, expl, -110, 90, 1.1, 1 },
  { GQ_OP_EXP, expl, -750, 710, 1.1, 1 },
  { GQ_OP_LOG, logl, 1e-44, 1e38, 2, 2 },
  { GQ_OP_LOG, logl, 0.5, 2, 2, 2 },
  { GQ_OP_LOG, logl, 1e-320, 1e300, 2, 2 },
  { GQ_OP_LOG1P, log1pl, -1, 3, 2, 2 },
  { GQ_OP_LOG1P, log1pl, -1e-6, 1e38, 2, 2 },
  { GQ_OP_EXPM1, expm1l, -60, 89, 2, 2 },
  { GQ_OP_EXPM1, expm1l, -1, 1, 2, 2 },
  { GQ_OP_EXPM1, expm1l, -60, 710, 2, 2 },
  { GQ_OP_SQRT, sqrtl, 0, 1e30, 0.5, 0.5 },
  { GQ_OP_RSQRT, r_rsqrt, 1e-30, 1e30, 1.5, 1.5 },
  { GQ_OP_ABS, fabsl, -1e30, 1e30, 0, 0 },
  { GQ_OP_SIGN, r_sign, -1e30, 1e30, 0, 0 },
  { GQ_OP_SIN, sinl, -10, 10, 1, 2 },
  { GQ_OP_SIN, sinl, -1e5, 1e5, 1, 2 },
  { GQ_OP_SIN, sinl, -1e9, 1e9, 1, 2 },
  { GQ_OP_COS, cosl, -10, 10, 1, 2 },
  { GQ_OP_COS, cosl, -1e5, 1e5, 1, 2 },
  { GQ_OP_COS, cosl, -1e9, 1e9, 1, 2 },
  { GQ_OP_TAN, tanl, -10, 10, 1, 1 },
  { GQ_OP_TAN, tanl, -1e6, 1e6, 1, 1 },
  { GQ_OP_ATAN, atanl, -3, 3, 1, 1 },
  { GQ_OP_ATAN, atanl, -1e30, 1e30, 1, 1 },
  { GQ_OP_TANH, tanhl, -12, 12, 3, 3 },
  { GQ_OP_TANH, tanhl, -0.5, 0.5, 3, 3 },
  { GQ_OP_TANH, tanhl, -1e30, 1e30, 3, 3 },
  { GQ_OP_SIGMOID, r_sigmoid, -110, 110, 2.5, 2 },
  { GQ_OP_SIGMOID, r_sigmoid, -750, 750, 2.5, 2 },
  { GQ_OP_SOFTPLUS, r_softplus, -110, 110, 3, 2.5 },
  { GQ_OP_SOFTPLUS, r_softplus, -2, 2, 3, 2.5 },
  { GQ_OP_SOFTPLUS, r_softplus, -750, 1e30, 3, 2.5 },
  { GQ_OP_RELU, r_relu, -1e30, 1e30, 0, 0 },
  { GQ_OP_ERF, erfl, -5, 5, 3, 1 },
  { GQ_OP_ERF, erfl, -1e-6, 1e-6, 3, 1 },
  { GQ_OP_SQUARE, r_square, -1e15, 1e15, 0.5, 0.5 },
  { GQ_OP_RECIP, r_recip, -1e30, 1e30, 0.5, 0.5 },
};

static uint64_t state = 1;
static double unit(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 11) * 0x1p-53;
}
/* Uniform, or uniform in the exponent. */
static double draw(double lo, double hi, int i) {
  if (i % 3) return lo + (hi - lo) * unit();
  double big = fabs(lo) > fabs(hi) ? fabs(lo) : fabs(hi);
  double x = big * exp(-unit() * 200);
  return lo < 0 && i % 2 ? -x : x;
}

/* Error in ulps of the type (24 or 53 bits, smallest exponent that of its denormals). */
static double ulps(long double got, long double want, int bits, int least) {
  if (got == want || (got != got && want != want)) return 0;
  if (isinf(got) || isinf(want) || got != got || want != want) return INFINITY;
  int e;
  frexpl(want, &e);
  if (e < least) e = least;
  return (double)(fabsl(got - want) / ldexpl(1, e - bits));
}

enum { N = 6007 }; /* not a multiple of any vector */

static void test_f32(const gq_kernels *k, const row *r) {
  static float x[N], y[N];
  double worst = 0, at = 0;
  for (int i = 0; i < N; i++) x[i] = (float)draw(r->lo, r->hi, i);
  k->op[r->op][GQ_F32][GQ_VV](y, x, NULL, NULL, N);
  for (int i = 0; i < N; i++) {
    long double want = r->f(x[i]);
    if (fabsl(want) >= (long double)FLT_MAX * (1 + 0x1p-25L)) want = copysignl(INFINITY, want);
    double e = ulps(y[i], want, 24, -125);
    if (e > worst) worst = e, at = x[i];
  }
  if (getenv("VERBOSE")) printf("%-9s %-9s float32 %8.3f at %.9g\n", k->name, gq_ops[r->op].name, worst, at);
  check(worst <= r->ulp32, k->name, gq_ops[r->op].name, "float32 error above its limit at", at);
}

static void test_f64(const gq_kernels *k, const row *r) {
  static double x[N], y[N];
  double worst = 0, at = 0;
  for (int i = 0; i < N; i++) x[i] = draw(r->lo, r->hi, i);
  k->op[r->op][GQ_F64][GQ_VV](y, x, NULL, NULL, N);
  for (int i = 0; i < N; i++) {
    long double want = r->f(x[i]);
    if (fabsl(want) > (long double)DBL_MAX) want = copysignl(INFINITY, want);
    double e = ulps(y[i], want, 53, -1021);
    if (e > worst) worst = e, at = x[i];
  }
  if (getenv("VERBOSE")) printf("%-9s %-9s float64 %8.3f at %.17g\n", k->name, gq_ops[r->op].name, worst, at);
  check(worst <= r->ulp64 + 0.01, k->name, gq_ops[r->op].name, "float64 error above its limit at", at);
}

static bool same(long double a, long double b) { return a == b || (a != a && b != b); }

/* Infinities, NaN, zeros with their sign, denormals, 1 and what overflows. */
static void test_special(const gq_kernels *k, const row *r) {
  static const double special[] = { 0.0,   -0.0,   INFINITY, -INFINITY, NAN,  1,    -1,     700,  -700,
                                    1e-40, -1e-40, 5e-324,   100,       -100, 88.8, -103.9, 3e38, -3e38 };
  enum { M = sizeof special / sizeof *special };
  float x[M], y[M];
  double p[M], q[M];
  for (int i = 0; i < M; i++) x[i] = (float)special[i], p[i] = special[i];
  k->op[r->op][GQ_F32][GQ_VV](y, x, NULL, NULL, M);
  k->op[r->op][GQ_F64][GQ_VV](q, p, NULL, NULL, M);
  for (int i = 0; i < M; i++) {
    long double w32 = r->f(x[i]), w64 = r->f(p[i]);
    if (fabsl(w32) > (long double)FLT_MAX) w32 = copysignl(INFINITY, w32);
    if (fabsl(w64) > (long double)DBL_MAX) w64 = copysignl(INFINITY, w64);
    bool ok32 = same(y[i], w32) || ulps(y[i], w32, 24, -125) <= r->ulp32 + 0.5;
    bool ok64 = same(q[i], w64) || ulps(q[i], w64, 53, -1021) <= r->ulp64 + 0.5;
    bool sign =
      !(w32 == 0 && r->op != GQ_OP_RELU) || signbit(y[i]) == signbit((float)w32) || fabs(special[i]) > 1;
    check(ok32 && sign, k->name, gq_ops[r->op].name, "float32 special value", special[i]);
    check(ok64, k->name, gq_ops[r->op].name, "float64 special value", special[i]);
  }
}

/* The same number gives the same bits at every place and length. */
static void test_places(const gq_kernels *k, gq_op op) {
  float x[67], y[67], one;
  bool ok = true;
  for (int i = 0; i < 67; i++) x[i] = (float)(unit() * 4 - 1.5);
  k->op[op][GQ_F32][GQ_VV](y, x, NULL, NULL, 67);
  for (int i = 0; i < 67; i++) {
    k->op[op][GQ_F32][GQ_VV](&one, &x[i], NULL, NULL, 1);
    ok = ok && memcmp(&one, &y[i], sizeof one) == 0;
  }
  check(ok, k->name, gq_ops[op].name, "depends on the place in a vector", 0);
}

/* ---- two operands: vectors and single numbers, in place ---- */

static double two(gq_op op, double x, double y) {
  switch (op) {
    case GQ_OP_ADD: return x + y;
    case GQ_OP_SUB: return x - y;
    case GQ_OP_MUL: return x * y;
    case GQ_OP_DIV: return x / y;
    case GQ_OP_POW: return pow(x, y);
    case GQ_OP_FLOOR_DIVIDE: return floor(x / y);
    case GQ_OP_REMAINDER: return x - floor(x / y) * y;
    case GQ_OP_MAXIMUM: return x != x || y != y ? NAN : x > y ? x : y;
    case GQ_OP_MINIMUM: return x != x || y != y ? NAN : x < y ? x : y;
    case GQ_OP_LT: return x < y;
    case GQ_OP_LE: return x <= y;
    case GQ_OP_GT: return x > y;
    case GQ_OP_GE: return x >= y;
    case GQ_OP_EQ: return x == y;
    default: return x != y;
  }
}

static void test_binary(const gq_kernels *k, gq_op op) {
  enum { M = 61 };
  float x[M], y[M], z[M] = { 0 };
  uint8_t b[M] = { 0 };
  bool compares = gq_ops[op].kind == GQ_K_COMPARE;
  for (int form = GQ_VV; form <= GQ_VS; form++) {
    double worst = 0;
    for (int i = 0; i < M; i++) {
      x[i] = (float)(unit() * 6 - (op == GQ_OP_POW ? 0 : 3));
      y[i] = i % 5 == 0 ? x[i] : (float)(unit() * 6 - 3);
      if (i % 11 == 7) y[i] = NAN;
      if (i % 13 == 5) x[i] = op == GQ_OP_POW ? INFINITY : NAN;
    }
    if (form == GQ_SV) x[0] = 1.25f;
    if (form == GQ_VS) y[0] = 0.75f;
    k->op[op][GQ_F32][form](compares ? (void *)b : z, x, y, NULL, M);
    for (int i = 0; i < M; i++) {
      double u = x[form == GQ_SV ? 0 : i], v = y[form == GQ_VS ? 0 : i], want = (float)two(op, u, v);
      double e = compares ? fabs(b[i] - want) * 100 : ulps(z[i], want, 24, -125);
      if (e > worst) worst = e;
    }
    check(worst <= (op == GQ_OP_POW ? 1 : 0), k->name, gq_ops[op].name, "two operands, form", form);
  }
}

static void test_muladd(const gq_kernels *k) {
  enum { M = 45 };
  double x[M], y[M], z[M], s = 0.3;
  for (int form = 0; form < GQ_NMADD; form++) {
    bool ok = true;
    for (int i = 0; i < M; i++) x[i] = unit(), y[i] = unit();
    k->madd[GQ_F64][form](z, x, y, &s, M);
    for (int i = 0; i < M; i++) {
      volatile double p = x[i] * s; /* rounded, as by two operations */
      ok = ok && z[i] == (form == GQ_MADD ? y[i] + p : form == GQ_MRSUB ? y[i] - p : p - y[i]);
    }
    check(ok, k->name, "multiply-add", "differs from two operations", form);
  }
}

/* The same as one product and sum after the other, whatever the length, and in place. */
#define TEST_COMBINE(D, T)                                                                            \
  static void test_combine_##T(const gq_kernels *k) {                                                 \
    enum { N = 75, K = 6 };                                                                           \
    T x[K][N], y[N], out[N + 1], s[K];                                                                \
    const void *at[K] = { x[0], x[1], x[2], x[3], x[4], x[5] };                                       \
    for (int i = 0; i < K; i++) {                                                                     \
      s[i] = (T)(unit() - 0.5);                                                                       \
      for (int j = 0; j < N; j++) x[i][j] = (T)unit(), y[j] = (T)unit();                              \
    }                                                                                                 \
    for (size_t n = 0; n <= N; n++)                                                                   \
      for (int c = 0; c < 4 * K; c++) {                                                               \
        bool from = c & 1, place = c & 2, ok = true;                                                  \
        int terms = c / 4 + 1;                                                                        \
        if (place) memcpy(out, from ? y : x[0], sizeof y), at[0] = from ? (const void *)x[0] : out;   \
        out[n] = 7;                                                                                   \
        k->combine[D](n, terms, s, at, !from ? NULL : place ? out : y, out);                          \
        at[0] = x[0];                                                                                 \
        for (size_t j = 0; j < n; j++) {                                                              \
          volatile T sum = from ? y[j] : x[0][j] * s[0];                                              \
          for (int i = from ? 0 : 1; i < terms; i++) {                                                \
            volatile T product = x[i][j] * s[i];                                                      \
            sum = sum + product;                                                                      \
          }                                                                                           \
          ok = ok && out[j] == sum;                                                                   \
        }                                                                                             \
        check(ok &&out[n] == 7, k->name, "combine", "differs from sums of products, n =", (double)n); \
      }                                                                                               \
  }
TEST_COMBINE(GQ_F32, float)
TEST_COMBINE(GQ_F64, double)

static void test_sums(const gq_kernels *k) {
  for (size_t n = 0; n < 300; n += 1 + n / 7) {
    static float x[300];
    double acc[300] = { 0 }, want = 0;
    for (size_t i = 0; i < n; i++) want += x[i] = (float)(unit() - 0.5);
    check(fabs(k->sum[GQ_F32](x, n) - want) < 1e-12, k->name, "sum", "wrong for n =", (double)n);
    k->colsum[GQ_F32](acc, x, n / 20, 20, 20);
    for (size_t i = 0; i < n / 20 * 20; i++) acc[i % 20] -= x[i];
    bool ok = true;
    for (int j = 0; j < 20; j++) ok = ok && fabs(acc[j]) < 1e-12;
    check(ok, k->name, "column sum", "wrong for n =", (double)n);
  }
}

/* ---- products: whatever way is chosen gives the sums ---- */

static double number(gq_dtype d, const void *x, int64_t i) {
  return d == GQ_F32 ? ((const float *)x)[i] : ((const double *)x)[i];
}

static void *random_matrix(gq_dtype d, int64_t n) {
  void *x = malloc((size_t)(n + 1) * gq_dtype_size(d));
  for (int64_t i = 0; i < n; i++)
    if (d == GQ_F32) ((float *)x)[i] = (float)(2 * unit() - 1);
    else ((double *)x)[i] = 2 * unit() - 1;
  return x;
}

/* flags: GQ_TA, GQ_TB; 4: added to c; 8: a column, every third number of an array */
static bool product_holds(gq_dtype d, int64_t m, int64_t n, int64_t k, int flags) {
  gq_layout a = gq_layout_of(flags & GQ_TA ? gq_shape_of(2, (int64_t[]){ k, m })
                                           : gq_shape_of(2, (int64_t[]){ m, k }),
                             NULL),
            b = gq_layout_of(flags & GQ_TB ? gq_shape_of(2, (int64_t[]){ n, k })
                                           : gq_shape_of(2, (int64_t[]){ k, n }),
                             NULL);
  gq_gemm g;
  int pack;
  bool ok = gq_gemm_plan(&g, d, &a, &b, 3, flags & (GQ_TA | GQ_TB), &pack) == GQ_OK && !pack;
  void *x = random_matrix(d, m * k), *y = random_matrix(d, k * n), *z = random_matrix(d, m * n),
       *column = random_matrix(d, 3 * m), *before = malloc((size_t)(m * n + 1) * gq_dtype_size(d));
  memcpy(before, z, (size_t)(m * n) * gq_dtype_size(d));
  ok &= gq_gemm_run(&g, x, y, flags & 8 ? column : NULL, z, flags & 4) == GQ_OK;
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum =
        (flags & 4 ? number(d, before, i * n + j) : 0) + (flags & 8 ? number(d, column, 3 * i) : 0);
      for (int64_t q = 0; q < k; q++)
        sum += number(d, x, flags & GQ_TA ? q * m + i : i * k + q) *
               number(d, y, flags & GQ_TB ? j * k + q : q * n + j);
      ok &= fabs(number(d, z, i * n + j) - sum) <= (d == GQ_F32 ? 4e-7 : 1e-15) * (double)(k + 4);
    }
  free(x), free(y), free(z), free(column), free(before);
  return ok;
}

/* Is a row of few the same as one of many, bit for bit? n rows of b, q numbers each. */
static bool row_stays(gq_dtype d, int64_t n, int64_t q, bool add) {
  enum { MANY = 7 };
  size_t size = gq_dtype_size(d);
  gq_layout b = gq_layout_of(gq_shape_of(2, (int64_t[]){ n, q }), NULL);
  void *x = random_matrix(d, MANY * q), *y = random_matrix(d, n * q), *column = random_matrix(d, 2 * MANY),
       *many = random_matrix(d, MANY * n), *few = malloc((size_t)(MANY * n) * size);
  bool ok = true;
  for (int64_t m = MANY; m > 0; m--) {
    gq_layout a = gq_layout_of(gq_shape_of(2, (int64_t[]){ m, q }), NULL);
    gq_gemm g;
    int pack;
    if (m == 1) continue; /* one row is summed in another way */
    memset(few, 0, (size_t)(MANY * n) * size);
    if (m == MANY) memset(many, 0, (size_t)(MANY * n) * size);
    ok &= gq_gemm_plan(&g, d, &a, &b, 2, GQ_TB, &pack) == GQ_OK && !pack;
    ok &= gq_gemm_run(&g, x, y, column, m == MANY ? many : few, add) == GQ_OK;
    ok &= m == MANY || memcmp(few, many, (size_t)(m * n) * size) == 0;
  }
  free(x), free(y), free(column), free(many), free(few);
  return ok;
}

static void test_products(const gq_kernels *k) {
  static const int64_t sizes[] = { 1,  2,  3,  4,  5,  7,  8,  9,   15,  16, 23,
                                   24, 25, 32, 33, 48, 50, 63, 100, 130, 257 };
  enum { N = sizeof sizes / sizeof *sizes };
  gq_cpu_use(k);
  for (int i = 0; i < 1500; i++) {
    int64_t m = sizes[(int)(unit() * N)], n = sizes[(int)(unit() * N)], q = sizes[(int)(unit() * N)];
    check(product_holds(unit() < 0.7 ? GQ_F32 : GQ_F64, m, n, q, i % 16), k->name, "product", "wrong, flags",
          i % 16);
  }
  for (int flags = 0; flags < 16; flags++) /* few rows with a large matrix, and what threads share */
    for (int d = 0; d < 2; d++) {
      check(product_holds(d ? GQ_F64 : GQ_F32, 3, 1100, 260, flags), k->name, "product of few rows",
            "wrong, flags", flags);
      check(product_holds(d ? GQ_F64 : GQ_F32, 203, 90, 70, flags), k->name, "shared product", "wrong, flags",
            flags);
    }
  gq_cpu_use(NULL);
}

static void test_small_products(const gq_kernels *k) {
  gq_cpu_use(k);
  for (int64_t n = 3; n < 20; n++)
    for (int64_t q = 1; q <= 8; q++)
      for (int flags = 0; flags < 16; flags++) {
        gq_dtype d = flags & 1 ? GQ_F32 : GQ_F64;
        check(product_holds(d, 1 + (n + q) % 3, n, q, flags), k->name, "small product", "wrong, flags",
              flags);
        check(row_stays(d, n, q, flags & 4), k->name, "row of a product", "hangs on how many there are",
              flags);
      }
  gq_cpu_use(NULL);
}

static void test_duo(const gq_kernels *k) {
  float x[77], plus[77], sigm[77] = { 0 }, p[77], s[77];
  for (int i = 0; i < 77; i++) x[i] = (float)(unit() * 240 - 120);
  k->duo[GQ_F32](plus, x, sigm, NULL, 77);
  k->op[GQ_OP_SOFTPLUS][GQ_F32][GQ_VV](p, x, NULL, NULL, 77);
  k->op[GQ_OP_SIGMOID][GQ_F32][GQ_VV](s, x, NULL, NULL, 77);
  check(memcmp(plus, p, sizeof p) == 0 && memcmp(sigm, s, sizeof s) == 0, k->name, "softplus with sigmoid",
        "differs from the two", 0);
}

static void test_fall(const gq_kernels *k) {
  double x[77], fall[77], three[77];
  for (int d = 0; d < 2; d++) {
    for (int i = 0; i < 77; i++)
      if (d == GQ_F32) ((float *)x)[i] = i ? (float)exp(unit() * 200 - 100) : 0;
      else x[i] = i ? exp(unit() * 1400 - 700) : 0;
    k->fall[d](fall, x, NULL, NULL, 77);
    k->op[GQ_OP_NEG][d][GQ_VV](three, x, NULL, NULL, 77);
    k->op[GQ_OP_EXPM1][d][GQ_VV](three, three, NULL, NULL, 77);
    k->op[GQ_OP_NEG][d][GQ_VV](three, three, NULL, NULL, 77);
    check(memcmp(fall, three, 77 * gq_dtype_size(d)) == 0, k->name, "sigmoid by softplus",
          "differs from three operations", d);
  }
}

/* x_l - sum_j a[j][l] J_j' x_j = b_l; in lane 3 the first pivot is zero. */
static void test_collocate(const gq_kernels *k, size_t n, size_t dim) {
  enum { MOST = 64 };
  static double j[MOST * 8 * GQ_LANES], m[MOST * (MOST + 1) * GQ_LANES], x[MOST * GQ_LANES],
    b[MOST * GQ_LANES];
  double a[64], y[8 * GQ_LANES], worst = 0;
  size_t size = n * dim;
  for (size_t i = 0; i < n * n; i++) a[i] = unit() * 0.3;
  for (size_t i = 0; i < size * dim * GQ_LANES; i++) j[i] = 2 * unit() - 1;
  for (size_t i = 0; i < size * GQ_LANES; i++) x[i] = b[i] = unit();
  if (size > 1) j[3] = 1 / a[0];
  for (size_t i = 0; i < dim * GQ_LANES; i++) y[i] = 1;
  k->collocate(n, dim, a, j, m, x, y);
#define AT(l, i, lane) (((l)*dim + (i)) * GQ_LANES + (lane))
#define JACOBIAN(q, i, k, lane) j[(((q)*dim + (i)) * dim + (k)) * GQ_LANES + (lane)]
  for (size_t lane = 0; lane < GQ_LANES; lane++)
    for (size_t i = 0; i < dim; i++) {
      double sum = 1;
      for (size_t q = 0; q < n; q++) {
        double rest = x[AT(q, i, lane)] - b[AT(q, i, lane)];
        for (size_t p = 0; p < n; p++)
          for (size_t c = 0; c < dim; c++) rest -= a[p * n + q] * JACOBIAN(p, c, i, lane) * x[AT(p, c, lane)];
        for (size_t c = 0; c < dim; c++) sum += JACOBIAN(q, c, i, lane) * x[AT(q, c, lane)];
        worst = fmax(worst, fabs(rest));
      }
      worst = fmax(worst, fabs(sum - y[AT(0, i, lane)]));
    }
#undef AT
#undef JACOBIAN
  check(worst < 1e-10, k->name, "collocate", "residual", worst);
}

static void test_kernels(const gq_kernels *k) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const row *r = &rows[i];
    if (fabs(r->lo) < 700 || r->lo > -1e9) test_f32(k, r);
    test_f64(k, r);
    test_special(k, r);
    test_places(k, r->op);
  }
  for (int op = GQ_OP_ADD; op <= GQ_OP_NE; op++) test_binary(k, (gq_op)op);
  test_muladd(k);
  test_combine_float(k);
  test_combine_double(k);
  test_sums(k);
  test_fall(k);
  test_duo(k);
  test_products(k);
  for (size_t n = 1; n <= 8; n++)
    for (size_t dim = 1; dim <= 8; dim++) test_collocate(k, n, dim);
}

int main(void) {
  static const char *const names[] = { "portable", "avx2", "avx512" };
  for (int i = 0; i < 3; i++) {
    const gq_kernels *k = gq_cpu_find(names[i]);
    if (k) test_kernels(k);
  }
  for (int i = 0; i < 3; i++) {
    const gq_kernels *k = gq_cpu_find(names[i]);
    if (k) test_small_products(k);
  }
  check(gq_cpu_find("mmx") == NULL && strcmp(gq_cpu()->name, gq_cpu_kernels()) == 0, "dispatch", "find", "",
        0);
  return DONE();
}
