/*
** races.c -- what threads of a block do to each other's numbers between barriers. Kernels come from gcc's
** -fsanitize=thread, whose calls end here: each byte knows who read and wrote it in this interval and in the one before.
** Two threads of which one writes, in one interval, are a race; in neighbouring ones, what the barrier between is for.
** A fence gives to other blocks what all threads wrote before it, so that it reads them.
*/
#include "emu.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOBODY = -1, SOME = -2, PAGE = 4096, PAGES = 1 << 16, BARRIERS = 1 << 12, MOST_TOLD = 20 };

typedef struct slot {
  unsigned interval;
  short writer, reader;
} slot;

typedef struct page {
  struct page *next;
  uintptr_t at;
  slot of[PAGE][2];
} page;

typedef struct barrier {
  const char *kernel;
  int line;
  long passed;
  bool needed;
} barrier;

static page *pages[PAGES];
static barrier barriers[BARRIERS];
static int nbarrier, told;
static unsigned interval;
static short writer[2]; /* of the device's memory, in this interval and the one before */
static short giver;     /* who gave away in this interval what all had written */
static const char *kernel;
static barrier *between;

static void tell(void) {
  for (int i = 0; i < nbarrier; i++)
    fprintf(stderr, "races: %s: the barrier of line %d, passed %ld times, is %s\n", barriers[i].kernel,
            barriers[i].line, barriers[i].passed, barriers[i].needed ? "needed" : "needless");
  fprintf(stderr, "races: %d\n", told);
}

static barrier *barrier_of(int line) {
  for (int i = 0; i < nbarrier; i++)
    if (barriers[i].line == line && barriers[i].kernel == kernel) return &barriers[i];
  if (nbarrier == BARRIERS) abort();
  if (nbarrier == 0) atexit(tell);
  barriers[nbarrier] = (barrier){ .kernel = kernel, .line = line };
  return &barriers[nbarrier++];
}

static void next(void) {
  interval++;
  writer[interval & 1] = giver = NOBODY;
}

void emu_races_block(const char *name) {
  kernel = name, between = NULL;
  next(), next();
}

void emu_races_barrier(int line) {
  between = barrier_of(line);
  between->passed++;
  next();
}

static void race(const char *what, const void *at) {
  if (told++ < MOST_TOLD)
    fprintf(stderr, "races: %s, block %d, thread %d, after the barrier of line %d: %s at %p is another's\n",
            kernel, gq_emu_block, *gq_emu_thread, between ? between->line : 0, what, at);
}

static page *page_of(uintptr_t at) {
  page **p = &pages[at / PAGE % PAGES];
  page *new = NULL;
  for (; *p; p = &(*p)->next)
    if ((*p)->at == at / PAGE) return *p;
  *p = new = calloc(1, sizeof *new);
  if (!new) abort();
  new->at = at / PAGE;
  return new;
}

static bool others(short who, int me) { return who != NOBODY && who != me; }

static void join(short *who, int me) { *who = others(*who, me) ? SOME : (short)me; }

static bool meets(const slot *s, int me, bool writes) {
  return others(s->writer, me) || (writes && others(s->reader, me));
}

static void touch(uintptr_t at, bool writes) {
  page *p = page_of(at);
  slot *now = &p->of[at % PAGE][interval & 1], *before = &p->of[at % PAGE][~interval & 1];
  int me = *gq_emu_thread;
  if (now->interval != interval) *now = (slot){ interval, NOBODY, NOBODY };
  if (meets(now, me, writes)) race(writes ? "what it writes" : "what it reads", (void *)at);
  if (between && before->interval == interval - 1 && meets(before, me, writes)) between->needed = true;
  join(writes ? &now->writer : &now->reader, me);
}

void gq_emu_fence(void) {
  int me = *gq_emu_thread;
  if (others(writer[interval & 1], me)) race("what it gives away", NULL);
  if (between && others(writer[~interval & 1], me)) between->needed = true;
  join(&giver, me);
}

static void range(const void *at, size_t n, bool writes) {
  if (writes && emu_owns(at)) {
    if (others(giver, *gq_emu_thread)) race("what it writes, which was given away before,", at);
    join(&writer[interval & 1], *gq_emu_thread);
  }
  for (size_t i = 0; i < n; i++) touch((uintptr_t)at + i, writes);
}

/* ---- the compiler's calls ---- */

#define ACCESS(n)                                                \
  void __tsan_read##n(void *p) { range(p, n, false); }           \
  void __tsan_write##n(void *p) { range(p, n, true); }           \
  void __tsan_unaligned_read##n(void *p) { range(p, n, false); } \
  void __tsan_unaligned_write##n(void *p) { range(p, n, true); } \
  void __tsan_volatile_read##n(void *p) { range(p, n, false); }  \
  void __tsan_volatile_write##n(void *p) { range(p, n, true); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *p, long n) { range(p, (size_t)n, false); }
void __tsan_write_range(void *p, long n) { range(p, (size_t)n, true); }
void __tsan_func_entry(void *p) {}
void __tsan_func_exit(void *p) {}
void __tsan_init(void) {}
