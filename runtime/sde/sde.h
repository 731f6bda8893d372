/*
** sde.h -- Brownian paths as functions of key and time. An SDE, dz = f(t, z) dt + G(t, z) dW (Ito) or o dW
** (Stratonovich), is solved along one by ode/, where gq_problem has its noise.
*/
#ifndef GQ_SDE_H
#define GQ_SDE_H

#include "../exec/exec.h"

/* W on [t0, t1] for the numbers of `shape`: a bridge tree over Philox, keyed by (seed, tree node,
** component); any query order gives the same path. tol: widest leaf of the tree, to be well below
** the steps taken; 0: 2^-18 of the interval. Values at dyadic times do not depend on it. */
typedef struct gq_brownian gq_brownian;
/* What it knows of an interval beside W (areas.c): nothing, H, H and K; or H and an approximation of the Levy areas. */
typedef enum gq_levy { GQ_LEVY_NONE, GQ_LEVY_SPACE_TIME, GQ_LEVY_SPACE_TIME_TIME, GQ_LEVY_DAVIE, GQ_LEVY_FOSTER } gq_levy;
extern const char *const gq_levy_names[];                   /* NULL ends them */
int gq_brownian_new(double t0, double t1, gq_shape shape, gq_dtype d, uint64_t seed, double tol, gq_levy levy,
                    gq_brownian **b);
/* Of rows first .. first + count of its shape's first dimension the same path, with memory of its own: threads may ask
** it apart. */
int gq_brownian_rows(const gq_brownian *b, int64_t first, int64_t count, gq_brownian **out);
/* Over [t0, t1] moment m (W, H, K) is x instead of drawn; before anything is asked. */
int gq_brownian_pin(gq_brownian *b, int m, const double *x);
gq_brownian *gq_brownian_ref(gq_brownian *b);
void gq_brownian_free(gq_brownian *b_);                     /* one reference */
gq_shape gq_brownian_shape(const gq_brownian *b);
gq_dtype gq_brownian_dtype(const gq_brownian *b);           /* what it is cast to; values are doubles */
uint64_t gq_brownian_seed(const gq_brownian *b);
double gq_brownian_t0(const gq_brownian *b);
double gq_brownian_t1(const gq_brownian *b);
double gq_brownian_tol(const gq_brownian *b);               /* width of a leaf */
double gq_brownian_slack(const gq_brownian *b);             /* how far a time may miss an end by rounding: it is that end */
int gq_brownian_value(gq_brownian *b, double t, double *w);               /* W(t) - W(t0) */
int gq_brownian_increment(gq_brownian *b, double s, double t, double *dw);/* W(t) - W(s) */
/* Of few steps in a row, n, of a path that knows W alone: sign (W(t[i + 1]) - W(t[i])), rounded to d, to out[i]. */
int gq_brownian_steps(gq_brownian *b, int n, const double *t, double sign, gq_dtype d, void *const *out);
/* The same of n at once: W(t[i]) - W(s[i]), of t0 where s is NULL. */
int gq_brownian_many(gq_brownian *b, int n, const double *s_, const double *t, double *out);
/* Of a path that knows W alone, drawn as a whole: its tree, with which a device makes increments itself; s and t as they
** are there. */
bool gq_brownian_plain(const gq_brownian *b);
int gq_brownian_tree(const gq_brownian *b, double *s, double *t, gq_bridge *tree);
gq_levy gq_brownian_levy(const gq_brownian *b);
int gq_brownian_moments(const gq_brownian *b);              /* 1: W alone, 2: and H, 3: and K */
/* Those over [s, t], s <= t: [moments][numel] */
int gq_brownian_areas(gq_brownian *b, double s, double t, double *x);
/* The Levy areas 1/2 int (W_i dW_j - W_j dW_i) over [s, t] of W {.., m}, approximated from w and h, its W and H there:
** {.., m, m}. Not additive: they belong to this interval. */
int gq_brownian_levy_areas(gq_brownian *b, double s, double t, const double *w, const double *h, double *area);
/* A solve with steps of dt reads Levy areas: an error where one of other steps has. */
int gq_brownian_grid(gq_brownian *b, double dt);

/* Coefficients xi of eq. (15): {cosines, numel(shape)} normals; row i is a function of (seed, i),
** so more cosines refine the same path. */
void gq_cosines(uint64_t seed, int cosines, size_t n, double *xi);

#endif
