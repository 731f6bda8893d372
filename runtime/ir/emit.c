/*
** emit.c -- the one door into a graph: check, fold, share, append. fold.c knows what folds.
*/
#include "internal.h"

#include <string.h>

enum { FEW = 16 };

/* Sizes past ndim are zero in every stored shape, and so are the bytes that the compiler puts between. */
static void clean_shape(gq_shape *s) {
  gq_shape from = *s;
  memset(s, 0, sizeof *s);
  s->ndim = from.ndim;
  memcpy(s->dim, from.dim, (size_t)from.ndim * sizeof *s->dim);
}

static gq_ref leaf(gq_graph *g, gq_op op, const gq_attr *attr) {
  gq_node n;
  memset(&n, 0, sizeof n);
  if (g->status != GQ_OK) return GQ_NONE;
  int status = gq_infer(op, 0, NULL, NULL, attr, &n.dtype, &n.shape);
  if (status != GQ_OK) return gq_graph_fail(g, status);
  n.op = op;
  clean_shape(&n.shape);
  gq_attr_clean(&n, attr);
  return gq_graph_add(g, &n, NULL);
}

gq_ref gq_input(gq_graph *g, gq_dtype d, gq_shape s) {
  int status = gq_room(&g->input, &g->input_room, g->ninput, sizeof *g->input);
  if (status != GQ_OK) return gq_graph_fail(g, status);
  gq_attr attr = { .dtype = d, .axis = g->ninput, .shape = s };
  gq_ref r = leaf(g, GQ_OP_INPUT, &attr);
  if (r != GQ_NONE) g->input[g->ninput++] = r;
  return r;
}

gq_ref gq_input_like(gq_graph *g, const gq_graph *other, int i) {
  const gq_node *n = gq_graph_node(other, gq_graph_input(other, i));
  return gq_input(g, n->dtype, n->shape);
}

void gq_inputs_like(gq_graph *g, const gq_graph *other, int from, gq_ref *bind) {
  for (int i = from; i < other->ninput; i++) bind[i] = gq_input_like(g, other, i);
}

/* x as the dtype holds it. */
static double rounded(gq_dtype d, double x) {
  switch (d) {
    case GQ_F32: return (double)(float)x;
    case GQ_I64: return x >= -9.2e18 && x <= 9.2e18 ? (double)(int64_t)x : 0;
    case GQ_BOOL: return x != 0;
    default: return x;
  }
}

gq_ref gq_const(gq_graph *g, gq_dtype d, double x) {
  gq_attr attr = { .dtype = d, .x = rounded(d, x) };
  return leaf(g, GQ_OP_CONST, &attr);
}

/* Dtype and shape of the node over args; false: refused. */
static bool infer(gq_graph *g, gq_op op, int nargs, const gq_ref *args, const gq_attr *attr_, gq_node *n) {
  gq_dtype few_d[FEW] = { GQ_F32 }, *d = few_d;
  gq_shape few_s[FEW], *s = few_s;
  few_s[0].ndim = 0;
  if (nargs > FEW) {
    d = gq_alloc((size_t)nargs * sizeof *d);
    s = gq_alloc((size_t)nargs * sizeof *s);
  }
  int status = d && s ? GQ_OK : gq_nomem((size_t)nargs * sizeof *s);
  for (int i = 0; status == GQ_OK && i < nargs; i++) {
    d[i] = gq_at(g, args[i])->dtype;
    s[i] = gq_at(g, args[i])->shape;
  }
  if (status == GQ_OK) status = gq_infer(op, nargs, d, s, attr_, &n->dtype, &n->shape);
  if (nargs > FEW) {
    gq_free(d);
    gq_free(s);
  }
  if (status != GQ_OK) gq_graph_fail(g, status);
  return status == GQ_OK;
}

static bool commutes(gq_op op) {
  return op == GQ_OP_ADD || op == GQ_OP_MUL || op == GQ_OP_EQ || op == GQ_OP_NE;
}

gq_ref gq_emit(gq_graph *g, gq_op op, int nargs, const gq_ref *args, const gq_attr *attr_) {
  if (g->status != GQ_OK) return GQ_NONE;
  for (int i = 0; i < nargs; i++)
    if (args[i] < 0 || args[i] >= g->size) return GQ_NONE;
  if (op == GQ_OP_INPUT)
    return gq_graph_fail(g, gq_fail(GQ_EARG, "an input is made by gq_input, not by gq_emit"));
  if (op == GQ_OP_CONST) return attr_ ? gq_const(g, attr_->dtype, attr_->x) : GQ_NONE;
  gq_node n;
  memset(&n, 0, sizeof n);
  n.op = op;
  n.nargs = nargs;
  if (!infer(g, op, nargs, args, attr_, &n)) return GQ_NONE;
  clean_shape(&n.shape);
  gq_attr_clean(&n, attr_);
  gq_ref few[3] = { GQ_NONE, GQ_NONE, GQ_NONE };
  if (nargs <= 3) {
    if (nargs) memcpy(few, args, (size_t)nargs * sizeof *args);
    args = few;
  }
  gq_ref r = g->literal ? GQ_NONE : gq_fold(g, &n, nargs <= 3 ? few : NULL, args);
  if (r != GQ_NONE || g->status != GQ_OK) return r;
  if (commutes(op)) {
    r = gq_graph_find(g, &n, (gq_ref[]){ args[1], args[0] });
    if (r != GQ_NONE) return r;
  }
  return gq_graph_add(g, &n, args);
}

gq_ref gq_graph_again(gq_graph *g, const gq_node *n, const gq_ref *args) {
  return gq_emit(g, n->op, n->nargs, args, &n->attr);
}

/* ---- shorthands ---- */

gq_ref gq_emit1(gq_graph *g, gq_op op, gq_ref a) { return gq_emit(g, op, 1, &a, NULL); }

gq_ref gq_emit2(gq_graph *g, gq_op op, gq_ref a, gq_ref b) {
  return gq_emit(g, op, 2, (gq_ref[]){ a, b }, NULL);
}

gq_ref gq_where(gq_graph *g, gq_ref c, gq_ref a, gq_ref b) {
  return gq_emit(g, GQ_OP_WHERE, 3, (gq_ref[]){ c, a, b }, NULL);
}

gq_ref gq_cast(gq_graph *g, gq_ref a, gq_dtype d) {
  return gq_emit(g, GQ_OP_CAST, 1, &a, &(gq_attr){ .dtype = d });
}

gq_ref gq_matmul(gq_graph *g, gq_ref a, gq_ref b, int flags) {
  return gq_emit(g, GQ_OP_MATMUL, 2, (gq_ref[]){ a, b }, &(gq_attr){ .flags = flags });
}

gq_ref gq_sum_axes(gq_graph *g, gq_ref a, int mask) {
  return gq_emit(g, GQ_OP_SUM, 1, &a, &(gq_attr){ .flags = mask });
}

gq_ref gq_reshape(gq_graph *g, gq_ref a, gq_shape s) {
  return gq_emit(g, GQ_OP_RESHAPE, 1, &a, &(gq_attr){ .shape = s });
}

gq_ref gq_expand(gq_graph *g, gq_ref a, gq_shape s) {
  return gq_emit(g, GQ_OP_EXPAND, 1, &a, &(gq_attr){ .shape = s });
}

gq_ref gq_cat(gq_graph *g, int n, const gq_ref *a, int axis) {
  return gq_emit(g, GQ_OP_CAT, n, a, &(gq_attr){ .axis = axis });
}

/* `op` with n entries along the axis, those of the other side from `first` on. */
static gq_ref along(gq_graph *g, gq_op op, gq_ref a, int axis, int64_t first, int64_t n) {
  gq_attr attr = { .shape = gq_graph_node(g, a)->shape };
  for (int i = 0; i < attr.shape.ndim; i++) attr.step[i] = 1;
  attr.start[axis] = first, attr.shape.dim[axis] = n;
  return gq_emit(g, op, 1, &a, &attr);
}

gq_ref gq_slice(gq_graph *g, gq_ref a, int axis, int64_t first, int64_t n) {
  return along(g, GQ_OP_SLICE, a, axis, first, n);
}

gq_ref gq_pad(gq_graph *g, gq_ref a, int axis, int64_t first, int64_t n) {
  return along(g, GQ_OP_PAD, a, axis, first, n);
}

gq_ref gq_permute(gq_graph *g, gq_ref a, const int *perm) {
  gq_attr attr = { .axis = 0 };
  int n = gq_graph_node(g, a)->shape.ndim;
  for (int i = 0; i < n; i++) attr.perm[i] = perm[i];
  return gq_emit(g, GQ_OP_PERMUTE, 1, &a, &attr);
}

gq_ref gq_sum_to(gq_graph *g, gq_ref a, gq_shape s) {
  if (a == GQ_NONE) return GQ_NONE;
  gq_shape from = gq_graph_node(g, a)->shape;
  int mask = 0, lead = from.ndim - s.ndim;
  for (int i = 0; i < from.ndim; i++)
    if (i < lead || from.dim[i] != s.dim[i - lead]) mask |= 1 << i;
  return gq_reshape(g, mask ? gq_sum_axes(g, a, mask) : a, s);
}

gq_ref gq_scale(gq_graph *g, gq_ref a, double x) {
  if (a == GQ_NONE) return GQ_NONE;
  return gq_emit2(g, GQ_OP_MUL, a, gq_const(g, gq_graph_node(g, a)->dtype, x));
}

gq_ref gq_zeros(gq_graph *g, gq_dtype d, gq_shape s) { return gq_expand(g, gq_const(g, d, 0), s); }

/* ---- one graph into another ---- */

static int check_bindings(gq_graph *dst, const gq_graph *src, const gq_ref *bind, const bool *need) {
  for (int i = 0; i < src->ninput; i++) {
    if (!need[src->input[i]]) continue;
    const gq_node *want = gq_at(src, src->input[i]), *have = gq_graph_node(dst, bind[i]);
    char p[200], q[200];
    if (bind[i] == GQ_NONE || have->dtype != want->dtype || !gq_shape_equal(have->shape, want->shape))
      return gq_fail(GQ_ESHAPE, "input %d of a graph is %s %s; bound to %s %s", i + 1,
                     gq_dtype_name(want->dtype), gq_shape_text(want->shape, p, sizeof p),
                     bind[i] == GQ_NONE ? "nothing" : gq_dtype_name(have->dtype),
                     gq_shape_text(have->shape, q, sizeof q));
  }
  return GQ_OK;
}

static void copy_nodes(gq_graph *dst, const gq_graph *src, const gq_ref *bind, const bool *need, gq_ref *map,
                       gq_ref *args) {
  for (gq_ref r = 0, size = src->size; r < size; r++) {
    map[r] = GQ_NONE;
    if (!need[r]) continue;
    const gq_node *n = gq_at(src, r);
    for (int i = 0; i < n->nargs; i++) args[i] = map[n->args[i]];
    map[r] = n->op == GQ_OP_INPUT ? bind[n->attr.axis] : gq_graph_again(dst, n, args);
  }
}

int gq_inline(gq_graph *dst, const gq_graph *src, const gq_ref *bind, gq_ref *out) {
  int size = src->size, nout = src->noutput;
  for (int j = 0; j < nout; j++) out[j] = GQ_NONE;
  if (dst->status != GQ_OK) return dst->status;
  if (src->status != GQ_OK) return gq_graph_fail(dst, src->status), src->status;
  int most = gq_graph_most(src);
  size_t bytes = (size_t)(size + most) * sizeof(gq_ref) + (size_t)size + 1;
  gq_ref *map = gq_alloc(bytes);
  if (!map) return gq_graph_fail(dst, gq_nomem(bytes)), dst->status;
  gq_ref *args = map + size;
  bool *need = (bool *)(args + most);
  gq_graph_needs(src, nout, src->output, need);
  int status = check_bindings(dst, src, bind, need);
  if (status != GQ_OK) gq_graph_fail(dst, status);
  else copy_nodes(dst, src, bind, need, map, args);
  for (int j = 0; j < nout && dst->status == GQ_OK; j++) out[j] = map[src->output[j]];
  gq_free(map);
  return dst->status;
}
