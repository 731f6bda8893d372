/*
** nodes.h -- quadrature nodes of the backward pass: collected as points (tau, z, w a), evaluated in
** batches, their products a'df/dtheta added straight into the gradients.
*/
#ifndef GQ_NODES_H
#define GQ_NODES_H

#include "../method/lane.h"
#include "../ode/trajectory.h"
#include "refine.h"
#include "spectrum.h"

/* Points of one measurement interval [t_k-1, t_k], from t_k backwards; zero it before the first use. */
typedef struct gq_rule {
  int m, panels;               /* points a panel */
  double *x, *w;               /* [m] on [-1, 1]; the block is x's */
  int room;
  const gq_quadrature *kind;   /* what x and w hold, NULL: nothing yet */
  uint64_t draw;               /* random rules: drawn so far in this pass */
  double from, to;             /* t_k, t_k-1 */
} gq_rule;
/* n points or a few more, as the rule takes them, in at least o->panels panels; then `refine` times as many. */
int gq_rule_set(gq_rule *r, const gq_ode_options *o, int n, int refine, double from, double to);
void gq_rule_done(gq_rule *r);
int gq_rule_count(const gq_rule *r);
/* Point i's place in its panel, -1 to 1. */
double gq_rule_place(const gq_rule *r, int i);
/* Point i counted from `from`; *w is its weight in the integral from `to` to `from`, signed. */
double gq_rule_point(const gq_rule *r, int i, double *w);

/* The program for n nodes, a power of two up to p->most_points. */
int gq_node_program(gq_plan *p, int n, gq_evaluator **out);

/* A fixed number of points, evaluated when full: memory does not grow with the number of nodes. Fields: an array
** of each thing that a point has, and of each that its programs store. */
typedef struct gq_nodebuffer {
  gq_solution *s;
  const gq_grads *grads;
  int points, filled;
  void *block, *t;
  void **z, **a, **slope;      /* [nslices]; slope: of the path, for the defect */
  void *side;                  /* one slice's z, a and slope with the nodes side by side, [nslices] of them */
  int64_t evaluated;
  double low, high;            /* f is evaluated at no time outside */
  /* probes: where each point is in its panel and its weight, what the program stored for it, and what comes of that */
  void **probe, *probes;       /* [nslices] */
  size_t probe_bytes;          /* of a slice */
  char *here;                  /* the host's copy of all */
  double *value;               /* [points] of the probes' numbers, then their magnitudes */
  struct gq_place { int n; double x, t, weight, h; } place[1 << (GQ_NODE_SIZES - 1)];
  double defect;               /* the largest of all nodes; NAN: none */
  gq_spectrum spectrum;
  gq_refine sum;               /* of all points; or, where it has work, */
  size_t next;                 /* the values of that, up to this point */
  bool withdraw;               /* points are taken back: evaluated with negative weights, not looked at */
  struct gq_listed {           /* points outside of any list of `sum` are kept, where `on`: */
    bool on;
    double *row;               /* [n][GQ_LISTED + numbers + groups] time, weight, then the value */
    int n, room;
  } list;
} gq_nodebuffer;
int gq_nodebuffer_init(gq_nodebuffer *b, gq_solution *s, const gq_grads *grads);
void gq_nodebuffer_done(gq_nodebuffer *b);
/* The next free point: set its time and weight, fill _z and _a of each slice. */
void *gq_nodebuffer_z(gq_nodebuffer *b, int slice);
void *gq_nodebuffer_a(gq_nodebuffer *b, int slice);
/* The next point's z or a from a whole state. */
void gq_nodebuffer_fill(gq_nodebuffer *b, void *at(gq_nodebuffer *, int), const void *state);
/* Its z, and its slope where the defect is asked for, from the path at t; scratch: a state. */
int gq_nodebuffer_path(gq_nodebuffer *b, gq_trajectory *path, double t, void *scratch);
/* The point that is pushed next is a node at x of a panel of n, for the spectrum. */
void gq_nodebuffer_place(gq_nodebuffer *b, int n, double x);
/* What the loss's rounding is for each tensor that changes by its own size, or by 1: `sum` need not see it. */
int gq_nodebuffer_floor(gq_nodebuffer *b, double rounding);
int gq_nodebuffer_push(gq_nodebuffer *b, double t, double weight);   /* scales a by weight */
int gq_nodebuffer_flush(gq_nodebuffer *b);
/* The numbers of other probes, of all slices, to[numbers]. */
int gq_nodebuffer_probes(const gq_nodebuffer *b, const gq_grads *probes, double *to);
/* Point i of the list. */
enum { GQ_LISTED = 2 };
const double *gq_nodebuffer_listed(const gq_nodebuffer *b, int64_t i);
/* The probes' integrals by all nodes against those by other weights: the largest difference of a tensor, relative to
** its integral, or to a tenth of that of its norm. */
int gq_nodebuffer_difference(const gq_nodebuffer *b, const gq_grads *probes, double *difference);

#endif
