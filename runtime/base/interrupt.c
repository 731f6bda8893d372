/*
** interrupt.c -- the flag that Ctrl-C sets and every step polls.
*/
#include "base.h"

#include <stdatomic.h>

static atomic_int flag; /* lock-free, so a signal handler may set it and any thread may read it */

void gq_interrupt(void) { atomic_store_explicit(&flag, 1, memory_order_relaxed); }
bool gq_interrupted(void) { return atomic_load_explicit(&flag, memory_order_relaxed) != 0; }
void gq_interrupt_clear(void) { atomic_store_explicit(&flag, 0, memory_order_relaxed); }
