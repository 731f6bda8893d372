/*
** trail.c -- states of the forward solve kept at chosen places, see trail.h.
*/
#include "solution.h"

#include <math.h>
#include <string.h>

double gq_trail_time(const gq_solution *s, int i, int j) {
  int last = s->trail.points - 1;
  double a = s->t[i], b = s->t[i + 1];
  if (j == 0 || j == last) return j ? b : a;
  return (a + b) / 2 - (b - a) / 2 * cos(M_PI * j / last);
}

void *gq_trail_state(const gq_solution *s, int i, int j) {
  return s->trail.block + ((size_t)i * s->trail.points + j) * s->trail.part;
}

/* Room for `states` of them. */
static int grow(gq_solution *s, size_t states) {
  gq_trail *tr = &s->trail;
  char *block = gq_realloc(tr->block, states * tr->part);
  if (!block) return gq_nomem(states * tr->part);
  tr->block = block;
  return GQ_OK;
}

int gq_trail_init(gq_solution *s) {
  gq_trail *tr = &s->trail;
  tr->part = gq_round64(gq_part_bytes(s->plan->field));
  if (s->o.trajectory == GQ_CHECKPOINT) tr->most = s->o.checkpoints, tr->every = 1;
  if (s->o.trajectory != GQ_INTERPOLATED) return GQ_OK;
  tr->points = s->o.points;
  size_t states = (size_t)(s->nt - 1) * tr->points;
  s->bytes += states * tr->part;
  return grow(s, states + 1);
}

void gq_trail_done(gq_solution *s) {
  gq_free(s->trail.block);
  gq_free(s->trail.step);
}

/* The Chebyshev points that the step passes. */
static int pass_points(gq_solution *s, gq_walk *w, bool *phase1) {
  gq_trail *tr = &s->trail;
  double dir = w->h1 < 0 ? -1 : 1, t;
  while (tr->interval < s->nt - 1 && dir * (w->t1 - (t = gq_trail_time(s, tr->interval, tr->next))) >= 0) {
    void *z = gq_trail_state(s, tr->interval, tr->next);
    if (t == w->t1) {
      memcpy(z, w->y1[0], gq_part_bytes(s->plan->field));
    } else {
      if (!*phase1) GQ_TRY(gq_walk_phase(w, 1));
      *phase1 = true;
      gq_walk_interpolate_all(w, 0, (t - w->t) / w->h1, z);
    }
    if (++tr->next == tr->points) tr->next = 0, tr->interval++;
  }
  return GQ_OK;
}

static char *checkpoint(const gq_trail *tr, int i) { return tr->block + (size_t)i * 2 * tr->part; }

/* One more checkpoint; every other one goes first where there is no room. */
static int keep_checkpoint(gq_solution *s, const gq_walk *w) {
  gq_trail *tr = &s->trail;
  if (tr->n == tr->most) {
    for (int i = 0; 2 * i < tr->n; i++) memmove(checkpoint(tr, i), checkpoint(tr, 2 * i), 2 * tr->part);
    tr->n = (tr->n + 1) / 2, tr->every *= 2;
    if (tr->nsteps % tr->every) return GQ_OK;
  }
  if (tr->n == tr->room) {
    int room = 2 * tr->room < tr->most ? 2 * tr->room + 2 : tr->most;
    if (room > tr->most) room = tr->most;
    GQ_TRY(grow(s, 2 * (size_t)room));
    s->bytes += 2 * (size_t)(room - tr->room) * tr->part;
    tr->room = room;
  }
  char *c = checkpoint(tr, tr->n++);
  memcpy(c, w->y[0], gq_part_bytes(s->plan->field));
  if (w->st->l.carry) memcpy(c + tr->part, w->f[0], gq_part_bytes(s->plan->field));
  return GQ_OK;
}

int gq_trail_step(gq_solution *s, gq_walk *w, bool *phase1) {
  gq_trail *tr = &s->trail;
  if (tr->points) return pass_points(s, w, phase1);
  if (!tr->most) return GQ_OK;
  if (tr->nsteps == tr->steps_room) {
    int64_t room = tr->steps_room ? 2 * tr->steps_room : 64;
    gq_pace *step = gq_realloc(tr->step, room * sizeof *step);
    if (!step) return gq_nomem(room * sizeof *step);
    s->bytes += (room - tr->steps_room) * sizeof *step;
    tr->step = step, tr->steps_room = room;
  }
  if (tr->nsteps % tr->every == 0) GQ_TRY(keep_checkpoint(s, w));
  tr->step[tr->nsteps++] = (gq_pace){ w->t, w->h1 };
  return GQ_OK;
}
