/*
** move.c -- the operations that pick or add by index.
*/
#include "cpu.h"

#include <string.h>

/* ---- by index ---- */

/* INDEX_SELECT, INDEX_ADD, GATHER, SCATTER_ADD */
typedef struct by_index {
  gq_op op;
  gq_dtype dtype;
  int64_t outer, n, count, inner; /* of the long side: outer x n x inner; count: entries along axis */
  gq_layout index, big;           /* GATHER and SCATTER_ADD: shape of idx, and of the long side */
  int axis;
} by_index;

static bool adds(gq_op op) { return op == GQ_OP_INDEX_ADD || op == GQ_OP_SCATTER_ADD; }

static by_index by_index_of(const gq_indexing *i) {
  const gq_shape *big = adds(i->op) ? &i->attr.shape : &i->in[0];
  by_index p = { .op = i->op, .dtype = i->dtype, .axis = i->attr.axis, .count = gq_numel(i->in[1]) };
  gq_shape_around(big, p.axis, &p.outer, &p.n, &p.inner);
  p.index = gq_layout_of(i->in[1], NULL);
  p.big = gq_layout_of(*big, NULL);
  return p;
}

static int bad_index(const by_index *p, int64_t index, int64_t position) {
  return gq_fail(GQ_EINDEX, "%s: index %lld at position %lld is outside 1..%lld", gq_ops[p->op].name,
                 (long long)index, (long long)position + 1, (long long)p->n);
}

static int check(const by_index *p, const int64_t *idx) {
  for (int64_t i = 0; i < p->count; i++)
    if (idx[i] < 1 || idx[i] > p->n) return bad_index(p, idx[i], i);
  return GQ_OK;
}

#define ADD(T) \
  for (int64_t i = 0; i < n; i++) ((T *)dst)[i] += ((const T *)src)[i]

static void add_line(gq_dtype d, void *dst, const void *src, int64_t n) {
  if (d == GQ_F32) ADD(float);
  else if (d == GQ_F64) ADD(double);
  else if (d == GQ_I64) ADD(uint64_t);
  else
    for (int64_t i = 0; i < n; i++) ((uint8_t *)dst)[i] |= ((const uint8_t *)src)[i];
}

/* Lines of one number. */
#define SINGLES(T)                                                  \
  for (int64_t o = 0; o < p->outer; o++) {                          \
    int64_t far = o * p->n - 1, near = o * p->count;                \
    const T *from = (const T *)x + (adds(p->op) ? near : far);      \
    T *to = (T *)out + (adds(p->op) ? far : near);                  \
    if (adds(p->op))                                                \
      for (int64_t i = 0; i < p->count; i++) to[idx[i]] += from[i]; \
    else                                                            \
      for (int64_t i = 0; i < p->count; i++) to[i] = from[idx[i]];  \
  }

static void by_single(const by_index *p, const void *x, const int64_t *idx, void *out) {
  if (p->dtype == GQ_F32) SINGLES(float)
  else if (p->dtype == GQ_F64) SINGLES(double)
  else SINGLES(uint64_t)
}

/* x and out: outer x (n or count) x inner */
static void by_line(const by_index *p, const char *x, const int64_t *idx, char *out) {
  int64_t size = (int64_t)gq_dtype_size(p->dtype), line = p->inner * size;
  if (p->inner == 1 && p->dtype != GQ_BOOL) {
    by_single(p, x, idx, out);
    return;
  }
  for (int64_t o = 0; o < p->outer; o++)
    for (int64_t i = 0; i < p->count; i++) {
      int64_t far = (o * p->n + idx[i] - 1) * line, near = (o * p->count + i) * line;
      if (p->op == GQ_OP_INDEX_SELECT) memcpy(out + near, x + far, (size_t)line);
      else add_line(p->dtype, out + far, x + near, p->inner);
    }
}

static void by_number(const by_index *p, const char *x, const int64_t *idx, char *out) {
  int64_t size = (int64_t)gq_dtype_size(p->dtype);
  for (int64_t i = 0; i < p->count; i++) {
    int64_t far = 0, rest = i;
    for (int k = p->index.ndim - 1; k >= 0; k--) {
      far += (k == p->axis ? idx[i] - 1 : rest % p->index.dim[k]) * p->big.stride[k];
      rest /= p->index.dim[k];
    }
    if (p->op == GQ_OP_GATHER) memcpy(out + i * size, x + far * size, (size_t)size);
    else add_line(p->dtype, out + far * size, x + i * size, 1);
  }
}

static int run_index(const gq_indexing *i, const void *const *in, void *out) {
  by_index p = by_index_of(i);
  GQ_TRY(check(&p, in[1]));
  if (adds(p.op)) memset(out, 0, (size_t)(p.outer * p.n * p.inner) * gq_dtype_size(p.dtype));
  if (p.op == GQ_OP_INDEX_SELECT || p.op == GQ_OP_INDEX_ADD) by_line(&p, in[0], in[1], out);
  else by_number(&p, in[0], in[1], out);
  return GQ_OK;
}

/* ---- windows ---- */

/* One window's number for all windows of the last dim: a line of `count` pieces of `inner` numbers. */
static void add_windows(gq_dtype d, char *to, const char *from, int64_t count, int64_t step, int64_t inner) {
  int64_t size = (int64_t)gq_dtype_size(d);
  if (step == 1) add_line(d, to, from, count * inner);
  else
    for (int64_t i = 0; i < count; i++)
      add_line(d, to + i * step * inner * size, from + i * inner * size, inner);
}

/* One outer part: over the places of a window and, within, over the windows. */
static void add_part(gq_dtype d, const gq_windows *w, const char *from, char *to) {
  int64_t places = 1, lines = 1, size = (int64_t)gq_dtype_size(d), last = w->n - 1, at = 0;
  for (int i = 0; i < w->n; i++) places *= w->k[i];
  for (int i = 0; i < last; i++) lines *= w->count[i];
  for (int64_t t = 0; t < places * lines; t++) {
    int64_t k = t / lines, c = t % lines, off = 0, run = w->inner;
    for (int i = (int)last; i >= 0; i--) {
      off += k % w->k[i] * w->apart[i] * run;
      k /= w->k[i];
      if (i < last) off += c % w->count[i] * w->step[i] * run, c /= w->count[i];
      run *= w->size[i];
    }
    add_windows(d, to + off * size, from + at * size, w->count[last], w->step[last], w->inner);
    at += w->count[last] * w->inner;
  }
}

static int run_window_add(const gq_indexing *p, const void *const *in, void *out) {
  gq_windows w = gq_windows_of(p);
  int64_t part = (int64_t)gq_dtype_size(p->dtype) * w.inner, all = part; /* bytes */
  for (int i = 0; i < w.n; i++) part *= w.k[i] * w.count[i], all *= w.size[i];
  memset(out, 0, (size_t)(w.outer * all));
  for (int64_t o = 0; o < w.outer && part; o++)
    add_part(p->dtype, &w, (const char *)in[0] + o * part, (char *)out + o * all);
  return GQ_OK;
}

/* ---- the table ---- */

static int (*const kernels[GQ_NOP])(const gq_indexing *p, const void *const *in, void *out) = {
  [GQ_OP_INDEX_SELECT] = run_index, [GQ_OP_INDEX_ADD] = run_index,       [GQ_OP_GATHER] = run_index,
  [GQ_OP_SCATTER_ADD] = run_index,  [GQ_OP_WINDOW_ADD] = run_window_add,
};

int gq_indexing_run(const gq_indexing *p, const void *const *in, void *out) {
  if (!kernels[p->op]) return gq_fail(GQ_EUNSUPPORTED, "%s has no kernel on the CPU", gq_ops[p->op].name);
  return kernels[p->op](p, in, out);
}
