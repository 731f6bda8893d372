/*
** backend.c -- the CPU's row.
*/
#include "cpu.h"

#include <string.h>

static void *allocate(const gq_backend *b, size_t bytes) { return gq_alloc(bytes); }
static void release(const gq_backend *b, void *p_) { gq_free(p_); }

static void copy(const gq_backend *b, void *dst, const void *src, size_t bytes) { memcpy(dst, src, bytes); }
static void fill(const gq_backend *b, void *dst, int byte, size_t bytes) { memset(dst, byte, bytes); }

const gq_backend gq_cpu_backend = {
  .name = "cpu",
  .allocate = allocate,
  .release = release,
  .copy = copy,
  .fill = fill,
  .vec = &gq_cpu_vectors,
};
