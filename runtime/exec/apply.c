/*
** apply.c -- one operation on tensors, at once: the plain meaning of the op table. Views where
** the strides allow it, otherwise a fresh contiguous result. Large ones use the thread pool.
*/
#include "cpu/cpu.h"

#include <string.h>

enum { PARALLEL = 1 << 16 }; /* numbers (or thousands of multiplications) worth a second thread */

static gq_layout layout(const gq_tensor *t) { return gq_layout_of(t->shape, t->stride); }

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

static int elementwise(gq_op op, int nargs, gq_tensor *const *args, gq_tensor *out) {
  gq_group g;
  gq_group_value value[4];
  gq_micro micro[4];
  int16_t moving[4];
  void *base[4];
  int v[3];
  gq_group_begin(&g, out->shape, 4, value, micro, moving);
  for (int i = 0; i < nargs; i++) {
    int64_t stride[GQ_MAXDIM];
    gq_layout l = layout(args[i]);
    gq_layout_broadcast(&l, out->shape, stride);
    v[i] = gq_group_arg(&g, args[i]->dtype, stride);
    base[v[i]] = gq_tensor_data(args[i]);
  }
  int result = gq_group_op(&g, op, out->dtype, nargs, v);
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
    status = gq_gemm_plan(&g, x[0]->dtype, &a, &b, flags, &pack);
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
    gq_gemm_run(&g, gq_tensor_data(x[0]), gq_tensor_data(x[1]), NULL, gq_tensor_data(out), add);
  gq_tensor_unref(x[0]);
  gq_tensor_unref(x[1]);
  return status;
}

static int affine(gq_tensor *const *args, int flags, gq_tensor *out) {
  gq_tensor *column;
  int64_t stride[GQ_MAXDIM] = { args[2]->stride[0] };
  GQ_TRY(gq_tensor_view(args[2], out->shape, stride, args[2]->offset, &column));
  int status = gq_tensor_copy(out, column);
  gq_tensor_unref(column);
  return status == GQ_OK ? matmul(args, flags, true, out) : status;
}

/* ---- reductions, copies, indices ---- */

static int reduce(gq_op op, gq_tensor *x, const gq_attr *attr, gq_tensor *out) {
  gq_reduce r;
  gq_layout l = layout(x);
  GQ_TRY(gq_reduce_plan(&r, op, x->dtype, &l, attr));
  gq_reduce_run(&r, gq_tensor_data(x), gq_tensor_data(out), false);
  return GQ_OK;
}

static int pad(gq_tensor *x, const gq_attr *attr, gq_tensor *out) {
  size_t size = gq_dtype_size(x->dtype);
  int64_t stride[GQ_MAXDIM], at = 0;
  gq_layout l = layout(x);
  memset(gq_tensor_data(out), 0, (size_t)gq_numel(out->shape) * size);
  for (int i = 0; i < out->shape.ndim; i++) {
    stride[i] = out->stride[i] * attr->step[i];
    at += out->stride[i] * attr->start[i];
  }
  if (gq_numel(x->shape))
    gq_move(&l, size, gq_tensor_data(x), (char *)gq_tensor_data(out) + at * (int64_t)size, stride);
  return GQ_OK;
}

static int cat(int n, gq_tensor *const *args, int axis, gq_tensor *out) {
  size_t size = gq_dtype_size(out->dtype);
  char *at = gq_tensor_data(out);
  for (int i = 0; i < n; i++) {
    gq_layout l = layout(args[i]);
    gq_move(&l, size, gq_tensor_data(args[i]), at, out->stride);
    at += args[i]->shape.dim[axis] * out->stride[axis] * (int64_t)size;
  }
  return GQ_OK;
}

static int indexing(gq_op op, gq_tensor *const *args, int axis, gq_tensor *out) {
  gq_tensor *x = NULL, *idx = NULL;
  gq_indexing p;
  int status = gq_tensor_contiguous_get(args[0], &x);
  if (status == GQ_OK) status = gq_tensor_contiguous_get(args[1], &idx);
  if (status == GQ_OK) {
    gq_indexing_plan(&p, op, x->dtype, x->shape, idx->shape, out->shape, axis);
    status = gq_indexing_run(&p, gq_tensor_data(x), gq_tensor_data(idx), gq_tensor_data(out));
  }
  gq_tensor_unref(x);
  gq_tensor_unref(idx);
  return status;
}

/* ---- views ---- */

static int reshape(gq_tensor *x, gq_shape s, gq_tensor **out) {
  int64_t stride[GQ_MAXDIM];
  gq_tensor *c = NULL;
  gq_shape_strides(s, stride);
  GQ_TRY(gq_tensor_contiguous_get(x, &c));
  int status = gq_tensor_view(c, s, stride, c->offset, out);
  gq_tensor_unref(c);
  return status;
}

/* PERMUTE, EXPAND and SLICE only change strides. */
static int view(gq_op op, gq_tensor *x, const gq_attr *attr, gq_shape s, gq_tensor **out) {
  int64_t stride[GQ_MAXDIM] = { 0 }, offset = x->offset;
  gq_layout l = layout(x);
  if (op == GQ_OP_EXPAND) gq_layout_broadcast(&l, s, stride);
  for (int i = 0; i < s.ndim && op == GQ_OP_PERMUTE; i++) stride[i] = x->stride[attr->perm[i]];
  for (int i = 0; i < s.ndim && op == GQ_OP_SLICE; i++) {
    stride[i] = x->stride[i] * attr->step[i];
    if (gq_numel(s)) offset += x->stride[i] * attr->start[i];
  }
  return gq_tensor_view(x, s, stride, offset, out);
}

/* ---- the door ---- */

static int compute(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_tensor *out) {
  if (gq_op_elementwise(op)) return elementwise(op, nargs, args, out);
  switch (op) {
    case GQ_OP_CONST: return gq_tensor_fill(out, attr->x);
    case GQ_OP_MATMUL: return matmul(args, attr->flags, false, out);
    case GQ_OP_AFFINE: return affine(args, attr->flags, out);
    case GQ_OP_SUM:
    case GQ_OP_AMAX:
    case GQ_OP_AMIN:
    case GQ_OP_ARGMAX:
    case GQ_OP_ARGMIN: return reduce(op, args[0], attr, out);
    case GQ_OP_PAD: return pad(args[0], attr, out);
    case GQ_OP_CAT: return cat(nargs, args, attr->axis, out);
    case GQ_OP_INDEX_SELECT:
    case GQ_OP_INDEX_ADD:
    case GQ_OP_GATHER:
    case GQ_OP_SCATTER_ADD: return indexing(op, args, attr->axis, out);
    default: return gq_fail(GQ_EUNSUPPORTED, "%s cannot be evaluated by itself", gq_ops[op].name);
  }
}

enum { FEW = 16 };

static int infer(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_dtype *dtype,
                 gq_shape *shape) {
  gq_dtype d[FEW];
  gq_shape s[FEW];
  gq_dtype *dtypes = d;
  gq_shape *shapes = s;
  if (nargs > FEW) {
    dtypes = gq_calloc((size_t)nargs, sizeof *dtypes);
    shapes = gq_calloc((size_t)nargs, sizeof *shapes);
  }
  int status = dtypes && shapes ? GQ_OK : gq_nomem((size_t)nargs * sizeof *shapes);
  for (int i = 0; i < nargs && status == GQ_OK; i++) {
    dtypes[i] = args[i]->dtype;
    shapes[i] = args[i]->shape;
  }
  if (status == GQ_OK) status = gq_infer(op, nargs, dtypes, shapes, attr, dtype, shape);
  if (nargs > FEW) {
    gq_free(dtypes);
    gq_free(shapes);
  }
  return status;
}

int gq_apply(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_, gq_tensor **out) {
  static const gq_attr none;
  const gq_attr *attr = attr_ ? attr_ : &none;
  gq_dtype dtype;
  gq_shape shape;
  *out = NULL;
  GQ_TRY(infer(op, nargs, args, attr, &dtype, &shape));
  if (op == GQ_OP_RESHAPE) return reshape(args[0], shape, out);
  if (op == GQ_OP_PERMUTE || op == GQ_OP_EXPAND || op == GQ_OP_SLICE)
    return view(op, args[0], attr, shape, out);
  gq_tensor *t = NULL;
  GQ_TRY(gq_tensor_empty(dtype, shape, &t));
  int status = compute(op, nargs, args, attr, t);
  if (status != GQ_OK) {
    gq_tensor_unref(t);
    return status;
  }
  *out = t;
  return GQ_OK;
}

/* ---- a graph, node by node ---- */

static void mark(const gq_graph *g, int n, const gq_ref *refs, bool *need) {
  for (int i = 0; i < n; i++)
    if (refs[i] != GQ_NONE) need[refs[i]] = true;
  for (int r = gq_graph_size(g) - 1; r >= 0; r--) {
    const gq_node *v = gq_graph_node(g, r);
    for (int i = 0; i < v->nargs && need[r]; i++) need[v->args[i]] = true;
  }
}

static int evaluate_node(const gq_graph *g, gq_caller *call, gq_ref r, gq_tensor *const *in,
                         gq_tensor **value) {
  const gq_node *v = gq_graph_node(g, r);
  if (v->op == GQ_OP_INPUT) {
    value[r] = gq_tensor_ref(in[v->attr.axis]);
    return GQ_OK;
  }
  gq_tensor *few[FEW], **args = few;
  if (v->nargs > FEW && !(args = gq_calloc((size_t)v->nargs, sizeof *args)))
    return gq_nomem((size_t)v->nargs * sizeof *args);
  for (int i = 0; i < v->nargs; i++) args[i] = value[v->args[i]];
  int status = call(v->op, v->nargs, args, &v->attr, &value[r]);
  if (args != few) gq_free(args);
  return status;
}

int gq_evaluate_by(gq_caller *call, const gq_graph *g, gq_tensor *const *in, int n, const gq_ref *refs,
                   gq_tensor **out) {
  size_t size = (size_t)gq_graph_size(g);
  bool *need = gq_calloc(size + 1, sizeof *need);
  gq_tensor **value = gq_calloc(size + 1, sizeof *value);
  int status = need && value ? GQ_OK : gq_nomem(size * sizeof *value);
  for (int i = 0; i < n; i++) out[i] = NULL;
  if (status == GQ_OK) mark(g, n, refs, need);
  for (size_t r = 0; r < size && status == GQ_OK; r++)
    if (need[r]) status = evaluate_node(g, call, (gq_ref)r, in, value);
  for (int i = 0; i < n && status == GQ_OK; i++)
    if (refs[i] != GQ_NONE) out[i] = gq_tensor_ref(value[refs[i]]);
  for (size_t r = 0; value && r < size; r++) gq_tensor_unref(value[r]);
  gq_free(value);
  gq_free(need);
  return status;
}

int gq_evaluate(const gq_graph *g, gq_tensor *const *in, int n, const gq_ref *refs, gq_tensor **out) {
  return gq_evaluate_by(gq_apply, g, in, n, refs, out);
}
