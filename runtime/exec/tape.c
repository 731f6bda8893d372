/*
** tape.c -- every operation of a script passes gq_op_call: computed at once and, where an operand
** wants gradients, remembered. A node holds edges to the nodes of its operands, and only those
** values that its derivative reads; storage versions tell whether they were changed since.
*/
#include "node.h"

#include <stdatomic.h>
#include <string.h>

static _Thread_local bool recording = true, twice;

bool gq_recording(void) { return recording; }

bool gq_set_recording(bool on) {
  bool was = recording;
  recording = on;
  return was;
}

bool gq_twice(void) { return twice; }

bool gq_set_twice(bool on) {
  bool was = twice;
  twice = on;
  return was;
}

/* ---- freeing ---- */

static _Thread_local struct gq_tape *doomed;
static _Thread_local bool draining;

static void release(struct gq_tape *n) {
  for (int i = 0; i < n->nargs; i++) {
    gq_tensor_unref(n->arg[i].t);
    gq_tape_unref(n->arg[i].from);
  }
  gq_tensor_unref(n->result);
  if (n->custom) n->custom->free(n->custom);
  gq_free(n);
}

/* A chain of a million nodes must not become a million nested calls: the outermost call empties a list. */
void gq_tape_unref(struct gq_tape *t_) {
  if (!t_ || --t_->refs > 0) return;
  t_->next = doomed;
  doomed = t_;
  if (draining) return;
  draining = true;
  while (doomed) {
    struct gq_tape *n = doomed;
    doomed = n->next;
    release(n);
  }
  draining = false;
}

/* ---- the derivative as a small graph ---- */

static void mark_needed(gq_mini *m, int nargs, bool have_result) {
  for (int i = 0; i < nargs; i++)
    if (m->grad[i] != GQ_NONE) m->need[m->grad[i]] = true;
  for (gq_ref r = gq_graph_size(m->g) - 1; r >= 0; r--) {
    const gq_node *v = gq_graph_node(m->g, r);
    if (!m->need[r] || (r == m->result && have_result)) continue;
    for (int i = 0; i < v->nargs; i++) m->need[v->args[i]] = true;
  }
}

static int differentiate(gq_mini *m, const struct gq_tape *node, const bool *want) {
  gq_ref wrt[3], grad[3], *w = wrt, *d = grad;
  int n = 0;
  if (node->nargs > 3) {
    w = gq_calloc((size_t)node->nargs, 2 * sizeof *w);
    if (!w) return gq_nomem((size_t)node->nargs * 2 * sizeof *w);
    d = w + node->nargs;
  }
  for (int i = 0; i < node->nargs; i++)
    if (want[i]) w[n++] = m->in[i];
  int status = gq_vjp(m->g, 1, &m->result, &m->cot, n, w, d);
  for (int i = 0, k = 0; i < node->nargs; i++) m->grad[i] = status == GQ_OK && want[i] ? d[k++] : GQ_NONE;
  if (w != wrt) gq_free(w);
  return status;
}

int gq_mini_new(gq_mini *m, const struct gq_tape *node, const bool *want, bool have_result) {
  size_t n = (size_t)node->nargs;
  *m = (gq_mini){ .g = gq_graph_new(), .in = gq_calloc(n + 1, 2 * sizeof *m->in) };
  if (!m->g || !m->in) return gq_nomem(2 * n * sizeof *m->in);
  m->grad = m->in + n;
  for (int i = 0; i < node->nargs; i++) m->in[i] = gq_input(m->g, node->arg[i].dtype, node->arg[i].shape);
  m->result = gq_emit(m->g, node->op, node->nargs, m->in, node->attr);
  GQ_TRY(gq_graph_status(m->g));
  const gq_node *r = gq_graph_node(m->g, m->result);
  m->cot = gq_input(m->g, r->dtype, r->shape);
  GQ_TRY(gq_graph_status(m->g));
  GQ_TRY(differentiate(m, node, want));
  m->need = gq_calloc((size_t)gq_graph_size(m->g), sizeof *m->need);
  if (!m->need) return gq_nomem((size_t)gq_graph_size(m->g));
  mark_needed(m, node->nargs, have_result);
  return GQ_OK;
}

void gq_mini_free(gq_mini *m) {
  gq_graph_free(m->g);
  gq_free(m->in);
  gq_free(m->need);
  *m = (gq_mini){ 0 };
}

/* ---- what a derivative reads ---- */

enum { NEEDS_RESULT = 4, NEEDS_ALL = 7, NEEDS_KNOWN = 8 }; /* bits 0 and 1: the first two operands */

/* The column `reads`. OTHER: of two operands the other; ASK: the rule itself. */
enum { NOTHING = 0, COND = 1, INDEX = 2, HIT = 1 | NEEDS_RESULT, OTHER = 16, ASK = 32 };
static const uint8_t reads[GQ_NOP] = {
#define GQ_UNARY(N, ...) [GQ_OP_##N] = ASK,
#define GQ_BINARY(N, ...) [GQ_OP_##N] = ASK,
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, batch, columns, jet, vjp, reads, ...) \
  [GQ_OP_##N] = reads,
#include "../ir/ops.def"
};

/* Once for each op and set of operands that want gradients. */
static int ask_rule(gq_op op, int nargs, int mask) {
  static uint8_t known[GQ_NOP][4];
  _Alignas(struct gq_tape) char room[sizeof(struct gq_tape) + 2 * sizeof(gq_slot)] = { 0 };
  struct gq_tape *probe = (void *)room;
  bool want[2] = { mask & 1, mask >> 1 & 1 };
  gq_mini m;
  if (known[op][mask]) return known[op][mask];
  probe->op = op, probe->nargs = nargs, probe->nout = 1;
  for (int i = 0; i < nargs; i++) probe->arg[i].dtype = GQ_F64;
  int needs = NEEDS_ALL;
  if (gq_mini_new(&m, probe, want, true) == GQ_OK) {
    needs = NEEDS_KNOWN;
    for (int i = 0; i < nargs; i++)
      if (m.need[m.in[i]]) needs |= 1 << i;
    if (m.need[m.result]) needs |= NEEDS_RESULT;
    known[op][mask] = (uint8_t)needs;
  }
  gq_mini_free(&m);
  return needs;
}

/* Bits 0 and 1: operands, NEEDS_RESULT: the result. mask: operands that want gradients. */
static int needed_values(gq_op op, int nargs, int mask) {
  if (reads[op] == ASK) return ask_rule(op, nargs, mask);
  return reads[op] == OTHER ? (mask & 1) << 1 | (mask >> 1 & 1) : reads[op];
}

/* ---- recording ---- */

static bool wants_grad(const gq_tensor *t) { return t->requires_grad && gq_is_float(t->dtype); }

static void fill_slot(gq_slot *s, gq_tensor *t, bool save) {
  s->dtype = t->dtype;
  s->shape = t->shape;
  s->device = gq_tensor_device(t);
  if (wants_grad(t) && t->tape) {
    s->from = t->tape;
    s->from->refs++;
    s->out = t->ref;
  }
  if (save) {
    s->saved = true;
    s->storage = t->storage;
    s->version = t->storage->version;
  }
  if (save || (wants_grad(t) && !t->tape)) s->t = gq_tensor_ref(t);
}

static struct gq_tape *node_new(gq_op op, int nargs, int nout, const gq_attr *attr_) {
  struct gq_tape *n = NULL;
  size_t bytes = sizeof *n + (size_t)nargs * sizeof(gq_slot); /* nargs: at most 2^31 */
  n = gq_calloc(1, bytes + (attr_ ? sizeof *attr_ : 0));
  if (!n) {
    gq_nomem(bytes);
    return NULL;
  }
  if (attr_) n->attr = memcpy((char *)n + bytes, attr_, sizeof *attr_);
  n->op = op;
  n->nargs = nargs;
  n->nout = nout;
  return n;
}

/* n holds all that are behind it, so the pointer is no reference. */
static void find_caller(struct gq_tape *n) {
  static _Atomic uint64_t made;
  bool own = n->custom && n->custom->calls;
  for (int i = 0; i < n->nargs && !own; i++) {
    const struct gq_tape *c = n->arg[i].from ? n->arg[i].from->caller : NULL;
    own = c && n->caller && c != n->caller;
    if (c) n->caller = c;
  }
  if (own) n->caller = n, n->number = ++made;
}

static void attach(struct gq_tape *n, gq_tensor *out, int i) {
  n->refs++;
  out->tape = n;
  out->ref = i;
  out->requires_grad = true;
}

static int wanted_mask(int nargs, gq_tensor *const *args) {
  int mask = 0;
  for (int i = 0; i < nargs; i++)
    if (wants_grad(args[i])) mask |= i < 3 ? 1 << i : 1;
  return mask;
}

int gq_record(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_, gq_tensor *out) {
  int mask = recording && gq_is_float(out->dtype) ? wanted_mask(nargs, args) : 0;
  if (!mask) return GQ_OK;
  struct gq_tape *n = node_new(op, nargs, 1, attr_);
  if (!n) return GQ_ENOMEM;
  int needs = needed_values(op, nargs, mask), status = GQ_OK;
  for (int i = 0; i < nargs; i++) fill_slot(&n->arg[i], args[i], i < 2 && (needs >> i & 1));
  if (needs & NEEDS_RESULT) {
    status = gq_tensor_view(out, out->shape, out->stride, out->offset, &n->result);
    n->version = out->storage->version;
  }
  find_caller(n);
  if (status == GQ_OK) attach(n, out, 0);
  else release(n);
  return status;
}

int gq_record_custom(gq_custom *c, int nin, gq_tensor *const *in, int nout, gq_tensor *const *out) {
  bool record = recording && wanted_mask(nin, in) != 0 && nout > 0;
  struct gq_tape *n = record ? node_new(GQ_NOP, nin, nout, NULL) : NULL;
  if (!n) {
    c->free(c);
    return record ? GQ_ENOMEM : GQ_OK;
  }
  n->custom = c;
  for (int i = 0; i < nin; i++) fill_slot(&n->arg[i], in[i], false);
  find_caller(n);
  for (int i = 0; i < nout; i++) attach(n, out[i], i);
  return GQ_OK;
}

gq_custom *gq_tape_custom(const gq_tensor *x) { return x->tape ? x->tape->custom : NULL; }
const struct gq_tape *gq_tape_caller(const gq_tensor *x) { return x->tape ? x->tape->caller : NULL; }
uint64_t gq_caller_number(const struct gq_tape *c) { return c->number; }
gq_custom *gq_caller_custom(const struct gq_tape *c) {
  return c->custom && c->custom->calls ? c->custom : NULL;
}

const struct gq_tape *gq_caller_next(const struct gq_tape *c, int *i) {
  while (*i < c->nargs) {
    const struct gq_tape *from = c->arg[(*i)++].from;
    if (from && from->caller) return from->caller;
  }
  return NULL;
}

/* ---- the door ---- */

/* Strides of x seen with shape s without a copy (sizes of 1 come and go, neighbours that lie in one
** row merge or split), or false. */
static bool view_strides(const gq_tensor *x, gq_shape s, int64_t *stride) {
  int k = s.ndim - 1;
  int64_t from = 1, to = 1, step = 1; /* numbers covered so far on either side */
  for (int i = x->shape.ndim - 1; i >= 0; i--) {
    if (from == 1) step = x->stride[i];
    from *= x->shape.dim[i];
    bool ends = i == 0 || (x->shape.dim[i - 1] != 1 && x->stride[i - 1] != from * step);
    if (!ends) continue;
    while (k >= 0 && (to < from || s.dim[k] == 1)) {
      stride[k] = to * step;
      to *= s.dim[k--];
    }
    if (to != from) return false;
    from = to = 1;
  }
  for (; k >= 0; k--) stride[k] = 1;
  return true;
}

static int reshape_view(gq_tensor *x, const gq_attr *attr, gq_tensor **out, bool *done) {
  int64_t stride[GQ_MAXDIM];
  *done = gq_shape_check(attr->shape, x->dtype, NULL) == GQ_OK && gq_numel(x->shape) > 0 &&
          gq_numel(x->shape) == gq_numel(attr->shape) && view_strides(x, attr->shape, stride);
  return *done ? gq_tensor_view(x, attr->shape, stride, x->offset, out) : GQ_OK;
}

int gq_op_call(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_, gq_tensor **out) {
  gq_trace *tr = gq_trace_current();
  if (tr) return gq_trace_emit(tr, op, nargs, args, attr_, out);
  for (int i = 0; i < nargs; i++)
    if (!args[i]->storage) return gq_trace_stale();
  gq_tensor *r = NULL;
  bool done = false;
  if (op == GQ_OP_RESHAPE && attr_) GQ_TRY(reshape_view(args[0], attr_, &r, &done));
  if (!done) GQ_TRY(gq_apply(op, nargs, args, attr_, &r));
  int status = gq_record(op, nargs, args, attr_, r);
  if (status != GQ_OK) {
    gq_tensor_unref(r);
    r = NULL;
  }
  *out = r;
  return status;
}
