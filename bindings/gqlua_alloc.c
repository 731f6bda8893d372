/*
** gqlua_alloc.c -- the allocator of ./gqlua's Lua state: small objects come from one block, by size, and wait in lists
** when they are freed. malloc joins what a collector frees and splits it again for the next step of a training.
*/
#include "gqlua.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STEP = 16, SMALL = 0 }; /* what is freed is never to be touched again */
#else
enum { STEP = 16, SMALL = 256 }; /* bytes: sizes go up by STEP, to SMALL */
#endif
#define ROOM ((size_t)64 << 20) /* pages are the system's until they are touched; beyond it malloc serves */

typedef struct spare {
  struct spare *next;
} spare;

static struct {
  char *base, *next;
  spare *list[SMALL / STEP + 1];
} pool;

static size_t steps(size_t size) { return (size + STEP - 1) / STEP; }
static bool ours(const void *p) {
  return pool.base && (const char *)p >= pool.base && (const char *)p < pool.base + ROOM;
}

static void *take(size_t size) {
  spare **list = &pool.list[steps(size)], *p = *list;
  if (p) return *list = p->next, p;
  if (!pool.base && !(pool.base = pool.next = malloc(ROOM))) return NULL;
  size_t bytes = steps(size) * STEP;
  if (bytes > (size_t)(pool.base + ROOM - pool.next)) return NULL;
  return pool.next += bytes, pool.next - bytes;
}

static void give(void *p, size_t size) {
  if (!ours(p)) free(p);
  else ((spare *)p)->next = pool.list[steps(size)], pool.list[steps(size)] = p;
}

void *gqlua_alloc(void *unused, void *p, size_t old, size_t size) {
  (void)unused;
  if (p && size == 0) return give(p, old), NULL;
  if (size == 0 || (ours(p) && steps(size) == steps(old))) return p;
  if (size > SMALL && !ours(p)) return realloc(p, size);
  void *q = size <= SMALL ? take(size) : NULL;
  if (!q && !(q = malloc(size)))
    return p && size <= old ? p : NULL; /* Lua takes it that shrinking cannot fail */
  if (!p) return q;
  memcpy(q, p, old < size ? old : size);
  give(p, old);
  return q;
}
