/*
** optimiser.c -- Adam, AdamW, SGD and RMSProp over flat blocks.
** Parameters of one dtype form a group: one block of gradients, one of each state, in the order
** of the parameters. The parameters themselves are moved into one block where they can be
** (gq_tensor_flatten); a step walks over runs, neighbours in memory that take the same step,
** and updates each run in one loop. Nothing relies on where parameters lie: a run of one works.
*/
#include "../exec/backend.h"
#include "opt.h"

#include <math.h>
#include <string.h>

typedef struct group {
  gq_dtype dtype;
  size_t n;                        /* numbers */
  gq_tensor *grad;                 /* [n] */
  gq_tensor *state[GQ_OPT_STATES]; /* [n] or NULL */
} group;

typedef struct slot { /* one parameter */
  gq_tensor *p;
  gq_tensor *grad;                 /* its place in the flat gradient, into which a step reads p->grad */
  gq_tensor *state[GQ_OPT_STATES]; /* views, made when asked for */
  gq_tensor *packed;               /* stands in for a parameter that is not contiguous */
  int group;
  size_t at, n; /* place in its group */
  int64_t steps;
} slot;

struct gq_optimiser {
  gq_opt_kind kind;
  gq_opt_config c;
  int n, ngroup;
  int64_t steps;
  slot *slot;
  group group[2];
};

const char *const gq_opt_names[] = { "adam", "adamw", "sgd", "rmsprop", NULL };

gq_opt_config gq_opt_defaults(gq_opt_kind kind) {
  gq_opt_config c = { .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .alpha = 0.99 };
  if (kind == GQ_ADAMW) c.weight_decay = 1e-2;
  if (kind == GQ_RMSPROP) c.lr = 1e-2;
  return c;
}

/* ---- checks ---- */

static int in_range(const char *name, double x, double below) {
  if (x >= 0 && x < below) return GQ_OK;
  if (below == INFINITY) return gq_fail(GQ_EARG, "%s is %g: expected a number of at least 0", name, x);
  return gq_fail(GQ_EARG, "%s is %g: expected a number of at least 0 and less than %g", name, x, below);
}

static int check_config(gq_opt_kind kind, const gq_opt_config *c) {
  GQ_TRY(in_range("lr", c->lr, INFINITY));
  GQ_TRY(in_range("weight_decay", c->weight_decay, INFINITY));
  if (kind != GQ_SGD) GQ_TRY(in_range("eps", c->eps, INFINITY));
  if (kind == GQ_ADAM || kind == GQ_ADAMW) {
    GQ_TRY(in_range("betas[1]", c->beta1, 1));
    return in_range("betas[2]", c->beta2, 1);
  }
  GQ_TRY(in_range("momentum", c->momentum, INFINITY));
  if (kind == GQ_RMSPROP) return in_range("alpha", c->alpha, 1);
  if (!isfinite(c->dampening))
    return gq_fail(GQ_EARG, "dampening is %g: expected a finite number", c->dampening);
  if (c->nesterov && (c->momentum == 0 || c->dampening != 0))
    return gq_fail(GQ_EARG, "nesterov needs momentum above 0 and dampening 0, got %g and %g", c->momentum,
                   c->dampening);
  return GQ_OK;
}

int gq_optimiser_check(const gq_optimiser *o) { return check_config(o->kind, &o->c); }

static int check_param(const gq_tensor *p, int i) {
  if (!p || !p->storage)
    return gq_fail(GQ_EARG, "parameter %d has no numbers (a traced or freed tensor)", i + 1);
  if (!gq_is_float(p->dtype))
    return gq_fail(GQ_EDTYPE, "parameter %d is %s: expected float32 or float64", i + 1,
                   gq_dtype_name(p->dtype));
  if (p->tape)
    return gq_fail(GQ_EARG, "parameter %d is a result, not a leaf: pass the tensor it was made from", i + 1);
  if (!p->requires_grad)
    return gq_fail(GQ_EARG, "parameter %d requires no gradient: set requires_grad = true or leave it out",
                   i + 1);
  return GQ_OK;
}

static int check_params(int n, gq_tensor *const *p) {
  if (n < 1) return gq_fail(GQ_EARG, "no parameters: expected at least one tensor that requires a gradient");
  for (int i = 0; i < n; i++) {
    GQ_TRY(check_param(p[i], i));
    for (int j = 0; j < i; j++)
      if (p[j] == p[i])
        return gq_fail(GQ_EARG, "parameter %d is parameter %d again: give each once", i + 1, j + 1);
    if (gq_tensor_device(p[i]) != gq_tensor_device(p[0]))
      return gq_fail(GQ_EARG, "parameter %d is on %s and parameter 1 on %s: expected one device", i + 1,
                     gq_tensor_device(p[i])->name, gq_tensor_device(p[0])->name);
  }
  return GQ_OK;
}

/* ---- making ---- */

static const gq_device *device(const gq_optimiser *o) { return gq_tensor_device(o->slot[0].p); }

static gq_shape vector(size_t n) {
  int64_t d = (int64_t)n;
  return gq_shape_of(1, &d);
}

/* The view of slot s in a flat block of its group, with the parameter's shape. */
static int block_view(const slot *s, const gq_tensor *block, gq_tensor **out) {
  int64_t stride[GQ_MAXDIM];
  gq_shape_strides(s->p->shape, stride);
  return gq_tensor_view(block, s->p->shape, stride, (int64_t)s->at, out);
}

static int group_of(gq_optimiser *o, gq_dtype d) {
  for (int i = 0; i < o->ngroup; i++)
    if (o->group[i].dtype == d) return i;
  o->group[o->ngroup].dtype = d;
  return o->ngroup++;
}

static void place(gq_optimiser *o, gq_tensor *const *params) {
  for (int i = 0; i < o->n; i++) {
    slot *s = &o->slot[i];
    s->p = gq_tensor_ref(params[i]);
    s->group = group_of(o, s->p->dtype);
    s->n = (size_t)gq_numel(s->p->shape);
    s->at = o->group[s->group].n;
    o->group[s->group].n += s->n;
  }
}

/* Move the parameters of one group into one block; those that cannot move stay. */
static int flatten(gq_optimiser *o, int gi) {
  int n = 0;
  gq_tensor **list = gq_calloc((size_t)o->n, sizeof *list), *flat = NULL;
  bool *moved = gq_calloc((size_t)o->n, sizeof *moved);
  int status = list && moved ? GQ_OK : gq_nomem((size_t)o->n * sizeof *list);
  for (int i = 0; status == GQ_OK && i < o->n; i++)
    if (o->slot[i].group == gi) list[n++] = o->slot[i].p;
  if (status == GQ_OK) status = gq_tensor_flatten(n, list, moved, &flat);
  gq_tensor_unref(flat);
  gq_free(moved);
  gq_free(list);
  return status;
}

static int make_grad(gq_optimiser *o, slot *s) {
  GQ_TRY(block_view(s, o->group[s->group].grad, &s->grad));
  if (!gq_tensor_contiguous(s->p))
    GQ_TRY(gq_tensor_empty_on(gq_tensor_device(s->p), s->p->dtype, s->p->shape, &s->packed));
  return GQ_OK;
}

static int build(gq_optimiser *o, gq_tensor *const *params) {
  place(o, params);
  for (int i = 0; i < o->ngroup; i++) {
    GQ_TRY(flatten(o, i));
    GQ_TRY(gq_tensor_new_on(device(o), o->group[i].dtype, vector(o->group[i].n), &o->group[i].grad));
  }
  for (int i = 0; i < o->n; i++) GQ_TRY(make_grad(o, &o->slot[i]));
  return GQ_OK;
}

int gq_optimiser_new(gq_opt_kind kind, int n, gq_tensor *const *params, gq_opt_config c, gq_optimiser **out) {
  GQ_TRY(check_config(kind, &c));
  GQ_TRY(check_params(n, params));
  gq_optimiser *o = gq_calloc(1, sizeof *o);
  if (!o) return gq_nomem(sizeof *o);
  o->kind = kind;
  o->c = c;
  o->slot = gq_calloc((size_t)n, sizeof *o->slot);
  if (o->slot) o->n = n;
  int status = o->slot ? build(o, params) : gq_nomem((size_t)n * sizeof *o->slot);
  if (status != GQ_OK) {
    gq_optimiser_free(o);
    return status;
  }
  *out = o;
  return GQ_OK;
}

void gq_optimiser_free(gq_optimiser *o) {
  if (!o) return;
  for (int i = 0; i < o->n; i++) {
    slot *s = &o->slot[i];
    for (int k = 0; k < GQ_OPT_STATES; k++) gq_tensor_unref(s->state[k]);
    gq_tensor_unref(s->packed);
    gq_tensor_unref(s->grad);
    gq_tensor_unref(s->p);
  }
  for (int i = 0; i < o->ngroup; i++) {
    for (int k = 0; k < GQ_OPT_STATES; k++) gq_tensor_unref(o->group[i].state[k]);
    gq_tensor_unref(o->group[i].grad);
  }
  gq_free(o->slot);
  gq_free(o);
}

/* ---- gradients ---- */

/* One that requires no gradient any more stays, whatever was left in its place. */
static bool moves(const slot *s) { return s->p->grad && s->p->requires_grad; }

static int gather(slot *s, int i) {
  gq_tensor *g = s->p->grad;
  if (!moves(s)) return GQ_OK;
  if (!g->storage || g->dtype != s->p->dtype || !gq_shape_equal(g->shape, s->p->shape))
    return gq_fail(GQ_ESHAPE, "the gradient of parameter %d has not its shape and dtype", i + 1);
  return gq_tensor_copy(s->grad, g);
}

static bool nonfinite(const gq_tensor *g, size_t n) {
  return gq_backend_of(g)->vec->nonfinite(g->dtype, n, gq_tensor_data(g)) != 0;
}

/* Whose gradient it is is asked where there is one: in the place of others lies what they had once. */
static int ready(gq_optimiser *o) {
  bool any = false;
  for (int i = 0; i < o->n; i++) GQ_TRY(gather(&o->slot[i], i));
  for (int i = 0; i < o->ngroup; i++) any = any || nonfinite(o->group[i].grad, o->group[i].n);
  for (int i = 0; i < o->n && any; i++) {
    slot *s = &o->slot[i];
    if (moves(s) && nonfinite(s->grad, s->n))
      return gq_fail(GQ_ENONFINITE, "the gradient of parameter %d is not finite; nothing was updated", i + 1);
  }
  return GQ_OK;
}

void gq_optimiser_zero_grad(gq_optimiser *o) {
  for (int i = 0; i < o->n; i++) {
    gq_tensor_unref(o->slot[i].p->grad);
    o->slot[i].p->grad = NULL;
  }
}

bool gq_optimiser_reached(const gq_optimiser *o) {
  for (int i = 0; i < o->n; i++)
    if (moves(&o->slot[i])) return true;
  return false;
}

/* ---- state ---- */

static bool keeps(const gq_optimiser *o, int k) {
  bool adam = o->kind == GQ_ADAM || o->kind == GQ_ADAMW;
  switch (k) {
    case 0: return adam || o->c.momentum > 0;
    case 1: return adam || o->kind == GQ_RMSPROP;
    default: return o->kind == GQ_RMSPROP && o->c.centered;
  }
}

/* The blocks that the configuration asks for; momentum may be switched on later. */
static int ensure_state(gq_optimiser *o) {
  for (int i = 0; i < o->ngroup; i++)
    for (int k = 0; k < GQ_OPT_STATES; k++)
      if (keeps(o, k) && !o->group[i].state[k])
        GQ_TRY(gq_tensor_new_on(device(o), o->group[i].dtype, vector(o->group[i].n), &o->group[i].state[k]));
  return GQ_OK;
}

int gq_optimiser_state(gq_optimiser *o, int i, int k, gq_tensor **t) {
  *t = NULL;
  if (i < 0 || i >= o->n || k < 0 || k >= GQ_OPT_STATES)
    return gq_fail(GQ_EINDEX, "state %d of parameter %d: there are %d parameters with states 1 to 3", k + 1,
                   i + 1, o->n);
  if (!keeps(o, k)) return GQ_OK;
  GQ_TRY(ensure_state(o));
  slot *s = &o->slot[i];
  if (!s->state[k]) GQ_TRY(block_view(s, o->group[s->group].state[k], &s->state[k]));
  *t = s->state[k];
  return GQ_OK;
}

/* ---- one step ---- */

static gq_opt_coef coefficients(const gq_optimiser *o, int64_t t /* this step, from 1 */) {
  const gq_opt_config *c = &o->c;
  bool first = t == 1;
  gq_opt_coef k = { .lr = c->lr, .weight_decay = c->weight_decay, .eps = c->eps, .alpha = c->alpha };
  k.beta1 = c->beta1;
  k.beta2 = c->beta2;
  k.step_size = c->lr / (1 - pow(c->beta1, (double)t));
  k.root2 = sqrt(1 - pow(c->beta2, (double)t));
  k.decay = 1;
  if (o->kind == GQ_ADAMW) {
    k.decay = 1 - c->lr * c->weight_decay;
    k.weight_decay = 0;
  }
  k.keep = c->momentum;
  if (o->kind == GQ_SGD && first) k.keep = 0;
  k.gain = first ? 1 : 1 - c->dampening;
  k.mix = c->nesterov ? 1 : 0;
  k.ahead = c->nesterov ? c->momentum : 1;
  return k;
}

static gq_opt_rule which_rule(const gq_optimiser *o) {
  switch (o->kind) {
    case GQ_SGD: return o->c.momentum > 0 ? GQ_RULE_MOMENTUM : GQ_RULE_SGD;
    case GQ_RMSPROP: return o->c.momentum > 0 || o->c.centered ? GQ_RULE_RMSPROP_FULL : GQ_RULE_RMSPROP;
    default: return GQ_RULE_ADAM;
  }
}

static gq_tensor *home(const slot *s) { return s->packed ? s->packed : s->p; }

/* The end of the run that starts at parameter i: neighbours in memory with the same count of steps. */
static int run_end(const gq_optimiser *o, int i) {
  int j = i + 1;
  for (; j < o->n; j++) {
    const slot *a = &o->slot[j - 1], *b = &o->slot[j];
    if (!moves(b) || b->packed || a->packed || b->group != a->group || b->steps != a->steps) break;
    if (b->at != a->at + a->n) break;
    if ((char *)gq_tensor_data(b->p) != (char *)gq_tensor_data(a->p) + a->n * gq_dtype_size(a->p->dtype))
      break;
  }
  return j;
}

static void update_run(gq_optimiser *o, int i, int j) {
  slot *s = &o->slot[i];
  const group *g = &o->group[s->group];
  size_t at = s->at * gq_dtype_size(g->dtype);
  gq_opt_coef c = coefficients(o, s->steps + 1);
  void *state[GQ_OPT_STATES] = { NULL };
  size_t n = 0;
  for (int k = i; k < j; k++) n += o->slot[k].n;
  for (int k = 0; k < GQ_OPT_STATES; k++)
    if (keeps(o, k)) state[k] = (char *)gq_tensor_data(g->state[k]) + at;
  if (n > 0)
    gq_backend_of(s->p)->vec->update(which_rule(o), g->dtype, n, gq_tensor_data(home(s)),
                                     (const char *)gq_tensor_data(g->grad) + at, state, &c);
  for (int k = i; k < j; k++) {
    o->slot[k].steps++;
    o->slot[k].p->storage->version++;
  }
}

/* Pack what is not contiguous, before anything is updated. */
static int pack(gq_optimiser *o) {
  for (int i = 0; i < o->n; i++)
    if (o->slot[i].packed) GQ_TRY(gq_tensor_copy(o->slot[i].packed, o->slot[i].p));
  return GQ_OK;
}

int gq_optimiser_step(gq_optimiser *o) {
  GQ_TRY(gq_optimiser_check(o));
  GQ_TRY(ready(o));
  GQ_TRY(ensure_state(o));
  GQ_TRY(pack(o));
  for (int i = 0, j; i < o->n; i = j) {
    j = i + 1;
    if (!moves(&o->slot[i])) continue;
    j = run_end(o, i);
    update_run(o, i, j);
    if (o->slot[i].packed) GQ_TRY(gq_tensor_copy(o->slot[i].p, o->slot[i].packed));
  }
  o->steps++;
  return GQ_OK;
}

/* ---- asking ---- */

gq_opt_config *gq_optimiser_config(gq_optimiser *o) { return &o->c; }

int64_t gq_optimiser_steps(const gq_optimiser *o) { return o->steps; }

void gq_optimiser_set_steps(gq_optimiser *o, int64_t n) {
  o->steps = n;
  for (int i = 0; i < o->n; i++) o->slot[i].steps = n;
}

int64_t gq_optimiser_param_steps(const gq_optimiser *o, int i) { return o->slot[i].steps; }

void gq_optimiser_set_param_steps(gq_optimiser *o, int i, int64_t n) { o->slot[i].steps = n; }

int gq_optimiser_count(const gq_optimiser *o) { return o->n; }
