/*
** adams.c -- explicit_adams (Adams-Bashforth) and implicit_adams (Adams-Bashforth-Moulton, PECE), of variable
** order and step, by modified divided differences: Shampine & Gordon, Computer Solution of Ordinary Differential
** Equations (1975), their code STEP; Hairer, Norsett & Wanner III.5 and III.7. In their notation, differences
**     phi_i(n) = psi_1(n) ... psi_i-1(n) f[t_n, ..., t_n-i+1],   psi_i(n) = t_n - t_n-i,
** are carried from step to step, i from 1 to k + 2 for the order k:
**     p = y_n + h sum_i<=k g_i beta_i phi_i(n),       d = f(t_n+1, p) - sum_i<=k beta_i phi_i(n),
**     y_n+1 = p + h g_k+1 d  (implicit),  or p  (explicit: one evaluation a step).
** d is the difference k + 1 with p's slope; h (g_k+1 - g_k) d is the corrector's error (it is extrapolated: its order
** is k + 1), h g_k+1 d the predictor's. Differences are kept in double whatever the state is.
**
** With a fixed step the order is the highest. The first max_order - 1 steps on the grid are then made by
** extrapolation (adams_start.c).
*/
#include "adams_history.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

/* ---- methods ---- */

static const gq_stepclass adams_steps;
static double weights[GQ_ADAMS_MOST + 1][(GQ_ADAMS_MOST + 1) * (GQ_ADAMS_MOST + 1)];
static gq_tableau methods[2][GQ_ADAMS_MOST + 1];

static void describe(const gq_multistep *row, int order, gq_tableau *m) {
  static const double none[1];
  bool corrects = row->corrects;
  int slopes = (corrects ? order : order + 1) < 3 ? 3 : corrects ? order : order + 1;
  for (int i = 0; i < slopes; i++) weights[slopes - 1][i * slopes + i] = 1;
  *m = (gq_tableau){ .name = corrects ? "implicit_adams" : "explicit_adams",
                     .kind = row->kind,
                     .steps = &adams_steps,
                     .multistep = row,
                     .order = order,
                     .first_order = 2, /* it begins with the order 1 */
                     .error_order = order,
                     .dense_order =
                       order < 3 ? order : 3, /* at least: of the first step where it is the only one */
                     .c = none,
                     .a = none,
                     .b = none,
                     .e = none,
                     .end = slopes,
                     .slopes = slopes,
                     .dense_degree = slopes,
                     .d = weights[slopes - 1],
                     .source = corrects
                                 ? "Adams-Bashforth-Moulton, PECE; Shampine & Gordon 1975; HNW III.1, III.5"
                                 : "Adams-Bashforth; Bashforth & Adams 1883; HNW III.1, III.5" };
}

static void describe_all(void) {
  for (int order = 1; order <= GQ_ADAMS_MOST; order++) {
    describe(&gq_multistep_explicit_adams, order, &methods[0][order]);
    describe(&gq_multistep_implicit_adams, order, &methods[1][order]);
  }
}

static const gq_tableau *of_order(bool corrects, int max_order) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (max_order < 1 || max_order > GQ_ADAMS_MOST) return NULL;
  pthread_once(&once, describe_all);
  return &methods[corrects][max_order];
}

static const gq_tableau *bashforth(int max_order) { return of_order(false, max_order); }
static const gq_tableau *moulton(int max_order) { return of_order(true, max_order); }

const gq_multistep gq_multistep_explicit_adams = { "adams-bashforth", false, 1, bashforth };
const gq_multistep gq_multistep_implicit_adams = { "adams-moulton", true, 2, moulton };

/* No step program: a layout, and no code. */
static int build(gq_stepper *st, const gq_field *f, gq_make *make, const void *arg) {
  gq_steplayout none;
  memset(&none, 0xff, sizeof none); /* -1: absent */
  none.pb_of = NULL;
  none.parts = 1, none.nq = none.given = none.extra = none.nin = none.nout = none.npb = 0;
  none.slopes = st->m->slopes, none.carry = true;
  none.nfe = st->cost = st->m->multistep->corrects ? 2 : 1, none.nfe_dense = 0;
  st->l = none;
  return GQ_OK;
}

/* ---- memory ---- */

/* t: of the host; s: where the state is. */
static void take_all(gq_adams *a, gq_taker *t, gq_taker *s, size_t part) {
  size_t doubles = ((a->n + GQ_ADAMS_CHUNK - 1) / GQ_ADAMS_CHUNK) * GQ_ADAMS_CHUNK * sizeof(double);
  for (int i = 1; i <= a->most + 2; i++) a->phi[i] = gq_take(t, doubles);
  a->guess = gq_take(t, doubles), a->move = gq_take(t, doubles), a->scale = gq_take(t, doubles);
  for (int i = 0; i < a->columns; i++) a->column[i] = gq_take(t, doubles);
  if (a->columns) a->z[0] = gq_take(t, doubles), a->z[1] = gq_take(t, doubles);
  a->sum = gq_take(t, a->slices * sizeof *a->sum);
  for (int i = 0; i < a->m->slopes; i++) a->slope[i] = gq_take(s, part);
  for (int i = 0; i < a->starts; i++) a->start_y[i] = gq_take(s, part), a->start_f[i] = gq_take(s, part);
  a->state = gq_take(s, part), a->rate = gq_take(s, part);
}

/* Constants of the errors: those of equal steps. */
static void constants(gq_adams *a) {
  double g[GQ_ADAMS_ROOM], alpha[GQ_ADAMS_ROOM];
  for (int i = 1; i < GQ_ADAMS_ROOM; i++) alpha[i] = 1.0 / i;
  gq_adams_integrals(GQ_ADAMS_ROOM - 1, alpha, g);
  for (int k = 1; k < GQ_ADAMS_ROOM - 1; k++) a->c[k] = a->corrects ? g[k] - g[k + 1] : g[k + 1];
}

static int init(gq_attempt *w) {
  const gq_tableau *m = w->st->m;
  gq_adams *a = gq_calloc(1, sizeof *a);
  if (!a) return gq_nomem(sizeof *a);
  w->own = a;
  a->m = m, a->corrects = m->multistep->corrects, a->fixed = !w->st->kind.adaptive;
  a->most = a->corrects ? m->order - 1 : m->order;
  a->dtype = w->field->dtype, a->n = gq_numel(w->field->shape);
  a->slices = w->field->nslices;
  a->starts = a->fixed ? m->order - 1 : 0;
  a->columns = a->fixed ? (m->order + 1) / 2 : 0;
  size_t part = gq_part_bytes(w->field);
  gq_taker t = { 0 }, s = { 0 };
  take_all(a, &t, &s, part);
  w->bytes = sizeof *a + t.used + s.used;
  a->block = t.base = gq_calloc(1, t.used);
  a->states = s.base = gq_allocate(w->field->on, s.used + 64);
  if (!a->block || !a->states) return gq_nomem(w->bytes);
  t.used = s.used = 0;
  take_all(a, &t, &s, part);
  constants(a);
  return GQ_OK;
}

static void done(gq_attempt *w) {
  gq_adams *a = w->own;
  gq_free(a->block);
  if (a->states) gq_release(w->field->on, a->states);
  gq_free(a);
}

/* ---- order and step ---- */

/* Steps of the present size in a row, this one included. */
static int equal_steps(const gq_adams *a, double h) {
  int n = 1;
  while (n < a->count && n < GQ_ADAMS_ROOM && fabs(a->past[n - 1] - h) <= 1e-10 * fabs(h)) n++;
  return n;
}

/* Is the error smaller an order lower? */
static bool lower(const gq_adams *a) {
  if (a->k == 1) return false;
  if (a->k == 2) return a->error[1] <= 0.5 * a->error[0];
  return fmax(a->error[1], a->error[2]) <= a->error[0];
}

static void refused(gq_adams *a) {
  a->growing = false;
  a->factor = 0.5;
  a->fails++;
  if (a->fails > 3 && 0.5 < 0.25 * a->error[0]) a->factor = sqrt(0.5 / a->error[0]);
  if (a->fails >= 3) a->k = 1;
  else if (lower(a)) a->k--;
}

static void set_order(gq_adams *a, int k, double error) { a->k = k, a->error[0] = error; }

/* above: the error an order higher. */
static void choose_order(gq_adams *a, bool down, int equal, double above) {
  int k = a->k;
  if (down || k == a->most) a->growing = false;
  if (a->growing) {
    set_order(a, k + 1, above);
    return;
  }
  if (down) {
    set_order(a, k - 1, a->error[1]);
    return;
  }
  if (k + 1 > equal) return; /* differences of unequal steps say little */
  if (k > 1 && a->error[1] <= fmin(a->error[0], above)) set_order(a, k - 1, a->error[1]);
  else if (k < a->most && above < (k > 1 ? 1 : 0.5) * a->error[0]) set_order(a, k + 1, above);
}

static void choose_step(gq_adams *a) {
  double e = a->error[0];
  if (a->growing || 0.5 >= e * pow(2, a->k + 1)) a->factor = 2;
  else if (0.5 >= e) a->factor = 1;
  else a->factor = fmax(0.5, fmin(0.9, pow(0.5 / e, 1.0 / (a->k + 1))));
}

/* ---- attempts ---- */

static bool all_finite(const gq_attempt *w, const void *y, const void *f) {
  const gq_vectors *vec = w->field->on->vec;
  const gq_adams *a = w->own;
  return !vec->nonfinite(a->dtype, a->n, y) && !vec->nonfinite(a->dtype, a->n, f);
}

static void restart(gq_attempt *w, gq_control *c) {
  gq_adams *a = w->own;
  a->count = a->ahead = a->next = 0;
  if (c->h == 0) return; /* the first start: gq_walk_first will tell */
  double size = gq_attempt_norm(w, w->f[0], w->y[0], NULL), h = 0.25 / sqrt(size);
  if (h < fabs(c->h)) c->h = c->h < 0 ? -h : h; /* as STEP begins */
}

static void begin(gq_attempt *w) {
  gq_adams *a = w->own;
  a->count = a->k = 1, a->fails = 0, a->growing = true;
  gq_adams_load(w, w->f[0], a->phi[1]);
}

/* The step is taken, by the order k: y1 and f1 are there. Returns the error of an order more. */
static double take_step(gq_attempt *w, double h) {
  gq_adams *a = w->own;
  double next = gq_adams_update(w, a->k, w->f1[0]);
  gq_adams_advance(a, h);
  a->points = a->k + 1 < a->count ? a->k + 1 : a->count, a->offset = -h, a->ready = false;
  return fabs(h) * a->c[a->k + 1] * next;
}

static int correct(gq_attempt *w, double h, double t1, bool *good) {
  gq_adams *a = w->own;
  if (a->corrects) {
    gq_adams_correct(w, h, a->g[a->k + 1]);
    GQ_TRY(gq_adams_slope_at(w, t1, h, w->y1[0], w->f1[0]));
  }
  *good = (!a->corrects && !a->fixed) || all_finite(w, w->y1[0], w->f1[0]); /* p was seen by its error */
  return GQ_OK;
}

static int adaptive(gq_attempt *w, double h, double t1, double *ratio) {
  gq_adams *a = w->own;
  int k = a->k;
  double norm[3], size = fabs(h);
  gq_adams_errors(w, k, norm);
  *ratio = size * (a->corrects ? a->g[k] - a->g[k + 1] : a->g[k + 1]) * norm[0];
  for (int i = 0; i < 3; i++)
    a->error[i] = k - i < 1 ? 0 : size * a->sigma[k + 1 - i] * a->c[k - i] * norm[i];
  if (!isfinite(*ratio)) {
    *ratio = NAN, a->growing = false;
    return GQ_OK;
  }
  if (*ratio > 1) {
    refused(a);
    return GQ_OK;
  }
  bool down = lower(a), good;
  int equal = equal_steps(a, h);
  GQ_TRY(correct(w, h, t1, &good));
  if (!good) {
    *ratio = NAN, a->growing = false;
    return GQ_OK;
  }
  a->fails = 0;
  choose_order(a, down, equal, take_step(w, h));
  choose_step(a);
  return GQ_OK;
}

static int fixed(gq_attempt *w, double h, double t1, double *ratio) {
  bool good;
  GQ_TRY(correct(w, h, t1, &good));
  if (good) take_step(w, h);
  else *ratio = NAN;
  return GQ_OK;
}

static int attempt(gq_attempt *w, gq_control *c, double *ratio) {
  gq_adams *a = w->own;
  double h = w->h, t1 = w->t1;
  *ratio = 0;
  if (!a->count) {
    begin(w);
    if (a->fixed) GQ_TRY(gq_adams_start(w, c));
  }
  if (a->next < a->ahead) return gq_adams_started(w, ratio);
  if (a->fixed) a->k = a->count < a->most ? a->count : a->most;
  gq_adams_coefficients(a, h, a->k);
  gq_adams_predict(w, a->k, h);
  GQ_TRY(gq_adams_slope_at(w, t1, h, w->y1[0], w->f1[0]));
  if (a->fixed) return fixed(w, h, t1, ratio);
  GQ_TRY(adaptive(w, h, t1, ratio));
  c->chooses = true, c->factor = a->factor;
  return GQ_OK;
}

static void *slope(const gq_attempt *w, int i, int part, int slice) {
  return (char *)gq_adams_slope(w, i) + gq_slice_offset(w->field, slice);
}

static int shorten(gq_attempt *w, double t1, const void *y1) {
  gq_adams *a = w->own;
  gq_state_copy(w->field, w->y1[0], y1);
  w->h = t1 - w->t, w->t1 = t1;
  a->ready = false;
  return gq_adams_slope_at(w, t1, w->h, w->y1[0], w->f1[0]);
}

static const gq_stepclass adams_steps = { .build = build,
                                          .init = init,
                                          .done = done,
                                          .attempt = attempt,
                                          .slope = slope,
                                          .shorten = shorten,
                                          .restart = restart };
