/*
** reduce.c -- sums, extremes and their positions over any axes of any layout. Floating sums
** accumulate in float64 in a fixed order, so the same data give the same bits.
*/
#include "cpu.h"

#include <string.h>

/* ---- planning: split the dims in kept and reduced, merge neighbours ---- */

static void add_dim(int *n, int64_t *dim, int64_t *stride, int64_t d, int64_t s, bool follows) {
  if (follows && stride[*n - 1] == s * d) {
    dim[*n - 1] *= d;
    stride[*n - 1] = s;
  } else {
    dim[*n] = d;
    stride[(*n)++] = s;
  }
}

typedef void (*reducer)(const gq_reduce *r, const void *x, void *out);
static const reducer table[GQ_NOP][GQ_NDTYPE];

int gq_reduce_plan(gq_reduce *r, gq_op op, gq_dtype d, const gq_layout *x, const gq_attr *attr) {
  int mask = gq_ops[op].role == GQ_PLACE ? 1 << attr->axis : attr->flags;
  int last = -1; /* was the last dim seen kept (0) or reduced (1)? */
  int64_t kept = 1, reduced = 1;
  memset(r, 0, sizeof *r);
  r->op = op;
  r->dtype = d;
  for (int i = 0; i < x->ndim; i++) {
    int red = mask >> i & 1;
    *(red ? &reduced : &kept) *= x->dim[i];
    if (x->dim[i] == 1) continue;
    if (red) add_dim(&r->nr, r->rdim, r->rstride, x->dim[i], x->stride[i], last == 1);
    else add_dim(&r->nk, r->kdim, r->kstride, x->dim[i], x->stride[i], last == 0);
    last = red;
  }
  if (op != GQ_OP_SUM && !table[op][d])
    return gq_fail(GQ_EUNSUPPORTED, "%s has no kernel on the CPU", gq_ops[op].name);
  if (op != GQ_OP_SUM && reduced == 0 && kept > 0)
    return gq_fail(GQ_ESHAPE, "%s of no numbers: the reduced axes are empty", gq_ops[op].name);
  return GQ_OK;
}

static int64_t count(int n, const int64_t *dim) {
  int64_t c = 1;
  for (int i = 0; i < n; i++) c *= dim[i];
  return c;
}

static int64_t place(int n, const int64_t *dim, const int64_t *stride, int64_t t) {
  int64_t off = 0;
  for (int i = n - 1; i > 0; i--) {
    off += t % dim[i] * stride[i];
    t /= dim[i];
  }
  return n ? off + t * stride[0] : 0;
}

/* ---- floating sums ---- */

enum { CHUNK = 512 }; /* columns summed at once */

static void put(const gq_reduce *r, void *out, int64_t i, double v, bool add) {
  if (r->dtype == GQ_F32) ((float *)out)[i] = (float)(add ? ((float *)out)[i] + v : v);
  else ((double *)out)[i] = add ? ((double *)out)[i] + v : v;
}

/* The last kept dim has unit stride: add rows to a buffer of column sums. */
static void sum_columns(const gq_reduce *r, const char *x, void *out, bool add) {
  const gq_kernels *cpu = gq_cpu();
  int64_t size = (int64_t)gq_dtype_size(r->dtype), cols = r->kdim[r->nk - 1];
  int64_t outer = count(r->nk - 1, r->kdim), pieces = r->nr ? count(r->nr - 1, r->rdim) : 1;
  int64_t rows = r->nr ? r->rdim[r->nr - 1] : 1, ld = r->nr ? r->rstride[r->nr - 1] : 0;
  double acc[CHUNK];
  for (int64_t o = 0; o < outer; o++)
    for (int64_t j = 0; j < cols; j += CHUNK) {
      int64_t w = cols - j < CHUNK ? cols - j : CHUNK;
      const char *p = x + (place(r->nk - 1, r->kdim, r->kstride, o) + j) * size;
      memset(acc, 0, (size_t)w * sizeof *acc);
      for (int64_t t = 0; t < pieces; t++)
        cpu->colsum[r->dtype](acc, p + (r->nr ? place(r->nr - 1, r->rdim, r->rstride, t) : 0) * size,
                              (size_t)rows, (size_t)w, (size_t)ld);
      for (int64_t i = 0; i < w; i++) put(r, out, o * cols + j + i, acc[i], add);
    }
}

static double sum_strided(const gq_reduce *r, const void *p, int64_t n, int64_t stride) {
  double s = 0;
  for (int64_t i = 0; i < n; i++) s += gq_number(r->dtype, p, i * stride);
  return s;
}

static void sum_rows(const gq_reduce *r, const char *x, void *out, bool add, int64_t from, int64_t end) {
  const gq_kernels *cpu = gq_cpu();
  int64_t size = (int64_t)gq_dtype_size(r->dtype);
  int64_t pieces = r->nr ? count(r->nr - 1, r->rdim) : 1;
  int64_t width = r->nr ? r->rdim[r->nr - 1] : 1, stride = r->nr ? r->rstride[r->nr - 1] : 1;
  for (int64_t i = from; i < end; i++) {
    const char *p = x + place(r->nk, r->kdim, r->kstride, i) * size;
    double s = 0;
    for (int64_t t = 0; t < pieces; t++) {
      const char *q = p + (r->nr ? place(r->nr - 1, r->rdim, r->rstride, t) : 0) * size;
      s += stride == 1 ? cpu->sum[r->dtype](q, (size_t)width) : sum_strided(r, q, width, stride);
    }
    put(r, out, i, s, add);
  }
}

typedef struct sums {
  const gq_reduce *r;
  const void *x;
  void *out;
  bool add;
  int64_t n;
  int pieces;
} sums;

static void sum_piece(void *ctx, int i) {
  const sums *s = ctx;
  sum_rows(s->r, s->x, s->out, s->add, s->n * i / s->pieces, s->n * (i + 1) / s->pieces);
}

static void sum_floats(const gq_reduce *r, const void *x, void *out, bool add) {
  bool columns = r->nk > 0 && r->kstride[r->nk - 1] == 1 && (r->nr == 0 || r->rstride[r->nr - 1] != 1);
  int64_t n = count(r->nk, r->kdim), workers = gq_workers();
  sums s = { r,   x, out,
             add, n, n * count(r->nr, r->rdim) < GQ_SHARED_NUMBERS ? 1 : (int)(n < workers ? n : workers) };
  if (columns) sum_columns(r, x, out, add);
  else gq_parallel(s.pieces, sum_piece, &s); /* each sum by one thread */
}

/* ---- integers, extremes, positions: plain loops ---- */

#define REDUCE(name, T, R, init, step, result)                                          \
  static void name(const gq_reduce *r, const void *x, void *out) {                      \
    int64_t n = count(r->nk, r->kdim), m = count(r->nr, r->rdim);                       \
    for (int64_t i = 0; i < n; i++) {                                                   \
      const T *p = (const T *)x + place(r->nk, r->kdim, r->kstride, i);                 \
      int64_t best = 0;                                                                 \
      R acc = init;                                                                     \
      for (int64_t j = 0; j < m; j++) {                                                 \
        T v = p[r->nr == 1 ? j * r->rstride[0] : place(r->nr, r->rdim, r->rstride, j)]; \
        step;                                                                           \
      }                                                                                 \
      (void)best, (void)acc;                                                            \
      result;                                                                           \
    }                                                                                   \
  }
#define FIRST (*p)
/* NaN wins, and the first NaN is where the search ends */
#define BETTER(cmp) \
  if (v cmp acc || (v != v && acc == acc)) acc = v, best = j
#define EXTREMES(S, T)                                                       \
  REDUCE(amax_##S, T, T, FIRST, BETTER(>), ((T *)out)[i] = acc)              \
  REDUCE(amin_##S, T, T, FIRST, BETTER(<), ((T *)out)[i] = acc)              \
  REDUCE(argmax_##S, T, T, FIRST, BETTER(>), ((int64_t *)out)[i] = best + 1) \
  REDUCE(argmin_##S, T, T, FIRST, BETTER(<), ((int64_t *)out)[i] = best + 1)
EXTREMES(f32, float)
EXTREMES(f64, double)
EXTREMES(i64, int64_t)
EXTREMES(bool, uint8_t)
REDUCE(sum_i64, int64_t, uint64_t, 0, acc += (uint64_t)v, ((int64_t *)out)[i] = (int64_t)acc)
REDUCE(sum_bool, uint8_t, uint64_t, 0, acc += v, ((int64_t *)out)[i] = (int64_t)acc)

#define ROW(name) \
  { name##_f32, name##_f64, name##_i64, name##_bool }
static const reducer table[GQ_NOP][GQ_NDTYPE] = { [GQ_OP_AMAX] = ROW(amax),
                                                  [GQ_OP_AMIN] = ROW(amin),
                                                  [GQ_OP_ARGMAX] = ROW(argmax),
                                                  [GQ_OP_ARGMIN] = ROW(argmin) };

void gq_reduce_run(const gq_reduce *r, const void *x, void *out, bool add) {
  if (count(r->nk, r->kdim) == 0) return;
  if (r->op != GQ_OP_SUM) table[r->op][r->dtype](r, x, out);
  else if (gq_is_float(r->dtype)) sum_floats(r, x, out, add);
  else (r->dtype == GQ_I64 ? sum_i64 : sum_bool)(r, x, out);
}
