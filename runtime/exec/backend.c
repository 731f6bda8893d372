/*
** backend.c -- the rows that are there, and tensors that move from one to another.
*/
#include "backend.h"

#include <stdlib.h>
#include <string.h>

#include "tape.h"

/* The last row is for tests: not there but where they ask for it. */
static const gq_backend *const rows[] = { &gq_cpu_backend, &gq_mirror_backend };

const gq_backend *gq_backend_at(int i) {
  int n = getenv("GQ_MIRROR") ? 2 : 1;
  return i >= 0 && i < n ? rows[i] : NULL;
}

const gq_backend *gq_backend_find(const char *name) {
  for (int i = 0; gq_backend_at(i); i++)
    if (strcmp(gq_backend_at(i)->device.name, name) == 0) return gq_backend_at(i);
  return NULL;
}

void *gq_share(const gq_backend *b, size_t bytes) {
  void *p = b->device.share(&b->device, bytes);
  if (p) memset(p, 0, bytes);
  return p;
}

typedef struct moved {
  gq_custom base;
  const gq_device *from;
} moved;

static int moved_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  return cots[0] ? gq_to_device(cots[0], ((moved *)c)->from, &grads[0]) : GQ_OK;
}

static void moved_free(gq_custom *c) { gq_free(c); }

int gq_to_device(gq_tensor *x, const gq_device *d, gq_tensor **out) {
  gq_tensor *there = NULL;
  *out = NULL;
  if (!x->storage)
    return gq_fail(GQ_ESTATE,
                   "a traced value stays on its device: move what a function captures before the solve");
  GQ_TRY(gq_tensor_on(x, d, &there));
  if (there != x) {
    moved *m = gq_calloc(1, sizeof *m);
    int status = m ? GQ_OK : gq_nomem(sizeof *m);
    if (m) *m = (moved){ { "to", moved_backward, moved_free }, x->storage->device };
    if (m) status = gq_record_custom(&m->base, 1, &x, 1, &there);
    if (status != GQ_OK) {
      gq_tensor_unref(there);
      return status;
    }
  }
  *out = there;
  return GQ_OK;
}
