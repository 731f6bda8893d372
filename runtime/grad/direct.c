/*
** direct.c -- backpropagation through the accepted steps, whose activations were kept by the forward
** solve (direct) or are formed again from the kept state (aca, Zhuang et al. 2020) or from one that the
** inverse of the step gives back (mali, reversible: Zhuang et al. 2021, Kidger et al. 2021, Algorithm 2); the
** step program's phase 2 is its vjp. Step sizes are constants, but for those
** clamped to a measurement time, h = t_k - t_n, and the positions of inner times in their step.
*/
#include "../method/heuristic.h"
#include "../method/implicit.h"
#include "../ode/solution.h"

#include <math.h>
#include <string.h>

typedef struct direct {
  gq_pullback *b;
  gq_walk w;
  void *block;
  void *gy, *gf; /* cotangents of a step's start that do not pass through its program */
  size_t part, n;
  int k;           /* measurement times above this one are done */
  double dt, dh;   /* derivatives in the step's t and h that do not either */
  gq_walk inverse; /* mali, reversible */
  bool joint;      /* which knows the derivative of the step too */
} direct;

static int buffers(direct *d) {
  gq_walk *w = &d->w;
  const gq_field *f = d->b->s->plan->field;
  int slopes = w->st->m->slopes, whole = w->st->l.extra ? 8 : 6;
  d->n = gq_numel(f->shape);
  d->part = gq_round64(gq_part_bytes(f));
  d->block = gq_calloc(slopes + whole, d->part);
  if (!d->block) return gq_nomem((slopes + whole) * d->part);
  d->b->s->bytes += (slopes + whole) * d->part;
  char *next = d->block;
  void **all[] = { &w->cy, &w->cf, &w->py, &w->pf, &d->gy, &d->gf, &w->cx, &w->px };
  for (int i = 0; i < whole; i++) *all[i] = next, next += d->part;
  for (int i = 0; i < slopes; i++) w->ck[i] = next, next += d->part;
  return GQ_OK;
}

static const gq_backend *on(const direct *d) { return d->b->s->plan->field->on; }

static void add(const direct *d, double s, const void *x, void *y) {
  on(d)->vec->axpy(d->b->s->z->dtype, d->n, s, x, y);
}

/* Slope i of the step times the cotangent g of the whole state. */
static double slope_dot(const direct *d, int i, const void *g) {
  const gq_field *f = d->b->s->plan->field;
  double sum = 0;
  for (int s = 0; s < f->nslices; s++) {
    size_t n = gq_numel(f->class_shape[f->class_of[s]]);
    size_t off = f->nslices > 1 ? f->first[s] * (gq_part_bytes(f) / f->shape.dim[0]) : 0;
    sum += f->on->vec->dot(f->dtype, n, gq_walk_slope(&d->w, i, 0, s), (const char *)g + off);
  }
  return sum;
}

/* Measurement time k lies inside the step: z_k = y + h sum_i w_i(theta) k_i, theta = (t_k - t) / h. */
static void pull_inner(direct *d, const gq_kept *r, int k) {
  gq_pullback *b = d->b;
  const gq_solution *s = b->s;
  const gq_stepper *st = d->w.st;
  const void *g = gq_at_time(s, b->gz, k);
  double wt[GQ_MAXSTAGES], slope[GQ_MAXSTAGES], theta = (s->t[k] - r->t) / r->h, dtheta = 0;
  gq_tableau_weights(st->m, theta, wt);
  gq_tableau_slopes(st->m, theta, slope);
  add(d, 1, g, d->gy);
  for (int i = 0; i < st->m->slopes; i++) {
    bool start = st->l.carry && i == 0, end = st->l.carry && i == st->m->end;
    add(d, r->h * wt[i], g, start ? d->gf : end ? d->w.cf : d->w.ck[i]);
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
** else), or evaluated (into w.py). */
static int slope_at(direct *d, gq_kept *r, void **f) {
  gq_solution *s = d->b->s;
  void *y = r->y;
  bool carried = d->w.st->l.carry && !gq_method_stops(d->w.st->m);
  *f = carried ? r->f : d->w.py;
  if (carried) return GQ_OK;
  d->b->nfe++;
  return gq_evaluate_at(&s->plan->f, s->bind, r->t, &y, f, NULL, NULL);
}

/* Measurement times at the step's end. One that the step was not clamped to reads the end state
** too; moving it alone moves along the slope there. */
static int pull_end(direct *d, const gq_kept *r, gq_kept *after) {
  gq_pullback *b = d->b;
  for (; d->k >= 0 && b->s->t[d->k] == after->t; d->k--) {
    const void *g = gq_at_time(b->s, b->gz, d->k);
    void *f;
    add(d, 1, g, d->w.cy);
    if (!b->gt || d->k == r->stop) continue;
    GQ_TRY(slope_at(d, after, &f));
    double gf = on(d)->vec->dot(b->s->z->dtype, d->n, g, f);
    b->gt[d->k] += gf;
    if (r->stop >= 0) b->gt[r->stop] -= gf;
    else d->dt -= gf;
  }
  return GQ_OK;
}

/* Not direct: the activations of the step once more; the same numbers are stored over the step's end. */
static int run_again(gq_walk *w) {
  GQ_TRY(gq_walk_phase(w, 0));
  w->nfe += w->st->l.nfe;
  return w->st->l.nfe_dense ? gq_walk_phase(w, 1) : GQ_OK;
}

/* The step's share of info.error and info.stiffness. */
static void pull_heuristics(direct *d, const gq_kept *r) {
  const gq_pullback *b = d->b;
  gq_heuristic e;
  if (!b->s->o.error && !b->s->o.stiffness) return;
  gq_heuristic_of(r->sum, b->s->plan->field, &e);
  for (int i = 0; i < GQ_SUMS; i++)
    d->w.csum[i] = i < GQ_SUM_SLOPES ? b->error * fabs(r->h) * e.slope[i] : b->stiffness * e.slope[i];
  d->dh += b->error * (r->h < 0 ? -e.error : e.error);
}

/* Phase 2, of the step or of its inverse. */
static int pull_program(direct *d) {
  gq_walk *w = &d->w, *v = &d->inverse;
  if (!d->joint) return gq_walk_phase(w, 2);
  v->cy = w->cy, v->cf = w->cf, v->py = w->py, v->pf = w->pf, v->grads = w->grads;
  GQ_TRY(gq_walk_phase(v, 2));
  w->pt = v->pt, w->ph = v->ph;
  return GQ_OK;
}

/* One step back: cy, cf, cx hold the cotangents of its end, then of its start. */
static int pull_step(direct *d, gq_kept *r, gq_kept *after) {
  gq_pullback *b = d->b;
  gq_walk *w = &d->w;
  double dir = r->h < 0 ? -1 : 1;
  bool kept = b->s->o.engine->keeps == GQ_KEEP_ACTIVATIONS;
  w->y[0] = r->y, w->f[0] = r->f, w->x = r->x, w->y1[0] = after->y, w->f1[0] = after->f, w->x1 = after->x;
  w->arena = kept ? r->arena : b->s->plan->arena, w->t = r->t, w->h1 = r->h;
  gq_walk_times(w, r->t, r->h, after->t);
  if (w->implicit && kept) gq_implicit_load(w, r->slope);
  if (!d->joint && (!kept || gq_at_jump(b->s, after->t)))
    GQ_TRY(run_again(w)); /* at a jump f1 was written over */
  for (int i = 0; i < w->st->m->slopes; i++) gq_zero(on(d), w->ck[i], d->part);
  gq_zero(on(d), d->gy, d->part);
  gq_zero(on(d), d->gf, d->part);
  d->dt = d->dh = 0;
  GQ_TRY(pull_end(d, r, after));
  for (; d->k >= 0 && dir * (b->s->t[d->k] - r->t) > 0; d->k--) pull_inner(d, r, d->k);
  pull_heuristics(d, r);
  GQ_TRY(pull_program(d));
  if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted in the backward pass at t = %.9g", r->t);
  gq_copy(on(d), w->cy, w->py, d->part);
  add(d, 1, d->gy, w->cy);
  if (w->st->l.carry) {
    gq_copy(on(d), w->cf, w->pf, d->part);
    add(d, 1, d->gf, w->cf);
  }
  if (w->st->l.extra) gq_copy(on(d), w->cx, w->px, d->part);
  if (gq_first_nonfinite(b->s->z->dtype, d->n, w->cy))
    return gq_fail(GQ_ENONFINITE,
                   "in the backward pass the derivative of the step from t = %.9g (step %.3g) is not finite",
                   r->t, r->h);
  if (!b->gt) return GQ_OK;
  double t = w->pt + d->dt, h = w->ph + d->dh;
  if (r->stop >= 0) b->gt[r->stop] += h, t -= h;
  b->gt[r->anchor] += t;
  return GQ_OK;
}

/* What was carried besides y began with r->y: x as it is, and the slope f(t, y). */
static int pull_slope(direct *d, gq_kept *r) {
  gq_pullback *b = d->b;
  const gq_solution *s = b->s;
  double t = gq_walk_begin(&d->w, r->t, s->t[s->nt - 1] < s->t[0] ? -1 : 1);
  void *x[] = { r->y, d->w.cf }, *out[] = { d->w.py };
  if (d->w.st->l.extra) add(d, 1, d->w.cx, d->w.cy);
  if (!d->w.st->l.carry) return GQ_OK;
  GQ_TRY(gq_evaluate_at(&s->plan->pull, s->bind, t, x, out, &b->grads, b->gt ? &b->gt[r->anchor] : NULL));
  add(d, 1, d->w.py, d->w.cy);
  return GQ_OK;
}

/* After the step from a jump: the one before it ends with slopes that nobody read. */
static int pull_jump(direct *d, gq_kept *r) {
  if (!gq_at_jump(d->b->s, r->t)) return GQ_OK;
  GQ_TRY(pull_slope(d, r));
  gq_zero(on(d), d->w.cf, d->part);
  if (d->w.st->l.extra) gq_zero(on(d), d->w.cx, d->part);
  return GQ_OK;
}

/* The first slope f(t_0, z_0) and the times equal to t_0. */
static int pull_start(direct *d, gq_kept *first) {
  gq_pullback *b = d->b;
  gq_solution *s = b->s;
  first->anchor = 0;
  GQ_TRY(pull_slope(d, first));
  for (; d->k >= 0; d->k--) {
    const void *g = gq_at_time(s, b->gz, d->k);
    void *f;
    add(d, 1, g, d->w.cy);
    if (!b->gt || d->k == 0) continue;
    GQ_TRY(slope_at(d, first, &f));
    double gf = on(d)->vec->dot(s->z->dtype, d->n, g, f);
    b->gt[d->k] += gf, b->gt[0] -= gf;
  }
  gq_field_unpack(s->plan->field, d->w.cy, b->a);
  return GQ_OK;
}

/* ---- the inverse ---- */

/* The start of step i from its end. */
static int invert(direct *d, gq_walk *w, const gq_taken *step, gq_kept *r, gq_kept *after) {
  r->t = step->t, r->h = step->h, r->anchor = step->anchor, r->stop = step->stop;
  w->y[0] = after->y, w->f[0] = after->f, w->x = after->x;
  w->y1[0] = r->y, w->f1[0] = r->f, w->x1 = r->x;
  gq_walk_times(w, r->t, r->h, after->t);
  GQ_TRY(gq_walk_phase(w, 0));
  w->nfe += w->st->l.nfe;
  if (gq_first_nonfinite(d->b->s->z->dtype, d->n, r->y))
    return gq_fail(GQ_ENONFINITE,
                   "the inverse of the step from t = %.9g is not finite: gradient = \"aca\" keeps the "
                   "states instead",
                   r->t);
  return GQ_OK;
}

/* How far the reconstruction at a measurement time is from what the forward solve gave. */
static void compare(direct *d, int k, const void *y) {
  gq_solution *s = d->b->s;
  gq_field_pack(s->plan->field, gq_at_time(s, s->z, k), d->w.py);
  double r = gq_walk_norm(&d->w, 0, y, d->w.py, d->w.py);
  if (!(r <= s->info.reconstruction)) s->info.reconstruction = r;
}

/* The end of a smooth piece, as it was. */
static void load(const direct *d, const gq_kept *end, gq_kept *after) {
  after->t = end->t;
  gq_copy(on(d), after->y, end->y, d->part), gq_copy(on(d), after->f, end->f, d->part);
  if (after->x) gq_copy(on(d), after->x, end->x, d->part);
}

static int invert_all(direct *d, gq_walk *w, gq_kept *r, gq_kept *after) {
  gq_solution *s = d->b->s;
  const gq_kept *end = s->records;
  for (int64_t i = s->ntaken - 1; i >= 0; i--) {
    if (i == s->ntaken - 1) load(d, end, after);
    else if (end->before && end->before->t == after->t) end = end->before, load(d, end, after);
    GQ_TRY(invert(d, w, &s->taken[i], r, after));
    GQ_TRY(pull_step(d, r, after));
    if (i == 0 || s->taken[i - 1].stop >= 0) compare(d, r->anchor, r->y);
    if (i > 0) GQ_TRY(pull_jump(d, r));
    gq_kept *swap = r;
    r = after, after = swap;
  }
  s->info.steps_backward = s->ntaken;
  gq_field_pack(s->plan->field, gq_at_time(s, s->z, 0), after->y);
  return pull_start(d, after);
}

static int run_inverse(direct *d) {
  gq_solution *s = d->b->s;
  gq_walk *w = &d->inverse;
  *w = (gq_walk){ .o = &s->o, .jumps = s->jumps, .njumps = s->njumps, .margin = s->margin };
  w->rtol = s->o.rtol, w->atol[0] = s->o.atol;
  d->joint = s->plan->inverse.kind.pull;
  gq_kept *two[2] = { NULL };
  int status = gq_walk_init(w, s->plan, &s->plan->inverse, s->bind);
  for (int i = 0; i < 2 && status == GQ_OK; i++)
    status = gq_kept_get(s->plan, false, false, &s->bytes, &two[i]);
  if (status == GQ_OK) status = invert_all(d, w, two[0], two[1]);
  for (int i = 0; i < 2; i++) gq_kept_give_back(s->plan, two[i]);
  d->w.nfe += w->nfe;
  gq_walk_done(w);
  return status;
}

static int run(direct *d) {
  gq_solution *s = d->b->s;
  gq_kept *r = s->records;
  for (; r->before; r = r->before) {
    GQ_TRY(pull_step(d, r->before, r));
    if (r->before->before) GQ_TRY(pull_jump(d, r->before));
  }
  s->info.steps_backward = s->nrecords - 1;
  return pull_start(d, r);
}

static int backward(gq_pullback *b, int (*run)(direct *)) {
  gq_solution *s = b->s;
  direct d = { .b = b, .k = s->nt - 1 };
  gq_walk *w = &d.w;
  w->o = &s->o, w->rtol = s->o.rtol, w->atol[0] = s->o.atol, w->grads = &b->grads;
  w->jumps = s->jumps, w->njumps = s->njumps, w->margin = s->margin;
  int status = gq_walk_init(w, s->plan, &s->plan->forward, s->bind);
  s->bytes += gq_implicit_bytes(w);
  if (status == GQ_OK) status = buffers(&d);
  if (status == GQ_OK) status = run(&d);
  b->nfe = w->nfe;
  gq_walk_done(w);
  gq_free(d.block);
  return status;
}

int gq_direct_backward(gq_pullback *b) { return backward(b, run); }
int gq_inverse_backward(gq_pullback *b) { return backward(b, run_inverse); }
