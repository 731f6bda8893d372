/*
** audit.c -- engines auto, whatever it chose, and gq: the first and then every o->audit-th solve of a structure is
** made once more, all rows together by gq at a tenth of the tolerances, and the two gradients are compared. They part
** where the stages see less than f has (a pulse between them, an oscillation that df/dtheta alone knows), where errors
** of steps add up, and where stability holds the steps, whose derivative by a fast rate is noise. Only info comes of
** it, so gradients do not depend on when. scripts/drawn.lua counts what it sees and where it cries for nothing.
*/
#include "../ode/solution.h"

#include <float.h>
#include <math.h>

enum {
  TIGHTER = 10,
  MUCH = 16 /* times the steps of the solve: one stiff row among many must not hold all of them */
};
/* Tolerances of the loss by which the gradients of two solves may differ: the errors of steps add up to some. Of 10,800 drawn
** passes (scripts/drawn.lua) those that were wrong differed by 2 or more, or not at all; a seventh of the false alarms by
** less than this. */
static const double SHOWS = 1.5;

/* ---- forwards ---- */

static bool due(const gq_problem *p, const gq_ode_options *asked, const gq_solution *s) {
  const gq_ode_options *o = &s->o;
  bool chosen = asked->engine->choose;
  bool refined = o->engine == gq_engine_find("gq") && asked->nodes == GQ_NODES_AUTO;
  bool controlled = o->step_size <= 0 && !o->overshoot && (o->method->e || o->method->multistep);
  bool plain = !o->error && !o->stiffness && !p->noise;
  if (!(chosen || refined) || !controlled || !plain || s->trivial) return false;
  if (!s->plan->products || gq_graph_calls(p->f) || asked->audit <= 0) return false;
  return s->plan->solves[p->dense_ != NULL]++ % asked->audit == 0;
}

static int norm(const gq_tensor *x, double *out) {
  gq_tensor *c;
  GQ_TRY(gq_tensor_contiguous_get((gq_tensor *)x, &c));
  *out = sqrt(gq_backend_of(c)->vec->dot(c->dtype, gq_numel(c->shape), gq_tensor_data(c), gq_tensor_data(c)));
  gq_tensor_unref(c);
  return GQ_OK;
}

static int solve_tighter(const gq_problem *p, const gq_ode_options *asked, gq_solution *s) {
  gq_problem q = *p;
  gq_ode_options o = *asked;
  gq_tensor *z;
  gq_info info;
  s->size = gq_calloc(p->ncapture + 1, sizeof *s->size);
  if (!s->size) return gq_nomem(p->ncapture * sizeof *s->size);
  for (int i = 0; i < q.ncapture; i++)
    if (q.wants_grad[i]) GQ_TRY(norm(q.capture[i], &s->size[i]));
  q.z0_grad = q.t_grad = false, q.dense_ = NULL, q.samples_ = NULL;
  o.engine = gq_engine_find("gq"), o.independent = false; /* whose pieces are refined */
  int64_t rows = asked->independent ? p->z0->shape.dim[0] : 1, most = MUCH * (s->info.steps / rows) + 100;
  if (o.max_steps > most) o.max_steps = most;
  if (o.back_max_steps > most) o.back_max_steps = most;
  double *all[] = { &o.rtol, &o.atol, &o.back_rtol, &o.back_atol };
  double least = 8 * (p->z0->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON);
  for (int i = 0; i < 4; i++) *all[i] = fmax(*all[i] / TIGHTER, fmin(*all[i], least));
  o.memory_limit -= s->bytes < o.memory_limit ? s->bytes : o.memory_limit - 1;
  bool logged = gq_steplog_hold(true);
  int status = gq_solve(&q, &o, false, &z, &info, &s->tighter);
  gq_steplog_hold(logged);
  gq_tensor_unref(z);
  return status;
}

/* A solve that fails at the tenth alone is no error; one that was interrupted is. */
int gq_odeint(const gq_problem *p, const gq_ode_options *o, bool partial, gq_tensor **z, gq_info *info,
              gq_solution **sol) {
  int status = gq_solve(p, o, partial, z, info, sol);
  if (status != GQ_OK || !*sol || !due(p, o, *sol)) return status;
  if (solve_tighter(p, o, *sol) != GQ_EINTERRUPT) return GQ_OK;
  return info->status = gq_solve_undo(p, z, sol, GQ_EINTERRUPT);
}

/* ---- backwards ---- */

/* What the tolerances of the state are in the loss. */
static int loss_tolerance(const gq_ode_options *o, const gq_tensor *z, const gq_tensor *gz, double *out) {
  double g, size;
  GQ_TRY(norm(gz, &g));
  GQ_TRY(norm(z, &size));
  *out = g * (o->atol * sqrt((double)gq_numel(gz->shape)) + o->rtol * size);
  return GQ_OK;
}

/* The largest |g - g'| / max(|g|, |g'|) of a parameter; one whose difference does not show in the loss where the parameter
** changes by its own size, or by 1, does not count. */
static double largest(const gq_solution *s, gq_tensor *const *g, gq_tensor *const *h, double tolerance) {
  const gq_field *f = s->plan->field;
  double worst = 0;
  for (int i = 0; i < f->ncapture; i++) {
    double sum[2] = { 0, 0 };
    if (!g[i] || !h[i]) continue;
    size_t n = gq_numel(g[i]->shape);
    const void *x = gq_tensor_data(g[i]), *y = gq_tensor_data(h[i]);
    f->on->vec->apart(g[i]->dtype, n, x, y, sum);
    double larger = fmax(sum[1], f->on->vec->dot(g[i]->dtype, n, x, x));
    if (sqrt(sum[0]) * fmax(1, s->size[i]) > SHOWS * tolerance) worst = fmax(worst, sqrt(sum[0] / larger));
  }
  return worst;
}

static int compare(gq_solution *s, gq_tensor *gz, gq_tensor *const *gcapture, gq_tensor **fine) {
  gq_solution *o = s->tighter;
  gq_tensor *gz0, *gt;
  double tolerance;
  GQ_TRY(gq_solve_back(o, gz, (double[2]){ 0, 0 }, &gz0, &gt, fine));
  GQ_TRY(loss_tolerance(&s->o, o->z, gz, &tolerance));
  s->info.gradient_error = largest(s, gcapture, fine, tolerance);
  s->info.nfe_audit = o->info.nfe + o->info.nfe_backward;
  return GQ_OK;
}

static int compare_once(gq_solution *s, gq_tensor *gz, gq_tensor *const *gcapture) {
  int n = s->plan->field->ncapture;
  gq_tensor **fine = gq_calloc(n + 1, sizeof *fine);
  bool logged = gq_steplog_hold(true);
  int status = fine ? compare(s, gz, gcapture, fine) : GQ_OK;
  gq_steplog_hold(logged);
  for (int i = 0; fine && i < n; i++) gq_tensor_unref(fine[i]);
  gq_free(fine);
  gq_solution_free(s->tighter);
  s->tighter = NULL;
  return status == GQ_EINTERRUPT ? status : GQ_OK;
}

int gq_odeint_backward_sums(gq_solution *s, gq_tensor *gz_, const double sums[2], gq_tensor **gz0,
                            gq_tensor **gt, gq_tensor **gcapture) {
  int status = gq_solve_back(s, gz_, sums, gz0, gt, gcapture);
  if (status != GQ_OK || !s->tighter || !gz_) return status;
  status = compare_once(s, gz_, gcapture);
  if (status == GQ_OK) return GQ_OK;
  for (int i = 0; i < s->plan->field->ncapture; i++) gq_tensor_unref(gcapture[i]), gcapture[i] = NULL;
  gq_tensor_unref(*gz0), gq_tensor_unref(*gt);
  *gz0 = *gt = NULL;
  return status;
}

int gq_odeint_backward(gq_solution *s, gq_tensor *gz, gq_tensor **gz0, gq_tensor **gt, gq_tensor **gcapture) {
  return gq_odeint_backward_sums(s, gz, (double[2]){ 0, 0 }, gz0, gt, gcapture);
}
