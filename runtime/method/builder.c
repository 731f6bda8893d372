/*
** builder.c -- what steps are put together from, see builder.h: sizes and moves, the system at a stage, and the second
** derivatives that methods for SDEs ask for.
*/
#include "builder.h"

const gq_node *gq_builder_input(const gq_builder *b, int i) {
  return gq_graph_node(b->s->g, gq_graph_input(b->s->g, i));
}

gq_ref gq_builder_to_state(gq_builder *b, gq_ref scalar) { return gq_cast(b->g, scalar, b->dtype); }

gq_ref gq_builder_to_rows(gq_builder *b, gq_ref scalar) {
  gq_shape s = { .ndim = gq_builder_input(b, 1)->shape.ndim, .dim = { b->s->lanes } };
  gq_ref x = gq_builder_to_state(b, scalar);
  if (!b->s->front || gq_graph_node(b->g, x)->shape.ndim == 0) return x;
  for (int i = 1; i < s.ndim; i++) s.dim[i] = 1;
  return gq_reshape(b->g, x, s);
}

gq_ref gq_builder_size(gq_builder *b) { return gq_builder_to_rows(b, b->h); }

gq_ref gq_builder_move(gq_builder *b, gq_ref y, double w, gq_ref k) {
  return gq_emit2(b->g, GQ_OP_ADD, y,
                  gq_emit2(b->g, GQ_OP_MUL, gq_builder_to_rows(b, gq_scale(b->g, b->h, w)), k));
}

gq_ref gq_builder_sum(gq_builder *b, gq_ref x, gq_ref y) {
  return x == GQ_NONE ? y : y == GQ_NONE ? x : gq_emit2(b->g, GQ_OP_ADD, x, y);
}

gq_ref gq_builder_system(gq_builder *b, int i, double c, const gq_ref *y, gq_ref *all) {
  int n = 0, before;
  gq_ref t = c == 0 ? b->t : gq_emit2(b->g, GQ_OP_ADD, b->t, gq_scale(b->g, b->ht, c));
  b->bind[n++] = gq_builder_to_state(b, t);
  for (int p = 0; p < b->l->parts; p++) b->bind[n++] = y[p];
  for (int k = 0; k < b->l->given; k++) b->bind[n++] = b->path[i][k];
  if (b->s->rise) b->bind[n++] = gq_builder_to_state(b, b->h), b->bind[n++] = b->dw;
  for (int j = 0; j < b->nb; j++) b->bind[n++] = b->bv[j];
  before = gq_graph_size(b->g);
  gq_inline(b->g, b->s->g, b->bind, all);
  b->calls += !b->again || gq_graph_size(b->g) > before;
  return all[0];
}

gq_ref gq_builder_rise(gq_builder *b, gq_ref f, gq_ref G) {
  return gq_noise_rise(b->g, b->s->noise, f, G, gq_builder_size(b), b->dw);
}

/* ---- second derivatives of what moves along the noise ---- */

/* `way` of G, and of two given values: dW; or x and G_j at z. */
typedef gq_ref along(const gq_builder *b, gq_graph *g, gq_ref G, const gq_ref *given, int j);

static gq_ref along_noise(const gq_builder *b, gq_graph *g, gq_ref G, const gq_ref *given, int j) {
  return gq_noise_product(g, b->s->noise, G, given[0]);
}

/* G_j - given G_j + given x: at z that is x, and so its second derivative (dG_j/dz) x. */
static gq_ref along_column(const gq_builder *b, gq_graph *g, gq_ref G, const gq_ref *given, int j) {
  return gq_emit2(g, GQ_OP_ADD, gq_emit2(g, GQ_OP_SUB, gq_noise_column(g, G, j), given[1]), given[0]);
}

/* What moves so while t and what is given stand still: inputs nothing, z, t, given, boundary values; bind: [those] */
static int move_along(gq_builder *b, along *way, int j, int ngiven, const gq_ref *given, gq_ref *bind,
                      gq_graph **jet) {
  gq_graph *g = gq_graph_new();
  gq_ref out[2], own[2] = { GQ_NONE, GQ_NONE };
  if (!g) return gq_nomem(0);
  const gq_node *t = gq_builder_input(b, 0);
  gq_input(g, t->dtype, t->shape);
  bind[1] = gq_input(g, b->dtype, gq_builder_input(b, 1)->shape), bind[0] = gq_input(g, t->dtype, t->shape);
  for (int i = 0; i < ngiven; i++) own[i] = gq_input(g, b->dtype, gq_graph_node(b->g, given[i])->shape);
  for (int i = 2; i < b->nb + 2; i++)
    bind[i] = gq_input(g, gq_builder_input(b, i)->dtype, gq_builder_input(b, i)->shape);
  gq_inline(g, b->s->g, bind, out);
  gq_ref to = way(b, g, out[1], own, j);
  gq_graph_set_outputs(g, 1, &to);
  int status = gq_graph_status(g);
  if (status == GQ_OK) status = gq_jet(g, 2, jet);
  gq_graph_free(g);
  return status;
}

static int second(gq_builder *b, double c, gq_ref z, along *way, int j, int ngiven, const gq_ref *given,
                  gq_ref *out) {
  gq_graph *jet;
  gq_ref *bind = gq_calloc(b->nb + 5, sizeof *bind), rate[2] = { GQ_NONE, GQ_NONE };
  int status = bind ? move_along(b, way, j, ngiven, given, bind, &jet) : gq_nomem(b->nb), n = 3;
  if (status == GQ_OK) {
    gq_ref t = c == 0 ? b->t : gq_emit2(b->g, GQ_OP_ADD, b->t, gq_scale(b->g, b->ht, c));
    bind[0] = gq_const(b->g, b->dtype, 0), bind[1] = z, bind[2] = gq_builder_to_state(b, t);
    for (int i = 0; i < ngiven; i++) bind[n++] = given[i];
    for (int i = 0; i < b->nb; i++) bind[n++] = b->bv[i];
    gq_inline(b->g, jet, bind, rate);
    gq_graph_free(jet);
  }
  gq_free(bind);
  *out = rate[1];
  return status;
}

int gq_builder_second(gq_builder *b, double c, gq_ref z, gq_ref *out) {
  return second(b, c, z, along_noise, 0, 1, &b->dw, out);
}

/* G A: {.., d, m} by {.., m, m} */
static gq_ref by_areas(gq_builder *b, gq_ref G) {
  gq_graph *g = b->g;
  gq_shape s = gq_graph_node(g, G)->shape, a = gq_graph_node(g, b->levy)->shape, out = s;
  int64_t m = s.dim[s.ndim - 1];
  s.dim[s.ndim++] = 1;
  a.dim[a.ndim] = m, a.dim[a.ndim - 1] = m, a.dim[a.ndim - 2] = 1, a.ndim++;
  gq_ref x = gq_emit2(g, GQ_OP_MUL, gq_reshape(g, G, s), gq_reshape(g, b->levy, a));
  return gq_reshape(g, gq_sum_axes(g, x, 1 << (s.ndim - 2)), out);
}

int gq_builder_areas(gq_builder *b, double c, gq_ref z, gq_ref G, gq_ref *out) {
  gq_shape s = gq_graph_node(b->g, G)->shape;
  gq_ref ways = by_areas(b, G), part;
  *out = GQ_NONE;
  for (int64_t j = 0; j < s.dim[s.ndim - 1]; j++) {
    gq_ref given[] = { gq_noise_column(b->g, ways, j), gq_noise_column(b->g, G, j) };
    GQ_TRY(second(b, c, z, along_column, (int)j, 2, given, &part));
    *out = gq_builder_sum(b, *out, part);
  }
  return GQ_OK;
}

void gq_builder_evaluate(gq_builder *b, int i, double c, const gq_ref *y) {
  int nq = b->l->nq;
  gq_ref *all = b->q + (size_t)b->l->slopes * nq;
  gq_builder_system(b, i, c, y, all);
  if (i > 0 || !b->l->carry)
    for (int p = 0; p < b->l->parts; p++) b->slope[i][p] = all[p];
  if (b->s->noise) b->G[i] = all[b->l->parts];
  for (int r = 0; r < nq; r++) b->q[i * nq + r] = all[b->l->parts + r];
}
