/*
** ops.c -- one operation on tensors of the CPU, at once, into a fresh contiguous result. Large ones use the
** thread pool.
*/
#include "cpu.h"

#include <string.h>

enum { PARALLEL = 1 << 16 }; /* numbers (or thousands of multiplications) worth a second thread */

static gq_layout layout(const gq_tensor *t) { return gq_layout_of(t->shape, t->stride); }

typedef struct call {
  gq_op op;
  int nargs;
  gq_tensor *const *args;
  const gq_attr *attr;
  gq_shape shape; /* of the result */
} call;

/* ---- element-wise: a group of one operation ---- */

typedef struct job {
  const gq_group *group;
  void **base;
  int pieces;
} job;

static void run_piece(void *ctx, int i) {
  const job *j = ctx;
  _Alignas(64) char scratch[3 * 8 * GQ_GROUP_TILE]; /* three operands of a tile at most */
  int64_t n = j->group->ntile;
  gq_group_run(j->group, j->base, scratch, n * i / j->pieces, n * (i + 1) / j->pieces);
}

static void run_group(const gq_group *g, void **base) {
  job j = { g, base, 1 };
  if (g->rows * g->width >= PARALLEL) j.pieces = gq_threads();
  if (j.pieces > 1) gq_parallel(j.pieces, run_piece, &j);
  else run_piece(&j, 0);
}

static int apply_cell(const call *c, gq_tensor *out) {
  gq_group g;
  gq_group_value value[4];
  gq_micro micro[4];
  int16_t list[8];
  void *base[4];
  int v[3];
  gq_group_begin(&g, out->shape, 4, value, micro, list);
  for (int i = 0; i < c->nargs; i++) {
    int64_t stride[GQ_MAXDIM];
    gq_layout l = layout(c->args[i]);
    gq_layout_broadcast(&l, out->shape, stride);
    v[i] = gq_group_arg(&g, c->args[i]->dtype, stride);
    base[v[i]] = gq_tensor_data(c->args[i]);
  }
  int result = gq_group_op(&g, c->op, out->dtype, c->nargs, v);
  gq_group_store(&g, result);
  base[result] = gq_tensor_data(out);
  GQ_TRY(gq_group_finish(&g));
  run_group(&g, base);
  return GQ_OK;
}

/* ---- products ---- */

/* add: to what `out` holds */
static int matmul(gq_tensor *const *args, int flags, bool add, gq_tensor *out) {
  gq_tensor *x[2] = { gq_tensor_ref(args[0]), gq_tensor_ref(args[1]) };
  gq_gemm g;
  int pack = 0, status;
  do { /* at most twice: packed operands suit BLAS */
    gq_layout a = layout(x[0]), b = layout(x[1]);
    status = gq_gemm_plan(&g, x[0]->dtype, &a, &b, 0, flags, &pack);
    for (int i = 0; i < 2 && status == GQ_OK; i++)
      if (pack >> i & 1) {
        gq_tensor *packed = NULL;
        status = gq_tensor_empty(x[i]->dtype, x[i]->shape, &packed);
        if (status != GQ_OK) break;
        status = gq_tensor_copy(packed, x[i]);
        gq_tensor_unref(x[i]);
        x[i] = packed;
      }
  } while (pack && status == GQ_OK);
  if (status == GQ_OK)
    status = gq_gemm_run(&g, gq_tensor_data(x[0]), gq_tensor_data(x[1]), NULL, gq_tensor_data(out), add);
  gq_tensor_unref(x[0]);
  gq_tensor_unref(x[1]);
  return status;
}

static int apply_product(const call *c, gq_tensor *out) {
  gq_tensor *column;
  if (c->nargs == 2) return matmul(c->args, c->attr->flags, false, out);
  int64_t stride[GQ_MAXDIM] = { c->args[2]->stride[0] };
  GQ_TRY(gq_tensor_view(c->args[2], c->shape, stride, c->args[2]->offset, &column));
  int status = gq_tensor_copy(out, column);
  gq_tensor_unref(column);
  return status == GQ_OK ? matmul(c->args, c->attr->flags, true, out) : status;
}

/* ---- the rest ---- */

static int apply_refuse(const call *c, gq_tensor *out) {
  return gq_fail(GQ_EUNSUPPORTED, "%s cannot be evaluated by itself", gq_ops[c->op].name);
}
#define apply_input apply_refuse
#define apply_call apply_refuse
#define apply_conv apply_refuse
#define apply_view apply_refuse /* they share storage: exec/apply.c */

static int apply_const(const call *c, gq_tensor *out) { return gq_tensor_fill(out, c->attr->x); }

static int apply_reduce(const call *c, gq_tensor *out) {
  gq_reduce r;
  gq_layout l = layout(c->args[0]);
  GQ_TRY(gq_reduce_plan(&r, c->op, c->args[0]->dtype, &l, c->attr));
  gq_reduce_run(&r, gq_tensor_data(c->args[0]), gq_tensor_data(out), false);
  return GQ_OK;
}

static int apply_move(const call *c, gq_tensor *out) {
  size_t size = gq_dtype_size(out->dtype), rest = (size_t)gq_numel(c->shape);
  char *data = gq_tensor_data(out);
  gq_landing to = { 0 };
  for (int i = 0; i < c->nargs; i++) rest -= (size_t)gq_numel(c->args[i]->shape);
  if (rest) memset(data, 0, (size_t)gq_numel(c->shape) * size);
  for (int i = 0; i < c->nargs; i++) {
    gq_layout l = layout(c->args[i]);
    if (!gq_layout_land(c->op, c->attr, c->shape, c->args[i]->shape, &to)) return apply_refuse(c, out);
    if (gq_numel(c->args[i]->shape))
      gq_copy_numbers(size, l.ndim, l.dim, gq_tensor_data(c->args[i]), l.stride, data + to.at * (int64_t)size,
                      to.stride);
  }
  return GQ_OK;
}

static int apply_index(const call *c, gq_tensor *out) {
  gq_tensor *x[2] = { NULL, NULL };
  gq_indexing p = { .op = c->op, .dtype = out->dtype, .attr = *c->attr };
  int status = GQ_OK;
  p.attr.shape = c->shape;
  for (int i = 0; i < c->nargs && status == GQ_OK; i++) {
    p.in[i] = c->args[i]->shape;
    status = gq_tensor_contiguous_get(c->args[i], &x[i]);
  }
  if (status == GQ_OK) {
    const void *in[] = { gq_tensor_data(x[0]), c->nargs > 1 ? gq_tensor_data(x[1]) : NULL };
    status = gq_indexing_run(&p, in, gq_tensor_data(out));
  }
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

int gq_cpu_apply(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_tensor *out) {
  return rules[op](&(call){ op, nargs, args, attr, out->shape }, out);
}
