/*
** vec.c -- the calls of vec.h: plain loops, without contraction, so that every build gives the same bits.
*/
#include "cpu.h"

#include <math.h>
#include <string.h>

#define EACH for (size_t i = 0; i < n; i++)

enum { BLOCK = 16 }; /* numbers whose count the compiler knows, so that they are done as vectors */

/* NAME_f32 and NAME_f64, and NAME that picks one. */
#define BOTH(M) M(f32, float) M(f64, double)
#define PICK(name, d, ...) ((d) == GQ_F32 ? name##_f32(__VA_ARGS__) : name##_f64(__VA_ARGS__))

static void axpy(gq_dtype d, size_t n, double s, const void *src, void *dst) {
  float s32 = (float)s;
  if (n) gq_cpu()->madd[d][GQ_MADD](dst, src, dst, d == GQ_F32 ? (const void *)&s32 : &s, n);
}

#define STRIDED(S, T)                                                                  \
  static void add_##S(size_t n, T s, const T *src, size_t from, T *dst, size_t to) {   \
    if (from == 1 && to == 1) EACH dst[i] += s * src[i];                               \
    else EACH dst[i * to] += s * src[i * from];                                        \
  }                                                                                    \
  static void scale_##S(size_t n, T s, const T *src, size_t from, T *dst, size_t to) { \
    if (from == 1 && to == 1) EACH dst[i] = s * src[i];                                \
    else EACH dst[i * to] = s * src[i * from];                                         \
  }
BOTH(STRIDED)

static void add(gq_dtype d, size_t n, double s, const void *src, size_t from, void *dst, size_t to) {
  PICK(add, d, n, s, src, from, dst, to);
}

static void scale(gq_dtype d, size_t n, double s, const void *src, size_t from, void *dst, size_t to) {
  PICK(scale, d, n, s, src, from, dst, to);
}

#define WEIGHTED(S, T)                                                                                       \
  static inline __attribute__((always_inline)) void weigh_##S(                                               \
    size_t n, const T *x, const T *minus_, const T *y, double atol, double rtol, double *sum, double *top) { \
    double v[BLOCK], all = *sum, largest = *top;                                                             \
    EACH v[i] = (double)x[i];                                                                                \
    if (minus_) EACH v[i] -= (double)minus_[i];                                                              \
    EACH v[i] = fabs(v[i] / (atol + rtol * fabs((double)y[i])));                                             \
    EACH {                                                                                                   \
      all += v[i] * v[i];                                                                                    \
      if (!(v[i] <= largest)) largest = v[i];                                                                \
    }                                                                                                        \
    *sum = all, *top = largest;                                                                              \
  }                                                                                                          \
  static void weighted_##S(size_t n, const T *x, const T *minus_, const T *y, double atol, double rtol,      \
                           double *sum, double *top) {                                                       \
    *sum = *top = 0;                                                                                         \
    for (; n >= BLOCK; n -= BLOCK, x += BLOCK, y += BLOCK, minus_ += minus_ ? BLOCK : 0)                     \
      weigh_##S(BLOCK, x, minus_, y, atol, rtol, sum, top);                                                  \
    weigh_##S(n % BLOCK, x, minus_, y, atol, rtol, sum, top);                                                \
  }
BOTH(WEIGHTED)

#define ABS_f32 fabsf
#define ABS_f64 fabs
#define SUMS(S, T)                                                                                   \
  static double dot_##S(size_t n, const T *x, const T *y) {                                          \
    double sum = 0;                                                                                  \
    EACH sum += (double)x[i] * (double)y[i];                                                         \
    return sum;                                                                                      \
  }                                                                                                  \
  static double largest_##S(size_t n, const T *x) {                                                  \
    T top = 0;                                                                                       \
    EACH {                                                                                           \
      T v = ABS_##S(x[i]);                                                                           \
      top = v > top ? v : top;                                                                       \
    }                                                                                                \
    return (double)top;                                                                              \
  }                                                                                                  \
  static double rms_##S(size_t n, const T *x) {                                                      \
    double top = largest_##S(n, x), sum = 0;                                                         \
    for (size_t i = 0; top > 0 && i < n; i++) {                                                      \
      double v = (double)x[i] / top;                                                                 \
      sum += v * v;                                                                                  \
    }                                                                                                \
    return top * sqrt(sum / n);                                                                      \
  }                                                                                                  \
  static void apart_##S(size_t n, const T *x, const T *y, double *sum) {                             \
    EACH {                                                                                           \
      double a = (double)x[i], b = (double)y[i];                                                     \
      sum[0] += (a - b) * (a - b), sum[1] += b * b;                                                  \
    }                                                                                                \
  }                                                                                                  \
  static void joined_##S(size_t n, int k, size_t ld, void *const *x, void *const *y_, double *sum) { \
    EACH {                                                                                           \
      double v = 0;                                                                                  \
      for (int r = 0; r < k; r++) {                                                                  \
        v += (double)((const T *)x[r * ld])[i];                                                      \
        if (y_) v -= (double)((const T *)y_[r * ld])[i];                                             \
      }                                                                                              \
      *sum += v * v;                                                                                 \
    }                                                                                                \
  }
BOTH(SUMS)

static void combine(gq_dtype d, int parts, const size_t *n, int k, const double *s, void *const *at) {
  float s32[GQ_TERMS];
  double s64[GQ_TERMS];
  const void *x[GQ_TERMS];
  for (int p = 0; p < parts; p++, at += k + 2) {
    int terms = 0;
    for (int i = 0; i < k; i++)
      if (s[i] != 0) s32[terms] = (float)s[i], s64[terms] = s[i], x[terms++] = at[2 + i];
    size_t bytes = n[p] * gq_dtype_size(d);
    if (terms) gq_cpu()->combine[d](n[p], terms, d == GQ_F32 ? (void *)s32 : s64, x, at[1], at[0]);
    else if (!at[1]) memset(at[0], 0, bytes);
    else if (at[1] != at[0]) memcpy(at[0], at[1], bytes);
  }
}

static double dot(gq_dtype d, size_t n, const void *x, const void *y) { return PICK(dot, d, n, x, y); }
static double largest(gq_dtype d, size_t n, const void *x) { return PICK(largest, d, n, x); }
static void rms(gq_dtype d, size_t rows, size_t n, size_t apart, const void *x, double *out) {
  for (size_t r = 0; r < rows; r++)
    out[r] = PICK(rms, d, n, (const void *)((const char *)x + r * apart * gq_dtype_size(d)));
}

static void weighted(gq_dtype d, size_t n, const void *x, const void *minus_, const void *y, double atol,
                     double rtol, double *sum, double *top) {
  PICK(weighted, d, n, x, minus_, y, atol, rtol, sum, top);
}

static void apart(gq_dtype d, size_t n, const void *x, const void *y, double sum[2]) {
  PICK(apart, d, n, x, y, sum);
}

static void joined(gq_dtype d, size_t n, int k, size_t ld, void *const *x, void *const *y_, double *sum) {
  PICK(joined, d, n, k, ld, x, y_, sum);
}

enum { MANY = 64 }; /* numbers that are worth a look at all of them before one is singled out */

#define LOOKS(S, T)                               \
  static bool nonzero_##S(size_t n, const T *x) { \
    EACH if (x[i] != 0) return true;              \
    return false;                                 \
  }                                               \
  static size_t bad_##S(size_t n, const T *x) {   \
    EACH if (!isfinite(x[i])) return i + 1;       \
    return 0;                                     \
  }
BOTH(LOOKS)

static bool nonzero(gq_dtype d, size_t n, const void *x) { return PICK(nonzero, d, n, x); }

static size_t nonfinite(gq_dtype d, size_t n, const void *x) {
  return n >= MANY && gq_cpu_finite(d, n, x) ? 0 : PICK(bad, d, n, x);
}

/* to[i] = from[i] */
#define CONVERT(to, T, from)                                             \
  {                                                                      \
    size_t i = 0;                                                        \
    for (; i + BLOCK <= n; i += BLOCK)                                   \
      for (size_t j = 0; j < BLOCK; j++) (to)[i + j] = (T)(from)[i + j]; \
    for (; i < n; i++) (to)[i] = (T)(from)[i];                           \
  }

#define MOVES(S, T)                                                                         \
  static void fill_##S(size_t n, T value, T *dst, size_t to) { EACH dst[i * to] = value; }  \
  static void get_##S(size_t n, const T *restrict x, size_t stride, double *restrict out) { \
    if (stride == 1) CONVERT(out, double, x)                                                \
    else EACH out[i] = (double)x[i * stride];                                               \
  }                                                                                         \
  static void put_##S(size_t n, const double *restrict in, T *restrict x, size_t stride) {  \
    if (stride == 1) CONVERT(x, T, in)                                                      \
    else EACH x[i * stride] = (T)in[i];                                                     \
  }
BOTH(MOVES)

static void fill(gq_dtype d, size_t n, double value, void *dst, size_t to) {
  PICK(fill, d, n, value, dst, to);
}

static void cast(gq_dtype from, gq_dtype to, size_t n, const void *src, void *dst) {
  if (from == to) memcpy(dst, src, n * gq_dtype_size(to));
  else if (n) gq_cpu()->cast[from][to](dst, src, NULL, NULL, n);
}

static void get(gq_dtype d, size_t n, const void *x, size_t stride, double *out) {
  PICK(get, d, n, x, stride, out);
}

static void put(gq_dtype d, size_t n, const double *in, void *x, size_t stride) {
  PICK(put, d, n, in, x, stride);
}

#define SPREAD(T) \
  for (size_t i = 0; i < n; i++) ((T *)dst)[i * to] = ((const T *)src)[i * from]

static void spread(size_t size, size_t n, const void *src, size_t from, void *dst, size_t to) {
  if (size == 4) SPREAD(uint32_t);
  else if (size == 8) SPREAD(uint64_t);
  else SPREAD(uint8_t);
}

#define BLEND(S, T)                                                                          \
  static void blend_##S(size_t rows, size_t cols, const bool *taken, const T *src, T *dst) { \
    for (size_t i = 0; i < rows; i++, dst += cols, src += cols)                              \
      for (size_t j = 0; j < cols; j++) dst[j] = taken[j] ? src[j] : dst[j];                 \
  }
BOTH(BLEND)

static void blend(gq_dtype d, size_t rows, size_t cols, const bool *taken, const void *src, void *dst) {
  PICK(blend, d, rows, cols, taken, src, dst);
}

#define TURN(T)                                                                \
  do {                                                                         \
    T *to = dst;                                                               \
    const T *from = src;                                                       \
    for (size_t i = 0; i < rows; i++)                                          \
      for (size_t j = 0; j < cols; j++) to[i * cols + j] = from[j * rows + i]; \
  } while (0)

static void turn(size_t size, size_t rows, size_t cols, const void *src, void *dst) {
  if (size == 4) gq_cpu()->turn(src, (int64_t)rows, (int64_t)cols, (int64_t)rows, dst, (int64_t)cols, false);
  else if (size == 8) TURN(uint64_t);
  else TURN(uint8_t);
}

/* ---- rows ---- */

typedef struct sweep {
  gq_dtype dtype;
  const char *x;
  void *a, *b;          /* forwards means and deviations; backwards their cotangents or NULL */
  char *out_;           /* backwards: dL/dx */
  double *mean, *slope; /* [rows]; 1 / ((n - 1) deviation), 0 where that is zero */
  int64_t rows, n;
  int pieces;
} sweep;

static void row_forward(const sweep *s, int64_t i, const void *row) {
  double squares, mean = gq_cpu()->fit[s->dtype](row, (size_t)s->n, &squares);
  double deviation = sqrt(squares / (double)(s->n - 1));
  gq_set_number(s->dtype, s->a, i, s->mean[i] = mean);
  gq_set_number(s->dtype, s->b, i, deviation);
  s->slope[i] = deviation == 0 ? 0 : 1 / ((double)(s->n - 1) * deviation);
}

static void row_backward(const sweep *s, int64_t i, const void *row, void *out) {
  double base = s->a ? gq_number(s->dtype, s->a, i) / (double)s->n : 0;
  double slope = s->b ? gq_number(s->dtype, s->b, i) * s->slope[i] : 0;
  gq_cpu()->fit_pull[s->dtype](out, row, (double[]){ base, slope, s->mean[i] }, (size_t)s->n);
}

static void piece(void *ctx, int p) {
  const sweep *s = ctx;
  int64_t bytes = s->n * (int64_t)gq_dtype_size(s->dtype);
  for (int64_t i = s->rows * p / s->pieces; i < s->rows * (p + 1) / s->pieces; i++) {
    if (s->out_) row_backward(s, i, s->x + i * bytes, s->out_ + i * bytes);
    else row_forward(s, i, s->x + i * bytes);
  }
}

static void sweep_rows(sweep s, size_t rows, size_t n) {
  s.rows = (int64_t)rows, s.n = (int64_t)n;
  s.pieces = s.rows * s.n >= GQ_SHARED_NUMBERS ? gq_workers() : 1;
  if (s.pieces > 1) gq_parallel(s.pieces, piece, &s);
  else piece(&s, 0);
}

static void fit(gq_dtype d, size_t rows, size_t n, const void *x, void *saved, void *mean, void *deviation) {
  double *kept = saved;
  sweep_rows((sweep){ d, x, mean, deviation, NULL, kept, kept + rows, 0, 0, 0 }, rows, n);
}

static void fit_pull(gq_dtype d, size_t rows, size_t n, const void *x, const void *saved, const void *mean_,
                     const void *deviation_, void *out) {
  double *kept = (double *)(uintptr_t)saved; /* read only */
  sweep_rows(
    (sweep){ d, x, (void *)(uintptr_t)mean_, (void *)(uintptr_t)deviation_, out, kept, kept + rows, 0, 0, 0 },
    rows, n);
}

const gq_vectors gq_cpu_vectors = { .gauss = gq_cpu_gauss, .update = gq_cpu_update, GQ_VECTORS(GQ_VECTOR) };
