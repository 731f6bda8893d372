/*
** continuous.c -- the adjoint equation solved backwards: adjoint, seminorm and gq.
** Chen et al. 2018 (adjoint), Kidger et al. 2021 (seminorm), Norcliffe & Deisenroth (TMLR 2023).
**
** Over each measurement interval, from t_k to t_k-1: z restarts from its stored value, a takes the
** jump dL/dz(t_k), (z, a)' = (f, -a'df/dz). The engines differ in the integral of a'df/dtheta (integral.c).
** Along a trajectory that knows z(t) from the forward solve (trajectory.h) a alone is solved.
*/
#include "integral.h"

#include <math.h>
#include <string.h>

/* z at measurement time i as the slices hold states. */
static void *stored(gq_back *k, int i) { return gq_packed_at(k->s, i, k->stored); }

/* Implicit steps where nobody looks at the error of the integral. */
static bool crosses(const gq_back *k) {
  return k->s->o.engine->integral == GQ_INTEGRAL_OUTSIDE && k->w.a.st->m->steps->stiff;
}

/* Do steps hang on those of z (limit_step)? */
static bool follows(const gq_back *k) {
  return !k->reverse && k->w.a.st->kind.adaptive && (k->s->o.nodes == GQ_NODES_AUTO || crosses(k));
}

static int fill_path(gq_walk *w, double t, double h) {
  gq_back *k = w->context;
  const gq_tableau *m = w->a.st->m;
  for (int i = 0; i < m->slopes; i++) {
    double at = t + gq_tableau_time(m, i) * h;
    for (int g = 0; g < w->a.st->l.given && gq_tableau_twin(m, i) == i; g++) {
      if (g == 0 && !k->reverse)
        GQ_TRY(gq_trajectory_at(&k->z, gq_attempt_inside(&w->a, at), w->a.path[i][g]));
      else gq_panel_force(&k->panel, k->s, at, w->a.path[i][g]);
    }
  }
  return GQ_OK;
}

/* The same where a device makes the attempts. */
static void trail(const gq_walk *w, gq_trail *r) {
  const gq_back *k = w->context;
  const gq_jumps *j = &w->a.jumps;
  *r = k->trail;
  r->near = k->z.near, r->given = w->a.st->l.given;
  r->low = j->bounded ? fmin(j->t0, j->t1) : -INFINITY, r->high = j->bounded ? fmax(j->t0, j->t1) : INFINITY;
  r->follows = follows(k);
  r->forced = k->panel.forced, r->middle = k->panel.middle, r->half = k->panel.half;
  for (int i = 0; i < GQ_MOMENTS; i++) r->force[i] = (uint64_t)(uintptr_t)k->panel.c[i];
}

/* ---- what is compiled ---- */

/* Nodes in every step, or those of eq. (9) judged: the Runge-Kutta weights integrate the probes too, to compare. Guards
** are for the rule whose weights make Legendre polynomials orthogonal, where no such comparison is made. */
void gq_nodes_shape(const gq_ode_options *o, gq_plankey *k) {
  k->audits = (o->nodes == GQ_NODES_STEP || o->nodes == GQ_NODES_AUTO) && !o->independent;
  k->probes = o->guards && !o->independent && !k->audits && o->quadrature == gq_quadratures;
}

static int build_nodes(gq_plan *p) {
  gq_evaluator *largest; /* compiled now: memory must not depend on how many nodes a solve asks for */
  if (p->key->independent && !p->field->lanes[1]) return GQ_OK;
  if (p->key->independent) return gq_evaluator_new(&p->scratch, gq_system_points, NULL, &p->many[0]);
  return gq_node_program(p, p->most_points, &largest);
}

int gq_continuous_build(gq_plan *p) {
  const gq_plankey *k = p->key;
  bool dense = k->trajectory->at != NULL, gq = gq_takes_nodes(k->engine),
       full = k->engine->integral == GQ_INTEGRAL_INSIDE;
  bool audit = k->audits && !p->field->calls; /* of a callback nothing can be projected */
  gq_products products = !gq ? GQ_PRODUCTS_ALL : audit ? GQ_PRODUCTS_PROBES : GQ_PRODUCTS_NONE;
  gq_adjointkind plain = { dense, k->moments, GQ_PRODUCTS_NONE, false },
                 with = { dense, k->moments, products, full && (k->t_grad || k->parity) };
  bool adaptive = k->back_method->e && !k->back_fixed, device = p->field->on->advance;
  int carry =
    full || !device ? GQ_PHASE_CARRY : 1; /* there a launch costs more than products that nobody reads */
  GQ_TRY(gq_plan_forward(p, false));
  gq_stepkind kind = { .m = k->back_method,
                       .adaptive = adaptive,
                       .max_norm = k->back_max_norm,
                       .dense = gq || k->overshoot,
                       .product_error = full && adaptive,
                       .product_dense = products != GQ_PRODUCTS_NONE && k->overshoot,
                       .product_carry = audit || !(with.time || device) ? carry : 0 };
  p->probes = (k->probes || audit) && p->products && !p->field->calls;
  /* Of stiff dynamics f turns what the interpolant leaves out into anything. */
  p->defect = gq && !k->independent && !p->field->calls && gq_trajectory_follows(k->trajectory) &&
              p->forward.kind.adaptive && !p->forward.m->steps->stiff;
  if (p->probes) GQ_TRY(gq_field_probes(p->field));
  p->backward.f = &p->adjoint, p->backward.products = &p->start, p->backward.adjoint = true;
  GQ_TRY(gq_stepper_new(&p->backward, &kind, p->field, gq_system_adjoint, &with));
  GQ_TRY(gq_evaluator_new(&p->scratch, gq_system_adjoint, &plain, &p->adjoint));
  if (p->backward.kind.product_error || p->backward.l.qe >= 0 ||
      (k->back_method->steps->stiff && p->backward.l.nq > 0))
    GQ_TRY(gq_evaluator_new(&p->scratch, gq_system_adjoint, &with, &p->start));
  p->most_points = 1;
  if (!p->field->calls) gq_plan_stack(p, 1);
  return gq && p->products ? build_nodes(p) : GQ_OK;
}

/* ---- set-up ---- */

static int buffers(gq_back *k) {
  gq_walk *w = &k->w;
  int parts = w->a.st->l.parts, given = w->a.st->l.given,
      moments = k->s->o.moments ? GQ_MOMENTS + GQ_MOMENTS_LEFT : 0;
  size_t n = 4 * parts + given * w->a.st->m->slopes + moments + 4;
  k->part = gq_round64(gq_part_bytes(k->s->plan->field));
  k->n = gq_numel(k->s->plan->field->shape);
  k->block = gq_allocate(k->s->plan->field->on, n * (k->part + 1));
  if (!k->block) return gq_nomem(n * k->part);
  gq_zero(k->s->plan->field->on, k->block, n * k->part);
  k->s->bytes += n * k->part;
  char *next = k->block;
  for (int p = 0; p < parts; p++) {
    void **all[] = { &w->a.y[p], &w->a.f[p], &w->a.y1[p], &w->a.f1[p] };
    for (int i = 0; i < 4; i++) *all[i] = next, next += k->part;
  }
  for (int i = 0; i < w->a.st->m->slopes; i++)
    for (int g = 0; g < given; g++) {
      int twin = gq_tableau_twin(w->a.st->m, i);
      w->a.path[i][g] = twin < i ? w->a.path[twin][g] : next, next += k->part;
    }
  for (int j = 0; j < moments; j++, next += k->part) {
    if (j < GQ_MOMENTS) k->panel.c[j] = next;
    else k->panel.left[j - GQ_MOMENTS] = next;
  }
  k->scratch = next, k->force = next + k->part, k->stored = next + 2 * k->part;
  return GQ_OK;
}

static bool any_nonzero(const gq_back *k, const void *x) {
  return k->f->on->vec->largest(k->f->dtype, k->n, x) != 0;
}

static double rms(const gq_back *k, const void *x) {
  double out;
  k->f->on->vec->rms(k->f->dtype, 1, k->n, k->n, x, &out);
  return out;
}

/* Largest RMS of a cotangent: what a is like. */
static double cotangent_size(const gq_back *k) {
  double top = 0, g[GQ_BACK_TOLD];
  for (int i = 0, n; i < k->s->nt; i += n) {
    n = gq_back_rms(k, k->b->gz, i, g);
    for (int j = 0; j < n; j++) top = fmax(top, g[j]);
  }
  return top;
}

static int setup(gq_back *k, double size) {
  gq_solution *s = k->s;
  const gq_ode_options *o = &s->o;
  gq_walk *w = &k->w;
  k->reverse = !o->trajectory->at;
  k->gq = gq_takes_nodes(o->engine) && s->plan->products;
  k->ia = k->reverse ? 1 : 0;
  w->controller = &o->controller, w->context = k;
  w->a.tol.split = k->s->split;
  w->a.tol.rtol = o->back_rtol, w->a.tol.max_norm = o->back_max_norm, w->c.size = o->back_step_size;
  w->max_steps = gq_back_budget(s);
  w->a.tol.atol[0] = o->back_atol;
  w->a.tol.atol[k->ia] = o->back_atol * (o->scale ? size : 1);
  w->a.tol.products = w->a.tol.atol[k->ia];
  w->a.sum.grads = k->gq ? &k->weighted : &k->b->grads, w->a.sum.time = &k->time;
  w->a.jumps = gq_solution_jumps(s);
  w->c.most = o->back_max_step, w->c.least = o->back_min_step;
  w->runs_ahead =
    k->reverse || !k->pieces; /* otherwise windows of steps end that the device knows nothing of */
  w->trail = k->reverse || o->trajectory == &gq_trajectory_dense ? trail : NULL;
  GQ_TRY(gq_walk_init(w, &s->plan->backward, s->bind, s->plan->arena));
  s->bytes += w->a.bytes;
  w->fill_path = w->a.st->l.given ? fill_path : NULL;
  GQ_TRY(buffers(k));
  if (!k->reverse) GQ_TRY(gq_trajectory_begin(&k->z, s));
  if (w->a.st->l.given && w->runs_ahead)
    GQ_TRY(gq_trajectory_trail(s, w->a.st->m, !k->reverse, &k->trail, &k->trail_block));
  if (w->a.st->l.dq >= 0) {
    GQ_TRY(gq_grads_new(s->plan->field, false, &w->a.sum.dq));
    GQ_TRY(gq_grads_new(s->plan->field, false, &w->a.sum.eq));
    s->bytes += w->a.sum.dq.bytes + w->a.sum.eq.bytes;
  }
  if (k->gq && w->a.st->l.nq > 0) GQ_TRY(gq_grads_probes(s->plan->field, &k->weighted));
  if (w->a.st->l.qe >= 0)
    GQ_TRY(k->gq ? gq_grads_probes(s->plan->field, &w->a.sum.next)
                 : gq_grads_new(s->plan->field, false, &w->a.sum.next));
  s->bytes += k->weighted.bytes + w->a.sum.next.bytes;
  return k->gq ? gq_integral_init(k) : GQ_OK;
}

/* ---- one measurement interval ---- */

/* a's steps are at most three of the forward solve's, so that its stages see what z did; one where nobody looks at the
** error of the integral and implicit steps could cross what decayed in many. */
static void limit_step(gq_back *k) {
  gq_walk *w = &k->w;
  const gq_steps *st = &k->s->steps;
  int64_t i = crosses(k) ? k->z.near : k->z.near > 2 ? k->z.near - 2 : 0;
  if (!st->n || !follows(k)) return;
  while (i > 0 && gq_trail_begins(w->a.t, gq_step(st, i).t, gq_step(st, i - 1).t)) i--;
  w->c.h = gq_trail_limit(w->c.h, w->a.t, gq_step(st, i).t);
}

/* Is the first step looked for? Once a pass, or at every restart for parity. */
static bool searches(const gq_back *k) { return k->w.a.st->kind.adaptive && (!k->started || k->s->o.parity); }

static int begin(gq_back *k, int i) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  void *z = stored(k, i);
  if (k->reverse) gq_state_copy(k->f, w->a.y[0], z);
  w->a.t = w->c.origin = s->t[i];
  w->c.index = 0;
  if (!k->reverse) GQ_TRY(gq_trajectory_leave(&k->z, s->t[i]));
  if (!w->a.st->l.carry) return GQ_OK;
  void *x[] = { w->a.y[0], k->reverse ? w->a.y[1] : z, k->force };
  if (s->o.moments) gq_state_clear(k->f, k->force); /* add_forcing comes later */
  bool carried = w->a.st->l.qe >= 0, products = carried || (searches(k) && w->a.st->l.dq >= 0);
  const gq_evaluator *e = products ? &s->plan->start : &s->plan->adjoint;
  gq_grads *q = carried ? &w->a.sum.next : &w->a.sum.dq;
  if (products) gq_zero(k->f->on, q->block, q->bytes);
  w->a.sum.dtime = 0;
  w->a.cost.nfe++;
  double t = gq_attempt_begin(&w->a, w->a.t, s->t[s->nt - 1] < s->t[0] ? 1 : -1);
  GQ_TRY(gq_evaluate_at(e, s->bind, t, x, w->a.f, q, &w->a.sum.dtime));
  if (carried && w->a.st->l.dq >= 0)
    gq_copy(k->f->on, w->a.sum.dq.block, q->block, q->bytes); /* for the first step */
  return GQ_OK;
}

/* dL/dt_k += g_k . f(t_k, z_k); the slope is there in the reverse solve, evaluated otherwise. */
static int time_gradient(gq_back *k, int i, const void *g, double sign, bool have_slope, double *gf) {
  if (have_slope) *gf = gq_state_dot(k->f, g, k->w.a.f[0]);
  else GQ_TRY(gq_slope_dot(k->b, gq_slope_time(k->s, &k->w.a, i), stored(k, i), g, k->scratch, gf));
  k->b->gt[i] += sign * *gf;
  return GQ_OK;
}

static int first_step(gq_back *k, double stop) {
  gq_walk *w = &k->w;
  if (!w->a.st->kind.adaptive) return GQ_OK;
  const gq_evaluator *e = w->a.st->l.dq >= 0 ? &k->s->plan->start : &k->s->plan->adjoint;
  if (searches(k)) GQ_TRY(gq_walk_first(w, e, stop, &w->c.h));
  gq_steplog_first(w->c.h);
  return GQ_OK;
}

static int accepted(gq_back *k, double stop) {
  gq_walk *w = &k->w;
  double dir = w->a.h < 0 ? -1 : 1;
  bool past = dir * (w->a.t1 - stop) > 0;
  double theta = past ? (stop - w->a.t) / w->a.h : 1;
  if ((k->gq || past) && w->a.st->l.nfe_dense && w->a.st->l.nq == 0) GQ_TRY(gq_walk_phase(w, 1));
  GQ_TRY(gq_integral_weights(k, theta, past || w->a.t1 == stop));
  if (k->gq) GQ_TRY(gq_integral_step(k, stop));
  if (past) { /* overshoot: the state at the end is read from the interpolant */
    for (int p = 0; p < w->a.st->l.parts; p++) {
      gq_walk_interpolate_all(w, p, theta, k->scratch);
      gq_state_copy(k->f, w->a.y1[p], k->scratch);
    }
    w->a.t1 = stop;
  }
  gq_walk_commit(w);
  if (k->pieces) GQ_TRY(gq_integral_window(k, stop));
  if (k->reverse || gq_back_adaptive(k) || (k->pieces && k->steps.n)) return GQ_OK;
  GQ_TRY(gq_trajectory_leave(&k->z, w->a.t));
  limit_step(k);
  return GQ_OK;
}

/* J'(t_i) v into dst (of opposite sign), where nothing forces. */
static int pull_at(gq_back *k, int i, void *v, void **slopes, void **dst) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  void *z = stored(k, i), *x[] = { k->reverse ? z : v, k->reverse ? v : z, k->force };
  gq_state_clear(k->f, k->force);
  w->a.cost.nfe++;
  *dst = slopes[k->ia];
  return gq_evaluate_at(&s->plan->adjoint, s->bind, s->t[i], x, slopes, NULL, NULL);
}

/* A forcing is solved in steps much shorter than its panel, about as many in every panel; a restart asks
** for one step an interval. */
static bool restarts_cost_less(const gq_back *k) {
  const gq_panel *p = &k->panel;
  int64_t step = k->w.a.st->cost;
  return (p->from - p->to) * (step + 1) <= k->forced_cost;
}

/* The norms of the moments left out, and RMS of two vectors where they are given. */
static void panel_sizes(gq_back *k, double *left, const void *x_, const void *y_, double *rms) {
  const gq_walk *w = &k->w;
  gq_asked of[GQ_MOMENTS_LEFT + 2] = { 0 };
  for (int j = 0; j < GQ_MOMENTS_LEFT; j++)
    of[j] = (gq_asked){ .part = k->ia, .x = k->panel.left[j], .y = w->a.y[k->ia] };
  of[GQ_MOMENTS_LEFT] = (gq_asked){ .part = -1, .x = x_ },
  of[GQ_MOMENTS_LEFT + 1] = (gq_asked){ .part = -1, .x = y_ };
  gq_attempt_sizes(&w->a, GQ_MOMENTS_LEFT + (x_ ? 2 : 0), of);
  for (int j = 0; j < GQ_MOMENTS_LEFT; j++) left[j] = of[j].out;
  for (int j = 0; j < 2 && x_; j++) rms[j] = of[GQ_MOMENTS_LEFT + j].out;
}

/* Split the panel until the moments left out matter less than the tolerance. kappa and omega come from
** J' times one cotangent at both edges, a if there is one: the near edge's is in hand, the far one's is
** asked for where J' could turn round on the way and the error were too large then. */
static int fit_panel(gq_back *k) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  gq_panel *p = &k->panel;
  double size[GQ_MOMENTS_LEFT], r[2], kappa, omega = 1 / fabs(p->half);
  if (!p->forced || !w->a.st->kind.adaptive) return GQ_OK;
  if (restarts_cost_less(k)) gq_panel_shorten(p, s, k->b->gz, 0);
  if (!p->forced) return GQ_OK;
  void *v = w->a.y[k->ia], *near = w->a.f[k->ia], *far;
  panel_sizes(k, size, near, v, r);
  if (r[1] == 0) {
    v = p->c[0];
    GQ_TRY(pull_at(k, p->from, v, w->a.f1, &near));
    panel_sizes(k, size, near, v, r);
  }
  kappa = r[0] / r[1];
  if (gq_panel_error(p, kappa, omega, size) <= 1) return GQ_OK;
  GQ_TRY(pull_at(k, p->to, v, w->a.y1, &far));
  kappa = fmax(kappa, rms(k, far) / r[1]);
  gq_state_add(k->f, -1, near, far);
  omega = rms(k, far) / r[1] / (2 * fabs(p->half) * kappa);
  for (double error; p->forced && !((error = gq_panel_error(p, kappa, omega, size)) <= 1);) {
    s->info.panels_split++;
    gq_panel_shorten(p, s, k->b->gz, 2 * fabs(p->half) * fmax(0.1, pow(0.5 / error, 0.25)));
    panel_sizes(k, size, NULL, NULL, NULL);
  }
  return GQ_OK;
}

/* The slope where the panel begins, with what forces a there. */
static void add_forcing(gq_back *k) {
  gq_walk *w = &k->w;
  if (!k->panel.forced || !w->a.st->l.carry) return;
  gq_panel_force(&k->panel, k->s, w->a.t, k->force);
  gq_state_add(k->f, 1, k->force, w->a.f[k->ia]);
}

/* The panel that begins at measurement time i: one interval, unless moments join several. */
static void begin_panel(gq_back *k, int i) {
  k->panel.from = i, k->panel.to = i - 1, k->panel.forced = false;
  if (k->s->o.moments && !k->single[i]) gq_panel_begin(&k->panel, k->s, k->b->gz, i);
}

/* dL/dt of the measurement times inside the panel. */
static int inner_time_gradients(gq_back *k) {
  double gf;
  for (int i = k->panel.to + 1; k->b->gt && i < k->panel.from; i++) {
    GQ_TRY(time_gradient(k, i, gq_at_time(k->s, k->b->gz, i), 1, false, &gf));
    k->time -= gf;
  }
  return GQ_OK;
}

static int interval(gq_back *k, int i) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  const void *g = gq_at_time(s, k->b->gz, i);
  double gf = 0;
  GQ_TRY(begin(k, i));
  GQ_TRY(fit_panel(k));
  add_forcing(k);
  double stop = s->t[k->panel.to];
  /* The reference evaluates f anew at every t_k and carries the derivative at t_0 as a state: for
  ** parity of the counts the slope in hand serves once. */
  bool have = k->reverse && w->a.st->l.carry && !(s->o.parity && i > 1);
  if (k->b->gt) GQ_TRY(time_gradient(k, i, g, 1, have, &gf));
  k->time -= gf;
  GQ_TRY(first_step(k, stop));
  limit_step(k);
  GQ_TRY(inner_time_gradients(k));
  if (k->gq) GQ_TRY(gq_integral_begin(k));
  if (k->started) s->info.restarts++;
  s->info.panels++;
  k->started = true, k->window = s->t[i];
  int64_t before = w->a.cost.nfe;
  while (w->a.t != stop) {
    GQ_TRY(gq_walk_step(w, stop, !s->o.overshoot));
    GQ_TRY(accepted(k, stop));
  }
  GQ_TRY(gq_ahead_settle(w));
  if (k->gq) GQ_TRY(gq_integral_end(k, s->t[i], stop));
  if (k->panel.forced) k->forced_cost = w->a.cost.nfe - before;
  if (!k->reverse) return GQ_OK;
  void *z = stored(k, k->panel.to);
  double r = gq_attempt_norm(&w->a, w->a.y[0], z, z);
  if (!(r <= s->info.reconstruction)) s->info.reconstruction = r;
  return GQ_OK;
}

/* Solved backwards, z grows where it decays: what to do, if that may be why. */
static const char *lost(const gq_back *k, int status) {
  bool solver =
    status == GQ_ENONFINITE || status == GQ_EUNDERFLOW || status == GQ_EMAXSTEPS || status == GQ_ENEWTON;
  return k->reverse && solver
           ? "; z is solved backwards here: adjoint = {trajectory = \"dense\"} and gradient = "
             "\"direct\" go along the solution"
           : "";
}

static int run(gq_back *k) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  double gf;
  for (int i = s->nt - 1; i > 0; i = k->panel.to) {
    const void *g = gq_at_time(s, k->b->gz, i);
    if (i == s->nt - 1 || s->t[i] != s->t[i + 1])
      GQ_TRY(gq_jump_gradient(k->b, &w->a, i, stored(k, i), w->a.y[k->ia], k->scratch));
    gq_state_add(k->f, 1, g, w->a.y[k->ia]);
    begin_panel(k, i);
    if (s->t[i] == s->t[k->panel.to]) {
      if (k->b->gt) GQ_TRY(time_gradient(k, i, g, 1, false, &gf));
    } else if (k->panel.forced ||
               any_nonzero(k, w->a.y[k->ia])) { /* before the last cotangent a stays zero */
      int status = interval(k, i);
      if (status != GQ_OK)
        return gq_fail(status, "in the backward pass between t[%d] and t[%d]: %s%s", i + 1, i, gq_message(),
                       lost(k, status));
    }
  }
  if (k->b->gt) GQ_TRY(time_gradient(k, 0, w->a.y[k->ia], -1, false, &gf));
  gq_state_add(k->f, 1, gq_at_time(s, k->b->gz, 0), w->a.y[k->ia]);
  gq_field_unpack(s->plan->field, w->a.y[k->ia], k->b->a);
  if (!k->reverse) s->info.reconstruction = gq_trajectory_error(&k->z);
  if (k->gq) GQ_TRY(gq_nodebuffer_flush(&k->nodes));
  if (s->plan->probes && s->o.guards && s->o.nodes != GQ_NODES_STEP && k->b->refine == 1)
    s->info.spectrum = gq_spectrum_ratio(&k->nodes.spectrum);
  if (k->weighted.block && !k->pieces)
    return gq_nodebuffer_difference(&k->nodes, &k->weighted, &s->info.quadrature_error);
  return GQ_OK;
}

/* What is to follow a pass: the same with the integral refined, its steps not being there any more; or without the
** panels that it has marked. */
typedef enum way { DONE, PIECES, SINGLY } way;

static int pass(gq_pullback *b, bool pieces, bool *single, way *next) {
  bool again;
  gq_back k = { .b = b, .s = b->s, .f = b->s->plan->field, .pieces = pieces, .single = single };
  gq_walk *w = &k.w;
  gq_info *info = &b->s->info;
  k.n = gq_numel(k.f->shape);
  double size = cotangent_size(&k);
  *next = DONE;
  if (size == 0) return GQ_OK; /* the adjoint equation is linear */
  int status = setup(&k, size);
  if (status == GQ_OK) status = run(&k);
  again = status == GQ_OK && gq_integral_disagrees(&k);
  info->nodes += k.nodes.evaluated, b->nfe += k.nodes.evaluated;
  if (again && k.kept) {
    again = false, pieces = true;
    status = gq_integral_refine(&k);
    info->nodes += k.nodes.evaluated, b->nfe += k.nodes.evaluated;
  }
  *next = k.bends ? SINGLY : again ? PIECES : DONE;
  b->nfe += w->a.cost.nfe + k.z.nfe;
  if (k.gq) info->defect = fmax(info->defect, k.nodes.defect);
  if (status == GQ_OK && pieces && k.weighted.block) {
    info->quadrature_error = gq_refine_error(&k.nodes.sum);
    info->rounds = k.nodes.sum.rounds, info->unresolved = k.nodes.sum.unresolved;
    info->nodes_wanted += k.nodes.evaluated;
  }
  if (b->s->o.engine->integral == GQ_INTEGRAL_ADAPTIVE) info->nodes_wanted = k.nodes.evaluated;
  info->steps_backward = w->steps, info->rejected_backward = w->rejected;
  gq_integral_done(&k);
  gq_trajectory_end(&k.z);
  gq_release(k.s->plan->field->on, k.trail_block);
  gq_grads_done(&k.weighted);
  gq_grads_done(&w->a.sum.dq);
  gq_grads_done(&w->a.sum.next);
  gq_grads_done(&w->a.sum.eq);
  b->s->bytes += gq_ahead_bytes(w);
  gq_walk_done(w);
  gq_release(k.s->plan->field->on, k.block);
  return status;
}

int gq_continuous_backward(gq_pullback *b) {
  gq_solution *s = b->s;
  size_t held = s->bytes;
  bool pieces = s->o.nodes == GQ_NODES_AUTO && s->plan->probes && b->refine > 1;
  bool *single = gq_calloc(s->nt, sizeof *single);
  if (!single) return gq_nomem(s->nt);
  way next = DONE;
  s->info.nodes = 0;
  int status = pass(b, pieces, single, &next);
  for (int marked = 0; status == GQ_OK && next != DONE;) {
    pieces |= next == PIECES;
    if (next == SINGLY && marked++) memset(single, true, s->nt * sizeof *single); /* panels anywhere */
    if (s->bytes > s->info.peak_bytes) s->info.peak_bytes = s->bytes;
    s->bytes = held;
    status = gq_pullback_again(b);
    if (status == GQ_OK) status = pass(b, pieces, single, &next);
  }
  gq_free(single);
  return status;
}
