/*
** step.h -- one step of a method over any system, as a graph. What a step maps is a tuple: the parts y, the
** slopes f that are carried from step to step, and extra parts x (reversible Heun's second solution).
*/
#ifndef GQ_STEP_H
#define GQ_STEP_H

#include "../field/evaluate.h"
#include "method.h"

/* Extra parts: a second solution; the diffusion there, which an SDE carries as well as a slope. */
enum { GQ_EXTRA_TWIN, GQ_EXTRA_DIFFUSION, GQ_MAXEXTRA };

/* Sums of squares over a step that its heuristics are made of: of the error estimate, of dopri8's second one, of the
** difference of two slopes at the step's end and of that of their states. See heuristic.h. */
enum { GQ_SUM_ERROR, GQ_SUM_ERROR3, GQ_SUM_SLOPES, GQ_SUM_STATES, GQ_SUMS };

typedef struct gq_stepkind {
  const gq_tableau *m;
  bool adaptive;               /* error estimates wanted */
  bool max_norm;
  bool dense;                  /* slopes are kept for the interpolant */
  bool product_error;          /* products and their errors in phase 0 (adjoint) */
  bool product_dense;          /* product weights may be the interpolant's (overshoot) */
  int product_carry;           /* those of a step's end are the next one's first, where slopes are: made in
                               ** this phase; 0: not */
  bool inverse;                /* from the end of the step [t, t + h] to its start: y, f, x are those of the end */
  bool error, stiffness;       /* sums for heuristics; forward systems only */
  double eta, theta;           /* damping of alf; weight of the end's drift (theta) */
                               /* with pull, alf: phase 2 is the forward step's derivative there,
                               ** at one evaluation for both */
  bool pull;                   /* phase 2: derivative of the step (direct; forward systems only) */
  bool pull_time;
  bool far;                    /* between the step and phase 2 its values leave the caches: few are kept */
  bool whole;                  /* with pull: the step, run again, is part of phase 2, and there are no others */
} gq_stepkind;

enum { GQ_PHASE_CARRY = 3 };
/* Where things are among a step program's inputs and outputs, fields: an index each; -1: absent.
** phase 0: an attempt; phase 1: what only an accepted step needs; phase 2: the step's vjp; then what only the next step
** needs. */
typedef struct gq_steplayout {
  int parts, nq, slopes, given, extra;
  int moments;                 /* of the noise, from w on */
  bool carry;                  /* the slope at the start is an input, that at the end an output */
  int nfe, nfe_dense;          /* evaluations in phase 0 and in phase 1 */
  int nin, t, h, ht, rtol, atol, y, f, x, w, path, levy, wq, bv, directions, cy, cf, cx, ck[GQ_MAXSTAGES];
  int h2, w2, y2, f2, x2;      /* inverse with pull: h and W again, and the step's start */
  int nout, y1, f1, x1, err, err3, finite, k[GQ_MAXSTAGES], dq, eq, q, qe, py, pf, px, pt, ph, pb;
  int kept;                    /* outputs behind those nout, for later phases alone: each class of slices has
                               ** its own */
  int sum[GQ_SUMS], csum[GQ_SUMS]; /* heuristics: sums out (stored float64, of this slice), their cotangents in */
  int npb;                     /* products of phase 2: */
  int *pb_of;                  /* [npb] boundary value of each */
} gq_steplayout;

/* Inputs: t, h, h as it makes times, rtol, atol[parts] (float64), y[parts], f[parts] if carry, x[extra], W (H, K, Levy
** areas) of an SDE, what is given at each slope's time [slopes][given], product weights wq[slopes] (float64), boundary
** values; with pull: cotangents of y1, f1, x1, k, sums. With lanes t, both h, atol and the error sums are {lanes}, one
** a row. Outputs: y1[parts], f1[parts] if carry, x1[extra] (stored); error sums[parts] (stored float64: sum or maximum
** over this slice of (err / scale)^2); k (kept); dq[nq], eq[nq] stored; q[nq] added: sum_i wq_i product_i.
** Products at a slope that is carried in are not among dq, eq and q: they are what the step before stored as qe[nq],
** its end's. */
/* want [boundary values]: whose gradients phase 2 adds. */
int gq_step_new(const gq_system *s, const gq_stepkind *k, const bool *want, gq_graph **g, gq_outspec **outs,
                gq_steplayout *l);
void gq_steplayout_done(gq_steplayout *l);

/* A step of a system, compiled for every class of the field; with what methods evaluate besides. */
typedef struct gq_stepper {
  const gq_tableau *m;
  gq_stepkind kind;
  gq_steplayout l;
  gq_code code;
  int *of;                     /* [l.nq] boundary value of product i; -1: time */
  int cost;                    /* evaluations of an attempt, about */
  bool adjoint;                /* the last part is a */
  const gq_evaluator *f;       /* the system */
  const gq_evaluator *products;   /* and its products, where they are integrated */
  const gq_evaluator *pull;    /* z, a -> a'df/dz and products */
  const struct gq_jacobian *jacobian;   /* newton.h: of stiff methods */
} gq_stepper;
int gq_stepper_new(gq_stepper *st, const gq_stepkind *k, const gq_field *f, gq_make *make, const void *arg);
void gq_stepper_done(gq_stepper *st);

#endif
