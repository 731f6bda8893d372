/*
** fleet.c -- batch = "independent" by a device that solves all samples by itself (backend.sail): what it reads is laid
** down once, it sails until all are done, or for a while so that Ctrl-C is heard, and what became of each sample comes back.
*/
#include "lanes.h"

#include <math.h>
#include <string.h>

#define PATIENCE 5e7 /* nanoseconds of a launch */

typedef struct fleet {
  gq_solution *s;
  gq_lanes lanes;
  gq_fleet f;
  gq_voyage v;
  void *tables; /* of the device */
  const void **in;
  void **out;
} fleet;

bool gq_fleet_solves(const gq_solution *s) {
  return s->plan->field->on->crews && !(s->keeps & GQ_STEP_STATES);
}

/* ---- tables ---- */

static int cuts(const gq_field *f) {
  int n = 0;
  for (int j = 0; j < f->nb; j++) n += f->axis[j] >= 0;
  return n;
}

static void put_cuts(const fleet *x, gq_cutting *to) {
  const gq_field *f = x->lanes.f;
  size_t outer, inner, size;
  for (int j = 0; j < f->nb; j++) {
    if (f->axis[j] < 0) continue;
    gq_cut_sizes(f, j, &outer, &inner, &size);
    *to++ = (gq_cutting){ (uint64_t)(uintptr_t)x->s->bind->value[j],
                          (uint64_t)((const char *)x->lanes.call.cut[j] - x->v.room), (int64_t)outer,
                          (int64_t)inner, (int64_t)size };
  }
}

/* [nt] times, [slopes][degree] weights, [slopes] places, cuts, and room for what becomes of samples. */
static int put_tables(fleet *x) {
  const gq_tableau *m = x->lanes.st->m;
  const gq_field *f = x->lanes.f;
  gq_fleet *g = &x->f;
  size_t weights = m->slopes * m->dense_degree, numbers = g->nt + weights + m->slopes,
         head = numbers * sizeof(double) + cuts(f) * sizeof(gq_cutting);
  double *here = gq_alloc(head + 1);
  char *there = x->tables = gq_allocate(f->on, head + g->samples * sizeof(gq_landed) + 64);
  if (!here || !there) {
    gq_free(here);
    return gq_nomem(head + g->samples * sizeof(gq_landed));
  }
  memcpy(here, x->s->t, g->nt * sizeof(double)), memcpy(here + g->nt, m->d, weights * sizeof(double));
  uint64_t *slope = (uint64_t *)(here + g->nt + weights);
  for (int i = 0; i < m->slopes; i++)
    slope[i] = (uint64_t)((const char *)gq_lanes_slope(&x->lanes, i, 0) - x->v.room);
  put_cuts(x, (gq_cutting *)(here + numbers));
  gq_copy(f->on, there, here, head);
  gq_wait(f->on);
  gq_free(here);
  g->t = (uint64_t)(uintptr_t)there, g->weight = g->t + g->nt * sizeof(double);
  g->slope = g->weight + weights * sizeof(double), g->cut = g->t + numbers * sizeof(double);
  g->took = g->t + head;
  return GQ_OK;
}

/* ---- the fleet ---- */

static uint64_t place(const fleet *x, const void *p) { return (uint64_t)((const char *)p - x->v.room); }

static void put_places(fleet *x) {
  const gq_lanes *p = &x->lanes;
  const gq_lanenumbers *n = &p->shared;
  gq_places *at = &x->f.at;
  at->lane = gq_round64(sizeof(gq_crew));
  at->te = place(x, p->te), at->rtol = place(x, n->rtol), at->zero = place(x, n->zero);
  at->t = place(x, n->t), at->h = place(x, n->h), at->ht = place(x, n->ht);
  for (int i = 0; i < p->parts; i++) {
    at->y[i] = place(x, p->y[i]), at->f0[i] = place(x, p->f0[i]);
    at->y1[i] = place(x, p->y1[i]), at->f1[i] = place(x, p->f1[i]);
    at->ey[i] = place(x, p->ey[i]), at->ef[i] = place(x, p->ef[i]);
    at->atol[i] = place(x, n->atol[i]);
    for (int k = 0; k < 3; k++) at->sum[k][i] = place(x, n->sum[k][i]);
  }
}

static void put_fleet(fleet *x, int first) {
  const gq_solution *s = x->s;
  const gq_lanes *p = &x->lanes;
  const gq_stepper *st = p->st;
  x->f = (gq_fleet){ .rule = p->rule,
                     .room = (uint64_t)(uintptr_t)x->v.room,
                     .each = x->v.each,
                     .z = (uint64_t)(uintptr_t)gq_tensor_data(s->z),
                     .samples = s->samples->n,
                     .bytes = (int64_t)s->samples->bytes,
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
                     .first = first,
                     .slopes = st->m->slopes,
                     .degree = st->m->dense_degree,
                     .cuts = cuts(p->f),
                     .nfe = st->l.nfe,
                     .nfe_dense = st->l.nfe_dense,
                     .carry = st->l.carry,
                     .front = p->f->front,
                     .timed = p->f->timed,
                     .single = p->f->dtype == GQ_F32 };
  put_places(x);
}

/* Inputs and outputs of both programs, as the first crew has them. */
static int put_voyage(fleet *x) {
  const gq_lanes *p = &x->lanes;
  gq_voyage *v = &x->v;
  int nin[] = { p->slope->nin, p->st->l.nin }, nout[] = { p->slope->nout, p->st->l.nout };
  x->in = gq_calloc(nin[0] + nin[1] + 1, sizeof *x->in);
  x->out = gq_calloc(nout[0] + nout[1] + 1, sizeof *x->out);
  if (!x->in || !x->out) return gq_nomem((nin[0] + nin[1] + nout[0] + nout[1]) * sizeof *x->in);
  for (int g = 0; g < 2; g++) {
    if (g == 0) gq_lanes_bind_slope(p);
    else gq_lanes_bind_step(p, 0);
    v->in[g] = x->in + g * nin[0], v->out[g] = x->out + g * nout[0];
    memcpy(x->in + g * nin[0], p->call.in, nin[g] * sizeof *x->in);
    memcpy(x->out + g * nout[0], p->call.out, nout[g] * sizeof *x->out);
  }
  v->arena[0] = p->call.evaluator_arena, v->arena[1] = p->call.arena;
  return GQ_OK;
}

static int build(fleet *x, int first) {
  gq_solution *s = x->s;
  const gq_plan *plan = s->plan;
  const gq_stepper *st = &plan->forward;
  const gq_field *f = plan->field;
  gq_voyage *v = &x->v;
  int lanes = (int)f->lanes[0], most = (int)((s->samples->n + lanes - 1) / lanes);
  *v = (gq_voyage){ .fleet = &x->f,
                    .bytes = sizeof x->f,
                    .prog = { plan->f.code.prog[0], st->code.prog[0] },
                    .sharing = { { 1 + plan->f.states, f->nb, f->axis, f->dtype },
                                 { st->l.bv, f->nb, f->axis, f->dtype } } };
  GQ_TRY(f->on->crews(v, &most));
  size_t head = gq_round64(sizeof(gq_crew)) + lanes * sizeof(gq_lane);
  GQ_TRY(gq_lanes_crews(&x->lanes, s, st, &plan->f, head, &most, &v->each));
  v->crews = most, v->room = x->lanes.block[1];
  gq_samples_rule(&x->lanes.rule, f, &s->o);
  put_fleet(x, first);
  GQ_TRY(put_tables(x));
  return put_voyage(x);
}

/* ---- and back ---- */

static int status_of(gq_laneend end) {
  return end == GQ_END_NOT     ? GQ_OK
         : end == GQ_END_STEPS ? GQ_EMAXSTEPS
         : end < GQ_END_FIRST  ? GQ_EUNDERFLOW
                               : GQ_ENONFINITE;
}

/* The first sample that failed, for its crew has it. */
static int why(const fleet *x, int64_t failed, gq_outcome *out) {
  gq_crew c;
  gq_copy(x->lanes.f->on, &c, x->v.room + failed % x->v.crews * x->v.each, sizeof c);
  gq_wait(x->lanes.f->on);
  gq_outcome_set(out, gq_lane_failure(x->s, &x->lanes.rule, &c.failed));
  return GQ_OK;
}

static int take(const fleet *x, double *coarse, int64_t *failed) {
  gq_sampleset *r = x->s->samples;
  const gq_samples *c = &r->took;
  gq_landed *all = gq_alloc(r->n * sizeof *all + 1);
  if (!all) return gq_nomem(r->n * sizeof *all);
  gq_copy(x->lanes.f->on, all, (void *)(uintptr_t)x->f.took, r->n * sizeof *all);
  gq_wait(x->lanes.f->on);
  for (int64_t i = r->n - 1; i >= 0; i--) {
    gq_sample_count(c->nfe)[i] = r->nfe[i] = all[i].nfe, gq_sample_count(c->steps)[i] = all[i].steps;
    gq_sample_count(c->rejected)[i] = all[i].rejected, gq_sample_count(c->status)[i] = status_of(all[i].end);
    ((double *)gq_tensor_data(c->t))[i] = all[i].t;
    r->reached[i] = all[i].reached, *coarse = fmax(*coarse, all[i].coarse);
    if (all[i].end) *failed = i;
  }
  gq_free(all);
  return GQ_OK;
}

static int sail(fleet *x) {
  do {
    if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted");
    x->f.busy = 0;
    GQ_TRY(x->lanes.f->on->sail(&x->v));
    x->f.begun = true;
  } while (x->f.busy);
  return GQ_OK;
}

int gq_fleet_forward(gq_solution *s, int first, double *coarse, int64_t *failed, gq_outcome *out) {
  fleet x = { .s = s };
  int status = build(&x, first);
  if (status == GQ_OK) status = sail(&x);
  if (status == GQ_OK) status = take(&x, coarse, failed);
  if (status == GQ_OK && *failed >= 0) status = why(&x, *failed, out);
  s->bytes += x.lanes.bytes;
  if (x.tables) gq_release(s->plan->field->on, x.tables);
  gq_lanes_done(&x.lanes);
  gq_free(x.in);
  gq_free(x.out);
  return status;
}
