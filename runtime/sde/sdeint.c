/*
** sdeint.c -- forward solves of SDEs with fixed steps. One step is a program (step.c), run on
** slices of rows, a thread each; the loop here makes times and noise, and looks for numbers that
** are not finite. It allocates nothing.
*/
#include "scheme.h"

#include <math.h>
#include <string.h>

typedef struct solver {
  const gq_sde_problem *p;
  const gq_sde_method *m;
  gq_brownian *w;
  gq_field *field;
  gq_binding *binding;
  gq_code step, start; /* start: drift and diffusion at t0, for methods that carry them */
  gq_dtype dtype;
  gq_shape wshape;
  size_t size;                 /* bytes of a number */
  size_t row[GQ_SDE_MAXPARTS]; /* bytes of a row of each part, of the whole part with one slice */
  size_t bytes[GQ_SDE_MAXPARTS], wrow;
  char *state[2][GQ_SDE_MAXPARTS]; /* before and after a step */
  int now;
  double *dw;      /* [count of W] */
  char *cast;      /* the same in the state's dtype, */
  char *turned;    /* and as the slices hold states */
  void **arena;    /* [nslices] */
  const void **in; /* [nslices][nin] */
  void **out;      /* [nslices][nout] */
  int nin, nout;
  double time[3]; /* t, t1, h */
  float time32[3];
  void *block;
  gq_sde_info *info;
} solver;

/* ---- checks ---- */

static int check_times(const gq_sde_problem *p) {
  if (p->nt < 1) return gq_fail(GQ_EARG, "no times: expected at least one");
  for (int k = 0; k < p->nt; k++) {
    if (!isfinite(p->t[k]))
      return gq_fail(GQ_EARG, "time %d is %g: expected a finite number", k + 1, p->t[k]);
    if (k && p->t[k] < p->t[k - 1])
      return gq_fail(GQ_EARG, "times do not increase: time %d is %.17g after %.17g", k + 1, p->t[k],
                     p->t[k - 1]);
  }
  return GQ_OK;
}

static int check_calculus(const gq_sde_problem *p, const gq_sde_method *m) {
  char fits[160] = "";
  if (m->calculus == p->calculus) return GQ_OK;
  for (int i = 0; i < gq_nsde_methods; i++) {
    if (gq_sde_methods[i].calculus != p->calculus) continue;
    if (fits[0]) strcat(fits, ", ");
    strcat(fits, gq_sde_methods[i].name);
  }
  return gq_fail(GQ_EARG, "method \"%s\" solves %s SDEs and this one is %s: use %s", m->name,
                 gq_calculus_names[m->calculus], gq_calculus_names[p->calculus], fits);
}

static int check_step(const gq_sde_problem *p, double dt, const gq_brownian *w) {
  double span = p->t[p->nt - 1] - p->t[0];
  if (!(dt > 0) || !isfinite(dt)) return gq_fail(GQ_EARG, "dt is %g: expected a positive number", dt);
  if (span / dt > 1e9) /* hours at least: a mistake rather than a wish */
    return gq_fail(GQ_EARG, "dt is %g: %.3g steps for an interval of %g, expected at most 1e9: raise dt", dt,
                   span / dt, span);
  if (span > 0 && gq_brownian_tol(w) > 0.5 * dt)
    return gq_fail(
      GQ_EARG,
      "dt is %g, but the Brownian path is made for steps above %g: give gq.brownian a tol of at most %g", dt,
      2 * gq_brownian_tol(w), dt / 2);
  return GQ_OK;
}

static int check_brownian(const gq_sde_problem *p, const gq_brownian *w) {
  gq_shape shape, have = gq_brownian_shape(w);
  char a[128], b[128];
  double t0 = p->t[0], t1 = p->t[p->nt - 1];
  GQ_TRY(gq_sde_noise_shape(p, &shape));
  if (!gq_shape_equal(shape, have))
    return gq_fail(GQ_ESHAPE, "the Brownian path has shape %s: this SDE needs %s",
                   gq_shape_text(have, a, sizeof a), gq_shape_text(shape, b, sizeof b));
  double slack = gq_brownian_slack(w);
  if (t0 < gq_brownian_t0(w) - slack || t1 > gq_brownian_t1(w) + slack)
    return gq_fail(GQ_EARG, "the Brownian path lives on [%g, %g]: the times go from %g to %g",
                   gq_brownian_t0(w), gq_brownian_t1(w), t0, t1);
  return GQ_OK;
}

static int check(const gq_sde_problem *p, const gq_sde_method *m, double dt, const gq_brownian *w) {
  if (!gq_is_float(p->z0->dtype))
    return gq_fail(GQ_EDTYPE, "z0 is %s: expected float32 or float64", gq_dtype_name(p->z0->dtype));
  if (p->z0->shape.ndim >= GQ_MAXDIM)
    return gq_fail(GQ_ESHAPE, "z0 has %d dimensions: at most %d", p->z0->shape.ndim, GQ_MAXDIM - 1);
  if (gq_tensor_device(p->z0) != gq_host)
    return gq_fail(GQ_EUNSUPPORTED, "sdeint runs on the CPU and z0 is on %s: use x:to(\"cpu\")",
                   gq_tensor_device(p->z0)->name);
  GQ_TRY(check_times(p));
  GQ_TRY(check_calculus(p, m));
  GQ_TRY(check_brownian(p, w));
  return check_step(p, dt, w);
}

/* ---- compiling ---- */

static int compile(const gq_backend *on, const gq_graph *g, gq_program **prog) {
  gq_outspec outs[GQ_SDE_MAXPARTS];
  int n = gq_graph_outputs(g);
  for (int i = 0; i < n; i++) outs[i] = (gq_outspec){ gq_graph_output(g, i), 0, GQ_STORE };
  return gq_program_new(on, g, n, outs, prog);
}

static int compile_class(solver *s, int c) {
  gq_graph *g;
  GQ_TRY(gq_sde_step(s->field->class_body[c], s->p->noise, s->m, &g));
  int status = compile(s->field->on, g, &s->step.prog[c]);
  s->nin = gq_graph_inputs(g);
  gq_graph_free(g);
  if (status == GQ_OK && s->m->parts > 1)
    status = compile(s->field->on, s->field->class_body[c], &s->start.prog[c]);
  return status;
}

static int prepare(solver *s) {
  gq_graph *fg;
  GQ_TRY(gq_sde_normalise(s->p, &fg));
  gq_shape z = gq_graph_node(fg, gq_graph_input(fg, 1))->shape;
  gq_shape g = gq_graph_node(fg, gq_graph_output(fg, 1))->shape;
  s->wshape = gq_sde_w_shape(s->p->noise, z, g);
  for (int i = 0; i < s->m->parts; i++) s->bytes[i] = (size_t)gq_numel(i == 3 ? g : z) * s->size;
  bool columns = s->p->noise == GQ_DIAGONAL; /* dW has the state's shape, so that it turns with it */
  int status = gq_field_new(gq_backend_of(s->p->z0), fg, s->p->ncapture, NULL, columns, &s->field);
  gq_graph_free(fg);
  GQ_TRY(status);
  for (int c = 0; c < s->field->nclass; c++) GQ_TRY(compile_class(s, c));
  s->nout = s->m->parts;
  return gq_binding_new(s->field, s->p->capture, &s->binding);
}

/* ---- memory: one block ---- */

static size_t arena_bytes(const solver *s) {
  size_t a = gq_code_arena(&s->step), b = s->m->parts > 1 ? gq_code_arena(&s->start) : 0;
  return gq_round64(a > b ? a : b) + 64;
}

static char *take(char **next, size_t bytes) {
  char *p = *next;
  *next += gq_round64(bytes);
  return p;
}

static int allocate(solver *s) {
  size_t nw = (size_t)gq_numel(s->wshape), ns = (size_t)s->field->nslices, total = 64, arena = arena_bytes(s);
  size_t nin = gq_round64(ns * (size_t)s->nin * sizeof(void *)),
         nout = gq_round64(ns * (size_t)s->nout * sizeof(void *)), arenas = gq_round64(ns * sizeof(void *));
  for (int i = 0; i < s->m->parts; i++) total += 2 * gq_round64(s->bytes[i]);
  total += gq_round64(nw * sizeof(double)) + 2 * gq_round64(nw * s->size) + ns * arena + nin + nout + arenas;
  s->block = gq_calloc(1, total);
  if (!s->block) return gq_nomem(total);
  char *next = s->block;
  for (int i = 0; i < s->m->parts; i++) {
    s->state[0][i] = take(&next, s->bytes[i]);
    s->state[1][i] = take(&next, s->bytes[i]);
  }
  s->dw = (double *)take(&next, nw * sizeof(double));
  s->cast = s->dtype == GQ_F64 ? (char *)s->dw : take(&next, nw * s->size);
  s->turned = gq_field_plain(s->field) ? s->cast : take(&next, nw * s->size);
  s->arena = (void **)take(&next, arenas);
  for (size_t i = 0; i < ns; i++) s->arena[i] = take(&next, arena);
  s->in = (const void **)take(&next, nin);
  s->out = (void **)take(&next, nout);
  return GQ_OK;
}

/* Bytes between rows of what is cut; 0 where every slice reads all of it. */
static void set_rows(solver *s) {
  int64_t rows = s->field->nslices > 1 ? s->field->shape.dim[0] : 0;
  bool cut = rows && (s->p->noise == GQ_DIAGONAL || s->field->shape.ndim > 1);
  for (int i = 0; i < s->m->parts; i++) s->row[i] = rows ? s->bytes[i] / (size_t)rows : 0;
  s->wrow = cut ? (size_t)gq_numel(s->wshape) * s->size / (size_t)rows : 0;
}

/* ---- one step ---- */

static const void *time_at(const solver *s, int i) {
  return s->dtype == GQ_F64 ? (const void *)&s->time[i] : (const void *)&s->time32[i];
}

static void set_time(solver *s, double t, double t1, double h) {
  const double x[3] = { t, t1, h };
  for (int i = 0; i < 3; i++) s->time[i] = x[i], s->time32[i] = (float)x[i];
}

static void bind_boundary(solver *s, int k, const void **in) {
  for (int j = 0; j < s->field->nb; j++) in[j] = s->binding->value[k * s->field->nb + j];
}

static int run_step(solver *s) {
  char *const *from = s->state[s->now], *const *to = s->state[!s->now];
  for (int k = 0; k < s->field->nslices; k++) {
    const void **in = s->in + k * s->nin;
    size_t first = (size_t)s->field->first[k];
    for (int i = 0; i < 3; i++) in[i] = time_at(s, i);
    in[GQ_SDE_DW] = s->turned + first * s->wrow;
    for (int i = 0; i < s->m->parts; i++) {
      in[GQ_SDE_STATE + i] = from[i] + first * s->row[i];
      s->out[k * s->nout + i] = to[i] + first * s->row[i];
    }
    bind_boundary(s, k, in + GQ_SDE_STATE + s->m->parts);
  }
  GQ_TRY(gq_code_run(s->field, &s->step, 0, s->arena, s->in, s->nin, s->out, s->nout));
  s->now = !s->now;
  s->info->nfe += s->m->nfe;
  s->info->steps++;
  return GQ_OK;
}

/* zhat = z0, and drift and diffusion there (Algorithm 1 of Kidger et al., "Input"). */
static int run_start(solver *s) {
  char *const *x = s->state[s->now];
  if (s->m->parts == 1) return GQ_OK;
  set_time(s, s->p->t[0], s->p->t[0], 0);
  gq_copy(s->field->on, x[1], x[0], s->bytes[0]);
  int nin = 2 + s->field->nb;
  for (int k = 0; k < s->field->nslices; k++) {
    const void **in = s->in + k * nin;
    size_t first = (size_t)s->field->first[k];
    in[0] = time_at(s, 0);
    in[1] = x[0] + first * s->row[0];
    bind_boundary(s, k, in + 2);
    for (int i = 0; i < 2; i++) s->out[k * 2 + i] = x[2 + i] + first * s->row[2 + i];
  }
  s->info->nfe++;
  return gq_code_run(s->field, &s->start, 0, s->arena, s->in, nin, s->out, 2);
}

static int make_noise(solver *s, double t, double t1) {
  GQ_TRY(gq_brownian_increment(s->w, t, t1, s->dw));
  if (s->cast != (char *)s->dw)
    s->field->on->vec->put(s->dtype, (size_t)gq_numel(s->wshape), s->dw, s->cast, 1);
  if (s->turned != s->cast) gq_field_pack(s->field, s->cast, s->turned);
  return GQ_OK;
}

static int check_finite(const solver *s, double t) {
  size_t n = s->bytes[0] / s->size, i = s->field->on->vec->nonfinite(s->dtype, n, s->state[s->now][0]);
  if (!i) return GQ_OK;
  return gq_fail(
    GQ_ENONFINITE,
    "the state is not finite at t = %g: first in component %zu of %zu, after %lld steps of at most %g", t,
    gq_field_unpacked_index(s->field, i - 1) + 1, n, (long long)s->info->steps, s->time[2]);
}

static int advance(solver *s, double t, double t1) {
  double h = t1 - t;
  if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "sdeint was interrupted at t = %g", t);
  GQ_TRY(make_noise(s, t, t1));
  set_time(s, t, s->m->middle ? t + 0.5 * h : t1, h);
  GQ_TRY(run_step(s));
  GQ_TRY(check_finite(s, t1));
  s->info->t_reached = t1;
  return GQ_OK;
}

/* ---- the loop ---- */

/* Steps of dt from start to end, the last one shortened. A remainder below a thousandth of dt, as times
** rounded to float32 leave it, is no step of its own: the last step is that much longer. */
static int cross(solver *s, double start, double end, double dt) {
  double n = ceil((end - start) / dt - 1e-3), t = start;
  if (start == end) return GQ_OK;
  if (n < 1) n = 1;
  for (double i = 1; i <= n; i++) {
    double next = i < n ? start + i * dt : end;
    if (next <= t) continue;
    GQ_TRY(advance(s, t, next));
    t = next;
  }
  return GQ_OK;
}

static int solve(solver *s, double dt, gq_tensor *z) {
  const gq_sde_problem *p = s->p;
  char *out = gq_tensor_data(z);
  gq_tensor *z0;
  GQ_TRY(gq_tensor_contiguous_get(p->z0, &z0));
  gq_field_pack(s->field, gq_tensor_data(z0), s->state[0][0]);
  gq_tensor_unref(z0);
  GQ_TRY(check_finite(s, p->t[0]));
  GQ_TRY(run_start(s));
  gq_field_unpack(s->field, s->state[0][0], out);
  for (int k = 1; k < p->nt; k++) {
    GQ_TRY(cross(s, p->t[k - 1], p->t[k], dt));
    gq_field_unpack(s->field, s->state[s->now][0], out + (size_t)k * s->bytes[0]);
  }
  return GQ_OK;
}

static int new_result(const gq_sde_problem *p, gq_tensor **z) {
  gq_shape shape = { .ndim = p->z0->shape.ndim + 1, .dim = { p->nt } };
  for (int i = 1; i < shape.ndim; i++) shape.dim[i] = p->z0->shape.dim[i - 1];
  return gq_tensor_new(p->z0->dtype, shape, z);
}

static void release(solver *s) {
  gq_free(s->block);
  gq_binding_free(s->binding);
  gq_code_free(&s->step);
  gq_code_free(&s->start);
  gq_field_free(s->field);
}

static int run(solver *s, double dt, gq_tensor **z) {
  GQ_TRY(prepare(s));
  GQ_TRY(allocate(s));
  set_rows(s);
  GQ_TRY(new_result(s->p, z));
  return solve(s, dt, *z);
}

int gq_sdeint(const gq_sde_problem *p, const gq_sde_method *m, double dt, gq_brownian *w, gq_tensor **z,
              gq_sde_info *info) {
  solver s = {
    .p = p, .m = m, .w = w, .dtype = p->z0->dtype, .size = gq_dtype_size(p->z0->dtype), .info = info
  };
  size_t before = gq_live_bytes();
  *z = NULL;
  *info = (gq_sde_info){ .t_reached = p->nt > 0 ? p->t[0] : 0 };
  info->status = check(p, m, dt, w);
  if (info->status != GQ_OK) return info->status;
  info->status = run(&s, dt, z);
  info->peak_bytes = gq_live_bytes() - before; /* everything is alive until here */
  release(&s);
  if (info->status != GQ_OK) {
    gq_tensor_unref(*z);
    *z = NULL;
  }
  return info->status;
}
