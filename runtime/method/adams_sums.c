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

typedef struct pass {
  gq_attempt *w;
  gq_adams *a;
  void (*run)(struct pass *p, size_t at, int n, double *s);
  int k, threads;
  double h, g;
  const void *from;
  double *to;
  double m[GQ_ADAMS_ROOM][GQ_MAXSTAGES]; /* weights of the differences in the interpolant */
} pass;

static char *number(const pass *p, const void *x, size_t at) {
  return (char *)(uintptr_t)x + at * gq_dtype_size(p->a->dtype);
}

/* n numbers from the state's dtype, the rest of the chunk zero. */
static void get(const pass *p, const void *x, size_t at, int n, double *to) {
  if (n < GQ_ADAMS_CHUNK) memset(to, 0, sizeof(chunk));
  p->w->field->on->vec->get(p->a->dtype, n, number(p, x, at), 1, to);
}

static void put(const pass *p, void *x, size_t at, int n, const double *from) {
  p->w->field->on->vec->put(p->a->dtype, n, from, number(p, x, at), 1);
}

static void part(void *context, int i) {
  pass *p = context;
  size_t all = (p->a->n + GQ_ADAMS_CHUNK - 1) / GQ_ADAMS_CHUNK, first = all * i / p->threads,
         last = all * (i + 1) / p->threads;
  for (size_t c = first; c < last; c++) {
    size_t at = c * GQ_ADAMS_CHUNK, left = p->a->n - at;
    p->run(p, at, left < GQ_ADAMS_CHUNK ? (int)left : GQ_ADAMS_CHUNK, p->a->sum[i]);
  }
}

static void run(pass *p) {
  p->a = p->w->own;
  p->threads = p->a->n < ALONE ? 1 : p->a->slices;
  memset(p->a->sum, 0, p->threads * sizeof *p->a->sum); /* squares, or the largest */
  gq_each_slice(p->w->field->on, p->threads, part, p);
}

/* The larger; NaN if either is. */
static double larger(double a, double b) { return a >= b || a != a ? a : b; }

/* Squares of a chunk, beyond whose end x is zero, into the sum or the largest. */
static void add(const pass *p, const double *restrict x, double *restrict sum) {
  double lane[8] = { 0 };
  if (p->w->tol.max_norm) {
    EACH *sum = larger(*sum, x[e] * x[e]);
    return;
  }
  for (int e = 0; e < GQ_ADAMS_CHUNK; e += 8)
    for (int l = 0; l < 8; l++) lane[l] += x[e + l] * x[e + l];
  for (int l = 0; l < 8; l++) *sum += lane[l];
}

static double norm(const pass *p, int which) {
  double sum = 0;
  for (int i = 0; i < p->threads; i++) {
    double v = p->a->sum[i][which];
    sum = p->w->tol.max_norm ? larger(sum, v) : sum + v;
  }
  return sqrt(p->w->tol.max_norm || !p->a->n ? sum : sum / p->a->n);
}

/* 1 / (atol + rtol max(|y|, |y1|)), not finite where y1 is not */
static void scales(const pass *p, size_t at, int n, double *restrict scale) {
  double atol = p->w->tol.atol[0], rtol = p->w->tol.rtol;
  chunk y, y1;
  get(p, p->w->y[0], at, n, y);
  get(p, p->w->y1[0], at, n, y1);
  EACH {
    double size = fabs(y[e]), size1 = fabs(y1[e]);
    scale[e] = 1 / (atol + rtol * (size1 > size ? size1 : size)) + 0 * y1[e];
  }
}

static void load(pass *p, size_t at, int n, double *s) {
  (void)s;
  get(p, p->from, at, n, p->to + at);
}

void gq_adams_load(gq_attempt *w, const void *x, double *to) {
  pass p = { .w = w, .run = load, .from = x, .to = to };
  run(&p);
}

static void predict(pass *p, size_t at, int n, double *s) {
  gq_adams *a = p->a;
  double *restrict guess = a->guess + at, *restrict move = a->move + at, h = p->h;
  chunk y;
  (void)s;
  memset(guess, 0, sizeof(chunk));
  memset(move, 0, sizeof(chunk));
  for (int i = p->k; i >= 1; i--) {
    double b = a->beta[i], g = a->g[i];
    const double *restrict phi = a->phi[i] + at;
    EACH {
      double v = b * phi[e];
      guess[e] += v, move[e] += g * v;
    }
  }
  get(p, p->w->y[0], at, n, y);
  EACH y[e] += h * move[e];
  put(p, p->w->y1[0], at, n, y);
}

void gq_adams_predict(gq_attempt *w, int k, double h) {
  pass p = { .w = w, .run = predict, .k = k, .h = h };
  run(&p);
}

static void errors(pass *p, size_t at, int n, double *s) {
  const gq_adams *a = p->a;
  const double *restrict guess = a->guess + at, *restrict scale = a->scale + at;
  chunk d, v, f;
  scales(p, at, n, a->scale + at);
  get(p, p->w->f1[0], at, n, f);
  EACH d[e] = f[e] - guess[e];
  for (int i = 0; i < 3 && i < p->k; i++) {
    if (i > 0) {
      double b = a->beta[p->k + 1 - i];
      const double *restrict phi = a->phi[p->k + 1 - i] + at;
      EACH d[e] += b * phi[e];
    }
    EACH v[e] = d[e] * scale[e];
    add(p, v, &s[i]);
  }
}

void gq_adams_errors(gq_attempt *w, int k, double out[3]) {
  pass p = { .w = w, .run = errors, .k = k };
  run(&p);
  for (int i = 0; i < 3; i++) out[i] = norm(&p, i);
}

static void correct(pass *p, size_t at, int n, double *s) {
  const gq_adams *a = p->a;
  const double *restrict move = a->move + at, *restrict guess = a->guess + at;
  double h = p->h, g = p->g;
  chunk y, d;
  (void)s;
  get(p, p->w->y[0], at, n, y);
  get(p, p->w->f1[0], at, n, d);
  EACH y[e] += h * (move[e] + g * (d[e] - guess[e]));
  put(p, p->w->y1[0], at, n, y);
}

void gq_adams_correct(gq_attempt *w, double h, double g) {
  pass p = { .w = w, .run = correct, .h = h, .g = g };
  run(&p);
}

/* phi_i(n+1) = sum_i<=j<=k beta_j phi_j(n) + d for i <= k, then d, then d - beta_k+1 phi_k+1(n). */
static void update(pass *p, size_t at, int n, double *s) {
  gq_adams *a = p->a;
  double *restrict last = a->phi[p->k + 2] + at, *restrict top = a->phi[p->k + 1] + at, b = a->beta[p->k + 1];
  const double *restrict guess = a->guess + at;
  chunk d, v, f, sum = { 0 };
  get(p, p->from, at, n, f);
  EACH {
    d[e] = f[e] - guess[e];
    last[e] = d[e] - b * top[e];
    top[e] = d[e];
  }
  for (int i = p->k; i >= 1; i--) {
    double *restrict phi = a->phi[i] + at;
    b = a->beta[i];
    EACH {
      sum[e] += b * phi[e];
      phi[e] = sum[e] + d[e];
    }
  }
  if (a->fixed) return;
  const double *restrict scale = a->scale + at;
  EACH v[e] = last[e] * scale[e];
  add(p, v, &s[0]);
}

double gq_adams_update(gq_attempt *w, int k, const void *f) {
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
static void slopes(pass *p, size_t at, int n, double *s) {
  const gq_adams *a = p->a;
  int many = a->m->slopes;
  double h = p->h;
  chunk c[GQ_MAXSTAGES] = { { 0 } }, y, y1;
  (void)s;
  for (int i = 1; i <= a->points; i++)
    for (int j = 0; j < i; j++) EACH c[j][e] += p->m[i][j] * a->phi[i][at + e];
  get(p, p->w->y[0], at, n, y);
  get(p, p->w->y1[0], at, n, y1);
  EACH y1[e] = (y1[e] - y[e]) / h;
  for (int j = 0; j < many; j++) EACH y1[e] -= c[j][e];
  EACH c[1][e] += 3 * y1[e], c[2][e] -= 2 * y1[e];
  for (int j = 0; j < many; j++) put(p, a->slope[j], at, n, c[j]);
}

void *gq_adams_slope(const gq_attempt *w, int i) {
  gq_adams *a = w->own;
  if (!a->ready) {
    pass p = { .w = (gq_attempt *)w, .run = slopes, .h = w->h };
    basis(a, w->h, p.m);
    run(&p);
    a->ready = true;
  }
  return a->slope[i];
}
