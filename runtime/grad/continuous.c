/*
** continuous.c -- the adjoint equation solved backwards: adjoint, seminorm and gq.
** Chen et al. 2018 (adjoint), Kidger et al. 2021 (seminorm), Norcliffe & Deisenroth (TMLR 2023).
**
** Over each measurement interval, from t_k to t_k-1: z restarts from its stored value, a takes the
** jump dL/dz(t_k), (z, a)' = (f, -a'df/dz). The engines differ in the integral of a'df/dtheta:
** Runge-Kutta weights over the stages, inside the error norm (adjoint) or outside (seminorm), or
** quadrature nodes read from the steps' interpolant (gq). Along a trajectory that knows z(t) from the
** forward solve (trajectory.h) a alone is solved.
*/
#include "kronrod.h"
#include "moments.h"
#include "nodes.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Fields: what one way back keeps from step to step, each as some kind of integral or trajectory asks for it. */
typedef struct back {
  gq_pullback *b;
  gq_solution *s;
  const gq_field *f;
  gq_walk w;
  void *block;
  size_t part, n;
  bool reverse;
  int ia;          /* which part a is */
  gq_trajectory z; /* where it is not solved backwards */
  gq_trail trail;  /* the same for a device, */
  void *trail_block;
  gq_nodebuffer nodes;
  gq_window steps; /* where the integral asks for the steps of a whole interval */
  gq_kronrod kronrod;
  gq_rule rule;
  int next;    /* next node of the interval */
  double time; /* adjoint: the part in t, for its error norm */
  bool started;
  gq_grads weighted; /* gq: probes of the products by Runge-Kutta weights, for the quadrature's error */
  bool gq;           /* nodes are to be collected */
  bool pieces;       /* and the integral is refined: window by window of steps */
  bool *single;      /* [nt] intervals down from there are in no panel with others: */
  int judged;        /* nodes of the rule in place of which pieces are refined; 0: that is not known */
  bool bends;        /* df/dtheta was seen to bend within a panel; moments are of what is smooth there */
  double window;     /* where the present one begins */
  bool kept;         /* the steps so far are there, should the integral be refined after all: */
  struct run {
    double from, to;
    int panel[2];     /* from, to */
    int steps, nodes; /* nodes: of the rule */
    bool forced, serves;
  } * run; /* [nruns], of one interval each */
  int nruns, run_room;
  int serve;           /* runs whose nodes stay */
  int64_t forced_cost; /* evaluations that the last panel with a forcing took */
  gq_panel panel;      /* what is solved between two restarts: one interval, or several by moments */
  void *stored;        /* z at a measurement time, packed */
  void *force;         /* the forcing where a panel begins */
  void *scratch;       /* z of a dense trajectory, the end of an overshooting step */
} back;

/* z at measurement time i as the slices hold states. */
static void *stored(back *k, int i) {
  void *z = gq_at_time(k->s, k->s->z, i);
  if (gq_field_plain(k->s->plan->field)) return z;
  gq_field_pack(k->s->plan->field, z, k->stored);
  return k->stored;
}

/* Implicit steps where nobody looks at the error of the integral. */
static bool crosses(const back *k) {
  return k->s->o.engine->integral == GQ_INTEGRAL_OUTSIDE && k->w.a.st->m->steps->stiff;
}

/* Do steps hang on those of z (limit_step)? */
static bool follows(const back *k) {
  return !k->reverse && k->w.a.st->kind.adaptive && (k->s->o.nodes == GQ_NODES_AUTO || crosses(k));
}

static int fill_path(gq_walk *w, double t, double h) {
  back *k = w->context;
  const gq_tableau *m = w->a.st->m;
  for (int i = 0; i < m->slopes; i++) {
    double at = t + gq_tableau_time(m, i) * h;
    for (int g = 0; g < w->a.st->l.given && gq_tableau_twin(m, i) == i; g++) {
      if (g == 0 && !k->reverse)
        GQ_TRY(gq_trajectory_at(&k->z, gq_attempt_inside(&w->a, at), w->a.path[i][g]));
      else gq_panel_force(&k->panel, k->s, at, w->a.path[i][g]);
    }
  }
  return GQ_OK;
}

/* The same where a device makes the attempts. */
static void trail(const gq_walk *w, gq_trail *r) {
  const back *k = w->context;
  const gq_jumps *j = &w->a.jumps;
  *r = k->trail;
  r->near = k->z.near, r->given = w->a.st->l.given;
  r->low = j->bounded ? fmin(j->t0, j->t1) : -INFINITY, r->high = j->bounded ? fmax(j->t0, j->t1) : INFINITY;
  r->follows = follows(k);
  r->forced = k->panel.forced, r->middle = k->panel.middle, r->half = k->panel.half;
  for (int i = 0; i < GQ_MOMENTS; i++) r->force[i] = (uint64_t)(uintptr_t)k->panel.c[i];
}

/* ---- what is compiled ---- */

/* Nodes in every step, or those of eq. (9) judged: the Runge-Kutta weights integrate the probes too, to compare. Guards
** are for the rule whose weights make Legendre polynomials orthogonal, where no such comparison is made. */
void gq_nodes_shape(const gq_ode_options *o, gq_plankey *k) {
  k->audits = (o->nodes == GQ_NODES_STEP || o->nodes == GQ_NODES_AUTO) && !o->independent;
  k->probes = o->guards && !o->independent && !k->audits && o->quadrature == gq_quadratures;
}

static int build_nodes(gq_plan *p) {
  gq_evaluator *largest; /* compiled now: memory must not depend on how many nodes a solve asks for */
  if (p->key->independent && !p->field->lanes[1]) return GQ_OK;
  if (p->key->independent) return gq_evaluator_new(&p->scratch, gq_system_points, NULL, &p->many[0]);
  return gq_node_program(p, p->most_points, &largest);
}

int gq_continuous_build(gq_plan *p) {
  const gq_plankey *k = p->key;
  bool dense = k->trajectory->at != NULL, gq = gq_takes_nodes(k->engine),
       full = k->engine->integral == GQ_INTEGRAL_INSIDE;
  bool audit = k->audits && !p->field->calls; /* of a callback nothing can be projected */
  gq_products products = !gq ? GQ_PRODUCTS_ALL : audit ? GQ_PRODUCTS_PROBES : GQ_PRODUCTS_NONE;
  gq_adjointkind plain = { dense, k->moments, GQ_PRODUCTS_NONE, false },
                 with = { dense, k->moments, products, full && (k->t_grad || k->parity) };
  bool adaptive = k->back_method->e && !k->back_fixed, device = p->field->on->advance;
  int carry =
    full || !device ? GQ_PHASE_CARRY : 1; /* there a launch costs more than products that nobody reads */
  GQ_TRY(gq_plan_forward(p, false));
  gq_stepkind kind = { .m = k->back_method,
                       .adaptive = adaptive,
                       .max_norm = k->back_max_norm,
                       .dense = gq || k->overshoot,
                       .product_error = full && adaptive,
                       .product_dense = products != GQ_PRODUCTS_NONE && k->overshoot,
                       .product_carry = audit || !(with.time || device) ? carry : 0 };
  p->probes = (k->probes || audit) && p->products && !p->field->calls;
  /* Of stiff dynamics f turns what the interpolant leaves out into anything. */
  p->defect = gq && !k->independent && !p->field->calls && gq_trajectory_follows(k->trajectory) &&
              p->forward.kind.adaptive && !p->forward.m->steps->stiff;
  if (p->probes) GQ_TRY(gq_field_probes(p->field));
  p->backward.f = &p->adjoint, p->backward.products = &p->start, p->backward.adjoint = true;
  GQ_TRY(gq_stepper_new(&p->backward, &kind, p->field, gq_system_adjoint, &with));
  GQ_TRY(gq_evaluator_new(&p->scratch, gq_system_adjoint, &plain, &p->adjoint));
  if (p->backward.kind.product_error || p->backward.l.qe >= 0 ||
      (k->back_method->steps->stiff && p->backward.l.nq > 0))
    GQ_TRY(gq_evaluator_new(&p->scratch, gq_system_adjoint, &with, &p->start));
  p->most_points = 1;
  if (!p->field->calls) gq_plan_stack(p, 1);
  return gq && p->products ? build_nodes(p) : GQ_OK;
}

/* ---- set-up ---- */

static int buffers(back *k) {
  gq_walk *w = &k->w;
  int parts = w->a.st->l.parts, given = w->a.st->l.given,
      moments = k->s->o.moments ? GQ_MOMENTS + GQ_MOMENTS_LEFT : 0;
  size_t n = 4 * parts + given * w->a.st->m->slopes + moments + 4;
  k->part = gq_round64(gq_part_bytes(k->s->plan->field));
  k->n = gq_numel(k->s->plan->field->shape);
  k->block = gq_allocate(k->s->plan->field->on, n * (k->part + 1));
  if (!k->block) return gq_nomem(n * k->part);
  gq_zero(k->s->plan->field->on, k->block, n * k->part);
  k->s->bytes += n * k->part;
  char *next = k->block;
  for (int p = 0; p < parts; p++) {
    void **all[] = { &w->a.y[p], &w->a.f[p], &w->a.y1[p], &w->a.f1[p] };
    for (int i = 0; i < 4; i++) *all[i] = next, next += k->part;
  }
  for (int i = 0; i < w->a.st->m->slopes; i++)
    for (int g = 0; g < given; g++) {
      int twin = gq_tableau_twin(w->a.st->m, i);
      w->a.path[i][g] = twin < i ? w->a.path[twin][g] : next, next += k->part;
    }
  for (int j = 0; j < moments; j++, next += k->part) {
    if (j < GQ_MOMENTS) k->panel.c[j] = next;
    else k->panel.left[j - GQ_MOMENTS] = next;
  }
  k->scratch = next, k->force = next + k->part, k->stored = next + 2 * k->part;
  return GQ_OK;
}

static bool any_nonzero(const back *k, const void *x) {
  return k->f->on->vec->largest(k->f->dtype, k->n, x) != 0;
}

static double rms(const back *k, const void *x) {
  double out;
  k->f->on->vec->rms(k->f->dtype, 1, k->n, k->n, x, &out);
  return out;
}

static void add(const back *k, double s, const void *x, void *y) {
  k->f->on->vec->axpy(k->f->dtype, k->n, s, x, y);
}

/* Of a solution's state at times from i on, as many as are told at once. */
enum { TOLD = 64 };
static int rms_of_times(const back *k, gq_tensor *z, int i, double *out) {
  int n = k->s->nt - i < TOLD ? k->s->nt - i : TOLD;
  k->f->on->vec->rms(k->f->dtype, n, k->n, k->n, gq_at_time(k->s, z, i), out);
  return n;
}

/* Largest RMS of a cotangent: what a is like. */
static double cotangent_size(const back *k) {
  double top = 0, g[TOLD];
  for (int i = 0, n; i < k->s->nt; i += n) {
    n = rms_of_times(k, k->b->gz, i, g);
    for (int j = 0; j < n; j++) top = fmax(top, g[j]);
  }
  return top;
}

/* Of a loss whose gradients by the solution are those. */
static double loss_rounding(const back *k) {
  double sum = 0, g[TOLD], z[TOLD];
  for (int i = 0, n; i < k->s->nt; i += n) {
    n = rms_of_times(k, k->b->gz, i, g);
    rms_of_times(k, k->s->z, i, z);
    for (int j = 0; j < n; j++) sum += g[j] * z[j];
  }
  return k->nodes.sum.eps * k->n * sum;
}

/* Is the integral adaptive, over the interval's steps when all of them are there? */
static bool adaptive(const back *k) { return k->gq && k->s->o.engine->integral == GQ_INTEGRAL_ADAPTIVE; }

/* Are eq. (9)'s nodes judged? */
static bool judged(const back *k) {
  return k->gq && k->s->o.nodes == GQ_NODES_AUTO && !adaptive(k) && k->s->plan->probes;
}

static int setup(back *k, double size) {
  gq_solution *s = k->s;
  const gq_ode_options *o = &s->o;
  gq_walk *w = &k->w;
  k->reverse = !o->trajectory->at;
  k->gq = gq_takes_nodes(o->engine) && s->plan->products;
  k->ia = k->reverse ? 1 : 0;
  w->controller = &o->controller, w->context = k;
  w->a.tol.split = k->s->split;
  w->a.tol.rtol = o->back_rtol, w->a.tol.max_norm = o->back_max_norm, w->c.size = o->back_step_size;
  w->max_steps = gq_back_budget(s);
  w->a.tol.atol[0] = o->back_atol;
  w->a.tol.atol[k->ia] = o->back_atol * (o->scale ? size : 1);
  w->a.tol.products = w->a.tol.atol[k->ia];
  w->a.sum.grads = k->gq ? &k->weighted : &k->b->grads, w->a.sum.time = &k->time;
  w->a.jumps = gq_solution_jumps(s);
  w->c.most = o->back_max_step, w->c.least = o->back_min_step;
  w->flies = k->reverse || !k->pieces; /* otherwise windows of steps end that the device knows nothing of */
  w->trail = k->reverse || o->trajectory == &gq_trajectory_dense ? trail : NULL;
  GQ_TRY(gq_walk_init(w, &s->plan->backward, s->bind, s->plan->arena));
  s->bytes += w->a.bytes;
  w->fill_path = w->a.st->l.given ? fill_path : NULL;
  GQ_TRY(buffers(k));
  if (!k->reverse) GQ_TRY(gq_trajectory_begin(&k->z, s));
  if (w->a.st->l.given && w->flies)
    GQ_TRY(gq_trajectory_trail(s, w->a.st->m, !k->reverse, &k->trail, &k->trail_block));
  if (w->a.st->l.dq >= 0) {
    GQ_TRY(gq_grads_new(s->plan->field, false, &w->a.sum.dq));
    GQ_TRY(gq_grads_new(s->plan->field, false, &w->a.sum.eq));
    s->bytes += w->a.sum.dq.bytes + w->a.sum.eq.bytes;
  }
  if (k->gq && w->a.st->l.nq > 0) GQ_TRY(gq_grads_probes(s->plan->field, &k->weighted));
  if (w->a.st->l.qe >= 0)
    GQ_TRY(k->gq ? gq_grads_probes(s->plan->field, &w->a.sum.next)
                 : gq_grads_new(s->plan->field, false, &w->a.sum.next));
  s->bytes += k->weighted.bytes + w->a.sum.next.bytes;
  if (k->gq) GQ_TRY(gq_nodebuffer_init(&k->nodes, s, &k->b->grads));
  k->kept = judged(k) && !k->pieces && o->trajectory == &gq_trajectory_dense;
  if (adaptive(k) || k->pieces || k->kept)
    GQ_TRY(gq_window_init(&k->steps, s, k->reverse ? NULL : &k->z, w, &k->nodes));
  k->nodes.list.on = k->kept && o->moments && w->a.sum.next.block;
  k->nodes.sized = k->pieces || k->nodes.list.on;
  if (adaptive(k)) GQ_TRY(gq_kronrod_init(&k->kronrod, &k->steps, &k->b->grads));
  return GQ_OK;
}

/* ---- nodes ---- */

/* Collect one node at time t inside the accepted step. */
static int collect(back *k, double t, double weight) {
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

/* Nodes from one time to another: where f may jump there, on the inner side. */
static void nodes_within(back *k, double from, double to) {
  k->nodes.low = gq_attempt_between(&k->w.a, fmin(from, to), from, to);
  k->nodes.high = gq_attempt_between(&k->w.a, fmax(from, to), from, to);
}

static int interval_rule(back *k) {
  gq_solution *s = k->s;
  const gq_ode_options *o = &s->o;
  double from = s->t[k->panel.from], to = s->t[k->panel.to];
  k->next = 0;
  nodes_within(k, from, to);
  if (adaptive(k) || k->pieces || o->nodes == GQ_NODES_STEP) return GQ_OK;
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
static int step_nodes(back *k, double stop) {
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

/* a's steps are at most three of the forward solve's, so that its stages see what z did; one where nobody looks at the
** error of the integral and implicit steps could cross what decayed in many. */
static void limit_step(back *k) {
  gq_walk *w = &k->w;
  const gq_steps *st = &k->s->steps;
  int64_t i = crosses(k) ? k->z.near : k->z.near > 2 ? k->z.near - 2 : 0;
  if (!st->n || !follows(k)) return;
  while (i > 0 && gq_trail_begins(w->a.t, gq_step(st, i).t, gq_step(st, i - 1).t)) i--;
  w->c.h = gq_trail_limit(w->c.h, w->a.t, gq_step(st, i).t);
}

/* The pieces' nodes into the gradient, with their values; or those of rejected pieces out of it again. */
static int evaluate_pieces(back *k, bool withdraw) {
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
static int withdraw_pieces(back *k) {
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
static int promised(const back *k) {
  double e = k->s->info.quadrature_error;
  if (!k->judged) return FEW;
  return e < 1 ? (int)fmax(FEW, fmin(MOST, ceil(k->judged * log(AIM * k->s->o.back_rtol) / log(e)))) : MOST;
}

/* The window's pieces, n nodes each. Where they are few, one rule serves all that follow each other and are not short:
** at their edges z and a bend by no more than a step's error. */
static int add_pieces(back *k, int n) {
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
static void mark_panel(back *k) {
  if (!k->panel.forced || !k->s->o.auto_impulses) return;
  for (int i = k->panel.from; i > k->panel.to; i--) k->single[i] = true;
  k->bends = true;
}

/* What the first round gives is judged by the stages too, where they are all the window's: the decay of few
** coefficients promises less than there is where the integrand turns. */
static int judge_by_stages(back *k) {
  gq_refine *r = &k->nodes.sum;
  if (k->nruns != 1 || k->panel.forced || r->round != 1 || r->nnext == 0) return GQ_OK;
  GQ_TRY(gq_nodebuffer_probes(&k->nodes, &k->weighted, k->nodes.value));
  return gq_refine_agree(r, k->nodes.value, AGREEMENT);
}

/* The integral over the steps of the window, down to `to`. */
static int refine_window(back *k, double to) {
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
    if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted in the backward pass at t = %.9g", to);
    GQ_TRY(gq_refine_round(r));
    GQ_TRY(evaluate_pieces(k, false));
    GQ_TRY(gq_refine_judge(r, (last - to) / (last - first), spacing));
    GQ_TRY(judge_by_stages(k));
    GQ_TRY(withdraw_pieces(k));
  } while (gq_refine_next(r));
  if (r->halved > halved) mark_panel(k);
  q->n = 0, k->window = to;
  return GQ_OK;
}

/* The accepted step is kept, as those of z are, where memory_limit allows it; otherwise a second pass refines. */
static int keep_step(back *k) {
  k->kept = (double)k->s->bytes < (double)k->s->o.memory_limit;
  return k->kept ? gq_window_step(&k->steps) : GQ_OK;
}

/* The steps since the last run, down to `to`, are one. */
static int keep_run(back *k, double to) {
  if (k->nruns == k->run_room) {
    int room = k->run_room ? 2 * k->run_room : 8;
    struct run *run = gq_realloc(k->run, room * sizeof *run);
    if (!run) return gq_nomem(room * sizeof *run);
    k->run = run, k->run_room = room;
  }
  int nodes = gq_rule_count(&k->rule);
  k->run[k->nruns++] =
    (struct run){ k->window, to, { k->panel.from, k->panel.to }, k->steps.n, nodes, k->panel.forced, false };
  k->steps.first += k->steps.n, k->steps.n = 0;
  return GQ_OK;
}

/* Back to where the steps of run i begin, those of the runs before being the first ones. */
static int enter_run(back *k, int i) {
  const struct run *run = &k->run[i];
  if (i == 0) GQ_TRY(gq_trajectory_begin(&k->z, k->s));
  k->steps.first = i == 0 ? 0 : k->steps.first + run[-1].steps;
  k->steps.n = run->steps, k->window = run->from;
  k->panel.from = run->panel[0], k->panel.to = run->panel[1], k->panel.forced = run->forced;
  nodes_within(k, run->from, run->to);
  return gq_trajectory_leave(&k->z, run->from);
}

/* The probes' integrals over a run by the next rule, whose products are not asked for. */
static int integrate_again(back *k, const struct run *run, double *to) {
  gq_walk *w = &k->w;
  gq_grads *sum = &w->a.sum.next;
  double weight;
  gq_zero(k->f->on, sum->block, sum->bytes);
  gq_zero(k->f->on, k->force, gq_part_bytes(k->f));
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
static int judge_panels(back *k) {
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
static int withdraw_run(back *k, int i, int64_t n) {
  k->nodes.withdraw = true;
  for (int j = 0; j < k->run[i].nodes; j++) {
    const double *point = gq_nodebuffer_listed(&k->nodes, n + j);
    GQ_TRY(gq_window_node(&k->steps, point[0], -point[1]));
  }
  GQ_TRY(gq_nodebuffer_flush(&k->nodes));
  k->nodes.withdraw = false;
  return GQ_OK;
}

/* The integral over all steps that were kept, but where the nodes serve, instead of what they gave. */
static int refine_kept(back *k) {
  gq_refine *r = &k->nodes.sum;
  int64_t point = 0;
  k->nodes.sized = true;
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

/* ---- Runge-Kutta weights ---- */

/* The products of the step's end are the next one's. */
static int carry(back *k, bool last) {
  bool apart = k->w.a.st->l.qe >= 0 && k->w.a.st->kind.product_carry == GQ_PHASE_CARRY;
  return apart && !last ? gq_walk_phase(&k->w, GQ_PHASE_CARRY) : GQ_OK;
}

/* Add the products of the accepted step; theta < 1 when it goes past the interval's end. last: no other follows. */
static int step_products(back *k, double theta, bool last) {
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

/* ---- one measurement interval ---- */

/* Is the first step looked for? Once a pass, or at every restart for parity. */
static bool searches(const back *k) { return k->w.a.st->kind.adaptive && (!k->started || k->s->o.parity); }

static int begin(back *k, int i) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  void *z = stored(k, i);
  if (k->reverse) gq_copy(k->f->on, w->a.y[0], z, gq_part_bytes(k->f));
  w->a.t = w->c.origin = s->t[i];
  w->c.index = 0;
  if (!k->reverse) GQ_TRY(gq_trajectory_leave(&k->z, s->t[i]));
  if (!w->a.st->l.carry) return GQ_OK;
  void *x[] = { w->a.y[0], k->reverse ? w->a.y[1] : z, k->force };
  if (s->o.moments) gq_zero(k->f->on, k->force, gq_part_bytes(k->f)); /* add_forcing comes later */
  bool carried = w->a.st->l.qe >= 0, products = carried || (searches(k) && w->a.st->l.dq >= 0);
  const gq_evaluator *e = products ? &s->plan->start : &s->plan->adjoint;
  gq_grads *q = carried ? &w->a.sum.next : &w->a.sum.dq;
  if (products) gq_zero(k->f->on, q->block, q->bytes);
  w->a.sum.dtime = 0;
  w->a.cost.nfe++;
  double t = gq_attempt_begin(&w->a, w->a.t, s->t[s->nt - 1] < s->t[0] ? 1 : -1);
  GQ_TRY(gq_evaluate_at(e, s->bind, t, x, w->a.f, q, &w->a.sum.dtime));
  if (carried && w->a.st->l.dq >= 0)
    gq_copy(k->f->on, w->a.sum.dq.block, q->block, q->bytes); /* for the first step */
  return GQ_OK;
}

/* dL/dt_k += g_k . f(t_k, z_k); the slope is there in the reverse solve, evaluated otherwise. */
static int time_gradient(back *k, int i, const void *g, double sign, bool have_slope, double *gf) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  void *f = w->a.f[0], *z;
  if (!have_slope) {
    f = k->scratch, z = stored(k, i);
    w->a.cost.nfe++;
    GQ_TRY(gq_evaluate_at(&s->plan->f, s->bind, gq_slope_time(s, &w->a, i), &z, &f, NULL, NULL));
  }
  *gf = k->f->on->vec->dot(k->f->dtype, k->n, g, f);
  k->b->gt[i] += sign * *gf;
  return GQ_OK;
}

/* A jump that moves with its time leaves more to the slope before it and less to that after: a . (f- - f+). */
static int jump_gradient(back *k, int i) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  void *z = stored(k, i), *f = k->scratch, *a = w->a.y[k->ia];
  double dir = s->t[s->nt - 1] < s->t[0] ? -1 : 1;
  if (!k->b->gt || !gq_jump_moves(s, i) || s->t[i] == s->t[i + 1]) return GQ_OK;
  for (int side = 1; side >= -1; side -= 2) {
    w->a.cost.nfe++;
    GQ_TRY(gq_evaluate_at(&s->plan->f, s->bind, gq_attempt_begin(&w->a, s->t[i], -side * dir), &z, &f, NULL,
                          NULL));
    k->b->gt[i] += side * k->f->on->vec->dot(k->f->dtype, k->n, a, f);
  }
  return GQ_OK;
}

static int first_step(back *k, double stop) {
  gq_walk *w = &k->w;
  if (!w->a.st->kind.adaptive) return GQ_OK;
  const gq_evaluator *e = w->a.st->l.dq >= 0 ? &k->s->plan->start : &k->s->plan->adjoint;
  if (searches(k)) GQ_TRY(gq_walk_first(w, e, stop, &w->c.h));
  gq_steplog_first(w->c.h);
  return GQ_OK;
}

static int accepted(back *k, double stop) {
  gq_walk *w = &k->w;
  double dir = w->a.h < 0 ? -1 : 1;
  bool past = dir * (w->a.t1 - stop) > 0;
  double theta = past ? (stop - w->a.t) / w->a.h : 1;
  if ((k->gq || past) && w->a.st->l.nfe_dense && w->a.st->l.nq == 0) GQ_TRY(gq_walk_phase(w, 1));
  GQ_TRY(step_products(k, theta, past || w->a.t1 == stop));
  if (adaptive(k) || k->pieces) GQ_TRY(gq_window_step(&k->steps));
  else if (k->gq) GQ_TRY(step_nodes(k, stop));
  if (k->kept) GQ_TRY(keep_step(k));
  if (past) { /* overshoot: the state at the end is read from the interpolant */
    for (int p = 0; p < w->a.st->l.parts; p++) {
      gq_walk_interpolate_all(w, p, theta, k->scratch);
      gq_copy(k->f->on, w->a.y1[p], k->scratch, gq_part_bytes(k->f));
    }
    w->a.t1 = stop;
  }
  gq_walk_commit(w);
  if (k->pieces && (k->steps.n == WINDOW || w->a.t == stop)) GQ_TRY(refine_window(k, w->a.t));
  if (k->reverse || adaptive(k) || (k->pieces && k->steps.n)) return GQ_OK;
  GQ_TRY(gq_trajectory_leave(&k->z, w->a.t));
  limit_step(k);
  return GQ_OK;
}

/* J'(t_i) v into dst (of opposite sign), where nothing forces. */
static int pull_at(back *k, int i, void *v, void **slopes, void **dst) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  void *z = stored(k, i), *x[] = { k->reverse ? z : v, k->reverse ? v : z, k->force };
  gq_zero(k->f->on, k->force, gq_part_bytes(k->f));
  w->a.cost.nfe++;
  *dst = slopes[k->ia];
  return gq_evaluate_at(&s->plan->adjoint, s->bind, s->t[i], x, slopes, NULL, NULL);
}

/* A forcing is solved in steps much shorter than its panel, about as many in every panel; a restart asks
** for one step an interval. */
static bool restarts_cost_less(const back *k) {
  const gq_panel *p = &k->panel;
  int64_t step = k->w.a.st->cost;
  return (p->from - p->to) * (step + 1) <= k->forced_cost;
}

/* The norms of the moments left out, and RMS of two vectors where they are given. */
static void panel_sizes(back *k, double *left, const void *x_, const void *y_, double *rms) {
  const gq_walk *w = &k->w;
  gq_asked of[GQ_MOMENTS_LEFT + 2] = { 0 };
  for (int j = 0; j < GQ_MOMENTS_LEFT; j++)
    of[j] = (gq_asked){ .part = k->ia, .x = k->panel.left[j], .y = w->a.y[k->ia] };
  of[GQ_MOMENTS_LEFT] = (gq_asked){ .part = -1, .x = x_ },
  of[GQ_MOMENTS_LEFT + 1] = (gq_asked){ .part = -1, .x = y_ };
  gq_attempt_sizes(&w->a, GQ_MOMENTS_LEFT + (x_ ? 2 : 0), of);
  for (int j = 0; j < GQ_MOMENTS_LEFT; j++) left[j] = of[j].out;
  for (int j = 0; j < 2 && x_; j++) rms[j] = of[GQ_MOMENTS_LEFT + j].out;
}

/* Split the panel until the moments left out matter less than the tolerance. kappa and omega come from
** J' times one cotangent at both edges, a if there is one: the near edge's is in hand, the far one's is
** asked for where J' could turn round on the way and the error were too large then. */
static int fit_panel(back *k) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  gq_panel *p = &k->panel;
  double size[GQ_MOMENTS_LEFT], r[2], kappa, omega = 1 / fabs(p->half);
  if (!p->forced || !w->a.st->kind.adaptive) return GQ_OK;
  if (restarts_cost_less(k)) gq_panel_shorten(p, s, k->b->gz, 0);
  if (!p->forced) return GQ_OK;
  void *v = w->a.y[k->ia], *near = w->a.f[k->ia], *far;
  panel_sizes(k, size, near, v, r);
  if (r[1] == 0) {
    v = p->c[0];
    GQ_TRY(pull_at(k, p->from, v, w->a.f1, &near));
    panel_sizes(k, size, near, v, r);
  }
  kappa = r[0] / r[1];
  if (gq_panel_error(p, kappa, omega, size) <= 1) return GQ_OK;
  GQ_TRY(pull_at(k, p->to, v, w->a.y1, &far));
  kappa = fmax(kappa, rms(k, far) / r[1]);
  add(k, -1, near, far);
  omega = rms(k, far) / r[1] / (2 * fabs(p->half) * kappa);
  for (double error; p->forced && !((error = gq_panel_error(p, kappa, omega, size)) <= 1);) {
    s->info.panels_split++;
    gq_panel_shorten(p, s, k->b->gz, 2 * fabs(p->half) * fmax(0.1, pow(0.5 / error, 0.25)));
    panel_sizes(k, size, NULL, NULL, NULL);
  }
  return GQ_OK;
}

/* The slope where the panel begins, with what forces a there. */
static void add_forcing(back *k) {
  gq_walk *w = &k->w;
  if (!k->panel.forced || !w->a.st->l.carry) return;
  gq_panel_force(&k->panel, k->s, w->a.t, k->force);
  add(k, 1, k->force, w->a.f[k->ia]);
}

/* The panel that begins at measurement time i: one interval, unless moments join several. */
static void begin_panel(back *k, int i) {
  k->panel.from = i, k->panel.to = i - 1, k->panel.forced = false;
  if (k->s->o.moments && !k->single[i]) gq_panel_begin(&k->panel, k->s, k->b->gz, i);
}

/* dL/dt of the measurement times inside the panel. */
static int inner_time_gradients(back *k) {
  double gf;
  for (int i = k->panel.to + 1; k->b->gt && i < k->panel.from; i++) {
    GQ_TRY(time_gradient(k, i, gq_at_time(k->s, k->b->gz, i), 1, false, &gf));
    k->time -= gf;
  }
  return GQ_OK;
}

static int interval(back *k, int i) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  const void *g = gq_at_time(s, k->b->gz, i);
  double gf = 0;
  GQ_TRY(begin(k, i));
  GQ_TRY(fit_panel(k));
  add_forcing(k);
  double stop = s->t[k->panel.to];
  /* The reference evaluates f anew at every t_k and carries the derivative at t_0 as a state: for
  ** parity of the counts the slope in hand serves once. */
  bool have = k->reverse && w->a.st->l.carry && !(s->o.parity && i > 1);
  if (k->b->gt) GQ_TRY(time_gradient(k, i, g, 1, have, &gf));
  k->time -= gf;
  GQ_TRY(first_step(k, stop));
  limit_step(k);
  GQ_TRY(inner_time_gradients(k));
  if (k->gq) GQ_TRY(interval_rule(k));
  if (k->started) s->info.restarts++;
  s->info.panels++;
  k->started = true, k->window = s->t[i];
  int64_t before = w->a.cost.nfe;
  while (w->a.t != stop) {
    GQ_TRY(gq_walk_step(w, stop, !s->o.overshoot));
    GQ_TRY(accepted(k, stop));
  }
  GQ_TRY(gq_ahead_settle(w));
  if (k->kept) GQ_TRY(keep_run(k, stop));
  if (adaptive(k)) GQ_TRY(gq_kronrod_interval(&k->kronrod, s->t[i], stop));
  if (k->panel.forced) k->forced_cost = w->a.cost.nfe - before;
  if (!k->reverse) return GQ_OK;
  void *z = stored(k, k->panel.to);
  double r = gq_attempt_norm(&w->a, 0, w->a.y[0], z, z);
  if (!(r <= s->info.reconstruction)) s->info.reconstruction = r;
  return GQ_OK;
}

/* Solved backwards, z grows where it decays: what to do, if that may be why. */
static const char *lost(const back *k, int status) {
  bool solver =
    status == GQ_ENONFINITE || status == GQ_EUNDERFLOW || status == GQ_EMAXSTEPS || status == GQ_ENEWTON;
  return k->reverse && solver
           ? "; z is solved backwards here: adjoint = {trajectory = \"dense\"} and gradient = "
             "\"direct\" go along the solution"
           : "";
}

static int run(back *k) {
  gq_solution *s = k->s;
  gq_walk *w = &k->w;
  double gf;
  for (int i = s->nt - 1; i > 0; i = k->panel.to) {
    const void *g = gq_at_time(s, k->b->gz, i);
    GQ_TRY(jump_gradient(k, i));
    add(k, 1, g, w->a.y[k->ia]);
    begin_panel(k, i);
    if (s->t[i] == s->t[k->panel.to]) {
      if (k->b->gt) GQ_TRY(time_gradient(k, i, g, 1, false, &gf));
    } else if (k->panel.forced ||
               any_nonzero(k, w->a.y[k->ia])) { /* before the last cotangent a stays zero */
      int status = interval(k, i);
      if (status != GQ_OK)
        return gq_fail(status, "in the backward pass between t[%d] and t[%d]: %s%s", i + 1, i, gq_message(),
                       lost(k, status));
    }
  }
  if (k->b->gt) GQ_TRY(time_gradient(k, 0, w->a.y[k->ia], -1, false, &gf));
  add(k, 1, gq_at_time(s, k->b->gz, 0), w->a.y[k->ia]);
  gq_field_unpack(s->plan->field, w->a.y[k->ia], k->b->a);
  if (!k->reverse) s->info.reconstruction = gq_trajectory_error(&k->z);
  if (k->gq) GQ_TRY(gq_nodebuffer_flush(&k->nodes));
  if (s->plan->probes && s->o.guards && s->o.nodes != GQ_NODES_STEP && k->b->refine == 1)
    s->info.spectrum = gq_spectrum_ratio(&k->nodes.spectrum);
  if (k->weighted.block && !k->pieces)
    return gq_nodebuffer_difference(&k->nodes, &k->weighted, &s->info.quadrature_error);
  return GQ_OK;
}

/* Nodes and Runge-Kutta weights do not agree; are the pieces to be refined? */
static bool disagrees(const back *k) {
  return judged(k) && !k->pieces && !(k->s->info.quadrature_error <= AGREEMENT * k->s->o.back_rtol);
}

/* What is to follow a pass: the same with the integral refined, its steps not being there any more; or without the
** panels that it has marked. */
typedef enum way { DONE, PIECES, SINGLY } way;

static int pass(gq_pullback *b, bool pieces, bool *single, way *next) {
  bool again;
  back k = { .b = b, .s = b->s, .f = b->s->plan->field, .pieces = pieces, .single = single };
  gq_walk *w = &k.w;
  gq_info *info = &b->s->info;
  k.n = gq_numel(k.f->shape);
  double size = cotangent_size(&k);
  *next = DONE;
  if (size == 0) return GQ_OK; /* the adjoint equation is linear */
  int status = setup(&k, size);
  if (pieces) k.nodes.sum.rtol *= b->refine > 1 ? CHECKED : 1;
  if (status == GQ_OK) status = run(&k);
  again = status == GQ_OK && disagrees(&k);
  info->nodes += k.nodes.evaluated, b->nfe += k.nodes.evaluated;
  if (again && k.kept) {
    again = false, pieces = true;
    status = refine_kept(&k);
    info->nodes += k.nodes.evaluated, b->nfe += k.nodes.evaluated;
  }
  *next = k.bends ? SINGLY : again ? PIECES : DONE;
  b->nfe += w->a.cost.nfe + k.z.nfe;
  if (k.gq) info->defect = fmax(info->defect, k.nodes.defect);
  if (pieces && k.weighted.block) {
    info->quadrature_error = gq_refine_error(&k.nodes.sum);
    info->rounds = k.nodes.sum.rounds, info->unresolved = k.nodes.sum.unresolved;
    info->nodes_wanted += k.nodes.evaluated;
  }
  if (b->s->o.engine->integral == GQ_INTEGRAL_ADAPTIVE) info->nodes_wanted = k.nodes.evaluated;
  info->steps_backward = w->steps, info->rejected_backward = w->rejected;
  gq_kronrod_done(&k.kronrod);
  gq_window_done(&k.steps);
  gq_free(k.run);
  gq_trajectory_end(&k.z);
  gq_release(k.s->plan->field->on, k.trail_block);
  gq_nodebuffer_done(&k.nodes);
  gq_rule_done(&k.rule);
  gq_grads_done(&k.weighted);
  gq_grads_done(&w->a.sum.dq);
  gq_grads_done(&w->a.sum.next);
  gq_grads_done(&w->a.sum.eq);
  b->s->bytes += gq_ahead_bytes(w);
  gq_walk_done(w);
  gq_release(k.s->plan->field->on, k.block);
  return status;
}

int gq_continuous_backward(gq_pullback *b) {
  gq_solution *s = b->s;
  size_t held = s->bytes;
  bool pieces = s->o.nodes == GQ_NODES_AUTO && s->plan->probes && b->refine > 1;
  bool *single = gq_calloc(s->nt, sizeof *single);
  if (!single) return gq_nomem(s->nt);
  way next = DONE;
  s->info.nodes = 0;
  int status = pass(b, pieces, single, &next);
  for (int marked = 0; status == GQ_OK && next != DONE;) {
    pieces |= next == PIECES;
    if (next == SINGLY && marked++) memset(single, true, s->nt * sizeof *single); /* panels anywhere */
    if (s->bytes > s->info.peak_bytes) s->info.peak_bytes = s->bytes;
    s->bytes = held;
    status = gq_pullback_again(b);
    if (status == GQ_OK) status = pass(b, pieces, single, &next);
  }
  gq_free(single);
  return status;
}
