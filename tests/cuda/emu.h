/*
** emu.h -- a GPU on the host: blocks one after the other in some order, threads of a block as the kernel's own loops or as
** fibers that switch at barriers.
*/
#ifndef GQ_EMU_H
#define GQ_EMU_H

#include <stdbool.h>
#include <stddef.h>

typedef enum emu_way { EMU_LOOP, EMU_BACKWARDS, EMU_FIBER, EMU_REVERSE, EMU_SHUFFLED, EMU_NWAY } emu_way;

emu_way emu_way_now(void);             /* $GQ_EMU: loop, backwards, fiber, reverse, shuffled */
/* body(context) is a thread, or where threads are loops a block. false: threads disagree about barriers. */
bool emu_launch(void (*body)(void *), void *context, int blocks, int threads, size_t shared);

#endif
