/*
** independent.c -- batch = "independent", the forward solve: every sample with its own steps. Workers share
** nothing but what they read: worker i solves samples i, i + workers, ... in its lanes (lanes.h), and writes those of
** the result.
*/
#include "lanes_device.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* ---- what is kept ---- */

enum { SAMPLES = sizeof(gq_samples) / sizeof(gq_tensor *) };

void gq_samples_ref(const gq_samples *s, gq_samples *out) {
  for (int i = 0; i < SAMPLES; i++) ((gq_tensor **)out)[i] = gq_tensor_ref(((gq_tensor *const *)s)[i]);
}

void gq_samples_done(gq_samples *s) {
  for (int i = 0; i < SAMPLES; i++) gq_tensor_unref(((gq_tensor **)s)[i]);
  *s = (gq_samples){ 0 };
}

static int samples_new(int64_t n, gq_samples *s) {
  gq_tensor **all[] = { &s->nfe,          &s->steps,          &s->rejected, &s->status,
                        &s->nfe_backward, &s->steps_backward, &s->nodes };
  gq_shape shape = gq_shape_of(1, &n);
  for (int i = 0; i < 7; i++) GQ_TRY(gq_tensor_new(GQ_I64, shape, all[i]));
  return gq_tensor_new(GQ_F64, shape, &s->t);
}

/* As many workers as have lanes to fill; one where they would ask one device. */
static int workers(const gq_field *f) {
  int64_t samples = f->shape.dim[0], packs = f->lanes[0] ? (samples + f->lanes[0] - 1) / f->lanes[0] : 1;
  int64_t most = f->on->lowering->side ? 1 : gq_threads(), n = most < packs ? most : packs;
  return n < 1 ? 1 : (int)n;
}

static int sampleset_new(const gq_solution *s, gq_sampleset **out) {
  const gq_field *f = s->plan->field;
  gq_sampleset *r = gq_calloc(1, sizeof *r);
  if (!r) return gq_nomem(sizeof *r);
  r->n = f->shape.dim[0], r->workers = workers(f), r->on = f->on;
  r->bytes = r->n ? gq_part_bytes(f) / r->n : 0;
  int status = samples_new(r->n, &r->took);
  r->tape = gq_pooled(&r->own, r->workers, sizeof *r->tape);
  r->last = gq_pooled(&r->own, r->n, sizeof *r->last);
  r->nfe = gq_pooled(&r->own, r->n, sizeof *r->nfe);
  r->reached = gq_pooled(&r->own, r->n, sizeof *r->reached);
  if (status == GQ_OK) status = gq_pool_status(&r->own);
  if (status != GQ_OK) {
    gq_sampleset_free(r);
    return status;
  }
  for (int64_t i = 0; i < r->n; i++) {
    r->last[i] = -1, r->reached[i] = s->nt;
    ((double *)gq_tensor_data(r->took.t))[i] = s->t[0];
  }
  *out = r;
  return GQ_OK;
}

void gq_sampleset_free(gq_sampleset *r) {
  if (!r) return;
  gq_samples_done(&r->took);
  if (r->results) gq_release(r->on, r->results);
  for (int i = 0; r->tape && i < r->workers; i++) gq_steps_done(&r->tape[i]);
  gq_pool_free(&r->own);
  gq_free(r);
}

/* ---- one worker ---- */

typedef struct forward {
  gq_outcome outcome; /* what ends everything */
  gq_outcome sample;  /* the first sample that failed */
  int64_t failed;
  gq_solution *s;
  gq_lanes lanes;
  int64_t next, stride;
  int first;     /* the first time that is not t[0] */
  double coarse; /* of the sample that has most */
  gq_steps *tape;
  size_t bytes; /* of it */
} forward;

static char *sample_of(const forward *fw, gq_tensor *z, int k, int64_t sample) {
  return (char *)gq_at_time(fw->s, z, k) + sample * fw->s->samples->bytes;
}

static void count_sample(const forward *fw, const gq_lane *lane, int status) {
  const gq_samples *c = &fw->s->samples->took;
  gq_sample_count(c->nfe)[lane->sample] = fw->s->samples->nfe[lane->sample] = lane->nfe;
  gq_sample_count(c->steps)[lane->sample] = lane->steps;
  gq_sample_count(c->rejected)[lane->sample] = lane->rejected;
  gq_sample_count(c->status)[lane->sample] = status;
  ((double *)gq_tensor_data(c->t))[lane->sample] = lane->t;
}

/* Failures of samples end here: the times that were not reached stay without a number. */
static void failed(gq_lanes *p, int j, int status) {
  forward *fw = p->context;
  const gq_lane *lane = &p->lane[j];
  count_sample(fw, lane, status);
  fw->s->samples->reached[lane->sample] = lane->k;
  for (int k = lane->k; k < fw->s->nt; k++)
    p->f->on->vec->fill(p->f->dtype, p->numbers, NAN, sample_of(fw, fw->s->z, k, lane->sample), 1);
  if (fw->failed >= 0 && fw->failed < lane->sample) return;
  fw->failed = lane->sample;
  gq_outcome_set(&fw->sample, status);
}

static bool each_time(const gq_lanes *p) {
  return gq_method_stops(p->st->m) || (!p->rule.adaptive && p->rule.step_size <= 0);
}

static bool next(gq_lanes *p, int j) {
  forward *fw = p->context;
  const gq_solution *s = fw->s;
  gq_lane *lane = &p->lane[j];
  for (; fw->next < s->samples->n; fw->next += fw->stride) {
    const void *y = sample_of(fw, s->z, 0, fw->next);
    lane->sample = fw->next, lane->t = lane->c.origin = s->t[0], lane->k = fw->first;
    size_t bad = p->f->on->vec->nonfinite(p->f->dtype, p->numbers, y);
    if (bad) {
      failed(p, j, gq_lane_over(p, j, GQ_END_FIRST, (int64_t)bad));
      lane->sample = -1;
      continue;
    }
    fw->next += fw->stride;
    gq_lanes_put(p, p->y[0], j, y);
    lane->c.stop = s->t[each_time(p) ? lane->k : s->nt - 1];
    lane->c.h = lane->c.stop < lane->t ? -s->o.first_step : s->o.first_step;
    lane->search = p->rule.adaptive && s->o.first_step <= 0;
    lane->stage = p->st->l.carry ? GQ_LANE_SLOPE : GQ_LANE_READY;
    return true;
  }
  return false;
}

static int keep(forward *fw, int j) {
  gq_lanes *p = &fw->lanes;
  const gq_lane *lane = &p->lane[j];
  gq_steps *t = fw->tape;
  int64_t *last = &fw->s->samples->last[lane->sample];
  if (t->n == INT_MAX) return gq_nomem(fw->bytes);
  GQ_TRY(gq_steps_add(
    t, (gq_step_record){ lane->t, lane->h1, (int)*last, lane->c.clamped ? lane->k - 1 : -1 }, &fw->bytes));
  gq_lanes_get(p, p->y[0], j, gq_steps_data(t, t->n - 1));
  if (p->st->l.carry) gq_lanes_get(p, p->f0[0], j, gq_steps_data(t, t->n - 1) + fw->s->samples->bytes);
  else gq_lanes_noise_get(p, j, gq_steps_data(t, t->n - 1) + fw->s->samples->bytes);
  *last = t->n - 1;
  return GQ_OK;
}

/* The measurement times that the accepted step passes. */
static int accepted(gq_lanes *p, int j) {
  forward *fw = p->context;
  gq_solution *s = fw->s;
  gq_lane *lane = &p->lane[j];
  double dir = lane->h1 < 0 ? -1 : 1;
  lane->coarse += gq_coarse_time(p->f, lane->t, lane->h1);
  fw->coarse = fmax(fw->coarse, lane->coarse);
  for (; lane->k < s->nt && dir * (lane->t1 - s->t[lane->k]) >= 0; lane->k++) {
    char *z = sample_of(fw, s->z, lane->k, lane->sample);
    if (s->t[lane->k] == lane->t1) {
      gq_lanes_get(p, p->y1[0], j, z);
      continue;
    }
    GQ_TRY(gq_lanes_interpolate(p, 0, j, (s->t[lane->k] - lane->t) / lane->h1, z));
    if (!p->f->on->vec->nonfinite(p->f->dtype, p->numbers, z)) continue;
    int k = lane->k; /* the step is not taken: no time in it is reached */
    while (dir * (s->t[lane->k - 1] - lane->t) > 0) lane->k--;
    return gq_lane_over(p, j, GQ_END_BETWEEN, k);
  }
  return s->keeps & GQ_STEP_STATES ? keep(fw, j) : GQ_OK;
}

static int arrived(gq_lanes *p, int j) {
  forward *fw = p->context;
  gq_lane *lane = &p->lane[j];
  if (lane->k < fw->s->nt) { /* from time to time */
    lane->c.stop = fw->s->t[lane->k], lane->c.origin = lane->t, lane->c.index = 0;
    return GQ_OK;
  }
  count_sample(fw, lane, GQ_OK);
  lane->stage = GQ_LANE_IDLE, lane->sample = -1;
  return GQ_OK;
}

static int solve_samples(forward *fw) {
  static const gq_laneuse use = { next, accepted, arrived, failed };
  gq_lanes *p = &fw->lanes;
  p->context = fw;
  gq_samples_rule(&p->rule, p->f, &fw->s->o);
  for (int j = 0; j < p->n; j++) p->shared.atol[0][j] = p->rule.atol[0];
  return gq_lanes_run(p, &use);
}

static void work(void *context, int i) {
  forward *fw = (forward *)context + i;
  gq_outcome_set(&fw->outcome, solve_samples(fw));
}

/* ---- all of them ---- */

static void add_up(gq_solution *s) {
  const gq_sampleset *r = s->samples;
  gq_info *info = &s->info;
  info->nfe = info->steps = info->rejected = 0;
  for (int64_t i = 0; i < r->n; i++) {
    info->nfe += gq_sample_count(r->took.nfe)[i];
    info->steps += gq_sample_count(r->took.steps)[i];
    info->rejected += gq_sample_count(r->took.rejected)[i];
  }
}

/* The first sample that failed speaks for all. */
static int outcome(gq_solution *s, forward *fw) {
  const forward *first = NULL;
  for (int i = 0; i < s->samples->workers; i++) {
    if (fw[i].outcome.status != GQ_OK) return gq_fail(fw[i].outcome.status, "%s", fw[i].outcome.message);
    if (fw[i].failed >= 0 && (!first || fw[i].failed < first->failed)) first = &fw[i];
  }
  s->info.t_reached = s->t[s->nt - 1];
  if (!first) return GQ_OK;
  s->info.t_reached = ((double *)gq_tensor_data(s->samples->took.t))[first->failed];
  return gq_explain(s, gq_fail(first->sample.status, "%s", first->sample.message));
}

static int run(gq_solution *s, forward *fw, int first) {
  gq_sampleset *r = s->samples;
  for (int i = 0; i < r->workers; i++) {
    fw[i].s = s, fw[i].next = i, fw[i].stride = r->workers, fw[i].first = first, fw[i].failed = -1;
    fw[i].tape = &r->tape[i];
    r->tape[i].on = s->plan->field->on, r->tape[i].least = 256,
    r->tape[i].each = r->bytes * (1 + s->plan->forward.l.carry);
    if (gq_device_solves_lanes(s)) continue;
    GQ_TRY(gq_lanes_init(&fw[i].lanes, s, &s->plan->forward, &s->plan->f, false));
    r->tape[i].each += gq_lanes_noise_bytes(&fw[i].lanes);
    s->bytes += fw[i].lanes.bytes;
  }
  if (gq_device_solves_lanes(s)) GQ_TRY(gq_lanework_forward(s, first, &fw->coarse, &fw->failed, &fw->sample));
  else gq_parallel_apart(r->workers, work, fw);
  for (int i = 0; i < r->workers; i++) {
    s->bytes += fw[i].bytes;
    s->info.coarse = fmax(s->info.coarse, fw[i].coarse / fabs(s->t[s->nt - 1] - s->t[0]));
  }
  add_up(s);
  return outcome(s, fw);
}

/* No time passes: the samples are as they were, finite. */
static int check_starts(gq_solution *s) {
  int64_t *status = gq_tensor_data(s->samples->took.status), bad = -1;
  size_t n = s->samples->bytes / gq_dtype_size(s->z->dtype), first = 0;
  for (int64_t sample = s->samples->n - 1; sample >= 0; sample--) {
    size_t i = s->plan->field->on->vec->nonfinite(
      s->z->dtype, n, (char *)gq_at_time(s, s->z, 0) + sample * s->samples->bytes);
    if (i) status[sample] = GQ_ENONFINITE, s->samples->reached[sample] = 0, bad = sample, first = i;
  }
  return bad < 0 ? GQ_OK
                 : gq_explain(
                     s, gq_lane_failure(
                          s, NULL, &(gq_lane){ .sample = bad, .end = GQ_END_FIRST, .bad = (int64_t)first }));
}

int gq_samples_forward(gq_solution *s) {
  int k = 0;
  GQ_TRY(sampleset_new(s, &s->samples));
  if (gq_numel(s->z0->shape) == 0) return GQ_OK;
  for (; k < s->nt && s->t[k] == s->t[0]; k++)
    gq_state_copy(s->plan->field, gq_at_time(s, s->z, k), gq_tensor_data(s->z0));
  s->info.t_reached = s->t[0];
  if (k == s->nt) return check_starts(s);
  forward *fw = gq_calloc(s->samples->workers, sizeof *fw);
  if (!fw) return gq_nomem(s->samples->workers * sizeof *fw);
  int status = run(s, fw, k);
  for (int i = 0; i < s->samples->workers; i++) gq_lanes_done(&fw[i].lanes);
  gq_free(fw);
  return status;
}
