/*
** probe.h -- a few numbers of a'df/dtheta at every point, by which its integral over time is judged tensor by tensor:
** a number or a vector of up to 16 as it is, a longer vector along fixed random directions, a matrix between pairs of
** them (two matrix-vector products over the rows instead of the product), what has more dims, a convolution's weight,
** as the matrix {first dim, others}. What is sliced with the rows, along random directions of its shape. Which
** numbers they are does not depend on how they are computed.
*/
#ifndef GQ_PROBE_H
#define GQ_PROBE_H

#include "../ir/ir.h"

enum { GQ_PROBE_ITSELF = 16, GQ_DIRECTIONS = 2, GQ_PROBE_INPUTS = 2 };

/* What is probed of a tensor of this shape. cut: it is sliced with the rows. */
typedef struct gq_probe {
  int numbers;                 /* a point */
  int inputs;                  /* tensors that programs take: */
  gq_shape input[GQ_PROBE_INPUTS];   /* {GQ_DIRECTIONS, size} */
  bool sides;                  /* size: of a vector, or of either side of a matrix; else the tensor's shape */
} gq_probe;
void gq_probe_of(gq_shape shape, bool cut, gq_probe *p);
/* Component i of direction input k of tensor j: of either sign, 1/2 to 3/2 in size. */
double gq_probe_direction(int j, int k, size_t i);

/* The numbers at n points, {numbers, n}, and the sum of the sizes of what they were summed up from, {n}. product:
** a'df/dtheta summed over the points, which hangs linearly on the node a, of the state's shape for n points: points and
** rows are its last dim (columns) or it has them in front. at: where the points are in every node so far, by
** gq_rows_follow, with n > 1. GQ_NONE: f calls back. */
gq_ref gq_probe_emit(gq_graph *g, const gq_probe *p, int64_t n, const gq_label *at, bool columns, gq_ref product,
                     gq_ref a, const gq_ref *direction, gq_ref *size_);

#endif
