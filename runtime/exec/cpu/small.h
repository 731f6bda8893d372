/*
** small.h -- products of matrices that a general library spends on packing and dispatch:
** c (+)= op(a) b for row-major b, a block of rows times a panel of up to three vectors at a time, and
** c (+)= a b' with sums along the rows of both, all sums in registers. Included by kernels.c for float32 and
** float64.
*/

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
enum { WIDTH_f32 = 8, WIDTH_f64 = 4 };
typedef __m256 vec_f32;
typedef __m256d vec_f64;
typedef __m256i mask_f32, mask_f64;
#define VFMA_f32 _mm256_fmadd_ps
#define VFMA_f64 _mm256_fmadd_pd
#define VSET_f32 _mm256_set1_ps
#define VSET_f64 _mm256_set1_pd
#define VLOAD_f32 _mm256_loadu_ps
#define VLOAD_f64 _mm256_loadu_pd
#define VSTORE_f32 _mm256_storeu_ps
#define VSTORE_f64 _mm256_storeu_pd
#define VPART_f32 _mm256_maskload_ps
#define VPART_f64 _mm256_maskload_pd
static inline mask_f32 first_f32(size_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline mask_f64 first_f64(size_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)n), _mm256_setr_epi64x(0, 1, 2, 3));
}
/* The first n numbers in halves: masked stores are slow on many processors. */
static inline void VPUT_f32(float *p, size_t n, __m256 v) {
  __m128 x = _mm256_castps256_ps128(v);
  if (n & 4) {
    _mm_storeu_ps(p, x);
    x = _mm256_extractf128_ps(v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi((__m64 *)(void *)p, x);
    x = _mm_movehl_ps(x, x);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, x);
}
static inline void VPUT_f64(double *p, size_t n, __m256d v) {
  __m128d x = _mm256_castpd256_pd128(v);
  if (n & 2) {
    _mm_storeu_pd(p, x);
    x = _mm256_extractf128_pd(v, 1);
    p += 2;
  }
  if (n & 1) _mm_store_sd(p, x);
}
static inline float VSUM_f32(__m256 v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline double VSUM_f64(__m256d v) {
  __m128d x = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)));
}
/* A square block of numbers, transposed. */
static inline void turn_block_f32(vec_f32 x[8]) {
  vec_f32 a[8], b[8];
  for (int i = 0; i < 8; i += 2)
    a[i] = _mm256_unpacklo_ps(x[i], x[i + 1]), a[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44), b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44), b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++)
    x[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20), x[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
}
static inline void turn_block_f64(vec_f64 x[4]) {
  vec_f64 a = _mm256_unpacklo_pd(x[0], x[1]), b = _mm256_unpackhi_pd(x[0], x[1]);
  vec_f64 c = _mm256_unpacklo_pd(x[2], x[3]), d = _mm256_unpackhi_pd(x[2], x[3]);
  x[0] = _mm256_permute2f128_pd(a, c, 0x20), x[1] = _mm256_permute2f128_pd(b, d, 0x20);
  x[2] = _mm256_permute2f128_pd(a, c, 0x31), x[3] = _mm256_permute2f128_pd(b, d, 0x31);
}
#else
enum { WIDTH_f32 = 4, WIDTH_f64 = 2 };
typedef float vec_f32 __attribute__((vector_size(16)));
typedef double vec_f64 __attribute__((vector_size(16)));
typedef size_t mask_f32, mask_f64;   /* how many of the first numbers */
#define PLAIN(S, T)                                                                                    \
  static inline vec_##S VFMA_##S(vec_##S x, vec_##S y, vec_##S z) { return x * y + z; }                \
  static inline vec_##S VSET_##S(T x) { return (vec_##S){0} + x; }                                     \
  static inline vec_##S VLOAD_##S(const T *p) { vec_##S v; memcpy(&v, p, sizeof v); return v; }        \
  static inline void VSTORE_##S(T *p, vec_##S v) { memcpy(p, &v, sizeof v); }                          \
  static inline mask_##S first_##S(size_t n) { return n; }                                             \
  static inline T VSUM_##S(vec_##S v) {                                                                \
    T s = v[0];                                                                                        \
    for (int i = 1; i < WIDTH_##S; i++) s += v[i];                                                     \
    return s;                                                                                          \
  }                                                                                                    \
  static inline vec_##S VPART_##S(const T *p, mask_##S n) {                                            \
    vec_##S v = {0};                                                                                   \
    for (size_t i = 0; i < n; i++) v[i] = p[i];                                                        \
    return v;                                                                                          \
  }                                                                                                    \
  static inline void VPUT_##S(T *p, size_t n, vec_##S v)  {                                           \
    for (size_t i = 0; i < n; i++) p[i] = v[i];                                                        \
  }
PLAIN(f32, float)
PLAIN(f64, double)
static inline void turn_block_f32(vec_f32 x[4]) {
#define MIX __builtin_shufflevector
  vec_f32 ab = MIX(x[0], x[1], 0, 4, 1, 5), AB = MIX(x[0], x[1], 2, 6, 3, 7);
  vec_f32 cd = MIX(x[2], x[3], 0, 4, 1, 5), CD = MIX(x[2], x[3], 2, 6, 3, 7);
  x[0] = MIX(ab, cd, 0, 1, 4, 5), x[1] = MIX(ab, cd, 2, 3, 6, 7);
  x[2] = MIX(AB, CD, 0, 1, 4, 5), x[3] = MIX(AB, CD, 2, 3, 6, 7);
#undef MIX
}
static inline void turn_block_f64(vec_f64 x[2]) {
  vec_f64 a = { x[0][0], x[1][0] }, b = { x[0][1], x[1][1] };
  x[0] = a, x[1] = b;
}
#endif

#ifdef __AVX512VL__
enum { ROWS = 8 };    /* 32 registers: 24 sums, 3 of b, one of a */
#else
enum { ROWS = 4 };    /* 16 registers: 12 sums, 3 of b, one of a */
#endif
enum { DEPTH = 256 }; /* terms summed before they are added to c: rounding stays small */

/* `part`: the last vector has the first numbers only */
#define SMALL(S, T)                                                                                            \
  static inline __attribute__((always_inline)) void block_##S(                                                 \
      int rows, int nv, bool part, size_t rest, mask_##S m, const gq_small *p, const T *a, const T *b,         \
      const T *column, T *c, size_t depth, bool add) {                                                         \
    const size_t ars = p->ars, acs = p->acs, ldb = p->ldb, ldc = p->ldc;                                       \
    vec_##S sum[8][3], v[3];                                                                                   \
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++) {                                                   \
      vec_##S x = column ? VSET_##S(column[(size_t)i * p->cs]) : (vec_##S){0};                                 \
      _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) sum[i][j] = x;                                      \
    }                                                                                                          \
    for (size_t k = 0; k < depth; k++, a += acs, b += ldb) {                                                   \
      _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) {                                                   \
        if (part && j == nv - 1) v[j] = VPART_##S(b + j * WIDTH_##S, m);                                       \
        else v[j] = VLOAD_##S(b + j * WIDTH_##S);                                                              \
      }                                                                                                        \
      _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++) {                                                 \
        vec_##S x = VSET_##S(a[(size_t)i * ars]);                                                              \
        _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) sum[i][j] = VFMA_##S(x, v[j], sum[i][j]);         \
      }                                                                                                        \
    }                                                                                                          \
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)                                                     \
      _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) {                                                   \
        T *to = c + (size_t)i * ldc + j * WIDTH_##S;                                                           \
        if (part && j == nv - 1) {                                                                             \
          if (add) sum[i][j] += VPART_##S(to, m);                                                              \
          VPUT_##S(to, rest, sum[i][j]);                                                                       \
        } else {                                                                                               \
          if (add) sum[i][j] += VLOAD_##S(to);                                                                 \
          VSTORE_##S(to, sum[i][j]);                                                                           \
        }                                                                                                      \
      }                                                                                                        \
  }                                                                                                            \
  static void rows_##S(const gq_small *s, size_t w, const T *a, const T *b, const T *column, T *c,             \
                       size_t depth, bool add) {                                                               \
    const gq_small here = *s, *const p = &here; /* no store to c can change it */                              \
    size_t rest = w % WIDTH_##S, i = 0;                                                                        \
    mask_##S mask = first_##S(rest);                                                                           \
    switch ((w - 1) / WIDTH_##S * 2 + (rest != 0)) {                                                           \
      case 0: SMALL_ROWS(S, 1, false) break;                                                                   \
      case 1: SMALL_ROWS(S, 1, true) break;                                                                    \
      case 2: SMALL_ROWS(S, 2, false) break;                                                                   \
      case 3: SMALL_ROWS(S, 2, true) break;                                                                    \
      case 4: SMALL_ROWS(S, 3, false) break;                                                                   \
      default: SMALL_ROWS(S, 3, true)                                                                          \
    }                                                                                                          \
  }                                                                                                            \
  static void small_##S(const gq_small *p, const void *pa, const void *pb, const void *pcolumn, void *pc,      \
                        bool add) {                                                                            \
    enum { W = WIDTH_##S };                                                                                    \
    const T *a = pa, *b = pb, *column = pcolumn;                                                               \
    T *c = pc;                                                                                                 \
    const size_t n = p->n, depth = p->k;                                                                       \
    for (size_t k = 0; k < depth; k += DEPTH)                                                                  \
      for (size_t j = 0, w; j < n; j += w) {                                                                   \
        size_t left = n - j, d = depth - k < DEPTH ? depth - k : DEPTH;                                        \
        w = left > 4 * W || left <= 3 * W ? 3 * W : 2 * W; /* one vector alone would wait for its sums */      \
        if (w > left) w = left;                                                                                \
        rows_##S(p, w, a + k * p->acs, b + k * p->ldb + j, k ? NULL : column, c + j, d, add || k > 0);         \
      }                                                                                                        \
  }
#define SMALL_CALL(S, R, nv, part) \
  for (; i + R <= p->m; i += R)    \
  block_##S(R, nv, part, rest, mask, p, a + i * p->ars, b, column ? column + i * p->cs : NULL, c + i * p->ldc, \
            depth, add)
#define SMALL_ROWS(S, nv, part)     \
  SMALL_CALL(S, ROWS, nv, part);    \
  SMALL_CALL(S, 4, nv, part);       \
  SMALL_CALL(S, 2, nv, part);       \
  SMALL_CALL(S, 1, nv, part);
SMALL(f32, float)
SMALL(f64, double)

/* A sum of vectors, nv at a time: each term is rounded, then added, as madd does. */
#define COMBINE(S, T)                                                                                          \
  static inline __attribute__((always_inline)) void combine_block_##S(                                         \
      int nv, size_t rest, size_t at, int k, const T *s, const void *const *x, const T *y_, T *out) {          \
    vec_##S sum[4];                                                                                            \
    const mask_##S m = first_##S(rest);                                                                        \
    const T *first = y_ ? y_ : x[0];                                                                           \
    _Pragma("GCC unroll 4") for (int j = 0; j < nv; j++) {                                                     \
      sum[j] = COMBINE_LOAD(S, first);                                                                         \
      if (!y_) sum[j] = VSET_##S(s[0]) * sum[j];                                                               \
    }                                                                                                          \
    for (int i = y_ ? 0 : 1; i < k; i++) {                                                                     \
      const T *p = x[i];                                                                                       \
      vec_##S w = VSET_##S(s[i]);                                                                              \
      _Pragma("GCC unroll 4") for (int j = 0; j < nv; j++) sum[j] = sum[j] + w * COMBINE_LOAD(S, p);           \
    }                                                                                                          \
    _Pragma("GCC unroll 4") for (int j = 0; j < nv; j++) {                                                     \
      if (rest && j == nv - 1) VPUT_##S(out + at + j * WIDTH_##S, rest, sum[j]);                               \
      else VSTORE_##S(out + at + j * WIDTH_##S, sum[j]);                                                       \
    }                                                                                                          \
  }                                                                                                            \
  static void combine_##S(size_t n, int k, const void *scale, const void *const *x, const void *y_, void *o) { \
    enum { W = WIDTH_##S };                                                                                    \
    const T *s = scale, *y = y_;                                                                               \
    T *out = o;                                                                                                \
    size_t at = 0, rest = n % W;                                                                               \
    for (; n - at >= 4 * W; at += 4 * W) combine_block_##S(4, 0, at, k, s, x, y, out);                         \
    switch ((n - at) / W * 2 + (rest != 0)) {                                                                  \
      case 1: combine_block_##S(1, rest, at, k, s, x, y, out); break;                                          \
      case 2: combine_block_##S(1, 0, at, k, s, x, y, out); break;                                             \
      case 3: combine_block_##S(2, rest, at, k, s, x, y, out); break;                                          \
      case 4: combine_block_##S(2, 0, at, k, s, x, y, out); break;                                             \
      case 5: combine_block_##S(3, rest, at, k, s, x, y, out); break;                                          \
      case 6: combine_block_##S(3, 0, at, k, s, x, y, out); break;                                             \
      case 7: combine_block_##S(4, rest, at, k, s, x, y, out); break;                                          \
      default: break;                                                                                          \
    }                                                                                                          \
  }
#define COMBINE_LOAD(S, p) \
  (rest && j == nv - 1 ? VPART_##S((p) + at + j * WIDTH_##S, m) : VLOAD_##S((p) + at + j * WIDTH_##S))
COMBINE(f32, float)
COMBINE(f64, double)

/* The same sums for a few rows of a and the rows of b, b[j * ldb + k] */
#define CROSSED(S, T)                                                                                          \
  static void crossed_##S(const gq_small *p, const void *pa, const void *pb, const void *column_, void *pc,    \
                          bool add) {                                                                          \
    enum { W = WIDTH_##S };                                                                                    \
    const size_t rows = p->m, depth = p->k, n = p->n;                                                          \
    for (size_t j = 0; j < n; j += W) {                                                                        \
      const T *b = (const T *)pb + j * p->ldb;                                                                 \
      const size_t w = n - j < W ? n - j : W;                                                                  \
      T *c = (T *)pc + j;                                                                                      \
      vec_##S sum[GQ_CROSSED];                                                                                 \
      for (size_t i = 0; i < rows; i++)                                                                        \
        sum[i] = column_ ? VSET_##S(((const T *)column_)[i * p->cs]) : (vec_##S){0};                           \
      for (size_t k = 0; k < depth; k += W) {                                                                  \
        const T *a = (const T *)pa + k * p->acs;                                                               \
        const size_t d = depth - k < W ? depth - k : W;                                                        \
        const mask_##S mask = first_##S(d);                                                                    \
        vec_##S v[W];                                                                                          \
        _Pragma("GCC unroll 8") for (size_t i = 0; i < W; i++)                                                 \
          v[i] = i < w ? VPART_##S(b + i * p->ldb + k, mask) : (vec_##S){0};                                   \
        turn_block_##S(v);                                                                                     \
        for (size_t i = 0; i < rows; i++, a += p->ars) {                                                       \
          vec_##S x = sum[i];                                                                                  \
          _Pragma("GCC unroll 8") for (size_t q = 0; q < W; q++) {                                             \
            if (q == d) break;                                                                                 \
            x = VFMA_##S(VSET_##S(a[q * p->acs]), v[q], x);                                                    \
          }                                                                                                    \
          sum[i] = x;                                                                                          \
        }                                                                                                      \
      }                                                                                                        \
      for (size_t i = 0; i < rows; i++, c += p->ldc) {                                                         \
        if (add) sum[i] += VPART_##S(c, first_##S(w));                                                         \
        if (w == W) VSTORE_##S(c, sum[i]);                                                                     \
        else VPUT_##S(c, w, sum[i]);                                                                           \
      }                                                                                                        \
    }                                                                                                          \
  }
CROSSED(f32, float)
CROSSED(f64, double)

/* One column: c[i * ldc] (+)= sum_k a[i * lda + k] b[k] */
#define DOTS(S, T)                                                                                             \
  static void dots_##S(const void *pa, size_t lda, const void *pb, void *pc, size_t ldc, size_t m, size_t n,   \
                       bool add) {                                                                             \
    enum { W = WIDTH_##S };                                                                                    \
    const T *a = pa, *b = pb;                                                                                  \
    T *c = pc;                                                                                                 \
    mask_##S mask = first_##S(n % W);                                                                          \
    for (size_t i = 0; i < m; i++, a += lda, c += ldc) {                                                       \
      vec_##S sum = (vec_##S){0};                                                                               \
      size_t k = 0;                                                                                            \
      for (; k + W <= n; k += W) sum = VFMA_##S(VLOAD_##S(a + k), VLOAD_##S(b + k), sum);                      \
      if (k < n) sum = VFMA_##S(VPART_##S(a + k, mask), VPART_##S(b + k, mask), sum);                          \
      *c = add ? *c + VSUM_##S(sum) : VSUM_##S(sum);                                                           \
    }                                                                                                          \
  }
DOTS(f32, float)
DOTS(f64, double)

/* rows of a times cols of b, over the first `depth` numbers of each: WIDTH partial sums a cell */
#define INNER(S, T)                                                                                            \
  static inline __attribute__((always_inline)) void cell_##S(int rows, int cols, const T *a, size_t lda,       \
                                                             const T *b, size_t ldb, T *c, size_t crs,         \
                                                             size_t ccs, size_t depth, bool add) {             \
    enum { W = WIDTH_##S };                                                                                    \
    vec_##S sum[4][3], v[3];                                                                                   \
    size_t k = 0;                                                                                              \
    _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++)                                                     \
      _Pragma("GCC unroll 3") for (int j = 0; j < cols; j++) sum[i][j] = (vec_##S){0};                         \
    for (; k + W <= depth; k += W) {                                                                           \
      _Pragma("GCC unroll 3") for (int j = 0; j < cols; j++) v[j] = VLOAD_##S(b + (size_t)j * ldb + k);        \
      _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++) {                                                 \
        vec_##S x = VLOAD_##S(a + (size_t)i * lda + k);                                                        \
        _Pragma("GCC unroll 3") for (int j = 0; j < cols; j++) sum[i][j] = VFMA_##S(x, v[j], sum[i][j]);       \
      }                                                                                                        \
    }                                                                                                          \
    if (k < depth) {                                                                                           \
      mask_##S mask = first_##S(depth - k);                                                                    \
      _Pragma("GCC unroll 3") for (int j = 0; j < cols; j++) v[j] = VPART_##S(b + (size_t)j * ldb + k, mask);  \
      _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++) {                                                 \
        vec_##S x = VPART_##S(a + (size_t)i * lda + k, mask);                                                  \
        _Pragma("GCC unroll 3") for (int j = 0; j < cols; j++) sum[i][j] = VFMA_##S(x, v[j], sum[i][j]);       \
      }                                                                                                        \
    }                                                                                                          \
    _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++)                                                     \
      _Pragma("GCC unroll 3") for (int j = 0; j < cols; j++) {                                                 \
        T *to = c + (size_t)i * crs + (size_t)j * ccs, x = VSUM_##S(sum[i][j]);                                \
        *to = add ? *to + x : x;                                                                               \
      }                                                                                                        \
  }                                                                                                            \
  static void inner_##S(const void *pa, size_t lda, const void *pb, size_t ldb, void *pc, size_t crs,          \
                        size_t ccs, size_t m, size_t n, size_t depth, bool add) {                              \
    size_t block = n <= 3 ? depth : 2 * DEPTH;                                                                 \
    for (size_t k = 0; k < depth; k += block)                                                                  \
      for (size_t i = 0; i < m;) {                                                                             \
        size_t d = depth - k < block ? depth - k : block, rows = m - i >= 4 ? 4 : m - i >= 2 ? 2 : 1;                           \
        const T *a = (const T *)pa + i * lda + k;                                                              \
        for (size_t j = 0; j < n;) {                                                                           \
          size_t cols = n - j >= 3 ? 3 : n - j;                                                                \
          const T *b = (const T *)pb + j * ldb + k;                                                            \
          T *c = (T *)pc + i * crs + j * ccs;                                                                  \
          switch (4 * (rows / 2) + cols) {                                                                    \
            case 1: cell_##S(1, 1, a, lda, b, ldb, c, crs, ccs, d, add || k); break;                           \
            case 2: cell_##S(1, 2, a, lda, b, ldb, c, crs, ccs, d, add || k); break;                           \
            case 3: cell_##S(1, 3, a, lda, b, ldb, c, crs, ccs, d, add || k); break;                           \
            case 5: cell_##S(2, 1, a, lda, b, ldb, c, crs, ccs, d, add || k); break;                           \
            case 6: cell_##S(2, 2, a, lda, b, ldb, c, crs, ccs, d, add || k); break;                           \
            case 7: cell_##S(2, 3, a, lda, b, ldb, c, crs, ccs, d, add || k); break;                           \
            case 9: cell_##S(4, 1, a, lda, b, ldb, c, crs, ccs, d, add || k); break;                           \
            case 10: cell_##S(4, 2, a, lda, b, ldb, c, crs, ccs, d, add || k); break;                          \
            default: cell_##S(4, 3, a, lda, b, ldb, c, crs, ccs, d, add || k);                                 \
          }                                                                                                    \
          j += cols;                                                                                           \
        }                                                                                                      \
        i += rows;                                                                                             \
      }                                                                                                        \
  }
INNER(f32, float)
INNER(f64, double)

enum { STREAM = 1024 }; /* numbers of a row of b that are read at once, four rows side by side */

/* A few rows: c[i * ldc + j] (+)= sum_k a[i * ars + k * acs] b[k * ldb + j], b read once, row by row */
#define STREAMED(S, T)                                                                                         \
  static void streamed_##S(const void *pa, size_t ars, size_t acs, const void *pb, size_t ldb, void *pc,       \
                           size_t ldc, size_t m, size_t n, size_t depth, bool add) {                           \
    for (size_t j = 0; j < n; j += STREAM) {                                                                   \
      size_t w = n - j < STREAM ? n - j : STREAM, k = 0;                                                       \
      for (size_t i = 0; !add && i < m; i++) memset((T *)pc + i * ldc + j, 0, w * sizeof(T));                  \
      for (; k + 4 <= depth; k += 4) {                                                                         \
        const T *b0 = (const T *)pb + k * ldb + j, *b1 = b0 + ldb, *b2 = b1 + ldb, *b3 = b2 + ldb;             \
        for (size_t i = 0; i < m; i++) {                                                                       \
          const T *a = (const T *)pa + i * ars + k * acs;                                                      \
          T *c = (T *)pc + i * ldc + j, x0 = a[0], x1 = a[acs], x2 = a[2 * acs], x3 = a[3 * acs];              \
          APART for (size_t q = 0; q < w; q++)                                                                 \
            c[q] += x0 * b0[q] + x1 * b1[q] + (x2 * b2[q] + x3 * b3[q]);                                       \
        }                                                                                                      \
      }                                                                                                        \
      for (; k < depth; k++)                                                                                   \
        for (size_t i = 0; i < m; i++) {                                                                       \
          const T *b = (const T *)pb + k * ldb + j, x = ((const T *)pa)[i * ars + k * acs];                    \
          T *c = (T *)pc + i * ldc + j;                                                                        \
          APART for (size_t q = 0; q < w; q++) c[q] += x * b[q];                                               \
        }                                                                                                      \
    }                                                                                                          \
  }
STREAMED(f32, float)
STREAMED(f64, double)
