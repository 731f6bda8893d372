/*
** threads.c -- a small pool. Workers stay alive, each bound to a core of its own where there are
** enough, and spin for a moment before they sleep: a step attempt takes about 100 microseconds,
** waking a sleeper a good part of that. Items are dealt out by number; a share that its worker has not
** begun when the caller is through (it sleeps, or another process has its core) is run by the caller.
** Where other processes have the workers' cores it goes on by itself for a while, rather than wake them for nothing.
** What an item computes depends on its number alone, so the same thread count gives the same bits.
*/
#define _GNU_SOURCE
#include "base.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SPIN_MICROSECONDS = 500 };
#define MOST_ALONE 0.02 /* seconds */

static struct pool {
  pthread_mutex_t lock; /* guards sleeping; held briefly */
  pthread_cond_t work, done;
  atomic_int size; /* workers wanted, the caller included; 0: not chosen yet */
  int running;     /* threads started, the caller not included */
  pthread_t thread[GQ_MAX_THREADS];
  int core[GQ_MAX_THREADS];          /* they are bound to, or -1 */
  atomic_uint round;                 /* +1 for every job: workers wait for it to change */
  atomic_uint claim[GQ_MAX_THREADS]; /* round of the last share of each worker that somebody has begun */
  atomic_int unfinished, sleeping;
  atomic_bool caller_sleeps, busy;
  atomic_bool stop, crowded; /* crowded: more workers than cores, spinning would hold them up */
  double alone, alone_until; /* seconds that the caller goes on by itself, and the time of its next try */
  int n, stride;             /* the job: items, and who takes which */
  void (*fn)(void *, int);
  void *ctx;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
           .work = PTHREAD_COND_INITIALIZER,
           .done = PTHREAD_COND_INITIALIZER };

static __thread bool inside; /* running an item: nested calls are serial */

static int default_size(void) {
  const char *text = getenv("GQ_THREADS");
  char *end;
  long n = text ? strtol(text, &end, 10) : 0;
  if (text && end != text && *end == '\0' && n >= 1 && n <= GQ_MAX_THREADS) return (int)n;
  int cores = gq_cores();
  return cores < GQ_MAX_THREADS ? cores : GQ_MAX_THREADS;
}

int gq_threads(void) {
  int n = atomic_load(&pool.size);
  if (n == 0) {
    int none = 0;
    n = default_size();
    if (!atomic_compare_exchange_strong(&pool.size, &none, n)) n = none;
  }
  return n;
}

static void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  sched_yield();
#endif
}

/* Spin until *value differs from old (true) or patience ends (false). */
static bool spin_until_changed(atomic_uint *value, unsigned old) {
  if (atomic_load(&pool.crowded)) return atomic_load(value) != old;
  double end = gq_clock() + 1e-6 * SPIN_MICROSECONDS;
  do {
    for (int i = 0; i < 64; i++) {
      if (atomic_load_explicit(value, memory_order_acquire) != old) return true;
      pause_briefly();
    }
  } while (gq_clock() < end);
  return false;
}

static bool spin_until_finished(void) {
  double end = gq_clock() + 1e-6 * SPIN_MICROSECONDS;
  do {
    for (int i = 0; i < 64; i++) {
      if (atomic_load_explicit(&pool.unfinished, memory_order_acquire) == 0) return true;
      pause_briefly();
    }
  } while (!atomic_load(&pool.crowded) && gq_clock() < end);
  return false;
}

/* ---- workers ---- */

/* Worker i sits on the i-th core after the caller's, among those that the process may use. */
static void bind_worker(int i) {
  cpu_set_t set, one;
  int at = sched_getcpu();
  pool.core[i] = -1;
  CPU_ZERO(&set);
  if (atomic_load(&pool.crowded) || sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) < 2)
    return;
  CPU_ZERO(&one);
  for (int cpu = at < 0 ? 0 : at, left = i; left > 0;) {
    cpu = (cpu + 1) % CPU_SETSIZE;
    if (CPU_ISSET(cpu, &set) && --left == 0) CPU_SET(cpu, &one), pool.core[i] = cpu;
  }
  pthread_setaffinity_np(pool.thread[i], sizeof one, &one); /* best effort */
}

/* The system has moved the caller to the core of a worker, which would wait for it or hold it up: they all move on. */
static void make_way(void) {
  int at = sched_getcpu();
  for (int i = 1; i <= pool.running; i++)
    if (pool.core[i] == at && at >= 0) {
      for (int k = 1; k <= pool.running; k++) bind_worker(k);
      return;
    }
}

static void run_share(int worker) {
  inside = true;
  for (int i = worker; i < pool.n; i += pool.stride) pool.fn(pool.ctx, i);
  inside = false;
}

/* Is the worker's share of this round still to be begun? Then it is ours. A worker that comes late, with the
** number of a round that is over, finds its share taken. */
static bool claim(int worker, unsigned round) {
  unsigned before = round - 1;
  return atomic_compare_exchange_strong(&pool.claim[worker], &before, round);
}

static void finish_share(void) {
  if (atomic_fetch_sub(&pool.unfinished, 1) != 1 || !atomic_load(&pool.caller_sleeps)) return;
  pthread_mutex_lock(&pool.lock);
  pthread_cond_signal(&pool.done);
  pthread_mutex_unlock(&pool.lock);
}

static void wait_for_round(unsigned seen) {
  if (spin_until_changed(&pool.round, seen)) return;
  pthread_mutex_lock(&pool.lock);
  atomic_fetch_add(&pool.sleeping, 1); /* before looking again: start_round looks in the other order */
  while (atomic_load(&pool.round) == seen) pthread_cond_wait(&pool.work, &pool.lock);
  atomic_fetch_sub(&pool.sleeping, 1);
  pthread_mutex_unlock(&pool.lock);
}

typedef struct start {
  int worker;
  unsigned seen;
} start;

static start starts[GQ_MAX_THREADS];

static void *work(void *arg) {
  start s = *(start *)arg;
  for (;;) {
    wait_for_round(s.seen);
    s.seen = atomic_load(&pool.round);
    if (atomic_load(&pool.stop)) break;
    if (!claim(s.worker, s.seen)) continue;
    run_share(s.worker);
    finish_share();
  }
  return NULL;
}

static void start_round(void) {
  atomic_fetch_add(&pool.round, 1);
  if (atomic_load(&pool.sleeping) == 0) return;
  pthread_mutex_lock(&pool.lock);
  pthread_cond_broadcast(&pool.work);
  pthread_mutex_unlock(&pool.lock);
}

static void wait_for_workers(void) {
  if (spin_until_finished()) return;
  pthread_mutex_lock(&pool.lock);
  atomic_store(&pool.caller_sleeps, true);
  while (atomic_load(&pool.unfinished) != 0) pthread_cond_wait(&pool.done, &pool.lock);
  atomic_store(&pool.caller_sleeps, false);
  pthread_mutex_unlock(&pool.lock);
}

/* ---- starting and stopping; the caller holds pool.busy ---- */

/* After fork only the calling thread exists: the child starts over, serial unless it asks. */
static void forget_workers(void) {
  pthread_mutex_init(&pool.lock, NULL);
  pthread_cond_init(&pool.work, NULL);
  pthread_cond_init(&pool.done, NULL);
  pool.running = 0;
  atomic_store(&pool.size, 1);
  atomic_store(&pool.unfinished, 0);
  atomic_store(&pool.sleeping, 0);
  atomic_store(&pool.caller_sleeps, false);
  atomic_store(&pool.busy, false);
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_workers); }

static void stop_workers(void) {
  if (pool.running == 0) return;
  atomic_store(&pool.stop, true);
  start_round();
  for (int i = 1; i <= pool.running; i++) pthread_join(pool.thread[i], NULL);
  pool.running = 0;
  atomic_store(&pool.stop, false);
}

/* Signals stay with the threads that the program knows of. */
static int start_worker(int i) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  starts[i] = (start){ i, atomic_load(&pool.round) };
  atomic_store(&pool.claim[i], starts[i].seen);
  int err = pthread_create(&pool.thread[i], NULL, work, &starts[i]);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (err == 0) bind_worker(i);
  return err;
}

static int start_workers(int size) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  atomic_store(&pool.crowded, size > gq_cores());
  while (pool.running < size - 1) {
    if (start_worker(pool.running + 1) != 0) {
      stop_workers();
      return gq_fail(GQ_ENOMEM, "%d threads could not be started", size);
    }
    pool.running++;
  }
  return GQ_OK;
}

int gq_set_threads(int n) {
  if (n < 1 || n > GQ_MAX_THREADS) return gq_fail(GQ_EARG, "%d threads: expected 1 to %d", n, GQ_MAX_THREADS);
  if (inside || atomic_exchange(&pool.busy, true))
    return gq_fail(GQ_ESTATE, "the number of threads cannot change while they are at work");
  int status = GQ_OK;
  if (n != pool.running + 1) {
    stop_workers();
    status = start_workers(n);
  }
  atomic_store(&pool.size, status == GQ_OK ? n : 1);
  atomic_store(&pool.busy, false);
  return status;
}

/* ---- the call ---- */

int gq_workers(void) { return inside ? 1 : gq_threads(); }

static void run_all(int n, void (*fn)(void *, int), void *ctx) {
  for (int i = 0; i < n; i++) fn(ctx, i);
}

static bool ready(int size) {
  if (pool.running == size - 1) return true;
  if (start_workers(size) == GQ_OK) return true;
  atomic_store(&pool.size, 1); /* no threads to be had: go on without */
  return false;
}

/* Run all shares that no worker has begun; was there one? */
static bool take_over(unsigned round) {
  bool late = false;
  for (int i = 1; i <= pool.running; i++)
    if (claim(i, round)) late |= i < pool.n, run_share(i), atomic_fetch_sub(&pool.unfinished, 1);
  return late;
}

/* A round in which a worker came late, or kept the caller waiting for longer than its own share took, has the caller
** alone for twice as long as the last one had, and as long as the round took at least. */
static void judge_round(double begun, double own, double end, bool late) {
  if (!late && end - own < own - begun + 1e-6 * SPIN_MICROSECONDS / 4) pool.alone = 0;
  else pool.alone = fmin(2 * pool.alone + end - begun, MOST_ALONE), pool.alone_until = end + pool.alone;
}

/* Run on the threads; false: there are none for this call. */
static bool share(int n, void (*fn)(void *ctx, int i), void *ctx) {
  int size = gq_threads();
  if (n <= 1 || size == 1 || inside || atomic_exchange(&pool.busy, true)) return false;
  double begun = gq_clock(), own;
  bool shared = begun >= pool.alone_until && ready(size);
  if (shared) {
    make_way();
    pool.n = n, pool.stride = size, pool.fn = fn, pool.ctx = ctx;
    atomic_store(&pool.unfinished, pool.running);
    start_round();
    run_share(0);
    own = gq_clock();
    bool late = take_over(atomic_load(&pool.round));
    wait_for_workers();
    judge_round(begun, own, gq_clock(), late);
  }
  atomic_store(&pool.busy, false);
  return shared;
}

void gq_parallel(int n, void (*fn)(void *ctx, int i), void *ctx) {
  if (!share(n, fn, ctx)) run_all(n, fn, ctx);
}

void gq_parallel_apart(int n, void (*fn)(void *ctx, int i), void *ctx) {
  if (share(n, fn, ctx)) return;
  bool before = inside;
  inside = true;
  run_all(n, fn, ctx);
  inside = before;
}
