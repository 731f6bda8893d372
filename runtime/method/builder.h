/*
** builder.h -- a step graph in the making (step.c), and what it is put together from (builder.c, products.c).
*/
#ifndef GQ_BUILDER_H
#define GQ_BUILDER_H

#include "step.h"

/* Fields: every node that some part of a step is made of; it lives while one graph is built. */
typedef struct gq_builder {
  gq_pool own;                 /* its arrays but outs */
  gq_graph *g;
  const gq_system *s;
  const gq_stepkind *k;
  gq_steplayout *l;
  gq_dtype dtype;
  gq_ref t, h, rtol, atol[GQ_MAXPARTS], y[GQ_MAXPARTS], y1[GQ_MAXPARTS], wq[GQ_MAXSTAGES];
  gq_ref x[GQ_MAXEXTRA], x1[GQ_MAXEXTRA];
  gq_ref dw, area[2], levy;    /* SDEs: W over the step; H and K, Levy areas */
  gq_ref noise[9];             /* W, H and K of the step and, where it is compared with two half ones, of those */
  gq_ref G[GQ_MAXSTAGES];      /* diffusions of the stages */
  gq_ref err[GQ_MAXPARTS];     /* their error */
  int calls;                   /* of the system, */
  bool again;                  /* but those that are there already */
  gq_ref path[GQ_MAXSTAGES][GQ_MAXGIVEN];
  gq_ref slope[GQ_MAXSTAGES][GQ_MAXPARTS];
  gq_ref sum[GQ_SUMS];
  gq_ref ht;                   /* h where it makes times */
  gq_ref mid, u;               /* alf: where f is evaluated, and f */
  gq_ref h2, dw2, y2, f2, x2[GQ_MAXEXTRA]; /* inverse with pull */
  gq_ref *bind;                /* arguments of one evaluation */
  gq_ref *q;                   /* [slopes][nq] products */
  gq_ref *bv;                  /* boundary values */
  int nb;
  gq_outspec *outs, *kept;
} gq_builder;

/* What is differentiated, and in what: y, f, t, h, extra parts; and the derivatives. */
enum { GQ_PULLED_X = 4, GQ_PULLED = GQ_PULLED_X + GQ_MAXEXTRA };
typedef struct gq_pulled {
  gq_ref y1, f1, wrt[GQ_PULLED];
  gq_ref *grad;                /* [GQ_PULLED + 1 + nb] of those, of h where it makes times, of boundary values */
} gq_pulled;

/* A number in the state's dtype; and, for all or for each row, to meet the numbers of a state. */
gq_ref gq_builder_to_state(gq_builder *b, gq_ref scalar);
gq_ref gq_builder_to_rows(gq_builder *b, gq_ref scalar);
/* h so */
gq_ref gq_builder_size(gq_builder *b);
/* y + (h w) k */
gq_ref gq_builder_move(gq_builder *b, gq_ref y, double w, gq_ref k);
/* x + y; either may be GQ_NONE */
gq_ref gq_builder_sum(gq_builder *b, gq_ref x, gq_ref y);
/* The system at t + c h, y, with what is given at slope i: derivatives, then products; the first derivative. */
gq_ref gq_builder_system(gq_builder *b, int i, double c, const gq_ref *y, gq_ref *all);
/* The same as slope i and its products; of an SDE with G. */
void gq_builder_evaluate(gq_builder *b, int i, double c, const gq_ref *y);
/* Of an SDE at (t + c h, z): (d(G dW)/dz) G dW */
int gq_builder_second(gq_builder *b, double c, gq_ref z, gq_ref *out);
/* sum_ij A_ij (dG_j/dz) G_i there, G a matrix, A the Levy areas */
int gq_builder_areas(gq_builder *b, double c, gq_ref z, gq_ref G, gq_ref *out);
/* f h + G dW */
gq_ref gq_builder_rise(gq_builder *b, gq_ref f, gq_ref G);
/* Product r of slopes with weights w[i] (GQ_NONE: left out). */
gq_ref gq_builder_product(gq_builder *b, int r, const gq_ref *w);
/* The system's input i: t, parts, ... */
const gq_node *gq_builder_input(const gq_builder *b, int i);

/* langevin.c: steps for Langevin SDEs */
int gq_langevin_align(gq_builder *b);
int gq_langevin_should(gq_builder *b);
int gq_langevin_quicsort(gq_builder *b);

#endif
