/*
** queue.c -- sums, copies and fills of vectors, which solvers ask for one by one, wait here until anything else is done on
** the device (gq_cuda_enter): those that touch none of each other's numbers are one launch.
*/
#include "cuda.h"

#include <string.h>

/* Numbers at p, and `step` bytes on for each further part. */
typedef struct place {
  gq_u64 p;
  int64_t step;
} place;

/* n numbers of each part: to = what it begins with, and terms added one after the other. As kernels.h has it. */
typedef enum begin { FROM, START, FIRST } begin; /* `from`; `start`; the first term */
typedef struct entry {
  int64_t n, parts, terms, size, begin; /* size: of a number */
  double start, scale;                  /* scale: of all of it, at last */
  place to, from;
} entry;
typedef struct term {
  double s;
  place x;
} term;

enum { ROOM = 4000 };
static struct queue { /* the arguments of the launch */
  int64_t entries;
  _Alignas(8) char room[ROOM];
} queue;
static size_t used;
static int64_t numbers;

static term *terms_of(const entry *e) { return (term *)(uintptr_t)(e + 1); }
static size_t bytes_of(const entry *e) { return sizeof *e + (size_t)e->terms * sizeof(term); }
static entry *first(void) { return (entry *)(void *)queue.room; }
static entry *after(entry *e) { return (entry *)(void *)((char *)e + bytes_of(e)); }

static int launch(void) {
  static gq_cufunction f;
  if (!f) {
    gq_text t = { 0 };
    gq_cuda_text(&t, GQ_NT);
    gq_cuda_sections(&t, (const char *[]){ "queue", NULL });
    GQ_TRY(gq_cuda_make(&t, "queue", &f));
  }
  return gq_cuda_launch(f, gq_cuda_blocks(numbers), &queue);
}

/* What cannot be launched goes on waiting: who asks the device for anything else is told, and nothing is left out. */
static int settle(void) {
  gq_cuda_before = NULL; /* the launch asks, too */
  int status = launch();
  if (status == GQ_OK) queue.entries = 0, used = 0, numbers = 0;
  else gq_cuda_before = settle;
  return status;
}

/* ---- what may wait together ---- */

static gq_u64 end_of(const entry *e, place x) {
  return x.p + (gq_u64)((e->parts - 1) * x.step) + (gq_u64)(e->n * e->size);
}

/* Do parts of two places meet? Those at the same steps may lie between each other. */
static bool meet(const entry *e, place x, const entry *f, place y) {
  if (!x.p || !y.p || end_of(e, x) <= y.p || end_of(f, y) <= x.p) return false;
  if (x.p > y.p) return meet(f, y, e, x);
  gq_u64 step = (gq_u64)x.step, apart = step ? (y.p - x.p) % step : 0;
  return x.step != y.step || apart < (gq_u64)(e->n * e->size) || apart + (gq_u64)(f->n * f->size) > step;
}

static bool terms_meet(const entry *e, const entry *f, place y) {
  for (int i = 0; i < e->terms; i++)
    if (meet(e, terms_of(e)[i].x, f, y)) return true;
  return false;
}

static bool reads(const entry *e, const entry *f) {
  return meet(e, e->from, f, f->to) || terms_meet(e, f, f->to);
}

/* ---- what becomes of one that comes ---- */

/* Nothing of those that wait is its; more terms of one, or a factor of it; in its place; after all of them. */
typedef enum fate { APART, MORE, SCALES, INSTEAD, AFTER } fate;

static bool same(place x, place y) { return x.p == y.p && x.step == y.step; }

static fate fate_by(const entry *e, const entry *q) {
  bool whole = same(e->to, q->to) && e->n == q->n && e->parts == q->parts && e->size == q->size;
  if (!meet(e, e->to, q, q->to) && !reads(e, q) && !reads(q, e)) return APART;
  if (!whole) return AFTER;
  if (!reads(e, q)) return INSTEAD;
  if (q->scale != 1) return AFTER;
  if (e->begin == FROM) return same(e->from, q->to) && !terms_meet(e, q, q->to) ? MORE : AFTER;
  return e->terms == 1 && same(terms_of(e)->x, q->to) ? SCALES : AFTER;
}

static fate fate_of(const entry *e, entry **with) {
  fate all = APART;
  entry *q = first();
  for (int64_t i = 0; i < queue.entries; i++, q = after(q)) {
    fate one = fate_by(e, q);
    if (one == AFTER || (one != APART && all != APART)) return AFTER;
    if (one != APART) all = one, *with = q;
  }
  return all;
}

static void cut(char *at, size_t bytes) {
  used -= bytes;
  memmove(at, at + bytes, used - (size_t)(at - queue.room));
}

static void insert(char *at, const void *what, size_t bytes) {
  memmove(at + bytes, at, used - (size_t)(at - queue.room));
  memcpy(at, what, bytes);
  used += bytes;
}

enum { MOST = 2 * GQ_TERMS };
typedef struct sum {
  entry e;
  term t[MOST];
} sum;

/* A copy of some of what waits is made as that is. */
static void forward(sum *x) {
  entry *q = first();
  const entry e = x->e;
  for (int64_t i = 0; i < queue.entries && e.begin == FROM && !e.terms; i++, q = after(q)) {
    if (e.from.p < q->to.p || end_of(&e, e.from) > end_of(q, q->to) || q->parts > 1 || q->size != e.size ||
        q->terms > MOST)
      continue;
    gq_u64 on = e.from.p - q->to.p;
    x->e.terms = q->terms, x->e.begin = q->begin, x->e.start = q->start, x->e.scale = q->scale;
    x->e.from = (place){ q->from.p ? q->from.p + on : 0, q->from.p ? e.from.step : 0 };
    for (int k = 0; k < q->terms; k++)
      x->t[k] = (term){ terms_of(q)[k].s, { terms_of(q)[k].x.p + on, e.from.step } };
    return;
  }
}

static int add(const sum *given) {
  sum x = *given;
  entry *with = NULL;
  if (x.e.begin == FROM && !x.e.terms && same(x.e.from, x.e.to)) return GQ_OK; /* itself */
  forward(&x);
  fate what = fate_of(&x.e, &with);
  if (what == SCALES) {
    with->scale = x.t[0].s;
    return GQ_OK;
  }
  if (what == AFTER || used + bytes_of(&x.e) > ROOM) {
    if (queue.entries) GQ_TRY(settle());
    x = *given, what = APART;
  }
  size_t bytes = bytes_of(&x.e);
  if (what == MORE) {
    insert((char *)after(with), x.t, bytes - sizeof x.e);
    with->terms += x.e.terms;
    return GQ_OK;
  }
  if (what == INSTEAD) {
    queue.entries--, numbers -= with->n * with->parts;
    cut((char *)with, bytes_of(with));
  }
  insert(queue.room + used, &x, bytes);
  queue.entries++, numbers += x.e.n * x.e.parts;
  gq_cuda_before = settle;
  return GQ_OK;
}

/* ---- what asks ---- */

/* Parts from p on that are as long as it and as far from each other as the next from it. */
static int alike(int parts, const size_t *n, int columns, void *const *at) {
  int count = 1;
  for (; count < parts && n[count] == n[0]; count++)
    for (int c = 0; c < columns; c++) {
      gq_u64 here = gq_far(at[count * columns + c]), step = gq_far(at[columns + c]) - gq_far(at[c]);
      if ((int64_t)step < 0 || here - gq_far(at[(count - 1) * columns + c]) != step) return count;
    }
  return count;
}

int gq_cuda_combine(gq_dtype d, int parts, const size_t *n, int k, const double *s, void *const *at) {
  int columns = k + 2, count;
  for (; parts > 0; parts -= count, n += count, at += count * columns) {
    int terms = 0;
    place to[GQ_TERMS + 2];
    sum x;
    count = alike(parts, n, columns, at);
    for (int c = 0; c < columns; c++)
      to[c] = (place){ gq_far(at[c]), count > 1 ? (int64_t)(gq_far(at[columns + c]) - gq_far(at[c])) : 0 };
    for (int i = 0; i < k; i++)
      if (s[i] != 0) x.t[terms++] = (term){ s[i], to[2 + i] };
    x.e = (entry){ .n = (int64_t)n[0],
                   .parts = count,
                   .terms = terms,
                   .size = (int64_t)gq_dtype_size(d),
                   .begin = at[1]   ? FROM
                            : terms ? FIRST
                                    : START,
                   .scale = 1,
                   .to = to[0],
                   .from = to[1] };
    if (n[0]) GQ_TRY(add(&x));
  }
  return GQ_OK;
}

int gq_cuda_fill(gq_dtype d, size_t n, double value, void *to) {
  sum x = { .e = { .n = (int64_t)n,
                   .parts = 1,
                   .size = (int64_t)gq_dtype_size(d),
                   .begin = START,
                   .start = value,
                   .scale = 1,
                   .to = { gq_far(to), 0 } } };
  return n ? add(&x) : GQ_OK;
}
