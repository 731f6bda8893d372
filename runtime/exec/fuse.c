/*
** fuse.c -- before the other passes of a compilation: a convolution is written as windows, copied into a matrix, times
** a matrix (lua/gq/spatial.lua), and so are its derivatives, whatever batches or nodes stand in front. Where the
** pattern is found its last node becomes one operation, CONV, and the matrix of windows is never made:
**     W win(X)          matmul(W, reshape(window(X)))
**     win'(W' G)        window_add(reshape(matmul(W, G)))
**     sum G win(X)'     sum(matmul(G, reshape(window(X)))) over the leading dims
** X may be a pad, and win' be sliced: the zeros around are not made either.
*/
#include "compile.h"

static const gq_node *plain(const gq_compiler *c, gq_ref r) { return gq_graph_node(c->g, r); }
static gq_shape shape_of(const gq_compiler *c, gq_ref r) { return plain(c, r)->shape; }

static int64_t rows_of(gq_shape s) { return s.ndim < 2 ? 0 : s.dim[s.ndim - 2]; }
static int64_t cols_of(gq_shape s) { return s.ndim < 2 ? 0 : s.dim[s.ndim - 1]; }

static int64_t leading(gq_shape s) {
  s.ndim -= 2;
  return gq_numel(s);
}

/* One or two last dims of `whole` are windowed: sizes from the node n, WINDOW or WINDOW_ADD. */
static bool take_windows(gq_conv *v, const gq_node *n, gq_shape whole, gq_shape part) {
  int axis = n->attr.axis, count = n->attr.flags;
  if (count > 2 || axis < 1 || axis + count != whole.ndim) return false;
  for (int i = 0; i < 2; i++) {
    bool one = i >= count;
    v->size[i] = one ? 1 : whole.dim[axis + i];
    v->k[i] = one ? 1 : part.dim[axis + i], v->count[i] = one ? 1 : part.dim[axis + i + count];
    v->step[i] = one ? 1 : n->attr.step[axis + i], v->apart[i] = one ? 1 : n->attr.start[axis + i];
    v->pad[i] = 0;
  }
  return true;
}

/* The matrices {.., K, P} of windows of v: how many channels and blocks. */
static bool take_matrices(gq_conv *v, gq_shape matrices, gq_shape whole) {
  int64_t places = v->k[0] * v->k[1], K = rows_of(matrices), P = cols_of(matrices);
  if (gq_numel(matrices) == 0 || P != v->count[0] * v->count[1] || K % places) return false;
  v->c = K / places, v->blocks = leading(matrices);
  return gq_numel(whole) == v->blocks * v->c * v->size[0] * v->size[1];
}

/* Zeros or a cut around the windowed dims alone, from `inner` to the `outer` shape. */
static bool take_padding(gq_conv *v, const gq_node *n, gq_shape inner, gq_shape outer, int windowed) {
  int axis = outer.ndim - windowed;
  for (int i = 0; i < outer.ndim; i++) {
    if (n->attr.step[i] != 1) return false;
    if (i < axis && (n->attr.start[i] != 0 || inner.dim[i] != outer.dim[i])) return false;
  }
  for (int i = 0; i < 2 && i < windowed; i++)
    v->pad[i] = n->attr.start[axis + i], v->size[i] = inner.dim[axis + i];
  return true;
}

/* r as the windows of images, *x */
static bool windows_of(const gq_compiler *c, gq_ref r, gq_conv *v, gq_ref *x) {
  const gq_node *n = plain(c, r), *w;
  if (n->op != GQ_OP_RESHAPE || (w = plain(c, n->args[0]))->op != GQ_OP_WINDOW) return false;
  *x = w->args[0];
  gq_shape whole = shape_of(c, *x);
  if (!take_windows(v, w, whole, w->shape) || !take_matrices(v, n->shape, whole)) return false;
  const gq_node *pad = plain(c, *x);
  if (pad->op == GQ_OP_PAD && take_padding(v, pad, shape_of(c, pad->args[0]), whole, w->attr.flags))
    *x = pad->args[0];
  return true;
}

/* The weight's leading dims are the last of `lead`, so it repeats. */
static bool take_weight(gq_conv *v, gq_shape w, gq_shape product) {
  int skip = product.ndim - w.ndim;
  for (int i = 0; skip >= 0 && i < w.ndim - 2; i++)
    if (w.dim[i] != product.dim[i + skip]) return false;
  v->period = leading(w);
  return skip >= 0 && leading(product) == v->blocks;
}

static bool find_forward(const gq_compiler *c, const gq_node *n, gq_conv *v, gq_ref *args) {
  if (n->op != GQ_OP_MATMUL || n->attr.flags & GQ_TB || !windows_of(c, n->args[1], v, &args[1])) return false;
  v->kind = GQ_CONV, v->turned = n->attr.flags & GQ_TA, v->m = rows_of(n->shape);
  args[0] = n->args[0];
  return take_weight(v, shape_of(c, args[0]), n->shape);
}

/* A row of G may be stored as a column. */
static bool find_data(const gq_compiler *c, const gq_node *n, gq_conv *v, gq_ref *args) {
  const gq_node *flat, *product;
  if (n->op != GQ_OP_WINDOW_ADD || (flat = plain(c, n->args[0]))->op != GQ_OP_RESHAPE) return false;
  if ((product = plain(c, flat->args[0]))->op != GQ_OP_MATMUL) return false;
  if (!take_windows(v, n, n->shape, flat->shape) || !take_matrices(v, product->shape, n->shape)) return false;
  bool column = product->attr.flags & GQ_TB;
  args[0] = product->args[0], args[1] = product->args[1];
  gq_shape G = shape_of(c, args[1]);
  v->kind = GQ_CONV_DATA, v->turned = !(product->attr.flags & GQ_TA), v->m = column ? cols_of(G) : rows_of(G);
  if (column && v->m != 1) return false;
  return leading(G) == v->blocks && take_weight(v, shape_of(c, args[0]), product->shape);
}

/* A slice of one that was found. */
static bool find_cut(const gq_compiler *c, const gq_node *n, gq_conv *v, gq_ref *args) {
  if (n->op != GQ_OP_SLICE) return false;
  const gq_fused *inner = c->fused[n->args[0]];
  if (!inner || inner->conv.kind != GQ_CONV_DATA || plain(c, n->args[0])->op != GQ_OP_WINDOW_ADD)
    return false;
  *v = inner->conv;
  args[0] = inner->node.arg[0], args[1] = inner->node.arg[1];
  return take_padding(v, n, n->shape, shape_of(c, n->args[0]), plain(c, n->args[0])->attr.flags);
}

static bool find_weight(const gq_compiler *c, const gq_node *n, gq_conv *v, gq_ref *args) {
  if (n->op != GQ_OP_MATMUL || n->attr.flags != GQ_TB || !windows_of(c, n->args[1], v, &args[1]))
    return false;
  args[0] = n->args[0];
  v->kind = GQ_CONV_WEIGHT, v->turned = false, v->m = rows_of(n->shape), v->period = v->blocks;
  return leading(shape_of(c, args[0])) == v->blocks && leading(n->shape) == v->blocks;
}

/* The sum over first dims of one that was found. */
static bool find_sum(const gq_compiler *c, const gq_node *n, gq_conv *v, gq_ref *args) {
  if (n->op != GQ_OP_SUM) return false;
  const gq_node *product = plain(c, n->args[0]);
  const gq_fused *inner = c->fused[n->args[0]];
  if (!inner || inner->conv.kind != GQ_CONV_WEIGHT || product->op != GQ_OP_MATMUL) return false;
  int lead = product->shape.ndim - 2;
  bool summed = false, first = true; /* going inwards to outwards: none but summed dims once there was one */
  if (n->attr.flags >> lead) return false;
  *v = inner->conv;
  for (int i = lead - 1; i >= 0; i--) {
    bool sum = n->attr.flags >> i & 1;
    if (product->shape.dim[i] == 1) continue;
    first &= sum || !summed;
    summed |= sum;
    if (sum) v->period /= product->shape.dim[i];
  }
  if (!first) return false;
  args[0] = inner->node.arg[0], args[1] = inner->node.arg[1];
  return true;
}

static bool find(const gq_compiler *c, const gq_node *n, gq_conv *v, gq_ref *args) {
  bool found = find_forward(c, n, v, args) || find_weight(c, n, v, args) || find_sum(c, n, v, args) ||
               find_data(c, n, v, args) || find_cut(c, n, v, args);
  return found && v->m > 0;
}

int gq_pass_fuse(gq_compiler *c) {
  bool any = false;
  for (int r = 0; r < c->n && !any; r++)
    any = plain(c, r)->op == GQ_OP_WINDOW || plain(c, r)->op == GQ_OP_WINDOW_ADD;
  if (!any || !c->p->on->lowering->convolutions) return GQ_OK;
  c->fused = gq_pooled(&c->own, (size_t)c->n + 1, sizeof *c->fused);
  GQ_TRY(gq_pool_status(&c->own));
  for (int r = 0; r < c->n; r++) {
    const gq_node *n = plain(c, r);
    gq_conv v = { .dtype = n->dtype };
    gq_ref args[2];
    if (!find(c, n, &v, args)) continue;
    gq_fused *f = c->fused[r] = gq_pooled(&c->own, 1, sizeof *f);
    GQ_TRY(gq_pool_status(&c->own));
    f->conv = v;
    f->node = (gq_node){ .op = GQ_OP_CONV, .dtype = n->dtype, .shape = n->shape, .nargs = 2 };
    f->node.arg[0] = args[0], f->node.arg[1] = args[1], f->node.args = f->node.arg;
  }
  return GQ_OK;
}
