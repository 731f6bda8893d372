/*
** samples_gq.c -- the adjoint equation and its quadrature, sample by sample: each solves [z, a] backwards over its
** measurement intervals with its own steps, and has nodes by the rule from its own evaluations (eq. (9)). Nodes of all
** samples are gathered as columns (t, z, w a) and evaluated together. See continuous.c for one step size for all.
*/
#include "nodes.h"
#include "samples.h"

#include <math.h>
#include <string.h>

typedef struct back {
  gq_samplepull *w;
  gq_lanes *p;
  gq_solution *s;
  size_t bytes;  /* of a sample */
  bool gq;       /* nodes are to be collected */
  gq_rule *rule; /* [n] of a lane's interval */
  gq_rule step;  /* nodes = "step" */
  /* points at which products are evaluated together */
  int points, filled;
  int64_t *sample; /* [points] whose each is */
  void *t, *z, *a;
  const void **cut;
  void **cut_grad;
  const void **in;
  void **out;
  void *arena;
} back;

/* ---- nodes ---- */

/* t: of the host; there: where the states are. */
static void take_all(back *k, gq_taker *t, gq_taker *there) {
  const gq_field *f = k->s->plan->field;
  const gq_evaluator *e = &k->s->plan->many[0];
  size_t n = k->p->n, part = k->bytes * k->points;
  k->rule = gq_take(t, n * sizeof *k->rule);
  if (!k->gq) return;
  k->sample = gq_take(t, k->points * sizeof *k->sample);
  k->cut = gq_take(t, (f->nb + 1) * sizeof *k->cut),
  k->cut_grad = gq_take(t, (f->nb + 1) * sizeof *k->cut_grad);
  k->in = gq_take(t, e->nin * sizeof *k->in), k->out = gq_take(t, (e->nout + 1) * sizeof *k->out);
  k->t = gq_take(there, k->points * sizeof(double));
  k->z = gq_take(there, part), k->a = gq_take(there, part);
  for (int j = 0; j < f->nb; j++) {
    if (f->axis[j] < 0) continue;
    size_t bytes = gq_cut_bytes(f, j, k->points);
    void *cut = gq_take(there, bytes), *grad = gq_take(there, bytes);
    if (t->base) k->cut[j] = cut, k->cut_grad[j] = grad;
  }
  k->arena = gq_take(there, gq_code_arena(&e->code) + 64);
}

static void set_time(const back *k, int i, double t) {
  const gq_field *f = k->p->f;
  f->on->vec->put(f->dtype, 1, &t, (char *)k->t + i * gq_dtype_size(f->dtype), 1);
}

/* Where the first number of point i is, and how far from one to the next. */
static char *at_point(const back *k, void *points, int i) {
  const gq_field *f = k->p->f;
  return (char *)points + (f->front ? i * k->p->numbers : (size_t)i) * gq_dtype_size(f->dtype);
}

static size_t stride(const back *k) { return k->p->f->front ? 1 : (size_t)k->points; }

/* scale * sample into point i */
static void put_point(const back *k, void *points, int i, double scale, const void *sample) {
  const gq_field *f = k->p->f;
  f->on->vec->scale(f->dtype, k->p->numbers, scale, sample, 1, at_point(k, points, i), stride(k));
}

/* Points that are not taken repeat the first with a = 0. */
static void repeat_first(back *k) {
  const gq_field *f = k->p->f;
  size_t size = gq_dtype_size(f->dtype);
  for (int i = k->filled; i < k->points; i++) {
    k->sample[i] = k->sample[0];
    gq_copy(f->on, (char *)k->t + i * size, k->t, size);
    f->on->vec->scale(f->dtype, k->p->numbers, 1, k->z, stride(k), at_point(k, k->z, i), stride(k));
    f->on->vec->fill(f->dtype, k->p->numbers, 0, at_point(k, k->a, i), stride(k));
  }
}

static int flush(back *k) {
  const gq_field *f = k->p->f;
  const gq_evaluator *e = &k->s->plan->many[0];
  if (k->filled == 0) return GQ_OK;
  repeat_first(k);
  for (int i = 0; i < k->points; i++) gq_lanes_cut(k->s, k->sample[i], k->points, i, k->cut);
  k->in[0] = k->t, k->in[1] = k->z, k->in[2] = k->a;
  for (int j = 0; j < f->nb; j++) {
    bool whole = f->axis[j] < 0;
    if (!whole) gq_zero(f->on, k->cut_grad[j], gq_cut_bytes(f, j, k->points));
    k->in[3 + j] = whole ? k->s->bind->value[j] : k->cut[j];
  }
  for (int r = 0; r < e->nq; r++)
    k->out[r] = f->axis[e->of[r]] < 0 ? k->w->grads.at[e->of[r]] : k->cut_grad[e->of[r]];
  GQ_TRY(gq_program_run(e->code.prog[0], 0, k->arena, k->in, k->out));
  for (int i = 0; i < k->filled; i++)
    gq_lanes_uncut(f, k->sample[i], k->points, i, k->cut_grad, &k->w->grads);
  k->filled = 0;
  return GQ_OK;
}

/* One node at time t inside lane j's accepted step. */
static int collect(back *k, int j, double t, double weight) {
  gq_lanes *p = k->p;
  gq_lane *lane = &p->lane[j];
  double theta = (t - lane->t) / lane->h1;
  GQ_TRY(gq_lanes_interpolate(p, 0, j, theta, p->scratch));
  put_point(k, k->z, k->filled, 1, p->scratch);
  GQ_TRY(gq_lanes_interpolate(p, 1, j, theta, p->scratch));
  put_point(k, k->a, k->filled, weight, p->scratch);
  set_time(k, k->filled, t);
  k->sample[k->filled++] = lane->sample;
  lane->nodes++;
  return k->filled == k->points ? flush(k) : GQ_OK;
}

static int interval_rule(back *k, int j) {
  const gq_ode_options *o = &k->s->o;
  gq_lane *lane = &k->p->lane[j];
  const double *t = k->s->t;
  double from = t[lane->k], to = t[lane->k - 1];
  lane->node = 0;
  if (o->nodes == GQ_NODES_STEP) return GQ_OK;
  int64_t wanted = o->nodes == GQ_NODES_FIXED ? o->fixed_nodes
                                              : gq_rule_wanted(o->C, k->s->samples->nfe[lane->sample],
                                                               from - to, t[k->s->nt - 1] - t[0]);
  int64_t used = o->nodes == GQ_NODES_FIXED || wanted <= o->max_nodes ? wanted : o->max_nodes;
  k->w->capped |= used < wanted;
  k->w->wanted += wanted * k->w->b->refine;
  return gq_rule_set(&k->rule[j], o, (int)used, k->w->b->refine, from, to);
}

/* The nodes inside the accepted step. */
static int accepted(gq_lanes *p, int j) {
  back *k = p->context;
  gq_lane *lane = &p->lane[j];
  const gq_ode_options *o = &k->s->o;
  bool each = o->nodes == GQ_NODES_STEP, last = lane->t1 == lane->c.stop;
  double dir = lane->h1 < 0 ? -1 : 1, weight;
  gq_rule *rule = each ? &k->step : &k->rule[j];
  if (!k->gq) return GQ_OK;
  if (each) {
    GQ_TRY(gq_rule_set(rule, o, (p->st->m->order + 2) / 2, k->w->b->refine, lane->t, lane->t1));
    k->w->wanted += gq_rule_count(rule), lane->node = 0;
  }
  for (; lane->node < gq_rule_count(rule); lane->node++) {
    double t = gq_rule_point(rule, lane->node, &weight);
    if (!last && !each && dir * (t - lane->t1) > 0) break;
    GQ_TRY(collect(k, j, t, weight));
  }
  return GQ_OK;
}

/* ---- samples and intervals ---- */

static void count_sample(const back *k, int j) {
  const gq_lane *lane = &k->p->lane[j];
  const gq_samples *c = &k->s->samples->took;
  gq_sample_count(c->nfe_backward)[lane->sample] += lane->nfe + lane->nodes;
  gq_sample_count(c->steps_backward)[lane->sample] = lane->steps;
  gq_sample_count(c->nodes)[lane->sample] = lane->nodes;
  k->w->nodes += lane->nodes;
}

/* From measurement time lane->k on: a takes the cotangents there, and the next interval in which it is not zero
** begins; at t[0] the sample is done. a: a sample, in the user's result. */
static int proceed(back *k, int j) {
  gq_lanes *p = k->p;
  gq_lane *lane = &p->lane[j];
  const gq_solution *s = k->s;
  void *a = (char *)k->w->b->a + lane->sample * k->bytes;
  for (;; lane->k--) {
    if (lane->k == 0 && k->w->gt)
      gq_copy(p->f->on, (char *)k->w->left + lane->sample * k->bytes, a, k->bytes);
    p->f->on->vec->axpy(p->f->dtype, p->numbers, 1, gq_sample_at(s, k->w->b->gz, lane->k, lane->sample), a);
    if (lane->k == 0) {
      count_sample(k, j);
      lane->sample = -1, lane->stage = GQ_LANE_IDLE;
      return GQ_OK;
    }
    if (s->t[lane->k] != s->t[lane->k - 1] && p->f->on->vec->nonzero(p->f->dtype, p->numbers, a))
      break; /* before the last cotangent a stays zero */
  }
  gq_lanes_put(p, p->y[0], j, gq_sample_at(s, s->z, lane->k, lane->sample));
  gq_lanes_put(p, p->y[1], j, a);
  lane->t = lane->c.origin = s->t[lane->k], lane->c.stop = s->t[lane->k - 1], lane->c.index = 0;
  lane->search = p->st->kind.adaptive && !lane->started;
  lane->stage = p->st->l.carry ? GQ_LANE_SLOPE : GQ_LANE_READY;
  if (lane->started) k->w->restarts++;
  lane->started = true;
  return k->gq ? interval_rule(k, j) : GQ_OK;
}

static int arrived(gq_lanes *p, int j) {
  back *k = p->context;
  gq_lane *lane = &p->lane[j];
  lane->k--;
  gq_lanes_put(p, p->ey[0], j, gq_sample_at(k->s, k->s->z, lane->k, lane->sample));
  double r = gq_lanes_norm(p, 0, j, p->y[0], p->ey[0], p->ey[0]);
  if (!(r <= k->w->reconstruction)) k->w->reconstruction = r;
  gq_lanes_get(p, p->y[1], j, (char *)k->w->b->a + lane->sample * k->bytes);
  return proceed(k, j);
}

static bool next(gq_lanes *p, int j) {
  back *k = p->context;
  gq_samplepull *w = k->w;
  const gq_ode_options *o = &k->s->o;
  gq_lane *lane = &p->lane[j];
  while (w->next < k->s->samples->n && lane->sample < 0) {
    double size = 0, one;
    lane->sample = w->next, lane->k = k->s->nt - 1;
    w->next += w->stride;
    for (int i = 0; i < k->s->nt; i++) {
      p->f->on->vec->rms(p->f->dtype, 1, p->numbers, p->numbers,
                         gq_sample_at(k->s, w->b->gz, i, lane->sample), &one);
      size = fmax(size, one);
    }
    p->shared.atol[0][j] = p->rule.atol[0];
    p->shared.atol[1][j] = gq_positive_atol(p->f->dtype, o->back_atol * (o->scale ? size : 1));
    lane->started = false, lane->nodes = 0;
    w->outcome.status = proceed(k, j); /* a rule's memory */
    if (w->outcome.status != GQ_OK) return false;
  }
  return lane->sample >= 0;
}

int gq_samples_failed(const gq_lane *lane, int status) {
  return gq_fail(status,
                 "in the backward pass between t[%d] and t[%d]: %s; z is solved backwards here: "
                 "gradient = \"direct\" and \"aca\" go along the solution",
                 lane->k + 1, lane->k, gq_message());
}

static void failed(gq_lanes *p, int j, int status) {
  back *k = p->context;
  gq_samplepull *w = k->w;
  const gq_lane *lane = &p->lane[j];
  if (w->failed >= 0 && w->failed < lane->sample) return;
  w->failed = lane->sample;
  gq_outcome_set(&w->sample, gq_samples_failed(lane, status));
}

/* dL/dt_i = g_i . f(t_i, z_i), but at t_0: -a . f(t_0, z_0) with a before g_0. `count` samples from `first` on. */
static int time_gradient(back *k, int i, int64_t first, int count) {
  gq_samplepull *w = k->w;
  gq_lanes *p = k->p;
  const gq_solution *s = k->s;
  for (int j = 0; j < p->n; j++) {
    int64_t sample = first + (j < count ? j : 0) * w->stride;
    gq_lanes_put(p, p->ey[0], j, gq_sample_at(s, s->z, i, sample));
    gq_lanes_cut(s, sample, p->n, j, p->call.cut);
    gq_lanes_set_time(p, j, s->t[i]);
  }
  GQ_TRY(gq_lanes_evaluate(p, &s->plan->f, p->ey, p->ef[0]));
  for (int j = 0; j < count; j++) {
    int64_t sample = first + j * w->stride;
    const char *g = i > 0 ? gq_sample_at(s, w->b->gz, i, sample) : (char *)w->left + sample * k->bytes;
    if (!p->f->on->vec->nonzero(p->f->dtype, p->numbers, g))
      continue; /* where z was not reached f is no number */
    gq_lanes_get(p, p->ef[0], j, p->scratch);
    w->gt[i] += (i > 0 ? 1 : -1) * p->f->on->vec->dot(p->f->dtype, p->numbers, g, p->scratch);
    gq_sample_count(s->samples->took.nfe_backward)[sample]++;
  }
  return GQ_OK;
}

static int time_gradients(back *k, int64_t first) {
  const gq_samplepull *w = k->w;
  int64_t samples = k->s->samples->n, n = k->p->n;
  for (int i = 0; i < k->s->nt; i++)
    for (int64_t sample = first; sample < samples; sample += n * w->stride) {
      int64_t left = (samples - sample + w->stride - 1) / w->stride;
      GQ_TRY(time_gradient(k, i, sample, (int)(left < n ? left : n)));
    }
  return GQ_OK;
}

static int run(back *k) {
  int64_t first = k->w->next;
  static const gq_laneuse use = { next, accepted, arrived, failed };
  GQ_TRY(gq_lanes_run(k->p, &use));
  GQ_TRY(k->w->outcome.status);
  if (k->w->gt && k->w->failed < 0) GQ_TRY(time_gradients(k, first));
  return k->gq ? flush(k) : GQ_OK;
}

void gq_samples_back_rule(gq_lanerule *r, const gq_solution *s) {
  const gq_ode_options *o = &s->o;
  r->rtol = o->back_rtol, r->atol[0] = gq_positive_atol(s->z->dtype, o->back_atol);
  r->max_norm = o->back_max_norm, r->step_size = o->back_step_size;
  r->most = o->back_max_step, r->least = o->back_min_step, r->max_steps = gq_back_budget(s);
}

int gq_samples_quadrature(gq_samplepull *w) {
  gq_lanes *p = &w->lanes;
  back k = { .w = w, .p = p, .s = w->s, .bytes = w->s->samples->bytes, .gq = w->s->plan->products };
  k.points = (int)p->f->lanes[1];
  p->context = &k;
  gq_samples_back_rule(&p->rule, w->s);
  gq_taker t = { 0 }, there = { 0 };
  const gq_backend *on = p->f->on;
  take_all(&k, &t, &there);
  void *block = t.base = gq_calloc(1, t.used), *states = there.base = gq_allocate(on, there.used + 64);
  int status = block && states ? GQ_OK : gq_nomem(t.used + there.used);
  if (status == GQ_OK) {
    t.used = there.used = 0;
    take_all(&k, &t, &there);
    status = run(&k);
    for (int j = 0; j < p->n; j++) gq_rule_done(&k.rule[j]);
  }
  gq_rule_done(&k.step);
  gq_free(block);
  if (states) gq_release(on, states);
  return status;
}
