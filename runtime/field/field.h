/*
** field.h -- a traced right-hand side made ready for solvers: what depends on captures alone is
** computed once a solve (the prologue), the rest is cut into slices of rows, one a thread, and turned so
** that the rows of a slice are innermost: a packed state is one block a slice, {.., rows of the slice}.
*/
#ifndef GQ_FIELD_H
#define GQ_FIELD_H

#include "../exec/backend.h"
#include "../exec/exec.h"
#include "diffusion.h"
#include "probe.h"

/* Structure only, no numbers: one field serves every solve of the same structure; fields: one fact about that each. */
typedef struct gq_field {
  gq_pool own;                 /* its arrays but direct */
  const gq_backend *on;        /* what it runs on */
  gq_dtype dtype;              /* of t and the state */
  gq_shape shape;              /* of the state; dimension 1 is the row axis */
  int ncapture;
  int nb;                      /* boundary values: what the body takes from the prologue */
  int *direct;                 /* [nb] the capture that boundary j is, or -1: computed */
  int *axis;                   /* [nb] axis that is sliced with the rows, or -1: every row uses all of it */
  bool *want;                  /* [nb] a gradient is wanted */
  bool *want_capture;          /* [ncapture] */
  gq_graph *pro;               /* captures -> boundary values */
  gq_graph *body;              /* t, z, boundary values -> f (as many outputs as f had) */
  gq_program *pro_run;         /* NULL: every boundary is a capture */
  gq_program *pro_pull;        /* captures, cotangents of computed boundaries -> added to gradients of captures */
  bool *pull_adds;             /* [ncapture] which gradients pro_pull adds to */
  int nslices, nclass;         /* slices differ by one row at most: two sizes, two classes */
  int64_t *first, *count;      /* [nslices] rows */
  int *class_of;               /* [nslices] */
  gq_graph *class_body[2];     /* lent when it is the body itself */
  gq_shape class_shape[2];
  bool columns;                /* rows are innermost in slices (ir/columns.c) */
  bool calls;                  /* f is called back (trace = false): nothing is known of it */
  bool points;                 /* and there is a form for several times at once: gq_field_points */
  int64_t lanes[2];            /* gq_field_lanes: rows side by side in class_body[0], and in class_body[1]; else 0 */
  bool timed;                  /* f depends on t */
  bool front;                  /* lanes are the first dim and not the last */
  int64_t width;               /* most numbers that some value holds for one row */
  gq_noise noise;              /* the body gives drift and diffusion; these are the shapes of the latter and of W */
  gq_shape gshape, wshape;
  int moments;                 /* steps read W and so many - 1 of H and K, */
  int intervals;               /* of the whole step, and then of its halves: 1 or 3; */
  bool levy;                   /* and its Levy areas, {.., m, m} */
  int ndirection;
  void **direction;            /* [ndirection] numbers of the probes' inputs */
  int *probed;                 /* [nb] numbers of a boundary's probe */
  int (*directed)[GQ_PROBE_INPUTS];   /* [nb] which of those a boundary takes: along sides of one length the same */
} gq_field;

/* f: inputs t, z, captures. want_ NULL: no gradients. columns: rows may be turned innermost. */
int gq_field_new(const gq_backend *on, const gq_graph *f, int ncapture, const bool *want_, bool columns,
                 gq_field **out);
/* Of an SDE, drift and diffusion as a script gives them, in the calculus `of`; the field's are those of `to`. Rows are
** turned where the noise has their shape. lanes: as gq_field_lanes. */
int gq_field_noisy(const gq_backend *on, const gq_graph *fg, int ncapture, const bool *want_, gq_noise noise,
                   gq_calculus of, gq_calculus to, bool lanes, gq_field **out);
/* The same for rows at times of their own: no slices; class_body[i] takes t {lanes[i]}, a state {.., lanes[i]} of as
** many rows, and boundaries that are cut with the rows (axis >= 0) likewise. With operations that have no such form
** `front`: {lanes[i], ..}, where a row is the state or boundary with one row. Fails where rows act on each other. */
int gq_field_lanes(const gq_backend *on, const gq_graph *f, int ncapture, const bool *want_, gq_field **out);
void gq_field_free(gq_field *f_);
/* From now on systems of this field can be asked for probes of their products. */
int gq_field_probes(gq_field *f);
/* Of boundary j in programs of a class. */
gq_probe gq_field_probe(const gq_field *f, int cls, int j);
/* Rows that a program takes at once with its values in the cache, if its layers are narrow. */
int64_t gq_field_comfort(const gq_field *f);
const char *gq_field_lowering(const gq_field *f);   /* how its programs run, by name */
/* GQ_OK where no row of f depends on another of the state; else the message tells what mixes them. */
int gq_field_independent(const gq_field *f);
/* The graph over n points at once, rows of a slice of class cls innermost; GQ_EUNSUPPORTED: none. */
int gq_field_points(const gq_field *f, int cls, int64_t n, gq_graph **out);
/* A state between the user's order and that of the slices. Both may be the same memory only if
** gq_field_plain: then there is nothing to turn. */
bool gq_field_plain(const gq_field *f);
void gq_field_pack(const gq_field *f, const void *state, void *packed);
void gq_field_unpack(const gq_field *f, const void *packed, void *state);
void gq_field_unpack_slice(const gq_field *f, int s, const void *packed, void *state);   /* that slice of both */
/* Rows first..first+count of axis between a whole array and a packed slice, in which they are innermost if
** `columns`. */
void gq_field_copy_slice(const gq_backend *on, gq_shape whole, int axis, int64_t first, int64_t count, bool columns,
                         size_t size, char *slice, char *full, bool to_slice);
/* Where number i of a packed state stands in the user's order. */
size_t gq_field_unpacked_index(const gq_field *f, size_t i);
gq_shape gq_field_boundary_shape(const gq_field *f, int j);
gq_dtype gq_field_boundary_dtype(const gq_field *f, int j);
/* Of boundary j in slice s. */
gq_shape gq_field_slice_shape(const gq_field *f, int s, int j);
size_t gq_field_slice_bytes(const gq_field *f, int s, int j);

/* States, packed: their bytes; a copy; sums and products; from the start of one to slice s of it; and numbers of that
** slice. */
static inline size_t gq_part_bytes(const gq_field *f) { return gq_numel(f->shape) * gq_dtype_size(f->dtype); }
static inline void gq_state_copy(const gq_field *f, void *dst, const void *src) {
  gq_copy(f->on, dst, src, gq_part_bytes(f));
}
static inline void gq_state_clear(const gq_field *f, void *x) { gq_zero(f->on, x, gq_part_bytes(f)); }
/* y += s x */
static inline void gq_state_add(const gq_field *f, double s, const void *x, void *y) {
  f->on->vec->axpy(f->dtype, gq_numel(f->shape), s, x, y);
}
static inline double gq_state_dot(const gq_field *f, const void *x, const void *y) {
  return f->on->vec->dot(f->dtype, gq_numel(f->shape), x, y);
}
static inline bool gq_state_finite(const gq_field *f, const void *x) {
  return !f->on->vec->nonfinite(f->dtype, gq_numel(f->shape), x);
}
static inline size_t gq_slice_offset(const gq_field *f, int s) {
  if (f->nslices == 1) return 0;
  return f->first[s] * (gq_numel(f->shape) / f->shape.dim[0]) * gq_dtype_size(f->dtype);
}
/* Of an array whose rows are cut like those of a state: G, W. */
static inline size_t gq_rows_offset(const gq_field *f, int s, gq_shape whole) {
  if (f->nslices == 1) return 0;
  return f->first[s] * (gq_numel(whole) / f->shape.dim[0]) * gq_dtype_size(f->dtype);
}
/* A state of one dimension is one row: all slices have the same noise, but for one of the state's own shape. */
static inline size_t gq_noise_offset(const gq_field *f, int s) {
  return f->noise == GQ_DIAGONAL || f->shape.ndim > 1 ? gq_rows_offset(f, s, f->wshape) : 0;
}
/* What steps read of the path, one after the other: moments of so many bytes, then the Levy areas. */
static inline size_t gq_moment_bytes(const gq_field *f) {
  return f->noise ? (gq_numel(f->wshape) * gq_dtype_size(f->dtype) + 63) & ~(size_t)63 : 0;
}
static inline int64_t gq_levy_numel(const gq_field *f) {
  return f->levy ? gq_numel(f->wshape) * f->wshape.dim[f->wshape.ndim - 1] : 0;
}
static inline size_t gq_slice_bytes(const gq_field *f, int s) {
  return gq_numel(f->class_shape[f->class_of[s]]) * gq_dtype_size(f->dtype);
}
static inline size_t gq_slice_numel(const gq_field *f, int s) { return gq_numel(f->class_shape[f->class_of[s]]); }

#endif
