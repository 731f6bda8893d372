/*
** auto.c -- gradient = "auto": the fastest engine that fits the memory. Where rows are few and short that is
** collocation (gqc). Otherwise backpropagation through the steps (direct) evaluates nothing twice and is the
** fastest wherever its activations fit; where they do not, the best of gq: the adjoint along the states of the steps
** and, where even those do not fit, between checkpoints. Memory of the parameters' size does not change that: the
** weights are read once a stage on either way, by the adjoint twice, and direct adds to the gradients once a step
** (ir/stack.c), gq once a batch of nodes. Nested spheres, direct over gq: width 1000 0.8 to 1.0, 1500 0.8 to 0.9, 3000
** 0.8. Nor does the width of an SDE's layers: direct over aca, which runs steps again: 5 0.97, 20 1.01, 100 0.82
** (reversible_heun).
*/
#include "../exec/tape.h"
#include "../ode/solution.h"

#include <stdarg.h>
#include <stdio.h>

enum {
  EXPECTED = 16, /* steps, before a solve of this structure has been seen */
  FEW_ROWS = 32, /* products of so few columns are far from full speed, */
  LONG_ROW = 4   /* and the Jacobians of gqc cost a product for each number of a row */
};

static double mega(double bytes) { return bytes / (1 << 20); }

__attribute__((format(printf, 5, 6))) static void decide(const gq_planspec *s, gq_ode_options *o,
                                                         gq_info *info, const char *engine, const char *fmt,
                                                         ...) {
  va_list ap;
  info->engine = o->engine = s->find(engine);
  va_start(ap, fmt);
  vsnprintf(info->reason, sizeof info->reason, fmt, ap);
  va_end(ap);
}

/* Bytes that backpropagation keeps of a step. */
static double activations(const gq_plan *p) {
  if (p->forward.m->steps->load) return (2.0 + p->forward.m->slopes) * gq_part_bytes(p->field);
  return 2.0 * gq_part_bytes(p->field) + p->field->nslices * (gq_code_lasting(&p->forward.code) + 64.0);
}

/* Reversible steps are undone; otherwise the adjoint is solved. */
static void without_activations(const gq_planspec *s, gq_ode_options *o, const gq_plan *p, double steps,
                                gq_info *info) {
  bool single = !o->overshoot && !o->independent; /* steps can be run again one by one */
  if (gq_twice() && single) {
    decide(
      s, o, info, "aca",
      "activations of %.0f steps take %.1f MB, over the limit of %.1f MB; steps are run again for second "
      "derivatives",
      steps, mega(steps * activations(p)), mega((double)o->memory_limit));
    return;
  }
  if (gq_method_stops(o->method) && o->eta == 1) {
    decide(s, o, info, "reversible",
           "activations of %.0f steps take %.1f MB, over the limit of %.1f MB; %s steps are inverted", steps,
           mega(steps * activations(p)), mega((double)o->memory_limit), o->method->name);
    return;
  }
  double states = steps * (2 + p->forward.m->slopes) * (double)gq_part_bytes(p->field);
  bool dense = states <= (double)o->memory_limit && !o->overshoot;
  o->trajectory = !single ? &gq_trajectory_reverse : dense ? &gq_trajectory_dense : &gq_trajectory_checkpoint;
  decide(s, o, info, "gq", "activations of %.0f steps take %.1f MB, over the limit of %.1f MB; %s", steps,
         mega(steps * activations(p)), mega((double)o->memory_limit),
         !single ? "z is solved backwards"
         : dense ? "the states take less"
                 : "so do their states: some are kept, the steps between run again");
}

/* Few independent rows of few numbers: collocation evaluates the nodes of all steps side by side. */
static bool collocates(const gq_planspec *s, const gq_ode_options *o, const gq_field *f) {
  int64_t rows = f->shape.ndim ? f->shape.dim[0] : 1, row = gq_numel(f->shape) / (rows > 0 ? rows : 1);
  bool adaptive = o->method->steps->any_system && o->method->e && o->step_size <= 0;
  if (!adaptive || o->overshoot || o->parity || s->p->jump_ || o->independent || gq_twice())
    return false; /* fixed steps have no bound */
  return rows > 1 && rows <= FEW_ROWS && row <= LONG_ROW && gq_field_independent(f) == GQ_OK &&
         (!f->columns || f->points);
}

/* Multistep: nothing goes back through their steps. The adjoint along the kept solution where that fits. */
static int multistep(const gq_planspec *s, gq_ode_options *o, bool dense, gq_info *info) {
  dense = dense && !o->overshoot;
  o->trajectory = dense ? &gq_trajectory_dense : &gq_trajectory_reverse;
  decide(s, o, info, "gq", "steps of %s hang on those before; %s", o->method->name,
         dense          ? "the adjoint is solved along the kept solution"
         : o->overshoot ? "z and the adjoint are solved backwards"
                        : "their states are over memory_limit: z and the adjoint are solved backwards");
  return GQ_OK;
}

static int choose(const gq_planspec *s, gq_ode_options *o, gq_info *info) {
  gq_plan *p;
  if (o->method->multistep) return multistep(s, o, true, info);
  o->engine = s->find("direct");
  GQ_TRY(gq_plan_get(s, &p));
  double steps = p->most > 0 ? p->most : EXPECTED, record = activations(p);
  bool few = collocates(s, o, p->field), here = gq_tensor_device(s->p->z0) == gq_host;
  if (few && here) {
    o->trajectory = &gq_trajectory_dense, o->moments = false, o->nodes = GQ_NODES_NFE;
    decide(s, o, info, "gqc", "%lld rows are few: nodes of all steps are evaluated side by side",
           (long long)p->field->shape.dim[0]);
  } else if (!o->error && !o->stiffness && steps * record > (double)o->memory_limit)
    without_activations(s, o, p, steps, info);
  else
    decide(s, o, info, "direct", "activations of %.0f steps take %.1f MB, within the limit of %.1f MB%s",
           steps, mega(steps * record), mega((double)o->memory_limit),
           few ? "; gqc, which so few rows take on the CPU, is launches of small operations on a device"
               : "");
  gq_plan_release(p);
  return GQ_OK;
}

static int retreat(const gq_planspec *s, gq_ode_options *o, int64_t steps, gq_info *info) {
  gq_plan *p;
  if (o->method->multistep) return multistep(s, o, false, info);
  GQ_TRY(gq_plan_get(s, &p));
  if (steps < p->most) steps = p->most;
  without_activations(s, o, p, (double)(steps > 0 ? steps : 1), info);
  gq_plan_release(p);
  return GQ_OK;
}

int gq_auto_choose(const gq_planspec *s, gq_ode_options *o, int64_t steps, gq_info *info) {
  return steps < 0 ? choose(s, o, info) : retreat(s, o, steps, info);
}

/* Bytes that an engine of SDEs keeps of a step. */
static int kept_by(const gq_planspec *s, gq_ode_options *o, const char *engine, unsigned keeps,
                   double *bytes) {
  gq_plan *p;
  o->engine = s->find(engine);
  GQ_TRY(gq_plan_get(s, &p));
  *bytes = (double)gq_step_state_bytes(p, keeps);
  gq_plan_release(p);
  return GQ_OK;
}

/* Of an SDE, whose steps are known beforehand but for those that measurement times shorten. */
int gq_noise_choose(const gq_planspec *s, gq_ode_options *o, int64_t steps, gq_info *info) {
  unsigned states = GQ_STEP_STATES | GQ_STEP_NOISE;
  double span = fabs(s->p->t[s->p->nt - 1] - s->p->t[0]), limit = (double)o->memory_limit, direct, aca;
  if (o->independent) {
    decide(s, o, info, "direct", "samples have steps of their own, whose states are kept");
    return GQ_OK;
  }
  double n = steps > 0 ? (double)steps : span / (o->step_size > 0 ? o->step_size : o->first_step) + s->p->nt;
  GQ_TRY(kept_by(s, o, "direct", states | GQ_STEP_ACTIVATIONS, &direct));
  if (steps < 0 && n * direct <= limit) {
    decide(s, o, info, "direct", "activations of %.0f steps take %.1f MB, within the limit of %.1f MB", n,
           mega(n * direct), mega(limit));
    return GQ_OK;
  }
  GQ_TRY(kept_by(s, o, "aca", states, &aca));
  if (gq_method_reversible(o->method) && n * aca > limit)
    decide(s, o, info, "reversible",
           "states of %.0f steps take %.1f MB, over the limit of %.1f MB; %s steps are inverted", n,
           mega(n * aca), mega(limit), o->method->name);
  else
    decide(s, o, info, "aca",
           "activations of %.0f steps take %.1f MB, over the limit of %.1f MB; steps are run again", n,
           mega(n * direct), mega(limit));
  return GQ_OK;
}
