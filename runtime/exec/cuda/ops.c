/*
** ops.c -- one operation on tensors of the device, into a contiguous result that is there.
*/
#include "cuda.h"

#include <string.h>

typedef struct call {
  gq_op op;
  int nargs;
  gq_tensor *const *args;
  const gq_attr *attr;
} call;

static gq_layout layout(const gq_tensor *t) { return gq_layout_of(t->shape, t->stride); }

static void *data(const gq_tensor *t) {
  return (char *)t->storage->data + t->offset * (int64_t)gq_dtype_size(t->dtype);
}

static int apply_refuse(const call *c, gq_tensor *out) {
  return gq_fail(GQ_EUNSUPPORTED, "%s cannot be evaluated by itself", gq_core->ops[c->op].name);
}
#define apply_input apply_refuse
#define apply_call apply_refuse
#define apply_conv apply_refuse
#define apply_view apply_refuse /* they share storage */

static int apply_cell(const call *c, gq_tensor *out) {
  gq_layout x[3];
  gq_dtype d[3];
  void *at[4] = { data(out) };
  gq_launch l;
  for (int i = 0; i < c->nargs; i++)
    x[i] = layout(c->args[i]), d[i] = c->args[i]->dtype, at[i + 1] = data(c->args[i]);
  GQ_TRY(gq_cuda_cell(&l, c->op, out->dtype, out->shape, c->nargs, d, x));
  return gq_cuda_run(&l, at, true);
}

static int apply_const(const call *c, gq_tensor *out) {
  double x = c->attr->x;
  int64_t whole = (int64_t)x;
  float single = (float)x;
  uint8_t truth = x != 0;
  const void *at[GQ_NDTYPE] = { &single, &x, &whole, &truth };
  return gq_cuda_put(data(out), at[out->dtype], gq_dtype_size(out->dtype)); /* 0-d */
}

static int apply_product(const call *c, gq_tensor *out) {
  gq_layout a = layout(c->args[0]), b = layout(c->args[1]);
  void *at[4] = { data(out), data(c->args[0]), data(c->args[1]), c->nargs == 3 ? data(c->args[2]) : NULL };
  gq_launch l;
  GQ_TRY(gq_cuda_product(&l, out->dtype, &a, &b, c->attr->flags, c->nargs == 3 ? c->args[2]->stride[0] : 0,
                         false));
  return gq_cuda_run(&l, at, true);
}

static int apply_reduce(const call *c, gq_tensor *out) {
  gq_layout x = layout(c->args[0]);
  gq_launch l;
  GQ_TRY(gq_cuda_reduce(&l, c->op, c->args[0]->dtype, &x, c->attr->axis, c->attr->flags, false));
  return gq_cuda_run(&l, (void *[]){ data(out), data(c->args[0]) }, true);
}

static int apply_move(const call *c, gq_tensor *out) {
  size_t size = gq_dtype_size(out->dtype), rest = (size_t)gq_numel(out->shape);
  gq_landing to = { 0 };
  for (int i = 0; i < c->nargs; i++) rest -= (size_t)gq_numel(c->args[i]->shape);
  if (rest) GQ_TRY(gq_cuda_set(data(out), 0, (size_t)gq_numel(out->shape) * size));
  for (int i = 0; i < c->nargs; i++) {
    gq_layout x = layout(c->args[i]);
    gq_launch l;
    if (!gq_layout_land(c->op, c->attr, out->shape, c->args[i]->shape, &to)) return apply_refuse(c, out);
    GQ_TRY(gq_cuda_bytes(&l, size, &x, to.stride));
    GQ_TRY(gq_cuda_run(&l, (void *[]){ (char *)data(out) + to.at * (int64_t)size, data(c->args[i]) }, true));
  }
  return GQ_OK;
}

/* at: of the result and the operands, packed */
static int index_packed(const gq_indexing *p, int nargs, void **at) {
  gq_launch l;
  size_t zero;
  int which = -1;
  int64_t position;
  GQ_TRY(gq_cuda_index(&l, p, &zero));
  if (zero) GQ_TRY(gq_cuda_set(at[0], 0, zero));
  bool checks = l.np > nargs + 1; /* indices */
  if (checks) GQ_TRY(gq_cuda_flag(0, &at[nargs + 1]));
  GQ_TRY(gq_cuda_run(&l, at, true));
  if (checks) GQ_TRY(gq_cuda_flagged(1, &which, &position));
  return which < 0 ? GQ_OK : gq_cuda_outside(p, at[2], position);
}

static int apply_index(const call *c, gq_tensor *out) {
  gq_tensor *x[2] = { NULL, NULL };
  gq_indexing p = { .op = c->op, .dtype = out->dtype, .attr = *c->attr };
  void *at[4] = { data(out) };
  int status = GQ_OK;
  p.attr.shape = out->shape;
  for (int i = 0; i < c->nargs && status == GQ_OK; i++) {
    p.in[i] = c->args[i]->shape;
    status = gq_tensor_contiguous_get(c->args[i], &x[i]);
    if (status == GQ_OK) at[i + 1] = data(x[i]);
  }
  if (status == GQ_OK) status = index_packed(&p, c->nargs, at);
  gq_tensor_unref(x[0]);
  gq_tensor_unref(x[1]);
  return status;
}

static int (*const rules[GQ_NOP])(const call *c, gq_tensor *out) = {
#define GQ_UNARY(N, ...) [GQ_OP_##N] = apply_cell,
#define GQ_BINARY(N, ...) [GQ_OP_##N] = apply_cell,
#define GQ_COMPARE(N, ...) [GQ_OP_##N] = apply_cell,
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, batch, columns, jet, vjp, reads, run, doc) \
  [GQ_OP_##N] = apply_##run,
#include "../../ir/ops.def"
};

int gq_cuda_apply(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_tensor *out) {
  return rules[op](&(call){ op, nargs, args, attr }, out);
}

/* ---- moves between tensors ---- */

static bool vectors(const gq_tensor *dst, const gq_tensor *src) {
  const gq_layout to = layout(dst), from = layout(src);
  return gq_is_float(dst->dtype) && src->dtype == dst->dtype && gq_layout_contiguous(&to) &&
         gq_layout_contiguous(&from) && gq_cuda_owns(data(src));
}

/* src may be one number of the host's, at strides of 0. */
static int move(gq_tensor *dst, const gq_tensor *src) {
  gq_layout x = layout(src);
  void *at[2] = { data(dst), data(src) }, *one = NULL;
  size_t n = (size_t)gq_numel(dst->shape);
  gq_launch l;
  if (n == 0) return GQ_OK;
  if (vectors(dst, src)) return gq_cuda_combine(dst->dtype, 1, &n, 0, NULL, at); /* it waits for others */
  GQ_TRY(gq_cuda_move(&l, dst->dtype, src->dtype, &x, dst->stride));
  if (!gq_cuda_owns(at[1])) {
    size_t size = gq_dtype_size(src->dtype);
    if (!(one = gq_cuda_allocate(size))) return gq_nomem(size);
    int status = gq_cuda_put(one, at[1], size);
    at[1] = one;
    if (status == GQ_OK) status = gq_cuda_run(&l, at, true);
    gq_cuda_release(one);
    return status;
  }
  return gq_cuda_run(&l, at, true);
}

void gq_cuda_tensor_move(gq_tensor *dst, const gq_tensor *src) { gq_cuda_later(move(dst, src)); }
