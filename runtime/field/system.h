/*
** system.h -- systems derived from a field: what is solved, forwards and backwards, and what quadratures evaluate.
**
** A system is what is solved: the field itself (one part, z), or the field with its adjoint
** (parts z and a, or a alone where z(t) is given), and products a'df/dtheta to be integrated.
*/
#ifndef GQ_SYSTEM_H
#define GQ_SYSTEM_H

#include "field.h"

#define GQ_MAXPARTS 2
#define GQ_MAXGIVEN 2
enum { GQ_MAX_JACOBIAN = 8, GQ_MAX_ELEMENT = 16 };   /* gqc: numbers in a row of the state; nodes of an element */

typedef struct gq_system {
  gq_graph *g;                 /* inputs: t, parts, given, boundary values; outputs: derivatives, products */
  bool lent;                   /* g belongs to a field */
  int parts;
  int given;                   /* state-shaped inputs that are known functions of t: z, then the forcing of a */
  int nq;                      /* products, */
  bool probes;                 /* or numbers of them */
  bool columns;                /* of nodes: points side by side as columns, not in front */
  int last;                    /* the axis of a part that is the state's last dimension (leapfrog) */
  gq_noise noise;              /* after the derivative comes the diffusion; */
  int moments, intervals;      /* of the noise that steps read; of how many intervals; */
  bool levy;                   /* and its Levy areas */
  bool rise;                   /* or f h + G dW are the derivatives, with inputs h and dW after what is given */
  int second;                  /* outputs from this one on are of phase 1; 0: none */
  int64_t lanes;               /* rows at times of their own: t is {lanes}; 0: one time for all */
  bool front;                  /* lanes are the first dim of a part, otherwise the last */
  int late;                    /* phase of the products: 1 where a is not known before the rest has run */
  int *of;                     /* [nq] boundary value of product i; -1: time. Of nodes then of what is stored: of
                                  probe i; -1: the defect */
  int directions;              /* inputs after the boundary values: gq_field.direction; */
  bool defect;                 /* and z', rtol, atol after those */
} gq_system;

/* Makes a system of class cls: what compilers of all classes take. arg: what it may ask for, or NULL. */
typedef int gq_make(const gq_field *f, int cls, const void *arg, gq_system *s);
void gq_system_done(gq_system *s);

gq_make gq_system_forward;     /* dz/dt = f */
typedef enum gq_products { GQ_PRODUCTS_NONE, GQ_PRODUCTS_PROBES, GQ_PRODUCTS_ALL } gq_products;
typedef struct gq_adjointkind {
  bool path;                   /* z(t) is given, a alone is solved */
  bool forced;                 /* a' = -a'df/dz + q with q(t) given */
  gq_products products;        /* a'df/dtheta of the wanted boundary values, or their probes with magnitudes */
  bool time;                   /* and a'df/dt */
} gq_adjointkind;
gq_make gq_system_adjoint;     /* (z, a)' = (f, -a'df/dz), f the drift of an SDE; arg: gq_adjointkind */
/* No equation: inputs t, z, a (of an SDE one of G too), boundary values; outputs a'df/dz and the products; arg: bool,
** is a'df/dt wanted too. */
gq_make gq_system_pull;
/* The products alone, of rows side by side (gq_field_lanes): inputs t {lanes[1]}, z, a, boundary values. */
gq_make gq_system_points;
/* (z, a) over a step of an SDE: (f h + G dW, -a'd(f h + G dW)/dz), with the products a'd(f h + G dW)/dtheta;
** f is the Stratonovich drift. arg: gq_calculus, of the field. */
gq_make gq_system_rise;
typedef struct gq_pointkind {
  int64_t n;                   /* points at once */
  int64_t dim;                 /* numbers in a row of the state */
  bool probes;
  bool defect;
} gq_pointkind;
/* The products at n points at once: inputs t {n}, z {n, ...}, a {n, ...} (or, columns, {.., n rows}), boundary
** values. probes: before them those of every product, {numbers + 1, n}. defect: inputs z' like z, rtol and atol at the
** end, and the last output before the products is the sum over the state of ((z' - f) / (atol + rtol |z|))^2, {n}.
** arg: gq_pointkind */
gq_make gq_system_nodes;
/* The same and, before, the Jacobian by rows of `dim` numbers: outputs df_i/dz of z's shape for i < dim. */
gq_make gq_system_jacobian;

#endif
