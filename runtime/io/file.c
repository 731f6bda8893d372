/*
** file.c -- the one table of file functions, faults for tests, and files read and written whole.
** A path that is being saved always holds all of the old contents or all of the new: temporary,
** fsync, rename, fsync of the folder (Pillai et al., "All file systems are not created equal", OSDI 2014).
** A temporary is locked while its owner lives, so that one left by a kill is known by its missing lock: process
** numbers say nothing, a container's process is always number 1.
*/
#define _GNU_SOURCE
#include "file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int sys_open(const char *path, int flags, int mode) { return open(path, flags | O_CLOEXEC, mode); }
static long sys_read(int fd, void *buf, size_t n) { return read(fd, buf, n); }
static long sys_write(int fd, const void *buf, size_t n) { return write(fd, buf, n); }

static int sys_fstat_size(int fd, int64_t *size, bool *regular) {
  struct stat s;
  if (fstat(fd, &s) != 0) return -1;
  *size = s.st_size;
  *regular = S_ISREG(s.st_mode);
  return 0;
}

gq_io gq_files = { sys_open, sys_read, sys_write, fsync, close, rename, unlink, sys_fstat_size };

/* ---- calls through the table, with faults ---- */

static long fault_after = -1;
static int fault_errno;
static bool fault_stays;

void gq_io_fail(long after, int err, bool persistent) {
  fault_after = after < 0 ? -1 : after;
  fault_errno = err;
  fault_stays = persistent;
}

static bool fault(void) {
  if (fault_after < 0) return false;
  if (fault_after > 0) return fault_after--, false;
  if (!fault_stays) fault_after = -1;
  errno = fault_errno;
  return true;
}

static int f_open(const char *path, int flags, int mode) {
  return fault() ? -1 : gq_files.open(path, flags, mode);
}
static int f_fsync(int fd) { return fault() ? -1 : gq_files.fsync(fd); }
static int f_rename(const char *from, const char *to) { return fault() ? -1 : gq_files.rename(from, to); }
static int f_size(int fd, int64_t *n, bool *regular) {
  return fault() ? -1 : gq_files.fstat_size(fd, n, regular);
}

/* A close that fails has closed all the same. */
static int f_close(int fd) {
  int err = gq_files.close(fd);
  return fault() ? -1 : err;
}

static long f_read(int fd, void *buf, size_t n) {
  long got;
  do got = fault() ? -1 : gq_files.read(fd, buf, n);
  while (got < 0 && errno == EINTR);
  return got;
}

static long f_write(int fd, const void *buf, size_t n) {
  long put;
  do put = fault() ? -1 : gq_files.write(fd, buf, n);
  while (put < 0 && errno == EINTR);
  return put;
}

static int failed(const char *what, const char *path) {
  char text[128];
  return gq_fail(GQ_EIO, "%s: %s: %s", path, what, strerror_r(errno, text, sizeof text));
}

int gq_file_named(int status, const char *path) {
  bool named = status != GQ_ENOMEM || strncmp(gq_message(), path, strlen(path)) == 0;
  return named ? status : gq_fail(status, "%s: %s", path, gq_message());
}

/* ---- reading ---- */

/* Not blocking, so that a pipe is refused instead of waited for. */
int gq_reader_open(gq_reader *r, const char *path) {
  bool regular = false;
  *r = (gq_reader){ .path = path };
  r->fd = f_open(path, O_RDONLY | O_NONBLOCK, 0);
  if (r->fd < 0) return failed("cannot open", path);
  int status = GQ_OK;
  if (f_size(r->fd, &r->size, &regular) != 0) status = failed("cannot examine", path);
  else if (!regular) status = gq_fail(GQ_EIO, "%s: not a regular file", path);
  if (status != GQ_OK) gq_reader_close(r);
  return status;
}

int gq_reader_bad(const gq_reader *r, const char *fmt, ...) {
  char text[512];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  return gq_fail(GQ_EFORMAT, "%s: byte %lld: %s", r->path, (long long)r->at, text);
}

int gq_reader_get(gq_reader *r, void *buf, size_t n) {
  char *to = buf;
  if (n > (size_t)(r->size - r->at))
    return gq_reader_bad(r, "the file ends at byte %lld, %zu more are needed", (long long)r->size, n);
  if (r->memory_) {
    memcpy(buf, r->memory_ + r->at, n);
    r->at += (int64_t)n;
    return GQ_OK;
  }
  while (n > 0) {
    long got = f_read(r->fd, to, n < INT_MAX ? n : INT_MAX);
    if (got < 0) return failed("cannot read", r->path);
    if (got == 0) return gq_reader_bad(r, "the file became shorter while it was read");
    to += got, n -= (size_t)got, r->at += got;
  }
  return GQ_OK;
}

int gq_reader_tensor(gq_reader *r, gq_tensor *t) {
  size_t n = (size_t)gq_numel(t->shape);
  const uint8_t *bytes = gq_tensor_data(t);
  GQ_TRY(gq_reader_get(r, gq_tensor_data(t), n * gq_dtype_size(t->dtype)));
  for (size_t i = 0; t->dtype == GQ_BOOL && i < n; i++)
    if (bytes[i] > 1) return gq_reader_bad(r, "a bool is neither 0 nor 1 but %d", bytes[i]);
  return GQ_OK;
}

/* ---- numbers of other kinds ---- */

gq_dtype gq_foreign_dtype(gq_foreign f) {
  if (f.letter == 'i' || f.letter == 'u') return GQ_I64;
  return f.size == 8 ? GQ_F64 : GQ_F32;
}

static double half(uint64_t bits) {
  int exponent = (int)(bits >> 10 & 31);
  double fraction = (double)(bits & 1023), x;
  if (exponent == 31) x = fraction > 0 ? NAN : INFINITY;
  else x = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
  return bits >> 15 ? -x : x;
}

static double real(uint64_t bits, gq_foreign f) {
  uint32_t single = (uint32_t)(f.letter == 'b' ? bits << 16 : bits);
  float x;
  double y;
  if (f.size == 8) return memcpy(&y, &bits, 8), y;
  if (f.size == 2 && f.letter == 'f') return half(bits);
  return memcpy(&x, &single, 4), x;
}

static uint64_t bits_of(const uint8_t *p, gq_foreign f) {
  uint64_t v = 0;
  for (int i = 0; i < f.size; i++) v |= (uint64_t)p[f.big ? f.size - 1 - i : i] << 8 * i;
  return v;
}

static void put_foreign(uint64_t bits, gq_foreign f, gq_tensor *t, size_t i) {
  void *to = gq_tensor_data(t);
  int rest = 64 - 8 * f.size;
  if (t->dtype == GQ_F32) ((float *)to)[i] = (float)real(bits, f);
  else if (t->dtype == GQ_F64) ((double *)to)[i] = real(bits, f);
  else ((int64_t *)to)[i] = f.letter == 'i' ? (int64_t)(bits << rest) >> rest : (int64_t)bits;
}

int gq_reader_foreign(gq_reader *r, gq_foreign f, gq_tensor *t) {
  uint8_t piece[1 << 14];
  size_t n = (size_t)gq_numel(t->shape), most = sizeof piece / (size_t)f.size;
  for (size_t done = 0; done < n;) {
    size_t now = n - done < most ? n - done : most;
    GQ_TRY(gq_reader_get(r, piece, now * (size_t)f.size));
    for (size_t i = 0; i < now; i++) {
      uint64_t bits = bits_of(piece + i * (size_t)f.size, f);
      if (f.letter == 'u' && bits > INT64_MAX)
        return gq_reader_bad(r, "the integer %llu is larger than int64 holds", (unsigned long long)bits);
      put_foreign(bits, f, t, done + i);
    }
    done += now;
  }
  return GQ_OK;
}

void gq_reader_close(gq_reader *r) {
  if (r->fd >= 0) f_close(r->fd); /* nothing was written: a failing close loses nothing */
  r->fd = -1;
}

int gq_file_read(const char *path, size_t max, char **bytes, size_t *n) {
  gq_reader r;
  *bytes = NULL;
  GQ_TRY(gq_reader_open(&r, path));
  int status = GQ_OK;
  size_t size = (size_t)r.size;
  if (size > max) status = gq_reader_bad(&r, "%zu bytes, at most %zu are read", size, max);
  else if (!(*bytes = gq_alloc(size + 1))) status = gq_nomem(size + 1);
  else status = gq_reader_get(&r, *bytes, size);
  gq_reader_close(&r);
  if (status == GQ_OK) (*bytes)[ *n = size] = '\0';
  else gq_free(*bytes), *bytes = NULL;
  return gq_file_named(status, path);
}

/* ---- writing ---- */

enum { MAX_LINKS = 40, MAX_NAMES = 100 };

/* Links that lead to nothing yet, which realpath refuses. */
static void follow_links(char at[PATH_MAX]) {
  char to[PATH_MAX];
  for (int i = 0; i < MAX_LINKS; i++) {
    ssize_t n = readlink(at, to, sizeof to - 1);
    const char *slash = n > 0 && to[0] != '/' ? strrchr(at, '/') : NULL;
    size_t folder = slash ? (size_t)(slash + 1 - at) : 0;
    if (n <= 0 || folder + (size_t)n >= PATH_MAX) return;
    memcpy(at + folder, to, (size_t)n);
    at[folder + (size_t)n] = '\0';
  }
}

/* Where the path leads, links followed: to a file, to nothing yet, or (special) to something else. */
static char *resolve(const char *path, struct stat *s, bool *special) {
  char at[PATH_MAX];
  bool there = stat(path, s) == 0;
  *special = there && !S_ISREG(s->st_mode);
  if (!there) s->st_mode = 0;
  if (strlen(path) >= sizeof at) return gq_strdup(path);
  if (!there || !realpath(path, at)) follow_links(strcpy(at, path));
  return gq_strdup(at);
}

/* Is `name` that of a temporary of `base`: base.PROCESS.NUMBER.tmp? */
static bool names_temporary(const char *name, const char *base, size_t n) {
  if (strncmp(name, base, n) != 0) return false;
  name += n;
  for (int i = 0; i < 2; i++) {
    if (*name++ != '.' || !isdigit((unsigned char)*name)) return false;
    while (isdigit((unsigned char)*name)) name++;
  }
  return strcmp(name, ".tmp") == 0;
}

/* Remove the temporary `name` unless its owner, who locks it, is alive. */
static void remove_stale(int folder, const char *name) {
  int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  struct stat s, now;
  if (fd < 0) return;
  bool free = flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &s) == 0 && fstatat(folder, name, &now, 0) == 0;
  if (free && s.st_ino == now.st_ino) unlinkat(folder, name, 0);
  close(fd);
}

/* Those that killed processes left beside the file `real`. What cannot be removed stays. */
static void remove_old_temporaries(const char *real) {
  const char *slash = strrchr(real, '/'), *base = slash ? slash + 1 : real;
  char *folder = slash ? gq_strdup(real) : NULL;
  if (folder) folder[slash == real ? 1 : slash - real] = '\0';
  DIR *d = slash && !folder ? NULL : opendir(folder ? folder : ".");
  gq_free(folder);
  for (struct dirent *e; d && (e = readdir(d));)
    if (names_temporary(e->d_name, base, strlen(base))) remove_stale(dirfd(d), e->d_name);
  if (d) closedir(d);
}

/* Whose the file that it replaces is, and who may read it: no more than before. A new file: as the process says. */
static void take_mode(int fd, const struct stat *old) {
  if (old->st_mode == 0) return;
  mode_t mode = old->st_mode & 0777;
  if (fchown(fd, old->st_uid, old->st_gid) != 0 && fchown(fd, (uid_t)-1, old->st_gid) != 0) mode &= ~070u;
  if (fchmod(fd, mode) != 0) return; /* a file system without modes */
}

/* A temporary under a name that nobody has, locked. */
static int open_temporary(gq_writer *w, const struct stat *old) {
  static atomic_uint counter;
  size_t n = strlen(w->real) + 48;
  struct stat s;
  w->temporary = gq_alloc(n);
  if (!w->temporary) return gq_nomem(n);
  remove_old_temporaries(w->real);
  for (int i = 0; i < MAX_NAMES; i++) {
    snprintf(w->temporary, n, "%s.%ld.%u.tmp", w->real, (long)getpid(), atomic_fetch_add(&counter, 1));
    w->fd = f_open(w->temporary, O_WRONLY | O_CREAT | O_EXCL, old->st_mode ? 0600 : 0666);
    if (w->fd < 0 && errno == EEXIST) continue;
    if (w->fd < 0) break;
    bool locked = flock(w->fd, LOCK_EX) == 0;
    if (locked && fstat(w->fd, &s) == 0 && s.st_nlink == 0) { /* taken for an old one before it was locked */
      gq_files.close(w->fd);
      w->fd = -1;
      continue;
    }
    take_mode(w->fd, old);
    return GQ_OK;
  }
  return failed("cannot write", w->path);
}

static void writer_done(gq_writer *w) {
  gq_free(w->real);
  gq_free(w->temporary);
  *w = (gq_writer){ .fd = -1 };
}

int gq_writer_open(gq_writer *w, const char *path) {
  bool special;
  struct stat old;
  int status = GQ_OK;
  *w = (gq_writer){ .fd = -1, .path = path };
  w->real = resolve(path, &old, &special);
  if (!w->real) status = gq_nomem(strlen(path));
  else if (!special) status = open_temporary(w, &old);
  else if ((w->fd = f_open(w->real, O_WRONLY | O_NONBLOCK, 0)) < 0) status = failed("cannot write", path);
  if (status != GQ_OK) writer_done(w);
  return gq_file_named(status, path);
}

int gq_writer_put(gq_writer *w, const void *bytes, size_t n) {
  const char *from = bytes;
  while (n > 0) {
    long put = f_write(w->fd, from, n < INT_MAX ? n : INT_MAX);
    if (put <= 0) {
      if (put == 0) errno = ENOSPC;
      return failed("cannot write", w->path);
    }
    from += put, n -= (size_t)put;
  }
  return GQ_OK;
}

/* A rename lasts only once its folder is on disk. Some file systems cannot sync folders: EINVAL. */
static int sync_folder(const gq_writer *w) {
  char folder[PATH_MAX];
  const char *slash = strrchr(w->real, '/');
  size_t n = !slash ? 1 : slash == w->real ? 1 : (size_t)(slash - w->real);
  if (n >= sizeof folder) return GQ_OK;
  memcpy(folder, slash ? w->real : ".", n);
  folder[n] = '\0';
  int fd = f_open(folder, O_RDONLY | O_DIRECTORY, 0), bad = 0;
  if (fd < 0) return failed("written, but its folder cannot be opened", w->path);
  if (f_fsync(fd) != 0 && errno != EINVAL) bad = errno;
  if (f_close(fd) != 0 && !bad) bad = errno;
  if (bad) return errno = bad, failed("written, but its folder cannot be synced", w->path);
  return GQ_OK;
}

int gq_writer_close(gq_writer *w, int status) {
  if (status == GQ_OK && w->temporary && f_fsync(w->fd) != 0) status = failed("cannot sync", w->path);
  if (f_close(w->fd) != 0 && status == GQ_OK) status = failed("cannot close", w->path);
  if (w->temporary) {
    if (status == GQ_OK && f_rename(w->temporary, w->real) != 0) status = failed("cannot replace", w->path);
    if (status != GQ_OK) gq_files.unlink(w->temporary);
    else status = sync_folder(w);
  }
  writer_done(w);
  return status;
}

int gq_file_write(const char *path, const void *bytes, size_t n) {
  gq_writer w;
  GQ_TRY(gq_writer_open(&w, path));
  return gq_writer_close(&w, gq_writer_put(&w, bytes, n));
}

/* A file that may not be read is taken as whole. */
static bool ends_in_half(const char *path, off_t size) {
  char last = '\n';
  int fd = size > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0) return false;
  bool half = pread(fd, &last, 1, size - 1) == 1 && last != '\n';
  close(fd);
  return half;
}

/* One write, so that lines of several processes do not mix; what a full disk took of it is taken back. Others that
** append wait meanwhile, for the lock, so that no line of theirs is cut. The line begins with a newline, which is left
** out but behind half a line, as a kill leaves it. */
static int append(int fd, const char *path, const char *line, size_t n) {
  struct stat s;
  bool regular = fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && flock(fd, LOCK_EX) == 0 && fstat(fd, &s) == 0;
  if (!regular || !ends_in_half(path, s.st_size)) line++, n--;
  long put = f_write(fd, line, n);
  if (put == (long)n) return GQ_OK;
  int status = put < 0 ? failed("cannot append to", path)
                       : gq_fail(GQ_EIO, "%s: only %ld of %zu bytes could be written", path, put, n);
  if (put > 0 && regular && ftruncate(fd, s.st_size) != 0)
    return failed("has half a line: cannot shorten", path);
  return status;
}

int gq_file_append_line(const char *path, const char *line, size_t n) {
  char *copy = gq_alloc(n + 2);
  if (!copy) return gq_file_named(gq_nomem(n + 2), path);
  copy[0] = copy[n + 1] = '\n';
  memcpy(copy + 1, line, n);
  int fd = f_open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
  int status = fd < 0 ? failed("cannot append to", path) : append(fd, path, copy, n + 2);
  if (fd >= 0 && f_close(fd) != 0 && status == GQ_OK) status = failed("cannot close", path);
  gq_free(copy);
  return status;
}

/* ---- text ---- */

/* Length of the well-formed sequence at s, 0 if there is none (Unicode 15, table 3-7). */
static size_t utf8_length(const unsigned char *s, size_t n) {
  if (s[0] < 0x80) return 1;
  size_t k = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
  if (s[0] < 0xc2 || s[0] > 0xf4 || k > n) return 0;
  for (size_t i = 1; i < k; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f)) return 0;
  if ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) return 0;
  return k;
}

size_t gq_utf8_prefix(const char *s, size_t n) {
  size_t i = 0;
  for (size_t k; i < n && (k = utf8_length((const unsigned char *)s + i, n - i)) > 0;) i += k;
  return i;
}

bool gq_utf8(const char *s, size_t n) { return gq_utf8_prefix(s, n) == n; }
