/*
** sde.h -- Brownian paths as functions of key and time, and forward SDE solvers.
** dz = f(t, z) dt + g(t, z) dW (Ito) or o dW (Stratonovich).
*/
#ifndef GQ_SDE_H
#define GQ_SDE_H

#include "../exec/exec.h"

/* W on [t0, t1] for `count` independent components: a bridge tree over Philox, keyed by
** (seed, tree node, component); any query order gives the same path. */
typedef struct gq_brownian gq_brownian;
int gq_brownian_new(double t0, double t1, gq_shape shape, gq_dtype d, uint64_t seed, double tol, gq_brownian **b);
void gq_brownian_free(gq_brownian *b_);
gq_shape gq_brownian_shape(const gq_brownian *b);
double gq_brownian_t0(const gq_brownian *b);
double gq_brownian_t1(const gq_brownian *b);
int gq_brownian_value(gq_brownian *b, double t, double *w);               /* W(t) - W(t0), count numbers */
int gq_brownian_increment(gq_brownian *b, double s, double t, double *dw);/* W(t) - W(s) */

typedef enum gq_noise { GQ_DIAGONAL, GQ_SCALAR, GQ_ADDITIVE, GQ_GENERAL } gq_noise;
typedef enum gq_calculus { GQ_STRATONOVICH, GQ_ITO } gq_calculus;

typedef struct gq_sde_method { const char *name; gq_calculus calculus; const char *source; } gq_sde_method;
extern const gq_sde_method gq_sde_methods[];
extern const int gq_nsde_methods;

typedef struct gq_sde_problem {
  const gq_graph *fg;          /* inputs t (0-d), z, captures; outputs drift, diffusion */
  gq_tensor *z0;
  int ncapture;
  gq_tensor *const *capture;
  int nt;
  const double *t;             /* increasing */
  gq_noise noise;
  gq_calculus calculus;
} gq_sde_problem;

typedef struct gq_sde_info { int status; double t_reached; int64_t nfe, steps; size_t peak_bytes; } gq_sde_info;

/* Fixed steps dt (the last before each measurement time shortened); z: {nt, shape of z0}.
** diagonal: W has z's shape; scalar: {rows, 1}-like shape checked; additive, general: diffusion
** {.., d, m}, W {.., m}. */
int gq_sdeint(const gq_sde_problem *p, const gq_sde_method *m, double dt, gq_brownian *w,
              gq_tensor **z, gq_sde_info *info);

#endif
