/*
** binding.c -- the numbers of one solve bound to a field, and where gradients are added up, see binding.h.
*/
#include "binding.h"

#include <math.h>
#include <string.h>

/* Each slice has a copy of its own, in another order than the whole. */
static bool is_copied(const gq_field *f, int j) {
  if (f->columns) return f->axis[j] >= 0 && gq_field_boundary_shape(f, j).ndim > 1;
  return f->nslices > 1 && f->axis[j] > 0;
}

static size_t binding_bytes(const gq_field *f) {
  size_t n = f->pro_run ? gq_round64(gq_program_arena(f->pro_run)) : 0;
  for (int j = 0; j < f->nb; j++) {
    size_t size = gq_numel(gq_field_boundary_shape(f, j)) * gq_dtype_size(gq_field_boundary_dtype(f, j));
    if (f->direct[j] < 0) n += gq_round64(size);
    for (int s = 0; is_copied(f, j) && s < f->nslices; s++) n += gq_round64(gq_field_slice_bytes(f, s, j));
  }
  return n;
}

typedef struct prologue {
  const gq_field *f;
  void *arena;
  const void **in;
  void **out;
  int status;
} prologue;

static void run_serial(void *context, int i) {
  prologue *p = context;
  p->status = gq_program_run(p->f->pro_run, 0, p->arena, p->in, p->out);
}

/* Evaluate the computed boundaries; full[j]: address of each whole boundary value. */
static int run_prologue(gq_binding *b, char **next, const void **full) {
  const gq_field *f = b->field;
  const void **in = gq_pooled(&b->own, f->ncapture, sizeof *in);
  void **out = gq_pooled(&b->own, f->nb, sizeof *out);
  int status = GQ_OK, n = 0;
  GQ_TRY(gq_pool_status(&b->own));
  for (int i = 0; i < f->ncapture; i++) in[i] = gq_tensor_data(b->capture[i]);
  for (int j = 0; j < f->nb; j++) {
    if (f->direct[j] >= 0) {
      full[j] = in[f->direct[j]];
    } else {
      full[j] = out[n++] = *next;
      *next +=
        gq_round64(gq_numel(gq_field_boundary_shape(f, j)) * gq_dtype_size(gq_field_boundary_dtype(f, j)));
    }
  }
  if (f->pro_run) {
    void *arena = *next;
    *next += gq_round64(gq_program_arena(f->pro_run));
    if (f->lanes[0]) { /* the same bits on any number of threads */
      prologue p = { f, arena, in, out, GQ_OK };
      gq_parallel_apart(1, run_serial, &p);
      status = p.status;
    } else status = gq_program_run(f->pro_run, 0, arena, in, out);
  }
  return status;
}

int gq_capture_get(const gq_field *f, int i, gq_tensor *x, gq_tensor **out) {
  const gq_device *d = gq_tensor_device(x), *on = f->on->device;
  if (d == on) return gq_tensor_contiguous_get(x, out);
  if (d == gq_host && x->shape.ndim == 0) return gq_tensor_on(x, on, out);
  return gq_fail(
    GQ_EARG,
    "tensor %d that the function captures is on %s and the state on %s: move one of them, as in x:to(\"%s\")",
    i + 1, d->name, on->name, on->name);
}

static int bind(gq_binding *b, gq_tensor *const *capture) {
  const gq_field *f = b->field;
  b->capture = gq_pooled(&b->own, f->ncapture, sizeof *b->capture);
  b->value = gq_pooled(&b->own, (size_t)f->nslices * f->nb, sizeof *b->value);
  b->bytes = binding_bytes(f);
  b->block = gq_allocate(f->on, b->bytes + 64);
  const void **full = gq_pooled(&b->own, f->nb, sizeof *full);
  int status = b->block ? gq_pool_status(&b->own) : gq_nomem(b->bytes);
  for (int i = 0; status == GQ_OK && i < f->ncapture; i++)
    status = gq_capture_get(f, i, capture[i], &b->capture[i]);
  char *next = b->block;
  if (status == GQ_OK) status = run_prologue(b, &next, full);
  for (int s = 0; status == GQ_OK && s < f->nslices; s++)
    for (int j = 0; j < f->nb; j++) {
      gq_shape whole = gq_field_boundary_shape(f, j);
      size_t size = gq_dtype_size(gq_field_boundary_dtype(f, j));
      const void **v = &b->value[s * f->nb + j];
      *v = full[j];
      if (is_copied(f, j)) {
        gq_field_copy_slice(f->on, whole, f->axis[j], f->first[s], f->count[s], f->columns, size, next,
                            (char *)full[j], true);
        *v = next;
        next += gq_round64(gq_field_slice_bytes(f, s, j));
      } else if (f->nslices > 1 && f->axis[j] == 0 && whole.dim[0]) {
        *v = (const char *)full[j] + f->first[s] * (gq_numel(whole) / whole.dim[0]) * size;
      }
    }
  return status;
}

int gq_binding_new(const gq_field *f, gq_tensor *const *capture, gq_binding **out) {
  gq_binding *b = gq_calloc(1, sizeof *b);
  if (!b) return gq_nomem(sizeof *b);
  b->field = f;
  int status = bind(b, capture);
  if (status != GQ_OK) gq_binding_free(b);
  else *out = b;
  return status;
}

void gq_binding_free(gq_binding *b) {
  if (!b) return;
  for (int i = 0; b->capture && i < b->field->ncapture; i++) gq_tensor_unref(b->capture[i]);
  gq_release(b->field->on, b->block);
  gq_pool_free(&b->own);
  gq_free(b);
}

/* ---- gradients ---- */

/* Does boundary j's part of slice s stand in a block of its own? */
static bool apart(const gq_grads *g, const gq_field *f, int s, int j) {
  return f->want[j] && !(s == 0 && g->at[j]);
}

/* The first whole boundary that each capture is. */
static int use_results(const gq_field *f, gq_grads *g) {
  for (int j = 0; j < f->nb; j++) {
    int i = f->direct[j];
    if (!f->want[j] || i < 0 || f->axis[j] >= 0 || g->whole[i]) continue;
    GQ_TRY(gq_tensor_new_on(f->on->device, gq_field_boundary_dtype(f, j), gq_field_boundary_shape(f, j),
                            &g->whole[i]));
    g->at[j] = gq_tensor_data(g->whole[i]);
    g->bytes += gq_numel(g->whole[i]->shape) * gq_dtype_size(g->whole[i]->dtype);
  }
  return GQ_OK;
}

/* Bytes of boundary j in slice s: its gradient's, or its probe's. */
static size_t part_bytes(const gq_field *f, const gq_grads *g, int s, int j) {
  return gq_round64(g->probes ? f->probed[j] * gq_dtype_size(gq_field_boundary_dtype(f, j))
                              : gq_field_slice_bytes(f, s, j));
}

static int grads_init(const gq_field *f, bool results, gq_grads *g) {
  size_t block = 0;
  g->at = gq_calloc((size_t)f->nslices * f->nb + 1, sizeof *g->at);
  g->whole = gq_calloc(f->ncapture + 1, sizeof *g->whole);
  if (!g->at || !g->whole) return gq_nomem(f->nb);
  if (results) GQ_TRY(use_results(f, g));
  for (int s = 0; s < f->nslices; s++)
    for (int j = 0; j < f->nb; j++)
      if (apart(g, f, s, j)) block += part_bytes(f, g, s, j);
  g->block = gq_allocate(f->on, block + 64);
  if (!g->block) return gq_nomem(block);
  gq_zero(f->on, g->block, block + 64);
  g->bytes += block;
  char *next = g->block;
  for (int s = 0; s < f->nslices; s++)
    for (int j = 0; j < f->nb; j++)
      if (apart(g, f, s, j)) g->at[s * f->nb + j] = next, next += part_bytes(f, g, s, j);
  return GQ_OK;
}

static int grads_new(const gq_field *f, bool results, bool probes, gq_grads *g) {
  *g = (gq_grads){ .field = f, .probes = probes };
  int status = grads_init(f, results, g);
  if (status != GQ_OK) gq_grads_done(g);
  return status;
}

int gq_grads_new(const gq_field *f, bool results, gq_grads *g) { return grads_new(f, results, false, g); }
int gq_grads_probes(const gq_field *f, gq_grads *g) { return grads_new(f, false, true, g); }

double gq_grads_rms(const gq_field *f, const gq_grads *x, const gq_grads *y) {
  double sum = 0, count = 0;
  for (int j = 0; j < f->nb; j++) {
    bool apart = f->nslices > 1 && f->axis[j] >= 0;
    for (int s = 0; x->at[j] && s < (apart ? f->nslices : 1); s++) {
      size_t n = gq_numel(gq_field_slice_shape(f, s, j)), at = (size_t)s * f->nb + j;
      f->on->vec->joined(gq_field_boundary_dtype(f, j), n, apart ? 1 : f->nslices, f->nb, x->at + at,
                         y ? y->at + at : NULL, &sum);
      count += n;
    }
  }
  return count ? sqrt(sum / count) : 0;
}

/* Sums that are made together: to_i + weight x_i of one dtype. */
enum { SUMS = 64 };
typedef struct sums {
  int count;
  size_t n[SUMS];
  void *at[3 * SUMS];
} sums;

static void make_sums(const gq_field *f, gq_dtype d, double weight, sums *x) {
  f->on->vec->combine(d, x->count, x->n, 1, &weight, x->at);
  x->count = 0;
}

void gq_grads_add(const gq_field *f, double weight, const gq_grads *x, const gq_grads *to) {
  sums now = { 0 };
  for (gq_dtype d = GQ_F32; d <= GQ_F64; d++) {
    for (int s = 0; s < f->nslices; s++)
      for (int j = 0; j < f->nb; j++) {
        size_t at = (size_t)s * f->nb + j;
        if (!x->at[at] || gq_field_boundary_dtype(f, j) != d) continue;
        void **part = now.at + 3 * now.count;
        part[0] = part[1] = to->at[at], part[2] = x->at[at];
        now.n[now.count++] = x->probes ? f->probed[j] : gq_numel(gq_field_slice_shape(f, s, j));
        if (now.count == SUMS) make_sums(f, d, weight, &now);
      }
    make_sums(f, d, weight, &now);
  }
}

void gq_grads_done(gq_grads *g) {
  for (int i = 0; g->whole && i < g->field->ncapture; i++) gq_tensor_unref(g->whole[i]);
  gq_free(g->whole);
  gq_free(g->at);
  if (g->field) gq_release(g->field->on, g->block);
  *g = (gq_grads){ 0 };
}

/* Vectors that are added to another, many at once. */
typedef struct summands {
  int n;
  void *at[2 + GQ_TERMS];
} summands;

static void add_parts(const gq_field *f, gq_dtype d, size_t n, void *dst, summands *x) {
  static const double ones[GQ_TERMS] = { [0 ... GQ_TERMS - 1] = 1 };
  x->at[0] = x->at[1] = dst;
  if (x->n) f->on->vec->combine(d, 1, &n, x->n, ones, x->at);
  x->n = 0;
}

static void add_part(const gq_field *f, gq_dtype d, size_t n, void *dst, void *src, summands *x) {
  if (x->n == GQ_TERMS) add_parts(f, d, n, dst, x);
  x->at[2 + x->n++] = src;
}

/* Add to dst what the slices hold of the gradient of boundary j and dst is not. */
static void sum_slices(const gq_field *f, const gq_grads *g, int j, void *dst) {
  gq_shape whole = gq_field_boundary_shape(f, j);
  gq_dtype d = gq_field_boundary_dtype(f, j);
  summands x = { 0 };
  for (int s = 0; s < f->nslices; s++) {
    void *src = g->at[s * f->nb + j];
    if (src == dst) continue;
    if (f->axis[j] >= 0)
      gq_field_copy_slice(f->on, whole, f->axis[j], f->first[s], f->count[s], f->columns, gq_dtype_size(d),
                          src, dst, false);
    else add_part(f, d, gq_numel(whole), dst, src, &x);
  }
  add_parts(f, d, gq_numel(whole), dst, &x);
}

static int pull_back(const gq_binding *b, gq_tensor *const *whole, gq_tensor **grad) {
  const gq_field *f = b->field;
  const void **in = gq_calloc(f->ncapture + f->nb + 1, sizeof *in);
  void **out = gq_calloc(f->ncapture + 1, sizeof *out);
  void *arena = gq_allocate(f->on, gq_program_arena(f->pro_pull) + 64);
  int status = in && out && arena ? GQ_OK : gq_nomem(f->nb), n = 0, m = 0;
  if (status == GQ_OK) {
    for (int i = 0; i < f->ncapture; i++) in[n++] = gq_tensor_data(b->capture[i]);
    for (int j = 0; j < f->nb; j++)
      if (f->direct[j] < 0 && f->want[j]) in[n++] = gq_tensor_data(whole[j]);
    for (int i = 0; i < f->ncapture; i++)
      if (f->pull_adds[i]) out[m++] = gq_tensor_data(grad[i]);
    status = gq_program_run(f->pro_pull, 0, arena, in, out);
  }
  gq_free(in);
  gq_free(out);
  gq_release(f->on, arena);
  return status;
}

int gq_grads_collect(const gq_binding *b, gq_grads *g, gq_tensor **grad) {
  const gq_field *f = b->field;
  int status = GQ_OK;
  for (int i = 0; i < f->ncapture; i++) grad[i] = NULL;
  gq_tensor **whole = gq_calloc(f->nb + 1, sizeof *whole);
  if (!whole) return gq_nomem(f->nb);
  for (int i = 0; status == GQ_OK && i < f->ncapture; i++) {
    if (!f->want_capture[i]) continue;
    grad[i] = g->whole[i], g->whole[i] = NULL;
    if (!grad[i])
      status = gq_tensor_new_on(f->on->device, b->capture[i]->dtype, b->capture[i]->shape, &grad[i]);
  }
  for (int j = 0; status == GQ_OK && j < f->nb; j++) {
    if (!f->want[j]) continue;
    if (f->direct[j] < 0) {
      status = gq_tensor_new_on(f->on->device, gq_field_boundary_dtype(f, j), gq_field_boundary_shape(f, j),
                                &whole[j]);
      if (status == GQ_OK) sum_slices(f, g, j, gq_tensor_data(whole[j]));
    } else {
      sum_slices(f, g, j, gq_tensor_data(grad[f->direct[j]]));
    }
  }
  if (status == GQ_OK && f->pro_pull) status = pull_back(b, whole, grad);
  for (int j = 0; j < f->nb; j++) gq_tensor_unref(whole[j]);
  gq_free(whole);
  for (int i = 0; status != GQ_OK && i < f->ncapture; i++) gq_tensor_unref(grad[i]), grad[i] = NULL;
  return status;
}
