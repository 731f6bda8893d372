/*
** memory.c -- the arena: what the driver gave is kept when it is released, for the next who asks for as much. All work goes
** through one stream, so numbers may be given away while work on them is still queued.
*/
#include "cuda.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What the driver gave at once: pieces of one size. */
typedef struct chunk {
  gq_u64 at;
  size_t piece, n, used;
  size_t *bytes; /* [n] as was asked for, and 1 more; 0: free */
} chunk;

/* Sizes in eighths of a power of two: what is released fits many. */
enum { STEP = 512, NCLASS = 8 * 56 };
typedef struct shelf {
  gq_u64 *at; /* free pieces: a heap, the lowest address first */
  size_t n, most, pieces;
} shelf;

static struct {
  chunk *c; /* sorted by address */
  size_t n, most;
  shelf shelf[NCLASS];
} arena;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t size_of(size_t bytes, int *class) {
  size_t step = STEP;
  int octave = 0;
  for (; 8 * step < bytes; octave++) step *= 2;
  size_t n = bytes ? (bytes + step - 1) / step : 1; /* 1 .. 8 */
  *class = 8 * octave + (int)n - 1;
  return n * step;
}

/* The first chunk that ends behind p. */
static size_t find(gq_u64 p) {
  size_t low = 0, high = arena.n;
  while (low < high) {
    size_t mid = (low + high) / 2;
    if (arena.c[mid].at + arena.c[mid].n * arena.c[mid].piece <= p) low = mid + 1;
    else high = mid;
  }
  return low;
}

static chunk *holding(const void *p) {
  gq_u64 at = gq_far(p);
  size_t i = find(at);
  return i < arena.n && arena.c[i].at <= at ? &arena.c[i] : NULL;
}

bool gq_cuda_owns(const void *p) {
  pthread_mutex_lock(&lock);
  bool yes = holding(p);
  pthread_mutex_unlock(&lock);
  return yes;
}

/* ---- free pieces ---- */

/* Who asks gets the lowest address, in whatever order pieces came back: what is done again is done with the same ones, and
** graph.c knows them. There is room. */
static void put_piece(shelf *s, gq_u64 at) {
  size_t i = s->n++;
  for (; i && s->at[(i - 1) / 2] > at; i = (i - 1) / 2) s->at[i] = s->at[(i - 1) / 2];
  s->at[i] = at;
}

static gq_u64 take_piece(shelf *s) {
  gq_u64 first = s->at[0], last = s->at[--s->n];
  size_t i = 0;
  for (size_t k; (k = 2 * i + 1) < s->n; i = k) {
    if (k + 1 < s->n && s->at[k + 1] < s->at[k]) k++;
    if (s->at[k] >= last) break;
    s->at[i] = s->at[k];
  }
  s->at[i] = last;
  return first;
}

/* ---- what the driver gives and takes ---- */

/* Chunks that nobody uses. */
static bool give_back(void) {
  size_t k = 0, given = 0;
  if (gq_cuda_before_all() != GQ_OK) return false; /* it waits for some of them */
  for (int s = 0; s < NCLASS; s++) {
    shelf *x = &arena.shelf[s];
    size_t n = x->n;
    x->n = 0;
    for (size_t i = 0; i < n; i++)
      if (arena.c[find(x->at[i])].used) put_piece(x, x->at[i]);
    x->pieces -= n - x->n;
  }
  for (size_t i = 0; i < arena.n; i++) {
    chunk c = arena.c[i];
    if (c.used) arena.c[k++] = c;
    else gq_cu.release(c.at), free(c.bytes), given++;
  }
  arena.n = k;
  return given;
}

/* Not gq_alloc: the arena's own books follow the device's memory, and stay as long as the process. */
static bool make_room(shelf *s, size_t pieces) {
  if (arena.n == arena.most) {
    size_t most = arena.most ? 2 * arena.most : 256;
    chunk *c = realloc(arena.c, most * sizeof *c);
    if (!c) return false;
    arena.c = c, arena.most = most;
  }
  if (s->pieces + pieces > s->most) {
    size_t most = 2 * (s->pieces + pieces);
    gq_u64 *at = realloc(s->at, most * sizeof *at);
    if (!at) return false;
    s->at = at, s->most = most;
  }
  return true;
}

static void put_chunk(shelf *s, chunk c) {
  size_t i = find(c.at);
  memmove(&arena.c[i + 1], &arena.c[i], (arena.n - i) * sizeof c);
  arena.c[i] = c, arena.n++;
  s->pieces += c.n;
  for (size_t k = 0; k < c.n; k++) put_piece(s, c.at + k * c.piece);
}

/* The caller says that there is no memory; the next to hear of it is told which. */
static bool none_left(int error, size_t bytes) {
  size_t left = 0, all = 0;
  if (error != GQ_CU_NO_MEMORY) gq_cuda_later(gq_cuda_check(error, "cuMemAlloc"));
  else if (gq_cu.memory(&left, &all) == 0)
    gq_cuda_later(gq_fail(GQ_ENOMEM, "out of memory on %s: %zu bytes wanted, %zu of %zu free", gq_cuda.name,
                          bytes, left, all));
  return false;
}

enum { SLAB = 2 << 20 };

/* As many pieces as there are, while they are small: a program with many numbers asks the driver seldom. But one by one
** where memory is poisoned, so that who writes past one is found. */
static bool grow(shelf *s, size_t piece, size_t bytes) {
  size_t most = piece < SLAB && !gq_cuda_poisons ? SLAB / piece : 1, n = s->pieces < most ? s->pieces : most;
  chunk c = { .piece = piece, .n = n ? n : 1 };
  if (!make_room(s, c.n)) return false;
  int error = gq_cu.allocate(&c.at, c.n * piece);
  if (error == GQ_CU_NO_MEMORY && c.n > 1) c.n = 1, error = gq_cu.allocate(&c.at, piece);
  if (error == GQ_CU_NO_MEMORY && give_back()) error = gq_cu.allocate(&c.at, piece);
  if (error) return none_left(error, bytes);
  c.bytes = calloc(c.n, sizeof *c.bytes);
  if (c.bytes) put_chunk(s, c);
  else gq_cu.release(c.at);
  return c.bytes;
}

static size_t *bytes_of(const chunk *c, gq_u64 at) { return &c->bytes[(at - c->at) / c->piece]; }

void *gq_cuda_allocate(size_t bytes) {
  int class;
  int status = gq_cuda_usable();
  gq_cuda_later(status);
  if (bytes > PTRDIFF_MAX / 2 || status != GQ_OK) return NULL;
  size_t piece = size_of(bytes, &class);
  shelf *s = &arena.shelf[class];
  gq_u64 at = 0;
  pthread_mutex_lock(&lock);
  if (s->n || grow(s, piece, bytes)) {
    at = take_piece(s);
    chunk *c = &arena.c[find(at)];
    c->used++;
    *bytes_of(c, at) = bytes + 1;
    gq_count_bytes((ptrdiff_t)bytes);
  }
  pthread_mutex_unlock(&lock);
  if (at && gq_cuda_poisons) gq_cuda_later(gq_cuda_set((void *)(uintptr_t)at, 0xff, piece));
  return (void *)(uintptr_t)at;
}

void gq_cuda_release(void *p_) {
  int class;
  if (!p_) return;
  gq_u64 at = gq_far(p_);
  pthread_mutex_lock(&lock);
  chunk *c = holding(p_);
  size_t *bytes = c ? bytes_of(c, at) : NULL;
  if (bytes && *bytes) {
    gq_count_bytes(-(ptrdiff_t)(*bytes - 1));
    *bytes = 0, c->used--;
    size_of(c->piece, &class);
    put_piece(&arena.shelf[class], at);
  }
  pthread_mutex_unlock(&lock);
}

/* ---- moving bytes ---- */

/* Pages of the host that stay, through which all goes to the device: it may come to read others when they have changed, or
** their copy may wait for all before it. */
enum { CARGO = 4 << 20 };
static void *cargo;
static size_t loaded; /* bytes of it that may be on their way: none after a wait */

int gq_cuda_wait(void) {
  GQ_TRY(gq_cuda_usable());
  GQ_TRY(gq_cuda_before_all());
  if (!gq_cuda_busy) return GQ_OK;
  gq_cuda_busy = false;
  GQ_TRY(gq_cuda_check(gq_cu.wait(gq_cuda.stream), "cuStreamSynchronize"));
  loaded = 0;
  return GQ_OK;
}

static int get(void *to, const void *from, size_t bytes) {
  GQ_TRY(gq_cuda_enter());
  GQ_TRY(gq_cuda_check(gq_cu.back(to, gq_far(from), bytes, gq_cuda.stream), "cuMemcpyDtoHAsync"));
  return gq_cuda_wait();
}

/* What does not come is NaN: nobody takes what was there before for it. */
int gq_cuda_get(void *to, const void *from, size_t bytes) {
  int status = bytes ? get(to, from, bytes) : GQ_OK;
  if (status != GQ_OK) memset(to, 0xff, bytes);
  return status;
}

static int load(void *to, const void *from, size_t bytes) {
  if (loaded + bytes > CARGO) GQ_TRY(gq_cuda_wait());
  GQ_TRY(gq_cuda_enter());
  char *at = (char *)cargo + loaded;
  memcpy(at, from, bytes);
  loaded += (bytes + 15) / 16 * 16;
  return gq_cuda_check(gq_cu.there(gq_far(to), at, bytes, gq_cuda.stream), "cuMemcpyHtoDAsync");
}

int gq_cuda_put(void *to, const void *from, size_t bytes) {
  if (!bytes) return GQ_OK;
  GQ_TRY(gq_cuda_enter());
  if (!cargo) GQ_TRY(gq_cuda_check(gq_cu.host_allocate(&cargo, CARGO), "cuMemAllocHost"));
  for (size_t done = 0, n; done < bytes; done += n) {
    n = bytes - done < CARGO ? bytes - done : CARGO;
    GQ_TRY(load((char *)to + done, (const char *)from + done, n));
  }
  return GQ_OK;
}

/* Of so few bytes the driver has nothing to gain. */
enum { FEW = 1 << 18 };
static bool waits(const void *to, size_t bytes) {
  return bytes <= FEW && bytes % 4 == 0 && gq_far(to) % 4 == 0;
}

int gq_cuda_copy(void *to, const void *from, size_t bytes) {
  bool there = gq_cuda_owns(to), here = !gq_cuda_owns(from);
  if (!bytes) return GQ_OK;
  if (!there && here) memmove(to, from, bytes);
  if (!there) return here ? GQ_OK : gq_cuda_get(to, from, bytes);
  if (here) return gq_cuda_put(to, from, bytes);
  if (waits(to, bytes) && gq_far(from) % 4 == 0)
    return gq_cuda_combine(GQ_F32, 1, (size_t[]){ bytes / 4 }, 0, NULL,
                           (void *[]){ to, (void *)(uintptr_t)from });
  GQ_TRY(gq_cuda_enter());
  return gq_cuda_check(gq_cu.within(gq_far(to), gq_far(from), bytes, gq_cuda.stream), "cuMemcpyDtoDAsync");
}

int gq_cuda_set(void *to, int byte, size_t bytes) {
  if (!bytes) return GQ_OK;
  if (byte == 0 && waits(to, bytes) && !gq_cuda_capturing) return gq_cuda_fill(GQ_F32, bytes / 4, 0, to);
  GQ_TRY(gq_cuda_enter());
  return gq_cuda_check(gq_cu.set(gq_far(to), (unsigned char)byte, bytes, gq_cuda_stream()),
                       "cuMemsetD8Async");
}
