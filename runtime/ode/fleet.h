/*
** fleet.h -- batch = "independent" by a device that solves all samples by itself (backend.sail), and goes back along
** their records.
*/
#ifndef GQ_FLEET_H
#define GQ_FLEET_H

#include "lanes.h"

typedef struct gq_fleetwork {
  gq_solution *s;
  gq_lanes lanes;              /* the first crew's */
  union {
    gq_fleet f;
    gq_homing home;
    gq_adjoining adjoint;
  } h;
  gq_voyage v;
  void *tables;                /* of the device */
  const void **in;
  void **out;
} gq_fleetwork;

bool gq_fleet_solves(const gq_solution *s);
/* From time number `first` on. A status that ends everything, or the first sample that failed (-1: none) and why. */
int gq_fleet_forward(gq_solution *s, int first, double *coarse, int64_t *failed, gq_outcome *why);

/* ---- for ways back ---- */

typedef struct gq_fleetkind {
  gq_heading heading;
  size_t bytes;                /* of x->h */
  const gq_stepper *st;
  const gq_evaluator *slope, *points_;
} gq_fleetkind;
/* Crews and their memory, `own` bytes of it the caller's, which lie *at bytes after a crew's first. */
int gq_fleet_open(gq_fleetwork *x, gq_solution *s, const gq_fleetkind *kind, size_t own, size_t *at);
/* With what is bound by now, but for points, which are the caller's to bind. */
int gq_fleet_bind(gq_fleetwork *x);
void gq_fleet_close(gq_fleetwork *x);
/* Where something of the first crew is in its memory. */
static inline uint64_t gq_fleet_place(const gq_fleetwork *x, const void *p) {
  return (uint64_t)((const char *)p - x->v.room);
}
/* One launch. Interrupted before: fails. */
int gq_fleet_sail(gq_fleetwork *x);
/* Of whole boundary values and those of lanes, or of points. */
void gq_fleet_cuts(const gq_fleetwork *x, void *const *whole, void *const *lanes, const bool *some_, gq_cutting *to,
                   int *n);

#endif
