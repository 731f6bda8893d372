/*
** diffusion.h -- the noise of dz = f dt + G dW: its kinds, the shapes of G and W, the product G dW.
*/
#ifndef GQ_DIFFUSION_H
#define GQ_DIFFUSION_H

#include "../ir/ir.h"

/* Commutative: a general matrix whose columns are said to commute, (dG_i/dz) G_j = (dG_j/dz) G_i. All but last:
** diagonal, each g_i of its z_i alone, but for the last number of a row, an integral along the solution,
** which has no noise. */
typedef enum gq_noise {
  GQ_NOISE_NONE, GQ_DIAGONAL, GQ_SCALAR, GQ_ADDITIVE, GQ_GENERAL, GQ_COMMUTATIVE, GQ_ALL_BUT_LAST, GQ_NNOISE
} gq_noise;
extern const char *const gq_noise_names[];     /* NULL ends them; the first is GQ_DIAGONAL's */
typedef enum gq_calculus { GQ_STRATONOVICH, GQ_ITO } gq_calculus;
extern const char *const gq_calculus_names[];

/* fg: inputs t (0-d), z, captures; outputs f and G as a script gives them. *form: G's shape where it has one form: z's
** (diagonal, scalar), or {.., d, m} for z {.., d}. *w: that of W: z's; z's with 1 as last dimension; {.., m};
** {.., d - 1}. */
int gq_diffusion_check(const gq_graph *fg, gq_noise noise, gq_shape *form, gq_shape *w);
/* The same functions with G in that form. */
int gq_diffusion_form(const gq_graph *fg, gq_noise noise, gq_graph **out);
/* The shape of W for a state of shape z and a G, in its form, of shape s. */
gq_shape gq_noise_shape(gq_noise noise, gq_shape z, gq_shape s);
/* G dW, and f h + G dW */
gq_ref gq_noise_product(gq_graph *g, gq_noise noise, gq_ref G, gq_ref dw);
gq_ref gq_noise_rise(gq_graph *g, gq_noise noise, gq_ref f, gq_ref G, gq_ref h, gq_ref dw);
/* Column j of a G that is a matrix: z's shape */
gq_ref gq_noise_column(gq_graph *g, gq_ref G, int64_t j);
/* How G depends on z as far as the graph shows: not, entry i on z_i alone, or otherwise. */
typedef enum gq_depends { GQ_DEPENDS_NOT, GQ_DEPENDS_OWN, GQ_DEPENDS_MIXED } gq_depends;
int gq_diffusion_depends(const gq_graph *fg, gq_depends *how);
/* body: inputs t, z and others; outputs f and G in its form, of an SDE in the one calculus. *out: the same SDE in the
** other: Ito's drift is Stratonovich's and 1/2 sum_j (dG_j/dz) G_j over the columns of G. row: axis of z along which
** rows may be independent, which costs less where a g_i of diagonal noise depends on other z_j. */
int gq_diffusion_convert(const gq_graph *body, gq_noise noise, gq_calculus to, int row, gq_graph **out);

#endif
