/*
** loop.h -- the loop of a solve where a device goes on by itself: what it holds between attempts, and what it decides
** after each. Plain C99 like control.h, of which kernels take it behind.
*/
#ifndef GQ_LOOP_H
#define GQ_LOOP_H

#include "trail.h"

enum { GQ_LOOP_ATTEMPTS = GQ_TRAIL_STEPS, GQ_LOOP_PARTS = 2 };

/* An attempt that was made. */
typedef struct gq_tried {
  double h, t1;
  int verdict;
  gq_control c;                /* after it */
} gq_tried;

/* fields: what walk.c, attempt.c and explicit.c hold of a solve, in one place that is copied to a device and back */
typedef struct gq_loop {
  gq_control c;
  gq_controller k;
  double t, h, t1;             /* the attempt that comes */
  double from, ht, rtol, atol[GQ_LOOP_PARTS];    /* as its program reads it (gq_stepinput) */
  double start, begin, end, limit;   /* f is evaluated at `begin` for the time `start`, at `end` for the stop; none past this */
  double count;                /* numbers of a part */
  int order, parts, third, most;     /* third: there are second estimates; most: the largest counts, not the sum */
  int attempts, steps;         /* so many may be made, and so many be accepted */
  int made, accepted, halted;
  unsigned arrived, blocks;
  gq_trail trail;
  gq_tried tried[GQ_LOOP_ATTEMPTS];
} gq_loop;

/* The attempt that comes next. It halts where none is to be made: a caller finds out why as it makes that attempt itself. */
static inline void gq_loop_propose(gq_loop *p) {
  p->h = gq_control_propose(&p->c, p->t);
  p->t1 = p->c.clamped ? p->c.stop : p->t + p->h;
  p->from = p->t == p->start ? p->begin : p->t;
  p->ht = gq_control_span(p->t, p->t1, p->h, p->from, p->t1 == p->c.stop ? p->end : p->t1, p->limit);
  p->halted = p->made == p->attempts || p->accepted == p->steps || gq_control_stuck(&p->c, p->t, p->h);
}

/* The error of part i in tolerances. */
static inline double gq_loop_error(const gq_loop *p, const double *sum, int i) {
  double n = p->most ? 1 : p->count;
  return gq_control_error(gq_control_over(sum[i], n), p->third ? gq_control_over(sum[p->parts + i], n) : -1);
}

/* After an attempt. sum[]: of each part, then second ones; along: trail.step, where it can be read. */
static inline void gq_loop_judge(gq_loop *p, const double *sum, const gq_trail_step *along) {
  double ratio = 0;
  GQ_BY(unroll 1)
  for (int i = 0; i < p->parts; i++) ratio = gq_larger(ratio, gq_loop_error(p, sum, i));
  gq_tried *f = &p->tried[p->made++];
  f->h = p->h, f->t1 = p->t1;
  f->verdict = gq_control_judge(&p->c, &p->k, p->order, p->h, isfinite(ratio) ? ratio : (double)NAN);
  f->c = p->c;
  if (f->verdict == GQ_ACCEPTED) {
    p->accepted++, p->t = p->t1, p->c.ratio = 0;
    gq_trail_follow(&p->trail, along, p->t, &p->c.h);
  }
  if (f->verdict > GQ_REFUSED || (p->h < 0 ? p->t <= p->c.stop : p->t >= p->c.stop)) p->halted = 1;
  else gq_loop_propose(p);
}

#endif
