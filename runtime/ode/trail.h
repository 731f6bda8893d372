/*
** trail.h -- what a forward solve leaves of z(t) for the way back where it neither keeps every step
** (trajectory = "dense") nor nothing ("reverse"): states at the Chebyshev points of every measurement interval
** ("interpolated"), or at every m-th step together with all steps' sizes ("checkpoint").
*/
#ifndef GQ_TRAIL_H
#define GQ_TRAIL_H

#include "plan.h"

typedef struct gq_pace { double t, h; } gq_pace;   /* an accepted step */

typedef struct gq_trail {
  size_t part;                 /* bytes of a state in block */
  char *block;
  int points;                  /* interpolated: a measurement interval, ends included */
  int interval, next;          /* the point that comes next */
  int most, room, n;           /* checkpoints: how many there may be, fit, and are; each is y, then f */
  int64_t every;               /* steps from one to the next: doubled when there are too many */
  gq_pace *step;
  int64_t nsteps, steps_room;
} gq_trail;

struct gq_solution;
int gq_trail_init(struct gq_solution *s);
void gq_trail_done(struct gq_solution *s);
/* The accepted step of the forward walk, not yet committed; *phase1: its interpolant is complete. */
int gq_trail_step(struct gq_solution *s, gq_walk *w, bool *phase1);
/* Time and state of point j of the interval from t[i] to t[i + 1]. */
double gq_trail_time(const struct gq_solution *s, int i, int j);
void *gq_trail_state(const struct gq_solution *s, int i, int j);

#endif
