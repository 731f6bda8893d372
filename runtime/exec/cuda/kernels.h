/*
** kernels.h -- the kernels that are no program's own. Sections begin at a line "//// NAME"; module.c puts what a module
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

//// power
/* Much code, which is not at each call. */
GQ_REGION double gq_pow(double x, double y) { return pow(x, y); }
#define pow gq_pow

//// decide
/* The last block of an attempt to come here decides, by the sums of all in their order: the same bits whoever is last. */
GQ_DEVICE void gq_loop_decide(gq_loop *p, const volatile double *sums) {
  GQ_SHARED(int, last, 1)
  GQ_SHARED(double, part, GQ_NT)
  GQ_SHARED(double, sum, 2 * GQ_LOOP_PARTS)
  GQ_EACH(i, 1) {
    GQ_FENCE
    last[0] = atomicAdd(&p->arrived, 1u) + 1 == p->blocks;
  }
  GQ_SYNC
  if (!last[0]) return;
  GQ_FENCE
  GQ_BY(unroll 1)
  for (int e = 0; e < p->parts * (p->third ? 2 : 1); e++)
    GQ_BY(unroll 1)
    for (int first = 0; first < (int)p->blocks; first += GQ_NT) {
      const int some = (int)p->blocks - first < GQ_NT ? (int)p->blocks - first : GQ_NT;
      if (e + first) { GQ_SYNC }
      GQ_EACH(i, some) part[i] = sums[e * (int)p->blocks + first + i];
      GQ_SYNC
      GQ_EACH(i, 1) {
        double s = first ? sum[e] : 0;
        GQ_BY(unroll 1)
        for (int k = 0; k < some; k++) s = gq_control_gather(s, part[k], p->most);
        sum[e] = s;
      }
    }
  GQ_EACH(i, 1) {
    p->arrived = 0;
    gq_loop_judge(p, sum, (const gq_trail_step *)GQ_FAR(p->trail.step));
  }
}

//// along
/* What an attempt reads of a trail, into arrays of its own: rows of a block, `bytes` of them that begin `at` bytes behind
** where states do. The table of operands comes behind, with its barrier. */
typedef struct gq_seen { gq_u64 y, slope; double weight[GQ_TRAIL_TIMES], force[GQ_TRAIL_FORCES]; } gq_seen;
GQ_DEVICE void gq_go_along(const gq_loop *p, gq_u64 at, int bytes) {
  GQ_SHARED(gq_seen, seen, GQ_TRAIL_TIMES)
  const gq_trail *r = &p->trail;
  const gq_u64 out = r->to[p->accepted] + at;
  const int count = bytes / (int)sizeof(GQ_STATE);
  GQ_EACH(k, r->times) {
    const double t = p->t + ((const double *)GQ_FAR(r->time))[k] * p->h;
    gq_seen *s = &seen[k];
    if (r->sees) {
      const double inside = fmin(fmax(t, r->low), r->high);
      const gq_trail_step *step = (const gq_trail_step *)GQ_FAR(r->step);
      step += gq_trail_find(step, r->near, inside);
      const double theta = gq_control_over(inside - step->t, step->h);
      s->y = step->y + at, s->slope = step->slope + at;
      GQ_BY(unroll 1)
      for (int j = 0; j < r->slopes; j++)
        s->weight[j] = gq_trail_weight((const double *)GQ_FAR(r->weight) + j * r->degree, r->degree, theta) * step->h;
    }
    if (r->forced) gq_trail_legendre(GQ_TRAIL_FORCES, gq_control_over(t - r->middle, r->half), s->force);
  }
  GQ_SYNC
  GQ_EACH(u, count * r->times) {
    const int k = u / count, i = u % count;
    const gq_seen *s = &seen[k];
    char *to = GQ_FAR(out + (gq_u64)(k * r->given) * r->part);
    if (r->sees) {
      GQ_STATE v = ((const GQ_STATE *)GQ_FAR(s->y))[i];
      GQ_BY(unroll 1)
      for (int j = 0; j < r->slopes; j++)
        if (s->weight[j] != 0) {
          GQ_STATE x = ((const GQ_STATE *)GQ_FAR(s->slope + (gq_u64)j * r->apart))[i] * (GQ_STATE)s->weight[j];
          v = v + x;
        }
      ((GQ_STATE *)(void *)to)[i] = v;
      to += r->part;
    }
    if (r->given > r->sees) {
      GQ_STATE v = 0;
      GQ_BY(unroll 1)
      for (int j = 0; j < GQ_TRAIL_FORCES && r->forced; j++)
        if (s->force[j] != 0) {
          GQ_STATE x = ((const GQ_STATE *)GQ_FAR(r->force[j] + at))[i] * (GQ_STATE)s->force[j];
          v = v + x;
        }
      ((GQ_STATE *)(void *)to)[i] = v;
    }
  }
}

//// after
/* to += from s, as sums of vectors are made */
#define GQ_CARRY(name, T)                                                            \
  GQ_DEVICE void gq_carry_##name(T *to, const T *from, int i, double s) {            \
    T x = from[i] * (T)s;                                                            \
    to[i] = to[i] + x;                                                               \
  }
GQ_CARRY(f32, float)
GQ_CARRY(f64, double)

//// lanes
/* Samples with steps of their own: what lanes do between the phases of their programs, one thread a lane. w: the block's
** memory, f->at: where arrays begin in it. */
#define GQ_NUMBERS(d) GQ_BY(unroll 1) for (int64_t d = 0; d < f->numbers; d++)
GQ_DEVICE gq_lane *gq_lane_of(const gq_lanesolve *f, char *w, int j) { return (gq_lane *)(w + f->at.lane) + j; }
GQ_DEVICE double *gq_number(char *w, uint64_t at, int j) { return (double *)(w + at) + j; }
GQ_DEVICE GQ_STATE *gq_row(const gq_lanesolve *f, char *w, uint64_t at, int j) {
  return (GQ_STATE *)(w + at) + j * f->along;
}
GQ_DEVICE double gq_time(const gq_lanesolve *f, int64_t k) { return ((const double *)GQ_FAR(f->t))[k]; }
GQ_DEVICE GQ_STATE *gq_sample_at(const gq_lanesolve *f, int64_t k, int64_t sample) {
  return (GQ_STATE *)(GQ_FAR(f->z) + k * f->apart + sample * f->bytes);
}

/* Record i: a state, where a slope is carried that, and a gq_lanerecord. */
GQ_REGION GQ_UNUSED char *gq_record(const gq_lanesolve *f, int64_t i) {
  int64_t first = 0, end = f->least;
  int k = 0;
  GQ_BY(unroll 1)
  for (; i >= end; k++) first = end, end *= 2;
  return GQ_FAR(f->chunk[k]) + (i - first) * f->record;
}

/* The first sample that failed is kept. */
GQ_REGION void gq_block_failed(gq_laneblock *c, const gq_lane *l) {
  if (c->failed.sample >= 0 && c->failed.sample < l->sample) return;
  GQ_BY(unroll 1)
  for (int i = 0; i < (int)(sizeof *l / sizeof(uint64_t)); i++) ((uint64_t *)&c->failed)[i] = ((const uint64_t *)l)[i];
}

/* What slope i has of y(theta) of a step of size 1. */
GQ_REGION double gq_slope_weight(const gq_lanesolve *f, int i, double theta) {
  const double *c = (const double *)GQ_FAR(f->weight) + i * f->degree;
  double p = 0;
  GQ_BY(unroll 1)
  for (int q = f->degree - 1; q >= 0; q--) p = (p + c[q]) * theta;
  return p;
}

/* The first number that is not finite, from 1; 0: none. */
GQ_REGION int64_t gq_row_bad(const gq_lanesolve *f, const GQ_STATE *x, int64_t across) {
  GQ_NUMBERS(d)
    if (!(x[d * across] - x[d * across] == 0)) return d + 1;
  return 0;
}

GQ_REGION void gq_block_begin(const gq_lanesolve *f, char *w) {
  gq_laneblock *c = (gq_laneblock *)w;
  if (f->begun) return;
  GQ_EACH(j, f->lanes) {
    gq_lane_of(f, w, j)->stage = GQ_LANE_IDLE;
    gq_lane_of(f, w, j)->sample = gq_lane_of(f, w, j)->record = -1;
    GQ_BY(unroll 1)
    for (int i = 0; i < f->parts; i++) *gq_number(w, f->at.atol[i], j) = f->rule.atol[i];
  }
  GQ_EACH(i, 1) {
    c->next = GQ_TILE, c->failed.sample = -1;
    *gq_number(w, f->at.rtol, 0) = f->rule.rtol, *gq_number(w, f->at.zero, 0) = 0;
  }
  GQ_SYNC
}

GQ_DEVICE const gq_laneresult *gq_laneresult_of(const gq_lanesolve *f, int64_t sample) {
  return (const gq_laneresult *)GQ_FAR(f->took) + sample;
}

/* Number `inner` of row `outer` of boundary c in place j of n, and how far the next one is, also from row to row. */
GQ_DEVICE int64_t gq_cut_step(const gq_lanesolve *f, int n) { return f->front ? 1 : n; }
GQ_DEVICE int64_t gq_cut_place(const gq_lanesolve *f, const gq_lanecut *c, int n, int j, int64_t outer, int64_t inner) {
  return f->front ? (j * c->outer + outer) * c->inner + inner : (outer * c->inner + inner) * n + j;
}

#define GQ_CUT(N) \
  case sizeof(N): ((N *)to)[at] = ((const N *)from)[i]; break;
/* What a sample has of so many boundary values, to place j of n. */
GQ_REGION void gq_place_cut(const gq_lanesolve *f, char *w, uint64_t cut, int cuts, int n, int j, int64_t sample) {
  const gq_lanecut *c = (const gq_lanecut *)GQ_FAR(cut);
  GQ_BY(unroll 1)
  for (int k = 0; k < cuts; k++, c++) {
    const char *from = GQ_FAR(c->from);
    char *to = w + c->to;
    GQ_BY(unroll 1)
    for (int64_t o = 0; o < c->outer; o++) {
      int64_t i = (o * f->samples + sample) * c->inner, at = gq_cut_place(f, c, n, j, o, 0);
      GQ_BY(unroll 1)
      for (int64_t end = i + c->inner; i < end; i++, at += gq_cut_step(f, n)) switch (c->size) {
          GQ_CUT(uint8_t)
          GQ_CUT(uint32_t)
          GQ_CUT(uint64_t)
        }
    }
  }
}
GQ_DEVICE void gq_lane_cut(const gq_lanesolve *f, char *w, int j, int64_t sample) {
  gq_place_cut(f, w, f->cut, f->cuts, f->lanes, j, sample);
}

/* All of place j, the 4 bytes of a number at once. */
GQ_REGION GQ_UNUSED void gq_place_clear(const gq_lanesolve *f, char *w, uint64_t cut, int cuts, int n, int j) {
  const gq_lanecut *c = (const gq_lanecut *)GQ_FAR(cut);
  GQ_BY(unroll 1)
  for (int k = 0; k < cuts; k++, c++) {
    unsigned *to = (unsigned *)(w + c->to);
    const int words = (int)(c->size / sizeof *to);
    int64_t at = gq_cut_place(f, c, n, j, 0, 0);
    GQ_BY(unroll 1)
    for (int64_t u = c->outer * c->inner; u > 0; u--, at += gq_cut_step(f, n)) {
      to[at * words] = 0;
      to[at * words + words - 1] = 0;
    }
  }
}

//// lane_end
/* What ends a sample on its way there, and what a step has to give. */

/* The sample's end; times that it did not reach stay without a number. */
GQ_REGION void gq_lane_end(const gq_lanesolve *f, gq_lane *l, gq_laneend end, int64_t bad) {
  gq_laneresult *s = (gq_laneresult *)GQ_FAR(f->took) + l->sample;
  s->nfe = l->nfe, s->steps = l->steps, s->rejected = l->rejected;
  s->t = l->t, s->coarse = l->coarse, s->end = (int)end, s->reached = end ? l->k : f->nt;
  s->last = l->record;
  l->end = end, l->bad = bad, l->stage = GQ_LANE_OVER;
  GQ_BY(unroll 1)
  for (int k = l->k; end && k < f->nt; k++)
    GQ_NUMBERS(d) gq_sample_at(f, k, l->sample)[d] = (GQ_STATE)NAN;
}

/* Does the step pass time k? */
GQ_DEVICE int gq_lane_passes(const gq_lanesolve *f, const gq_lane *l, int k) {
  return k < f->nt && (l->h1 < 0 ? l->t1 <= gq_time(f, k) : l->t1 >= gq_time(f, k));
}

GQ_DEVICE int gq_lane_wants(const gq_lanesolve *f, gq_lane *l) {
  return gq_lane_passes(f, l, l->k) && gq_time(f, l->k) != l->t1;
}

//// adjoint_nodes
/* The same of the adjoint's: its nodes, in the interval or in the step. */
GQ_REGION double gq_node_at(const gq_laneadjoint *b, const gq_lane *l, int i, double *weight) {
  const gq_pointset *s = (const gq_pointset *)GQ_FAR(b->rule) + l->rule;
  const double *x = (const double *)GQ_FAR(s->x);
  double from = b->each ? l->t : gq_time(&b->f, l->k), to = b->each ? l->t1 : gq_time(&b->f, l->k - 1);
  return gq_panel_point(s->m, s->panels, x, x + s->m, from, to, i, weight);
}

GQ_DEVICE int gq_node_count(const gq_laneadjoint *b, const gq_lane *l) {
  const gq_pointset *s = (const gq_pointset *)GQ_FAR(b->rule) + l->rule;
  return s->m * s->panels;
}

GQ_DEVICE void gq_lane_end(const gq_lanesolve *f, gq_lane *l, gq_laneend end, int64_t bad) {
  l->end = end, l->bad = bad, l->stage = GQ_LANE_OVER;
}

GQ_REGION int gq_lane_wants(const gq_lanesolve *f, gq_lane *l) {
  const gq_laneadjoint *b = (const gq_laneadjoint *)f;
  int last = l->t1 == l->c.stop;
  double dir = l->h1 < 0 ? -1 : 1, weight;
  l->want = 0;
  if (!b->collects) return 0;
  int count = gq_node_count(b, l);
  if (b->each) l->node = 0, l->wanted += count;
  GQ_BY(unroll 1)
  while (l->node + l->want < count &&
         (last || b->each || dir * (gq_node_at(b, l, l->node + l->want, &weight) - l->t1) <= 0))
    l->want++;
  return l->want > 0;
}

//// steps
/* Attempts, and the slopes that they begin with; the formulas are those of ode/lanes.c. */
GQ_REGION int64_t gq_attempt_bad(const gq_lanesolve *f, char *w, int j) {
  int64_t bad = 0;
  GQ_BY(unroll 1)
  for (int i = 0; i < f->parts && !bad; i++) {
    bad = gq_row_bad(f, gq_row(f, w, f->at.y1[i], j), f->across);
    if (!bad && f->carry) bad = gq_row_bad(f, gq_row(f, w, f->at.f1[i], j), f->across);
  }
  return bad;
}

/* Of x - minus (where there is one) in units of the tolerance, which y tells. */
GQ_REGION double gq_row_norm(const gq_lanesolve *f, char *w, int part, int j, uint64_t x_at, uint64_t y_at,
                             int64_t minus_at) {
  const GQ_STATE *x = gq_row(f, w, x_at, j), *y = gq_row(f, w, y_at, j);
  const GQ_STATE *minus = minus_at < 0 ? 0 : gq_row(f, w, (uint64_t)minus_at, j);
  double sum = 0, top = 0, atol = *gq_number(w, f->at.atol[part], j);
  GQ_NUMBERS(d) {
    double v = (double)x[d * f->across] - (minus ? (double)minus[d * f->across] : 0);
    double off = fabs(gq_control_over(v, atol + f->rule.rtol * fabs((double)y[d * f->across])));
    sum += off * off;
    if (!(off <= top)) top = off;
  }
  return f->rule.max_norm ? top : sqrt(gq_control_over(sum, (double)f->numbers));
}

/* What lane j does next; one that is over or idle takes a sample, while there are some. */
GQ_DEVICE gq_stage gq_lane_turn(gq_lanesolve *f, char *w, int j) {
  gq_laneblock *c = (gq_laneblock *)w;
  gq_lane *l = gq_lane_of(f, w, j);
  if (l->stage == GQ_LANE_OVER) {
    if (l->end) atomicAdd(&f->failures, 1u);
    if (l->end) gq_block_failed(c, l);
    l->stage = GQ_LANE_IDLE, l->sample = -1;
  }
  if (l->stage == GQ_LANE_IDLE && c->next < f->samples) {
    l->sample = c->next, l->stage = GQ_LANE_NEW;
    c->next += f->blocks;
  }
  return l->stage;
}

/* ---- slopes ---- */

GQ_DEVICE int gq_lane_waits(const gq_lane *l) { return l->stage == GQ_LANE_SLOPE || l->stage == GQ_LANE_PROBE; }

/* dst = y + h x; without h a copy of y */
GQ_REGION void gq_row_shift(const gq_lanesolve *f, GQ_STATE *dst, const GQ_STATE *y, double h, const GQ_STATE *x) {
  const GQ_STATE s = (GQ_STATE)h;
  GQ_NUMBERS(d)
    dst[d * f->across] = h != 0 ? y[d * f->across] + s * x[d * f->across] : y[d * f->across];
}

GQ_REGION void gq_block_ask(const gq_lanesolve *f, char *w) {
  GQ_EACH(j, f->lanes) {
    const gq_lane *l = gq_lane_of(f, w, j);
    if (!gq_lane_waits(l)) continue;
    double h = gq_lane_probe(l);
    GQ_BY(unroll 1)
    for (int i = 0; i < f->parts; i++)
      gq_row_shift(f, gq_row(f, w, f->at.ey[i], j), gq_row(f, w, f->at.y[i], j), h, gq_row(f, w, f->at.f0[i], j));
    ((GQ_STATE *)(w + f->at.te))[j] = (GQ_STATE)(l->t + gq_lane_span(&f->rule, l->t, h));
  }
}

GQ_REGION void gq_lane_answer(const gq_lanesolve *f, char *w, int j) {
  gq_lane *l = gq_lane_of(f, w, j);
  double d0 = 0, d1 = 0;
  l->nfe++;
  if (l->stage == GQ_LANE_PROBE) {
    GQ_BY(unroll 1)
    for (int i = 0; i < f->parts; i++)
      d1 = gq_larger(d1, gq_row_norm(f, w, i, j, f->at.ef[i], f->at.y[i], (int64_t)f->at.f0[i]));
    gq_lane_probed(l, &f->rule, gq_control_over(d1, l->h0));
    return;
  }
  GQ_BY(unroll 1)
  for (int i = 0; i < f->parts; i++) {
    gq_row_shift(f, gq_row(f, w, f->at.f0[i], j), gq_row(f, w, f->at.ef[i], j), 0, 0);
    if (!l->search) continue;
    d0 = gq_larger(d0, gq_row_norm(f, w, i, j, f->at.y[i], f->at.y[i], -1));
    d1 = gq_larger(d1, gq_row_norm(f, w, i, j, f->at.f0[i], f->at.y[i], -1));
  }
  GQ_BY(unroll 1)
  for (int i = 0; i < f->parts && !(isfinite(d0) && isfinite(d1)); i++)
    if (gq_row_bad(f, gq_row(f, w, f->at.f0[i], j), f->across)) {
      gq_lane_end(f, l, GQ_END_SLOPE, 0);
      return;
    }
  gq_lane_sloped(l, &f->rule, d0, d1);
}

GQ_REGION void gq_block_answer(const gq_lanesolve *f, char *w) {
  GQ_EACH(j, f->lanes) if (gq_lane_waits(gq_lane_of(f, w, j))) gq_lane_answer(f, w, j);
  GQ_SYNC
}

/* A lane that finds no sample goes along with the block's first: it meets no time, number or index that no sample knows. */
GQ_REGION void gq_lane_accompany(const gq_lanesolve *f, char *w, int j) {
  gq_lane *l = gq_lane_of(f, w, j);
  if (l->stage != GQ_LANE_IDLE || GQ_TILE >= f->samples) return;
  const GQ_STATE *z = gq_sample_at(f, 0, GQ_TILE);
  GQ_BY(unroll 1)
  for (int i = 0; i < f->parts; i++) {
    GQ_STATE *y = gq_row(f, w, f->at.y[i], j), *ey = gq_row(f, w, f->at.ey[i], j);
    GQ_NUMBERS(d) y[d * f->across] = ey[d * f->across] = z[d];
  }
  l->t = gq_time(f, 0);
  ((GQ_STATE *)(w + f->at.te))[j] = (GQ_STATE)l->t;
  gq_lane_cut(f, w, j, GQ_TILE);
}

/* ---- attempts ---- */

GQ_REGION void gq_block_propose(const gq_lanesolve *f, char *w) {
  GQ_EACH(j, f->lanes) {
    gq_lane *l = gq_lane_of(f, w, j);
    gq_laneend end = l->stage == GQ_LANE_READY ? gq_lane_propose(l, &f->rule) : GQ_END_NOT;
    if (end) gq_lane_end(f, l, end, 0);
    double h = l->stage == GQ_LANE_READY ? l->h1 : 0;
    *gq_number(w, f->at.t, j) = l->t, *gq_number(w, f->at.h, j) = h;
    *gq_number(w, f->at.ht, j) = gq_lane_span(&f->rule, l->t, h);
  }
}

/* NaN: not finite. On a fixed grid sums tell, but for one that overflows. */
GQ_REGION double gq_lane_ratio(const gq_lanesolve *f, char *w, int j) {
  const gq_places *p = &f->at;
  double ratio = 0;
  int fine = 1;
  GQ_BY(unroll 1)
  for (int i = 0; i < f->parts; i++)
    if (f->rule.adaptive)
      ratio = gq_larger(ratio, gq_lane_error(&f->rule, *gq_number(w, p->sum[0][i], j),
                                             f->rule.third ? *gq_number(w, p->sum[1][i], j) : 0));
    else fine = fine && isfinite(*gq_number(w, p->sum[2][i], j));
  if (f->rule.adaptive) return isfinite(ratio) ? ratio : (double)NAN;
  return !fine && gq_attempt_bad(f, w, j) ? (double)NAN : 0;
}

GQ_REGION void gq_lane_judged(const gq_lanesolve *f, char *w, int j) {
  gq_lane *l = gq_lane_of(f, w, j);
  l->nfe += f->nfe;
  gq_verdict v = gq_lane_judge(l, &f->rule, gq_lane_ratio(f, w, j));
  if (v == GQ_NOT_FINITE) {
    int64_t bad = gq_attempt_bad(f, w, j);
    gq_lane_end(f, l, bad ? GQ_END_STATE : GQ_END_ERROR, bad);
  }
  if (v != GQ_ACCEPTED) return;
  l->stage = GQ_LANE_TAKEN;
  if (f->timed) l->coarse += gq_control_coarse(f->single, l->t, l->h1);
  if (gq_lane_wants(f, l) && f->nfe_dense) atomicAdd(&((gq_laneblock *)w)->dense, 1u);
}

GQ_REGION void gq_block_judge(const gq_lanesolve *f, char *w) {
  GQ_EACH(j, f->lanes) if (gq_lane_of(f, w, j)->stage == GQ_LANE_READY) gq_lane_judged(f, w, j);
}

/* z = y(theta) of a part of lane j's step, its numbers `apart` from each other */
GQ_REGION void gq_lane_between(const gq_lanesolve *f, char *w, int part, int j, double theta, GQ_STATE *z, int64_t apart) {
  gq_lane *l = gq_lane_of(f, w, j);
  const GQ_STATE *y = gq_row(f, w, f->at.y[part], j);
  if (!l->dense) l->nfe += f->nfe_dense;
  l->dense = true;
  GQ_NUMBERS(d) z[d * apart] = y[d * f->across];
  GQ_BY(unroll 1)
  for (int i = 0; i < f->slopes; i++) {
    const GQ_STATE *k = gq_row(f, w, ((const uint64_t *)GQ_FAR(f->slope))[part * f->slopes + i], j);
    double p = gq_slope_weight(f, i, theta);
    if (p == 0) continue;
    const GQ_STATE s = (GQ_STATE)(l->h1 * p);
    GQ_NUMBERS(d) z[d * apart] = z[d * apart] + s * k[d * f->across];
  }
}

/* The step is taken. Does it end at a time to stop at? */
GQ_REGION int gq_lane_stops(const gq_lanesolve *f, char *w, int j) {
  gq_lane *l = gq_lane_of(f, w, j);
  GQ_BY(unroll 1)
  for (int i = 0; i < f->parts; i++) {
    gq_row_shift(f, gq_row(f, w, f->at.y[i], j), gq_row(f, w, f->at.y1[i], j), 0, 0);
    if (f->carry) gq_row_shift(f, gq_row(f, w, f->at.f0[i], j), gq_row(f, w, f->at.f1[i], j), 0, 0);
  }
  l->t = l->t1, l->stage = GQ_LANE_READY;
  return l->t == l->c.stop;
}

//// forward
/* A solve from its first time on; the formulas are those of ode/independent.c. */
/* Records for a round; what is left of those before is lost. 0: there are none, and the host makes more. */
GQ_DEVICE int gq_block_room(gq_lanesolve *f, gq_laneblock *c) {
  unsigned some = GQ_LANESOLVE_SLOTS * (unsigned)f->lanes, from;
  if (c->slots - c->slot >= (unsigned)f->lanes) return 1;
  from = atomicAdd(&f->used, some);
  if (from + some > f->room_for) return 0;
  c->slot = from, c->slots = from + some;
  return 1;
}

/* What the block does next, which all of its threads hear; idle: nothing, all is done or time is up. Slopes are evaluated
** for all lanes at once: not before a quarter of them asks. */
GQ_REGION int gq_block_turn(gq_lanesolve *f, char *w, gq_u64 began) {
  gq_laneblock *c = (gq_laneblock *)w;
  GQ_EACH(i, 1) {
    int waiting = 0, ready = 0, fresh = 0;
    GQ_BY(unroll 1)
    for (int j = 0; j < f->lanes; j++) {
      gq_stage s = gq_lane_turn(f, w, j);
      fresh += s == GQ_LANE_NEW, ready += s == GQ_LANE_READY, waiting += s == GQ_LANE_SLOPE || s == GQ_LANE_PROBE;
    }
    c->dense = 0;
    c->what = fresh ? GQ_LANE_NEW : waiting && 3 * waiting >= ready ? GQ_LANE_SLOPE : ready ? GQ_LANE_READY : GQ_LANE_IDLE;
    int full = c->what == GQ_LANE_READY && f->record && !gq_block_room(f, c);
    if (c->what != GQ_LANE_IDLE && (full || (double)(GQ_CLOCK - began) > f->patience)) {
      c->what = GQ_LANE_IDLE;
      atomicAdd(&f->busy, 1u);
    }
  }
  GQ_SYNC
  return c->what;
}

GQ_REGION void gq_lane_take(const gq_lanesolve *f, char *w, int j) {
  gq_lane *l = gq_lane_of(f, w, j);
  const GQ_STATE *z = gq_sample_at(f, 0, l->sample);
  GQ_STATE *y = gq_row(f, w, f->at.y[0], j);
  l->c = gq_lane_control(&f->rule);
  l->t = l->c.origin = gq_time(f, 0), l->k = f->first;
  l->nfe = l->steps = l->rejected = 0, l->coarse = 0, l->dense = false, l->end = GQ_END_NOT;
  l->record = -1;
  int64_t bad = gq_row_bad(f, z, 1);
  if (bad) {
    gq_lane_end(f, l, GQ_END_FIRST, bad);
    return;
  }
  GQ_NUMBERS(d) y[d * f->across] = z[d];
  l->c.stop = gq_time(f, !f->rule.adaptive && f->rule.step_size <= 0 ? l->k : f->nt - 1);
  l->c.h = l->c.stop < l->t ? -f->first_step : f->first_step;
  l->search = f->rule.adaptive && f->first_step <= 0;
  l->stage = f->carry ? GQ_LANE_SLOPE : GQ_LANE_READY;
  gq_lane_cut(f, w, j, l->sample);
}

GQ_REGION void gq_block_take(const gq_lanesolve *f, char *w) {
  GQ_EACH(j, f->lanes) {
    if (gq_lane_of(f, w, j)->stage == GQ_LANE_NEW) gq_lane_take(f, w, j);
    else gq_lane_accompany(f, w, j);
  }
  GQ_SYNC
}

/* The times that the accepted step passes. false: what is between is not finite, and the step is not taken. */
GQ_REGION int gq_lane_times(const gq_lanesolve *f, char *w, int j) {
  gq_lane *l = gq_lane_of(f, w, j);
  GQ_BY(unroll 1)
  for (; gq_lane_passes(f, l, l->k); l->k++) {
    GQ_STATE *z = gq_sample_at(f, l->k, l->sample);
    const GQ_STATE *y = gq_row(f, w, f->at.y1[0], j);
    double t = gq_time(f, l->k);
    GQ_BY(unroll 1)
    for (int64_t d = 0; t == l->t1 && d < f->numbers; d++) z[d] = y[d * f->across];
    if (t == l->t1) continue;
    gq_lane_between(f, w, 0, j, gq_control_over(t - l->t, l->h1), z, 1);
    if (!gq_row_bad(f, z, 1)) continue;
    int k = l->k;
    GQ_BY(unroll 1)
    while (l->h1 < 0 ? gq_time(f, l->k - 1) < l->t : gq_time(f, l->k - 1) > l->t) l->k--;
    gq_lane_end(f, l, GQ_END_BETWEEN, k);
    return 0;
  }
  return 1;
}

GQ_REGION void gq_lane_keep(const gq_lanesolve *f, char *w, int j) {
  gq_lane *l = gq_lane_of(f, w, j);
  int64_t slot = atomicAdd(&((gq_laneblock *)w)->slot, 1u);
  const GQ_STATE *y = gq_row(f, w, f->at.y[0], j), *f0 = gq_row(f, w, f->at.f0[0], j);
  GQ_STATE *data = (GQ_STATE *)gq_record(f, slot);
  gq_lanerecord *r = (gq_lanerecord *)((char *)data + f->kept);
  GQ_NUMBERS(d) {
    data[d] = y[d * f->across];
    if (f->carry) data[f->numbers + d] = f0[d * f->across];
  }
  r->t = l->t, r->h = l->h1, r->before = l->record, r->stop = l->c.clamped ? l->k - 1 : -1;
  l->record = slot;
}

GQ_REGION void gq_lane_move(const gq_lanesolve *f, char *w, int j) {
  gq_lane *l = gq_lane_of(f, w, j);
  if (!gq_lane_times(f, w, j)) return;
  if (f->record) gq_lane_keep(f, w, j);
  if (!gq_lane_stops(f, w, j)) return;
  if (l->k < f->nt) l->c.stop = gq_time(f, l->k), l->c.origin = l->t, l->c.index = 0; /* from time to time */
  else gq_lane_end(f, l, GQ_END_NOT, 0);
}

GQ_REGION void gq_block_move(const gq_lanesolve *f, char *w) {
  GQ_EACH(j, f->lanes) if (gq_lane_of(f, w, j)->stage == GQ_LANE_TAKEN) gq_lane_move(f, w, j);
  GQ_SYNC
}

//// lane_direct
/* Backpropagation: a lane goes back along its sample's records; grad/samples_direct.c. */
GQ_DEVICE const gq_lanerecord *gq_lanerecord_of(const gq_lanesolve *f, int64_t i) {
  return (const gq_lanerecord *)(gq_record(f, i) + f->kept);
}
GQ_DEVICE const GQ_STATE *gq_cotangent(const gq_lanedirect *b, int64_t k, int64_t sample) {
  return (const GQ_STATE *)(GQ_FAR(b->gz) + k * b->f.apart + sample * b->f.bytes);
}
GQ_DEVICE GQ_STATE *gq_of_sample(const gq_lanesolve *f, uint64_t at, int64_t sample) {
  return (GQ_STATE *)(GQ_FAR(at) + sample * f->bytes);
}

/* x += s g, a sample */
GQ_REGION void gq_row_add(const gq_lanesolve *f, GQ_STATE *x, double scale, const GQ_STATE *g) {
  const GQ_STATE s = (GQ_STATE)scale;
  GQ_NUMBERS(d) x[d * f->across] = x[d * f->across] + s * g[d];
}
GQ_REGION void gq_row_put(const gq_lanesolve *f, GQ_STATE *x, const GQ_STATE *from) {
  GQ_NUMBERS(d) x[d * f->across] = from ? from[d] : (GQ_STATE)0;
}

/* The sample's last record that begins before its last time; -1: there is none. */
GQ_REGION int64_t gq_last_record(const gq_lanesolve *f, int64_t sample) {
  const gq_laneresult *s = gq_laneresult_of(f, sample);
  int64_t at = s->last;
  GQ_BY(unroll 1)
  for (; at >= 0 && s->reached > 0; at = gq_lanerecord_of(f, at)->before) {
    const gq_lanerecord *r = gq_lanerecord_of(f, at);
    double t = gq_time(f, s->reached - 1);
    if (r->h < 0 ? t < r->t : t > r->t) break;
  }
  return at;
}

/* One that has records into an idle lane. */
GQ_DEVICE int gq_direct_lane(gq_lanedirect *b, char *w, int j) {
  gq_lanesolve *f = &b->f;
  gq_laneblock *c = (gq_laneblock *)w;
  gq_lane *l = gq_lane_of(f, w, j);
  if (l->stage == GQ_LANE_OVER) {
    atomicAdd(&f->failures, 1u);
    if (l->end) gq_block_failed(c, l);
    l->stage = GQ_LANE_IDLE, l->sample = -1;
  }
  GQ_BY(unroll 1)
  for (; l->stage == GQ_LANE_IDLE && c->next < f->samples; c->next += f->blocks) {
    int64_t at = gq_last_record(f, c->next);
    if (at < 0) continue;
    l->sample = c->next, l->record = at, l->stage = GQ_LANE_NEW;
    l->k = gq_laneresult_of(f, l->sample)->reached - 1, l->nfe = l->steps = 0, l->end = GQ_END_NOT;
  }
  return l->stage != GQ_LANE_IDLE;
}

/* Does a sample of the group that begins there have records? */
GQ_DEVICE int gq_group_starts(const gq_lanesolve *f, int64_t first) {
  GQ_BY(unroll 1)
  for (int j = 0; j < f->lanes && first + j * f->blocks < f->samples; j++)
    if (gq_laneresult_of(f, first + j * f->blocks)->last >= 0) return 1;
  return 0;
}

/* What comes next: ready, steps back; slope, the first slopes of a group; idle, nothing. */
GQ_REGION int gq_direct_turn(gq_lanedirect *b, char *w, gq_u64 began) {
  gq_lanesolve *f = &b->f;
  gq_laneblock *c = (gq_laneblock *)w;
  GQ_EACH(i, 1) {
    int busy = 0;
    int64_t group = (int64_t)f->lanes * f->blocks;
    GQ_BY(unroll 1)
    for (int j = 0; j < f->lanes && !c->starting; j++) busy += gq_direct_lane(b, w, j);
    if (!busy && f->carry && !c->starting) c->starting = true, c->next = GQ_TILE;
    GQ_BY(unroll 1)
    while (c->starting && c->next < f->samples && !gq_group_starts(f, c->next)) c->next += group;
    c->what = busy ? GQ_LANE_READY : c->starting && c->next < f->samples ? GQ_LANE_SLOPE : GQ_LANE_IDLE;
    if (c->what != GQ_LANE_IDLE && (double)(GQ_CLOCK - began) > f->patience) {
      c->what = GQ_LANE_IDLE;
      atomicAdd(&f->busy, 1u);
    }
    if (c->what == GQ_LANE_SLOPE) c->first = c->next, c->next += group;
  }
  GQ_SYNC
  return c->what;
}

/* ---- steps ---- */

#define GQ_UNCUT(N) \
  case sizeof(N): ((N *)whole)[i] += ((const N *)lanes)[at]; break;
/* What the lane has of gradients that are cut with the samples, to those of all. */
GQ_REGION void gq_lane_uncut(const gq_lanedirect *b, char *w, int j, int64_t sample) {
  const gq_lanesolve *f = &b->f;
  const gq_lanecut *c = (const gq_lanecut *)GQ_FAR(b->cut);
  GQ_BY(unroll 1)
  for (int k = 0; k < b->cuts; k++, c++) {
    const char *lanes = w + c->to;
    char *whole = GQ_FAR(c->from);
    GQ_BY(unroll 1)
    for (int64_t o = 0; o < c->outer; o++) {
      int64_t i = (o * f->samples + sample) * c->inner, at = gq_cut_place(f, c, f->lanes, j, o, 0);
      GQ_BY(unroll 1)
      for (int64_t end = i + c->inner; i < end; i++, at += gq_cut_step(f, f->lanes)) switch (c->size) {
          GQ_UNCUT(float)
          GQ_UNCUT(double)
        }
    }
  }
}

GQ_REGION void gq_lane_load(const gq_lanedirect *b, char *w, int j, int64_t record) {
  const gq_lanesolve *f = &b->f;
  gq_lane *l = gq_lane_of(f, w, j);
  const gq_lanerecord *r = gq_lanerecord_of(f, record);
  const GQ_STATE *data = (const GQ_STATE *)gq_record(f, record);
  l->t = r->t, l->h1 = r->h;
  *gq_number(w, f->at.t, j) = r->t, *gq_number(w, f->at.h, j) = r->h;
  *gq_number(w, f->at.ht, j) = gq_lane_span(&f->rule, r->t, r->h);
  gq_row_put(f, gq_row(f, w, f->at.y[0], j), data);
  if (f->carry) gq_row_put(f, gq_row(f, w, f->at.f0[0], j), data + f->numbers);
}

/* A lane that never had a sample holds that of the first, so that zero cotangents give zeros. */
GQ_REGION void gq_direct_load(const gq_lanedirect *b, char *w) {
  const gq_lanesolve *f = &b->f;
  GQ_EACH(j, f->lanes) {
    gq_lane *l = gq_lane_of(f, w, j);
    const gq_lane *first = gq_lane_of(f, w, 0);
    int fresh = l->stage == GQ_LANE_NEW, mirrors = l->record < 0;
    if (fresh || mirrors) gq_lane_cut(f, w, j, mirrors ? first->sample : l->sample);
    if (mirrors) l->record = first->record;
    if (fresh || mirrors || l->stage == GQ_LANE_READY) gq_lane_load(b, w, j, l->record);
    if (fresh) l->stage = GQ_LANE_READY;
    gq_row_put(f, gq_row(f, w, f->at.ey[0], j), 0), gq_row_put(f, gq_row(f, w, f->at.ef[0], j), 0);
    GQ_BY(unroll 1)
    for (int i = 0; i < f->slopes; i++) {
      uint64_t at = ((const uint64_t *)GQ_FAR(b->slope))[i];
      if (at != b->cf) gq_row_put(f, gq_row(f, w, at, j), 0);
    }
    gq_place_clear(f, w, b->cut, b->cuts, f->lanes, j);
  }
  GQ_SYNC_ROWS
}

/* Measurement time k lies inside the step: z_k = y + h sum_s w_s(theta) k_s. */
GQ_REGION void gq_lane_inner(const gq_lanedirect *b, char *w, int j, int k) {
  const gq_lanesolve *f = &b->f;
  const gq_lane *l = gq_lane_of(f, w, j);
  const GQ_STATE *g = gq_cotangent(b, k, l->sample);
  double theta = gq_control_over(gq_time(f, k) - l->t, l->h1);
  gq_row_add(f, gq_row(f, w, f->at.ey[0], j), 1, g);
  GQ_BY(unroll 1)
  for (int i = 0; i < f->slopes; i++)
    gq_row_add(f, gq_row(f, w, ((const uint64_t *)GQ_FAR(b->slope))[i], j), l->h1 * gq_slope_weight(f, i, theta), g);
}

/* Cotangents of the times in the step, its end included. */
GQ_REGION void gq_lane_cotangents(const gq_lanedirect *b, char *w, int j) {
  const gq_lanesolve *f = &b->f;
  gq_lane *l = gq_lane_of(f, w, j);
  int64_t stop = gq_lanerecord_of(f, l->record)->stop;
  double end = stop >= 0 ? gq_time(f, stop) : l->t + l->h1;
  l->nfe += f->nfe + f->nfe_dense, l->steps++;
  GQ_BY(unroll 1)
  for (; l->k >= 0 && gq_time(f, l->k) == end; l->k--)
    gq_row_add(f, gq_row(f, w, b->cy, j), 1, gq_cotangent(b, l->k, l->sample));
  GQ_BY(unroll 1)
  for (; l->k >= 0 && (l->h1 < 0 ? gq_time(f, l->k) < l->t : gq_time(f, l->k) > l->t); l->k--)
    gq_lane_inner(b, w, j, l->k);
}

GQ_REGION void gq_direct_times(const gq_lanedirect *b, char *w) {
  GQ_EACH(j, b->f.lanes) if (gq_lane_of(&b->f, w, j)->stage == GQ_LANE_READY) gq_lane_cotangents(b, w, j);
}

/* x = p + e */
GQ_REGION void gq_row_sum(const gq_lanesolve *f, GQ_STATE *x, const GQ_STATE *p, const GQ_STATE *e) {
  GQ_NUMBERS(d) x[d * f->across] = p[d * f->across] + e[d * f->across];
}

/* At the sample's start: what is left is kept, and the lane's cotangents are zero. */
GQ_REGION void gq_lane_finish(const gq_lanedirect *b, char *w, int j) {
  const gq_lanesolve *f = &b->f;
  gq_lane *l = gq_lane_of(f, w, j);
  GQ_STATE *a = gq_of_sample(f, b->a, l->sample), *left = gq_of_sample(f, b->left, l->sample);
  GQ_STATE *cy = gq_row(f, w, b->cy, j), *cf = gq_row(f, w, b->cf, j);
  gq_lanecosts *r = (gq_lanecosts *)GQ_FAR(b->count) + l->sample;
  r->nfe = l->nfe, r->steps = l->steps;
  GQ_NUMBERS(d) a[d] = cy[d * f->across], left[d] = cf[d * f->across];
  gq_row_put(f, cy, 0), gq_row_put(f, cf, 0);
  l->record = 0, l->stage = GQ_LANE_IDLE, l->sample = -1;
}

GQ_REGION void gq_lane_back(const gq_lanedirect *b, char *w, int j) {
  const gq_lanesolve *f = &b->f;
  gq_lane *l = gq_lane_of(f, w, j);
  GQ_STATE *cy = gq_row(f, w, b->cy, j);
  gq_row_sum(f, cy, gq_row(f, w, b->py, j), gq_row(f, w, f->at.ey[0], j));
  if (f->carry) gq_row_sum(f, gq_row(f, w, b->cf, j), gq_row(f, w, b->pf, j), gq_row(f, w, f->at.ef[0], j));
  if (gq_row_bad(f, cy, f->across)) {
    gq_row_put(f, cy, 0), gq_row_put(f, gq_row(f, w, b->cf, j), 0);
    l->end = GQ_END_BACK, l->stage = GQ_LANE_OVER;
    return;
  }
  gq_lane_uncut(b, w, j, l->sample);
  int64_t before = gq_lanerecord_of(f, l->record)->before;
  if (before >= 0) l->record = before;
  else gq_lane_finish(b, w, j);
}

GQ_REGION void gq_direct_back(const gq_lanedirect *b, char *w) {
  GQ_EACH(j, b->f.lanes) if (gq_lane_of(&b->f, w, j)->stage == GQ_LANE_READY) gq_lane_back(b, w, j);
  GQ_SYNC
}

/* ---- first slopes f(t_0, z_0) ---- */

/* Samples that took no step, and lanes without a sample, go along with one that did. */
GQ_REGION void gq_lane_asks(const gq_lanedirect *b, char *w, int j) {
  const gq_lanesolve *f = &b->f;
  gq_laneblock *c = (gq_laneblock *)w;
  gq_lane *l = gq_lane_of(f, w, j);
  int64_t sample = c->first + (int64_t)j * f->blocks, some = c->first;
  GQ_BY(unroll 1)
  while (gq_laneresult_of(f, some)->last < 0) some += f->blocks;
  int takes = sample < f->samples && gq_laneresult_of(f, sample)->last >= 0;
  l->sample = takes ? sample : -1;
  gq_row_put(f, gq_row(f, w, f->at.ey[0], j), gq_sample_at(f, 0, takes ? sample : some));
  gq_row_put(f, gq_row(f, w, b->cf, j), takes ? gq_of_sample(f, b->left, sample) : 0);
  gq_lane_cut(f, w, j, takes ? sample : some);
  gq_place_clear(f, w, b->cut, b->cuts, f->lanes, j);
  ((GQ_STATE *)(w + f->at.te))[j] = (GQ_STATE)gq_time(f, 0);
}

GQ_REGION void gq_direct_ask(const gq_lanedirect *b, char *w) {
  GQ_EACH(j, b->f.lanes) gq_lane_asks(b, w, j);
}

GQ_REGION void gq_direct_start(const gq_lanedirect *b, char *w) {
  const gq_lanesolve *f = &b->f;
  GQ_EACH(j, f->lanes) {
    int64_t sample = gq_lane_of(f, w, j)->sample;
    if (sample < 0) continue;
    const GQ_STATE *ef = gq_row(f, w, f->at.ef[0], j);
    GQ_STATE *a = gq_of_sample(f, b->a, sample);
    gq_lane_uncut(b, w, j, sample);
    GQ_NUMBERS(d) a[d] = a[d] + ef[d * f->across];
  }
  GQ_SYNC_ROWS
}

//// adjoint
/* The adjoint equation and its quadrature: a lane solves [z, a] backwards over its sample's intervals; grad/samples_gq.c. */
GQ_DEVICE const GQ_STATE *gq_cotangent(const gq_laneadjoint *b, int64_t k, int64_t sample) {
  return (const GQ_STATE *)(GQ_FAR(b->gz) + k * b->f.apart + sample * b->f.bytes);
}
GQ_DEVICE GQ_STATE *gq_point(const gq_laneadjoint *b, char *w, uint64_t at, int i) {
  return (GQ_STATE *)(w + at) + i * b->along;
}
GQ_DEVICE int64_t *gq_whose(const gq_laneadjoint *b, char *w) { return (int64_t *)(w + b->whose); }

/* Points that are not taken yet to lanes that have nodes, in their order. */
GQ_DEVICE void gq_block_give(const gq_laneadjoint *b, char *w) {
  gq_laneblock *c = (gq_laneblock *)w;
  GQ_BY(unroll 1)
  for (int j = 0; j < b->f.lanes; j++) {
    gq_lane *l = gq_lane_of(&b->f, w, j);
    if (l->stage != GQ_LANE_TAKEN) continue;
    l->at = c->filled, l->give = l->want < b->points - c->filled ? l->want : b->points - c->filled;
    c->filled += l->give;
  }
}

/* As gq_block_turn; taken: nodes of steps go to points; points: they are evaluated. */
GQ_REGION int gq_adjoint_turn(gq_laneadjoint *b, char *w, gq_u64 began) {
  gq_lanesolve *f = &b->f;
  gq_laneblock *c = (gq_laneblock *)w;
  GQ_EACH(i, 1) {
    int waiting = 0, ready = 0, fresh = 0, taken = 0;
    if (c->what == GQ_LANE_POINTS) c->filled = 0;
    GQ_BY(unroll 1)
    for (int j = 0; j < f->lanes; j++) {
      gq_stage s = gq_lane_turn(f, w, j);
      fresh += s == GQ_LANE_NEW, ready += s == GQ_LANE_READY, waiting += s == GQ_LANE_SLOPE || s == GQ_LANE_PROBE;
      taken += s == GQ_LANE_TAKEN;
    }
    c->dense = 0;
    c->what = fresh                             ? GQ_LANE_NEW
              : taken && c->filled < b->points  ? GQ_LANE_TAKEN
              : taken                           ? GQ_LANE_POINTS
              : waiting && 3 * waiting >= ready ? GQ_LANE_SLOPE
              : ready                           ? GQ_LANE_READY
              : c->filled                       ? GQ_LANE_POINTS
                                                : GQ_LANE_IDLE;
    if (c->what != GQ_LANE_IDLE && (double)(GQ_CLOCK - began) > f->patience) {
      c->what = GQ_LANE_IDLE;
      atomicAdd(&f->busy, 1u);
    }
    if (c->what == GQ_LANE_TAKEN) gq_block_give(b, w);
  }
  GQ_SYNC
  return c->what;
}

/* ---- samples and intervals ---- */

GQ_REGION void gq_interval_rule(const gq_laneadjoint *b, gq_lane *l) {
  const gq_lanesolve *f = &b->f;
  int64_t wanted = b->fixed;
  l->node = 0, l->rule = b->fixed;
  if (b->each || !b->collects) return;
  if (!b->fixed)
    wanted = gq_rule_wanted(b->C, gq_laneresult_of(f, l->sample)->nfe, gq_time(f, l->k) - gq_time(f, l->k - 1), b->span);
  if (!b->fixed) l->rule = wanted <= b->most ? (int)wanted : b->most;
  l->capped = l->capped || l->rule < wanted;
  l->wanted += wanted * b->refine;
}

GQ_DEVICE void gq_adjoint_finish(const gq_laneadjoint *b, gq_lane *l) {
  gq_lanecosts *r = (gq_lanecosts *)GQ_FAR(b->count) + l->sample;
  r->nfe = l->nfe + l->nodes, r->steps = l->steps, r->nodes = l->nodes, r->wanted = l->wanted;
  r->off = l->off, r->restarts = l->restarts, r->capped = l->capped;
  l->sample = -1, l->stage = GQ_LANE_IDLE;
}

/* a takes the cotangents from time l->k on, and the next interval in which it is not zero begins. */
GQ_REGION void gq_adjoint_proceed(const gq_laneadjoint *b, char *w, int j) {
  const gq_lanesolve *f = &b->f;
  gq_lane *l = gq_lane_of(f, w, j);
  GQ_STATE *a = (GQ_STATE *)(GQ_FAR(b->a) + l->sample * f->bytes);
  GQ_BY(unroll 1)
  for (;; l->k--) {
    const GQ_STATE *g = gq_cotangent(b, l->k, l->sample), *z = gq_sample_at(f, l->k, l->sample);
    int some = 0;
    GQ_NUMBERS(d) {
      a[d] = a[d] + g[d];
      some |= a[d] != 0;
    }
    if (l->k == 0) {
      gq_adjoint_finish(b, l);
      return;
    }
    if (gq_time(f, l->k) == gq_time(f, l->k - 1) || !some) continue;
    GQ_STATE *y = gq_row(f, w, f->at.y[0], j), *ya = gq_row(f, w, f->at.y[1], j);
    GQ_NUMBERS(d) y[d * f->across] = z[d], ya[d * f->across] = a[d];
    break;
  }
  l->t = l->c.origin = gq_time(f, l->k), l->c.stop = gq_time(f, l->k - 1), l->c.index = 0;
  l->search = f->rule.adaptive && !l->started;
  l->stage = f->carry ? GQ_LANE_SLOPE : GQ_LANE_READY;
  l->restarts += l->started, l->started = true;
  gq_interval_rule(b, l);
}

/* The root mean square of a sample's cotangents, of the time that has most. */
GQ_REGION double gq_adjoint_size(const gq_laneadjoint *b, int64_t sample) {
  const gq_lanesolve *f = &b->f;
  double size = 0;
  GQ_BY(unroll 1)
  for (int k = 0; k < f->nt; k++) {
    const GQ_STATE *g = gq_cotangent(b, k, sample);
    double top = 0, sum = 0;
    GQ_NUMBERS(d) if (fabs((double)g[d]) > top) top = fabs((double)g[d]);
    GQ_NUMBERS(d) {
      double v = top > 0 ? gq_control_over(fabs((double)g[d]), top) : 0;
      sum += v * v;
    }
    size = fmax(size, top > 0 ? top * sqrt(gq_control_over(sum, (double)f->numbers)) : 0);
  }
  return size;
}

GQ_REGION void gq_adjoint_sample(const gq_laneadjoint *b, char *w, int j) {
  const gq_lanesolve *f = &b->f;
  gq_lane *l = gq_lane_of(f, w, j);
  double size = b->scale ? gq_adjoint_size(b, l->sample) : 1;
  l->c = gq_lane_control(&f->rule), l->k = f->nt - 1;
  l->nfe = l->steps = l->rejected = l->nodes = l->wanted = 0;
  l->dense = l->started = l->capped = false, l->restarts = l->want = l->give = 0, l->off = 0, l->end = GQ_END_NOT;
  *gq_number(w, f->at.atol[1], j) = fmax(b->atol * size, b->least);
  gq_lane_cut(f, w, j, l->sample);
  gq_adjoint_proceed(b, w, j);
}

GQ_REGION void gq_adjoint_take(const gq_laneadjoint *b, char *w) {
  GQ_EACH(j, b->f.lanes) {
    if (gq_lane_of(&b->f, w, j)->stage == GQ_LANE_NEW) gq_adjoint_sample(b, w, j);
    else gq_lane_accompany(&b->f, w, j);
  }
  GQ_SYNC
}

/* At a measurement time: how far z is from what it was on the way there, and on. */
GQ_REGION void gq_adjoint_arrived(const gq_laneadjoint *b, char *w, int j) {
  const gq_lanesolve *f = &b->f;
  gq_lane *l = gq_lane_of(f, w, j);
  const GQ_STATE *z = gq_sample_at(f, --l->k, l->sample), *ya = gq_row(f, w, f->at.y[1], j);
  GQ_STATE *ey = gq_row(f, w, f->at.ey[0], j), *a = (GQ_STATE *)(GQ_FAR(b->a) + l->sample * f->bytes);
  GQ_NUMBERS(d) ey[d * f->across] = z[d], a[d] = ya[d * f->across];
  double r = gq_row_norm(f, w, 0, j, f->at.y[0], f->at.ey[0], (int64_t)f->at.ey[0]);
  if (!(r <= l->off)) l->off = r;
  gq_adjoint_proceed(b, w, j);
}

/* Steps that have nodes wait for points. */
GQ_REGION void gq_adjoint_move(const gq_laneadjoint *b, char *w) {
  GQ_EACH(j, b->f.lanes) {
    const gq_lane *l = gq_lane_of(&b->f, w, j);
    if (l->stage == GQ_LANE_TAKEN && !l->want && gq_lane_stops(&b->f, w, j)) gq_adjoint_arrived(b, w, j);
  }
  GQ_SYNC
}

/* ---- nodes ---- */

GQ_REGION void gq_lane_gives(const gq_laneadjoint *b, char *w, int j, int i, int node) {
  const gq_lanesolve *f = &b->f;
  gq_lane *l = gq_lane_of(f, w, j);
  double weight, t = gq_node_at(b, l, node, &weight), theta = gq_control_over(t - l->t, l->h1);
  GQ_STATE *a = gq_point(b, w, b->pa, i), s = (GQ_STATE)weight;
  gq_lane_between(f, w, 0, j, theta, gq_point(b, w, b->pz, i), b->across);
  gq_lane_between(f, w, 1, j, theta, a, b->across);
  GQ_NUMBERS(d) a[d * b->across] = s * a[d * b->across];
  ((GQ_STATE *)(w + b->pt))[i] = (GQ_STATE)t;
  gq_whose(b, w)[i] = l->sample;
}

GQ_REGION void gq_adjoint_collect(const gq_laneadjoint *b, char *w) {
  GQ_EACH(j, b->f.lanes) {
    gq_lane *l = gq_lane_of(&b->f, w, j);
    if (l->stage != GQ_LANE_TAKEN || !l->give) continue;
    GQ_BY(unroll 1)
    for (int i = 0; i < l->give; i++) gq_lane_gives(b, w, j, l->at + i, l->node + i);
    l->node += l->give, l->nodes += l->give, l->want -= l->give, l->give = 0;
    if (!l->want && gq_lane_stops(&b->f, w, j)) gq_adjoint_arrived(b, w, j);
  }
  GQ_SYNC
}

/* Points that are not taken repeat the first with a = 0. */
GQ_REGION void gq_adjoint_points(const gq_laneadjoint *b, char *w) {
  const gq_lanesolve *f = &b->f;
  const int filled = ((const gq_laneblock *)w)->filled;
  GQ_EACH(i, b->points) {
    if (i >= filled) {
      GQ_STATE *z = gq_point(b, w, b->pz, i), *a = gq_point(b, w, b->pa, i);
      const GQ_STATE *first = gq_point(b, w, b->pz, 0);
      GQ_NUMBERS(d) z[d * b->across] = first[d * b->across], a[d * b->across] = 0;
      ((GQ_STATE *)(w + b->pt))[i] = ((const GQ_STATE *)(w + b->pt))[0];
      gq_whose(b, w)[i] = gq_whose(b, w)[0];
    }
    gq_place_cut(f, w, b->from, b->cuts, b->points, i, gq_whose(b, w)[i]);
    gq_place_clear(f, w, b->to, b->sums, b->points, i);
  }
}

#define GQ_WEIGH(N)                                                                        \
  case sizeof(N):                                                                          \
    ((N *)whole)[at] += ((const N *)points)[gq_cut_place(f, c, b->points, i, o, in)];      \
    break;
/* What points have of gradients that are cut with the samples: a thread a number, in the order of points. */
GQ_REGION void gq_adjoint_weigh(const gq_laneadjoint *b, char *w) {
  const gq_lanesolve *f = &b->f;
  const gq_lanecut *c = (const gq_lanecut *)GQ_FAR(b->to);
  const int filled = ((const gq_laneblock *)w)->filled;
  GQ_BY(unroll 1)
  for (int k = 0; k < b->sums; k++, c++) {
    const char *points = w + c->to;
    char *whole = GQ_FAR(c->from);
    GQ_EACH(u, (int)(c->outer * c->inner)) {
      int64_t o = u / c->inner, in = u % c->inner;
      GQ_BY(unroll 1)
      for (int i = 0; i < filled; i++) {
        int64_t at = (o * f->samples + gq_whose(b, w)[i]) * c->inner + in;
        switch (c->size) {
          GQ_WEIGH(float)
          GQ_WEIGH(double)
        }
      }
    }
  }
  GQ_SYNC
}

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
  GQ_KERNEL(name, gq_update_args) {                                                         \
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
