/*
** l_tensor.c -- tensors as Lua values: the metatable of their handles, properties, numbers out, printing.
*/
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "bind.h"

/* ---- handles ---- */

/* Also __gc and __close. A handle may be freed twice, or by hand through its metatable. */
static int tensor_free(lua_State *L) {
  gq_tensor **h = gqL_tohandle(L, 1);
  if (h == NULL) {
    gqL_checktensor(L, 1);
    return 0;
  }
  gq_tensor *t = *h;
  *h = NULL;
  gq_tensor_unref(t);
  return 0;
}

static int tensor_same(lua_State *L) {
  gq_tensor *a = gqL_totensor(L, 1), *b = gqL_totensor(L, 2);
  lua_pushboolean(L, a != NULL && a == b);
  return 1;
}

/* ---- properties ---- */

static void push_shape(lua_State *L, gq_shape s) {
  lua_createtable(L, s.ndim, 0);
  for (int i = 0; i < s.ndim; i++) {
    lua_pushinteger(L, s.dim[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_lent(lua_State *L, gq_tensor *t_) {
  if (t_ == NULL) {
    lua_pushnil(L);
    return;
  }
  gq_tensor **h = gqL_pushtensor(L);
  *h = gq_tensor_ref(t_);
}

static bool push_property(lua_State *L, const gq_tensor *t, const char *key) {
  if (strcmp(key, "shape") == 0) push_shape(L, t->shape);
  else if (strcmp(key, "dtype") == 0) lua_pushstring(L, gq_dtype_name(t->dtype));
  else if (strcmp(key, "device") == 0) lua_pushstring(L, gq_place_of(t)->name);
  else if (strcmp(key, "grad") == 0) push_lent(L, t->grad);
  else if (strcmp(key, "requires_grad") == 0) lua_pushboolean(L, t->requires_grad);
  else if (strcmp(key, "is_leaf") == 0) lua_pushboolean(L, t->tape == NULL && t->trace == 0);
  else return false;
  return true;
}

/* Methods are upvalue 1. Unknown names give nil, as a table would. */
static int tensor_index(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (lua_type(L, 2) != LUA_TSTRING) return gqL_index(L);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  if (!push_property(L, t, lua_tostring(L, 2))) { /* hints.lua tells of others' names */
    lua_settop(L, 2);
    lua_gettable(L, lua_upvalueindex(1));
  }
  return 1;
}

static void set_requires_grad(lua_State *L, gq_tensor *t, int arg) {
  gqL_checktype(L, arg, LUA_TBOOLEAN);
  bool on = lua_toboolean(L, arg);
  if (t->trace) gqL_error(L, "requires_grad cannot be set on a traced tensor");
  if (t->tape)
    gqL_error(L, "requires_grad can be set on leaves only; this tensor is a result: use x:detach()");
  if (on && !gq_is_float(t->dtype))
    gqL_error(
      L, "a tensor of dtype %s cannot require a gradient: convert with :to(\"float32\") or :to(\"float64\")",
      gq_dtype_name(t->dtype));
  t->requires_grad = on;
}

static void set_grad(lua_State *L, gq_tensor *t, int arg) {
  gq_tensor *g = NULL;
  if (!lua_isnil(L, arg)) {
    g = gqL_checktensor(L, arg);
    if (g->dtype != t->dtype || !gq_shape_equal(g->shape, t->shape) || g->storage == NULL || g == t)
      gqL_error(L, "grad of a %s must be nil or a tensor of the same dtype and shape, got %s",
                gqL_typename(L, 1), gqL_typename(L, arg));
    if (t->tape || t->trace) gqL_error(L, "grad can be set on leaves only");
    if (g->tape || g->requires_grad)
      gqL_error(L, "grad cannot hold a tensor that carries a gradient: use :detach()");
  }
  gq_tensor *old = t->grad;
  t->grad = g ? gq_tensor_ref(g) : NULL;
  gq_tensor_unref(old);
}

static int tensor_newindex(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (lua_type(L, 2) != LUA_TSTRING) return gqL_newindex(L);
  const char *key = lua_tostring(L, 2);
  if (strcmp(key, "requires_grad") == 0) set_requires_grad(L, t, 3);
  else if (strcmp(key, "grad") == 0) set_grad(L, t, 3);
  else
    return gqL_error(
      L,
      "a tensor has no field '%s' that can be set (requires_grad and grad can; entries: x[i] = v, "
      "x[{...}] = v)",
      key);
  return 0;
}

static int tensor_len(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (t->shape.ndim == 0) return gqL_error(L, "a 0-d tensor has no length; its number is x:item()");
  lua_pushinteger(L, t->shape.dim[0]);
  return 1;
}

static int tensor_dim(lua_State *L) {
  lua_pushinteger(L, gqL_checktensor(L, 1)->shape.ndim);
  return 1;
}

static int tensor_numel(lua_State *L) {
  lua_pushinteger(L, gq_numel(gqL_checktensor(L, 1)->shape));
  return 1;
}

static int tensor_size(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (lua_isnoneornil(L, 2)) push_shape(L, t->shape);
  else lua_pushinteger(L, t->shape.dim[gqL_axis(L, 2, t->shape.ndim)]);
  return 1;
}

static int is_contiguous(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  lua_pushboolean(L, t->storage == NULL || gq_tensor_contiguous(t));
  return 1;
}

static int is_tensor(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, gqL_totensor(L, 1) != NULL);
  return 1;
}

/* ---- numbers out ---- */

static void push_number(lua_State *L, const gq_tensor *t, const void *data, int64_t i) {
  switch (t->dtype) {
    case GQ_F32: lua_pushnumber(L, ((const float *)data)[i]); break;
    case GQ_F64: lua_pushnumber(L, ((const double *)data)[i]); break;
    case GQ_I64: lua_pushinteger(L, ((const int64_t *)data)[i]); break;
    default: lua_pushboolean(L, ((const uint8_t *)data)[i]); break;
  }
}

gq_tensor *gqL_onhost(lua_State *L, gq_tensor *t) {
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_host(t, h));
  return *h;
}

static int tensor_item(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  gqL_checknumbers(L, t, "item");
  if (gq_numel(t->shape) != 1)
    return gqL_error(L, "item: one number expected, got %s: use x:totable() or an index", gqL_typename(L, 1));
  if (gq_tensor_device(t) != gq_host) t = gqL_onhost(L, t);
  push_number(L, t, gq_tensor_data(t), 0);
  return 1;
}

/* The sub-block of dimension d.. that starts at number *i. */
static void push_table(lua_State *L, const gq_tensor *t, const void *data, int d, int64_t *i) {
  if (d == t->shape.ndim) {
    push_number(L, t, data, (*i)++);
    return;
  }
  int64_t n = t->shape.dim[d];
  lua_createtable(L, n < INT32_MAX ? (int)n : 0, 0);
  for (int64_t k = 1; k <= n; k++) {
    push_table(L, t, data, d + 1, i);
    lua_rawseti(L, -2, k);
  }
}

static int tensor_totable(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  gqL_checknumbers(L, t, "totable");
  t = gqL_onhost(L, t);
  luaL_checkstack(L, GQ_MAXDIM + 4, "totable");
  int64_t i = 0;
  push_table(L, t, gq_tensor_data(t), 0, &i);
  return 1;
}

/* ---- printing: tensor({{1, 2}, {3, 4}}, float64) ---- */

#define SHOWN 1000 /* more numbers than this: only the ends of each dimension */
#define ENDS 3

typedef struct printer {
  const gq_tensor *t;
  const void *data;
  luaL_Buffer *b;
  bool cut;
  int width;   /* of the widest number shown */
  int columns; /* of the terminal; 0: rows are lines */
} printer;

/* NaN without the sign that the C library would show. */
static int float_text(double x, int digits, char *text, size_t n) {
  return isnan(x) ? snprintf(text, n, "nan") : snprintf(text, n, "%.*g", digits, x);
}

static int number_text(const printer *p, int64_t i, char *text, size_t n) {
  switch (p->t->dtype) {
    case GQ_F32: return float_text(((const float *)p->data)[i], 6, text, n);
    case GQ_F64: return float_text(((const double *)p->data)[i], 8, text, n);
    case GQ_I64: return snprintf(text, n, "%lld", (long long)((const int64_t *)p->data)[i]);
    default: return snprintf(text, n, "%s", ((const uint8_t *)p->data)[i] ? "true" : "false");
  }
}

/* Entries 0..n-1 of a dimension; ENDS of either side when cut. Writes only if p->b. */
static void print_block(printer *p, int d, int64_t at) {
  char text[64];
  gq_shape s = p->t->shape;
  if (d == s.ndim) {
    int n = number_text(p, at, text, sizeof text);
    if (p->b == NULL) p->width = n > p->width ? n : p->width;
    else {
      for (; n < p->width; n++) luaL_addchar(p->b, ' ');
      luaL_addstring(p->b, text);
    }
    return;
  }
  int64_t n = s.dim[d], inner = 1;
  for (int k = d + 1; k < s.ndim; k++) inner *= s.dim[k];
  int indent = d + 1 + 7, shown = 0; /* under the first entry, after "tensor(" */
  int fit = p->columns ? (p->columns - indent - s.ndim - 1) / (p->width + 2) : INT_MAX;
  bool last = d == s.ndim - 1;
  if (p->b) luaL_addchar(p->b, '{');
  for (int64_t i = 0; i < n; i++, shown++) {
    if (p->b && i > 0) {
      bool turn = !last || fit < 2 || shown % fit == 0;
      luaL_addstring(p->b, turn ? ",\n" : ", ");
      for (int k = 0; turn && k < indent; k++) luaL_addchar(p->b, ' ');
    }
    if (p->cut && n > 2 * ENDS && i == ENDS) {
      if (p->b) luaL_addstring(p->b, "...");
      i = n - ENDS - 1;
    } else print_block(p, d + 1, at + i * inner);
  }
  if (p->b) luaL_addchar(p->b, '}');
}

static int tensor_tostring(lua_State *L) {
  gq_tensor **h = gqL_tohandle(L, 1);
  if (h == NULL) return gqL_checktensor(L, 1), 0;
  gq_tensor *t = *h;
  if (t == NULL) {
    lua_pushliteral(L, "tensor (freed)");
    return 1;
  }
  if (t->storage == NULL) {
    gqL_typename(L, 1);
    return 1;
  }
  t = gqL_onhost(L, t);
  luaL_Buffer b;
  printer p = { t, gq_tensor_data(t), NULL, gq_numel(t->shape) > SHOWN, 0, gqL_columns(NULL) };
  if (gq_numel(t->shape) > 0) print_block(&p, 0, 0);
  luaL_buffinit(L, &b);
  p.b = &b;
  luaL_addstring(&b, "tensor(");
  char text[256];
  if (gq_numel(t->shape) > 0) print_block(&p, 0, 0);
  else luaL_addstring(&b, "{}");
  if (gq_numel(t->shape) == 0 || p.cut) {
    luaL_addstring(&b, ", shape ");
    luaL_addstring(&b, gq_shape_text(t->shape, text, sizeof text));
  }
  luaL_addstring(&b, ", ");
  luaL_addstring(&b, gq_dtype_name(t->dtype));
  if ((*h)->requires_grad) luaL_addstring(&b, ", requires_grad");
  luaL_addchar(&b, ')');
  luaL_pushresult(&b);
  return 1;
}

static int tensor_pairs(lua_State *L) {
  return gqL_error(L, "pairs: a tensor has no keys: loop with for i = 1, #x, or for i, row in x:ipairs()");
}

/* ---- comparing as Lua does: one number with one number ---- */

/* The number at arg, or the one number of a tensor, pushed: int64 as an integer, which a double may not hold. */
static void push_one(lua_State *L, int arg) {
  static const int64_t first[GQ_MAXDIM];
  if (lua_type(L, arg) == LUA_TNUMBER) {
    lua_pushvalue(L, arg);
    return;
  }
  gq_tensor *t = gqL_checktensor(L, arg);
  gqL_checknumbers(L, t, "comparing with < or <=");
  if (gq_numel(t->shape) != 1)
    gqL_error(L, "< and <= compare single numbers, got %s: use x:lt(y), x:le(y) and gq.where",
              gqL_typename(L, arg));
  if (t->dtype == GQ_I64) lua_pushinteger(L, gq_tensor_get_int(t, first));
  else lua_pushnumber(L, gq_tensor_get(t, first));
  gqL_try(L, GQ_OK); /* a device may have failed */
}

static int compare(lua_State *L, int op) {
  push_one(L, 1);
  push_one(L, 2);
  lua_pushboolean(L, lua_compare(L, -2, -1, op));
  return 1;
}

static int tensor_lt(lua_State *L) { return compare(L, LUA_OPLT); }
static int tensor_le(lua_State *L) { return compare(L, LUA_OPLE); }

/* ---- copies ---- */

static int tensor_detach(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (t->trace)
    return gqL_error(
      L, "detach: a traced value cannot be detached; detach captured tensors outside the function");
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_view(t, t->shape, t->stride, t->offset, h));
  return 1;
}

gq_tensor *gqL_clone(lua_State *L, gq_tensor *t) {
  gq_attr same = { .shape = t->shape };
  if (t->trace || (t->requires_grad && gq_trace_current())) return gqL_op(L, GQ_OP_RESHAPE, 1, &t, &same);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty_on(gq_tensor_device(t), t->dtype, t->shape, h));
  gqL_retry(L, gq_tensor_copy(*h, t));
  gqL_try(L, gq_record(GQ_OP_RESHAPE, 1, &t, &same, *h));
  gqL_held(L, 1);
  gqL_counted(L);
  return *h;
}

static int tensor_clone(lua_State *L) { return gqL_clone(L, gqL_checktensor(L, 1)), 1; }

static int tensor_contiguous(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (t->storage != NULL && !gq_tensor_contiguous(t)) return tensor_clone(L);
  lua_settop(L, 1);
  return 1;
}

/* What has no int64 is told of: NaN, and beyond +-2^63. */
static void check_integers(lua_State *L, gq_tensor *t) {
  if (!gq_is_float(t->dtype) || !t->storage) return;
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_host(t, h));
  const void *v = gq_tensor_data(*h);
  for (int64_t i = 0, n = gq_numel(t->shape); i < n; i++) {
    double x = gq_number(t->dtype, v, i);
    if (!(x >= (double)INT64_MIN && x < -(double)INT64_MIN))
      gqL_error(
        L, "to: %f is no int64: take it out before, as by gq.where(x:isfinite(), x, 0) or x:clamp(a, b)", x);
  }
  lua_pop(L, 1);
}

static int tensor_to(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  const char *to = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;
  const gq_backend *b = to ? gq_backend_find(to) : NULL;
  gq_dtype d;
  bool cast = to && gq_dtype_of(to, &d);
  if (to && !cast && !b && *gq_backend_missing(to)) gqL_device(L, to, "to");
  if (!lua_isnoneornil(L, 3))
    return gqL_error(L, "to: one dtype or device: write x:to(\"float64\"):to(\"cpu\")");
  if (!cast && !b)
    return gqL_error(L,
                     "to: dtype \"float32\", \"float64\", \"int64\", \"bool\" or device %s expected, got %s",
                     gqL_devices(L), gqL_typename(L, 2));
  if (cast ? d == t->dtype : b->device == gq_place_of(t)) return lua_settop(L, 1), 1;
  if (cast && d == GQ_I64) check_integers(L, t);
  if (cast) gqL_op(L, GQ_OP_CAST, 1, &t, &(gq_attr){ .dtype = d });
  else {
    gqL_retry(L, gq_to_device(t, b->device, gqL_pushtensor(L)));
    gqL_held(L, 1);
  }
  return 1;
}

/* copy_(x, y): y's numbers into x, broadcasting. */
static int tensor_copy_into(lua_State *L) {
  gqL_checktensor(L, 1);
  lua_settop(L, 2);
  lua_newtable(L);
  lua_insert(L, 2);
  return gqL_newindex(L), lua_settop(L, 1), 1;
}

static const gqL_function functions[] = {
  { "dim", tensor_dim, true, "x:dim(): number of dimensions" },
  { "numel", tensor_numel, true, "x:numel(): how many numbers x holds" },
  { "size", tensor_size, true, "x:size([dim]): the shape, or the size of one dimension" },
  { "item", tensor_item, true, "x:item(): the number of a tensor of one element" },
  { "totable", tensor_totable, true, "x:totable(): nested tables of numbers" },
  { "clone", tensor_clone, true, "x:clone(): a copy with storage of its own; differentiable" },
  { "detach", tensor_detach, true, "x:detach(): the same numbers without gradient" },
  { "contiguous", tensor_contiguous, true, "x:contiguous(): x itself, or a packed copy" },
  { "is_contiguous", is_contiguous, true, "x:is_contiguous(): are the numbers packed in row-major order?" },
  { "to", tensor_to, true, "x:to(dtype | device): converted; differentiable between floats" },
  { "copy_", tensor_copy_into, true, "x:copy_(y): y's numbers into x, broadcasting; returns x" },
  { "free", tensor_free, true, "x:free(): give the memory back now; x cannot be used afterwards" },
  { "is_tensor", is_tensor, false, "gq.is_tensor(v): is v a tensor?" },
  { NULL, NULL, false, NULL }
};

/* x .. text: the number of one element, other tensors as print shows them. */
static int tensor_concat(lua_State *L) {
  for (int i = 1; i <= 2; i++) {
    gq_tensor *t = gqL_totensor(L, i);
    if (t) gqL_checknumbers(L, t, "..");
    if (t && gq_numel(t->shape) == 1) {
      if (gq_tensor_device(t) != gq_host) t = gqL_onhost(L, t);
      push_number(L, t, gq_tensor_data(t), 0);
    } else if (!t && !lua_isstring(L, i)) {
      return gqL_error(L, "..: text, a number or a tensor expected, got %s", gqL_typename(L, i));
    } else {
      lua_pushvalue(L, i);
    }
    luaL_tolstring(L, -1, NULL);
    lua_replace(L, i);
    lua_settop(L, 2);
  }
  lua_concat(L, 2);
  return 1;
}

static int no_bits(lua_State *L) {
  return gqL_error(L,
                   "& | ~ << >> are for integers: write a:logical_and(b), a:logical_or(b), a:logical_not()");
}

static const luaL_Reg metamethods[] = { { "__newindex", tensor_newindex },
                                        { "__len", tensor_len },
                                        { "__pairs", tensor_pairs },
                                        { "__tostring", tensor_tostring },
                                        { "__gc", tensor_free },
                                        { "__close", tensor_free },
                                        { "__eq", tensor_same },
                                        { "__lt", tensor_lt },
                                        { "__le", tensor_le },
                                        { "__concat", tensor_concat },
                                        { "__band", no_bits },
                                        { "__bor", no_bits },
                                        { "__bxor", no_bits },
                                        { "__bnot", no_bits },
                                        { "__shl", no_bits },
                                        { "__shr", no_bits },
                                        { NULL, NULL } };

/* The name ends up in messages of Lua's own functions: "number expected, got tensor (...)". */
#define NAME "tensor (use gq.sin, gq.exp, gq.abs, ... on tensors, not the functions of math)"

void gqL_open_tensor(lua_State *L) {
  gqL_register(L, functions);
  gqL_pushtensorclass(L);
  luaL_setfuncs(L, metamethods, 0);
  gqL_setstring(L, "__name", NAME);
  lua_getfield(L, -2, "core");
  lua_getfield(L, -1, "methods");
  lua_remove(L, -2);
  lua_pushcclosure(L, tensor_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
