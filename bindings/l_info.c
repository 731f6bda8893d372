/*
** l_info.c -- the info table of a solve: what it took forwards and, once there was one, backwards, with warnings.
*/
#include "l_ode.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

/* ---- forwards ---- */

/* Warn once a process and kind: a training loop would repeat it at every step. info.warning has all, a line each. */
__attribute__((format(printf, 3, 4))) static void warn_once(lua_State *L, bool *done, const char *format,
                                                            ...) {
  char text[640];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (lua_getfield(L, -1, "warning") == LUA_TSTRING) lua_pushfstring(L, "%s\n%s", lua_tostring(L, -1), text);
  else lua_pushstring(L, text);
  lua_setfield(L, -3, "warning");
  lua_pop(L, 1);
  if (!*done) *done = gqL_warn(text);
}

/* Where it matters for more than a hundredth of the time. */
static void warn_time(lua_State *L, const gq_info *i, const gq_ode_options *o) {
  static bool coarse;
  if (!(i->coarse > 0.01)) return; /* NaN: no time has passed */
  warn_once(
    L, &coarse,
    "gq.%s: the dynamics depend on t, and times of the state's dtype are further apart than a 64th of "
    "a step: use float64, or measure times from an offset",
    o->method->scheme ? "sdeint" : "odeint");
}

void gqL_info_forward(lua_State *L, const gq_info *i, const gq_ode_options *o, const char *engine) {
  gqL_setstring(L, "status", gq_status_name(i->status));
  gqL_setstring(L, "engine", i->engine->keeps != GQ_KEEP_NOTHING ? i->engine->name : engine);
  if (i->reason[0]) gqL_setstring(L, "reason", i->reason);
  if (i->uncontrolled) gqL_setstring(L, "uncontrolled", i->uncontrolled);
  if (i->trajectory) {
    gqL_setstring(L, "trajectory", i->trajectory->name);
    gqL_setstring(L, "impulses", i->moments ? "moments" : "restart");
  }
  gqL_setstring(L, "lowering", i->lowering);
  gqL_setinteger(L, "nfe", i->nfe);
  gqL_setinteger(L, "steps", i->steps);
  gqL_setinteger(L, "rejected", i->rejected);
  if (i->jacobians) gqL_setinteger(L, "jacobians", i->jacobians), gqL_setinteger(L, "newton", i->newton);
  gqL_setinteger(L, "peak_bytes", (int64_t)i->peak_bytes);
  gqL_setnumber(L, "t", i->t_reached);
  if (i->event) gqL_setnumber(L, "event_t", i->event_t);
  warn_time(L, i, o);
}

void gqL_info_samples(lua_State *L, gq_samples *s) {
  struct {
    const char *key;
    gq_tensor **t;
  } all[] = {
    { "nfe", &s->nfe },
    { "steps", &s->steps },
    { "rejected", &s->rejected },
    { "t", &s->t },
    { "nfe_backward", &s->nfe_backward },
    { "steps_backward", &s->steps_backward },
    { "nodes", &s->nodes },
  };
  if (!s->nfe) return;
  lua_createtable(L, 0, 8);
  for (int i = 0; i < 7; i++) {
    gq_tensor **handle = gqL_pushtensor(L);
    *handle = *all[i].t, *all[i].t = NULL;
    lua_setfield(L, -2, all[i].key);
  }
  const int64_t *status = gq_tensor_data(s->status), n = gq_numel(s->status->shape);
  lua_createtable(L, n < INT_MAX ? (int)n : 0, 0);
  for (int64_t i = 0; i < n; i++)
    lua_pushstring(L, gq_status_name((int)status[i])), lua_rawseti(L, -2, i + 1);
  lua_setfield(L, -2, "status");
  lua_setfield(L, -2, "samples");
}

int gqL_info_sums(lua_State *L, const gq_ode_options *o, const gq_info *info, const gq_tensor *z,
                  gq_tensor **sums) {
  struct {
    const char *key;
    bool on;
    double value;
  } all[] = { { "error", o->error, info->error }, { "stiffness", o->stiffness, info->stiffness } };
  int n = 0;
  luaL_checkstack(L, 6, NULL);
  lua_createtable(L, 0, 2);
  for (int i = 0; i < 2; i++) {
    if (!all[i].on) continue;
    gq_tensor **handle = gqL_pushtensor(L);
    gqL_try(L, gq_tensor_new_on(gq_tensor_device(z), z->dtype, gq_shape_of(0, NULL), handle));
    gq_tensor_set(*handle, NULL, all[i].value);
    sums[n++] = *handle;
    lua_setfield(L, -2, all[i].key);
  }
  lua_setfield(L, -2, "regularisers");
  return n;
}

/* ---- backwards ---- */

static void fill_backward(lua_State *L, const gq_info *i, const gq_ode_options *o) {
  gqL_setinteger(L, "nfe_backward", i->nfe_backward);
  gqL_setinteger(L, "steps_backward", i->steps_backward);
  gqL_setinteger(L, "rejected_backward", i->rejected_backward);
  gqL_setinteger(L, "restarts", i->restarts);
  gqL_setinteger(L, "nodes", i->nodes);
  gqL_setinteger(L, "nodes_wanted", i->nodes_wanted);
  gqL_setinteger(L, "peak_bytes", (int64_t)i->peak_bytes);
  gqL_setnumber(L, "reconstruction", i->reconstruction);
  if (!isnan(i->audit)) gqL_setnumber(L, "audit", i->audit);
  if (i->nfe_audit > 0) gqL_setinteger(L, "nfe_audit", i->nfe_audit);
  if (!isnan(i->gradient_error)) gqL_setnumber(L, "gradient_error", i->gradient_error);
  if (i->gradient_of[0]) gqL_setstring(L, "gradient_of", i->gradient_of);
  if (!isnan(i->quotient_error)) gqL_setnumber(L, "quotient_error", i->quotient_error);
  if (!isnan(i->spectrum)) gqL_setnumber(L, "spectrum", i->spectrum);
  if (!isnan(i->quadrature_error)) gqL_setnumber(L, "quadrature_error", i->quadrature_error);
  if (!isnan(i->defect)) gqL_setnumber(L, "defect", i->defect);
  if (o->nodes == GQ_NODES_AUTO)
    gqL_setinteger(L, "rounds", i->rounds), gqL_setinteger(L, "unresolved", i->unresolved);
  if (o->moments) gqL_setinteger(L, "panels", i->panels), gqL_setinteger(L, "panels_split", i->panels_split);
}

/* How many tolerances the state may be off: relative, 1 % in a tight solve and 10 % in a loose one, 5 % for check.
** The gradient's error is two to six times that of the state for z' = -z and Lotka-Volterra. In training at 1e-3
** (nested spheres) states are up to 6 % off where gq errs little more than direct does, by the tolerance; at 9.7 % it
** was 30 % off where direct was 0.8 %. An interpolant's estimate is no bound: at 2 % the gradient of Lotka-Volterra is
** more than 100 % off; and where its points end far from a tight tolerance, the gradient may be anything. */
static double reconstruction_limit(const gq_ode_options *o) {
  double rtol = o->engine->keeps == GQ_KEEP_END ? o->rtol : o->back_rtol;
  if (o->method->scheme && !o->engine->method)
    return 0.1 / rtol; /* of that order is the error of its steps */
  if (o->trajectory->error) return rtol > 0 ? fmin(0.01 / rtol, 100) : 100;
  double most = o->engine->traits & GQ_TWICE ? 0.05 : 0.1;
  return rtol > 0 ? fmin(most, fmax(0.01, 100 * rtol)) / rtol : 100;
}

enum { AUDIT_PERCENT = 5, GRADIENT_PERCENT = 7, QUADRATURE_PERCENT = 10 };

/* Quadrature that was seen to be off, by more nodes or by other weights. */
static void warn_quadrature(lua_State *L, const gq_info *i) {
  static bool audited, weighed, unresolved;
  if (i->audit > AUDIT_PERCENT / 100.0 || isinf(i->audit)) {
    warn_once(
      L, &audited,
      "gq.odeint: twice the quadrature nodes change the gradient by %.3g %%: it may be as wrong as that with "
      "fewer; use gq = {nodes = \"step\"}, or raise gq.C (or nodes) until the change is small",
      100 * i->audit);
  }
  if (i->unresolved > 0) {
    warn_once(
      L, &unresolved,
      "gq.odeint: %lld pieces of the gradient's integral are not resolved by %lld nodes: it may be %.3g %% "
      "off; loosen adjoint.rtol, or use gradient = \"direct\" where f is as fast as that",
      (long long)i->unresolved, (long long)i->nodes, 100 * i->quadrature_error);
  } else if (i->quadrature_error > QUADRATURE_PERCENT / 100.0) {
    warn_once(
      L, &weighed,
      "gq.odeint: quadrature nodes in every step and the solver's own weights differ by %.3g %% in some "
      "parameter's gradient: it may be as wrong; lower adjoint.rtol and adjoint.atol",
      100 * i->quadrature_error);
  }
}

/* Tolerances by which the forward solve may miss f between its stages. Smooth problems give up to 530 (DETEST,
** networks, kinetics in float64; dopri5, tsit5, dopri8 at 1e-3 and 1e-6), kinks in f up to 5000 at 1e-6; a pulse that
** steps jumped over, with a gradient 12 % off, 740 to 5000 at 1e-3 and 2e6 at 1e-6: from 3 % of the state. */
static double defect_limit(const gq_ode_options *o) { return fmax(600, o->rtol > 0 ? 0.03 / o->rtol : 0); }

static void warn_defect(lua_State *L, const gq_info *i, const gq_ode_options *o) {
  static bool jumped;
  if (!(i->defect > defect_limit(o))) return;
  warn_once(
    L, &jumped,
    "gq.odeint: between its stages the forward solve misses the dynamics by %.3g tolerances: it may have "
    "stepped over something short, and state and gradient be wrong; lower rtol and atol, or set max_step",
    i->defect);
}

static void warn_jump(lua_State *L, const gq_info *i) {
  static bool jumps;
  if (!(i->quotient_error > GRADIENT_PERCENT / 100.0)) return;
  warn_once(
    L, &jumps,
    "gq.odeint: the solution changes by %.3g %% otherwise than its gradient says: the dynamics compare the "
    "state and seem to jump where it passes a value, which no gradient of f tells; let that be an event, "
    "{condition = ..., terminal = false}, or make f continuous",
    100 * i->quotient_error);
}

/* A tighter solve knows better than what is estimated without one. */
static void warn_gradient(lua_State *L, const gq_info *i) {
  static bool off;
  if (!(i->gradient_error > GRADIENT_PERCENT / 100.0)) return;
  warn_once(
    L, &off,
    "gq.odeint: the gradient of %s is off that of a solve at a tenth of the tolerances by about %.3g %%: "
    "the steps may miss something short, be too long, or be held by stability; lower rtol and atol, set "
    "max_step, or use method = \"kvaerno5\" for stiff dynamics",
    i->gradient_of, 100 * i->gradient_error);
}

static void warn_lost(lua_State *L, const gq_info *i, const gq_ode_options *o) {
  static bool unstable, coarse;
  bool inverts = o->engine->method, noise = o->method->scheme;
  bool missed = i->reconstruction > reconstruction_limit(o) || isnan(i->reconstruction);
  if (missed && o->trajectory->error) {
    warn_once(L, &coarse,
              "gq.odeint: the interpolated state is off by about %.3g tolerances: the gradient may be wrong; "
              "raise adjoint.points or use adjoint = {trajectory = \"dense\"}",
              i->reconstruction);
  } else if (missed) {
    warn_once(L, &unstable,
              "gq.%s: the state %s backwards misses the stored one by %.3g tolerances: the "
              "gradient may be wrong; use %s or gradient = \"direct\"",
              noise ? "sdeint" : "odeint", inverts ? "inverted" : "solved", i->reconstruction,
              inverts || noise ? "gradient = \"aca\"" : "adjoint = {trajectory = \"dense\"}");
  }
}

static void warn(lua_State *L, const gq_info *i, const gq_ode_options *o) {
  static bool capped, uneven;
  lua_pushnil(L);
  lua_setfield(L, -2, "warning");
  warn_time(L, i, o);
  if (i->capped && o->engine->integral != GQ_INTEGRAL_ADAPTIVE) {
    warn_once(L, &capped,
              "gq.odeint: %lld quadrature nodes were wanted, %lld used (max_nodes): the gradient may be "
              "inaccurate; raise gq.max_nodes or use gq = {nodes = \"step\"}",
              (long long)i->nodes_wanted, (long long)i->nodes);
  }
  if (i->capped && o->engine->integral == GQ_INTEGRAL_ADAPTIVE) {
    warn_once(
      L, &uneven,
      "gq.odeint: the adaptive quadrature did not reach its tolerance in some interval: the gradient may be "
      "inaccurate; loosen adjoint.rtol and adjoint.atol, or use gradient = \"direct\"");
  }
  if (!isnan(i->gradient_error)) warn_gradient(L, i);
  else warn_quadrature(L, i), warn_defect(L, i, o), warn_lost(L, i, o);
  warn_jump(L, i);
}

void gqL_info_backward(lua_State *L, const gq_info *i, const gq_ode_options *o) {
  fill_backward(L, i, o);
  warn(L, i, o);
}
