/*
** lower.c -- units to instructions: addresses in place of nodes, plans made once.
*/
#include "compile.h"

#include <string.h>

static int add_instr(gq_compiler *c, gq_instr_kind kind, int nloc, gq_instr **out) {
  gq_program *p = c->p;
  GQ_TRY(gq_room(&p->instr, &p->room, p->ninstr, sizeof *p->instr));
  gq_instr *i = &p->instr[p->ninstr];
  memset(i, 0, sizeof *i);
  i->kind = kind;
  i->nloc = nloc;
  i->loc = gq_pooled(&p->own, (size_t)nloc, sizeof *i->loc);
  p->ninstr++;
  *out = i;
  return gq_pool_status(&p->own);
}

static size_t size_of(const gq_compiler *c, gq_ref r) { return gq_dtype_size(node_of(c, r)->dtype); }

static gq_loc shifted(gq_loc l, int64_t numbers, size_t size) {
  l.offset += (size_t)numbers * size;
  return l;
}

static gq_loc loc_of(const gq_compiler *c, gq_ref r) {
  const gq_view *v = &c->view[r];
  return shifted(c->info[v->root].home, v->offset, size_of(c, r));
}

/* ---- groups ---- */

typedef struct builder {
  gq_compiler *c;
  gq_shape shape;
  int nvalue, nop;
  gq_cellvalue value[GQ_GROUP_VALUES];
  gq_cellop op[GQ_GROUP_VALUES];
  gq_loc loc[GQ_GROUP_VALUES];
} builder;

static void begin(builder *b, gq_compiler *c, gq_shape shape) {
  b->c = c, b->shape = shape, b->nvalue = b->nop = 0;
  memset(b->loc, 0, sizeof b->loc);
}

/* A value, or -1: full. */
static int add_value(builder *b, gq_dtype d) {
  if (b->nvalue == GQ_GROUP_VALUES) return -1;
  b->value[b->nvalue] = (gq_cellvalue){ .dtype = d };
  return b->nvalue++;
}

static int add_arg(builder *b, gq_dtype d, const int64_t *stride) {
  int v = add_value(b, d);
  if (v < 0) return v;
  b->value[v].arg = true;
  memcpy(b->value[v].stride, stride, (size_t)b->shape.ndim * sizeof *stride);
  return v;
}

static int add_op(builder *b, gq_op op, gq_dtype d, int nargs, const int *arg) {
  int v = b->nop < GQ_GROUP_VALUES ? add_value(b, d) : -1;
  if (v < 0) return v;
  gq_cellop *o = &b->op[b->nop++];
  *o = (gq_cellop){ .op = op, .out = (int16_t)v, .nargs = (int16_t)nargs };
  for (int i = 0; i < nargs; i++) o->arg[i] = (int16_t)arg[i];
  return v;
}

static bool same_loc(gq_loc a, gq_loc b) {
  return a.kind == b.kind && a.index == b.index && a.offset == b.offset;
}

/* The group's argument for operand `a`, the same one when it was asked for before. */
static int argument(builder *b, gq_ref a) {
  int64_t stride[GQ_MAXDIM] = { 0 };
  gq_layout l = gq_view_layout(b->c, a);
  gq_loc loc = loc_of(b->c, a);
  gq_layout_broadcast(&l, b->shape, stride);
  for (int v = 0; v < b->nvalue; v++)
    if (b->value[v].arg && b->value[v].dtype == node_of(b->c, a)->dtype && same_loc(b->loc[v], loc) &&
        memcmp(b->value[v].stride, stride, (size_t)b->shape.ndim * sizeof *stride) == 0)
      return v;
  int v = add_arg(b, node_of(b->c, a)->dtype, stride);
  if (v >= 0) b->loc[v] = loc;
  return v;
}

static void store(builder *b, int value, gq_loc loc) {
  b->value[value].stored = true;
  b->loc[value] = loc;
}

static int full(void) { return gq_fail(GQ_EUNSUPPORTED, "a group of element-wise operations is too large"); }

/* out[i] += value */
static int accumulate(builder *b, int value, gq_shape shape, gq_dtype d, int output) {
  int64_t stride[GQ_MAXDIM] = { 0 };
  gq_loc loc = { .kind = LOC_OUT, .index = output };
  gq_shape_strides(shape, stride);
  int old = add_arg(b, d, stride);
  int pair[2] = { old, value };
  int sum = old < 0 || value < 0 ? -1 : add_op(b, GQ_OP_ADD, d, 2, pair);
  if (sum < 0) return full();
  b->loc[old] = loc;
  store(b, sum, loc);
  return GQ_OK;
}

static void *copy_of(gq_program *p, const void *from, int n, size_t size) {
  void *to = gq_pooled(&p->own, (size_t)n, size);
  if (to) memcpy(to, from, (size_t)n * size);
  return to;
}

static int finish(builder *b) {
  gq_instr *i;
  GQ_TRY(add_instr(b->c, INSTR_GROUP, b->nvalue, &i));
  memcpy(i->loc, b->loc, (size_t)b->nvalue * sizeof *i->loc);
  i->as.group.shape = b->shape, i->as.group.nvalue = b->nvalue, i->as.group.nop = b->nop;
  i->as.group.value = copy_of(b->c->p, b->value, b->nvalue, sizeof *b->value);
  i->as.group.op = copy_of(b->c->p, b->op, b->nop, sizeof *b->op);
  return gq_pool_status(&b->c->p->own);
}

/* The same number may be stored and read again by a later node of the group. */
static int group_node(builder *b, const gq_unit *u, gq_ref r) {
  gq_compiler *c = b->c;
  const gq_node *n = node_of(c, r);
  int arg[3];
  for (int i = 0; i < n->nargs; i++) {
    const gq_info_root *root = &c->info[c->view[n->args[i]].root];
    arg[i] = root->unit == u - c->unit ? root->value : argument(b, n->args[i]);
    if (arg[i] < 0) return full();
  }
  int v = add_op(b, n->op, n->dtype, n->nargs, arg);
  if (v < 0) return full();
  c->info[r].value = v;
  if (c->info[r].home.kind != LOC_NONE) store(b, v, c->info[r].home);
  return GQ_OK;
}

static int lower_group(gq_compiler *c, const gq_unit *u, builder *b) {
  begin(b, c, node_of(c, c->order[u->first])->shape);
  for (int k = 0; k < u->count; k++) GQ_TRY(group_node(b, u, c->order[u->first + k]));
  for (int i = 0; i < c->nout; i++) {
    gq_ref root = c->view[c->outs[i].ref].root;
    const gq_node *n = node_of(c, root);
    if (c->direct[i] && c->outs[i].mode == GQ_ADD && c->info[root].unit == u - c->unit)
      GQ_TRY(accumulate(b, c->info[root].value, n->shape, n->dtype, i));
  }
  return finish(b);
}

static int lower_accumulate(gq_compiler *c, const gq_unit *u, builder *b) {
  gq_ref r = c->outs[u->output].ref;
  const gq_node *n = node_of(c, r);
  begin(b, c, n->shape);
  GQ_TRY(accumulate(b, argument(b, r), n->shape, n->dtype, u->output));
  return finish(b);
}

/* ---- single nodes ---- */

static int copy(gq_compiler *c, const gq_view *from, gq_shape shape, size_t size, gq_loc to,
                const int64_t *stride) {
  gq_instr *i;
  GQ_TRY(add_instr(c, INSTR_MOVE, 2, &i));
  i->loc[0] = to;
  i->loc[1] = shifted(c->info[from->root].home, from->offset, size);
  i->as.move.from = gq_layout_of(shape, from->stride);
  i->as.move.size = size;
  memcpy(i->as.move.to, stride, (size_t)shape.ndim * sizeof *stride);
  return GQ_OK;
}

static int lower_copy(gq_compiler *c, const gq_unit *u) {
  const gq_outspec *o = &c->outs[u->output];
  gq_shape shape = node_of(c, o->ref)->shape;
  int64_t stride[GQ_MAXDIM];
  gq_loc to = o->mode == GQ_KEEP ? c->keep[u->output] : (gq_loc){ .kind = LOC_OUT, .index = u->output };
  gq_shape_strides(shape, stride);
  return copy(c, &c->view[o->ref], shape, size_of(c, o->ref), to, stride);
}

static int lower_refuse(gq_compiler *c, gq_ref r) {
  return gq_fail(GQ_EUNSUPPORTED, "%s cannot be compiled", gq_ops[node_of(c, r)->op].name);
}
#define lower_cell lower_refuse  /* cells come in groups, */
#define lower_input lower_refuse /* and leaves have a home */
#define lower_const lower_refuse

static bool adds(const gq_compiler *c, gq_ref r) {
  const gq_loc *home = &c->info[r].home;
  return home->kind == LOC_OUT && c->outs[home->index].mode == GQ_ADD;
}

/* A view that some reader needs as a plain array. RESHAPE of strided data: in the operand's shape. */
static int lower_view(gq_compiler *c, gq_ref r) {
  const gq_node *n = node_of(c, r);
  gq_view v = gq_compose(c, r);
  gq_shape shape = n->shape;
  int64_t stride[GQ_MAXDIM];
  if (v.root == GQ_NONE && n->op != GQ_OP_RESHAPE) return lower_refuse(c, r);
  if (v.root == GQ_NONE) {
    v = c->view[n->args[0]];
    shape = node_of(c, n->args[0])->shape;
  }
  gq_shape_strides(shape, stride);
  return copy(c, &v, shape, size_of(c, r), c->info[r].home, stride);
}

/* An instruction that writes r's home from its first nargs operands. */
static int from_operands(gq_compiler *c, gq_ref r, gq_instr_kind kind, int nargs, gq_instr **out) {
  GQ_TRY(add_instr(c, kind, nargs + 1, out));
  (*out)->loc[0] = c->info[r].home;
  for (int k = 0; k < nargs; k++) (*out)->loc[k + 1] = loc_of(c, node_of(c, r)->args[k]);
  return GQ_OK;
}

static int lower_product(gq_compiler *c, gq_ref r) {
  const gq_node *n = node_of(c, r);
  gq_instr *i;
  GQ_TRY(from_operands(c, r, INSTR_GEMM, n->nargs, &i));
  i->add = adds(c, r);
  i->as.gemm.dtype = n->dtype, i->as.gemm.flags = n->attr.flags;
  i->as.gemm.a = gq_view_layout(c, n->args[0]), i->as.gemm.b = gq_view_layout(c, n->args[1]);
  if (n->nargs == 3) i->as.gemm.column = gq_view_layout(c, n->args[2]).stride[0];
  return GQ_OK;
}

static int lower_reduce(gq_compiler *c, gq_ref r) {
  const gq_node *n = node_of(c, r);
  gq_instr *i;
  GQ_TRY(from_operands(c, r, INSTR_REDUCE, 1, &i));
  i->add = adds(c, r);
  i->as.reduce.op = n->op, i->as.reduce.dtype = node_of(c, n->args[0])->dtype;
  i->as.reduce.axis = n->attr.axis, i->as.reduce.flags = n->attr.flags;
  i->as.reduce.x = gq_view_layout(c, n->args[0]);
  return GQ_OK;
}

static int lower_move(gq_compiler *c, gq_ref r) {
  const gq_node *n = node_of(c, r);
  size_t size = size_of(c, r), rest = (size_t)gq_numel(n->shape);
  gq_landing l = { 0 };
  gq_instr *i;
  for (int k = 0; k < n->nargs; k++) rest -= (size_t)gq_numel(node_of(c, n->args[k])->shape);
  if (rest) { /* zeros, where no operand lands */
    GQ_TRY(add_instr(c, INSTR_ZERO, 1, &i));
    i->loc[0] = c->info[r].home;
    i->as.zero = (size_t)gq_numel(n->shape) * size;
  }
  for (int k = 0; k < n->nargs; k++) {
    gq_shape s = node_of(c, n->args[k])->shape;
    if (!gq_layout_land(n->op, &n->attr, n->shape, s, &l)) return lower_refuse(c, r);
    if (gq_numel(s))
      GQ_TRY(copy(c, &c->view[n->args[k]], s, size, shifted(c->info[r].home, l.at, size), l.stride));
  }
  return GQ_OK;
}

static int lower_index(gq_compiler *c, gq_ref r) {
  const gq_node *n = node_of(c, r);
  gq_instr *i;
  GQ_TRY(from_operands(c, r, INSTR_INDEX, n->nargs, &i));
  i->as.index = (gq_indexing){ .op = n->op, .dtype = n->dtype, .attr = n->attr };
  i->as.index.attr.shape = n->shape;
  for (int k = 0; k < n->nargs; k++) i->as.index.in[k] = node_of(c, n->args[k])->shape;
  return GQ_OK;
}

/* Parameters are operands for their gradients' sake: the callback knows their values. */
static int lower_call(gq_compiler *c, gq_ref r) {
  const gq_node *n = node_of(c, r);
  gq_instr *i;
  GQ_TRY(from_operands(c, r, INSTR_CALL, n->op == GQ_OP_CALL ? 3 : 4, &i));
  i->as.what = n->attr.flags;
  return GQ_OK;
}

static int lower_conv(gq_compiler *c, gq_ref r) {
  gq_instr *i;
  GQ_TRY(from_operands(c, r, INSTR_CONV, 2, &i));
  i->add = adds(c, r);
  i->as.conv = c->fused[r]->conv;
  return GQ_OK;
}

/* Passes prepare operands by class: with another run than its own an operation would read what is not there. */
enum {
  RUNS_cell = 1 << GQ_CELL,
  RUNS_input = 1 << GQ_LEAF,
  RUNS_const = 1 << GQ_LEAF,
  RUNS_view = 1 << GQ_VIEW,
  RUNS_move = 1 << GQ_MOVE,
  RUNS_reduce = 1 << GQ_REDUCE | 1 << GQ_PLACE,
  RUNS_product = 1 << GQ_PRODUCT,
  RUNS_index = 1 << GQ_INDEX,
  RUNS_call = 1 << GQ_CALL,
  RUNS_conv = 1 << GQ_WINDOWED,
  RUNS_refuse = -1
};
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, batch, columns, jet, vjp, reads, run, doc) \
  _Static_assert(RUNS_##run >> GQ_##class & 1, #n ": class and run do not go together");
#include "../ir/ops.def"

static int (*const rules[GQ_NOP])(gq_compiler *c, gq_ref r) = {
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, batch, columns, jet, vjp, reads, run, doc) \
  [GQ_OP_##N] = lower_##run,
#include "../ir/ops.def"
};

int gq_pass_lower(gq_compiler *c) {
  gq_program *p = c->p;
  builder *b = gq_alloc(sizeof *b);
  int status = b ? GQ_OK : gq_nomem(sizeof *b), phase = 0;
  for (int u = 0; u < c->nunit && status == GQ_OK; u++) {
    const gq_unit *unit = &c->unit[u];
    while (phase <= unit->phase) p->phase[phase++] = p->ninstr;
    switch (unit->kind) {
      case UNIT_GROUP: status = lower_group(c, unit, b); break;
      case UNIT_NODE: {
        gq_ref r = c->order[unit->first];
        status = rules[node_of(c, r)->op](c, r);
        break;
      }
      case UNIT_COPY: status = lower_copy(c, unit); break;
      case UNIT_ACCUMULATE: status = lower_accumulate(c, unit, b); break;
    }
  }
  while (phase <= p->nphase) p->phase[phase++] = p->ninstr;
  gq_free(b);
  return status == GQ_OK ? p->on->lowering->lower(p) : status;
}
