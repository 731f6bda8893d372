/*
** tensor.h -- a tensor is a view (dtype, shape, strides, offset) of a counted storage.
** Everything that can be asked without computing lives here; computing is exec's.
*/
#ifndef GQ_TENSOR_H
#define GQ_TENSOR_H

#include "device.h"

typedef enum gq_dtype { GQ_F32, GQ_F64, GQ_I64, GQ_BOOL, GQ_NDTYPE } gq_dtype;   /* bool: one byte, 0 or 1 */

#define GQ_MAXDIM 8

typedef struct gq_shape {
  int ndim;                       /* 0: a single number */
  int64_t dim[GQ_MAXDIM];
} gq_shape;

typedef struct gq_storage {
  long refs;
  size_t bytes;
  uint64_t version;               /* +1 at every in-place write: the tape notices */
  const gq_device *device;        /* whose address data is */
  void *data;
} gq_storage;

struct gq_tape;                   /* exec/tape.h: how an eager result was made */

typedef struct gq_tensor {
  long refs;
  gq_dtype dtype;
  gq_shape shape;
  int64_t stride[GQ_MAXDIM];      /* in elements; 0 where expanded */
  int64_t offset;                 /* in elements */
  gq_storage *storage;            /* NULL: a traced value, it has no numbers */
  bool requires_grad;             /* asked for (leaf) or inherited (tape != NULL) */
  struct gq_tensor *grad;         /* of a leaf; NULL until backward */
  struct gq_tape *tape;           /* of a result; NULL for a leaf */
  uint64_t trace;                 /* id of the trace that this value belongs to, or 0 */
  int32_t ref;                    /* its node in that trace's graph */
} gq_tensor;

size_t gq_dtype_size(gq_dtype d);
const char *gq_dtype_name(gq_dtype d);                   /* "float32" ... */
bool gq_dtype_of(const char *name, gq_dtype *out);
static inline bool gq_is_float(gq_dtype d) { return d == GQ_F32 || d == GQ_F64; }

/* Number i of an array of floats of dtype d, of the host's. */
static inline double gq_number(gq_dtype d, const void *p, int64_t i) {
  return d == GQ_F32 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}
static inline void gq_set_number(gq_dtype d, void *p, int64_t i, double x) {
  if (d == GQ_F32) ((float *)p)[i] = (float)x;
  else ((double *)p)[i] = x;
}

gq_shape gq_shape_of(int ndim, const int64_t *dim);
int64_t gq_numel(gq_shape s);                            /* product; shapes are checked when made */
bool gq_shape_equal(gq_shape a, gq_shape b);
int gq_shape_check(gq_shape s, gq_dtype d, size_t *bytes_);   /* rank, negative, overflow (2^40 numbers at most) */
int gq_shape_broadcast(gq_shape a, gq_shape b, gq_shape *out);
const char *gq_shape_text(gq_shape s, char *buf, size_t n);   /* "{2, 3}"; returns buf */
void gq_shape_strides(gq_shape s, int64_t *stride);      /* row-major, contiguous */

int gq_tensor_new(gq_dtype d, gq_shape s, gq_tensor **out);       /* zeroed, refs 1 */
int gq_tensor_empty(gq_dtype d, gq_shape s, gq_tensor **out);     /* uninitialised */
int gq_tensor_traced(gq_dtype d, gq_shape s, uint64_t trace, int32_t ref, gq_tensor **out);
/* The same on a device other than the host. */
int gq_tensor_new_on(const gq_device *on, gq_dtype d, gq_shape s, gq_tensor **out);
int gq_tensor_empty_on(const gq_device *on, gq_dtype d, gq_shape s, gq_tensor **out);
/* A view: same storage, refs +1 on it. offset counts from the start of the storage; of no numbers it
** is any. */
int gq_tensor_view(const gq_tensor *t, gq_shape s, const int64_t *stride, int64_t offset, gq_tensor **out);
gq_tensor *gq_tensor_ref(gq_tensor *t);
void gq_tensor_unref(gq_tensor *t_);                     /* NULL is fine; frees long tapes without recursion */

void *gq_tensor_data(const gq_tensor *t);                /* address of the first element, on its device */
static inline const gq_device *gq_tensor_device(const gq_tensor *t) {
  return t->storage ? t->storage->device : gq_host;
}
int gq_tensor_on(gq_tensor *t, const gq_device *d, gq_tensor **out);      /* itself (ref +1) or a copy there */
int gq_tensor_host(gq_tensor *t, gq_tensor **out);       /* its numbers, to be read: contiguous, on the host */
bool gq_tensor_contiguous(const gq_tensor *t);
int gq_tensor_contiguous_get(gq_tensor *t, gq_tensor **out);   /* itself (ref +1) or a packed copy */
int gq_tensor_copy(gq_tensor *dst, const gq_tensor *src);      /* any strides and devices, casts; same shape; version + 1 */
/* On the host, numbers of 1, 4 or 8 bytes over the dims: dst[...] = src[...], strides in numbers. */
void gq_copy_numbers(size_t size, int ndim, const int64_t *dim, const void *src, const int64_t *from, void *dst,
                     const int64_t *to);
int gq_tensor_fill(gq_tensor *t, double value);
int gq_tensor_fill_int(gq_tensor *t, int64_t value);       /* exact in int64 */
double gq_tensor_get(const gq_tensor *t, const int64_t *index);           /* one number */
void gq_tensor_set(gq_tensor *t, const int64_t *index, double value);     /* no version bump */
int64_t gq_tensor_get_int(const gq_tensor *t, const int64_t *index);
/* Move the contents of n tensors into one new contiguous block and make each a view of it
** (parameters in one flat vector). Tensors whose storage is shared with other views stay
** where they are. All must have the same dtype. flat: numbers in order; NULL entries of
** moved[i] = false say who stayed. */
int gq_tensor_flatten(int n, gq_tensor *const *t, bool *moved, gq_tensor **flat);

#endif
