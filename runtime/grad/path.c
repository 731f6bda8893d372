/*
** path.c -- z(t) from what the forward solve kept, see path.h. Interpolation: Daulbaev et al. 2020 ("IRDM"),
** in the barycentric form of Berrut & Trefethen 2004, eq. (5.4).
*/
#include "path.h"

#include <math.h>
#include <string.h>

/* ---- segments between checkpoints ---- */

static int64_t first_step(const gq_trail *tr, int segment) { return segment * tr->every; }

/* The carried slope is not that of the step before. */
static int slope_after_jump(gq_path *p, gq_kept *r) {
  gq_solution *s = p->s;
  if (!p->w.st->l.carry) return GQ_OK;
  p->w.nfe++;
  return gq_evaluate_at(&s->plan->f, s->bind, gq_walk_begin(&p->w, r->t, r->h < 0 ? -1 : 1), &r->y, &r->f,
                        NULL, NULL);
}

/* Steps of a segment in order, so that the newest record comes last; the record before the first is NULL. */
static int run_segment(gq_path *p, gq_kept **newest) {
  gq_solution *s = p->s;
  gq_trail *tr = &s->trail;
  gq_walk *w = &p->w;
  const gq_field *f = s->plan->field;
  size_t n = gq_part_bytes(f), row = f->nslices > 1 ? n / f->shape.dim[0] : n;
  int64_t first = first_step(tr, p->segment), end = first_step(tr, p->segment + 1);
  if (end > tr->nsteps) end = tr->nsteps;
  char *c = tr->block + (size_t)p->segment * 2 * tr->part;
  gq_kept *next = NULL;
  *newest = NULL;
  for (int64_t i = first; i < end; i++) {
    gq_kept *r = next;
    next = NULL;
    if (!r) GQ_TRY(gq_kept_get(s->plan, true, false, &s->bytes, &r));
    r->before = *newest, *newest = r;
    if (i == first) memcpy(r->y, c, n), memcpy(r->f, c + tr->part, n);
    w->y1[0] = p->block, w->f1[0] = (char *)p->block + tr->part;
    if (i + 1 < end) {
      GQ_TRY(gq_kept_get(s->plan, true, false, &s->bytes, &next));
      w->y1[0] = next->y, w->f1[0] = next->f;
    }
    r->t = tr->step[i].t, r->h = tr->step[i].h;
    w->y[0] = r->y, w->f[0] = r->f, w->t = r->t, w->h1 = r->h;
    gq_walk_times(w, r->t, r->h, i + 1 < tr->nsteps ? tr->step[i + 1].t : s->t[s->nt - 1]);
    int status = i > first && gq_at_jump(s, r->t) ? slope_after_jump(p, r) : GQ_OK;
    if (status == GQ_OK) status = gq_walk_phase(w, 0);
    w->nfe += w->st->l.nfe;
    if (status == GQ_OK && w->st->l.nfe_dense) status = gq_walk_phase(w, 1);
    if (status == GQ_OK && gq_interrupted())
      status = gq_fail(GQ_EINTERRUPT, "interrupted in the backward pass at t = %.9g", r->t);
    if (status != GQ_OK) {
      gq_kept_give_back(s->plan, next);
      return status;
    }
    for (int j = 0; j < w->st->m->slopes; j++)
      for (int sl = 0; sl < f->nslices; sl++)
        memcpy((char *)r->slope[j] + (f->nslices > 1 ? f->first[sl] * row : 0), gq_walk_slope(w, j, 0, sl),
               f->nslices > 1 ? f->count[sl] * row : n);
  }
  return GQ_OK;
}

static size_t record_bytes(const gq_path *p) { return (2 + p->w.st->m->slopes) * p->s->trail.part; }

/* The segment before those that are there. */
static int load_segment(gq_path *p) {
  gq_kept *newest;
  p->segment--;
  int status = run_segment(p, &newest);
  if (status != GQ_OK) {
    gq_kept_give_back(p->s->plan, newest);
    return status;
  }
  if (p->s->bytes > p->s->info.peak_bytes) p->s->info.peak_bytes = p->s->bytes;
  if (p->tail) p->tail->before = newest;
  else p->head = p->near = newest;
  for (p->tail = newest; p->tail->before;) p->tail = p->tail->before;
  return GQ_OK;
}

/* ---- all of them ---- */

int gq_path_init(gq_path *p, gq_solution *s) {
  *p = (gq_path){ .s = s };
  if (s->o.trajectory == GQ_DENSE) p->near = s->records->before;
  if (s->o.trajectory != GQ_CHECKPOINT) return GQ_OK;
  gq_walk *w = &p->w;
  size_t arena = gq_code_arena(&s->plan->forward.code) + 64;
  w->o = &s->o, w->rtol = s->o.rtol, w->atol[0] = s->o.atol;
  w->jumps = s->jumps, w->njumps = s->njumps, w->margin = s->margin;
  GQ_TRY(gq_walk_init(w, s->plan, &s->plan->forward, s->bind));
  p->block = gq_alloc(2 * s->trail.part);
  bool ok = p->block != NULL;
  for (int i = 0; ok && i < s->plan->field->nslices; i++) ok = (p->arena[i] = gq_alloc(arena)) != NULL;
  if (!ok) return gq_nomem(2 * s->trail.part + arena * s->plan->field->nslices);
  s->bytes += 2 * s->trail.part + arena * s->plan->field->nslices;
  w->arena = p->arena; /* the plan's own holds the slopes of the backward step */
  p->segment = s->trail.n;
  return load_segment(p);
}

void gq_path_done(gq_path *p) {
  if (!p->s) return;
  if (p->head) gq_kept_give_back(p->s->plan, p->head);
  gq_walk_done(&p->w);
  gq_free(p->block);
  for (int i = 0; i < GQ_MAXSLICES; i++) gq_free(p->arena[i]);
}

/* The record whose step holds t. */
static int record_at(gq_path *p, double t, gq_kept **out) {
  gq_kept *r = p->near;
  double dir = r->h < 0 ? -1 : 1;
  while (dir * (t - r->t) < 0) {
    if (!r->before && p->head && p->segment > 0) GQ_TRY(load_segment(p));
    if (!r->before) break;
    r = r->before;
  }
  *out = r;
  return GQ_OK;
}

int gq_path_leave(gq_path *p, double t) {
  if (!p->near) return GQ_OK;
  GQ_TRY(record_at(p, t, &p->near));
  gq_kept *r = p->head;
  if (!r || r == p->near) return GQ_OK;
  p->s->bytes -= record_bytes(p);
  while (r->before != p->near) r = r->before, p->s->bytes -= record_bytes(p);
  r->before = NULL;
  gq_kept_give_back(p->s->plan, p->head);
  p->head = p->near;
  return GQ_OK;
}

/* sum_j w_j z_j / (t - t_j) over sum_j w_j / (t - t_j), w_j = (-1)^j, half of it at the ends */
static void interpolate(const gq_solution *s, double t, void *dst) {
  int i = s->nt - 2, last = s->trail.points - 1;
  double dir = s->t[s->nt - 1] < s->t[0] ? -1 : 1, sum = 0;
  while (i > 0 && (dir * (t - s->t[i]) < 0 || s->t[i] == s->t[i + 1])) i--;
  while (i < s->nt - 2 && s->t[i] == s->t[i + 1]) i++; /* beyond a first time that is given twice */
  for (int j = 0; j <= last; j++) {
    double off = t - gq_trail_time(s, i, j);
    if (off == 0) {
      memcpy(dst, gq_trail_state(s, i, j), gq_part_bytes(s->plan->field));
      return;
    }
    sum += (j % 2 ? -1 : 1) * (j == 0 || j == last ? 0.5 : 1) / off;
  }
  memset(dst, 0, gq_part_bytes(s->plan->field));
  for (int j = 0; j <= last; j++)
    gq_axpy(s->z->dtype, gq_numel(s->z0->shape),
            (j % 2 ? -1 : 1) * (j == 0 || j == last ? 0.5 : 1) / (t - gq_trail_time(s, i, j)) / sum,
            gq_trail_state(s, i, j), dst);
}

int gq_path_at(gq_path *p, double t, void *dst) {
  gq_solution *s = p->s;
  if (s->o.trajectory == GQ_INTERPOLATED) {
    interpolate(s, t, dst);
    return GQ_OK;
  }
  gq_kept *r;
  GQ_TRY(record_at(p, t, &r));
  const gq_tableau *m = s->plan->forward.m;
  double wt[GQ_MAXSTAGES];
  gq_tableau_weights(m, (t - r->t) / r->h, wt);
  memcpy(dst, r->y, gq_part_bytes(s->plan->field));
  for (int i = 0; i < m->slopes; i++)
    if (wt[i] != 0) gq_axpy(s->z->dtype, gq_numel(s->z0->shape), r->h * wt[i], r->slope[i], dst);
  return GQ_OK;
}

typedef struct lister {
  double from, to, later, length; /* later: size of the step after; length: as told of that */
  gq_pace *step;
  int room, n;
} lister;

/* The steps come last first; false: the rest is before `to`. */
static bool list_step(lister *l, double t, double h, double before) {
  double dir = l->from < l->to ? -1 : 1;
  if (l->later < GQ_GREW * fabs(h)) l->length = fmax(fabs(h), fmax(fabs(before), l->later));
  l->later = fabs(h);
  if (dir * (t - l->to) <= 0) return false;
  if (dir * (l->from - t) <= 0) return true;
  if (l->n < l->room) l->step[l->n] = (gq_pace){ t, l->length };
  l->n++;
  return true;
}

int gq_path_steps(const gq_path *p, double from, double to, gq_pace *step, int room) {
  const gq_trail *tr = &p->s->trail;
  lister l = { from, to, 0, 0, step, room, 0 };
  if (p->s->o.trajectory == GQ_CHECKPOINT) {
    for (int64_t i = tr->nsteps - 1; i >= 0; i--)
      if (!list_step(&l, tr->step[i].t, tr->step[i].h, i > 0 ? tr->step[i - 1].h : 0)) break;
  } else {
    for (const gq_kept *r = p->near; r; r = r->before)
      if (!list_step(&l, r->t, r->h, r->before ? r->before->h : 0)) break;
  }
  return l.n;
}

static double number(const gq_solution *s, int i, int j, size_t k) {
  const void *z = gq_trail_state(s, i, j);
  return s->z->dtype == GQ_F32 ? ((const float *)z)[k] : ((const double *)z)[k];
}

double gq_path_error(const gq_path *p, double rtol, double atol) {
  const gq_solution *s = p->s;
  size_t n = gq_numel(s->z0->shape);
  int last = s->trail.points - 1;
  double top = 0;
  for (int i = 0; s->o.trajectory == GQ_INTERPOLATED && i < s->nt - 1; i++) {
    if (s->t[i] == s->t[i + 1]) continue;
    double squares = 0;
    for (size_t k = 0; k < n; k++) {
      double a = 0, b = 0, size = 0;
      for (int j = 0; j <= last; j++) {
        double z = number(s, i, j, k), half = j == 0 || j == last ? 0.5 : 1;
        a += (j % 2 ? -1 : 1) * half * z / last;
        b += 2 * cos(M_PI * j * (last - 1) / last) * half * z / last;
        size = fmax(size, fabs(z));
      }
      double e = fmax(fabs(a), 0.1 * fabs(b)) / (atol + rtol * size);
      squares += e * e;
    }
    top = fmax(top, sqrt(squares / n));
  }
  return top;
}
