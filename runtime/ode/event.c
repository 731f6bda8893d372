/*
** event.c -- where an event function changes its sign: its value on packed states, and the search for the end of the
** step that lies on its surface.
**
** The step itself is tried again with other ends (that of a multistep method, which has no shorter one, is read from
** its interpolant), so that the state at the event is the end of a step like any other. By Chandrupatla's method
** (Advances in Engineering Software 28, 1997); of the last two ends the one before the crossing counts.
*/
#include "dense.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { TIME, VALUE, BY_TIME, SHARED };

struct gq_event {
  const gq_field *field;
  const gq_graph *g; /* lent */
  gq_program *prog, *slope;
  int ncapture;
  gq_tensor **capture; /* contiguous, referenced */
  const void **in;     /* t, z, captures */
  void *arena, *state; /* state: in the user's order */
  void *inner;         /* packed */
  double *shared;      /* numbers of its programs, as below */
  double value;        /* where the step begins; */
  bool armed;          /* it has been other than zero, */
  double zero;         /* which is all up to this; negative: not known */
  int64_t nfe;         /* of the search */
};

/* A program whose one output is the event's scalar. */
static int compile(gq_event *e, const gq_graph *g) {
  gq_outspec out = { gq_graph_output(g, 0), 0, GQ_STORE };
  const gq_node *n = gq_graph_node(g, out.ref);
  char shape[128];
  if (n->dtype != e->field->dtype || gq_numel(n->shape) != 1)
    return gq_fail(GQ_ESHAPE, "the event function gave %s %s: expected one number, %s {}",
                   gq_dtype_name(n->dtype), gq_shape_text(n->shape, shape, sizeof shape),
                   gq_dtype_name(e->field->dtype));
  return gq_program_new(e->field->on, g, 1, &out, &e->prog);
}

static int init(gq_event *e, const gq_graph *g, int ncapture, gq_tensor *const *capture) {
  GQ_TRY(compile(e, g));
  e->g = g, e->zero = -1;
  const gq_backend *on = e->field->on;
  e->inner = gq_allocate(on, gq_part_bytes(e->field) + 64);
  e->capture = gq_calloc(ncapture + 1, sizeof *e->capture);
  e->in = gq_calloc(ncapture + 2, sizeof *e->in);
  e->arena = gq_allocate(on, gq_program_arena(e->prog) + 64);
  e->state = gq_allocate(on, gq_part_bytes(e->field) + 64);
  e->shared = gq_share(on, SHARED * sizeof *e->shared);
  if (!e->capture || !e->in || !e->arena || !e->state || !e->inner || !e->shared)
    return gq_nomem(gq_program_arena(e->prog));
  e->in[0] = &e->shared[TIME];
  e->in[1] = e->state;
  for (; e->ncapture < ncapture; e->ncapture++) {
    GQ_TRY(gq_capture_get(e->field, e->ncapture, capture[e->ncapture], &e->capture[e->ncapture]));
    e->in[2 + e->ncapture] = gq_tensor_data(e->capture[e->ncapture]);
  }
  return GQ_OK;
}

int gq_event_new(const gq_graph *g, int ncapture, gq_tensor *const *capture, const gq_field *f,
                 gq_event **out) {
  gq_event *e = gq_calloc(1, sizeof *e);
  if (!e) return gq_nomem(sizeof *e);
  e->field = f;
  int status = init(e, g, ncapture, capture);
  if (status != GQ_OK) gq_event_free(e);
  else *out = e;
  return status;
}

void gq_event_free(gq_event *e) {
  if (!e) return;
  const gq_backend *on = e->field->on;
  for (int i = 0; i < e->ncapture; i++) gq_tensor_unref(e->capture[i]);
  gq_program_free(e->prog);
  gq_program_free(e->slope);
  if (e->inner) gq_release(on, e->inner);
  if (e->arena) gq_release(on, e->arena);
  if (e->state) gq_release(on, e->state);
  if (e->shared) gq_unshare(on, e->shared);
  gq_free(e->capture);
  gq_free(e->in);
  gq_free(e);
}

static void set_inputs(gq_event *e, double t, const void *packed) {
  gq_set_number(e->field->dtype, &e->shared[TIME], 0, t);
  gq_field_unpack(e->field, packed, e->state);
}

static int value_of(gq_event *e, double t, const void *packed, double *value) {
  set_inputs(e, t, packed);
  GQ_TRY(gq_program_run(e->prog, 0, e->arena, e->in, (void *[]){ &e->shared[VALUE] }));
  gq_wait(e->field->on);
  *value = gq_number(e->field->dtype, &e->shared[VALUE], 0);
  if (!isfinite(*value)) return gq_fail(GQ_ENONFINITE, "the event function is not finite at t = %.9g", t);
  return GQ_OK;
}

/* ---- what counts as zero at the start ---- */

/* A program for dg/dt and dg/dz. */
static int compile_slope(gq_event *e) {
  gq_graph *g = gq_graph_new();
  int n = gq_graph_inputs(e->g);
  gq_ref *in = gq_calloc(n + 1, sizeof *in), out, one, grad[2];
  int status = g && in ? GQ_OK : gq_nomem(n * sizeof *in);
  if (status == GQ_OK) gq_inputs_like(g, e->g, 0, in);
  if (status == GQ_OK) status = gq_inline(g, e->g, in, &out);
  if (status == GQ_OK) {
    one = gq_expand(g, gq_const(g, e->field->dtype, 1), gq_graph_node(g, out)->shape);
    status = gq_vjp(g, 1, &out, &one, 2, in, grad);
  }
  if (status == GQ_OK) {
    for (int i = 0; i < 2; i++)
      if (grad[i] == GQ_NONE) grad[i] = gq_zeros(g, e->field->dtype, gq_graph_node(g, in[i])->shape);
    gq_outspec outs[2] = { { grad[0], 0, GQ_STORE }, { grad[1], 0, GQ_STORE } };
    status = gq_program_new(e->field->on, g, 2, outs, &e->slope);
  }
  gq_graph_free(g);
  gq_free(in);
  return status;
}

enum { CHUNK = 64 };

static void get(const gq_event *e, const void *x, int64_t at, int64_t n, double *out) {
  gq_dtype d = e->field->dtype;
  e->field->on->vec->get(d, n, (const char *)x + at * gq_dtype_size(d), 1, out);
}

/* Rounding of the terms of g where the solve begins: t and z, and what z moves by over t or the step. */
static int find_zero(gq_event *e, const gq_walk *w) {
  int64_t n = gq_numel(e->field->shape);
  size_t part = gq_part_bytes(e->field);
  double sum, far = fmax(1, fabs(w->a.t / w->a.h));
  const gq_backend *on = e->field->on;
  GQ_TRY(compile_slope(e));
  char *block = gq_allocate(on, gq_program_arena(e->slope) + 64 + 2 * gq_round64(part));
  if (!block) return gq_nomem(gq_program_arena(e->slope));
  char *by_z = block + gq_round64(gq_program_arena(e->slope)), *end = by_z + gq_round64(part);
  gq_field_unpack(e->field, w->a.y1[0], end);
  set_inputs(e, w->a.t, w->a.y[0]);
  int status = gq_program_run(e->slope, 0, block, e->in, (void *[]){ &e->shared[BY_TIME], by_z });
  gq_wait(on);
  sum = fabs(gq_number(e->field->dtype, &e->shared[BY_TIME], 0) * w->a.t);
  for (int64_t at = 0, some; at < n; at += some) {
    double slope[CHUNK], z[CHUNK], z1[CHUNK];
    some = n - at < CHUNK ? n - at : CHUNK;
    get(e, by_z, at, some, slope), get(e, e->state, at, some, z), get(e, end, at, some, z1);
    for (int i = 0; i < some; i++) sum += fabs(slope[i]) * (fabs(z[i]) + far * fabs(z1[i] - z[i]));
  }
  gq_release(on, block);
  e->zero = isfinite(sum) ? 8 * (e->field->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON) * sum : 0;
  return status;
}

/* ---- the search ---- */

/* g at t within the accepted step, which then ends there. */
static int shorten(gq_event *e, gq_walk *w, double t, double *value) {
  if (w->a.st->m->steps->shorten) {
    gq_walk_interpolate_all(w, 0, (t - w->a.t) / w->a.h, e->inner);
    return value_of(e, t, e->inner, value);
  }
  GQ_TRY(gq_walk_again(w, t - w->a.t, t));
  return value_of(e, t, w->a.y1[0], value);
}

static bool same_sign(double a, double b) { return a != 0 && (a < 0) == (b < 0); }

/* The first of some points of the step where g is not zero any more: its sign there is the one to change. */
static int arm(gq_event *e, gq_walk *w, double end, double *a, double *fa) {
  for (double part = 0x1p-20; part < 1 && !e->armed; part *= 4) {
    double t = w->a.t + part * (end - w->a.t);
    if (t == w->a.t) continue;
    GQ_TRY(shorten(e, w, t, fa));
    e->armed = fabs(*fa) > e->zero;
    *a = t;
  }
  return GQ_OK;
}

/* From a, where g has still its sign, to b, where it has not: *end is the last that has, or where g is zero. */
static int narrow(gq_event *e, gq_walk *w, double a, double fa, double b, double fb, double *end) {
  double x[3] = { b, a, b }, f[3] = { fb, fa, fb }, part = 0.5, before = fa;
  double eps = e->field->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON, size = fabs(b - w->a.t);
  for (;;) {
    double tol = fmax(DBL_EPSILON * fmax(fabs(x[0]), fabs(x[1])), eps / 64 * size),
           limit = tol / fabs(x[1] - x[0]);
    if (f[0] == 0 || f[1] == 0 || limit > 0.5) break;
    part = fmax(limit, fmin(1 - limit, part));
    double t = x[0] + part * (x[1] - x[0]), value;
    if (t == x[0] || t == x[1]) break;
    GQ_TRY(shorten(e, w, t, &value));
    bool same = same_sign(value, f[0]);
    x[2] = same ? x[0] : x[1], f[2] = same ? f[0] : f[1];
    if (!same) x[1] = x[0], f[1] = f[0];
    x[0] = t, f[0] = value;
    double xi = (x[0] - x[1]) / (x[2] - x[1]), phi = (f[0] - f[1]) / (f[2] - f[1]);
    part = 0.5;
    if (phi * phi < xi && (1 - phi) * (1 - phi) < 1 - xi)
      part = f[0] / (f[1] - f[0]) * f[2] / (f[1] - f[2]) +
             (x[2] - x[0]) / (x[1] - x[0]) * f[0] / (f[2] - f[0]) * f[1] / (f[2] - f[1]);
  }
  *end = f[0] == 0 || (f[1] != 0 && same_sign(f[0], before)) ? x[0] : x[1];
  return GQ_OK;
}

/* The step ends at t; at its beginning: it does not begin. */
static int end_at(gq_event *e, gq_walk *w, double t) {
  double value;
  if (t == w->a.t || t == w->a.t1) return GQ_OK;
  GQ_TRY(shorten(e, w, t, &value));
  return w->a.st->m->steps->shorten ? w->a.st->m->steps->shorten(&w->a, t, e->inner) : GQ_OK;
}

static int look(gq_event *e, gq_walk *w, bool *happened, double *t) {
  double a = w->a.t, h = w->a.h, fa = e->value, fb;
  bool clamped = w->c.clamped;
  *t = w->a.t1;
  GQ_TRY(value_of(e, *t, w->a.y1[0], &fb));
  e->value = fb;
  if (fa != 0 && same_sign(fb, fa)) e->armed = true;
  if (!e->armed && e->zero < 0) GQ_TRY(find_zero(e, w));
  if (!e->armed) e->armed = fabs(fa) > e->zero;
  if (!e->armed) GQ_TRY(arm(e, w, *t, &a, &fa));
  *happened = e->armed && !same_sign(fb, fa);
  if (*happened) {
    GQ_TRY(narrow(e, w, a, fa, *t, fb, t));
    return end_at(e, w, *t);
  }
  if (w->a.t1 != *t) GQ_TRY(gq_walk_again(w, h, *t)); /* a search for the sign has shortened it */
  w->c.clamped = clamped;
  return GQ_OK;
}

int gq_event_begin(gq_event *e, const gq_walk *w) { return value_of(e, w->a.t, w->a.y[0], &e->value); }

/* What the search takes is counted apart: the solve is one that was sent to that time. */
int gq_event_look(gq_event *e, gq_walk *w, bool *happened, double *t) {
  gq_cost cost = w->a.cost;
  int status = look(e, w, happened, t);
  e->nfe += w->a.cost.nfe - cost.nfe;
  w->a.cost = cost;
  return status;
}

int64_t gq_event_nfe(const gq_event *e_) { return e_ ? e_->nfe : 0; }
