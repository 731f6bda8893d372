/*
** tile.c -- a phase of a program as one kernel: each block runs all of it, instruction after instruction, for a slice of
** the batch. What an instruction is stays as it is elsewhere (kernels.h, group.c); its numbers are constants here, its
** addresses come from a table with a row for each block, and instructions that differ in addresses alone are one function.
*/
#include "cuda.h"

#include <stdio.h>
#include <string.h>

typedef struct tile {
  const gq_program *p;
  int phase, n;
  const int *used;
  gq_text t, body;
  int *which; /* groups */
  int nregion;
  gq_text *region; /* [ninstr] the functions' texts without names */
  int nparts;
  gq_part part[64];
} tile;

static bool same(const gq_part *a, const gq_part *b) {
  return a->kind == b->kind && a->d == b->d && a->size == b->size && a->few == b->few &&
         (a->kind != GQ_PART_REDUCE || a->op == b->op);
}

static int number_of(const tile *x, const gq_part *p) {
  for (int i = 0; i < x->nparts; i++)
    if (same(&x->part[i], p)) return i;
  return -1;
}

static int add_part(tile *x, const gq_part *p) {
  bool first = true;
  if (number_of(x, p) >= 0) return GQ_OK;
  if (x->nparts == 64) return gq_fail(GQ_EUNSUPPORTED, "cuda: a program of too many kinds of instructions");
  for (int i = 0; i < x->nparts; i++)
    first = first && strcmp(gq_cuda_part_args(&x->part[i]), gq_cuda_part_args(p)) != 0;
  gq_cuda_part(&x->t, p, x->nparts, first);
  x->part[x->nparts++] = *p;
  return GQ_OK;
}

static void put_address(tile *x, const gq_loc *l) {
  int want = l->kind == LOC_IN ? l->index : x->p->nin + l->index, k = 0;
  if (l->kind == LOC_ARENA) k = x->n + GQ_TILE_ARENA;
  else if (l->kind == LOC_CONST) k = x->n + GQ_TILE_CONSTANT;
  else
    while (x->used[k] != want) k++;
  gq_text_put(&x->body, "at[%d] + %zuULL", k, l->offset);
}

/* ---- regions: functions of addresses ---- */

static void put_parameters(gq_text *t, int n, const char *type) {
  for (int k = 0; k < n; k++) gq_text_put(t, "%s%sp%d", k ? ", " : "", type, k);
}

/* The number of the function with this text, which is new or known. */
static int region_of(tile *x, gq_text *t, int *number) {
  if (t->failed) return gq_nomem(t->room);
  for (*number = 0; *number < x->nregion; (*number)++)
    if (strcmp(x->region[*number].s, t->s) == 0) {
      gq_free(t->s);
      return GQ_OK;
    }
  x->region[x->nregion++] = *t;
  gq_text_put(&x->t, "GQ_REGION void r%d", *number);
  gq_cuda_append(&x->t, t->s);
  return GQ_OK;
}

static void begin_region(gq_text *t, int np, const char *type) {
  gq_text_put(t, "(");
  put_parameters(t, np, "gq_u64 ");
  gq_text_put(t, ") {\n  const %s q = { { ", type);
  put_parameters(t, np, "");
  gq_text_put(t, " }");
}

/* Constants are in the text. */
static int put_group(tile *x, int i) {
  const gq_instr *in = &x->p->instr[i];
  gq_text t = { 0 };
  char type[24];
  int number;
  snprintf(type, sizeof type, "g%d_of", x->which[i]);
  begin_region(&t, in->nloc, type);
  gq_text_put(&t, " };\n  g%d(q);\n}\n", x->which[i]);
  GQ_TRY(region_of(x, &t, &number));
  gq_text_put(&x->body, "  r%d(", number);
  for (int l = 0; l < in->nloc; l++) {
    gq_text_put(&x->body, "%s", l ? ", " : "");
    if (in->loc[l].kind == LOC_NONE || in->loc[l].kind == LOC_CONST) gq_text_put(&x->body, "0");
    else put_address(x, &in->loc[l]);
  }
  gq_text_put(&x->body, ");\n  GQ_SYNC\n");
  return GQ_OK;
}

static void put_zero(tile *x, const gq_loc *l, size_t bytes) {
  size_t size = bytes % 4 ? 1 : 4;
  gq_text_put(&x->body, "  { const gq_u64 to = ");
  put_address(x, l);
  gq_text_put(&x->body, "; GQ_EACH(i, %zu) ((%s *)GQ_AT(to))[i] = 0; }\n  GQ_SYNC\n", bytes / size,
              size == 4 ? "unsigned" : "unsigned char");
}

/* The rest of its arguments are numbers: 8 bytes each. */
static int put_part(tile *x, int i, const gq_launch *l, int flag) {
  const gq_instr *in = &x->p->instr[i];
  gq_text t = { 0 };
  char type[32];
  int number;
  snprintf(type, sizeof type, "gq_%s", gq_cuda_part_args(&l->part));
  begin_region(&t, l->np, type);
  for (size_t k = (size_t)l->np; k < l->bytes / 8; k++)
    gq_text_put(&t, ", %lldLL", ((const long long *)l->args)[k]);
  gq_text_put(&t, " };\n  ");
  gq_cuda_part_call(&t, &l->part, number_of(x, &l->part));
  gq_text_put(&t, "(q);\n}\n");
  GQ_TRY(region_of(x, &t, &number));
  gq_text_put(&x->body, "  r%d(", number);
  for (int k = 0; k < l->np; k++) {
    gq_text_put(&x->body, "%s", k ? ", " : "");
    if (k < in->nloc) put_address(x, &in->loc[k]);
    else if (in->kind == INSTR_INDEX)
      gq_text_put(&x->body, "at[%d] + %d", x->n + GQ_TILE_FLAGS, 8 * (flag % GQ_FLAGS));
    else gq_text_put(&x->body, "0");
  }
  gq_text_put(&x->body, ");\n  GQ_SYNC\n");
  return GQ_OK;
}

static int put_all(tile *x, const gq_launch *const *l, const size_t *zero, const int *flag) {
  int from = x->p->phase[x->phase], to = x->p->phase[x->phase + 1];
  gq_text_put(&x->t, "#define GQ_TILED\n");
  gq_cuda_text(&x->t, "", (const char *[]){ "layout", NULL });
  GQ_TRY(gq_cuda_groups(x->p, &x->t, x->which));
  for (int i = from; i < to; i++)
    if (l[i]->blocks) GQ_TRY(add_part(x, &l[i]->part));
  for (int i = from; i < to; i++) {
    if (zero[i]) put_zero(x, &x->p->instr[i].loc[0], zero[i]);
    if (x->p->instr[i].kind == INSTR_GROUP) GQ_TRY(put_group(x, i));
    else if (l[i]->blocks) GQ_TRY(put_part(x, i, l[i], flag[i]));
  }
  gq_text_put(&x->t, "typedef struct tile_of { gq_u64 p[1]; } tile_of;\nGQ_ENTRY(tile, tile_of) {\n");
  gq_text_put(&x->t, "  const gq_u64 *at = (const gq_u64 *)GQ_AT(a.p[0]) + GQ_TILE * %d;\n",
              x->n + GQ_TILE_MORE);
  if (x->body.s) gq_cuda_append(&x->t, x->body.s);
  gq_text_put(&x->t, "}\n");
  return x->t.failed || x->body.failed ? gq_nomem(x->t.room) : GQ_OK;
}

int gq_cuda_tile(const gq_program *p, int phase, int n, const int *used, const gq_launch *const *l,
                 const size_t *zero, const int *flag, gq_cufunction *f) {
  tile x = { .p = p, .phase = phase, .n = n, .used = used };
  x.which = gq_calloc((size_t)p->ninstr + 1, sizeof *x.which);
  x.region = gq_calloc((size_t)p->ninstr + 1, sizeof *x.region);
  int status =
    x.which && x.region ? put_all(&x, l, zero, flag) : gq_nomem((size_t)p->ninstr * sizeof *x.which);
  if (status == GQ_OK) status = gq_cuda_kernel(x.t.s, "tile", f);
  for (int i = 0; i < x.nregion; i++) gq_free(x.region[i].s);
  gq_free(x.region);
  gq_free(x.which);
  gq_free(x.body.s);
  gq_free(x.t.s);
  return status;
}
