/*
** code.c -- a program by operations: a launch for each instruction, its groups compiled as one module. Numbers that the
** host holds (times, tolerances, sums that it decides by) travel in one copy before a phase and one after it.
*/
#include "code.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- lowering ---- */

static int64_t cells(const gq_instr *in) { return gq_numel(in->as.group.shape); }

static int lower_instr(const gq_instr *in, gq_cuda_step *s) {
  switch (in->kind) {
    case INSTR_GEMM:
      return gq_cuda_product(&s->l, in->as.gemm.dtype, &in->as.gemm.a, &in->as.gemm.b, in->as.gemm.flags,
                             in->as.gemm.column, in->add);
    case INSTR_REDUCE:
      return gq_cuda_reduce(&s->l, in->as.reduce.op, in->as.reduce.dtype, &in->as.reduce.x,
                            in->as.reduce.axis, in->as.reduce.flags, in->add);
    case INSTR_MOVE: return gq_cuda_bytes(&s->l, in->as.move.size, &in->as.move.from, in->as.move.to);
    case INSTR_ZERO: s->zero = in->as.zero; return GQ_OK;
    case INSTR_INDEX: return gq_cuda_index(&s->l, &in->as.index, &s->zero);
    case INSTR_CALL:
      return gq_fail(GQ_EUNSUPPORTED, "cuda: a function of Lua runs on the CPU alone: use x:to(\"cpu\")");
    default: return GQ_OK;
  }
}

/* Indices, with a word that tells which was outside. */
static bool checks(const gq_instr *in, const gq_cuda_step *s) {
  return in->kind == INSTR_INDEX && s->l.np > in->nloc;
}

static int load_groups(const gq_program *p, gq_cuda_code *c) {
  int *which = gq_calloc((size_t)p->ninstr + 1, sizeof *which),
      status = which ? GQ_OK : gq_nomem(sizeof *which);
  gq_text t = { 0 };
  bool any = false;
  for (int i = 0; i < p->ninstr; i++) any = any || p->instr[i].kind == INSTR_GROUP;
  gq_cuda_text(&t, GQ_NT);
  if (any && status == GQ_OK) status = gq_cuda_groups(1, &p, &t, &which);
  for (int i = 0; i < p->ninstr && status == GQ_OK; i++) {
    char name[16];
    if (p->instr[i].kind != INSTR_GROUP) continue;
    snprintf(name, sizeof name, "g%d", which[i]);
    c->at[i].blocks = gq_cuda_blocks(cells(&p->instr[i]));
    status = gq_cuda_kernel(t.s, name, &c->groups, &c->at[i].group);
  }
  gq_free(which);
  gq_free(t.s);
  return status;
}

static int load_constants(const gq_program *p, gq_cuda_code *c) {
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
static int find_used(const gq_program *p, gq_cuda_code *c) {
  size_t all = (size_t)p->nin + p->nout;
  bool *seen = gq_pooled(&c->own, all, 1);
  c->used = gq_pooled(&c->own, (size_t)p->nphase + 1 + all * p->nphase, sizeof *c->used);
  c->indexing = gq_pooled(&c->own, (size_t)p->nphase + 1, sizeof *c->indexing);
  GQ_TRY(gq_pool_status(&c->own));
  int n = p->nphase + 1;
  for (int q = 0; q < p->nphase; q++) {
    memset(seen, 0, all);
    c->used[q] = n;
    for (int i = p->phase[q]; i < p->phase[q + 1]; i++) {
      if (checks(&p->instr[i], &c->at[i])) c->at[i].flag = c->indexing[q]++;
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
  return GQ_OK;
}

static int lower(gq_program *p) {
  gq_cuda_code *c = p->code = gq_calloc(1, sizeof *c + (size_t)p->ninstr * sizeof *c->at);
  if (!c) return gq_nomem((size_t)p->ninstr * sizeof *c->at);
  p->arena = p->values;
  for (int i = 0; i < p->ninstr; i++) GQ_TRY(lower_instr(&p->instr[i], &c->at[i]));
  c->tile = gq_pooled(&c->own, (size_t)p->nphase + GQ_NWAY, sizeof *c->tile);
  GQ_TRY(gq_pool_status(&c->own));
  GQ_TRY(load_constants(p, c));
  return find_used(p, c);
}

static void release(gq_program *p) {
  gq_cuda_code *c = p->code;
  if (!c) return;
  pthread_mutex_lock(&gq_stage.lock);
  gq_cuda_forget(p);
  gq_cuda_let_go(c->groups);
  for (int i = 0; c->tile && i < p->nphase + GQ_NWAY; i++) gq_cuda_let_go(c->tile[i].held);
  pthread_mutex_unlock(&gq_stage.lock);
  gq_cuda_release(c->constant);
  gq_cuda_release(c->rest);
  gq_pool_free(&c->own);
  gq_free(c);
}

/* A product takes any strides. */
static int pack(gq_dtype d, const gq_layout *a, const gq_layout *b, int flags, int *bits) {
  *bits = 0;
  return GQ_OK;
}

/* ---- what the host holds ---- */

typedef struct frame {
  const gq_program *p;
  char *arena, *rest;
  void **at; /* addresses of inputs and, from nin on, of outputs */
  int phase;
} frame;

/* Addresses for a phase: the device's own, or places in the gq_stage. at[] holds what the caller gave. */
static int bring(const gq_program *p, int phase, void **at, void **host, size_t *results, size_t *total) {
  const gq_cuda_code *c = p->code;
  size_t n[2] = { 0, 0 };
  for (int u = c->used[phase]; u < c->used[phase + 1]; u++) {
    int k = c->used[u];
    host[k] = gq_cuda_owns(at[k]) ? NULL : at[k];
    if (host[k]) n[k >= p->nin] += gq_cuda_rounded(p->bytes[k]);
  }
  *results = n[0], *total = n[0] + n[1];
  GQ_TRY(gq_cuda_stage_room(*total));
  n[1] = n[0], n[0] = 0;
  for (int u = c->used[phase]; u < c->used[phase + 1]; u++) {
    int k = c->used[u];
    size_t *top = &n[k >= p->nin];
    if (!host[k]) continue;
    memcpy(gq_stage.here + *top, host[k], p->bytes[k]); /* outputs too: some are added to */
    at[k] = gq_stage.there + *top;
    *top += gq_cuda_rounded(p->bytes[k]);
  }
  return gq_cuda_put(gq_stage.there, gq_stage.here, *total);
}

static int take(const gq_program *p, int phase, void *const *at, void *const *host, size_t results,
                size_t total) {
  const gq_cuda_code *c = p->code;
  if (results == total) return GQ_OK;
  GQ_TRY(gq_cuda_get(gq_stage.here + results, gq_stage.there + results, total - results));
  for (int u = c->used[phase]; u < c->used[phase + 1]; u++) {
    int k = c->used[u];
    if (k >= p->nin && host[k])
      memcpy(host[k], gq_stage.here + ((char *)at[k] - gq_stage.there), p->bytes[k]);
  }
  return GQ_OK;
}

/* ---- running ---- */

static void *address(const frame *f, const gq_loc *l) {
  switch (l->kind) {
    case LOC_ARENA: return (l->offset < f->p->lasting ? f->arena : f->rest) + l->offset;
    case LOC_IN: return (char *)f->at[l->index] + l->offset;
    case LOC_OUT: return (char *)f->at[f->p->nin + l->index] + l->offset;
    case LOC_CONST: return (char *)((const gq_cuda_code *)f->p->code)->constant + l->offset;
    default: return NULL;
  }
}

static int run_instr(const frame *f, int i) {
  const gq_instr *in = &f->p->instr[i];
  const gq_cuda_step *s = &((const gq_cuda_code *)f->p->code)->at[i];
  void *at[GQ_GROUP_VALUES] = { NULL };
  if (in->kind == INSTR_GROUP) {
    for (int l = 0; l < in->nloc; l++)
      at[l] = in->loc[l].kind == LOC_CONST ? NULL : address(f, &in->loc[l]); /* constants are in the text */
    return gq_cuda_launch(s->group, s->blocks, at);
  }
  for (int l = 0; l < in->nloc && l < 4; l++) at[l] = address(f, &in->loc[l]);
  if (s->zero) GQ_TRY(gq_cuda_set(at[0], 0, s->zero));
  if (checks(in, s)) GQ_TRY(gq_cuda_flag(s->flag, &at[3]));
  return in->kind == INSTR_ZERO ? GQ_OK : gq_cuda_run(&s->l, at, !f->p->alike);
}

/* given: inputs and outputs that the phase uses, inputs first. */
static int order_of(const frame *f, int *order) {
  const gq_cuda_code *c = f->p->code;
  int n = 0, nin = 0;
  for (int out = 0; out < 2; out++) {
    for (int u = c->used[f->phase]; u < c->used[f->phase + 1]; u++)
      if ((c->used[u] >= f->p->nin) == out) order[n++] = c->used[u];
    if (!out) nin = n;
  }
  return nin;
}

static int run_all(const frame *f) {
  for (int i = f->p->phase[f->phase]; i < f->p->phase[f->phase + 1]; i++) GQ_TRY(run_instr(f, i));
  return GQ_OK;
}

static int run_given(const void *f_, void *const *given) {
  frame f = *(const frame *)f_;
  const gq_cuda_code *c = f.p->code;
  int n = c->used[f.phase + 1] - c->used[f.phase], order[n + 1];
  void *at[f.p->nin + f.p->nout + 1];
  order_of(&f, order);
  for (int i = 0; i < n; i++) at[order[i]] = given[i];
  f.at = at;
  return run_all(&f);
}

/* Few launches are not worth a graph. */
enum { WORTH = 3 };
static int launch_all(const frame *f) {
  const gq_cuda_code *c = f->p->code;
  const gq_program *p = f->p;
  int n = c->used[f->phase + 1] - c->used[f->phase], order[n + 1];
  void *at[n + 1];
  size_t bytes[n + 1];
  if (p->phase[f->phase + 1] - p->phase[f->phase] < WORTH) return run_all(f);
  int nin = order_of(f, order);
  for (int i = 0; i < n; i++) at[i] = f->at[order[i]], bytes[i] = p->bytes[order[i]];
  return gq_cuda_recur(&(gq_recurring){ p, f->arena, f->rest, f->phase, n, nin, at, bytes, run_given, f });
}

static int outside(const frame *f, int phase, int which, int64_t position) {
  for (int i = f->p->phase[phase]; i < f->p->phase[phase + 1]; i++) {
    const gq_instr *in = &f->p->instr[i];
    const gq_cuda_step *s = &((const gq_cuda_code *)f->p->code)->at[i];
    if (checks(in, s) && s->flag == which)
      return gq_cuda_outside(&in->as.index, address(f, &in->loc[2]), position);
  }
  return GQ_OK;
}

static int run_phase(const frame *f, void **host) {
  const gq_cuda_code *c = f->p->code;
  size_t results, total;
  int which;
  int64_t position;
  GQ_TRY(bring(f->p, f->phase, f->at, host, &results, &total));
  GQ_TRY(launch_all(f));
  GQ_TRY(take(f->p, f->phase, f->at, host, results, total));
  if (!c->indexing[f->phase]) return GQ_OK;
  GQ_TRY(gq_cuda_flagged(c->indexing[f->phase], &which, &position));
  return which < 0 ? GQ_OK : outside(f, f->phase, which, position);
}

static int group(const gq_program *p) {
  gq_cuda_code *c = p->code;
  if (!c->grouped) GQ_TRY(load_groups(p, c));
  c->grouped = true;
  return GQ_OK;
}

static int run(const gq_program *p, int phase, void *arena, void *rest, const void *const *in,
               void *const *out) {
  const gq_cuda_code *c = p->code;
  void *at[p->nin + p->nout + 1], *host[p->nin + p->nout + 1];
  for (int u = c->used[phase]; u < c->used[phase + 1]; u++) {
    int k = c->used[u];
    at[k] = k < p->nin ? (void *)(uintptr_t)in[k] : out[k - p->nin];
  }
  pthread_mutex_lock(&gq_stage.lock);
  int status = group(p);
  if (status == GQ_OK) status = run_phase(&(frame){ p, arena, rest, at, phase }, host);
  pthread_mutex_unlock(&gq_stage.lock);
  return status;
}

/* ---- printing ---- */

static void print(const gq_program *p, int i, gq_text *t) {
  const gq_instr *in = &p->instr[i];
  if (in->kind == INSTR_GROUP) gq_text_put(t, " of %d on %lld", in->as.group.nop, (long long)cells(in));
  gq_text_locs(t, in);
}

/* Launches, not arithmetic, are what narrow layers cost: a block for so many rows ($GQ_CUDA_TILES; 0: by operations). */
enum { NARROW = 128, ROWS = 16 };
static int slices(int64_t rows, int64_t width, int64_t common) {
  const char *given = getenv("GQ_CUDA_TILES");
  int64_t tile = given && *given ? atoll(given) : ROWS, n = tile > 0 ? rows / tile : 1;
  return width > NARROW ? 1 : n < GQ_CUDA_SLICES ? (int)n : GQ_CUDA_SLICES;
}

const gq_lowering gq_cuda_lowering = {
  .name = "ops",
  .columns = false,
  .slices = slices,
  .most = GQ_CUDA_SLICES,
  .pack = pack,
  .lower = lower,
  .run = run,
  .side = gq_cuda_side,
  .release = release,
  .print = print,
};
