/*
** npy.c -- one tensor in NumPy's .npy format, versions 1 to 3 (numpy/lib/format.py): a magic
** string, a Python dict as text, then the numbers. The dict is read by the few rules it needs,
** never evaluated; its shape is believed only when it matches the size of the file.
*/
#include "file.h"

#include <stdio.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files hold little-endian numbers");

enum { MAX_HEADER = 1 << 16 };

static const char *const descr_of[GQ_NDTYPE] = { "<f4", "<f8", "<i8", "|b1" };

/* ---- the header's dict ---- */

typedef struct dict {
  const char *p; /* the rest; ends with a zero byte */
  char descr[16];
  bool fortran;
  gq_shape shape;
} dict;

static bool skip(dict *d, char c) {
  while (*d->p == ' ') d->p++;
  if (*d->p != c) return false;
  d->p++;
  return true;
}

/* A quoted string without escapes, of less than n bytes. */
static bool string(dict *d, char *out, size_t n) {
  char quote = skip(d, '\'') ? '\'' : skip(d, '"') ? '"' : 0;
  const char *end = quote ? strchr(d->p, quote) : NULL;
  if (!end || (size_t)(end - d->p) >= n || memchr(d->p, '\\', (size_t)(end - d->p))) return false;
  memcpy(out, d->p, (size_t)(end - d->p));
  out[end - d->p] = '\0';
  d->p = end + 1;
  return true;
}

static bool word(dict *d, const char *text) {
  size_t n = strlen(text);
  while (*d->p == ' ') d->p++;
  if (strncmp(d->p, text, n) != 0) return false;
  d->p += n;
  return true;
}

static bool size(dict *d, int64_t *out) {
  while (*d->p == ' ') d->p++;
  if (*d->p < '0' || *d->p > '9') return false;
  for (*out = 0; *d->p >= '0' && *d->p <= '9'; d->p++)
    if (__builtin_mul_overflow(*out, 10, out) || __builtin_add_overflow(*out, *d->p - '0', out)) return false;
  return true;
}

/* (), (3,), (2, 3): as in Python, (3) is no tuple. */
static bool shape(dict *d) {
  int n = 0;
  bool comma = true;
  if (!skip(d, '(')) return false;
  while (!skip(d, ')')) {
    if (!comma || n == GQ_MAXDIM || !size(d, &d->shape.dim[n])) return false;
    n++;
    comma = skip(d, ',');
  }
  d->shape.ndim = n;
  return n != 1 || comma;
}

/* Each of the three keys exactly once. 0: unreadable. */
static bool entry(dict *d, unsigned *seen) {
  char key[16];
  unsigned bit;
  bool ok;
  if (!string(d, key, sizeof key) || !skip(d, ':')) return false;
  if (strcmp(key, "descr") == 0) bit = 1, ok = string(d, d->descr, sizeof d->descr);
  else if (strcmp(key, "fortran_order") == 0)
    bit = 2, ok = (d->fortran = word(d, "True")) || word(d, "False");
  else if (strcmp(key, "shape") == 0) bit = 4, ok = shape(d);
  else return false;
  ok = ok && !(*seen & bit);
  *seen |= bit;
  return ok;
}

static bool parse(dict *d) {
  unsigned seen = 0;
  bool comma = true;
  if (!skip(d, '{')) return false;
  while (!skip(d, '}')) {
    if (!comma || !entry(d, &seen)) return false;
    comma = skip(d, ',');
  }
  return seen == 7 && skip(d, '\n') && *d->p == '\0';
}

/* ---- loading ---- */

/* Magic, version and the length of the dict. */
static int read_preamble(gq_reader *r, size_t *length) {
  unsigned char b[12];
  GQ_TRY(gq_reader_get(r, b, 8));
  if (memcmp(b, "\x93NUMPY", 6) != 0)
    return gq_reader_bad(r, "not an .npy file: the magic string is missing");
  if (b[6] < 1 || b[6] > 3 || b[7] != 0)
    return gq_reader_bad(r, "version %d.%d: 1.0, 2.0 and 3.0 are read", b[6], b[7]);
  GQ_TRY(gq_reader_get(r, b + 8, b[6] == 1 ? 2 : 4));
  *length = b[8] | (size_t)b[9] << 8;
  if (b[6] > 1) *length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
  if (*length > MAX_HEADER)
    return gq_reader_bad(r, "a header of %zu bytes: at most %d are read", *length, MAX_HEADER);
  return GQ_OK;
}

static int read_dict(gq_reader *r, char *text, size_t length, dict *d) {
  GQ_TRY(gq_reader_get(r, text, length));
  text[length] = '\0';
  *d = (dict){ .p = text };
  if (strlen(text) != length || !parse(d))
    return gq_reader_bad(
      r, "the header is not {'descr': ..., 'fortran_order': ..., 'shape': (...)} and a newline");
  return GQ_OK;
}

static int read_header(gq_reader *r, dict *d) {
  size_t length = 0;
  GQ_TRY(read_preamble(r, &length));
  char *text = gq_alloc(length + 1);
  if (!text) return gq_nomem(length + 1);
  int status = read_dict(r, text, length, d);
  gq_free(text);
  return status;
}

/* f->size is 0 for a dtype of ours. */
static int find_dtype(const gq_reader *r, const char *descr, gq_dtype *out, gq_foreign *f) {
  *f = (gq_foreign){ 0 };
  for (int i = 0; i < GQ_NDTYPE; i++)
    if (strcmp(descr, descr_of[i]) == 0) {
      *out = (gq_dtype)i;
      return GQ_OK;
    }
  if (strlen(descr) != 3 || !strchr("<>|=", descr[0]) || !strchr("iuf", descr[1]) ||
      !strchr(descr[1] == 'f' ? "248" : "1248", descr[2]))
    return gq_reader_bad(r, "dtype '%s': bool, integers and floats of 2, 4 and 8 bytes are read", descr);
  *f = (gq_foreign){ descr[1], descr[2] - '0', descr[0] == '>' };
  *out = gq_foreign_dtype(*f);
  return GQ_OK;
}

static gq_shape reversed(gq_shape s) {
  gq_shape r = s;
  for (int i = 0; i < s.ndim; i++) r.dim[i] = s.dim[s.ndim - 1 - i];
  return r;
}

/* Fortran's order is C's with the dimensions reversed: a view, no copy. */
static int transposed(gq_tensor *t, gq_tensor **out) {
  int64_t stride[GQ_MAXDIM];
  for (int i = 0; i < t->shape.ndim; i++) stride[i] = t->stride[t->shape.ndim - 1 - i];
  return gq_tensor_view(t, reversed(t->shape), stride, 0, out);
}

static int read_npy(gq_reader *r, gq_tensor **out) {
  dict d;
  gq_dtype dtype = GQ_F32;
  gq_foreign f;
  size_t bytes;
  GQ_TRY(read_header(r, &d));
  GQ_TRY(find_dtype(r, d.descr, &dtype, &f));
  int status = gq_shape_check(d.shape, dtype, &bytes);
  if (status != GQ_OK) return gq_reader_bad(r, "%s", gq_message());
  if (f.size) bytes = bytes / gq_dtype_size(dtype) * (size_t)f.size;
  if (bytes != (size_t)(r->size - r->at))
    return gq_reader_bad(r, "the shape needs %zu bytes, %lld follow", bytes, (long long)(r->size - r->at));
  gq_tensor *t;
  GQ_TRY(gq_tensor_empty(dtype, d.fortran ? reversed(d.shape) : d.shape, &t));
  status = f.size ? gq_reader_foreign(r, f, t) : gq_reader_tensor(r, t);
  if (status == GQ_OK && d.fortran) status = transposed(t, out);
  else if (status == GQ_OK) *out = gq_tensor_ref(t);
  gq_tensor_unref(t);
  return status;
}

int gq_npy_load(const char *path, gq_tensor **t) {
  gq_reader r;
  *t = NULL;
  GQ_TRY(gq_reader_open(&r, path));
  int status = read_npy(&r, t);
  gq_reader_close(&r);
  return gq_file_named(status, path);
}

int gq_npy_read(const char *name, const void *bytes, size_t n, gq_tensor **t) {
  gq_reader r = { .fd = -1, .path = name, .size = (int64_t)n, .memory_ = bytes };
  *t = NULL;
  return gq_file_named(read_npy(&r, t), name);
}

/* ---- saving ---- */

/* Version 1, padded so that the numbers start at a multiple of 64. */
static size_t make_header(const gq_tensor *t, char buf[512]) {
  size_t n = 10;
  memcpy(buf, "\x93NUMPY\1\0", 8);
  n += (size_t)sprintf(buf + n, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr_of[t->dtype]);
  for (int i = 0; i < t->shape.ndim; i++)
    n += (size_t)sprintf(buf + n,
                         t->shape.ndim == 1 ? "%lld,"
                         : i                ? ", %lld"
                                            : "%lld",
                         (long long)t->shape.dim[i]);
  n += (size_t)sprintf(buf + n, "), }");
  while ((n + 1) % 64 != 0) buf[n++] = ' ';
  buf[n++] = '\n';
  buf[8] = (char)((n - 10) & 0xff), buf[9] = (char)((n - 10) >> 8);
  return n;
}

int gq_npy_save(const char *path, gq_tensor *t) {
  gq_tensor *packed;
  gq_writer w;
  char header[512];
  GQ_TRY(gq_file_named(gq_tensor_host(t, &packed), path));
  int status = gq_writer_open(&w, path);
  if (status == GQ_OK) {
    status = gq_writer_put(&w, header, make_header(packed, header));
    if (status == GQ_OK)
      status = gq_writer_put(&w, gq_tensor_data(packed),
                             (size_t)gq_numel(packed->shape) * gq_dtype_size(packed->dtype));
    status = gq_writer_close(&w, status);
  }
  gq_tensor_unref(packed);
  return status;
}
