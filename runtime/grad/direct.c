/*
** direct.c -- backpropagation through the accepted steps, whose activations were kept by the forward
** solve (direct) or are formed again from the kept state (aca, Zhuang et al. 2020) or from one that the
** inverse of the step gives back (mali, reversible: Zhuang et al. 2021, Kidger et al. 2021, Algorithm 2); the
** step program's phase 2 is its vjp. Step sizes are constants, but for those
** clamped to a measurement time, h = t_k - t_n, and the positions of inner times in their step.
*/
#include "../method/explicit.h"
#include "../method/heuristic.h"
#include "../ode/solution.h"

#include <math.h>
#include <string.h>

typedef struct direct {
  gq_pullback *b;
  gq_walk w;
  void *block;
  void *gy, *gf; /* cotangents of a step's start that do not pass through its program, */
  bool inner;    /* where there are some: of times inside the step */
  size_t part;
  int k;                 /* measurement times above this one are done */
  double dt, dh;         /* derivatives in the step's t and h that do not either */
  double jump;           /* those of jumps, which do not move with the steps */
  int64_t at;            /* number of the step gone back, */
  gq_step_record step;   /* that, */
  double t1;             /* where it ended, */
  gq_step_state *z, *z1; /* and the states there */
  gq_walk inverse;       /* mali, reversible */
  bool joint;            /* which knows the derivative of the step too, */
  void **left[2];        /* where that is of the step before: arenas that inverses leave by turns */
  void *still;           /* noise of a step of no length */
  gq_rounds *rounds;     /* where steps wait, or NULL */
} direct;

enum { STEP, INVERSE }; /* whose numbers are looked at */

static int fail(int what, double t, double h) {
  if (what == STEP)
    return gq_fail(GQ_ENONFINITE,
                   "in the backward pass the derivative of the step from t = %.9g (step %.3g) is not finite",
                   t, h);
  return gq_fail(GQ_ENONFINITE,
                 "the inverse of the step from t = %.9g is not finite: gradient = \"aca\" keeps the "
                 "states instead",
                 t);
}

static const gq_field *field(const direct *d) { return d->b->s->plan->field; }

/* All that waits, before something is looked at. */
static int settle(direct *d) {
  gq_looked at;
  int status = gq_rounds_do(d->rounds, &at);
  if (status == GQ_ENONFINITE) return fail(at.what, at.t, at.h);
  return status == GQ_EINTERRUPT ? gq_interrupted_back(d->step.t) : status;
}

static int buffers(direct *d) {
  gq_walk *w = &d->w;
  const gq_field *f = field(d);
  void **all[] = { &w->a.pull.cy, &w->a.pull.cf, &w->a.pull.py, &w->a.pull.pf, &d->gy, &d->gf };
  int slopes = w->a.st->m->slopes, extra = w->a.st->l.extra, whole = 6;
  d->part = gq_round64(gq_part_bytes(f));
  size_t bytes = (slopes + whole) * d->part;
  for (int e = 0; e < extra; e++) bytes += 2 * gq_round64(gq_extra_bytes(f, e));
  d->block = gq_allocate(f->on, bytes);
  if (!d->block) return gq_nomem(bytes);
  gq_zero(f->on, d->block, bytes);
  d->b->s->bytes += bytes;
  char *next = d->block;
  for (int i = 0; i < whole; i++) *all[i] = next, next += d->part;
  for (int i = 0; i < slopes; i++) w->a.pull.ck[i] = next, next += d->part;
  for (int e = 0; e < 2 * extra; e++) {
    *(e % 2 ? &w->a.pull.px[e / 2] : &w->a.pull.cx[e / 2]) = next;
    next += gq_round64(gq_extra_bytes(f, e / 2));
  }
  return GQ_OK;
}

/* Once what waits is done. */
static void add_later(const direct *d, const void *x, void *y) {
  if (d->rounds) gq_rounds_add(d->rounds, x, y);
  else gq_state_add(field(d), 1, x, y);
}

/* Is x finite, of what the step gives? */
static int look(const direct *d, const void *x, int what) {
  gq_looked told = { what, d->step.t, d->step.h };
  if (d->rounds) gq_rounds_look(d->rounds, x, NULL, 0, told);
  else if (!gq_state_finite(field(d), x)) return fail(what, told.t, told.h);
  return GQ_OK;
}

/* Slope i of the step times the cotangent g of the whole state. */
static double slope_dot(const direct *d, int i, const void *g) {
  const gq_field *f = field(d);
  double sum = 0;
  for (int s = 0; s < f->nslices; s++) {
    size_t n = gq_numel(f->class_shape[f->class_of[s]]);
    size_t off = f->nslices > 1 ? f->first[s] * (gq_part_bytes(f) / f->shape.dim[0]) : 0;
    sum += f->on->vec->dot(f->dtype, n, gq_walk_slope(&d->w, i, 0, s), (const char *)g + off);
  }
  return sum;
}

/* Measurement time k lies inside the step: z_k = y + h sum_i w_i(theta) k_i, theta = (t_k - t) / h. */
static void pull_inner(direct *d, int k) {
  gq_pullback *b = d->b;
  const gq_solution *s = b->s;
  const gq_stepper *st = d->w.a.st;
  const gq_step_record *r = &d->step;
  const void *g = gq_at_time(s, b->gz, k);
  double wt[GQ_MAXSTAGES], slope[GQ_MAXSTAGES], theta = (s->t[k] - r->t) / r->h, dtheta = 0;
  d->inner = true;
  gq_tableau_weights(st->m, theta, wt);
  gq_tableau_slopes(st->m, theta, slope);
  gq_state_add(field(d), 1, g, d->gy);
  for (int i = 0; i < st->m->slopes; i++) {
    bool start = st->l.carry && i == 0, end = st->l.carry && i == st->m->end;
    gq_state_add(field(d), r->h * wt[i], g, start ? d->gf : end ? d->w.a.pull.cf : d->w.a.pull.ck[i]);
    if (!b->gt) continue;
    double kg = slope_dot(d, i, g);
    dtheta += r->h * slope[i] * kg;
    d->dh += wt[i] * kg;
  }
  if (!b->gt) return;
  b->gt[k] += dtheta / r->h;
  d->dt -= dtheta / r->h;
  d->dh -= theta * dtheta / r->h;
}

/* The slope at the start of a kept step: carried by the method (alf and reversible_heun carry something
** else), or evaluated (into w.a.pull.py). */
static int slope_at(direct *d, double t, gq_step_state *z, void **f) {
  gq_solution *s = d->b->s;
  bool carried = d->w.a.st->l.carry && !gq_method_stops(d->w.a.st->m);
  *f = carried ? z->f : d->w.a.pull.py;
  if (carried) return GQ_OK;
  d->b->nfe++;
  return gq_evaluate_at(&s->plan->f, s->bind, t, &z->y, f, NULL, NULL);
}

/* What takes the derivative in a time that steps begin or end at. */
static double *time_of(direct *d, int k) {
  const gq_solution *s = d->b->s;
  return s->t[k] != s->t[0] && gq_at_jump(s, s->t[k]) ? &d->jump : &d->b->gt[k];
}

/* Measurement times at a jump, where the step ends: the slope before it moves the state, and the jump moves with the
** last of them. */
static int pull_end_at_jump(direct *d) {
  gq_pullback *b = d->b;
  const gq_attempt *a = &d->w.a;
  double dir = d->step.h < 0 ? -1 : 1, before;
  GQ_TRY(gq_jump_gradient(b, a, d->k, d->z1->y, a->pull.cy, a->pull.py));
  for (; d->k >= 0 && b->s->t[d->k] == d->t1; d->k--) {
    const void *g = gq_at_time(b->s, b->gz, d->k);
    if (b->gt) GQ_TRY(gq_slope_dot(b, gq_attempt_begin(a, d->t1, -dir), d->z1->y, g, a->pull.py, &before));
    if (b->gt) b->gt[d->k] += before;
    add_later(d, g, a->pull.cy);
  }
  return GQ_OK;
}

/* Measurement times at the step's end. One that the step was not clamped to reads the end state
** too; moving it alone moves along the slope there. */
static int pull_end(direct *d) {
  gq_pullback *b = d->b;
  int stop = gq_step_moves(b->s, &d->step) ? d->step.stop : -1;
  if (gq_at_jump(b->s, d->t1)) return pull_end_at_jump(d);
  for (; d->k >= 0 && b->s->t[d->k] == d->t1; d->k--) {
    const void *g = gq_at_time(b->s, b->gz, d->k);
    void *f;
    add_later(d, g, d->w.a.pull.cy);
    if (!b->gt || d->k == stop) continue;
    GQ_TRY(slope_at(d, d->t1, d->z1, &f));
    double gf = gq_state_dot(field(d), g, f);
    b->gt[d->k] += gf;
    if (stop >= 0) b->gt[stop] -= gf;
    else d->dt -= gf;
  }
  return GQ_OK;
}

/* Not direct: the activations of the step once more; the same numbers are stored over the step's end. */
static int run_again(gq_walk *w) {
  if (w->a.st->kind.whole) {
    w->a.cost.nfe += w->a.st->l.nfe + w->a.st->l.nfe_dense;
    return GQ_OK;
  }
  GQ_TRY(gq_walk_phase(w, 0));
  w->a.cost.nfe += w->a.st->l.nfe;
  return w->a.st->l.nfe_dense ? gq_walk_phase(w, 1) : GQ_OK;
}

/* The step's share of info.error and info.stiffness. */
static void pull_heuristics(direct *d) {
  const gq_pullback *b = d->b;
  double h = d->step.h;
  gq_heuristic e;
  if (!b->s->o.error && !b->s->o.stiffness) return;
  gq_heuristic_of(d->z->sum, b->s->plan->field, &e);
  for (int i = 0; i < GQ_SUMS; i++)
    d->w.a.shared->csum[i] = i < GQ_SUM_SLOPES ? b->error * fabs(h) * e.slope[i] : b->stiffness * e.slope[i];
  d->dh += b->error * (h < 0 ? -e.error : e.error);
}

/* What the inverse of the step after left, at this one's end. */
static void take_left(direct *d) {
  gq_attempt *a = &d->inverse.a;
  a->y1[0] = d->z1->y, a->f1[0] = d->z1->f, memcpy(a->x1, d->z1->x, sizeof d->z1->x);
  a->arena = d->left[1], a->shared->t = gq_attempt_begin(a, d->t1, d->step.h < 0 ? 1 : -1);
}

/* Phase 2, of the step or of its inverse. */
static int pull_program(direct *d) {
  gq_walk *w = &d->w, *v = &d->inverse;
  if (!d->joint) return gq_walk_phase(w, 2);
  v->a.pull = w->a.pull, v->a.sum.grads = w->a.sum.grads;
  v->a.pull.y = d->z->y, v->a.pull.f = d->z->f, memcpy(v->a.pull.x, d->z->x, sizeof d->z->x);
  if (d->left[1]) take_left(d);
  GQ_TRY(gq_walk_phase(v, 2));
  w->a.pull.pt = v->a.pull.pt, w->a.pull.ph = v->a.pull.ph;
  return GQ_OK;
}

/* W over the step: kept with it, or asked for again. */
static int take_noise(direct *d) {
  gq_along *along = &d->b->s->along;
  double t[GQ_ALONG_STEPS + 1];
  if (along->path && !d->z->w && !gq_along_known(along, d->step.t, d->t1)) {
    GQ_TRY(settle(d));
    GQ_TRY(gq_along_steps(along, gq_steps_back(&d->b->s->steps, d->at, d->t1, along->most, t), t, true));
  }
  d->w.a.w = d->inverse.a.w = d->z->w ? d->z->w : along->packed;
  return GQ_OK;
}

static int clear_inner(direct *d) {
  GQ_TRY(settle(d));
  for (int i = 0; i < d->w.a.st->m->slopes; i++) gq_state_clear(field(d), d->w.a.pull.ck[i]);
  gq_state_clear(field(d), d->gy);
  gq_state_clear(field(d), d->gf);
  d->inner = false;
  return GQ_OK;
}

static void swap(void **x, void **y) {
  void *was = *x;
  *x = *y, *y = was;
}

/* One step back: cy, cf, cx hold the cotangents of its end, then of its start. */
static int pull_step(direct *d) {
  gq_pullback *b = d->b;
  gq_walk *w = &d->w;
  const gq_step_record *r = &d->step;
  const gq_step_state *z = d->z, *z1 = d->z1;
  double dir = r->h < 0 ? -1 : 1;
  bool kept = b->s->o.engine->keeps == GQ_KEEP_ACTIVATIONS;
  w->a.y[0] = z->y, w->a.f[0] = z->f, w->a.y1[0] = z1->y, w->a.f1[0] = z1->f;
  memcpy(w->a.x, z->x, sizeof z->x), memcpy(w->a.x1, z1->x, sizeof z1->x);
  w->a.arena = kept ? z->arena : b->s->plan->arena, w->a.t = r->t, w->a.h = r->h;
  gq_attempt_times(&w->a, r->t, r->h, d->t1);
  GQ_TRY(take_noise(d));
  if (kept && w->a.st->m->steps->load) w->a.st->m->steps->load(&w->a, z->slope, z->part);
  if (!d->joint && (!kept || gq_at_jump(b->s, d->t1)))
    GQ_TRY(run_again(w)); /* at a jump f1 was written over */
  if (d->inner) GQ_TRY(clear_inner(d));
  d->dt = d->dh = 0;
  GQ_TRY(pull_end(d));
  if (d->k >= 0 && dir * (b->s->t[d->k] - r->t) > 0) GQ_TRY(settle(d));
  for (; d->k >= 0 && dir * (b->s->t[d->k] - r->t) > 0; d->k--) pull_inner(d, d->k);
  pull_heuristics(d);
  GQ_TRY(pull_program(d));
  if (gq_interrupted()) return gq_interrupted_back(r->t);
  swap(&w->a.pull.cy, &w->a.pull.py);
  if (d->inner) add_later(d, d->gy, w->a.pull.cy);
  if (w->a.st->l.carry) swap(&w->a.pull.cf, &w->a.pull.pf);
  if (w->a.st->l.carry && d->inner) add_later(d, d->gf, w->a.pull.cf);
  for (int e = 0; e < w->a.st->l.extra; e++) swap(&w->a.pull.cx[e], &w->a.pull.px[e]);
  GQ_TRY(look(d, w->a.pull.cy, STEP));
  if (!b->gt) return GQ_OK;
  double t = w->a.pull.pt + d->dt, h = w->a.pull.ph + d->dh;
  if (gq_step_moves(b->s, r)) *time_of(d, r->stop) += h, t -= h;
  *time_of(d, r->anchor) += t;
  return GQ_OK;
}

/* What was carried besides y began with the y of z: x as it is, and the slope f(t, y). */
static int pull_slope(direct *d, double at, int anchor, gq_step_state *z) {
  gq_pullback *b = d->b;
  const gq_solution *s = b->s;
  double t = gq_attempt_begin(&d->w.a, at, s->t[s->nt - 1] < s->t[0] ? -1 : 1);
  void *const *cx = d->w.a.pull.cx;
  void *x[] = { z->y, d->w.a.pull.cf, cx[GQ_EXTRA_DIFFUSION] }, *out[] = { d->w.a.pull.py };
  GQ_TRY(settle(d));
  if (d->w.a.st->l.extra) gq_state_add(field(d), 1, cx[GQ_EXTRA_TWIN], d->w.a.pull.cy);
  if (!d->w.a.st->l.carry) return GQ_OK;
  GQ_TRY(gq_evaluate_at(&s->plan->pull, s->bind, t, x, out, &b->grads, b->gt ? time_of(d, anchor) : NULL));
  gq_state_add(field(d), 1, d->w.a.pull.py, d->w.a.pull.cy);
  return GQ_OK;
}

/* After the step from a jump: the one before it ends with slopes that nobody read. */
static int pull_jump(direct *d) {
  if (!gq_at_jump(d->b->s, d->step.t)) return GQ_OK;
  GQ_TRY(pull_slope(d, d->step.t, d->step.anchor, d->z));
  gq_state_clear(field(d), d->w.a.pull.cf);
  if (d->w.a.st->l.extra) gq_state_clear(field(d), d->w.a.pull.cx[GQ_EXTRA_TWIN]);
  return GQ_OK;
}

/* The first slope f(t_0, z_0) and the times equal to t_0. */
static int pull_start(direct *d, gq_step_state *first) {
  gq_pullback *b = d->b;
  gq_solution *s = b->s;
  GQ_TRY(pull_slope(d, s->t[0], 0, first));
  for (; d->k >= 0; d->k--) {
    const void *g = gq_at_time(s, b->gz, d->k);
    void *f;
    gq_state_add(field(d), 1, g, d->w.a.pull.cy);
    if (!b->gt || d->k == 0) continue;
    GQ_TRY(slope_at(d, s->t[0], first, &f));
    double gf = gq_state_dot(field(d), g, f);
    b->gt[d->k] += gf, b->gt[0] -= gf;
  }
  GQ_TRY(settle(d));
  gq_field_unpack(s->plan->field, d->w.a.pull.cy, b->a);
  return GQ_OK;
}

/* ---- the inverse ---- */

/* The start of the step from its end. */
static int invert(direct *d, gq_walk *w) {
  const gq_step_record *r = &d->step;
  w->a.y[0] = d->z1->y, w->a.f[0] = d->z1->f, w->a.y1[0] = d->z->y, w->a.f1[0] = d->z->f;
  memcpy(w->a.x, d->z1->x, sizeof d->z1->x), memcpy(w->a.x1, d->z->x, sizeof d->z->x);
  if (d->left[0]) w->a.arena = d->left[0];
  GQ_TRY(take_noise(d));
  gq_attempt_times(&w->a, r->t, r->h, d->t1);
  GQ_TRY(gq_walk_phase(w, 0));
  w->a.cost.nfe += w->a.st->l.nfe;
  return look(d, d->z->y, INVERSE);
}

/* How far the reconstruction at a measurement time is from what the forward solve gave. */
static int compare(direct *d, int k, const void *y) {
  gq_solution *s = d->b->s;
  GQ_TRY(settle(d));
  gq_field_pack(s->plan->field, gq_at_time(s, s->z, k), d->w.a.pull.py);
  double r = gq_attempt_norm(&d->w.a, y, d->w.a.pull.py, d->w.a.pull.py);
  if (!(r <= s->info.reconstruction)) s->info.reconstruction = r;
  return GQ_OK;
}

/* The end of smooth piece i, as it was. */
static void load(direct *d, int64_t i) {
  const gq_step_state *end = d->b->s->ends.state[i];
  d->t1 = gq_step(&d->b->s->ends, i).t;
  gq_copy(field(d)->on, d->z1->y, end->y, d->part), gq_copy(field(d)->on, d->z1->f, end->f, d->part);
  for (int e = 0; e < d->w.a.st->l.extra; e++)
    gq_copy(field(d)->on, d->z1->x[e], end->x[e], gq_extra_bytes(field(d), e));
}

static void exchange(direct *d) {
  gq_step_state *z = d->z;
  void **left = d->left[0];
  d->z = d->z1, d->z1 = z, d->left[0] = d->left[1], d->left[1] = left;
}

/* The end of smooth piece i, as a step after it leaves it: one of no length, from x, where f is evaluated. */
static int begin_at(direct *d, gq_walk *w, int64_t i) {
  const gq_solution *s = d->b->s;
  gq_attempt *a = &w->a;
  GQ_TRY(settle(d));
  load(d, i);
  if (!d->left[0]) return GQ_OK;
  a->y[0] = d->z1->x[GQ_EXTRA_TWIN], a->f[0] = d->z1->f, memcpy(a->x, d->z1->x, sizeof d->z1->x);
  a->y1[0] = d->z->y, a->f1[0] = d->z->f, memcpy(a->x1, d->z->x, sizeof d->z->x);
  a->arena = d->left[0], a->w = d->still, a->shared->h = a->shared->ht = 0;
  a->shared->t = gq_attempt_begin(a, d->t1, s->t[s->nt - 1] < s->t[0] ? 1 : -1);
  GQ_TRY(gq_walk_phase(w, 0));
  a->cost.nfe += a->st->l.nfe;
  GQ_TRY(settle(d));
  gq_copy(field(d)->on, d->z->y, d->z1->y, d->part);
  exchange(d);
  return GQ_OK;
}

static int invert_all(direct *d, gq_walk *w) {
  gq_solution *s = d->b->s;
  int64_t end = s->ends.n - 1;
  GQ_TRY(begin_at(d, w, end));
  for (int64_t i = s->steps.n - 1; i >= 0; i--) {
    d->at = i, d->step = gq_step(&s->steps, i);
    if (end > 0 && gq_step(&s->ends, end - 1).t == d->t1) GQ_TRY(begin_at(d, w, --end));
    GQ_TRY(invert(d, w));
    GQ_TRY(pull_step(d));
    if (i == 0 || gq_step(&s->steps, i - 1).stop >= 0) GQ_TRY(compare(d, d->step.anchor, d->z->y));
    if (i > 0) GQ_TRY(pull_jump(d));
    exchange(d), d->t1 = d->step.t;
  }
  s->info.steps_backward = s->steps.n;
  GQ_TRY(settle(d));
  gq_field_pack(s->plan->field, gq_at_time(s, s->z, 0), d->z1->y);
  return pull_start(d, d->z1);
}

/* Two arenas, where derivatives are of the step before. */
static int leave(direct *d) {
  gq_solution *s = d->b->s;
  const gq_field *f = s->plan->field;
  size_t each = gq_code_lasting(&s->plan->inverse.code), still = gq_along_bytes(f);
  if (!d->joint || !s->plan->inverse.m->tuple->late) return GQ_OK;
  for (int i = 0; i < 2; i++)
    if (!(d->left[i] = gq_arenas_new(f, each))) return gq_nomem(each);
  if (f->noise && !(d->still = gq_allocate(f->on, still))) return gq_nomem(still);
  if (f->noise) gq_zero(f->on, d->still, still);
  s->bytes += 2 * f->nslices * each + (f->noise ? still : 0);
  return GQ_OK;
}

static int run_inverse(direct *d) {
  gq_solution *s = d->b->s;
  gq_walk *w = &d->inverse;
  *w = (gq_walk){ .a.jumps = gq_solution_jumps(s) };
  w->a.tol.rtol = s->o.rtol, w->a.tol.atol[0] = s->o.atol;
  d->joint = s->plan->inverse.kind.pull;
  gq_steps two = { 0 };
  int status = gq_walk_init(w, &s->plan->inverse, s->bind, s->plan->arena);
  w->a.rounds = d->rounds;
  if (status == GQ_OK) status = leave(d);
  if (status == GQ_OK) status = gq_steps_room(&two, 2, true, NULL);
  for (int i = 0; i < 2 && status == GQ_OK; i++)
    status = gq_step_state_get(s->plan, GQ_STEP_STATES, &s->bytes, &two.state[i]);
  if (status == GQ_OK) d->z = two.state[0], d->z1 = two.state[1], status = invert_all(d, w);
  gq_steps_give_back(&two, s->plan, 0, 2);
  gq_steps_done(&two);
  d->w.a.cost.nfe += w->a.cost.nfe;
  for (int i = 0; i < 2; i++) gq_arenas_free(s->plan->field, d->left[i]);
  if (d->still) gq_release(s->plan->field->on, d->still);
  gq_walk_done(w);
  return status;
}

static int run(direct *d) {
  gq_solution *s = d->b->s;
  const gq_steps *st = &s->steps;
  for (int64_t i = st->n - 1; i >= 0; i--) {
    d->at = i, d->step = gq_step(st, i), d->t1 = gq_step(st, i + 1).t;
    d->z = st->state[i], d->z1 = st->state[i + 1], d->w.a.soon = i > 0 ? st->state[i - 1]->arena : NULL;
    GQ_TRY(pull_step(d));
    if (i > 0) GQ_TRY(pull_jump(d));
  }
  s->info.steps_backward = st->n;
  return pull_start(d, st->state[0]);
}

/* The step and its derivative. */
static const gq_stepper *stepper(const gq_plan *p) {
  return p->backward.kind.whole ? &p->backward : &p->forward;
}

/* Unless derivatives in times or heuristics are asked for, steps give nothing that is looked at. */
static int find_rounds(direct *d) {
  const gq_solution *s = d->b->s;
  const gq_plan *p = s->plan;
  const gq_stepper *st = d->w.a.st;
  bool inverse = p->inverse.m;
  size_t waits = gq_program_waits(st, p->field),
         other = inverse ? gq_program_waits(&p->inverse, p->field) : 0;
  if (d->b->gt || s->o.error || s->o.stiffness) return GQ_OK;
  if (!gq_program_may_wait(st) || (inverse && !gq_program_may_wait(&p->inverse))) return GQ_OK;
  GQ_TRY(gq_rounds_new(p->field, waits > other ? waits : other, &d->rounds));
  d->w.a.rounds = d->rounds;
  d->b->s->bytes += gq_rounds_bytes(d->rounds);
  return GQ_OK;
}

static int backward(gq_pullback *b, int (*run)(direct *)) {
  gq_solution *s = b->s;
  direct d = { .b = b, .k = s->nt - 1 };
  gq_walk *w = &d.w;
  w->a.tol.rtol = s->o.rtol, w->a.tol.atol[0] = s->o.atol, w->a.sum.grads = &b->grads;
  w->a.jumps = gq_solution_jumps(s);
  int status = gq_walk_init(w, stepper(s->plan), s->bind, s->plan->arena);
  s->bytes += w->a.bytes;
  if (status == GQ_OK) status = buffers(&d);
  if (status == GQ_OK) status = find_rounds(&d);
  if (status == GQ_OK) status = run(&d);
  b->nfe += w->a.cost.nfe;
  gq_rounds_free(d.rounds);
  gq_walk_done(w);
  gq_release(b->s->plan->field->on, d.block);
  return status;
}

int gq_direct_backward(gq_pullback *b) { return backward(b, run); }
int gq_inverse_backward(gq_pullback *b) { return backward(b, run_inverse); }

/* ---- what is compiled ---- */

/* Where a step's drift is implicit, it is pulled back apart from the rest. */
static int build_pull(gq_plan *p) {
  const gq_adjointkind drift = { .products = GQ_PRODUCTS_ALL };
  if (p->field->noise && p->key->method->steps->stiff)
    return gq_evaluator_new(&p->scratch, gq_system_adjoint, &drift, &p->pull);
  return gq_evaluator_new(&p->scratch, gq_system_pull, &p->key->t_grad, &p->pull);
}

int gq_direct_build(gq_plan *p) {
  GQ_TRY(p->key->engine->keeps == GQ_KEEP_STEPS ? gq_plan_again(p) : gq_plan_forward(p, true));
  return build_pull(p);
}

/* alf's inverse evaluates f where its step does, reversible Heun's where the step before does: they bring the derivative
** along. */
int gq_inverse_build(gq_plan *p) {
  const gq_plankey *k = p->key;
  bool joint = k->method->tuple->pulled;
  GQ_TRY(joint ? gq_plan_forward(p, false) : gq_plan_again(p));
  gq_stepkind kind = {
    .m = k->method, .inverse = true, .eta = k->eta, .pull = joint, .pull_time = joint && k->t_grad
  };
  GQ_TRY(gq_stepper_new(&p->inverse, &kind, p->field, gq_system_forward, NULL));
  return build_pull(p);
}
