/*
** tape.h -- immediate evaluation that remembers: recording for reverse mode, and tracing.
** Every operation a script calls goes through gq_op_call.
*/
#ifndef GQ_TAPE_H
#define GQ_TAPE_H

#include "exec.h"

/* Evaluate, record on the tape if recording is on and an operand requires gradients, or emit
** into the current trace if one is active (operands that are no traced values become captures). */
int gq_op_call(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_, gq_tensor **out);

bool gq_recording(void);
bool gq_set_recording(bool on);           /* returns what it was */
/* Will derivatives of gradients be asked for, as by gq.jacobian? Then engine auto is one that has them. */
bool gq_twice(void);
bool gq_set_twice(bool on);

/* Record a result that was computed already: `out` is the op of args. Does nothing where gq_op_call
** would not record. */
int gq_record(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_, gq_tensor *out);

/* An operation whose derivative is code, not a graph (an ODE solve). cots[j] NULL: zero;
** grads[i]: new reference or NULL; create_graph: the result must be differentiable, or fail. */
typedef struct gq_custom {
  const char *name;
  int (*backward)(struct gq_custom *self, gq_tensor *const *cots, bool create_graph, gq_tensor **grads);
  void (*free)(struct gq_custom *self);
  bool calls;                             /* backward calls a script's function, which nothing here keeps alive */
} gq_custom;
/* Make outs results of `c` (owned by the tape from now on, also on failure) over the inputs. */
int gq_record_custom(gq_custom *c, int nin, gq_tensor *const *in, int nout, gq_tensor *const *out);
gq_custom *gq_tape_custom(const gq_tensor *x);   /* that x is a result of, lent, or NULL */
/* Who holds x keeps the functions of a script that its derivative calls: those of a graph of nodes, each of which calls
** one or is where ways to several meet. The first for x, lent as long as x's tape lives, or NULL if there is none. */
const struct gq_tape *gq_tape_caller(const gq_tensor *x);
uint64_t gq_caller_number(const struct gq_tape *c);      /* its own, which no later node gets */
gq_custom *gq_caller_custom(const struct gq_tape *c);    /* that calls, or NULL */
/* Those that it leads to: the next from operand *i on, 0 at first, which moves on; NULL: no more. Some come twice. */
const struct gq_tape *gq_caller_next(const struct gq_tape *c, int *i);

/* Means and standard deviations (divisor n - 1, so NaN for n = 1) of x {..., n}, n >= 1, over its last axis, each
** {...}: one recorded operation with derivatives of any order; that of a deviation of zero counts as zero. */
int gq_normal_fit(gq_tensor *x, gq_tensor **mean, gq_tensor **deviation);

/* Matrices {.., n, n} by LAPACK, on the host, with derivatives of any order (exec/linear.c). Errors name the first
** matrix that is singular or not positive definite. */
int gq_linear_solve(gq_tensor *a, gq_tensor *b, bool turned, gq_tensor **out);   /* A X = B or A' X = B; B {.., n, k} */
int gq_linear_det(gq_tensor *a, gq_tensor **out);                                /* {..} */
int gq_linear_cholesky(gq_tensor *a, gq_tensor **out);                           /* L, A = L L' */
int gq_linear_eigh(gq_tensor *a, gq_tensor *out[2]);      /* of symmetric A: eigenvalues rising, vectors in columns */

/* Accumulate d out / d leaf into every leaf's .grad. cot_ NULL: out has one element, cotangent 1. */
int gq_backward(gq_tensor *out, gq_tensor *cot_);
/* Gradients without touching .grad; grads[i] NULL where unconnected. Inside a trace: gq_vjp. */
int gq_grad(int nout, gq_tensor *const *out, gq_tensor *const *cots_, int nin, gq_tensor *const *in,
            bool create_graph, gq_tensor **grads);
/* A leaf that wants a gradient, leads to `out` and is none of the n known ones: lent, NULL if there is none. */
int gq_tape_stray(gq_tensor *out, int n, gq_tensor *const *known, gq_tensor **stray);
void gq_tape_unref(struct gq_tape *t_);   /* used by gq_tensor_unref; never recurses deeply */

/* ---- tracing ---- */
typedef struct gq_trace gq_trace;
/* Open a trace (one at a time: GQ_ESTATE otherwise). */
int gq_trace_begin(gq_trace **tr);
/* Open one inside of another, if there is one: the other's values are captures in it, and it goes on afterwards. */
int gq_trace_nest(gq_trace **tr);
/* Where its values will be, if not on the CPU or where those of the outer trace are; where a tensor is,
** traced or not. */
void gq_trace_place(gq_trace *tr, const gq_device *d);
const gq_device *gq_place_of(const gq_tensor *t);
/* A traced input, in order: t, the state. */
int gq_trace_input(gq_trace *tr, gq_dtype d, gq_shape s, gq_tensor **out);
/* Close with the outputs (0 of them and status != GQ_OK: abandon). The trace then owns a graph
** whose inputs are the traced inputs followed by the captures, tensors and numbers in the order in
** which they were met: graph input (traced inputs + i) is gq_trace_capture(tr, i). Closing leaves no
** trace open, whatever it returns. */
int gq_trace_end(gq_trace *tr, int nout, gq_tensor *const *out);
void gq_trace_free(gq_trace *tr_);
gq_trace *gq_trace_current(void);                        /* NULL: none */
const gq_graph *gq_trace_graph(const gq_trace *tr);
int gq_trace_captures(const gq_trace *tr);               /* tensors and numbers */
gq_tensor *gq_trace_capture(const gq_trace *tr, int i);  /* lent; a number is a 0-d tensor */
/* The function is known for t in [t0, t1] alone: noted where t is the first input of the
** only trace; false otherwise. */
bool gq_trace_known(const gq_tensor *t, double t0, double t1);
void gq_trace_interval(const gq_trace *tr, double *t0, double *t1);
bool gq_trace_unused(const gq_trace *tr);   /* was there a comparison of which nothing made use? */
/* A number in an expression: 0, 1, -1, 2, 0.5, NaN and infinities are constants (part of the structure), others
** captures. NaN that gq.where holds against what is refused is thus no captured tensor that gq_explain would name. */
int gq_trace_number(gq_trace *tr, gq_dtype d, double x, gq_tensor **out);

#endif
