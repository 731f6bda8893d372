/*
** cuda.h -- the CUDA backend: one device, one stream in whose order all is done, memory that is kept for the next who
** asks, kernels that are compiled once. Built as gq_cuda.so and opened at the first use of the device.
*/
#ifndef GQ_CUDA_H
#define GQ_CUDA_H

#include "api.h"
#include "core.h"
#include "../layout.h"

/* ---- device.c: the device, and what becomes of errors ---- */

typedef struct gq_cuda_device {
  char name[128];
  int major, minor, processors;
  size_t shared;               /* bytes of shared memory that a block may have */
  gq_custream stream;
} gq_cuda_device;

extern gq_cuda_device gq_cuda;

extern bool gq_cuda_busy;      /* something was asked for since the last wait */
extern bool gq_cuda_poisons;   /* $GQ_CUDA_POISON: memory that is given away is NaN, as new memory may be */

int gq_cuda_start(void);       /* libraries, device, stream */
/* The device may be called from this thread and process; a lost one, or one from before a fork, may not. What waits
** to be done before anything else (queue.c) is done when that is entered. */
int gq_cuda_usable(void);
int gq_cuda_enter(void);
int gq_cuda_before_all(void);  /* it alone */
extern int (*gq_cuda_before)(void);   /* NULL: nothing waits */
/* The stream of a capture of this thread's work, or NULL (graph.c); errors that mean that it takes no such thing. */
extern _Thread_local gq_custream gq_cuda_capturing;
bool gq_cuda_uncaptured(int error);
static inline gq_custream gq_cuda_stream(void) { return gq_cuda_capturing ? gq_cuda_capturing : gq_cuda.stream; }
/* Of a driver call: GQ_OK, or its text. After an error that no later call recovers from, all calls fail with it. */
int gq_cuda_check(int error, const char *what);
/* The same where nobody can be told now: the next call that has a status tells. */
void gq_cuda_later(int status);

static inline gq_u64 gq_far(const void *p) { return (gq_u64)(uintptr_t)p; }

/* ---- memory.c: the arena ---- */

void *gq_cuda_allocate(size_t bytes);          /* NULL: none is left, even with all that was kept given back */
void gq_cuda_release(void *p_);
bool gq_cuda_owns(const void *p);              /* is it an address of the device? */
int gq_cuda_get(void *to, const void *from, size_t bytes);   /* to the host; waits */
int gq_cuda_put(void *to, const void *from, size_t bytes);
int gq_cuda_copy(void *to, const void *from, size_t bytes);  /* any two */
int gq_cuda_set(void *to, int byte, size_t bytes);
int gq_cuda_wait(void);

/* ---- module.c: kernels from text ---- */

/* The kernel of that name in a text, which is compiled where neither memory nor disk has it. *held_, NULL at first, is what
** keeps it, in the place of what it kept before; without that it is kept for good. */
typedef struct gq_cuda_module gq_cuda_module;
int gq_cuda_kernel(const char *text, const char *name, gq_cuda_module **held_, gq_cufunction *f);
/* One for good, of a text that was written for it, which goes. */
int gq_cuda_make(gq_text *t, const char *name, gq_cufunction *f);
void gq_cuda_let_go(gq_cuda_module *m_);
int gq_cuda_keep(const char *text);            /* on disk, for a device that need not be here (tests/cuda/keep.c) */

/* ---- texts.c: texts from kernels.h and its kin, and of operations ---- */

extern const char gq_cuda_dtype[GQ_NDTYPE][16], gq_cuda_suffix[GQ_NDTYPE][8];   /* "float", "f32" */
void gq_cuda_text(gq_text *t, int threads);            /* what every text begins with */
void gq_cuda_names(gq_text *t, gq_dtype d);            /* T and N(name) for d */
void gq_cuda_sections(gq_text *t, const char *const *sections);   /* of kernels.h and its kin; NULL ends them */
void gq_cuda_append(gq_text *t, const char *s);
void gq_cuda_append_text(gq_text *t, const gq_text *part);   /* which was written apart: t has failed where that has */
/* What makes `op` of operands of dtype d a function: gq_exp_f32(x), gq_cast_f32_i64(x). false: not defined. */
bool gq_cuda_define(gq_text *t, gq_op op, gq_dtype d, gq_dtype to);
void gq_cuda_call(gq_text *t, gq_op op, gq_dtype d, gq_dtype to, const char *arguments);

/* ---- launch.c: a kernel with its arguments ---- */

enum { GQ_NT = 256, GQ_LAUNCH_BYTES = 640 };   /* threads of a block; arguments but for groups' */

/* A section of kernels.h with the types and the operation that it is made for. */
typedef enum gq_part_kind { GQ_PART_MOVE, GQ_PART_BYTES, GQ_PART_PRODUCT, GQ_PART_REDUCE, GQ_PART_INDEX, GQ_PART_WINDOW,
                            GQ_NPART } gq_part_kind;
typedef struct gq_part {
  gq_part_kind kind;
  gq_op op;
  gq_dtype d, from;
  size_t size;
  bool few;                    /* REDUCE: a block a result */
} gq_part;
const char *gq_cuda_part_args(const gq_part *p);   /* the section that has the struct of its arguments, gq_<this> */
/* As a function of a kernel that a block runs alone, told from others of its kind by a number; then its name. */
void gq_cuda_part(gq_text *t, const gq_part *p, int number, bool first);
void gq_cuda_part_call(gq_text *t, const gq_part *p, int number);

/* As kernels.h has them. */
typedef struct gq_dims {
  long long ndim, dim[GQ_MAXDIM];
} gq_dims;
typedef struct gq_strides {
  long long s[GQ_MAXDIM];
} gq_strides;
typedef struct gq_product_args {
  gq_u64 p[4];
  long long m, n, k, ar, ac, br, bc, cs, add, batches;
  gq_dims d;
  gq_strides s[2];
} gq_product_args;

typedef struct gq_launch {
  gq_part part;
  gq_cufunction f;
  int blocks;                  /* 0: nothing to do */
  int np;                      /* addresses, with which the arguments begin */
  size_t bytes;
  _Alignas(8) char args[GQ_LAUNCH_BYTES];
} gq_launch;

int gq_cuda_blocks(int64_t n);                 /* for n numbers, a thread each */
/* With these addresses; a product by the library, where it may. */
int gq_cuda_run(const gq_launch *l, void *const *p, bool library);
int gq_cuda_launch(gq_cufunction f, int blocks, const void *args);
int gq_cuda_launch_near(gq_cufunction f, int blocks, int threads, size_t shared, const void *args);
/* Each prepares one launch; addresses are given when it runs. */
int gq_cuda_move(gq_launch *l, gq_dtype to, gq_dtype from, const gq_layout *in, const int64_t *stride);
int gq_cuda_bytes(gq_launch *l, size_t size, const gq_layout *in, const int64_t *stride);   /* without conversion */
int gq_cuda_product(gq_launch *l, gq_dtype d, const gq_layout *a, const gq_layout *b, int flags, int64_t column, bool add);
int gq_cuda_reduce(gq_launch *l, gq_op op, gq_dtype d, const gq_layout *x, int axis, int flags, bool add);
int gq_cuda_index(gq_launch *l, const gq_indexing *p, size_t *zero);   /* so many bytes of the result are zeroed before */
const gq_shape *gq_cuda_long_side(const gq_indexing *p);   /* whose rows indices tell */
int gq_cuda_cell(gq_launch *l, gq_op op, gq_dtype to, gq_shape shape, int n, const gq_dtype *d, const gq_layout *x);

/* ---- queue.c: what waits to be launched together ---- */

int gq_cuda_combine(gq_dtype d, int parts, const size_t *n, int k, const double *s, void *const *at);   /* vec.h */
int gq_cuda_fill(gq_dtype d, size_t n, double value, void *to);

/* ---- blas.c ---- */

int gq_cuda_blas(const gq_launch *l, void *const *p, bool *done);   /* a product, where the library takes it */

/* ---- graph.c: launches that recur ---- */

/* Launches alone, the same ones whenever owner, phase, arena and rest are; at: what they read, and from nin on what they write or
** add to, so many bytes each. run: with other addresses, too. */
typedef struct gq_recurring {
  const void *owner, *arena, *rest;
  int phase, n, nin;
  void *const *at;
  const size_t *bytes;
  int (*run)(const void *context, void *const *at);
  const void *context;
} gq_recurring;
int gq_cuda_recur(const gq_recurring *r);      /* under gq_stage.lock */
void gq_cuda_forget(const void *owner);        /* it goes */

/* ---- flags.c: positions of indices that were outside ---- */

enum { GQ_FLAGS = 64 };
int gq_cuda_flag(int i, void **at);            /* the word that indexing i of what runs now writes to */
/* Of the first n: the first that was written, and its position; -1: none. Waits, and clears them. */
int gq_cuda_flagged(int n, int *which, int64_t *position);
int gq_cuda_outside(const gq_indexing *p, const void *idx, int64_t position);   /* fails, with GQ_EINDEX */

/* ---- group.c: the text of a program's groups ---- */

/* One kernel for each distinct group of n programs, "g0", .., of arguments g0_of; which[k][i]: of instruction i of p[k]. */
int gq_cuda_groups(int n, const gq_program *const *p, gq_text *t, int *const *which);

/* ---- code.c, ops.c, vec.c ---- */

extern const gq_lowering gq_cuda_lowering;
extern const gq_vectors gq_cuda_vectors;
int gq_cuda_apply(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_tensor *out);
void gq_cuda_tensor_move(gq_tensor *dst, const gq_tensor *src);

#endif
