/*
** newton.c -- Jacobians of rows and their linear systems, see newton.h.
*/
#include "newton.h"

#include <math.h>
#include <string.h>

/* LAPACK, which OpenBLAS holds; matrices by columns. */
void dgetrf_(const int *m, const int *n, double *a, const int *lda, int *pivot, int *info);
void dgetrs_(const char *trans, const int *n, const int *nrhs, const double *a, const int *lda,
             const int *pivot, double *b, const int *ldb, int *info, size_t length);

static int make_jacobian(const gq_field *f, int c, const void *arg, gq_system *s) {
  const gq_adjointkind plain = { 0 };
  GQ_TRY(gq_system_adjoint(f, c, &plain, s));
  s->second = 1;
  return GQ_OK;
}

/* Rows that a stage of an implicit method solves for one by one, and how their Jacobians are had. */
int gq_jacobian_new(gq_jacobian *j, gq_scratch *m, const char *name, size_t most) {
  const gq_field *f = m->field;
  size_t n = gq_numel(f->shape);
  int status = n ? gq_field_independent(f) : GQ_OK;
  if (status != GQ_OK && status != GQ_EUNSUPPORTED) return status;
  j->rows = n == 0 ? 0 : status == GQ_OK && f->shape.ndim > 0 ? f->shape.dim[0] : 1;
  double dim = n ? (double)n / j->rows : 0, bytes = 4 * 8 * dim * dim * j->rows;
  if (dim > GQ_MAX_SYSTEM || bytes > (double)most)
    return gq_fail(
      GQ_EUNSUPPORTED,
      "method = \"%s\" solves linear systems of %.0f numbers here, %lld at a time, in matrices of %.0f "
      "MB; it takes up to %d numbers and a quarter of the memory; use an explicit method (dopri5, "
      "tsit5), or dynamics that treat the rows of the state one by one",
      name, dim, (long long)j->rows, bytes / (1 << 20), GQ_MAX_SYSTEM);
  j->dim = (int)dim;
  return gq_evaluator_new(m, make_jacobian, NULL, &j->at);
}

int gq_newton_init(gq_newton *n, const gq_field *f, const gq_jacobian *j, int systems) {
  size_t matrix = gq_round64((size_t)j->rows * j->dim * j->dim * sizeof(double)),
         pivot = gq_round64((size_t)j->rows * j->dim * sizeof(int)), part = gq_round64(gq_part_bytes(f));
  *n = (gq_newton){ .field = f, .at = &j->at, .rows = j->rows, .dim = j->dim };
  n->bytes = (1 + systems) * matrix + systems * pivot + 3 * part;
  char *next = n->block = gq_alloc(n->bytes - 3 * part + 64);
  char *states = n->states = gq_allocate(f->on, 3 * part + 64);
  if (!next || !states) return gq_nomem(n->bytes);
  n->jacobian = (double *)(void *)next, next += matrix;
  for (int i = 0; i < systems; i++) n->lu[i] = (double *)(void *)next, next += matrix;
  for (int i = 0; i < systems; i++) n->pivot[i] = (int *)(void *)next, next += pivot;
  n->unit = states, n->column = states + part, n->f = states + 2 * part;
  return GQ_OK;
}

void gq_newton_done(gq_newton *n) {
  gq_free(n->block);
  if (n->states) gq_release(n->field->on, n->states);
}

/* Where number 0 of a row stands in a packed state, and the distance to the next. */
static size_t place(const gq_newton *n, int64_t row, size_t *stride) {
  const gq_field *f = n->field;
  *stride = 1;
  if (!f->columns) return (size_t)row * n->dim;
  int s = (int)(row / f->count[0]); /* the first is the largest */
  while (s + 1 < f->nslices && row >= f->first[s + 1]) s++;
  *stride = f->count[s];
  return (size_t)f->first[s] * n->dim + (row - f->first[s]);
}

void gq_newton_load(const gq_newton *n, int64_t row, const void *state, double *x) {
  size_t stride, at = place(n, row, &stride);
  const gq_field *f = n->field;
  f->on->vec->get(f->dtype, n->dim, (const char *)state + at * gq_dtype_size(f->dtype), stride, x);
}

void gq_newton_store(const gq_newton *n, int64_t row, const double *x, void *state) {
  size_t stride, at = place(n, row, &stride);
  const gq_field *f = n->field;
  f->on->vec->put(f->dtype, n->dim, x, (char *)state + at * gq_dtype_size(f->dtype), stride);
}

static void set_number(const gq_newton *n, int i, double value, void *state) {
  for (int64_t r = 0; r < n->rows; r++) {
    size_t stride, at = place(n, r, &stride) + i * stride;
    n->field->on->vec->put(n->field->dtype, 1, &value, (char *)state + at * gq_dtype_size(n->field->dtype),
                           1);
  }
}

int gq_newton_jacobian(gq_newton *n, const gq_binding *b, double t, void *z) {
  const gq_evaluator *e = n->at;
  void *x[] = { z, n->unit }, *out[] = { n->f, n->column };
  size_t d = n->dim;
  for (int i = 0; i < GQ_MAXPARTS; i++) n->scale[i] = NAN; /* no factors yet: 0 is a scale like others */
  gq_state_clear(n->field, n->unit);
  GQ_TRY(gq_evaluate_phase(e, b, 0, t, x, out, NULL, NULL));
  for (size_t i = 0; i < d; i++) {
    set_number(n, (int)i, -1, n->unit); /* what comes back is -v'J */
    GQ_TRY(gq_evaluate_phase(e, b, 1, t, x, out, NULL, NULL));
    if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted in a Jacobian at t = %.9g", t);
    for (int64_t r = 0; r < n->rows; r++) gq_newton_load(n, r, n->column, n->jacobian + (r * d + i) * d);
    set_number(n, (int)i, 0, n->unit);
  }
  return GQ_OK;
}

void gq_newton_factor(gq_newton *n, int system, double scale, const bool *some_) {
  size_t d = n->dim;
  int info;
  if (scale == n->scale[system] && !some_) return;
  n->scale[system] = scale;
  for (int64_t r = 0; r < n->rows; r++) {
    double *a = n->lu[system] + r * d * d;
    const double *j = n->jacobian + r * d * d;
    bool finite = true;
    if (some_ && !some_[r]) continue;
    for (size_t i = 0; i < d * d; i++) a[i] = scale * j[i], finite &= isfinite(a[i]);
    for (size_t i = 0; i < d; i++) a[i * (d + 1)] += 1;
    if (finite) dgetrf_(&n->dim, &n->dim, a, &n->dim, n->pivot[system] + r * d, &info);
    if (!finite || info != 0) n->pivot[system][r * d] = 0;
  }
}

bool gq_newton_solve(const gq_newton *n, int system, bool transposed, int64_t row, double *x) {
  size_t d = n->dim;
  const double *a = n->lu[system] + row * d * d;
  const int one = 1, *pivot = n->pivot[system] + row * d;
  int info;
  if (pivot[0] == 0) return false;
  dgetrs_(transposed ? "N" : "T", &n->dim, &one, a, &n->dim, pivot, x, &n->dim, &info, 1);
  return true;
}
