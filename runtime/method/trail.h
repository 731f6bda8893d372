/*
** trail.h -- what a solve reads on its way where a device makes its attempts (loop.h): steps of the solve before, which it
** goes along, and a polynomial that forces it. Plain C99 like control.h, of which kernels take it behind.
*/
#ifndef GQ_TRAIL_H
#define GQ_TRAIL_H

#include "control.h"

#include <stdint.h>

enum { GQ_TRAIL_TIMES = 17, GQ_TRAIL_FORCES = 4, GQ_TRAIL_STEPS = 8 };

/* A step that is gone along: its interpolant is made of y and of slopes, one `apart` bytes behind the other. */
typedef struct gq_trail_step {
  double t, h;
  uint64_t y, slope;
} gq_trail_step;

/* addresses are the device's; all of them of whole arrays */
typedef struct gq_trail {
  uint64_t step;               /* [] gq_trail_step; */
  uint64_t weight;             /* [slopes][degree]: of their slopes (gq_trail_weight); */
  uint64_t time;               /* [times] of an attempt's own slopes, in steps */
  uint64_t to[GQ_TRAIL_STEPS]; /* where the i-th accepted step reads it: at each time the state there, and the force */
  uint64_t apart, part;        /* bytes of a slope there; of a state here */
  uint64_t force[GQ_TRAIL_FORCES];   /* coefficients, of Legendre polynomials in (t - middle) / half */
  double middle, half;
  double low, high;            /* no time is asked for outside */
  long long near;              /* the step that holds the present time */
  int slopes, degree, times;
  int sees, given;             /* is a state given? and how many arrays in all */
  int forced;
  int follows;                 /* steps are at most three of those gone along */
} gq_trail;

/* p[i] = P_i(x), i < n */
static inline void gq_trail_legendre(int n, double x, double *p) {
  p[0] = 1, p[1] = x;
  GQ_BY(unroll 1)
  for (int j = 2; j < n; j++) p[j] = gq_control_over((2 * j - 1) * x * p[j - 1] - (j - 1) * p[j - 2], j);
}

/* Of a slope in the interpolant, in steps: d[0] theta + d[1] theta^2 + .. */
static inline double gq_trail_weight(const double *d, int degree, double theta) {
  double p = 0;
  GQ_BY(unroll 1)
  for (int j = degree - 1; j >= 0; j--) p = (p + d[j]) * theta;
  return p;
}

/* The last step up to `near` that does not begin after t. */
GQ_REGION long long gq_trail_find(const gq_trail_step *step, long long near, double t) {
  double dir = step[near].h < 0 ? -1 : 1;
  GQ_BY(unroll 1)
  while (near > 0 && dir * (t - step[near].t) < 0) near--;
  return near;
}

/* Is t, to which steps come from behind it, where the step from `begin` begins? `before`: where that before it does. */
static inline bool gq_trail_begins(double t, double begin, double before) {
  return fabs(t - begin) <= 1e-3 * fabs(begin - before);
}

/* The proposal h from t, where the third step back begins at t3. */
static inline double gq_trail_limit(double h, double t, double t3) {
  double most = fabs(t - t3);
  return most > 0 && fabs(h) > most ? copysign(most, h) : h;
}

/* After an accepted step to t. */
static inline void gq_trail_follow(gq_trail *r, const gq_trail_step *step, double t, double *h) {
  if (!r->sees) return;
  r->near = gq_trail_find(step, r->near, t);
  long long i = r->near > 2 ? r->near - 2 : 0;
  if (!r->follows) return;
  GQ_BY(unroll 1)
  while (i > 0 && gq_trail_begins(t, step[i].t, step[i - 1].t)) i--;
  *h = gq_trail_limit(*h, t, step[i].t);
}

#endif
