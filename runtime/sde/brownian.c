/*
** brownian.c -- W(t) as a function of (seed, t, component): a tree of Brownian bridges.
**
** The interval [t0, t1] is halved `depth` times. Node i of level l (number 2^l + i, the root is 1)
** spans c 2^-l; the value at its middle is normal given the values at its ends, with mean half
** their sum and variance a quarter of its length (Lévy's construction; over a counter-based
** generator: the virtual Brownian tree of Li, Wong, Chen & Duvenaud, AISTATS 2020). Its normals are
** stream 2^l + i of Philox, counted by component, the value at t1 those of stream 0. So W at the
** dyadic times never depends on what was asked before, on threads, or on the depth.
** Inside a leaf the bridge is drawn from the normal of its middle alone: W(t) has the right
** distribution for every t and is continuous, but two times inside one leaf are not independent
** enough: `tol`, the width of a leaf, has to be below the steps that are taken.
** The middles of the highest nodes are kept, as many as fit a few megabytes, and of the others those on the way to
** the last leaf. That saves their normals, not more: a step forward makes the few levels new that differ, a time
** at random those below what is kept.
*/
#include "../base/bridge.h"
#include "areas.h"
#include "sde.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__OPTIMIZE__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-trapping-math") /* vectorise; no result changes */
#endif

const char *const gq_levy_names[] = { "none", "space-time", "space-time-time", "davie", "foster", NULL };

enum {
  MAX_DEPTH = GQ_BROWNIAN_DEPTH,
  BLOCK = 512,           /* components that go down the tree together */
  KEPT = 8 << 20,        /* bytes of middles that stay, */
  KEPT_OF_ROWS = 1 << 14 /* and where many paths are parts of one */
};

struct gq_brownian {
  int users;
  double t0, t1;
  gq_shape shape;
  gq_dtype dtype;
  uint64_t seed;
  gq_key key;
  int depth;
  size_t first, count, stride; /* components from the first on */
  size_t room;                 /* bytes of middles that may stay */
  int kept;                    /* levels whose middles stay, */
  unsigned char *have;         /* [2^kept] once they are there, by the number of the node */
  double
    *mid[MAX_DEPTH]; /* [2^l][count] those; below [count], of the node of level l on the way to leaf `path` */
  double *end;       /* [count] W(t1) */
  double *value;     /* [count] W(last) */
  int known;         /* levels of mid that are filled */
  uint64_t path;     /* the leaf they lead to */
  double last;       /* NaN: none */
  void *block;
  gq_levy levy;
  gq_areas *areas; /* instead of the middles where more than W is known, */
  double *moments; /* [moments][count] of them */
  double grid;     /* steps that read Levy areas; 0: none have */
  bool pinned;
};

/* ---- making ---- */

static int check_span(double t0, double t1, double tol) {
  if (!isfinite(t0) || !isfinite(t1) || !(t0 < t1))
    return gq_fail(
      GQ_EARG, "brownian: t0 is %g and t1 is %g: expected two finite times, the first one smaller", t0, t1);
  if (!isfinite(t1 - t0)) return gq_fail(GQ_EARG, "brownian: from %g to %g is too long", t0, t1);
  if (!(tol >= 0 && tol <= INFINITY))
    return gq_fail(GQ_EARG, "brownian: tol is %g: expected a positive number", tol);
  return GQ_OK;
}

/* Halvings until a leaf is no longer than tol (0: the default, 2^-18 of the interval). */
static int depth_for(double span, double tol) {
  int depth = 18;
  if (tol > 0) depth = (int)ceil(fmin(fmax(log2(span / tol), 1), MAX_DEPTH));
  return depth;
}

/* Levels of which all middles fit. */
static int levels_kept(const gq_brownian *b, size_t each) {
  int n = 0;
  while (n < b->depth && (size_t)2 << n <= b->room / (each + 1)) n++;
  return n;
}

static int alloc_vectors(gq_brownian *b) {
  size_t each, total;
  if (!gq_size_mul(b->count, sizeof(double), &each) || !gq_size_add(each, 63, &each))
    return gq_nomem(SIZE_MAX);
  each &= ~(size_t)63;
  b->kept = levels_kept(b, each);
  size_t nodes = (size_t)1 << b->kept;
  if (!gq_size_mul(each, nodes - 1 + (size_t)(b->depth - b->kept) + 2, &total)) return gq_nomem(SIZE_MAX);
  b->block = gq_alloc(total + 64);
  b->have = gq_calloc(nodes, 1);
  if (!b->block || !b->have) return gq_nomem(total);
  b->stride = each / sizeof(double);
  double *next = b->block;
  for (int l = 0; l < b->depth; l++) b->mid[l] = next, next += (l < b->kept ? (size_t)1 << l : 1) * b->stride;
  b->end = next, b->value = next + b->stride;
  return GQ_OK;
}

typedef struct job { /* one descent, for all components in blocks */
  gq_brownian *b;
  uint64_t fresh; /* bits: levels whose middle is new */
  int levels;     /* to go down */
  uint64_t leaf;
  double part; /* position inside the leaf, 0..1 */
  bool end;    /* none: it is W(t1) */
} job;

static size_t block_size(const gq_brownian *b, size_t from) {
  return b->count - from < BLOCK ? b->count - from : BLOCK;
}

static void end_block(void *ctx, int i) {
  gq_brownian *b = ctx;
  size_t from = (size_t)i * BLOCK, n = block_size(b, from);
  double sd = sqrt(b->t1 - b->t0);
  gq_random_normal(b->key, 0, b->first + from, n, b->end + from);
  for (size_t k = from; k < from + n; k++) b->end[k] *= sd;
}

static int alloc_areas(gq_brownian *b) {
  size_t bytes;
  if (!gq_size_mul(b->count, gq_brownian_moments(b) * sizeof(double), &bytes) ||
      !gq_size_add(bytes, 64, &bytes))
    return gq_nomem(SIZE_MAX);
  if (!(b->moments = gq_alloc(bytes))) return gq_nomem(bytes);
  return gq_areas_new(b->t0, b->t1 - b->t0, b->first, b->count, gq_brownian_moments(b), b->depth, b->seed,
                      &b->areas);
}

static int blocks(const gq_brownian *b) { return (int)((b->count + BLOCK - 1) / BLOCK); }

/* A path like `as`, whose memory it has not. */
static int make(gq_brownian as, gq_brownian **out) {
  gq_brownian *b = gq_calloc(1, sizeof *b);
  if (!b) return gq_nomem(sizeof *b);
  *b = as, b->users = 1, b->last = NAN;
  b->count = (size_t)gq_numel(b->shape), b->key = gq_key_make(b->seed, GQ_FOR_BROWNIAN);
  int status = b->levy ? alloc_areas(b) : alloc_vectors(b);
  if (status != GQ_OK) {
    gq_brownian_free(b);
    return status;
  }
  if (!b->levy) gq_parallel(blocks(b), end_block, b);
  *out = b;
  return GQ_OK;
}

int gq_brownian_new(double t0, double t1, gq_shape shape, gq_dtype d, uint64_t seed, double tol, gq_levy levy,
                    gq_brownian **out) {
  *out = NULL;
  GQ_TRY(check_span(t0, t1, tol));
  GQ_TRY(gq_shape_check(shape, GQ_F64, NULL));
  if (!gq_is_float(d))
    return gq_fail(GQ_EDTYPE, "brownian: dtype %s: expected float32 or float64", gq_dtype_name(d));
  return make((gq_brownian){ .t0 = t0,
                             .t1 = t1,
                             .shape = shape,
                             .dtype = d,
                             .seed = seed,
                             .depth = depth_for(t1 - t0, tol),
                             .levy = levy,
                             .room = KEPT },
              out);
}

int gq_brownian_rows(const gq_brownian *b, int64_t first, int64_t count, gq_brownian **out) {
  gq_brownian part = { .t0 = b->t0,
                       .t1 = b->t1,
                       .shape = b->shape,
                       .dtype = b->dtype,
                       .seed = b->seed,
                       .depth = b->depth,
                       .levy = b->levy,
                       .room = KEPT_OF_ROWS,
                       .grid = b->grid,
                       .pinned = b->pinned };
  *out = NULL;
  if (b->shape.ndim == 0 || first < 0 || count < 0 || first + count > b->shape.dim[0])
    return gq_fail(GQ_EARG, "brownian: rows %lld to %lld of a path of %lld", (long long)first + 1,
                   (long long)(first + count), b->shape.ndim ? (long long)b->shape.dim[0] : 1);
  part.shape.dim[0] = 1, part.first = b->first + (size_t)(first * gq_numel(part.shape)),
  part.shape.dim[0] = count;
  GQ_TRY(make(part, out));
  if (!b->pinned) return GQ_OK;
  if (b->areas) gq_areas_pin_as((*out)->areas, b->areas);
  else memcpy((*out)->end, b->end + (part.first - b->first), (*out)->count * sizeof(double));
  return GQ_OK;
}

int gq_brownian_pin(gq_brownian *b, int m, const double *x) {
  if (m >= gq_brownian_moments(b))
    return gq_fail(
      GQ_EARG,
      "brownian: %c is given, which a path with levy_area = \"%s\" does not know: make it with \"%s\"",
      "WHK"[m], gq_levy_names[b->levy], gq_levy_names[m]);
  for (size_t k = 0; k < b->count; k++)
    if (!isfinite(x[k]))
      return gq_fail(GQ_EARG, "brownian: %c holds %g: expected finite numbers", "WHK"[m], x[k]);
  if (b->areas) gq_areas_pin(b->areas, m, x);
  else memcpy(b->end, x, b->count * sizeof *x);
  b->pinned = true;
  return GQ_OK;
}

gq_brownian *gq_brownian_ref(gq_brownian *b) {
  b->users++;
  return b;
}

void gq_brownian_free(gq_brownian *b) {
  if (!b || --b->users) return;
  gq_areas_free(b->areas);
  gq_free(b->moments);
  gq_free(b->have);
  gq_free(b->block);
  gq_free(b);
}

gq_shape gq_brownian_shape(const gq_brownian *b) { return b->shape; }
gq_dtype gq_brownian_dtype(const gq_brownian *b) { return b->dtype; }
uint64_t gq_brownian_seed(const gq_brownian *b) { return b->seed; }
double gq_brownian_t0(const gq_brownian *b) { return b->t0; }
double gq_brownian_t1(const gq_brownian *b) { return b->t1; }
double gq_brownian_tol(const gq_brownian *b) { return ldexp(b->t1 - b->t0, -b->depth); }

/* ---- asking ---- */

/* Number of the node of level l on the way to a leaf. */
static uint64_t node_of(const gq_brownian *b, uint64_t leaf, int l) {
  return (uint64_t)1 << l | leaf >> (b->depth - l);
}

/* Its middle. */
static double *middle(const gq_brownian *b, uint64_t leaf, int l) {
  return b->mid[l] + (l < b->kept ? (leaf >> (b->depth - l)) * b->stride : 0);
}

/* x[k] = lo + part (hi - lo) + sd x[k] for one block, x given as normals; sd 0: they are not read. */
static void bridge(size_t n, const double *lo, const double *hi, double part, double sd, double *x) {
  static const double zeros[BLOCK];
  if (!lo) lo = zeros;
  if (sd > 0)
    for (size_t k = 0; k < n; k++) x[k] = lo[k] + part * (hi[k] - lo[k]) + sd * x[k];
  else
    for (size_t k = 0; k < n; k++) x[k] = lo[k] + part * (hi[k] - lo[k]) + 0;
}

/* To the place of the job, n numbers from number `from` on: their middles on the way are in mid[levels], W(t1) in hi. */
static void descend(const job *j, size_t from, size_t n, double *const *mid, const double *hi, double *out) {
  const gq_brownian *b = j->b;
  const double *lo = NULL; /* of the node; NULL: W(t0) = 0 */
  double span = b->t1 - b->t0;
  for (int l = 0; l < j->levels; l++) {
    if (j->fresh >> l & 1) {
      gq_random_normal(b->key, node_of(b, j->leaf, l), b->first + from, n, mid[l]);
      bridge(n, lo, hi, 0.5, 0.5 * sqrt(ldexp(span, -l)), mid[l]);
    }
    if (j->leaf >> (b->depth - 1 - l) & 1) lo = mid[l];
    else hi = mid[l];
  }
  double sd = j->part > 0 ? sqrt(ldexp(span, -b->depth) * j->part * (1 - j->part)) : 0;
  if (sd > 0) gq_random_normal(b->key, node_of(b, j->leaf, b->depth), b->first + from, n, out);
  bridge(n, lo, hi, j->part, sd, out);
}

/* By the middles that stay. */
static void descend_kept(const job *j, size_t from, size_t n, double *out) {
  const gq_brownian *b = j->b;
  double *mid[MAX_DEPTH];
  if (j->end) {
    memcpy(out, b->end + from, n * sizeof *out);
    return;
  }
  for (int l = 0; l < j->levels; l++) mid[l] = middle(b, j->leaf, l) + from;
  descend(j, from, n, mid, b->end + from, out);
}

/* Of the `known` levels on the way to leaf `path` those that are on the way to `leaf` too. */
static int levels_shared(const gq_brownian *b, uint64_t path, int known, uint64_t leaf) {
  uint64_t differ = leaf ^ path;
  if (!differ) return known;
  int top = 64 - __builtin_clzll(differ); /* low bits of the leaf number that differ */
  int shared = b->depth - top + 1;        /* nodes of levels 0 .. shared - 1 are the same */
  return shared < known ? shared : known;
}

static gq_bridge tree_of(const gq_brownian *b) {
  return (gq_bridge){ b->t0, b->t1, { b->key.k[0], b->key.k[1] }, b->depth };
}

/* The descent to time t, after those that were asked for before. */
static job way_to(gq_brownian *b, double t) {
  job j = { .b = b };
  gq_bridge tree = tree_of(b);
  j.end = !gq_bridge_locate(&tree, t, &j.leaf, &j.part, &j.levels);
  if (j.end) return j;
  int shared = levels_shared(b, b->path, b->known, j.leaf);
  for (int l = 0; l < j.levels; l++)
    if (l < b->kept ? !b->have[node_of(b, j.leaf, l)] : l >= shared) j.fresh |= (uint64_t)1 << l;
  for (int l = 0; l < j.levels && l < b->kept; l++) b->have[node_of(b, j.leaf, l)] = 1;
  b->known = j.levels > shared ? j.levels : shared;
  b->path = j.leaf;
  return j;
}

typedef struct strides { /* from time to time, block by block */
  gq_brownian *b;
  const job *at; /* [n + 1] */
  int n;
  bool begun; /* the first of them is b->value */
  double sign;
  gq_dtype dtype;
  void *const *out; /* [n] numbers of that */
} strides;

/* x = sign (w1 - w), by vectors */
#define RISE(S, T)                                                                                 \
  static void rise_##S(size_t n, double sign, const double *restrict w, const double *restrict w1, \
                       T *restrict x) {                                                            \
    enum { MANY = 16 };                                                                            \
    size_t i = 0;                                                                                  \
    for (; i + MANY <= n; i += MANY)                                                               \
      for (size_t j = 0; j < MANY; j++) x[i + j] = (T)(sign * (w1[i + j] - w[i + j]));             \
    for (; i < n; i++) x[i] = (T)(sign * (w1[i] - w[i]));                                          \
  }
RISE(f32, float)
RISE(f64, double)

static void stride_block(void *ctx, int i) {
  const strides *s = ctx;
  gq_brownian *b = s->b;
  size_t from = (size_t)i * BLOCK, n = block_size(b, from);
  double room[2][BLOCK], *w = room[0], *w1 = room[1];
  if (s->begun) memcpy(w, b->value + from, n * sizeof *w);
  else descend_kept(&s->at[0], from, n, w);
  for (int k = 0; k < s->n; k++) {
    double *was = w;
    descend_kept(&s->at[k + 1], from, n, w1);
    if (s->dtype == GQ_F32) rise_f32(n, s->sign, w, w1, (float *)s->out[k] + from);
    else rise_f64(n, s->sign, w, w1, (double *)s->out[k] + from);
    w = w1, w1 = was;
  }
  memcpy(b->value + from, w, n * sizeof *w);
}

/* And b->value = W of the last. */
static void stride(gq_brownian *b, int n, const double *t, double sign, gq_dtype d, void *const *out) {
  job at[n + 1];
  strides s = { .b = b, .at = at, .n = n, .begun = t[0] == b->last, .sign = sign, .dtype = d, .out = out };
  for (int k = s.begun; k <= n; k++) at[k] = way_to(b, t[k]);
  gq_parallel(blocks(b), stride_block, &s);
  b->last = t[n];
}

double gq_brownian_slack(const gq_brownian *b) { return 4 * FLT_EPSILON * fmax(fabs(b->t0), fabs(b->t1)); }

/* A time that misses an end by rounding is that end. */
static int check_time(const gq_brownian *b, double *t) {
  double slack = gq_brownian_slack(b);
  if (*t >= b->t0 - slack && *t <= b->t1 + slack) {
    *t = fmin(fmax(*t, b->t0), b->t1);
    return GQ_OK;
  }
  return gq_fail(GQ_EARG, "brownian: time %.17g lies outside [%.17g, %.17g]", *t, b->t0, b->t1);
}

bool gq_brownian_plain(const gq_brownian *b) { return b->levy == GQ_LEVY_NONE && !b->pinned; }

int gq_brownian_tree(const gq_brownian *b, double *s, double *t, gq_bridge *tree) {
  *tree = tree_of(b);
  GQ_TRY(check_time(b, s));
  return check_time(b, t);
}

gq_levy gq_brownian_levy(const gq_brownian *b) { return b->levy; }
int gq_brownian_moments(const gq_brownian *b) {
  return b->levy == GQ_LEVY_NONE ? 1 : b->levy == GQ_LEVY_SPACE_TIME_TIME ? 3 : 2;
}

int gq_brownian_areas(gq_brownian *b, double s, double t, double *x) {
  GQ_TRY(check_time(b, &s));
  GQ_TRY(check_time(b, &t));
  if (!b->areas)
    return gq_fail(GQ_EARG,
                   "brownian: this path knows W alone: make it with levy_area = \"space-time\" or another");
  if (s > t) return gq_fail(GQ_EARG, "brownian: areas are those from an earlier time to a later one");
  gq_areas_between(b->areas, s, t, x);
  return GQ_OK;
}

/* W alone, of a path that knows more. */
static int increment_of_areas(gq_brownian *b, double s, double t, double *dw) {
  double sign = t < s ? -1 : 1;
  GQ_TRY(gq_brownian_areas(b, fmin(s, t), fmax(s, t), b->moments));
  for (size_t k = 0; k < b->count; k++) dw[k] = sign * b->moments[k];
  return GQ_OK;
}

/* Of one interval: its ends as they are. */
static uint64_t interval_stream(double s, double t) {
  uint64_t x, y;
  uint32_t r[4];
  memcpy(&x, &s, sizeof x), memcpy(&y, &t, sizeof y);
  const uint32_t ctr[4] = { (uint32_t)x, (uint32_t)(x >> 32), (uint32_t)y, (uint32_t)(y >> 32) };
  gq_philox(ctr, (gq_key){ { 0, 0 } }, r);
  return (uint64_t)r[1] << 32 | r[0];
}

/* H_i W_j - W_i H_j, the mean given W and H, and independent normals of the variance h^2 / 12 (Davie), or of the
** conditional one h^2 / 20 + h (H_i^2 + H_j^2) / 5 (Foster, Oxford 2020, 5.3), whose mean that is. */
int gq_brownian_levy_areas(gq_brownian *b, double s, double t, const double *w, const double *h,
                           double *area) {
  if (b->levy != GQ_LEVY_DAVIE && b->levy != GQ_LEVY_FOSTER)
    return gq_fail(GQ_EARG,
                   "brownian: this path has no Levy areas: make it with levy_area = \"davie\" or \"foster\"");
  size_t m = b->shape.ndim ? (size_t)b->shape.dim[b->shape.ndim - 1] : 1;
  double dt = t - s;
  gq_key key = gq_key_make(b->seed, GQ_FOR_LEVY);
  gq_random_normal(key, interval_stream(s, t), b->first * m, b->count * m, area);
  for (size_t r = 0; r < b->count; r += m)
    for (size_t i = 0; i < m; i++)
      for (size_t j = i; j < m; j++) {
        double hh = h[r + i] * h[r + i] + h[r + j] * h[r + j];
        double var = b->levy == GQ_LEVY_DAVIE ? dt * dt / 12 : dt * dt / 20 + dt * hh / 5;
        double *a = &area[(r + i) * m];
        double v = i == j ? 0 : h[r + i] * w[r + j] - w[r + i] * h[r + j] + sqrt(var) * a[j];
        a[j] = v, area[(r + j) * m + i] = -v;
      }
  return GQ_OK;
}

int gq_brownian_grid(gq_brownian *b, double dt) {
  if (b->grid > 0 && b->grid != dt)
    return gq_fail(
      GQ_EARG,
      "the Levy areas of this path belong to steps of %g: they are approximations that do not add up, "
      "so a solve with dt = %g needs another path",
      b->grid, dt);
  b->grid = dt;
  return GQ_OK;
}

int gq_brownian_value(gq_brownian *b, double t, double *w) {
  GQ_TRY(check_time(b, &t));
  if (b->areas) return increment_of_areas(b, b->t0, t, w);
  if (t != b->last) stride(b, 0, &t, 1, GQ_F64, NULL);
  memcpy(w, b->value, b->count * sizeof *w);
  return GQ_OK;
}

int gq_brownian_steps(gq_brownian *b, int n, const double *t, double sign, gq_dtype d, void *const *out) {
  double at[n + 1];
  for (int k = 0; k <= n; k++) at[k] = t[k];
  for (int k = 0; k <= n; k++) GQ_TRY(check_time(b, &at[k]));
  stride(b, n, at, sign, d, out);
  return GQ_OK;
}

int gq_brownian_increment(gq_brownian *b, double s, double t, double *dw) {
  if (!b->areas) return gq_brownian_steps(b, 1, (double[]){ s, t }, 1, GQ_F64, (void *[]){ dw });
  GQ_TRY(check_time(b, &s));
  GQ_TRY(check_time(b, &t));
  return increment_of_areas(b, s, t, dw);
}

/* ---- many times at once ---- */

/* An end of interval `of`: the first or the last. */
typedef struct moment {
  double t;
  int of;
  bool last;
} moment;

typedef struct visits { /* all of them, in the order of times, block by block */
  const gq_brownian *b;
  const moment *at;
  int n;
  double *out;
  double *scratch; /* [blocks][depth + 1][BLOCK] */
} visits;

static int earlier(const void *x, const void *y) {
  const moment *a = x, *b = y;
  if (a->t != b->t) return a->t < b->t ? -1 : 1;
  return a->of != b->of ? (a->of < b->of ? -1 : 1) : a->last - b->last;
}

/* out = W of the interval's end that came first; then the difference of both. */
static void put_moment(const moment *m, bool second, size_t n, const double *w, double *out) {
  if (!second) memcpy(out, w, n * sizeof *out);
  else if (m->last)
    for (size_t k = 0; k < n; k++) out[k] = w[k] - out[k];
  else
    for (size_t k = 0; k < n; k++) out[k] -= w[k];
}

/* Every node on the way is made once: middles of the last way stay, as many as the next one shares. */
static void visit_block(void *ctx, int i) {
  const visits *v = ctx;
  const gq_brownian *b = v->b;
  size_t from = (size_t)i * BLOCK, n = block_size(b, from);
  gq_bridge tree = tree_of(b);
  double *mid[MAX_DEPTH], *w = v->scratch + (size_t)i * (b->depth + 1) * BLOCK;
  uint64_t path = 0;
  int known = 0;
  for (int l = 0; l < b->depth; l++) mid[l] = w + (l + 1) * BLOCK;
  for (int k = 0; k < v->n && !gq_interrupted(); k++) {
    const moment *m = &v->at[k];
    const double *value = b->end + from;
    job j = { .b = (gq_brownian *)(uintptr_t)b };
    if (gq_bridge_locate(&tree, m->t, &j.leaf, &j.part, &j.levels)) {
      int shared = levels_shared(b, path, known, j.leaf);
      for (int l = shared; l < j.levels; l++) j.fresh |= (uint64_t)1 << l;
      descend(&j, from, n, mid, b->end + from, w);
      known = j.levels > shared ? j.levels : shared, path = j.leaf, value = w;
    }
    put_moment(m, m->of < 0, n, value, v->out + (size_t)(m->of < 0 ? ~m->of : m->of) * b->count + from);
  }
}

/* Ends of n intervals, or n times where s is NULL, in their order; `of` is turned where the interval began earlier. */
static int sort_moments(gq_brownian *b, int n, const double *s, const double *t, moment *at, int *count) {
  int k = 0;
  for (int i = 0; i < n; i++)
    for (int last = !s; last < 2; last++) {
      at[k] = (moment){ last ? t[i] : s[i], i, last };
      GQ_TRY(check_time(b, &at[k++].t));
    }
  qsort(at, k, sizeof *at, earlier);
  bool *seen = gq_calloc(n, sizeof *seen);
  if (!seen) return gq_nomem(n);
  for (int i = 0; i < k; i++) {
    int of = at[i].of;
    if (seen[of]) at[i].of = ~of;
    seen[of] = true;
  }
  gq_free(seen);
  *count = k;
  return GQ_OK;
}

static int visit(gq_brownian *b, int n, const double *s, const double *t, double *out) {
  visits v = { .b = b, .out = out };
  moment *at = gq_calloc((size_t)(s ? 2 : 1) * n + 1, sizeof *at);
  v.scratch = gq_alloc((size_t)blocks(b) * (b->depth + 1) * BLOCK * sizeof(double));
  int status = at && v.scratch ? sort_moments(b, n, s, t, at, &v.n) : gq_nomem(n);
  v.at = at;
  if (status == GQ_OK) gq_parallel(blocks(b), visit_block, &v);
  if (status == GQ_OK && gq_interrupted())
    status = gq_fail(GQ_EINTERRUPT, "interrupted along a Brownian path");
  gq_free(v.scratch);
  gq_free(at);
  return status;
}

int gq_brownian_many(gq_brownian *b, int n, const double *s_, const double *t, double *out) {
  if (!b->areas) return visit(b, n, s_, t, out);
  for (int i = 0; i < n; i++)
    GQ_TRY(gq_brownian_increment(b, s_ ? s_[i] : b->t0, t[i], out + (size_t)i * b->count));
  return GQ_OK;
}

void gq_cosines(uint64_t seed, int cosines, size_t n, double *xi) {
  gq_key key = gq_key_make(seed, GQ_FOR_COSINES);
  for (int i = 0; i < cosines; i++) gq_random_normal(key, (uint64_t)i, 0, n, xi + (size_t)i * n);
}
