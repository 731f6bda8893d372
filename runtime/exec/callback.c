/*
** callback.c -- dynamics that are called back: the graph of one operation that stands for them.
*/
#include "exec.h"

static int build(gq_graph *g, gq_dtype d, gq_shape s, int n, gq_tensor *const *params) {
  gq_ref *args = gq_calloc((size_t)n + 3, sizeof *args), f;
  if (!args) return gq_nomem(((size_t)n + 3) * sizeof *args);
  args[1] = gq_input(g, d, gq_shape_of(0, NULL));
  args[2] = gq_input(g, d, s);
  args[0] = gq_input(g, GQ_I64, gq_shape_of(0, NULL));
  for (int i = 0; i < n; i++) args[3 + i] = gq_cast(g, gq_input(g, params[i]->dtype, params[i]->shape), d);
  f = gq_emit(g, GQ_OP_CALL, n + 3, args, NULL);
  gq_graph_set_outputs(g, 1, &f);
  gq_free(args);
  return gq_graph_status(g);
}

int gq_callback_graph(gq_dtype d, gq_shape s, int n, gq_tensor *const *params, gq_graph **out) {
  gq_graph *g = gq_graph_new();
  int status = g ? build(g, d, s, n, params) : gq_nomem(0);
  if (status == GQ_OK) *out = g;
  else gq_graph_free(g);
  return status;
}

int gq_callback_address(gq_callback *c, gq_tensor **out) {
  GQ_TRY(gq_tensor_empty(GQ_I64, gq_shape_of(0, NULL), out));
  *(int64_t *)gq_tensor_data(*out) = (int64_t)(intptr_t)c;
  return GQ_OK;
}

int gq_callback_run(const void *address, const void *t, const void *z, const void *a, int what, void *out) {
  gq_callback *c = (gq_callback *)(intptr_t) * (const int64_t *)address;
  return a ? c->pull(c, t, z, a, what, out) : c->call(c, t, z, out);
}
