/*
** trajectory.h -- z(t) on the way back where it is not solved again: the table of trajectories and what its readers
** call. Times asked for decrease (as the solve went), but for steps that are tried again.
*/
#ifndef GQ_TRAJECTORY_H
#define GQ_TRAJECTORY_H

#include "solution.h"

/* A backward pass under way. */
struct gq_trajectory {
  gq_solution *s;
  int64_t near, first, last;   /* the step that holds the present time; the states of first to last are there */
  int64_t nfe;
  void *own;                   /* the row's */
};

int gq_trajectory_begin(gq_trajectory *p, gq_solution *s);
void gq_trajectory_end(gq_trajectory *p);
/* z(t) into dst, packed. */
int gq_trajectory_at(gq_trajectory *p, double t, void *dst);
/* z'(t), where z(t) was asked for just before, and the length of the step that has it: of rows that follow steps. */
void gq_trajectory_slope(const gq_trajectory *p, double t, void *dst, double *h);
static inline bool gq_trajectory_follows(const gq_trajectory_kind *k) { return k->steps; }
/* For a device that makes attempts of m: their slopes' times and, where it sees z, all steps of the solve, which are
** there (rows that keep states and slopes), in a block that is the caller's to release. */
int gq_trajectory_trail(const gq_solution *s, const gq_tableau *m, bool sees, gq_trail *r, void **block);
/* Times after t (before it as the solve went back) will not be asked for again. */
int gq_trajectory_leave(gq_trajectory *p, double t);
/* A step that is followed by one so many times as long was not as short as it was for its error: it is the first, or
** one of those that grow from it. */
#define GQ_GREW 5
/* Steps of the forward solve that begin between `from` and `to` (neither counts), nearest to `from` first: where, and
** how long steps are there (the longest of it and its neighbours, since one alone may have been clamped; that to
** which it grew). The first `room` of them into step; returns how many there are, 0 where none is known. */
int gq_trajectory_steps(const gq_trajectory *p, double from, double to, gq_step_record *step, int room);
/* What interpolation leaves out, in tolerances; 0 where it follows the solver's steps. */
double gq_trajectory_error(const gq_trajectory *p);

/* For rows that read the states of steps: the one that holds t, asking `load` for those that are not there. */
int gq_trajectory_find(gq_trajectory *p, double t, int (*load)(gq_trajectory *p), int64_t *out);
void gq_trajectory_read(const gq_trajectory *p, int64_t i, double t, void *dst);
int gq_trajectory_list(const gq_trajectory *p, int64_t i, double from, double to, gq_step_record *step, int room);

#endif
