/*
** tensor.c -- tensors as counted views of counted storage: making, viewing, releasing.
*/
#include "tensor.h"

#include <string.h>

void gq_tape_unref(struct gq_tape *t_); /* exec/tape.c: the one name of a later stage used here */

static void storage_unref(gq_storage *s) {
  if (!s || --s->refs > 0) return;
  s->device->release(s->device, s->data);
  gq_free(s);
}

static gq_storage *storage_new(const gq_device *on, size_t bytes, bool zero) {
  gq_storage *s = gq_calloc(1, sizeof *s);
  if (!s) return NULL;
  s->refs = 1;
  s->bytes = bytes;
  s->device = on;
  s->data = zero && on == gq_host ? gq_calloc(1, bytes) : on->allocate(on, bytes);
  if (s->data && zero && on != gq_host) on->fill(on, s->data, 0, bytes);
  if (s->data) return s;
  gq_free(s);
  return NULL;
}

/* A tensor without storage. */
static gq_tensor *bare(gq_dtype d, gq_shape s) {
  gq_tensor *t = gq_calloc(1, sizeof *t);
  if (!t) return NULL;
  t->refs = 1;
  t->dtype = d;
  t->shape = s;
  t->ref = -1;
  gq_shape_strides(s, t->stride);
  return t;
}

static int make(const gq_device *on, gq_dtype d, gq_shape s, bool zero, gq_tensor **out) {
  size_t bytes;
  *out = NULL;
  GQ_TRY(gq_shape_check(s, d, &bytes));
  gq_tensor *t = bare(d, s);
  if (!t) return gq_nomem(sizeof *t);
  t->storage = storage_new(on, bytes, zero);
  if (!t->storage) {
    gq_free(t);
    return gq_nomem(bytes);
  }
  *out = t;
  return GQ_OK;
}

int gq_tensor_new_on(const gq_device *on, gq_dtype d, gq_shape s, gq_tensor **out) {
  return make(on, d, s, true, out);
}

int gq_tensor_empty_on(const gq_device *on, gq_dtype d, gq_shape s, gq_tensor **out) {
  return make(on, d, s, false, out);
}

int gq_tensor_new(gq_dtype d, gq_shape s, gq_tensor **out) { return make(gq_host, d, s, true, out); }
int gq_tensor_empty(gq_dtype d, gq_shape s, gq_tensor **out) { return make(gq_host, d, s, false, out); }

int gq_tensor_traced(gq_dtype d, gq_shape s, uint64_t trace, int32_t ref, gq_tensor **out) {
  *out = NULL;
  GQ_TRY(gq_shape_check(s, d, NULL));
  gq_tensor *t = bare(d, s);
  if (!t) return gq_nomem(sizeof *t);
  t->trace = trace;
  t->ref = ref;
  *out = t;
  return GQ_OK;
}

/* First and last element that a view touches lie inside the storage. One of none touches nothing. */
static bool inside(gq_shape s, const int64_t *stride, int64_t offset, int64_t numbers) {
  int64_t low = offset, high = offset, reach;
  if (gq_numel(s) == 0) return true;
  for (int i = 0; i < s.ndim; i++) {
    if (__builtin_mul_overflow(s.dim[i] - 1, stride[i], &reach)) return false;
    if (__builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high)) return false;
  }
  return low >= 0 && high < numbers;
}

int gq_tensor_view(const gq_tensor *t, gq_shape s, const int64_t *stride, int64_t offset, gq_tensor **out) {
  *out = NULL;
  GQ_TRY(gq_shape_check(s, t->dtype, NULL));
  if (!t->storage) return gq_fail(GQ_ESTATE, "a traced value has no storage to view");
  if (!inside(s, stride, offset, (int64_t)(t->storage->bytes / gq_dtype_size(t->dtype))))
    return gq_fail(GQ_EINDEX, "the view reaches outside its tensor");
  gq_tensor *v = bare(t->dtype, s);
  if (!v) return gq_nomem(sizeof *v);
  memcpy(v->stride, stride, (size_t)s.ndim * sizeof *stride);
  v->offset = gq_numel(s) ? offset : 0;
  v->storage = t->storage;
  v->storage->refs++;
  *out = v;
  return GQ_OK;
}

gq_tensor *gq_tensor_ref(gq_tensor *t) {
  if (t) t->refs++;
  return t;
}

/* A gradient may have a gradient: a loop, not a recursion. */
void gq_tensor_unref(gq_tensor *t_) {
  while (t_ && --t_->refs == 0) {
    gq_tensor *next = t_->grad;
    struct gq_tape *tape = t_->tape;
    storage_unref(t_->storage);
    gq_free(t_);
    if (tape) gq_tape_unref(tape);
    t_ = next;
  }
}

void *gq_tensor_data(const gq_tensor *t) {
  return t->storage ? (char *)t->storage->data + t->offset * (int64_t)gq_dtype_size(t->dtype) : NULL;
}

bool gq_tensor_contiguous(const gq_tensor *t) {
  int64_t step = 1;
  if (gq_numel(t->shape) == 0) return true;
  for (int i = t->shape.ndim - 1; i >= 0; i--) {
    if (t->shape.dim[i] != 1 && t->stride[i] != step) return false;
    step *= t->shape.dim[i];
  }
  return true;
}

/* t itself if it is on d_ (NULL: if it is packed), else a packed copy there. */
static int itself_or_copy(gq_tensor *t, const gq_device *d_, gq_tensor **out) {
  gq_tensor *copy;
  *out = NULL;
  if (!t->storage) return gq_fail(GQ_ESTATE, "a traced value has no numbers");
  if (d_ ? t->storage->device == d_ : gq_tensor_contiguous(t)) return *out = gq_tensor_ref(t), GQ_OK;
  GQ_TRY(gq_tensor_empty_on(d_ ? d_ : t->storage->device, t->dtype, t->shape, &copy));
  int status = gq_tensor_copy(copy, t);
  if (status == GQ_OK) *out = copy;
  else gq_tensor_unref(copy);
  return status;
}

int gq_tensor_contiguous_get(gq_tensor *t, gq_tensor **out) { return itself_or_copy(t, NULL, out); }
int gq_tensor_on(gq_tensor *t, const gq_device *d, gq_tensor **out) { return itself_or_copy(t, d, out); }

int gq_tensor_host(gq_tensor *t, gq_tensor **out) {
  return t->storage && t->storage->device != gq_host ? gq_tensor_on(t, gq_host, out)
                                                     : gq_tensor_contiguous_get(t, out);
}

/* ---- parameters in one block ---- */

static bool seen_before(gq_tensor *const *t, int i) {
  for (int j = 0; j < i; j++)
    if (t[j]->storage == t[i]->storage) return true;
  return false;
}

static void move_into(gq_tensor *t, gq_tensor *flat, int64_t offset) {
  storage_unref(t->storage);
  t->storage = flat->storage;
  t->storage->refs++;
  t->offset = offset;
  gq_shape_strides(t->shape, t->stride);
}

/* Everything that can fail comes before the first tensor moves. */
int gq_tensor_flatten(int n, gq_tensor *const *t, bool *moved, gq_tensor **flat) {
  int64_t total = 0;
  const gq_device *on = n ? gq_tensor_device(t[0]) : gq_host;
  *flat = NULL;
  for (int i = 0; i < n; i++) {
    if (t[i]->dtype != t[0]->dtype)
      return gq_fail(GQ_EDTYPE, "tensors of %s and %s cannot share a block", gq_dtype_name(t[0]->dtype),
                     gq_dtype_name(t[i]->dtype));
    moved[i] = t[i]->storage && t[i]->storage->refs == 1 && t[i]->storage->device == on && !seen_before(t, i);
    if (moved[i]) total += gq_numel(t[i]->shape);
  }
  GQ_TRY(gq_tensor_empty_on(on, n ? t[0]->dtype : GQ_F32, (gq_shape){ 1, { total } }, flat));
  int64_t at = 0;
  for (int i = 0; i < n; i++) {
    if (!moved[i]) continue;
    gq_tensor part = **flat;
    part.shape = t[i]->shape;
    part.offset = at;
    gq_shape_strides(part.shape, part.stride);
    gq_tensor_copy(&part, t[i]); /* same shape and dtype, separate storage: cannot fail */
    move_into(t[i], *flat, at);
    at += gq_numel(t[i]->shape);
  }
  return GQ_OK;
}
