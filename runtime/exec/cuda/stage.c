/*
** stage.c -- where the host's numbers wait to travel: as much there as here.
*/
#include "code.h"

struct gq_cuda_stage gq_stage = { .lock = PTHREAD_MUTEX_INITIALIZER };

int gq_cuda_stage_room(size_t bytes) {
  if (bytes <= gq_stage.room) return GQ_OK;
  size_t room = 2 * bytes + 1024;
  char *here = gq_alloc(room), *there = gq_cuda_allocate(room);
  if (!here || !there) {
    gq_free(here);
    gq_cuda_release(there);
    return gq_nomem(room);
  }
  gq_free(gq_stage.here);
  gq_cuda_release(gq_stage.there);
  gq_stage.here = here, gq_stage.there = there, gq_stage.room = room;
  return GQ_OK;
}
