/*
** rounds.c -- see rounds.h.
*/
#include "rounds.h"

#include <stdint.h>
#include <string.h>

enum { MOST = 128 /* pieces of work that wait */, ROOM = 1 << 18 /* bytes of what they read */ };

typedef struct work {
  int (*fn)(const gq_rounds *r, const struct work *w, int s);
  const void *x; /* whole arrays; of a run, its inputs */
  void *y;       /* or outputs */
  const gq_code *code;
  void *const *arena, *const *rest, *const *soon;
  int phase, nin, nout;
  const double *sum;
  size_t apart;
  gq_looked told;
} work;

struct gq_rounds {
  const gq_field *f;
  int n, status;
  size_t used, room;
  char *block;
  struct {
    int status, at; /* of a slice, and which work it ended with */
    char message[256];
  } * ended; /* [nslices] */
  gq_looked found;
  char message[256];
  work work[MOST];
};

int gq_rounds_new(const gq_field *f, size_t run, gq_rounds **out) {
  size_t room = run > ROOM ? run : ROOM;
  *out = NULL;
  if (f->nslices < 2 || f->on->device != gq_host || f->calls) return GQ_OK;
  gq_rounds *r = gq_calloc(1, sizeof *r);
  if (!r) return gq_nomem(sizeof *r);
  r->f = f, r->room = room;
  r->block = gq_alloc(room), r->ended = gq_calloc(f->nslices, sizeof *r->ended);
  if (r->block && r->ended) return *out = r, GQ_OK;
  gq_rounds_free(r);
  return gq_nomem(room);
}

void gq_rounds_free(gq_rounds *r_) {
  if (!r_) return;
  gq_free(r_->block);
  gq_free(r_->ended);
  gq_free(r_);
}

size_t gq_rounds_bytes(const gq_rounds *r_) { return r_ ? sizeof *r_ + r_->room : 0; }

void gq_rounds_clear(gq_rounds *r) { r->n = 0, r->used = 0, r->status = GQ_OK; }

/* ---- what can be done to slice s ---- */

static int run(const gq_rounds *r, const work *w, int s) {
  const gq_program *p = w->code->prog[r->f->class_of[s]];
  const void *const *in = w->x;
  void *const *out = w->y;
  if (w->soon && r->f->on->lowering->soon) r->f->on->lowering->soon(w->soon[s], gq_program_lasting(p));
  return gq_program_run_apart(p, w->phase, w->arena[s], w->rest[s], in + (size_t)s * w->nin,
                              out + (size_t)s * w->nout);
}

static int add(const gq_rounds *r, const work *w, int s) {
  size_t off = gq_slice_offset(r->f, s);
  r->f->on->vec->axpy(r->f->dtype, gq_slice_numel(r->f, s), 1, (const char *)w->x + off, (char *)w->y + off);
  return GQ_OK;
}

static int unpack(const gq_rounds *r, const work *w, int s) {
  gq_field_unpack_slice(r->f, s, w->x, w->y);
  return GQ_OK;
}

static int look(const gq_rounds *r, const work *w, int s) {
  const char *x = (const char *)w->x + gq_slice_offset(r->f, s);
  if (w->sum && w->sum[s * w->apart] - w->sum[s * w->apart] == 0) return GQ_OK;
  return r->f->on->vec->nonfinite(r->f->dtype, gq_slice_numel(r->f, s), x) ? GQ_ENONFINITE : GQ_OK;
}

/* ---- asking for it ---- */

static work *more(gq_rounds *r, int (*fn)(const gq_rounds *, const work *, int)) {
  if (r->n == MOST) gq_rounds_do(r, NULL);
  work *w = &r->work[r->n++];
  *w = (work){ .fn = fn };
  return w;
}

void *gq_rounds_room(gq_rounds *r, size_t bytes) {
  if (r->n == MOST || r->used + bytes > r->room) gq_rounds_do(r, NULL);
  char *at = r->block + r->used;
  r->used += gq_round64(bytes);
  return at;
}

void gq_rounds_run(gq_rounds *r, const gq_code *c, int phase, void *const *arena, void *const *rest,
                   void *const *soon_, const void *const *in, int nin, void *const *out, int nout) {
  work *w = more(r, run);
  w->code = c, w->phase = phase, w->arena = arena, w->rest = rest, w->soon = soon_;
  w->x = in, w->nin = nin, w->y = (void *)(uintptr_t)out, w->nout = nout;
}

void gq_rounds_add(gq_rounds *r, const void *x, void *y) {
  work *w = more(r, add);
  w->x = x, w->y = y;
}

void gq_rounds_unpack(gq_rounds *r, const void *packed, void *state) {
  work *w = more(r, unpack);
  w->x = packed, w->y = state;
}

void gq_rounds_look(gq_rounds *r, const void *x, const double *sum_, size_t apart, gq_looked told) {
  work *w = more(r, look);
  w->x = x, w->sum = sum_, w->apart = apart, w->told = told;
}

/* ---- doing it ---- */

static void do_slice(void *ctx, int s) {
  gq_rounds *r = ctx;
  int i = 0, status = GQ_OK;
  for (; i < r->n && status == GQ_OK; i++)
    status = gq_interrupted() ? GQ_EINTERRUPT : r->work[i].fn(r, &r->work[i], s);
  r->ended[s].status = status, r->ended[s].at = i;
  if (status != GQ_OK) strncpy(r->ended[s].message, gq_message(), sizeof r->ended[s].message - 1);
}

/* The slice that ended first tells. */
static void gather(gq_rounds *r) {
  int first = -1;
  for (int s = 0; s < r->f->nslices; s++)
    if (r->ended[s].status != GQ_OK && (first < 0 || r->ended[s].at < r->ended[first].at)) first = s;
  if (first < 0) return;
  r->status = r->ended[first].status;
  r->found = r->work[r->ended[first].at - 1].told;
  memcpy(r->message, r->ended[first].message, sizeof r->message);
}

int gq_rounds_do(gq_rounds *r_, gq_looked *found_) {
  gq_rounds *r = r_;
  if (!r) return GQ_OK;
  if (r->n && r->status == GQ_OK) {
    gq_each_slice(r->f->on, r->f->nslices, do_slice, r);
    gather(r);
  }
  r->n = 0, r->used = 0;
  if (found_) *found_ = r->found;
  return r->status == GQ_OK ? GQ_OK : gq_fail(r->status, "%s", r->message);
}
