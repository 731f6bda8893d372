/*
** tile.h -- c[i][j] (+)= sum_k x_i[off[k]] w[k][j] for ROWS pointers x_i and one to three vectors of j: a piece of a
** convolution, whose images are read where they are. Included by kernels.c behind small.h.
*/

#define TILE(S, T)                                                                                           \
  static inline __attribute__((always_inline)) void tile_block_##S(int nv, T *c, const T *const *x,         \
                                                                   const int32_t *off, size_t depth,         \
                                                                   const T *w, bool add) {                   \
    vec_##S sum[ROWS][3], v[3];                                                                              \
    const T *at[ROWS];                                                                                       \
    _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++) {                                                 \
      at[i] = x[i];                                                                                          \
      _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) sum[i][j] = (vec_##S){0};                         \
    }                                                                                                        \
    for (size_t k = 0; k < depth; k++, w += nv * WIDTH_##S) {                                                \
      ptrdiff_t place = off[k];                                                                              \
      _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) v[j] = VLOAD_##S(w + j * WIDTH_##S);              \
      _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++) {                                               \
        vec_##S one = VSET_##S(at[i][place]);                                                                \
        _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++) sum[i][j] = VFMA_##S(one, v[j], sum[i][j]);     \
      }                                                                                                      \
    }                                                                                                        \
    _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++)                                                   \
      _Pragma("GCC unroll 3") for (int j = 0; j < nv; j++, c += WIDTH_##S) {                                 \
        if (add) sum[i][j] += VLOAD_##S(c);                                                                  \
        VSTORE_##S(c, sum[i][j]);                                                                            \
      }                                                                                                      \
  }                                                                                                          \
  static void tile_##S(void *c, const void *const *x, const int32_t *off, size_t depth, const void *w,       \
                       size_t nv, bool add) {                                                                \
    const T *const *from = (const T *const *)x;                                                              \
    if (nv == 3) tile_block_##S(3, c, from, off, depth, w, add);                                             \
    else if (nv == 2) tile_block_##S(2, c, from, off, depth, w, add);                                        \
    else tile_block_##S(1, c, from, off, depth, w, add);                                                     \
  }
TILE(f32, float)
TILE(f64, double)
