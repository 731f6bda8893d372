/*
** integral.h -- the integral of a'df/dtheta, step by step of the adjoint's solve.
*/
#ifndef GQ_GRAD_INTEGRAL_H
#define GQ_GRAD_INTEGRAL_H

#include "back.h"

/* By Runge-Kutta weights: add the products of the accepted step; theta < 1 when it goes past the interval's end.
** last: no other follows. */
int gq_integral_weights(gq_back *k, double theta, bool last);

/* By nodes, where k->gq. */
int gq_integral_init(gq_back *k);
void gq_integral_done(gq_back *k);
int gq_integral_begin(gq_back *k);                   /* an interval */
int gq_integral_step(gq_back *k, double stop);       /* the accepted step, before it is committed */
int gq_integral_window(gq_back *k, double stop);     /* and after that, where pieces are refined */
int gq_integral_end(gq_back *k, double from, double stop);
/* Nodes and Runge-Kutta weights do not agree; are the pieces to be refined? */
bool gq_integral_disagrees(const gq_back *k);
/* The integral over all steps that were kept, but where the nodes serve, instead of what they gave. */
int gq_integral_refine(gq_back *k);

#endif
