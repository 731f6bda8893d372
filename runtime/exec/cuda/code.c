/*
** code.c -- a program by operations: a launch for each instruction, its groups compiled as one module. Numbers that the
** host holds (times, tolerances, sums that it decides by) travel in one copy before a phase and one after it.
*/
#include "cuda.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1024 }; /* slices of a batch */

typedef struct step {
  gq_cufunction group;
  int blocks;
  gq_launch l;
  size_t zero; /* bytes of the result to clear first */
  int flag;    /* which indexing of its phase */
} step;

typedef struct code {
  void *constant; /* on the device */
  bool grouped;   /* groups are compiled for running by operations: at the first time */
  gq_tile *tile;  /* [nphase] likewise, for slices side by side */
  int *used;      /* of each phase, [nphase + 1] ends first: inputs, and outputs counted from nin */
  int *indexing;  /* [nphase] how many look at indices */
  step at[];
} code;

/* ---- lowering ---- */

static int64_t cells(const gq_instr *in) { return gq_numel(in->as.group.shape); }

static int lower_instr(const gq_instr *in, step *s) {
  switch (in->kind) {
    case INSTR_GEMM:
      return gq_cuda_product(&s->l, in->as.gemm.dtype, &in->as.gemm.a, &in->as.gemm.b, in->as.gemm.flags,
                             in->as.gemm.column, in->add);
    case INSTR_REDUCE:
      return gq_cuda_reduce(&s->l, in->as.reduce.op, in->as.reduce.dtype, &in->as.reduce.x,
                            in->as.reduce.axis, in->as.reduce.flags, in->add);
    case INSTR_MOVE: return gq_cuda_bytes(&s->l, in->as.move.size, &in->as.move.from, in->as.move.to);
    case INSTR_ZERO: s->zero = in->as.zero; return GQ_OK;
    case INSTR_INDEX:
      if (in->as.index.op == GQ_OP_INDEX_ADD || in->as.index.op == GQ_OP_SCATTER_ADD)
        s->zero = (size_t)gq_numel(in->as.index.out) * gq_dtype_size(in->as.index.dtype);
      return gq_cuda_index(&s->l, in->as.index.op, in->as.index.dtype, in->as.index.x, in->as.index.idx,
                           in->as.index.out, in->as.index.axis);
    case INSTR_WINDOW:
      return gq_cuda_window(&s->l, in->as.window.dtype, &in->as.window.attr, in->as.window.windows,
                            in->as.window.attr.shape);
    case INSTR_CALL:
      return gq_fail(GQ_EUNSUPPORTED, "cuda: a function of Lua runs on the CPU alone: use x:to(\"cpu\")");
    default: return GQ_OK;
  }
}

static int load_groups(const gq_program *p, code *c) {
  int *which = gq_calloc((size_t)p->ninstr + 1, sizeof *which),
      status = which ? GQ_OK : gq_nomem(sizeof *which);
  gq_text t = { 0 };
  bool any = false;
  for (int i = 0; i < p->ninstr; i++) any = any || p->instr[i].kind == INSTR_GROUP;
  gq_cuda_text(&t, "", (const char *[]){ NULL });
  if (any && status == GQ_OK) status = gq_cuda_groups(p, &t, which);
  for (int i = 0; i < p->ninstr && status == GQ_OK; i++) {
    char name[16];
    if (p->instr[i].kind != INSTR_GROUP) continue;
    snprintf(name, sizeof name, "g%d", which[i]);
    c->at[i].blocks = gq_cuda_blocks(cells(&p->instr[i]));
    status = gq_cuda_kernel(t.s, name, &c->at[i].group);
  }
  gq_free(which);
  gq_free(t.s);
  return status;
}

static int load_constants(const gq_program *p, code *c) {
  size_t bytes = 0;
  for (int i = 0; i < p->ninstr; i++)
    for (int l = 0; l < p->instr[i].nloc; l++) {
      const gq_loc *at = &p->instr[i].loc[l];
      if (at->kind == LOC_CONST && p->instr[i].kind != INSTR_GROUP && at->offset + sizeof(double) > bytes)
        bytes = at->offset + sizeof(double);
    }
  if (!bytes) return GQ_OK;
  c->constant = gq_cuda_allocate(bytes);
  return c->constant ? gq_cuda_put(c->constant, p->constant, bytes) : gq_nomem(bytes);
}

/* Which inputs and outputs each phase meets: only those are bound. */
static int find_used(const gq_program *p, code *c) {
  size_t all = (size_t)p->nin + p->nout;
  bool *seen = gq_alloc(all + 1);
  c->used = gq_calloc((size_t)p->nphase + 1 + all * p->nphase, sizeof *c->used);
  c->indexing = gq_calloc((size_t)p->nphase + 1, sizeof *c->indexing);
  if (!seen || !c->used || !c->indexing) {
    gq_free(seen);
    return gq_nomem(all * sizeof *c->used);
  }
  int n = p->nphase + 1;
  for (int q = 0; q < p->nphase; q++) {
    memset(seen, 0, all);
    c->used[q] = n;
    for (int i = p->phase[q]; i < p->phase[q + 1]; i++) {
      if (p->instr[i].kind == INSTR_INDEX) c->at[i].flag = c->indexing[q]++;
      for (int l = 0; l < p->instr[i].nloc; l++) {
        const gq_loc *at = &p->instr[i].loc[l];
        if (at->kind != LOC_IN && at->kind != LOC_OUT) continue;
        int k = at->kind == LOC_IN ? at->index : p->nin + at->index;
        if (!seen[k]) c->used[n++] = k;
        seen[k] = true;
      }
    }
  }
  c->used[p->nphase] = n;
  gq_free(seen);
  return GQ_OK;
}

static int lower(gq_program *p) {
  code *c = p->code = gq_calloc(1, sizeof *c + (size_t)p->ninstr * sizeof *c->at);
  if (!c) return gq_nomem((size_t)p->ninstr * sizeof *c->at);
  p->arena = p->values;
  for (int i = 0; i < p->ninstr; i++) GQ_TRY(lower_instr(&p->instr[i], &c->at[i]));
  c->tile = gq_calloc((size_t)p->nphase + 1, sizeof *c->tile);
  if (!c->tile) return gq_nomem((size_t)p->nphase * sizeof *c->tile);
  GQ_TRY(load_constants(p, c));
  return find_used(p, c);
}

static void release(gq_program *p) {
  code *c = p->code;
  if (!c) return;
  gq_cuda_release(c->constant);
  gq_free(c->tile);
  gq_free(c->used);
  gq_free(c->indexing);
  gq_free(c);
}

/* A product takes any strides. */
static int pack(gq_dtype d, const gq_layout *a, const gq_layout *b, int flags, int *bits) {
  *bits = 0;
  return GQ_OK;
}

/* ---- what the host holds ---- */

static struct {
  pthread_mutex_t lock;
  char *here, *there;
  size_t room;
} stage = { .lock = PTHREAD_MUTEX_INITIALIZER };

typedef struct frame {
  const gq_program *p;
  char *arena;
  void *const *at; /* addresses of inputs and, from nin on, of outputs */
  size_t results;  /* where outputs of the host begin */
} frame;

static int make_room(size_t bytes) {
  if (bytes <= stage.room) return GQ_OK;
  size_t room = 2 * bytes + 1024;
  char *here = gq_alloc(room), *there = gq_cuda_allocate(room);
  if (!here || !there) {
    gq_free(here);
    gq_cuda_release(there);
    return gq_nomem(room);
  }
  gq_free(stage.here);
  gq_cuda_release(stage.there);
  stage.here = here, stage.there = there, stage.room = room;
  return GQ_OK;
}

static size_t rounded(size_t bytes) { return (bytes + 15) / 16 * 16; }

/* Addresses for a phase: the device's own, or places in the stage. at[] holds what the caller gave. */
static int bring(const gq_program *p, int phase, void **at, void **host, size_t *results, size_t *total) {
  const code *c = p->code;
  size_t n[2] = { 0, 0 };
  for (int u = c->used[phase]; u < c->used[phase + 1]; u++) {
    int k = c->used[u];
    host[k] = gq_cuda_owns(at[k]) ? NULL : at[k];
    if (host[k]) n[k >= p->nin] += rounded(p->bytes[k]);
  }
  *results = n[0], *total = n[0] + n[1];
  GQ_TRY(make_room(*total));
  n[1] = n[0], n[0] = 0;
  for (int u = c->used[phase]; u < c->used[phase + 1]; u++) {
    int k = c->used[u];
    size_t *top = &n[k >= p->nin];
    if (!host[k]) continue;
    memcpy(stage.here + *top, host[k], p->bytes[k]); /* outputs too: some are added to */
    at[k] = stage.there + *top;
    *top += rounded(p->bytes[k]);
  }
  return gq_cuda_put(stage.there, stage.here, *total);
}

static int take(const gq_program *p, int phase, void *const *at, void *const *host, size_t results,
                size_t total) {
  const code *c = p->code;
  if (results == total) return GQ_OK;
  GQ_TRY(gq_cuda_get(stage.here + results, stage.there + results, total - results));
  for (int u = c->used[phase]; u < c->used[phase + 1]; u++) {
    int k = c->used[u];
    if (k >= p->nin && host[k]) memcpy(host[k], stage.here + ((char *)at[k] - stage.there), p->bytes[k]);
  }
  return GQ_OK;
}

/* ---- running ---- */

static void *address(const frame *f, const gq_loc *l) {
  switch (l->kind) {
    case LOC_ARENA: return f->arena + l->offset;
    case LOC_IN: return (char *)f->at[l->index] + l->offset;
    case LOC_OUT: return (char *)f->at[f->p->nin + l->index] + l->offset;
    case LOC_CONST: return (char *)((const code *)f->p->code)->constant + l->offset;
    default: return NULL;
  }
}

static int run_instr(const frame *f, int i) {
  const gq_instr *in = &f->p->instr[i];
  const step *s = &((const code *)f->p->code)->at[i];
  void *at[GQ_GROUP_VALUES] = { NULL };
  if (in->kind == INSTR_GROUP) {
    for (int l = 0; l < in->nloc; l++)
      at[l] = in->loc[l].kind == LOC_CONST ? NULL : address(f, &in->loc[l]); /* constants are in the text */
    return gq_cuda_launch(s->group, s->blocks, at);
  }
  for (int l = 0; l < in->nloc && l < 4; l++) at[l] = address(f, &in->loc[l]);
  if (s->zero) GQ_TRY(gq_cuda_set(at[0], 0, s->zero));
  if (in->kind == INSTR_INDEX) GQ_TRY(gq_cuda_flag(s->flag, &at[3]));
  return in->kind == INSTR_ZERO ? GQ_OK : gq_cuda_run(&s->l, at);
}

static int outside(const frame *f, int phase, int which, int64_t position) {
  for (int i = f->p->phase[phase]; i < f->p->phase[phase + 1]; i++) {
    const gq_instr *in = &f->p->instr[i];
    if (in->kind != INSTR_INDEX || ((const code *)f->p->code)->at[i].flag != which) continue;
    bool adds = in->as.index.op == GQ_OP_INDEX_ADD || in->as.index.op == GQ_OP_SCATTER_ADD;
    const gq_shape *big = adds ? &in->as.index.out : &in->as.index.x;
    return gq_cuda_outside(in->as.index.op, address(f, &in->loc[2]), position,
                           big->ndim ? big->dim[in->as.index.axis] : 1);
  }
  return GQ_OK;
}

static int run_phase(const gq_program *p, int phase, void *arena, void **at, void **host) {
  const code *c = p->code;
  size_t results, total;
  int which;
  int64_t position;
  GQ_TRY(bring(p, phase, at, host, &results, &total));
  frame f = { p, arena, at, results };
  for (int i = p->phase[phase]; i < p->phase[phase + 1]; i++) GQ_TRY(run_instr(&f, i));
  GQ_TRY(take(p, phase, at, host, results, total));
  if (!c->indexing[phase]) return GQ_OK;
  GQ_TRY(gq_cuda_flagged(c->indexing[phase], &which, &position));
  return which < 0 ? GQ_OK : outside(&f, phase, which, position);
}

static int group(const gq_program *p) {
  code *c = p->code;
  if (!c->grouped) GQ_TRY(load_groups(p, c));
  c->grouped = true;
  return GQ_OK;
}

static int run(const gq_program *p, int phase, void *arena, const void *const *in, void *const *out) {
  const code *c = p->code;
  void *at[p->nin + p->nout + 1], *host[p->nin + p->nout + 1];
  for (int u = c->used[phase]; u < c->used[phase + 1]; u++) {
    int k = c->used[u];
    at[k] = k < p->nin ? (void *)(uintptr_t)in[k] : out[k - p->nin];
  }
  pthread_mutex_lock(&stage.lock);
  int status = group(p);
  if (status == GQ_OK) status = run_phase(p, phase, arena, at, host);
  pthread_mutex_unlock(&stage.lock);
  return status;
}

/* ---- slices side by side ---- */

static int load_tile(const gq_program *p, int phase) {
  code *c = p->code;
  const gq_launch **l = gq_calloc((size_t)p->ninstr + 1, sizeof *l);
  size_t *zero = gq_calloc((size_t)p->ninstr + 1, sizeof *zero);
  int *flag = gq_calloc((size_t)p->ninstr + 1, sizeof *flag), n = c->used[phase + 1] - c->used[phase];
  int status = l && zero && flag ? GQ_OK : gq_nomem((size_t)p->ninstr * sizeof *l);
  for (int i = 0; i < p->ninstr && status == GQ_OK; i++)
    l[i] = &c->at[i].l, zero[i] = c->at[i].zero, flag[i] = c->at[i].flag;
  if (status == GQ_OK)
    status = gq_cuda_tile(p, phase, n, c->used + c->used[phase], l, zero, flag, &c->tile[phase]);
  gq_free(l);
  gq_free(zero);
  gq_free(flag);
  return status;
}

typedef struct sides {
  const gq_program *p;
  int phase, n, nin, nout;
  void *const *arena;
  const void *const *in;
  void *const *out;
} sides;

enum { ARENA = -1 };

/* Slice i's part of number k of inputs and outputs. */
static char *given(const sides *s, int i, int k) {
  if (k == ARENA) return s->arena[i];
  return k < s->p->nin ? (char *)(uintptr_t)s->in[(size_t)i * s->nin + k]
                       : s->out[(size_t)i * s->nout + k - s->p->nin];
}

/* How far a slice's part is from that of the one before; GQ_TABLE: now so, now so. */
static int64_t step_of(const sides *s, int k) {
  char *first = given(s, 0, k);
  int64_t step = s->n > 1 ? given(s, 1, k) - first : 0;
  for (int i = 2; i < s->n; i++)
    if (given(s, i, k) - first != i * step) return GQ_TABLE;
  return step;
}

/* What goes to the device before the kernel, and back after it: a part of the stage; without `fill` it is measured. */
typedef struct cargo {
  bool fill;
  size_t top, results;
} cargo;

static gq_operand put_table(const sides *s, int k, cargo *c) {
  gq_u64 *at = (gq_u64 *)(void *)(stage.here + c->top);
  gq_operand o = { (gq_u64)(uintptr_t)stage.there + c->top, GQ_TABLE };
  for (int i = 0; c->fill && i < s->n; i++) at[i] = (gq_u64)(uintptr_t)given(s, i, k);
  c->top += rounded((size_t)s->n * sizeof *at);
  return o;
}

/* The host's numbers: once where all slices have the same. Outputs too: some are added to. */
static gq_operand put_numbers(const sides *s, int k, int64_t step, cargo *c) {
  size_t bytes = s->p->bytes[k];
  int n = step ? s->n : 1;
  gq_operand o = { (gq_u64)(uintptr_t)stage.there + c->top, step ? (int64_t)rounded(bytes) : 0 };
  for (int i = 0; i < n; i++, c->top += rounded(bytes))
    if (c->fill) memcpy(stage.here + c->top, given(s, i, k), bytes);
  return o;
}

static gq_operand put_operand(const sides *s, int k, cargo *c) {
  char *first = given(s, 0, k);
  int64_t step = step_of(s, k);
  if (k != ARENA && !gq_cuda_owns(first)) return put_numbers(s, k, step, c);
  return step == GQ_TABLE ? put_table(s, k, c) : (gq_operand){ (gq_u64)(uintptr_t)first, step };
}

/* Outputs last: they alone go back. */
static void load(const sides *s, void *flags, gq_operand *of, cargo *c) {
  const code *own = s->p->code;
  const int *used = own->used + own->used[s->phase];
  int n = own->used[s->phase + 1] - own->used[s->phase];
  of[n + GQ_TILE_ARENA] = put_operand(s, ARENA, c);
  of[n + GQ_TILE_CONSTANT] = (gq_operand){ .base = (gq_u64)(uintptr_t)own->constant };
  of[n + GQ_TILE_FLAGS] = (gq_operand){ .base = (gq_u64)(uintptr_t)flags };
  for (int u = 0; u < n; u++)
    if (used[u] < s->p->nin) of[u] = put_operand(s, used[u], c);
  c->results = c->top;
  for (int u = 0; u < n; u++)
    if (used[u] >= s->p->nin) of[u] = put_operand(s, used[u], c);
}

static int unload(const sides *s, const gq_operand *of, const cargo *c) {
  const code *own = s->p->code;
  const int *used = own->used + own->used[s->phase];
  int n = own->used[s->phase + 1] - own->used[s->phase];
  char *there = stage.there;
  if (c->top == c->results) return GQ_OK;
  GQ_TRY(gq_cuda_get(stage.here + c->results, there + c->results, c->top - c->results));
  for (int u = 0; u < n; u++)
    for (int i = 0; i < s->n && used[u] >= s->p->nin && !gq_cuda_owns(given(s, 0, used[u])); i++)
      memcpy(given(s, i, used[u]), stage.here + (of[u].base - (gq_u64)(uintptr_t)there) + i * of[u].step,
             s->p->bytes[used[u]]);
  return GQ_OK;
}

static int run_tiles(const sides *s) {
  const code *c = s->p->code;
  int which, n = c->used[s->phase + 1] - c->used[s->phase] + GQ_TILE_MORE;
  const gq_tile *tile = &c->tile[s->phase];
  int64_t position;
  void *flags = NULL;
  gq_operand of[n];
  cargo load_ = { 0 };
  if (s->p->phase[s->phase] == s->p->phase[s->phase + 1]) return GQ_OK;
  if (!tile->f) GQ_TRY(load_tile(s->p, s->phase));
  if (c->indexing[s->phase]) GQ_TRY(gq_cuda_flag(0, &flags));
  load(s, flags, of, &load_);
  size_t args = n > GQ_TILE_DIRECT ? rounded(sizeof of) : 0;
  GQ_TRY(make_room(load_.top + args));
  load_ = (cargo){ .fill = true };
  load(s, flags, of, &load_);
  if (args) memcpy(stage.here + load_.top, of, sizeof of);
  GQ_TRY(gq_cuda_put(stage.there, stage.here, load_.top + args));
  gq_u64 at = (gq_u64)(uintptr_t)stage.there + load_.top;
  GQ_TRY(gq_cuda_launch_near(tile->f, s->n, tile->shared, args ? (const void *)&at : of));
  GQ_TRY(unload(s, of, &load_));
  if (!flags) return GQ_OK;
  GQ_TRY(gq_cuda_flagged(c->indexing[s->phase], &which, &position));
  return which < 0
           ? GQ_OK
           : gq_fail(GQ_EINDEX, "an index at position %lld of a slice is outside", (long long)position + 1);
}

static int side(const gq_program *p, int phase, int n, void *const *arena, const void *const *in, int nin,
                void *const *out, int nout) {
  sides s = { p, phase, n, nin, nout, arena, in, out };
  pthread_mutex_lock(&stage.lock);
  int status = run_tiles(&s);
  pthread_mutex_unlock(&stage.lock);
  return status;
}

/* ---- printing ---- */

static void print(const gq_program *p, int i, gq_text *t) {
  static const char *const names[] = { "group", "matmul", "", "move", "zero", "", "call", "window_add" };
  const gq_instr *in = &p->instr[i];
  const char *name = in->kind == INSTR_REDUCE  ? gq_core->ops[in->as.reduce.op].name
                     : in->kind == INSTR_INDEX ? gq_core->ops[in->as.index.op].name
                                               : names[in->kind];
  gq_text_put(t, "%s", name);
  if (in->kind == INSTR_GROUP) gq_text_put(t, " of %d on %lld", in->as.group.nop, (long long)cells(in));
  gq_text_put(t, "%s", in->add ? " +=>" : " =>");
  for (int l = 0; l < in->nloc; l++)
    if (in->loc[l].kind) gq_text_loc(t, &in->loc[l]);
  gq_text_put(t, "\n");
}

/* Launches, not arithmetic, are what narrow layers cost: a block for so many rows ($GQ_CUDA_TILES; 0: by operations). */
enum { NARROW = 128, ROWS = 16 };
static int slices(int64_t rows, int64_t width) {
  const char *given = getenv("GQ_CUDA_TILES");
  int64_t tile = given && *given ? atoll(given) : ROWS, n = tile > 0 ? rows / tile : 1;
  return width > NARROW ? 1 : n < MOST ? (int)n : MOST;
}

const gq_lowering gq_cuda_lowering = {
  .name = "ops",
  .columns = false,
  .slices = slices,
  .most = MOST,
  .lanes = 32,
  .points = 256,
  .pack = pack,
  .lower = lower,
  .run = run,
  .side = side,
  .release = release,
  .print = print,
};
