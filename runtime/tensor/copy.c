/*
** copy.c -- moving numbers between tensors of any strides and dtypes, and single numbers.
*/
#include "tensor.h"

#include <math.h>
#include <string.h>

/* Conversions that C leaves undefined get a meaning: NaN is 0, what is too large stops at the end. */
static int64_t to_int(double x) {
  if (x != x) return 0;
  if (x >= 0x1p63) return INT64_MAX;
  if (x < -0x1p63) return INT64_MIN;
  return (int64_t)x;
}

/* One row: n numbers, strides in elements. */
typedef void row_fn(void *dst, int64_t ds, const void *src, int64_t ss, int64_t n);

#define ROW(name, D, S, convert)                                                    \
  static void name(void *dst, int64_t ds, const void *src, int64_t ss, int64_t n) { \
    D *d = dst;                                                                     \
    const S *s = src;                                                               \
    for (int64_t i = 0; i < n; i++, d += ds, s += ss) *d = (D)convert(*s);          \
  }
#define SAME(name, T)                                                               \
  static void name(void *dst, int64_t ds, const void *src, int64_t ss, int64_t n) { \
    T *d = dst;                                                                     \
    const T *s = src;                                                               \
    if (ds == 1 && ss == 1) memcpy(d, s, (size_t)n * sizeof *d);                    \
    else                                                                            \
      for (int64_t i = 0; i < n; i++) d[i * ds] = s[i * ss];                        \
  }
#define NONZERO(x) ((x) != 0)

SAME(one_byte, uint8_t)
SAME(four_bytes, uint32_t)
SAME(eight_bytes, uint64_t)
ROW(f32_f64, float, double, )
ROW(f32_i64, float, int64_t, )
ROW(f32_bool, float, uint8_t, )
ROW(f64_f32, double, float, )
ROW(f64_i64, double, int64_t, )
ROW(f64_bool, double, uint8_t, )
ROW(i64_f32, int64_t, float, to_int)
ROW(i64_f64, int64_t, double, to_int)
ROW(i64_bool, int64_t, uint8_t, )
ROW(bool_f32, uint8_t, float, NONZERO)
ROW(bool_f64, uint8_t, double, NONZERO)
ROW(bool_i64, uint8_t, int64_t, NONZERO)

static row_fn *const row_of[GQ_NDTYPE][GQ_NDTYPE] = {
  /* [to][from] */
  { four_bytes, f32_f64, f32_i64, f32_bool },
  { f64_f32, eight_bytes, f64_i64, f64_bool },
  { i64_f32, i64_f64, eight_bytes, i64_bool },
  { bool_f32, bool_f64, bool_i64, one_byte },
};

/* Numbers of so many bytes, strides in numbers. */
typedef struct side {
  char *at;
  const int64_t *stride;
  size_t size;
} side;

/* Both sides as a stack of rows: dimensions of one are left out, those that lie behind each other in both are one. */
static void copy_rows(row_fn *row, int ndim, const int64_t *dims, side d, side s) {
  int64_t at[GQ_MAXDIM] = { 0 }, dim[GQ_MAXDIM] = { 1 }, from[GQ_MAXDIM] = { 0 }, to[GQ_MAXDIM] = { 0 };
  int64_t dsize = (int64_t)d.size, ssize = (int64_t)s.size;
  int last = -1;
  for (int i = 0; i < ndim; i++) {
    int64_t n = dims[i], f = s.stride[i], t = d.stride[i];
    if (n == 0) return;
    if (n == 1) continue;
    bool behind = last >= 0 && from[last] == n * f && to[last] == n * t;
    if (!behind) dim[++last] = 1;
    dim[last] *= n, from[last] = f, to[last] = t;
  }
  last = last < 0 ? 0 : last;
  for (;;) {
    row(d.at, to[last], s.at, from[last], dim[last]);
    int i = last - 1;
    for (; i >= 0; i--) { /* count up, as an odometer does */
      d.at += to[i] * dsize, s.at += from[i] * ssize;
      if (++at[i] < dim[i]) break;
      d.at -= at[i] * to[i] * dsize, s.at -= at[i] * from[i] * ssize;
      at[i] = 0;
    }
    if (i < 0) return;
  }
}

void gq_copy_numbers(size_t size, int ndim, const int64_t *dim, const void *src, const int64_t *from,
                     void *dst, const int64_t *to) {
  copy_rows(size == 4   ? four_bytes
            : size == 8 ? eight_bytes
                        : one_byte,
            ndim, dim, (side){ dst, to, size }, (side){ (char *)(uintptr_t)src, from, size });
}

static void move(gq_tensor *dst, const gq_tensor *src) {
  copy_rows(row_of[dst->dtype][src->dtype], dst->shape.ndim, dst->shape.dim,
            (side){ gq_tensor_data(dst), dst->stride, gq_dtype_size(dst->dtype) },
            (side){ gq_tensor_data(src), src->stride, gq_dtype_size(src->dtype) });
}

/* ---- the host's own memory ---- */

static void *allocate(const gq_device *d, size_t bytes) { return gq_alloc(bytes); }
static void release(const gq_device *d, void *p_) { gq_free(p_); }
static void copy(const gq_device *d, void *dst, const void *src, size_t bytes) { memcpy(dst, src, bytes); }
static void fill_bytes(const gq_device *d, void *dst, int byte, size_t bytes) { memset(dst, byte, bytes); }
static void nothing(const gq_device *d) {}

const gq_device gq_host[1] = { {
  .name = "cpu",
  .allocate = allocate,
  .release = release,
  .share = allocate,
  .unshare = release,
  .copy = copy,
  .fill = fill_bytes,
  .wait = nothing,
  .move = move,
} };

/* Between devices: contiguous, of one dtype, through the host where neither is it. */
static int carry(gq_tensor *dst, const gq_tensor *src) {
  const gq_device *from = src->storage->device, *to = dst->storage->device;
  gq_tensor *packed = NULL, *landed = NULL;
  int status = gq_tensor_empty_on(from, dst->dtype, dst->shape, &packed);
  if (status == GQ_OK) from->move(packed, src);
  if (status == GQ_OK && from != gq_host && to != gq_host) {
    status = gq_tensor_empty(dst->dtype, dst->shape, &landed);
    if (status == GQ_OK) status = carry(landed, packed);
    if (status == GQ_OK) status = carry(dst, landed);
  } else if (status == GQ_OK) {
    size_t bytes = (size_t)gq_numel(dst->shape) * gq_dtype_size(dst->dtype);
    const gq_device *far = to == gq_host ? from : to;
    status = gq_tensor_empty_on(to, dst->dtype, dst->shape, &landed);
    if (status == GQ_OK) {
      far->copy(far, gq_tensor_data(landed), gq_tensor_data(packed), bytes);
      if (far == from) far->wait(far); /* what a device is given it has taken when that returns */
      status = gq_pending();
    }
    if (status == GQ_OK) to->move(dst, landed);
  }
  gq_tensor_unref(packed);
  gq_tensor_unref(landed);
  return status;
}

static int check_writable(const gq_tensor *t) {
  if (!t->storage) return gq_fail(GQ_ESTATE, "a traced value cannot be written to");
  for (int i = 0; i < t->shape.ndim; i++)
    if (t->stride[i] == 0 && t->shape.dim[i] > 1)
      return gq_fail(GQ_EARG,
                     "an expanded tensor holds one number many times and cannot be written to: use :clone()");
  return GQ_OK;
}

int gq_tensor_copy(gq_tensor *dst, const gq_tensor *src) {
  GQ_TRY(check_writable(dst));
  if (!src->storage) return gq_fail(GQ_ESTATE, "a traced value has no numbers to copy");
  if (!gq_shape_equal(dst->shape, src->shape)) {
    char a[160], b[160];
    return gq_fail(GQ_ESHAPE, "a tensor of shape %s cannot be copied into one of shape %s",
                   gq_shape_text(src->shape, b, sizeof b), gq_shape_text(dst->shape, a, sizeof a));
  }
  gq_tensor *apart = NULL;
  if (dst->storage == src->storage && gq_numel(dst->shape) > 1) { /* views may overlap */
    GQ_TRY(gq_tensor_empty_on(src->storage->device, src->dtype, src->shape, &apart));
    src->storage->device->move(apart, src);
    src = apart;
  }
  int status = GQ_OK;
  if (dst->storage->device == src->storage->device) dst->storage->device->move(dst, src);
  else status = carry(dst, src);
  dst->storage->version++;
  gq_tensor_unref(apart);
  return status;
}

/* ---- single numbers ---- */

static double load(const void *p, gq_dtype d) {
  switch (d) {
    case GQ_F32: return *(const float *)p;
    case GQ_F64: return *(const double *)p;
    case GQ_I64: return (double)*(const int64_t *)p;
    default: return *(const uint8_t *)p;
  }
}

static void store(void *p, gq_dtype d, double x) {
  switch (d) {
    case GQ_F32: *(float *)p = (float)x; break;
    case GQ_F64: *(double *)p = x; break;
    case GQ_I64: *(int64_t *)p = to_int(x); break;
    default: *(uint8_t *)p = x != 0; break;
  }
}

static void *at(const gq_tensor *t, const int64_t *index) {
  int64_t i = 0;
  for (int k = 0; k < t->shape.ndim; k++) {
    GQ_ASSERT(index[k] >= 0 && index[k] < t->shape.dim[k]);
    i += index[k] * t->stride[k];
  }
  return (char *)gq_tensor_data(t) + i * (int64_t)gq_dtype_size(t->dtype);
}

typedef union number {
  float f32;
  double f64;
  int64_t i64;
  uint8_t b;
} number;

/* The number at p, on the host. */
static const void *fetch(const gq_tensor *t, const void *p, number *x) {
  const gq_device *d = t->storage->device;
  if (d == gq_host) return p;
  d->copy(d, x, p, gq_dtype_size(t->dtype));
  return x;
}

double gq_tensor_get(const gq_tensor *t, const int64_t *index) {
  number x;
  return load(fetch(t, at(t, index), &x), t->dtype);
}

void gq_tensor_set(gq_tensor *t, const int64_t *index, double value) {
  const gq_device *d = t->storage->device;
  number x;
  store(&x, t->dtype, value);
  d->copy(d, at(t, index), &x, gq_dtype_size(t->dtype));
}

int64_t gq_tensor_get_int(const gq_tensor *t, const int64_t *index) {
  number x;
  const void *p = fetch(t, at(t, index), &x);
  return t->dtype == GQ_I64 ? *(const int64_t *)p : to_int(load(p, t->dtype));
}

/* One number, of dtype `d`, everywhere. */
static int fill(gq_tensor *t, gq_dtype d, number bits) {
  GQ_TRY(check_writable(t));
  gq_storage one = { .refs = 1, .bytes = sizeof bits, .device = gq_host, .data = &bits };
  gq_tensor one_number = { .refs = 1, .dtype = d, .shape = t->shape, .storage = &one }; /* strides 0 */
  t->storage->device->move(t, &one_number);
  t->storage->version++;
  return GQ_OK;
}

int gq_tensor_fill(gq_tensor *t, double value) {
  number bits;
  store(&bits, t->dtype, value);
  return fill(t, t->dtype, bits);
}

int gq_tensor_fill_int(gq_tensor *t, int64_t value) { return fill(t, GQ_I64, (number){ .i64 = value }); }
