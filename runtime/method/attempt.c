/*
** attempt.c -- times, norms and what is not finite of an attempt, whatever its method; see attempt.h.
*/
#include "attempt.h"

#include <float.h>
#include <math.h>

double gq_positive_atol(gq_dtype d, double atol) { return fmax(atol, d == GQ_F32 ? FLT_MIN : DBL_MIN); }

/* ---- times ---- */

double gq_spacing(gq_dtype d, double t) { return gq_control_spacing(d == GQ_F32, t); }

double gq_coarse_time(const gq_field *f, double t, double h) {
  return f->timed ? gq_control_coarse(f->dtype == GQ_F32, t, h) : 0;
}

/* As far as the state's dtype can tell. */
static bool jumps(const gq_attempt *a, double t) {
  bool single = a->field->dtype == GQ_F32;
  for (int i = 0; i < a->jumps.n; i++)
    if (a->jumps.at[i] == t || (single && (float)a->jumps.at[i] == (float)t)) return true;
  return false;
}

/* The state's dtype can tell it from t. */
static double next(const gq_attempt *a, double t, double dir) {
  return a->field->dtype == GQ_F32 ? nextafterf((float)t, (float)(dir * INFINITY))
                                   : nextafter(t, dir * INFINITY);
}

double gq_attempt_begin(const gq_attempt *a, double t, double dir) {
  return jumps(a, t) ? next(a, t, dir) : t;
}

double gq_attempt_between(const gq_attempt *a, double t, double from, double to) {
  double dir = to < from ? -1 : 1, x = gq_attempt_begin(a, from, dir), y = gq_attempt_begin(a, to, -dir);
  return fmin(fmax(t, fmin(x, y)), fmax(x, y));
}

double gq_attempt_inside(const gq_attempt *a, double t) {
  const gq_jumps *j = &a->jumps;
  return j->bounded ? fmin(fmax(t, fmin(j->t0, j->t1)), fmax(j->t0, j->t1)) : t;
}

double gq_attempt_limit(const gq_attempt *a, double t, double dir) {
  double limit = gq_attempt_inside(a, dir * INFINITY);
  for (int i = 0; i < a->jumps.n; i++) {
    double at = a->jumps.at[i];
    if (dir * (at - t) > 0 && dir * (limit - at) >= 0) limit = next(a, at, -dir);
  }
  return limit;
}

void gq_attempt_times(gq_attempt *a, double t, double h, double t1) {
  double dir = h < 0 ? -1 : 1, from = gq_attempt_begin(a, t, dir), to = gq_attempt_begin(a, t1, -dir);
  gq_stepinput *in = a->shared;
  in->t = from, in->h = h, in->rtol = a->tol.rtol;
  a->limit = gq_attempt_limit(a, t, dir);
  in->ht = gq_control_span(t, t1, h, from, to, a->limit);
}

double gq_attempt_stage(const gq_attempt *a, double c) {
  double t = a->shared->t + c * a->shared->ht;
  return (a->h < 0 ? t < a->limit : t > a->limit) ? a->limit : t;
}

/* ---- norms ---- */

void gq_split_add(const gq_split *s, const gq_field *f, size_t i, double square) {
  s->sum[s->of[gq_field_unpacked_index(f, i) % s->width]] += square;
}

double gq_split_take(const gq_split *s) {
  double top = 0;
  for (int i = 0; i < s->n; i++) {
    if (s->count[i] > 0) top = gq_larger(top, s->sum[i] / s->count[i]);
    s->sum[i] = 0;
  }
  return top;
}

/* As gq_sizes would, for the tensors that the state was packed from. */
static void split_size(const gq_attempt *a, gq_size *s) {
  const gq_field *f = a->field;
  size_t n = gq_numel(f->shape);
  double square, size;
  s->top = 0;
  for (size_t i = 0, at = 0; i < n; i++, at += gq_dtype_size(f->dtype)) {
    f->on->vec->weighted(f->dtype, 1, (const char *)s->x + at,
                         s->minus_ ? (const char *)s->minus_ + at : NULL, (const char *)s->y_ + at, s->atol,
                         s->rtol, &square, &size);
    if (!(size <= s->top)) s->top = size;
    gq_split_add(a->tol.split, f, i, square);
  }
  s->out = n * gq_split_take(a->tol.split);
}

void gq_attempt_sizes(const gq_attempt *a, int count, gq_asked *of) {
  const gq_field *f = a->field;
  size_t n = gq_numel(f->shape);
  gq_size size[GQ_SIZES];
  bool split[GQ_SIZES];
  int some = 0;
  for (int i = 0; i < count; i++) {
    bool norm = of[i].part >= 0;
    gq_size s = { .x = of[i].x, .minus_ = of[i].minus_, .y_ = norm ? of[i].y : NULL, .rtol = a->tol.rtol };
    if (norm) s.atol = a->tol.atol[of[i].part];
    split[i] = norm && a->tol.split;
    if (split[i]) split_size(a, &s), of[i].out = a->tol.max_norm ? s.top : n ? sqrt(s.out / n) : 0;
    else size[some++] = s;
  }
  gq_sizes(f->on->vec, f->dtype, n, some, size);
  for (int i = 0, k = 0; i < count; i++) {
    if (split[i]) continue;
    const gq_size *s = &size[k++];
    of[i].out = of[i].part < 0 ? s->out : a->tol.max_norm ? s->top : n ? sqrt(s->out / n) : 0;
  }
}

double gq_attempt_norm(const gq_attempt *a, const void *x, const void *y, const void *minus_) {
  gq_asked one = { 0, x, y, minus_, 0 };
  gq_attempt_sizes(a, 1, &one);
  return one.out;
}

enum { CHUNK = 64 };

/* n elements of boundary j from `at` on, summed over slices first..last-1. */
static void gathered(const gq_field *f, const gq_grads *g, int j, int first, int last, size_t at, size_t n,
                     double *sum) {
  gq_dtype d = gq_field_boundary_dtype(f, j);
  double x[CHUNK];
  for (size_t i = 0; i < n; i++) sum[i] = 0;
  for (int s = first; s < last; s++) {
    f->on->vec->get(d, n, (const char *)g->at[(size_t)s * f->nb + j] + at * gq_dtype_size(d), 1, x);
    for (size_t i = 0; i < n; i++) sum[i] += x[i];
  }
}

typedef struct tally { /* squares and the largest of all parameters together */
  double sum, top;
  size_t count;
} tally;

static double tally_norm(const gq_attempt *a, const tally *t) {
  return a->tol.max_norm ? t->top : t->count ? sqrt(t->sum / t->count) : 0;
}

static double product_value(const gq_attempt *a, gq_measured what, double g, double dq, double eq) {
  double size = what == GQ_MEASURE_ATTEMPT ? fmax(fabs(g), fabs(g + dq)) : fabs(g);
  double v = what == GQ_MEASURE_ATTEMPT ? eq
             : what == GQ_MEASURE_SIZE  ? g
             : what == GQ_MEASURE_SLOPE ? dq
                                        : eq - dq;
  return fabs(v / (a->tol.products + a->tol.rtol * size));
}

static void product_tally(const gq_attempt *a, gq_measured what, int j, tally *t) {
  const gq_field *f = a->field;
  bool apart = f->nslices > 1 && f->axis[j] >= 0; /* each slice holds its own rows of the gradient */
  for (int s = 0; s < (apart ? f->nslices : 1); s++) {
    size_t n = gq_numel(gq_field_slice_shape(f, s, j));
    int last = apart ? s + 1 : f->nslices;
    for (size_t at = 0, some; at < n; at += some) {
      double g[CHUNK], dq[CHUNK], eq[CHUNK];
      some = n - at < CHUNK ? n - at : CHUNK;
      gathered(f, a->sum.grads, j, s, last, at, some, g);
      gathered(f, &a->sum.dq, j, s, last, at, some, dq), gathered(f, &a->sum.eq, j, s, last, at, some, eq);
      for (size_t i = 0; i < some; i++) {
        double v = product_value(a, what, g[i], dq[i], eq[i]);
        t->sum += v * v;
        if (!(v <= t->top)) t->top = v;
      }
    }
    t->count += n;
  }
}

double gq_attempt_products(const gq_attempt *a, gq_measured what) {
  tally t = { 0 };
  double time = product_value(a, what, *a->sum.time, a->sum.dtime, a->sum.etime);
  for (int r = 0; r < a->st->l.nq; r++)
    if (a->st->of[r] >= 0) product_tally(a, what, a->st->of[r], &t);
  double all = tally_norm(a, &t);
  return gq_larger(time, all);
}

size_t gq_attempt_nonfinite(const gq_attempt *a) {
  const gq_vectors *vec = a->field->on->vec;
  size_t n = gq_numel(a->field->shape), i = 0;
  for (int p = 0; p < a->st->l.parts && !i; p++) {
    i = vec->nonfinite(a->field->dtype, n, a->y1[p]);
    if (!i && a->st->l.carry) i = vec->nonfinite(a->field->dtype, n, a->f1[p]);
  }
  return i ? gq_field_unpacked_index(a->field, i - 1) + 1 : 0;
}
