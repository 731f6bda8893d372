/*
** fit.c -- a normal distribution fitted to the samples along the last axis, as one operation: two sweeps over a row
** while it is in the cache forwards, one backwards.
*/
#include "backend.h"
#include "tape.h"

typedef struct fit {
  gq_custom base;
  gq_tensor *x;        /* as it was given: on the tape, for second derivatives */
  gq_tensor *packed;   /* its numbers, row after row */
  uint64_t version[2]; /* of their storages */
  const gq_backend *on;
  size_t rows, n;
  void *saved; /* what the way back needs of the rows */
} fit;

static void fit_free(gq_custom *c) {
  fit *f = (fit *)c;
  gq_tensor_unref(f->x);
  gq_tensor_unref(f->packed);
  if (f->on) gq_release(f->on, f->saved);
  gq_free(f);
}

/* ---- the derivative ---- */

/* As a graph of ordinary operations: inputs x and the cotangents of its means and deviations; output dL/dx. */
static int pull_graph(gq_graph *g, const gq_tensor *t, gq_shape short_, bool mean, bool deviation) {
  gq_shape column = t->shape;
  int last = column.ndim - 1;
  double n = (double)column.dim[last];
  column.dim[last] = 1;
  gq_ref x = gq_input(g, t->dtype, t->shape), gm = gq_input(g, t->dtype, short_),
         gs = gq_input(g, t->dtype, short_);
  gq_ref m = gq_scale(g, gq_sum_axes(g, x, 1 << last), 1 / n), d = gq_emit2(g, GQ_OP_SUB, x, m);
  gq_ref v = gq_scale(g, gq_sum_axes(g, gq_emit1(g, GQ_OP_SQUARE, d), 1 << last), 1 / (n - 1));
  gq_ref zero = gq_const(g, t->dtype, 0), flat = gq_emit2(g, GQ_OP_EQ, v, zero);
  gq_ref root = gq_emit1(g, GQ_OP_SQRT, gq_where(g, flat, gq_const(g, t->dtype, 1), v));
  gq_ref out[2] = { m, gq_where(g, flat, zero, root) }, grad;
  gq_ref cot[2] = { mean ? gq_reshape(g, gm, column) : GQ_NONE,
                    deviation ? gq_reshape(g, gs, column) : GQ_NONE };
  GQ_TRY(gq_vjp(g, 2, out, cot, 1, &x, &grad));
  gq_graph_set_outputs(g, 1, &grad);
  return gq_graph_status(g);
}

static int pull_recorded(const fit *f, gq_tensor *const *cots, gq_tensor **grad) {
  gq_graph *g = gq_graph_new();
  if (!g) return gq_nomem(sizeof *f);
  gq_tensor *any = cots[0] ? cots[0] : cots[1],
            *in[3] = { f->x, cots[0] ? cots[0] : any, cots[1] ? cots[1] : any };
  int status = pull_graph(g, f->x, any->shape, cots[0], cots[1]);
  gq_ref ref = status == GQ_OK ? gq_graph_output(g, 0) : GQ_NONE;
  if (status == GQ_OK) status = gq_evaluate_by(gq_op_call, g, in, 1, &ref, grad);
  gq_graph_free(g);
  return status;
}

static int fit_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  const fit *f = (fit *)c;
  gq_tensor *cot[2] = { NULL, NULL };
  if (!cots[0] && !cots[1]) return GQ_OK;
  if (f->x->storage->version != f->version[0] || f->packed->storage->version != f->version[1])
    return gq_fail(GQ_ESTATE,
                   "samples that were fitted (normal_fit, gaussian_kl) were modified in place before the "
                   "backward pass; write to a copy (x:clone()), or after it");
  if (create_graph) return pull_recorded(f, cots, &grads[0]);
  int status = gq_tensor_empty_on(f->on->device, f->packed->dtype, f->packed->shape, &grads[0]);
  for (int i = 0; i < 2 && status == GQ_OK; i++)
    if (cots[i]) status = gq_tensor_contiguous_get(cots[i], &cot[i]);
  if (status == GQ_OK)
    f->on->vec->fit_pull(f->packed->dtype, f->rows, f->n, gq_tensor_data(f->packed), f->saved,
                         cot[0] ? gq_tensor_data(cot[0]) : NULL, cot[1] ? gq_tensor_data(cot[1]) : NULL,
                         gq_tensor_data(grads[0]));
  gq_tensor_unref(cot[0]);
  gq_tensor_unref(cot[1]);
  return status;
}

/* ---- the operation ---- */

static int fit_new(gq_tensor *x, size_t rows, size_t n, fit **out) {
  fit *f = gq_calloc(1, sizeof *f);
  if (!f) return gq_nomem(sizeof *f);
  f->base = (gq_custom){ "normal_fit", fit_backward, fit_free, false };
  f->x = gq_tensor_ref(x);
  f->on = gq_backend_of(x), f->rows = rows, f->n = n;
  size_t bytes = 2 * rows * sizeof(double) + 8;
  f->saved = gq_allocate(f->on, bytes);
  int status = f->saved ? gq_tensor_contiguous_get(x, &f->packed) : gq_nomem(bytes);
  if (status != GQ_OK) {
    fit_free(&f->base);
    return status;
  }
  f->version[0] = f->x->storage->version;
  f->version[1] = f->packed->storage->version;
  *out = f;
  return GQ_OK;
}

int gq_normal_fit(gq_tensor *x, gq_tensor **mean, gq_tensor **deviation) {
  gq_shape shape = x->shape;
  gq_tensor *out[2] = { NULL, NULL };
  fit *f = NULL;
  if (!gq_is_float(x->dtype) || shape.ndim < 1 || shape.dim[shape.ndim - 1] < 1)
    return gq_fail(GQ_ESHAPE,
                   "normal_fit: at least one sample of a float dtype along the last axis expected");
  size_t n = (size_t)shape.dim[shape.ndim - 1], rows = (size_t)gq_numel(shape) / n;
  shape.ndim--;
  int status = gq_tensor_empty_on(gq_tensor_device(x), x->dtype, shape, &out[0]);
  if (status == GQ_OK) status = gq_tensor_empty_on(gq_tensor_device(x), x->dtype, shape, &out[1]);
  if (status == GQ_OK) status = fit_new(x, rows, n, &f);
  if (status == GQ_OK) {
    f->on->vec->fit(x->dtype, rows, n, gq_tensor_data(f->packed), f->saved, gq_tensor_data(out[0]),
                    gq_tensor_data(out[1]));
    status = gq_record_custom(&f->base, 1, &x, 2, out);
  }
  for (int i = 0; i < 2 && status != GQ_OK; i++) gq_tensor_unref(out[i]);
  if (status != GQ_OK) return status;
  *mean = out[0];
  *deviation = out[1];
  return GQ_OK;
}
