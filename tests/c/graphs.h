/*
** graphs.h -- what tests of operations and graphs share: numbers from a small generator, filled tensors, evaluation
** of a graph's nodes, comparison.
*/
#ifndef GQ_TEST_GRAPHS_H
#define GQ_TEST_GRAPHS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "runtime/ir/ir.h"
#include "runtime/exec/exec.h"

#define SHAPE(...) \
  gq_shape_of((int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), (int64_t[]){ __VA_ARGS__ })
#define SCALAR gq_shape_of(0, NULL)
#define REFS(...) ((gq_ref[]){ __VA_ARGS__ })

static uint64_t rnd_state = 1;

static inline uint32_t rnd(uint32_t n) {
  rnd_state = rnd_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(rnd_state >> 33) % n;
}
static inline double unit(void) { return (double)rnd(1 << 30) / (1 << 30) * 2 - 1; } /* [-1, 1) */

static inline void must(int status) {
  if (status == GQ_OK) return;
  printf("unexpected failure: %s\n", gq_message());
  exit(1);
}

static inline gq_tensor *tensor(gq_dtype d, gq_shape s) {
  gq_tensor *t;
  must(gq_tensor_new(d, s, &t));
  return t;
}

static inline double *numbers(gq_tensor *t) { return gq_tensor_data(t); }

/* float64, uniform in (low, high) */
static inline gq_tensor *random_tensor(gq_shape s, double low, double high) {
  gq_tensor *t = tensor(GQ_F64, s);
  for (int64_t i = 0; i < gq_numel(s); i++) numbers(t)[i] = low + (high - low) * (unit() + 1) / 2;
  return t;
}

/* int64 in 1..n */
static inline gq_tensor *random_indices(gq_shape s, int n) {
  gq_tensor *t = tensor(GQ_I64, s);
  for (int64_t i = 0; i < gq_numel(s); i++) ((int64_t *)gq_tensor_data(t))[i] = 1 + rnd((uint32_t)n);
  return t;
}

static inline gq_tensor *value_of(const gq_graph *g, gq_tensor *const *in, gq_ref r) {
  gq_tensor *t = NULL, *c = NULL;
  must(gq_graph_status(g));
  must(gq_evaluate(g, in, 1, &r, &t));
  must(gq_tensor_contiguous_get(t, &c));
  gq_tensor_unref(t);
  return c;
}

static inline double number_of(const gq_graph *g, gq_tensor *const *in, gq_ref r) {
  gq_tensor *t = value_of(g, in, r);
  double x = *numbers(t);
  gq_tensor_unref(t);
  return x;
}

static inline double number_at(gq_dtype d, const void *p, int64_t i) {
  switch (d) {
    case GQ_F32: return ((const float *)p)[i];
    case GQ_F64: return ((const double *)p)[i];
    case GQ_I64: return (double)((const int64_t *)p)[i];
    default: return ((const uint8_t *)p)[i];
  }
}

static inline double entry(const gq_tensor *t, int64_t i) { return number_at(t->dtype, gq_tensor_data(t), i); }

static inline bool close_to(double x, double y, double tol) {
  if (isnan(x) || isnan(y) || isinf(x) || isinf(y)) return (isnan(x) && isnan(y)) || x == y;
  return fabs(x - y) <= tol * (1 + fabs(x) + fabs(y));
}

/* Both contiguous. */
static inline bool close_tensors(const gq_tensor *a, const gq_tensor *b, double tol) {
  if (a->dtype != b->dtype || !gq_shape_equal(a->shape, b->shape)) return false;
  for (int64_t i = 0; i < gq_numel(a->shape); i++)
    if (!close_to(entry(a, i), entry(b, i), tol)) return false;
  return true;
}

/* `count` entries from `first` along `axis`, packed. */
static inline gq_tensor *cut(gq_tensor *t, int axis, int64_t first, int64_t count) {
  gq_attr attr = { .shape = t->shape };
  gq_tensor *v, *c;
  for (int i = 0; i < t->shape.ndim; i++) attr.step[i] = 1;
  attr.start[axis] = first;
  attr.shape.dim[axis] = count;
  must(gq_apply(GQ_OP_SLICE, 1, &t, &attr, &v));
  must(gq_tensor_contiguous_get(v, &c));
  gq_tensor_unref(v);
  return c;
}

static inline void unref_all(gq_tensor **t, int n) {
  for (int i = 0; i < n; i++) gq_tensor_unref(t[i]);
}

#endif
