/*
** io.h -- files through one table of functions (a test can fail the n-th call), .npy,
** .safetensors, JSON lines. Loaders check everything before they allocate: memory asked for is
** bounded by the file's size. Saving is atomic: temporary, fsync, rename, fsync of the folder.
*/
#ifndef GQ_IO_H
#define GQ_IO_H

#include "../tensor/tensor.h"

typedef struct gq_io {                 /* each returns as the POSIX call does, errno set */
  int (*open)(const char *path, int flags, int mode);
  long (*read)(int fd, void *buf, size_t n);
  long (*write)(int fd, const void *buf, size_t n);
  int (*fsync)(int fd);
  int (*close)(int fd);
  int (*rename)(const char *from, const char *to);
  int (*unlink)(const char *path);
  int (*fstat_size)(int fd, int64_t *size, bool *regular);
} gq_io;
extern gq_io gq_files;                 /* the table in use; tests replace entries */
/* Let `after` more calls succeed, then fail with `err` (persistent: from then on); after < 0: off. */
void gq_io_fail(long after, int err, bool persistent);

int gq_file_read(const char *path, size_t max, char **bytes, size_t *n);      /* whole regular file; gq_free */
int gq_file_write(const char *path, const void *bytes, size_t n);             /* atomic */
/* One write with O_APPEND; adds '\n', and one before where the file ends in half a line. */
int gq_file_append_line(const char *path, const char *line, size_t n);

bool gq_utf8(const char *s, size_t n);      /* well-formed, shortest form, no surrogates */
size_t gq_utf8_prefix(const char *s, size_t n);   /* how many bytes of s are, from the first on */

int gq_npy_load(const char *path, gq_tensor **t);   /* <f4 <f8 <i8 |b1 (others refused by name), C or Fortran order */
int gq_npy_save(const char *path, gq_tensor *t);

int gq_npy_read(const char *name, const void *bytes, size_t n, gq_tensor **t);   /* the same from memory */

/* zlib's streams in memory; gq_free(*out). expected: bytes that should come out, 0: unknown; most: never more. */
typedef enum gq_wrap { GQ_RAW, GQ_ZLIB, GQ_GZIP } gq_wrap;
int gq_inflate(const void *bytes, size_t n, gq_wrap wrap, size_t expected, size_t most, char **out, size_t *size);
int gq_deflate(const void *bytes, size_t n, char **out, size_t *size);      /* raw */
uint32_t gq_crc32(const void *bytes, size_t n);

/* Text with separators: one cell [*from, *to) of a record from byte `at` on, what it is, and all numbers. */
typedef enum gq_cell { GQ_CELL_NUMBER, GQ_CELL_MISSING, GQ_CELL_DATE, GQ_CELL_TEXT } gq_cell;
size_t gq_csv_next(const char *s, size_t n, size_t at, char separator, const char **from, const char **to, bool *more);
gq_cell gq_csv_cell(const char *from, const char *to, double *x);   /* missing: NaN; dates: seconds since 1970 */
typedef struct gq_csv {
  char separator;
  int columns, wanted;            /* cells of a record; numbers of it that are kept */
  const int *place;               /* [columns] where each goes, -1: nowhere; NULL: all in their order */
  bool dates;                     /* found: dates, and missing cells */
  int64_t missing;
} gq_csv;
int gq_csv_numbers(gq_csv *c, const char *bytes, size_t n, size_t at, int64_t line, double **out, int64_t *rows);

/* A PNG or JPEG file in memory, by libpng or libturbojpeg where they are installed: {channels, height, width} of 0 to
** 1; channels: 1 or 3. */
int gq_image_read(const char *name, const void *bytes, size_t n, int channels, gq_tensor **t);

/* Images {c, h, w}, each number of so many bytes: to[.][i][j] = from[.][i + down][j + right], mirrored before that,
** zero outside. */
typedef struct gq_moved { bool mirrored; int64_t down, right; } gq_moved;
void gq_image_move(size_t number, int64_t c, int64_t h, int64_t w, const void *from, gq_moved m, void *to);

/* Rows of n tensors in an order, so many at a time. The next few are put together by a thread meanwhile; what they are
** does not depend on it, nor on when it runs: where a tensor was written to since, its rows are taken again. */
typedef struct gq_batches gq_batches;
typedef struct gq_batches_of {
  int n;
  gq_tensor *const *from;              /* on the host, contiguous, as long as each other */
  gq_tensor *order;                    /* int64, from 1 */
  int64_t size;                        /* rows of a batch; the last has what is left, unless drop_last */
  bool drop_last, thread;
  int moved;                           /* which of them are images {rows, c, h, w} that are moved; -1: none */
  gq_tensor *moves_;                   /* int64 {rows, 3}, by place in the order: mirrored, down, right */
} gq_batches_of;
int gq_batches_new(const gq_batches_of *what, gq_batches **out);
int gq_batches_next(gq_batches *b, gq_tensor **to);   /* n new tensors, or NULL at the end */
void gq_batches_free(gq_batches *b_);

typedef struct gq_named { char *name; gq_tensor *tensor; } gq_named;
typedef struct gq_pair { char *key, *value; } gq_pair;
/* safetensors: F32 F64 I64 BOOL (U8 0/1 for bool too); metadata: strings. meta_ NULL: not wanted. */
int gq_safetensors_load(const char *path, gq_named **list, int *n, gq_pair **meta_, int *nmeta_);
int gq_safetensors_save(const char *path, const gq_named *list, int n, const gq_pair *meta_, int nmeta);
void gq_named_free(gq_named *list_, int n);
void gq_pairs_free(gq_pair *list_, int n);

#endif
