/*
** backend.c -- the CPU's row.
*/
#include "cpu.h"

/* Fewer rows, or numbers of the widest layer, than this are not worth a thread (by two threads a training step of
** a narrow network gains from 600 to 1000 numbers a slice on), */
enum { ROWS_PER_SLICE = 16, NUMBERS_PER_SLICE = 640 };

/* unless they are as images are: long, and longer together than what all of them read. */
int gq_cpu_slices(int64_t rows, int64_t width, int64_t common) {
  int threads = gq_threads();
  bool longer = width >= GQ_SHARED_NUMBERS && rows / threads * width >= common,
       even = rows % threads == 0 || rows >= 4 * threads;
  int64_t least = width * ROWS_PER_SLICE < NUMBERS_PER_SLICE ? NUMBERS_PER_SLICE / width : ROWS_PER_SLICE;
  int64_t most = longer && even ? rows : rows / least;
  return most < threads ? (int)most : threads;
}

/* A thread owns a slice of the batch for a whole step. */
static const gq_lowering threads = {
  .name = "threads",
  .columns = true,
  .convolutions = true,
  .slices = gq_cpu_slices,
  .most = 64,
  .pack = gq_cpu_pack,
  .lower = gq_cpu_lower,
  .run = gq_cpu_run,
  .soon = gq_cpu_soon,
  .release = gq_cpu_release,
  .print = gq_cpu_print,
};

const gq_backend gq_cpu_backend = {
  .device = gq_host,
  .vec = &gq_cpu_vectors,
  .apply = gq_cpu_apply,
  .lowering = &threads,
};
