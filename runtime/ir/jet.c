/*
** jet.c -- Taylor mode, graph to graph: the derivatives in time of the solution of dz/dt = f(t, z).
** A node's value along the solution is a series, v(t + s) = v_0 + v_1 s + v_2 s^2 + ...; each operation makes
** the coefficients of its result from those of its operands, one order after the other, by the recurrences of
** Griewank & Walther, Evaluating Derivatives (2nd ed., SIAM 2008), chapter 13. Order k + 1 of z is order k of f
** over k + 1, so that all orders take one sweep each: the cost grows with the square of the order.
*/
#include "internal.h"

#include <math.h>

/* Series that a rule carries beside its result's: cos beside sin, 1 - y^2 beside tanh. */
enum { VALUE, AUX, AUX2, SERIES };

typedef struct jet {
  gq_graph *g;
  int size, most; /* nodes of f; orders 0 .. most - 1 are kept */
  gq_ref *c;      /* [size][SERIES][most]; GQ_NONE: zero */
  bool *on;       /* [size] the value depends on time */
} jet;

typedef struct rule {
  jet *j;
  gq_graph *g;
  const gq_node *n;
  gq_ref y;
  int k; /* the order that is made, at least 1 */
} rule;

static gq_ref *series(const jet *j, gq_ref r, int which) {
  return j->c + ((size_t)r * SERIES + (size_t)which) * (size_t)j->most;
}

static gq_ref at(const jet *j, gq_ref r, int k) {
  return k == 0 ? r : j->on[r] ? series(j, r, VALUE)[k] : GQ_NONE;
}

/* ---- coefficients; GQ_NONE is zero, and emitting over it gives GQ_NONE ---- */

static gq_ref op1(rule *r, gq_op op, gq_ref x) { return gq_emit1(r->g, op, x); }
static gq_ref op2(rule *r, gq_op op, gq_ref x, gq_ref y) { return gq_emit2(r->g, op, x, y); }
static gq_ref neg(rule *r, gq_ref x) { return op1(r, GQ_OP_NEG, x); }
static gq_ref mul(rule *r, gq_ref x, gq_ref y) { return op2(r, GQ_OP_MUL, x, y); }
static gq_ref quotient(rule *r, gq_ref x, gq_ref y) { return op2(r, GQ_OP_DIV, x, y); }
static gq_ref scale(rule *r, gq_ref x, double s) { return gq_scale(r->g, x, s); }
static gq_ref number(rule *r, double x) { return gq_const(r->g, r->n->dtype, x); }

static gq_ref add(rule *r, gq_ref x, gq_ref y) {
  if (x == GQ_NONE || y == GQ_NONE) return x == GQ_NONE ? y : x;
  return op2(r, GQ_OP_ADD, x, y);
}

static gq_ref sub(rule *r, gq_ref x, gq_ref y) {
  if (y == GQ_NONE) return x;
  return x == GQ_NONE ? neg(r, y) : op2(r, GQ_OP_SUB, x, y);
}

/* Where c holds x, else y, of which one may be zero. */
static gq_ref choose(rule *r, gq_ref c, gq_ref x, gq_ref y) {
  gq_ref zero = number(r, 0);
  if (x == GQ_NONE && y == GQ_NONE) return GQ_NONE;
  return gq_where(r->g, c, x == GQ_NONE ? zero : x, y == GQ_NONE ? zero : y);
}

/* Coefficient k of operand i, of the result, and of what is carried beside it. */
static gq_ref x_(const rule *r, int i, int k) { return at(r->j, r->n->args[i], k); }
static gq_ref y_(const rule *r, int k) { return at(r->j, r->y, k); }
static gq_ref aux(const rule *r, int which, int k) { return series(r->j, r->y, which)[k]; }
static void keep(rule *r, int which, int k, gq_ref v) { series(r->j, r->y, which)[k] = v; }

typedef gq_ref (*product)(rule *r, gq_ref x, gq_ref y);
typedef struct list { /* a series by its coefficients, so that rules need not know whose it is */
  const rule *r;
  int which; /* operand 0 or 1; ~VALUE, ~AUX, ~AUX2: the result's own */
} list;

static gq_ref get(list l, int k) {
  if (l.which >= 0) return x_(l.r, l.which, k);
  return ~l.which == VALUE ? y_(l.r, k) : aux(l.r, ~l.which, k);
}
static list operand(const rule *r, int i) { return (list){ r, i }; }
static list own(const rule *r, int which) { return (list){ r, ~which }; }

/* sum of a_j b_k-j over first <= j <= last */
static gq_ref convolve(rule *r, list a, list b, int k, int first, int last, product times) {
  gq_ref sum = GQ_NONE;
  for (int j = first; j <= last; j++) sum = add(r, sum, times(r, get(a, j), get(b, k - j)));
  return sum;
}

/* y' = w x': y_k = sum_1^k j x_j w_k-j / k */
static gq_ref chain(rule *r, list x, list w, int k) {
  gq_ref sum = GQ_NONE;
  for (int j = 1; j <= k; j++) sum = add(r, sum, mul(r, scale(r, get(x, j), j), get(w, k - j)));
  return scale(r, sum, 1.0 / k);
}

static gq_ref square_at(rule *r, list x, int k) {
  gq_ref sum = GQ_NONE;
  for (int j = 0; 2 * j < k; j++) sum = add(r, sum, mul(r, get(x, j), get(x, k - j)));
  sum = scale(r, sum, 2);
  return k % 2 ? sum : add(r, sum, op1(r, GQ_OP_SQUARE, get(x, k / 2)));
}

/* ---- one operand ---- */

static gq_ref jet_linear(rule *r) { return gq_graph_again(r->g, r->n, (gq_ref[]){ x_(r, 0, r->k) }); }
static gq_ref jet_zero(rule *r) { return GQ_NONE; }
static gq_ref jet_exp(rule *r) { return chain(r, operand(r, 0), own(r, VALUE), r->k); }

static gq_ref jet_expm1(rule *r) { /* beside it: e^x */
  if (r->k == 1) keep(r, AUX, 0, add(r, r->y, number(r, 1)));
  gq_ref v = chain(r, operand(r, 0), own(r, AUX), r->k);
  keep(r, AUX, r->k, v);
  return v;
}

/* u y' = x': what sum_1^k-1 j y_j u_k-j / k takes off x_k */
static gq_ref rest(rule *r, list y, list u) {
  gq_ref sum = GQ_NONE;
  for (int j = 1; j < r->k; j++) sum = add(r, sum, mul(r, scale(r, get(y, j), j), get(u, r->k - j)));
  return sub(r, x_(r, 0, r->k), scale(r, sum, 1.0 / r->k));
}
static gq_ref jet_log(rule *r) { return quotient(r, rest(r, own(r, VALUE), operand(r, 0)), x_(r, 0, 0)); }
static gq_ref jet_log1p(rule *r) {
  return quotient(r, rest(r, own(r, VALUE), operand(r, 0)), add(r, x_(r, 0, 0), number(r, 1)));
}

static gq_ref jet_sqrt(rule *r) { /* y y = x */
  gq_ref sum = convolve(r, own(r, VALUE), own(r, VALUE), r->k, 1, r->k - 1, mul);
  return quotient(r, scale(r, sub(r, x_(r, 0, r->k), sum), 0.5), r->y);
}

static gq_ref jet_rsqrt(rule *r) { /* x y' = -y x' / 2 */
  gq_ref sum = GQ_NONE;
  for (int j = 1; j <= r->k; j++)
    sum = add(r, sum, mul(r, scale(r, x_(r, 0, j), 0.5 * j / r->k - 1), y_(r, r->k - j)));
  return quotient(r, sum, x_(r, 0, 0));
}

static gq_ref jet_reciprocal(rule *r) { /* x y = 1 */
  return neg(r, mul(r, r->y, convolve(r, operand(r, 0), own(r, VALUE), r->k, 1, r->k, mul)));
}

static gq_ref jet_abs(rule *r) { return mul(r, x_(r, 0, r->k), op1(r, GQ_OP_SIGN, x_(r, 0, 0))); }

static gq_ref turn(rule *r, gq_op other, double sign) { /* sin and cos, each beside the other */
  if (r->k == 1) keep(r, AUX, 0, op1(r, other, x_(r, 0, 0)));
  gq_ref v = scale(r, chain(r, operand(r, 0), own(r, AUX), r->k), sign);
  keep(r, AUX, r->k, scale(r, chain(r, operand(r, 0), own(r, VALUE), r->k), -sign));
  return v;
}
static gq_ref jet_sin(rule *r) { return turn(r, GQ_OP_COS, 1); }
static gq_ref jet_cos(rule *r) { return turn(r, GQ_OP_SIN, -1); }

/* y' = (1 + sign y^2) x' */
static gq_ref tangent(rule *r, double sign) {
  gq_ref last = scale(r, square_at(r, own(r, VALUE), r->k - 1), sign);
  keep(r, AUX, r->k - 1, r->k == 1 ? add(r, number(r, 1), last) : last);
  return chain(r, operand(r, 0), own(r, AUX), r->k);
}
static gq_ref jet_tan(rule *r) { return tangent(r, 1); }
static gq_ref jet_tanh(rule *r) { return tangent(r, -1); }

static gq_ref jet_atan(rule *r) { /* (1 + x^2) y' = x' */
  gq_ref last = square_at(r, operand(r, 0), r->k - 1);
  keep(r, AUX, r->k - 1, r->k == 1 ? add(r, last, number(r, 1)) : last);
  return quotient(r, rest(r, own(r, VALUE), own(r, AUX)), aux(r, AUX, 0));
}

/* Coefficient k - 1 of s - s^2, s being the series `of`. */
static gq_ref logistic(rule *r, list of) { return sub(r, get(of, r->k - 1), square_at(r, of, r->k - 1)); }

static gq_ref jet_sigmoid(rule *r) { /* y' = (y - y^2) x' */
  keep(r, AUX, r->k - 1, logistic(r, own(r, VALUE)));
  return chain(r, operand(r, 0), own(r, AUX), r->k);
}

static gq_ref jet_softplus(rule *r) { /* y' = s x', s' = (s - s^2) x' */
  if (r->k == 1) keep(r, AUX, 0, op1(r, GQ_OP_SIGMOID, x_(r, 0, 0)));
  gq_ref v = chain(r, operand(r, 0), own(r, AUX), r->k);
  keep(r, AUX2, r->k - 1, logistic(r, own(r, AUX)));
  keep(r, AUX, r->k, chain(r, operand(r, 0), own(r, AUX2), r->k));
  return v;
}

static gq_ref jet_relu(rule *r) {
  return choose(r, op2(r, GQ_OP_GT, x_(r, 0, 0), number(r, 0)), x_(r, 0, r->k), GQ_NONE);
}

static gq_ref jet_erf(rule *r) { /* y' = 2 / sqrt(pi) e x', e = e^-u with u = x^2 beside it */
  if (r->k == 1) {
    keep(r, AUX2, 0, op1(r, GQ_OP_SQUARE, x_(r, 0, 0)));
    keep(r, AUX, 0, op1(r, GQ_OP_EXP, neg(r, aux(r, AUX2, 0))));
  }
  gq_ref v = scale(r, chain(r, operand(r, 0), own(r, AUX), r->k), 2 / sqrt(M_PI));
  keep(r, AUX2, r->k, square_at(r, operand(r, 0), r->k));
  keep(r, AUX, r->k, neg(r, chain(r, own(r, AUX2), own(r, AUX), r->k)));
  return v;
}

static gq_ref jet_square(rule *r) { return square_at(r, operand(r, 0), r->k); }

static gq_ref jet_cast(rule *r) { return gq_cast(r->g, x_(r, 0, r->k), r->n->dtype); }

/* ---- two operands ---- */

static gq_ref jet_add(rule *r) { return add(r, x_(r, 0, r->k), x_(r, 1, r->k)); }
static gq_ref jet_sub(rule *r) { return sub(r, x_(r, 0, r->k), x_(r, 1, r->k)); }

static gq_ref jet_mul(rule *r) {
  if (r->n->args[0] == r->n->args[1]) return square_at(r, operand(r, 0), r->k);
  return convolve(r, operand(r, 0), operand(r, 1), r->k, 0, r->k, mul);
}

static gq_ref jet_div(rule *r) { /* b y = a */
  gq_ref sum = convolve(r, operand(r, 1), own(r, VALUE), r->k, 1, r->k, mul);
  return quotient(r, sub(r, x_(r, 0, r->k), sum), x_(r, 1, 0));
}

static gq_ref jet_remainder(rule *r) { /* a - floor(a / b) b */
  gq_ref whole = op2(r, GQ_OP_FLOOR_DIVIDE, x_(r, 0, 0), x_(r, 1, 0));
  return sub(r, x_(r, 0, r->k), mul(r, whole, x_(r, 1, r->k)));
}

/* x^p, p constant in time: sum_i binom(p, i) x_0^(p-i) [(x - x_0)^i]_k, which holds at x = 0 too. Where a
** power of zero has a factor zero it is left out. The powers of x - x_0 are made again at every order, and shared. */
static gq_ref power(rule *r) {
  gq_ref x0 = x_(r, 0, 0), p = x_(r, 1, 0), binom = number(r, 1), zero = number(r, 0), sum = GQ_NONE;
  gq_ref few[2 * GQ_MAX_JET], *of = few, *next = few + GQ_MAX_JET; /* [(x - x_0)^i]_m for m <= k */
  for (int m = 0; m <= r->k; m++) of[m] = m ? x_(r, 0, m) : GQ_NONE;
  for (int i = 1; i <= r->k; i++) {
    binom = scale(r, mul(r, binom, sub(r, p, number(r, i - 1))), 1.0 / i);
    gq_ref none =
      gq_where(r->g, op2(r, GQ_OP_EQ, binom, zero), op2(r, GQ_OP_EQ, x0, zero), gq_const(r->g, GQ_BOOL, 0));
    gq_ref e = gq_where(r->g, none, number(r, 1), sub(r, p, number(r, i)));
    sum = add(r, sum, mul(r, of[r->k], mul(r, binom, op2(r, GQ_OP_POW, x0, e))));
    for (int m = 0; m <= r->k; m++) {
      next[m] = GQ_NONE;
      for (int j = 1; j < m; j++) next[m] = add(r, next[m], mul(r, of[j], x_(r, 0, m - j)));
    }
    gq_ref *t = of;
    of = next, next = t;
  }
  return sum;
}

/* x^y = e^u, u = y log x: l = log x and u beside it. */
static gq_ref power_of_time(rule *r) {
  if (r->k == 1) keep(r, AUX, 0, op1(r, GQ_OP_LOG, x_(r, 0, 0)));
  keep(r, AUX, r->k, quotient(r, rest(r, own(r, AUX), operand(r, 0)), x_(r, 0, 0)));
  keep(r, AUX2, r->k, convolve(r, operand(r, 1), own(r, AUX), r->k, 0, r->k, mul));
  return chain(r, own(r, AUX2), own(r, VALUE), r->k);
}

static gq_ref jet_pow(rule *r) { return r->j->on[r->n->args[1]] ? power_of_time(r) : power(r); }

/* The winner's coefficient; a tie takes the mean, as its derivative does. */
static gq_ref extremum(rule *r, gq_op first) {
  gq_ref a = x_(r, 0, r->k), b = x_(r, 1, r->k);
  gq_ref won = choose(r, op2(r, first, x_(r, 0, 0), x_(r, 1, 0)), a, b);
  return choose(r, op2(r, GQ_OP_EQ, x_(r, 0, 0), x_(r, 1, 0)), scale(r, add(r, a, b), 0.5), won);
}
static gq_ref jet_maximum(rule *r) { return extremum(r, GQ_OP_GT); }
static gq_ref jet_minimum(rule *r) { return extremum(r, GQ_OP_LT); }

static gq_ref jet_where(rule *r) { return choose(r, r->n->args[0], x_(r, 1, r->k), x_(r, 2, r->k)); }

static gq_ref multiply(rule *r, gq_ref a, gq_ref b) { return gq_matmul(r->g, a, b, r->n->attr.flags); }
static gq_ref jet_matmul(rule *r) {
  return convolve(r, operand(r, 0), operand(r, 1), r->k, 0, r->k, multiply);
}
static gq_ref jet_affine(rule *r) { return add(r, jet_matmul(r), x_(r, 2, r->k)); }

/* ---- the rest: linear in what depends on time ---- */

static gq_ref jet_amax(rule *r) { /* ties share evenly */
  gq_ref hit = gq_cast(r->g, op2(r, GQ_OP_EQ, x_(r, 0, 0), r->y), r->n->dtype);
  gq_ref count = gq_sum_axes(r->g, hit, r->n->attr.flags);
  return quotient(r, gq_sum_axes(r->g, mul(r, hit, x_(r, 0, r->k)), r->n->attr.flags), count);
}

static gq_ref jet_indexed(rule *r) { /* the indices are whole numbers and stand still */
  return gq_graph_again(r->g, r->n, (gq_ref[]){ x_(r, 0, r->k), r->n->args[1] });
}

static gq_ref jet_cat(rule *r) {
  gq_ref few[16], *part = few;
  int n = r->n->nargs;
  bool any = false;
  if (n > 16 && !(part = gq_alloc((size_t)n * sizeof *part)))
    return gq_graph_fail(r->g, gq_nomem((size_t)n * sizeof *part));
  for (int i = 0; i < n; i++) {
    gq_ref x = x_(r, i, r->k);
    any |= x != GQ_NONE;
    part[i] = x != GQ_NONE ? x : gq_zeros(r->g, r->n->dtype, gq_at(r->g, r->n->args[i])->shape);
  }
  gq_ref v = any ? gq_graph_again(r->g, r->n, part) : GQ_NONE;
  if (part != few) gq_free(part);
  return v;
}

static gq_ref jet_refuse(rule *r) {
  return gq_graph_fail(
    r->g, gq_fail(GQ_EUNSUPPORTED,
                  "jet: the operation %s has no rule for Taylor series; write the dynamics without it, or "
                  "differentiate with gq.grad inside them",
                  gq_ops[r->n->op].name));
}

static gq_ref (*const rules[GQ_NOP])(rule *r) = {
#define GQ_UNARY(N, n, meta, takes, vjp, jet, ...) [GQ_OP_##N] = jet_##jet,
#define GQ_BINARY(N, n, meta, takes, vjp, jet, ...) [GQ_OP_##N] = jet_##jet,
#define GQ_COMPARE(N, ...) [GQ_OP_##N] = jet_zero,
#define GQ_OTHER(N, n, class, nargs, attr, infer, fold, rows, batch, columns, jet, ...) \
  [GQ_OP_##N] = jet_##jet,
#include "ops.def"
};

/* ---- the sweeps ---- */

/* Coefficient k of a node, of the node's shape: what was broadcast is spread out. */
static void make(jet *j, gq_ref node, int k) {
  rule r = { .j = j, .g = j->g, .n = gq_at(j->g, node), .y = node, .k = k };
  series(j, node, VALUE)[k] = gq_expand(j->g, rules[r.n->op](&r), r.n->shape);
}

/* f inlined into g: its inputs are g's, its output the result. */
static gq_ref copy_field(gq_graph *g, const gq_graph *f) {
  size_t bytes = (size_t)f->ninput * sizeof(gq_ref);
  gq_ref out = GQ_NONE, *bind = gq_alloc(bytes);
  if (!bind) return gq_graph_fail(g, gq_nomem(bytes));
  gq_inputs_like(g, f, 0, bind);
  gq_inline(g, f, bind, &out);
  gq_free(bind);
  return out;
}

/* Which nodes depend on t and z, the first two inputs. */
static void mark(jet *j, gq_ref t, gq_ref z) {
  for (gq_ref r = 0; r < j->size; r++) {
    const gq_node *n = gq_at(j->g, r);
    j->on[r] = r == t || r == z;
    for (int i = 0; i < n->nargs; i++) j->on[r] |= j->on[n->args[i]];
    j->on[r] &= gq_is_float(n->dtype);
  }
}

/* coef[k], k = 1 .. order: of z. */
static void sweep(jet *j, gq_ref z, gq_ref t, gq_ref dz, int order, gq_ref *coef) {
  if (order > 1) series(j, t, VALUE)[1] = gq_const(j->g, gq_at(j->g, t)->dtype, 1);
  coef[1] = dz;
  for (int k = 1; k < order; k++) {
    series(j, z, VALUE)[k] = coef[k];
    for (gq_ref r = 0; r < j->size && j->g->status == GQ_OK; r++)
      if (j->on[r] && r != t && r != z) make(j, r, k);
    coef[k + 1] = gq_scale(j->g, at(j, dz, k), 1.0 / (k + 1));
  }
}

static int derive(gq_graph *g, const gq_graph *f, int order) {
  gq_ref dz = copy_field(g, f), coef[GQ_MAX_JET + 1], out[GQ_MAX_JET];
  GQ_TRY(g->status);
  gq_ref t = g->input[0], z = g->input[1];
  const gq_node *state = gq_at(g, z), *slope = gq_at(g, dz);
  if (slope->dtype != state->dtype || !gq_shape_equal(slope->shape, state->shape))
    return gq_fail(GQ_ESHAPE, "jet: dz/dt must have the state's dtype and shape");
  jet j = { .g = g, .size = g->size, .most = order };
  size_t n = (size_t)j.size * SERIES * (size_t)order, bytes = n * sizeof *j.c + (size_t)j.size;
  if (!(j.c = gq_alloc(bytes))) return gq_nomem(bytes);
  j.on = (bool *)(j.c + n);
  for (size_t i = 0; i < n; i++) j.c[i] = GQ_NONE;
  mark(&j, t, z);
  sweep(&j, z, t, dz, order, coef);
  double factorial = 1;
  for (int k = 1; k <= order; k++) {
    factorial *= k;
    gq_ref d = gq_scale(g, coef[k], factorial);
    out[k - 1] = d == GQ_NONE ? gq_zeros(g, state->dtype, state->shape) : d;
  }
  if (g->status == GQ_OK) gq_graph_set_outputs(g, order, out);
  gq_free(j.c);
  return g->status;
}

int gq_jet(const gq_graph *f, int order, gq_graph **out) {
  *out = NULL;
  GQ_TRY(f->status);
  if (order < 1 || order > GQ_MAX_JET)
    return gq_fail(GQ_EARG, "jet: order %d; it must be 1 to %d", order, GQ_MAX_JET);
  gq_graph *g = gq_graph_new();
  if (!g) return gq_nomem(sizeof *g);
  int status = derive(g, f, order);
  if (status == GQ_OK) *out = g;
  else gq_graph_free(g);
  return status;
}
