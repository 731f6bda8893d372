/*
** quotient.c -- see quotient.h.
*/
#include "quotient.h"

#include <math.h>

enum {
  SIDES = 0x73696465, /* purpose of the keys of random directions */
  CHUNK = 256
};
static const double MOVE = 1.0 / 64; /* of each number */

/* Which way number i moves: out[k] of numbers first + k of tensor i, up or down. */
static void signs(int direction, int i, size_t first, size_t n, double *out) {
  gq_random_uniform(gq_key_make(direction, SIDES), i, first, n, out);
  for (size_t k = 0; k < n; k++) out[k] = out[k] < 0.5 ? -1 : 1;
}

/* x is the i-th. Into to_ each number of it larger or smaller by so much of itself;
** to *sum_ what slope_ says of that. */
static int along(gq_tensor *x, int direction, int i, double by, gq_tensor *to_, const gq_tensor *slope_,
                 double *sum_) {
  const gq_vectors *vec = gq_backend_of(x)->vec;
  gq_tensor *c;
  size_t n = gq_numel(x->shape), size = gq_dtype_size(x->dtype);
  double value[CHUNK], slope[CHUNK], sign[CHUNK];
  GQ_TRY(gq_tensor_contiguous_get(x, &c));
  for (size_t k = 0; k < n; k += CHUNK) {
    size_t m = n - k < CHUNK ? n - k : CHUNK;
    vec->get(c->dtype, m, (char *)gq_tensor_data(c) + k * size, 1, value);
    if (slope_) vec->get(c->dtype, m, (char *)gq_tensor_data((gq_tensor *)slope_) + k * size, 1, slope);
    signs(direction, i, k, m, sign);
    for (size_t j = 0; slope_ && j < m; j++) *sum_ += by * slope[j] * sign[j] * value[j];
    for (size_t j = 0; j < m; j++) value[j] *= 1 + by * sign[j];
    if (to_) vec->put(c->dtype, m, value, (char *)gq_tensor_data(to_) + k * size, 1);
  }
  gq_tensor_unref(c);
  return GQ_OK;
}

static int move(gq_tensor *x, int direction, int i, double by, gq_tensor **out) {
  GQ_TRY(gq_tensor_new_on(gq_tensor_device(x), x->dtype, x->shape, out));
  return along(x, direction, i, by, *out, NULL, NULL);
}

/* The solution from z0 and with parameters (those of dynamics that are called back stay) moved by so much. */
static int solve_moved(const gq_problem *p, gq_ode_options o, int direction, double by, gq_tensor **z,
                       int64_t *nfe) {
  gq_problem q = *p;
  gq_solution *none;
  gq_info info = { 0 };
  int n = p->ncapture, status = GQ_OK;
  gq_tensor **x = gq_calloc(n + 1, sizeof *x);
  if (!x) return gq_nomem(n * sizeof *x);
  for (int i = 0; i < n && status == GQ_OK; i++) {
    if (p->wants_grad[i] && !gq_graph_calls(p->f)) status = move(p->capture[i], direction, i, by, &x[i]);
    else x[i] = gq_tensor_ref(p->capture[i]);
  }
  if (status == GQ_OK) status = move(p->z0, direction, n, by, &x[n]);
  q.capture = x, q.z0 = x[n], q.z0_grad = q.t_grad = false, o.engine = gq_engine_find("none");
  if (status == GQ_OK) status = gq_solve(&q, &o, false, z, &info, &none);
  *nfe += info.nfe;
  for (int i = 0; i <= n; i++) gq_tensor_unref(x[i]);
  gq_free(x);
  return status;
}

int gq_quotient_solve(const gq_problem *p, const gq_ode_options *o, gq_solution *s) {
  int n = p->ncapture;
  s->perturbed = gq_calloc(n + 2 * GQ_QUOTIENTS, sizeof *s->perturbed);
  if (!s->perturbed) return gq_nomem(n * sizeof *s->perturbed);
  for (int i = 0; i < n && !gq_graph_calls(p->f); i++)
    if (p->wants_grad[i]) s->perturbed[i] = gq_tensor_ref(p->capture[i]);
  for (int d = 0; d < 2 * GQ_QUOTIENTS; d++)
    GQ_TRY(solve_moved(p, *o, d / 2, d % 2 ? -MOVE : MOVE, &s->perturbed[n + d], &s->tighter->info.nfe));
  return GQ_OK;
}

static double dot(const gq_tensor *x, const gq_tensor *y) {
  return gq_backend_of(x)->vec->dot(x->dtype, gq_numel(x->shape), gq_tensor_data(x), gq_tensor_data(y));
}

/* The derivative of the loss in one direction by the solutions on either side, and by the gradient. */
static int one_quotient(const gq_solution *s, gq_tensor *gz, const gq_gradients *g, int d, double tolerance,
                        double *out) {
  int n = s->plan->field->ncapture;
  double sum = 0, size = 0, part, moved;
  for (int i = 0; i <= n; i++) {
    gq_tensor *x = i < n ? s->perturbed[i] : s->z0, *gx = i < n ? g->capture[i] : g->z0;
    if (!x || !gx) continue;
    part = 0;
    GQ_TRY(along(x, d, i, 1, NULL, gx, &part));
    sum += part, size += fabs(part);
  }
  moved = (dot(gz, s->perturbed[n + 2 * d]) - dot(gz, s->perturbed[n + 2 * d + 1])) / (2 * MOVE);
  double off = fabs(moved - sum);
  if (off > GQ_SHOWS * tolerance / MOVE)
    *out = fmax(*out, off / fmax(size / 4, fmax(fabs(sum), fabs(moved))));
  return GQ_OK;
}

int gq_quotient_check(gq_solution *s, gq_tensor *gz, const gq_gradients *g, double tolerance) {
  int last = s->plan->field->ncapture + 2 * GQ_QUOTIENTS - 1;
  if (!s->perturbed || !s->perturbed[last]) return GQ_OK;
  double worst = 0;
  gq_tensor *cot;
  GQ_TRY(gq_tensor_contiguous_get(gz, &cot)); /* that of a sum is one number, stretched */
  int status = GQ_OK;
  for (int d = 0; d < GQ_QUOTIENTS && status == GQ_OK; d++)
    status = one_quotient(s, cot, g, d, tolerance, &worst);
  gq_tensor_unref(cot);
  if (status == GQ_OK) s->info.quotient_error = worst;
  return status;
}
