/*
** refine_test.c -- quadrature with error control on integrands whose integrals are known: errors below the tolerance,
** tensors judged one by one, few rounds where the integrand is smooth, and limits that say so.
*/
#include <math.h>
#include <string.h>

#include "runtime/gq.h"
#include "runtime/grad/refine.h"
#include "tests/c/check.h"

typedef void integrand(double t, double *f);

static double pulse_width, omega, sharp_at, sharp; /* where steps of a solver are short */

static void smooth(double t, double *f) { f[0] = exp(-t), f[1] = cos(t); }
static void pulse(double t, double *f) {
  double x = (t - 5.037) / pulse_width;
  f[0] = exp(-x * x), f[1] = 1000; /* small beside the other, and wrong for itself */
}
static void hidden(double t, double *f) { f[0] = exp(t - 10) * sin(omega * t), f[1] = 1; }
static void layer(double t, double *f) { f[0] = 1000 * exp(-1000 * t), f[1] = exp(-t); }
static void zero(double t, double *f) { f[0] = f[1] = 0; }

/* A step of a solver at t. */
static double length(double t) { return fmin(0.8, fmax(4 * sharp, 0.5 * fabs(t - sharp_at))); }

static void round_of(gq_refine *r, integrand *f, double share) {
  double w, *v;
  CHECK(gq_refine_round(r) == GQ_OK);
  v = r->value;
  for (int i = 0; i < r->nwork; i++)
    for (int j = 0; j < r->work[i].n; j++, v += 4) {
      f(gq_piece_node(&r->work[i], j, &w), v);
      v[2] = fabs(v[0]), v[3] = fabs(v[1]);
    }
  CHECK(gq_refine_judge(r, share, 1e-13) == GQ_OK);
}

/* Over [0, 10], from the end to the start, in so many lists; two groups of one number. */
static void integrate(gq_refine *r, integrand *f, double rtol, int lists) {
  CHECK(gq_refine_init(r, 2, (int[]){ 1, 1 }, rtol, 50 * 2.2e-16) == GQ_OK);
  for (int l = 0; l < lists; l++) {
    double t = 10 - 10.0 * l / lists, end = 10 - 10.0 * (l + 1) / lists;
    for (double next; t > end; t = next) {
      next = t - length(t);
      if (next < end + 0.1 * length(t)) next = end;
      CHECK(gq_refine_add(r, t, next, 3) == GQ_OK);
    }
    do round_of(r, f, (l + 1.0) / lists);
    while (gq_refine_next(r));
  }
}

static void meets(integrand *f, double first, double second, double rtol, int lists) {
  gq_refine r;
  integrate(&r, f, rtol, lists);
  CHECK(r.unresolved == 0);
  CHECK(fabs(r.total[0] - first) <= rtol * fmax(fabs(first), 0.1 * r.mass[0]) + 1e-15);
  CHECK(fabs(r.total[1] - second) <= rtol * fabs(second));
  CHECK(gq_refine_error(&r) <= rtol);
  gq_refine_done(&r);
}

static void smooth_is_cheap(double rtol, int rounds) {
  gq_refine r;
  integrate(&r, smooth, rtol, 1);
  CHECK(r.rounds <= rounds);
  CHECK(fabs(r.total[0] - (1 - exp(-10))) <= rtol);
  gq_refine_done(&r);
}

/* Rounds of a piece of n nodes whose estimated error is such a part of the tolerance. */
static int rounds_of(int n, double part) {
  int rounds = 0;
  for (double rtol = 1, error = 0; rounds == 0; rtol = error / part) {
    gq_refine r;
    CHECK(gq_refine_init(&r, 2, (int[]){ 1, 1 }, rtol, 0) == GQ_OK);
    CHECK(gq_refine_add(&r, 3, 0, n) == GQ_OK);
    do round_of(&r, smooth, 1);
    while (gq_refine_next(&r));
    if (error > 0) rounds = r.rounds;
    error = gq_refine_error(&r);
    gq_refine_done(&r);
  }
  return rounds;
}

/* What is left of the tolerance is for pieces that are left: of all it may be spent, but by what few nodes say. */
static void a_last_round_spends_all(void) {
  CHECK(rounds_of(6, 0.9) == 1 && rounds_of(6, 1.1) == 2);
  CHECK(rounds_of(4, 0.45) == 1 && rounds_of(4, 0.6) == 2);
}

static void limit_is_told(integrand *f, double rtol) {
  gq_refine r;
  integrate(&r, f, rtol, 1);
  CHECK(r.unresolved > 0);
  CHECK(gq_refine_error(&r) > rtol);
  gq_refine_done(&r);
}

static void nothing_is_nothing(void) {
  gq_refine r;
  integrate(&r, zero, 1e-6, 1);
  CHECK(r.unresolved == 0 && r.rounds == 1 && r.total[0] == 0 && gq_refine_error(&r) == 0);
  gq_refine_done(&r);
}

/* Of four panels, the smaller differences are accepted up to three tolerances, tensor by tensor; the second one is seen in a
** small tensor only, the last has no second rule. */
static void panels_are_compared(void) {
  static const double
    by[4][4] = { { 1, 1000, 1, 1000 }, { 1, 1000, 1, 1000 }, { 1, 1000, 1, 1000 }, { 1, 1000, 1, 1000 } },
    other[4][2] = { { 1 + 4e-3, 1000 }, { 1 + 1e-2, 1000 }, { 1, 1000 + 4 }, { INFINITY, INFINITY } };
  static const bool serves[] = { true, false, true, false };
  gq_refine r;
  CHECK(gq_refine_init(&r, 2, (int[]){ 1, 1 }, 1e-3, 0) == GQ_OK);
  for (int i = 0; i < 4; i++) CHECK(gq_refine_add(&r, 4 - i, 3 - i, 1) == GQ_OK);
  CHECK(gq_refine_round(&r) == GQ_OK);
  for (int i = 0; i < 4; i++) gq_refine_put(&r, i, by[i]);
  CHECK(gq_refine_compare(&r, other[0], 3) == GQ_OK);
  for (int i = 0; i < 4; i++) CHECK(r.work[i].accepted == serves[i]);
  CHECK(r.nwork == 0 && r.total[0] == 2 && r.total[1] == 2000 && r.mass[1] == 2000);
  CHECK(fabs(gq_refine_error(&r) - 2e-3) < 1e-12);
  CHECK(r.used[0] == 0 && r.used[1] == 0); /* pieces have the whole tolerance */
  gq_refine_done(&r);
}

/* A round whose estimates fail is accepted whole, or not at all, by integrals that were found in another way. */
static void rounds_are_compared(void) {
  for (int apart = 0; apart < 2; apart++) {
    gq_refine r;
    omega = 1;
    CHECK(gq_refine_init(&r, 2, (int[]){ 1, 1 }, 1e-6, 0) == GQ_OK);
    CHECK(gq_refine_add(&r, 10, 5, 5) == GQ_OK && gq_refine_add(&r, 5, 0, 5) == GQ_OK);
    round_of(&r, hidden, 1);
    CHECK(r.nnext > 0);
    double other[2] = { r.total[0], 10 + (apart ? 4e-5 : 2e-5) }, off;
    for (int i = 0; i < 2; i++) /* of numbers, 4 groups and 1 a piece */
      other[0] += r.work[i].accepted ? 0 : r.sums[i * 11];
    off = fabs(other[1] - 10) / 10;
    CHECK(gq_refine_agree(&r, other, 3) == GQ_OK);
    CHECK((r.nnext == 0) == !apart && (r.work[0].accepted && r.work[1].accepted) == !apart);
    CHECK(apart || (fabs(r.total[0] - other[0]) < 1e-12 && fabs(r.agreed[1] - 10 * off) < 1e-9));
    CHECK(apart || fabs(gq_refine_error(&r) - off) < 1e-8);
    gq_refine_done(&r);
  }
}

static void no_memory(void) {
  for (long n = 0; n < 9; n++) {
    gq_refine r;
    gq_alloc_fail(n, true);
    int status = gq_refine_init(&r, 1, (int[]){ 1 }, 1e-3, 0);
    if (status == GQ_OK) status = gq_refine_add(&r, 1, 0, 3);
    if (status == GQ_OK) status = gq_refine_round(&r);
    if (status == GQ_OK) memset(r.value, 0, 6 * sizeof *r.value), status = gq_refine_judge(&r, 1, 0);
    if (status == GQ_OK) status = gq_refine_agree(&r, (double[]){ 0 }, 1);
    gq_alloc_fail(-1, false);
    CHECK(status == GQ_OK || status == GQ_ENOMEM);
    gq_refine_done(&r);
  }
}

/* The integral of exp(t - 10) sin(omega t). */
static double oscillation(void) {
  return (sin(omega * 10) - omega * cos(omega * 10) + exp(-10) * omega) / (1 + omega * omega);
}

static void tolerances(int lists) {
  for (double rtol = 1e-3; rtol > 1e-10; rtol /= 1000) {
    sharp = 1;
    RUN(meets(smooth, 1 - exp(-10), sin(10), rtol, lists));
    sharp_at = 0, sharp = 1e-3;
    RUN(meets(layer, 1, 1 - exp(-10), rtol, lists));
    sharp_at = 5.037;
    for (sharp = 1; sharp > 0.015; sharp /= 4) {
      pulse_width = sharp;
      RUN(meets(pulse, pulse_width * sqrt(M_PI), 1e4, rtol, lists));
    }
  }
  sharp = 1;
  omega = 17.1; /* at 20.2 the three nodes of a piece are a period apart */
  RUN(meets(hidden, oscillation(), 10, 1e-3, lists));
}

int main(void) {
  tolerances(1);
  tolerances(4);
  RUN(smooth_is_cheap(1e-3, 2));
  RUN(smooth_is_cheap(1e-9, 3));
  RUN(a_last_round_spends_all());
  omega = 160.14;
  RUN(limit_is_told(hidden, 1e-3));
  RUN(nothing_is_nothing());
  RUN(panels_are_compared());
  RUN(rounds_are_compared());
  RUN(no_memory());
  return DONE();
}
