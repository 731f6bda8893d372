/*
** walk.c -- the solver's loop body: attempts until one is accepted, the first step, interpolation. What is decided is
** in method/control.h.
*/
#include "walk.h"

#include "ode.h"

#include <math.h>
#include <string.h>

/* ---- step log, for tests, and what is told of steps ---- */

static _Thread_local struct {
  bool on, held;
  int n, room;
  double (*rows)[4];
} steplog;

static void log_row(double a, double b, double c, double d) {
  if (steplog.held) return;
  if (isnan(a)) gq_tell(GQ_TELL_STEP, "first step %.3g", b);
  else
    gq_tell(GQ_TELL_STEP, "t %.9g, step %.3g, error %.3g of the tolerance%s", a, b, c,
            d != 0 ? "" : ": refused");
  if (!steplog.on) return;
  if (gq_room(&steplog.rows, &steplog.room, steplog.n, sizeof *steplog.rows) != GQ_OK) return;
  double *r = steplog.rows[steplog.n++];
  r[0] = a, r[1] = b, r[2] = c, r[3] = d;
}

void gq_steplog_first(double h) { log_row(NAN, h, 0, 0); }
void gq_steplog_start(void) { steplog.on = true, steplog.n = 0; }

bool gq_steplog_hold(bool held) {
  bool was = steplog.held;
  steplog.held = held;
  return was;
}

void gq_steplog_cut(int n) { steplog.n = n < steplog.n ? n : steplog.n; }

void gq_steplog_stop(void) {
  gq_free(steplog.rows);
  memset(&steplog, 0, sizeof steplog);
}

int gq_steplog_get(const double (**rows)[4]) {
  *rows = (const double(*)[4])steplog.rows;
  return steplog.n;
}

/* ---- set-up ---- */

int gq_walk_init(gq_walk *w, const gq_stepper *st, const gq_binding *b, void **arena) {
  gq_attempt *a = &w->a;
  a->st = st, a->field = b->field, a->bind = b, a->arena = a->rest = arena;
  a->shared = gq_share(a->field->on, sizeof *a->shared);
  if (!a->shared) return gq_nomem(sizeof *a->shared);
  for (int i = 0; i < st->l.parts; i++)
    a->shared->atol[i] = a->tol.atol[i] = gq_positive_atol(a->field->dtype, a->tol.atol[i]);
  a->tol.products = gq_positive_atol(a->field->dtype, a->tol.products);
  w->c.last[0] = w->c.last[1] = 1;
  w->c.reach = a->field->timed || st->l.given ? gq_tableau_reach(st->m) : 1;
  int status = st->m->steps->init(a);
  w->runs_ahead = w->runs_ahead && a->field->on->advance && (!st->l.given || w->trail) &&
                  st->m->steps->runs_ahead && st->m->steps->runs_ahead(a);
  if (status != GQ_OK) gq_walk_done(w);
  return status;
}

void gq_walk_done(gq_walk *w) {
  gq_ahead_done(w);
  if (w->a.own) w->a.st->m->steps->done(&w->a);
  w->a.own = NULL;
  if (w->a.shared) gq_unshare(w->a.field->on, w->a.shared);
  w->a.shared = NULL;
}

void gq_walk_restart(gq_walk *w) {
  const gq_stepclass *steps = w->a.st->m->steps;
  if (steps->restart) steps->restart(&w->a, &w->c);
}

/* ---- first step ---- */

/* Where the norms say nothing: the slopes are not finite, or a component is zero and has no scale because atol is. */
static int first_unscaled(const gq_attempt *a, double dir, double *h) {
  for (int p = 0; p < a->st->l.parts; p++)
    if (!gq_state_finite(a->field, a->f[p]))
      return gq_fail(GQ_ENONFINITE, "the dynamics are not finite at the start, t = %.9g", a->t);
  *h = dir * gq_control_blind(a->t);
  return GQ_OK;
}

/* f1: the slopes after an Euler step of h, at t. */
static int probe(gq_walk *w, const gq_evaluator *e, double h, double t) {
  gq_attempt *a = &w->a;
  const gq_backend *on = a->field->on;
  int parts = a->st->l.parts;
  size_t n = gq_numel(a->field->shape);
  for (int p = 0; p < parts; p++)
    on->vec->combine(a->field->dtype, 1, &n, 1, &h, (void *[]){ a->y1[p], a->y[p], a->f[p] });
  GQ_TRY(w->fill_path ? w->fill_path(w, a->t, h) : GQ_OK);
  void *x[GQ_MAXPARTS + GQ_MAXGIVEN];
  for (int p = 0; p < parts; p++) x[p] = a->y1[p];
  for (int k = 0; k < a->st->l.given; k++) x[parts + k] = a->path[a->st->m->end][k];
  if (a->st->l.dq >= 0) gq_zero(on, a->sum.eq.block, a->sum.eq.bytes);
  a->sum.etime = 0;
  a->cost.nfe++;
  return gq_evaluate_at(e, a->bind, t, x, a->f1, &a->sum.eq, &a->sum.etime);
}

int gq_walk_first(gq_walk *w, const gq_evaluator *e, double stop, double *h) {
  gq_attempt *a = &w->a;
  int parts = a->st->l.parts;
  bool products = a->st->l.dq >= 0;
  double d0 = 0, d1 = 0, d2 = 0, dir = stop < a->t ? -1 : 1;
  gq_asked of[2 * GQ_MAXPARTS];
  for (int p = 0; p < parts; p++) {
    of[2 * p] = (gq_asked){ .part = p, .x = a->y[p], .y = a->y[p] };
    of[2 * p + 1] = (gq_asked){ .part = p, .x = a->f[p], .y = a->y[p] };
  }
  gq_attempt_sizes(a, 2 * parts, of);
  for (int p = 0; p < parts; p++) d0 = gq_larger(d0, of[2 * p].out), d1 = gq_larger(d1, of[2 * p + 1].out);
  if (products) {
    d0 = gq_larger(d0, gq_attempt_products(a, GQ_MEASURE_SIZE));
    d1 = gq_larger(d1, gq_attempt_products(a, GQ_MEASURE_SLOPE));
  }
  if (!isfinite(d0) || !isfinite(d1)) return first_unscaled(a, dir, h);
  double from = gq_attempt_begin(a, a->t, dir), limit = gq_attempt_limit(a, a->t, dir);
  double h0 = gq_control_probe(a->t, d0, d1, fabs(limit - from));
  GQ_TRY(probe(w, e, dir * h0, from + gq_control_within(from, dir * h0, limit)));
  for (int p = 0; p < parts; p++)
    of[p] = (gq_asked){ .part = p, .x = a->f1[p], .y = a->y[p], .minus_ = a->f[p] };
  gq_attempt_sizes(a, parts, of);
  for (int p = 0; p < parts; p++) d2 = gq_larger(d2, of[p].out / h0);
  if (products) d2 = gq_larger(d2, gq_attempt_products(a, GQ_MEASURE_CHANGE) / h0);
  *h = dir * fmax(w->c.least, gq_control_first(a->t, h0, d1, d2, a->st->m->first_order));
  return GQ_OK;
}

/* ---- stepping ---- */

static int fail_nonfinite(const gq_attempt *a) {
  size_t i = gq_attempt_nonfinite(a);
  if (i)
    return gq_fail(GQ_ENONFINITE,
                   "a value that is not finite appeared after t = %.9g (step %.3g), first in component "
                   "%zu of the flattened state",
                   a->t, a->h, i);
  return gq_fail(GQ_ENONFINITE, "the error estimate is not finite after t = %.9g (step %.3g)", a->t, a->h);
}

static int fail_newton(const gq_attempt *a) {
  return gq_fail(GQ_ENEWTON,
                 "Newton's method for an implicit stage of %s did not converge after t = %.9g (step %.3g)",
                 a->st->m->name, a->t, a->h);
}

static int attempt(gq_walk *w, double *ratio) {
  gq_attempt *a = &w->a;
  gq_attempt_times(a, a->t, a->h, a->t1);
  if (w->fill_path) GQ_TRY(w->fill_path(w, a->t, a->h));
  return a->st->m->steps->attempt(a, &w->c, ratio);
}

/* The step to try is h. */
static int begin(gq_walk *w, double h) {
  gq_attempt *a = &w->a;
  a->h = h, a->t1 = w->c.clamped ? w->c.stop : a->t + h;
  if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted at t = %.9g", a->t);
  if (w->steps + w->rejected >= w->max_steps)
    return gq_fail(GQ_EMAXSTEPS, "%lld steps (%lld rejected) reached t = %.9g, next step %.3g",
                   (long long)(w->steps + w->rejected), (long long)w->rejected, a->t, h);
  return GQ_OK;
}

int gq_walk_again(gq_walk *w, double h, double t1) {
  double ratio;
  w->a.h = h, w->a.t1 = t1;
  GQ_TRY(attempt(w, &ratio));
  if (isinf(ratio)) return fail_newton(&w->a);
  return isnan(ratio) ? fail_nonfinite(&w->a) : GQ_OK;
}

int gq_walk_ends(const gq_walk *w, int most, double *t) {
  gq_control c = w->c;
  int n = 1;
  t[0] = w->a.t, t[1] = w->a.t1;
  for (; n < most && !w->a.st->kind.adaptive && !c.clamped; n++) {
    c.index += !c.shortened;
    double h = gq_control_fixed(&c, t[n]);
    t[n + 1] = c.clamped ? c.stop : t[n] + h;
  }
  return n;
}

static int step_fixed(gq_walk *w) {
  gq_attempt *a = &w->a;
  double ratio;
  GQ_TRY(begin(w, gq_control_fixed(&w->c, a->t)));
  if (a->t + a->h == a->t)
    return gq_fail(GQ_EUNDERFLOW, "%s = %.3g does not move t = %.9g", a->w ? "dt" : "step_size", w->c.size,
                   a->t);
  GQ_TRY(attempt(w, &ratio));
  if (isinf(ratio)) return fail_newton(a);
  if (isnan(ratio)) return fail_nonfinite(a);
  log_row(a->t, a->h, 0, true);
  w->c.index += !w->c.shortened;
  w->steps++;
  return GQ_OK;
}

static int fail_stuck(const gq_walk *w) {
  const gq_attempt *a = &w->a;
  if (w->c.bad) return fail_nonfinite(a); /* that is what made it so short */
  if (w->c.halved) return fail_newton(a);
  if (gq_control_short(&w->c, a->h))
    return gq_fail(GQ_EUNDERFLOW, "the step %.3g from t = %.9g is below min_step = %.3g (error ratio %.3g)",
                   a->h, a->t, w->c.least, w->c.ratio);
  return gq_fail(GQ_EUNDERFLOW, "the step %.3g no longer moves t = %.9g (error ratio %.3g)", a->h, a->t,
                 w->c.ratio);
}

/* The end of a step that was refused lies before `stop`. */
static bool comes_back(const gq_walk *w, double stop) {
  double dir = stop < w->a.t ? -1 : 1;
  return w->nrefused > 0 && dir * (stop - w->refused[w->nrefused - 1]) > 0;
}

/* Of an accepted step: such an end is no stop of the caller's. */
static void came_back(gq_walk *w) {
  if (!w->nrefused || w->a.t1 != w->refused[w->nrefused - 1]) return;
  w->nrefused--;
  w->c.clamped = false;
}

static int try_step(gq_walk *w, int *verdict) {
  gq_attempt *a = &w->a;
  bool there = false;
  double ratio;
  if (w->runs_ahead) GQ_TRY(gq_ahead_attempt(w, &there, verdict));
  if (there) return GQ_OK;
  GQ_TRY(begin(w, gq_control_propose(&w->c, a->t)));
  if (gq_control_stuck(&w->c, a->t, a->h)) return fail_stuck(w);
  GQ_TRY(attempt(w, &ratio));
  *verdict = gq_control_judge(&w->c, w->controller, a->st->m->error_order, a->h, ratio);
  return GQ_OK;
}

int gq_walk_step(gq_walk *w, double stop, bool clamp) {
  gq_attempt *a = &w->a;
  bool back = comes_back(w, stop);
  w->c.stop = back ? w->refused[w->nrefused - 1] : stop, w->c.clamp = clamp || back, w->c.ratio = 0;
  if (w->c.reach > 1) w->c.limit = gq_attempt_limit(a, a->t, stop < a->t ? -1 : 1);
  if (!a->st->kind.adaptive) return step_fixed(w);
  for (;;) {
    int v;
    GQ_TRY(try_step(w, &v));
    log_row(a->t, a->h, w->c.ratio, v == GQ_ACCEPTED);
    if (v == GQ_ACCEPTED) break;
    w->rejected++;
    if (w->returns && w->nrefused < GQ_REFUSED_MOST && (!w->nrefused || w->refused[w->nrefused - 1] != a->t1))
      w->refused[w->nrefused++] = a->t1;
    if (v == GQ_NOT_CONVERGED) return fail_newton(a);
    if (v == GQ_NOT_FINITE) return fail_nonfinite(a);
  }
  w->steps++;
  if (back || w->nrefused) came_back(w);
  return GQ_OK;
}

/* ---- after a step ---- */

int gq_walk_phase(gq_walk *w, int phase) {
  const gq_stepclass *steps = w->a.st->m->steps;
  return steps->phase ? steps->phase(&w->a, phase) : GQ_OK;
}

void *gq_walk_slope(const gq_walk *w, int i, int part, int slice) {
  return w->a.st->m->steps->slope(&w->a, i, part, slice);
}

void gq_walk_slopes(const gq_walk *w, int part, void *dst, size_t apart) {
  const gq_field *f = w->a.field;
  int slopes = w->a.st->m->slopes, n = 0;
  void *at[2 * slopes * f->nslices];
  size_t size[slopes * f->nslices];
  for (int i = 0; i < slopes; i++)
    for (int s = 0; s < f->nslices; s++, n++) {
      size[n] = gq_slice_numel(f, s);
      at[2 * n] = (char *)dst + i * apart + gq_slice_offset(f, s);
      at[2 * n + 1] = gq_walk_slope(w, i, part, s);
    }
  f->on->vec->combine(f->dtype, n, size, 0, NULL, at);
}

void gq_walk_interpolate(const gq_walk *w, int part, double theta, void *const *dst) {
  const gq_attempt *a = &w->a;
  const gq_field *f = a->field;
  int slopes = a->st->m->slopes;
  double wt[GQ_MAXSTAGES];
  void *at[f->nslices * (2 + slopes)], **next = at;
  size_t n[f->nslices];
  gq_tableau_weights(a->st->m, theta, wt);
  for (int i = 0; i < slopes; i++) wt[i] *= a->h;
  for (int s = 0; s < f->nslices; s++) {
    n[s] = gq_slice_numel(f, s);
    *next++ = dst[s], *next++ = (char *)a->y[part] + gq_slice_offset(f, s);
    for (int i = 0; i < slopes; i++) *next++ = wt[i] == 0 ? NULL : gq_walk_slope(w, i, part, s);
  }
  f->on->vec->combine(f->dtype, f->nslices, n, slopes, wt, at);
}

void gq_walk_interpolate_all(const gq_walk *w, int part, double theta, void *dst) {
  void *at[w->a.field->nslices];
  for (int s = 0; s < w->a.field->nslices; s++) at[s] = (char *)dst + gq_slice_offset(w->a.field, s);
  gq_walk_interpolate(w, part, theta, at);
}

static void swap(void **x, void **y) {
  void *old = *x;
  *x = *y, *y = old;
}

void gq_walk_commit(gq_walk *w) {
  gq_attempt *a = &w->a;
  for (int p = 0; p < a->st->l.parts; p++) swap(&a->y[p], &a->y1[p]), swap(&a->f[p], &a->f1[p]);
  for (int e = 0; e < a->st->l.extra; e++) swap(&a->x[e], &a->x1[e]);
  if (a->st->m->steps->moved) a->st->m->steps->moved(a);
  a->t = a->t1;
}
