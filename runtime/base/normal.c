/*
** normal.c -- normal numbers as a function of key, stream and index: Philox4x32-10, then Box and
** Muller (1958). Plain loops over short arrays that compilers vectorise, with logarithm, sine and
** cosine of their own (fdlibm's kernels, Sun 1993): much faster than libm, and the same bits on
** every machine and with every instruction set.
*/
#include "base.h"

#include <math.h>
#include <string.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#if defined(__OPTIMIZE__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-trapping-math") /* vectorise; no result changes */
#endif

enum { PAIRS = 64 }; /* made at a time */

typedef uint64_t uint64_x2 __attribute__((vector_size(16))), uint64_x4 __attribute__((vector_size(32))),
  uint64_x8 __attribute__((vector_size(64)));

static inline uint64_t bits_of(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline double of_bits(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* 52 bits of the lower halves at the middle of their cell, in (0, 1); exact. */
static inline double uniform(uint64_t lo, uint64_t hi) {
  uint64_t bits = hi << 32 | (lo & 0xffffffffu);
  return of_bits(0x3ff0000000000000u | bits >> 12) - 1 + 0x1p-53;
}

/* log of a normal x < 2 (fdlibm e_log.c): x = 2^e (1 + f) with 1 + f in [sqrt 1/2, sqrt 2),
** log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)), s = f / (2 + f). */
static inline double logarithm(double x) {
  const uint64_t half = 0x3fe6a09e667f3bcdu;               /* sqrt 1/2 */
  uint64_t u = bits_of(x) - half + ((uint64_t)1023 << 52); /* exponent e + 1023, not below 0 */
  double e = of_bits(0x4330000000000000u | u >> 52) - (0x1p52 + 1023);
  double f = of_bits((u & 0xfffffffffffffu) + half) - 1;
  double s = f / (2 + f), z = s * s, w = z * z, h = 0.5 * f * f;
  double even =
    w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  double odd =
    z * (6.666666666666735130e-01 +
         w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  return e * 6.93147180369123816490e-01 - ((h - (s * (h + even + odd) + e * 1.90821492927058770002e-10)) - f);
}

/* cos and sin of 2 pi v for v in (0, 1): a quadrant, and fdlibm's k_sin.c and k_cos.c on the rest. */
static inline void circle(double v, double *cosine, double *sine) {
  double shifted = 4 * v + 0x1.8p52; /* rounds to an integer, in the low bits */
  uint64_t q = bits_of(shifted);
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
  uint64_t swap = -(q & 1), sb = bits_of(s), cb = bits_of(c), mixed = (sb ^ cb) & swap;
  const uint64_t sign = 1ull << 63;
  *cosine = of_bits(cb ^ mixed ^ ((q + 1) << 62 & sign)); /* quadrants 1 and 2: negative */
  *sine = of_bits(sb ^ mixed ^ (q << 62 & sign));         /* quadrants 2 and 3 */
}

/* Words of Philox: a word a lane of 64 bits, of which the upper half is anything. */
typedef struct words {
  uint64_t w[4][PAIRS];
} words;

static inline __attribute__((always_inline)) void make_pairs(const words *x, double *out) {
  double r[PAIRS];
  for (int i = 0; i < PAIRS; i++) r[i] = sqrt(-2 * logarithm(uniform(x->w[0][i], x->w[1][i])));
  for (int i = 0; i < PAIRS; i++) {
    double c, s;
    circle(uniform(x->w[2][i], x->w[3][i]), &c, &s);
    out[2 * i] = r[i] * c;
    out[2 * i + 1] = r[i] * s;
  }
}

/* Pairs block .. block + PAIRS - 1 of a stream (Philox: Salmon et al., SC 2011, 2.2), by a product of lower halves. Two
** vectors at a time: one waits for its products while the other has its turn. */
#define PAIRS_BY(name, target, lanes, product)                                                         \
  target static void name(gq_key key, uint64_t stream, uint64_t block, double *out) {                  \
    enum { WIDE = sizeof(lanes) / sizeof(uint64_t) };                                                  \
    const lanes zero = { 0 }, m0 = zero + 0xd2511f53u, m1 = zero + 0xcd9e8d57u;                        \
    lanes count = zero;                                                                                \
    words x;                                                                                           \
    for (int j = 0; j < WIDE; j++) count[j] = block + (uint64_t)j;                                     \
    for (int i = 0; i < PAIRS; i += 2 * WIDE) {                                                        \
      lanes u0 = count, v0 = count + WIDE, u1 = u0 >> 32, v1 = v0 >> 32, u2 = zero + (uint32_t)stream, \
            v2 = u2, u3 = zero + (stream >> 32), v3 = u3;                                              \
      uint32_t k0 = key.k[0], k1 = key.k[1];                                                           \
      for (int round = 0; round < 10; round++, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {                 \
        lanes a = product(u0, m0), b = product(u2, m1), c = product(v0, m0), d = product(v2, m1);      \
        u0 = b >> 32 ^ u1 ^ (zero + k0), u1 = b, u2 = a >> 32 ^ u3 ^ (zero + k1), u3 = a;              \
        v0 = d >> 32 ^ v1 ^ (zero + k0), v1 = d, v2 = c >> 32 ^ v3 ^ (zero + k1), v3 = c;              \
      }                                                                                                \
      const lanes all[4][2] = { { u0, v0 }, { u1, v1 }, { u2, v2 }, { u3, v3 } };                      \
      for (int j = 0; j < 4; j++) memcpy(&x.w[j][i], all[j], sizeof all[j]);                           \
      count += 2 * WIDE;                                                                               \
    }                                                                                                  \
    make_pairs(&x, out);                                                                               \
  }

#define LOWER(x, y) (((x)&0xffffffffu) * (y))
PAIRS_BY(pairs_plain, , uint64_x2, LOWER)

typedef void pairs(gq_key key, uint64_t stream, uint64_t block, double *out);

#if defined(__x86_64__) && defined(__GNUC__)
#define AVX2 __attribute__((target("avx2")))
#define LOWER_AVX2(x, y) ((uint64_x4)_mm256_mul_epu32((__m256i)(x), (__m256i)(y)))
PAIRS_BY(pairs_avx2, AVX2, uint64_x4, LOWER_AVX2)

#ifdef __clang__
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl")))
#else
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512")))
#endif
#define LOWER_AVX512(x, y) ((uint64_x8)_mm512_mul_epu32((__m512i)(x), (__m512i)(y)))
PAIRS_BY(pairs_avx512, AVX512, uint64_x8, LOWER_AVX512)

static pairs *choose(void) {
  if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return pairs_avx512;
  return __builtin_cpu_supports("avx2") ? pairs_avx2 : pairs_plain;
}
#else
static pairs *choose(void) { return pairs_plain; }
#endif

void gq_random_normal(gq_key key, uint64_t stream, uint64_t first, size_t n, double *out) {
  pairs *make = choose();
  double some[2 * PAIRS];
  size_t done = 0, skip = first % 2;
  for (uint64_t block = first / 2; done < n; block += PAIRS, skip = 0) {
    size_t take = 2 * PAIRS - skip < n - done ? 2 * PAIRS - skip : n - done;
    bool direct = take == 2 * PAIRS;
    make(key, stream, block, direct ? out + done : some);
    if (!direct) memcpy(out + done, some + skip, take * sizeof *out);
    done += take;
  }
}
