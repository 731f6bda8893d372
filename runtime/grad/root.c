/*
** root.c -- k = f(t, base + hg k) by Newton's method, and by the implicit function theorem what k depends on: with J
** the Jacobian at k and v = (1 - hg J)'^-1 dL/dk, the cotangents are those that v gives f where k stays. They are made
** of recorded operations and of k as recorded again, so that they can be differentiated like any others.
*/
#include "root.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { ITERATIONS = 60, ROUNDINGS = 16 };
enum { TIME, BASE, STEP, SLOPE, UNIT, REST }; /* inputs of the graph; REST: boundary values */
enum { VALUE, MATRIX, OFF, NOUT };            /* f, 1 - hg J {rows, dim, dim}, f - k {rows, dim, 1} */

struct gq_root {
  int users;
  gq_graph *g;
  gq_ref out[NOUT];
  int nin;         /* as gq_root_solve counts them */
  gq_shape column; /* {rows, dim, 1} */
  gq_tensor *unit; /* {dim, dim} */
};

void gq_root_free(gq_root *r) {
  if (!r || --r->users) return;
  gq_graph_free(r->g);
  gq_tensor_unref(r->unit);
  gq_free(r);
}

/* ---- the graph ---- */

/* df_j/dz of every row, {rows, 1, dim} */
static gq_ref row_of(gq_graph *g, gq_ref f, gq_ref z, gq_shape column, int64_t j) {
  gq_shape across = column;
  across.dim[2] = column.dim[1], across.dim[1] = 1;
  gq_ref entry = gq_slice(g, gq_reshape(g, f, column), 1, j, 1), slope = GQ_NONE;
  gq_dtype d = gq_graph_node(g, z)->dtype;
  gq_ref each = gq_expand(g, gq_const(g, d, 1), gq_graph_node(g, entry)->shape);
  if (gq_vjp(g, 1, &entry, &each, 1, &z, &slope) != GQ_OK) return GQ_NONE;
  return slope == GQ_NONE ? gq_zeros(g, d, across) : gq_reshape(g, slope, across);
}

static int build(gq_root *r, const gq_field *f, gq_ref *bind, gq_ref *row) {
  gq_graph *g = r->g;
  const gq_graph *body = f->body;
  int n = gq_graph_inputs(body);
  int64_t dim = r->column.dim[1];
  gq_shape number = { .ndim = 0 };
  gq_ref out[2], t = gq_input(g, f->dtype, number), base = gq_input(g, f->dtype, f->shape),
                 hg = gq_input(g, f->dtype, number), k = gq_input(g, f->dtype, f->shape),
                 unit = gq_input(g, f->dtype, gq_shape_of(2, (int64_t[]){ dim, dim }));
  bind[0] = t, bind[1] = gq_emit2(g, GQ_OP_ADD, base, gq_emit2(g, GQ_OP_MUL, k, hg));
  gq_inputs_like(g, body, 2, bind);
  GQ_TRY(gq_inline(g, body, bind, out));
  for (int64_t j = 0; j < dim; j++) row[j] = row_of(g, out[0], bind[1], r->column, j);
  gq_ref jacobian = dim > 1 ? gq_cat(g, (int)dim, row, 1) : row[0];
  r->out[VALUE] = out[0];
  r->out[MATRIX] = gq_emit2(g, GQ_OP_SUB, unit, gq_emit2(g, GQ_OP_MUL, jacobian, hg));
  r->out[OFF] = gq_reshape(g, gq_emit2(g, GQ_OP_SUB, out[0], k), r->column);
  r->nin = n + 1;
  return gq_graph_status(g);
}

static int unit_matrix(gq_dtype d, int64_t n, gq_tensor **out) {
  GQ_TRY(gq_tensor_new(d, gq_shape_of(2, (int64_t[]){ n, n }), out));
  for (int64_t i = 0; i < n; i++) gq_tensor_set(*out, (int64_t[GQ_MAXDIM]){ i, i }, 1);
  return GQ_OK;
}

int gq_root_new(const gq_field *f, int64_t rows, int64_t dim, gq_root **out) {
  *out = NULL;
  if (f->on->device != gq_host || dim > GQ_MAX_ROOT)
    return gq_fail(
      GQ_EUNSUPPORTED,
      "create_graph through implicit steps solves systems of at most %d numbers on the CPU, here "
      "%lld on %s: use an explicit method (dopri5, tsit5; for an SDE heun, euler)",
      GQ_MAX_ROOT, (long long)dim, f->on->device->name);
  gq_root *r = gq_calloc(1, sizeof *r);
  gq_ref *refs = gq_calloc((size_t)gq_graph_inputs(f->body) + dim, sizeof *refs);
  int status = r && refs && (r->g = gq_graph_new()) ? GQ_OK : gq_nomem(sizeof *r);
  if (r) r->users = 1, r->column = gq_shape_of(3, (int64_t[]){ rows, dim, 1 });
  if (status == GQ_OK) status = unit_matrix(f->dtype, dim, &r->unit);
  if (status == GQ_OK) status = build(r, f, refs, refs + gq_graph_inputs(f->body));
  gq_free(refs);
  if (status == GQ_OK) *out = r;
  else gq_root_free(r);
  return status;
}

/* The graph's outputs first .. last at k; each is a new reference. */
static int at(const gq_root *r, gq_tensor *const *in, gq_tensor *k, int first, int n, gq_tensor **out) {
  gq_tensor **all = gq_calloc((size_t)r->nin + 2, sizeof *all);
  if (!all) return gq_nomem(r->nin * sizeof *all);
  memcpy(all, in, SLOPE * sizeof *all);
  all[SLOPE] = k, all[UNIT] = r->unit;
  memcpy(all + REST, in + SLOPE, (r->nin - SLOPE) * sizeof *all);
  int status = gq_evaluate_by(gq_op_call, r->g, all, n, r->out + first, out);
  gq_free(all);
  return status;
}

static int reshaped(gq_tensor *x, gq_shape s, gq_tensor **out) {
  return gq_op_call(GQ_OP_RESHAPE, 1, &x, &(gq_attr){ .shape = s }, out);
}

/* ---- Newton's method ---- */

static double largest(const gq_tensor *x) {
  double most = 0;
  const void *data = gq_tensor_data(x);
  for (int64_t i = 0; i < gq_numel(x->shape); i++) {
    double v = fabs(gq_number(x->dtype, data, i));
    if (!(v <= most)) most = v;
  }
  return most;
}

/* k + dk of one iteration, and the largest dk. */
static int improve(const gq_root *r, gq_tensor *const *in, gq_tensor *k, gq_tensor **next, double *size) {
  gq_tensor *now[2] = { NULL }, *dk = NULL, *flat = NULL;
  int status = at(r, in, k, MATRIX, 2, now);
  if (status == GQ_OK) status = gq_linear_solve(now[0], now[1], false, &dk);
  if (status == GQ_OK) *size = largest(dk), status = reshaped(dk, k->shape, &flat);
  if (status == GQ_OK) status = gq_op_call(GQ_OP_ADD, 2, (gq_tensor *[]){ k, flat }, NULL, next);
  gq_tensor_unref(now[0]), gq_tensor_unref(now[1]), gq_tensor_unref(dk), gq_tensor_unref(flat);
  return status;
}

static int newton(const gq_root *r, gq_tensor *const *in, gq_tensor *guess_, gq_tensor **out) {
  double eps = in[BASE]->dtype == GQ_F32 ? FLT_EPSILON : DBL_EPSILON, size = INFINITY, hg = largest(in[STEP]),
         base = largest(in[BASE]), enough = 0;
  gq_tensor *k = guess_ ? gq_tensor_ref(guess_) : NULL;
  if (!k) GQ_TRY(gq_tensor_new(in[BASE]->dtype, in[BASE]->shape, &k));
  for (int i = 0; i < ITERATIONS && !(size <= enough); i++) {
    gq_tensor *next = NULL;
    int status = improve(r, in, k, &next, &size);
    gq_tensor_unref(k), k = next;
    if (status != GQ_OK) return status;
    double top = largest(k); /* roundings of base + hg k are 1 / hg as large in k */
    enough = ROUNDINGS * eps * fmax(top, (base + hg * top) / hg);
  }
  if (size <= enough) return *out = k, GQ_OK;
  gq_tensor_unref(k);
  return gq_fail(GQ_ENEWTON, "a stage of a step, solved again for create_graph, did not converge");
}

/* ---- on the tape ---- */

typedef struct link {
  gq_custom base;
  gq_root *r;
  gq_tensor *k;   /* without its place on the tape */
  gq_tensor **in; /* [r->nin], */
  uint64_t *version;
} link;

static void link_free(gq_custom *c) {
  link *l = (link *)c;
  for (int i = 0; l->in && i < l->r->nin; i++) gq_tensor_unref(l->in[i]);
  gq_free(l->in);
  gq_free(l->version);
  gq_tensor_unref(l->k);
  gq_root_free(l->r);
  gq_free(l);
}

static int pulled(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads);

/* k, whose values are known, as what the inputs give. */
static int record(gq_root *r, gq_tensor *const *in, gq_tensor *k) {
  link *l = gq_calloc(1, sizeof *l);
  if (!l) return gq_nomem(sizeof *l);
  *l = (link){ { "implicit stage", pulled, link_free, false },
               .r = r,
               .in = gq_calloc(r->nin, sizeof *l->in),
               .version = gq_calloc(r->nin, sizeof *l->version) };
  r->users++;
  int status = l->in && l->version ? gq_tensor_view(k, k->shape, k->stride, k->offset, &l->k)
                                   : gq_nomem(r->nin * sizeof *in);
  for (int i = 0; status == GQ_OK && i < r->nin; i++)
    l->in[i] = gq_tensor_ref(in[i]), l->version[i] = in[i]->storage->version;
  if (status == GQ_OK) return gq_record_custom(&l->base, r->nin, in, 1, &k);
  link_free(&l->base);
  return status;
}

/* v = (1 - hg J)'^-1 cot, of k's shape */
static int solve_back(const gq_root *r, gq_tensor *matrix, gq_tensor *cot, gq_tensor **v) {
  gq_tensor *column = NULL, *x = NULL;
  int status = reshaped(cot, r->column, &column);
  if (status == GQ_OK) status = gq_linear_solve(matrix, column, true, &x);
  if (status == GQ_OK) status = reshaped(x, cot->shape, v);
  gq_tensor_unref(column), gq_tensor_unref(x);
  return status;
}

static int unchanged(const link *l) {
  for (int i = 0; i < l->r->nin; i++)
    if (l->in[i]->storage->version != l->version[i])
      return gq_fail(GQ_ESTATE, "what a solve's implicit steps are made of was modified in place before the "
                                "backward pass; write to a copy (x:clone()), or after it");
  return GQ_OK;
}

/* own: the inputs once more, of which k is free; wrt: those that want gradients. */
static int pull(const link *l, gq_tensor *k, gq_tensor *cot, bool create_graph, gq_tensor **own,
                gq_tensor **grads) {
  gq_tensor *now[2] = { NULL }, *v = NULL, **wrt = own + l->r->nin, **found = wrt + l->r->nin;
  int n = 0, status = GQ_OK;
  for (int i = 0; i < l->r->nin && status == GQ_OK; i++) {
    status = reshaped(l->in[i], l->in[i]->shape, &own[i]);
    if (status == GQ_OK && l->in[i]->requires_grad) wrt[n++] = own[i];
  }
  if (status == GQ_OK) status = at(l->r, own, k, VALUE, 2, now);
  if (status == GQ_OK) status = solve_back(l->r, now[1], cot, &v);
  if (status == GQ_OK) status = gq_grad(1, now, &v, n, wrt, create_graph, found);
  n = 0;
  for (int i = 0; status == GQ_OK && i < l->r->nin; i++)
    if (l->in[i]->requires_grad) grads[i] = found[n++];
  gq_tensor_unref(now[0]), gq_tensor_unref(now[1]), gq_tensor_unref(v);
  return status;
}

static int pulled(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  link *l = (link *)c;
  if (!cots[0]) return GQ_OK;
  GQ_TRY(unchanged(l));
  gq_tensor *k = NULL, **own = gq_calloc(3 * (size_t)l->r->nin, sizeof *own);
  if (!own) return gq_nomem(l->r->nin * sizeof *own);
  bool was = gq_set_recording(true);
  int status = gq_tensor_view(l->k, l->k->shape, l->k->stride, l->k->offset, &k);
  if (status == GQ_OK && create_graph) status = record(l->r, l->in, k);
  if (status == GQ_OK) status = pull(l, k, cots[0], create_graph, own, grads);
  gq_set_recording(was);
  for (int i = 0; i < l->r->nin; i++) gq_tensor_unref(own[i]);
  gq_tensor_unref(k);
  gq_free(own);
  return status;
}

int gq_root_solve(gq_root *r, gq_tensor *const *in, gq_tensor *guess_, gq_tensor **k) {
  bool was = gq_set_recording(false);
  int status = newton(r, in, guess_, k);
  gq_set_recording(was);
  if (status != GQ_OK) return status;
  status = record(r, in, *k);
  if (status != GQ_OK) gq_tensor_unref(*k), *k = NULL;
  return status;
}
