/*
** dispatch.c -- which kernels this processor runs, decided once at run time.
*/
#include "cpu.h"

#include <stdatomic.h>
#include <string.h>

static const gq_kernels *const all[] = {
/* best first */
#if defined(__x86_64__)
  &gq_kernels_avx512,
  &gq_kernels_avx2,
#endif
  &gq_kernels_portable,
};
enum { COUNT = sizeof all / sizeof *all };

static bool supported(const gq_kernels *k) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (k == &gq_kernels_avx2) return avx2;
  if (k == &gq_kernels_avx512)
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
  return k == &gq_kernels_portable;
}

static _Atomic(const gq_kernels *) chosen;

static const gq_kernels *best(void) {
  for (int i = 0; i < COUNT; i++)
    if (supported(all[i])) return all[i];
  return &gq_kernels_portable;
}

const gq_kernels *gq_cpu(void) {
  const gq_kernels *k = atomic_load_explicit(&chosen, memory_order_relaxed);
  if (!k) {
    k = best(); /* two threads find the same */
    atomic_store_explicit(&chosen, k, memory_order_relaxed);
  }
  return k;
}

const gq_kernels *gq_cpu_find(const char *name) {
  for (int i = 0; i < COUNT; i++)
    if (strcmp(all[i]->name, name) == 0) return supported(all[i]) ? all[i] : NULL;
  return NULL;
}

void gq_cpu_use(const gq_kernels *k_) { atomic_store_explicit(&chosen, k_, memory_order_relaxed); }

const char *gq_cpu_kernels(void) { return gq_cpu()->name; }
