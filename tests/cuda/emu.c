/*
** emu.c -- blocks and threads.
*/
#include "emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* What kernels see. */
int gq_emu_block, gq_emu_blocks, *gq_emu_thread;
char *gq_emu_dynamic;

emu_way emu_way_now(void) {
  static const char *const names[EMU_NWAY] = { "loop", "backwards", "fiber", "reverse", "shuffled", "races" };
  static int way = -1;
  const char *name = getenv("GQ_EMU");
  for (int i = 0; way < 0 && i < EMU_NWAY; i++)
    if (!name || strcmp(name, names[i]) == 0) way = i;
  if (way < 0) {
    fprintf(stderr, "emulator: GQ_EMU=%s: loop, backwards, fiber, reverse, shuffled or races expected\n",
            name);
    exit(2);
  }
  return (emu_way)way;
}

/* So many nanoseconds pass from look to look ($GQ_EMU_CLOCK): kernels halt where tests want them to. */
unsigned long long gq_emu_clock(void) {
  static unsigned long long now, step;
  if (!step) step = getenv("GQ_EMU_CLOCK") ? strtoull(getenv("GQ_EMU_CLOCK"), NULL, 10) : 1;
  return now += step;
}

/* ---- fibers ---- */

enum { STACK = 64 << 10, PAGE = 4096, MOST = 1024 };
typedef struct fiber {
  void *sp;
  char *stack;
  bool done;
  int index, line; /* of the barrier that it waits at */
} fiber;

static fiber pool[MOST];
static void *home;
static fiber *now;
static void (*entry)(void *);
static void *entry_context;

void emu_switch(void **save, void *to);
__asm__(".text\n.globl emu_switch\n.type emu_switch,@function\nemu_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
static const void *home_bottom;
static size_t home_size;
static void leaving(void **fake, const void *bottom, size_t size) {
  __sanitizer_start_switch_fiber(fake, bottom, size);
}
static void arrived(void *fake, const void **bottom, size_t *size) {
  __sanitizer_finish_switch_fiber(fake, bottom, size);
}
/* Frames that a fiber was left in are no frames of the next. */
static void forget(char *stack) { __asan_unpoison_memory_region(stack, STACK); }
#define HOME_BOTTOM home_bottom
#define HOME_SIZE home_size
#define HOME_OUT &home_bottom, &home_size
#else
static void leaving(void **fake, const void *bottom, size_t size) {}
static void arrived(void *fake, const void **bottom, size_t *size) {}
static void forget(char *stack) {}
#define HOME_BOTTOM NULL
#define HOME_SIZE 0
#define HOME_OUT NULL, NULL
#endif

static void leave(bool done) {
  void *fake = NULL;
  fiber *f = now;
  f->done = done;
  leaving(done ? NULL : &fake, HOME_BOTTOM, HOME_SIZE);
  emu_switch(&f->sp, home);
  arrived(fake, HOME_OUT);
}

void gq_emu_barrier(int line) {
  now->line = line;
  leave(false);
}

static void trampoline(void) {
  arrived(NULL, HOME_OUT);
  entry(entry_context);
  leave(true);
  abort();
}

static void prepare(fiber *f, int index) {
  if (!f->stack) { /* the lowest page is a guard */
    char *m =
      mmap(NULL, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) abort();
    mprotect(m, PAGE, PROT_NONE);
    f->stack = m + PAGE;
  }
  forget(f->stack);
  void **sp = (void **)(f->stack + STACK);
  *--sp = NULL;
  *--sp = (void *)trampoline;
  for (int i = 0; i < 6; i++) *--sp = NULL;
  f->sp = sp, f->done = false, f->index = index, f->line = 0;
}

static void resume(fiber *f) {
  void *fake = NULL;
  now = f;
  gq_emu_thread = &f->index;
  leaving(&fake, f->stack, STACK);
  emu_switch(&home, f->sp);
  arrived(fake, NULL, NULL);
}

/* ---- shared memory: NaN when a block begins ---- */

static int poisoned_block = -1, npoisoned;
static void *poisoned[64];

static size_t taken, most; /* bytes that the block shares, and may */

/* New to the block? */
static bool poison(void *at, unsigned long long bytes) {
  if (poisoned_block != gq_emu_block) npoisoned = 0, poisoned_block = gq_emu_block;
  for (int i = 0; i < npoisoned; i++)
    if (poisoned[i] == at) return false;
  if (npoisoned < 64) poisoned[npoisoned++] = at;
  memset(at, 0xff, bytes);
  return true;
}

void gq_emu_own(void *at, unsigned long long bytes) { poison(at, bytes); }
void gq_emu_shared(void *at, unsigned long long bytes) {
  if (poison(at, bytes)) taken += bytes;
}

/* ---- launches ---- */

static void shuffle(int *at, int n) {
  static unsigned long long seed = 1;
  for (int i = n - 1; i > 0; i--) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    int j = (int)((seed >> 33) % (unsigned)(i + 1)), s = at[i];
    at[i] = at[j], at[j] = s;
  }
}

/* Every thread to its next barrier, which is one, until all have ended. */
static bool run_block(int threads, emu_way way) {
  int at[MOST], left = threads, apart = 0;
  for (int i = 0; i < threads; i++) at[i] = way == EMU_REVERSE ? threads - 1 - i : i, prepare(&pool[i], i);
  while (left == threads && !apart) {
    if (way == EMU_SHUFFLED) shuffle(at, threads);
    for (int i = 0; i < threads; i++) {
      resume(&pool[at[i]]);
      left -= pool[at[i]].done;
    }
    for (int i = 0; i < threads && left; i++) apart += pool[i].line != pool[0].line;
    if (way == EMU_RACES && left) emu_races_barrier(pool[0].line);
  }
  if (left == 0) return true;
  fprintf(stderr,
          "emulator: block %d: %d of %d threads ended or are elsewhere while the others wait at a barrier\n",
          gq_emu_block, left == threads ? apart : threads - left, threads);
  return false;
}

static int block_at(int i, int blocks, emu_way way) {
  if (way == EMU_BACKWARDS || way == EMU_REVERSE) return blocks - 1 - i;
  return way == EMU_SHUFFLED ? (i % 2 ? blocks - 1 - i / 2 : i / 2) : i;
}

bool emu_launch(const char *name, void (*body)(void *), void *context, int blocks, int threads, size_t shared,
                size_t may_share) {
  emu_way way = emu_way_now();
  bool ok = true;
  char *memory = malloc(shared + 256);
  if (!memory) abort();
  gq_emu_dynamic = (char *)(((size_t)memory + 255) / 256 * 256);
  gq_emu_blocks = blocks, entry = body, entry_context = context;
  most = may_share;
  for (int i = 0; i < blocks && ok; i++) {
    gq_emu_block = block_at(i, blocks, way);
    poisoned_block = -1, taken = shared;
    memset(gq_emu_dynamic, 0xff, shared);
    if (way == EMU_RACES) emu_races_block(name);
    if (way >= EMU_FIBER) ok = run_block(threads, way);
    else body(context);
    if (taken > most) {
      fprintf(stderr, "emulator: %s: a block shares %zu bytes, and %zu are the most\n", name, taken, most);
      ok = false;
    }
  }
  free(memory);
  return ok;
}
