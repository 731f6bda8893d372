/*
** fit.c -- a normal distribution fitted to the samples along the last axis, as one operation: two sweeps over a row
** while it is in the cache forwards, one backwards.
*/
#include "cpu/cpu.h"
#include "tape.h"

#include <math.h>

enum { PARALLEL = 1 << 14 }; /* numbers worth a second thread */

typedef struct fit {
  gq_custom base;
  gq_tensor *x;         /* as it was given: on the tape, for second derivatives */
  gq_tensor *packed;    /* its numbers, row after row */
  uint64_t version[2];  /* of their storages */
  double *mean, *slope; /* [rows]; 1 / ((n - 1) deviation), 0 where that is zero */
} fit;

static void fit_free(gq_custom *c) {
  fit *f = (fit *)c;
  gq_tensor_unref(f->x);
  gq_tensor_unref(f->packed);
  gq_free(f->mean);
  gq_free(f);
}

/* ---- rows ---- */

typedef struct sweep {
  const fit *f;
  gq_dtype dtype;
  const char *x;
  void *a, *b; /* forwards means and deviations; backwards their cotangents or NULL */
  char *out_;  /* backwards: dL/dx */
  int64_t rows, n;
  int pieces;
} sweep;

static double get(gq_dtype d, const void *x, int64_t i) {
  return d == GQ_F32 ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

static void put(gq_dtype d, void *x, int64_t i, double v) {
  if (d == GQ_F32) ((float *)x)[i] = (float)v;
  else ((double *)x)[i] = v;
}

static void row_forward(const sweep *s, int64_t i, const void *row) {
  double squares, mean = gq_cpu()->fit[s->dtype](row, (size_t)s->n, &squares);
  double deviation = sqrt(squares / (double)(s->n - 1));
  put(s->dtype, s->a, i, s->f->mean[i] = mean);
  put(s->dtype, s->b, i, deviation);
  s->f->slope[i] = deviation == 0 ? 0 : 1 / ((double)(s->n - 1) * deviation);
}

static void row_backward(const sweep *s, int64_t i, const void *row, void *out) {
  double base = s->a ? get(s->dtype, s->a, i) / (double)s->n : 0;
  double slope = s->b ? get(s->dtype, s->b, i) * s->f->slope[i] : 0;
  gq_cpu()->fit_pull[s->dtype](out, row, (double[]){ base, slope, s->f->mean[i] }, (size_t)s->n);
}

static void piece(void *ctx, int p) {
  const sweep *s = ctx;
  int64_t bytes = s->n * (int64_t)gq_dtype_size(s->dtype);
  for (int64_t i = s->rows * p / s->pieces; i < s->rows * (p + 1) / s->pieces; i++) {
    if (s->out_) row_backward(s, i, s->x + i * bytes, s->out_ + i * bytes);
    else row_forward(s, i, s->x + i * bytes);
  }
}

static void run(const fit *f, void *a, void *b, char *out_) {
  gq_shape shape = f->packed->shape;
  sweep s = { f, f->packed->dtype, gq_tensor_data(f->packed), a, b, out_, .n = shape.dim[shape.ndim - 1] };
  s.rows = gq_numel(shape) / s.n;
  s.pieces = s.rows * s.n >= PARALLEL ? gq_workers() : 1;
  if (s.pieces > 1) gq_parallel(s.pieces, piece, &s);
  else piece(&s, 0);
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
  int status = gq_tensor_empty(f->packed->dtype, f->packed->shape, &grads[0]);
  for (int i = 0; i < 2 && status == GQ_OK; i++)
    if (cots[i]) status = gq_tensor_contiguous_get(cots[i], &cot[i]);
  if (status == GQ_OK)
    run(f, cot[0] ? gq_tensor_data(cot[0]) : NULL, cot[1] ? gq_tensor_data(cot[1]) : NULL,
        gq_tensor_data(grads[0]));
  gq_tensor_unref(cot[0]);
  gq_tensor_unref(cot[1]);
  return status;
}

/* ---- the operation ---- */

static int fit_new(gq_tensor *x, int64_t rows, fit **out) {
  fit *f = gq_calloc(1, sizeof *f);
  if (!f) return gq_nomem(sizeof *f);
  f->base = (gq_custom){ "normal_fit", fit_backward, fit_free };
  f->x = gq_tensor_ref(x);
  f->mean = gq_calloc(2 * (size_t)rows + 1, sizeof *f->mean);
  int status =
    f->mean ? gq_tensor_contiguous_get(x, &f->packed) : gq_nomem(2 * (size_t)rows * sizeof *f->mean);
  if (status != GQ_OK) {
    fit_free(&f->base);
    return status;
  }
  f->slope = f->mean + rows;
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
  int64_t rows = gq_numel(shape) / shape.dim[shape.ndim - 1];
  shape.ndim--;
  int status = gq_tensor_empty(x->dtype, shape, &out[0]);
  if (status == GQ_OK) status = gq_tensor_empty(x->dtype, shape, &out[1]);
  if (status == GQ_OK) status = fit_new(x, rows, &f);
  if (status == GQ_OK) {
    run(f, gq_tensor_data(out[0]), gq_tensor_data(out[1]), NULL);
    status = gq_record_custom(&f->base, 1, &x, 2, out);
  }
  for (int i = 0; i < 2 && status != GQ_OK; i++) gq_tensor_unref(out[i]);
  if (status != GQ_OK) return status;
  *mean = out[0];
  *deviation = out[1];
  return GQ_OK;
}
