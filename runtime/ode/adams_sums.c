/*
** adams_sums.c -- what a multistep attempt does to every number of the state: sums over its history, in double,
** a chunk of numbers at a time and a part of them a thread.
*/
#include "adams_history.h"

#include <math.h>
#include <string.h>

#define EACH for (int e = 0; e < GQ_ADAMS_CHUNK; e++)
typedef double chunk[GQ_ADAMS_CHUNK];

enum { ALONE = 1 << 14 }; /* fewer numbers are not worth waking threads */

typedef struct sums { /* squares, or the largest */
  double of[3];
} sums;

typedef struct pass {
  gq_walk *w;
  gq_adams *a;
  void (*run)(struct pass *p, size_t at, int n, sums *s);
  int k, threads;
  double h, g;
  const void *from;
  double *to;
  double m[GQ_ADAMS_ROOM][GQ_MAXSTAGES]; /* weights of the differences in the interpolant */
  sums sum[GQ_MAXSLICES];
} pass;

static void get(gq_dtype d, const void *x, size_t at, int n, double *to) {
  memset(to, 0, sizeof(chunk));
  if (d == GQ_F32)
    for (int e = 0; e < n; e++) to[e] = ((const float *)x)[at + e];
  else memcpy(to, (const double *)x + at, n * sizeof(double));
}

static void put(gq_dtype d, void *x, size_t at, int n, const double *from) {
  if (d == GQ_F32)
    for (int e = 0; e < n; e++) ((float *)x)[at + e] = (float)from[e];
  else memcpy((double *)x + at, from, n * sizeof(double));
}

static void part(void *context, int i) {
  pass *p = context;
  size_t all = (p->a->n + GQ_ADAMS_CHUNK - 1) / GQ_ADAMS_CHUNK, first = all * i / p->threads,
         last = all * (i + 1) / p->threads;
  for (size_t c = first; c < last; c++) {
    size_t at = c * GQ_ADAMS_CHUNK, left = p->a->n - at;
    p->run(p, at, left < GQ_ADAMS_CHUNK ? (int)left : GQ_ADAMS_CHUNK, &p->sum[i]);
  }
}

static void run(pass *p) {
  p->a = p->w->adams;
  p->threads = p->a->n < ALONE ? 1 : p->a->slices;
  if (p->threads == 1) part(p, 0);
  else gq_parallel(p->threads, part, p);
}

static void add(const pass *p, double v, double *sum) {
  v *= v;
  if (!p->w->max_norm) *sum += v;
  else if (!(v <= *sum)) *sum = v;
}

static double norm(const pass *p, int which) {
  double sum = 0;
  for (int i = 0; i < p->threads; i++) {
    double v = p->sum[i].of[which];
    if (!p->w->max_norm) sum += v;
    else if (!(v <= sum)) sum = v;
  }
  return sqrt(p->w->max_norm || !p->a->n ? sum : sum / p->a->n);
}

/* 1 / (atol + rtol max(|y|, |y1|)) */
static void scales(const pass *p, size_t at, int n, double *y1, double *scale) {
  const gq_walk *w = p->w;
  chunk y;
  get(p->a->dtype, w->y[0], at, n, y);
  get(p->a->dtype, w->y1[0], at, n, y1);
  EACH scale[e] = 1 / (w->atol[0] + w->rtol * fmax(fabs(y[e]), fabs(y1[e])));
}

static void load(pass *p, size_t at, int n, sums *s) {
  (void)s;
  get(p->a->dtype, p->from, at, n, p->to + at);
}

void gq_adams_load(gq_walk *w, const void *x, double *to) {
  pass p = { .w = w, .run = load, .from = x, .to = to };
  run(&p);
}

static void predict(pass *p, size_t at, int n, sums *s) {
  gq_adams *a = p->a;
  double *guess = a->guess + at, *move = a->move + at;
  chunk y;
  (void)s;
  memset(guess, 0, sizeof(chunk));
  memset(move, 0, sizeof(chunk));
  for (int i = p->k; i >= 1; i--) {
    double b = a->beta[i], g = a->g[i];
    const double *phi = a->phi[i] + at;
    EACH {
      double v = b * phi[e];
      guess[e] += v, move[e] += g * v;
    }
  }
  get(a->dtype, p->w->y[0], at, n, y);
  EACH y[e] += p->h * move[e];
  put(a->dtype, p->w->y1[0], at, n, y);
}

void gq_adams_predict(gq_walk *w, int k, double h) {
  pass p = { .w = w, .run = predict, .k = k, .h = h };
  run(&p);
}

static void errors(pass *p, size_t at, int n, sums *s) {
  const gq_adams *a = p->a;
  chunk y1, scale, d;
  scales(p, at, n, y1, scale);
  get(a->dtype, p->w->f1[0], at, n, d);
  EACH d[e] -= a->guess[at + e];
  for (int i = 0; i < 3; i++) {
    if (i > 0 && p->k - i < 1) break;
    if (i > 0) EACH d[e] += a->beta[p->k + 1 - i] * a->phi[p->k + 1 - i][at + e];
    for (int e = 0; e < n; e++) add(p, d[e] * scale[e] + 0 * y1[e], &s->of[i]);
  }
}

void gq_adams_errors(gq_walk *w, int k, double out[3]) {
  pass p = { .w = w, .run = errors, .k = k };
  run(&p);
  for (int i = 0; i < 3; i++) out[i] = norm(&p, i);
}

static void correct(pass *p, size_t at, int n, sums *s) {
  const gq_adams *a = p->a;
  chunk y, d;
  (void)s;
  get(a->dtype, p->w->y[0], at, n, y);
  get(a->dtype, p->w->f1[0], at, n, d);
  EACH y[e] += p->h * (a->move[at + e] + p->g * (d[e] - a->guess[at + e]));
  put(a->dtype, p->w->y1[0], at, n, y);
}

void gq_adams_correct(gq_walk *w, double h, double g) {
  pass p = { .w = w, .run = correct, .h = h, .g = g };
  run(&p);
}

/* phi_i(n+1) = sum_i<=j<=k beta_j phi_j(n) + d for i <= k, then d, then d - beta_k+1 phi_k+1(n). */
static void update(pass *p, size_t at, int n, sums *s) {
  gq_adams *a = p->a;
  double *last = a->phi[p->k + 2] + at, *top = a->phi[p->k + 1] + at;
  chunk y1, scale, d, sum = { 0 };
  scales(p, at, n, y1, scale);
  get(a->dtype, p->from, at, n, d);
  EACH d[e] -= a->guess[at + e];
  EACH last[e] = d[e] - a->beta[p->k + 1] * top[e];
  EACH top[e] = d[e];
  for (int i = p->k; i >= 1; i--) {
    double b = a->beta[i], *phi = a->phi[i] + at;
    EACH {
      sum[e] += b * phi[e];
      phi[e] = sum[e] + d[e];
    }
  }
  for (int e = 0; e < n; e++) add(p, last[e] * scale[e], &s->of[0]);
}

double gq_adams_update(gq_walk *w, int k, const void *f) {
  pass p = { .w = w, .run = update, .k = k, .from = f };
  run(&p);
  return norm(&p, 0);
}

/* ---- the interpolant ---- */

/* Coefficients of theta^j in the integrals of prod_l (t - t_l) / psi_l+1 over the last i - 1 points l. */
static void basis(const gq_adams *a, double h, double m[][GQ_MAXSTAGES]) {
  double product[GQ_MAXSTAGES] = { 1 }, back = 0;
  for (int i = 1; i <= a->points; i++) {
    for (int j = 0; j < a->m->slopes; j++) m[i][j] = product[j] / (j + 1);
    double next = back + a->past[i - 1];
    for (int j = i; j >= 0 && i < a->points; j--) /* times (offset + back + theta h) / next */
      product[j] = ((j > 0 ? h * product[j - 1] : 0) + (a->offset + back) * product[j]) / next;
    back = next;
  }
}

/* y0 + the integral of the polynomial through the last slopes, and a cubic for what is then left to y1: values and
** slopes join from step to step (Watts & Shampine 1986 have the same aim). */
static void slopes(pass *p, size_t at, int n, sums *s) {
  const gq_adams *a = p->a;
  int many = a->m->slopes;
  chunk c[GQ_MAXSTAGES] = { { 0 } }, y, y1;
  (void)s;
  for (int i = 1; i <= a->points; i++)
    for (int j = 0; j < i; j++) EACH c[j][e] += p->m[i][j] * a->phi[i][at + e];
  get(a->dtype, p->w->y[0], at, n, y);
  get(a->dtype, p->w->y1[0], at, n, y1);
  EACH y1[e] = (y1[e] - y[e]) / p->h;
  for (int j = 0; j < many; j++) EACH y1[e] -= c[j][e];
  EACH c[1][e] += 3 * y1[e], c[2][e] -= 2 * y1[e];
  for (int j = 0; j < many; j++) put(a->dtype, a->slope[j], at, n, c[j]);
}

void *gq_adams_slope(const gq_walk *w, int i) {
  gq_adams *a = w->adams;
  if (!a->ready) {
    pass p = { .w = (gq_walk *)w, .run = slopes, .h = w->h1 };
    basis(a, w->h1, p.m);
    run(&p);
    a->ready = true;
  }
  return a->slope[i];
}
