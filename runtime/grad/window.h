/*
** window.h -- the last steps of a backward solve, kept for quadratures that ask for z and a more than once, and where
** pieces of their time end: at steps of z or of a, so that a layer that the solvers resolve is not lost between the
** points of a rule.
*/
#ifndef GQ_WINDOW_H
#define GQ_WINDOW_H

#include "../ode/trajectory.h"
#include "nodes.h"

typedef struct gq_window {
  gq_solution *s;
  gq_trajectory *path;         /* z; NULL: it is part 0 of the steps */
  const gq_walk *w;            /* its last part is a */
  gq_nodebuffer *nodes;
  int parts;
  struct gq_window_step { double t, h; char *block; } *step;
  int first, n, room;          /* the steps that are looked at: step[first] .. step[first + n - 1] */
  gq_step_record *edge;        /* [edges + 1] where steps of z and of a meet, from the window's end to its start */
  int edges, edge_room;
  size_t part;
  void *z, *a;                 /* at a node */
} gq_window;

int gq_window_init(gq_window *q, gq_solution *s, gq_trajectory *path_, const gq_walk *w, gq_nodebuffer *nodes);
void gq_window_done(gq_window *q);
/* Keep the accepted step of the walk, whose interpolant is complete. n = 0 forgets those that are looked at. */
int gq_window_step(gq_window *q);
/* The edges of both solves' steps from `from`, where the first step begins, to `to`. */
int gq_window_edges(gq_window *q, double from, double to);
/* z and a at t within the steps kept, to q->z and q->a; z's slope not. */
int gq_window_at(gq_window *q, double t);
/* Collect a node there. */
int gq_window_node(gq_window *q, double t, double weight);

#endif
