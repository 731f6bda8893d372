/*
** pool.c -- blocks that go together, cut from a few larger ones.
*/
#include "base.h"

#include <string.h>

#ifdef __SANITIZE_ADDRESS__
enum { LEAST = 0 }; /* each by itself: who writes past one is found */
#else
enum { LEAST = 1 << 10 };
#endif

struct gq_pooled {
  struct gq_pooled *before;
  size_t used, room; /* bytes of what lies behind the first line */
};

void *gq_pooled(gq_pool *p, size_t count, size_t size) {
  struct gq_pooled *b = p->last;
  size_t bytes, line = gq_round64(sizeof *b);
  if (p->wanted) return NULL;
  if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX / 4)
    return p->wanted = PTRDIFF_MAX, NULL;
  bytes = (bytes + 16) / 16 * 16; /* nothing has an address, too */
  if (!b || b->used + bytes > b->room) {
    size_t room = !b || LEAST == 0 ? LEAST : 2 * b->room;
    if (room < bytes) room = bytes;
    b = gq_alloc(line + room);
    if (!b) return p->wanted = bytes, NULL;
    *b = (struct gq_pooled){ p->last, 0, room };
    p->last = b;
  }
  char *at = (char *)b + line + b->used;
  b->used += bytes;
  return memset(at, 0, bytes);
}

int gq_pool_status(const gq_pool *p) { return p->wanted ? gq_nomem(p->wanted) : GQ_OK; }

void gq_pool_free(gq_pool *p) {
  for (struct gq_pooled *b = p->last, *before; b; b = before) {
    before = b->before;
    gq_free(b);
  }
  *p = (gq_pool){ 0 };
}
