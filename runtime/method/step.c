/*
** step.c -- a step as a graph: stages unrolled, error sums and product sums included.
** Its vjp is the discrete adjoint of the step, so no derivative is written by hand here.
**
** Runge-Kutta:
** y_i = y + sum_j (h a_ij) k_j,  k_i = f(t + c_i h, y_i),  y1 = y + sum_i (h b_i) k_i,
** scalars are float64 nodes, cast to the state's dtype where they meet it.
*/
#include "builder.h"
#include "heuristic.h"

typedef gq_builder builder;

/* The system's inputs before its boundary values. */
static int first_boundary(const builder *b) { return 1 + b->s->parts + b->s->given + (b->s->rise ? 2 : 0); }

static gq_ref scalar_input(builder *b) { return gq_input(b->g, GQ_F64, gq_shape_of(0, NULL)); }

/* One number of float64: for all, or each row's own. */
static gq_shape scalar_shape(const builder *b) { return gq_shape_of(b->s->lanes ? 1 : 0, &b->s->lanes); }
static gq_ref row_input(builder *b) { return gq_input(b->g, GQ_F64, scalar_shape(b)); }

/* Dims of part p that its error sums over: all but the rows'. */
static int summed(const builder *b, int p) {
  int rank = gq_builder_input(b, 1 + p)->shape.ndim;
  if (b->s->lanes && b->s->front) return (1 << rank) - 2;
  return (1 << (b->s->lanes ? rank - 1 : rank)) - 1;
}

static gq_ref like_input(builder *b, int i) {
  const gq_node *n = gq_builder_input(b, i);
  return gq_input(b->g, n->dtype, n->shape);
}

static gq_ref extra_input(builder *b, int e) {
  if (e == GQ_EXTRA_TWIN) return like_input(b, 1);
  const gq_node *n = gq_graph_node(b->s->g, gq_graph_output(b->s->g, 1));
  return gq_input(b->g, n->dtype, n->shape);
}

static gq_ref noise_input(builder *b) {
  if (b->s->rise) return like_input(b, first_boundary(b) - 1);
  gq_shape G = gq_graph_node(b->s->g, gq_graph_output(b->s->g, 1))->shape;
  return gq_input(b->g, b->dtype, gq_noise_shape(b->s->noise, gq_builder_input(b, 1)->shape, G));
}

/* Of interval i: the whole step, its first and its second half. */
static void take_noise(builder *b, int i) {
  const gq_ref *of = b->noise + (size_t)i * b->s->moments;
  b->dw = of[0];
  for (int m = 1; m < b->s->moments; m++) b->area[m - 1] = of[m];
}

/* {.., m, m} for W {.., m} */
static gq_ref levy_input(builder *b) {
  gq_shape s = gq_graph_node(b->g, b->dw)->shape;
  s.dim[s.ndim] = s.dim[s.ndim - 1], s.ndim++;
  return gq_input(b->g, b->dtype, s);
}

static void inputs(builder *b) {
  gq_steplayout *l = b->l;
  int n = 0, parts = l->parts;
  l->t = n++, b->t = row_input(b);
  l->h = n++, b->h = row_input(b);
  l->ht = n++, b->ht = row_input(b);
  l->rtol = n++, b->rtol = scalar_input(b);
  l->atol = n, n += parts;
  for (int p = 0; p < parts; p++) b->atol[p] = row_input(b);
  l->y = n, n += parts;
  for (int p = 0; p < parts; p++) b->y[p] = like_input(b, 1 + p);
  l->f = -1;
  if (l->carry) {
    l->f = n, n += parts;
    for (int p = 0; p < parts; p++) b->slope[0][p] = like_input(b, 1 + p);
  }
  l->x = n, n += l->extra;
  for (int e = 0; e < l->extra; e++) b->x[e] = extra_input(b, e);
  l->w = -1;
  if (b->s->rise) l->w = n++, b->dw = noise_input(b);
  if (b->s->noise) {
    l->w = n, n += l->moments = b->s->moments * b->s->intervals;
    for (int i = 0; i < l->moments; i++) b->noise[i] = noise_input(b);
    take_noise(b, 0);
  }
  l->levy = b->s->levy ? n++ : -1;
  if (b->s->levy) b->levy = levy_input(b);
  l->path = -1;
  if (l->given) {
    l->path = n, n += l->slopes * l->given;
    for (int i = 0; i < l->slopes; i++)
      for (int k = 0; k < l->given; k++) {
        gq_ref x = like_input(b, 1 + parts + k);
        int twin =
          gq_tableau_twin(b->k->m, i); /* what two stages make of the path at one time is made once */
        b->path[i][k] = twin < i ? b->path[twin][k] : x;
      }
  }
  l->wq = n, n += l->slopes;
  for (int i = 0; i < l->slopes; i++) b->wq[i] = scalar_input(b);
  l->bv = n, n += b->nb;
  for (int j = 0; j < b->nb; j++) b->bv[j] = like_input(b, first_boundary(b) + j);
  l->h2 = l->w2 = l->y2 = l->f2 = l->x2 = -1;
  if (b->k->inverse && b->k->pull) {
    l->h2 = n++, b->h2 = scalar_input(b);
    if (b->s->noise) l->w2 = n++, b->dw2 = noise_input(b);
    l->y2 = n++, b->y2 = like_input(b, 1);
    l->f2 = n++, b->f2 = like_input(b, 1);
    l->x2 = n, n += l->extra;
    for (int e = 0; e < l->extra; e++) b->x2[e] = extra_input(b, e);
  }
  l->nin = n;
}

/* y + sum_i (h w_i) slope_i */
static gq_ref combine(builder *b, gq_ref y, const double *w, int n, int part) {
  for (int i = 0; i < n; i++)
    if (w[i] != 0) y = gq_builder_move(b, y, w[i], b->slope[i][part]);
  return y;
}

/* Stages; the end slope sits at index m->end, whether it is a stage or not. */
static void stages(builder *b) {
  const gq_tableau *m = b->k->m;
  gq_ref y[GQ_MAXPARTS];
  for (int i = 0; i < m->slopes; i++) {
    if (i == m->end)
      for (int p = 0; p < b->l->parts; p++) b->y1[p] = combine(b, b->y[p], m->b, m->used, p);
    for (int p = 0; p < b->l->parts; p++)
      y[p] = i == m->end ? b->y1[p] : combine(b, b->y[p], m->a + (size_t)i * m->stages, i, p);
    gq_builder_evaluate(b, i, i == m->end ? 1 : m->c[i], y);
  }
}

/* Two half steps; less the whole one is its error. */
static int half_steps(builder *b) {
  builder whole = *b;
  GQ_TRY(whole.k->m->scheme->step(&whole));
  b->h = gq_scale(b->g, b->h, 0.5), b->ht = gq_scale(b->g, b->ht, 0.5);
  for (int i = 1; i < 3; i++) {
    take_noise(b, i);
    b->again = i == 1;
    GQ_TRY(b->k->m->scheme->step(b));
    b->y[0] = b->y1[0];
    if (i == 1) b->t = gq_emit2(b->g, GQ_OP_ADD, b->t, b->ht);
  }
  b->t = whole.t, b->h = whole.h, b->ht = whole.ht, b->y[0] = whole.y[0];
  b->calls += whole.calls;
  b->err[0] = gq_emit2(b->g, GQ_OP_SUB, b->y1[0], whole.y1[0]);
  return gq_graph_status(b->g);
}

static int step(builder *b) {
  if (b->k->m->tuple) b->k->m->tuple->step(b, b->k->inverse ? -1 : 1);
  else if (b->s->intervals > 1) return half_steps(b);
  else if (b->k->m->scheme) return b->k->m->scheme->step(b);
  else stages(b);
  return GQ_OK;
}

/* sum_i h w_i k_i of part p */
static gq_ref weighted_slopes(builder *b, const double *w, int p) {
  gq_graph *g = b->g;
  gq_ref sum = GQ_NONE;
  for (int i = 0; i < b->k->m->stages; i++) {
    if (w[i] == 0) continue;
    gq_ref term = gq_emit2(g, GQ_OP_MUL, gq_builder_to_rows(b, gq_scale(g, b->h, w[i])), b->slope[i][p]);
    sum = sum == GQ_NONE ? term : gq_emit2(g, GQ_OP_ADD, sum, term);
  }
  return sum;
}

/* sum (or maximum) over the part of (sum_i h e_i k_i / (atol + rtol max(|y|, |y1|)))^2 */
static gq_ref error_sum(builder *b, const double *e, int p) {
  gq_graph *g = b->g;
  gq_ref err = b->k->m->scheme ? b->err[p] : weighted_slopes(b, e, p);
  gq_ref size = gq_emit2(g, GQ_OP_MAXIMUM, gq_emit1(g, GQ_OP_ABS, b->y[p]), gq_emit1(g, GQ_OP_ABS, b->y1[p]));
  gq_ref scale = gq_emit2(g, GQ_OP_ADD, gq_builder_to_rows(b, b->atol[p]),
                          gq_emit2(g, GQ_OP_MUL, gq_builder_to_state(b, b->rtol), size));
  gq_ref sq = gq_emit1(g, GQ_OP_SQUARE, gq_emit2(g, GQ_OP_DIV, err, scale));
  int all = summed(b, p);
  if (b->k->max_norm && gq_numel(gq_graph_node(g, sq)->shape) > 0) { /* that of no numbers is their sum, 0 */
    gq_attr attr = { .flags = all };
    sq = all ? gq_emit(g, GQ_OP_AMAX, 1, &sq, &attr) : sq;
  } else {
    sq = gq_sum_axes(g, sq, all);
  }
  return gq_cast(g, gq_reshape(g, sq, scalar_shape(b)), GQ_F64);
}

/* Every number finite? Their sum tells (fixed steps have no error to look at). */
static gq_ref finite_sum(builder *b, int p) {
  gq_ref sum = gq_sum_axes(b->g, b->y1[p], summed(b, p));
  return gq_cast(b->g, gq_reshape(b->g, sum, scalar_shape(b)), GQ_F64);
}

static gq_outspec output(const builder *b, gq_ref r, int phase, gq_outmode mode) {
  return (gq_outspec){ r, b->k->whole ? 2 : phase, mode };
}

static void put(builder *b, gq_ref r, int phase, gq_outmode mode) {
  b->outs[b->l->nout++] = output(b, r, phase, mode);
}

static void state_outputs(builder *b) {
  gq_steplayout *l = b->l;
  const gq_tableau *m = b->k->m;
  l->y1 = l->nout;
  for (int p = 0; p < l->parts; p++) put(b, b->y1[p], 0, GQ_STORE);
  l->f1 = l->err = l->err3 = l->finite = -1;
  if (l->carry) {
    l->f1 = l->nout;
    for (int p = 0; p < l->parts; p++) put(b, b->slope[m->end][p], 0, GQ_STORE);
  }
  l->x1 = l->nout;
  for (int e = 0; e < l->extra; e++) put(b, b->x1[e], 0, GQ_STORE);
  if (b->k->adaptive) {
    l->err = l->nout;
    for (int p = 0; p < l->parts; p++) put(b, error_sum(b, m->e, p), 0, GQ_STORE);
    if (m->e3) {
      l->err3 = l->nout;
      for (int p = 0; p < l->parts; p++) put(b, error_sum(b, m->e3, p), 0, GQ_STORE);
    }
  } else {
    l->finite = l->nout;
    for (int p = 0; p < l->parts; p++) put(b, finite_sum(b, p), 0, GQ_STORE);
  }
}

/* Slopes that are neither carried in nor stored as f1 stay in the arena: part p of slope i is
** output k[i] + p. */
static void slope_outputs(builder *b) {
  gq_steplayout *l = b->l;
  const gq_tableau *m = b->k->m;
  for (int i = 0; i < m->slopes; i++) {
    l->k[i] = -1;
    if (!b->k->dense || (l->carry && (i == 0 || i == m->end))) continue;
    l->k[i] = l->nout;
    for (int p = 0; p < l->parts; p++) put(b, b->slope[i][p], i >= m->end ? 1 : 0, GQ_KEEP);
  }
}

/* Sum over the slice of x^2; squares of float32 numbers would leave its range. */
static void sum_output(builder *b, int which, gq_ref x) {
  gq_graph *g = b->g;
  gq_ref sq = gq_emit1(g, GQ_OP_SQUARE, gq_cast(g, x, GQ_F64));
  b->l->sum[which] = b->l->nout;
  put(b, b->sum[which] = gq_reshape(g, gq_sum_axes(g, sq, summed(b, 0)), scalar_shape(b)), 0, GQ_STORE);
}

/* Two stages at the end of the step differ by sum_j h (a_ij - b_j) k_j, which loses nothing to the size of y. */
static void heuristic_outputs(builder *b) {
  const gq_tableau *m = b->k->m;
  int twin = gq_stiffness_stage(m);
  double w[GQ_MAXSTAGES];
  if (b->k->error) sum_output(b, GQ_SUM_ERROR, weighted_slopes(b, m->e, 0));
  if (b->k->error && m->e3) sum_output(b, GQ_SUM_ERROR3, weighted_slopes(b, m->e3, 0));
  if (!b->k->stiffness) return;
  for (int j = 0; j < m->stages; j++) w[j] = m->a[(size_t)twin * m->stages + j] - m->b[j];
  sum_output(b, GQ_SUM_SLOPES, gq_emit2(b->g, GQ_OP_SUB, b->slope[twin][0], b->slope[m->end][0]));
  sum_output(b, GQ_SUM_STATES, weighted_slopes(b, w, 0));
}

static void product_outputs(builder *b) {
  gq_steplayout *l = b->l;
  const gq_tableau *m = b->k->m;
  gq_ref wb[GQ_MAXSTAGES], we[GQ_MAXSTAGES], wq[GQ_MAXSTAGES] = { GQ_NONE };
  for (int i = 0; i < m->slopes; i++) {
    bool stage = i < m->stages;
    wb[i] = stage && m->b[i] != 0 ? gq_scale(b->g, b->h, -m->b[i]) : GQ_NONE;
    we[i] = stage && m->e && m->e[i] != 0 ? gq_scale(b->g, b->h, m->e[i]) : GQ_NONE;
    wq[i] = wb[i] != GQ_NONE || b->k->product_dense ? b->wq[i] : GQ_NONE;
  }
  bool carried = l->nq > 0 && b->k->product_carry && l->carry && !m->tuple && wq[0] != GQ_NONE;
  if (carried) wb[0] = we[0] = wq[0] = GQ_NONE; /* f is evaluated there by no stage */
  l->dq = l->eq = -1;
  if (b->k->product_error) {
    l->dq = l->nout;
    for (int r = 0; r < l->nq; r++) put(b, gq_builder_product(b, r, wb), 0, GQ_STORE);
    l->eq = l->nout;
    for (int r = 0; r < l->nq; r++) put(b, gq_builder_product(b, r, we), 0, GQ_STORE);
  }
  gq_ref *sum = b->q + (size_t)l->slopes * l->nq; /* made first: some of what they are made of is kept */
  for (int r = 0; r < l->nq; r++) sum[r] = gq_builder_product(b, r, wq);
  l->q = l->nout;
  for (int r = 0; r < l->nq; r++) put(b, sum[r], 1, GQ_ADD);
  l->qe = carried ? l->nout : -1;
  for (int r = 0; carried && r < l->nq; r++) put(b, b->q[m->end * l->nq + r], b->k->product_carry, GQ_STORE);
}

static gq_pulled pulled_of(builder *b) {
  gq_ref y = b->y[0];
  gq_pulled p = {
    b->y1[0], b->slope[b->k->m->end][0], { y, b->l->carry ? b->slope[0][0] : y, b->t, b->h, y, y }, NULL
  };
  for (int e = 0; e < b->l->extra; e++) p.wrt[GQ_PULLED_X + e] = b->x[e];
  return p;
}

/* The step's own derivative: cotangents of y1, f1, x1 and the kept slopes in, of y, f, x, t, h and the
** boundary values out. Forward systems: one part. */
static int pull_outputs(builder *b, const bool *want) {
  gq_steplayout *l = b->l;
  const gq_tableau *m = b->k->m;
  enum { OUTPUTS = GQ_MAXSTAGES + 2 + GQ_MAXEXTRA + GQ_SUMS, TIMES = GQ_PULLED, BOUNDARIES };
  gq_ref out[OUTPUTS], cot[OUTPUTS];
  int n = 0, nw = 0;
  const gq_tuple *inverse = b->k->inverse ? m->tuple : NULL;
  gq_pulled of;
  if (inverse) inverse->pulled(b, &of);
  else of = pulled_of(b);
  l->cy = l->nin++, out[n] = of.y1, cot[n++] = like_input(b, 1);
  l->cf = -1;
  if (l->carry) l->cf = l->nin++, out[n] = of.f1, cot[n++] = like_input(b, 1);
  l->cx = l->nin, l->nin += l->extra;
  for (int e = 0; e < l->extra; e++) out[n] = b->x1[e], cot[n++] = extra_input(b, e);
  for (int i = 0; i < m->slopes; i++) {
    l->ck[i] = -1;
    if (l->k[i] >= 0) l->ck[i] = l->nin++, out[n] = b->slope[i][0], cot[n++] = like_input(b, 1);
  }
  for (int i = 0; i < GQ_SUMS; i++)
    if (l->sum[i] >= 0) l->csum[i] = l->nin++, out[n] = b->sum[i], cot[n++] = row_input(b);
  gq_ref *wrt = gq_pooled(&b->own, b->nb + BOUNDARIES, sizeof *wrt);
  gq_ref *grad = of.grad = gq_pooled(&b->own, b->nb + BOUNDARIES, sizeof *grad);
  GQ_TRY(gq_pool_status(&b->own));
  l->pb_of = gq_calloc(b->nb + 1, sizeof *l->pb_of);
  if (!l->pb_of) return gq_nomem(b->nb);
  for (; nw < GQ_PULLED; nw++) wrt[nw] = of.wrt[nw];
  wrt[nw++] = b->ht;
  for (int j = 0; j < b->nb; j++) wrt[nw++] = b->bv[j];
  if (b->k->far) gq_graph_later(b->g);
  int status = gq_vjp(b->g, n, out, cot, nw, wrt, grad);
  if (status == GQ_OK) grad[3] = gq_builder_sum(b, grad[3], grad[TIMES]);
  if (status == GQ_OK && inverse) status = inverse->rest(b, &of);
  gq_ref zero = gq_zeros(b->g, GQ_F64, scalar_shape(b));
  gq_ref blank = gq_zeros(b->g, b->dtype, gq_builder_input(b, 1)->shape);
  l->pf = l->pt = l->ph = -1;
  l->py = l->nout, put(b, grad[0] == GQ_NONE ? blank : grad[0], 2, GQ_STORE);
  if (l->carry) l->pf = l->nout, put(b, grad[1] == GQ_NONE ? blank : grad[1], 2, GQ_STORE);
  l->px = l->nout;
  for (int e = 0; e < l->extra; e++) {
    gq_ref x = grad[GQ_PULLED_X + e];
    put(b, x == GQ_NONE ? gq_zeros(b->g, b->dtype, gq_graph_node(b->g, b->x[e])->shape) : x, 2, GQ_STORE);
  }
  if (b->k->pull_time) {
    l->pt = l->nout, put(b, grad[2] == GQ_NONE ? zero : grad[2], 2, GQ_STORE);
    l->ph = l->nout, put(b, grad[3] == GQ_NONE ? zero : grad[3], 2, GQ_STORE);
  }
  l->pb = l->nout;
  for (int j = 0; j < b->nb; j++)
    if (want[j] && grad[BOUNDARIES + j] != GQ_NONE)
      l->pb_of[l->npb++] = j, put(b, gq_stack_products(b->g, grad[BOUNDARIES + j]), 2, GQ_ADD);
  return status;
}

static int build(builder *b, const bool *want) {
  gq_steplayout *l = b->l;
  const gq_tableau *m = b->k->m;
  if (m->tuple && m->tuple->fits) GQ_TRY(m->tuple->fits(b));
  inputs(b);
  GQ_TRY(step(b));
  state_outputs(b);
  slope_outputs(b);
  heuristic_outputs(b);
  product_outputs(b);
  l->nfe = m->tuple || m->scheme ? b->calls : m->used; /* with carry: stages 2.. and the end slope */
  l->nfe_dense = b->k->dense ? m->slopes - m->used - (l->carry ? 1 : 0) : 0;
  if (b->k->pull) GQ_TRY(pull_outputs(b, want));
  for (int i = 0; i < l->kept; i++) b->outs[l->nout + i] = b->kept[i];
  return gq_graph_status(b->g);
}

int gq_step_new(const gq_system *s, const gq_stepkind *k, const bool *want, gq_graph **g, gq_outspec **outs,
                gq_steplayout *l) {
  const gq_tableau *m = k->m;
  *l = (gq_steplayout){
    .parts = s->parts, .nq = s->nq, .directions = s->directions, .slopes = m->slopes, .given = s->given
  };
  l->carry = (k->adaptive && !m->scheme) || m->end < m->stages || m->tuple;
  l->extra = m->tuple && m->tuple->extra ? 1 + (s->noise != GQ_NOISE_NONE) : 0;
  for (int i = 0; i < GQ_SUMS; i++) l->sum[i] = l->csum[i] = -1;
  builder b = { .s = s, .k = k, .l = l };
  b.nb = gq_graph_inputs(s->g) - first_boundary(&b);
  b.dtype = gq_builder_input(&b, 1)->dtype;
  size_t nouts = (size_t)s->parts * (m->slopes + 5) + 4 * (size_t)s->nq * (s->probes ? m->slopes : 1) + b.nb +
                 8 + 2 * GQ_MAXEXTRA + GQ_SUMS;
  b.g = gq_graph_new();
  b.bind = gq_pooled(&b.own, b.nb + first_boundary(&b), sizeof *b.bind);
  b.bv = gq_pooled(&b.own, b.nb, sizeof *b.bv);
  b.q = gq_pooled(&b.own, (size_t)(m->slopes + 1) * s->nq + s->parts, sizeof *b.q);
  b.outs = gq_calloc(nouts, sizeof *b.outs);
  b.kept = gq_pooled(&b.own, nouts, sizeof *b.kept);
  int status = b.g && b.outs ? gq_pool_status(&b.own) : gq_nomem(nouts);
  if (status == GQ_OK) status = build(&b, want);
  gq_pool_free(&b.own);
  if (status != GQ_OK) {
    gq_graph_free(b.g);
    gq_free(b.outs);
    gq_steplayout_done(l);
    return status;
  }
  *g = b.g;
  *outs = b.outs;
  return GQ_OK;
}

void gq_steplayout_done(gq_steplayout *l) {
  gq_free(l->pb_of);
  l->pb_of = NULL;
}

int gq_stepper_new(gq_stepper *st, const gq_stepkind *k, const gq_field *f, gq_make *make, const void *arg) {
  st->kind = *k, st->m = k->m;
  return st->m->steps->build(st, f, make, arg);
}

void gq_stepper_done(gq_stepper *st) {
  gq_code_free(&st->code);
  gq_steplayout_done(&st->l);
  gq_free(st->of);
}
