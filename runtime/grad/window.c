/*
** window.c -- see window.h.
*/
#include "window.h"

#include <math.h>
#include <string.h>

#define NEAR 0.1

int gq_window_init(gq_window *q, gq_solution *s, gq_trajectory *path_, const gq_walk *w,
                   gq_nodebuffer *nodes) {
  *q = (gq_window){ .s = s, .path = path_, .w = w, .nodes = nodes, .parts = w->a.st->l.parts };
  q->part = gq_round64(gq_part_bytes(s->plan->field));
  q->z = gq_allocate(s->plan->field->on, 2 * q->part);
  if (!q->z) return gq_nomem(2 * q->part);
  q->a = (char *)q->z + q->part;
  s->bytes += 2 * q->part;
  return GQ_OK;
}

void gq_window_done(gq_window *q) {
  if (!q->s) return;
  const gq_backend *on = q->s->plan->field->on;
  for (int i = 0; i < q->room; i++) gq_release(on, q->step[i].block);
  gq_free(q->step);
  gq_free(q->edge);
  gq_release(on, q->z);
}

/* Room for one more step; blocks serve every interval. */
static int step_room(gq_window *q) {
  size_t bytes = q->parts * (1 + q->w->a.st->m->slopes) * q->part;
  int i = q->first + q->n, room = q->room;
  GQ_TRY(gq_room(&q->step, &q->room, i, sizeof *q->step));
  memset(q->step + room, 0, (q->room - room) * sizeof *q->step);
  if (q->step[i].block) return GQ_OK;
  q->step[i].block = gq_allocate(q->s->plan->field->on, bytes);
  q->s->bytes += bytes;
  return q->step[i].block ? GQ_OK : gq_nomem(bytes);
}

int gq_window_step(gq_window *q) {
  const gq_walk *w = q->w;
  const gq_field *f = q->s->plan->field;
  GQ_TRY(step_room(q));
  struct gq_window_step *r = &q->step[q->first + q->n++];
  r->t = w->a.t, r->h = w->a.h;
  char *to = r->block;
  for (int p = 0; p < q->parts; p++) {
    gq_state_copy(f, to, w->a.y[p]);
    to += q->part;
    gq_walk_slopes(w, p, to, q->part);
    to += w->a.st->m->slopes * q->part;
  }
  return GQ_OK;
}

/* Part p at t, from the step that holds it. */
static void part_at(const gq_window *q, int p, double t, void *dst) {
  const struct gq_window_step *step = q->step + q->first;
  double dir = step->h < 0 ? -1 : 1;
  int low = 0, high = q->n - 1;
  while (low < high) {
    int i = (low + high + 1) / 2;
    if (dir * (t - step[i].t) > 0) low = i;
    else high = i - 1;
  }
  const struct gq_window_step *r = &step[low];
  const char *y = r->block + p * (1 + q->w->a.st->m->slopes) * q->part;
  gq_step_record record = { .t = r->t, .h = r->h };
  gq_step_at(&record, q->w->a.st->m, q->s->plan->field, t, y, y + q->part, q->part, dst);
}

int gq_window_at(gq_window *q, double t) {
  part_at(q, q->parts - 1, t, q->a);
  if (q->path) return gq_trajectory_at(q->path, t, q->z);
  part_at(q, 0, t, q->z);
  return GQ_OK;
}

int gq_window_node(gq_window *q, double t, double weight) {
  if (q->path) GQ_TRY(gq_nodebuffer_path(q->nodes, q->path, t, q->z));
  else part_at(q, 0, t, q->z), gq_nodebuffer_fill(q->nodes, gq_nodebuffer_z, q->z);
  part_at(q, q->parts - 1, t, q->a);
  gq_nodebuffer_fill(q->nodes, gq_nodebuffer_a, q->a);
  return gq_nodebuffer_push(q->nodes, t, weight);
}

/* Step i of a, with its length as gq_trajectory_steps tells those of z. */
static gq_step_record step_of_a(const gq_window *q, int i) {
  const struct gq_window_step *step = q->step + q->first;
  double t = step[i].t;
  while (i + 1 < q->n && fabs(step[i + 1].h) >= GQ_GREW * fabs(step[i].h)) i++;
  double h = fabs(step[i].h);
  if (i > 0) h = fmax(h, fabs(step[i - 1].h));
  if (i + 1 < q->n) h = fmax(h, fabs(step[i + 1].h));
  return (gq_step_record){ .t = t, .h = h };
}

static bool near(const gq_window *q, gq_step_record e) {
  const gq_step_record *last = &q->edge[q->edges];
  return fabs(e.t - last->t) < NEAR * fmin(e.h, last->h);
}

/* The edges of both solves' steps in the interval. Where one of a nearly meets one of z, at which f may jump, that
** of z remains. */
int gq_window_edges(gq_window *q, double from, double to) {
  int nz = q->path ? gq_trajectory_steps(q->path, from, to, NULL, 0) : 0, iz = 0,
      ia = 1; /* the first step of a begins at `from` */
  double dir = from < to ? -1 : 1;
  bool kept = true; /* is the last edge one that remains? */
  GQ_TRY(gq_room(&q->edge, &q->edge_room, 2 * nz + q->n + 1, sizeof *q->edge));
  gq_step_record *z = q->edge + nz + q->n + 2;
  if (nz) gq_trajectory_steps(q->path, from, to, z, nz);
  q->edges = 0;
  q->edge[0] = step_of_a(q, 0);
  q->edge[0].t = from;
  while (iz < nz || ia < q->n) {
    bool is_z = ia == q->n || (iz < nz && dir * (z[iz].t - q->step[q->first + ia].t) >= 0);
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
