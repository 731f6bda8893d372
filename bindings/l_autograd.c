/*
** l_autograd.c -- x:backward(), gq.grad, gq.no_grad.
*/
#include "bind.h"

/* The cotangent at arg for `out`: nil, a tensor, or a number for every entry (pushed). */
static gq_tensor *check_cot(lua_State *L, int arg, const gq_tensor *out) {
  if (lua_isnoneornil(L, arg)) return NULL;
  if (lua_type(L, arg) != LUA_TNUMBER) return gqL_checktensor(L, arg);
  gqL_operand(L, arg, out->dtype);
  gqL_place(L, gq_place_of(out));
  gq_tensor *x = gqL_totensor(L, -1);
  return gqL_op(L, GQ_OP_EXPAND, 1, &x, &(gq_attr){ .shape = out->shape });
}

static int tensor_backward(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (lua_istable(L, 2))
    gqL_error(L, "backward: a cotangent of the result's shape expected, got a table: graphs are kept anyway "
                 "(retain_graph), and gq.grad has create_graph");
  gq_tensor *cot = check_cot(L, 2, t);
  int status;
  gqL_solve_retry(L, status, gq_backward(t, cot));
  if (status == GQ_EINTERRUPT) gq_interrupt_clear(); /* this error is its one consequence */
  if (status != GQ_OK) lua_pushstring(L, gq_message());
  gqL_fill_infos(L);
  gqL_rethrow(L);
  return status == GQ_OK ? 0 : gqL_error(L, "%s", lua_tostring(L, -1));
}

/* ---- gq.grad ---- */

/* One tensor or a list at arg: pointers in a pushed userdata. */
static gq_tensor **tensors_at(lua_State *L, int arg, int *n, const char *what) {
  bool list = lua_istable(L, arg);
  lua_Unsigned len = list ? lua_rawlen(L, arg) : 1;
  if (len == 0 || len > 1000000) gqL_error(L, "grad: %s: a tensor or a list of at least one expected", what);
  gq_tensor **t = lua_newuserdatauv(L, len * sizeof *t, 0);
  for (lua_Unsigned i = 0; i < len; i++) {
    if (list) lua_rawgeti(L, arg, (lua_Integer)i + 1);
    else lua_pushvalue(L, arg);
    t[i] = gqL_totensor(L, -1);
    if (t[i] == NULL)
      gqL_error(L, "grad: %s: a tensor or a list of tensors expected, got %s", what, gqL_typename(L, -1));
    lua_pop(L, 1);
  }
  *n = (int)len;
  return t;
}

/* opts.cotangents: as many as outputs, one tensor for one output; a number counts for all entries. */
static gq_tensor **check_cots(lua_State *L, int options, int nout, gq_tensor **out) {
  if (lua_isnoneornil(L, options) || lua_getfield(L, options, "cotangents") == LUA_TNIL) return NULL;
  int given = lua_gettop(L);
  gq_tensor **cots = lua_newuserdatauv(L, (size_t)nout * sizeof *cots, 0);
  bool list = lua_istable(L, given);
  if (list ? (int)lua_rawlen(L, given) != nout : nout != 1)
    gqL_error(L, "grad: cotangents: %d expected, one for each output", nout);
  luaL_checkstack(L, 3 * nout + 10, "grad");
  for (int i = 0; i < nout; i++) {
    if (list) lua_rawgeti(L, given, i + 1);
    else lua_pushvalue(L, given);
    cots[i] = check_cot(L, lua_gettop(L), out[i]);
  }
  return cots;
}

/* Nothing flows to this input: its gradient is zero. */
static void push_zeros(lua_State *L, const gq_tensor *like) {
  gq_tensor *zero = gqL_op(L, GQ_OP_CONST, 0, NULL, &(gq_attr){ .dtype = like->dtype });
  if (like->trace) {
    gqL_op(L, GQ_OP_EXPAND, 1, &zero, &(gq_attr){ .shape = like->shape });
    return;
  }
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_new_on(gq_tensor_device(like), like->dtype, like->shape, h));
}

static int grad(lua_State *L) {
  static const char *const known[] = { "cotangents", "create_graph", NULL };
  int nout, nin;
  lua_settop(L, 3);
  gqL_checkoptions(L, 3, known, "grad");
  bool create_graph = gqL_optbool(L, 3, "create_graph", false);
  bool list = lua_istable(L, 2);
  gq_tensor **out = tensors_at(L, 1, &nout, "outputs"), **in = tensors_at(L, 2, &nin, "inputs");
  gq_tensor **cots = check_cots(L, 3, nout, out);
  gq_tensor **result = lua_newuserdatauv(L, (size_t)nin * sizeof *result, 0);
  gq_tensor ***handle = lua_newuserdatauv(L, (size_t)nin * sizeof *handle, 0);
  luaL_checkstack(L, nin + 10, "grad");
  int first = lua_gettop(L) + 1;
  for (int i = 0; i < nin; i++) handle[i] = gqL_pushtensor(L);
  int status;
  gqL_solve_retry(L, status, gq_grad(nout, out, cots, nin, in, create_graph, result));
  for (int i = 0; i < nin && status == GQ_OK; i++) *handle[i] = result[i];
  if (status == GQ_EINTERRUPT) gq_interrupt_clear(); /* this error is its one consequence */
  if (status != GQ_OK) lua_pushstring(L, gq_message());
  gqL_fill_infos(L);
  gqL_rethrow(L);
  if (status != GQ_OK) return gqL_error(L, "%s", lua_tostring(L, -1));
  gqL_held(L, nin);
  gqL_counted(L);
  if (list) lua_createtable(L, nin, 0);
  int result_at = lua_gettop(L);
  for (int i = 0; i < nin; i++) {
    if (*handle[i] != NULL) lua_pushvalue(L, first + i);
    else push_zeros(L, in[i]);
    if (list) {
      lua_rawseti(L, result_at, i + 1);
      lua_settop(L, result_at);
    }
  }
  return 1;
}

/* ---- gq.core.once ---- */

typedef struct once {
  gq_custom base;
  char what[64];
} once;

static int once_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  if (create_graph)
    return gq_fail(
      GQ_EUNSUPPORTED,
      "%s has first derivatives alone, and create_graph asks for more: differentiate it once, or keep it "
      "out of what is differentiated twice",
      ((once *)c)->what);
  grads[0] = gq_tensor_ref(cots[0]);
  return GQ_OK;
}

static void once_free(gq_custom *c) { gq_free(c); }

/* core.once(x, what): x, whose gradient cannot be differentiated again. */
static int core_once(lua_State *L) {
  gq_tensor *x = gqL_checktensor(L, 1), **y;
  const char *what = luaL_optstring(L, 2, "this");
  y = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_view(x, x->shape, x->stride, x->offset, y));
  once *o = gq_calloc(1, sizeof *o);
  if (!o) return gqL_try(L, gq_nomem(sizeof *o));
  o->base = (gq_custom){ "once", once_backward, once_free, false };
  snprintf(o->what, sizeof o->what, "%s", what);
  gqL_try(L, gq_record_custom(&o->base, 1, &x, 1, y));
  gqL_held(L, 1);
  return 1;
}

/* core.traced(x): is x a value without numbers, of a function that is being traced? */
static int core_traced(lua_State *L) {
  lua_pushboolean(L, gqL_checktensor(L, 1)->trace);
  return 1;
}

/* core.depends(x, ...): does x carry a gradient of a leaf other than those behind it? */
static int core_depends(lua_State *L) {
  gq_tensor *x = gqL_checktensor(L, 1), *stray;
  int n = lua_gettop(L) - 1;
  gq_tensor **known = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *known, 0);
  for (int i = 0; i < n; i++) known[i] = gqL_checktensor(L, i + 2);
  gqL_retry(L, gq_tape_stray(x, n, known, &stray));
  lua_pushboolean(L, stray != NULL);
  return 1;
}

/* ---- recording ---- */

#define GUARD "gq.recording"

typedef struct guard {
  bool (*set)(bool on); /* NULL: nothing is to be put back */
  bool was;
} guard;

static void put_back(guard *g) {
  if (g->set) g->set(g->was);
  g->set = NULL;
}

static int guard_close(lua_State *L) {
  put_back(luaL_checkudata(L, 1, GUARD));
  return 0;
}

/* The function at 1, of those behind it, while set(on) holds. The guard, not a protected call, restores the state: an
** error keeps its traceback, but in a coroutine. */
static int call_while(lua_State *L, bool (*set)(bool on), bool on) {
  guard *g = lua_newuserdatauv(L, sizeof *g, 0);
  g->set = NULL;
  luaL_setmetatable(L, GUARD);
  lua_insert(L, 1);
  lua_toclose(L, 1);
  g->was = set(on), g->set = set;
  if (gqL_guarded(L, lua_gettop(L) - 2, LUA_MULTRET) != LUA_OK) {
    put_back(g);
    return lua_error(L);
  }
  return lua_gettop(L) - 1;
}

/* core.twice(f, ...): f(...), of whose results gradients with create_graph will be asked. */
static int core_twice(lua_State *L) { return call_while(L, gq_set_twice, true); }

static int no_grad(lua_State *L) {
  if (lua_type(L, 1) != LUA_TFUNCTION && luaL_getmetafield(L, 1, "__call") == LUA_TNIL)
    return gqL_error(L, "no_grad: a function expected, as in gq.no_grad(function() ... end), got %s",
                     gqL_typename(L, 1));
  if (gq_trace_current() != NULL)
    return gqL_error(L, "no_grad: a function that is traced cannot switch gradients off");
  return call_while(L, gq_set_recording, false);
}

static int is_recording(lua_State *L) {
  lua_pushboolean(L, gq_recording());
  return 1;
}

static const gqL_function functions[] = {
  { "backward", tensor_backward, true,
    "loss:backward([cotangent]): adds gradients to .grad of every leaf behind it" },
  { "grad", grad, false,
    "gq.grad(outputs, inputs [, {cotangents, create_graph}]): gradients, touching no .grad; zeros where "
    "nothing flows" },
  { "no_grad", no_grad, false, "gq.no_grad(f, ...): runs f without recording and returns its results" },
  { "recording", is_recording, false, "gq.recording(): are operations recorded for backward?" },
  { NULL, NULL, false, NULL }
};

void gqL_open_autograd(lua_State *L) {
  static const luaL_Reg guard[] = { { "__close", guard_close }, { NULL, NULL } };
  static const luaL_Reg core[] = { { "once", core_once },
                                   { "traced", core_traced },
                                   { "depends", core_depends },
                                   { "twice", core_twice },
                                   { NULL, NULL } };
  gqL_class(L, GUARD, guard, NULL);
  gqL_core(L, core);
  gqL_register(L, functions);
}
