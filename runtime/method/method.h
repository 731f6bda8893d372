/*
** method.h -- methods as rows of a table.
*/
#ifndef GQ_METHOD_H
#define GQ_METHOD_H

#include "../base/base.h"

/* How a step is built (method/step.c; method/adams.c for the last two, which hang on the steps before; method/implicit.c for
** Runge-Kutta methods that are implicit). ALF, reversible Heun and leapfrog carry a slope of their own and can be
** inverted. */
typedef enum gq_method_kind {
  GQ_RUNGE_KUTTA,
  GQ_ALF,
  GQ_REVERSIBLE_HEUN,
  GQ_LEAPFROG,
  GQ_ADAMS_BASHFORTH,
  GQ_ADAMS_MOULTON
} gq_method_kind;

/* A method: one row of method/tableaux.def. For the other kinds than Runge-Kutta the row tells how the step's
** result, error and interpolant hang on its slopes: y1 = y0 + h sum_i b_i k_i holds for them too. */
typedef struct gq_tableau {
  const char *name;            /* "dopri5" */
  gq_method_kind kind;
  int stages;
  int order;                   /* of the solution that is kept */
  int error_order;             /* exponent of the controller is -1 / error_order; 0: fixed step only */
  int dense_order;             /* order of the interpolant */
  const double *c;             /* [stages] */
  bool implicit;               /* the diagonal is not zero, but in the first row */
  const double *a;             /* [stages][stages], strictly lower, or lower */
  const double *b;             /* [stages] */
  const double *e;             /* [stages] b - bhat, or NULL */
  const double *e3;            /* [stages] second estimate of DOP853, or NULL */
  int end;                     /* stage that is the slope at the end (FSAL); stages: none is */
  int slopes;                  /* k_i an interpolant uses: the stages, and the end slope if none of them is it */
  int used;                    /* stages before the end slope; those after it serve the interpolant alone */
  int dense_degree;
  const double *d;             /* [slopes][dense_degree]: y(theta) = y0 + h sum_i k_i sum_j d[i][j] theta^(j+1) */
  const char *source;          /* paper and page */
} gq_tableau;

#define GQ_MAXSTAGES 17        /* slopes of the longest method */
extern const int gq_ntableaux;
const gq_tableau *gq_tableau_get(int i);                   /* NULL outside 0..gq_ntableaux-1 */
const gq_tableau *gq_tableau_find(const char *name);       /* NULL: unknown */
bool gq_tableau_fsal(const gq_tableau *m);                 /* a stage is the slope at the end: derived, not declared */
/* w[i]: weight of h k_i in y(theta) - y0, i < slopes; and its derivative in theta. */
void gq_tableau_weights(const gq_tableau *m, double theta, double *w);
void gq_tableau_slopes(const gq_tableau *m, double theta, double *w);
static inline bool gq_method_reversible(const gq_tableau *m) {
  return m->kind == GQ_ALF || m->kind == GQ_REVERSIBLE_HEUN || m->kind == GQ_LEAPFROG;
}
/* Multistep. gq_tableau_find gives one of order 4 at most; gq_adams_method the same with another highest order, which is
** the order on a fixed grid: from 1 (implicit 2) to 12, NULL otherwise. */
enum { GQ_ADAMS_MOST = 12, GQ_ADAMS_FIXED = 4 /* the default on a fixed grid */ };
static inline bool gq_method_adams(const gq_tableau *m) {
  return m->kind == GQ_ADAMS_BASHFORTH || m->kind == GQ_ADAMS_MOULTON;
}
const gq_tableau *gq_adams_method(const gq_tableau *m, int max_order);
void gq_adams_describe(gq_method_kind kind, int max_order, gq_tableau *m);
/* Stops at every measurement time: what it carries is no slope to interpolate with. */
static inline bool gq_method_stops(const gq_tableau *m) { return m->kind == GQ_ALF || m->kind == GQ_REVERSIBLE_HEUN; }

#endif
