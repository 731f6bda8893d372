/*
** backend.c -- the rows that are there, and tensors that move from one to another.
*/
#include "backend.h"

#include <stdlib.h>
#include <string.h>

#include "tape.h"

/* The mirror is for tests: not there but where they ask for it. */
const gq_backend *gq_backend_at(int i) {
  const gq_backend *rows[3] = { &gq_cpu_backend };
  int n = 1;
  if (gq_cuda_backend()) rows[n++] = gq_cuda_backend();
  if (getenv("GQ_MIRROR")) rows[n++] = &gq_mirror_backend;
  return i >= 0 && i < n ? rows[i] : NULL;
}

/* Opens nothing but what is asked for. */
const gq_backend *gq_backend_find(const char *name) {
  if (strcmp(name, gq_cpu_backend.device->name) == 0) return &gq_cpu_backend;
  if (strcmp(name, "cuda") == 0) return gq_cuda_backend();
  if (strcmp(name, gq_mirror_backend.device->name) == 0 && getenv("GQ_MIRROR")) return &gq_mirror_backend;
  return NULL;
}

void *gq_share(const gq_backend *b, size_t bytes) {
  void *p = b->device->share(b->device, bytes);
  if (p) memset(p, 0, bytes);
  return p;
}

const char *gq_backend_missing(const char *name) {
  return strncmp(name, "cuda", 4) == 0 ? gq_cuda_missing() : "";
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
