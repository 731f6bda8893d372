/*
** conv.c -- convolutions without the matrix of windows. An image, a few lines at a time, is copied once with zeros
** around; a tile of the result, some windows by some vectors of channels, is summed from it with the weight packed so
** that channels are innermost (tile.h). The same tile makes all three, with other pointers and places:
**     G = W win(X)           windows by m:                  sum over K    pointers: windows    w: the weight
**     X = win'(W' G)         the same with X and G exchanged and the weight turned round, where windows step by 1
**     W = sum G win(X)'      places of a window by m:       sum over P    pointers: places     w: G, turned
** Where m is small and windows step by 1, vectors are places of an image that follow each other instead, those between
** its lines too. Windows that step further are added one product of a matrix at a time. Of 3 x 3 numbers that follow
** each other and enough channels, in float32, 16 results are made at once by 36 products instead of 144 (winograd.h):
** for each of 6 x 6 places a product of matrices over the channels of some images, or for the weight over tiles. Pieces
** are shared among the threads so that each result is written by one of them, summed in an order that does not depend
** on their number.
*/
#include "cpu.h"

#include <string.h>

enum {
  NEAR = 1 << 17,    /* bytes of an image that stay in the second-level cache, */
  SUMS = 1 << 18,    /* and of sums */
  DEPTH = 256,       /* terms of a tile at once: their weights stay in the first-level cache */
  FEW = 12,          /* channels of a result, most of which a vector of them would not fill */
  SIDE = 4,          /* results of a tile along a side, */
  PLACES = 36,       /* and products for them */
  FASTER = 8,        /* least channels of images and results for them, */
  BETWEEN = 1 << 19, /* and bytes of what is between their transforms */
  ALIGN = 64
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static int64_t size_of(const gq_conv *v) { return (int64_t)gq_dtype_size(v->dtype); }
static int64_t places(const gq_conv *v) { return v->k[0] * v->k[1]; }
static int64_t windows(const gq_conv *v) { return v->count[0] * v->count[1]; }

/* Numbers of a dimension that n windows reach. */
static int64_t reach(const gq_conv *v, int i, int64_t n) {
  return (n - 1) * v->step[i] + (v->k[i] - 1) * v->apart[i] + 1;
}

/* ---- plans ---- */

/* X = win'(W' G) as a product with windows of G. */
static gq_conv exchanged(const gq_conv *v) {
  gq_conv e = *v;
  e.m = v->c, e.c = v->m;
  for (int i = 0; i < 2; i++) {
    e.size[i] = v->count[i], e.count[i] = v->size[i];
    e.pad[i] = (v->k[i] - 1) * v->apart[i] - v->pad[i];
  }
  return e;
}

/* Columns of the packed weight are in panels, the last as small as whole units allow. */
static int64_t unit(const gq_convolution *p) {
  return p->thin ? p->thin : p->kernels->tile_width[p->conv.dtype];
}
static int64_t most_at_once(const gq_convolution *p) { return (p->thin ? 1 : 3) * unit(p); }
static int64_t panel(const gq_convolution *p, int64_t from) {
  return least(most_at_once(p), up(p->conv.m - from, unit(p)));
}
static int64_t packed_width(const gq_convolution *p) { return up(p->conv.m, unit(p)); }

/* Channels at once where few are worth a pass over all places. */
static int thin(const gq_kernels *k, const gq_conv *v) {
  int64_t passes = (v->m + GQ_LINES - 1) / GQ_LINES, at_once = (v->m + passes - 1) / passes;
  bool close = v->step[0] == 1 && v->step[1] == 1 && v->kind != GQ_CONV_WEIGHT && v->m <= FEW;
  int64_t by_places = reach(v, 1, v->count[1]) * at_once * passes;
  return close && by_places < v->count[1] * up(v->m, k->tile_width[v->dtype]) ? (int)at_once : 0;
}

/* Numbers that a thin piece of so many lines sums for a channel: whole vectors, the last may reach behind the image. */
static int64_t all_places(const gq_convolution *p, int64_t lines) {
  const gq_conv *v = &p->conv;
  int64_t vector = p->kernels->tile_width[v->dtype], n = (lines - 1) * reach(v, 1, v->count[1]) + v->count[1];
  return most(up(n, vector), gq_line_vectors(p->thin) * vector);
}

/* Tiles of results at once? */
static bool tiled(const gq_conv *v) {
  for (int i = 0; i < 2; i++)
    if (v->k[i] != 3 || v->step[i] != 1 || v->apart[i] != 1 || v->count[i] < SIDE - 1) return false;
  return v->dtype == GQ_F32 && v->c >= FASTER && v->m >= FASTER;
}

/* Tiles of so many lines; channels of the turned image and of the packed weight are whole vectors. */
static int64_t over(int64_t n) { return (n + SIDE - 1) / SIDE; }
static int64_t across(const gq_conv *v) { return over(v->count[1]); }
static int64_t tiles_of(const gq_conv *v, int64_t lines) { return over(lines) * across(v); }
/* Numbers from place to place of a tile, an odd number of cache lines: powers of two would share their sets. */
static int64_t plane(int64_t n) { return up(n, ALIGN / 4) | ALIGN / 4; }
static int64_t deep(const gq_convolution *p) { return up(p->conv.c, p->kernels->tile_width[GQ_F32]); }

/* So many images of at most `most` as leave the least of the rows empty that the products take at once. */
static int64_t even_images(const gq_convolution *p, int64_t most, int64_t each) {
  int64_t best = 1, rows = p->kernels->tile_rows / 2;
  for (int64_t i = 2; i <= most; i++)
    if (up(i * each, rows) * best <= up(best * each, rows) * i) best = i;
  return best;
}

/* Many lines of an image, or some images: more where the weight, which each piece reads, is large. */
static void plan_tiled(gq_convolution *p) {
  const gq_conv *v = &p->conv;
  bool weight = v->kind == GQ_CONV_WEIGHT;
  int64_t tile = p->kernels->tile_rows, size = sizeof(float), C = deep(p), W = packed_width(p);
  int64_t wide = weight ? W : panel(p, 0), high = over(v->count[0]), products = PLACES * size;
  int64_t room = most(BETWEEN, C * W * products / 2),
          most_high = most(1, room / (products * across(v) * (C + wide)));
  int64_t pieces = (high + most_high - 1) / most_high;
  int64_t images = most(1, least(v->blocks / v->period, most_high / high));
  p->images = weight ? images : even_images(p, images, high * across(v));
  p->lines = SIDE * ((high + pieces - 1) / pieces), p->channels = v->c;
  int64_t n = p->images * tiles_of(v, p->lines), tall = up(weight ? v->c : n, tile);
  int64_t results = (p->lines * SIDE * across(v) + SIDE) * wide;
  p->image = up((2 * up(most(C, n), 16) + PLACES * tiles_of(v, p->lines)) * (int64_t)sizeof(int32_t), ALIGN);
  p->spread = p->image + up((1 + least(v->size[0], p->lines + 2) * v->size[1]) * C * size, ALIGN);
  p->turned = p->spread + up(most(PLACES * plane(n * C), weight ? places(v) * v->c * W : 0) * size, ALIGN);
  p->sums = p->turned + up((results + (weight ? PLACES * plane(n * W) : 0)) * size, ALIGN);
  p->scratch = (size_t)(p->sums + up(PLACES * plane(tall * wide) * size, ALIGN));
  p->shared =
    weight ? 0 : (size_t)up((v->period * PLACES * plane(v->c * W) + places(v) * v->c * W) * size, ALIGN);
}

static void plan_direct(gq_convolution *p) {
  gq_conv *v = &p->conv;
  const gq_kernels *k = p->kernels;
  p->tiled = tiled(v);
  if (p->tiled) {
    plan_tiled(p);
    return;
  }
  p->thin = thin(k, v);
  int64_t cols = reach(v, 1, v->count[1]), size = size_of(v), K = v->c * places(v), width = packed_width(p);
  p->channels = v->c;
  if (v->kind == GQ_CONV_WEIGHT) p->channels = most(1, least(v->c, SUMS / (places(v) * width * size)));
  p->lines = NEAR / (cols * size * p->channels) - reach(v, 0, 1) + 1;
  p->lines = most(1, least(v->count[0], p->lines / v->step[0]));
  int64_t n = p->lines * v->count[1], terms = v->kind == GQ_CONV_WEIGHT ? p->channels * places(v) : K,
          behind = 0;
  int64_t sums =
    v->kind == GQ_CONV_WEIGHT ? up(terms, k->tile_rows) * width : up(n, k->tile_rows) * panel(p, 0);
  if (p->thin) behind = all_places(p, p->lines), sums = p->thin * behind;
  p->image = up(most(K, n) * (int64_t)sizeof(int32_t), ALIGN) +
             up(up(most(terms, n), k->tile_rows) * (int64_t)sizeof(int32_t), ALIGN);
  p->sums = p->image + up((p->channels * reach(v, 0, p->lines) * cols + behind) * size, ALIGN);
  p->turned = p->sums + up(sums * size, ALIGN);
  p->scratch = (size_t)(p->turned + (v->kind == GQ_CONV_WEIGHT ? up(n * width * size, ALIGN) : 0));
  p->shared = v->kind == GQ_CONV_WEIGHT ? 0 : (size_t)up(v->period * K * width * size, ALIGN);
}

gq_convolution gq_conv_plan(const gq_conv *v) {
  const gq_kernels *k = gq_cpu();
  gq_convolution p = { .conv = *v,
                       .kernels = k,
                       .images = 1,
                       .direct = v->kind != GQ_CONV_DATA || (v->step[0] == 1 && v->step[1] == 1) };
  if (v->kind == GQ_CONV_DATA && p.direct) p.conv = exchanged(v);
  if (p.direct) {
    plan_direct(&p);
    return p;
  }
  int64_t line = windows(v) * places(v) * size_of(v); /* of one channel */
  p.channels = least(v->c, 2 * NEAR / line + 1);
  p.scratch = (size_t)up(p.channels * line, ALIGN);
  return p;
}

/* ---- numbers in and out ---- */

/* The first and, behind it, the last of n windows whose number at `place` lies in the image:
** its index is i step + at. */
static void inside(int64_t n, int64_t step, int64_t at, int64_t size, int64_t *first, int64_t *end) {
  *first = at >= 0 ? 0 : (-at + step - 1) / step;
  *end = at >= size ? 0 : (size - 1 - at) / step + 1;
  if (*end > n) *end = n;
  if (*first > *end) *first = *end;
}

/* What windows' lines from `from` on reach of channels, with zeros around, to {channels, rows, cols}. */
static void surround(const gq_conv *v, const char *x, int64_t channels, int64_t from, int64_t rows,
                     int64_t cols, char *to) {
  int64_t top = from * v->step[0] - v->pad[0], size = size_of(v), first, end;
  inside(cols, 1, -v->pad[1], v->size[1], &first, &end);
  memset(to, 0, (size_t)(channels * rows * cols * size));
  int64_t above = most(0, -top), below = least(rows, v->size[0] - top), line = (end - first) * size;
  bool whole = cols == v->size[1] && line == cols * size; /* lines follow each other */
  for (int64_t c = 0; c < channels && above < below; c++, to += rows * cols * size) {
    const char *from = x + ((c * v->size[0] + top + above) * v->size[1] + first - v->pad[1]) * size;
    if (whole) memcpy(to + above * cols * size, from, (size_t)((below - above) * line));
    else
      for (int64_t i = above; i < below; i++, from += v->size[1] * size)
        memcpy(to + (i * cols + first) * size, from, (size_t)line);
  }
}

static void turn_double(const double *from, int64_t lfrom, int64_t n, int64_t m, double *to, int64_t lto,
                        bool add) {
  for (int64_t j = 0; j < m; j++)
    for (int64_t i = 0; i < n; i++)
      to[j * lto + i] = add ? to[j * lto + i] + from[i * lfrom + j] : from[i * lfrom + j];
}

/* to[j][i] (+)= from[i][j] for i < n, j < m */
static void turn(const gq_convolution *p, const void *from, int64_t lfrom, int64_t n, int64_t m, void *to,
                 int64_t lto, bool add) {
  if (p->conv.dtype == GQ_F32) p->kernels->turn(from, lfrom, n, m, to, lto, add);
  else turn_double(from, lfrom, n, m, to, lto, add);
}

/* A matrix whose entry (k, j) for k = (i, p), i < c, p < places, is at w[i * sc + p * sp + j * sj], as panels of three
** vectors and one of the rest: to[panel][k][..], zeros behind the last of m; those of i from `first` to `end`. `flip`:
** p counts from behind. Where a column is one piece its next lines are asked for ahead:
** so many streams are more than a processor follows. */
#define PACK(T)                                                                                              \
  static void pack_##T(const T *w, int64_t sc, int64_t sp, int64_t sj, int64_t c, int64_t places, int64_t m, \
                       int64_t whole, int64_t unit, bool flip, T *to, int64_t first, int64_t end) {          \
    if (flip) w += (places - 1) * sp, sp = -sp;                                                              \
    bool flat = sp == 1 && sc == places;                                                                     \
    for (int64_t j0 = 0, n; j0 < m; j0 += n) {                                                               \
      n = least(whole, up(m - j0, unit));                                                                    \
      int64_t known = least(n, m - j0);                                                                      \
      T *row = to + first * places * n;                                                                      \
      for (int64_t i = first; i < end; i++)                                                                  \
        for (int64_t p = 0; p < places; p++, row += n) {                                                     \
          const T *from = w + i * sc + p * sp + j0 * sj;                                                     \
          if (flat && ((uintptr_t)from & 63) < sizeof(T))                                                    \
            for (int64_t j = 0; j < known; j++) __builtin_prefetch(from + j * sj + 128 / sizeof(T));         \
          for (int64_t j = 0; j < known; j++) row[j] = from[j * sj];                                         \
          for (int64_t j = known; j < n; j++) row[j] = 0;                                                    \
        }                                                                                                    \
      to += c * places * n;                                                                                  \
    }                                                                                                        \
  }
PACK(float)
PACK(double)

static void pack(const gq_convolution *p, const void *w, int64_t sc, int64_t sp, int64_t sj, int64_t c,
                 int64_t places, bool flip, void *to, int64_t first, int64_t end) {
  int64_t whole = most_at_once(p), m = p->conv.m;
  if (p->conv.dtype == GQ_F32) pack_float(w, sc, sp, sj, c, places, m, whole, unit(p), flip, to, first, end);
  else pack_double(w, sc, sp, sj, c, places, m, whole, unit(p), flip, to, first, end);
}

/* A packed weight's places, {PLACES} panels {c, width} from {c, 9, width}: channels `first` to `end`. */
static void spread_weight(const gq_convolution *p, const float *from, float *to, int64_t first, int64_t end) {
  const gq_conv *v = &p->conv;
  int64_t apart = plane(v->c * packed_width(p));
  for (int64_t j0 = 0, n; j0 < v->m; j0 += n) {
    n = panel(p, j0);
    for (int64_t i = first; i < end; i++)
      p->kernels->winograd[GQ_WINO_WEIGHT](to + i * n, (SIDE + 2) * apart, apart, from + i * 9 * n, 3 * n, n,
                                           n);
    from += v->c * 9 * n, to += v->c * n;
  }
}

/* The weights of all groups, {m, K} or turned {K, m}; of the data's product {c, (m, places)}, each place turned round.
** Of channels `first` to `end`: threads share them. */
static void pack_weights(const gq_convolution *p, const char *w, char *to, int64_t first, int64_t end) {
  const gq_conv *v = &p->conv;
  int64_t n = places(v), K = v->c * n, size = size_of(v), numbers = v->m * K;
  bool swapped = v->kind == GQ_CONV_DATA, turned = v->turned;
  /* as stored: {m, c, places} of the product's m and c, or of the data's {c, m, places};
  ** turned: places before the first */
  int64_t sj = swapped ? n : K, sc = swapped ? v->m * n : n, sp = 1;
  if (turned) sj = swapped ? n * v->c : 1, sc = swapped ? 1 : n * v->m, sp = swapped ? v->c : v->m;
  int64_t apart = p->tiled ? PLACES * plane(v->c * packed_width(p)) : K * packed_width(p);
  char *packed = to + v->period * apart * size;
  for (int64_t g = 0; g < v->period; g++, w += numbers * size, to += apart * size) {
    pack(p, w, sc, sp, sj, v->c, n, swapped, p->tiled ? packed : to, first, end);
    if (p->tiled) spread_weight(p, (const float *)(const void *)packed, (float *)(void *)to, first, end);
  }
}

/* ---- pieces ---- */

typedef struct job {
  const gq_convolution *p;
  const char *a, *b; /* the weight or G; the images or G */
  char *out, *scratch, *packed;
  size_t apart; /* bytes of a worker's scratch */
  bool add;
  int64_t channels, groups; /* of images whose weight is the same */
  int workers;
} job;

static int64_t pieces(const job *j) {
  const gq_conv *v = &j->p->conv;
  if (j->p->direct && v->kind != GQ_CONV_WEIGHT)
    return v->period * j->groups * ((v->count[0] + j->p->lines - 1) / j->p->lines);
  int64_t parts = (v->c + j->channels - 1) / j->channels;
  return v->kind == GQ_CONV_DATA ? v->blocks * parts : v->period * parts;
}

/* Places of a window in an image of `cols` columns and `whole` numbers a channel; of windows. */
static void put_places(const gq_conv *v, int64_t channels, int64_t whole, int64_t cols, int32_t *at) {
  for (int64_t c = 0; c < channels; c++)
    for (int64_t i = 0; i < v->k[0]; i++)
      for (int64_t k = 0; k < v->k[1]; k++)
        *at++ = (int32_t)(c * whole + i * v->apart[0] * cols + k * v->apart[1]);
}

static void put_windows(const gq_conv *v, int64_t lines, int64_t cols, int32_t *at) {
  for (int64_t i = 0; i < lines; i++)
    for (int64_t k = 0; k < v->count[1]; k++) *at++ = (int32_t)(i * v->step[0] * cols + k * v->step[1]);
}

/* c {rows, nv vectors} (+)= over `terms`: row i from where at[i] says. */
static void tiles(const gq_convolution *p, char *c, const char *image, const int32_t *at, int64_t rows,
                  const int32_t *off, int64_t terms, const char *w, int64_t nv, bool add) {
  const gq_kernels *k = p->kernels;
  int64_t size = size_of(&p->conv), n = nv * k->tile_width[p->conv.dtype], tile = k->tile_rows;
  const void *x[16];
  for (int64_t d = 0; d < terms; d += DEPTH, add = true)
    for (int64_t i = 0; i < rows; i += tile) {
      for (int64_t r = 0; r < tile; r++) x[r] = image + at[least(i + r, rows - 1)] * size;
      k->tile[p->conv.dtype]((int)least(tile, rows - i), c + i * n * size, x, off + d,
                             (size_t)least(DEPTH, terms - d), w + d * n * size, (size_t)nv, add);
    }
}

/* n lines of `count` numbers, every `cols` of them, one behind the other, to (+)= */
#define PICK(T)                                                                                  \
  static void pick_##T(const T *from, int64_t n, int64_t cols, int64_t count, T *to, bool add) { \
    for (int64_t i = 0; i < n; i++, from += cols, to += count)                                   \
      for (int64_t j = 0; j < count; j++) to[j] = add ? to[j] + from[j] : from[j];               \
  }
PICK(float)
PICK(double)

static void pick(gq_dtype d, const void *from, int64_t n, int64_t cols, int64_t count, void *to, bool add) {
  if (d == GQ_F32) pick_float(from, n, cols, count, to, add);
  else pick_double(from, n, cols, count, to, add);
}

static void forward(const job *j, int64_t t, char *scratch) {
  const gq_convolution *p = j->p;
  const gq_conv *v = &p->conv;
  int64_t parts = (v->count[0] + p->lines - 1) / p->lines, block = t / parts, from = t % parts * p->lines;
  int64_t lines = least(p->lines, v->count[0] - from), K = v->c * places(v), n = lines * v->count[1],
          size = size_of(v);
  int64_t rows = reach(v, 0, lines), cols = reach(v, 1, v->count[1]),
          vector = p->kernels->tile_width[v->dtype];
  int32_t *off = (int32_t *)(void *)scratch, *at = off + up(most(K, n), 16);
  char *image = scratch + p->image, *sums = scratch + p->sums;
  const char *w = j->packed + block % v->period * K * packed_width(p) * size;
  surround(v, j->b + block * v->c * v->size[0] * v->size[1] * size, v->c, from, rows, cols, image);
  put_places(v, v->c, rows * cols, cols, off);
  if (p->thin) {
    n = all_places(p, lines);
    memset(image + v->c * rows * cols * size, 0, (size_t)(n * size));
  } else {
    put_windows(v, lines, cols, at);
  }
  for (int64_t j0 = 0, width; j0 < v->m; j0 += width, w += K * width * size) {
    width = panel(p, j0);
    char *out = j->out + ((block * v->m + j0) * windows(v) + from * v->count[1]) * size;
    if (p->thin) {
      p->kernels->lines[v->dtype](sums, (size_t)n, image, off, (size_t)K, w, p->thin);
      for (int64_t i = 0; i < width && j0 + i < v->m; i++)
        pick(v->dtype, sums + i * n * size, lines, cols, v->count[1], out + i * windows(v) * size, j->add);
    } else {
      tiles(p, sums, image, at, n, off, K, w, width / vector, false);
      turn(p, sums, width, n, least(width, v->m - j0), out, windows(v), j->add);
    }
  }
}

static void weight(const job *j, int64_t t, char *scratch) {
  const gq_convolution *p = j->p;
  const gq_conv *v = &p->conv;
  int64_t parts = (v->c + j->channels - 1) / j->channels, of = t / parts, first = t % parts * j->channels;
  int64_t channels = least(j->channels, v->c - first), K = v->c * places(v), terms = channels * places(v);
  int64_t size = size_of(v), cols = reach(v, 1, v->count[1]), vector = p->kernels->tile_width[v->dtype];
  int64_t rows = reach(v, 0, p->lines), tall = up(terms, p->kernels->tile_rows), all = p->lines * v->count[1];
  int32_t *off = (int32_t *)(void *)scratch, *at = off + up(most(K, all), 16);
  char *image = scratch + p->image, *sums = scratch + p->sums, *turned = scratch + p->turned;
  put_places(v, channels, rows * cols, cols, at);
  put_windows(v, p->lines, cols, off);
  for (int64_t block = of; block < v->blocks; block += v->period)
    for (int64_t from = 0; from < v->count[0]; from += p->lines) {
      int64_t n = least(p->lines, v->count[0] - from) * v->count[1];
      bool add = block > of || from > 0;
      surround(v, j->b + (block * v->c + first) * v->size[0] * v->size[1] * size, channels, from, rows, cols,
               image);
      pack(p, j->a + (block * v->m * windows(v) + from * v->count[1]) * size, 1, 1, windows(v), n, 1, false,
           turned, 0, n);
      for (int64_t j0 = 0, width; j0 < v->m; j0 += width) {
        width = panel(p, j0);
        tiles(p, sums + j0 * tall * size, image, at, terms, off, n, turned + j0 * n * size, width / vector,
              add);
      }
    }
  for (int64_t j0 = 0, width; j0 < v->m; j0 += width) {
    width = panel(p, j0);
    turn(p, sums + j0 * tall * size, width, terms, least(width, v->m - j0),
         j->out + ((of * v->m + j0) * K + first * places(v)) * size, K, j->add);
  }
}

/* ---- tiles of results at once ---- */

/* A thread's scratch, as plan_tiled lays it out. */
typedef struct room {
  int32_t *off, *at, *places;
  float *image, *spread, *y, *sums;
} room;

static room room_of(const gq_convolution *p, char *scratch) {
  int32_t *off = (int32_t *)(void *)scratch;
  int64_t n = up(most(deep(p), p->images * tiles_of(&p->conv, p->lines)), 16);
  return (room){ off,
                 off + n,
                 off + 2 * n,
                 (float *)(void *)(scratch + p->image),
                 (float *)(void *)(scratch + p->spread),
                 (float *)(void *)(scratch + p->turned),
                 (float *)(void *)(scratch + p->sums) };
}

/* Where in turned images, behind one row of zeros, the numbers of tiles are that are `side` a side and from
** top, left on. */
static void put_tiles(const gq_conv *v, int64_t lines, int64_t side, int64_t top, int64_t left, int64_t rows,
                      int64_t cols, int64_t wide, int32_t *at) {
  for (int64_t t = 0; t < tiles_of(v, lines); t++)
    for (int64_t k = 0; k < side * side; k++) {
      int64_t i = t / across(v) * SIDE + k / side + top, j = t % across(v) * SIDE + k % side + left;
      *at++ = i < 0 || i >= rows || j < 0 || j >= cols ? 0 : (int32_t)((1 + i * cols + j) * wide);
    }
}

/* Places {n, wide} of channels that are `apart`, behind a row of zeros. */
static void turn_places(const gq_convolution *p, const float *x, int64_t apart, int64_t channels, int64_t n,
                        int64_t wide, float *to) {
  memset(to, 0, (size_t)((channels < wide ? 1 + n : 1) * wide) * sizeof *to);
  p->kernels->turn(x, apart, channels, n, to + wide, wide, false);
}

/* What an image's tiles become, of n in all: {PLACES, n, C} */
static void spread_image(const gq_convolution *p, const float *x, int64_t channels, int64_t from,
                         int64_t lines, int64_t n, const room *r, float *to) {
  const gq_conv *v = &p->conv;
  int64_t C = deep(p), apart = plane(n * C), top = from - v->pad[0], first = least(most(0, top), v->size[0]);
  int64_t rows = most(0, least(v->size[0], top + SIDE * over(lines) + 2) - first), cols = v->size[1];
  put_tiles(v, lines, SIDE + 2, top - first, -v->pad[1], rows, cols, C, r->places);
  turn_places(p, x + first * cols, v->size[0] * cols, channels, rows * cols, C, r->image);
  for (int64_t t = 0; t < tiles_of(v, lines); t++, to += C)
    p->kernels->winograd_at[GQ_WINO_IMAGE](to, (SIDE + 2) * apart, apart, r->image, r->places + t * PLACES,
                                           C);
}

/* Sums {PLACES}{.., width}, `apart` from place to place, as results {lines, count, width}. A line's last tile goes
** first: where it is wider than what is left of the line, the others and the next lines come after. */
static void gather_results(const gq_convolution *p, int64_t lines, int64_t width, const float *sums,
                           int64_t apart, float *y) {
  const gq_conv *v = &p->conv;
  int64_t row = v->count[1] * width;
  for (int64_t i = 0; i < lines; i += SIDE, sums += across(v) * width)
    for (int64_t j = across(v) - 1; j >= 0; j--)
      p->kernels->winograd[GQ_WINO_RESULT](y + i * row + SIDE * j * width, row, width, sums + j * width,
                                           (SIDE + 2) * apart, apart, width);
}

/* Cotangents of an image's results as those of its tiles, from `first` on of n: {PLACES}, panels {n, width} */
static void spread_results(const gq_convolution *p, const float *g, int64_t lines, int64_t n, int64_t first,
                           const room *r, float *to) {
  const gq_conv *v = &p->conv;
  int64_t W = packed_width(p), apart = plane(n * W);
  put_tiles(v, lines, SIDE, 0, 0, lines, v->count[1], W, r->places);
  turn_places(p, g, windows(v), v->m, lines * v->count[1], W, r->y);
  for (int64_t j0 = 0, width; j0 < v->m; j0 += width) {
    width = panel(p, j0);
    float *tile = to + j0 * n + first * width;
    for (int64_t t = 0; t < tiles_of(v, lines); t++, tile += width)
      p->kernels->winograd_at[GQ_WINO_RESULT_BACK](tile, (SIDE + 2) * apart, apart, r->y + j0,
                                                   r->places + t * SIDE * SIDE, width);
  }
}

static void put_steps(int32_t *to, int64_t n, int64_t step) {
  for (int64_t i = 0; i < n; i++) to[i] = (int32_t)(i * step);
}

/* Images i, i + period, .. of a group. */
static int64_t group_from(const job *j, int64_t group) {
  const gq_conv *v = &j->p->conv;
  return v->blocks / v->period * group / j->groups;
}

static void forward_tiled(const job *j, int64_t t, char *scratch) {
  const gq_convolution *p = j->p;
  const gq_conv *v = &p->conv;
  int64_t parts = (v->count[0] + p->lines - 1) / p->lines, of = t / parts % v->period,
          from = t % parts * p->lines;
  int64_t group = t / parts / v->period, first = group_from(j, group),
          images = group_from(j, group + 1) - first;
  int64_t lines = least(p->lines, v->count[0] - from), each = tiles_of(v, lines), n = images * each,
          C = deep(p), W = packed_width(p), tall = up(n, p->kernels->tile_rows),
          vector = p->kernels->tile_width[GQ_F32];
  room r = room_of(p, scratch);
  const float *w = (const float *)(const void *)j->packed + of * PLACES * plane(v->c * W);
  put_steps(r.off, v->c, 1), put_steps(r.at, n, C);
  for (int64_t i = 0; i < images; i++) {
    int64_t block = of + (first + i) * v->period;
    spread_image(p, (const float *)(const void *)j->b + block * v->c * v->size[0] * v->size[1], v->c, from,
                 lines, n, &r, r.spread + i * each * C);
  }
  for (int64_t j0 = 0, width; j0 < v->m; j0 += width) {
    width = panel(p, j0);
    int64_t apart = plane(tall * width);
    for (int i = 0; i < PLACES; i++)
      tiles(p, (char *)(r.sums + i * apart), (const char *)(r.spread + i * plane(n * C)), r.at, n, r.off,
            v->c, (const char *)(w + i * plane(v->c * W) + j0 * v->c), width / vector, false);
    for (int64_t i = 0; i < images; i++) {
      int64_t block = of + (first + i) * v->period;
      gather_results(p, lines, width, r.sums + i * each * width, apart, r.y);
      p->kernels->turn(r.y, width, lines * v->count[1], least(width, v->m - j0),
                       (float *)(void *)j->out + (block * v->m + j0) * windows(v) + from * v->count[1],
                       windows(v), j->add);
    }
  }
}

static void weight_tiled(const job *j, int64_t t, char *scratch) {
  const gq_convolution *p = j->p;
  const gq_conv *v = &p->conv;
  int64_t parts = (v->c + j->channels - 1) / j->channels, of = t / parts, first = t % parts * j->channels;
  int64_t channels = least(j->channels, v->c - first), C = deep(p), W = packed_width(p);
  int64_t tall = up(channels, p->kernels->tile_rows), vector = p->kernels->tile_width[GQ_F32];
  room r = room_of(p, scratch);
  float *results = r.y + (p->lines * SIDE * across(v) + SIDE) * W;
  put_steps(r.at, channels, 1), put_steps(r.off, p->images * tiles_of(v, p->lines), C);
  for (int64_t group = 0; group < j->groups; group++)
    for (int64_t from = 0; from < v->count[0]; from += p->lines) {
      int64_t lines = least(p->lines, v->count[0] - from), each = tiles_of(v, lines),
              at = group_from(j, group);
      int64_t images = group_from(j, group + 1) - at, n = images * each;
      for (int64_t k = 0; k < images; k++) {
        int64_t block = of + (at + k) * v->period;
        const float *g = (const float *)(const void *)j->a + block * v->m * windows(v) + from * v->count[1];
        spread_image(p, (const float *)(const void *)j->b + (block * v->c + first) * v->size[0] * v->size[1],
                     channels, from, lines, n, &r, r.spread + k * each * C);
        spread_results(p, g, lines, n, each * k, &r, results);
      }
      for (int i = 0; i < PLACES; i++)
        for (int64_t j0 = 0, width; j0 < v->m; j0 += width) {
          width = panel(p, j0);
          tiles(p, (char *)(r.sums + i * plane(tall * W) + j0 * tall),
                (const char *)(r.spread + i * plane(n * C)), r.at, channels, r.off, n,
                (const char *)(results + i * plane(n * W) + j0 * n), width / vector, group > 0 || from > 0);
        }
    }
  for (int64_t j0 = 0, n; j0 < v->m; j0 += n) {
    n = panel(p, j0);
    for (int64_t i = 0; i < channels; i++)
      p->kernels->winograd[GQ_WINO_WEIGHT_BACK](r.spread + i * 9 * n, 3 * n, n, r.sums + j0 * tall + i * n,
                                                (SIDE + 2) * plane(tall * W), plane(tall * W), n);
    p->kernels->turn(r.spread, n, 9 * channels, least(n, v->m - j0),
                     (float *)(void *)j->out + (of * v->m + j0) * v->c * 9 + first * 9, v->c * 9, j->add);
  }
}

/* ---- windows that step further ---- */

/* Windows {channels, k1, k2, count1, count2} added into the channels at x. */
#define SCATTER(T)                                                                                       \
  static void scatter_##T(const gq_conv *v, T *x, int64_t channels, const T *from) {                     \
    for (int64_t t = 0; t < channels * places(v); t++, from += windows(v)) {                             \
      int64_t a = t / v->k[1] % v->k[0], b = t % v->k[1], first, end, above, below;                      \
      int64_t at = b * v->apart[1] - v->pad[1], top = a * v->apart[0] - v->pad[0];                       \
      T *image = x + t / places(v) * v->size[0] * v->size[1];                                            \
      inside(v->count[1], v->step[1], at, v->size[1], &first, &end);                                     \
      inside(v->count[0], v->step[0], top, v->size[0], &above, &below);                                  \
      for (int64_t i = above; i < below; i++)                                                            \
        for (int64_t j = first; j < end; j++)                                                            \
          image[(i * v->step[0] + top) * v->size[1] + j * v->step[1] + at] += from[i * v->count[1] + j]; \
    }                                                                                                    \
  }
SCATTER(float)
SCATTER(double)

static void data(const job *j, int64_t t, char *scratch) {
  const gq_conv *v = &j->p->conv;
  int64_t parts = (v->c + j->channels - 1) / j->channels, block = t / parts, first = t % parts * j->channels;
  int64_t channels = least(j->channels, v->c - first), K = v->c * places(v), P = windows(v),
          size = size_of(v);
  int64_t whole = v->size[0] * v->size[1] * size, skip = first * places(v) * (v->turned ? v->m : 1) * size;
  gq_gemm g = { .dtype = v->dtype,
                .ta = !v->turned,
                .m = channels * places(v),
                .n = P,
                .k = v->m,
                .lda = v->turned ? v->m : K,
                .ldb = P,
                .ldc = P };
  gq_gemm_one(&g, j->a + block % v->period * v->m * K * size + skip, j->b + block * v->m * P * size, scratch,
              false);
  char *x = j->out + (block * v->c + first) * whole;
  if (!j->add) memset(x, 0, (size_t)(channels * whole));
  if (v->dtype == GQ_F32) scatter_float(v, (float *)(void *)x, channels, (const float *)(void *)scratch);
  else scatter_double(v, (double *)(void *)x, channels, (const double *)(void *)scratch);
}

/* ---- running ---- */

static void run_pieces(void *ctx, int worker) {
  const job *j = ctx;
  char *scratch = j->scratch + (size_t)worker * j->apart;
  int64_t n = pieces(j);
  for (int64_t t = n * worker / j->workers; t < n * (worker + 1) / j->workers; t++)
    if (!j->p->direct) data(j, t, scratch);
    else if (j->p->conv.kind == GQ_CONV_WEIGHT) (j->p->tiled ? weight_tiled : weight)(j, t, scratch);
    else (j->p->tiled ? forward_tiled : forward)(j, t, scratch);
}

static void run_packing(void *ctx, int worker) {
  const job *j = ctx;
  int64_t c = j->p->conv.c;
  pack_weights(j->p, j->a, j->packed, c * worker / j->workers, c * (worker + 1) / j->workers);
}

static void share(job *j, void (*run)(void *, int)) {
  if (j->workers > 1) gq_parallel(j->workers, run, j);
  else run(j, 0);
}

bool gq_conv_shares(const gq_convolution *p, const gq_convolution *q) {
  const gq_conv *v = &p->conv, *w = &q->conv;
  return p->shared && v->kind == w->kind && v->dtype == w->dtype && v->turned == w->turned &&
         v->period == w->period && v->m == w->m && v->c == w->c && v->k[0] == w->k[0] && v->k[1] == w->k[1] &&
         p->tiled == q->tiled && p->thin == q->thin && p->kernels == q->kernels;
}

int gq_conv_run(const gq_convolution *p, const void *a, const void *b, void *out, bool add, void *scratch,
                size_t apart, void *packed, bool ready, int workers) {
  const gq_conv *v = &p->conv;
  int64_t images = v->blocks / v->period, groups = (images + p->images - 1) / p->images;
  job j = { p, a, b, out, scratch, packed, apart, add, p->channels, groups, workers };
  if (!p->direct) GQ_TRY(gq_gemm_ready());
  if (v->kind != GQ_CONV_WEIGHT) j.groups = least(images, up(groups, workers));
  else j.channels = least(j.channels, (v->c + workers - 1) / workers);
  if (p->shared && !ready) share(&j, run_packing);
  if (pieces(&j) < j.workers) j.workers = (int)pieces(&j);
  share(&j, run_pieces);
  return GQ_OK;
}
