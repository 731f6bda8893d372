/*
** normal.h -- pairs of normal numbers from words of Philox: Box and Muller (1958), with logarithm, sine and cosine from
** fdlibm's kernels (Sun 1993). Plain C99, nothing called but sqrt, branch-free: normal.c's loops vectorise, and kernels
** take it as it stands.
*/
#ifndef GQ_NORMAL_H
#define GQ_NORMAL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t gq_bits_of(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline double gq_of_bits(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* 52 bits of the lower halves at the middle of their cell, in (0, 1); exact. */
static inline double gq_normal_uniform(uint64_t lo, uint64_t hi) {
  uint64_t bits = hi << 32 | (lo & 0xffffffffu);
  return gq_of_bits(0x3ff0000000000000u | bits >> 12) - 1 + 0x1p-53;
}

/* log of a normal x < 2 (fdlibm e_log.c): x = 2^e (1 + f) with 1 + f in [sqrt 1/2, sqrt 2),
** log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)), s = f / (2 + f). */
static inline double gq_normal_log(double x) {
  const uint64_t half = 0x3fe6a09e667f3bcdu;               /* sqrt 1/2 */
  uint64_t u = gq_bits_of(x) - half + ((uint64_t)1023 << 52); /* exponent e + 1023, not below 0 */
  double e = gq_of_bits(0x4330000000000000u | u >> 52) - (0x1p52 + 1023);
  double f = gq_of_bits((u & 0xfffffffffffffu) + half) - 1;
  double s = f / (2 + f), z = s * s, w = z * z, h = 0.5 * f * f;
  double even =
    w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  double odd =
    z * (6.666666666666735130e-01 +
         w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  return e * 6.93147180369123816490e-01 - ((h - (s * (h + even + odd) + e * 1.90821492927058770002e-10)) - f);
}

/* The length of a pair of normals, from two words. */
static inline double gq_normal_radius(uint64_t lo, uint64_t hi) { return sqrt(-2 * gq_normal_log(gq_normal_uniform(lo, hi))); }

/* And its direction: cos and sin of 2 pi v for v in (0, 1), a quadrant, and fdlibm's k_sin.c and k_cos.c on the rest. */
static inline void gq_normal_circle(uint64_t lo, uint64_t hi, double *cosine, double *sine) {
  double v = gq_normal_uniform(lo, hi);
  double shifted = 4 * v + 0x1.8p52; /* rounds to an integer, in the low bits */
  uint64_t q = gq_bits_of(shifted);
  double x = (v - 0.25 * (shifted - 0x1.8p52)) * 6.283185307179586476925, z = x * x;
  double s = x + x * z *
                   (-1.66666666666666324348e-01 +
                    z * (8.33333333332248946124e-03 +
                         z * (-1.98412698298579493134e-04 +
                              z * (2.75573137070700676789e-06 +
                                   z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
  double c =
    1 - (0.5 * z - z * z *
                     (4.16666666666666019037e-02 +
                      z * (-1.38888888888741095749e-03 +
                           z * (2.48015872894767294178e-05 +
                                z * (-2.75573143513906633035e-07 +
                                     z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))))));
  uint64_t swap = -(q & 1), sb = gq_bits_of(s), cb = gq_bits_of(c), mixed = (sb ^ cb) & swap;
  const uint64_t sign = 1ull << 63;
  *cosine = gq_of_bits(cb ^ mixed ^ ((q + 1) << 62 & sign)); /* quadrants 1 and 2: negative */
  *sine = gq_of_bits(sb ^ mixed ^ (q << 62 & sign));         /* quadrants 2 and 3 */
}

#endif
