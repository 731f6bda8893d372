/*
** exec_test.c -- gq_apply against the definition of each operation, number by number: views of
** every kind, broadcasting, empty tensors, large ones that use the threads, bad indices.
*/
#include "graphs.h"
#include "runtime/exec/cpu/cpu.h"

static void check(bool ok, const char *op, const char *what) {
  if (ok) tests_passed++;
  else tests_failed++, printf("FAILED: %s: %s\n", op, what);
}

static gq_tensor *make(gq_dtype d, int ndim, const int64_t *dim) {
  gq_tensor *t = tensor(d, gq_shape_of(ndim, dim));
  for (int64_t i = 0; i < gq_numel(t->shape); i++) {
    if (d == GQ_F32) ((float *)gq_tensor_data(t))[i] = (float)rnd(2001) / 500 - 2;
    if (d == GQ_F64) ((double *)gq_tensor_data(t))[i] = (double)rnd(2001) / 500 - 2;
    if (d == GQ_I64) ((int64_t *)gq_tensor_data(t))[i] = (int64_t)rnd(19) - 9;
    if (d == GQ_BOOL) ((uint8_t *)gq_tensor_data(t))[i] = rnd(2);
  }
  return t;
}
#define DIMS(...) \
  (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), (int64_t[]) { __VA_ARGS__ }

static gq_tensor *apply(gq_op op, int n, gq_tensor *const *args, const gq_attr *attr) {
  gq_tensor *out;
  must(gq_apply(op, n, args, attr, &out));
  return out;
}

/* `t` given up for an operation on it. */
static gq_tensor *then(gq_tensor *t, gq_op op, gq_attr attr) {
  gq_tensor *out = apply(op, 1, &t, &attr);
  gq_tensor_unref(t);
  return out;
}

/* {3, 4, 5} seen in six ways */
static gq_tensor *view(gq_dtype d, int kind) {
  switch (kind) {
    case 0: return make(d, DIMS(3, 4, 5));
    case 1: return then(make(d, DIMS(5, 3, 4)), GQ_OP_PERMUTE, (gq_attr){ .perm = { 1, 2, 0 } });
    case 2:
      return then(
        make(d, DIMS(4, 9, 7)), GQ_OP_SLICE,
        (gq_attr){ .shape = gq_shape_of(DIMS(3, 4, 5)), .start = { 1, 0, 2 }, .step = { 1, 2, 1 } });
    case 3: return then(make(d, DIMS(4, 1)), GQ_OP_EXPAND, (gq_attr){ .shape = gq_shape_of(DIMS(3, 4, 5)) });
    case 4: return then(make(d, DIMS(5)), GQ_OP_EXPAND, (gq_attr){ .shape = gq_shape_of(DIMS(3, 4, 5)) });
    default: return then(make(d, 0, NULL), GQ_OP_EXPAND, (gq_attr){ .shape = gq_shape_of(DIMS(3, 4, 5)) });
  }
}

/* ---- walking ---- */

static bool next(gq_shape s, int64_t *i) {
  for (int k = s.ndim - 1; k >= 0; k--) {
    if (++i[k] < s.dim[k]) return true;
    i[k] = 0;
  }
  return false;
}

/* The number of t at the position `i` of a shape that t broadcasts to. */
static double at(const gq_tensor *t, gq_shape s, const int64_t *i) {
  int64_t j[GQ_MAXDIM] = { 0 };
  for (int k = 0; k < t->shape.ndim; k++) { j[k] = t->shape.dim[k] == 1 ? 0 : i[k + s.ndim - t->shape.ndim]; }
  return t->dtype == GQ_I64 ? (double)gq_tensor_get_int(t, j) : gq_tensor_get(t, j);
}

/* One number through the kernel itself, which kernels_test.c knows. */
static double scalar(gq_op op, gq_dtype d, const double *x, gq_dtype to) {
  _Alignas(8) char in[3][8], out[8];
  for (int i = 0; i < 3; i++) {
    gq_dtype di = op == GQ_OP_WHERE && i == 0 ? GQ_BOOL : d;
    if (di == GQ_F32) *(float *)in[i] = (float)x[i];
    else if (di == GQ_F64) *(double *)in[i] = x[i];
    else if (di == GQ_I64) *(int64_t *)in[i] = (int64_t)x[i];
    else *(uint8_t *)in[i] = x[i] != 0;
  }
  const gq_kernels *k = gq_cpu();
  gq_kernel f = op == GQ_OP_CAST ? k->cast[d][to] : k->op[op][d][GQ_VV];
  f(out, in[0], in[1], in[2], 1);
  const void *result = out;
  switch (to) {
    case GQ_F32: return *(const float *)result;
    case GQ_F64: return *(const double *)result;
    case GQ_I64: return (double)*(const int64_t *)result;
    default: return *(const uint8_t *)result;
  }
}

static bool same(double a, double b) { return a == b || (a != a && b != b); }

static void test_elementwise(gq_op op, gq_dtype d, int nargs, gq_tensor **args, const gq_attr *attr) {
  gq_tensor *out = apply(op, nargs, args, attr);
  int64_t i[GQ_MAXDIM] = { 0 };
  bool ok = gq_tensor_contiguous(out);
  if (gq_numel(out->shape)) do {
      double x[3] = { 0 };
      for (int k = 0; k < nargs; k++) x[k] = at(args[k], out->shape, i);
      ok = ok && same(at(out, out->shape, i), scalar(op, d, x, out->dtype));
    } while (next(out->shape, i));
  check(ok, gq_ops[op].name, gq_dtype_name(d));
  gq_tensor_unref(out);
}

static bool defined(gq_op op, gq_dtype d) {
  gq_dtype ds[3] = { op == GQ_OP_WHERE ? GQ_BOOL : d, d, d }, dt;
  gq_shape s[3] = { { 0 } }, st;
  int n = op == GQ_OP_WHERE ? 3 : gq_ops[op].kind == GQ_K_UNARY ? 1 : 2;
  return gq_infer(op, n, ds, s, NULL, &dt, &st) == GQ_OK;
}

static void all_elementwise(void) {
  for (int op = 0; op < GQ_NOP; op++)
    for (int d = 0; d < GQ_NDTYPE; d++) {
      if (!gq_op_elementwise((gq_op)op) || op == GQ_OP_CAST || !defined((gq_op)op, (gq_dtype)d)) continue;
      int n = op == GQ_OP_WHERE ? 3 : gq_ops[op].kind == GQ_K_UNARY ? 1 : 2;
      for (int k = 0; k < 36; k++) {
        gq_tensor *a[3] = { view(op == GQ_OP_WHERE ? GQ_BOOL : (gq_dtype)d, k % 6), view((gq_dtype)d, k / 6),
                            view((gq_dtype)d, (k + k / 6) % 6) };
        test_elementwise((gq_op)op, (gq_dtype)d, n, a, NULL);
        for (int i = 0; i < 3; i++) gq_tensor_unref(a[i]);
      }
    }
  for (int from = 0; from < GQ_NDTYPE; from++)
    for (int to = 0; to < GQ_NDTYPE; to++)
      for (int k = 0; k < 6; k++) {
        gq_tensor *a = view((gq_dtype)from, k);
        test_elementwise(GQ_OP_CAST, (gq_dtype)from, 1, &a, &(gq_attr){ .dtype = (gq_dtype)to });
        gq_tensor_unref(a);
      }
}

/* Rows, columns, single numbers, long rows and many rows, empty. */
static void broadcasting(void) {
  static const struct {
    int na, nb;
    int64_t a[3], b[3];
  } s[] = {
    { 2, 1, { 700, 20 }, { 20 } },
    { 1, 2, { 20 }, { 700, 20 } },
    { 2, 2, { 700, 20 }, { 700, 1 } },
    { 2, 2, { 3, 2500 }, { 1, 2500 } },
    { 2, 2, { 3, 2500 }, { 3, 1 } },
    { 2, 0, { 3, 2500 }, { 0 } },
    { 0, 0, { 0 }, { 0 } },
    { 2, 1, { 0, 5 }, { 5 } },
    { 2, 2, { 4, 0 }, { 1, 0 } },
    { 3, 2, { 6, 1, 70 }, { 50, 1 } },
    { 1, 1, { 1 }, { 3000 } },
    { 3, 3, { 300, 1, 400 }, { 1, 2, 400 } },
    { 1, 0, { 1 }, { 0 } },
    { 2, 2, { 1, 1 }, { 1, 1 } },
  };
  static const gq_op ops[] = { GQ_OP_SUB, GQ_OP_DIV, GQ_OP_LT };
  for (size_t k = 0; k < sizeof s / sizeof *s; k++)
    for (int o = 0; o < 3; o++)
      for (int d = GQ_F32; d <= GQ_F64; d++) {
        gq_tensor *a[2] = { make((gq_dtype)d, s[k].na, s[k].a), make((gq_dtype)d, s[k].nb, s[k].b) };
        test_elementwise(ops[o], (gq_dtype)d, 2, a, NULL);
        gq_tensor_unref(a[0]);
        gq_tensor_unref(a[1]);
      }
}

/* ---- reductions ---- */

static bool beats(gq_op op, double x, double best) {
  if (best != best) return false;
  if (x != x) return true;
  return op == GQ_OP_AMAX || op == GQ_OP_ARGMAX ? x > best : x < best;
}

static void test_reduction(gq_op op, gq_tensor *x, int mask) {
  gq_attr attr = { .flags = mask };
  bool position = op == GQ_OP_ARGMAX || op == GQ_OP_ARGMIN;
  if (position) attr = (gq_attr){ .axis = __builtin_ctz((unsigned)mask) };
  gq_tensor *out = apply(op, 1, &x, &attr);
  int64_t o[GQ_MAXDIM] = { 0 };
  bool ok = true;
  if (gq_numel(out->shape)) do {
      int64_t i[GQ_MAXDIM] = { 0 };
      double sum = 0, best = 0, where = 0, seen = 0;
      if (gq_numel(x->shape)) do {
          bool mine = true;
          for (int k = 0; k < x->shape.ndim; k++) mine = mine && (mask >> k & 1 || i[k] == o[k]);
          if (!mine) continue;
          double v = at(x, x->shape, i);
          sum += v;
          if (seen++ == 0 || beats(op, v, best)) best = v, where = position ? (double)i[attr.axis] + 1 : 0;
        } while (next(x->shape, i));
      double want = op == GQ_OP_SUM ? sum : position ? where : best, got = at(out, out->shape, o);
      ok = ok &&
           (same(got, want) || fabs(got - want) <= (out->dtype == GQ_F32 ? 1e-6 : 1e-13) * (1 + fabs(want)));
    } while (next(out->shape, o));
  check(ok, gq_ops[op].name, gq_dtype_name(x->dtype));
  gq_tensor_unref(out);
}

static void reductions(void) {
  static const gq_op ops[] = { GQ_OP_SUM, GQ_OP_AMAX, GQ_OP_AMIN, GQ_OP_ARGMAX, GQ_OP_ARGMIN };
  for (int o = 0; o < 5; o++)
    for (int d = 0; d < GQ_NDTYPE; d++)
      for (int k = 0; k < 6; k++)
        for (int mask = 1; mask < 8; mask++) {
          if (d == GQ_BOOL && o > 0) continue;
          if (o >= 3 && (mask & (mask - 1))) continue;
          gq_tensor *x = view((gq_dtype)d, k);
          if (gq_is_float(x->dtype) && k < 2 && o > 0) gq_tensor_set(x, (int64_t[]){ 1, 2, 3 }, NAN);
          test_reduction(ops[o], x, mask);
          gq_tensor_unref(x);
        }
  gq_tensor *x = make(GQ_F32, DIMS(1500, 7));
  for (int mask = 0; mask < 4; mask++) test_reduction(GQ_OP_SUM, x, mask);
  gq_tensor_unref(x);
  x = make(GQ_F64, DIMS(0, 4));
  for (int mask = 0; mask < 4; mask++) test_reduction(GQ_OP_SUM, x, mask);
  gq_tensor_unref(x);
  x = make(GQ_F64, 0, NULL);
  test_reduction(GQ_OP_SUM, x, 0);
  gq_tensor_unref(x);
}

/* ---- products ---- */

static double element(const gq_tensor *t, gq_shape lead, const int64_t *i, int64_t r, int64_t c,
                      bool transposed) {
  int64_t j[GQ_MAXDIM] = { 0 };
  int nd = t->shape.ndim, shift = lead.ndim - (nd - 2);
  for (int k = 0; k < nd - 2; k++) j[k] = t->shape.dim[k] == 1 ? 0 : i[k + shift];
  j[nd - 2] = transposed ? c : r;
  j[nd - 1] = transposed ? r : c;
  return gq_tensor_get(t, j);
}

static void test_matmul(gq_tensor *a, gq_tensor *b, int flags) {
  gq_tensor *out = apply(GQ_OP_MATMUL, 2, (gq_tensor *[]){ a, b }, &(gq_attr){ .flags = flags });
  gq_shape lead = out->shape;
  int64_t i[GQ_MAXDIM] = { 0 }, k = a->shape.dim[a->shape.ndim - (flags & GQ_TA ? 2 : 1)];
  lead.ndim -= 2;
  bool ok = true;
  if (gq_numel(out->shape)) do {
      int64_t r = i[lead.ndim], c = i[lead.ndim + 1];
      double want = 0, size = 0;
      for (int64_t q = 0; q < k; q++) {
        double p = element(a, lead, i, r, q, flags & GQ_TA) * element(b, lead, i, q, c, flags & GQ_TB);
        want += p;
        size += fabs(p);
      }
      ok = ok && fabs(gq_tensor_get(out, i) - want) <= (out->dtype == GQ_F32 ? 1e-6 : 1e-14) * (size + 1);
    } while (next(out->shape, i));
  check(ok, "matmul", gq_dtype_name(a->dtype));
  gq_tensor_unref(out);
}

/* m x n stored in one of several ways */
static gq_tensor *matrix(gq_dtype d, int64_t m, int64_t n, int how) {
  int64_t shape[] = { m, n };
  switch (how) {
    case 0: return make(d, 2, shape);
    case 1: return then(make(d, DIMS(n, m)), GQ_OP_PERMUTE, (gq_attr){ .perm = { 1, 0 } });
    case 2:
      return then(make(d, DIMS(m + 2, n + 3)), GQ_OP_SLICE,
                  (gq_attr){ .shape = gq_shape_of(2, shape), .start = { 1, 2 }, .step = { 1, 1 } });
    case 3:
      return then(make(d, DIMS(2 * m, 2 * n)), GQ_OP_SLICE,
                  (gq_attr){ .shape = gq_shape_of(2, shape), .start = { 0, n > 0 }, .step = { 2, 2 } });
    default: return then(make(d, DIMS(m, 1)), GQ_OP_EXPAND, (gq_attr){ .shape = gq_shape_of(2, shape) });
  }
}

static void products(void) {
  static const int64_t size[][3] = { { 1, 1, 1 },     { 5, 3, 4 },   { 1, 7, 3 },   { 6, 1, 5 },
                                     { 4, 5, 1 },     { 0, 3, 2 },   { 3, 0, 2 },   { 3, 2, 0 },
                                     { 50, 20, 20 },  { 37, 33, 2 }, { 64, 1, 20 }, { 33, 65, 17 },
                                     { 130, 48, 70 }, { 7, 16, 64 }, { 300, 6, 6 }, { 40, 2, 33 },
                                     { 30, 1, 9 } };
  for (size_t s = 0; s < sizeof size / sizeof *size; s++)
    for (int flags = 0; flags < 4; flags++)
      for (int how = 0; how < 25; how++)
        for (int d = GQ_F32; d <= GQ_F64; d++) {
          int64_t m = size[s][0], n = size[s][1], k = size[s][2];
          if (m * n * k > 10000 && (how % 5 > 2 || how / 5 > 2 || d == GQ_F64)) continue;
          gq_tensor *a =
            flags & GQ_TA ? matrix((gq_dtype)d, k, m, how % 5) : matrix((gq_dtype)d, m, k, how % 5);
          gq_tensor *b =
            flags & GQ_TB ? matrix((gq_dtype)d, n, k, how / 5) : matrix((gq_dtype)d, k, n, how / 5);
          test_matmul(a, b, flags);
          gq_tensor_unref(a);
          gq_tensor_unref(b);
        }
  static const struct {
    int na, nb;
    int64_t a[4], b[4];
  } batch[] = {
    { 3, 2, { 6, 5, 4 }, { 4, 3 } },       { 2, 3, { 5, 4 }, { 6, 4, 3 } },
    { 4, 3, { 2, 3, 5, 4 }, { 3, 4, 2 } }, { 4, 4, { 2, 1, 5, 4 }, { 1, 3, 4, 2 } },
    { 3, 3, { 1, 5, 4 }, { 6, 4, 3 } },
  };
  for (size_t i = 0; i < sizeof batch / sizeof *batch; i++) {
    gq_tensor *a = make(GQ_F64, batch[i].na, batch[i].a), *b = make(GQ_F64, batch[i].nb, batch[i].b);
    test_matmul(a, b, 0);
    gq_tensor_unref(a);
    gq_tensor_unref(b);
  }
}

/* ---- moving ---- */

static gq_tensor *indices(int ndim, const int64_t *dim, uint32_t n) {
  gq_tensor *t = make(GQ_I64, ndim, dim);
  for (int64_t i = 0; i < gq_numel(t->shape); i++) ((int64_t *)gq_tensor_data(t))[i] = 1 + (int64_t)rnd(n);
  return t;
}

static void by_index(gq_dtype d, int kind, int axis) {
  gq_tensor *x = view(d, kind), *idx, *out, *back;
  int64_t i[GQ_MAXDIM] = { 0 };
  bool ok = true;
  idx = indices(DIMS(7), (uint32_t)x->shape.dim[axis]);
  out = apply(GQ_OP_INDEX_SELECT, 2, (gq_tensor *[]){ x, idx }, &(gq_attr){ .axis = axis });
  do {
    int64_t j[GQ_MAXDIM];
    memcpy(j, i, sizeof j);
    j[axis] = gq_tensor_get_int(idx, &i[axis]) - 1;
    ok = ok && same(at(out, out->shape, i), at(x, x->shape, j));
  } while (next(out->shape, i));
  check(ok, "index_select", gq_dtype_name(d));
  if (d != GQ_BOOL) {
    back =
      apply(GQ_OP_INDEX_ADD, 2, (gq_tensor *[]){ out, idx }, &(gq_attr){ .axis = axis, .shape = x->shape });
    ok = true;
    do {
      double count = 0;
      for (int64_t q = 0; q < 7; q++) count += gq_tensor_get_int(idx, &q) - 1 == i[axis];
      ok = ok && fabs(at(back, back->shape, i) - count * at(x, x->shape, i)) < 1e-5;
    } while (next(x->shape, i));
    check(ok, "index_add", gq_dtype_name(d));
    gq_tensor_unref(back);
  }
  gq_tensor_unref(out);
  gq_tensor_unref(idx);
  gq_shape s = x->shape;
  s.dim[axis] = 6;
  idx = indices(s.ndim, s.dim, (uint32_t)x->shape.dim[axis]);
  out = apply(GQ_OP_GATHER, 2, (gq_tensor *[]){ x, idx }, &(gq_attr){ .axis = axis });
  ok = true;
  do {
    int64_t j[GQ_MAXDIM];
    memcpy(j, i, sizeof j);
    j[axis] = gq_tensor_get_int(idx, i) - 1;
    ok = ok && same(at(out, out->shape, i), at(x, x->shape, j));
  } while (next(out->shape, i));
  check(ok, "gather", gq_dtype_name(d));
  if (d != GQ_BOOL) {
    double total = 0, sum = 0;
    back =
      apply(GQ_OP_SCATTER_ADD, 2, (gq_tensor *[]){ out, idx }, &(gq_attr){ .axis = axis, .shape = x->shape });
    do total += at(out, out->shape, i) * (double)gq_tensor_get_int(idx, i);
    while (next(out->shape, i));
    do sum += at(back, back->shape, i) * (double)(i[axis] + 1);
    while (next(x->shape, i));
    check(fabs(total - sum) < 1e-3, "scatter_add", gq_dtype_name(d));
    gq_tensor_unref(back);
  }
  gq_tensor_unref(out);
  gq_tensor_unref(idx);
  gq_tensor_unref(x);
}

static void moving(gq_dtype d, int kind) {
  gq_tensor *x = view(d, kind), *y = view(d, (kind + 1) % 6);
  int64_t i[GQ_MAXDIM] = { 0 };
  for (int axis = 0; axis < 3; axis++) {
    by_index(d, kind, axis);
    gq_tensor *out = apply(GQ_OP_CAT, 3, (gq_tensor *[]){ x, y, x }, &(gq_attr){ .axis = axis });
    bool ok = true;
    int64_t n = x->shape.dim[axis];
    do {
      int64_t j[GQ_MAXDIM];
      memcpy(j, i, sizeof j);
      j[axis] = i[axis] % n;
      ok = ok && same(at(out, out->shape, i), at(i[axis] / n == 1 ? y : x, x->shape, j));
    } while (next(out->shape, i));
    check(ok, "cat", gq_dtype_name(d));
    gq_tensor_unref(out);
  }
  gq_attr attr = { .shape = gq_shape_of(DIMS(5, 9, 5)), .start = { 1, 0, 0 }, .step = { 1, 2, 1 } };
  gq_tensor *out = apply(GQ_OP_PAD, 1, &x, &attr);
  gq_attr cut = { .shape = x->shape, .start = { 1, 0, 0 }, .step = { 1, 2, 1 } };
  gq_tensor *back = apply(GQ_OP_SLICE, 1, &out, &cut);
  double inside = 0, all = 0;
  bool ok = true;
  do ok = ok && same(at(back, x->shape, i), at(x, x->shape, i)), inside += fabs(at(x, x->shape, i));
  while (next(x->shape, i));
  do all += fabs(at(out, out->shape, i));
  while (next(out->shape, i));
  check(ok && fabs(all - inside) < 1e-6, "pad", gq_dtype_name(d));
  gq_tensor_unref(back);
  gq_tensor_unref(out);
  out = apply(GQ_OP_RESHAPE, 1, &x, &(gq_attr){ .shape = gq_shape_of(DIMS(12, 5)) });
  ok = true;
  do ok = ok && same(gq_tensor_get(out, (int64_t[]){ i[0] * 4 + i[1], i[2] }), gq_tensor_get(x, i));
  while (next(x->shape, i));
  check(ok, "reshape", gq_dtype_name(d));
  check((out->storage == x->storage) == gq_tensor_contiguous(x), "reshape", "a view where it can be");
  gq_tensor_unref(out);
  gq_tensor_unref(x);
  gq_tensor_unref(y);
}

static void bad_indices(void) {
  gq_tensor *x = make(GQ_F32, DIMS(5, 2)), *idx = make(GQ_I64, DIMS(4)), *out = x;
  int64_t *p = gq_tensor_data(idx);
  p[0] = 1, p[1] = 5, p[2] = 7, p[3] = 0;
  gq_tensor *args[] = { x, idx };
  size_t blocks = gq_live_blocks();
  check(gq_apply(GQ_OP_INDEX_SELECT, 2, args, &(gq_attr){ 0 }, &out) == GQ_EINDEX && !out, "index_select",
        "bad index");
  check(strstr(gq_message(), "index_select: index 7 at position 3 is outside 1..5") != NULL, "index_select",
        gq_message());
  p[2] = 5;
  check(gq_apply(GQ_OP_INDEX_SELECT, 2, args, &(gq_attr){ 0 }, &out) == GQ_EINDEX, "index_select", "index 0");
  check(gq_live_blocks() == blocks, "index_select", "leaves nothing behind");
  gq_tensor_unref(x);
  gq_tensor_unref(idx);
}

static void large(void) {
  must(gq_set_threads(2));
  gq_tensor *a = make(GQ_F32, DIMS(300, 1000)), *b = make(GQ_F32, DIMS(1000)),
            *c = make(GQ_F32, DIMS(300, 1));
  test_elementwise(GQ_OP_MUL, GQ_F32, 2, (gq_tensor *[]){ a, b }, NULL);
  test_elementwise(GQ_OP_TANH, GQ_F32, 1, &a, NULL);
  test_elementwise(GQ_OP_SUB, GQ_F32, 2, (gq_tensor *[]){ a, c }, NULL);
  gq_tensor *w = make(GQ_F32, DIMS(1000, 300));
  gq_tensor *two = apply(GQ_OP_MATMUL, 2, (gq_tensor *[]){ a, w }, NULL);
  must(gq_set_threads(1));
  gq_tensor *one = apply(GQ_OP_MATMUL, 2, (gq_tensor *[]){ a, w }, NULL);
  bool ok = true;
  for (int64_t i = 0; i < gq_numel(one->shape); i++)
    ok = ok && fabsf(((float *)gq_tensor_data(one))[i] - ((float *)gq_tensor_data(two))[i]) < 1e-2f;
  check(ok, "matmul", "on two threads");
  gq_tensor *all[] = { a, b, c, w, one, two };
  for (int i = 0; i < 6; i++) gq_tensor_unref(all[i]);
}

int main(void) {
  static const char *const names[] = { "portable", "avx2", "avx512" };
  size_t blocks = gq_live_blocks();
  rnd_state = 7;
  for (int i = 0; i < 3; i++) {
    const gq_kernels *k = gq_cpu_find(names[i]);
    if (!k) continue;
    gq_cpu_use(k);
    all_elementwise();
    broadcasting();
    reductions();
    products();
  }
  gq_cpu_use(NULL);
  for (int d = 0; d < GQ_NDTYPE; d++)
    for (int kind = 0; kind < 6; kind++) moving((gq_dtype)d, kind);
  bad_indices();
  large();
  check(gq_live_blocks() == blocks, "everything", "is given back");
  check(strlen(gq_blas_name()) > 0, "blas", "has a name");
  return DONE();
}
