/*
** lanes.c -- samples solved side by side: attempts, error ratios, step control and first step, each lane's own.
** See lanes.h; the formulas are those of walk.c with a sample in the place of the whole state.
*/
#include "lanes.h"

#include <math.h>
#include <string.h>

/* ---- set-up ---- */

size_t gq_cut_bytes(const gq_field *f, int j, int64_t n) {
  gq_shape s = gq_field_boundary_shape(f, j);
  return gq_numel(s) / s.dim[f->axis[j]] * n * gq_dtype_size(gq_field_boundary_dtype(f, j));
}

enum { HOST, THERE, SHARED };

static void take_numbers(gq_lanes *p, gq_taker *t) {
  gq_lanenumbers *x = &p->shared;
  double **all[] = { &x->t, &x->h, &x->ht, &x->pt, &x->ph };
  for (int k = 0; k < 5; k++) *all[k] = gq_take(t, p->n * sizeof(double));
  for (int i = 0; i < p->parts; i++) {
    x->atol[i] = gq_take(t, p->n * sizeof(double));
    for (int k = 0; k < 3; k++) x->sum[k][i] = gq_take(t, p->n * sizeof(double));
  }
  x->rtol = gq_take(t, sizeof(double)), x->zero = gq_take(t, sizeof(double));
}

static void take_states(gq_lanes *p, gq_taker *t, bool pull) {
  size_t size = gq_dtype_size(p->f->dtype), part = p->numbers * p->n * size;
  for (int i = 0; i < p->parts; i++) {
    void **all[] = { &p->y[i], &p->f0[i], &p->y1[i], &p->f1[i], &p->ey[i], &p->ef[i] };
    for (int k = 0; k < 6; k++) *all[k] = gq_take(t, part);
  }
  if (pull) {
    void **all[] = { &p->cy, &p->cf, &p->py, &p->pf };
    for (int k = 0; k < 4; k++) *all[k] = gq_take(t, part);
    for (int i = 0; i < p->st->m->slopes; i++) p->ck[i] = gq_take(t, part);
  }
  p->te = gq_take(t, p->n * sizeof(double)), p->dt = gq_take(t, p->n * sizeof(double));
  p->scratch = gq_take(t, p->numbers * size);
}

static void take_all(gq_lanes *p, gq_taker t[3], bool pull) {
  const gq_field *f = p->f;
  gq_lanecall *call = &p->call;
  int nin = p->st->l.nin > p->slope->nin ? p->st->l.nin : p->slope->nin,
      nout = p->st->l.nout > p->slope->nout ? p->st->l.nout : p->slope->nout;
  p->lane = gq_take(&t[HOST], p->n * sizeof *p->lane);
  p->taken = gq_take(&t[HOST], p->n * sizeof *p->taken);
  call->in = gq_take(&t[HOST], nin * sizeof *call->in);
  call->out = gq_take(&t[HOST], nout * sizeof *call->out);
  call->cut = gq_take(&t[HOST], (f->nb + 1) * sizeof *call->cut);
  call->cut_grad = gq_take(&t[HOST], (f->nb + 1) * sizeof *call->cut_grad);
  take_numbers(p, &t[SHARED]);
  take_states(p, &t[THERE], pull);
  if (f->noise) {
    p->noise.lane = gq_take(&t[HOST], p->n * sizeof *p->noise.lane);
    p->noise.w = gq_take(&t[THERE], gq_along_moments(f) * p->noise.apart);
  }
  for (int j = 0; j < f->nb; j++) {
    if (f->axis[j] < 0) continue;
    size_t bytes = gq_cut_bytes(f, j, p->n);
    void *cut = gq_take(&t[THERE], bytes), *grad = pull && f->want[j] ? gq_take(&t[THERE], bytes) : NULL;
    if (t[HOST].base) call->cut[j] = cut, call->cut_grad[j] = grad;
  }
  call->arena = gq_take(&t[THERE], gq_code_arena(&p->st->code) + 64);
  size_t slope = gq_code_arena(&p->slope->code), f0 = gq_code_arena(&p->s->plan->f.code);
  call->evaluator_arena = gq_take(&t[THERE], (slope > f0 ? slope : f0) + 64);
}

/* But for tolerances and sizes of steps, which are the caller's. */
static void set_rule(gq_lanes *p) {
  const gq_solution *s = p->s;
  double a = s->t[0], b = s->t[s->nt - 1];
  p->rule = (gq_lanerule){ .k = s->o.controller,
                           .limit = { fmin(a, b), fmax(a, b) },
                           .numbers = (double)p->numbers,
                           .order = p->st->m->error_order,
                           .first_order = p->st->m->first_order,
                           .adaptive = p->st->kind.adaptive,
                           .third = p->st->l.err3 >= 0 };
}

static void begin(gq_lanes *p, gq_solution *s, const gq_stepper *st, const gq_evaluator *slope) {
  const gq_field *f = s->plan->field;
  *p = (gq_lanes){ .s = s, .f = f, .st = st, .slope = slope, .n = (int)f->lanes[0], .parts = st->l.parts };
  p->numbers = gq_numel(f->shape) / f->shape.dim[0];
  p->across = f->front ? 1 : p->n, p->along = f->front ? p->numbers : 1;
  if (f->noise) p->noise.numbers = gq_numel(f->wshape) / f->wshape.dim[0];
  p->noise.apart = gq_round64(p->noise.numbers * p->n * gq_dtype_size(f->dtype));
  set_rule(p);
}

int gq_lanes_init(gq_lanes *p, gq_solution *s, const gq_stepper *st, const gq_evaluator *slope, bool pull) {
  const gq_field *f = s->plan->field;
  gq_taker t[3] = { { 0 } };
  begin(p, s, st, slope);
  take_all(p, t, pull);
  p->bytes = t[HOST].used + t[THERE].used + t[SHARED].used;
  p->block[HOST] = t[HOST].base = gq_calloc(1, t[HOST].used);
  p->block[THERE] = t[THERE].base = gq_allocate(f->on, t[THERE].used + 64);
  p->block[SHARED] = t[SHARED].base = gq_share(f->on, t[SHARED].used);
  if (!p->block[HOST] || !p->block[THERE] || !p->block[SHARED]) return gq_nomem(p->bytes);
  gq_zero(f->on, p->block[THERE], t[THERE].used); /* idle lanes go along */
  for (int i = 0; i < 3; i++) t[i].used = 0;
  take_all(p, t, pull);
  for (int j = 0; j < p->n; j++) p->lane[j].sample = -1;
  return GQ_OK;
}

/* What programs take from the host and give it back is there, too. */
int gq_lanes_blocks(gq_lanes *p, gq_solution *s, const gq_stepper *st, const gq_evaluator *slope, bool pull,
                    size_t head, int *blocks, size_t *each) {
  enum { ROOM = 1 << 30 };
  const gq_field *f = s->plan->field;
  gq_taker t[3] = { { 0 } };
  begin(p, s, st, slope);
  take_all(p, t, pull);
  *each = gq_round64(head) + gq_round64(t[THERE].used) + gq_round64(t[SHARED].used) + 64;
  if (*each * *blocks > ROOM) *blocks = *each > ROOM ? 1 : (int)(ROOM / *each);
  p->bytes = t[HOST].used + *each * *blocks;
  p->block[HOST] = t[HOST].base = gq_calloc(1, t[HOST].used);
  p->block[THERE] = gq_allocate(f->on, *each * *blocks + 64);
  if (!p->block[HOST] || !p->block[THERE]) return gq_nomem(p->bytes);
  gq_zero(f->on, p->block[THERE], *each * *blocks);
  t[SHARED].base = (char *)p->block[THERE] + gq_round64(head);
  t[THERE].base = t[SHARED].base + gq_round64(t[SHARED].used);
  for (int i = 0; i < 3; i++) t[i].used = 0;
  take_all(p, t, pull);
  return GQ_OK;
}

void gq_samples_rule(gq_lanerule *r, const gq_field *f, const gq_ode_options *o) {
  r->rtol = o->rtol, r->atol[0] = gq_positive_atol(f->dtype, o->atol);
  r->max_norm = o->max_norm, r->step_size = o->step_size;
  r->most = o->max_step, r->least = o->min_step, r->max_steps = o->max_steps;
}

void gq_lanes_done(gq_lanes *p) {
  if (p->block[HOST]) gq_lanes_path_done(p);
  gq_free(p->block[HOST]);
  if (p->block[THERE]) gq_release(p->f->on, p->block[THERE]);
  if (p->block[SHARED]) gq_unshare(p->f->on, p->block[SHARED]);
  memset(p->block, 0, sizeof p->block);
}

/* ---- samples in and out ---- */

/* Number d of lane j in an array of all lanes. */
static char *at(const gq_lanes *p, const void *lanes, int j, size_t d) {
  return (char *)(uintptr_t)lanes + gq_lanes_at(p, j, d) * gq_dtype_size(p->f->dtype);
}

void gq_lanes_put(const gq_lanes *p, void *lanes, int j, const void *sample) {
  size_t size = gq_dtype_size(p->f->dtype);
  p->f->on->vec->spread(size, p->numbers, sample, 1, at(p, lanes, j, 0), p->across);
}

void gq_lanes_get(const gq_lanes *p, const void *lanes, int j, void *sample) {
  size_t size = gq_dtype_size(p->f->dtype);
  p->f->on->vec->spread(size, p->numbers, at(p, lanes, j, 0), p->across, sample, 1);
}

void gq_cut_sizes(const gq_field *f, int j, size_t *outer, size_t *inner, size_t *size) {
  gq_shape s = gq_field_boundary_shape(f, j);
  *outer = *inner = 1, *size = gq_dtype_size(gq_field_boundary_dtype(f, j));
  for (int i = 0; i < f->axis[j]; i++) *outer *= s.dim[i];
  for (int i = f->axis[j] + 1; i < s.ndim; i++) *inner *= s.dim[i];
}

void gq_lanes_cut(const gq_solution *s, int64_t sample, int64_t n, int place, const void *const *lanes) {
  const gq_field *f = s->plan->field;
  for (int j = 0; j < f->nb; j++) {
    size_t outer, inner, size, samples = f->shape.dim[0];
    if (f->axis[j] < 0) continue;
    gq_cut_sizes(f, j, &outer, &inner, &size);
    for (size_t o = 0; o < outer; o++) {
      size_t to = f->front ? (place * outer + o) * inner : o * inner * n + place;
      f->on->vec->spread(size, inner, (const char *)s->bind->value[j] + (o * samples + sample) * inner * size,
                         1, (char *)(uintptr_t)lanes[j] + to * size, f->front ? 1 : n);
    }
  }
}

void gq_lanes_uncut(const gq_field *f, int64_t sample, int64_t n, int place, void *const *lanes,
                    const gq_grads *grads) {
  for (int j = 0; j < f->nb; j++) {
    size_t outer, inner, size, samples = f->shape.dim[0];
    if (f->axis[j] < 0 || !f->want[j]) continue;
    gq_cut_sizes(f, j, &outer, &inner, &size);
    for (size_t o = 0; o < outer; o++) {
      size_t from = f->front ? (place * outer + o) * inner : o * inner * n + place;
      f->on->vec->add(gq_field_boundary_dtype(f, j), inner, 1, (char *)lanes[j] + from * size,
                      f->front ? 1 : n, (char *)grads->at[j] + (o * samples + sample) * inner * size, 1);
    }
  }
}

/* ---- running ---- */

void gq_lanes_step(const gq_lanes *p, int j, double t, double h) {
  p->shared.t[j] = t, p->shared.h[j] = h;
  p->shared.ht[j] = gq_lane_span(&p->rule, t, h);
}

/* Boundaries and products of an evaluator after its `states` inputs and `parts` outputs. */
static void bind_evaluator(const gq_lanes *p, const gq_evaluator *e) {
  const gq_field *f = p->f;
  for (int j = 0; j < f->nb; j++)
    p->call.in[1 + e->states + j] = f->axis[j] < 0 ? p->s->bind->value[j] : p->call.cut[j];
  for (int r = 0; r < e->nq; r++) {
    int j = e->of[r];
    p->call.out[e->parts + r] = j < 0 ? p->dt : f->axis[j] < 0 ? p->grads->at[j] : p->call.cut_grad[j];
  }
}

void gq_lanes_set_time(const gq_lanes *p, int j, double t) {
  gq_dtype d = p->f->dtype;
  p->f->on->vec->put(d, 1, &t, (char *)p->te + j * gq_dtype_size(d), 1);
}

void gq_lanes_bind_point(const gq_lanes *p, const gq_evaluator *e, void *const *x, void *out) {
  p->call.in[0] = p->te;
  for (int i = 0; i < e->states; i++) p->call.in[1 + i] = x[i];
  p->call.out[0] = out;
  bind_evaluator(p, e);
}

int gq_lanes_evaluate(gq_lanes *p, const gq_evaluator *e, void *const *x, void *out) {
  gq_lanes_bind_point(p, e, x, out);
  return gq_program_run(e->code.prog[0], 0, p->call.evaluator_arena, p->call.in, p->call.out);
}

static void bind_pull(const gq_lanes *p) {
  const gq_steplayout *l = &p->st->l;
  p->call.in[l->cy] = p->cy;
  if (l->cf >= 0) p->call.in[l->cf] = p->cf;
  for (int i = 0; i < l->slopes; i++)
    if (l->ck[i] >= 0) p->call.in[l->ck[i]] = p->ck[i];
  p->call.out[l->py] = p->py;
  if (l->pf >= 0) p->call.out[l->pf] = p->pf;
  if (l->pt >= 0) p->call.out[l->pt] = p->shared.pt, p->call.out[l->ph] = p->shared.ph;
  for (int r = 0; r < l->npb; r++) {
    int j = l->pb_of[r];
    p->call.out[l->pb + r] = p->f->axis[j] < 0 ? p->grads->at[j] : p->call.cut_grad[j];
  }
}

void gq_lanes_bind_step(const gq_lanes *p, int phase) {
  const gq_steplayout *l = &p->st->l;
  const gq_field *f = p->f;
  const gq_lanenumbers *x = &p->shared;
  p->call.in[l->t] = x->t, p->call.in[l->h] = x->h, p->call.in[l->ht] = x->ht, p->call.in[l->rtol] = x->rtol;
  for (int i = 0; i < p->parts; i++) {
    p->call.in[l->atol + i] = x->atol[i], p->call.in[l->y + i] = p->y[i], p->call.out[l->y1 + i] = p->y1[i];
    if (l->carry) p->call.in[l->f + i] = p->f0[i], p->call.out[l->f1 + i] = p->f1[i];
    int sums[] = { l->err, l->err3, l->finite };
    for (int k = 0; k < 3; k++)
      if (sums[k] >= 0) p->call.out[sums[k] + i] = x->sum[k][i];
  }
  for (int i = 0; l->w >= 0 && i < l->moments; i++)
    p->call.in[l->w + i] = (char *)p->noise.w + i * p->noise.apart;
  for (int i = 0; i < l->slopes; i++) p->call.in[l->wq + i] = x->zero;
  for (int j = 0; j < f->nb; j++)
    p->call.in[l->bv + j] = f->axis[j] < 0 ? p->s->bind->value[j] : p->call.cut[j];
  if (phase == 2) bind_pull(p);
}

void gq_lanes_bind_slope(const gq_lanes *p) {
  p->call.in[0] = p->te;
  for (int i = 0; i < p->parts; i++) p->call.in[1 + i] = p->ey[i], p->call.out[i] = p->ef[i];
  bind_evaluator(p, p->slope);
}

int gq_lanes_phase(gq_lanes *p, int phase) {
  const gq_field *f = p->f;
  gq_lanes_bind_step(p, phase);
  *p->shared.rtol = p->rule.rtol;
  GQ_TRY(gq_program_run(p->st->code.prog[0], phase, p->call.arena, p->call.in, p->call.out));
  gq_wait(f->on);
  return GQ_OK;
}

const void *gq_lanes_slope(const gq_lanes *p, int i, int part) {
  const gq_steplayout *l = &p->st->l;
  if (l->carry && i == 0) return p->f0[part];
  if (l->carry && i == p->st->m->end) return p->f1[part];
  return gq_program_at(p->st->code.prog[0], p->call.arena, l->k[i] + part);
}

int gq_lanes_interpolate(gq_lanes *p, int part, int j, double theta, void *sample) {
  gq_lane *lane = &p->lane[j];
  double wt[GQ_MAXSTAGES];
  if (p->st->l.nfe_dense && !p->dense_done) GQ_TRY(gq_lanes_phase(p, 1));
  if (!lane->dense) lane->nfe += p->st->l.nfe_dense;
  p->dense_done = lane->dense = true;
  gq_tableau_weights(p->st->m, theta, wt);
  gq_lanes_get(p, p->y[part], j, sample);
  for (int i = 0; i < p->st->m->slopes; i++) {
    if (wt[i] == 0) continue;
    const void *k = gq_lanes_slope(p, i, part);
    p->f->on->vec->add(p->f->dtype, p->numbers, lane->h1 * wt[i], at(p, k, j, 0), p->across, sample, 1);
  }
  return GQ_OK;
}

/* ---- norms ---- */

double gq_lanes_norm(const gq_lanes *p, int part, int j, const void *x, const void *y, const void *minus_) {
  enum { CHUNK = 64 };
  const gq_vectors *vec = p->f->on->vec;
  gq_dtype d = p->f->dtype;
  double sum = 0, top = 0, v[CHUNK], less[CHUNK] = { 0 }, size[CHUNK];
  for (size_t k = 0; k < p->numbers; k += CHUNK) {
    size_t n = p->numbers - k < CHUNK ? p->numbers - k : CHUNK;
    vec->get(d, n, at(p, x, j, k), p->across, v), vec->get(d, n, at(p, y, j, k), p->across, size);
    if (minus_) vec->get(d, n, at(p, minus_, j, k), p->across, less);
    for (size_t i = 0; i < n; i++) {
      double off = fabs((v[i] - less[i]) / (p->shared.atol[part][j] + p->rule.rtol * fabs(size[i])));
      sum += off * off;
      if (!(off <= top)) top = off;
    }
  }
  return p->rule.max_norm ? top : sqrt(sum / p->numbers);
}

/* The attempt's error in units of the tolerance: the largest norm of the parts. NaN: not finite. */
static double error_ratio(const gq_lanes *p, int j) {
  const gq_lanenumbers *x = &p->shared;
  double ratio = 0;
  for (int i = 0; i < p->parts; i++)
    ratio = gq_larger(ratio, gq_lane_error(&p->rule, x->sum[0][i][j], p->rule.third ? x->sum[1][i][j] : 0));
  return isfinite(ratio) ? ratio : NAN;
}

/* First number of lane j that is not finite, 1-based in the sample; 0: none. */
static size_t nonfinite(const gq_lanes *p, const void *lanes, int j) {
  gq_lanes_get(p, lanes, j, p->scratch);
  return p->f->on->vec->nonfinite(p->f->dtype, p->numbers, p->scratch);
}

/* The same of y1 (or f1). */
static size_t bad_number(const gq_lanes *p, int j) {
  size_t bad = 0;
  for (int i = 0; i < p->parts && !bad; i++) {
    bad = nonfinite(p, p->y1[i], j);
    if (!bad && p->st->l.carry) bad = nonfinite(p, p->f1[i], j);
  }
  return bad;
}

/* ---- the ends of samples ---- */

static bool fails_alone(int status) {
  return status == GQ_EMAXSTEPS || status == GQ_EUNDERFLOW || status == GQ_ENONFINITE;
}

/* A failure of lane j: of its sample alone, or (returned) of everything. */
static int sample_status(gq_lanes *p, int j, int status) {
  if (status == GQ_OK || !fails_alone(status)) return status;
  p->use->failed(p, j, status);
  p->lane[j].stage = GQ_LANE_IDLE, p->lane[j].sample = -1;
  return GQ_OK;
}

int gq_lane_failure(const gq_solution *s, const gq_lanerule *r, const gq_lane *l) {
  long long sample = (long long)l->sample + 1, steps = (long long)(l->steps + l->rejected);
  switch (l->end) {
    case GQ_END_STEPS:
      return gq_fail(GQ_EMAXSTEPS, "sample %lld: %lld steps (%lld rejected) reached t = %.9g, next step %.3g",
                     sample, steps, (long long)l->rejected, l->t, l->h1);
    case GQ_END_SHORT:
      return gq_fail(GQ_EUNDERFLOW,
                     "sample %lld: the step %.3g from t = %.9g is below min_step = %.3g (error ratio %.3g)",
                     sample, l->h1, l->t, l->c.least, l->c.ratio);
    case GQ_END_STUCK:
      return gq_fail(GQ_EUNDERFLOW, "sample %lld: the step %.3g no longer moves t = %.9g (error ratio %.3g)",
                     sample, l->h1, l->t, l->c.ratio);
    case GQ_END_FIXED:
      return gq_fail(GQ_EUNDERFLOW, "sample %lld: %s = %.3g does not move t = %.9g", sample,
                     s->along.path ? "dt" : "step_size", r->step_size, l->t);
    case GQ_END_FIRST:
      return gq_fail(GQ_ENONFINITE, "sample %lld: z0 is not finite (component %lld of the flattened sample)",
                     sample, (long long)l->bad);
    case GQ_END_SLOPE:
      return gq_fail(GQ_ENONFINITE, "sample %lld: the dynamics are not finite at the start, t = %.9g", sample,
                     l->t);
    case GQ_END_STATE:
      return gq_fail(
        GQ_ENONFINITE,
        "sample %lld: a value that is not finite appeared after t = %.9g (step %.3g), first in component "
        "%lld of the flattened sample",
        sample, l->t, l->h1, (long long)l->bad);
    case GQ_END_ERROR:
      return gq_fail(GQ_ENONFINITE,
                     "sample %lld: the error estimate is not finite after t = %.9g (step %.3g)", sample, l->t,
                     l->h1);
    case GQ_END_BETWEEN:
      return gq_fail(GQ_ENONFINITE,
                     "sample %lld: the state at t[%lld] = %.9g, interpolated in its step, is not finite",
                     sample, (long long)l->bad + 1, s->t[l->bad]);
    case GQ_END_BACK:
      return gq_fail(
        GQ_ENONFINITE,
        "sample %lld: in the backward pass the derivative of the step from t = %.9g (step %.3g) is not "
        "finite",
        sample, l->t, l->h1);
    case GQ_END_NOT: break;
  }
  return GQ_OK;
}

int gq_lane_over(const gq_lanes *p, int j, gq_laneend end, int64_t bad) {
  gq_lane *lane = &p->lane[j];
  lane->end = end, lane->bad = bad;
  return gq_lane_failure(p->s, &p->rule, lane);
}

/* ---- slopes and first steps ---- */

static void prepare_slope(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  const gq_vectors *vec = p->f->on->vec;
  gq_dtype d = p->f->dtype;
  double h = gq_lane_probe(lane);
  for (int i = 0; i < p->parts; i++) {
    char *y = at(p, p->ey[i], j, 0);
    vec->spread(gq_dtype_size(d), p->numbers, at(p, p->y[i], j, 0), p->across, y, p->across);
    if (h != 0) vec->add(d, p->numbers, h, at(p, p->f0[i], j, 0), p->across, y, p->across);
  }
  gq_lanes_set_time(p, j, lane->t + gq_lane_span(&p->rule, lane->t, h));
}

/* The slope at y is there. */
static int have_slope(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  double d0 = 0, d1 = 0;
  for (int i = 0; i < p->parts; i++)
    p->f->on->vec->spread(gq_dtype_size(p->f->dtype), p->numbers, at(p, p->ef[i], j, 0), p->across,
                          at(p, p->f0[i], j, 0), p->across);
  for (int i = 0; i < p->parts && lane->search; i++) {
    d0 = gq_larger(d0, gq_lanes_norm(p, i, j, p->y[i], p->y[i], NULL));
    d1 = gq_larger(d1, gq_lanes_norm(p, i, j, p->f0[i], p->y[i], NULL));
  }
  for (int i = 0; i < p->parts && !(isfinite(d0) && isfinite(d1)); i++)
    if (nonfinite(p, p->f0[i], j)) return gq_lane_over(p, j, GQ_END_SLOPE, 0);
  gq_lane_sloped(lane, &p->rule, d0, d1);
  return GQ_OK;
}

/* And so is the one after a probe. */
static void have_probe(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  double d2 = 0;
  for (int i = 0; i < p->parts; i++)
    d2 = gq_larger(d2, gq_lanes_norm(p, i, j, p->ef[i], p->y[i], p->f0[i]) / lane->h0);
  gq_lane_probed(lane, &p->rule, d2);
}

static int evaluate_slopes(gq_lanes *p) {
  const gq_evaluator *e = p->slope;
  for (int j = 0; j < p->n; j++)
    if (p->lane[j].stage == GQ_LANE_SLOPE || p->lane[j].stage == GQ_LANE_PROBE) prepare_slope(p, j);
  gq_lanes_bind_slope(p);
  GQ_TRY(gq_program_run(e->code.prog[0], 0, p->call.evaluator_arena, p->call.in, p->call.out));
  for (int j = 0; j < p->n; j++) {
    gq_lane *lane = &p->lane[j];
    if (lane->stage != GQ_LANE_SLOPE && lane->stage != GQ_LANE_PROBE) continue;
    lane->nfe++;
    if (lane->stage == GQ_LANE_PROBE) have_probe(p, j);
    else GQ_TRY(sample_status(p, j, have_slope(p, j)));
  }
  return GQ_OK;
}

/* ---- attempts ---- */

static int propose(gq_lanes *p, int j) {
  gq_lanes_path_aim(p, j);
  gq_laneend end = gq_lane_propose(&p->lane[j], &p->rule);
  return end ? gq_lane_over(p, j, end, 0) : gq_lanes_path_read(p, j);
}

/* NaN: not finite. On a fixed grid sums tell, but for one that overflows. */
static double ratio_of(const gq_lanes *p, int j) {
  if (p->rule.adaptive) return error_ratio(p, j);
  bool fine = true;
  for (int i = 0; i < p->parts; i++) fine = fine && isfinite(p->shared.sum[2][i][j]);
  return !fine && bad_number(p, j) ? NAN : 0;
}

static int judge(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  double end = lane->c.clamped ? lane->c.stop : lane->t + lane->h1;
  lane->nfe += p->st->l.nfe;
  gq_verdict v = gq_lane_judge(lane, &p->rule, ratio_of(p, j));
  p->taken[j] = v == GQ_ACCEPTED;
  if (v == GQ_ACCEPTED) {
    gq_lanes_path_accepted(p, j);
    return p->use->accepted(p, j);
  }
  gq_lanes_path_refused(p, j, end);
  if (v != GQ_NOT_FINITE) return GQ_OK;
  size_t bad = bad_number(p, j);
  return gq_lane_over(p, j, bad ? GQ_END_STATE : GQ_END_ERROR, (int64_t)bad);
}

/* dst = src in the lanes whose step was accepted */
static void blend(const gq_lanes *p, void *dst, const void *src) {
  size_t bytes = p->numbers * gq_dtype_size(p->f->dtype);
  for (int j = 0; p->f->front && j < p->n; j++)
    if (p->taken[j]) gq_copy(p->f->on, at(p, dst, j, 0), at(p, src, j, 0), bytes);
  if (!p->f->front) p->f->on->vec->blend(p->f->dtype, p->numbers, p->n, p->taken, src, dst);
}

static void commit(gq_lanes *p) {
  for (int i = 0; i < p->parts; i++) {
    blend(p, p->y[i], p->y1[i]);
    if (p->st->l.carry) blend(p, p->f0[i], p->f1[i]);
  }
}

/* One attempt of every lane that can step; the others stand still. */
static int attempt(gq_lanes *p) {
  for (int j = 0; j < p->n; j++) {
    gq_lane *lane = &p->lane[j];
    p->taken[j] = false;
    if (lane->stage == GQ_LANE_READY) GQ_TRY(sample_status(p, j, propose(p, j)));
    gq_lanes_step(p, j, lane->t, lane->stage == GQ_LANE_READY ? lane->h1 : 0);
  }
  p->dense_done = false;
  GQ_TRY(gq_lanes_phase(p, 0));
  for (int j = 0; j < p->n; j++)
    if (p->lane[j].stage == GQ_LANE_READY) GQ_TRY(sample_status(p, j, judge(p, j)));
  commit(p);
  for (int j = 0; j < p->n; j++) {
    gq_lane *lane = &p->lane[j];
    if (!p->taken[j] || lane->stage == GQ_LANE_IDLE) continue;
    lane->t = lane->t1;
    if (!gq_lanes_path_there(p, j)) continue;
    GQ_TRY(sample_status(p, j, p->use->arrived(p, j)));
    gq_lanes_path_on(p, j);
  }
  return GQ_OK;
}

/* Lanes that find no sample go along with one that has: they meet no time, number or index that no sample knows. */
static void accompany(gq_lanes *p) {
  int with = 0;
  while (with < p->n && p->lane[with].sample < 0) with++;
  for (int j = 0; j < p->n && with < p->n; j++) {
    if (p->lane[j].sample >= 0) continue;
    for (int i = 0; i < p->parts; i++) {
      gq_lanes_get(p, p->y[i], with, p->scratch);
      gq_lanes_put(p, p->y[i], j, p->scratch), gq_lanes_put(p, p->ey[i], j, p->scratch);
    }
    p->lane[j].t = p->lane[with].t;
    gq_lanes_set_time(p, j, p->lane[j].t);
    gq_lanes_cut(p->s, p->lane[with].sample, p->n, j, p->call.cut);
  }
}

static int fill(gq_lanes *p, int j, bool *more) {
  gq_lane *lane = &p->lane[j];
  *lane = (gq_lane){ .sample = -1, .c = gq_lane_control(&p->rule) };
  if (!(*more = p->use->next(p, j))) {
    accompany(p);
    return GQ_OK;
  }
  gq_lanes_cut(p->s, lane->sample, p->n, j, p->call.cut);
  return gq_lanes_path_begin(p, j);
}

/* Slopes are evaluated for all lanes at once: not before a quarter of them asks. */
int gq_lanes_run(gq_lanes *p, const gq_laneuse *use) {
  bool more = true;
  p->use = use;
  for (;;) {
    int waiting = 0, ready = 0;
    for (int j = 0; j < p->n; j++) {
      while (more && p->lane[j].sample < 0) GQ_TRY(fill(p, j, &more));
      waiting += p->lane[j].stage == GQ_LANE_SLOPE || p->lane[j].stage == GQ_LANE_PROBE;
      ready += p->lane[j].stage == GQ_LANE_READY;
    }
    if (waiting + ready == 0) return GQ_OK;
    if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted");
    if (waiting && 3 * waiting >= ready) GQ_TRY(evaluate_slopes(p));
    else GQ_TRY(attempt(p));
  }
}

void gq_outcome_set(gq_outcome *o, int status) {
  o->status = status;
  if (status != GQ_OK) strncpy(o->message, gq_message(), sizeof o->message - 1);
}
