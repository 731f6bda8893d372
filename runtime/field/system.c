/*
** system.c -- what a solver integrates, as graphs made from a field: the field, its adjoint, and
** the products a'df/dtheta at one point or at many. See step.h.
*/
#include "system.h"

#include <string.h>

/* Inputs of class `cls` of the field: t, z, then boundary values; nodes in g. */
typedef struct frame {
  gq_graph *g;
  gq_ref *bind; /* t, z, boundary values, directions */
  gq_ref *da;   /* derivatives: in z, in t, in boundary values, or GQ_NONE (pull) */
} frame;

static const gq_node *body_input(const gq_field *f, int cls, int i) {
  return gq_graph_node(f->class_body[cls], gq_graph_input(f->class_body[cls], i));
}

static void frame_done(frame *fr) {
  gq_graph_free(fr->g);
  gq_free(fr->bind);
  gq_free(fr->da);
}

static int frame_new(const gq_field *f, frame *fr) {
  fr->g = gq_graph_new();
  fr->bind = gq_calloc(f->nb + 2 + f->ndirection, sizeof *fr->bind);
  fr->da = gq_calloc(f->nb + 2, sizeof *fr->da);
  if (fr->g && fr->bind && fr->da) return GQ_OK;
  frame_done(fr);
  return gq_nomem(f->nb * sizeof *fr->bind);
}

static void bind_boundaries(const gq_field *f, int cls, frame *fr) {
  gq_inputs_like(fr->g, f->class_body[cls], 2, fr->bind);
}

/* The inputs by which products are probed. */
static int bind_directions(const gq_field *f, int cls, frame *fr) {
  int n = 0;
  for (int j = 0; j < f->nb; j++) {
    gq_probe p = gq_field_probe(f, cls, j);
    for (int k = 0; f->want[j] && k < p.inputs; k++)
      if (f->directed[j][k] == n)
        fr->bind[2 + f->nb + n++] = gq_input(fr->g, gq_field_boundary_dtype(f, j), p.input[k]);
  }
  return n;
}

static int64_t lanes_of(const gq_field *f, int cls) {
  return body_input(f, cls, 0)->shape.ndim ? f->lanes[cls] : 0;
}

static gq_ref time_input(const gq_field *f, int cls, frame *fr) {
  return gq_input(fr->g, f->dtype, body_input(f, cls, 0)->shape);
}

static gq_ref state_input(const gq_field *f, int cls, frame *fr) {
  return gq_input(fr->g, f->dtype, f->class_shape[cls]);
}

/* Of a cotangent of G, and W's. */
static gq_ref diffusion_input(const gq_field *f, int cls, frame *fr) {
  const gq_graph *g = f->class_body[cls];
  return gq_input(fr->g, f->dtype, gq_graph_node(g, gq_graph_output(g, 1))->shape);
}

static gq_ref noise_input(const gq_field *f, int cls, frame *fr) {
  const gq_graph *g = f->class_body[cls];
  gq_shape s = gq_graph_node(g, gq_graph_output(g, 1))->shape;
  return gq_input(fr->g, f->dtype, gq_noise_shape(f->noise, f->class_shape[cls], s));
}

/* Outputs of s: lead[0..nlead), then the products that exist: in time, in boundary values. Nothing where all did not go
** well so far. */
static int finish(int status, gq_system *s, const gq_field *f, frame *fr, int nlead, const gq_ref *lead) {
  gq_ref *out = gq_calloc(nlead + f->nb + 1, sizeof *out);
  s->of = gq_calloc(f->nb + nlead + 1, sizeof *s->of);
  s->nq = 0;
  if (status == GQ_OK && !(out && s->of)) status = gq_nomem(f->nb);
  if (status == GQ_OK) {
    for (int i = 0; i < nlead; i++) out[i] = lead[i];
    for (int j = -1; j < f->nb; j++)
      if (fr->da[2 + j] != GQ_NONE) out[nlead + s->nq] = fr->da[2 + j], s->of[s->nq++] = j;
    gq_graph_set_outputs(fr->g, nlead + s->nq, out);
    status = gq_graph_status(fr->g);
  }
  gq_free(out);
  s->g = fr->g, fr->g = NULL;
  frame_done(fr);
  if (status != GQ_OK) gq_system_done(s);
  return status;
}

int gq_system_forward(const gq_field *f, int cls, const void *arg, gq_system *s) {
  *s = (gq_system){ .g = f->class_body[cls], .lent = true, .parts = 1, .last = f->shape.ndim - 1 };
  if (f->columns && s->last > 0) s->last--; /* rows are innermost there */
  s->lanes = lanes_of(f, cls), s->front = f->front, s->noise = f->noise, s->moments = f->moments,
  s->intervals = f->intervals, s->levy = f->levy;
  return GQ_OK;
}

void gq_system_done(gq_system *s) {
  if (!s->lent) gq_graph_free(s->g);
  gq_free(s->of);
  *s = (gq_system){ 0 };
}

static bool has_product(const gq_field *f, int j, gq_products products) {
  return f->want[j] && products != GQ_PRODUCTS_NONE;
}

/* Derivatives of n times out . cot: fr->da. */
static int pull_all(const gq_field *f, frame *fr, int nout, const gq_ref *out, const gq_ref *cot,
                    gq_products products, bool time) {
  int n = 0;
  gq_ref *da = fr->da;
  gq_ref *wrt = gq_calloc(2 * (f->nb + 2), sizeof *wrt), *grad = wrt ? wrt + f->nb + 2 : NULL;
  if (!wrt) return gq_nomem(f->nb);
  for (int i = 0; i < f->nb + 2; i++) da[i] = GQ_NONE;
  wrt[n++] = fr->bind[1];
  if (time) wrt[n++] = fr->bind[0];
  for (int j = 0; j < f->nb; j++)
    if (has_product(f, j, products)) wrt[n++] = fr->bind[2 + j];
  int status = gq_vjp(fr->g, nout, out, cot, n, wrt, grad);
  n = 0;
  da[0] = grad[n++];
  if (time) da[1] = grad[n++];
  for (int j = 0; j < f->nb; j++)
    if (has_product(f, j, products)) da[2 + j] = grad[n++];
  gq_free(wrt);
  return status;
}

static int pull(const gq_field *f, frame *fr, gq_ref out, gq_ref cot, gq_products products, bool time) {
  return pull_all(f, fr, 1, &out, &cot, products, time);
}

/* Where n > 1 points are in every node. */
static int follow_points(const frame *fr, int64_t n, bool columns, gq_ref a, gq_label **at) {
  size_t size = (size_t)gq_graph_size(fr->g);
  gq_ref of_points[] = { fr->bind[0], fr->bind[1], a };
  *at = gq_alloc(size * sizeof **at);
  if (!*at) return gq_nomem(size * sizeof **at);
  for (size_t r = 0; r < size; r++) (*at)[r] = (gq_label){ GQ_ROWS_ALL, 1 };
  for (int i = 0; i < 3; i++) {
    gq_shape s = gq_graph_node(fr->g, of_points[i])->shape;
    int axis = columns ? s.ndim - 1 : 0;
    (*at)[of_points[i]] = (gq_label){ axis, s.dim[axis] / n };
  }
  gq_rows_follow(fr->g, n, *at);
  return GQ_OK;
}

/* The probes of the products at n points, and their sizes; GQ_NONE where there is no product. */
static int probe(const gq_field *f, int cls, frame *fr, int64_t n, bool columns, gq_ref a, gq_ref *out,
                 gq_ref *size_) {
  gq_label *at = NULL;
  if (n > 1) GQ_TRY(follow_points(fr, n, columns, a, &at));
  for (int j = 0; j < f->nb; j++) {
    gq_probe p = gq_field_probe(f, cls, j);
    gq_ref direction[GQ_PROBE_INPUTS];
    for (int k = 0; f->want[j] && k < p.inputs; k++) direction[k] = fr->bind[2 + f->nb + f->directed[j][k]];
    gq_ref *size = size_ ? size_ + j : NULL;
    gq_ref product = fr->da[2 + j];
    out[j] =
      product == GQ_NONE ? GQ_NONE : gq_probe_emit(fr->g, &p, n, at, columns, product, a, direction, size);
  }
  gq_free(at);
  return GQ_OK;
}

/* a'df/dz, zero where f does not depend on z. */
static gq_ref in_z(const gq_field *f, int cls, frame *fr) {
  return fr->da[0] == GQ_NONE ? gq_zeros(fr->g, f->dtype, f->class_shape[cls]) : fr->da[0];
}

int gq_system_adjoint(const gq_field *f, int cls, const void *arg, gq_system *s) {
  const gq_adjointkind *k = arg;
  frame fr;
  gq_ref a, q = GQ_NONE, out[2], lead[2];
  *s = (gq_system){ .parts = k->path ? 1 : 2,
                    .given = k->path + k->forced,
                    .lanes = lanes_of(f, cls),
                    .front = f->front,
                    .probes = k->products == GQ_PRODUCTS_PROBES };
  GQ_TRY(frame_new(f, &fr));
  fr.bind[0] = time_input(f, cls, &fr);
  if (k->path) a = state_input(f, cls, &fr), fr.bind[1] = state_input(f, cls, &fr);
  else fr.bind[1] = state_input(f, cls, &fr), a = state_input(f, cls, &fr);
  if (k->forced) q = state_input(f, cls, &fr);
  bind_boundaries(f, cls, &fr);
  if (s->probes) s->directions = bind_directions(f, cls, &fr);
  gq_inline(fr.g, f->class_body[cls], fr.bind, out);
  int status = pull(f, &fr, out[0], a, k->products, k->time);
  if (s->probes && status == GQ_OK) status = probe(f, cls, &fr, 1, f->columns, a, fr.da + 2, NULL);
  gq_ref slope = gq_emit1(fr.g, GQ_OP_NEG, in_z(f, cls, &fr));
  lead[0] = out[0];
  lead[k->path ? 0 : 1] = k->forced ? gq_emit2(fr.g, GQ_OP_ADD, slope, q) : slope;
  return finish(status, s, f, &fr, s->parts, lead);
}

int gq_system_pull(const gq_field *f, int cls, const void *arg, gq_system *s) {
  bool time = *(const bool *)arg;
  frame fr;
  gq_ref a[2], out[2];
  *s = (gq_system){ .parts = 1, .lanes = lanes_of(f, cls), .front = f->front };
  GQ_TRY(frame_new(f, &fr));
  fr.bind[0] = time_input(f, cls, &fr);
  fr.bind[1] = state_input(f, cls, &fr);
  a[0] = state_input(f, cls, &fr);
  if (f->noise) a[1] = diffusion_input(f, cls, &fr);
  bind_boundaries(f, cls, &fr);
  gq_inline(fr.g, f->class_body[cls], fr.bind, out);
  int status = pull_all(f, &fr, f->noise ? 2 : 1, out, a, GQ_PRODUCTS_ALL, time);
  gq_ref lead = in_z(f, cls, &fr);
  return finish(status, s, f, &fr, 1, &lead);
}

int gq_system_rise(const gq_field *f, int cls, const void *arg, gq_system *s) {
  frame fr;
  gq_graph *own = NULL; /* an Ito SDE in Stratonovich form */
  gq_ref a, h, dw, out[2], lead[2];
  *s = (gq_system){ .parts = 2, .rise = true };
  int status = GQ_OK;
  if (*(const gq_calculus *)arg == GQ_ITO)
    status = gq_diffusion_convert(f->class_body[cls], f->noise, GQ_STRATONOVICH,
                                  f->columns ? f->shape.ndim - 1 : 0, &own);
  if (status == GQ_OK) status = frame_new(f, &fr);
  if (status == GQ_OK) {
    fr.bind[0] = time_input(f, cls, &fr);
    fr.bind[1] = state_input(f, cls, &fr), a = state_input(f, cls, &fr);
    h = gq_input(fr.g, f->dtype, gq_shape_of(0, NULL)), dw = noise_input(f, cls, &fr);
    bind_boundaries(f, cls, &fr);
    gq_inline(fr.g, own ? own : f->class_body[cls], fr.bind, out);
    lead[0] = gq_noise_rise(fr.g, f->noise, out[0], out[1], h, dw);
    status = pull(f, &fr, lead[0], a, GQ_PRODUCTS_ALL, false);
    lead[1] = gq_emit1(fr.g, GQ_OP_NEG, in_z(f, cls, &fr));
    status = finish(status, s, f, &fr, 2, lead);
  }
  gq_graph_free(own);
  return status;
}

int gq_system_points(const gq_field *f, int cls, const void *arg, gq_system *s) {
  const bool time = false;
  GQ_TRY(gq_system_pull(f, 1, &time, s));
  gq_ref *out = gq_calloc(s->nq + 1, sizeof *out);
  if (!out) {
    gq_system_done(s);
    return gq_nomem(s->nq * sizeof *out);
  }
  for (int r = 0; r < s->nq; r++) out[r] = gq_graph_output(s->g, 1 + r);
  gq_graph_set_outputs(s->g, s->nq, out);
  gq_free(out);
  s->parts = 0;
  return GQ_OK;
}

/* ---- many points at once ---- */

/* As columns where the field has that form, else with a new dim in front. */
typedef struct points {
  frame fr;
  gq_ref a, out;
} points;

static gq_ref batched_input(frame *fr, gq_dtype d, gq_shape s, int64_t n) {
  gq_shape b = { .ndim = s.ndim + 1, .dim = { n } };
  for (int i = 0; i < s.ndim; i++) b.dim[i + 1] = s.dim[i];
  return gq_input(fr->g, d, b);
}

static int as_columns(const gq_field *f, int cls, int64_t n, const gq_graph *g, points *p) {
  gq_shape shape = f->class_shape[cls];
  shape.dim[shape.ndim - 1] *= n;
  p->fr.bind[0] = gq_input(p->fr.g, f->dtype, gq_shape_of(1, &n));
  p->fr.bind[1] = gq_input(p->fr.g, f->dtype, shape);
  p->a = gq_input(p->fr.g, f->dtype, shape);
  bind_boundaries(f, cls, &p->fr);
  return gq_inline(p->fr.g, g, p->fr.bind, &p->out);
}

static int in_front(const gq_field *f, int cls, int64_t n, points *p) {
  if (f->shape.ndim + 1 > GQ_MAXDIM)
    return gq_fail(GQ_ESHAPE,
                   "quadrature nodes need one more dimension than the state's %d; at most %d are "
                   "supported: flatten the state",
                   f->shape.ndim, GQ_MAXDIM);
  bool *batched = gq_calloc(f->nb + 2, sizeof *batched);
  if (!batched) return gq_nomem(f->nb);
  batched[0] = batched[1] = true;
  p->fr.bind[0] = batched_input(&p->fr, f->dtype, gq_shape_of(0, NULL), n);
  p->fr.bind[1] = batched_input(&p->fr, f->dtype, f->class_shape[cls], n);
  p->a = batched_input(&p->fr, f->dtype, f->class_shape[cls], n);
  bind_boundaries(f, cls, &p->fr);
  int status = gq_batch(p->fr.g, f->class_body[cls], n, p->fr.bind, batched, &p->out);
  gq_free(batched);
  return status;
}

static int points_new(const gq_field *f, int cls, int64_t n, points *p, bool *columns) {
  gq_graph *g = NULL;
  int status = gq_field_points(f, cls, n, &g);
  *columns = status == GQ_OK;
  if (status == GQ_OK || status == GQ_EUNSUPPORTED) status = frame_new(f, &p->fr);
  if (status == GQ_OK) {
    status = *columns ? as_columns(f, cls, n, g, p) : in_front(f, cls, n, p);
    if (status != GQ_OK) frame_done(&p->fr);
  }
  gq_graph_free(g);
  return status;
}

/* 1 in number i of every row: rows of `dim` numbers, {dim, all rows} as columns. */
static gq_ref unit(gq_graph *g, gq_ref z, bool columns, int64_t dim, int i) {
  const gq_node *n = gq_graph_node(g, z);
  gq_shape shape = n->shape;
  gq_dtype d = n->dtype;
  int64_t rows = gq_numel(shape) / dim;
  gq_ref x =
    gq_expand(g, gq_const(g, d, 1), gq_shape_of(2, (int64_t[]){ columns ? 1 : rows, columns ? rows : 1 }));
  return gq_reshape(g, gq_pad(g, x, columns ? 0 : 1, i, dim), shape);
}

int gq_system_jacobian(const gq_field *f, int cls, const void *arg, gq_system *s) {
  const gq_pointkind *k = arg;
  int64_t dim = k->dim;
  points p;
  gq_ref j[GQ_MAX_JACOBIAN];
  *s = (gq_system){ .late = dim > 0 };
  GQ_TRY(points_new(f, cls, k->n, &p, &s->columns));
  gq_graph *g = p.fr.g;
  gq_ref z = p.fr.bind[1];
  int status = GQ_OK;
  for (int i = 0; i < dim && status == GQ_OK; i++) {
    gq_ref e = unit(g, z, s->columns, dim, i);
    status = gq_vjp(g, 1, &p.out, &e, 1, &z, &j[i]);
    if (j[i] == GQ_NONE) j[i] = gq_zeros(g, f->dtype, gq_graph_node(g, z)->shape);
  }
  if (status == GQ_OK) status = pull(f, &p.fr, p.out, p.a, GQ_PRODUCTS_ALL, false);
  return finish(status, s, f, &p.fr, (int)dim, j);
}

/* Of what the path's slopes (inputs here) leave of the dynamics, in tolerances: sums of squares, {n}. */
static gq_ref defect(const gq_field *f, points *p, int64_t n, bool columns) {
  gq_graph *g = p->fr.g;
  gq_shape shape = gq_graph_node(g, p->out)->shape, scalar = gq_shape_of(0, NULL);
  gq_ref slope = gq_input(g, f->dtype, shape), rtol = gq_input(g, f->dtype, scalar),
         atol = gq_input(g, f->dtype, scalar);
  gq_ref size = gq_emit2(g, GQ_OP_MUL, gq_expand(g, rtol, shape), gq_emit1(g, GQ_OP_ABS, p->fr.bind[1]));
  gq_ref x = gq_emit2(g, GQ_OP_DIV, gq_emit2(g, GQ_OP_SUB, slope, p->out),
                      gq_emit2(g, GQ_OP_ADD, gq_expand(g, atol, shape), size));
  int64_t rows = columns ? shape.dim[shape.ndim - 1] / n : 1;
  x = gq_reshape(g, gq_emit1(g, GQ_OP_SQUARE, x),
                 gq_shape_of(3, columns ? (int64_t[]){ gq_numel(shape) / (n * rows), n, rows }
                                        : (int64_t[]){ 1, n, gq_numel(shape) / n }));
  return gq_reshape(g, gq_sum_axes(g, x, 5), gq_shape_of(1, &n));
}

int gq_system_nodes(const gq_field *f, int cls, const void *arg, gq_system *s) {
  const gq_pointkind *k = arg;
  int64_t n = k->n;
  bool probes = k->probes;
  points p;
  int nlead = 0;
  *s = (gq_system){ .parts = 0 };
  gq_ref *lead = gq_calloc(4 * (f->nb + 1), sizeof *lead), *size = lead ? lead + 3 * (f->nb + 1) : NULL;
  int *of = gq_calloc(2 * (f->nb + 1), sizeof *of);
  int status = lead && of ? points_new(f, cls, n, &p, &s->columns) : gq_nomem(f->nb);
  if (status == GQ_OK) {
    if (probes) s->directions = bind_directions(f, cls, &p.fr);
    status = pull(f, &p.fr, p.out, p.a, GQ_PRODUCTS_ALL, false);
    if (probes && status == GQ_OK) status = probe(f, cls, &p.fr, n, s->columns, p.a, lead, size);
    for (int j = 0; probes && status == GQ_OK && j < f->nb; j++)
      if (lead[j] != GQ_NONE) lead[nlead] = lead[j], of[nlead++] = j;
    int found = nlead;
    if (k->defect) s->defect = true, lead[nlead] = defect(f, &p, n, s->columns), of[nlead++] = -1;
    for (int i = 0; i < found; i++) lead[nlead] = size[of[i]], of[nlead++] = of[i];
    status = finish(status, s, f, &p.fr, nlead, lead);
    if (status == GQ_OK) memcpy(s->of + s->nq, of, nlead * sizeof *of);
  }
  gq_free(lead);
  gq_free(of);
  return status;
}
