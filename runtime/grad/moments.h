/*
** moments.h -- many measurement times without restarts: the cotangents inside a panel become a
** polynomial forcing with the same moments, q(t) = sum_j (2j+1)/|h| P_j(x) sum_k g_k P_j(x_k), so that
** a' = -a'df/dz - q is smooth. a at the panel's far edge and the integral of a'df/dtheta are then right
** to order GQ_MOMENTS in the panel's length, whatever the number of times.
*/
#ifndef GQ_MOMENTS_H
#define GQ_MOMENTS_H

#include "../ode/solution.h"

enum { GQ_MOMENTS = 4 };       /* P_0 .. P_3 */

typedef struct gq_panel {
  int from, to;                /* measurement times at the edges: from > to */
  bool forced;                 /* cotangents lie inside */
  double middle, half;         /* t = middle + half x; x = 1 at t[from] */
  void *c[GQ_MOMENTS];         /* coefficients of a's forcing, whole arrays */
} gq_panel;

/* The panel that begins at measurement time `from`: as many intervals as fit into the forward step
** that ends there, at least one. Fills c from the cotangents gz inside it. */
void gq_panel_begin(gq_panel *p, const gq_solution *s, gq_tensor *gz, int from);
/* What is added to a' at time t: -q(t), +q(t) where the times decrease. */
void gq_panel_force(const gq_panel *p, const gq_solution *s, double t, void *dst);

#endif
