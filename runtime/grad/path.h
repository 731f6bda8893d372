/*
** path.h -- z(t) on the way back where it is not solved again: from the kept steps of the forward solve
** (dense), from those between two checkpoints, run again when they are reached, or from Chebyshev points.
** Times asked for decrease (as the solve went), but for steps that are tried again.
*/
#ifndef GQ_PATH_H
#define GQ_PATH_H

#include "../ode/solution.h"

typedef struct gq_path {
  gq_solution *s;
  gq_kept *near;               /* the record whose step holds the present time, and those before it */
  /* checkpoint */
  gq_kept *head, *tail;        /* newest and oldest record that are there */
  int segment;                 /* the checkpoint that `tail` is at */
  gq_walk w;
  void *block;                 /* the end of a segment */
  void *arena[GQ_MAXSLICES];
} gq_path;

int gq_path_init(gq_path *p, gq_solution *s);
void gq_path_done(gq_path *p);
/* z(t) into dst, packed. */
int gq_path_at(gq_path *p, double t, void *dst);
/* Times after t (before it as the solve went back) will not be asked for again. */
int gq_path_leave(gq_path *p, double t);
/* A step that is followed by one so many times as long was not as short as it was for its error: it is the first, or
** one of those that grow from it. */
#define GQ_GREW 5
/* Steps of the forward solve that begin between `from` and `to` (neither counts), nearest to `from` first: where, and
** how long steps are there (the longest of it and its neighbours, since one alone may have been clamped; that to
** which it grew). The first `room` of them into step; returns how many there are. None is known of an interpolated
** trajectory. */
int gq_path_steps(const gq_path *p, double from, double to, gq_pace *step, int room);
/* interpolated: the last Chebyshev coefficient of an interval (a tenth of that before, where it is more), in
** tolerances: what the next, left out, are less than; 0 for other trajectories. */
double gq_path_error(const gq_path *p, double rtol, double atol);

#endif
