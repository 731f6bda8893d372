/*
** schedule.c -- an order of the roots in which element-wise nodes of one shape stand together.
** List scheduling: while a group is open, ready nodes of its shape join it; otherwise products,
** reductions and copies go first, since they unlock more element-wise work.
*/
#include "compile.h"

#include <string.h>

typedef struct list {
  gq_compiler *c;
  int *waits;       /* [n] operands of this phase not yet scheduled */
  int *after;       /* [n] last unit that must be closed before this node runs */
  int *next, *head; /* users of each root: edges in lists */
  gq_ref *user;
  int nedge;
  gq_ref *ready;
  int nready;
  int values; /* of the open group */
} list;

static bool takes_part(const gq_compiler *c, gq_ref r, int phase) {
  return c->info[r].phase == phase && gq_computed(c, r);
}

static void count_edges(list *s, int phase) {
  gq_compiler *c = s->c;
  s->nedge = s->nready = 0;
  for (int r = 0; r < c->n; r++) {
    if (!takes_part(c, r, phase)) continue;
    const gq_node *n = node_of(c, r);
    s->waits[r] = 0;
    s->after[r] = s->head[r] = -1;
    for (int i = 0; i < n->nargs; i++) {
      gq_ref root = c->view[n->args[i]].root;
      if (!takes_part(c, root, phase)) continue;
      s->user[s->nedge] = r;
      s->next[s->nedge] = s->head[root];
      s->head[root] = s->nedge++;
      s->waits[r]++;
    }
    if (s->waits[r] == 0) s->ready[s->nready++] = r;
  }
}

/* Does user `r` read `root` only number by number? */
static bool reads_in_place(const gq_compiler *c, gq_ref r, gq_ref root) {
  const gq_node *n = node_of(c, r);
  for (int i = 0; i < n->nargs; i++)
    if (c->view[n->args[i]].root == root && !gq_same_cells(c, r, n->args[i])) return false;
  return true;
}

static void take(list *s, int at) {
  gq_compiler *c = s->c;
  gq_ref r = s->ready[at];
  int u = c->nunit - 1;
  s->ready[at] = s->ready[--s->nready];
  c->order[c->norder++] = r;
  c->info[r].unit = u;
  c->unit[u].count++;
  s->values += 3 + node_of(c, r)->nargs; /* itself, its operands, perhaps an output to add to */
  for (int e = s->head[r]; e >= 0; e = s->next[e]) {
    gq_ref user = s->user[e];
    if (!reads_in_place(c, user, r) && s->after[user] < u) s->after[user] = u;
    if (--s->waits[user] == 0) s->ready[s->nready++] = user;
  }
}

static void open_unit(list *s, gq_unit_kind kind, int phase) {
  gq_compiler *c = s->c;
  c->unit[c->nunit++] = (gq_unit){ .kind = kind, .phase = phase, .first = c->norder };
  s->values = 0;
}

/* The earliest ready node that may join the open group; -1: none. */
static int find_joining(const list *s, gq_shape shape) {
  int best = -1;
  for (int i = 0; i < s->nready; i++) {
    gq_ref r = s->ready[i];
    const gq_node *n = node_of(s->c, r);
    if (gq_op_elementwise(n->op) && s->after[r] < s->c->nunit - 1 && gq_shape_equal(n->shape, shape) &&
        (best < 0 || r < s->ready[best]))
      best = i;
  }
  return best;
}

static int find_earliest(const list *s, bool elementwise) {
  int best = -1;
  for (int i = 0; i < s->nready; i++)
    if (gq_op_elementwise(node_of(s->c, s->ready[i])->op) == elementwise &&
        (best < 0 || s->ready[i] < s->ready[best]))
      best = i;
  return best;
}

enum { FULL = GQ_GROUP_VALUES - 8 }; /* room for the last node and its operands */

static void schedule_phase(list *s, int phase) {
  count_edges(s, phase);
  while (s->nready) {
    int at = find_earliest(s, false);
    if (at >= 0) {
      open_unit(s, UNIT_NODE, phase);
      take(s, at);
      continue;
    }
    at = find_earliest(s, true);
    gq_shape shape = node_of(s->c, s->ready[at])->shape;
    open_unit(s, UNIT_GROUP, phase);
    for (; at >= 0 && s->values < FULL; at = find_joining(s, shape)) take(s, at);
  }
}

/* Values that reach their output by a unit of its own. */
static void append_outputs(gq_compiler *c, int phase) {
  for (int i = 0; i < c->nout; i++)
    if (c->outs[i].phase == phase && !c->direct[i])
      c->unit[c->nunit++] = (gq_unit){ .kind = c->outs[i].mode == GQ_ADD ? UNIT_ACCUMULATE : UNIT_COPY,
                                       .phase = phase,
                                       .output = i };
}

static void count_readers(gq_compiler *c) {
  for (int r = 0; r < c->n; r++) {
    if (c->info[r].phase > c->p->nphase || !gq_computed(c, r)) continue;
    const gq_node *n = node_of(c, r);
    for (int i = 0; i < n->nargs; i++) {
      gq_info_root *root = &c->info[c->view[n->args[i]].root];
      root->reads++;
      if (root->last_phase < c->info[r].phase) root->last_phase = c->info[r].phase;
    }
  }
  for (int i = 0; i < c->nout; i++) {
    gq_info_root *root = &c->info[c->view[c->outs[i].ref].root];
    root->outputs++;
    if (root->last_phase < c->outs[i].phase) root->last_phase = c->outs[i].phase;
  }
}

/* Produced where it is wanted? KEEP: any contiguous piece of a computed root. STORE: a whole root
** of this phase that nothing else claims. ADD: the same for operations that can add. */
static bool goes_direct(gq_compiler *c, int i) {
  const gq_outspec *o = &c->outs[i];
  gq_ref root = c->view[o->ref].root;
  gq_info_root *info = &c->info[root];
  if (!gq_computed(c, root)) return false;
  if (o->mode == GQ_KEEP) {
    gq_layout l = gq_view_layout(c, o->ref);
    return gq_layout_contiguous(&l);
  }
  gq_op_class class = class_of(c, root);
  if (!gq_view_whole(c, o->ref) || info->phase != o->phase || info->home.kind != LOC_NONE) return false;
  if (o->mode == GQ_ADD && class == GQ_CELL)
    return gq_shape_equal(node_of(c, root)->shape, node_of(c, o->ref)->shape);
  if (o->mode == GQ_ADD)
    return info->reads == 0 && info->outputs == 1 &&
           (class == GQ_PRODUCT ||
            (node_of(c, root)->op == GQ_OP_SUM && gq_is_float(node_of(c, root)->dtype)));
  return info->last_phase == o->phase;
}

static void choose_direct(gq_compiler *c) {
  for (int pass = 0; pass < 2; pass++) /* KEEP outputs have the first claim */
    for (int i = 0; i < c->nout; i++) {
      const gq_outspec *o = &c->outs[i];
      if ((o->mode == GQ_KEEP) != (pass == 0) || !(c->direct[i] = goes_direct(c, i))) continue;
      gq_ref root = c->view[o->ref].root;
      if (o->mode == GQ_KEEP) c->info[root].home.kind = LOC_ARENA, c->info[root].lasting = true;
      else if (o->mode == GQ_STORE || !gq_op_elementwise(node_of(c, root)->op))
        c->info[root].home = (gq_loc){ .kind = LOC_OUT, .index = i };
    }
}

static int new_list(list *s, gq_compiler *c) {
  size_t n = (size_t)c->n + 1, edges = 1;
  for (int r = 0; r < c->n; r++) edges += (size_t)node_of(c, r)->nargs;
  *s = (list){ .c = c };
  s->waits = gq_calloc(n, sizeof *s->waits);
  s->after = gq_calloc(n, sizeof *s->after);
  s->head = gq_calloc(n, sizeof *s->head);
  s->ready = gq_calloc(n, sizeof *s->ready);
  s->next = gq_calloc(edges, sizeof *s->next);
  s->user = gq_calloc(edges, sizeof *s->user);
  return s->waits && s->after && s->head && s->ready && s->next && s->user ? GQ_OK
                                                                           : gq_nomem(n * sizeof(gq_ref));
}

static void free_list(list *s) {
  gq_free(s->waits);
  gq_free(s->after);
  gq_free(s->head);
  gq_free(s->ready);
  gq_free(s->next);
  gq_free(s->user);
}

int gq_pass_schedule(gq_compiler *c) {
  list s;
  count_readers(c);
  choose_direct(c);
  int status = new_list(&s, c);
  for (int phase = 0; phase < c->p->nphase && status == GQ_OK; phase++) {
    schedule_phase(&s, phase);
    append_outputs(c, phase);
  }
  free_list(&s);
  return status;
}
