/*
** adams.h -- multistep methods: a walk whose steps hang on the slopes of the steps before. It has no step program;
** an attempt runs f and sums the history in C.
*/
#ifndef GQ_ADAMS_H
#define GQ_ADAMS_H

#include "../ode/plan.h"

/* The stepper of such a method: a layout, and no code. */
void gq_adams_stepper(gq_stepper *st, const gq_stepkind *k);

typedef struct gq_adams gq_adams;
int gq_adams_new(gq_walk *w);                /* w->adams, where the walk's method is one */
void gq_adams_free(gq_adams *a_);
size_t gq_adams_bytes(const gq_adams *a_);
/* Forget the history: w->f holds the slope that the solve goes on with. */
void gq_adams_restart(gq_walk *w);
/* As the other methods' attempts: y1, f1, and the error ratio (0 on a fixed grid, NAN: not finite). */
int gq_adams_attempt(gq_walk *w, double h, double stop, double *ratio);
/* After an attempt: the next step to try, as a multiple of that one. */
double gq_adams_factor(const gq_adams *a);
/* The accepted step's polynomial: y(theta) = y0 + h sum_i slope_i theta^(i+1); whole arrays of the state. */
void *gq_adams_slope(const gq_walk *w, int i);

#endif
