/*
** l_data.c -- bytes for Lua files: streams of zlib, numbers in a string as tensors, text with separators, images.
*/
#include <math.h>
#include <string.h>
#include "bind.h"
#include "../runtime/io/io.h"

#define BYTES "gq.bytes"

/* What the runtime allocated, until it is in Lua's own memory. */
static int bytes_gc(lua_State *L) {
  void **p = luaL_testudata(L, 1, BYTES);
  if (p) gq_free(*p), *p = NULL;
  return 0;
}

static void **push_bytes(lua_State *L) {
  void **p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = NULL;
  luaL_setmetatable(L, BYTES);
  return p;
}

/* The string at `arg` from byte `at` (from 0) on, n bytes. */
static const char *part(lua_State *L, int arg, size_t *n) {
  size_t size;
  const char *s = luaL_checklstring(L, arg, &size);
  lua_Integer at = luaL_optinteger(L, arg + 1, 0),
              count = luaL_optinteger(L, arg + 2, at < 0 ? 0 : (lua_Integer)size - at);
  if (at < 0 || count < 0 || (size_t)at > size || (size_t)count > size - (size_t)at)
    gqL_error(L, "it ends at byte %I, %I bytes from byte %I on are needed", (LUAI_UACINT)size,
              (LUAI_UACINT)count, (LUAI_UACINT)at);
  *n = (size_t)count;
  return s + at;
}

/* inflate(s, at, n, wrap, expected): "raw", "zlib" or "gzip" */
static int core_inflate(lua_State *L) {
  static const char *const wraps[] = { "raw", "zlib", "gzip", NULL };
  size_t n, size;
  const char *s = part(L, 1, &n);
  int wrap = luaL_checkoption(L, 4, "gzip", wraps);
  lua_Integer expected = luaL_optinteger(L, 5, 0);
  void **p = push_bytes(L);
  /* deflate makes at most 1032 bytes of one */
  size_t most = n < SIZE_MAX / 1040 ? n * 1040 + 1024 : SIZE_MAX / 2;
  if (expected < 0 || (size_t)expected > most)
    gqL_error(L, "%I bytes cannot come out of it", (LUAI_UACINT)expected);
  gqL_retry(L, gq_inflate(s, n, (gq_wrap)wrap, (size_t)expected, most, (char **)p, &size));
  lua_pushlstring(L, *p, size);
  return 1;
}

static int core_deflate(lua_State *L) {
  size_t n, size;
  const char *s = luaL_checklstring(L, 1, &n);
  void **p = push_bytes(L);
  gqL_retry(L, gq_deflate(s, n, (char **)p, &size));
  lua_pushlstring(L, *p, size);
  return 1;
}

static int core_crc32(lua_State *L) {
  size_t n;
  const char *s = luaL_checklstring(L, 1, &n);
  lua_pushinteger(L, gq_crc32(s, n));
  return 1;
}

/* npy_read(name, s): a tensor from the bytes of an .npy file */
static int core_npy_read(lua_State *L) {
  size_t n;
  const char *name = luaL_checkstring(L, 1), *s = luaL_checklstring(L, 2, &n);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_npy_read(name, s, n, h));
  gqL_counted(L);
  return 1;
}

static int core_image(lua_State *L) {
  size_t n;
  const char *name = luaL_checkstring(L, 1), *s = luaL_checklstring(L, 2, &n);
  int channels = luaL_checkinteger(L, 3) == 1 ? 1 : 3;
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_image_read(name, s, n, channels, h));
  gqL_counted(L);
  return 1;
}

/* ---- numbers in a string ---- */

/* bytes(x): the numbers as they lie in memory, row after row */
static int core_bytes(lua_State *L) {
  gq_tensor *t = gqL_checktensor(L, 1), **h = gqL_pushtensor(L);
  gqL_checknumbers(L, t, "bytes");
  gqL_retry(L, gq_tensor_host(t, h));
  lua_pushlstring(L, gq_tensor_data(*h), (size_t)gq_numel(t->shape) * gq_dtype_size(t->dtype));
  return 1;
}

static const char *const types[] = { "u1", "i1", "u2", "i2", "i4", "i8", "f4", "f8", NULL };
static const int sizes[] = { 1, 1, 2, 2, 4, 8, 4, 8 };

static uint64_t read_bits(const unsigned char *p, int size, bool big) {
  uint64_t v = 0;
  for (int i = 0; i < size; i++) v |= (uint64_t)p[big ? size - 1 - i : i] << 8 * i;
  return v;
}

/* Number i of the type; integers as they are in *whole too. */
static double read_value(const unsigned char *p, int type, bool big, int64_t *whole) {
  uint64_t bits = read_bits(p, sizes[type], big);
  float f;
  double d;
  switch (type) {
    case 1: *whole = (int8_t)bits; break;
    case 3: *whole = (int16_t)bits; break;
    case 4: *whole = (int32_t)bits; break;
    case 6: return memcpy(&f, &(uint32_t){ (uint32_t)bits }, 4), *whole = 0, (double)f;
    case 7: return memcpy(&d, &bits, 8), *whole = 0, d;
    default: *whole = (int64_t)bits;
  }
  return (double)*whole;
}

/* numbers(s, at, count, type, big, dtype, scale, step, width): `width` numbers of every `step` bytes from byte `at` on,
** count in all, times `scale`, as a vector. */
static int core_numbers(lua_State *L) {
  size_t size;
  const char *s = luaL_checklstring(L, 1, &size);
  lua_Integer at = luaL_checkinteger(L, 2), count = luaL_checkinteger(L, 3);
  int type = luaL_checkoption(L, 4, NULL, types), each = sizes[type];
  bool big = lua_toboolean(L, 5);
  gq_dtype d = gqL_checkdtype(L, 6);
  double scale = luaL_optnumber(L, 7, 1);
  lua_Integer width = luaL_optinteger(L, 9, count);
  luaL_argcheck(L, width < (lua_Integer)1 << 58 && width >= 0, 3, "more than a string holds");
  lua_Integer step = luaL_optinteger(L, 8, width * each);
  lua_Integer groups = width > 0 ? count / width : 0;
  if (at < 0 || count < 0 || (width > 0 && count % width) || step < width * each ||
      step > INT32_MAX * (lua_Integer)64 ||
      (groups > 0 && ((size_t)at > size || (size_t)(width * each) > size - (size_t)at ||
                      (size_t)(groups - 1) > (size - (size_t)at - (size_t)(width * each)) / (size_t)step)))
    return gqL_error(L, "it has %I bytes: too few for %I numbers from byte %I on", (LUAI_UACINT)size,
                     (LUAI_UACINT)count, (LUAI_UACINT)at);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(d, (gq_shape){ 1, { count } }, h));
  void *to = gq_tensor_data(*h);
  float bytes[256];
  for (int i = 0; i < 256; i++) bytes[i] = (float)(i * scale);
  for (lua_Integer g = 0, k = 0; g < groups; g++) {
    const unsigned char *p = (const unsigned char *)s + at + g * step;
    if (type == 0 && d == GQ_F32)
      for (lua_Integer i = 0; i < width; i++) ((float *)to)[k++] = bytes[p[i]];
    else
      for (lua_Integer i = 0; i < width; i++, k++) {
        int64_t whole;
        double x = read_value(p + i * each, type, big, &whole) * scale;
        if (d == GQ_F32) ((float *)to)[k] = (float)x;
        else if (d == GQ_F64) ((double *)to)[k] = x;
        else if (d == GQ_I64) ((int64_t *)to)[k] = whole;
        else ((uint8_t *)to)[k] = whole != 0;
      }
  }
  gqL_counted(L);
  return 1;
}

/* ---- text with separators ---- */

/* csv_record(s, at, separator): the cells of the record that begins there, a list of what they are ("number",
** "missing", "date" or "text"), and where the next one begins. */
static int core_csv_record(lua_State *L) {
  static const char *const kinds[] = { "number", "missing", "date", "text" };
  size_t n, at = (size_t)luaL_checkinteger(L, 2);
  const char *s = luaL_checklstring(L, 1, &n), *separator = luaL_checkstring(L, 3), *from, *to;
  bool more = true;
  double x;
  luaL_argcheck(L, at <= n, 2, "beyond the end");
  lua_newtable(L);
  lua_newtable(L);
  for (int i = 1; more; i++) {
    at = gq_csv_next(s, n, at, *separator, &from, &to, &more);
    lua_pushlstring(L, from, (size_t)(to - from));
    lua_rawseti(L, -3, i);
    lua_pushstring(L, kinds[gq_csv_cell(from, to, &x)]);
    lua_rawseti(L, -2, i);
  }
  lua_pushinteger(L, (lua_Integer)at);
  return 3;
}

/* int64 gets what a double holds without rounding; NaN, a missing cell, is counted elsewhere. */
static void check_whole(lua_State *L, const double *x, int64_t rows, int columns) {
  for (int64_t i = 0; i < rows * columns; i++)
    if (!isnan(x[i]) && (fabs(x[i]) >= 0x1p53 || x[i] != floor(x[i])))
      luaL_error(L,
                 "row %I of the numbers, column %d: %f is no integer below 2^53, which int64 is read from: "
                 "read it as float64, or keep int64 in .npy",
                 (LUAI_UACINT)(i / columns + 1), (int)(i % columns + 1), x[i]);
}

/* csv_numbers(s, at, line, separator, columns, places, wanted, dtype): {rows, wanted}, were there dates, and how many
** cells are missing. places[k]: which number of a row column k becomes, from 1; 0: none. dtype nil: float64 where there
** are dates, else the default. */
static int core_csv_numbers(lua_State *L) {
  size_t n;
  lua_settop(L, 8);
  const char *s = luaL_checklstring(L, 1, &n);
  gq_csv c = { .separator = *luaL_checkstring(L, 4),
               .columns = (int)luaL_checkinteger(L, 5),
               .wanted = (int)luaL_checkinteger(L, 7) };
  if (lua_istable(L, 6)) {
    int *place = lua_newuserdatauv(L, (size_t)c.columns * sizeof *place + 1, 0);
    for (int i = 0; i < c.columns; i++) {
      lua_rawgeti(L, 6, i + 1);
      place[i] = (int)lua_tointeger(L, -1) - 1;
      lua_pop(L, 1);
    }
    c.place = place;
  }
  void **p = push_bytes(L);
  int64_t rows;
  gqL_retry(L, gq_csv_numbers(&c, s, n, (size_t)luaL_checkinteger(L, 2), luaL_checkinteger(L, 3),
                              (double **)p, &rows));
  gq_dtype d = !lua_isnoneornil(L, 8) ? gqL_checkdtype(L, 8) : c.dates ? GQ_F64 : gqL_default_dtype(L);
  const double *x = *p;
  if (d == GQ_I64) check_whole(L, x, rows, c.wanted);
  gq_tensor **h = gqL_pushtensor(L);
  gqL_retry(L, gq_tensor_empty(d, (gq_shape){ 2, { rows, c.wanted } }, h));
  void *to = gq_tensor_data(*h);
  for (int64_t i = 0; i < rows * c.wanted; i++)
    if (d == GQ_F32) ((float *)to)[i] = (float)x[i];
    else if (d == GQ_F64) ((double *)to)[i] = x[i];
    else gq_tensor_set(*h, (int64_t[GQ_MAXDIM]){ i / c.wanted, i % c.wanted }, x[i]);
  gqL_counted(L);
  lua_pushboolean(L, c.dates);
  lua_pushinteger(L, c.missing);
  return 3;
}

void gqL_open_data(lua_State *L) {
  static const luaL_Reg functions[] = { { "inflate", core_inflate },
                                        { "deflate", core_deflate },
                                        { "crc32", core_crc32 },
                                        { "npy_read", core_npy_read },
                                        { "bytes", core_bytes },
                                        { "image", core_image },
                                        { "numbers", core_numbers },
                                        { "csv_record", core_csv_record },
                                        { "csv_numbers", core_csv_numbers },
                                        { NULL, NULL } };
  gqL_pushclass(L, BYTES, bytes_gc);
  lua_pop(L, 1);
  gqL_core(L, functions);
}
