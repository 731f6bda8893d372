/*
** code.c -- a program on the CPU: instructions with kernels, tile registers and products as BLAS takes them, one for
** each of the program's; running and printing them.
*/
#include "../compile.h"
#include "cpu.h"

#include <string.h>

/* A convolution and its packed weight. An input does not change while a phase runs: it is packed once for all that read it
** alike; what is computed is packed for each, in one place. */
typedef struct convolution {
  gq_convolution plan;
  size_t packed; /* bytes from the first packed input, */
  int weight;    /* and which of them it is, or -1 */
} convolution;

/* What a gq_loc is once a program runs: base[table][index] + offset of a frame. */
enum { OWN, IN, OUT, TABLES };
enum { ARENA, REST, CONSTANTS, OWNED };
typedef struct place {
  int16_t table, loc; /* loc: of the instruction's, its number */
  int32_t index;
  size_t offset;
} place;

typedef struct instr {
  int nplace;
  const place *place; /* of the instruction's locs but those of values in registers */
  union {
    gq_group group;
    gq_gemm gemm;
    gq_reduce reduce;
    convolution conv;
  } as;
} instr;

typedef struct code {
  gq_pool own;      /* what the instructions point to */
  size_t registers; /* bytes of one worker's tile registers, or piece of windows, behind the values */
  int workers;      /* that have some; behind them: */
  size_t passing;   /* bytes of a packed weight that is no input; behind it: */
  size_t lasting;   /* bytes of all that are inputs, */
  int weights;      /* so many */
  instr at[];
} code;

/* ---- lowering ---- */

typedef struct builder {
  gq_group_value value[GQ_GROUP_VALUES];
  gq_micro micro[GQ_GROUP_VALUES];
  int16_t list[2 * GQ_GROUP_VALUES];
} builder;

static void *copy_of(code *c, const void *from, int n, size_t size) {
  void *to = gq_pooled(&c->own, (size_t)n, size);
  if (to) memcpy(to, from, (size_t)n * size);
  return to;
}

static int lower_group(const gq_instr *in, builder *b, code *c, gq_group *out) {
  gq_group g;
  int k = 0;
  gq_group_begin(&g, in->as.group.shape, GQ_GROUP_VALUES, b->value, b->micro, b->list);
  for (int v = 0; v < in->as.group.nvalue; v++) {
    const gq_cellvalue *x = &in->as.group.value[v];
    if (x->arg) {
      gq_group_arg(&g, x->dtype, x->stride);
    } else {
      const gq_cellop *o = &in->as.group.op[k++];
      int arg[3];
      for (int i = 0; i < o->nargs; i++) arg[i] = o->arg[i];
      gq_group_op(&g, o->op, x->dtype, o->nargs, arg);
    }
    if (x->stored) gq_group_store(&g, v);
  }
  GQ_TRY(gq_group_finish(&g));
  g.value = copy_of(c, b->value, g.nvalue, sizeof *b->value);
  g.micro = copy_of(c, b->micro, g.nmicro, sizeof *b->micro);
  g.list = copy_of(c, b->list, g.nmoving + g.nheld, sizeof *b->list);
  *out = g;
  return gq_pool_status(&c->own);
}

static bool same_input(const gq_loc *a, const gq_loc *b) {
  return a->kind == LOC_IN && b->kind == LOC_IN && a->index == b->index && a->offset == b->offset;
}

/* Instruction i, whose weight may be packed already. */
static void lower_conv(const gq_instr *in, int i, code *c) {
  convolution *v = &c->at[i].as.conv;
  *v = (convolution){ .plan = gq_conv_plan(&in[i].as.conv), .packed = c->lasting, .weight = -1 };
  if (c->registers < v->plan.scratch) c->registers = gq_round64(v->plan.scratch);
  for (int k = 0; k < i; k++) {
    const convolution *w = &c->at[k].as.conv;
    if (in[k].kind != INSTR_CONV || !same_input(&in[k].loc[1], &in[i].loc[1])) continue;
    if (!gq_conv_shares(&v->plan, &w->plan)) continue;
    v->packed = w->packed, v->weight = w->weight;
    return;
  }
  size_t n = gq_round64(v->plan.shared);
  if (n && in[i].loc[1].kind == LOC_IN) c->lasting += n, v->weight = c->weights++;
  else if (c->passing < n) c->passing = n;
}

static int lower_instr(const gq_instr *in, builder *b, code *c, instr *at) {
  int pack;
  switch (in->kind) {
    case INSTR_GROUP:
      GQ_TRY(lower_group(in, b, c, &at->as.group));
      if (c->registers < at->as.group.scratch) c->registers = gq_round64(at->as.group.scratch);
      return GQ_OK;
    case INSTR_GEMM:
      GQ_TRY(gq_gemm_plan(&at->as.gemm, in->as.gemm.dtype, &in->as.gemm.a, &in->as.gemm.b, in->as.gemm.column,
                          in->as.gemm.flags, &pack));
      return GQ_OK;
    case INSTR_REDUCE: {
      gq_attr attr = { .axis = in->as.reduce.axis, .flags = in->as.reduce.flags };
      return gq_reduce_plan(&at->as.reduce, in->as.reduce.op, in->as.reduce.dtype, &in->as.reduce.x, &attr);
    }
    default: return GQ_OK;
  }
}

static place place_of(const gq_program *p, const gq_loc *l, int i) {
  place at = { .loc = (int16_t)i, .offset = l->offset };
  switch (l->kind) {
    case LOC_IN: at.table = IN, at.index = l->index; break;
    case LOC_OUT: at.table = OUT, at.index = l->index; break;
    case LOC_CONST: at.index = CONSTANTS; break;
    default: at.index = l->offset < p->lasting ? ARENA : REST;
  }
  return at;
}

static int lower_places(const gq_program *p, code *c) {
  size_t n = 0;
  for (int i = 0; i < p->ninstr; i++) n += (size_t)p->instr[i].nloc;
  place *next = gq_pooled(&c->own, n, sizeof *next);
  GQ_TRY(gq_pool_status(&c->own));
  for (int i = 0; i < p->ninstr; i++) {
    const gq_instr *in = &p->instr[i];
    c->at[i].place = next;
    for (int l = 0; l < in->nloc; l++)
      if (in->loc[l].kind != LOC_NONE) *next++ = place_of(p, &in->loc[l], l);
    c->at[i].nplace = (int)(next - c->at[i].place);
  }
  return GQ_OK;
}

int gq_cpu_lower(gq_program *p) {
  builder *b = gq_alloc(sizeof *b);
  code *c = p->code = gq_calloc(1, sizeof *c + (size_t)p->ninstr * sizeof *c->at);
  int status = b && c ? lower_places(p, c) : gq_nomem((size_t)p->ninstr * sizeof *c->at);
  for (int i = 0; i < p->ninstr && status == GQ_OK; i++)
    if (p->instr[i].kind == INSTR_CONV) lower_conv(p->instr, i, c);
    else status = lower_instr(&p->instr[i], b, c, &c->at[i]);
  gq_free(b);
  GQ_TRY(status);
  c->workers = gq_workers();
  if (!gq_size_add((size_t)c->workers * c->registers + c->passing + c->lasting, p->values, &p->arena))
    return gq_fail(GQ_ENOMEM, "the program's arena does not fit in memory");
  return GQ_OK;
}

void gq_cpu_release(gq_program *p) {
  code *c = p->code;
  if (c) gq_pool_free(&c->own);
  gq_free(c);
}

int gq_cpu_pack(gq_dtype d, const gq_layout *a, const gq_layout *b, int flags, int *pack) {
  gq_gemm g;
  return gq_gemm_plan(&g, d, a, b, 0, flags, pack);
}

/* ---- running ---- */

typedef struct frame {
  const gq_program *p;
  const code *c;
  const void *const *base[TABLES];
  char *registers;
  bool *ready; /* which inputs are packed, of those that are weights */
} frame;

/* Inputs are read only. */
static inline void *address(const frame *f, const place *l) {
  return (char *)(uintptr_t)f->base[l->table][l->index] + l->offset;
}

static int workers(const frame *f) { return gq_workers() <= f->c->workers ? gq_workers() : 1; }

typedef struct sharing {
  const code *c;
  const gq_group *g;
  char *registers;
  int pieces;
  void *base[GQ_GROUP_VALUES];
} sharing;

static void run_tiles(void *ctx, int i) {
  sharing *s = ctx;
  gq_group_run(s->g, s->base, s->registers + (size_t)i * s->c->registers, s->g->ntile * i / s->pieces,
               s->g->ntile * (i + 1) / s->pieces);
}

static int run_group(const frame *f, const gq_instr *in, const instr *at) {
  const gq_group *g = &at->as.group;
  sharing s; /* not zeroed: base is long, and most groups are short */
  for (const place *l = at->place, *end = l + at->nplace; l < end; l++) s.base[l->loc] = address(f, l);
  if (g->rows * g->width >= GQ_SHARED_NUMBERS && (s.pieces = workers(f)) > 1) {
    s.c = f->c, s.g = g, s.registers = f->registers;
    gq_parallel(s.pieces, run_tiles, &s);
  } else gq_group_run(g, s.base, f->registers, 0, g->ntile);
  return GQ_OK;
}

static int run_gemm(const frame *f, const gq_instr *in, const instr *at) {
  const place *l = at->place;
  return gq_gemm_run(&at->as.gemm, address(f, &l[1]), address(f, &l[2]),
                     in->nloc > 3 ? address(f, &l[3]) : NULL, address(f, &l[0]), in->add);
}

static int run_reduce(const frame *f, const gq_instr *in, const instr *at) {
  gq_reduce_run(&at->as.reduce, address(f, &at->place[1]), address(f, &at->place[0]), in->add);
  return GQ_OK;
}

static int run_move(const frame *f, const gq_instr *in, const instr *at) {
  const gq_layout *from = &in->as.move.from;
  gq_copy_numbers(in->as.move.size, from->ndim, from->dim, address(f, &at->place[1]), from->stride,
                  address(f, &at->place[0]), in->as.move.to);
  return GQ_OK;
}

static int run_zero(const frame *f, const gq_instr *in, const instr *at) {
  if (in->as.zero) memset(address(f, &at->place[0]), 0, in->as.zero);
  return GQ_OK;
}

static int run_index(const frame *f, const gq_instr *in, const instr *at) {
  const void *from[] = { address(f, &at->place[1]), in->nloc > 2 ? address(f, &at->place[2]) : NULL };
  return gq_indexing_run(&in->as.index, from, address(f, &at->place[0]));
}

static int run_call(const frame *f, const gq_instr *in, const instr *at) {
  const place *l = at->place;
  return gq_callback_run(address(f, &l[1]), address(f, &l[2]), address(f, &l[3]),
                         in->nloc > 4 ? address(f, &l[4]) : NULL, in->as.what, address(f, &l[0]));
}

static int run_conv(const frame *f, const gq_instr *in, const instr *at) {
  const place *l = at->place;
  const code *c = f->c;
  const convolution *v = &at->as.conv;
  char *packed = f->registers + (size_t)c->workers * c->registers;
  bool input = v->weight >= 0, ready = input && f->ready[v->weight];
  if (input) packed += c->passing + v->packed, f->ready[v->weight] = true;
  return gq_conv_run(&v->plan, address(f, &l[1]), address(f, &l[2]), address(f, &l[0]), in->add, f->registers,
                     c->registers, packed, ready, workers(f));
}

static int (*const runs[])(const frame *f, const gq_instr *in, const instr *at) = {
  [INSTR_GROUP] = run_group, [INSTR_GEMM] = run_gemm,   [INSTR_REDUCE] = run_reduce, [INSTR_MOVE] = run_move,
  [INSTR_ZERO] = run_zero,   [INSTR_INDEX] = run_index, [INSTR_CALL] = run_call,     [INSTR_CONV] = run_conv
};

static int run_instr(const frame *f, int i) {
  const gq_instr *in = &f->p->instr[i];
  return runs[in->kind](f, in, &f->c->at[i]);
}

/* ---- profile ---- */

static bool profiling; /* by one thread, while nothing runs */
static _Thread_local double spent[3];

void gq_profile(bool on) {
  profiling = on;
  memset(spent, 0, sizeof spent);
}

void gq_profile_get(double seconds[3]) { memcpy(seconds, spent, sizeof spent); }

static int run_timed(const frame *f, int i) {
  gq_instr_kind kind = f->p->instr[i].kind;
  double started = gq_clock();
  int status = run_instr(f, i);
  spent[kind == INSTR_GEMM ? 0 : kind == INSTR_GROUP ? 1 : 2] += gq_clock() - started;
  return status;
}

/* ---- what is read later ---- */

static _Thread_local struct {
  const char *from;
  size_t lines;
} soon;

void gq_cpu_soon(const void *from, size_t bytes) { soon.from = from, soon.lines = bytes / 64; }

/* Its share of one of n instructions that are left: so the processor waits for none of it. */
static void ask(int n) {
  size_t some = (soon.lines + n - 1) / n;
  for (size_t i = 0; i < some; i++) __builtin_prefetch(soon.from + 64 * i, 0, 2);
  soon.from += 64 * some, soon.lines -= some;
}

int gq_cpu_run(const gq_program *p, int phase, void *arena, void *rest, const void *const *in,
               void *const *out) {
  const code *c = p->code;
  bool ready[c->weights + 1];
  memset(ready, 0, sizeof ready);
  const void *own[OWNED] = { [ARENA] = arena, [REST] = rest, [CONSTANTS] = p->constant };
  frame f = { p, c, { own, in, (const void *const *)out }, (char *)rest + p->values, ready };
  int (*one)(const frame *, int) = profiling ? run_timed : run_instr;
  for (int i = p->phase[phase], n = p->phase[phase + 1]; i < n; i++) {
    if (soon.lines) ask(n - i);
    GQ_TRY(one(&f, i));
  }
  return GQ_OK;
}

/* ---- printing ---- */

static void put_operand(gq_text *t, const gq_instr *in, int v) {
  if (in->loc[v].kind) gq_text_loc(t, &in->loc[v]);
  else gq_text_put(t, " %%%d", v);
}

static void put_group(gq_text *t, const gq_instr *in, const gq_group *g) {
  gq_text_put(t, " of %d on {%lld, %lld}: %lld tiles of %lld x %lld\n", g->nmicro, (long long)g->rows,
              (long long)g->width, (long long)g->ntile, (long long)g->tile_rows, (long long)g->tile_cols);
  for (int k = 0; k < g->nmicro; k++) {
    const gq_micro *m = &g->micro[k];
    const gq_group_value *x = &g->value[m->out];
    gq_text_put(t, "       ");
    put_operand(t, in, m->out);
    gq_text_put(t, " = %s%s", gq_ops[m->op].name,
                m->nargs == 3 && m->op != GQ_OP_WHERE         ? " of product"
                : m->fn == gq_cpu()->fall[x->dtype != GQ_F32] ? " by softplus"
                                                              : "");
    for (int i = 0; i < m->nargs; i++) put_operand(t, in, m->arg[i]);
    gq_text_put(t, "\n");
  }
}

static void put_conv(gq_text *t, const gq_conv *v) {
  static const char *const kinds[] = { "", " of data", " of weight" };
  gq_text_put(t, "%s %s %lld of {%lld, %lld, %lld} by %lld x {%lld x %lld} to {%lld, %lld}", kinds[v->kind],
              gq_dtype_name(v->dtype), (long long)v->blocks, (long long)v->c, (long long)v->size[0],
              (long long)v->size[1], (long long)v->m, (long long)v->k[0], (long long)v->k[1],
              (long long)v->count[0], (long long)v->count[1]);
}

void gq_cpu_print(const gq_program *p, int i, gq_text *t) {
  const gq_instr *in = &p->instr[i];
  const instr *at = &((const code *)p->code)->at[i];
  if (in->kind == INSTR_GROUP) {
    put_group(t, in, &at->as.group);
    return;
  }
  const gq_gemm *g = &at->as.gemm;
  if (in->kind == INSTR_GEMM)
    gq_text_put(t, " %s [%lld x %lld%s] [%lld x %lld%s]", gq_dtype_name(g->dtype), (long long)g->m,
                (long long)g->k, g->ta ? "'" : "", (long long)g->k, (long long)g->n, g->tb ? "'" : "");
  if (in->kind == INSTR_CONV) put_conv(t, &in->as.conv);
  gq_text_locs(t, in);
}
