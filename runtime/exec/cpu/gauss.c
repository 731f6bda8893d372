/*
** gauss.c -- the transpose of a Gauss method for rows side by side (vec.h): GQ_LANES systems at a time.
*/
#include "cpu.h"

/* GQ_LANES rows of a slice, `many` of them there. */
typedef double lanes[GQ_LANES];
#define LANES for (int l = 0; l < GQ_LANES; l++)

typedef struct job {
  gq_dtype dtype;
  const gq_gauss *g;
  int bad[];
} job;

typedef struct rows {
  gq_dtype dtype;
  const gq_gauss_rows *of;
  int many;
  int64_t node, single;               /* where the element's first node, and the state, begin */
  int64_t whole;                      /* numbers in an array over the nodes */
  lanes *jacobian, *v, *a, *g, *room; /* [n][dim][dim], [n][dim], [dim], one, for collocate */
} rows;

static void load(const rows *r, const void *x, int64_t at, int64_t stride, double *to) {
  if (r->dtype == GQ_F32)
    for (int l = 0; l < r->many; l++) to[l] = (double)((const float *)x)[at + l * stride];
  else
    for (int l = 0; l < r->many; l++) to[l] = ((const double *)x)[at + l * stride];
  for (int l = r->many; l < GQ_LANES; l++) to[l] = 0;
}

static void store(const rows *r, void *x, int64_t at, int64_t stride, const double *from) {
  if (r->dtype == GQ_F32)
    for (int l = 0; l < r->many; l++) ((float *)x)[at + l * stride] = (float)from[l];
  else
    for (int l = 0; l < r->many; l++) ((double *)x)[at + l * stride] = from[l];
}

static rows rows_at(const job *j, int part, int e, int64_t row) {
  const gq_gauss *g = j->g;
  const gq_gauss_rows *of = &g->part[part];
  int size = g->n * g->dim;
  int64_t rest = of->rows - row;
  rows r = { .dtype = j->dtype, .of = of, .many = (int)(rest < GQ_LANES ? rest : GQ_LANES) };
  r.node = (int64_t)e * g->n * of->node + row * of->row;
  r.single = of->first + row * of->state_row;
  r.whole = of->rows * g->dim * g->count * g->n;
  r.jacobian = (lanes *)(void *)((char *)g->room + part * gq_gauss_room(g->n, g->dim));
  r.v = r.jacobian + size * g->dim, r.a = r.v + size, r.g = r.a + g->dim, r.room = r.g + 1;
  return r;
}

/* J at the nodes, a, and the right-hand side in v; the element's g begin at number k. */
static void load_rows(const gq_gauss *g, const gq_gauss_element *el, int64_t k, const rows *r) {
  const gq_gauss_rows *of = r->of;
  int n = g->n, dim = g->dim;
  for (int q = 0; q < n; q++)
    for (int i = 0; i < dim; i++)
      for (int c = 0; c < dim; c++)
        load(r, of->jacobian, i * r->whole + r->node + q * of->node + c * of->number, of->row,
             r->jacobian[(q * dim + i) * dim + c]);
  for (int c = 0; c < dim; c++) {
    load(r, g->a, r->single + c * of->state_number, of->state_row, r->a[c]);
    for (int q = 0; q < n; q++) LANES r->v[q * dim + c][l] = el->h * g->end[q] * r->a[c][l];
  }
  for (int64_t i = k; i < k + el->jumps; i++)
    for (int c = 0; c < dim; c++) {
      const double *weight = g->weight - i * n;
      load(r, (const char *)g->g - i * (int64_t)g->apart, r->single + c * of->state_number, of->state_row,
           *r->g);
      LANES r->a[c][l] += (*r->g)[l];
      for (int q = 0; q < n; q++) LANES r->v[q * dim + c][l] += el->h * weight[q] * (*r->g)[l];
    }
}

/* v at the nodes of element e, and a from its end to its start: is that finite? */
static bool solve_rows(const gq_gauss *g, int e, int64_t k, const rows *r) {
  const gq_gauss_element *el = &g->element[e];
  const gq_gauss_rows *of = r->of;
  int n = g->n, dim = g->dim;
  double inner[n * n], sum = 0;
  for (int i = 0; i < n * n; i++) inner[i] = el->h * g->inner[i];
  load_rows(g, el, k, r);
  gq_cpu()->collocate(n, dim, inner, (double *)r->jacobian, (double *)r->room, (double *)r->v,
                      (double *)r->a);
  for (int c = 0; c < dim; c++) {
    LANES sum += 0 * r->a[c][l];
    store(r, g->a, r->single + c * of->state_number, of->state_row, r->a[c]);
    for (int q = 0; q < n; q++)
      store(r, of->v, r->node + q * of->node + c * of->number, of->row, r->v[q * dim + c]);
  }
  return sum == 0;
}

static void solve_part(void *context, int part) {
  job *j = context;
  const gq_gauss *g = j->g;
  int *bad = &j->bad[part];
  *bad = g->count;
  for (int64_t e = 0, k = 0; e < g->count && *bad == g->count; k += g->element[e++].jumps)
    for (int64_t row = 0; row < g->part[part].rows; row += GQ_LANES) {
      rows r = rows_at(j, part, (int)e, row);
      if (!solve_rows(g, (int)e, k, &r)) *bad = (int)e;
    }
}

int gq_cpu_gauss(gq_dtype d, const gq_gauss *g, int *bad) {
  _Alignas(8) char room[sizeof(job) + g->parts * sizeof(int)];
  job *j = (job *)(void *)room;
  *j = (job){ d, g };
  gq_parallel(g->parts, solve_part, j);
  *bad = g->count;
  for (int i = 0; i < g->parts; i++)
    if (j->bad[i] < *bad) *bad = j->bad[i];
  return GQ_OK;
}
