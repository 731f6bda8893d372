/*
** memory.c -- the memory plan. What a later phase reads, and KEEP outputs, have space of their own
** for the life of the arena; the rest share, by intervals of units: first fit among those alive.
*/
#include "compile.h"

static size_t align(size_t bytes) { return (bytes + 63) / 64 * 64; }

static size_t bytes_of(const gq_compiler *c, gq_ref r) {
  const gq_node *n = node_of(c, r);
  return align((size_t)gq_numel(n->shape) * gq_dtype_size(n->dtype));
}

static void read_by(gq_compiler *c, gq_ref node, int unit) {
  gq_info_root *root = &c->info[c->view[node].root];
  if (root->last < unit) root->last = unit;
  if (c->unit[unit].phase > root->phase) root->lasting = true;
}

static void find_last_reads(gq_compiler *c) {
  for (int u = 0; u < c->nunit; u++) {
    const gq_unit *unit = &c->unit[u];
    for (int k = 0; k < unit->count; k++) {
      const gq_node *n = node_of(c, c->order[unit->first + k]);
      for (int i = 0; i < n->nargs; i++) read_by(c, n->args[i], u);
    }
    if (unit->kind == UNIT_COPY || unit->kind == UNIT_ACCUMULATE) read_by(c, c->outs[unit->output].ref, u);
  }
}

static int take_constants(gq_compiler *c) {
  int count = 0;
  c->p->constant = gq_pooled(&c->p->own, (size_t)c->n + 1, sizeof *c->p->constant);
  GQ_TRY(gq_pool_status(&c->p->own));
  for (int r = 0; r < c->n; r++) {
    const gq_node *n = node_of(c, r);
    gq_loc *home = &c->info[r].home;
    if (class_of(c, r) != GQ_LEAF) continue;
    if (n->op == GQ_OP_INPUT) {
      *home = (gq_loc){ .kind = LOC_IN, .index = n->attr.axis };
      continue;
    }
    if (n->op != GQ_OP_CONST) return gq_fail(GQ_EUNSUPPORTED, "%s cannot be compiled", gq_ops[n->op].name);
    void *at = &c->p->constant[count];
    *home = (gq_loc){ .kind = LOC_CONST, .offset = (size_t)count++ * sizeof(double) };
    if (n->dtype == GQ_F32) *(float *)at = (float)n->attr.x;
    else if (n->dtype == GQ_F64) *(double *)at = n->attr.x;
    else if (n->dtype == GQ_I64) *(int64_t *)at = (int64_t)n->attr.x;
    else *(uint8_t *)at = n->attr.x != 0;
  }
  return GQ_OK;
}

/* Read outside its own group, or wanted by an output? */
static bool needs_storage(const gq_compiler *c, gq_ref r) {
  const gq_info_root *i = &c->info[r];
  return gq_computed(c, r) && i->unit >= 0 &&
         (i->lasting || i->last > i->unit || i->home.kind == LOC_ARENA) && i->home.kind != LOC_OUT;
}

static bool grow(size_t *top, size_t bytes, size_t *at) {
  *at = *top;
  return gq_size_add(*top, bytes, top);
}

static int too_large(void) { return gq_fail(GQ_ENOMEM, "the program's arena does not fit in memory"); }

static int place_lasting(gq_compiler *c, size_t *top) {
  for (int r = 0; r < c->n; r++)
    if (needs_storage(c, r) && c->info[r].lasting) {
      c->info[r].home = (gq_loc){ .kind = LOC_ARENA };
      if (!grow(top, bytes_of(c, r), &c->info[r].home.offset)) return too_large();
    }
  for (int i = 0; i < c->nout; i++)
    if (c->outs[i].mode == GQ_KEEP && !c->direct[i]) {
      c->keep[i] = (gq_loc){ .kind = LOC_ARENA };
      if (!grow(top, bytes_of(c, c->outs[i].ref), &c->keep[i].offset)) return too_large();
    }
  return GQ_OK;
}

/* ---- sharing: blocks in use, sorted by place ---- */

typedef struct block {
  size_t at, bytes;
  int last; /* unit after which it is free */
} block;

static void release(block *b, int *n, int unit) {
  int k = 0;
  for (int i = 0; i < *n; i++)
    if (b[i].last >= unit) b[k++] = b[i];
  *n = k;
}

static size_t first_fit(block *b, int *n, size_t from, size_t bytes, int last) {
  size_t at = from;
  int i = 0;
  for (; i < *n && b[i].at - at < bytes; i++) at = b[i].at + b[i].bytes;
  for (int k = (*n)++; k > i; k--) b[k] = b[k - 1];
  b[i] = (block){ at, bytes, last };
  return at;
}

/* From `from` on; *top: the highest byte any unit uses. */
static int place_shared(gq_compiler *c, size_t from, size_t *top) {
  int n = 0;
  block *b = gq_pooled(&c->own, (size_t)c->norder + 1, sizeof *b);
  GQ_TRY(gq_pool_status(&c->own));
  *top = from;
  for (int k = 0; k < c->norder; k++) {
    gq_ref r = c->order[k];
    gq_info_root *info = &c->info[r];
    if (!needs_storage(c, r) || info->lasting) continue;
    release(b, &n, info->unit);
    size_t at = bytes_of(c, r) ? first_fit(b, &n, from, bytes_of(c, r), info->last) : from;
    info->home = (gq_loc){ .kind = LOC_ARENA, .offset = at };
    if (at + bytes_of(c, r) > *top) *top = at + bytes_of(c, r);
  }
  return GQ_OK;
}

static void tell_outputs(gq_compiler *c) {
  for (int i = 0; i < c->nout; i++) {
    const gq_view *v = &c->view[c->outs[i].ref];
    if (c->outs[i].mode != GQ_KEEP) continue;
    c->p->out[i] = c->direct[i] ? c->info[v->root].home : c->keep[i];
    if (c->direct[i]) c->p->out[i].offset += (size_t)v->offset * gq_dtype_size(node_of(c, v->root)->dtype);
  }
}

int gq_pass_plan(gq_compiler *c) {
  find_last_reads(c);
  GQ_TRY(take_constants(c));
  GQ_TRY(place_lasting(c, &c->p->lasting));
  GQ_TRY(place_shared(c, c->p->lasting, &c->p->values));
  tell_outputs(c);
  return GQ_OK;
}
