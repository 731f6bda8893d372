/*
** backend.c -- the rows that are there, and tensors that move from one to another.
*/
#include "backend.h"

#include <stdlib.h>
#include <string.h>

#include "tape.h"

static const gq_backend *cpu(void) { return &gq_cpu_backend; }
/* Of tests. */
static const gq_backend *mirror(void) { return getenv("GQ_MIRROR") ? &gq_mirror_backend : NULL; }

/* Nothing is opened but what is asked for. NULL from `open`: not there; `missing` says why. */
static const struct {
  const char *name;
  const gq_backend *(*open)(void);
  const char *(*missing)(void);
} rows[] = {
  { "cpu", cpu, NULL },
  { "cuda", gq_cuda_backend, gq_cuda_missing },
  { "mirror", mirror, NULL },
};
enum { NROWS = sizeof rows / sizeof *rows };

const gq_backend *gq_backend_at(int i) {
  for (int k = 0; k < NROWS; k++) {
    const gq_backend *b = rows[k].open();
    if (b && i-- == 0) return b;
  }
  return NULL;
}

const gq_backend *gq_backend_find(const char *name) {
  for (int k = 0; k < NROWS; k++)
    if (strcmp(name, rows[k].name) == 0) return rows[k].open();
  return NULL;
}

void *gq_share(const gq_backend *b, size_t bytes) {
  void *p = b->device->share(b->device, bytes);
  if (p) memset(p, 0, bytes);
  return p;
}

/* Of "cuda:1" too */
const char *gq_backend_missing(const char *name) {
  for (int k = 0; k < NROWS; k++)
    if (rows[k].missing && strncmp(name, rows[k].name, strlen(rows[k].name)) == 0) return rows[k].missing();
  return "";
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
  if (!x->storage || (x->requires_grad && x->storage->device != d && gq_trace_current()))
    return gq_fail(
      GQ_ESTATE,
      "values stay where they are while a function is traced: move what it captures before the solve");
  GQ_TRY(gq_tensor_on(x, d, &there));
  if (there != x) {
    moved *m = gq_calloc(1, sizeof *m);
    int status = m ? GQ_OK : gq_nomem(sizeof *m);
    if (m) *m = (moved){ { "to", moved_backward, moved_free, false }, x->storage->device };
    if (m) status = gq_record_custom(&m->base, 1, &x, 1, &there);
    if (status != GQ_OK) {
      gq_tensor_unref(there);
      return status;
    }
  }
  *out = there;
  return GQ_OK;
}
