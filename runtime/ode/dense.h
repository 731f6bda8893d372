/*
** dense.h -- what the forward solve needs of an interpolant (ode.h has what its user needs), and of an event.
*/
#ifndef GQ_DENSE_H
#define GQ_DENSE_H

#include "plan.h"

/* Of a solve from t0 to t1. y0: in the user's order. */
int gq_dense_new(gq_plan *p, double t0, double t1, const void *y0, gq_dense **out);
/* The accepted step (its slopes are there), which serves up to `end`; *bytes grows. */
int gq_dense_add(gq_dense *d, const gq_walk *w, double end, size_t *bytes);

/* An event function bound to its captures. */
typedef struct gq_event gq_event;
int gq_event_new(const gq_graph *g, int ncapture, gq_tensor *const *capture, const gq_field *f, gq_event **out);
void gq_event_free(gq_event *e_);
int gq_event_begin(gq_event *e, const gq_walk *w);   /* its value where the walk begins */
/* Does it change its sign in the accepted step? Then that ends at *t, where it is zero or just before: with *t = w->t
** it does not begin. What is zero where the walk begins, by rounding, has no sign until it has left zero. */
int gq_event_look(gq_event *e, gq_walk *w, bool *happened, double *t);
int64_t gq_event_nfe(const gq_event *e_);            /* evaluations of these searches */

#endif
