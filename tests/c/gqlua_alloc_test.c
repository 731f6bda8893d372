/*
** gqlua_alloc_test.c -- the allocator of ./gqlua's Lua state: blocks of all sizes grow, shrink and go in any order, those
** of malloc among them, keep what they hold and do not overlap.
*/
#include "../../bindings/gqlua_alloc.c"
#include "check.h"

#include <stdint.h>

enum { N = 400, TURNS = 200000, MOST = 600 };

static void test_churn(void) {
  static unsigned char *p[N];
  static size_t n[N];
  uint32_t draw = 7;
  int wrong = 0;
  for (int i = 0; i < N / 2; i++) p[i] = malloc(n[i] = i + 1), memset(p[i], i % 251, n[i]);
  for (int turn = 0; turn < TURNS + N; turn++) {
    draw = draw * 1664525u + 1013904223u;
    int i = turn < TURNS ? (int)(draw >> 8) % N : turn - TURNS;
    size_t size = turn < TURNS ? (draw >> 16) % (draw & 1 ? 40 : MOST) : 0, kept = n[i] < size ? n[i] : size;
    p[i] = gqlua_alloc(NULL, p[i], p[i] ? n[i] : 5, size); /* 5: a kind of object */
    wrong += (p[i] == NULL) != (size == 0) || (uintptr_t)p[i] % 16 != 0;
    for (size_t k = 0; k < kept; k++) wrong += p[i][k] != i % 251;
    if (size) memset(p[i], i % 251, size);
    n[i] = size;
  }
  CHECK(wrong == 0);
}

static void test_reuse(void) {
  void *a = gqlua_alloc(NULL, NULL, 0, 100), *b = gqlua_alloc(NULL, a, 100, 112);
  CHECK(a && (SMALL == 0 || a == b)); /* one size */
  gqlua_alloc(NULL, b, 112, 0);
  void *c = gqlua_alloc(NULL, NULL, 0, 99);
  CHECK(c && (SMALL == 0 || c == a));
  gqlua_alloc(NULL, c, 99, 0);
}

/* More than the room: malloc serves. */
static void test_full(void) {
  if (SMALL == 0) return;
  char *next = pool.next;
  memset(pool.list, 0, sizeof pool.list);
  pool.next = pool.base + ROOM - 20;
  char *a = gqlua_alloc(NULL, NULL, 0, 16), *b = gqlua_alloc(NULL, NULL, 0, 16);
  CHECK(ours(a) && b && !ours(b));
  memset(b, 1, 16);
  char *c = gqlua_alloc(NULL, b, 16, 200);
  CHECK(c && !ours(c) && c[15] == 1);
  gqlua_alloc(NULL, c, 200, 0);
  gqlua_alloc(NULL, a, 16, 0);
  pool.next = next;
}

int main(void) {
  RUN(test_churn());
  RUN(test_reuse());
  RUN(test_full());
  return DONE();
}
