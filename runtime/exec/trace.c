/*
** trace.c -- while a function is traced, its operations become nodes of a graph. Tensors that come
** from outside are captures, inputs of the graph, found again by identity; so are numbers.
*/
#include "node.h"

#include <math.h>
#include <string.h>

typedef struct capture {
  gq_tensor *t;
  uint64_t version;
} capture;

struct gq_trace {
  uint64_t id;
  gq_trace *outer; /* the one that goes on when this is closed; its values are captures here */
  gq_graph *g;
  int ninput, ncapture;
  int room;
  capture *captures;
  gq_map refs;   /* captured tensor -> its node */
  double t0, t1; /* for which first inputs the function is known */
  bool unused;   /* a comparison of which nothing makes use */
  const gq_device *on;
};

static _Thread_local gq_trace *current;
static _Thread_local uint64_t last_id;

gq_trace *gq_trace_current(void) { return current; }

int gq_trace_stale(void) {
  return gq_fail(
    GQ_ESTATE, "a traced value is used outside its trace: values made inside a dynamics function exist only "
               "while it is traced; return them instead of keeping them");
}

static bool owns(const gq_trace *tr, const gq_tensor *t) { return t->trace == tr->id; }

int gq_trace_begin(gq_trace **tr) {
  *tr = NULL;
  if (current)
    return gq_fail(
      GQ_ESTATE,
      "a function is being traced already: a dynamics function cannot call gq.odeint or gq.sdeint");
  return gq_trace_nest(tr);
}

int gq_trace_nest(gq_trace **tr) {
  *tr = NULL;
  gq_trace *t = gq_calloc(1, sizeof *t);
  gq_graph *g = t ? gq_graph_new() : NULL;
  if (!g) {
    gq_free(t);
    return gq_nomem(sizeof *t);
  }
  gq_graph_literal(g); /* gradients in the trace may be asked of any value */
  t->id = ++last_id;
  t->g = g;
  t->outer = current;
  t->t0 = -INFINITY, t->t1 = INFINITY;
  t->on = t->outer ? t->outer->on : gq_host;
  *tr = current = t;
  return GQ_OK;
}

/* A handle on node r. */
static int traced(gq_trace *tr, gq_ref r, gq_tensor **out) {
  GQ_TRY(gq_graph_status(tr->g));
  const gq_node *n = gq_graph_node(tr->g, r);
  return gq_tensor_traced(n->dtype, n->shape, tr->id, r, out);
}

void gq_trace_place(gq_trace *tr, const gq_device *d) { tr->on = d; }

const gq_device *gq_place_of(const gq_tensor *t) {
  return t->storage || !current ? gq_tensor_device(t) : current->on;
}

int gq_trace_input(gq_trace *tr, gq_dtype d, gq_shape s, gq_tensor **out) {
  if (tr->ncapture > 0) return gq_fail(GQ_ESTATE, "inputs of a trace come before its captures");
  gq_ref r = gq_input(tr->g, d, s);
  GQ_TRY(traced(tr, r, out));
  tr->ninput++;
  return GQ_OK;
}

static int add_capture(gq_trace *tr, gq_tensor *t, gq_ref *r) {
  GQ_TRY(gq_room(&tr->captures, &tr->room, tr->ncapture, sizeof *tr->captures));
  GQ_TRY(
    gq_map_set(&tr->refs, t, GQ_NONE)); /* room first: an input without its capture would be a wrong one */
  *r = gq_input(tr->g, t->dtype, t->shape);
  GQ_TRY(gq_graph_status(tr->g));
  GQ_TRY(gq_map_set(&tr->refs, t, *r));
  uint64_t version = t->storage ? t->storage->version : 0;
  tr->captures[tr->ncapture++] = (capture){ gq_tensor_ref(t), version };
  return GQ_OK;
}

/* A traced value of a trace around this one. */
static bool from_outside(const gq_trace *tr, const gq_tensor *t) {
  const gq_trace *o = tr->outer;
  while (o && !owns(o, t)) o = o->outer;
  return o != NULL;
}

/* The node of t in the current trace. */
static int node_of(gq_trace *tr, gq_tensor *t, gq_ref *r) {
  GQ_TRY(gq_graph_status(tr->g)); /* a capture that failed has no node */
  if (owns(tr, t)) {
    *r = t->ref;
    return GQ_OK;
  }
  if (!t->storage && !from_outside(tr, t)) return gq_trace_stale();
  int32_t *found = gq_map_find(&tr->refs, t);
  if (!found) return add_capture(tr, t, r);
  *r = *found;
  return GQ_OK;
}

int gq_trace_number(gq_trace *tr, gq_dtype d, double x, gq_tensor **out) {
  bool plain = x == 0 || x == 1 || x == -1 || x == 2 || x == 0.5;
  if (plain || !isfinite(x)) return traced(tr, gq_const(tr->g, d, x), out);
  gq_tensor *t = NULL;
  gq_ref r;
  GQ_TRY(gq_tensor_empty(d, gq_shape_of(0, NULL), &t));
  int status = gq_tensor_fill(t, x);
  if (status == GQ_OK) status = add_capture(tr, t, &r);
  if (status == GQ_OK) status = traced(tr, r, out);
  gq_tensor_unref(t);
  return status;
}

/* ---- operations ---- */

/* Ask the rule first: an error that the script catches must not spoil the graph. */
static int emit_checked(gq_trace *tr, gq_op op, int n, const gq_ref *refs, const gq_attr *attr, gq_dtype *d,
                        gq_shape *s, gq_tensor **out) {
  gq_dtype dtype;
  gq_shape shape;
  for (int i = 0; i < n; i++) {
    const gq_node *v = gq_graph_node(tr->g, refs[i]);
    d[i] = v->dtype;
    s[i] = v->shape;
  }
  GQ_TRY(gq_infer(op, n, d, s, attr, &dtype, &shape));
  return traced(tr, gq_emit(tr->g, op, n, refs, attr), out);
}

int gq_trace_emit(gq_trace *tr, gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_,
                  gq_tensor **out) {
  static const gq_attr none;
  enum { FEW = 4 };
  size_t n = (size_t)nargs + 1, each = sizeof(gq_ref) + sizeof(gq_dtype) + sizeof(gq_shape);
  gq_shape few[2 * FEW], *s = nargs < FEW ? few : gq_calloc(n, each);
  if (!s) return gq_nomem(n * each);
  gq_dtype *d = (gq_dtype *)(s + n);
  gq_ref *refs = (gq_ref *)(d + n);
  int status = GQ_OK;
  for (int i = 0; i < nargs && status == GQ_OK; i++) status = node_of(tr, args[i], &refs[i]);
  if (status == GQ_OK) status = emit_checked(tr, op, nargs, refs, attr_ ? attr_ : &none, d, s, out);
  if (s != few) gq_free(s);
  return status;
}

/* ---- gradients inside a trace ---- */

static int cot_of(gq_trace *tr, gq_tensor *out, gq_tensor *cot_, gq_ref *r) {
  char a[160];
  if (cot_) {
    if (cot_->dtype != out->dtype || !gq_shape_equal(cot_->shape, out->shape))
      return gq_fail(GQ_ESHAPE, "grad: the cotangent must have the output's dtype and shape (%s %s)",
                     gq_dtype_name(out->dtype), gq_shape_text(out->shape, a, sizeof a));
    return node_of(tr, cot_, r);
  }
  if (gq_numel(out->shape) != 1)
    return gq_fail(
      GQ_EARG, "grad starts from one number, not from shape %s: reduce it with :sum(), or give cotangents",
      gq_shape_text(out->shape, a, sizeof a));
  *r = gq_expand(tr->g, gq_const(tr->g, out->dtype, 1), out->shape);
  return gq_graph_status(tr->g);
}

static int trace_vjp(gq_trace *tr, int nout, gq_tensor *const *out, gq_tensor *const *cots_, int nin,
                     gq_tensor *const *in, gq_ref *refs, gq_tensor **grads) {
  gq_ref *o = refs, *c = o + nout, *wrt = c + nout, *g = wrt + nin;
  for (int i = 0; i < nout; i++) {
    GQ_TRY(node_of(tr, out[i], &o[i]));
    GQ_TRY(cot_of(tr, out[i], cots_ ? cots_[i] : NULL, &c[i]));
  }
  for (int i = 0; i < nin; i++) GQ_TRY(node_of(tr, in[i], &wrt[i]));
  GQ_TRY(gq_vjp(tr->g, nout, o, c, nin, wrt, g));
  for (int i = 0; i < nin; i++)
    if (g[i] != GQ_NONE) GQ_TRY(traced(tr, g[i], &grads[i]));
  return GQ_OK;
}

int gq_trace_grad(gq_trace *tr, int nout, gq_tensor *const *out, gq_tensor *const *cots_, int nin,
                  gq_tensor *const *in, gq_tensor **grads) {
  size_t n = 2 * ((size_t)nout + (size_t)nin) + 1;
  gq_ref *refs = gq_calloc(n, sizeof *refs);
  if (!refs) return gq_nomem(n * sizeof *refs);
  int status = trace_vjp(tr, nout, out, cots_, nin, in, refs, grads);
  gq_free(refs);
  for (int i = 0; i < nin && status != GQ_OK; i++) {
    gq_tensor_unref(grads[i]);
    grads[i] = NULL;
  }
  return status;
}

/* ---- the end ---- */

/* The values are read when the program runs, so a write in between would be seen by all operations. */
static int check_captures(const gq_trace *tr) {
  for (int i = 0; i < tr->ncapture; i++)
    if (tr->captures[i].t->storage && tr->captures[i].t->storage->version != tr->captures[i].version)
      return gq_fail(GQ_ESTATE,
                     "the dynamics function writes to a tensor that it also reads: build new values with "
                     "gq.where or gq.cat instead");
  return GQ_OK;
}

static int set_outputs(gq_trace *tr, int nout, gq_tensor *const *out) {
  gq_ref few[8], *refs = few;
  if (nout > 8 && !(refs = gq_calloc((size_t)nout, sizeof *refs)))
    return gq_nomem((size_t)nout * sizeof *refs);
  int status = GQ_OK;
  for (int i = 0; i < nout && status == GQ_OK; i++) status = node_of(tr, out[i], &refs[i]);
  if (status == GQ_OK) {
    gq_graph_set_outputs(tr->g, nout, refs);
    status = gq_graph_status(tr->g);
  }
  if (refs != few) gq_free(refs);
  return status;
}

/* The same graph, folded, without what no output needs. */
static int fold(gq_trace *tr, int nout) {
  gq_graph *g = gq_graph_new();
  int n = gq_graph_inputs(tr->g);
  gq_ref *refs = gq_calloc((size_t)n + (size_t)nout + 1, sizeof *refs);
  int status = g && refs ? GQ_OK : gq_nomem(((size_t)n + (size_t)nout) * sizeof *refs);
  if (status == GQ_OK) gq_inputs_like(g, tr->g, 0, refs);
  if (status == GQ_OK) status = gq_inline(g, tr->g, refs, refs + n);
  if (status == GQ_OK) gq_graph_set_outputs(g, nout, refs + n), status = gq_graph_status(g);
  gq_free(refs);
  gq_graph_free(status == GQ_OK ? tr->g : g);
  if (status == GQ_OK) tr->g = g;
  return status;
}

/* Is there a truth that no other value and no output is made of? */
static int find_unused(gq_trace *tr) {
  gq_ref n = gq_graph_size(tr->g);
  bool *used = gq_calloc((size_t)n + 1, sizeof *used);
  if (!used) return gq_nomem((size_t)n);
  for (int i = 0; i < gq_graph_outputs(tr->g); i++) used[gq_graph_output(tr->g, i)] = true;
  for (gq_ref i = n - 1; i >= 0; i--) {
    const gq_node *v = gq_graph_node(tr->g, i);
    for (int k = 0; k < v->nargs; k++) used[v->args[k]] = true;
    tr->unused |= v->dtype == GQ_BOOL && v->nargs > 0 && !used[i];
  }
  gq_free(used);
  return GQ_OK;
}

bool gq_trace_unused(const gq_trace *tr) { return tr->unused; }

int gq_trace_end(gq_trace *tr, int nout, gq_tensor *const *out) {
  int status = nout > 0 ? set_outputs(tr, nout, out) : GQ_OK;
  if (status == GQ_OK && nout > 0) status = check_captures(tr);
  if (status == GQ_OK && nout > 0) status = find_unused(tr);
  if (status == GQ_OK && nout > 0) status = fold(tr, nout);
  if (current == tr) current = tr->outer;
  return status;
}

void gq_trace_free(gq_trace *tr_) {
  if (!tr_) return;
  if (current == tr_) current = tr_->outer;
  for (int i = 0; i < tr_->ncapture; i++) gq_tensor_unref(tr_->captures[i].t);
  gq_free(tr_->captures);
  gq_map_free(&tr_->refs);
  gq_graph_free(tr_->g);
  gq_free(tr_);
}

const gq_graph *gq_trace_graph(const gq_trace *tr) { return tr->g; }

int gq_trace_captures(const gq_trace *tr) { return tr->ncapture; }

gq_tensor *gq_trace_capture(const gq_trace *tr, int i) { return tr->captures[i].t; }

bool gq_trace_known(const gq_tensor *t, double t0, double t1) {
  gq_trace *tr = current;
  if (!tr || tr->outer || !owns(tr, t) || t->ref != gq_graph_input(tr->g, 0)) return false;
  tr->t0 = fmax(tr->t0, t0), tr->t1 = fmin(tr->t1, t1);
  return true;
}

void gq_trace_interval(const gq_trace *tr, double *t0, double *t1) { *t0 = tr->t0, *t1 = tr->t1; }
