/*
** plan.h -- everything compiled for one structure of solve, cached; and the walk, one integration
** in progress over a plan's programs.
*/
#ifndef GQ_PLAN_H
#define GQ_PLAN_H

#include "ode.h"
#include "record.h"

/* A step of a system, compiled for every class of the field. */
typedef struct gq_stepper {
  const gq_tableau *m;
  gq_stepkind kind;
  gq_steplayout l;
  gq_code code;
  int *of;                     /* [l.nq] boundary value of product i; -1: time */
} gq_stepper;

enum { GQ_NODE_SIZES = 7 };    /* node programs for 1, 2, 4, ... 64 rows */

/* What shapes a plan, and all that is seen where one is built: numbers are inputs of its programs. Zeroed before it is
** filled, compared bytewise; the graph's own key follows. */
typedef struct gq_plankey {
  const gq_engine *engine;
  const gq_backend *on;
  const gq_lowering *lowering;   /* and with it the layout */
  const gq_tableau *method, *back_method;
  double eta;
  const gq_trajectory_kind *trajectory;
  int threads;                 /* slices */
  int element;                 /* nodes of an element; 0: the engine has none */
  bool fixed, back_fixed;      /* a fixed grid */
  bool max_norm, back_max_norm, overshoot, parity, moments, t_grad, independent, error, stiffness;
  bool dense;                  /* the forward step has its interpolant */
  bool audits, probes;         /* of nodes: the solver's own weights beside; products kept apart by node */
  int ncapture;
  bool want[];                 /* [ncapture] */
} gq_plankey;

typedef struct gq_plan {
  gq_plankey *key;
  size_t nkey;
  int users;                   /* solutions that refer to it */
  int running;                 /* solves and backward passes under way: they use its scratch memory */
  uint64_t used;               /* for the oldest to go first */
  gq_field *field;
  gq_stepper forward, backward;
  gq_stepper inverse;          /* mali and reversible: a forward step from its end to its start */
  gq_evaluator f, adjoint, pull;      /* z -> f; the backward system; z, a -> a'df/dz and products */
  gq_evaluator jacobian;       /* implicit methods: z, v -> f (phase 0), -v'df/dz (phase 1) */
  int64_t rows;                /* and what they solve for at once: rows that do not act on each other, */
  int row_dim;                 /* of so many numbers; or one of all */
  gq_evaluator start;          /* the backward system with its products, where they count in the error norm */
  gq_evaluator many[GQ_NODE_SIZES];   /* the engine's own for 1, 2, 4, ... nodes or elements at once, */
  int most_points;             /* up to so many */
  int dim;                     /* gqc: numbers in a row of the state: a Jacobian is dim x dim */
  bool products;               /* some boundary value wants a gradient */
  bool probes;                 /* node programs store the products of vectors by node (grad/spectrum.h) */
  int64_t alarms;              /* spectra so far that called for an audit */
  size_t arena_bytes;
  void *arena[GQ_MAXSLICES];   /* of the steps */
  gq_scratch scratch;          /* of the evaluators */
  gq_step_state *spare;        /* of finished solves, to be used again */
  int nspare, most;            /* how many, and how many the longest of those solves had: no more are kept */
  bool listed;                 /* in the cache; otherwise it goes with its last user */
} gq_plan;

typedef struct gq_planspec {
  const gq_problem *p;
  const gq_ode_options *o;
  bool dense_forward;          /* inner measurement times, overshoot or a dense trajectory */
} gq_planspec;

/* The plan of a problem: from the cache, or compiled; users +1. */
int gq_plan_get(const gq_planspec *s, gq_plan **out);
void gq_plan_keep(gq_plan *p);               /* users +1 */
void gq_plan_release(gq_plan *p_);
/* A backward pass takes the plan's scratch memory; GQ_ESTATE where a solve under way, that called back, has it. */
int gq_plan_enter(gq_plan *p);
void gq_plan_leave(gq_plan *p);

/* ---- for the engines' own build ---- */

/* The forward step, with its derivative (pull) or without, f, and what an implicit method needs. */
int gq_plan_forward(gq_plan *p, bool pull);
int gq_stepper_new(gq_plan *p, gq_make *make, const void *arg, gq_stepper *st);   /* st->kind is set */
/* How many points of so many rows of the state each are evaluated at once: a power of two. */
void gq_plan_stack(gq_plan *p, int each);
/* The program for n points (a power of two up to p->most_points), compiled at its first use; of that need not stay. */
int gq_plan_many(gq_plan *p, int n, gq_make *make, const gq_pointkind *of, gq_evaluator **out);

/* ---- one integration ---- */

typedef struct gq_walk {
  gq_plan *plan;
  const gq_stepper *st;
  const gq_binding *bind;
  const gq_ode_options *o;
  double rtol, atol[GQ_MAXPARTS], atol_products, step_size;
  bool max_norm;
  int64_t max_steps;
  void **arena;                /* [nslices] of the attempt */
  void *y[GQ_MAXPARTS], *f[GQ_MAXPARTS], *y1[GQ_MAXPARTS], *f1[GQ_MAXPARTS];   /* whole arrays */
  void *x, *x1;                /* the extra part */
  void *path[GQ_MAXSTAGES][GQ_MAXGIVEN];   /* z and the forcing at the slopes' times, filled by fill_path */
  int (*fill_path)(struct gq_walk *w, double t, double h);
  void *context;
  /* adjoint: error of products */
  const gq_grads *grads;       /* where products go */
  double *time;                /* and that in t */
  gq_grads dq, eq;             /* increments and errors of an attempt, when in the norm */
  double dtime, etime;
  double t, h;                 /* where it is; the next proposal, signed (0: not known) */
  double h1, t1;               /* step of the accepted attempt and where it ends */
  const double *jumps;         /* [njumps] where f may jump: steps evaluate f on their own side of it */
  int njumps;
  double margin;               /* by so much */
  double t_origin;             /* fixed grid: t_origin + index * step_size */
  int64_t grid_index;
  bool clamped;                /* the accepted step was shortened to the stop */
  double last_ratio[2];        /* PI and PID memory */
  struct gq_adams *adams;      /* the history of a multistep method, or NULL */
  int64_t nfe, steps, rejected;
  struct gq_implicit *implicit;   /* implicit methods: slopes, Jacobians, scratch (implicit.h) */
  int64_t jacobians, newton;   /* and what they took */
  /* phase 2: cotangents in, cotangents of y, f, x, t and h out; whole arrays */
  void *cy, *cf, *cx, *ck[GQ_MAXSTAGES], *py, *pf, *px;
  double csum[GQ_SUMS];        /* heuristics */
  double pt, ph;
  const void **in;             /* [nslices][nin] */
  void **out;                  /* [nslices][nout] */
  double *scalars;             /* [nslices][nout] stored float64 outputs */
  double in_scalars[3 + GQ_MAXPARTS + GQ_MAXSTAGES];   /* t h rtol atol wq */
} gq_walk;

/* Factor from a step to the next proposal; last: the error ratios before. */
double gq_control(const gq_controller *c, int error_order, double ratio, const double last[2]);
/* A component that is zero and stays zero has no scale where atol is zero: the smallest normal number
** makes its error ratio 0 and not 0 / 0. */
double gq_positive_atol(gq_dtype d, double atol);
/* Allocates the pointer tables (not the states). */
int gq_walk_init(gq_walk *w, gq_plan *p, const gq_stepper *st, const gq_binding *b);
void gq_walk_done(gq_walk *w);
/* Choose the first step by Hairer, Norsett & Wanner II.4; f must hold the slopes at t, and where
** products are in the error norm dq and dtime those at t. */
int gq_walk_first(gq_walk *w, const gq_evaluator *e, double stop, double *h);
/* The time of f's evaluation where a step from t begins: t itself but for jumps. dir: +1 or -1. */
double gq_walk_begin(const gq_walk *w, double t, double dir);
/* The step of the next phases: from t by h to t1. */
void gq_walk_times(gq_walk *w, double t, double h, double t1);
/* Try steps until one is accepted: w->h1, y1, f1, slopes. `stop`: not passed if `clamp`. On a
** failure the status, with a message that tells t and h. */
int gq_walk_step(gq_walk *w, double stop, bool clamp);
/* Fixed grid: the size of the step from w->t to its next point, or to the stop; sets w->clamped. */
double gq_walk_fixed_step(gq_walk *w, double stop, bool clamp);
/* Run the later phases of the accepted step: 1 for the interpolant and products. */
int gq_walk_phase(gq_walk *w, int phase);
/* y(theta) = y + sum_i h w_i k_i of a part, one slice of it or all. */
void gq_walk_interpolate(const gq_walk *w, int part, int slice, double theta, void *dst);
void gq_walk_interpolate_all(const gq_walk *w, int part, double theta, void *dst);
/* Address of slope i, part p, in slice s of the accepted step. */
void *gq_walk_slope(const gq_walk *w, int i, int part, int slice);
/* Slope i of part 0, all slices. */
void gq_walk_slope_all(const gq_walk *w, int i, void *dst, const gq_field *f);
/* Accept: y <- y1, f <- f1, x <- x1, t <- t + h1 (pointers swapped). */
void gq_walk_commit(gq_walk *w);
/* Weighted norm of x (/ (atol + rtol |y|)) in the walk's norm. */
double gq_walk_norm(const gq_walk *w, int part, const void *x, const void *y, const void *minus_);

void gq_steplog_first(double h);
void gq_steplog_add(double t, double h, double ratio, bool accepted);

#endif
