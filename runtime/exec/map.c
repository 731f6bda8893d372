/*
** map.c -- pointers to numbers: open addressing, linear probing, at most half full.
*/
#include "node.h"

#include <string.h>

static size_t place(const gq_map *m, const void *key) {
  uint64_t h = (uint64_t)(uintptr_t)key * 0x9e3779b97f4a7c15u; /* Fibonacci hashing, Knuth 6.4 */
  size_t i = (size_t)(h >> 32) & (m->size - 1);
  while (m->key[i] && m->key[i] != key) i = (i + 1) & (m->size - 1);
  return i;
}

int32_t *gq_map_find(const gq_map *m, const void *key) {
  if (m->size == 0) return NULL;
  size_t i = place(m, key);
  return m->key[i] ? &m->value[i] : NULL;
}

static int grow(gq_map *m) {
  gq_map big = { .size = m->size ? 2 * m->size : 64 };
  big.key = gq_calloc(big.size, sizeof *big.key);
  big.value = gq_calloc(big.size, sizeof *big.value);
  if (!big.key || !big.value) {
    gq_map_free(&big);
    return gq_nomem(big.size * sizeof *big.key);
  }
  for (size_t i = 0; i < m->size; i++)
    if (m->key[i]) {
      size_t k = place(&big, m->key[i]);
      big.key[k] = m->key[i];
      big.value[k] = m->value[i];
    }
  big.count = m->count;
  gq_map_free(m);
  *m = big;
  return GQ_OK;
}

int gq_map_set(gq_map *m, const void *key, int32_t value) {
  if (2 * (m->count + 1) > m->size) GQ_TRY(grow(m));
  size_t i = place(m, key);
  if (!m->key[i]) {
    m->key[i] = key;
    m->count++;
  }
  m->value[i] = value;
  return GQ_OK;
}

void gq_map_free(gq_map *m) {
  gq_free(m->key);
  gq_free(m->value);
  *m = (gq_map){ 0 };
}
