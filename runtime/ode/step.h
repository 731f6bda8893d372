/*
** step.h -- one step of a method over any system, as a graph. What a step maps is a tuple: the parts y, the
** slopes f that are carried from step to step, and extra parts x (reversible Heun's second solution).
**
** A system is what is solved: the field itself (one part, z), or the field with its adjoint
** (parts z and a, or a alone where z(t) is given), and products a'df/dtheta to be integrated.
*/
#ifndef GQ_STEP_H
#define GQ_STEP_H

#include "field.h"
#include "ode.h"

#define GQ_MAXPARTS 2
#define GQ_MAXGIVEN 2

/* Sums of squares over a step that its heuristics are made of: of the error estimate, of dopri8's second one, of the
** difference of two slopes at the step's end and of that of their states. See heuristic.h. */
enum { GQ_SUM_ERROR, GQ_SUM_ERROR3, GQ_SUM_SLOPES, GQ_SUM_STATES, GQ_SUMS };

typedef struct gq_system {
  gq_graph *g;                 /* inputs: t, parts, given, boundary values; outputs: derivatives, products */
  bool lent;                   /* g belongs to a field */
  int parts;
  int given;                   /* state-shaped inputs that are known functions of t: z, then the forcing of a */
  int nq;                      /* products */
  bool columns;                /* of nodes: points side by side as columns, not in front */
  int last;                    /* the axis of a part that is the state's last dimension (leapfrog) */
  int second;                  /* outputs from this one on are of phase 1; 0: none */
  int64_t lanes;               /* rows at times of their own: t is {lanes}; 0: one time for all */
  bool front;                  /* lanes are the first dim of a part, otherwise the last */
  int late;                    /* phase of the products: 1 where a is not known before the rest has run */
  int *of;                     /* [nq] boundary value of product i; -1: time. Of nodes then [probes]: of probe i */
} gq_system;

/* dz/dt = f. */
int gq_system_forward(const gq_field *f, int cls, gq_system *s);
typedef enum gq_products { GQ_PRODUCTS_NONE, GQ_PRODUCTS_VECTORS, GQ_PRODUCTS_ALL } gq_products;
typedef struct gq_adjointkind {
  bool path;                   /* z(t) is given, a alone is solved */
  bool forced;                 /* a' = -a'df/dz + q with q(t) given */
  gq_products products;        /* a'df/dtheta of the wanted boundary values, or of those that are vectors: biases */
  bool time;                   /* and a'df/dt */
} gq_adjointkind;
/* (z, a)' = (f, -a'df/dz). */
int gq_system_adjoint(const gq_field *f, int cls, const gq_adjointkind *k, gq_system *s);
/* No equation: inputs t, z, a, boundary values; outputs a'df/dz and the products. */
int gq_system_pull(const gq_field *f, int cls, bool time, gq_system *s);
/* The products alone, of rows side by side (gq_field_lanes): inputs t {lanes[1]}, z, a, boundary values. */
int gq_system_points(const gq_field *f, gq_system *s);
/* The products at n points at once: inputs t {n}, z {n, ...}, a {n, ...} (or, columns, {.., n rows}), boundary
** values. probes: before them the products of every vector (or number) that are sums over rows, by point: {.., n}
** (columns) or {n, ..}. */
int gq_system_nodes(const gq_field *f, int cls, int64_t n, bool probes, gq_system *s);
/* The same and, before, the Jacobian by rows of `dim` numbers: outputs df_i/dz of z's shape for i < dim. */
int gq_system_jacobian(const gq_field *f, int cls, int64_t n, int64_t dim, gq_system *s);
void gq_system_done(gq_system *s);

typedef struct gq_stepkind {
  const gq_tableau *m;
  bool adaptive;               /* error estimates wanted */
  bool max_norm;
  bool dense;                  /* slopes are kept for the interpolant */
  bool product_error;          /* products and their errors in phase 0 (adjoint) */
  bool product_dense;          /* product weights may be the interpolant's (overshoot) */
  bool inverse;                /* from the end of the step [t, t + h] to its start: y, f, x are those of the end */
  bool error, stiffness;       /* sums for heuristics; forward systems only */
  double eta;                  /* damping of alf */
                               /* with pull, alf: phase 2 is the forward step's derivative there, at one evaluation for both */
  bool pull;                   /* phase 2: derivative of the step (direct; forward systems only) */
  bool pull_time;
} gq_stepkind;

/* Where things are among a step program's inputs and outputs; -1: absent.
** phase 0: an attempt; phase 1: what only an accepted step needs; phase 2: the step's vjp. */
typedef struct gq_steplayout {
  int parts, nq, slopes, given, extra;
  bool carry;                  /* the slope at the start is an input, that at the end an output */
  int nfe, nfe_dense;          /* evaluations in phase 0 and in phase 1 */
  int nin, t, h, rtol, atol, y, f, x, path, wq, bv, cy, cf, cx, ck[GQ_MAXSTAGES];
  int h2, y2, f2;              /* inverse with pull: h again, and what phase 0 stored */
  int nout, y1, f1, x1, err, err3, finite, k[GQ_MAXSTAGES], dq, eq, q, py, pf, px, pt, ph, pb;
  int sum[GQ_SUMS], csum[GQ_SUMS]; /* heuristics: sums out (stored float64, of this slice), their cotangents in */
  int npb;                     /* products of phase 2: */
  int *pb_of;                  /* [npb] boundary value of each */
} gq_steplayout;

/* Inputs: t, h, rtol, atol[parts] (float64), y[parts], f[parts] if carry, x if extra, what is given at each slope's
** time [slopes][given], product weights wq[slopes] (float64), boundary values; with pull: cotangents of y1, f1, x1, k, sums.
** With lanes t, h, atol and the error sums are {lanes}, one a row.
** Outputs: y1[parts], f1[parts] if carry, x1 if extra (stored); error sums[parts] (stored float64: sum or maximum over
** this slice of (err / scale)^2); k (kept); dq[nq], eq[nq] stored; q[nq] added: sum_i wq_i product_i. */
/* want [boundary values]: whose gradients phase 2 adds. */
int gq_step_new(const gq_system *s, const gq_stepkind *k, const bool *want, gq_graph **g, gq_outspec **outs,
                gq_steplayout *l);
void gq_steplayout_done(gq_steplayout *l);

#endif
