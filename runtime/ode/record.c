/*
** record.c -- what is kept of accepted steps; states are reused from solve to solve.
*/
#include "plan.h"

#include <string.h>

/* ---- steps ---- */

/* The block that holds step i, which is number *at of it. */
static int block_of(const gq_steps *s, int64_t i, int64_t *at_) {
  int b = 0;
  int64_t first = 0, end = s->least ? s->least : 64;
  for (; i >= end; b++) first = end, end *= 2;
  if (at_) *at_ = i - first;
  return b;
}

char *gq_steps_data(const gq_steps *s, int64_t i) {
  int64_t at;
  int b = block_of(s, i, &at);
  return s->data[b] + at * s->each;
}

int gq_steps_room(gq_steps *s, int64_t n, bool states, size_t *bytes_) {
  int64_t room = s->room ? 2 * s->room : s->least ? s->least : 64;
  if (n <= s->room) return GQ_OK;
  if (room < n && !s->each) room = n; /* data are added one by one */
  size_t head = gq_steps_head(s);
  char *step = gq_realloc(s->step, room * head);
  if (step) s->step = step;
  char *data = s->each ? gq_allocate(s->on, (room - s->room) * s->each + 64) : NULL;
  if (data) s->data[block_of(s, s->room, NULL)] = data;
  gq_step_state **state = states ? gq_realloc(s->state, room * sizeof *state) : NULL;
  if (state) s->state = state;
  if (!step || (s->each && !data) || (states && !state)) return gq_nomem(room * (s->each + head));
  if (states) memset(state + s->room, 0, (room - s->room) * sizeof *state);
  if (bytes_) *bytes_ += (room - s->room) * (head + s->each);
  s->room = room;
  return GQ_OK;
}

int gq_steps_add(gq_steps *s, gq_step_record r, size_t *bytes) {
  GQ_TRY(gq_steps_room(s, s->n + 1, false, bytes));
  gq_step_put(s, s->n++, r);
  return GQ_OK;
}

void gq_steps_done(gq_steps *s) {
  gq_free(s->step);
  gq_free(s->state);
  for (int b = 0; b < GQ_STEPS_BLOCKS && s->data[b]; b++) gq_release(s->on, s->data[b]);
  *s = (gq_steps){ 0 };
}

/* ---- states ---- */

static int slopes(const gq_plan *p, unsigned keeps) {
  return keeps & GQ_STEP_SLOPES ? p->forward.m->slopes : 0;
}

static size_t arena(const gq_plan *p, unsigned keeps) {
  return keeps & GQ_STEP_ACTIVATIONS ? gq_code_lasting(&p->forward.code) + 64 : 0;
}

static size_t noise(const gq_plan *p, unsigned keeps) {
  return keeps & GQ_STEP_NOISE ? gq_round64(gq_along_bytes(p->field)) : 0;
}

/* What has a size of its own. */
static size_t beside(const gq_plan *p, unsigned keeps) {
  size_t n = noise(p, keeps);
  for (int e = 0; e < p->forward.l.extra; e++) n += gq_round64(gq_extra_bytes(p->field, e));
  return n;
}

size_t gq_step_state_bytes(const gq_plan *p, unsigned keeps) {
  return (2 + slopes(p, keeps)) * gq_round64(gq_part_bytes(p->field)) + beside(p, keeps) +
         p->field->nslices * arena(p, keeps);
}

/* Activations, of which there may be much, are blocks of their own. */
static int state_new(const gq_plan *p, unsigned keeps, gq_step_state **out) {
  int n = p->field->nslices;
  size_t part = gq_round64(gq_part_bytes(p->field)), head = sizeof **out + (n + 1) * sizeof(void *),
         whole = (2 + slopes(p, keeps)) * part;
  gq_step_state *r = gq_calloc(1, head);
  bool ok = r && (r->y = gq_allocate(p->field->on, whole + beside(p, keeps) + 64));
  if (ok) {
    r->on = p->field->on, r->part = part, r->f = (char *)r->y + part;
    if (slopes(p, keeps)) r->slope = (char *)r->f + part;
    char *next = (char *)r->y + whole;
    for (int e = 0; e < p->forward.l.extra; e++)
      r->x[e] = next, next += gq_round64(gq_extra_bytes(p->field, e));
    if (noise(p, keeps)) r->w = next;
    if (arena(p, keeps)) r->arena = (void **)(r + 1);
  }
  for (int s = 0; ok && r->arena && s < n; s++)
    ok = (r->arena[s] = gq_allocate(p->field->on, arena(p, keeps))) != NULL;
  if (ok) *out = r;
  else gq_step_state_free(r);
  return ok ? GQ_OK : gq_nomem(gq_step_state_bytes(p, keeps));
}

void gq_step_state_free(gq_step_state *r) {
  while (r) {
    gq_step_state *next = r->next;
    for (int s = 0; r->arena && r->arena[s]; s++) gq_release(r->on, r->arena[s]);
    if (r->y) gq_release(r->on, r->y);
    gq_free(r);
    r = next;
  }
}

int gq_step_state_get(gq_plan *p, unsigned keeps, size_t *bytes, gq_step_state **out) {
  if (!p->spare) {
    GQ_TRY(state_new(p, keeps, out));
  } else {
    *out = p->spare; /* a plan's states are all of one kind */
    p->spare = p->spare->next;
    p->nspare--;
    (*out)->next = NULL;
  }
  *bytes += gq_step_state_bytes(p, keeps);
  return GQ_OK;
}

/* As many are spare as one solve needs: a collector that frees many solves at once would otherwise turn all of
** their states into spare memory, and count that as alive. */
static void state_put(gq_plan *p, gq_step_state *r) {
  if (p->nspare < p->most) r->next = p->spare, p->spare = r, p->nspare++;
  else gq_step_state_free(r);
}

void gq_steps_give_back(gq_steps *s, gq_plan *p, int64_t from, int64_t to) {
  int n = 0;
  if (!s->state) return;
  if (to > s->room) to = s->room;
  for (int64_t i = from; i < to; i++) n += s->state[i] != NULL;
  if (n > p->most) p->most = n;
  for (int64_t i = from; i < to; i++)
    if (s->state[i]) state_put(p, s->state[i]), s->state[i] = NULL;
}

/* ---- the interpolant ---- */

/* dst = y_ + scale sum_i w_i slope_i */
static void add_slopes(const gq_tableau *m, const gq_field *f, const void *y_, double scale, double *w,
                       const char *slope, size_t part, void *dst) {
  void *at[2 + GQ_MAXSTAGES] = { dst, (void *)(uintptr_t)y_ };
  size_t n = gq_numel(f->shape);
  for (int i = 0; i < m->slopes; i++) w[i] *= scale, at[2 + i] = (char *)(uintptr_t)slope + i * part;
  f->on->vec->combine(f->dtype, 1, &n, m->slopes, w, at);
}

void gq_step_at(const gq_step_record *r, const gq_tableau *m, const gq_field *f, double t, const void *y,
                const char *slope, size_t part, void *dst) {
  double wt[GQ_MAXSTAGES];
  gq_tableau_weights(m, (t - r->t) / r->h, wt);
  add_slopes(m, f, y, r->h, wt, slope, part, dst);
}

void gq_step_slope_at(const gq_step_record *r, const gq_tableau *m, const gq_field *f, double t,
                      const char *slope, size_t part, void *dst) {
  double wt[GQ_MAXSTAGES];
  gq_tableau_slopes(m, (t - r->t) / r->h, wt);
  add_slopes(m, f, NULL, 1, wt, slope, part, dst);
}
