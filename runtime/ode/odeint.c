/*
** odeint.c -- the forward solve: the loop over steps and measurement times, and what is kept of it.
*/
#include "../method/explicit.h"
#include "../method/heuristic.h"
#include "fleet.h"
#include "trajectory.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool continuous(const gq_ode_options *o) { return o->engine->keeps == GQ_KEEP_TRAJECTORY; }

/* ---- forward ---- */

static unsigned what_to_keep(const gq_ode_options *o) {
  switch (o->engine->keeps) {
    case GQ_KEEP_NOTHING: break;
    case GQ_KEEP_END: return GQ_STEP_TIMES;
    case GQ_KEEP_STEPS: return GQ_STEP_STATES | GQ_STEP_NOISE;
    case GQ_KEEP_ACTIVATIONS: /* stages of implicit steps follow from their slopes */
      return GQ_STEP_STATES | GQ_STEP_NOISE | (o->method->steps->load ? GQ_STEP_SLOPES : GQ_STEP_ACTIVATIONS);
    case GQ_KEEP_TRAJECTORY: return o->trajectory->keeps | (o->moments ? GQ_STEP_TIMES : 0);
  }
  return 0;
}

static bool inverts(const gq_solution *s) { return s->o.engine->keeps == GQ_KEEP_END; }
static bool states(const gq_solution *s) { return s->keeps & GQ_STEP_STATES; }

typedef struct forward {
  gq_solution *s;
  gq_walk w;
  void *inner; /* the state at an inner time, packed */
  void *block; /* that, and where states are not kept y, y1, f, f1 */
  int anchor;  /* measurement time that w.a.t hangs on */
  gq_event *event;
  double sum[GQ_SUMS]; /* heuristics: of the accepted step, and so far */
  double error, stiffness;
  double coarse; /* time in steps for which the dtype's times are too far apart */
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

static int forward_buffers(forward *fw) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  const gq_field *f = s->plan->field;
  int extra = states(s) ? 0 : w->a.st->l.extra;
  size_t part = gq_round64(gq_part_bytes(f)), bytes = (states(s) ? 1 : 5) * part;
  for (int e = 0; e < extra; e++) bytes += 2 * gq_round64(gq_extra_bytes(f, e));
  fw->inner = fw->block = gq_allocate(f->on, bytes + 64);
  if (!fw->block) return gq_nomem(bytes);
  s->bytes += bytes;
  if (states(s)) return first_state(fw);
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
  if (w->a.st->l.extra)
    gq_copy(s->plan->field->on, w->a.x[GQ_EXTRA_TWIN], w->a.y[0], gq_part_bytes(s->plan->field));
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
  gq_step_state *z = states(s) ? st->state[st->n] : NULL;
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
      gq_field_unpack(f, w->a.y1[0], dst);
      continue;
    }
    if (!*phase1) GQ_TRY(gq_walk_phase(w, 1));
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
  if (continuous(&s->o) && s->o.trajectory->step) GQ_TRY(s->o.trajectory->step(s, w, &phase1));
  if (s->keeps) GQ_TRY(keep(fw, w->c.clamped ? stop : -1));
  if (w->c.clamped) {
    fw->anchor = stop;
    w->c.origin = s->t[stop], w->c.index = 0; /* a fixed grid goes on from there */
  }
  gq_walk_commit(w);
  if (*k < s->nt && gq_at_jump(s, w->a.t)) GQ_TRY(pass_jump(fw));
  return states(s) ? next_state(fw) : GQ_OK;
}

static int forward_loop(forward *fw, int *k) {
  gq_solution *s = fw->s;
  gq_walk *w = &fw->w;
  const void *z0 = gq_tensor_data(s->z0);
  gq_field_pack(s->plan->field, z0, w->a.y[0]);
  for (*k = 0; *k == 0 || (*k < s->nt && s->t[*k] == s->t[0]); ++*k)
    gq_copy(s->plan->field->on, gq_at_time(s, s->z, *k), z0, gq_part_bytes(s->plan->field));
  GQ_TRY(gq_check_finite(s->z0, "z0"));
  if (*k == s->nt) return GQ_OK;
  GQ_TRY(first_slope(fw));
  if (fw->event) GQ_TRY(gq_event_begin(fw->event, w));
  while (*k < s->nt) GQ_TRY(forward_step(fw, k));
  return inverts(s) ? keep_end(fw) : GQ_OK;
}

static void forward_info(const forward *fw, gq_info *info, int status) {
  const gq_walk *w = &fw->w;
  info->status = status;
  info->t_reached = w->a.t, info->h_last = w->c.h;
  info->nfe = w->a.cost.nfe, info->steps = w->steps, info->rejected = w->rejected;
  info->jacobians = w->a.cost.jacobians, info->newton = w->a.cost.newton;
  info->coarse = fw->coarse / fabs(fw->s->t[fw->s->nt - 1] - fw->s->t[0]);
  info->error = fw->error, info->stiffness = fw->stiffness;
}

/* W over the step that is tried. */
static int fill_noise(gq_walk *w, double t, double h) { return gq_along_step(w->context, t, w->a.t1); }

static int forward_run(gq_solution *s, const gq_problem *p_, int *k) {
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
    w->fill_path = fill_noise, w->context = &s->along, w->a.w = s->along.packed, w->c.rest = GQ_ALONG_REST,
    w->returns = true;
  else w->context = &fw, w->place = states(s) ? place : NULL, w->flies = !p_ || !p_->event_;
  size_t before = s->bytes;
  int status = gq_walk_init(w, &s->plan->forward, s->bind, s->plan->arena);
  s->bytes += w->a.bytes;
  if (status == GQ_OK) status = forward_buffers(&fw);
  if (status == GQ_OK && continuous(&s->o) && s->o.trajectory->init) status = s->o.trajectory->init(s);
  if (status == GQ_OK && p_ && p_->event_)
    status = gq_event_new(p_->event_, p_->nevent, p_->event_capture, s->plan->field, &fw.event);
  if (status == GQ_OK) status = gq_explain(s, forward_loop(&fw, k));
  s->bytes += gq_ahead_bytes(w);
  s->record_bytes = s->bytes - before;
  forward_info(&fw, &s->info, status);
  if (states(s)) gq_steps_give_back(&s->steps, s->plan, s->steps.n + 1, s->steps.room); /* that of no step */
  s->info.nfe_event = gq_event_nfe(fw.event);
  gq_event_free(fw.event);
  gq_walk_done(w);
  gq_release(s->plan->field->on, fw.block);
  return status;
}

static bool dense_forward(const gq_problem *p, const gq_ode_options *o) {
  bool each = (!(o->method->e && o->step_size <= 0) && o->step_size <= 0) || gq_method_stops(o->method);
  bool dense = continuous(o) && o->trajectory->at;
  return dense || p->dense_ || o->overshoot || (p->nt > 2 && !each);
}

/* The tensors of a packed state, for their norms. */
static int split_new(const gq_problem *p, gq_split **out) {
  int64_t width = 0, rows, n = p->ntensors;
  for (int i = 0; i < n; i++) width += p->tensors_[i];
  gq_split *s = gq_alloc(sizeof *s + 2 * n * sizeof(double) + (width + 1) * sizeof(int));
  if (!s) return gq_nomem(width * sizeof(int));
  rows = width ? gq_numel(p->z0->shape) / width : 0;
  *s = (gq_split){ .n = (int)n, .width = width, .count = (double *)(s + 1) };
  s->sum = s->count + n, s->of = (int *)(s->sum + n);
  for (int64_t i = 0, at = 0; i < n; i++) {
    s->count[i] = (double)(rows * p->tensors_[i]), s->sum[i] = 0;
    for (int64_t j = 0; j < p->tensors_[i]; j++) s->of[at++] = (int)i;
  }
  *out = s;
  return GQ_OK;
}

static int solution_init(gq_solution *s, const gq_problem *p) {
  s->t = gq_alloc((p->nt + 1) * sizeof *s->t);
  if (!s->t) return gq_nomem(p->nt * sizeof *s->t);
  memcpy(s->t, p->t, p->nt * sizeof *s->t);
  s->jumps = gq_alloc((p->nt + 1) * sizeof *s->jumps);
  if (!s->jumps) return gq_nomem(p->nt * sizeof *s->jumps);
  for (int k = 0; p->jump_ && k < p->nt; k++)
    if (p->jump_[k] && !gq_at_jump(s, p->t[k])) s->jumps[s->njumps++] = p->t[k];
  if (s->o.parity && p->ntensors > 1) GQ_TRY(split_new(p, &s->split));
  GQ_TRY(gq_tensor_contiguous_get(p->z0, &s->z0));
  gq_shape shape = { .ndim = p->z0->shape.ndim + 1, .dim = { p->nt } };
  if (shape.ndim > GQ_MAXDIM)
    return gq_fail(GQ_ESHAPE, "the state has %d dimensions; with time in front at most %d fit",
                   p->z0->shape.ndim, GQ_MAXDIM);
  for (int i = 0; i < p->z0->shape.ndim; i++) shape.dim[i + 1] = p->z0->shape.dim[i];
  GQ_TRY(gq_tensor_new_on(gq_tensor_device(p->z0), p->z0->dtype, shape, &s->z));
  s->version = s->z->storage->version, s->z0_version = s->z0->storage->version;
  gq_planspec spec = { p, &s->o, dense_forward(p, &s->o), NULL };
  GQ_TRY(gq_plan_get(&spec, &s->plan));
  GQ_TRY(gq_binding_new(s->plan->field, p->capture, &s->bind));
  GQ_TRY(gq_along_new(s->plan->field, p->path, &s->along));
  if (p->dense_) GQ_TRY(gq_dense_new(s->plan, p->t[0], p->t[p->nt - 1], gq_tensor_data(s->z0), &s->dense));
  s->bytes = s->plan->field->nslices * (s->plan->arena_bytes + s->plan->scratch.bytes) + s->bind->bytes +
             s->along.bytes + gq_numel(shape) * gq_dtype_size(p->z0->dtype);
  s->trivial = gq_numel(p->z0->shape) == 0 || p->t[0] == p->t[p->nt - 1];
  return GQ_OK;
}

/* Forward once more, with other points of the trajectory. */
static int again(gq_solution *s, int *k) {
  gq_info info = s->info;
  s->bytes -= s->record_bytes;
  s->o.trajectory->done(s);
  s->trajectory = NULL;
  gq_steps_done(&s->steps);
  int status = forward_run(s, NULL, k);
  s->info.event = info.event, s->info.event_t = info.event_t, s->info.nfe_event = info.nfe_event;
  return status;
}

/* The points were laid out up to a time that the solve did not go to. */
static int again_to_event(gq_solution *s, int *k) {
  int64_t nfe = s->info.nfe;
  int status = again(s, k);
  s->info.nfe_event += nfe;
  return status;
}

enum { POINTS = 16, MOST_POINTS = 1 << 12 };

/* As many points as interpolation to the tolerance asks for. */
static int again_with_points(gq_solution *s, int *k) {
  int status = GQ_OK;
  while (status == GQ_OK && s->o.points < MOST_POINTS &&
         s->o.trajectory->error(&(gq_trajectory){ .s = s }) > 1) {
    int64_t nfe = s->info.nfe;
    s->o.points *= 2;
    status = again(s, k);
    s->info.nfe += nfe;
  }
  return status;
}

/* limited: engine auto; *over tells that the solve was given up since it kept too much; *reached: times. */
static int solve(const gq_problem *p, const gq_ode_options *o, bool partial, bool limited, bool *over,
                 gq_tensor **z, gq_info *info, gq_solution **sol, int *reached) {
  int k = 0;
  gq_solution *s = gq_calloc(1, sizeof *s);
  if (!s) return gq_nomem(sizeof *s);
  s->o = *o, s->o.points = o->points ? o->points : POINTS, s->keeps = what_to_keep(o), s->nt = p->nt,
  s->z0_grad = p->z0_grad, s->t_grad = p->t_grad, s->jumps_move = p->jumps_move, s->limited = limited;
  int status = solution_init(s, p);
  bool begun = status == GQ_OK; /* what is refused before is an error, not a part */
  if (begun) {
    s->plan->running++;
    if (o->independent)
      status = gq_samples_forward(s), k = s->nt; /* samples that failed have filled theirs */
    else if (gq_numel(p->z0->shape) > 0) status = forward_run(s, p, &k);
    if (status == GQ_OK && s->info.event && !s->trivial && continuous(o) && o->trajectory->ahead)
      status = again_to_event(s, &k);
    if (status == GQ_OK && !o->points && !s->trivial && continuous(o) && o->trajectory->error)
      status = again_with_points(s, &k);
    s->plan->running--;
    s->info.peak_bytes = s->bytes;
    s->info.engine = o->engine, s->info.status = status;
    s->info.lowering = o->independent && gq_fleet_solves(s) ? "lanes" : gq_field_lowering(s->plan->field);
    if (continuous(o)) s->info.trajectory = o->trajectory, s->info.moments = o->moments;
    memcpy(s->info.reason, info->reason, sizeof info->reason);
    *info = s->info;
  }
  *over = s->over;
  info->status = status;
  bool keep_part = begun && status != GQ_OK && partial && status != GQ_ENOMEM && status != GQ_EINTERRUPT;
  if (status == GQ_OK || keep_part) {
    /* A handle of its own: the tape will hang on it, and the tape owns this solution. */
    int made = gq_tensor_view(s->z, s->z->shape, s->z->stride, s->z->offset, z);
    if (made != GQ_OK) status = info->status = made, keep_part = false;
    for (int i = k; keep_part && i < s->nt; i++) /* times that were not reached */
      s->plan->field->on->vec->fill(s->z->dtype, gq_numel(s->z0->shape), NAN, gq_at_time(s, s->z, i), 1);
  }
  *reached = k;
  if (s->samples && p->samples_ && (status == GQ_OK || keep_part))
    gq_samples_ref(&s->samples->took, p->samples_);
  if ((status == GQ_OK || keep_part) && p->dense_) *p->dense_ = s->dense, s->dense = NULL;
  bool part_of_samples = keep_part && s->samples;
  if ((status == GQ_OK || part_of_samples) && o->engine->keeps != GQ_KEEP_NOTHING) *sol = s;
  else gq_solution_free(s);
  return status;
}

/* A solve that failed after `reached` times has the gradients of one that was sent to the last of them, which is made
** here, in place of its own: where that one ends all engines can begin. */
static int solve_part(const gq_problem *p, const gq_ode_options *o, int reached, gq_tensor *z,
                      gq_solution **sol) {
  gq_problem part = *p;
  gq_tensor *again = NULL;
  gq_info info = { 0 };
  bool over;
  part.nt = reached, part.dense_ = NULL, part.samples_ = NULL, part.event_ = NULL;
  GQ_TRY(solve(&part, o, false, false, &over, &again, &info, sol, &reached));
  gq_copy(gq_backend_of(z), gq_tensor_data(z), gq_tensor_data(again),
          gq_numel(again->shape) * gq_dtype_size(z->dtype));
  gq_tensor_unref(again);
  (*sol)->unreached = p->nt - part.nt;
  return GQ_OK;
}

enum { MANY_TIMES = 8 }; /* intervals from which on moments may pay: they join those within a step */

/* What the options leave open, and this problem decides. */
static void settle(const gq_problem *p, gq_ode_options *o) {
  bool adaptive = o->back_method->e && o->back_step_size <= 0;
  if (o->parity) o->overshoot = true, o->scale = false;
  if (o->thin && (o->overshoot || o->independent)) o->trajectory = &gq_trajectory_reverse;
  if (o->engine->traits & GQ_PATH_OWN) o->trajectory = o->engine->trajectory;
  if (o->auto_impulses)
    o->moments = adaptive && p->nt > MANY_TIMES && !o->overshoot && !p->jump_ && !o->independent;
  if (o->engine->traits & GQ_ALL_STEPS) o->moments = false;
  if (o->nodes == GQ_NODES_AUTO && ((!adaptive && !o->rtol_given) || o->independent || gq_graph_calls(p->f)))
    o->nodes = GQ_NODES_STEP;
}

/* Why nothing bounds the error of a gradient; NULL: something does. asked: as it was before it was settled. */
static const char *uncontrolled(const gq_problem *p, const gq_ode_options *asked, const gq_ode_options *o) {
  bool chosen = (o->method->e || o->method->multistep) && o->step_size <= 0;
  if (o->engine->keeps == GQ_KEEP_NOTHING || p->noise) return NULL;
  if (!chosen && !o->rtol_given) return "steps of one size, and rtol is not given";
  if (o->engine->integral != GQ_INTEGRAL_NODES || o->nodes == GQ_NODES_AUTO) return NULL;
  if (asked->nodes != GQ_NODES_AUTO) return "gq.nodes is given";
  return o->independent ? "samples have steps of their own: nodes in every step"
                        : "trace = false: nodes in every step";
}

/* The solve went over memory_limit: fewer states, or another engine. */
static int retreat(const gq_planspec *s, const gq_ode_options *asked, gq_ode_options *o, gq_info *info) {
  if (asked->engine->choose) return asked->engine->choose(s, o, info->steps, info);
  bool reruns = gq_method_reruns(o->method);
  o->trajectory = reruns ? &gq_trajectory_checkpoint : &gq_trajectory_reverse;
  snprintf(info->reason, sizeof info->reason, "the states of the steps go over memory_limit: %s",
           reruns ? "some are kept, the steps between run again" : "z is solved backwards");
  return GQ_OK;
}

int gq_solve_undo(const gq_problem *p, gq_tensor **z, gq_solution **sol, int status) {
  gq_solution_free(*sol);
  gq_tensor_unref(*z);
  if (p->dense_) gq_dense_free(*p->dense_), *p->dense_ = NULL;
  *z = NULL, *sol = NULL;
  return status;
}

/* Steps of one size are counted before the first, where nobody wants the part that they reach. */
static int check_count(const gq_problem *p, const gq_ode_options *o) {
  double h = o->step_size, span = p->nt > 0 ? p->t[p->nt - 1] - p->t[0] : 0, n = fabs(span) / h;
  if (!(h > 0) || p->event_ || !(n * (1 - 1e-6) > (double)o->max_steps)) return GQ_OK;
  if (p->t[0] + copysign(h, span) == p->t[0]) return GQ_OK; /* the first step says so */
  double end = p->t[0] + copysign((double)o->max_steps * h, span);
  return gq_fail(GQ_EMAXSTEPS,
                 "steps of %g over an interval of %g are %.6g, and %lld (max_steps) would end at t = %.9g: "
                 "take longer ones",
                 h, fabs(span), n, (long long)o->max_steps, end);
}

int gq_solve(const gq_problem *p, const gq_ode_options *o, bool partial, gq_tensor **z, gq_info *info,
             gq_solution **sol) {
  gq_ode_options own = *o;
  bool over = false;
  int reached;
  *info = (gq_info){ .t_reached = p->nt > 0 ? p->t[0] : 0, .engine = o->engine };
  *z = NULL, *sol = NULL;
  if (p->dense_) *p->dense_ = NULL;
  if (p->samples_) *p->samples_ = (gq_samples){ 0 };
  settle(p, &own);
  GQ_TRY(gq_problem_check(p, &own));
  if (!partial) GQ_TRY(info->status = check_count(p, &own));
  gq_planspec spec = { p, &own, dense_forward(p, &own), o->engine->find };
  if (o->engine->choose) GQ_TRY(info->status = o->engine->choose(&spec, &own, -1, info));
  bool thins = own.thin && continuous(&own) && own.trajectory == &gq_trajectory_dense;
  int status = solve(p, &own, partial, o->engine->choose || thins, &over, z, info, sol, &reached);
  if (over) {
    GQ_TRY(info->status = retreat(&spec, o, &own, info));
    status = solve(p, &own, partial, false, &over, z, info, sol, &reached);
  }
  info->uncontrolled = uncontrolled(p, o, &own);
  if (status == GQ_OK || !*z || *sol || own.engine->keeps == GQ_KEEP_NOTHING) return status;
  char message[1024];
  snprintf(message, sizeof message, "%s", gq_message());
  int made = solve_part(p, &own, reached, *z, sol);
  if (made != GQ_ENOMEM && made != GQ_EINTERRUPT) return gq_fail(status, "%s", message);
  return info->status = gq_solve_undo(p, z, sol, made);
}

void gq_solution_free(gq_solution *s) {
  if (!s) return;
  if (s->plan) gq_steps_give_back(&s->steps, s->plan, 0, s->steps.room);
  if (s->plan) gq_steps_give_back(&s->ends, s->plan, 0, s->ends.room);
  gq_dense_free(s->dense);
  gq_along_done(&s->along);
  gq_solution_free(s->tighter);
  for (int i = 0; s->beside && i < s->plan->field->ncapture + 2 * GQ_BESIDE; i++)
    gq_tensor_unref(s->beside[i]);
  gq_free(s->beside);
  gq_free(s->size);
  gq_sampleset_free(s->samples);
  gq_binding_free(s->bind);
  if (s->o.trajectory->done) s->o.trajectory->done(s); /* into the field's backend: the plan's */
  gq_plan_release(s->plan);
  gq_tensor_unref(s->z0);
  gq_tensor_unref(s->z);
  gq_steps_done(&s->steps);
  gq_steps_done(&s->ends);
  gq_free(s->jumps);
  gq_free(s->split);
  gq_free(s->t);
  gq_free(s);
}

const gq_info *gq_solution_info(const gq_solution *s) { return &s->info; }
const gq_ode_options *gq_solution_options(const gq_solution *s) { return &s->o; }

/* ---- states, on the way back ---- */

static bool held(const gq_solution *s) { return s->steps.state && s->steps.state[0]; }

void gq_solution_give_back(gq_solution *s) {
  if (!states(s) || !held(s)) return;
  gq_steps_give_back(&s->steps, s->plan, 0, s->steps.n + 1);
  s->steps.n = 0;
  s->bytes -= s->record_bytes;
}

/* z0 may have been overwritten since, as a buffer of batches is: what the solution holds of it has not. */
static int start_from_solution(gq_solution *s, gq_tensor *z) {
  gq_tensor *z0;
  if (z->storage->version != s->version)
    return gq_fail(GQ_ESTATE,
                   "the solution was modified in place before a further backward pass, which solves "
                   "again from its first state; write to a copy (x:clone())");
  GQ_TRY(gq_tensor_empty_on(gq_tensor_device(z), s->z0->dtype, s->z0->shape, &z0));
  gq_copy(gq_backend_of(z), gq_tensor_data(z0), gq_at_time(s, z, 0), gq_part_bytes(s->plan->field));
  gq_tensor_unref(s->z0);
  s->z0 = z0;
  return GQ_OK;
}

int gq_solution_records(gq_solution *s) {
  gq_tensor *z = s->z; /* stays as it is: direct does not mind what the user has done to it */
  gq_info info = s->info;
  int k = 0;
  if (!states(s) || held(s) || s->trivial || s->samples) return GQ_OK;
  if (s->z0->storage->version != s->z0_version) GQ_TRY(start_from_solution(s, z));
  s->z0_version = s->z0->storage->version;
  gq_tensor *again;
  GQ_TRY(gq_tensor_new_on(gq_tensor_device(z), z->dtype, z->shape, &again));
  s->z = again;
  int status = forward_run(s, NULL, &k);
  gq_tensor_unref(s->z);
  s->z = z, s->info = info;
  if (status != GQ_OK) gq_solution_give_back(s); /* half a list would pass for a whole one */
  return status;
}
