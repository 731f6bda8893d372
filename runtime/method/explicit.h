/*
** explicit.h -- steps that are programs (step.h), run on every slice: what classes of such methods are made of.
*/
#ifndef GQ_EXPLICIT_H
#define GQ_EXPLICIT_H

#include "attempt.h"

extern const gq_stepclass gq_explicit;
int gq_program_build(gq_stepper *st, const gq_field *f, gq_make *make, const void *arg);
int gq_program_init(gq_attempt *a);
void gq_program_done(gq_attempt *a);
int gq_program_attempt(gq_attempt *a, gq_control *c, double *ratio);
/* May steps wait in a->rounds, since all that they give are states and sums over rows? Bytes that a run takes there. */
bool gq_program_may_wait(const gq_stepper *st);
size_t gq_program_waits(const gq_stepper *st, const gq_field *f);
int gq_program_phase(gq_attempt *a, int phase);
void *gq_program_slope(const gq_attempt *a, int i, int part, int slice);
/* The accepted step's sums over all slices, for heuristics; 0 where they were not asked for. */
void gq_program_sums(const gq_attempt *a, double sum[GQ_SUMS]);

#endif
