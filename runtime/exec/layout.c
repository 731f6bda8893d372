/*
** layout.c -- shapes with strides: what must be known about where numbers are.
*/
#include "layout.h"

#include <string.h>

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

/* ---- views ---- */

/* The contiguous strides, or all zero. */
static bool view_reshape(const gq_attr *attr, const gq_layout *l, gq_shape s, int64_t *stride,
                         int64_t *offset) {
  bool zero = true;
  for (int i = 0; i < l->ndim; i++) zero = zero && (l->stride[i] == 0 || l->dim[i] == 1);
  gq_shape_strides(s, stride);
  if (zero) memset(stride, 0, GQ_MAXDIM * sizeof *stride);
  return zero || gq_layout_contiguous(l);
}

static bool view_permute(const gq_attr *attr, const gq_layout *l, gq_shape s, int64_t *stride,
                         int64_t *offset) {
  for (int i = 0; i < s.ndim; i++) stride[i] = l->stride[attr->perm[i]];
  return true;
}

static bool view_expand(const gq_attr *attr, const gq_layout *l, gq_shape s, int64_t *stride,
                        int64_t *offset) {
  gq_layout_broadcast(l, s, stride);
  return true;
}

static bool view_slice(const gq_attr *attr, const gq_layout *l, gq_shape s, int64_t *stride,
                       int64_t *offset) {
  for (int i = 0; i < s.ndim; i++) {
    stride[i] = l->stride[i] * attr->step[i];
    if (gq_numel(s)) *offset += l->stride[i] * attr->start[i];
  }
  return true;
}

static bool view_window(const gq_attr *attr, const gq_layout *l, gq_shape s, int64_t *stride,
                        int64_t *offset) {
  int axis = attr->axis, n = attr->flags;
  for (int i = 0; i < s.ndim; i++)
    stride[i] = i < axis           ? l->stride[i]
                : i < axis + n     ? l->stride[i] * attr->start[i]
                : i < axis + 2 * n ? l->stride[i - n] * attr->step[i - n]
                                   : l->stride[i - n];
  return true;
}

bool gq_layout_view(gq_op op, const gq_attr *attr, const gq_layout *l, gq_shape s, int64_t *stride,
                    int64_t *offset) {
  static bool (*const views[GQ_NOP])(const gq_attr *, const gq_layout *, gq_shape, int64_t *, int64_t *) = {
    [GQ_OP_RESHAPE] = view_reshape, [GQ_OP_PERMUTE] = view_permute, [GQ_OP_EXPAND] = view_expand,
    [GQ_OP_SLICE] = view_slice,     [GQ_OP_WINDOW] = view_window,
  };
  return views[op] && views[op](attr, l, s, stride, offset);
}

/* ---- moves ---- */

static void land_pad(const gq_attr *attr, gq_shape part, gq_landing *l) {
  for (int i = 0; i < part.ndim; i++) {
    l->at += l->stride[i] * attr->start[i];
    l->stride[i] *= attr->step[i];
  }
}

static void land_cat(const gq_attr *attr, gq_shape part, gq_landing *l) {
  l->at = l->next;
  l->next += part.dim[attr->axis] * l->stride[attr->axis];
}

bool gq_layout_land(gq_op op, const gq_attr *attr, gq_shape whole, gq_shape part, gq_landing *l) {
  static void (*const moves[GQ_NOP])(const gq_attr *, gq_shape, gq_landing *) = {
    [GQ_OP_PAD] = land_pad,
    [GQ_OP_CAT] = land_cat,
  };
  gq_shape_strides(whole, l->stride);
  if (moves[op]) moves[op](attr, part, l);
  return moves[op];
}

/* ---- by index ---- */

void gq_shape_around(const gq_shape *s, int axis, int64_t *outer, int64_t *n, int64_t *inner) {
  *outer = *inner = 1;
  *n = s->ndim ? s->dim[axis] : 1;
  for (int i = 0; i < axis; i++) *outer *= s->dim[i];
  for (int i = axis + 1; i < s->ndim; i++) *inner *= s->dim[i];
}

gq_windows gq_windows_of(const gq_indexing *p) {
  const gq_attr *attr = &p->attr;
  gq_windows w = { .numbers = gq_numel(attr->shape), .n = attr->flags, .outer = 1, .inner = 1 };
  for (int i = 0; i < attr->axis; i++) w.outer *= attr->shape.dim[i];
  for (int i = attr->axis + attr->flags; i < attr->shape.ndim; i++) w.inner *= attr->shape.dim[i];
  for (int i = 0, at = attr->axis; i < attr->flags; i++, at++) {
    w.k[i] = p->in[0].dim[at], w.count[i] = p->in[0].dim[at + attr->flags], w.size[i] = attr->shape.dim[at];
    w.step[i] = attr->step[at], w.apart[i] = attr->start[at];
  }
  return w;
}
