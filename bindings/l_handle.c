/*
** l_handle.c -- tensors as the other files meet them: handles and the scopes that free them, operands, operations,
** dtypes brought together, and what may be read or written.
*/
#include "bind.h"

static const char scope_key = 0;

#define SCOPE "gq.scope"

/* ---- functions that a gradient calls ----
** A result needs its function, which may see the result, so no reference of C keeps it alive: who holds the result
** does, by one that the collector follows: the handle's user value is the function or, where ways to several meet on
** the tape, a list of what such a handle there would hold. Each list is made once, so a sum of n solves costs n. */

static const char callee_key = 0; /* registry: address -> function, weak */
static const char lists_key = 0;  /* registry: number of a caller -> list, weak */

void gqL_callee(lua_State *L, const void *of) {
  gqL_pushweak(L, &callee_key, "v");
  lua_rawgetp(L, -1, of);
  lua_remove(L, -2);
}

void gqL_setcallee(lua_State *L, const void *of) {
  gqL_pushweak(L, &callee_key, "v");
  lua_insert(L, -2);
  lua_rawsetp(L, -2, of);
  lua_pop(L, 1);
}

/* Push what keeps c's functions. true: that is a new list, empty so far. */
static bool push_keeper(lua_State *L, int lists, const struct gq_tape *c) {
  int i = 0;
  if (!gq_caller_next(c, &i)) return gqL_callee(L, gq_caller_custom(c)), false;
  if (lua_rawgeti(L, lists, (lua_Integer)gq_caller_number(c)) != LUA_TNIL) return false;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawseti(L, lists, (lua_Integer)gq_caller_number(c));
  return true;
}

/* Fill the list on top, which is c's. New ones that it leads to are left on top of it, each above its caller. */
static void fill(lua_State *L, int lists, const struct gq_tape *c) {
  int i = 0, n = 0, list = lua_gettop(L);
  gq_custom *own = gq_caller_custom(c);
  if (own) gqL_callee(L, own), lua_rawseti(L, list, ++n);
  for (const struct gq_tape *next; (next = gq_caller_next(c, &i));) {
    luaL_checkstack(L, 6, NULL);
    bool empty = push_keeper(L, lists, next);
    lua_pushvalue(L, -1);
    lua_rawseti(L, list, ++n);
    if (empty) lua_pushlightuserdata(L, (void *)(uintptr_t)next), lua_insert(L, -2);
    else lua_pop(L, 1);
  }
  lua_remove(L, list);
}

static void hold(lua_State *L, int at, const struct gq_tape *c) {
  luaL_checkstack(L, 8, NULL);
  gqL_pushweak(L, &lists_key, "v");
  int lists = lua_gettop(L);
  bool empty = push_keeper(L, lists, c);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, at, 1);
  if (empty) fill(L, lists, c);
  while (lua_gettop(L) > lists + 1) {
    c = lua_touserdata(L, -2);
    lua_remove(L, -2);
    fill(L, lists, c);
  }
  lua_settop(L, lists - 1);
}

void gqL_held(lua_State *L, int n) {
  for (int at = lua_gettop(L) - n + 1; n > 0; n--, at++) {
    const gq_tensor *t = *(gq_tensor **)lua_touserdata(L, at);
    const struct gq_tape *c = t ? gq_tape_caller(t) : NULL;
    if (c) hold(L, at, c);
  }
}

/* ---- handles ---- */

/* A scope: user value 1 holds its handles as weak keys, 2 the scope around it. */
static void enter_scope_list(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &scope_key);
  if (lua_getiuservalue(L, -1, 1) == LUA_TTABLE) {
    lua_pushvalue(L, -3);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
  }
  lua_pop(L, 2);
}

gq_tensor **gqL_pushtensor(lua_State *L) {
  luaL_checkstack(L, 6, "too many tensors");
  gq_tensor **h = lua_newuserdatauv(L, sizeof *h, 1);
  *h = NULL;
  gqL_pushtensorclass(L);
  lua_setmetatable(L, -2);
  if (gqL_getstate(L)->scopes > 0) enter_scope_list(L);
  return h;
}

void gqL_pushref(lua_State *L, gq_tensor *t) {
  gq_tensor **h = gqL_pushtensor(L);
  *h = gq_tensor_ref(t);
  gqL_held(L, 1);
}

gq_tensor *gqL_checktensor(lua_State *L, int arg) {
  gq_tensor *t = gqL_totensor(L, arg);
  if (t == NULL) gqL_badarg(L, arg, lua_pushfstring(L, "tensor expected, got %s", gqL_typename(L, arg)));
  return t;
}

static void fill_number(gq_tensor *t, gq_dtype d, double x, lua_Integer i) {
  void *p = gq_tensor_data(t);
  switch (d) {
    case GQ_F32: *(float *)p = (float)x; break;
    case GQ_F64: *(double *)p = x; break;
    case GQ_I64: *(int64_t *)p = i; break;
    default: *(uint8_t *)p = x != 0; break;
  }
}

/* The number or boolean at arg as a 0-d tensor of dtype d. */
static gq_tensor *number_tensor(lua_State *L, int arg, gq_dtype d) {
  int isint = 1;
  bool boolean = lua_isboolean(L, arg);
  double x = boolean ? lua_toboolean(L, arg) : lua_tonumber(L, arg);
  lua_Integer i = boolean ? lua_toboolean(L, arg) : lua_tointegerx(L, arg, &isint);
  if (d == GQ_I64 && !isint)
    gqL_error(L, "number %f has no int64 form: convert the tensor with :to(\"float32\") or :to(\"float64\")",
              (LUAI_UACNUMBER)x);
  if (d == GQ_BOOL && x != 0 && x != 1)
    gqL_error(L, "number %f is no bool: convert the tensor with :to(\"int64\") or :to(\"float32\")",
              (LUAI_UACNUMBER)x);
  gq_tensor **h = gqL_pushtensor(L);
  gq_trace *tr = gq_trace_current();
  if (tr != NULL && gq_is_float(d)) gqL_retry(L, gq_trace_number(tr, d, x, h));
  else {
    gqL_retry(L, gq_tensor_empty(d, gq_shape_of(0, NULL), h));
    fill_number(*h, d, x, i);
  }
  return *h;
}

gq_tensor *gqL_operand(lua_State *L, int arg, gq_dtype like) {
  if (lua_type(L, arg) == LUA_TNUMBER || (like == GQ_BOOL && lua_isboolean(L, arg)))
    return number_tensor(L, arg, like);
  gq_tensor *t = gqL_totensor(L, arg);
  if (t == NULL)
    gqL_badarg(L, arg, lua_pushfstring(L, "tensor or number expected, got %s", gqL_typename(L, arg)));
  return t;
}

/* ---- checks ---- */

void gqL_checknumbers(lua_State *L, const gq_tensor *t, const char *what) {
  if (t->storage == NULL)
    gqL_error(
      L,
      "%s: this value is traced and has no numbers yet; the dynamics function must not look at "
      "values: choose with gq.where(condition, x, y), or solve with gq.odeint's trace = false, which calls "
      "the dynamics at every evaluation",
      what);
}

void gqL_checkwritable(lua_State *L, const gq_tensor *t, const char *what) {
  if (t->storage == NULL)
    gqL_error(
      L, "%s: a traced tensor cannot be written to: choose entries with gq.where or build it with gq.cat",
      what);
  if (t->tape != NULL)
    gqL_error(L,
              "%s: this tensor carries a gradient and cannot be written to: choose entries with gq.where, "
              "build it with gq.cat, or write to x:detach():clone()",
              what);
  if (t->requires_grad && gq_recording())
    gqL_error(L,
              "%s: this tensor requires a gradient and cannot be written to: choose entries with gq.where, "
              "build it with gq.cat, or write inside gq.no_grad",
              what);
  for (int i = 0; i < t->shape.ndim; i++)
    if (t->stride[i] == 0 && t->shape.dim[i] > 1)
      gqL_error(L,
                "%s: an expanded tensor holds one number many times and cannot be written to: use x:clone()",
                what);
}

/* ---- operations ---- */

gq_tensor *gqL_op(lua_State *L, gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_) {
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_op_call(op, nargs, args, attr_, h));
  gqL_held(L, 1);
  gqL_counted(L);
  return *h;
}

gq_tensor *gqL_reshape(lua_State *L, gq_tensor *t, gq_shape s) {
  return gqL_op(L, GQ_OP_RESHAPE, 1, &t, &(gq_attr){ .shape = s });
}

gq_tensor *gqL_cast(lua_State *L, gq_tensor *t, gq_dtype d) {
  return gqL_op(L, GQ_OP_CAST, 1, &t, &(gq_attr){ .dtype = d });
}

static bool mixes_floats(const gq_tensor *a, const gq_tensor *b) {
  return gq_is_float(a->dtype) && gq_is_float(b->dtype) && a->dtype != b->dtype;
}

static void refuse_mix(lua_State *L, const gq_tensor *a, const gq_tensor *b, const char *what) {
  char x[256], y[256];
  gqL_error(L, "%s: %s %s with %s %s: convert one of them with :to(\"float32\") or :to(\"float64\")", what,
            gq_dtype_name(a->dtype), gq_shape_text(a->shape, x, sizeof x), gq_dtype_name(b->dtype),
            gq_shape_text(b->shape, y, sizeof y));
}

/* The common dtype: that of floats with dimensions, else the wider 0-d float, else int64, else bool. */
static gq_dtype common_dtype(lua_State *L, int n, gq_tensor **t, const char *what) {
  gq_tensor *full = NULL, *single = NULL;
  gq_dtype d = GQ_BOOL;
  for (int i = 0; i < n; i++) {
    if (t[i]->dtype == GQ_I64) d = GQ_I64;
    if (!gq_is_float(t[i]->dtype)) continue;
    if (t[i]->shape.ndim == 0) {
      if (single == NULL || t[i]->dtype == GQ_F64) single = t[i];
      continue;
    }
    if (full != NULL && mixes_floats(full, t[i])) refuse_mix(L, full, t[i], what);
    full = t[i];
  }
  return full ? full->dtype : single ? single->dtype : d;
}

void gqL_promote(lua_State *L, int n, gq_tensor **t, const char *what) {
  gq_dtype d = common_dtype(L, n, t, what);
  for (int i = 0; i < n; i++) {
    if (t[i]->dtype == d) continue;
    luaL_checkstack(L, 8, what);
    t[i] = gqL_cast(L, t[i], d);
  }
}

/* ---- scopes ---- */

static int scope_close(lua_State *L) {
  int *open = luaL_checkudata(L, 1, SCOPE);
  if (!*open) return 0;
  *open = 0;
  gqL_getstate(L)->scopes--;
  lua_getiuservalue(L, 1, 1);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    gq_tensor **h = lua_touserdata(L, -2), *t = *h;
    *h = NULL;
    gq_tensor_unref(t);
  }
  lua_pushnil(L);
  lua_setiuservalue(L, 1, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &scope_key); /* the innermost that is still open */
  while (lua_isuserdata(L, -1) && !*(int *)lua_touserdata(L, -1)) {
    lua_getiuservalue(L, -1, 2);
    lua_remove(L, -2);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &scope_key);
  return 0;
}

static int scope_new(lua_State *L) {
  int *open = lua_newuserdatauv(L, sizeof *open, 2);
  *open = 0;
  luaL_setmetatable(L, SCOPE);
  gqL_newweak(L, "k");
  lua_setiuservalue(L, -2, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &scope_key);
  lua_setiuservalue(L, -2, 2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &scope_key);
  *open = 1;
  gqL_getstate(L)->scopes++;
  return 1;
}

static int scope_keep(lua_State *L) {
  luaL_checkudata(L, 1, SCOPE);
  int n = lua_gettop(L);
  if (lua_getiuservalue(L, 1, 1) != LUA_TTABLE) return gqL_error(L, "keep: this scope is closed");
  for (int i = 2; i <= n; i++) {
    gqL_checktensor(L, i);
    lua_pushvalue(L, i);
    lua_pushnil(L);
    lua_rawset(L, -3);
  }
  lua_settop(L, n);
  return n - 1;
}

static const gqL_function functions[] = {
  { "scope", scope_new, false,
    "local s <close> = gq.scope(): tensors made inside are freed at its end, but those of s:keep(x)" },
  { NULL, NULL, false, NULL }
};

void gqL_open_handle(lua_State *L) {
  static const luaL_Reg meta[] = { { "__gc", scope_close }, { "__close", scope_close }, { NULL, NULL } };
  static const luaL_Reg methods[] = { { "keep", scope_keep }, { "close", scope_close }, { NULL, NULL } };
  gqL_register(L, functions);
  gqL_class(L, SCOPE, meta, methods);
}
