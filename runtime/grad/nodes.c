/*
** nodes.c -- quadrature nodes and the buffer that evaluates them in batches.
** Norcliffe & Deisenroth (TMLR 2023), section 3.3: eq. (9) for n, eq. (11) for the sum. The solve
** is not stopped at nodes, they are read from dense output, so steps do not depend on n.
*/
#include "nodes.h"

#include <math.h>
#include <string.h>

/* Purpose of the key of random points. */
enum { POINTS = 0x6e6f6465 };

static int rule_room(gq_rule *r, int m) {
  if (m <= r->room) return GQ_OK;
  double *x = gq_realloc(r->x, 2 * (size_t)m * sizeof *x);
  if (!x) return gq_nomem(2 * (size_t)m * sizeof *x);
  r->x = x, r->room = m, r->kind = NULL;
  return GQ_OK;
}

int gq_rule_set(gq_rule *r, const gq_ode_options *o, int n, int refine, double from, double to) {
  const gq_quadrature *q = o->quadrature;
  int panels = o->panels, most = q->most ? q->most : n;
  if (panels < (n + most - 1) / most) panels = (n + most - 1) / most;
  int m = gq_quadrature_points(q, (n + panels - 1) / panels), fine = gq_quadrature_points(q, refine * m);
  if (q->most && fine > q->most) panels *= refine;
  else m = fine;
  r->panels = panels, r->from = from, r->to = to;
  if (r->kind == q && r->m == m && !q->random) return GQ_OK;
  GQ_TRY(rule_room(r, m));
  r->m = m, r->w = r->x + m, r->kind = q;
  return q->fill(m, gq_key_make(o->seed, POINTS), r->draw++, r->x, r->w);
}

void gq_rule_done(gq_rule *r) {
  gq_free(r->x);
  r->x = NULL;
}

int gq_rule_count(const gq_rule *r) { return r->m * r->panels; }

double gq_rule_place(const gq_rule *r, int i) { return r->x[r->m - 1 - i % r->m]; }

double gq_rule_point(const gq_rule *r, int i, double *w) {
  int p = i / r->m, j = r->m - 1 - i % r->m;
  double half = (r->from - r->to) / (2.0 * r->panels);
  *w = r->w[j] * half;
  return r->from - (2 * p + 1) * half + r->x[j] * half;
}

int64_t gq_rule_wanted(double C, int64_t nfe, double dt, double T) {
  double n = ceil(C * (double)nfe * fabs(dt / T) * (1 - 1e-12));
  return n < 1 ? 1 : n > 1e15 ? (int64_t)1e15 : (int64_t)n;
}

static size_t state_bytes(const gq_field *f, int s) {
  return gq_numel(f->class_shape[f->class_of[s]]) * gq_dtype_size(f->dtype);
}

/* Room for what the largest program stores: the others store no more. */
static int probes_init(gq_nodebuffer *b) {
  const gq_plan *p = b->s->plan;
  const gq_field *f = p->field;
  gq_evaluator *e;
  size_t n = 0;
  GQ_TRY(gq_plan_nodes(b->s->plan, b->rows, &e));
  for (int j = 0; j < f->nb; j++) {
    size_t numbers = gq_numel(gq_field_boundary_shape(f, j));
    if (f->want[j] && gq_field_boundary_shape(f, j).ndim <= 1) n += gq_round64(numbers * b->rows * 8);
  }
  if (!e->parts) return GQ_OK;
  b->probes = gq_alloc(n * f->nslices);
  if (!b->probes) return gq_nomem(n * f->nslices);
  b->s->bytes += n * f->nslices;
  for (int s = 0; s < f->nslices; s++) b->probe[s] = (char *)b->probes + s * n;
  return GQ_OK;
}

int gq_nodebuffer_init(gq_nodebuffer *b, gq_solution *s, const gq_grads *grads) {
  const gq_field *f = s->plan->field;
  size_t n = 64 + s->plan->node_rows * gq_dtype_size(f->dtype);
  *b = (gq_nodebuffer){ .s = s, .grads = grads, .rows = s->plan->node_rows };
  n = gq_round64(n);
  size_t times = n, states = 0;
  for (int i = 0; i < f->nslices; i++) states += 2 * gq_round64(b->rows * state_bytes(f, i));
  n += 2 * states;
  b->block = gq_alloc(n);
  if (!b->block) return gq_nomem(n);
  s->bytes += n;
  b->t = b->block;
  char *next = (char *)b->block + times;
  for (int i = 0; i < f->nslices; i++) {
    size_t part = gq_round64(b->rows * state_bytes(f, i));
    b->z[i] = next, b->a[i] = next + part, next += 2 * part;
  }
  b->side = next;
  return s->plan->probes ? probes_init(b) : GQ_OK;
}

void gq_nodebuffer_done(gq_nodebuffer *b) {
  gq_free(b->block);
  gq_free(b->probes);
  b->block = b->probes = NULL;
}

void *gq_nodebuffer_z(gq_nodebuffer *b, int slice) {
  return (char *)b->z[slice] + b->filled * state_bytes(b->s->plan->field, slice);
}

void *gq_nodebuffer_a(gq_nodebuffer *b, int slice) {
  return (char *)b->a[slice] + b->filled * state_bytes(b->s->plan->field, slice);
}

void gq_nodebuffer_place(gq_nodebuffer *b, int n, double x) {
  b->place[b->filled] = (struct gq_place){ n, x };
}

int gq_nodebuffer_push(gq_nodebuffer *b, double t, double weight) {
  const gq_field *f = b->s->plan->field;
  for (int s = 0; s < f->nslices; s++) {
    size_t n = gq_numel(f->class_shape[f->class_of[s]]);
    void *a = gq_nodebuffer_a(b, s);
    f->on->vec->scale(f->dtype, n, weight, a, 1, a, 1);
  }
  f->on->vec->put(f->dtype, 1, &t, (char *)b->t + b->filled * gq_dtype_size(f->dtype), 1);
  b->filled++;
  b->evaluated++;
  return b->filled == b->rows ? gq_nodebuffer_flush(b) : GQ_OK;
}

/* n blocks {features, rows of the slice} -> {features, n rows} */
static void put_aside(const gq_field *f, int s, int n, const char *from, char *to) {
  size_t row = f->count[s] * gq_dtype_size(f->dtype), block = state_bytes(f, s), features = block / row;
  for (size_t d = 0; d < features; d++)
    for (int i = 0; i < n; i++, to += row) gq_copy(f->on, to, from + i * block + d * row, row);
}

static bool stores(const gq_evaluator *e, int boundary) {
  for (int i = 0; i < e->parts; i++)
    if (e->of[e->nq + i] == boundary) return true;
  return false;
}

/* Part i of slice s, for e->points nodes: {numbers, points} as columns, else {points, numbers}. */
static void probe_part(const gq_nodebuffer *b, const gq_evaluator *e, int i, const char *x,
                       double (*sum)[GQ_PROBES]) {
  const gq_plan *p = b->s->plan;
  int boundary = e->of[e->nq + i];
  gq_dtype d = gq_field_boundary_dtype(p->field, boundary);
  size_t numbers = gq_probe_size(e, i), size = gq_dtype_size(d);
  for (size_t k = 0; k < numbers; k++) {
    double direction[GQ_PROBES], v[1 << (GQ_NODE_SIZES - 1)];
    gq_spectrum_probe(((size_t)boundary << 32) + k, direction);
    p->field->on->vec->get(d, e->points, x + (e->columns ? k * e->points : k) * size,
                           e->columns ? 1 : numbers, v);
    for (int j = 0; j < e->points; j++)
      for (int q = 0; q < GQ_PROBES; q++) sum[j][q] += direction[q] * v[j];
  }
}

/* What the program has stored for rows done .. done + e->points. One for fewer nodes may store more than the
** largest; that is left out. */
static int take_probes(gq_nodebuffer *b, const gq_evaluator *e, int done) {
  gq_plan *p = b->s->plan;
  gq_evaluator *largest;
  double sum[1 << (GQ_NODE_SIZES - 1)][GQ_PROBES] = { { 0 } };
  GQ_TRY(gq_plan_nodes(p, b->rows, &largest));
  for (int s = 0; s < p->field->nslices; s++) {
    const char *x = b->probe[s];
    for (int i = 0; i < e->parts; x += gq_probe_bytes(e, i, e->points), i++)
      if (stores(largest, e->of[e->nq + i])) probe_part(b, e, i, x, sum);
  }
  for (int j = 0; j < e->points; j++)
    gq_spectrum_add(&b->spectrum, b->place[done + j].n, b->place[done + j].x, sum[j]);
  return GQ_OK;
}

/* Rows in powers of two, so that a handful of programs serves every number of nodes. */
int gq_nodebuffer_flush(gq_nodebuffer *b) {
  gq_plan *p = b->s->plan;
  const gq_field *f = p->field;
  for (int done = 0; done < b->filled;) {
    int n = 1;
    while (2 * n <= b->filled - done) n *= 2;
    gq_evaluator *e;
    void *z[GQ_MAXSLICES], *a[GQ_MAXSLICES];
    GQ_TRY(gq_plan_nodes(p, n, &e));
    char *side = b->side;
    for (int s = 0; s < f->nslices; s++) {
      z[s] = (char *)b->z[s] + done * state_bytes(f, s);
      a[s] = (char *)b->a[s] + done * state_bytes(f, s);
      if (!e->columns || n == 1 || gq_field_plain(f)) continue;
      size_t part = gq_round64(n * state_bytes(f, s));
      put_aside(f, s, n, z[s], side);
      put_aside(f, s, n, a[s], side + part);
      z[s] = side, a[s] = side + part;
      side += 2 * part;
    }
    GQ_TRY(gq_evaluate_nodes(e, b->s->bind, (char *)b->t + done * gq_dtype_size(f->dtype), z, a, b->grads,
                             b->probe));
    if (b->probes) GQ_TRY(take_probes(b, e, done));
    done += n;
  }
  b->filled = 0;
  return GQ_OK;
}
