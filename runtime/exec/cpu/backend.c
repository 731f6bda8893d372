/*
** backend.c -- the CPU's row.
*/
#include "cpu.h"

#include <string.h>

static void *allocate(const gq_device *d, size_t bytes) { return gq_alloc(bytes); }
static void release(const gq_device *d, void *p_) { gq_free(p_); }

static void copy(const gq_device *d, void *dst, const void *src, size_t bytes) { memcpy(dst, src, bytes); }
static void fill(const gq_device *d, void *dst, int byte, size_t bytes) { memset(dst, byte, bytes); }

static void nothing(const gq_device *d) {}

enum { ROWS_PER_SLICE = 16 }; /* fewer rows than this are not worth a thread */

static int slices(int64_t rows, int64_t width) {
  int64_t most = rows / ROWS_PER_SLICE;
  return most < gq_threads() ? (int)most : gq_threads();
}

/* A thread owns a slice of the batch for a whole step. */
static const gq_lowering threads = {
  .name = "threads",
  .columns = true,
  .convolutions = true,
  .slices = slices,
  .most = 64,
  .lanes = 32, /* whole vectors, and few enough to be full */
  .points = 256,
  .pack = gq_cpu_pack,
  .lower = gq_cpu_lower,
  .run = gq_cpu_run,
  .release = gq_cpu_release,
  .print = gq_cpu_print,
};

const gq_backend gq_cpu_backend = {
  .device = { .name = "cpu",
              .allocate = allocate,
              .release = release,
              .share = allocate,
              .unshare = release,
              .copy = copy,
              .fill = fill,
              .wait = nothing,
              .move = gq_host_move },
  .vec = &gq_cpu_vectors,
  .apply = gq_cpu_apply,
  .lowering = &threads,
};

const gq_device *const gq_host = &gq_cpu_backend.device;
