/*
** safetensors.c -- named tensors in one file (github.com/huggingface/safetensors, README):
** 8 bytes of header length, a JSON object, the numbers. Nothing of the header is believed: names
** differ, spans cover the data without hole or overlap, sizes are shape x dtype. The header is
** read without building a tree, so that memory stays in proportion to the file.
*/
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000, MAX_NAMES = 100000 };

/* A tensor as the header describes it. */
typedef struct record {
  char *name;
  gq_dtype dtype;
  gq_foreign foreign; /* size 0: the numbers are of that dtype */
  gq_shape shape;
  int64_t begin, end;
} record;

typedef struct header {
  char *text, *p; /* the JSON text, zero at its end; where reading is */
  record *record;
  int n, room;
  gq_pair *meta;
  int nmeta, meta_room;
  int failed; /* status with a message of its own; GQ_OK: plainly malformed */
} header;

static const struct {
  const char *name;
  gq_dtype dtype;
  gq_foreign foreign;
} dtypes[] = {
  { "F32", GQ_F32, { 0 } },
  { "F64", GQ_F64, { 0 } },
  { "I64", GQ_I64, { 0 } },
  { "BOOL", GQ_BOOL, { 0 } }, /* up to here in the order of gq_dtype, for saving */
  { "U8", GQ_BOOL, { 0 } },
  { "F16", GQ_F32, { 'f', 2, false } },
  { "BF16", GQ_F32, { 'b', 2, false } },
  { "I32", GQ_I64, { 'i', 4, false } },
  { "I16", GQ_I64, { 'i', 2, false } },
  { "I8", GQ_I64, { 'i', 1, false } },
  { "U64", GQ_I64, { 'u', 8, false } },
  { "U32", GQ_I64, { 'u', 4, false } },
  { "U16", GQ_I64, { 'u', 2, false } },
};

/* ---- the few rules of JSON that headers use; NULL or false: malformed ---- */

static void blanks(header *h) {
  while (*h->p == ' ' || *h->p == '\n' || *h->p == '\t' || *h->p == '\r') h->p++;
}

static bool skip(header *h, char c) {
  blanks(h);
  if (*h->p != c) return false;
  h->p++;
  return true;
}

static int hex4(const char *p) {
  int x = 0;
  for (int i = 0; i < 4; i++) {
    char c = p[i];
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    if (digit < 0) return -1;
    x = x * 16 + digit;
  }
  return x;
}

static char *put_utf8(char *to, int c) {
  if (c < 0x80) return *to++ = (char)c, to;
  int k = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  *to++ = (char)((k == 1 ? 0xc0 : k == 2 ? 0xe0 : 0xf0) | c >> 6 * k);
  while (k-- > 0) *to++ = (char)(0x80 | (c >> 6 * k & 0x3f));
  return to;
}

/* \uXXXX, with its second half where it needs one. Zero is refused: names are C strings. */
static bool unicode(char **from, char **to) {
  int c = hex4(*from), low;
  if (c <= 0 || (c >= 0xdc00 && c <= 0xdfff)) return false;
  *from += 4;
  if (c >= 0xd800 && c <= 0xdbff) {
    if ((*from)[0] != '\\' || (*from)[1] != 'u') return false;
    low = hex4(*from + 2);
    if (low < 0xdc00 || low > 0xdfff) return false;
    *from += 6;
    c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
  }
  *to = put_utf8(*to, c);
  return true;
}

static bool escape(char **from, char **to) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  char c = *(*from)++;
  if (c == 'u') return unicode(from, to);
  const char *at = c ? strchr(names, c) : NULL;
  if (!at) return false;
  *(*to)++ = values[at - names];
  return true;
}

/* Decoded in place: text only gets shorter. Lent by the header. */
static char *string(header *h) {
  if (!skip(h, '"')) return NULL;
  char *start = h->p, *from = start, *to = start;
  while (*from != '"') {
    if ((unsigned char)*from < 0x20) return NULL;
    if (*from == '\\') {
      from++;
      if (!escape(&from, &to)) return NULL;
    } else *to++ = *from++;
  }
  h->p = from + 1;
  if (!gq_utf8(start, (size_t)(to - start))) return NULL;
  *to = '\0';
  return start;
}

/* A plain integer, 0 and up; no sign, fraction, exponent or leading zero. */
static bool integer(header *h, int64_t *out) {
  blanks(h);
  if (*h->p < '0' || *h->p > '9' || (*h->p == '0' && h->p[1] >= '0' && h->p[1] <= '9')) return false;
  for (*out = 0; *h->p >= '0' && *h->p <= '9'; h->p++)
    if (__builtin_mul_overflow(*out, 10, out) || __builtin_add_overflow(*out, *h->p - '0', out)) return false;
  return *h->p != '.' && *h->p != 'e' && *h->p != 'E';
}

/* [..] of at most `max` integers; their number, or -1. */
static int integers(header *h, int64_t *out, int max) {
  int n = 0;
  if (!skip(h, '[')) return -1;
  if (skip(h, ']')) return 0;
  do
    if (n == max || !integer(h, &out[n++])) return -1;
  while (skip(h, ','));
  return skip(h, ']') ? n : -1;
}

/* {"key": value, ...}: calls `value` after each colon. */
static bool object(header *h, bool (*value)(header *, char *key, void *), void *arg) {
  if (!skip(h, '{')) return false;
  if (skip(h, '}')) return true;
  do {
    char *key = string(h);
    if (!key || !skip(h, ':') || !value(h, key, arg)) return false;
  } while (skip(h, ','));
  return skip(h, '}');
}

/* ---- the header ---- */

static bool find_dtype(header *h, const char *name, record *r) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (strcmp(name, dtypes[i].name) == 0)
      return r->dtype = dtypes[i].dtype, r->foreign = dtypes[i].foreign, true;
  h->failed =
    gq_fail(GQ_EFORMAT, "dtype %.20s: F64, F32, F16, BF16, integers, BOOL and U8 of 0 and 1 are read", name);
  return false;
}

typedef struct fields {
  record r;
  unsigned seen;
} fields;

static bool field(header *h, char *key, void *arg) {
  fields *f = arg;
  unsigned bit;
  int64_t span[2];
  if (strcmp(key, "dtype") == 0) {
    char *name = string(h);
    bit = 1;
    if (!name || !find_dtype(h, name, &f->r)) return false;
  } else if (strcmp(key, "shape") == 0) {
    bit = 2;
    if ((f->r.shape.ndim = integers(h, f->r.shape.dim, GQ_MAXDIM)) < 0) return false;
  } else if (strcmp(key, "data_offsets") == 0) {
    bit = 4;
    if (integers(h, span, 2) != 2) return false;
    f->r.begin = span[0], f->r.end = span[1];
  } else return false;
  if (f->seen & bit) return false;
  f->seen |= bit;
  return true;
}

static bool metadata(header *h, char *key, void *arg) {
  char *value = string(h);
  if (!value || h->nmeta == MAX_NAMES) return false;
  h->failed = gq_room(&h->meta, &h->meta_room, h->nmeta, sizeof *h->meta);
  if (h->failed) return false;
  h->meta[h->nmeta++] = (gq_pair){ key, value }; /* lent until taken */
  return true;
}

static bool named(header *h, char *key, void *arg) {
  fields f = { .seen = 0 };
  bool *meta_seen = arg;
  if (strcmp(key, "__metadata__") == 0) {
    if (*meta_seen) return false;
    *meta_seen = true;
    return object(h, metadata, NULL);
  }
  f.r.name = key;
  if (h->n == MAX_NAMES || !object(h, field, &f) || f.seen != 7) return false;
  h->failed = gq_room(&h->record, &h->room, h->n, sizeof *h->record);
  if (h->failed) return false;
  h->record[h->n++] = f.r;
  return true;
}

/* Of whatever begins with its name. */
static int by_name(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The list is sorted by its names; one that it has twice, or NULL. */
static const char *twice(void *list, int n, size_t each) {
  const char *at = list;
  if (n) qsort(list, (size_t)n, each, by_name);
  for (int i = 1; i < n; i++, at += each)
    if (by_name(at, at + each) == 0) return *(const char *const *)(const void *)at;
  return NULL;
}

static int by_span(const void *a, const void *b) {
  const record *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return (x->end > y->end) - (x->end < y->end);
}

static int check_names(const gq_reader *r, header *h) {
  const char *name = twice(h->record, h->n, sizeof *h->record),
             *key = twice(h->meta, h->nmeta, sizeof *h->meta);
  if (name) return gq_reader_bad(r, "two tensors are named \"%.60s\"", name);
  return key ? gq_reader_bad(r, "two entries of the metadata are named \"%.60s\"", key) : GQ_OK;
}

/* Leaves the records in the order of the data. */
static int check_spans(const gq_reader *r, header *h) {
  int64_t at = 0;
  size_t bytes;
  if (h->n) qsort(h->record, (size_t)h->n, sizeof *h->record, by_span);
  for (int i = 0; i < h->n; i++) {
    const record *x = &h->record[i];
    if (gq_shape_check(x->shape, x->dtype, &bytes) != GQ_OK)
      return gq_reader_bad(r, "tensor \"%.60s\": %s", x->name, gq_message());
    if (x->foreign.size) bytes = bytes / gq_dtype_size(x->dtype) * (size_t)x->foreign.size;
    if (x->begin != at || x->end < x->begin)
      return gq_reader_bad(r, "tensor \"%.60s\" is at %lld to %lld of the data: a hole or an overlap",
                           x->name, (long long)x->begin, (long long)x->end);
    if ((size_t)(x->end - x->begin) != bytes)
      return gq_reader_bad(r, "tensor \"%.60s\" has %lld bytes, its shape needs %zu", x->name,
                           (long long)(x->end - x->begin), bytes);
    at = x->end;
  }
  if (at != r->size - r->at)
    return gq_reader_bad(r, "the tensors cover %lld bytes, %lld follow", (long long)at,
                         (long long)(r->size - r->at));
  return GQ_OK;
}

static int read_header(gq_reader *r, header *h) {
  unsigned char b[8];
  uint64_t length = 0;
  bool meta_seen = false;
  GQ_TRY(gq_reader_get(r, b, 8));
  for (int i = 7; i >= 0; i--) length = length << 8 | b[i];
  if (length > MAX_HEADER || length > (uint64_t)(r->size - r->at))
    return gq_reader_bad(r, "a header of %llu bytes does not fit", (unsigned long long)length);
  h->text = h->p = gq_alloc((size_t)length + 1);
  if (!h->text) return gq_nomem((size_t)length + 1);
  GQ_TRY(gq_reader_get(r, h->text, (size_t)length));
  h->text[length] = '\0';
  if (*h->text != '{') return gq_reader_bad(r, "the header is no JSON object");
  if (!object(h, named, &meta_seen)) {
    if (h->failed == GQ_ENOMEM) return GQ_ENOMEM;
    return gq_reader_bad(r, "the header near its byte %lld: %s", (long long)(h->p - h->text),
                         h->failed ? gq_message() : "not as the format has it");
  }
  blanks(h);
  if ((uint64_t)(h->p - h->text) != length) return gq_reader_bad(r, "text after the header's object");
  GQ_TRY(check_names(r, h));
  return check_spans(r, h);
}

/* ---- loading ---- */

static int read_one(gq_reader *r, const record *x, gq_named *out) {
  out->name = gq_strdup(x->name);
  if (!out->name) return gq_nomem(strlen(x->name) + 1);
  GQ_TRY(gq_tensor_empty(x->dtype, x->shape, &out->tensor));
  return x->foreign.size ? gq_reader_foreign(r, x->foreign, out->tensor) : gq_reader_tensor(r, out->tensor);
}

static int read_all(gq_reader *r, const header *h, gq_named **list) {
  int status = GQ_OK;
  *list = gq_calloc((size_t)h->n + 1, sizeof **list);
  if (!*list) return gq_nomem(((size_t)h->n + 1) * sizeof **list);
  for (int i = 0; i < h->n && status == GQ_OK; i++) status = read_one(r, &h->record[i], &(*list)[i]);
  return status;
}

static int copy_meta(const header *h, gq_pair **meta) {
  *meta = gq_calloc((size_t)h->nmeta + 1, sizeof **meta);
  if (!*meta) return gq_nomem(((size_t)h->nmeta + 1) * sizeof **meta);
  for (int i = 0; i < h->nmeta; i++) {
    (*meta)[i].key = gq_strdup(h->meta[i].key);
    (*meta)[i].value = gq_strdup(h->meta[i].value);
    if (!(*meta)[i].key || !(*meta)[i].value)
      return gq_nomem(strlen(h->meta[i].key) + strlen(h->meta[i].value));
  }
  return GQ_OK;
}

void gq_named_free(gq_named *list_, int n) {
  for (int i = 0; list_ && i < n; i++) {
    gq_free(list_[i].name);
    gq_tensor_unref(list_[i].tensor);
  }
  gq_free(list_);
}

void gq_pairs_free(gq_pair *list_, int n) {
  for (int i = 0; list_ && i < n; i++) {
    gq_free(list_[i].key);
    gq_free(list_[i].value);
  }
  gq_free(list_);
}

int gq_safetensors_load(const char *path, gq_named **list, int *n, gq_pair **meta_, int *nmeta_) {
  gq_reader r;
  header h = { .text = NULL };
  gq_pair *meta = NULL;
  *list = NULL, *n = 0;
  if (meta_) *meta_ = NULL, *nmeta_ = 0;
  GQ_TRY(gq_reader_open(&r, path));
  int status = read_header(&r, &h);
  if (status == GQ_OK) status = read_all(&r, &h, list);
  if (status == GQ_OK && meta_) status = copy_meta(&h, &meta);
  gq_reader_close(&r);
  if (status != GQ_OK) {
    gq_named_free(*list, h.n);
    gq_pairs_free(meta, h.nmeta);
    *list = NULL;
  } else {
    *n = h.n;
    if (meta_) *meta_ = meta, *nmeta_ = h.nmeta;
  }
  gq_free(h.text);
  gq_free(h.record);
  gq_free(h.meta);
  return gq_file_named(status, path);
}

/* ---- saving ---- */

static void put_quoted(gq_text *t, const char *s) {
  gq_text_put(t, "\"");
  for (; *s; s++)
    if (*s == '"' || *s == '\\') gq_text_put(t, "\\%c", *s);
    else if ((unsigned char)*s < 0x20) gq_text_put(t, "\\u%04x", *s);
    else gq_text_add(t, s, 1);
  gq_text_put(t, "\"");
}

static void put_meta(gq_text *t, const gq_pair *meta, int n) {
  gq_text_put(t, "\"__metadata__\":{");
  for (int i = 0; i < n; i++) {
    if (i) gq_text_put(t, ",");
    put_quoted(t, meta[i].key);
    gq_text_put(t, ":");
    put_quoted(t, meta[i].value);
  }
  gq_text_put(t, "}");
}

static void put_tensor(gq_text *t, const gq_named *x, int64_t begin, int64_t end) {
  put_quoted(t, x->name);
  gq_text_put(t, ":{\"dtype\":\"%s\",\"shape\":[", dtypes[x->tensor->dtype].name);
  for (int i = 0; i < x->tensor->shape.ndim; i++)
    gq_text_put(t, "%s%lld", i ? "," : "", (long long)x->tensor->shape.dim[i]);
  gq_text_put(t, "],\"data_offsets\":[%lld,%lld]}", (long long)begin, (long long)end);
}

static int64_t bytes_of(const gq_tensor *t) { return gq_numel(t->shape) * (int64_t)gq_dtype_size(t->dtype); }

/* Length, object, spaces to a multiple of 8. */
static int put_header(gq_text *t, const gq_named *list, int n, const gq_pair *meta, int nmeta) {
  int64_t at = 0;
  gq_text_add(t, "\0\0\0\0\0\0\0", 8);
  gq_text_put(t, "{");
  if (nmeta) put_meta(t, meta, nmeta);
  for (int i = 0; i < n; i++) {
    int64_t end = at + bytes_of(list[i].tensor);
    if (i || nmeta) gq_text_put(t, ",");
    put_tensor(t, &list[i], at, end);
    at = end;
  }
  gq_text_put(t, "}");
  gq_text_put(t, "%*s", (int)(-t->n & 7), "");
  if (t->failed) return gq_nomem(2 * t->room);
  if (t->n - 8 > MAX_HEADER) return gq_fail(GQ_EARG, "the header is longer than %d bytes", MAX_HEADER);
  for (int i = 0; i < 8; i++) t->s[i] = (char)((t->n - 8) >> 8 * i & 0xff);
  return GQ_OK;
}

static int write_tensor(gq_writer *w, gq_tensor *t) {
  gq_tensor *packed;
  GQ_TRY(gq_tensor_host(t, &packed));
  int status = gq_writer_put(w, gq_tensor_data(packed), (size_t)bytes_of(packed));
  gq_tensor_unref(packed);
  return status;
}

/* Names and metadata keys must differ: the file could not be loaded again. */
static int check_distinct(const char **names, int n, const char *what) {
  const char *name = twice(names, n, sizeof *names);
  if (name) return gq_fail(GQ_EARG, "two %s are named \"%.60s\"", what, name);
  for (int i = 0; i < n; i++)
    if (strcmp(names[i], "__metadata__") == 0)
      return gq_fail(GQ_EARG, "the name __metadata__ is taken by the format");
  return GQ_OK;
}

static int check_utf8(const char *s) {
  if (gq_utf8(s, strlen(s))) return GQ_OK;
  return gq_fail(GQ_EARG, "a name or a metadata entry is not UTF-8 text: \"%.60s\"", s);
}

static int check_saved(const gq_named *list, int n, const gq_pair *meta, int nmeta) {
  int most = n > nmeta ? n : nmeta;
  if (most > MAX_NAMES) return gq_fail(GQ_EARG, "%d names: at most %d are saved", most, MAX_NAMES);
  const char **names = gq_calloc((size_t)most + 1, sizeof *names);
  if (!names) return gq_nomem(((size_t)most + 1) * sizeof *names);
  for (int i = 0; i < n; i++) names[i] = list[i].name;
  int status = check_distinct(names, n, "tensors");
  for (int i = 0; i < nmeta; i++) names[i] = meta[i].key;
  if (status == GQ_OK) status = check_distinct(names, nmeta, "metadata entries");
  gq_free(names);
  for (int i = 0; i < n && status == GQ_OK; i++)
    if (!list[i].tensor->storage)
      status = gq_fail(GQ_ESTATE, "\"%.60s\" is a traced value, it has no numbers", list[i].name);
  for (int i = 0; i < nmeta && status == GQ_OK; i++) {
    status = check_utf8(meta[i].key);
    if (status == GQ_OK) status = check_utf8(meta[i].value);
  }
  for (int i = 0; i < n && status == GQ_OK; i++) status = check_utf8(list[i].name);
  return status;
}

int gq_safetensors_save(const char *path, const gq_named *list, int n, const gq_pair *meta, int nmeta) {
  gq_text t = { 0 };
  gq_writer w;
  GQ_TRY(gq_file_named(check_saved(list, n, meta, nmeta), path));
  int status = put_header(&t, list, n, meta, nmeta);
  if (status == GQ_OK) status = gq_writer_open(&w, path);
  if (status == GQ_OK) {
    status = gq_writer_put(&w, t.s, t.n);
    for (int i = 0; i < n && status == GQ_OK; i++) status = write_tensor(&w, list[i].tensor);
    status = gq_writer_close(&w, status);
  }
  gq_free(t.s);
  return gq_file_named(status, path);
}
