/*
** batch.c -- vmap: a graph evaluated for n values of some inputs at once. A batched value has
** the new axis in front; the others stay as they are, so parameters are not repeated and a
** product by them is one product over n times the rows.
*/
#include "internal.h"

#include <string.h>

typedef struct batch {
  gq_graph *g;
  int64_t n;
  const gq_node *node;   /* of src */
  const gq_shape *shape; /* src shapes of its operands */
  gq_ref *args;          /* its operands in g */
  bool *on;              /* which of them are batched */
} batch;

static gq_shape with_front(int64_t n, gq_shape s) {
  gq_shape r = { .ndim = s.ndim + 1 };
  r.dim[0] = n;
  for (int i = 0; i < s.ndim; i++) r.dim[i + 1] = s.dim[i];
  return r;
}

/* Batched operand i as {n, 1.., its dims} with `rank` dims after n. */
static void align(batch *b, int i, int rank) {
  gq_shape s = b->shape[i], to = { .ndim = rank + 1 };
  if (!b->on[i] || s.ndim >= rank) return;
  to.dim[0] = b->n;
  for (int k = 1; k <= rank; k++) to.dim[k] = k <= rank - s.ndim ? 1 : s.dim[k - 1 - (rank - s.ndim)];
  b->args[i] = gq_reshape(b->g, b->args[i], to);
}

/* Operand i repeated along the new axis if it is not batched. */
static void repeat(batch *b, int i) {
  if (!b->on[i]) b->args[i] = gq_expand(b->g, b->args[i], with_front(b->n, b->shape[i]));
  b->on[i] = true;
}

/* The node's attributes one axis further right. */
static gq_attr shifted(const batch *b) {
  gq_attr a = b->node->attr;
  int rank = b->node->shape.ndim;
  a.axis++;
  a.shape = with_front(b->n, b->node->shape);
  for (int i = rank; i > 0; i--) {
    a.start[i] = a.start[i - 1];
    a.step[i] = a.step[i - 1];
    a.perm[i] = a.perm[i - 1] + 1;
  }
  a.start[0] = 0;
  a.step[0] = 1;
  a.perm[0] = 0;
  return a;
}

static gq_ref emit(batch *b, gq_op op, const gq_attr *attr) {
  return gq_emit(b->g, op, b->node->nargs, b->args, attr);
}

/* Element-wise, and matmul: its last two dims stay last. */
static gq_ref batch_aligned(batch *b) {
  for (int i = 0; i < b->node->nargs; i++) align(b, i, b->node->shape.ndim);
  return emit(b, b->node->op, &b->node->attr);
}

/* A product of batched operands, and the column added to each. */
static gq_ref batch_affine(batch *b) {
  for (int i = 0; i < 3; i++) align(b, i, 2);
  gq_ref y = gq_emit(b->g, GQ_OP_MATMUL, 2, b->args, &b->node->attr);
  return gq_emit2(b->g, GQ_OP_ADD, y, b->args[2]);
}

static gq_ref batch_reduction(batch *b) {
  gq_attr a = { .flags = b->node->attr.flags << 1 };
  return emit(b, b->node->op, &a);
}

static gq_ref batch_expand(batch *b) {
  align(b, 0, b->node->shape.ndim);
  gq_attr a = shifted(b);
  return emit(b, GQ_OP_EXPAND, &a);
}

static gq_ref batch_cat(batch *b) {
  for (int i = 0; i < b->node->nargs; i++) repeat(b, i);
  gq_attr a = shifted(b);
  return emit(b, GQ_OP_CAT, &a);
}

/* Index list per item: {n, k} read as indices of every element of an array of shape `like`. */
static void spread_index(batch *b, gq_shape like) {
  gq_shape s = with_front(b->n, like), one = s;
  int axis = b->node->attr.axis + 1;
  for (int i = 1; i < s.ndim; i++)
    if (i != axis) one.dim[i] = 1;
  one.dim[axis] = s.dim[axis] = b->shape[1].dim[0];
  b->args[1] = gq_expand(b->g, gq_reshape(b->g, b->args[1], one), s);
}

/* One list for all is the same operation an axis further; a list each is gather or scatter_add. */
static gq_ref batch_index(batch *b) {
  gq_attr a = shifted(b);
  if (!b->on[1]) return emit(b, b->node->op, &a);
  repeat(b, 0);
  spread_index(b, b->shape[0]);
  return emit(b, b->node->op == GQ_OP_INDEX_SELECT ? GQ_OP_GATHER : GQ_OP_SCATTER_ADD, &a);
}

static gq_ref batch_gather(batch *b) {
  repeat(b, 0);
  repeat(b, 1);
  gq_attr a = shifted(b);
  return emit(b, b->node->op, &a);
}

/* Item i of batched operand k. */
static gq_ref item(batch *b, int k, int64_t i) {
  return gq_reshape(b->g, gq_slice(b->g, b->args[k], 0, i, 1), b->shape[k]);
}

/* A callback takes one item at a time. */
static gq_ref batch_call(batch *b) {
  int nargs = b->node->nargs;
  size_t bytes = ((size_t)b->n + (size_t)nargs) * sizeof(gq_ref);
  gq_ref *all = gq_alloc(bytes);
  if (!all) return gq_graph_fail(b->g, gq_nomem(bytes));
  gq_ref *args = all + b->n;
  for (int64_t i = 0; i < b->n; i++) {
    for (int k = 0; k < nargs; k++) args[k] = b->on[k] ? item(b, k, i) : b->args[k];
    gq_ref one = gq_emit(b->g, GQ_OP_CALL, nargs, args, &b->node->attr);
    all[i] = gq_reshape(b->g, one, with_front(1, b->node->shape));
  }
  gq_ref r = gq_cat(b->g, (int)b->n, all, 0);
  gq_free(all);
  return r;
}

static gq_ref batch_shifted(batch *b) {
  gq_attr a = shifted(b);
  return emit(b, b->node->op, &a);
}

static gq_ref batch_refuse(batch *b) {
  return gq_graph_fail(b->g,
                       gq_fail(GQ_EUNSUPPORTED, "batch: %s has no batched form", gq_ops[b->node->op].name));
}

static gq_ref (*const rules[GQ_NOP])(batch *b) = {
#define GQ_UNARY(N, ...) [GQ_OP_##N] = batch_aligned,
#define GQ_BINARY(N, ...) [GQ_OP_##N] = batch_aligned,
#define GQ_COMPARE(N, ...) [GQ_OP_##N] = batch_aligned,
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, batch, ...) [GQ_OP_##N] = batch_##batch,
#include "ops.def"
};

static gq_ref batch_node(batch *b) {
  if (b->node->shape.ndim >= GQ_MAXDIM)
    return gq_graph_fail(b->g, gq_fail(GQ_EUNSUPPORTED,
                                       "batch: %s has %d dimensions already; at most %d are supported",
                                       gq_ops[b->node->op].name, b->node->shape.ndim, GQ_MAXDIM));
  return rules[b->node->op](b);
}

static int check_inputs(gq_graph *dst, const gq_graph *src, int64_t n, const gq_ref *bind,
                        const bool *batched) {
  for (int i = 0; i < src->ninput; i++) {
    const gq_node *want = gq_at(src, src->input[i]), *have = gq_graph_node(dst, bind[i]);
    if (batched[i] && want->shape.ndim >= GQ_MAXDIM)
      return gq_fail(GQ_EUNSUPPORTED, "batch: input %d has %d dimensions already; at most %d are supported",
                     i + 1, want->shape.ndim, GQ_MAXDIM);
    gq_shape s = batched[i] ? with_front(n, want->shape) : want->shape;
    char p[200], q[200];
    if (bind[i] != GQ_NONE && (have->dtype != want->dtype || !gq_shape_equal(have->shape, s)))
      return gq_fail(GQ_ESHAPE, "batch: input %d is bound to %s %s; expected %s %s", i + 1,
                     gq_dtype_name(have->dtype), gq_shape_text(have->shape, p, sizeof p),
                     gq_dtype_name(want->dtype), gq_shape_text(s, q, sizeof q));
  }
  return GQ_OK;
}

typedef struct scratch {
  gq_pool own;
  gq_ref *map, *args; /* src node -> dst node; operands */
  gq_shape *shape;
  bool *on, *need, *arg_on;
} scratch;

static int scratch_init(scratch *w, const gq_graph *src) {
  size_t size = (size_t)src->size, most = (size_t)gq_graph_most(src);
  w->shape = gq_pooled(&w->own, most, sizeof *w->shape);
  w->map = gq_pooled(&w->own, size, sizeof *w->map);
  w->args = gq_pooled(&w->own, most, sizeof *w->args);
  w->on = gq_pooled(&w->own, size, sizeof *w->on);
  w->need = gq_pooled(&w->own, size, sizeof *w->need);
  w->arg_on = gq_pooled(&w->own, most, sizeof *w->arg_on);
  return gq_pool_status(&w->own);
}

static void copy_node(gq_graph *dst, const gq_graph *src, int64_t n, gq_ref r, scratch *w) {
  const gq_node *node = gq_at(src, r);
  w->on[r] = false;
  for (int i = 0; i < node->nargs; i++) {
    gq_ref a = node->args[i];
    w->args[i] = w->map[a];
    w->arg_on[i] = w->on[a];
    w->on[r] |= w->on[a];
    w->shape[i] = gq_at(src, a)->shape;
  }
  batch b = { dst, n, node, w->shape, w->args, w->arg_on };
  w->map[r] = w->on[r] ? batch_node(&b) : gq_graph_again(dst, node, w->args);
}

int gq_batch(gq_graph *dst, const gq_graph *src, int64_t n, const gq_ref *bind, const bool *batched,
             gq_ref *out) {
  scratch w = { 0 };
  for (int j = 0; j < src->noutput; j++) out[j] = GQ_NONE;
  if (dst->status != GQ_OK) return dst->status;
  int status = src->status;
  if (status == GQ_OK) status = check_inputs(dst, src, n, bind, batched);
  if (status == GQ_OK) status = scratch_init(&w, src);
  if (status != GQ_OK) return gq_pool_free(&w.own), gq_graph_fail(dst, status), status;
  gq_graph_needs(src, src->noutput, src->output, w.need);
  for (gq_ref r = 0; r < src->size && dst->status == GQ_OK; r++) {
    const gq_node *node = gq_at(src, r);
    if (!w.need[r]) continue;
    if (node->op == GQ_OP_INPUT) {
      w.map[r] = bind[node->attr.axis];
      w.on[r] = batched[node->attr.axis];
    } else {
      copy_node(dst, src, n, r, &w);
    }
  }
  for (int j = 0; j < src->noutput && dst->status == GQ_OK; j++) {
    gq_ref r = src->output[j];
    gq_shape s = gq_at(src, r)->shape;
    if (!w.on[r] && s.ndim >= GQ_MAXDIM)
      gq_graph_fail(dst,
                    gq_fail(GQ_EUNSUPPORTED, "batch: output %d has %d dimensions already", j + 1, s.ndim));
    else out[j] = w.on[r] ? w.map[r] : gq_expand(dst, w.map[r], with_front(n, s));
  }
  gq_pool_free(&w.own);
  return dst->status;
}
