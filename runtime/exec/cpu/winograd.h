/*
** winograd.h -- to = T from T', n numbers side by side, for the five small matrices T of Winograd's F(2 x 2, 3 x 3) and its
** adjoint (Lavin & Gray, CVPR 2016): Y = A' [(G w G') . (B' x B)] A. Places of a row and a column are frow, fcol apart, and
** trow, tcol. n is whole vectors. Included by kernels.c behind small.h.
*/

#define MAP_0(y, sy, x, sx) /* B' */                                                    \
  y[0] = x[0] - x[2 * sx], y[sy] = x[sx] + x[2 * sx], y[2 * sy] = x[2 * sx] - x[sx],    \
  y[3 * sy] = x[sx] - x[3 * sx]
#define MAP_1(y, sy, x, sx) /* A' */ \
  y[0] = x[0] + x[sx] + x[2 * sx], y[sy] = x[sx] - x[2 * sx] - x[3 * sx]
#define MAP_2(y, sy, x, sx) /* A */ \
  y[0] = x[0], y[sy] = x[0] + x[sx], y[2 * sy] = x[0] - x[sx], y[3 * sy] = -x[sx]
#define MAP_3(y, sy, x, sx) /* G */                                                                   \
  y[0] = x[0], y[sy] = half * (x[0] + x[2 * sx] + x[sx]), y[2 * sy] = half * (x[0] + x[2 * sx] - x[sx]), \
  y[3 * sy] = x[2 * sx]
#define MAP_4(y, sy, x, sx) /* G' */                                                                       \
  y[0] = x[0] + half * (x[sx] + x[2 * sx]), y[sy] = half * (x[sx] - x[2 * sx]),                            \
  y[2 * sy] = half * (x[sx] + x[2 * sx]) + x[3 * sx]

#define WINOGRAD(I, IN, OUT)                                                                             \
  static void winograd_##I(float *to, size_t trow, size_t tcol, const float *from, size_t frow,          \
                           size_t fcol, size_t n) {                                                      \
    const vec_f32 half = VSET_f32(0.5f);                                                                 \
    (void)half;                                                                                          \
    for (size_t i = 0; i < n; i += WIDTH_f32, to += WIDTH_f32, from += WIDTH_f32) {                      \
      vec_f32 x[IN * IN], y[OUT * IN], z[OUT * OUT];                                                     \
      _Pragma("GCC unroll 16") for (int j = 0; j < IN * IN; j++) x[j] =                                  \
        VLOAD_f32(from + j / IN * frow + j % IN * fcol);                                                 \
      _Pragma("GCC unroll 4") for (int j = 0; j < IN; j++) MAP_##I((y + j), IN, (x + j), IN);            \
      _Pragma("GCC unroll 4") for (int j = 0; j < OUT; j++) MAP_##I((z + OUT * j), 1, (y + IN * j), 1);  \
      _Pragma("GCC unroll 16") for (int j = 0; j < OUT * OUT; j++)                                       \
        VSTORE_f32(to + j / OUT * trow + j % OUT * tcol, z[j]);                                          \
    }                                                                                                    \
  }
WINOGRAD(0, 4, 4)
WINOGRAD(1, 4, 2)
WINOGRAD(2, 2, 4)
WINOGRAD(3, 3, 4)
WINOGRAD(4, 4, 3)
