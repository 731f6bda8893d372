/*
** implicit.c -- steps of diagonally implicit Runge-Kutta methods with an explicit first stage, see implicit.h.
**
**     Y_i = y + h sum_j<i a_ij k_j + h gamma k_i,   k_i = f(t + c_i h, Y_i),   y1 = y + h sum_i b_i k_i
**
** Y_i is found by Newton's method with the Jacobian at the start of the step, whose factors serve all stages since
** these share gamma; it ends, or is given up, by its rate of contraction (Hairer & Wanner IV.8), row by row: what a
** row gets does not depend on the others. Of a system (z, a) each part has a matrix of its own, 1 - h gamma J and
** 1 + h gamma J'; that a depends on z too is left to the iteration, z being right before a is.
** Fixed steps cannot be shortened: there a slow row starts again, with a Jacobian for each iteration.
**
** Backwards, exactly: with v = (1 - h gamma J_i)'^-1 dL/dk_i, J_i the Jacobian at Y_i, dL/dY_i is J_i' v without
** the way through k_i itself, and dL/dtheta gets v'df/dtheta: the implicit function theorem.
*/
#include "implicit.h"

#include "newton.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
  ITERATIONS = 10, /* of an adaptive step's stage: one that needs more is better shortened */
  PATIENCE = 60    /* of a fixed step's */
};
#define KAPPA 0.01   /* what is left of an iteration, in tolerances */
#define SLOW 0.3     /* contraction from which on a fixed step's stage takes a Jacobian for each iteration */
#define STRICT 1e-14 /* the tolerance where no error estimate asks for one, of a row's largest number */
/* Roundings of a row's largest number: below, a correction that hardly becomes smaller is as good as zero. */
enum { NOISE = 8, NOISE_FIXED = 64 };

typedef struct gq_implicit {
  gq_newton newton;
  void *k[GQ_MAXSTAGES][GQ_MAXPARTS]; /* slopes but the first, and the last if that is the end's */
  void *stage[GQ_MAXPARTS], *base[GQ_MAXPARTS], *slope[GQ_MAXPARTS]; /* Y, its constant part, f(Y) */
  void *cot[GQ_MAXSTAGES], *v;                                       /* dL/dk_i */
  double *x, *c, *s;                                                 /* [dim] of one row */
  double *last, *theta,
    *eta;            /* [rows] size of the last correction, its ratio to that before, theta / (1 - theta) */
  bool *done, *slow; /* [rows] */
  bool fresh;        /* the Jacobian is that of the walk's place */
  size_t bytes;
  void *block, *states;
} gq_implicit;

/* ---- memory ---- */

static gq_implicit *own(const gq_attempt *w) { return w->own; }

static void *whole_slope(const gq_attempt *w, int i, int part) {
  return i == 0 ? w->f[part] : i == w->st->m->end ? w->f1[part] : own(w)->k[i][part];
}

static int init(gq_attempt *w) {
  const gq_jacobian *j = w->st->jacobian;
  int parts = w->st->l.parts, slopes = w->st->m->slopes;
  bool pull = w->st->kind.pull;
  size_t part = gq_round64(gq_part_bytes(w->field)), row = gq_round64(j->dim * sizeof(double)),
         rows = gq_round64(j->rows * sizeof(double)),
         states = (size_t)parts * (slopes + 3) + (pull ? slopes + 1 : 1);
  gq_implicit *n = gq_calloc(1, sizeof *n);
  if (!n) return gq_nomem(sizeof *n);
  w->own = n;
  GQ_TRY(gq_newton_init(&n->newton, w->field, j, parts));
  n->bytes = states * part + 3 * row + 4 * rows;
  char *next = n->states = gq_allocate(w->field->on, states * part + 64);
  n->block = gq_alloc(n->bytes - states * part + 64);
  if (!next || !n->block) return gq_nomem(n->bytes);
  for (int q = 0; q < parts; q++) {
    for (int i = 0; i < slopes; i++) n->k[i][q] = next, next += part;
    n->stage[q] = next, n->base[q] = next + part, n->slope[q] = next + 2 * part, next += 3 * part;
  }
  for (int i = 0; pull && i < slopes; i++) n->cot[i] = next, next += part;
  n->v = next, next = n->block;
  double **vectors[] = { &n->x, &n->c, &n->s, &n->last, &n->theta, &n->eta };
  for (int i = 0; i < 6; i++) *vectors[i] = (double *)(void *)next, next += i < 3 ? row : rows;
  n->done = (bool *)next, n->slow = n->done + j->rows;
  w->bytes = n->bytes + n->newton.bytes;
  return GQ_OK;
}

static void done(gq_attempt *w) {
  gq_implicit *n = w->own;
  gq_newton_done(&n->newton);
  gq_free(n->block);
  if (n->states) gq_release(w->field->on, n->states);
  gq_free(n);
}

static void moved(gq_attempt *w) { own(w)->fresh = false; }

static void load(gq_attempt *w, const char *slope, size_t part) {
  for (int i = 1; i < w->st->m->slopes; i++) gq_state_copy(w->field, own(w)->k[i][0], slope + i * part);
}

/* ---- pieces of a step ---- */

static void add(const gq_attempt *w, double s, const void *x, void *y) {
  if (s != 0) gq_state_add(w->field, s, x, y);
}

static double row_of_a(const gq_tableau *m, int i, int j) { return m->a[(size_t)i * m->stages + j]; }

/* h gamma of stage i, by which slopes are divided: never 0, which it would round to in the shortest steps. */
static double h_gamma(const gq_attempt *w, int i) {
  double h = w->shared->h, hg = h * row_of_a(w->st->m, i, i);
  return hg != 0 ? hg : copysign(DBL_TRUE_MIN, h);
}

/* y + h sum_j<n w_j k_j of a part */
static void combine(const gq_attempt *w, const double *weights, int n, int part, void *dst) {
  gq_state_copy(w->field, dst, w->y[part]);
  for (int j = 0; j < n; j++) add(w, w->shared->h * weights[j], whole_slope(w, j, part), dst);
}

static double time_of(const gq_attempt *w, int i) {
  const gq_tableau *m = w->st->m;
  return gq_attempt_stage(w, i == m->end ? 1 : m->c[i]);
}

/* The system's inputs at slope i: the parts, then what is given there. */
static void inputs(const gq_attempt *w, int i, void *const *parts, void **x) {
  for (int p = 0; p < w->st->l.parts; p++) *x++ = parts[p];
  for (int k = 0; k < w->st->l.given; k++) *x++ = w->path[i][k];
}

/* f at slope i's time and the stage; of an SDE the drift, which comes with its Jacobian. */
static int evaluate(gq_attempt *w, int i, void *const *stage, void *const *out) {
  const gq_newton *l = &own(w)->newton;
  void *x[GQ_MAXPARTS + GQ_MAXGIVEN], *drift[] = { stage[0], l->unit }, *to[] = { out[0], l->column };
  inputs(w, i, stage, x);
  w->cost.nfe++;
  if (w->field->noise) return gq_evaluate_phase(l->at, w->bind, 0, time_of(w, i), drift, to, NULL, NULL);
  return gq_evaluate_at(w->st->f, w->bind, time_of(w, i), x, out, NULL, NULL);
}

/* Is the one part a, along a path of z? Otherwise part 0 is z, part 1 a. */
static bool along_path(const gq_attempt *w) { return w->st->adjoint && w->st->l.parts == 1; }
static bool is_adjoint(const gq_attempt *w, int part) { return part == 1 || along_path(w); }

/* The Jacobian at slope i, z of the stage if it is not given; its factors are made when they are needed. */
static int jacobian(gq_attempt *w, int i, void *const *stage) {
  void *z = along_path(w) ? w->path[i][0] : stage[0];
  w->cost.jacobians++;
  return gq_newton_jacobian(&own(w)->newton, w->bind, time_of(w, i), z);
}

static void factor(gq_attempt *w, double hg, const bool *some_) {
  for (int p = 0; p < w->st->l.parts; p++)
    gq_newton_factor(&own(w)->newton, p, is_adjoint(w, p) ? hg : -hg, some_);
}

/* ---- Newton's method ---- */

static double epsilon(const gq_attempt *w) { return w->field->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON; }

/* What a number of size y may be off by in a converged stage; never less than rounding. Where no error estimate asks
** for it, `top`, the row's largest number, tells what is small. */
static double allowed(const gq_attempt *w, int part, double y, double stage, double top) {
  double rounding = 2 * epsilon(w) * fmax(fabs(y), fabs(stage));
  double off = w->st->kind.adaptive ? w->tol.atol[part] + w->tol.rtol * fabs(y) : STRICT * top + DBL_MIN;
  return fmax(KAPPA * off, rounding);
}

/* Correct one part of a row's stage and with it the slope k_i = (stage - base) / hg, which has an account of its own:
** of the difference a short step would leave nothing but rounding. The size of the correction, in what is allowed:
** infinite if there is none, NaN if f is not finite. *noise stays if it is rounding. */
static double correct(gq_attempt *w, int i, int part, int64_t row, double hg, bool *noise) {
  gq_implicit *n = own(w);
  gq_newton *l = &n->newton;
  double *d = n->x, *y = n->c, *stage = n->s, *k = n->s, sum = 0, most = 0, top = 0, old = 0;
  gq_newton_load(l, row, n->slope[part], d);
  gq_newton_load(l, row, whole_slope(w, i, part), k);
  for (int j = 0; j < l->dim; j++) d[j] = hg * (d[j] - k[j]), sum += d[j];
  if (!isfinite(sum)) return NAN;
  if (!gq_newton_solve(l, part, is_adjoint(w, part), row, d)) return INFINITY;
  for (int j = 0; j < l->dim; j++) k[j] += d[j] / hg;
  gq_newton_store(l, row, k, whole_slope(w, i, part));
  gq_newton_load(l, row, w->y[part], y);
  gq_newton_load(l, row, n->stage[part], stage);
  for (int j = 0; j < l->dim; j++) {
    stage[j] += d[j];
    most = fmax(most, fabs(d[j])), top = fmax(top, fabs(stage[j])), old = fmax(old, fabs(y[j]));
  }
  sum = 0;
  for (int j = 0; j < l->dim; j++) {
    double v = d[j] / allowed(w, part, y[j], stage[j], fmax(old, top));
    sum += v * v;
  }
  *noise &= most <= (w->st->kind.adaptive ? NOISE : NOISE_FIXED) * epsilon(w) * top;
  gq_newton_store(l, row, stage, n->stage[part]);
  return sqrt(sum / l->dim);
}

typedef enum verdict { DONE, ON, POOR, LOST } verdict;

/* After correction m (from 0) of the given size. */
static verdict judge(gq_attempt *w, int64_t r, int m, int most, double size, bool noise) {
  gq_implicit *n = own(w);
  double theta = m > 0 ? size / n->last[r] : 0, before = n->theta[r];
  n->last[r] = size, n->theta[r] = theta;
  if (!isfinite(size)) return isnan(size) ? LOST : POOR;
  if (size == 0) return DONE;
  if (m == 0) /* the rate of the stage before is good enough for a tolerance, not for rounding */
    return (w->st->kind.adaptive ? n->eta[r] : 1) * size <= 1 ? DONE : ON;
  if (noise && theta > SLOW) return DONE;
  if (theta >= 2 || (theta >= 1 && before >= 1)) return POOR;
  if (theta >= 1) return ON;
  n->eta[r] = theta / (1 - theta);
  if (n->eta[r] * size <= 1) return DONE;
  bool hopeless = pow(theta, most - 1 - m) / (1 - theta) * size > 1;
  if (!w->st->kind.adaptive) hopeless |= theta > SLOW;
  return hopeless ? POOR : ON;
}

/* From the start of the step, with a Jacobian an iteration: an old one may have led astray. */
static void start_again(gq_attempt *w, int i, int64_t row, double hg) {
  gq_implicit *n = own(w);
  n->slow[row] = true, n->last[row] = 0;
  for (int p = 0; p < w->st->l.parts; p++) {
    gq_newton_load(&n->newton, row, w->y[p], n->x);
    gq_newton_store(&n->newton, row, n->x, n->stage[p]);
    gq_newton_load(&n->newton, row, n->base[p], n->c);
    for (int j = 0; j < n->newton.dim; j++) n->x[j] = (n->x[j] - n->c[j]) / hg;
    gq_newton_store(&n->newton, row, n->x, whole_slope(w, i, p));
  }
}

/* One correction of all rows that are not done. */
static verdict correct_rows(gq_attempt *w, int i, int m, int most, double hg) {
  gq_implicit *n = own(w);
  verdict all = DONE;
  for (int64_t r = 0; r < n->newton.rows; r++) {
    if (n->done[r]) continue;
    double size = 0;
    bool noise = true;
    for (int p = 0; p < w->st->l.parts; p++) {
      double d = correct(w, i, p, r, hg, &noise);
      size = d > size || isnan(d) ? d : size;
    }
    verdict v = judge(w, r, m, most, size, noise);
    n->done[r] = v == DONE, n->slow[r] &= v != DONE;
    if (v >= POOR && !n->slow[r] && !w->st->kind.adaptive) start_again(w, i, r, hg), v = POOR;
    if (v > all) all = v;
  }
  return all;
}

/* Solve stage i from where it stands; *what: DONE, POOR or LOST. */
static int iterate(gq_attempt *w, int i, double hg, verdict *what) {
  gq_implicit *n = own(w);
  bool fixed = !w->st->kind.adaptive, any = false;
  int most = fixed ? PATIENCE : ITERATIONS;
  memset(n->done, 0, 2 * n->newton.rows * sizeof *n->done);
  for (int64_t r = 0; r < n->newton.rows; r++) n->eta[r] = pow(fmax(n->eta[r], DBL_EPSILON), 0.8);
  for (int m = 0; m < most; m++) {
    GQ_TRY(evaluate(w, i, n->stage, n->slope));
    w->cost.newton++;
    *what = correct_rows(w, i, m, most, hg);
    if (*what == DONE || *what == LOST || (*what == POOR && !fixed)) return GQ_OK;
    any |= *what == POOR;
    if (!any) continue;
    GQ_TRY(jacobian(w, i, n->stage));
    factor(w, hg, n->slow); /* the others keep what they have */
    n->fresh = false;
  }
  *what = POOR;
  return GQ_OK;
}

/* k_i = (Y_i - base) / (h gamma) as the iteration leaves it: f(Y_i) would make what is left of that larger by the
** stiffness. It starts from the slope before. */
static int implicit_stage(gq_attempt *w, int i, verdict *what) {
  gq_implicit *n = own(w);
  const gq_tableau *m = w->st->m;
  const gq_field *f = w->field;
  double hg = h_gamma(w, i);
  for (int p = 0; p < w->st->l.parts; p++) {
    combine(w, m->a + (size_t)i * m->stages, i, p, n->base[p]);
    gq_state_copy(f, n->stage[p], n->base[p]);
    gq_state_copy(f, whole_slope(w, i, p), whole_slope(w, i - 1, p));
    add(w, hg, whole_slope(w, i, p), n->stage[p]);
  }
  factor(w, hg, NULL);
  GQ_TRY(iterate(w, i, hg, what));
  for (int p = 0; p < w->st->l.parts; p++) {
    if (i == m->end) gq_state_copy(f, w->y1[p], n->stage[p]);
    if (*what != LOST) continue;
    gq_state_copy(f, w->y1[p], n->stage[p]); /* a message tells what is not finite there */
    gq_state_copy(f, w->f1[p], n->slope[p]);
  }
  return GQ_OK;
}

/* ---- a step ---- */

enum { CHUNK = 64 };

static void get(const gq_attempt *w, const void *x, size_t at, size_t n, double *out) {
  const gq_field *f = w->field;
  f->on->vec->get(f->dtype, n, (const char *)x + at * gq_dtype_size(f->dtype), 1, out);
}

/* Norm of (h sum_i e_i k_i) / (atol + rtol max(|y|, |y1|)) of a part. */
static double error_norm(const gq_attempt *w, int part) {
  const gq_field *f = w->field;
  const gq_tableau *m = w->st->m;
  size_t n = gq_numel(f->shape);
  double sum = 0, top = 0;
  for (size_t at = 0; at < n; at += CHUNK) {
    size_t some = n - at < CHUNK ? n - at : CHUNK;
    double e[CHUNK] = { 0 }, k[CHUNK], y[CHUNK], y1[CHUNK];
    for (int j = 0; j < m->stages; j++) {
      get(w, whole_slope(w, j, part), at, some, k);
      for (size_t i = 0; i < some; i++) e[i] += m->e[j] * k[i];
    }
    get(w, w->y[part], at, some, y), get(w, w->y1[part], at, some, y1);
    for (size_t i = 0; i < some; i++) {
      double v =
        fabs(w->shared->h * e[i] / (w->tol.atol[part] + w->tol.rtol * fmax(fabs(y[i]), fabs(y1[i]))));
      sum += v * v;
      if (!(v <= top)) top = v;
    }
  }
  return w->tol.max_norm ? top : n ? sqrt(sum / n) : 0;
}

static bool all_finite(const gq_attempt *w) {
  for (int p = 0; p < w->st->l.parts; p++)
    if (!gq_state_finite(w->field, w->y1[p])) return false;
  return true;
}

static int step(gq_attempt *w, double *ratio) {
  gq_implicit *n = own(w);
  const gq_tableau *m = w->st->m;
  verdict what = DONE;
  *ratio = 0;
  for (int64_t r = 0; r < n->newton.rows; r++) n->eta[r] = 1;
  if (!n->fresh) GQ_TRY(jacobian(w, 0, w->y));
  n->fresh = true;
  for (int i = 1; i < m->stages && what == DONE; i++) GQ_TRY(implicit_stage(w, i, &what));
  if (what != DONE) {
    *ratio = what == LOST ? NAN : INFINITY;
    return GQ_OK;
  }
  if (m->end == m->stages) {
    for (int p = 0; p < w->st->l.parts; p++) combine(w, m->b, m->stages, p, w->y1[p]);
    GQ_TRY(evaluate(w, m->end, w->y1, w->f1));
  }
  for (int p = 0; w->st->kind.adaptive && p < w->st->l.parts; p++) {
    double r = error_norm(w, p);
    if (!(r <= *ratio)) *ratio = r;
  }
  if (!isfinite(*ratio) || !all_finite(w)) *ratio = NAN;
  return GQ_OK;
}

/* ---- products ---- */

/* The stage of a part at slope i. */
static void stage_value(gq_attempt *w, int i, int part, void *dst) {
  const gq_tableau *m = w->st->m;
  if (i == m->end) gq_state_copy(w->field, dst, w->y1[part]);
  else combine(w, m->a + (size_t)i * m->stages, i + 1, part, dst);
}

/* Add `weight` times the products at slope i. */
static int add_products(gq_attempt *w, int i, double weight, const gq_grads *grads, double *time) {
  gq_implicit *n = own(w);
  int ia = w->st->l.parts - 1;
  void *x[GQ_MAXPARTS + GQ_MAXGIVEN];
  if (weight == 0) return GQ_OK;
  for (int p = 0; p <= ia; p++) stage_value(w, i, p, n->stage[p]);
  gq_state_clear(w->field, n->base[ia]);
  add(w, weight, n->stage[ia], n->base[ia]); /* they are linear in a */
  void *parts[] = { n->stage[0], n->base[1] };
  if (ia == 0) parts[0] = n->base[0];
  inputs(w, i, parts, x);
  w->cost.nfe++;
  return gq_evaluate_at(w->st->products, w->bind, time_of(w, i), x, n->slope, grads, time);
}

/* The products' increments and errors of the attempt. */
static int product_errors(gq_attempt *w) {
  const gq_tableau *m = w->st->m;
  double h = w->shared->h;
  gq_zero(w->field->on, w->sum.dq.block, w->sum.dq.bytes);
  gq_zero(w->field->on, w->sum.eq.block, w->sum.eq.bytes);
  w->sum.dtime = w->sum.etime = 0;
  for (int i = 0; i < m->stages; i++) {
    GQ_TRY(add_products(w, i, -h * m->b[i], &w->sum.dq, &w->sum.dtime));
    GQ_TRY(add_products(w, i, h * m->e[i], &w->sum.eq, &w->sum.etime));
  }
  return GQ_OK;
}

/* ---- one stage ---- */

int gq_implicit_solve(gq_attempt *w, double hg, double *ratio) {
  gq_implicit *n = own(w);
  int end = w->st->m->end;
  size_t part = gq_part_bytes(w->field);
  verdict what;
  for (int64_t r = 0; r < n->newton.rows; r++) n->eta[r] = 1;
  if (!n->fresh) GQ_TRY(jacobian(w, 0, w->y));
  n->fresh = true;
  gq_copy(w->field->on, n->base[0], w->y1[0], part);
  gq_copy(w->field->on, n->stage[0], w->y1[0], part);
  gq_zero(w->field->on, whole_slope(w, end, 0), part);
  factor(w, hg, NULL);
  GQ_TRY(iterate(w, end, hg, &what));
  gq_copy(w->field->on, w->y1[0], what == LOST ? n->slope[0] : n->stage[0],
          part); /* the message tells where */
  *ratio = what == LOST ? NAN : what == DONE ? 0 : INFINITY;
  if (what == DONE && !all_finite(w)) *ratio = NAN;
  return GQ_OK;
}

/* ---- the derivative of a step ---- */

/* n->v = (1 - hg J)'^-1 cot, J at slope i's time and the stage. */
static int solve_back(gq_attempt *w, int i, void *const *stage, double hg, const void *cot) {
  gq_implicit *n = own(w);
  gq_newton *l = &n->newton;
  GQ_TRY(jacobian(w, i, stage));
  gq_newton_factor(l, 0, -hg, NULL);
  for (int64_t r = 0; r < l->rows; r++) {
    gq_newton_load(l, r, cot, n->x);
    if (!gq_newton_solve(l, 0, true, r, n->x))
      return gq_fail(GQ_ENONFINITE,
                     "the Jacobian in the step from t = %.9g has no use: 1 - h J is singular or not finite",
                     w->t);
    gq_newton_store(l, r, n->x, n->v);
  }
  return GQ_OK;
}

int gq_implicit_solve_back(gq_attempt *w, double hg, void **v) {
  gq_implicit *n = own(w);
  int end = w->st->m->end;
  void *x[] = { w->y1[0], n->stage[0] }, *out[] = { n->slope[0], n->base[0] };
  n->fresh = false;
  GQ_TRY(solve_back(w, end, w->y1, hg, w->pull.cy));
  gq_state_clear(w->field, n->stage[0]);
  add(w, hg, n->v, n->stage[0]);
  w->cost.nfe++;
  *v = n->v;
  return gq_evaluate_at(w->st->pull, w->bind, time_of(w, end), x, out, w->sum.grads, NULL);
}

/* J'v at slope i and the stage into n->slope[0]; products are added; returns d/dt in *time. */
static int pull_at(gq_attempt *w, int i, void *stage, void *v, double *time) {
  gq_implicit *n = own(w);
  void *x[] = { stage, v };
  *time = 0;
  w->cost.nfe++;
  return gq_evaluate_at(w->st->pull, w->bind, time_of(w, i), x, n->slope, w->sum.grads, time);
}

/* Cotangents of a stage's slope, n->cot[i], to all it depends on. */
static int pull_stage(gq_attempt *w, int i) {
  gq_implicit *n = own(w);
  const gq_tableau *m = w->st->m;
  double h = w->shared->h, time;
  stage_value(w, i, 0, n->stage[0]);
  GQ_TRY(solve_back(w, i, n->stage, h_gamma(w, i), n->cot[i]));
  GQ_TRY(pull_at(w, i, n->stage[0], n->v, &time));
  w->pull.pt += time, w->pull.ph += (gq_attempt_stage(w, m->c[i]) == w->limit ? 1 : m->c[i]) * time;
  add(w, 1, n->slope[0], w->pull.py);
  for (int j = 0; j <= i; j++) {
    double a = row_of_a(m, i, j);
    if (a == 0) continue;
    if (j < i) add(w, h * a, n->slope[0], n->cot[j]);
    w->pull.ph += a * gq_state_dot(w->field, n->slope[0], whole_slope(w, j, 0));
  }
  return GQ_OK;
}

static int pull(gq_attempt *w) {
  gq_implicit *n = own(w);
  const gq_tableau *m = w->st->m;
  double time;
  n->fresh = false;
  w->pull.pt = w->pull.ph = 0;
  gq_state_copy(w->field, w->pull.py, w->pull.cy);
  if (m->end == m->stages) {
    GQ_TRY(pull_at(w, m->end, w->y1[0], w->pull.cf, &time));
    w->pull.pt += time, w->pull.ph += time;
    add(w, 1, n->slope[0], w->pull.py);
  }
  gq_state_clear(w->field, n->cot[0]);
  for (int i = 1; i < m->stages; i++)
    gq_state_copy(w->field, n->cot[i], i == m->end ? w->pull.cf : w->pull.ck[i]);
  for (int i = 0; i < m->stages; i++) {
    if (m->b[i] == 0) continue;
    add(w, w->shared->h * m->b[i], w->pull.py, n->cot[i]);
    w->pull.ph += m->b[i] * gq_state_dot(w->field, w->pull.py, whole_slope(w, i, 0));
  }
  for (int i = m->stages - 1; i > 0; i--) GQ_TRY(pull_stage(w, i));
  gq_state_copy(w->field, w->pull.pf, n->cot[0]);
  return GQ_OK;
}

static int phase_of(gq_attempt *w, int phase) {
  double ratio;
  if (phase == 2) return pull(w);
  if (phase == 1) {
    for (int i = 0; w->st->l.nq > 0 && i < w->st->m->slopes; i++)
      GQ_TRY(add_products(w, i, w->shared->wq[i], w->sum.grads, w->sum.time));
    return GQ_OK;
  }
  own(w)->fresh = false;
  GQ_TRY(step(w, &ratio));
  if (isfinite(ratio)) return GQ_OK;
  return gq_fail(GQ_ENEWTON, "the step from t = %.9g, taken again in the backward pass, did not converge",
                 w->t);
}

/* ---- the class ---- */

static int attempt(gq_attempt *w, gq_control *c, double *ratio) {
  (void)c;
  GQ_TRY(step(w, ratio));
  if (w->st->l.dq < 0 || !isfinite(*ratio)) return GQ_OK;
  GQ_TRY(product_errors(w));
  double r = gq_attempt_products(w, GQ_MEASURE_ATTEMPT);
  if (r > *ratio || r != r) *ratio = isfinite(r) ? r : NAN;
  return GQ_OK;
}

static void *slope(const gq_attempt *w, int i, int part, int slice) {
  return (char *)whole_slope(w, i, part) + gq_slice_offset(w->field, slice);
}

/* No program takes such steps: what matters of the layout, and the products. */
static int build(gq_stepper *st, const gq_field *f, gq_make *make, const void *arg) {
  gq_system s;
  gq_steplayout *l = &st->l;
  GQ_TRY(make(f, 0, arg, &s));
  *l =
    (gq_steplayout){ .parts = s.parts, .nq = s.nq, .slopes = st->m->slopes, .given = s.given, .carry = true };
  l->dq = l->eq = st->kind.product_error ? 0 : -1;
  l->qe = -1;
  l->err3 = l->h2 = l->w2 = -1;
  st->of = s.of, s.of = NULL;
  st->cost = 3 * st->m->stages;
  gq_system_done(&s);
  return GQ_OK;
}

const gq_stepclass gq_implicit_steps = { .any_system = true,
                                         .stiff = true,
                                         .build = build,
                                         .init = init,
                                         .done = done,
                                         .attempt = attempt,
                                         .phase = phase_of,
                                         .slope = slope,
                                         .load = load,
                                         .moved = moved };
