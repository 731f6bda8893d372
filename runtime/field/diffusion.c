/*
** diffusion.c -- see diffusion.h.
*/
#include "diffusion.h"

const char *const gq_noise_names[] = { "diagonal", "scalar", "additive", "general", NULL };
const char *const gq_calculus_names[] = { "stratonovich", "ito", NULL };

static bool is_matrix(gq_noise noise) { return noise == GQ_ADDITIVE || noise == GQ_GENERAL; }

/* ---- shapes ---- */

gq_shape gq_noise_shape(gq_noise noise, gq_shape z, gq_shape s) {
  if (noise == GQ_DIAGONAL || z.ndim == 0) return z;
  z.dim[z.ndim - 1] = noise == GQ_SCALAR ? 1 : s.dim[s.ndim - 1];
  return z;
}

static int check_drift(gq_node z, gq_node f) {
  char want[128], got[128];
  if (f.dtype == z.dtype && gq_shape_equal(f.shape, z.shape)) return GQ_OK;
  return gq_fail(GQ_ESHAPE, "the drift gave %s %s: expected the state's %s %s", gq_dtype_name(f.dtype),
                 gq_shape_text(f.shape, got, sizeof got), gq_dtype_name(z.dtype),
                 gq_shape_text(z.shape, want, sizeof want));
}

static int bad_diffusion(gq_noise noise, gq_node z, gq_node s) {
  char want[128], got[128];
  return gq_fail(GQ_ESHAPE, "the diffusion gave %s %s: with %s noise and a state %s %s, expected %s",
                 gq_dtype_name(s.dtype), gq_shape_text(s.shape, got, sizeof got), gq_noise_names[noise - 1],
                 gq_dtype_name(z.dtype), gq_shape_text(z.shape, want, sizeof want),
                 is_matrix(noise) ? "the state's shape with one more dimension {.., d, m}, or {d, m}"
                                  : "the state's shape");
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
  bool matrix = is_matrix(noise);
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

static gq_node output(const gq_graph *g, int i) { return *gq_graph_node(g, gq_graph_output(g, i)); }

int gq_diffusion_check(const gq_graph *fg, gq_noise noise, gq_shape *form, gq_shape *w) {
  if (gq_graph_outputs(fg) != 2) return gq_fail(GQ_EARG, "an SDE has two functions, drift and diffusion");
  gq_node z = *gq_graph_node(fg, gq_graph_input(fg, 1));
  GQ_TRY(check_drift(z, output(fg, 0)));
  GQ_TRY(form_of(noise, z, output(fg, 1), form));
  *w = gq_noise_shape(noise, z.shape, *form);
  return GQ_OK;
}

/* ---- one form ---- */

static int emit_form(const gq_graph *fg, gq_noise noise, gq_graph *g, gq_ref *bind) {
  gq_ref out[2];
  gq_shape form, w;
  GQ_TRY(gq_diffusion_check(fg, noise, &form, &w));
  for (int i = 0; i < gq_graph_inputs(fg); i++) {
    const gq_node *v = gq_graph_node(fg, gq_graph_input(fg, i));
    bind[i] = gq_input(g, v->dtype, v->shape);
  }
  gq_inline(g, fg, bind, out);
  if (!gq_shape_equal(form, output(fg, 1).shape))
    out[1] = noise == GQ_SCALAR ? gq_reshape(g, out[1], form) : gq_expand(g, out[1], form);
  gq_graph_set_outputs(g, 2, out);
  return gq_graph_status(g);
}

int gq_diffusion_form(const gq_graph *fg, gq_noise noise, gq_graph **out) {
  gq_graph *g = gq_graph_new();
  gq_ref *bind = gq_calloc((size_t)gq_graph_inputs(fg) + 1, sizeof *bind);
  int status = g && bind ? emit_form(fg, noise, g, bind) : gq_nomem(sizeof *bind);
  gq_free(bind);
  if (status != GQ_OK) gq_graph_free(g);
  else *out = g;
  return status;
}

/* ---- G dW ---- */

/* {.., d, m} by {.., m}: few columns, so a product and a sum, which keeps rows apart */
static gq_ref matrix_product(gq_graph *g, gq_ref G, gq_ref dw) {
  gq_shape ws = gq_graph_node(g, dw)->shape, zs = gq_graph_node(g, G)->shape;
  ws.dim[ws.ndim] = ws.dim[ws.ndim - 1];
  ws.dim[ws.ndim - 1] = 1;
  ws.ndim++;
  zs.ndim--;
  gq_ref w = gq_reshape(g, dw, ws);
  return gq_reshape(g, gq_sum_axes(g, gq_emit2(g, GQ_OP_MUL, G, w), 1 << zs.ndim), zs);
}

gq_ref gq_noise_product(gq_graph *g, gq_noise noise, gq_ref G, gq_ref dw) {
  if (G == GQ_NONE) return GQ_NONE;
  return is_matrix(noise) ? matrix_product(g, G, dw) : gq_emit2(g, GQ_OP_MUL, G, dw);
}
