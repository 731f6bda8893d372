/*
** check.c -- which methods, engines and options go together.
*/
#include "../method/heuristic.h"
#include "solution.h"

#include <stdio.h>

/* Names of the methods of some kinds, for messages. */
static const char *methods_of(bool (*fits)(const gq_tableau *), char *text, size_t size) {
  size_t n = 0;
  text[0] = 0;
  for (int i = 0; i < gq_ntableaux; i++) {
    const gq_tableau *m = gq_tableau_get(i);
    if (fits(m) && n < size) n += snprintf(text + n, size - n, "%s%s", n ? ", " : "", m->name);
  }
  return text;
}

static bool is_runge_kutta(const gq_tableau *m) { return m->kind == GQ_RUNGE_KUTTA; }
static bool is_alf(const gq_tableau *m) { return m->kind == GQ_ALF; }

static int check_inverts(const gq_ode_options *o) {
  bool (*fits)(const gq_tableau *) = o->engine->method;
  char names[256];
  if (!fits(o->method))
    return gq_fail(GQ_EARG,
                   "gradient = \"%s\" inverts the steps of the forward solve and method = \"%s\" cannot be "
                   "inverted so; it goes with method = %s",
                   o->engine->name, o->method->name, methods_of(fits, names, sizeof names));
  if (o->method->kind == GQ_ALF && o->eta == 0.5)
    return gq_fail(GQ_EARG,
                   "eta = 0.5 forgets v in every step of alf, so gradient = \"%s\" cannot invert them; "
                   "take another eta, or gradient = \"aca\"",
                   o->engine->name);
  return GQ_OK;
}

/* Steps that hang on the steps before. */
static int check_adams(const gq_ode_options *o) {
  if (!o->method || (o->method->kind == GQ_ADAMS_MOULTON && o->method->order < 2))
    return gq_fail(GQ_EARG, "the highest order of explicit_adams is 1 to 12, that of implicit_adams 2 to 12");
  if (gq_keeps_steps(o->engine))
    return gq_fail(
      GQ_EUNSUPPORTED,
      "gradient = \"%s\" differentiates one step after another, and the steps of method = \"%s\" hang on "
      "several before them; use gradient = \"gq\" or \"adjoint\", or a Runge-Kutta method (dopri5)",
      o->engine->name, o->method->name);
  if (o->engine->keeps != GQ_KEEP_NOTHING && o->trajectory->reruns)
    return gq_fail(
      GQ_EUNSUPPORTED,
      "adjoint.trajectory = \"checkpoint\" runs single steps again, and the steps of method = \"%s\" hang "
      "on several before them; use trajectory = \"dense\", \"interpolated\" or \"reverse\"",
      o->method->name);
  if (o->parity)
    return gq_fail(GQ_EUNSUPPORTED,
                   "parity repeats solves of Runge-Kutta methods step for step; method = \"%s\" is none",
                   o->method->name);
  return GQ_OK;
}

static bool estimates_error(const gq_tableau *m) { return m->e && !m->implicit && !gq_method_adams(m); }
static bool estimates_stiffness(const gq_tableau *m) { return gq_stiffness_stage(m) >= 0; }

/* Derivatives of what the steps tell about themselves: those of explicit steps one by one. */
static int check_heuristics(const gq_ode_options *o) {
  char names[256];
  const char *what = o->error ? "error" : "stiffness";
  bool (*fits)(const gq_tableau *) = o->error && !estimates_error(o->method)           ? estimates_error
                                     : o->stiffness && !estimates_stiffness(o->method) ? estimates_stiffness
                                                                                       : NULL;
  if (o->engine->keeps != GQ_KEEP_NOTHING && !gq_keeps_steps(o->engine))
    return gq_fail(GQ_EUNSUPPORTED,
                   "regularise.%s is a sum over the solver's own steps, which gradient = \"%s\" does not "
                   "differentiate; use gradient = \"direct\" or \"aca\"",
                   what, o->engine->name);
  if (o->independent)
    return gq_fail(GQ_EUNSUPPORTED,
                   "regularise.%s is a sum over steps that the whole batch shares; use batch = \"joint\"",
                   what);
  if (fits)
    return gq_fail(GQ_EUNSUPPORTED,
                   "regularise.%s: method = \"%s\" makes no such estimate of an explicit step; use one of %s",
                   fits == estimates_error ? "error" : "stiffness", o->method->name,
                   methods_of(fits, names, sizeof names));
  return GQ_OK;
}

int gq_ode_check(const gq_ode_options *o) {
  char names[256];
  if (!o->method || gq_method_adams(o->method)) GQ_TRY(check_adams(o));
  if (o->engine->method) GQ_TRY(check_inverts(o));
  if (o->error || o->stiffness) GQ_TRY(check_heuristics(o));
  if (!(o->eta > 0) || o->eta > 1) return gq_fail(GQ_EARG, "eta = %g must be above 0 and at most 1", o->eta);
  if (o->eta != 1 && !is_alf(o->method))
    return gq_fail(GQ_EARG, "eta damps method = \"alf\"; method = \"%s\" has none", o->method->name);
  if (!is_runge_kutta(o->back_method))
    return gq_fail(GQ_EARG, "adjoint.method = \"%s\": a backward solve takes one of %s", o->back_method->name,
                   methods_of(is_runge_kutta, names, sizeof names));
  if (o->method->kind == GQ_REVERSIBLE_HEUN && o->trajectory->reruns)
    return gq_fail(
      GQ_EARG,
      "adjoint.trajectory = \"checkpoint\" keeps z and a slope, method = \"reversible_heun\" carries more; "
      "use gradient = \"reversible\" or trajectory = \"dense\"");
  if (gq_method_stops(o->method) && (o->overshoot || o->parity))
    return gq_fail(GQ_EARG, "method = \"%s\" stops at every time: overshoot (and parity) needs one of %s",
                   o->method->name, methods_of(is_runge_kutta, names, sizeof names));
  return GQ_OK;
}

/* leapfrog: z = [x, v] */
int gq_check_halves(const gq_problem *p) {
  char got[128];
  gq_shape s = p->z0->shape;
  if (s.ndim > 0 && s.dim[s.ndim - 1] % 2 == 0) return GQ_OK;
  return gq_fail(
    GQ_ESHAPE,
    "method = \"leapfrog\": the last dimension of the state holds [x, v], so its size is even; z0 has "
    "shape %s",
    gq_shape_text(s, got, sizeof got));
}
