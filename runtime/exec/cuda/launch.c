/*
** launch.c -- kernels of kernels.h with their arguments: what the CPU calls a plan. The structs are those of kernels.h.
*/
#include "cuda.h"

#include <stdio.h>
#include <string.h>

enum { MOST_BLOCKS = 4096 };

int gq_cuda_blocks(int64_t n) {
  int64_t blocks = (n + GQ_NT - 1) / GQ_NT;
  return blocks > MOST_BLOCKS ? MOST_BLOCKS : (int)blocks;
}

int gq_cuda_launch_near(gq_cufunction f, int blocks, int threads, size_t shared, const void *args) {
  void *params[] = { (void *)(uintptr_t)args };
  if (blocks == 0) return GQ_OK;
  GQ_TRY(gq_cuda_enter());
  return gq_cuda_check(gq_cu.launch(f, (unsigned)blocks, 1, 1, (unsigned)threads, 1, 1, (unsigned)shared,
                                    gq_cuda_stream(), params, NULL),
                       "cuLaunchKernel");
}

int gq_cuda_launch(gq_cufunction f, int blocks, const void *args) {
  return gq_cuda_launch_near(f, blocks, GQ_NT, 0, args);
}

int gq_cuda_run(const gq_launch *l, void *const *p, bool library) {
  _Alignas(8) char args[GQ_LAUNCH_BYTES];
  if (l->blocks == 0) return GQ_OK;
  if (library && l->part.kind == GQ_PART_PRODUCT) {
    bool done;
    GQ_TRY(gq_cuda_blas(l, p, &done));
    if (done) return GQ_OK;
  }
  memcpy(args, l->args, l->bytes);
  for (int i = 0; i < l->np; i++) ((gq_u64 *)args)[i] = gq_far(p[i]);
  return gq_cuda_launch(l->f, l->blocks, args);
}

/* ---- parts: sections of kernels.h with what their words stand for ---- */

static void define_move(gq_text *t, const gq_part *p) {
  gq_cuda_define(t, GQ_OP_CAST, p->from, p->d);
  gq_text_put(t, "#define T %s\n#define F %s\n#define CONVERT(x) ", gq_cuda_dtype[p->d],
              gq_cuda_dtype[p->from]);
  gq_cuda_call(t, GQ_OP_CAST, p->from, p->d, "x");
  gq_text_put(t, "\n");
}

/* As bytes: what is no number stays what it is. */
static void define_bytes(gq_text *t, const gq_part *p) {
  const char *T = p->size == 8 ? "unsigned long long" : p->size == 4 ? "unsigned" : "unsigned char";
  gq_text_put(t, "#define T %s\n#define F %s\n#define CONVERT(x) x\n", T, T);
}

static void define_product(gq_text *t, const gq_part *p) {
  gq_cuda_names(t, p->d);
  gq_text_put(t, "#define GQ_FMA %s\n", p->d == GQ_F32 ? "fmaf" : "fma");
}

static void define_sum(gq_text *t, gq_dtype d) {
  gq_text_put(t, "#define A %s\n#define R %s\n#define START(x) 0\n", gq_is_float(d) ? "double" : "gq_u64",
              gq_cuda_dtype[gq_is_float(d) ? d : GQ_I64]);
  gq_text_put(t, "#define STEP(acc, best, v, j) acc += (A)v;\n"
                 "#define JOIN(acc, best, v, j) acc += v; (void)best, (void)j;\n");
  gq_text_put(t, "#define RESULT(out, o, acc, best, add) "
                 "(out)[o] = (R)((add) ? (A)(out)[o] + (acc) : (acc)); (void)(best);\n");
}

/* The first extremum; NaN wins, and the first NaN is where the search ends. */
static void define_reduce(gq_text *t, const gq_part *p) {
  const char *T = gq_cuda_dtype[p->d], *cmp = p->op == GQ_OP_AMAX || p->op == GQ_OP_ARGMAX ? ">" : "<";
  bool place = p->op == GQ_OP_ARGMAX || p->op == GQ_OP_ARGMIN;
  gq_text_put(t, "#define T %s\n", T);
  if (p->op == GQ_OP_SUM) {
    define_sum(t, p->d);
    return;
  }
  gq_text_put(t, "#define A %s\n#define R %s\n#define START(x) *(x)\n", T, place ? "long long" : T);
  gq_text_put(t, "#define STEP(acc, best, v, j) if (v %s acc || (v != v && acc == acc)) acc = v, best = j;\n",
              cmp);
  gq_text_put(t, "#define JOIN(acc, best, v, j) if (v %s acc || (v != v && acc == acc) || ", cmp);
  gq_text_put(t, "((v == acc || (v != v && acc != acc)) && j < best)) acc = v, best = j;\n");
  gq_text_put(t, "#define RESULT(out, o, acc, best, add) (out)[o] = %s; (void)(best);\n",
              place ? "(best) + 1" : "(acc)");
}

static void define_index(gq_text *t, const gq_part *p) {
  gq_cuda_names(t, p->d);
  gq_text_put(t, "#define PLUS(x, y) (T)(%s)\n",
              p->d == GQ_BOOL  ? "(x) | (y)"
              : p->d == GQ_I64 ? "(gq_u64)(x) + (gq_u64)(y)"
                               : "(x) + (y)");
}

static const struct {
  const char *args, *section;
  void (*define)(gq_text *t, const gq_part *p);
} parts[GQ_NPART] = {
  [GQ_PART_MOVE] = { "move_args", "move", define_move },
  [GQ_PART_BYTES] = { "move_args", "move", define_bytes },
  [GQ_PART_PRODUCT] = { "product_args", "product", define_product },
  [GQ_PART_REDUCE] = { "reduce_args", "reduce", define_reduce },
  [GQ_PART_INDEX] = { "index_args", "index", define_index },
  [GQ_PART_WINDOW] = { "window_args", "window", define_index },
};

const char *gq_cuda_part_args(const gq_part *p) { return parts[p->kind].args; }

static void part_name(const gq_part *p, char *name, size_t n) {
  static const char *const names[GQ_NPART] = { "move", "move", "product", "", "", "window_add" };
  if (p->kind == GQ_PART_REDUCE) snprintf(name, n, "%s", p->few ? "few" : "many");
  else if (p->kind == GQ_PART_INDEX)
    snprintf(name, n, "%s_%s", gq_core->ops[p->op].name, gq_cuda_suffix[p->d]);
  else if (p->kind <= GQ_PART_BYTES) snprintf(name, n, "%s", names[p->kind]);
  else snprintf(name, n, "%s_%s", names[p->kind], gq_cuda_suffix[p->d]);
}

/* A kernel of a text that is made once: `slot` keeps it. */
static int fixed(gq_cufunction *slot, const gq_part *p) {
  gq_text t = { 0 };
  char name[32];
  if (*slot) return GQ_OK;
  part_name(p, name, sizeof name);
  gq_cuda_text(&t, GQ_NT);
  parts[p->kind].define(&t, p);
  gq_cuda_sections(&t, (const char *[]){ "layout", parts[p->kind].args, parts[p->kind].section, NULL });
  return gq_cuda_make(&t, name, slot);
}

static int prepare(gq_launch *l, const gq_part *part, gq_cufunction f, int64_t n, int np, const void *args,
                   size_t bytes) {
  GQ_ASSERT(bytes <= sizeof l->args);
  l->part = part ? *part : (gq_part){ 0 };
  l->f = f, l->blocks = gq_cuda_blocks(n), l->np = np, l->bytes = bytes;
  memcpy(l->args, args, bytes);
  return GQ_OK;
}

/* ---- layouts: dims of size 1 dropped, neighbours merged where all operands walk them as one ---- */

static void merge(int ndim, const int64_t *dim, int n, const int64_t *const *stride, gq_dims *d,
                  gq_strides *s) {
  int top = 0;
  for (int i = 0; i < ndim; i++) {
    bool follows = top > 0;
    if (dim[i] == 1) continue;
    for (int j = 0; j < n; j++) follows = follows && s[j].s[top - 1] == stride[j][i] * dim[i];
    if (!follows) d->dim[top++] = 1;
    d->dim[top - 1] *= dim[i];
    for (int j = 0; j < n; j++) s[j].s[top - 1] = stride[j][i];
  }
  d->ndim = top;
}

static int64_t product(int n, const int64_t *dim) {
  int64_t p = 1;
  for (int i = 0; i < n; i++) p *= dim[i];
  return p;
}

/* ---- moves ---- */

typedef struct move_args {
  gq_u64 p[2];
  long long n;
  gq_dims d;
  gq_strides s[2];
} move_args;

static int prepare_move(gq_launch *l, const gq_part *part, gq_cufunction *f, const gq_layout *in,
                        const int64_t *stride) {
  move_args a = { .n = product(in->ndim, in->dim) };
  merge(in->ndim, in->dim, 2, (const int64_t *const[]){ stride, in->stride }, &a.d, a.s);
  GQ_TRY(fixed(f, part));
  return prepare(l, part, *f, a.n, 2, &a, sizeof a);
}

int gq_cuda_move(gq_launch *l, gq_dtype to, gq_dtype from, const gq_layout *in, const int64_t *stride) {
  static gq_cufunction kernels[GQ_NDTYPE][GQ_NDTYPE];
  gq_part part = { .kind = GQ_PART_MOVE, .d = to, .from = from };
  return prepare_move(l, &part, &kernels[to][from], in, stride);
}

int gq_cuda_bytes(gq_launch *l, size_t size, const gq_layout *in, const int64_t *stride) {
  static gq_cufunction kernels[9];
  gq_part part = { .kind = GQ_PART_BYTES, .size = size };
  return prepare_move(l, &part, &kernels[size], in, stride);
}

/* ---- one operation, element by element ---- */

typedef struct cell_args {
  gq_u64 p[4];
  long long n;
  gq_dims d;
  gq_strides s[3];
} cell_args;

/* The kernel itself follows the section, which holds its arguments. */
static void cell_text(gq_text *t, gq_op op, gq_dtype to, int n, const gq_dtype *d) {
  static const char *const arguments[] = { "", "v0", "v0, v1", "v0, v1, v2" };
  gq_dtype of = d[n - 1]; /* WHERE's first operand is the condition */
  gq_cuda_text(t, GQ_NT);
  gq_cuda_sections(t, (const char *[]){ "layout", "cell", NULL });
  gq_cuda_define(t, op, of, to);
  gq_text_put(t, "GQ_KERNEL(cell, gq_cell_args) {\n  GQ_ALL(i, a.n) {\n");
  for (int j = 0; j < n; j++)
    gq_text_put(t, "    %s v%d = ((const %s *)GQ_AT(a.p[%d]))[gq_place(&a.d, &a.s[%d], i)];\n",
                gq_cuda_dtype[d[j]], j, gq_cuda_dtype[d[j]], j + 1, j);
  gq_text_put(t, "    ((%s *)GQ_AT(a.p[0]))[i] = ", gq_cuda_dtype[to]);
  gq_cuda_call(t, op, of, to, arguments[n]);
  gq_text_put(t, ";\n  }\n}\n");
}

int gq_cuda_cell(gq_launch *l, gq_op op, gq_dtype to, gq_shape shape, int n, const gq_dtype *d,
                 const gq_layout *x) {
  static gq_cufunction kernels[GQ_NOP][GQ_NDTYPE][GQ_NDTYPE];
  gq_cufunction *f = &kernels[op][d[n - 1]][to];
  cell_args a = { .n = gq_numel(shape) };
  int64_t stride[3][GQ_MAXDIM];
  const int64_t *strides[] = { stride[0], stride[1], stride[2] };
  gq_text t = { 0 };
  for (int j = 0; j < n; j++) gq_layout_broadcast(&x[j], shape, stride[j]);
  merge(shape.ndim, shape.dim, n, strides, &a.d, a.s);
  if (!*f) {
    cell_text(&t, op, to, n, d);
    GQ_TRY(gq_cuda_make(&t, "cell", f));
  }
  return prepare(l, NULL, *f, a.n, n + 1, &a, sizeof a);
}

/* ---- products ---- */

int gq_cuda_product(gq_launch *l, gq_dtype d, const gq_layout *a, const gq_layout *b, int flags,
                    int64_t column, bool add) {
  static gq_cufunction kernels[GQ_NDTYPE];
  int ra = a->ndim - 2 + (flags & GQ_TA ? 1 : 0),
      ca = 2 * a->ndim - 3 - ra; /* the dims that are rows and columns */
  int rb = b->ndim - 2 + (flags & GQ_TB ? 1 : 0), cb = 2 * b->ndim - 3 - rb;
  gq_product_args x = { .m = a->dim[ra],
                        .k = a->dim[ca],
                        .n = b->dim[cb],
                        .ar = a->stride[ra],
                        .ac = a->stride[ca],
                        .br = b->stride[rb],
                        .bc = b->stride[cb],
                        .cs = column,
                        .add = add };
  gq_shape shape = { 0 };
  int64_t sa[GQ_MAXDIM], sb[GQ_MAXDIM];
  gq_layout la = *a, lb = *b;
  gq_part part = { .kind = GQ_PART_PRODUCT, .d = d };
  if (!gq_is_float(d))
    return gq_fail(GQ_EDTYPE, "matmul: %s given, float32 or float64 expected",
                   d == GQ_I64 ? "int64" : "bool");
  la.ndim -= 2, lb.ndim -= 2;
  shape.ndim = la.ndim > lb.ndim ? la.ndim : lb.ndim;
  for (int i = 0; i < shape.ndim; i++) { /* leading dims, broadcast */
    int ia = i - (shape.ndim - la.ndim), ib = i - (shape.ndim - lb.ndim);
    shape.dim[i] = ia >= 0 && la.dim[ia] != 1 ? la.dim[ia] : ib >= 0 ? lb.dim[ib] : 1;
  }
  gq_layout_broadcast(&la, shape, sa);
  gq_layout_broadcast(&lb, shape, sb);
  merge(shape.ndim, shape.dim, 2, (const int64_t *const[]){ sa, sb }, &x.d, x.s);
  x.batches = gq_numel(shape);
  GQ_TRY(fixed(&kernels[d], &part));
  return prepare(l, &part, kernels[d], (x.m + 3) / 4 * x.n * x.batches, 4, &x, sizeof x);
}

/* ---- reductions ---- */

typedef struct reduce_args {
  gq_u64 p[2];
  long long kept, over, add;
  gq_dims d[2];
  gq_strides s[2];
} reduce_args;

static void one_side(const gq_layout *x, int mask, bool reduced, gq_dims *d, gq_strides *s, long long *n) {
  int64_t dim[GQ_MAXDIM] = { 0 }, stride[GQ_MAXDIM] = { 0 };
  int k = 0;
  for (int i = 0; i < x->ndim; i++)
    if ((mask >> i & 1) == reduced) dim[k] = x->dim[i], stride[k++] = x->stride[i];
  merge(k, dim, 1, (const int64_t *const[]){ stride }, d, s);
  *n = product(k, dim);
}

enum { SEVERAL = 64 }; /* numbers that are worth a block's threads */

int gq_cuda_reduce(gq_launch *l, gq_op op, gq_dtype d, const gq_layout *x, int axis, int flags, bool add) {
  static gq_cufunction kernels[GQ_NOP][GQ_NDTYPE][2];
  bool place = op == GQ_OP_ARGMAX || op == GQ_OP_ARGMIN;
  if (op != GQ_OP_SUM && op != GQ_OP_AMAX && op != GQ_OP_AMIN && !place)
    return gq_fail(GQ_EUNSUPPORTED, "%s has no kernel on CUDA: use x:to(\"cpu\")", gq_core->ops[op].name);
  int mask = place ? 1 << axis : flags;
  reduce_args a = { .add = add };
  one_side(x, mask, false, &a.d[0], &a.s[0], &a.kept);
  one_side(x, mask, true, &a.d[1], &a.s[1], &a.over);
  if (op != GQ_OP_SUM && a.over == 0 && a.kept > 0)
    return gq_fail(GQ_ESHAPE, "%s of no numbers: the reduced axes are empty", gq_core->ops[op].name);
  bool few = a.over >= SEVERAL && a.kept < 16 * GQ_NT;
  gq_cufunction *f = &kernels[op][d][few];
  gq_part part = { .kind = GQ_PART_REDUCE, .op = op, .d = d, .few = few };
  GQ_TRY(fixed(f, &part));
  return prepare(l, &part, *f, few ? a.kept * GQ_NT : a.kept, 2, &a, sizeof a);
}

/* ---- by index: one for each kernel of the CPU's exec/cpu/move.c ---- */

typedef struct index_args {
  gq_u64 p[4];
  int64_t outer, n, count, inner, axis, lines;
  gq_dims d;
  gq_strides big, line;
} index_args;

/* Of numbers with an index each: strides of the long side, whose inner ones are those along the axis. */
static void lines_of(gq_op op, const gq_shape *big, const gq_shape *idx, int axis, index_args *a) {
  int64_t stride[2][GQ_MAXDIM], dim[GQ_MAXDIM];
  gq_strides s[2];
  gq_shape_strides(*big, stride[0]);
  gq_shape_strides(*idx, stride[1]);
  memcpy(dim, idx->dim, sizeof dim);
  a->lines = 1;
  if (idx->ndim) {
    stride[0][axis] = 0;
    a->outer = dim[axis], a->axis = stride[1][axis];
    if (op == GQ_OP_SCATTER_ADD) dim[axis] = 1;
  } else a->outer = 1, a->axis = 0;
  a->lines = product(idx->ndim, dim);
  merge(idx->ndim, dim, 2, (const int64_t *const[]){ stride[0], stride[1] }, &a->d, s);
  a->big = s[0], a->line = s[1];
}

typedef struct window_args {
  gq_u64 p[2];
  gq_windows w;
} window_args;

static int prepare_window(gq_launch *l, const gq_indexing *p) {
  static gq_cufunction kernels[GQ_NDTYPE];
  window_args a = { .w = gq_windows_of(p) };
  gq_part part = { .kind = GQ_PART_WINDOW, .d = p->dtype };
  GQ_TRY(fixed(&kernels[p->dtype], &part));
  return prepare(l, &part, kernels[p->dtype], a.w.numbers, 2, &a, sizeof a);
}

const gq_shape *gq_cuda_long_side(const gq_indexing *p) {
  return p->op == GQ_OP_INDEX_ADD || p->op == GQ_OP_SCATTER_ADD ? &p->attr.shape : &p->in[0];
}

static int prepare_index(gq_launch *l, const gq_indexing *p) {
  static gq_cufunction kernels[GQ_NOP][GQ_NDTYPE];
  gq_op op = p->op;
  gq_cufunction *f = &kernels[op][p->dtype];
  index_args a = { .count = gq_numel(p->in[1]) };
  gq_shape_around(gq_cuda_long_side(p), p->attr.axis, &a.outer, &a.n, &a.inner);
  int64_t n = op == GQ_OP_INDEX_SELECT ? a.outer * a.count * a.inner : a.outer * a.inner;
  if (op == GQ_OP_GATHER || op == GQ_OP_SCATTER_ADD) {
    lines_of(op, gq_cuda_long_side(p), &p->in[1], p->attr.axis, &a);
    n = op == GQ_OP_GATHER ? a.count : a.lines;
  }
  gq_part part = { .kind = GQ_PART_INDEX, .op = op, .d = p->dtype };
  GQ_TRY(fixed(f, &part));
  return prepare(l, &part, *f, n, 4, &a, sizeof a);
}

/* adds: to zeros, which are written before */
static const struct {
  int (*prepare)(gq_launch *l, const gq_indexing *p);
  bool adds;
} indexings[GQ_NOP] = {
  [GQ_OP_INDEX_SELECT] = { prepare_index, false }, [GQ_OP_INDEX_ADD] = { prepare_index, true },
  [GQ_OP_GATHER] = { prepare_index, false },       [GQ_OP_SCATTER_ADD] = { prepare_index, true },
  [GQ_OP_WINDOW_ADD] = { prepare_window, false },
};

int gq_cuda_index(gq_launch *l, const gq_indexing *p, size_t *zero) {
  if (!indexings[p->op].prepare)
    return gq_fail(GQ_EUNSUPPORTED, "%s has no kernel on CUDA: use x:to(\"cpu\")", gq_core->ops[p->op].name);
  *zero = indexings[p->op].adds ? (size_t)gq_numel(p->attr.shape) * gq_dtype_size(p->dtype) : 0;
  return indexings[p->op].prepare(l, p);
}

/* ---- parts of a kernel that a block runs alone: tile.c ---- */

/* Name: of the function, with what tells it from others of its section. */
void gq_cuda_part(gq_text *t, const gq_part *p, int number, bool first) {
  static const char *const words[] = { "T",    "F",    "N",      "A",    "R",    "CONVERT", "GQ_FMA", "START",
                                       "STEP", "JOIN", "RESULT", "PLUS", "move", "many",    "few",    NULL };
  const char *sections[] = { first ? parts[p->kind].args : "", parts[p->kind].section, NULL };
  for (int i = 0; words[i]; i++) gq_text_put(t, "#undef %s\n", words[i]);
  gq_text_put(t, "#define move move_%d\n#define many many_%d\n#define few few_%d\n", number, number, number);
  parts[p->kind].define(t, p);
  gq_cuda_sections(t, sections);
}

void gq_cuda_part_call(gq_text *t, const gq_part *p, int number) {
  char name[32];
  part_name(p, name, sizeof name);
  if (p->kind <= GQ_PART_BYTES || p->kind == GQ_PART_REDUCE) gq_text_put(t, "%s_%d", name, number);
  else gq_text_put(t, "%s", name);
}
