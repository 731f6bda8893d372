/*
** reach.c -- what an instruction of a tile reads and writes, and whether the block's threads keep to numbers of their own:
** thread i % threads has number i of what lies in order. Instructions that meet there alone need no barrier between them.
*/
#include "code.h"

/* One more, of a layout's numbers from there on; dims of 1 have any stride. The outermost dim repeats what the others span. */
static void add(gq_reaches *r, int loc, bool writes, int size, int ndim, const int64_t *dim,
                const int64_t *stride) {
  int64_t low = 0, high = 0, run = 1, period = 0, span = size;
  bool ordered = true;
  for (int k = ndim - 1; k >= 0; run *= dim[k--]) {
    int64_t last = (dim[k] - 1) * stride[k];
    if (dim[k] == 0) return;
    if (dim[k] == 1) continue;
    ordered = ordered && stride[k] == run;
    span = (high - low + 1) * size, period = stride[k] * size;
    if (last < 0) low += last;
    else high += last;
  }
  r->at[r->n++] = (gq_reach){ .loc = loc,
                              .writes = writes,
                              .each = ordered ? size : 0,
                              .from = low * size,
                              .to = (high + 1) * size,
                              .span = span,
                              .period = period > span ? period : 0 };
}

static void add_run(gq_reaches *r, int loc, bool writes, int size, int64_t n) {
  add(r, loc, writes, size, 1, &n, (const int64_t[]){ 1 });
}

static int size_of(gq_dtype d) { return (int)gq_dtype_size(d); }

static void of_group(const gq_instr *in, gq_reaches *r) {
  gq_shape s = in->as.group.shape;
  for (int v = 0; v < in->as.group.nvalue; v++) {
    const gq_cellvalue *x = &in->as.group.value[v];
    if (x->arg) add(r, v, false, size_of(x->dtype), s.ndim, s.dim, x->stride);
    if (x->stored) add_run(r, v, true, size_of(x->dtype), gq_numel(s));
  }
}

static void of_layout(gq_reaches *r, int loc, int size, const gq_layout *l) {
  add(r, loc, false, size, l->ndim, l->dim, l->stride);
}

/* A thread has four rows of a column: numbers of its own, where a row is shared evenly. */
static void of_product(const gq_instr *in, const gq_product_args *a, gq_reaches *r) {
  int size = size_of(in->as.gemm.dtype), first = r->n;
  of_layout(r, 1, size, &in->as.gemm.a);
  of_layout(r, 2, size, &in->as.gemm.b);
  if (in->nloc > 3) add(r, 3, false, size, 1, (const int64_t[]){ a->m }, (const int64_t[]){ a->cs });
  add_run(r, 0, true, size, a->m * a->n * a->batches);
  for (int i = first; i < r->n; i++) {
    bool columns =
      a->batches == 1 && (r->at[i].loc == 0 || (r->at[i].loc == 2 && a->br == a->n && a->bc == 1));
    if (columns) r->at[i].row = a->n;
    else r->at[i].each = 0;
  }
}

static void of_reduce(const gq_instr *in, const gq_part *part, gq_reaches *r) {
  gq_op op = in->as.reduce.op;
  const gq_layout *x = &in->as.reduce.x;
  bool place = op == GQ_OP_ARGMAX || op == GQ_OP_ARGMIN,
       sum = op == GQ_OP_SUM && !gq_is_float(in->as.reduce.dtype);
  int64_t kept = 1, mask = place ? 1 << in->as.reduce.axis : in->as.reduce.flags;
  for (int k = 0; k < x->ndim; k++) kept *= mask >> k & 1 ? 1 : x->dim[k];
  of_layout(r, 1, size_of(in->as.reduce.dtype), x);
  r->at[r->n - 1].each = 0;
  add_run(r, 0, true, place || sum ? size_of(GQ_I64) : size_of(in->as.reduce.dtype), kept);
  if (!part->few) return;
  r->at[r->n - 1].each = 0;
  r->at[r->n++] = (gq_reach){ .loc = -1, .writes = true, .to = 1 };
}

static void of_move(const gq_instr *in, gq_reaches *r) {
  const gq_layout *from = &in->as.move.from;
  of_layout(r, 1, (int)in->as.move.size, from);
  add(r, 0, true, (int)in->as.move.size, from->ndim, from->dim, in->as.move.to);
}

void gq_cuda_reaches(const gq_instr *in, const gq_launch *l, gq_reaches *r) {
  r->n = 0;
  switch (in->kind) {
    case INSTR_GROUP: of_group(in, r); break;
    case INSTR_GEMM: of_product(in, (const gq_product_args *)(const void *)l->args, r); break;
    case INSTR_REDUCE: of_reduce(in, &l->part, r); break;
    case INSTR_MOVE: of_move(in, r); break;
    default:
      for (int k = 0; k < in->nloc; k++)
        r->at[r->n++] = (gq_reach){ .loc = k, .writes = k == 0, .to = INT32_MAX };
  }
  for (int k = 0; in->add && k < r->n; k++) /* what is added to is read */
    if (r->at[k].loc == 0 && r->at[k].writes) {
      r->at[r->n] = r->at[k];
      r->at[r->n++].writes = false;
      break;
    }
}

/* Columns beside each other. */
static bool interleave(const gq_reach *a, const gq_reach *b) {
  if (!a->period || a->period != b->period) return false;
  int64_t off = ((b->from - a->from) % a->period + a->period) % a->period;
  return off >= a->span && off + b->span <= a->period;
}

static bool apiece(const gq_reach *r, int threads) { return r->each && r->row % threads == 0; }

bool gq_cuda_meet(const gq_reach *a, const gq_reach *b, int threads) {
  bool one = a->where == b->where || (a->where == GQ_ANYWHERE && b->where >= GQ_OUTSIDE);
  bool apart = !one || a->from >= b->to || b->from >= a->to || interleave(a, b);
  if (apart || !(a->writes || b->writes) || (a->own && b->own)) return false;
  return !apiece(a, threads) || !apiece(b, threads) || a->each != b->each ||
         (a->from - b->from) % ((int64_t)a->each * threads);
}

/* ---- rows apiece ---- */

/* Do so many rows lie innermost, each number of a row a whole number of them behind the one before? */
static bool innermost(int ndim, const int64_t *dim, const int64_t *stride, int64_t rows) {
  bool yes = ndim > 0 && dim[ndim - 1] == rows && stride[ndim - 1] == 1;
  int64_t numbers = 1;
  for (int k = 0; k < ndim - 1; k++) yes = yes && (dim[k] == 1 || stride[k] % rows == 0), numbers *= dim[k];
  return yes && numbers <= GQ_ROW_MOST;
}

static bool near(const gq_program *p, const gq_loc *l) {
  return l->kind == LOC_ARENA && l->offset >= p->lasting;
}

/* What all rows read: inputs, and a number, which each has for itself. */
static bool common(const gq_instr *in, int v) {
  gq_shape s = in->as.group.shape;
  const int64_t *stride = in->as.group.value[v].stride;
  bool one = true;
  for (int k = 0; k < s.ndim; k++) one = one && (s.dim[k] == 1 || stride[k] == 0);
  return one || (in->loc[v].kind == LOC_IN && stride[s.ndim - 1] == 0);
}

static bool rows_of_group(const gq_program *p, const gq_instr *in, int64_t rows) {
  gq_shape s = in->as.group.shape;
  bool one = gq_numel(s) == 1,
       yes = one || (s.ndim > 0 && s.dim[s.ndim - 1] == rows && gq_numel(s) <= rows * GQ_ROW_MOST);
  for (int v = 0; v < in->as.group.nvalue && yes; v++) {
    const gq_cellvalue *x = &in->as.group.value[v];
    if (x->stored && one) yes = near(p, &in->loc[v]);
    if (x->arg && in->loc[v].kind != LOC_CONST && !common(in, v))
      yes = innermost(s.ndim, s.dim, x->stride, rows);
  }
  return yes;
}

bool gq_cuda_by_rows(const gq_program *p, int i, int64_t rows) {
  const gq_instr *in = &p->instr[i];
  const gq_part *part = &((const gq_cuda_code *)p->code)->at[i].l.part;
  const gq_layout *from = &in->as.move.from, *x = &in->as.reduce.x;
  switch (in->kind) {
    case INSTR_GROUP: return rows_of_group(p, in, rows);
    case INSTR_ZERO: return near(p, &in->loc[0]) && in->as.zero % (sizeof(unsigned) * rows) == 0;
    case INSTR_MOVE:
      return innermost(from->ndim, from->dim, from->stride, rows) &&
             innermost(from->ndim, from->dim, in->as.move.to, rows);
    case INSTR_REDUCE:
      return gq_is_float(in->as.reduce.dtype) && part->op != GQ_OP_ARGMAX && part->op != GQ_OP_ARGMIN &&
             !part->few && !(in->as.reduce.flags >> (x->ndim - 1) & 1) &&
             innermost(x->ndim, x->dim, x->stride, rows);
    default: return false;
  }
}

int gq_cuda_row_size(const gq_instr *in, int loc) {
  if (in->kind == INSTR_MOVE) return (int)in->as.move.size;
  if (in->kind == INSTR_REDUCE) return size_of(in->as.reduce.dtype);
  const gq_cellvalue *v = &in->as.group.value[loc];
  return gq_numel(in->as.group.shape) == 1 || (v->arg && common(in, loc)) ? 0 : size_of(v->dtype);
}
