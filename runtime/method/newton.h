/*
** newton.h -- the linear systems of implicit stages: one for every row of the state if those do not act on each
** other, else one of all numbers; Jacobians from the graph, factorised by LAPACK. In float64 whatever the state is.
*/
#ifndef GQ_NEWTON_H
#define GQ_NEWTON_H

#include "../field/evaluate.h"

enum { GQ_MAX_SYSTEM = 4096 };   /* numbers in a row, or in all if rows act on each other */

/* What is solved for at once, compiled. */
typedef struct gq_jacobian {
  gq_evaluator at;             /* z, v -> f (phase 0), -v'df/dz (phase 1) */
  int64_t rows;                /* that do not act on each other, */
  int dim;                     /* of so many numbers; or one of all */
} gq_jacobian;
/* For the method `name`, in matrices of at most `most` bytes. */
int gq_jacobian_new(gq_jacobian *j, gq_scratch *m, const char *name, size_t most);

typedef struct gq_newton {
  const gq_field *field;
  const gq_evaluator *at;
  int64_t rows;
  int dim;
  double *jacobian;            /* [rows][dim][dim] df_i/dz_j at i dim + j */
  double *lu[GQ_MAXPARTS];     /* [rows][dim][dim] factors of 1 + scale J' as LAPACK stores matrices */
  int *pivot[GQ_MAXPARTS];     /* [rows][dim] */
  double scale[GQ_MAXPARTS];   /* NaN: not factorised */
  void *unit, *column, *f;     /* states: 1 in one number of every row, what it gives; df/dt, not used */
  size_t bytes;
  void *block, *states;
} gq_newton;

int gq_newton_init(gq_newton *n, const gq_field *f, const gq_jacobian *j, int systems);
void gq_newton_done(gq_newton *n);
/* J at t, z (packed): one forward and dim backward passes over all rows at once. Forgets the factors. */
int gq_newton_jacobian(gq_newton *n, const gq_binding *b, double t, void *z);
/* 1 + scale J' of every row, unless that is there; or anew of some. */
void gq_newton_factor(gq_newton *n, int system, double scale, const bool *some_);
/* x <- (1 + scale J)^-1 x for one row, or (1 + scale J')^-1 x. False: singular, or J is not finite. */
bool gq_newton_solve(const gq_newton *n, int system, bool transposed, int64_t row, double *x);
/* Numbers of a row of a packed state. */
void gq_newton_load(const gq_newton *n, int64_t row, const void *state, double *x);
void gq_newton_store(const gq_newton *n, int64_t row, const double *x, void *state);

#endif
