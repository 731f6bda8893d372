/*
** core.h -- what gq_cuda.so calls of the runtime that opens it, which need not export its symbols: a table of
** functions. Here they have their own names (core.c), so that files of this folder read like any other.
*/
#ifndef GQ_CUDA_CORE_H
#define GQ_CUDA_CORE_H

#include "../compile.h"

/* result, name, parameters, arguments */
#define GQ_CORE(X)                                                                                   \
  X(void *, gq_alloc, (size_t bytes), (bytes))                                                       \
  X(void *, gq_calloc, (size_t n, size_t size), (n, size))                                           \
  X(void *, gq_realloc, (void *p, size_t bytes), (p, bytes))                                         \
  X(int, gq_nomem, (size_t bytes), (bytes))                                                          \
  X(const char *, gq_message, (void), ())                                                            \
  X(int, gq_tensor_contiguous_get, (gq_tensor *t, gq_tensor **out), (t, out))                        \
  X(void, gq_free, (void *p), (p))                                                                   \
  X(void, gq_count_bytes, (ptrdiff_t bytes), (bytes))                                                \
  X(void, gq_text_locs, (gq_text *t, const gq_instr *in), (t, in))                                   \
  X(void, gq_tensor_unref, (gq_tensor *t), (t))

typedef struct gq_core_calls {
#define FIELD(result, name, parameters, arguments) result (*name) parameters;
  GQ_CORE(FIELD)
#undef FIELD
  int (*gq_fail)(int code, const char *fmt, ...);
  void (*gq_fail_later)(int code, const char *text);
  const gq_op_info *ops;
  const bool *tf32;
} gq_core_calls;

extern const gq_core_calls *gq_core;

/* Sizes of what both sides read. */
#define GQ_CORE_SIZES                                                                                               \
  (sizeof(gq_core_calls) + 10007 * sizeof(gq_program) + 20011 * sizeof(gq_instr) + 30011 * sizeof(gq_vectors) +     \
   40009 * sizeof(gq_lowering) + 50021 * sizeof(gq_stepjob) + 60013 * sizeof(gq_backend) + 80021 * sizeof(gq_lanejob) + 70001 * (size_t)GQ_NOP)

/* The one symbol of gq_cuda.so. sizes: GQ_CORE_SIZES, so that another build's is noticed. The row of the first device, or
** a message through the table and NULL. */
typedef const gq_backend *gq_cuda_opener(const gq_core_calls *core, size_t sizes);

#endif
