/*
** nodes.c -- quadrature nodes and the buffer that evaluates them in batches.
** Norcliffe & Deisenroth (TMLR 2023), section 3.3: eq. (9) for n, eq. (11) for the sum. The solve
** is not stopped at nodes, they are read from dense output, so steps do not depend on n.
*/
#include "nodes.h"

#include <float.h>
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
  return gq_panel_point(r->m, r->panels, r->x, r->w, r->from, r->to, i, w);
}

int gq_node_program(gq_plan *p, int n, gq_evaluator **out) {
  const gq_pointkind of = { .n = n, .probes = p->probes, .defect = p->defect };
  return gq_plan_many(p, n, gq_system_nodes, &of, out);
}

static int probes_init(gq_nodebuffer *b) {
  const gq_plan *p = b->s->plan;
  gq_evaluator *e;
  size_t n = 0;
  GQ_TRY(gq_node_program(b->s->plan, b->points, &e));
  int *size = gq_alloc((e->parts + 1) * sizeof *size);
  if (!size) return gq_nomem(e->parts * sizeof *size);
  for (int i = 0; i < e->parts; i++) size[i] = (int)gq_probe_size(e, i), n += gq_probe_bytes(e, i, b->points);
  double eps = b->s->z->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON;
  int status = gq_refine_init(&b->sum, gq_probe_count(e), size, b->s->o.back_rtol, 50 * eps);
  gq_free(size);
  GQ_TRY(status);
  b->probes = gq_allocate(p->field->on, n * p->field->nslices + 64);
  b->value = gq_alloc((size_t)b->points * (b->sum.numbers + b->sum.groups) * sizeof *b->value + 64);
  b->here = gq_alloc(n * p->field->nslices + 64);
  if (!b->probes || !b->value || !b->here) return gq_nomem(n * p->field->nslices);
  b->probe_bytes = n;
  b->s->bytes += n * p->field->nslices;
  for (int s = 0; s < p->field->nslices; s++) b->probe[s] = (char *)b->probes + s * n;
  return GQ_OK;
}

int gq_nodebuffer_init(gq_nodebuffer *b, gq_solution *s, const gq_grads *grads) {
  const gq_field *f = s->plan->field;
  size_t n = 64 + s->plan->most_points * gq_dtype_size(f->dtype);
  *b = (gq_nodebuffer){ .s = s, .grads = grads, .points = s->plan->most_points, .defect = NAN };
  n = gq_round64(n);
  size_t times = n, states = 0;
  int each = s->plan->defect ? 3 : 2;
  for (int i = 0; i < f->nslices; i++) states += each * gq_round64(b->points * gq_slice_bytes(f, i));
  n += 2 * states;
  b->block = gq_allocate(f->on, n);
  b->z = gq_calloc(4 * f->nslices, sizeof *b->z);
  if (!b->block || !b->z) return gq_nomem(n);
  b->a = b->z + f->nslices, b->slope = b->a + f->nslices, b->probe = b->slope + f->nslices;
  s->bytes += n;
  b->t = b->block;
  char *next = (char *)b->block + times;
  for (int i = 0; i < f->nslices; i++) {
    size_t part = gq_round64(b->points * gq_slice_bytes(f, i));
    b->z[i] = next, b->a[i] = next + part, b->slope[i] = next + 2 * part, next += each * part;
  }
  b->side = next;
  return s->plan->probes || s->plan->defect ? probes_init(b) : GQ_OK;
}

void gq_nodebuffer_done(gq_nodebuffer *b) {
  if (b->s) gq_release(b->s->plan->field->on, b->block), gq_release(b->s->plan->field->on, b->probes);
  gq_free(b->value);
  gq_free(b->list.row);
  gq_free(b->here);
  gq_free(b->z);
  gq_refine_done(&b->sum);
  b->block = b->probes = b->value = b->list.row = NULL, b->here = NULL, b->z = NULL;
}

void *gq_nodebuffer_z(gq_nodebuffer *b, int slice) {
  return (char *)b->z[slice] + b->filled * gq_slice_bytes(b->s->plan->field, slice);
}

void *gq_nodebuffer_a(gq_nodebuffer *b, int slice) {
  return (char *)b->a[slice] + b->filled * gq_slice_bytes(b->s->plan->field, slice);
}

static void *slope_at(gq_nodebuffer *b, int slice) {
  return (char *)b->slope[slice] + b->filled * gq_slice_bytes(b->s->plan->field, slice);
}

void gq_nodebuffer_fill(gq_nodebuffer *b, void *at(gq_nodebuffer *, int), const void *state) {
  const gq_field *f = b->s->plan->field;
  void *to[2 * f->nslices];
  size_t n[f->nslices];
  for (int s = 0; s < f->nslices; s++) {
    n[s] = gq_slice_numel(f, s);
    to[2 * s] = at(b, s), to[2 * s + 1] = (char *)(uintptr_t)state + gq_slice_offset(f, s);
  }
  f->on->vec->combine(f->dtype, f->nslices, n, 0, NULL, to);
}

int gq_nodebuffer_path(gq_nodebuffer *b, gq_trajectory *path, double t, void *scratch) {
  GQ_TRY(gq_trajectory_at(path, t, scratch));
  gq_nodebuffer_fill(b, gq_nodebuffer_z, scratch);
  if (!b->s->plan->defect) return GQ_OK;
  gq_trajectory_slope(path, t, scratch, &b->place[b->filled].h);
  gq_nodebuffer_fill(b, slope_at, scratch);
  return GQ_OK;
}

void gq_nodebuffer_place(gq_nodebuffer *b, int n, double x) {
  b->place[b->filled].n = n, b->place[b->filled].x = x;
}

int gq_nodebuffer_push(gq_nodebuffer *b, double t, double weight) {
  const gq_field *f = b->s->plan->field;
  void *at[3 * f->nslices];
  size_t n[f->nslices];
  t = fmin(fmax(t, b->low), b->high);
  for (int s = 0; s < f->nslices; s++) {
    n[s] = gq_slice_numel(f, s);
    at[3 * s] = at[3 * s + 2] = gq_nodebuffer_a(b, s), at[3 * s + 1] = NULL;
  }
  f->on->vec->combine(f->dtype, f->nslices, n, 1, &weight, at);
  f->on->vec->put(f->dtype, 1, &t, (char *)b->t + b->filled * gq_dtype_size(f->dtype), 1);
  b->place[b->filled].t = t, b->place[b->filled].weight = weight;
  b->filled++;
  b->evaluated++;
  return b->filled == b->points ? gq_nodebuffer_flush(b) : GQ_OK;
}

/* n blocks {features, rows of the slice} -> {features, n rows} */
static void put_aside(const gq_field *f, int s, int n, const char *from, char *to) {
  size_t row = f->count[s] * gq_dtype_size(f->dtype), block = gq_slice_bytes(f, s), features = block / row;
  for (size_t d = 0; d < features; d++)
    for (int i = 0; i < n; i++, to += row) gq_copy(f->on, to, from + i * block + d * row, row);
}

/* What the program has stored at i for its points, slices together: of point j from to[j stride] on. Where x is in a
** slice's block moves on. */
static void gather(const gq_nodebuffer *b, const gq_evaluator *e, int i, size_t *x, double *to,
                   size_t stride) {
  gq_dtype d = gq_probe_dtype(e, i);
  size_t size = gq_probe_size(e, i), points = e->points;
  for (int s = 0; s < b->s->plan->field->nslices; s++) {
    const char *from = b->here + s * b->probe_bytes + *x;
    for (size_t k = 0; k < size * points; k++)
      to[k % points * stride + k / points] += gq_number(d, from + k * gq_dtype_size(d), 0);
  }
  *x += gq_probe_bytes(e, i, e->points);
}

/* All but the defect, with the points' weights: [points][numbers + magnitudes]. The defect: [points]. */
static void gather_all(const gq_nodebuffer *b, const gq_evaluator *e, double *defect) {
  const gq_refine *r = &b->sum;
  size_t n = r->numbers + r->groups, x = 0;
  memset(b->value, 0, n * e->points * sizeof *b->value);
  for (int g = 0; g < r->groups; g++) gather(b, e, g, &x, b->value + r->first[g], n);
  if (e->defect) gather(b, e, r->groups, &x, defect, 1);
  for (int g = 0; g < r->groups; g++)
    gather(b, e, r->groups + e->defect + g, &x, b->value + r->numbers + g, n);
}

int gq_nodebuffer_probes(const gq_nodebuffer *b, const gq_grads *probes, double *to) {
  const gq_field *f = b->s->plan->field;
  gq_evaluator *e;
  GQ_TRY(gq_node_program(b->s->plan, b->points, &e));
  char *here = gq_alloc(probes->bytes + 64);
  if (!here) return gq_nomem(probes->bytes);
  gq_copy(f->on, here, probes->block, probes->bytes);
  int status = gq_pending();
  for (int g = 0, q = 0; g < b->sum.groups; g++) {
    int j = e->of[e->nq + g];
    gq_dtype d = gq_field_boundary_dtype(f, j);
    for (int i = 0; q < b->sum.first[g + 1]; i++, q++) {
      to[q] = 0;
      for (int s = 0; s < f->nslices; s++) {
        ptrdiff_t at = (char *)probes->at[(size_t)s * f->nb + j] - (char *)probes->block;
        to[q] += gq_number(d, here + at + i * gq_dtype_size(d), 0);
      }
    }
  }
  gq_free(here);
  return status;
}

int gq_nodebuffer_difference(const gq_nodebuffer *b, const gq_grads *probes, double *difference) {
  GQ_TRY(gq_nodebuffer_probes(b, probes, b->value));
  *difference = gq_refine_difference(&b->sum, b->value);
  return GQ_OK;
}

int gq_nodebuffer_floor(gq_nodebuffer *b, double rounding) {
  const gq_field *f = b->s->plan->field;
  gq_evaluator *e;
  GQ_TRY(gq_node_program(b->s->plan, b->points, &e));
  for (int g = 0; g < b->sum.groups; g++) {
    int j = e->of[e->nq + g];
    double square = 0;
    for (int s = 0; s < (f->axis[j] >= 0 ? f->nslices : 1); s++) {
      const void *x = b->s->bind->value[(size_t)s * f->nb + j];
      square += f->on->vec->dot(gq_field_boundary_dtype(f, j), gq_numel(gq_field_slice_shape(f, s, j)), x, x);
    }
    b->sum.floor[g] = rounding / fmax(1, sqrt(square));
  }
  return GQ_OK;
}

static size_t row_size(const gq_nodebuffer *b) { return GQ_LISTED + b->sum.numbers + b->sum.groups; }

const double *gq_nodebuffer_listed(const gq_nodebuffer *b, int64_t i) {
  return b->list.row + i * row_size(b);
}

static int list_point(gq_nodebuffer *b, double t, double weight, const double *value) {
  size_t n = row_size(b);
  GQ_TRY(gq_room(&b->list.row, &b->list.room, b->list.n, n * sizeof *b->list.row));
  double *to = b->list.row + b->list.n++ * n;
  to[0] = t, to[1] = weight;
  memcpy(to + GQ_LISTED, value, (n - GQ_LISTED) * sizeof *to);
  return GQ_OK;
}

static void to_spectrum(gq_nodebuffer *b, const struct gq_place *place, const double *value) {
  double sum[GQ_PROBES] = { 0 }, direction[GQ_PROBES];
  for (int k = 0; k < b->sum.numbers; k++) {
    gq_spectrum_probe(k, direction);
    for (int q = 0; q < GQ_PROBES; q++) sum[q] += direction[q] * value[k];
  }
  gq_spectrum_add(&b->spectrum, place->n, place->x, sum);
}

/* RMS of h (z' - f) in tolerances, of points done .. done + e->points. */
static void take_defect(gq_nodebuffer *b, const gq_evaluator *e, int done, const double *sum) {
  for (int j = 0; j < e->points; j++)
    b->defect =
      fmax(b->defect, fabs(b->place[done + j].h) * sqrt(sum[j] / gq_numel(b->s->plan->field->shape)));
}

/* What the program has stored for points done .. done + e->points. */
static int take_probes(gq_nodebuffer *b, const gq_evaluator *e, int done) {
  int n = b->sum.numbers + b->sum.groups;
  if (b->withdraw) return GQ_OK;
  for (int j = 0; j < e->points; j++) {
    const struct gq_place *place = &b->place[done + j];
    const double *value = b->value + (size_t)j * n;
    if (!b->sum.nwork) {
      gq_refine_count(&b->sum, value);
      if (b->s->o.guards) to_spectrum(b, place, value);
      if (b->list.on) GQ_TRY(list_point(b, place->t, place->weight, value));
      continue;
    }
    double *to = b->sum.value + b->next++ * n;
    for (int k = 0; k < n; k++) to[k] = value[k] / place->weight;
    for (int k = b->sum.numbers; k < n; k++) to[k] = fabs(to[k]);
  }
  return GQ_OK;
}

/* Points in powers of two, so that a handful of programs serves every number of nodes. */
int gq_nodebuffer_flush(gq_nodebuffer *b) {
  gq_plan *p = b->s->plan;
  const gq_field *f = p->field;
  const gq_ode_options *o = &b->s->o;
  for (int done = 0; done < b->filled;) {
    int n = 1;
    while (2 * n <= b->filled - done) n *= 2;
    gq_evaluator *e;
    void *z[f->nslices], *a[f->nslices], *slope[f->nslices];
    GQ_TRY(gq_node_program(p, n, &e));
    char *side = b->side;
    for (int s = 0; s < f->nslices; s++) {
      z[s] = (char *)b->z[s] + done * gq_slice_bytes(f, s);
      a[s] = (char *)b->a[s] + done * gq_slice_bytes(f, s);
      slope[s] = (char *)b->slope[s] + done * gq_slice_bytes(f, s);
      if (!e->columns || n == 1 || gq_field_plain(f)) continue;
      size_t part = gq_round64(n * gq_slice_bytes(f, s));
      put_aside(f, s, n, z[s], side);
      put_aside(f, s, n, a[s], side + part);
      z[s] = side, a[s] = side + part;
      side += 2 * part;
      if (!e->defect) continue;
      put_aside(f, s, n, slope[s], side);
      slope[s] = side, side += part;
    }
    GQ_TRY(gq_evaluate_nodes(e, b->s->bind, (char *)b->t + done * gq_dtype_size(f->dtype), z, a, slope,
                             (double[]){ o->rtol, gq_positive_atol(f->dtype, o->atol) }, b->grads,
                             b->probes ? b->probe : NULL));
    if (b->probes) gq_copy(f->on, b->here, b->probes, b->probe_bytes * f->nslices);
    GQ_TRY(gq_pending());
    double defect[1 << (GQ_NODE_SIZES - 1)] = { 0 };
    if (b->probes) gather_all(b, e, defect);
    if (e->defect) take_defect(b, e, done, defect);
    if (p->probes) GQ_TRY(take_probes(b, e, done));
    done += n;
  }
  b->filled = 0;
  return GQ_OK;
}
