/*
** room.c -- lists that grow by one.
*/
#include "base.h"

#include <limits.h>
#include <string.h>

int gq_room(void *list, int *room, int n, size_t size) {
  if (n < *room) return GQ_OK;
  size_t more = *room ? 2 * (size_t)*room : 32;
  if (more <= (size_t)n) more = (size_t)n + 1;
  void *p;
  memcpy(&p, list, sizeof p); /* of whatever type it is */
  void *q = more > INT_MAX ? NULL : gq_realloc(p, more * size);
  if (!q) return gq_nomem(more * size);
  memcpy(list, &q, sizeof q), *room = (int)more;
  return GQ_OK;
}
