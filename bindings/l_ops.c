/*
** l_ops.c -- the operations of ir/ops.def as functions, methods and operators, matmul, where,
** clamp, reductions. All element-wise rows share three C functions with the op as upvalue 1.
*/
#include <math.h>
#include <string.h>
#include "bind.h"

/* ---- operands ---- */

static bool is_number(lua_State *L, int arg) { return lua_type(L, arg) == LUA_TNUMBER; }

/* A number beside a bool tensor makes it count: int64 for integers, the default float otherwise. */
static gq_dtype number_dtype(lua_State *L, int arg, gq_dtype like) {
  if (like != GQ_BOOL || lua_isboolean(L, arg)) return like;
  lua_Number x = lua_tonumber(L, arg);
  return x == floor(x) ? GQ_I64 : gqL_default_dtype(L);
}

/* The operands at args `first`, `first` + 1: tensors or numbers -> tensors of one dtype. */
static void operands(lua_State *L, int first, gq_tensor **t, const char *what) {
  for (int i = 0; i < 2; i++) t[i] = gqL_totensor(L, first + i);
  for (int i = 0; i < 2; i++) {
    const gq_tensor *other = t[1 - i];
    if (t[i] == NULL && other != NULL)
      t[i] = gqL_operand(L, first + i, number_dtype(L, first + i, other->dtype));
    else if (t[i] == NULL) t[i] = gqL_operand(L, first + i, gqL_default_dtype(L));
  }
  if (t[0]->dtype != t[1]->dtype) gqL_promote(L, 2, t, what);
}

/* A constant that belongs to the operation (a count, 0, 1), with t's dtype: no capture in a trace. */
static gq_tensor *beside(lua_State *L, double x, const gq_tensor *t) {
  return gqL_op(L, GQ_OP_CONST, 0, NULL, &(gq_attr){ .dtype = t->dtype, .x = x });
}

/* ---- element-wise ---- */

/* A number or name beside the one operand is another library's option (softplus's beta), and so is a table of such;
   what else a call leaves there, such as info behind z, is nobody's. */
static void check_alone(lua_State *L, const char *what) {
  static const char *const theirs[] = { "beta", "threshold", "inplace", "out", "approximate" };
  int given = lua_type(L, 2);
  bool option = given == LUA_TNUMBER || given == LUA_TSTRING;
  for (size_t i = 0; given == LUA_TTABLE && i < sizeof theirs / sizeof *theirs; i++) {
    lua_pushstring(L, theirs[i]);
    option |= lua_rawget(L, 2) != LUA_TNIL;
    lua_pop(L, 1);
  }
  if (!option) return;
  gqL_error(L, "%s takes one tensor, and knows no option: got %s beside it", what, gqL_typename(L, 2));
}

/* alone(name, other): of functions made of operations */
static int core_alone(lua_State *L) {
  lua_settop(L, 2);
  check_alone(L, luaL_checkstring(L, 1));
  return 0;
}

static int op_unary(lua_State *L) {
  gq_op op = (gq_op)lua_tointeger(L, lua_upvalueindex(1));
  check_alone(L, gq_ops[op].name);
  gq_tensor *t = gqL_operand(L, 1, gqL_default_dtype(L));
  gqL_op(L, op, 1, &t, NULL);
  return 1;
}

/* Small whole exponents are products: faster than POW, and exact at 0. */
static bool power(lua_State *L) {
  gq_tensor *x = gqL_totensor(L, 1);
  if (x == NULL || !gq_is_float(x->dtype) || !is_number(L, 2)) return false;
  double p = lua_tonumber(L, 2);
  if (p != 2 && p != 3 && p != 4) return false;
  gq_tensor *square = gqL_op(L, GQ_OP_SQUARE, 1, &x, NULL);
  if (p == 3) gqL_op(L, GQ_OP_MUL, 2, (gq_tensor *[]){ square, x }, NULL);
  else if (p == 4) gqL_op(L, GQ_OP_SQUARE, 1, &square, NULL);
  return true;
}

/* Arithmetic on bool means "and", "or": computed on integers, and made bool again. */
static gq_tensor *logical(lua_State *L, gq_op op, gq_tensor **t) {
  if (op == GQ_OP_ADD) op = GQ_OP_MAXIMUM;
  if (op != GQ_OP_MAXIMUM && op != GQ_OP_MINIMUM && op != GQ_OP_MUL)
    gqL_error(L, "%s of two bool tensors: convert with :to(\"int64\") or :to(\"float32\")", gq_ops[op].name);
  gq_tensor *n[2] = { gqL_cast(L, t[0], GQ_I64), gqL_cast(L, t[1], GQ_I64) };
  return gqL_cast(L, gqL_op(L, op, 2, n, NULL), GQ_BOOL);
}

/* Integers have no infinity for it. */
static void check_divisor(lua_State *L, const gq_tensor *y, const char *what) {
  if (y->dtype != GQ_I64 || !y->storage) return;
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_host((gq_tensor *)y, h));
  const int64_t *v = gq_tensor_data(*h);
  for (int64_t i = 0, n = gq_numel(y->shape); i < n; i++)
    if (v[i] == 0) gqL_error(L, "%s: an integer is divided by 0", what);
  lua_pop(L, 1);
}

static int op_binary(lua_State *L) {
  gq_op op = (gq_op)lua_tointeger(L, lua_upvalueindex(1));
  gq_tensor *t[2];
  lua_settop(L, 2);
  if (op == GQ_OP_POW && power(L)) return 1;
  gq_tensor *a = gqL_totensor(L, 1), *b = gqL_totensor(L, 2);
  bool real = op == GQ_OP_DIV || op == GQ_OP_POW; /* of integers: as Lua's / and ^, in floats */
  if (real && (a == NULL || !gq_is_float(a->dtype)) && (b == NULL || !gq_is_float(b->dtype))) {
    gq_dtype d = gqL_default_dtype(L);
    t[0] = a ? gqL_cast(L, a, d) : gqL_operand(L, 1, d);
    t[1] = b ? gqL_cast(L, b, d) : gqL_operand(L, 2, d);
  } else operands(L, 1, t, gq_ops[op].name);
  if (t[0]->dtype == GQ_BOOL) return logical(L, op, t), 1;
  if (op == GQ_OP_FLOOR_DIVIDE || op == GQ_OP_REMAINDER) check_divisor(L, t[1], gq_ops[op].name);
  gqL_op(L, op, 2, t, NULL);
  return 1;
}

static int op_compare(lua_State *L) {
  gq_op op = (gq_op)lua_tointeger(L, lua_upvalueindex(1));
  gq_tensor *t[2];
  lua_settop(L, 2);
  operands(L, 1, t, gq_ops[op].name);
  if (t[0]->dtype == GQ_BOOL)
    for (int i = 0; i < 2; i++) t[i] = gqL_cast(L, t[i], GQ_I64);
  gqL_op(L, op, 2, t, NULL);
  return 1;
}

/* ---- logic ---- */

static gq_tensor *as_bool(lua_State *L, int arg) {
  gq_tensor *t = gqL_checktensor(L, arg);
  return t->dtype == GQ_BOOL ? t : gqL_cast(L, t, GQ_BOOL);
}

static int op_and(lua_State *L) {
  gq_tensor *t[2] = { as_bool(L, 1), as_bool(L, 2) };
  logical(L, GQ_OP_MUL, t);
  return 1;
}

static int op_or(lua_State *L) {
  gq_tensor *t[2] = { as_bool(L, 1), as_bool(L, 2) };
  logical(L, GQ_OP_ADD, t);
  return 1;
}

static int op_not(lua_State *L) {
  lua_settop(L, 1);
  gq_tensor *t = gqL_cast(L, as_bool(L, 1), GQ_I64);
  gqL_op(L, GQ_OP_EQ, 2, (gq_tensor *[]){ t, beside(L, 0, t) }, NULL);
  return 1;
}

/* ---- where, clamp ---- */

/* x or y may be numbers; with two numbers the default dtype. */
static int op_where(lua_State *L) {
  gq_tensor *t[2];
  lua_settop(L, 3);
  gq_tensor *c = gqL_checktensor(L, 1);
  if (c->dtype != GQ_BOOL)
    return gqL_error(L,
                     "where: the condition must be bool, got %s: compare with x:gt(0) or use :to(\"bool\")",
                     gq_dtype_name(c->dtype));
  operands(L, 2, t, "where");
  gqL_op(L, GQ_OP_WHERE, 3, (gq_tensor *[]){ c, t[0], t[1] }, NULL);
  return 1;
}

/* One side of clamp: the limit at arg where `x op limit`. NaN stays; at the limit x keeps the gradient. */
static gq_tensor *limited(lua_State *L, gq_tensor *x, int arg, gq_op op) {
  if (lua_isnil(L, arg)) return x;
  gq_tensor *t[2] = { x, gqL_operand(L, arg, number_dtype(L, arg, x->dtype)) };
  if (t[0]->dtype != t[1]->dtype) gqL_promote(L, 2, t, "clamp");
  gq_tensor *c = gqL_op(L, op, 2, t, NULL);
  return gqL_op(L, GQ_OP_WHERE, 3, (gq_tensor *[]){ c, t[1], t[0] }, NULL);
}

static int op_clamp(lua_State *L) {
  lua_settop(L, 3);
  gq_tensor *x = gqL_checktensor(L, 1);
  if (lua_isnil(L, 2) && lua_isnil(L, 3)) return gqL_error(L, "clamp: a minimum, a maximum or both expected");
  x = limited(L, x, 2, GQ_OP_LT);
  limited(L, x, 3, GQ_OP_GT);
  return 1;
}

/* ---- products ---- */

static gq_shape two_dims(gq_shape s, bool left) {
  if (s.ndim >= 2) return s;
  return left ? (gq_shape){ 2, { 1, s.dim[0] } } : (gq_shape){ 2, { s.dim[0], 1 } };
}

/* As NumPy: a 1-d operand is a row on the left, a column on the right, and its dimension goes. */
static int op_matmul(lua_State *L) {
  lua_settop(L, 2);
  gq_tensor *t[2] = { gqL_checktensor(L, 1), gqL_checktensor(L, 2) };
  bool row = t[0]->shape.ndim == 1, column = t[1]->shape.ndim == 1;
  if (t[0]->shape.ndim == 0 || t[1]->shape.ndim == 0)
    return gqL_error(L, "matmul: operands have at least one dimension; multiply by a number with *");
  if (t[0]->dtype != t[1]->dtype) gqL_promote(L, 2, t, "matmul");
  for (int i = 0; i < 2; i++) {
    gq_shape s = two_dims(t[i]->shape, i == 0);
    if (s.ndim != t[i]->shape.ndim) t[i] = gqL_reshape(L, t[i], s);
  }
  gq_tensor *c = gqL_op(L, GQ_OP_MATMUL, 2, t, NULL);
  gq_shape s = c->shape;
  if (column) s.ndim--;
  if (row) {
    s.ndim--;
    if (!column) s.dim[s.ndim - 1] = c->shape.dim[c->shape.ndim - 1];
  }
  if (row || column) gqL_reshape(L, c, s);
  return 1;
}

/* ---- reductions ---- */

/* Arguments 2 (none, a dimension or a table of them) and 3 (keepdim) of a reduction. */
typedef struct axes {
  int mask, single; /* single: the one dimension given as a number, or -1 */
  bool keep;
} axes;

static void add_axis(lua_State *L, axes *a, int arg, int ndim, const char *what) {
  int i = gqL_axis(L, arg, ndim);
  if (a->mask >> i & 1) gqL_error(L, "%s: dimension %d is named twice", what, i + 1);
  a->mask |= 1 << i;
}

/* Of a table of dimensions at 2: names in it would be lost. */
static void check_list(lua_State *L, const char *what) {
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING)
      gqL_error(L, "%s: a list of dimensions expected, got the key '%s': write x:%s({1, 2}, keepdim)", what,
                lua_tostring(L, -2), what);
}

static axes check_axes(lua_State *L, const gq_tensor *t, const char *what) {
  axes a = { .single = -1 };
  int ndim = t->shape.ndim;
  lua_settop(L, 3);
  if (!lua_isnil(L, 3)) gqL_checktype(L, 3, LUA_TBOOLEAN);
  a.keep = lua_toboolean(L, 3);
  if (lua_istable(L, 2)) {
    check_list(L, what);
    for (lua_Unsigned i = 1, n = lua_rawlen(L, 2); i <= n; i++) {
      lua_rawgeti(L, 2, (lua_Integer)i);
      lua_replace(L, 3);
      add_axis(L, &a, 3, ndim, what);
    }
  } else if (!lua_isnil(L, 2)) {
    add_axis(L, &a, 2, ndim, what);
    a.single = gqL_axis(L, 2, ndim);
  }
  if (a.mask == 0) a.mask = (1 << ndim) - 1;
  return a;
}

static gq_tensor *drop_axes(lua_State *L, gq_tensor *t, int mask, bool keep) {
  gq_shape s = { 0 };
  if (keep || t->shape.ndim == 0) return t;
  for (int i = 0; i < t->shape.ndim; i++)
    if (!(mask >> i & 1)) s.dim[s.ndim++] = t->shape.dim[i];
  return gqL_reshape(L, t, s);
}

static int64_t count_over(const gq_tensor *t, int mask) {
  int64_t n = 1;
  for (int i = 0; i < t->shape.ndim; i++)
    if (mask >> i & 1) n *= t->shape.dim[i];
  return n;
}

static gq_tensor *summed(lua_State *L, gq_tensor *t, axes a) {
  if (t->dtype == GQ_BOOL) t = gqL_cast(L, t, GQ_I64);
  if (t->shape.ndim == 0) return gqL_clone(L, t);
  t = gqL_op(L, GQ_OP_SUM, 1, &t, &(gq_attr){ .flags = a.mask });
  return drop_axes(L, t, a.mask, a.keep);
}

static int op_sum(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  summed(L, t, check_axes(L, t, "sum"));
  return 1;
}

static int op_mean(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  axes a = check_axes(L, t, "mean");
  if (!gq_is_float(t->dtype)) t = gqL_cast(L, t, gqL_default_dtype(L));
  double n = (double)count_over(t, a.mask);
  t = summed(L, t, a);
  gqL_op(L, GQ_OP_DIV, 2, (gq_tensor *[]){ t, beside(L, n, t) }, NULL);
  return 1;
}

/* Reduced dimensions first and as one: {n, the others}. */
static gq_tensor *gathered(lua_State *L, gq_tensor *t, int mask) {
  gq_attr attr = { 0 };
  gq_shape s = { 1, { count_over(t, mask) } };
  int k = 0;
  for (int i = 0; i < t->shape.ndim; i++)
    if (mask >> i & 1) attr.perm[k++] = i;
  for (int i = 0; i < t->shape.ndim; i++)
    if (!(mask >> i & 1)) {
      attr.perm[k++] = i;
      s.dim[s.ndim++] = t->shape.dim[i];
    }
  t = gqL_op(L, GQ_OP_PERMUTE, 1, &t, &attr);
  return gqL_reshape(L, t, s);
}

static gq_tensor *rows_of(lua_State *L, gq_tensor *t, int64_t first, int64_t n) {
  gq_attr attr = { .shape = t->shape };
  for (int i = 0; i < t->shape.ndim; i++) attr.step[i] = 1;
  attr.start[0] = first;
  attr.shape.dim[0] = n;
  return gqL_op(L, GQ_OP_SLICE, 1, &t, &attr);
}

/* Product over the first dimension as a tree of products: each derivative is that of MUL. */
static gq_tensor *multiplied(lua_State *L, gq_tensor *t) {
  for (int64_t n = t->shape.dim[0]; n > 1; n = t->shape.dim[0]) {
    luaL_checkstack(L, 10, "prod");
    int64_t half = n / 2;
    gq_tensor *p[2] = { rows_of(L, t, 0, half), rows_of(L, t, half, half) };
    gq_tensor *m = gqL_op(L, GQ_OP_MUL, 2, p, NULL);
    if (n % 2) { /* the odd row waits for the next round */
      gq_tensor *both[2] = { m, rows_of(L, t, n - 1, 1) };
      m = gqL_op(L, GQ_OP_CAT, 2, both, &(gq_attr){ .axis = 0 });
    }
    t = m;
  }
  return t;
}

static int op_prod(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  axes a = check_axes(L, t, "prod");
  if (t->dtype == GQ_BOOL) t = gqL_cast(L, t, GQ_I64);
  gq_shape s = t->shape;
  for (int i = 0; i < s.ndim; i++)
    if (a.mask >> i & 1) s.dim[i] = 1;
  gq_tensor *p = multiplied(L, gathered(L, t, a.mask));
  if (p->shape.dim[0] == 0) { /* the empty product, of which t is told as of any other */
    p = gqL_op(L, GQ_OP_SUM, 1, &p, &(gq_attr){ .flags = 1 });
    p = gqL_op(L, GQ_OP_ADD, 2, (gq_tensor *[]){ p, beside(L, 1, p) }, NULL);
  } else if (count_over(t, a.mask) == 1) p = gqL_clone(L, p);
  drop_axes(L, gqL_reshape(L, p, s), a.mask, a.keep);
  return 1;
}

static void not_empty(lua_State *L, const gq_tensor *t, int mask, const char *what) {
  if (count_over(t, mask) == 0) gqL_error(L, "%s: there is no largest or smallest of no numbers", what);
}

/* max, min: all, or over dimensions; of one dimension also the positions. Two tensors: entry by entry. */
static int extreme(lua_State *L, gq_op value, gq_op place, gq_op two, const char *what) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (gqL_totensor(L, 2) != NULL) {
    gq_tensor *both[2];
    operands(L, 1, both, what);
    gqL_op(L, two, 2, both, NULL);
    return 1;
  }
  axes a = check_axes(L, t, what);
  not_empty(L, t, a.mask, what);
  if (t->dtype == GQ_BOOL) t = gqL_cast(L, t, GQ_I64);
  if (t->shape.ndim == 0) return gqL_clone(L, t), 1;
  gq_tensor *v = gqL_op(L, value, 1, &t, &(gq_attr){ .flags = a.mask });
  drop_axes(L, v, a.mask, a.keep);
  if (a.single < 0) return 1;
  int at = lua_gettop(L);
  gq_tensor *i = gqL_op(L, place, 1, &t, &(gq_attr){ .axis = a.single });
  drop_axes(L, i, a.mask, a.keep);
  lua_pushvalue(L, at);
  lua_insert(L, -2);
  return 2;
}

static int op_max(lua_State *L) { return extreme(L, GQ_OP_AMAX, GQ_OP_ARGMAX, GQ_OP_MAXIMUM, "max"); }

static int op_min(lua_State *L) { return extreme(L, GQ_OP_AMIN, GQ_OP_ARGMIN, GQ_OP_MINIMUM, "min"); }

/* argmax(x [, dim [, keepdim]]): without dim the position in x:flatten(). */
static int extreme_place(lua_State *L, gq_op place, const char *what) {
  gq_tensor *t = gqL_checktensor(L, 1);
  if (lua_istable(L, 2)) return gqL_error(L, "%s: one dimension expected, got a table", what);
  axes a = check_axes(L, t, what);
  not_empty(L, t, a.mask, what);
  if (t->dtype == GQ_BOOL) t = gqL_cast(L, t, GQ_I64);
  int ndim = t->shape.ndim;
  if (a.single < 0) t = gqL_reshape(L, t, (gq_shape){ 1, { gq_numel(t->shape) } });
  gq_tensor *i = gqL_op(L, place, 1, &t, &(gq_attr){ .axis = a.single < 0 ? 0 : a.single });
  gq_shape ones = { .ndim = a.keep ? ndim : 0 };
  for (int k = 0; k < ones.ndim; k++) ones.dim[k] = 1;
  if (a.single < 0) gqL_reshape(L, i, ones);
  else drop_axes(L, i, a.mask, a.keep);
  return 1;
}

static int op_argmax(lua_State *L) { return extreme_place(L, GQ_OP_ARGMAX, "argmax"); }

static int op_argmin(lua_State *L) { return extreme_place(L, GQ_OP_ARGMIN, "argmin"); }

/* any, all: bool reductions by maximum and minimum of 0 and 1; of nothing: false and true. */
static int truth(lua_State *L, gq_op op, double empty, const char *what) {
  lua_settop(L, 3);
  gq_tensor *t = gqL_cast(L, as_bool(L, 1), GQ_I64);
  lua_pushvalue(L, -1);
  lua_replace(L, 1);
  axes a = check_axes(L, t, what);
  if (count_over(t, a.mask) == 0) {
    gq_shape s = t->shape;
    for (int i = 0; i < s.ndim; i++)
      if (a.mask >> i & 1) s.dim[i] = 1;
    gq_tensor *x = beside(L, empty, t);
    t = gqL_op(L, GQ_OP_EXPAND, 1, &x, &(gq_attr){ .shape = s });
  } else if (t->shape.ndim > 0) t = gqL_op(L, op, 1, &t, &(gq_attr){ .flags = a.mask });
  gqL_cast(L, drop_axes(L, t, a.mask, a.keep), GQ_BOOL);
  return 1;
}

static int op_any(lua_State *L) { return truth(L, GQ_OP_AMAX, 0, "any"); }

static int op_all(lua_State *L) { return truth(L, GQ_OP_AMIN, 1, "all"); }

/* core.normal_fit(x): means and deviations along the last axis; nothing while a function is traced. */
static int core_normal_fit(lua_State *L) {
  gq_tensor *x = gqL_checktensor(L, 1);
  if (x->trace || gq_trace_current() != NULL) return 0;
  gq_tensor **mean = gqL_pushtensor(L), **deviation = gqL_pushtensor(L);
  gqL_retry(L, gq_normal_fit(x, mean, deviation));
  gqL_held(L, 2);
  gqL_counted(L);
  return 2;
}

static const gqL_function functions[] = {
  { "where", op_where, true, "gq.where(c, x, y): x where c is true, else y; broadcasting" },
  { "clamp", op_clamp, true, "x:clamp([min [, max]]): x between min and max" },
  { "matmul", op_matmul, true,
    "a:matmul(b): matrix product; leading dimensions broadcast, 1-d operands are vectors" },
  { "sum", op_sum, true, "x:sum([dims [, keepdim]])" },
  { "mean", op_mean, true, "x:mean([dims [, keepdim]])" },
  { "prod", op_prod, true, "x:prod([dims [, keepdim]]): product" },
  { "max", op_max, true, "x:max([dim [, keepdim]]): largest; with a dim also where; x:max(y): maximum" },
  { "min", op_min, true, "x:min([dim [, keepdim]]): smallest; with a dim also where; x:min(y): minimum" },
  { "argmax", op_argmax, true, "x:argmax([dim [, keepdim]]): position of the first largest, from 1" },
  { "argmin", op_argmin, true, "x:argmin([dim [, keepdim]]): position of the first smallest, from 1" },
  { "any", op_any, true, "x:any([dims [, keepdim]]): is one of them true?" },
  { "all", op_all, true, "x:all([dims [, keepdim]]): are all of them true?" },
  { "logical_and", op_and, true, "gq.logical_and(x, y)" },
  { "logical_or", op_or, true, "gq.logical_or(x, y)" },
  { "logical_not", op_not, true, "gq.logical_not(x)" },
  { NULL, NULL, false, NULL }
};

/* ---- the table ---- */

static const char *const kind_names[] = { "unary", "binary", "compare", "other" };

/* gq.core.ops[i] = {name, kind, doc}: tests loop over the rows. */
static void describe(lua_State *L, int ops, int row) {
  lua_createtable(L, 0, 3);
  gqL_setstring(L, "name", gq_ops[row].name);
  gqL_setstring(L, "kind", kind_names[gq_ops[row].kind]);
  gqL_setstring(L, "doc", gq_ops[row].doc);
  lua_rawseti(L, ops, (lua_Integer)lua_rawlen(L, ops) + 1);
}

static void open_row(lua_State *L, int gq, int meta, int row) {
  static const lua_CFunction shared[] = { op_unary, op_binary, op_compare };
  const gq_op_info *info = &gq_ops[row];
  if (info->kind == GQ_K_OTHER) return;
  lua_pushinteger(L, row);
  lua_pushcclosure(L, shared[info->kind], 1);
  if (info->meta != NULL) {
    lua_pushvalue(L, -1);
    lua_setfield(L, meta, info->meta);
  }
  lua_pushvalue(L, gq);
  lua_insert(L, -2);
  gqL_setfunction(L, info->name, true, info->doc);
  lua_pop(L, 1);
}

void gqL_open_ops(lua_State *L) {
  static const luaL_Reg core[] = { { "normal_fit", core_normal_fit },
                                   { "alone", core_alone },
                                   { NULL, NULL } };
  int gq = lua_gettop(L);
  gqL_register(L, functions);
  gqL_pushtensorclass(L);
  lua_newtable(L);
  for (int row = 0; row < GQ_NOP; row++) {
    describe(L, gq + 2, row);
    open_row(L, gq, gq + 1, row);
  }
  lua_getfield(L, gq, "core");
  lua_insert(L, -2);
  lua_setfield(L, -2, "ops");
  lua_settop(L, gq);
  gqL_core(L, core);
}
