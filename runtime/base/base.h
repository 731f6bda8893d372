/*
** base.h -- what every stage stands on: status codes with a message, the one
** failable and counted allocator, the interrupt flag, Philox, threads.
** The runtime never prints, never exits and never meets Lua.
*/
#ifndef GQ_BASE_H
#define GQ_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum gq_status {
#define GQ_STATUS(code, name, hint) code,
#include "status.def"
#undef GQ_STATUS
  GQ_NSTATUS
} gq_status;

/* Record a message (printf style) for this thread and return `code`. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int gq_fail(int code, const char *fmt, ...);
const char *gq_message(void);            /* text of the last gq_fail of this thread, hint included */
int gq_failed(void);                     /* its code */
/* For calls without a status, which a device may fail in: kept, the first of them, until gq_pending tells it. */
void gq_fail_later(int code, const char *text);
int gq_pending(void);                    /* GQ_OK, or that failure as gq_fail records it; forgotten then */
const char *gq_status_name(int code);    /* "max_steps" */
const char *gq_status_hint(int code);    /* "loosen rtol ..." or "" */

#define GQ_TRY(e) do { int gq_try_ = (e); if (gq_try_ != GQ_OK) return gq_try_; } while (0)

#ifdef GQ_DEBUG
#include <assert.h>
#define GQ_ASSERT(c) assert(c)
#else
#define GQ_ASSERT(c) ((void)0)
#endif

/* ---- memory: the only allocator; counted; a test can fail the n-th call ---- */

void *gq_alloc(size_t bytes);                 /* 64-byte aligned, uninitialised; NULL: no memory */
void *gq_calloc(size_t count, size_t size);   /* the same, zeroed, count * size checked */
void *gq_realloc(void *p, size_t bytes);      /* keeps min(old, new) bytes; NULL leaves p alone */
void gq_free(void *p);                        /* NULL is fine */
char *gq_strdup(const char *s);
/* list: address of a pointer to entries of so many bytes where *room fit. Makes room for n and one more, of twice as many
** at the least where there is none; GQ_ENOMEM leaves all as it is. */
int gq_room(void *list, int *room, int n, size_t size);
int gq_nomem(size_t bytes);                   /* gq_fail(GQ_ENOMEM, ...) naming the size */

size_t gq_live_bytes(void);                   /* bytes alive now, those of devices too */
void gq_count_bytes(ptrdiff_t bytes);         /* for memory that is not the allocator's: a device's */
size_t gq_default_memory(void);               /* a quarter of the machine's */
size_t gq_live_blocks(void);                  /* blocks alive now */
size_t gq_alloc_count(void);                  /* calls so far: "the step loop allocates nothing" is a test */
size_t gq_peak_bytes(void);                   /* highest gq_live_bytes since gq_peak_reset */
void gq_peak_reset(void);
/* Let `after` more allocations succeed, then fail the next one (persistent: and all
** after it). after < 0 switches the fault off. */
void gq_alloc_fail(long after, bool persistent);

/* Checked size arithmetic: false when the result does not fit. */
bool gq_size_mul(size_t a, size_t b, size_t *out);
bool gq_size_add(size_t a, size_t b, size_t *out);

static inline size_t gq_round64(size_t n) { return (n + 63) & ~(size_t)63; }   /* to whole cache lines */

/* Pieces of one block, each on cache lines of its own. Without a base only their sizes add up in `used`: what takes
** them runs twice, before the block is allocated and after. */
typedef struct gq_taker {
  char *base;
  size_t used;
} gq_taker;
void *gq_take(gq_taker *t, size_t bytes);

/* Arrays that go together, zeroed. Once there was no memory for one no other comes: one look at the end tells of all. */
typedef struct gq_pool {
  struct gq_pooled *last;
  size_t wanted;                              /* bytes of the first that did not come; 0: all came */
} gq_pool;
void *gq_pooled(gq_pool *p, size_t count, size_t size);
int gq_pool_status(const gq_pool *p);         /* GQ_OK, or what gq_nomem says */
void gq_pool_free(gq_pool *p);

/* A text that grows, or bytes: zero ends it. failed: there was no memory for what came next, which is not there. */
typedef struct gq_text {
  char *s;
  size_t n, room;
  bool failed;
} gq_text;
void gq_text_add(gq_text *t, const void *bytes, size_t n);
__attribute__((format(printf, 2, 3))) void gq_text_put(gq_text *t, const char *fmt, ...);
void gq_text_putv(gq_text *t, const char *fmt, va_list args);

/* ---- narration: what is done, for who asks to see it ---- */
typedef enum gq_topic {
  GQ_TELL_IR,      /* programs, as they are compiled */
  GQ_TELL_STEP,    /* tried steps */
  GQ_TELL_QUAD,    /* rounds of the quadrature along the way back */
  GQ_TELL_MEM,     /* what solves and their ways back held at most */
  GQ_NTOPICS
} gq_topic;
/* From now on lines of these topics ("step,quad"; "": of none) go to `to`, which any thread may call. GQ_EARG: another
** name among them; nothing has changed. */
int gq_narrate(const char *names, void (*to)(const char *text));
bool gq_narrates(gq_topic topic);
__attribute__((format(printf, 2, 3))) void gq_tell(gq_topic topic, const char *fmt, ...);   /* where it is told of */

/* ---- interrupt: set by a signal handler, polled once a step ---- */
void gq_interrupt(void);                 /* async-signal-safe */
bool gq_interrupted(void);
void gq_interrupt_clear(void);

/* Bits of n mixed up: splitmix64 (Steele, Lea and Flood 2014), its state n steps on from 0. */
static inline uint64_t gq_mix(uint64_t n) {
  uint64_t h = n * 0x9e3779b97f4a7c15u;
  h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
  h = (h ^ h >> 27) * 0x94d049bb133111ebu;
  return h ^ h >> 31;
}

/* ---- Philox4x32-10 (Salmon et al., SC 2011): noise as a function ---- */
typedef struct gq_key { uint32_t k[2]; } gq_key;
/* Key of a stream: `seed` and what it is for (GQ_FOR_*). */
enum { GQ_FOR_USER = 0, GQ_FOR_INIT, GQ_FOR_SHUFFLE, GQ_FOR_BROWNIAN, GQ_FOR_COSINES, GQ_FOR_DATA, GQ_FOR_DROPOUT,
       GQ_FOR_AREA, GQ_FOR_AREA_TOO, GQ_FOR_LEVY };
gq_key gq_key_make(uint64_t seed, uint32_t purpose);
void gq_philox(const uint32_t ctr[4], gq_key key, uint32_t out[4]);
/* out[i] for i = 0..n-1 is a pure function of (key, stream, first + i). */
void gq_random_uniform(gq_key key, uint64_t stream, uint64_t first, size_t n, double *out);  /* (0, 1) */
void gq_random_normal(gq_key key, uint64_t stream, uint64_t first, size_t n, double *out);   /* Box-Muller */
void gq_random_u32(gq_key key, uint64_t stream, uint64_t first, size_t n, uint32_t *out);
typedef struct gq_bridge gq_bridge;   /* bridge.h: what tells a Brownian path */

/* ---- threads: a small pool; the caller is worker 0 ---- */
enum { GQ_MAX_THREADS = 256 };
int gq_cores(void);                      /* processors' time that the process may use, 1..: the default of */
int gq_threads(void);                    /* workers in use, 1.. */
int gq_workers(void);                    /* the same, or 1 from inside gq_parallel: how many would share a call */
int gq_set_threads(int n);               /* starts or stops workers; GQ_EARG unless 1..GQ_MAX_THREADS */
/* Run fn(ctx, i) for i = 0..n-1, items of one remainder by gq_threads() one after the other on one thread;
** returns when all are done. Calls from inside fn run serially. */
void gq_parallel(int n, void (*fn)(void *ctx, int i), void *ctx);
/* The same, and calls from inside fn run serially even where there is one item or one thread: what fn computes is the
** same bit by bit however the items are spread (products that are shared among threads sum in another order). */
void gq_parallel_apart(int n, void (*fn)(void *ctx, int i), void *ctx);

double gq_clock(void);                   /* monotonic seconds */

#endif
