/*
** libcuda.c -- libcuda.so.1 for machines without one: memory with guards at addresses that are not the host's, a stream
** that runs at once or as late as waits allow, launches on emu.c. A module is a shared object that libnvrtc.c made.
**   GQ_EMU        how threads run: emu.h
**   GQ_EMU_LATE   work is done when somebody waits for it
**   GQ_EMU_FAIL   n: the n-th call fails ($GQ_EMU_FAIL_AS: a CUresult), and with an error of kernels all after it
**   GQ_EMU_INTERRUPT n: SIGINT comes at the n-th launch
**   GQ_EMU_CLOCK  nanoseconds that pass whenever a kernel asks for the time
**   GQ_EMU_BYTES  bytes that the device has; GQ_EMU_SHARED: that a block may share
**   GQ_EMU_NONE   there is no device; init: and nothing can be opened
**   GQ_EMU_CAPTURE none: there are no captures; n: one ends at its n-th work, which it does not take
**   GQ_EMU_VERSION  of CUDA, as the driver tells it
**   GQ_EMU_COUNT  at the end say how many calls, launches (by kernel) and waits there were
*/
#define _GNU_SOURCE
#include "../../runtime/exec/cuda/api.h"
#include "emu.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BIAS 0x400000000000ull /* prelude.h */
enum {
  OK = 0,
  INVALID = 1,
  NO_MEMORY = 2,
  NO_DEVICE = 100,
  BAD_IMAGE = 200,
  NO_CONTEXT = 201,
  BAD_HANDLE = 400,
  NOT_FOUND = 500,
  ILLEGAL = 700,
  NO_RESOURCES = 701,
  FAILED = 719,
  NONE = 801,
  UNCAPTURED = 900,
  BROKEN = 901
};
enum { SHARED_PLAIN = 48 << 10, SHARED_MOST = 227 << 10, THREADS_MOST = 1024, ARGUMENTS_MOST = 4096 };

static long calls, launches, waits, allocations, modules;

static void tell_kernels(void);

static void tell(void) {
  tell_kernels();
  fprintf(stderr, "emulator: %ld calls, %ld launches, %ld waits, %ld allocations, %ld modules left\n", calls,
          launches, waits, allocations, modules);
}

static int dead; /* the error that stays with the context */

static int fail(int error) {
  if (error >= ILLEGAL && error < NONE && error != NO_RESOURCES) dead = error;
  return error;
}

/* A child of a process that has opened the driver may call it for nothing. */
static pid_t process;

static int failure(const char *what) {
  static long fail_at = -1;
  const char *as = getenv("GQ_EMU_FAIL_AS");
  if (process && process != getpid()) {
    fprintf(stderr, "emulator: %s is called in a fork\n", what);
    abort();
  }
  if (calls == 0) {
    fail_at = getenv("GQ_EMU_FAIL") ? atol(getenv("GQ_EMU_FAIL")) : -1;
    if (getenv("GQ_EMU_COUNT")) atexit(tell);
  }
  if (++calls != fail_at) return dead;
  fprintf(stderr, "emulator: call %ld, %s, fails\n", calls, what);
  return fail(as ? atoi(as) : FAILED);
}

#define ENTER()                    \
  do {                             \
    int error = failure(__func__); \
    if (error) return error;       \
  } while (0)

/* Of a thread that has the context */
static _Thread_local bool current;
#define INSIDE()                     \
  do {                               \
    ENTER();                         \
    if (!current) return NO_CONTEXT; \
  } while (0)

/* and that captures nothing: what may wait for the device ends a capture. */
#define APART()                                \
  do {                                         \
    INSIDE();                                  \
    if (capturing) return broken = UNCAPTURED; \
  } while (0)
static gq_custream capturing;
static int broken;

/* ---- memory ---- */

enum { GUARD = 256, FREED = 64 };
typedef struct block {
  char *at; /* as the host sees it */
  size_t bytes;
} block;

static block *blocks; /* sorted */
static size_t nblock, room, used;
static char *quarantine[FREED]; /* so that who still reads finds NaN */
static size_t nfreed;

static size_t find(uintptr_t p) {
  size_t low = 0, high = nblock;
  while (low < high) {
    size_t mid = (low + high) / 2;
    if ((uintptr_t)blocks[mid].at + blocks[mid].bytes <= p) low = mid + 1;
    else high = mid;
  }
  return low;
}

static bool holds(gq_u64 p, size_t n) {
  uintptr_t at = (uintptr_t)(p - BIAS);
  size_t i = find(at);
  if (i < nblock && at >= (uintptr_t)blocks[i].at && at + n <= (uintptr_t)blocks[i].at + blocks[i].bytes)
    return true;
  fprintf(stderr, "emulator: %zu bytes at %#llx are not the device's\n", n, (unsigned long long)p);
  return false;
}

bool emu_owns(const void *at) {
  size_t i = find((uintptr_t)at);
  return i < nblock && (char *)at >= blocks[i].at;
}

static void *here(gq_u64 p) { return (void *)(uintptr_t)(p - BIAS); }

static void check_guards(const block *b) {
  for (int i = 0; i < GUARD; i++)
    if (b->at[-1 - i] != 0x5a || b->at[b->bytes + (size_t)i] != 0x5a) {
      fprintf(stderr, "emulator: written outside of a block of %zu bytes\n", b->bytes);
      abort();
    }
}

static size_t device_bytes(void) {
  return getenv("GQ_EMU_BYTES") ? (size_t)atoll(getenv("GQ_EMU_BYTES")) : (size_t)8 << 30;
}

int cuMemGetInfo_v2(size_t *left, size_t *all) {
  INSIDE();
  *all = device_bytes(), *left = *all - used;
  return OK;
}

int cuMemAlloc_v2(gq_u64 *p, size_t n) {
  APART();
  if (!n) return INVALID;
  allocations++;
  if (n > device_bytes() - used) return NO_MEMORY;
  if (nblock == room) {
    room = room ? 2 * room : 256;
    blocks = realloc(blocks, room * sizeof *blocks);
    if (!blocks) abort();
  }
  char *m = aligned_alloc(256, (n + 2 * GUARD + 255) / 256 * 256);
  if (!m) return NO_MEMORY;
  memset(m, 0x5a, n + 2 * GUARD), memset(m + GUARD, 0xff, n);
  size_t i = find((uintptr_t)m);
  memmove(&blocks[i + 1], &blocks[i], (nblock++ - i) * sizeof *blocks);
  blocks[i] = (block){ m + GUARD, n };
  used += n;
  *p = (gq_u64)(uintptr_t)(m + GUARD) + BIAS;
  return OK;
}

static int finish(void);

int cuMemFree_v2(gq_u64 p) {
  APART();
  finish(); /* the driver waits, too */
  size_t i = find((uintptr_t)(p - BIAS));
  if (i >= nblock || blocks[i].at != here(p)) return INVALID;
  check_guards(&blocks[i]);
  memset(blocks[i].at, 0xff, blocks[i].bytes);
  free(quarantine[nfreed % FREED]);
  quarantine[nfreed++ % FREED] = blocks[i].at - GUARD;
  used -= blocks[i].bytes;
  memmove(&blocks[i], &blocks[i + 1], (--nblock - i) * sizeof *blocks);
  return OK;
}

int cuMemAllocHost_v2(void **p, size_t n) {
  APART();
  *p = malloc(n);
  return *p ? OK : NO_MEMORY;
}

static int shared_most(void) { return getenv("GQ_EMU_SHARED") ? atoi(getenv("GQ_EMU_SHARED")) : SHARED_MOST; }

/* ---- the stream ---- */

typedef enum kind { LAUNCH, COPY, SET, CALL } kind;
typedef struct code {
  struct code *next;
  gq_cumodule of; /* NULL: it was unloaded */
  void (*fn)(const void *);
  size_t args, dynamic;
  unsigned threads; /* that it is compiled for */
  bool leave;       /* to have more shared memory than all may */
  long launches;
  char name[32];
} code;
static code *kernels;
typedef struct work {
  struct work *next;
  kind kind;
  code *f;
  int blocks, threads;
  size_t shared, bytes;
  void *to;
  const void *from;
  void (*call)(const void *);
  void *own; /* arguments, or bytes that the caller may change now */
  size_t own_bytes;
  int byte;
} work;

static work *queue, **queue_end = &queue;

/* Work of a stream that is captured goes to the end of a list. A stream is its number. */
typedef struct gq_graph {
  work *first, **end;
} graph;
static graph *captured;
static int nworks;

static int add_to(work ***end, work w, const void *own_, size_t bytes) {
  if (own_) memcpy(w.own = malloc(bytes + 1), own_, bytes);
  w.next = NULL, w.own_bytes = own_ ? bytes : 0;
  **end = malloc(sizeof w);
  ***end = w, *end = &(**end)->next;
  return OK;
}

static int capture(work w, const void *own_, size_t bytes) {
  const char *most = getenv("GQ_EMU_CAPTURE");
  if (most && ++nworks >= atoi(most)) broken = UNCAPTURED;
  return broken ? broken : add_to(&captured->end, w, own_, bytes);
}

static void thread(void *w_) {
  const work *w = w_;
  w->f->fn(w->own);
}

static int run(const work *w) {
  static unsigned long n;
  if (w->kind == SET) memset(w->to, w->byte, w->bytes);
  if (w->kind == COPY) memcpy(w->to, w->own ? w->own : w->from, w->bytes);
  if (w->kind == CALL) w->call(w->own);
  if (w->kind != LAUNCH) return OK;
  if (!emu_launch(w->f->name, thread, (void *)(uintptr_t)w, w->blocks, w->threads, w->shared,
                  w->f->leave ? shared_most() : SHARED_PLAIN))
    return fail(FAILED);
  for (size_t i = 0; i < nblock && ++n % 64 == 0; i++) check_guards(&blocks[i]);
  return OK;
}

static int finish(void) {
  int error = OK;
  while (queue) {
    work *w = queue;
    queue = w->next;
    if (!error) error = run(w);
    free(w->own);
    free(w);
  }
  queue_end = &queue;
  return error;
}

/* Work of two streams has no order, nor has any with the stream that all programs share: here one does it all. */
static gq_custream working;
static bool other(gq_custream s) {
  if (!working) working = s;
  if (s && s == working) return false;
  fprintf(stderr, "emulator: work for another stream than that of all before it\n");
  return true;
}

static int submit(gq_custream s, work w, const void *own_, size_t bytes) {
  if (capturing && s == capturing) return capture(w, own_, bytes);
  if (other(s)) return INVALID;
  if (getenv("GQ_EMU_LATE")) return add_to(&queue_end, w, own_, bytes);
  if (own_) memcpy(w.own = malloc(bytes + 1), own_, bytes);
  int error = run(&w);
  free(w.own);
  return error;
}

/* For libcublasLt.c: work, and where an address is (NULL: not the device's). */
int gq_emu_call(const char *what, gq_custream s, void (*f)(const void *), const void *args, size_t bytes) {
  int error = failure(what);
  return error ? error : submit(s, (work){ .kind = CALL, .call = f }, args, bytes);
}
char *gq_emu_address(gq_u64 p, size_t bytes) { return holds(p, bytes) ? here(p) : NULL; }
int gq_emu_captures(void) { return capturing != NULL; }

/* A capture that reads or writes the host's memory would whenever it is launched: it is refused. */
#define APART_FROM_HOST(s) \
  if (capturing && s == capturing) return broken = UNCAPTURED;

/* What it copies is read when the device comes to it. */
int cuMemcpyHtoDAsync_v2(gq_u64 to, const void *from, size_t n, gq_custream s) {
  INSIDE();
  APART_FROM_HOST(s)
  if (!holds(to, n)) return INVALID;
  return submit(s, (work){ .kind = COPY, .to = here(to), .from = from, .bytes = n }, NULL, 0);
}

int cuMemcpyDtoHAsync_v2(void *to, gq_u64 from, size_t n, gq_custream s) {
  INSIDE();
  APART_FROM_HOST(s)
  if (!holds(from, n)) return INVALID;
  return submit(s, (work){ .kind = COPY, .to = to, .from = here(from), .bytes = n }, NULL, 0);
}

int cuMemcpyDtoDAsync_v2(gq_u64 to, gq_u64 from, size_t n, gq_custream s) {
  INSIDE();
  if (!holds(to, n) || !holds(from, n)) return INVALID;
  return submit(s, (work){ .kind = COPY, .to = here(to), .from = here(from), .bytes = n }, NULL, 0);
}

int cuMemsetD8Async(gq_u64 to, unsigned char byte, size_t n, gq_custream s) {
  INSIDE();
  if (!holds(to, n)) return INVALID;
  return submit(s, (work){ .kind = SET, .to = here(to), .bytes = n, .byte = byte }, NULL, 0);
}

int cuStreamCreate(gq_custream *s, unsigned flags) {
  INSIDE();
  static uintptr_t streams;
  *s = (gq_custream)++streams;
  return OK;
}

int cuStreamSynchronize(gq_custream s) {
  INSIDE();
  if (capturing && s == capturing) return broken = UNCAPTURED;
  waits++;
  return s == working ? finish() : OK;
}

/* ---- modules ---- */

/* A shared object, written where it can be opened from. */
int cuModuleLoadData(gq_cumodule *m, const void *image) {
  APART();
  const char *bytes = image;
  char path[64] = "/tmp/gq_emulator_XXXXXX";
  size_t n;
  if (strncmp(bytes, "GQEMU", 5) != 0) return BAD_IMAGE;
  memcpy(&n, bytes + 8, sizeof n);
  int file = mkstemp(path);
  if (file < 0) return BAD_IMAGE;
  bool whole = write(file, bytes + 16, n) == (ssize_t)n;
  close(file);
  void *so = whole ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  if (whole && !so) fprintf(stderr, "emulator: %s\n", dlerror());
  unlink(path);
  *m = so;
  modules += so != NULL;
  return so ? OK : BAD_IMAGE;
}

static void tell_kernels(void) {
  for (code *c = kernels; c; c = c->next) {
    long all = 0;
    for (code *d = kernels; d; d = d->next)
      if (strcmp(c->name, d->name) == 0) all += d->launches, d->launches = 0;
    if (all) fprintf(stderr, "emulator: %8ld %s\n", all, c->name);
  }
}

/* Of work that waits the driver says nothing: here it is refused. */
int cuModuleUnload(gq_cumodule m) {
  APART();
  for (const work *w = queue; w; w = w->next)
    if (w->kind == LAUNCH && w->f->of == m) return BAD_HANDLE;
  for (code *c = kernels; c; c = c->next)
    if (c->of == m) c->of = NULL;
  modules--;
  return dlclose(m) == 0 ? OK : INVALID;
}

int cuModuleGetFunction(gq_cufunction *f, gq_cumodule m, const char *name) {
  INSIDE();
  char args[128], bounds[128];
  snprintf(args, sizeof args, "%s_args", name);
  snprintf(bounds, sizeof bounds, "%s_threads", name);
  void *fn = dlsym(m, name);
  const unsigned *size = dlsym(m, args), *threads = dlsym(m, bounds);
  if (!fn || !size || !threads) return NOT_FOUND;
  if (*size > ARGUMENTS_MOST) return BAD_IMAGE;
  code *c = calloc(1, sizeof *c); /* kept, and found by leak checkers */
  if (!c) return NO_MEMORY;
  *c =
    (code){ kernels, m, (void (*)(const void *))(uintptr_t)fn, *size, SHARED_PLAIN, *threads, false, 0, "" };
  snprintf(c->name, sizeof c->name, "%s", name);
  kernels = c;
  *f = (gq_cufunction)c;
  return OK;
}

int cuFuncSetAttribute(gq_cufunction f, int which, int value) {
  INSIDE();
  if (which != GQ_CU_DYNAMIC_SHARED || value < 0 || value > shared_most()) return INVALID;
  ((code *)f)->dynamic = (size_t)value, ((code *)f)->leave = true;
  return OK;
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, gq_cufunction f, int threads, size_t shared) {
  INSIDE();
  *n = 1;
  return shared <= ((code *)f)->dynamic && threads <= THREADS_MOST ? OK : INVALID;
}

int cuLaunchKernel(gq_cufunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, gq_custream s, void **params, void **extra) {
  INSIDE();
  code *c = (code *)f;
  if (!c->of) return BAD_HANDLE;
  if (!gx || gx > INT32_MAX || bx > THREADS_MOST || gy * gz * by * bz != 1 || shared > c->dynamic)
    return INVALID;
  if (bx != c->threads) return bx > c->threads ? NO_RESOURCES : INVALID; /* fewer would leave numbers out */
  if (!capturing || s != capturing) launches++, c->launches++;
  if (getenv("GQ_EMU_INTERRUPT") && launches == atol(getenv("GQ_EMU_INTERRUPT"))) raise(SIGINT);
  return submit(s, (work){ .kind = LAUNCH, .f = c, .blocks = (int)gx, .threads = (int)bx, .shared = shared },
                params[0], c->args);
}

/* ---- graphs ---- */

int cuStreamBeginCapture_v2(gq_custream s, int mode) {
  INSIDE();
  const char *none = getenv("GQ_EMU_CAPTURE");
  if (none && strcmp(none, "none") == 0) return NONE;
  if (capturing) return INVALID;
  captured = calloc(1, sizeof *captured), captured->end = &captured->first;
  capturing = s, nworks = broken = 0;
  return OK;
}

static void drop(graph *g) {
  for (work *w = g->first, *next; w; w = next) next = w->next, free(w->own), free(w);
  free(g);
}

int cuStreamEndCapture(gq_custream s, gq_cugraph *g) {
  bool other = s != capturing;
  capturing = other ? capturing : NULL;
  *g = NULL;
  int failed = failure(__func__), error = failed ? failed : other ? INVALID : broken ? BROKEN : OK;
  if (!other && error) drop(captured);
  if (!error) *g = (gq_cugraph)captured;
  return error;
}

/* One that is launched is a copy. */
int cuGraphInstantiateWithFlags(gq_cugraph_exec *e, gq_cugraph g, unsigned long long flags) {
  INSIDE();
  graph *copy = calloc(1, sizeof *copy);
  copy->end = &copy->first;
  for (const work *w = ((graph *)g)->first; w; w = w->next) add_to(&copy->end, *w, w->own, w->own_bytes);
  *e = (gq_cugraph_exec)copy;
  return OK;
}

int cuGraphLaunch(gq_cugraph_exec e, gq_custream s) {
  INSIDE();
  static code name = { .name = "graph" };
  if (!name.launches && !name.next) name.next = kernels, kernels = &name;
  int error = OK;
  for (const work *w = ((graph *)e)->first; w; w = w->next)
    if (w->kind == LAUNCH && !w->f->of) return BAD_HANDLE;
  launches++, name.launches++;
  for (const work *w = ((graph *)e)->first; w && !error; w = w->next)
    error = submit(s, *w, w->own, w->own_bytes);
  return error;
}

int cuGraphDestroy(gq_cugraph g) {
  INSIDE();
  drop((graph *)g);
  return OK;
}

int cuGraphExecDestroy(gq_cugraph_exec e) {
  INSIDE();
  drop((graph *)e);
  return OK;
}

/* ---- the rest ---- */

/* Kernels find the emulator's symbols. */
int cuInit(unsigned flags) {
  ENTER();
  process = getpid();
  if (getenv("GQ_EMU_NONE") && strcmp(getenv("GQ_EMU_NONE"), "init") == 0) return NO_DEVICE;
  Dl_info self;
  if (dladdr(&calls, &self)) dlopen(self.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
  return OK;
}

int cuDriverGetVersion(int *version) {
  ENTER();
  *version = getenv("GQ_EMU_VERSION") ? atoi(getenv("GQ_EMU_VERSION")) : 13000;
  return OK;
}

int cuDeviceGetCount(int *n) {
  ENTER();
  *n = getenv("GQ_EMU_NONE") ? 0 : 1;
  return OK;
}

int cuDeviceGet(int *device, int i) {
  ENTER();
  *device = i;
  return i == 0 ? OK : INVALID;
}

int cuDeviceGetName(char *name, int n, int device) {
  ENTER();
  snprintf(name, (size_t)n, "emulator");
  return OK;
}

int cuDeviceGetAttribute(int *value, int which, int device) {
  ENTER();
  switch (which) {
    case GQ_CU_MAJOR: *value = 9; return OK;
    case GQ_CU_MINOR: *value = 0; return OK;
    case GQ_CU_MULTIPROCESSORS: *value = 132; return OK;
    case GQ_CU_SHARED_MOST: *value = shared_most(); return OK;
    default: return INVALID;
  }
}

int cuDevicePrimaryCtxRetain(gq_cucontext *c, int device) {
  ENTER();
  *c = (gq_cucontext)1;
  return OK;
}

int cuCtxSetCurrent(gq_cucontext c) {
  ENTER();
  current = true;
  return OK;
}

int cuGetErrorString(int error, const char **text) { /* no ENTER: what tells of failures does not fail */
  *text = error == NO_MEMORY      ? "out of memory"
          : error == INVALID      ? "invalid argument"
          : error == BAD_IMAGE    ? "device kernel image is invalid"
          : error == NOT_FOUND    ? "named symbol not found"
          : error == FAILED       ? "unspecified launch failure"
          : error == NO_RESOURCES ? "too many resources requested for launch"
                                  : "unknown error";
  return OK;
}
