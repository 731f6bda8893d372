/*
** walk.c -- the solver's loop body: attempts, error ratio, step control, first step, interpolation.
** Controller and first step: Hairer, Norsett & Wanner II.4; PI and PID: Soderlind 2003, in the
** form h_new = h * safety * r_n^-(p+i+d)/k * r_n-1^(p+2d)/k * r_n-2^-d/k, k the error order.
*/
#include "../method/adams.h"
#include "../method/implicit.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
  MAX_NONFINITE = 8, /* shortened steps before a value that is not finite is an error, */
  MAX_HALVED = 50    /* and before it is that Newton's method does not converge */
};

/* ---- step log, for tests ---- */

static _Thread_local struct {
  bool on;
  int n, room;
  double (*rows)[4];
} steplog;

static void log_row(double a, double b, double c, double d) {
  if (!steplog.on) return;
  if (steplog.n == steplog.room) {
    int room = steplog.room ? 2 * steplog.room : 256;
    void *rows = gq_realloc(steplog.rows, room * sizeof *steplog.rows);
    if (!rows) return;
    steplog.rows = rows, steplog.room = room;
  }
  double *r = steplog.rows[steplog.n++];
  r[0] = a, r[1] = b, r[2] = c, r[3] = d;
}

void gq_steplog_first(double h) { log_row(NAN, h, 0, 0); }
void gq_steplog_add(double t, double h, double ratio, bool accepted) { log_row(t, h, ratio, accepted); }
void gq_steplog_start(void) { steplog.on = true, steplog.n = 0; }

void gq_steplog_stop(void) {
  gq_free(steplog.rows);
  memset(&steplog, 0, sizeof steplog);
}

int gq_steplog_get(const double (**rows)[4]) {
  *rows = (const double(*)[4])steplog.rows;
  return steplog.n;
}

/* ---- set-up ---- */

double gq_positive_atol(gq_dtype d, double atol) { return fmax(atol, d == GQ_F32 ? FLT_MIN : DBL_MIN); }

int gq_walk_init(gq_walk *w, gq_plan *p, const gq_stepper *st, const gq_binding *b) {
  int ns = p->field->nslices;
  w->plan = p, w->st = st, w->bind = b;
  for (int i = 0; i < st->l.parts; i++) w->atol[i] = gq_positive_atol(p->field->dtype, w->atol[i]);
  w->atol_products = gq_positive_atol(p->field->dtype, w->atol_products);
  w->last_ratio[0] = w->last_ratio[1] = 1;
  w->in = gq_calloc((size_t)ns * st->l.nin + 1, sizeof *w->in);
  w->out = gq_calloc((size_t)ns * st->l.nout + 1, sizeof *w->out);
  w->scalars = gq_calloc((size_t)ns * st->l.nout + 1, sizeof *w->scalars);
  if (!w->in || !w->out || !w->scalars) {
    gq_walk_done(w);
    return gq_nomem((size_t)ns * (st->l.nin + 2 * st->l.nout) * sizeof(void *));
  }
  w->arena = p->arena;
  int status = st->m->implicit ? gq_implicit_new(w) : gq_method_adams(st->m) ? gq_adams_new(w) : GQ_OK;
  if (status != GQ_OK) gq_walk_done(w);
  return status;
}

void gq_walk_done(gq_walk *w) {
  gq_adams_free(w->adams);
  w->adams = NULL;
  gq_free(w->in);
  gq_free(w->out);
  gq_free(w->scalars);
  gq_implicit_free(w->implicit);
  w->implicit = NULL;
  w->in = NULL, w->out = NULL, w->scalars = NULL;
}

static void bind_slice(gq_walk *w, int s) {
  const gq_field *f = w->plan->field;
  const gq_steplayout *l = &w->st->l;
  const void **in = w->in + (size_t)s * l->nin;
  void **out = w->out + (size_t)s * l->nout;
  double *sc = w->scalars + (size_t)s * l->nout;
  size_t off = gq_slice_offset(f, s);
  in[l->t] = &w->in_scalars[0], in[l->h] = &w->in_scalars[1], in[l->rtol] = &w->in_scalars[2];
  if (l->h2 >= 0) in[l->h2] = &w->in_scalars[1];
  for (int p = 0; p < l->parts; p++) {
    in[l->atol + p] = &w->atol[p];
    in[l->y + p] = (char *)w->y[p] + off;
    out[l->y1 + p] = (char *)w->y1[p] + off;
    if (l->carry) in[l->f + p] = (char *)w->f[p] + off, out[l->f1 + p] = (char *)w->f1[p] + off;
    if (l->err >= 0) out[l->err + p] = &sc[l->err + p];
    if (l->err3 >= 0) out[l->err3 + p] = &sc[l->err3 + p];
    if (l->finite >= 0) out[l->finite + p] = &sc[l->finite + p];
  }
  for (int i = 0; i < GQ_SUMS; i++)
    if (l->sum[i] >= 0) out[l->sum[i]] = &sc[l->sum[i]];
  if (l->extra) in[l->x] = (char *)w->x + off, out[l->x1] = (char *)w->x1 + off;
  for (int i = 0; i < l->slopes; i++) {
    for (int k = 0; k < l->given; k++) in[l->path + i * l->given + k] = (char *)w->path[i][k] + off;
    in[l->wq + i] = &w->in_scalars[3 + i];
  }
  for (int j = 0; j < f->nb; j++) in[l->bv + j] = w->bind->value[s * f->nb + j];
  for (int i = 0; i < l->directions; i++) in[l->bv + f->nb + i] = f->direction[i];
  for (int r = 0; r < l->nq; r++) {
    int j = w->st->of[r]; /* the product in time is a 0-d value of the state's dtype */
    out[l->q + r] = j < 0 ? (void *)&sc[l->q + r] : w->grads->at[s * f->nb + j];
    if (l->dq >= 0) {
      out[l->dq + r] = j < 0 ? (void *)&sc[l->dq + r] : w->dq.at[s * f->nb + j];
      out[l->eq + r] = j < 0 ? (void *)&sc[l->eq + r] : w->eq.at[s * f->nb + j];
    }
  }
}

/* Pointers of phase 2, the derivative of the step. */
static void bind_pull(gq_walk *w, int s) {
  const gq_field *f = w->plan->field;
  const gq_steplayout *l = &w->st->l;
  const void **in = w->in + (size_t)s * l->nin;
  void **out = w->out + (size_t)s * l->nout;
  double *sc = w->scalars + (size_t)s * l->nout;
  size_t off = gq_slice_offset(f, s);
  in[l->cy] = (char *)w->cy + off;
  if (l->cf >= 0) in[l->cf] = (char *)w->cf + off;
  if (l->h2 >= 0) in[l->y2] = (char *)w->y1[0] + off, in[l->f2] = (char *)w->f1[0] + off;
  if (l->extra) in[l->cx] = (char *)w->cx + off, out[l->px] = (char *)w->px + off;
  for (int i = 0; i < l->slopes; i++)
    if (l->ck[i] >= 0) in[l->ck[i]] = (char *)w->ck[i] + off;
  for (int i = 0; i < GQ_SUMS; i++)
    if (l->csum[i] >= 0) in[l->csum[i]] = &w->csum[i];
  out[l->py] = (char *)w->py + off;
  if (l->pf >= 0) out[l->pf] = (char *)w->pf + off;
  if (l->pt >= 0) out[l->pt] = &sc[l->pt], out[l->ph] = &sc[l->ph];
  for (int r = 0; r < l->npb; r++) out[l->pb + r] = w->grads->at[s * f->nb + l->pb_of[r]];
}

static double read_scalar(gq_dtype d, const void *p) {
  return d == GQ_F32 ? *(const float *)p : *(const double *)p;
}

static int run(gq_walk *w, int phase) {
  const gq_field *f = w->plan->field;
  for (int s = 0; s < f->nslices; s++) {
    bind_slice(w, s);
    if (phase == 2) bind_pull(w, s);
  }
  return gq_code_run(f, &w->st->code, phase, w->arena, w->in, w->st->l.nin, w->out, w->st->l.nout);
}

/* ---- norms ---- */

double gq_walk_norm(const gq_walk *w, int part, const void *x, const void *y, const void *minus_) {
  const gq_field *f = w->plan->field;
  size_t n = gq_numel(f->shape);
  double sum = 0, top = 0;
  for (size_t i = 0; i < n; i++) {
    double v, scale;
    if (f->dtype == GQ_F32) {
      v = ((const float *)x)[i] - (minus_ ? ((const float *)minus_)[i] : 0.0);
      scale = fabs((double)((const float *)y)[i]);
    } else {
      v = ((const double *)x)[i] - (minus_ ? ((const double *)minus_)[i] : 0.0);
      scale = fabs(((const double *)y)[i]);
    }
    v = fabs(v / (w->atol[part] + w->rtol * scale));
    sum += v * v;
    if (!(v <= top)) top = v;
  }
  return w->max_norm ? top : n ? sqrt(sum / n) : 0;
}

/* Norm of one part from the slices' sums. */
static double part_norm(const gq_walk *w, int first, int p, double *square_) {
  const gq_field *f = w->plan->field;
  double sum = 0;
  for (int s = 0; s < f->nslices; s++) {
    double v = w->scalars[(size_t)s * w->st->l.nout + first + p];
    if (w->max_norm) sum = v > sum || v != v ? v : sum;
    else sum += v;
  }
  double n = w->max_norm ? 1 : gq_numel(f->shape);
  if (square_) *square_ = n ? sum / n : 0;
  return n ? sqrt(sum / n) : 0;
}

/* Element i of boundary j summed over slices first..last-1. */
static double gathered(const gq_field *f, const gq_grads *g, int j, int first, int last, size_t i) {
  double sum = 0;
  gq_dtype d = gq_field_boundary_dtype(f, j);
  for (int s = first; s < last; s++) {
    const void *x = g->at[(size_t)s * f->nb + j];
    sum += d == GQ_F32 ? ((const float *)x)[i] : ((const double *)x)[i];
  }
  return sum;
}

typedef struct tally { /* squares and the largest of all parameters together */
  double sum, top;
  size_t count;
} tally;

static double tally_norm(const gq_walk *w, const tally *t) {
  return w->max_norm ? t->top : t->count ? sqrt(t->sum / t->count) : 0;
}

/* What is measured of products: an attempt's error, or for the first step the gradient so far, its
** slope, and the slope's change. */
enum { ATTEMPT, SIZE, SLOPE, CHANGE };

static double product_value(const gq_walk *w, int what, double g, double dq, double eq) {
  double size = what == ATTEMPT ? fmax(fabs(g), fabs(g + dq)) : fabs(g);
  double v = what == ATTEMPT ? eq : what == SIZE ? g : what == SLOPE ? dq : eq - dq;
  return fabs(v / (w->atol_products + w->rtol * size));
}

static void product_tally(const gq_walk *w, int what, int j, tally *t) {
  const gq_field *f = w->plan->field;
  bool apart = f->nslices > 1 && f->axis[j] >= 0; /* each slice holds its own rows of the gradient */
  for (int s = 0; s < (apart ? f->nslices : 1); s++) {
    gq_shape shape = gq_field_boundary_shape(f, j);
    if (apart) shape.dim[f->axis[j]] = f->count[s];
    size_t n = gq_numel(shape);
    int last = apart ? s + 1 : f->nslices;
    for (size_t i = 0; i < n; i++) {
      double v = product_value(w, what, gathered(f, w->grads, j, s, last, i),
                               gathered(f, &w->dq, j, s, last, i), gathered(f, &w->eq, j, s, last, i));
      t->sum += v * v;
      if (!(v <= t->top)) t->top = v;
    }
    t->count += n;
  }
}

/* The larger of the norms of the product in time and of all parameters together. */
static double products_norm(const gq_walk *w, int what) {
  tally t = { 0 };
  double time = product_value(w, what, *w->time, w->dtime, w->etime);
  for (int r = 0; r < w->st->l.nq; r++)
    if (w->st->of[r] >= 0) product_tally(w, what, w->st->of[r], &t);
  double all = tally_norm(w, &t);
  return all > time || all != all ? all : time;
}

static double products_ratio(gq_walk *w) {
  const gq_steplayout *l = &w->st->l;
  const gq_field *f = w->plan->field;
  w->dtime = w->etime = 0;
  for (int r = 0; r < l->nq; r++)
    for (int s = 0; s < f->nslices && w->st->of[r] < 0; s++) {
      const double *sc = w->scalars + (size_t)s * l->nout;
      w->dtime += read_scalar(f->dtype, &sc[l->dq + r]);
      w->etime += read_scalar(f->dtype, &sc[l->eq + r]);
    }
  return products_norm(w, ATTEMPT);
}

/* The attempt's error in units of the tolerance: the largest norm of the parts. NaN: not finite. */
static double error_ratio(gq_walk *w) {
  const gq_steplayout *l = &w->st->l;
  double ratio = 0;
  for (int p = 0; p < l->parts; p++) {
    double r = part_norm(w, l->err, p, NULL);
    if (l->err3 >= 0) { /* DOP853: e5^2 / sqrt(e5^2 + 0.01 e3^2), HNW II.10 */
      double e5, e3;
      part_norm(w, l->err, p, &e5);
      part_norm(w, l->err3, p, &e3);
      r = e5 == 0 ? 0 : e5 / sqrt(e5 + 0.01 * e3);
    }
    if (r > ratio || r != r) ratio = r;
    if (ratio != ratio) break;
  }
  if (l->dq >= 0 && ratio == ratio) {
    double r = products_ratio(w);
    if (r > ratio || r != r) ratio = r;
  }
  return isfinite(ratio) ? ratio : NAN;
}

/* ---- first step ---- */

/* The larger; NaN if either is. */
static double larger(double a, double b) { return a >= b || a != a ? a : b; }

/* A first step where the norms say nothing: the slopes are not finite, or a component is zero and has
** no scale because atol is. */
static int first_unscaled(const gq_walk *w, double dir, double *h) {
  for (int p = 0; p < w->st->l.parts; p++)
    if (gq_first_nonfinite(w->plan->field->dtype, gq_numel(w->plan->field->shape), w->f[p]))
      return gq_fail(GQ_ENONFINITE, "the dynamics are not finite at the start, t = %.9g", w->t);
  *h = dir * 1e-6;
  return GQ_OK;
}

int gq_walk_first(gq_walk *w, const gq_evaluator *e, double stop, double *h) {
  const gq_field *f = w->plan->field;
  size_t n = gq_numel(f->shape);
  int parts = w->st->l.parts;
  double d0 = 0, d1 = 0, d2 = 0, dir = stop < w->t ? -1 : 1;
  for (int p = 0; p < parts; p++) {
    d0 = larger(d0, gq_walk_norm(w, p, w->y[p], w->y[p], NULL));
    d1 = larger(d1, gq_walk_norm(w, p, w->f[p], w->y[p], NULL));
  }
  bool products = w->st->l.dq >= 0;
  if (products) d0 = larger(d0, products_norm(w, SIZE)), d1 = larger(d1, products_norm(w, SLOPE));
  if (!isfinite(d0) || !isfinite(d1)) return first_unscaled(w, dir, h);
  double h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
  for (int p = 0; p < parts; p++) {
    memcpy(w->y1[p], w->y[p], gq_part_bytes(f));
    gq_axpy(f->dtype, n, dir * h0, w->f[p], w->y1[p]);
  }
  GQ_TRY(w->fill_path ? w->fill_path(w, w->t, dir * h0) : GQ_OK);
  void *x[GQ_MAXPARTS + GQ_MAXGIVEN];
  for (int p = 0; p < parts; p++) x[p] = w->y1[p];
  for (int k = 0; k < w->st->l.given; k++) x[parts + k] = w->path[w->st->m->end][k];
  if (products) memset(w->eq.block, 0, w->eq.bytes);
  w->etime = 0;
  GQ_TRY(gq_evaluate_at(e, w->bind, w->t + dir * h0, x, w->f1, &w->eq, &w->etime));
  w->nfe++;
  for (int p = 0; p < parts; p++) d2 = larger(d2, gq_walk_norm(w, p, w->f1[p], w->y[p], w->f[p]) / h0);
  if (products) d2 = larger(d2, products_norm(w, CHANGE) / h0);
  double top = isfinite(d2) ? fmax(d1, d2) : d1; /* the probe left the domain: attempts will find their way */
  int order = w->adams ? 2 : w->st->m->order;    /* a multistep method begins with the order 1 */
  double h1 = d1 <= 1e-15 && d2 <= 1e-15 ? fmax(1e-6, h0 * 1e-3) : pow(0.01 / top, 1.0 / order);
  *h = dir * fmin(100 * h0, h1);
  return GQ_OK;
}

/* ---- stepping ---- */

double gq_control(const gq_controller *c, int error_order, double ratio, const double last[2]) {
  if (ratio == 0) return c->ifactor;
  double k = error_order, r1 = last[0], r2 = last[1];
  double f = c->safety * pow(ratio, -(c->pcoeff + c->icoeff + c->dcoeff) / k);
  if (c->pcoeff != 0 || c->dcoeff != 0)
    f *= pow(r1, (c->pcoeff + 2 * c->dcoeff) / k) * pow(r2, -c->dcoeff / k);
  f = fmin(c->ifactor, fmax(f, ratio < 1 ? 1 : c->dfactor));
  return ratio > 1 ? fmin(f, 0.99) : f; /* what was refused is never tried again as it was */
}

static double controller(const gq_walk *w, double ratio) {
  if (w->adams) return gq_adams_factor(w->adams);
  return gq_control(&w->o->controller, w->st->m->error_order, ratio, w->last_ratio);
}

/* First component of y1 (or f1) that is not finite, 1-based in the flat state; 0: none. */
static size_t bad_component(const gq_walk *w) {
  size_t n = gq_numel(w->plan->field->shape), i = 0;
  for (int p = 0; p < w->st->l.parts && !i; p++) {
    i = gq_first_nonfinite(w->plan->field->dtype, n, w->y1[p]);
    if (!i && w->st->l.carry) i = gq_first_nonfinite(w->plan->field->dtype, n, w->f1[p]);
  }
  return i ? gq_field_unpacked_index(w->plan->field, i - 1) + 1 : 0;
}

static int fail_nonfinite(const gq_walk *w, double h) {
  size_t i = bad_component(w);
  if (i)
    return gq_fail(GQ_ENONFINITE,
                   "a value that is not finite appeared after t = %.9g (step %.3g), first in component "
                   "%zu of the flattened state",
                   w->t, h, i);
  return gq_fail(GQ_ENONFINITE, "the error estimate is not finite after t = %.9g (step %.3g)", w->t, h);
}

/* A step from or to a jump evaluates f on its own side of it. */
static double margin(const gq_walk *w, double t) {
  for (int i = 0; i < w->njumps; i++)
    if (w->jumps[i] == t) return w->margin;
  return 0;
}

double gq_walk_begin(const gq_walk *w, double t, double dir) {
  return w->njumps ? t + dir * margin(w, t) : t;
}

void gq_walk_times(gq_walk *w, double t, double h, double t1) {
  w->in_scalars[0] = t, w->in_scalars[1] = h, w->in_scalars[2] = w->rtol;
  if (w->njumps == 0) return;
  double dir = h < 0 ? -1 : 1, a = margin(w, t), b = margin(w, t1);
  w->in_scalars[0] += dir * a, w->in_scalars[1] -= dir * (a + b);
}

/* Infinite: a stage did not converge. */
static int attempt_implicit(gq_walk *w, double *ratio) {
  GQ_TRY(gq_implicit_step(w, ratio));
  if (w->st->l.dq < 0 || !isfinite(*ratio)) return GQ_OK;
  GQ_TRY(gq_implicit_errors(w));
  double r = products_norm(w, ATTEMPT);
  if (r > *ratio || r != r) *ratio = isfinite(r) ? r : NAN;
  return GQ_OK;
}

static int fail_newton(const gq_walk *w, double h) {
  return gq_fail(GQ_ENEWTON,
                 "Newton's method for an implicit stage of %s did not converge after t = %.9g (step %.3g)",
                 w->st->m->name, w->t, h);
}

static int attempt(gq_walk *w, double h, double stop, double *ratio) {
  if (w->adams) return gq_adams_attempt(w, h, stop, ratio);
  gq_walk_times(w, w->t, h, w->clamped ? stop : w->t + h);
  if (w->fill_path) GQ_TRY(w->fill_path(w, w->t, h));
  if (w->implicit) return attempt_implicit(w, ratio);
  GQ_TRY(run(w, 0));
  w->nfe += w->st->l.nfe;
  *ratio = 0;
  if (w->st->kind.adaptive) {
    *ratio = error_ratio(w);
  } else {
    for (int p = 0; p < w->st->l.parts; p++)
      if (!isfinite(part_norm(w, w->st->l.finite, p, NULL)) && bad_component(w)) *ratio = NAN;
  }
  return GQ_OK;
}

static int check_budget(const gq_walk *w, double h) {
  if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted at t = %.9g", w->t);
  if (w->steps + w->rejected >= w->max_steps)
    return gq_fail(GQ_EMAXSTEPS, "%lld steps (%lld rejected) reached t = %.9g, next step %.3g",
                   (long long)(w->steps + w->rejected), (long long)w->rejected, w->t, h);
  return GQ_OK;
}

static void accept(gq_walk *w, double h, double stop) {
  w->steps++;
  w->h1 = h;
  w->t1 = w->clamped ? stop : w->t + h;
}

/* The next point of the grid, or the stop where it comes first or differs by rounding. */
double gq_walk_fixed_step(gq_walk *w, double stop, bool clamp) {
  double h = stop - w->t;
  w->clamped = true;
  if (w->step_size <= 0) return h;
  double next = w->t_origin + (w->grid_index + 1) * (h < 0 ? -w->step_size : w->step_size);
  double past = (h < 0 ? stop - next : next - stop) / w->step_size;
  w->clamped = past >= -1e-10 && (clamp || past <= 1e-10);
  return w->clamped ? h : next - w->t;
}

static int step_fixed(gq_walk *w, double stop, bool clamp) {
  double ratio, h = gq_walk_fixed_step(w, stop, clamp);
  GQ_TRY(check_budget(w, h));
  if (w->t + h == w->t)
    return gq_fail(GQ_EUNDERFLOW, "step_size = %.3g does not move t = %.9g", w->step_size, w->t);
  GQ_TRY(attempt(w, h, stop, &ratio));
  if (isinf(ratio)) return fail_newton(w, h);
  if (isnan(ratio)) return fail_nonfinite(w, h);
  gq_steplog_add(w->t, h, 0, true);
  w->grid_index++;
  accept(w, h, stop);
  return GQ_OK;
}

/* The proposal after an accepted step; one shortened to the stop teaches the controller nothing. */
static void learn(gq_walk *w, double h, double ratio) {
  if (w->clamped) return;
  w->h = h * controller(w, ratio);
  w->last_ratio[1] = w->last_ratio[0], w->last_ratio[0] = ratio > 0 ? ratio : 1e-4;
}

int gq_walk_step(gq_walk *w, double stop, bool clamp) {
  if (!w->st->kind.adaptive) return step_fixed(w, stop, clamp);
  double ratio = 0;
  for (int bad = 0, halved = 0;;) {
    double rest = stop - w->t, h = w->h;
    w->clamped = clamp && fabs(h) >= fabs(rest) * (1 - 1e-10);
    if (w->clamped) h = rest;
    GQ_TRY(check_budget(w, h));
    if (!w->clamped && fabs(h) <= 4 * DBL_EPSILON * fabs(w->t) && bad)
      return fail_nonfinite(w, h); /* that is what made it so short */
    if (!w->clamped && fabs(h) <= 4 * DBL_EPSILON * fabs(w->t))
      return halved ? fail_newton(w, h)
                    : gq_fail(GQ_EUNDERFLOW, "the step %.3g no longer moves t = %.9g (error ratio %.3g)", h,
                              w->t, ratio);
    GQ_TRY(attempt(w, h, stop, &ratio));
    gq_steplog_add(w->t, h, ratio, ratio <= 1);
    if (ratio <= 1) {
      learn(w, h, ratio);
      if (halved && fabs(w->h) > fabs(h)) w->h = h;
      accept(w, h, stop);
      return GQ_OK;
    }
    w->rejected++;
    if (isinf(ratio)) { /* a stage that did not converge: Hairer & Wanner IV.8 */
      if (++halved > MAX_HALVED) return fail_newton(w, h);
      w->h = h / 2;
      continue;
    }
    bad = isnan(ratio) ? bad + 1 : 0;
    if (bad > MAX_NONFINITE) return fail_nonfinite(w, h);
    w->h = h * (bad ? fmin(w->o->controller.dfactor, 0.5) : controller(w, ratio));
  }
}

/* Add the slices' product in time, stored in the state's dtype. */
static void add_time(gq_walk *w, int r) {
  const gq_field *f = w->plan->field;
  for (int s = 0; s < f->nslices; s++)
    *w->time += read_scalar(f->dtype, &w->scalars[(size_t)s * w->st->l.nout + w->st->l.q + r]);
}

int gq_walk_phase(gq_walk *w, int phase) {
  const gq_steplayout *l = &w->st->l;
  if (w->adams) return GQ_OK;
  if (w->implicit) return gq_implicit_phase(w, phase);
  for (int s = 0; s < w->plan->field->nslices; s++)
    for (int r = 0; r < l->nq; r++) w->scalars[(size_t)s * l->nout + l->q + r] = 0;
  GQ_TRY(run(w, phase));
  if (phase == 1) w->nfe += l->nfe_dense;
  for (int r = 0; phase == 1 && r < l->nq; r++)
    if (w->st->of[r] < 0) add_time(w, r);
  if (phase == 2 && l->pt >= 0) {
    w->pt = w->ph = 0;
    for (int s = 0; s < w->plan->field->nslices; s++)
      w->pt += w->scalars[(size_t)s * l->nout + l->pt], w->ph += w->scalars[(size_t)s * l->nout + l->ph];
  }
  return GQ_OK;
}

void *gq_walk_slope(const gq_walk *w, int i, int part, int slice) {
  const gq_steplayout *l = &w->st->l;
  const gq_field *f = w->plan->field;
  size_t off = gq_slice_offset(f, slice);
  if (w->adams) return (char *)gq_adams_slope(w, i) + off;
  if (l->carry && i == 0) return (char *)w->f[part] + off;
  if (l->carry && i == w->st->m->end) return (char *)w->f1[part] + off;
  if (w->implicit) return (char *)gq_implicit_slope(w, i, part) + off;
  return gq_program_at(w->st->code.prog[f->class_of[slice]], w->arena[slice], l->k[i] + part);
}

void gq_walk_slope_all(const gq_walk *w, int i, void *dst, const gq_field *f) {
  for (int s = 0; s < f->nslices; s++)
    memcpy((char *)dst + gq_slice_offset(f, s), gq_walk_slope(w, i, 0, s),
           gq_slice_numel(f, s) * gq_dtype_size(f->dtype));
}

void gq_walk_interpolate(const gq_walk *w, int part, int slice, double theta, void *dst) {
  const gq_field *f = w->plan->field;
  double wt[GQ_MAXSTAGES];
  size_t n = gq_slice_numel(f, slice), off = gq_slice_offset(f, slice);
  gq_tableau_weights(w->st->m, theta, wt);
  memcpy(dst, (char *)w->y[part] + off, n * gq_dtype_size(f->dtype));
  for (int i = 0; i < w->st->m->slopes; i++)
    if (wt[i] != 0) gq_axpy(f->dtype, n, w->h1 * wt[i], gq_walk_slope(w, i, part, slice), dst);
}

void gq_walk_interpolate_all(const gq_walk *w, int part, double theta, void *dst) {
  for (int s = 0; s < w->plan->field->nslices; s++)
    gq_walk_interpolate(w, part, s, theta, (char *)dst + gq_slice_offset(w->plan->field, s));
}

void gq_walk_commit(gq_walk *w) {
  for (int p = 0; p < w->st->l.parts; p++) {
    void *y = w->y[p], *f = w->f[p];
    w->y[p] = w->y1[p], w->y1[p] = y;
    w->f[p] = w->f1[p], w->f1[p] = f;
  }
  void *x = w->x;
  w->x = w->x1, w->x1 = x;
  if (w->implicit) gq_implicit_moved(w);
  w->t = w->t1;
}
