/*
** rounds.h -- work on slices that waits. Rows do not act on each other: what is done step after step to all slices may
** as well be done slice after slice, many steps to each, which takes one round of threads instead of one a step. The
** numbers are the same; who reads what waiting work makes has it done first.
*/
#ifndef GQ_ROUNDS_H
#define GQ_ROUNDS_H

#include "evaluate.h"

typedef struct gq_rounds gq_rounds;

/* run: bytes of the longest block that gq_rounds_room is asked for. *out NULL: there is one slice, a device, which has an
** order of its own, or a function that is called back. */
int gq_rounds_new(const gq_field *f, size_t run, gq_rounds **out);
void gq_rounds_free(gq_rounds *r_);
size_t gq_rounds_bytes(const gq_rounds *r_);
/* Memory that stays as it is until the work is done that is asked for next. */
void *gq_rounds_room(gq_rounds *r, size_t bytes);
/* As gq_code_run, whose pointers all stay as they are, soon_[s] being what slice s is run in after. */
void gq_rounds_run(gq_rounds *r, const gq_code *c, int phase, void *const *arena, void *const *rest, void *const *soon_,
                   const void *const *in, int nin, void *const *out, int nout);
/* y += x, packed states; a packed state to the user's order, as gq_field_unpack. */
void gq_rounds_add(gq_rounds *r, const void *x, void *y);
void gq_rounds_unpack(gq_rounds *r, const void *packed, void *state);
/* Are all numbers of x finite? sum_, [slices] of them `apart` numbers apart: only looked at where that of the slice is
** not. Nothing more is done to a slice in which they are not; *what, t and h are what is told of it. */
typedef struct gq_looked {
  int what;
  double t, h;
} gq_looked;
void gq_rounds_look(gq_rounds *r, const void *x, const double *sum_, size_t apart, gq_looked told);
/* All that waits. GQ_ENONFINITE, and *found_ the first that was not finite; GQ_EINTERRUPT; what a program failed with.
** Once it has failed, it does so until it is freed or cleared. */
int gq_rounds_do(gq_rounds *r_, gq_looked *found_);
void gq_rounds_clear(gq_rounds *r);

#endif
