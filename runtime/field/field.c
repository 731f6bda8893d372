/*
** field.c -- hoisting and slicing of a traced right-hand side, see field.h.
*/
#include "field.h"

#include <math.h>
#include <string.h>

enum {
  COLUMNS = 8,   /* fewer rows than this, innermost, are not worth the vector units */
  CACHED = 9216, /* numbers of a layer's values that stay near a core */
  NARROW = 128,  /* widest layer whose rows are cut for that; others are bound by their products */
  LEAST = 96,    /* and never into fewer rows than this */
  LANES = 32,  /* samples with steps of their own in one program: whole vectors, and few enough to be full */
  POINTS = 256 /* and their nodes */
};

/* ---- structure ---- */

gq_shape gq_field_boundary_shape(const gq_field *f, int j) {
  return gq_graph_node(f->body, gq_graph_input(f->body, 2 + j))->shape;
}

gq_dtype gq_field_boundary_dtype(const gq_field *f, int j) {
  return gq_graph_node(f->body, gq_graph_input(f->body, 2 + j))->dtype;
}

gq_shape gq_field_slice_shape(const gq_field *f, int s, int j) {
  gq_shape shape = gq_field_boundary_shape(f, j);
  if (f->axis[j] >= 0 && f->nslices > 1) shape.dim[f->axis[j]] = f->count[s];
  return shape;
}

size_t gq_field_slice_bytes(const gq_field *f, int s, int j) {
  return gq_numel(gq_field_slice_shape(f, s, j)) * gq_dtype_size(gq_field_boundary_dtype(f, j));
}

/* A boundary wants a gradient if it is, or depends on, a wanted capture and is a float. */
static int mark_wanted(gq_field *f) {
  int n = gq_graph_size(f->pro);
  bool *needs = gq_pooled(&f->own, n, sizeof *needs);
  GQ_TRY(gq_pool_status(&f->own));
  for (gq_ref r = 0; r < n; r++) {
    const gq_node *node = gq_graph_node(f->pro, r);
    if (node->op == GQ_OP_INPUT) needs[r] = f->want_capture[node->attr.axis];
    for (int i = 0; i < node->nargs; i++) needs[r] |= needs[node->args[i]];
    needs[r] &= gq_is_float(node->dtype);
  }
  for (int j = 0; j < f->nb; j++) f->want[j] = needs[gq_graph_output(f->pro, j)];
  return GQ_OK;
}

static int compile_prologue(gq_field *f) {
  gq_outspec *outs = gq_pooled(&f->own, f->nb, sizeof *outs);
  int n = 0;
  GQ_TRY(gq_pool_status(&f->own));
  for (int j = 0; j < f->nb; j++)
    if (f->direct[j] < 0) outs[n++] = (gq_outspec){ gq_graph_output(f->pro, j), 0, GQ_STORE };
  return n ? gq_program_new(f->on, f->pro, n, outs, &f->pro_run) : GQ_OK;
}

/* Captures, then one cotangent for each computed wanted boundary; adds to the captures' gradients. */
static int compile_pull(gq_field *f) {
  int n = 0;
  gq_graph *g = gq_graph_new();
  gq_ref *refs = gq_pooled(&f->own, 2 * f->nb + 3 * f->ncapture, sizeof *refs);
  gq_outspec *outs = gq_pooled(&f->own, f->ncapture, sizeof *outs);
  f->pull_adds = gq_pooled(&f->own, f->ncapture, sizeof *f->pull_adds);
  int status = g ? gq_pool_status(&f->own) : gq_nomem(f->nb);
  if (status == GQ_OK) {
    gq_ref *bind = refs, *out = bind + f->ncapture, *cot = out + f->nb, *grad = cot + f->nb;
    gq_inputs_like(g, f->pro, 0, bind);
    gq_inline(g, f->pro, bind, out);
    for (int j = 0; j < f->nb; j++) {
      cot[j] = GQ_NONE;
      if (f->direct[j] < 0 && f->want[j])
        cot[j] = gq_input(g, gq_field_boundary_dtype(f, j), gq_field_boundary_shape(f, j)), n++;
    }
    if (n) status = gq_vjp(g, f->nb, out, cot, f->ncapture, bind, grad);
    int m = 0;
    for (int i = 0; n && status == GQ_OK && i < f->ncapture; i++)
      if (f->want_capture[i] && grad[i] != GQ_NONE) outs[m++] = (gq_outspec){ grad[i], 0, GQ_ADD };
    for (int i = 0; i < f->ncapture; i++) /* remember which captures the program adds to */
      if (!n || grad[i] == GQ_NONE) bind[i] = GQ_NONE;
    for (int i = 0; i < f->ncapture; i++) f->pull_adds[i] = f->want_capture[i] && bind[i] != GQ_NONE;
    if (status == GQ_OK && n) status = gq_graph_status(g);
    if (status == GQ_OK && m) status = gq_program_new(f->on, g, m, outs, &f->pro_pull);
  }
  gq_graph_free(g);
  return status;
}

/* Room for n slices. */
static int take_slices(gq_field *f, int n) {
  f->first = gq_pooled(&f->own, n, sizeof *f->first);
  f->count = gq_pooled(&f->own, n, sizeof *f->count);
  f->class_of = gq_pooled(&f->own, n, sizeof *f->class_of);
  return gq_pool_status(&f->own);
}

static int use_whole(gq_field *f) {
  GQ_TRY(take_slices(f, 1));
  for (int j = 0; j < f->nb; j++) f->axis[j] = -1;
  f->nslices = f->nclass = 1;
  f->count[0] = f->shape.ndim ? f->shape.dim[0] : 1;
  f->class_body[0] = f->body;
  f->class_shape[0] = f->shape;
  return GQ_OK;
}

static int64_t class_count(const gq_field *f, int c) {
  return f->shape.dim[0] / f->nslices + (f->nclass == 2 && c == 0);
}

static int deal_rows(gq_field *f, int n) {
  GQ_TRY(take_slices(f, n));
  int64_t rows = f->shape.dim[0];
  f->nslices = n;
  f->nclass = rows % n ? 2 : 1;
  for (int s = 0; s < n; s++) {
    f->class_of[s] = f->nclass == 2 && s >= rows % n;
    f->count[s] = class_count(f, f->class_of[s]);
    f->first[s] = s ? f->first[s - 1] + f->count[s - 1] : 0;
  }
  return GQ_OK;
}

static int use_slices(gq_field *f, const int *axis) {
  for (int c = 0; c < f->nclass; c++) {
    GQ_TRY(gq_rows_resize(f->body, f->shape.dim[0], class_count(f, c), axis, &f->class_body[c]));
    f->class_shape[c] = f->shape;
    f->class_shape[c].dim[0] = class_count(f, c);
  }
  return GQ_OK;
}

/* The same with rows innermost. GQ_EUNSUPPORTED: some operation has no such form. */
static int use_columns(gq_field *f, const int *axis) {
  int status = GQ_OK;
  for (int c = 0; c < f->nclass && status == GQ_OK; c++) {
    status = gq_rows_last(f->body, f->shape.dim[0], class_count(f, c), 0, NULL, axis, &f->class_body[c]);
    f->class_shape[c] = f->shape;
    for (int i = 1; i < f->shape.ndim; i++) f->class_shape[c].dim[i - 1] = f->shape.dim[i];
    f->class_shape[c].dim[f->shape.ndim - 1] = class_count(f, c);
  }
  f->columns = status == GQ_OK;
  for (int c = 0; c < f->nclass && status != GQ_OK; c++)
    gq_graph_free(f->class_body[c]), f->class_body[c] = NULL;
  return status;
}

/* Axes of the body's inputs: t, the state, boundaries; calloc'd. */
static int row_axes(const gq_field *f, int **axis) {
  *axis = gq_calloc(f->nb + 2, sizeof **axis);
  if (!*axis) return gq_nomem(f->nb);
  (*axis)[0] = -1;
  memcpy(*axis + 2, f->axis, f->nb * sizeof **axis);
  return GQ_OK;
}

/* Numbers of the largest boundary value. */
static int64_t largest_boundary(const gq_field *f) {
  int64_t most = 0;
  for (int j = 0; j < f->nb; j++) {
    int64_t n = gq_numel(gq_field_boundary_shape(f, j));
    if (n > most) most = n;
  }
  return most;
}

/* Most numbers that some value holds for one row. */
static int64_t widest(const gq_field *f) {
  int64_t most = 1, rows = f->shape.dim[0];
  for (gq_ref r = 0; r < gq_graph_size(f->body); r++) {
    gq_shape s = gq_graph_node(f->body, r)->shape;
    if (s.ndim && s.dim[0] == rows && gq_numel(s) / rows > most) most = gq_numel(s) / rows;
  }
  return most;
}

int64_t gq_field_comfort(const gq_field *f) {
  int64_t n = CACHED / f->width;
  return n < LEAST ? LEAST : n;
}

/* As many slices as run side by side, or a multiple where that keeps the values of narrow layers near the
** cores. */
static int slices(const gq_field *f, int64_t rows) {
  int most = f->on->lowering->most;
  int64_t n = f->on->lowering->slices(rows, f->width, largest_boundary(f)), pieces;
  if (n > most) n = most;
  if (n < 1) n = 1;
  pieces = (rows / n + gq_field_comfort(f) / 2) / gq_field_comfort(f);
  if (f->width <= NARROW && pieces > 1) n *= pieces;
  return n > most ? most : (int)n;
}

static int find_points(gq_field *f) {
  gq_graph *g;
  int status = gq_field_points(f, 0, 1, &g);
  f->points = status == GQ_OK;
  if (f->points) gq_graph_free(g);
  return status == GQ_EUNSUPPORTED ? GQ_OK : status;
}

/* Slices of rows where those are independent and plentiful. */
static int cut(gq_field *f, bool columns) {
  int64_t rows = f->shape.ndim ? f->shape.dim[0] : 0;
  f->width = rows > 0 ? widest(f) : 1;
  int n = slices(f, rows), *axis, status;
  columns = columns && f->on->lowering->columns && rows / n >= COLUMNS;
  for (int j = 0; j < f->nb; j++) f->axis[j] = -1;
  if (n < 2 && !columns) return use_whole(f);
  GQ_TRY(row_axes(f, &axis));
  status = gq_rows(f->body, rows, axis);
  if (status == GQ_OK) {
    memcpy(f->axis, axis + 2, f->nb * sizeof *axis);
    status = deal_rows(f, n);
    if (status == GQ_OK) status = columns ? use_columns(f, axis) : GQ_EUNSUPPORTED;
    if (status == GQ_EUNSUPPORTED && n > 1) status = use_slices(f, axis);
  }
  gq_free(axis);
  if (status == GQ_OK && f->columns) return find_points(f);
  return status == GQ_EUNSUPPORTED ? use_whole(f) : status;
}

const char *gq_field_lowering(const gq_field *f) {
  const gq_lowering *l = f->on->lowering;
  return f->nslices > 1 && l->side ? "tiles" : l->name;
}

int gq_field_independent(const gq_field *f) {
  int *axis;
  if (f->columns || f->nslices > 1 || f->shape.ndim == 0 || f->shape.dim[0] <= 1) return GQ_OK;
  GQ_TRY(row_axes(f, &axis));
  int status = gq_rows(f->body, f->shape.dim[0], axis);
  gq_free(axis);
  return status;
}

int gq_field_points(const gq_field *f, int cls, int64_t n, gq_graph **out) {
  int *axis;
  if (!f->columns) return GQ_EUNSUPPORTED;
  bool *each = gq_calloc(f->nb + 2, sizeof *each);
  if (!each) return gq_nomem(f->nb);
  each[0] = each[1] = true;
  int status = row_axes(f, &axis);
  if (status == GQ_OK)
    status = gq_rows_last(f->body, f->shape.dim[0], class_count(f, cls), n, each, axis, out);
  gq_free(each);
  gq_free(axis);
  return status;
}

/* ---- rows at times of their own ---- */

static int lanes_fail(int status) {
  char message[400];
  strncpy(message, gq_message(), sizeof message - 1), message[sizeof message - 1] = 0;
  return gq_fail(
    status,
    "batch = \"independent\" solves each row of the state with steps of its own, so rows must not "
    "act on each other; %s; use batch = \"joint\" for these dynamics",
    message);
}

/* Shape s of one row {.., 1, ..} with n of them in front. */
static int in_front(gq_shape s, int axis, int64_t n, gq_shape *out) {
  if (s.ndim + 1 > GQ_MAXDIM)
    return gq_fail(GQ_ESHAPE,
                   "batch = \"independent\" needs one more dimension than the %d that a state or captured "
                   "tensor has here; at most %d are supported: flatten it",
                   s.ndim, GQ_MAXDIM);
  *out = (gq_shape){ .ndim = s.ndim + 1, .dim = { n } };
  for (int i = 0; i < s.ndim; i++) out->dim[i + 1] = i == axis ? 1 : s.dim[i];
  return GQ_OK;
}

/* Any graph of one row, for n of them. A batch of one is such a graph, whatever it does. */
static int front_body(const gq_field *f, const int *axis, const bool *each, gq_ref *bind, int64_t n,
                      gq_graph **out) {
  gq_graph *one = NULL, *g = gq_graph_new();
  gq_ref result[2];
  int64_t rows = f->shape.dim[0];
  int status = !g ? gq_nomem(0) : rows > 1 ? gq_rows_resize(f->body, rows, 1, axis, &one) : GQ_OK;
  for (int i = 0; i < f->nb + 2 && status == GQ_OK; i++) {
    const gq_node *node = gq_graph_node(f->body, gq_graph_input(f->body, i));
    gq_shape s = node->shape;
    if (each[i]) status = in_front(s, axis[i], n, &s);
    bind[i] = gq_input(g, node->dtype, s);
  }
  if (status == GQ_OK) status = gq_batch(g, one ? one : f->body, n, bind, each, result);
  gq_graph_free(one);
  if (status == GQ_OK) gq_graph_set_outputs(g, gq_graph_outputs(f->body), result), *out = g;
  else gq_graph_free(g);
  return status;
}

/* Innermost where all operations have such a form: what is one number a row needs no other loop then. */
static int lane_bodies(gq_field *f, const int *axis, bool *each, gq_ref *bind) {
  int64_t rows = f->shape.dim[0];
  int status = GQ_OK;
  for (int j = 0; j < f->nb + 2; j++) each[j] = j < 2 || axis[j] >= 0;
  for (int c = 0; c < 2 && status == GQ_OK; c++) {
    int64_t n = f->lanes[c] = c ? POINTS : LANES;
    if (!f->front) {
      status = gq_rows_last(f->body, rows, 1, n, each, axis, &f->class_body[c]);
      f->front = c == 0 && status == GQ_EUNSUPPORTED;
    }
    if (f->front) status = front_body(f, axis, each, bind, n, &f->class_body[c]);
    f->class_shape[c].ndim = f->shape.ndim;
    for (int i = 1; i < f->shape.ndim; i++) f->class_shape[c].dim[i - 1] = f->shape.dim[i];
    f->class_shape[c].dim[f->shape.ndim - 1] = n;
    if (f->front && status == GQ_OK) status = in_front(f->shape, 0, n, &f->class_shape[c]);
  }
  return status;
}

/* Where inputs are cut with the rows. A batch of one is read as one of many if that makes sense. */
static int find_axes(gq_field *f, int *axis) {
  if (f->shape.dim[0] > 1) return gq_rows(f->body, f->shape.dim[0], axis);
  int status = gq_rows_single(f->body, axis);
  if (status != GQ_EUNSUPPORTED) return status;
  for (int j = 0; j < f->nb + 2; j++) axis[j] = j == 1 ? 0 : -1;
  status = gq_rows(f->body, 1, axis);
  if (status != GQ_EUNSUPPORTED) return status;
  for (int j = 0; j < f->nb + 2; j++) axis[j] = j == 1 ? 0 : -1;
  f->front = true;
  return GQ_OK;
}

/* The number of lanes depends on nothing that a batch could change: a row's arithmetic is the same in any company. */
static int use_lanes(gq_field *f) {
  GQ_TRY(use_whole(f));
  f->width = 1;
  if (f->shape.ndim == 0)
    return gq_fail(GQ_ESHAPE,
                   "batch = \"independent\" solves each row (dimension 1) of the state with steps of its "
                   "own, and a state of no dimension has none; reshape it, or use batch = \"joint\"");
  if (f->noise && f->noise != GQ_DIAGONAL && f->shape.ndim < 2)
    return gq_fail(
      GQ_ESHAPE,
      "batch = \"independent\" solves each row (dimension 1) of the state along a path of its own, and "
      "with %s noise a state of one dimension is one row: give it as {rows, d}, or use batch = \"joint\"",
      gq_noise_names[f->noise - 1]);
  if (gq_numel(f->shape) == 0) return GQ_OK;
  f->width = widest(f);
  int *axis = NULL, status = row_axes(f, &axis);
  bool *each = gq_pooled(&f->own, f->nb + 2, sizeof *each);
  gq_ref *bind = gq_pooled(&f->own, f->nb + 2, sizeof *bind);
  if (status == GQ_OK) status = gq_pool_status(&f->own);
  if (status == GQ_OK) status = find_axes(f, axis);
  if (f->noise && f->noise != GQ_DIAGONAL) f->front = true; /* the noise has another shape than z */
  if (status == GQ_OK) {
    memcpy(f->axis, axis + 2, f->nb * sizeof *axis);
    f->class_body[0] = NULL;
    status = lane_bodies(f, axis, each, bind);
  }
  gq_free(axis);
  return status == GQ_EUNSUPPORTED ? lanes_fail(status) : status;
}

static bool uses(const gq_graph *g, gq_ref x) {
  for (gq_ref i = x + 1; i < (gq_ref)gq_graph_size(g); i++) {
    const gq_node *n = gq_graph_node(g, i);
    for (int k = 0; k < n->nargs; k++)
      if (n->args[k] == x) return true;
  }
  return false;
}

static int field_init(gq_field *f, const gq_graph *g, const bool *want_, bool columns, bool lanes) {
  const gq_node *z = gq_graph_node(g, gq_graph_input(g, 1));
  f->dtype = z->dtype, f->shape = z->shape, f->calls = gq_graph_calls(g);
  if (f->noise) GQ_TRY(gq_diffusion_check(g, f->noise, &f->gshape, &f->wshape));
  f->want_capture = gq_pooled(&f->own, f->ncapture, sizeof(bool));
  GQ_TRY(gq_pool_status(&f->own));
  if (want_) memcpy(f->want_capture, want_, f->ncapture * sizeof(bool));
  if (lanes && gq_numel(f->shape) > 0 && f->shape.ndim > 0)
    GQ_TRY(gq_hoist_shared(g, f->shape.dim[0], &f->pro, &f->body, &f->direct));
  else GQ_TRY(gq_hoist(g, 2, &f->pro, &f->body, &f->direct));
  f->nb = gq_graph_outputs(f->pro);
  f->timed = uses(f->body, gq_graph_input(f->body, 0));
  f->axis = gq_pooled(&f->own, f->nb, sizeof *f->axis);
  f->want = gq_pooled(&f->own, f->nb, sizeof *f->want);
  GQ_TRY(gq_pool_status(&f->own));
  GQ_TRY(mark_wanted(f));
  GQ_TRY(compile_prologue(f));
  GQ_TRY(compile_pull(f));
  return lanes ? use_lanes(f) : cut(f, columns);
}

static int field_new(const gq_backend *on, const gq_graph *g, int ncapture, const bool *want_, bool columns,
                     bool lanes, gq_noise noise, gq_field **out) {
  gq_field *f = gq_calloc(1, sizeof *f);
  if (!f) return gq_nomem(sizeof *f);
  f->on = on, f->ncapture = ncapture, f->noise = noise, f->moments = f->intervals = 1;
  int status = field_init(f, g, want_, columns, lanes);
  if (status != GQ_OK) gq_field_free(f);
  else *out = f;
  return status;
}

int gq_field_new(const gq_backend *on, const gq_graph *g, int ncapture, const bool *want_, bool columns,
                 gq_field **out) {
  return field_new(on, g, ncapture, want_, columns, false, GQ_NOISE_NONE, out);
}

int gq_field_noisy(const gq_backend *on, const gq_graph *fg, int ncapture, const bool *want_, gq_noise noise,
                   gq_calculus of, gq_calculus to, bool lanes, gq_field **out) {
  gq_graph *g, *other = NULL;
  GQ_TRY(gq_diffusion_form(fg, noise, &g));
  int status = of == to ? GQ_OK : gq_diffusion_convert(g, noise, to, 0, &other);
  if (status == GQ_OK)
    status = field_new(on, other ? other : g, ncapture, want_, noise == GQ_DIAGONAL, lanes, noise, out);
  gq_graph_free(other);
  gq_graph_free(g);
  return status;
}

int gq_field_lanes(const gq_backend *on, const gq_graph *g, int ncapture, const bool *want_, gq_field **out) {
  return field_new(on, g, ncapture, want_, false, true, GQ_NOISE_NONE, out);
}

/* ---- probes ---- */

static const gq_node *boundary_input(const gq_field *f, int cls, int j) {
  return gq_graph_node(f->class_body[cls], gq_graph_input(f->class_body[cls], 2 + j));
}

gq_probe gq_field_probe(const gq_field *f, int cls, int j) {
  gq_probe p;
  gq_probe_of(boundary_input(f, cls, j)->shape, f->axis[j] >= 0, &p);
  return p;
}

/* Numbers of direction input k of boundary j, for the class that has more. */
static int direction_new(const gq_field *f, int j, int k, void **out) {
  size_t n = 0;
  gq_dtype d = gq_field_boundary_dtype(f, j);
  for (int c = 0; c < f->nclass; c++) {
    size_t numel = gq_numel(gq_field_probe(f, c, j).input[k]);
    if (numel > n) n = numel;
  }
  double *x = gq_alloc((n + 1) * sizeof *x);
  *out = gq_allocate(f->on, (n + 1) * gq_dtype_size(d));
  for (size_t i = 0; x && i < n; i++) x[i] = gq_probe_direction(j, k, i);
  if (x && *out) f->on->vec->put(d, n, x, *out, 1);
  gq_free(x);
  return x && *out ? GQ_OK : gq_nomem(n * sizeof *x);
}

/* One along the same side k of an earlier boundary, as long and of that dtype: what is projected on it is then
** projected once, a layer's a'df/du for its weight and its bias. -1: there is none. */
static int direction_shared(const gq_field *f, int j, int k) {
  gq_probe p = gq_field_probe(f, 0, j);
  for (int i = 0; i < j && p.sides; i++) {
    gq_probe q = gq_field_probe(f, 0, i);
    if (f->want[i] && q.sides && k < q.inputs && gq_shape_equal(p.input[k], q.input[k]) &&
        gq_field_boundary_dtype(f, i) == gq_field_boundary_dtype(f, j))
      return f->directed[i][k];
  }
  return -1;
}

int gq_field_probes(gq_field *f) {
  if (f->direction) return GQ_OK;
  f->directed = gq_pooled(&f->own, f->nb, sizeof *f->directed);
  f->direction = gq_pooled(&f->own, (size_t)GQ_PROBE_INPUTS * f->nb, sizeof *f->direction);
  f->probed = gq_pooled(&f->own, f->nb, sizeof *f->probed);
  GQ_TRY(gq_pool_status(&f->own));
  for (int j = 0; j < f->nb; j++) {
    gq_probe p = gq_field_probe(f, 0, j);
    int n = f->want[j] ? p.inputs : 0;
    f->probed[j] = p.numbers;
    for (int k = 0; k < n; k++) {
      int d = f->directed[j][k] = direction_shared(f, j, k);
      if (d >= 0) continue;
      d = f->directed[j][k] = f->ndirection++;
      GQ_TRY(direction_new(f, j, k, &f->direction[d]));
    }
  }
  return GQ_OK;
}

void gq_field_free(gq_field *f) {
  if (!f) return;
  for (int i = 0; i < f->ndirection; i++) gq_release(f->on, f->direction[i]);
  for (int c = 0; c < 2; c++)
    if (f->class_body[c] != f->body) gq_graph_free(f->class_body[c]);
  gq_program_free(f->pro_run);
  gq_program_free(f->pro_pull);
  gq_graph_free(f->pro);
  gq_graph_free(f->body);
  gq_free(f->direct);
  gq_pool_free(&f->own);
  gq_free(f);
}

/* ---- numbers ---- */

/* Rows of `bytes`, steps apart; a device takes many at once. */
static void copy_rows(const gq_backend *on, size_t rows, size_t bytes, char *to, size_t to_step, char *from,
                      size_t from_step) {
  enum { MOST = 64 };
  bool plain = bytes % sizeof(float) == 0 && on->lowering->side;
  void *at[2 * MOST];
  size_t n[MOST];
  for (size_t r = 0, some; r < rows; r += some) {
    some = !plain ? 1 : rows - r < MOST ? rows - r : MOST;
    for (size_t i = 0; i < some; i++)
      n[i] = bytes / sizeof(float), at[2 * i] = to + (r + i) * to_step,
      at[2 * i + 1] = from + (r + i) * from_step;
    if (plain) on->vec->combine(GQ_F32, (int)some, n, 0, NULL, at);
    else gq_copy(on, at[0], at[1], bytes);
  }
}

void gq_field_copy_slice(const gq_backend *on, gq_shape whole, int axis, int64_t first, int64_t count,
                         bool columns, size_t size, char *slice, char *full, bool to_slice) {
  size_t inner = 1, outer = 1;
  for (int i = axis + 1; i < whole.ndim; i++) inner *= whole.dim[i];
  for (int i = 0; i < axis; i++) outer *= whole.dim[i];
  size_t rows = count * inner * size, step = whole.dim[axis] * inner * size;
  full += first * inner * size;
  if (!(columns && inner > 1)) {
    if (to_slice) copy_rows(on, outer, rows, slice, rows, full, step);
    else copy_rows(on, outer, rows, full, step, slice, rows);
    return;
  }
  for (size_t o = 0; o < outer; o++, slice += rows, full += step) {
    if (to_slice) on->vec->turn(size, inner, count, full, slice);
    else on->vec->turn(size, count, inner, slice, full);
  }
}

bool gq_field_plain(const gq_field *f) {
  return !f->columns || f->shape.ndim < 2 || gq_numel(f->shape) == f->shape.dim[0];
}

/* That is not plain. */
static void copy_slice(const gq_field *f, int s, char *packed, char *state, bool to_packed) {
  size_t size = gq_dtype_size(f->dtype);
  size_t row = f->shape.ndim && f->shape.dim[0] ? gq_numel(f->shape) / f->shape.dim[0] * size : 0;
  gq_field_copy_slice(f->on, f->shape, 0, f->first[s], f->count[s], true, size, packed + f->first[s] * row,
                      state, to_packed);
}

static void copy_state(const gq_field *f, char *packed, char *state, bool to_packed) {
  if (gq_field_plain(f))
    gq_copy(f->on, to_packed ? packed : state, to_packed ? state : packed, gq_part_bytes(f));
  else
    for (int s = 0; s < f->nslices; s++) copy_slice(f, s, packed, state, to_packed);
}

void gq_field_pack(const gq_field *f, const void *state, void *packed) {
  copy_state(f, packed, (char *)(uintptr_t)state, true);
}

void gq_field_unpack(const gq_field *f, const void *packed, void *state) {
  copy_state(f, (char *)(uintptr_t)packed, state, false);
}

void gq_field_unpack_slice(const gq_field *f, int s, const void *packed, void *state) {
  size_t at = gq_slice_offset(f, s);
  if (gq_field_plain(f)) gq_copy(f->on, (char *)state + at, (const char *)packed + at, gq_slice_bytes(f, s));
  else copy_slice(f, s, (char *)(uintptr_t)packed, state, false);
}

size_t gq_field_unpacked_index(const gq_field *f, size_t i) {
  if (gq_field_plain(f)) return i;
  size_t row = gq_numel(f->shape) / f->shape.dim[0];
  int s = f->nslices - 1;
  while (s > 0 && i < f->first[s] * row) s--;
  i -= f->first[s] * row;
  return (f->first[s] + i % f->count[s]) * row + i / f->count[s];
}
