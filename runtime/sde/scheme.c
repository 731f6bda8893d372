/*
** scheme.c -- the methods for SDEs, each one step as a graph over (t, h, dW, state).
** f: drift, G: diffusion, G dW the product that the kind of noise asks for.
*/
#include "scheme.h"

#include <string.h>

const char *const gq_noise_names[GQ_NNOISE + 1] = { "diagonal", "scalar", "additive", "general", NULL };
const char *const gq_calculus_names[] = { "stratonovich", "ito", NULL };

typedef struct builder {
  gq_graph *g;
  const gq_graph *body;
  gq_noise noise;
  gq_ref t, t1, h, dw;
  gq_ref *bind; /* t, z, boundary values */
} builder;

/* ---- pieces ---- */

static void fields(builder *b, gq_ref t, gq_ref z, gq_ref *f, gq_ref *G) {
  gq_ref out[2];
  b->bind[0] = t;
  b->bind[1] = z;
  gq_inline(b->g, b->body, b->bind, out);
  *f = out[0];
  *G = out[1];
}

static gq_ref add(builder *b, gq_ref x, gq_ref y) { return gq_emit2(b->g, GQ_OP_ADD, x, y); }
static gq_ref mul(builder *b, gq_ref x, gq_ref y) { return gq_emit2(b->g, GQ_OP_MUL, x, y); }
static gq_ref half(builder *b, gq_ref x) { return gq_scale(b->g, x, 0.5); }

/* {.., d, m} by {.., m}: few columns, so a product and a sum, which keeps rows apart */
static gq_ref matrix_noise(builder *b, gq_ref G) {
  gq_shape gs = gq_graph_node(b->g, G)->shape, ws = gq_graph_node(b->g, b->dw)->shape, zs = gs;
  ws.dim[ws.ndim] = ws.dim[ws.ndim - 1];
  ws.dim[ws.ndim - 1] = 1;
  ws.ndim++;
  zs.ndim--;
  gq_ref w = gq_reshape(b->g, b->dw, ws);
  return gq_reshape(b->g, gq_sum_axes(b->g, mul(b, G, w), 1 << zs.ndim), zs);
}

/* G dW */
static gq_ref noise(builder *b, gq_ref G) {
  if (G == GQ_NONE) return GQ_NONE;
  if (b->noise == GQ_DIAGONAL || b->noise == GQ_SCALAR) return mul(b, G, b->dw);
  return matrix_noise(b, G);
}

/* f h + G dW */
static gq_ref rise(builder *b, gq_ref f, gq_ref G) { return add(b, mul(b, f, b->h), noise(b, G)); }

/* ---- methods ---- */

/* z + f h + G dW */
static void step_euler(builder *b, const gq_ref *x, gq_ref *y) {
  gq_ref f, G;
  fields(b, b->t, x[0], &f, &G);
  y[0] = add(b, x[0], rise(b, f, G));
}

/* z' = z + G dW; z + f h + (G + G') dW / 2 */
static void step_euler_heun(builder *b, const gq_ref *x, gq_ref *y) {
  gq_ref f, G, f1, G1;
  fields(b, b->t, x[0], &f, &G);
  fields(b, b->t1, add(b, x[0], noise(b, G)), &f1, &G1);
  y[0] = add(b, x[0], rise(b, f, half(b, add(b, G, G1))));
}

/* z' = z + f h + G dW; z + (f + f') h / 2 + (G + G') dW / 2 */
static void step_heun(builder *b, const gq_ref *x, gq_ref *y) {
  gq_ref f, G, f1, G1;
  fields(b, b->t, x[0], &f, &G);
  fields(b, b->t1, add(b, x[0], rise(b, f, G)), &f1, &G1);
  y[0] = add(b, x[0], rise(b, half(b, add(b, f, f1)), half(b, add(b, G, G1))));
}

/* z' = z + f h / 2 + G dW / 2; z + f' h + G' dW */
static void step_midpoint(builder *b, const gq_ref *x, gq_ref *y) {
  gq_ref f, G, f1, G1;
  fields(b, b->t, x[0], &f, &G);
  fields(b, b->t1, add(b, x[0], half(b, rise(b, f, G))), &f1, &G1);
  y[0] = add(b, x[0], rise(b, f1, G1));
}

/* (z, zhat, f, G): zhat' = 2 z - zhat + f h + G dW, f' and G' there;
** z' = z + (f + f') h / 2 + (G + G') dW / 2 */
static void step_reversible_heun(builder *b, const gq_ref *x, gq_ref *y) {
  gq_ref twice = gq_scale(b->g, x[0], 2);
  y[1] = add(b, gq_emit2(b->g, GQ_OP_SUB, twice, x[1]), rise(b, x[2], x[3]));
  fields(b, b->t1, y[1], &y[2], &y[3]);
  y[0] = add(b, x[0], rise(b, half(b, add(b, x[2], y[2])), half(b, add(b, x[3], y[3]))));
}

const gq_sde_method gq_sde_methods[] = {
  { "reversible_heun", GQ_STRATONOVICH, 4, 1, false,
    "Kidger, Foster, Li & Lyons, NeurIPS 2021, Algorithm 1" },
  { "heun", GQ_STRATONOVICH, 1, 2, false, "Rümelin, SIAM J. Numer. Anal. 19 (1982)" },
  { "midpoint", GQ_STRATONOVICH, 1, 2, true,
    "the explicit midpoint rule with dW beside h; Kloeden & Platen 1992" },
  { "euler_heun", GQ_STRATONOVICH, 1, 2, false,
    "Gard, Introduction to Stochastic Differential Equations, 1988" },
  { "euler", GQ_ITO, 1, 1, false, "Maruyama, Rend. Circ. Mat. Palermo 4 (1955)" },
};
const int gq_nsde_methods = sizeof gq_sde_methods / sizeof *gq_sde_methods;

static void (*const steps[])(builder *b, const gq_ref *x, gq_ref *y) = {
  step_reversible_heun, step_heun, step_midpoint, step_euler_heun, step_euler,
};

const gq_sde_method *gq_sde_method_find(const char *name) {
  for (int i = 0; i < gq_nsde_methods; i++)
    if (strcmp(gq_sde_methods[i].name, name) == 0) return &gq_sde_methods[i];
  return NULL;
}

/* ---- a step ---- */

static gq_shape output_shape(const gq_graph *g, int i) {
  return gq_graph_node(g, gq_graph_output(g, i))->shape;
}

gq_shape gq_sde_w_shape(gq_noise noise, gq_shape z, gq_shape s) {
  if (noise == GQ_DIAGONAL) return z;
  if (noise == GQ_SCALAR) {
    if (z.ndim) z.dim[z.ndim - 1] = 1;
    return z;
  }
  z.dim[z.ndim - 1] = s.dim[s.ndim - 1];
  return z;
}

static void state_inputs(builder *b, const gq_sde_method *m, gq_dtype d, gq_shape z, gq_ref *x) {
  x[0] = gq_input(b->g, d, z);
  if (m->parts == 1) return;
  x[1] = gq_input(b->g, d, z);
  x[2] = gq_input(b->g, d, z);
  x[3] = gq_input(b->g, d, output_shape(b->body, 1));
}

static int build(builder *b, const gq_sde_method *m) {
  gq_node z = *gq_graph_node(b->body, gq_graph_input(b->body, 1));
  gq_shape none = { 0 };
  gq_ref x[GQ_SDE_MAXPARTS], y[GQ_SDE_MAXPARTS];
  int n = gq_graph_inputs(b->body);
  b->t = gq_input(b->g, z.dtype, none);
  b->t1 = gq_input(b->g, z.dtype, none);
  b->h = gq_input(b->g, z.dtype, none);
  b->dw = gq_input(b->g, z.dtype, gq_sde_w_shape(b->noise, z.shape, output_shape(b->body, 1)));
  state_inputs(b, m, z.dtype, z.shape, x);
  for (int i = 2; i < n; i++) {
    const gq_node *v = gq_graph_node(b->body, gq_graph_input(b->body, i));
    b->bind[i] = gq_input(b->g, v->dtype, v->shape);
  }
  steps[m - gq_sde_methods](b, x, y);
  GQ_TRY(gq_graph_status(b->g));
  gq_graph_set_outputs(b->g, m->parts, y);
  return gq_graph_status(b->g);
}

int gq_sde_step(const gq_graph *body, gq_noise noise, const gq_sde_method *m, gq_graph **g) {
  builder b = { .g = gq_graph_new(), .body = body, .noise = noise };
  size_t n = (size_t)gq_graph_inputs(body);
  b.bind = gq_calloc(n, sizeof *b.bind);
  int status = b.g && b.bind ? build(&b, m) : gq_nomem(n * sizeof *b.bind);
  gq_free(b.bind);
  if (status != GQ_OK) gq_graph_free(b.g);
  else *g = b.g;
  return status;
}

/* ---- shapes of drift and diffusion ---- */

static int check_drift(gq_node z, gq_node f) {
  char want[128], got[128];
  if (f.dtype == z.dtype && gq_shape_equal(f.shape, z.shape)) return GQ_OK;
  return gq_fail(GQ_ESHAPE, "the drift gave %s %s: expected the state's %s %s", gq_dtype_name(f.dtype),
                 gq_shape_text(f.shape, got, sizeof got), gq_dtype_name(z.dtype),
                 gq_shape_text(z.shape, want, sizeof want));
}

static int bad_diffusion(gq_noise noise, gq_node z, gq_node s) {
  static const char *const form[] = { "the state's shape", "the state's shape",
                                      "the state's shape with one more dimension {.., d, m}, or {d, m}",
                                      "the state's shape with one more dimension {.., d, m}, or {d, m}" };
  char want[128], got[128];
  return gq_fail(GQ_ESHAPE, "the diffusion gave %s %s: with %s noise and a state %s %s, expected %s",
                 gq_dtype_name(s.dtype), gq_shape_text(s.shape, got, sizeof got), gq_noise_names[noise],
                 gq_dtype_name(z.dtype), gq_shape_text(z.shape, want, sizeof want), form[noise]);
}

/* z's shape and a last dimension m */
static gq_shape with_columns(gq_shape z, int64_t m) {
  z.dim[z.ndim++] = m;
  return z;
}

static bool has_columns(gq_shape z, gq_shape s) {
  return s.ndim == z.ndim + 1 && gq_shape_equal(with_columns(z, s.dim[s.ndim - 1]), s);
}

static int form_of(gq_noise noise, gq_node z, gq_node s, gq_shape *form) {
  gq_shape zs = z.shape, ss = s.shape;
  bool matrix = noise == GQ_ADDITIVE || noise == GQ_GENERAL;
  if (s.dtype != z.dtype) return bad_diffusion(noise, z, s);
  *form = zs;
  if (!matrix && gq_shape_equal(ss, zs)) return GQ_OK;
  if (zs.ndim == 0 || zs.ndim >= GQ_MAXDIM) return bad_diffusion(noise, z, s);
  if (noise == GQ_SCALAR && has_columns(zs, ss) && ss.dim[ss.ndim - 1] == 1) return GQ_OK;
  if (!matrix || ss.ndim < 2) return bad_diffusion(noise, z, s);
  *form = with_columns(zs, ss.dim[ss.ndim - 1]);
  if (gq_shape_equal(*form, ss)) return GQ_OK;
  return ss.ndim == 2 && ss.dim[0] == zs.dim[zs.ndim - 1] ? GQ_OK : bad_diffusion(noise, z, s);
}

static int emit_normal(const gq_sde_problem *p, gq_graph *g, gq_ref *bind) {
  gq_ref out[2];
  gq_shape form;
  int n = gq_graph_inputs(p->fg);
  if (gq_graph_outputs(p->fg) != 2) return gq_fail(GQ_EARG, "an SDE has two functions, drift and diffusion");
  for (int i = 0; i < n; i++) {
    const gq_node *v = gq_graph_node(p->fg, gq_graph_input(p->fg, i));
    bind[i] = gq_input(g, v->dtype, v->shape);
  }
  gq_inline(g, p->fg, bind, out);
  GQ_TRY(gq_graph_status(g));
  gq_node z = *gq_graph_node(g, bind[1]), f = *gq_graph_node(g, out[0]), s = *gq_graph_node(g, out[1]);
  GQ_TRY(check_drift(z, f));
  GQ_TRY(form_of(p->noise, z, s, &form));
  if (!gq_shape_equal(form, s.shape))
    out[1] = p->noise == GQ_SCALAR ? gq_reshape(g, out[1], form) : gq_expand(g, out[1], form);
  gq_graph_set_outputs(g, 2, out);
  return gq_graph_status(g);
}

int gq_sde_normalise(const gq_sde_problem *p, gq_graph **out) {
  gq_graph *g = gq_graph_new();
  gq_ref *bind = gq_calloc((size_t)gq_graph_inputs(p->fg) + 1, sizeof *bind);
  int status = g && bind ? emit_normal(p, g, bind) : gq_nomem(sizeof *bind);
  gq_free(bind);
  if (status != GQ_OK) gq_graph_free(g);
  else *out = g;
  return status;
}

int gq_sde_noise_shape(const gq_sde_problem *p, gq_shape *w) {
  gq_graph *g;
  GQ_TRY(gq_sde_normalise(p, &g));
  *w = gq_sde_w_shape(p->noise, gq_graph_node(g, gq_graph_input(g, 1))->shape, output_shape(g, 1));
  gq_graph_free(g);
  return GQ_OK;
}
