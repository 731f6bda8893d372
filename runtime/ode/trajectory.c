/*
** trajectory.c -- what trajectories have in common, and the plainest rows: z solved again (reverse), and the states and
** slopes of every step are kept (dense).
*/
#include "trajectory.h"

#include <math.h>
#include <string.h>

const gq_trajectory_kind gq_trajectory_reverse = { .name = "reverse" };

int gq_trajectory_begin(gq_trajectory *p, gq_solution *s) {
  *p = (gq_trajectory){ .s = s };
  return s->o.trajectory->begin ? s->o.trajectory->begin(p) : GQ_OK;
}

void gq_trajectory_end(gq_trajectory *p) {
  if (p->s && p->s->o.trajectory->end) p->s->o.trajectory->end(p);
}

int gq_trajectory_at(gq_trajectory *p, double t, void *dst) { return p->s->o.trajectory->at(p, t, dst); }

int gq_trajectory_leave(gq_trajectory *p, double t) {
  return p->s->o.trajectory->leave ? p->s->o.trajectory->leave(p, t) : GQ_OK;
}

int gq_trajectory_steps(const gq_trajectory *p, double from, double to, gq_step_record *step, int room) {
  return p->s->o.trajectory->steps ? p->s->o.trajectory->steps(p, from, to, step, room) : 0;
}

double gq_trajectory_error(const gq_trajectory *p) {
  return p->s->o.trajectory->error ? p->s->o.trajectory->error(p) : 0;
}

/* ---- steps ---- */

int gq_trajectory_find(gq_trajectory *p, double t, int (*load)(gq_trajectory *p), int64_t *out) {
  const gq_steps *st = &p->s->steps;
  double dir = gq_step(st, p->near).h < 0 ? -1 : 1;
  for (int64_t high = p->near;; high--) {
    int64_t low = p->first; /* the last of those that are there which does not begin after t */
    while (low < high) {
      int64_t middle = low + (high - low + 1) / 2;
      if (dir * (t - gq_step(st, middle).t) < 0) high = middle - 1;
      else low = middle;
    }
    *out = high;
    if (!load || high == 0 || dir * (t - gq_step(st, high).t) >= 0) return GQ_OK;
    GQ_TRY(load(p));
  }
}

void gq_trajectory_read(const gq_trajectory *p, int64_t i, double t, void *dst) {
  const gq_plan *plan = p->s->plan;
  const gq_step_state *z = p->s->steps.state[i];
  const gq_step_record r = gq_step(&p->s->steps, i);
  gq_step_at(&r, plan->forward.m, plan->field, t, z->y, z->slope, z->part, dst);
}

void gq_trajectory_slope(const gq_trajectory *p, double t, void *dst, double *h) {
  const gq_plan *plan = p->s->plan;
  gq_trajectory q = *p;
  int64_t i;
  gq_trajectory_find(&q, t, NULL, &i);
  const gq_step_state *z = p->s->steps.state[i];
  const gq_step_record r = gq_step(&p->s->steps, i);
  gq_step_slope_at(&r, plan->forward.m, plan->field, t, z->slope, z->part, dst);
  *h = r.h;
}

typedef struct lister {
  double from, to, later, length; /* later: size of the step after; length: as told of that */
  gq_step_record *step;
  int room, n;
} lister;

/* The steps come last first; false: the rest is before `to`. */
static bool list_step(lister *l, double t, double h, double before) {
  double dir = l->from < l->to ? -1 : 1;
  if (l->later < GQ_GREW * fabs(h)) l->length = fmax(fabs(h), fmax(fabs(before), l->later));
  l->later = fabs(h);
  if (dir * (t - l->to) <= 0) return false;
  if (dir * (l->from - t) <= 0) return true;
  if (l->n < l->room) l->step[l->n] = (gq_step_record){ .t = t, .h = l->length };
  l->n++;
  return true;
}

int gq_trajectory_list(const gq_trajectory *p, int64_t i, double from, double to, gq_step_record *step,
                       int room) {
  const gq_steps *st = &p->s->steps;
  lister l = { from, to, 0, 0, step, room, 0 };
  for (; i >= 0; i--) {
    gq_step_record r = gq_step(st, i);
    if (!list_step(&l, r.t, r.h, i > 0 ? gq_step(st, i - 1).h : 0)) break;
  }
  return l.n;
}

/* ---- for a device ---- */

static uint64_t address(const void *p) { return (uint64_t)(uintptr_t)p; }

int gq_trajectory_trail(const gq_solution *s, const gq_tableau *m, bool sees, gq_trail *r, void **block) {
  const gq_field *f = s->plan->field;
  const gq_tableau *of = s->plan->forward.m;
  const gq_steps *st = &s->steps;
  int64_t n = sees ? st->n : 0;
  size_t weights = (size_t)of->slopes * of->dense_degree, steps = n * sizeof(gq_trail_step);
  size_t bytes = steps + (weights + m->slopes) * sizeof(double);
  gq_trail_step *step = gq_alloc(bytes);
  *block = gq_allocate(f->on, bytes);
  if (!step || !*block) {
    gq_free(step);
    return gq_nomem(bytes);
  }
  double *weight = (double *)(step + n), *time = weight + weights;
  *r = (gq_trail){ .step = address(*block),
                   .weight = address(*block) + steps,
                   .time = address(*block) + steps + weights * sizeof *weight,
                   .slopes = of->slopes,
                   .degree = of->dense_degree,
                   .sees = sees };
  for (int64_t i = 0; i < n; i++) {
    const gq_step_record one = gq_step(st, i);
    const gq_step_state *z = st->state[i];
    step[i] = (gq_trail_step){ one.t, one.h, address(z->y), address(z->slope) };
    r->apart = z->part;
  }
  memcpy(weight, of->d, weights * sizeof *weight);
  for (int i = 0; i < m->slopes; i++)
    if (gq_tableau_twin(m, i) == i) time[r->times++] = gq_tableau_time(m, i);
  gq_copy(f->on, *block, step, bytes);
  gq_free(step);
  return gq_pending();
}

/* ---- dense ---- */

static int begin(gq_trajectory *p) {
  p->near = p->last = p->s->steps.n - 1;
  return GQ_OK;
}

static int at(gq_trajectory *p, double t, void *dst) {
  int64_t i;
  GQ_TRY(gq_trajectory_find(p, t, NULL, &i));
  gq_trajectory_read(p, i, t, dst);
  return GQ_OK;
}

static int leave(gq_trajectory *p, double t) { return gq_trajectory_find(p, t, NULL, &p->near); }

static int steps(const gq_trajectory *p, double from, double to, gq_step_record *step, int room) {
  return gq_trajectory_list(p, p->near, from, to, step, room);
}

const gq_trajectory_kind gq_trajectory_dense = { .name = "dense",
                                                 .keeps = GQ_STEP_STATES | GQ_STEP_SLOPES,
                                                 .begin = begin,
                                                 .at = at,
                                                 .leave = leave,
                                                 .steps = steps };
