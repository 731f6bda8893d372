/*
** samples_device.c -- the ways back of independent samples by the device that solved them, each in one launch: a block
** goes back along its samples' records (direct, aca; see samples_direct.c for the host's loop), or solves their adjoint
** equations and collects nodes (gq, check; samples_gq.c). Each block has its own sums of gradients that all samples
** share, and they are added up in the blocks' order.
*/
#include "../ode/lanes_device.h"
#include "nodes.h"
#include "samples.h"

#include <math.h>
#include <string.h>

typedef struct back {
  gq_pool pool; /* its arrays */
  gq_lanework x;
  gq_pullback *b;
  gq_lanepass pass;
  gq_grads own; /* the first block's: at[nb] */
  void *count;  /* of the device: [n] gq_lanecosts */
  void *cuts;   /* likewise */
  /* points of the first block */
  const gq_evaluator *e; /* NULL: none are wanted */
  void *t, *z, *a, *whose, *arena;
  const void **cut; /* [nb] */
  void **cut_grad;
  const void **in;
  void **out;
  void *rules; /* of the device */
} back;

/* A gradient that all samples share. */
static bool shared(const gq_field *f, int j) { return f->want[j] && f->axis[j] < 0; }

static size_t grad_bytes(const gq_field *f, int j) {
  return gq_numel(gq_field_boundary_shape(f, j)) * gq_dtype_size(gq_field_boundary_dtype(f, j));
}

/* ---- memory of a block ---- */

static void take_points(back *k, gq_taker *t) {
  const gq_solution *s = k->b->s;
  const gq_field *f = s->plan->field;
  int64_t n = f->lanes[1];
  size_t part = s->samples->bytes * n;
  k->t = gq_take(t, n * sizeof(double)), k->whose = gq_take(t, n * sizeof(int64_t));
  k->z = gq_take(t, part), k->a = gq_take(t, part);
  for (int j = 0; j < f->nb; j++) {
    if (f->axis[j] < 0) continue;
    k->cut[j] = gq_take(t, gq_cut_bytes(f, j, n));
    if (f->want[j]) k->cut_grad[j] = gq_take(t, gq_cut_bytes(f, j, n));
  }
  k->arena = gq_take(t, gq_code_arena(&k->e->code) + 64);
}

static void take_own(back *k, gq_taker *t) {
  const gq_field *f = k->b->s->plan->field;
  for (int j = 0; j < f->nb; j++)
    if (shared(f, j)) k->own.at[j] = gq_take(t, grad_bytes(f, j));
  if (k->e) take_points(k, t);
}

/* ---- tables ---- */

/* Gradients that are cut with the samples, and those of lanes or of points; then values, and those of points. */
static int put_cuts(back *k, void *const *grads, int *sums, int *values) {
  const gq_field *f = k->x.lanes.f;
  size_t bytes = 2 * f->nb * sizeof(gq_lanecut);
  gq_lanecut *here = gq_calloc(1, bytes + 1);
  k->cuts = gq_allocate(f->on, bytes + 64);
  if (!here || !k->cuts) {
    gq_free(here);
    return gq_nomem(bytes);
  }
  gq_lanework_cuts(&k->x, k->b->grads.at, grads, f->want, here, sums);
  if (k->e)
    gq_lanework_cuts(&k->x, (void *const *)k->b->s->bind->value, (void *const *)k->cut, NULL, here + f->nb,
                     values);
  gq_copy(f->on, k->cuts, here, bytes);
  gq_wait(f->on);
  gq_free(here);
  return GQ_OK;
}

static uint64_t place(const back *k, const void *p) { return gq_lanework_place(&k->x, p); }
static uint64_t address(const void *p) { return (uint64_t)(uintptr_t)p; }

static int put_direct(back *k, void *left) {
  const gq_lanes *p = &k->x.lanes;
  gq_lanedirect *h = &k->x.h.direct;
  GQ_TRY(put_cuts(k, p->call.cut_grad, &h->cuts, NULL));
  h->gz = address(gq_tensor_data(k->b->gz)), h->a = address(k->b->a);
  h->left = address(left), h->count = address(k->count), h->cut = address(k->cuts);
  h->cy = place(k, p->cy), h->cf = place(k, p->cf);
  h->py = place(k, p->py), h->pf = place(k, p->pf);
  return GQ_OK;
}

/* ---- nodes ---- */

/* How many nodes a sample's interval asks for; at most `most` are used. */
static int64_t wanted(const gq_solution *s, int64_t sample, int i) {
  return gq_rule_wanted(s->o.C, s->samples->nfe[sample], s->t[i] - s->t[i - 1], s->t[s->nt - 1] - s->t[0]);
}

/* used[n]: somebody asks for n nodes. */
static int find_used(const gq_solution *s, int fixed, bool **used, int *most) {
  *most = fixed;
  for (int64_t j = 0; !fixed && j < s->samples->n; j++)
    for (int i = 1; i < s->nt; i++) {
      int64_t n = wanted(s, j, i);
      if (n > *most) *most = n <= s->o.max_nodes ? (int)n : s->o.max_nodes;
    }
  *used = gq_calloc((size_t)*most + 1, sizeof **used);
  if (!*used) return gq_nomem((size_t)*most);
  (*used)[fixed] = fixed > 0;
  for (int64_t j = 0; !fixed && j < s->samples->n; j++)
    for (int i = 1; i < s->nt; i++) {
      int64_t n = wanted(s, j, i);
      (*used)[n < *most ? n : *most] = true;
    }
  return GQ_OK;
}

/* [most + 1] gq_pointset, and their numbers. here: NULL, and bytes are counted. */
static int put_rules(back *k, const bool *used, int most, char *here, size_t *bytes) {
  gq_rule r = { 0 };
  gq_pointset *set = (gq_pointset *)(void *)here;
  int status = GQ_OK;
  *bytes = ((size_t)most + 1) * sizeof *set;
  for (int n = 1; n <= most && status == GQ_OK; n++) {
    if (!used[n]) continue;
    status = gq_rule_set(&r, &k->b->s->o, n, k->b->refine, 1, 0);
    if (status != GQ_OK) break;
    size_t each = 2 * (size_t)r.m * sizeof *r.x;
    if (here) set[n] = (gq_pointset){ address(k->rules) + *bytes, r.m, r.panels };
    if (here) memcpy(here + *bytes, r.x, each);
    *bytes += each;
  }
  gq_rule_done(&r);
  return status;
}

static int take_rules(back *k, int fixed) {
  const gq_backend *on = k->x.lanes.f->on;
  bool *used = NULL;
  char *here = NULL;
  int most;
  size_t bytes;
  int status = find_used(k->b->s, fixed, &used, &most);
  if (status == GQ_OK) status = put_rules(k, used, most, NULL, &bytes);
  if (status == GQ_OK) {
    here = gq_calloc(1, bytes), k->rules = gq_allocate(on, bytes + 64);
    status = here && k->rules ? put_rules(k, used, most, here, &bytes) : gq_nomem(bytes);
  }
  if (status == GQ_OK) gq_copy(on, k->rules, here, bytes), gq_wait(on);
  gq_free(here);
  gq_free(used);
  return status;
}

static int put_points(back *k) {
  gq_laneadjoint *h = &k->x.h.adjoint;
  GQ_TRY(put_cuts(k, k->cut_grad, &h->sums, &h->cuts));
  GQ_TRY(take_rules(k, h->fixed));
  h->to = address(k->cuts), h->from = h->to + k->x.lanes.f->nb * sizeof(gq_lanecut);
  h->rule = address(k->rules);
  h->pt = place(k, k->t), h->pz = place(k, k->z), h->pa = place(k, k->a), h->whose = place(k, k->whose);
  return GQ_OK;
}

static int put_adjoint(back *k) {
  gq_solution *s = k->b->s;
  const gq_ode_options *o = &s->o;
  const gq_field *f = k->x.lanes.f;
  gq_laneadjoint *h = &k->x.h.adjoint;
  gq_samples_back_rule(&k->x.lanes.rule, s);
  h->f.rule = k->x.lanes.rule;
  h->gz = address(gq_tensor_data(k->b->gz)), h->a = address(k->b->a), h->count = address(k->count);
  h->each = o->nodes == GQ_NODES_STEP, h->refine = k->b->refine;
  h->fixed = h->each ? (k->x.lanes.st->m->order + 2) / 2 : o->nodes == GQ_NODES_FIXED ? o->fixed_nodes : 0;
  h->most = o->max_nodes, h->C = o->C, h->span = s->t[s->nt - 1] - s->t[0];
  h->atol = o->back_atol, h->least = gq_positive_atol(f->dtype, 0), h->scale = o->scale;
  h->collects = k->e != NULL;
  h->points = (int)f->lanes[1];
  h->across = f->front ? 1 : h->points, h->along = f->front ? h->f.numbers : 1;
  return k->e ? put_points(k) : GQ_OK;
}

static int bind_points(back *k) {
  const gq_field *f = k->x.lanes.f;
  const gq_evaluator *e = k->e;
  gq_lanejob *v = &k->x.v;
  k->in = gq_pooled(&k->pool, e->nin, sizeof *k->in), k->out = gq_pooled(&k->pool, e->nout, sizeof *k->out);
  GQ_TRY(gq_pool_status(&k->pool));
  k->in[0] = k->t, k->in[1] = k->z, k->in[2] = k->a;
  for (int j = 0; j < f->nb; j++) k->in[3 + j] = f->axis[j] < 0 ? k->b->s->bind->value[j] : k->cut[j];
  for (int r = 0; r < e->nq; r++)
    k->out[r] = f->axis[e->of[r]] < 0 ? k->own.at[e->of[r]] : k->cut_grad[e->of[r]];
  v->in[2] = k->in, v->out[2] = k->out, v->arena[2] = k->arena;
  return GQ_OK;
}

/* ---- set-up ---- */

static int open(back *k, void *left) {
  gq_solution *s = k->b->s;
  gq_plan *plan = s->plan;
  const gq_field *f = plan->field;
  bool direct = k->pass == GQ_PASS_DIRECT;
  gq_lanework_kind kind = { k->pass, sizeof(gq_lanedirect), &plan->forward, &plan->pull, NULL };
  size_t at, counts = s->samples->n * sizeof(gq_lanecosts);
  gq_taker t = { 0 };
  if (!direct) {
    k->e = plan->products ? &plan->many[0] : NULL;
    kind = (gq_lanework_kind){ k->pass, sizeof(gq_laneadjoint), &plan->backward, &plan->adjoint, k->e };
  }
  k->own.at = gq_pooled(&k->pool, f->nb, sizeof *k->own.at);
  k->cut = gq_pooled(&k->pool, f->nb, sizeof *k->cut),
  k->cut_grad = gq_pooled(&k->pool, f->nb, sizeof *k->cut_grad);
  k->count = gq_allocate(f->on, counts + 64);
  GQ_TRY(gq_pool_status(&k->pool));
  if (!k->count) return gq_nomem(counts);
  gq_zero(f->on, k->count, counts);
  take_own(k, &t);
  GQ_TRY(gq_lanework_open(&k->x, s, &kind, t.used, &at));
  t = (gq_taker){ .base = (char *)(uintptr_t)k->x.v.room + at };
  take_own(k, &t);
  k->x.lanes.grads = &k->own;
  GQ_TRY(direct ? put_direct(k, left) : put_adjoint(k));
  if (k->e) GQ_TRY(bind_points(k));
  return gq_lanework_bind(&k->x);
}

/* ---- what became of it ---- */

/* The first sample that failed. */
static int outcome(const back *k) {
  const gq_lanework *x = &k->x;
  gq_lane first = { .sample = -1 };
  for (int b = 0; x->h.f.failures && b < x->v.blocks; b++) {
    gq_laneblock c;
    gq_copy(x->lanes.f->on, &c, x->v.room + b * x->v.each, sizeof c);
    gq_wait(x->lanes.f->on);
    if (c.failed.sample >= 0 && (first.sample < 0 || c.failed.sample < first.sample)) first = c.failed;
  }
  int status = gq_lane_failure(x->s, &x->lanes.rule, &first);
  return status == GQ_OK || k->pass == GQ_PASS_DIRECT ? status : gq_samples_failed(&first, status);
}

/* The blocks' sums, in their order. */
static void add_grads(const back *k) {
  static const double ones[GQ_TERMS] = { [0 ... GQ_TERMS - 1] = 1 };
  const gq_field *f = k->x.lanes.f;
  for (int j = 0; j < f->nb; j++) {
    size_t n = gq_numel(gq_field_boundary_shape(f, j));
    for (int b = 0, some; shared(f, j) && b < k->x.v.blocks; b += some) {
      void *at[2 + GQ_TERMS] = { k->b->grads.at[j], k->b->grads.at[j] };
      some = k->x.v.blocks - b < GQ_TERMS ? k->x.v.blocks - b : GQ_TERMS;
      for (int i = 0; i < some; i++) at[2 + i] = (char *)k->own.at[j] + (b + i) * k->x.v.each;
      f->on->vec->combine(gq_field_boundary_dtype(f, j), 1, &n, some, ones, at);
    }
  }
}

static void count(const back *k, const gq_lanecosts *all) {
  const gq_solution *s = k->x.s;
  const gq_samples *took = &s->samples->took;
  for (int64_t i = 0; i < s->samples->n; i++) {
    gq_sample_count(took->nfe_backward)[i] += all[i].nfe;
    gq_sample_count(took->steps_backward)[i] = all[i].steps;
  }
}

static void count_nodes(const back *k, const gq_lanecosts *all) {
  const gq_samples *took = &k->x.s->samples->took;
  gq_info *info = &k->x.s->info;
  info->nodes = 0;
  for (int64_t i = 0; i < k->x.s->samples->n; i++) {
    gq_sample_count(took->nodes)[i] = all[i].nodes;
    info->nodes += all[i].nodes, info->nodes_wanted += all[i].wanted, info->restarts += all[i].restarts;
    info->capped |= all[i].capped != 0;
    if (!(all[i].off <= info->reconstruction)) info->reconstruction = all[i].off;
  }
}

static int take_counts(const back *k) {
  gq_sampleset *r = k->x.s->samples;
  size_t bytes = r->n * sizeof(gq_lanecosts);
  gq_lanecosts *all = gq_alloc(bytes + 1);
  if (!all) return gq_nomem(bytes);
  gq_copy(r->on, all, k->count, bytes);
  gq_wait(r->on);
  count(k, all);
  if (k->pass == GQ_PASS_ADJOINT) count_nodes(k, all);
  gq_free(all);
  return GQ_OK;
}

/* Cotangents of times that are t[0]. */
static void add_first(const back *k) {
  const gq_solution *s = k->x.s;
  for (int i = 0; i < s->nt && s->t[i] == s->t[0]; i++)
    gq_state_add(k->x.lanes.f, 1, gq_at_time(s, k->b->gz, i), k->b->a);
}

int gq_samples_by_device(gq_pullback *b, void *left) {
  bool direct = gq_keeps_steps(b->s->o.engine);
  back k = { .b = b, .pass = direct ? GQ_PASS_DIRECT : GQ_PASS_ADJOINT, .x = { .s = b->s } };
  const gq_backend *on = b->s->plan->field->on;
  void **block[] = { &k.count, &k.cuts, &k.rules };
  int status = open(&k, left);
  if (status == GQ_OK) do
      status = gq_lanework_launch(&k.x);
    while (status == GQ_OK && k.x.h.f.busy);
  if (status == GQ_OK) status = outcome(&k);
  if (status == GQ_OK) status = take_counts(&k);
  if (status == GQ_OK) add_grads(&k);
  if (status == GQ_OK && direct) add_first(&k);
  for (int i = 0; i < 3; i++)
    if (*block[i]) gq_release(on, *block[i]);
  gq_pool_free(&k.pool);
  gq_lanework_close(&k.x);
  return status;
}
