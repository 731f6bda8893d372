/*
** rule.h -- what the files of opt/ share: the coefficients of one step and the loops.
*/
#ifndef GQ_RULE_H
#define GQ_RULE_H

#include "opt.h"

/* Coefficients of one step, in double; a loop reads those it needs. */
typedef struct gq_opt_coef {
  double lr, weight_decay, eps;
  double beta1, beta2, step_size, root2, decay;   /* lr / (1 - beta1^t), sqrt(1 - beta2^t), 1 - lr wd */
  double keep, gain, mix, ahead;                  /* momentum: m = keep m + gain g; step mix g + ahead m */
  double alpha;
} gq_opt_coef;

typedef enum gq_opt_loops { GQ_LOOP_ADAM, GQ_LOOP_SGD, GQ_LOOP_MOMENTUM, GQ_LOOP_RMSPROP, GQ_LOOP_RMSPROP_FULL, GQ_NLOOP } gq_opt_loops;

/* p, g and the three state blocks s (NULL where unused): n numbers of one dtype each. */
typedef void gq_opt_loop(size_t n, void *p, const void *g, void *const *s, const gq_opt_coef *k);

gq_opt_loop *gq_opt_loop_get(gq_opt_loops which, gq_dtype d);   /* d: GQ_F32 or GQ_F64 */
bool gq_opt_finite(gq_dtype d, size_t n, const void *g);

#endif
