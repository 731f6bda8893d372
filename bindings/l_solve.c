/*
** l_solve.c -- one call of the solver: its arguments read and checked, f and the event traced, the solve, its results.
*/
#include "l_ode.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define BOX "gq.odeint box"

static void empty(gqL_box *b) {
  gq_solution_free(b->sol);
  gq_tensor_unref(b->z);
  gq_free(b->t);
  gq_free(b->want);
  gq_free(b->capture);
  gq_free(b->jump);
  gq_free(b->tensors);
  gq_free(b->event_in);
  gq_samples_done(&b->samples);
  memset(b, 0, sizeof *b);
}

static int box_gc(lua_State *L) {
  empty(luaL_checkudata(L, 1, BOX));
  return 0;
}

gqL_box *gqL_pushbox(lua_State *L) {
  gqL_box *b = lua_newuserdatauv(L, sizeof *b, 0);
  memset(b, 0, sizeof *b);
  gqL_pushclass(L, BOX, box_gc);
  lua_setmetatable(L, -2);
  return b;
}

/* Number i of x_, on the host, or of the table at index `at`; false: that is none, and on the top of the stack. */
static bool number_at(lua_State *L, const gq_tensor *x_, int at, int64_t i, double *to) {
  if (!x_ && lua_rawgeti(L, at, i + 1) != LUA_TNUMBER) return false;
  *to = x_ ? gq_tensor_get(x_, &i) : lua_tonumber(L, -1);
  if (!x_) lua_pop(L, 1);
  return true;
}

/* t[i] is on the top of the stack. */
static int not_a_number(lua_State *L, int arg, const char *name, int i) {
  const char *instead = gqL_totensor(L, -1) ? ": a time is a number or a tensor of one" : "";
  return gqL_argerror(L, arg, name,
                      lua_pushfstring(L, "t[%d] is %s, not a number%s", i, gqL_typename(L, -1), instead));
}

/* Options that slipped in among the times would be lost. */
static void check_plain(lua_State *L, int arg, const char *name) {
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING)
      gqL_argerror(L, arg, name,
                   lua_pushfstring(L,
                                   "times are a list, got the key '%s' among them: options are the next "
                                   "argument",
                                   lua_tostring(L, -2)));
}

int gqL_readtimes(lua_State *L, int arg, const char *name, gqL_box *b) {
  gq_tensor *t = gqL_totensor(L, arg);
  const char *wrong =
    !t && !lua_istable(L, arg)
      ? lua_pushfstring(L, "times must be a tensor or a table of numbers, not %s", gqL_typename(L, arg))
    : t && t->shape.ndim != 1  ? "times must have one dimension"
    : t && t->trace            ? "times are a traced value; they must be known when the solve starts"
    : t && t->dtype == GQ_BOOL ? "times must be numbers, not bool"
                               : NULL;
  if (wrong) return gqL_argerror(L, arg, name, wrong);
  if (!t) check_plain(L, arg, name);
  int64_t n = t ? t->shape.dim[0] : (int64_t)lua_rawlen(L, arg);
  if (n < 1 || n > 1 << 26) return gqL_argerror(L, arg, name, "give at least one time (and at most 2^26)");
  b->t = gq_alloc(n * sizeof *b->t);
  if (!b->t) gqL_try(L, gq_nomem(n * sizeof *b->t));
  if (t) t = gqL_onhost(L, t);
  for (int64_t i = 0; i < n; i++)
    if (!number_at(L, t, arg, i, &b->t[i])) return not_a_number(L, arg, name, (int)i + 1);
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

/* The dynamics give dz/dt of z's own shape and dtype: nothing is broadcast. */
static void check_field(lua_State *L, const gq_graph *f, const gq_tensor *z0) {
  const gq_node *n = gq_graph_node(f, gq_graph_output(f, 0));
  const char *wrong =
    gqL_wrongslope(L, "the dynamics function of gq.odeint", n->dtype, n->shape, z0->dtype, z0->shape);
  if (wrong) gqL_error(L, "%s", wrong);
}

/* Where f may jump: marked among the times, which have every one of them that lies inside (lua/gq/solve.lua). */
static void mark_jumps(lua_State *L, int arg, gqL_box *b, int nt) {
  lua_getfield(L, arg, "grid_points");
  gq_tensor *x = gqL_totensor(L, -1);
  if (x && x->shape.ndim != 1) gqL_error(L, "gq.odeint: grid_points must have one dimension");
  if (!x && !lua_istable(L, -1))
    gqL_error(L, "gq.odeint: grid_points must be a tensor or a table of numbers, not %s",
              gqL_typename(L, -1));
  b->jump = gq_calloc(nt + 1, sizeof *b->jump);
  if (!b->jump) gqL_try(L, gq_nomem(nt));
  bool any = false;
  int64_t n = x ? x->shape.dim[0] : (int64_t)lua_rawlen(L, -1);
  b->moves = x && x->requires_grad;
  if (x) x = gqL_onhost(L, x);
  for (int64_t i = 0; i < n; i++) {
    double t;
    if (!number_at(L, x, -1, i, &t))
      gqL_error(L, "gq.odeint: grid_points[%d] is %s, not a number", (int)i + 1, gqL_typename(L, -1));
    if (!isfinite(t)) gqL_error(L, "gq.odeint: grid_points[%d] = %f must be finite", (int)i + 1, t);
    for (int k = 0; k < nt; k++) b->jump[k] |= b->t[k] == t, any |= b->jump[k];
  }
  if (!any) gq_free(b->jump), b->jump = NULL; /* none that matters, and nothing that it would not go with */
  lua_pop(L, 1);
}

/* Trace the event function: its graph into the problem. The trace stays on the stack. */
static void event_option(lua_State *L, int arg, gqL_box *b, const gq_tensor *z0, gq_problem *p) {
  gq_dtype dtypes[2] = { z0->dtype, z0->dtype };
  gq_shape shapes[2] = { { .ndim = 0 }, z0->shape };
  lua_getfield(L, arg, "event");
  gq_trace *tr =
    gqL_trace(L, -1, gq_tensor_device(z0), 2, dtypes, shapes, 1, "the event function of gq.odeint");
  p->event_ = gq_trace_graph(tr);
  p->nevent = gq_trace_captures(tr);
  b->event_in = gq_calloc(p->nevent + 1, sizeof *b->event_in);
  if (!b->event_in) gqL_try(L, gq_nomem(p->nevent));
  for (int i = 0; i < p->nevent; i++) b->event_in[i] = gq_trace_capture(tr, i);
  p->event_capture = b->event_in;
}

/* ---- the solve ---- */

static gq_tensor *check_state(lua_State *L, int arg) {
  gq_tensor *z0 = gqL_checktensor(L, arg);
  if (!gq_is_float(z0->dtype))
    gqL_argerror(
      L, arg, "odeint",
      lua_pushfstring(L, "the state is %s; it must be float32 or float64", gq_dtype_name(z0->dtype)));
  return z0;
}

/* Noise on an interval is not there outside of it, but for the rounding of times to float32. */
static void check_interval(lua_State *L, const gq_trace *tr, const double *t, int nt) {
  double t0, t1, first = fmin(t[0], t[nt - 1]), last = fmax(t[0], t[nt - 1]);
  gq_trace_interval(tr, &t0, &t1);
  double slack = isfinite(t1 - t0) ? 4 * FLT_EPSILON * fmax(fabs(t0), fabs(t1)) : 0;
  if (!isfinite(first + last) || (first >= t0 - slack && last <= t1 + slack)) return;
  char text[200];
  snprintf(text, sizeof text,
           "the dynamics are known for t in [%.9g, %.9g] alone, and the times go from %.9g to %.9g", t0, t1,
           t[0], t[nt - 1]);
  gqL_error(L, "gq.odeint: %s", text);
}

static gqL_dynamics push_dynamics(lua_State *L, int fn, int opts, const gq_tensor *z0, const double *t,
                                  int nt, bool gradient) {
  gq_dtype dtypes[2] = { z0->dtype, z0->dtype };
  gq_shape shapes[2] = { { .ndim = 0 }, z0->shape };
  if (lua_istable(L, opts) && !gqL_optbool(L, opts, "trace", true)) {
    gqL_call *c = gqL_pushcall(L, fn, z0, opts, gradient);
    return (gqL_dynamics){ gqL_call_graph(c), gqL_call_captures(c), NULL, 0, c };
  }
  gq_trace *tr =
    gqL_trace(L, fn, gq_tensor_device(z0), 2, dtypes, shapes, 1, "the dynamics function of gq.odeint");
  check_field(L, gq_trace_graph(tr), z0);
  check_interval(L, tr, t, nt);
  return (gqL_dynamics){ gq_trace_graph(tr), gq_trace_captures(tr), tr, lua_gettop(L), NULL };
}

bool gqL_takecaptures(lua_State *L, int opts, const gqL_dynamics *f, gqL_box *b) {
  bool any = false;
  int n = f->ncapture, top = lua_gettop(L);
  b->want = gq_calloc(n + 1, sizeof *b->want);
  b->capture = gq_calloc(n + 1, sizeof *b->capture);
  if (!b->want || !b->capture) gqL_try(L, gq_nomem(n * sizeof *b->capture));
  for (int i = 0; i < n; i++) {
    gq_tensor *c = f->call_ ? gqL_call_capture(f->call_, i) : gq_trace_capture(f->trace_, i);
    b->capture[i] = c;
    b->want[i] = c->requires_grad && in_params(L, opts, c);
    lua_settop(L, top);
    any |= b->want[i];
  }
  return any;
}

/* Sizes of the tensors that the state was packed from, in the list at arg, if there is one. */
static int read_tensors(lua_State *L, int arg, gqL_box *b) {
  int n = lua_istable(L, arg) ? (int)lua_rawlen(L, arg) : 0;
  b->tensors = gq_calloc(n + 1, sizeof *b->tensors);
  if (!b->tensors) gqL_try(L, gq_nomem(n * sizeof *b->tensors));
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, arg, i + 1);
    b->tensors[i] = lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  return n;
}

void gqL_runsolve(lua_State *L, int opts, const gq_problem *p, const gq_ode_options *o, const char *engine,
                  gq_tensor *t_, const gqL_dynamics *f, gqL_box *b) {
  gq_info info;
  bool throw = lua_istable(L, opts) ? gqL_optbool(L, opts, "throw", true) : true;
  lua_createtable(L, 0, o->engine->keeps == GQ_KEEP_NOTHING ? 12 : 24); /* what one way or both will tell */
  int table = lua_gettop(L);
  gq_tensor **handle = gqL_pushtensor(L);
  int status, top = lua_gettop(L);
  gqL_solve_retry(L, status, gq_odeint(p, o, !throw, &b->z, &info, &b->sol));
  gqL_rethrow(L); /* trace = false: an error of the dynamics */
  if (status != GQ_OK && (throw || !b->z)) gqL_try(L, status);
  lua_pushvalue(L, table);
  gqL_info_forward(L, &info, o, engine);
  gqL_info_samples(L, &b->samples);
  if (p->event_) gqL_setinteger(L, "nfe_event", info.nfe_event);
  if (status != GQ_OK) { gqL_setstring(L, "message", gq_message()); }
  gq_tensor *out[3] = { b->z };
  int sums = gqL_given(L, opts, "regularise") ? gqL_info_sums(L, o, &info, p->z0, out + 1) : 0;
  if (b->sol) gqL_record(L, &b->sol, p->z0, t_, f->ncapture, b->capture, f->call_, table, 1 + sums, out);
  *handle = b->z, b->z = NULL;
  if (sums) {
    lua_getfield(L, table, "regularisers");
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) gqL_held(L, 1);
  }
  lua_settop(L, top);
  gqL_held(L, 1);
  gqL_counted(L);
  lua_pushvalue(L, table);
  empty(b); /* a collector may let hundreds of them wait */
  if (f->trace_) gqL_endtrace(L, f->at);
}

/* solve(f, z0, t, options, tensors) */
int gqL_solveode(lua_State *L) {
  gq_ode_options o;
  lua_settop(L, 5);
  gqL_odeplain(L, 4);
  gq_tensor *z0 = check_state(L, 2);
  gqL_pushref(L, z0); /* options and dynamics may free the handles */
  gqL_odeoptions(L, 4, z0->dtype, &o);
  bool event = gqL_given(L, 4, "event");
  gqL_box *b = gqL_pushbox(L);
  gq_tensor *t = gqL_totensor(L, 3);
  int nt = gqL_readtimes(L, 3, "odeint", b), ntensors = read_tensors(L, 5, b);
  if (gqL_given(L, 4, "grid_points")) mark_jumps(L, 4, b, nt);
  gq_dense **dense = lua_istable(L, 4) && gqL_optbool(L, 4, "dense", false) ? gqL_pushinterpolant(L) : NULL;
  int at = lua_gettop(L); /* of the interpolant, if there is one */
  if (t) gqL_pushref(L, t);
  bool recording = o.engine->keeps != GQ_KEEP_NOTHING && gq_recording();
  gqL_dynamics f = push_dynamics(L, 1, 4, z0, b->t, nt, recording);
  bool any = gqL_takecaptures(L, 4, &f, b);
  gq_problem p = { .f = f.graph,
                   .z0 = z0,
                   .ncapture = f.ncapture,
                   .capture = b->capture,
                   .wants_grad = b->want,
                   .z0_grad = z0->requires_grad,
                   .t_grad = t && t->requires_grad,
                   .nt = nt,
                   .t = b->t,
                   .dense_ = dense,
                   .samples_ = &b->samples,
                   .jump_ = b->jump,
                   .ntensors = ntensors,
                   .tensors_ = b->tensors,
                   .jumps_move = b->moves };
  const char *engine = o.engine->name;
  if (!recording || !(any || p.z0_grad || p.t_grad)) o.engine = gq_engine_find("none");
  if (event) event_option(L, 4, b, z0, &p);
  gqL_runsolve(L, 4, &p, &o, engine, t, &f, b);
  if (dense) lua_pushvalue(L, at);
  return dense ? 3 : 2;
}

/* Does f tell where it is not smooth, as gq.cde's does? */
static bool has_points(lua_State *L) {
  if (!lua_istable(L, 1)) return false;
  lua_pushliteral(L, "grid_points");
  bool there = lua_rawget(L, 1) != LUA_TNIL;
  lua_pop(L, 1);
  return there;
}

bool gqL_tensoramong(lua_State *L, int arg) {
  bool found = false;
  if (!lua_istable(L, arg)) return false;
  for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, arg); i <= n && !found; i++) {
    found = lua_rawgeti(L, arg, i) == LUA_TUSERDATA;
    lua_pop(L, 1);
  }
  return found;
}

/* States of several tensors, times that are some, and options that lua/gq/solve.lua turns into others. */
static bool needs_more(lua_State *L) {
  return lua_istable(L, 2) || gqL_tensoramong(L, 3) || has_points(L) || gqL_given(L, 4, "regularise") ||
         gqL_given(L, 4, "event") || gqL_given(L, 4, "grid_points") || gqL_given(L, 4, "dense");
}

int gqL_odeint(lua_State *L) {
  if (!lua_isnoneornil(L, 5))
    return gqL_error(L, "gq.odeint: (f, z0, t, options) expected, got %s behind them: options are one table",
                     gqL_typename(L, 5));
  lua_settop(L, 4);
  if (gqL_totensor(L, 1) && lua_isfunction(L, 2))
    return gqL_argerror(L, 1, "odeint", "the dynamics come first: gq.odeint(f, z0, t)");
  if (!lua_istable(L, 2)) gqL_checktensor(L, 2);
  gq_tensor *z0 = gqL_totensor(L, 2);
  if (gq_trace_current() || (z0 && z0->trace))
    return gqL_error(L,
                     "gq.odeint inside a traced function: a dynamics function cannot solve; give the inner "
                     "solve's result as a captured tensor");
  if (!needs_more(L)) return gqL_solveode(L);
  return gqL_callcore(L, "odeint", LUA_MULTRET);
}
