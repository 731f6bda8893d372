/*
** base_test.c -- runtime/base: messages, the allocator and its faults, Philox against published
** answers, the distribution of what is drawn from it, and the thread pool.
*/
#define _GNU_SOURCE
#include "runtime/base/base.h"
#include "check.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_status(void) {
  CHECK(strcmp(gq_status_name(GQ_OK), "ok") == 0);
  CHECK(strcmp(gq_status_name(GQ_EMAXSTEPS), "max_steps") == 0);
  CHECK(strcmp(gq_status_name(-1), "unknown") == 0 && strcmp(gq_status_name(GQ_NSTATUS), "unknown") == 0);
  CHECK(gq_fail(GQ_ESHAPE, "%d by %d", 2, 3) == GQ_ESHAPE);
  CHECK(strcmp(gq_message(), "2 by 3") == 0);
  gq_fail(GQ_EINDEX, "index 0");
  CHECK(strcmp(gq_message(), "index 0; indices count from 1") == 0);
  gq_fail(GQ_EINDEX, "f: %s", gq_message()); /* its own text, and the hint once */
  CHECK(strcmp(gq_message(), "f: index 0; indices count from 1") == 0);
  char long_text[4000];
  memset(long_text, 'x', sizeof long_text);
  long_text[sizeof long_text - 1] = '\0';
  gq_fail(GQ_ENOMEM, "%s", long_text);
  CHECK(strlen(gq_message()) == 1023);
}

static void test_alloc(void) {
  size_t bytes = gq_live_bytes(), blocks = gq_live_blocks(), calls = gq_alloc_count();
  static const size_t sizes[] = { 0, 1, 63, 64, 65, 4097 };
  char *p[6];
  for (int i = 0; i < 6; i++) {
    p[i] = gq_alloc(sizes[i]);
    CHECK(p[i] && (uintptr_t)p[i] % 64 == 0);
    memset(p[i], i, sizes[i]);
  }
  CHECK(gq_live_blocks() == blocks + 6 && gq_alloc_count() == calls + 6);
  CHECK(gq_live_bytes() == bytes + 0 + 1 + 63 + 64 + 65 + 4097);
  p[2] = gq_realloc(p[2], 1000);
  CHECK(p[2][0] == 2 && p[2][62] == 2 && (uintptr_t)p[2] % 64 == 0);
  p[2] = gq_realloc(p[2], 10);
  CHECK(p[2][9] == 2);
  for (int i = 0; i < 6; i++) gq_free(p[i]);
  gq_free(NULL);
  CHECK(gq_live_bytes() == bytes && gq_live_blocks() == blocks);
  gq_peak_reset();
  gq_free(gq_alloc(12345));
  CHECK(gq_peak_bytes() == bytes + 12345);
  char *zero = gq_calloc(100, 7);
  bool all = true;
  for (int i = 0; i < 700; i++) all = all && zero[i] == 0;
  CHECK(all);
  gq_free(zero);
  CHECK(gq_calloc(SIZE_MAX / 2, 3) == NULL);
  CHECK(gq_alloc(SIZE_MAX) == NULL && gq_alloc(PTRDIFF_MAX) == NULL);
  size_t out;
  CHECK(!gq_size_mul(SIZE_MAX, 2, &out) && !gq_size_add(SIZE_MAX, 1, &out));
  CHECK(gq_size_mul(6, 7, &out) && out == 42);
  CHECK(gq_live_bytes() == bytes && gq_live_blocks() == blocks);
}

/* A list keeps its entries as it grows, and is as it was where there is no memory for more. */
static void test_room(void) {
  size_t blocks = gq_live_blocks();
  short *list = NULL;
  int n = 0, room = 0;
  bool all = true;
  for (; n < 1000; n++) {
    all = all && gq_room(&list, &room, n, sizeof *list) == GQ_OK && n < room;
    list[n] = (short)n;
  }
  for (int i = 0; i < n; i++) all = all && list[i] == i;
  CHECK(all && room < 2 * n);
  short *before = list;
  int had = room;
  gq_alloc_fail(0, false);
  CHECK(gq_room(&list, &room, room, sizeof *list) == GQ_ENOMEM && list == before && room == had);
  gq_free(list);
  CHECK(gq_live_blocks() == blocks);
}

/* Blocks of all sizes come and go in any order, and none overlaps another. */
static void *churn(void *wrong) {
  enum { N = 300, TURNS = 20000 };
  static const size_t sizes[] = { 0, 1, 64, 65, 200, 3000, 16000, 32700, 40000 };
  unsigned char *p[N] = { NULL };
  size_t n[N] = { 0 };
  uint32_t draw = 1;
  for (int turn = 0; turn < TURNS + N; turn++) {
    draw = draw * 1664525u + 1013904223u;
    int i = turn < TURNS ? (int)(draw >> 8) % N : turn - TURNS;
    if (p[i])
      for (size_t k = 0; k<n[i]; k += n[i]> 1 ? n[i] - 1 : 1) *(int *)wrong += p[i][k] != i % 251;
    gq_free(p[i]);
    p[i] = NULL;
    if (turn >= TURNS) continue;
    n[i] = sizes[(draw >> 20) % 9];
    p[i] = gq_alloc(n[i]);
    *(int *)wrong += !p[i] || (uintptr_t)p[i] % 64 != 0;
    if (p[i]) memset(p[i], i % 251, n[i]);
  }
  return NULL;
}

static void *give_back(void *p) {
  gq_free(p);
  return NULL;
}

static void test_churn(void) {
  size_t bytes = gq_live_bytes(), blocks = gq_live_blocks();
  int wrong[2] = { 0, 0 };
  pthread_t t;
  CHECK(pthread_create(&t, NULL, churn, &wrong[1]) == 0);
  churn(&wrong[0]);
  pthread_join(t, NULL);
  CHECK(wrong[0] == 0 && wrong[1] == 0);
  CHECK(pthread_create(&t, NULL, give_back, gq_alloc(100)) == 0); /* a block of another thread, which ends */
  pthread_join(t, NULL);
  CHECK(gq_live_bytes() == bytes && gq_live_blocks() == blocks);
}

static void test_faults(void) {
  char *kept = gq_strdup("kept");
  gq_alloc_fail(2, false);
  void *a = gq_alloc(1), *b = gq_alloc(1), *c = gq_alloc(1), *d = gq_alloc(1);
  CHECK(a && b && !c && d);
  gq_free(a), gq_free(b), gq_free(d);
  gq_alloc_fail(0, true);
  CHECK(!gq_alloc(1) && !gq_calloc(1, 1) && !gq_strdup("x") && !gq_realloc(kept, 100));
  gq_alloc_fail(-1, false);
  CHECK(strcmp(kept, "kept") == 0);
  gq_free(kept);
}

static void test_taker(void) {
  char block[256];
  gq_taker t = { 0 };
  CHECK(!gq_take(&t, 10) && !gq_take(&t, 65) && !gq_take(&t, 0));
  CHECK(t.used == 192);
  t = (gq_taker){ .base = block };
  CHECK(gq_take(&t, 10) == block && gq_take(&t, 65) == block + 64 && gq_take(&t, 0) == block + 192);
  CHECK(t.used == 192);
}

static void test_interrupt(void) {
  CHECK(!gq_interrupted());
  gq_interrupt();
  CHECK(gq_interrupted());
  gq_interrupt_clear();
  CHECK(!gq_interrupted());
}

/* ---- Philox ---- */

/* Random123's kat_vectors, philox4x32 10. */
static void test_philox(void) {
  static const struct {
    uint32_t ctr[4];
    gq_key key;
    uint32_t want[4];
  } known[] = {
    { { 0, 0, 0, 0 }, { { 0, 0 } }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
    { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
      { { 0xffffffff, 0xffffffff } },
      { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
    { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
      { { 0xa4093822, 0x299f31d0 } },
      { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
  };
  for (int i = 0; i < 3; i++) {
    uint32_t out[4];
    gq_philox(known[i].ctr, known[i].key, out);
    CHECK(memcmp(out, known[i].want, sizeof out) == 0);
  }
}

/* A number depends on its index alone, however it is asked for. */
static void test_random_access(void) {
  enum { N = 97 };
  gq_key key = gq_key_make(7, GQ_FOR_USER);
  double all[N], one, part[N];
  uint32_t words[N], word;
  gq_random_normal(key, 3, 1000, N, all);
  gq_random_u32(key, 3, 1000, N, words);
  bool same = true;
  for (int i = 0; i < N; i++) {
    gq_random_normal(key, 3, 1000 + (uint64_t)i, 1, &one);
    gq_random_u32(key, 3, 1000 + (uint64_t)i, 1, &word);
    gq_random_normal(key, 3, 1000 + (uint64_t)i, (size_t)(N - i), part);
    same = same && one == all[i] && word == words[i] &&
           memcmp(part, all + i, sizeof(double) * (size_t)(N - i)) == 0;
  }
  CHECK(same);
  gq_random_normal(key, 4, 1000, 1, &one);
  CHECK(one != all[0]);
  gq_random_normal(gq_key_make(8, GQ_FOR_USER), 3, 1000, 1, &one);
  CHECK(one != all[0]);
  gq_random_normal(gq_key_make(7, GQ_FOR_INIT), 3, 1000, 1, &one);
  CHECK(one != all[0]);
  gq_random_normal(gq_key_make(7 + (1ull << 32), GQ_FOR_USER), 3, 1000, 1, &one);
  CHECK(one != all[0]);
  gq_random_normal(key, UINT64_MAX, UINT64_MAX - 1, 2, part); /* no overflow at the end */
  CHECK(isfinite(part[0]) && isfinite(part[1]));
}

/* Normals are Box and Muller's of the uniforms at the same place, within rounding. */
static void test_box_muller(void) {
  enum { N = 2000 };
  double u[N], z[N], worst = 0;
  gq_key key = gq_key_make(5, GQ_FOR_USER);
  gq_random_uniform(key, 9, 0, N, u);
  gq_random_normal(key, 9, 0, N, z);
  for (int i = 0; i < N; i += 2) {
    double r = sqrt(-2 * log(u[i])), angle = 6.283185307179586476925 * u[i + 1];
    worst = fmax(worst, fmax(fabs(z[i] - r * cos(angle)), fabs(z[i + 1] - r * sin(angle))));
  }
  CHECK(worst < 1e-14);
}

/* Moments of n draws lie within five standard errors. */
static void test_distribution(void) {
  enum { N = 200000 };
  double *x = gq_alloc(N * sizeof *x), mean = 0, var = 0, fourth = 0, lag = 0, umean = 0, low = 1, high = 0;
  gq_key key = gq_key_make(1, GQ_FOR_USER);
  gq_random_normal(key, 0, 0, N, x);
  for (int i = 0; i < N; i++) mean += x[i] / N, var += x[i] * x[i] / N, fourth += pow(x[i], 4) / N;
  for (int i = 1; i < N; i++) lag += x[i] * x[i - 1] / N;
  double unit = 5 / sqrt(N);
  CHECK(fabs(mean) < unit && fabs(var - 1) < unit * sqrt(2) && fabs(fourth - 3) < unit * sqrt(96) &&
        fabs(lag) < unit);
  gq_random_uniform(key, 1, 0, N, x);
  for (int i = 0; i < N; i++) umean += x[i] / N, low = fmin(low, x[i]), high = fmax(high, x[i]);
  CHECK(fabs(umean - 0.5) < unit / sqrt(12) && low > 0 && high < 1);
  gq_free(x);
}

/* ---- threads ---- */

enum { ITEMS = 1000 };
static atomic_int runs[ITEMS];
static int owner[ITEMS];
static __thread int me;

static void touch(void *ctx, int i) {
  atomic_fetch_add(&runs[i], 1);
  (void)ctx;
}

/* Items i and i + threads run on the same thread, while the first take long enough for all to wake. */
static void mark(void *ctx, int i) {
  if (me == 0) me = atomic_fetch_add((atomic_int *)ctx, 1);
  owner[i] = me;
  if (i < 8) usleep(20000);
}

static void inner(void *ctx, int i) { ((int *)ctx)[i]++; }

static void outer(void *ctx, int i) {
  int counts[8] = { 0 };
  gq_parallel(8, inner, counts);
  for (int k = 0; k < 8; k++)
    if (counts[k] == 1) atomic_fetch_add(&runs[i], 1);
}

static void reset(void) {
  for (int i = 0; i < ITEMS; i++) atomic_store(&runs[i], 0);
}

static bool every(int n, int want) {
  bool ok = true;
  for (int i = 0; i < n; i++) ok = ok && atomic_load(&runs[i]) == want;
  return ok;
}

static void test_cores(void) {
  int all = gq_cores(), one;
  CHECK(all >= 1 && all <= sysconf(_SC_NPROCESSORS_CONF));
  cpu_set_t before, set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof before, &before);
  CPU_SET(sched_getcpu(), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) return; /* not allowed here */
  one = gq_cores();
  sched_setaffinity(0, sizeof before, &before);
  CHECK(one == 1 && gq_cores() == all);
}

static void test_threads(int n) {
  static atomic_int names = 1;
  CHECK(gq_threads() >= 1);
  CHECK(gq_set_threads(n) == GQ_OK && gq_threads() == n);
  reset();
  for (int round = 0; round < 20000; round++) gq_parallel(round % 50, touch, NULL); /* shares go to and fro */
  bool ok = true;
  for (int i = 0; i < 50; i++) ok = ok && atomic_load(&runs[i]) == 400 * (49 - i);
  CHECK(ok);
  reset();
  gq_parallel(ITEMS, touch, NULL);
  CHECK(every(ITEMS, 1));
  bool own = false; /* who comes late, on a busy machine, finds the share gone */
  for (int k = 0; k < 20 && !own; k++) {
    gq_parallel(ITEMS, mark, &names);
    own = true;
    for (int i = n; i < ITEMS; i++) own = own && owner[i] == owner[i - n];
    for (int i = 1; i < n; i++) own = own && owner[i] != owner[0];
  }
  CHECK(own);
  reset();
  gq_parallel(40, outer, NULL);
  CHECK(every(40, 8));
  gq_parallel(0, touch, NULL);
  gq_parallel(-3, touch, NULL);
}

static void change(void *ctx, int i) {
  if (gq_set_threads(2) == GQ_OK) atomic_fetch_add((atomic_int *)ctx, 1);
  (void)i;
}

/* After a sleep longer than any spinning, workers still come. */
static void test_sleep(void) {
  gq_set_threads(3);
  for (int round = 0; round < 5; round++) {
    usleep(20000);
    reset();
    gq_parallel(ITEMS, touch, NULL);
    CHECK(every(ITEMS, 1));
  }
}

static void test_fork(void) {
  gq_set_threads(3);
  gq_parallel(10, touch, NULL);
  pid_t child = fork();
  if (child == 0) {
    reset();
    gq_parallel(ITEMS, touch, NULL);
    bool ok = every(ITEMS, 1) && gq_threads() == 1 && gq_set_threads(2) == GQ_OK;
    gq_parallel(ITEMS, touch, NULL);
    _exit(ok && every(ITEMS, 2) ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  reset();
  gq_parallel(ITEMS, touch, NULL);
  CHECK(every(ITEMS, 1));
}

static void test_thread_limits(void) {
  CHECK(gq_set_threads(0) == GQ_EARG && gq_set_threads(257) == GQ_EARG && gq_threads() == 1);
  gq_set_threads(2);
  atomic_int changed = 0;
  gq_parallel(8, change, &changed);
  CHECK(changed == 0 && gq_threads() == 2);
}

int main(void) {
  RUN(test_status());
  RUN(test_alloc());
  RUN(test_room());
  RUN(test_churn());
  RUN(test_faults());
  RUN(test_taker());
  RUN(test_interrupt());
  RUN(test_philox());
  RUN(test_random_access());
  RUN(test_box_muller());
  RUN(test_distribution());
  static const int counts[] = { 1, 2, 3, 8, 2, 1 };
  RUN(test_cores());
  for (int i = 0; i < 6; i++) RUN(test_threads(counts[i]));
  RUN(test_thread_limits());
  RUN(test_sleep());
  RUN(test_fork());
  gq_set_threads(1);
  return DONE();
}
