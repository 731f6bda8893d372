/*
** backend.h -- what runs programs: one row for each, and where it is asked for. Addresses of a backend's memory may be
** read by its calls alone.
*/
#ifndef GQ_BACKEND_H
#define GQ_BACKEND_H

#include "vec.h"

typedef struct gq_backend {
  const char *name;
  void *(*allocate)(const struct gq_backend *b, size_t bytes);   /* NULL: none is left */
  void (*release)(const struct gq_backend *b, void *p_);
  void (*copy)(const struct gq_backend *b, void *dst, const void *src, size_t bytes);   /* either may be the host's */
  void (*fill)(const struct gq_backend *b, void *dst, int byte, size_t bytes);
  const gq_vectors *vec;
} gq_backend;

extern const gq_backend gq_cpu_backend;

/* Where a tensor's numbers are. */
static inline const gq_backend *gq_backend_of(const gq_tensor *t) { return &gq_cpu_backend; }

static inline void gq_copy(const gq_backend *b, void *dst, const void *src, size_t bytes) {
  b->copy(b, dst, src, bytes);
}
static inline void gq_zero(const gq_backend *b, void *dst, size_t bytes) { b->fill(b, dst, 0, bytes); }

/* In the host's memory. */
static inline void gq_axpy(gq_dtype d, size_t n, double s, const void *src, void *dst) {
  gq_cpu_backend.vec->axpy(d, n, s, src, dst);
}

#endif
