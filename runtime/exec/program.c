/*
** program.c -- compiling a graph, running a phase of the result, printing it. A program is
** immutable: any number of threads may run it, each with an arena of its own.
*/
#include "compile.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- compiling ---- */

static int check_outputs(const gq_graph *g, int n, const gq_outspec *outs, int *nphase) {
  *nphase = 0;
  GQ_TRY(gq_graph_status(g));
  for (int i = 0; i < n; i++) {
    if (outs[i].ref < 0 || outs[i].ref >= gq_graph_size(g))
      return gq_fail(GQ_EARG, "output %d of the program is no node of the graph", i + 1);
    if (outs[i].phase < 0 || outs[i].phase > 1000)
      return gq_fail(GQ_EARG, "output %d of the program: phase %d is outside 0..1000", i + 1, outs[i].phase);
    if (outs[i].phase >= *nphase) *nphase = outs[i].phase + 1;
  }
  return GQ_OK;
}

static int start(gq_compiler *c, gq_program *p, int nphase) {
  size_t n = (size_t)c->n + 1, nout = (size_t)c->nout + 1;
  c->info = gq_calloc(n, sizeof *c->info);
  c->view = gq_calloc(n, sizeof *c->view);
  c->order = gq_calloc(n, sizeof *c->order);
  c->unit = gq_calloc(n + nout, sizeof *c->unit);
  c->keep = gq_calloc(nout, sizeof *c->keep);
  c->direct = gq_calloc(nout, sizeof *c->direct);
  p->phase = gq_calloc((size_t)nphase + 1, sizeof *p->phase);
  p->out = gq_calloc(nout, sizeof *p->out);
  p->nphase = nphase;
  p->nout = c->nout;
  c->p = p;
  return c->info && c->view && c->order && c->unit && c->keep && c->direct && p->phase && p->out
           ? GQ_OK
           : gq_nomem(n * sizeof *c->view);
}

static void finish(gq_compiler *c) {
  gq_free(c->info);
  gq_free(c->view);
  gq_free(c->order);
  gq_free(c->unit);
  gq_free(c->keep);
  gq_free(c->direct);
}

static int compile(gq_compiler *c, gq_program *p, int nphase) {
  GQ_TRY(start(c, p, nphase));
  GQ_TRY(gq_pass_alias(c));
  GQ_TRY(gq_pass_schedule(c));
  GQ_TRY(gq_pass_plan(c));
  return gq_pass_lower(c);
}

int gq_program_new(const gq_graph *g, int n, const gq_outspec *outs, gq_program **p) {
  int nphase;
  *p = NULL;
  GQ_TRY(check_outputs(g, n, outs, &nphase));
  gq_program *made = gq_calloc(1, sizeof *made);
  if (!made) return gq_nomem(sizeof *made);
  gq_compiler c = { .g = g, .n = gq_graph_size(g), .nout = n, .outs = outs };
  int status = compile(&c, made, nphase);
  finish(&c);
  if (status == GQ_OK) *p = made;
  else gq_program_free(made);
  return status;
}

void gq_program_free(gq_program *p_) {
  if (!p_) return;
  for (int i = 0; i < p_->ninstr; i++) {
    gq_instr *in = &p_->instr[i];
    gq_free(in->loc);
    if (in->kind != INSTR_GROUP) continue;
    gq_free(in->as.group.value);
    gq_free(in->as.group.micro);
    gq_free(in->as.group.moving);
  }
  gq_free(p_->instr);
  gq_free(p_->phase);
  gq_free(p_->constant);
  gq_free(p_->out);
  gq_free(p_);
}

size_t gq_program_arena(const gq_program *p) { return p->arena; }

void *gq_program_at(const gq_program *p, void *arena, int i) {
  return i >= 0 && i < p->nout && p->out[i].kind == LOC_ARENA ? (char *)arena + p->out[i].offset : NULL;
}

/* ---- running ---- */

typedef struct frame {
  char *arena, *constant;
  const void *const *in;
  void *const *out;
} frame;

static inline void *address(const frame *f, const gq_loc *l) {
  switch (l->kind) {
    case LOC_ARENA: return f->arena + l->offset;
    case LOC_IN: return (char *)(uintptr_t)f->in[l->index] + l->offset; /* read only */
    case LOC_OUT: return (char *)f->out[l->index] + l->offset;
    case LOC_CONST: return f->constant + l->offset;
    default: return NULL;
  }
}

enum { SHARED = 1 << 14 }; /* numbers that are worth waking the other threads */

typedef struct sharing {
  const gq_program *p;
  const gq_group *g;
  char *registers;
  int pieces;
  void *base[GQ_GROUP_VALUES];
} sharing;

static void run_tiles(void *ctx, int i) {
  const sharing *s = ctx;
  gq_group_run(s->g, s->base, s->registers + (size_t)i * s->p->registers, s->g->ntile * i / s->pieces,
               s->g->ntile * (i + 1) / s->pieces);
}

static void run_group(const gq_program *p, const frame *f, const gq_instr *in) {
  sharing s = { .p = p, .g = &in->as.group, .registers = f->arena + p->scratch };
  for (int i = 0; i < in->nloc; i++) s.base[i] = address(f, &in->loc[i]);
  s.pieces = s.g->rows * s.g->width >= SHARED && gq_workers() <= p->workers ? gq_workers() : 1;
  if (s.pieces > 1) gq_parallel(s.pieces, run_tiles, &s);
  else gq_group_run(s.g, s.base, s.registers, 0, s.g->ntile);
}

static int run_instr(const gq_program *p, const frame *f, const gq_instr *in) {
  if (in->kind == INSTR_GROUP) {
    run_group(p, f, in);
    return GQ_OK;
  }
  void *out = address(f, &in->loc[0]);
  const void *a = in->nloc > 1 ? address(f, &in->loc[1]) : NULL,
             *b = in->nloc > 2 ? address(f, &in->loc[2]) : NULL;
  switch (in->kind) {
    case INSTR_GEMM: {
      const void *column = in->nloc > 3 ? address(f, &in->loc[3]) : NULL;
      gq_gemm_run(&in->as.gemm, a, b, column, out, in->add);
      break;
    }
    case INSTR_REDUCE: gq_reduce_run(&in->as.reduce, a, out, in->add); break;
    case INSTR_MOVE: gq_move(&in->as.move.from, in->as.move.size, a, out, in->as.move.to); break;
    case INSTR_ZERO:
      if (in->as.zero) memset(out, 0, in->as.zero);
      break;
    case INSTR_CALL:
      return gq_callback_run(a, b, address(f, &in->loc[3]), in->nloc > 4 ? address(f, &in->loc[4]) : NULL,
                             in->as.what, out);
    default: return gq_indexing_run(&in->as.index, a, b, out);
  }
  return GQ_OK;
}

/* ---- profile ---- */

static bool profiling; /* by one thread, while nothing runs */
static _Thread_local double spent[3];

void gq_profile(bool on) {
  profiling = on;
  memset(spent, 0, sizeof spent);
}

void gq_profile_get(double seconds[3]) { memcpy(seconds, spent, sizeof spent); }

static int run_timed(const gq_program *p, const frame *f, const gq_instr *in) {
  double started = gq_clock();
  int status = run_instr(p, f, in);
  spent[in->kind == INSTR_GEMM ? 0 : in->kind == INSTR_GROUP ? 1 : 2] += gq_clock() - started;
  return status;
}

int gq_program_run(const gq_program *p, int phase, void *arena, const void *const *in, void *const *out) {
  frame f = { arena, (char *)p->constant, in, out };
  int (*one)(const gq_program *, const frame *, const gq_instr *) = profiling ? run_timed : run_instr;
  if (phase < 0 || phase >= p->nphase) return GQ_OK; /* nothing belongs to it */
  for (int i = p->phase[phase]; i < p->phase[phase + 1]; i++) GQ_TRY(one(p, &f, &p->instr[i]));
  return GQ_OK;
}

/* ---- printing ---- */

typedef struct text {
  char *s;
  size_t n, room;
  bool failed;
} text;

__attribute__((format(printf, 2, 3))) static void put(text *t, const char *fmt, ...) {
  char line[256];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  if (n < 0 || t->failed) return;
  size_t len = (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
  if (t->n + len + 1 > t->room) {
    size_t room = 2 * (t->n + len) + 1024;
    char *more = gq_realloc(t->s, room);
    if (!more) {
      t->failed = true;
      return;
    }
    t->s = more;
    t->room = room;
  }
  memcpy(t->s + t->n, line, len + 1);
  t->n += len;
}

static void put_loc(text *t, const gq_loc *l) {
  static const char *const names[] = { "?", "arena", "in", "out", "const" };
  if (l->kind == LOC_IN || l->kind == LOC_OUT) put(t, " %s%d", names[l->kind], l->index);
  else put(t, " %s", names[l->kind]);
  if (l->offset || l->kind == LOC_ARENA) put(t, "+%zu", l->offset);
}

static void put_operand(text *t, const gq_instr *in, int v) {
  if (in->loc[v].kind) put_loc(t, &in->loc[v]);
  else put(t, " %%%d", v);
}

static void put_group(text *t, const gq_instr *in) {
  const gq_group *g = &in->as.group;
  put(t, "group of %d on {%lld, %lld}: %lld tiles of %lld x %lld\n", g->nmicro, (long long)g->rows,
      (long long)g->width, (long long)g->ntile, (long long)g->tile_rows, (long long)g->tile_cols);
  for (int k = 0; k < g->nmicro; k++) {
    const gq_micro *m = &g->micro[k];
    put(t, "       ");
    put_operand(t, in, m->out);
    put(t, " = %s%s", gq_ops[m->op].name, m->nargs == 3 && m->op != GQ_OP_WHERE ? " of product" : "");
    for (int i = 0; i < m->nargs; i++) put_operand(t, in, m->arg[i]);
    put(t, "\n");
  }
}

static void put_instr(text *t, const gq_instr *in) {
  static const char *const names[] = { "group", "matmul", "", "move", "zero", "", "call" };
  if (in->kind == INSTR_GROUP) {
    put_group(t, in);
    return;
  }
  const gq_gemm *g = &in->as.gemm;
  if (in->kind == INSTR_REDUCE) put(t, "%s", gq_ops[in->as.reduce.op].name);
  else if (in->kind == INSTR_INDEX) put(t, "%s", gq_ops[in->as.index.op].name);
  else put(t, "%s", names[in->kind]);
  if (in->kind == INSTR_GEMM)
    put(t, " %s [%lld x %lld%s] [%lld x %lld%s]", gq_dtype_name(g->dtype), (long long)g->m, (long long)g->k,
        g->ta ? "'" : "", (long long)g->k, (long long)g->n, g->tb ? "'" : "");
  put(t, "%s", in->add ? " +=>" : " =>");
  for (int i = 0; i < in->nloc; i++) put_loc(t, &in->loc[i]);
  put(t, "\n");
}

char *gq_program_print(const gq_program *p) {
  text t = { 0 };
  put(&t, "program: %d instructions, %zu bytes of arena, registers from %zu\n", p->ninstr, p->arena,
      p->scratch);
  for (int phase = 0; phase < p->nphase; phase++) {
    put(&t, "phase %d\n", phase);
    for (int i = p->phase[phase]; i < p->phase[phase + 1]; i++) {
      put(&t, "  %3d ", i);
      put_instr(&t, &p->instr[i]);
    }
  }
  for (int i = 0; i < p->nout; i++)
    if (p->out[i].kind) put(&t, "keep %d at %zu\n", i, p->out[i].offset);
  if (!t.failed) return t.s;
  gq_free(t.s);
  return NULL;
}
