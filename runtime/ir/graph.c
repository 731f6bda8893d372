/*
** graph.c -- storage of graphs: nodes in chunks that never move, a hash table that shares
** equal nodes (value numbering, as in LuaJIT's IR), outputs, printing, the structure key.
*/
#include "internal.h"

#include <stddef.h>
#include <string.h>

/* What operations use of gq_attr. SHAPE and DTYPE are the node's own, so that the rest tells nodes apart. */
enum { AXIS = 1, INPUT = 2, TURNS = 4, AXES = 8, PULL = 16, PERM = 32, START = 64, STEP = 128 };
enum { X = 256, SPREAD = 512, DTYPE = 1024, SHAPE = 2048, TELLING = DTYPE - 1, ANY = -1 };
enum { RANGE = START | STEP, WINDOWS = AXIS | PULL | SPREAD | STEP };

const gq_op_info gq_ops[GQ_NOP] = {
#define GQ_UNARY(N, n, meta, takes, vjp, jet, f, doc) { #n, meta, doc, GQ_K_UNARY, GQ_CELL, 1 },
#define GQ_BINARY(N, n, meta, takes, vjp, jet, f, doc) { #n, meta, doc, GQ_K_BINARY, GQ_CELL, 2 },
#define GQ_COMPARE(N, n, takes, f, doc) { #n, NULL, doc, GQ_K_COMPARE, GQ_CELL, 2 },
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, batch, columns, jet, vjp, reads, run, doc) \
  { #n, NULL, doc, GQ_K_OTHER, GQ_##class, nargs },
#include "ops.def"
};

static const uint16_t uses[GQ_NOP] = {
#define GQ_OTHER(N, n, class, nargs, attr, ...) [GQ_OP_##N] = attr,
#include "ops.def"
};

gq_graph *gq_graph_new(void) { return gq_calloc(1, sizeof(gq_graph)); }

void gq_graph_free(gq_graph *g) {
  if (!g) return;
  for (int k = 0; k < GQ_CHUNKS && g->chunk[k]; k++) gq_free(g->chunk[k]);
  for (struct gq_list *p = g->lists, *next; p; p = next) {
    next = p->next;
    gq_free(p);
  }
  gq_free(g->slot);
  gq_free(g->input);
  gq_free(g->output);
  gq_free(g);
}

gq_ref gq_graph_fail(gq_graph *g, int code) {
  if (g->status == GQ_OK) g->status = code;
  return GQ_NONE;
}

void gq_graph_literal(gq_graph *g) { g->literal = true; }

int gq_graph_status(const gq_graph *g) { return g->status; }
int gq_graph_size(const gq_graph *g) { return g->size; }
int gq_graph_inputs(const gq_graph *g) { return g->ninput; }
int gq_graph_outputs(const gq_graph *g) { return g->noutput; }
gq_ref gq_graph_input(const gq_graph *g, int i) { return i >= 0 && i < g->ninput ? g->input[i] : GQ_NONE; }
gq_ref gq_graph_output(const gq_graph *g, int i) { return i >= 0 && i < g->noutput ? g->output[i] : GQ_NONE; }

/* After a failure refs are GQ_NONE; reading such a node is harmless. */
const gq_node *gq_graph_node(const gq_graph *g, gq_ref r) {
  static const gq_node none = { .op = GQ_NOP, .dtype = GQ_F32 };
  return r >= 0 && r < g->size ? gq_at(g, r) : &none;
}

void gq_graph_set_outputs(gq_graph *g, int n, const gq_ref *out) {
  for (int i = 0; i < n; i++)
    if (out[i] < 0 || out[i] >= g->size) {
      if (g->status == GQ_OK)
        gq_graph_fail(g, gq_fail(GQ_EARG, "output %d of a graph is no node of it", i + 1));
      return;
    }
  gq_ref *copy = gq_alloc((size_t)(n + 1) * sizeof *copy);
  if (!copy) {
    gq_graph_fail(g, gq_nomem((size_t)(n + 1) * sizeof *copy));
    return;
  }
  if (n) memcpy(copy, out, (size_t)n * sizeof *copy);
  gq_free(g->output);
  g->output = copy;
  g->noutput = n;
}

/* ---- sharing ---- */

static uint32_t mix(uint32_t h, uint64_t x) {
  x = (x ^ h) * 0x9e3779b97f4a7c15u;
  return (uint32_t)(x >> 32) ^ (uint32_t)x;
}

/* Not all of attr: what is left out only makes a collision likelier. */
static uint32_t hash_node(const gq_node *n, const gq_ref *args) {
  uint64_t bits;
  memcpy(&bits, &n->attr.x, sizeof bits);
  uint32_t h = mix((uint32_t)n->op * 31 + (uint32_t)n->dtype, bits);
  h = mix(h, (uint64_t)(uint32_t)n->attr.axis << 32 | (uint32_t)n->attr.flags);
  for (int i = 0; i < n->nargs; i++) h = mix(h, (uint32_t)args[i]);
  for (int i = 0; i < n->shape.ndim; i++) h = mix(h, (uint64_t)n->shape.dim[i]);
  for (int i = 0; uses[n->op] & START && i < n->shape.ndim; i++) h = mix(h, (uint64_t)n->attr.start[i]);
  return h;
}

static bool same_node(const gq_node *a, const gq_node *b, const gq_ref *args) {
  if (a->op != b->op || a->dtype != b->dtype || a->nargs != b->nargs) return false;
  for (int i = 0; i < b->nargs; i++)
    if (a->args[i] != args[i]) return false;
  return gq_shape_equal(a->shape, b->shape) && memcmp(&a->attr, &b->attr, sizeof a->attr) == 0;
}

static gq_ref find(const gq_graph *g, uint32_t h, const gq_node *n, const gq_ref *args) {
  if (!g->nslot) return GQ_NONE;
  for (uint32_t i = h & (g->nslot - 1); g->slot[i].ref != GQ_NONE; i = (i + 1) & (g->nslot - 1))
    if (g->slot[i].hash == h && same_node(gq_at(g, g->slot[i].ref), n, args)) return g->slot[i].ref;
  return GQ_NONE;
}

gq_ref gq_graph_find(const gq_graph *g, const gq_node *n, const gq_ref *args) {
  return find(g, hash_node(n, args), n, args);
}

static void put(gq_graph *g, uint32_t h, gq_ref r) {
  uint32_t i = h & (g->nslot - 1);
  while (g->slot[i].ref != GQ_NONE) i = (i + 1) & (g->nslot - 1);
  g->slot[i].hash = h;
  g->slot[i].ref = r;
}

static bool grow_slots(gq_graph *g) {
  uint32_t old = g->nslot, n = old ? 2 * old : 32;
  struct gq_slot *from = g->slot, *to = gq_alloc(n * sizeof *to);
  if (!to) return false;
  for (uint32_t i = 0; i < n; i++) to[i].ref = GQ_NONE;
  g->slot = to;
  g->nslot = n;
  for (uint32_t i = 0; i < old; i++)
    if (from[i].ref != GQ_NONE) put(g, from[i].hash, from[i].ref);
  gq_free(from);
  return true;
}

/* Operand list of a node with more than 3 of them: kept by the graph. */
static gq_ref *new_list(gq_graph *g, int n, const gq_ref *args) {
  struct gq_list *list = gq_alloc(sizeof *list + (size_t)n * sizeof *args);
  if (!list) return NULL;
  list->next = g->lists;
  g->lists = list;
  memcpy(list->args, args, (size_t)n * sizeof *args);
  return list->args;
}

static gq_node *new_node(gq_graph *g) {
  uint32_t u = (uint32_t)g->size / GQ_FIRST_CHUNK + 1;
  int k = 31 - __builtin_clz(u);
  if (k >= GQ_CHUNKS) return NULL;
  if (!g->chunk[k]) g->chunk[k] = gq_alloc(((size_t)GQ_FIRST_CHUNK << k) * sizeof(gq_node));
  return g->chunk[k] ? &g->chunk[k][g->size - GQ_FIRST_CHUNK * ((1 << k) - 1)] : NULL;
}

gq_ref gq_graph_add(gq_graph *g, const gq_node *n, const gq_ref *args) {
  uint32_t h = hash_node(n, args);
  gq_ref r = find(g, h, n, args);
  if (r != GQ_NONE) return r;
  if (2 * ((uint32_t)g->size + 1) > g->nslot && !grow_slots(g))
    return gq_graph_fail(g, gq_nomem(16 * g->nslot));
  gq_node *to = new_node(g);
  if (!to) return gq_graph_fail(g, gq_nomem(2 * (size_t)g->size * sizeof *to));
  *to = *n;
  to->args = to->arg;
  for (int i = 0; i < 3; i++) to->arg[i] = i < n->nargs ? args[i] : GQ_NONE;
  if (n->nargs > 3 && !(to->args = new_list(g, n->nargs, args)))
    return gq_graph_fail(g, gq_nomem((size_t)n->nargs * sizeof *args));
  put(g, h, g->size);
  return g->size++;
}

bool gq_graph_calls(const gq_graph *g) {
  for (gq_ref r = 0; r < g->size; r++)
    if (gq_at(g, r)->op == GQ_OP_CALL) return true;
  return false;
}

int gq_graph_most(const gq_graph *g) {
  int most = 3;
  for (gq_ref r = 0; r < g->size; r++)
    if (gq_at(g, r)->nargs > most) most = gq_at(g, r)->nargs;
  return most;
}

void gq_graph_needs(const gq_graph *g, int n, const gq_ref *refs, bool *need) {
  memset(need, 0, (size_t)g->size);
  for (int i = 0; i < n; i++)
    if (refs[i] != GQ_NONE) need[refs[i]] = true;
  for (gq_ref r = g->size - 1; r >= 0; r--) {
    const gq_node *node = gq_at(g, r);
    for (int i = 0; need[r] && i < node->nargs; i++) need[node->args[i]] = true;
  }
}

/* ---- text and bytes ---- */

static void put_axis(gq_text *t, const gq_node *n) { gq_text_put(t, " dim %d", n->attr.axis + 1); }
static void put_input(gq_text *t, const gq_node *n) { gq_text_put(t, " %d", n->attr.axis + 1); }
static void put_number(gq_text *t, const gq_node *n) { gq_text_put(t, " %.17g", n->attr.x); }

static void put_turns(gq_text *t, const gq_node *n) {
  gq_text_put(t, "%s%s", n->attr.flags & GQ_TA ? " a'" : "", n->attr.flags & GQ_TB ? " b'" : "");
}

static void put_axes(gq_text *t, const gq_node *n) {
  gq_text_put(t, " dims");
  for (int i = 0; i < GQ_MAXDIM; i++)
    if (n->attr.flags >> i & 1) gq_text_put(t, " %d", i + 1);
}

static void put_perm(gq_text *t, const gq_node *n) {
  gq_text_put(t, " dims");
  for (int i = 0; i < n->shape.ndim; i++) gq_text_put(t, " %d", n->attr.perm[i] + 1);
}

static void put_range(gq_text *t, const gq_node *n) {
  for (int i = 0; i < n->shape.ndim; i++)
    gq_text_put(t, "%s%lld:%lld", i ? ", " : " from ", (long long)n->attr.start[i] + 1,
                (long long)n->attr.step[i]);
}

/* windowed dims: steps, and what is between the numbers of a window */
static void put_windows(gq_text *t, const gq_node *n) {
  for (int i = n->attr.axis; i < n->attr.axis + n->attr.flags; i++)
    gq_text_put(t, "%s%lld:%lld", i > n->attr.axis ? ", " : " by ", (long long)n->attr.step[i],
                (long long)n->attr.start[i]);
}

/* ---- attributes, in the order of their bits ---- */

typedef struct field {
  size_t at, size; /* in gq_attr; bytes, */
  bool each;       /* for each dim */
  void (*put_)(gq_text *t, const gq_node *n);
} field;

#define ONE(f) offsetof(gq_attr, f), sizeof((gq_attr *)0)->f, false
#define EACH(f) offsetof(gq_attr, f), sizeof((gq_attr *)0)->f[0], true
static const field fields[] = {
  { ONE(axis), put_axis }, { ONE(axis), put_input },     { ONE(flags), put_turns },  { ONE(flags), put_axes },
  { ONE(flags), NULL },    { EACH(perm), put_perm },     { EACH(start), put_range }, { EACH(step), NULL },
  { ONE(x), put_number },  { EACH(start), put_windows }, { ONE(dtype), NULL },
};

static size_t bytes_of(const field *f, const gq_node *n) {
  return f->each ? f->size * (size_t)n->shape.ndim : f->size;
}

/* The next of the attributes `bits`. */
static const field *next(int *bits) {
  const field *f = &fields[__builtin_ctz((unsigned)*bits)];
  *bits &= *bits - 1;
  return f;
}

void gq_attr_clean(gq_node *n, const gq_attr *from_) {
  int all = from_ ? uses[n->op] : 0, bits = all & ~SHAPE;
  while (bits) {
    const field *f = next(&bits);
    memcpy((char *)&n->attr + f->at, (const char *)from_ + f->at, bytes_of(f, n));
  }
  if (all & SHAPE) memcpy(&n->attr.shape, &n->shape, sizeof n->shape);
}

static void put_attr(gq_text *t, const gq_node *n) {
  for (int bits = uses[n->op] & TELLING; bits;) {
    const field *f = next(&bits);
    if (f->put_) f->put_(t, n);
  }
}

char *gq_graph_print(const gq_graph *g) {
  gq_text t = { 0 };
  char text[200];
  for (gq_ref r = 0; r < g->size; r++) {
    const gq_node *n = gq_at(g, r);
    gq_text_put(&t, "%%%d = %s", r, gq_ops[n->op].name);
    for (int i = 0; i < n->nargs; i++) gq_text_put(&t, " %%%d", n->args[i]);
    put_attr(&t, n);
    gq_text_put(&t, " : %s %s\n", gq_dtype_name(n->dtype), gq_shape_text(n->shape, text, sizeof text));
  }
  for (int i = 0; i < g->noutput; i++) gq_text_put(&t, "%s%%%d", i ? ", " : "return ", g->output[i]);
  gq_text_add(&t, "\n", g->noutput ? 1 : 0);
  if (t.failed) gq_free(t.s), t.s = NULL;
  return t.s;
}

/* A node is told by its op, operands, dtype, shape and the attributes that its op uses. */
static void put_node(gq_text *t, const gq_node *n) {
  int32_t head[3] = { n->op, n->dtype, n->nargs };
  gq_text_add(t, head, sizeof head);
  if (n->nargs) gq_text_add(t, n->args, (size_t)n->nargs * sizeof *n->args);
  gq_text_add(t, &n->shape.ndim, sizeof n->shape.ndim);
  gq_text_add(t, n->shape.dim, (size_t)n->shape.ndim * sizeof *n->shape.dim);
  for (int bits = uses[n->op] & TELLING; bits;) {
    const field *f = next(&bits);
    gq_text_add(t, (const char *)&n->attr + f->at, bytes_of(f, n));
  }
}

int gq_graph_key(const gq_graph *g, char **bytes, size_t *n) {
  if (g->status != GQ_OK) return g->status;
  gq_text t = { 0 };
  gq_text_add(&t, &g->size, sizeof g->size);
  for (gq_ref r = 0; r < g->size; r++) put_node(&t, gq_at(g, r));
  gq_text_add(&t, &g->noutput, sizeof g->noutput);
  if (g->noutput) gq_text_add(&t, g->output, (size_t)g->noutput * sizeof *g->output);
  if (t.failed) {
    gq_free(t.s);
    return gq_nomem(2 * t.room);
  }
  *bytes = t.s, *n = t.n;
  return GQ_OK;
}
