/*
** linear.c -- systems of equations, Cholesky factors, eigenvectors and determinants by LAPACK: operations of the tape
** whose derivatives are made of recorded operations again, so there are some of any order. The formulas are those of
** Giles, Collected matrix derivative results for forward and reverse mode AD (2008). Matrices are the last two
** dimensions; LAPACK sees their transposes, since it counts columns first.
*/
#include "tape.h"

#include <math.h>
#include <string.h>

#define LAPACK(name, ...)              \
  extern void s##name##_(__VA_ARGS__); \
  extern void d##name##_(__VA_ARGS__)
LAPACK(getrf, const int *m, const int *n, void *a, const int *lda, int *pivot, int *info);
LAPACK(getrs, const char *trans, const int *n, const int *nrhs, const void *a, const int *lda,
       const int *pivot, void *b, const int *ldb, int *info, size_t);
LAPACK(potrf, const char *uplo, const int *n, void *a, const int *lda, int *info, size_t);
LAPACK(syevd, const char *jobz, const char *uplo, const int *n, void *a, const int *lda, void *w, void *work,
       const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
extern void dgesvd_(const char *jobu, const char *jobv, const int *m, const int *n, double *a, const int *lda,
                    double *s, double *u, const int *ldu, double *v, const int *ldv, double *work,
                    const int *lwork, int *info, size_t, size_t);
#define CALL(type, name, ...) ((type) == GQ_F32 ? s##name##_(__VA_ARGS__) : d##name##_(__VA_ARGS__))

/* ---- numbers ---- */

typedef struct matrices {
  gq_dtype d;
  int n;
  int64_t count;
  size_t size; /* bytes of one */
} matrices;

static int check_square(const gq_tensor *a, const char *what, matrices *m) {
  char text[200];
  int rank = a->shape.ndim;
  int64_t n = rank < 2 ? 0 : a->shape.dim[rank - 1];
  if (rank < 2 || n != a->shape.dim[rank - 2] || n > 1 << 15 || !gq_is_float(a->dtype))
    return gq_fail(GQ_ESHAPE,
                   "%s: square matrices {..., n, n} of floats expected (n at most 32768), got %s %s", what,
                   gq_dtype_name(a->dtype), gq_shape_text(a->shape, text, sizeof text));
  gq_blas_name(); /* one thread a call */
  *m = (matrices){ a->dtype, (int)n, n ? gq_numel(a->shape) / (n * n) : 0,
                   (size_t)(n * n) * gq_dtype_size(a->dtype) };
  return GQ_OK;
}

/* to {columns, rows} = from' */
static void turn(gq_dtype d, const void *from, int64_t rows, int64_t columns, void *to) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++)
      gq_set_number(d, to, j * rows + i, gq_number(d, from, i * columns + j));
}

static int singular(const char *what, int64_t i, const char *why) {
  return gq_fail(GQ_EARG, "%s: matrix %lld %s", what, (long long)i + 1, why);
}

/* L and U of one matrix at a time, with so many bytes more behind them. */
typedef struct factors {
  char *lu, *more;
  int *pivot, info; /* above 0: it is singular */
} factors;

static int factors_new(matrices m, size_t more, factors *f) {
  size_t bytes = m.size + more + (size_t)m.n * sizeof(int) + 16;
  *f = (factors){ .lu = gq_alloc(bytes) };
  if (!f->lu) return gq_nomem(bytes);
  f->more = f->lu + m.size, f->pivot = (int *)(void *)(f->lu + (m.size + more + 15) / 16 * 16);
  return GQ_OK;
}

static void factorise(matrices m, const char *a, factors *f) {
  memcpy(f->lu, a, m.size);
  CALL(m.d, getrf, &m.n, &m.n, f->lu, &m.n, f->pivot, &f->info);
}

static double det_of(matrices m, const factors *f) {
  double det = 1;
  for (int j = 0; j < m.n; j++)
    det *= (f->pivot[j] == j + 1 ? 1 : -1) * gq_number(m.d, f->lu, (int64_t)j * (m.n + 1));
  return det;
}

/* X = op(A)^-1 B: b through a copy of one right-hand side. */
static int solve_all(matrices m, const char *a, const char *b, int k, bool turned, char *x) {
  size_t wide = (size_t)m.n * (size_t)k * gq_dtype_size(m.d);
  factors f;
  GQ_TRY(factors_new(m, wide, &f));
  for (int64_t i = 0; i < m.count && f.info == 0; i++, a += m.size, b += wide, x += wide) {
    factorise(m, a, &f);
    turn(m.d, b, m.n, k, f.more);
    if (f.info > 0) singular("solve", i, "is singular");
    else CALL(m.d, getrs, turned ? "N" : "T", &m.n, &k, f.lu, &m.n, f.pivot, f.more, &m.n, &f.info, 1);
    turn(m.d, f.more, k, m.n, x);
  }
  gq_free(f.lu);
  return f.info ? GQ_EARG : GQ_OK;
}

static int det_all(matrices m, const char *a, gq_tensor *y) {
  factors f;
  GQ_TRY(factors_new(m, 0, &f));
  for (int64_t i = 0; i < m.count; i++, a += m.size) {
    factorise(m, a, &f);
    gq_set_number(m.d, gq_tensor_data(y), i, det_of(m, &f));
  }
  gq_free(f.lu);
  return GQ_OK;
}

/* det of an orthogonal matrix, which is overwritten */
static double sign_of(int n, double *x, int *pivot) {
  int info;
  double sign = 1;
  dgetrf_(&n, &n, x, &n, pivot, &info);
  for (int j = 0; j < n; j++)
    if ((pivot[j] != j + 1) != (x[(size_t)j * ((size_t)n + 1)] < 0)) sign = -sign;
  return sign;
}

/* The cofactors of A = U S V' with det A = 0: det U det V times all s but the last, times u v', the last vectors. Below
** rank n - 1 another s is zero, too. */
static int cofactors_singular(matrices m, const char *a, char *y) {
  int lwork = 8 * m.n, info = 0;
  size_t n = (size_t)m.n, bytes = (3 * n * n + 9 * n) * sizeof(double);
  double *x = gq_alloc(bytes), *u = x + n * n, *v = u + n * n, *s = v + n * n, *work = s + n, scale = 1;
  if (!x) return gq_nomem(bytes);
  for (size_t i = 0; i < n * n; i++) {
    x[i] = gq_number(m.d, a, (int64_t)i);
    if (!isfinite(x[i])) scale = NAN;
  }
  if (isfinite(scale)) dgesvd_("A", "A", &m.n, &m.n, x, &m.n, s, u, &m.n, v, &m.n, work, &lwork, &info, 1, 1);
  if (info) scale = NAN;
  for (size_t i = 0; i < n; i++) {
    if (i + 1 < n) scale *= s[i];
    work[i] = u[(n - 1) * n + i], work[n + i] = v[i * n + n - 1];
  }
  scale *= sign_of(m.n, u, (int *)(void *)s) * sign_of(m.n, v, (int *)(void *)s);
  for (size_t i = 0; i < n * n; i++) gq_set_number(m.d, y, (int64_t)i, scale * work[i % n] * work[n + i / n]);
  gq_free(x);
  return GQ_OK;
}

/* det A A^-T; or by the way of what is singular */
static int cofactors_all(matrices m, const char *a, char *y) {
  int64_t numbers = (int64_t)m.n * m.n;
  int status = GQ_OK;
  factors f;
  GQ_TRY(factors_new(m, m.size, &f));
  for (int64_t i = 0; i < m.count && status == GQ_OK; i++, a += m.size, y += m.size) {
    factorise(m, a, &f);
    if (f.info > 0) {
      status = cofactors_singular(m, a, y);
      continue;
    }
    for (int64_t j = 0; j < numbers; j++) gq_set_number(m.d, f.more, j, j % (m.n + 1) == 0);
    CALL(m.d, getrs, "N", &m.n, &m.n, f.lu, &m.n, f.pivot, f.more, &m.n, &f.info, 1);
    turn(m.d, f.more, m.n, m.n, y);
    double det = det_of(m, &f);
    for (int64_t j = 0; j < numbers; j++) gq_set_number(m.d, y, j, det * gq_number(m.d, y, j));
  }
  gq_free(f.lu);
  return status;
}

static int cholesky_all(matrices m, const char *a, char *l) {
  size_t each = gq_dtype_size(m.d), n = (size_t)m.n;
  int info = 0;
  memcpy(l, a, (size_t)m.count * m.size);
  for (int64_t i = 0; i < m.count; i++, l += m.size) {
    CALL(m.d, potrf, "U", &m.n, l, &m.n, &info, 1);
    if (info != 0) return singular("cholesky", i, "is not positive definite");
    for (size_t r = 0; r + 1 < n; r++) memset(l + (r * n + r + 1) * each, 0, (n - r - 1) * each);
  }
  return GQ_OK;
}

static int eigh_all(matrices m, const char *a, char *w, char *v) {
  size_t each = gq_dtype_size(m.d), n = (size_t)m.n;
  int info = 0, lwork = 1 + 6 * m.n + 2 * m.n * m.n, liwork = 3 + 5 * m.n;
  if (m.n > 10000) return gq_fail(GQ_EARG, "eigh: matrices of at most 10000 rows, got %d", m.n);
  size_t bytes = m.size + (size_t)lwork * each + (size_t)liwork * sizeof(int) + 16;
  char *z = gq_alloc(bytes), *work = z + m.size;
  if (!z) return gq_nomem(bytes);
  int *iwork = (int *)(void *)(z + (m.size + (size_t)lwork * each + 15) / 16 * 16);
  for (int64_t i = 0; i < m.count && info == 0; i++, a += m.size, v += m.size, w += n * each) {
    for (int64_t j = 0; j < (int64_t)m.n * m.n && info == 0; j++) info = !isfinite(gq_number(m.d, a, j));
    if (info) {
      singular("eigh", i, "has entries that are not finite");
      break;
    }
    memcpy(z, a, m.size);
    CALL(m.d, syevd, "V", "U", &m.n, z, &m.n, w, work, &lwork, iwork, &liwork, &info, 1, 1);
    if (info) singular("eigh", i, "did not converge");
    turn(m.d, z, m.n, m.n, v);
  }
  gq_free(z);
  return info ? GQ_EARG : GQ_OK;
}

/* ---- on the tape ---- */

typedef struct linear {
  gq_custom base;
  gq_tensor *in[2], *packed[2],
    *out[2]; /* operands as given; as LAPACK read them; results without their place on the tape */
  uint64_t version[6];
  bool turned;
} linear;

static void linear_free(gq_custom *c) {
  linear *f = (linear *)c;
  for (int i = 0; i < 2; i++)
    gq_tensor_unref(f->in[i]), gq_tensor_unref(f->packed[i]), gq_tensor_unref(f->out[i]);
  gq_free(f);
}

static uint64_t version_of(const linear *f, int i) {
  gq_tensor *t = i < 2 ? f->in[i] : f->out[i - 2];
  return t ? t->storage->version : 0;
}

static int unchanged(const linear *f) {
  for (int i = 0; i < 4; i++)
    if (version_of(f, i) != f->version[i])
      return gq_fail(
        GQ_ESTATE,
        "an operand or result of '%s' was modified in place before the backward pass; write to a copy "
        "(x:clone()), or after it",
        f->base.name);
  return GQ_OK;
}

static int linear_new(gq_custom base, gq_tensor *a, gq_tensor *b_, linear **out) {
  linear *f = gq_calloc(1, sizeof *f);
  if (!f) return gq_nomem(sizeof *f);
  f->base = base;
  f->in[0] = gq_tensor_ref(a), f->in[1] = b_ ? gq_tensor_ref(b_) : NULL;
  int status = gq_tensor_contiguous_get(a, &f->packed[0]);
  if (status == GQ_OK && b_) status = gq_tensor_contiguous_get(b_, &f->packed[1]);
  if (status != GQ_OK) linear_free(&f->base);
  else *out = f;
  return status;
}

/* The results are there: keep what the way back reads, and tell the tape. */
static int record(linear *f, int nout, gq_tensor *const *out) {
  int status = GQ_OK;
  for (int i = 0; i < 2; i++) gq_tensor_unref(f->packed[i]), f->packed[i] = NULL;
  for (int i = 0; i < nout && status == GQ_OK; i++)
    status = gq_tensor_view(out[i], out[i]->shape, out[i]->stride, out[i]->offset, &f->out[i]);
  for (int i = 0; i < 4; i++) f->version[i] = version_of(f, i);
  if (status == GQ_OK) return gq_record_custom(&f->base, f->in[1] ? 2 : 1, f->in, nout, out);
  linear_free(&f->base);
  return status;
}

/* The results, recorded; or none of them. */
static int finish(linear *f, int status, int nout, gq_tensor **out) {
  if (status == GQ_OK) status = record(f, nout, out);
  else linear_free(&f->base);
  for (int i = 0; i < nout && status != GQ_OK; i++) gq_tensor_unref(out[i]), out[i] = NULL;
  return status;
}

/* A new graph, where all went well so far, or NULL. */
static gq_graph *begin(int *status) {
  gq_graph *g = *status == GQ_OK ? gq_graph_new() : NULL;
  if (*status == GQ_OK && !g) *status = gq_nomem(0);
  return g;
}

/* A graph of ordinary operations over tensors, recorded where the tape is on. Frees g. */
static int evaluate(gq_graph *g, gq_tensor *const *in, gq_ref ref, gq_tensor **out) {
  int status = gq_graph_status(g);
  if (status == GQ_OK) status = gq_evaluate_by(gq_op_call, g, in, 1, &ref, out);
  gq_graph_free(g);
  return status;
}

static gq_ref input(gq_graph *g, const gq_tensor *t) { return gq_input(g, t->dtype, t->shape); }

static gq_ref transpose(gq_graph *g, gq_ref x) {
  int perm[GQ_MAXDIM], n = gq_graph_node(g, x)->shape.ndim;
  for (int i = 0; i < n; i++) perm[i] = i;
  perm[n - 1] = n - 2, perm[n - 2] = n - 1;
  return gq_permute(g, x, perm);
}

/* A constant matrix {n, n}: `below`, `on`, `above` the diagonal. */
static int pattern(gq_dtype d, int64_t n, double below, double on, double above, gq_tensor **out) {
  GQ_TRY(gq_tensor_empty(d, gq_shape_of(2, (int64_t[]){ n, n }), out));
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      gq_tensor_set(*out, (int64_t[GQ_MAXDIM]){ i, j }, j < i ? below : j > i ? above : on);
  return GQ_OK;
}

/* ---- op(A) X = B ---- */

/* b_ = op(A)^-T c, a_ = -b_ X', or its transpose */
static int solve_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  linear *f = (linear *)c;
  gq_tensor *x = NULL;
  GQ_TRY(unchanged(f));
  int status = gq_linear_solve(f->in[0], cots[0], !f->turned, &grads[1]);
  if (status == GQ_OK)
    status = create_graph ? gq_linear_solve(f->in[0], f->in[1], f->turned, &x)
                          : (x = gq_tensor_ref(f->out[0]), GQ_OK);
  gq_graph *g = begin(&status);
  if (g) {
    gq_ref b = input(g, grads[1]), y = input(g, x);
    gq_ref a = f->turned ? gq_matmul(g, y, b, GQ_TB) : gq_matmul(g, b, y, GQ_TB);
    status = evaluate(g, (gq_tensor *[]){ grads[1], x }, gq_emit1(g, GQ_OP_NEG, a), &grads[0]);
  }
  gq_tensor_unref(x);
  return status;
}

int gq_linear_solve(gq_tensor *a, gq_tensor *b, bool turned, gq_tensor **out) {
  matrices m;
  linear *f;
  char p[200], q[200];
  *out = NULL;
  GQ_TRY(check_square(a, "solve", &m));
  int rank = a->shape.ndim;
  gq_shape want = a->shape;
  if (b->shape.ndim == rank) want.dim[rank - 1] = b->shape.dim[rank - 1];
  if (!gq_shape_equal(want, b->shape) || a->dtype != b->dtype || want.dim[rank - 1] > INT32_MAX)
    return gq_fail(
      GQ_ESHAPE, "solve: right-hand sides {..., n, k} of the matrices' dtype expected for %s, got %s %s",
      gq_shape_text(a->shape, p, sizeof p), gq_dtype_name(b->dtype), gq_shape_text(b->shape, q, sizeof q));
  GQ_TRY(linear_new((gq_custom){ "solve", solve_backward, linear_free, false }, a, b, &f));
  f->turned = turned;
  int status = gq_tensor_empty(m.d, want, out);
  if (status == GQ_OK)
    status = solve_all(m, gq_tensor_data(f->packed[0]), gq_tensor_data(f->packed[1]), (int)want.dim[rank - 1],
                       turned, gq_tensor_data(*out));
  return finish(f, status, 1, out);
}

/* ---- determinants ---- */

/* det A A^-T of what has an inverse, recorded */
static int cofactors_recorded(gq_tensor *a, gq_tensor **out) {
  gq_tensor *one = NULL, *all = NULL, *det = NULL, *inverse = NULL;
  gq_shape s = a->shape, column = s;
  column.dim[s.ndim - 1] = column.dim[s.ndim - 2] = 1;
  int status = pattern(a->dtype, s.dim[s.ndim - 1], 0, 1, 0, &one);
  if (status == GQ_OK) status = gq_op_call(GQ_OP_EXPAND, 1, &one, &(gq_attr){ .shape = s }, &all);
  if (status == GQ_OK) status = gq_linear_solve(a, all, true, &inverse);
  if (status == GQ_EARG)
    status = gq_fail(
      GQ_EARG, "det: a matrix is singular, and derivatives of its gradient (create_graph) need an inverse");
  if (status == GQ_OK) status = gq_linear_det(a, &det);
  gq_graph *g = begin(&status);
  if (g) {
    gq_ref v = input(g, inverse), y = gq_reshape(g, input(g, det), column);
    status = evaluate(g, (gq_tensor *[]){ inverse, det }, gq_emit2(g, GQ_OP_MUL, v, y), out);
  }
  gq_tensor_unref(one), gq_tensor_unref(all), gq_tensor_unref(det), gq_tensor_unref(inverse);
  return status;
}

static int cofactors(gq_tensor *a, gq_tensor **out) {
  matrices m;
  gq_tensor *packed = NULL;
  GQ_TRY(check_square(a, "det", &m));
  GQ_TRY(gq_tensor_contiguous_get(a, &packed));
  int status = gq_tensor_empty(m.d, a->shape, out);
  if (status == GQ_OK) status = cofactors_all(m, gq_tensor_data(packed), gq_tensor_data(*out));
  gq_tensor_unref(packed);
  return status;
}

/* The cofactors of A, times c. */
static int det_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  linear *f = (linear *)c;
  gq_tensor *all = NULL;
  gq_shape s = f->in[0]->shape, column = s;
  GQ_TRY(unchanged(f));
  column.dim[s.ndim - 1] = column.dim[s.ndim - 2] = 1;
  int status = create_graph ? cofactors_recorded(f->in[0], &all) : cofactors(f->in[0], &all);
  gq_graph *g = begin(&status);
  if (g) {
    gq_ref v = input(g, all), ct = gq_reshape(g, input(g, cots[0]), column);
    status = evaluate(g, (gq_tensor *[]){ all, cots[0] }, gq_emit2(g, GQ_OP_MUL, v, ct), &grads[0]);
  }
  gq_tensor_unref(all);
  return status;
}

int gq_linear_det(gq_tensor *a, gq_tensor **out) {
  matrices m;
  linear *f;
  *out = NULL;
  GQ_TRY(check_square(a, "det", &m));
  gq_shape s = a->shape;
  s.ndim -= 2;
  GQ_TRY(linear_new((gq_custom){ "det", det_backward, linear_free, false }, a, NULL, &f));
  int status = gq_tensor_empty(m.d, s, out);
  if (status == GQ_OK && m.n == 0) status = gq_tensor_fill(*out, 1);
  if (status == GQ_OK) status = det_all(m, gq_tensor_data(f->packed[0]), *out);
  return finish(f, status, 1, out);
}

/* ---- A = L L' ---- */

/* L^-T P L^-1, symmetrised, where P is the lower half of L'c with half its diagonal */
static int cholesky_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  linear *f = (linear *)c;
  gq_tensor *l = NULL, *lower = NULL, *half = NULL, *p = NULL, *left = NULL, *flipped = NULL, *both = NULL;
  gq_dtype d = f->in[0]->dtype;
  int64_t n = f->in[0]->shape.dim[f->in[0]->shape.ndim - 1];
  GQ_TRY(unchanged(f));
  int status = create_graph ? gq_linear_cholesky(f->in[0], &l) : (l = gq_tensor_ref(f->out[0]), GQ_OK);
  if (status == GQ_OK) status = pattern(d, n, 1, 1, 0, &lower);
  if (status == GQ_OK) status = pattern(d, n, 1, 0.5, 0, &half);
  gq_graph *g = begin(&status);
  if (g) {
    gq_ref y = input(g, l), ct = input(g, cots[0]), low = input(g, lower), h = input(g, half);
    gq_ref s = gq_matmul(g, y, gq_emit2(g, GQ_OP_MUL, ct, low), GQ_TA);
    status = evaluate(g, (gq_tensor *[]){ l, cots[0], lower, half }, gq_emit2(g, GQ_OP_MUL, s, h), &p);
  }
  if (status == GQ_OK) status = gq_linear_solve(l, p, true, &left);
  g = begin(&status);
  if (g) status = evaluate(g, &left, transpose(g, input(g, left)), &flipped);
  if (status == GQ_OK) status = gq_linear_solve(l, flipped, true, &both);
  g = begin(&status);
  if (g) {
    gq_ref x = input(g, both);
    status = evaluate(g, &both, gq_scale(g, gq_emit2(g, GQ_OP_ADD, x, transpose(g, x)), 0.5), &grads[0]);
  }
  gq_tensor *all[] = { l, lower, half, p, left, flipped, both };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) gq_tensor_unref(all[i]);
  return status;
}

int gq_linear_cholesky(gq_tensor *a, gq_tensor **out) {
  matrices m;
  linear *f;
  *out = NULL;
  GQ_TRY(check_square(a, "cholesky", &m));
  GQ_TRY(linear_new((gq_custom){ "cholesky", cholesky_backward, linear_free, false }, a, NULL, &f));
  int status = gq_tensor_empty(m.d, a->shape, out);
  if (status == GQ_OK) status = cholesky_all(m, gq_tensor_data(f->packed[0]), gq_tensor_data(*out));
  return finish(f, status, 1, out);
}

/* ---- A = V w V' ---- */

/* V (diag(w_) + F o V'v_) V' with F_ij = 1 / (w_j - w_i), 0 on the diagonal */
static int eigh_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  linear *f = (linear *)c;
  gq_tensor *y[2] = { NULL, NULL }, *one = NULL, *off = NULL;
  gq_shape s = f->in[0]->shape, row = s, column = s;
  int n = s.ndim;
  GQ_TRY(unchanged(f));
  if (!cots[0] && !cots[1]) return GQ_OK;
  row.dim[n - 2] = 1, column.dim[n - 1] = 1;
  int status = create_graph ? gq_linear_eigh(f->in[0], y) : GQ_OK;
  for (int i = 0; i < 2 && !create_graph; i++) y[i] = gq_tensor_ref(f->out[i]);
  if (status == GQ_OK) status = pattern(f->in[0]->dtype, s.dim[n - 1], 0, 1, 0, &one);
  if (status == GQ_OK) status = pattern(f->in[0]->dtype, s.dim[n - 1], 1, 0, 1, &off);
  gq_graph *g = begin(&status);
  if (g) {
    gq_tensor *in[] = { y[0], y[1], one, off, cots[0] ? cots[0] : y[0], cots[1] ? cots[1] : y[1] };
    gq_ref r[6], sum = GQ_NONE;
    for (int i = 0; i < 6; i++) r[i] = input(g, in[i]);
    if (cots[0]) sum = gq_emit2(g, GQ_OP_MUL, gq_reshape(g, r[4], row), r[2]);
    if (cots[1]) {
      gq_ref gap = gq_emit2(g, GQ_OP_SUB, gq_reshape(g, r[0], row), gq_reshape(g, r[0], column));
      gq_ref turned = gq_emit2(g, GQ_OP_DIV, r[3], gq_emit2(g, GQ_OP_ADD, gap, r[2]));
      turned = gq_emit2(g, GQ_OP_MUL, turned, gq_matmul(g, r[1], r[5], GQ_TA));
      sum = sum == GQ_NONE ? turned : gq_emit2(g, GQ_OP_ADD, sum, turned);
    }
    status = evaluate(g, in, gq_matmul(g, gq_matmul(g, r[1], sum, 0), r[1], GQ_TB), &grads[0]);
  }
  gq_tensor_unref(y[0]), gq_tensor_unref(y[1]), gq_tensor_unref(one), gq_tensor_unref(off);
  return status;
}

int gq_linear_eigh(gq_tensor *a, gq_tensor *out[2]) {
  matrices m;
  linear *f;
  out[0] = out[1] = NULL;
  GQ_TRY(check_square(a, "eigh", &m));
  gq_shape s = a->shape;
  s.ndim--;
  GQ_TRY(linear_new((gq_custom){ "eigh", eigh_backward, linear_free, false }, a, NULL, &f));
  int status = gq_tensor_empty(m.d, s, &out[0]);
  if (status == GQ_OK) status = gq_tensor_empty(m.d, a->shape, &out[1]);
  if (status == GQ_OK)
    status = eigh_all(m, gq_tensor_data(f->packed[0]), gq_tensor_data(out[0]), gq_tensor_data(out[1]));
  return finish(f, status, 2, out);
}
