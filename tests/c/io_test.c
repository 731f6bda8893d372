/*
** io_test.c -- runtime/io: round trips, files cut at every byte and with every bit flipped (loaded,
** then used), lies in headers, every file operation and every allocation failing, a full disk, and
** the promise that a saved path holds all of the old or all of the new.
*/
#define _GNU_SOURCE
#include "runtime/io/io.h"
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>
#include <dirent.h>

static char folder[] = "/tmp/gq_io_test_XXXXXX";

static const char *in_folder(const char *name) {
  static char path[4][256];
  static int turn;
  char *p = path[turn++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", folder, name);
  return p;
}

static int files_in_folder(void) {
  int n = 0;
  DIR *d = opendir(folder);
  for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
  closedir(d);
  return n;
}

/* Not through the functions under test. */
static void put_file(const char *path, const void *bytes, size_t n) {
  FILE *f = fopen(path, "wb");
  if (f && n) fwrite(bytes, 1, n, f);
  if (f) fclose(f);
}

static size_t get_file(const char *path, char *bytes, size_t room) {
  FILE *f = fopen(path, "rb");
  size_t n = f ? fread(bytes, 1, room, f) : 0;
  if (f) fclose(f);
  return n;
}

static gq_tensor *random_tensor(gq_dtype d, gq_shape s) {
  gq_tensor *t, *x;
  gq_tensor_new(GQ_F64, s, &x);
  gq_random_normal(gq_key_make(1, GQ_FOR_USER), 0, 0, (size_t)gq_numel(s), gq_tensor_data(x));
  gq_tensor_new(d, s, &t);
  gq_tensor_copy(t, x);
  gq_tensor_unref(x);
  return t;
}

/* Read every number, as a program that loaded the tensor would. */
static double use(const gq_tensor *t) {
  gq_tensor *x;
  double sum = 0;
  if (gq_tensor_new(GQ_F64, t->shape, &x) != GQ_OK) return 0;
  gq_tensor_copy(x, t);
  const double *p = gq_tensor_data(x);
  for (int64_t i = 0; i < gq_numel(x->shape); i++) sum += p[i];
  gq_tensor_unref(x);
  return sum;
}

static bool equal(const gq_tensor *a, const gq_tensor *b) {
  return a->dtype == b->dtype && gq_shape_equal(a->shape, b->shape) &&
         memcmp(gq_tensor_data(a), gq_tensor_data(b), (size_t)gq_numel(a->shape) * gq_dtype_size(a->dtype)) ==
           0;
}

/* ---- .npy ---- */

static void test_npy_round_trip(void) {
  static const gq_shape shapes[] = {
    { 0 }, { 1, { 3 } }, { 2, { 2, 3 } }, { 3, { 2, 0, 4 } }, { 8, { 1, 2, 1, 2, 1, 2, 1, 2 } }
  };
  const char *path = in_folder("x.npy");
  for (int d = 0; d < GQ_NDTYPE; d++)
    for (int i = 0; i < 5; i++) {
      gq_tensor *t = random_tensor((gq_dtype)d, shapes[i]), *u = NULL;
      CHECK(gq_npy_save(path, t) == GQ_OK && gq_npy_load(path, &u) == GQ_OK && equal(t, u));
      gq_tensor_unref(t), gq_tensor_unref(u);
    }
  gq_tensor *t = random_tensor(GQ_F32, shapes[2]), *v, *u = NULL; /* a transposed view is packed */
  gq_tensor_view(t, (gq_shape){ 2, { 3, 2 } }, (const int64_t[]){ 1, 3 }, 0, &v);
  CHECK(gq_npy_save(path, v) == GQ_OK && gq_npy_load(path, &u) == GQ_OK);
  CHECK(gq_tensor_get(u, (const int64_t[]){ 2, 1 }) == gq_tensor_get(t, (const int64_t[]){ 1, 2 }));
  gq_tensor_unref(t), gq_tensor_unref(v), gq_tensor_unref(u);
  CHECK(files_in_folder() == 1);
}

/* A file of this header text and n zero bytes; header_length < 0: the text's. */
static int load_npy(int version, const char *text, long header_length, size_t n, gq_tensor **t) {
  static char file[70000];
  size_t length = strlen(text), at = version == 1 ? 10 : 12;
  unsigned long stated = header_length < 0 ? length : (unsigned long)header_length;
  memcpy(file, "\x93NUMPY", 6);
  file[6] = (char)version, file[7] = 0;
  for (size_t i = 8; i < at; i++) file[i] = (char)(stated >> 8 * (i - 8) & 0xff);
  memcpy(file + at, text, length);
  memset(file + at + length, 0, n);
  put_file(in_folder("h.npy"), file, at + length + n);
  return gq_npy_load(in_folder("h.npy"), t);
}

static void test_npy_headers(void) {
  static const struct {
    const char *text;
    size_t bytes;
    bool good;
  } rows[] = {
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", 12, true },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}    \n", 12, true },
    { "{\"shape\":(2,3),\"fortran_order\":True,\"descr\":\"<f8\"}\n", 48, true },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': ()}\n", 4, true },
    { "{'descr': '|b1', 'fortran_order': False, 'shape': (0,)}\n", 0, true },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,}\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3.0,)}\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,)}\n", 0, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,4)}\n", 0, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,3)}\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,,3)}\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}\n", 4, false },
    { "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': Falsehood, 'shape': (3,)}\n", 12, false },
    { "{'descr': '<f4', 'shape': (3,)}\n", 12, false },
    { "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3,)}\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}\n", 12, false },
    { "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}\n", 12, false },
    { "{'descr': '>f4', 'fortran_order': False, 'shape': (3,)}\n", 12, true },
    { "{'descr': '>f4', 'fortran_order': False, 'shape': (3,)}\n", 11, false },
    { "{'descr': '|u1', 'fortran_order': True, 'shape': (3,2)}\n", 6, true },
    { "{'descr': '<i2', 'fortran_order': False, 'shape': (3,)}\n", 24, false },
    { "{'descr': '<f1', 'fortran_order': False, 'shape': (3,)}\n", 3, false },
    { "{'descr': '', 'fortran_order': False, 'shape': (3,)}\n", 0, false },
    { "{'descr': '<i', 'fortran_order': False, 'shape': (3,)}\n", 0, false },
    { "{'descr': '<c8', 'fortran_order': False, 'shape': (3,)}\n", 24, false },
    { "{'descr': '<f16', 'fortran_order': False, 'shape': (3,)}\n", 48, false },
    { "{'descr': '|V8', 'fortran_order': False, 'shape': (3,)}\n", 24, false },
    { "{'descr': '<ixy', 'fortran_order': False, 'shape': (3,)}\n", 12, false },
    { "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} 1\n", 12, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}\n", 11, false },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}\n", 13, false },
    { "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}\n", 12, false },
    { "{'descr': '<f\\x34', 'fortran_order': False, 'shape': (3,)}\n", 12, false },
    { "", 0, false },
    { "\n", 0, false },
  };
  gq_tensor *t;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    for (int version = 1; version <= 3; version++) {
      int status = load_npy(version, rows[i].text, -1, rows[i].bytes, &t);
      CHECK(status == (rows[i].good ? GQ_OK : GQ_EFORMAT) && (t != NULL) == rows[i].good);
      if (status == GQ_EFORMAT) CHECK(strstr(gq_message(), "h.npy") && strstr(gq_message(), "byte "));
      gq_tensor_unref(t);
    }
  const char *good = rows[0].text;
  CHECK(load_npy(0, good, -1, 12, &t) == GQ_EFORMAT && load_npy(4, good, -1, 12, &t) == GQ_EFORMAT);
  CHECK(load_npy(2, good, 0xfffffff0, 12, &t) == GQ_EFORMAT &&
        load_npy(1, good, 60000, 12, &t) == GQ_EFORMAT);
  CHECK(load_npy(1, "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3)}\n", -1, 48, &t) == GQ_OK);
  CHECK(t->shape.dim[0] == 2 && t->shape.dim[1] == 3 && t->stride[0] == 1 && t->stride[1] == 2);
  gq_tensor_unref(t);
}

/* ---- .safetensors ---- */

static int load_safe(const char *json, size_t data, gq_named **list, int *n, gq_pair **meta, int *nmeta) {
  static char file[70000];
  size_t length = strlen(json);
  for (size_t i = 0; i < 8; i++) file[i] = (char)(length >> 8 * i & 0xff);
  memcpy(file + 8, json, length);
  memset(file + 8 + length, 0, data);
  put_file(in_folder("h.safetensors"), file, 8 + length + data);
  return gq_safetensors_load(in_folder("h.safetensors"), list, n, meta, nmeta);
}

static void test_safetensors_round_trip(void) {
  const char *path = in_folder("x.safetensors");
  gq_named list[] = {
    { "weight", random_tensor(GQ_F32, (gq_shape){ 2, { 3, 5 } }) },
    { "flags \"\\\n\xc3\xa9", random_tensor(GQ_BOOL, (gq_shape){ 1, { 3 } }) },
    { "", random_tensor(GQ_F64, (gq_shape){ 0 }) },
    { "empty", random_tensor(GQ_I64, (gq_shape){ 2, { 0, 4 } }) },
    { "step", random_tensor(GQ_I64, (gq_shape){ 1, { 2 } }) },
  };
  gq_pair meta[] = { { "epoch", "3" }, { "note\t", "a \"b\" \\ c" } }, *m;
  gq_named *got;
  int n, nm, found = 0;
  CHECK(gq_safetensors_save(path, list, 5, meta, 2) == GQ_OK);
  CHECK(gq_safetensors_load(path, &got, &n, &m, &nm) == GQ_OK && n == 5 && nm == 2);
  for (int i = 0; i < n; i++)
    for (int j = 0; j < 5; j++)
      found += strcmp(got[i].name, list[j].name) == 0 && equal(got[i].tensor, list[j].tensor);
  CHECK(found == 5);
  CHECK(strcmp(m[0].key, "epoch") == 0 && strcmp(m[1].key, "note\t") == 0 &&
        strcmp(m[1].value, "a \"b\" \\ c") == 0);
  gq_named_free(got, n), gq_pairs_free(m, nm);
  CHECK(gq_safetensors_save(path, NULL, 0, NULL, 0) == GQ_OK &&
        gq_safetensors_load(path, &got, &n, NULL, NULL) == GQ_OK && n == 0);
  gq_named_free(got, n);
  gq_named twice[] = { list[0], list[0] }, taken[] = { { "__metadata__", list[0].tensor } },
           latin[] = { { "\xe9", list[0].tensor } };
  CHECK(gq_safetensors_save(path, twice, 2, NULL, 0) == GQ_EARG &&
        gq_safetensors_save(path, taken, 1, NULL, 0) == GQ_EARG);
  CHECK(gq_safetensors_save(path, latin, 1, NULL, 0) == GQ_EARG);
  for (int i = 0; i < 5; i++) gq_tensor_unref(list[i].tensor);
}

#define ONE(name, rest) "\"" name "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" rest "}"

static void test_safetensors_headers(void) {
  static const struct {
    const char *json;
    size_t bytes;
    int count; /* -1: refused */
  } rows[] = {
    { "{}", 0, 0 },
    { "{} \n\t", 0, 0 },
    { "{" ONE("a", "[0,8]") "}", 8, 1 },
    { "{" ONE("b", "[8,16]") "," ONE("a", "[0,8]") "}", 16, 2 },
    { "{\"__metadata__\":{\"k\":\"v\"}," ONE("a", "[0,8]") "}", 8, 1 },
    { "{" ONE("\\u00e9\\ud83d\\ude00", "[0,8]") "}", 8, 1 },
    { "{\"z\":{\"shape\":[],\"data_offsets\":[0,1],\"dtype\":\"U8\"}}", 1, 1 },
    { "{\"z\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]},\"y\":{\"dtype\":\"F32\",\"shape\":["
      "0],\"data_offsets\":[0,0]}}",
      0, 2 },
    { "", 0, -1 },
    { "[]", 0, -1 },
    { " {}", 0, -1 },
    { "{} x", 0, -1 },
    { "{}{}", 0, -1 },
    { "{" ONE("a", "[0,8]"), 8, -1 },
    { "{" ONE("a", "[0,8]") ",}", 8, -1 },
    { "{" ONE("a", "[0,8]") "}", 7, -1 },
    { "{" ONE("a", "[0,8]") "}", 9, -1 },
    { "{" ONE("a", "[1,9]") "}", 9, -1 },
    { "{" ONE("a", "[8,0]") "}", 8, -1 },
    { "{" ONE("a", "[0,4]") "}", 4, -1 },
    { "{" ONE("a", "[0,8,8]") "}", 8, -1 },
    { "{" ONE("a", "[0]") "}", 8, -1 },
    { "{" ONE("a", "[0,8.0]") "}", 8, -1 },
    { "{" ONE("a", "[0,8e0]") "}", 8, -1 },
    { "{" ONE("a", "[-0,8]") "}", 8, -1 },
    { "{" ONE("a", "[0,08]") "}", 8, -1 },
    { "{" ONE("a", "[0,99999999999999999999]") "}", 8, -1 },
    { "{" ONE("a", "[0,1e400]") "}", 8, -1 },
    { "{" ONE("a", "[0,8]") "," ONE("a", "[8,16]") "}", 16, -1 },
    { "{" ONE("a", "[0,8]") "," ONE("\\u0061", "[8,16]") "}", 16, -1 },
    { "{" ONE("a", "[0,8]") "," ONE("b", "[0,8]") "}", 8, -1 },
    { "{" ONE("a", "[0,8]") "," ONE("b", "[4,12]") "}", 12, -1 },
    { "{" ONE("a", "[0,8]") "," ONE("b", "[12,20]") "}", 20, -1 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0, -1 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, -1 },
    { "{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, 1 },
    { "{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, -1 },
    { "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, -1 },
    { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, -1 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, -1 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, -1 },
    { "{\"__metadata__\":{\"k\":1}}", 0, -1 },
    { "{\"__metadata__\":{\"k\":\"v\",\"k\":\"w\"}}", 0, -1 },
    { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, -1 },
    { "{\"__metadata__\":[]}", 0, -1 },
    { "{" ONE("\\ud800", "[0,8]") "}", 8, -1 },
    { "{" ONE("\\udc00", "[0,8]") "}", 8, -1 },
    { "{" ONE("\\ud800\\ud800", "[0,8]") "}", 8, -1 },
    { "{" ONE("\\u0000", "[0,8]") "}", 8, -1 },
    { "{" ONE("\\x", "[0,8]") "}", 8, -1 },
    { "{" ONE("\xff", "[0,8]") "}", 8, -1 },
    { "{" ONE("\xc0\xaf", "[0,8]") "}", 8, -1 },
    { "{\"a", 0, -1 },
    { "{\"a\\", 0, -1 },
    { "{\"a\\u00", 0, -1 },
  };
  gq_named *list;
  gq_pair *meta;
  int n, nmeta;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int status = load_safe(rows[i].json, rows[i].bytes, &list, &n, &meta, &nmeta);
    bool ok =
      rows[i].count < 0 ? status == GQ_EFORMAT && !list && !meta : status == GQ_OK && n == rows[i].count;
    if (!ok) printf("row %zu: %s: status %d, %s\n", i, rows[i].json, status, gq_message());
    CHECK(ok);
    gq_named_free(list, n), gq_pairs_free(meta, nmeta);
  }
  char deep[60001];
  memset(deep, '[', 60000);
  deep[60000] = '\0';
  memcpy(deep, "{\"a\":", 5);
  CHECK(load_safe(deep, 0, &list, &n, NULL, NULL) == GQ_EFORMAT);
  static const char lengths[][9] = { "\xff\xff\xff\xff\xff\xff\xff\xff", "\0\0\0\0\0\0\0\x80",
                                     "\3\0\0\0\0\0\0\0", "\0\xe1\xf5\x05\0\0\0\0" };
  for (int i = 0; i < 4; i++) {
    char file[10] = { 0 };
    memcpy(file, lengths[i], 8);
    memcpy(file + 8, "{}", 2);
    put_file(in_folder("h.safetensors"), file, 10);
    CHECK(gq_safetensors_load(in_folder("h.safetensors"), &list, &n, NULL, NULL) == GQ_EFORMAT);
  }
}

/* A hundred thousand names is the limit, and takes no quadratic time; one more is refused. */
static void test_safetensors_many(void) {
  for (int extra = 0; extra < 2; extra++) {
    FILE *f = fopen(in_folder("many.safetensors"), "wb");
    size_t n = 100000 + (size_t)extra, length = 0;
    fwrite("\0\0\0\0\0\0\0\0", 1, 8, f);
    for (size_t i = 0; i < n; i++)
      length += (size_t)fprintf(f, "%s\"%zu\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}",
                                i ? "," : "{", i);
    length += (size_t)fprintf(f, "}");
    rewind(f);
    for (int i = 0; i < 8; i++) fputc((int)(length >> 8 * i & 0xff), f);
    fclose(f);
    gq_named *list;
    int count;
    double start = gq_clock();
    int status = gq_safetensors_load(in_folder("many.safetensors"), &list, &count, NULL, NULL);
    CHECK(status == (extra ? GQ_EFORMAT : GQ_OK) && gq_clock() - start < 10);
    gq_named_free(list, count);
  }
}

/* ---- every cut and every flipped bit ---- */

typedef int (*load_fn)(const char *path);

static int load_npy_and_use(const char *path) {
  gq_tensor *t;
  GQ_TRY(gq_npy_load(path, &t));
  use(t);
  gq_tensor_unref(t);
  return GQ_OK;
}

static int load_safe_and_use(const char *path) {
  gq_named *list;
  gq_pair *meta;
  int n, nmeta;
  GQ_TRY(gq_safetensors_load(path, &list, &n, &meta, &nmeta));
  for (int i = 0; i < n; i++) use(list[i].tensor);
  for (int i = 0; i < nmeta; i++) CHECK(gq_utf8(meta[i].value, strlen(meta[i].value)));
  gq_named_free(list, n), gq_pairs_free(meta, nmeta);
  return GQ_OK;
}

/* What a load leaves behind: nothing; how much it may take: the file and a little. */
static int guarded(load_fn load, const char *path) {
  size_t blocks = gq_live_blocks();
  gq_peak_reset();
  int status = load(path);
  CHECK(gq_live_blocks() == blocks && gq_peak_bytes() < gq_live_bytes() + 65536 * 4);
  CHECK(status == GQ_OK || status == GQ_EFORMAT);
  return status;
}

static void test_damage(const char *name, load_fn load) {
  char bytes[2048];
  size_t n = get_file(in_folder(name), bytes, sizeof bytes);
  const char *path = in_folder("damaged");
  CHECK(n > 0 && n < sizeof bytes && guarded(load, in_folder(name)) == GQ_OK);
  for (size_t cut = 0; cut < n; cut++) {
    put_file(path, bytes, cut);
    CHECK(guarded(load, path) == GQ_EFORMAT);
  }
  for (size_t bit = 0; bit < 8 * n; bit++) {
    bytes[bit / 8] ^= (char)(1 << bit % 8);
    put_file(path, bytes, n);
    guarded(load, path);
    bytes[bit / 8] ^= (char)(1 << bit % 8);
  }
  bytes[n] = 0;
  put_file(path, bytes, n + 1);
  CHECK(guarded(load, path) == GQ_EFORMAT);
  unlink(path);
}

static void make_seeds(void) {
  gq_tensor *t = random_tensor(GQ_F32, (gq_shape){ 2, { 2, 3 } }),
            *b = random_tensor(GQ_BOOL, (gq_shape){ 1, { 3 } });
  gq_named list[] = { { "w", t }, { "b", b } };
  gq_pair meta[] = { { "k", "v" } };
  gq_npy_save(in_folder("seed.npy"), t);
  gq_safetensors_save(in_folder("seed.safetensors"), list, 2, meta, 1);
  gq_tensor_unref(t), gq_tensor_unref(b);
}

/* ---- faults ---- */

static gq_tensor *saved;
static int save_npy(const char *path) { return gq_npy_save(path, saved); }
static int save_safe(const char *path) {
  gq_named list[] = { { "x", saved } };
  return gq_safetensors_save(path, list, 1, NULL, 0);
}
static int save_bytes(const char *path) { return gq_file_write(path, "new", 3); }
static int append(const char *path) { return gq_file_append_line(path, "line", 4); }
static int read_bytes(const char *path) {
  char *bytes;
  size_t n;
  GQ_TRY(gq_file_read(path, 1 << 20, &bytes, &n));
  gq_free(bytes);
  return GQ_OK;
}

/* Fail the k-th file operation, for every k until all succeed: a status that names the file,
** nothing leaked, no temporary left, and after a failed save the old contents. */
static void test_io_faults(load_fn f, const char *name, bool saves) {
  static const int errors[] = { EIO, ENOSPC, EACCES, EMFILE, EDQUOT, EROFS };
  char before[2048], after[2048];
  const char *path = in_folder(name);
  size_t n = get_file(path, before, sizeof before);
  for (int e = 0; e < 6; e++)
    for (int persistent = 0; persistent < 2; persistent++)
      for (long k = 0; k < 100; k++) {
        size_t blocks = gq_live_blocks();
        int count = files_in_folder();
        put_file(path, before, n);
        gq_io_fail(k, errors[e], persistent);
        int status = f(path);
        gq_io_fail(-1, 0, false);
        CHECK(gq_live_blocks() == blocks && files_in_folder() == count);
        if (status == GQ_OK) break;
        CHECK(status == GQ_EIO && strstr(gq_message(), name) && k < 50);
        if (!saves || strstr(gq_message(), "folder")) continue; /* replaced, only its folder not synced */
        CHECK(get_file(path, after, sizeof after) == n && memcmp(before, after, n) == 0);
      }
  put_file(path, before, n);
}

static void test_memory_faults(load_fn f, const char *name) {
  for (int persistent = 0; persistent < 2; persistent++)
    for (long k = 0; k < 200; k++) {
      size_t blocks = gq_live_blocks();
      int count = files_in_folder();
      gq_alloc_fail(k, persistent);
      int status = f(in_folder(name));
      gq_alloc_fail(-1, false);
      CHECK(gq_live_blocks() == blocks && files_in_folder() == count);
      if (status == GQ_OK) break;
      CHECK(status == GQ_ENOMEM && k < 150 && strstr(gq_message(), name));
    }
}

/* Interrupted and short reads and writes are carried on with. */
static long slow_read(int fd, void *buf, size_t n) {
  static int turn;
  if (++turn % 2) return errno = EINTR, -1;
  return read(fd, buf, n > 3 ? 3 : n);
}

static long slow_write(int fd, const void *buf, size_t n) {
  static int turn;
  if (++turn % 2) return errno = EINTR, -1;
  return write(fd, buf, n > 3 ? 3 : n);
}

static void test_slow_files(void) {
  gq_io normal = gq_files;
  gq_tensor *t = NULL;
  gq_files.read = slow_read, gq_files.write = slow_write;
  CHECK(gq_npy_save(in_folder("slow.npy"), saved) == GQ_OK &&
        gq_npy_load(in_folder("slow.npy"), &t) == GQ_OK && equal(t, saved));
  gq_tensor_unref(t);
  CHECK(gq_file_append_line(in_folder("slow.txt"), "longer than three", 17) == GQ_EIO);
  gq_files = normal;
}

/* ---- what killed processes leave, modes, links, a disk that fills up ---- */

static int mode_of(const char *path) {
  struct stat s;
  return stat(path, &s) == 0 ? (int)(s.st_mode & 0777) : -1;
}

/* Temporaries of this very process number, as in a container: a dead owner's go, a living one's stay. */
static void test_stale_temporaries(void) {
  char name[64];
  int count = files_in_folder(), fd[3];
  for (int i = 0; i < 2000; i++) {
    snprintf(name, sizeof name, "stale.npy.%ld.%d.tmp", (long)getpid(), i);
    put_file(in_folder(name), "half", 4);
  }
  put_file(in_folder("stale.npy.1.2.tmp"), "", 0);
  put_file(in_folder("stale.npy.1.x.tmp"), "", 0); /* somebody's own file */
  CHECK(gq_npy_save(in_folder("stale.npy"), saved) == GQ_OK);
  CHECK(files_in_folder() == count + 2);
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "stale.npy.7.%d.tmp", i);
    fd[i] = open(in_folder(name), O_CREAT | O_WRONLY, 0600);
    CHECK(flock(fd[i], LOCK_EX) == 0);
  }
  CHECK(gq_npy_save(in_folder("stale.npy"), saved) == GQ_OK &&
        files_in_folder() == count + 5); /* theirs too */
  for (int i = 0; i < 3; i++) close(fd[i]);
  CHECK(gq_npy_save(in_folder("stale.npy"), saved) == GQ_OK && files_in_folder() == count + 2);
  unlink(in_folder("stale.npy")), unlink(in_folder("stale.npy.1.x.tmp"));
}

/* The names that come next are taken by somebody alive: another one is. */
static int names_taken;
static int busy_open(const char *path, int flags, int mode) {
  if (flags & O_EXCL && names_taken-- > 0) return errno = EEXIST, -1;
  return open(path, flags | O_CLOEXEC, mode);
}

static void test_taken_names(void) {
  gq_io normal = gq_files;
  int count = files_in_folder();
  gq_files.open = busy_open;
  names_taken = 20;
  CHECK(gq_npy_save(in_folder("taken.npy"), saved) == GQ_OK && names_taken < 0);
  names_taken = 1000000;
  CHECK(gq_npy_save(in_folder("taken.npy"), saved) == GQ_EIO && strstr(gq_message(), "File exists"));
  gq_files = normal;
  CHECK(files_in_folder() == count + 1);
  unlink(in_folder("taken.npy"));
}

static void test_modes(void) {
  static const int modes[] = { 0600, 0640, 0644, 0400, 0666 };
  const char *path = in_folder("mode.npy");
  mode_t mask = umask(027);
  CHECK(gq_npy_save(path, saved) == GQ_OK && mode_of(path) == 0640);
  for (int i = 0; i < 5; i++) {
    CHECK(chmod(path, (mode_t)modes[i]) == 0);
    CHECK(gq_npy_save(path, saved) == GQ_OK && mode_of(path) == modes[i]);
  }
  umask(mask);
  unlink(path);
}

/* A link to a file that is still to come, by two links and a relative path, stays a link. */
static void test_dangling_link(void) {
  char real[64];
  struct stat s;
  gq_tensor *t;
  snprintf(real, sizeof real, "%s/later.npy", folder);
  CHECK(symlink("second.npy", in_folder("first.npy")) == 0 && symlink(real, in_folder("second.npy")) == 0);
  for (int i = 0; i < 2; i++) {
    CHECK(gq_npy_save(in_folder("first.npy"), saved) == GQ_OK);
    CHECK(lstat(in_folder("first.npy"), &s) == 0 && S_ISLNK(s.st_mode));
    CHECK(lstat(in_folder("second.npy"), &s) == 0 && S_ISLNK(s.st_mode));
    CHECK(gq_npy_load(real, &t) == GQ_OK && equal(t, saved));
    gq_tensor_unref(t);
  }
  unlink(in_folder("first.npy")), unlink(in_folder("second.npy")), unlink(real);
}

/* Room for half a line: none of it is left, and the line fits once there is room. */
static void test_full_disk(void) {
  struct rlimit old, small;
  char bytes[64];
  const char *path = in_folder("full.txt");
  getrlimit(RLIMIT_FSIZE, &old);
  small = (struct rlimit){ 10, old.rlim_max };
  signal(SIGXFSZ, SIG_IGN);
  CHECK(gq_file_append_line(path, "first", 5) == GQ_OK);
  CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
  CHECK(gq_file_append_line(path, "second", 6) == GQ_EIO && strstr(gq_message(), "full.txt"));
  CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
  CHECK(get_file(path, bytes, sizeof bytes) == 6 && memcmp(bytes, "first\n", 6) == 0);
  CHECK(gq_file_append_line(path, "second", 6) == GQ_OK && get_file(path, bytes, sizeof bytes) == 13);
  unlink(path);
}

/* A file that shrinks after it was measured. */
static int optimistic_size(int fd, int64_t *size, bool *regular) {
  struct stat s;
  if (fstat(fd, &s) != 0) return -1;
  *size = s.st_size + 10, *regular = true;
  return 0;
}

static void test_special_files(void) {
  char *bytes;
  size_t n;
  gq_tensor *t;
  gq_io normal = gq_files;
  mkfifo(in_folder("pipe"), 0600);
  const char *refused[] = { "/dev/zero", folder, in_folder("pipe"), in_folder("nothing here"), "" };
  for (int i = 0; i < 5; i++)
    CHECK(gq_file_read(refused[i], 100, &bytes, &n) == GQ_EIO && gq_npy_load(refused[i], &t) == GQ_EIO);
  CHECK(gq_npy_save(folder, saved) == GQ_EIO &&
        gq_npy_save(in_folder("no/such/folder.npy"), saved) == GQ_EIO);
  CHECK(symlink(in_folder("loop"), in_folder("loop")) == 0 && gq_npy_load(in_folder("loop"), &t) == GQ_EIO);
  unlink(in_folder("loop")), unlink(in_folder("pipe"));
  gq_files.fstat_size = optimistic_size;
  CHECK(gq_file_read(in_folder("seed.npy"), 1 << 20, &bytes, &n) == GQ_EFORMAT && !bytes);
  gq_files = normal;
  CHECK(gq_file_read(in_folder("seed.npy"), 10, &bytes, &n) == GQ_EFORMAT);
  for (int i = 0; i < 20; i++)
    CHECK(gq_npy_save("/dev/full", saved) == GQ_EIO && strstr(gq_message(), "No space left"));
  CHECK(gq_file_append_line("/dev/full", "x", 1) == GQ_EIO);
  struct stat s;
  CHECK(stat("/dev/full", &s) == 0 && S_ISCHR(s.st_mode)); /* not replaced by a file */
}

/* Saving through a link replaces what it points at, and keeps the link. */
static void test_links(void) {
  struct stat s;
  char bytes[16];
  put_file(in_folder("real.txt"), "old", 3);
  CHECK(symlink("real.txt", in_folder("link.txt")) == 0 &&
        gq_file_write(in_folder("link.txt"), "new", 3) == GQ_OK);
  CHECK(lstat(in_folder("link.txt"), &s) == 0 && S_ISLNK(s.st_mode));
  CHECK(get_file(in_folder("real.txt"), bytes, sizeof bytes) == 3 && memcmp(bytes, "new", 3) == 0);
}

static void test_lines(void) {
  char *bytes;
  size_t n;
  CHECK(gq_file_append_line(in_folder("log.txt"), "one", 3) == GQ_OK &&
        gq_file_append_line(in_folder("log.txt"), "", 0) == GQ_OK);
  CHECK(gq_file_read(in_folder("log.txt"), 100, &bytes, &n) == GQ_OK && n == 5 &&
        memcmp(bytes, "one\n\n", 6) == 0);
  gq_free(bytes);
}

static void remove_folder(void) {
  DIR *d = opendir(folder);
  for (struct dirent *e; (e = readdir(d));)
    if (e->d_name[0] != '.') unlink(in_folder(e->d_name));
  closedir(d);
  rmdir(folder);
}

int main(void) {
  if (!mkdtemp(folder)) return 1;
  size_t blocks = gq_live_blocks();
  RUN(test_npy_round_trip());
  RUN(test_npy_headers());
  RUN(test_safetensors_round_trip());
  RUN(test_safetensors_headers());
  RUN(test_safetensors_many());
  make_seeds();
  RUN(test_damage("seed.npy", load_npy_and_use));
  RUN(test_damage("seed.safetensors", load_safe_and_use));
  saved = random_tensor(GQ_F32, (gq_shape){ 2, { 2, 3 } });
  put_file(in_folder("target"), "old contents", 12);
  RUN(test_io_faults(save_npy, "target", true));
  RUN(test_io_faults(save_safe, "target", true));
  RUN(test_io_faults(save_bytes, "target", true));
  RUN(test_io_faults(append, "target", false));
  RUN(test_io_faults(read_bytes, "target", false));
  RUN(test_io_faults(load_npy_and_use, "seed.npy", false));
  RUN(test_io_faults(load_safe_and_use, "seed.safetensors", false));
  load_fn all[] = { save_npy, save_safe, save_bytes, append, read_bytes };
  for (int i = 0; i < 5; i++) RUN(test_memory_faults(all[i], "target"));
  RUN(test_memory_faults(load_npy_and_use, "seed.npy"));
  RUN(test_memory_faults(load_safe_and_use, "seed.safetensors"));
  RUN(test_slow_files());
  RUN(test_special_files());
  RUN(test_stale_temporaries());
  RUN(test_taken_names());
  RUN(test_modes());
  RUN(test_dangling_link());
  RUN(test_full_disk());
  RUN(test_links());
  RUN(test_lines());
  gq_tensor_unref(saved);
  remove_folder();
  RUN(CHECK(gq_live_blocks() == blocks));
  return DONE();
}
