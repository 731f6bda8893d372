/*
** lane.h -- a sample among others, with steps of its own: what its lane holds, and what is decided over it. lanes.c takes
** it for the host's loop; a device that solves all samples by itself (gq_lanesolve) takes it behind control.h. Plain C99.
*/
#ifndef GQ_LANE_H
#define GQ_LANE_H

#include "control.h"

#include <stdint.h>

/* idle; needs its slope; needs the second evaluation of the first step's choice; steps. Devices: has just come; has
** taken its step; is over; of blocks: points are evaluated. */
typedef enum gq_stage { GQ_LANE_IDLE, GQ_LANE_SLOPE, GQ_LANE_PROBE, GQ_LANE_READY, GQ_LANE_NEW, GQ_LANE_TAKEN,
                        GQ_LANE_OVER, GQ_LANE_POINTS } gq_stage;

/* What ends a sample early. Not finite: the first state, f there, the state after an attempt, its error estimate, the state
** at a measurement time inside a step; the derivative of a step. */
typedef enum gq_laneend { GQ_END_NOT, GQ_END_STEPS, GQ_END_SHORT, GQ_END_STUCK, GQ_END_FIXED, GQ_END_FIRST, GQ_END_SLOPE,
                          GQ_END_STATE, GQ_END_ERROR, GQ_END_BETWEEN, GQ_END_BACK } gq_laneend;

/* Fields: a walk's of one sample, and what those who use it hold by the lane: between the launches of a device nothing else is
** kept of it. */
typedef struct gq_lane {
  int64_t sample;
  gq_stage stage;
  bool search;                 /* the first step is to be chosen */
  gq_control c;
  double t;
  double t1, h1;               /* the step that is tried, or was accepted, and its end */
  bool dense;                  /* has paid for the interpolant of this step */
  double h0, d1;
  int k;                       /* the user's: a measurement time */
  int64_t nfe, steps, rejected;
  double coarse;               /* the user's, of the forward solve */
  /* the user's, of the adjoint's solve: the interval's rule; its next node; so many have been evaluated; an interval was
  ** solved */
  int rule, node;
  int64_t nodes;
  bool started;
  gq_laneend end;              /* and the number that is not finite, from 1, or the time inside the step */
  int64_t bad;
  int64_t record;              /* devices: the step taken last, -1: none; on the way back the one that comes */
  int want, give, at;          /* devices: nodes of the step taken; so many of them go to points from there on */
  int64_t wanted;
  int restarts;
  bool capped;
  double off;                  /* the largest distance from the states on the way there */
} gq_lane;

/* Of all samples. */
typedef struct gq_lanerule {
  gq_controller k;
  double rtol, atol[2], step_size, most, least;   /* these two of a step */
  double limit[2];             /* no evaluation passes these: the first going back, the second going on */
  double numbers;              /* of a sample's part */
  int64_t max_steps;
  int order, first_order;      /* of the error and of the first step */
  bool adaptive, third, max_norm;   /* third: there are second estimates */
} gq_lanerule;

static inline double gq_lane_dir(const gq_lane *l) { return l->c.stop < l->t ? -1 : 1; }
static inline double gq_lane_limit(const gq_lanerule *r, double dir) { return r->limit[dir > 0]; }

/* Of a sample that has just come. */
static inline gq_control gq_lane_control(const gq_lanerule *r) {
  gq_control c = { 0 };
  c.clamp = true, c.last[0] = c.last[1] = 1, c.size = r->step_size, c.most = r->most, c.least = r->least;
  return c;
}

/* h of the lane's step as its program reads it. */
static inline double gq_lane_span(const gq_lanerule *r, double t, double h) {
  return gq_control_within(t, h, gq_lane_limit(r, h < 0 ? -1 : 1));
}

/* The size of a probe with its sign; 0: the slope where the lane stands is asked for. */
static inline double gq_lane_probe(const gq_lane *l) {
  return l->stage == GQ_LANE_PROBE ? gq_lane_dir(l) * l->h0 : 0;
}

/* ---- the first step: Hairer, Norsett & Wanner II.4 ---- */

/* The slope is there; d0, d1: norms of the state and of it, which say nothing where there is no scale. */
static inline void gq_lane_sloped(gq_lane *l, const gq_lanerule *r, double d0, double d1) {
  double dir = gq_lane_dir(l);
  bool blind = !isfinite(d0) || !isfinite(d1);
  l->stage = GQ_LANE_READY;
  if (!l->search) return;
  if (blind) l->c.h = dir * gq_control_blind(l->t), l->search = false;
  else {
    l->h0 = gq_control_probe(l->t, d0, d1, fabs(gq_lane_limit(r, dir) - l->t)), l->d1 = d1;
    l->stage = GQ_LANE_PROBE;
  }
}

/* And the one after an Euler step of h0; d2: of their difference over h0. */
static inline void gq_lane_probed(gq_lane *l, const gq_lanerule *r, double d2) {
  l->c.h = gq_lane_dir(l) * fmax(r->least, gq_control_first(l->t, l->h0, l->d1, d2, r->first_order));
  l->search = false, l->stage = GQ_LANE_READY;
}

/* ---- attempts ---- */

/* The step to try. */
static inline gq_laneend gq_lane_propose(gq_lane *l, const gq_lanerule *r) {
  double h = l->h1 = r->adaptive ? gq_control_propose(&l->c, l->t) : gq_control_fixed(&l->c, l->t);
  l->dense = false;
  if (l->steps + l->rejected >= r->max_steps) return GQ_END_STEPS;
  if (!r->adaptive) return l->t + h == l->t ? GQ_END_FIXED : GQ_END_NOT;
  if (gq_control_short(&l->c, h)) return GQ_END_SHORT;
  return gq_control_stuck(&l->c, l->t, h) ? GQ_END_STUCK : GQ_END_NOT;
}

/* The error of a part in tolerances, from its sums. */
static inline double gq_lane_error(const gq_lanerule *r, double e, double e3) {
  double n = r->max_norm ? 1 : r->numbers;
  return gq_control_error(gq_control_over(e, n), r->third ? gq_control_over(e3, n) : -1);
}

/* After an attempt; ratio: NaN where something is not finite. */
static inline gq_verdict gq_lane_judge(gq_lane *l, const gq_lanerule *r, double ratio) {
  gq_verdict v = isnan(ratio) ? GQ_NOT_FINITE : GQ_ACCEPTED;
  if (r->adaptive) v = gq_control_judge(&l->c, &r->k, r->order, l->h1, ratio);
  if (v == GQ_ACCEPTED) {
    l->steps++, l->c.index++;
    l->t1 = l->c.clamped ? l->c.stop : l->t + l->h1;
  } else if (r->adaptive) l->rejected++;
  return v;
}

/* ---- nodes ---- */

/* Eq. (9): ceil(C nfe dt / T), at least 1; products that are exact stay exact. */
static inline int64_t gq_rule_wanted(double C, int64_t nfe, double dt, double T) {
  double n = ceil(C * (double)nfe * fabs(dt / T) * (1 - 1e-12));
  return n < 1 ? 1 : n > 1e15 ? (int64_t)1e15 : (int64_t)n;
}

/* Point i, counted from `from`, of a rule of m points x with weights w on [-1, 1] in each of so many panels; *weight: in the
** integral from `to` to `from`, signed. */
static inline double gq_panel_point(int m, int panels, const double *x, const double *w, double from, double to, int i,
                                    double *weight) {
  int p = i / m, j = m - 1 - i % m;
  double half = (from - to) / (2.0 * panels);
  *weight = w[j] * half;
  return from - (2 * p + 1) * half + x[j] * half;
}

/* ---- devices ---- */

enum { GQ_LANESOLVE_PARTS = 2, GQ_LANESOLVE_CHUNKS = 24, GQ_LANESOLVE_SLOTS = 8 /* records a lane that a block takes at once */ };

/* What became of a sample; end: a gq_laneend; reached: times. */
typedef struct gq_laneresult {
  int64_t nfe, steps, rejected;
  double t, coarse;
  int end, reached;
  int64_t last;                /* record, or -1 */
} gq_laneresult;

/* A record behind the state where its step begins, and the slope there: the sample's one before, or -1; the measurement
** time that its end was clamped to, or -1. */
typedef struct gq_lanerecord {
  double t, h;
  int64_t before, stop;
} gq_lanerecord;

/* What a block of a device's kernel holds between launches, in front of its arrays. Block b solves samples b, b + blocks, .. */
typedef struct gq_laneblock {
  int64_t next;                /* sample */
  int what;                    /* is done in this round: a gq_stage */
  unsigned dense;              /* and lanes want the interpolant */
  unsigned slot, slots;        /* records are free from this on, before that */
  bool starting;               /* the way back: all are at t[0]; their first slopes, from this sample on, are what is left */
  int64_t first;
  gq_lane failed;              /* the first sample that failed; sample -1: none */
  int filled;                  /* points, which are evaluated together */
} gq_laneblock;

/* A boundary value that is cut with the samples: outer x samples x inner numbers of so many bytes, from there to a place. */
typedef struct gq_lanecut {
  uint64_t from, to;
  int64_t outer, inner, size;
} gq_lanecut;

/* Fields: where arrays begin in a block's memory; 8 bytes each, as addresses of the device are elsewhere. */
typedef struct gq_places {
  uint64_t lane, y[GQ_LANESOLVE_PARTS], f0[GQ_LANESOLVE_PARTS], y1[GQ_LANESOLVE_PARTS], f1[GQ_LANESOLVE_PARTS];
  uint64_t ey[GQ_LANESOLVE_PARTS], ef[GQ_LANESOLVE_PARTS], te, t, h, ht, rtol, zero;
  uint64_t atol[GQ_LANESOLVE_PARTS], sum[3][GQ_LANESOLVE_PARTS];
} gq_places;

/* Fields: a whole solve, as a device reads it. */
typedef struct gq_lanesolve {
  gq_lanerule rule;
  gq_places at;
  uint64_t room, each;         /* memory of the blocks: so much each */
  uint64_t t, z, took;         /* [nt] times; states; gq_laneresult [samples] */
  uint64_t weight, slope;      /* of the interpolant: [slopes][degree], where slopes begin in a block's memory */
  uint64_t cut;                /* gq_lanecut [cuts] */
  uint64_t chunk[GQ_LANESOLVE_CHUNKS]; /* records: the first `least`, then as many as all before */
  int64_t least, record, kept; /* bytes of one, and of what comes before its gq_lanerecord; 0: none are kept */
  unsigned room_for, used;     /* records */
  int64_t samples, bytes, apart;     /* bytes of one, and from one time to the next */
  int64_t numbers, across, along;    /* of a sample, from one of them to the next, from a lane to the next */
  double first_step, patience; /* patience: nanoseconds until a launch ends */
  int parts, lanes, blocks, nt, first, slopes, degree, cuts;
  int nfe, nfe_dense;
  bool begun, carry, front, timed, single;
  unsigned busy, failures;     /* blocks that have not done all; samples that failed on the way back */
} gq_lanesolve;

/* What a way back took of a sample. */
typedef struct gq_lanecosts {
  int64_t nfe, steps, nodes, wanted;
  double off;
  int restarts, capped;
} gq_lanecosts;

/* Backpropagation through the records. Fields: addresses and places, as above. */
typedef struct gq_lanedirect {
  gq_lanesolve f;
  uint64_t gz, a, left, count; /* cotangents of states; of z0; of first slopes; gq_lanecosts [samples] */
  uint64_t cy, cf, py, pf, dt; /* places */
  uint64_t slope;              /* [slopes] places of cotangents */
  uint64_t cut;                /* gq_lanecut [cuts]: of gradients, to places of those of lanes */
  int cuts;
} gq_lanedirect;

/* A rule's points in each of so many panels, ascending on [-1, 1], with their weights behind. */
typedef struct gq_pointset {
  uint64_t x;
  int m, panels;
} gq_pointset;

/* The adjoint equation and its quadrature. Points of all lanes are evaluated together. Fields: as above. */
typedef struct gq_laneadjoint {
  gq_lanesolve f;
  uint64_t gz, a, count;
  uint64_t rule;               /* gq_pointset []: by the number of nodes that is asked for */
  uint64_t pt, pz, pa, whose;  /* places: of points' times, states, cotangents, samples */
  uint64_t from, to;           /* gq_lanecut [cuts]: of boundary values to points'; [sums]: of gradients, to points' */
  int cuts, sums;
  int points;
  int64_t across, along;       /* of points */
  int each, fixed;             /* nodes in every step; so many an interval: 0: by eq. (9) */
  int refine, most;
  double C, span;              /* of it */
  double atol, least;          /* of the second part: times the size of cotangents, where it is asked for; never less */
  bool scale, collects;
} gq_laneadjoint;

#endif
