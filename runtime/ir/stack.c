/*
** stack.c -- a sum of matrix products as one product of what they were made of, stacked:
** A_1' B_1 + A_2' B_2 + ... = [A_1; A_2; ..]' [B_1; B_2; ..].
** The derivative of a step by a layer's matrix is such a sum, a product a stage. Added one by one each of them reads
** and writes all of the matrix; stacked, that is done once, over an inner dimension long enough for full speed.
*/
#include "internal.h"

enum {
  MOST = 64,
  VISITS = 4 * MOST
}; /* products of one sum, more than any method has stages; nodes looked at */

typedef struct stack {
  gq_graph *g;
  gq_ref like[MOST]; /* products of the first one's form */
  int n, visits;
  gq_ref rest; /* what else there is in the sum */
} stack;

static bool plain(const gq_graph *g, const gq_node *n) {
  return n->op == GQ_OP_MATMUL && n->shape.ndim == 2 && gq_at(g, n->arg[0])->shape.ndim == 2 &&
         gq_at(g, n->arg[1])->shape.ndim == 2;
}

/* r, of the sum's shape but where it is spread over it, is added. What a sum shares with itself is met again at every
** mention, hence the limit. */
static void collect(stack *s, gq_ref r, gq_shape shape) {
  const gq_node *n = gq_at(s->g, r);
  bool whole = gq_shape_equal(n->shape, shape);
  if (whole && n->op == GQ_OP_ADD && s->visits++ < VISITS) {
    collect(s, n->arg[0], shape);
    collect(s, n->arg[1], shape);
  } else if (whole && plain(s->g, n) && s->n < MOST &&
             (s->n == 0 || n->attr.flags == gq_at(s->g, s->like[0])->attr.flags)) {
    s->like[s->n++] = r;
  } else {
    s->rest = s->rest == GQ_NONE ? r : gq_emit2(s->g, GQ_OP_ADD, s->rest, r);
  }
}

/* Stacking copies the operands; adding one by one passes over the result once more for each, at a lower rate: measured,
** the two are even where the operands have eight times the numbers. */
static bool pays(const gq_graph *g, const stack *s) {
  gq_shape out = gq_at(g, s->like[0])->shape;
  int64_t inner = 0;
  for (int i = 0; i < s->n; i++) {
    const gq_node *n = gq_at(g, s->like[i]);
    inner += gq_at(g, n->arg[0])->shape.dim[n->attr.flags & GQ_TA ? 0 : 1];
  }
  return 8.0 * (s->n - 1) * (double)gq_numel(out) > (double)inner * (out.dim[0] + out.dim[1]);
}

gq_ref gq_stack_products(gq_graph *g, gq_ref sum) {
  stack s = { .g = g, .rest = GQ_NONE };
  gq_ref left[MOST], right[MOST];
  if (sum == GQ_NONE) return sum;
  collect(&s, sum, gq_at(g, sum)->shape);
  if (s.n < 2 || !pays(g, &s)) return sum;
  int flags = gq_at(g, s.like[0])->attr.flags;
  for (int i = 0; i < s.n; i++) {
    const gq_node *n = gq_at(g, s.like[i]);
    left[i] = n->arg[0], right[i] = n->arg[1];
  }
  gq_ref one = gq_matmul(g, gq_cat(g, s.n, left, flags & GQ_TA ? 0 : 1),
                         gq_cat(g, s.n, right, flags & GQ_TB ? 1 : 0), flags);
  return s.rest == GQ_NONE ? one : gq_emit2(g, GQ_OP_ADD, s.rest, one);
}
