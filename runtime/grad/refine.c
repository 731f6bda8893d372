/*
** refine.c -- see refine.h. The error of an n-point Gauss sum over a piece of length h comes from how the Legendre
** coefficients c_k of the integrand decay (norms over a group): r = (c_{n-1} / max c)^(1/(n-1)), and what the rule gets
** wrong first is P_2n, whose coefficient would be c_{n-1} r^(n+1) and whose Gauss sum is g_n: (h/2) g_n c_{n-1}
** r^(n+1).
*/
#include "refine.h"

#include "../ode/ode.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double ROUND_SHARE = 0.5; /* of what is left of the tolerance goes to what one round accepts */
static const double LEAST_SHARE =
  0.1;                          /* of a list's own part of the tolerance, where those before spent it */
static const double MASS = 0.1; /* an integral that cancels is judged by a tenth of its norm's */
static const double SLOW = 0.7; /* a decay that more nodes do not help: halve */

enum { CHILD = 5, CONFIRM = 7 }; /* nodes */
enum { FAINT = 3 };              /* the round in which what cannot show is let go: tails led to a pulse */
static const int ladder[] = { 5, 7, GQ_PIECE_MOST };

int gq_refine_init(gq_refine *r, int groups, const int *size, double rtol, double eps) {
  *r = (gq_refine){ .groups = groups, .rtol = rtol, .eps = eps };
  r->first = gq_alloc((groups + 1) * sizeof *r->first);
  if (!r->first) return gq_nomem((groups + 1) * sizeof *r->first);
  for (int g = 0; g < groups; g++) r->first[g] = r->numbers, r->numbers += size[g];
  r->first[groups] = r->numbers;
  r->total = gq_calloc(r->numbers + 6 * (size_t)groups + 1, sizeof *r->total);
  if (!r->total) return gq_nomem((r->numbers + 6 * (size_t)groups) * sizeof *r->total);
  r->mass = r->total + r->numbers, r->noise = r->mass + groups;
  r->used = r->noise + groups, r->tolerance = r->used + groups, r->agreed = r->tolerance + groups;
  r->floor = r->agreed + groups;
  return GQ_OK;
}

void gq_refine_done(gq_refine *r) {
  gq_free(r->first);
  gq_free(r->total);
  gq_free(r->work);
  gq_free(r->next);
  gq_free(r->value);
  gq_free(r->sums);
  *r = (gq_refine){ 0 };
}

void gq_refine_clear(gq_refine *r) {
  memset(r->total, 0, (r->numbers + 5 * (size_t)r->groups) * sizeof *r->total);
  r->before = 0;
}

static int grow(void **p, size_t *room, size_t want) {
  if (want <= *room) return GQ_OK;
  void *q = gq_realloc(*p, (want + want / 2) * sizeof(double));
  if (!q) return gq_nomem((want + want / 2) * sizeof(double));
  *p = q, *room = want + want / 2;
  return GQ_OK;
}

/* Numbers of a piece_sums. */
static size_t sums_size(const gq_refine *r) { return (size_t)r->numbers + 4 * r->groups + 1; }

/* Both lists have room for n pieces. */
static int piece_room(gq_refine *r, int n) {
  int room = r->room;
  GQ_TRY(gq_room(&r->work, &room, n - 1, sizeof *r->work));
  return gq_room(&r->next, &r->room, n - 1, sizeof *r->next);
}

int gq_refine_add(gq_refine *r, double from, double to, int n) {
  if (r->nwork == 0) r->nodes = r->first_nodes = r->round = 0;
  GQ_TRY(piece_room(r, r->nwork + 1));
  r->work[r->nwork++] = (gq_piece){ from, to, n < GQ_PIECE_FIRST ? n : GQ_PIECE_FIRST, false };
  return GQ_OK;
}

int gq_refine_round(gq_refine *r) {
  size_t nodes = 0;
  for (int i = 0; i < r->nwork; i++) nodes += r->work[i].n;
  r->nodes += nodes;
  if (r->round++ == 0) r->first_nodes = nodes;
  if (r->round > r->rounds) r->rounds = r->round;
  GQ_TRY(grow((void **)&r->value, &r->value_room, nodes * (r->numbers + r->groups)));
  GQ_TRY(grow((void **)&r->sums, &r->sums_room, r->nwork * sums_size(r)));
  memset(r->sums, 0, r->nwork * sums_size(r) * sizeof *r->sums);
  return GQ_OK;
}

double gq_piece_node(const gq_piece *p, int j, double *weight) {
  double x[GQ_PIECE_FIRST], w[GQ_PIECE_FIRST], half = (p->from - p->to) / 2;
  gq_gauss_legendre(p->n, x, w);
  j = p->n - 1 - j;
  *weight = w[j] * half;
  return p->from - half + x[j] * half;
}

/* ---- one piece ---- */

/* Of a group's numbers in x. */
static double norm(const gq_refine *r, int g, const double *x) {
  double square = 0;
  for (int q = r->first[g]; q < r->first[g + 1]; q++) square += x[q] * x[q];
  return sqrt(square);
}

static double distance(const gq_refine *r, int g, const double *x, const double *y) {
  double square = 0;
  for (int q = r->first[g]; q < r->first[g + 1]; q++) square += (x[q] - y[q]) * (x[q] - y[q]);
  return sqrt(square);
}

typedef struct piece_sums {            /* lent from gq_refine.sums */
  double *total;                       /* [numbers] */
  double *mass, *noise, *error, *rate; /* [groups] */
  double *worst;                       /* error in tolerances */
} piece_sums;

static piece_sums sums_of(const gq_refine *r, int i) {
  double *s = r->sums + i * sums_size(r), *g = s + r->numbers;
  return (piece_sums){ s, g, g + r->groups, g + 2 * r->groups, g + 3 * r->groups, g + 4 * r->groups };
}

/* P_0 .. P_n-1 at x, and P_2n. */
static double legendre(int n, double x, double *p) {
  double before = 0, now = 1, next;
  for (int k = 0; k < 2 * n; k++, before = now, now = next) {
    if (k < n) p[k] = now;
    next = ((2 * k + 1) * x * now - k * before) / (k + 1);
  }
  return now;
}

/* Norms over a group of the coefficients of degree k < n. value: of the piece's first node. */
static void coefficients(const gq_refine *r, int g, int n, const double *w, double p[][GQ_PIECE_FIRST],
                         const double *value, double *c) {
  size_t stride = r->numbers + r->groups;
  for (int k = 0; k < n; k++) {
    double square = 0;
    for (int q = r->first[g]; q < r->first[g + 1]; q++) {
      double sum = 0;
      for (int j = 0; j < n; j++) sum += w[j] * p[j][k] * value[j * stride + q];
      square += sum * sum;
    }
    c[k] = (2 * k + 1) / 2.0 * sqrt(square);
  }
}

/* The last coefficient; one that vanishes by chance is taken for what the one before promises. */
static double last_of(const double *c, int n, double top) {
  if (n <= 3) return c[n - 1];
  return fmax(c[n - 1], c[n - 2] * fmin(1, pow(fmax(c[n - 2], DBL_MIN) / top, 1.0 / (n - 2))));
}

static void estimate(const gq_refine *r, const gq_piece *piece, const double *value, piece_sums s) {
  double x[GQ_PIECE_FIRST], w[GQ_PIECE_FIRST], p[GQ_PIECE_FIRST][GQ_PIECE_FIRST], c[GQ_PIECE_FIRST],
    gauss = 0;
  int n = piece->n;
  size_t stride = r->numbers + r->groups;
  double half = (piece->from - piece->to) / 2, size = fabs(half);
  gq_gauss_legendre(n, x, w);
  for (int j = 0; j < n; j++) gauss += w[j] * legendre(n, -x[j], p[j]);
  for (int j = 0; j < n; j++) {
    const double *v = value + j * stride;
    for (int q = 0; q < r->numbers; q++) s.total[q] += half * w[j] * v[q];
    for (int g = 0; g < r->groups; g++) {
      s.mass[g] += size * w[j] * norm(r, g, v);
      s.noise[g] += size * w[j] * v[r->numbers + g];
    }
  }
  for (int g = 0; g < r->groups; g++) {
    double top = DBL_MIN;
    coefficients(r, g, n, w, p, value, c);
    for (int k = 0; k < n; k++) top = fmax(top, c[k]);
    if (n == 1) { /* nothing is known of it */
      s.error[g] = s.mass[g], s.rate[g] = 1;
      continue;
    }
    if (top == DBL_MIN) continue; /* zero */
    double last = fmax(last_of(c, n, top), DBL_MIN);
    s.rate[g] = fmin(1, pow(last / top, 1.0 / (n - 1)));
    s.error[g] = size * fabs(gauss) * last * pow(s.rate[g], n + 1);
  }
}

/* ---- a round ---- */

/* What the integral so far and this round's pieces allow, group by group. */
static int tolerances(gq_refine *r) {
  double *sum = gq_alloc((r->numbers + 1) * sizeof *sum);
  if (!sum) return gq_nomem(r->numbers * sizeof *sum);
  memcpy(sum, r->total, r->numbers * sizeof *sum);
  for (int i = 0; i < r->nwork; i++)
    for (int q = 0; q < r->numbers; q++) sum[q] += sums_of(r, i).total[q];
  for (int g = 0; g < r->groups; g++) {
    double mass = r->mass[g], noise = r->noise[g];
    for (int i = 0; i < r->nwork; i++) mass += sums_of(r, i).mass[g], noise += sums_of(r, i).noise[g];
    r->tolerance[g] = r->rtol * fmax(norm(r, g, sum), MASS * mass) + r->eps * noise + DBL_MIN;
  }
  gq_free(sum);
  return GQ_OK;
}

static double worst(const gq_refine *r, const double *error, int *which_) {
  double top = 0;
  if (which_) *which_ = 0;
  for (int g = 0; g < r->groups; g++) {
    double e = error[g] / r->tolerance[g];
    if (e <= top) continue;
    top = e;
    if (which_) *which_ = g;
  }
  return top;
}

typedef struct place {
  double error;
  int i;
} place;

static int by_error(const void *a, const void *b) {
  const place *x = a, *y = b;
  return x->error != y->error ? (x->error > y->error) - (x->error < y->error) : (x->i > y->i) - (x->i < y->i);
}

/* All, if that spends no more than `most`, estimates by few nodes taken for more; else the smallest errors first, up to
** the budget: what is left is for the others. */
static int accept_small(gq_refine *r, double spent, double most, double budget) {
  place *order = gq_alloc((r->nwork + 1) * sizeof *order);
  if (!order) return gq_nomem(r->nwork * sizeof *order);
  double all = spent;
  for (int i = 0; i < r->nwork; i++) {
    order[i] = (place){ *sums_of(r, i).worst, i };
    all += order[i].error / (r->work[i].n < CHILD ? ROUND_SHARE : 1);
  }
  if (all <= most) budget = most;
  qsort(order, r->nwork, sizeof *order, by_error);
  for (int i = 0; i < r->nwork; i++) {
    gq_piece *p = &r->work[order[i].i];
    p->accepted = order[i].error == 0 || spent + order[i].error <= budget;
    if (p->accepted) spent += order[i].error;
  }
  gq_free(order);
  return GQ_OK;
}

/* Is there a piece that fails and whose coefficients hardly decay? What few nodes say of its neighbours is then not
** to be trusted either. */
static bool something_sharp(const gq_refine *r) {
  for (int i = 0; i < r->nwork; i++) {
    piece_sums s = sums_of(r, i);
    for (int g = 0; !r->work[i].accepted && g < r->groups; g++)
      if (s.error[g] > 1e-3 * r->tolerance[g] && s.rate[g] > SLOW) return true;
  }
  return false;
}

static void push(gq_refine *r, double from, double to, int n) {
  r->next[r->nnext++] = (gq_piece){ from, to, n, false };
}

/* More nodes where the decay promises that they serve, else two halves, of no fewer in all. */
static void again(gq_refine *r, const gq_piece *p, piece_sums s, double aim) {
  int g, need = 0;
  double e = worst(r, s.error, &g), rate = s.rate[g];
  for (size_t i = 0; i < sizeof ladder / sizeof *ladder && !need; i++)
    if (ladder[i] > p->n && e * pow(rate, 2 * (ladder[i] - p->n)) <= aim) need = ladder[i];
  if (need && rate < SLOW) {
    push(r, p->from, p->to, need);
    return;
  }
  double middle = p->from + (p->to - p->from) / 2;
  r->halved++;
  int each = p->n > 2 * CHILD ? p->n / 2 + 1 : CHILD;
  push(r, p->from, middle, each);
  push(r, middle, p->to, each);
}

static void count(gq_refine *r, piece_sums s, double *error_) {
  for (int q = 0; q < r->numbers; q++) r->total[q] += s.total[q];
  for (int g = 0; g < r->groups; g++) r->mass[g] += s.mass[g], r->noise[g] += s.noise[g];
  for (int g = 0; error_ && g < r->groups; g++) error_[g] += s.error[g];
}

static bool at_limit(const gq_refine *r) {
  int64_t most = 16 * r->first_nodes > GQ_REFINE_NODES ? 16 * r->first_nodes : GQ_REFINE_NODES;
  return r->round >= GQ_REFINE_ROUNDS || r->nodes >= most;
}

int gq_refine_judge(gq_refine *r, double share, double spacing) {
  size_t at = 0;
  for (int i = 0; i < r->nwork; i++) {
    piece_sums s = sums_of(r, i);
    estimate(r, &r->work[i], r->value + at, s);
    for (int g = 0; r->round >= FAINT && g < r->groups; g++)
      if (s.error[g] <= r->floor[g]) s.error[g] = 0;
    at += (size_t)r->work[i].n * (r->numbers + r->groups);
  }
  GQ_TRY(tolerances(r));
  for (int i = 0; i < r->nwork; i++) *sums_of(r, i).worst = worst(r, sums_of(r, i).error, NULL);
  double spent = worst(r, r->used, NULL);
  if (r->round == 1) { /* an integral that cancels makes more of what was spent before */
    r->limit = fmax(share, spent + LEAST_SHARE * (share - r->before));
    r->before = share;
  }
  double left = r->limit - spent; /* of which a round takes half */
  GQ_TRY(accept_small(r, spent, r->limit, spent + left * ROUND_SHARE));
  GQ_TRY(piece_room(r, 2 * r->nwork));
  bool confirm = r->round <= 3 && something_sharp(r), limit = at_limit(r);
  int rest = 0;
  for (int i = 0; i < r->nwork; i++) rest += !r->work[i].accepted;
  double aim = ROUND_SHARE * fmax(0.1, r->limit - worst(r, r->used, NULL)) / (rest > 0 ? rest : 1);
  r->nnext = 0;
  for (int i = 0; i < r->nwork; i++) {
    gq_piece *p = &r->work[i];
    bool doubt = p->accepted && confirm && p->n < CONFIRM;
    if (limit || (!p->accepted && fabs(p->to - p->from) < spacing)) {
      r->unresolved += !p->accepted;
      p->accepted = true;
    } else if (doubt) {
      p->accepted = false;
      push(r, p->from, p->to, CONFIRM);
    } else if (!p->accepted) {
      again(r, p, sums_of(r, i), aim);
    }
    if (p->accepted) count(r, sums_of(r, i), r->used);
  }
  return GQ_OK;
}

int gq_refine_agree(gq_refine *r, const double *other, double most) {
  double *sum = gq_alloc((r->numbers + r->groups + 1) * sizeof *sum), *apart = sum + r->numbers;
  if (!sum) return gq_nomem((r->numbers + r->groups) * sizeof *sum);
  memcpy(sum, r->total, r->numbers * sizeof *sum);
  for (int i = 0; i < r->nwork; i++)
    for (int q = 0; q < r->numbers && !r->work[i].accepted; q++) sum[q] += sums_of(r, i).total[q];
  for (int g = 0; g < r->groups; g++) apart[g] = distance(r, g, sum, other);
  bool agree = worst(r, apart, NULL) <= most;
  for (int i = 0; i < r->nwork && agree; i++) {
    if (!r->work[i].accepted) count(r, sums_of(r, i), NULL);
    r->work[i].accepted = true;
  }
  for (int g = 0; g < r->groups && agree; g++) r->agreed[g] += apart[g];
  if (agree) r->nnext = 0;
  gq_free(sum);
  return GQ_OK;
}

static void put(const gq_refine *r, double *total, const double *value) {
  double *mass = total + r->numbers, *noise = mass + r->groups;
  for (int q = 0; q < r->numbers; q++) total[q] += value[q];
  for (int g = 0; g < r->groups; g++) mass[g] += norm(r, g, value), noise[g] += fabs(value[r->numbers + g]);
}

void gq_refine_count(gq_refine *r, const double *value) { put(r, r->total, value); }

void gq_refine_put(gq_refine *r, int i, const double *value) { put(r, sums_of(r, i).total, value); }

int gq_refine_compare(gq_refine *r, const double *other, double most) {
  GQ_TRY(tolerances(r));
  for (int i = 0; i < r->nwork; i++, other += r->numbers) {
    piece_sums s = sums_of(r, i);
    for (int g = 0; g < r->groups; g++) s.error[g] = distance(r, g, s.total, other);
    *s.worst = worst(r, s.error, NULL);
  }
  GQ_TRY(accept_small(r, 0, most, most));
  for (int i = 0; i < r->nwork; i++)
    if (r->work[i].accepted) count(r, sums_of(r, i), r->agreed);
  r->nwork = 0;
  return GQ_OK;
}

bool gq_refine_next(gq_refine *r) {
  gq_piece *p = r->work;
  r->work = r->next, r->next = p;
  r->nwork = r->nnext, r->nnext = 0;
  return r->nwork > 0;
}

/* An error of group g relative to an integral whose norm is that, and that of a tolerance below which is rounding. */
static double relative(const gq_refine *r, int g, double error, double norm) {
  double rounding = r->rtol > 0 ? r->eps * r->noise[g] / r->rtol : 0;
  return error > 0 ? error / fmax(fmax(norm, MASS * r->mass[g]) + rounding, DBL_MIN) : 0;
}

double gq_refine_error(const gq_refine *r) {
  double top = 0;
  for (int g = 0; g < r->groups; g++)
    top = fmax(top, relative(r, g, r->used[g] + r->agreed[g], norm(r, g, r->total)));
  return top;
}

double gq_refine_difference(const gq_refine *r, const double *other) {
  double top = 0;
  for (int g = 0; g < r->groups; g++)
    top = fmax(top, relative(r, g, distance(r, g, r->total, other), norm(r, g, other)));
  return top;
}
