/*
** layout.c -- shapes with strides: what a kernel must know about where numbers are.
*/
#include "cpu.h"

gq_layout gq_layout_of(gq_shape s, const int64_t *stride_) {
  gq_layout l = { .ndim = s.ndim };
  int64_t run = 1;
  for (int i = s.ndim - 1; i >= 0; i--) {
    l.dim[i] = s.dim[i];
    l.stride[i] = stride_ ? stride_[i] : run;
    run *= s.dim[i];
  }
  return l;
}

bool gq_layout_contiguous(const gq_layout *l) {
  int64_t run = 1;
  for (int i = l->ndim - 1; i >= 0; i--) {
    if (l->dim[i] == 0) return true;
    if (l->dim[i] != 1 && l->stride[i] != run) return false;
    run *= l->dim[i];
  }
  return true;
}

void gq_layout_broadcast(const gq_layout *l, gq_shape s, int64_t *stride) {
  for (int i = 0; i < s.ndim; i++) {
    int j = i - (s.ndim - l->ndim);
    stride[i] = j < 0 || l->dim[j] == 1 ? 0 : l->stride[j];
  }
}
