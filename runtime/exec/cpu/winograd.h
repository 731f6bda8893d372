/*
** winograd.h -- to = T from T', n numbers side by side, for the five small matrices T of Winograd's F(4 x 4, 3 x 3) and
** its adjoint (Lavin & Gray, CVPR 2016): Y = A' [(G w G') . (B' x B)] A, at 0, +-3/4, +-3/2 and infinity, where
** rounding is that of F(2 x 2, 3 x 3) (at 0, +-1, +-2 it is three times as much). Places of a row and a column are
** frow, fcol apart or at[..] from `from`, and trow, tcol. n is whole vectors. Included by kernels.c behind small.h.
*/

#define PA 0.75f
#define PB 1.5f
#define PAA (PA * PA)
#define PBB (PB * PB)
#define G0 (1 / (PAA * PBB))
#define GA (1 / (2 * PAA * (PAA - PBB)))
#define GB (1 / (2 * PBB * (PBB - PAA)))

/* even and odd parts in a point, at it and at minus it */
#define BOTH(y, z, even, odd) e = even, o = odd, y = e + o, z = e - o

#define MAP_0(y, x) /* B' */                                                          \
  y[0] = PAA * PBB * x[0] - (PAA + PBB) * x[2] + x[4];                                \
  BOTH(y[1], y[2], x[4] - PBB * x[2], PA * (x[3] - PBB * x[1]));                      \
  BOTH(y[3], y[4], x[4] - PAA * x[2], PB * (x[3] - PAA * x[1]));                      \
  y[5] = PAA * PBB * x[1] - (PAA + PBB) * x[3] + x[5]
#define MAP_1(y, x) /* A' */                                                          \
  e = x[1] + x[2], o = x[1] - x[2];                                                   \
  f = x[3] + x[4], g = x[3] - x[4];                                                   \
  y[0] = x[0] + e + f, y[1] = PA * o + PB * g;                                        \
  y[2] = PAA * e + PBB * f, y[3] = PA * PAA * o + PB * PBB * g + x[5]
#define MAP_2(y, x) /* A */                                                           \
  y[0] = x[0];                                                                        \
  BOTH(y[1], y[2], x[0] + PAA * x[2], PA * (x[1] + PAA * x[3]));                      \
  BOTH(y[3], y[4], x[0] + PBB * x[2], PB * (x[1] + PBB * x[3]));                      \
  y[5] = x[3]
#define MAP_3(y, x) /* G */                                                           \
  y[0] = G0 * x[0];                                                                   \
  BOTH(y[1], y[2], GA * x[0] + GA * PAA * x[2], GA * PA * x[1]);                      \
  BOTH(y[3], y[4], GB * x[0] + GB * PBB * x[2], GB * PB * x[1]);                      \
  y[5] = x[2]
#define MAP_4(y, x) /* G' */                                                          \
  e = GA * (x[1] + x[2]), f = GB * (x[3] + x[4]);                                     \
  o = GA * PA * (x[1] - x[2]), g = GB * PB * (x[3] - x[4]);                           \
  y[0] = G0 * x[0] + e + f, y[1] = o + g, y[2] = PAA * e + PBB * f + x[5]

/* Numbers of place k, j: rows and columns apart, or where a table says */
#define STRIDES size_t frow, size_t fcol
#define BY_STRIDES(IN) k * frow + j * fcol
#define TABLE const int32_t *at
#define BY_TABLE(IN) at[k * IN + j]

#define WINOGRAD(I, IN, OUT, PLACES, BY)                                                                   \
  static void winograd_##I(float *to, size_t trow, size_t tcol, const float *from, PLACES, size_t n) {     \
    for (size_t i = 0; i < n; i += WIDTH_f32, to += WIDTH_f32, from += WIDTH_f32) {                        \
      vec_f32 half[OUT][IN], x[IN], y[OUT], e, o, f, g;                                                    \
      (void)e, (void)o, (void)f, (void)g;                                                                  \
      for (int j = 0; j < IN; j++) {                                                                       \
        _Pragma("GCC unroll 6") for (int k = 0; k < IN; k++) x[k] = VLOAD_f32(from + BY(IN));              \
        MAP_##I(y, x);                                                                                     \
        _Pragma("GCC unroll 6") for (int k = 0; k < OUT; k++) half[k][j] = y[k];                           \
      }                                                                                                    \
      for (int k = 0; k < OUT; k++) {                                                                      \
        MAP_##I(y, half[k]);                                                                               \
        _Pragma("GCC unroll 6") for (int j = 0; j < OUT; j++) VSTORE_f32(to + k * trow + j * tcol, y[j]);  \
      }                                                                                                    \
    }                                                                                                      \
  }
WINOGRAD(0, 6, 6, TABLE, BY_TABLE)
WINOGRAD(1, 6, 4, STRIDES, BY_STRIDES)
WINOGRAD(2, 4, 6, TABLE, BY_TABLE)
WINOGRAD(3, 3, 6, STRIDES, BY_STRIDES)
WINOGRAD(4, 6, 3, STRIDES, BY_STRIDES)
