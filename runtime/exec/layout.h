/*
** layout.h -- layouts: a shape with strides in numbers. What operations that only move or view mean to them.
*/
#ifndef GQ_LAYOUT_H
#define GQ_LAYOUT_H

#include "../ir/ir.h"

typedef struct gq_layout {
  int ndim;
  int64_t dim[GQ_MAXDIM], stride[GQ_MAXDIM];
} gq_layout;
gq_layout gq_layout_of(gq_shape s, const int64_t *stride_);   /* NULL: contiguous */
bool gq_layout_contiguous(const gq_layout *l);
/* The strides of `l` seen in shape `s`, to which it broadcasts: 0 where it repeats. */
void gq_layout_broadcast(const gq_layout *l, gq_shape s, int64_t *stride);
/* A VIEW of shape s over the numbers of l: its strides; *offset grows by where it begins. false: not without a copy. */
bool gq_layout_view(gq_op op, const gq_attr *attr, const gq_layout *l, gq_shape s, int64_t *stride, int64_t *offset);
/* Where a MOVE puts its operands, asked one after the other from {0} on; the result is contiguous.
** false: no MOVE known. */
typedef struct gq_landing {
  int64_t at, next, stride[GQ_MAXDIM];
} gq_landing;
bool gq_layout_land(gq_op op, const gq_attr *attr, gq_shape whole, gq_shape part, gq_landing *l);

/* An operation of class INDEX, over plain arrays: attr.shape is that of the result. */
typedef struct gq_indexing {
  gq_op op;
  gq_dtype dtype;
  gq_attr attr;
  gq_shape in[2];
} gq_indexing;

/* The windows of WINDOW_ADD: {outer, k.., count.., inner} into {outer, size.., inner} of so many numbers, n dims. */
typedef struct gq_windows {
  int64_t numbers, n, outer, inner, k[GQ_MAXDIM], count[GQ_MAXDIM], size[GQ_MAXDIM], step[GQ_MAXDIM], apart[GQ_MAXDIM];
} gq_windows;
gq_windows gq_windows_of(const gq_indexing *p);
/* A shape as outer x n x inner around an axis. */
void gq_shape_around(const gq_shape *s, int axis, int64_t *outer, int64_t *n, int64_t *inner);

#endif
