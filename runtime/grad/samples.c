/*
** samples.c -- the backward pass of batch = "independent": workers, each with sums of gradients of its own, which are
** added up at the end. Gradients of what belongs to one sample (z0, captures cut with the samples) are the same in any
** company; those of what all samples share are sums over the samples, the same to rounding.
*/
#include "samples.h"

void gq_lanes_add(const gq_lanes *p, void *lanes, int j, double scale, const void *sample) {
  char *to = (char *)lanes + j * p->along * gq_dtype_size(p->f->dtype);
  p->f->on->vec->add(p->f->dtype, p->numbers, scale, sample, 1, to, p->across);
}

static void work(void *context, int i) {
  gq_samplepull *w = (gq_samplepull *)context + i;
  gq_outcome_set(&w->outcome, w->s->o.engine->samples(w));
}

static int begin(gq_pullback *b, gq_samplepull *w, void *left) {
  gq_solution *s = b->s;
  const gq_plan *plan = s->plan;
  bool discrete = gq_keeps_steps(s->o.engine);
  for (int i = 0; i < s->samples->workers; i++, w++) {
    w->b = b, w->s = s, w->next = i, w->stride = s->samples->workers, w->failed = -1, w->left = left;
    GQ_TRY(gq_lanes_init(&w->lanes, s, discrete ? &plan->forward : &plan->backward,
                         discrete ? &plan->pull : &plan->adjoint, discrete));
    GQ_TRY(gq_grads_new(plan->field, false, &w->grads));
    if (b->gt && !(w->gt = gq_calloc(s->nt, sizeof *w->gt))) return gq_nomem(s->nt * sizeof *w->gt);
    w->lanes.grads = &w->grads, w->lanes.context = w;
    s->bytes += w->grads.bytes + w->lanes.bytes;
  }
  return GQ_OK;
}

/* The first sample that failed speaks for all. */
static int outcome(gq_pullback *b, const gq_samplepull *w) {
  gq_solution *s = b->s;
  const gq_samplepull *first = NULL;
  gq_info *info = &s->info;
  info->nodes = 0;
  for (int i = 0; i < s->samples->workers; i++) {
    if (w[i].outcome.status != GQ_OK) return gq_fail(w[i].outcome.status, "%s", w[i].outcome.message);
    if (w[i].failed >= 0 && (!first || w[i].failed < first->failed)) first = &w[i];
    info->nodes += w[i].nodes, info->nodes_wanted += w[i].wanted, info->restarts += w[i].restarts;
    info->capped |= w[i].capped;
    if (!(w[i].reconstruction <= info->reconstruction)) info->reconstruction = w[i].reconstruction;
  }
  return first ? gq_fail(first->sample.status, "%s", first->sample.message) : GQ_OK;
}

static void add_up(gq_pullback *b, const gq_samplepull *w) {
  const gq_solution *s = b->s;
  for (int i = 0; i < s->samples->workers; i++) gq_grads_add(s->plan->field, 1, &w[i].grads, &b->grads);
  for (int i = 0; b->gt && i < s->samples->workers; i++)
    for (int k = 0; k < s->nt; k++) b->gt[k] += w[i].gt[k];
}

static void count(gq_pullback *b) {
  gq_solution *s = b->s;
  const gq_samples *c = &s->samples->took;
  s->info.steps_backward = b->nfe = 0;
  for (int64_t i = 0; i < s->samples->n; i++) {
    b->nfe += gq_sample_count(c->nfe_backward)[i];
    s->info.steps_backward += gq_sample_count(c->steps_backward)[i];
  }
}

static int by_workers(gq_pullback *b, void *left) {
  int n = b->s->samples->workers;
  gq_samplepull *w = gq_calloc(n, sizeof *w);
  int status = w ? begin(b, w, left) : gq_nomem(n * sizeof *w);
  if (status == GQ_OK) {
    gq_parallel_apart(n, work, w);
    status = outcome(b, w);
  }
  if (status == GQ_OK) add_up(b, w);
  for (int i = 0; w && i < n; i++) gq_lanes_done(&w[i].lanes), gq_grads_done(&w[i].grads), gq_free(w[i].gt);
  gq_free(w);
  return status;
}

int gq_samples_backward(gq_pullback *b) {
  gq_solution *s = b->s;
  const gq_backend *on = s->plan->field->on;
  void *left = gq_allocate(on, gq_part_bytes(s->plan->field) + 64);
  if (!left) return gq_nomem(gq_part_bytes(s->plan->field));
  gq_state_clear(s->plan->field, left);
  for (int64_t i = 0; b->refine == 1 && i < s->samples->n; i++) /* check goes back twice */
    gq_sample_count(s->samples->took.nfe_backward)[i] = 0;
  bool direct = s->samples->results && (gq_keeps_steps(s->o.engine) || (!b->gt && !s->o.quadrature->random));
  int status = direct ? gq_samples_by_device(b, left) : by_workers(b, left);
  if (status == GQ_OK) count(b);
  gq_release(on, left);
  return status;
}

int gq_samples_slope(gq_pullback *b, const void *z, void *slope) {
  gq_solution *s = b->s;
  gq_lanes p;
  int64_t n = s->samples->n;
  size_t bytes = s->samples->bytes;
  GQ_TRY(gq_lanes_init(&p, s, &s->plan->forward, &s->plan->f, false));
  int status = GQ_OK;
  for (int64_t first = 0; first < n && status == GQ_OK; first += p.n) {
    int count = n - first < p.n ? (int)(n - first) : p.n;
    for (int j = 0; j < p.n; j++) {
      int64_t sample = first + (j < count ? j : 0);
      gq_lanes_put(&p, p.ey[0], j, (const char *)z + sample * bytes);
      gq_lanes_cut(s, sample, p.n, j, p.call.cut);
      gq_lanes_set_time(&p, j, s->t[0]);
    }
    status = gq_lanes_evaluate(&p, &s->plan->f, p.ey, p.ef[0]);
    for (int j = 0; j < count; j++) {
      gq_lanes_get(&p, p.ef[0], j, (char *)slope + (first + j) * bytes);
      gq_sample_count(s->samples->took.nfe_backward)[first + j] = 1;
    }
  }
  b->nfe += n;
  gq_lanes_done(&p);
  return status;
}
