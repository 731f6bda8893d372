/*
** fleet.c -- batch = "independent" by a device, the forward solve: what it reads is laid down once, it sails until all
** are done, until records are full, which are more then, or for a while so that Ctrl-C is heard; and what became
** of each sample comes back.
*/
#include "fleet.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#define PATIENCE 5e7 /* nanoseconds of a launch */

/* Derivatives of times go along host's records. */
bool gq_fleet_solves(const gq_solution *s) {
  return s->plan->field->on->crews && !s->plan->field->noise && !((s->keeps & GQ_STEP_STATES) && s->t_grad);
}

/* ---- tables ---- */

void gq_fleet_cuts(const gq_fleetwork *x, void *const *whole, void *const *lanes, const bool *some_,
                   gq_cutting *to, int *n) {
  const gq_field *f = x->lanes.f;
  size_t outer, inner, size;
  *n = 0;
  for (int j = 0; j < f->nb; j++) {
    if (f->axis[j] < 0 || (some_ && !some_[j])) continue;
    gq_cut_sizes(f, j, &outer, &inner, &size);
    to[(*n)++] = (gq_cutting){ (uint64_t)(uintptr_t)whole[j], gq_fleet_place(x, lanes[j]), (int64_t)outer,
                               (int64_t)inner, (int64_t)size };
  }
}

/* Slope i's cotangent. */
static const void *cotangent(const gq_lanes *p, int i) {
  if (p->st->l.carry && i == 0) return p->ef[0];
  return p->st->l.carry && i == p->st->m->end ? p->cf : p->ck[i];
}

/* [nt] times, [slopes][degree] weights, [parts][slopes] places of slopes, home: [slopes] of their cotangents, cuts. */
static int put_tables(gq_fleetwork *x) {
  const gq_lanes *p = &x->lanes;
  const gq_tableau *m = p->st->m;
  const gq_field *f = p->f;
  gq_fleet *g = &x->h.f;
  bool home = x->v.heading == GQ_HEADING_HOME;
  size_t weights = m->slopes * m->dense_degree, slopes = p->parts * m->slopes,
         numbers = g->nt + weights + slopes + home * m->slopes,
         bytes = numbers * sizeof(double) + f->nb * sizeof(gq_cutting);
  double *here = gq_calloc(1, bytes + 1);
  char *there = x->tables = gq_allocate(f->on, bytes + 64);
  if (!here || !there) {
    gq_free(here);
    return gq_nomem(bytes);
  }
  memcpy(here, x->s->t, g->nt * sizeof(double)), memcpy(here + g->nt, m->d, weights * sizeof(double));
  uint64_t *slope = (uint64_t *)(here + g->nt + weights);
  for (size_t i = 0; i < slopes; i++)
    slope[i] = gq_fleet_place(x, gq_lanes_slope(p, (int)i % m->slopes, (int)i / m->slopes));
  for (int i = 0; home && i < m->slopes; i++) slope[slopes + i] = gq_fleet_place(x, cotangent(p, i));
  gq_fleet_cuts(x, (void *const *)x->s->bind->value, (void *const *)p->call.cut, NULL,
                (gq_cutting *)(here + numbers), &g->cuts);
  gq_copy(f->on, there, here, bytes);
  gq_wait(f->on);
  gq_free(here);
  g->t = (uint64_t)(uintptr_t)there, g->weight = g->t + g->nt * sizeof(double);
  g->slope = g->weight + weights * sizeof(double), g->cut = g->t + numbers * sizeof(double);
  if (home) x->h.home.slope = g->slope + slopes * sizeof(double);
  return GQ_OK;
}

/* ---- the fleet ---- */

static void put_places(gq_fleetwork *x) {
  const gq_lanes *p = &x->lanes;
  const gq_lanenumbers *n = &p->shared;
  gq_places *at = &x->h.f.at;
  at->lane = gq_round64(sizeof(gq_crew));
  at->te = gq_fleet_place(x, p->te), at->rtol = gq_fleet_place(x, n->rtol);
  at->zero = gq_fleet_place(x, n->zero);
  at->t = gq_fleet_place(x, n->t), at->h = gq_fleet_place(x, n->h), at->ht = gq_fleet_place(x, n->ht);
  for (int i = 0; i < p->parts; i++) {
    at->y[i] = gq_fleet_place(x, p->y[i]), at->f0[i] = gq_fleet_place(x, p->f0[i]);
    at->y1[i] = gq_fleet_place(x, p->y1[i]), at->f1[i] = gq_fleet_place(x, p->f1[i]);
    at->ey[i] = gq_fleet_place(x, p->ey[i]), at->ef[i] = gq_fleet_place(x, p->ef[i]);
    at->atol[i] = gq_fleet_place(x, n->atol[i]);
    for (int k = 0; k < 3; k++) at->sum[k][i] = gq_fleet_place(x, n->sum[k][i]);
  }
}

static void put_records(gq_fleet *f, const gq_steps *tape) {
  f->least = tape->least, f->room_for = (unsigned)tape->room;
  for (int b = 0; b < GQ_FLEET_CHUNKS; b++) f->chunk[b] = (uint64_t)(uintptr_t)tape->data[b];
}

static void put_fleet(gq_fleetwork *x) {
  const gq_solution *s = x->s;
  const gq_sampleset *r = s->samples;
  const gq_lanes *p = &x->lanes;
  const gq_stepper *st = p->st;
  x->h.f = (gq_fleet){ .rule = p->rule,
                       .room = (uint64_t)(uintptr_t)x->v.room,
                       .each = x->v.each,
                       .z = (uint64_t)(uintptr_t)gq_tensor_data(s->z),
                       .took = (uint64_t)(uintptr_t)r->landed,
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
                       .crews = x->v.crews,
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
    x->h.f.record = (int64_t)r->tape->each, x->h.f.kept = x->h.f.record - (int64_t)sizeof(gq_taped);
    put_records(&x->h.f, r->tape);
  }
  put_places(x);
}

int gq_fleet_open(gq_fleetwork *x, gq_solution *s, const gq_fleetkind *kind, size_t own, size_t *at) {
  const gq_field *f = s->plan->field;
  const gq_stepper *st = kind->st;
  const gq_evaluator *e = kind->slope, *points = kind->points_;
  gq_voyage *v = &x->v;
  int lanes = (int)f->lanes[0], most = (int)((s->samples->n + lanes - 1) / lanes);
  *x = (gq_fleetwork){ .s = s };
  *v = (gq_voyage){ .fleet = &x->h,
                    .bytes = kind->bytes,
                    .heading = kind->heading,
                    .prog = { e->code.prog[0], st->code.prog[0], points ? points->code.prog[0] : NULL },
                    .sharing = { { 1 + e->states, f->nb, f->axis, f->dtype, lanes, f->front },
                                 { st->l.bv, f->nb, f->axis, f->dtype, lanes, f->front } } };
  if (points)
    v->sharing[2] = (gq_sharing){ 1 + points->states, f->nb, f->axis, f->dtype, (int)f->lanes[1], f->front };
  GQ_TRY(f->on->crews(v, &most));
  *at = gq_round64(sizeof(gq_crew)) + gq_round64(lanes * sizeof(gq_lane));
  GQ_TRY(gq_lanes_crews(&x->lanes, s, st, e, v->heading == GQ_HEADING_HOME, *at + own, &most, &v->each));
  v->crews = most, v->room = x->lanes.block[1];
  gq_samples_rule(&x->lanes.rule, f, &s->o);
  put_fleet(x);
  return put_tables(x);
}

/* Inputs and outputs of two programs, as the first crew has them. */
int gq_fleet_bind(gq_fleetwork *x) {
  const gq_lanes *p = &x->lanes;
  gq_voyage *v = &x->v;
  bool home = v->heading == GQ_HEADING_HOME;
  int nin[] = { p->slope->nin, p->st->l.nin }, nout[] = { p->slope->nout, p->st->l.nout };
  x->in = gq_calloc(nin[0] + nin[1] + 1, sizeof *x->in);
  x->out = gq_calloc(nout[0] + nout[1] + 1, sizeof *x->out);
  if (!x->in || !x->out) return gq_nomem((nin[0] + nin[1] + nout[0] + nout[1]) * sizeof *x->in);
  for (int g = 0; g < 2; g++) {
    if (g == 1) gq_lanes_bind_step(p, home ? 2 : 0);
    else if (home) gq_lanes_bind_point(p, p->slope, (void *[]){ p->ey[0], p->cf }, p->ef[0]);
    else gq_lanes_bind_slope(p);
    v->in[g] = x->in + g * nin[0], v->out[g] = x->out + g * nout[0];
    memcpy(x->in + g * nin[0], p->call.in, nin[g] * sizeof *x->in);
    memcpy(x->out + g * nout[0], p->call.out, nout[g] * sizeof *x->out);
  }
  v->arena[0] = p->call.evaluator_arena, v->arena[1] = p->call.arena;
  return GQ_OK;
}

void gq_fleet_close(gq_fleetwork *x) {
  x->s->bytes += x->lanes.bytes;
  if (x->tables) gq_release(x->s->plan->field->on, x->tables);
  gq_lanes_done(&x->lanes);
  gq_free(x->in);
  gq_free(x->out);
}

int gq_fleet_sail(gq_fleetwork *x) {
  gq_fleet *f = &x->h.f;
  if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted");
  f->busy = 0;
  GQ_TRY(x->lanes.f->on->sail(&x->v));
  f->begun = true;
  return GQ_OK;
}

/* ---- there ---- */

/* Twice as many, where there are not enough. */
static int more_records(gq_fleetwork *x) {
  gq_steps *tape = x->s->samples->tape;
  gq_fleet *f = &x->h.f;
  if (!f->record || f->used <= f->room_for) return GQ_OK;
  f->used = f->room_for;
  if (tape->room > INT_MAX / 2) return gq_nomem(tape->each * tape->room);
  GQ_TRY(gq_steps_room(tape, tape->room + 1, false, &x->s->bytes));
  put_records(f, tape);
  return GQ_OK;
}

static int sail(gq_fleetwork *x) {
  do {
    GQ_TRY(more_records(x));
    GQ_TRY(gq_fleet_sail(x));
  } while (x->h.f.busy);
  return GQ_OK;
}

static int status_of(gq_laneend end) {
  return end == GQ_END_NOT     ? GQ_OK
         : end == GQ_END_STEPS ? GQ_EMAXSTEPS
         : end < GQ_END_FIRST  ? GQ_EUNDERFLOW
                               : GQ_ENONFINITE;
}

/* The first sample that failed, for its crew has it. */
static void why(const gq_fleetwork *x, int64_t failed, gq_outcome *out) {
  gq_crew c;
  gq_copy(x->lanes.f->on, &c, x->v.room + failed % x->v.crews * x->v.each, sizeof c);
  gq_wait(x->lanes.f->on);
  gq_outcome_set(out, gq_lane_failure(x->s, &x->lanes.rule, &c.failed));
}

static int take(const gq_fleetwork *x, double *coarse, int64_t *failed) {
  gq_sampleset *r = x->s->samples;
  const gq_samples *c = &r->took;
  gq_landed *all = gq_alloc(r->n * sizeof *all + 1);
  if (!all) return gq_nomem(r->n * sizeof *all);
  gq_copy(r->on, all, r->landed, r->n * sizeof *all);
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

/* Records of the first rounds, and a gq_landed for each sample. */
static int make_room(gq_solution *s, int lanes) {
  gq_sampleset *r = s->samples;
  gq_steps *tape = r->tape;
  int64_t packs = (r->n + lanes - 1) / lanes;
  r->landed = gq_allocate(r->on, r->n * sizeof(gq_landed) + 64);
  if (!r->landed) return gq_nomem(r->n * sizeof(gq_landed));
  if (!(s->keeps & GQ_STEP_STATES)) return GQ_OK;
  tape->each = (tape->each + 7) / 8 * 8 + sizeof(gq_taped);
  tape->least = GQ_FLEET_SLOTS * lanes * (packs < 4096 ? packs : 4096);
  return gq_steps_room(tape, 1, false, &s->bytes);
}

int gq_fleet_forward(gq_solution *s, int first, double *coarse, int64_t *failed, gq_outcome *out) {
  gq_fleetwork x = { .s = s };
  size_t at;
  int status = make_room(s, (int)s->plan->field->lanes[0]);
  gq_fleetkind kind = { GQ_HEADING_OUT, sizeof x.h.f, &s->plan->forward, &s->plan->f, NULL };
  if (status == GQ_OK) status = gq_fleet_open(&x, s, &kind, 0, &at);
  x.h.f.first = first;
  if (status == GQ_OK) status = gq_fleet_bind(&x);
  if (status == GQ_OK) status = sail(&x);
  if (status == GQ_OK) status = take(&x, coarse, failed);
  if (status == GQ_OK && *failed >= 0) why(&x, *failed, out);
  gq_fleet_close(&x);
  return status;
}
