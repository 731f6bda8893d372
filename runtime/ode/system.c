/*
** system.c -- what a solver integrates, as graphs made from a field: the field, its adjoint, and
** the products a'df/dtheta at one point or at many. See step.h.
*/
#include "step.h"

/* Inputs of class `cls` of the field: t, z, then boundary values; nodes in g. */
typedef struct frame {
  gq_graph *g;
  gq_ref *bind; /* t, z, boundary values */
} frame;

static const gq_node *body_input(const gq_field *f, int cls, int i) {
  return gq_graph_node(f->class_body[cls], gq_graph_input(f->class_body[cls], i));
}

static int frame_new(const gq_field *f, frame *fr) {
  fr->g = gq_graph_new();
  fr->bind = gq_calloc(f->nb + 2, sizeof *fr->bind);
  if (fr->g && fr->bind) return GQ_OK;
  gq_graph_free(fr->g);
  gq_free(fr->bind);
  return gq_nomem(f->nb * sizeof *fr->bind);
}

static void bind_boundaries(const gq_field *f, int cls, frame *fr) {
  for (int j = 0; j < f->nb; j++) {
    const gq_node *n = body_input(f, cls, 2 + j);
    fr->bind[2 + j] = gq_input(fr->g, n->dtype, n->shape);
  }
}

static gq_ref state_input(const gq_field *f, int cls, frame *fr) {
  return gq_input(fr->g, f->dtype, f->class_shape[cls]);
}

/* Outputs of s: lead[0..nlead), then the products that exist; refs: time, boundaries. */
static int finish(gq_system *s, const gq_field *f, frame *fr, int nlead, const gq_ref *lead, gq_ref time,
                  const gq_ref *products_) {
  gq_ref *out = gq_calloc(nlead + f->nb + 1, sizeof *out);
  s->of = gq_calloc(f->nb + 1, sizeof *s->of);
  s->nq = 0;
  int status = out && s->of ? GQ_OK : gq_nomem(f->nb);
  if (status == GQ_OK) {
    for (int i = 0; i < nlead; i++) out[i] = lead[i];
    if (time != GQ_NONE) out[nlead + s->nq] = time, s->of[s->nq++] = -1;
    for (int j = 0; products_ && j < f->nb; j++)
      if (products_[j] != GQ_NONE) out[nlead + s->nq] = products_[j], s->of[s->nq++] = j;
    gq_graph_set_outputs(fr->g, nlead + s->nq, out);
    status = gq_graph_status(fr->g);
  }
  gq_free(out);
  gq_free(fr->bind);
  s->g = fr->g;
  if (status != GQ_OK) gq_system_done(s);
  return status;
}

int gq_system_forward(const gq_field *f, int cls, gq_system *s) {
  *s = (gq_system){ .g = f->class_body[cls], .lent = true, .parts = 1, .last = f->shape.ndim - 1 };
  if (f->columns && s->last > 0) s->last--; /* rows are innermost there */
  return GQ_OK;
}

void gq_system_done(gq_system *s) {
  if (!s->lent) gq_graph_free(s->g);
  gq_free(s->of);
  *s = (gq_system){ 0 };
}

static bool has_product(const gq_field *f, int j, gq_products products) {
  if (!f->want[j] || products == GQ_PRODUCTS_NONE) return false;
  return products == GQ_PRODUCTS_ALL || gq_field_boundary_shape(f, j).ndim <= 1;
}

/* Derivatives of out . cot: da[0] in z, da[1] in t, da[2 + j] in boundary j, where wanted. */
static int pull(const gq_field *f, frame *fr, gq_ref out, gq_ref cot, gq_products products, bool time,
                gq_ref *da) {
  int n = 0;
  gq_ref *wrt = gq_calloc(2 * (f->nb + 2), sizeof *wrt), *grad = wrt ? wrt + f->nb + 2 : NULL;
  if (!wrt) return gq_nomem(f->nb);
  for (int i = 0; i < f->nb + 2; i++) da[i] = GQ_NONE;
  wrt[n++] = fr->bind[1];
  if (time) wrt[n++] = fr->bind[0];
  for (int j = 0; j < f->nb; j++)
    if (has_product(f, j, products)) wrt[n++] = fr->bind[2 + j];
  int status = gq_vjp(fr->g, 1, &out, &cot, n, wrt, grad);
  n = 0;
  da[0] = grad[n++];
  if (time) da[1] = grad[n++];
  for (int j = 0; j < f->nb; j++)
    if (has_product(f, j, products)) da[2 + j] = grad[n++];
  gq_free(wrt);
  return status;
}

/* a'df/dz, zero where f does not depend on z. */
static gq_ref or_zero(const gq_field *f, int cls, frame *fr, gq_ref a) {
  return a == GQ_NONE ? gq_zeros(fr->g, f->dtype, f->class_shape[cls]) : a;
}

int gq_system_adjoint(const gq_field *f, int cls, const gq_adjointkind *k, gq_system *s) {
  frame fr;
  gq_ref a, q = GQ_NONE, out, lead[2], *da = gq_calloc(f->nb + 2, sizeof *da);
  *s = (gq_system){ .parts = k->path ? 1 : 2, .given = k->path + k->forced };
  if (!da) return gq_nomem(f->nb);
  int status = frame_new(f, &fr);
  if (status == GQ_OK) {
    fr.bind[0] = gq_input(fr.g, f->dtype, gq_shape_of(0, NULL));
    if (k->path) a = state_input(f, cls, &fr), fr.bind[1] = state_input(f, cls, &fr);
    else fr.bind[1] = state_input(f, cls, &fr), a = state_input(f, cls, &fr);
    if (k->forced) q = state_input(f, cls, &fr);
    bind_boundaries(f, cls, &fr);
    gq_inline(fr.g, f->class_body[cls], fr.bind, &out);
    status = pull(f, &fr, out, a, k->products, k->time, da);
    gq_ref slope = gq_emit1(fr.g, GQ_OP_NEG, or_zero(f, cls, &fr, da[0]));
    lead[0] = out;
    lead[k->path ? 0 : 1] = k->forced ? gq_emit2(fr.g, GQ_OP_ADD, slope, q) : slope;
    int done = finish(s, f, &fr, s->parts, lead, da[1], k->products ? da + 2 : NULL);
    if (status == GQ_OK) status = done;
    else gq_system_done(s);
  }
  gq_free(da);
  return status;
}

int gq_system_pull(const gq_field *f, int cls, bool time, gq_system *s) {
  frame fr;
  gq_ref a, out, lead, *da = gq_calloc(f->nb + 2, sizeof *da);
  *s = (gq_system){ .parts = 1 };
  if (!da) return gq_nomem(f->nb);
  int status = frame_new(f, &fr);
  if (status == GQ_OK) {
    fr.bind[0] = gq_input(fr.g, f->dtype, gq_shape_of(0, NULL));
    fr.bind[1] = state_input(f, cls, &fr);
    a = state_input(f, cls, &fr);
    bind_boundaries(f, cls, &fr);
    gq_inline(fr.g, f->class_body[cls], fr.bind, &out);
    status = pull(f, &fr, out, a, GQ_PRODUCTS_ALL, time, da);
    lead = or_zero(f, cls, &fr, da[0]);
    int done = finish(s, f, &fr, 1, &lead, da[1], da + 2);
    if (status == GQ_OK) status = done;
    else gq_system_done(s);
  }
  gq_free(da);
  return status;
}

static gq_ref batched_input(frame *fr, gq_dtype d, gq_shape s, int64_t n) {
  gq_shape b = { .ndim = s.ndim + 1, .dim = { n } };
  for (int i = 0; i < s.ndim; i++) b.dim[i + 1] = s.dim[i];
  return gq_input(fr->g, d, b);
}

/* Columns are `points` (from gq_field_points). */
static int nodes_as_columns(const gq_field *f, int cls, int64_t n, const gq_graph *points, gq_system *s) {
  frame fr;
  gq_ref a, out, *da = gq_calloc(f->nb + 2, sizeof *da);
  gq_shape shape = f->class_shape[cls];
  int status = da ? frame_new(f, &fr) : gq_nomem(f->nb);
  shape.dim[shape.ndim - 1] *= n;
  if (status == GQ_OK) {
    fr.bind[0] = gq_input(fr.g, f->dtype, gq_shape_of(1, &n));
    fr.bind[1] = gq_input(fr.g, f->dtype, shape);
    a = gq_input(fr.g, f->dtype, shape);
    bind_boundaries(f, cls, &fr);
    gq_inline(fr.g, points, fr.bind, &out);
    status = pull(f, &fr, out, a, GQ_PRODUCTS_ALL, false, da);
    int done = finish(s, f, &fr, 0, NULL, GQ_NONE, da + 2);
    s->columns = true;
    if (status == GQ_OK) status = done;
    else gq_system_done(s);
  }
  gq_free(da);
  return status;
}

int gq_system_nodes(const gq_field *f, int cls, int64_t n, gq_system *s) {
  frame fr;
  gq_graph *points = NULL;
  *s = (gq_system){ 0 };
  int found = gq_field_points(f, cls, n, &points);
  if (found == GQ_OK) {
    found = nodes_as_columns(f, cls, n, points, s);
    gq_graph_free(points);
  }
  if (found != GQ_EUNSUPPORTED) return found;
  gq_ref a, out, *da = gq_calloc(f->nb + 2, sizeof *da);
  bool *batched = gq_calloc(f->nb + 2, sizeof *batched);
  int status = da && batched ? GQ_OK : gq_nomem(f->nb);
  if (status == GQ_OK && f->shape.ndim + 1 > GQ_MAXDIM)
    status = gq_fail(GQ_ESHAPE,
                     "quadrature nodes need one more dimension than the state's %d; at most %d are "
                     "supported: flatten the state",
                     f->shape.ndim, GQ_MAXDIM);
  if (status == GQ_OK) status = frame_new(f, &fr);
  if (status == GQ_OK) {
    batched[0] = batched[1] = true;
    fr.bind[0] = batched_input(&fr, f->dtype, gq_shape_of(0, NULL), n);
    fr.bind[1] = batched_input(&fr, f->dtype, f->class_shape[cls], n);
    a = batched_input(&fr, f->dtype, f->class_shape[cls], n);
    bind_boundaries(f, cls, &fr);
    gq_batch(fr.g, f->class_body[cls], n, fr.bind, batched, &out);
    status = pull(f, &fr, out, a, GQ_PRODUCTS_ALL, false, da);
    int done = finish(s, f, &fr, 0, NULL, GQ_NONE, da + 2);
    if (status == GQ_OK) status = done;
    else gq_system_done(s);
  }
  gq_free(da);
  gq_free(batched);
  return status;
}
