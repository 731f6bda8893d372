/*
** libcublasLt.c -- libcublasLt.so.13 for the emulator, over CBLAS: one algorithm, whose products are work of libcuda.c's
** stream. TF32 rounds operands to 11 bits, as its units do.
*/
#define _GNU_SOURCE
#include "../../runtime/exec/cuda/api.h"
#include "emu.h"

#include <cblas-openblas.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, ALLOC_FAILED = 3, INVALID = 7, INTERNAL = 14, NOT_SUPPORTED = 15 };

typedef struct gq_blas_desc_of {
  int compute, turned[2];
} desc;
typedef struct gq_blas_layout_of {
  int type, batches;
  uint64_t rows, cols;
  int64_t apart, offset;
} layout;
typedef struct gq_blas_preference_of {
  uint32_t schemes, alignment[4];
} preference;

int cublasLtCreate(gq_blas_handle *h) {
  *h = (gq_blas_handle)1;
  return OK;
}

/* Like NVIDIA's they are freed by nobody here. */
int cublasLtMatmulDescCreate(gq_blas_desc *d, int compute, int scale) {
  *d = calloc(1, sizeof **d);
  if (!*d) return ALLOC_FAILED;
  (*d)->compute = compute;
  return OK;
}

int cublasLtMatmulDescSetAttribute(gq_blas_desc d, int which, const void *value, size_t bytes) {
  if (which < GQ_BLAS_TURNED || which > GQ_BLAS_TURNED + 1 || bytes != sizeof(int32_t)) return INVALID;
  memcpy(&d->turned[which - GQ_BLAS_TURNED], value, bytes);
  return OK;
}

int cublasLtMatrixLayoutCreate(gq_blas_layout *x, int type, uint64_t rows, uint64_t cols, int64_t apart) {
  if (!rows || !cols || apart < (int64_t)rows) return INVALID;
  *x = calloc(1, sizeof **x);
  if (!*x) return ALLOC_FAILED;
  **x = (layout){ type, 1, rows, cols, apart, 0 };
  return OK;
}

int cublasLtMatrixLayoutSetAttribute(gq_blas_layout x, int which, const void *value, size_t bytes) {
  if (which == GQ_BLAS_BATCHES && bytes == sizeof(int32_t)) memcpy(&x->batches, value, bytes);
  else if (which == GQ_BLAS_APART && bytes == sizeof(int64_t)) memcpy(&x->offset, value, bytes);
  else return INVALID;
  return OK;
}

int cublasLtMatmulPreferenceCreate(gq_blas_preference *p) {
  *p = calloc(1, sizeof **p);
  if (!*p) return ALLOC_FAILED;
  **p = (preference){ 7, { 256, 256, 256, 256 } };
  return OK;
}

int cublasLtMatmulPreferenceDestroy(gq_blas_preference p) {
  free(p);
  return OK;
}

int cublasLtMatmulPreferenceSetAttribute(gq_blas_preference p, int which, const void *value, size_t bytes) {
  if (bytes != sizeof(uint32_t)) return INVALID;
  if (which == GQ_BLAS_SCHEMES) memcpy(&p->schemes, value, bytes);
  else if (which >= GQ_BLAS_ALIGNMENT && which < GQ_BLAS_ALIGNMENT + 4)
    memcpy(&p->alignment[which - GQ_BLAS_ALIGNMENT], value, bytes);
  else return INVALID;
  return OK;
}

/* The algorithm holds what was promised of addresses. Some versions (13.3) cannot choose while the thread captures, and what
** is chosen may have to be loaded. */
int cublasLtMatmulAlgoGetHeuristic(gq_blas_handle h, gq_blas_desc d, gq_blas_layout x, gq_blas_layout y,
                                   gq_blas_layout c, gq_blas_layout to, gq_blas_preference p, int most,
                                   gq_blas_choice *out, int *n) {
  int (*captures)(void) = (int (*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "gq_emu_captures");
  *n = 0;
  if (captures()) {
    fprintf(stderr, "emulator: an algorithm is asked for during a capture\n");
    return INTERNAL;
  }
  if (p->schemes || most < 1) return NOT_SUPPORTED; /* sums across blocks: not wanted here */
  *out = (gq_blas_choice){ .algo.data[0] = p->alignment[0] };
  *n = 1;
  return OK;
}

typedef struct call {
  desc d;
  layout x, y, c;
  char *px, *py, *pc;
  double one, add;
  size_t alignment;
} call;

static float rounded(float v) { /* to 10 bits behind the point */
  uint32_t u;
  memcpy(&u, &v, sizeof u);
  u = (u + 0x1000) & 0xffffe000u;
  memcpy(&v, &u, sizeof u);
  return v;
}

static float *round_all(const char *from, const layout *x) {
  size_t n = (size_t)(x->apart * (int64_t)(x->cols - 1)) + x->rows;
  float *to = malloc(n * sizeof *to + 1);
  if (!to) abort();
  for (size_t i = 0; i < n; i++) to[i] = rounded(((const float *)(const void *)from)[i]);
  return to;
}

/* Columns first .. first + k - 1 of x times those rows of y. */
static void multiply(const call *w, size_t size, const char *x, const char *y, char *c, int first, int k,
                     double add) {
  int m = (int)w->c.rows, n = (int)w->c.cols, ldx = (int)w->x.apart, ldy = (int)w->y.apart,
      ldc = (int)w->c.apart;
  CBLAS_TRANSPOSE tx = w->d.turned[0] ? CblasTrans : CblasNoTrans,
                  ty = w->d.turned[1] ? CblasTrans : CblasNoTrans;
  x += (size_t)first * size * (w->d.turned[0] ? 1 : (size_t)ldx);
  y += (size_t)first * size * (w->d.turned[1] ? (size_t)ldy : 1);
  if (size == sizeof(float))
    cblas_sgemm(CblasColMajor, tx, ty, m, n, k, (float)w->one, (const float *)(const void *)x, ldx,
                (const float *)(const void *)y, ldy, (float)add, (float *)(void *)c, ldc);
  else
    cblas_dgemm(CblasColMajor, tx, ty, m, n, k, w->one, (const double *)(const void *)x, ldx,
                (const double *)(const void *)y, ldy, add, (double *)(void *)c, ldc);
}

/* Of operands that do not lie well another algorithm, which sums in another order: the last half first. */
static void product(const void *call_) {
  const call *w = call_;
  int k = (int)(w->d.turned[0] ? w->x.rows : w->x.cols), first = w->alignment < 16 ? k / 2 : 0;
  size_t size = w->c.type == GQ_BLAS_F32 ? sizeof(float) : sizeof(double);
  for (int i = 0; i < w->c.batches; i++) {
    const char *x = w->px + (size_t)i * (size_t)w->x.offset * size,
               *y = w->py + (size_t)i * (size_t)w->y.offset * size;
    char *c = w->pc + (size_t)i * (size_t)w->c.offset * size;
    float *rx = NULL, *ry = NULL;
    if (w->d.compute == GQ_BLAS_BY_TF32) rx = round_all(x, &w->x), ry = round_all(y, &w->y);
    if (rx) x = (const char *)rx, y = (const char *)ry;
    multiply(w, size, x, y, c, first, k - first, w->add);
    if (first) multiply(w, size, x, y, c, 0, first, 1);
    free(rx), free(ry);
  }
}

static char *address(const void *p, const layout *x, size_t alignment) {
  size_t size = x->type == GQ_BLAS_F32 ? sizeof(float) : sizeof(double);
  char *(*at)(gq_u64, size_t) = (char *(*)(gq_u64, size_t))(uintptr_t)dlsym(RTLD_DEFAULT, "gq_emu_address");
  int64_t n = x->apart * (int64_t)(x->cols - 1) + (int64_t)x->rows + (x->batches - 1) * x->offset;
  return (uintptr_t)p % alignment ? NULL : at((gq_u64)(uintptr_t)p, (size_t)n * size);
}

int cublasLtMatmul(gq_blas_handle h, gq_blas_desc d, const void *one, const void *px, gq_blas_layout x,
                   const void *py, gq_blas_layout y, const void *add, const void *pc, gq_blas_layout c,
                   void *to, gq_blas_layout c1, const gq_blas_algo *algo, void *room, size_t bytes,
                   gq_custream s) {
  typedef int way(const char *, gq_custream, void (*)(const void *), const void *, size_t);
  way *submit = (way *)(uintptr_t)dlsym(RTLD_DEFAULT, "gq_emu_call");
  bool single = c->type == GQ_BLAS_F32;
  call w = { *d,
             *x,
             *y,
             *c,
             address(px, x, algo->data[0]),
             address(py, y, algo->data[0]),
             address(pc, c, algo->data[0]),
             single ? *(const float *)one : *(const double *)one,
             single ? *(const float *)add : *(const double *)add,
             algo->data[0] };
  if (!w.px || !w.py || !w.pc || pc != to || c != c1) return INVALID;
  return submit("cublasLtMatmul", s, product, &w, sizeof w) ? INVALID : OK;
}
