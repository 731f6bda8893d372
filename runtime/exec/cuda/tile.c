/*
** tile.c -- a phase of a program as one kernel: each block runs all of it, instruction after instruction, for a slice of
** the batch. What an instruction is stays as it is elsewhere (kernels.h, group.c); its numbers are constants here, and
** instructions that differ in addresses alone are one function. Values that no other phase reads, and inputs of products,
** are in the block's shared memory where they fit.
*/
#include "code.h"

#include <stdio.h>
#include <string.h>

typedef struct tile {
  const gq_program *p;
  const gq_cuda_code *code;
  int phase, n;
  bool flies; /* with a decision at its end */
  const int *used;
  bool near;      /* values that the phase alone meets are in shared memory, */
  size_t *staged; /* [n] and so is a copy of an input, from here on; FAR: not */
  size_t shared;
  gq_text t, body;
  int *which; /* groups */
  int nregion;
  gq_text *region; /* [ninstr] the functions' texts without names */
  int nparts;
  gq_part part[64];
} tile;

#define FAR SIZE_MAX

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

/* ---- where numbers are ---- */

static int operand_of(const tile *x, const gq_loc *l) {
  int want = l->kind == LOC_IN ? l->index : x->p->nin + l->index, k = 0;
  if (l->kind == LOC_ARENA) return x->n + GQ_TILE_ARENA;
  if (l->kind == LOC_CONST) return x->n + GQ_TILE_CONSTANT;
  while (x->used[k] != want) k++;
  return k;
}

/* Its offset in shared memory, or FAR. */
static size_t near_at(const tile *x, const gq_loc *l) {
  if (l->kind == LOC_ARENA) return x->near && l->offset >= x->p->lasting ? l->offset - x->p->lasting : FAR;
  size_t at = l->kind == LOC_IN ? x->staged[operand_of(x, l)] : FAR;
  return at == FAR ? FAR : at + l->offset;
}

static void put_address(tile *x, const gq_loc *l) {
  size_t at = near_at(x, l);
  if (at != FAR) gq_text_put(&x->body, "%zu", at);
  else gq_text_put(&x->body, "at%d + %zu", operand_of(x, l), l->offset);
}

/* Bytes that blocks have of their own in functions. */
static size_t fixed_bytes(const tile *x) {
  size_t n = 0;
  if (x->flies) n += (GQ_NT + 2 * 2) * sizeof(double) + 16; /* gq_land */
  for (int i = 0; i < x->nparts; i++)
    if (x->part[i].kind == GQ_PART_REDUCE && x->part[i].few)
      n += GQ_NT * (sizeof(double) + sizeof(long long));
  return n;
}

/* Values first, then what products read again and again, while there is room. */
static void place(tile *x) {
  size_t fixed = fixed_bytes(x), values = x->p->values - x->p->lasting;
  size_t room = gq_cuda.shared > fixed ? gq_cuda.shared - fixed : 0;
  x->near = values <= room;
  x->shared = x->near ? values : 0;
  for (int u = 0; u < x->n; u++) x->staged[u] = FAR;
  for (int i = x->p->phase[x->phase]; i < x->p->phase[x->phase + 1]; i++)
    for (int l = 1; x->p->instr[i].kind == INSTR_GEMM && l < x->p->instr[i].nloc; l++) {
      const gq_loc *at = &x->p->instr[i].loc[l];
      if (at->kind != LOC_IN) continue;
      int u = operand_of(x, at);
      size_t bytes = (x->p->bytes[x->used[u]] + 15) / 16 * 16;
      if (x->staged[u] != FAR || x->shared + bytes > room) continue;
      x->staged[u] = x->shared;
      x->shared += bytes;
    }
}

static void put_staging(tile *x) {
  bool any = false;
  for (int u = 0; u < x->n; u++) {
    if (x->staged[u] == FAR) continue;
    gq_text_put(&x->t,
                "  GQ_EACH(i, %zu) ((unsigned *)(gq_dynamic + %zu))[i] = ((const unsigned *)at%d)[i];\n",
                x->p->bytes[x->used[u]] / sizeof(unsigned), x->staged[u], u);
    any = true;
  }
  if (any) gq_text_put(&x->t, "  GQ_SYNC\n");
}

/* ---- regions: functions of addresses ---- */

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

/* What address k of an instruction is to its function. */
typedef enum passed { NOTHING, OFFSET, ADDRESS, FLAGS } passed;

/* Constants of groups are in the text. Addresses of shared memory are offsets there, so that the compiler knows that it
** is that. */
static passed passed_as(const tile *x, const gq_instr *in, int k) {
  if (k >= in->nloc) return in->kind == INSTR_INDEX ? FLAGS : NOTHING;
  if (in->loc[k].kind == LOC_NONE || (in->kind == INSTR_GROUP && in->loc[k].kind == LOC_CONST))
    return NOTHING;
  return near_at(x, &in->loc[k]) != FAR ? OFFSET : ADDRESS;
}

/* (.., p3, ..) of a function, or of its call in the body. */
static void put_list(tile *x, gq_text *t, int i, int np, bool call) {
  const gq_instr *in = &x->p->instr[i];
  const char *between = "(";
  for (int k = 0; k < np; k++) {
    passed as = passed_as(x, in, k);
    if (as == NOTHING) continue;
    gq_text_put(t, "%s", between);
    between = ", ";
    if (!call) gq_text_put(t, "%sp%d", as == OFFSET ? "int " : "char *", k);
    else if (as == FLAGS)
      gq_text_put(t, "at%d + %d", x->n + GQ_TILE_FLAGS, 8 * (x->code->at[i].flag % GQ_FLAGS));
    else put_address(x, &in->loc[k]);
  }
  gq_text_put(t, ")");
}

static void begin_region(gq_text *t, tile *x, int i, int np, const char *type) {
  put_list(x, t, i, np, false);
  gq_text_put(t, " {\n  const %s q = { { ", type);
  for (int k = 0; k < np; k++) {
    passed as = passed_as(x, &x->p->instr[i], k);
    gq_text_put(t, "%s", k ? ", " : "");
    if (as == NOTHING) gq_text_put(t, "0");
    else gq_text_put(t, "%sp%d", as == OFFSET ? "gq_dynamic + " : "", k);
  }
  gq_text_put(t, " }");
}

static void call_region(tile *x, int i, int np, int number) {
  gq_text_put(&x->body, "  r%d", number);
  put_list(x, &x->body, i, np, true);
  gq_text_put(&x->body, ";\n  GQ_SYNC\n");
}

static int put_group(tile *x, int i) {
  const gq_instr *in = &x->p->instr[i];
  gq_text t = { 0 };
  char type[24];
  int number;
  snprintf(type, sizeof type, "g%d_of", x->which[i]);
  begin_region(&t, x, i, in->nloc, type);
  gq_text_put(&t, " };\n  g%d(q);\n}\n", x->which[i]);
  GQ_TRY(region_of(x, &t, &number));
  call_region(x, i, in->nloc, number);
  return GQ_OK;
}

static void put_zero(tile *x, const gq_loc *l, size_t bytes) {
  size_t size = bytes % 4 ? 1 : 4;
  gq_text_put(&x->body, "  GQ_EACH(i, %zu) ((%s *)(%s", bytes / size,
              size == 4 ? "unsigned" : "unsigned char", near_at(x, l) != FAR ? "gq_dynamic + " : "");
  put_address(x, l);
  gq_text_put(&x->body, "))[i] = 0;\n  GQ_SYNC\n");
}

/* The rest of its arguments are numbers: 8 bytes each. */
static int put_part(tile *x, int i) {
  const gq_launch *l = &x->code->at[i].l;
  gq_text t = { 0 };
  char type[32];
  int number;
  snprintf(type, sizeof type, "gq_%s", gq_cuda_part_args(&l->part));
  begin_region(&t, x, i, l->np, type);
  for (size_t k = (size_t)l->np; k < l->bytes / 8; k++)
    gq_text_put(&t, ", %lldLL", ((const long long *)l->args)[k]);
  gq_text_put(&t, " };\n  ");
  gq_cuda_part_call(&t, &l->part, number_of(x, &l->part));
  gq_text_put(&t, "(q);\n}\n");
  GQ_TRY(region_of(x, &t, &number));
  call_region(x, i, l->np, number);
  return GQ_OK;
}

static void put_entry(tile *x) {
  int n = x->n + GQ_TILE_MORE;
  bool direct = n <= GQ_TILE_DIRECT;
  gq_text_put(&x->t, "/* phase %d, %d instructions, %zu bytes of shared memory */\n", x->phase,
              x->p->phase[x->phase + 1] - x->p->phase[x->phase], x->shared);
  gq_text_put(&x->t, "typedef struct tile_of { gq_u64 pilot, sums; ");
  if (direct) gq_text_put(&x->t, "gq_operand of[%d]; } tile_of;\n", n);
  else gq_text_put(&x->t, "gq_u64 of; } tile_of;\n");
  gq_text_put(&x->t, "GQ_ENTRY(%s, tile_of) {\n  const gq_operand *of = %s;\n", x->flies ? "attempt" : "tile",
              direct ? "a.of" : "(const gq_operand *)GQ_FAR(a.of)");
  if (x->flies)
    gq_text_put(&x->t, "  gq_pilot *pilot = (gq_pilot *)GQ_FAR(a.pilot);\n  if (pilot->halted) return;\n");
  for (int k = 0; k < n; k++)
    gq_text_put(&x->t, "  char *const at%d = gq_operand_at(&of[%d], GQ_TILE, %s);\n", k, k,
                x->flies ? "pilot->accepted" : "0");
}

/* All its arrays have numbers that an int counts: divisions of those are faster, and less code. */
static bool small(const tile *x) {
  bool yes = x->p->values <= INT32_MAX;
  for (int u = 0; u < x->n; u++) yes = yes && x->p->bytes[x->used[u]] <= INT32_MAX;
  return yes;
}

static int put_all(tile *x) {
  const gq_cuda_step *at = x->code->at;
  int from = x->p->phase[x->phase], to = x->p->phase[x->phase + 1];
  gq_text_put(&x->t, "#define GQ_TILED\n%s", small(x) ? "#define GQ_SMALL\n" : "");
  gq_cuda_text(&x->t, "", (const char *[]){ "layout", "tile", NULL });
  if (x->flies)
    gq_cuda_sections(&x->t, (const char *[]){ "apart", "control", "pilot", "together", "land", NULL });
  GQ_TRY(gq_cuda_groups(x->p, &x->t, x->which));
  for (int i = from; i < to; i++)
    if (at[i].l.blocks) GQ_TRY(add_part(x, &at[i].l.part));
  place(x);
  for (int i = from; i < to; i++) {
    if (at[i].zero) put_zero(x, &x->p->instr[i].loc[0], at[i].zero);
    if (x->p->instr[i].kind == INSTR_GROUP) GQ_TRY(put_group(x, i));
    else if (at[i].l.blocks) GQ_TRY(put_part(x, i));
  }
  put_entry(x);
  put_staging(x);
  if (x->body.s) gq_cuda_append(&x->t, x->body.s);
  if (x->flies) gq_text_put(&x->t, "  gq_land(pilot, (const double *)GQ_FAR(a.sums));\n");
  gq_text_put(&x->t, "}\n");
  return x->t.failed || x->body.failed ? gq_nomem(x->t.room) : GQ_OK;
}

int gq_cuda_tile(const gq_program *p, int phase, bool flies, gq_tile *out) {
  const gq_cuda_code *c = p->code;
  tile x = { .p = p, .code = c, .phase = phase, .flies = flies };
  x.n = c->used[phase + 1] - c->used[phase], x.used = c->used + c->used[phase];
  x.which = gq_calloc((size_t)p->ninstr + 1, sizeof *x.which);
  x.region = gq_calloc((size_t)p->ninstr + 1, sizeof *x.region);
  x.staged = gq_calloc((size_t)x.n + 1, sizeof *x.staged);
  int status = x.which && x.region && x.staged ? put_all(&x) : gq_nomem((size_t)p->ninstr * sizeof *x.which);
  if (status == GQ_OK) status = gq_cuda_kernel(x.t.s, flies ? "attempt" : "tile", &out->f);
  if (status == GQ_OK && x.shared)
    status =
      gq_cuda_check(gq_cu.set_attribute(out->f, GQ_CU_DYNAMIC_SHARED, (int)x.shared), "cuFuncSetAttribute");
  out->shared = x.shared;
  for (int i = 0; i < x.nregion; i++) gq_free(x.region[i].s);
  gq_free(x.region);
  gq_free(x.which);
  gq_free(x.staged);
  gq_free(x.body.s);
  gq_free(x.t.s);
  return status;
}
