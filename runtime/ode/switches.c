/*
** switches.c -- dynamics that compare t with what wants a gradient: where f jumps would move with it, which no gradient
** engine can see from f alone. Nor can it where the state is compared, if f jumps there.
*/
#include "solution.h"

#include <math.h>

/* What a value depends on. A MIXED one is a product of TIME and WANTED, or the like: t - T is none. */
enum { TIME = 1, STATE = 2, WANTED = 4, MIXED = 8 };

static unsigned of_input(const gq_problem *p, int i) {
  if (i < 2) return i == 0 ? TIME : STATE;
  return p->wants_grad && p->wants_grad[i - 2] ? WANTED : 0;
}

static bool adds(gq_op op) {
  switch (op) {
    case GQ_OP_ADD:
    case GQ_OP_SUB:
    case GQ_OP_NEG:
    case GQ_OP_CAST:
    case GQ_OP_RESHAPE:
    case GQ_OP_EXPAND: return true;
    default: return false;
  }
}

static bool compares(gq_op op) {
  return op == GQ_OP_LT || op == GQ_OP_LE || op == GQ_OP_GT || op == GQ_OP_GE || op == GQ_OP_SIGN;
}

static unsigned of_node(const gq_node *n, const unsigned *what) {
  unsigned sum = 0, both = TIME | WANTED;
  for (int i = 0; i < n->nargs; i++) sum |= what[n->args[i]];
  if (!adds(n->op) && (sum & both) == both) sum |= MIXED;
  return sum;
}

/* A layer of a network has products of t and many numbers; a switch is one. */
static bool is_switch(const gq_node *n, const unsigned *what) {
  unsigned sum = 0, both = TIME | WANTED;
  for (int i = 0; i < n->nargs; i++) sum |= what[n->args[i]];
  return compares(n->op) && (sum & both) == both && !(sum & STATE) &&
         (!(sum & MIXED) || gq_numel(n->shape) == 1);
}

static bool infinite(const gq_graph *g, const gq_node *n) {
  while (n->op == GQ_OP_EXPAND) n = gq_graph_node(g, n->args[0]);
  return n->op == GQ_OP_CONST && isinf(n->attr.x);
}

/* where(x > 0, x, ...), as leaky_relu has it, is continuous, and no finite x passes infinity, by which softmax asks. */
static void spare(const gq_graph *g, int r, unsigned *spared) {
  const gq_node *n = gq_graph_node(g, r);
  for (int i = 0; compares(n->op) && i < n->nargs; i++)
    if (infinite(g, gq_graph_node(g, n->args[i]))) spared[r] = 1;
  if (n->op != GQ_OP_WHERE) return;
  const gq_node *c = gq_graph_node(g, n->args[0]);
  for (int i = 1; compares(c->op) && i < 3; i++)
    for (int j = 0; j < c->nargs; j++)
      if (n->args[i] == c->args[j]) spared[n->args[0]] = 1;
}

/* What each node depends on, and behind that which are spared; NULL: no memory. */
static unsigned *look_at(const gq_problem *p) {
  int n = gq_graph_size(p->f);
  unsigned *what = gq_calloc(2 * (size_t)n + 1, sizeof *what);
  for (int i = 0; what && i < n; i++) {
    const gq_node *x = gq_graph_node(p->f, i);
    what[i] = x->op == GQ_OP_INPUT ? of_input(p, x->attr.axis) : of_node(x, what);
    spare(p->f, i, what + n);
  }
  return what;
}

int gq_check_switches(const gq_problem *p) {
  int n = gq_graph_size(p->f), found = 0;
  unsigned *what = look_at(p);
  if (!what) return gq_nomem(n * sizeof *what);
  for (int i = 0; i < n; i++) found += is_switch(gq_graph_node(p->f, i), what) && !what[n + i];
  gq_free(what);
  if (!found) return GQ_OK;
  return gq_fail(GQ_EARG, "the dynamics compare t with a tensor that requires a gradient: where they jump "
                          "moves with it, which no gradient of "
                          "f tells. Let the jump be an event, t - T, and solve on from there; or give the "
                          "tensor as grid_points too; where f "
                          "is continuous, compare with its value, T:detach()");
}

static bool jumps(gq_op op) {
  return compares(op) || op == GQ_OP_FLOOR || op == GQ_OP_ROUND || op == GQ_OP_FLOOR_DIVIDE;
}

bool gq_switches_by_state(const gq_problem *p) {
  int n = gq_graph_size(p->f);
  bool found = gq_graph_calls(p->f);
  unsigned *what = look_at(p);
  for (int i = 0; what && i < n; i++) {
    const gq_node *x = gq_graph_node(p->f, i);
    for (int j = 0; jumps(x->op) && !what[n + i] && j < x->nargs; j++) found |= what[x->args[j]] & STATE;
  }
  gq_free(what);
  return found;
}
