/*
** schedule.c -- an order of the roots in which element-wise nodes of one shape stand together.
** List scheduling: while a group is open, ready nodes of its shape join it; otherwise products,
** reductions and copies go first, since they unlock more element-wise work.
*/
#include "compile.h"

#include <string.h>

/* Heaps of nodes, the earliest on top, as leftist trees (Crane 1972; Knuth, TAOCP 3, 5.2.3): arrays over all nodes
** hold any number of them that share no node. */
typedef struct heaps {
  gq_ref *left, *right;
  int *rank; /* length of the way right */
} heaps;

static gq_ref merge(heaps *h, gq_ref a, gq_ref b) {
  if (a < 0) return b;
  if (b < 0) return a;
  if (b < a) {
    gq_ref t = a;
    a = b, b = t;
  }
  h->right[a] = merge(h, h->right[a], b);
  gq_ref l = h->left[a], r = h->right[a];
  if (l < 0 || h->rank[l] < h->rank[r]) h->left[a] = r, h->right[a] = l;
  h->rank[a] = h->right[a] < 0 ? 0 : h->rank[h->right[a]] + 1;
  return a;
}

static void push(heaps *h, gq_ref *top, gq_ref r) {
  h->left[r] = h->right[r] = -1;
  h->rank[r] = 0;
  *top = merge(h, *top, r);
}

static void pop(heaps *h, gq_ref *top) { *top = merge(h, h->left[*top], h->right[*top]); }

typedef struct list {
  gq_compiler *c;
  int *waits;       /* [n] operands of this phase not yet scheduled */
  int *after;       /* [n] last unit that must be closed before this node runs */
  int *next, *head; /* users of each root: edges in lists */
  gq_ref *user;
  int nedge;
  heaps all, alike;  /* ready nodes; element-wise ones of one shape */
  gq_ref other, any; /* tops in `all`: not element-wise; element-wise, those that were taken too */
  gq_ref *shape;     /* [n] first node of that shape, */
  gq_ref *table;     /* [mask + 1] found by its hash; */
  gq_ref *top;       /* [n] of that node: the top in `alike` */
  size_t mask;
  gq_ref *blocked; /* [nblocked] ready, but only once the open unit is closed */
  int nblocked;
  int values; /* of the open group */
} list;

static bool takes_part(const gq_compiler *c, gq_ref r, int phase) {
  return c->info[r].phase == phase && gq_computed(c, r);
}

static bool elementwise(const list *s, gq_ref r) { return gq_op_elementwise(node_of(s->c, r)->op); }

/* The first node of r's shape. */
static gq_ref shape_of(list *s, gq_ref r) {
  gq_shape shape = node_of(s->c, r)->shape;
  uint64_t hash = (uint64_t)shape.ndim;
  for (int i = 0; i < shape.ndim; i++) hash = (hash ^ (uint64_t)shape.dim[i]) * UINT64_C(0x9e3779b97f4a7c15);
  for (size_t at = (hash >> 32) & s->mask;; at = (at + 1) & s->mask) {
    if (s->table[at] < 0) return s->table[at] = r;
    if (gq_shape_equal(node_of(s->c, s->table[at])->shape, shape)) return s->table[at];
  }
}

static void now_ready(list *s, gq_ref r) {
  if (!elementwise(s, r)) push(&s->all, &s->other, r);
  else {
    push(&s->all, &s->any, r);
    push(&s->alike, &s->top[s->shape[r]], r);
  }
}

static void count_edges(list *s, int phase) {
  gq_compiler *c = s->c;
  s->nedge = s->nblocked = 0;
  s->other = s->any = -1;
  for (int r = 0; r < c->n; r++) {
    if (!takes_part(c, r, phase)) continue;
    const gq_node *n = node_of(c, r);
    s->waits[r] = 0;
    s->after[r] = s->head[r] = s->top[r] = -1;
    if (elementwise(s, r)) s->shape[r] = shape_of(s, r);
    for (int i = 0; i < n->nargs; i++) {
      gq_ref root = c->view[n->args[i]].root;
      if (!takes_part(c, root, phase)) continue;
      s->user[s->nedge] = r;
      s->next[s->nedge] = s->head[root];
      s->head[root] = s->nedge++;
      s->waits[r]++;
    }
    if (s->waits[r] == 0) s->blocked[s->nblocked++] = r;
  }
}

/* Does user `r` read `root` only number by number? */
static bool reads_in_place(const gq_compiler *c, gq_ref r, gq_ref root) {
  const gq_node *n = node_of(c, r);
  for (int i = 0; i < n->nargs; i++)
    if (c->view[n->args[i]].root == root && !gq_same_cells(c, r, n->args[i])) return false;
  return true;
}

/* r, popped from where it was ready, into the open unit. */
static void take(list *s, gq_ref r) {
  gq_compiler *c = s->c;
  int u = c->nunit - 1;
  c->order[c->norder++] = r;
  c->info[r].unit = u;
  c->unit[u].count++;
  s->values += 3 + node_of(c, r)->nargs; /* itself, its operands, perhaps an output to add to */
  for (int e = s->head[r]; e >= 0; e = s->next[e]) {
    gq_ref user = s->user[e];
    bool waits = elementwise(s, user) && s->after[user] < u && !reads_in_place(c, user, r);
    if (waits) s->after[user] = u;
    if (--s->waits[user] > 0) continue;
    if (s->after[user] == u) s->blocked[s->nblocked++] = user;
    else now_ready(s, user);
  }
}

static void open_unit(list *s, gq_unit_kind kind, int phase) {
  gq_compiler *c = s->c;
  c->unit[c->nunit++] = (gq_unit){ .kind = kind, .phase = phase, .first = c->norder };
  s->values = 0;
}

enum { FULL = GQ_GROUP_VALUES - 8 }; /* room for the last node and its operands */

/* The earliest element-wise node and those of its shape that may join it. */
static void take_group(list *s, gq_ref *top) {
  while (*top >= 0 && s->values < FULL) {
    gq_ref r = *top;
    pop(&s->alike, top);
    take(s, r);
  }
}

static int schedule_phase(list *s, int phase) {
  count_edges(s, phase);
  for (;;) {
    while (s->nblocked) now_ready(s, s->blocked[--s->nblocked]);
    while (s->any >= 0 && s->c->info[s->any].unit >= 0) pop(&s->all, &s->any);
    if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted while a program was compiled");
    if (s->other >= 0) {
      gq_ref r = s->other;
      pop(&s->all, &s->other);
      open_unit(s, UNIT_NODE, phase);
      take(s, r);
    } else if (s->any >= 0) {
      open_unit(s, UNIT_GROUP, phase);
      take_group(s, &s->top[s->shape[s->any]]);
    } else return GQ_OK;
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
           (class == GQ_PRODUCT || class == GQ_WINDOWED ||
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

/* Arrays over nodes and over edges in one block. */
static int new_list(list *s, gq_compiler *c) {
  size_t n = (size_t)c->n + 1, edges = 1, room = 2;
  for (int r = 0; r < c->n; r++) edges += (size_t)node_of(c, r)->nargs;
  while (room < 2 * n) room *= 2;
  *s = (list){ .c = c, .mask = room - 1 };
  int *p = s->waits = gq_pooled(&c->own, 12 * n + 2 * edges, sizeof *p);
  s->table = gq_pooled(&c->own, room, sizeof *s->table);
  GQ_TRY(gq_pool_status(&c->own));
  int **over_nodes[] = { &s->after,      &s->head,        &s->shape,     &s->top,
                         &s->blocked,    &s->all.left,    &s->all.right, &s->all.rank,
                         &s->alike.left, &s->alike.right, &s->alike.rank };
  for (int i = 0; i < 11; i++) *over_nodes[i] = p += n;
  s->next = p + n;
  s->user = s->next + edges;
  for (size_t i = 0; i < room; i++) s->table[i] = -1;
  return GQ_OK;
}

int gq_pass_schedule(gq_compiler *c) {
  list s;
  count_readers(c);
  choose_direct(c);
  int status = new_list(&s, c);
  for (int phase = 0; phase < c->p->nphase && status == GQ_OK; phase++) {
    status = schedule_phase(&s, phase);
    append_outputs(c, phase);
  }
  return status;
}
