/*
** reversible.c -- methods that carry a tuple from step to step and can be inverted: one evaluation a step, there
** (sign 1) and back (-1). Forward systems: one part. slope[0] comes in, the last slope goes out. A method is a row at
** its functions' end, and one of tableaux.def.
*/
#include "explicit.h"

#include "builder.h"

const gq_stepclass gq_reversible = { .program = true,
                                     .build = gq_program_build,
                                     .init = gq_program_init,
                                     .done = gq_program_done,
                                     .attempt = gq_program_attempt,
                                     .phase = gq_program_phase,
                                     .slope = gq_program_slope };

/* ---- alf ---- */

/* z' = z + h v / 2 (t + h / 2), v1 = v + 2 eta (f(z') - v), z1 = z' + h v1 / 2 */
static void alf_step(gq_builder *b, double sign) {
  gq_graph *g = b->g;
  double eta = b->k->eta;
  gq_ref v = b->slope[0][0], mid = b->mid = gq_builder_move(b, b->y[0], sign / 2, v);
  gq_ref u = gq_scale(g, b->u = gq_builder_system(b, 1, 0.5, &mid, b->q), 2 * eta);
  if (sign > 0) v = gq_emit2(g, GQ_OP_ADD, u, gq_scale(g, v, 1 - 2 * eta));
  else v = gq_scale(g, gq_emit2(g, GQ_OP_SUB, v, u), 1 / (1 - 2 * eta));
  b->slope[1][0] = v;
  b->y1[0] = gq_builder_move(b, mid, sign / 2, v);
}

/* alf from z' = z + h v / 2 on, which the inverse knows, with f evaluated there: z and v of the start come in anew,
** and so does h, so that no derivative takes the way of the inverse. */
static void alf_pulled(gq_builder *b, gq_pulled *p) {
  gq_graph *g = b->g;
  double eta = b->k->eta;
  gq_ref v1 = gq_emit2(g, GQ_OP_ADD, gq_scale(g, b->u, 2 * eta), gq_scale(g, b->f2, 1 - 2 * eta));
  b->h = b->h2;
  *p = (gq_pulled){
    gq_builder_move(b, b->mid, 0.5, v1), v1, { b->mid, b->f2, b->t, b->h2, b->mid, b->mid }, NULL
  };
}

/* And from z' to z, v and h. */
static int alf_rest(gq_builder *b, gq_pulled *p) {
  gq_ref *grad = p->grad, mid = gq_builder_move(b, b->y2, 0.5, b->f2), wrt[] = { b->y2, b->f2, b->h2 },
         more[3];
  GQ_TRY(gq_vjp(b->g, 1, &mid, &grad[0], 3, wrt, more));
  grad[0] = more[0], grad[1] = gq_builder_sum(b, grad[1], more[1]),
  grad[3] = gq_builder_sum(b, grad[3], more[2]);
  return GQ_OK;
}

const gq_tuple gq_tuple_alf = {
  .step = alf_step, .pulled = alf_pulled, .rest = alf_rest, .stops = true, .damped = true
};

/* ---- reversible Heun ---- */

/* y + w h f, or of an SDE y + f h + G dW, w being 1 or -1 */
static gq_ref forth(gq_builder *b, gq_ref y, double w, gq_ref f, gq_ref G) {
  if (!b->s->noise) return gq_builder_move(b, y, w, f);
  return gq_emit2(b->g, w > 0 ? GQ_OP_ADD : GQ_OP_SUB, y, gq_builder_rise(b, f, G));
}

static gq_ref mean(gq_graph *g, gq_ref x, gq_ref y) { return gq_scale(g, gq_emit2(g, GQ_OP_ADD, x, y), 0.5); }

/* x1 = 2 z - x + h f, f1 = f(t1, x1), z1 = z + h (f + f1) / 2; back with -h, f at t. Of an SDE G dW beside f h. */
static void heun_step(gq_builder *b, double sign) {
  gq_graph *g = b->g;
  gq_ref f = b->slope[0][0], G = b->x[GQ_EXTRA_DIFFUSION], out[2];
  b->x1[0] = forth(b, gq_emit2(g, GQ_OP_SUB, gq_scale(g, b->y[0], 2), b->x[0]), sign, f, G);
  b->slope[1][0] = gq_builder_system(b, 1, sign > 0 ? 1 : 0, &b->x1[0], out);
  if (b->s->noise) {
    b->x1[GQ_EXTRA_DIFFUSION] = out[1];
    b->y1[0] = forth(b, b->y[0], sign, mean(g, f, out[0]), mean(g, G, out[1]));
  } else {
    b->y1[0] = forth(b, forth(b, b->y[0], sign / 2, f, G), sign / 2, out[0], G);
  }
}

/* x1 of a step from y2, f2, x2 */
static gq_ref heun_twin(gq_builder *b) {
  gq_ref two = gq_scale(b->g, b->y2, 2);
  return forth(b, gq_emit2(b->g, GQ_OP_SUB, two, b->x2[GQ_EXTRA_TWIN]), 1, b->f2, b->x2[GQ_EXTRA_DIFFUSION]);
}

/* The step that ends where the inverse has evaluated f, from x there on, which comes in anew like its start. So do h
** and W: what the inverse has made of them is of the step after. */
static void heun_pulled(gq_builder *b, gq_pulled *p) {
  gq_graph *g = b->g;
  gq_ref f = b->slope[1][0], G = b->x2[GQ_EXTRA_DIFFUSION], y1;
  b->h = b->h2, b->dw = b->dw2;
  if (b->s->noise) y1 = forth(b, b->y2, 1, mean(g, b->f2, f), mean(g, G, b->x1[GQ_EXTRA_DIFFUSION]));
  else y1 = forth(b, forth(b, b->y2, 0.5, b->f2, G), 0.5, f, G);
  *p = (gq_pulled){ y1, f, { b->y2, b->f2, b->t, b->h2, b->x1[GQ_EXTRA_TWIN], b->y2 }, NULL };
  if (b->s->noise) p->wrt[GQ_PULLED_X + GQ_EXTRA_DIFFUSION] = G;
}

/* And from x to its start; f was evaluated at t + h. */
static int heun_rest(gq_builder *b, gq_pulled *p) {
  gq_ref *grad = p->grad, *cx = grad + GQ_PULLED_X, x = heun_twin(b), more[5],
         wrt[] = { b->y2, b->f2, b->h2, b->x2[GQ_EXTRA_TWIN], p->wrt[GQ_PULLED_X + GQ_EXTRA_DIFFUSION] };
  GQ_TRY(gq_vjp(b->g, 1, &x, &cx[GQ_EXTRA_TWIN], 5, wrt, more));
  grad[0] = gq_builder_sum(b, grad[0], more[0]), grad[1] = gq_builder_sum(b, grad[1], more[1]),
  grad[3] = gq_builder_sum(b, gq_builder_sum(b, grad[3], more[2]), grad[2]);
  cx[GQ_EXTRA_TWIN] = more[3];
  cx[GQ_EXTRA_DIFFUSION] = gq_builder_sum(b, cx[GQ_EXTRA_DIFFUSION], more[4]);
  return GQ_OK;
}

const gq_tuple gq_tuple_reversible_heun = {
  .step = heun_step, .pulled = heun_pulled, .rest = heun_rest, .late = true, .extra = true, .stops = true
};

/* ---- leapfrog ---- */

/* x (which 0) or v (1) of a state [x, v] */
static gq_ref half(gq_graph *g, gq_ref y, int axis, int which) {
  int64_t all = gq_graph_node(g, y)->shape.dim[axis], n = all / 2;
  return gq_slice(g, y, axis, which ? n : 0, which ? all - n : n);
}

static gq_ref join(gq_graph *g, gq_ref x, gq_ref v, int axis) {
  return gq_cat(g, 2, (gq_ref[]){ x, v }, axis);
}

/* v' = v + h a / 2, x1 = x + h v', a1 = f(t1, [x1, v'])_v, v1 = v' + h a1 / 2; back with -h */
static void leapfrog_step(gq_builder *b, double sign) {
  gq_graph *g = b->g;
  int axis = b->s->last;
  gq_ref a = half(g, b->slope[0][0], axis, 1),
         mid = gq_builder_move(b, half(g, b->y[0], axis, 1), sign / 2, a);
  gq_ref x1 = gq_builder_move(b, half(g, b->y[0], axis, 0), sign, mid), z = join(g, x1, mid, axis);
  gq_ref a1 = half(g, gq_builder_system(b, 1, sign > 0 ? 1 : 0, &z, b->q), axis, 1),
         v1 = gq_builder_move(b, mid, sign / 2, a1);
  b->slope[1][0] = join(g, mid, gq_scale(g, gq_emit2(g, GQ_OP_ADD, a, a1), 0.5), axis);
  b->slope[2][0] = join(g, v1, a1, axis);
  b->y1[0] = join(g, x1, v1, axis);
}

/* Does r depend on node `on`? */
static int depends(const gq_graph *g, gq_ref r, gq_ref on, bool *yes) {
  bool *reach = gq_calloc(r + 1, sizeof *reach);
  if (!reach) return gq_nomem(r + 1);
  for (gq_ref i = on; i <= r; i++) {
    const gq_node *n = gq_graph_node(g, i);
    reach[i] = i == on;
    for (int k = 0; k < n->nargs; k++) reach[i] |= reach[n->args[k]];
  }
  *yes = r >= on && reach[r];
  gq_free(reach);
  return GQ_OK;
}

/* Are they the same, as a whole or entry by entry (a stack of indices)? */
static bool equal(gq_graph *g, gq_ref a, gq_ref v, int axis) {
  int64_t n = gq_graph_node(g, v)->shape.dim[axis], i = 0;
  if (a == v || gq_graph_node(g, a)->shape.dim[axis] != n) return a == v;
  while (i < n && gq_slice(g, a, axis, i, 1) == gq_slice(g, v, axis, i, 1)) i++;
  return i == n;
}

/* x' = v, and v' without v: the graph over separate x and v shows it. */
static int leapfrog_fits(gq_builder *b) {
  gq_graph *g = gq_graph_new();
  gq_ref out, v, *bind = b->bind;
  int axis = b->s->last, n = gq_graph_inputs(b->s->g);
  bool damped = false;
  if (gq_numel(gq_builder_input(b, 1)->shape) == 0) return gq_graph_free(g), GQ_OK;
  if (gq_graph_calls(b->s->g)) {
    gq_graph_free(g);
    return gq_fail(
      GQ_EARG, "method = \"leapfrog\" solves x'' = a(t, x), and with trace = false nothing shows that the "
               "dynamics are of that form; trace them, or take another method");
  }
  if (!g) return gq_nomem(0);
  gq_shape first = gq_builder_input(b, 1)->shape, second = first;
  first.dim[axis] /= 2, second.dim[axis] -= first.dim[axis];
  for (int i = 0; i < n; i++)
    bind[i] = gq_input(g, gq_builder_input(b, i)->dtype, i == 1 ? first : gq_builder_input(b, i)->shape);
  v = gq_input(g, gq_builder_input(b, 1)->dtype, second);
  bind[1] = join(g, bind[1], v, axis);
  gq_inline(g, b->s->g, bind, &out);
  bool is_v = equal(g, half(g, out, axis, 0), v, axis);
  gq_ref a = half(g, out, axis, 1);
  int status = gq_graph_status(g);
  if (status == GQ_OK) status = depends(g, a, v, &damped);
  gq_graph_free(g);
  if (status != GQ_OK || (is_v && !damped)) return status;
  return gq_fail(
    GQ_EARG,
    "method = \"leapfrog\" solves x'' = a(t, x): the state holds [x, v] in its last dimension, the dynamics "
    "return [v, a], taken apart and joined by narrow, indices, cat and stack (nn.SecondOrder); %s. Any other "
    "method takes these dynamics",
    is_v ? "here a depends on v, or on both in a way that hides it" : "here the first half is not v");
}

const gq_tuple gq_tuple_leapfrog = { .step = leapfrog_step, .fits = leapfrog_fits, .halves = true };
