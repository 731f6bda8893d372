/*
** l_ode.c -- gq.odeint: tracing, the solve, its place on the tape, info. Its options: l_odeopts.c.
*/
#include "l_ode.h"

#include <limits.h>
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
  gqL_call *call;     /* trace = false, or NULL */
  int64_t calls;      /* its evaluations in the last backward pass */
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
  gqL_call_unref(s->call);
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

/* Cotangents of the heuristics, which follow z among the outputs; false: all are zero. */
static bool read_sums(const gq_ode_options *o, gq_tensor *const *cots, double sums[2]) {
  const int64_t at = 0; /* of a tensor without dimensions */
  gq_tensor *error = o->error ? cots[1] : NULL, *stiffness = o->stiffness ? cots[1 + o->error] : NULL;
  sums[0] = error ? gq_tensor_get(error, &at) : 0;
  sums[1] = stiffness ? gq_tensor_get(stiffness, &at) : 0;
  return error || stiffness;
}

/* Inputs on the tape: z0, t where it is a tensor that wants a gradient, captures. */
static int solve_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  solve *s = (solve *)c;
  gq_tensor *gt = NULL;
  GQ_TRY(check_unchanged(s, create_graph));
  double sums[2];
  if (read_sums(gq_solution_options(s->sol), cots, sums) && create_graph)
    return gq_fail(
      GQ_EUNSUPPORTED,
      "info.regularisers.error and .stiffness have first derivatives alone, and create_graph asks for "
      "more: leave them out of that loss");
  if (create_graph)
    return gq_odeint_replay(s->sol, s->in[0], s->t_input ? s->in[1] : NULL, s->in + 1 + s->t_input, cots[0],
                            &grads[0], s->t_input ? &grads[1] : NULL, grads + 1 + s->t_input);
  int64_t calls = s->call ? gqL_call_count(s->call) : 0;
  if (s->call) gqL_call_keep(s->call, true);
  int status = gq_odeint_backward_sums(s->sol, cots[0], sums, &grads[0], &gt, grads + 1 + s->t_input);
  if (s->call) gqL_call_keep(s->call, false);
  if (status != GQ_OK) return status;
  if (s->call) s->calls = gqL_call_count(s->call) - calls;
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
  lua_pushstring(L, i->engine->keeps != GQ_KEEP_NOTHING ? i->engine->name : engine);
  lua_setfield(L, -2, "engine");
  if (i->reason[0]) lua_pushstring(L, i->reason), lua_setfield(L, -2, "reason");
  set_integer(L, "nfe", i->nfe);
  set_integer(L, "steps", i->steps);
  set_integer(L, "rejected", i->rejected);
  if (i->jacobians) set_integer(L, "jacobians", i->jacobians), set_integer(L, "newton", i->newton);
  set_integer(L, "peak_bytes", (int64_t)i->peak_bytes);
  set_number(L, "t", i->t_reached);
  if (i->event) set_number(L, "event_t", i->event_t);
}

/* Tensors {rows} of what each row took; info.samples. */
static void fill_samples(lua_State *L, gq_samples *s) {
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

static void fill_backward(lua_State *L, const gq_info *i, const gq_ode_options *o) {
  set_integer(L, "nfe_backward", i->nfe_backward);
  set_integer(L, "steps_backward", i->steps_backward);
  set_integer(L, "rejected_backward", i->rejected_backward);
  set_integer(L, "restarts", i->restarts);
  set_integer(L, "nodes", i->nodes);
  set_integer(L, "nodes_wanted", i->nodes_wanted);
  set_integer(L, "peak_bytes", (int64_t)i->peak_bytes);
  set_number(L, "reconstruction", i->reconstruction);
  if (!isnan(i->audit)) set_number(L, "audit", i->audit);
  if (i->nfe_audit > 0) set_integer(L, "nfe_audit", i->nfe_audit);
  if (!isnan(i->spectrum)) set_number(L, "spectrum", i->spectrum);
  if (!isnan(i->quadrature_error)) set_number(L, "quadrature_error", i->quadrature_error);
  if (o->moments) set_integer(L, "panels", i->panels), set_integer(L, "panels_split", i->panels_split);
}

/* Warn once a process and kind: a training loop would repeat it at every step. info.warning has all, a line each. */
static void warn_once(lua_State *L, bool *done, const char *text) {
  if (lua_getfield(L, -1, "warning") == LUA_TSTRING) lua_pushfstring(L, "%s\n%s", lua_tostring(L, -1), text);
  else lua_pushstring(L, text);
  lua_setfield(L, -3, "warning");
  lua_pop(L, 1);
  if (*done) return;
  *done = true;
  lua_warning(L, text, 0);
}

/* How many tolerances the state may be off: relative, 1 % in a tight solve and 10 % in a loose one, 5 % for check.
** The gradient's error is two to six times that of the state for z' = -z and Lotka-Volterra. In training at 1e-3
** (nested spheres) states are up to 6 % off where gq errs little more than direct does, by the tolerance; at 9.7 % it
** was 30 % off where direct was 0.8 %. An interpolant's estimate is no bound: at 2 % the gradient of Lotka-Volterra is
** more than 100 % off. */
static double reconstruction_limit(const gq_ode_options *o) {
  double rtol = o->engine->keeps == GQ_KEEP_END ? o->rtol : o->back_rtol;
  double most = o->trajectory->error ? 0.01 : o->engine->traits & GQ_TWICE ? 0.05 : 0.1;
  return rtol > 0 ? fmin(most, fmax(0.01, 100 * rtol)) / rtol : 100;
}

enum { AUDIT_PERCENT = 5, QUADRATURE_PERCENT = 10 };

/* Quadrature that was seen to be off, by more nodes or by other weights. */
static void warn_quadrature(lua_State *L, const gq_info *i) {
  static bool audited, weighed;
  char text[256];
  if (i->audit > AUDIT_PERCENT / 100.0 || isinf(i->audit)) {
    snprintf(
      text, sizeof text,
      "gq.odeint: twice the quadrature nodes change the gradient by %.3g %%: it may be as wrong as that with "
      "fewer; use gq = {nodes = \"step\"}, or raise gq.C (or nodes) until the change is small",
      100 * i->audit);
    warn_once(L, &audited, text);
  }
  if (i->quadrature_error > QUADRATURE_PERCENT / 100.0) {
    snprintf(
      text, sizeof text,
      "gq.odeint: quadrature nodes in every step and the solver's own weights differ by %.3g %% in the "
      "biases' gradient: it may be as wrong; lower adjoint.rtol and adjoint.atol",
      100 * i->quadrature_error);
    warn_once(L, &weighed, text);
  }
}

static void warn(lua_State *L, const gq_info *i, const gq_ode_options *o) {
  static bool capped, uneven, unstable, coarse;
  bool inverts = o->engine->keeps == GQ_KEEP_END;
  char text[256];
  lua_pushnil(L);
  lua_setfield(L, -2, "warning");
  if (i->capped && o->engine->integral != GQ_INTEGRAL_ADAPTIVE) {
    snprintf(text, sizeof text,
             "gq.odeint: %lld quadrature nodes were wanted, %lld used (max_nodes): the gradient may be "
             "inaccurate; raise gq.max_nodes or use gq = {nodes = \"step\"}",
             (long long)i->nodes_wanted, (long long)i->nodes);
    warn_once(L, &capped, text);
  }
  if (i->capped && o->engine->integral == GQ_INTEGRAL_ADAPTIVE) {
    warn_once(
      L, &uneven,
      "gq.odeint: the adaptive quadrature did not reach its tolerance in some interval: the gradient may be "
      "inaccurate; loosen adjoint.rtol and adjoint.atol, or use gradient = \"direct\"");
  }
  warn_quadrature(L, i);
  bool missed = i->reconstruction > reconstruction_limit(o) || isnan(i->reconstruction);
  if (missed && o->trajectory->error) {
    snprintf(text, sizeof text,
             "gq.odeint: the interpolated state is off by about %.3g tolerances: the gradient may be wrong; "
             "raise adjoint.points or use adjoint = {trajectory = \"dense\"}",
             i->reconstruction);
    warn_once(L, &coarse, text);
  } else if (missed) {
    snprintf(text, sizeof text,
             "gq.odeint: the state %s backwards misses the stored one by %.3g tolerances: the "
             "gradient may be wrong; use %s or gradient = \"direct\"",
             inverts ? "inverted" : "solved", i->reconstruction,
             inverts ? "gradient = \"aca\"" : "adjoint = {trajectory = \"dense\"}");
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
      fill_backward(L, i, o);
      if (s->call) set_integer(L, "nfe_backward", s->calls);
      warn(L, i, o);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* ---- the call ---- */

#define BOX "gq.odeint box"

typedef struct box { /* what the call holds while Lua may raise */
  double *t;
  bool *want;
  gq_tensor **in; /* z0, t, captures: lent */
  gq_solution *sol;
  gq_tensor *z;
  bool *jump; /* [nt] grid points among the times */
  gq_tensor **event_in;
  gq_samples samples;
} box;

static int box_gc(lua_State *L) {
  box *b = luaL_checkudata(L, 1, BOX);
  gq_solution_free(b->sol);
  gq_tensor_unref(b->z);
  gq_free(b->t);
  gq_free(b->want);
  gq_free(b->in);
  gq_free(b->jump);
  gq_free(b->event_in);
  gq_samples_done(&b->samples);
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

/* info.regularisers: those sums over the whole solve that are asked for, tensors without dimensions, and how many. The
** table owns them. */
static int fill_sums(lua_State *L, const gq_ode_options *o, const gq_info *info, gq_dtype d,
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
    gqL_try(L, gq_tensor_new(d, gq_shape_of(0, NULL), handle));
    gq_tensor_set(*handle, NULL, all[i].value);
    sums[n++] = *handle;
    lua_setfield(L, -2, all[i].key);
  }
  lua_setfield(L, -2, "regularisers");
  return n;
}

/* out[0]: where z goes; then n results of the call besides z. */
static void record(lua_State *L, box *b, gq_tensor *t, int ncapture, gqL_call *call_, int info, int n,
                   gq_tensor **out) {
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
  if (call_) s->call = gqL_call_ref(call_);
  s->in[s->nin++] = gq_tensor_ref(b->in[0]);
  if (t_input) s->in[s->nin++] = gq_tensor_ref(t);
  for (int i = 0; i < ncapture; i++) s->in[s->nin++] = gq_tensor_ref(b->in[2 + i]);
  for (int i = 0; i < s->nin; i++) s->version[i] = s->in[i]->storage->version;
  out[0] = b->z;
  gqL_try(L, gq_record_custom(&s->base, s->nin, s->in, 1 + n, out));
  push_infos(L);
  lua_pushvalue(L, info);
  lua_rawsetp(L, -2, s);
  lua_pop(L, 1);
}

/* The dynamics give dz/dt of z's own shape and dtype: nothing is broadcast. */
static void check_field(lua_State *L, const gq_graph *f, const gq_tensor *z0) {
  const gq_node *n = gq_graph_node(f, gq_graph_output(f, 0));
  const char *wrong =
    gqL_wrongslope(L, "the dynamics function of gq.odeint", n->dtype, n->shape, z0->dtype, z0->shape);
  if (wrong) gqL_error(L, "%s", wrong);
}

/* Does the option have a value? */
static bool has(lua_State *L, int arg, const char *key) {
  if (!lua_istable(L, arg)) return false;
  bool there = lua_getfield(L, arg, key) != LUA_TNIL;
  lua_pop(L, 1);
  return there;
}

/* Is there more in opts.regularise than the solver itself sums up, or nothing that makes sense? */
static bool asks_for_integrals(lua_State *L, int arg) {
  if (!has(L, arg, "regularise")) return false;
  int known = 0, top = lua_gettop(L);
  bool more = lua_getfield(L, arg, "regularise") != LUA_TTABLE;
  for (lua_pushnil(L); !more && lua_next(L, -2); lua_pop(L, 1), known++) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    more = strcmp(key, "error") && strcmp(key, "stiffness");
  }
  lua_settop(L, top);
  return more || !known;
}

/* Hand the call to a Lua function of gq.core, in its place. */
static int hand_over(lua_State *L, const char *name) {
  lua_settop(L, 4);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_getfield(L, -1, name);
  lua_replace(L, -2);
  lua_insert(L, 1);
  lua_call(L, 4, LUA_MULTRET);
  return lua_gettop(L);
}

/* Where f may jump: marked among the times. False if one inside of the solve is not among them. */
static bool mark_jumps(lua_State *L, int arg, box *b, int nt) {
  bool found = true;
  lua_getfield(L, arg, "grid_points");
  gq_tensor *x = gqL_totensor(L, -1);
  if (x && x->shape.ndim != 1) gqL_error(L, "gq.odeint: grid_points must have one dimension");
  if (!x && !lua_istable(L, -1))
    gqL_error(L, "gq.odeint: grid_points must be a tensor or a table of numbers, not %s",
              gqL_typename(L, -1));
  b->jump = gq_calloc(nt + 1, sizeof *b->jump);
  if (!b->jump) gqL_try(L, gq_nomem(nt));
  int64_t n = x ? x->shape.dim[0] : (int64_t)lua_rawlen(L, -1);
  double lo = fmin(b->t[0], b->t[nt - 1]), hi = fmax(b->t[0], b->t[nt - 1]);
  for (int64_t i = 0; i < n; i++) {
    bool inside = false;
    if (!x) lua_rawgeti(L, -1, i + 1);
    if (!x && lua_type(L, -1) != LUA_TNUMBER)
      gqL_error(L, "gq.odeint: grid_points[%d] is %s, not a number", (int)i + 1, gqL_typename(L, -1));
    double t = x ? gq_tensor_get(x, &i) : lua_tonumber(L, -1);
    if (!x) lua_pop(L, 1);
    if (!isfinite(t)) gqL_error(L, "gq.odeint: grid_points[%d] = %f must be finite", (int)i + 1, t);
    for (int k = 0; k < nt; k++) b->jump[k] |= b->t[k] == t, inside |= b->t[k] == t;
    found &= inside || t < lo || t > hi;
  }
  lua_pop(L, 1);
  return found;
}

/* Trace the event function: its graph into the problem. The trace stays on the stack. */
static void event_option(lua_State *L, int arg, box *b, const gq_tensor *z0, gq_problem *p) {
  gq_dtype dtypes[2] = { z0->dtype, z0->dtype };
  gq_shape shapes[2] = { { .ndim = 0 }, z0->shape };
  lua_getfield(L, arg, "event");
  gq_trace *tr = gqL_trace(L, -1, 2, dtypes, shapes, 1, "the event function of gq.odeint");
  p->event_ = gq_trace_graph(tr);
  p->nevent = gq_trace_captures(tr);
  b->event_in = gq_calloc(p->nevent + 1, sizeof *b->event_in);
  if (!b->event_in) gqL_try(L, gq_nomem(p->nevent));
  for (int i = 0; i < p->nevent; i++) b->event_in[i] = gq_trace_capture(tr, i);
  p->event_capture = b->event_in;
}

/* ---- the solve ---- */

typedef struct dynamics { /* held by what is on the stack */
  const gq_graph *graph;
  int ncapture;
  gq_trace *trace_; /* traced, */
  gqL_call *call_;  /* or called at every evaluation */
} dynamics;

static dynamics push_dynamics(lua_State *L, int fn, int opts, const gq_tensor *z0, bool gradient) {
  gq_dtype dtypes[2] = { z0->dtype, z0->dtype };
  gq_shape shapes[2] = { { .ndim = 0 }, z0->shape };
  if (lua_istable(L, opts) && !gqL_optbool(L, opts, "trace", true)) {
    lua_getfield(L, opts, "params");
    gqL_call *c = gqL_pushcall(L, fn, z0, lua_gettop(L), gradient);
    return (dynamics){ gqL_call_graph(c), gqL_call_captures(c), NULL, c };
  }
  gq_trace *tr = gqL_trace(L, fn, 2, dtypes, shapes, 1, "the dynamics function of gq.odeint");
  check_field(L, gq_trace_graph(tr), z0);
  return (dynamics){ gq_trace_graph(tr), gq_trace_captures(tr), tr, NULL };
}

/* The captures of f into the box, and which of them want a gradient. Does any? */
static bool take_captures(lua_State *L, int opts, const dynamics *f, box *b) {
  bool any = false;
  int n = f->ncapture, top = lua_gettop(L);
  b->want = gq_calloc(n + 1, sizeof *b->want);
  b->in = gq_calloc(n + 2, sizeof *b->in);
  if (!b->want || !b->in) gqL_try(L, gq_nomem(n * sizeof *b->in));
  for (int i = 0; i < n; i++) {
    gq_tensor *c = f->call_ ? gqL_call_capture(f->call_, i) : gq_trace_capture(f->trace_, i);
    b->in[2 + i] = c;
    b->want[i] = c->requires_grad && in_params(L, opts, c);
    lua_settop(L, top);
    any |= b->want[i];
  }
  return any;
}

/* upvalue: gq.core. locate: an event is looked for here; otherwise lua/gq/solve.lua does what it takes. */
static int solve_call(lua_State *L, bool locate) {
  gq_ode_options o;
  gq_info info;
  gq_tensor *t;
  lua_settop(L, 4);
  bool parts = lua_istable(L, 2);
  gq_tensor *z0 = parts ? NULL : gqL_checktensor(L, 2);
  if (gq_trace_current() || (z0 && z0->trace))
    return gqL_error(L,
                     "gq.odeint inside a traced function: a dynamics function cannot solve; give the inner "
                     "solve's result as a captured tensor");
  if (!locate && asks_for_integrals(L, 4)) return hand_over(L, "odeint_regularised");
  if (parts) return hand_over(L, "odeint_states");
  if (!gq_is_float(z0->dtype))
    return luaL_argerror(
      L, 2, lua_pushfstring(L, "the state is %s; it must be float32 or float64", gq_dtype_name(z0->dtype)));
  gqL_odeoptions(L, 4, z0->dtype, &o);
  bool throw = lua_istable(L, 4) ? gqL_optbool(L, 4, "throw", true) : true;
  bool event = has(L, 4, "event");
  if (event && !locate) return hand_over(L, "odeint_event");
  box *b = push_box(L);
  int nt = read_times(L, 3, b, &t);
  if (has(L, 4, "grid_points") && !mark_jumps(L, 4, b, nt)) return hand_over(L, "odeint_grid");
  gq_dense **dense = lua_istable(L, 4) && gqL_optbool(L, 4, "dense", false) ? gqL_pushinterpolant(L) : NULL;
  int at = lua_gettop(L);                 /* of the interpolant, if there is one */
  *gqL_pushtensor(L) = gq_tensor_ref(z0); /* the dynamics may free the handles */
  if (t) *gqL_pushtensor(L) = gq_tensor_ref(t);
  bool recording = o.engine->keeps != GQ_KEEP_NOTHING && gq_recording();
  dynamics f = push_dynamics(L, 1, 4, z0, recording);
  int n = f.ncapture;
  bool any = take_captures(L, 4, &f, b);
  gq_problem p = { .f = f.graph,
                   .z0 = z0,
                   .ncapture = n,
                   .capture = b->in + 2,
                   .wants_grad = b->want,
                   .z0_grad = z0->requires_grad,
                   .t_grad = t && t->requires_grad,
                   .nt = nt,
                   .t = b->t,
                   .dense_ = dense,
                   .samples_ = &b->samples,
                   .jump_ = b->jump };
  b->in[0] = z0;
  const char *engine = o.engine->name;
  if (!recording || !(any || p.z0_grad || p.t_grad)) o.engine = gq_engine_find("none");
  if (event) event_option(L, 4, b, z0, &p);
  lua_newtable(L);
  int table = lua_gettop(L);
  gq_tensor **handle = gqL_pushtensor(L);
  int status;
  gqL_solve_retry(L, status, gq_odeint(&p, &o, !throw, &b->z, &info, &b->sol));
  gqL_rethrow(L); /* trace = false: an error of the dynamics */
  if (status != GQ_OK && (throw || !b->z)) return gqL_try(L, status);
  lua_pushvalue(L, table);
  fill_forward(L, &info, engine);
  fill_samples(L, &b->samples);
  if (status != GQ_OK) {
    lua_pushstring(L, gq_message());
    lua_setfield(L, -2, "message");
  }
  gq_tensor *out[3];
  int sums = has(L, 4, "regularise") ? fill_sums(L, &o, &info, z0->dtype, out + 1) : 0;
  lua_pop(L, 1);
  if (b->sol) record(L, b, t, n, f.call_, table, sums, out);
  *handle = b->z, b->z = NULL;
  gqL_counted(L);
  lua_pushvalue(L, table);
  if (dense) lua_pushvalue(L, at);
  return dense ? 3 : 2;
}

static int odeint(lua_State *L) { return solve_call(L, false); }
static int odeint_locate(lua_State *L) { return solve_call(L, true); }

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
  static const char *const kinds[] = { "runge-kutta",     "alf",          "reversible_heun", "leapfrog",
                                       "adams-bashforth", "adams-moulton" };
  lua_createtable(L, gq_ntableaux, 0);
  for (int i = 0; i < gq_ntableaux; i++) {
    const gq_tableau *m = gq_tableau_get(i);
    lua_createtable(L, 0, 18);
    lua_pushstring(L, m->name), lua_setfield(L, -2, "name");
    lua_pushstring(L, kinds[m->kind]), lua_setfield(L, -2, "kind");
    lua_pushstring(L, m->source), lua_setfield(L, -2, "source");
    set_integer(L, "stages", m->stages), set_integer(L, "order", m->order);
    set_integer(L, "error_order", m->error_order), set_integer(L, "dense_order", m->dense_order);
    set_integer(L, "slopes", m->slopes), set_integer(L, "end_slope", m->end + 1);
    lua_pushboolean(L, m->implicit), lua_setfield(L, -2, "implicit");
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

static int quadrature(lua_State *L) {
  const gq_quadrature *q = gqL_quadrature(L, luaL_checkstring(L, 1), "quadrature");
  int n = gq_quadrature_points(q, (int)gqL_checkint(L, 2, 1, 1024, "number of nodes"));
  double x[1028], w[1028];
  gqL_try(L, q->fill(n, gq_key_make((uint64_t)luaL_optinteger(L, 3, 0), 0), 0, x, w));
  push_list(L, n, x);
  push_list(L, n, w);
  return 2;
}

static int quadratures(lua_State *L) {
  lua_createtable(L, gq_nquadratures, 0);
  for (int i = 0; i < gq_nquadratures; i++) {
    const gq_quadrature *q = &gq_quadratures[i];
    lua_createtable(L, 0, 6);
    lua_pushstring(L, q->name), lua_setfield(L, -2, "name");
    lua_pushstring(L, q->source), lua_setfield(L, -2, "source");
    set_integer(L, "least", q->least), set_integer(L, "step", q->step), set_integer(L, "most", q->most);
    lua_pushboolean(L, q->random), lua_setfield(L, -2, "random");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
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

/* statuses() -> every status a call of the runtime may end with: {name, hint} */
static int statuses(lua_State *L) {
  lua_createtable(L, GQ_NSTATUS, 0);
  for (int i = 0; i < GQ_NSTATUS; i++) {
    lua_createtable(L, 0, 2);
    lua_pushstring(L, gq_status_name(i)), lua_setfield(L, -2, "name");
    lua_pushstring(L, gq_status_hint(i)), lua_setfield(L, -2, "hint");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* profile(true) starts; profile() -> seconds in products, element-wise work, the rest; profile(false) ends. */
static int profile(lua_State *L) {
  double seconds[3];
  gq_profile_get(seconds);
  if (!lua_isnoneornil(L, 1)) gq_profile(lua_toboolean(L, 1));
  for (int i = 0; i < 3; i++) lua_pushnumber(L, seconds[i]);
  return 3;
}

/* clang-format off */
static const gqL_function functions[] = {
  { "odeint", odeint, false,
    "odeint(f, z0, t, opts) -> z, info: solve dz/dt = f(t, z) from z0 at t[1]; z has shape {#t, z0's}\n"
    "f: a module or function of (t, z) that returns dz/dt of z's shape and dtype; traced at every solve, so it must "
    "not look at values (use gq.where, or trace = false)\n"
    "z0: a tensor, or a sequence {z1, z2, ...} of tensors of one dtype: then f is given a sequence and returns one, "
    "and z is a sequence too, z[i] of shape {#t, z0[i]'s}; the error norm is over all their numbers together. "
    "Tensors that share their first dimension are solved as rows side by side, others as one vector\n"
    "t: increasing or decreasing, a table or a tensor (which may require gradients)\n"
    "info: counts, status and warnings: ?info\n"
    "options, with their defaults\n"
    "method: \"dopri5\"; all of them, implicit and multistep ones too, with eta, controller and max_order: ?methods\n"
    "rtol, atol: 1e-3 in float32, 1e-6 in float64: what a step may add to the error (of a solve: ?methods); norm: "
    "\"rms\" or \"max\"\n"
    "step_size: a fixed grid; first_step: found; max_steps: 100000\n"
    "gradient: \"gq\"; all engines, with params, adjoint, gq and memory_limit: ?gradient; when to trust them: "
    "?guards\n"
    "trace: true; false calls f in Lua at every evaluation, on tensors with numbers: it may look at values, branch "
    "and solve itself, and must be a function of (t, z) alone (no dropout, no noise); slower. Gradients flow to z0, "
    "t and what params names, by every engine but gqc (direct calls f again too); the backward pass calls f as it is "
    "then, so do not change in between what f captures. In f, t and z require gradients: gq.grad(x, z, {create_graph "
    "= true}) works, and z:detach():clone() can be written to. An error of f is raised as it is. f is kept as long "
    "as the result's gradient may be asked for. Not with leapfrog or create_graph; an event is traced all the same\n"
    "batch: \"joint\", one step size for all; \"independent\": each row (dimension 1) of the state has its own "
    "steps, and its result and gradients do not depend on the other rows, bit by bit; for explicit Runge-Kutta "
    "methods with gradient \"gq\", check, aca, direct or none, and traced dynamics whose rows do not act on each other. "
    "info.samples tells what each took\n"
    "grid_points: times where f may jump, a table or a tensor\n"
    "event: a function of (t, z) that ends the solve where it changes sign; then t has two times, and the results "
    "are z there, info, the time as a tensor\n"
    "dense: false; true gives one result more, the solution as a function of time\n"
    "regularise: {kinetic = true, ...}: info.regularisers then holds what keeps dynamics easy when it is added to a "
    "loss: ?regularise\n"
    "throw: true; false returns the part reached, and info.status\n"
    "overshoot: false; true lets the last step pass the last time, which is then interpolated\n"
    "parity: false; true goes step for step as the paper's PyTorch code (overshoot among that)" },
  { NULL, NULL, false, NULL },
};
/* clang-format on */

/* For tests and the curious, in gq.core:
** gauss_legendre(n) -> nodes, weights on [-1, 1], ascending; quadrature(name, n, seed) -> the same of any rule,
** n rounded up to what it takes; quadratures() -> the rules; tableaux() -> the methods' coefficients;
** steplog(true) records every tried step, steplog() -> rows {t, h, error ratio, accepted}, steplog(false) stops;
** profile(): where programs spend their time; plan_cache() -> compiled solvers alive, compilations so far;
** plan_cache(false) drops the idle ones first; statuses(): what a solve may end with. */
static const luaL_Reg core[] = { { "gauss_legendre", gauss_legendre },
                                 { "quadrature", quadrature },
                                 { "quadratures", quadratures },
                                 { "tableaux", tableaux },
                                 { "steplog", steplog },
                                 { "plan_cache", plan_cache },
                                 { "profile", profile },
                                 { "statuses", statuses },
                                 { NULL, NULL } };

void gqL_open_ode(lua_State *L) {
  lua_getfield(L, -1, "core");
  luaL_setfuncs(L, core, 0);
  lua_pushvalue(L, -1);
  lua_pushcclosure(L, odeint_locate, 1);
  lua_setfield(L, -2, "odeint_locate");
  lua_pushcclosure(L, functions[0].f, 1); /* upvalue: core, off the stack */
  gqL_setfunction(L, functions[0].name, functions[0].method, functions[0].doc);
}
