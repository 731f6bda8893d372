/*
** nodes.h -- quadrature nodes of the backward pass: collected as (tau, z, w a) rows, evaluated in
** batches, their products a'df/dtheta added straight into the gradients.
*/
#ifndef GQ_NODES_H
#define GQ_NODES_H

#include "../ode/solution.h"

enum { GQ_MAX_RULE = 64 };

/* Points of one measurement interval [t_k-1, t_k], from t_k backwards. */
typedef struct gq_rule {
  int m, panels;               /* points a panel */
  double x[GQ_MAX_RULE], w[GQ_MAX_RULE];
  double from, to;             /* t_k, t_k-1 */
} gq_rule;
/* n points: one panel up to GQ_MAX_RULE, equal panels above. */
int gq_rule_new(gq_rule *r, int n, double from, double to);
int gq_rule_count(const gq_rule *r);
/* Point i counted from `from`; *w is its weight in the integral from `to` to `from`, signed. */
double gq_rule_point(const gq_rule *r, int i, double *w);
/* Eq. (9): ceil(C nfe dt / T), at least 1; products that are exact stay exact. */
int64_t gq_rule_wanted(double C, int64_t nfe, double dt, double T);

/* A fixed number of rows, evaluated when full: memory does not grow with the number of nodes. */
typedef struct gq_nodebuffer {
  gq_solution *s;
  const gq_grads *grads;
  int rows, filled;
  void *block, *t;
  void *z[GQ_MAXSLICES], *a[GQ_MAXSLICES];
  void *side;                  /* one slice's z and a with the nodes side by side, [nslices] of them */
  int64_t evaluated;
} gq_nodebuffer;
int gq_nodebuffer_init(gq_nodebuffer *b, gq_solution *s, const gq_grads *grads);
void gq_nodebuffer_done(gq_nodebuffer *b);
/* The next free row: set its time and weight, fill z and a of each slice with ..._row. */
void *gq_nodebuffer_z(gq_nodebuffer *b, int slice);
void *gq_nodebuffer_a(gq_nodebuffer *b, int slice);
int gq_nodebuffer_push(gq_nodebuffer *b, double t, double weight);   /* scales a by weight */
int gq_nodebuffer_flush(gq_nodebuffer *b);

#endif
