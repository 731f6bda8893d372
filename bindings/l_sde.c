/*
** l_sde.c -- gq.sdeint: its arguments and options, and one call of the solver. What that does not know is
** lua/gq/sdeint.lua's.
*/
#include "l_ode.h"

#include <math.h>
#include <string.h>

#define MOST_STEPS 1000000 /* of a solve, by itself: more are a dt by mistake rather than a wish */

static const char *scheme_name(int i) { return i < gq_nschemes ? gq_scheme_get(i)->name : NULL; }
static const char *engine_name(int i) { return i < gq_nnoise_engines ? gq_noise_engines[i].name : NULL; }

/* Not reversible_heun, which grows without bound wherever the drift contracts. */
static const gq_tableau *choose_method(lua_State *L, int arg, const char *key, const char *def) {
  return gq_scheme_get(gqL_chooserow(L, "sdeint", key, gqL_optstring(L, arg, "method", def), scheme_name));
}

static const gq_engine *choose_engine(lua_State *L, int arg) {
  const char *given = gqL_optstring(L, arg, "gradient", engine_name(0));
  return &gq_noise_engines[gqL_chooserow(L, "sdeint", "gradient", given, engine_name)];
}

/* That of the backward solve: the forward one's where it can be. */
static const gq_tableau *back_method(lua_State *L, int arg, const gq_tableau *m) {
  static const char *const known[] = { "method", NULL };
  const char *def = gq_scheme_backwards(m) ? m->name : "heun";
  if (lua_getfield(L, arg, "adjoint") == LUA_TNIL) return gq_scheme_find(def);
  if (!lua_istable(L, -1))
    gqL_error(L, "sdeint: adjoint is %s: expected a table", gqL_typename(L, lua_gettop(L)));
  gqL_checkoptions(L, lua_gettop(L), known, "gq.sdeint's adjoint");
  return choose_method(L, lua_gettop(L), "adjoint.method", def);
}

/* What a method reads of its path. */
static gq_levy levy_of(const gq_tableau *m, gq_noise noise) {
  if (gq_scheme_areas(m, noise)) return GQ_LEVY_FOSTER;
  return m->scheme->moments > 2   ? GQ_LEVY_SPACE_TIME_TIME
         : m->scheme->moments > 1 ? GQ_LEVY_SPACE_TIME
                                  : GQ_LEVY_NONE;
}

/* The path of opts.brownian, or a new one of this solve: with leaves that hold one time each, so that it is right in
** distribution at the least cost; areas of a part of a leaf mind more. */
static gq_brownian *opt_path(lua_State *L, int arg, const gq_problem *p, const gq_ode_options *o) {
  bool fixed = o->step_size > 0;
  double dt = fixed ? o->step_size : o->first_step;
  if (lua_getfield(L, arg, "brownian") != LUA_TNIL) {
    gq_brownian *path = gqL_topath(L, lua_gettop(L));
    if (!path)
      gqL_error(L, "sdeint: brownian is %s: expected a path of gq.brownian", gqL_typename(L, lua_gettop(L)));
    return path;
  }
  gqL_try(L, gq_times_check(p->nt, p->t));
  double t0 = fmin(p->t[0], p->t[p->nt - 1]), t1 = fmax(p->t[0], p->t[p->nt - 1]);
  gq_shape form, shape;
  gqL_try(L, gq_diffusion_check(p->f, p->noise, &form, &shape));
  uint64_t seed = gqL_optseed(L, arg);
  gq_levy levy = levy_of(o->method, p->noise);
  if (!(t1 > t0)) t1 = t0 + 1; /* no step will be taken */
  gq_brownian **x = gqL_pushpath(L);
  double leaf = !fixed ? dt / 4096 : levy ? dt / 16 : gq_noise_leaf(p, dt);
  gqL_retry(L, gq_brownian_new(t0, t1, shape, p->z0->dtype, seed, dt > 0 ? leaf : 0, levy, x));
  return *x;
}

/* The function that is traced: drift and diffusion, its upvalues, at (t, z). */
static int both(lua_State *L) {
  lua_settop(L, 2);
  for (int i = 1; i <= 2; i++) {
    lua_pushvalue(L, lua_upvalueindex(i));
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_call(L, 2, 1);
    if (!gqL_totensor(L, -1))
      gqL_error(L, "the %s of gq.sdeint must return a tensor, got %s", i == 1 ? "drift" : "diffusion",
                gqL_notensor(L, lua_gettop(L)));
  }
  return 2;
}

/* The SDE at arg, made and checked by gq.sde: its kind, and `both` on the stack. */
static int push_both(lua_State *L, int arg, gq_problem *p) {
  if (luaL_getmetafield(L, arg, "__name") != LUA_TSTRING || strcmp(lua_tostring(L, -1), "gq.sde") != 0)
    gqL_error(L,
              "sdeint: %s given: expected an SDE made by gq.sde{drift = function(t, z) return m:f(t, z) end, "
              "diffusion = function(t, z) return m:g(t, z) end, noise = \"diagonal\", calculus = \"ito\"}",
              gqL_typename(L, arg));
  lua_getfield(L, arg, "noise");
  lua_getfield(L, arg, "calculus");
  p->noise =
    GQ_DIAGONAL + (gq_noise)gqL_choose(L, "sdeint", "noise", luaL_checkstring(L, -2), gq_noise_names);
  p->calculus = (gq_calculus)gqL_choose(L, "sdeint", "calculus", luaL_checkstring(L, -1), gq_calculus_names);
  lua_getfield(L, arg, "drift");
  lua_getfield(L, arg, "diffusion");
  lua_pushcclosure(L, both, 2);
  return lua_gettop(L);
}

/* Langevin methods evaluate [gamma, force], which gq.langevin keeps, in place of the drift. */
static void langevin(lua_State *L, int sde, int fn, const char *method) {
  if (lua_getfield(L, sde, "langevin") == LUA_TNIL)
    gqL_error(L,
              "sdeint: method \"%s\" solves Langevin SDEs, dx = v dt, dv = -gamma v dt - u grad(x) dt + "
              "sqrt(2 gamma u) dW: make one by gq.langevin{grad, gamma, u}, or use another method",
              method);
  lua_setupvalue(L, fn, 1);
}

static double positive(lua_State *L, int arg, const char *key, double def) {
  return gqL_optpositive(L, arg, "sdeint", key, def);
}

/* Fixed steps of dt, or adaptive ones that begin with it. */
static void steps(lua_State *L, int arg, const gq_problem *p, gq_ode_options *o) {
  double span = fabs(p->t[p->nt - 1] - p->t[0]);
  double rtol = positive(L, arg, "rtol", 1e-3), atol = positive(L, arg, "atol", 1e-3);
  o->max_step = gqL_optlimit(L, arg, "sdeint", "max_step", HUGE_VAL, 0);
  if (!gqL_optbool(L, arg, "adaptive", false)) {
    if (o->max_step > 0)
      gqL_error(L, "sdeint: max_step is for adaptive = true; steps are dt long without it");
    gqL_neednumber(L, arg, "dt", "sdeint");
    o->step_size = positive(L, arg, "dt", 0);
    return;
  }
  o->rtol = rtol, o->atol = atol;
  o->first_step = positive(L, arg, "dt", span > 0 ? span / 100 : 1);
}

static void theta_option(lua_State *L, int arg, gq_ode_options *o) {
  if (!gqL_given(L, arg, "theta")) return;
  o->theta = gqL_optnumber(L, arg, "theta", 1);
  if (!o->method->steps->stiff)
    gqL_error(L, "sdeint: theta weighs the implicit drift of method = \"theta\"; method = \"%s\" has none",
              o->method->name);
  if (!(o->theta >= 0.5) || o->theta > 1)
    gqL_error(
      L,
      "sdeint: theta is %f: expected a number from 0.5 (trapezoidal) to 1 (backward Euler): below 0.5 "
      "the method is as little stable as an explicit one",
      (LUAI_UACNUMBER)o->theta);
}

/* core.solve_sde(sde, z0, t, opts): one call of the solver */
static int solve_sde(lua_State *L) {
  static const char *const known[] = { "method",       "dt",       "brownian",  "gradient",
                                       "seed",         "adjoint",  "max_steps", "params",
                                       "memory_limit", "throw",    "calculus",  "logqp",
                                       "batch",        "adaptive", "rtol",      "atol",
                                       "max_step",     "theta",    NULL };
  gq_problem p = { 0 };
  gq_ode_options o;
  lua_settop(L, 4);
  luaL_checkstack(L, 24, NULL);
  int fn = push_both(L, 1, &p);
  gqL_plainoptions(L, 4, known);
  p.z0 = gqL_checktensor(L, 2);
  gqL_checknumbers(L, p.z0, "sdeint");
  if (!lua_istable(L, 4))
    gqL_error(L, "sdeint: options are %s: expected a table with at least dt", gqL_typename(L, 4));
  gqL_checkoptions(L, 4, known, "gq.sdeint");
  gq_ode_defaults(&o, p.z0->dtype);
  o.independent = gqL_optindependent(L, 4, "sdeint");
  o.engine = choose_engine(L, 4);
  o.calculus =
    (gq_calculus)gqL_optchoice(L, 4, "sdeint", "calculus", gq_calculus_names[p.calculus], gq_calculus_names);
  o.method = choose_method(L, 4, "method", o.calculus == GQ_ITO ? "euler" : "heun");
  o.back_method = back_method(L, 4, o.method);
  theta_option(L, 4, &o);
  if (o.method->scheme->langevin) langevin(L, 1, fn, o.method->name);
  o.max_steps = gqL_optint(L, 4, "max_steps", MOST_STEPS, 1, INT64_MAX);
  o.memory_limit = (size_t)gqL_optint(L, 4, "memory_limit", (int64_t)o.memory_limit, 1, INT64_MAX);
  o.trajectory = &gq_trajectory_reverse, o.thin = o.auto_impulses = false, o.nodes = GQ_NODES_NFE;
  gqL_box *b = gqL_pushbox(L);
  p.nt = gqL_readtimes(L, 3, "sdeint", b), p.t = b->t;
  steps(L, 4, &p, &o);
  gq_tensor *t = gqL_totensor(L, 3);
  p.t_grad = t && t->requires_grad && gq_recording(), p.z0_grad = p.z0->requires_grad;
  gqL_pushref(L, p.z0); /* the traced functions may free its handle */
  const gq_dtype d[2] = { p.z0->dtype, p.z0->dtype };
  const gq_shape s[2] = { { 0 }, p.z0->shape };
  gq_trace *tr = gqL_trace(L, fn, gq_tensor_device(p.z0), 2, d, s, 2, "the drift and diffusion of gq.sdeint");
  gqL_dynamics f = { gq_trace_graph(tr), gq_trace_captures(tr), tr, lua_gettop(L), NULL };
  bool any = gqL_takecaptures(L, 4, &f, b);
  p.f = f.graph, p.ncapture = f.ncapture, p.capture = b->capture, p.wants_grad = b->want;
  p.path = opt_path(L, 4, &p, &o), p.samples_ = &b->samples;
  if (!(o.step_size > 0)) o.min_step = 2 * gq_brownian_tol(p.path); /* the path knows no finer ones */
  const char *engine = o.engine->name;
  if (!gq_recording() || !(any || p.z0_grad || p.t_grad)) o.engine = gq_noise_engine_find("none");
  gqL_runsolve(L, 4, &p, &o, engine, NULL, &f, b);
  gqL_setstring(L, "method", o.method->name);
  return 2;
}

/* logqp, several states, or noise that must be seen to commute. */
static bool needs_more(lua_State *L) {
  bool yes = lua_istable(L, 2) ||
             (lua_istable(L, 4) && lua_getfield(L, 4, "logqp") && lua_toboolean(L, -1)) ||
             (lua_istable(L, 1) && lua_getfield(L, 1, "noise") == LUA_TSTRING &&
              !strcmp(lua_tostring(L, -1), "commutative"));
  lua_settop(L, 4);
  return yes;
}

/* gq.sdeint(sde, z0, t, opts). What one call of the solver does not know is lua/gq/sdeint.lua's. */
static int sdeint(lua_State *L) {
  if (!lua_isnoneornil(L, 5))
    return gqL_error(L,
                     "gq.sdeint: (sde, z0, t, options) expected, got %s behind them: options are one table",
                     gqL_typename(L, 5));
  lua_settop(L, 4);
  if (!gqL_tensoramong(L, 3) && !needs_more(L)) return solve_sde(L);
  return gqL_callcore(L, "sdeint", LUA_MULTRET);
}

static const gqL_function functions[] = {
  { "sdeint", sdeint, false,
    "sdeint(sde, z0, t, {dt, method = \"heun\", calculus, brownian | seed, gradient = \"auto\"}): the states "
    "at the times t, and info; fixed steps. method: euler for Ito SDEs by default, heun for others. "
    "calculus: \"ito\" or \"stratonovich\", in which it is solved; an SDE of the other one is converted, "
    "with the correction from its graph. seed: a path of this solve; give a brownian to take the same path "
    "with another dt. z0 may be a list of tensors; t may decrease (Stratonovich). logqp = true: with "
    "gq.sde{prior_drift = h} the path KL, info.logqp {#t - 1, batch}. adaptive = true (rtol, atol 1e-3, "
    "first step dt): steps by an estimate of the error; ?sdes lists which methods adapt for which noise. "
    "batch = \"independent\": each row with steps of its own. method = \"theta\" is for stiff drifts, of "
    "which it takes the part theta (1: backward Euler; 0.5) at the end of a step. gradient: auto, direct, "
    "aca, reversible (reversible_heun), adjoint or none. max_steps: 1000000" },
  { NULL, NULL, false, NULL },
};

void gqL_open_sde(lua_State *L) {
  static const luaL_Reg core[] = { { "solve_sde", solve_sde }, { NULL, NULL } };
  gqL_core(L, core);
  gqL_register(L, functions);
}
