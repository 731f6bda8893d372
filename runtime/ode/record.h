/*
** record.h -- accepted steps and what is kept of them: for the way back, for the user's interpolant, for lanes.
*/
#ifndef GQ_RECORD_H
#define GQ_RECORD_H

#include "../method/step.h"

#include <stddef.h>
#include <string.h>

/* An accepted step. */
typedef struct gq_step_record {
  double t, h;
  int anchor, stop;            /* measurement time that t hangs on; that t + h was clamped to, or -1 */
} gq_step_record;
static inline double gq_step_end(const gq_step_record *r, const double *times) {
  return r->stop >= 0 ? times[r->stop] : r->t + r->h;
}

/* What is kept of every one, in bits. */
enum { GQ_STEP_TIMES = 1, GQ_STEP_SIZES = 2, GQ_STEP_STATES = 4, GQ_STEP_SLOPES = 8, GQ_STEP_ACTIVATIONS = 16,
       GQ_STEP_NOISE = 32 };

/* Where a step begins: whole arrays, and what the step leaves of its way. */
typedef struct gq_step_state {
  struct gq_step_state *next;  /* spare one */
  double sum[GQ_SUMS];         /* heuristics */
  const gq_backend *on;        /* where they are */
  void *y, *f, *x[GQ_MAXEXTRA];
  void *w;                     /* W over the step where it is kept, or NULL */
  char *slope;                 /* slopes, `part` bytes apart, or NULL */
  size_t part;
  void **arena;                /* [nslices] activations, or NULL */
} gq_step_state;

enum { GQ_STEPS_BLOCKS = 40 };

/* Steps, first first. Columns of the host's grow to twice their size; states and data stay where they are. */
typedef struct gq_steps {
  int64_t n, room;
  int64_t least;               /* the first of them; 0: 64 */
  char *step;                  /* records; with states [n].t is the end */
  size_t head;                 /* bytes of a record that are kept, from its front; 0: all */
  gq_step_state **state;       /* [n] the end; NULL where there is none */
  const gq_backend *on;        /* whose memory the data are: */
  size_t each;                 /* so many bytes that go with every step */
  char *data[GQ_STEPS_BLOCKS]; /* the first chunk, then blocks as large as all before them */
} gq_steps;

static inline size_t gq_steps_head(const gq_steps *s) { return s->head ? s->head : sizeof(gq_step_record); }
static inline gq_step_record gq_step(const gq_steps *s, int64_t i) {
  gq_step_record r = { .stop = -1 };
  memcpy(&r, s->step + i * gq_steps_head(s), gq_steps_head(s));
  return r;
}
static inline void gq_step_put(gq_steps *s, int64_t i, gq_step_record r) {
  memcpy(s->step + i * gq_steps_head(s), &r, gq_steps_head(s));
}

struct gq_plan;
/* Room for n steps, and for their states where states are kept; *bytes_ grows by that of steps and data. */
int gq_steps_room(gq_steps *s, int64_t n, bool states, size_t *bytes_);
/* One more; its data are the caller's to fill. */
int gq_steps_add(gq_steps *s, gq_step_record r, size_t *bytes);
/* Where step i ends, and it and those before it begin, n in all, at most `most`: t [n + 1]. */
static inline int gq_steps_back(const gq_steps *s, int64_t i, double t1, int most, double *t) {
  int n = i + 1 < most ? (int)i + 1 : most;
  t[0] = t1;
  for (int k = 0; k < n; k++) t[k + 1] = gq_step(s, i - k).t;
  return n;
}
char *gq_steps_data(const gq_steps *s, int64_t i);
/* The states of steps `from` to `to` (itself not) to the plan's spare ones. */
void gq_steps_give_back(gq_steps *s, struct gq_plan *p, int64_t from, int64_t to);
void gq_steps_done(gq_steps *s);
/* A state from the plan's spare ones or fresh; *bytes grows by what it holds of the solve. */
int gq_step_state_get(struct gq_plan *p, unsigned keeps, size_t *bytes, gq_step_state **out);
size_t gq_step_state_bytes(const struct gq_plan *p, unsigned keeps);
void gq_step_state_free(gq_step_state *list_);
/* The step's interpolant at t, from y and slopes `part` bytes apart. */
void gq_step_at(const gq_step_record *r, const gq_tableau *m, const gq_field *f, double t, const void *y,
                const char *slope, size_t part, void *dst);
/* And its slope there. */
void gq_step_slope_at(const gq_step_record *r, const gq_tableau *m, const gq_field *f, double t, const char *slope,
                      size_t part, void *dst);

#endif
