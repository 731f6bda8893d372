/*
** module.c -- kernels from text: compiled by NVRTC, kept in memory by the text's hash, and on disk in $GQ_CUDA_CACHE
** (else ~/.cache/gqlua) by hash, compiler and architecture. What a file holds is checked before the driver sees it.
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

typedef struct module {
  hash key;
  gq_cumodule loaded;
} module;

static struct {
  module *at; /* open addressing, at most half full */
  size_t size, count;
} known;

static module *find(hash key) {
  size_t i = (size_t)key.a & (known.size - 1);
  while (known.at[i].loaded && (known.at[i].key.a != key.a || known.at[i].key.b != key.b))
    i = (i + 1) & (known.size - 1);
  return &known.at[i];
}

/* Not gq_alloc: modules stay as long as the process, and a leak would be asked for. */
static int make_room(void) {
  if (2 * (known.count + 1) <= known.size) return GQ_OK;
  module *old = known.at;
  size_t n = known.size, size = n ? 2 * n : 256;
  module *at = calloc(size, sizeof *at);
  if (!at) return gq_nomem(size * sizeof *at);
  known.at = at, known.size = size;
  for (size_t i = 0; i < n; i++)
    if (old[i].loaded) *find(old[i].key) = old[i];
  free(old);
  return GQ_OK;
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
static int compile(const char *text, image *out) {
  static const char *const names[] = { "math.h", "stdbool.h", "stdint.h", "string.h" };
  static const char *const empty[] = { "", "", "", "" };
  char arch[32];
  const char *options[] = { arch, "--fmad=false", "--device-as-default-execution-space", "--std=c++17",
                            "-w" };
  gq_nvrtc p;
  snprintf(arch, sizeof arch, "--gpu-architecture=sm_%d%d", gq_cuda.major, gq_cuda.minor);
  int error = gq_rtc.create(&p, text, "gqlua.cu", 4, empty, names);
  if (error) return gq_fail(GQ_ESTATE, "cuda: NVRTC cannot begin (error %d)", error);
  error = gq_rtc.compile(p, 5, options);
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
  hash key = hash_of(text, strlen(text));
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

int gq_cuda_kernel(const char *text, const char *name, gq_cufunction *f) {
  hash key = hash_of(text, strlen(text));
  GQ_TRY(gq_cuda_enter());
  GQ_TRY(make_room());
  module *m = find(key);
  if (!m->loaded) {
    gq_cumodule loaded;
    GQ_TRY(load(text, key, &loaded));
    *m = (module){ key, loaded };
    known.count++;
  }
  return gq_cuda_check(gq_cu.function(f, m->loaded, name), "cuModuleGetFunction");
}
