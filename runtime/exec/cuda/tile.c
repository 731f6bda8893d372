/*
** tile.c -- a phase of a program as one kernel: each block runs all of it, instruction after instruction, for a slice of
** the batch. What an instruction is stays as it is elsewhere (kernels.h, group.c); its numbers are constants here, and
** instructions that differ in addresses alone are one function. Values that no other phase reads, and inputs of products,
** are in the block's shared memory where they fit.
*/
#include "code.h"

#include <stdio.h>
#include <string.h>

/* One phase of a program. */
typedef struct piece {
  const gq_program *p;
  const gq_cuda_code *code;
  int phase, first, n; /* its operands are first .. first + n - 1, and then its arena, constants and flags */
  const int *used;
  const gq_sharing *sharing;
  const gq_stepjob *job;
  bool near;      /* values that the phase alone meets are in shared memory, */
  size_t *staged; /* [n] and so is a copy of an input, from here on; FAR: not */
  bool *brings;   /* [n] which this phase asks for first */
  bool *idle;     /* [instructions] nobody reads what it makes */
  int *which;     /* groups */
  gq_text body;
} piece;

/* A product in a long kernel: of its addresses the operand, or one of these, and what comes on top. */
enum { ROW_NONE = -2, ROW_NEAR = -1 };
typedef struct row {
  const gq_launch *l;
  int at[4];
  size_t from[4];
} row;

/* A function of instructions that differ in numbers alone. Of a long kernel the numbers are in the list, or, where one calls
** it alone, in the function. */
typedef struct region {
  gq_text t, listed, known; /* without its name; how it begins */
  int calls;
} region;

typedef struct tile {
  gq_pool pool; /* its arrays and those of pieces */
  gq_way way;
  int threads, npiece;
  int rows; /* where a thread has one of so many, with its values in registers; 0: threads share all */
  piece piece[GQ_PIECES], *q; /* which is written now */
  size_t shared, table;       /* bytes; where its last are: addresses of operands */
  size_t own;                 /* of rows' values, */
  bool rests;                 /* values are in neither */
  int most;
  size_t *boundary; /* [most] of those that all share: where it is in shared memory */
  gq_text t;
  int nregion;
  region *region; /* [instructions] */
  bool large;     /* so many instructions that what differs among them is in tables */
  int nbrought;
  int nlist, nstep, run; /* run: the first step that the body has no call of yet, or -1 */
  gq_text list, steps;   /* numbers that functions are called with; which function, or a barrier */
  int nrow;
  row *row; /* [instructions] */
  int nparts;
  gq_part part[64];
  int ndone; /* what has been read and written since the last barrier */
  gq_reach *done;
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

static bool lasts(const tile *x, const gq_loc *l) { return l->offset < x->q->p->lasting; }

static int operand_of(const tile *x, const gq_loc *l) {
  int want = l->kind == LOC_IN ? l->index : x->q->p->nin + l->index, k = 0;
  if (l->kind == LOC_ARENA) return x->q->n + (lasts(x, l) ? GQ_TILE_ARENA : GQ_TILE_REST);
  if (l->kind == LOC_CONST) return x->q->n + GQ_TILE_CONSTANT;
  while (x->q->used[k] != want) k++;
  return k;
}

/* Its offset in shared memory, or FAR. */
static size_t near_at(const tile *x, const gq_loc *l) {
  if (l->kind == LOC_ARENA)
    return x->q->near && l->offset >= x->q->p->lasting ? l->offset - x->q->p->lasting : FAR;
  size_t at = l->kind == LOC_IN ? x->q->staged[operand_of(x, l)] : FAR;
  return at == FAR ? FAR : at + l->offset;
}

static int place_of(const tile *x, const gq_loc *l) { return x->q->first + operand_of(x, l); }

static int operands(const tile *x) {
  const piece *last = &x->piece[x->npiece - 1];
  return last->first + last->n + GQ_TILE_MORE;
}

/* Bytes that blocks have of their own in functions. */
static size_t fixed_bytes(const tile *x) {
  size_t n = gq_cuda_ways[x->way].fixed + operands(x) * sizeof(char *) + 16;
  for (int i = 0; i < x->nparts; i++)
    if (x->part[i].kind == GQ_PART_REDUCE && x->part[i].few)
      n += GQ_NT * (sizeof(double) + sizeof(long long));
  return n;
}

static int first_of(const piece *q) { return q->phase < q->p->nphase ? q->p->phase[q->phase] : 0; }
static bool works(const piece *q, int i) { return !q->idle[i]; }
static int end_of(const piece *q) { return q->phase < q->p->nphase ? q->p->phase[q->phase + 1] : 0; }

/* ---- what nobody reads ---- */

/* A value that a later phase, or an instruction before in done[], reads. */
static bool is_read(const tile *x, const gq_loc *l, const gq_reach *r) {
  bool any =
    l->kind == LOC_ARENA ? l->offset < x->q->p->lasting : !gq_cuda_ways[x->way].unread[x->q - x->piece];
  for (int k = 0; k < x->ndone; k++) any = any || gq_cuda_meet(&x->done[k], r, 1);
  return any;
}

/* Backwards; done[] has what is read of the arena, and of outputs. */
static void find_idle(tile *x) {
  gq_reaches r;
  x->ndone = 0;
  for (int i = end_of(x->q) - 1; i >= first_of(x->q); i--) {
    const gq_instr *in = &x->q->p->instr[i];
    bool some = false;
    gq_cuda_reaches(in, &x->q->code->at[i].l, &r);
    for (int k = 0; k < r.n; k++) {
      if (r.at[k].loc < 0) continue;
      r.at[k].from += (int64_t)in->loc[r.at[k].loc].offset,
        r.at[k].to += (int64_t)in->loc[r.at[k].loc].offset;
      r.at[k].each = 0;
      r.at[k].where =
        in->loc[r.at[k].loc].kind == LOC_OUT ? GQ_OUTSIDE + in->loc[r.at[k].loc].index : GQ_ARENA;
      some = some || (r.at[k].writes && is_read(x, &in->loc[r.at[k].loc], &r.at[k]));
    }
    x->q->idle[i] = !some;
    for (int k = 0; k < r.n && some; k++)
      if (!r.at[k].writes && r.at[k].loc >= 0 &&
          (in->loc[r.at[k].loc].kind == LOC_ARENA || in->loc[r.at[k].loc].kind == LOC_OUT))
        x->done[x->ndone++] = r.at[k];
  }
}

/* ---- what is near ---- */

/* What a block has of its own changes from round to round: only what all share can be read once. NULL: input u is none. */
static size_t *shared_at(tile *x, int u) {
  const gq_sharing *s = x->q->sharing;
  int j = s ? x->q->used[u] - s->first : u;
  if (!s) return &x->q->staged[u];
  return j >= 0 && j < s->n && s->axis[j] < 0 ? &x->boundary[j] : NULL;
}

/* An input of a product. */
enum { BROUGHT = 340 };
static void stage(tile *x, const gq_loc *l, size_t room) {
  int u = operand_of(x, l);
  size_t bytes = (x->q->p->bytes[x->q->used[u]] + 15) / 16 * 16, *at = shared_at(x, u);
  if (!at || x->q->staged[u] != FAR) return;
  if (*at == FAR && x->shared + bytes <= room && x->nbrought < BROUGHT)
    *at = x->shared, x->shared += bytes, x->q->brings[u] = true, x->nbrought++;
  x->q->staged[u] = *at;
}

/* Values first, then what products read again and again, while there is room; of lanes less, so that four blocks or more
** share a processor. */
enum { BLOCK_SHARED = 56 << 10 };
static void place(tile *x) {
  size_t all = gq_cuda_ways[x->way].lanes && gq_cuda.shared > BLOCK_SHARED ? BLOCK_SHARED : gq_cuda.shared;
  size_t fixed = fixed_bytes(x), room = all > fixed ? all - fixed : 0;
  for (x->q = x->piece; x->q < x->piece + x->npiece; x->q++) {
    size_t values = x->q->p->values - x->q->p->lasting;
    x->q->near = values <= room || x->rows, x->rests = x->rests || !x->q->near;
    if (x->q->near && values > x->shared) x->shared = (values + 15) / 16 * 16;
    for (int u = 0; u < x->q->n; u++) x->q->staged[u] = FAR;
  }
  for (int j = 0; j < x->most; j++) x->boundary[j] = FAR;
  for (x->q = x->piece; x->q < x->piece + x->npiece; x->q++)
    for (int i = first_of(x->q); i < end_of(x->q); i++)
      for (int l = 1; works(x->q, i) && x->q->p->instr[i].kind == INSTR_GEMM && l < x->q->p->instr[i].nloc;
           l++)
        if (x->q->p->instr[i].loc[l].kind == LOC_IN) stage(x, &x->q->p->instr[i].loc[l], room);
  if (x->rows) {
    x->own = x->shared + 16, x->shared = 0;
    gq_text_put(&x->t, "GQ_VALUES_OF(%zu)\n", x->own);
    return;
  }
  x->table = (x->shared + 15) / 16 * 16;
  x->shared = x->table + operands(x) * sizeof(char *);
  gq_text_put(&x->t, "#define gq_at ((char **)(void *)(gq_dynamic + %zu))\n", x->table);
}

/* Three numbers for each staged input, so many of them: to, from, words. */
static int put_brought(const tile *x, gq_text *t) {
  int n = 0;
  for (const piece *q = x->piece; q < x->piece + x->npiece; q++)
    for (int u = 0; u < q->n; u++)
      if (q->brings[u] && ++n)
        gq_text_put(t, "%zu, %d, %zu,\n", q->staged[u], q->first + u,
                    q->p->bytes[q->used[u]] / sizeof(unsigned));
  return 3 * n;
}

/* What lanes do first ends with a barrier. */
static void put_staging(tile *x) {
  if (x->nbrought)
    gq_text_put(&x->t,
                "  GQ_BY(unroll 1)\n  for (int i = 0; i < %d; i += 3)\n"
                "    gq_bring(gq_dynamic + gq_brought[i], gq_at[gq_brought[i + 1]], gq_brought[i + 2]);\n",
                x->nbrought);
}

/* ---- tables ---- */

/* The kernel is read by each block once an attempt: where it is long, less code counts more than sizes that are known, and
** calls and their numbers are tables in constant memory, of which there are 64 KB with what is brought. */
enum { LONG = 64, TABLES = 60 << 10 };

static long long number_at(const row *r, int k) { return ((const long long *)r->l->args)[r->l->np + k]; }

/* Numbers of a row, */
static int row_numbers(const tile *x) { return (int)(x->row->l->bytes / sizeof(long long)) - x->row->l->np; }

/* of which those are in the table that the first so many rows do not share. */
static bool differ(const tile *x, int nrow, int k) {
  bool any = false;
  for (int i = 1; i < nrow && !any; i++) any = number_at(&x->row[i], k) != number_at(x->row, k);
  return any;
}

static size_t bytes_of_rows(const tile *x, int nrow) {
  size_t numbers = 0;
  for (int k = 0; nrow && k < row_numbers(x); k++) numbers += differ(x, nrow, k);
  return (size_t)nrow * (4 * sizeof(int) + (4 + (numbers ? numbers : 1)) * sizeof(long long));
}

/* Is there room for one more step, with so many rows and so many numbers more? */
static bool listed(const tile *x, int nrow, int more) {
  size_t list = (size_t)(x->nlist + more) * sizeof(int) + (size_t)(x->nstep + 1) * 2 * sizeof(int);
  return x->large && list + bytes_of_rows(x, nrow) <= TABLES - 3 * sizeof(int) * BROUGHT;
}

/* ---- barriers ---- */

/* Steps of a long kernel are a table (put_run); what is not one of them comes behind those before. */
enum { BARRIER = -1, PRODUCT = 4096 };
static void put_step(tile *x, int what, int with) {
  if (x->run < 0) x->run = x->nstep;
  x->nstep++;
  if (what == BARRIER) gq_text_put(&x->steps, "  { GQ_BARRIER, __LINE__ },\n");
  else gq_text_put(&x->steps, "  { %d, %d },\n", what, with);
}

static gq_text *body(tile *x) {
  if (x->run >= 0) gq_text_put(&x->q->body, "  gq_run(%d, %d);\n", x->run, x->nstep);
  x->run = -1;
  return &x->q->body;
}

static void put_barrier(tile *x) {
  if (x->rows) return; /* nobody else's numbers */
  if (listed(x, x->nrow, 0)) put_step(x, BARRIER, 0);
  else gq_text_put(body(x), "  GQ_SYNC\n");
  x->ndone = 0;
}

/* What comes before a piece; x->q is that piece or the one before it. */
static bool leaves(const tile *x, int piece, gq_reach *r) {
  int each = gq_cuda_ways[x->way].leaves[piece];
  *r = (gq_reach){ .where = GQ_ANYWHERE,
                   .writes = true,
                   .own = true,
                   .each = each == GQ_LEAVES_ROWS ? 0 : each,
                   .to = INT32_MAX };
  return each != GQ_LEAVES_NONE;
}

static void begin_order(tile *x) {
  const piece *q = x->q;
  if (!gq_cuda_ways[x->way].follows[q - x->piece]) x->ndone = 0;
  x->ndone += leaves(x, (int)(q - x->piece), &x->done[x->ndone]);
  for (int u = 0; u < q->n && !gq_cuda_ways[x->way].lanes; u++)
    if (q->brings[u])
      x->done[x->ndone++] = (gq_reach){ .where = GQ_NEAR,
                                        .writes = true,
                                        .each = sizeof(unsigned),
                                        .from = (int64_t)q->staged[u],
                                        .to = (int64_t)(q->staged[u] + q->p->bytes[q->used[u]]) };
}

/* Functions of lanes that follow a phase meet what is outside, but for a lane's own numbers; of others nothing is known. */
static void end_order(tile *x) {
  int next = (int)(x->q - x->piece) + 1;
  bool last = next == x->npiece, ends = last && !*gq_cuda_ways[x->way].end,
       meets = !ends && !gq_cuda_ways[x->way].lanes;
  gq_reach r = { .where = GQ_ANYWHERE, .writes = true, .own = true, .to = INT32_MAX };
  bool some = !ends && (last || !gq_cuda_ways[x->way].follows[next] || leaves(x, next, &r));
  for (int j = 0; some && j < x->ndone; j++) meets = meets || gq_cuda_meet(&r, &x->done[j], x->threads);
  if (x->ndone && meets) put_barrier(x);
}

/* No output overlaps another one or an input (exec.h). */
static bool settle(const tile *x, const gq_instr *in, gq_reach *r) {
  const gq_loc *l = r->loc < 0 ? NULL : &in->loc[r->loc];
  if (l && (l->kind == LOC_NONE || l->kind == LOC_CONST)) return false;
  size_t near = l ? near_at(x, l) : 0, at = !l ? 0 : near != FAR ? near : l->offset;
  r->where = !l                     ? GQ_SHARED
             : near != FAR          ? GQ_NEAR
             : l->kind == LOC_ARENA ? GQ_ARENA
                                    : GQ_OUTSIDE + x->q->used[operand_of(x, l)];
  r->from += (int64_t)at, r->to += (int64_t)at;
  if (r->where >= GQ_OUTSIDE && x->q->sharing)
    r->own = r->from == 0 && r->to == (int64_t)r->each * x->q->sharing->lanes;
  return true;
}

/* Before an instruction: a barrier, where it meets what came since the last one. */
static void put_order(tile *x, const gq_instr *in, gq_reaches *r) {
  bool meets = false;
  int n = 0;
  for (int k = 0; k < r->n; k++)
    if (settle(x, in, &r->at[k])) r->at[n++] = r->at[k];
  for (int k = 0; k < n; k++)
    for (int j = 0; j < x->ndone && !meets; j++) meets = gq_cuda_meet(&x->done[j], &r->at[k], x->threads);
  if (meets) put_barrier(x);
  for (int k = 0; k < n; k++) x->done[x->ndone++] = r->at[k];
}

/* ---- regions: functions of addresses ---- */

/* The number of the function with this text, which is new or known. */
static int region_of(tile *x, gq_text *t, int *number) {
  if (t->failed) {
    gq_free(t->s);
    return gq_nomem(t->room);
  }
  for (*number = 0; *number < x->nregion; (*number)++)
    if (strcmp(x->region[*number].t.s, t->s) == 0) {
      gq_free(t->s);
      return GQ_OK;
    }
  x->region[x->nregion++].t = *t;
  return GQ_OK;
}

/* What address k of an instruction is to its function. */
typedef enum passed { NOTHING, OFFSET, INSIDE, ADDRESS, FLAGS } passed;

/* Constants of groups are in the text. Addresses of shared memory are offsets there, so that the compiler knows that it
** is that; those of the arena are offsets in it, which are less code at each call. */
static passed passed_as(const tile *x, const gq_instr *in, int k) {
  if (k >= in->nloc) return in->kind == INSTR_INDEX ? FLAGS : NOTHING;
  if (in->loc[k].kind == LOC_NONE || (in->kind == INSTR_GROUP && in->loc[k].kind == LOC_CONST))
    return NOTHING;
  if (near_at(x, &in->loc[k]) != FAR) return OFFSET;
  return in->loc[k].kind == LOC_ARENA && x->q->p->values <= INT32_MAX ? INSIDE : ADDRESS;
}

static bool any_inside(const tile *x, const gq_instr *in, int np) {
  bool any = false;
  for (int k = 0; k < np; k++) any = any || passed_as(x, in, k) == INSIDE;
  return any;
}

static int rest_at(const tile *x, int which) { return x->q->first + x->q->n + which; }

/* What k has to be called with (-1: the arena), or -1: nothing. */
static long long number_for(const tile *x, const gq_instr *in, int np, int k) {
  if (k < 0) return any_inside(x, in, np) ? rest_at(x, GQ_TILE_ARENA) : -1;
  switch (passed_as(x, in, k)) {
    case OFFSET: return (long long)near_at(x, &in->loc[k]);
    case INSIDE: return (long long)in->loc[k].offset;
    case FLAGS: return rest_at(x, GQ_TILE_FLAGS);
    case ADDRESS: return place_of(x, &in->loc[k]);
    default: return -1;
  }
}

/* (arena, .., p3, ..) of a function, or for its call. */
static void put_numbers(tile *x, gq_text *t, int i, int np, bool call) {
  const char *between = "";
  for (int k = -1; k < np; k++) {
    long long given = number_for(x, &x->q->p->instr[i], np, k);
    if (given < 0) continue;
    gq_text_put(t, "%s", between);
    between = ", ";
    if (call) gq_text_put(t, "%lld", given);
    else if (k < 0) gq_text_put(t, "int arena");
    else gq_text_put(t, "int p%d", k);
  }
}

/* A call with numbers from there on in the list: how its function begins. */
static void put_listed(tile *x, region *r, int i, int np) {
  const gq_instr *in = &x->q->p->instr[i];
  bool first = !r->calls++;
  for (int k = -1, n = 0; k < np; k++) {
    long long given = number_for(x, in, np, k);
    char name[16] = "arena";
    if (given < 0) continue;
    if (k >= 0) snprintf(name, sizeof name, "p%d", k);
    gq_text_put(&x->list, "%lld, ", given);
    x->nlist++;
    if (!first) continue;
    gq_text_put(&r->listed, "  const int %s = gq_list[i + %d];\n", name, n++);
    gq_text_put(&r->known, "  const int %s = %lld;\n", name, given);
  }
  gq_text_put(&x->list, "\n");
}

/* Address k. */
static void put_address(gq_text *t, const tile *x, int i, int k) {
  const gq_cuda_step *s = &x->q->code->at[i];
  const gq_instr *in = &x->q->p->instr[i];
  passed as = passed_as(x, in, k);
  size_t more = as == FLAGS ? 8 * (size_t)(s->flag % GQ_FLAGS) : as == ADDRESS ? in->loc[k].offset : 0;
  int each = x->rows && as != NOTHING ? gq_cuda_row_size(in, k) : 0;
  if (as == NOTHING) gq_text_put(t, "0");
  else if (as == OFFSET && x->rows) gq_text_put(t, "GQ_VALUE(p%d, row)", k);
  else if (as == OFFSET) gq_text_put(t, "gq_dynamic + p%d", k);
  else if (as == INSIDE && !lasts(x, &in->loc[k])) gq_text_put(t, "gq_at[arena + 1] + p%d", k);
  else if (as == INSIDE) gq_text_put(t, x->rows ? "gq_at(arena) + p%d" : "gq_at[arena] + p%d", k);
  else gq_text_put(t, x->rows ? "gq_at(p%d) + %zu" : "gq_at[p%d] + %zu", k, more);
  if (as != OFFSET && each) gq_text_put(t, " + row * %d", each);
}

static void begin_region(gq_text *t, tile *x, int i, int np, const char *type) {
  if (!listed(x, x->nrow, np + 1)) {
    gq_text_put(t, "(%s", x->rows ? "GQ_ROWS " : "");
    put_numbers(x, t, i, np, false);
    gq_text_put(t, ") {\n%s", x->rows ? "  GQ_MINE(row) {\n" : "");
  }
  gq_text_put(t, "  const %s q = { { ", type);
  for (int k = 0; k < np; k++) {
    gq_text_put(t, "%s", k ? ", " : "");
    put_address(t, x, i, k);
  }
  gq_text_put(t, " }");
}

static void call_region(tile *x, int i, int np, int number) {
  if (!listed(x, x->nrow, np + 1)) {
    gq_text_put(body(x), "  r%d(%s", number, x->rows ? "GQ_ITS " : "");
    put_numbers(x, &x->q->body, i, np, true);
    gq_text_put(&x->q->body, ");\n");
    return;
  }
  put_step(x, number, x->nlist);
  put_listed(x, &x->region[number], i, np);
}

/* The end of function t, which a call with q comes to, and the call of it. */
static int end_region(tile *x, gq_text *t, int i, int np) {
  int number = 0;
  gq_text_put(t, "(q);\n%s}\n", x->rows ? "  }\n" : "");
  GQ_TRY(region_of(x, t, &number));
  call_region(x, i, np, number);
  return GQ_OK;
}

static int put_group(tile *x, int i) {
  const gq_instr *in = &x->q->p->instr[i];
  gq_text t = { 0 };
  char type[24];
  snprintf(type, sizeof type, "g%d_of", x->q->which[i]);
  begin_region(&t, x, i, in->nloc, type);
  gq_text_put(&t, " };\n  g%d", x->q->which[i]);
  return end_region(x, &t, i, in->nloc);
}

static void put_zero(tile *x, const gq_instr *in, size_t bytes) {
  const gq_loc *l = &in->loc[0];
  size_t size = bytes % 4 ? 1 : 4;
  put_order(x, in, &(gq_reaches){ 1, { { .writes = true, .each = (int)size, .to = (int64_t)bytes } } });
  size_t near = near_at(x, l);
  if (x->rows) {
    gq_text_put(body(x), "  GQ_MINE(row) GQ_ALL(i, %zu) ((gq_u64 *)(void *)GQ_VALUE(%zu, row))[i / 2] = 0;\n",
                bytes / sizeof(unsigned), near);
    return;
  }
  gq_text_put(body(x), "  GQ_EACH(i, %zu) ((%s *)(", bytes / size, size == 4 ? "unsigned" : "unsigned char");
  if (near != FAR) gq_text_put(&x->q->body, "gq_dynamic + %zu))[i] = 0;\n", near);
  else gq_text_put(&x->q->body, "gq_at[%d] + %zu))[i] = 0;\n", place_of(x, l), l->offset);
}

/* ---- products of a long kernel: one function, and a table of what each has ---- */

static bool put_row(tile *x, int i) {
  const gq_instr *in = &x->q->p->instr[i];
  row *r = &x->row[x->nrow];
  r->l = &x->q->code->at[i].l;
  if (!listed(x, x->nrow + 1, 0)) return false;
  for (int k = 0; k < r->l->np; k++) {
    passed as = passed_as(x, in, k);
    r->at[k] = as == NOTHING ? ROW_NONE : as == OFFSET ? ROW_NEAR : place_of(x, &in->loc[k]);
    r->from[k] = as == NOTHING ? 0 : as == OFFSET ? near_at(x, &in->loc[k]) : in->loc[k].offset;
  }
  put_step(x, PRODUCT + number_of(x, &r->l->part), x->nrow++);
  return true;
}

static void put_table_of_rows(tile *x, int n) {
  gq_text *t = &x->t;
  int columns = 0;
  for (int k = 0; k < n; k++) columns += differ(x, x->nrow, k);
  gq_text_put(t, "typedef struct row_of { int at[4]; gq_count from[4], n[%d]; } row_of;\n",
              columns + !columns);
  gq_text_put(t, "GQ_CONSTANT row_of rows[] = {\n");
  for (const row *r = x->row; r < x->row + x->nrow; r++) {
    gq_text_put(t, "  { { %d, %d, %d, %d }, { %zu, %zu, %zu, %zu }, { ", r->at[0], r->at[1], r->at[2],
                r->at[3], r->from[0], r->from[1], r->from[2], r->from[3]);
    for (int k = 0; k < n; k++)
      if (differ(x, x->nrow, k)) gq_text_put(t, "%lldLL, ", number_at(r, k));
    gq_text_put(t, "%s} },\n", columns ? "" : "0 ");
  }
  gq_text_put(t, "};\n");
}

/* Numbers that all have are known. */
static void put_row_function(tile *x, int part, int n) {
  gq_text *t = &x->t;
  gq_text_put(t, "GQ_REGION void row_%d(int i) {\n  const row_of *s = &rows[i];\n", part);
  gq_text_put(t, "  const gq_%s q = { { ", gq_cuda_part_args(&x->part[part]));
  for (int k = 0; k < 4; k++) {
    int top = ROW_NONE, least = x->row->at[k];
    for (int i = 0; i < x->nrow; i++) {
      top = x->row[i].at[k] > top ? x->row[i].at[k] : top;
      least = x->row[i].at[k] < least ? x->row[i].at[k] : least;
    }
    if (top == ROW_NONE) gq_text_put(t, "0, ");
    else if (top == ROW_NEAR && least == top) gq_text_put(t, "gq_dynamic + s->from[%d], ", k);
    else gq_text_put(t, "gq_row_at(s->at[%d], gq_at) + s->from[%d], ", k, k);
  }
  gq_text_put(t, "}");
  for (int k = 0, column = 0; k < n; k++)
    if (differ(x, x->nrow, k)) gq_text_put(t, ", s->n[%d]", column++);
    else gq_text_put(t, ", %lldLL", number_at(x->row, k));
  gq_text_put(t, " };\n  ");
  gq_cuda_part_call(t, &x->part[part], part);
  gq_text_put(t, "(q);\n}\n");
}

static void put_functions(tile *x) {
  if (x->nlist) {
    gq_text_put(&x->t, "GQ_CONSTANT int gq_list[] = {\n");
    gq_cuda_append_text(&x->t, &x->list);
    gq_text_put(&x->t, "};\n");
  }
  for (int i = 0; i < x->nregion; i++) {
    const region *r = &x->region[i];
    gq_text_put(&x->t, "%s void r%d", r->calls == 1 || x->rows ? "GQ_DEVICE" : "GQ_REGION", i);
    if (r->calls) gq_text_put(&x->t, "(int i GQ_UNUSED) {\n");
    if (r->calls) gq_cuda_append_text(&x->t, r->calls == 1 ? &r->known : &r->listed);
    gq_cuda_append_text(&x->t, &r->t);
  }
}

static void put_rows(tile *x) {
  int n = x->nrow ? row_numbers(x) : 0;
  if (x->nrow) put_table_of_rows(x, n);
  for (int i = 0; i < x->nparts && x->nrow; i++)
    if (x->part[i].kind == GQ_PART_PRODUCT) put_row_function(x, i, n);
}

/* The rest of its arguments are numbers: 8 bytes each. */
static int put_part(tile *x, int i) {
  const gq_launch *l = &x->q->code->at[i].l;
  if (l->part.kind == GQ_PART_PRODUCT && put_row(x, i)) return GQ_OK;
  gq_text t = { 0 };
  char type[32];
  snprintf(type, sizeof type, "gq_%s", gq_cuda_part_args(&l->part));
  begin_region(&t, x, i, l->np, type);
  for (size_t k = (size_t)l->np; k < l->bytes / 8; k++)
    gq_text_put(&t, ", %lldLL", ((const long long *)l->args)[k]);
  gq_text_put(&t, " };\n  ");
  gq_cuda_part_call(&t, &l->part, number_of(x, &l->part));
  return end_region(x, &t, i, l->np);
}

/* Addresses that are needed to the end would take all registers, and code for each. What lanes do first ends with a
** barrier. */
static void put_table(tile *x, int n) {
  bool waits = !gq_cuda_ways[x->way].lanes;
  if (x->rows) {
    gq_text_put(&x->t, "  GQ_VALUES(%zu)\n", x->own);
    return;
  }
  for (const piece *q = x->piece; q < x->piece + x->npiece; q++)
    for (int u = 0; u < q->n; u++) waits = waits || q->brings[u];
  gq_text_put(&x->t, "  GQ_EACH(i, %d) gq_at[i] = gq_operand_at(&of[i], GQ_TILE, %s);\n%s", n,
              gq_cuda_ways[x->way].turn, waits ? "  GQ_SYNC\n" : "");
}

static void put_entry(tile *x) {
  int n = operands(x);
  gq_text brought = { 0 };
  x->nbrought = put_brought(x, &brought);
  if (x->nbrought) gq_text_put(&x->t, "GQ_CONSTANT int gq_brought[] = {\n");
  if (x->nbrought) gq_cuda_append_text(&x->t, &brought);
  if (x->nbrought) gq_text_put(&x->t, "};\n");
  gq_free(brought.s);
  bool direct = n <= GQ_TILE_DIRECT;
  for (const piece *q = x->piece; q < x->piece + x->npiece; q++)
    gq_text_put(&x->t, "/* phase %d, %d instructions, %zu bytes of shared memory */\n", q->phase,
                end_of(q) - first_of(q), x->shared);
  gq_text_put(&x->t, "typedef struct tile_of { gq_u64 loop, sums, at, each; ");
  if (direct) gq_text_put(&x->t, "gq_operand of[%d]; } tile_of;\n", n);
  else gq_text_put(&x->t, "gq_u64 of; } tile_of;\n");
  gq_text_put(&x->t, "GQ_ENTRY(%s, tile_of) {\n  const gq_operand *of = %s;\n", gq_cuda_ways[x->way].name,
              direct ? "a.of" : "(const gq_operand *)GQ_FAR(a.of)");
  gq_cuda_append(&x->t, gq_cuda_ways[x->way].begin);
  put_table(x, n);
}

/* All its arrays have numbers that an int counts: divisions of those are faster, and less code. */
static bool small(const tile *x) {
  bool yes = true;
  for (const piece *q = x->piece; q < x->piece + x->npiece; q++) {
    yes = yes && q->p->values <= INT32_MAX;
    for (int u = 0; u < q->n; u++) yes = yes && q->p->bytes[q->used[u]] <= INT32_MAX;
  }
  return yes;
}

/* The operand that output k is; -1: the phase has none. */
static int output_of(const tile *x, int k) {
  for (int u = 0; u < x->q->n; u++)
    if (x->q->used[u] == x->q->p->nin + k) return x->q->first + u;
  return -1;
}

/* What was carried to a step, before its own products. */
static void put_carried(tile *x) {
  const gq_stepjob *c = x->q->job;
  gq_text *t = body(x);
  for (int r = 0; r < c->nadd; r++) {
    const char *T = gq_cuda_dtype[c->dtype[r]], *S = gq_cuda_suffix[c->dtype[r]];
    int to = output_of(x, c->to + r), from = output_of(x, c->from + r);
    size_t n = x->q->p->bytes[x->q->p->nin + c->to + r] / gq_dtype_size(c->dtype[r]);
    if (to < 0 || from < 0) continue;
    gq_text_put(t, "  GQ_EACH(i, %zu) gq_carry_%s((%s *)gq_at[%d], (const %s *)gq_at[%d], i, ", n, S, T, to,
                T, from);
    gq_text_put(t, "*(const double *)GQ_FAR(a.loop + (gq_u64)turn * a.at));\n");
  }
  if (c->nadd) put_barrier(x);
}

static int put_body(tile *x) {
  const gq_cuda_step *at = x->q->code->at;
  begin_order(x);
  if (x->way == GQ_WAY_AFTER) put_carried(x);
  for (int i = first_of(x->q); i < end_of(x->q); i++) {
    const gq_instr *in = &x->q->p->instr[i];
    if (!works(x->q, i)) continue;
    if (at[i].zero) put_zero(x, in, at[i].zero);
    if (in->kind == INSTR_GROUP || at[i].l.blocks) {
      gq_reaches r;
      gq_cuda_reaches(in, &at[i].l, &r);
      put_order(x, in, &r);
      GQ_TRY(in->kind == INSTR_GROUP ? put_group(x, i) : put_part(x, i));
    }
  }
  end_order(x);
  body(x);
  return x->q->body.failed ? gq_nomem(x->q->body.room) : GQ_OK;
}

static int put_groups(tile *x) {
  const gq_program *p[GQ_PIECES];
  int *which[GQ_PIECES];
  for (int i = 0; i < x->npiece; i++) p[i] = x->piece[i].p, which[i] = x->piece[i].which;
  return gq_cuda_groups(x->npiece, p, &x->t, which);
}

static int instructions(const tile *x) {
  int n = 0;
  for (const piece *q = x->piece; q < x->piece + x->npiece; q++)
    for (int i = first_of(q); i < end_of(q); i++) n += works(q, i);
  return n;
}

/* Each function is called from one place. */
static void put_run(tile *x) {
  gq_text *t = &x->t;
  gq_text_put(t, "#define GQ_BARRIER %d\n", BARRIER);
  gq_text_put(t, "typedef struct gq_step { int what, with; } gq_step;\nGQ_CONSTANT gq_step gq_steps[] = {\n");
  gq_cuda_append_text(t, &x->steps);
  gq_text_put(t, "};\nGQ_REGION void gq_run(int i, int end) {\n  GQ_BY(unroll 1)\n"
                 "  for (; i < end; i++) {\n    const int with = gq_steps[i].with;\n"
                 "    switch (gq_steps[i].what) {\n"
                 "      case GQ_BARRIER: GQ_SYNC_AT(with) break;\n");
  for (int i = 0; i < x->nregion; i++)
    if (x->region[i].calls) gq_text_put(t, "      case %d: r%d(with); break;\n", i, i);
  for (int i = 0; i < x->nparts && x->nrow; i++)
    if (x->part[i].kind == GQ_PART_PRODUCT)
      gq_text_put(t, "      case %d: row_%d(with); break;\n", PRODUCT + i, i);
  gq_text_put(t, "    }\n  }\n}\n");
}

static int put_all(tile *x) {
  gq_text_put(&x->t, "#define GQ_TILED\n%s", small(x) ? "#define GQ_SMALL\n" : "");
  if (x->rows) gq_text_put(&x->t, "#define GQ_ROW %d\n#define GQ_ROW_MOST %d\n", x->rows, GQ_ROW_MOST);
  if (x->way >= GQ_WAY_ALONG)
    gq_text_put(&x->t, "#define GQ_STATE %s\n",
                gq_cuda_dtype[gq_cuda_ways[x->way].lanes ? x->piece->sharing->state : x->piece->job->state]);
  gq_cuda_text(&x->t, x->threads);
  gq_cuda_sections(&x->t, (const char *[]){ "layout", "tile", x->rows ? "rows" : "row", NULL });
  gq_cuda_sections(&x->t, gq_cuda_ways[x->way].sections);
  GQ_TRY(put_groups(x));
  for (const piece *q = x->piece; q < x->piece + x->npiece; q++)
    for (int i = first_of(q); i < end_of(q); i++)
      if (works(q, i) && q->code->at[i].l.blocks) GQ_TRY(add_part(x, &q->code->at[i].l.part));
  place(x);
  x->large = !x->rows && instructions(x) > (gq_cuda_ways[x->way].lanes ? LONG / 4 : LONG);
  for (x->q = x->piece; x->q < x->piece + x->npiece; x->q++) GQ_TRY(put_body(x));
  put_functions(x);
  put_rows(x);
  if (x->nstep) put_run(x);
  put_entry(x);
  put_staging(x);
  for (int i = 0; i < GQ_PIECES && gq_cuda_ways[x->way].before[i]; i++) {
    const char *only = gq_cuda_ways[x->way].only[i], *body = x->piece[i].body.s;
    gq_cuda_append(&x->t, gq_cuda_ways[x->way].before[i]);
    if (body && only) gq_cuda_append(&x->t, only);
    if (body) gq_cuda_append(&x->t, body);
    if (body && only) gq_text_put(&x->t, "  }\n");
  }
  gq_cuda_append(&x->t, gq_cuda_ways[x->way].end);
  gq_text_put(&x->t, "}\n");
  return x->t.failed ? gq_nomem(x->t.room) : GQ_OK;
}

/* Rows of small systems of which no operation mixes any. Compilers take arrays of up to 8 KB apart into registers, and a
** thread's has the room of all rows, of which it takes its own. */
enum { ROW_BYTES = 248 };
static int rows_of(const tile *x) {
  int rows = gq_cuda_ways[x->way].lanes ? x->piece->sharing->lanes : 0;
  bool yes = rows > 0 && operands(x) <= GQ_TILE_DIRECT;
  for (const piece *q = x->piece; yes && q < x->piece + x->npiece; q++) {
    yes = !q->sharing->front && q->sharing->lanes == rows &&
          q->p->values - q->p->lasting <= (size_t)rows * ROW_BYTES;
    for (int i = first_of(q); yes && i < end_of(q); i++) yes = !works(q, i) || gq_cuda_by_rows(q->p, i, rows);
  }
  return yes ? rows : 0;
}

/* So many threads have something to do in an instruction. */
static int64_t work_of(const gq_instr *in, const gq_launch *l) {
  const gq_product_args *a = (const gq_product_args *)(const void *)l->args;
  bool small = l->blocks == 1;
  if (in->kind == INSTR_GROUP) return gq_numel(in->as.group.shape);
  if (in->kind == INSTR_GEMM && small) return (a->m + 3) / 4 * a->n * a->batches;
  if ((in->kind == INSTR_MOVE || in->kind == INSTR_REDUCE) && small && !l->part.few)
    return ((const long long *)l->args)[l->np]; /* numbers moved, or results */
  return (int64_t)l->blocks * GQ_NT;
}

/* As many threads as the widest of its instructions gives work, but for lanes no more: many blocks share a processor. */
static int threads_of(const tile *x) {
  int64_t most = 32;
  int n = 32;
  if (x->rows) return x->rows;
  for (const piece *q = x->piece; gq_cuda_ways[x->way].lanes && q < x->piece + x->npiece; q++)
    for (int i = first_of(q); i < end_of(q); i++) {
      int64_t some = works(q, i) ? work_of(&q->p->instr[i], &q->code->at[i].l) : 0;
      if (some > most) most = some;
    }
  while (n < GQ_NT && (n < most || !gq_cuda_ways[x->way].lanes)) n *= 2;
  return n;
}

static int set_pieces(tile *x, const gq_phase *of) {
  size_t all = 1, reaches = GQ_PIECES + 1;
  for (int i = 0, first = 0; i < x->npiece; i++) {
    const gq_cuda_code *c = of[i].p->code;
    piece *q = &x->piece[i];
    *q = (piece){ .p = of[i].p,
                  .code = c,
                  .phase = of[i].phase,
                  .first = first,
                  .sharing = of[i].sharing,
                  .job = of[i].job };
    q->used = c->used + c->used[q->phase < q->p->nphase ? q->phase : 0];
    q->n = q->phase < q->p->nphase ? c->used[q->phase + 1] - c->used[q->phase] : 0;
    if (q->sharing) x->most = q->sharing->n;
    q->which = gq_pooled(&x->pool, (size_t)q->p->ninstr, sizeof *q->which);
    q->staged = gq_pooled(&x->pool, (size_t)q->n, sizeof *q->staged);
    q->brings = gq_pooled(&x->pool, (size_t)q->n, sizeof *q->brings);
    q->idle = gq_pooled(&x->pool, (size_t)q->p->ninstr, sizeof *q->idle);
    first += q->n + GQ_TILE_MORE, all += (size_t)q->p->ninstr, reaches += (size_t)q->n;
    for (int k = first_of(q); k < end_of(q); k++) reaches += 2 * (size_t)q->p->instr[k].nloc + 2;
  }
  x->done = gq_pooled(&x->pool, reaches, sizeof *x->done);
  x->region = gq_pooled(&x->pool, all, sizeof *x->region);
  x->row = gq_pooled(&x->pool, all, sizeof *x->row);
  x->boundary = gq_pooled(&x->pool, (size_t)x->most, sizeof *x->boundary);
  return gq_pool_status(&x->pool);
}

int gq_cuda_tile(gq_way way, int n, const gq_phase *of, gq_tile *out) {
  tile x = { .way = way, .npiece = n, .run = -1 };
  int status = set_pieces(&x, of);
  for (x.q = x.piece; status == GQ_OK && x.q < x.piece + n; x.q++) find_idle(&x);
  if (status == GQ_OK) {
    x.rows = rows_of(&x), x.threads = threads_of(&x);
    status = put_all(&x);
  }
  if (status == GQ_OK) status = gq_cuda_kernel(x.t.s, gq_cuda_ways[way].name, &out->held, &out->f);
  if (status == GQ_OK && x.table) /* the table alone needs no leave */
    status =
      gq_cuda_check(gq_cu.set_attribute(out->f, GQ_CU_DYNAMIC_SHARED, (int)x.shared), "cuFuncSetAttribute");
  if (status != GQ_OK) out->f = NULL; /* the next time it is made anew */
  out->shared = x.shared, out->threads = x.threads, out->rests = x.rests;
  for (int i = 0; i < x.nregion; i++) {
    gq_free(x.region[i].t.s);
    gq_free(x.region[i].listed.s);
    gq_free(x.region[i].known.s);
  }
  for (int i = 0; i < n; i++) gq_free(x.piece[i].body.s);
  gq_free(x.list.s);
  gq_free(x.steps.s);
  gq_free(x.t.s);
  gq_pool_free(&x.pool);
  return status;
}
