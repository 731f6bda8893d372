/*
** tableaux.c -- the rows of tableaux.def as full tables, with their interpolants as polynomials.
*/
#include "explicit.h"
#include "implicit.h"
#include "trail.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#define MAXS 16 /* stages */
#define MAXD 7  /* degree of an interpolant */
enum { HERMITE, MIDPOINT, POLY4, HAIRER };

typedef struct row {
  const char *name;
  int stages, order, error_order, dense_order;
  const double *c, *a, *b, *e, *e3;
  int dense;
  const double *d;
  const char *source;
  const gq_tuple *tuple;
  const gq_multistep *multistep;
  double gamma; /* diagonal of all rows but the first */
} row;

#define C(...) \
  (const double[]) { __VA_ARGS__ }
#define A C
#define B C
#define E C
#define E3 C
#define DENSE(kind, ...) kind, C(__VA_ARGS__)
/* Rows of method/reversible.c. */
#define GQ_RK(...)
#define GQ_IRK(...)
#define GQ_MULTISTEP(...)
#define GQ_TUPLE(name, ...) extern const gq_tuple gq_tuple_##name;
#include "tableaux.def"
#undef GQ_RK
#undef GQ_IRK
#undef GQ_MULTISTEP
#undef GQ_TUPLE
extern const gq_stepclass gq_reversible;

#define GQ_RK(name, s, order, eorder, dorder, c, a, b, e, e3, ...) \
  { #name, s, order, eorder, dorder, c, a, b, e, e3, __VA_ARGS__, NULL, NULL, 0 },
#define GQ_IRK(name, s, order, eorder, dorder, gamma, c, a, b, e, e3, ...) \
  { #name, s, order, eorder, dorder, c, a, b, e, e3, __VA_ARGS__, NULL, NULL, gamma },
#define GQ_TUPLE(name, s, order, eorder, c, b, e, source) \
  { #name, s, order, eorder, 3, c, NULL, b, e, NULL, HERMITE, NULL, source, &gq_tuple_##name, NULL, 0 },
#define GQ_MULTISTEP(id) { .name = #id, .multistep = &gq_multistep_##id },
static const row rows[] = {
#include "tableaux.def"
};
#undef A
#undef B
#undef C
#undef E
#undef E3

enum { NROWS = sizeof rows / sizeof rows[0] };
static double full_a[NROWS][MAXS * MAXS], full_d[NROWS][(MAXS + 1) * MAXD], full_e3[NROWS][MAXS];
static gq_tableau tables[NROWS];
const int gq_ntableaux = NROWS;

/* Index of the stage that is the slope at the end of the step; `stages` if none is. */
static int end_stage(const gq_tableau *m) {
  for (int i = 1; i < m->stages; i++) {
    bool same = m->c[i] == 1;
    for (int j = 0; j < m->stages && same; j++) same = m->a[i * m->stages + j] == m->b[j];
    if (same) return i;
  }
  return m->stages;
}

/* Coefficients of theta^1.. for y(theta) - y0 = h sum_i k_i p_i(theta), from cubic Hermite. */
static void hermite(gq_tableau *m, double *d) {
  m->dense_degree = 3;
  for (int i = 0; i < m->stages; i++) { /* y1 - y0 carries 3 x^2 - 2 x^3 */
    d[i * 3 + 1] += 3 * m->b[i];
    d[i * 3 + 2] -= 2 * m->b[i];
  }
  d[0] += 1, d[1] -= 2, d[2] += 1; /* f0: x - 2 x^2 + x^3 */
  double *f1 = d + m->end * 3;
  f1[1] -= 1, f1[2] += 1; /* f1: -x^2 + x^3 */
}

/* Quartic through y0, y1, f0, f1 and y_mid = y0 + h sum mid_i k_i. */
static void midpoint(gq_tableau *m, const double *mid, double *d) {
  m->dense_degree = 4;
  for (int i = 0; i < m->stages; i++) {
    d[i * 4 + 1] += -5 * m->b[i] + 16 * mid[i];
    d[i * 4 + 2] += 14 * m->b[i] - 32 * mid[i];
    d[i * 4 + 3] += -8 * m->b[i] + 16 * mid[i];
  }
  d[0] += 1, d[1] -= 4, d[2] += 5, d[3] -= 2;
  double *f1 = d + m->end * 4;
  f1[1] += 1, f1[2] -= 3, f1[3] += 2;
}

/* DOP853: y(x) - y0 = x (F0 + (1-x) (F1 + x (F2 + (1-x) (F3 + x (F4 + (1-x) (F5 + x F6)))))) with
** F0 = y1 - y0, F1 = h f0 - F0, F2 = 2 F0 - h (f0 + f1), F3..F6 = h D k. HNW II.6, eq. (6.13). */
static void hairer(gq_tableau *m, const double *rows4, double *d) {
  m->dense_degree = 7;
  double basis[7][8] = { { 0 } }; /* basis[r]: polynomial that multiplies F_r */
  double p[8] = { 0, 1 };         /* x */
  for (int r = 0; r < 7; r++) {
    memcpy(basis[r], p, sizeof p);
    double q[8] = { 0 };
    for (int i = 0; i < 7; i++) { /* times (1 - x) after even r, times x after odd r */
      if (r % 2 == 0) q[i] += p[i];
      q[i + 1] += r % 2 == 0 ? -p[i] : p[i];
    }
    memcpy(p, q, sizeof p);
  }
  for (int i = 0; i < m->stages; i++) {
    double f[7] = { m->b[i], (i == 0) - m->b[i], 2 * m->b[i] - (i == 0) - (i == m->end) };
    for (int r = 0; r < 4; r++) f[3 + r] = rows4[r * m->stages + i];
    for (int j = 0; j < 7; j++)
      for (int r = 0; r < 7; r++) d[i * 7 + j] += f[r] * basis[r][j + 1];
  }
}

static void expand(const row *r, gq_tableau *m, double *a, double *d, double *e3) {
  int s = r->stages, k = 0;
  if (r->multistep) {
    *m = *r->multistep->of_order(GQ_ADAMS_FIXED);
    return;
  }
  for (int i = 1; r->a && i < s; i++)
    for (int j = 0; j < i; j++) a[i * s + j] = r->a[k++];
  for (int i = 1; i < s; i++) a[i * s + i] = r->gamma;
  *m = (gq_tableau){ .name = r->name,
                     .kind = !r->tuple          ? "runge-kutta"
                             : r->tuple->halves ? "symplectic"
                                                : "reversible",
                     .steps = r->tuple        ? &gq_reversible
                              : r->gamma != 0 ? &gq_implicit_steps
                                              : &gq_explicit,
                     .tuple = r->tuple,
                     .stages = s,
                     .order = r->order,
                     .first_order = r->order,
                     .error_order = r->error_order,
                     .dense_order = r->dense_order,
                     .c = r->c,
                     .a = a,
                     .b = r->b,
                     .d = d,
                     .source = r->source };
  m->e = r->error_order ? r->e : NULL;
  m->end = r->a ? end_stage(m) : r->c[s - 1] == 1 ? s - 1 : s;
  m->slopes = m->end == s ? s + 1 : s;
  m->used = m->end == s ? s : m->end; /* stages of a step without its interpolant */
  if (r->dense == HERMITE) hermite(m, d);
  else if (r->dense == MIDPOINT) midpoint(m, r->d, d);
  else if (r->dense == HAIRER) hairer(m, r->d, d);
  else m->dense_degree = 4, m->d = r->d;
  if (r->dense == HAIRER) { /* E3: b less three other weights, at stages 1, 9, 12 */
    for (int i = 0; i < s; i++) e3[i] = r->b[i];
    e3[0] -= r->e3[0], e3[8] -= r->e3[1], e3[11] -= r->e3[2];
    m->e3 = e3;
  }
}

static void expand_all(void) {
  for (int i = 0; i < NROWS; i++) expand(&rows[i], &tables[i], full_a[i], full_d[i], full_e3[i]);
}

const gq_tableau *gq_tableau_get(int i) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, expand_all);
  return i >= 0 && i < NROWS ? &tables[i] : NULL;
}

const gq_tableau *gq_tableau_find(const char *name) {
  for (int i = 0; i < NROWS; i++)
    if (!strcmp(gq_tableau_get(i)->name, name)) return &tables[i];
  return NULL;
}

double gq_tableau_reach(const gq_tableau *m) {
  double reach = 1;
  for (int i = 0; i < m->stages; i++) reach = fmax(reach, m->c[i]);
  return reach;
}

bool gq_tableau_fsal(const gq_tableau *m) { return m->end < m->stages; }

void gq_tableau_weights(const gq_tableau *m, double theta, double *w) {
  for (int i = 0; i < m->slopes; i++)
    w[i] = gq_trail_weight(m->d + (size_t)i * m->dense_degree, m->dense_degree, theta);
}

void gq_tableau_slopes(const gq_tableau *m, double theta, double *w) {
  for (int i = 0; i < m->slopes; i++) {
    double p = 0;
    for (int j = m->dense_degree - 1; j >= 0; j--) p = p * theta + (j + 1) * m->d[i * m->dense_degree + j];
    w[i] = p;
  }
}
