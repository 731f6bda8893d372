/*
** internal.h -- what the files of ir/ share: the graph's storage and small tools.
*/
#ifndef GQ_IR_INTERNAL_H
#define GQ_IR_INTERNAL_H

#include "ir.h"

enum { GQ_FIRST_CHUNK = 16, GQ_CHUNKS = 26 };

/* Chunk k holds 16 << k nodes, so a node never moves and node->args may point into the node. */
struct gq_graph {
  int status;
  bool literal;                                           /* nothing is folded */
  bool later;                                             /* gq_graph_later */
  int size;
  gq_node *chunk[GQ_CHUNKS];
  struct gq_slot { uint32_t hash; gq_ref ref; } *slot;   /* open addressing; ref GQ_NONE: free */
  uint32_t nslot;                                         /* power of two, or 0 */
  gq_ref *input, *output;
  int ninput, noutput, input_room;
  struct gq_list { struct gq_list *next; gq_ref args[]; } *lists;   /* operands of CAT and CALL nodes */
};

/* Remember the first failure; returns GQ_NONE. */
gq_ref gq_graph_fail(gq_graph *g, int code);
/* The equal node that is there already, or GQ_NONE. n: complete but for args. */
gq_ref gq_graph_find(const gq_graph *g, const gq_node *n, const gq_ref *args);
/* n's attributes, zero until now: what its operation uses of `from_`. n: complete but for args. */
void gq_attr_clean(gq_node *n, const gq_attr *from_);
/* The equal node, or a new one. */
gq_ref gq_graph_add(gq_graph *g, const gq_node *n, const gq_ref *args);

static inline const gq_node *gq_at(const gq_graph *g, gq_ref r) {
  uint32_t u = (uint32_t)r / GQ_FIRST_CHUNK + 1;
  int k = 31 - __builtin_clz(u);
  return &g->chunk[k][r - GQ_FIRST_CHUNK * ((1 << k) - 1)];
}

/* What the node `n` over `args` simplifies to, or GQ_NONE. May replace operands in `own`
** (args itself, or NULL where there are more than three). */
gq_ref gq_fold(gq_graph *g, gq_node *n, gq_ref *own, const gq_ref *args);
/* Every number of r is *x: a constant, perhaps expanded. */
bool gq_uniform(const gq_graph *g, gq_ref r, double *x);

/* Operands of the node that has most, 3 at least. */
int gq_graph_most(const gq_graph *g);
/* Mark in need[0..size) the nodes that the n refs depend on, themselves included. */
void gq_graph_needs(const gq_graph *g, int n, const gq_ref *refs, bool *need);
/* Emit the node `n` of another graph over the operands `args` of g. */
gq_ref gq_graph_again(gq_graph *g, const gq_node *n, const gq_ref *args);

/* ---- rows.c ---- */

typedef struct gq_rowproof {
  const gq_graph *g;
  int64_t rows;
  gq_label *at;                /* of each node */
  bool *varies;                /* computed from the state */
  bool *need;
  bool single;                 /* with one row: dims of 1 are taken for the row, as they would be for more */
} gq_rowproof;
int gq_rowproof_init(gq_rowproof *w, const gq_graph *g, int64_t rows);
void gq_rowproof_done(gq_rowproof *w);
/* Label every node, or fail: gq_rows. */
int gq_rows_prove(gq_rowproof *w, const int *axis);

static inline bool gq_zero_dims(gq_shape s) {
  for (int i = 0; i < s.ndim; i++)
    if (s.dim[i] == 0) return true;
  return false;
}

#endif
