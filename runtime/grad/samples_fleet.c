/*
** samples_fleet.c -- backpropagation through each sample's own steps (direct, aca) by the device that took them: a crew goes
** back along its samples' records. See samples_direct.c for the host's loop. Each crew has its own sums of gradients that
** all samples share, and they are added up in the crews' order.
*/
#include "../ode/fleet.h"
#include "samples.h"

#include <string.h>

typedef struct back {
  gq_fleetwork x;
  gq_pullback *b;
  gq_grads own; /* the first crew's: at[nb] */
  void *count;  /* of the device: [n][2] evaluations and steps */
  void *cuts;   /* likewise */
} back;

/* A gradient that all samples share. */
static bool shared(const gq_field *f, int j) { return f->want[j] && f->axis[j] < 0; }

static size_t grad_bytes(const gq_field *f, int j) {
  return gq_round64(gq_numel(gq_field_boundary_shape(f, j)) * gq_dtype_size(gq_field_boundary_dtype(f, j)));
}

static int put_cuts(back *k) {
  const gq_field *f = k->x.lanes.f;
  size_t bytes = f->nb * sizeof(gq_cutting);
  gq_cutting *here = gq_alloc(bytes + 1);
  k->cuts = gq_allocate(f->on, bytes + 64);
  if (!here || !k->cuts) {
    gq_free(here);
    return gq_nomem(bytes);
  }
  gq_fleet_cuts(&k->x, k->b->grads.at, k->x.lanes.call.cut_grad, f->want, here, &k->x.h.cuts);
  gq_copy(f->on, k->cuts, here, k->x.h.cuts * sizeof *here);
  gq_wait(f->on);
  gq_free(here);
  return GQ_OK;
}

static void put_home(back *k, void *left) {
  const gq_lanes *p = &k->x.lanes;
  gq_homing *h = &k->x.h;
  h->gz = (uint64_t)(uintptr_t)gq_tensor_data(k->b->gz), h->a = (uint64_t)(uintptr_t)k->b->a;
  h->left = (uint64_t)(uintptr_t)left, h->count = (uint64_t)(uintptr_t)k->count;
  h->cut = (uint64_t)(uintptr_t)k->cuts;
  h->cy = gq_fleet_place(&k->x, p->cy), h->cf = gq_fleet_place(&k->x, p->cf);
  h->py = gq_fleet_place(&k->x, p->py), h->pf = gq_fleet_place(&k->x, p->pf);
}

static int open(back *k, void *left) {
  gq_solution *s = k->b->s;
  const gq_field *f = s->plan->field;
  size_t own = 0, at, counts = s->samples->n * 2 * sizeof(int64_t);
  for (int j = 0; j < f->nb; j++) own += shared(f, j) ? grad_bytes(f, j) : 0;
  GQ_TRY(gq_fleet_open(&k->x, s, true, own, &at));
  k->own.at = gq_calloc(f->nb + 1, sizeof *k->own.at);
  k->count = gq_allocate(f->on, counts + 64);
  if (!k->own.at || !k->count) return gq_nomem(counts);
  gq_zero(f->on, k->count, counts);
  for (int j = 0; j < f->nb; j++) {
    if (!shared(f, j)) continue;
    k->own.at[j] = (char *)(uintptr_t)k->x.v.room + at;
    at += grad_bytes(f, j);
  }
  k->x.lanes.grads = &k->own;
  GQ_TRY(put_cuts(k));
  put_home(k, left);
  return gq_fleet_bind(&k->x);
}

/* The first sample that failed. */
static int outcome(const back *k) {
  const gq_fleetwork *x = &k->x;
  gq_lane first = { .sample = -1 };
  for (int b = 0; x->h.f.failures && b < x->v.crews; b++) {
    gq_crew c;
    gq_copy(x->lanes.f->on, &c, x->v.room + b * x->v.each, sizeof c);
    gq_wait(x->lanes.f->on);
    if (c.failed.sample >= 0 && (first.sample < 0 || c.failed.sample < first.sample)) first = c.failed;
  }
  return gq_lane_failure(x->s, &x->lanes.rule, &first);
}

/* The crews' sums, in their order. */
static void add_grads(const back *k) {
  static const double ones[GQ_TERMS] = { [0 ... GQ_TERMS - 1] = 1 };
  const gq_field *f = k->x.lanes.f;
  for (int j = 0; j < f->nb; j++) {
    size_t n = gq_numel(gq_field_boundary_shape(f, j));
    for (int b = 0, some; shared(f, j) && b < k->x.v.crews; b += some) {
      void *at[2 + GQ_TERMS] = { k->b->grads.at[j], k->b->grads.at[j] };
      some = k->x.v.crews - b < GQ_TERMS ? k->x.v.crews - b : GQ_TERMS;
      for (int i = 0; i < some; i++) at[2 + i] = (char *)k->own.at[j] + (b + i) * k->x.v.each;
      f->on->vec->combine(gq_field_boundary_dtype(f, j), 1, &n, some, ones, at);
    }
  }
}

static int take_counts(const back *k) {
  gq_sampleset *r = k->x.s->samples;
  size_t bytes = r->n * 2 * sizeof(int64_t);
  int64_t *all = gq_alloc(bytes + 1);
  if (!all) return gq_nomem(bytes);
  gq_copy(r->on, all, k->count, bytes);
  gq_wait(r->on);
  for (int64_t i = 0; i < r->n; i++) {
    gq_sample_count(r->took.nfe_backward)[i] += all[2 * i];
    gq_sample_count(r->took.steps_backward)[i] = all[2 * i + 1];
  }
  gq_free(all);
  return GQ_OK;
}

/* Cotangents of times that are t[0]. */
static void add_first(const back *k) {
  const gq_solution *s = k->x.s;
  const gq_field *f = k->x.lanes.f;
  for (int i = 0; i < s->nt && s->t[i] == s->t[0]; i++)
    f->on->vec->axpy(f->dtype, gq_numel(f->shape), 1, gq_at_time(s, k->b->gz, i), k->b->a);
}

int gq_samples_home(gq_pullback *b, void *left) {
  back k = { .b = b, .x = { .s = b->s } };
  const gq_backend *on = b->s->plan->field->on;
  int status = open(&k, left);
  if (status == GQ_OK) do
      status = gq_fleet_sail(&k.x);
    while (status == GQ_OK && k.x.h.f.busy);
  if (status == GQ_OK) status = outcome(&k);
  if (status == GQ_OK) status = take_counts(&k);
  if (status == GQ_OK) add_grads(&k), add_first(&k);
  if (k.count) gq_release(on, k.count);
  if (k.cuts) gq_release(on, k.cuts);
  gq_free(k.own.at);
  gq_fleet_close(&k.x);
  return status;
}
