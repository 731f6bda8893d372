/*
** kernels.h -- the kernels that are no program's own. Sections begin at a line "//// NAME"; texts.c puts what a module
** wants of them behind the prelude and vmath.h, with T (float, double, ..) and N(name) = name_f32, .. defined. Every
** argument begins with addresses; GQ_DIM is the most dims of a layout.
*/
#define GQ_DIM 8

//// layout
typedef struct gq_dims { gq_count ndim, dim[GQ_DIM]; } gq_dims;
typedef struct gq_strides { gq_count s[GQ_DIM]; } gq_strides;

/* Where number i of the shape is, in numbers. */
GQ_DEVICE gq_count gq_place(const gq_dims *d, const gq_strides *s, gq_count i) {
  gq_count at = 0;
  GQ_DIMS(k, d->ndim) {
    at += i % d->dim[k] * s->s[k];
    i /= d->dim[k];
  }
  return d->ndim ? at + i * s->s[0] : 0;
}

//// move_args
/* p: out, in; n numbers of the shape; T to, F from */
typedef struct gq_move_args { gq_address p[2]; gq_count n; gq_dims d; gq_strides to, from; } gq_move_args;

//// move
GQ_KERNEL(move, gq_move_args) {
  T *out = (T *)GQ_AT(a.p[0]);
  const F *in = (const F *)GQ_AT(a.p[1]);
  GQ_ALL(i, a.n) {
    F x = in[gq_place(&a.d, &a.from, i)];
    out[gq_place(&a.d, &a.to, i)] = CONVERT(x);
  }
}

//// tile
/* Where a block's part of an operand is: a fixed step from that of the block before, or (GQ_TABLE) an address of its own
** in a table. turn: what a solve's step number n has is elsewhere, told by entry n turn of a table. */
typedef struct gq_operand { gq_u64 base; long long step, turn; } gq_operand;
#define GQ_TABLE INT64_MIN
GQ_REGION GQ_UNUSED char *gq_operand_at(const gq_operand *o, int block, long long n) {
  const gq_u64 *table = (const gq_u64 *)GQ_FAR(o->base) + n * o->turn;
  if (o->step == GQ_TABLE) return GQ_FAR(table[block]);
  return GQ_FAR((o->turn ? *table : o->base) + (gq_u64)(o->step * block));
}

GQ_REGION GQ_UNUSED void gq_bring(char *to, const char *from, int n) {
  GQ_EACH(i, n) ((unsigned *)to)[i] = ((const unsigned *)from)[i];
}

//// row
/* What a row of a table says an address begins with. ROW_NONE, ROW_NEAR: tile.c */
GQ_DEVICE char *gq_row_at(int at, char *const *table) { return at == -2 ? 0 : at == -1 ? gq_dynamic : table[at]; }

//// rows
/* Where a block's part of an operand is, found at each use. */
#define gq_at(k) GQ_FAR(of[k].base + (gq_u64)(of[k].step * GQ_TILE))

//// cell
/* p: out (contiguous), operands */
typedef struct gq_cell_args { gq_address p[4]; gq_count n; gq_dims d; gq_strides s[3]; } gq_cell_args;

//// product_args
/* p: c, a, b, column; c[m][n] (+)= sum_k a[i ar + k ac] b[k br + j bc] (+ column[i cs]), for each of the batch */
typedef struct gq_product_args {
  gq_address p[4];
  gq_count m, n, k, ar, ac, br, bc, cs, add, batches;
  gq_dims d;
  gq_strides sa, sb;
} gq_product_args;

//// product
/* A thread owns four rows of one column: one number of b serves four products. */
GQ_KERNEL(N(product), gq_product_args) {
  gq_count rows = (a.m + 3) / 4;
  GQ_ALL(u, rows * a.n * a.batches) {
    gq_count j = u % a.n, v = u / a.n, q = a.batches > 1 ? v / rows : 0, i = rows > 1 ? (v - q * rows) * 4 : 0;
    int some = a.m % 4 && a.m - i < 4 ? (int)(a.m - i) : 4; /* where sizes are constants, less code */
    const T *x = (const T *)GQ_AT(a.p[1]) + gq_place(&a.d, &a.sa, q) + i * a.ar;
    const T *y = (const T *)GQ_AT(a.p[2]) + gq_place(&a.d, &a.sb, q) + j * a.bc;
    T *c = (T *)GQ_AT(a.p[0]) + (q * a.m + i) * a.n + j;
    T s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    const gq_count r1 = some > 1 ? a.ar : 0, r2 = some > 2 ? 2 * a.ar : 0, r3 = some > 3 ? 3 * a.ar : 0;
    GQ_BY(unroll 2)
    for (gq_count k = 0; k < a.k; k++) {
      T b = y[k * a.br];
      s0 = GQ_FMA(x[0], b, s0);
      s1 = GQ_FMA(x[r1], b, s1);
      s2 = GQ_FMA(x[r2], b, s2);
      s3 = GQ_FMA(x[r3], b, s3);
      x += a.ac;
    }
    GQ_BY(unroll 1)
    for (int r = 0; r < some; r++) {
      T s = r == 0 ? s0 : r == 1 ? s1 : r == 2 ? s2 : s3;
      if (a.p[3]) s += ((const T *)GQ_AT(a.p[3]))[(i + r) * a.cs];
      c[r * a.n] = a.add ? c[r * a.n] + s : s;
    }
  }
}

//// reduce_args
/* p: out, in; kept and reduced dims */
typedef struct gq_reduce_args {
  gq_address p[2];
  gq_count kept, over, add;
  gq_dims dk, dr;
  gq_strides sk, sr;
} gq_reduce_args;

//// reduce
/* BEGIN(acc, v): the first; STEP(acc, best, v, j): one more, at j; JOIN: what another thread has; R: the result */
GQ_KERNEL(many, gq_reduce_args) { /* a thread a result */
  GQ_ALL(o, a.kept) {
    const T *x = (const T *)GQ_AT(a.p[1]) + gq_place(&a.dk, &a.sk, o);
    A acc = START(x);
    gq_count best GQ_UNUSED = 0;
    GQ_OVER(j, a.over, 4) {
      T v = x[gq_place(&a.dr, &a.sr, j)];
      STEP(acc, best, v, j)
    }
    RESULT((R *)GQ_AT(a.p[0]), o, acc, best, a.add)
  }
}
GQ_KERNEL(few, gq_reduce_args) { /* a block a result */
  GQ_SHARED(A, part, GQ_NT)
  GQ_SHARED(gq_count, where, GQ_NT)
  for (gq_count o = GQ_BLOCK; o < a.kept; o += GQ_BLOCKS) {
    const T *x = (const T *)GQ_AT(a.p[1]) + gq_place(&a.dk, &a.sk, o);
    GQ_EACH(t, GQ_NT) {
      gq_count best GQ_UNUSED = t < a.over ? t : 0;
      A acc = START((x + gq_place(&a.dr, &a.sr, best)));
      GQ_BY(unroll 1)
      for (gq_count j = t; j < a.over; j += GQ_NT) {
        T v = x[gq_place(&a.dr, &a.sr, j)];
        STEP(acc, best, v, j)
      }
      part[t] = acc;
      where[t] = best;
    }
    GQ_BY(unroll 1)
    for (int w = GQ_NT / 2; w; w /= 2) {
      GQ_SYNC
      GQ_EACH(t, w) {
        A acc = part[t], v = part[t + w];
        gq_count best GQ_UNUSED = where[t], j GQ_UNUSED = where[t + w];
        JOIN(acc, best, v, j)
        part[t] = acc;
        where[t] = best;
      }
    }
    GQ_EACH(t, 1) { RESULT((R *)GQ_AT(a.p[0]), o, part[0], where[0], a.add) }
    if (o + GQ_BLOCKS < a.kept) { GQ_SYNC }
  }
}

//// index_args
/* p: out, x, idx, bad; the long side is outer x n x inner. bad: the first position whose index is outside. */
typedef struct gq_index_args {
  gq_address p[4];
  gq_count outer, n, count, inner, axis, lines;
  gq_dims d;
  gq_strides big, line;
} gq_index_args;
#define GQ_OUTSIDE(idx, i) \
  (idx[i] < 1 || idx[i] > a.n ? (atomicMin((gq_u64 *)GQ_AT(a.p[3]), (gq_u64)(i)), 1) : 0)

//// index
GQ_KERNEL(N(index_select), gq_index_args) {
  T *out = (T *)GQ_AT(a.p[0]);
  const T *x = (const T *)GQ_AT(a.p[1]);
  const long long *idx = (const long long *)GQ_AT(a.p[2]);
  GQ_ALL(u, a.outer * a.count * a.inner) {
    gq_count l = u % a.inner, i = u / a.inner % a.count, o = u / (a.inner * a.count);
    if (GQ_OUTSIDE(idx, i)) continue;
    out[u] = x[(o * a.n + idx[i] - 1) * a.inner + l];
  }
}
/* Into zeros. A thread owns all that may meet in one place, and adds it in order. */
GQ_KERNEL(N(index_add), gq_index_args) {
  T *out = (T *)GQ_AT(a.p[0]);
  const T *x = (const T *)GQ_AT(a.p[1]);
  const long long *idx = (const long long *)GQ_AT(a.p[2]);
  GQ_ALL(u, a.outer * a.inner) {
    gq_count l = u % a.inner, o = u / a.inner;
    for (gq_count i = 0; i < a.count; i++) {
      if (GQ_OUTSIDE(idx, i)) continue;
      T *at = &out[(o * a.n + idx[i] - 1) * a.inner + l];
      *at = PLUS(*at, x[(o * a.count + i) * a.inner + l]);
    }
  }
}
/* d: the shape of idx; big: strides of the long side, its own along the axis 0 here; line: of idx, likewise */
GQ_KERNEL(N(gather), gq_index_args) {
  T *out = (T *)GQ_AT(a.p[0]);
  const T *x = (const T *)GQ_AT(a.p[1]);
  const long long *idx = (const long long *)GQ_AT(a.p[2]);
  GQ_ALL(i, a.count) {
    if (GQ_OUTSIDE(idx, i)) continue;
    out[i] = x[gq_place(&a.d, &a.big, i) + (idx[i] - 1) * a.inner];
  }
}
/* d: idx's shape with 1 along the axis, which has a.outer entries a.axis numbers apart */
GQ_KERNEL(N(scatter_add), gq_index_args) {
  T *out = (T *)GQ_AT(a.p[0]);
  const T *x = (const T *)GQ_AT(a.p[1]);
  const long long *idx = (const long long *)GQ_AT(a.p[2]);
  GQ_ALL(u, a.lines) {
    gq_count from = gq_place(&a.d, &a.line, u), to = gq_place(&a.d, &a.big, u);
    for (gq_count k = 0; k < a.outer; k++) {
      gq_count i = from + k * a.axis;
      if (GQ_OUTSIDE(idx, i)) continue;
      T *at = &out[to + (idx[i] - 1) * a.inner];
      *at = PLUS(*at, x[i]);
    }
  }
}

//// window_args
/* p: out, windows {outer, k.., count.., inner}; w: n windowed dims of out {outer, size.., inner} */
typedef struct gq_window_args {
  gq_address p[2];
  gq_count numbers, n, outer, inner, k[GQ_DIM], count[GQ_DIM], size[GQ_DIM], step[GQ_DIM], apart[GQ_DIM];
} gq_window_args;
/* Where number `place` of a window lies in windows that reach the position at[]; -1: in none. */
GQ_DEVICE gq_count gq_window_of(const gq_window_args *a, const gq_count *at, gq_count place) {
  gq_count k = 0, c = 0, runk = 1, runc = 1;
  for (int i = (int)a->n - 1; i >= 0; i--) {
    gq_count q = place % a->k[i], from = at[i] - q * a->apart[i];
    place /= a->k[i];
    if (from < 0 || from % a->step[i] || from / a->step[i] >= a->count[i]) return -1;
    k += q * runk;
    c += from / a->step[i] * runc;
    runk *= a->k[i];
    runc *= a->count[i];
  }
  return k * runc + c;
}

//// window
GQ_KERNEL(N(window_add), gq_window_args) {
  T *out = (T *)GQ_AT(a.p[0]);
  const T *x = (const T *)GQ_AT(a.p[1]);
  gq_count places = 1, windows = 1;
  for (int i = 0; i < a.n; i++) {
    places *= a.k[i];
    windows *= a.count[i];
  }
  GQ_ALL(u, a.numbers) {
    gq_count at[GQ_DIM], l = u % a.inner, rest = u / a.inner;
    T sum = 0;
    for (int i = (int)a.n - 1; i >= 0; i--) {
      at[i] = rest % a.size[i];
      rest /= a.size[i];
    }
    for (gq_count k = 0; k < places; k++) {
      gq_count w = gq_window_of(&a, at, k);
      if (w >= 0) sum = PLUS(sum, x[(rest * places * windows + w) * a.inner + l]);
    }
    out[u] = sum;
  }
}

//// queue
/* Entries of queue.c, each with its terms behind it. */
typedef struct gq_queue_place { gq_u64 p; long long step; } gq_queue_place;
typedef struct gq_queue_entry { long long n, parts, terms, size, begin; double start, scale; gq_queue_place to, from; } gq_queue_entry;
typedef struct gq_queue_term { double s; gq_queue_place x; } gq_queue_term;
typedef struct gq_queue_args { long long entries; double room[500]; } gq_queue_args;
#define GQ_PART(x) GQ_AT((x).p + (gq_u64)(part * (x).step))
#define GQ_QUEUED(T) {                                                                                 \
    T v = e->begin == 0 ? ((const T *)GQ_PART(e->from))[i] : (T)e->start;                              \
    for (int j = 0; j < e->terms; j++) {                                                               \
      T x = ((const T *)GQ_PART(term[j].x))[i] * (T)term[j].s;                                         \
      v = j == 0 && e->begin == 2 ? x : v + x;                                                         \
    }                                                                                                  \
    ((T *)GQ_PART(e->to))[i] = e->scale == 1 ? v : v * (T)e->scale;                                                                      \
  }
GQ_DEVICE const gq_queue_entry *gq_queue_next(const gq_queue_entry *e) {
  return (const gq_queue_entry *)((const gq_queue_term *)(e + 1) + e->terms);
}
GQ_KERNEL(queue, gq_queue_args) {
  const gq_queue_entry *const first = (const gq_queue_entry *)a.room;
  const gq_queue_entry *e = first;
  long long all = 0;
  for (int k = 0; k < a.entries; k++, e = gq_queue_next(e)) all += e->n * e->parts;
  GQ_ALL(u, all) {
    long long i = u, part = 0;
    for (e = first; i >= e->n * e->parts; e = gq_queue_next(e)) i -= e->n * e->parts;
    const gq_queue_term *term = (const gq_queue_term *)(e + 1);
    if (e->parts > 1) part = i / e->n, i -= part * e->n;
    if (e->size == sizeof(float)) GQ_QUEUED(float)
    else GQ_QUEUED(double)
  }
}

//// vec
/* calls of vec.h: addresses, counts and strides, the host's numbers */
typedef struct gq_vec_args { gq_u64 p[4]; long long n, from, to, rows; double s[4]; } gq_vec_args;

GQ_KERNEL(N(add), gq_vec_args) {
  T *y = (T *)GQ_AT(a.p[0]);
  const T *x = (const T *)GQ_AT(a.p[1]), s = (T)a.s[0];
  GQ_ALL(i, a.n) y[i * a.to] = y[i * a.to] + s * x[i * a.from];
}
GQ_KERNEL(N(scale), gq_vec_args) {
  T *y = (T *)GQ_AT(a.p[0]);
  const T *x = (const T *)GQ_AT(a.p[1]), s = (T)a.s[0];
  GQ_ALL(i, a.n) y[i * a.to] = s * x[i * a.from];
}
GQ_KERNEL(N(fill), gq_vec_args) {
  T *y = (T *)GQ_AT(a.p[0]);
  GQ_ALL(i, a.n) y[i * a.to] = (T)a.s[0];
}
GQ_KERNEL(N(get), gq_vec_args) {
  double *y = (double *)GQ_AT(a.p[0]);
  const T *x = (const T *)GQ_AT(a.p[1]);
  GQ_ALL(i, a.n) y[i] = (double)x[i * a.from];
}
GQ_KERNEL(N(put), gq_vec_args) {
  T *y = (T *)GQ_AT(a.p[0]);
  const double *x = (const double *)GQ_AT(a.p[1]);
  GQ_ALL(i, a.n) y[i * a.to] = (T)x[i];
}
/* p: dst, src, taken[n]; rows of n */
GQ_KERNEL(N(blend), gq_vec_args) {
  T *y = (T *)GQ_AT(a.p[0]);
  const T *x = (const T *)GQ_AT(a.p[1]);
  const unsigned char *taken = (const unsigned char *)GQ_AT(a.p[2]);
  GQ_ALL(i, a.rows * a.n) if (taken[i % a.n]) y[i] = x[i];
}

/* What becomes one number: a block's part is {sum, sum, largest, first}; `finish` joins parts in the order of blocks. */
typedef struct gq_tally { double sum, more, top, first; } gq_tally;
#define GQ_NOWHERE 1e300
GQ_DEVICE void gq_tally_join(gq_tally *x, const gq_tally *y) {
  x->sum += y->sum;
  x->more += y->more;
  if (!(y->top <= x->top) && x->top == x->top) x->top = y->top;
  if (y->first < x->first) x->first = y->first;
}
/* p[0]: parts; `each` sees i, and adds to v */
#define GQ_TALLY(name, each)                                                                    \
  GQ_KERNEL(N(name), gq_vec_args) {                                                             \
    GQ_SHARED(gq_tally, part, GQ_NT)                                                            \
    const T *x GQ_UNUSED = (const T *)GQ_AT(a.p[1]), *y GQ_UNUSED = (const T *)GQ_AT(a.p[2]);   \
    const T *z GQ_UNUSED = (const T *)GQ_AT(a.p[3]);                                            \
    GQ_EACH(t, GQ_NT) {                                                                         \
      gq_tally v = { 0, 0, 0, GQ_NOWHERE };                                                     \
      for (long long i = (long long)GQ_BLOCK * GQ_NT + t; i < a.n; i += (long long)GQ_BLOCKS * GQ_NT) { each } \
      part[t] = v;                                                                              \
    }                                                                                           \
    for (int w = GQ_NT / 2; w; w /= 2) {                                                        \
      GQ_SYNC                                                                                   \
      GQ_EACH(t, w) gq_tally_join(&part[t], &part[t + w]);                                      \
    }                                                                                           \
    GQ_SYNC                                                                                     \
    GQ_EACH(t, 1) ((gq_tally *)GQ_AT(a.p[0]))[GQ_BLOCK] = part[0];                              \
  }
GQ_TALLY(dot, v.sum += (double)x[i] * (double)y[i];)
GQ_TALLY(largest, double u = fabs((double)x[i]); if (u > v.top) v.top = u;)
GQ_TALLY(weighted, double u = (double)x[i] - (a.p[3] ? (double)z[i] : 0.0);
         u = fabs(u / (a.s[0] + a.s[1] * fabs((double)y[i]))); v.sum += u * u;
         if (!(u <= v.top) && v.top == v.top) v.top = u;)
GQ_TALLY(apart, double p = (double)x[i]; double q = (double)y[i]; v.sum += (p - q) * (p - q); v.more += q * q;)
/* p[2]: a.rows addresses of x, then as many of y or 0 */
GQ_TALLY(joined, const gq_u64 *table = (const gq_u64 *)GQ_AT(a.p[2]); double u = 0;
         for (int r = 0; r < a.rows; r++) {
           u += (double)((const T *)GQ_AT(table[r]))[i];
           if (table[a.rows + r]) u -= (double)((const T *)GQ_AT(table[a.rows + r]))[i];
         }
         v.sum += u * u;)
GQ_TALLY(nonzero, if (x[i] != 0 && (double)i < v.first) v.first = (double)i;)
GQ_TALLY(nonfinite, if (!(x[i] - x[i] == 0) && (double)i < v.first) v.first = (double)i;)
/* p: parts and, behind them, the whole; n parts */
GQ_KERNEL(N(finish), gq_vec_args) {
  GQ_EACH(t, 1) {
    gq_tally *part = (gq_tally *)GQ_AT(a.p[0]), v = part[0];
    for (int i = 1; i < a.n; i++) gq_tally_join(&v, &part[i]);
    part[a.n] = v;
  }
}

/* Root mean squares of rows. p: out, x; a block a row */
GQ_KERNEL(N(rms), gq_vec_args) {
  GQ_SHARED(double, part, GQ_NT)
  for (long long r = GQ_BLOCK; r < a.rows; r += GQ_BLOCKS) {
    const T *x = (const T *)GQ_AT(a.p[1]) + r * a.from;
    double top = 0;
    for (int pass = 0; pass < 2; pass++) {
      GQ_EACH(t, GQ_NT) {
        double s = 0;
        for (long long i = t; i < a.n; i += GQ_NT) {
          double v = fabs((double)x[i]);
          if (pass) v /= top, s += v * v;
          else if (v > s) s = v;
        }
        part[t] = s;
      }
      for (int w = GQ_NT / 2; w; w /= 2) {
        GQ_SYNC
        GQ_EACH(t, w) {
          if (pass) part[t] += part[t + w];
          else if (part[t + w] > part[t]) part[t] = part[t + w];
        }
      }
      GQ_SYNC
      if (!pass) top = part[0];
      GQ_EACH(t, 1) if (pass) ((double *)GQ_AT(a.p[0]))[r] = top > 0 ? top * sqrt(part[0] / (double)a.n) : 0;
      GQ_SYNC
    }
  }
}

/* Mean and deviation of rows. p: x, saved, mean, deviation; a block a row */
GQ_KERNEL(N(fit), gq_vec_args) {
  GQ_SHARED(double, part, GQ_NT)
  double *saved = (double *)GQ_AT(a.p[1]);
  for (long long r = GQ_BLOCK; r < a.rows; r += GQ_BLOCKS) {
    const T *x = (const T *)GQ_AT(a.p[0]) + r * a.n;
    for (int pass = 0; pass < 2; pass++) {
      GQ_EACH(t, GQ_NT) {
        double s = 0, mean = pass ? saved[r] : 0;
        for (long long i = t; i < a.n; i += GQ_NT) {
          double v = (double)x[i] - mean;
          s += pass ? v * v : v;
        }
        part[t] = s;
      }
      for (int w = GQ_NT / 2; w; w /= 2) {
        GQ_SYNC
        GQ_EACH(t, w) part[t] += part[t + w];
      }
      GQ_SYNC
      GQ_EACH(t, 1) {
        if (pass == 0) {
          saved[r] = part[0] / (double)a.n;
          ((T *)GQ_AT(a.p[2]))[r] = (T)saved[r];
        } else {
          double deviation = sqrt(part[0] / (double)(a.n - 1));
          ((T *)GQ_AT(a.p[3]))[r] = (T)deviation;
          saved[a.rows + r] = deviation == 0 ? 0 : 1 / ((double)(a.n - 1) * deviation);
        }
      }
      GQ_SYNC
    }
  }
}
/* p: x, saved, cotangents of mean and deviation or 0; to: the address of the result */
GQ_KERNEL(N(fit_pull), gq_vec_args) {
  const T *x = (const T *)GQ_AT(a.p[0]), *mean = (const T *)GQ_AT(a.p[2]), *deviation = (const T *)GQ_AT(a.p[3]);
  const double *saved = (const double *)GQ_AT(a.p[1]);
  T *out = (T *)GQ_AT((gq_u64)a.to);
  GQ_ALL(i, a.rows * a.n) {
    long long r = i / a.n;
    double base = a.p[2] ? (double)mean[r] / (double)a.n : 0;
    double slope = a.p[3] ? (double)deviation[r] * saved[a.rows + r] : 0;
    out[i] = (T)(base + slope * ((double)x[i] - saved[r]));
  }
}

//// gauss
/* The transpose of a Gauss method's elements (vec.h), a block a row; each number is made as the CPU's collocate makes it,
** which takes two columns at once. element: h and how many g come. bad: the first element whose a is not finite.
** room: for a block's matrix where shared memory is too small */
typedef struct gq_gauss_rows {
  long long rows, node, number, row, first, state_number, state_row;
  gq_u64 jacobian, v;
} gq_gauss_rows;
typedef struct gq_gauss_element { double h; long long jumps; } gq_gauss_element;
typedef struct gq_gauss_args {
  gq_u64 bad, inner, end, element, weight, part, g, a, room;
  long long rows, apart;
  int n, dim, count, parts;
} gq_gauss_args;
#define GQ_PIVOT 0.01

/* The pivot of column p of m[n][n + 1], whose inverse is kept; rows change places from column `from` on. */
GQ_DEVICE void gq_gauss_pivot(double *m, double *inverse, int *best, int n, int from, int p) {
  const int w = n + 1;
  GQ_EACH(once, 1) {
    double sum = 0;
    int at = p;
    GQ_BY(unroll 4)
    for (int i = p; i < n; i++) sum = fma(m[i * w + p], m[i * w + p], sum);
    if (m[p * w + p] * m[p * w + p] < GQ_PIVOT * sum) {
      GQ_BY(unroll 4)
      for (int i = p + 1; i < n; i++)
        if (fabs(m[i * w + p]) > fabs(m[at * w + p])) at = i;
    }
    best[0] = at;
  }
  GQ_SYNC
  const int at = best[0];
  if (at != p) {
    GQ_EACH(k, w - from) {
      const double x = m[p * w + from + k];
      m[p * w + from + k] = m[at * w + from + k], m[at * w + from + k] = x;
    }
    GQ_SYNC
  }
  GQ_EACH(i, n - p) {
    const double one = 1 / m[p * w + p];
    if (i) m[(p + i) * w + p] = -one * m[(p + i) * w + p];
    else inverse[p] = one;
  }
  GQ_SYNC
}

/* m[n][n + 1] with the right-hand side last, then the solution there. */
GQ_DEVICE void gq_gauss_solve(double *m, double *inverse, int *best, int n) {
  const int w = n + 1;
  GQ_BY(unroll 1)
  for (int p = 0; p < n; p += 2) {
    double *const first = m + p * w, *const second = first + w;
    gq_gauss_pivot(m, inverse, best, n, p, p);
    if (p + 1 == n) break;
    GQ_EACH(i, n - p - 1) {
      double *to = second + i * w + p;
      to[1] = fma(to[0], first[p + 1], to[1]);
    }
    GQ_SYNC
    gq_gauss_pivot(m, inverse, best, n, p, p + 1);
    GQ_EACH(k, n - p - 1) second[p + 2 + k] = fma(second[p], first[p + 2 + k], second[p + 2 + k]);
    GQ_SYNC
    GQ_EACH(i, (n - p - 2) * (n - p - 1)) {
      const int k = p + 2 + i % (n - p - 1);
      double *to = second + (1 + i / (n - p - 1)) * w;
      to[k] = fma(to[p + 1], second[k], fma(to[p], first[k], to[k]));
    }
    GQ_SYNC
  }
  GQ_EACH(once, 1) {
    GQ_BY(unroll 1)
    for (int p = n - 1; p >= 0; p--) {
      double sum = m[p * w + n];
      GQ_BY(unroll 4)
      for (int k = p + 1; k < n; k++) sum = fma(-m[p * w + k], m[k * w + n], sum);
      m[p * w + n] = sum * inverse[p];
    }
  }
  GQ_SYNC
}

GQ_KERNEL(N(gauss), gq_gauss_args) {
  GQ_SHARED(int, best, 1)
  const int n = a.n, dim = a.dim, all = n * dim, w = all + 1;
  const double *inner = (const double *)GQ_AT(a.inner), *end = (const double *)GQ_AT(a.end);
  const gq_gauss_element *element = (const gq_gauss_element *)GQ_AT(a.element);
  const gq_gauss_rows *part = (const gq_gauss_rows *)GQ_AT(a.part);
  double *const m = a.room ? (double *)GQ_AT(a.room) + (long long)GQ_BLOCK * (all * (w + dim + 1) + dim)
                           : (double *)(void *)gq_dynamic;
  double *const j = m + all * w, *const inverse = j + all * dim, *const y = inverse + all;
  GQ_BY(unroll 1)
  for (long long place = GQ_BLOCK; place < a.rows; place += GQ_BLOCKS) {
    const gq_gauss_rows *of = part;
    long long row = place;
    GQ_BY(unroll 1)
    for (; row >= of->rows; of++) row -= of->rows;
    const long long whole = of->rows * a.count * all;
    const T *jacobian = (const T *)GQ_AT(of->jacobian) + row * of->row;
    T *v = (T *)GQ_AT(of->v) + row * of->row, *state = (T *)GQ_AT(a.a) + of->first + row * of->state_row;
    const double *weight = (const double *)GQ_AT(a.weight);
    gq_u64 g = a.g;
    GQ_EACH(k, dim) y[k] = (double)state[k * of->state_number];
    GQ_SYNC
    GQ_BY(unroll 1)
    for (int e = 0; e < a.count; e++) {
      const double h = element[e].h;
      const int jumps = (int)element[e].jumps;
      GQ_EACH(i, all * dim) {
        const int q = i / (dim * dim), r = i / dim % dim, k = i % dim;
        j[i] = (double)jacobian[r * whole + q * of->node + k * of->number];
      }
      GQ_EACH(r, all) {
        const int q = r / dim, k = r % dim;
        double x = h * end[q] * y[k];
        GQ_BY(unroll 1)
        for (int i = 0; i < jumps; i++) {
          const T *here = (const T *)GQ_AT(g - (gq_u64)(i * a.apart)) + of->first + row * of->state_row;
          x = x + h * weight[i * n + q] * (double)here[k * of->state_number];
        }
        m[r * w + all] = x;
      }
      GQ_SYNC
      GQ_EACH(i, all * all) {
        const int r = i / all, c = i % all;
        const double x = -(h * inner[c / dim * n + r / dim]) * j[c * dim + r % dim];
        m[r * w + c] = r == c ? 1 + x : x;
      }
      GQ_EACH(k, dim) {
        GQ_BY(unroll 1)
        for (int i = 0; i < jumps; i++) {
          const T *here = (const T *)GQ_AT(g - (gq_u64)(i * a.apart)) + of->first + row * of->state_row;
          y[k] = y[k] + (double)here[k * of->state_number];
        }
      }
      GQ_SYNC
      gq_gauss_solve(m, inverse, best, all);
      GQ_EACH(r, all) v[r / dim * of->node + r % dim * of->number] = (T)m[r * w + all];
      GQ_EACH(k, dim) {
        double x = y[k];
        GQ_BY(unroll 4)
        for (int r = 0; r < all; r++) x = fma(m[r * w + all], j[r * dim + k], x);
        y[k] = (double)(T)x;
        if (!(x - x == 0)) atomicMin((gq_u64 *)GQ_AT(a.bad), (gq_u64)e);
      }
      GQ_SYNC
      jacobian += n * of->node, v += n * of->node;
      weight += jumps * n, g -= (gq_u64)(jumps * a.apart);
    }
    GQ_EACH(k, dim) state[k * of->state_number] = (T)y[k];
  }
}

//// path
/* W(t) - W(s), two components a thread; p: the result */
typedef struct gq_path_args { gq_u64 p; long long n; double s, t; gq_bridge b; } gq_path_args;
GQ_KERNEL(N(path), gq_path_args) {
  T *out = (T *)GQ_AT(a.p);
  GQ_ALL(i, (a.n + 1) / 2) {
    double from[2], to[2];
    gq_bridge_value(&a.b, i, a.s, from);
    gq_bridge_value(&a.b, i, a.t, to);
    for (int k = 0; k < 2 && 2 * i + k < a.n; k++) out[2 * i + k] = (T)(to[k] - from[k]);
  }
}

//// update
#define TARGET GQ_HERE
#define FN(name) name##_of
typedef struct gq_opt_coef {
  double lr, weight_decay, eps;
  double beta1, beta2, step_size, root2, decay;
  double keep, gain, mix, ahead;
  double alpha;
} gq_opt_coef;

//// rules
/* p: parameters, gradient, states */
typedef struct gq_update_args { gq_u64 p[5]; long long n; gq_opt_coef k; } gq_update_args;
#define GQ_RULE(name)                                                                       \
  GQ_KERNEL(N(name), gq_update_args) {                                                      \
    GQ_ALL(i, a.n) {                                                                        \
      void *s[3];                                                                           \
      for (int k = 0; k < 3; k++) s[k] = a.p[2 + k] ? (void *)((T *)GQ_AT(a.p[2 + k]) + i) : (void *)0; \
      FN(name)(1, (T *)GQ_AT(a.p[0]) + i, (const T *)GQ_AT(a.p[1]) + i, s, &a.k);           \
    }                                                                                       \
  }
GQ_RULE(adam)
GQ_RULE(sgd)
GQ_RULE(momentum)
GQ_RULE(rmsprop)
GQ_RULE(rmsprop_full)
