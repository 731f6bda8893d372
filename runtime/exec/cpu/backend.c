/*
** backend.c -- the CPU's row.
*/
#include "cpu.h"

enum { ROWS_PER_SLICE = 16 }; /* fewer rows than this are not worth a thread, */

/* unless they are as images are: long, and longer together than what all of them read. */
static int slices(int64_t rows, int64_t width, int64_t common) {
  int threads = gq_threads();
  bool longer = width >= GQ_SHARED_NUMBERS && rows / threads * width >= common,
       even = rows % threads == 0 || rows >= 4 * threads;
  int64_t most = longer && even ? rows : rows / ROWS_PER_SLICE;
  return most < threads ? (int)most : threads;
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
