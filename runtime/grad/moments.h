/*
** moments.h -- many measurement times without restarts: the cotangents inside a panel become a
** polynomial forcing with the same moments, q(t) = sum_j (2j+1)/|h| P_j(x) sum_k g_k P_j(x_k), so that
** a' = -a'df/dz - q is smooth. a at the panel's far edge and the integral of a'df/dtheta are then right
** to order GQ_MOMENTS in the panel's length, whatever the number of times.
*/
#ifndef GQ_MOMENTS_H
#define GQ_MOMENTS_H

#include "../ode/solution.h"

enum { GQ_MOMENTS = 4, GQ_MOMENTS_LEFT = 2 };   /* P_0 .. P_3 force a, P_4 and P_5 tell what is left out */

typedef struct gq_panel {
  int from, to;                /* measurement times at the edges: from > to */
  bool forced;                 /* cotangents lie inside */
  double middle, half;         /* t = middle + half x; x = 1 at t[from] */
  void *c[GQ_MOMENTS];         /* coefficients of a's forcing, whole arrays */
  void *left[GQ_MOMENTS_LEFT]; /* the next moments, sum_k g_k P_j(x_k) */
} gq_panel;

/* The panel that begins at measurement time `from`: as many intervals as fit into the forward step
** that ends there, at least one. Fills c and left from the cotangents gz inside it. */
void gq_panel_begin(gq_panel *p, const gq_solution *s, gq_tensor *gz, int from);
/* The same panel no longer than `length`, and at least one interval less. */
void gq_panel_shorten(gq_panel *p, const gq_solution *s, gq_tensor *gz, double length);
/* Error that forcing leaves in a at the far edge, in the units of left_size[j], the norms of `left`: the sum of
** the next Legendre coefficients of a's response times the moments. The response to an impulse has derivatives
** of about kappa (kappa + omega)^(j-1), kappa = |J'v| / |v| and omega = |dJ'/dt v| / |J'v| for cotangents v. */
double gq_panel_error(const gq_panel *p, double kappa, double omega, const double *left_size);
/* What is added to a' at time t: -q(t), +q(t) where the times decrease. */
void gq_panel_force(const gq_panel *p, const gq_solution *s, double t, void *dst);

#endif
