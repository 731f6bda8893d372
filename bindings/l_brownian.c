/*
** l_brownian.c -- gq.brownian: Brownian paths, and what else of seeds and draws lua/gq/sde.lua takes.
*/
#include "l_ode.h"

#include <string.h>

#define BROWNIAN "gq.brownian"

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

/* The value of a required key, left on the stack. */
static int need(lua_State *L, int arg, const char *key, const char *what) {
  if (lua_getfield(L, arg, key) == LUA_TNIL) gqL_error(L, "%s: option %s is missing", what, key);
  return lua_gettop(L);
}

double gqL_neednumber(lua_State *L, int arg, const char *key, const char *what) {
  need(L, arg, key, what);
  lua_pop(L, 1);
  return gqL_optnumber(L, arg, key, 0);
}

/* A new tensor, pushed; its float64 numbers are to be written. */
static gq_tensor *push_empty(lua_State *L, gq_shape s) {
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_F64, s, h));
  return *h;
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
  if (x->requires_grad && gq_recording())
    gqL_error(
      L,
      "brownian: option %s requires a gradient, and paths carry none: give it detached, or write what "
      "depends on it into drift and diffusion",
      key);
  gq_tensor *wide = push_empty(L, shape);
  gqL_try(L, gq_tensor_copy(wide, x));
  gqL_try(L, gq_brownian_pin(b, m, gq_tensor_data(wide)));
  lua_pop(L, 2);
}

static int brownian(lua_State *L) {
  static const char *const known[] = { "t0",  "t1",     "shape", "seed", "levy_area", "dtype",
                                       "tol", "device", "W",     "H",    "K",         NULL };
  if (!lua_istable(L, 1))
    gqL_error(L, "brownian: %s given: expected a table {t0, t1, shape, seed}", gqL_typename(L, 1));
  gqL_checkoptions(L, 1, known, "gq.brownian");
  gq_levy levy = (gq_levy)gqL_optchoice(L, 1, "brownian", "levy_area", "none", gq_levy_names);
  double t0 = gqL_optnumber(L, 1, "t0", 0), t1 = gqL_neednumber(L, 1, "t1", "brownian");
  double tol = gqL_optnumber(L, 1, "tol", 0);
  gq_shape shape = gqL_checkshape(L, need(L, 1, "shape", "brownian"));
  gq_dtype d = gqL_optdtype(L, 1, "dtype");
  uint64_t seed = gqL_optseed(L, 1);
  const char *device = gqL_optstring(L, 1, "device", NULL);
  path *x = push_path(L);
  if (device) x->on = gqL_device(L, device, "brownian");
  gqL_retry(L, gq_brownian_new(t0, t1, shape, d, seed, tol, levy, &x->b));
  pin(L, x->b, 0, "W"), pin(L, x->b, 1, "H"), pin(L, x->b, 2, "K");
  return 1;
}

/* The float64 tensor w on top becomes one of dtype d on that device. */
static int cast(lua_State *L, const gq_tensor *w, gq_dtype d, const gq_device *on) {
  if (d != GQ_F64) {
    gq_tensor **h = gqL_pushtensor(L);
    gqL_retry(L, gq_tensor_empty(d, w->shape, h));
    gqL_try(L, gq_tensor_copy(*h, w));
    lua_remove(L, -2);
  }
  gqL_place(L, on);
  gqL_counted(L);
  return 1;
}

/* The same of what a path gives: in its dtype, where its values go. */
static int give(lua_State *L, const path *x, const gq_tensor *w) {
  return cast(L, w, gq_brownian_dtype(x->b), x->on);
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
  gq_tensor *w = push_empty(L, shape);
  gqL_try(L, gq_brownian_many(x->b, n, s->t, t->t, gq_tensor_data(w)));
  return give(L, x, w);
}

/* b(t) is W(t) - W(t0), b(s, t) is W(t) - W(s); of lists of times all of them */
static int path_call(lua_State *L) {
  lua_settop(L, 3);
  const path *x = check_open(L, 1);
  gq_brownian *b = x->b;
  if (is_list(L, 2) || is_list(L, 3)) return path_many(L, x);
  double s = gqL_checknumber(L, 2, "time"), t = lua_isnoneornil(L, 3) ? s : gqL_checknumber(L, 3, "time");
  gq_tensor *w = push_empty(L, gq_brownian_shape(b));
  if (lua_isnoneornil(L, 3)) gqL_try(L, gq_brownian_value(b, t, gq_tensor_data(w)));
  else gqL_try(L, gq_brownian_increment(b, s, t, gq_tensor_data(w)));
  return give(L, x, w);
}

static void push_shape(lua_State *L, gq_shape s) {
  lua_createtable(L, s.ndim, 0);
  for (int i = 0; i < s.ndim; i++) {
    lua_pushinteger(L, s.dim[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

/* b:areas(s, t): W, H (and K), or W, H and the approximate Levy areas {.., m, m}, over [s, t] */
static int path_areas(lua_State *L) {
  const path *p = check_open(L, 1);
  gq_brownian *b = p->b;
  double s = gqL_checknumber(L, 2, "time"), t = gqL_checknumber(L, 3, "time");
  int n = gq_brownian_moments(b);
  bool levy = gq_brownian_levy(b) >= GQ_LEVY_DAVIE;
  gq_shape one = gq_brownian_shape(b), all = { .ndim = 1, .dim = { n * gq_numel(one) } };
  double *from = gq_tensor_data(push_empty(L, all));
  gqL_try(L, gq_brownian_areas(b, s, t, from));
  for (int i = 0; i < n; i++) {
    gq_tensor *w = push_empty(L, one);
    memcpy(gq_tensor_data(w), from + i * gq_numel(one), gq_numel(one) * sizeof(double));
    give(L, p, w);
  }
  if (!levy || one.ndim == 0 || one.ndim >= GQ_MAXDIM) return n;
  one.dim[one.ndim] = one.dim[one.ndim - 1], one.ndim++;
  gq_tensor *area = push_empty(L, one);
  gqL_try(L,
          gq_brownian_levy_areas(b, s, t, from, from + gq_numel(gq_brownian_shape(b)), gq_tensor_data(area)));
  give(L, p, area);
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

/* ---- for the solver ---- */

gq_brownian *gqL_topath(lua_State *L, int arg) {
  return luaL_testudata(L, arg, BROWNIAN) ? check_open(L, arg)->b : NULL;
}

gq_brownian **gqL_pushpath(lua_State *L) { return &push_path(L)->b; }

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
  gq_tensor *xi = push_empty(L, s);
  gq_cosines(key, (int)n, (size_t)gq_numel(row), gq_tensor_data(xi));
  return cast(L, xi, d, gq_host);
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
    "tol: times closer than it, by default 2^-18 of the interval, are joined by lines. "
    "levy_area: \"none\", \"space-time\" (b:areas(s, t) gives W and H), \"space-time-time\" (and K), "
    "\"davie\" or \"foster\" (W, H and approximate Levy areas of that interval). W = x, H = y, K = z: "
    "tensors of its shape that those over [t0, t1] are, the rest drawn" },
  { NULL, NULL, false, NULL },
};

void gqL_open_brownian(lua_State *L) {
  static const luaL_Reg core[] = { { "cosines", cosines }, { "seed", core_seed }, { NULL, NULL } };
  gqL_class(L, BROWNIAN, meta, NULL);
  gqL_register(L, functions);
  gqL_core(L, core);
}
