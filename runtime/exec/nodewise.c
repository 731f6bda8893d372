/*
** nodewise.c -- a graph evaluated node by node, by whatever call runs or records one operation.
*/
#include "backend.h"

static void mark(const gq_graph *g, int n, const gq_ref *refs, bool *need) {
  for (int i = 0; i < n; i++)
    if (refs[i] != GQ_NONE) need[refs[i]] = true;
  for (int r = gq_graph_size(g) - 1; r >= 0; r--) {
    const gq_node *v = gq_graph_node(g, r);
    for (int i = 0; i < v->nargs && need[r]; i++) need[v->args[i]] = true;
  }
}

/* Where the inputs are, if any is not on the CPU. */
static const gq_device *place_of(int n, gq_tensor *const *in) {
  const gq_device *on = gq_host;
  for (int i = 0; i < n && on == gq_host; i++)
    if (in[i]) on = gq_tensor_device(in[i]);
  return on;
}

/* A number of the CPU's goes where the others are: what expands it would leave it behind. */
static int moved_number(const gq_device *on, gq_tensor **x) {
  gq_tensor *there;
  if (on == gq_host || !(*x)->storage || (*x)->shape.ndim > 0 || gq_tensor_device(*x) == on) return GQ_OK;
  GQ_TRY(gq_to_device(*x, on, &there));
  gq_tensor_unref(*x);
  *x = there;
  return GQ_OK;
}

enum { FEW = 16 };

int gq_evaluate_node(gq_caller *call, const gq_node *v, gq_tensor *const *value, gq_tensor **out) {
  gq_tensor *few[FEW], **args = few;
  few[0] = NULL;
  if (v->nargs > FEW && !(args = gq_calloc((size_t)v->nargs, sizeof *args)))
    return gq_nomem((size_t)v->nargs * sizeof *args);
  for (int i = 0; i < v->nargs; i++) args[i] = value[v->args[i]];
  int status = call(v->op, v->nargs, args, &v->attr, out);
  if (args != few) gq_free(args);
  return status;
}

static int evaluate_node(const gq_graph *g, gq_caller *call, gq_ref r, const gq_device *on,
                         gq_tensor *const *in, gq_tensor **value) {
  const gq_node *v = gq_graph_node(g, r);
  if (v->op == GQ_OP_INPUT) {
    value[r] = gq_tensor_ref(in[v->attr.axis]);
    return moved_number(on, &value[r]);
  }
  int status = gq_evaluate_node(call, v, value, &value[r]);
  return status == GQ_OK && v->nargs == 0 ? moved_number(on, &value[r]) : status;
}

int gq_evaluate_by(gq_caller *call, const gq_graph *g, gq_tensor *const *in, int n, const gq_ref *refs,
                   gq_tensor **out) {
  size_t size = (size_t)gq_graph_size(g);
  const gq_device *on = place_of(gq_graph_inputs(g), in);
  bool *need = gq_calloc(size + 1, sizeof *need);
  gq_tensor **value = gq_calloc(size + 1, sizeof *value);
  int status = need && value ? GQ_OK : gq_nomem(size * sizeof *value);
  for (int i = 0; i < n; i++) out[i] = NULL;
  if (status == GQ_OK) mark(g, n, refs, need);
  for (size_t r = 0; r < size && status == GQ_OK; r++)
    if (need[r]) status = evaluate_node(g, call, (gq_ref)r, on, in, value);
  for (int i = 0; i < n && status == GQ_OK; i++)
    if (refs[i] != GQ_NONE) out[i] = gq_tensor_ref(value[refs[i]]);
  for (size_t r = 0; value && r < size; r++) gq_tensor_unref(value[r]);
  gq_free(value);
  gq_free(need);
  return status;
}

int gq_evaluate(const gq_graph *g, gq_tensor *const *in, int n, const gq_ref *refs, gq_tensor **out) {
  return gq_evaluate_by(gq_apply, g, in, n, refs, out);
}
