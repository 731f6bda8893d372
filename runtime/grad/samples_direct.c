/*
** samples_direct.c -- backpropagation through each sample's own accepted steps (direct, aca): a lane goes back along
** its sample's records, the step of every lane is run again and phase 2 is its vjp. See direct.c for one step size for
** all.
*/
#include "samples.h"

#include <string.h>

typedef struct back {
  gq_samplepull *w;
  gq_lanes *p;
  const gq_steps *tape;
  size_t bytes;    /* of a sample */
  int64_t *at;     /* [n] a lane's record */
  double *dt, *dh; /* [n] derivatives in the step's t and h that do not pass through its program */
} back;

static const void *cotangent(const back *k, int i, int64_t sample) {
  return gq_sample_at(k->w->s, k->w->b->gz, i, sample);
}

/* Slope s of lane j times a sample. */
static double slope_dot(const back *k, int j, int s, const void *g) {
  gq_lanes_get(k->p, gq_lanes_slope(k->p, s, 0), j, k->p->scratch);
  return k->p->f->on->vec->dot(k->p->f->dtype, k->p->numbers, k->p->scratch, g);
}

static void load(const back *k, int j) {
  gq_lanes *p = k->p;
  const gq_step_record r = gq_step(k->tape, k->at[j]);
  const char *data = gq_steps_data(k->tape, k->at[j]);
  gq_lanes_step(p, j, r.t, p->lane[j].h1 = r.h);
  gq_lanes_put(p, p->y[0], j, data);
  if (p->st->l.carry) gq_lanes_put(p, p->f0[0], j, data + k->bytes);
  else gq_lanes_noise_put(p, j, data + k->bytes);
}

/* The sample's last record that begins before its last time; -1: there is none. */
static int64_t last_record(const back *k, int64_t sample) {
  const gq_sampleset *r = k->w->s->samples;
  const double *t = k->w->s->t;
  int64_t at = r->last[sample];
  for (; at >= 0 && r->reached[sample] > 0; at = gq_step(k->tape, at).anchor) {
    const gq_step_record step = gq_step(k->tape, at);
    if ((step.h < 0 ? -1 : 1) * (t[r->reached[sample] - 1] - step.t) > 0) break;
  }
  return at;
}

/* The next sample into an idle lane; its cotangents there are zero. */
static bool next(back *k, int j) {
  gq_samplepull *w = k->w;
  gq_lane *lane = &k->p->lane[j];
  const gq_sampleset *r = w->s->samples;
  for (k->at[j] = -1; w->next < r->n && k->at[j] < 0; w->next += w->stride) {
    *lane = (gq_lane){ .sample = w->next, .k = r->reached[w->next] - 1 };
    k->at[j] = last_record(k, lane->sample);
  }
  if (k->at[j] < 0) {
    lane->sample = -1;
    return false;
  }
  gq_lanes_cut(w->s, lane->sample, k->p->n, j, k->p->call.cut);
  return true;
}

/* An idle lane holds what once was a sample's, so that zero cotangents give zeros: at first, that of the first lane. */
static void mirror(back *k, int j) {
  gq_lanes *p = k->p;
  k->at[j] = k->at[0];
  load(k, j);
  gq_lanes_cut(k->w->s, p->lane[0].sample, p->n, j, p->call.cut);
}

/* Measurement time i lies inside the step: z_i = y + h sum_s w_s(theta) k_s. */
static void pull_inner(back *k, int j, int i) {
  gq_lanes *p = k->p;
  const gq_step_record r = gq_step(k->tape, k->at[j]);
  const gq_stepper *st = p->st;
  const void *g = cotangent(k, i, p->lane[j].sample);
  double wt[GQ_MAXSTAGES], slope[GQ_MAXSTAGES], theta = (k->w->s->t[i] - r.t) / r.h, dtheta = 0;
  gq_tableau_weights(st->m, theta, wt);
  gq_tableau_slopes(st->m, theta, slope);
  gq_lanes_add(p, p->ey[0], j, 1, g);
  for (int s = 0; s < st->m->slopes; s++) {
    bool start = st->l.carry && s == 0, end = st->l.carry && s == st->m->end;
    gq_lanes_add(p, start ? p->ef[0] : end ? p->cf : p->ck[s], j, r.h * wt[s], g);
    if (!k->w->gt) continue;
    double kg = slope_dot(k, j, s, g);
    dtheta += r.h * slope[s] * kg;
    k->dh[j] += wt[s] * kg;
  }
  if (!k->w->gt) return;
  k->w->gt[i] += dtheta / r.h;
  k->dt[j] -= dtheta / r.h;
  k->dh[j] -= theta * dtheta / r.h;
}

/* Time i is the step's end, to which it may have been clamped; moving it alone moves along the slope there. */
static void pull_end(back *k, int j, int i) {
  gq_lanes *p = k->p;
  int stop = gq_step(k->tape, k->at[j]).stop;
  const void *g = cotangent(k, i, p->lane[j].sample);
  gq_lanes_add(p, p->cy, j, 1, g);
  if (!k->w->gt || i == stop) return;
  double gf = slope_dot(k, j, p->st->m->end, g);
  k->w->gt[i] += gf;
  if (stop >= 0) k->w->gt[stop] -= gf;
  else k->dt[j] -= gf;
}

/* The derivatives in the step's t and h, the latter t[stop] - t where it was clamped. */
static void pull_step_times(back *k, int j) {
  double t = k->p->shared.pt[j] + k->dt[j], h = k->p->shared.ph[j] + k->dh[j];
  const gq_step_record r = gq_step(k->tape, k->at[j]);
  if (r.stop >= 0) k->w->gt[r.stop] += h, t -= h;
  k->w->gt[0] += t;
}

/* Cotangents of the measurement times in the step, its end included. */
static void pull_times(back *k, int j) {
  gq_lanes *p = k->p;
  gq_lane *lane = &p->lane[j];
  const gq_step_record r = gq_step(k->tape, k->at[j]);
  const double *t = k->w->s->t;
  double dir = r.h < 0 ? -1 : 1, end = gq_step_end(&r, t);
  k->dt[j] = k->dh[j] = 0;
  for (; lane->k >= 0 && t[lane->k] == end; lane->k--) pull_end(k, j, lane->k);
  for (; lane->k >= 0 && dir * (t[lane->k] - r.t) > 0; lane->k--) pull_inner(k, j, lane->k);
}

static void clear_cuts(const gq_lanes *p) {
  const gq_field *f = p->f;
  for (int j = 0; j < f->nb; j++)
    if (p->call.cut_grad[j]) gq_zero(f->on, p->call.cut_grad[j], gq_cut_bytes(f, j, p->n));
}

static int check_sample(const back *k, int j) {
  gq_lanes *p = k->p;
  const gq_step_record r = gq_step(k->tape, k->at[j]);
  gq_lanes_get(p, p->cy, j, p->scratch);
  if (!p->f->on->vec->nonfinite(p->f->dtype, p->numbers, p->scratch)) return GQ_OK;
  p->lane[j].t = r.t;
  return gq_lane_over(p, j, GQ_END_BACK, 0);
}

/* ey and ef hold cotangents of y and f that do not pass through the step's program. */
static int pull_steps(back *k) {
  gq_lanes *p = k->p;
  const gq_steplayout *l = &p->st->l;
  size_t part = p->n * k->bytes;
  for (int j = 0; j < p->n; j++)
    if (p->lane[j].sample >= 0) load(k, j);
  GQ_TRY(gq_lanes_phase(p, 0));
  if (l->nfe_dense) GQ_TRY(gq_lanes_phase(p, 1));
  for (int i = 0; i < l->slopes; i++) gq_zero(p->f->on, p->ck[i], part);
  gq_zero(p->f->on, p->ey[0], part), gq_zero(p->f->on, p->ef[0], part);
  for (int j = 0; j < p->n; j++) {
    if (p->lane[j].sample < 0) continue;
    p->lane[j].nfe += l->nfe + l->nfe_dense, p->lane[j].steps++;
    pull_times(k, j);
  }
  clear_cuts(p);
  GQ_TRY(gq_lanes_phase(p, 2));
  gq_copy(p->f->on, p->cy, p->py, part);
  p->f->on->vec->axpy(p->f->dtype, p->numbers * p->n, 1, p->ey[0], p->cy);
  for (int j = 0; j < p->n; j++)
    if (p->lane[j].sample >= 0) GQ_TRY(check_sample(k, j));
  if (!l->carry) return GQ_OK;
  gq_copy(p->f->on, p->cf, p->pf, part);
  p->f->on->vec->axpy(p->f->dtype, p->numbers * p->n, 1, p->ef[0], p->cf);
  return GQ_OK;
}

/* At the sample's start: what is left is kept for pull_starts, and the lane is idle. */
static void finish(back *k, int j) {
  gq_lanes *p = k->p;
  gq_lane *lane = &p->lane[j];
  const gq_samples *c = &k->w->s->samples->took;
  gq_sample_count(c->nfe_backward)[lane->sample] += lane->nfe;
  gq_sample_count(c->steps_backward)[lane->sample] = lane->steps;
  gq_lanes_get(p, p->cy, j, (char *)k->w->b->a + lane->sample * k->bytes);
  gq_lanes_get(p, p->cf, j, (char *)k->w->left + lane->sample * k->bytes);
  gq_zero(p->f->on, p->scratch, k->bytes);
  gq_lanes_put(p, p->cy, j, p->scratch), gq_lanes_put(p, p->cf, j, p->scratch);
  lane->sample = -1;
}

static int pull_all(back *k) {
  gq_lanes *p = k->p;
  for (bool begun = false;; begun = true) {
    int busy = 0;
    for (int j = 0; j < p->n; j++) busy += p->lane[j].sample >= 0 || next(k, j);
    if (!busy) return GQ_OK;
    for (int j = busy; j < p->n && !begun; j++) mirror(k, j);
    if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted in the backward pass");
    GQ_TRY(pull_steps(k));
    for (int j = 0; j < p->n; j++) {
      if (p->lane[j].sample < 0) continue;
      gq_lanes_uncut(p->f, p->lane[j].sample, p->n, j, p->call.cut_grad, p->grads);
      if (k->w->gt) pull_step_times(k, j);
      k->at[j] = gq_step(k->tape, k->at[j]).anchor;
      if (k->at[j] < 0) finish(k, j);
    }
  }
}

/* The first slopes f(t_0, z_0) of `count` samples from `first` on, and the times equal to t_0. Samples that took no
** step, and lanes without a sample, go along with one that did. */
static int pull_starts(back *k, int64_t first, int count) {
  gq_samplepull *w = k->w;
  gq_lanes *p = k->p;
  gq_solution *s = w->s;
  const gq_evaluator *e = &s->plan->pull;
  const int64_t *last = s->samples->last;
  int some = 0;
  while (some < count && last[first + some * w->stride] < 0) some++;
  if (some == count) return GQ_OK;
  for (int j = 0; j < p->n; j++) {
    bool takes = j < count && last[first + j * w->stride] >= 0;
    int64_t sample = first + (takes ? j : some) * w->stride;
    gq_zero(p->f->on, p->scratch, k->bytes);
    gq_lanes_put(p, p->ey[0], j, gq_sample_at(s, s->z, 0, sample));
    gq_lanes_put(p, p->cf, j, takes ? (char *)w->left + sample * k->bytes : p->scratch);
    gq_lanes_cut(s, sample, p->n, j, p->call.cut);
    gq_lanes_set_time(p, j, s->t[0]);
  }
  clear_cuts(p);
  gq_zero(p->f->on, p->dt, p->n * sizeof(double));
  GQ_TRY(gq_lanes_evaluate(p, e, (void *[]){ p->ey[0], p->cf }, p->ef[0]));
  for (int j = 0; j < count; j++) {
    int64_t sample = first + j * w->stride;
    if (last[sample] < 0) continue;
    gq_lanes_uncut(p->f, sample, p->n, j, p->call.cut_grad, p->grads);
    gq_lanes_get(p, p->ef[0], j, p->scratch);
    p->f->on->vec->axpy(p->f->dtype, p->numbers, 1, p->scratch, (char *)w->b->a + sample * k->bytes);
    double time;
    p->f->on->vec->get(p->f->dtype, 1, (char *)p->dt + j * gq_dtype_size(p->f->dtype), 1, &time);
    if (w->gt) w->gt[0] += time;
  }
  return GQ_OK;
}

/* Time i is t[0] too: its cotangent, and moving it alone moves along the first slope, which the sample's first record
** holds. */
static void pull_first(back *k, int i, int64_t sample) {
  gq_samplepull *w = k->w;
  const void *g = cotangent(k, i, sample);
  k->p->f->on->vec->axpy(k->p->f->dtype, k->p->numbers, 1, g, (char *)w->b->a + sample * k->bytes);
  int64_t first = w->s->samples->last[sample];
  if (!w->gt || i == 0 || first < 0) return;
  while (gq_step(k->tape, first).anchor >= 0) first = gq_step(k->tape, first).anchor;
  double gf =
    k->p->f->on->vec->dot(k->p->f->dtype, k->p->numbers, g, gq_steps_data(k->tape, first) + k->bytes);
  w->gt[i] += gf, w->gt[0] -= gf;
}

static int run(back *k) {
  gq_samplepull *w = k->w;
  const gq_solution *s = w->s;
  int64_t samples = s->samples->n, first = w->next;
  GQ_TRY(pull_all(k));
  for (int64_t sample = first; k->p->st->l.carry && sample < samples; sample += k->p->n * w->stride) {
    int64_t left = (samples - sample + w->stride - 1) / w->stride;
    GQ_TRY(pull_starts(k, sample, left < k->p->n ? (int)left : k->p->n));
  }
  for (int64_t sample = first; sample < samples; sample += w->stride)
    for (int i = 0; i < s->nt && s->t[i] == s->t[0]; i++) pull_first(k, i, sample);
  return GQ_OK;
}

int gq_samples_direct(gq_samplepull *w) {
  gq_lanes *p = &w->lanes;
  gq_sampleset *r = w->s->samples;
  back k = { .w = w, .p = p, .tape = &r->tape[w->next], .bytes = r->bytes };
  k.at = gq_calloc(3 * p->n, sizeof *k.at);
  k.dt = (double *)(k.at + p->n), k.dh = k.dt + p->n;
  if (!k.at) return gq_nomem(p->n * sizeof *k.at);
  p->rule.rtol = w->s->o.rtol;
  for (int j = 0; j < p->n; j++) p->shared.atol[0][j] = gq_positive_atol(p->f->dtype, w->s->o.atol);
  int status = run(&k);
  gq_free(k.at);
  return status;
}
