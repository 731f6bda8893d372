/*
** device.h -- where numbers live: memory, and moving numbers there.
*/
#ifndef GQ_DEVICE_H
#define GQ_DEVICE_H

#include "../base/base.h"

struct gq_tensor;
struct gq_backend;

typedef struct gq_device {
  const char *name;            /* "cpu" */
  int number;                  /* of its kind, from 0 */
  const struct gq_backend *backend;   /* what runs programs there (exec/backend.h); NULL: the CPU's */
  void *(*allocate)(const struct gq_device *d, size_t bytes);    /* NULL: none is left */
  void (*release)(const struct gq_device *d, void *p_);
  void *(*share)(const struct gq_device *d, size_t bytes);       /* memory that the host reads and writes too */
  void (*unshare)(const struct gq_device *d, void *p_);
  void (*copy)(const struct gq_device *d, void *dst, const void *src, size_t bytes);   /* either may be the host's */
  void (*fill)(const struct gq_device *d, void *dst, int byte, size_t bytes);
  void (*wait)(const struct gq_device *d);                       /* until all that was asked for is done */
  /* dst = src of the same shape, with any strides and dtypes; src may be one number of the host's, at strides of 0. */
  void (*move)(struct gq_tensor *dst, const struct gq_tensor *src);
} gq_device;

extern const gq_device gq_host[1];   /* the CPU: addresses that anyone reads (copy.c) */

#endif
