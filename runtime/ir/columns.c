/*
** columns.c -- batch innermost: a graph whose rows are independent, with the row axis of every value moved
** to the end. Products become W X with the rows as columns, and what is one number a row or a feature needs
** no other loop than the one along the rows.
**
** Evaluated at several points at once, a value that depends on time but not on the state is "lifted": its
** shape, and then one entry a column.
*/
#include "internal.h"

#include <string.h>

typedef struct mover {
  gq_rowproof w;
  gq_graph *to;
  int64_t count, points, columns; /* rows of a point; points or 0; columns of a state */
  bool *lifted;                   /* [nodes] */
  gq_ref *map, *args;
  const gq_node *n; /* the node being moved, and its label */
  gq_label l;
} mover;

static gq_ref move_refuse(mover *m) {
  char text[200];
  return gq_graph_fail(m->to, gq_fail(GQ_EUNSUPPORTED, "rows last: %s (giving %s) has no such form",
                                      gq_ops[m->n->op].name, gq_shape_text(m->n->shape, text, sizeof text)));
}

/* s without `axis` (negative: all of it), then n. */
static gq_shape moved(gq_shape s, int axis, int64_t n) {
  int k = 0;
  gq_shape r = { 0 };
  for (int i = 0; i < s.ndim; i++)
    if (i != axis) r.dim[k++] = s.dim[i];
  r.dim[k++] = n;
  r.ndim = k;
  return r;
}

/* Where dim i stands once `axis` has moved to the end. */
static int place(int i, int axis) { return i - (axis >= 0 && i > axis); }

static const gq_node *arg_node(const mover *m, int i) { return gq_at(m->w.g, m->n->args[i]); }
static gq_label arg_label(const mover *m, int i) { return m->w.at[m->n->args[i]]; }
static bool arg_lifted(const mover *m, int i) { return m->lifted[m->n->args[i]]; }
static gq_ref arg(const mover *m, int i) { return m->map[m->n->args[i]]; }
static gq_shape out_shape(const mover *m) { return moved(m->n->shape, m->l.axis, m->columns); }

/* Does operand i have an entry for each column of the node? */
static bool has_columns(const mover *m, int i) {
  return m->l.axis < 0 ? arg_lifted(m, i) : arg_label(m, i).axis >= 0;
}

/* Operand i of an aligned operation, one that all rows share, as a column. */
static gq_ref as_column(mover *m, int i) {
  gq_shape s = arg_node(m, i)->shape;
  int axis = m->l.axis < 0 ? -1 : m->l.axis - (m->n->shape.ndim - s.ndim);
  if (s.ndim == 0 && !arg_lifted(m, i)) return arg(m, i);
  return gq_reshape(m->to, arg(m, i), moved(s, axis, arg_lifted(m, i) ? m->columns : 1));
}

/* One number a row of x: {m, 1} to {m, columns}. */
static bool is_column(const mover *m, gq_ref v, gq_ref x) {
  gq_shape s = gq_graph_node(m->to, x)->shape;
  s.dim[s.ndim - 1] = 1;
  return s.ndim == 2 && gq_shape_equal(gq_graph_node(m->to, v)->shape, s);
}

/* x + v where x is a product, perhaps with a column in it, and v a column: one operation. */
static gq_ref affine(mover *m, gq_ref x, gq_ref v) {
  const gq_node *n = gq_graph_node(m->to, x);
  if ((n->op != GQ_OP_MATMUL && n->op != GQ_OP_AFFINE) || !is_column(m, v, x)) return GQ_NONE;
  gq_ref w = n->args[0], z = n->args[1];
  gq_attr attr = { .flags = n->attr.flags };
  if (n->op == GQ_OP_AFFINE) v = gq_emit2(m->to, GQ_OP_ADD, n->args[2], v);
  return gq_emit(m->to, GQ_OP_AFFINE, 3, (gq_ref[]){ w, z, v }, &attr);
}

/* Element-wise operations and EXPAND. */
static gq_ref move_aligned(mover *m) {
  gq_attr attr = m->n->attr;
  attr.shape = out_shape(m);
  for (int i = 0; i < m->n->nargs; i++) { m->args[i] = has_columns(m, i) ? arg(m, i) : as_column(m, i); }
  if (m->n->op == GQ_OP_ADD)
    for (int i = 0; i < 2; i++) {
      gq_ref sum = affine(m, m->args[i], m->args[1 - i]);
      if (sum != GQ_NONE) return sum;
    }
  return gq_emit(m->to, m->n->op, m->n->nargs, m->args, &attr);
}

/* ---- products ---- */

/* The same number in every row (an expanded time, say): not one of its own a row. To expand for one row is to
** reshape. */
static bool repeated(const mover *m, gq_ref r) {
  const gq_node *n = gq_at(m->w.g, r);
  return (n->op == GQ_OP_EXPAND || (n->op == GQ_OP_RESHAPE && m->w.rows == 1)) &&
         m->w.at[n->args[0]].axis < 0 && gq_numel(gq_at(m->w.g, n->args[0])->shape) == 1;
}

/* W X for X = cat(Z, t, ..) with one number t for all rows: W_z Z + w_t t, whose second term is a column.
** `summed`: the dim of X that is summed over. GQ_NONE: X is nothing like that. */
static gq_ref split_product(mover *m, gq_ref w, int ta, gq_ref x, int summed) {
  const gq_node *cat = gq_at(m->w.g, x);
  gq_ref sum = GQ_NONE, column = GQ_NONE;
  int64_t at = 0;
  int full = 0;
  if (cat->op != GQ_OP_CAT || cat->attr.axis != summed) return GQ_NONE;
  for (int i = 0; i < cat->nargs; i++) {
    bool rep = repeated(m, cat->args[i]);
    full += !rep;
    if (rep && gq_at(m->w.g, cat->args[i])->shape.dim[summed] != 1) return GQ_NONE;
  }
  if (full != 1 || cat->nargs == 1) return GQ_NONE;
  for (int i = 0; i < cat->nargs; i++) {
    int64_t n = gq_at(m->w.g, cat->args[i])->shape.dim[summed];
    gq_ref part = gq_slice(m->to, w, ta ? 0 : 1, at, n), term;
    at += n;
    if (!repeated(m, cat->args[i])) {
      sum = gq_matmul(m->to, part, m->map[cat->args[i]], ta);
      continue;
    }
    gq_ref t = gq_at(m->w.g, cat->args[i])->args[0];
    gq_shape wt = gq_graph_node(m->to, part)->shape;
    term = gq_reshape(m->to, part, gq_shape_of(2, (int64_t[]){ gq_numel(wt), 1 }));
    term =
      gq_emit2(m->to, GQ_OP_MUL, term,
               gq_reshape(m->to, m->map[t], gq_shape_of(2, (int64_t[]){ 1, m->lifted[t] ? m->columns : 1 })));
    column = column == GQ_NONE ? term : gq_emit2(m->to, GQ_OP_ADD, column, term);
  }
  gq_ref joined = affine(m, sum, column);
  return joined != GQ_NONE ? joined : gq_emit2(m->to, GQ_OP_ADD, sum, column);
}

enum { LIFTED_PRODUCT = 256 }; /* numbers of a matrix that differs from column to column */

/* W X where W {.., n, k, columns} differs from column to column: products and a sum. */
static gq_ref lifted_product(mover *m, gq_ref w, bool ta, gq_ref x) {
  gq_shape ws = gq_graph_node(m->to, w)->shape, xs = gq_graph_node(m->to, x)->shape;
  int nw = ws.ndim, nx = xs.ndim, perm[GQ_MAXDIM];
  if (nw < 3 || nx + 1 > GQ_MAXDIM || ws.dim[nw - 3] * ws.dim[nw - 2] > LIFTED_PRODUCT) return move_refuse(m);
  for (int i = 0; i < nw; i++) perm[i] = i;
  if (ta) perm[nw - 3] = nw - 2, perm[nw - 2] = nw - 3;
  if (ta) w = gq_permute(m->to, w, perm);
  gq_shape one = xs;
  one.dim[nx] = xs.dim[nx - 1], one.dim[nx - 1] = xs.dim[nx - 2], one.dim[nx - 2] = 1, one.ndim++;
  gq_ref all = gq_emit2(m->to, GQ_OP_MUL, w, gq_reshape(m->to, x, one));
  int rank = gq_graph_node(m->to, all)->shape.ndim;
  gq_ref sum = gq_sum_axes(m->to, all, 1 << (rank - 2));
  return gq_reshape(m->to, sum, out_shape(m));
}

/* Rows are the kept dim of one operand: that of the first makes op(b)' a, that of the second op(a) b. */
static gq_ref move_matmul(mover *m) {
  int rank = m->n->shape.ndim, flags = m->n->attr.flags, of = arg_label(m, 0).axis >= 0 ? 0 : 1;
  bool other = arg_label(m, 1 - of).axis >= 0, first = of == 0;
  if (m->l.axis < 0 || other || m->l.axis != rank - (first ? 2 : 1) || (first && rank != 2))
    return move_refuse(m);
  int nx = arg_node(m, of)->shape.ndim;
  if (first && (nx != 2 || arg_node(m, 1)->shape.ndim != 2)) return move_refuse(m);
  int ta = (first ? !(flags & GQ_TB) : flags & GQ_TA) ? GQ_TA : 0;
  int summed = first == !(flags & (first ? GQ_TA : GQ_TB)) ? nx - 1 : nx - 2;
  gq_ref w = arg(m, 1 - of), x = arg(m, of);
  if (arg_lifted(m, 1 - of)) return lifted_product(m, w, ta, x);
  gq_ref split = nx == 2 && arg_node(m, 1 - of)->shape.ndim == 2
                   ? split_product(m, w, ta, m->n->args[of], summed)
                   : GQ_NONE;
  return split != GQ_NONE ? split : gq_matmul(m->to, w, x, ta);
}

/* ---- the rest ---- */

static gq_ref move_reduction(mover *m) {
  gq_attr attr = { .flags = 0 };
  for (int i = 0; i < m->n->shape.ndim; i++)
    if (m->n->attr.flags >> i & 1) attr.flags |= 1 << place(i, m->l.axis);
  gq_ref x = arg(m, 0);
  return gq_emit(m->to, m->n->op, 1, &x, &attr);
}

static gq_ref move_permute(mover *m) {
  int perm[GQ_MAXDIM], k = 0, rank = m->n->shape.ndim, from = m->l.axis < 0 ? -1 : m->n->attr.perm[m->l.axis];
  for (int i = 0; i < rank; i++)
    if (i != m->l.axis) perm[k++] = place(m->n->attr.perm[i], from);
  perm[k] = k;
  return gq_permute(m->to, arg(m, 0), perm);
}

/* Other attributes, with the row axis at the end and untouched. */
static gq_ref move_plain(mover *m) {
  gq_attr attr = m->n->attr;
  int k = 0;
  attr.axis = place(attr.axis, m->l.axis);
  attr.shape = out_shape(m);
  for (int i = 0; i < m->n->shape.ndim; i++)
    if (i != m->l.axis) attr.start[k] = m->n->attr.start[i], attr.step[k] = m->n->attr.step[i], k++;
  attr.start[k] = 0, attr.step[k] = 1;
  for (int i = 0; i < m->n->nargs; i++) m->args[i] = arg(m, i);
  return gq_emit(m->to, m->n->op, m->n->nargs, m->args, &attr);
}

/* Every operand has columns: parts that all rows share are repeated. */
static gq_ref move_cat(mover *m) {
  gq_attr attr = { .axis = place(m->n->attr.axis, m->l.axis) };
  for (int i = 0; i < m->n->nargs; i++) {
    m->args[i] = arg(m, i);
    if (!has_columns(m, i))
      m->args[i] = gq_expand(m->to, as_column(m, i), moved(arg_node(m, i)->shape, m->l.axis, m->columns));
  }
  return gq_emit(m->to, GQ_OP_CAT, m->n->nargs, m->args, &attr);
}

/* Entries of what all share, by a list for each column: one list, and the columns to the end. */
static gq_ref select_lifted(mover *m) {
  int axis = m->n->attr.axis, rank = m->n->shape.ndim, perm[GQ_MAXDIM];
  int64_t k = m->n->shape.dim[axis], all = k * m->columns;
  gq_attr attr = { .axis = axis };
  gq_ref list = gq_reshape(m->to, arg(m, 1), gq_shape_of(1, &all));
  gq_ref x = gq_emit(m->to, GQ_OP_INDEX_SELECT, 2, (gq_ref[]){ arg(m, 0), list }, &attr);
  gq_shape s = { .ndim = rank + 1 };
  for (int i = 0; i <= rank; i++) s.dim[i] = i == axis + 1 ? m->columns : m->n->shape.dim[i - (i > axis)];
  for (int i = 0; i < rank; i++) perm[i] = i + (i > axis);
  perm[rank] = axis + 1;
  return gq_permute(m->to, gq_reshape(m->to, x, s), perm);
}

static gq_ref move_index(mover *m) {
  bool shared = arg_label(m, 0).axis < 0 && !arg_lifted(m, 0);
  if (m->n->op == GQ_OP_INDEX_SELECT && m->l.axis < 0 && shared && arg_lifted(m, 1)) return select_lifted(m);
  bool by_list = m->n->op == GQ_OP_INDEX_SELECT || m->n->op == GQ_OP_INDEX_ADD;
  if (m->l.axis < 0 || m->n->attr.axis == m->l.axis) return move_refuse(m);
  if (arg_label(m, 0).axis < 0 || (arg_label(m, 1).axis >= 0) == by_list || arg_lifted(m, 1))
    return move_refuse(m);
  return move_plain(m);
}

static gq_ref (*const rules[GQ_NOP])(mover *m) = {
#define GQ_UNARY(N, ...) [GQ_OP_##N] = move_aligned,
#define GQ_BINARY(N, ...) [GQ_OP_##N] = move_aligned,
#define GQ_COMPARE(N, ...) [GQ_OP_##N] = move_aligned,
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, batch, columns, ...) \
  [GQ_OP_##N] = move_##columns,
#include "ops.def"
};

static gq_ref move_node(mover *m) {
  if (m->n->shape.ndim >= GQ_MAXDIM && m->l.axis < 0) return move_refuse(m);
  return rules[m->n->op](m);
}

static void copy_node(mover *m, gq_ref r) {
  m->n = gq_at(m->w.g, r), m->l = m->w.at[r];
  bool columns = m->l.axis >= 0;
  m->lifted[r] = false;
  for (int i = 0; i < m->n->nargs; i++) {
    m->args[i] = arg(m, i);
    m->lifted[r] |= !columns && arg_lifted(m, i);
  }
  bool merged = columns && (m->l.inner != 1 || m->n->shape.dim[m->l.axis] != m->w.rows);
  if (merged) m->map[r] = move_refuse(m);
  else if (columns || m->lifted[r]) m->map[r] = move_node(m);
  else m->map[r] = gq_graph_again(m->to, m->n, m->args);
  if (m->map[r] == GQ_NONE || !(columns || m->lifted[r])) return;
  if (!gq_shape_equal(gq_graph_node(m->to, m->map[r])->shape, out_shape(m))) m->map[r] = move_refuse(m);
}

/* {.., n} -> {.., points, count} for n = points (each) or count (not) -> {.., columns} */
static gq_ref over_points(mover *m, gq_ref x, bool each) {
  gq_shape s = gq_graph_node(m->to, x)->shape, one = s, all;
  if (x == GQ_NONE) return GQ_NONE;
  if (s.ndim + 1 > GQ_MAXDIM) return move_refuse(m);
  one.ndim++;
  one.dim[s.ndim - 1] = each ? m->points : 1, one.dim[s.ndim] = each ? 1 : m->count;
  all = one;
  all.dim[s.ndim - 1] = m->points, all.dim[s.ndim] = m->count;
  s.dim[s.ndim - 1] = m->columns;
  return gq_reshape(m->to, gq_expand(m->to, gq_reshape(m->to, x, one), all), s);
}

static void move_input(mover *m, int i, int axis, bool each) {
  gq_ref r = m->w.g->input[i];
  const gq_node *n = gq_at(m->w.g, r);
  m->n = n;
  m->lifted[r] = false;
  if (axis >= 0) {
    m->map[r] = gq_input(m->to, n->dtype, moved(n->shape, axis, each ? m->columns : m->count));
    if (m->points && !each) m->map[r] = over_points(m, m->map[r], false);
  } else if (m->points && each && n->shape.ndim == 0) {
    m->map[r] = over_points(m, gq_input(m->to, n->dtype, gq_shape_of(1, &m->points)), true);
    m->lifted[r] = true;
  } else {
    m->map[r] = gq_input(m->to, n->dtype, n->shape);
  }
}

static int move_graph(mover *m, const int *axis, const bool *each_) {
  const gq_graph *g = m->w.g;
  m->columns = m->points ? m->points * m->count : m->count;
  for (int i = 0; i < g->ninput; i++) move_input(m, i, axis[i], m->points && each_[i]);
  for (gq_ref r = 0; r < g->size && m->to->status == GQ_OK; r++)
    if (m->w.need[r] && gq_at(g, r)->op != GQ_OP_INPUT) copy_node(m, r);
  for (int j = 0; j < g->noutput; j++) m->args[j] = m->map[g->output[j]];
  gq_graph_set_outputs(m->to, g->noutput, m->args);
  return gq_graph_status(m->to);
}

int gq_rows_last(const gq_graph *g, int64_t rows, int64_t count, int64_t points, const bool *each_,
                 const int *axis, gq_graph **out) {
  *out = NULL;
  GQ_TRY(g->status);
  mover m = { .count = count, .points = points, .to = gq_graph_new() };
  gq_pool own = { 0 };
  int status = gq_rowproof_init(&m.w, g, rows);
  m.map = gq_pooled(&own, g->size, sizeof *m.map);
  m.args = gq_pooled(&own, (size_t)(g->noutput + gq_graph_most(g)), sizeof *m.args);
  m.lifted = gq_pooled(&own, g->size, sizeof *m.lifted);
  if (status == GQ_OK) status = m.to ? gq_pool_status(&own) : gq_nomem(0);
  if (status == GQ_OK) status = gq_rows_prove(&m.w, axis);
  if (status == GQ_OK) status = move_graph(&m, axis, each_);
  gq_pool_free(&own);
  gq_rowproof_done(&m.w);
  if (status == GQ_OK) *out = m.to;
  else gq_graph_free(m.to);
  return status;
}
