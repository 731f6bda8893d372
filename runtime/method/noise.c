/*
** noise.c -- steps of methods for SDEs: dW is given with the step, f is the drift, G the diffusion, G dW the product
** that the kind of noise asks for. A row at the end each; what a row carries from step to step is in reversible.c.
*/
#include "explicit.h"

#include "builder.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

static const gq_stepclass noise_steps = { .program = true,
                                          .lanes = true,
                                          .build = gq_program_build,
                                          .init = gq_program_init,
                                          .done = gq_program_done,
                                          .attempt = gq_program_attempt,
                                          .phase = gq_program_phase,
                                          .slope = gq_program_slope };

/* ---- pieces; a value has all parts of the state ---- */

typedef struct value {
  gq_ref part[GQ_MAXPARTS];
} value;

typedef struct fields { /* drift and diffusion; of a system that gives what they add up to, that and none */
  value f;
  gq_ref G;
} fields;

static value start(const gq_builder *b) {
  value y;
  memcpy(y.part, b->y, sizeof y.part);
  return y;
}

static value add(gq_builder *b, value x, value y) {
  for (int p = 0; p < b->l->parts; p++) x.part[p] = gq_emit2(b->g, GQ_OP_ADD, x.part[p], y.part[p]);
  return x;
}

static value half(gq_builder *b, value x) {
  for (int p = 0; p < b->l->parts; p++) x.part[p] = gq_scale(b->g, x.part[p], 0.5);
  return x;
}

static fields mean(gq_builder *b, fields x, fields y) {
  fields m = { half(b, add(b, x.f, y.f)), GQ_NONE };
  if (x.G != GQ_NONE) m.G = gq_scale(b->g, gq_emit2(b->g, GQ_OP_ADD, x.G, y.G), 0.5);
  return m;
}

/* Stage i, at t + c h */
static fields at(gq_builder *b, int i, double c, value y) {
  fields x;
  gq_builder_evaluate(b, i, c, y.part);
  memcpy(x.f.part, b->slope[i], sizeof x.f.part);
  x.G = b->s->rise ? GQ_NONE : b->G[i];
  return x;
}

/* f h + G dW */
static value rise(gq_builder *b, fields x) {
  if (!b->s->rise) x.f.part[0] = gq_builder_rise(b, x.f.part[0], x.G);
  return x.f;
}

static int end(gq_builder *b, value y) {
  memcpy(b->y1, y.part, sizeof b->y1);
  return gq_graph_status(b->g);
}

/* Less the step of Euler's method with f and G of the start, where an error is asked for. */
static void embedded(gq_builder *b, value all, fields x) {
  if (!b->k->adaptive) return;
  value euler = rise(b, x);
  for (int p = 0; p < b->l->parts; p++) b->err[p] = gq_emit2(b->g, GQ_OP_SUB, all.part[p], euler.part[p]);
}

/* ---- methods ---- */

/* z + f h + G dW. Of additive noise heun's step less this is its error. */
static int step_euler(gq_builder *b) {
  value z = start(b);
  fields x = at(b, 0, 0, z), x1;
  value all = rise(b, x), y = add(b, z, all);
  if (b->k->adaptive) {
    x1 = at(b, 1, 1, y);
    value heun = rise(b, mean(b, x, x1));
    for (int p = 0; p < b->l->parts; p++) b->err[p] = gq_emit2(b->g, GQ_OP_SUB, heun.part[p], all.part[p]);
  }
  return end(b, y);
}

/* z' = z + G dW; z + f h + (G + G') dW / 2 */
static int step_euler_heun(gq_builder *b) {
  value z = start(b), z1 = z;
  fields x = at(b, 0, 0, z);
  z1.part[0] = gq_emit2(b->g, GQ_OP_ADD, z.part[0], gq_noise_product(b->g, b->s->noise, x.G, b->dw));
  fields x1 = at(b, 1, 1, z1);
  x.G = mean(b, x, x1).G;
  return end(b, add(b, z, rise(b, x)));
}

/* z' = z + f h + G dW; z + (f + f') h / 2 + (G + G') dW / 2 */
static int step_heun(gq_builder *b) {
  value z = start(b);
  fields x = at(b, 0, 0, z), x1 = at(b, 1, 1, add(b, z, rise(b, x)));
  value all = rise(b, mean(b, x, x1));
  embedded(b, all, x);
  return end(b, add(b, z, all));
}

/* z' = z + f h / 2 + G dW / 2; z + f' h + G' dW */
static int step_midpoint(gq_builder *b) {
  value z = start(b);
  fields x = at(b, 0, 0, z);
  return end(b, add(b, z, rise(b, at(b, 1, 0.5, add(b, z, half(b, rise(b, x)))))));
}

static value scaled(gq_builder *b, value x, double w) {
  for (int p = 0; p < b->l->parts; p++) x.part[p] = gq_scale(b->g, x.part[p], w);
  return x;
}

/* z' = z + 2/3 (f h + G dW); z + 1/4 of that there and 3/4 of that at z' */
static int step_ralston(gq_builder *b) {
  fields first = at(b, 0, 0, start(b));
  value z = start(b), x = rise(b, first), x1 = rise(b, at(b, 1, 2. / 3, add(b, z, scaled(b, x, 2. / 3))));
  value all = add(b, scaled(b, x, 0.25), scaled(b, x1, 0.75));
  embedded(b, all, first);
  return end(b, add(b, z, all));
}

/* z + f h + G dW + 1/2 (d(G dW)/dz) G dW: all double integrals where the columns of G commute. The last is the second
** derivative of what moves along G dW. */
static int step_milstein(gq_builder *b) {
  gq_ref z = b->y[0], moved;
  fields x = at(b, 0, 0, start(b));
  GQ_TRY(gq_builder_second(b, 0, z, &moved));
  value y = add(b, start(b), rise(b, x));
  y.part[0] = gq_emit2(b->g, GQ_OP_ADD, y.part[0], gq_scale(b->g, moved, 0.5));
  return end(b, y);
}

/* ---- Runge-Kutta methods that read H ---- */

/* W sums of x_i; GQ_NONE where all weights are 0 */
static gq_ref weighted(gq_builder *b, int n, const double *w, const gq_ref *x) {
  gq_ref sum = GQ_NONE;
  for (int i = 0; i < n; i++)
    if (w[i] != 0) sum = gq_builder_sum(b, sum, gq_scale(b->g, x[i], w[i]));
  return sum;
}

static gq_ref times(gq_builder *b, gq_ref x, gq_ref y) { return gq_emit2(b->g, GQ_OP_MUL, x, y); }

/* I_(1,0) / h = W / 2 + H */
static gq_ref mean_path(gq_builder *b) {
  return gq_emit2(b->g, GQ_OP_ADD, gq_scale(b->g, b->dw, 0.5), b->area[0]);
}

/* x + sum_i a_i f_i h + (sum_i b_i G_i) dW */
static gq_ref moved(gq_builder *b, gq_ref x, int n, const double *a, const gq_ref *f, const double *w,
                    const gq_ref *G, gq_ref dw) {
  gq_ref drift = weighted(b, n, a, f), noise = weighted(b, n, w, G);
  if (drift != GQ_NONE) x = gq_emit2(b->g, GQ_OP_ADD, x, times(b, drift, gq_builder_size(b)));
  return noise == GQ_NONE ? x : gq_emit2(b->g, GQ_OP_ADD, x, gq_noise_product(b->g, b->s->noise, noise, dw));
}

static void evaluate(gq_builder *b, double c, gq_ref z, gq_ref *f, gq_ref *G) {
  gq_ref out[2];
  gq_builder_system(b, 0, c, &z, out);
  if (f) *f = out[0];
  if (G) *G = out[1];
}

/* What is explicit of Y = z + f h (1 - theta) + G dW + f(t + h, Y) h theta; theta.c solves the rest. */
static int step_theta(gq_builder *b) {
  gq_ref f, G;
  value y = start(b);
  evaluate(b, 0, y.part[0], &f, &G);
  y.part[0] = moved(b, y.part[0], 1, (double[]){ 1 - b->k->theta }, &f, (double[]){ 1 }, &G, b->dw);
  return end(b, y);
}

/* z + sum_i w_i f_i h and the integral of additive noise that is linear over the step: G(t) I10 / h + G(t + h) (W - I10 / h) */
static int end_additive(gq_builder *b, int n, const double *w, const gq_ref *f, const gq_ref *G) {
  static const double none[3] = { 0 };
  gq_ref path = mean_path(b), rest = gq_emit2(b->g, GQ_OP_SUB, b->dw, path);
  value y = start(b);
  y.part[0] = moved(b, y.part[0], n, w, f, none, f, path);
  y.part[0] = moved(b, y.part[0], 2, none, G, (double[]){ 1, 0 }, G, path);
  y.part[0] = moved(b, y.part[0], 2, none, G, (double[]){ 0, 1 }, G, rest);
  return end(b, y);
}

/* G at the start and at the end, of additive noise: what is evaluated there is no drift. */
static void additive(gq_builder *b, gq_ref *G) {
  int calls = b->calls;
  evaluate(b, 0, b->y[0], NULL, &G[0]);
  evaluate(b, 1, b->y[0], NULL, &G[1]);
  b->calls = calls;
}

/* SRA1: z2 = z + 3/4 f h + 3/2 G(t + h) I10 / h */
static int step_additive(gq_builder *b) {
  gq_ref z = b->y[0], f[2], G[2];
  additive(b, G);
  evaluate(b, 0, z, &f[0], NULL);
  gq_ref z2 = moved(b, z, 2, (double[]){ 0.75, 0 }, f, (double[]){ 0, 1.5 }, G, mean_path(b));
  evaluate(b, 0.75, z2, &f[1], NULL);
  return end_additive(b, 2, (double[]){ 1. / 3, 2. / 3 }, f, G);
}

/* SRA3: z2 = z + f h, z3 = z + (f + f2) h / 4 + (G / 2 + G(t + h)) I10 / h */
static int step_sra3(gq_builder *b) {
  gq_ref z = b->y[0], f[3], G[2];
  additive(b, G);
  evaluate(b, 0, z, &f[0], NULL);
  evaluate(b, 1, moved(b, z, 1, (double[]){ 1 }, f, (double[]){ 0 }, G, b->dw), &f[1], NULL);
  gq_ref z3 = moved(b, z, 2, (double[]){ 0.25, 0.25 }, f, (double[]){ 0.5, 1 }, G, mean_path(b));
  evaluate(b, 0.5, z3, &f[2], NULL);
  return end_additive(b, 3, (double[]){ 1. / 6, 1. / 6, 2. / 3 }, f, G);
}

/* Euler's method from z + G I10 / h */
static int step_sea(gq_builder *b) {
  gq_ref f, G[2];
  additive(b, G);
  evaluate(b, 0, moved(b, b->y[0], 1, (double[]){ 0 }, G, (double[]){ 1 }, G, mean_path(b)), &f, NULL);
  return end_additive(b, 1, (double[]){ 1 }, &f, G);
}

/* f at z + G H; z2 = z + 5/6 f h + G (5/6 W + H) */
static int step_shark(gq_builder *b) {
  gq_ref z = b->y[0], f[2], G[2], H = b->area[0];
  additive(b, G);
  evaluate(b, 0, moved(b, z, 1, (double[]){ 0 }, G, (double[]){ 1 }, G, H), &f[0], NULL);
  gq_ref w = gq_emit2(b->g, GQ_OP_ADD, gq_scale(b->g, b->dw, 5. / 6), H);
  evaluate(b, 5. / 6, moved(b, z, 1, (double[]){ 5. / 6 }, f, (double[]){ 1 }, G, w), &f[1], NULL);
  if (b->k->adaptive) b->err[0] = times(b, weighted(b, 2, (double[]){ -0.6, 0.6 }, f), gq_builder_size(b));
  return end_additive(b, 2, (double[]){ 0.4, 0.6 }, f, G);
}

/* z' = z + f h + G sqrt(h); z + f h + G dW + (G' - G) (dW^2 - h) / (2 sqrt(h)), in Ito calculus */
static int step_milstein_free(gq_builder *b) {
  gq_graph *g = b->g;
  gq_ref z = b->y[0], f, G[2], h = gq_builder_size(b), root = gq_emit1(g, GQ_OP_SQRT, h), W = b->dw;
  value y = start(b);
  evaluate(b, 0, z, &f, &G[0]);
  y.part[0] = moved(b, z, 1, (double[]){ 1 }, &f, (double[]){ 1 }, G, W);
  if (b->s->noise == GQ_ADDITIVE) return end(b, y);
  gq_ref along = gq_expand(g, root, gq_graph_node(g, W)->shape),
         I11 = gq_scale(g, gq_emit2(g, GQ_OP_DIV, gq_emit2(g, GQ_OP_SUB, times(b, W, W), h), root), 0.5);
  evaluate(b, 0, moved(b, z, 1, (double[]){ 1 }, &f, (double[]){ 1 }, G, along), NULL, &G[1]);
  y.part[0] = moved(b, y.part[0], 2, (double[]){ 0, 0 }, G, (double[]){ -1, 1 }, G, I11);
  return end(b, y);
}

/* SRID2, as SRIW2 in the paper, of diagonal and scalar noise: stages u of f, v of G */
static int step_srk(gq_builder *b) {
  if (b->s->noise == GQ_ADDITIVE) return step_additive(b);
  static const double beta[4][4] = { { -1, 1, 2, -2 },
                                     { 4. / 3, -4. / 3, -4. / 3, 5. / 3 },
                                     { 2. / 3, 1. / 3, -2. / 3, -2. / 3 },
                                     { 0, 0, 0, 1 } };
  gq_graph *g = b->g;
  gq_ref z = b->y[0], f[4], G[4], h = gq_builder_size(b), root = gq_emit1(g, GQ_OP_SQRT, h), W = b->dw,
         path = mean_path(b);
  gq_ref square = times(b, W, W);
  /* I11 / sqrt(h), I111 / h */
  gq_ref I11 = gq_scale(g, gq_emit2(g, GQ_OP_DIV, gq_emit2(g, GQ_OP_SUB, square, h), root), 0.5);
  gq_ref I111 = gq_scale(
    g, times(b, W, gq_emit2(g, GQ_OP_SUB, gq_emit2(g, GQ_OP_DIV, square, h), gq_const(g, b->dtype, 3))),
    1. / 6);
  gq_ref along = gq_expand(g, root, gq_graph_node(g, W)->shape);
  evaluate(b, 0, z, &f[0], &G[0]);
  evaluate(b, 1, moved(b, z, 1, (double[]){ 1 }, f, (double[]){ 0 }, G, path), &f[1], NULL);
  evaluate(b, 0.25, moved(b, z, 1, (double[]){ 0.25 }, f, (double[]){ -0.5 }, G, along), NULL, &G[1]);
  evaluate(b, 0.5, moved(b, z, 2, (double[]){ 0.25, 0.25 }, f, (double[]){ 1, 0.5 }, G, path), &f[2], NULL);
  evaluate(b, 1, moved(b, z, 1, (double[]){ 1 }, f, (double[]){ 1 }, G, along), NULL, &G[2]);
  gq_ref v = moved(b, z, 3, (double[]){ 0, 0, 0.25 }, f, (double[]){ 2, -1, 0.5 }, G, along);
  evaluate(b, 0.25, v, NULL, &G[3]);
  value y = start(b);
  y.part[0] = moved(b, z, 3, (double[]){ 1. / 6, 1. / 6, 2. / 3 }, f, (double[]){ 0, 0, 0 }, G, path);
  for (int i = 0; i < 4; i++) {
    gq_ref w = weighted(b, 4, beta[i], (gq_ref[]){ W, I11, path, I111 });
    y.part[0] = gq_emit2(g, GQ_OP_ADD, y.part[0], gq_noise_product(g, b->s->noise, G[i], w));
  }
  return end(b, y);
}

/* The paper's estimate is small by chance in one sample, where H is, and heun's where W is: their sizes together. */
static void error_spark(gq_builder *b, gq_ref y, const gq_ref *f, const gq_ref *G, const double *w) {
  const double e[] = { w[0] - 0.5, w[1], w[2] - 0.5 };
  gq_graph *g = b->g;
  gq_ref zero = gq_zeros(g, b->dtype, gq_graph_node(g, y)->shape);
  gq_ref own = moved(b, zero, 3, e, f, e, G, b->dw);
  own = moved(b, own, 3, (double[]){ 0, 0, 0 }, f, (double[]){ 1, 0, -1 }, G, b->area[0]);
  gq_ref euler = moved(b, b->y[0], 1, (double[]){ 1 }, f, (double[]){ 1 }, G, b->dw);
  b->err[0] = gq_emit2(g, GQ_OP_ADD, gq_emit1(g, GQ_OP_ABS, own),
                       gq_emit1(g, GQ_OP_ABS, gq_emit2(g, GQ_OP_SUB, y, euler)));
}

/* SPaRK: drift and noise by one tableau each; H beside W */
static int step_spark(gq_builder *b) {
  const double x1 = (3 - sqrt(3)) / 6, x2 = sqrt(3) / 3;
  gq_ref z = b->y[0], f[3], G[3], W = b->dw, H = b->area[0];
  gq_ref first = gq_emit2(b->g, GQ_OP_ADD, gq_scale(b->g, W, 0.5), gq_scale(b->g, H, sqrt(3)));
  evaluate(b, 0, z, &f[0], &G[0]);
  evaluate(b, 0.5, moved(b, z, 1, (double[]){ 0.5 }, f, (double[]){ 1 }, G, first), &f[1], &G[1]);
  evaluate(b, 1, moved(b, z, 2, (double[]){ 0, 1 }, f, (double[]){ 0, 1 }, G, W), &f[2], &G[2]);
  value y = start(b);
  const double w[] = { x1, x2, x1 };
  y.part[0] = moved(b, z, 3, w, f, w, G, W);
  y.part[0] = moved(b, y.part[0], 3, (double[]){ 0, 0, 0 }, f, (double[]){ 1, 0, -1 }, G, H);
  if (b->k->adaptive) error_spark(b, y.part[0], f, G, w);
  return end(b, y);
}

/* SLOW-RK: noise from z + f h / 2 by Runge and Kutta's method of order 4; the drift's second stage and dH at the end */
static int step_slowrk(gq_builder *b) {
  gq_ref z = b->y[0], f[2], G[5], W = b->dw, H = b->area[0];
  const double none[5] = { 0 };
  evaluate(b, 0, z, &f[0], NULL);
  gq_ref mid = moved(b, z, 1, (double[]){ 0.5 }, f, none, f, W);
  evaluate(b, 0.5, mid, NULL, &G[0]);
  evaluate(b, 0.5, moved(b, mid, 1, none, G, (double[]){ 0.5 }, G, W), NULL, &G[1]);
  evaluate(b, 0.5, moved(b, mid, 2, none, G, (double[]){ 0, 0.5 }, G, W), NULL, &G[2]);
  evaluate(b, 0.5, moved(b, mid, 3, none, G, (double[]){ 0, 0, 1 }, G, W), NULL, &G[3]);
  gq_ref z6 = moved(b, z, 1, (double[]){ 0.75 }, f, none, f, W);
  z6 = moved(b, z6, 3, none, G, (double[]){ 0, 0, 0.75 }, G, W);
  evaluate(b, 0.75, moved(b, z6, 3, none, G, (double[]){ 0, 0, 1.5 }, G, H), &f[1], NULL);
  gq_ref z7 = moved(b, z, 1, (double[]){ 1 }, f, none, f, W);
  evaluate(b, 1, moved(b, z7, 2, none, G, (double[]){ 0, 0.5 }, G, W), NULL, &G[4]);
  value y = start(b);
  y.part[0] = moved(b, z, 2, (double[]){ 1. / 3, 2. / 3 }, f, none, f, W);
  y.part[0] = moved(b, y.part[0], 4, none, G, (double[]){ 1. / 6, 1. / 3, 1. / 3, 1. / 6 }, G, W);
  y.part[0] = moved(b, y.part[0], 5, none, G, (double[]){ 0, 0, 2, 0, -2 }, G, H);
  return end(b, y);
}

/* z' = z + f h / 2 + G dW / 2; z + f' h + G' dW + sum_ij A_ij (dG_j'/dz) G_i': the log-ODE, by the midpoint rule */
static int step_log_ode(gq_builder *b) {
  gq_ref area;
  value z = start(b);
  fields x = at(b, 0, 0, z);
  value mid = add(b, z, half(b, rise(b, x)));
  fields x1 = at(b, 1, 0.5, mid);
  value y = add(b, z, rise(b, x1));
  if (b->s->levy) {
    GQ_TRY(gq_builder_areas(b, 0.5, mid.part[0], x1.G, &area));
    y.part[0] = gq_emit2(b->g, GQ_OP_ADD, y.part[0], area);
  }
  return end(b, y);
}

/* ---- rows ---- */

/* Strong orders: diagonal (all of z or but the last), scalar, additive, general, commutative noise */
#define STRONG(diagonal, ...) \
  { 0, diagonal, __VA_ARGS__, diagonal }
#define W(...) \
  (const double[]) { __VA_ARGS__ }
/* clang-format off */
/* steps: how a step is made; of: the row of tableaux.def that it is without noise; c, b: stages and the weights by which integrals along are summed */
static const struct {
  gq_scheme scheme;
  const gq_stepclass *steps;
  const char *of;
  int stages, evaluations;
  const double *c, *b;
  const char *name, *source;
} rows[] = {
  { { GQ_STRATONOVICH, false, NULL, false, 1, false, STRONG(1, 1, 1, 0.5, 1), 1, GQ_ADAPTS_NOT, false, false },
    &noise_steps, "reversible_heun", 0, 1, NULL, NULL, "reversible_heun", "Kidger, Foster, Li & Lyons, NeurIPS 2021, Algorithm 1" },
  { { GQ_STRATONOVICH, false, step_heun, true, 1, false, STRONG(1, 1, 1, 0.5, 1), 1, GQ_ADAPTS_COMMUTING, false, false },
    &noise_steps, NULL, 2, 2, W(0, 1), W(0.5, 0.5), "heun", "Rümelin, SIAM J. Numer. Anal. 19 (1982)" },
  { { GQ_STRATONOVICH, false, step_midpoint, true, 1, false, STRONG(1, 1, 1, 0.5, 1), 1, GQ_ADAPTS_COMMUTING, true, false },
    &noise_steps, NULL, 2, 2, W(0, 0.5), W(0, 1), "midpoint", "the explicit midpoint rule with dW beside h; Kloeden & Platen 1992" },
  { { GQ_STRATONOVICH, false, step_euler_heun, false, 1, false, STRONG(1, 1, 1, 0.5, 1), 1, GQ_ADAPTS_COMMUTING, true, false },
    &noise_steps, NULL, 2, 2, W(0, 1), W(0.5, 0.5), "euler_heun", "Gard, Introduction to Stochastic Differential Equations, 1988" },
  { { GQ_ITO, false, step_euler, false, 1, false, STRONG(0.5, 0.5, 1, 0.5, 0.5), 1, GQ_ADAPTS_ADDITIVE, false, false },
    &noise_steps, NULL, 1, 1, W(0), W(1), "euler", "Maruyama, Rend. Circ. Mat. Palermo 4 (1955)" },
  { { GQ_ITO, false, step_theta, false, 1, false, STRONG(0.5, 0.5, 1, 0.5, 0.5), 1, GQ_ADAPTS_NOT, false, false },
    &gq_theta_steps, NULL, 1, 1, W(0), W(1), "theta", "Kloeden & Platen 1992, 12.2: the drift-implicit Euler method; Higham, SIAM J. Numer. Anal. 38 (2000)" },
  { { GQ_STRATONOVICH, true, step_milstein, false, 1, false, STRONG(1, 1, 1, 0, 1), 1, GQ_ADAPTS_COMMUTING, true, false },
    &noise_steps, NULL, 1, 1, W(0), W(1), "milstein", "Milstein 1974; Kloeden & Platen 1992, 10.3" },
  { { GQ_ITO, false, step_milstein_free, false, 1, false, STRONG(1, 1, 1, 0, 0), 1, GQ_ADAPTS_COMMUTING, true, false },
    &noise_steps, NULL, 1, 1, W(0), W(1), "milstein_grad_free", "Kloeden & Platen 1992, 11.1: the explicit order 1.0 strong scheme" },
  { { GQ_STRATONOVICH, false, step_ralston, true, 1, false, STRONG(1, 1, 1, 0.5, 1), 1, GQ_ADAPTS_COMMUTING, false, false },
    &noise_steps, NULL, 2, 2, W(0, 2. / 3), W(0.25, 0.75), "ralston", "Ralston 1962 with dW beside h; Rümelin 1982" },
  { { GQ_ITO, false, step_srk, false, 2, false, STRONG(1.5, 1.5, 1.5, 0, 0), 1.5, GQ_ADAPTS_COMMUTING, true, false },
    &noise_steps, NULL, 1, 1, W(0), W(1), "srk", "Rößler, SIAM J. Numer. Anal. 48 (2010): SRID2; SRA1 for additive noise" },
  { { GQ_STRATONOVICH, false, step_log_ode, false, 2, true, STRONG(1, 1, 1, 0.5, 1), 1, GQ_ADAPTS_COMMUTING, true, false },
    &noise_steps, NULL, 2, 2, W(0, 0.5), W(0, 1), "log_ode", "Foster, Oxford 2020; with the midpoint rule as torchsde's" },
  { { GQ_STRATONOVICH, false, step_spark, false, 2, false, STRONG(1, 1, 1.5, 0.5, 1), 1, GQ_ADAPTS_ALL, false, false },
    &noise_steps, NULL, 1, 1, W(0), W(1), "spark", "Foster 2023, On the convergence of adaptive approximations for SDEs, Definition 1.6" },
  { { GQ_STRATONOVICH, false, step_slowrk, false, 2, false, STRONG(1.5, 1.5, 1.5, 0.5, 1.5), 1.5, GQ_ADAPTS_COMMUTING, true, false },
    &noise_steps, NULL, 1, 1, W(0), W(1), "slowrk", "Foster, dos Reis & Strange 2023, arXiv 2210.17543, (6.2), as in diffrax" },
  { { GQ_STRATONOVICH, true, step_sea, false, 2, false, STRONG(0, 0, 1, 0, 0), 1, GQ_ADAPTS_ADDITIVE, true, false },
    &noise_steps, NULL, 1, 1, W(0), W(1), "sea", "Foster, dos Reis & Strange 2023, arXiv 2210.17543, (5.8), as in diffrax" },
  { { GQ_STRATONOVICH, true, step_shark, false, 2, false, STRONG(0, 0, 1.5, 0, 0), 1.5, GQ_ADAPTS_ADDITIVE, false, false },
    &noise_steps, NULL, 1, 1, W(0), W(1), "shark", "Foster, dos Reis & Strange 2023, arXiv 2210.17543, (6.1), as in diffrax" },
  { { GQ_STRATONOVICH, true, step_sra3, false, 2, false, STRONG(0, 0, 1.5, 0, 0), 1.5, GQ_ADAPTS_ADDITIVE, true, false },
    &noise_steps, NULL, 1, 1, W(0), W(1), "sra3", "Rößler, SIAM J. Numer. Anal. 48 (2010): SRA3" },
  { { GQ_STRATONOVICH, true, gq_langevin_align, false, 2, false, STRONG(0, 0, 2, 0, 0), 2, GQ_ADAPTS_ADDITIVE, true, true },
    &noise_steps, NULL, 1, 1, W(0), W(1), "align", "Foster, Lyons & Oberhauser 2021, arXiv 2101.03446, Definition 4.2, as in diffrax" },
  { { GQ_STRATONOVICH, true, gq_langevin_should, false, 3, false, STRONG(0, 0, 3, 0, 0), 3, GQ_ADAPTS_ADDITIVE, true, true },
    &noise_steps, NULL, 1, 1, W(0), W(1), "should", "Foster, Lyons & Oberhauser 2021, arXiv 2101.03446, Definition 7.1, as in diffrax" },
  { { GQ_STRATONOVICH, true, gq_langevin_quicsort, false, 3, false, STRONG(0, 0, 3, 0, 0), 3, GQ_ADAPTS_ADDITIVE, true, true },
    &noise_steps, NULL, 1, 1, W(0), W(1), "quicsort", "Foster, Lyons & Oberhauser 2021, arXiv 2101.03446, a variant of SORT, as in diffrax" },
};
/* clang-format on */
#undef W
#undef STRONG

enum { NROWS = sizeof rows / sizeof *rows };
const int gq_nschemes = NROWS;
static gq_tableau tables[NROWS];

/* Weights of an error that the step gives itself. */
static const double estimated[GQ_MAXSTAGES] = { 0 };

/* Steps of strong order p differ by h^(p + 1/2), rounded up; embedded estimates are a method of order 1/2's. */
static int error_order(const gq_scheme *s) {
  double strong = 0;
  for (int i = 0; i < GQ_NNOISE; i++) strong = fmax(strong, s->strong[i]);
  return !s->adapts ? 0 : s->halves ? (int)ceil(strong + 0.5) : 1;
}

static void expand_all(void) {
  for (int i = 0; i < NROWS; i++) {
    gq_tableau *m = &tables[i];
    if (rows[i].of) *m = *gq_tableau_find(rows[i].of);
    else
      *m = (gq_tableau){ .kind = "noise",
                         .stages = rows[i].stages,
                         .slopes = rows[i].stages,
                         .end = rows[i].stages,
                         .used = rows[i].evaluations,
                         .c = rows[i].c,
                         .b = rows[i].b };
    m->name = rows[i].name, m->source = rows[i].source;
    m->steps = rows[i].steps, m->scheme = &rows[i].scheme;
    m->e = rows[i].scheme.adapts ? estimated : NULL, m->error_order = error_order(&rows[i].scheme);
  }
}

const gq_tableau *gq_scheme_get(int i) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, expand_all);
  return i >= 0 && i < NROWS ? &tables[i] : NULL;
}

const gq_tableau *gq_scheme_find(const char *name) {
  for (int i = 0; i < NROWS; i++)
    if (!strcmp(rows[i].name, name)) return gq_scheme_get(i);
  return NULL;
}
