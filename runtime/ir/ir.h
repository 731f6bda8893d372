/*
** ir.h -- graphs of tensor operations, and what turns one into another.
**
** A graph is a flat array of nodes; operands precede users, so every pass is a for loop.
** Everything enters through gq_emit, which checks shapes and dtypes, folds, and shares equal
** nodes. Graph functions are sticky: after a failure they return GQ_NONE, emitting with a
** GQ_NONE operand gives GQ_NONE, and gq_graph_status tells the first error, so code that
** builds graphs needs one check at its end.
*/
#ifndef GQ_IR_H
#define GQ_IR_H

#include "../tensor/tensor.h"

typedef enum gq_op {
#define GQ_UNARY(N, ...)   GQ_OP_##N,
#define GQ_BINARY(N, ...)  GQ_OP_##N,
#define GQ_COMPARE(N, ...) GQ_OP_##N,
#define GQ_OTHER(N, ...)   GQ_OP_##N,
#include "ops.def"
  GQ_NOP
} gq_op;

typedef enum gq_op_kind { GQ_K_UNARY, GQ_K_BINARY, GQ_K_COMPARE, GQ_K_OTHER } gq_op_kind;
/* What an operation is to a program: see ops.def. */
typedef enum gq_op_class { GQ_CELL, GQ_LEAF, GQ_VIEW, GQ_MOVE, GQ_REDUCE, GQ_PLACE, GQ_PRODUCT, GQ_INDEX,
                           GQ_CALL, GQ_WINDOWED } gq_op_class;

typedef struct gq_op_info {
  const char *name;      /* "softplus" */
  const char *meta;      /* Lua metamethod or NULL */
  const char *doc;
  gq_op_kind kind;
  gq_op_class role;       /* not "class": C++ */
  int nargs;             /* -1: one or more */
} gq_op_info;
extern const gq_op_info gq_ops[GQ_NOP];
/* What a fused group may hold. */
static inline bool gq_op_elementwise(gq_op op) { return gq_ops[op].role == GQ_CELL; }

typedef int32_t gq_ref;            /* index of a node in its graph */
#define GQ_NONE (-1)

enum { GQ_TA = 1, GQ_TB = 2 };     /* MATMUL flags */
enum { GQ_PULL_Z = 1, GQ_PULL_T = 2, GQ_PULL_PARAMS = 4 };   /* CALL_PULL flags: what it gives, in this order */

typedef struct gq_attr {           /* zero what an op does not use: nodes are compared bytewise */
  gq_dtype dtype;                  /* the node's */
  int32_t axis;
  int32_t flags;
  int32_t perm[GQ_MAXDIM];
  gq_shape shape;                  /* the node's */
  int64_t start[GQ_MAXDIM], step[GQ_MAXDIM];
  double x;
} gq_attr;

typedef struct gq_node {
  gq_op op;
  gq_dtype dtype;
  gq_shape shape;
  int nargs;
  gq_ref arg[3];                   /* nargs <= 3 */
  gq_ref *args;                    /* all operands: arg, or the graph's own list when nargs > 3 (CAT, CALL) */
  gq_attr attr;
} gq_node;

typedef struct gq_graph gq_graph;

gq_graph *gq_graph_new(void);                          /* NULL: no memory */
void gq_graph_free(gq_graph *g_);
/* Fold nothing from now on: every value stays a node of its own, so that gq_vjp may be asked for its gradient.
** (A slice of a slice is folded to a slice of the source, and what was in between is used by nobody.) */
void gq_graph_literal(gq_graph *g);
int gq_graph_status(const gq_graph *g);                /* GQ_OK or the first failure (message recorded then) */
int gq_graph_size(const gq_graph *g);                  /* nodes */
const gq_node *gq_graph_node(const gq_graph *g, gq_ref r);   /* lives as long as g; GQ_NONE gives a GQ_NOP node */
int gq_graph_inputs(const gq_graph *g);                /* number of inputs */
gq_ref gq_graph_input(const gq_graph *g, int i);       /* node of input i */
int gq_graph_outputs(const gq_graph *g);
gq_ref gq_graph_output(const gq_graph *g, int i);
void gq_graph_set_outputs(gq_graph *g, int n, const gq_ref *out);   /* copied */
/* One node a line: "%7 = softplus %6 : float32 {200, 20}". To be freed with gq_free; NULL: no memory. */
char *gq_graph_print(const gq_graph *g);
/* Structure as bytes (ops, operands, dtypes, shapes, attributes, outputs): equal bytes, equal
** program. *bytes is for gq_free. */
int gq_graph_key(const gq_graph *g, char **bytes, size_t *n);
bool gq_graph_calls(const gq_graph *g);                /* does it call back? (CALL) */

/* ---- building ---- */

gq_ref gq_input(gq_graph *g, gq_dtype d, gq_shape s);          /* next input */
gq_ref gq_input_like(gq_graph *g, const gq_graph *other, int i);                    /* as the other's input i; */
void gq_inputs_like(gq_graph *g, const gq_graph *other, int from, gq_ref *bind);    /* all of them from there on */
gq_ref gq_const(gq_graph *g, gq_dtype d, double x);            /* 0-d */
gq_ref gq_emit(gq_graph *g, gq_op op, int nargs, const gq_ref *args, const gq_attr *attr_);
gq_ref gq_emit1(gq_graph *g, gq_op op, gq_ref a);              /* elementwise shorthands */
gq_ref gq_emit2(gq_graph *g, gq_op op, gq_ref a, gq_ref b);
gq_ref gq_where(gq_graph *g, gq_ref c, gq_ref a, gq_ref b);
gq_ref gq_cast(gq_graph *g, gq_ref a, gq_dtype d);
gq_ref gq_matmul(gq_graph *g, gq_ref a, gq_ref b, int flags);
gq_ref gq_sum_axes(gq_graph *g, gq_ref a, int mask);           /* keeps dims as 1 */
gq_ref gq_sum_to(gq_graph *g, gq_ref a, gq_shape s);           /* undo broadcasting from s */
gq_ref gq_reshape(gq_graph *g, gq_ref a, gq_shape s);
gq_ref gq_permute(gq_graph *g, gq_ref a, const int *perm);
gq_ref gq_expand(gq_graph *g, gq_ref a, gq_shape s);
gq_ref gq_cat(gq_graph *g, int n, const gq_ref *a, int axis);
gq_ref gq_slice(gq_graph *g, gq_ref a, int axis, int64_t first, int64_t n);   /* n entries along one axis */
gq_ref gq_pad(gq_graph *g, gq_ref a, int axis, int64_t first, int64_t n);     /* its adjoint: among n, else zeros */
gq_ref gq_scale(gq_graph *g, gq_ref a, double x);              /* a * const of a's dtype */
gq_ref gq_zeros(gq_graph *g, gq_dtype d, gq_shape s);          /* expanded 0 */
/* The shape and dtype an op gives; the rule gq_emit and the eager ops share. */
int gq_infer(gq_op op, int nargs, const gq_dtype *dtypes, const gq_shape *shapes, const gq_attr *attr,
             gq_dtype *dtype, gq_shape *shape);

/* ---- graph to graph ---- */

/* Derivatives emitted from now on run in a later phase than what is there already: values of that are kept for them in
** memory, so they are made of few. */
void gq_graph_later(gq_graph *g);
/* Reverse mode: grad[i] = sum_j cot[j]' d out[j] / d wrt[i], emitted into g; GQ_NONE where
** nothing depends on wrt[i]. cot[j] GQ_NONE counts as zero. wrt may be any nodes. */
int gq_vjp(gq_graph *g, int nout, const gq_ref *out, const gq_ref *cot,
           int nwrt, const gq_ref *wrt, gq_ref *grad);

/* `sum`, the matrix products of one form that it adds as one over their operands stacked;
** as it is where there are no two. */
gq_ref gq_stack_products(gq_graph *g, gq_ref sum);

/* Copy src's nodes that its outputs need into dst, src input i becoming bind[i];
** out[j] is dst's node of src output j. */
int gq_inline(gq_graph *dst, const gq_graph *src, const gq_ref *bind, gq_ref *out);

/* Taylor mode (ir/jet.c). f: inputs t (0-d), z, captures; output dz/dt. out: the same inputs; outputs the derivatives
** d^k z/dt^k, k = 1 .. order, at (t, z) of the solution through it. The work grows with the square of the order. */
enum { GQ_MAX_JET = 32 };
int gq_jet(const gq_graph *f, int order, gq_graph **out);

/* vmap: like gq_inline, but the inputs with batched[i] carry a new leading axis of size n in
** dst, and so do all outputs (expanded if they depend on none). A matmul of a batched left
** operand with an unbatched right one becomes a single product over n x rows. */
int gq_batch(gq_graph *dst, const gq_graph *src, int64_t n, const gq_ref *bind, const bool *batched, gq_ref *out);

/* Row independence. axis[i] for input i: in: the row axis of the state inputs (usually 0), or -1
** for unknown (captures); out: the axis along which a capture must be sliced with the rows, or
** -1 when every row uses all of it. Returns GQ_OK when output row r depends on row r alone,
** GQ_EUNSUPPORTED with a message naming the operation that mixes rows otherwise. */
int gq_rows(const gq_graph *g, int64_t rows, int *axis);
/* The same for one row, whose captures are told from those that all rows share by a dim of 1 where rows would be; fails
** where that makes no sense. */
int gq_rows_single(const gq_graph *g, int *axis);
/* The same graph for `rows_new` rows (after gq_rows said GQ_OK, with its axis). */
int gq_rows_resize(const gq_graph *g, int64_t rows, int64_t rows_new, const int *axis, gq_graph **out);
/* Which numbers of a value belong to which row: along `axis` an index i belongs to row (i / inner) mod
** rows. {B, T, K} flattened to {B T, K} for a product has axis 0, inner T. */
enum { GQ_ROWS_ALL = -1, GQ_ROWS_MIXED = -2 }; /* axis of what has no rows, and of what several went into */
typedef struct gq_label {
  int axis;
  int64_t inner;
} gq_label;
/* at[r] of every node r from those of the inputs, given, whatever the graph does with rows. */
void gq_rows_follow(const gq_graph *g, int64_t rows, gq_label *at);

/* The same graph with the rows of every value in its last dim, so that a layer is W X over all rows and
** element-wise loops run along them: `count` rows. With points > 0 at so many points at once, the rows of
** one after those of the other: inputs with each[i] hold one value a point (a 0-d one as {points}), the
** others serve all points. GQ_EUNSUPPORTED names the operation that has no such form. */
int gq_rows_last(const gq_graph *g, int64_t rows, int64_t count, int64_t points, const bool *each_, const int *axis,
                 gq_graph **out);

/* Split g in two: what depends on none of the first nvar inputs (computed once a solve, `pro`:
** inputs are g's inputs from nvar on), and the rest (`body`: g's first nvar inputs, then one
** input for each of pro's outputs). Constants, expansions and reshapes stay in the body, where they
** cost nothing. A capture used directly is an output of pro as it is:
** direct[j] = index of the capture (0-based, from nvar) or -1 if output j is computed. */
int gq_hoist(const gq_graph *g, int nvar, gq_graph **pro, gq_graph **body, int **direct);
/* The same for inputs t and a state of `rows` rows, but what belongs to single rows stays in the body: its numbers must
** not depend on how many rows there are. */
int gq_hoist_shared(const gq_graph *g, int64_t rows, gq_graph **pro, gq_graph **body, int **direct);

#endif
