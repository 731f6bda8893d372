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

int gq_lanes_init(gq_lanes *p, gq_solution *s, const gq_stepper *st, const gq_evaluator *slope, bool pull) {
  const gq_field *f = s->plan->field;
  gq_taker t[3] = { { 0 } };
  *p = (gq_lanes){ .s = s, .f = f, .st = st, .slope = slope, .n = (int)f->lanes[0], .parts = st->l.parts };
  p->numbers = gq_numel(f->shape) / f->shape.dim[0];
  p->across = f->front ? 1 : p->n, p->along = f->front ? p->numbers : 1;
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

void gq_lanes_done(gq_lanes *p) {
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

/* Boundary j as outer x samples x inner numbers. */
static void cut_sizes(const gq_field *f, int j, size_t *outer, size_t *inner, size_t *size) {
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
    cut_sizes(f, j, &outer, &inner, &size);
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
    cut_sizes(f, j, &outer, &inner, &size);
    for (size_t o = 0; o < outer; o++) {
      size_t from = f->front ? (place * outer + o) * inner : o * inner * n + place;
      f->on->vec->add(gq_field_boundary_dtype(f, j), inner, 1, (char *)lanes[j] + from * size,
                      f->front ? 1 : n, (char *)grads->at[j] + (o * samples + sample) * inner * size, 1);
    }
  }
}

/* ---- running ---- */

/* The time that no evaluation passes. */
static double limit(const gq_lanes *p, double dir) {
  double a = p->s->t[0], b = p->s->t[p->s->nt - 1];
  return dir < 0 ? fmin(a, b) : fmax(a, b);
}

void gq_lanes_step(const gq_lanes *p, int j, double t, double h) {
  p->shared.t[j] = t, p->shared.h[j] = h;
  p->shared.ht[j] = gq_control_within(t, h, limit(p, h < 0 ? -1 : 1));
}

void gq_lanes_bind(const gq_lanes *p, const gq_evaluator *e, const void **in, void **out) {
  const gq_field *f = p->f;
  for (int j = 0; j < f->nb; j++)
    in[1 + e->states + j] = f->axis[j] < 0 ? p->s->bind->value[j] : p->call.cut[j];
  for (int r = 0; r < e->nq; r++) {
    int j = e->of[r];
    out[e->parts + r] = j < 0 ? p->dt : f->axis[j] < 0 ? p->grads->at[j] : p->call.cut_grad[j];
  }
}

void gq_lanes_set_time(const gq_lanes *p, int j, double t) {
  gq_dtype d = p->f->dtype;
  p->f->on->vec->put(d, 1, &t, (char *)p->te + j * gq_dtype_size(d), 1);
}

int gq_lanes_evaluate(gq_lanes *p, const gq_evaluator *e, void *const *x, void *out) {
  p->call.in[0] = p->te;
  for (int i = 0; i < e->states; i++) p->call.in[1 + i] = x[i];
  p->call.out[0] = out;
  gq_lanes_bind(p, e, p->call.in, p->call.out);
  return gq_program_run(e->code.prog[0], 0, p->call.evaluator_arena, p->call.in, p->call.out);
}

static void bind_pull(gq_lanes *p) {
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

int gq_lanes_phase(gq_lanes *p, int phase) {
  const gq_steplayout *l = &p->st->l;
  const gq_field *f = p->f;
  const gq_lanenumbers *x = &p->shared;
  *x->rtol = p->rtol;
  p->call.in[l->t] = x->t, p->call.in[l->h] = x->h, p->call.in[l->ht] = x->ht, p->call.in[l->rtol] = x->rtol;
  for (int i = 0; i < p->parts; i++) {
    p->call.in[l->atol + i] = x->atol[i], p->call.in[l->y + i] = p->y[i], p->call.out[l->y1 + i] = p->y1[i];
    if (l->carry) p->call.in[l->f + i] = p->f0[i], p->call.out[l->f1 + i] = p->f1[i];
    int sums[] = { l->err, l->err3, l->finite };
    for (int k = 0; k < 3; k++)
      if (sums[k] >= 0) p->call.out[sums[k] + i] = x->sum[k][i];
  }
  for (int i = 0; i < l->slopes; i++) p->call.in[l->wq + i] = x->zero;
  for (int j = 0; j < f->nb; j++)
    p->call.in[l->bv + j] = f->axis[j] < 0 ? p->s->bind->value[j] : p->call.cut[j];
  if (phase == 2) bind_pull(p);
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
      double off = fabs((v[i] - less[i]) / (p->shared.atol[part][j] + p->rtol * fabs(size[i])));
      sum += off * off;
      if (!(off <= top)) top = off;
    }
  }
  return p->max_norm ? top : sqrt(sum / p->numbers);
}

/* The attempt's error in units of the tolerance: the largest norm of the parts. NaN: not finite. */
static double error_ratio(const gq_lanes *p, int j) {
  double n = p->max_norm ? 1 : p->numbers, ratio = 0;
  for (int i = 0; i < p->parts; i++)
    ratio = gq_larger(ratio, gq_control_error(p->shared.sum[0][i][j] / n,
                                              p->st->l.err3 >= 0 ? p->shared.sum[1][i][j] / n : -1));
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

bool gq_sample_failure(int status) {
  return status == GQ_EMAXSTEPS || status == GQ_EUNDERFLOW || status == GQ_ENONFINITE;
}

/* A failure of lane j: of its sample alone, or (returned) of everything. */
static int sample_status(gq_lanes *p, int j, int status) {
  if (status == GQ_OK || !gq_sample_failure(status)) return status;
  p->use->failed(p, j, status);
  p->lane[j].stage = GQ_LANE_IDLE, p->lane[j].sample = -1;
  return GQ_OK;
}

static long long ordinal(const gq_lane *lane) { return (long long)lane->sample + 1; }

static int fail_nonfinite(const gq_lanes *p, int j) {
  const gq_lane *lane = &p->lane[j];
  size_t i = bad_number(p, j);
  if (i)
    return gq_fail(
      GQ_ENONFINITE,
      "sample %lld: a value that is not finite appeared after t = %.9g (step %.3g), first in component "
      "%zu of the flattened sample",
      ordinal(lane), lane->t, lane->h1, i);
  return gq_fail(GQ_ENONFINITE, "sample %lld: the error estimate is not finite after t = %.9g (step %.3g)",
                 ordinal(lane), lane->t, lane->h1);
}

/* ---- slopes and first steps ---- */

static double lane_dir(const gq_lane *lane) { return lane->c.stop < lane->t ? -1 : 1; }

static void prepare_slope(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  const gq_vectors *vec = p->f->on->vec;
  gq_dtype d = p->f->dtype;
  double dir = lane_dir(lane), h = lane->stage == GQ_LANE_PROBE ? dir * lane->h0 : 0;
  for (int i = 0; i < p->parts; i++) {
    char *y = at(p, p->ey[i], j, 0);
    vec->spread(gq_dtype_size(d), p->numbers, at(p, p->y[i], j, 0), p->across, y, p->across);
    if (h != 0) vec->add(d, p->numbers, h, at(p, p->f0[i], j, 0), p->across, y, p->across);
  }
  gq_lanes_set_time(p, j, lane->t + gq_control_within(lane->t, h, limit(p, dir)));
}

/* The slope at y is there. Hairer, Norsett & Wanner II.4, first part. */
static int have_slope(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  double d0 = 0, d1 = 0;
  for (int i = 0; i < p->parts; i++)
    p->f->on->vec->spread(gq_dtype_size(p->f->dtype), p->numbers, at(p, p->ef[i], j, 0), p->across,
                          at(p, p->f0[i], j, 0), p->across);
  lane->stage = GQ_LANE_READY;
  if (!lane->search) return GQ_OK;
  for (int i = 0; i < p->parts; i++) {
    d0 = gq_larger(d0, gq_lanes_norm(p, i, j, p->y[i], p->y[i], NULL));
    d1 = gq_larger(d1, gq_lanes_norm(p, i, j, p->f0[i], p->y[i], NULL));
  }
  if (!isfinite(d0) ||
      !isfinite(d1)) { /* the slopes are not finite, or the norms say nothing for want of a scale */
    for (int i = 0; i < p->parts; i++)
      if (nonfinite(p, p->f0[i], j))
        return gq_fail(GQ_ENONFINITE, "sample %lld: the dynamics are not finite at the start, t = %.9g",
                       ordinal(lane), lane->t);
    lane->c.h = lane_dir(lane) * gq_control_blind(lane->t), lane->search = false;
    return GQ_OK;
  }
  lane->h0 = gq_control_probe(lane->t, d0, d1, fabs(limit(p, lane_dir(lane)) - lane->t)), lane->d1 = d1;
  lane->stage = GQ_LANE_PROBE;
  return GQ_OK;
}

/* And so is the one after an Euler step of h0: second part. */
static void have_probe(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  double d1 = lane->d1, d2 = 0;
  for (int i = 0; i < p->parts; i++)
    d2 = gq_larger(d2, gq_lanes_norm(p, i, j, p->ef[i], p->y[i], p->f0[i]) / lane->h0);
  lane->c.h =
    lane_dir(lane) * fmax(p->least, gq_control_first(lane->t, lane->h0, d1, d2, p->st->m->first_order));
  lane->search = false, lane->stage = GQ_LANE_READY;
}

static int evaluate_slopes(gq_lanes *p) {
  const gq_evaluator *e = p->slope;
  for (int j = 0; j < p->n; j++)
    if (p->lane[j].stage == GQ_LANE_SLOPE || p->lane[j].stage == GQ_LANE_PROBE) prepare_slope(p, j);
  p->call.in[0] = p->te;
  for (int i = 0; i < p->parts; i++) p->call.in[1 + i] = p->ey[i], p->call.out[i] = p->ef[i];
  gq_lanes_bind(p, e, p->call.in, p->call.out);
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

/* The step to try. */
static int propose(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  bool adaptive = p->st->kind.adaptive;
  double h = adaptive ? gq_control_propose(&lane->c, lane->t) : gq_control_fixed(&lane->c, lane->t);
  lane->h1 = h, lane->dense = false;
  if (lane->steps + lane->rejected >= p->max_steps)
    return gq_fail(GQ_EMAXSTEPS, "sample %lld: %lld steps (%lld rejected) reached t = %.9g, next step %.3g",
                   ordinal(lane), (long long)(lane->steps + lane->rejected), (long long)lane->rejected,
                   lane->t, h);
  if (adaptive && gq_control_short(&lane->c, h))
    return gq_fail(GQ_EUNDERFLOW,
                   "sample %lld: the step %.3g from t = %.9g is below min_step = %.3g (error ratio %.3g)",
                   ordinal(lane), h, lane->t, lane->c.least, lane->c.ratio);
  if (adaptive && gq_control_stuck(&lane->c, lane->t, h))
    return gq_fail(GQ_EUNDERFLOW, "sample %lld: the step %.3g no longer moves t = %.9g (error ratio %.3g)",
                   ordinal(lane), h, lane->t, lane->c.ratio);
  if (!adaptive && lane->t + h == lane->t)
    return gq_fail(GQ_EUNDERFLOW, "sample %lld: step_size = %.3g does not move t = %.9g", ordinal(lane),
                   p->step_size, lane->t);
  return GQ_OK;
}

static int accept(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  lane->steps++, lane->c.index++;
  lane->t1 = lane->c.clamped ? lane->c.stop : lane->t + lane->h1;
  p->taken[j] = true;
  return p->use->accepted(p, j);
}

static int judge(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  lane->nfe += p->st->l.nfe;
  if (!p->st->kind.adaptive) {
    bool fine = isfinite(p->shared.sum[2][0][j]) && (p->parts < 2 || isfinite(p->shared.sum[2][1][j]));
    return !fine && bad_number(p, j) ? fail_nonfinite(p, j) : accept(p, j);
  }
  gq_verdict v =
    gq_control_judge(&lane->c, &p->s->o.controller, p->st->m->error_order, lane->h1, error_ratio(p, j));
  if (v == GQ_ACCEPTED) return accept(p, j);
  lane->rejected++;
  return v == GQ_NOT_FINITE ? fail_nonfinite(p, j) : GQ_OK;
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
    if (lane->t == lane->c.stop) GQ_TRY(sample_status(p, j, p->use->arrived(p, j)));
  }
  return GQ_OK;
}

static bool fill(gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  *lane = (gq_lane){
    .sample = -1,
    .c = { .clamp = true, .last = { 1, 1 }, .size = p->step_size, .most = p->most, .least = p->least }
  };
  if (!p->use->next(p, j)) return false;
  gq_lanes_cut(p->s, lane->sample, p->n, j, p->call.cut);
  return true;
}

/* Slopes are evaluated for all lanes at once: not before a quarter of them asks. */
int gq_lanes_run(gq_lanes *p, const gq_laneuse *use) {
  bool more = true;
  p->use = use;
  for (;;) {
    int waiting = 0, ready = 0;
    for (int j = 0; j < p->n; j++) {
      while (more && p->lane[j].sample < 0) more = fill(p, j);
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
