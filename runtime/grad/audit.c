/*
** audit.c -- engines auto (where it chose direct) and gq: the first and then every o->audit-th solve of a structure is
** made once more, by gq at a tenth of the tolerances, and the two gradients are compared. They part where the stages
** see less than f has (a pulse between them, an oscillation that df/dtheta alone knows), where errors of steps add up,
** and where stability holds the steps, whose derivative by a fast rate is noise. Only info comes of it, so gradients
** do not depend on when. scripts/drawn.lua counts what it sees and where it cries for nothing.
*/
#include "../ode/solution.h"

#include <float.h>
#include <math.h>

struct gq_audit {
  gq_solution *other; /* by gq */
  double size[];      /* [ncapture] |parameter| */
};

enum { TIGHTER = 10 };

bool gq_audit_due(const gq_problem *p, const gq_ode_options *asked, const gq_solution *s) {
  const gq_ode_options *o = &s->o;
  bool steps = asked->engine->choose && o->engine->keeps == GQ_KEEP_ACTIVATIONS;
  bool refined = o->engine == gq_engine_find("gq") && o->nodes == GQ_NODES_AUTO;
  bool controlled = o->method->steps->any_system && o->method->e && o->step_size <= 0 && !o->overshoot;
  if (!(steps || refined) || !controlled || o->independent || o->error || o->stiffness || p->event_ ||
      p->noise)
    return false;
  if (s->trivial || !s->plan->products || gq_graph_calls(p->f) || asked->audit <= 0) return false;
  return s->plan->solves++ % asked->audit == 0;
}

static int norm(const gq_tensor *x, double *out) {
  gq_tensor *c;
  GQ_TRY(gq_tensor_contiguous_get((gq_tensor *)x, &c));
  *out = sqrt(gq_backend_of(c)->vec->dot(c->dtype, gq_numel(c->shape), gq_tensor_data(c), gq_tensor_data(c)));
  gq_tensor_unref(c);
  return GQ_OK;
}

static int solve(const gq_problem *p, const gq_ode_options *asked, gq_solution *s, gq_audit *a) {
  gq_problem q = *p;
  gq_ode_options o = *asked;
  gq_tensor *z;
  gq_info info;
  q.z0_grad = q.t_grad = false, q.dense_ = NULL, q.samples_ = NULL;
  o.engine = gq_engine_find("gq"), o.audit = 0;
  double *all[] = { &o.rtol, &o.atol, &o.back_rtol, &o.back_atol };
  double least = p->z0->dtype == GQ_F32 ? 8 * FLT_EPSILON : 8 * DBL_EPSILON;
  for (int i = 0; i < 4; i++) *all[i] = fmax(*all[i] / TIGHTER, fmin(*all[i], least));
  o.memory_limit -= s->bytes < o.memory_limit ? s->bytes : o.memory_limit - 1;
  for (int i = 0; i < q.ncapture; i++)
    if (q.wants_grad[i]) GQ_TRY(norm(q.capture[i], &a->size[i]));
  bool logged = gq_steplog_hold(true);
  int status = gq_odeint(&q, &o, false, &z, &info, &a->other);
  gq_steplog_hold(logged);
  gq_tensor_unref(z);
  return status;
}

/* A solve that only gq fails is no error; one that was interrupted is. */
int gq_audit_solve(const gq_problem *p, const gq_ode_options *asked, gq_solution *s) {
  gq_audit *a = gq_calloc(1, sizeof *a + p->ncapture * sizeof *a->size);
  if (!a) return GQ_OK;
  int status = solve(p, asked, s, a);
  if (status == GQ_OK && a->other) s->audit = a;
  else gq_audit_free(a);
  return status == GQ_EINTERRUPT ? status : GQ_OK;
}

/* What the tolerances of the state are in the loss. */
static int loss_tolerance(const gq_ode_options *o, const gq_tensor *z, const gq_tensor *gz, double *out) {
  double g, size;
  GQ_TRY(norm(gz, &g));
  GQ_TRY(norm(z, &size));
  *out = g * (o->atol * sqrt((double)gq_numel(gz->shape)) + o->rtol * size);
  return GQ_OK;
}

/* The largest |g - g'| / max(|g|, |g'|) of a parameter; one whose difference is within the loss's tolerance where the
** parameter changes by its own size, or by 1, does not count. */
static double largest(const gq_audit *a, gq_tensor *const *g, gq_tensor *const *h, double tolerance) {
  const gq_field *f = a->other->plan->field;
  double worst = 0;
  for (int i = 0; i < f->ncapture; i++) {
    double one[2] = { 0, 0 }, two[2] = { 0, 0 };
    if (!g[i] || !h[i]) continue;
    f->on->vec->apart(g[i]->dtype, gq_numel(g[i]->shape), gq_tensor_data(h[i]), gq_tensor_data(g[i]), one);
    f->on->vec->apart(g[i]->dtype, gq_numel(g[i]->shape), gq_tensor_data(g[i]), gq_tensor_data(h[i]), two);
    if (sqrt(one[0]) * fmax(1, a->size[i]) > tolerance)
      worst = fmax(worst, sqrt(one[0] / fmax(one[1], two[1])));
  }
  return worst;
}

static int compare(gq_solution *s, gq_tensor *gz, gq_tensor *const *gcapture, gq_tensor **fine) {
  gq_solution *o = s->audit->other;
  gq_tensor *gz0, *gt;
  double tolerance;
  GQ_TRY(gq_odeint_backward(o, gz, &gz0, &gt, fine));
  GQ_TRY(loss_tolerance(&s->o, o->z, gz, &tolerance));
  s->info.gradient_error = largest(s->audit, gcapture, fine, tolerance);
  s->info.nfe_audit = o->info.nfe + o->info.nfe_backward;
  return GQ_OK;
}

int gq_audit_compare(gq_solution *s, gq_tensor *gz, gq_tensor *const *gcapture) {
  int n = s->plan->field->ncapture;
  gq_tensor **fine = gq_calloc(n + 1, sizeof *fine);
  bool logged = gq_steplog_hold(true);
  int status = fine ? compare(s, gz, gcapture, fine) : GQ_OK;
  gq_steplog_hold(logged);
  for (int i = 0; fine && i < n; i++) gq_tensor_unref(fine[i]);
  gq_free(fine);
  gq_audit_free(s->audit);
  s->audit = NULL;
  return status == GQ_EINTERRUPT ? status : GQ_OK;
}

void gq_audit_free(gq_audit *a) {
  if (a) gq_solution_free(a->other);
  gq_free(a);
}
