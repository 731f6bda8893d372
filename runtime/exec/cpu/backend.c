/*
** backend.c -- the CPU's row.
*/
#include "cpu.h"

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
  .apart = true,
  .release = gq_cpu_release,
  .print = gq_cpu_print,
};

const gq_backend gq_cpu_backend = {
  .device = gq_host,
  .vec = &gq_cpu_vectors,
  .apply = gq_cpu_apply,
  .lowering = &threads,
};
