/*
** matmul.c -- products: on OpenBLAS, one thread a call (the runtime owns the threads), and on
** small.h where a network is narrow.
*/
#include "cpu.h"

#include <cblas-openblas.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void start(void) { openblas_set_num_threads(1); }

const char *gq_blas_name(void) {
  pthread_once(&once, start);
  return openblas_get_config();
}

/* ---- the buffers of OpenBLAS ----
** It maps one for each product that runs at a time, keeps it, and where there is no room asks again for ever
** (driver/others/memory.c). So those of all threads are mapped before the first product, or that one is an error. */

enum { BUFFER = (128 << 20) + (64 << 10) }; /* the largest of any processor, and its alignment */

void *blas_memory_alloc(int position) __attribute__((weak)); /* exported, in no header */
void blas_memory_free(void *buffer) __attribute__((weak));

static void map_buffers(int n) {
  void *buffer[GQ_MAX_THREADS];
  if (!blas_memory_alloc || !blas_memory_free) return;
  for (int i = 0; i < n; i++) buffer[i] = blas_memory_alloc(0);
  for (int i = 0; i < n; i++) blas_memory_free(buffer[i]);
}

static int reserve(void) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static atomic_int reserved;
  int wanted = gq_threads(), status = GQ_OK;
  if (atomic_load_explicit(&reserved, memory_order_acquire) >= wanted) return GQ_OK;
  pthread_mutex_lock(&lock);
  int more = wanted - atomic_load(&reserved);
  size_t bytes = more > 0 ? (size_t)more * BUFFER : 0;
  void *room =
    more > 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : NULL;
  if (room == MAP_FAILED)
    status = gq_fail(GQ_ENOMEM,
                     "out of memory: OpenBLAS takes %zu MiB of address space for the products of %d threads; "
                     "raise the limit (ulimit -v), or use fewer threads (gq.set_threads)",
                     bytes >> 20, more);
  else if (more > 0) {
    munmap(room, bytes);
    map_buffers(wanted);
    atomic_store_explicit(&reserved, wanted, memory_order_release);
  }
  pthread_mutex_unlock(&lock);
  return status;
}

/* ---- small products: measured faster than OpenBLAS 0.3.21 on AVX2, no slower on AVX-512 ----
** A layer over columns is W X with n columns: W stays in the cache of the core while panels of X go by.
** Over rows (what is not row-independent, and tensors outside solves) it is X W', with W' packed. */

enum {
  NARROW = 128, /* inner size and columns of a layer over rows */
  SUMMED =
    32, /* columns of a product summed over many rows (a weight gradient), and rows where columns are few */
  PACKED = 8192,  /* numbers of b that are transposed on the stack first */
  CACHED = 16384, /* numbers of W that stay near a core */
  SKINNY = 32,    /* columns in a few vectors: W is read once anyway */
  THIN = 16,      /* a first or last layer */
  LONG = 48,      /* terms that are worth summing side by side */
  CELLS = 256,    /* rows and columns of such a product */
  SINGLY = 256,   /* terms added one by one: rounding of more would grow */
  STRIP = 8,      /* rows, or columns, that stay together */
  FEW = 3         /* rows so few that a large matrix is read faster than packed */
};

typedef enum way { LARGE, SMALL, INNER, FLIPPED, STREAMED, DOTS } way;

enum { SHARED = 1 << 19 }; /* multiplications that are worth all threads */

static way choose(const gq_gemm *g, int64_t rows) {
  if (rows <= FEW && !g->ta && g->n * g->k > CACHED) return g->tb ? FLIPPED : STREAMED;
  if (!g->tb && g->n >= 8 && (g->n <= SKINNY || rows * g->k <= CACHED || rows <= THIN || g->k <= THIN))
    return SMALL;
  if (g->ta && g->tb) return rows <= GQ_CROSSED && g->k <= SINGLY ? SMALL : LARGE; /* a projection */
  if (g->ta) return g->n <= SUMMED && rows <= (g->n > 2 ? NARROW : SUMMED) ? SMALL : LARGE;
  if (g->tb && g->k >= LONG && rows <= CELLS && g->n <= CELLS) return INNER;
  if (g->n > NARROW || g->k > NARROW) return LARGE;
  if (g->n <= 2 && g->k >= 4) return DOTS;
  if (g->tb && rows < 24)
    return rows == 1 || (g->k > STRIP && (rows <= STRIP || g->k >= SKINNY)) ? INNER : SMALL;
  return !g->tb || g->n * g->k <= PACKED ? SMALL : LARGE;
}

/* ---- one on this thread ---- */

/* to[i][j] = from[j][i] */
#define TRANSPOSE(T, to, lto, from, lfrom, rows, cols)                              \
  do {                                                                              \
    T *dst = (T *)(void *)to;                                                       \
    const T *src = from;                                                            \
    for (int64_t j = 0; j < cols; j++)                                              \
      for (int64_t i = 0; i < rows; i++) dst[i * (lto) + j] = src[j * (lfrom) + i]; \
  } while (0)

static gq_small small_of(const gq_gemm *g, int64_t rows) {
  size_t lda = (size_t)g->lda;
  return (gq_small){ .m = (size_t)rows,
                     .n = (size_t)g->n,
                     .k = (size_t)g->k,
                     .ars = g->ta ? 1 : lda,
                     .acs = g->ta ? lda : 1,
                     .ldb = (size_t)g->ldb,
                     .cs = (size_t)g->column,
                     .ldc = (size_t)g->ldc };
}

/* Few terms, many results: these are written row by row. */
static int64_t strip(const gq_gemm *g, int64_t rows) { return g->k <= THIN && g->n > SKINNY ? STRIP : rows; }

static void small(const gq_gemm *g, const void *a, const void *b, const void *column_, void *c, int64_t rows,
                  bool add) {
  gq_small p = small_of(g, rows);
  _Alignas(64) char packed[PACKED * sizeof(double)];
  if (g->tb && rows <= GQ_CROSSED) {
    gq_cpu()->crossed[g->dtype](&p, a, b, column_, c, add);
    return;
  }
  if (g->tb) {
    if (g->dtype == GQ_F32) TRANSPOSE(float, packed, g->n, b, g->ldb, g->k, g->n);
    else TRANSPOSE(double, packed, g->n, b, g->ldb, g->k, g->n);
    b = packed;
    p.ldb = p.n;
  }
  int64_t size = (int64_t)gq_dtype_size(g->dtype), step = strip(g, rows);
  for (int64_t i = 0; i < rows; i += step) {
    p.m = (size_t)(rows - i < step ? rows - i : step);
    gq_cpu()->small[g->dtype](&p, (const char *)a + i * (int64_t)p.ars * size, b,
                              column_ ? (const char *)column_ + i * g->column * size : NULL,
                              (char *)c + i * g->ldc * size, add);
  }
}

/* One or two columns: each a product of rows with a vector. */
static void dots(const gq_gemm *g, const void *a, const void *b, void *c, int64_t rows, bool add) {
  size_t size = gq_dtype_size(g->dtype), ldb = (size_t)g->ldb;
  char packed[2 * NARROW * sizeof(double)];
  if (!g->tb) {
    if (g->dtype == GQ_F32) TRANSPOSE(float, packed, NARROW, b, g->ldb, g->n, g->k);
    else TRANSPOSE(double, packed, NARROW, b, g->ldb, g->n, g->k);
    b = packed;
    ldb = NARROW;
  }
  for (size_t j = 0; j < (size_t)g->n; j++)
    gq_cpu()->dots[g->dtype](a, (size_t)g->lda, (const char *)b + j * ldb * size, (char *)c + j * size,
                             (size_t)g->ldc, (size_t)rows, (size_t)g->k, add);
}

static void large(const gq_gemm *g, const void *a, const void *b, void *c, int64_t rows, bool add) {
  enum CBLAS_TRANSPOSE ta = g->ta ? CblasTrans : CblasNoTrans, tb = g->tb ? CblasTrans : CblasNoTrans;
  int m = (int)rows, n = (int)g->n, k = (int)g->k, lda = (int)g->lda, ldb = (int)g->ldb, ldc = (int)g->ldc;
  if (g->dtype == GQ_F32) cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1, a, lda, b, ldb, add ? 1 : 0, c, ldc);
  else cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, 1, a, lda, b, ldb, add ? 1 : 0, c, ldc);
}

/* c[i][j] (+)= column[i] */
#define SPREAD(T)                                                          \
  do {                                                                     \
    for (int64_t i = 0; i < rows; i++) {                                   \
      T *to = (T *)c + i * g->ldc, x = ((const T *)column)[i * g->column]; \
      for (int64_t j = 0; j < g->n; j++) to[j] = add ? to[j] + x : x;      \
    }                                                                      \
  } while (0)

static void spread(const gq_gemm *g, const void *column, void *c, int64_t rows, bool add) {
  if (g->dtype == GQ_F32) SPREAD(float);
  else SPREAD(double);
}

static void product(const gq_gemm *g, way w, const void *a, const void *b, const void *column_, void *c,
                    int64_t rows, bool add) {
  if (rows == 0 || g->n == 0) return;
  if (column_ && (w != SMALL || g->k == 0)) {
    spread(g, column_, c, rows, add);
    add = true;
  }
  if (g->k == 0) {
    if (!add) memset(c, 0, (size_t)rows * (size_t)g->n * gq_dtype_size(g->dtype));
    return;
  }
  switch (w) {
    case SMALL: small(g, a, b, column_, c, rows, add); break;
    case INNER:
      gq_cpu()->inner[g->dtype](a, (size_t)g->lda, b, (size_t)g->ldb, c, (size_t)g->ldc, 1, (size_t)rows,
                                (size_t)g->n, (size_t)g->k, add);
      break;
    case FLIPPED: /* b a', transposed on the way out */
      gq_cpu()->inner[g->dtype](b, (size_t)g->ldb, a, (size_t)g->lda, c, 1, (size_t)g->ldc, (size_t)g->n,
                                (size_t)rows, (size_t)g->k, add);
      break;
    case STREAMED:
      gq_cpu()->streamed[g->dtype](a, (size_t)g->lda, 1, b, (size_t)g->ldb, c, (size_t)g->ldc, (size_t)rows,
                                   (size_t)g->n, (size_t)g->k, add);
      break;
    case DOTS: dots(g, a, b, c, rows, add); break;
    default: large(g, a, b, c, rows, add);
  }
}

void gq_gemm_one(const gq_gemm *g, const void *a, const void *b, void *c, bool add) {
  product(g, choose(g, g->m), a, b, NULL, c, g->m, add);
}

int gq_gemm_ready(void) {
  pthread_once(&once, start);
  return reserve();
}

/* ---- plans ---- */

/* The matrix in the last two dims of l: its leading dimension, and whether it is stored
** transposed. False if neither dim has unit stride. */
static bool blas_takes(const gq_layout *l, int64_t *ld, bool *transposed) {
  int64_t r = l->dim[l->ndim - 2], c = l->dim[l->ndim - 1];
  int64_t sr = l->stride[l->ndim - 2], sc = l->stride[l->ndim - 1];
  if ((c <= 1 || sc == 1) && (r <= 1 || sr >= (c > 1 ? c : 1))) {
    *transposed = false;
    *ld = r > 1 ? sr : c > 1 ? c : 1;
    return true;
  }
  if ((r <= 1 || sr == 1) && (c <= 1 || sc >= (r > 1 ? r : 1))) {
    *transposed = true;
    *ld = c > 1 ? sc : r > 1 ? r : 1;
    return true;
  }
  return false;
}

/* Leading dims, broadcast; 0 strides where one of the two repeats. */
static int plan_batch(gq_gemm *g, const gq_layout *a, const gq_layout *b) {
  int na = a->ndim - 2, nb = b->ndim - 2, n = na > nb ? na : nb;
  g->nbatch = n;
  for (int i = 0; i < n; i++) {
    int ia = i - (n - na), ib = i - (n - nb);
    int64_t da = ia < 0 ? 1 : a->dim[ia], db = ib < 0 ? 1 : b->dim[ib];
    if (da != db && da != 1 && db != 1)
      return gq_fail(GQ_ESHAPE, "matmul: leading sizes %lld and %lld do not broadcast", (long long)da,
                     (long long)db);
    g->dim[i] = da == 1 ? db : da;
    g->sa[i] = da == 1 ? 0 : a->stride[ia];
    g->sb[i] = db == 1 ? 0 : b->stride[ib];
  }
  return GQ_OK;
}

/* One product instead of many where every a is multiplied by the same b and follows the last. */
static void merge_batch(gq_gemm *g) {
  while (g->nbatch) {
    int i = g->nbatch - 1;
    bool rows_follow = g->sb[i] == 0 && !g->ta && g->sa[i] == g->m * g->lda;
    if (g->dim[i] != 1 && !rows_follow) break;
    g->m *= g->dim[i];
    g->nbatch--;
  }
}

/* One that asks for nothing else than a kernel: what a narrow network's step is made of. */
static gq_product *at_once(const gq_gemm *g) {
  if (g->whole != SMALL || g->nbatch || g->shared || g->m < 1 || g->n < 1 || g->k < 1) return NULL;
  if (g->tb) return g->m <= GQ_CROSSED ? gq_cpu()->crossed[g->dtype] : NULL;
  return strip(g, g->m) >= g->m ? gq_cpu()->small[g->dtype] : NULL;
}

int gq_gemm_plan(gq_gemm *g, gq_dtype d, const gq_layout *a, const gq_layout *b, int64_t column, int flags,
                 int *pack) {
  memset(g, 0, sizeof *g);
  bool ta = flags & GQ_TA, tb = flags & GQ_TB, sta = false, stb = false;
  *pack = 0;
  if (!gq_is_float(d))
    return gq_fail(GQ_EDTYPE, "matmul: %s given, float32 or float64 expected", gq_dtype_name(d));
  g->dtype = d, g->column = column;
  g->m = a->dim[a->ndim - (ta ? 1 : 2)];
  g->k = a->dim[a->ndim - (ta ? 2 : 1)];
  g->n = b->dim[b->ndim - (tb ? 2 : 1)];
  if (!blas_takes(a, &g->lda, &sta)) *pack |= 1;
  if (!blas_takes(b, &g->ldb, &stb)) *pack |= 2;
  if (*pack) return GQ_OK;
  g->ta = ta != sta;
  g->tb = tb != stb;
  g->ldc = g->n > 0 ? g->n : 1;
  GQ_TRY(plan_batch(g, a, b));
  merge_batch(g);
  if (g->m > INT_MAX || g->n > INT_MAX || g->k > INT_MAX || g->lda > INT_MAX || g->ldb > INT_MAX)
    return gq_fail(GQ_ESHAPE,
                   "matmul: [%lld x %lld] by [%lld x %lld]: sizes above 2^31 - 1 are not supported",
                   (long long)g->m, (long long)g->k, (long long)g->k, (long long)g->n);
  g->whole = choose(g, g->m);
  g->shared = (double)g->m * (double)g->n * (double)g->k >= SHARED;
  g->small = small_of(g, g->m), g->at_once = at_once(g);
  return GQ_OK;
}

/* ---- shared among the threads, where a program is not run on slices of rows anyway ---- */

typedef struct sharing {
  const gq_gemm *g;
  const char *a, *b, *column_;
  char *c;
  bool add, by_rows;
  int pieces;
} sharing;

/* First row or column of piece i. */
static int64_t edge(const sharing *s, int i) {
  int64_t n = s->by_rows ? s->g->m : s->g->n, strips = (n + STRIP - 1) / STRIP,
          at = strips * i / s->pieces * STRIP;
  return at < n ? at : n;
}

static void run_piece(void *ctx, int i) {
  const sharing *s = ctx;
  gq_gemm g = *s->g;
  int64_t size = (int64_t)gq_dtype_size(g.dtype), from = edge(s, i), count = edge(s, i + 1) - from;
  if (s->by_rows) {
    const char *column = s->column_ ? s->column_ + from * g.column * size : NULL;
    product(&g, choose(&g, count), s->a + from * (g.ta ? 1 : g.lda) * size, s->b, column,
            s->c + from * g.ldc * size, count, s->add);
  } else {
    g.n = count;
    product(&g, choose(&g, g.m), s->a, s->b + from * (g.tb ? g.ldb : 1) * size, s->column_,
            s->c + from * size, g.m, s->add);
  }
}

/* Does a piece go to OpenBLAS? */
static bool any_large(const sharing *s) {
  for (int i = 0; i < s->pieces; i++) {
    gq_gemm g = *s->g;
    int64_t count = edge(s, i + 1) - edge(s, i);
    if (!s->by_rows) g.n = count;
    if (choose(&g, s->by_rows ? count : g.m) == LARGE) return true;
  }
  return false;
}

static int one_product(const gq_gemm *g, const void *a, const void *b, const void *column_, void *c,
                       bool add) {
  if (!g->shared || gq_workers() < 2) {
    if (g->whole == LARGE) GQ_TRY(reserve());
    product(g, g->whole, a, b, column_, c, g->m, add);
    return GQ_OK;
  }
  sharing s = { g, a, b, column_, c, add, g->m >= g->n, gq_workers() };
  if (any_large(&s)) GQ_TRY(reserve());
  gq_parallel(s.pieces, run_piece, &s);
  return GQ_OK;
}

int gq_gemm_run(const gq_gemm *g, const void *a, const void *b, const void *column_, void *c, bool add) {
  if (g->at_once) {
    g->at_once(&g->small, a, b, column_, c, add);
    return GQ_OK;
  }
  int64_t size = (int64_t)gq_dtype_size(g->dtype), count = 1, step = g->m * g->n * size;
  pthread_once(&once, start);
  for (int i = 0; i < g->nbatch; i++) count *= g->dim[i];
  for (int64_t t = 0; t < count; t++) {
    int64_t oa = 0, ob = 0, rest = t;
    for (int i = g->nbatch - 1; i >= 0; i--) {
      oa += rest % g->dim[i] * g->sa[i];
      ob += rest % g->dim[i] * g->sb[i];
      rest /= g->dim[i];
    }
    GQ_TRY(one_product(g, (const char *)a + oa * size, (const char *)b + ob * size, column_,
                       (char *)c + t * step, add));
  }
  return GQ_OK;
}
