/*
** alias.c -- the first pass of a compilation: the phase of each node, and what RESHAPE, PERMUTE,
** EXPAND and SLICE are views of. They cost nothing where every reader takes strides; elsewhere
** they are copies with storage of their own.
*/
#include "compile.h"

#include <limits.h>
#include <string.h>

static void mark_phases(gq_compiler *c) {
  for (int r = 0; r < c->n; r++) c->info[r] = (gq_info_root){ .phase = INT_MAX, .unit = -1, .last = -1 };
  for (int i = 0; i < c->nout; i++) {
    int *phase = &c->info[c->outs[i].ref].phase;
    if (c->outs[i].phase < *phase) *phase = c->outs[i].phase;
  }
  for (int r = c->n - 1; r >= 0; r--) {
    const gq_node *v = node_of(c, r);
    for (int i = 0; i < v->nargs; i++) {
      int *phase = &c->info[v->args[i]].phase;
      if (c->info[r].phase < *phase) *phase = c->info[r].phase;
    }
  }
}

/* The softplus and the sigmoid of one value. */
typedef struct couple {
  gq_ref plus, sigmoid;
  int later; /* what reads the value in phases after the softplus */
} couple;

static void find_couples(const gq_compiler *c, couple *of) {
  for (int r = 0; r < c->n; r++) of[r] = (couple){ GQ_NONE, GQ_NONE, 0 };
  for (int r = 0; r < c->n; r++) {
    const gq_node *v = node_of(c, r);
    if (c->info[r].phase == INT_MAX) continue;
    if (v->op == GQ_OP_SOFTPLUS) of[v->args[0]].plus = r;
    if (v->op == GQ_OP_SIGMOID) of[v->args[0]].sigmoid = r;
  }
  for (int r = 0; r < c->n; r++)
    for (int i = 0; i < node_of(c, r)->nargs && c->info[r].phase != INT_MAX; i++) {
      couple *x = &of[node_of(c, r)->args[i]];
      x->later += x->plus != GQ_NONE && c->info[r].phase > c->info[x->plus].phase;
    }
  for (int i = 0; i < c->nout; i++) of[c->outs[i].ref].later++;
}

/* Where one is computed, the other costs next to nothing; in a later phase it would cost as much again. The sigmoid
** comes to the softplus where it is then kept in place of the value. */
static int join_softplus(gq_compiler *c) {
  couple *of = gq_pooled(&c->own, (size_t)c->n + 1, sizeof *of);
  GQ_TRY(gq_pool_status(&c->own));
  find_couples(c, of);
  for (int r = 0; r < c->n; r++) {
    if (of[r].plus == GQ_NONE || of[r].sigmoid == GQ_NONE) continue;
    int *plus = &c->info[of[r].plus].phase, *sigmoid = &c->info[of[r].sigmoid].phase;
    if (*sigmoid < *plus) *plus = *sigmoid;
    else if (of[r].later == 1 && class_of(c, r) != GQ_LEAF) *sigmoid = *plus;
  }
  return GQ_OK;
}

gq_layout gq_view_layout(const gq_compiler *c, gq_ref r) {
  return gq_layout_of(node_of(c, r)->shape, c->view[r].stride);
}

bool gq_view_whole(const gq_compiler *c, gq_ref r) {
  const gq_view *v = &c->view[r];
  gq_layout l = gq_view_layout(c, r);
  return v->offset == 0 && gq_layout_contiguous(&l) &&
         gq_numel(node_of(c, r)->shape) == gq_numel(node_of(c, v->root)->shape);
}

bool gq_computed(const gq_compiler *c, gq_ref r) { return class_of(c, r) != GQ_LEAF && c->view[r].root == r; }

static gq_view own(const gq_compiler *c, gq_ref r) {
  gq_view v = { .root = r };
  gq_shape_strides(node_of(c, r)->shape, v.stride);
  return v;
}

gq_view gq_compose(const gq_compiler *c, gq_ref r) {
  const gq_node *n = node_of(c, r);
  gq_view v = c->view[n->args[0]];
  gq_layout l = gq_view_layout(c, n->args[0]);
  if (!gq_layout_view(n->op, &n->attr, &l, n->shape, v.stride, &v.offset)) v.root = GQ_NONE;
  return v;
}

/* Products take what their backend takes; index operations and callbacks want plain arrays. */
static int settle_operands(gq_compiler *c, gq_ref r) {
  const gq_node *n = node_of(c, r);
  gq_op_class class = gq_ops[n->op].role;
  if (class == GQ_PRODUCT) {
    gq_layout a = gq_view_layout(c, n->args[0]), b = gq_view_layout(c, n->args[1]);
    int pack = 0;
    GQ_TRY(c->p->on->lowering->pack(n->dtype, &a, &b, n->attr.flags, &pack));
    for (int i = 0; i < 2; i++)
      if (pack >> i & 1) c->view[n->args[i]] = own(c, n->args[i]);
  } else if (class == GQ_INDEX || class == GQ_CALL || class == GQ_WINDOWED) {
    for (int i = 0; i < n->nargs; i++) {
      gq_layout l = gq_view_layout(c, n->args[i]);
      if (!gq_layout_contiguous(&l)) c->view[n->args[i]] = own(c, n->args[i]);
    }
  }
  return GQ_OK;
}

bool gq_same_cells(const gq_compiler *c, gq_ref r, gq_ref a) {
  gq_ref root = c->view[a].root;
  const gq_node *n = node_of(c, r), *m = node_of(c, root);
  return gq_op_elementwise(n->op) && gq_op_elementwise(m->op) && gq_shape_equal(n->shape, m->shape) &&
         gq_shape_equal(n->shape, node_of(c, a)->shape) && gq_view_whole(c, a);
}

int gq_pass_alias(gq_compiler *c) {
  mark_phases(c);
  GQ_TRY(join_softplus(c));
  for (int r = 0; r < c->n; r++) {
    c->view[r] = own(c, r);
    if (c->info[r].phase == INT_MAX) continue;
    if (class_of(c, r) == GQ_VIEW) {
      gq_view v = gq_compose(c, r);
      if (v.root != GQ_NONE) c->view[r] = v;
    }
    GQ_TRY(settle_operands(c, r));
  }
  return GQ_OK;
}
