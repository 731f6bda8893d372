/*
** apply.c -- one operation on tensors, at once: the plain meaning of the op table. Views where
** the strides allow it, otherwise a fresh contiguous result that a backend fills.
*/
#include "backend.h"
#include "layout.h"

#include <string.h>

/* ---- views ---- */

static int reshape(gq_tensor *x, gq_shape s, gq_tensor **out) {
  int64_t stride[GQ_MAXDIM];
  gq_tensor *c = NULL;
  gq_shape_strides(s, stride);
  GQ_TRY(gq_tensor_contiguous_get(x, &c));
  int status = gq_tensor_view(c, s, stride, c->offset, out);
  gq_tensor_unref(c);
  return status;
}

/* All but RESHAPE only change strides. Windows overlap: they are copied, so that each number can be written to. */
static int view(gq_op op, gq_tensor *x, const gq_attr *attr, gq_shape s, gq_tensor **out) {
  int64_t stride[GQ_MAXDIM] = { 0 }, offset = x->offset;
  gq_layout l = gq_layout_of(x->shape, x->stride);
  gq_tensor *seen = NULL;
  if (op == GQ_OP_RESHAPE) return reshape(x, s, out);
  if (!gq_layout_view(op, attr, &l, s, stride, &offset))
    return gq_fail(GQ_EUNSUPPORTED, "%s cannot be evaluated by itself", gq_ops[op].name);
  if (op != GQ_OP_WINDOW) return gq_tensor_view(x, s, stride, offset, out);
  GQ_TRY(gq_tensor_view(x, s, stride, offset, &seen));
  int status = gq_tensor_contiguous_get(seen, out);
  gq_tensor_unref(seen);
  return status;
}

/* ---- the door ---- */

enum { FEW = 16 };

static int infer(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_dtype *dtype,
                 gq_shape *shape) {
  gq_dtype d[FEW];
  gq_shape s[FEW];
  gq_dtype *dtypes = d;
  gq_shape *shapes = s;
  if (nargs > FEW) {
    dtypes = gq_calloc((size_t)nargs, sizeof *dtypes);
    shapes = gq_calloc((size_t)nargs, sizeof *shapes);
  }
  int status = dtypes && shapes ? GQ_OK : gq_nomem((size_t)nargs * sizeof *shapes);
  for (int i = 0; i < nargs && status == GQ_OK; i++) {
    dtypes[i] = args[i]->dtype;
    shapes[i] = args[i]->shape;
  }
  if (status == GQ_OK) status = gq_infer(op, nargs, dtypes, shapes, attr, dtype, shape);
  if (nargs > FEW) {
    gq_free(dtypes);
    gq_free(shapes);
  }
  return status;
}

/* Numbers of the host go where tensors are; other mixes do not. */
static int find_device(gq_op op, int nargs, gq_tensor *const *args, const gq_device **on, bool *mixed) {
  const gq_tensor *first = NULL;
  *on = gq_host, *mixed = false;
  for (int i = 0; i < nargs; i++) {
    const gq_device *d = gq_tensor_device(args[i]);
    bool number = d == gq_host && args[i]->shape.ndim == 0;
    if (number) continue;
    if (first && d != *on)
      return gq_fail(GQ_EARG,
                     "%s: one tensor is on %s and another on %s: move one of them, as in x:to(\"%s\")",
                     gq_ops[op].name, (*on)->name, d->name, (*on)->name);
    first = args[i], *on = d;
  }
  for (int i = 0; i < nargs; i++) *mixed |= gq_tensor_device(args[i]) != *on;
  return GQ_OK;
}

/* With the host's numbers moved. */
static int apply_moved(const gq_device *on, gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr,
                       gq_tensor *out) {
  gq_tensor **there = gq_calloc((size_t)nargs, sizeof *there);
  int status = there ? GQ_OK : gq_nomem((size_t)nargs * sizeof *there);
  for (int i = 0; i < nargs && status == GQ_OK; i++) status = gq_tensor_on(args[i], on, &there[i]);
  if (status == GQ_OK) status = gq_backend_of(out)->apply(op, nargs, there, attr, out);
  for (int i = 0; there && i < nargs; i++) gq_tensor_unref(there[i]);
  gq_free(there);
  return status;
}

int gq_apply(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_, gq_tensor **out) {
  static const gq_attr none;
  const gq_attr *attr = attr_ ? attr_ : &none;
  gq_dtype dtype;
  gq_shape shape;
  gq_tensor *t = NULL;
  const gq_device *on;
  bool mixed;
  *out = NULL;
  GQ_TRY(infer(op, nargs, args, attr, &dtype, &shape));
  if (gq_ops[op].role == GQ_VIEW) return view(op, args[0], attr, shape, out);
  GQ_TRY(find_device(op, nargs, args, &on, &mixed));
  GQ_TRY(gq_tensor_empty_on(on, dtype, shape, &t));
  int status =
    mixed ? apply_moved(on, op, nargs, args, attr, t) : gq_backend_of(t)->apply(op, nargs, args, attr, t);
  if (status == GQ_OK) *out = t;
  else gq_tensor_unref(t);
  return status;
}

/* ---- a graph, node by node ---- */

static void mark(const gq_graph *g, int n, const gq_ref *refs, bool *need) {
  for (int i = 0; i < n; i++)
    if (refs[i] != GQ_NONE) need[refs[i]] = true;
  for (int r = gq_graph_size(g) - 1; r >= 0; r--) {
    const gq_node *v = gq_graph_node(g, r);
    for (int i = 0; i < v->nargs && need[r]; i++) need[v->args[i]] = true;
  }
}

/* Where the inputs are, if any is not on the CPU. */
static const gq_device *place_of(int n, gq_tensor *const *in) {
  const gq_device *on = gq_host;
  for (int i = 0; i < n && on == gq_host; i++)
    if (in[i]) on = gq_tensor_device(in[i]);
  return on;
}

/* A number of the CPU's goes where the others are: what expands it would leave it behind. */
static int moved_number(const gq_device *on, gq_tensor **x) {
  gq_tensor *here = *x;
  if (on == gq_host || !here->storage || here->shape.ndim > 0 || gq_tensor_device(here) == on) return GQ_OK;
  GQ_TRY(gq_to_device(here, on, x));
  gq_tensor_unref(here);
  return GQ_OK;
}

static int evaluate_node(const gq_graph *g, gq_caller *call, gq_ref r, const gq_device *on,
                         gq_tensor *const *in, gq_tensor **value) {
  const gq_node *v = gq_graph_node(g, r);
  if (v->op == GQ_OP_INPUT) {
    value[r] = gq_tensor_ref(in[v->attr.axis]);
    return moved_number(on, &value[r]);
  }
  gq_tensor *few[FEW], **args = few;
  if (v->nargs > FEW && !(args = gq_calloc((size_t)v->nargs, sizeof *args)))
    return gq_nomem((size_t)v->nargs * sizeof *args);
  for (int i = 0; i < v->nargs; i++) args[i] = value[v->args[i]];
  int status = call(v->op, v->nargs, args, &v->attr, &value[r]);
  if (args != few) gq_free(args);
  return status == GQ_OK && v->nargs == 0 ? moved_number(on, &value[r]) : status;
}

int gq_evaluate_by(gq_caller *call, const gq_graph *g, gq_tensor *const *in, int n, const gq_ref *refs,
                   gq_tensor **out) {
  size_t size = (size_t)gq_graph_size(g);
  const gq_device *on = place_of(gq_graph_inputs(g), in);
  bool *need = gq_calloc(size + 1, sizeof *need);
  gq_tensor **value = gq_calloc(size + 1, sizeof *value);
  int status = need && value ? GQ_OK : gq_nomem(size * sizeof *value);
  for (int i = 0; i < n; i++) out[i] = NULL;
  if (status == GQ_OK) mark(g, n, refs, need);
  for (size_t r = 0; r < size && status == GQ_OK; r++)
    if (need[r]) status = evaluate_node(g, call, (gq_ref)r, on, in, value);
  for (int i = 0; i < n && status == GQ_OK; i++)
    if (refs[i] != GQ_NONE) out[i] = gq_tensor_ref(value[refs[i]]);
  for (size_t r = 0; value && r < size; r++) gq_tensor_unref(value[r]);
  gq_free(value);
  gq_free(need);
  return status;
}

int gq_evaluate(const gq_graph *g, gq_tensor *const *in, int n, const gq_ref *refs, gq_tensor **out) {
  return gq_evaluate_by(gq_apply, g, in, n, refs, out);
}
