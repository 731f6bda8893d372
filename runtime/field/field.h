/*
** field.h -- a traced right-hand side made ready for solvers: what depends on captures alone is
** computed once a solve (the prologue), the rest is cut into slices of rows, one a thread, and turned so
** that the rows of a slice are innermost: a packed state is one block a slice, {.., rows of the slice}.
*/
#ifndef GQ_FIELD_H
#define GQ_FIELD_H

#include "../exec/exec.h"

#define GQ_MAXSLICES 64

/* Structure only, no numbers: one field serves every solve of the same structure. */
typedef struct gq_field {
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
  int64_t first[GQ_MAXSLICES], count[GQ_MAXSLICES];
  int class_of[GQ_MAXSLICES];
  gq_graph *class_body[2];     /* lent when it is the body itself */
  gq_shape class_shape[2];
  bool columns;                /* rows are innermost in slices (ir/columns.c) */
  bool calls;                  /* f is called back (trace = false): nothing is known of it */
  bool points;                 /* and there is a form for several times at once: gq_field_points */
  int64_t lanes[2];            /* gq_field_lanes: rows side by side in class_body[0], and in class_body[1]; else 0 */
  bool front;                  /* lanes are the first dim and not the last */
  int64_t width;               /* most numbers that some value holds for one row */
} gq_field;

/* f: inputs t, z, captures. want_ NULL: no gradients. columns: rows may be turned innermost. */
int gq_field_new(const gq_graph *f, int ncapture, const bool *want_, bool columns, gq_field **out);
/* The same for rows at times of their own: no slices; class_body[i] takes t {lanes[i]}, a state {.., lanes[i]} of as
** many rows, and boundaries that are cut with the rows (axis >= 0) likewise. With operations that have no such form
** `front`: {lanes[i], ..}, where a row is the state or boundary with one row. Fails where rows act on each other. */
int gq_field_lanes(const gq_graph *f, int ncapture, const bool *want_, gq_field **out);
void gq_field_free(gq_field *f_);
/* Rows that a program takes at once with its values in the cache, if its layers are narrow. */
int64_t gq_field_comfort(const gq_field *f);
/* GQ_OK where no row of f depends on another of the state; else the message tells what mixes them. */
int gq_field_independent(const gq_field *f);
/* The graph over n points at once, rows of a slice of class cls innermost; GQ_EUNSUPPORTED: none. */
int gq_field_points(const gq_field *f, int cls, int64_t n, gq_graph **out);
/* A state between the user's order and that of the slices. Both may be the same memory only if
** gq_field_plain: then there is nothing to turn. */
bool gq_field_plain(const gq_field *f);
void gq_field_pack(const gq_field *f, const void *state, void *packed);
void gq_field_unpack(const gq_field *f, const void *packed, void *state);
/* Where number i of a packed state stands in the user's order. */
size_t gq_field_unpacked_index(const gq_field *f, size_t i);
gq_shape gq_field_boundary_shape(const gq_field *f, int j);
gq_dtype gq_field_boundary_dtype(const gq_field *f, int j);

/* The numbers of one solve. */
typedef struct gq_binding {
  const gq_field *field;
  gq_tensor **capture;         /* [ncapture] packed, referenced */
  void *block;                 /* computed boundaries and slices that had to be copied */
  size_t bytes;
  const void **value;          /* [nslices][nb] */
} gq_binding;
int gq_binding_new(const gq_field *f, gq_tensor *const *capture, gq_binding **out);
void gq_binding_free(gq_binding *b_);

/* Gradient accumulators of the wanted boundary values, one set a slice where slices would collide. */
typedef struct gq_grads {
  const gq_field *field;
  void *block;
  size_t bytes;
  void **at;                   /* [nslices][nb], NULL where not wanted */
  gq_tensor **whole;           /* [ncapture] what slice 0 adds to where that is the result itself, or NULL */
} gq_grads;
/* results: for gq_grads_collect, with captures that are used as they are summed where they are returned. */
int gq_grads_new(const gq_field *f, bool results, gq_grads *g);
int gq_grads_vectors(const gq_field *f, gq_grads *g);      /* of the vectors among them alone */
/* Root mean square of x - y_ over all that x has, slices summed. */
double gq_grads_rms(const gq_field *f, const gq_grads *x, const gq_grads *y_);
void gq_grads_add(const gq_field *f, const gq_grads *x, const gq_grads *to);
void gq_grads_done(gq_grads *g);
/* Sum the slices and pull back through the prologue: grad[i], a tensor for each wanted capture; g is used up. */
int gq_grads_collect(const gq_binding *b, gq_grads *g, gq_tensor **grad);

/* Run a code (one program a class) on every slice; in and out: [nslices][stride] pointers. */
typedef struct gq_code {
  gq_program *prog[2];
} gq_code;
void gq_code_free(gq_code *c);
size_t gq_code_arena(const gq_code *c);        /* bytes that serve every class */
int gq_code_run(const gq_field *f, const gq_code *c, int phase, void *const *arena,
                const void *const *in, int nin, void *const *out, int nout);

#endif
