/*
** l_call.c -- trace = false: dynamics that stay a Lua function, called at every evaluation. In the backward pass
** the function is called under the tape, which pulls cotangents back to t, z and opts.params. A Lua error ends the
** solve with a status and is raised by the solve's caller, as it was.
*/
#include "l_ode.h"

#include <string.h>

#define CALL "gq.call"
static const char *const what = "the dynamics function of gq.odeint";

struct gqL_call {
  gq_callback base;
  int refs;
  gq_dtype dtype; /* of the state */
  gq_shape shape;
  gq_graph *graph;
  gq_tensor *address; /* of base, as the solve's first captured number */
  int n;              /* parameters: differentiated, and the captures after the first */
  gq_tensor **param;
  struct gq_tape **tape; /* [n] theirs, while they pass for leaves */
  bool strict; /* a gradient is wanted and nobody said of which parameters: of a module's own, and no more */
  int64_t calls, number; /* number: of this one among all */
  bool keep; /* in a backward pass, where f(t, z) and its derivative are asked for one after the other: */
  gq_tensor *last[3]; /* t, z and f(t, z) of the last call, with its tape */
};

/* ---- one evaluation, protected ---- */

typedef struct job {
  gqL_call *c;
  const void *t, *z, *a; /* a: pull back, or NULL */
  int pieces;            /* of a pull */
  void *out;
} job;

/* A tensor of its own: the function may keep it. */
static gq_tensor *push_copy(lua_State *L, gq_dtype d, gq_shape s, const void *from) {
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(d, s, h));
  size_t n = (size_t)gq_numel(s) * gq_dtype_size(d);
  if (n) memcpy(gq_tensor_data(*h), from, n);
  return *h;
}

/* Raised where the solve was called: two C functions up. */
static int fail(lua_State *L, const char *message) {
  luaL_where(L, 2);
  lua_pushstring(L, message);
  lua_concat(L, 2);
  return lua_error(L);
}

static void forget(gqL_call *c) {
  for (int i = 0; i < 3; i++) gq_tensor_unref(c->last[i]), c->last[i] = NULL;
}

static bool is_last(const job *j) {
  const gqL_call *c = j->c;
  size_t size = gq_dtype_size(c->dtype), n = (size_t)gq_numel(c->shape) * size;
  return c->last[0] && memcmp(gq_tensor_data(c->last[0]), j->t, size) == 0 &&
         (n == 0 || memcmp(gq_tensor_data(c->last[1]), j->z, n) == 0);
}

/* f(t, z), pushed; t and z are the two handles below. */
static gq_tensor *slope(lua_State *L, const job *j) {
  gqL_call *c = j->c;
  gqL_callee(L, c);
  if (lua_isnil(L, -1))
    fail(L, lua_pushfstring(L,
                            "%s was collected, but trace = false calls it for this gradient too: keep the "
                            "function, or the tensor that the solve returned, until the gradient is there",
                            what));
  push_copy(L, c->dtype, (gq_shape){ .ndim = 0 }, j->t)->requires_grad = true;
  push_copy(L, c->dtype, c->shape, j->z)->requires_grad = true;
  lua_pushvalue(L, -3);
  lua_pushvalue(L, -3);
  lua_pushvalue(L, -3);
  c->calls++;
  lua_call(L, 2, 1);
  gq_tensor *out = gqL_totensor(L, -1);
  if (!out)
    fail(L, lua_pushfstring(L, "%s must return a tensor, got %s", what, gqL_notensor(L, lua_gettop(L))));
  if (!out->storage) fail(L, lua_pushfstring(L, "%s returned a value of a trace that has ended", what));
  const char *wrong = gqL_wrongslope(L, what, out->dtype, out->shape, c->dtype, c->shape);
  if (wrong) fail(L, wrong);
  return out;
}

static void check_strays(lua_State *L, const gqL_call *c, gq_tensor *out, gq_tensor *t, gq_tensor *z) {
  gq_tensor **known = lua_newuserdatauv(L, (size_t)(c->n + 2) * sizeof *known, 0), *stray;
  char shape[128];
  known[0] = t, known[1] = z;
  memcpy(known + 2, c->param, (size_t)c->n * sizeof *known);
  gqL_retry(L, gq_tape_stray(out, c->n + 2, known, &stray));
  lua_pop(L, 1);
  if (!stray) return;
  gq_shape_text(stray->shape, shape, sizeof shape);
  fail(L, lua_pushfstring(
            L,
            "%s uses a %s tensor of shape %s that requires a gradient: with trace = false name what is "
            "to be differentiated, opts.params = net:parameters() or {tensor, ...} ({}: none)",
            what, gq_dtype_name(stray->dtype), shape));
}

static void write_value(lua_State *L, const job *j, gq_tensor *out) {
  gq_tensor **packed = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_host(out, packed));
  size_t n = (size_t)gq_numel(out->shape) * gq_dtype_size(out->dtype);
  if (n) memcpy(j->out, gq_tensor_data(*packed), n);
}

/* n numbers of g (NULL: zeros), of any float dtype, at *to in dtype d. */
static void write_piece(gq_dtype d, size_t n, const gq_tensor *g, char **to) {
  const void *from = g ? gq_tensor_data(g) : NULL;
  for (size_t i = 0; i < n; i++) { gq_set_number(d, *to, i, g ? gq_number(g->dtype, from, i) : 0); }
  *to += n * gq_dtype_size(d);
}

/* a'df/d of z, t and the parameters, those that are asked for. */
static void pull_value(lua_State *L, const job *j, gq_tensor *out, gq_tensor *t, gq_tensor *z) {
  gqL_call *c = j->c;
  int n = 0, nw = 0;
  gq_tensor **all = lua_newuserdatauv(L, 4 * ((size_t)c->n + 2) * sizeof *all, 0);
  gq_tensor **in = all + c->n + 2, **grad = in + c->n + 2, **found = grad + c->n + 2;
  if (j->pieces & GQ_PULL_Z) all[n++] = z;
  if (j->pieces & GQ_PULL_T) all[n++] = t;
  for (int i = 0; j->pieces & GQ_PULL_PARAMS && i < c->n; i++) all[n++] = c->param[i];
  for (int i = 0; i < n; i++)
    if (all[i]->requires_grad) in[nw++] = all[i];
  gq_tensor *cot = push_copy(L, c->dtype, c->shape, j->a);
  memset(grad, 0, (size_t)n * sizeof *grad);
  if (nw > 0 && out->requires_grad) {
    int status;
    gqL_solve_retry(L, status, gq_grad(1, &out, &cot, nw, in, false, found));
    gqL_rethrow(L);
    gqL_try(L, status);
    for (int i = n; i-- > 0;) grad[i] = all[i]->requires_grad ? found[--nw] : NULL;
  }
  char *to = j->out;
  for (int i = 0; i < n; i++) {
    write_piece(c->dtype, (size_t)gq_numel(all[i]->shape), grad[i], &to);
    gq_tensor_unref(grad[i]);
  }
}

static int evaluate(lua_State *L) {
  const job *j = lua_touserdata(L, 1);
  gqL_call *c = j->c;
  luaL_checkstack(L, 16, what);
  if (j->a && is_last(j)) {
    pull_value(L, j, c->last[2], c->last[0], c->last[1]);
    gqL_counted(L);
    return 0;
  }
  forget(c);
  gq_tensor *out = slope(L, j); /* function, t, z, result */
  gq_tensor *t = *(gq_tensor **)lua_touserdata(L, 3), *z = *(gq_tensor **)lua_touserdata(L, 4);
  if (!t || !z) return fail(L, lua_pushfstring(L, "%s freed t or z", what));
  if (j->a) {
    pull_value(L, j, out, t, z);
  } else {
    if (c->strict) check_strays(L, c, out, t, z);
    write_value(L, j, out);
    if (c->keep)
      c->last[0] = gq_tensor_ref(t), c->last[1] = gq_tensor_ref(z), c->last[2] = gq_tensor_ref(out);
  }
  gqL_counted(L);
  return 0;
}

/* ---- called by programs ---- */

/* A parameter made from another one passes for a leaf, so that derivatives stop there: the solve's own place on the
** tape leads on. */
static void cut_tapes(gqL_call *c) {
  for (int i = 0; i < c->n; i++) c->tape[i] = c->param[i]->tape, c->param[i]->tape = NULL;
}

static void mend_tapes(gqL_call *c) {
  for (int i = 0; i < c->n; i++) c->param[i]->tape = c->tape[i];
}

static _Thread_local int64_t running;
int64_t gqL_call_running(void) { return running; }

static int run(job *j) {
  gqL_call *c = j->c;
  if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted before an evaluation of the dynamics");
  gqL_solve s = gqL_pause();
  lua_State *L = s.L;
  bool recording = gq_set_recording(true);
  bool cut = j->a || c->keep;
  if (cut) cut_tapes(c);
  int failed = LUA_ERRMEM;
  int64_t outer = running;
  running = c->number;
  if (lua_checkstack(L, 4)) {
    lua_pushcfunction(L, evaluate);
    lua_pushlightuserdata(L, j);
    failed = lua_pcall(L, 1, 0, 0);
  } else {
    lua_pushnil(L); /* cannot be: gqL_catch made room */
  }
  running = outer;
  if (cut) mend_tapes(c);
  gq_set_recording(recording);
  if (failed != LUA_OK && gq_interrupted()) gq_interrupt_clear(); /* the error is its consequence */
  gqL_resume(s, failed != LUA_OK);
  return failed == LUA_OK ? GQ_OK : gq_fail(GQ_ESTATE, "the dynamics function raised an error");
}

static int call(gq_callback *self, const void *t, const void *z, void *out) {
  job j = { .c = (gqL_call *)self, .t = t, .z = z, .out = out };
  return run(&j);
}

static int pull(gq_callback *self, const void *t, const void *z, const void *a, int pieces, void *out) {
  job j = { .c = (gqL_call *)self, .t = t, .z = z, .a = a, .pieces = pieces, .out = out };
  return run(&j);
}

/* ---- its life ---- */

gqL_call *gqL_call_ref(gqL_call *c) {
  c->refs++;
  return c;
}

void gqL_call_keep(gqL_call *c, bool on) {
  c->keep = on;
  forget(c);
}

void gqL_call_unref(gqL_call *c) {
  if (!c || --c->refs > 0) return;
  forget(c);
  for (int i = 0; i < c->n; i++) gq_tensor_unref(c->param[i]);
  gq_tensor_unref(c->address);
  gq_graph_free(c->graph);
  gq_free(c->param);
  gq_free(c->tape);
  gq_free(c);
}

static int call_gc(lua_State *L) {
  gqL_call **c = luaL_checkudata(L, 1, CALL);
  gqL_call_unref(*c);
  *c = NULL;
  return 0;
}

/* opts.params, those that are differentiated, each once. */
static void take_params(lua_State *L, gqL_call *c, int params) {
  lua_Unsigned room = lua_istable(L, params) ? lua_rawlen(L, params) : 0;
  if (room > 1000000) gqL_error(L, "gq.odeint: params holds %d entries", (int)room);
  c->param = gq_calloc(room + 1, sizeof *c->param);
  c->tape = gq_calloc(room + 1, sizeof *c->tape);
  if (!c->param || !c->tape) gqL_try(L, gq_nomem(room * sizeof *c->param));
  for (lua_Unsigned i = 1; i <= room; i++) {
    lua_rawgeti(L, params, (lua_Integer)i);
    gq_tensor *p = gqL_totensor(L, -1);
    bool wanted = p && p->requires_grad && gq_is_float(p->dtype);
    if (p && !p->storage) gqL_checknumbers(L, p, "gq.odeint: params");
    for (int k = 0; wanted && k < c->n; k++) wanted = c->param[k] != p;
    if (wanted) c->param[c->n++] = gq_tensor_ref(p);
    lua_pop(L, 1);
  }
}

/* The parameters of dynamics that are a module; nil of others. */
static void push_own(lua_State *L, int fn) {
  if (lua_istable(L, fn) && lua_getfield(L, fn, "parameters") == LUA_TFUNCTION) {
    lua_pushvalue(L, fn);
    lua_call(L, 1, 1);
  } else lua_pushnil(L);
}

gqL_call *gqL_pushcall(lua_State *L, int fn, const gq_tensor *z0, int opts, bool gradient) {
  gqL_checkcallable(L, fn, what);
  int top = lua_gettop(L) + 1;
  gqL_call **h = lua_newuserdatauv(L, sizeof *h, 0);
  *h = NULL;
  gqL_pushclass(L, CALL, call_gc);
  lua_setmetatable(L, -2);
  gqL_call *c = *h = gq_calloc(1, sizeof *c);
  if (!c) return gqL_try(L, gq_nomem(sizeof *c)), NULL;
  static _Thread_local int64_t made;
  *c =
    (gqL_call){ .base = { call, pull }, .refs = 1, .dtype = z0->dtype, .shape = z0->shape, .number = ++made };
  lua_pushvalue(L, fn);
  gqL_setcallee(L, c);
  c->strict = lua_getfield(L, opts, "params") == LUA_TNIL && gradient;
  if (c->strict) push_own(L, fn);
  take_params(L, c, lua_gettop(L));
  lua_settop(L, top);
  gqL_retry(L, gq_callback_address(&c->base, &c->address));
  gqL_retry(L, gq_callback_graph(z0->dtype, z0->shape, c->n, c->param, &c->graph));
  return c;
}

const gq_graph *gqL_call_graph(const gqL_call *c) { return c->graph; }
int gqL_call_captures(const gqL_call *c) { return c->n + 1; }
gq_tensor *gqL_call_capture(const gqL_call *c, int i) { return i ? c->param[i - 1] : c->address; }
int64_t gqL_call_count(const gqL_call *c) { return c->calls; }
