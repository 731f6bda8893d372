/*
** hoist.c -- what a solve computes once: the part of a graph that depends on captures alone goes
** to a prologue; the rest, the body, reads its results as inputs. Constants stay in the body, and
** so do expansions and reshapes, which cost nothing there.
*/
#include "internal.h"

#include <string.h>

enum { VARIES, FIXED, CONSTANT };

typedef struct cut {
  const gq_graph *g;
  int nvar, nb; /* boundaries so far */
  char *kind;   /* of each node of g */
  bool *stay;   /* stays in the body though it is fixed, or NULL */
  bool *need;
  gq_ref *pro_of;  /* node in pro */
  gq_ref *body_of; /* node in body */
  gq_ref *out;     /* pro's outputs: nodes of g, then of pro */
  gq_ref *args;
  gq_graph *pro, *body;
} cut;

static char kind_of(const cut *c, const gq_node *n) {
  if (n->op == GQ_OP_INPUT) return n->attr.axis < c->nvar ? VARIES : FIXED;
  char kind = CONSTANT;
  for (int i = 0; i < n->nargs; i++)
    if (c->kind[n->args[i]] < kind) kind = c->kind[n->args[i]];
  return kind;
}

/* Free to make again from a boundary that is often a capture itself: not worth storing. */
static bool is_view(const gq_node *n) { return n->op == GQ_OP_EXPAND || n->op == GQ_OP_RESHAPE; }

/* Node r of g in the body; a fixed one becomes a boundary, a view is made in the body. */
static gq_ref in_body(cut *c, gq_ref r) {
  const gq_node *n = gq_at(c->g, r);
  if (c->body_of[r] != GQ_NONE) return c->body_of[r];
  if (c->kind[r] == FIXED && !is_view(n)) {
    c->body_of[r] = gq_input(c->body, n->dtype, n->shape);
    c->out[c->nb++] = r;
    return c->body_of[r];
  }
  gq_ref a = n->nargs == 1 ? in_body(c, n->arg[0]) : GQ_NONE;
  return c->body_of[r] = gq_graph_again(c->body, n, &a);
}

/* Constants, and what is made of constants only, keep their place in the body as other nodes do. */
static void copy_body(cut *c) {
  for (gq_ref r = 0; r < c->g->size; r++) {
    const gq_node *n = gq_at(c->g, r);
    if (!c->need[r] || n->op == GQ_OP_INPUT || c->kind[r] == FIXED) continue;
    for (int i = 0; i < n->nargs; i++) c->args[i] = in_body(c, n->args[i]);
    c->body_of[r] = gq_graph_again(c->body, n, c->args);
  }
}

static void copy_prologue(cut *c, const bool *need) {
  for (gq_ref r = 0; r < c->g->size; r++) {
    const gq_node *n = gq_at(c->g, r);
    if (!need[r] || n->op == GQ_OP_INPUT) continue;
    for (int i = 0; i < n->nargs; i++) c->args[i] = c->pro_of[n->args[i]];
    c->pro_of[r] = gq_graph_again(c->pro, n, c->args);
  }
}

static void make_inputs(cut *c) {
  for (int i = 0; i < c->g->ninput; i++) {
    gq_ref r = c->g->input[i];
    const gq_node *n = gq_at(c->g, r);
    if (i < c->nvar) c->body_of[r] = gq_input(c->body, n->dtype, n->shape);
    else c->pro_of[r] = gq_input(c->pro, n->dtype, n->shape);
  }
}

static int set_outputs(cut *c, int **direct) {
  gq_graph_needs(c->g, c->nb, c->out, c->need);
  copy_prologue(c, c->need);
  int *d = gq_alloc((size_t)(c->nb + 1) * sizeof *d);
  if (!d) return gq_nomem((size_t)(c->nb + 1) * sizeof *d);
  for (int j = 0; j < c->nb; j++) {
    c->out[j] = c->pro_of[c->out[j]];
    const gq_node *n = gq_graph_node(c->pro, c->out[j]);
    d[j] = n->op == GQ_OP_INPUT ? n->attr.axis : -1;
  }
  gq_graph_set_outputs(c->pro, c->nb, c->out);
  *direct = d;
  return gq_graph_status(c->pro);
}

static int split(cut *c, int **direct) {
  const gq_graph *g = c->g;
  for (gq_ref r = 0; r < g->size; r++) {
    c->kind[r] = kind_of(c, gq_at(g, r));
    if (c->stay && c->stay[r] && c->kind[r] == FIXED && gq_at(g, r)->op != GQ_OP_INPUT) c->kind[r] = VARIES;
    c->pro_of[r] = c->body_of[r] = GQ_NONE;
  }
  gq_graph_needs(g, g->noutput, g->output, c->need);
  make_inputs(c);
  copy_body(c);
  gq_ref *outs = c->args;
  for (int j = 0; j < g->noutput; j++) outs[j] = in_body(c, g->output[j]);
  gq_graph_set_outputs(c->body, g->noutput, outs);
  GQ_TRY(gq_graph_status(c->body));
  return set_outputs(c, direct);
}

/* What belongs to single rows. Where nobody knows everything stays. */
static int find_rows(const gq_graph *g, int64_t rows, bool *stay) {
  gq_rowproof w;
  int *axis = gq_alloc((size_t)(g->ninput + 1) * sizeof *axis);
  if (!axis) return gq_nomem((size_t)g->ninput * sizeof *axis);
  for (int i = 0; i < g->ninput; i++) axis[i] = i == 1 ? 0 : -1;
  int status = gq_rowproof_init(&w, g, rows);
  if (status == GQ_OK) {
    w.single = true;
    status = gq_rows_prove(&w, axis);
    for (gq_ref r = 0; r < g->size; r++) stay[r] = status != GQ_OK || (w.need[r] && w.at[r].axis >= 0);
    gq_rowproof_done(&w);
  }
  gq_free(axis);
  return status == GQ_EUNSUPPORTED ? GQ_OK : status;
}

static int hoist(const gq_graph *g, int nvar, bool *stay, gq_graph **pro, gq_graph **body, int **direct) {
  *pro = *body = NULL;
  *direct = NULL;
  GQ_TRY(g->status);
  size_t size = (size_t)g->size, most = (size_t)(g->noutput + gq_graph_most(g));
  gq_pool own = { 0 };
  cut c = { .g = g, .nvar = nvar, .stay = stay, .pro = gq_graph_new(), .body = gq_graph_new() };
  c.pro_of = gq_pooled(&own, size, sizeof *c.pro_of);
  c.body_of = gq_pooled(&own, size, sizeof *c.body_of);
  c.out = gq_pooled(&own, size, sizeof *c.out);
  c.args = gq_pooled(&own, most, sizeof *c.args);
  c.kind = gq_pooled(&own, size, sizeof *c.kind);
  c.need = gq_pooled(&own, size, sizeof *c.need);
  int status = c.pro && c.body ? gq_pool_status(&own) : gq_nomem(size);
  if (status == GQ_OK) status = split(&c, direct);
  gq_pool_free(&own);
  if (status != GQ_OK) {
    gq_graph_free(c.pro);
    gq_graph_free(c.body);
    gq_free(*direct);
    *direct = NULL;
    return status;
  }
  *pro = c.pro;
  *body = c.body;
  return GQ_OK;
}

int gq_hoist(const gq_graph *g, int nvar, gq_graph **pro, gq_graph **body, int **direct) {
  return hoist(g, nvar, NULL, pro, body, direct);
}

int gq_hoist_shared(const gq_graph *g, int64_t rows, gq_graph **pro, gq_graph **body, int **direct) {
  bool *stay = gq_calloc((size_t)g->size + 1, sizeof *stay);
  *pro = *body = NULL, *direct = NULL;
  if (!stay) return gq_nomem((size_t)g->size);
  int status = g->status == GQ_OK ? find_rows(g, rows, stay) : g->status;
  if (status == GQ_OK) status = hoist(g, 2, stay, pro, body, direct);
  gq_free(stay);
  return status;
}
