/*
** kept.c -- accepted steps kept by engines that need them, reused from solve to solve.
*/
#include "plan.h"

#include <string.h>

void gq_kept_free(gq_kept *r) {
  while (r) {
    gq_kept *before = r->before;
    for (int s = 0; s < GQ_MAXSLICES; s++) gq_free(r->arena[s]);
    gq_free(r->block);
    gq_free(r->slope);
    gq_free(r);
    r = before;
  }
}

static int record_new(const gq_plan *p, bool slopes, bool arenas, size_t *bytes, gq_kept **out) {
  const gq_field *f = p->field;
  gq_kept *r = gq_calloc(1, sizeof *r);
  if (!r) return gq_nomem(sizeof *r);
  size_t part = gq_round64(gq_part_bytes(f)), arena = gq_code_arena(&p->forward.code) + 64;
  int n = slopes ? p->forward.m->slopes : 0;
  int whole = 2 + p->forward.l.extra;
  r->block = gq_alloc((whole + n) * part + 64);
  r->slope = gq_calloc(n + 1, sizeof *r->slope);
  bool ok = r->block && r->slope;
  for (int s = 0; ok && arenas && s < f->nslices; s++) ok = (r->arena[s] = gq_alloc(arena)) != NULL;
  if (!ok) {
    gq_kept_free(r);
    return gq_nomem((whole + n) * part + (arenas ? f->nslices * arena : 0));
  }
  r->y = r->block, r->f = (char *)r->block + part;
  if (p->forward.l.extra) r->x = (char *)r->block + 2 * part;
  for (int i = 0; i < n; i++) r->slope[i] = (char *)r->block + (whole + i) * part;
  *bytes += (whole + n) * part + (arenas ? f->nslices * arena : 0);
  *out = r;
  return GQ_OK;
}

int gq_kept_get(gq_plan *p, bool slopes, bool arenas, size_t *bytes, gq_kept **out) {
  if (!p->spare) return record_new(p, slopes, arenas, bytes, out);
  *out = p->spare; /* a plan's records are all of one kind */
  p->spare = p->spare->before;
  p->nspare--;
  (*out)->before = NULL;
  size_t part = gq_round64(gq_part_bytes(p->field));
  *bytes += (2 + p->forward.l.extra + (slopes ? p->forward.m->slopes : 0)) * part +
            (arenas ? p->field->nslices * (gq_code_arena(&p->forward.code) + 64) : 0);
  return GQ_OK;
}

/* As many are kept as one solve needs: a collector that frees many solves at once would otherwise turn
** all of them into spare memory, and count that as alive. */
void gq_kept_give_back(gq_plan *p, gq_kept *list) {
  int n = 0;
  for (const gq_kept *r = list; r; r = r->before) n++;
  if (n > p->most) p->most = n;
  while (list && p->nspare < p->most) {
    gq_kept *before = list->before;
    list->before = p->spare;
    p->spare = list;
    p->nspare++;
    list = before;
  }
  gq_kept_free(list);
}
