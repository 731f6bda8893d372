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

/* PyTorch's defaults of a kind: lr 1e-3 (RMSProp 1e-2), weight_decay 0 (AdamW 1e-2). */
gq_opt_config gq_opt_defaults(gq_opt_kind kind);
extern const char *const gq_opt_names[];                   /* "adam" ..., NULL at the end */

typedef struct gq_optimiser gq_optimiser;
/* Parameters are moved into one flat block where possible; their gradients stay theirs. */
int gq_optimiser_new(gq_opt_kind kind, int n, gq_tensor *const *params, gq_opt_config c, gq_optimiser **o);
void gq_optimiser_free(gq_optimiser *o_);
gq_opt_config *gq_optimiser_config(gq_optimiser *o);       /* lr etc. may be changed between steps */
/* One update. A parameter whose .grad is NULL, or that requires no gradient any more, is left alone. Refuses
** (GQ_ENONFINITE, naming the parameter by number, nothing changed) when a gradient is not finite. */
int gq_optimiser_step(gq_optimiser *o);
/* Takes away every .grad, as PyTorch 2 does: step leaves those alone to which none comes until then, without weight
** decay and momentum, too. */
void gq_optimiser_zero_grad(gq_optimiser *o);
/* Has any parameter that trains a gradient? */
bool gq_optimiser_reached(const gq_optimiser *o);
/* Steps taken. Each parameter has its own count, as in PyTorch, which differs where a NULL .grad
** left it out: it sets the bias correction. set_steps sets all of them. */
int64_t gq_optimiser_steps(const gq_optimiser *o);
void gq_optimiser_set_steps(gq_optimiser *o, int64_t n);
int64_t gq_optimiser_param_steps(const gq_optimiser *o, int i);
void gq_optimiser_set_param_steps(gq_optimiser *o, int i, int64_t n);
int gq_optimiser_count(const gq_optimiser *o);             /* parameters */
/* GQ_EARG with a message when the configuration makes no sense; step checks it too. */
int gq_optimiser_check(const gq_optimiser *o);
/* State tensor k (0: first moment or momentum, 1: second, 2: mean for centered) of parameter i: a view
** of a flat block, lent; *t NULL: this kind keeps none. */
int gq_optimiser_state(gq_optimiser *o, int i, int k, gq_tensor **t);
/* Scale all gradients so that their joint 2-norm, accumulated in double, is at most max; *norm is what it was. Those of
** parameters that require none any more are left out. GQ_ENONFINITE, naming the parameter and changing nothing, when it
** is not finite. */
int gq_clip_grad_norm(int n, gq_tensor *const *params, double max, double *norm);

#endif
