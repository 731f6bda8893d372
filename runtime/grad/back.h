/*
** back.h -- one way back by the adjoint equation: continuous.c solves it, integral.c takes the integral of a'df/dtheta.
*/
#ifndef GQ_GRAD_BACK_H
#define GQ_GRAD_BACK_H

#include "kronrod.h"
#include "moments.h"
#include "nodes.h"

/* Fields: what one way back keeps from step to step, each as some kind of integral or trajectory asks for it. */
typedef struct gq_back {
  gq_pullback *b;
  gq_solution *s;
  const gq_field *f;
  gq_walk w;
  void *block;
  size_t part, n;
  bool reverse;
  int ia;                      /* which part a is */
  gq_trajectory z;             /* where it is not solved backwards */
  gq_trail trail;              /* the same for a device, */
  void *trail_block;
  gq_panel panel;              /* what is solved between two restarts: one interval, or several by moments */
  bool *single;                /* [nt] intervals down from there are in no panel with others: */
  bool bends;                  /* df/dtheta was seen to bend within a panel; moments are of what is smooth there */
  int64_t forced_cost;         /* evaluations that the last panel with a forcing took */
  bool started;
  void *stored;                /* z at a measurement time, packed */
  void *force;                 /* the forcing where a panel begins */
  void *scratch;               /* z of a dense trajectory, the end of an overshooting step */
  double time;                 /* adjoint: the part in t, for its error norm */
  /* the integral by nodes */
  bool gq;                     /* nodes are to be collected */
  gq_nodebuffer nodes;
  gq_rule rule;
  int next;                    /* next node of the interval */
  gq_grads weighted;           /* probes of the products by Runge-Kutta weights, for the quadrature's error */
  gq_window steps;             /* where the integral asks for the steps of a whole interval */
  gq_kronrod kronrod;
  bool pieces;                 /* it is refined, window by window of steps: */
  double window;               /* where the present one begins */
  int judged;                  /* nodes of the rule in place of which pieces are refined; 0: that is not known */
  bool kept;                   /* the steps so far are there, should it be refined after all: */
  struct gq_run {
    double from, to;
    int panel[2];              /* from, to */
    int steps, nodes;          /* nodes: of the rule */
    bool forced, serves;
  } *run;                      /* [nruns], of one interval each */
  int nruns, run_room;
  int serve;                   /* runs whose nodes stay */
} gq_back;

/* Is the integral adaptive, over the interval's steps when all of them are there? */
static inline bool gq_back_adaptive(const gq_back *k) {
  return k->gq && k->s->o.engine->integral == GQ_INTEGRAL_ADAPTIVE;
}
/* RMS of a solution's states at times from i on, as many as are told at once; returns how many. */
enum { GQ_BACK_TOLD = 64 };
static inline int gq_back_rms(const gq_back *k, gq_tensor *z, int i, double out[GQ_BACK_TOLD]) {
  int n = k->s->nt - i < GQ_BACK_TOLD ? k->s->nt - i : GQ_BACK_TOLD;
  k->f->on->vec->rms(k->f->dtype, n, k->n, k->n, gq_at_time(k->s, z, i), out);
  return n;
}

#endif
