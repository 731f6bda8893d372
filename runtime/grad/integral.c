/*
** integral.c -- the integral of a'df/dtheta along a way back (continuous.c): by Runge-Kutta weights over the stages,
** inside the error norm (adjoint) or outside (seminorm); or by quadrature nodes read from the steps' interpolant (gq):
** those of eq. (9), judged by the weights, and refined where the two do not agree.
*/
#include "integral.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- Runge-Kutta weights ---- */

/* The products of the step's end are the next one's. */
static int carry(gq_back *k, bool last) {
  bool apart = k->w.a.st->l.qe >= 0 && k->w.a.st->kind.product_carry == GQ_PHASE_CARRY;
  return apart && !last ? gq_walk_phase(&k->w, GQ_PHASE_CARRY) : GQ_OK;
}

int gq_integral_weights(gq_back *k, double theta, bool last) {
  gq_walk *w = &k->w;
  const gq_field *f = k->s->plan->field;
  const gq_tableau *m = w->a.st->m;
  double wt[GQ_MAXSTAGES] = { 0 };
  bool later;
  if (w->a.st->l.nq == 0 || (k->pieces && !w->a.st->l.nfe_dense)) return GQ_OK;
  if (w->a.st->l.dq >= 0 && theta == 1) {
    for (int s = 0; s < f->nslices; s++)
      for (int j = 0; j < f->nb; j++) {
        size_t at = (size_t)s * f->nb + j;
        gq_shape shape = gq_field_boundary_shape(f, j);
        if (!k->b->grads.at[at]) continue;
        if (f->nslices > 1 && f->axis[j] >= 0) shape.dim[f->axis[j]] = f->count[s];
        f->on->vec->axpy(gq_field_boundary_dtype(f, j), gq_numel(shape), 1, w->a.sum.dq.at[at],
                         k->b->grads.at[at]);
      }
    k->time += w->a.sum.dtime;
    return carry(k, last);
  }
  if (theta == 1) memcpy(wt, m->b, m->stages * sizeof *wt);
  else gq_tableau_weights(m, theta, wt);
  for (int i = 0; i < m->slopes; i++) w->a.shared->wq[i] = -w->a.h * wt[i];
  GQ_TRY(gq_ahead_later(w, theta == 1, -w->a.h * wt[0], &later));
  if (later) return GQ_OK;
  if (w->a.st->l.qe >= 0) gq_grads_add(f, -w->a.h * wt[0], &w->a.sum.next, w->a.sum.grads);
  GQ_TRY(gq_walk_phase(w, 1));
  return carry(k, last);
}

/* ---- nodes ---- */

/* Collect one node at time t inside the accepted step. */
static int collect(gq_back *k, double t, double weight) {
  gq_walk *w = &k->w;
  const gq_field *f = k->s->plan->field;
  double theta = (t - w->a.t) / w->a.h;
  if (!k->reverse) GQ_TRY(gq_nodebuffer_path(&k->nodes, &k->z, t, k->scratch));
  void *z[f->nslices], *a[f->nslices];
  for (int s = 0; s < f->nslices; s++)
    z[s] = gq_nodebuffer_z(&k->nodes, s), a[s] = gq_nodebuffer_a(&k->nodes, s);
  if (k->reverse) gq_walk_interpolate(w, 0, theta, z);
  gq_walk_interpolate(w, k->ia, theta, a);
  return gq_nodebuffer_push(&k->nodes, t, weight);
}

/* Are eq. (9)'s nodes judged? */
static bool judged(const gq_back *k) {
  return k->gq && k->s->o.nodes == GQ_NODES_AUTO && !gq_back_adaptive(k) && k->s->plan->probes;
}

/* Nodes from one time to another: where f may jump there, on the inner side. */
static void nodes_within(gq_back *k, double from, double to) {
  k->nodes.low = gq_attempt_between(&k->w.a, fmin(from, to), from, to);
  k->nodes.high = gq_attempt_between(&k->w.a, fmax(from, to), from, to);
}

int gq_integral_begin(gq_back *k) {
  gq_solution *s = k->s;
  const gq_ode_options *o = &s->o;
  double from = s->t[k->panel.from], to = s->t[k->panel.to];
  k->next = 0;
  nodes_within(k, from, to);
  if (gq_back_adaptive(k) || k->pieces || o->nodes == GQ_NODES_STEP) return GQ_OK;
  int64_t wanted = o->nodes == GQ_NODES_FIXED
                     ? o->fixed_nodes
                     : gq_rule_wanted(o->C, s->info.nfe, from - to, s->t[s->nt - 1] - s->t[0]);
  if (k->panel.forced && wanted < GQ_MOMENTS) wanted = GQ_MOMENTS; /* a follows a cubic forcing there */
  int64_t used = o->nodes == GQ_NODES_FIXED || wanted <= o->max_nodes ? wanted : o->max_nodes;
  if (used < wanted && !judged(k)) s->info.capped = true;
  s->info.nodes_wanted += wanted * k->b->refine;
  return gq_rule_set(&k->rule, o, (int)used, k->b->refine, from, to);
}

/* The nodes inside the accepted step, up to `stop`. */
static int step_nodes(gq_back *k, double stop) {
  gq_walk *w = &k->w;
  double dir = w->a.h < 0 ? -1 : 1, weight;
  bool last = dir * (w->a.t1 - stop) >= 0; /* all that are left: rules may end on the interval's edge */
  double end = last ? stop : w->a.t1;
  if (k->s->o.nodes == GQ_NODES_STEP) {
    GQ_TRY(gq_rule_set(&k->rule, &k->s->o, (w->a.st->m->order + 2) / 2, k->b->refine, w->a.t, end));
    k->s->info.nodes_wanted += gq_rule_count(&k->rule);
    k->next = 0;
  }
  for (; k->next < gq_rule_count(&k->rule); k->next++) {
    double t = gq_rule_point(&k->rule, k->next, &weight);
    if (!last && k->s->o.nodes != GQ_NODES_STEP && dir * (t - w->a.t1) > 0) break;
    gq_nodebuffer_place(&k->nodes, k->rule.m, gq_rule_place(&k->rule, k->next));
    GQ_TRY(collect(k, t, weight));
  }
  return GQ_OK;
}

/* ---- as many nodes as the tolerance asks for ---- */

enum { WINDOW = 64 }; /* steps that a second pass refines together: memory does not grow with steps */
static const double CHECKED = 0.1; /* of the tolerance, by gradient = "check" */
enum {
  FEW = 6,  /* so many pieces of steps, or less, are served by one rule of as many nodes */
  MOST = 16 /* or of more, up to this */
};
static const double EVEN = 0.03;   /* none of them is less than this of all */
static const double AIM = 0.05;    /* of the tolerance is what that rule is to meet */
static const double AGREEMENT = 3; /* tolerances by which nodes and stages may differ */

/* The pieces' nodes into the gradient, with their values; or those of rejected pieces out of it again. */
static int evaluate_pieces(gq_back *k, bool withdraw) {
  gq_refine *r = &k->nodes.sum;
  double weight;
  k->nodes.next = 0, k->nodes.withdraw = withdraw;
  for (int i = 0; i < r->nwork; i++)
    for (int j = 0; j < r->work[i].n && !(withdraw && r->work[i].accepted); j++) {
      double t = gq_piece_node(&r->work[i], j, &weight);
      GQ_TRY(gq_window_node(&k->steps, t, withdraw ? -weight : weight));
    }
  GQ_TRY(gq_nodebuffer_flush(&k->nodes));
  k->nodes.withdraw = false;
  return GQ_OK;
}

/* Those of rejected pieces out of it again; all of it, where it holds no others. */
static int withdraw_pieces(gq_back *k) {
  const gq_refine *r = &k->nodes.sum;
  bool others = k->serve > 0;
  for (int g = 0; g < r->groups; g++) others |= r->mass[g] > 0;
  return others ? evaluate_pieces(k, true) : gq_pullback_clear(k->b);
}

static bool is_short(const gq_window *q, int i) {
  double whole = fabs(q->edge[q->edges].t - q->edge[0].t);
  return fabs(q->edge[i + 1].t - q->edge[i].t) < EVEN * whole;
}

/* Nodes of one rule for few pieces, if errors fall with their number as that of the rule that was judged does. */
static int promised(const gq_back *k) {
  double e = k->s->info.quadrature_error;
  if (!k->judged) return FEW;
  return e < 1 ? (int)fmax(FEW, fmin(MOST, ceil(k->judged * log(AIM * k->s->o.back_rtol) / log(e)))) : MOST;
}

/* The window's pieces, n nodes each. Where they are few, one rule serves all that follow each other and are not short:
** at their edges z and a bend by no more than a step's error. */
static int add_pieces(gq_back *k, int n) {
  const gq_window *q = &k->steps;
  int together = promised(k);
  for (int i = 0, j; i < q->edges; i = j) {
    j = i + 1;
    while (q->edges <= FEW && j < q->edges && !is_short(q, i) && !is_short(q, j)) j++;
    GQ_TRY(gq_refine_add(&k->nodes.sum, q->edge[i].t, q->edge[j].t, j - i > 1 ? together : n));
  }
  return GQ_OK;
}

/* Pieces of the panel were halved: it is to be solved without moments. */
static void mark_panel(gq_back *k) {
  if (!k->panel.forced || !k->s->o.auto_impulses) return;
  for (int i = k->panel.from; i > k->panel.to; i--) k->single[i] = true;
  k->bends = true;
}

/* What the first round gives is judged by the stages too, where they are all the window's: the decay of few
** coefficients promises less than there is where the integrand turns. */
static int judge_by_stages(gq_back *k) {
  gq_refine *r = &k->nodes.sum;
  if (k->nruns != 1 || k->panel.forced || r->round != 1 || r->nnext == 0) return GQ_OK;
  GQ_TRY(gq_nodebuffer_probes(&k->nodes, &k->weighted, k->nodes.value));
  return gq_refine_agree(r, k->nodes.value, AGREEMENT);
}

/* Of a loss whose gradients by the solution are those. */
static double loss_rounding(const gq_back *k) {
  double sum = 0, g[GQ_BACK_TOLD], z[GQ_BACK_TOLD];
  for (int i = 0, n; i < k->s->nt; i += n) {
    n = gq_back_rms(k, k->b->gz, i, g);
    gq_back_rms(k, k->s->z, i, z);
    for (int j = 0; j < n; j++) sum += g[j] * z[j];
  }
  return k->nodes.sum.eps * k->n * sum;
}

/* The integral over the steps of the window, down to `to`. */
static int refine_window(gq_back *k, double to) {
  gq_solution *s = k->s;
  gq_refine *r = &k->nodes.sum;
  gq_window *q = &k->steps;
  int n = (k->w.a.st->m->order + 2) / 2, least = k->b->refine > 1 ? 5 : 3;
  double first = s->t[0], last = s->t[s->nt - 1];
  int64_t halved = r->halved;
  double spacing = 16 * fmax(fabs(first), fabs(last)) * (k->f->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON);
  if (n < least) n = least;
  if (r->rounds == 0) GQ_TRY(gq_nodebuffer_floor(&k->nodes, loss_rounding(k)));
  GQ_TRY(gq_window_edges(q, k->window, to));
  if (q->edges == 1 && k->panel.forced && n < GQ_MOMENTS) n = GQ_MOMENTS;
  GQ_TRY(add_pieces(k, n));
  do {
    if (gq_interrupted()) return gq_interrupted_back(to);
    GQ_TRY(gq_refine_round(r));
    GQ_TRY(evaluate_pieces(k, false));
    GQ_TRY(gq_refine_judge(r, (last - to) / (last - first), spacing));
    GQ_TRY(judge_by_stages(k));
    gq_tell(GQ_TELL_QUAD, "t %.9g to %.9g, round %d: pieces %d, of which more are made %d; nodes so far %lld",
            k->window, to, r->round, r->nwork, r->nnext, (long long)r->nodes);
    GQ_TRY(withdraw_pieces(k));
  } while (gq_refine_next(r));
  if (r->halved > halved) mark_panel(k);
  q->n = 0, k->window = to;
  return GQ_OK;
}

/* The accepted step is kept, as those of z are, where memory_limit allows it; otherwise a second pass refines. */
static int keep_step(gq_back *k) {
  k->kept = (double)k->s->bytes < (double)k->s->o.memory_limit;
  return k->kept ? gq_window_step(&k->steps) : GQ_OK;
}

/* The steps since the last run, down to `to`, are one. */
static int keep_run(gq_back *k, double to) {
  GQ_TRY(gq_room(&k->run, &k->run_room, k->nruns, sizeof *k->run));
  int nodes = gq_rule_count(&k->rule);
  k->run[k->nruns++] = (struct gq_run){ k->window,  to,    { k->panel.from, k->panel.to },
                                        k->steps.n, nodes, k->panel.forced,
                                        false };
  k->steps.first += k->steps.n, k->steps.n = 0;
  return GQ_OK;
}

/* Back to where the steps of run i begin, those of the runs before being the first ones. */
static int enter_run(gq_back *k, int i) {
  const struct gq_run *run = &k->run[i];
  if (i == 0) GQ_TRY(gq_trajectory_begin(&k->z, k->s));
  k->steps.first = i == 0 ? 0 : k->steps.first + run[-1].steps;
  k->steps.n = run->steps, k->window = run->from;
  k->panel.from = run->panel[0], k->panel.to = run->panel[1], k->panel.forced = run->forced;
  nodes_within(k, run->from, run->to);
  return gq_trajectory_leave(&k->z, run->from);
}

/* The probes' integrals over a run by the next rule, whose products are not asked for. */
static int integrate_again(gq_back *k, const struct gq_run *run, double *to) {
  gq_walk *w = &k->w;
  gq_grads *sum = &w->a.sum.next;
  double weight;
  gq_zero(k->f->on, sum->block, sum->bytes);
  gq_state_clear(k->f, k->force);
  GQ_TRY(gq_rule_set(&k->rule, &k->s->o, run->nodes + 1, 1, run->from, run->to));
  for (int i = 0; i < gq_rule_count(&k->rule); i++) {
    double t = gq_rule_point(&k->rule, i, &weight);
    void *x[] = { k->steps.a, k->steps.z, k->force };
    GQ_TRY(gq_window_at(&k->steps, t));
    k->f->on->vec->scale(k->f->dtype, k->n, weight, k->steps.a, 1, k->steps.a, 1);
    w->a.cost.nfe++;
    GQ_TRY(gq_evaluate_at(&k->s->plan->start, k->s->bind, t, x, w->a.f1, sum, NULL));
  }
  return gq_nodebuffer_probes(&k->nodes, sum, to);
}

/* Panels are no longer than a step of z. Stages of so few steps say less of their integrals than the rule has with
** them; the next rule, with points between its own, tells which of them it serves. */
static int judge_panels(gq_back *k) {
  gq_refine *r = &k->nodes.sum;
  double *other = gq_alloc((k->nruns * (size_t)r->numbers + 1) * sizeof *other), *to = other;
  if (!other) return gq_nomem(k->nruns * (size_t)r->numbers * sizeof *other);
  int status = GQ_OK;
  int64_t point = 0;
  gq_refine_clear(r);
  for (int i = 0; i < k->nruns && status == GQ_OK; i++)
    status = gq_refine_add(r, k->run[i].from, k->run[i].to, 1);
  if (status == GQ_OK) status = gq_refine_round(r);
  for (int i = 0; i < k->nruns && status == GQ_OK; i++, to += r->numbers) {
    for (int j = 0; j < k->run[i].nodes; j++)
      gq_refine_put(r, i, gq_nodebuffer_listed(&k->nodes, point++) + GQ_LISTED);
    for (int q = 0; q < r->numbers; q++) to[q] = INFINITY;
    status = enter_run(k, i);
    if (status == GQ_OK && k->run[i].forced) status = integrate_again(k, &k->run[i], to);
  }
  if (status == GQ_OK) status = gq_refine_compare(r, other, AGREEMENT);
  for (int i = 0; i < k->nruns && status == GQ_OK; i++) k->serve += k->run[i].serves = r->work[i].accepted;
  gq_free(other);
  return status;
}

/* Points n of the list on, of run i, out of the gradient again. */
static int withdraw_run(gq_back *k, int i, int64_t n) {
  k->nodes.withdraw = true;
  for (int j = 0; j < k->run[i].nodes; j++) {
    const double *point = gq_nodebuffer_listed(&k->nodes, n + j);
    GQ_TRY(gq_window_node(&k->steps, point[0], -point[1]));
  }
  GQ_TRY(gq_nodebuffer_flush(&k->nodes));
  k->nodes.withdraw = false;
  return GQ_OK;
}

int gq_integral_refine(gq_back *k) {
  gq_refine *r = &k->nodes.sum;
  int64_t point = 0;
  if (k->nodes.list.on) GQ_TRY(judge_panels(k));
  if (k->serve == 0) {
    GQ_TRY(gq_pullback_clear(k->b));
    gq_refine_clear(r);
  }
  k->s->info.nodes_wanted = 0;
  k->nodes.evaluated = 0;
  for (int i = 0; i < k->nruns; i++) {
    GQ_TRY(enter_run(k, i));
    if (k->run[i].serves) k->s->info.nodes_wanted += k->run[i].nodes;
    else {
      if (k->serve) GQ_TRY(withdraw_run(k, i, point));
      k->judged = k->run[i].nodes;
      GQ_TRY(refine_window(k, k->run[i].to));
    }
    point += k->run[i].nodes;
  }
  return GQ_OK;
}

bool gq_integral_disagrees(const gq_back *k) {
  return judged(k) && !k->pieces && !(k->s->info.quadrature_error <= AGREEMENT * k->s->o.back_rtol);
}

/* ---- as the solve goes ---- */

int gq_integral_init(gq_back *k) {
  gq_solution *s = k->s;
  bool adaptive = gq_back_adaptive(k);
  GQ_TRY(gq_nodebuffer_init(&k->nodes, s, &k->b->grads));
  k->kept = judged(k) && !k->pieces && s->o.trajectory == &gq_trajectory_dense;
  if (adaptive || k->pieces || k->kept)
    GQ_TRY(gq_window_init(&k->steps, s, k->reverse ? NULL : &k->z, &k->w, &k->nodes));
  k->nodes.list.on = k->kept && s->o.moments && k->w.a.sum.next.block;
  if (k->pieces && k->b->refine > 1) k->nodes.sum.rtol *= CHECKED;
  return adaptive ? gq_kronrod_init(&k->kronrod, &k->steps, &k->b->grads) : GQ_OK;
}

void gq_integral_done(gq_back *k) {
  gq_kronrod_done(&k->kronrod);
  gq_window_done(&k->steps);
  gq_nodebuffer_done(&k->nodes);
  gq_rule_done(&k->rule);
  gq_free(k->run);
}

int gq_integral_step(gq_back *k, double stop) {
  if (gq_back_adaptive(k) || k->pieces) return gq_window_step(&k->steps);
  GQ_TRY(step_nodes(k, stop));
  return k->kept ? keep_step(k) : GQ_OK;
}

int gq_integral_window(gq_back *k, double stop) {
  double t = k->w.a.t;
  return k->steps.n == WINDOW || t == stop ? refine_window(k, t) : GQ_OK;
}

int gq_integral_end(gq_back *k, double from, double stop) {
  if (k->kept) GQ_TRY(keep_run(k, stop));
  return gq_back_adaptive(k) ? gq_kronrod_interval(&k->kronrod, from, stop) : GQ_OK;
}
