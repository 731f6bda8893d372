/*
** l_ode.c -- gq.odeint: options, tracing, the solve, its place on the tape, info.
*/
#include "bind.h"

#include <math.h>
#include <string.h>

/* ---- a solve on the tape ---- */

typedef struct solve { /* the custom operation; owns the solution */
  gq_custom base;
  gq_solution *sol;
  gq_dtype t_dtype;
  bool t_input;
  int nin;
  gq_tensor **in;     /* z0, t if t_input, captures: references, for create_graph */
  uint64_t *version;  /* of their storages when the solve was made */
  struct solve *next; /* list of those whose info changed */
  bool dirty;
} solve;

static solve *dirty_list;

static void mark_dirty(solve *s) {
  if (s->dirty) return;
  s->dirty = true;
  s->next = dirty_list;
  dirty_list = s;
}

static void solve_free(gq_custom *c) {
  solve *s = (solve *)c;
  for (solve **p = &dirty_list; *p; p = &(*p)->next)
    if (*p == s) {
      *p = s->next;
      break;
    }
  gq_solution_free(s->sol);
  for (int i = 0; i < s->nin; i++) gq_tensor_unref(s->in[i]);
  gq_free(s->in);
  gq_free(s->version);
  gq_free(s);
}

/* The backward pass reads the captures (create_graph the state and the times too): not if they were written since. */
static int check_unchanged(const solve *s, bool create_graph) {
  for (int i = create_graph ? 0 : 1 + s->t_input; i < s->nin; i++)
    if (s->in[i]->storage->version != s->version[i])
      return gq_fail(
        GQ_ESTATE,
        "a tensor that the solve of gq.odeint used was modified in place before its backward pass; "
        "write to a copy (x:clone()), or after the backward pass");
  return GQ_OK;
}

static int cast_times(gq_tensor *gt, gq_dtype d, gq_tensor **out) {
  if (gt->dtype == d) {
    *out = gt;
    return GQ_OK;
  }
  int status = gq_tensor_empty(d, gt->shape, out);
  if (status == GQ_OK) status = gq_tensor_copy(*out, gt);
  gq_tensor_unref(gt);
  return status;
}

/* Inputs on the tape: z0, t where it is a tensor that wants a gradient, captures. */
static int solve_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  solve *s = (solve *)c;
  gq_tensor *gt = NULL;
  GQ_TRY(check_unchanged(s, create_graph));
  if (create_graph)
    return gq_odeint_replay(s->sol, s->in[0], s->t_input ? s->in[1] : NULL, s->in + 1 + s->t_input, cots[0],
                            &grads[0], s->t_input ? &grads[1] : NULL, grads + 1 + s->t_input);
  GQ_TRY(gq_odeint_backward(s->sol, cots[0], &grads[0], &gt, grads + 1 + s->t_input));
  mark_dirty(s);
  if (!s->t_input) {
    gq_tensor_unref(gt);
    return GQ_OK;
  }
  return cast_times(gt, s->t_dtype, &grads[1]);
}

/* ---- info ---- */

static void set_integer(lua_State *L, const char *key, int64_t v) {
  lua_pushinteger(L, v);
  lua_setfield(L, -2, key);
}

static void set_number(lua_State *L, const char *key, double v) {
  lua_pushnumber(L, v);
  lua_setfield(L, -2, key);
}

static void fill_forward(lua_State *L, const gq_info *i, const char *engine) {
  lua_pushstring(L, gq_status_name(i->status));
  lua_setfield(L, -2, "status");
  lua_pushstring(L, engine);
  lua_setfield(L, -2, "engine");
  set_integer(L, "nfe", i->nfe);
  set_integer(L, "steps", i->steps);
  set_integer(L, "rejected", i->rejected);
  set_integer(L, "peak_bytes", (int64_t)i->peak_bytes);
  set_number(L, "t", i->t_reached);
}

static void fill_backward(lua_State *L, const gq_info *i, bool check) {
  set_integer(L, "nfe_backward", i->nfe_backward);
  set_integer(L, "steps_backward", i->steps_backward);
  set_integer(L, "rejected_backward", i->rejected_backward);
  set_integer(L, "restarts", i->restarts);
  set_integer(L, "nodes", i->nodes);
  set_integer(L, "nodes_wanted", i->nodes_wanted);
  set_integer(L, "peak_bytes", (int64_t)i->peak_bytes);
  set_number(L, "reconstruction", i->reconstruction);
  if (check) set_number(L, "audit", i->audit);
}

/* Warn once a process and kind: a training loop would repeat it at every step. */
static void warn_once(lua_State *L, bool *done, const char *text) {
  lua_pushstring(L, text);
  lua_setfield(L, -2, "warning");
  if (*done) return;
  *done = true;
  lua_warning(L, text, 0);
}

static void warn(lua_State *L, const gq_info *i, double rtol) {
  static bool capped, unstable;
  char text[256];
  double limit = rtol > 0 ? fmax(100, 0.01 / rtol) : 100;
  if (i->capped) {
    snprintf(text, sizeof text,
             "gq.odeint: %lld quadrature nodes were wanted, %lld used (max_nodes): the gradient may be "
             "inaccurate; raise gq.max_nodes or use gq = {nodes = \"step\"}",
             (long long)i->nodes_wanted, (long long)i->nodes);
    warn_once(L, &capped, text);
  }
  if (i->reconstruction > limit || isnan(i->reconstruction)) {
    snprintf(text, sizeof text,
             "gq.odeint: the state solved backwards misses the stored one by %.3g tolerances: the "
             "gradient may be wrong; use adjoint = {trajectory = \"dense\"} or gradient = \"direct\"",
             i->reconstruction);
    warn_once(L, &unstable, text);
  }
}

#define INFOS "gq.infos" /* registry: weak table, custom operation -> info */

static void push_infos(lua_State *L) {
  if (lua_getfield(L, LUA_REGISTRYINDEX, INFOS) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, INFOS);
}

void gqL_fill_infos(lua_State *L) {
  if (!dirty_list) return;
  luaL_checkstack(L, 8, NULL);
  push_infos(L);
  while (dirty_list) {
    solve *s = dirty_list;
    dirty_list = s->next;
    s->dirty = false;
    if (lua_rawgetp(L, -1, s) == LUA_TTABLE) {
      const gq_info *i = gq_solution_info(s->sol);
      const gq_ode_options *o = gq_solution_options(s->sol);
      fill_backward(L, i, o->engine == GQ_ENGINE_CHECK);
      warn(L, i, o->rtol);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* ---- options ---- */

static const char *const known[] = { "method",     "rtol",      "atol",   "step_size",
                                     "first_step", "max_steps", "norm",   "controller",
                                     "gradient",   "adjoint",   "gq",     "parity",
                                     "overshoot",  "throw",     "params", NULL };
static const char *const known_adjoint[] = { "method", "rtol",       "atol",     "step_size", "max_steps",
                                             "norm",   "trajectory", "impulses", "scale",     NULL };
static const char *const known_gq[] = { "C", "max_nodes", "nodes", "quadrature", NULL };
static const char *const known_controller[] = { "safety", "ifactor", "dfactor", "pcoeff",
                                                "icoeff", "dcoeff",  NULL };

/* One of a list of names, or an error that lists them. */
static int choose(lua_State *L, const char *given, const char *const *names, const char *key) {
  for (int i = 0; names[i]; i++)
    if (!strcmp(names[i], given)) return i;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 0; names[i]; i++) {
    luaL_addstring(&b, i ? ", " : "");
    luaL_addstring(&b, names[i]);
  }
  luaL_pushresult(&b);
  const char *near = gqL_nearest(given, names);
  if (near)
    return luaL_error(L, "gq.odeint: %s = \"%s\" is not known; did you mean \"%s\"? There are: %s", key,
                      given, near, lua_tostring(L, -1));
  return luaL_error(L, "gq.odeint: %s = \"%s\" is not known; there are: %s", key, given, lua_tostring(L, -1));
}

static const gq_tableau *choose_method(lua_State *L, int arg, const char *key, const gq_tableau *def) {
  const char *names[64] = { NULL }, *name = gqL_optstring(L, arg, "method", NULL);
  if (!name) return def;
  for (int i = 0; i < gq_ntableaux && i < 63; i++) names[i] = gq_tableau_get(i)->name;
  return gq_tableau_get(choose(L, name, names, key));
}

static bool choose_norm(lua_State *L, int arg, const char *key, bool def) {
  static const char *const names[] = { "rms", "max", NULL };
  const char *name = gqL_optstring(L, arg, "norm", NULL);
  return name ? choose(L, name, names, key) == 1 : def;
}

/* Push the sub-table `key` of the options (nil if absent), checked against its keys. */
static int subtable(lua_State *L, int arg, const char *key, const char *const *keys, const char *what) {
  if (lua_istable(L, arg)) lua_getfield(L, arg, key);
  else lua_pushnil(L);
  int i = lua_gettop(L);
  if (!lua_isnil(L, i)) {
    if (!lua_istable(L, i)) luaL_error(L, "gq.odeint: %s must be a table, not %s", key, gqL_typename(L, i));
    gqL_checkoptions(L, i, keys, what);
  }
  return i;
}

static double positive(lua_State *L, int arg, const char *key, double def) {
  double v = gqL_optnumber(L, arg, key, def);
  bool given = lua_istable(L, arg) && lua_getfield(L, arg, key) != LUA_TNIL;
  if (lua_istable(L, arg)) lua_pop(L, 1);
  if (!given) return v;
  if (!(v > 0) || isinf(v)) luaL_error(L, "gq.odeint: %s = %f must be positive and finite", key, v);
  return v;
}

static void controller_options(lua_State *L, int arg, gq_controller *c) {
  int t = subtable(L, arg, "controller", known_controller, "gq.odeint's controller");
  c->safety = positive(L, t, "safety", c->safety);
  c->ifactor = positive(L, t, "ifactor", c->ifactor);
  c->dfactor = positive(L, t, "dfactor", c->dfactor);
  c->pcoeff = gqL_optnumber(L, t, "pcoeff", c->pcoeff);
  c->icoeff = gqL_optnumber(L, t, "icoeff", c->icoeff);
  c->dcoeff = gqL_optnumber(L, t, "dcoeff", c->dcoeff);
  if (!(c->safety <= 1) || !(c->ifactor >= 1) || !(c->dfactor <= 1))
    luaL_error(L, "gq.odeint: controller needs safety <= 1, ifactor >= 1 and dfactor <= 1; got %f, %f, %f",
               c->safety, c->ifactor, c->dfactor);
  if (!isfinite(c->pcoeff) || !isfinite(c->icoeff) || !isfinite(c->dcoeff) ||
      !(c->pcoeff + c->icoeff + c->dcoeff > 0))
    luaL_error(L, "gq.odeint: controller coefficients must be finite and have a positive sum");
  lua_pop(L, 1);
}

static void adjoint_options(lua_State *L, int arg, gq_ode_options *o) {
  static const char *const trajectories[] = { "reverse", "dense", NULL }, *const impulses[] = { "restart",
                                                                                                "moments",
                                                                                                NULL };
  int t = subtable(L, arg, "adjoint", known_adjoint, "gq.odeint's adjoint");
  o->back_method = choose_method(L, t, "adjoint.method", o->method);
  o->back_rtol = gqL_optnumber(L, t, "rtol", o->rtol);
  o->back_atol = gqL_optnumber(L, t, "atol", o->atol);
  o->back_step_size = positive(L, t, "step_size", o->step_size);
  o->back_max_steps = gqL_optint(L, t, "max_steps", o->max_steps, 1, INT64_MAX);
  o->back_max_norm = choose_norm(L, t, "adjoint.norm", o->max_norm);
  o->trajectory = choose(L, gqL_optstring(L, t, "trajectory", "reverse"), trajectories, "adjoint.trajectory");
  o->moments = choose(L, gqL_optstring(L, t, "impulses", "restart"), impulses, "adjoint.impulses") == 1;
  o->scale = gqL_optbool(L, t, "scale", !o->parity);
  lua_pop(L, 1);
}

static void gq_options(lua_State *L, int arg, gq_ode_options *o) {
  static const char *const rules[] = { "gauss-legendre", NULL }, *const nodes[] = { "nfe", "step", NULL };
  int t = subtable(L, arg, "gq", known_gq, "gq.odeint's gq");
  o->C = positive(L, t, "C", o->C);
  o->max_nodes = (int)gqL_optint(L, t, "max_nodes", o->max_nodes, 1, 1 << 20);
  choose(L, gqL_optstring(L, t, "quadrature", "gauss-legendre"), rules, "gq.quadrature");
  if (lua_istable(L, t) && lua_getfield(L, t, "nodes") == LUA_TNUMBER) {
    lua_pop(L, 1);
    o->nodes = GQ_NODES_FIXED;
    o->fixed_nodes = (int)gqL_optint(L, t, "nodes", 1, 1, 1 << 20);
  } else {
    if (lua_istable(L, t)) lua_pop(L, 1);
    o->nodes =
      choose(L, gqL_optstring(L, t, "nodes", "nfe"), nodes, "gq.nodes") == 1 ? GQ_NODES_STEP : GQ_NODES_NFE;
  }
  lua_pop(L, 1);
}

/* opts.params is a list of tensors. */
static void check_params(lua_State *L, int arg) {
  if (!lua_istable(L, arg)) return;
  if (lua_getfield(L, arg, "params") != LUA_TNIL) {
    if (!lua_istable(L, -1))
      luaL_error(L, "gq.odeint: params must be a list of tensors, not %s", gqL_typename(L, -1));
    for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
      if (!gqL_totensor(L, -1))
        luaL_error(L, "gq.odeint: params[%d] must be a tensor, not %s", (int)i, gqL_typename(L, -1));
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

static void options(lua_State *L, int arg, gq_dtype d, gq_ode_options *o) {
  const char *names[GQ_NENGINE + 1] = { NULL };
  gq_ode_defaults(o, d);
  if (lua_isnoneornil(L, arg)) return;
  luaL_checktype(L, arg, LUA_TTABLE);
  gqL_checkoptions(L, arg, known, "gq.odeint");
  o->method = choose_method(L, arg, "method", o->method);
  o->rtol = gqL_optnumber(L, arg, "rtol", o->rtol);
  o->atol = gqL_optnumber(L, arg, "atol", o->atol);
  o->step_size = positive(L, arg, "step_size", 0);
  o->first_step = positive(L, arg, "first_step", 0);
  o->max_steps = gqL_optint(L, arg, "max_steps", o->max_steps, 1, INT64_MAX);
  o->max_norm = choose_norm(L, arg, "norm", false);
  o->parity = gqL_optbool(L, arg, "parity", false);
  o->overshoot = gqL_optbool(L, arg, "overshoot", o->parity);
  for (int i = 0; i < GQ_NENGINE; i++) names[i] = gq_engine_names[i];
  o->engine = choose(L, gqL_optstring(L, arg, "gradient", "gq"), names, "gradient");
  controller_options(L, arg, &o->controller);
  adjoint_options(L, arg, o);
  gq_options(L, arg, o);
  check_params(L, arg);
}

/* ---- the call ---- */

#define BOX "gq.odeint box"

typedef struct box { /* what the call holds while Lua may raise */
  double *t;
  bool *want;
  gq_tensor **in; /* z0, t, captures: lent */
  gq_solution *sol;
  gq_tensor *z;
} box;

static int box_gc(lua_State *L) {
  box *b = luaL_checkudata(L, 1, BOX);
  gq_solution_free(b->sol);
  gq_tensor_unref(b->z);
  gq_free(b->t);
  gq_free(b->want);
  gq_free(b->in);
  memset(b, 0, sizeof *b);
  return 0;
}

static box *push_box(lua_State *L) {
  box *b = lua_newuserdatauv(L, sizeof *b, 0);
  memset(b, 0, sizeof *b);
  if (luaL_newmetatable(L, BOX)) {
    lua_pushcfunction(L, box_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
  }
  lua_setmetatable(L, -2);
  return b;
}

/* Times from a table of numbers or a tensor of one dimension. */
static int read_times(lua_State *L, int arg, box *b, gq_tensor **tensor) {
  gq_tensor *t = gqL_totensor(L, arg);
  *tensor = t;
  if (!t && !lua_istable(L, arg))
    return luaL_argerror(
      L, arg,
      lua_pushfstring(L, "times must be a tensor or a table of numbers, not %s", gqL_typename(L, arg)));
  if (t && t->shape.ndim != 1) return luaL_argerror(L, arg, "times must have one dimension");
  if (t && t->trace)
    return luaL_argerror(L, arg, "times are a traced value; they must be known when the solve starts");
  if (t && t->dtype == GQ_BOOL) return luaL_argerror(L, arg, "times must be numbers, not bool");
  int64_t n = t ? t->shape.dim[0] : (int64_t)lua_rawlen(L, arg);
  if (n < 1 || n > 1 << 26) return luaL_argerror(L, arg, "give at least one time (and at most 2^26)");
  b->t = gq_alloc(n * sizeof *b->t);
  if (!b->t) gqL_try(L, gq_nomem(n * sizeof *b->t));
  for (int64_t i = 0; i < n; i++) {
    if (t) {
      b->t[i] = gq_tensor_get(t, &i);
    } else {
      if (lua_rawgeti(L, arg, i + 1) != LUA_TNUMBER)
        return luaL_argerror(
          L, arg, lua_pushfstring(L, "t[%d] is %s, not a number", (int)i + 1, gqL_typename(L, -1)));
      b->t[i] = lua_tonumber(L, -1);
      lua_pop(L, 1);
    }
  }
  return (int)n;
}

/* Is capture c among the tensors of opts.params? Without params: every one. */
static bool in_params(lua_State *L, int arg, const gq_tensor *c) {
  if (!lua_istable(L, arg)) return true;
  bool found = lua_getfield(L, arg, "params") == LUA_TNIL;
  for (lua_Integer i = 1; !found && lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
    found = gqL_totensor(L, -1) == c;
    lua_pop(L, 1);
    if (found) break;
  }
  return found;
}

static void record(lua_State *L, box *b, gq_tensor *t, int ncapture, int info) {
  bool t_input = t && t->requires_grad;
  solve *s = gq_calloc(1, sizeof *s);
  if (!s) gqL_try(L, gq_nomem(sizeof *s));
  *s = (solve){ .base = { "odeint", solve_backward, solve_free }, .t_input = t_input };
  s->in = gq_calloc(ncapture + 2, sizeof *s->in);
  s->version = gq_calloc(ncapture + 2, sizeof *s->version);
  if (!s->in || !s->version) {
    gq_free(s->in);
    gq_free(s->version);
    gq_free(s);
    gqL_try(L, gq_nomem(ncapture * sizeof *s->in));
  }
  if (t_input) s->t_dtype = t->dtype;
  s->sol = b->sol, b->sol = NULL;
  s->in[s->nin++] = gq_tensor_ref(b->in[0]);
  if (t_input) s->in[s->nin++] = gq_tensor_ref(t);
  for (int i = 0; i < ncapture; i++) s->in[s->nin++] = gq_tensor_ref(b->in[2 + i]);
  for (int i = 0; i < s->nin; i++) s->version[i] = s->in[i]->storage->version;
  gqL_try(L, gq_record_custom(&s->base, s->nin, s->in, 1, &b->z));
  push_infos(L);
  lua_pushvalue(L, info);
  lua_rawsetp(L, -2, s);
  lua_pop(L, 1);
}

/* The dynamics give dz/dt of z's own shape and dtype: nothing is broadcast. */
static void check_field(lua_State *L, const gq_graph *f, const gq_tensor *z0) {
  const gq_node *n = gq_graph_node(f, gq_graph_output(f, 0));
  char given[128], want[128];
  if (n->dtype == z0->dtype && gq_shape_equal(n->shape, z0->shape)) return;
  luaL_error(L,
             "the dynamics function of gq.odeint returned %s of shape %s; expected dz/dt of z0's dtype and "
             "shape, %s %s",
             gq_dtype_name(n->dtype), gq_shape_text(n->shape, given, sizeof given), gq_dtype_name(z0->dtype),
             gq_shape_text(z0->shape, want, sizeof want));
}

static int odeint(lua_State *L) {
  gq_ode_options o;
  gq_info info;
  gq_tensor *t;
  lua_settop(L, 4);
  gq_tensor *z0 = gqL_checktensor(L, 2);
  if (gq_trace_current() || z0->trace)
    return luaL_error(L,
                      "gq.odeint inside a traced function: a dynamics function cannot solve; give the inner "
                      "solve's result as a captured tensor");
  if (!gq_is_float(z0->dtype))
    return luaL_argerror(
      L, 2, lua_pushfstring(L, "the state is %s; it must be float32 or float64", gq_dtype_name(z0->dtype)));
  options(L, 4, z0->dtype, &o);
  bool throw = lua_istable(L, 4) ? gqL_optbool(L, 4, "throw", true) : true;
  box *b = push_box(L);
  int nt = read_times(L, 3, b, &t);
  gq_dtype dtypes[2] = { z0->dtype, z0->dtype };
  gq_shape shapes[2] = { { .ndim = 0 }, z0->shape };
  gq_trace *tr = gqL_trace(L, 1, 2, dtypes, shapes, 1, "the dynamics function of gq.odeint");
  int n = gq_trace_captures(tr);
  check_field(L, gq_trace_graph(tr), z0);
  b->want = gq_calloc(n + 1, sizeof *b->want);
  b->in = gq_calloc(n + 2, sizeof *b->in);
  if (!b->want || !b->in) gqL_try(L, gq_nomem(n * sizeof *b->in));
  gq_problem p = { .f = gq_trace_graph(tr),
                   .z0 = z0,
                   .ncapture = n,
                   .capture = b->in + 2,
                   .wants_grad = b->want,
                   .z0_grad = z0->requires_grad,
                   .t_grad = t && t->requires_grad,
                   .nt = nt,
                   .t = b->t };
  bool any = p.z0_grad || p.t_grad;
  b->in[0] = z0;
  int top = lua_gettop(L);
  for (int i = 0; i < n; i++) {
    b->in[2 + i] = gq_trace_capture(tr, i);
    b->want[i] = b->in[2 + i]->requires_grad && in_params(L, 4, b->in[2 + i]);
    lua_settop(L, top);
    any |= b->want[i];
  }
  const char *engine = gq_engine_names[o.engine];
  if (!any || !gq_recording()) o.engine = GQ_ENGINE_NONE;
  lua_newtable(L);
  int table = lua_gettop(L);
  gq_tensor **handle = gqL_pushtensor(L);
  int status = gqL_solving(gq_odeint(&p, &o, !throw, &b->z, &info, &b->sol));
  if (status == GQ_ENOMEM) {
    gqL_collect(L);
    status = gqL_solving(gq_odeint(&p, &o, !throw, &b->z, &info, &b->sol));
  }
  if (status != GQ_OK && (throw || !b->z)) return gqL_try(L, status);
  lua_pushvalue(L, table);
  fill_forward(L, &info, engine);
  if (status != GQ_OK) {
    lua_pushstring(L, gq_message());
    lua_setfield(L, -2, "message");
  }
  lua_pop(L, 1);
  if (b->sol) record(L, b, t, n, table);
  *handle = b->z, b->z = NULL;
  gqL_counted(L);
  lua_pushvalue(L, table);
  return 2;
}

/* ---- tables and logs ---- */

static void push_list(lua_State *L, int n, const double *x) {
  lua_createtable(L, n, 0);
  for (int i = 0; x && i < n; i++) {
    lua_pushnumber(L, x[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

static void set_list(lua_State *L, const char *key, int n, const double *x) {
  if (!x) return;
  push_list(L, n, x);
  lua_setfield(L, -2, key);
}

static void set_matrix(lua_State *L, const char *key, int rows, int columns, const double *x) {
  lua_createtable(L, rows, 0);
  for (int i = 0; i < rows; i++) {
    push_list(L, columns, x + (size_t)i * columns);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, key);
}

static int tableaux(lua_State *L) {
  lua_createtable(L, gq_ntableaux, 0);
  for (int i = 0; i < gq_ntableaux; i++) {
    const gq_tableau *m = gq_tableau_get(i);
    lua_createtable(L, 0, 16);
    lua_pushstring(L, m->name), lua_setfield(L, -2, "name");
    lua_pushstring(L, m->source), lua_setfield(L, -2, "source");
    set_integer(L, "stages", m->stages), set_integer(L, "order", m->order);
    set_integer(L, "error_order", m->error_order), set_integer(L, "dense_order", m->dense_order);
    set_integer(L, "slopes", m->slopes), set_integer(L, "end_slope", m->end + 1);
    lua_pushboolean(L, gq_tableau_fsal(m)), lua_setfield(L, -2, "fsal");
    set_list(L, "c", m->stages, m->c), set_list(L, "b", m->stages, m->b);
    set_list(L, "e", m->stages, m->e), set_list(L, "e3", m->stages, m->e3);
    set_matrix(L, "a", m->stages, m->stages, m->a);
    set_matrix(L, "d", m->slopes, m->dense_degree, m->d);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int gauss_legendre(lua_State *L) {
  double x[1024], w[1024];
  int n = (int)gqL_checkint(L, 1, 1, 1024, "number of nodes");
  gqL_try(L, gq_gauss_legendre(n, x, w));
  push_list(L, n, x);
  push_list(L, n, w);
  return 2;
}

static int steplog(lua_State *L) {
  const double(*rows)[4];
  if (!lua_isnoneornil(L, 1)) {
    luaL_checktype(L, 1, LUA_TBOOLEAN);
    if (lua_toboolean(L, 1)) gq_steplog_start();
    else gq_steplog_stop();
    return 0;
  }
  int n = gq_steplog_get(&rows);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    push_list(L, 4, rows[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int plan_cache(lua_State *L) {
  int64_t compiled;
  if (lua_isboolean(L, 1) && !lua_toboolean(L, 1)) gq_program_cache_clear();
  lua_pushinteger(L, gq_program_cache_count(&compiled));
  lua_pushinteger(L, compiled);
  return 2;
}

/* clang-format off */
static const gqL_function functions[] = {
  { "odeint", odeint, false,
    "odeint(f, z0, t, opts) -> z, info: solve dz/dt = f(t, z) from z0 at t[1]; z has shape {#t, z0's}\n"
    "f: a module or function of (t, z) that returns dz/dt of z's shape and dtype; traced at every solve, so it must "
    "not look at values (use gq.where)\n"
    "t: increasing or decreasing, a table or a tensor (which may require gradients)\n"
    "method: \"dopri5\", euler midpoint heun ralston ssp33 rk4 bosh3 fehlberg2 adaptive_heun tsit5 dopri8\n"
    "rtol, atol: 1e-3 in float32, 1e-6 in float64; norm: \"rms\" or \"max\"\n"
    "step_size: a fixed grid (fixed methods without it step from time to time); first_step, max_steps 100000\n"
    "controller: {safety 0.9, ifactor 10, dfactor 0.2, pcoeff 0, icoeff 1, dcoeff 0}\n"
    "gradient: \"gq\", direct aca adjoint seminorm gqc check none; params: a list, differentiate these only\n"
    "gqc: collocation along the kept forward solution, f batched over the nodes of a step, any number of times at no "
    "cost; for fields that treat rows alone, at most 8 numbers a row (or 8 in all)\n"
    "adjoint: {method, rtol, atol, step_size, max_steps, norm: the forward solve's; trajectory \"reverse\" or "
    "\"dense\"; impulses \"restart\" or \"moments\" (many times at the cost of few); scale true}\n"
    "gq: {C 0.1, max_nodes 64, nodes \"nfe\" (Norcliffe & Deisenroth 2023, eq. 9) or \"step\" or n}; of gqc: n nodes in each "
    "forward step (1 to 16), for dopri5 4\n"
    "throw: true; false returns the part reached, and info.status; overshoot, parity: false (parity: step for step "
    "as the paper's PyTorch code)\n"
    "info: status, engine, nfe, steps, rejected, peak_bytes; after backward nfe_backward, steps_backward, restarts, "
    "nodes, nodes_wanted, reconstruction (in tolerances), audit (check: relative change from n to 2n nodes)" },
  { NULL, NULL, false, NULL },
};
/* clang-format on */

/* For tests and the curious, in gq.core:
** gauss_legendre(n) -> nodes, weights on [-1, 1], ascending; tableaux() -> the methods' coefficients;
** steplog(true) records every tried step, steplog() -> rows {t, h, error ratio, accepted}, steplog(false) stops;
** plan_cache() -> compiled solvers alive, compilations so far; plan_cache(false) drops the idle ones first. */
static const luaL_Reg core[] = { { "gauss_legendre", gauss_legendre },
                                 { "tableaux", tableaux },
                                 { "steplog", steplog },
                                 { "plan_cache", plan_cache },
                                 { NULL, NULL } };

void gqL_open_ode(lua_State *L) {
  gqL_register(L, functions);
  lua_getfield(L, -1, "core");
  luaL_setfuncs(L, core, 0);
  lua_pop(L, 1);
}
