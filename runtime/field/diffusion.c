/*
** diffusion.c -- see diffusion.h.
*/
#include "diffusion.h"

const char *const gq_noise_names[] = { "diagonal", "scalar",      "additive",
                                       "general",  "commutative", "diagonal (with logqp)",
                                       NULL };
const char *const gq_calculus_names[] = { "stratonovich", "ito", NULL };

static bool is_matrix(gq_noise noise) {
  return noise == GQ_ADDITIVE || noise == GQ_GENERAL || noise == GQ_COMMUTATIVE;
}

/* ---- shapes ---- */

gq_shape gq_noise_shape(gq_noise noise, gq_shape z, gq_shape s) {
  if (noise == GQ_DIAGONAL || z.ndim == 0) return z;
  int64_t *last = &z.dim[z.ndim - 1];
  *last = noise == GQ_SCALAR ? 1 : noise == GQ_ALL_BUT_LAST ? *last - 1 : s.dim[s.ndim - 1];
  return z;
}

static int check_drift(gq_node z, gq_node f) {
  char want[128], got[128];
  if (f.dtype == z.dtype && gq_shape_equal(f.shape, z.shape)) return GQ_OK;
  return gq_fail(GQ_ESHAPE, "the drift gave %s %s: expected the state's %s %s%s", gq_dtype_name(f.dtype),
                 gq_shape_text(f.shape, got, sizeof got), gq_dtype_name(z.dtype),
                 gq_shape_text(z.shape, want, sizeof want),
                 f.shape.ndim == 0 ? " (a function of (t, z) has the time first)" : "");
}

static int bad_diffusion(gq_noise noise, gq_node z, gq_node s) {
  char want[128], got[128];
  return gq_fail(GQ_ESHAPE, "the diffusion gave %s %s: with %s noise and a state %s %s, expected %s",
                 gq_dtype_name(s.dtype), gq_shape_text(s.shape, got, sizeof got), gq_noise_names[noise - 1],
                 gq_dtype_name(z.dtype), gq_shape_text(z.shape, want, sizeof want),
                 is_matrix(noise) ? "the state's shape with one more dimension {.., d, m}, or {d, m}"
                                  : "the state's shape");
}

/* z's shape and a last dimension m */
static gq_shape with_columns(gq_shape z, int64_t m) {
  z.dim[z.ndim++] = m;
  return z;
}

static bool has_columns(gq_shape z, gq_shape s) {
  return s.ndim == z.ndim + 1 && gq_shape_equal(with_columns(z, s.dim[s.ndim - 1]), s);
}

static int form_of(gq_noise noise, gq_node z, gq_node s, gq_shape *form) {
  gq_shape zs = z.shape, ss = s.shape;
  bool matrix = is_matrix(noise);
  if (s.dtype != z.dtype) return bad_diffusion(noise, z, s);
  *form = zs;
  if (!matrix && gq_shape_equal(ss, zs)) return GQ_OK;
  if (zs.ndim == 0 || zs.ndim >= GQ_MAXDIM) return bad_diffusion(noise, z, s);
  if (noise == GQ_SCALAR && has_columns(zs, ss) && ss.dim[ss.ndim - 1] == 1) return GQ_OK;
  if (!matrix || ss.ndim < 2) return bad_diffusion(noise, z, s);
  *form = with_columns(zs, ss.dim[ss.ndim - 1]);
  if (gq_shape_equal(*form, ss)) return GQ_OK;
  return ss.ndim == 2 && ss.dim[0] == zs.dim[zs.ndim - 1] ? GQ_OK : bad_diffusion(noise, z, s);
}

static gq_node output(const gq_graph *g, int i) { return *gq_graph_node(g, gq_graph_output(g, i)); }

int gq_diffusion_check(const gq_graph *fg, gq_noise noise, gq_shape *form, gq_shape *w) {
  if (gq_graph_outputs(fg) != 2) return gq_fail(GQ_EARG, "an SDE has two functions, drift and diffusion");
  gq_node z = *gq_graph_node(fg, gq_graph_input(fg, 1));
  GQ_TRY(check_drift(z, output(fg, 0)));
  GQ_TRY(form_of(noise, z, output(fg, 1), form));
  *w = gq_noise_shape(noise, z.shape, *form);
  return GQ_OK;
}

/* ---- one form ---- */

static int emit_form(const gq_graph *fg, gq_noise noise, gq_graph *g, gq_ref *bind) {
  gq_ref out[2];
  gq_shape form, w;
  GQ_TRY(gq_diffusion_check(fg, noise, &form, &w));
  gq_inputs_like(g, fg, 0, bind);
  gq_inline(g, fg, bind, out);
  if (!gq_shape_equal(form, output(fg, 1).shape))
    out[1] = noise == GQ_SCALAR ? gq_reshape(g, out[1], form) : gq_expand(g, out[1], form);
  gq_graph_set_outputs(g, 2, out);
  return gq_graph_status(g);
}

int gq_diffusion_form(const gq_graph *fg, gq_noise noise, gq_graph **out) {
  gq_graph *g = gq_graph_new();
  gq_ref *bind = gq_calloc((size_t)gq_graph_inputs(fg) + 1, sizeof *bind);
  int status = g && bind ? emit_form(fg, noise, g, bind) : gq_nomem(sizeof *bind);
  gq_free(bind);
  if (status != GQ_OK) gq_graph_free(g);
  else *out = g;
  return status;
}

/* ---- G dW ---- */

/* {.., d, m} by {.., m}: few columns, so a product and a sum, which keeps rows apart */
static gq_ref matrix_product(gq_graph *g, gq_ref G, gq_ref dw) {
  gq_shape ws = gq_graph_node(g, dw)->shape, zs = gq_graph_node(g, G)->shape;
  ws.dim[ws.ndim] = ws.dim[ws.ndim - 1];
  ws.dim[ws.ndim - 1] = 1;
  ws.ndim++;
  zs.ndim--;
  gq_ref w = gq_reshape(g, dw, ws);
  return gq_reshape(g, gq_sum_axes(g, gq_emit2(g, GQ_OP_MUL, G, w), 1 << zs.ndim), zs);
}

/* With a 0 behind it. */
static gq_ref one_more(gq_graph *g, gq_ref w) {
  gq_shape s = gq_graph_node(g, w)->shape;
  return gq_pad(g, w, s.ndim - 1, 0, s.dim[s.ndim - 1] + 1);
}

gq_ref gq_noise_product(gq_graph *g, gq_noise noise, gq_ref G, gq_ref dw) {
  if (G == GQ_NONE) return GQ_NONE;
  if (noise == GQ_ALL_BUT_LAST) dw = one_more(g, dw);
  return is_matrix(noise) ? matrix_product(g, G, dw) : gq_emit2(g, GQ_OP_MUL, G, dw);
}

gq_ref gq_noise_rise(gq_graph *g, gq_noise noise, gq_ref f, gq_ref G, gq_ref h, gq_ref dw) {
  gq_ref fh = gq_emit2(g, GQ_OP_MUL, f, h); /* first: operands of one call are emitted in no order */
  return gq_emit2(g, GQ_OP_ADD, fh, gq_noise_product(g, noise, G, dw));
}

/* ---- between Ito and Stratonovich ---- */

/* A node of own numbers holds those of every row of z from `first` on, in their order; -1: of no z. Its rules for operations
** that are not entry by entry, by which states of several tensors are taken apart and joined: kept, or mixed. */
typedef struct part {
  gq_depends how;
  int64_t first;
} part;
typedef part part_rule(const gq_graph *g, const gq_node *n, int64_t rows, const part *of);

static const part mixed = { GQ_DEPENDS_MIXED, -1 };

static part own_from(int64_t first) { return first < 0 ? mixed : (part){ GQ_DEPENDS_OWN, first }; }

/* Is it {rows, numbers}, or {numbers} of a z of one row? */
static bool by_rows(const gq_node *n, int64_t rows) {
  return rows < 0 ? n->shape.ndim == 1 : n->shape.ndim == 2 && n->shape.dim[0] == rows;
}

static part reshaped(const gq_graph *g, const gq_node *n, int64_t rows, const part *of) {
  return of[n->args[0]];
}

static bool whole_steps(const gq_node *n) {
  return n->attr.step[n->shape.ndim - 1] == 1 && (n->shape.ndim == 1 || n->attr.start[0] == 0);
}

static part cut(const gq_graph *g, const gq_node *n, int64_t rows, const part *of) {
  bool plain = by_rows(n, rows) && by_rows(gq_graph_node(g, n->args[0]), rows) && whole_steps(n);
  return plain ? own_from(of[n->args[0]].first + n->attr.start[n->shape.ndim - 1]) : mixed;
}

static part padded(const gq_graph *g, const gq_node *n, int64_t rows, const part *of) {
  bool plain = by_rows(n, rows) && by_rows(gq_graph_node(g, n->args[0]), rows) && whole_steps(n);
  return plain ? own_from(of[n->args[0]].first - n->attr.start[n->shape.ndim - 1]) : mixed;
}

static part joined(const gq_graph *g, const gq_node *n, int64_t rows, const part *of) {
  int64_t at = 0, first = -1;
  if (!by_rows(n, rows) || n->attr.axis != n->shape.ndim - 1) return mixed;
  for (int i = 0; i < n->nargs; i++) {
    const part *x = &of[n->args[i]];
    if (x->how == GQ_DEPENDS_OWN && first >= 0 && x->first - at != first) return mixed;
    if (x->how == GQ_DEPENDS_OWN) first = x->first - at;
    if (x->how == GQ_DEPENDS_OWN && first < 0) return mixed;
    at += gq_graph_node(g, n->args[i])->shape.dim[n->shape.ndim - 1];
  }
  return own_from(first);
}

static part entry_by_entry(const gq_graph *g, const gq_node *n, int64_t rows, const part *of) {
  int64_t first = -1;
  if (!gq_op_elementwise(n->op)) return mixed;
  for (int i = 0; i < n->nargs; i++) {
    const part *x = &of[n->args[i]];
    if (x->how != GQ_DEPENDS_OWN) continue;
    if ((first >= 0 && x->first != first) || !gq_shape_equal(gq_graph_node(g, n->args[i])->shape, n->shape))
      return mixed;
    first = x->first;
  }
  return own_from(first);
}

static const struct {
  gq_op op;
  part_rule *rule;
} part_rules[] = {
  { GQ_OP_RESHAPE, reshaped }, { GQ_OP_SLICE, cut }, { GQ_OP_PAD, padded }, { GQ_OP_CAT, joined }
};

static part part_of(const gq_graph *g, const gq_node *n, int64_t rows, const part *of) {
  gq_depends most = GQ_DEPENDS_NOT;
  part_rule *rule = entry_by_entry;
  for (int i = 0; i < n->nargs; i++)
    if (of[n->args[i]].how > most) most = of[n->args[i]].how;
  if (most != GQ_DEPENDS_OWN) return (part){ most, -1 };
  for (size_t i = 0; i < sizeof part_rules / sizeof *part_rules; i++)
    if (part_rules[i].op == n->op) rule = part_rules[i].rule;
  return rule(g, n, rows, of);
}

int gq_diffusion_depends(const gq_graph *body, gq_depends *how) {
  int n = gq_graph_size(body);
  gq_ref z = gq_graph_input(body, 1), out = gq_graph_output(body, 1);
  gq_shape shape = gq_graph_node(body, z)->shape;
  part *of = gq_calloc((size_t)n + 1, sizeof *of);
  if (!of) return gq_nomem(n * sizeof *of);
  for (gq_ref r = 0; r < (gq_ref)n; r++)
    of[r] =
      r == z ? own_from(0) : part_of(body, gq_graph_node(body, r), shape.ndim > 1 ? shape.dim[0] : -1, of);
  bool all = of[out].first == 0 && gq_shape_equal(gq_graph_node(body, out)->shape, shape);
  *how = of[out].how == GQ_DEPENDS_OWN && !all ? GQ_DEPENDS_MIXED : of[out].how;
  gq_free(of);
  return GQ_OK;
}

/* Do rows, along axis `row` of z, not act on each other? */
static int rows_apart(const gq_graph *body, int row, bool *apart) {
  int n = gq_graph_inputs(body), *axis = gq_calloc((size_t)n + 1, sizeof *axis);
  gq_shape z = gq_graph_node(body, gq_graph_input(body, 1))->shape;
  *apart = false;
  if (!axis) return gq_nomem(n * sizeof *axis);
  for (int i = 0; i < n; i++) axis[i] = i == 1 ? row : -1;
  int status = row < z.ndim && z.dim[row] > 0 ? gq_rows(body, z.dim[row], axis) : GQ_EUNSUPPORTED;
  *apart = status == GQ_OK;
  gq_free(axis);
  return status == GQ_EUNSUPPORTED ? GQ_OK : status;
}

/* What moves z, one after the other: a column of a matrix, all entries of G at once, or its entries one by one. */
typedef struct columns {
  gq_noise noise;
  bool entries;
  int row; /* entries: those of all rows together, along this axis; -1: of one */
  int64_t n;
} columns;

enum { MOST_ENTRIES = 64 }; /* each costs a derivative */

/* Of diagonal noise entry i takes (dg_i/dz_i) g_i: one derivative along all of g where g_i depends on z_i alone,
** otherwise one along each entry. */
static int columns_of(const gq_graph *body, gq_noise noise, int row, columns *c) {
  gq_depends how = GQ_DEPENDS_NOT;
  bool apart = false;
  gq_shape G = output(body, 1).shape;
  *c = (columns){ .noise = noise, .row = -1, .n = is_matrix(noise) ? G.dim[G.ndim - 1] : 1 };
  GQ_TRY(gq_diffusion_depends(body, &how));
  if (how == GQ_DEPENDS_NOT) c->n = 0;
  if (noise != GQ_DIAGONAL || how != GQ_DEPENDS_MIXED) return GQ_OK;
  GQ_TRY(rows_apart(body, row, &apart));
  c->entries = true, c->n = gq_numel(G);
  if (apart) c->row = row, c->n /= G.dim[row];
  if (c->n <= MOST_ENTRIES) return GQ_OK;
  return gq_fail(
    GQ_EUNSUPPORTED,
    "the correction between Ito and Stratonovich of diagonal noise whose g_i depends on other z_j%s "
    "takes a derivative for each of %lld numbers, %d at most: let g_i depend on z_i alone, or choose "
    "a method of the SDE's own calculus with gradient = \"direct\"",
    apart ? "" : " (and rows on each other)", (long long)c->n, MOST_ENTRIES);
}

/* G, zero but for entry j of every row: counted over all axes but the row's. */
static gq_ref entry(gq_graph *g, const columns *c, gq_ref G, int64_t j) {
  gq_attr one = { .shape = gq_graph_node(g, G)->shape }, whole;
  gq_shape all = one.shape;
  for (int i = all.ndim - 1; i >= 0; i--) {
    one.step[i] = 1;
    if (i == c->row) continue;
    one.start[i] = j % all.dim[i], one.shape.dim[i] = 1, j /= all.dim[i];
  }
  whole = one, whole.shape = all;
  gq_ref x = gq_emit(g, GQ_OP_SLICE, 1, &G, &one);
  return gq_emit(g, GQ_OP_PAD, 1, &x, &whole);
}

gq_ref gq_noise_column(gq_graph *g, gq_ref G, int64_t j) {
  gq_shape z = gq_graph_node(g, G)->shape;
  z.ndim--;
  return gq_reshape(g, gq_slice(g, G, z.ndim, j, 1), z);
}

/* Column j of G: z's shape */
static gq_ref column(gq_graph *g, const columns *c, gq_ref G, int64_t j) {
  if (c->entries) return entry(g, c, G, j);
  return is_matrix(c->noise) ? gq_noise_column(g, G, j) : G;
}

/* (dG_j/dz) G_j is the second derivative of what moves along G_j, at a t that stands still: inputs nothing, z, t, the
** others. bind: [inputs + 1] */
static int column_jet(const gq_graph *body, const columns *c, int64_t j, gq_ref *bind, gq_graph **jet) {
  gq_ref out[2];
  gq_graph *g = gq_graph_new();
  if (!g) return gq_nomem(0);
  gq_input_like(g, body, 0);
  bind[1] = gq_input_like(g, body, 1), bind[0] = gq_input_like(g, body, 0);
  gq_inputs_like(g, body, 2, bind);
  gq_inline(g, body, bind, out);
  gq_ref of = column(g, c, out[1], j);
  gq_graph_set_outputs(g, 1, &of);
  int status = gq_graph_status(g);
  if (status == GQ_OK) status = gq_jet(g, 2, jet);
  gq_graph_free(g);
  return status;
}

static int convert(const gq_graph *body, const columns *c, gq_calculus to, gq_graph *g, gq_ref *bind,
                   gq_ref *moved) {
  gq_ref out[2], rate[2];
  int n = gq_graph_inputs(body);
  gq_inputs_like(g, body, 0, bind);
  gq_inline(g, body, bind, out);
  GQ_TRY(gq_graph_status(g));
  gq_dtype d = gq_graph_node(g, out[1])->dtype;
  for (int64_t j = 0; j < c->n; j++) {
    gq_graph *jet;
    GQ_TRY(column_jet(body, c, j, moved, &jet));
    moved[0] = gq_const(g, d, 0), moved[1] = bind[1], moved[2] = bind[0];
    for (int i = 2; i < n; i++) moved[i + 1] = bind[i];
    gq_inline(g, jet, moved, rate);
    gq_graph_free(jet);
    out[0] = gq_emit2(g, to == GQ_ITO ? GQ_OP_ADD : GQ_OP_SUB, out[0], gq_scale(g, rate[1], 0.5));
  }
  gq_graph_set_outputs(g, 2, out);
  return gq_graph_status(g);
}

int gq_diffusion_convert(const gq_graph *body, gq_noise noise, gq_calculus to, int row, gq_graph **out) {
  columns c;
  GQ_TRY(columns_of(body, noise, row, &c));
  gq_graph *g = gq_graph_new();
  size_t n = (size_t)gq_graph_inputs(body) + 1;
  gq_ref *bind = gq_calloc(2 * n, sizeof *bind);
  int status = g && bind ? convert(body, &c, to, g, bind, bind + n) : gq_nomem(n * sizeof *bind);
  gq_free(bind);
  if (status != GQ_OK) gq_graph_free(g);
  else *out = g;
  return status;
}
