/*
** binding.h -- the numbers of one solve: captures and what the prologue makes of them, cut into slices; and gradients
** of them, a set a slice.
*/
#ifndef GQ_BINDING_H
#define GQ_BINDING_H

#include "field.h"

typedef struct gq_binding {
  const gq_field *field;
  gq_pool own;                 /* its arrays */
  gq_tensor **capture;         /* [ncapture] packed, referenced */
  void *block;                 /* computed boundaries and slices that had to be copied */
  size_t bytes;
  const void **value;          /* [nslices][nb] */
} gq_binding;
int gq_binding_new(const gq_field *f, gq_tensor *const *capture, gq_binding **out);
void gq_binding_free(gq_binding *b_);
/* Capture i of a function, packed, where the field runs: the host's numbers go there, tensors must be there. */
int gq_capture_get(const gq_field *f, int i, gq_tensor *x, gq_tensor **out);

/* Gradient accumulators of the wanted boundary values, one set a slice where slices would collide. */
typedef struct gq_grads {
  const gq_field *field;
  void *block;
  size_t bytes;
  void **at;                   /* [nslices][nb], NULL where not wanted */
  bool probes;                 /* of the products' probes instead, [numbers] each */
  gq_tensor **whole;           /* [ncapture] what slice 0 adds to where that is the result itself, or NULL */
} gq_grads;
/* results: for gq_grads_collect, with captures that are used as they are summed where they are returned. */
int gq_grads_new(const gq_field *f, bool results, gq_grads *g);
int gq_grads_probes(const gq_field *f, gq_grads *g);
/* Root mean square of x - y_ over all that x has, slices summed. */
double gq_grads_rms(const gq_field *f, const gq_grads *x, const gq_grads *y_);
/* weight x, of the same kind, to `to` */
void gq_grads_add(const gq_field *f, double weight, const gq_grads *x, const gq_grads *to);
void gq_grads_done(gq_grads *g);
/* Sum the slices and pull back through the prologue: grad[i], a tensor for each wanted capture; g is used up. */
int gq_grads_collect(const gq_binding *b, gq_grads *g, gq_tensor **grad);

#endif
