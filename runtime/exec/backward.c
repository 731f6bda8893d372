/*
** backward.c -- reverse mode over the tape: visit the nodes behind the outputs once, users before
** operands, and push cotangents through the small graph of each operation's derivative.
** No recursion: a loop of a million operations is a chain of a million nodes.
*/
#include "backend.h"
#include "node.h"

#include <string.h>

typedef struct visit {
  struct gq_tape *node;
  int32_t cot; /* where the cotangents of its results begin */
  bool useful; /* leads to something that is asked for */
} visit;

typedef struct leaf {
  gq_tensor *t, *sum;
  bool wanted;
} leaf;

typedef struct walk {
  gq_map nodes, leaves; /* -> index in visits, in leaf */
  visit *visits;        /* operands before users */
  leaf *leaf;
  gq_tensor **cot; /* cotangent of each result so far, or NULL */
  bool *keep;      /* result is an input of gq_grad: its cotangent is an answer */
  int nvisit, nleaf, ncot, visit_room, leaf_room;
  bool every_leaf; /* gq_backward */
  bool create_graph;
} walk;

static int leaf_index(walk *w, gq_tensor *t, int32_t *out) {
  int32_t *found = gq_map_find(&w->leaves, t);
  if (found) {
    *out = *found;
    return GQ_OK;
  }
  GQ_TRY(gq_room(&w->leaf, &w->leaf_room, w->nleaf, sizeof *w->leaf));
  GQ_TRY(gq_map_set(&w->leaves, t, w->nleaf));
  w->leaf[w->nleaf] = (leaf){ .t = t, .wanted = w->every_leaf };
  *out = w->nleaf++;
  return GQ_OK;
}

static void walk_free(walk *w) {
  for (int i = 0; i < w->nleaf; i++) gq_tensor_unref(w->leaf[i].sum);
  for (int i = 0; w->cot && i < w->ncot; i++) gq_tensor_unref(w->cot[i]);
  gq_map_free(&w->nodes);
  gq_map_free(&w->leaves);
  gq_free(w->visits);
  gq_free(w->leaf);
  gq_free(w->cot);
  gq_free(w->keep);
}

/* ---- finding the nodes: depth first with a stack of our own ---- */

typedef struct frame {
  struct gq_tape *node;
  int next;
} frame;

static int finish_node(walk *w, struct gq_tape *n) {
  GQ_TRY(gq_room(&w->visits, &w->visit_room, w->nvisit, sizeof *w->visits));
  if (n->nout > INT32_MAX - w->ncot) return gq_fail(GQ_ENOMEM, "too many recorded operations");
  w->visits[w->nvisit] = (visit){ n, w->ncot, false };
  w->ncot += n->nout;
  return gq_map_set(&w->nodes, n, w->nvisit++);
}

static int visit_from(walk *w, struct gq_tape *root) {
  frame *stack = NULL;
  int room = 0, depth = 0, status = GQ_OK;
  struct gq_tape *enter = gq_map_find(&w->nodes, root) ? NULL : root;
  while (status == GQ_OK && (enter || depth > 0)) {
    if (enter) {
      status = gq_room(&stack, &room, depth, sizeof *stack);
      if (status == GQ_OK) status = gq_map_set(&w->nodes, enter, -1);
      if (status == GQ_OK) stack[depth++] = (frame){ enter, 0 };
      enter = NULL;
      continue;
    }
    frame *f = &stack[depth - 1];
    if (f->next == f->node->nargs) {
      status = finish_node(w, f->node);
      depth--;
      continue;
    }
    struct gq_tape *from = f->node->arg[f->next++].from;
    if (from && !gq_map_find(&w->nodes, from)) enter = from;
  }
  gq_free(stack);
  return status;
}

/* ---- who needs what ---- */

static int32_t cot_index(const walk *w, const struct gq_tape *node, int out) {
  return w->visits[*gq_map_find(&w->nodes, node)].cot + out;
}

/* Does this operand lead to something that is asked for? */
static bool leads_on(const walk *w, const gq_slot *s) {
  if (s->from) {
    int32_t *at = gq_map_find(&w->nodes, s->from);
    return w->visits[*at].useful || w->keep[w->visits[*at].cot + s->out];
  }
  if (!s->t || !s->t->requires_grad || s->t->tape) return false;
  int32_t *at = gq_map_find(&w->leaves, s->t);
  return w->every_leaf || (at && w->leaf[*at].wanted);
}

static int prepare(walk *w) {
  w->cot = gq_calloc((size_t)w->ncot + 1, sizeof *w->cot);
  w->keep = gq_calloc((size_t)w->ncot + 1, sizeof *w->keep);
  return w->cot && w->keep ? GQ_OK : gq_nomem((size_t)w->ncot * sizeof *w->cot);
}

static void mark_useful(walk *w) {
  for (int i = 0; i < w->nvisit; i++)
    for (int k = 0; k < w->visits[i].node->nargs && !w->visits[i].useful; k++)
      w->visits[i].useful = leads_on(w, &w->visits[i].node->arg[k]);
}

/* ---- adding cotangents ---- */

static bool owned(const gq_tensor *t) {
  return t->refs == 1 && t->storage->refs == 1 && !t->tape && gq_tensor_contiguous(t);
}

/* dst += src, both packed. */
static void add_into(gq_tensor *dst, const gq_tensor *src) {
  gq_backend_of(dst)->vec->axpy(dst->dtype, gq_numel(dst->shape), 1, gq_tensor_data(src),
                                gq_tensor_data(dst));
  dst->storage->version++;
}

/* *sum += x; takes x over. */
static int accumulate(const walk *w, gq_tensor **sum, gq_tensor *x) {
  if (!*sum) {
    *sum = x;
    return GQ_OK;
  }
  int status = GQ_OK;
  if (!w->create_graph && owned(*sum) && gq_tensor_contiguous(x)) add_into(*sum, x);
  else {
    gq_tensor *both[2] = { *sum, x }, *r = NULL;
    status =
      w->create_graph ? gq_op_call(GQ_OP_ADD, 2, both, NULL, &r) : gq_apply(GQ_OP_ADD, 2, both, NULL, &r);
    if (status == GQ_OK) {
      gq_tensor_unref(*sum);
      *sum = r;
    }
  }
  gq_tensor_unref(x);
  return status;
}

static int deliver(walk *w, const gq_slot *s, gq_tensor *g) {
  int32_t i;
  if (gq_tensor_device(g) != s->device) { /* of a number that met tensors elsewhere */
    gq_tensor *back;
    int moved = gq_to_device(g, s->device, &back);
    gq_tensor_unref(g);
    GQ_TRY(moved);
    g = back;
  }
  if (s->from) return accumulate(w, &w->cot[cot_index(w, s->from, s->out)], g);
  int status = leaf_index(w, s->t, &i);
  if (status != GQ_OK) {
    gq_tensor_unref(g);
    return status;
  }
  return accumulate(w, &w->leaf[i].sum, g);
}

/* ---- one node ---- */

static int changed(const struct gq_tape *n) {
  return gq_fail(
    GQ_ESTATE,
    "a tensor saved for backward by '%s' was modified in place after it was used; write to a copy "
    "(x:clone()), or assign before the forward pass",
    gq_ops[n->op].name);
}

/* The saved value of operand i, as a new reference. */
static int saved_value(const struct gq_tape *n, int i, gq_tensor **out) {
  const gq_slot *s = &n->arg[i];
  if (!s->saved)
    return gq_fail(GQ_ESTATE, "the derivative of '%s' reads operand %d, which was not saved",
                   gq_ops[n->op].name, i + 1);
  if (s->t->storage != s->storage || s->storage->version != s->version) return changed(n);
  *out = gq_tensor_ref(s->t);
  return GQ_OK;
}

/* The saved result; for create_graph with its place on the tape. */
static int saved_result(struct gq_tape *n, bool create_graph, gq_tensor **out) {
  gq_tensor *r = n->result;
  if (r->storage->version != n->version) return changed(n);
  if (!create_graph) {
    *out = gq_tensor_ref(r);
    return GQ_OK;
  }
  GQ_TRY(gq_tensor_view(r, r->shape, r->stride, r->offset, out));
  (*out)->tape = n;
  n->refs++;
  (*out)->ref = 0;
  (*out)->requires_grad = true;
  return GQ_OK;
}

static int run_mini(const walk *w, struct gq_tape *n, const gq_mini *m, gq_tensor *cot, gq_tensor **value) {
  int size = gq_graph_size(m->g);
  for (int i = 0; i < n->nargs; i++)
    if (m->need[m->in[i]]) GQ_TRY(saved_value(n, i, &value[m->in[i]]));
  if (m->need[m->cot]) value[m->cot] = gq_tensor_ref(cot);
  for (gq_ref r = 0; r < size; r++) {
    if (!m->need[r] || value[r]) continue;
    if (r == m->result && n->result) GQ_TRY(saved_result(n, w->create_graph, &value[r]));
    else
      GQ_TRY(
        gq_evaluate_node(w->create_graph ? gq_op_call : gq_apply, gq_graph_node(m->g, r), value, &value[r]));
  }
  return GQ_OK;
}

/* grads[i]: what the node's rule sends to operand i, or NULL. */
static int op_backward(const walk *w, struct gq_tape *n, gq_tensor *cot, const bool *want,
                       gq_tensor **grads) {
  gq_mini m;
  gq_tensor **value = NULL;
  int size = 0, status = gq_mini_new(&m, n, want, n->result != NULL);
  if (status == GQ_OK) {
    size = gq_graph_size(m.g);
    value = gq_calloc((size_t)size, sizeof *value);
    status = value ? run_mini(w, n, &m, cot, value) : gq_nomem((size_t)size * sizeof *value);
  }
  for (int i = 0; i < n->nargs && status == GQ_OK; i++)
    if (m.grad[i] != GQ_NONE) grads[i] = gq_tensor_ref(value[m.grad[i]]);
  for (int r = 0; value && r < size; r++) gq_tensor_unref(value[r]);
  gq_free(value);
  gq_mini_free(&m);
  return status;
}

static int check_custom(const struct gq_tape *n, gq_tensor *const *grads) {
  for (int i = 0; i < n->nargs; i++)
    if (grads[i] && (grads[i]->dtype != n->arg[i].dtype || !gq_shape_equal(grads[i]->shape, n->arg[i].shape)))
      return gq_fail(GQ_ESHAPE, "%s: gradient %d has the wrong shape or dtype", n->custom->name, i + 1);
  return GQ_OK;
}

static int node_backward(walk *w, const visit *v) {
  struct gq_tape *n = v->node;
  size_t count = (size_t)n->nargs;
  gq_tensor **cots = w->cot + v->cot, **grads = gq_calloc(count + 1, sizeof *grads);
  bool *want = gq_calloc(count + 1, sizeof *want);
  int status = grads && want ? GQ_OK : gq_nomem(count * sizeof *grads);
  if (status == GQ_OK) {
    for (int i = 0; i < n->nargs; i++) want[i] = leads_on(w, &n->arg[i]);
    if (n->custom) status = n->custom->backward(n->custom, cots, w->create_graph, grads);
    else status = op_backward(w, n, cots[0], want, grads);
  }
  if (status == GQ_OK && n->custom) status = check_custom(n, grads);
  for (int i = 0; i < n->nargs && grads; i++)
    if (grads[i]) {
      if (status == GQ_OK && want && want[i]) status = deliver(w, &n->arg[i], grads[i]);
      else gq_tensor_unref(grads[i]);
    }
  gq_free(grads);
  gq_free(want);
  return status;
}

static bool has_cot(const walk *w, const visit *v) {
  for (int i = 0; i < v->node->nout; i++)
    if (w->cot[v->cot + i]) return true;
  return false;
}

/* Users before operands; a node's cotangents are complete when its turn comes. */
static int propagate(walk *w) {
  bool was = gq_set_recording(w->create_graph);
  int status = GQ_OK;
  for (int i = w->nvisit - 1; i >= 0 && status == GQ_OK; i--) {
    const visit *v = &w->visits[i];
    if (v->useful && has_cot(w, v)) status = node_backward(w, v);
    for (int k = 0; k < v->node->nout; k++)
      if (!w->keep[v->cot + k]) {
        gq_tensor_unref(w->cot[v->cot + k]);
        w->cot[v->cot + k] = NULL;
      }
  }
  gq_set_recording(was);
  return status == GQ_OK ? gq_pending() : status;
}

/* ---- where it starts ---- */

static int first_cot(const gq_tensor *out, gq_tensor *cot_, gq_tensor **c) {
  char a[160], b[160];
  if (!cot_) {
    if (gq_numel(out->shape) != 1)
      return gq_fail(
        GQ_EARG,
        "backward starts from one number, not from shape %s: reduce it with :sum() or :mean(), or "
        "pass a cotangent of that shape",
        gq_shape_text(out->shape, a, sizeof a));
    GQ_TRY(gq_tensor_empty_on(gq_tensor_device(out), out->dtype, out->shape, c));
    return gq_tensor_fill(*c, 1);
  }
  if (!cot_->storage) return gq_trace_stale();
  if (cot_->dtype != out->dtype || !gq_shape_equal(cot_->shape, out->shape))
    return gq_fail(GQ_ESHAPE, "cotangent %s %s for an output %s %s: dtype and shape must be the same",
                   gq_dtype_name(cot_->dtype), gq_shape_text(cot_->shape, a, sizeof a),
                   gq_dtype_name(out->dtype), gq_shape_text(out->shape, b, sizeof b));
  if (gq_tensor_device(cot_) != gq_tensor_device(out))
    return gq_fail(GQ_EARG, "cotangent on %s for an output on %s: move it, as in x:to(\"%s\")",
                   gq_tensor_device(cot_)->name, gq_tensor_device(out)->name, gq_tensor_device(out)->name);
  *c = gq_tensor_ref(cot_);
  return GQ_OK;
}

static int start(walk *w, gq_tensor *out, gq_tensor *cot_) {
  gq_tensor *c = NULL;
  int32_t i;
  int status = first_cot(out, cot_, &c);
  if (status == GQ_OK && !out->tape) status = leaf_index(w, out, &i);
  if (status != GQ_OK) {
    gq_tensor_unref(c);
    return status;
  }
  return accumulate(w, out->tape ? &w->cot[cot_index(w, out->tape, out->ref)] : &w->leaf[i].sum, c);
}

static int no_gradient(const char *what) {
  return gq_fail(
    GQ_EARG,
    "%s does not require a gradient: nothing with requires_grad = true led to it, or it was made "
    "inside gq.no_grad, by a solve with gradient = \"none\", or detached",
    what);
}

/* ---- .grad of every leaf ---- */

/* The sum becomes packed and our own, so that what follows cannot fail. */
static int settle(gq_tensor **sum, bool own) {
  if (own ? owned(*sum) : gq_tensor_contiguous(*sum)) return GQ_OK;
  gq_tensor *c = NULL;
  GQ_TRY(gq_tensor_empty_on(gq_tensor_device(*sum), (*sum)->dtype, (*sum)->shape, &c));
  int status = gq_tensor_copy(c, *sum);
  gq_tensor_unref(status == GQ_OK ? *sum : c);
  if (status == GQ_OK) *sum = c;
  return status;
}

/* A .grad that is no packed tensor of this dtype (it was set by hand) gets a sum of its own. */
static int settle_leaf(leaf *f) {
  gq_tensor *old = f->t->grad;
  if (old && !gq_tensor_contiguous(old)) {
    gq_tensor *both[2] = { old, f->sum }, *r = NULL;
    GQ_TRY(gq_apply(GQ_OP_ADD, 2, both, NULL, &r));
    gq_tensor_unref(f->sum);
    f->sum = r;
    return GQ_OK;
  }
  return settle(&f->sum, !old);
}

static void commit_leaf(leaf *f) {
  gq_tensor *old = f->t->grad;
  if (old && gq_tensor_contiguous(old)) {
    add_into(old, f->sum); /* in place: a flat block of gradients stays flat */
    return;
  }
  f->t->grad = f->sum;
  f->sum = NULL;
  gq_tensor_unref(old);
}

/* A leaf that `out` was made of and to which nothing flows, as by sign or floor: its gradient is zero, not absent. But
** a custom operation tells itself to which of its operands it has a gradient. */
static int still_leaf(walk *w, gq_tensor *t) {
  int32_t i;
  GQ_TRY(leaf_index(w, t, &i));
  if (w->leaf[i].sum || t->grad) return GQ_OK;
  return gq_tensor_new_on(gq_tensor_device(t), t->dtype, t->shape, &w->leaf[i].sum);
}

static int still_leaves(walk *w) {
  for (int i = 0; i < w->nvisit; i++)
    for (int k = 0; k < w->visits[i].node->nargs; k++) {
      const gq_slot *s = &w->visits[i].node->arg[k];
      if (!w->visits[i].node->custom && !s->from && leads_on(w, s)) GQ_TRY(still_leaf(w, s->t));
    }
  return GQ_OK;
}

static int commit(walk *w) {
  GQ_TRY(still_leaves(w));
  for (int i = 0; i < w->nleaf; i++)
    if (w->leaf[i].sum) GQ_TRY(settle_leaf(&w->leaf[i]));
  for (int i = 0; i < w->nleaf; i++)
    if (w->leaf[i].sum) commit_leaf(&w->leaf[i]);
  return GQ_OK;
}

int gq_backward(gq_tensor *out, gq_tensor *cot_) {
  walk w = { .every_leaf = true };
  if (gq_trace_current())
    return gq_fail(GQ_ESTATE, "backward cannot run while a function is traced: use gq.grad there");
  if (out->trace) return gq_trace_stale();
  if (!out->requires_grad) return no_gradient("this tensor");
  int status = out->tape ? visit_from(&w, out->tape) : GQ_OK;
  if (status == GQ_OK) status = prepare(&w);
  if (status == GQ_OK) {
    mark_useful(&w);
    status = start(&w, out, cot_);
  }
  if (status == GQ_OK) status = propagate(&w);
  if (status == GQ_OK) status = commit(&w);
  walk_free(&w);
  return status;
}

/* ---- leaves that nobody named ---- */

static bool among(const gq_tensor *t, int n, gq_tensor *const *list) {
  for (int i = 0; i < n; i++)
    if (list[i] == t) return true;
  return false;
}

static bool stray_leaf(gq_tensor *t, int n, gq_tensor *const *known) {
  return t && t->requires_grad && !t->tape && !among(t, n, known);
}

int gq_tape_stray(gq_tensor *out, int n, gq_tensor *const *known, gq_tensor **stray) {
  walk w = { .every_leaf = true };
  *stray = stray_leaf(out, n, known) ? out : NULL;
  int status = out->tape ? visit_from(&w, out->tape) : GQ_OK;
  for (int i = 0; status == GQ_OK && !*stray && i < w.nvisit; i++)
    for (int k = 0; k < w.visits[i].node->nargs && !*stray; k++) {
      const gq_slot *s = &w.visits[i].node->arg[k];
      if (!s->from && stray_leaf(s->t, n, known)) *stray = s->t;
    }
  walk_free(&w);
  return status;
}

/* ---- gradients as values ---- */

static int visit_outputs(walk *w, int nout, gq_tensor *const *out) {
  bool any = false;
  for (int i = 0; i < nout; i++) {
    if (out[i]->trace) return gq_trace_stale();
    any = any || out[i]->requires_grad;
    if (out[i]->tape) GQ_TRY(visit_from(w, out[i]->tape));
  }
  return any ? GQ_OK : no_gradient(nout == 1 ? "the output" : "none of the outputs");
}

static int mark_inputs(walk *w, int nin, gq_tensor *const *in) {
  for (int i = 0; i < nin; i++) {
    int32_t k;
    char what[40] = "input";
    if (in[i]->trace) return gq_trace_stale();
    if (!in[i]->requires_grad) return no_gradient(what);
    if (!in[i]->tape) {
      GQ_TRY(leaf_index(w, in[i], &k));
      w->leaf[k].wanted = true;
    } else if (gq_map_find(&w->nodes, in[i]->tape)) w->keep[cot_index(w, in[i]->tape, in[i]->ref)] = true;
  }
  return GQ_OK;
}

/* The answer for one input: a reference for create_graph, else a packed tensor of its own. */
static int take(walk *w, gq_tensor *in, gq_tensor **grad) {
  gq_tensor **at = NULL;
  if (!in->tape) at = &w->leaf[*gq_map_find(&w->leaves, in)].sum;
  else if (gq_map_find(&w->nodes, in->tape)) at = &w->cot[cot_index(w, in->tape, in->ref)];
  if (!at || !*at) return GQ_OK;
  gq_tensor *g = gq_tensor_ref(*at);
  int status = w->create_graph ? GQ_OK : settle(&g, true); /* two references: settle copies */
  if (status == GQ_OK) *grad = g;
  else gq_tensor_unref(g);
  return status;
}

static int eager_grad(walk *w, int nout, gq_tensor *const *out, gq_tensor *const *cots_, int nin,
                      gq_tensor *const *in, gq_tensor **grads) {
  GQ_TRY(visit_outputs(w, nout, out));
  GQ_TRY(prepare(w));
  GQ_TRY(mark_inputs(w, nin, in));
  mark_useful(w);
  for (int i = 0; i < nout; i++)
    if (out[i]->requires_grad) GQ_TRY(start(w, out[i], cots_ ? cots_[i] : NULL));
  GQ_TRY(propagate(w));
  for (int i = 0; i < nin; i++) GQ_TRY(take(w, in[i], &grads[i]));
  return GQ_OK;
}

static bool any_traced(int n, gq_tensor *const *t) {
  for (int i = 0; i < n; i++)
    if (t[i]->trace) return true;
  return false;
}

int gq_grad(int nout, gq_tensor *const *out, gq_tensor *const *cots_, int nin, gq_tensor *const *in,
            bool create_graph, gq_tensor **grads) {
  for (int i = 0; i < nin; i++) grads[i] = NULL;
  if (gq_trace_current() && (any_traced(nout, out) || any_traced(nin, in)))
    return gq_trace_grad(gq_trace_current(), nout, out, cots_, nin, in, grads);
  walk w = { .create_graph = create_graph };
  int status = eager_grad(&w, nout, out, cots_, nin, in, grads);
  for (int i = 0; i < nin && status != GQ_OK; i++) {
    gq_tensor_unref(grads[i]);
    grads[i] = NULL;
  }
  walk_free(&w);
  return status;
}
