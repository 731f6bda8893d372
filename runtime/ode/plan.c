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

static int compile(const gq_graph *g, int n, const gq_outspec *outs, gq_program **prog) {
  GQ_TRY(gq_graph_status(g));
  return gq_program_new(g, n, outs, prog);
}

static int stepper_class(gq_stepper *st, int c, gq_system *sys, const bool *want) {
  gq_graph *g;
  gq_outspec *outs;
  gq_steplayout_done(&st->l);
  GQ_TRY(gq_step_new(sys, &st->kind, want, &g, &outs, &st->l));
  int status = compile(g, st->l.nout, outs, &st->code.prog[c]);
  gq_graph_free(g);
  gq_free(outs);
  return status;
}

static int keep_of(int **of, gq_system *s) {
  if (!*of) *of = s->of, s->of = NULL;
  return GQ_OK;
}

static int evaluator_class(gq_evaluator *e, int c, gq_system *sys) {
  int nq = sys->nq, n = gq_graph_outputs(sys->g);
  gq_outspec *outs = gq_calloc(n + 1, sizeof *outs);
  if (!outs) return gq_nomem(n * sizeof *outs);
  for (int i = 0; i < n; i++)
    outs[i] = i < n - nq
                ? (gq_outspec){ gq_graph_output(sys->g, i), sys->second && i >= sys->second, GQ_STORE }
                : (gq_outspec){ gq_graph_output(sys->g, i), sys->late, GQ_ADD };
  e->parts = n - nq, e->nq = nq, e->nout = n, e->nin = gq_graph_inputs(sys->g), e->columns = sys->columns;
  int status = compile(sys->g, n, outs, &e->code.prog[c]);
  gq_free(outs);
  return status;
}

static int build_evaluator(gq_plan *p, gq_evaluator *e, int (*make)(gq_plan *, int, void *, gq_system *),
                           void *arg) {
  int status = GQ_OK;
  for (int c = 0; status == GQ_OK && c < p->field->nclass; c++) {
    gq_system s;
    GQ_TRY(make(p, c, arg, &s));
    e->states = gq_graph_inputs(s.g) - 1 - p->field->nb;
    status = evaluator_class(e, c, &s);
    keep_of(&e->of, &s);
    gq_system_done(&s);
  }
  return status;
}

/* No program takes the steps of implicit methods: what matters of the layout, and the products. */
static int implicit_stepper(gq_plan *p, gq_stepper *st, int (*make)(gq_plan *, int, void *, gq_system *),
                            void *arg) {
  gq_system s;
  gq_steplayout *l = &st->l;
  GQ_TRY(make(p, 0, arg, &s));
  *l =
    (gq_steplayout){ .parts = s.parts, .nq = s.nq, .slopes = st->m->slopes, .given = s.given, .carry = true };
  l->dq = l->eq = st->kind.product_error ? 0 : -1;
  l->err3 = l->h2 = -1;
  keep_of(&st->of, &s);
  gq_system_done(&s);
  return GQ_OK;
}

static int build_stepper(gq_plan *p, gq_stepper *st, int (*make)(gq_plan *, int, void *, gq_system *),
                         void *arg) {
  int status = GQ_OK;
  st->m = st->kind.m;
  if (st->m->implicit) return implicit_stepper(p, st, make, arg);
  for (int c = 0; status == GQ_OK && c < p->field->nclass; c++) {
    gq_system s;
    GQ_TRY(make(p, c, arg, &s));
    status = stepper_class(st, c, &s, p->field->want);
    keep_of(&st->of, &s);
    gq_system_done(&s);
  }
  return status;
}

static int make_forward(gq_plan *p, int c, void *arg, gq_system *s) {
  return gq_system_forward(p->field, c, s);
}

static int make_adjoint(gq_plan *p, int c, void *arg, gq_system *s) {
  return gq_system_adjoint(p->field, c, arg, s);
}

static int make_pull(gq_plan *p, int c, void *arg, gq_system *s) {
  return gq_system_pull(p->field, c, *(bool *)arg, s);
}

static int make_jacobian(gq_plan *p, int c, void *arg, gq_system *s) {
  const gq_adjointkind plain = { 0 };
  GQ_TRY(gq_system_adjoint(p->field, c, &plain, s));
  s->second = 1;
  return GQ_OK;
}

static int make_nodes(gq_plan *p, int c, void *arg, gq_system *s) {
  return gq_system_nodes(p->field, c, *(int *)arg, p->probes, s);
}

static int make_points(gq_plan *p, int c, void *arg, gq_system *s) { return gq_system_points(p->field, s); }

static int make_elements(gq_plan *p, int c, void *arg, gq_system *s) {
  return gq_system_jacobian(p->field, c, (int64_t)p->element * *(int *)arg, p->dim, s);
}

static bool wants_products(const gq_field *f) {
  for (int j = 0; j < f->nb; j++)
    if (f->want[j]) return true;
  return false;
}

/* Nodes in every step: the Runge-Kutta weights integrate the biases' gradients too, to compare. */
static bool audits(const gq_ode_options *o) {
  return gq_engine_nodes(o->engine) && o->engine != GQ_ENGINE_KRONROD && o->nodes == GQ_NODES_STEP &&
         !o->independent;
}

/* Guards are for the rule whose weights make Legendre polynomials orthogonal; nodes in every step have audits. */
static bool probes(const gq_ode_options *o) {
  return o->guards && !o->independent && gq_engine_nodes(o->engine) && o->engine != GQ_ENGINE_KRONROD &&
         !audits(o) && o->quadrature == gq_quadratures;
}

/* Rows of all nodes or elements of a block. */
static int64_t stacked_rows(const gq_field *f) {
  return gq_field_comfort(f) > STACKED ? gq_field_comfort(f) : STACKED;
}

static int build_backward(gq_plan *p, const gq_planspec *s) {
  const gq_ode_options *o = s->o;
  bool dense = o->trajectory != GQ_REVERSE, gq = gq_engine_nodes(o->engine),
       full = o->engine == GQ_ENGINE_ADJOINT;
  bool time = full && (s->p->t_grad || o->parity);
  bool audit = audits(o) && !p->field->calls; /* a callback has no gradient of the biases alone */
  gq_products products = !gq ? GQ_PRODUCTS_ALL : audit ? GQ_PRODUCTS_VECTORS : GQ_PRODUCTS_NONE;
  gq_adjointkind plain = { dense, o->moments, GQ_PRODUCTS_NONE, false },
                 with = { dense, o->moments, products, time };
  p->backward.kind = (gq_stepkind){ .m = o->back_method,
                                    .adaptive = o->back_method->e && o->back_step_size <= 0,
                                    .max_norm = o->back_max_norm,
                                    .dense = gq || o->overshoot,
                                    .product_error = full && o->back_method->e && o->back_step_size <= 0,
                                    .product_dense = products != GQ_PRODUCTS_NONE && o->overshoot };
  p->products = wants_products(p->field), p->probes = probes(o);
  GQ_TRY(build_stepper(p, &p->backward, make_adjoint, &with));
  GQ_TRY(build_evaluator(p, &p->adjoint, make_adjoint, &plain));
  if (p->backward.kind.product_error || (p->backward.m->implicit && p->backward.l.nq > 0))
    GQ_TRY(build_evaluator(p, &p->start, make_adjoint, &with));
  if (o->independent)
    return gq && p->products && p->field->lanes[1] ? build_evaluator(p, &p->nodes[0], make_points, NULL)
                                                   : GQ_OK;
  p->node_rows = 1;
  while (!p->field->calls && p->node_rows < 1 << (GQ_NODE_SIZES - 1) &&
         2 * p->node_rows * p->field->count[0] <= stacked_rows(p->field))
    p->node_rows *= 2;
  gq_evaluator *largest; /* compiled now: memory must not depend on how many nodes a solve asks for */
  if (!gq || !p->products) return GQ_OK;
  GQ_TRY(gq_plan_nodes(p, p->node_rows, &largest));
  p->probes = largest->parts > 0; /* without vectors there is nothing to look at */
  return GQ_OK;
}

/* alf's inverse evaluates f where its step does, so that it brings the derivative along. */
static bool joint(const gq_ode_options *o) {
  return gq_engine_inverts(o->engine) && o->method->kind == GQ_ALF;
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
  return build_evaluator(p, &p->jacobian, make_jacobian, NULL);
}

static int build(gq_plan *p, const gq_planspec *s) {
  const gq_ode_options *o = s->o;
  bool direct = gq_engine_discrete(o->engine), time = s->p->t_grad;
  if (o->independent) GQ_TRY(gq_field_lanes(s->p->f, s->p->ncapture, s->p->wants_grad, &p->field));
  else GQ_TRY(gq_field_new(s->p->f, s->p->ncapture, s->p->wants_grad, true, &p->field));
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
  GQ_TRY(build_evaluator(p, &p->f, make_forward, NULL));
  if (gq_engine_inverts(o->engine)) GQ_TRY(build_inverse(p, o, time));
  if (o->method->implicit) GQ_TRY(build_jacobian(p, o->method));
  if (direct) GQ_TRY(build_evaluator(p, &p->pull, make_pull, &time));
  else if (o->engine == GQ_ENGINE_GQC) GQ_TRY(build_elements(p, o));
  else if (o->engine != GQ_ENGINE_NONE) GQ_TRY(build_backward(p, s));
  if (p->backward.m && p->backward.m->implicit && !p->jacobian.nin) GQ_TRY(build_jacobian(p, p->backward.m));
  return GQ_OK;
}

static int grow_arena(gq_plan *p, int which, size_t bytes) {
  if (bytes <= p->arena_bytes[which]) return GQ_OK;
  for (int s = 0; s < p->field->nslices; s++) {
    void *a = gq_alloc(bytes + 64);
    if (!a) return gq_nomem(bytes);
    gq_free(p->arena[which][s]);
    p->arena[which][s] = a;
  }
  p->arena_bytes[which] = bytes;
  return GQ_OK;
}

/* Pointer tables for the evaluator that needs most. */
static int grow_table(gq_plan *p, const gq_evaluator *e) {
  size_t n = (size_t)p->field->nslices * (e->nin + e->nout + 1);
  if (n <= p->table_size) return GQ_OK;
  void *t = gq_realloc(p->table, n * sizeof(void *));
  if (!t) return gq_nomem(n * sizeof(void *));
  p->table = t, p->table_size = n;
  return GQ_OK;
}

static int build_arenas(gq_plan *p) {
  GQ_TRY(grow_arena(p, 0, gq_code_arena(&p->forward.code)));
  GQ_TRY(grow_arena(p, 0, gq_code_arena(&p->backward.code)));
  GQ_TRY(grow_arena(p, 0, gq_code_arena(&p->inverse.code)));
  GQ_TRY(grow_arena(p, 1, gq_code_arena(&p->f.code)));
  GQ_TRY(grow_arena(p, 1, gq_code_arena(&p->adjoint.code)));
  GQ_TRY(grow_arena(p, 1, gq_code_arena(&p->start.code)));
  GQ_TRY(grow_arena(p, 1, gq_code_arena(&p->jacobian.code)));
  GQ_TRY(grow_table(p, &p->jacobian));
  GQ_TRY(grow_table(p, &p->f));
  GQ_TRY(grow_table(p, &p->adjoint));
  GQ_TRY(grow_table(p, &p->start));
  GQ_TRY(grow_table(p, &p->pull));
  return grow_arena(p, 1, gq_code_arena(&p->pull.code));
}

static void evaluator_done(gq_evaluator *e) {
  gq_code_free(&e->code);
  gq_free(e->of);
  *e = (gq_evaluator){ 0 };
}

static int plan_sized(gq_plan *p, gq_evaluator *sizes, int n,
                      int (*make)(gq_plan *, int, void *, gq_system *), gq_evaluator **out) {
  int i = 0;
  while (1 << i < n) i++;
  gq_evaluator *e = *out = &sizes[i];
  if (e->code.prog[0]) return GQ_OK;
  int status = build_evaluator(p, e, make, &n);
  e->points = n;
  if (status == GQ_OK) status = grow_table(p, e);
  if (status == GQ_OK) status = grow_arena(p, 1, gq_code_arena(&e->code));
  if (status != GQ_OK) evaluator_done(e); /* whole or not there */
  return status;
}

int gq_plan_nodes(gq_plan *p, int rows, gq_evaluator **out) {
  return plan_sized(p, p->nodes, rows, make_nodes, out);
}

int gq_plan_elements(gq_plan *p, int n, gq_evaluator **out) {
  return plan_sized(p, p->elements, n, make_elements, out);
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
  evaluator_done(&p->f);
  evaluator_done(&p->adjoint);
  evaluator_done(&p->jacobian);
  evaluator_done(&p->start);
  evaluator_done(&p->pull);
  for (int i = 0; i < GQ_NODE_SIZES; i++) evaluator_done(&p->nodes[i]), evaluator_done(&p->elements[i]);
  for (int w = 0; w < 2; w++)
    for (int s = 0; s < GQ_MAXSLICES; s++) gq_free(p->arena[w][s]);
  gq_kept_free(p->spare);
  gq_free(p->table);
  gq_field_free(p->field);
  gq_free(p->key);
  gq_free(p);
}

/* ---- cache ---- */

typedef struct keyhead { /* zeroed before it is filled: compared bytewise */
  const gq_tableau *method, *back_method;
  double eta;
  int engine, trajectory, threads, element;
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
  h->method = o->method, h->back_method = o->back_method, h->eta = o->eta;
  h->engine = o->engine, h->trajectory = o->trajectory, h->threads = gq_threads();
  h->element = o->engine == GQ_ENGINE_GQC ? gq_element_nodes(o) : 0;
  h->fixed = o->step_size > 0, h->back_fixed = o->back_step_size > 0;
  h->max_norm = o->max_norm, h->back_max_norm = o->back_max_norm;
  h->dense_forward = s->dense_forward, h->overshoot = o->overshoot, h->parity = o->parity,
  h->moments = o->moments;
  h->t_grad = s->p->t_grad, h->audits = audits(o), h->probes = probes(o);
  h->independent = o->independent, h->error = o->error, h->stiffness = o->stiffness;
  for (int i = 0; i < s->p->ncapture; i++)
    ((bool *)(h + 1))[i] = o->engine != GQ_ENGINE_NONE && s->p->wants_grad[i];
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

/* ---- evaluating ---- */

static size_t slice_offset(const gq_field *f, int s) {
  if (f->nslices == 1) return 0;
  return f->first[s] * (gq_numel(f->shape) / f->shape.dim[0]) * gq_dtype_size(f->dtype);
}

typedef struct call { /* the plan's pointer tables, laid out for one evaluator */
  const void **in;
  void **out;
  double *time; /* [nslices] */
} call;

static call call_tables(const gq_plan *p, const gq_evaluator *e) {
  size_t ns = p->field->nslices;
  call c = { .in = p->table };
  c.out = (void **)(c.in + ns * e->nin), c.time = (double *)(c.out + ns * e->nout);
  return c;
}

static call call_begin(const gq_plan *p, const gq_evaluator *e) {
  call c = call_tables(p, e);
  memset(c.time, 0, p->field->nslices * sizeof *c.time);
  return c;
}

static void bind_products(const gq_plan *p, const gq_evaluator *e, const gq_binding *b, int s,
                          const gq_grads *grads_, call *c) {
  const gq_field *f = p->field;
  for (int j = 0; j < f->nb; j++) c->in[(size_t)s * e->nin + 1 + e->states + j] = b->value[s * f->nb + j];
  for (int r = 0; r < e->nq; r++) {
    int j = e->of[r];
    c->out[(size_t)s * e->nout + e->parts + r] = j < 0 ? (void *)&c->time[s] : grads_->at[s * f->nb + j];
  }
}

static int run_call(gq_plan *p, const gq_evaluator *e, int phase, call *c) {
  return gq_code_run(p->field, &e->code, phase, p->arena[1], c->in, e->nin, c->out, e->nout);
}

int gq_evaluate_phase(gq_plan *p, const gq_evaluator *e, const gq_binding *b, int phase, double t,
                      void *const *x, void *const *out, const gq_grads *grads_, double *time_) {
  const gq_field *f = p->field;
  float t32 = (float)t;
  call c = call_begin(p, e);
  for (int s = 0; s < f->nslices; s++) {
    size_t off = slice_offset(f, s);
    const void **in = c.in + (size_t)s * e->nin;
    in[0] = f->dtype == GQ_F32 ? (void *)&t32 : (void *)&t;
    for (int i = 0; i < e->states; i++) in[1 + i] = (char *)x[i] + off;
    for (int i = 0; i < e->parts; i++) c.out[(size_t)s * e->nout + i] = (char *)out[i] + off;
    bind_products(p, e, b, s, grads_, &c);
  }
  int status = run_call(p, e, phase, &c);
  for (int s = 0; time_ && s < f->nslices; s++)
    *time_ += f->dtype == GQ_F32 ? *(float *)&c.time[s] : c.time[s];
  return status;
}

int gq_evaluate_at(gq_plan *p, const gq_evaluator *e, const gq_binding *b, double t, void *const *x,
                   void *const *out, const gq_grads *grads_, double *time_) {
  return gq_evaluate_phase(p, e, b, 0, t, x, out, grads_, time_);
}

void gq_evaluator_bind(gq_plan *p, const gq_evaluator *e, const gq_binding *b, int s, const gq_grads *grads,
                       const void ***in, void ***out) {
  call c = call_tables(p, e);
  bind_products(p, e, b, s, grads, &c);
  *in = c.in + (size_t)s * e->nin, *out = c.out + (size_t)s * e->nout;
}

size_t gq_probe_size(const gq_plan *p, const gq_evaluator *e, int i) {
  return gq_numel(gq_field_boundary_shape(p->field, e->of[e->nq + i]));
}

size_t gq_probe_bytes(const gq_plan *p, const gq_evaluator *e, int i, int points) {
  size_t size = gq_dtype_size(gq_field_boundary_dtype(p->field, e->of[e->nq + i]));
  return gq_round64(gq_probe_size(p, e, i) * points * size);
}

int gq_evaluate_nodes(gq_plan *p, const gq_evaluator *e, const gq_binding *b, const void *t, void *const *z,
                      void *const *a, const gq_grads *grads, void *const *probe_) {
  call c = call_begin(p, e);
  for (int s = 0; s < p->field->nslices; s++) {
    const void **in = c.in + (size_t)s * e->nin;
    char *probe = probe_ ? probe_[s] : NULL;
    in[0] = t, in[1] = z[s], in[2] = a[s];
    for (int i = 0; i < e->parts; i++) {
      c.out[(size_t)s * e->nout + i] = probe;
      probe += gq_probe_bytes(p, e, i, e->points);
    }
    bind_products(p, e, b, s, grads, &c);
  }
  return run_call(p, e, 0, &c);
}
