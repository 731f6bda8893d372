/*
** stochastic.c -- the adjoint of an SDE, solved backwards along the path that the solve went along: Li, Wong, Chen &
** Duvenaud, AISTATS 2020, in Stratonovich form, dz = f dt + G o dW, da = -a'df/dz dt - a'dG/dz o dW, with the integral
** of a'df/dtheta dt + a'dG/dtheta o dW by the method's weights. z starts anew from its stored value at every time.
*/
#include "../method/explicit.h"
#include "../ode/solution.h"

#include <math.h>

typedef struct adjoint {
  gq_pullback *b;
  gq_walk w;
  void *block;
  gq_rounds *rounds; /* where steps wait, or NULL */
} adjoint;

static int fail_nonfinite(double t1, double h) {
  return gq_fail(GQ_ENONFINITE,
                 "in the backward pass a value that is not finite appeared before t = %.9g (step %.3g)", t1,
                 h);
}

static int settle(adjoint *d) {
  gq_looked at;
  int status = gq_rounds_do(d->rounds, &at);
  if (status == GQ_ENONFINITE) return fail_nonfinite(at.t, at.h);
  return status == GQ_EINTERRUPT ? gq_interrupted_back(d->w.a.t) : status;
}

static int buffers(adjoint *d) {
  gq_attempt *a = &d->w.a;
  size_t part = gq_round64(gq_part_bytes(a->field));
  if (!(d->block = gq_allocate(a->field->on, 4 * part))) return gq_nomem(4 * part);
  gq_zero(a->field->on, d->block, 4 * part);
  d->b->s->bytes += 4 * part;
  char *next = d->block;
  for (int p = 0; p < 2; p++) a->y[p] = next + p * part, a->y1[p] = next + (2 + p) * part;
  return GQ_OK;
}

/* Over [t, t1], from its end. */
static int step(adjoint *d, double t, double t1) {
  gq_attempt *a = &d->w.a;
  gq_along *along = &d->b->s->along;
  double ratio;
  if (!gq_along_known(along, t1, t)) {
    GQ_TRY(settle(d));
    GQ_TRY(gq_along_step(along, t1, t));
  }
  a->w = along->packed, a->t = t1, a->t1 = t, a->h = t - t1;
  gq_attempt_times(a, t1, a->h, t);
  if (gq_interrupted()) return gq_interrupted_back(t1);
  GQ_TRY(a->st->m->steps->attempt(a, &d->w.c, &ratio));
  if (isnan(ratio)) return fail_nonfinite(t1, t - t1);
  if (a->st->l.nq) GQ_TRY(gq_walk_phase(&d->w, 1));
  gq_walk_commit(&d->w);
  return GQ_OK;
}

/* z as it was at time k, and its cotangent. */
static void restart(adjoint *d, int k) {
  gq_solution *s = d->b->s;
  gq_attempt *a = &d->w.a;
  gq_field_pack(s->plan->field, gq_at_time(s, s->z, k), a->y[0]);
  gq_state_add(a->field, 1, gq_at_time(s, d->b->gz, k), a->y[1]);
}

/* How far z is from what it was at time k. */
static void compare(adjoint *d, int k) {
  gq_solution *s = d->b->s;
  gq_attempt *a = &d->w.a;
  gq_field_pack(s->plan->field, gq_at_time(s, s->z, k), a->y1[0]);
  double r = gq_attempt_norm(a, a->y[0], a->y1[0], a->y1[0]);
  if (!(r <= s->info.reconstruction)) s->info.reconstruction = r;
}

/* The same by as many steps as the solve took: one, or two half ones. */
static int step_back(adjoint *d, int64_t i, double t1) {
  gq_solution *s = d->b->s;
  gq_along *along = &s->along;
  double t = gq_step(&s->steps, i).t, mid = t + (t1 - t) / 2, ends[GQ_ALONG_STEPS + 1];
  if (s->plan->field->intervals == 1) {
    if (!gq_along_known(along, t1, t)) {
      GQ_TRY(settle(d));
      GQ_TRY(gq_along_steps(along, gq_steps_back(&s->steps, i, t1, along->most, ends), ends, false));
    }
    return step(d, t, t1);
  }
  GQ_TRY(step(d, mid, t1));
  return step(d, t, mid);
}

static int run(adjoint *d) {
  gq_solution *s = d->b->s;
  int64_t i = s->steps.n;
  double t1 = s->t[s->nt - 1], dir = t1 < s->t[0] ? -1 : 1;
  for (int k = s->nt - 1; k > 0; k--) {
    restart(d, k);
    if (s->t[k] == s->t[k - 1]) continue;
    for (; i > 0 && dir * (t1 - s->t[k - 1]) > 0; i--) {
      GQ_TRY(step_back(d, i - 1, t1));
      t1 = gq_step(&s->steps, i - 1).t;
    }
    GQ_TRY(settle(d));
    compare(d, k - 1);
  }
  restart(d, 0);
  s->info.steps_backward = s->steps.n * (s->plan->field->intervals == 1 ? 1 : 2);
  gq_field_unpack(s->plan->field, d->w.a.y[1], d->b->a);
  return GQ_OK;
}

int gq_stochastic_backward(gq_pullback *b) {
  gq_solution *s = b->s;
  adjoint d = { .b = b };
  gq_walk *w = &d.w;
  const gq_stepper *st = &s->plan->backward;
  w->a.tol.rtol = s->o.rtol, w->a.tol.atol[0] = w->a.tol.atol[1] = s->o.atol;
  w->a.sum.grads = &b->grads, w->a.jumps = gq_solution_jumps(s);
  int status = gq_walk_init(w, st, s->bind, s->plan->arena);
  for (int i = 0; i < st->m->stages && status == GQ_OK; i++) w->a.shared->wq[i] = -st->m->b[i];
  if (status == GQ_OK && gq_program_may_wait(st))
    status = gq_rounds_new(s->plan->field, gq_program_waits(st, s->plan->field), &d.rounds);
  w->a.rounds = d.rounds, s->bytes += gq_rounds_bytes(d.rounds);
  if (status == GQ_OK) status = buffers(&d);
  if (status == GQ_OK) status = run(&d);
  b->nfe = w->a.cost.nfe;
  gq_rounds_free(d.rounds);
  gq_walk_done(w);
  gq_release(s->plan->field->on, d.block);
  return status;
}

int gq_stochastic_build(gq_plan *p) {
  gq_stepkind kind = { .m = p->key->back_method };
  GQ_TRY(gq_plan_forward(p, false));
  return gq_stepper_new(&p->backward, &kind, p->field, gq_system_rise, &p->key->calculus);
}
