/*
** group.c -- element-wise operations of one output shape, run as one pass over tiles.
** A tile is some whole rows, or a piece of a long row, of the (merged) shape. Temporaries live
** in tile registers that stay in the first-level cache; operands are read in place where they
** are contiguous, and copied into a register once (broadcast rows, single numbers) or a tile at
** a time (anything else) where they are not.
*/
#include "../compile.h"
#include "cpu.h"

#include <string.h>

/* How a value is reached. */
enum {
  HOW_REG,    /* tile register, a temporary */
  HOW_DIRECT, /* contiguous memory: base + position */
  HOW_SCALAR, /* one number for all, read by a scalar form of the kernel */
  HOW_ONCE,   /* the same tile every time, laid out in a register before the first */
  HOW_TILE,   /* copied into a register tile by tile */
  HOW_PIECE   /* a piece of a row of unit stride: base + row offset + column */
};

enum { ROOM = 16384 }; /* bytes that the registers and streams of one tile should not exceed */

void gq_group_begin(gq_group *g, gq_shape shape, int capacity, gq_group_value *value, gq_micro *micro,
                    int16_t *list) {
  memset(g, 0, sizeof *g);
  g->ndim = shape.ndim;
  memcpy(g->dim, shape.dim, sizeof g->dim);
  g->capacity = capacity;
  g->value = value;
  g->micro = micro;
  g->list = list;
}

static int add_value(gq_group *g, gq_dtype d) {
  if (g->nvalue == g->capacity) return -1;
  gq_group_value *v = &g->value[g->nvalue];
  memset(v, 0, sizeof *v);
  v->dtype = d;
  return g->nvalue++;
}

int gq_group_arg(gq_group *g, gq_dtype d, const int64_t *stride) {
  int v = add_value(g, d);
  if (v >= 0) {
    g->value[v].arg = true;
    memcpy(g->value[v].stride, stride, (size_t)g->ndim * sizeof *stride);
  }
  return v;
}

int gq_group_op(gq_group *g, gq_op op, gq_dtype d, int nargs, const int *arg) {
  if (g->nmicro == g->capacity) return -1;
  int v = add_value(g, d);
  if (v >= 0) {
    gq_micro *m = &g->micro[g->nmicro++];
    *m = (gq_micro){ .op = op, .out = (int16_t)v, .nargs = (int16_t)nargs };
    for (int i = 0; i < nargs; i++) {
      m->arg[i] = (int16_t)arg[i];
      g->value[arg[i]].uses++;
    }
  }
  return v;
}

void gq_group_store(gq_group *g, int value) { g->value[value].stored = true; }

/* ---- geometry ---- */

/* Can dims i and i + 1 be seen as one by every argument? */
static bool mergeable(const gq_group *g, int i) {
  for (int v = 0; v < g->nvalue; v++)
    if (g->value[v].arg && g->value[v].stride[i] != g->value[v].stride[i + 1] * g->dim[i + 1]) return false;
  return true;
}

static void drop_dim(gq_group *g, int i) {
  size_t rest = (size_t)(g->ndim - 1 - i) * sizeof *g->dim;
  for (int v = 0; v < g->nvalue; v++) memmove(g->value[v].stride + i, g->value[v].stride + i + 1, rest);
  memmove(g->dim + i, g->dim + i + 1, rest);
  g->ndim--;
}

static void merge_dims(gq_group *g) {
  for (int i = g->ndim - 1; i >= 0; i--)
    if (g->dim[i] == 1) drop_dim(g, i);
  for (int i = g->ndim - 2; i >= 0; i--)
    if (mergeable(g, i)) {
      g->dim[i + 1] *= g->dim[i]; /* the inner stride stands for both */
      drop_dim(g, i);
    }
  g->rows = 1;
  for (int i = 0; i < g->ndim - 1; i++) g->rows *= g->dim[i];
  g->width = g->ndim ? g->dim[g->ndim - 1] : 1;
}

static bool is_contiguous(const gq_group *g, const int64_t *stride) {
  int64_t run = 1;
  for (int i = g->ndim - 1; i >= 0; run *= g->dim[i--])
    if (stride[i] != run) return false;
  return true;
}

static bool is_constant(const gq_group *g, const int64_t *stride) {
  for (int i = 0; i < g->ndim; i++)
    if (stride[i] != 0) return false;
  return true;
}

/* The operand places where a kernel has a form for one number: both of a binary operation, and
** the two values of WHERE. The flags of the two places are the form. */
static int scalar_place(const gq_micro *m, int i) {
  if (m->op == GQ_OP_WHERE) return i >= 1 ? i : 0;
  return m->nargs == 2 ? i + 1 : 0;
}

/* A single number may stay where it is if no kernel needs it as a vector. */
static bool scalar_forms_do(const gq_group *g, int v) {
  for (int k = 0; k < g->nmicro; k++) {
    const gq_micro *m = &g->micro[k];
    int both = 0;
    for (int i = 0; i < m->nargs; i++) {
      both += m->op != GQ_OP_WHERE && is_constant(g, g->value[m->arg[i]].stride) && g->value[m->arg[i]].arg;
      if (m->arg[i] == v && !scalar_place(m, i)) return false;
    }
    for (int i = 0; i < m->nargs; i++)
      if (m->arg[i] == v && both == 2 && i == 0)
        return false; /* both operands single: the first becomes a vector */
  }
  return true;
}

static void classify(gq_group *g) {
  int64_t cells = g->rows * g->width;
  bool whole_rows = g->width <= GQ_GROUP_TILE;
  for (int i = 0; i < g->nvalue; i++) {
    gq_group_value *v = &g->value[i];
    if (!v->arg) v->how = v->stored ? HOW_DIRECT : HOW_REG;
    else if (cells <= 1 || is_contiguous(g, v->stride)) v->how = HOW_DIRECT;
    else if (is_constant(g, v->stride)) v->how = scalar_forms_do(g, i) ? HOW_SCALAR : HOW_ONCE;
    else if (whole_rows) v->how = g->ndim == 2 && v->stride[0] == 0 ? HOW_ONCE : HOW_TILE;
    else v->how = v->stride[g->ndim - 1] == 1 ? HOW_PIECE : HOW_TILE;
  }
}

/* ---- kernels and peepholes ---- */

static bool is_scalar(const gq_group *g, int v) { return g->value[v].how == HOW_SCALAR; }

/* x * s used only here, for a single number s: fold it into the sum or difference. */
static int find_product(const gq_group *g, int v, int before) {
  const gq_group_value *val = &g->value[v];
  if (val->arg || val->stored || val->uses != 1) return -1;
  for (int k = before - 1; k >= 0; k--)
    if (g->micro[k].out == v) {
      const gq_micro *m = &g->micro[k];
      return m->op == GQ_OP_MUL && m->nargs == 2 && is_scalar(g, m->arg[0]) != is_scalar(g, m->arg[1]) ? k
                                                                                                       : -1;
    }
  return -1;
}

static void fold_product(gq_group *g, int at) {
  gq_micro *m = &g->micro[at];
  if ((m->op != GQ_OP_ADD && m->op != GQ_OP_SUB) || m->nargs != 2 || !gq_is_float(g->value[m->out].dtype))
    return;
  for (int i = 1; i >= 0; i--) {
    int k = find_product(g, m->arg[i], at);
    int other = m->arg[1 - i];
    if (k < 0 || is_scalar(g, other)) continue;
    gq_micro *p = &g->micro[k];
    int s = is_scalar(g, p->arg[1]);
    int form = m->op == GQ_OP_ADD ? GQ_MADD : i == 1 ? GQ_MRSUB : GQ_MSUB;
    *m =
      (gq_micro){ .op = m->op, .out = m->out, .nargs = 3, .arg = { p->arg[!s], (int16_t)other, p->arg[s] } };
    m->fn = gq_cpu()->madd[g->value[m->out].dtype][form];
    p->nargs = 0; /* dropped below */
    return;
  }
}

/* softplus and sigmoid of the same value share their exponential. */
static void fold_softplus(gq_group *g, int at) {
  gq_micro *m = &g->micro[at];
  gq_op partner = m->op == GQ_OP_SIGMOID ? GQ_OP_SOFTPLUS : m->op == GQ_OP_SOFTPLUS ? GQ_OP_SIGMOID : GQ_NOP;
  gq_dtype d = g->value[m->out].dtype;
  if (partner == GQ_NOP || m->nargs != 1 || !gq_is_float(d) || !gq_cpu()->duo[d]) return;
  for (int k = 0; k < at; k++) {
    gq_micro *p = &g->micro[k];
    if (p->op != partner || p->nargs != 1 || p->arg[0] != m->arg[0]) continue;
    int16_t plus = partner == GQ_OP_SOFTPLUS ? p->out : m->out,
            sigm = partner == GQ_OP_SOFTPLUS ? m->out : p->out;
    *p = (gq_micro){
      .op = GQ_OP_SOFTPLUS, .fn = gq_cpu()->duo[d], .out = plus, .nargs = 2, .arg = { p->arg[0], sigm }
    };
    m->nargs = 0;
    return;
  }
}

/* The micro-op `op` that v comes of, which micro-op `before` alone reads, or NULL. */
static gq_micro *maker(const gq_group *g, int v, gq_op op, int before) {
  const gq_group_value *val = &g->value[v];
  for (int k = before - 1; k >= 0 && !val->arg && !val->stored && val->uses == 1; k--)
    if (g->micro[k].out == v && g->micro[k].nargs) return g->micro[k].op == op ? &g->micro[k] : NULL;
  return NULL;
}

/* The sigmoid of x where softplus(x) alone is there. */
static void fold_fall(gq_group *g, int at) {
  gq_micro *m = &g->micro[at];
  gq_dtype d = g->value[m->out].dtype;
  if (m->op != GQ_OP_NEG || m->nargs != 1 || !gq_is_float(d)) return;
  gq_micro *rise = maker(g, m->arg[0], GQ_OP_EXPM1, at),
           *minus = rise ? maker(g, rise->arg[0], GQ_OP_NEG, at) : NULL;
  if (!minus || is_scalar(g, minus->arg[0])) return;
  m->op = GQ_OP_SIGMOID, m->fn = gq_cpu()->fall[d], m->arg[0] = minus->arg[0];
  minus->nargs = rise->nargs = 0; /* dropped below */
}

static void compact(gq_group *g) {
  int n = 0;
  for (int k = 0; k < g->nmicro; k++)
    if (g->micro[k].nargs) g->micro[n++] = g->micro[k];
  g->nmicro = n;
}

static int choose_kernel(gq_group *g, gq_micro *m) {
  if (m->fn || !m->nargs) return GQ_OK;
  gq_dtype d = g->value[m->arg[0]].dtype;
  int form = 0;
  for (int i = 0; i < m->nargs; i++)
    if (is_scalar(g, m->arg[i])) form |= scalar_place(m, i);
  if (m->op == GQ_OP_CAST) m->fn = gq_cpu()->cast[d][g->value[m->out].dtype];
  else m->fn = gq_cpu()->op[m->op][m->op == GQ_OP_WHERE ? g->value[m->arg[1]].dtype : d][form];
  if (!m->fn) return gq_fail(GQ_EDTYPE, "%s is not defined for %s", gq_ops[m->op].name, gq_dtype_name(d));
  return GQ_OK;
}

/* ---- tile registers ---- */

typedef struct pool {
  uint32_t used;                     /* bytes for each number of a tile */
  uint32_t free[4][GQ_GROUP_VALUES]; /* free registers by element size: 1, 4, 8 bytes */
  int nfree[4];
} pool;

static int size_class(gq_dtype d) {
  size_t s = gq_dtype_size(d);
  return s == 1 ? 0 : s == 4 ? 1 : 2;
}

static void take(pool *p, gq_group_value *v) {
  int c = size_class(v->dtype);
  if (p->nfree[c]) {
    v->reg = p->free[c][--p->nfree[c]];
  } else {
    v->reg = p->used;
    p->used += (uint32_t)gq_dtype_size(v->dtype);
  }
}

static void give(pool *p, const gq_group_value *v) {
  int c = size_class(v->dtype);
  p->free[c][p->nfree[c]++] = v->reg;
}

static bool in_register(const gq_group_value *v) {
  return v->how == HOW_REG || v->how == HOW_ONCE || v->how == HOW_TILE;
}

/* A result may take the register of an operand that dies here: kernels work in place. Values
** that are filled before the micro-ops keep theirs throughout. */
static void assign_registers(gq_group *g) {
  pool p = { 0 };
  int16_t last[GQ_GROUP_VALUES];
  for (int i = 0; i < g->nvalue; i++) {
    last[i] = -1;
    if (g->value[i].how == HOW_ONCE || g->value[i].how == HOW_TILE) take(&p, &g->value[i]);
  }
  for (int k = 0; k < g->nmicro; k++)
    for (int i = 0; i < g->micro[k].nargs; i++) last[g->micro[k].arg[i]] = (int16_t)k;
  for (int k = 0; k < g->nmicro; k++) {
    gq_micro *m = &g->micro[k];
    bool two = m->op == GQ_OP_SOFTPLUS && m->nargs == 2;
    if (two && g->value[m->arg[1]].how == HOW_REG) take(&p, &g->value[m->arg[1]]);
    if (two && g->value[m->out].how == HOW_REG) /* the first result must not run over the operand */
      take(&p, &g->value[m->out]);
    for (int i = 0; i < m->nargs; i++) {
      gq_group_value *v = &g->value[m->arg[i]];
      bool again = (i > 0 && m->arg[0] == m->arg[i]) || (i > 1 && m->arg[1] == m->arg[i]);
      if (v->how == HOW_REG && last[m->arg[i]] == k && !again) give(&p, v);
    }
    if (!two && g->value[m->out].how == HOW_REG) take(&p, &g->value[m->out]);
  }
  uint32_t stream = p.used;
  for (int i = 0; i < g->nvalue; i++)
    if (!in_register(&g->value[i]) && g->value[i].how != HOW_SCALAR)
      stream += (uint32_t)gq_dtype_size(g->value[i].dtype);
  int64_t tile = stream ? ROOM / stream / 64 * 64 : GQ_GROUP_TILE;
  tile = tile < 128 ? 128 : tile > GQ_GROUP_TILE ? GQ_GROUP_TILE : tile;
  if (g->width <= GQ_GROUP_TILE && tile < g->width) tile = (g->width + 63) / 64 * 64;
  g->tile = tile;
  g->scratch = (size_t)p.used * (size_t)tile;
}

static void choose_tiles(gq_group *g) {
  if (g->width <= GQ_GROUP_TILE && g->ndim > 1) {
    g->tile_rows = g->width ? g->tile / g->width : 1;
    g->tile_cols = g->width;
    g->ntile = (g->rows + g->tile_rows - 1) / g->tile_rows;
  } else {
    g->tile_rows = 1;
    g->tile_cols = g->tile;
    g->ntile = g->rows * ((g->width + g->tile - 1) / g->tile);
  }
  if (g->rows == 0 || g->width == 0) g->ntile = 0;
}

static void list_values(gq_group *g) {
  int16_t *next = g->list;
  for (int i = 0; i < g->nvalue; i++) {
    int how = g->value[i].how;
    bool elsewhere =
      g->ntile > 1 && (how == HOW_DIRECT || how == HOW_PIECE); /* the first tile is at the base */
    if (elsewhere || how == HOW_TILE) *next++ = (int16_t)i;
  }
  g->nmoving = (int)(next - g->list);
  for (int i = 0; i < g->nvalue; i++)
    if (in_register(&g->value[i])) *next++ = (int16_t)i;
  g->nheld = (int)(next - g->list) - g->nmoving;
}

int gq_group_finish(gq_group *g) {
  merge_dims(g);
  classify(g);
  for (int k = 0; k < g->nmicro; k++) fold_product(g, k);
  for (int k = 0; k < g->nmicro; k++) fold_softplus(g, k);
  for (int k = 0; k < g->nmicro; k++) fold_fall(g, k);
  compact(g);
  for (int k = 0; k < g->nmicro; k++) GQ_TRY(choose_kernel(g, &g->micro[k]));
  assign_registers(g);
  choose_tiles(g);
  list_values(g);
  return GQ_OK;
}

/* ---- running ---- */

enum { BLOCK = 16 }; /* numbers whose count the compiler knows, so that they are written as vectors */
#define FILL(T)                                     \
  do {                                              \
    T *d = dst, x = *(const T *)src;                \
    int64_t i = 0;                                  \
    for (; i + BLOCK <= n; i += BLOCK)              \
      for (int j = 0; j < BLOCK; j++) d[i + j] = x; \
    for (; i < n; i++) d[i] = x;                    \
  } while (0)
#define PICK(T)                                           \
  do {                                                    \
    T *d = dst;                                           \
    const T *s = src;                                     \
    for (int64_t i = 0; i < n; i++) d[i] = s[i * stride]; \
  } while (0)

static void copy_row(void *dst, const void *src, int64_t n, int64_t stride, size_t size) {
  if (stride == 1) memcpy(dst, src, (size_t)n * size);
  else if (size == 4 && stride == 0) FILL(uint32_t);
  else if (size == 8 && stride == 0) FILL(uint64_t);
  else if (size == 4) PICK(uint32_t);
  else if (size == 8) PICK(uint64_t);
  else PICK(uint8_t);
}

/* Offset of the first number of row r. */
static int64_t row_offset(const gq_group *g, const int64_t *stride, int64_t r) {
  int64_t off = 0;
  for (int i = g->ndim - 2; i >= 0 && r > 0; i--) {
    off += r % g->dim[i] * stride[i];
    r /= g->dim[i];
  }
  return off;
}

static void load_rows(const gq_group *g, const gq_group_value *v, const char *base, char *dst, int64_t row,
                      int64_t nrow, int64_t col, int64_t ncol) {
  size_t size = gq_dtype_size(v->dtype);
  int64_t inner = g->ndim ? v->stride[g->ndim - 1] : 0, off = row_offset(g, v->stride, row) + col * inner;
  for (int64_t r = row; r < row + nrow; dst += (size_t)ncol * size) {
    copy_row(dst, base + off * (int64_t)size, ncol, inner, size);
    r++;
    off = g->ndim == 2 ? off + v->stride[0] : row_offset(g, v->stride, r) + col * inner;
  }
}

typedef struct span {
  int64_t row, nrow, col, ncol;
} span;

static span tile_span(const gq_group *g, int64_t t) {
  span s = { .nrow = 1, .ncol = g->width };
  if (g->tile_rows > 1 || g->tile_cols == g->width) {
    s.row = t * g->tile_rows;
    s.nrow = g->rows - s.row < g->tile_rows ? g->rows - s.row : g->tile_rows;
  } else {
    int64_t per = (g->width + g->tile - 1) / g->tile;
    s.row = t / per;
    s.col = t % per * g->tile;
    s.ncol = g->width - s.col < g->tile ? g->width - s.col : g->tile;
  }
  return s;
}

static void set_registers(const gq_group *g, char *scratch, void **p) {
  const int16_t *held = g->list + g->nmoving;
  for (int j = 0; j < g->nheld; j++) {
    int i = held[j];
    const gq_group_value *v = &g->value[i];
    const void *from = p[i];
    p[i] = scratch + (size_t)v->reg * (size_t)g->tile;
    if (v->how == HOW_ONCE) {
      int64_t nrow = g->tile_rows < g->rows ? g->tile_rows : g->rows;
      int64_t ncol = g->tile_cols < g->width ? g->tile_cols : g->width;
      load_rows(g, v, from, p[i], 0, nrow, 0, ncol);
    }
  }
}

static inline void run_micros(const gq_group *g, void *const *p, size_t n) {
  for (const gq_micro *m = g->micro, *end = m + g->nmicro; m < end; m++)
    m->fn(p[m->out], p[m->arg[0]], p[m->arg[1]], p[m->arg[2]], n);
}

static void move_to(const gq_group *g, void *const *base, span s, void **p) {
  for (int j = 0; j < g->nmoving; j++) {
    int i = g->list[j];
    const gq_group_value *v = &g->value[i];
    int64_t size = (int64_t)gq_dtype_size(v->dtype);
    if (v->how == HOW_DIRECT) p[i] = (char *)base[i] + (s.row * g->width + s.col) * size;
    else if (v->how == HOW_PIECE) p[i] = (char *)base[i] + (row_offset(g, v->stride, s.row) + s.col) * size;
    else load_rows(g, v, base[i], p[i], s.row, s.nrow, s.col, s.ncol);
  }
}

void gq_group_run(const gq_group *g, void **base, void *scratch, int64_t first, int64_t last) {
  void *p[GQ_GROUP_VALUES];
  if (first >= last) return;
  if (!g->nmoving) {
    set_registers(g, scratch, base);
    run_micros(g, base, (size_t)(g->rows * g->width));
    return;
  }
  memcpy(p, base, (size_t)g->nvalue * sizeof *p);
  set_registers(g, scratch, p);
  for (int64_t t = first; t < last; t++) {
    span s = tile_span(g, t);
    move_to(g, base, s, p);
    run_micros(g, p, (size_t)(s.nrow * s.ncol));
  }
}
