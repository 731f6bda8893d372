/*
** kronrod.h -- the integral of a'df/dtheta to a tolerance: adaptive Gauss-Kronrod quadrature over dense z and a
** (the paper's section 1; SciMLSensitivity's QuadratureAdjoint). The steps of a are kept for one interval, and
** pieces end where steps of z or a do: a layer that the solvers resolve is not lost between the points of a rule.
*/
#ifndef GQ_KRONROD_H
#define GQ_KRONROD_H

#include "nodes.h"
#include "../ode/trajectory.h"

typedef struct gq_kronrod {
  gq_solution *s;
  gq_trajectory *path;         /* z */
  const gq_walk *w;            /* a, its only part */
  gq_nodebuffer *nodes;
  const gq_grads *total;
  gq_grads gauss, kronrod;     /* by 7 and by 15 points, of one piece */
  struct gq_astep { double t, h; char *block; } *step;
  int n, room;
  gq_step_record *edge;               /* [edges + 1] where steps of z and of a meet, from the interval's end to its start */
  int edges, edge_room;
  size_t part;
  void *z, *a;
} gq_kronrod;

int gq_kronrod_init(gq_kronrod *q, gq_solution *s, gq_trajectory *path, const gq_walk *w, gq_nodebuffer *nodes,
                    const gq_grads *total);
void gq_kronrod_done(gq_kronrod *q);
/* Keep the accepted step of the walk, whose interpolant is complete. */
int gq_kronrod_step(gq_kronrod *q);
/* Add the integral over the steps kept, and forget them. */
int gq_kronrod_interval(gq_kronrod *q, double from, double to);

#endif
