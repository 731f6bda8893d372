/*
** implicit.h -- steps of diagonally implicit Runge-Kutta methods, of any system that a walk integrates: the
** field, the field and its adjoint, or the adjoint along a path. What step programs are to explicit methods.
*/
#ifndef GQ_IMPLICIT_H
#define GQ_IMPLICIT_H

#include "../ode/plan.h"

/* Everything that the walk's steps need, allocated once: gq_walk_init and gq_walk_done call these. */
int gq_implicit_new(gq_walk *w);
void gq_implicit_free(struct gq_implicit *n_);
size_t gq_implicit_bytes(const gq_walk *w);
/* Try the step of w->in_scalars: y1, f1, slopes; *ratio: its error in tolerances (0: fixed steps), infinite if a
** stage did not converge, NaN if something was not finite. */
int gq_implicit_step(gq_walk *w, double *ratio);
/* The products' increments and errors of the attempt, into dq and eq. */
int gq_implicit_errors(gq_walk *w);
/* gq_walk_phase: the step again (0), its products (1), its derivative (2). */
int gq_implicit_phase(gq_walk *w, int phase);
/* Slope i of a part, a whole array; and the slopes of part 0 as a record kept them. */
void *gq_implicit_slope(const gq_walk *w, int i, int part);
void gq_implicit_load(gq_walk *w, const gq_step_state *z);
/* The walk is somewhere else: Jacobians of where it was are of no more use. */
void gq_implicit_moved(gq_walk *w);

#endif
