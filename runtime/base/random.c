/*
** random.c -- noise as a function of a key and a counter: Philox4x32-10 (Salmon, Moraes, Dror
** and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), from Random123's header.
** A number depends on (key, stream, index) alone, never on the order or the thread that asks.
** Normal numbers are in normal.c.
*/
#include "base.h"

#include <Random123/philox.h>

void gq_philox(const uint32_t ctr[4], gq_key key, uint32_t out[4]) {
  philox4x32_ctr_t c = { { ctr[0], ctr[1], ctr[2], ctr[3] } };
  philox4x32_key_t k = { { key.k[0], key.k[1] } };
  philox4x32_ctr_t r = philox4x32(c, k);
  for (int i = 0; i < 4; i++) out[i] = r.v[i];
}

/* Seed and purpose together are 96 bits, a key 64: Philox itself mixes them, so that streams for
** different purposes are unrelated even when users count their seeds 1, 2, 3. */
gq_key gq_key_make(uint64_t seed, uint32_t purpose) {
  const uint32_t ctr[4] = { (uint32_t)seed, (uint32_t)(seed >> 32), purpose, 0x67716c75u };
  uint32_t r[4];
  gq_philox(ctr, (gq_key){ { 0, 0 } }, r);
  return (gq_key){ { r[0], r[1] } };
}

/* Four words: block number `block` of a stream. */
static void words(gq_key key, uint64_t stream, uint64_t block, uint32_t out[4]) {
  const uint32_t ctr[4] = { (uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream,
                            (uint32_t)(stream >> 32) };
  gq_philox(ctr, key, out);
}

/* 52 bits at the middle of their cell: never 0, never 1, exact in a double. */
static double uniform(uint32_t lo, uint32_t hi) {
  uint64_t bits = (uint64_t)hi << 32 | lo;
  return ((double)(bits >> 12) + 0.5) * 0x1p-52;
}

static void uniform_pair(gq_key key, uint64_t stream, uint64_t block, double u[2]) {
  uint32_t w[4];
  words(key, stream, block, w);
  u[0] = uniform(w[0], w[1]);
  u[1] = uniform(w[2], w[3]);
}

/* Numbers first .. first + n - 1 of a sequence that is made two at a time. */
static void fill_pairs(gq_key key, uint64_t stream, uint64_t first, size_t n, double *out,
                       void (*make)(gq_key, uint64_t, uint64_t, double[2])) {
  size_t i = 0;
  while (i < n) {
    double pair[2];
    uint64_t at = first + i;
    make(key, stream, at / 2, pair);
    if (at % 2 == 0) out[i++] = pair[0];
    if (i < n) out[i++] = pair[1];
  }
}

void gq_random_uniform(gq_key key, uint64_t stream, uint64_t first, size_t n, double *out) {
  fill_pairs(key, stream, first, n, out, uniform_pair);
}

void gq_random_u32(gq_key key, uint64_t stream, uint64_t first, size_t n, uint32_t *out) {
  for (size_t i = 0; i < n;) {
    uint32_t w[4];
    words(key, stream, (first + i) / 4, w);
    for (uint64_t j = (first + i) % 4; j < 4 && i < n; j++) out[i++] = w[j];
  }
}
