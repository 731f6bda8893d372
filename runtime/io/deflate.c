/*
** deflate.c -- zlib's streams in memory: gzip, zlib and raw, told apart by `wrap`.
*/
#include "io.h"

#include <limits.h>
#include <zlib.h>

static int window(gq_wrap wrap) { return wrap == GQ_GZIP ? 15 + 32 : wrap == GQ_ZLIB ? 15 : -15; }

uint32_t gq_crc32(const void *bytes, size_t n) { return (uint32_t)crc32_z(0, bytes, n); }

/* Room for what may come: what is expected, else twice as much each time, but no more than `most`. */
static int grow(char **out, size_t *room, size_t expected, size_t most) {
  size_t more = *room ? 2 * *room : expected ? expected + 1 : 1 << 16;
  if (more > most + 1) more = most + 1;
  if (more <= *room) return gq_fail(GQ_EFORMAT, "more than %zu bytes come out of it", most);
  char *p = gq_realloc(*out, more);
  if (!p) return gq_nomem(more);
  *out = p, *room = more;
  return GQ_OK;
}

static uInt piece(size_t n) { return n > UINT_MAX ? UINT_MAX : (uInt)n; }

static const char *trouble(const z_stream *z, int code) {
  return z->msg                                ? z->msg
         : code == Z_BUF_ERROR || code == Z_OK ? "it ends too early"
                                               : "its contents are damaged";
}

/* Several gzip members may follow each other. */
static int inflate_all(z_stream *z, size_t n, size_t expected, size_t most, gq_wrap wrap, char **out,
                       size_t *size) {
  size_t room = 0, left = n;
  for (;;) {
    if (*size == room) GQ_TRY(grow(out, &room, expected, most));
    z->avail_in = piece(left), z->avail_out = piece(room - *size), z->next_out = (Bytef *)*out + *size;
    uInt in = z->avail_in, before = z->avail_out;
    int code = inflate(z, Z_NO_FLUSH);
    left -= in - z->avail_in, *size += before - z->avail_out;
    if (code == Z_STREAM_END && wrap == GQ_GZIP && left > 2 && z->next_in[0] == 0x1f &&
        z->next_in[1] == 0x8b) {
      if (inflateReset(z) != Z_OK) return gq_fail(GQ_EFORMAT, "%s", trouble(z, Z_DATA_ERROR));
      continue;
    }
    if (code == Z_STREAM_END) return GQ_OK;
    bool full = code == Z_BUF_ERROR && *size == room;
    if (code == Z_MEM_ERROR) return gq_nomem(1 << 16);
    if (code != Z_OK && !full) return gq_fail(GQ_EFORMAT, "%s", trouble(z, code));
    if (left == 0 && *size < room) return gq_fail(GQ_EFORMAT, "it ends too early");
  }
}

int gq_inflate(const void *bytes, size_t n, gq_wrap wrap, size_t expected, size_t most, char **out,
               size_t *size) {
  z_stream z = { .next_in = (Bytef *)(uintptr_t)bytes };
  *out = NULL, *size = 0;
  if (inflateInit2(&z, window(wrap)) != Z_OK) return gq_nomem(1 << 16);
  int status = inflate_all(&z, n, expected, most, wrap, out, size);
  inflateEnd(&z);
  if (status != GQ_OK) gq_free(*out), *out = NULL;
  return status;
}

int gq_deflate(const void *bytes, size_t n, char **out, size_t *size) {
  z_stream z = { .next_in = (Bytef *)(uintptr_t)bytes };
  if (deflateInit2(&z, 6, Z_DEFLATED, window(GQ_RAW), 8, Z_DEFAULT_STRATEGY) != Z_OK)
    return gq_nomem(1 << 18);
  size_t room = deflateBound(&z, n), left = n;
  *size = 0;
  *out = gq_alloc(room + 1);
  int code = *out ? Z_OK : Z_MEM_ERROR;
  while (code == Z_OK) {
    z.avail_in = piece(left), z.avail_out = piece(room - *size), z.next_out = (Bytef *)*out + *size;
    uInt in = z.avail_in, before = z.avail_out;
    code = deflate(&z, left == in ? Z_FINISH : Z_NO_FLUSH);
    left -= in - z.avail_in, *size += before - z.avail_out;
  }
  deflateEnd(&z);
  if (code == Z_STREAM_END) return GQ_OK;
  gq_free(*out), *out = NULL;
  return gq_nomem(room);
}
