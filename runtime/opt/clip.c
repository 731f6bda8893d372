/*
** clip.c -- gradient clipping by the joint norm (Pascanu, Mikolov & Bengio, ICML 2013), as
** PyTorch's clip_grad_norm_ with error_if_nonfinite; the sum of squares is kept in double.
*/
#include "../exec/backend.h"
#include "opt.h"

#include <math.h>

static int add_squares(gq_tensor *g, int i, double *sum) {
  gq_tensor *c;
  if (!g->storage || !gq_is_float(g->dtype))
    return gq_fail(GQ_EDTYPE, "the gradient of parameter %d is not a float tensor", i + 1);
  GQ_TRY(gq_tensor_contiguous_get(g, &c));
  const void *x = gq_tensor_data(c);
  double s = gq_backend_of(c)->vec->dot(c->dtype, (size_t)gq_numel(c->shape), x, x);
  gq_tensor_unref(c);
  if (!isfinite(s))
    return gq_fail(GQ_ENONFINITE,
                   "the norm of the gradient of parameter %d is not finite; nothing was scaled", i + 1);
  *sum += s;
  return GQ_OK;
}

static int scale_grad(gq_tensor *g, double by) {
  gq_tensor *c;
  GQ_TRY(gq_tensor_contiguous_get(g, &c));
  void *x = gq_tensor_data(c);
  gq_backend_of(c)->vec->scale(c->dtype, (size_t)gq_numel(c->shape), by, x, 1, x, 1);
  int status = c == g ? GQ_OK : gq_tensor_copy(g, c);
  if (c == g) g->storage->version++;
  gq_tensor_unref(c);
  return status;
}

/* What requires no gradient any more may have left one. */
static gq_tensor *grad_of(const gq_tensor *p) { return p->requires_grad ? p->grad : NULL; }

int gq_clip_grad_norm(int n, gq_tensor *const *params, double max, double *norm) {
  double sum = 0;
  if (!(max >= 0)) return gq_fail(GQ_EARG, "clip_grad_norm: max is %g: expected a number of at least 0", max);
  for (int i = 0; i < n; i++)
    if (grad_of(params[i])) GQ_TRY(add_squares(grad_of(params[i]), i, &sum));
  *norm = sqrt(sum);
  if (*norm <= max) return GQ_OK;
  for (int i = 0; i < n; i++)
    if (grad_of(params[i])) GQ_TRY(scale_grad(grad_of(params[i]), max / (*norm + 1e-6)));
  return GQ_OK;
}
