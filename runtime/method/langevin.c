/*
** langevin.c -- steps for underdamped Langevin SDEs, dx = v dt, dv = -gamma v dt + F(x) dt + rho dW, z = [x, v] in its last
** dimension: ALIGN, ShOULD and QUICSORT, as in diffrax's align.py, should.py and quicsort.py (Foster, Lyons & Oberhauser,
** The shifted ODE method for underdamped Langevin MCMC, arXiv 2101.03446). What is evaluated is no drift: it gives
** [gamma, F(x)], and G {2 d, d} has rho in its lower half.
*/
#include "builder.h"

#include <math.h>

typedef struct state {
  gq_ref x, v;
} state;

/* ---- pieces ---- */

static gq_ref plus(gq_builder *b, gq_ref x, gq_ref y) { return gq_emit2(b->g, GQ_OP_ADD, x, y); }
static gq_ref less(gq_builder *b, gq_ref x, gq_ref y) { return gq_emit2(b->g, GQ_OP_SUB, x, y); }
static gq_ref times(gq_builder *b, gq_ref x, gq_ref y) { return gq_emit2(b->g, GQ_OP_MUL, x, y); }
static gq_ref scale(gq_builder *b, gq_ref x, double s) { return gq_scale(b->g, x, s); }

/* x + y z */
static gq_ref madd(gq_builder *b, gq_ref x, gq_ref y, gq_ref z) { return plus(b, x, times(b, y, z)); }

static gq_ref half(gq_builder *b, gq_ref y, int which) {
  gq_shape s = gq_graph_node(b->g, y)->shape;
  int64_t n = s.dim[s.ndim - 1] / 2;
  return gq_slice(b->g, y, s.ndim - 1, which * n, n);
}

static gq_ref join(gq_builder *b, state s) {
  return gq_cat(b->g, 2, (gq_ref[]){ s.x, s.v }, gq_graph_node(b->g, s.x)->shape.ndim - 1);
}

/* ---- functions of a = gamma h: a series where the closed form cancels ---- */

typedef struct entire {
  double (*term)(int k);                                   /* of a^k */
  gq_ref (*closed)(gq_builder *b, gq_ref a, gq_ref decay); /* decay: exp(-a) */
} entire;

enum { TERMS = 16 };
static const double NEAR = 1;

static double sign(int k) { return k % 2 ? -1 : 1; }
static double term_first(int k) { return sign(k) / tgamma(k + 2); }
static double term_second(int k) { return sign(k) / tgamma(k + 3); }
static double term_area(int k) { return 6 * sign(k) * (k + 1) / tgamma(k + 4); }
static double term_area_too(int k) { return 60 * sign(k) * (k + 1) * k / tgamma(k + 5); }

static gq_ref number(gq_builder *b, double x) { return gq_const(b->g, b->dtype, x); }
static gq_ref quotient(gq_builder *b, gq_ref x, gq_ref y) { return gq_emit2(b->g, GQ_OP_DIV, x, y); }

/* (1 - e) / a */
static gq_ref closed_first(gq_builder *b, gq_ref a, gq_ref e) {
  return quotient(b, less(b, number(b, 1), e), a);
}
/* (e + a - 1) / a^2 */
static gq_ref closed_second(gq_builder *b, gq_ref a, gq_ref e) {
  return quotient(b, less(b, plus(b, e, a), number(b, 1)), times(b, a, a));
}
/* 6 (e (a + 2) + a - 2) / a^3 */
static gq_ref closed_area(gq_builder *b, gq_ref a, gq_ref e) {
  gq_ref two = number(b, 2), s = plus(b, times(b, e, plus(b, a, two)), less(b, a, two));
  return scale(b, quotient(b, s, times(b, a, times(b, a, a))), 6);
}
/* 60 (e (a (a + 6) + 12) - a (a - 6) - 12) / a^4 */
static gq_ref closed_area_too(gq_builder *b, gq_ref a, gq_ref e) {
  gq_ref six = number(b, 6), twelve = number(b, 12), square = times(b, a, a);
  gq_ref s = times(b, e, plus(b, times(b, a, plus(b, a, six)), twelve));
  s = less(b, less(b, s, times(b, a, less(b, a, six))), twelve);
  return scale(b, quotient(b, s, times(b, square, square)), 60);
}

static const entire first = { term_first, closed_first }, second = { term_second, closed_second },
                    area = { term_area, closed_area }, area_too = { term_area_too, closed_area_too };

static gq_ref decay(gq_builder *b, gq_ref a) {
  return gq_emit1(b->g, GQ_OP_EXP, gq_emit1(b->g, GQ_OP_NEG, a));
}

static gq_ref value(gq_builder *b, const entire *f, gq_ref a) {
  gq_ref near = gq_emit2(b->g, GQ_OP_LT, a, number(b, NEAR)), sum = number(b, f->term(TERMS - 1));
  for (int k = TERMS - 2; k >= 0; k--) sum = plus(b, times(b, sum, a), number(b, f->term(k)));
  gq_ref far = gq_where(b->g, near, number(b, NEAR), a);
  return gq_where(b->g, near, sum, f->closed(b, far, decay(b, far)));
}

/* ---- what a step is made of ---- */

typedef struct langevin {
  gq_builder *b;
  state z;
  gq_ref h, gamma, a, G, F; /* F at z */
  gq_ref W, H, K;           /* rho W, rho H, rho K */
} langevin;

/* F(x) at t + c h */
static gq_ref force(langevin *l, double c, gq_ref x, gq_ref *gamma_, gq_ref *G_) {
  gq_builder *b = l->b;
  gq_ref out[2], z = join(b, (state){ x, l->z.v });
  gq_builder_system(b, 0, c, &z, out);
  if (gamma_) *gamma_ = half(b, out[0], 0);
  if (G_) *G_ = out[1];
  return half(b, out[0], 1);
}

static gq_ref noise(langevin *l, gq_ref w) {
  gq_builder *b = l->b;
  return half(b, gq_noise_product(b->g, b->s->noise, l->G, w), 1);
}

static langevin begin(gq_builder *b) {
  langevin l = { .b = b, .z = { half(b, b->y[0], 0), half(b, b->y[0], 1) } };
  l.h = gq_builder_size(b);
  l.F = force(&l, 0, l.z.x, &l.gamma, &l.G);
  l.a = times(b, l.gamma, l.h);
  l.W = noise(&l, b->dw), l.H = noise(&l, b->area[0]);
  l.K = b->s->moments > 2 ? noise(&l, b->area[1]) : GQ_NONE;
  return l;
}

static int end(langevin *l, gq_ref x, gq_ref v) {
  l->b->y1[0] = join(l->b, (state){ x, v });
  return gq_graph_status(l->b->g);
}

/* exp(-s a), (1 - exp(-s a)) / gamma, (exp(-s a) + s a - 1) / (gamma^2 h), h area(a), h area_too(a) */
static gq_ref kept(langevin *l, double s) { return decay(l->b, scale(l->b, l->a, s)); }
static gq_ref once(langevin *l, double s) {
  return times(l->b, scale(l->b, l->h, s), value(l->b, &first, scale(l->b, l->a, s)));
}
static gq_ref twice(langevin *l, double s) {
  return times(l->b, scale(l->b, l->h, s * s), value(l->b, &second, scale(l->b, l->a, s)));
}
static gq_ref by_area(langevin *l, const entire *f) { return times(l->b, l->h, value(l->b, f, l->a)); }

/* ---- methods ---- */

int gq_langevin_align(gq_builder *b) {
  langevin l = begin(b);
  gq_ref b1 = twice(&l, 1), a1 = once(&l, 1), areas = times(b, by_area(&l, &area), l.H);
  gq_ref x = madd(b, l.z.x, a1, l.z.v);
  x = madd(b, x, b1, madd(b, l.W, l.h, l.F));
  x = plus(b, x, areas);
  gq_ref F1 = force(&l, 1, x, NULL, NULL);
  gq_ref v = times(b, kept(&l, 1), l.z.v);
  v = plus(b, v, plus(b, times(b, less(b, a1, b1), l.F), times(b, b1, F1)));
  v = madd(b, v, value(b, &first, l.a), l.W);
  return end(&l, x, less(b, v, times(b, l.gamma, areas)));
}

/* W - 12 K, and v + H + 6 K */
static gq_ref shifted(langevin *l, gq_ref *v) {
  *v = plus(l->b, l->z.v, plus(l->b, l->H, scale(l->b, l->K, 6)));
  return less(l->b, l->W, scale(l->b, l->K, 12));
}

int gq_langevin_should(gq_builder *b) {
  langevin l = begin(b);
  gq_ref v1, w = shifted(&l, &v1), b1 = twice(&l, 1), keep = kept(&l, 1);
  gq_ref areas = plus(b, times(b, by_area(&l, &area), l.H), times(b, by_area(&l, &area_too), l.K));
  gq_ref x1 = madd(b, l.z.x, once(&l, 0.5), v1);
  x1 = madd(b, x1, twice(&l, 0.5), madd(b, w, l.h, l.F));
  gq_ref F1 = force(&l, 0.5, x1, NULL, NULL);
  gq_ref mean = plus(b, scale(b, l.F, 1. / 3), scale(b, F1, 2. / 3));
  gq_ref x = madd(b, l.z.x, once(&l, 1), l.z.v);
  x = plus(b, madd(b, x, b1, madd(b, l.W, l.h, mean)), areas);
  gq_ref F2 = force(&l, 1, x, NULL, NULL);
  gq_ref pull = plus(b, scale(b, times(b, keep, l.F), 1. / 6), scale(b, times(b, kept(&l, 0.5), F1), 2. / 3));
  pull = plus(b, pull, scale(b, F2, 1. / 6));
  gq_ref v = madd(b, madd(b, times(b, keep, l.z.v), l.h, pull), value(b, &first, l.a), l.W);
  return end(&l, x, less(b, v, times(b, l.gamma, areas)));
}

int gq_langevin_quicsort(gq_builder *b) {
  const double left = 0.5 - sqrt(3) / 6, right = 0.5 + sqrt(3) / 6;
  int calls = b->calls;
  langevin l = begin(b);
  b->calls = calls; /* F at the start is not needed */
  gq_ref v, w = shifted(&l, &v), al = once(&l, left), ar = once(&l, right);
  gq_ref x1 = madd(b, madd(b, l.z.x, al, v), twice(&l, left), w);
  gq_ref F1 = times(b, l.h, force(&l, left, x1, NULL, NULL));
  gq_ref x2 = madd(b, madd(b, l.z.x, ar, v), twice(&l, right), w);
  gq_ref F2 = times(b, l.h, force(&l, right, madd(b, x2, once(&l, 1. / 3), F1), NULL, NULL));
  gq_ref x = madd(b, madd(b, l.z.x, once(&l, 1), v), twice(&l, 1), w);
  x = plus(b, x, scale(b, plus(b, times(b, ar, F1), times(b, al, F2)), 0.5));
  gq_ref pull = plus(b, times(b, kept(&l, right), F1), times(b, kept(&l, left), F2));
  gq_ref v1 = madd(b, plus(b, times(b, kept(&l, 1), v), scale(b, pull, 0.5)), value(b, &first, l.a), w);
  return end(&l, x, less(b, v1, less(b, l.H, scale(b, l.K, 6))));
}
