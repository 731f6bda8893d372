/*
** rows.c -- row independence. Every value has a label: which of its numbers belong to which row
** of the state. The forward pass labels what is computed from the state; where such a value meets
** one that is not, that one must be cut like it (or used whole), and this demand travels back to
** the captures. Each operation has a rule for either direction.
*/
#include "internal.h"

#include <string.h>

enum { WHOLE = GQ_ROWS_ALL, NONE = GQ_ROWS_MIXED }; /* axis of a label; NONE: nothing known yet in a proof */

typedef gq_label label;
typedef gq_rowproof rows;

static const label whole = { WHOLE, 1 };

static bool same(label a, label b) { return a.axis == b.axis && (a.axis == WHOLE || a.inner == b.inner); }

static int mixes(const gq_node *n) {
  char text[200];
  return gq_fail(GQ_EUNSUPPORTED, "row independence: %s (giving %s) mixes rows", gq_ops[n->op].name,
                 gq_shape_text(n->shape, text, sizeof text));
}

static int64_t suffix(gq_shape s, int axis) {
  int64_t n = 1;
  for (int i = axis + 1; i < s.ndim; i++) n *= s.dim[i];
  return n;
}

/* Reshaping keeps the order of numbers, so `stride`, the distance from row to row, stays: find the
** dim of `to` that still holds whole rows. */
static int relabel(const rows *w, gq_shape from, label l, gq_shape to, label *out) {
  int64_t stride = l.inner * suffix(from, l.axis);
  for (int j = 0; j < to.ndim && stride > 0; j++) {
    int64_t tail = suffix(to, j);
    if (tail == 0 || stride % tail || (tail * to.dim[j]) % (stride * w->rows) || to.dim[j] == 0) continue;
    *out = (label){ j, stride / tail };
    return true;
  }
  return false;
}

/* Dim `axis` is left as it is by a slice or a pad. */
static bool untouched(const gq_node *n, gq_shape from, int axis) {
  return n->attr.start[axis] == 0 && n->attr.step[axis] == 1 && from.dim[axis] == n->shape.dim[axis];
}

/* Operand i of node n, of shape s. out_ makes the label of the node from the operand's, arg_ the operand's from the
** node's; *l is the one, then the other. */
typedef struct step {
  const rows *w;
  const gq_node *n;
  int i;
  gq_shape s;
} step;

/* Positions of the two dims of an operand of a product: the one that stays and the one summed over. */
static void product_dims(const step *q, int *kept, int *summed) {
  bool t = q->n->attr.flags & (q->i == 0 ? GQ_TA : GQ_TB);
  bool last = (q->i == 0) == t;
  *kept = q->s.ndim - (last ? 1 : 2);
  *summed = q->s.ndim - (last ? 2 : 1);
}

/* ---- either way ---- */

static bool out_refuse(const step *q, label *l) { return false; }
static bool out_reduction(const step *q, label *l) { return !(q->n->attr.flags >> l->axis & 1); }
static bool out_range(const step *q, label *l) { return untouched(q->n, q->s, l->axis); }
static bool out_beside(const step *q, label *l) { return l->axis != q->n->attr.axis; }

/* Windows take the place of n dims from `axis` on by 2 n; `from` to `to` of them. */
static bool beside_windows(const step *q, label *l, int from, int to) {
  int axis = q->n->attr.axis;
  if (l->axis >= axis + from) l->axis += to - from;
  else if (l->axis >= axis) return false;
  return true;
}
static bool out_window(const step *q, label *l) {
  return beside_windows(q, l, q->n->attr.flags, 2 * q->n->attr.flags);
}
static bool out_window_add(const step *q, label *l) {
  return beside_windows(q, l, 2 * q->n->attr.flags, q->n->attr.flags);
}
#define arg_window out_window_add
#define arg_window_add out_window
#define arg_refuse out_refuse
#define arg_reduction out_reduction
#define arg_range out_range
#define arg_beside out_beside

/* ---- the node's from an operand's ---- */

static bool out_aligned(const step *q, label *l) {
  int from = l->axis;
  l->axis += q->n->shape.ndim - q->s.ndim;
  return q->s.dim[from] == q->n->shape.dim[l->axis];
}

static bool out_matmul(const step *q, label *l) {
  int kept, summed, rank = q->n->shape.ndim;
  product_dims(q, &kept, &summed);
  if (l->axis == summed) return false;
  l->axis = l->axis == kept ? rank - (q->i == 0 ? 2 : 1) : l->axis + rank - q->s.ndim;
  return true;
}

static bool out_affine(const step *q, label *l) { return q->i == 2 ? out_aligned(q, l) : out_matmul(q, l); }

static bool out_reshape(const step *q, label *l) { return relabel(q->w, q->s, *l, q->n->shape, l); }

static bool out_permute(const step *q, label *l) {
  int from = l->axis;
  for (int j = 0; j < q->s.ndim; j++)
    if (q->n->attr.perm[j] == from) l->axis = j;
  return true;
}

static bool out_index_select(const step *q, label *l) {
  if (q->i == 1) l->axis = q->n->attr.axis;
  return q->i == 1 || l->axis != q->n->attr.axis;
}

static bool out_index_add(const step *q, label *l) { return q->i == 0 && l->axis != q->n->attr.axis; }
static bool out_gather(const step *q, label *l) { return q->i == 1 || l->axis != q->n->attr.axis; }

/* ---- an operand's from the node's ---- */

/* Operand dims align with the last dims of the result; a missing or repeated dim is used whole. */
static bool arg_aligned(const step *q, label *l) {
  int axis = l->axis - (q->n->shape.ndim - q->s.ndim);
  if (axis < 0 || q->s.dim[axis] != q->n->shape.dim[l->axis]) *l = whole;
  else l->axis = axis;
  return true;
}

static bool arg_matmul(const step *q, label *l) {
  int kept, summed, rank = q->n->shape.ndim;
  product_dims(q, &kept, &summed);
  if (l->axis < rank - 2) return arg_aligned(q, l);
  if ((l->axis == rank - 2) == (q->i == 0)) l->axis = kept;
  else *l = whole;
  return true;
}

static bool arg_affine(const step *q, label *l) { return q->i == 2 ? arg_aligned(q, l) : arg_matmul(q, l); }

static bool arg_reshape(const step *q, label *l) {
  if (q->s.ndim == 0) *l = whole; /* expanded to one row */
  return q->s.ndim == 0 || relabel(q->w, q->n->shape, *l, q->s, l);
}

static bool arg_permute(const step *q, label *l) {
  l->axis = q->n->attr.perm[l->axis];
  return true;
}

static bool arg_index_select(const step *q, label *l) {
  if ((l->axis == q->n->attr.axis) == (q->i == 0)) *l = whole;
  else if (q->i == 1) l->axis = 0;
  return true;
}

static bool arg_index_add(const step *q, label *l) {
  int axis = l->axis;
  if (q->i == 1) *l = whole;
  return axis != q->n->attr.axis;
}

static bool arg_gather(const step *q, label *l) {
  if (q->i == 0 && l->axis == q->n->attr.axis) *l = whole;
  return true;
}

static const struct rule {
  bool (*out)(const step *q, label *l), (*arg)(const step *q, label *l);
} rules[GQ_NOP] = {
#define GQ_UNARY(N, ...) [GQ_OP_##N] = { out_aligned, arg_aligned },
#define GQ_BINARY(N, ...) [GQ_OP_##N] = { out_aligned, arg_aligned },
#define GQ_COMPARE(N, ...) [GQ_OP_##N] = { out_aligned, arg_aligned },
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, ...) [GQ_OP_##N] = { out_##rows, arg_##rows },
#include "ops.def"
};

static step operand(const rows *w, const gq_node *n, int i) {
  return (step){ w, n, i, gq_at(w->g, n->args[i])->shape };
}

/* ---- the two passes ---- */

/* A value that does not come from the state must be labelled l. */
static int demand(rows *w, gq_ref r, label l, const gq_node *by) {
  if (w->rows == 1 && !w->single) l = whole; /* one row: nothing is ever cut, and a 1 tells nothing */
  if (w->at[r].axis == NONE) w->at[r] = l;
  if (same(w->at[r], l)) return GQ_OK;
  return gq_fail(GQ_EUNSUPPORTED,
                 "row independence: %s uses a value in another way than row by row as elsewhere",
                 by ? gq_ops[by->op].name : "the result");
}

/* Give node n's operands what its label l asks for. */
static int ask_operands(rows *w, const gq_node *n, label l) {
  for (int i = 0; i < n->nargs; i++) {
    gq_ref a = n->args[i];
    label want = l.axis == WHOLE ? whole : l;
    step q = operand(w, n, i);
    if (l.axis != WHOLE && !rules[n->op].arg(&q, &want)) return mixes(n);
    if (!w->varies[a]) GQ_TRY(demand(w, a, want, n));
    else if (!same(w->at[a], want)) return mixes(n);
  }
  return GQ_OK;
}

static int forward(rows *w, gq_ref r) {
  const gq_node *n = gq_at(w->g, r);
  int from = -1;
  for (int i = n->nargs - 1; i >= 0; i--)
    if (w->varies[n->args[i]]) from = i;
  if (from < 0) return GQ_OK;
  w->varies[r] = true;
  w->at[r] = w->at[n->args[from]];
  step q = operand(w, n, from);
  if (!rules[n->op].out(&q, &w->at[r])) return mixes(n);
  return ask_operands(w, n, w->at[r]);
}

static int start_inputs(rows *w, const int *axis) {
  for (int i = 0; i < w->g->ninput; i++) {
    gq_ref r = w->g->input[i];
    gq_shape s = gq_at(w->g, r)->shape;
    if (axis[i] < 0) continue;
    if (axis[i] >= s.ndim || s.dim[axis[i]] != w->rows)
      return gq_fail(GQ_EUNSUPPORTED, "row independence: input %d has no dimension %d of %lld rows", i + 1,
                     axis[i] + 1, (long long)w->rows);
    w->at[r] = (label){ axis[i], 1 };
    w->varies[r] = true;
  }
  return GQ_OK;
}

static int check_outputs(rows *w) {
  static const label first = { 0, 1 };
  for (int j = 0; j < w->g->noutput; j++) {
    gq_ref r = w->g->output[j];
    gq_shape s = gq_at(w->g, r)->shape;
    if (s.ndim == 0 || s.dim[0] != w->rows || (w->varies[r] && !same(w->at[r], first)))
      return gq_fail(GQ_EUNSUPPORTED, "row independence: dimension 1 of the result is not one entry a row");
    if (!w->varies[r]) GQ_TRY(demand(w, r, first, NULL));
  }
  return GQ_OK;
}

int gq_rows_prove(rows *w, const int *axis) {
  const gq_graph *g = w->g;
  if (w->rows < 1) return gq_fail(GQ_EUNSUPPORTED, "row independence: the state has no rows");
  gq_graph_needs(g, g->noutput, g->output, w->need);
  for (gq_ref r = 0; r < g->size; r++) {
    w->at[r] = (label){ NONE, 1 };
    w->varies[r] = false;
  }
  GQ_TRY(start_inputs(w, axis));
  for (gq_ref r = 0; r < g->size; r++)
    if (w->need[r]) GQ_TRY(forward(w, r));
  GQ_TRY(check_outputs(w));
  for (gq_ref r = g->size - 1; r >= 0; r--)
    if (w->need[r] && !w->varies[r] && w->at[r].axis != NONE) GQ_TRY(ask_operands(w, gq_at(g, r), w->at[r]));
  return GQ_OK;
}

int gq_rowproof_init(rows *w, const gq_graph *g, int64_t count) {
  size_t bytes = (size_t)g->size * (sizeof(label) + 2) + 1;
  *w = (rows){ .g = g, .rows = count, .at = gq_alloc(bytes) };
  if (!w->at) return gq_nomem(bytes);
  w->varies = (bool *)(w->at + g->size);
  w->need = w->varies + g->size;
  return GQ_OK;
}

void gq_rowproof_done(rows *w) { gq_free(w->at); }

/* Only plain rows can be cut from a capture. */
static int capture_axis(const rows *w, int i, int *axis) {
  gq_ref r = w->g->input[i];
  label l = w->at[r];
  *axis = -1;
  if (!w->need[r] || l.axis < 0) return GQ_OK;
  if (l.inner != 1 || gq_at(w->g, r)->shape.dim[l.axis] != w->rows)
    return gq_fail(GQ_EUNSUPPORTED, "row independence: input %d merges rows with another dimension", i + 1);
  *axis = l.axis;
  return GQ_OK;
}

static int find_axes(const gq_graph *g, int64_t count, bool single, int *axis) {
  rows w;
  GQ_TRY(g->status);
  GQ_TRY(gq_rowproof_init(&w, g, count));
  w.single = single;
  int status = gq_rows_prove(&w, axis);
  for (int i = 0; i < g->ninput && status == GQ_OK; i++)
    if (axis[i] < 0) status = capture_axis(&w, i, &axis[i]);
  gq_rowproof_done(&w);
  return status;
}

int gq_rows(const gq_graph *g, int64_t count, int *axis) { return find_axes(g, count, false, axis); }
int gq_rows_single(const gq_graph *g, int *axis) { return find_axes(g, 1, true, axis); }

static label followed(const rows *w, const gq_node *n) {
  static const label mixed = { NONE, 1 };
  label l = whole;
  for (int i = 0; i < n->nargs; i++) {
    step q = operand(w, n, i);
    label have = w->at[n->args[i]], want = l;
    if (have.axis == WHOLE) continue;
    if (have.axis == NONE) return mixed;
    if (l.axis == WHOLE) {
      l = have;
      if (!rules[n->op].out(&q, &l)) return mixed;
    } else if (!rules[n->op].arg(&q, &want) || !same(have, want)) {
      return mixed;
    }
  }
  return l;
}

void gq_rows_follow(const gq_graph *g, int64_t count, label *at) {
  rows w = { .g = g, .rows = count, .at = at };
  for (gq_ref r = 0; r < g->size; r++)
    if (gq_at(g, r)->op != GQ_OP_INPUT) at[r] = followed(&w, gq_at(g, r));
}

/* ---- another number of rows ---- */

static gq_shape resized(const rows *w, gq_ref r, int64_t count) {
  gq_shape s = gq_at(w->g, r)->shape;
  if (w->at[r].axis >= 0) s.dim[w->at[r].axis] = s.dim[w->at[r].axis] / w->rows * count;
  return s;
}

static gq_ref copy_node(const rows *w, gq_graph *to, gq_ref r, int64_t count, const gq_ref *map,
                        gq_ref *args) {
  const gq_node *n = gq_at(w->g, r);
  gq_attr attr = n->attr;
  gq_shape s = resized(w, r, count);
  attr.shape = s;
  for (int i = 0; i < n->nargs; i++) args[i] = map[n->args[i]];
  gq_ref made = gq_emit(to, n->op, n->nargs, args, &attr);
  if (made != GQ_NONE && !gq_shape_equal(gq_graph_node(to, made)->shape, s))
    return gq_graph_fail(to, mixes(n));
  return made;
}

static int resize(const rows *w, gq_graph *to, int64_t count, const int *axis, gq_ref *map, gq_ref *args) {
  const gq_graph *g = w->g;
  for (int i = 0; i < g->ninput; i++) {
    const gq_node *n = gq_at(g, g->input[i]);
    gq_shape s = n->shape;
    if (axis[i] >= 0) s.dim[axis[i]] = count;
    map[g->input[i]] = gq_input(to, n->dtype, s);
  }
  for (gq_ref r = 0; r < g->size; r++)
    if (w->need[r] && gq_at(g, r)->op != GQ_OP_INPUT) map[r] = copy_node(w, to, r, count, map, args);
  for (int j = 0; j < g->noutput; j++) args[j] = map[g->output[j]];
  gq_graph_set_outputs(to, g->noutput, args);
  return gq_graph_status(to);
}

int gq_rows_resize(const gq_graph *g, int64_t count, int64_t count_new, const int *axis, gq_graph **out) {
  *out = NULL;
  GQ_TRY(g->status);
  rows w;
  size_t most = (size_t)(g->noutput + gq_graph_most(g));
  GQ_TRY(gq_rowproof_init(&w, g, count));
  size_t bytes = ((size_t)g->size + most) * sizeof(gq_ref);
  gq_ref *map = gq_alloc(bytes);
  gq_graph *to = gq_graph_new();
  int status = map && to ? gq_rows_prove(&w, axis) : gq_nomem(bytes);
  if (status == GQ_OK) status = resize(&w, to, count_new, axis, map, map + g->size);
  gq_free(map);
  gq_rowproof_done(&w);
  if (status == GQ_OK) *out = to;
  else gq_graph_free(to);
  return status;
}
