/*
** areas.c -- W, its space-time area H and its space-time-time area K over any interval, as a function of (seed, interval):
**   H = 1/h int (W_s,r - (r - s)/h W_s,t) dr,  K = 1/h^2 int (W_s,r - (r - s)/h W_s,t) ((s + t)/2 - r) dr.
**
** Over an interval the integrals of dW against the normalised Legendre polynomials are independent standard normals x_i,
** and W = sqrt(h) x_0, H = -sqrt(h / 12) x_1, K = sqrt(h / 720) x_2 (Foster, Lyons & Oberhauser, SIAM J. Numer. Anal. 58,
** 2020). Polynomials restricted to a part of the interval are polynomials there: those of the whole are sums of those of its
** two parts, and a part's, given the whole's, have a mean linear in them. So the bridge tree of brownian.c holds such
** vectors instead of values: node i of level l is split at its middle by normals of stream 2^l + i, a leaf at any place by
** those of its own (after Jelincic, Tao, Turner, Cass, Foster & Ni, 2024, who do it for W, H and K by hand). An interval is
** put together from the nodes that cover it, nothing is subtracted.
** Both children of the nodes on the way to the last leaf are kept.
*/
#include "areas.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 256 }; /* components that go down the tree together */

struct gq_areas {
  double t0, span;
  int depth, n;
  size_t first, count;
  gq_key key[GQ_MOMENTS];
  double *child[2 * GQ_BROWNIAN_DEPTH + 2]; /* [n][count]: 2 l + side: of level l, child[0] the whole */
  uint64_t path;                            /* the leaf on whose way they are, */
  int known;                                /* to this level */
  void *block;
};

/* ---- an interval and its parts ---- */

typedef struct mix { /* c[i][j], i <= j: what x_j of the whole takes from x_i of a part */
  double c[GQ_MOMENTS][GQ_MOMENTS];
} mix;

/* Of the first part, which is `at` of the whole. */
static mix first_part(double at) {
  double r = sqrt(at), q = at - 1;
  return (mix){ { { r, r * sqrt(3) * q, r * sqrt(5) * (2 * at - 1) * q },
                  { 0, r * at, r * sqrt(15) * at * q },
                  { 0, 0, r * at * at } } };
}

/* Of the second one, which begins there: the same backwards, where odd polynomials change sign. */
static mix second_part(double at) {
  mix m = first_part(1 - at);
  m.c[0][1] = -m.c[0][1], m.c[1][2] = -m.c[1][2];
  return m;
}

/* Lower triangle of the root of I - M M', the covariance of a part's numbers given the whole's. */
static mix root(const mix *m, int n) {
  mix l = { { { 0 } } };
  for (int i = 0; i < n; i++)
    for (int j = 0; j <= i; j++) {
      double s = i == j;
      for (int k = 0; k < n; k++) s -= m->c[i][k] * m->c[j][k];
      for (int k = 0; k < j; k++) s -= l.c[i][k] * l.c[j][k];
      l.c[i][j] = i == j ? sqrt(fmax(s, 0)) : l.c[j][j] > 0 ? s / l.c[j][j] : 0;
    }
  return l;
}

typedef struct vec { /* of a block of components */
  double *x[GQ_MOMENTS];
} vec;

typedef struct scratch {
  double x[GQ_MOMENTS][BLOCK];
} scratch;

static vec of(scratch *s) { return (vec){ { s->x[0], s->x[1], s->x[2] } }; }

/* rest' y = whole - part' x: the part that is left */
static void leave(int n, size_t k, vec whole, const mix *part, vec x, const mix *rest, vec y) {
  for (int j = 0; j < n; j++)
    for (size_t e = 0; e < k; e++) {
      double s = whole.x[j][e];
      for (int i = 0; i <= j; i++) s -= part->c[i][j] * x.x[i][e];
      for (int i = 0; i < j; i++) s -= rest->c[i][j] * y.x[i][e];
      y.x[j][e] = s / rest->c[j][j];
    }
}

/* Two parts of `whole` by standard normals z; the shorter one is drawn. */
static void split(int n, size_t k, vec whole, double at, vec z, vec first, vec second) {
  mix a = first_part(at), b = second_part(at);
  bool swap = at > 0.5;
  const mix *drawn = swap ? &b : &a, *rest = swap ? &a : &b;
  vec x = swap ? second : first;
  mix l = root(drawn, n);
  for (int i = 0; i < n; i++)
    for (size_t e = 0; e < k; e++) {
      double s = 0;
      for (int j = 0; j < n; j++) s += drawn->c[i][j] * whole.x[j][e];
      for (int j = 0; j <= i; j++) s += l.c[i][j] * z.x[j][e];
      x.x[i][e] = s;
    }
  leave(n, k, whole, drawn, x, rest, swap ? first : second);
}

/* Neighbours as one, of lengths h and h1; out may be either. */
static void join(int n, size_t k, vec x, double h, vec x1, double h1, vec out) {
  double at = h / (h + h1);
  mix a = first_part(at), b = second_part(at);
  for (size_t e = 0; e < k; e++)
    for (int j = n - 1; j >= 0; j--) {
      double s = 0;
      for (int i = 0; i <= j; i++) s += a.c[i][j] * x.x[i][e] + b.c[i][j] * x1.x[i][e];
      out.x[j][e] = s;
    }
}

/* ---- the tree ---- */

static int side(const gq_areas *a, uint64_t leaf, int level) {
  return level ? (int)(leaf >> (a->depth - level) & 1) : 0;
}

static vec at_child(const gq_areas *a, int level, int which, size_t from) {
  vec v = { { NULL } };
  for (int i = 0; i < a->n; i++) v.x[i] = a->child[2 * level + which] + i * a->count + from;
  return v;
}

static vec at_node(const gq_areas *a, uint64_t leaf, int level, size_t from) {
  return at_child(a, level, side(a, leaf, level), from);
}

static void normals(const gq_areas *a, uint64_t stream, size_t from, size_t k, vec z) {
  for (int i = 0; i < a->n; i++) gq_random_normal(a->key[i], stream, a->first + from, k, z.x[i]);
}

/* Children of the nodes on the way to the leaf, of levels first .. last. */
static void go_down(gq_areas *a, uint64_t leaf, int first, int last, size_t from, size_t k) {
  scratch z;
  for (int l = first; l <= last; l++) {
    normals(a, (uint64_t)1 << (l - 1) | leaf >> (a->depth - l + 1), from, k, of(&z));
    split(a->n, k, at_node(a, leaf, l - 1, from), 0.5, of(&z), at_child(a, l, 0, from),
          at_child(a, l, 1, from));
  }
}

/* The two parts of a leaf. */
static void cut(const gq_areas *a, uint64_t leaf, double at, size_t from, size_t k, vec first, vec second) {
  scratch z;
  normals(a, (uint64_t)1 << a->depth | leaf, from, k, of(&z));
  split(a->n, k, at_node(a, leaf, a->depth, from), at, of(&z), first, second);
}

static void copy(int n, size_t k, vec x, vec out) {
  for (int i = 0; i < n; i++) memcpy(out.x[i], x.x[i], k * sizeof(double));
}

/* ---- asking ---- */

typedef struct end { /* where an interval begins or ends */
  uint64_t leaf;
  double at; /* place in the leaf, 0 to 1 */
  int level; /* of the largest node that begins or ends there and lies inside */
  int fresh; /* first level that is not known */
} end;

typedef struct job {
  gq_areas *a;
  end s, t;
  int common; /* level of the last node on the way to both */
  double h, *out;
} job;

static int level_of(const gq_areas *a, uint64_t edge) { return edge ? a->depth - __builtin_ctzll(edge) : 0; }

static int shared(const gq_areas *a, uint64_t x, uint64_t y) {
  return x == y ? a->depth : a->depth - (64 - __builtin_clzll(x ^ y));
}

/* From s to the end of its half of the common node, or (last) from the start of its own half to t; how long that is. */
static double half(const job *j, bool last, size_t from, size_t k, vec out) {
  gq_areas *a = j->a;
  const end *e = last ? &j->t : &j->s;
  scratch other;
  bool part = last ? e->at < 1 : e->at > 0;
  double h = !part ? ldexp(1, a->depth - e->level) : last ? e->at : 1 - e->at;
  go_down(a, e->leaf, e->fresh, e->level, from, k);
  if (part) cut(a, e->leaf, e->at, from, k, last ? out : of(&other), last ? of(&other) : out);
  else copy(a->n, k, at_node(a, e->leaf, e->level, from), out);
  for (int l = e->level; l > j->common + 1; l--) {
    double more = ldexp(1, a->depth - l);
    if (side(a, e->leaf, l) != last) continue;
    vec beside = at_child(a, l, !last, from);
    if (last) join(a->n, k, beside, more, out, h, out);
    else join(a->n, k, out, h, beside, more, out);
    h += more;
  }
  return h;
}

/* Both ends in one leaf: what goes to t without what goes to s. */
static void inside(const job *j, size_t from, size_t k, vec out) {
  gq_areas *a = j->a;
  scratch x, y, other;
  go_down(a, j->s.leaf, j->s.fresh, a->depth, from, k);
  if (j->t.at < 1) cut(a, j->t.leaf, j->t.at, from, k, of(&x), of(&other));
  else copy(a->n, k, at_node(a, j->t.leaf, a->depth, from), of(&x));
  if (j->s.at == 0) {
    copy(a->n, k, of(&x), out);
    return;
  }
  mix first = first_part(j->s.at / j->t.at), rest = second_part(j->s.at / j->t.at);
  cut(a, j->s.leaf, j->s.at, from, k, of(&y), of(&other));
  leave(a->n, k, of(&x), &first, of(&y), &rest, out);
}

/* What x_m is of moment m over an interval of length h. */
static double unit(int m, double h) { return m == 0 ? sqrt(h) : m == 1 ? -sqrt(h / 12) : sqrt(h / 720); }

static void answer_block(void *ctx, int i) {
  const job *j = ctx;
  gq_areas *a = j->a;
  size_t from = (size_t)i * BLOCK, k = a->count - from < BLOCK ? a->count - from : BLOCK;
  scratch x, y;
  if (j->s.leaf == j->t.leaf) {
    inside(j, from, k, of(&x));
  } else {
    double h = half(j, false, from, k, of(&x)), h1 = half(j, true, from, k, of(&y));
    join(a->n, k, of(&x), h, of(&y), h1, of(&x));
  }
  for (int m = 0; m < a->n; m++) {
    double each = unit(m, j->h);
    for (size_t e = 0; e < k; e++) j->out[m * a->count + from + e] = each * x.x[m][e];
  }
}

static int larger(int x, int y) { return x > y ? x : y; }
static int smaller(int x, int y) { return x < y ? x : y; }

void gq_areas_between(gq_areas *a, double s, double t, double *out) {
  job j = { .a = a, .h = t - s, .out = out };
  double x = ldexp((s - a->t0) / a->span, a->depth), y = ldexp((t - a->t0) / a->span, a->depth);
  if (!(y > x)) {
    memset(out, 0, a->n * a->count * sizeof *out);
    return;
  }
  j.s.leaf = (uint64_t)x, j.s.at = x - (double)j.s.leaf;
  j.t.leaf = (uint64_t)ceil(fmin(y, ldexp(1, a->depth))) - 1, j.t.at = fmin(y - (double)j.t.leaf, 1);
  bool same = j.s.leaf == j.t.leaf;
  j.common = shared(a, j.s.leaf, j.t.leaf);
  j.s.level = same || j.s.at > 0 ? a->depth : larger(level_of(a, j.s.leaf), j.common + 1);
  j.t.level = same || j.t.at < 1 ? a->depth : larger(level_of(a, j.t.leaf + 1), j.common + 1);
  int valid = smaller(a->known, shared(a, a->path, j.s.leaf) + 1);
  j.s.fresh = valid + 1, valid = larger(valid, j.s.level);
  if (!same) valid = smaller(valid, j.common + 1), j.t.fresh = valid + 1, valid = larger(valid, j.t.level);
  gq_parallel((int)((a->count + BLOCK - 1) / BLOCK), answer_block, &j);
  a->known = valid, a->path = j.t.leaf;
}

/* ---- making ---- */

static void whole_block(void *ctx, int i) {
  gq_areas *a = ctx;
  size_t from = (size_t)i * BLOCK, k = a->count - from < BLOCK ? a->count - from : BLOCK;
  normals(a, 0, from, k, at_child(a, 0, 0, from));
}

int gq_areas_new(double t0, double span, size_t first, size_t count, int moments, int depth, uint64_t seed,
                 gq_areas **out) {
  static const int purpose[GQ_MOMENTS] = { GQ_FOR_BROWNIAN, GQ_FOR_AREA, GQ_FOR_AREA_TOO };
  size_t each, total;
  gq_areas *a = gq_calloc(1, sizeof *a);
  if (!a) return gq_nomem(sizeof *a);
  *a = (gq_areas){ .t0 = t0, .span = span, .first = first, .count = count, .n = moments, .depth = depth };
  bool fits = gq_size_mul(count, moments * sizeof(double), &each) &&
              gq_size_mul(each, 2 * (size_t)depth + 1, &total) && gq_size_add(total, 64, &total);
  if (!fits || !(a->block = gq_alloc(total))) {
    gq_free(a);
    return gq_nomem(fits ? total : SIZE_MAX);
  }
  char *next = a->block;
  for (int i = 0; i < 2 * depth + 2; i++) {
    if (i == 1) continue;
    a->child[i] = (double *)next, next += each;
  }
  for (int i = 0; i < moments; i++) a->key[i] = gq_key_make(seed, purpose[i]);
  gq_parallel((int)((count + BLOCK - 1) / BLOCK), whole_block, a);
  *out = a;
  return GQ_OK;
}

void gq_areas_pin(gq_areas *a, int m, const double *x) {
  double *whole = a->child[0] + m * a->count, each = unit(m, a->span);
  for (size_t e = 0; e < a->count; e++) whole[e] = x[e] / each;
}

void gq_areas_pin_as(gq_areas *a, const gq_areas *of) {
  for (int m = 0; m < a->n; m++)
    memcpy(a->child[0] + m * a->count, of->child[0] + m * of->count + (a->first - of->first),
           a->count * sizeof(double));
}

void gq_areas_free(gq_areas *a) {
  if (!a) return;
  gq_free(a->block);
  gq_free(a);
}
