/*
** alloc.c -- the one allocator: aligned to a cache line, counted, and failable by tests.
** A header in the line in front of each block holds its size and where malloc began: aligned_alloc would
** cost several times as much for small blocks. Blocks that are freed wait for the next of their size: a collector
** frees hundreds at once, more than malloc has quick lists for, and large ones go back to the system page by page.
*/
#include "base.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGN = 64, CLASSES = 512, FEW = 12 }; /* sizes in lines; blocks of CLASSES or more are large */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EACH = 0, ALL = 0, LARGE = 0 }; /* what is freed is never to be touched again */
#else
enum { EACH = 1 << 18, ALL = 1 << 22 }; /* bytes of one size and of all that wait in a thread, at most */
enum { LARGE = 1 << 25 };               /* and of the few larger ones */
#endif

static atomic_size_t live_bytes, calls, ended, peak_bytes; /* ended: calls that failed, and blocks freed */

/* The injected fault: calls left before it; negative: none. */
static atomic_long fault_after = -1;
static atomic_bool fault_stays;

void gq_alloc_fail(long after, bool persistent) {
  atomic_store(&fault_stays, persistent);
  atomic_store(&fault_after, after < 0 ? -1 : after);
}

static bool fault(void) {
  long left = atomic_load_explicit(&fault_after, memory_order_relaxed);
  if (left < 0) return false;
  if (left > 0) {
    atomic_store(&fault_after, left - 1);
    return false;
  }
  if (!atomic_load(&fault_stays)) atomic_store(&fault_after, -1);
  return true;
}

size_t gq_live_bytes(void) { return atomic_load_explicit(&live_bytes, memory_order_relaxed); }
size_t gq_live_blocks(void) {
  size_t n = atomic_load_explicit(&ended, memory_order_relaxed);
  return gq_alloc_count() - n;
}
size_t gq_alloc_count(void) { return atomic_load_explicit(&calls, memory_order_relaxed); }
size_t gq_peak_bytes(void) { return atomic_load_explicit(&peak_bytes, memory_order_relaxed); }
void gq_peak_reset(void) { atomic_store(&peak_bytes, gq_live_bytes()); }

static void count(size_t bytes) {
  size_t now = atomic_fetch_add_explicit(&live_bytes, bytes, memory_order_relaxed) + bytes;
  size_t peak = gq_peak_bytes();
  while (now > peak && !atomic_compare_exchange_weak(&peak_bytes, &peak, now)) continue;
}

void gq_count_bytes(ptrdiff_t bytes) { count((size_t)bytes); }

typedef struct header {
  size_t bytes;
  void *base;
} header;

static header *header_of(void *p) { return (header *)((char *)p - ALIGN); }

/* A block that waits: of its memory. */
typedef struct spare {
  struct spare *next;
} spare;

static _Thread_local struct {
  struct {
    spare *first;
    size_t bytes;
  } of[CLASSES];
  size_t bytes, large_bytes;
  int nlarge;
  char *large[FEW]; /* the oldest first */
  bool open;
} waiting;

static pthread_key_t ends;
static bool keyed; /* there was one to be had */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static size_t lines(size_t bytes) { return (bytes + (bytes == 0) + ALIGN - 1) / ALIGN; }
static size_t room_of(void *p) { return lines(header_of(p)->bytes) * ALIGN; }

/* The i-th of the large ones, waiting no more. */
static void *take_large(int i) {
  char *p = waiting.large[i];
  waiting.large_bytes -= room_of(p);
  for (waiting.nlarge--; i < waiting.nlarge; i++) waiting.large[i] = waiting.large[i + 1];
  return p;
}

static void count_waiting(size_t n, size_t bytes) { waiting.of[n].bytes += bytes, waiting.bytes += bytes; }

static void *take_small(size_t n) {
  spare *p = waiting.of[n].first;
  waiting.of[n].first = p->next;
  count_waiting(n, -(n * ALIGN));
  return p;
}

static void free_waiting(void) {
  while (waiting.nlarge) free(header_of(take_large(0))->base);
  for (int i = 0; i < CLASSES; i++)
    while (waiting.of[i].first) free(header_of(take_small(i))->base);
}

static void close_thread(void *unused) {
  (void)unused;
  free_waiting();
  waiting.open = false, waiting.bytes = ALL; /* what is freed later does not wait */
}

static void make_key(void) { keyed = pthread_key_create(&ends, close_thread) == 0; }

/* Does this thread give back at its end what waits? */
static bool opened(void) {
  if (waiting.open) return true;
  pthread_once(&once, make_key);
  return waiting.open = keyed && pthread_setspecific(ends, &waiting) == 0;
}

static bool put_large(void *p, size_t size) {
  if (size > LARGE / 2 || waiting.bytes + ALIGN > ALL || !opened()) return false;
  while (waiting.nlarge == FEW || (waiting.nlarge && waiting.large_bytes + size > LARGE))
    free(header_of(take_large(0))->base);
  waiting.large[waiting.nlarge++] = p, waiting.large_bytes += size;
  return true;
}

static bool put_aside(void *p, size_t bytes) {
  size_t n = lines(bytes), size = n * ALIGN;
  if (n >= CLASSES) return put_large(p, size);
  if (waiting.of[n].bytes + size > EACH || waiting.bytes + size > ALL || !opened()) return false;
  ((spare *)p)->next = waiting.of[n].first, waiting.of[n].first = p;
  count_waiting(n, size);
  return true;
}

static void *find_waiting(size_t n) {
  if (n < CLASSES) return waiting.of[n].first ? take_small(n) : NULL;
  for (int i = waiting.nlarge; i-- > 0;)
    if (room_of(waiting.large[i]) == n * ALIGN) return take_large(i);
  return NULL;
}

/* One that waits, or a new one. */
static void *find_block(size_t bytes) {
  size_t n = lines(bytes);
  void *p = find_waiting(n);
  if (p) {
    header_of(p)->bytes = bytes;
    return p;
  }
  char *base = malloc((n + 2) * ALIGN);
  if (!base) free_waiting(), base = malloc((n + 2) * ALIGN);
  if (!base) return NULL;
  char *fresh = base + 2 * ALIGN - (uintptr_t)base % ALIGN;
  *header_of(fresh) = (header){ bytes, base };
  return fresh;
}

void *gq_alloc(size_t bytes) {
  atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  void *p = fault() || bytes > PTRDIFF_MAX - 3 * ALIGN ? NULL : find_block(bytes);
  if (p) count(bytes);
  else atomic_fetch_add_explicit(&ended, 1, memory_order_relaxed);
  return p;
}

void *gq_calloc(size_t n, size_t size) {
  size_t bytes;
  if (!gq_size_mul(n, size, &bytes)) return NULL;
  void *p = gq_alloc(bytes);
  return p ? memset(p, 0, bytes) : NULL;
}

/* realloc does not keep the alignment, so growing is a copy. */
void *gq_realloc(void *p, size_t bytes) {
  void *q = gq_alloc(bytes);
  if (!p || !q) return q;
  size_t old = header_of(p)->bytes;
  memcpy(q, p, old < bytes ? old : bytes);
  gq_free(p);
  return q;
}

void gq_free(void *p) {
  if (!p) return;
  header h = *header_of(p);
  atomic_fetch_sub_explicit(&live_bytes, h.bytes, memory_order_relaxed);
  atomic_fetch_add_explicit(&ended, 1, memory_order_relaxed);
  if (!put_aside(p, h.bytes)) free(h.base);
}

char *gq_strdup(const char *s) {
  size_t n = strlen(s) + 1;
  char *copy = gq_alloc(n);
  return copy ? memcpy(copy, s, n) : NULL;
}

bool gq_size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
bool gq_size_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

void *gq_take(gq_taker *t, size_t bytes) {
  void *p = t->base ? t->base + t->used : NULL;
  t->used += gq_round64(bytes);
  return p;
}

size_t gq_default_memory(void) {
  static size_t quarter; /* asked for once: every solve wants to know */
  if (quarter) return quarter;
  long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  return quarter = pages > 0 && size > 0 ? (size_t)pages / 4 * (size_t)size : (size_t)1 << 30;
}
