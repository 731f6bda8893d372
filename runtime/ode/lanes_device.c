/*
** lanes_device.c -- batch = "independent" by a device, the forward solve: what it reads is laid down once, it runs
** until all are done, until records are full, which are more then, or for a while so that Ctrl-C is heard; and what
** became of each sample comes back.
*/
#include "lanes_device.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#define PATIENCE 5e7 /* nanoseconds of a launch */

/* Derivatives of times go along host's records. */
bool gq_device_solves_lanes(const gq_solution *s) {
  return s->plan->field->on->lane_blocks && !s->plan->field->noise &&
         !((s->keeps & GQ_STEP_STATES) && s->t_grad);
}

/* ---- tables ---- */

void gq_lanework_cuts(const gq_lanework *x, void *const *whole, void *const *lanes, const bool *some_,
                      gq_lanecut *to, int *n) {
  const gq_field *f = x->lanes.f;
  size_t outer, inner, size;
  *n = 0;
  for (int j = 0; j < f->nb; j++) {
    if (f->axis[j] < 0 || (some_ && !some_[j])) continue;
    gq_cut_sizes(f, j, &outer, &inner, &size);
    to[(*n)++] = (gq_lanecut){ (uint64_t)(uintptr_t)whole[j], gq_lanework_place(x, lanes[j]), (int64_t)outer,
                               (int64_t)inner, (int64_t)size };
  }
}

/* Slope i's cotangent. */
static const void *cotangent(const gq_lanes *p, int i) {
  if (p->st->l.carry && i == 0) return p->ef[0];
  return p->st->l.carry && i == p->st->m->end ? p->cf : p->ck[i];
}

/* [nt] times, [slopes][degree] weights, [parts][slopes] places of slopes, direct: [slopes] of their cotangents, cuts. */
static int put_tables(gq_lanework *x) {
  const gq_lanes *p = &x->lanes;
  const gq_tableau *m = p->st->m;
  const gq_field *f = p->f;
  gq_lanesolve *g = &x->h.f;
  bool direct = x->v.pass == GQ_PASS_DIRECT;
  size_t weights = m->slopes * m->dense_degree, slopes = p->parts * m->slopes,
         numbers = g->nt + weights + slopes + direct * m->slopes,
         bytes = numbers * sizeof(double) + f->nb * sizeof(gq_lanecut);
  double *here = gq_calloc(1, bytes + 1);
  char *there = x->tables = gq_allocate(f->on, bytes + 64);
  if (!here || !there) {
    gq_free(here);
    return gq_nomem(bytes);
  }
  memcpy(here, x->s->t, g->nt * sizeof(double)), memcpy(here + g->nt, m->d, weights * sizeof(double));
  uint64_t *slope = (uint64_t *)(here + g->nt + weights);
  for (size_t i = 0; i < slopes; i++)
    slope[i] = gq_lanework_place(x, gq_lanes_slope(p, (int)i % m->slopes, (int)i / m->slopes));
  for (int i = 0; direct && i < m->slopes; i++) slope[slopes + i] = gq_lanework_place(x, cotangent(p, i));
  gq_lanework_cuts(x, (void *const *)x->s->bind->value, (void *const *)p->call.cut, NULL,
                   (gq_lanecut *)(here + numbers), &g->cuts);
  gq_copy(f->on, there, here, bytes);
  gq_wait(f->on);
  gq_free(here);
  g->t = (uint64_t)(uintptr_t)there, g->weight = g->t + g->nt * sizeof(double);
  g->slope = g->weight + weights * sizeof(double), g->cut = g->t + numbers * sizeof(double);
  if (direct) x->h.direct.slope = g->slope + slopes * sizeof(double);
  return GQ_OK;
}

/* ---- the solve ---- */

static void put_places(gq_lanework *x) {
  const gq_lanes *p = &x->lanes;
  const gq_lanenumbers *n = &p->shared;
  gq_places *at = &x->h.f.at;
  at->lane = gq_round64(sizeof(gq_laneblock));
  at->te = gq_lanework_place(x, p->te), at->rtol = gq_lanework_place(x, n->rtol);
  at->zero = gq_lanework_place(x, n->zero);
  at->t = gq_lanework_place(x, n->t), at->h = gq_lanework_place(x, n->h),
  at->ht = gq_lanework_place(x, n->ht);
  for (int i = 0; i < p->parts; i++) {
    at->y[i] = gq_lanework_place(x, p->y[i]), at->f0[i] = gq_lanework_place(x, p->f0[i]);
    at->y1[i] = gq_lanework_place(x, p->y1[i]), at->f1[i] = gq_lanework_place(x, p->f1[i]);
    at->ey[i] = gq_lanework_place(x, p->ey[i]), at->ef[i] = gq_lanework_place(x, p->ef[i]);
    at->atol[i] = gq_lanework_place(x, n->atol[i]);
    for (int k = 0; k < 3; k++) at->sum[k][i] = gq_lanework_place(x, n->sum[k][i]);
  }
}

static void put_records(gq_lanesolve *f, const gq_steps *tape) {
  f->least = tape->least, f->room_for = (unsigned)tape->room;
  for (int b = 0; b < GQ_LANESOLVE_CHUNKS; b++) f->chunk[b] = (uint64_t)(uintptr_t)tape->data[b];
}

static void put_solve(gq_lanework *x) {
  const gq_solution *s = x->s;
  const gq_sampleset *r = s->samples;
  const gq_lanes *p = &x->lanes;
  const gq_stepper *st = p->st;
  x->h.f = (gq_lanesolve){ .rule = p->rule,
                           .room = (uint64_t)(uintptr_t)x->v.room,
                           .each = x->v.each,
                           .z = (uint64_t)(uintptr_t)gq_tensor_data(s->z),
                           .took = (uint64_t)(uintptr_t)r->results,
                           .samples = r->n,
                           .bytes = (int64_t)r->bytes,
                           .apart = (int64_t)gq_part_bytes(p->f),
                           .numbers = (int64_t)p->numbers,
                           .across = (int64_t)p->across,
                           .along = (int64_t)p->along,
                           .first_step = s->o.first_step,
                           .patience = PATIENCE,
                           .parts = p->parts,
                           .lanes = p->n,
                           .blocks = x->v.blocks,
                           .nt = s->nt,
                           .slopes = st->m->slopes,
                           .degree = st->m->dense_degree,
                           .nfe = st->l.nfe,
                           .nfe_dense = st->l.nfe_dense,
                           .carry = st->l.carry,
                           .front = p->f->front,
                           .timed = p->f->timed,
                           .single = p->f->dtype == GQ_F32 };
  if (s->keeps & GQ_STEP_STATES) {
    x->h.f.record = (int64_t)r->tape->each, x->h.f.kept = x->h.f.record - (int64_t)sizeof(gq_lanerecord);
    put_records(&x->h.f, r->tape);
  }
  put_places(x);
}

int gq_lanework_open(gq_lanework *x, gq_solution *s, const gq_lanework_kind *kind, size_t own, size_t *at) {
  const gq_field *f = s->plan->field;
  const gq_stepper *st = kind->st;
  const gq_evaluator *e = kind->slope, *points = kind->points_;
  gq_lanejob *v = &x->v;
  int lanes = (int)f->lanes[0], most = (int)((s->samples->n + lanes - 1) / lanes);
  *x = (gq_lanework){ .s = s };
  *v = (gq_lanejob){ .lanes = &x->h,
                     .bytes = kind->bytes,
                     .pass = kind->pass,
                     .prog = { e->code.prog[0], st->code.prog[0], points ? points->code.prog[0] : NULL },
                     .sharing = { { 1 + e->states, f->nb, f->axis, f->dtype, lanes, f->front },
                                  { st->l.bv, f->nb, f->axis, f->dtype, lanes, f->front } } };
  if (points)
    v->sharing[2] = (gq_sharing){ 1 + points->states, f->nb, f->axis, f->dtype, (int)f->lanes[1], f->front };
  GQ_TRY(f->on->lane_blocks(v, &most));
  *at = gq_round64(sizeof(gq_laneblock)) + gq_round64(lanes * sizeof(gq_lane));
  GQ_TRY(gq_lanes_blocks(&x->lanes, s, st, e, v->pass == GQ_PASS_DIRECT, *at + own, &most, &v->each));
  v->blocks = most, v->room = x->lanes.block[1];
  gq_samples_rule(&x->lanes.rule, f, &s->o);
  put_solve(x);
  return put_tables(x);
}

/* Inputs and outputs of two programs, as the first block has them. */
int gq_lanework_bind(gq_lanework *x) {
  const gq_lanes *p = &x->lanes;
  gq_lanejob *v = &x->v;
  bool direct = v->pass == GQ_PASS_DIRECT;
  int nin[] = { p->slope->nin, p->st->l.nin }, nout[] = { p->slope->nout, p->st->l.nout };
  x->in = gq_calloc(nin[0] + nin[1] + 1, sizeof *x->in);
  x->out = gq_calloc(nout[0] + nout[1] + 1, sizeof *x->out);
  if (!x->in || !x->out) return gq_nomem((nin[0] + nin[1] + nout[0] + nout[1]) * sizeof *x->in);
  for (int g = 0; g < 2; g++) {
    if (g == 1) gq_lanes_bind_step(p, direct ? 2 : 0);
    else if (direct) gq_lanes_bind_point(p, p->slope, (void *[]){ p->ey[0], p->cf }, p->ef[0]);
    else gq_lanes_bind_slope(p);
    v->in[g] = x->in + g * nin[0], v->out[g] = x->out + g * nout[0];
    memcpy(x->in + g * nin[0], p->call.in, nin[g] * sizeof *x->in);
    memcpy(x->out + g * nout[0], p->call.out, nout[g] * sizeof *x->out);
  }
  v->arena[0] = p->call.evaluator_arena, v->arena[1] = p->call.arena;
  return GQ_OK;
}

void gq_lanework_close(gq_lanework *x) {
  x->s->bytes += x->lanes.bytes;
  if (x->tables) gq_release(x->s->plan->field->on, x->tables);
  gq_lanes_done(&x->lanes);
  gq_free(x->in);
  gq_free(x->out);
}

int gq_lanework_launch(gq_lanework *x) {
  gq_lanesolve *f = &x->h.f;
  if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted");
  f->busy = 0;
  GQ_TRY(gq_pending()); /* of what it reads */
  GQ_TRY(x->lanes.f->on->solve_lanes(&x->v));
  f->begun = true;
  return GQ_OK;
}

/* ---- forwards ---- */

/* Twice as many, where there are not enough. */
static int more_records(gq_lanework *x) {
  gq_steps *tape = x->s->samples->tape;
  gq_lanesolve *f = &x->h.f;
  if (!f->record || f->used <= f->room_for) return GQ_OK;
  f->used = f->room_for;
  if (tape->room > INT_MAX / 2) return gq_nomem(tape->each * tape->room);
  GQ_TRY(gq_steps_room(tape, tape->room + 1, false, &x->s->bytes));
  put_records(f, tape);
  return GQ_OK;
}

static int solve_lanes(gq_lanework *x) {
  do {
    GQ_TRY(more_records(x));
    GQ_TRY(gq_lanework_launch(x));
  } while (x->h.f.busy);
  return GQ_OK;
}

static int status_of(gq_laneend end) {
  return end == GQ_END_NOT     ? GQ_OK
         : end == GQ_END_STEPS ? GQ_EMAXSTEPS
         : end < GQ_END_FIRST  ? GQ_EUNDERFLOW
                               : GQ_ENONFINITE;
}

/* The first sample that failed, for its block has it. */
static void why(const gq_lanework *x, int64_t failed, gq_outcome *out) {
  gq_laneblock c;
  gq_copy(x->lanes.f->on, &c, x->v.room + failed % x->v.blocks * x->v.each, sizeof c);
  gq_wait(x->lanes.f->on);
  gq_outcome_set(out, gq_lane_failure(x->s, &x->lanes.rule, &c.failed));
}

static int take(const gq_lanework *x, double *coarse, int64_t *failed) {
  gq_sampleset *r = x->s->samples;
  const gq_samples *c = &r->took;
  gq_laneresult *all = gq_alloc(r->n * sizeof *all + 1);
  if (!all) return gq_nomem(r->n * sizeof *all);
  gq_copy(r->on, all, r->results, r->n * sizeof *all);
  gq_wait(r->on);
  for (int64_t i = r->n - 1; i >= 0; i--) {
    gq_sample_count(c->nfe)[i] = r->nfe[i] = all[i].nfe, gq_sample_count(c->steps)[i] = all[i].steps;
    gq_sample_count(c->rejected)[i] = all[i].rejected, gq_sample_count(c->status)[i] = status_of(all[i].end);
    ((double *)gq_tensor_data(c->t))[i] = all[i].t;
    r->reached[i] = all[i].reached, r->last[i] = all[i].last, *coarse = fmax(*coarse, all[i].coarse);
    if (all[i].end) *failed = i;
  }
  gq_free(all);
  return GQ_OK;
}

/* Records of the first rounds, and a gq_laneresult for each sample. */
static int make_room(gq_solution *s, int lanes) {
  gq_sampleset *r = s->samples;
  gq_steps *tape = r->tape;
  int64_t packs = (r->n + lanes - 1) / lanes;
  r->results = gq_allocate(r->on, r->n * sizeof(gq_laneresult) + 64);
  if (!r->results) return gq_nomem(r->n * sizeof(gq_laneresult));
  if (!(s->keeps & GQ_STEP_STATES)) return GQ_OK;
  tape->each = (tape->each + 7) / 8 * 8 + sizeof(gq_lanerecord);
  tape->least = GQ_LANESOLVE_SLOTS * lanes * (packs < 4096 ? packs : 4096);
  return gq_steps_room(tape, 1, false, &s->bytes);
}

int gq_lanework_forward(gq_solution *s, int first, double *coarse, int64_t *failed, gq_outcome *out) {
  gq_lanework x = { .s = s };
  size_t at;
  int status = make_room(s, (int)s->plan->field->lanes[0]);
  gq_lanework_kind kind = { GQ_PASS_FORWARD, sizeof x.h.f, &s->plan->forward, &s->plan->f, NULL };
  if (status == GQ_OK) status = gq_lanework_open(&x, s, &kind, 0, &at);
  x.h.f.first = first;
  if (status == GQ_OK) status = gq_lanework_bind(&x);
  if (status == GQ_OK) status = solve_lanes(&x);
  if (status == GQ_OK) status = take(&x, coarse, failed);
  if (status == GQ_OK && *failed >= 0) why(&x, *failed, out);
  gq_lanework_close(&x);
  return status;
}
