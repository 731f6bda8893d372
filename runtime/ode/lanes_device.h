/*
** lanes_device.h -- batch = "independent" by a device that solves all samples by itself (backend.solve_lanes), and
** goes back along their records.
*/
#ifndef GQ_LANES_DEVICE_H
#define GQ_LANES_DEVICE_H

#include "lanes.h"

typedef struct gq_lanework {
  gq_solution *s;
  gq_lanes lanes;              /* the first block's */
  union {
    gq_lanesolve f;
    gq_lanedirect direct;
    gq_laneadjoint adjoint;
  } h;
  gq_lanejob v;
  void *tables;                /* of the device */
  const void **in;
  void **out;
} gq_lanework;

bool gq_device_solves_lanes(const gq_solution *s);
/* From time number `first` on. A status that ends everything, or the first sample that failed (-1: none) and why. */
int gq_lanework_forward(gq_solution *s, int first, double *coarse, int64_t *failed, gq_outcome *why);

/* ---- for ways back ---- */

typedef struct gq_lanework_kind {
  gq_lanepass pass;
  size_t bytes;                /* of x->h */
  const gq_stepper *st;
  const gq_evaluator *slope, *points_;
} gq_lanework_kind;
/* Blocks and their memory, `own` bytes of it the caller's, which lie *at bytes after a block's first. */
int gq_lanework_open(gq_lanework *x, gq_solution *s, const gq_lanework_kind *kind, size_t own, size_t *at);
/* With what is bound by now, but for points, which are the caller's to bind. */
int gq_lanework_bind(gq_lanework *x);
void gq_lanework_close(gq_lanework *x);
/* Where something of the first block is in its memory. */
static inline uint64_t gq_lanework_place(const gq_lanework *x, const void *p) {
  return (uint64_t)((const char *)p - x->v.room);
}
/* One launch. Interrupted before: fails. */
int gq_lanework_launch(gq_lanework *x);
/* Of whole boundary values and those of lanes, or of points. */
void gq_lanework_cuts(const gq_lanework *x, void *const *whole, void *const *lanes, const bool *some_, gq_lanecut *to,
                   int *n);

#endif
