/*
** l_trace.c -- calling a Lua function once with traced tensors, and looking at the graph it made.
*/
#include <string.h>
#include "bind.h"

#define TRACE "gq.trace"

void gqL_endtrace(lua_State *L, int at) {
  gq_trace **tr = luaL_checkudata(L, at, TRACE);
  gq_trace_free(*tr);
  *tr = NULL;
}

static int trace_gc(lua_State *L) {
  gqL_endtrace(L, 1);
  return 0;
}

/* The function raised, or gave something else than tensors: abandon the trace. */
static void abandon(gq_trace *tr) {
  if (tr != NULL && gq_trace_current() == tr) gq_trace_end(tr, 0, NULL);
}

static int trace_close(lua_State *L) {
  gq_trace **tr = luaL_checkudata(L, 1, TRACE);
  abandon(*tr);
  return 0;
}

/* The results from `first` on; false: one of them is no tensor. */
static bool take_results(lua_State *L, int first, int nout, gq_tensor **out) {
  for (int i = 0; i < nout; i++)
    if ((out[i] = gqL_totensor(L, first + i)) == NULL) return false;
  return true;
}

static void wrong_results(lua_State *L, int first, int nout, const char *what) {
  int i = 0;
  while (gqL_totensor(L, first + i) != NULL) i++;
  const char *given = nout == 1 ? gqL_notensor(L, first + i) : gqL_typename(L, first + i);
  if (nout == 1) gqL_error(L, "%s must return a tensor, got %s", what, given);
  gqL_error(L, "%s must return %d tensors, result %d is %s", what, nout, i + 1, given);
}

static bool callable(lua_State *L, int arg) {
  if (lua_isfunction(L, arg)) return true;
  if (luaL_getmetafield(L, arg, "__call") == LUA_TNIL) return false;
  lua_pop(L, 1);
  return true;
}

void gqL_checkcallable(lua_State *L, int fn, const char *what) {
  if (callable(L, fn)) return;
  gqL_error(L, "%s must be a function or a module, got %s", what, gqL_typename(L, fn));
}

/* A truth of which the graph makes no use was asked for by Lua, to which any value is true: told once. */
static void warn_unused(const gq_trace *tr, const char *what) {
  static bool done;
  if (done || !gq_trace_unused(tr)) return;
  char text[300];
  snprintf(
    text, sizeof text,
    "%s compares values and makes no use of it: `if z:gt(0) then` is always taken, since to Lua all but "
    "nil and false is true; choose with gq.where(z:gt(0), x, y)",
    what);
  done = gqL_warn(text);
}

/* While the trace is open nothing raises but in gqL_guarded. */
static gq_trace *trace(lua_State *L, int fn, const gq_device *on, int nin, const gq_dtype *d,
                       const gq_shape *s, int nout, const char *what, int (*begin)(gq_trace **)) {
  fn = lua_absindex(L, fn);
  gqL_checkcallable(L, fn, what);
  luaL_checkstack(L, nin + nout + 10, what);
  gq_trace **tr = lua_newuserdatauv(L, sizeof *tr, 0);
  int at = lua_gettop(L);
  *tr = NULL;
  luaL_setmetatable(L, TRACE);
  gq_tensor **out = lua_newuserdatauv(L, (size_t)(nout + 1) * sizeof *out, 0);
  gq_tensor ***in = lua_newuserdatauv(L, (size_t)(nin + 1) * sizeof *in, 0);
  lua_pushvalue(L, at);
  lua_toclose(L, -1);
  int first = lua_gettop(L) + 1, status = GQ_OK;
  lua_pushvalue(L, fn);
  for (int i = 0; i < nin; i++) in[i] = gqL_pushtensor(L);
  gqL_retry(L, begin(tr));
  gq_trace_place(*tr, on);
  for (int i = 0; i < nin && status == GQ_OK; i++) status = gq_trace_input(*tr, d[i], s[i], in[i]);
  if (status != GQ_OK) abandon(*tr), gqL_try(L, status); /* a second try would be a second input */
  if (gqL_guarded(L, nin, nout) != LUA_OK) abandon(*tr), lua_error(L);
  if (!take_results(L, first, nout, out)) abandon(*tr), wrong_results(L, first, nout, what);
  gqL_try(L, gq_trace_end(*tr, nout, out));
  warn_unused(*tr, what);
  lua_closeslot(L, first - 1);
  lua_settop(L, at);
  return *tr;
}

gq_trace *gqL_trace(lua_State *L, int fn, const gq_device *on, int nin, const gq_dtype *d, const gq_shape *s,
                    int nout, const char *what) {
  return trace(L, fn, on, nin, d, s, nout, what, gq_trace_begin);
}

/* ---- a traced function as operations of the script: gq.core.jet ---- */

#define GRAPH "gq.graph"

static int graph_gc(lua_State *L) {
  gq_graph **g = luaL_checkudata(L, 1, GRAPH);
  gq_graph_free(*g);
  *g = NULL;
  return 0;
}

/* Push the results of g over the given tensors and the captures of tr, at once or into the trace that goes on. */
static void push_results(lua_State *L, const gq_trace *tr, const gq_graph *g, int ngiven,
                         gq_tensor *const *given) {
  int n = gq_trace_captures(tr), nout = gq_graph_outputs(g);
  gq_tensor **in = lua_newuserdatauv(L, (size_t)(ngiven + n + 1) * sizeof *in, 0);
  gq_tensor **out = lua_newuserdatauv(L, (size_t)nout * sizeof *out, 0);
  gq_tensor ***handle = lua_newuserdatauv(L, (size_t)nout * sizeof *handle, 0);
  gq_ref *refs = lua_newuserdatauv(L, (size_t)nout * sizeof *refs, 0);
  for (int i = 0; i < ngiven; i++) in[i] = given[i];
  for (int i = 0; i < n; i++) in[ngiven + i] = gq_trace_capture(tr, i);
  luaL_checkstack(L, nout + 10, "trace");
  for (int i = 0; i < nout; i++) handle[i] = gqL_pushtensor(L), refs[i] = gq_graph_output(g, i);
  gqL_retry(L, gq_evaluate_by(gq_op_call, g, in, nout, refs, out));
  for (int i = 0; i < nout; i++) *handle[i] = out[i];
  gqL_held(L, nout);
  gqL_counted(L);
}

const char *gqL_wrongslope(lua_State *L, const char *what, gq_dtype d, gq_shape s, gq_dtype dz, gq_shape sz) {
  char given[128], want[128];
  if (d == dz && gq_shape_equal(s, sz)) return NULL;
  return lua_pushfstring(L,
                         "%s returned %s of shape %s; expected dz/dt of the state's dtype and shape, %s %s%s",
                         what, gq_dtype_name(d), gq_shape_text(s, given, sizeof given), gq_dtype_name(dz),
                         gq_shape_text(sz, want, sizeof want),
                         s.ndim == 0 && sz.ndim > 0 ? " (a function of (t, z) has the time first)" : "");
}

static void check_slope(lua_State *L, const gq_trace *tr, const gq_tensor *z) {
  const gq_graph *f = gq_trace_graph(tr);
  const gq_node *n = gq_graph_node(f, gq_graph_output(f, 0));
  const char *wrong =
    gqL_wrongslope(L, "the dynamics function of gq.jet", n->dtype, n->shape, z->dtype, z->shape);
  if (wrong) gqL_error(L, "%s", wrong);
}

/* The function at 1 over t at 2 and z at 3, in a trace of its own, so that they may be any values, constants too. */
static gq_trace *trace_at(lua_State *L, int nout, const char *what, gq_tensor **tz) {
  gq_tensor *z = tz[1] = gqL_checktensor(L, 3);
  if (!gq_is_float(z->dtype))
    gqL_badarg(L, 3,
               lua_pushfstring(L, "the state is %s; it must be float32 or float64", gq_dtype_name(z->dtype)));
  gq_tensor *t = gqL_operand(L, 2, z->dtype);
  if (t->shape.ndim) gqL_badarg(L, 2, "the time is one number, a 0-d tensor");
  tz[0] = t->dtype != z->dtype ? gqL_cast(L, t, z->dtype) : t;
  gq_dtype dtypes[2] = { z->dtype, z->dtype };
  gq_shape shapes[2] = { { .ndim = 0 }, z->shape };
  return trace(L, 1, gq_place_of(z), 2, dtypes, shapes, nout, what, gq_trace_nest);
}

static gq_graph **push_graph(lua_State *L) {
  gq_graph **g = lua_newuserdatauv(L, sizeof *g, 0);
  *g = NULL;
  luaL_setmetatable(L, GRAPH);
  return g;
}

/* jet(f, t, z, order): a list of the derivatives. */
static int core_jet(lua_State *L) {
  gq_tensor *tz[2];
  lua_settop(L, 4);
  int order = (int)gqL_checkint(L, 4, 1, GQ_MAX_JET, "order");
  gq_trace *tr = trace_at(L, 1, "the dynamics function of gq.jet", tz);
  check_slope(L, tr, tz[1]);
  gq_graph **g = push_graph(L);
  gqL_retry(L, gq_jet(gq_trace_graph(tr), order, g));
  push_results(L, tr, *g, 2, tz);
  lua_createtable(L, order, 0);
  for (int i = 1; i <= order; i++) {
    lua_pushvalue(L, -1 - i);
    lua_rawseti(L, -2, order + 1 - i);
  }
  return 1;
}

/* stratonovich(f, t, z, noise): drift and diffusion, in its form, at (t, z) of the Ito SDE whose two functions f gives,
** as the Stratonovich SDE that has the same solutions. noise: its place among gq_noise_names, from 1. */
static int core_stratonovich(lua_State *L) {
  gq_tensor *tz[2];
  lua_settop(L, 4);
  gq_noise noise = (gq_noise)gqL_checkint(L, 4, GQ_DIAGONAL, GQ_NNOISE - 1, "noise");
  gq_trace *tr = trace_at(L, 2, "the drift and diffusion of gq.wong_zakai", tz);
  gq_graph **form = push_graph(L), **g = push_graph(L);
  gqL_retry(L, gq_diffusion_form(gq_trace_graph(tr), noise, form));
  gqL_retry(L, gq_diffusion_convert(*form, noise, GQ_STRATONOVICH, 0, g));
  push_results(L, tr, *g, 2, tz);
  return 2;
}

/* own(f, t, z): does diffusion g_i, the second function that f gives at (t, z), depend on z_i alone? */
static int core_own(lua_State *L) {
  gq_tensor *tz[2];
  gq_depends how = GQ_DEPENDS_MIXED;
  lua_settop(L, 3);
  gqL_retry(L, gq_diffusion_depends(gq_trace_graph(trace_at(L, 2, "the diffusion of gq.sdeint", tz)), &how));
  lua_pushboolean(L, how != GQ_DEPENDS_MIXED);
  return 1;
}

/* ---- gq.core.trace, for tests and the curious ---- */

static int list_of(lua_State *L, int arg, gq_tensor **t, int max) {
  gqL_checktype(L, arg, LUA_TTABLE);
  int n = (int)lua_rawlen(L, arg);
  if (n > max) gqL_error(L, "at most %d tensors", max);
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, arg, i + 1);
    t[i] = gqL_checktensor(L, -1);
    lua_pop(L, 1);
  }
  return n;
}

enum { MAX_INPUTS = 16 };

static gq_trace *trace_arguments(lua_State *L) {
  gq_tensor *in[MAX_INPUTS];
  gq_dtype d[MAX_INPUTS];
  gq_shape s[MAX_INPUTS];
  int n = list_of(L, 2, in, MAX_INPUTS);
  for (int i = 0; i < n; i++) {
    d[i] = in[i]->dtype;
    s[i] = in[i]->shape;
  }
  int nout = (int)luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, nout >= 1 && nout <= MAX_INPUTS, 3, "1 to 16 results");
  return gqL_trace(L, 1, n ? gq_place_of(in[0]) : gqL_default_device(L), n, d, s, nout,
                   "the traced function");
}

/* trace(f, {inputs}, [nout]): the graph as text, and the captured tensors. */
static int core_trace(lua_State *L) {
  lua_settop(L, 3);
  gq_trace *tr = trace_arguments(L);
  char *text = gq_graph_print(gq_trace_graph(tr));
  if (text == NULL) return gqL_error(L, "not enough memory");
  lua_pushstring(L, text); /* a lost text only if Lua itself has no memory */
  gq_free(text);
  lua_newtable(L);
  for (int i = 0; i < gq_trace_captures(tr); i++) {
    gqL_pushref(L, gq_trace_capture(tr, i));
    lua_rawseti(L, -2, i + 1);
  }
  return 2;
}

/* The inputs of the graph, packed: the list at arg 2, then the captures. Handles stay on the stack. */
static gq_tensor **graph_inputs(lua_State *L, const gq_trace *tr) {
  gq_tensor *given[MAX_INPUTS];
  int n = list_of(L, 2, given, MAX_INPUTS), m = gq_trace_captures(tr);
  luaL_checkstack(L, n + m + 10, "trace");
  gq_tensor **in = lua_newuserdatauv(L, (size_t)(n + m + 1) * sizeof *in, 0);
  for (int i = 0; i < n + m; i++) {
    gq_tensor **h = gqL_pushtensor(L);
    gqL_retry(L, gq_tensor_host(i < n ? given[i] : gq_trace_capture(tr, i - n), h));
    in[i] = *h;
  }
  return in;
}

#define PROGRAM "gq.program"

static int program_gc(lua_State *L) {
  gq_program **p = luaL_checkudata(L, 1, PROGRAM);
  gq_program_free(*p);
  *p = NULL;
  return 0;
}

static const gq_program *compile(lua_State *L, const gq_graph *g) {
  gq_outspec spec[MAX_INPUTS];
  int nout = gq_graph_outputs(g);
  for (int i = 0; i < nout; i++) spec[i] = (gq_outspec){ gq_graph_output(g, i), 0, GQ_STORE };
  gq_program **p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = NULL;
  luaL_setmetatable(L, PROGRAM);
  gqL_retry(L, gq_program_new(&gq_cpu_backend, g, nout, spec, p));
  return *p;
}

static void run_program(lua_State *L, const gq_graph *g, gq_tensor *const *in, gq_tensor ***out) {
  void *to[MAX_INPUTS];
  int nout = gq_graph_outputs(g), nin = gq_graph_inputs(g);
  for (int i = 0; i < nout; i++) {
    const gq_node *n = gq_graph_node(g, gq_graph_output(g, i));
    gqL_retry(L, gq_tensor_empty(n->dtype, n->shape, out[i]));
    to[i] = gq_tensor_data(*out[i]);
  }
  const gq_program *p = compile(L, g);
  const void **from = lua_newuserdatauv(L, (size_t)(nin + 1) * sizeof *from, 0);
  for (int i = 0; i < nin; i++) from[i] = gq_tensor_data(in[i]);
  char *arena = lua_newuserdatauv(L, gq_program_arena(p) + 64, 0);
  arena += (64 - (uintptr_t)arena % 64) % 64;
  gqL_try(L, gq_program_run(p, 0, arena, from, to));
}

/* program(f, {inputs}, [nout]): trace f and compile it: the instructions as text. */
static int core_program(lua_State *L) {
  lua_settop(L, 3);
  char *text = gq_program_print(compile(L, gq_trace_graph(trace_arguments(L))));
  if (text == NULL) return gqL_error(L, "not enough memory");
  lua_pushstring(L, text);
  gq_free(text);
  return 1;
}

/* run(f, {inputs}, nout, how): trace f and evaluate it, node by node ("plain") or compiled ("program"). */
static int core_run(lua_State *L) {
  static const char *const ways[] = { "plain", "program", NULL };
  int way = luaL_checkoption(L, 4, "program", ways);
  lua_settop(L, 4);
  const gq_graph *g = gq_trace_graph(trace_arguments(L));
  gq_tensor **in = graph_inputs(L, *(gq_trace **)lua_touserdata(L, 5));
  gq_tensor **out[MAX_INPUTS], *value[MAX_INPUTS] = { 0 };
  gq_ref refs[MAX_INPUTS];
  int n = gq_graph_outputs(g), first = lua_gettop(L) + 1;
  luaL_checkstack(L, 2 * MAX_INPUTS, "trace");
  for (int i = 0; i < n; i++) {
    out[i] = gqL_pushtensor(L);
    refs[i] = gq_graph_output(g, i);
  }
  if (way == 0) {
    gqL_retry(L, gq_evaluate(g, in, n, refs, value));
    for (int i = 0; i < n; i++) *out[i] = value[i];
  } else run_program(L, g, in, out);
  lua_settop(L, first + n - 1);
  return n;
}

/* known_within(t, t0, t1, slack): does the time lie in the interval, but for the slack? true too if the interval is
** noted of what is being traced, for who knows the times; nil if nobody can tell. */
static int core_known_within(lua_State *L) {
  double t0 = luaL_checknumber(L, 2), t1 = luaL_checknumber(L, 3), slack = luaL_checknumber(L, 4);
  gq_tensor *t = gqL_totensor(L, 1);
  bool one = !t || (!t->trace && gq_numel(t->shape) == 1);
  double x = !one ? 0 : t ? gq_tensor_get(t, (int64_t[GQ_MAXDIM]){ 0 }) : luaL_checknumber(L, 1);
  if (one) lua_pushboolean(L, x >= t0 - slack && x <= t1 + slack);
  else if (t->trace && gq_trace_known(t, t0, t1)) lua_pushboolean(L, 1);
  else lua_pushnil(L);
  return 1;
}

void gqL_open_trace(lua_State *L) {
  static const luaL_Reg meta[] = { { "__gc", trace_gc }, { "__close", trace_close }, { NULL, NULL } };
  static const luaL_Reg functions[] = { { "trace", core_trace },
                                        { "run", core_run },
                                        { "program", core_program },
                                        { "jet", core_jet },
                                        { "stratonovich", core_stratonovich },
                                        { "own", core_own },
                                        { "known_within", core_known_within },
                                        { NULL, NULL } };
  gqL_class(L, TRACE, meta, NULL);
  gqL_pushclass(L, PROGRAM, program_gc);
  gqL_pushclass(L, GRAPH, graph_gc);
  lua_pop(L, 2);
  gqL_core(L, functions);
}
