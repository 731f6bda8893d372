/*
** plan.c -- compiled solvers, cached by structure: the traced graph, what wants gradients, method,
** engine and everything else that shapes a program. Numbers are inputs, so they are not in the key.
*/
#include "../method/adams.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>

enum { MAX_PLANS = 64, STACKED = 256 }; /* rows of all nodes of a block: enough for products at full speed */

static struct {
  pthread_mutex_t lock;
  gq_plan *list[MAX_PLANS];
  int n;
  uint64_t clock;
  int64_t compiled;
} cache = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- compiling ---- */

static int stepper_class(const gq_field *f, gq_stepper *st, int c, gq_system *sys) {
  gq_graph *g;
  gq_outspec *outs;
  gq_steplayout_done(&st->l);
  GQ_TRY(gq_step_new(sys, &st->kind, f->want, &g, &outs, &st->l));
  int status = gq_code_add(f->on, &st->code, c, g, st->l.nout, outs);
  gq_graph_free(g);
  gq_free(outs);
  return status;
}

/* No program takes the steps of implicit methods: what matters of the layout, and the products. */
static int implicit_stepper(gq_plan *p, gq_stepper *st, gq_make *make, const void *arg) {
  gq_system s;
  gq_steplayout *l = &st->l;
  GQ_TRY(make(p->field, 0, arg, &s));
  *l =
    (gq_steplayout){ .parts = s.parts, .nq = s.nq, .slopes = st->m->slopes, .given = s.given, .carry = true };
  l->dq = l->eq = st->kind.product_error ? 0 : -1;
  l->err3 = l->h2 = -1;
  st->of = s.of, s.of = NULL;
  gq_system_done(&s);
  return GQ_OK;
}

static int build_stepper(gq_plan *p, gq_stepper *st, gq_make *make, const void *arg) {
  int status = GQ_OK;
  st->m = st->kind.m;
  if (st->m->implicit) return implicit_stepper(p, st, make, arg);
  for (int c = 0; status == GQ_OK && c < p->field->nclass; c++) {
    gq_system s;
    GQ_TRY(make(p->field, c, arg, &s));
    status = stepper_class(p->field, st, c, &s);
    if (!st->of) st->of = s.of, s.of = NULL;
    gq_system_done(&s);
  }
  return status;
}

static int make_forward(const gq_field *f, int c, const void *arg, gq_system *s) {
  return gq_system_forward(f, c, s);
}

static int make_adjoint(const gq_field *f, int c, const void *arg, gq_system *s) {
  return gq_system_adjoint(f, c, arg, s);
}

static int make_pull(const gq_field *f, int c, const void *arg, gq_system *s) {
  return gq_system_pull(f, c, *(const bool *)arg, s);
}

static int make_jacobian(const gq_field *f, int c, const void *arg, gq_system *s) {
  const gq_adjointkind plain = { 0 };
  GQ_TRY(gq_system_adjoint(f, c, &plain, s));
  s->second = 1;
  return GQ_OK;
}

/* Of node and element programs. */
typedef struct points {
  int n, dim;
  bool probes;
} points;

static int make_nodes(const gq_field *f, int c, const void *arg, gq_system *s) {
  const points *n = arg;
  return gq_system_nodes(f, c, n->n, n->probes, s);
}

static int make_points(const gq_field *f, int c, const void *arg, gq_system *s) {
  return gq_system_points(f, s);
}

static int make_elements(const gq_field *f, int c, const void *arg, gq_system *s) {
  const points *n = arg;
  return gq_system_jacobian(f, c, n->n, n->dim, s);
}

static bool wants_products(const gq_field *f) {
  for (int j = 0; j < f->nb; j++)
    if (f->want[j]) return true;
  return false;
}

/* Nodes in every step: the Runge-Kutta weights integrate the biases' gradients too, to compare. */
static bool audits(const gq_ode_options *o) {
  return o->engine->integral == GQ_INTEGRAL_NODES && o->nodes == GQ_NODES_STEP && !o->independent;
}

/* Guards are for the rule whose weights make Legendre polynomials orthogonal; nodes in every step have audits. */
static bool probes(const gq_ode_options *o) {
  return o->guards && !o->independent && o->engine->integral == GQ_INTEGRAL_NODES && !audits(o) &&
         o->quadrature == gq_quadratures;
}

/* Rows of all nodes or elements of a block. */
static int64_t stacked_rows(const gq_field *f) {
  return gq_field_comfort(f) > STACKED ? gq_field_comfort(f) : STACKED;
}

static int build_backward(gq_plan *p, const gq_planspec *s) {
  const gq_ode_options *o = s->o;
  bool dense = o->trajectory->at != NULL, gq = gq_takes_nodes(o->engine),
       full = o->engine->integral == GQ_INTEGRAL_INSIDE;
  bool time = full && (s->p->t_grad || o->parity);
  bool audit = audits(o) && !p->field->calls; /* of a callback nothing can be projected */
  gq_products products = !gq ? GQ_PRODUCTS_ALL : audit ? GQ_PRODUCTS_PROBES : GQ_PRODUCTS_NONE;
  gq_adjointkind plain = { dense, o->moments, GQ_PRODUCTS_NONE, false },
                 with = { dense, o->moments, products, time };
  p->backward.kind = (gq_stepkind){ .m = o->back_method,
                                    .adaptive = o->back_method->e && o->back_step_size <= 0,
                                    .max_norm = o->back_max_norm,
                                    .dense = gq || o->overshoot,
                                    .product_error = full && o->back_method->e && o->back_step_size <= 0,
                                    .product_dense = products != GQ_PRODUCTS_NONE && o->overshoot };
  p->products = wants_products(p->field);
  p->probes = (probes(o) || audit) && p->products && !p->field->calls;
  if (p->probes) GQ_TRY(gq_field_probes(p->field));
  GQ_TRY(build_stepper(p, &p->backward, make_adjoint, &with));
  GQ_TRY(gq_evaluator_new(&p->scratch, make_adjoint, &plain, &p->adjoint));
  if (p->backward.kind.product_error || (p->backward.m->implicit && p->backward.l.nq > 0))
    GQ_TRY(gq_evaluator_new(&p->scratch, make_adjoint, &with, &p->start));
  if (o->independent)
    return gq && p->products && p->field->lanes[1]
             ? gq_evaluator_new(&p->scratch, make_points, NULL, &p->nodes[0])
             : GQ_OK;
  p->node_rows = 1;
  while (!p->field->calls && p->node_rows < 1 << (GQ_NODE_SIZES - 1) &&
         2 * p->node_rows * p->field->count[0] <= stacked_rows(p->field))
    p->node_rows *= 2;
  gq_evaluator *largest; /* compiled now: memory must not depend on how many nodes a solve asks for */
  if (!gq || !p->products) return GQ_OK;
  return gq_plan_nodes(p, p->node_rows, &largest);
}

/* alf's inverse evaluates f where its step does, so that it brings the derivative along. */
static bool joint(const gq_ode_options *o) {
  return o->engine->keeps == GQ_KEEP_END && o->method->kind == GQ_ALF;
}

static int build_inverse(gq_plan *p, const gq_ode_options *o, bool time) {
  p->inverse.kind = (gq_stepkind){
    .m = o->method, .inverse = true, .eta = o->eta, .pull = joint(o), .pull_time = joint(o) && time
  };
  return build_stepper(p, &p->inverse, make_forward, NULL);
}

/* Gauss points whose order is above the method's, by one more than it takes: see grad/gqc.c. */
int gq_element_nodes(const gq_ode_options *o) {
  int order = o->method->order;
  if (gq_method_adams(o->method) && o->step_size <= 0 && order > 6) order = 6; /* its steps are short */
  return o->nodes == GQ_NODES_FIXED ? o->fixed_nodes : (order + 2) / 2 + 1;
}

/* Rows of the state and their Jacobians. A small state may be one row whatever its field does. */
static int find_rows(gq_plan *p) {
  static const char *const instead =
    "use gradient = \"gq\" with adjoint = {trajectory = \"dense\"}, or \"aca\"";
  const gq_field *f = p->field;
  size_t n = gq_numel(f->shape);
  char message[256], shape[128];
  if (f->calls)
    return gq_fail(
      GQ_EUNSUPPORTED,
      "gradient = \"gqc\" needs the Jacobian of the dynamics, and with trace = false they are not known "
      "but by their values; %s",
      instead);
  int status = n ? gq_field_independent(f) : GQ_OK;
  if (status == GQ_EUNSUPPORTED && n > GQ_MAX_JACOBIAN) {
    strncpy(message, gq_message(), sizeof message - 1), message[sizeof message - 1] = 0;
    return gq_fail(status, "gradient = \"gqc\" needs rows that do not act on each other; %s; %s", message,
                   instead);
  }
  if (status != GQ_OK && status != GQ_EUNSUPPORTED) return status;
  if (f->columns && !f->points)
    return gq_fail(GQ_EUNSUPPORTED,
                   "gradient = \"gqc\" evaluates several times at once, and the dynamics hold a product of "
                   "matrices that depend on time alone, or a large one; %s",
                   instead);
  bool whole = status != GQ_OK || f->shape.ndim == 0 || n == 0;
  p->dim = (int)(whole ? n : n / f->shape.dim[0] > INT_MAX ? INT_MAX : n / f->shape.dim[0]);
  if (p->dim <= GQ_MAX_JACOBIAN) return GQ_OK;
  return gq_fail(GQ_EUNSUPPORTED,
                 "gradient = \"gqc\" takes states of at most %d numbers a row, and those of %s have %d; %s",
                 GQ_MAX_JACOBIAN, gq_shape_text(f->shape, shape, sizeof shape), p->dim, instead);
}

static int build_elements(gq_plan *p, const gq_ode_options *o) {
  p->products = wants_products(p->field);
  p->element = gq_element_nodes(o);
  p->most_elements = 1;
  while (p->most_elements < 1 << (GQ_NODE_SIZES - 1) &&
         2 * p->most_elements * p->element * p->field->count[0] <= stacked_rows(p->field))
    p->most_elements *= 2;
  return find_rows(p);
}

/* Rows that a stage of an implicit method solves for one by one, and how their Jacobians are had. */
static int build_jacobian(gq_plan *p, const gq_tableau *m) {
  const gq_field *f = p->field;
  size_t n = gq_numel(f->shape);
  int status = n ? gq_field_independent(f) : GQ_OK;
  if (status != GQ_OK && status != GQ_EUNSUPPORTED) return status;
  p->rows = n == 0 ? 0 : status == GQ_OK && f->shape.ndim > 0 ? f->shape.dim[0] : 1;
  double dim = n ? (double)n / p->rows : 0, bytes = 4 * 8 * dim * dim * p->rows;
  if (dim > GQ_MAX_SYSTEM || bytes > (double)gq_default_memory())
    return gq_fail(
      GQ_EUNSUPPORTED,
      "method = \"%s\" solves linear systems of %.0f numbers here, %lld at a time, in matrices of %.0f "
      "MB; it takes up to %d numbers and a quarter of the memory; use an explicit method (dopri5, "
      "tsit5), or dynamics that treat the rows of the state one by one",
      m->name, dim, (long long)p->rows, bytes / (1 << 20), GQ_MAX_SYSTEM);
  p->row_dim = (int)dim;
  return gq_evaluator_new(&p->scratch, make_jacobian, NULL, &p->jacobian);
}

static int build(gq_plan *p, const gq_planspec *s) {
  const gq_ode_options *o = s->o;
  bool direct = (gq_keeps_steps(o->engine) || o->engine->keeps == GQ_KEEP_END), time = s->p->t_grad;
  if (o->independent)
    GQ_TRY(gq_field_lanes(gq_backend_of(s->p->z0), s->p->f, s->p->ncapture, s->p->wants_grad, &p->field));
  else
    GQ_TRY(gq_field_new(gq_backend_of(s->p->z0), s->p->f, s->p->ncapture, s->p->wants_grad, true, &p->field));
  p->scratch.field = p->field;
  p->forward.kind = (gq_stepkind){ .m = o->method,
                                   .adaptive = o->method->e && o->step_size <= 0,
                                   .max_norm = o->max_norm,
                                   .dense = s->dense_forward,
                                   .error = o->error,
                                   .stiffness = o->stiffness,
                                   .eta = o->eta,
                                   .pull = direct && !joint(o),
                                   .pull_time = direct && time };
  if (gq_method_adams(o->method)) gq_adams_stepper(&p->forward, &p->forward.kind);
  else GQ_TRY(build_stepper(p, &p->forward, make_forward, NULL));
  GQ_TRY(gq_evaluator_new(&p->scratch, make_forward, NULL, &p->f));
  if (o->engine->keeps == GQ_KEEP_END) GQ_TRY(build_inverse(p, o, time));
  if (o->method->implicit) GQ_TRY(build_jacobian(p, o->method));
  if (direct) GQ_TRY(gq_evaluator_new(&p->scratch, make_pull, &time, &p->pull));
  else if (o->engine->most_nodes) GQ_TRY(build_elements(p, o));
  else if (o->engine->keeps != GQ_KEEP_NOTHING) GQ_TRY(build_backward(p, s));
  if (p->backward.m && p->backward.m->implicit && !p->jacobian.nin) GQ_TRY(build_jacobian(p, p->backward.m));
  return GQ_OK;
}

/* Memory of the steps, of which one program runs at a time. */
static int build_arenas(gq_plan *p) {
  const gq_stepper *all[] = { &p->forward, &p->backward, &p->inverse };
  for (int i = 0; i < 3; i++)
    if (gq_code_arena(&all[i]->code) > p->arena_bytes) p->arena_bytes = gq_code_arena(&all[i]->code);
  for (int s = 0; p->arena_bytes && s < p->field->nslices; s++)
    if (!(p->arena[s] = gq_alloc(p->arena_bytes + 64))) return gq_nomem(p->arena_bytes);
  return GQ_OK;
}

/* The program for n points, a power of two. */
static int plan_sized(gq_plan *p, gq_evaluator *sizes, gq_make *make, int n, points of, gq_evaluator **out) {
  int i = 0;
  while (1 << i < n) i++;
  *out = &sizes[i];
  if (sizes[i].code.prog[0]) return GQ_OK;
  GQ_TRY(gq_evaluator_new(&p->scratch, make, &of, &sizes[i]));
  sizes[i].points = n;
  return GQ_OK;
}

int gq_plan_nodes(gq_plan *p, int rows, gq_evaluator **out) {
  return plan_sized(p, p->nodes, make_nodes, rows, (points){ .n = rows, .probes = p->probes }, out);
}

int gq_plan_elements(gq_plan *p, int n, gq_evaluator **out) {
  return plan_sized(p, p->elements, make_elements, n, (points){ .n = p->element * n, .dim = p->dim }, out);
}

/* ---- freeing ---- */

static void stepper_done(gq_stepper *st) {
  gq_code_free(&st->code);
  gq_steplayout_done(&st->l);
  gq_free(st->of);
}

static void plan_free(gq_plan *p) {
  if (!p) return;
  stepper_done(&p->forward);
  stepper_done(&p->backward);
  stepper_done(&p->inverse);
  gq_evaluator_done(&p->f);
  gq_evaluator_done(&p->adjoint);
  gq_evaluator_done(&p->jacobian);
  gq_evaluator_done(&p->start);
  gq_evaluator_done(&p->pull);
  for (int i = 0; i < GQ_NODE_SIZES; i++) gq_evaluator_done(&p->nodes[i]), gq_evaluator_done(&p->elements[i]);
  for (int s = 0; s < GQ_MAXSLICES; s++) gq_free(p->arena[s]);
  gq_scratch_done(&p->scratch);
  gq_step_state_free(p->spare);
  gq_field_free(p->field);
  gq_free(p->key);
  gq_free(p);
}

/* ---- cache ---- */

typedef struct keyhead { /* zeroed before it is filled: compared bytewise */
  const gq_engine *engine;
  const gq_backend *on;
  const gq_lowering *lowering; /* and with it the layout */
  const gq_tableau *method, *back_method;
  const gq_trajectory_kind *trajectory;
  double eta;
  int threads, element;
  bool fixed, back_fixed, max_norm, back_max_norm, dense_forward, overshoot, parity, moments, t_grad, audits,
    probes, independent, error, stiffness;
} keyhead;

static int make_key(const gq_planspec *s, char **key, size_t *n) {
  const gq_ode_options *o = s->o;
  char *graph;
  size_t ng, total;
  GQ_TRY(gq_graph_key(s->p->f, &graph, &ng));
  total = sizeof(keyhead) + s->p->ncapture * sizeof(bool) + ng;
  *key = gq_calloc(1, total);
  if (!*key) {
    gq_free(graph);
    return gq_nomem(total);
  }
  keyhead *h = (keyhead *)*key;
  h->on = gq_backend_of(s->p->z0), h->lowering = h->on->lowering;
  h->method = o->method, h->back_method = o->back_method, h->eta = o->eta;
  h->engine = o->engine, h->trajectory = o->trajectory, h->threads = gq_threads();
  h->element = o->engine->most_nodes ? gq_element_nodes(o) : 0;
  h->fixed = o->step_size > 0, h->back_fixed = o->back_step_size > 0;
  h->max_norm = o->max_norm, h->back_max_norm = o->back_max_norm;
  h->dense_forward = s->dense_forward, h->overshoot = o->overshoot, h->parity = o->parity,
  h->moments = o->moments;
  h->t_grad = s->p->t_grad, h->audits = audits(o), h->probes = probes(o);
  h->independent = o->independent, h->error = o->error, h->stiffness = o->stiffness;
  for (int i = 0; i < s->p->ncapture; i++)
    ((bool *)(h + 1))[i] = o->engine->keeps != GQ_KEEP_NOTHING && s->p->wants_grad[i];
  memcpy((char *)(h + 1) + s->p->ncapture * sizeof(bool), graph, ng);
  gq_free(graph);
  *n = total;
  return GQ_OK;
}

static gq_plan *cache_find(const char *key, size_t n) {
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

static int plan_new(const gq_planspec *s, char *key, size_t nkey, gq_plan **out) {
  gq_plan *p = gq_calloc(1, sizeof *p);
  if (!p) {
    gq_free(key);
    return gq_nomem(sizeof *p);
  }
  p->key = key, p->nkey = nkey;
  int status = build(p, s);
  if (status == GQ_OK) status = build_arenas(p);
  if (status != GQ_OK) plan_free(p);
  else *out = p;
  return status;
}

/* Plans hold scratch memory, so one thread uses a plan at a time: the runtime is driven from one
** thread, the lock guards the list alone. Dynamics that are called back may solve themselves: not with a plan that
** is running. */
int gq_plan_get(const gq_planspec *s, gq_plan **out) {
  char *key = NULL;
  size_t n = 0;
  GQ_TRY(make_key(s, &key, &n));
  pthread_mutex_lock(&cache.lock);
  gq_plan *p = cache_find(key, n);
  int status = GQ_OK;
  if (p) {
    gq_free(key);
  } else {
    status = plan_new(s, key, n, &p);
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
