/*
** odeint.c -- a solve from options to its solution: what they leave open, what is kept, and another try where that is
** too much.
*/
#include "lanes_device.h"
#include "trajectory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- what is kept, and made beforehand ---- */

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

static bool dense_forward(const gq_problem *p, const gq_ode_options *o) {
  bool each = (!(o->method->e && o->step_size <= 0) && o->step_size <= 0) || gq_method_stops(o->method);
  bool dense = gq_keeps_trajectory(o->engine) && o->trajectory->at;
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
  s->last = p->t[p->nt - 1];
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
  int status = gq_forward(s, NULL, k);
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
    else if (gq_numel(p->z0->shape) > 0) status = gq_forward(s, p, &k);
    if (status == GQ_OK && s->info.event && !s->trivial && gq_keeps_trajectory(o->engine) &&
        o->trajectory->ahead)
      status = again_to_event(s, &k);
    if (status == GQ_OK && !o->points && !s->trivial && gq_keeps_trajectory(o->engine) &&
        o->trajectory->error)
      status = again_with_points(s, &k);
    s->plan->running--;
    if (s->bytes > s->info.peak_bytes) s->info.peak_bytes = s->bytes;
    s->info.engine = o->engine, s->info.status = status;
    s->info.lowering =
      o->independent && gq_device_solves_lanes(s) ? "lanes" : gq_field_lowering(s->plan->field);
    if (gq_keeps_trajectory(o->engine)) s->info.trajectory = o->trajectory, s->info.moments = o->moments;
    memcpy(s->info.reason, info->reason, sizeof info->reason);
    *info = s->info;
    gq_tell(GQ_TELL_MEM, "there for %s: %lld steps, %lld refused, %lld evaluations, %zu bytes at most",
            o->engine->name, (long long)info->steps, (long long)info->rejected, (long long)info->nfe,
            info->peak_bytes);
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
                 "steps of %g over an interval of %g are %.6g, and %lld (max_steps) would end at t = %.9g", h,
                 fabs(span), n, (long long)o->max_steps, end);
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
  gq_ode_options settled = own;
  GQ_TRY(gq_problem_check(p, &own));
  if (!partial) GQ_TRY(info->status = check_count(p, &own));
  gq_planspec spec = { p, &own, dense_forward(p, &own), o->engine->find };
  if (o->engine->choose) GQ_TRY(info->status = o->engine->choose(&spec, &own, -1, info));
  bool thins = own.thin && gq_keeps_trajectory(own.engine) && own.trajectory == &gq_trajectory_dense;
  int status = solve(p, &own, partial, o->engine->choose || thins, &over, z, info, sol, &reached);
  if (over) {
    own.nodes = settled.nodes, own.moments = settled.moments; /* gqc has its own */
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
  for (int i = 0; s->perturbed && i < s->plan->field->ncapture + 2 * GQ_QUOTIENTS; i++)
    gq_tensor_unref(s->perturbed[i]);
  gq_free(s->perturbed);
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
  if (!gq_keeps_states(s) || !held(s)) return;
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
  if (!gq_keeps_states(s) || held(s) || s->trivial || s->samples) return GQ_OK;
  if (s->z0->storage->version != s->z0_version) GQ_TRY(start_from_solution(s, z));
  s->z0_version = s->z0->storage->version;
  gq_tensor *again;
  GQ_TRY(gq_tensor_new_on(gq_tensor_device(z), z->dtype, z->shape, &again));
  s->z = again;
  int status = gq_forward(s, NULL, &k);
  gq_tensor_unref(s->z);
  s->z = z, s->info = info;
  if (status != GQ_OK) gq_solution_give_back(s); /* half a list would pass for a whole one */
  return status;
}
