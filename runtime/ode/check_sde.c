/*
** check_sde.c -- may this SDE be solved so: what check.c asks of ODEs.
*/
#include "../sde/areas.h"
#include "solution.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What is asked of a method. */
typedef struct question {
  gq_calculus calculus;
  gq_noise noise; /* that its order hangs on */
} question;

/* Names of the methods of some kind. */
static void methods_of(bool (*fits)(const gq_tableau *m, const question *q), const question *q, char *text,
                       size_t size) {
  size_t n = 0;
  for (int i = 0; i < gq_nschemes; i++) {
    const gq_tableau *m = gq_scheme_get(i);
    if (fits(m, q) && n < size) n += snprintf(text + n, size - n, "%s%s", n ? ", " : "", m->name);
  }
}

static bool solves(const gq_tableau *m, const question *q) {
  return !m->scheme->langevin && gq_scheme_solves(m, q->calculus) && m->scheme->strong[q->noise] > 0;
}
static bool estimates(const gq_tableau *m, const question *q) { return gq_scheme_adapts(m, q->noise); }
static bool adapts(const gq_tableau *m, const question *q) { return solves(m, q) && estimates(m, q); }
static bool inverted(const gq_tableau *m, const question *q) { return m->tuple; }
static bool backwards(const gq_tableau *m, const question *q) { return gq_scheme_backwards(m); }

/* Does it converge? Diagonal noise whose g_i depends on other z_j does not commute: it is general noise. */
static int check_order(const gq_problem *p, const gq_ode_options *o, question *q) {
  static const char *const more[GQ_NNOISE] = {
    [GQ_DIAGONAL] = " whose g_i depends on other z_j than z_i, which is not commutative",
    [GQ_GENERAL] = " (where the columns of g commute say noise = \"commutative\")"
  };
  gq_depends how = GQ_DEPENDS_NOT;
  char fits[256] = "";
  const gq_tableau *m = o->method;
  GQ_TRY(gq_diffusion_depends(p->f, &how));
  if (p->noise == GQ_ADDITIVE && how != GQ_DEPENDS_NOT)
    return gq_fail(GQ_EARG, "the diffusion depends on z: additive noise does not; say noise = \"general\"");
  *q = (question){ o->calculus, p->noise == GQ_DIAGONAL && how == GQ_DEPENDS_MIXED ? GQ_GENERAL : p->noise };
  methods_of(solves, q, fits, sizeof fits);
  if (!gq_scheme_solves(m, o->calculus))
    return gq_fail(
      GQ_EARG,
      "method \"%s\" solves %s SDEs and this one is %s: use %s; or say calculus = \"%s\" to this "
      "solve, which converts the SDE",
      m->name, gq_calculus_names[m->scheme->calculus], gq_calculus_names[o->calculus], fits,
      gq_calculus_names[m->scheme->calculus]);
  if (m->scheme->strong[q->noise] > 0) return GQ_OK;
  return gq_fail(GQ_EARG, "method \"%s\" does not converge for %s noise%s: use %s", m->name,
                 gq_noise_names[p->noise - 1], more[p->noise] ? more[p->noise] : "", fits);
}

static int check_method(const gq_problem *p, const gq_ode_options *o) {
  char fits[256] = "";
  const gq_tableau *m = o->method;
  question q = { 0 };
  GQ_TRY(check_order(p, o, &q));
  if (!(o->step_size > 0) && !estimates(m, &q)) {
    methods_of(adapts, &q, fits, sizeof fits);
    return gq_fail(
      GQ_EARG, "adaptive steps: method \"%s\" has none that are known to converge for %s noise%s: %s%s",
      m->name, gq_noise_names[p->noise - 1], q.noise == GQ_GENERAL ? ", which does not commute" : "",
      fits[0] ? "use " : "none for Ito SDEs has; say calculus = \"stratonovich\" to this solve", fits);
  }
  if (m->scheme->langevin && o->engine->integral == GQ_INTEGRAL_OUTSIDE)
    return gq_fail(
      GQ_EARG,
      "gradient = \"%s\" solves an adjoint SDE, which is no Langevin SDE: with method = \"%s\" use "
      "gradient = \"direct\" or \"aca\"",
      o->engine->name, m->name);
  if (o->engine->method && !o->engine->method(m)) {
    methods_of(inverted, &q, fits, sizeof fits);
    return gq_fail(
      GQ_EARG,
      "gradient = \"%s\" inverts the steps of the solve and method = \"%s\" cannot be inverted; it goes "
      "with method = %s",
      o->engine->name, m->name, fits);
  }
  if (gq_scheme_backwards(o->back_method)) return GQ_OK;
  methods_of(backwards, &q, fits, sizeof fits);
  return gq_fail(GQ_EARG,
                 "adjoint.method = \"%s\": the backward solve is a Stratonovich SDE of z and a; use %s",
                 o->back_method->name, fits);
}

/* A step over a whole leaf or more asks for no two times inside one. Where measurement times cut steps short, leaves
** are shorter too. */
double gq_noise_leaf(const gq_problem *p, double dt) {
  for (int k = 1; k < p->nt; k++) {
    double n = fabs(p->t[k] - p->t[0]) / dt;
    if (!(fabs(n - round(n)) <= 1e-10 * n)) return dt / 4;
  }
  return dt;
}

static int check_step(const gq_problem *p, const gq_ode_options *o) {
  bool fixed = o->step_size != 0;
  double span = fabs(p->t[p->nt - 1] - p->t[0]), tol = gq_brownian_tol(p->path),
         dt = fixed ? o->step_size : o->first_step;
  if (!(dt > 0) || !isfinite(dt)) return gq_fail(GQ_EARG, "dt is %g: expected a positive number", dt);
  double most = fixed ? fmax(gq_noise_leaf(p, dt), dt / 2) : dt / 2, least = ldexp(span, -GQ_BROWNIAN_DEPTH);
  if (most < least)
    return gq_fail(
      GQ_EARG,
      "dt is %g: over an interval of %g a Brownian path tells no times apart that are nearer than %g; "
      "take longer steps",
      dt, span, least);
  if (span > 0 && tol > most * (1 + 1e-9))
    return gq_fail(
      GQ_EARG,
      "dt is %g, but the Brownian path is made for steps above %g: give gq.brownian a tol of at most %g", dt,
      tol * dt / most, most);
  return GQ_OK;
}

static int check_path(const gq_problem *p) {
  gq_shape form, want, have = gq_brownian_shape(p->path);
  char a[128], b[128];
  double t0 = fmin(p->t[0], p->t[p->nt - 1]), t1 = fmax(p->t[0], p->t[p->nt - 1]),
         slack = gq_brownian_slack(p->path);
  GQ_TRY(gq_diffusion_check(p->f, p->noise, &form, &want));
  if (!gq_shape_equal(want, have))
    return gq_fail(GQ_ESHAPE, "the Brownian path has shape %s: this SDE needs %s",
                   gq_shape_text(have, a, sizeof a), gq_shape_text(want, b, sizeof b));
  if (t0 < gq_brownian_t0(p->path) - slack || t1 > gq_brownian_t1(p->path) + slack)
    return gq_fail(GQ_EARG, "the Brownian path lives on [%g, %g]: the times go from %g to %g",
                   gq_brownian_t0(p->path), gq_brownian_t1(p->path), t0, t1);
  return GQ_OK;
}

/* What steps read of the path. */
static int check_areas(const gq_problem *p, const gq_ode_options *o) {
  const gq_tableau *m = o->method;
  bool areas = gq_scheme_areas(m, p->noise);
  gq_levy have = gq_brownian_levy(p->path);
  const char *want = m->scheme->moments > 2 ? "space-time-time" : "space-time";
  if (areas && have != GQ_LEVY_DAVIE && have != GQ_LEVY_FOSTER)
    return gq_fail(
      GQ_EARG,
      "method \"%s\" reads Levy areas of general noise, and the Brownian path was made with levy_area = "
      "\"%s\": make it with \"foster\" or \"davie\"",
      m->name, gq_levy_names[have]);
  if (areas && p->z0->shape.ndim + 2 > GQ_MAXDIM)
    return gq_fail(GQ_ESHAPE, "method \"%s\" takes states of at most %d dimensions", m->name, GQ_MAXDIM - 2);
  if (m->scheme->moments > gq_brownian_moments(p->path))
    return gq_fail(
      GQ_EARG,
      "method \"%s\" reads more of a Brownian path than W, and this one was made with levy_area = \"%s\": "
      "make it with \"%s\"",
      m->name, gq_levy_names[have], want);
  return areas ? gq_brownian_grid(p->path, o->step_size) : GQ_OK;
}

/* Samples with steps of their own. */
static int check_apart(const gq_problem *p, const gq_ode_options *o) {
  const gq_tableau *m = o->method;
  bool areas = gq_scheme_areas(m, p->noise);
  if (!o->independent) return GQ_OK;
  if (gq_graph_calls(p->f))
    return gq_fail(GQ_EARG, "batch = \"independent\" needs functions that can be traced (gq.where)");
  if (m->tuple || !m->steps->lanes || areas)
    return gq_fail(
      GQ_EARG,
      "batch = \"independent\" and method = \"%s\" do not go together, since %s: use %s, or batch = "
      "\"joint\"",
      m->name,
      areas      ? "its Levy areas belong to one grid of all samples"
      : m->tuple ? "it carries more than z from step to step"
                 : "its steps are implicit",
      o->calculus == GQ_ITO ? "another Ito method" : "\"heun\"");
  if (o->engine->keeps != GQ_KEEP_NOTHING && !o->engine->samples && !o->engine->choose)
    return gq_fail(
      GQ_EARG,
      "batch = \"independent\" and gradient = \"%s\" do not go together: use gradient = \"direct\", "
      "\"aca\" or \"none\", or batch = \"joint\"",
      o->engine->name);
  return GQ_OK;
}

int gq_noise_check(const gq_problem *p, const gq_ode_options *o) {
  if (!o->method->scheme || !p->path || p->dense_ || p->event_ || p->jump_)
    return gq_fail(GQ_EARG,
                   "an SDE takes a method of gq_scheme_get, a path, and neither dense solutions nor events");
  GQ_TRY(check_method(p, o));
  GQ_TRY(check_apart(p, o));
  GQ_TRY(check_path(p));
  GQ_TRY(check_step(p, o));
  GQ_TRY(check_areas(p, o));
  if (p->t[p->nt - 1] < p->t[0] && o->calculus == GQ_ITO)
    return gq_fail(
      GQ_EARG,
      "the times decrease, and backwards an Ito SDE has other solutions than forwards: say calculus = "
      "\"stratonovich\" to this solve, which goes back along the solutions of this one");
  if (p->t_grad && o->engine->keeps != GQ_KEEP_NOTHING)
    return gq_fail(
      GQ_EARG, "the times require a gradient, and the solution of an SDE has no derivative in time, smooth "
               "noise has one: gq.odeint of gq.wong_zakai(sde, {t0, t1}); or give t:detach()");
  return GQ_OK;
}
