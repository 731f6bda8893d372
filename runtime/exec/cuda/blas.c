/*
** blas.c -- products by cuBLASLt, where rows or columns of their operands lie side by side; others are kernels.h's. The
** algorithm is the library's first choice among those that add nothing across blocks, asked for once for products of
** one kind: the same bits each time.
*/
#include "cuda.h"

#include <stdlib.h>
#include <string.h>

typedef struct matrix { /* columns side by side, as the library has it */
  long long rows, cols, apart;
  long long turned; /* it is the transpose that lies so */
} matrix;

typedef struct key {
  matrix x, y; /* c' = y' x': rows of c are columns there */
  long long batches, apart[2], m, n;
  int dtype, add, aligned, tf32;
} key;

typedef struct plan {
  key k;
  gq_blas_desc desc;
  gq_blas_layout x, y, c;
  gq_blas_algo algo;
  bool known, none; /* nothing of the library does it */
} plan;

static struct {
  plan **at; /* open addressing, at most half full; not gq_alloc: they stay as long as the process */
  size_t size, count;
} plans;

static gq_blas_handle handle;

/* Number (r, c) is at r rs + c cs. */
static bool lies(long long rows, long long cols, long long rs, long long cs, matrix *out) {
  *out = (matrix){ rows, cols, cols == 1 ? rows : cs, false };
  if ((rs == 1 || rows == 1) && out->apart >= rows) return true;
  *out = (matrix){ rows, cols, rows == 1 ? cols : rs, true };
  return (cs == 1 || cols == 1) && out->apart >= cols;
}

/* The batch is one dimension, in which an operand may stay where it is. */
static bool key_of(const gq_launch *l, void *const *p, key *k) {
  const gq_product_args *a = (const gq_product_args *)(const void *)l->args;
  *k = (key){ .batches = a->batches, .m = a->m, .n = a->n, .dtype = l->part.d, .add = a->add != 0 };
  if (p[3] || !a->m || !a->n || !a->k || a->d.ndim > 1) return false;
  if (!lies(a->n, a->k, a->bc, a->br, &k->x) || !lies(a->k, a->m, a->ac, a->ar, &k->y)) return false;
  for (int i = 0; i < 2; i++) k->apart[i] = a->d.ndim ? a->s[1 - i].s[0] : 0;
  k->aligned = 1;
  for (int i = 0; i < 3; i++) k->aligned = k->aligned && (uintptr_t)p[i] % 16 == 0;
  k->tf32 = l->part.d == GQ_F32 && *gq_core->tf32;
  return true;
}

/* ---- plans ---- */

static size_t hash(const key *k) {
  const unsigned char *s = (const unsigned char *)k;
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < sizeof *k; i++) h = (h ^ s[i]) * 0x100000001b3u;
  return (size_t)gq_mix(h);
}

static plan **place(const key *k) {
  size_t i = hash(k) & (plans.size - 1);
  while (plans.at[i] && memcmp(&plans.at[i]->k, k, sizeof *k) != 0) i = (i + 1) & (plans.size - 1);
  return &plans.at[i];
}

static int make_room(void) {
  size_t n = plans.size, size = n ? 2 * n : 64;
  plan **old = plans.at, **at = 2 * (plans.count + 1) > n ? calloc(size, sizeof *at) : old;
  if (!at) return gq_nomem(size * sizeof *at);
  if (at == old) return GQ_OK;
  plans.at = at, plans.size = size;
  for (size_t i = 0; i < n; i++)
    if (old[i]) *place(&old[i]->k) = old[i];
  free(old);
  return GQ_OK;
}

static int check(int error, const char *what) {
  return error ? gq_fail(GQ_ESTATE, "cuda: %s fails (error %d)", what, error) : GQ_OK;
}

static int set(gq_blas_layout x, int which, const void *value, size_t bytes) {
  return check(gq_blas.layout_set(x, which, value, bytes), "cublasLtMatrixLayoutSetAttribute");
}

static int layout(gq_dtype d, const matrix *x, long long batches, long long apart, gq_blas_layout *out) {
  int32_t count = (int32_t)batches;
  int64_t offset = apart;
  GQ_TRY(check(gq_blas.layout(out, d == GQ_F32 ? GQ_BLAS_F32 : GQ_BLAS_F64,
                              (uint64_t)(x->turned ? x->cols : x->rows),
                              (uint64_t)(x->turned ? x->rows : x->cols), x->apart),
               "cublasLtMatrixLayoutCreate"));
  if (batches == 1) return GQ_OK;
  GQ_TRY(set(*out, GQ_BLAS_BATCHES, &count, sizeof count));
  return set(*out, GQ_BLAS_APART, &offset, sizeof offset);
}

static int describe(plan *p) {
  const key *k = &p->k;
  int compute = k->dtype == GQ_F64 ? GQ_BLAS_BY_F64 : k->tf32 ? GQ_BLAS_BY_TF32 : GQ_BLAS_BY_F32;
  const matrix c = { k->n, k->m, k->n, false };
  int32_t turned[2] = { k->x.turned, k->y.turned };
  GQ_TRY(check(gq_blas.desc(&p->desc, compute, k->dtype == GQ_F32 ? GQ_BLAS_F32 : GQ_BLAS_F64),
               "cublasLtMatmulDescCreate"));
  for (int i = 0; i < 2; i++)
    GQ_TRY(check(gq_blas.desc_set(p->desc, GQ_BLAS_TURNED + i, &turned[i], sizeof *turned),
                 "cublasLtMatmulDescSetAttribute"));
  GQ_TRY(layout((gq_dtype)k->dtype, &k->x, k->batches, k->apart[0], &p->x));
  GQ_TRY(layout((gq_dtype)k->dtype, &k->y, k->batches, k->apart[1], &p->y));
  return layout((gq_dtype)k->dtype, &c, k->batches, k->m * k->n, &p->c);
}

/* No room beside the operands, and no sums across blocks. */
static int prefer(const key *k, gq_blas_preference *out) {
  uint32_t scheme = 0, alignment = k->aligned ? 16 : k->dtype == GQ_F32 ? 4 : 8;
  GQ_TRY(check(gq_blas.preference(out), "cublasLtMatmulPreferenceCreate"));
  int error = gq_blas.preference_set(*out, GQ_BLAS_SCHEMES, &scheme, sizeof scheme);
  for (int i = 0; i < 4 && !error; i++)
    error = gq_blas.preference_set(*out, GQ_BLAS_ALIGNMENT + i, &alignment, sizeof alignment);
  return check(error, "cublasLtMatmulPreferenceSetAttribute");
}

static int choose(plan *p) {
  gq_blas_preference wish = NULL;
  gq_blas_choice choice;
  int n = 0;
  GQ_TRY(describe(p));
  int status = prefer(&p->k, &wish);
  if (status == GQ_OK)
    p->none =
      gq_blas.choose(handle, p->desc, p->x, p->y, p->c, p->c, wish, 1, &choice, &n) || n < 1 || choice.state;
  if (wish) gq_blas.preference_free(wish);
  if (!p->none) p->algo = choice.algo;
  p->known = status == GQ_OK;
  return status;
}

static int find(const key *k, plan **out) {
  if (!handle) GQ_TRY(check(gq_blas.create(&handle), "cublasLtCreate"));
  GQ_TRY(make_room());
  plan **at = place(k);
  if (!*at) {
    if (!(*at = calloc(1, sizeof **at))) return gq_nomem(sizeof **at);
    (*at)->k = *k, plans.count++;
  }
  *out = *at;
  return (*at)->known ? GQ_OK : choose(*at);
}

int gq_cuda_blas(const gq_launch *l, void *const *p, bool *done) {
  key k;
  plan *x = NULL;
  *done = false;
  if (!gq_blas.create) return GQ_OK; /* api.c: not wanted */
  memset(&k, 0, sizeof k);
  if (!key_of(l, p, &k)) return GQ_OK;
  GQ_TRY(gq_cuda_enter());
  GQ_TRY(find(&k, &x));
  if (x->none) return GQ_OK;
  const float single[2] = { 1, (float)k.add };
  const double number[2] = { 1, k.add };
  const void *one = k.dtype == GQ_F32 ? (const void *)&single[0] : &number[0],
             *add = k.dtype == GQ_F32 ? (const void *)&single[1] : &number[1];
  *done = true;
  return check(gq_blas.product(handle, x->desc, one, p[2], x->x, p[1], x->y, add, p[0], x->c, p[0], x->c,
                               &x->algo, NULL, 0, gq_cuda_stream()),
               "cublasLtMatmul");
}
