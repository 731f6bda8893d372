/*
** control.h -- what a solver's loop decides with: the step to try, whether it is accepted, what that teaches, and the
** first step. Hairer, Norsett & Wanner II.4; PI and PID: Soderlind 2003, in the form
** h_new = h * safety * r_n^-(p+i+d)/k * r_n-1^(p+2d)/k * r_n-2^-d/k, k the error order.
**
** Plain C99 over doubles, nothing called but mathematics: walk.c, lanes.c and kernels (loop.h) take it as it stands.
*/
#ifndef GQ_CONTROL_H
#define GQ_CONTROL_H

#include <math.h>
#include <stdbool.h>

#ifndef GQ_REGION /* words of kernels (exec/cuda/prelude.h): one body, which is called; a loop that is not unrolled */
#define GQ_REGION static inline
#define GQ_BY(n)
#endif

typedef struct gq_controller {
  double safety, ifactor, dfactor, pcoeff, icoeff, dcoeff;   /* 0.9 10 0.2 0 1 0 */
} gq_controller;

enum {
  GQ_MOST_BAD = 8,             /* shortened steps before a value that is not finite is an error, */
  GQ_MOST_HALVED = 50          /* and before it is that Newton's method does not converge */
};

/* Of one integration. */
typedef struct gq_control {
  double h;                    /* the next proposal, signed (0: not known), */
  double most, least;          /* of a size between these; 0: any */
  double stop;                 /* the next time that matters: */
  bool clamp;                  /* it is not passed, */
  bool clamped;                /* and the attempt was shortened to it */
  double ratio;                /* error of the last attempt in tolerances */
  double last[2];              /* PI and PID: those of the accepted steps before */
  bool chooses;                /* the method has chosen its factor from the attempt to the next proposal: */
  double factor;
  int bad, halved;             /* attempts that were not finite, in a row; that did not converge, since the last step */
  double reach;                /* above 1: stages lie up to reach * h from t; */
  double limit;                /* none may pass this time, */
  bool shortened;              /* so that the attempt was shortened */
  double whole;                /* from this */
  double size;                 /* fixed grid: origin + index * size; 0: the stops are the grid */
  double origin;
  double rest;                 /* so much of a step less than the stop is the stop; 0: rounding alone */
  long long index;
} gq_control;

/* The larger; NaN if either is. */
static inline double gq_larger(double a, double b) { return a >= b || a != a ? a : b; }

/* Much code for a device, which is not at each use. */
GQ_REGION double gq_control_over(double x, double y) { return x / y; }

/* A part's error in tolerances from the mean squares of its estimates; e3 < 0: there is one alone.
** DOP853: e5^2 / sqrt(e5^2 + 0.01 e3^2), HNW II.10. */
static inline double gq_control_error(double e5, double e3) {
  double root = sqrt(e3 < 0 ? e5 : e5 + 0.01 * e3);
  return e3 < 0 ? root : e5 == 0 ? 0 : gq_control_over(e5, root);
}

/* From t to the next number of the state's dtype. */
static inline double gq_control_spacing(bool single, double t) {
  float s = fabsf((float)t);
  return single ? (double)(nextafterf(s, INFINITY) - s) : nextafter(fabs(t), (double)INFINITY) - fabs(t);
}

/* What a step adds to the time over which that dtype cannot tell times of evaluations apart well, by a 64th of the step. */
static inline double gq_control_coarse(bool single, double t, double h) {
  return gq_control_spacing(single, fmax(fabs(t), fabs(t + h))) > fabs(h) / 64 ? fabs(h) : 0;
}

/* ---- the first step ---- */

/* A step that moves t well. */
static inline double gq_control_least(double t) { return 64 * 2.2204460492503131e-16 * fabs(t); /* DBL_EPSILON */ }

/* The step where norms say nothing, for want of a scale or since they are zero. */
static inline double gq_control_blind(double t) { return fmax(1e-6, gq_control_least(t)); }

/* Size of an Euler step that probes from t; d0, d1: norms of the state and of its slope. There is room for so much. */
static inline double gq_control_probe(double t, double d0, double d1, double room) {
  return fmin(room, d0 < 1e-5 || d1 < 1e-5 ? gq_control_blind(t) : gq_control_over(0.01 * d0, d1));
}

/* Size of the first step; d2: norm of the slope's change over the probe h0, divided by that. If it is not finite the
** probe left the domain: attempts will find their way. */
static inline double gq_control_first(double t, double h0, double d1, double d2, int order) {
  double top = isfinite(d2) ? fmax(d1, d2) : d1;
  double h1 = d1 <= 1e-15 && d2 <= 1e-15 ? fmax(gq_control_blind(t), h0 * 1e-3) : pow(gq_control_over(0.01, top), gq_control_over(1.0, order));
  return fmax(fmin(100 * h0, h1), gq_control_least(t));
}

/* ---- the step to try ---- */

/* So much of h that no stage passes the limit; a thousandth of a step from it those that would are taken there. */
GQ_REGION double gq_control_reach(gq_control *k, double t, double h) {
  double room = k->limit - t;
  if (!k->shortened) k->whole = fabs(h);
  k->shortened = k->reach > 1 && fabs(h) * k->reach > fabs(room) * (1 + 1e-10) && fabs(room) > 1e-3 * k->whole;
  if (!k->shortened) return h;
  k->clamped = false;
  return gq_control_over(room, k->reach);
}

/* Adaptive, from t. */
static inline double gq_control_propose(gq_control *k, double t) {
  double rest = k->stop - t;
  if (k->most > 0 && fabs(k->h) > k->most) k->h = copysign(k->most, k->h);
  k->clamped = k->clamp && fabs(k->h) >= fabs(rest) * (1 - 1e-10);
  return gq_control_reach(k, t, k->clamped ? rest : k->h);
}

/* The step is below what is allowed, or no longer moves t. */
static inline bool gq_control_short(const gq_control *k, double h) {
  return !k->clamped && !k->shortened && fabs(h) < k->least;
}
static inline bool gq_control_stuck(const gq_control *k, double t, double h) {
  return gq_control_short(k, h) || (!k->clamped && fabs(h) <= 4 * 2.2204460492503131e-16 * fabs(t)); /* DBL_EPSILON */
}

/* Fixed grid: to its next point, or to the stop where that comes first or differs by rounding. */
static inline double gq_control_fixed(gq_control *k, double t) {
  double h = k->stop - t;
  k->clamped = true;
  if (k->size <= 0) return gq_control_reach(k, t, h);
  double next = k->origin + (k->index + 1) * (h < 0 ? -k->size : k->size);
  double past = gq_control_over(h < 0 ? k->stop - next : next - k->stop, k->size);
  k->clamped = past >= -fmax(k->rest, 1e-10) && (k->clamp || past <= 1e-10);
  return gq_control_reach(k, t, k->clamped ? h : next - t);
}

/* h, or as much of it as does not pass the limit by rounding. */
GQ_REGION double gq_control_within(double t, double h, double limit) {
  double dir = h < 0 ? -1 : 1;
  GQ_BY(unroll 1)
  while (h != 0 && dir * (t + h - limit) > 0) {
    double less = h - (t + h - limit);
    h = dir * less <= 0 ? 0 : less != h ? less : nextafter(h, 0.0);
  }
  return h;
}

/* h as it makes times of evaluations: from `from` for t to `to` for t1. */
static inline double gq_control_span(double t, double t1, double h, double from, double to, double limit) {
  double dir = h < 0 ? -1 : 1;
  return gq_control_within(from, from == t && to == t1 ? h : dir * fmax(dir * (to - from), 0.0), limit);
}

/* ---- after an attempt ---- */

/* One more of the slices' sums of squares, or of their largest numbers. */
static inline double gq_control_gather(double sum, double v, bool largest) {
  return !largest ? sum + v : v > sum || v != v ? v : sum;
}

/* Factor from a step to the next proposal. */
GQ_REGION double gq_control_factor(const gq_controller *c, int error_order, double ratio, const double last[2]) {
  if (ratio == 0) return c->ifactor;
  double k = error_order, r1 = last[0], r2 = last[1];
  double f = c->safety * pow(ratio, gq_control_over(-(c->pcoeff + c->icoeff + c->dcoeff), k));
  if (c->pcoeff != 0 || c->dcoeff != 0)
    f *= pow(r1, gq_control_over(c->pcoeff + 2 * c->dcoeff, k)) * pow(r2, gq_control_over(-c->dcoeff, k));
  f = fmin(c->ifactor, fmax(f, ratio < 1 ? 1 : c->dfactor));
  return ratio > 1 ? fmin(f, 0.99) : f; /* what was refused is never tried again as it was */
}

/* The proposal after an accepted step; one shortened to the stop or the limit teaches the controller nothing. */
static inline void gq_control_learn(gq_control *k, const gq_controller *c, int error_order, double h) {
  if (!k->clamped && !k->shortened) {
    k->h = h * (k->chooses ? k->factor : gq_control_factor(c, error_order, k->ratio, k->last));
    k->last[1] = k->last[0], k->last[0] = k->ratio > 0 ? k->ratio : 1e-4;
  }
  if (k->halved && fabs(k->h) > fabs(h)) k->h = h;
  k->bad = k->halved = 0;
}

typedef enum gq_verdict { GQ_ACCEPTED, GQ_REFUSED, GQ_NOT_FINITE, GQ_NOT_CONVERGED } gq_verdict;

/* Of an adaptive attempt; k->h is the next proposal. ratio: NaN if something was not finite, infinite if a stage did
** not converge (Hairer & Wanner IV.8). */
static inline gq_verdict gq_control_judge(gq_control *k, const gq_controller *c, int error_order, double h, double ratio) {
  k->ratio = ratio;
  if (ratio <= 1) {
    gq_control_learn(k, c, error_order, h);
    return GQ_ACCEPTED;
  }
  if (isinf(ratio)) {
    k->h = h / 2;
    return ++k->halved > GQ_MOST_HALVED ? GQ_NOT_CONVERGED : GQ_REFUSED;
  }
  k->bad = isnan(ratio) ? k->bad + 1 : 0;
  if (k->bad > GQ_MOST_BAD) return GQ_NOT_FINITE;
  if (k->bad) k->h = h * fmin(c->dfactor, 0.5);
  else k->h = h * (k->chooses ? k->factor : gq_control_factor(c, error_order, ratio, k->last));
  return GQ_REFUSED;
}

#endif
