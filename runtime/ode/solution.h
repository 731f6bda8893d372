/*
** solution.h -- what a forward solve leaves for its backward pass.
*/
#ifndef GQ_SOLUTION_H
#define GQ_SOLUTION_H

#include "along.h"
#include "dense.h"

enum { GQ_QUOTIENTS = 3 };      /* directions */

/* Fields: what was solved, what was kept of it in each of the ways that engines ask for, and what it took. */
struct gq_solution {
  gq_plan *plan;
  gq_binding *bind;
  gq_ode_options o;
  bool z0_grad, t_grad, jumps_move;
  int nt, unreached;           /* times; the user has so many more, which are none of its own */
  double *t;                   /* [nt]; after an event its time: */
  double last;                 /* f is evaluated up to this all the same, on either way */
  double *jumps;               /* [njumps] those of the times at which f may jump */
  int njumps;
  gq_tensor *z0, *z;           /* z: {nt, ...} */
  uint64_t version, z0_version; /* of the storages of z and z0 when it was solved */
  unsigned keeps;              /* of every accepted step */
  gq_steps steps, ends;        /* those; states where an inverse starts: the end of each smooth piece */
  size_t record_bytes;         /* of bytes; states go back to the plan once a backward pass has used them */
  void *trajectory;            /* what its row keeps besides */
  bool limited, over;          /* auto: kept bytes are counted against the limit; they went over it */
  struct gq_sampleset *samples;   /* what each took and left, where samples are solved on their own */
  bool trivial;                /* nothing to integrate: all times equal, or an empty state */
  gq_along along;              /* SDEs */
  gq_dense *dense;             /* until the solve is done */
  bool judged;                 /* a replay was compared with `tighter`: what info tells of that stays */
  struct gq_solution *tighter; /* grad/audit.c: the same at a tenth of the tolerances, until gradients were compared; */
  double *size;                /* how large parameters and z0 are, */
  gq_tensor **perturbed;       /* [ncapture + 2 GQ_QUOTIENTS] and where f may jump those, and solutions a little
                                  beside, or NULL */
  gq_split *split;             /* parity: the tensors that z was packed from, or NULL */
  gq_info info;
  size_t bytes;                /* held for this solve */
};

/* One backward pass: what the engines fill. */
typedef struct gq_pullback {
  gq_solution *s;
  gq_tensor *gz;               /* {nt, ...}, every entry packed as the slices hold states */
  void *a;                     /* on return dL/dz0, g_0 included, in the user's order */
  double *gt;                  /* [nt] or NULL */
  gq_grads grads;
  int64_t nfe;
  int refine;                  /* nodes are multiplied by this: 1, or 2 for check */
  double error, stiffness;     /* dL/d of the heuristics */
} gq_pullback;
/* From the start again, with a gradient of zero (grad/pullback.c). */
int gq_pullback_again(gq_pullback *b);
int gq_pullback_clear(gq_pullback *b);   /* the parameters' gradients alone */
/* x . f(t, z) of packed states; the slope goes into `slope`. */
int gq_slope_dot(gq_pullback *b, double t, void *z, const void *x, void *slope, double *xf);
/* A jump that moves with time k leaves more to the slope before it and less to that after: dL/dt_k += a . (f- - f+). */
int gq_jump_gradient(gq_pullback *b, const gq_attempt *at, int k, void *z, const void *a, void *slope);

/* gq_odeint and its backward pass (grad/audit.c audits them) without audit; undo: gives back what the solve made. */
int gq_solve(const gq_problem *p, const gq_ode_options *o, bool partial, gq_tensor **z, gq_info *info,
             gq_solution **sol);
int gq_solve_undo(const gq_problem *p, gq_tensor **z, gq_solution **sol, int status);
int gq_solve_back(gq_solution *s, gq_tensor *gz_, const double sums[2], gq_tensor **gz0, gq_tensor **gt,
                  gq_tensor **gcapture);

/* A captured number that is not finite explains a failure better than the state does. */
int gq_explain(const gq_solution *s, int status);
int gq_interrupted_back(double t); /* GQ_EINTERRUPT, with a message that names t */
/* check.c: may this be solved; may derivatives of its derivatives be asked for? */
int gq_problem_check(const gq_problem *p, const gq_ode_options *o);
int gq_check_switches(const gq_problem *p);   /* switches.c: are its jumps where it says? */
bool gq_switches_by_state(const gq_problem *p);   /* might f jump where the state passes something? */
int gq_noise_check(const gq_problem *p, const gq_ode_options *o);
int gq_solution_check_again(const gq_solution *s);
int gq_check_finite(const gq_tensor *packed, const char *what);
/* forward.c: the solution at its times, and what s->keeps says of its steps; *k: so many times are reached. p_: whose
** event may end it, or NULL. */
int gq_forward(gq_solution *s, const gq_problem *p_, int *k);
static inline bool gq_keeps_states(const gq_solution *s) { return s->keeps & GQ_STEP_STATES; }
/* A training loop's collector frees solutions late: their states serve the next solve at once. */
void gq_solution_give_back(gq_solution *s);
/* The states, solved for again if they have gone back. */
int gq_solution_records(gq_solution *s);

static inline void *gq_at_time(const gq_solution *s, gq_tensor *z, int k) {
  return (char *)gq_tensor_data(z) + (size_t)k * gq_part_bytes(s->plan->field);
}

/* z at measurement time k as the slices hold states: in `room`, unless it is so already. */
static inline void *gq_packed_at(const gq_solution *s, int k, void *room) {
  void *z = gq_at_time(s, s->z, k);
  if (gq_field_plain(s->plan->field)) return z;
  gq_field_pack(s->plan->field, z, room);
  return room;
}

/* Where steps evaluate f: anywhere if they may go past the last time. */
static inline gq_jumps gq_solution_jumps(const gq_solution *s) {
  return (gq_jumps){ s->jumps, s->njumps, !s->o.overshoot, s->t[0], s->last };
}

/* Is f discontinuous there? */
static inline bool gq_at_jump(const gq_solution *s, double t) {
  for (int i = 0; i < s->njumps; i++)
    if (s->jumps[i] == t) return true;
  return false;
}

/* Does the step's end move with the time that it was clamped to? Stages behind the last time are evaluated there, so that
** the few numbers of a step to it tell less of that time than the slope there does. */
static inline bool gq_step_moves(const gq_solution *s, const gq_step_record *r) {
  bool held = s->plan->field->timed && gq_tableau_reach(s->plan->forward.m) > 1 && !s->o.overshoot;
  return r->stop >= 0 && !(held && s->t[r->stop] == s->last);
}

/* Steps that a backward solve may take. It stops at each measurement time: more times than steps alone end none. */
static inline int64_t gq_back_budget(const gq_solution *s) {
  int64_t stops = s->nt - 1, most = s->o.back_max_steps;
  return stops > most ? 4 * stops : most;
}

/* Does the jump at time k move with it? */
static inline bool gq_jump_moves(const gq_solution *s, int k) {
  return s->jumps_move && s->t[k] != s->t[0] && s->t[k] != s->t[s->nt - 1] && gq_at_jump(s, s->t[k]);
}

/* Where f is evaluated for the slope that moves z along with time k: before a jump, but after it at the start. */
static inline double gq_slope_time(const gq_solution *s, const gq_attempt *a, int k) {
  double dir = s->t[s->nt - 1] < s->t[0] ? -1 : 1;
  return gq_attempt_begin(a, s->t[k], s->t[k] == s->t[0] ? dir : -dir);
}

#endif
