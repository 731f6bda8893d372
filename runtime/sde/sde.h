/*
** sde.h -- Brownian paths as functions of key and time, and forward SDE solvers.
** dz = f(t, z) dt + g(t, z) dW (Ito) or o dW (Stratonovich).
*/
#ifndef GQ_SDE_H
#define GQ_SDE_H

#include "../exec/exec.h"

/* W on [t0, t1] for the numbers of `shape`: a bridge tree over Philox, keyed by (seed, tree node,
** component); any query order gives the same path. tol: widest leaf of the tree, to be well below
** the steps taken; 0: 2^-18 of the interval. Values at dyadic times do not depend on it. */
typedef struct gq_brownian gq_brownian;
int gq_brownian_new(double t0, double t1, gq_shape shape, gq_dtype d, uint64_t seed, double tol, gq_brownian **b);
void gq_brownian_free(gq_brownian *b_);
gq_shape gq_brownian_shape(const gq_brownian *b);
gq_dtype gq_brownian_dtype(const gq_brownian *b);           /* what it is cast to; values are doubles */
uint64_t gq_brownian_seed(const gq_brownian *b);
double gq_brownian_t0(const gq_brownian *b);
double gq_brownian_t1(const gq_brownian *b);
double gq_brownian_tol(const gq_brownian *b);               /* width of a leaf */
double gq_brownian_slack(const gq_brownian *b);             /* how far a time may miss an end by rounding: it is that end */
int gq_brownian_value(gq_brownian *b, double t, double *w);               /* W(t) - W(t0) */
int gq_brownian_increment(gq_brownian *b, double s, double t, double *dw);/* W(t) - W(s) */

/* Coefficients xi of eq. (15): {cosines, numel(shape)} normals; row i is a function of (seed, i),
** so more cosines refine the same path. */
void gq_cosines(uint64_t seed, int cosines, size_t n, double *xi);

typedef enum gq_noise { GQ_DIAGONAL, GQ_SCALAR, GQ_ADDITIVE, GQ_GENERAL, GQ_NNOISE } gq_noise;
extern const char *const gq_noise_names[GQ_NNOISE + 1];
typedef enum gq_calculus { GQ_STRATONOVICH, GQ_ITO } gq_calculus;
extern const char *const gq_calculus_names[];

typedef struct gq_sde_method {
  const char *name;
  gq_calculus calculus;        /* which solution it converges to */
  int parts;                   /* of the state that a step carries: z, or (z, zhat, f, g) */
  int nfe;                     /* evaluations a step */
  bool middle;                 /* the second stage is at t + h / 2, not t + h */
  const char *source;
} gq_sde_method;
extern const gq_sde_method gq_sde_methods[];
extern const int gq_nsde_methods;
const gq_sde_method *gq_sde_method_find(const char *name);  /* NULL: unknown */

typedef struct gq_sde_problem {
  const gq_graph *fg;          /* inputs t (0-d), z, captures; outputs drift, diffusion */
  gq_tensor *z0;
  int ncapture;
  gq_tensor *const *capture;
  int nt;
  const double *t;             /* increasing, repeats allowed */
  gq_noise noise;
  gq_calculus calculus;
} gq_sde_problem;

typedef struct gq_sde_info { int status; double t_reached; int64_t nfe, steps; size_t peak_bytes; } gq_sde_info;

/* The shape of W. diagonal: z's; scalar: z's with 1 as last dimension; additive and general, where
** the diffusion is {.., d, m} for z {.., d} or {d, m} for all rows: {.., m}. */
int gq_sde_noise_shape(const gq_sde_problem *p, gq_shape *w);
/* Fixed steps dt (the last before each measurement time shortened); z: {nt, shape of z0}.
** nfe counts evaluations of drift and diffusion together. */
int gq_sdeint(const gq_sde_problem *p, const gq_sde_method *m, double dt, gq_brownian *w,
              gq_tensor **z, gq_sde_info *info);

#endif
