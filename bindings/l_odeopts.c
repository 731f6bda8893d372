/*
** l_odeopts.c -- the options table of gq.odeint: known keys, names and ranges, each an error that says what
** would do.
*/
#include "l_ode.h"

#include <math.h>
#include <string.h>

static const char *const known[] = { "method",       "rtol",   "atol",       "step_size",  "first_step",
                                     "max_steps",    "norm",   "controller", "gradient",   "adjoint",
                                     "gq",           "parity", "overshoot",  "throw",      "params",
                                     "memory_limit", "eta",    "dense",      "event",      "grid_points",
                                     "trace",        "batch",  "max_order",  "regularise", "max_step",
                                     "min_step",     "audit",  NULL };
static const char *const known_adjoint[] = { "method",    "rtol",   "atol",        "step_size",
                                             "max_steps", "norm",   "trajectory",  "impulses",
                                             "scale",     "points", "checkpoints", "max_step",
                                             "min_step",  NULL };
static const char *const known_gq[] = { "C",    "max_nodes", "nodes", "quadrature", "panels",
                                        "seed", "guards",    "paper", NULL };
static const char *const known_regularise[] = { "error", "stiffness", "kinetic", "jacobian", "taylor", NULL };
static const char *const known_controller[] = { "safety", "ifactor", "dfactor", "pcoeff",
                                                "icoeff", "dcoeff",  NULL };

/* One of a list of names. */
static int choose(lua_State *L, int arg, const char *key, const char *def, const char *const *names) {
  return gqL_optchoice(L, arg, "gq.odeint", key, def, names);
}

static double positive(lua_State *L, int arg, const char *key, double def) {
  return gqL_optpositive(L, arg, "gq.odeint", key, def);
}

static double limit(lua_State *L, int arg, const char *key, double none, double def) {
  return gqL_optlimit(L, arg, "gq.odeint", key, none, def);
}

static const char *method_name(int i) { return i < gq_ntableaux ? gq_tableau_get(i)->name : NULL; }
static const char *engine_name(int i) { return i < gq_nengines ? gq_engines[i].name : NULL; }
static const char *quadrature_name(int i) { return i < gq_nquadratures ? gq_quadratures[i].name : NULL; }
static const char *trajectory_name(int i) {
  return i == 0 ? "auto" : gq_trajectories[i - 1] ? gq_trajectories[i - 1]->name : NULL;
}

static const gq_tableau *choose_method(lua_State *L, int arg, const char *key, const gq_tableau *def) {
  const char *given = gqL_optstring(L, arg, "method", def->name);
  return given == def->name ? def : gq_tableau_get(gqL_chooserow(L, "gq.odeint", key, given, method_name));
}

/* Who says how the adjoint is to be solved means it to be. */
static const gq_engine *choose_engine(lua_State *L, int arg, bool meant, const gq_ode_options *o) {
  const char *given = gqL_optstring(L, arg, "gradient", meant ? "gq" : o->engine->name);
  return &gq_engines[gqL_chooserow(L, "gq.odeint", "gradient", given, engine_name)];
}

static const gq_trajectory_kind *choose_trajectory(lua_State *L, int t, const char *def) {
  const char *given = gqL_optstring(L, t, "trajectory", def);
  int which = gqL_chooserow(L, "gq.odeint", "adjoint.trajectory", given, trajectory_name);
  return which ? gq_trajectories[which - 1] : NULL;
}

static bool choose_norm(lua_State *L, int arg, const char *key, bool def) {
  static const char *const names[] = { "rms", "max", NULL };
  if (!gqL_given(L, arg, "norm")) return def;
  if (lua_getfield(L, arg, "norm") == LUA_TFUNCTION)
    gqL_error(
      L,
      "gq.odeint: %s = a function: \"rms\" or \"max\" expected: steps are chosen in C, where no function "
      "of the script is called; what is to count less in the error is scaled down in the state",
      key);
  lua_pop(L, 1);
  return choose(L, arg, key, NULL, names) == 1;
}

/* Push the sub-table `key` of the options (nil if absent), checked against its keys. */
static int subtable(lua_State *L, int arg, const char *key, const char *const *keys, const char *what) {
  int type = lua_getfield(L, arg, key), i = lua_gettop(L);
  if (type != LUA_TNIL) {
    if (type != LUA_TTABLE) gqL_error(L, "gq.odeint: %s must be a table, not %s", key, gqL_typename(L, i));
    gqL_checkoptions(L, i, keys, what);
  }
  return i;
}

static void controller_options(lua_State *L, int t, gq_controller *c) {
  if (lua_isnil(L, t)) return;
  c->safety = positive(L, t, "safety", c->safety);
  c->ifactor = positive(L, t, "ifactor", c->ifactor);
  c->dfactor = positive(L, t, "dfactor", c->dfactor);
  c->pcoeff = gqL_optnumber(L, t, "pcoeff", c->pcoeff);
  c->icoeff = gqL_optnumber(L, t, "icoeff", c->icoeff);
  c->dcoeff = gqL_optnumber(L, t, "dcoeff", c->dcoeff);
  if (!(c->safety <= 1) || !(c->ifactor >= 1) || !(c->dfactor <= 1))
    gqL_error(L, "gq.odeint: controller needs safety <= 1, ifactor >= 1 and dfactor <= 1; got %f, %f, %f",
              c->safety, c->ifactor, c->dfactor);
  if (!isfinite(c->pcoeff) || !isfinite(c->icoeff) || !isfinite(c->dcoeff) ||
      !(c->pcoeff + c->icoeff + c->dcoeff > 0))
    gqL_error(L, "gq.odeint: controller coefficients must be finite and have a positive sum");
}

/* The default of those that are no methods for (z, a): one of about their order. */
static const gq_tableau *back_method(const gq_ode_options *o) {
  bool high = o->method->multistep && o->step_size > 0 && o->method->order > 5;
  return high ? gq_tableau_find("dopri8") : o->back_method;
}

static void adjoint_options(lua_State *L, int t, bool paper, gq_ode_options *o) {
  static const char *const impulses[] = { "auto", "restart", "moments", NULL };
  bool same = o->method->steps->any_system;
  o->back_method = choose_method(L, t, "adjoint.method", same ? o->method : back_method(o));
  o->back_rtol = gqL_optnumber(L, t, "rtol", o->rtol);
  o->rtol_given |= gqL_given(L, t, "rtol");
  o->back_atol = gqL_optnumber(L, t, "atol", o->atol);
  o->back_step_size = positive(L, t, "step_size", o->step_size);
  o->back_max_step = limit(L, t, "max_step", HUGE_VAL, o->max_step);
  o->back_min_step = limit(L, t, "min_step", 0, o->min_step);
  o->back_max_steps = gqL_optint(L, t, "max_steps", o->max_steps, 1, INT64_MAX);
  o->back_max_norm = choose_norm(L, t, "adjoint.norm", o->max_norm);
  o->trajectory = choose_trajectory(L, t, paper && !o->engine->trajectory ? "reverse" : "auto");
  if (!o->trajectory) o->trajectory = o->engine->trajectory;
  o->thin = !o->trajectory;
  if (o->thin) o->trajectory = &gq_trajectory_dense; /* or what the problem allows: gq_odeint */
  if (gq_ode_check_given(o) != GQ_OK) gqL_error(L, "gq.odeint: %s", gq_message());
  o->points = (int)gqL_optint(L, t, "points", o->points, 2, 1 << 16);
  o->checkpoints = (int)gqL_optint(L, t, "checkpoints", o->checkpoints, 2, 1 << 24);
  int which = choose(L, t, "adjoint.impulses", paper ? "restart" : "auto", impulses);
  o->moments = which == 2, o->auto_impulses = which == 0;
  o->scale = gqL_optbool(L, t, "scale", !o->parity);
}

const gq_quadrature *gqL_quadrature(lua_State *L, const char *name, const char *key) {
  return &gq_quadratures[gqL_chooserow(L, "gq.odeint", key, name, quadrature_name)];
}

static void gq_options(lua_State *L, int t, bool paper, gq_ode_options *o) {
  static const char *const nodes[] = { "auto", "nfe", "step", NULL };
  static const gq_nodes kinds[] = { GQ_NODES_AUTO, GQ_NODES_NFE, GQ_NODES_STEP };
  int top = lua_gettop(L);
  o->C = positive(L, t, "C", o->C);
  o->max_nodes = (int)gqL_optint(L, t, "max_nodes", o->max_nodes, 1, 1 << 20);
  o->quadrature = gqL_quadrature(L, gqL_optstring(L, t, "quadrature", gq_quadratures->name), "gq.quadrature");
  o->panels = (int)gqL_optint(L, t, "panels", 1, 1, 1 << 20);
  if (o->quadrature->random || gqL_given(L, t, "seed")) o->seed = gqL_optseed(L, t);
  o->guards = gqL_optbool(L, t, "guards", o->guards || o->engine->traits & GQ_TWICE);
  bool fixed = !lua_isnil(L, t) && lua_getfield(L, t, "nodes") == LUA_TNUMBER;
  lua_settop(L, top);
  if (fixed) {
    o->nodes = GQ_NODES_FIXED;
    o->fixed_nodes = (int)gqL_optint(L, t, "nodes", 1, 1, 1 << 20);
  } else o->nodes = kinds[choose(L, t, "gq.nodes", paper ? "nfe" : "auto", nodes)];
}

/* opts.params is a list of tensors. */
static void check_params(lua_State *L, int arg) {
  if (lua_getfield(L, arg, "params") != LUA_TNIL) {
    if (!lua_istable(L, -1))
      gqL_error(L, "gq.odeint: params must be a list of tensors, not %s", gqL_typename(L, -1));
    for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
      if (!gqL_totensor(L, -1))
        gqL_error(L, "gq.odeint: params[%d] must be a tensor, not %s", (int)i, gqL_typename(L, -1));
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* The highest order of a multistep method. */
static void max_order(lua_State *L, int arg, gq_ode_options *o) {
  bool adams = o->method->multistep;
  if (!adams && gqL_given(L, arg, "max_order"))
    gqL_error(
      L,
      "gq.odeint: max_order is an option of explicit_adams and implicit_adams; method = \"%s\" has the "
      "order %d",
      o->method->name, o->method->order);
  if (!adams) return;
  int least = o->method->multistep->least, most = o->step_size > 0 ? GQ_ADAMS_FIXED : GQ_ADAMS_MOST;
  o->method =
    o->method->multistep->of_order((int)gqL_optint(L, arg, "max_order", most, least, GQ_ADAMS_MOST));
}

/* Those of the solver itself; lua/gq/regularise.lua has taken the integrals out. */
static void regularise_options(lua_State *L, int t, gq_ode_options *o) {
  o->error = gqL_optbool(L, t, "error", false);
  o->stiffness = gqL_optbool(L, t, "stiffness", false);
}

static void audit_option(lua_State *L, int arg, gq_ode_options *o) {
  bool off = lua_getfield(L, arg, "audit") == LUA_TBOOLEAN && !lua_toboolean(L, -1);
  lua_pop(L, 1);
  o->audit = off ? 0 : gqL_optint(L, arg, "audit", o->audit, 1, INT64_MAX);
}

void gqL_odeplain(lua_State *L, int arg) { gqL_plainoptions(L, arg, known); }

void gqL_odeoptions(lua_State *L, int arg, gq_dtype d, gq_ode_options *o) {
  gq_ode_defaults(o, d);
  if (lua_isnoneornil(L, arg)) return;
  gqL_checktype(L, arg, LUA_TTABLE);
  gqL_checkoptions(L, arg, known, "gq.odeint");
  int top = lua_gettop(L), gq = subtable(L, arg, "gq", known_gq, "gq.odeint's gq");
  int adjoint = subtable(L, arg, "adjoint", known_adjoint, "gq.odeint's adjoint");
  int controller = subtable(L, arg, "controller", known_controller, "gq.odeint's controller");
  int regularise = subtable(L, arg, "regularise", known_regularise, "gq.odeint's regularise");
  o->method = choose_method(L, arg, "method", o->method);
  o->eta = gqL_optnumber(L, arg, "eta", o->eta);
  o->rtol = gqL_optnumber(L, arg, "rtol", o->rtol);
  o->rtol_given = gqL_given(L, arg, "rtol");
  o->atol = gqL_optnumber(L, arg, "atol", o->atol);
  o->step_size = positive(L, arg, "step_size", 0);
  o->first_step = positive(L, arg, "first_step", 0);
  o->max_step = limit(L, arg, "max_step", HUGE_VAL, 0), o->min_step = limit(L, arg, "min_step", 0, 0);
  o->max_steps = gqL_optint(L, arg, "max_steps", o->max_steps, 1, INT64_MAX);
  max_order(L, arg, o);
  o->max_norm = choose_norm(L, arg, "norm", false);
  o->parity = gqL_optbool(L, arg, "parity", false);
  o->overshoot = gqL_optbool(L, arg, "overshoot", o->parity);
  o->engine = choose_engine(L, arg, o->parity || !lua_isnil(L, gq) || !lua_isnil(L, adjoint), o);
  o->independent = gqL_optindependent(L, arg, "gq.odeint");
  controller_options(L, controller, &o->controller);
  /* gq = {paper = true}, or parity: nodes by eq. (9), a restart at every time, z solved backwards. */
  bool paper = gqL_optbool(L, gq, "paper", o->parity);
  adjoint_options(L, adjoint, paper, o);
  gq_options(L, gq, paper, o);
  regularise_options(L, regularise, o);
  gqL_try(L, gq_ode_check(o));
  o->memory_limit = (size_t)positive(L, arg, "memory_limit", (double)o->memory_limit);
  audit_option(L, arg, o);
  check_params(L, arg);
  lua_settop(L, top);
}
