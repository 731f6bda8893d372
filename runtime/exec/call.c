/*
** call.c -- a graph as a function of tensors: its nodes as operations of the script's, one after the other.
*/
#include "tape.h"

static int call_node(const gq_node *n, gq_tensor *const *in, gq_tensor **value, gq_tensor **args, gq_tensor **out) {
  if (n->op == GQ_OP_INPUT) {
    *out = gq_tensor_ref(in[n->attr.axis]);
    return GQ_OK;
  }
  for (int i = 0; i < n->nargs; i++) args[i] = value[n->args[i]];
  return gq_op_call(n->op, n->nargs, args, &n->attr, out);
}

static void mark(const gq_graph *g, bool *need) {
  for (int i = 0; i < gq_graph_outputs(g); i++) need[gq_graph_output(g, i)] = true;
  for (gq_ref r = gq_graph_size(g) - 1; r >= 0; r--) {
    const gq_node *n = gq_graph_node(g, r);
    for (int i = 0; need[r] && i < n->nargs; i++) need[n->args[i]] = true;
  }
}

int gq_graph_call(const gq_graph *g, gq_tensor *const *in, gq_tensor **out) {
  int size = gq_graph_size(g), most = 1, status = GQ_OK;
  for (gq_ref r = 0; r < size; r++)
    if (gq_graph_node(g, r)->nargs > most) most = gq_graph_node(g, r)->nargs;
  for (int i = 0; i < gq_graph_outputs(g); i++) out[i] = NULL;
  size_t n = (size_t)size + (size_t)most;
  gq_tensor **value = gq_calloc(n + 1, sizeof *value + sizeof(bool));
  if (!value) return gq_nomem(n * sizeof *value);
  bool *need = (bool *)(value + n);
  mark(g, need);
  for (gq_ref r = 0; r < size && status == GQ_OK; r++)
    if (need[r]) status = call_node(gq_graph_node(g, r), in, value, value + size, &value[r]);
  for (int i = 0; i < gq_graph_outputs(g) && status == GQ_OK; i++)
    out[i] = gq_tensor_ref(value[gq_graph_output(g, i)]);
  for (gq_ref r = 0; r < size; r++) gq_tensor_unref(value[r]);
  gq_free(value);
  return status;
}
