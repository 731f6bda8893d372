/*
** forward.c -- the forward solve: the loop over steps and measurement times, and what is kept of it.
*/
#include "../method/explicit.h"
#include "../method/heuristic.h"
#include "trajectory.h"

#include <math.h>
#include <string.h>

static bool inverts(const gq_solution *s) { return s->o.engine->keeps == GQ_KEEP_END; }

typedef struct forward {
  gq_solution *s;
  gq_walk w;
  void *inner; /* the state at an inner time, packed */
  void *block; /* that, and where states are not kept y, y1, f, f1 */
  int anchor;  /* measurement time that w.a.t hangs on */
  gq_event *event;
  double sum[GQ_SUMS]; /* heuristics: of the accepted step, and so far */
  double error, stiffness;
  double coarse;     /* time in steps for which the dtype's times are too far apart */
  gq_rounds *rounds; /* of steps that need no look at what came before, or NULL: */
  void *begun;       /* the state where the first of them begins */
} forward;

/* Kept state k, which is there or is made. */
static int state_at(gq_solution *s, int64_t k, gq_step_state **out) {
  gq_steps *st = &s->steps;
  size_t unused = 0;
  GQ_TRY(gq_steps_room(st, k + 1, true, NULL));
  if (!st->state[k]) GQ_TRY(gq_step_state_get(s->plan, s->keeps, &unused, &st->state[k]));
  *out = st->state[k];
  return GQ_OK;
}

/* A kept state, for the walk to write the end of its next step into. */
static int next_state(forward *fw) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  gq_steps *st = &s->steps;
  gq_step_state *next;
  s->over = s->limited && s->bytes > s->o.memory_limit;
  if (s->over) return GQ_ENOMEM; /* gq_odeint goes on with another engine */
  GQ_TRY(state_at(s, st->n + 1, &next));
  s->bytes += gq_step_state_bytes(s->plan, s->keeps);
  w->a.y1[0] = next->y, w->a.f1[0] = next->f;
  memcpy(w->a.x1, next->x, sizeof next->x);
  if (s->keeps & GQ_STEP_ACTIVATIONS) w->a.arena = st->state[st->n]->arena;
  return GQ_OK;
}

/* The same for steps that a device takes ahead. */
static int place(gq_walk *w, int i, void **y, void **f, void ***arena) {
  gq_solution *s = ((forward *)w->context)->s;
  int64_t n = s->steps.n + i;
  gq_step_state *next;
  GQ_TRY(state_at(s, n + 1, &next));
  *y = next->y, *f = next->f, *arena = s->steps.state[n]->arena;
  return GQ_OK;
}

/* The list of states is not counted with what they hold; it has room for as many as the longest solve took. */
static int first_state(forward *fw) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  GQ_TRY(gq_steps_room(&s->steps, s->plan->most + 2, true, NULL));
  GQ_TRY(gq_step_state_get(s->plan, s->keeps, &s->bytes, &s->steps.state[0]));
  const gq_step_state *now = s->steps.state[0];
  gq_step_put(&s->steps, 0, (gq_step_record){ .t = w->a.t });
  w->a.y[0] = now->y, w->a.f[0] = now->f;
  memcpy(w->a.x, now->x, sizeof now->x);
  return next_state(fw);
}

/* What a step reads and leaves. */
static size_t tuple_bytes(const forward *fw) {
  const gq_field *f = fw->s->plan->field;
  size_t bytes = 2 * gq_round64(gq_part_bytes(f));
  for (int e = 0; e < fw->w.a.st->l.extra; e++) bytes += gq_round64(gq_extra_bytes(f, e));
  return bytes;
}

/* To fw->begun, or back. */
static void copy_tuple(const forward *fw, bool there) {
  const gq_attempt *a = &fw->w.a;
  const gq_field *f = a->field;
  char *next = fw->begun;
  for (int i = 0; i < 2 + a->st->l.extra; i++) {
    void *x = i == 0 ? a->y[0] : i == 1 ? a->f[0] : a->x[i - 2];
    size_t n = i < 2 ? gq_part_bytes(f) : gq_extra_bytes(f, i - 2);
    gq_copy(f->on, there ? next : x, there ? x : next, n);
    next += gq_round64(n);
  }
}

static int forward_buffers(forward *fw) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  const gq_field *f = s->plan->field;
  int extra = gq_keeps_states(s) ? 0 : w->a.st->l.extra;
  size_t part = gq_round64(gq_part_bytes(f)), bytes = (gq_keeps_states(s) ? 1 : 5) * part;
  for (int e = 0; e < extra; e++) bytes += 2 * gq_round64(gq_extra_bytes(f, e));
  fw->inner = fw->block = gq_allocate(f->on, bytes + 64);
  if (!fw->block) return gq_nomem(bytes);
  s->bytes += bytes;
  if (gq_keeps_states(s)) return first_state(fw);
  if (!inverts(s))
    s->steps.head = s->keeps & GQ_STEP_SIZES ? offsetof(gq_step_record, anchor) : offsetof(gq_step_record, h);
  if (inverts(s)) GQ_TRY(gq_steps_room(&s->ends, s->njumps + 1, true, NULL));
  char *b = (char *)fw->block + part;
  w->a.y[0] = b, w->a.f[0] = b + part, w->a.y1[0] = b + 2 * part, w->a.f1[0] = b + 3 * part;
  b += 4 * part;
  for (int e = 0; e < 2 * extra; e++) {
    *(e % 2 ? &w->a.x1[e / 2] : &w->a.x[e / 2]) = b;
    b += gq_round64(gq_extra_bytes(f, e / 2));
  }
  return GQ_OK;
}

/* What is carried besides y, where a solve or a smooth piece of it begins. */
static int start_slope(forward *fw) {
  gq_walk *w = &fw->w;
  const gq_solution *s = fw->s;
  double t = gq_attempt_begin(&w->a, w->a.t, s->t[s->nt - 1] < w->a.t ? -1 : 1);
  if (w->a.st->l.extra) gq_state_copy(s->plan->field, w->a.x[GQ_EXTRA_TWIN], w->a.y[0]);
  if (!w->a.st->l.carry) return GQ_OK;
  w->a.cost.nfe++;
  void *out[] = { w->a.f[0], w->a.x[GQ_EXTRA_DIFFUSION] };
  GQ_TRY(gq_evaluate_at(&s->plan->f, s->bind, t, w->a.y, out, NULL, NULL));
  gq_walk_restart(w);
  return GQ_OK;
}

static int first_slope(forward *fw) {
  gq_walk *w = &fw->w;
  const gq_solution *s = fw->s;
  GQ_TRY(start_slope(fw));
  if (!w->a.st->kind.adaptive) return GQ_OK;
  if (s->o.first_step > 0) w->c.h = s->t[s->nt - 1] < w->a.t ? -s->o.first_step : s->o.first_step;
  else GQ_TRY(gq_walk_first(w, &s->plan->f, s->t[s->nt - 1], &w->c.h));
  gq_steplog_first(w->c.h);
  return GQ_OK;
}

/* Keep the accepted step; slopes are copied, states and activations are where the walk left them. */
static int keep(forward *fw, int stop) {
  gq_walk *w = &fw->w;
  gq_solution *s = fw->s;
  gq_steps *st = &s->steps;
  gq_step_state *z = gq_keeps_states(s) ? st->state[st->n] : NULL;
  if (z) memcpy(z->sum, fw->sum, sizeof z->sum);
  if (z && z->w) gq_copy(s->plan->field->on, z->w, w->a.w, gq_along_bytes(s->plan->field));
  if (s->keeps & GQ_STEP_SLOPES) gq_walk_slopes(w, 0, z->slope, z->part);
  GQ_TRY(gq_steps_add(st, (gq_step_record){ w->a.t, w->a.h, fw->anchor, stop }, &s->bytes));
  if (z) gq_step_put(st, st->n, (gq_step_record){ .t = w->a.t1 });
  return GQ_OK;
}

static bool reached(double dir, double t, double t1) { return dir * (t1 - t) >= 0; }

/* The slope at a step's end is in the interpolant though not always in the error estimate. *k: the first of n times, or
** the one that is not finite. */
static int check_interpolated(const gq_solution *s, int *k, int n) {
  size_t numbers = gq_numel(s->z0->shape);
  size_t i = s->plan->field->on->vec->nonfinite(s->z->dtype, n * numbers, gq_at_time(s, s->z, *k));
  if (!i) return GQ_OK;
  *k += (int)((i - 1) / numbers);
  return gq_fail(GQ_ENONFINITE, "the state at t[%d] = %.9g, interpolated in its step, is not finite", *k + 1,
                 s->t[*k]);
}

/* Write the measurement times that the accepted step passes; *phase1: its interpolant is complete. */
static int write_times(forward *fw, int *k, bool *phase1) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  const gq_field *f = s->plan->field;
  double dir = w->a.h < 0 ? -1 : 1;
  int first = *k, bad = first;
  bool plain = gq_field_plain(f), any = false;
  for (; *k < s->nt && reached(dir, s->t[*k], w->a.t1); ++*k) {
    char *dst = gq_at_time(s, s->z, *k), *to = plain ? dst : fw->inner;
    if (s->t[*k] == w->a.t1) {
      if (w->a.rounds) gq_rounds_unpack(w->a.rounds, w->a.y1[0], dst);
      else gq_field_unpack(f, w->a.y1[0], dst);
      continue;
    }
    if (!*phase1) GQ_TRY(gq_walk_phase(w, 1));
    GQ_TRY(gq_rounds_do(w->a.rounds, NULL));
    *phase1 = any = true;
    gq_walk_interpolate_all(w, 0, (s->t[*k] - w->a.t) / w->a.h, to);
    if (!plain) gq_field_unpack(f, to, dst);
  }
  int status = any ? check_interpolated(s, &bad, *k - first) : GQ_OK;
  if (status != GQ_OK) *k = bad;
  return status;
}

/* What the inverse starts from: the end, and the end of each smooth piece. */
static int keep_end(forward *fw) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  const gq_backend *on = s->plan->field->on;
  size_t n = gq_part_bytes(s->plan->field);
  gq_step_state **end = &s->ends.state[s->ends.n];
  GQ_TRY(gq_step_state_get(s->plan, GQ_STEP_STATES, &s->bytes, end));
  gq_step_put(&s->ends, s->ends.n++, (gq_step_record){ .t = w->a.t });
  gq_copy(on, (*end)->y, w->a.y[0], n);
  gq_copy(on, (*end)->f, w->a.f[0], n);
  for (int e = 0; e < w->a.st->l.extra; e++)
    gq_copy(on, (*end)->x[e], w->a.x[e], gq_extra_bytes(s->plan->field, e));
  return GQ_OK;
}

/* The time that the solve may not pass: the last, or the next jump. */
static int next_stop(const gq_solution *s, int k) {
  if (s->njumps == 0) return s->nt - 1;
  while (k < s->nt - 1 && !gq_at_jump(s, s->t[k])) k++;
  return k;
}

/* After a jump the slope is another one; the last proposal of h serves. */
static int pass_jump(forward *fw) {
  GQ_TRY(gq_rounds_do(fw->w.a.rounds, NULL));
  if (inverts(fw->s)) GQ_TRY(keep_end(fw));
  return start_slope(fw);
}

/* The solve ends at t: so do all times from k on. */
static void end_here(gq_solution *s, int k, double t) {
  s->info.event = true, s->info.event_t = t;
  for (double dir = s->t[s->nt - 1] < s->t[0] ? -1 : 1; k < s->nt; k++)
    if (dir * (s->t[k] - t) > 0) s->t[k] = t;
}

/* Where the event happens in the accepted step that ends there; *stop: a time that is then there. */
static int look(forward *fw, int *k, int *stop) {
  gq_solution *s = fw->s;
  bool happened = false;
  double t;
  if (!fw->event) return GQ_OK;
  GQ_TRY(gq_event_look(fw->event, &fw->w, &happened, &t));
  if (!happened) return GQ_OK;
  end_here(s, *k, t);
  fw->w.c.clamped = true, *stop = s->nt - 1;
  if (t != fw->w.a.t) return GQ_OK;
  s->trivial = t == s->t[0];
  for (; *k < s->nt; ++*k) gq_field_unpack(s->plan->field, fw->w.a.y[0], gq_at_time(s, s->z, *k));
  return GQ_OK;
}

static void add_heuristics(forward *fw) {
  const gq_walk *w = &fw->w;
  if (!fw->s->o.error && !fw->s->o.stiffness) return;
  gq_heuristic e;
  gq_program_sums(&w->a, fw->sum);
  gq_heuristic_of(fw->sum, w->a.field, &e);
  fw->error += fabs(w->a.h) * e.error, fw->stiffness += e.stiffness;
}

static int forward_step(forward *fw, int *k) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  bool grid = !w->a.st->kind.adaptive && w->c.size <= 0; /* the grid is the measurement times */
  bool each = grid || gq_method_stops(w->a.st->m);
  int stop = each ? *k : next_stop(s, *k);
  GQ_TRY(gq_walk_step(w, s->t[stop], each || !s->o.overshoot));
  fw->coarse += gq_coarse_time(w->a.field, w->a.t, w->a.h);
  GQ_TRY(look(fw, k, &stop));
  if (*k == s->nt) return GQ_OK; /* the event lies where the step begins */
  add_heuristics(fw);
  bool phase1 = (s->keeps & (GQ_STEP_SLOPES | GQ_STEP_ACTIVATIONS) || s->dense) && w->a.st->l.nfe_dense > 0;
  if (phase1) GQ_TRY(gq_walk_phase(w, 1));
  if (s->dense) GQ_TRY(gq_dense_add(s->dense, w, w->a.t1, &s->bytes));
  GQ_TRY(write_times(fw, k, &phase1));
  if (gq_keeps_trajectory(s->o.engine) && s->o.trajectory->step) GQ_TRY(s->o.trajectory->step(s, w, &phase1));
  if (s->keeps) GQ_TRY(keep(fw, w->c.clamped ? stop : -1));
  if (w->c.clamped) {
    fw->anchor = stop;
    w->c.origin = s->t[stop], w->c.index = 0; /* a fixed grid goes on from there */
  }
  gq_walk_commit(w);
  if (*k < s->nt && gq_at_jump(s, w->a.t)) GQ_TRY(pass_jump(fw));
  return gq_keeps_states(s) ? next_state(fw) : GQ_OK;
}

/* ---- several steps in one round of threads ---- */

static size_t rounds_bytes(const forward *fw) {
  return fw->rounds ? gq_rounds_bytes(fw->rounds) + tuple_bytes(fw) : 0;
}

/* Nothing is looked at after a step but whether it is finite. */
static int find_rounds(forward *fw) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  const gq_stepper *st = w->a.st;
  bool looks = fw->event || s->dense || s->o.error || s->o.stiffness || s->keeps & GQ_STEP_SLOPES ||
               (gq_keeps_trajectory(s->o.engine) && s->o.trajectory->step);
  if (looks || st->kind.adaptive || !gq_program_may_wait(st)) return GQ_OK;
  GQ_TRY(gq_rounds_new(s->plan->field, gq_program_waits(st, s->plan->field), &fw->rounds));
  if (!fw->rounds) return GQ_OK;
  s->bytes += rounds_bytes(fw);
  fw->begun = gq_allocate(s->plan->field->on, tuple_bytes(fw) + 64);
  return fw->begun ? GQ_OK : gq_nomem(tuple_bytes(fw));
}

/* Some; if one of them fails, the same again one by one, which tells how. */
static int forward_steps(forward *fw, int *k) {
  enum { SOME = 64 };
  gq_solution *s = fw->s;
  const double(*log)[4];
  forward was = *fw;
  int first = *k, logged = gq_steplog_get(&log), n = 0, status = GQ_OK;
  int64_t steps = s->steps.n, ends = s->ends.n;
  size_t bytes = s->bytes;
  copy_tuple(fw, true);
  for (fw->w.a.rounds = fw->rounds; status == GQ_OK && *k < s->nt && n < SOME; n++)
    status = forward_step(fw, k);
  if (gq_rounds_do(fw->rounds, NULL) == GQ_OK && status == GQ_OK) return fw->w.a.rounds = NULL, GQ_OK;
  gq_rounds_clear(fw->rounds);
  gq_steps_give_back(&s->ends, s->plan, ends, s->ends.n);
  *fw = was, *k = first, s->steps.n = steps, s->ends.n = ends, s->bytes = bytes;
  gq_steplog_cut(logged);
  copy_tuple(fw, false);
  for (; n > 0 && *k < s->nt; n--) GQ_TRY(forward_step(fw, k));
  return GQ_OK;
}

static int forward_loop(forward *fw, int *k) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  const void *z0 = gq_tensor_data(s->z0);
  gq_field_pack(s->plan->field, z0, w->a.y[0]);
  for (*k = 0; *k == 0 || (*k < s->nt && s->t[*k] == s->t[0]); ++*k)
    gq_state_copy(s->plan->field, gq_at_time(s, s->z, *k), z0);
  GQ_TRY(gq_check_finite(s->z0, "z0"));
  if (*k == s->nt) return GQ_OK;
  GQ_TRY(first_slope(fw));
  if (fw->event) GQ_TRY(gq_event_begin(fw->event, w));
  GQ_TRY(find_rounds(fw));
  while (*k < s->nt) GQ_TRY(fw->rounds ? forward_steps(fw, k) : forward_step(fw, k));
  return inverts(s) ? keep_end(fw) : GQ_OK;
}

static void forward_info(const forward *fw, gq_info *info, int status) {
  const gq_walk *w = &fw->w;
  info->status = status;
  info->t_reached = w->a.t;
  info->nfe = w->a.cost.nfe, info->steps = w->steps, info->rejected = w->rejected;
  info->jacobians = w->a.cost.jacobians, info->newton = w->a.cost.newton;
  info->coarse = fw->coarse / fabs(fw->s->t[fw->s->nt - 1] - fw->s->t[0]);
  info->error = fw->error, info->stiffness = fw->stiffness;
}

/* W over the step that is tried. */
static int fill_noise(gq_walk *w, double t, double h) {
  gq_along *along = w->context;
  double ends[GQ_ALONG_STEPS + 1];
  if (!gq_along_known(along, t, w->a.t1)) {
    GQ_TRY(gq_rounds_do(w->a.rounds, NULL));
    GQ_TRY(gq_along_steps(along, gq_walk_ends(w, along->most, ends), ends, false));
  }
  w->a.w = along->packed;
  return GQ_OK;
}

int gq_forward(gq_solution *s, const gq_problem *p_, int *k) {
  forward fw = { .s = s };
  gq_walk *w = &fw.w;
  w->controller = &s->o.controller;
  w->a.tol.rtol = s->o.rtol, w->a.tol.atol[0] = s->o.atol, w->a.tol.max_norm = s->o.max_norm;
  w->a.tol.split = s->split;
  w->c.most = s->o.max_step, w->c.least = s->o.min_step;
  w->c.size = s->o.step_size, w->max_steps = s->o.max_steps;
  w->a.t = w->c.origin = s->t[0];
  w->a.jumps = gq_solution_jumps(s);
  if (s->along.path)
    w->fill_path = fill_noise, w->context = &s->along, w->c.rest = GQ_ALONG_REST, w->returns = true;
  else w->context = &fw, w->place = gq_keeps_states(s) ? place : NULL, w->runs_ahead = !p_ || !p_->event_;
  size_t before = s->bytes;
  int status = gq_walk_init(w, &s->plan->forward, s->bind, s->plan->arena);
  s->bytes += w->a.bytes;
  if (status == GQ_OK) status = forward_buffers(&fw);
  if (status == GQ_OK && gq_keeps_trajectory(s->o.engine) && s->o.trajectory->init)
    status = s->o.trajectory->init(s);
  if (status == GQ_OK && p_ && p_->event_)
    status = gq_event_new(p_->event_, p_->nevent, p_->event_capture, s->plan->field, &fw.event);
  if (status == GQ_OK) status = gq_explain(s, forward_loop(&fw, k));
  s->bytes += gq_ahead_bytes(w);
  if (s->bytes > s->info.peak_bytes) s->info.peak_bytes = s->bytes;
  s->bytes -= rounds_bytes(&fw); /* the way back has its own */
  s->record_bytes = s->bytes - before;
  forward_info(&fw, &s->info, status);
  if (gq_keeps_states(s))
    gq_steps_give_back(&s->steps, s->plan, s->steps.n + 1, s->steps.room); /* that of no step */
  s->info.nfe_event = gq_event_nfe(fw.event);
  gq_event_free(fw.event);
  gq_rounds_free(fw.rounds);
  gq_walk_done(w);
  gq_release(s->plan->field->on, fw.begun);
  gq_release(s->plan->field->on, fw.block);
  return status;
}
