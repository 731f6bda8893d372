/*
** solution.h -- what a forward solve leaves for its backward pass.
*/
#ifndef GQ_SOLUTION_H
#define GQ_SOLUTION_H

#include "plan.h"

struct gq_solution {
  gq_plan *plan;
  gq_binding *bind;
  gq_ode_options o;
  bool z0_grad, t_grad;
  int nt;
  double *t;                   /* [nt] */
  gq_tensor *z0, *z;           /* z: {nt, ...} */
  uint64_t version;            /* of z's storage when it was solved */
  gq_kept *records;            /* last first: the end state, then the accepted steps */
  int64_t nrecords;
  double *knots;               /* moments: where the accepted steps began, and the end */
  int nknots, knots_room;
  bool trivial;                /* nothing to integrate: all times equal, or an empty state */
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
} gq_pullback;

int gq_direct_backward(gq_pullback *b);          /* grad/direct.c */
int gq_continuous_backward(gq_pullback *b);      /* grad/continuous.c: adjoint, seminorm, gq */
int gq_collocation_backward(gq_pullback *b);     /* grad/gqc.c */

static inline void *gq_at_time(const gq_solution *s, gq_tensor *z, int k) {
  return (char *)gq_tensor_data(z) + (size_t)k * gq_part_bytes(s->plan->field);
}

double gq_dot(gq_dtype d, size_t n, const void *x, const void *y);

#endif
