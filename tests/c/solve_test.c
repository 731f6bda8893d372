/*
** solve_test.c -- what C programs may hand to a solve and its backward pass: cotangents of another dtype or shape,
** operations of their own with wrong gradients, defaults.
*/
#include "runtime/gq.h"
#include "runtime/exec/tape.h"
#include "check.h"

#include <string.h>

static gq_tensor *filled(gq_dtype d, int ndim, const int64_t *dim) {
  gq_tensor *t;
  if (gq_tensor_new(d, gq_shape_of(ndim, dim), &t) != GQ_OK) return NULL;
  gq_tensor_fill(t, 1);
  return t;
}

/* ---- cotangents ---- */

static gq_graph *decay(void) {
  gq_graph *g = gq_graph_new();
  gq_input(g, GQ_F64, gq_shape_of(0, NULL));
  gq_ref z = gq_input(g, GQ_F64, gq_shape_of(1, (int64_t[]){ 3 })), dz = gq_emit1(g, GQ_OP_NEG, z);
  gq_graph_set_outputs(g, 1, &dz);
  return g;
}

static void test_cotangents(void) {
  static const struct {
    gq_dtype d;
    int ndim;
    int64_t dim[3];
    bool fits;
  } cases[] = { { GQ_F64, 2, { 2, 3 }, true },     { GQ_F32, 2, { 2, 3 }, false },
                { GQ_F64, 2, { 3, 2 }, false },    { GQ_F64, 1, { 6 }, false },
                { GQ_F64, 3, { 2, 3, 1 }, false }, { GQ_F64, 2, { 2, 2 }, false },
                { GQ_I64, 2, { 2, 3 }, false },    { GQ_F32, 1, { 3 }, false },
                { GQ_F64, 2, { 1, 3 }, false } };
  const double t[] = { 0, 1 };
  gq_graph *f = decay();
  gq_tensor *z0 = filled(GQ_F64, 1, (int64_t[]){ 3 }), *z = NULL;
  gq_problem p = { .f = f, .z0 = z0, .z0_grad = true, .nt = 2, .t = t };
  gq_ode_options o;
  gq_info info;
  gq_solution *s = NULL;
  gq_ode_defaults(&o, GQ_F64);
  CHECK(gq_odeint(&p, &o, false, &z, &info, &s) == GQ_OK && s);
  for (size_t i = 0; s && i < sizeof cases / sizeof *cases; i++) {
    gq_tensor *gz = filled(cases[i].d, cases[i].ndim, cases[i].dim), *gz0 = NULL, *gt = NULL;
    int status = gq_odeint_backward(s, gz, &gz0, &gt, NULL);
    CHECK(status == (cases[i].fits ? GQ_OK : GQ_ESHAPE));
    CHECK(cases[i].fits || (strstr(gq_message(), "cotangent") && !gz0));
    gq_tensor_unref(gz), gq_tensor_unref(gz0), gq_tensor_unref(gt);
  }
  gq_solution_free(s), gq_tensor_unref(z), gq_tensor_unref(z0), gq_graph_free(f);
}

/* ---- operations of a program's own ---- */

typedef struct own {
  gq_custom base;
  int wrong, how; /* the gradient that is wrong: by its dtype, its shape */
} own;

static int own_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  const own *o = (own *)c;
  (void)cots, (void)create_graph;
  for (int i = 0; i < 3; i++) {
    bool wrong = i == o->wrong;
    grads[i] =
      filled(wrong && o->how == 0 ? GQ_F32 : GQ_F64, 1, (int64_t[]){ wrong && o->how == 1 ? 4 : 2 + i });
  }
  return GQ_OK;
}

static void own_free(gq_custom *c) { (void)c; }

/* Each gradient is looked at, the last one too. */
static void test_custom(void) {
  for (int wrong = -1; wrong < 3; wrong++)
    for (int how = 0; how < 2; how++) {
      if (wrong == 2 && how == 1) continue; /* it has four */
      gq_tensor *in[3], *out = filled(GQ_F64, 1, (int64_t[]){ 1 });
      own o = { { "own", own_backward, own_free, false }, wrong, how };
      for (int i = 0; i < 3; i++)
        in[i] = filled(GQ_F64, 1, (int64_t[]){ 2 + i }), in[i]->requires_grad = true;
      CHECK(gq_record_custom(&o.base, 3, in, 1, &out) == GQ_OK);
      int status = gq_backward(out, NULL);
      char place[32];
      snprintf(place, sizeof place, "own: gradient %d ", wrong + 1);
      CHECK(status == (wrong < 0 ? GQ_OK : GQ_ESHAPE) && (wrong < 0 || strstr(gq_message(), place)));
      gq_tensor_unref(out);
      for (int i = 0; i < 3; i++) gq_tensor_unref(in[i]);
    }
}

static void test_defaults(void) {
  gq_ode_options o;
  for (int d = GQ_F32; d <= GQ_F64; d++) {
    double tol = d == GQ_F32 ? 1e-3 : 1e-6;
    gq_ode_defaults(&o, (gq_dtype)d);
    CHECK(o.rtol == tol && o.atol == tol && o.back_rtol == tol && o.back_atol == tol);
    CHECK(o.max_steps == 100000 && o.back_max_steps == 100000 && o.C == 0.1 && o.max_nodes == 64);
    CHECK(!strcmp(o.method->name, "dopri5") && o.back_method == o.method);
  }
}

int main(void) {
  RUN(test_cotangents());
  RUN(test_custom());
  RUN(test_defaults());
  size_t blocks = gq_live_blocks(); /* a compiled solver is kept */
  test_cotangents();
  test_custom();
  RUN(CHECK(gq_live_blocks() == blocks));
  return DONE();
}
