/*
** l_optim.c -- optimisers for Lua: gq.optimiser(kind, params, config), a userdata that keeps its
** parameters alive, and gq.clip_grad_norm(params, max). lua/gq/optim.lua dresses them up.
*/
#include "bind.h"
#include <stddef.h>
#include <string.h>

#define OPTIMISER "gq.optimiser"
#define TENSORS "gq.parameters"

/* ---- configuration: one row a key ---- */

typedef enum { NUMBER, FLAG, PAIR } form;
enum { ADAMS = 1 << GQ_ADAM | 1 << GQ_ADAMW, SGD = 1 << GQ_SGD, RMS = 1 << GQ_RMSPROP };

typedef struct setting {
  const char *key;
  form form;
  size_t at; /* in gq_opt_config */
  int kinds; /* which optimisers know it */
} setting;

static const setting settings[] = {
  { "lr", NUMBER, offsetof(gq_opt_config, lr), ADAMS | SGD | RMS },
  { "betas", PAIR, offsetof(gq_opt_config, beta1), ADAMS },
  { "eps", NUMBER, offsetof(gq_opt_config, eps), ADAMS | RMS },
  { "weight_decay", NUMBER, offsetof(gq_opt_config, weight_decay), ADAMS | SGD | RMS },
  { "momentum", NUMBER, offsetof(gq_opt_config, momentum), SGD | RMS },
  { "dampening", NUMBER, offsetof(gq_opt_config, dampening), SGD },
  { "nesterov", FLAG, offsetof(gq_opt_config, nesterov), SGD },
  { "alpha", NUMBER, offsetof(gq_opt_config, alpha), RMS },
  { "centered", FLAG, offsetof(gq_opt_config, centered), RMS },
};
enum { NSETTING = sizeof settings / sizeof *settings };

static double number(lua_State *L, int arg, const char *key) {
  if (lua_type(L, arg) != LUA_TNUMBER)
    gqL_error(L, "optimiser: %s is %s: expected a number", key, gqL_typename(L, arg));
  return lua_tonumber(L, arg);
}

static void read_pair(lua_State *L, int arg, const char *key, double *out) {
  if (!lua_istable(L, arg) || lua_rawlen(L, arg) != 2)
    gqL_error(L, "optimiser: %s is %s: expected a table of two numbers", key, gqL_typename(L, arg));
  for (int i = 0; i < 2; i++) {
    lua_rawgeti(L, arg, i + 1);
    out[i] = number(L, lua_gettop(L), key);
    lua_pop(L, 1);
  }
}

/* The value at stack index arg (absolute) into its field. */
static void read_setting(lua_State *L, int arg, const setting *s, gq_opt_config *c) {
  void *field = (char *)c + s->at;
  if (s->form == PAIR) read_pair(L, arg, s->key, field);
  else if (s->form == NUMBER) *(double *)field = number(L, arg, s->key);
  else if (lua_isboolean(L, arg)) *(bool *)field = lua_toboolean(L, arg);
  else gqL_error(L, "optimiser: %s is %s: expected true or false", s->key, gqL_typename(L, arg));
}

static void push_setting(lua_State *L, const setting *s, const gq_opt_config *c) {
  const void *field = (const char *)c + s->at;
  if (s->form == FLAG) {
    lua_pushboolean(L, *(const bool *)field);
    return;
  }
  if (s->form == NUMBER) {
    lua_pushnumber(L, *(const double *)field);
    return;
  }
  lua_createtable(L, 2, 0);
  for (int i = 0; i < 2; i++) {
    lua_pushnumber(L, ((const double *)field)[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

static void known_keys(int kind, const char **known) {
  for (int i = 0; i < NSETTING; i++)
    if (settings[i].kinds & 1 << kind) *known++ = settings[i].key;
  *known = NULL;
}

/* Settings of the table at arg; the others as in c. */
static gq_opt_config read_config(lua_State *L, int arg, gq_opt_kind kind, gq_opt_config c) {
  const char *known[NSETTING + 1];
  if (lua_isnoneornil(L, arg)) return c;
  known_keys(kind, known);
  gqL_checkoptions(L, arg, known, gq_opt_names[kind]);
  for (int i = 0; i < NSETTING; i++) {
    if (!(settings[i].kinds & 1 << kind)) continue;
    lua_getfield(L, arg, settings[i].key);
    if (!lua_isnil(L, -1)) read_setting(L, lua_gettop(L), &settings[i], &c);
    lua_pop(L, 1);
  }
  return c;
}

/* ---- the userdata ---- */

typedef struct handle {
  gq_optimiser *o;
  gq_opt_kind kind;
} handle;

static handle *check(lua_State *L) {
  handle *h = luaL_checkudata(L, 1, OPTIMISER);
  if (!h->o) gqL_error(L, "optimiser: it was closed");
  return h;
}

static const setting *checkkey(lua_State *L, int arg, const handle *h) {
  const char *known[NSETTING + 1];
  const char *key = luaL_checkstring(L, arg);
  for (int i = 0; i < NSETTING; i++)
    if (strcmp(settings[i].key, key) == 0 && settings[i].kinds & 1 << h->kind) return &settings[i];
  known_keys((int)h->kind, known);
  const char *near = gqL_nearest(key, known);
  gqL_error(L, "%s: no setting '%s'%s%s%s", gq_opt_names[h->kind], key, near ? "; did you mean '" : "",
            near ? near : "", near ? "'?" : "");
  return NULL;
}

static int checkkind(lua_State *L, int arg) {
  const char *name = luaL_checkstring(L, arg);
  for (int i = 0; gq_opt_names[i]; i++)
    if (strcmp(name, gq_opt_names[i]) == 0) return i;
  return gqL_error(L, "optimiser: unknown kind '%s': expected adam, adamw, sgd or rmsprop", name);
}

/* The tensors of a list, each held by a reference until the userdata is released or collected. */
typedef struct tensors {
  int n;
  gq_tensor *t[];
} tensors;

static int release(lua_State *L) {
  tensors *p = luaL_checkudata(L, 1, TENSORS);
  while (p->n > 0) gq_tensor_unref(p->t[--p->n]);
  return 0;
}

static tensors *checkparams(lua_State *L, int arg, const char *what) {
  if (!lua_istable(L, arg))
    gqL_error(L, "%s: parameters are %s: expected a list of tensors", what, gqL_typename(L, arg));
  lua_Unsigned count = lua_rawlen(L, arg);
  if (count == 0) gqL_error(L, "%s: no parameters: expected a list with at least one tensor", what);
  if (count > 1 << 24) gqL_error(L, "%s: too many parameters", what);
  tensors *p = lua_newuserdatauv(L, sizeof *p + (size_t)count * sizeof *p->t, 0);
  p->n = 0;
  luaL_setmetatable(L, TENSORS);
  for (lua_Unsigned i = 0; i < count; i++) {
    lua_rawgeti(L, arg, (lua_Integer)i + 1);
    gq_tensor *t = gqL_totensor(L, lua_gettop(L));
    if (!t)
      gqL_error(L, "%s: parameter %d is %s: expected a tensor", what, (int)i + 1,
                gqL_typename(L, lua_gettop(L)));
    p->t[p->n++] = gq_tensor_ref(t);
    lua_pop(L, 1);
  }
  return p;
}

static int optimiser(lua_State *L) {
  lua_settop(L, 3);
  int kind = checkkind(L, 1);
  tensors *p = checkparams(L, 2, gq_opt_names[kind]);
  gq_opt_config c = read_config(L, 3, (gq_opt_kind)kind, gq_opt_defaults((gq_opt_kind)kind));
  handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  h->o = NULL;
  h->kind = (gq_opt_kind)kind;
  luaL_setmetatable(L, OPTIMISER);
  gqL_retry(L, gq_optimiser_new(h->kind, p->n, p->t, c, &h->o));
  return 1;
}

static int opt_step(lua_State *L) {
  gqL_retry(L, gq_optimiser_step(check(L)->o));
  return 0;
}

static int opt_zero_grad(lua_State *L) { return gq_optimiser_zero_grad(check(L)->o), 0; }

static int opt_reached(lua_State *L) { return lua_pushboolean(L, gq_optimiser_reached(check(L)->o)), 1; }

static int opt_get(lua_State *L) {
  handle *h = check(L);
  push_setting(L, checkkey(L, 2, h), gq_optimiser_config(h->o));
  return 1;
}

/* Take all of new, or nothing. */
static int change(lua_State *L, handle *h, gq_opt_config new) {
  gq_opt_config *c = gq_optimiser_config(h->o), old = *c;
  *c = new;
  int status = gq_optimiser_check(h->o);
  if (status != GQ_OK) *c = old;
  return gqL_try(L, status), 0;
}

static int opt_set(lua_State *L) {
  handle *h = check(L);
  const setting *s = checkkey(L, 2, h);
  gq_opt_config new = *gq_optimiser_config(h->o);
  luaL_checkany(L, 3);
  read_setting(L, 3, s, &new);
  return change(L, h, new);
}

/* opt:configure(settings): several together, checked together */
static int opt_configure(lua_State *L) {
  handle *h = check(L);
  lua_settop(L, 2);
  return change(L, h, read_config(L, 2, h->kind, *gq_optimiser_config(h->o)));
}

static int checkindex(lua_State *L, int arg, const handle *h) {
  return (int)gqL_checkint(L, arg, 1, gq_optimiser_count(h->o), "parameter number") - 1;
}

/* opt:state(i, k): k 1 first moment or momentum, 2 second moment, 3 mean; nil where none is kept. */
static int opt_state(lua_State *L) {
  handle *h = check(L);
  gq_tensor *t = NULL;
  int i = checkindex(L, 2, h), k = (int)gqL_checkint(L, 3, 1, 3, "state number") - 1;
  gq_tensor **out = gqL_pushtensor(L);
  gqL_retry(L, gq_optimiser_state(h->o, i, k, &t));
  if (!t) return lua_pushnil(L), 1;
  *out = gq_tensor_ref(t);
  gqL_counted(L);
  return 1;
}

/* opt:steps() of all, opt:steps(i) of one parameter; set_steps(n), set_steps(n, i) */
static int opt_steps(lua_State *L) {
  handle *h = check(L);
  bool all = lua_isnoneornil(L, 2);
  lua_pushinteger(L, all ? gq_optimiser_steps(h->o) : gq_optimiser_param_steps(h->o, checkindex(L, 2, h)));
  return 1;
}

static int opt_set_steps(lua_State *L) {
  handle *h = check(L);
  int64_t n = gqL_checkint(L, 2, 0, INT64_MAX, "steps");
  if (lua_isnoneornil(L, 3)) gq_optimiser_set_steps(h->o, n);
  else gq_optimiser_set_param_steps(h->o, checkindex(L, 3, h), n);
  return 0;
}

static int opt_kind(lua_State *L) {
  lua_pushstring(L, gq_opt_names[check(L)->kind]);
  return 1;
}

/* opt:settings(): all of them, as a table that the constructor would take */
static int opt_settings(lua_State *L) {
  handle *h = check(L);
  lua_newtable(L);
  for (int i = 0; i < NSETTING; i++) {
    if (!(settings[i].kinds & 1 << h->kind)) continue;
    push_setting(L, &settings[i], gq_optimiser_config(h->o));
    lua_setfield(L, -2, settings[i].key);
  }
  return 1;
}

static int opt_len(lua_State *L) {
  lua_pushinteger(L, gq_optimiser_count(check(L)->o));
  return 1;
}

static int opt_gc(lua_State *L) {
  handle *h = luaL_checkudata(L, 1, OPTIMISER);
  gq_optimiser_free(h->o);
  h->o = NULL;
  return 0;
}

static int opt_tostring(lua_State *L) {
  handle *h = luaL_checkudata(L, 1, OPTIMISER);
  if (!h->o) return lua_pushliteral(L, "optimiser (closed)"), 1;
  lua_pushfstring(L, "%s: lr %f, %d parameters, %I steps", gq_opt_names[h->kind],
                  gq_optimiser_config(h->o)->lr, gq_optimiser_count(h->o),
                  (LUAI_UACINT)gq_optimiser_steps(h->o));
  return 1;
}

static int clip_grad_norm(lua_State *L) {
  lua_settop(L, 2);
  double norm = 0, max = gqL_checknumber(L, 2, "max");
  tensors *p = checkparams(L, 1, "clip_grad_norm");
  gqL_retry(L, gq_clip_grad_norm(p->n, p->t, max, &norm));
  lua_pushnumber(L, norm);
  return 1;
}

static const luaL_Reg methods[] = {
  { "step", opt_step },
  { "zero_grad", opt_zero_grad },
  { "reached", opt_reached },
  { "get", opt_get },
  { "set", opt_set },
  { "configure", opt_configure },
  { "state", opt_state },
  { "steps", opt_steps },
  { "set_steps", opt_set_steps },
  { "kind", opt_kind },
  { "settings", opt_settings },
  { NULL, NULL },
};

static const luaL_Reg meta[] = {
  { "__gc", opt_gc }, { "__close", opt_gc }, { "__len", opt_len }, { "__tostring", opt_tostring },
  { NULL, NULL },
};

static const gqL_function functions[] = {
  { "optimiser", optimiser, false,
    "optimiser(kind, params, config): the core of gq.optim.adam, adamw, sgd and rmsprop" },
  { "clip_grad_norm", clip_grad_norm, false,
    "clip_grad_norm(params, max): scales the gradients to a joint norm of at most max; returns what it was" },
  { NULL, NULL, false, NULL },
};

void gqL_open_optim(lua_State *L) {
  gqL_class(L, OPTIMISER, meta, methods);
  gqL_pushclass(L, TENSORS, release);
  lua_pop(L, 1);
  gqL_register(L, functions);
}
