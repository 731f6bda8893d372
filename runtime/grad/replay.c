/*
** replay.c -- gradients of a direct solve that can be differentiated again: the accepted steps are
** run once more as recorded operations, and reverse mode with create_graph does the rest. Step
** sizes are constants as in direct.c; those clamped to measurement times follow the times.
*/
#include "../ode/solution.h"
#include "root.h"

#include <string.h>

/* Everything made on the way, freed together at the end. */
typedef struct pool {
  gq_tensor **list;
  int n, room;
} pool;

static int keep(pool *p, gq_tensor *t) {
  int status = gq_room(&p->list, &p->room, p->n, sizeof *p->list);
  if (status == GQ_OK) p->list[p->n++] = t;
  else gq_tensor_unref(t);
  return status;
}

static void pool_done(pool *p) {
  while (p->n) gq_tensor_unref(p->list[--p->n]);
  gq_free(p->list);
}

static int call(pool *p, gq_op op, int n, gq_tensor *const *args, const gq_attr *attr_, gq_tensor **out) {
  GQ_TRY(gq_op_call(op, n, args, attr_, out));
  return keep(p, *out);
}

static int call2(pool *p, gq_op op, gq_tensor *a, gq_tensor *b, gq_tensor **out) {
  return call(p, op, 2, (gq_tensor *[]){ a, b }, NULL, out);
}

static int number(pool *p, double x, gq_tensor **out) {
  GQ_TRY(gq_tensor_new(GQ_F64, gq_shape_of(0, NULL), out));
  *(double *)gq_tensor_data(*out) = x;
  return keep(p, *out);
}

static int cast(pool *p, gq_tensor *x, gq_dtype d, gq_tensor **out) {
  gq_attr attr = { .dtype = d };
  if (x->dtype != d) return call(p, GQ_OP_CAST, 1, &x, &attr, out);
  *out = x;
  return GQ_OK;
}

/* What the refs are, as recorded operations. */
static int evaluate(pool *p, const gq_graph *g, gq_tensor *const *in, int n, const gq_ref *refs,
                    gq_tensor **out) {
  GQ_TRY(gq_evaluate_by(gq_op_call, g, in, n, refs, out));
  int status = GQ_OK;
  for (int i = 0; i < n; i++)
    if (out[i] && status == GQ_OK) status = keep(p, out[i]);
    else gq_tensor_unref(out[i]);
  return status;
}

typedef struct replay {
  gq_pool own; /* its arrays */
  pool p;
  gq_solution *s;
  gq_graph *step;
  gq_outspec *outs;
  gq_steplayout l;
  gq_tensor **in, **out; /* of one step */
  gq_ref *refs;
  gq_tensor **times; /* [nt] 0-d float64 */
  gq_tensor **bv;    /* boundary values */
  gq_tensor **z;     /* [nt] */
  gq_tensor *y, *f, *x[GQ_MAXEXTRA];
  gq_root *root;     /* of implicit stages, or NULL: */
  gq_tensor **stage; /* its inputs */
} replay;

/* Of an SDE what is explicit of a step with an implicit drift is one too. */
static bool is_program(const gq_tableau *m) { return m->steps->program || m->scheme; }

/* Where implicit_step leaves what it makes. */
static void implicit_layout(const gq_tableau *m, gq_steplayout *l) {
  *l = (gq_steplayout){ .slopes = m->slopes, .carry = true, .nout = m->slopes + 2, .f1 = 1, .w = -1 };
  for (int i = 0; i < m->slopes; i++) l->k[i] = 2 + i;
}

static int prepare(replay *r, gq_tensor *z0, gq_tensor *t_, gq_tensor *const *capture) {
  gq_solution *s = r->s;
  gq_plan *plan = s->plan;
  const gq_field *f = plan->field;
  gq_system sys = { .g = f->body,
                    .lent = true,
                    .parts = 1,
                    .last = f->shape.ndim - 1,
                    .noise = f->noise,
                    .moments = f->moments,
                    .intervals = f->intervals,
                    .levy = f->levy };
  gq_stepkind kind = plan->forward.kind;
  kind.pull = kind.error = kind.stiffness = false;
  r->y = r->x[GQ_EXTRA_TWIN] = z0;
  if (is_program(kind.m)) GQ_TRY(gq_step_new(&sys, &kind, f->want, &r->step, &r->outs, &r->l));
  else implicit_layout(kind.m, &r->l);
  if (plan->forward.jacobian) GQ_TRY(gq_root_new(f, plan->jacobian.rows, plan->jacobian.dim, &r->root));
  r->in = gq_pooled(&r->own, r->l.nin, sizeof *r->in);
  r->out = gq_pooled(&r->own, r->l.nout, sizeof *r->out);
  r->refs = gq_pooled(&r->own, r->l.nout + f->nb, sizeof *r->refs);
  r->times = gq_pooled(&r->own, s->nt, sizeof *r->times);
  r->bv = gq_pooled(&r->own, f->nb, sizeof *r->bv);
  r->z = gq_pooled(&r->own, s->nt, sizeof *r->z);
  r->stage = gq_pooled(&r->own, f->nb + 3, sizeof *r->stage);
  GQ_TRY(gq_pool_status(&r->own));
  for (int j = 0; j < f->nb; j++) r->refs[j] = gq_graph_output(f->pro, j);
  GQ_TRY(evaluate(&r->p, f->pro, capture, f->nb, r->refs, r->bv));
  for (int k = 0; k < s->nt; k++) {
    if (!t_) {
      GQ_TRY(number(&r->p, s->t[k], &r->times[k]));
      continue;
    }
    gq_tensor *x;
    gq_attr slice = { .start = { k }, .step = { 1 }, .shape = gq_shape_of(1, (int64_t[]){ 1 }) },
            scalar = { .axis = 0 };
    GQ_TRY(call(&r->p, GQ_OP_SLICE, 1, &t_, &slice, &x));
    GQ_TRY(call(&r->p, GQ_OP_RESHAPE, 1, &x, &scalar, &x));
    GQ_TRY(cast(&r->p, x, GQ_F64, &r->times[k]));
  }
  memcpy(r->stage + 3, r->bv, f->nb * sizeof *r->bv);
  for (int i = 0; r->step && i < r->l.nout; i++) { /* error and finite sums are not needed again */
    bool want = i == r->l.y1 || (r->l.carry && i == r->l.f1) || (i >= r->l.x1 && i < r->l.x1 + r->l.extra);
    for (int j = 0; j < r->l.slopes; j++) want |= i == r->l.k[j];
    r->refs[i] = want ? r->outs[i].ref : GQ_NONE;
  }
  return GQ_OK;
}

/* f(t, r->y), and of an SDE the diffusion */
static int slope_at(replay *r, gq_tensor *t, gq_tensor **out) {
  const gq_field *f = r->s->plan->field;
  gq_tensor **in = gq_calloc(f->nb + 2, sizeof *in), *both[2] = { NULL, NULL };
  int n = f->noise ? 2 : 1;
  gq_ref refs[2] = { gq_graph_output(f->body, 0), n > 1 ? gq_graph_output(f->body, 1) : GQ_NONE };
  if (!in) return gq_nomem(f->nb * sizeof *in);
  int status = cast(&r->p, t, f->dtype, &in[0]);
  in[1] = r->y;
  for (int j = 0; j < f->nb; j++) in[2 + j] = r->bv[j];
  if (status == GQ_OK) status = evaluate(&r->p, f->body, in, n, refs, both);
  *out = both[0];
  if (n > 1) r->x[GQ_EXTRA_DIFFUSION] = both[1];
  gq_free(in);
  return status;
}

/* y + w h x, either of h and x a number */
static int moved(replay *r, gq_tensor *y, double w, gq_tensor *h, gq_tensor *x, gq_tensor **out) {
  gq_tensor *by;
  GQ_TRY(number(&r->p, w, &by));
  GQ_TRY(call2(&r->p, GQ_OP_MUL, h, by, &by));
  GQ_TRY(cast(&r->p, by, y->dtype, &by));
  GQ_TRY(call2(&r->p, GQ_OP_MUL, by, x, &by));
  return call2(&r->p, GQ_OP_ADD, y, by, out);
}

/* z_k = y where t_k coincides with the time t that y is the state at; moving t_k alone moves z_k along the solution:
** y + d (f + f(t + d/2, y + d/2 f) - f(t, y)) where d = t_k - t, which is 0, with its second derivative. */
static int at_step(replay *r, gq_tensor *t, int k) {
  gq_tensor *f = r->f, *y = r->y, *shift, *one, *time, *here, *there;
  r->z[k] = y;
  if (t == r->times[k] || !r->s->t_grad) return GQ_OK;
  GQ_TRY(slope_at(r, t, &here));
  if (!r->l.carry || gq_method_stops(r->s->plan->forward.m)) f = here;
  GQ_TRY(call2(&r->p, GQ_OP_SUB, r->times[k], t, &shift));
  GQ_TRY(number(&r->p, 1, &one));
  GQ_TRY(moved(r, t, 0.5, shift, one, &time));
  GQ_TRY(moved(r, y, 0.5, shift, f, &r->y));
  int status = slope_at(r, time, &there);
  r->y = y;
  if (status != GQ_OK) return status;
  GQ_TRY(call2(&r->p, GQ_OP_SUB, there, here, &there));
  GQ_TRY(call2(&r->p, GQ_OP_ADD, f, there, &f));
  return moved(r, y, 1, shift, f, &r->z[k]);
}

static gq_tensor *slope(const replay *r, int i) {
  if (r->l.carry && i == 0) return r->f;
  if (r->l.carry && i == r->s->plan->forward.m->end) return r->out[r->l.f1];
  return r->out[r->l.k[i]];
}

/* y + h sum_i k_i sum_j d_ij theta^(j+1), theta = (t_k - t) / h */
static int inner(replay *r, gq_tensor *t, gq_tensor *h, int k) {
  const gq_tableau *m = r->s->plan->forward.m;
  gq_dtype d = r->s->plan->field->dtype;
  gq_tensor *theta, *sum = r->y, *w, *c, *term;
  GQ_TRY(call2(&r->p, GQ_OP_SUB, r->times[k], t, &theta));
  GQ_TRY(call2(&r->p, GQ_OP_DIV, theta, h, &theta));
  for (int i = 0; i < m->slopes; i++) {
    GQ_TRY(number(&r->p, 0, &w));
    for (int j = m->dense_degree - 1; j >= 0; j--) {
      GQ_TRY(number(&r->p, m->d[i * m->dense_degree + j], &c));
      GQ_TRY(call2(&r->p, GQ_OP_ADD, w, c, &w));
      GQ_TRY(call2(&r->p, GQ_OP_MUL, w, theta, &w));
    }
    GQ_TRY(call2(&r->p, GQ_OP_MUL, w, h, &w));
    GQ_TRY(cast(&r->p, w, d, &w));
    GQ_TRY(call2(&r->p, GQ_OP_MUL, slope(r, i), w, &term));
    GQ_TRY(call2(&r->p, GQ_OP_ADD, sum, term, &sum));
  }
  r->z[k] = sum;
  return GQ_OK;
}

/* W(t1) - W(t), and what else the step reads of the path; w: [intervals * moments + levy] */
static int noise(replay *r, double t, double t1, gq_tensor **w) {
  gq_along *along = &r->s->along;
  const gq_field *f = r->s->plan->field;
  gq_shape levy = f->wshape;
  int moments = f->intervals * f->moments;
  GQ_TRY(gq_along_step(along, t, t1));
  if (f->levy) levy.dim[levy.ndim] = levy.dim[levy.ndim - 1], levy.ndim++;
  for (int i = 0; i < moments + f->levy; i++) {
    gq_shape shape = i < moments ? f->wshape : levy;
    GQ_TRY(gq_tensor_new_on(f->on->device, f->dtype, shape, &w[i]));
    gq_copy(f->on, gq_tensor_data(w[i]), (char *)along->cast + i * gq_moment_bytes(f),
            gq_numel(shape) * gq_dtype_size(f->dtype));
    GQ_TRY(keep(&r->p, w[i]));
  }
  return GQ_OK;
}

/* Nothing is evaluated behind the last time. */
static bool past(const gq_solution *s, double t) { return s->last < s->t[0] ? t < s->last : t > s->last; }

/* k = f(t + c h, base + w h k) */
static int stage(replay *r, gq_tensor *t, gq_tensor *h, double c, double w, gq_tensor *base,
                 gq_tensor *guess_, gq_tensor **k) {
  gq_tensor *by, *time, *one;
  gq_dtype d = r->s->plan->field->dtype;
  GQ_TRY(number(&r->p, w, &by));
  GQ_TRY(call2(&r->p, GQ_OP_MUL, h, by, &by));
  GQ_TRY(number(&r->p, 1, &one));
  GQ_TRY(moved(r, t, c, h, one, &time));
  if (past(r->s, *(double *)gq_tensor_data(time))) GQ_TRY(number(&r->p, r->s->last, &time));
  GQ_TRY(cast(&r->p, time, d, &r->stage[0]));
  r->stage[1] = base;
  GQ_TRY(cast(&r->p, by, d, &r->stage[2]));
  GQ_TRY(gq_root_solve(r->root, r->stage, guess_, k));
  return keep(&r->p, *k);
}

/* y + h sum_j<n w_j k_j */
static int combined(replay *r, gq_tensor *h, int n, const double *w, gq_tensor **out) {
  *out = r->y;
  for (int j = 0; j < n; j++)
    if (w[j] != 0) GQ_TRY(moved(r, *out, w[j], h, slope(r, j), out));
  return GQ_OK;
}

/* A step of a diagonally implicit method. */
static int implicit_step(replay *r, gq_tensor *t, gq_tensor *h) {
  const gq_tableau *m = r->s->plan->forward.m;
  gq_tensor *base, *before = r->f, **y1 = &r->out[r->l.y1], **f1 = &r->out[r->l.f1];
  for (int i = 1; i < m->stages; i++) {
    const double *a = m->a + (size_t)i * m->stages;
    GQ_TRY(combined(r, h, i, a, &base));
    GQ_TRY(stage(r, t, h, m->c[i], a[i], base, before, i == m->end ? f1 : &r->out[r->l.k[i]]));
    before = slope(r, i);
    if (i == m->end) GQ_TRY(moved(r, base, a[i], h, before, y1));
  }
  if (m->end < m->stages) return GQ_OK;
  gq_tensor *one, *t1, *y = r->y;
  GQ_TRY(combined(r, h, m->stages, m->b, y1));
  GQ_TRY(number(&r->p, 1, &one));
  GQ_TRY(moved(r, t, 1, h, one, &t1));
  r->y = *y1;
  int status = slope_at(r, t1, f1);
  r->y = y;
  return status;
}

/* The drift at the end of an SDE's step, which is implicit. */
static int implicit_drift(replay *r, gq_tensor *t, gq_tensor *h) {
  double theta = r->s->plan->forward.kind.theta;
  gq_tensor *k, *base = r->out[r->l.y1];
  GQ_TRY(stage(r, t, h, 1, theta, base, NULL, &k));
  return moved(r, base, theta, h, k, &r->out[r->l.y1]);
}

static int program_step(replay *r, const gq_step_record *rec, double end, gq_tensor *t, gq_tensor *h) {
  gq_tensor *one; /* tolerances and product weights: what is asked for does not read them */
  GQ_TRY(number(&r->p, 1, &one));
  for (int i = 0; i < r->l.nin; i++) r->in[i] = one;
  r->in[r->l.t] = t, r->in[r->l.h] = r->in[r->l.ht] = h, r->in[r->l.y] = r->y;
  if (r->l.carry) r->in[r->l.f] = r->f;
  memcpy(r->in + r->l.x, r->x, r->l.extra * sizeof *r->x);
  if (r->l.w >= 0) GQ_TRY(noise(r, rec->t, end, &r->in[r->l.w]));
  for (int j = 0; j < r->s->plan->field->nb; j++) r->in[r->l.bv + j] = r->bv[j];
  return evaluate(&r->p, r->step, r->in, r->l.nout, r->refs, r->out);
}

static int step(replay *r, const gq_step_record *rec, double end, int *k) {
  gq_solution *s = r->s;
  gq_tensor *t, *h, *shift;
  double dir = rec->h < 0 ? -1 : 1;
  bool stops = gq_step_moves(s, rec);
  GQ_TRY(number(&r->p, rec->t - s->t[rec->anchor], &shift));
  GQ_TRY(call2(&r->p, GQ_OP_ADD, r->times[rec->anchor], shift, &t));
  if (stops) GQ_TRY(call2(&r->p, GQ_OP_SUB, r->times[rec->stop], t, &h));
  else GQ_TRY(number(&r->p, rec->h, &h));
  GQ_TRY(r->step ? program_step(r, rec, end, t, h) : implicit_step(r, t, h));
  if (r->step && r->root) GQ_TRY(implicit_drift(r, t, h));
  for (; *k < s->nt && dir * (s->t[*k] - end) < 0; ++*k) GQ_TRY(inner(r, t, h, *k));
  r->y = r->out[r->l.y1];
  if (r->l.carry) r->f = r->out[r->l.f1];
  memcpy(r->x, r->out + r->l.x1, r->l.extra * sizeof *r->x);
  if (stops) t = r->times[rec->stop];
  else GQ_TRY(call2(&r->p, GQ_OP_ADD, t, h, &t));
  for (; *k < s->nt && s->t[*k] == end; ++*k) GQ_TRY(at_step(r, t, *k));
  return GQ_OK;
}

/* z at the times as one recorded tensor {nt, ...}. */
static int solve_again(replay *r, gq_tensor **z) {
  gq_solution *s = r->s;
  int k = 0, status = GQ_OK;
  if (r->l.carry && (!s->trivial || s->t_grad)) status = slope_at(r, r->times[0], &r->f);
  for (; status == GQ_OK && k < s->nt && s->t[k] == s->t[0]; k++) status = at_step(r, r->times[0], k);
  for (int64_t i = 0; status == GQ_OK && i < s->steps.n; i++) {
    gq_step_record rec = gq_step(&s->steps, i);
    status = step(r, &rec, gq_step(&s->steps, i + 1).t, &k);
  }
  gq_shape row = s->z->shape;
  row.dim[0] = 1;
  gq_attr attr = { .shape = row }, axis = { .axis = 0 };
  for (k = 0; status == GQ_OK && k < s->nt; k++)
    status = call(&r->p, GQ_OP_RESHAPE, 1, &r->z[k], &attr, &r->z[k]);
  return status == GQ_OK ? call(&r->p, GQ_OP_CAT, s->nt, r->z, &axis, z) : status;
}

/* Recorded copies of the inputs that want gradients: one input may be made from another, and derivatives
** must stop at each. in: z0, t, captures; NULL or not wanted stays as it is. */
static int separate(replay *r, int n, const bool *want, gq_tensor **in) {
  for (int i = 0; i < n; i++) {
    gq_attr same = { .shape = in[i] ? in[i]->shape : (gq_shape){ 0 } };
    if (want[i]) GQ_TRY(call(&r->p, GQ_OP_RESHAPE, 1, &in[i], &same, &in[i]));
  }
  return GQ_OK;
}

/* in, want and grad: z0, t, captures. */
static int replay_run(replay *r, int n, const bool *want, gq_tensor **in, gq_tensor *gz, gq_tensor **grad) {
  gq_tensor *z = NULL, **wrt = in + n, **found = grad + n;
  int nw = 0;
  GQ_TRY(separate(r, n, want, in));
  GQ_TRY(prepare(r, in[0], in[1], in + 2));
  GQ_TRY(solve_again(r, &z));
  for (int i = 0; i < n; i++)
    if (want[i]) wrt[nw++] = in[i];
  GQ_TRY(gq_grad(1, &z, &gz, nw, wrt, true, found));
  nw = 0;
  for (int i = 0; i < n; i++) grad[i] = want[i] ? found[nw++] : NULL;
  return GQ_OK;
}

static void replay_done(replay *r) {
  pool_done(&r->p);
  gq_graph_free(r->step);
  gq_free(r->outs);
  gq_steplayout_done(&r->l);
  gq_root_free(r->root);
  gq_pool_free(&r->own);
}

int gq_odeint_replay(gq_solution *s, gq_tensor *z0, gq_tensor *t_, gq_tensor *const *capture, gq_tensor *gz,
                     gq_tensor **gz0, gq_tensor **gt_, gq_tensor **gcapture) {
  const gq_field *f = s->plan->field;
  GQ_TRY(gq_solution_check_again(s));
  replay r = { .s = s };
  GQ_TRY(gq_plan_enter(s->plan));
  int status = gq_solution_records(s);
  gq_plan_leave(s->plan);
  if (status != GQ_OK) return status;
  int n = f->ncapture + 2;
  gq_tensor **in = gq_pooled(&r.own, 2 * n, sizeof *in), **grad = gq_pooled(&r.own, 2 * n, sizeof *grad);
  bool *want = gq_pooled(&r.own, n, sizeof *want), recording = gq_set_recording(true);
  status = gq_pool_status(&r.own);
  if (status == GQ_OK) {
    in[0] = z0, in[1] = t_;
    want[0] = s->z0_grad, want[1] = t_ != NULL;
    memcpy(in + 2, capture, f->ncapture * sizeof *in);
    memcpy(want + 2, f->want_capture, f->ncapture * sizeof *want);
    status = replay_run(&r, n, want, in, gz, grad);
  }
  if (status == GQ_OK) {
    *gz0 = grad[0];
    if (t_) *gt_ = grad[1];
    memcpy(gcapture, grad + 2, f->ncapture * sizeof *grad);
  }
  gq_set_recording(recording);
  replay_done(&r);
  return status;
}
