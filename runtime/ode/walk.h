/*
** walk.h -- one integration in progress: attempts of its method, and what decides over them.
*/
#ifndef GQ_WALK_H
#define GQ_WALK_H

#include "../method/attempt.h"
#include "../method/trail.h"

enum { GQ_REFUSED_MOST = 64 };

typedef struct gq_ahead gq_ahead;   /* ahead.c */

typedef struct gq_walk {
  gq_attempt a;
  gq_control c;
  const gq_controller *controller;
  int (*fill_path)(struct gq_walk *w, double t, double h);   /* a.path of a step, where something is given */
  void *context;
  bool runs_ahead;             /* nothing but a decision comes between attempts: a device may make several at once; */
  /* the i-th step from now ends in y and f there, and leaves what it leaves in arena[nslices] (NULL: anywhere); NULL:
  ** anywhere at all */
  int (*place)(struct gq_walk *w, int i, void **y, void **f, void ***arena);
  void (*trail)(const struct gq_walk *w, gq_trail *r);   /* where a device finds what fill_path makes; NULL: nowhere */
  gq_ahead *ahead;             /* those that it has made */
  int64_t steps, rejected, max_steps;
  bool returns;                /* steps stop at the ends of refused ones: what is known of a path must not
                               ** choose them */
  int nrefused;
  double refused[GQ_REFUSED_MOST];   /* the nearest last */
} gq_walk;

/* With a.tol, a.jumps, runs_ahead and c set; the states, and what else an attempt needs, are the caller's. arena: [nslices]
** of the steps' programs. */
int gq_walk_init(gq_walk *w, const gq_stepper *st, const gq_binding *b, void **arena);
void gq_walk_done(gq_walk *w);
/* A smooth piece begins: y and f are there. */
void gq_walk_restart(gq_walk *w);
/* Choose the first step; f must hold the slopes at t, and where products are in the error norm sum.dq and sum.dtime
** those at t. */
int gq_walk_first(gq_walk *w, const gq_evaluator *e, double stop, double *h);
/* Try steps until one is accepted: a.h, a.t1, y1, f1, slopes. `stop`: not passed if `clamp`. On a
** failure the status, with a message that tells t and h. */
int gq_walk_step(gq_walk *w, double stop, bool clamp);
/* The accepted step again, by h to t1 (classes without .shorten). */
int gq_walk_again(gq_walk *w, double h, double t1);
/* Where the step that is tried begins and ends, and on a fixed grid those after it, n in all: t [n + 1]. At most `most`,
** and none beyond the stop. */
int gq_walk_ends(const gq_walk *w, int most, double *t);
/* Run the later phases of the accepted step: 1 for the interpolant and products. */
int gq_walk_phase(gq_walk *w, int phase);
/* y(theta) = y + sum_i h w_i k_i of a part, to dst[slice] or all of it to one place. */
void gq_walk_interpolate(const gq_walk *w, int part, double theta, void *const *dst);
void gq_walk_interpolate_all(const gq_walk *w, int part, double theta, void *dst);
/* Address of slope i, part p, in slice s of the accepted step. */
void *gq_walk_slope(const gq_walk *w, int i, int part, int slice);
/* All slopes of a part, of all slices, `apart` bytes from one to the next. */
void gq_walk_slopes(const gq_walk *w, int part, void *dst, size_t apart);
/* Accept: y <- y1, f <- f1, x <- x1, t <- t1 (pointers swapped). */
void gq_walk_commit(gq_walk *w);

/* An attempt that a device has made, if there is one or some can be: a.h, a.t1, y1, f1, c, *verdict. */
int gq_ahead_attempt(gq_walk *w, bool *there, int *verdict);
/* Of a step that it has made (whole: and that is taken to its end): its products are added with those of others, before
** gq_ahead_settle returns; *later false: the caller adds them now. carried: weight of those at the step's start. */
int gq_ahead_later(gq_walk *w, bool whole, double carried, bool *later);
int gq_ahead_settle(gq_walk *w);
size_t gq_ahead_bytes(const gq_walk *w);
void gq_ahead_done(gq_walk *w);

void gq_steplog_first(double h);
void gq_steplog_cut(int n);   /* to n rows */

#endif
