/*
** module.c -- kernels from text: compiled by NVRTC, kept in memory by the hash of text and options while somebody uses them
** and for a while after, and on disk in $GQ_CUDA_CACHE (else ~/.cache/gqlua) by hash, compiler and architecture. What a file holds is checked before the driver sees it.
*/
#include "cuda.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct hash {
  uint64_t a, b;
} hash;
typedef struct gq_cuda_module module;

/* FNV-1a twice, from two beginnings, and mixed: 128 bits tell texts apart. */
static hash hash_of(const char *s, size_t n) {
  hash h = { 0xcbf29ce484222325u, 0x6c62272e07bb0142u };
  for (size_t i = 0; i < n; i++) {
    h.a = (h.a ^ (unsigned char)s[i]) * 0x100000001b3u;
    h.b = (h.b ^ (unsigned char)s[i]) * 0x9e3779b97f4a7c15u;
    h.b ^= h.b >> 29;
  }
  return (hash){ gq_mix(h.a), gq_mix(h.b ^ n) };
}

/* Not gq_alloc: modules stay longer than who made them, and a leak would be asked for. */
struct gq_cuda_module {
  hash key;
  gq_cumodule loaded;
  long users, left; /* left: the time when the last user went, in such goings */
  module *next;
};

/* So many that nobody uses are kept: what is made again, as by the next training, finds its own. */
enum { PLACES = 1024, SPARE = 64 };
static struct {
  module *at[PLACES];
  long spare, now;
} known;

static module **place_of(hash key) { return &known.at[key.a % PLACES]; }

static module *find(hash key) {
  module *m = *place_of(key);
  while (m && (m->key.a != key.a || m->key.b != key.b)) m = m->next;
  return m;
}

/* ---- compiling ---- */

typedef struct image {
  char *bytes;
  size_t n;
} image;

static int rtc_fail(gq_nvrtc p, int error) {
  size_t n = 0;
  char *log = gq_rtc.log_size(p, &n) == 0 && n ? gq_alloc(n + 1) : NULL;
  if (log && gq_rtc.log(p, log) != 0) log[0] = 0;
  if (log) log[n] = 0;
  int status = gq_fail(GQ_ESTATE, "cuda: NVRTC refuses a kernel (error %d): %.700s", error, log ? log : "");
  gq_free(log);
  return status;
}

static int take_image(gq_nvrtc p, image *out) {
  size_t n = 0;
  int error = gq_rtc.size(p, &n);
  if (error) return rtc_fail(p, error);
  char *bytes = gq_alloc(n + 1);
  if (!bytes) return gq_nomem(n);
  error = gq_rtc.get(p, bytes);
  if (error) {
    gq_free(bytes);
    return rtc_fail(p, error);
  }
  *out = (image){ bytes, n };
  return GQ_OK;
}

/* No contraction: what is to be fused says so. Headers of C are empty: the compiler knows what is in them. */
#define OPTIONS "--fmad=false", "--device-as-default-execution-space", "--std=c++17", "-w"
static int compile(const char *text, image *out) {
  static const char *const names[] = { "math.h", "stdbool.h", "stdint.h", "string.h" };
  static const char *const empty[] = { "", "", "", "" };
  char arch[32];
  const char *options[] = { arch, OPTIONS };
  gq_nvrtc p;
  snprintf(arch, sizeof arch, "--gpu-architecture=sm_%d%d", gq_cuda.major, gq_cuda.minor);
  int error = gq_rtc.create(&p, text, "gqlua.cu", 4, empty, names);
  if (error) return gq_fail(GQ_ESTATE, "cuda: NVRTC cannot begin (error %d)", error);
  error = gq_rtc.compile(p, (int)(sizeof options / sizeof *options), options);
  int status = error ? rtc_fail(p, error) : take_image(p, out);
  gq_rtc.destroy(&p);
  return status;
}

/* ---- on disk ---- */

typedef struct header {
  char magic[8];
  hash key, sum; /* of the text, of what follows */
  uint64_t n;
} header;

static const char magic[8] = "gqcubin";

/* What else an image depends on is in its file's name. */
static hash key_of(const char *text) {
  static const char *const options[] = { OPTIONS };
  hash key = hash_of(text, strlen(text));
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    hash one = hash_of(options[i], strlen(options[i]));
    key = (hash){ gq_mix(key.a ^ one.a), gq_mix(key.b ^ one.b) };
  }
  return key;
}

static bool folder_of(char *path, size_t n) {
  const char *own = getenv("GQ_CUDA_CACHE"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (own) return *own && snprintf(path, n, "%s", own) < (int)n;
  if (cache && *cache) return snprintf(path, n, "%s/gqlua", cache) < (int)n;
  return home && snprintf(path, n, "%s/.cache/gqlua", home) < (int)n;
}

static bool path_of(hash key, char *path, size_t n) {
  char folder[512];
  int major = 0, minor = 0;
  gq_rtc.version(&major, &minor);
  return folder_of(folder, sizeof folder) &&
         snprintf(path, n, "%s/%016llx%016llx.%d.%d.sm_%d%d", folder, (unsigned long long)key.a,
                  (unsigned long long)key.b, major, minor, gq_cuda.major, gq_cuda.minor) < (int)n;
}

static bool right(const header *h, hash key, const image *x) {
  hash sum = hash_of(x->bytes, x->n);
  return memcmp(h->magic, magic, sizeof magic) == 0 && h->key.a == key.a && h->key.b == key.b &&
         h->sum.a == sum.a && h->sum.b == sum.b;
}

static bool read_image(hash key, image *out) {
  char path[640];
  header h;
  FILE *f = path_of(key, path, sizeof path) ? fopen(path, "rb") : NULL;
  *out = (image){ 0 };
  if (!f) return false;
  if (fread(&h, sizeof h, 1, f) == 1 && h.n < (uint64_t)1 << 30 && (out->bytes = gq_alloc((size_t)h.n + 1)))
    out->n = fread(out->bytes, 1, (size_t)h.n + 1, f);
  fclose(f);
  if (out->bytes && out->n == h.n && right(&h, key, out)) return true;
  gq_free(out->bytes);
  return false;
}

static bool make_folder(char *path) {
  for (char *c = path + 1; *c; c++)
    if (*c == '/') {
      *c = 0;
      bool made = mkdir(path, 0777) == 0 || errno == EEXIST;
      *c = '/';
      if (!made) return false;
    }
  return true;
}

/* Whole or not there: other processes may look at the same time. */
static bool write_image(hash key, const image *x) {
  char path[640], temporary[700];
  header h = { .key = key, .sum = hash_of(x->bytes, x->n), .n = x->n };
  memcpy(h.magic, magic, sizeof magic);
  if (!path_of(key, path, sizeof path) || !make_folder(path)) return false;
  snprintf(temporary, sizeof temporary, "%s.%d", path, (int)getpid());
  FILE *f = fopen(temporary, "wb");
  if (!f) return false;
  bool ok = fwrite(&h, sizeof h, 1, f) == 1 && fwrite(x->bytes, 1, x->n, f) == x->n;
  ok = fclose(f) == 0 && ok && rename(temporary, path) == 0;
  if (!ok) unlink(temporary);
  return ok;
}

static void store(hash key, const image *x) {
  static bool told;
  char folder[512];
  if (write_image(key, x) || told) return;
  told = true;
  if (!folder_of(folder, sizeof folder)) return; /* no cache is wanted */
  fprintf(stderr,
          "gqlua: warning: kernels cannot be kept in %s, and are compiled again by each process: %s\n",
          folder, strerror(errno));
}

int gq_cuda_keep(const char *text) {
  hash key = key_of(text);
  image x;
  bool kept = read_image(key, &x);
  if (!kept) GQ_TRY(compile(text, &x));
  bool there = kept || write_image(key, &x);
  gq_free(x.bytes);
  return there ? GQ_OK : gq_fail(GQ_EIO, "the kernel cannot be kept: %s", strerror(errno));
}

/* ---- the door ---- */

static int load(const char *text, hash key, gq_cumodule *m) {
  image x;
  bool kept = read_image(key, &x);
  if (!kept) GQ_TRY(compile(text, &x));
  int error = gq_cu.load(m, x.bytes);
  if (kept &&
      (error == GQ_CU_BAD_IMAGE || error == GQ_CU_NO_BINARY)) { /* of a driver that takes it no more */
    gq_free(x.bytes);
    GQ_TRY(compile(text, &x));
    kept = false, error = gq_cu.load(m, x.bytes);
  }
  if (!error && !kept) store(key, &x);
  gq_free(x.bytes);
  return gq_cuda_check(error, "cuModuleLoadData");
}

static int make(const char *text, hash key, module **out) {
  module *m = *out = calloc(1, sizeof *m);
  if (!m) return gq_nomem(sizeof *m);
  int status = load(text, key, &m->loaded);
  if (status != GQ_OK) {
    free(m);
    return status;
  }
  m->key = key, m->next = *place_of(key), *place_of(key) = m;
  known.spare++;
  return GQ_OK;
}

int gq_cuda_kernel(const char *text, const char *name, module **held_, gq_cufunction *f) {
  hash key = key_of(text);
  GQ_TRY(gq_cuda_enter());
  module *m = find(key);
  if (!m) GQ_TRY(make(text, key, &m));
  GQ_TRY(gq_cuda_check(gq_cu.function(f, m->loaded, name), "cuModuleGetFunction"));
  if (held_ && *held_ == m) return GQ_OK;
  known.spare -= !m->users++;
  if (held_) gq_cuda_let_go(*held_), *held_ = m;
  return GQ_OK;
}

int gq_cuda_make(gq_text *t, const char *name, gq_cufunction *f) {
  int status = t->failed ? gq_nomem(t->room) : gq_cuda_kernel(t->s, name, NULL, f);
  gq_free(t->s);
  return status;
}

/* All that nobody has used for long. What was launched of them is over. */
static int unload(void) {
  GQ_TRY(gq_cuda_usable());
  GQ_TRY(gq_cuda_check(gq_cu.wait(gq_cuda.stream), "cuStreamSynchronize"));
  for (module **at = known.at; at < known.at + PLACES; at++)
    for (module **m = at, *gone; (gone = *m);) {
      bool goes = !gone->users && known.now - gone->left >= SPARE / 2;
      if (!goes) m = &gone->next;
      if (!goes) continue;
      *m = gone->next, known.spare--;
      int error = gq_cu.unload(gone->loaded);
      free(gone);
      GQ_TRY(gq_cuda_check(error, "cuModuleUnload"));
    }
  return GQ_OK;
}

void gq_cuda_let_go(module *m_) {
  if (!m_ || --m_->users) return;
  m_->left = ++known.now;
  if (++known.spare > SPARE && gq_cuda_usable() == GQ_OK) gq_cuda_later(unload());
}
