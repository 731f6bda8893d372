/*
** emu.h -- a GPU on the host: blocks one after the other in some order, threads of a block as the kernel's own loops or as
** fibers that switch at barriers.
*/
#ifndef GQ_EMU_H
#define GQ_EMU_H

#include <stdbool.h>
#include <stddef.h>

typedef enum emu_way { EMU_LOOP, EMU_BACKWARDS, EMU_FIBER, EMU_REVERSE, EMU_SHUFFLED, EMU_RACES,
                       EMU_NWAY } emu_way;

emu_way emu_way_now(void);             /* $GQ_EMU: loop, backwards, fiber, reverse, shuffled, races */
/* body(context) is a thread, or where threads are loops a block, which shares so many bytes that the launch gives, and with
** those of the kernel's own at most may_share. false: it shares more, or threads disagree about barriers. */
bool emu_launch(const char *name, void (*body)(void *), void *context, int blocks, int threads, size_t shared,
                size_t may_share);

extern int gq_emu_block, *gq_emu_thread;

/* races.c: the next block of a kernel; all of its threads have come to a barrier. libcuda.c: the device's memory. */
void emu_races_block(const char *name);
void emu_races_barrier(int line);
bool emu_owns(const void *at);

#endif
