/*
** opt.h -- optimisers over flat parameter blocks: one fused loop a block and step.
*/
#ifndef GQ_OPT_H
#define GQ_OPT_H

#include "../tensor/tensor.h"

typedef enum gq_opt_kind { GQ_ADAM, GQ_ADAMW, GQ_SGD, GQ_RMSPROP } gq_opt_kind;

typedef struct gq_opt_config {
  double lr, beta1, beta2, eps, weight_decay;   /* Adam (Kingma & Ba 2015): 1e-3 0.9 0.999 1e-8 0 */
  double momentum, dampening; bool nesterov;    /* SGD */
  double alpha; bool centered;                  /* RMSProp: 0.99 */
} gq_opt_config;

typedef struct gq_optimiser gq_optimiser;
/* Parameters are moved into one flat block where possible, and get .grad tensors that are views
** of one flat gradient block. */
int gq_optimiser_new(gq_opt_kind kind, int n, gq_tensor *const *params, gq_opt_config c, gq_optimiser **o);
void gq_optimiser_free(gq_optimiser *o_);
gq_opt_config *gq_optimiser_config(gq_optimiser *o);       /* lr etc. may be changed between steps */
/* One update. A parameter whose .grad is NULL is left alone. Refuses (GQ_ENONFINITE, naming the
** parameter by number, nothing changed) when a gradient is not finite. */
int gq_optimiser_step(gq_optimiser *o);
int gq_optimiser_zero_grad(gq_optimiser *o);
int64_t gq_optimiser_steps(const gq_optimiser *o);
void gq_optimiser_set_steps(gq_optimiser *o, int64_t n);
/* State tensor k (0: first moment or momentum, 1: second, 2: mean for centered) of parameter i: lent; NULL: none. */
gq_tensor *gq_optimiser_state(gq_optimiser *o, int i, int k);
/* Scale all gradients so that their joint 2-norm is at most max; *norm is what it was. */
int gq_clip_grad_norm(int n, gq_tensor *const *params, double max, double *norm);

#endif
