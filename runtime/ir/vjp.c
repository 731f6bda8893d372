/*
** vjp.c -- reverse mode, graph to graph: one rule an operation, and the loop over them. Rules
** are made of operations, so derivatives are folded, shared and differentiated like the rest.
*/
#include "internal.h"

#include <math.h>

typedef struct rule {
  gq_graph *g;
  const gq_node *n;
  gq_ref y, c; /* the node and its cotangent */
  gq_ref a, b; /* its first two operands */
  const bool *want;
  gq_ref *out; /* cotangents of the operands */
} rule;

static gq_shape shape_of(const rule *r, gq_ref x) { return gq_graph_node(r->g, x)->shape; }
static gq_ref op1(rule *r, gq_op op, gq_ref x) { return gq_emit1(r->g, op, x); }
static gq_ref op2(rule *r, gq_op op, gq_ref x, gq_ref y) { return gq_emit2(r->g, op, x, y); }
static gq_ref add(rule *r, gq_ref x, gq_ref y) { return op2(r, GQ_OP_ADD, x, y); }
static gq_ref sub(rule *r, gq_ref x, gq_ref y) { return op2(r, GQ_OP_SUB, x, y); }
static gq_ref mul(rule *r, gq_ref x, gq_ref y) { return op2(r, GQ_OP_MUL, x, y); }
static gq_ref quotient(rule *r, gq_ref x, gq_ref y) { return op2(r, GQ_OP_DIV, x, y); }
static gq_ref neg(rule *r, gq_ref x) { return op1(r, GQ_OP_NEG, x); }
static gq_ref square(rule *r, gq_ref x) { return op1(r, GQ_OP_SQUARE, x); }
static gq_ref scale(rule *r, gq_ref x, double s) { return gq_scale(r->g, x, s); }
static gq_ref number(rule *r, double x) { return gq_const(r->g, r->n->dtype, x); }
/* Cotangent of operand i, summed back to its shape. */
static void give(rule *r, int i, gq_ref x) { r->out[i] = gq_sum_to(r->g, x, shape_of(r, r->n->args[i])); }

/* ---- one operand: y = f(x), give c f'(x) ---- */

static void vjp_neg(rule *r) { give(r, 0, neg(r, r->c)); }
static void vjp_exp(rule *r) { give(r, 0, mul(r, r->c, r->y)); }
static void vjp_log(rule *r) { give(r, 0, quotient(r, r->c, r->a)); }
static void vjp_log1p(rule *r) { give(r, 0, quotient(r, r->c, add(r, r->a, number(r, 1)))); }
static void vjp_expm1(rule *r) { give(r, 0, mul(r, r->c, add(r, r->y, number(r, 1)))); }
static void vjp_sqrt(rule *r) { give(r, 0, quotient(r, scale(r, r->c, 0.5), r->y)); }
static void vjp_rsqrt(rule *r) { give(r, 0, mul(r, scale(r, r->c, -0.5), mul(r, r->y, square(r, r->y)))); }
static void vjp_abs(rule *r) { give(r, 0, mul(r, r->c, op1(r, GQ_OP_SIGN, r->a))); }
static void vjp_sin(rule *r) { give(r, 0, mul(r, r->c, op1(r, GQ_OP_COS, r->a))); }
static void vjp_cos(rule *r) { give(r, 0, neg(r, mul(r, r->c, op1(r, GQ_OP_SIN, r->a)))); }
static void vjp_tan(rule *r) { give(r, 0, mul(r, r->c, add(r, square(r, r->y), number(r, 1)))); }
static void vjp_atan(rule *r) { give(r, 0, quotient(r, r->c, add(r, square(r, r->a), number(r, 1)))); }
static void vjp_tanh(rule *r) { give(r, 0, mul(r, r->c, sub(r, number(r, 1), square(r, r->y)))); }
static void vjp_sigmoid(rule *r) { give(r, 0, mul(r, r->c, mul(r, r->y, sub(r, number(r, 1), r->y)))); }
/* The sigmoid of a is 1 - e^-y: y is what layers behind it ask for, too. */
static void vjp_softplus(rule *r) {
  gq_ref slope = r->g->later ? op1(r, GQ_OP_NEG, op1(r, GQ_OP_EXPM1, op1(r, GQ_OP_NEG, r->y)))
                             : op1(r, GQ_OP_SIGMOID, r->a);
  give(r, 0, mul(r, r->c, slope));
}
static void vjp_square(rule *r) { give(r, 0, mul(r, r->c, scale(r, r->a, 2))); }
static void vjp_reciprocal(rule *r) { give(r, 0, neg(r, mul(r, r->c, square(r, r->y)))); }

static void vjp_relu(rule *r) {
  gq_ref zero = number(r, 0);
  give(r, 0, gq_where(r->g, op2(r, GQ_OP_GT, r->a, zero), r->c, zero));
}

static void vjp_erf(rule *r) { /* 2 / sqrt(pi) e^(-x^2) */
  gq_ref bell = op1(r, GQ_OP_EXP, neg(r, square(r, r->a)));
  give(r, 0, mul(r, r->c, scale(r, bell, 2 / sqrt(M_PI))));
}

/* ---- two operands ---- */

static void vjp_add(rule *r) {
  if (r->want[0]) give(r, 0, r->c);
  if (r->want[1]) give(r, 1, r->c);
}

static void vjp_sub(rule *r) {
  if (r->want[0]) give(r, 0, r->c);
  if (r->want[1]) give(r, 1, neg(r, gq_sum_to(r->g, r->c, shape_of(r, r->b))));
}

static void vjp_mul(rule *r) {
  if (r->want[0]) give(r, 0, mul(r, r->c, r->b));
  if (r->want[1]) give(r, 1, mul(r, r->c, r->a));
}

static void vjp_div(rule *r) {
  gq_ref q = quotient(r, r->c, r->b);
  if (r->want[0]) give(r, 0, q);
  if (r->want[1]) give(r, 1, neg(r, mul(r, q, r->y)));
}

static void vjp_remainder(rule *r) { /* x - floor(x / y) y */
  if (r->want[0]) give(r, 0, r->c);
  if (r->want[1]) give(r, 1, neg(r, mul(r, r->c, op2(r, GQ_OP_FLOOR_DIVIDE, r->a, r->b))));
}

/* p and q, both bool */
static gq_ref both(rule *r, gq_ref p, gq_ref q) { return gq_where(r->g, p, q, gq_const(r->g, GQ_BOOL, 0)); }

/* y x^(y-1); where x = y = 0 the exponent is read as 1, so that 0^0 gives 0 and no NaN. */
static gq_ref pow_dx(rule *r) {
  double e;
  gq_ref zero = number(r, 0), y = r->b;
  if (!gq_uniform(r->g, y, &e)) {
    gq_ref corner = both(r, op2(r, GQ_OP_EQ, y, zero), op2(r, GQ_OP_EQ, r->a, zero));
    y = gq_where(r->g, corner, number(r, 1), y);
  }
  return mul(r, r->b, op2(r, GQ_OP_POW, r->a, sub(r, y, number(r, 1))));
}

/* x^y log x; 0 where x = 0 and y >= 0, its limit for y > 0. */
static gq_ref pow_dy(rule *r) {
  gq_ref zero = number(r, 0);
  gq_ref corner = both(r, op2(r, GQ_OP_EQ, r->a, zero), op2(r, GQ_OP_GE, r->b, zero));
  return mul(r, r->y, op1(r, GQ_OP_LOG, gq_where(r->g, corner, number(r, 1), r->a)));
}

static void vjp_pow(rule *r) {
  if (r->want[0]) give(r, 0, mul(r, r->c, pow_dx(r)));
  if (r->want[1]) give(r, 1, mul(r, r->c, pow_dy(r)));
}

/* The winner takes the cotangent, a tie shares it. */
static void extremum(rule *r, gq_op first, gq_op second) {
  gq_ref zero = number(r, 0), half = scale(r, r->c, 0.5);
  gq_ref tie = gq_where(r->g, op2(r, GQ_OP_EQ, r->a, r->b), half, zero);
  if (r->want[0]) give(r, 0, gq_where(r->g, op2(r, first, r->a, r->b), r->c, tie));
  if (r->want[1]) give(r, 1, gq_where(r->g, op2(r, second, r->a, r->b), r->c, tie));
}
static void vjp_maximum(rule *r) { extremum(r, GQ_OP_GT, GQ_OP_LT); }
static void vjp_minimum(rule *r) { extremum(r, GQ_OP_LT, GQ_OP_GT); }

static void vjp_where(rule *r) {
  gq_ref zero = number(r, 0);
  if (r->want[1]) give(r, 1, gq_where(r->g, r->a, r->c, zero));
  if (r->want[2]) give(r, 2, gq_where(r->g, r->a, zero, r->c));
}

static void vjp_cast(rule *r) { r->out[0] = gq_cast(r->g, r->c, gq_graph_node(r->g, r->a)->dtype); }

/* y = op(a) op(b): d op(a) = c op(b)', d op(b) = op(a)' c; a transposed operand gets the
** transposed product. */
static void vjp_matmul(rule *r) {
  bool ta = r->n->attr.flags & GQ_TA, tb = r->n->attr.flags & GQ_TB;
  if (r->want[0])
    give(r, 0,
         ta ? gq_matmul(r->g, r->b, r->c, (tb ? GQ_TA : 0) | GQ_TB)
            : gq_matmul(r->g, r->c, r->b, tb ? 0 : GQ_TB));
  if (r->want[1])
    give(r, 1,
         tb ? gq_matmul(r->g, r->c, r->a, GQ_TA | (ta ? GQ_TB : 0))
            : gq_matmul(r->g, r->a, r->c, ta ? 0 : GQ_TA));
}

static void vjp_affine(rule *r) {
  vjp_matmul(r);
  if (r->want[2]) give(r, 2, r->c);
}

/* ---- reductions ---- */

static void vjp_sum(rule *r) { r->out[0] = gq_expand(r->g, r->c, shape_of(r, r->a)); }

/* Ties share evenly. */
static void vjp_amax(rule *r) {
  gq_ref hit = gq_cast(r->g, op2(r, GQ_OP_EQ, r->a, r->y), r->n->dtype);
  gq_ref count = gq_sum_axes(r->g, hit, r->n->attr.flags);
  r->out[0] = mul(r, hit, quotient(r, r->c, count));
}

/* ---- moving numbers ---- */

static void vjp_reshape(rule *r) { r->out[0] = gq_reshape(r->g, r->c, shape_of(r, r->a)); }
static void vjp_expand(rule *r) { give(r, 0, r->c); }

static void vjp_permute(rule *r) {
  int inverse[GQ_MAXDIM];
  for (int i = 0; i < r->n->shape.ndim; i++) inverse[r->n->attr.perm[i]] = i;
  r->out[0] = gq_permute(r->g, r->c, inverse);
}

/* `op` with the node's attributes and the shape of its first operand; idx_ may be GQ_NONE. */
static void adjoint(rule *r, gq_op op, gq_ref idx_) {
  gq_attr attr = r->n->attr;
  attr.shape = shape_of(r, r->a);
  r->out[0] = gq_emit(r->g, op, idx_ == GQ_NONE ? 1 : 2, (gq_ref[]){ r->c, idx_ }, &attr);
}
static void vjp_slice(rule *r) { adjoint(r, GQ_OP_PAD, GQ_NONE); }
static void vjp_pad(rule *r) { adjoint(r, GQ_OP_SLICE, GQ_NONE); }
static void vjp_window(rule *r) { adjoint(r, GQ_OP_WINDOW_ADD, GQ_NONE); }
static void vjp_window_add(rule *r) { adjoint(r, GQ_OP_WINDOW, GQ_NONE); }
static void vjp_index_select(rule *r) { adjoint(r, GQ_OP_INDEX_ADD, r->b); }
static void vjp_index_add(rule *r) { adjoint(r, GQ_OP_INDEX_SELECT, r->b); }
static void vjp_gather(rule *r) { adjoint(r, GQ_OP_SCATTER_ADD, r->b); }
static void vjp_scatter_add(rule *r) { adjoint(r, GQ_OP_GATHER, r->b); }

static void vjp_cat(rule *r) {
  int axis = r->n->attr.axis;
  int64_t first = 0;
  for (int i = 0; i < r->n->nargs; i++) {
    int64_t n = shape_of(r, r->n->args[i]).dim[axis];
    if (r->want[i]) r->out[i] = gq_slice(r->g, r->c, axis, first, n);
    first += n;
  }
}

/* ---- callbacks ---- */

/* n numbers of the vector v from *at on, as operand i is. */
static void take_piece(rule *r, gq_ref v, int i, int64_t *at) {
  gq_shape s = shape_of(r, r->n->args[i]);
  if (r->want[i]) r->out[i] = gq_reshape(r->g, gq_slice(r->g, v, 0, *at, gq_numel(s)), s);
  *at += gq_numel(s);
}

/* One call gives all that are wanted side by side: of z, t, and the parameters together. */
static void vjp_call(rule *r) {
  const gq_node *n = r->n;
  int64_t total = 0, at = 0;
  int what = (r->want[2] ? GQ_PULL_Z : 0) | (r->want[1] ? GQ_PULL_T : 0);
  for (int i = 3; i < n->nargs; i++) what |= r->want[i] ? GQ_PULL_PARAMS : 0;
  for (int i = 1; i < n->nargs; i++)
    if (what & (i == 1 ? GQ_PULL_T : i == 2 ? GQ_PULL_Z : GQ_PULL_PARAMS))
      total += gq_numel(shape_of(r, n->args[i]));
  gq_attr attr = { .flags = what, .shape = gq_shape_of(1, &total) };
  gq_ref args[] = { n->args[0], n->args[1], n->args[2], r->c },
         v = gq_emit(r->g, GQ_OP_CALL_PULL, 4, args, &attr);
  if (what & GQ_PULL_Z) take_piece(r, v, 2, &at);
  if (what & GQ_PULL_T) take_piece(r, v, 1, &at);
  for (int i = 3; what & GQ_PULL_PARAMS && i < n->nargs; i++) take_piece(r, v, i, &at);
}

static void vjp_call_pull(rule *r) {
  gq_graph_fail(r->g, gq_fail(GQ_EUNSUPPORTED, "dynamics that are called back have first derivatives alone"));
}

static void vjp_zero(rule *r) {} /* nothing flows */

__attribute__((unused)) static void vjp_refuse(rule *r) {
  gq_graph_fail(r->g, gq_fail(GQ_EUNSUPPORTED, "the operation %s has no derivative", gq_ops[r->n->op].name));
}

static void (*const rules[GQ_NOP])(rule *r) = {
#define GQ_UNARY(N, n, meta, takes, vjp, ...) [GQ_OP_##N] = vjp_##vjp,
#define GQ_BINARY(N, n, meta, takes, vjp, ...) [GQ_OP_##N] = vjp_##vjp,
#define GQ_COMPARE(N, ...) [GQ_OP_##N] = vjp_zero,
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, batch, columns, jet, vjp, ...) \
  [GQ_OP_##N] = vjp_##vjp,
#include "ops.def"
};

/* The rule of one node: argcot[i] = cotangent of operand i or GQ_NONE (integers, no dependence).
** want[i] false: operand i needs none. */
static int apply_rule(gq_graph *g, gq_ref node, gq_ref cot, const bool *want, gq_ref *argcot) {
  const gq_node *n = gq_graph_node(g, node);
  bool wanted[3], any = false;
  rule r = { .g = g, .n = n, .y = node, .c = cot, .want = want, .out = argcot };
  for (int i = 0; i < n->nargs; i++) {
    bool w = want[i] && gq_is_float(gq_graph_node(g, n->args[i])->dtype);
    argcot[i] = GQ_NONE;
    if (i < 3) wanted[i] = w;
    any |= w;
  }
  if (n->nargs <= 3) r.want = wanted; /* CAT's operands all have its dtype; CALL's parameters are floats */
  r.a = n->nargs > 0 ? n->args[0] : GQ_NONE;
  r.b = n->nargs > 1 ? n->args[1] : GQ_NONE;
  if (any && cot != GQ_NONE && gq_is_float(n->dtype)) rules[n->op](&r);
  return gq_graph_status(g);
}

/* ---- the loop ---- */

typedef struct sweep {
  gq_graph *g;
  gq_ref *acc; /* cotangent of each node so far */
  bool *need;  /* on a path from wrt */
  gq_ref *argcot;
  bool *want;
} sweep;

static void accumulate(sweep *s, gq_ref r, gq_ref cot) {
  if (cot == GQ_NONE) return;
  s->acc[r] = s->acc[r] == GQ_NONE ? cot : gq_emit2(s->g, GQ_OP_ADD, s->acc[r], cot);
}

static void mark(sweep *s, int size, int nwrt, const gq_ref *wrt) {
  for (gq_ref r = 0; r < size; r++) s->need[r] = false;
  for (int i = 0; i < nwrt; i++) s->need[wrt[i]] = true;
  for (gq_ref r = 0; r < size; r++) {
    const gq_node *n = gq_graph_node(s->g, r);
    for (int i = 0; i < n->nargs; i++) s->need[r] |= s->need[n->args[i]];
    s->need[r] &= gq_is_float(n->dtype);
  }
}

static void pull(sweep *s, gq_ref r) {
  const gq_node *n = gq_graph_node(s->g, r);
  bool any = false;
  for (int i = 0; i < n->nargs; i++) any |= s->want[i] = s->need[n->args[i]];
  if (!any || apply_rule(s->g, r, s->acc[r], s->want, s->argcot) != GQ_OK) return;
  for (int i = 0; i < n->nargs; i++)
    if (s->want[i]) accumulate(s, n->args[i], s->argcot[i]);
}

static int check_cotangent(const gq_graph *g, gq_ref out, gq_ref cot) {
  const gq_node *y = gq_graph_node(g, out), *c = gq_graph_node(g, cot);
  char p[200], q[200];
  if (gq_shape_equal(y->shape, c->shape) && y->dtype == c->dtype) return GQ_OK;
  return gq_fail(GQ_ESHAPE, "cotangent is %s %s; expected %s %s like the output", gq_dtype_name(c->dtype),
                 gq_shape_text(c->shape, p, sizeof p), gq_dtype_name(y->dtype),
                 gq_shape_text(y->shape, q, sizeof q));
}

static int check_refs(const gq_graph *g, int n, const gq_ref *refs, const char *what) {
  for (int i = 0; i < n; i++)
    if (refs[i] < 0 || refs[i] >= gq_graph_size(g))
      return gq_fail(GQ_EARG, "%s %d is no node of the graph", what, i + 1);
  return GQ_OK;
}

static int seed(sweep *s, int nout, const gq_ref *out, const gq_ref *cot) {
  for (int j = 0; j < nout; j++) {
    if (cot[j] == GQ_NONE || !gq_is_float(gq_graph_node(s->g, out[j])->dtype)) continue;
    GQ_TRY(check_cotangent(s->g, out[j], cot[j]));
    accumulate(s, out[j], cot[j]);
  }
  return gq_graph_status(s->g);
}

void gq_graph_later(gq_graph *g) { g->later = true; }

int gq_vjp(gq_graph *g, int nout, const gq_ref *out, const gq_ref *cot, int nwrt, const gq_ref *wrt,
           gq_ref *grad) {
  for (int i = 0; i < nwrt; i++) grad[i] = GQ_NONE;
  GQ_TRY(gq_graph_status(g));
  int size = gq_graph_size(g), most = gq_graph_most(g);
  int status = check_refs(g, nout, out, "output");
  if (status == GQ_OK) status = check_refs(g, nwrt, wrt, "variable");
  if (status != GQ_OK) return gq_graph_fail(g, status), status;
  size_t bytes = (size_t)(size + most) * (sizeof(gq_ref) + 1) + 64;
  sweep s = { .g = g, .acc = gq_alloc(bytes) };
  if (!s.acc) return gq_graph_fail(g, gq_nomem(bytes)), g->status;
  s.argcot = s.acc + size;
  s.need = (bool *)(s.argcot + most);
  s.want = s.need + size;
  for (gq_ref r = 0; r < size; r++) s.acc[r] = GQ_NONE;
  mark(&s, size, nwrt, wrt);
  status = seed(&s, nout, out, cot);
  for (gq_ref r = size - 1; r >= 0 && status == GQ_OK; r--) {
    if (s.need[r] && s.acc[r] != GQ_NONE) pull(&s, r);
    status = gq_graph_status(g);
  }
  for (int i = 0; i < nwrt && status == GQ_OK; i++) grad[i] = s.acc[wrt[i]];
  gq_free(s.acc);
  return status == GQ_OK ? GQ_OK : (gq_graph_fail(g, status), status);
}
