/*
** compile.h -- from a graph to a program, shared by the passes of this folder:
**   fuse.c      convolutions, found in what they are written as
**   alias.c     phases; which nodes are only views of another node's storage (its root)
**   schedule.c  roots in an order that brings element-wise work of one shape together: units
**   memory.c    where each root lives: arena, input, output or constant
**   lower.c     units to instructions
**   program.c   running and printing them
*/
#ifndef GQ_COMPILE_H
#define GQ_COMPILE_H

#include "backend.h"
#include "layout.h"
#include "convolution.h"

/* ---- the program: immutable, any number of arenas and threads run it at once ---- */

enum { LOC_NONE, LOC_ARENA, LOC_IN, LOC_OUT, LOC_CONST };

typedef struct gq_loc {
  uint8_t kind;
  int32_t index;        /* which input or output */
  size_t offset;        /* bytes from there, or from the arena or the constants */
} gq_loc;

#define GQ_GROUP_VALUES 192   /* operands and results of one group */

/* Element-wise operations of one shape. Values are operands from outside or results, in the order of operations. */
typedef struct gq_cellvalue {
  gq_dtype dtype;
  bool arg;             /* comes from outside */
  bool stored;          /* goes outside */
  int64_t stride[GQ_MAXDIM];   /* of an argument, over the shape */
} gq_cellvalue;

typedef struct gq_cellop {
  gq_op op;
  int16_t out, nargs, arg[3];
} gq_cellop;

typedef enum gq_instr_kind { INSTR_GROUP, INSTR_GEMM, INSTR_REDUCE, INSTR_MOVE, INSTR_ZERO, INSTR_INDEX,
                             INSTR_CALL, INSTR_CONV } gq_instr_kind;

typedef struct gq_instr {
  gq_instr_kind kind;
  bool add;             /* GEMM, REDUCE, CONV: into what is there */
  int nloc;
  gq_loc *loc;          /* GROUP: of each value; the others: result, operands */
  union {
    struct { gq_shape shape; int nvalue, nop; gq_cellvalue *value; gq_cellop *op; } group;
    struct { gq_dtype dtype; int flags; gq_layout a, b; int64_t column; } gemm;   /* column: its stride (AFFINE) */
    struct { gq_op op; gq_dtype dtype; int axis, flags; gq_layout x; } reduce;
    struct { gq_layout from; int64_t to[GQ_MAXDIM]; size_t size; } move;
    size_t zero;
    gq_indexing index;
    int what;           /* CALL: flags of CALL_PULL */
    gq_conv conv;
  } as;
} gq_instr;

struct gq_program {
  const gq_backend *on;
  gq_pool own;          /* its arrays but instr */
  void *code;           /* what the backend's lowering made of it */
  int ninstr, room;
  gq_instr *instr;
  int nphase;
  int *phase;           /* phase p: instr[phase[p]] .. instr[phase[p + 1]] - 1 */
  double *constant;     /* 8 bytes each, whatever the dtype */
  int nin, nout;
  gq_loc *out;          /* of KEEP outputs */
  size_t *bytes;        /* [nin + nout] of each input, then of each output */
  size_t lasting;       /* bytes of the arena, its first, that later phases or callers read, */
  size_t values;        /* that all values take; */
  size_t arena;         /* with what the lowering needs behind them */
  bool alike;           /* a row's bits hang on none of the others, nor on its place */
};

void gq_text_loc(gq_text *t, const gq_loc *l);
void gq_text_locs(gq_text *t, const gq_instr *in);   /* behind what an instruction is: all of its, and the line's end */

/* ---- compiling ---- */

/* The numbers of a node: strides over the contiguous storage of its root. */
typedef struct gq_view {
  gq_ref root;
  int64_t offset;
  int64_t stride[GQ_MAXDIM];
} gq_view;

typedef enum gq_unit_kind { UNIT_GROUP, UNIT_NODE, UNIT_COPY, UNIT_ACCUMULATE } gq_unit_kind;

/* What runs together. COPY and ACCUMULATE bring a finished value to its output. */
typedef struct gq_unit {
  gq_unit_kind kind;
  int phase;
  int first, count;     /* GROUP, NODE: order[first] .. */
  int output;
} gq_unit;

typedef struct gq_info_root {
  int phase;            /* of every node; INT_MAX: not needed */
  int unit;             /* that computes it, -1: none */
  int last;             /* last unit that reads it, -1: none */
  int last_phase;       /* last phase that reads it */
  int reads;            /* by nodes */
  int value;            /* in the group being lowered */
  int outputs;          /* that are this root */
  bool lasting;         /* needed beyond its phase: space of its own */
  gq_loc home;
} gq_info_root;

/* What stands for a node whose operands, and theirs, it does not ask for. */
typedef struct gq_fused {
  gq_node node;
  gq_conv conv;
} gq_fused;

typedef struct gq_compiler {
  gq_pool own;          /* its arrays */
  const gq_graph *g;
  int n;                /* nodes */
  gq_fused **fused;     /* [n], NULL where nothing was found; NULL: nowhere */
  int nout;
  const gq_outspec *outs;
  gq_info_root *info;   /* [n] */
  gq_view *view;        /* [n] */
  gq_ref *order;        /* [n] roots as scheduled */
  int norder;
  gq_unit *unit;        /* [n + nout] */
  int nunit;
  gq_loc *keep;         /* [nout] own storage of KEEP outputs that need one */
  bool *direct;         /* [nout] produced in place, no unit of its own */
  gq_program *p;
} gq_compiler;

static inline const gq_node *node_of(const gq_compiler *c, gq_ref r) {
  return c->fused && c->fused[r] ? &c->fused[r]->node : gq_graph_node(c->g, r);
}
static inline gq_op_class class_of(const gq_compiler *c, gq_ref r) { return gq_ops[node_of(c, r)->op].role; }
gq_layout gq_view_layout(const gq_compiler *c, gq_ref r);      /* of node r, over its root */
bool gq_view_whole(const gq_compiler *c, gq_ref r);            /* all of the root, in its order */
bool gq_computed(const gq_compiler *c, gq_ref r);              /* a root that some unit computes */
gq_view gq_compose(const gq_compiler *c, gq_ref r);            /* a view op seen through its operand */
/* r reads a in place within one group: both element-wise, one shape, number by number. */
bool gq_same_cells(const gq_compiler *c, gq_ref r, gq_ref a);

int gq_pass_fuse(gq_compiler *c);
int gq_pass_alias(gq_compiler *c);
int gq_pass_schedule(gq_compiler *c);
int gq_pass_plan(gq_compiler *c);
int gq_pass_lower(gq_compiler *c);

#endif
