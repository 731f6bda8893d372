/*
** kronrod.c -- adaptive Gauss-Kronrod quadrature of the parameter gradient, see kronrod.h. A piece is halved while
** its two sums differ by more than the tolerance, in the root mean square over all parameters: |K15 - G7| is the
** error of G7, that of K15, which is kept, is far below.
*/
#include "kronrod.h"

#include <float.h>
#include <string.h>

enum { POINTS = 15, MOST_HALVINGS = 12 };

/* QUADPACK's qk15: points from the end to the middle, every other one is Gauss's; weights of both. */
static const double points[8] = { 0.991455371120812639206854697526329, 0.949107912342758524526189684047851,
                                  0.864864423359769072789712788640926, 0.741531185599394439863864773280788,
                                  0.586087235467691130294144838258730, 0.405845151377397166906606412076961,
                                  0.207784955007898467600689403773245, 0 };
static const double kronrod_weights[8] = {
  0.022935322010529224963732008058970, 0.063092092629978553290700663189204,
  0.104790010322250183839876322541518, 0.140653259715525918745189590510238,
  0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
  0.204432940075298892414161999234649, 0.209482141084727828012999174891714
};
static const double gauss_weights[8] = { 0, 0.129484966168869693270611432679082,
                                         0, 0.279705391489276667901467771423780,
                                         0, 0.381830050505118944950369775488975,
                                         0, 0.417959183673469387755102040816327 };

int gq_kronrod_init(gq_kronrod *q, gq_solution *s, gq_path *path, const gq_walk *w, gq_nodebuffer *nodes,
                    const gq_grads *total) {
  *q = (gq_kronrod){ .s = s, .path = path, .w = w, .nodes = nodes, .total = total };
  q->part = gq_round64(gq_part_bytes(s->plan->field));
  GQ_TRY(gq_grads_new(s->plan->field, false, &q->gauss));
  GQ_TRY(gq_grads_new(s->plan->field, false, &q->kronrod));
  q->z = gq_alloc(2 * q->part);
  if (!q->z) return gq_nomem(2 * q->part);
  q->a = (char *)q->z + q->part;
  s->bytes += q->gauss.bytes + q->kronrod.bytes + 2 * q->part;
  return GQ_OK;
}

void gq_kronrod_done(gq_kronrod *q) {
  gq_grads_done(&q->gauss);
  gq_grads_done(&q->kronrod);
  for (int i = 0; i < q->room; i++) gq_free(q->step[i].block);
  gq_free(q->step);
  gq_free(q->z);
}

static size_t slice_bytes(const gq_field *f, int s) {
  return gq_numel(f->class_shape[f->class_of[s]]) * gq_dtype_size(f->dtype);
}

/* Room for one more step; blocks serve every interval. */
static int step_room(gq_kronrod *q) {
  size_t bytes = (1 + q->w->st->m->slopes) * q->part;
  if (q->n == q->room) {
    int room = q->room ? 2 * q->room : 16;
    struct gq_astep *step = gq_realloc(q->step, room * sizeof *step);
    if (!step) return gq_nomem(room * sizeof *step);
    memset(step + q->room, 0, (room - q->room) * sizeof *step);
    q->step = step, q->room = room;
  }
  if (q->step[q->n].block) return GQ_OK;
  q->step[q->n].block = gq_alloc(bytes);
  q->s->bytes += bytes;
  return q->step[q->n].block ? GQ_OK : gq_nomem(bytes);
}

int gq_kronrod_step(gq_kronrod *q) {
  const gq_walk *w = q->w;
  const gq_field *f = q->s->plan->field;
  GQ_TRY(step_room(q));
  struct gq_astep *r = &q->step[q->n++];
  r->t = w->t, r->h = w->h1;
  memcpy(r->block, w->y[0], gq_part_bytes(f));
  for (int i = 0; i < w->st->m->slopes; i++) {
    char *to = r->block + (1 + i) * q->part;
    for (int s = 0; s < f->nslices; to += slice_bytes(f, s), s++)
      memcpy(to, gq_walk_slope(w, i, 0, s), slice_bytes(f, s));
  }
  return GQ_OK;
}

static void a_at(const gq_kronrod *q, double t, void *dst) {
  const gq_field *f = q->s->plan->field;
  const gq_tableau *m = q->w->st->m;
  double dir = q->step->h < 0 ? -1 : 1, wt[GQ_MAXSTAGES];
  int i = 0;
  while (i + 1 < q->n && dir * (t - q->step[i + 1].t) > 0) i++;
  const struct gq_astep *r = &q->step[i];
  gq_tableau_weights(m, (t - r->t) / r->h, wt);
  memcpy(dst, r->block, gq_part_bytes(f));
  for (int j = 0; j < m->slopes; j++)
    if (wt[j] != 0) gq_axpy(f->dtype, gq_numel(f->shape), r->h * wt[j], r->block + (1 + j) * q->part, dst);
}

static int add_node(gq_kronrod *q, double t, double weight) {
  const gq_field *f = q->s->plan->field;
  GQ_TRY(gq_path_at(q->path, t, q->z));
  a_at(q, t, q->a);
  char *z = q->z, *a = q->a;
  for (int s = 0; s < f->nslices; z += slice_bytes(f, s), a += slice_bytes(f, s), s++) {
    memcpy(gq_nodebuffer_z(q->nodes, s), z, slice_bytes(f, s));
    memcpy(gq_nodebuffer_a(q->nodes, s), a, slice_bytes(f, s));
  }
  return gq_nodebuffer_push(q->nodes, t, weight);
}

/* The rule's sum over a piece, into grads. */
static int apply(gq_kronrod *q, const double *weights, double from, double to, const gq_grads *grads) {
  double half = (from - to) / 2;
  memset(grads->block, 0, grads->bytes);
  q->nodes->grads = grads;
  for (int i = 0; i < POINTS; i++) {
    int j = i < 8 ? i : POINTS - 1 - i;
    double x = i < 8 ? points[j] : -points[j];
    if (weights[j] != 0) GQ_TRY(add_node(q, (from + to) / 2 + half * x, weights[j] * half));
  }
  return gq_nodebuffer_flush(q->nodes);
}

static int piece(gq_kronrod *q, double from, double to, int halvings) {
  const gq_field *f = q->s->plan->field;
  if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted in the backward pass at t = %.9g", from);
  GQ_TRY(apply(q, gauss_weights, from, to, &q->gauss));
  GQ_TRY(apply(q, kronrod_weights, from, to, &q->kronrod));
  double error = gq_grads_rms(f, &q->kronrod, &q->gauss), size = gq_grads_rms(f, q->total, NULL),
         mine = gq_grads_rms(f, &q->kronrod, NULL);
  if (mine > size) size = mine;
  double tolerance = q->w->atol_products + q->w->rtol * size, middle = (from + to) / 2;
  double rounding = 100 * (f->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON) * size;
  if (tolerance < rounding) tolerance = rounding;
  if (error > tolerance && halvings < MOST_HALVINGS && middle != from && middle != to) {
    GQ_TRY(piece(q, from, middle, halvings + 1));
    return piece(q, middle, to, halvings + 1);
  }
  if (error > tolerance) q->s->info.capped = true;
  gq_grads_add(f, &q->kronrod, q->total);
  return GQ_OK;
}

int gq_kronrod_interval(gq_kronrod *q, double from, double to) {
  int status = q->n ? piece(q, from, to, 0) : GQ_OK;
  q->n = 0;
  return status;
}
