/*
** shape.c -- dtypes and shapes: names, sizes, strides, broadcasting. Products are checked once,
** in gq_shape_check; every tensor passes through it, so gq_numel need not.
*/
#include "tensor.h"

#include <stdio.h>
#include <string.h>

static const struct {
  const char *name;
  size_t size;
} dtypes[GQ_NDTYPE] = { { "float32", 4 }, { "float64", 8 }, { "int64", 8 }, { "bool", 1 } };

size_t gq_dtype_size(gq_dtype d) { return dtypes[d].size; }
const char *gq_dtype_name(gq_dtype d) { return dtypes[d].name; }

bool gq_dtype_of(const char *name, gq_dtype *out) {
  for (int d = 0; d < GQ_NDTYPE; d++)
    if (strcmp(name, dtypes[d].name) == 0) {
      *out = (gq_dtype)d;
      return true;
    }
  return false;
}

/* Too many dimensions are kept as a count, for gq_shape_check to refuse. */
gq_shape gq_shape_of(int ndim, const int64_t *dim) {
  gq_shape s = { .ndim = ndim };
  for (int i = 0; i < ndim && i < GQ_MAXDIM; i++) s.dim[i] = dim[i];
  return s;
}

int64_t gq_numel(gq_shape s) {
  int64_t n = 1;
  for (int i = 0; i < s.ndim; i++) n *= s.dim[i];
  return n;
}

bool gq_shape_equal(gq_shape a, gq_shape b) {
  if (a.ndim != b.ndim) return false;
  for (int i = 0; i < a.ndim; i++)
    if (a.dim[i] != b.dim[i]) return false;
  return true;
}

#define MAX_NUMBERS ((int64_t)1 << 40)

int gq_shape_check(gq_shape s, gq_dtype d, size_t *bytes_) {
  if (s.ndim < 0 || s.ndim > GQ_MAXDIM)
    return gq_fail(GQ_ESHAPE, "%d dimensions: at most %d are supported", s.ndim, GQ_MAXDIM);
  int64_t n = 1;
  bool fits = true, empty = false; /* a zero hides no overflow elsewhere: {0, 2^62} has strides */
  for (int i = 0; i < s.ndim; i++) {
    if (s.dim[i] < 0)
      return gq_fail(GQ_ESHAPE, "size %lld of dimension %d is negative", (long long)s.dim[i], i + 1);
    if (s.dim[i] == 0) empty = true;
    else if (__builtin_mul_overflow(n, s.dim[i], &n) || n > MAX_NUMBERS) fits = false;
    if (!fits) n = 1;
  }
  if (!fits) {
    char text[160];
    return gq_fail(GQ_ESHAPE, "shape %s has more than 2^40 numbers", gq_shape_text(s, text, sizeof text));
  }
  if (bytes_) *bytes_ = empty ? 0 : (size_t)n * gq_dtype_size(d);
  return GQ_OK;
}

/* NumPy's rule: align at the last dimension; sizes agree or one of them is 1. */
int gq_shape_broadcast(gq_shape a, gq_shape b, gq_shape *out) {
  gq_shape r = { .ndim = a.ndim > b.ndim ? a.ndim : b.ndim };
  for (int i = 1; i <= r.ndim; i++) {
    int64_t x = i <= a.ndim ? a.dim[a.ndim - i] : 1, y = i <= b.ndim ? b.dim[b.ndim - i] : 1;
    if (x != y && x != 1 && y != 1) {
      char p[160], q[160];
      return gq_fail(GQ_ESHAPE, "shapes %s and %s do not broadcast", gq_shape_text(a, p, sizeof p),
                     gq_shape_text(b, q, sizeof q));
    }
    r.dim[r.ndim - i] = x == 1 ? y : x;
  }
  GQ_TRY(gq_shape_check(r, GQ_F64, NULL));
  *out = r;
  return GQ_OK;
}

const char *gq_shape_text(gq_shape s, char *buf, size_t n) {
  size_t at = (size_t)snprintf(buf, n, "{");
  for (int i = 0; i < s.ndim && i < GQ_MAXDIM && at < n; i++)
    at += (size_t)snprintf(buf + at, n - at, "%s%lld", i ? ", " : "", (long long)s.dim[i]);
  if (at < n) snprintf(buf + at, n - at, "}");
  return buf;
}

void gq_shape_strides(gq_shape s, int64_t *stride) {
  int64_t step = 1;
  for (int i = s.ndim - 1; i >= 0; i--) {
    stride[i] = step;
    if (s.dim[i] > 0) step *= s.dim[i];
  }
}
