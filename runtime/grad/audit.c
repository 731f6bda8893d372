/*
** audit.c -- engines auto, whatever it chose, and gq, others where it is asked for: the first and then every
** o->audit-th solve of a structure, and a few whose numbers are others or whose steps many more, are made once more, all
** rows together by gq at a tenth of the tolerances, the first in some 30 steps at least, and the two gradients are
** compared. They part where the stages see less than f has (a pulse between them, an oscillation that df/dtheta alone
** knows), where errors of steps add up, and where stability holds the steps, whose derivative by a fast rate is noise.
** Where f compares the state it may jump, which no engine's gradient tells: then that is held against solutions from a
** little beside. Only info comes of it, so gradients do not depend on when. scripts/drawn.lua counts what it sees and
** where it cries for nothing.
*/
#include "quotient.h"

#include "../exec/tape.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
  EVERY = 256,
  OTHERS = 8, /* solves of a structure whose numbers are others, or that take many more steps, besides */
  FEW_STEPS = 8,
  TIGHTER = 10,
  EVALUATIONS = 192, /* of f at least, evenly: both solves may jump over the same */
  MULTISTEP = 2,     /* those of a step */
  MUCH = 16,         /* times the steps of the solve: one stiff row among many must not hold all of them */
  ALONE = 16,        /* numbers of a tensor that are compared one by one */
};

/* ---- forwards ---- */

/* Of the single numbers that f captures and that want no gradient: what training leaves, and other problems change. */
static uint64_t sum_of_numbers(const gq_problem *p) {
  uint64_t sum = 14695981039346656037u; /* FNV-1a */
  for (int i = 0; i < p->ncapture; i++) {
    const gq_tensor *x = p->capture[i];
    if (p->wants_grad[i] || gq_numel(x->shape) != 1 || !gq_is_float(x->dtype)) continue;
    uint64_t bits = 0;
    double value;
    gq_backend_of(x)->vec->get(x->dtype, 1, gq_tensor_data(x), 1, &value);
    memcpy(&bits, &value, sizeof bits);
    sum = (sum ^ bits) * 1099511628211u;
  }
  return sum;
}

/* Those that come in their turn later on, of a training, take no more than their tolerance asks for. */
typedef enum turn { NONE, LATER, WHOLE } turn;

/* A few that have other numbers come in between, and those of twice the steps of all before: training may have made the
** problem stiff, or its solution another one. */
static turn takes_turn(const gq_problem *p, gq_plan *plan, int64_t steps, int64_t every) {
  uint64_t numbers = sum_of_numbers(p);
  int64_t before = plan->solves[p->dense_ != NULL]++;
  bool some = plan->others < OTHERS, longer = some && steps > 2 * plan->longest + FEW_STEPS;
  bool other = some && numbers != plan->audited, mine = before % every == 0 || longer;
  plan->others += before % every != 0 && (other || longer);
  if (mine || other) plan->audited = numbers;
  if ((mine || other) && steps > plan->longest) plan->longest = steps;
  return other || before == 0 ? WHOLE : mine ? LATER : NONE;
}

static turn due(const gq_problem *p, const gq_ode_options *asked, const gq_solution *s) {
  const gq_ode_options *o = &s->o;
  bool chosen = asked->engine->choose;
  bool refined = o->engine == gq_engine_find("gq") && asked->nodes == GQ_NODES_AUTO;
  bool controlled = o->step_size <= 0 && !o->overshoot && (o->method->e || o->method->multistep);
  bool plain = !o->error && !o->stiffness && !p->noise;
  bool given = asked->audit != GQ_AUDIT_UNASKED;
  int64_t every = given ? asked->audit : (chosen || refined) && !gq_graph_calls(p->f) ? EVERY : 0;
  if (every <= 0 || !controlled || !plain || s->trivial) return NONE;
  if (!s->plan->products && !p->z0_grad && !p->t_grad) return NONE;
  turn mine = takes_turn(p, s->plan, s->info.steps + s->info.rejected, every);
  return mine == LATER && given ? WHOLE : mine;
}

/* Numbers that are compared together: all of a tensor, but each of few alone, whatever stands beside it. */
static size_t together(const gq_tensor *x) {
  size_t n = gq_numel(x->shape);
  return n <= ALONE ? 1 : n;
}

static double length(const gq_backend *on, gq_dtype d, size_t n, const void *x) {
  return sqrt(on->vec->dot(d, n, x, x));
}

static int norm(const gq_tensor *x, double *out) {
  gq_tensor *c;
  GQ_TRY(gq_tensor_contiguous_get((gq_tensor *)x, &c));
  *out = length(gq_backend_of(c), c->dtype, gq_numel(c->shape), gq_tensor_data(c));
  gq_tensor_unref(c);
  return GQ_OK;
}

/* The lengths of what is compared together of x. */
static int put_sizes(gq_tensor *x, double *to) {
  gq_tensor *c;
  size_t n = gq_numel(x->shape), step = together(x);
  GQ_TRY(gq_tensor_contiguous_get(x, &c));
  const char *data = gq_tensor_data(c);
  for (size_t i = 0; i < n; i += step)
    to[i / step] = length(gq_backend_of(c), c->dtype, step, data + i * gq_dtype_size(c->dtype));
  gq_tensor_unref(c);
  return GQ_OK;
}

/* Of the parameters that want gradients, and of z0. */
static int keep_sizes(const gq_problem *p, gq_solution *s) {
  size_t n = ALONE * ((size_t)p->ncapture + 1);
  s->size = gq_calloc(n, sizeof *s->size);
  if (!s->size) return gq_nomem(n * sizeof *s->size);
  for (int i = 0; i < p->ncapture; i++)
    if (p->wants_grad[i]) GQ_TRY(put_sizes(p->capture[i], s->size + i * ALONE));
  return put_sizes(p->z0, s->size + p->ncapture * ALONE);
}

/* gq as it is by default, whatever was asked for of the way back. */
static gq_ode_options by_default(const gq_problem *p, const gq_ode_options *asked) {
  gq_ode_options o = *asked, d;
  gq_ode_defaults(&d, p->z0->dtype);
  o.engine = gq_engine_find("gq"), o.independent = o.parity = o.guards = false; /* joint pieces are refined */
  o.trajectory = d.trajectory, o.thin = d.thin, o.checkpoints = d.checkpoints, o.points = d.points;
  o.moments = d.moments, o.auto_impulses = d.auto_impulses, o.scale = d.scale, o.back_step_size = 0;
  o.nodes = d.nodes, o.quadrature = d.quadrature, o.panels = d.panels, o.C = d.C, o.max_nodes = d.max_nodes;
  return o;
}

static int solve_tighter(const gq_problem *p, const gq_ode_options *asked, gq_solution *s, turn mine) {
  gq_problem q = *p;
  gq_ode_options o = by_default(p, asked);
  gq_tensor *z;
  gq_info info;
  GQ_TRY(keep_sizes(p, s));
  bool switches = !p->event_ && gq_switches_by_state(p);
  q.dense_ = NULL, q.samples_ = NULL, q.z0_grad |= switches;
  int64_t rows = asked->independent ? p->z0->shape.dim[0] : 1;
  int64_t most = MUCH * (s->info.steps / rows) + 100 + 2 * p->nt; /* times end steps on the way back */
  if (o.max_steps > most) o.max_steps = most;
  if (o.back_max_steps > most) o.back_max_steps = most;
  double *all[] = { &o.rtol, &o.atol, &o.back_rtol, &o.back_atol };
  double least = 8 * (p->z0->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON);
  for (int i = 0; i < 4; i++) *all[i] = fmax(*all[i] / TIGHTER, fmin(*all[i], least));
  o.memory_limit -= s->bytes < o.memory_limit ? s->bytes : o.memory_limit - 1;
  int each = o.method->multistep ? MULTISTEP : o.method->stages;
  double longest = fabs(p->t[p->nt - 1] - p->t[0]) * each / EVALUATIONS;
  if (mine == WHOLE && !(o.max_step > 0 && o.max_step < longest)) o.max_step = longest;
  if (mine == WHOLE && !(o.back_max_step > 0 && o.back_max_step < longest)) o.back_max_step = longest;
  bool logged = gq_steplog_hold(true);
  gq_tell(GQ_TELL_MEM, "audit of this solve, the first of its kind, by shorter steps:");
  int status = gq_solve(&q, &o, false, &z, &info, &s->tighter);
  if (status == GQ_OK && switches) status = gq_quotient_solve(&q, &o, s);
  gq_steplog_hold(logged);
  gq_tensor_unref(z);
  return status;
}

/* A solve that fails at the tenth alone is no error; one that was interrupted is. */
int gq_odeint(const gq_problem *p, const gq_ode_options *o, bool partial, gq_tensor **z, gq_info *info,
              gq_solution **sol) {
  int status = gq_solve(p, o, partial, z, info, sol);
  turn mine = status == GQ_OK && *sol ? due(p, o, *sol) : NONE;
  if (mine == NONE) return status;
  if (solve_tighter(p, o, *sol, mine) != GQ_EINTERRUPT) return GQ_OK;
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

/* |g - g'| / max(|g|, |g'|) of n numbers from the i-th on; *off: |g - g'|. */
static double relative(const gq_tensor *g, const gq_tensor *h, size_t i, size_t n, double *off) {
  const gq_vectors *vec = gq_backend_of(g)->vec;
  const char *x = (const char *)gq_tensor_data((gq_tensor *)g) + i * gq_dtype_size(g->dtype);
  const char *y = (const char *)gq_tensor_data((gq_tensor *)h) + i * gq_dtype_size(g->dtype);
  double sum[2] = { 0, 0 };
  vec->apart(g->dtype, n, x, y, sum);
  *off = sqrt(sum[0]);
  return sqrt(sum[0] / fmax(sum[1], vec->dot(g->dtype, n, x, x)));
}

/* The largest of those of what is compared together, and which it is; a difference that does not show in the loss where
** that changes by its own size, or by 1, does not count. NULL: nothing is asked for. */
static void apart(gq_tensor *g, gq_tensor *h, double tolerance, const double *size, const char *name,
                  gq_info *info) {
  if (!g || !h) return;
  size_t n = gq_numel(g->shape), step = together(g), worst = n;
  double off, whole;
  for (size_t i = 0; i < n; i += step) {
    double error = relative(g, h, i, step, &off);
    if (off * fmax(1, size[i / step]) > GQ_SHOWS * tolerance && error > info->gradient_error)
      info->gradient_error = error, worst = i;
  }
  if (worst == n) return;
  char shape[64], number[32] = "", all[48] = "";
  whole = relative(g, h, 0, n, &off);
  if (step < n) {
    snprintf(number, sizeof number, "number %zu of ", worst + 1);
    snprintf(all, sizeof all, " (all of it by %.3g %%)", 100 * whole);
  }
  snprintf(info->gradient_of, sizeof info->gradient_of, "%s%s %s%s", number, name,
           gq_shape_text(g->shape, shape, sizeof shape), all);
}

/* Times change by the length of the solve. */
static void times_apart(const gq_solution *s, gq_tensor *g, gq_tensor *h, double tolerance, gq_info *info) {
  if (!g || !h) return;
  double span = fabs(s->t[s->nt - 1] - s->t[0]);
  const double *x = gq_tensor_data(g), *y = gq_tensor_data(h);
  for (int k = 0; k < s->nt; k++) {
    double off = fabs(x[k] - y[k]), error = off / fmax(fabs(x[k]), fabs(y[k]));
    if (!(off * span > GQ_SHOWS * tolerance && error > info->gradient_error)) continue;
    info->gradient_error = error;
    snprintf(info->gradient_of, sizeof info->gradient_of, "t[%d]", k + 1);
  }
}

static void drop(const gq_solution *s, gq_gradients *g) {
  for (int i = 0; g->capture && i < s->plan->field->ncapture; i++)
    gq_tensor_unref(g->capture[i]), g->capture[i] = NULL;
  gq_tensor_unref(g->z0), gq_tensor_unref(g->t);
  g->z0 = g->t = NULL;
}

static int compare(gq_solution *s, gq_tensor *gz, const gq_gradients *got, gq_gradients *fine) {
  gq_solution *o = s->tighter;
  int n = s->plan->field->ncapture;
  double tolerance;
  gq_info *info = &s->info;
  GQ_TRY(gq_solve_back(o, gz, (double[2]){ 0, 0 }, &fine->z0, &fine->t, fine->capture));
  GQ_TRY(loss_tolerance(&s->o, o->z, gz, &tolerance));
  info->gradient_error = 0, info->gradient_of[0] = 0;
  apart(got->z0, fine->z0, tolerance, s->size + n * ALONE, "z0", info);
  times_apart(s, got->t, fine->t, tolerance, info);
  for (int i = 0; i < n; i++)
    apart(got->capture[i], fine->capture[i], tolerance, s->size + i * ALONE, "a parameter", info);
  s->info.nfe_audit = o->info.nfe + o->info.nfe_backward;
  return gq_quotient_check(s, gz, fine, tolerance);
}

static int compare_once(gq_solution *s, gq_tensor *gz, const gq_gradients *got) {
  gq_gradients fine = { .capture = gq_calloc(s->plan->field->ncapture + 1, sizeof *fine.capture) };
  bool logged = gq_steplog_hold(true);
  gq_tell(GQ_TELL_MEM, "audit of this way back:");
  int status = fine.capture ? compare(s, gz, got, &fine) : GQ_OK;
  gq_steplog_hold(logged);
  drop(s, &fine);
  gq_free(fine.capture);
  gq_solution_free(s->tighter);
  s->tighter = NULL;
  return status == GQ_EINTERRUPT ? status : GQ_OK;
}

int gq_odeint_backward_sums(gq_solution *s, gq_tensor *gz_, const double sums[2], gq_tensor **gz0,
                            gq_tensor **gt, gq_tensor **gcapture) {
  int status = gq_solve_back(s, gz_, sums, gz0, gt, gcapture);
  if (status != GQ_OK || !s->tighter || !gz_) return status;
  gq_gradients got = { *gz0, *gt, gcapture };
  status = compare_once(s, gz_, &got);
  if (status == GQ_OK) return GQ_OK;
  drop(s, &got);
  *gz0 = *gt = NULL;
  return status;
}

int gq_odeint_backward(gq_solution *s, gq_tensor *gz, gq_tensor **gz0, gq_tensor **gt, gq_tensor **gcapture) {
  return gq_odeint_backward_sums(s, gz, (double[2]){ 0, 0 }, gz0, gt, gcapture);
}

/* The gradients of a replay may be views and have a tape of their own. */
static int pack_gradients(const gq_solution *s, gq_tensor *z0_, gq_tensor *t_, gq_tensor *const *capture,
                          gq_gradients *to) {
  for (int i = 0; i < s->plan->field->ncapture; i++)
    if (capture[i]) GQ_TRY(gq_tensor_contiguous_get(capture[i], &to->capture[i]));
  if (z0_) GQ_TRY(gq_tensor_contiguous_get(z0_, &to->z0));
  if (!t_) return GQ_OK;
  GQ_TRY(gq_tensor_empty(GQ_F64, t_->shape, &to->t));
  return gq_tensor_copy(to->t, t_);
}

int gq_odeint_judge(gq_solution *s, gq_tensor *gz, gq_tensor *gz0_, gq_tensor *gt_,
                    gq_tensor *const *gcapture, bool *judged) {
  *judged = s->tighter != NULL;
  s->judged |= *judged;
  if (!*judged) return GQ_OK;
  gq_gradients got = { .capture = gq_calloc(s->plan->field->ncapture + 1, sizeof *got.capture) };
  bool recording = gq_set_recording(false);
  gq_tensor *cot = NULL;
  int status = got.capture ? gq_tensor_contiguous_get(gz, &cot) : gq_nomem(sizeof *got.capture);
  if (status == GQ_OK) status = pack_gradients(s, gz0_, gt_, gcapture, &got);
  if (status == GQ_OK) status = compare_once(s, cot, &got);
  gq_set_recording(recording);
  gq_tensor_unref(cot);
  drop(s, &got);
  gq_free(got.capture);
  return status;
}
