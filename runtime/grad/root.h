/*
** root.h -- the slope of an implicit stage as one recorded operation.
*/
#ifndef GQ_ROOT_H
#define GQ_ROOT_H

#include "../exec/tape.h"
#include "../field/field.h"

enum { GQ_MAX_ROOT = 64 }; /* numbers in a row, each a column of the Jacobian in the graph */

typedef struct gq_root gq_root;
/* Of the field, whose state is so many rows of `dim` numbers that do not act on each other. */
int gq_root_new(const gq_field *f, int64_t rows, int64_t dim, gq_root **out);
void gq_root_free(gq_root *r_); /* what it recorded may live on */
/* k = f(t, base + hg k), from a first guess (NULL: 0); in: t, base, hg (of the state's dtype), boundary values.
** Derivatives of any order. */
int gq_root_solve(gq_root *r, gq_tensor *const *in, gq_tensor *guess_, gq_tensor **k);

#endif
