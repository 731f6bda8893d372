/*
** bridge.h -- W(t) of a tree of Brownian bridges (sde/brownian.c, which tells what the tree is) for two components, by
** themselves: nothing is kept, so a device's threads ask where they are. The numbers are brownian.c's, bit for bit.
** Plain C99 like normal.h, of which kernels take it behind.
*/
#ifndef GQ_BRIDGE_H
#define GQ_BRIDGE_H

#include "normal.h"

typedef struct gq_bridge {
  double t0, t1;
  uint32_t key[2];
  int depth;
} gq_bridge;

/* Normals 2 pair and 2 pair + 1 of a stream: Philox4x32-10. */
static inline void gq_bridge_normals(const gq_bridge *b, uint64_t stream, uint64_t pair, double x[2]) {
  uint32_t c0 = (uint32_t)pair, c1 = (uint32_t)(pair >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
  uint32_t k0 = b->key[0], k1 = b->key[1];
  for (int round = 0; round < 10; round++) {
    uint64_t p = (uint64_t)0xd2511f53u * c0, q = (uint64_t)0xcd9e8d57u * c2;
    c0 = (uint32_t)(q >> 32) ^ c1 ^ k0, c1 = (uint32_t)q, c2 = (uint32_t)(p >> 32) ^ c3 ^ k1, c3 = (uint32_t)p;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  double r = gq_normal_radius(c0, c1);
  gq_normal_circle(c2, c3, &x[0], &x[1]);
  x[0] = r * x[0], x[1] = r * x[1];
}

/* Where t lies: the leaf, the place in it (0..1), and how many levels are above it; false: at the end. */
static inline int gq_bridge_locate(const gq_bridge *b, double t, uint64_t *leaf, double *part, int *levels) {
  double x = (t - b->t0) / (b->t1 - b->t0);
  if (x >= 1) return 0;
  x = ldexp(x, b->depth);
  *leaf = (uint64_t)x;
  *part = x - (double)*leaf;
  *levels = b->depth;
  if (*part == 0) /* a dyadic time: the last level whose middle it is */
    while (*levels && !(*leaf >> (b->depth - *levels) & 1)) --*levels;
  return 1;
}

/* w: W(t) - W(t0) of components 2 pair and 2 pair + 1. */
static inline void gq_bridge_value(const gq_bridge *b, uint64_t pair, double t, double w[2]) {
  double span = b->t1 - b->t0, sd = sqrt(span), lo[2] = { 0, 0 }, hi[2], part;
  uint64_t leaf;
  int levels;
  gq_bridge_normals(b, 0, pair, hi);
  for (int k = 0; k < 2; k++) w[k] = hi[k] = hi[k] * sd;
  if (!gq_bridge_locate(b, t, &leaf, &part, &levels)) return;
  for (int l = 0; l < levels; l++) {
    gq_bridge_normals(b, (uint64_t)1 << l | leaf >> (b->depth - l), pair, w);
    sd = 0.5 * sqrt(ldexp(span, -l));
    for (int k = 0; k < 2; k++) {
      w[k] = lo[k] + 0.5 * (hi[k] - lo[k]) + sd * w[k];
      if (leaf >> (b->depth - 1 - l) & 1) lo[k] = w[k];
      else hi[k] = w[k];
    }
  }
  sd = part > 0 ? sqrt(ldexp(span, -b->depth) * part * (1 - part)) : 0;
  if (sd > 0) gq_bridge_normals(b, (uint64_t)1 << b->depth | leaf, pair, w);
  for (int k = 0; k < 2; k++) w[k] = lo[k] + part * (hi[k] - lo[k]) + (sd > 0 ? sd * w[k] : 0);
}

#endif
