/*
** interpolated.c -- trajectory "interpolated": states at the Chebyshev points of every measurement interval.
** Daulbaev et al. 2020 ("IRDM"), in the barycentric form of Berrut & Trefethen 2004, eq. (5.4).
*/
#include "trajectory.h"

#include <math.h>
#include <string.h>

typedef struct points {
  size_t part;        /* bytes of a state in block */
  char *block;        /* [nt - 1][count] */
  int count;          /* of an interval, ends included */
  int interval, next; /* the point that comes next */
} points;

/* Time and state of point j of the interval from t[i] to t[i + 1]. */
static double time_of(const gq_solution *s, const points *c, int i, int j) {
  int last = c->count - 1;
  double a = s->t[i], b = s->t[i + 1];
  if (j == 0 || j == last) return j ? b : a;
  return (a + b) / 2 - (b - a) / 2 * cos(M_PI * j / last);
}

static void *state_of(const points *c, int i, int j) {
  return c->block + ((size_t)i * c->count + j) * c->part;
}

/* ---- forward ---- */

static int init(gq_solution *s) {
  points *c = s->trajectory = gq_calloc(1, sizeof *c);
  if (!c) return gq_nomem(sizeof *c);
  c->part = gq_round64(gq_part_bytes(s->plan->field)), c->count = s->o.points;
  size_t bytes = (size_t)(s->nt - 1) * c->count * c->part;
  c->block = gq_allocate(s->plan->field->on, bytes + c->part);
  s->bytes += bytes;
  return c->block ? GQ_OK : gq_nomem(bytes);
}

static void done(gq_solution *s) {
  points *c = s->trajectory;
  if (c) gq_release(s->plan->field->on, c->block);
  gq_free(c);
}

/* The points that the step passes. */
static int step(gq_solution *s, gq_walk *w, bool *phase1) {
  points *c = s->trajectory;
  double dir = w->a.h < 0 ? -1 : 1, t;
  while (c->interval < s->nt - 1 && dir * (w->a.t1 - (t = time_of(s, c, c->interval, c->next))) >= 0) {
    void *z = state_of(c, c->interval, c->next);
    if (t == w->a.t1) {
      gq_state_copy(s->plan->field, z, w->a.y1[0]);
    } else {
      if (!*phase1) GQ_TRY(gq_walk_phase(w, 1));
      *phase1 = true;
      gq_walk_interpolate_all(w, 0, (t - w->a.t) / w->a.h, z);
    }
    if (++c->next == c->count) c->next = 0, c->interval++;
  }
  return GQ_OK;
}

/* ---- backward ---- */

/* Of the barycentric form: (-1)^j, half of it at the ends. */
static double weight(const points *c, int j) {
  return (j % 2 ? -1 : 1) * (j == 0 || j == c->count - 1 ? 0.5 : 1);
}

/* sum_j w_j z_j / (t - t_j) over sum_j w_j / (t - t_j) */
static int at(gq_trajectory *p, double t, void *dst) {
  const gq_solution *s = p->s;
  const points *c = s->trajectory;
  const gq_backend *on = s->plan->field->on;
  int i = s->nt - 2;
  double dir = s->t[s->nt - 1] < s->t[0] ? -1 : 1, sum = 0;
  while (i > 0 && (dir * (t - s->t[i]) < 0 || s->t[i] == s->t[i + 1])) i--;
  while (i < s->nt - 2 && s->t[i] == s->t[i + 1]) i++; /* beyond a first time that is given twice */
  for (int j = 0; j < c->count; j++) {
    double off = t - time_of(s, c, i, j);
    if (off == 0) {
      gq_state_copy(s->plan->field, dst, state_of(c, i, j));
      return GQ_OK;
    }
    sum += weight(c, j) / off;
  }
  gq_state_clear(s->plan->field, dst);
  for (int j = 0; j < c->count; j++)
    on->vec->axpy(s->z->dtype, gq_numel(s->z0->shape), weight(c, j) / (t - time_of(s, c, i, j)) / sum,
                  state_of(c, i, j), dst);
  return GQ_OK;
}

static double number(const gq_solution *s, const char *z, size_t k) {
  double x;
  s->plan->field->on->vec->get(s->z->dtype, 1, z + k * gq_dtype_size(s->z->dtype), 1, &x);
  return x;
}

/* The last Chebyshev coefficient of an interval (a tenth of that before, where it is more): what the next, left out,
** are less than. */
static double error(const gq_trajectory *p) {
  const gq_solution *s = p->s;
  const points *c = s->trajectory;
  size_t n = gq_numel(s->z0->shape);
  int last = c->count - 1;
  double top = 0;
  for (int i = 0; i < s->nt - 1; i++) {
    if (s->t[i] == s->t[i + 1]) continue;
    double squares = 0;
    for (size_t k = 0; k < n; k++) {
      double a = 0, b = 0, size = 0;
      for (int j = 0; j <= last; j++) {
        double z = number(s, state_of(c, i, j), k), half = j == 0 || j == last ? 0.5 : 1;
        a += (j % 2 ? -1 : 1) * half * z / last;
        b += 2 * cos(M_PI * j * (last - 1) / last) * half * z / last;
        size = fmax(size, fabs(z));
      }
      double e = fmax(fabs(a), 0.1 * fabs(b)) / (s->o.back_atol + s->o.back_rtol * size);
      squares += e * e;
    }
    top = fmax(top, sqrt(squares / n));
  }
  return top;
}

const gq_trajectory_kind gq_trajectory_interpolated = {
  .name = "interpolated", .ahead = true, .init = init, .step = step, .done = done, .at = at, .error = error
};
