/*
** kronrod.c -- adaptive Gauss-Kronrod quadrature of the parameter gradient, see kronrod.h. A piece is split while
** its two sums differ by more than the tolerance, in the root mean square over all parameters: |K15 - G7| is the
** error of G7, that of K15, which is kept, is far below.
**
** A piece of many steps is split at the middle one of them, a piece within one step in the middle: the steps are
** short where z or a changes fast, and their interpolants have kinks at the edges. Sums of two rules agree, too, where
** both miss a layer: a piece whose steps differ by more than UNEVEN is split before it is summed.
*/
#include "kronrod.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { POINTS = 15, MOST_HALVINGS = 12, UNEVEN = 32 };
#define NEAR 0.1

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

int gq_kronrod_init(gq_kronrod *q, gq_solution *s, gq_trajectory *path, const gq_walk *w,
                    gq_nodebuffer *nodes, const gq_grads *total) {
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
  gq_free(q->edge);
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
  gq_copy(f->on, r->block, w->y[0], gq_part_bytes(f));
  for (int i = 0; i < w->st->m->slopes; i++) {
    char *to = r->block + (1 + i) * q->part;
    for (int s = 0; s < f->nslices; to += slice_bytes(f, s), s++)
      gq_copy(f->on, to, gq_walk_slope(w, i, 0, s), slice_bytes(f, s));
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
  gq_copy(f->on, dst, r->block, gq_part_bytes(f));
  for (int j = 0; j < m->slopes; j++)
    if (wt[j] != 0)
      f->on->vec->axpy(f->dtype, gq_numel(f->shape), r->h * wt[j], r->block + (1 + j) * q->part, dst);
}

static int add_node(gq_kronrod *q, double t, double weight) {
  const gq_field *f = q->s->plan->field;
  GQ_TRY(gq_trajectory_at(q->path, t, q->z));
  a_at(q, t, q->a);
  char *z = q->z, *a = q->a;
  for (int s = 0; s < f->nslices; z += slice_bytes(f, s), a += slice_bytes(f, s), s++) {
    gq_copy(f->on, gq_nodebuffer_z(q->nodes, s), z, slice_bytes(f, s));
    gq_copy(f->on, gq_nodebuffer_a(q->nodes, s), a, slice_bytes(f, s));
  }
  return gq_nodebuffer_push(q->nodes, t, weight);
}

/* The rule's sum over a piece, into grads. */
static int apply(gq_kronrod *q, const double *weights, double from, double to, const gq_grads *grads) {
  double half = (from - to) / 2;
  gq_zero(q->s->plan->field->on, grads->block, grads->bytes);
  q->nodes->grads = grads;
  for (int i = 0; i < POINTS; i++) {
    int j = i < 8 ? i : POINTS - 1 - i;
    double x = i < 8 ? points[j] : -points[j];
    if (weights[j] != 0) GQ_TRY(add_node(q, (from + to) / 2 + half * x, weights[j] * half));
  }
  return gq_nodebuffer_flush(q->nodes);
}

/* Do the rules' sums over a piece agree? */
static int sum_piece(gq_kronrod *q, double from, double to, bool *agree) {
  const gq_field *f = q->s->plan->field;
  if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted in the backward pass at t = %.9g", from);
  GQ_TRY(apply(q, gauss_weights, from, to, &q->gauss));
  GQ_TRY(apply(q, kronrod_weights, from, to, &q->kronrod));
  double error = gq_grads_rms(f, &q->kronrod, &q->gauss), size = gq_grads_rms(f, q->total, NULL),
         mine = gq_grads_rms(f, &q->kronrod, NULL);
  if (mine > size) size = mine;
  double tolerance = q->w->atol_products + q->w->rtol * size;
  double rounding = 100 * (f->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON) * size;
  *agree = error <= (tolerance < rounding ? rounding : tolerance);
  return GQ_OK;
}

/* A piece within one step. */
static int inner_piece(gq_kronrod *q, double from, double to, int halvings) {
  double middle = (from + to) / 2;
  bool agree;
  GQ_TRY(sum_piece(q, from, to, &agree));
  if (!agree && halvings < MOST_HALVINGS && middle != from && middle != to) {
    GQ_TRY(inner_piece(q, from, middle, halvings + 1));
    return inner_piece(q, middle, to, halvings + 1);
  }
  if (!agree) q->s->info.capped = true;
  gq_grads_add(q->s->plan->field, &q->kronrod, q->total);
  return GQ_OK;
}

static bool uneven(const gq_kronrod *q, int first, int last) {
  double least = INFINITY, most = 0;
  for (int i = first; i < last; i++) least = fmin(least, q->edge[i].h), most = fmax(most, q->edge[i].h);
  return most > UNEVEN * least;
}

/* A piece between two edges. */
static int piece(gq_kronrod *q, int first, int last) {
  bool agree = false;
  int middle = first + (last - first) / 2;
  if (middle == first) return inner_piece(q, q->edge[first].t, q->edge[last].t, 0);
  if (!uneven(q, first, last)) GQ_TRY(sum_piece(q, q->edge[first].t, q->edge[last].t, &agree));
  if (agree) {
    gq_grads_add(q->s->plan->field, &q->kronrod, q->total);
    return GQ_OK;
  }
  GQ_TRY(piece(q, first, middle));
  return piece(q, middle, last);
}

static int edge_room(gq_kronrod *q, int need) {
  if (need <= q->edge_room) return GQ_OK;
  gq_step_record *edge = gq_realloc(q->edge, 2 * (size_t)need * sizeof *edge);
  if (!edge) return gq_nomem(2 * (size_t)need * sizeof *edge);
  q->edge = edge, q->edge_room = 2 * need;
  return GQ_OK;
}

/* Step i of a, with its length as gq_trajectory_steps tells those of z. */
static gq_step_record step_of_a(const gq_kronrod *q, int i) {
  double t = q->step[i].t;
  while (i + 1 < q->n && fabs(q->step[i + 1].h) >= GQ_GREW * fabs(q->step[i].h)) i++;
  double h = fabs(q->step[i].h);
  if (i > 0) h = fmax(h, fabs(q->step[i - 1].h));
  if (i + 1 < q->n) h = fmax(h, fabs(q->step[i + 1].h));
  return (gq_step_record){ .t = t, .h = h };
}

static bool near(const gq_kronrod *q, gq_step_record e) {
  const gq_step_record *last = &q->edge[q->edges];
  return fabs(e.t - last->t) < NEAR * fmin(e.h, last->h);
}

/* The edges of both solves' steps in the interval. Where one of a nearly meets one of z, at which f may jump, that
** of z remains. */
static int find_edges(gq_kronrod *q, double from, double to) {
  int nz = gq_trajectory_steps(q->path, from, to, NULL, 0), iz = 0,
      ia = 1; /* the first step of a begins at `from` */
  double dir = from < to ? -1 : 1;
  bool kept = true; /* is the last edge one that remains? */
  GQ_TRY(edge_room(q, 2 * nz + q->n + 2));
  gq_step_record *z = q->edge + nz + q->n + 2;
  gq_trajectory_steps(q->path, from, to, z, nz);
  q->edges = 0;
  q->edge[0] = step_of_a(q, 0);
  q->edge[0].t = from;
  while (iz < nz || ia < q->n) {
    bool is_z = ia == q->n || (iz < nz && dir * (z[iz].t - q->step[ia].t) >= 0);
    gq_step_record e = is_z ? z[iz++] : step_of_a(q, ia++);
    bool meets = near(q, e);
    if (meets && !is_z) continue;
    if (!meets || kept) q->edges++;
    q->edge[q->edges] = e, kept = is_z;
  }
  if (!kept && near(q, (gq_step_record){ .t = to, .h = q->edge[q->edges].h })) q->edges--;
  q->edge[++q->edges].t = to;
  return GQ_OK;
}

int gq_kronrod_interval(gq_kronrod *q, double from, double to) {
  int status = q->n ? find_edges(q, from, to) : GQ_OK;
  if (status == GQ_OK && q->n) status = piece(q, 0, q->edges);
  q->n = 0;
  return status;
}
