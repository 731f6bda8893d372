/*
** exec.h -- running operations: one at a time on tensors, or a graph compiled to a program
** with a memory plan. The CPU backend lives in cpu/.
*/
#ifndef GQ_EXEC_H
#define GQ_EXEC_H

#include "../ir/ir.h"

/* One op on tensors, at once. Views (reshape of contiguous data, permute, expand, slice) share
** storage, everything else is fresh and contiguous. Attributes as in ir/ops.def. No tape. */
int gq_apply(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_, gq_tensor **out);

/* Dynamics that are code and no graph. A program runs its callbacks on the calling thread; a status other than
** GQ_OK ends it. Numbers are packed, of z's dtype. */
typedef struct gq_callback {
  /* out = f(t, z), of z's shape */
  int (*call)(struct gq_callback *self, const void *t, const void *z, void *out);
  /* out: those in `what` of a'df/dz (GQ_PULL_Z), a'df/dt (GQ_PULL_T, one number) and a'df/dp of every parameter
  ** (GQ_PULL_PARAMS), one after the other */
  int (*pull)(struct gq_callback *self, const void *t, const void *z, const void *a, int what, void *out);
} gq_callback;
/* The graph that stands for one: inputs t, z (of dtype d and shape s), the callback's address, n parameters; output
** f(t, z). So the callback is a number of the solve like others and never part of a compiled program. */
int gq_callback_graph(gq_dtype d, gq_shape s, int n, gq_tensor *const *params, gq_graph **out);
int gq_callback_address(gq_callback *c, gq_tensor **out);   /* what that input is bound to: 0-d int64 */
/* What CALL (a_ NULL) and CALL_PULL do; address: of the int64 that holds the callback's. */
int gq_callback_run(const void *address, const void *t, const void *z, const void *a_, int what, void *out);

typedef struct gq_backend gq_backend;   /* backend.h */
extern bool gq_allow_tf32;              /* may a GPU round operands of float32 products to 11 bits? */
typedef struct gq_program gq_program;

/* What is done with an output's value when its phase has run. */
typedef enum gq_outmode {
  GQ_KEEP,      /* stays in the arena: gq_program_at; not overwritten by later phases */
  GQ_STORE,     /* written to out[i] */
  GQ_ADD        /* added to out[i] (a matrix product or a sum adds in place) */
} gq_outmode;

typedef struct gq_outspec {
  gq_ref ref;
  int phase;            /* 0, 1, ...: the output's nodes run no later than in this phase */
  gq_outmode mode;
} gq_outspec;

/* Compile. Nodes are placed in the first phase that needs them; a later phase finds the values
** of earlier ones in the same arena. Element-wise nodes of one shape are fused into groups, the
** memory plan reuses space inside the arena, nothing is allocated when running. */
int gq_program_new(const gq_backend *on, const gq_graph *g, int n, const gq_outspec *outs, gq_program **p);
/* From here on a row gets the same bits wherever it stands: no library makes products. */
void gq_program_alike(gq_program *p);
void gq_program_free(gq_program *p_);
size_t gq_program_arena(const gq_program *p);               /* bytes, for one arena */
/* Address of output i (mode GQ_KEEP) in `arena`. */
void *gq_program_at(const gq_program *p, void *arena, int i);
/* Run one phase. in[i]: contiguous values of graph input i, needed from the phase that first
** reads it (const double[1] for 0-d float64, ...). out[i]: for STORE and ADD outputs of this
** phase; they overlap no input, since results may be written while inputs are still read. Serial:
** callers own the threads, one arena each. Fails only on an index out of range. */
int gq_program_run(const gq_program *p, int phase, void *arena, const void *const *in, void *const *out);
/* With what no other phase reads in an arena of its own, which serves any number of others: `arena` has
** gq_program_lasting bytes then. */
int gq_program_run_apart(const gq_program *p, int phase, void *arena, void *rest, const void *const *in,
                         void *const *out);
size_t gq_program_lasting(const gq_program *p);
/* The same for n slices side by side, where the backend has such a way: slice i has arena[i], in + i nin,
** out + i nout. */
int gq_program_side(const gq_program *p, int phase, int n, void *const *arena, const void *const *in, int nin,
                    void *const *out, int nout);
/* For benchmarks: seconds that the calling thread has spent in matrix products, in element-wise work and in the
** rest of its programs since gq_profile(true). Off by default: reading the clock costs more than a small
** instruction. */
void gq_profile(bool on);
void gq_profile_get(double seconds[3]);
char *gq_program_print(const gq_program *p);                /* instructions and memory plan; gq_free */
/* Evaluate a graph node by node with gq_apply: the plain meaning that programs must match. out[i] NULL where refs[i]
** is GQ_NONE. gq_evaluate_by: by another call for each node, as gq_op_call, which records or traces. */
int gq_evaluate(const gq_graph *g, gq_tensor *const *in, int n, const gq_ref *refs, gq_tensor **out);
typedef int gq_caller(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_, gq_tensor **out);
/* One node of it, over what its operands are. */
int gq_evaluate_node(gq_caller *call, const gq_node *v, gq_tensor *const *value, gq_tensor **out);
int gq_evaluate_by(gq_caller *call, const gq_graph *g, gq_tensor *const *in, int n, const gq_ref *refs,
                   gq_tensor **out);

/* What the CPU backend found: "avx512", "avx2" or "portable", and OpenBLAS's own description. */
const char *gq_cpu_kernels(void);
const char *gq_blas_name(void);

#endif
