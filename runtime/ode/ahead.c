/*
** ahead.c -- attempts that a device has made beyond what the solve's loop has seen of them (backend.advance): it takes
** them over one by one, as if it had made each itself.
*/
#include "walk.h"

#include "../method/loop.h"
#include "ode.h"

#include <math.h>
#include <string.h>

enum { MOST = GQ_LOOP_ATTEMPTS, ROOM = 256 << 20 /* bytes that steps ahead may take */ };

struct gq_ahead {
  int most;            /* steps at once */
  int taken, accepted; /* attempts that were taken over, and steps among them */
  int at;              /* where in the ring the next step ends */
  int given;           /* arrays of what is given at a step's times, each once */
  size_t part, slice;  /* bytes of a state's part; of a slice's arena */
  char *ring,
    *arenas;    /* [most + 1] states, [most][nslices] arenas: where the caller has no places of its own */
  void **arena; /* [most][nslices] */
  void *move[GQ_STEPJOB_STATES][MOST + 1], *path[MOST];
  bool made;          /* is the present step one of its own? */
  int first, nbehind; /* steps without their products: the first of them, and how many */
  gq_behind behind[MOST];
  gq_dtype *dtype; /* [nq] of products */
  gq_loop loop;
};

static int states(const gq_walk *w) { return 2 * w->a.st->l.parts; }

/* Slopes of one time read one array. */
static int times(const gq_tableau *m) {
  int n = 0;
  for (int i = 0; i < m->slopes; i++) n += gq_tableau_twin(m, i) == i;
  return n;
}

/* Parts of the ring that a step takes: its end, and what is given on the way there. */
static int whole(const gq_walk *w) { return states(w) + w->ahead->given; }

void gq_ahead_done(gq_walk *w) {
  if (!w->ahead) return;
  gq_release(w->a.field->on, w->ahead->ring);
  gq_release(w->a.field->on, w->ahead->arenas);
  gq_free(w->ahead->arena);
  gq_free(w->ahead->dtype);
  gq_free(w->ahead);
  w->ahead = NULL;
}

size_t gq_ahead_bytes(const gq_walk *w) {
  const gq_ahead *x = w->ahead;
  if (!x) return 0;
  return (x->ring ? (x->most + 1) * whole(w) * x->part : 0) +
         (x->arenas ? x->most * w->a.field->nslices * x->slice : 0);
}

/* With the memory that it needs. */
static int ahead_new(gq_walk *w) {
  const gq_field *f = w->a.field;
  int given = times(w->a.st->m) * w->a.st->l.given;
  size_t part = gq_round64(gq_part_bytes(f)), slice = gq_round64(gq_code_lasting(&w->a.st->code)) + 64;
  size_t each = (states(w) + given) * part + f->nslices * slice;
  int most = each > ROOM / 2 ? 1 : each * MOST > ROOM ? (int)(ROOM / each) : MOST;
  gq_ahead *x = w->ahead = gq_calloc(1, sizeof *x);
  if (!x) return gq_nomem(sizeof *x);
  x->most = most, x->given = given, x->part = part, x->slice = slice;
  x->arena = gq_calloc((size_t)most * f->nslices, sizeof *x->arena);
  x->dtype = gq_calloc((size_t)w->a.st->l.nq + 1, sizeof *x->dtype);
  if (!x->dtype) return gq_nomem(w->a.st->l.nq);
  for (int r = 0; r < w->a.st->l.nq; r++)
    x->dtype[r] = w->a.st->of[r] < 0 ? f->dtype : gq_field_boundary_dtype(f, w->a.st->of[r]);
  x->ring = w->place ? NULL : gq_allocate(f->on, (most + 1) * whole(w) * part);
  return x->arena && (x->ring || w->place) ? GQ_OK : gq_nomem(each);
}

/* Where the step after i more ends, and what it leaves. */
static int place(gq_walk *w, int i) {
  gq_ahead *x = w->ahead;
  const gq_field *f = w->a.field;
  int parts = w->a.st->l.parts;
  void **arena = NULL;
  if (w->place) GQ_TRY(w->place(w, i, &x->move[0][i + 1], &x->move[parts][i + 1], &arena));
  char *slot = x->ring ? x->ring + (size_t)((x->at + i) % (x->most + 1)) * whole(w) * x->part : NULL;
  for (int k = 0; slot && k < states(w); k++) x->move[k][i + 1] = slot + k * x->part;
  x->path[i] = slot ? slot + states(w) * x->part : NULL;
  if (!arena && !x->arenas && !(x->arenas = gq_allocate(f->on, x->most * f->nslices * x->slice)))
    return gq_nomem(x->most * f->nslices * x->slice);
  for (int s = 0; s < f->nslices; s++)
    x->arena[i * f->nslices + s] = arena ? arena[s] : x->arenas + (i * f->nslices + s) * x->slice;
  return GQ_OK;
}

/* As many attempts as steps of this size need to the stop, where a third is refused: those that come after the stop
** would be launches for nothing. */
static int likely(const gq_walk *w) {
  double n = ceil(fabs(w->c.stop - w->a.t) / fabs(w->c.h));
  return n < MOST ? (int)n + (int)n / 2 + 1 : MOST;
}

static void set_loop(const gq_walk *w, gq_loop *p, int attempts) {
  const gq_attempt *a = &w->a;
  double dir = w->c.stop < a->t ? -1 : 1;
  *p = (gq_loop){ .c = w->c,
                  .k = *w->controller,
                  .t = a->t,
                  .rtol = a->tol.rtol,
                  .start = a->t,
                  .begin = gq_attempt_begin(a, a->t, dir),
                  .end = gq_attempt_begin(a, w->c.stop, -dir),
                  .limit = gq_attempt_limit(a, a->t, dir),
                  .count = (double)gq_numel(a->field->shape),
                  .order = a->st->m->error_order,
                  .parts = a->st->l.parts,
                  .third = a->st->l.err3 >= 0,
                  .most = a->tol.max_norm,
                  .attempts = attempts,
                  .steps = w->ahead->most,
                  .blocks = (unsigned)a->field->nslices };
  memcpy(p->atol, a->tol.atol, sizeof p->atol);
  if (a->st->l.given) w->trail(w, &p->trail);
  p->trail.part = w->ahead->part;
  gq_loop_propose(p);
}

/* Where step i ends, and what it leaves. */
static void bind_step(gq_walk *w, int step) {
  const gq_ahead *x = w->ahead;
  const gq_tableau *m = w->a.st->m;
  int parts = w->a.st->l.parts, given = w->a.st->l.given, n = 0;
  for (int p = 0; p < parts; p++)
    w->a.y1[p] = x->move[p][step + 1], w->a.f1[p] = x->move[parts + p][step + 1];
  for (int i = 0; i < m->slopes && given; i++)
    for (int g = 0, twin = gq_tableau_twin(m, i); g < given; g++)
      w->a.path[i][g] = twin < i ? w->a.path[twin][g] : (char *)x->path[step] + n++ * x->part;
  w->a.arena = x->arena + step * w->a.field->nslices;
}

/* ---- products of its steps, of many at once ---- */

static bool behind(const gq_walk *w) {
  const gq_stepper *st = w->a.st;
  bool may = w->ahead && w->ahead->made && w->a.field->on->after && st->m->steps->behind &&
             !st->l.nfe_dense && (st->l.qe < 0 || st->kind.product_carry == 1);
  for (int r = 0; r < st->l.nq; r++) may = may && st->of[r] >= 0;
  return may;
}

int gq_ahead_later(gq_walk *w, bool whole, double carried, bool *later) {
  gq_ahead *x = w->ahead;
  *later = whole && behind(w);
  if (!*later) return gq_ahead_settle(w);
  if (!x->nbehind) x->first = x->accepted - 1;
  x->behind[x->nbehind++] = (gq_behind){ carried, *w->a.shared };
  return GQ_OK;
}

int gq_ahead_settle(gq_walk *w) {
  gq_ahead *x = w->ahead;
  if (!x || !x->nbehind) return GQ_OK;
  gq_attempt now = w->a;
  gq_stepjob c = { .loop = x->behind, .bytes = sizeof *x->behind, .steps = x->nbehind, .dtype = x->dtype };
  int parts = now.st->l.parts;
  bind_step(w, x->first);
  for (int p = 0; p < parts; p++) w->a.y[p] = x->move[p][x->first], w->a.f[p] = x->move[parts + p][x->first];
  now.st->m->steps->behind(&w->a, &c);
  for (int k = 0; k < c.nmove; k++) c.move[k].at = x->move[k] + x->first;
  c.path = x->path + x->first, c.arena = w->a.arena;
  x->nbehind = 0;
  int status = now.field->on->after(&c);
  w->a = now;
  return status;
}

static int run_job(gq_walk *w) {
  gq_attempt *a = &w->a;
  gq_ahead *x = w->ahead;
  int64_t left = w->max_steps - w->steps - w->rejected;
  gq_stepjob c = { .loop = &x->loop, .bytes = sizeof x->loop, .steps = x->most, .arena = x->arena };
  x->taken = x->accepted = 0;
  int most = likely(w) < MOST ? likely(w) : MOST;
  set_loop(w, &x->loop, left < most ? (int)left : most);
  c.attempts = x->loop.attempts;
  if (x->loop.halted || gq_interrupted()) return GQ_OK; /* the loop finds why */
  for (int p = 0; p < a->st->l.parts; p++) x->move[p][0] = a->y[p], x->move[a->st->l.parts + p][0] = a->f[p];
  for (int i = 0; i < x->most; i++) {
    GQ_TRY(place(w, i));
    x->loop.trail.to[i] = (uint64_t)(uintptr_t)x->path[i];
  }
  bind_step(w, 0);
  a->st->m->steps->job(a, &c);
  c.path = x->path;
  for (int k = 0; k < c.nmove; k++) c.move[k].at = x->move[k];
  GQ_TRY(a->field->on->advance(&c));
  x->at = (x->at + x->loop.accepted) % (x->most + 1);
  return GQ_OK;
}

int gq_ahead_attempt(gq_walk *w, bool *there, int *verdict) {
  gq_attempt *a = &w->a;
  if (!w->ahead) GQ_TRY(ahead_new(w));
  gq_ahead *x = w->ahead;
  if (x->most < 2) w->runs_ahead = false;
  bool same = x->loop.c.stop == w->c.stop && x->loop.c.clamp == w->c.clamp;
  x->made = false;
  if (x->taken == x->loop.made || !same || !w->runs_ahead) GQ_TRY(gq_ahead_settle(w));
  if (w->runs_ahead && (x->taken == x->loop.made || !same)) GQ_TRY(run_job(w));
  *there = x->made = w->runs_ahead && x->taken < x->loop.made;
  if (!*there) return GQ_OK;
  const gq_tried *f = &x->loop.tried[x->taken++];
  bind_step(w, x->accepted);
  a->h = f->h, a->t1 = f->t1, w->c = f->c, *verdict = f->verdict;
  if (f->verdict == GQ_ACCEPTED) x->accepted++;
  gq_attempt_times(a, a->t, a->h, a->t1);
  a->cost.nfe += a->st->l.nfe;
  return GQ_OK;
}
