/*
** file.h -- reading and writing a file front to back, for the formats of io.h. Every failure
** names the file; every read knows how many bytes are left, so that no format can be lied to.
*/
#ifndef GQ_FILE_H
#define GQ_FILE_H

#include "io.h"

typedef struct gq_reader {
  int fd;
  const char *path;               /* lent */
  int64_t size, at;               /* bytes of the file, bytes read */
  const char *memory_;            /* the bytes themselves, where they were read before */
} gq_reader;
int gq_reader_open(gq_reader *r, const char *path);             /* regular files only */
int gq_reader_get(gq_reader *r, void *buf, size_t n);           /* exactly n bytes */
int gq_reader_bad(const gq_reader *r, const char *fmt, ...)     /* GQ_EFORMAT naming the file and the byte */
  __attribute__((format(printf, 2, 3)));
void gq_reader_close(gq_reader *r);
/* The rest of the reader's bytes for t, a packed tensor; checks that bools are 0 or 1. */
int gq_reader_tensor(gq_reader *r, gq_tensor *t);
/* Numbers that no tensor holds as they are: integers of other sizes become int64, short floats float32. */
typedef struct gq_foreign {
  char letter;                    /* i, u: integers; f: IEEE floats; b: bfloat16 */
  int size;                       /* bytes of one */
  bool big;                       /* the most significant byte first */
} gq_foreign;
gq_dtype gq_foreign_dtype(gq_foreign f);
int gq_reader_foreign(gq_reader *r, gq_foreign f, gq_tensor *t);  /* as gq_reader_tensor, t of that dtype */

typedef struct gq_writer {
  int fd;
  const char *path;               /* lent */
  char *real, *temporary;         /* where it ends up; NULL temporary: a device, written in place */
} gq_writer;
int gq_writer_open(gq_writer *w, const char *path);
int gq_writer_put(gq_writer *w, const void *bytes, size_t n);
/* status GQ_OK: commit (fsync, rename, fsync of the folder); otherwise drop the temporary and pass it on. */
int gq_writer_close(gq_writer *w, int status);

/* The message of a status without a file (out of memory) with one; gives the status. */
int gq_file_named(int status, const char *path);

#endif
