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

int gq_kronrod_init(gq_kronrod *q, gq_window *steps, const gq_grads *total) {
  gq_solution *s = steps->s;
  *q = (gq_kronrod){ .steps = steps, .total = total };
  GQ_TRY(gq_grads_new(s->plan->field, false, &q->gauss));
  GQ_TRY(gq_grads_new(s->plan->field, false, &q->kronrod));
  s->bytes += q->gauss.bytes + q->kronrod.bytes;
  return GQ_OK;
}

void gq_kronrod_done(gq_kronrod *q) {
  gq_grads_done(&q->gauss);
  gq_grads_done(&q->kronrod);
}

/* The rule's sum over a piece, into grads. */
static int apply(gq_kronrod *q, const double *weights, double from, double to, const gq_grads *grads) {
  double half = (from - to) / 2;
  gq_zero(q->steps->s->plan->field->on, grads->block, grads->bytes);
  q->steps->nodes->grads = grads;
  for (int i = 0; i < POINTS; i++) {
    int j = i < 8 ? i : POINTS - 1 - i;
    double x = i < 8 ? points[j] : -points[j];
    if (weights[j] != 0) GQ_TRY(gq_window_node(q->steps, (from + to) / 2 + half * x, weights[j] * half));
  }
  return gq_nodebuffer_flush(q->steps->nodes);
}

/* Do the rules' sums over a piece agree? */
static int sum_piece(gq_kronrod *q, double from, double to, bool *agree) {
  const gq_field *f = q->steps->s->plan->field;
  if (gq_interrupted()) return gq_interrupted_back(from);
  GQ_TRY(apply(q, gauss_weights, from, to, &q->gauss));
  GQ_TRY(apply(q, kronrod_weights, from, to, &q->kronrod));
  double error = gq_grads_rms(f, &q->kronrod, &q->gauss), size = gq_grads_rms(f, q->total, NULL),
         mine = gq_grads_rms(f, &q->kronrod, NULL);
  if (mine > size) size = mine;
  double tolerance = q->steps->w->a.tol.products + q->steps->w->a.tol.rtol * size;
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
  if (!agree) q->steps->s->info.capped = true;
  gq_grads_add(q->steps->s->plan->field, 1, &q->kronrod, q->total);
  return GQ_OK;
}

static bool uneven(const gq_kronrod *q, int first, int last) {
  double least = INFINITY, most = 0;
  for (int i = first; i < last; i++)
    least = fmin(least, q->steps->edge[i].h), most = fmax(most, q->steps->edge[i].h);
  return most > UNEVEN * least;
}

/* A piece between two edges. */
static int piece(gq_kronrod *q, int first, int last) {
  bool agree = false;
  int middle = first + (last - first) / 2;
  if (middle == first) return inner_piece(q, q->steps->edge[first].t, q->steps->edge[last].t, 0);
  if (!uneven(q, first, last)) GQ_TRY(sum_piece(q, q->steps->edge[first].t, q->steps->edge[last].t, &agree));
  if (agree) {
    gq_grads_add(q->steps->s->plan->field, 1, &q->kronrod, q->total);
    return GQ_OK;
  }
  GQ_TRY(piece(q, first, middle));
  return piece(q, middle, last);
}

int gq_kronrod_interval(gq_kronrod *q, double from, double to) {
  if (!q->steps->n) return GQ_OK;
  int status = gq_window_edges(q->steps, from, to);
  if (status == GQ_OK) status = piece(q, 0, q->steps->edges);
  q->steps->n = 0;
  return status;
}
