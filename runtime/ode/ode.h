/*
** ode.h -- solving dz/dt = f(t, z): methods as table rows, steps as graphs, one loop; and the gradients of a solve,
** whose engines are in grad/ (their own headers: ode/solution.h and what grad/ adds).
*/
#ifndef GQ_ODE_H
#define GQ_ODE_H

#include "../exec/exec.h"
#include "../method/method.h"

typedef enum gq_nodes {
  GQ_NODES_NFE,                /* eq. (9) */
  GQ_NODES_STEP,               /* in every accepted step */
  GQ_NODES_FIXED,
  GQ_NODES_AUTO                /* eq. (9) where an error estimate agrees, else as many as the tolerance asks for */
} gq_nodes;

/* A rule for integrals over [-1, 1]: one row of grad/quadrature.c. */
typedef struct gq_quadrature {
  const char *name;            /* "gauss-legendre" */
  int least, step;             /* it takes least, least + step, least + 2 step, ... points */
  int most;                    /* points of one panel at most; 0: any number */
  bool random;                 /* points are drawn: fill reads key and stream */
  int (*fill)(int n, gq_key key, uint64_t stream, double *x, double *w);   /* x ascending */
  const char *source;
} gq_quadrature;
extern const gq_quadrature gq_quadratures[];               /* Gauss-Legendre first */
extern const int gq_nquadratures;
int gq_quadrature_points(const gq_quadrature *q, int n);   /* n rounded up to what the rule takes */

/* How z(t) is had on the way back: one row of ode/trajectory.c, which has both sides of it. Where a function is NULL
** there is nothing to do. */
struct gq_solution;
struct gq_walk;
struct gq_step_record;
typedef struct gq_trajectory gq_trajectory;
typedef struct gq_trajectory_kind {
  const char *name;            /* "dense" */
  unsigned keeps;              /* of every accepted step: ode/record.h */
  bool ahead;                  /* it chooses its points by the times, before the solve */
  bool reruns;                 /* it runs single steps again, from z and a slope */
  int (*init)(struct gq_solution *s);                     /* before the first step */
  int (*step)(struct gq_solution *s, struct gq_walk *w, bool *phase1);   /* an accepted one; *phase1: w's interpolant
                                                             is complete */
  void (*done)(struct gq_solution *s);
  int (*begin)(gq_trajectory *p);
  int (*at)(gq_trajectory *p, double t, void *dst);       /* z(t); NULL: z is solved backwards with the adjoint */
  int (*leave)(gq_trajectory *p, double t);
  int (*steps)(const gq_trajectory *p, double from, double to, struct gq_step_record *step, int room);
  double (*error)(const gq_trajectory *p);                /* its own, in tolerances of the way back */
  void (*end)(gq_trajectory *p);
} gq_trajectory_kind;
extern const gq_trajectory_kind gq_trajectory_reverse, gq_trajectory_dense, gq_trajectory_checkpoint,
  gq_trajectory_interpolated;
extern const gq_trajectory_kind *const gq_trajectories[];  /* NULL ends them */

/* ---- engines: how a backward pass finds the gradients; one row of grad/engines.c each ---- */

typedef enum gq_keeps {        /* what the forward solve leaves for it */
  GQ_KEEP_NOTHING,             /* there is no backward pass */
  GQ_KEEP_ACTIVATIONS,         /* every activation of every accepted step; of implicit steps the slopes */
  GQ_KEEP_STEPS,               /* the state at each step */
  GQ_KEEP_END,                 /* the end state and the steps' times: steps are inverted */
  GQ_KEEP_TRAJECTORY           /* what gq_ode_options.trajectory says: the adjoint equation is solved along it */
} gq_keeps;
typedef enum gq_integral {     /* of a'df/dtheta, where the adjoint equation is solved */
  GQ_INTEGRAL_OWN,             /* by no rule that others share */
  GQ_INTEGRAL_INSIDE,          /* by Runge-Kutta weights, inside the solver's error norm */
  GQ_INTEGRAL_OUTSIDE,         /* by Runge-Kutta weights, outside of it */
  GQ_INTEGRAL_NODES,           /* by quadrature nodes, eq. (9) and (11) */
  GQ_INTEGRAL_ADAPTIVE         /* by nodes that an error estimate asks for */
} gq_integral;
enum {                         /* gq_engine.traits */
  GQ_PATH_OWN = 1,             /* z comes along .trajectory, whatever the options say */
  GQ_PATH_KEPT = 2,            /* z is needed at any time: along no "reverse" trajectory */
  GQ_ALL_STEPS = 4,            /* needs steps that end where the solve does, and takes cotangents between them as
                                  they are: no overshoot, no moments */
  GQ_TWICE = 8,                /* goes back with n and with 2n nodes */
  GQ_OF_STEPS = 16             /* gives the gradient of the steps as they were taken: of sums over them too,
                                  and twice */
};
struct gq_ode_options;
struct gq_info;
struct gq_plan;
struct gq_plankey;
struct gq_planspec;
typedef const struct gq_engine *gq_engine_by_name(const char *name);
struct gq_pullback;
struct gq_samplepull;
typedef struct gq_engine {
  const char *name;            /* "gq" */
  gq_keeps keeps;
  gq_integral integral;
  const gq_trajectory_kind *trajectory;        /* of z on the way back if nothing else is asked for, or NULL */
  unsigned traits;
  int most_nodes;              /* that an element takes; 0: any number */
  bool (*method)(const gq_tableau *);          /* those that it goes with; NULL: any */
  void (*shape)(const struct gq_ode_options *o, struct gq_plankey *k);   /* what it alone adds to a plan's key; NULL */
  int (*build)(struct gq_plan *p);             /* the programs of a plan, all that the key says */
  int (*backward)(struct gq_pullback *b);
  int (*samples)(struct gq_samplepull *w);     /* a worker's share of batch = "independent"; NULL: refused */
  /* Settle on an engine before a solve (steps < 0), or when the one chosen went over the memory after so many. */
  int (*choose)(const struct gq_planspec *s, struct gq_ode_options *o, int64_t steps, struct gq_info *info);
  gq_engine_by_name *find;     /* the rows that are there to choose from */
  const char *kept, *doc;      /* in words: what the forward solve leaves, how it goes back */
  const char *source;          /* or NULL */
} gq_engine;
extern const gq_engine gq_engines[];
extern const int gq_nengines;
const gq_engine *gq_engine_find(const char *name);         /* NULL: there is none */
extern const gq_engine gq_noise_engines[];                 /* those of SDEs, the default first */
extern const int gq_nnoise_engines;
const gq_engine *gq_noise_engine_find(const char *name);
static inline bool gq_keeps_trajectory(const gq_engine *e) { return e->keeps == GQ_KEEP_TRAJECTORY; }
static inline bool gq_keeps_steps(const gq_engine *e) {
  return e->keeps == GQ_KEEP_ACTIVATIONS || e->keeps == GQ_KEEP_STEPS;
}
static inline bool gq_takes_nodes(const gq_engine *e) {
  return e->integral == GQ_INTEGRAL_NODES || e->integral == GQ_INTEGRAL_ADAPTIVE;
}

enum { GQ_AUDIT_UNASKED = -1 };

/* Made by gq_ode_defaults alone, so that programs need not know of every one of the fields: an option each. */
typedef struct gq_ode_options {
  const gq_tableau *method;
  double eta;                  /* alf: damping, 1 none; above 0, at most 1 */
  double theta;                /* theta: weight of the drift at a step's end, from 1/2 to 1 */
  double rtol, atol;
  double step_size;            /* > 0: fixed grid */
  gq_calculus calculus;        /* of an SDE: that of the method; f is converted where it is meant in the other */
  double first_step;           /* > 0: no search */
  double max_step, min_step;   /* > 0: of steps that are chosen; one that the error wants shorter than the latter is an
                                  error, one that ends at a stop may be */
  int64_t max_steps;
  bool max_norm;               /* opts.norm = "max": largest component instead of RMS */
  gq_controller controller;
  bool overshoot, parity;
  bool independent;            /* every sample has steps of its own; engines none, direct, aca, gq, check */
  bool error, stiffness;       /* gq_info.error and .stiffness are summed up; engines none, direct, aca */
  const gq_engine *engine;
  /* adjoint = {...} */
  const gq_tableau *back_method;
  double back_rtol, back_atol;
  bool rtol_given;             /* then nodes = "auto" refines along fixed steps, too */
  double back_step_size, back_max_step, back_min_step;
  int64_t back_max_steps;
  bool back_max_norm;
  const gq_trajectory_kind *trajectory;
  int points;                  /* interpolated: Chebyshev points of a measurement interval; 0: as many as the tolerance
                                  asks for, by solving again with twice as many */
  int checkpoints;             /* checkpoint: states kept at most */
  bool thin;                   /* trajectory = "auto": dense, and checkpoints where that passes memory_limit */
  bool moments;                /* impulses = "moments": cotangents inside a panel as smooth forcing; */
  bool auto_impulses;          /* where times are many and nothing else forbids it */
  bool scale;                  /* atol of the a-part times max_k rms(g_k) */
  /* gq = {...} */
  double C;
  int max_nodes;
  gq_nodes nodes;
  int fixed_nodes;
  int64_t audit;               /* one of so many solves of a structure, the first of all, is made again by gq at a
                                  tenth of the tolerances; 0: none; GQ_AUDIT_UNASKED: 256 of engines auto and gq,
                                  traced */
  size_t memory_limit;         /* auto: bytes that a solve may keep for its backward pass; 1 GiB */
  const gq_quadrature *quadrature;
  int panels;                  /* equal panels that share the nodes of an interval (or step) */
  uint64_t seed;               /* of random points */
  bool guards;                 /* watch the integrand's spectrum; see gq_info.spectrum */
} gq_ode_options;
void gq_ode_defaults(gq_ode_options *o, gq_dtype d);       /* dopri5, 1e-3 / 1e-6, gq, C 0.1 ... */
int gq_ode_check(const gq_ode_options *o);                 /* do they go together? gq_odeint asks too */
int gq_times_check(int nt, const double *t);              /* at least one, finite, of one direction */
int gq_ode_check_given(const gq_ode_options *o);           /* and what it would silently set right */

/* What each guard sees: reconstruction that the state was lost on the way back; audit, spectrum and quadrature_error
** that the nodes are too few. What none does: the error of the forward solve, of which the gradient is then the
** gradient (direct has the same: Lotka-Volterra to t = 10 at rtol 3e-4 is off by 60 % with a reconstruction error of
** 21 tolerances), and an integrand that n and 2n nodes mistake alike: for z' = -z + theta sin(w t) at theta = 0,
** L = z(10), only a'df/dtheta knows of w, and at w = 60.14 the 5 nodes of rtol 1e-3 and 10 agree to 0.3 % where both
** are 165 times wrong; so do they at one w in 75. The spectrum is 0.77 there, but large too for an oscillation whose
** mean is right, so it warns of nothing by itself. */
/* Fields: what a script finds in info, under the same names. */
typedef struct gq_info {
  int status;                  /* GQ_OK or what ended the solve */
  const gq_engine *engine;     /* that serves the backward pass: what auto chose, */
  char reason[160];            /* and why */
  const char *uncontrolled;    /* why nothing bounds the error of its gradients, or NULL */
  const gq_trajectory_kind *trajectory;   /* of z on the way back, where the adjoint equation is solved, or NULL */
  bool moments;                /* its impulses as smooth forcing */
  const char *lowering;        /* how programs ran: "threads"; on CUDA "ops" or "tiles" */
  double t_reached;
  int64_t nfe, steps, rejected;
  int64_t jacobians, newton;   /* implicit methods: Jacobians, iterations of Newton's method (in nfe, one f each) */
  int64_t nfe_backward, steps_backward, rejected_backward, restarts, nodes, nodes_wanted;
  int64_t panels, panels_split;   /* moments: panels solved, and splits that made them more */
  double reconstruction;       /* units of the tolerance */
  double audit;                /* |G_n - G_2n| / |G_2n| over all parameters, by engine check and where the
                                  spectrum asked for it; NAN: not made */
  double gradient_error;       /* |g - g'| / max(|g|, |g'|), g' by gq at a tenth of the tolerances: the largest of a
                                  parameter's that shows in the loss; NAN: not compared (gq_ode_options.audit) */
  char gradient_of[160];       /* and which that is, in words */
  double quotient_error;       /* that audit, where f may jump as the state passes something: how far the change of the
                                  solution with parameters and z0, moved a little at random, is from what g' says,
                                  relative; NAN: not compared */
  double spectrum;             /* guards: the last two of the n Legendre coefficients of the integrand (four random
                                  sums of its probes) against the largest. Near 1: n nodes do not resolve
                                  the integrand, though its mean may be right; over 0.1 it asks for an audit. NAN:
                                  fewer than 3 nodes in every interval, no guards */
  int64_t nfe_audit;           /* evaluations of that audit, not in nfe and nfe_backward */
  double quadrature_error;     /* nodes = "step" and "auto": integrals of the probes by nodes against those by
                                  Runge-Kutta weights, or what refinement estimates: the largest of a tensor,
                                  relative; NAN: none */
  double defect;               /* how far the forward solve's interpolant is from a solution: the largest of h |z' - f|
                                  at the nodes, RMS, in tolerances of the forward solve; along trajectories that
                                  follow its steps, where these are chosen by an explicit method; NAN: none */
  int64_t rounds;              /* nodes = "auto": of refinement, 0 where eq. (9) was enough; */
  int64_t unresolved;          /* pieces that miss the tolerance at its limits */
  bool capped;                 /* max_nodes bit in some interval */
  size_t peak_bytes;
  double error, stiffness;     /* heuristics over the accepted steps (method/heuristic.h), where asked for */
  double coarse;               /* share of the time solved in steps for which the dtype's times are too far apart */
  bool event;                  /* it happened, at event_t; the states from there on are the one at event_t */
  double event_t;
  int64_t nfe_event;           /* evaluations of the search for it, not in nfe */
} gq_info;

/* One solve, kept for its backward pass. */
typedef struct gq_solution gq_solution;

/* A solve as a function of time. */
typedef struct gq_dense gq_dense;

/* What each sample took, where they are solved apart; tensors {samples}, int64 but for t. The backward pass adds to
** the last three in place. */
typedef struct gq_samples {
  gq_tensor *nfe, *steps, *rejected;   /* evaluations, accepted and rejected steps */
  gq_tensor *t;                        /* float64: the time reached */
  gq_tensor *status;                   /* gq_status */
  gq_tensor *nfe_backward, *steps_backward, *nodes;
} gq_samples;
void gq_samples_ref(const gq_samples *s, gq_samples *out);
void gq_samples_done(gq_samples *s);

struct gq_brownian;
typedef struct gq_problem {
  const gq_graph *f;           /* inputs: t (0-d, state dtype), z, captures; output: dz/dt of z's shape and dtype; of
                                  dynamics that are called back: gq_callback_graph */
  gq_tensor *z0;
  int ncapture;
  gq_tensor *const *capture;
  const bool *wants_grad;      /* per capture */
  bool z0_grad, t_grad;
  int nt;
  const double *t;             /* increasing or decreasing, repeats allowed */
  gq_dense **dense_;           /* where the interpolant goes */
  gq_samples *samples_;        /* where new references to what each took go; all NULL if they are solved together */
  const gq_graph *event_;      /* inputs: t, z, captures of its own; one number: the solve ends where it changes sign */
  int nevent;
  gq_tensor *const *event_capture;
  int ntensors;                /* that the state was packed from, along its last dimension: */
  const int64_t *tensors_;     /* numbers of each there (o.parity: their norms); NULL: it was one */
  bool jumps_move;             /* with what wants a gradient */
  gq_noise noise;              /* an SDE: f gives drift and diffusion (field/diffusion.h), o.method is one of
                                  gq_scheme_get, o.engine one of gq_noise_engines, o.step_size the step */
  gq_calculus calculus;        /* that f is meant in; o.calculus: it is solved in */
  struct gq_brownian *path;    /* of W, that the solution keeps */
  const bool *jump_;           /* [nt] f may jump at this time: the solve stops before it and goes on after it */
} gq_problem;

/* SDEs: the widest leaves (tol of gq_brownian_new) that a path may have for fixed steps of dt to p->t, where it is
** right in distribution: dt; dt / 4 where a measurement time lies off the grid and cuts a step short. */
double gq_noise_leaf(const gq_problem *p, double dt);

/* Solve; z: {nt, shape of z0}. On failure the status says why; *sol_ and *z then still hold the
** part reached (info->status, info->t_reached) when `partial`, nothing otherwise. With engine
** "none" *sol is NULL. */
int gq_odeint(const gq_problem *p, const gq_ode_options *o, bool partial, gq_tensor **z, gq_info *info,
              gq_solution **sol);
/* gz: dL/dz at the times, {nt, ...}. gz0, gt (float64 {nt}), gcapture[i]: new references, or NULL
** where not wanted. Updates the solution's info. */
int gq_odeint_backward(gq_solution *s, gq_tensor *gz, gq_tensor **gz0, gq_tensor **gt, gq_tensor **gcapture);
/* The same with dL/d(info.error) and dL/d(info.stiffness); gz_ NULL: zero. */
int gq_odeint_backward_sums(gq_solution *s, gq_tensor *gz_, const double sums[2], gq_tensor **gz0, gq_tensor **gt,
                            gq_tensor **gcapture);
/* The same with gradients that can be differentiated again: the accepted steps are replayed as recorded
** operations on the solve's own inputs (t_ NULL: no gradient there). Engine direct only; gt_ in t_'s dtype. */
int gq_odeint_replay(gq_solution *s, gq_tensor *z0, gq_tensor *t_, gq_tensor *const *capture, gq_tensor *gz,
                     gq_tensor **gz0, gq_tensor **gt_, gq_tensor **gcapture);
/* Compare what a replay gave with the tighter solve, if this solve has one, into info. */
int gq_odeint_judge(gq_solution *s, gq_tensor *gz, gq_tensor *gz0_, gq_tensor *gt_, gq_tensor *const *gcapture,
                    bool *judged);
/* The states at n times between the first and the last into out {n, ...}, or {...} for n = 1. No gradients. */
int gq_dense_at(const gq_dense *d, int64_t n, const double *t, gq_tensor *out);
double gq_dense_first(const gq_dense *d);
double gq_dense_last(const gq_dense *d);
int64_t gq_dense_steps(const gq_dense *d);
gq_shape gq_dense_shape(const gq_dense *d);
gq_dtype gq_dense_dtype(const gq_dense *d);
const gq_device *gq_dense_device(const gq_dense *d);
void gq_dense_free(gq_dense *d_);

const gq_ode_options *gq_solution_options(const gq_solution *s);
const gq_info *gq_solution_info(const gq_solution *s);
void gq_solution_free(gq_solution *s_);

/* Steps tried by the last solve and the last backward pass of this thread, for tests of parity:
** off by default; rows of {t, h, error ratio, accepted}. */
void gq_steplog_start(void);
void gq_steplog_stop(void);
bool gq_steplog_hold(bool held);   /* nothing is added meanwhile; returns what was */
int gq_steplog_get(const double (**rows)[4]);   /* a row {NAN, first h, 0, 0} opens each solve */

void gq_program_cache_clear(void);              /* compiled solvers are cached by structure */
int gq_program_cache_count(int64_t *compiled_); /* entries alive; compilations so far */

/* Gauss-Legendre on [-1, 1]: x ascending, n = 1.. (Newton on P_n, to rounding; cached to 64) */
int gq_gauss_legendre(int n, double *x, double *w);

#endif
