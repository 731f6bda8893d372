/*
** products.c -- sums of a step's products a'df/dtheta over its stages: those of matrices stacked, so that all stages are
** one; probes summed in what they are made of.
*/
#include "builder.h"

/* Are all of one operation, with the same attributes, on operands of one shape? */
static bool alike(const gq_builder *b, int n, const gq_ref *x) {
  const gq_node *first = gq_graph_node(b->g, x[0]);
  for (int i = 1; i < n; i++) {
    const gq_node *v = gq_graph_node(b->g, x[i]);
    if (v->op != first->op || v->attr.flags != first->attr.flags || !gq_shape_equal(v->shape, first->shape))
      return false;
    for (int j = 0; j < first->nargs; j++)
      if (!gq_shape_equal(gq_graph_node(b->g, v->args[j])->shape, gq_graph_node(b->g, first->args[j])->shape))
        return false;
  }
  return true;
}

/* Operand j of all. Is it one and the same? */
static bool operands(const gq_builder *b, int n, const gq_ref *x, int j, gq_ref *arg) {
  bool same = true;
  for (int i = 0; i < n; i++) arg[i] = gq_graph_node(b->g, x[i])->arg[j], same = same && arg[i] == arg[0];
  return same;
}

/* Products with few rows of what is large are made while that is near, though only an accepted step asks for them. */
static void keep_products(gq_builder *b, gq_ref r) {
  gq_node x = *gq_graph_node(b->g, r);
  if (x.op == GQ_OP_MUL)
    for (int i = 0; i < 2; i++) keep_products(b, x.arg[i]);
  if (x.op == GQ_OP_MATMUL && gq_numel(x.shape) < gq_numel(gq_graph_node(b->g, x.arg[1])->shape))
    b->kept[b->l->kept++] = (gq_outspec){ r, b->k->whole ? 2 : 0, GQ_KEEP };
}

static gq_ref weighted_inside(gq_builder *b, int n, const gq_ref *x, const gq_ref *w);

/* The same for products x_i y_i: of one y, or of numbers y_i, which are weights too. GQ_NONE: neither. */
static gq_ref weighted_factors(gq_builder *b, int n, const gq_ref *x, const gq_ref *w) {
  gq_node first = *gq_graph_node(b->g, x[0]);
  gq_ref part[GQ_MAXSTAGES], factor[GQ_MAXSTAGES], arg[2];
  for (int j = 0; j < 2; j++) {
    bool same = operands(b, n, x, j, factor), number = gq_graph_node(b->g, factor[0])->shape.ndim == 0;
    operands(b, n, x, 1 - j, part);
    if (same) {
      arg[j] = factor[0], arg[1 - j] = weighted_inside(b, n, part, w);
      return gq_emit(b->g, first.op, 2, arg, &first.attr);
    }
    for (int i = 0; number && i < n; i++) factor[i] = gq_emit2(b->g, GQ_OP_MUL, factor[i], w[i]);
    if (number) return weighted_inside(b, n, part, factor);
  }
  return GQ_NONE;
}

/* sum_i w_i x_i of probes; where all x_i are made in one linear way, that of the sum of what they are made of. So
** numbers of all stages are summed over the rows at once. */
static gq_ref weighted_inside(gq_builder *b, int n, const gq_ref *x, const gq_ref *w) {
  gq_graph *g = b->g;
  gq_node first = *gq_graph_node(g, x[0]);
  gq_ref part[GQ_MAXSTAGES], arg[2], sum = GQ_NONE;
  bool like = alike(b, n, x), number = gq_numel(first.shape) == first.shape.dim[0]; /* not one of rows */
  if (like && (first.op == GQ_OP_RESHAPE || first.op == GQ_OP_SUM || (first.op == GQ_OP_ADD && number))) {
    for (int j = 0; j < first.nargs; j++) {
      operands(b, n, x, j, part);
      arg[j] = weighted_inside(b, n, part, w);
    }
    return gq_emit(g, first.op, first.nargs, arg, &first.attr);
  }
  if (like && (first.op == GQ_OP_MUL || first.op == GQ_OP_MATMUL)) sum = weighted_factors(b, n, x, w);
  if (sum != GQ_NONE) return sum;
  for (int i = 0; i < n; i++) {
    keep_products(b, x[i]);
    sum = gq_builder_sum(b, sum, gq_emit2(g, GQ_OP_MUL, x[i], w[i]));
  }
  return sum;
}

/* sum_i w_i x_i. The weight of a matrix product goes to its first operand, so that products can be stacked. */
static gq_ref weighted(gq_builder *b, int n, const gq_ref *x, const gq_ref *w) {
  gq_graph *g = b->g;
  gq_ref sum = GQ_NONE, number[GQ_MAXSTAGES];
  for (int i = 0; i < n; i++)
    if (x[i] == GQ_NONE) return GQ_NONE;
  for (int i = 0; b->s->probes && i < n; i++) number[i] = gq_builder_to_state(b, w[i]);
  if (n > 0 && b->s->probes) return weighted_inside(b, n, x, number);
  for (int i = 0; i < n; i++) {
    gq_node node = *gq_graph_node(g, x[i]);
    gq_ref scale = gq_builder_to_state(b, w[i]);
    gq_ref term = node.op == GQ_OP_MATMUL && node.shape.ndim == 2
                    ? gq_matmul(g, gq_emit2(g, GQ_OP_MUL, node.arg[0], scale), node.arg[1], node.attr.flags)
                    : gq_emit2(g, GQ_OP_MUL, x[i], scale);
    sum = gq_builder_sum(b, sum, term);
  }
  return gq_stack_products(g, sum);
}

gq_ref gq_builder_product(gq_builder *b, int r, const gq_ref *w) {
  gq_ref x[GQ_MAXSTAGES], wx[GQ_MAXSTAGES];
  int n = 0;
  for (int i = 0; i < b->l->slopes; i++)
    if (w[i] != GQ_NONE) x[n] = b->q[i * b->l->nq + r], wx[n++] = w[i];
  return weighted(b, n, x, wx);
}
