/*
** vec.h -- calls on vectors of n numbers at an address of one backend: what solvers, engines, SDEs and optimisers do to
** states and gradients outside of any program. x, src and dst are addresses of the backend, doubles are the host's.
** Floating sums are taken in float64 and in order, so that the same numbers give the same bits.
*/
#ifndef GQ_VEC_H
#define GQ_VEC_H

#include "../tensor/tensor.h"

/* Coefficients of one step of an optimiser; a rule reads those it needs. */
typedef struct gq_opt_coef {
  double lr, weight_decay, eps;
  double beta1, beta2, step_size, root2, decay;   /* lr / (1 - beta1^t), sqrt(1 - beta2^t), 1 - lr wd */
  double keep, gain, mix, ahead;                  /* momentum: m = keep m + gain g; step mix g + ahead m */
  double alpha;
} gq_opt_coef;

typedef enum gq_opt_rule { GQ_RULE_ADAM, GQ_RULE_SGD, GQ_RULE_MOMENTUM, GQ_RULE_RMSPROP, GQ_RULE_RMSPROP_FULL,
                           GQ_NRULE } gq_opt_rule;

enum { GQ_OPT_STATES = 3, GQ_TERMS = 20, GQ_SIZES = 8, GQ_LANES = 8 };   /* LANES: systems that the CPU solves at once */

/* The size of a vector x, or of x - minus_: with y_ as `weighted` has it (out: the sum), without as `rms` does. */
typedef struct gq_size {
  const void *x, *minus_, *y_;
  double atol, rtol, out, top;
} gq_size;

/* The transpose of an n-stage Gauss method over `count` elements, one after the other, for rows of `dim` numbers. In an
** element of step h, J_j the Jacobian at node j, a that of its end, then of its start, g_k what comes in it:
**     v_l - h sum_j inner[j][l] J_j' v_j = h (end[l] a + sum_k weight[k][l] g_k),   a += sum_k g_k + sum_j J_j' v_j */
typedef struct gq_gauss_rows {  /* of a slice; distances in numbers, */
  int64_t rows, node, number, row;   /* in states at the nodes of all elements; */
  int64_t first, state_number, state_row;   /* of a and g, and where these rows begin there */
  const void *jacobian;        /* [dim] arrays of such states, one behind the other: d(number i of z')/dz */
  void *v;
} gq_gauss_rows;
typedef struct gq_gauss_element {
  double h;
  int64_t jumps;               /* so many g come in it */
} gq_gauss_element;
typedef struct gq_gauss {
  int n, dim, count, parts;
  const double *inner, *end;   /* [n][n], [n] */
  const gq_gauss_element *element;
  const double *weight;        /* [n] of the first g; the n numbers of the next are those before */
  const void *g;               /* that is the first, and the next is `apart` bytes before */
  size_t apart;
  void *a;
  const gq_gauss_rows *part;
  void *room;                  /* of the host's: gq_gauss_room(n, dim) bytes for each part */
} gq_gauss;
static inline size_t gq_gauss_room(int n, int dim) {
  size_t all = (size_t)n * dim;
  return (all * dim + all * (all + 1) + all + dim + 1) * GQ_LANES * sizeof(double);
}

typedef struct gq_vectors {
  /* dst += s src, by the fastest kernel: the product may be fused into the sum */
  void (*axpy)(gq_dtype d, size_t n, double s, const void *src, void *dst);
  /* dst = y_ + sum_i s[i] x_i for several parts, part p of n[p] numbers; terms as axpy adds them one after the other,
  ** those of s[i] = 0 left out. k <= GQ_TERMS; at[p (k + 2)] and behind it: dst, y_, x_0, ...; dst may be y_,
  ** or without that x_0 */
  void (*combine)(gq_dtype d, int parts, const size_t *n, int k, const double *s, void *const *at);
  /* the same as axpy, and dst = s src, with strides in numbers and each product rounded; dst may be src */
  void (*add)(gq_dtype d, size_t n, double s, const void *src, size_t from, void *dst, size_t to);
  void (*scale)(gq_dtype d, size_t n, double s, const void *src, size_t from, void *dst, size_t to);
  double (*dot)(gq_dtype d, size_t n, const void *x, const void *y);
  double (*largest)(gq_dtype d, size_t n, const void *x);       /* max |x_i|; NaN does not count */
  /* Root mean squares of rows, each `apart` numbers behind that before; squares of numbers scaled to 1 neither vanish
  ** nor overflow. */
  void (*rms)(gq_dtype d, size_t rows, size_t n, size_t apart, const void *x, double *out);
  /* v_i = |x_i - minus_i| / (atol + rtol |y_i|): the sum of squares and the largest, a NaN where there is one */
  void (*weighted)(gq_dtype d, size_t n, const void *x, const void *minus_, const void *y, double atol, double rtol,
                   double *sum, double *top);
  /* Several sizes at once, at most GQ_SIZES; NULL: gq_sizes takes them one by one */
  void (*sizes)(gq_dtype d, size_t n, int count, gq_size *of);
  /* sum[0] += |x - y|^2, sum[1] += |y|^2 */
  void (*apart)(gq_dtype d, size_t n, const void *x, const void *y, double sum[2]);
  /* *sum += |sum_r x[r * ld] - y_[r * ld]|^2 over k vectors */
  void (*joined)(gq_dtype d, size_t n, int k, size_t ld, void *const *x, void *const *y_, double *sum);
  bool (*nonzero)(gq_dtype d, size_t n, const void *x);         /* is some x_i other than 0? */
  size_t (*nonfinite)(gq_dtype d, size_t n, const void *x);     /* the first, counted from 1; 0: none */
  void (*fill)(gq_dtype d, size_t n, double value, void *dst, size_t to);
  void (*cast)(gq_dtype from, gq_dtype to, size_t n, const void *src, void *dst);
  /* to the host and from there, with a stride in numbers */
  void (*get)(gq_dtype d, size_t n, const void *x, size_t stride, double *out);
  void (*put)(gq_dtype d, size_t n, const double *in, void *x, size_t stride);
  /* dst[i to] = src[i from], numbers of `size` bytes */
  void (*spread)(size_t size, size_t n, const void *src, size_t from, void *dst, size_t to);
  /* dst[i][j] = src[i][j] where taken[j], which is the host's */
  void (*blend)(gq_dtype d, size_t rows, size_t cols, const bool *taken, const void *src, void *dst);
  /* dst[i][j] = src[j][i], i < rows, j < cols, numbers of `size` bytes */
  void (*turn)(size_t size, size_t rows, size_t cols, const void *src, void *dst);
  /* Mean and deviation of each row x[rows][n]; saved[2 rows]: float64 that the way back needs. There: the cotangent
  ** of x from theirs, of which one may be NULL. */
  void (*fit)(gq_dtype d, size_t rows, size_t n, const void *x, void *saved, void *mean, void *deviation);
  void (*fit_pull)(gq_dtype d, size_t rows, size_t n, const void *x, const void *saved, const void *mean_,
                   const void *deviation_, void *out);
  /* W(t) - W(s) of n components of a tree; NULL: the host makes them */
  void (*path)(gq_dtype d, size_t n, const gq_bridge *b, double s, double t, void *dst);
  /* v at the nodes of all elements, and a at the start of the last; *bad: the first whose a is not finite there, or
  ** else `count`. Waits. */
  int (*gauss)(gq_dtype d, const gq_gauss *g, int *bad);
  /* One step of an optimiser: p, g and the states s (NULL where unused), n numbers of one dtype each. */
  void (*update)(gq_opt_rule rule, gq_dtype d, size_t n, void *p, const void *g, void *const s[GQ_OPT_STATES],
                 const gq_opt_coef *k);
} gq_vectors;

/* X(call) for each that every backend has, under that name in its file: .call = call */
#define GQ_VECTORS(X)                                                                                                 \
  X(axpy) X(combine) X(add) X(scale) X(dot) X(largest) X(rms) X(weighted) X(apart) X(joined) X(nonzero) X(nonfinite)  \
  X(fill) X(cast) X(get) X(put) X(spread) X(blend) X(turn) X(fit) X(fit_pull)
#define GQ_VECTOR(call) .call = call,

static inline void gq_sizes(const gq_vectors *v, gq_dtype d, size_t n, int count, gq_size *of) {
  if (v->sizes) v->sizes(d, n, count, of);
  for (gq_size *x = of; !v->sizes && x < of + count; x++) {
    if (x->y_) v->weighted(d, n, x->x, x->minus_, x->y_, x->atol, x->rtol, &x->out, &x->top);
    else v->rms(d, 1, n, n, x->x, &x->out);
  }
}

#endif
