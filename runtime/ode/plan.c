/*
** plan.c -- compiled solvers, cached by structure: the traced graph, what wants gradients, method,
** engine and everything else that shapes a program. Numbers are inputs, so they are not in the key.
*/
#include "plan.h"

#include <pthread.h>
#include <string.h>

enum {
  MAX_PLANS = 64,
  STACKED = 256,     /* rows of all nodes of a block: enough for products at full speed, */
  TOGETHER = 1 << 23 /* but no more numbers of one value than these: images are large */
};

static struct {
  pthread_mutex_t lock;
  gq_plan *list[MAX_PLANS];
  int n;
  uint64_t clock;
  int64_t compiled;
} cache = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- compiling ---- */

/* Both directions may need it, and it is the same. */
static int build_jacobian(gq_plan *p, gq_stepper *st) {
  if (!st->m || !st->m->steps->stiff) return GQ_OK;
  st->jacobian = &p->jacobian;
  return p->jacobian.at.nin ? GQ_OK
                            : gq_jacobian_new(&p->jacobian, &p->scratch, st->m->name, gq_default_memory());
}

static gq_stepkind forward_kind(const gq_plankey *k, bool pull) {
  return (gq_stepkind){ .m = k->method,
                        .adaptive = k->method->e && !k->fixed,
                        .max_norm = k->max_norm,
                        .dense = k->dense,
                        .error = k->error,
                        .stiffness = k->stiffness,
                        .eta = k->eta,
                        .theta = k->theta,
                        .pull = pull,
                        .pull_time = pull && k->t_grad };
}

enum { MANY_STEPS = 256, FAR = 1 << 14 /* bytes of the widest layer */ };

/* A record that has left the caches costs more to read than an exponential to make again; one that has not, less. */
static bool far(const gq_plan *p) {
  const gq_field *f = p->field;
  double rows = f->shape.ndim ? (double)f->shape.dim[0] : 1;
  return p->key->many && rows * (double)f->width * gq_dtype_size(f->dtype) >= FAR;
}

int gq_plan_forward(gq_plan *p, bool pull) {
  gq_stepkind kind = forward_kind(p->key, pull);
  kind.far = pull && far(p);
  p->forward.f = &p->f, p->forward.pull = &p->pull;
  GQ_TRY(gq_stepper_new(&p->forward, &kind, p->field, gq_system_forward, NULL));
  GQ_TRY(gq_evaluator_new(&p->scratch, gq_system_forward, NULL, &p->f));
  return build_jacobian(p, &p->forward);
}

int gq_plan_again(gq_plan *p) {
  gq_stepkind kind = forward_kind(p->key, true);
  if (!kind.m->steps->program || kind.pull_time || p->key->independent) return gq_plan_forward(p, true);
  kind.whole = true;
  GQ_TRY(gq_plan_forward(p, false));
  return gq_stepper_new(&p->backward, &kind, p->field, gq_system_forward, NULL);
}

static int build(gq_plan *p, const gq_graph *f) {
  const gq_plankey *k = p->key;
  if (k->noise)
    GQ_TRY(gq_field_noisy(k->on, f, k->ncapture, k->want, k->noise, k->given, k->calculus, k->independent,
                          &p->field));
  else if (k->independent) GQ_TRY(gq_field_lanes(k->on, f, k->ncapture, k->want, &p->field));
  else GQ_TRY(gq_field_new(k->on, f, k->ncapture, k->want, true, &p->field));
  if (k->noise)
    p->field->moments = k->method->scheme->moments, p->field->levy = gq_scheme_areas(k->method, k->noise),
    p->field->intervals = k->method->scheme->halves && forward_kind(k, false).adaptive ? 3 : 1;
  p->scratch.field = p->field;
  for (int j = 0; j < p->field->nb; j++) p->products |= p->field->want[j];
  GQ_TRY(k->engine->build(p));
  return build_jacobian(p, &p->backward);
}

/* Memory of the steps, of which one program runs at a time. */
static int build_arenas(gq_plan *p) {
  const gq_stepper *all[] = { &p->forward, &p->backward, &p->inverse };
  for (int i = 0; i < 3; i++)
    if (gq_code_arena(&all[i]->code) > p->arena_bytes) p->arena_bytes = gq_code_arena(&all[i]->code);
  if (!(p->arena = gq_arenas_new(p->field, p->arena_bytes))) return gq_nomem(p->arena_bytes);
  return GQ_OK;
}

void gq_plan_stack(gq_plan *p, int each) {
  int64_t comfort = gq_field_comfort(p->field), rows = comfort > STACKED ? comfort : STACKED;
  int64_t most = TOGETHER / p->field->width;
  bool large = most < rows; /* one alone would have its probes by derivatives of derivatives */
  if (large) rows = most;
  p->most_points = large ? 2 : 1;
  while (p->most_points < 1 << (GQ_NODE_SIZES - 1) && 2 * p->most_points * each * p->field->count[0] <= rows)
    p->most_points *= 2;
}

int gq_plan_many(gq_plan *p, int n, gq_make *make, const gq_pointkind *of, gq_evaluator **out) {
  int i = 0;
  while (1 << i < n) i++;
  *out = &p->many[i];
  if (p->many[i].code.prog[0]) return GQ_OK;
  GQ_TRY(gq_evaluator_new(&p->scratch, make, of, &p->many[i]));
  p->many[i].points = n;
  return GQ_OK;
}

/* ---- freeing ---- */

static void plan_free(gq_plan *p) {
  if (!p) return;
  gq_stepper_done(&p->forward);
  gq_stepper_done(&p->backward);
  gq_stepper_done(&p->inverse);
  gq_evaluator_done(&p->f);
  gq_evaluator_done(&p->adjoint);
  gq_evaluator_done(&p->jacobian.at);
  gq_evaluator_done(&p->start);
  gq_evaluator_done(&p->pull);
  for (int i = 0; i < GQ_NODE_SIZES; i++) gq_evaluator_done(&p->many[i]);
  if (p->field) gq_arenas_free(p->field, p->arena);
  gq_scratch_done(&p->scratch);
  gq_step_state_free(p->spare);
  gq_field_free(p->field);
  gq_free(p->key);
  gq_free(p);
}

/* ---- cache ---- */

static int make_key(const gq_planspec *s, gq_plankey **key, size_t *n) {
  const gq_ode_options *o = s->o;
  char *graph;
  size_t ng, head = sizeof(gq_plankey) + s->p->ncapture * sizeof(bool);
  GQ_TRY(gq_graph_key(s->p->f, &graph, &ng));
  *n = head + ng;
  gq_plankey *k = *key = gq_calloc(1, *n);
  if (k) memcpy((char *)k + head, graph, ng);
  gq_free(graph);
  if (!k) return gq_nomem(*n);
  k->engine = o->engine, k->method = o->method, k->back_method = o->back_method, k->eta = o->eta,
  k->theta = o->theta;
  k->on = gq_backend_of(s->p->z0), k->lowering = k->on->lowering;
  k->trajectory = o->trajectory, k->threads = gq_threads();
  k->fixed = o->step_size > 0, k->back_fixed = o->back_step_size > 0;
  k->max_norm = o->max_norm, k->back_max_norm = o->back_max_norm;
  k->dense = s->dense_forward, k->overshoot = o->overshoot, k->parity = o->parity, k->moments = o->moments;
  k->t_grad = s->p->t_grad, k->independent = o->independent, k->error = o->error, k->stiffness = o->stiffness;
  k->noise = s->p->noise, k->given = s->p->calculus, k->calculus = k->noise ? o->method->scheme->calculus : 0,
  k->ncapture = s->p->ncapture;
  if (k->ncapture) memcpy(k->want, s->p->wants_grad, k->ncapture * sizeof(bool));
  double span = s->p->nt > 0 ? fabs(s->p->t[s->p->nt - 1] - s->p->t[0]) : 0;
  k->many = o->engine->keeps == GQ_KEEP_ACTIVATIONS && !o->independent && o->step_size > 0 &&
            span / o->step_size >= MANY_STEPS;
  if (o->engine->shape) o->engine->shape(o, k);
  return GQ_OK;
}

static gq_plan *cache_find(const gq_plankey *key, size_t n) {
  for (int i = 0; i < cache.n; i++)
    if (!cache.list[i]->running && cache.list[i]->nkey == n && !memcmp(cache.list[i]->key, key, n))
      return cache.list[i];
  return NULL;
}

/* Remove idle plans: the oldest until there is room, or all. */
static void cache_evict(bool all) {
  for (int i = 0; i < cache.n;) {
    int oldest = -1;
    for (int j = 0; j < cache.n; j++)
      if (!cache.list[j]->users && (oldest < 0 || cache.list[j]->used < cache.list[oldest]->used)) oldest = j;
    if (oldest < 0 || (!all && cache.n < MAX_PLANS)) return;
    plan_free(cache.list[oldest]);
    cache.list[oldest] = cache.list[--cache.n];
    i = 0;
  }
}

static int plan_new(const gq_graph *f, gq_plankey *key, size_t nkey, gq_plan **out) {
  gq_plan *p = gq_calloc(1, sizeof *p);
  if (!p) {
    gq_free(key);
    return gq_nomem(sizeof *p);
  }
  p->key = key, p->nkey = nkey;
  int status = build(p, f);
  if (status == GQ_OK) status = build_arenas(p);
  if (status == GQ_OK) status = gq_pending();
  if (status != GQ_OK) plan_free(p);
  else *out = p;
  return status;
}

/* Plans hold scratch memory, so one thread uses a plan at a time: the runtime is driven from one
** thread, the lock guards the list alone. Dynamics that are called back may solve themselves: not with a plan that
** is running. */
int gq_plan_get(const gq_planspec *s, gq_plan **out) {
  gq_plankey *key = NULL;
  size_t n = 0;
  GQ_TRY(make_key(s, &key, &n));
  pthread_mutex_lock(&cache.lock);
  gq_plan *p = cache_find(key, n);
  int status = GQ_OK;
  if (p) {
    gq_free(key);
  } else {
    status = plan_new(s->p->f, key, n, &p);
    if (status == GQ_OK) {
      cache.compiled++;
      cache_evict(false);
      p->listed = cache.n < MAX_PLANS;
      if (p->listed) cache.list[cache.n++] = p;
    }
  }
  if (status == GQ_OK) p->users++, p->used = ++cache.clock, *out = p;
  pthread_mutex_unlock(&cache.lock);
  return status;
}

void gq_plan_keep(gq_plan *p) {
  pthread_mutex_lock(&cache.lock);
  p->users++;
  pthread_mutex_unlock(&cache.lock);
}

void gq_plan_release(gq_plan *p) {
  if (!p) return;
  pthread_mutex_lock(&cache.lock);
  if (--p->users == 0 && !p->listed) plan_free(p);
  pthread_mutex_unlock(&cache.lock);
}

int gq_plan_enter(gq_plan *p) {
  if (p->running)
    return gq_fail(
      GQ_ESTATE,
      "the backward pass of a solve cannot run inside dynamics (trace = false) whose own solve has the "
      "same structure: take its gradient before, or solve inside the dynamics too");
  p->running++;
  return GQ_OK;
}

void gq_plan_leave(gq_plan *p) { p->running--; }

void gq_program_cache_clear(void) {
  pthread_mutex_lock(&cache.lock);
  cache_evict(true);
  pthread_mutex_unlock(&cache.lock);
}

int gq_program_cache_count(int64_t *compiled_) {
  if (compiled_) *compiled_ = cache.compiled;
  return cache.n;
}
