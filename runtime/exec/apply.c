/*
** apply.c -- one operation on tensors, at once: the plain meaning of the op table. Views where
** the strides allow it, otherwise a fresh contiguous result that a backend fills.
*/
#include "backend.h"
#include "layout.h"

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
