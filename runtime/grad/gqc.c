/*
** gqc.c -- the adjoint by Gauss collocation with a Jacobian a row, one element a forward step.
** Gauss methods: Hairer, Norsett & Wanner II.7 (collocation) and Hairer & Wanner IV.5.
**
** In a step of length h from t the linearised equation u' = J u + F, J = df/dz, F = df/dtheta dtheta, along z of
** the dense forward solution, is solved by the polynomial of degree n with u' = U_j at the n Gauss points c_j,
**     U_j = J_j (u_0 + h sum_l b_l(c_j) U_l) + F_j,   u(t + h x) = u_0 + h sum_j b_j(x) U_j,
** b_j(x) the integral from 0 to x of the Lagrange polynomial l_j. What comes back is the transpose of just that.
** With a the adjoint at the step's end, and g_k = dL/dz(t_k) at the measurement times t + h x_k inside,
**     w_j = h (b_j(1) a + sum_k b_j(x_k) g_k),   v_l - h sum_j b_l(c_j) J_j' v_j = w_l,
**     a <- a + sum_k g_k + sum_j J_j' v_j,       dL/dtheta += sum_j v_j' df/dtheta at node j:
** v_j is h b_j a(t_j) and the jumps are in it whatever their number. All are exact to the order of the method,
** 2n, or n + 1 for what comes from times inside. f is evaluated once a node: one forward pass over all nodes of
** some elements, a back-projection of each unit vector for J, later one of v for the products.
*/
#include "../ode/solution.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { MAX_GROUP = 1 << (GQ_NODE_SIZES - 1) };

typedef struct element { /* of the group being solved, in the order of solving */
  gq_step_record step;
  const gq_step_state *z;
  double end;      /* of the step */
  int first, last; /* measurement times first >= k > last lie in it, or at its end */
} element;

typedef struct slice {
  void *z, *v, *jacobian; /* at the nodes, as the program wants them */
  const void **in;
  void **out;
} slice;

typedef struct gqc {
  gq_pullback *b;
  gq_solution *s;
  gq_plan *plan;
  const gq_evaluator *e;
  int n, dim;
  double c[GQ_MAX_ELEMENT], end[GQ_MAX_ELEMENT]; /* nodes; b_j(1) */
  double inner[GQ_MAX_ELEMENT * GQ_MAX_ELEMENT]; /* [n][n] b_l(c_j) */
  double dense[GQ_MAX_ELEMENT][GQ_MAXSTAGES];    /* weights of the slopes in z at the nodes */
  double *x;                                     /* [nt][n] b_j(x_k) */
  int count;                                     /* elements of the group */
  element element[MAX_GROUP];
  slice *slice;        /* [nslices] */
  gq_gauss_rows *rows; /* [nslices] */
  void **terms;        /* for the sums of one node in all slices */
  size_t *numbers;
  void *room;               /* gq_gauss */
  void *a, *state, *slope;  /* the adjoint, a state and its slope, packed */
  void *t, *states, *block; /* times; memory of the field's backend, and of the host's */
} gqc;

/* b_j(x): l_j is w_j sum_p (2p + 1) / 2 P_p(x_j) P_p, and the integral of (2p + 1) P_p is P_p+1 - P_p-1. */
static void weights(int n, const double *points, const double *w, double x, double *b) {
  double y = 2 * x - 1, before = 1, now = y;
  double pj[GQ_MAX_ELEMENT], pb[GQ_MAX_ELEMENT]; /* P_p and P_p-1 at the points */
  for (int j = 0; j < n; j++) pb[j] = 1, pj[j] = points[j], b[j] = y + 1;
  for (int p = 1; p < n; p++) {
    double after = ((2 * p + 1) * y * now - p * before) / (p + 1);
    for (int j = 0; j < n; j++) {
      b[j] += pj[j] * (after - before);
      double next = ((2 * p + 1) * points[j] * pj[j] - p * pb[j]) / (p + 1);
      pb[j] = pj[j], pj[j] = next;
    }
    before = now, now = after;
  }
  for (int j = 0; j < n; j++) b[j] *= w[j] / 4;
}

/* ---- what is compiled ---- */

/* Gauss points whose order is above the method's, by one more than it takes. */
void gq_collocation_shape(const gq_ode_options *o, gq_plankey *k) {
  int order = o->method->order;
  if (o->method->multistep && o->step_size <= 0 && order > 6) order = 6; /* its steps are short */
  k->element = o->nodes == GQ_NODES_FIXED ? o->fixed_nodes : (order + 2) / 2 + 1;
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

int gq_collocation_build(gq_plan *p) {
  GQ_TRY(gq_plan_forward(p, false));
  gq_plan_stack(p, p->key->element);
  return find_rows(p);
}

/* The program for n elements, a power of two up to p->most_points: phase 0 stores dim arrays df_i/dz, phase 1 adds the
** products. Inputs as of a node program. */
static int element_program(gq_plan *p, int n, gq_evaluator **out) {
  const gq_pointkind of = { .n = (int64_t)p->key->element * n, .dim = p->dim };
  return gq_plan_many(p, n, gq_system_jacobian, &of, out);
}

/* ---- where numbers stand ---- */

/* Distances in an array of n states of a slice: from node to node, number to number, row to row. A single state
** is one with n = 1. */
typedef struct strides {
  int64_t node, number, row;
} strides;

static int64_t rows_of(const gqc *g, int s) {
  const gq_field *f = g->plan->field;
  return gq_numel(f->class_shape[f->class_of[s]]) / g->dim;
}

static strides strides_of(const gqc *g, int s, int64_t n) {
  int64_t rows = rows_of(g, s);
  if (g->plan->field->columns) return (strides){ rows, n * rows, 1 };
  return (strides){ rows * g->dim, 1, g->dim };
}

/* Numbers in front of slice s in a packed state. */
static int64_t offset(const gqc *g, int s) {
  return g->plan->field->nslices > 1 ? g->plan->field->first[s] * g->dim : 0;
}

/* ---- groups of elements ---- */

/* z of the dense trajectory at the nodes, in so many slices. */
static void fill_states(gqc *g, int first, int many) {
  const gq_field *f = g->plan->field;
  const gq_tableau *m = g->plan->forward.m;
  size_t size = gq_dtype_size(f->dtype);
  int pieces = f->columns ? g->dim : 1, wide = m->slopes + 2;
  void **at = g->terms + (size_t)first * pieces * wide;
  size_t *n = g->numbers + (size_t)first * pieces;
  for (int q = 0; q < g->count * g->n; q++) {
    const element *e = &g->element[q / g->n];
    double w[GQ_MAXSTAGES];
    for (int i = 0; i < m->slopes; i++) w[i] = e->step.h * g->dense[q % g->n][i];
    for (int p = 0; p < many * pieces; p++) {
      int s = first + p / pieces, k = p % pieces;
      strides to = strides_of(g, s, (int64_t)g->count * g->n);
      n[p] = (size_t)(rows_of(g, s) * g->dim / pieces);
      size_t from = (offset(g, s) + k * n[p]) * size;
      at[p * wide] = (char *)g->slice[s].z + (q * to.node + k * to.number) * size;
      at[p * wide + 1] = (char *)e->z->y + from;
      for (int i = 0; i < m->slopes; i++) at[p * wide + 2 + i] = e->z->slope + i * e->z->part + from;
    }
    f->on->vec->combine(f->dtype, many * pieces, n, m->slopes, w, at);
  }
}

static void fill_slice(void *context, int s) { fill_states(context, s, 1); }

static void bind_slice(gqc *g, int s) {
  const gq_field *f = g->plan->field;
  slice *sl = &g->slice[s];
  size_t part = (size_t)g->count * g->n * rows_of(g, s) * g->dim * gq_dtype_size(f->dtype);
  gq_evaluator_bind(g->e, g->s->bind, s, &g->b->grads, &sl->in, &sl->out);
  sl->in[0] = g->t, sl->in[1] = sl->z, sl->in[2] = sl->v;
  for (int i = 0; i < g->dim; i++) sl->out[i] = (char *)sl->jacobian + i * part;
}

/* The times of the nodes, and of the measurements b_j(x_k). */
static int fill_times(gqc *g) {
  gq_solution *s = g->s;
  const gq_field *f = g->plan->field;
  const gq_attempt at = { .field = f, .jumps = gq_solution_jumps(s) };
  double points[GQ_MAX_ELEMENT], w[GQ_MAX_ELEMENT];
  GQ_TRY(gq_gauss_legendre(g->n, points, w));
  for (int e = 0; e < g->count; e++) {
    const element *el = &g->element[e];
    for (int j = 0; j < g->n; j++) {
      double t = el->step.t + g->c[j] * el->step.h;
      if (at.jumps.n) t = gq_attempt_between(&at, t, el->step.t, el->end);
      f->on->vec->put(f->dtype, 1, &t, (char *)g->t + (e * g->n + j) * gq_dtype_size(f->dtype), 1);
    }
    for (int k = el->first; k > el->last; k--)
      weights(g->n, points, w, (s->t[k] - el->step.t) / el->step.h, g->x + (size_t)k * g->n);
  }
  return GQ_OK;
}

/* v at the nodes, and a from the end of the first element to the start of the last. */
static int solve_rows(gqc *g) {
  const gq_field *f = g->plan->field;
  gq_gauss_element element[MAX_GROUP];
  int bad;
  for (int e = 0; e < g->count; e++)
    element[e] = (gq_gauss_element){ g->element[e].step.h, g->element[e].first - g->element[e].last };
  for (int s = 0; s < f->nslices; s++) {
    strides at = strides_of(g, s, (int64_t)g->count * g->n), one = strides_of(g, s, 1);
    g->rows[s] = (gq_gauss_rows){ rows_of(g, s), at.node,    at.number, at.row,
                                  offset(g, s),  one.number, one.row,   g->slice[s].jacobian,
                                  g->slice[s].v };
  }
  gq_gauss of = { .n = g->n,
                  .dim = g->dim,
                  .count = g->count,
                  .parts = f->nslices,
                  .inner = g->inner,
                  .end = g->end,
                  .element = element,
                  .weight = g->x + (size_t)g->element[0].first * g->n,
                  .g = gq_at_time(g->s, g->b->gz, g->element[0].first),
                  .apart = gq_part_bytes(f),
                  .a = g->a,
                  .part = g->rows,
                  .room = g->room };
  GQ_TRY(f->on->vec->gauss(f->dtype, &of, &bad));
  if (bad == g->count) return GQ_OK;
  const gq_step_record *r = &g->element[bad].step;
  return gq_fail(GQ_ENONFINITE,
                 "in the backward pass the adjoint is not finite before t = %.9g (step %.3g): df/dz is not, "
                 "or %d nodes are too few for the step",
                 r->t + r->h, r->h, g->n);
}

static int run_phase(gqc *g, int phase) {
  const slice *first = &g->slice[0];
  void *const *arena = g->plan->scratch.arena;
  return gq_code_run(g->plan->field, &g->e->code, phase, arena, arena, NULL, first->in, g->e->nin, first->out,
                     g->e->nout);
}

static int run_group(gqc *g) {
  gq_solution *s = g->s;
  const gq_field *f = g->plan->field;
  double t = g->element[0].step.t + g->element[0].step.h;
  gq_evaluator *e;
  if (gq_interrupted()) return gq_interrupted_back(t);
  size_t arena = g->plan->scratch.bytes;
  GQ_TRY(element_program(g->plan, g->count, &e));
  s->bytes += f->nslices * (g->plan->scratch.bytes - arena);
  g->e = e;
  GQ_TRY(fill_times(g));
  for (int i = 0; i < f->nslices; i++) bind_slice(g, i);
  if (f->on->lowering->side) fill_states(g, 0, f->nslices);
  else gq_each_slice(f->on, f->nslices, fill_slice, g);
  GQ_TRY(run_phase(g, 0));
  GQ_TRY(solve_rows(g));
  s->info.steps_backward += g->count;
  s->info.nodes += g->count * g->n;
  g->b->nfe += g->count * g->n;
  return run_phase(g, 1);
}

/* ---- the pass ---- */

static int buffers(gqc *g) {
  const gq_field *f = g->plan->field;
  size_t nodes = (size_t)g->plan->most_points * g->n, size = gq_dtype_size(f->dtype),
         times = gq_round64(g->s->nt * g->n * sizeof *g->x), ns = f->nslices,
         pieces = ns * (f->columns ? g->dim : 1),
         terms = gq_round64(pieces * (g->plan->forward.m->slopes + 2) * sizeof *g->terms),
         numbers = gq_round64(pieces * sizeof *g->numbers), rows = gq_round64(ns * sizeof *g->rows);
  size_t part = gq_round64(gq_part_bytes(f)), total = 3 * part + gq_round64(nodes * size) + 64,
         own = times + terms + numbers + rows + ns * gq_gauss_room(g->n, g->dim);
  for (int s = 0; s < f->nslices; s++)
    total += (2 + g->dim) * gq_round64(nodes * rows_of(g, s) * g->dim * size);
  g->states = gq_allocate(f->on, total);
  g->block = gq_calloc(1, own);
  g->slice = gq_calloc(ns, sizeof *g->slice);
  if (!g->states || !g->block || !g->slice) return gq_nomem(total);
  gq_zero(f->on, g->states, total);
  g->s->bytes += total + own;
  char *next = g->states, *here = g->block;
  g->a = next, g->state = next + part, g->slope = next + 2 * part, next += 3 * part;
  g->t = next, next += gq_round64(nodes * size);
  g->x = g->block, here += times;
  g->terms = (void **)(void *)here, here += terms;
  g->numbers = (size_t *)(void *)here, here += numbers;
  g->rows = (gq_gauss_rows *)(void *)here, g->room = here + rows;
  for (int s = 0; s < f->nslices; s++) {
    slice *sl = &g->slice[s];
    part = gq_round64(nodes * rows_of(g, s) * g->dim * size);
    sl->z = next, sl->v = next + part, sl->jacobian = next + 2 * part;
    next += (2 + g->dim) * part;
  }
  return GQ_OK;
}

static int prepare(gqc *g) {
  double points[GQ_MAX_ELEMENT], w[GQ_MAX_ELEMENT];
  GQ_TRY(gq_gauss_legendre(g->n, points, w));
  for (int j = 0; j < g->n; j++) g->c[j] = (points[j] + 1) / 2, g->end[j] = w[j] / 2;
  for (int j = 0; j < g->n; j++) {
    weights(g->n, points, w, g->c[j], g->inner + j * g->n);
    gq_tableau_weights(g->plan->forward.m, g->c[j], g->dense[j]);
  }
  return buffers(g);
}

static bool zero(const gqc *g, int k) {
  const gq_field *f = g->plan->field;
  return !f->on->vec->nonzero(f->dtype, gq_numel(f->shape), gq_at_time(g->s, g->b->gz, k));
}

/* x . f(t_k, z_k) */
static int slope_dot(gqc *g, int k, const void *x, double *gf) {
  const gq_attempt at = { .field = g->plan->field, .jumps = gq_solution_jumps(g->s) };
  return gq_slope_dot(g->b, gq_slope_time(g->s, &at, k), gq_packed_at(g->s, k, g->state), x, g->slope, gf);
}

/* dL/dt_k = g_k . f(t_k, z_k), but for the first time. */
static int time_gradients(gqc *g) {
  double gf;
  for (int k = g->s->nt - 1; g->b->gt && k > 0; k--) {
    if (zero(g, k)) continue;
    GQ_TRY(slope_dot(g, k, gq_at_time(g->s, g->b->gz, k), &gf));
    g->b->gt[k] += gf;
  }
  return GQ_OK;
}

/* Elements of the next group: no more than up to a jump that moves. */
static int group_size(const gqc *g, int64_t rest) {
  const gq_solution *s = g->s;
  int n = g->plan->most_points, e = 0;
  while (n > rest) n /= 2;
  while (e < n - 1 && !(s->jumps_move && gq_at_jump(s, gq_step(&s->steps, rest - 1 - e).t))) e++;
  while (n > e + 1) n /= 2;
  return n;
}

/* Back over all steps that a cotangent reaches; `last`: the last time with one. */
static int run(gqc *g, int last) {
  gq_solution *s = g->s;
  const gq_steps *st = &s->steps;
  const gq_field *f = g->plan->field;
  const gq_attempt at = { .field = f, .jumps = gq_solution_jumps(s) };
  double dir = s->t[s->nt - 1] < s->t[0] ? -1 : 1, gf;
  int64_t rest = st->n;
  int k = last;
  while (rest > 0 && dir * (gq_step(st, rest - 1).t - s->t[last]) >= 0) rest--;
  for (; rest > 0; rest -= g->count) {
    g->count = group_size(g, rest);
    for (int e = 0; e < g->count; e++) {
      int64_t i = rest - 1 - e;
      g->element[e] =
        (element){ .step = gq_step(st, i), .end = gq_step(st, i + 1).t, .z = st->state[i], .first = k };
      while (k > 0 && dir * (s->t[k] - g->element[e].step.t) > 0) k--;
      g->element[e].last = k;
    }
    GQ_TRY(run_group(g));
    if (g->element[g->count - 1].step.t == s->t[k])
      GQ_TRY(gq_jump_gradient(g->b, &at, k, gq_packed_at(s, k, g->state), g->a, g->slope));
  }
  for (; k > 0; k--) gq_state_add(f, 1, gq_at_time(s, g->b->gz, k), g->a);
  if (g->b->gt) {
    GQ_TRY(slope_dot(g, 0, g->a, &gf));
    g->b->gt[0] -= gf;
  }
  gq_state_add(f, 1, gq_at_time(s, g->b->gz, 0), g->a);
  gq_field_unpack(f, g->a, g->b->a);
  return GQ_OK;
}

int gq_collocation_backward(gq_pullback *b) {
  gqc g = { .b = b, .s = b->s, .plan = b->s->plan, .n = b->s->plan->key->element, .dim = b->s->plan->dim };
  int last = b->s->nt - 1;
  while (last >= 0 && zero(&g, last)) last--;
  if (last < 0) return GQ_OK;
  int status = prepare(&g);
  if (status == GQ_OK) status = time_gradients(&g);
  if (status == GQ_OK) status = run(&g, last);
  b->s->info.nodes_wanted = b->s->info.nodes;
  if (g.states) gq_release(g.plan->field->on, g.states);
  gq_free(g.block);
  gq_free(g.slice);
  return status;
}
