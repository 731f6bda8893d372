/*
** explicit.c -- steps that are programs: those of explicit Runge-Kutta methods here, those of tuples in reversible.c.
*/
#include "explicit.h"

#include "loop.h"

#include <math.h>
#include <string.h>

/* The pointers of one program a slice. */
typedef struct program {
  const void **in;      /* [nslices][nin] */
  void **out;           /* [nslices][nout] */
  double *scalars;      /* [nslices][nout] stored float64 outputs, shared */
  gq_stepinput *given_; /* what is read of the host, where the run waits; NULL: the attempt's */
} program;

/* ---- building ---- */

static int build_class(gq_stepper *st, const gq_field *f, int c, gq_system *s) {
  gq_graph *g;
  gq_outspec *outs;
  gq_steplayout_done(&st->l);
  GQ_TRY(gq_step_new(s, &st->kind, f->want, &g, &outs, &st->l));
  int status = gq_code_add(f, &st->code, c, g, st->l.nout + st->l.kept, outs);
  gq_graph_free(g);
  gq_free(outs);
  return status;
}

int gq_program_build(gq_stepper *st, const gq_field *f, gq_make *make, const void *arg) {
  int status = GQ_OK;
  for (int c = 0; status == GQ_OK && c < f->nclass; c++) {
    gq_system s;
    GQ_TRY(make(f, c, arg, &s));
    status = build_class(st, f, c, &s);
    if (!st->of) st->of = s.of, s.of = NULL;
    gq_system_done(&s);
  }
  st->cost = st->l.nfe;
  return status;
}

int gq_program_init(gq_attempt *a) {
  size_t ns = a->field->nslices, nin = a->st->l.nin, nout = a->st->l.nout;
  program *p = a->own = gq_calloc(1, sizeof *p);
  if (!p) return gq_nomem(sizeof *p);
  p->in = gq_calloc(ns * nin + 1, sizeof *p->in);
  p->out = gq_calloc(ns * nout + 1, sizeof *p->out);
  p->scalars = gq_share(a->field->on, (ns * nout + 1) * sizeof *p->scalars);
  return p->in && p->out && p->scalars ? GQ_OK : gq_nomem(ns * (nin + 2 * nout) * sizeof(void *));
}

void gq_program_done(gq_attempt *a) {
  program *p = a->own;
  gq_free(p->in);
  gq_free(p->out);
  gq_unshare(a->field->on, p->scalars);
  gq_free(p);
}

/* ---- running ---- */

static void bind_slice(gq_attempt *a, int s) {
  const program *own = a->own;
  const gq_field *f = a->field;
  const gq_steplayout *l = &a->st->l;
  const void **in = own->in + (size_t)s * l->nin;
  void **out = own->out + (size_t)s * l->nout;
  double *sc = own->scalars + (size_t)s * l->nout;
  size_t off = gq_slice_offset(f, s);
  const gq_stepinput *given = own->given_ ? own->given_ : a->shared;
  in[l->t] = &given->t, in[l->h] = &given->h, in[l->ht] = &given->ht, in[l->rtol] = &given->rtol;
  if (l->h2 >= 0) in[l->h2] = &given->h;
  for (int p = 0; p < l->parts; p++) {
    in[l->atol + p] = &given->atol[p];
    in[l->y + p] = (char *)a->y[p] + off;
    out[l->y1 + p] = (char *)a->y1[p] + off;
    if (l->carry) in[l->f + p] = (char *)a->f[p] + off, out[l->f1 + p] = (char *)a->f1[p] + off;
    if (l->err >= 0) out[l->err + p] = &sc[l->err + p];
    if (l->err3 >= 0) out[l->err3 + p] = &sc[l->err3 + p];
    if (l->finite >= 0) out[l->finite + p] = &sc[l->finite + p];
  }
  for (int i = 0; i < GQ_SUMS; i++)
    if (l->sum[i] >= 0) out[l->sum[i]] = &sc[l->sum[i]];
  for (int e = 0; e < l->extra; e++) {
    size_t at = gq_extra_offset(f, e, s);
    in[l->x + e] = (char *)a->x[e] + at, out[l->x1 + e] = (char *)a->x1[e] + at;
  }
  if (l->w >= 0) in[l->w] = (char *)a->w + gq_noise_offset(f, s);
  if (l->w2 >= 0) in[l->w2] = in[l->w];
  for (int i = 1; i < l->moments; i++)
    in[l->w + i] = (char *)a->w + i * gq_moment_bytes(f) + gq_noise_offset(f, s);
  if (l->levy >= 0)
    in[l->levy] = (char *)a->w + l->moments * gq_moment_bytes(f) +
                  gq_noise_offset(f, s) * f->wshape.dim[f->wshape.ndim - 1];
  for (int i = 0; i < l->slopes; i++) {
    for (int k = 0; k < l->given; k++) in[l->path + i * l->given + k] = (char *)a->path[i][k] + off;
    in[l->wq + i] = &given->wq[i];
  }
  for (int j = 0; j < f->nb; j++) in[l->bv + j] = a->bind->value[s * f->nb + j];
  for (int i = 0; i < l->directions; i++) in[l->bv + f->nb + i] = f->direction[i];
  for (int r = 0; r < l->nq; r++) {
    int j = a->st->of[r]; /* the product in time is a 0-d value of the state's dtype */
    out[l->q + r] = j < 0 ? (void *)&sc[l->q + r] : a->sum.grads->at[s * f->nb + j];
    if (l->qe >= 0) out[l->qe + r] = a->sum.next.at[s * f->nb + j];
    if (l->dq >= 0) {
      out[l->dq + r] = j < 0 ? (void *)&sc[l->dq + r] : a->sum.dq.at[s * f->nb + j];
      out[l->eq + r] = j < 0 ? (void *)&sc[l->eq + r] : a->sum.eq.at[s * f->nb + j];
    }
  }
}

/* Pointers of phase 2, the derivative of the step. */
static void bind_pull(gq_attempt *a, int s) {
  const program *own = a->own;
  const gq_field *f = a->field;
  const gq_steplayout *l = &a->st->l;
  const void **in = own->in + (size_t)s * l->nin;
  void **out = own->out + (size_t)s * l->nout;
  double *sc = own->scalars + (size_t)s * l->nout;
  size_t off = gq_slice_offset(f, s);
  in[l->cy] = (char *)a->pull.cy + off;
  if (l->cf >= 0) in[l->cf] = (char *)a->pull.cf + off;
  if (l->h2 >= 0) in[l->y2] = (char *)a->pull.y + off, in[l->f2] = (char *)a->pull.f + off;
  for (int e = 0; e < l->extra; e++) {
    size_t at = gq_extra_offset(f, e, s);
    in[l->cx + e] = (char *)a->pull.cx[e] + at, out[l->px + e] = (char *)a->pull.px[e] + at;
    if (l->h2 >= 0) in[l->x2 + e] = (char *)a->pull.x[e] + at;
  }
  for (int i = 0; i < l->slopes; i++)
    if (l->ck[i] >= 0) in[l->ck[i]] = (char *)a->pull.ck[i] + off;
  for (int i = 0; i < GQ_SUMS; i++)
    if (l->csum[i] >= 0) in[l->csum[i]] = &(own->given_ ? own->given_ : a->shared)->csum[i];
  out[l->py] = (char *)a->pull.py + off;
  if (l->pf >= 0) out[l->pf] = (char *)a->pull.pf + off;
  if (l->pt >= 0) out[l->pt] = &sc[l->pt], out[l->ph] = &sc[l->ph];
  for (int r = 0; r < l->npb; r++) out[l->pb + r] = a->sum.grads->at[s * f->nb + l->pb_of[r]];
}

static void bind(gq_attempt *a, int phase) {
  for (int s = 0; s < a->field->nslices; s++) {
    bind_slice(a, s);
    if (phase == 2) bind_pull(a, s);
  }
}

/* What a run reads of the host, and its pointers, in one block. */
size_t gq_program_waits(const gq_stepper *st, const gq_field *f) {
  return gq_round64(sizeof(gq_stepinput)) + f->nslices * (size_t)(st->l.nin + st->l.nout) * sizeof(void *);
}

bool gq_program_may_wait(const gq_stepper *st) {
  const gq_steplayout *l = &st->l;
  bool may = st->m->steps->program && l->dq < 0 && !st->kind.pull_time;
  for (int i = 0; i < GQ_SUMS; i++) may = may && l->sum[i] < 0;
  for (int r = 0; r < l->nq; r++) may = may && st->of[r] >= 0;
  return may;
}

static void run_later(gq_attempt *a, int phase) {
  program *p = a->own, was = *p;
  const gq_steplayout *l = &a->st->l;
  char *block = gq_rounds_room(a->rounds, gq_program_waits(a->st, a->field));
  p->given_ = memcpy(block, a->shared, sizeof *a->shared);
  p->in = (const void **)(block + gq_round64(sizeof *a->shared));
  p->out = (void **)(p->in + (size_t)a->field->nslices * l->nin);
  bind(a, phase);
  gq_rounds_run(a->rounds, &a->st->code, phase, a->arena, a->rest, phase == 2 ? a->soon : NULL, p->in, l->nin,
                p->out, l->nout);
  *p = was;
}

static int run(gq_attempt *a, int phase) {
  const program *p = a->own;
  const gq_field *f = a->field;
  if (a->rounds) return run_later(a, phase), GQ_OK;
  bind(a, phase);
  return gq_code_run(f, &a->st->code, phase, a->arena, a->rest, phase == 2 ? a->soon : NULL, p->in,
                     a->st->l.nin, p->out, a->st->l.nout);
}

/* ---- the error ---- */

static double scalar_of(const gq_attempt *a, int s, int i) {
  const program *p = a->own;
  return p->scalars[(size_t)s * a->st->l.nout + i];
}

/* One that is stored in the state's dtype. */
static double state_scalar_of(const gq_attempt *a, int s, int i) {
  const program *p = a->own;
  return gq_number(a->field->dtype, &p->scalars[(size_t)s * a->st->l.nout + i], 0);
}

/* Mean square of one part's error from the slices' sums; the largest number's in the maximum norm. */
static double part_square(const gq_attempt *a, int first, int p) {
  const gq_field *f = a->field;
  double sum = 0;
  for (int s = 0; s < f->nslices; s++)
    sum = gq_control_gather(sum, scalar_of(a, s, first + p), a->tol.max_norm);
  double n = a->tol.max_norm ? 1 : gq_numel(f->shape);
  return n ? sum / n : 0;
}

enum { CHUNK = 64 };

static void get(const gq_field *f, const void *x, size_t at, size_t n, double *out) {
  f->on->vec->get(f->dtype, n, (const char *)x + at * gq_dtype_size(f->dtype), 1, out);
}

/* Squares of n numbers' errors from number `at` of slice s on, which is number `first` of all. */
static void split_chunk(const gq_attempt *a, int p, int s, size_t first, size_t at, size_t n) {
  const gq_field *f = a->field;
  const gq_tableau *m = a->st->m;
  double e[CHUNK] = { 0 }, k[CHUNK], y[CHUNK], y1[CHUNK];
  for (int j = 0; j < m->stages; j++) {
    if (m->e[j] == 0) continue;
    get(f, m->steps->slope(a, j, p, s), at, n, k);
    for (size_t i = 0; i < n; i++) e[i] += m->e[j] * k[i];
  }
  get(f, a->y[p], first + at, n, y), get(f, a->y1[p], first + at, n, y1);
  for (size_t i = 0; i < n; i++) {
    e[i] *= a->h / (a->tol.atol[p] + a->tol.rtol * fmax(fabs(y[i]), fabs(y1[i])));
    gq_split_add(a->tol.split, f, first + at + i, e[i] * e[i]);
  }
}

/* Mean square of one part's error, of the tensors that it was packed from the largest. */
static double split_square(const gq_attempt *a, int p) {
  const gq_field *f = a->field;
  for (int s = 0; s < f->nslices; s++) {
    size_t first = gq_slice_offset(f, s) / gq_dtype_size(f->dtype), n = gq_slice_numel(f, s);
    for (size_t at = 0; at < n; at += CHUNK) split_chunk(a, p, s, first, at, n - at < CHUNK ? n - at : CHUNK);
  }
  return gq_split_take(a->tol.split);
}

/* Are the numbers of a part finite? Their sum tells, but for one that overflows. */
static bool part_finite(const gq_attempt *a, int p) {
  double sum = 0;
  for (int s = 0; s < a->field->nslices; s++) sum += scalar_of(a, s, a->st->l.finite + p);
  return isfinite(sum);
}

static double products_ratio(gq_attempt *a) {
  const gq_steplayout *l = &a->st->l;
  a->sum.dtime = a->sum.etime = 0;
  for (int r = 0; r < l->nq; r++)
    for (int s = 0; s < a->field->nslices && a->st->of[r] < 0; s++) {
      a->sum.dtime += state_scalar_of(a, s, l->dq + r);
      a->sum.etime += state_scalar_of(a, s, l->eq + r);
    }
  if (l->qe >= 0) {
    gq_grads_add(a->field, -a->h * a->st->m->b[0], &a->sum.next, &a->sum.dq);
    gq_grads_add(a->field, a->h * a->st->m->e[0], &a->sum.next, &a->sum.eq);
  }
  return gq_attempt_products(a, GQ_MEASURE_ATTEMPT);
}

/* In units of the tolerance: the largest norm of the parts. NaN: not finite. */
static double error_ratio(gq_attempt *a) {
  const gq_steplayout *l = &a->st->l;
  double ratio = 0;
  for (int p = 0; p < l->parts; p++) {
    double e5 = a->tol.split && !a->tol.max_norm ? split_square(a, p) : part_square(a, l->err, p);
    ratio = gq_larger(ratio, gq_control_error(e5, l->err3 >= 0 ? part_square(a, l->err3, p) : -1));
  }
  if (l->dq >= 0 && ratio == ratio) ratio = gq_larger(ratio, products_ratio(a));
  return isfinite(ratio) ? ratio : NAN;
}

static void look_later(gq_attempt *a) {
  const gq_steplayout *l = &a->st->l;
  const double *sum = ((const program *)a->own)->scalars + l->finite;
  for (int p = 0; p < l->parts; p++) {
    gq_rounds_look(a->rounds, a->y1[p], sum + p, l->nout, (gq_looked){ 0, a->t, a->h });
    if (l->carry) gq_rounds_look(a->rounds, a->f1[p], sum + p, l->nout, (gq_looked){ 0, a->t, a->h });
  }
}

int gq_program_attempt(gq_attempt *a, gq_control *c, double *ratio) {
  (void)c;
  GQ_TRY(run(a, 0));
  gq_wait(a->field->on);
  a->cost.nfe += a->st->l.nfe;
  *ratio = 0;
  if (a->rounds) {
    look_later(a);
  } else if (a->st->kind.adaptive) {
    *ratio = error_ratio(a);
  } else {
    for (int p = 0; p < a->st->l.parts; p++)
      if (!part_finite(a, p) && gq_attempt_nonfinite(a)) *ratio = NAN;
  }
  return GQ_OK;
}

/* ---- many, by a device ---- */

static void read_by(gq_stepjob *c, int k, size_t at) { c->read[c->nread].k = k, c->read[c->nread++].at = at; }

/* One program a slice, no products of each attempt, one norm for a part. */
static bool runs_ahead(const gq_attempt *a) {
  const gq_steplayout *l = &a->st->l;
  bool sums = false;
  for (int i = 0; i < GQ_SUMS; i++) sums = sums || l->sum[i] >= 0;
  return a->field->nslices > 1 && a->st->kind.adaptive && l->dq < 0 && !l->extra && l->w < 0 &&
         !a->tol.split && !sums;
}

/* What any phase of a step reads and leaves. */
static void job_of(gq_attempt *a, gq_stepjob *c) {
  const gq_steplayout *l = &a->st->l;
  const gq_field *f = a->field;
  const program *own = a->own;
  int parts = l->parts;
  for (int s = 0; s < f->nslices; s++) bind_slice(a, s);
  c->nslices = f->nslices, c->class_of = f->class_of;
  for (int i = 0; i < 2; i++) c->prog[i] = a->st->code.prog[i];
  c->nin = l->nin, c->nout = l->nout, c->in = own->in, c->out = own->out;
  for (int p = 0; p < parts; p++) {
    c->move[p].in = l->y + p, c->move[p].out = l->y1 + p;
    c->move[parts + p].in = l->f + p, c->move[parts + p].out = l->f1 + p;
  }
  c->nmove = l->carry ? 2 * parts : parts;
  c->given = l->path, c->ngiven = l->given ? l->slopes * l->given : 0, c->state = f->dtype;
}

static void job(gq_attempt *a, gq_stepjob *c) {
  const gq_steplayout *l = &a->st->l;
  int parts = l->parts;
  job_of(a, c);
  read_by(c, l->t, offsetof(gq_loop, from)), read_by(c, l->h, offsetof(gq_loop, h));
  read_by(c, l->ht, offsetof(gq_loop, ht)), read_by(c, l->rtol, offsetof(gq_loop, rtol));
  for (int p = 0; p < parts; p++) {
    read_by(c, l->atol + p, offsetof(gq_loop, atol) + p * sizeof(double));
    c->sum[p] = l->err + p, c->sum[parts + p] = l->err3 + p;
  }
  c->nsum = l->err3 < 0 ? parts : 2 * parts;
}

static void behind(gq_attempt *a, gq_stepjob *c) {
  const gq_steplayout *l = &a->st->l;
  size_t in = offsetof(gq_behind, in);
  job_of(a, c);
  c->phase = 1;
  read_by(c, l->t, in + offsetof(gq_stepinput, t)), read_by(c, l->h, in + offsetof(gq_stepinput, h));
  read_by(c, l->ht, in + offsetof(gq_stepinput, ht)), read_by(c, l->rtol, in + offsetof(gq_stepinput, rtol));
  for (int p = 0; p < l->parts; p++)
    read_by(c, l->atol + p, in + offsetof(gq_stepinput, atol) + p * sizeof(double));
  for (int i = 0; i < l->slopes; i++)
    read_by(c, l->wq + i, in + offsetof(gq_stepinput, wq) + i * sizeof(double));
  c->to = l->q, c->from = l->qe, c->nadd = l->qe >= 0 ? l->nq : 0;
}

/* ---- after it ---- */

int gq_program_phase(gq_attempt *a, int phase) {
  const gq_steplayout *l = &a->st->l;
  const program *own = a->own;
  int ns = a->field->nslices;
  bool timed = false;
  for (int r = 0; r < l->nq; r++) timed = timed || a->st->of[r] < 0;
  for (int s = 0; s < ns; s++)
    for (int r = 0; timed && r < l->nq; r++) own->scalars[(size_t)s * l->nout + l->q + r] = 0;
  GQ_TRY(run(a, phase));
  if (phase == 1) a->cost.nfe += l->nfe_dense;
  if (timed || (phase == 2 && l->pt >= 0)) gq_wait(a->field->on);
  for (int r = 0; phase == 1 && r < l->nq; r++)
    for (int s = 0; s < ns && a->st->of[r] < 0; s++) *a->sum.time += state_scalar_of(a, s, l->q + r);
  if (phase == 2 && l->pt >= 0) {
    a->pull.pt = a->pull.ph = 0;
    for (int s = 0; s < ns; s++) a->pull.pt += scalar_of(a, s, l->pt), a->pull.ph += scalar_of(a, s, l->ph);
  }
  return GQ_OK;
}

void *gq_program_slope(const gq_attempt *a, int i, int part, int slice) {
  const gq_steplayout *l = &a->st->l;
  const gq_field *f = a->field;
  size_t off = gq_slice_offset(f, slice);
  if (l->carry && i == 0) return (char *)a->f[part] + off;
  if (l->carry && i == a->st->m->end) return (char *)a->f1[part] + off;
  return gq_program_at(a->st->code.prog[f->class_of[slice]], a->arena[slice], l->k[i] + part);
}

void gq_program_sums(const gq_attempt *a, double sum[GQ_SUMS]) {
  const gq_steplayout *l = &a->st->l;
  for (int i = 0; i < GQ_SUMS; i++) {
    sum[i] = 0;
    for (int s = 0; l->sum[i] >= 0 && s < a->field->nslices; s++) sum[i] += scalar_of(a, s, l->sum[i]);
  }
}

const gq_stepclass gq_explicit = { .program = true,
                                   .any_system = true,
                                   .lanes = true,
                                   .build = gq_program_build,
                                   .init = gq_program_init,
                                   .done = gq_program_done,
                                   .attempt = gq_program_attempt,
                                   .runs_ahead = runs_ahead,
                                   .job = job,
                                   .behind = behind,
                                   .phase = gq_program_phase,
                                   .slope = gq_program_slope };
