/*
** scheme.h -- steps of SDE methods as graphs.
*/
#ifndef GQ_SCHEME_H
#define GQ_SCHEME_H

#include "../field/evaluate.h"
#include "sde.h"

#define GQ_SDE_MAXPARTS 4

/* Inputs of a step program: t, the second stage's time, h (0-d, of the state's dtype), dW, the parts
** of the state, boundary values of the field. Outputs: the parts after the step. */
enum { GQ_SDE_T, GQ_SDE_T1, GQ_SDE_DT, GQ_SDE_DW, GQ_SDE_STATE };

/* The traced functions with the diffusion in one form: z's shape (diagonal, scalar) or z's with
** one more dimension {.., d, m}. *g: to be freed. */
int gq_sde_normalise(const gq_sde_problem *p, gq_graph **g);
/* W's shape for a state of shape z and a diffusion (in that form) of shape s. */
gq_shape gq_sde_w_shape(gq_noise noise, gq_shape z, gq_shape s);
/* One step of m over a body (t, z, boundary values -> drift, diffusion). */
int gq_sde_step(const gq_graph *body, gq_noise noise, const gq_sde_method *m, gq_graph **g);

#endif
