/*
** vmath.h -- the functions that the formulas of ir/ops.def name: EXP(x), TANH(x), ...
** Each picks its type by _Generic, so one formula serves float32 and float64.
**
** They are branch-free, so that the loops of kernels.c vectorise: reduction of the argument by
** adding a large number (which rounds), scaling by writing exponent bits, a polynomial. The
** polynomials interpolate the function named beside them at Chebyshev points, computed with 113
** bits. Measured errors over the whole range, in units in the last place, are at most
**            exp expm1 log log1p tanh sigmoid softplus sin cos tan atan erf
**   float32    1.1  2   2    2    3      2.5      3      1   1   1   1    3
**   float64    1    2   2    2    3      2        2.5    2   2   libm (atan and erf too)
** (tests/c/kernels_test.c asserts them). sin, cos and tan hold for |x| <= 1e6; kernels.c sends
** larger arguments to libm.
*/
#ifndef GQ_VMATH_H
#define GQ_VMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Only where the instruction exists: as a library call it would be slow. */
#ifdef __FMA__
#define FMAS(x, y, z) __builtin_fmaf(x, y, z)
#define FMAD(x, y, z) __builtin_fma(x, y, z)
#else
#define FMAS(x, y, z) ((x) * (y) + (z))
#define FMAD(x, y, z) ((x) * (y) + (z))
#endif

static inline uint32_t bits_s(float x) { uint32_t u; memcpy(&u, &x, sizeof u); return u; }
static inline uint64_t bits_d(double x) { uint64_t u; memcpy(&u, &x, sizeof u); return u; }
static inline float float_of(uint32_t u) { float x; memcpy(&x, &u, sizeof x); return x; }
static inline double double_of(uint64_t u) { double x; memcpy(&x, &u, sizeof x); return x; }
static inline float copysign_s(float x, float s) { return float_of((bits_s(x) & 0x7fffffffu) | (bits_s(s) & 0x80000000u)); }
static inline double copysign_d(double x, double s) {
  return double_of((bits_d(x) & INT64_MAX) | (bits_d(s) & (uint64_t)INT64_MIN));
}

/* ---- float32: x = n log 2 + r, |r| <= log(2) / 2 ---- */

#define ROUND_S 0x1.8p23f   /* x + ROUND_S: the nearest integer is in the low bits */
#define LN2_HI_S 0x1.63p-1f /* n * LN2_HI_S is exact */
#define LN2_LO_S -0x1.bd0106p-13f

static inline float reduce_s(float x, uint32_t *n) {
  float t = FMAS(x, 0x1.715476p0f, ROUND_S), k = t - ROUND_S;
  *n = bits_s(t) - bits_s(ROUND_S);
  float r = FMAS(k, -LN2_HI_S, x);
  return FMAS(k, -LN2_LO_S, r);
}

/* The loops are bound by the chain of dependent operations, so that long polynomials are summed in
** pairs (Estrin), not one coefficient after the other. */

/* e^r - 1, from (e^r - 1 - r) / r^2 */
static inline float expm1_poly_s(float r) {
  float r2 = r * r, high = FMAS(0.00139261817f, r, 0.008363178f), low = FMAS(0.0416665561f, r, 0.166665763f);
  float q = FMAS(FMAS(high, r2, low), r, 0.5f);
  return FMAS(q, r2, r);
}

static inline float exp_s(float x) {
  uint32_t n;
  float y = x > 89 ? 89 : x;
  y = y < -104 ? -104 : y;
  float p = expm1_poly_s(reduce_s(y, &n)) + 1;
  uint32_t half = (uint32_t)((int32_t)n >> 1);   /* two factors: results may be denormal or infinite */
  return p * float_of((half + 127) << 23) * float_of((n - half + 127) << 23);
}

/* e^x for x <= 0 */
static inline float exp_falling_s(float x) {
  uint32_t n;
  float y = x < -104 ? -104 : x;
  float p = expm1_poly_s(reduce_s(y, &n)) + 1;
  return p * float_of((n + 127 + 24) << 23) * 0x1p-24f;
}

static inline float expm1_s(float x) {
  uint32_t n;
  float y = x > 89 ? 89 : x;
  y = y < -50 ? -50 : y;
  float p = expm1_poly_s(reduce_s(y, &n)), s = float_of((n + 126) << 23);   /* 2^(n-1) */
  float v = FMAS(s, p, s - 0.5f) * 2;
  return x == 0 ? x : v;
}

static inline float tanh_s(float x) {
  uint32_t n;
  float y = 2 * float_of(bits_s(x) & 0x7fffffffu);
  y = y > 20 ? 20 : y;
  float p = expm1_poly_s(reduce_s(y, &n)), s = float_of((n + 127) << 23);
  float m = FMAS(s, p, s - 1);   /* e^2|x| - 1 */
  return copysign_s(m / (m + 2), x);
}

/* log(1 + e) / e on [0, 1] */
static inline float log1p_ratio_s(float e) {
  float e2 = e * e, e4 = e2 * e2;
  float top = FMAS(FMAS(-0.00317605701f, e, 0.0195425265f), e2, FMAS(-0.0563736111f, e, 0.105436236f));
  float middle = FMAS(FMAS(-0.152696669f, e, 0.196632743f), e2, FMAS(-0.249516159f, e, 0.333297104f));
  return FMAS(FMAS(top, e4, middle), e2, FMAS(-0.499998927f, e, 1.0f));
}

static inline float softplus_of_s(float x, float e) { return FMAS(e, log1p_ratio_s(e), x > 0 ? x : 0); }
static inline float sigmoid_of_s(float x, float e) { return (x > 0 ? 1 : e) / (1 + e); }
static inline float fall_s(float x) { return exp_falling_s(-float_of(bits_s(x) & 0x7fffffffu)); }   /* e^-|x| */
static inline float softplus_s(float x) { return softplus_of_s(x, fall_s(x)); }
static inline float sigmoid_s(float x) { return sigmoid_of_s(x, fall_s(x)); }

/* (log(1 + f) - f + f^2 / 2) / f^3 for |f| <= 1/3 */
static inline float log_poly_s(float f) {
  float q = -0.121255808f;
  q = FMAS(q, f, 0.134257495f);
  q = FMAS(q, f, -0.123461902f);
  q = FMAS(q, f, 0.141183093f);
  q = FMAS(q, f, -0.166701406f);
  q = FMAS(q, f, 0.200037807f);
  q = FMAS(q, f, -0.249999881f);
  q = FMAS(q, f, 0.333333194f);
  return FMAS(f * f, FMAS(q, f, -0.5f), f);
}

/* u = 2^k m, 2/3 <= m < 4/3, for normal u > 0 */
static inline float split_s(float u, uint32_t *k) {
  *k = (uint32_t)((int32_t)(bits_s(u) - 0x3f2aaaabu) >> 23);
  return float_of(bits_s(u) - (*k << 23));
}

/* k log 2 + log(1 + f) */
static inline float log_join_s(float k, float f) {
  return FMAS(k, LN2_HI_S, FMAS(k, LN2_LO_S, log_poly_s(f)));
}

static inline float log_edge_s(float u, float y) {
  y = u == 0 ? -INFINITY : y;
  y = u < 0 ? NAN : y;
  return u < INFINITY ? y : u;   /* infinity, NaN */
}

static inline float log_s(float x) {
  uint32_t k;
  float m = split_s(x < 0x1p-126f ? x * 0x1p24f : x, &k);
  float n = (float)(int32_t)k - (x < 0x1p-126f ? 24 : 0);
  return log_edge_s(x, log_join_s(n, m - 1));
}

static inline float log1p_s(float x) {
  uint32_t k;
  float u = 1 + x, b = u - x, low = (x - (u - b)) + (1 - b);   /* u + low = 1 + x exactly */
  float m = split_s(u, &k), scale = x < 0x1p30f ? float_of((127 - k) << 23) : 0;
  float y = log_join_s((float)(int32_t)k, FMAS(low, scale, m - 1));
  return log_edge_s(u, x == 0 ? x : y);
}

/* erf(x) = x P(x^2) to 1, then 1 - exp(Q(x)), Q = log(erfc(x)); from 4 on it is 1 */
static inline float erf_s(float x) {
  float a = float_of(bits_s(x) & 0x7fffffffu), z = x * x;
  float p = 7.87587487e-05f;
  p = FMAS(p, z, -0.00080168643f);
  p = FMAS(p, z, 0.00518908724f);
  p = FMAS(p, z, -0.0268542115f);
  p = FMAS(p, z, 0.112835944f);
  p = FMAS(p, z, -0.37612626f);
  p = FMAS(p, z, 1.12837911f);
  float y = a > 4.0f ? 4.0f : a;
  float q = 1.60153729e-06f;
  q = FMAS(q, y, -4.53815737e-05f);
  q = FMAS(q, y, 0.000591340067f);
  q = FMAS(q, y, -0.00473510521f);
  q = FMAS(q, y, 0.0263546668f);
  q = FMAS(q, y, -0.109968327f);
  q = FMAS(q, y, -0.63193965f);
  q = FMAS(q, y, -1.13016963f);
  q = FMAS(q, y, 0.000304947927f);
  float big = copysign_s(1 - exp_falling_s(q), x);
  return a < 1 ? x * p : big;
}

/* ---- float64, the same ways ---- */

#define ROUND_D 0x1.8p52
#define LN2_HI_D 0x1.62e42feep-1
#define LN2_LO_D 0x1.a39ef35793c76p-33

static inline double reduce_d(double x, uint64_t *n) {
  double t = FMAD(x, 0x1.71547652b82fep0, ROUND_D), k = t - ROUND_D;
  *n = bits_d(t) - bits_d(ROUND_D);
  double r = FMAD(k, -LN2_HI_D, x);
  return FMAD(k, -LN2_LO_D, r);
}

static inline double expm1_poly_d(double r) {
  double q = 2.0914685161418067e-09;
  q = FMAD(q, r, 2.5105214474751413e-08);
  q = FMAD(q, r, 2.7557273647451087e-07);
  q = FMAD(q, r, 2.7557255406285044e-06);
  q = FMAD(q, r, 2.4801587325544321e-05);
  q = FMAD(q, r, 0.00019841269874815834);
  q = FMAD(q, r, 0.001388888888888375);
  q = FMAD(q, r, 0.0083333333333261358);
  q = FMAD(q, r, 0.041666666666666671);
  q = FMAD(q, r, 0.16666666666666671);
  q = FMAD(q, r, 0.5);
  return FMAD(q * r, r, r);
}

static inline double exp_d(double x) {
  uint64_t n;
  double y = x > 710 ? 710 : x;
  y = y < -746 ? -746 : y;
  double p = expm1_poly_d(reduce_d(y, &n)) + 1;
  uint64_t half = (uint64_t)((int32_t)(uint32_t)n >> 1);
  return p * double_of((half + 1023) << 52) * double_of((n - half + 1023) << 52);
}

static inline double exp_falling_d(double x) {
  uint64_t n;
  double y = x < -746 ? -746 : x;
  double p = expm1_poly_d(reduce_d(y, &n)) + 1;
  return p * double_of((n + 1023 + 64) << 52) * 0x1p-64;
}

static inline double expm1_d(double x) {
  uint64_t n;
  double y = x > 710 ? 710 : x;
  y = y < -100 ? -100 : y;
  double p = expm1_poly_d(reduce_d(y, &n)), s = double_of((n + 1022) << 52);
  double v = FMAD(s, p, s - 0.5) * 2;
  return x == 0 ? x : v;
}

static inline double tanh_d(double x) {
  uint64_t n;
  double y = 2 * double_of(bits_d(x) & INT64_MAX);
  y = y > 40 ? 40 : y;
  double p = expm1_poly_d(reduce_d(y, &n)), s = double_of((n + 1023) << 52);
  double m = FMAD(s, p, s - 1);
  return copysign_d(m / (m + 2), x);
}

static inline double log1p_ratio_d(double e) {
  double q = 2.4437973948580947e-05;
  q = FMAD(q, e, -0.00028274211393741072);
  q = FMAD(q, e, 0.0015535244034334333);
  q = FMAD(q, e, -0.0054217339910016095);
  q = FMAD(q, e, 0.013598778090617254);
  q = FMAD(q, e, -0.026398779480743217);
  q = FMAD(q, e, 0.041925709853904154);
  q = FMAD(q, e, -0.05718978534193906);
  q = FMAD(q, e, 0.070152962365264721);
  q = FMAD(q, e, -0.080709545784302061);
  q = FMAD(q, e, 0.090090958151986325);
  q = FMAD(q, e, -0.099797680965865679);
  q = FMAD(q, e, 0.11107211585299538);
  q = FMAD(q, e, -0.12499427063514382);
  q = FMAD(q, e, 0.14285651975275926);
  q = FMAD(q, e, -0.16666661848248537);
  q = FMAD(q, e, 0.19999999749856523);
  q = FMAD(q, e, -0.24999999992009522);
  q = FMAD(q, e, 0.33333333333197523);
  q = FMAD(q, e, -0.49999999999999079);
  return FMAD(q, e, 1.0);
}

static inline double softplus_of_d(double x, double e) { return FMAD(e, log1p_ratio_d(e), x > 0 ? x : 0); }
static inline double sigmoid_of_d(double x, double e) { return (x > 0 ? 1 : e) / (1 + e); }
static inline double fall_d(double x) { return exp_falling_d(-double_of(bits_d(x) & INT64_MAX)); }
static inline double softplus_d(double x) { return softplus_of_d(x, fall_d(x)); }
static inline double sigmoid_d(double x) { return sigmoid_of_d(x, fall_d(x)); }

static inline double log_poly_d(double f) {
  double q = 0.07870651879422455;
  q = FMAD(q, f, -0.082463321374564233);
  q = FMAD(q, f, 0.045058958054637471);
  q = FMAD(q, f, -0.047650256559680026);
  q = FMAD(q, f, 0.059785891023244171);
  q = FMAD(q, f, -0.063504489256171345);
  q = FMAD(q, f, 0.066595330054254095);
  q = FMAD(q, f, -0.071354118527464344);
  q = FMAD(q, f, 0.076926242619591176);
  q = FMAD(q, f, -0.083336637138105032);
  q = FMAD(q, f, 0.090909008854814219);
  q = FMAD(q, f, -0.09999991436909654);
  q = FMAD(q, f, 0.11111111225875057);
  q = FMAD(q, f, -0.12500000119763521);
  q = FMAD(q, f, 0.14285714284986772);
  q = FMAD(q, f, -0.1666666666590747);
  q = FMAD(q, f, 0.2000000000000135);
  q = FMAD(q, f, -0.2500000000000141);
  q = FMAD(q, f, 0.33333333333333331);
  return FMAD(f * f, FMAD(q, f, -0.5), f);
}

static inline double split_d(double u, uint64_t *k) {
  uint64_t d = bits_d(u) - 0x3fe5555555555555u;
  *k = ((d + (uint64_t)INT64_MIN) >> 52) - 2048;   /* d >> 52 with its sign */
  return double_of(bits_d(u) - (*k << 52));
}

static inline double log_join_d(double k, double f) {
  return FMAD(k, LN2_HI_D, FMAD(k, LN2_LO_D, log_poly_d(f)));
}

static inline double integer_d(uint64_t k) { return double_of(bits_d(ROUND_D) + k) - ROUND_D; }

static inline double log_edge_d(double u, double y) {
  y = u == 0 ? -INFINITY : y;
  y = u < 0 ? NAN : y;
  return u < INFINITY ? y : u;
}

static inline double log_d(double x) {
  uint64_t k;
  double m = split_d(x < 0x1p-1022 ? x * 0x1p54 : x, &k);
  double n = integer_d(k) - (x < 0x1p-1022 ? 54 : 0);
  return log_edge_d(x, log_join_d(n, m - 1));
}

static inline double log1p_d(double x) {
  uint64_t k;
  double u = 1 + x, b = u - x, low = (x - (u - b)) + (1 - b);
  double m = split_d(u, &k), scale = x < 0x1p60 ? double_of((1023 - k) << 52) : 0;
  double y = log_join_d(integer_d(k), FMAD(low, scale, m - 1));
  return log_edge_d(u, x == 0 ? x : y);
}

/* ---- sine and cosine, |x| <= TRIG_MAX, both types in double: x = n pi / 2 + r ---- */

#define TRIG_MAX 1e6
#define PIO2_HI 0x1.921fb544p0   /* n * PIO2_HI is exact */
#define PIO2_LO 0x1.0b4611a626331p-34

typedef struct trig { double sin, cos; uint64_t quadrant; } trig;

static inline double quarter(double x, uint64_t *n) {
  double t = FMAD(x, 0x1.45f306dc9c883p-1, ROUND_D), k = t - ROUND_D;
  *n = bits_d(t);
  double r = FMAD(k, -PIO2_HI, x);
  return FMAD(k, -PIO2_LO, r);
}

/* sin(r) and cos(r) to float32 accuracy */
static inline trig trig_s(float x) {
  trig v;
  double r = quarter(x, &v.quadrant), z = r * r;
  double s = FMAD(FMAD(FMAD(2.7248364773036666e-06, z, -0.00019840074665737465), z, 0.0083333318523109729), z,
                  -0.16666666663797544);
  double c = FMAD(FMAD(FMAD(-2.7299656316022867e-07, z, 2.4800590303711416e-05), z, -0.0013888887653322967), z,
                  0.04166666666427301);
  v.sin = FMAD(s * z, r, r);
  v.cos = FMAD(FMAD(c, z, -0.5), z, 1.0);
  return v;
}

static inline trig trig_d(double x) {
  trig v;
  double r = quarter(x, &v.quadrant), z = r * r;
  double s = -7.5863895547052151e-13, c = 4.7457009022696635e-14;
  s = FMAD(s, z, 1.6058526388142101e-10);
  s = FMAD(s, z, -2.5052106199361819e-08);
  s = FMAD(s, z, 2.7557319219243677e-06);
  s = FMAD(s, z, -0.00019841269841264941);
  s = FMAD(s, z, 0.0083333333333333315);
  s = FMAD(s, z, -0.16666666666666666);
  c = FMAD(c, z, -1.1470457979362019e-11);
  c = FMAD(c, z, 2.0876755772685472e-09);
  c = FMAD(c, z, -2.7557319221349731e-07);
  c = FMAD(c, z, 2.4801587301584578e-05);
  c = FMAD(c, z, -0.0013888888888888887);
  c = FMAD(c, z, 0.041666666666666664);
  double w = 1 - z / 2, lost = (1 - w) - z / 2;
  v.sin = FMAD(s * z, r, r);
  v.cos = w + FMAD(c * z, z, lost);
  return v;
}

/* Bit 0 of the quadrant exchanges the two, bit 1 changes the sign. */
static inline double turn(double even, double odd, uint64_t quadrant) {
  double y = quadrant & 1 ? odd : even;
  return double_of(bits_d(y) ^ (quadrant & 2) << 62);
}
static inline double sin_of(trig v) { return turn(v.sin, v.cos, v.quadrant); }
static inline double cos_of(trig v) { return turn(v.cos, v.sin, v.quadrant + (v.quadrant & 1) * 2); }

static inline float sin_s(float x) { return x == 0 ? x : (float)sin_of(trig_s(x)); }
static inline float cos_s(float x) { return (float)cos_of(trig_s(x)); }
static inline float tan_s(float x) {
  trig v = trig_s(x);
  double t = v.quadrant & 1 ? -v.cos / v.sin : v.sin / v.cos;
  return x == 0 ? x : (float)t;
}

/* atan(t) / t in t^2 on [0, 1], in double; beyond it is pi / 2 less that of 1 / x */
static inline float atan_s(float x) {
  double a = fabs((double)x), t = a > 1 ? 1 / a : a, z = t * t, q = 0.001057607438057242;
  q = FMAD(q, z, -0.007030669470424213);
  q = FMAD(q, z, 0.021912945865448393);
  q = FMAD(q, z, -0.04392841073326746);
  q = FMAD(q, z, 0.06685281517877424);
  q = FMAD(q, z, -0.08785043282362845);
  q = FMAD(q, z, 0.1105077127584966);
  q = FMAD(q, z, -0.14278576024807985);
  q = FMAD(q, z, 0.19999558100363982);
  q = FMAD(q, z, -0.33333322488911593);
  q = FMAD(q, z, 0.9999999995535376);
  double y = a > 1 ? 0x1.921fb54442d18p0 - q * t : q * t;
  return x == 0 ? x : copysign_s((float)y, x);
}
static inline double sin_d(double x) { return x == 0 ? x : sin_of(trig_d(x)); }
static inline double cos_d(double x) { return cos_of(trig_d(x)); }

/* Of y's sign (fmod's is x's); as in Lua, an infinite y leaves a small x of its own sign. */
static inline float remainder_s(float x, float y) {
  float m = fmodf(x, y);
  return (m > 0 ? y < 0 : m < 0 && y != m && y > 0) ? m + y : m;
}
static inline double remainder_d(double x, double y) {
  double m = fmod(x, y);
  return (m > 0 ? y < 0 : m < 0 && y != m && y > 0) ? m + y : m;
}

/* ---- by type ---- */

#ifdef __cplusplus /* a text of CUDA's kernels */
#define BY_TYPE(N, s, d) \
  static inline float N(float x) { return s(x); } \
  static inline double N(double x) { return d(x); }
BY_TYPE(EXP, exp_s, exp_d)
BY_TYPE(LOG, log_s, log_d)
BY_TYPE(LOG1P, log1p_s, log1p_d)
BY_TYPE(EXPM1, expm1_s, expm1_d)
BY_TYPE(SQRT, sqrtf, sqrt)
BY_TYPE(ABS, fabsf, fabs)
BY_TYPE(SIN, sin_s, sin_d)
BY_TYPE(COS, cos_s, cos_d)
BY_TYPE(TAN, tan_s, tan)
BY_TYPE(ATAN, atan_s, atan)
BY_TYPE(TANH, tanh_s, tanh_d)
BY_TYPE(SIGMOID, sigmoid_s, sigmoid_d)
BY_TYPE(SOFTPLUS, softplus_s, softplus_d)
BY_TYPE(ERF, erf_s, erf)
BY_TYPE(FLOOR, floorf, floor)
BY_TYPE(ROUND, rintf, rint)
static inline float POW(float x, float y) { return powf(x, y); }
static inline double POW(double x, double y) { return pow(x, y); }
static inline float REMAINDER(float x, float y) { return remainder_s(x, y); }
static inline double REMAINDER(double x, double y) { return remainder_d(x, y); }
#else
#define BY_TYPE(x, s, d) _Generic((x), float: s, double: d)
#define EXP(x) BY_TYPE(x, exp_s, exp_d)(x)
#define LOG(x) BY_TYPE(x, log_s, log_d)(x)
#define LOG1P(x) BY_TYPE(x, log1p_s, log1p_d)(x)
#define EXPM1(x) BY_TYPE(x, expm1_s, expm1_d)(x)
#define SQRT(x) BY_TYPE(x, sqrtf, sqrt)(x)
#define ABS(x) BY_TYPE(x, fabsf, fabs)(x)
#define SIN(x) BY_TYPE(x, sin_s, sin_d)(x)
#define COS(x) BY_TYPE(x, cos_s, cos_d)(x)
#define TAN(x) BY_TYPE(x, tan_s, tan)(x)
#define ATAN(x) BY_TYPE(x, atan_s, atan)(x)
#define TANH(x) BY_TYPE(x, tanh_s, tanh_d)(x)
#define SIGMOID(x) BY_TYPE(x, sigmoid_s, sigmoid_d)(x)
#define SOFTPLUS(x) BY_TYPE(x, softplus_s, softplus_d)(x)
#define ERF(x) BY_TYPE(x, erf_s, erf)(x)
#define POW(x, y) BY_TYPE(x, powf, pow)(x, y)
#define FLOOR(x) BY_TYPE(x, floorf, floor)(x)
#define ROUND(x) BY_TYPE(x, rintf, rint)(x)
#define REMAINDER(x, y) BY_TYPE(x, remainder_s, remainder_d)(x, y)
#endif
#define SIGN(x) ((x) > 0 ? 1 : (x) < 0 ? -1 : (x))   /* NaN stays */
#define MAXIMUM(x, y) ((x) > (y) || (x) != (x) ? (x) : (y))   /* NaN wins */
#define MINIMUM(x, y) ((x) < (y) || (x) != (x) ? (x) : (y))

#endif
