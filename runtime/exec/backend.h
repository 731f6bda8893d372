/*
** backend.h -- what runs programs: one row for each, and where it is asked for. Addresses of a backend's memory may be
** read by its calls alone.
*/
#ifndef GQ_BACKEND_H
#define GQ_BACKEND_H

#include "exec.h"
#include "vec.h"

struct gq_layout;
typedef struct gq_stepjob gq_stepjob;
typedef struct gq_lanejob gq_lanejob;

/* A way to run programs, with a layout and slices of its own. */
typedef struct gq_lowering {
  const char *name;
  bool columns;                /* rows of a slice may be innermost */
  /* slices of so many rows that run side by side, where a row of a value holds `width` numbers, and all rows read one
  ** of `common` */
  int (*slices)(int64_t rows, int64_t width, int64_t common);
  int most;                    /* and how many there may be */
  bool convolutions;           /* there is CONV: products with windows as one instruction */
  /* Which operands of a product must be made contiguous first: bits 0 and 1 of *pack. */
  int (*pack)(gq_dtype d, const struct gq_layout *a, const struct gq_layout *b, int flags, int *pack);
  int (*lower)(gq_program *p); /* plain instructions (compile.h) to p->code, and the size of an arena */
  /* Addresses are of the backend's memory or shared, of which inputs are taken when it returns. It may return before
  ** all is done: who reads what is shared waits first (device->wait). */
  int (*run)(const gq_program *p, int phase, void *arena, void *rest, const void *const *in, void *const *out);
  /* What the run after this thread's next one reads: on its way from far memory meanwhile. NULL: nothing is far */
  void (*soon)(const void *from, size_t bytes);
  /* Slices side by side, or NULL: slice i has arena[i], in + i nin and out + i nout. */
  int (*side)(const gq_program *p, int phase, int n, void *const *arena, const void *const *in, int nin,
              void *const *out, int nout);
  void (*release)(gq_program *p);
  void (*print)(const gq_program *p, int i, gq_text *t);   /* instruction i, behind its name */
} gq_lowering;

struct gq_backend {
  const gq_device *device;     /* its memory */
  const gq_vectors *vec;
  /* One operation but a VIEW, into a contiguous result that is there; all tensors are on the device. */
  int (*apply)(gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_tensor *out);
  const gq_lowering *lowering;
  const char *about;           /* which device it is, in words; NULL: its name says it */
  int (*advance)(gq_stepjob *c);  /* attempts until something halts it, or NULL: it makes them one by one */
  int (*after)(gq_stepjob *c);    /* a later phase of steps that it has made, or NULL */
  /* Samples with steps of their own, all at once, or NULL: as many blocks (method/lane.h) as it can employ,
  ** at most *most. */
  int (*lane_blocks)(gq_lanejob *v, int *most);
  int (*solve_lanes)(gq_lanejob *v); /* until all are solved, or for a while: who calls looks at `busy` */
};

enum { GQ_STEPJOB_STATES = 4, GQ_STEPJOB_READS = 32 };
/* Attempts one after the other, the device decides over each (method/loop.h); or another phase of steps, one after the
** other. Numbers of inputs and outputs are as in `in` and `out`, which are those of an attempt that the host would
** make. fields: all that a device has to know of a step's program and of where its steps read and write,
** told in one call */
struct gq_stepjob {
  int phase;
  void *loop;                  /* the host's gq_loop, as `advance` left it. Of another phase: a record for each step */
  size_t bytes;                /* of the loop, or of a record */
  int attempts, steps;
  const gq_program *prog[2];   /* of each class of slices */
  int nslices;
  const int *class_of;
  void *const *arena;          /* [steps][nslices] */
  int nin, nout;
  const void *const *in;       /* [nslices][nin] */
  void *const *out;            /* [nslices][nout] */
  int nread, nmove, nsum;
  struct { int k; size_t at; } read[GQ_STEPJOB_READS];  /* an input that is in the loop or record, at so many bytes */
  /* What step i reads from at[i] and leaves in at[i + 1]: whole arrays. */
  struct { int in, out; void *const *at; } move[GQ_STEPJOB_STATES];
  int given, ngiven;           /* so many inputs from there on come of the loop's trail, of the states' dtype: */
  gq_dtype state;
  void *const *path;           /* step i reads them from path[i] on, as an attempt does from path[0] on */
  int sum[GQ_STEPJOB_STATES];  /* outputs that the loop judges by */
  /* Before the phase of a step output from + i times the number that its record begins with is
  ** added to output to + i */
  int to, from, nadd;
  const gq_dtype *dtype;       /* [nadd] */
};

/* Boundary values among a program's inputs, the same for all blocks where they are not cut with the samples. */
typedef struct gq_sharing {
  int first, n;
  const int *axis;             /* [n] >= 0: cut */
  gq_dtype state;
  int lanes;
  bool front;                  /* lanes are outermost, else innermost */
} gq_sharing;

/* A solve; back along its records; the adjoint's solve and its quadrature. */
typedef enum gq_lanepass { GQ_PASS_FORWARD, GQ_PASS_DIRECT, GQ_PASS_ADJOINT } gq_lanepass;
enum { GQ_LANEJOB_PROGRAMS = 3 };
struct gq_lanejob {
  void *lanes;                 /* the host's gq_lanesolve, gq_lanedirect or gq_laneadjoint, as `solve_lanes` left it */
  size_t bytes;
  gq_lanepass pass;
  /* Of the slope (direct: of its derivative), phase 0; of a step, phases 0 and 1 (and 2, direct); of points, phase 0, or
  ** NULL. With what the first block has: */
  const gq_program *prog[GQ_LANEJOB_PROGRAMS];
  void *arena[GQ_LANEJOB_PROGRAMS];
  const void *const *in[GQ_LANEJOB_PROGRAMS];
  void *const *out[GQ_LANEJOB_PROGRAMS];
  gq_sharing sharing[GQ_LANEJOB_PROGRAMS];
  const char *room;            /* memory of blocks: what lies there is each block's own, `each` bytes apart */
  size_t each;
  int blocks;
};

extern const gq_backend gq_cpu_backend;
extern const gq_backend gq_mirror_backend;   /* for tests: the CPU behind addresses of its own */

/* Where a tensor's numbers are. */
static inline const gq_backend *gq_backend_of(const gq_tensor *t) {
  const gq_device *d = gq_tensor_device(t);
  return d->backend ? d->backend : &gq_cpu_backend;
}

static inline void *gq_allocate(const gq_backend *b, size_t bytes) { return b->device->allocate(b->device, bytes); }
static inline void gq_release(const gq_backend *b, void *p_) { b->device->release(b->device, p_); }
/* Memory of both sides, zeroed: numbers that programs take from the host and give back to it. */
void *gq_share(const gq_backend *b, size_t bytes);
static inline void gq_unshare(const gq_backend *b, void *p_) { b->device->unshare(b->device, p_); }
static inline void gq_wait(const gq_backend *b) { b->device->wait(b->device); }
static inline void gq_copy(const gq_backend *b, void *dst, const void *src, size_t bytes) {
  b->device->copy(b->device, dst, src, bytes);
}
static inline void gq_zero(const gq_backend *b, void *dst, size_t bytes) { b->device->fill(b->device, dst, 0, bytes); }

/* The first use opens gq_cuda.so (library.c); NULL: it, the driver, a library or a device is missing, and what. */
const gq_backend *gq_cuda_backend(void);
const char *gq_cuda_missing(void);

/* Why a device that this build knows by name is not there; "" where nothing is known. */
const char *gq_backend_missing(const char *name);
/* fn(ctx, 0..n-1) for slices of a batch: on threads, but one after the other for a device that all would ask. */
static inline void gq_each_slice(const gq_backend *b, int n, void (*fn)(void *ctx, int i), void *ctx) {
  if (n > 1 && !b->lowering->side) gq_parallel(n, fn, ctx);
  else
    for (int i = 0; i < n; i++) fn(ctx, i);
}

/* A device by its name, as "cpu"; NULL: there is none. Number i of those that are there, or NULL. */
const gq_backend *gq_backend_find(const char *name);
const gq_backend *gq_backend_at(int i);
/* x on a device, as a recorded operation: its derivative goes back. */
int gq_to_device(gq_tensor *x, const gq_device *d, gq_tensor **out);

#endif
