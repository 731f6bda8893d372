/*
** flags.c -- where an index was outside: a word for each indexing of a phase, looked at when the phase is over.
*/
#include "cuda.h"

static uint64_t *words; /* [GQ_FLAGS] of the device */

static int clear(void) { return gq_cuda_set(words, 0xff, GQ_FLAGS * sizeof *words); }

int gq_cuda_flag(int i, void **at) {
  if (!words) {
    words = gq_cuda_allocate(GQ_FLAGS * sizeof *words);
    if (!words) return gq_nomem(GQ_FLAGS * sizeof *words);
    GQ_TRY(clear());
  }
  *at = words + i % GQ_FLAGS;
  return GQ_OK;
}

int gq_cuda_flagged(int n, int *which, int64_t *position) {
  uint64_t seen[GQ_FLAGS];
  *which = -1;
  if (n > GQ_FLAGS) n = GQ_FLAGS;
  GQ_TRY(gq_cuda_get(seen, words, (size_t)n * sizeof *seen));
  for (int i = 0; i < n && *which < 0; i++)
    if (seen[i] != UINT64_MAX) *which = i, *position = (int64_t)seen[i];
  return *which < 0 ? GQ_OK : clear();
}

int gq_cuda_outside(const gq_indexing *p, const void *idx, int64_t position) {
  const gq_shape *s = gq_cuda_long_side(p);
  int64_t index;
  GQ_TRY(gq_cuda_get(&index, (const int64_t *)idx + position, sizeof index));
  return gq_fail(GQ_EINDEX, "%s: index %lld at position %lld is outside 1..%lld", gq_core->ops[p->op].name,
                 (long long)index, (long long)position + 1, (long long)(s->ndim ? s->dim[p->attr.axis] : 1));
}
