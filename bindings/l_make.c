/*
** l_make.c -- constructors: tensors from tables, filled with numbers, or drawn at random.
*/
#include <math.h>
#include <string.h>
#include "bind.h"

/* ---- options of every constructor ---- */

static const char *const known_options[] = { "dtype", "device", "requires_grad", NULL };
static const char *const draw_options[] = { "dtype", "device", "requires_grad", "seed", NULL };

static gq_dtype check_options(lua_State *L, int arg, const char *what, const char *const *known) {
  gqL_checkoptions(L, arg, known, what);
  const char *device = gqL_optstring(L, arg, "device", NULL);
  if (device) gqL_device(L, device, what);
  gq_dtype d = gqL_optdtype(L, arg, "dtype");
  if (gqL_optbool(L, arg, "requires_grad", false) && !gq_is_float(d))
    gqL_error(L, "%s: a tensor of dtype %s cannot require a gradient", what, gq_dtype_name(d));
  return d;
}

/* gqL_try may raise after a call that went well, for an earlier one: by then it is the handle's. */
static int place(gq_tensor **h, const gq_device *d) {
  gq_tensor *there;
  GQ_TRY(gq_tensor_on(*h, d, &there));
  gq_tensor_unref(*h);
  *h = there;
  return GQ_OK;
}

void gqL_place(lua_State *L, const gq_device *d) {
  gq_tensor **h = lua_touserdata(L, -1);
  if (d != gq_place_of(*h)) gqL_retry(L, place(h, d));
}

/* The tensor at the top as it is asked for: on the device of the options, or on this. */
static int finish_on(lua_State *L, int options, const gq_device *on) {
  const char *name = gqL_optstring(L, options, "device", NULL);
  gqL_place(L, name ? gqL_device(L, name, "device") : on);
  gqL_totensor(L, -1)->requires_grad = gqL_optbool(L, options, "requires_grad", false);
  gqL_counted(L);
  return 1;
}

static int finish(lua_State *L, int options) { return finish_on(L, options, gqL_default_device(L)); }

/* Sizes from arg 1 on, as numbers or as one table; *next: the argument after them. */
static gq_shape check_sizes(lua_State *L, const char *what, int *next) {
  if (lua_istable(L, 1)) {
    *next = 2;
    return gqL_checkshape(L, 1);
  }
  gq_shape s = { 0 };
  int n = lua_gettop(L), i = 1;
  for (; i <= n && !lua_istable(L, i) && !(i > 1 && lua_isnil(L, i)); i++) {
    if (s.ndim == GQ_MAXDIM) gqL_error(L, "%s: at most %d dimensions", what, GQ_MAXDIM);
    s.dim[s.ndim++] = gqL_checkint(L, i, 0, INT64_MAX, "size");
  }
  if (s.ndim == 0)
    gqL_error(L, "%s: sizes expected, as in %s(2, 3) or %s({2, 3}); {} for a single number", what, what,
              what);
  *next = i;
  return s;
}

/* The last argument is the options, nil where there are none. */
static void no_more(lua_State *L, int last, const char *what) {
  if (lua_gettop(L) > last)
    gqL_error(L, "%s: too many arguments, options go into one table at the end", what);
  lua_settop(L, last);
}

/* New tensor of arguments (sizes... [, options]); *options: where they are. */
static gq_tensor *sized(lua_State *L, const char *what, const char *const *known, gq_shape *s, int *options) {
  *s = check_sizes(L, what, options);
  no_more(L, *options, what);
  gq_dtype d = check_options(L, *options, what, known);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_new(d, *s, h));
  return *h;
}

/* ---- from tables ---- */

typedef struct reader {
  lua_State *L;
  gq_tensor *t;
  int kind;              /* LUA_TNUMBER or LUA_TBOOLEAN */
  int64_t at[GQ_MAXDIM]; /* 1-based position, for messages */
  char *to;
} reader;

static int bad_entry(reader *r, int depth, const char *expected) {
  lua_State *L = r->L;
  const char *given = gqL_typename(L, -1);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 0; i < depth; i++) {
    lua_pushfstring(L, i ? ", %I" : "%I", (LUAI_UACINT)r->at[i]);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  return gqL_error(L, "tensor: entry {%s}: %s expected, got %s", lua_tostring(L, -1), expected, given);
}

/* Shape by first entries; the table is on top. Leaves the first number on top. */
static gq_shape first_shape(lua_State *L) {
  gq_shape s = { 0 };
  while (lua_istable(L, -1)) {
    if (s.ndim == GQ_MAXDIM)
      gqL_error(L, "tensor: tables nested deeper than %d (or a table inside itself)", GQ_MAXDIM);
    s.dim[s.ndim++] = (int64_t)lua_rawlen(L, -1);
    lua_rawgeti(L, -1, 1);
  }
  return s;
}

static void read_number(reader *r, int depth) {
  lua_State *L = r->L;
  if (lua_type(L, -1) != r->kind) bad_entry(r, depth, r->kind == LUA_TNUMBER ? "number" : "true or false");
  bool boolean = r->kind == LUA_TBOOLEAN;
  double x = boolean ? lua_toboolean(L, -1) : lua_tonumber(L, -1);
  int isint = 1;
  switch (r->t->dtype) {
    case GQ_F32: *(float *)r->to = (float)x; break;
    case GQ_F64: *(double *)r->to = x; break;
    case GQ_I64: *(int64_t *)r->to = boolean ? (int64_t)x : lua_tointegerx(L, -1, &isint); break;
    default: *(uint8_t *)r->to = x != 0; break;
  }
  if (!isint || (r->t->dtype == GQ_BOOL && x != 0 && x != 1))
    bad_entry(r, depth, r->t->dtype == GQ_I64 ? "integer" : "true, false, 0 or 1");
  r->to += gq_dtype_size(r->t->dtype);
}

static void read_table(reader *r, int depth) {
  lua_State *L = r->L;
  gq_shape s = r->t->shape;
  if (depth == s.ndim) {
    read_number(r, depth);
    return;
  }
  if (!lua_istable(L, -1)) bad_entry(r, depth, "table");
  int64_t n = (int64_t)lua_rawlen(L, -1);
  if (n != s.dim[depth])
    gqL_error(L, "tensor: ragged table: an entry of dimension %d has %I numbers or rows, the first has %I",
              depth + 1, (LUAI_UACINT)n, (LUAI_UACINT)s.dim[depth]);
  for (int64_t i = 1; i <= n; i++) {
    r->at[depth] = i;
    lua_rawgeti(L, -1, i);
    read_table(r, depth + 1);
    lua_pop(L, 1);
  }
}

/* gq.tensor{1, 2, dtype = "float64"}, gq.tensor{[0] = 1, 2}:
** what has another key than 1 to n would be lost silently. */
static void no_names(lua_State *L, int arg) {
  lua_Unsigned n = lua_rawlen(L, arg);
  if (n == 0) lua_pushnil(L);
  else lua_pushinteger(L, (lua_Integer)n);
  while (lua_next(L, arg)) {
    lua_pop(L, 1);
    if (lua_type(L, -1) == LUA_TSTRING)
      gqL_error(L, "tensor: the table has a key '%s'; options go into a second table", lua_tostring(L, -1));
    if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 1 || (lua_Unsigned)lua_tointeger(L, -1) > n)
      gqL_error(L, "tensor: the table has the key %s; entries are numbered from 1 on, without a gap",
                luaL_tolstring(L, -1, NULL));
  }
}

gq_tensor *gqL_fromtable(lua_State *L, int arg, gq_dtype d) {
  luaL_checkstack(L, GQ_MAXDIM + 10, "tensor");
  int top = lua_gettop(L);
  if (lua_istable(L, arg)) no_names(L, arg);
  lua_pushvalue(L, arg);
  gq_shape s = first_shape(L);
  reader r = { .L = L, .kind = lua_type(L, -1) };
  for (int i = 0; i < s.ndim; i++) r.at[i] = 1;
  bool empty = s.ndim > 0 && s.dim[s.ndim - 1] == 0;
  if (gqL_totensor(L, -1) != NULL)
    gqL_error(L, "tensor: numbers expected, the table holds tensors: use gq.stack or gq.cat");
  if (empty) r.kind = LUA_TNUMBER;
  else if (r.kind != LUA_TNUMBER && r.kind != LUA_TBOOLEAN) bad_entry(&r, s.ndim, "number or nested table");
  if (d == GQ_NDTYPE) d = r.kind == LUA_TBOOLEAN ? GQ_BOOL : gqL_default_dtype(L);
  lua_settop(L, top);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_new(d, s, h));
  r.t = *h;
  r.to = gq_tensor_data(*h);
  lua_pushvalue(L, arg);
  read_table(&r, 0);
  lua_settop(L, top + 1);
  return *h;
}

static int make_tensor(lua_State *L) {
  luaL_checkany(L, 1);
  no_more(L, 2, "tensor");
  gq_dtype d = check_options(L, 2, "tensor", known_options);
  bool given = gqL_optstring(L, 2, "dtype", NULL) != NULL;
  gq_tensor *t = gqL_totensor(L, 1);
  if (t == NULL) {
    t = gqL_fromtable(L, 1, given ? d : GQ_NDTYPE);
    if (gqL_optbool(L, 2, "requires_grad", false) && !gq_is_float(t->dtype))
      gqL_error(L, "tensor: a tensor of dtype %s cannot require a gradient", gq_dtype_name(t->dtype));
    return finish(L, 2);
  }
  gqL_checknumbers(L, t, "tensor");
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty_on(gq_tensor_device(t), given ? d : t->dtype, t->shape, h));
  gqL_try(L, gq_tensor_copy(*h, t));
  return finish_on(L, 2, gq_tensor_device(t));
}

/* ---- filled ---- */

static int make_zeros(lua_State *L) {
  gq_shape s;
  int options;
  sized(L, "zeros", known_options, &s, &options);
  return finish(L, options);
}

static int make_ones(lua_State *L) {
  gq_shape s;
  int options;
  gq_tensor *t = sized(L, "ones", known_options, &s, &options);
  gqL_try(L, gq_tensor_fill(t, 1));
  return finish(L, options);
}

static int make_full(lua_State *L) {
  gq_shape s = gqL_checkshape(L, 1);
  bool boolean = lua_isboolean(L, 2);
  double x = boolean ? lua_toboolean(L, 2) : gqL_checknumber(L, 2, "value");
  int isint = 1;
  lua_Integer i = boolean ? (lua_Integer)x : lua_tointegerx(L, 2, &isint);
  no_more(L, 3, "full");
  gq_dtype d = check_options(L, 3, "full", known_options);
  if (boolean && gqL_optstring(L, 3, "dtype", NULL) == NULL) d = GQ_BOOL;
  if (d == GQ_I64 && !isint)
    return gqL_error(L, "full: an integer is expected for dtype int64, got %f", (LUAI_UACNUMBER)x);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(d, s, h));
  gqL_try(L, d == GQ_I64 ? gq_tensor_fill_int(*h, i) : gq_tensor_fill(*h, x));
  return finish(L, 3);
}

/* zeros_like(x), ones_like(x): x's shape and dtype. */
static int make_like(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1);
  double value = lua_tonumber(L, lua_upvalueindex(1));
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_new_on(gq_place_of(t), t->dtype, t->shape, h));
  if (value != 0) gqL_try(L, gq_tensor_fill(*h, value));
  gqL_counted(L);
  return 1;
}

static int make_eye(lua_State *L) {
  int64_t n = gqL_checkint(L, 1, 0, INT32_MAX, "n");
  no_more(L, 2, "eye");
  gq_dtype d = check_options(L, 2, "eye", known_options);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_new(d, (gq_shape){ 2, { n, n } }, h));
  for (int64_t i = 0; i < n; i++) gq_tensor_set(*h, (int64_t[GQ_MAXDIM]){ i, i }, 1);
  return finish(L, 2);
}

/* x[i] = first + i step, i < n, computed in double, into a 1-d tensor. */
static int fill_line(lua_State *L, gq_dtype d, int64_t n, double first, double step, int options) {
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_new(d, (gq_shape){ 1, { n } }, h));
  for (int64_t i = 0; i < n; i++) gq_tensor_set(*h, &i, first + (double)i * step);
  return finish(L, options);
}

enum { MOST_BITS = 40 }; /* of numbers in a row */

/* The same in int64: a range of integers, last included if it is met. */
static int arange_int(lua_State *L, int options) {
  int isint[3] = { 0, 0, 1 };
  lua_Integer first = lua_tointegerx(L, 1, isint), last = lua_tointegerx(L, 2, isint + 1), step = 1;
  if (options == 4 && lua_type(L, 3) == LUA_TNUMBER) step = lua_tointegerx(L, 3, isint + 2);
  if (!isint[0] || !isint[2]) return gqL_error(L, "arange: integers are expected for dtype int64");
  if (!isint[1]) { /* a fraction, or beyond all integers: the last one before it */
    double x = lua_tonumber(L, 2);
    x = step > 0 ? floor(x) : ceil(x);
    last = x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : (lua_Integer)x;
  }
  bool none = step > 0 ? first > last : first < last;
  uint64_t span = step > 0 ? (uint64_t)last - (uint64_t)first : (uint64_t)first - (uint64_t)last;
  uint64_t stride = step > 0 ? (uint64_t)step : -(uint64_t)step, n = none ? 0 : span / stride + 1;
  if (!none && span / stride >= UINT64_C(1) << MOST_BITS)
    return gqL_error(L, "arange: %f numbers are too many", (LUAI_UACNUMBER)(span / stride) + 1);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_new(GQ_I64, (gq_shape){ 1, { (int64_t)n } }, h));
  int64_t *to = gq_tensor_data(*h);
  for (uint64_t i = 0; i < n; i++) to[i] = (int64_t)((uint64_t)first + i * (uint64_t)step);
  return finish(L, options);
}

/* Inclusive, as Lua's for; for fractions the end is met to within rounding. */
static int make_arange(lua_State *L) {
  double first = gqL_checknumber(L, 1, "first"), last = gqL_checknumber(L, 2, "last");
  int options = 3;
  double step = 1;
  if (lua_type(L, 3) == LUA_TNUMBER || (!lua_isnoneornil(L, 3) && !lua_istable(L, 3)))
    step = gqL_checknumber(L, 3, "step");
  if (lua_type(L, 3) == LUA_TNUMBER || lua_isnil(L, 3)) options = 4;
  no_more(L, options, "arange");
  gq_dtype d = check_options(L, options, "arange", known_options);
  if (step == 0 || !isfinite(step) || !isfinite(first) || !isfinite(last))
    return gqL_error(L, "arange: finite numbers and a step other than 0 expected");
  if (d == GQ_I64) return arange_int(L, options);
  double n = floor((last - first) / step * (1 + 4e-16) + 1e-12) + 1;
  if (n > (double)(INT64_C(1) << MOST_BITS))
    return gqL_error(L, "arange: %f numbers are too many", (LUAI_UACNUMBER)n);
  return fill_line(L, d, n < 1 ? 0 : (int64_t)n, first, step, options);
}

static int make_linspace(lua_State *L) {
  double a = gqL_checknumber(L, 1, "first"), b = gqL_checknumber(L, 2, "last");
  int64_t n = gqL_checkint(L, 3, 0, INT64_C(1) << MOST_BITS, "n");
  no_more(L, 4, "linspace");
  gq_dtype d = check_options(L, 4, "linspace", known_options);
  if (d == GQ_I64 && !(fabs(a) <= 0x1p53 && fabs(b) <= 0x1p53))
    return gqL_error(L, "linspace: ends of at most 2^53 expected for dtype int64, got %f and %f",
                     (LUAI_UACNUMBER)a, (LUAI_UACNUMBER)b);
  fill_line(L, d, n, a, n > 1 ? (b - a) / (double)(n - 1) : 0, 4);
  if (n > 1) /* the end exactly */
    gq_tensor_set(gqL_totensor(L, -1), &(int64_t){ n - 1 }, b);
  return 1;
}

/* ---- random ---- */

typedef void draw(gq_key key, uint64_t stream, uint64_t first, size_t n, double *out);

#define CHUNK 512

/* One draw is one stream: entry i of draw number `stream` is a function of (seed, stream, i). */
static void fill_random(gq_tensor *t, gq_key key, uint64_t stream, draw *fn) {
  double x[CHUNK];
  int64_t n = gq_numel(t->shape);
  for (int64_t i = 0; i < n; i += CHUNK) {
    int64_t m = n - i < CHUNK ? n - i : CHUNK;
    fn(key, stream, (uint64_t)i, (size_t)m, x);
    if (t->dtype == GQ_F64) memcpy((double *)gq_tensor_data(t) + i, x, (size_t)m * sizeof *x);
    else
      for (int64_t j = 0; j < m; j++) {
        float y = (float)x[j];
        if (fn == gq_random_uniform && y >= 1) /* rounded up; the interval is open */
          y = 0x1.fffffep-1f;
        ((float *)gq_tensor_data(t))[i + j] = y;
      }
  }
}

/* Key and stream of the next draw: those of the option `seed`, or the generator's, which moves on. */
static gq_key next_key(lua_State *L, int options, uint64_t *stream) {
  int64_t seed = gqL_optint(L, options, "seed", -1, 0, INT64_MAX);
  gqL_state *s = gqL_getstate(L);
  *stream = seed < 0 ? s->counter++ : 0;
  return gq_key_make(seed < 0 ? s->seed : (uint64_t)seed, GQ_FOR_USER);
}

static int make_random(lua_State *L, const char *what, draw *fn) {
  gq_shape s;
  int options;
  uint64_t stream;
  gq_tensor *t = sized(L, what, draw_options, &s, &options);
  if (!gq_is_float(t->dtype))
    return gqL_error(L, "%s: dtype float32 or float64 expected, got %s", what, gq_dtype_name(t->dtype));
  gq_key key = next_key(L, options, &stream);
  fill_random(t, key, stream, fn);
  return finish(L, options);
}

static int make_rand(lua_State *L) { return make_random(L, "rand", gq_random_uniform); }

static int make_randn(lua_State *L) { return make_random(L, "randn", gq_random_normal); }

/* Fisher and Yates; a 64-bit draw reduced to 0..i is uneven by less than 2^-24. */
static int make_randperm(lua_State *L) {
  static const char *const known[] = { "seed", NULL };
  int64_t n = gqL_checkint(L, 1, 0, INT64_C(1) << 40, "n");
  no_more(L, 2, "randperm");
  gqL_checkoptions(L, 2, known, "randperm");
  uint64_t stream;
  gq_key key = next_key(L, 2, &stream);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(GQ_I64, (gq_shape){ 1, { n } }, h));
  int64_t *p = gq_tensor_data(*h);
  for (int64_t i = 0; i < n; i++) p[i] = i + 1;
  for (int64_t i = n - 1; i > 0; i--) {
    uint32_t u[2];
    gq_random_u32(key, stream, 2 * (uint64_t)i, 2, u);
    int64_t j = (int64_t)(((uint64_t)u[1] << 32 | u[0]) % (uint64_t)(i + 1)), v = p[i];
    p[i] = p[j];
    p[j] = v;
  }
  return finish(L, 2);
}

static const gqL_function functions[] = {
  { "tensor", make_tensor, false, "gq.tensor(number | nested table [, {dtype, device, requires_grad}])" },
  { "zeros", make_zeros, false, "gq.zeros(sizes... | {sizes} [, opts])" },
  { "ones", make_ones, false, "gq.ones(sizes... | {sizes} [, opts])" },
  { "full", make_full, false, "gq.full({sizes}, value [, opts])" },
  { "eye", make_eye, false, "gq.eye(n [, opts]): the identity matrix" },
  { "arange", make_arange, false, "gq.arange(first, last [, step [, opts]]): inclusive, as Lua's for" },
  { "linspace", make_linspace, false, "gq.linspace(a, b, n [, opts]): n numbers from a to b, both included" },
  { "rand", make_rand, false, "gq.rand(sizes... | {sizes} [, opts]): uniform between 0 and 1" },
  { "randn", make_randn, false, "gq.randn(sizes... | {sizes} [, opts]): standard normal" },
  { "randperm", make_randperm, false, "gq.randperm(n): the integers 1 to n in random order" },
  { NULL, NULL, false, NULL }
};

static void open_like(lua_State *L, const char *name, double value, const char *doc) {
  lua_pushnumber(L, value);
  lua_pushcclosure(L, make_like, 1);
  gqL_setfunction(L, name, true, doc);
}

void gqL_open_make(lua_State *L) {
  gqL_register(L, functions);
  open_like(L, "zeros_like", 0, "gq.zeros_like(x): zeros of x's shape and dtype");
  open_like(L, "ones_like", 1, "gq.ones_like(x): ones of x's shape and dtype");
}
