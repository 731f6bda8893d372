/*
** convolution.h -- the sizes of a convolution: the product of a matrix with all windows of images, or an adjoint of it.
*/
#ifndef GQ_CONVOLUTION_H
#define GQ_CONVOLUTION_H

#include "../ir/ir.h"

/* W {.., m, K} with K = c k_1 k_2, images X {blocks, c, size_1, size_2}, windows win(X) {blocks, K, P} with P = count_1
** count_2, G {blocks, m, P}. One windowed dimension: sizes of 1 for the second. */
typedef enum gq_conv_kind {
  GQ_CONV,        /* G = W win(X) */
  GQ_CONV_DATA,   /* X = win'(W' G): windows added where they were */
  GQ_CONV_WEIGHT  /* W = sum over blocks of G win(X)' */
} gq_conv_kind;

typedef struct gq_conv {
  gq_conv_kind kind;
  gq_dtype dtype;
  bool turned;                 /* W is stored {.., K, m} (not for GQ_CONV_WEIGHT) */
  int64_t blocks, period;      /* W repeats after so many blocks: groups */
  int64_t m, c;
  int64_t size[2], k[2], count[2];
  int64_t step[2], apart[2];   /* from window to window; between the numbers of one */
  int64_t pad[2];              /* zeros before the image, and behind it as many as windows reach */
} gq_conv;

#endif
