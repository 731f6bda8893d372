/*
** areas.h -- a Brownian path that knows W, H and K over every interval.
*/
#ifndef GQ_AREAS_H
#define GQ_AREAS_H

#include "../exec/exec.h"

enum { GQ_MOMENTS = 3, GQ_BROWNIAN_DEPTH = 48 /* halvings at most */ };

/* Of components first .. first + count over [t0, t0 + span], halved `depth` times; moments: 2 (W, H) or 3 (and K). */
typedef struct gq_areas gq_areas;
int gq_areas_new(double t0, double span, size_t first, size_t count, int moments, int depth, uint64_t seed, gq_areas **out);
void gq_areas_free(gq_areas *a_);
/* Over the whole moment m is x [count], where it was drawn; before anything is asked. */
void gq_areas_pin(gq_areas *a, int m, const double *x);
/* Over the whole those of `of`, which has them all. */
void gq_areas_pin_as(gq_areas *a, const gq_areas *of);
/* out: [moments][count] over [s, t], s <= t */
void gq_areas_between(gq_areas *a, double s, double t, double *out);

#endif
