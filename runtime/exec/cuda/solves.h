/*
** solves.h -- what kernels of whole attempts and whole solves do between the phases of their programs (tile.c), in sections
** as those of kernels.h: what is decided over an attempt (method/loop.h), and samples with steps of their own (method/lane.h),
** whose ways back are in solves_back.h.
*/

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

/* A lane without a sample goes along with the block's first that begins with numbers: it meets no time, number or index
** that no sample knows. */
GQ_REGION void gq_lane_accompany(const gq_lanesolve *f, char *w, int j) {
  gq_lane *l = gq_lane_of(f, w, j);
  int64_t with = GQ_TILE;
  if (l->stage != GQ_LANE_IDLE && l->stage != GQ_LANE_OVER) return;
  GQ_BY(unroll 1)
  while (with < f->samples && gq_row_bad(f, gq_sample_at(f, 0, with), 1)) with += f->blocks;
  if (with >= f->samples) return;
  const GQ_STATE *z = gq_sample_at(f, 0, with);
  GQ_BY(unroll 1)
  for (int i = 0; i < f->parts; i++) {
    GQ_STATE *y = gq_row(f, w, f->at.y[i], j), *ey = gq_row(f, w, f->at.ey[i], j);
    GQ_NUMBERS(d) y[d * f->across] = ey[d * f->across] = z[d];
  }
  l->t = gq_time(f, 0);
  ((GQ_STATE *)(w + f->at.te))[j] = (GQ_STATE)l->t;
  gq_lane_cut(f, w, j, with);
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
    gq_lane_accompany(f, w, j);
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
