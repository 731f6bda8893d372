/*
** normal.c -- normal numbers as a function of key, stream and index: Philox4x32-10, then Box and
** Muller (1958). Plain loops over short arrays that compilers vectorise, with logarithm, sine and
** cosine of their own (normal.h): much faster than libm, and the same bits on every machine and with every
** instruction set.
*/
#include "base.h"

#include <string.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#if defined(__OPTIMIZE__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-trapping-math") /* vectorise; no result changes */
#endif

#include "normal.h"

enum { PAIRS = 64 }; /* made at a time */

typedef uint64_t uint64_x2 __attribute__((vector_size(16))), uint64_x4 __attribute__((vector_size(32))),
  uint64_x8 __attribute__((vector_size(64)));

/* Words of Philox: a word a lane of 64 bits, of which the upper half is anything. */
typedef struct words {
  uint64_t w[4][PAIRS];
} words;

static inline __attribute__((always_inline)) void make_pairs(const words *x, double *out) {
  double r[PAIRS];
  for (int i = 0; i < PAIRS; i++) r[i] = gq_normal_radius(x->w[0][i], x->w[1][i]);
  for (int i = 0; i < PAIRS; i++) {
    double c, s;
    gq_normal_circle(x->w[2][i], x->w[3][i], &c, &s);
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
