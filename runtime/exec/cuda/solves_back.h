/*
** solves_back.h -- the ways back of samples with steps of their own, in sections behind those of solves.h: by their records
** (lane_direct), and by the adjoint equation and its quadrature.
*/

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
    gq_lane_accompany(&b->f, w, j);
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
