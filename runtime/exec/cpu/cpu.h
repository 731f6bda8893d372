/*
** cpu.h -- the CPU backend: a table of element-wise and reduction kernels chosen once for this
** processor, and what is built from it: fused groups, products, reductions, copies.
** Nothing here allocates while running; plans are made once and run many times.
*/
#ifndef GQ_CPU_H
#define GQ_CPU_H

#include "../backend.h"
#include "../layout.h"
#include "../convolution.h"

/* ---- kernels.c, compiled once for each instruction set ---- */

enum { GQ_SHARED_NUMBERS = 1 << 14 }; /* that are worth waking the other threads */

/* out[i] = f(a[i], b[i], c[i]) for i < n. out may be one of the operands. */
typedef void (*gq_kernel)(void *out, const void *a, const void *b, const void *c, size_t n);

/* Which of the two operands is one number (for WHERE: of x and y). */
enum { GQ_VV, GQ_SV, GQ_VS, GQ_SS, GQ_NFORM };
/* a * c + b, b - a * c, a * c - b: vectors a, b and one number c */
enum { GQ_MADD, GQ_MRSUB, GQ_MSUB, GQ_NMADD };

/* a[i * ars + k * acs], b[k * ldb + j] (crossed: b[j * ldb + k]), column[i * cs], c[i * ldc + j] */
typedef struct gq_small {
  size_t m, n, k, ars, acs, ldb, cs, ldc;
} gq_small;
enum { GQ_CROSSED = 3 }; /* rows of a that crossed takes, at most */
typedef void gq_product(const gq_small *p, const void *a, const void *b, const void *column_, void *c, bool add);

typedef struct gq_kernels {
  const char *name;
  gq_kernel op[GQ_NOP][GQ_NDTYPE][GQ_NFORM]; /* by operand dtype (WHERE: of x); NULL: not defined */
  gq_kernel cast[GQ_NDTYPE][GQ_NDTYPE];      /* [from][to] */
  gq_kernel madd[2][GQ_NMADD];
  gq_kernel duo[2];                          /* softplus(a) to out and sigmoid(a) to (void *)b */
  gq_kernel fall[2];                         /* -expm1(-a) */
  /* out = y_ + sum_i s[i] x_i, i < k, added one after the other, without y_ from s[0] x_0 on; out may be y_ or x_0 */
  void (*combine[2])(size_t n, int k, const void *s, const void *const *x, const void *y_, void *out);
  double (*sum[2])(const void *x, size_t n);                                            /* fixed order */
  void (*colsum[2])(double *acc, const void *x, size_t rows, size_t cols, size_t ld);   /* acc[j] += sum_i x[i][j] */
  double (*fit[2])(const void *x, size_t n, double *squares);                           /* mean m; sum_i (x_i - m)^2 */
  void (*fit_pull[2])(void *out, const void *x, const double c[3], size_t n);           /* c0 + c1 (x - c2) */
  /* c (+)= a b (+ column), m by k and k by n; crossed: c (+)= a b' (+ column), the same sums, for few rows */
  gq_product *small[2], *crossed[2];
  /* c (+)= a b', sums along the rows of both: a[i * lda + k], b[j * ldb + k], c[i * crs + j * ccs] */
  void (*inner[2])(const void *a, size_t lda, const void *b, size_t ldb, void *c, size_t crs, size_t ccs, size_t m,
                   size_t n, size_t k, bool add);
  /* c (+)= a b with few rows: places as for small */
  void (*streamed[2])(const void *a, size_t ars, size_t acs, const void *b, size_t ldb, void *c, size_t ldc, size_t m,
                      size_t n, size_t k, bool add);
  /* one column of it: c[i * ldc] (+)= sum_k a[i * lda + k] b[k], k < n */
  void (*dots[2])(const void *a, size_t lda, const void *b, void *c, size_t ldc, size_t m, size_t n, bool add);
  /* a piece of a convolution, rows <= tile_rows by nv vectors of tile_width numbers: tile.h; reads and writes half of
  ** tile_rows where `rows` is no more, else all */
  void (*tile[2])(int rows, void *c, const void *const *x, const int32_t *off, size_t depth, const void *w, size_t nv, bool add);
  int tile_rows, tile_width[2];
  /* the same of few channels: c {rows, n}, n at least gq_line_vectors(rows) vectors, w {depth, rows} */
  void (*lines[2])(void *c, size_t n, const void *x, const int32_t *off, size_t depth, const void *w, int rows);
  /* to[j * lto + i] (+)= from[i * lfrom + j], i < n, j < m */
  void (*turn)(const float *from, int64_t lfrom, int64_t n, int64_t m, float *to, int64_t lto, bool add);
  /* winograd.h, by gq_wino */
  void (*winograd[3])(float *to, size_t trow, size_t tcol, const float *from, size_t frow, size_t fcol, size_t n);
  void (*winograd_at[2])(float *to, size_t trow, size_t tcol, const float *from, const int32_t *at, size_t n);
  /* What the transpose of an n-stage Runge-Kutta method asks for, GQ_LANES systems side by side:
  **     x_l - sum_j a[j][l] J_j' x_j = b_l,   y += sum_j J_j' x_j
  ** a[n][n]; j[n][dim][dim], x[n][dim] (b on entry) and y[dim] have a number a lane; m: room for
  ** n dim (n dim + 1) of those. Not finite where the system is singular. */
  void (*collocate)(size_t n, size_t dim, const double *a, const double *j, double *m, double *x, double *y);
} gq_kernels;

enum gq_wino { GQ_WINO_RESULT, GQ_WINO_WEIGHT, GQ_WINO_WEIGHT_BACK };
enum gq_wino_at { GQ_WINO_IMAGE, GQ_WINO_RESULT_BACK };

/* Channels that lines does at once, and vectors: 8 to 12 sums in registers. */
enum { GQ_LINES = 6 };
static inline int gq_line_vectors(int rows) { return rows > 4 ? 2 : rows > 2 ? 3 : rows == 2 ? 5 : 6; }

extern const gq_kernels gq_kernels_portable;
#if defined(__x86_64__)
extern const gq_kernels gq_kernels_avx2, gq_kernels_avx512;
#endif
const gq_kernels *gq_cpu(void);              /* the best that this processor runs */
const gq_kernels *gq_cpu_find(const char *name);   /* NULL: unknown or not supported here */
void gq_cpu_use(const gq_kernels *k_);       /* for tests; NULL: back to the best */

/* ---- group.c: element-wise operations of one shape, run tile by tile ---- */

#define GQ_GROUP_TILE 1024                   /* numbers in a tile, at most */

typedef struct gq_group_value {
  gq_dtype dtype;
  bool arg;                                  /* comes from outside */
  bool stored;                               /* goes outside */
  uint8_t how;                               /* HOW_* of group.c */
  int uses;
  int64_t stride[GQ_MAXDIM];                 /* of an argument, over the group's dims */
  uint32_t reg;                              /* tile register: its place in bytes per number */
} gq_group_value;

typedef struct gq_micro {                    /* one kernel call on a tile */
  gq_kernel fn;
  gq_op op;
  int16_t out, nargs, arg[3];
} gq_micro;

typedef struct gq_group {
  int ndim;
  int64_t dim[GQ_MAXDIM];                    /* merged as far as all arguments allow */
  int64_t rows, width;                       /* product of the outer dims, the last dim */
  int64_t tile;                              /* capacity of a tile register */
  int64_t tile_rows, tile_cols, ntile;
  int nvalue, nmicro, nmoving, nheld;
  int capacity;                              /* of value and micro; list has twice as many */
  gq_group_value *value;
  gq_micro *micro;
  int16_t *list;                             /* nmoving values whose address depends on the tile, nheld in registers */
  size_t scratch;                            /* bytes for the tile registers */
} gq_group;

/* Values and micro-ops live in `value` and `micro` of `capacity` entries each, `list` of twice that,
** given by the caller. */
void gq_group_begin(gq_group *g, gq_shape shape, int capacity, gq_group_value *value, gq_micro *micro, int16_t *list);
int gq_group_arg(gq_group *g, gq_dtype d, const int64_t *stride);              /* value, or -1: full */
int gq_group_op(gq_group *g, gq_op op, gq_dtype d, int nargs, const int *arg); /* value, or -1: full */
void gq_group_store(gq_group *g, int value);
int gq_group_finish(gq_group *g);            /* GQ_EDTYPE: no such kernel */
/* base[v]: address of argument or stored value v; one tile alone may leave others there. Tiles first..last-1. */
void gq_group_run(const gq_group *g, void **base, void *scratch, int64_t first, int64_t last);

/* ---- code.c, ops.c: a program, and one operation ---- */

int gq_cpu_slices(int64_t rows, int64_t width, int64_t common);
int gq_cpu_lower(gq_program *p);
void gq_cpu_release(gq_program *p);
void gq_cpu_soon(const void *from, size_t bytes);
int gq_cpu_run(const gq_program *p, int phase, void *arena, void *rest, const void *const *in, void *const *out);
void gq_cpu_print(const gq_program *p, int i, gq_text *t);
int gq_cpu_pack(gq_dtype d, const gq_layout *a, const gq_layout *b, int flags, int *pack);
int gq_cpu_apply(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_tensor *out);

/* ---- vec.c, update.c, gauss.c ---- */

extern const gq_vectors gq_cpu_vectors;
bool gq_cpu_finite(gq_dtype d, size_t n, const void *x);       /* is every number? */
void gq_cpu_update(gq_opt_rule rule, gq_dtype d, size_t n, void *p, const void *g, void *const s[GQ_OPT_STATES],
                   const gq_opt_coef *k);
int gq_cpu_gauss(gq_dtype d, const gq_gauss *g, int *bad);

/* ---- matmul.c ---- */

typedef struct gq_gemm {
  gq_dtype dtype;
  bool ta, tb;
  int64_t m, n, k, lda, ldb, ldc;
  int nbatch;
  int64_t dim[GQ_MAXDIM], sa[GQ_MAXDIM], sb[GQ_MAXDIM];
  int64_t column;                            /* stride of the column that is added (AFFINE) */
  int whole;                                 /* how one matrix is done on one thread (matmul.c) */
  gq_small small;                            /* SMALL: as kernels take it; */
  gq_product *at_once;                       /* the one that does all of it, or NULL */
  bool shared;                               /* worth all threads */
} gq_gemm;
/* Plan op(a) op(b), and a column if its stride is not 0. *pack: bit 0 or 1 set if a or b must be made contiguous first
** (then plan again). */
int gq_gemm_plan(gq_gemm *g, gq_dtype d, const gq_layout *a, const gq_layout *b, int64_t column, int flags,
                 int *pack);
/* Large ones are shared among the threads. GQ_ENOMEM: no buffers for OpenBLAS. */
int gq_gemm_run(const gq_gemm *g, const void *a, const void *b, const void *column_, void *c, bool add);

/* One of a plan's matrices as it stands, on this thread; once gq_gemm_ready has said GQ_OK. */
void gq_gemm_one(const gq_gemm *g, const void *a, const void *b, void *c, bool add);
int gq_gemm_ready(void);

/* ---- conv.c ---- */

typedef struct gq_convolution {
  gq_conv conv;                              /* of the data: as a product with windows, if direct */
  const gq_kernels *kernels;
  bool direct;
  int64_t channels, lines, images;           /* of a piece */
  int thin;                                  /* channels at once where they are few; else 0 */
  bool tiled;                                /* 4 x 4 results at once, by fewer products */
  int64_t image, sums, turned, spread;       /* places in the scratch */
  size_t scratch, shared;                    /* bytes for each worker, and for the packed weight */
} gq_convolution;
gq_convolution gq_conv_plan(const gq_conv *v);
/* a: W, or G for the weight; b: images, or G for the data. scratch: room for a piece every `apart` bytes, one a worker.
** ready: `packed` holds the weight already. */
int gq_conv_run(const gq_convolution *p, const void *a, const void *b, void *out, bool add, void *scratch, size_t apart,
                void *packed, bool ready, int workers);
bool gq_conv_shares(const gq_convolution *p, const gq_convolution *q);   /* is one weight packed alike for both? */

/* ---- reduce.c ---- */

typedef struct gq_reduce {
  gq_op op;
  gq_dtype dtype;
  int nk, nr;                                /* kept and reduced dims */
  int64_t kdim[GQ_MAXDIM], kstride[GQ_MAXDIM];
  int64_t rdim[GQ_MAXDIM], rstride[GQ_MAXDIM];
} gq_reduce;
int gq_reduce_plan(gq_reduce *r, gq_op op, gq_dtype d, const gq_layout *x, const gq_attr *attr);
void gq_reduce_run(const gq_reduce *r, const void *x, void *out, bool add);    /* add: SUM of floats only */

/* ---- move.c ---- */

/* Of class INDEX, on contiguous data; GQ_EINDEX: an index is outside. */
int gq_indexing_run(const gq_indexing *p, const void *const *in, void *out);

#endif
