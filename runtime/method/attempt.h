/*
** attempt.h -- what a method sees of an integration: where it is, what it may not miss, and where the step that it
** tries goes.
*/
#ifndef GQ_ATTEMPT_H
#define GQ_ATTEMPT_H

#include "../field/rounds.h"
#include "step.h"

/* The tensors that a state was packed from, each with a norm of its own (parity). */
typedef struct gq_split {
  int n;
  int64_t width;               /* number i of the user's flat state belongs to tensor of[i % width], */
  int *of;
  double *count, *sum;         /* [n] which has so many; scratch */
} gq_split;

typedef struct gq_tolerance {
  double rtol, atol[GQ_MAXPARTS], products;   /* products: atol of theirs */
  bool max_norm;
  gq_split *split;             /* NULL: one norm over all numbers of a part */
} gq_tolerance;

/* Add the square of number i (as slices hold them); then the largest mean, and zeros for the next time. */
void gq_split_add(const gq_split *s, const gq_field *f, size_t i, double square);
double gq_split_take(const gq_split *s);

/* Products as they are integrated. */
typedef struct gq_productsum {
  const gq_grads *grads;       /* where they go */
  double *time;                /* and that in t */
  gq_grads dq, eq;             /* increments and errors of an attempt, when in the norm */
  double dtime, etime;
  gq_grads next;               /* probes where the step begins; from phase 1 on, where it ends */
} gq_productsum;

/* Phase 2: cotangents in, cotangents of y, f, x, t and h out; whole arrays. */
typedef struct gq_pull {
  void *cy, *cf, *cx[GQ_MAXEXTRA], *ck[GQ_MAXSTAGES], *py, *pf, *px[GQ_MAXEXTRA];
  void *y, *f, *x[GQ_MAXEXTRA];   /* by an inverse: where the step began */
  double pt, ph;
} gq_pull;

/* Where f is known, and where it may jump: steps evaluate f on their own side of it, at the next time that the state's
** dtype can tell from it. */
typedef struct gq_jumps {
  const double *at;            /* [n] */
  int n;
  bool bounded;                /* f is evaluated from t0 to t1 alone */
  double t0, t1;
} gq_jumps;

typedef struct gq_cost {
  int64_t nfe;
  int64_t jacobians, newton;   /* implicit methods: Jacobians, iterations of Newton's method */
} gq_cost;

/* What programs of a step read of the host, in memory that both share. */
typedef struct gq_stepinput {
  double t, h, rtol;
  double ht;                   /* h as it makes times of evaluations, */
  double wq[GQ_MAXSTAGES], atol[GQ_MAXPARTS], csum[GQ_SUMS];
} gq_stepinput;

/* Of a step whose products are to be made later: the weight of those that were carried to it, and that. */
typedef struct gq_behind {
  double carried;
  gq_stepinput in;
} gq_behind;

/* fields: where a step begins and ends, what it reads, and what decides over it; methods of any class are told in one call */
typedef struct gq_attempt {
  const gq_stepper *st;
  const gq_field *field;
  const gq_binding *bind;
  gq_tolerance tol;
  gq_jumps jumps;
  void **arena, **rest;        /* [nslices] of the attempt: of what lasts, of the rest; */
  void **soon;                 /* back: what the step before left, or NULL */
  void *y[GQ_MAXPARTS], *f[GQ_MAXPARTS], *y1[GQ_MAXPARTS], *f1[GQ_MAXPARTS];   /* whole arrays */
  void *x[GQ_MAXEXTRA], *x1[GQ_MAXEXTRA];
  void *w;                     /* SDEs: W over the step */
  void *path[GQ_MAXSTAGES][GQ_MAXGIVEN];   /* z and the forcing at the slopes' times */
  double t, h, t1;             /* the step, from t by h to t1 */
  gq_stepinput *shared;
  double limit;                /* a time that no evaluation passes */
  gq_productsum sum;
  gq_pull pull;
  gq_cost cost;
  gq_rounds *rounds;           /* where steps wait (explicit.h), or NULL: they are taken at once */
  void *own;                   /* memory of the method's class */
  size_t bytes;                /* of that */
} gq_attempt;

/* A component that is zero and stays zero has no scale where atol is zero: the smallest normal number
** makes its error ratio 0 and not 0 / 0. */
double gq_positive_atol(gq_dtype d, double atol);
/* From t to the next number of the dtype. */
double gq_spacing(gq_dtype d, double t);
/* What a step adds to the time over which the state's dtype cannot tell times of evaluations apart well, by a 64th
** of the step; 0 where f does not depend on t. */
double gq_coarse_time(const gq_field *f, double t, double h);
/* The time of f's evaluation where a step from t begins: t itself but for jumps. dir: +1 or -1. */
double gq_attempt_begin(const gq_attempt *a, double t, double dir);
/* t, from one time to another; on their inner side where it is one of them and f may jump there. */
double gq_attempt_between(const gq_attempt *a, double t, double from, double to);
/* The time that no evaluation of steps from t may pass: the last, or the one before the next jump. */
double gq_attempt_limit(const gq_attempt *a, double t, double dir);
/* The step of the next phases: from t by h to t1. */
void gq_attempt_times(gq_attempt *a, double t, double h, double t1);
/* Where f is evaluated at a stage of the step. */
double gq_attempt_stage(const gq_attempt *a, double c);
/* A time at which something given is read: none outside. */
double gq_attempt_inside(const gq_attempt *a, double t);
/* Weighted norm of x - minus_ (/ (atol + rtol |y|)) of the first part, in the tolerance's norm. */
double gq_attempt_norm(const gq_attempt *a, const void *x, const void *y, const void *minus_);
/* Of several vectors at once, at most GQ_SIZES: that norm, or (part < 0) the root mean square of x alone. */
typedef struct gq_asked {
  int part;
  const void *x, *y, *minus_;
  double out;
} gq_asked;
void gq_attempt_sizes(const gq_attempt *a, int count, gq_asked *of);
/* The larger of the norms of the product in time and of all parameters together: of an attempt's error, or for the
** first step of the gradient so far, its slope, and the slope's change. */
typedef enum gq_measured { GQ_MEASURE_ATTEMPT, GQ_MEASURE_SIZE, GQ_MEASURE_SLOPE, GQ_MEASURE_CHANGE } gq_measured;
double gq_attempt_products(const gq_attempt *a, gq_measured what);
/* Bytes of extra part e; from its start to slice s of it. */
static inline size_t gq_extra_bytes(const gq_field *f, int e) {
  return e == GQ_EXTRA_DIFFUSION ? gq_numel(f->gshape) * gq_dtype_size(f->dtype) : gq_part_bytes(f);
}
static inline size_t gq_extra_offset(const gq_field *f, int e, int s) {
  return e == GQ_EXTRA_DIFFUSION ? gq_rows_offset(f, s, f->gshape) : gq_slice_offset(f, s);
}
/* The classes of steps of theta.c and adams.c. */
extern const gq_stepclass gq_theta_steps;
extern const gq_multistep gq_multistep_explicit_adams, gq_multistep_implicit_adams;
/* First component of y1 (or f1) that is not finite, 1-based in the user's flat state; 0: none. */
size_t gq_attempt_nonfinite(const gq_attempt *a);

#endif
