/*
** side.c -- slices side by side: a phase as one launch, and many attempts of a solve one after the other.
*/
#include "code.h"

#include <string.h>

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
typedef struct staging {
  bool fill, returns;
  size_t top, results;
} staging;

static gq_operand at_stage(size_t at, int64_t step, int64_t turn) {
  return (gq_operand){ gq_far(gq_stage.there) + at, step, turn };
}

/* Room for n addresses in the stage: to be written, or NULL. */
static gq_u64 *take_table(staging *c, size_t n) {
  gq_u64 *table = (gq_u64 *)(void *)(gq_stage.here + c->top);
  c->top += gq_cuda_rounded(n * sizeof *table);
  return c->fill ? table : NULL;
}

static gq_operand put_table(const sides *s, int k, staging *c) {
  gq_operand o = at_stage(c->top, GQ_TABLE, 0);
  gq_u64 *table = take_table(c, s->n);
  for (int i = 0; table && i < s->n; i++) table[i] = gq_far(given(s, i, k));
  return o;
}

/* The host's numbers: once where all slices have the same. Outputs too: some are added to. */
static gq_operand put_numbers(const sides *s, int k, int64_t step, staging *c) {
  size_t bytes = s->p->bytes[k];
  int n = step ? s->n : 1;
  gq_operand o = at_stage(c->top, step ? (int64_t)gq_cuda_rounded(bytes) : 0, 0);
  for (int i = 0; i < n; i++, c->top += gq_cuda_rounded(bytes))
    if (c->fill) memcpy(gq_stage.here + c->top, given(s, i, k), bytes);
  return o;
}

static gq_operand put_operand(const sides *s, int k, staging *c) {
  char *first = given(s, 0, k);
  int64_t step = step_of(s, k);
  if (k != ARENA && !gq_cuda_owns(first)) return put_numbers(s, k, step, c);
  return step == GQ_TABLE ? put_table(s, k, c) : (gq_operand){ gq_far(first), step, 0 };
}

static const int *used_of(const sides *s, int *n) {
  const gq_cuda_code *c = s->p->code;
  *n = c->used[s->phase + 1] - c->used[s->phase];
  return c->used + c->used[s->phase];
}

int gq_cuda_rest(const gq_program *p, int n) {
  gq_cuda_code *c = p->code;
  size_t bytes = (size_t)n * gq_cuda_rest_bytes(p);
  if (bytes <= c->room) return GQ_OK;
  gq_cuda_release(c->rest);
  c->rest = gq_cuda_allocate(bytes), c->room = c->rest ? bytes : 0;
  return c->rest ? GQ_OK : gq_nomem(bytes);
}

void gq_cuda_put_rest(const gq_program *p, int n, void *flags, gq_operand *of) {
  const gq_cuda_code *c = p->code;
  of[n + GQ_TILE_REST] =
    (gq_operand){ .base = gq_far(c->rest) - p->lasting, .step = (int64_t)gq_cuda_rest_bytes(p) };
  of[n + GQ_TILE_CONSTANT] = (gq_operand){ .base = gq_far(c->constant) };
  of[n + GQ_TILE_FLAGS] = (gq_operand){ .base = gq_far(flags) };
}

/* Outputs last: they alone go back. */
static void load(const sides *s, void *flags, gq_operand *of, staging *c) {
  int n;
  const int *used = used_of(s, &n);
  of[n + GQ_TILE_ARENA] = put_operand(s, ARENA, c);
  gq_cuda_put_rest(s->p, n, flags, of);
  for (int u = 0; u < n; u++)
    if (used[u] < s->p->nin) of[u] = put_operand(s, used[u], c);
  c->results = c->top;
  for (int u = 0; u < n; u++)
    if (used[u] >= s->p->nin) {
      of[u] = put_operand(s, used[u], c);
      c->returns = c->returns || !gq_cuda_owns(given(s, 0, used[u]));
    }
}

static int unload(const sides *s, const gq_operand *of, const staging *c) {
  int n;
  const int *used = used_of(s, &n);
  char *there = gq_stage.there;
  if (!c->returns) return GQ_OK;
  GQ_TRY(gq_cuda_get(gq_stage.here + c->results, there + c->results, c->top - c->results));
  for (int u = 0; u < n; u++)
    for (int i = 0; i < s->n && used[u] >= s->p->nin && !gq_cuda_owns(given(s, 0, used[u])); i++)
      memcpy(given(s, i, used[u]), gq_stage.here + (of[u].base - gq_far(there)) + i * of[u].step,
             s->p->bytes[used[u]]);
  return GQ_OK;
}

/* Arguments of a kernel with n operands; where there are too many of them, they travel. */
int gq_cuda_tile_launch(const gq_tile *tile, int blocks, const gq_tile_args *args, int n, size_t at) {
  struct {
    gq_u64 loop, sums, at, each, of;
  } far = { args->loop, args->sums, args->at, args->each, gq_far(gq_stage.there) + at };
  return gq_cuda_launch_near(tile->f, blocks, tile->threads, tile->shared,
                             n > GQ_TILE_DIRECT ? (const void *)&far : args);
}

size_t gq_cuda_args_bytes(int n) { return sizeof(gq_tile_args) + (size_t)n * sizeof(gq_operand); }

/* Behind the staging. */
size_t gq_cuda_far_bytes(int n) {
  return n > GQ_TILE_DIRECT ? gq_cuda_rounded((size_t)n * sizeof(gq_operand)) : 0;
}

int gq_cuda_indexed(int indexing) {
  int which;
  int64_t position;
  if (!indexing) return GQ_OK;
  GQ_TRY(gq_cuda_flagged(indexing, &which, &position));
  return which < 0
           ? GQ_OK
           : gq_fail(GQ_EINDEX, "an index at position %lld of a slice is outside", (long long)position + 1);
}

static int run_tiles(const sides *s) {
  const gq_cuda_code *c = s->p->code;
  int n;
  used_of(s, &n);
  n += GQ_TILE_MORE;
  gq_tile *tile = &c->tile[s->phase];
  void *flags = NULL;
  _Alignas(8) char room[gq_cuda_args_bytes(n)];
  gq_tile_args *args = (gq_tile_args *)(void *)room;
  staging x = { 0 };
  *args = (gq_tile_args){ 0 };
  if (s->p->phase[s->phase] == s->p->phase[s->phase + 1]) return GQ_OK;
  if (!tile->f) GQ_TRY(gq_cuda_tile(GQ_WAY_ONCE, 1, &(gq_phase){ .p = s->p, .phase = s->phase }, tile));
  if (tile->rests) GQ_TRY(gq_cuda_rest(s->p, s->n));
  if (c->indexing[s->phase]) GQ_TRY(gq_cuda_flag(0, &flags));
  load(s, flags, args->of, &x);
  GQ_TRY(gq_cuda_stage_room(x.top + gq_cuda_far_bytes(n)));
  x = (staging){ .fill = true };
  load(s, flags, args->of, &x);
  if (gq_cuda_far_bytes(n)) memcpy(gq_stage.here + x.top, args->of, (size_t)n * sizeof(gq_operand));
  GQ_TRY(gq_cuda_put(gq_stage.there, gq_stage.here, x.top + gq_cuda_far_bytes(n)));
  GQ_TRY(gq_cuda_tile_launch(tile, s->n, args, n, x.top));
  GQ_TRY(unload(s, args->of, &x));
  return gq_cuda_indexed(c->indexing[s->phase]);
}

int gq_cuda_side(const gq_program *p, int phase, int n, void *const *arena, const void *const *in, int nin,
                 void *const *out, int nout) {
  sides s = { p, phase, n, nin, nout, arena, in, out };
  pthread_mutex_lock(&gq_stage.lock);
  int status = run_tiles(&s);
  pthread_mutex_unlock(&gq_stage.lock);
  return status;
}


/* ---- many attempts ---- */

enum { RUNS = 2 }; /* a class of slices each */

typedef struct job {
  const gq_stepjob *c;
  sides run[RUNS];
  int first[RUNS], nrun;
  gq_tile_args *args[RUNS];
  size_t far[RUNS];
} job;

/* A table of where a state is at each step, for slices of this run. */
static gq_operand put_move(const sides *s, int k, void *const *at, int steps, staging *c) {
  gq_operand o = at_stage(c->top, step_of(s, k), 1);
  gq_u64 *table = take_table(c, steps);
  ptrdiff_t offset = given(s, 0, k) - (char *)at[0];
  for (int i = 0; table && i < steps; i++) table[i] = gq_far((char *)at[i] + offset);
  return o;
}

static gq_operand put_arenas(const job *f, int r, staging *c) {
  const sides *s = &f->run[r];
  gq_operand o = at_stage(c->top, GQ_TABLE, s->n);
  gq_u64 *table = take_table(c, (size_t)f->c->steps * s->n);
  for (int i = 0; table && i < f->c->steps; i++)
    for (int b = 0; b < s->n; b++)
      table[i * s->n + b] = gq_far(f->c->arena[(size_t)i * f->c->nslices + f->first[r] + b]);
  return o;
}

/* What is at `at` of each step's record. */
static gq_operand put_records(const gq_stepjob *c, size_t at, staging *x) {
  gq_operand o = at_stage(x->top, 0, 1);
  gq_u64 *table = take_table(x, c->steps);
  for (int i = 0; table && i < c->steps; i++) table[i] = at_stage((size_t)i * c->bytes + at, 0, 0).base;
  return o;
}

/* Number k: of the loop, a state, a sum, or what any attempt reads. The loop comes first, sums behind it. */
static gq_operand put_number(const job *f, int r, int k, staging *x) {
  const gq_stepjob *c = f->c;
  const sides *s = &f->run[r];
  int out = k - s->p->nin;
  for (int i = 0; i < c->nread; i++)
    if (c->read[i].k == k) return c->phase ? put_records(c, c->read[i].at, x) : at_stage(c->read[i].at, 0, 0);
  for (int i = 0; i < c->nmove; i++) {
    if (c->move[i].in == k) return put_move(s, k, c->move[i].at, c->steps, x);
    if (out >= 0 && c->move[i].out == out) return put_move(s, k, c->move[i].at + 1, c->steps, x);
  }
  if (k >= c->given && k < c->given + c->ngiven) return put_move(s, k, c->path, c->steps, x);
  for (int i = 0; i < c->nsum; i++)
    if (c->sum[i] == out)
      return at_stage(gq_cuda_rounded(c->bytes) + ((size_t)i * c->nslices + f->first[r]) * sizeof(double),
                      sizeof(double), 0);
  return put_operand(s, k, x);
}

static void load_job(job *f, void *flags, staging *x) {
  const gq_stepjob *c = f->c;
  size_t first = c->bytes * (size_t)(c->phase ? c->steps : 1);
  x->top = gq_cuda_rounded(first) + gq_cuda_rounded((size_t)c->nsum * c->nslices * sizeof(double));
  if (x->fill) memcpy(gq_stage.here, c->loop, first);
  for (int r = 0, n; r < f->nrun; r++) {
    const int *used = used_of(&f->run[r], &n);
    gq_operand *of = f->args[r]->of;
    f->args[r]->loop = at_stage(0, 0, 0).base,
    f->args[r]->sums = at_stage(gq_cuda_rounded(c->bytes), 0, 0).base;
    f->args[r]->at = c->bytes, f->args[r]->each = (gq_u64)c->steps;
    if (c->ngiven && !c->phase) {
      f->args[r]->at = (gq_u64)(given(&f->run[r], 0, c->given) - (char *)c->path[0]);
      f->args[r]->each = f->run[r].p->bytes[c->given];
    }
    of[n + GQ_TILE_ARENA] = put_arenas(f, r, x);
    gq_cuda_put_rest(f->run[r].p, n, flags, of);
    for (int u = 0; u < n; u++) of[u] = put_number(f, r, used[u], x);
    if (x->fill)
      memcpy(gq_stage.here + x->top, of,
             gq_cuda_far_bytes(n + GQ_TILE_MORE) ? (size_t)(n + GQ_TILE_MORE) * sizeof *of : 0);
    f->far[r] = x->top;
    x->top += gq_cuda_far_bytes(n + GQ_TILE_MORE);
  }
}

static gq_way way_of(const gq_stepjob *c) {
  return c->phase ? GQ_WAY_AFTER : c->ngiven ? GQ_WAY_ALONG : GQ_WAY_ATTEMPT;
}

static int run_job(job *f) {
  const gq_stepjob *c = f->c;
  void *flags = NULL;
  staging x = { 0 };
  int indexing = 0, n;
  gq_way way = way_of(c);
  gq_tile *tile[RUNS] = { NULL };
  for (int r = 0; r < f->nrun; r++) {
    tile[r] = gq_cuda_tile_of(f->run[r].p, way);
    if (!tile[r]->f) {
      gq_phase of = { .p = f->run[r].p, .phase = c->phase, .job = c };
      GQ_TRY(gq_cuda_tile(way, 1, &of, tile[r]));
    }
    if (tile[r]->rests) GQ_TRY(gq_cuda_rest(f->run[r].p, f->run[r].n));
    const gq_cuda_code *code = f->run[r].p->code;
    if (code->indexing[c->phase] > indexing) indexing = code->indexing[c->phase];
  }
  if (indexing) GQ_TRY(gq_cuda_flag(0, &flags));
  load_job(f, flags, &x);
  GQ_TRY(gq_cuda_stage_room(x.top));
  x = (staging){ .fill = true };
  load_job(f, flags, &x);
  GQ_TRY(gq_cuda_put(gq_stage.there, gq_stage.here, x.top));
  for (int i = 0; i < (c->phase ? 1 : c->attempts); i++)
    for (int r = 0; r < f->nrun; r++) {
      used_of(&f->run[r], &n);
      GQ_TRY(gq_cuda_tile_launch(tile[r], f->run[r].n, f->args[r], n + GQ_TILE_MORE, f->far[r]));
    }
  if (!c->phase) GQ_TRY(gq_cuda_get(c->loop, gq_stage.there, c->bytes));
  return gq_cuda_indexed(indexing);
}

static void split(job *f) {
  const gq_stepjob *c = f->c;
  for (int s = 0, n; s < c->nslices; s += n) {
    for (n = 1; s + n < c->nslices && c->class_of[s + n] == c->class_of[s];) n++;
    GQ_ASSERT(f->nrun < RUNS);
    f->first[f->nrun] = s;
    f->run[f->nrun++] = (sides){
      c->prog[c->class_of[s]],     c->phase, n, c->nin, c->nout, c->arena + s, c->in + (size_t)s * c->nin,
      c->out + (size_t)s * c->nout
    };
  }
}

int gq_cuda_advance(gq_stepjob *c) {
  job f = { .c = c };
  int n[RUNS] = { 0 };
  split(&f);
  for (int r = 0; r < f.nrun; r++) used_of(&f.run[r], &n[r]);
  _Alignas(8) char room[RUNS][gq_cuda_args_bytes((n[0] > n[1] ? n[0] : n[1]) + GQ_TILE_MORE)];
  for (int r = 0; r < RUNS; r++) f.args[r] = (gq_tile_args *)(void *)room[r];
  pthread_mutex_lock(&gq_stage.lock);
  int status = run_job(&f);
  pthread_mutex_unlock(&gq_stage.lock);
  return status;
}
