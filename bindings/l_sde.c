/*
** l_sde.c -- Brownian paths (gq.brownian), and the core of gq.sdeint and gq.wong_zakai, which
** lua/gq/sde.lua dresses up.
*/
#include "l_ode.h"

#include <math.h>
#include <string.h>

#define BROWNIAN "gq.brownian"
#define MOST_STEPS 1000000 /* of a solve, by itself: more are a dt by mistake rather than a wish */

/* ---- Brownian paths ---- */

typedef struct path {
  gq_brownian *b;
  const gq_device *on; /* where what is asked of it goes */
} path;

static path *push_path(lua_State *L) {
  path *x = lua_newuserdatauv(L, sizeof *x, 0);
  *x = (path){ NULL, gqL_default_device(L) };
  luaL_setmetatable(L, BROWNIAN);
  return x;
}

static const path *check_open(lua_State *L, int arg) {
  const path *x = luaL_checkudata(L, arg, BROWNIAN);
  if (!x->b) gqL_error(L, "brownian: the path was closed");
  return x;
}

static gq_brownian *check_path(lua_State *L, int arg) { return check_open(L, arg)->b; }

static uint64_t opt_seed(lua_State *L, int arg) {
  lua_getfield(L, arg, "seed");
  bool given = !lua_isnil(L, -1);
  lua_pop(L, 1);
  return given ? (uint64_t)gqL_optint(L, arg, "seed", 0, INT64_MIN, INT64_MAX) : gqL_nextseed(L);
}

/* The value of a required key, left on the stack. */
static int need(lua_State *L, int arg, const char *key, const char *what) {
  if (lua_getfield(L, arg, key) == LUA_TNIL) gqL_error(L, "%s: option %s is missing", what, key);
  return lua_gettop(L);
}

static double need_number(lua_State *L, int arg, const char *key, const char *what) {
  need(L, arg, key, what);
  lua_pop(L, 1);
  return gqL_optnumber(L, arg, key, 0);
}

/* What the table's W, H or K says of the whole path. */
static void pin(lua_State *L, gq_brownian *b, int m, const char *key) {
  char got[128], want[128];
  if (lua_getfield(L, 1, key) == LUA_TNIL) return lua_pop(L, 1);
  const gq_tensor *x = gqL_totensor(L, lua_gettop(L));
  gq_shape shape = gq_brownian_shape(b);
  if (!x || !gq_shape_equal(x->shape, shape))
    gqL_error(L, "brownian: option %s: expected a tensor of the path's shape %s, got %s", key,
              gq_shape_text(shape, want, sizeof want),
              x ? gq_shape_text(x->shape, got, sizeof got) : gqL_typename(L, lua_gettop(L)));
  gq_tensor **wide = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_F64, shape, wide));
  gqL_try(L, gq_tensor_copy(*wide, x));
  gqL_try(L, gq_brownian_pin(b, m, gq_tensor_data(*wide)));
  lua_pop(L, 2);
}

static int brownian(lua_State *L) {
  static const char *const known[] = { "t0",  "t1",     "shape", "seed", "levy_area", "dtype",
                                       "tol", "device", "W",     "H",    "K",         NULL };
  if (!lua_istable(L, 1))
    gqL_error(L, "brownian: %s given: expected a table {t0, t1, shape, seed}", gqL_typename(L, 1));
  gqL_checkoptions(L, 1, known, "gq.brownian");
  gq_levy levy =
    (gq_levy)gqL_choose(L, "brownian", "levy_area", gqL_optstring(L, 1, "levy_area", "none"), gq_levy_names);
  double t0 = gqL_optnumber(L, 1, "t0", 0), t1 = need_number(L, 1, "t1", "brownian");
  double tol = gqL_optnumber(L, 1, "tol", 0);
  gq_shape shape = gqL_checkshape(L, need(L, 1, "shape", "brownian"));
  gq_dtype d = gqL_optdtype(L, 1, "dtype");
  uint64_t seed = opt_seed(L, 1);
  const char *device = gqL_optstring(L, 1, "device", NULL);
  path *x = push_path(L);
  if (device) x->on = gqL_device(L, device, "brownian");
  gqL_retry(L, gq_brownian_new(t0, t1, shape, d, seed, tol, levy, &x->b));
  pin(L, x->b, 0, "W"), pin(L, x->b, 1, "H"), pin(L, x->b, 2, "K");
  return 1;
}

/* A new tensor for values of b, pushed; its float64 numbers are to be written. */
static gq_tensor *push_values(lua_State *L, const gq_brownian *b) {
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_F64, gq_brownian_shape(b), h));
  return *h;
}

/* The float64 tensor on top in the path's dtype, where its values go. */
static int push_cast(lua_State *L, const path *x, gq_tensor *w) {
  if (gq_brownian_dtype(x->b) != GQ_F64) {
    gq_tensor **h = gqL_pushtensor(L);
    gqL_retry(L, gq_tensor_empty(gq_brownian_dtype(x->b), w->shape, h));
    gqL_try(L, gq_tensor_copy(*h, w));
  }
  gqL_place(L, x->on);
  gqL_counted(L);
  return 1;
}

static bool is_list(lua_State *L, int arg) {
  const gq_tensor *t = gqL_totensor(L, arg);
  return t ? t->shape.ndim > 0 : lua_istable(L, arg);
}

/* Of lists of times: {times, ...} */
static int path_many(lua_State *L, const path *x) {
  bool both = !lua_isnoneornil(L, 3);
  if (both && !(is_list(L, 2) && is_list(L, 3)))
    gqL_error(L,
              "brownian: one time and a list of times given: expected two lists of as many, or two numbers");
  gqL_box *s = gqL_pushbox(L), *t = gqL_pushbox(L);
  int m = both ? gqL_readtimes(L, 2, "brownian", s) : 0, n = gqL_readtimes(L, both ? 3 : 2, "brownian", t);
  if (both && m != n) gqL_error(L, "brownian: %d times and %d given: expected two lists of as many", m, n);
  gq_shape shape = gq_brownian_shape(x->b);
  if (shape.ndim == GQ_MAXDIM)
    gqL_error(L, "brownian: a path of %d dimensions takes one time at once", GQ_MAXDIM);
  memmove(shape.dim + 1, shape.dim, shape.ndim * sizeof *shape.dim);
  shape.dim[0] = n, shape.ndim++;
  gq_tensor **w = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_F64, shape, w));
  gqL_try(L, gq_brownian_many(x->b, n, s->t, t->t, gq_tensor_data(*w)));
  return push_cast(L, x, *w);
}

/* b(t) is W(t) - W(t0), b(s, t) is W(t) - W(s); of lists of times all of them */
static int path_call(lua_State *L) {
  lua_settop(L, 3);
  const path *x = check_open(L, 1);
  gq_brownian *b = x->b;
  if (is_list(L, 2) || is_list(L, 3)) return path_many(L, x);
  double s = gqL_checknumber(L, 2, "time"), t = lua_isnoneornil(L, 3) ? s : gqL_checknumber(L, 3, "time");
  gq_tensor *w = push_values(L, b);
  if (lua_isnoneornil(L, 3)) gqL_try(L, gq_brownian_value(b, t, gq_tensor_data(w)));
  else gqL_try(L, gq_brownian_increment(b, s, t, gq_tensor_data(w)));
  return push_cast(L, x, w);
}

static void push_shape(lua_State *L, gq_shape s) {
  lua_createtable(L, s.ndim, 0);
  for (int i = 0; i < s.ndim; i++) {
    lua_pushinteger(L, s.dim[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_cast_alone(lua_State *L, const path *x, gq_tensor *w) {
  push_cast(L, x, w);
  if (gq_brownian_dtype(x->b) != GQ_F64) lua_remove(L, -2);
}

/* b:areas(s, t): W, H (and K), or W, H and the approximate Levy areas {.., m, m}, over [s, t] */
static int path_areas(lua_State *L) {
  const path *p = check_open(L, 1);
  gq_brownian *b = p->b;
  double s = gqL_checknumber(L, 2, "time"), t = gqL_checknumber(L, 3, "time");
  int n = gq_brownian_moments(b);
  bool levy = gq_brownian_levy(b) >= GQ_LEVY_DAVIE;
  gq_shape one = gq_brownian_shape(b), all = { .ndim = 1, .dim = { n * gq_numel(one) } };
  gq_tensor **x = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_F64, all, x));
  double *from = gq_tensor_data(*x);
  gqL_try(L, gq_brownian_areas(b, s, t, from));
  for (int i = 0; i < n; i++) {
    gq_tensor *w = push_values(L, b);
    memcpy(gq_tensor_data(w), from + i * gq_numel(one), gq_numel(one) * sizeof(double));
    push_cast_alone(L, p, w);
  }
  if (!levy || one.ndim == 0 || one.ndim >= GQ_MAXDIM) return n;
  one.dim[one.ndim] = one.dim[one.ndim - 1], one.ndim++;
  gq_tensor **area = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_F64, one, area));
  gqL_try(
    L, gq_brownian_levy_areas(b, s, t, from, from + gq_numel(gq_brownian_shape(b)), gq_tensor_data(*area)));
  push_cast_alone(L, p, *area);
  return n + 1;
}

/* b:rows(first, count): the same path of some rows of its first dimension */
static int path_rows(lua_State *L) {
  const path *whole = check_open(L, 1);
  gq_shape shape = gq_brownian_shape(whole->b);
  int64_t most = shape.ndim ? shape.dim[0] : 0;
  int64_t first = gqL_checkint(L, 2, 1, most + 1, "first row"),
          count = lua_isnoneornil(L, 3) ? 1 : gqL_checkint(L, 3, 0, most - first + 1, "number of rows");
  path *x = push_path(L);
  x->on = whole->on;
  gqL_retry(L, gq_brownian_rows(whole->b, first - 1, count, &x->b));
  return 1;
}

static int path_index(lua_State *L) {
  const path *x = check_open(L, 1);
  const gq_brownian *b = x->b;
  const char *key = luaL_checkstring(L, 2);
  if (strcmp(key, "t0") == 0) lua_pushnumber(L, gq_brownian_t0(b));
  else if (strcmp(key, "t1") == 0) lua_pushnumber(L, gq_brownian_t1(b));
  else if (strcmp(key, "tol") == 0) lua_pushnumber(L, gq_brownian_tol(b));
  else if (strcmp(key, "seed") == 0) lua_pushinteger(L, (lua_Integer)gq_brownian_seed(b));
  else if (strcmp(key, "shape") == 0) push_shape(L, gq_brownian_shape(b));
  else if (strcmp(key, "levy_area") == 0) lua_pushstring(L, gq_levy_names[gq_brownian_levy(b)]);
  else if (strcmp(key, "dtype") == 0) lua_pushstring(L, gq_dtype_name(gq_brownian_dtype(b)));
  else if (strcmp(key, "device") == 0) lua_pushstring(L, x->on->name);
  else if (strcmp(key, "areas") == 0) lua_pushcfunction(L, path_areas);
  else if (strcmp(key, "rows") == 0) lua_pushcfunction(L, path_rows);
  else
    return gqL_error(
      L, "brownian: no field '%s': there are t0, t1, shape, seed, dtype, device, tol, levy_area, areas, rows",
      key);
  return 1;
}

static int path_gc(lua_State *L) {
  path *x = luaL_checkudata(L, 1, BROWNIAN);
  gq_brownian_free(x->b);
  x->b = NULL;
  return 0;
}

static int path_tostring(lua_State *L) {
  const gq_brownian *b = ((const path *)luaL_checkudata(L, 1, BROWNIAN))->b;
  char text[128];
  if (!b) return lua_pushliteral(L, "brownian (closed)"), 1;
  lua_pushfstring(L, "brownian on [%f, %f], shape %s, seed %I", gq_brownian_t0(b), gq_brownian_t1(b),
                  gq_shape_text(gq_brownian_shape(b), text, sizeof text), (LUAI_UACINT)gq_brownian_seed(b));
  return 1;
}

/* ---- solving ---- */

/* Not reversible_heun, which grows without bound wherever the drift contracts. */
static const gq_tableau *choose_method(lua_State *L, int arg, const char *key, const char *def) {
  const char *names[32] = { NULL }, *given = gqL_optstring(L, arg, "method", def);
  for (int i = 0; i < gq_nschemes && i < 31; i++) names[i] = gq_scheme_get(i)->name;
  return gq_scheme_get(gqL_choose(L, "sdeint", key, given, names));
}

static const gq_engine *choose_engine(lua_State *L, int arg) {
  const char *names[16] = { NULL };
  for (int i = 0; i < gq_nnoise_engines && i < 15; i++) names[i] = gq_noise_engines[i].name;
  return &gq_noise_engines[gqL_choose(L, "sdeint", "gradient", gqL_optstring(L, arg, "gradient", names[0]),
                                      names)];
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
    if (!luaL_testudata(L, -1, BROWNIAN))
      gqL_error(L, "sdeint: brownian is %s: expected a path of gq.brownian", gqL_typename(L, lua_gettop(L)));
    return check_path(L, lua_gettop(L));
  }
  gqL_try(L, gq_times_check(p->nt, p->t));
  double t0 = fmin(p->t[0], p->t[p->nt - 1]), t1 = fmax(p->t[0], p->t[p->nt - 1]);
  gq_shape form, shape;
  gqL_try(L, gq_diffusion_check(p->f, p->noise, &form, &shape));
  uint64_t seed = opt_seed(L, arg);
  gq_levy levy = levy_of(o->method, p->noise);
  if (!(t1 > t0)) t1 = t0 + 1; /* no step will be taken */
  path *x = push_path(L);
  double leaf = !fixed ? dt / 4096 : levy ? dt / 16 : gq_noise_leaf(p, dt);
  gqL_retry(L, gq_brownian_new(t0, t1, shape, p->z0->dtype, seed, dt > 0 ? leaf : 0, levy, &x->b));
  return x->b;
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
    gqL_error(L, "sdeint: %s given: expected an SDE made by gq.sde{drift, diffusion}", gqL_typename(L, arg));
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
  double x = gqL_optnumber(L, arg, key, def);
  if (!(x > 0) || !isfinite(x))
    gqL_error(L, "sdeint: %s is %f: expected a positive number", key, (LUAI_UACNUMBER)x);
  return x;
}

/* Fixed steps of dt, or adaptive ones that begin with it. */
static void steps(lua_State *L, int arg, const gq_problem *p, gq_ode_options *o) {
  double span = fabs(p->t[p->nt - 1] - p->t[0]), most = gqL_optnumber(L, arg, "max_step", 0);
  bool limited = most != 0 && most != HUGE_VAL;
  if (!gqL_optbool(L, arg, "adaptive", false)) {
    if (limited) gqL_error(L, "sdeint: max_step is for adaptive = true; steps are dt long without it");
    need_number(L, arg, "dt", "sdeint");
    o->step_size = positive(L, arg, "dt", 0);
    return;
  }
  o->rtol = positive(L, arg, "rtol", 1e-3), o->atol = positive(L, arg, "atol", 1e-3);
  o->first_step = positive(L, arg, "dt", span > 0 ? span / 100 : 1);
  if (limited) o->max_step = positive(L, arg, "max_step", 1);
}

static void theta_option(lua_State *L, int arg, gq_ode_options *o) {
  bool given = lua_getfield(L, arg, "theta") != LUA_TNIL;
  lua_pop(L, 1);
  if (!given) return;
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
  static const char *const batches[] = { "joint", "independent", NULL };
  o.independent = gqL_choose(L, "sdeint", "batch", gqL_optstring(L, 4, "batch", "joint"), batches) == 1;
  o.engine = choose_engine(L, 4);
  o.calculus = (gq_calculus)gqL_choose(L, "sdeint", "calculus",
                                       gqL_optstring(L, 4, "calculus", gq_calculus_names[p.calculus]),
                                       gq_calculus_names);
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
  lua_pushstring(L, o.method->name);
  lua_setfield(L, -2, "method");
  return 2;
}

static bool given(lua_State *L, int arg, const char *key) {
  if (!lua_istable(L, arg)) return false;
  bool there = lua_getfield(L, arg, key) != LUA_TNIL && lua_toboolean(L, -1);
  lua_pop(L, 1);
  return there;
}

static bool is_commutative(lua_State *L) {
  bool yes = lua_istable(L, 1) && lua_getfield(L, 1, "noise") == LUA_TSTRING &&
             !strcmp(lua_tostring(L, -1), "commutative");
  lua_settop(L, 4);
  return yes;
}

/* gq.sdeint(sde, z0, t, opts); upvalue: gq.core. What one call of the solver does not know is lua/gq/sdeint.lua's. */
static int sdeint(lua_State *L) {
  if (!lua_isnoneornil(L, 5))
    return gqL_error(L,
                     "gq.sdeint: (sde, z0, t, options) expected, got %s behind them: options are one table",
                     gqL_typename(L, 5));
  lua_settop(L, 4);
  if (!lua_istable(L, 2) && !given(L, 4, "logqp") && !is_commutative(L)) return solve_sde(L);
  lua_getfield(L, lua_upvalueindex(1), "sdeint");
  lua_insert(L, 1);
  lua_call(L, 4, LUA_MULTRET);
  return lua_gettop(L);
}

/* core.seed(seed or nil): itself, or the next one of gq.manual_seed's generator */
static int core_seed(lua_State *L) {
  if (lua_isnoneornil(L, 1)) lua_pushinteger(L, (lua_Integer)gqL_nextseed(L));
  else lua_pushinteger(L, gqL_checkint(L, 1, INT64_MIN, INT64_MAX, "seed"));
  return 1;
}

/* core.cosines(seed, cosines, shape, dtype): the coefficients xi of eq. (15) */
static int cosines(lua_State *L) {
  gq_dtype d = gqL_checkdtype(L, 4);
  int64_t n = gqL_checkint(L, 2, 0, 1 << 20, "cosines");
  gq_shape row = gqL_checkshape(L, 3), s = { .ndim = row.ndim + 1, .dim = { n } };
  if (row.ndim >= GQ_MAXDIM) gqL_error(L, "cosines: the state has too many dimensions");
  memcpy(s.dim + 1, row.dim, (size_t)row.ndim * sizeof *row.dim);
  uint64_t key = (uint64_t)gqL_checkint(L, 1, INT64_MIN, INT64_MAX, "seed");
  gq_tensor **xi = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_F64, s, xi));
  gq_cosines(key, (int)n, (size_t)gq_numel(row), gq_tensor_data(*xi));
  if (d != GQ_F64) {
    gq_tensor **cast = gqL_pushtensor(L);
    gqL_retry(L, gq_tensor_empty(d, s, cast));
    gqL_try(L, gq_tensor_copy(*cast, *xi));
  }
  gqL_counted(L);
  return 1;
}

static const luaL_Reg meta[] = {
  { "__gc", path_gc },       { "__close", path_gc },          { "__call", path_call },
  { "__index", path_index }, { "__tostring", path_tostring }, { NULL, NULL },
};

static const gqL_function functions[] = {
  { "brownian", brownian, false,
    "brownian{t0 = 0, t1, shape, seed, tol, levy_area, dtype, device, W, H, K}: a Brownian path; b(t) is "
    "W(t) - W(t0), b(s, t) is W(t) - W(s); of lists of times, or tensors, all of them at once, {times, ...}; "
    "b:rows(i, n) is the path of rows i to i + n - 1 alone. One seed is one path, whatever is asked first. "
    "levy_area: \"none\", \"space-time\" (b:areas(s, t) gives W and H), \"space-time-time\" (and K), "
    "\"davie\" or \"foster\" (W, H and approximate Levy areas of that interval). W = x, H = y, K = z: "
    "tensors of its shape that those over [t0, t1] are, the rest drawn" },
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
  if (luaL_newmetatable(L, BROWNIAN)) luaL_setfuncs(L, meta, 0);
  lua_pop(L, 1);
  lua_pushcfunction(L, brownian);
  gqL_setfunction(L, functions[0].name, false, functions[0].doc);
  lua_getfield(L, -1, "core");
  lua_pushcclosure(L, sdeint, 1); /* upvalue: core */
  gqL_setfunction(L, functions[1].name, false, functions[1].doc);
  lua_getfield(L, -1, "core");
  lua_pushcfunction(L, cosines);
  lua_setfield(L, -2, "cosines");
  lua_pushcfunction(L, solve_sde);
  lua_setfield(L, -2, "solve_sde");
  lua_pushcfunction(L, core_seed);
  lua_setfield(L, -2, "seed");
  lua_pop(L, 1);
}
