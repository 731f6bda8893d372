/*
** tile.h -- c[i][j] (+)= sum_k x_i[off[k]] w[k][j] for up to ROWS pointers x_i and one to three vectors of j: a piece
** of a convolution, whose images are read where they are. For few j the vectors are numbers of x that follow each
** other: c[j][i] = sum_k x[off[k] + i] w[k][j], i < n. Included by kernels.c behind small.h.
*/

#define TILE(S, T)                                                                                           \
  static inline __attribute__((always_inline)) void tile_block_##S(int rows, int nv, T *c, const T *const *x,\
                                                                   const int32_t *off, size_t depth,         \
                                                                   const T *w, bool add) {                   \
    vec_##S sum[ROWS][3], v[3];                                                                              \
    const T *at[ROWS];                                                                                       \
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++) {                                                 \
      at[i] = x[i];                                                                                          \
      _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) sum[i][j] = (vec_##S){0};                         \
    }                                                                                                        \
    for (size_t k = 0; k < depth; k++, w += nv * WIDTH_##S) {                                                \
      ptrdiff_t place = off[k];                                                                              \
      _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) v[j] = VLOAD_##S(w + j * WIDTH_##S);              \
      _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++) {                                               \
        vec_##S one = VSET_##S(at[i][place]);                                                                \
        _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) sum[i][j] = VFMA_##S(one, v[j], sum[i][j]);     \
      }                                                                                                      \
    }                                                                                                        \
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)                                                   \
      _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++, c += WIDTH_##S) {                                 \
        if (add) sum[i][j] += VLOAD_##S(c);                                                                  \
        VSTORE_##S(c, sum[i][j]);                                                                            \
      }                                                                                                      \
  }                                                                                                          \
  static void tile_##S(int rows, void *c, const void *const *x, const int32_t *off, size_t depth, const void *w,\
                       size_t nv, bool add) {                                                                \
    const T *const *from = (const T *const *)x;                                                              \
    if (rows <= ROWS / 2) {                                                                                  \
      if (nv == 3) tile_block_##S(ROWS / 2, 3, c, from, off, depth, w, add);                                 \
      else if (nv == 2) tile_block_##S(ROWS / 2, 2, c, from, off, depth, w, add);                            \
      else tile_block_##S(ROWS / 2, 1, c, from, off, depth, w, add);                                         \
    } else if (nv == 3) tile_block_##S(ROWS, 3, c, from, off, depth, w, add);                                \
    else if (nv == 2) tile_block_##S(ROWS, 2, c, from, off, depth, w, add);                                  \
    else tile_block_##S(ROWS, 1, c, from, off, depth, w, add);                                               \
  }
TILE(f32, float)
TILE(f64, double)

#define LINES(S, T)                                                                                          \
  static inline __attribute__((always_inline)) void lines_block_##S(int rows, int nv, T *c, size_t ldc,      \
                                                                    const T *x, const int32_t *off,          \
                                                                    size_t depth, const T *w) {              \
    vec_##S sum[GQ_LINES][6], v[6];                                                                          \
    _Pragma("GCC unroll 6") for (int j = 0; j < rows; j++)                                                   \
      _Pragma("GCC unroll 6") for (int i = 0; i < nv; i++) sum[j][i] = (vec_##S){0};                         \
    for (size_t k = 0; k < depth; k++, w += rows) {                                                          \
      const T *at = x + off[k];                                                                              \
      _Pragma("GCC unroll 6") for (int i = 0; i < nv; i++) v[i] = VLOAD_##S(at + i * WIDTH_##S);             \
      _Pragma("GCC unroll 6") for (int j = 0; j < rows; j++) {                                               \
        vec_##S one = VSET_##S(w[j]);                                                                        \
        _Pragma("GCC unroll 6") for (int i = 0; i < nv; i++) sum[j][i] = VFMA_##S(one, v[i], sum[j][i]);     \
      }                                                                                                      \
    }                                                                                                        \
    _Pragma("GCC unroll 6") for (int j = 0; j < rows; j++)                                                   \
      _Pragma("GCC unroll 6") for (int i = 0; i < nv; i++) VSTORE_##S(c + j * ldc + i * WIDTH_##S, sum[j][i]); \
  }                                                                                                          \
  static void lines_##S(void *c, size_t n, const void *x, const int32_t *off, size_t depth, const void *w,   \
                        int rows) {                                                                          \
    size_t piece = (size_t)gq_line_vectors(rows) * WIDTH_##S;                                                \
    for (size_t i = 0; i < n; i += piece) {                                                                  \
      if (i + piece > n) i = n - piece; /* some once more */                                                 \
      T *to = (T *)c + i;                                                                                    \
      const T *from = (const T *)x + i;                                                                      \
      switch (rows) {                                                                                        \
        case 1: lines_block_##S(1, 6, to, n, from, off, depth, w); break;                                    \
        case 2: lines_block_##S(2, 5, to, n, from, off, depth, w); break;                                    \
        case 3: lines_block_##S(3, 3, to, n, from, off, depth, w); break;                                    \
        case 4: lines_block_##S(4, 3, to, n, from, off, depth, w); break;                                    \
        case 5: lines_block_##S(5, 2, to, n, from, off, depth, w); break;                                    \
        default: lines_block_##S(6, 2, to, n, from, off, depth, w);                                          \
      }                                                                                                      \
    }                                                                                                        \
  }
LINES(f32, float)
LINES(f64, double)
