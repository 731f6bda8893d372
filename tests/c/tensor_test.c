/*
** tensor_test.c -- runtime/tensor: shapes with hostile sizes, views, copies between all dtypes and
** strides, parameters moved into one block.
*/
#include "runtime/tensor/tensor.h"
#include "check.h"

#include <math.h>
#include <string.h>

#define SHAPE(...) \
  gq_shape_of((int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), (const int64_t[]){ __VA_ARGS__ })

static const gq_shape number = { 0 };

/* 0, 1, 2, ... in row-major order. */
static gq_tensor *counting(gq_dtype d, gq_shape s) {
  gq_tensor *t;
  if (gq_tensor_new(d, s, &t) != GQ_OK) return NULL;
  for (int64_t i = 0; i < gq_numel(s); i++) {
    int64_t at[GQ_MAXDIM], rest = i;
    for (int k = s.ndim - 1; k >= 0; k--) at[k] = rest % s.dim[k], rest /= s.dim[k];
    gq_tensor_set(t, at, (double)i);
  }
  return t;
}

static double get1(const gq_tensor *t, int64_t i) { return gq_tensor_get(t, &i); }
static double get2(const gq_tensor *t, int64_t i, int64_t j) {
  return gq_tensor_get(t, (const int64_t[]){ i, j });
}

static void test_shapes(void) {
  char text[80];
  size_t bytes;
  CHECK(strcmp(gq_shape_text(SHAPE(2, 3), text, sizeof text), "{2, 3}") == 0);
  CHECK(strcmp(gq_shape_text(number, text, sizeof text), "{}") == 0);
  CHECK(strlen(gq_shape_text(SHAPE(1000, 1000, 1000), text, 8)) == 7);
  CHECK(gq_shape_check(number, GQ_F64, &bytes) == GQ_OK && bytes == 8);
  CHECK(gq_shape_check(SHAPE(3, 0, 5), GQ_F32, &bytes) == GQ_OK && bytes == 0);
  CHECK(gq_shape_check(SHAPE((int64_t)1 << 40), GQ_BOOL, &bytes) == GQ_OK);
  CHECK(gq_shape_check(SHAPE(((int64_t)1 << 40) + 1), GQ_BOOL, NULL) == GQ_ESHAPE);
  CHECK(gq_shape_check(SHAPE((int64_t)1 << 32, (int64_t)1 << 32), GQ_F32, NULL) == GQ_ESHAPE);
  CHECK(gq_shape_check(SHAPE(INT64_MAX, 2), GQ_F32, NULL) == GQ_ESHAPE);
  CHECK(gq_shape_check(SHAPE(0, INT64_MAX, INT64_MAX), GQ_F32, NULL) == GQ_ESHAPE);
  CHECK(gq_shape_check(SHAPE(INT64_MAX, INT64_MAX, 0, -1), GQ_F32, NULL) == GQ_ESHAPE);
  CHECK(gq_shape_check(SHAPE(-1), GQ_F32, NULL) == GQ_ESHAPE);
  CHECK(gq_shape_check(SHAPE(1, 1, 1, 1, 1, 1, 1, 1, 1), GQ_F32, NULL) == GQ_ESHAPE);
  CHECK(gq_shape_check((gq_shape){ .ndim = -1 }, GQ_F32, NULL) == GQ_ESHAPE);
  gq_dtype d;
  CHECK(gq_dtype_of("int64", &d) && d == GQ_I64 && !gq_dtype_of("float", &d));
  for (int i = 0; i < GQ_NDTYPE; i++) CHECK(gq_dtype_of(gq_dtype_name((gq_dtype)i), &d) && (int)d == i);
}

static void test_broadcast(void) {
  gq_shape s;
  CHECK(gq_shape_broadcast(SHAPE(3, 1), SHAPE(4), &s) == GQ_OK && gq_shape_equal(s, SHAPE(3, 4)));
  CHECK(gq_shape_broadcast(number, SHAPE(2), &s) == GQ_OK && gq_shape_equal(s, SHAPE(2)));
  CHECK(gq_shape_broadcast(SHAPE(0), SHAPE(1), &s) == GQ_OK && gq_shape_equal(s, SHAPE(0)));
  CHECK(gq_shape_broadcast(SHAPE(0), SHAPE(2), &s) == GQ_ESHAPE);
  CHECK(gq_shape_broadcast(SHAPE(2, 3), SHAPE(3, 2), &s) == GQ_ESHAPE);
  CHECK(gq_shape_broadcast(SHAPE(1 << 30, 1), SHAPE(1 << 30), &s) == GQ_ESHAPE);
}

static void test_views(void) {
  gq_tensor *t = counting(GQ_F32, SHAPE(3, 4)), *v, *w;
  CHECK(gq_tensor_view(t, SHAPE(4, 3), (const int64_t[]){ 1, 4 }, 0, &v) == GQ_OK); /* transposed */
  CHECK(get2(v, 1, 2) == 9 && !gq_tensor_contiguous(v) && t->storage->refs == 2);
  CHECK(gq_tensor_contiguous_get(v, &w) == GQ_OK && gq_tensor_contiguous(w) && get2(w, 1, 2) == 9 &&
        w->storage != t->storage);
  gq_tensor_unref(w);
  CHECK(gq_tensor_contiguous_get(t, &w) == GQ_OK && w == t && t->refs == 2);
  gq_tensor_unref(w);
  gq_tensor_unref(v);
  CHECK(gq_tensor_view(t, SHAPE(4), (const int64_t[]){ -1 }, 11, &v) == GQ_OK &&
        get1(v, 3) == 8); /* backwards */
  gq_tensor_unref(v);
  CHECK(gq_tensor_view(t, SHAPE(12), (const int64_t[]){ 1 }, 1, &v) == GQ_EINDEX && !v);
  CHECK(gq_tensor_view(t, SHAPE(2), (const int64_t[]){ INT64_MAX }, 1, &v) == GQ_EINDEX);
  CHECK(gq_tensor_view(t, SHAPE(3, 3), (const int64_t[]){ INT64_MAX / 2, INT64_MAX / 2 }, 0, &v) ==
        GQ_EINDEX);
  CHECK(gq_tensor_view(t, SHAPE(1), (const int64_t[]){ 1 }, -1, &v) == GQ_EINDEX);
  CHECK(gq_tensor_view(t, SHAPE(2), (const int64_t[]){ -1 }, 0, &v) == GQ_EINDEX);
  CHECK(gq_tensor_view(t, SHAPE(0), (const int64_t[]){ 1 }, 13, &v) == GQ_OK && v->offset == 0);
  gq_tensor_unref(v);
  gq_tensor_view(t, SHAPE(4), (const int64_t[]){ 1 }, 4, &v);
  gq_tensor_unref(t); /* the view keeps the storage */
  CHECK(get1(v, 0) == 4);
  gq_tensor_unref(v);
  CHECK(gq_tensor_traced(GQ_F32, SHAPE(2), 1, 5, &t) == GQ_OK && !gq_tensor_data(t));
  CHECK(gq_tensor_view(t, SHAPE(2), (const int64_t[]){ 1 }, 0, &v) == GQ_ESTATE);
  CHECK(gq_tensor_contiguous_get(t, &v) == GQ_ESTATE && gq_tensor_fill(t, 0) == GQ_ESTATE);
  gq_tensor_unref(t);
  gq_tensor_unref(NULL);
}

/* Every pair of dtypes, packed and through transposed views on both sides. */
static void test_copies(void) {
  for (int to = 0; to < GQ_NDTYPE; to++)
    for (int from = 0; from < GQ_NDTYPE; from++) {
      gq_tensor *src = counting((gq_dtype)from, SHAPE(3, 4)), *dst = counting((gq_dtype)to, SHAPE(3, 4)), *sv,
                *dv;
      CHECK(gq_tensor_copy(dst, src) == GQ_OK && dst->storage->version == 1);
      double want = from == GQ_BOOL || to == GQ_BOOL ? 1 : 7;
      CHECK(get2(dst, 1, 3) == want && get2(dst, 0, 0) == 0);
      gq_tensor_fill(dst, 0);
      gq_tensor_view(src, SHAPE(4, 3), (const int64_t[]){ 1, 4 }, 0, &sv);
      gq_tensor_view(dst, SHAPE(4, 3), (const int64_t[]){ 1, 4 }, 0, &dv);
      CHECK(gq_tensor_copy(dv, sv) == GQ_OK && get2(dst, 1, 3) == want && dst->storage->version == 3);
      gq_tensor_unref(sv), gq_tensor_unref(dv), gq_tensor_unref(src), gq_tensor_unref(dst);
    }
}

static void test_conversions(void) {
  static const double hard[] = { NAN, INFINITY, -INFINITY, 1e300, -1e300, -0.5, 0x1p63 };
  gq_tensor *x = counting(GQ_F64, SHAPE(7)), *i, *f;
  memcpy(gq_tensor_data(x), hard, sizeof hard);
  gq_tensor_new(GQ_I64, SHAPE(7), &i);
  gq_tensor_new(GQ_F32, SHAPE(7), &f);
  CHECK(gq_tensor_copy(i, x) == GQ_OK && gq_tensor_copy(f, x) == GQ_OK);
  static const int64_t want[] = { 0, INT64_MAX, INT64_MIN, INT64_MAX, INT64_MIN, 0, INT64_MAX };
  CHECK(memcmp(gq_tensor_data(i), want, sizeof want) == 0);
  CHECK(isnan(get1(f, 0)) && get1(f, 1) == INFINITY && get1(f, 3) == INFINITY);
  int64_t at = 1;
  CHECK(gq_tensor_get_int(i, &at) == INT64_MAX && gq_tensor_get_int(x, &at) == INT64_MAX);
  gq_tensor_unref(x), gq_tensor_unref(i), gq_tensor_unref(f);
}

/* Overlapping views, expanded targets, other shapes. */
static void test_copy_hazards(void) {
  gq_tensor *t = counting(GQ_F32, SHAPE(6)), *a, *b, *wide;
  gq_tensor_view(t, SHAPE(5), (const int64_t[]){ 1 }, 0, &a);
  gq_tensor_view(t, SHAPE(5), (const int64_t[]){ 1 }, 1, &b);
  CHECK(gq_tensor_copy(b, a) == GQ_OK);
  bool ok = get1(t, 0) == 0;
  for (int64_t i = 1; i < 6; i++) ok = ok && get1(t, i) == (double)(i - 1);
  CHECK(ok);
  CHECK(gq_tensor_copy(a, t) == GQ_ESHAPE);
  gq_tensor_view(t, SHAPE(3, 6), (const int64_t[]){ 0, 1 }, 0, &wide);
  CHECK(gq_tensor_copy(wide, wide) == GQ_EARG && gq_tensor_fill(wide, 1) == GQ_EARG);
  CHECK(get2(wide, 2, 3) == 2);
  CHECK(gq_tensor_fill(b, 9) == GQ_OK && get1(t, 0) == 0 && get1(t, 5) == 9);
  gq_tensor_unref(wide), gq_tensor_unref(a), gq_tensor_unref(b), gq_tensor_unref(t);
  gq_tensor *empty = counting(GQ_I64, SHAPE(0, 3));
  CHECK(empty && gq_tensor_fill(empty, 1) == GQ_OK && gq_tensor_copy(empty, empty) == GQ_OK &&
        gq_tensor_contiguous(empty));
  gq_tensor_unref(empty);
  gq_tensor_new(GQ_BOOL, number, &t);
  CHECK(gq_tensor_fill(t, 3) == GQ_OK && gq_tensor_get(t, NULL) == 1);
  gq_tensor_unref(t);
}

static void test_flatten(void) {
  gq_tensor *t[4] = { counting(GQ_F32, SHAPE(2, 3)), counting(GQ_F32, SHAPE(4)), counting(GQ_F32, SHAPE(1)) },
            *flat, *v;
  bool moved[4];
  t[3] = t[0]; /* given twice */
  gq_tensor_view(t[1], SHAPE(4), (const int64_t[]){ 1 }, 0, &v);
  CHECK(gq_tensor_flatten(4, t, moved, &flat) == GQ_OK);
  CHECK(moved[0] && !moved[1] && moved[2] && !moved[3]);
  CHECK(gq_numel(flat->shape) == 7 && get1(flat, 5) == 5 && get1(flat, 6) == 0);
  gq_tensor_fill(flat, 2);
  CHECK(get2(t[0], 1, 2) == 2 && get1(t[2], 0) == 2 && get1(t[1], 3) == 3);
  gq_tensor *d[2] = { t[0], counting(GQ_F64, SHAPE(1)) }, *none;
  CHECK(gq_tensor_flatten(2, d, moved, &none) == GQ_EDTYPE && !none);
  CHECK(gq_tensor_flatten(0, NULL, NULL, &none) == GQ_OK && gq_numel(none->shape) == 0);
  gq_tensor_unref(none), gq_tensor_unref(d[1]), gq_tensor_unref(v), gq_tensor_unref(flat);
  for (int i = 0; i < 3; i++) gq_tensor_unref(t[i]);
}

/* Every allocation fails once: a status, and nothing is left behind. */
static void test_no_memory(void) {
  gq_tensor *t = counting(GQ_F32, SHAPE(3, 4)), *v, *w;
  gq_tensor_view(t, SHAPE(4, 3), (const int64_t[]){ 1, 4 }, 0, &v);
  size_t before = gq_live_blocks();
  for (long k = 0; k < 3; k++) {
    gq_alloc_fail(k, false);
    CHECK(gq_tensor_new(GQ_F32, SHAPE(5), &w) == GQ_ENOMEM && !w && gq_live_blocks() == before);
    gq_alloc_fail(k, false);
    CHECK(gq_tensor_contiguous_get(v, &w) == GQ_ENOMEM && !w && gq_live_blocks() == before);
  }
  gq_alloc_fail(0, false);
  CHECK(gq_tensor_view(t, SHAPE(1), (const int64_t[]){ 1 }, 0, &w) == GQ_ENOMEM && t->storage->refs == 2);
  gq_alloc_fail(-1, false);
  gq_tensor_unref(v), gq_tensor_unref(t);
}

/* t.grad.grad. ... a hundred thousand deep, freed without recursion. */
static void test_long_chain(void) {
  gq_tensor *first = NULL;
  for (int i = 0; i < 100000; i++) {
    gq_tensor *t;
    gq_tensor_new(GQ_F32, number, &t);
    t->grad = first;
    first = t;
  }
  gq_tensor_unref(first);
}

int main(void) {
  size_t before = gq_live_blocks();
  RUN(test_shapes());
  RUN(test_broadcast());
  RUN(test_views());
  RUN(test_copies());
  RUN(test_conversions());
  RUN(test_copy_hazards());
  RUN(test_flatten());
  RUN(test_no_memory());
  RUN(test_long_chain());
  RUN(CHECK(gq_live_blocks() == before));
  return DONE();
}
