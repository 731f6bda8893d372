/*
** backend.c -- the row of CUDA's device.
*/
#include "code.h"

#include <stdio.h>
#include <stdlib.h>

static void *allocate(const gq_device *d, size_t bytes) { return gq_cuda_allocate(bytes); }
static void release(const gq_device *d, void *p_) { gq_cuda_release(p_); }

/* Kernels read none of it: what is shared travels with each launch that asks for it. */
static void *share(const gq_device *d, size_t bytes) { return gq_alloc(bytes + 1); }
static void unshare(const gq_device *d, void *p_) { gq_free(p_); }

static void copy(const gq_device *d, void *dst, const void *src, size_t bytes) {
  gq_cuda_later(gq_cuda_copy(dst, src, bytes));
}
static void fill(const gq_device *d, void *dst, int byte, size_t bytes) {
  gq_cuda_later(gq_cuda_set(dst, byte, bytes));
}
static void wait(const gq_device *d) { gq_cuda_later(gq_cuda_wait()); }

static gq_backend row;

static const gq_device device = {
  .name = "cuda",
  .backend = &row,
  .allocate = allocate,
  .release = release,
  .share = share,
  .unshare = unshare,
  .copy = copy,
  .fill = fill,
  .wait = wait,
  .move = gq_cuda_tensor_move,
};

static gq_backend row = {
  .device = &device,
  .vec = &gq_cuda_vectors,
  .apply = gq_cuda_apply,
  .lowering = &gq_cuda_lowering,
  .advance = gq_cuda_advance,
  .after = gq_cuda_advance,
  .lane_blocks = gq_cuda_lane_blocks,
  .solve_lanes = gq_cuda_solve_lanes,
};

__attribute__((visibility("default"))) gq_cuda_opener gq_cuda_open;

const gq_backend *gq_cuda_open(const gq_core_calls *core, size_t sizes) {
  gq_core = core;
  if (sizes != GQ_CORE_SIZES) {
    core->gq_fail(GQ_EIO, "gq_cuda.so is of another build than the runtime");
    return NULL;
  }
  if (getenv("GQ_CUDA_HOST")) row.advance = NULL, row.lane_blocks = NULL; /* the host decides: for tests */
  if (gq_cuda_start() != GQ_OK) return NULL;
  static char about[192];
  snprintf(about, sizeof about, "%s, compute capability %d.%d, %d multiprocessors", gq_cuda.name,
           gq_cuda.major, gq_cuda.minor, gq_cuda.processors);
  row.about = about;
  return &row;
}
