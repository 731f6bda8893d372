/*
** method.h -- methods as rows of a table.
*/
#ifndef GQ_METHOD_H
#define GQ_METHOD_H

#include "../base/base.h"
#include "../field/diffusion.h"
#include "control.h"

struct gq_attempt;
struct gq_builder;
struct gq_stepjob;
struct gq_field;
struct gq_pulled;
struct gq_stepper;
struct gq_system;

/* How steps are taken, and what methods of that class can do. NULL: nothing to do. */
typedef struct gq_stepclass {
  bool program;                /* a step is a program: it has a derivative, and estimates of itself */
  bool any_system;             /* several parts, inputs given along a path, products: backward solves take them */
  bool lanes;                  /* samples may have steps of their own */
  bool stiff;                  /* for what decays fast, which would explode if it were solved backwards */
  /* The stepper of a system that `make` makes for each class of the field. */
  int (*build)(struct gq_stepper *st, const struct gq_field *f,
               int (*make)(const struct gq_field *, int, const void *, struct gq_system *), const void *arg);
  int (*init)(struct gq_attempt *a);       /* memory of its own, a->own */
  void (*done)(struct gq_attempt *a);
  /* Try the attempt's step: y1, f1, x1. *ratio: its error in tolerances (0: fixed steps), NaN if something was not
  ** finite, infinite if a stage did not converge. */
  int (*attempt)(struct gq_attempt *a, gq_control *c, double *ratio);
  /* May a device make many attempts by itself? NULL: never. And what it has to know of them. */
  bool (*runs_ahead)(const struct gq_attempt *a);
  void (*job)(struct gq_attempt *a, struct gq_stepjob *c);
  void (*behind)(struct gq_attempt *a, struct gq_stepjob *c);  /* phase 1 of steps, whose records are gq_behind */
  /* Later phases of a step: 0 the step again, 1 its interpolant and products, 2 its derivative, then as in step.h. */
  int (*phase)(struct gq_attempt *a, int phase);
  void *(*slope)(const struct gq_attempt *a, int i, int part, int slice);
  /* The step taken ends at t1 already, at y1 of its interpolant; NULL: a shorter step is tried like any other. */
  int (*shorten)(struct gq_attempt *a, double t1, const void *y1);
  /* Slopes, part bytes apart, that a record kept of a step; NULL: it keeps activations. */
  void (*load)(struct gq_attempt *a, const char *slope, size_t part);
  void (*moved)(struct gq_attempt *a);                      /* y and f are others now */
  void (*restart)(struct gq_attempt *a, gq_control *c);     /* a smooth piece begins, with y and f there */
} gq_stepclass;

/* What a method carries besides z from step to step; such methods can be inverted. A row of method/reversible.c. */
typedef struct gq_tuple {
  void (*step)(struct gq_builder *b, double sign);   /* there (1) and back (-1) */
  int (*fits)(struct gq_builder *b);                 /* are the dynamics of its form? */
  /* The inverse knows the derivative of the step too: what that is of, and what is left to do after. */
  void (*pulled)(struct gq_builder *b, struct gq_pulled *p);
  int (*rest)(struct gq_builder *b, struct gq_pulled *p);
  bool late;                   /* that is of the step before: it reads what the inverse of the step after has left */
  bool extra;                  /* a second solution */
  bool stops;                  /* at every measurement time: what is carried is no slope to interpolate with */
  bool damped;                 /* by eta */
  bool halves;                 /* the state is [x, v] */
} gq_tuple;

typedef struct gq_tableau gq_tableau;

/* For which noise: each for those of the ones before too. */
typedef enum gq_adapts { GQ_ADAPTS_NOT, GQ_ADAPTS_ADDITIVE, GQ_ADAPTS_COMMUTING, GQ_ADAPTS_ALL } gq_adapts;

/* What makes a method one for SDEs. A row of method/noise.c. */
typedef struct gq_scheme {
  gq_calculus calculus;        /* of the SDEs that its step is written for; */
  bool both;                   /* others are converted, which leaves it the method that it is */
  int (*step)(struct gq_builder *b);           /* NULL: that of its tuple */
  bool backwards;              /* it takes systems that give f h + G dW alone: backward solves */
  int moments;                 /* of the path: W, H, K; */
  bool areas;                  /* and, of general noise, Levy areas */
  double strong[GQ_NNOISE];    /* strong order by the kind of noise; 0: it does not converge */
  double weak;
  gq_adapts adapts;            /* it estimates its error, and steps that adapt to that converge; */
  bool halves;                 /* by two half steps */
  bool langevin;               /* of Langevin SDEs alone (langevin.c) */
} gq_scheme;

/* A method whose steps hang on those before. A row of method/adams.c. */
typedef struct gq_multistep {
  const char *kind;
  bool corrects;
  int least;                   /* lowest highest order */
  const gq_tableau *(*of_order)(int max_order);
} gq_multistep;

/* A method: one row of method/tableaux.def. For the other kinds than Runge-Kutta the row tells how the step's
** result, error and interpolant hang on its slopes: y1 = y0 + h sum_i b_i k_i holds for them too. */
struct gq_tableau {
  const char *name;            /* "dopri5" */
  const char *kind;            /* "runge-kutta", or what else */
  const gq_stepclass *steps;
  const gq_tuple *tuple;       /* or NULL */
  const gq_multistep *multistep;   /* or NULL */
  const gq_scheme *scheme;     /* or NULL */
  int stages;
  int order;                   /* of the solution that is kept */
  int first_order;             /* that the first step is chosen by */
  int error_order;             /* exponent of the controller is -1 / error_order; 0: fixed step only */
  int dense_order;             /* order of the interpolant */
  const double *c;             /* [stages] */
  const double *a;             /* [stages][stages], strictly lower, or lower: implicit, but in the first row */
  const double *b;             /* [stages] */
  const double *e;             /* [stages] b - bhat, or NULL */
  const double *e3;            /* [stages] second estimate of DOP853, or NULL */
  int end;                     /* stage that is the slope at the end (FSAL); stages: none is */
  int slopes;                  /* k_i an interpolant uses: the stages, and the end slope if none of them is it */
  int used;                    /* stages before the end slope; those after it serve the interpolant alone */
  int dense_degree;
  const double *d;             /* [slopes][dense_degree]: y(theta) = y0 + h sum_i k_i sum_j d[i][j] theta^(j+1) */
  const char *source;          /* paper and page */
};

#define GQ_MAXSTAGES 17        /* slopes of the longest method */
extern const int gq_ntableaux;
const gq_tableau *gq_tableau_get(int i);                   /* NULL outside 0..gq_ntableaux-1 */
const gq_tableau *gq_tableau_find(const char *name);       /* NULL: unknown */
/* Those for SDEs are apart: some share a name with one for ODEs. */
extern const int gq_nschemes;
const gq_tableau *gq_scheme_get(int i);                    /* NULL outside 0..gq_nschemes-1 */
const gq_tableau *gq_scheme_find(const char *name);        /* NULL: unknown */
double gq_tableau_reach(const gq_tableau *m);              /* of its stages, in steps: 1 or more */
bool gq_tableau_fsal(const gq_tableau *m);                 /* a stage is the slope at the end: derived, not declared */
/* w[i]: weight of h k_i in y(theta) - y0, i < slopes; and its derivative in theta. */
void gq_tableau_weights(const gq_tableau *m, double theta, double *w);
void gq_tableau_slopes(const gq_tableau *m, double theta, double *w);
/* When slope i is of, in steps; and the first slope of that time. */
static inline double gq_tableau_time(const gq_tableau *m, int i) { return i == m->end ? 1 : m->c[i]; }
static inline int gq_tableau_twin(const gq_tableau *m, int i) {
  int j = 0;
  while (j < i && gq_tableau_time(m, j) != gq_tableau_time(m, i)) j++;
  return j;
}
static inline bool gq_scheme_solves(const gq_tableau *m, gq_calculus c) {
  return m->scheme->both || m->scheme->calculus == c;
}
static inline bool gq_scheme_areas(const gq_tableau *m, gq_noise noise) {
  return m->scheme->areas && noise == GQ_GENERAL;
}
/* Steps that adapt to what they see of the path converge, for this noise. */
static inline bool gq_scheme_adapts(const gq_tableau *m, gq_noise noise) {
  gq_adapts least = noise == GQ_ADDITIVE  ? GQ_ADAPTS_ADDITIVE
                    : noise == GQ_GENERAL ? GQ_ADAPTS_ALL
                                          : GQ_ADAPTS_COMMUTING;
  return m->scheme->strong[noise] > 0 && m->scheme->adapts >= least;
}
/* A backward solve is a Stratonovich SDE of z and a. */
static inline bool gq_scheme_backwards(const gq_tableau *m) {
  return m->scheme->backwards && gq_scheme_solves(m, GQ_STRATONOVICH);
}
static inline bool gq_method_reversible(const gq_tableau *m) { return m->tuple; }
static inline bool gq_method_stops(const gq_tableau *m) { return m->scheme || (m->tuple && m->tuple->stops); }
/* One of its steps can be run again from y and a slope: it hangs on no step before and carries no more. */
static inline bool gq_method_reruns(const gq_tableau *m) { return !m->multistep && !(m->tuple && m->tuple->extra); }
/* Multistep. gq_tableau_find gives one of order 4 at most; of_order the same with another highest order, which is
** the order on a fixed grid: up to 12, NULL beyond. */
enum { GQ_ADAMS_MOST = 12, GQ_ADAMS_FIXED = 4 /* the default on a fixed grid */ };

#endif
