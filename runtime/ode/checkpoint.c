/*
** checkpoint.c -- trajectory "checkpoint": the state and the slope at every m-th step and all steps' times; the steps
** between two checkpoints are run again when they are reached.
*/
#include "trajectory.h"

#include <string.h>

typedef struct checkpoints {
  size_t part;       /* bytes of a state in block */
  char *block;       /* [n] y, then f */
  int most, room, n; /* how many there may be, fit, and are */
  int64_t every;     /* steps from one to the next: doubled when there are too many */
} checkpoints;

static char *place(const checkpoints *c, int i) { return c->block + (size_t)i * 2 * c->part; }

/* ---- forward ---- */

static int init(gq_solution *s) {
  checkpoints *c = s->trajectory = gq_calloc(1, sizeof *c);
  if (!c) return gq_nomem(sizeof *c);
  *c =
    (checkpoints){ .part = gq_round64(gq_part_bytes(s->plan->field)), .most = s->o.checkpoints, .every = 1 };
  return GQ_OK;
}

static void done(gq_solution *s) {
  checkpoints *c = s->trajectory;
  if (c) gq_release(s->plan->field->on, c->block);
  gq_free(c);
}

static int grow(gq_solution *s, checkpoints *c) {
  int room = 2 * c->room < c->most ? 2 * c->room + 2 : c->most;
  if (room > c->most) room = c->most;
  const gq_backend *on = s->plan->field->on;
  char *block = gq_allocate(on, 2 * (size_t)room * c->part);
  if (!block) return gq_nomem(2 * (size_t)room * c->part);
  if (c->n) gq_copy(on, block, c->block, 2 * (size_t)c->n * c->part);
  gq_release(on, c->block);
  s->bytes += 2 * (size_t)(room - c->room) * c->part;
  c->block = block, c->room = room;
  return GQ_OK;
}

/* One more checkpoint; every other one goes first where there is no room. */
static int step(gq_solution *s, gq_walk *w, bool *phase1) {
  checkpoints *c = s->trajectory;
  const gq_backend *on = s->plan->field->on;
  if (s->steps.n % c->every) return GQ_OK;
  if (c->n == c->most) {
    for (int i = 1; 2 * i < c->n; i++) gq_copy(on, place(c, i), place(c, 2 * i), 2 * c->part);
    c->n = (c->n + 1) / 2, c->every *= 2;
    if (s->steps.n % c->every) return GQ_OK;
  }
  if (c->n == c->room) GQ_TRY(grow(s, c));
  char *at = place(c, c->n++);
  gq_state_copy(s->plan->field, at, w->a.y[0]);
  if (w->a.st->l.carry) gq_state_copy(s->plan->field, at + c->part, w->a.f[0]);
  return GQ_OK;
}

/* ---- backward ---- */

typedef struct rerun {
  gq_walk w;
  void *block; /* the end of a segment */
  void **arena;
} rerun;

enum { KEEPS = GQ_STEP_STATES | GQ_STEP_SLOPES };

/* Step i from its state, which is there, to that of the next or, at the end of a segment, into the block. */
static int run_step(gq_trajectory *p, int64_t i, gq_step_state *next_) {
  gq_solution *s = p->s;
  const gq_step_record r = gq_step(&s->steps, i);
  gq_step_state *z = s->steps.state[i];
  rerun *again = p->own;
  gq_walk *w = &again->w;
  w->a.y1[0] = next_ ? next_->y : again->block;
  w->a.f1[0] = next_ ? next_->f : (char *)again->block + z->part;
  w->a.y[0] = z->y, w->a.f[0] = z->f, w->a.t = r.t, w->a.h = r.h;
  gq_attempt_times(&w->a, r.t, r.h, i + 1 < s->steps.n ? gq_step(&s->steps, i + 1).t : s->t[s->nt - 1]);
  GQ_TRY(gq_walk_phase(w, 0));
  w->a.cost.nfe += w->a.st->l.nfe;
  if (w->a.st->l.nfe_dense) GQ_TRY(gq_walk_phase(w, 1));
  if (gq_interrupted()) return gq_interrupted_back(r.t);
  gq_walk_slopes(w, 0, z->slope, z->part);
  return GQ_OK;
}

/* The carried slope is not that of the step before. */
static int slope_after_jump(gq_trajectory *p, gq_step_record r, gq_step_state *z) {
  gq_walk *w = &((rerun *)p->own)->w;
  if (!w->a.st->l.carry) return GQ_OK;
  w->a.cost.nfe++;
  return gq_evaluate_at(&p->s->plan->f, p->s->bind, gq_attempt_begin(&w->a, r.t, r.h < 0 ? -1 : 1), &z->y,
                        &z->f, NULL, NULL);
}

/* The segment before those that are there. */
static int run_segment(gq_trajectory *p, int64_t first, int64_t end) {
  gq_solution *s = p->s;
  const checkpoints *c = s->trajectory;
  gq_step_state **z = s->steps.state;
  size_t n = gq_part_bytes(s->plan->field);
  const char *from = place(c, (int)(first / c->every));
  GQ_TRY(gq_step_state_get(s->plan, KEEPS, &s->bytes, &z[first]));
  gq_copy(s->plan->field->on, z[first]->y, from, n),
    gq_copy(s->plan->field->on, z[first]->f, from + c->part, n);
  for (int64_t i = first; i < end; i++) {
    if (i + 1 < end) GQ_TRY(gq_step_state_get(s->plan, KEEPS, &s->bytes, &z[i + 1]));
    gq_step_record r = gq_step(&s->steps, i);
    if (i > first && gq_at_jump(s, r.t)) GQ_TRY(slope_after_jump(p, r, z[i]));
    GQ_TRY(run_step(p, i, i + 1 < end ? z[i + 1] : NULL));
  }
  return GQ_OK;
}

static int load(gq_trajectory *p) {
  gq_solution *s = p->s;
  int64_t every = ((checkpoints *)s->trajectory)->every, end = p->first;
  p->first = (end - 1) / every * every;
  int status = run_segment(p, p->first, end);
  p->nfe = ((rerun *)p->own)->w.a.cost.nfe;
  if (s->bytes > s->info.peak_bytes) s->info.peak_bytes = s->bytes;
  return status;
}

static int begin(gq_trajectory *p) {
  gq_solution *s = p->s;
  rerun *again = p->own = gq_calloc(1, sizeof *again);
  if (!again) return gq_nomem(sizeof *again);
  gq_walk *w = &again->w;
  size_t part = gq_round64(gq_part_bytes(s->plan->field)), arena = gq_code_arena(&s->plan->forward.code) + 64;
  w->a.tol.rtol = s->o.rtol, w->a.tol.atol[0] = s->o.atol;
  w->a.jumps = gq_solution_jumps(s);
  GQ_TRY(gq_walk_init(w, &s->plan->forward, s->bind, s->plan->arena));
  again->block = gq_allocate(s->plan->field->on, 2 * part);
  again->arena = gq_arenas_new(s->plan->field, arena - 64);
  if (!again->block || !again->arena) return gq_nomem(2 * part + arena * s->plan->field->nslices);
  s->bytes += 2 * part + arena * s->plan->field->nslices;
  if (!s->steps.state) s->steps.state = gq_calloc(s->steps.room, sizeof *s->steps.state);
  if (!s->steps.state) return gq_nomem(s->steps.room * sizeof *s->steps.state);
  w->a.arena = w->a.rest = again->arena; /* the plan's own holds the slopes of the backward step */
  p->first = s->steps.n, p->near = p->last = s->steps.n - 1;
  return load(p);
}

static void end(gq_trajectory *p) {
  rerun *again = p->own;
  if (!again) return;
  gq_steps_give_back(&p->s->steps, p->s->plan, p->first, p->last + 1);
  gq_walk_done(&again->w);
  gq_release(p->s->plan->field->on, again->block);
  gq_arenas_free(p->s->plan->field, again->arena);
  gq_free(again);
}

static int at(gq_trajectory *p, double t, void *dst) {
  int64_t i;
  GQ_TRY(gq_trajectory_find(p, t, load, &i));
  gq_trajectory_read(p, i, t, dst);
  return GQ_OK;
}

static int leave(gq_trajectory *p, double t) {
  gq_solution *s = p->s;
  GQ_TRY(gq_trajectory_find(p, t, load, &p->near));
  gq_steps_give_back(&s->steps, s->plan, p->near + 1, p->last + 1);
  s->bytes -= (p->last - p->near) * gq_step_state_bytes(s->plan, KEEPS);
  p->last = p->near;
  return GQ_OK;
}

static int steps(const gq_trajectory *p, double from, double to, gq_step_record *step, int room) {
  return gq_trajectory_list(p, p->s->steps.n - 1, from, to, step, room);
}

const gq_trajectory_kind gq_trajectory_checkpoint = { .name = "checkpoint",
                                                      .keeps = GQ_STEP_TIMES | GQ_STEP_SIZES,
                                                      .reruns = true,
                                                      .init = init,
                                                      .step = step,
                                                      .done = done,
                                                      .begin = begin,
                                                      .at = at,
                                                      .leave = leave,
                                                      .steps = steps,
                                                      .end = end };
