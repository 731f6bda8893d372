/*
** evaluate.c -- compiling systems and running them at points, see evaluate.h.
*/
#include "evaluate.h"

#include <string.h>

/* ---- running ---- */

void gq_code_free(gq_code *c) {
  gq_program_free(c->prog[0]);
  gq_program_free(c->prog[1]);
  *c = (gq_code){ { 0 } };
}

static size_t most(const gq_code *c, size_t (*bytes)(const gq_program *p)) {
  size_t n = 0;
  for (int i = 0; i < 2; i++)
    if (c->prog[i] && bytes(c->prog[i]) > n) n = bytes(c->prog[i]);
  return n;
}

size_t gq_code_arena(const gq_code *c) { return most(c, gq_program_arena); }
size_t gq_code_lasting(const gq_code *c) { return most(c, gq_program_lasting); }

typedef struct job {
  const gq_field *f;
  const gq_code *code;
  int phase, nin, nout;
  void *const *arena, *const *rest, *const *soon;
  const void *const *in;
  void *const *out;
  int *status; /* [nslices] */
  char message[256];
} job;

/* The arena of the slice that this thread has next: one of this run, or its first of the next. */
static void *next_arena(const job *j, int s) {
  int threads = gq_threads();
  return s + threads < j->f->nslices ? j->arena[s + threads] : j->soon[s % threads];
}

static void run_slice(void *ctx, int s) {
  job *j = ctx;
  const gq_program *p = j->code->prog[j->f->class_of[s]];
  if (j->soon && j->f->on->lowering->soon) j->f->on->lowering->soon(next_arena(j, s), gq_program_lasting(p));
  j->status[s] = gq_program_run_apart(p, j->phase, j->arena[s], j->rest[s], j->in + (size_t)s * j->nin,
                                      j->out + (size_t)s * j->nout);
  if (j->status[s] != GQ_OK && (s == 0 || j->status[0] == GQ_OK))
    strncpy(j->message, gq_message(), sizeof j->message - 1);
}

/* Slices of a class follow each other. */
static int run_side(const gq_field *f, const gq_code *c, int phase, void *const *arena, const void *const *in,
                    int nin, void *const *out, int nout) {
  for (int s = 0, n; s < f->nslices; s += n) {
    for (n = 1; s + n < f->nslices && f->class_of[s + n] == f->class_of[s];) n++;
    const gq_program *p = c->prog[f->class_of[s]];
    GQ_TRY(gq_program_side(p, phase, n, arena + s, in + (size_t)s * nin, nin, out + (size_t)s * nout, nout));
  }
  return GQ_OK;
}

int gq_code_run(const gq_field *f, const gq_code *c, int phase, void *const *arena, void *const *rest,
                void *const *soon_, const void *const *in, int nin, void *const *out, int nout) {
  if (f->nslices > 1 && f->on->lowering->side) return run_side(f, c, phase, arena, in, nin, out, nout);
  int status[f->nslices];
  job j = { .status = status,
            .f = f,
            .code = c,
            .phase = phase,
            .nin = nin,
            .nout = nout,
            .arena = arena,
            .rest = rest,
            .soon = soon_,
            .in = in,
            .out = out };
  gq_each_slice(f->on, f->nslices, run_slice, &j);
  for (int s = 0; s < f->nslices; s++)
    if (j.status[s] != GQ_OK) return gq_fail(j.status[s], "%s", j.message);
  return GQ_OK;
}

/* ---- compiling ---- */

int gq_code_add(const gq_field *f, gq_code *c, int cls, const gq_graph *g, int n, const gq_outspec *outs) {
  GQ_TRY(gq_graph_status(g));
  GQ_TRY(gq_program_new(f->on, g, n, outs, &c->prog[cls]));
  if (f->lanes[0]) gq_program_alike(c->prog[cls]);
  return GQ_OK;
}

void **gq_arenas_new(const gq_field *f, size_t bytes) {
  void **arena = gq_calloc(f->nslices, sizeof *arena);
  for (int s = 0; arena && s < f->nslices; s++)
    if (!(arena[s] = gq_allocate(f->on, bytes + 64))) {
      gq_arenas_free(f, arena);
      return NULL;
    }
  return arena;
}

void gq_arenas_free(const gq_field *f, void **arena_) {
  for (int s = 0; arena_ && s < f->nslices; s++) gq_release(f->on, arena_[s]);
  gq_free(arena_);
}

static int grow_arenas(gq_scratch *m, size_t bytes) {
  if (m->arena && bytes <= m->bytes) return GQ_OK;
  void **arena = gq_arenas_new(m->field, bytes);
  if (!arena) return gq_nomem(bytes);
  gq_arenas_free(m->field, m->arena);
  m->arena = arena;
  m->bytes = bytes;
  return GQ_OK;
}

enum { TIME, TOLERANCE, TIMES = TOLERANCE + 2 }; /* where these are in what is shared */

/* Pointer tables for the evaluator that needs most. */
static int grow_table(gq_scratch *m, const gq_evaluator *e) {
  size_t n = (size_t)m->field->nslices * (e->nin + e->nout);
  if (!m->shared) m->shared = gq_share(m->field->on, (TIMES + m->field->nslices) * sizeof *m->shared);
  if (!m->shared) return gq_nomem(m->field->nslices * sizeof *m->shared);
  if (n <= m->room) return GQ_OK;
  void *t = gq_realloc(m->table, n * sizeof(void *));
  if (!t) return gq_nomem(n * sizeof(void *));
  m->table = t, m->room = n;
  return GQ_OK;
}

void gq_scratch_done(gq_scratch *m) {
  gq_arenas_free(m->field, m->arena);
  gq_free(m->table);
  if (m->shared) gq_unshare(m->field->on, m->shared);
  *m = (gq_scratch){ 0 };
}

static int evaluator_class(gq_evaluator *e, int c, gq_system *s) {
  int nq = s->nq, n = gq_graph_outputs(s->g);
  gq_outspec *outs = gq_calloc(n + 1, sizeof *outs);
  if (!outs) return gq_nomem(n * sizeof *outs);
  for (int i = 0; i < n; i++)
    outs[i] = i < n - nq ? (gq_outspec){ gq_graph_output(s->g, i), s->second && i >= s->second, GQ_STORE }
                         : (gq_outspec){ gq_graph_output(s->g, i), s->late, GQ_ADD };
  e->parts = n - nq, e->nq = nq, e->nout = n, e->nin = gq_graph_inputs(s->g), e->columns = s->columns;
  e->diffusion = s->noise;
  e->directions = s->directions, e->defect = s->defect;
  e->states = e->nin - 1 - e->scratch->field->nb - s->directions - (s->defect ? 3 : 0);
  int status = gq_code_add(e->scratch->field, &e->code, c, s->g, n, outs);
  gq_free(outs);
  if (!e->of) e->of = s->of, s->of = NULL;
  return status;
}

int gq_evaluator_new(gq_scratch *m, gq_make *make, const void *arg, gq_evaluator *e) {
  int status = GQ_OK;
  *e = (gq_evaluator){ .scratch = m };
  for (int c = 0; status == GQ_OK && c < m->field->nclass; c++) {
    gq_system s;
    status = make(m->field, c, arg, &s);
    if (status != GQ_OK) break;
    status = evaluator_class(e, c, &s);
    gq_system_done(&s);
  }
  if (status == GQ_OK) status = grow_table(m, e);
  if (status == GQ_OK) status = grow_arenas(m, gq_code_arena(&e->code));
  if (status != GQ_OK) gq_evaluator_done(e); /* whole or not there */
  return status;
}

void gq_evaluator_done(gq_evaluator *e) {
  gq_code_free(&e->code);
  gq_free(e->of);
  *e = (gq_evaluator){ 0 };
}

/* ---- evaluating ---- */

typedef struct call { /* the pointer tables, laid out for one evaluator */
  const void **in;
  void **out;
  double *shared;
} call;

static call call_tables(const gq_evaluator *e) {
  size_t ns = e->scratch->field->nslices;
  call c = { .in = e->scratch->table };
  c.out = (void **)(c.in + ns * e->nin), c.shared = e->scratch->shared;
  return c;
}

static call call_begin(const gq_evaluator *e) {
  call c = call_tables(e);
  memset(c.shared + TIMES, 0, e->scratch->field->nslices * sizeof *c.shared);
  return c;
}

static void bind_products(const gq_evaluator *e, const gq_binding *b, int s, const gq_grads *grads_,
                          call *c) {
  const gq_field *f = b->field;
  for (int j = 0; j < f->nb; j++) c->in[(size_t)s * e->nin + 1 + e->states + j] = b->value[s * f->nb + j];
  for (int i = 0, at = 1 + e->states + f->nb; i < e->directions; i++)
    c->in[(size_t)s * e->nin + at + i] = f->direction[i];
  for (int r = 0; r < e->nq; r++) {
    int j = e->of[r];
    c->out[(size_t)s * e->nout + e->parts + r] =
      j < 0 ? (void *)&c->shared[TIMES + s] : grads_->at[s * f->nb + j];
  }
}

/* Is the product in time among those that are asked for? */
static bool timed(const gq_evaluator *e) {
  for (int r = 0; r < e->nq; r++)
    if (e->of[r] < 0) return true;
  return false;
}

static int run_call(const gq_evaluator *e, int phase, call *c) {
  const gq_field *f = e->scratch->field;
  return gq_code_run(f, &e->code, phase, e->scratch->arena, e->scratch->arena, NULL, c->in, e->nin, c->out,
                     e->nout);
}

int gq_evaluate_phase(const gq_evaluator *e, const gq_binding *b, int phase, double t, void *const *x,
                      void *const *out, const gq_grads *grads_, double *time_) {
  const gq_field *f = b->field;
  call c = call_begin(e);
  gq_set_number(f->dtype, &c.shared[TIME], 0, t);
  for (int s = 0; s < f->nslices; s++) {
    size_t off = gq_slice_offset(f, s), wide = f->noise ? gq_rows_offset(f, s, f->gshape) : off;
    const void **in = c.in + (size_t)s * e->nin;
    in[0] = &c.shared[TIME];
    for (int i = 0; i < e->states; i++) in[1 + i] = (char *)x[i] + (i < 2 ? off : wide);
    for (int i = 0; i < e->parts; i++)
      c.out[(size_t)s * e->nout + i] = (char *)out[i] + (i && e->diffusion ? wide : off);
    bind_products(e, b, s, grads_, &c);
  }
  int status = run_call(e, phase, &c);
  if (time_ && timed(e)) gq_wait(f->on);
  for (int s = 0; time_ && s < f->nslices; s++) *time_ += gq_number(f->dtype, &c.shared[TIMES + s], 0);
  return status;
}

int gq_evaluate_at(const gq_evaluator *e, const gq_binding *b, double t, void *const *x, void *const *out,
                   const gq_grads *grads_, double *time_) {
  return gq_evaluate_phase(e, b, 0, t, x, out, grads_, time_);
}

void gq_evaluator_bind(const gq_evaluator *e, const gq_binding *b, int s, const gq_grads *grads,
                       const void ***in, void ***out) {
  call c = call_tables(e);
  bind_products(e, b, s, grads, &c);
  *in = c.in + (size_t)s * e->nin, *out = c.out + (size_t)s * e->nout;
}

int gq_probe_count(const gq_evaluator *e) { return (e->parts - e->defect) / 2; }

size_t gq_probe_size(const gq_evaluator *e, int i) {
  return i < gq_probe_count(e) ? e->scratch->field->probed[e->of[e->nq + i]] : 1;
}

gq_dtype gq_probe_dtype(const gq_evaluator *e, int i) {
  const gq_field *f = e->scratch->field;
  int j = e->of[e->nq + i];
  return j < 0 ? f->dtype : gq_field_boundary_dtype(f, j);
}

size_t gq_probe_bytes(const gq_evaluator *e, int i, int points) {
  return gq_round64(gq_probe_size(e, i) * points * gq_dtype_size(gq_probe_dtype(e, i)));
}

int gq_evaluate_nodes(const gq_evaluator *e, const gq_binding *b, const void *t, void *const *z,
                      void *const *a, void *const *slope_, const double tolerance[2], const gq_grads *grads,
                      void *const *probe_) {
  call c = call_begin(e);
  for (int i = 0; i < 2; i++) gq_set_number(b->field->dtype, &c.shared[TOLERANCE + i], 0, tolerance[i]);
  for (int s = 0; s < b->field->nslices; s++) {
    const void **in = c.in + (size_t)s * e->nin;
    char *probe = probe_ ? probe_[s] : NULL;
    in[0] = t, in[1] = z[s], in[2] = a[s];
    for (int i = 0; e->defect && i < 3; i++)
      in[e->nin - 3 + i] = i == 0 ? slope_[s] : (void *)&c.shared[TOLERANCE + i - 1];
    for (int i = 0; i < e->parts; i++) {
      c.out[(size_t)s * e->nout + i] = probe;
      probe += gq_probe_bytes(e, i, e->points);
    }
    bind_products(e, b, s, grads, &c);
  }
  return run_call(e, 0, &c);
}
