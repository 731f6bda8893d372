/*
** plan.h -- everything compiled for one structure of solve, cached.
*/
#ifndef GQ_PLAN_H
#define GQ_PLAN_H

#include "../method/newton.h"
#include "along.h"
#include "ode.h"
#include "record.h"
#include "walk.h"

enum { GQ_NODE_SIZES = 7 };    /* node programs for 1, 2, 4, ... 64 rows */

/* What shapes a plan, and all that is seen where one is built: numbers are inputs of its programs. Zeroed before it is
** filled, compared bytewise; the graph's own key
** follows. Fields: a choice each. */
typedef struct gq_plankey {
  const gq_engine *engine;
  const gq_backend *on;
  const gq_lowering *lowering;   /* and with it the layout */
  const gq_tableau *method, *back_method;
  double eta, theta;
  const gq_trajectory_kind *trajectory;
  int threads;                 /* slices */
  int element;                 /* nodes of an element; 0: the engine has none */
  bool fixed, back_fixed;      /* a fixed grid */
  bool max_norm, back_max_norm, overshoot, parity, moments, t_grad, independent, error, stiffness;
  bool dense;                  /* the forward step has its interpolant */
  bool many;                   /* activations of so many steps are kept that they may leave the caches */
  bool audits, probes;         /* of nodes: the solver's own weights beside; products kept apart by node */
  gq_noise noise;
  gq_calculus given, calculus; /* that of f, and that of the field: the one that steps are written for */
  int ncapture;
  bool want[];                 /* [ncapture] */
} gq_plankey;

/* Fields: a stepper or evaluator each of those that some engine runs, and the memory that they share. */
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
  gq_jacobian jacobian;        /* stiff methods */
  gq_evaluator start;          /* the backward system with its products, where they count in the error norm */
  gq_evaluator many[GQ_NODE_SIZES];   /* the engine's own for 1, 2, 4, ... nodes or elements at once, */
  int most_points;             /* up to so many */
  int dim;                     /* gqc: numbers in a row of the state: a Jacobian is dim x dim */
  bool products;               /* some boundary value wants a gradient */
  bool probes;                 /* node programs store the products of vectors by node (grad/spectrum.h), */
  bool defect;                 /* and what the path's slopes miss of f there */
  int64_t solves[2];           /* that an audit might have been made of; those that give an interpolant apart */
  uint64_t audited;            /* a sum of the numbers of the last one that was; */
  int others;                  /* so many were since their numbers were others, or their steps many more, */
  int64_t longest;             /* than the most of one that was */
  int64_t alarms;              /* spectra so far that called for an audit */
  size_t arena_bytes;
  void **arena;                /* [nslices] of the steps */
  gq_scratch scratch;          /* of the evaluators */
  gq_step_state *spare;        /* of finished solves, to be used again */
  int nspare, most;            /* how many, and how many the longest of those solves had: no more are kept */
  bool listed;                 /* in the cache; otherwise it goes with its last user */
} gq_plan;

typedef struct gq_planspec {
  const gq_problem *p;
  const gq_ode_options *o;
  bool dense_forward;          /* inner measurement times, overshoot or a dense trajectory */
  gq_engine_by_name *find;     /* those that auto chooses among */
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
/* And for engines that run the step again before they pull it back: both as one program, p->backward,
** where it is one. */
int gq_plan_again(gq_plan *p);
/* How many points of so many rows of the state each are evaluated at once: a power of two. */
void gq_plan_stack(gq_plan *p, int each);
/* The program for n points (a power of two up to p->most_points), compiled at its first use; of that need not stay. */
int gq_plan_many(gq_plan *p, int n, gq_make *make, const gq_pointkind *of, gq_evaluator **out);

#endif
