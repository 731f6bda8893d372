/*
** evaluate.h -- systems compiled and run outside of steps: at one point, or at many points at once.
*/
#ifndef GQ_EVALUATE_H
#define GQ_EVALUATE_H

#include "binding.h"
#include "system.h"

/* One program a class. */
typedef struct gq_code {
  gq_program *prog[2];
} gq_code;
/* Compile the system for a class; outs: [n]. */
int gq_code_add(const gq_field *f, gq_code *c, int cls, const gq_graph *g, int n, const gq_outspec *outs);
void gq_code_free(gq_code *c);
size_t gq_code_arena(const gq_code *c);        /* bytes that serve every class */
size_t gq_code_lasting(const gq_code *c);      /* and of what other phases read, where the rest is apart */
/* Run on every slice; in and out: [nslices][stride] pointers. soon_: the arenas that are run in after. */
int gq_code_run(const gq_field *f, const gq_code *c, int phase, void *const *arena, void *const *rest,
                void *const *soon_, const void *const *in, int nin, void *const *out, int nout);

/* An arena of so many bytes a slice, on the field's backend; NULL: none left. */
void **gq_arenas_new(const gq_field *f, size_t bytes);
void gq_arenas_free(const gq_field *f, void **arena_);

/* The memory that the evaluators of a field run in, one at a time. */
typedef struct gq_scratch {
  const gq_field *field;
  size_t bytes;                /* of an arena */
  void **arena;                /* [nslices] */
  void *table;                 /* pointers of one evaluation */
  size_t room;
  double *shared;              /* its time, tolerances, and [nslices] derivatives in time: as programs have them */
} gq_scratch;
void gq_scratch_done(gq_scratch *m);

/* A system's outputs at one point (or, for nodes, at many). */
typedef struct gq_evaluator {
  gq_scratch *scratch;
  int parts;                   /* outputs that are stored; then nq products, added */
  int states;                  /* inputs after t that have the state's shape */
  int directions;              /* inputs after the boundary values, and then */
  bool defect;                 /* nodes: three for the defect */
  int nq, nin, nout;
  int points;                  /* nodes: how many at once */
  bool columns;                /* nodes: their states stand side by side, {.., n rows of the slice} */
  bool diffusion;              /* output 1 is that of an SDE */
  int *of;                     /* [nq] boundary values; of nodes then [parts]: of the probes and their sizes,
                               ** -1: the defect */
  gq_code code;
} gq_evaluator;
/* Compiled for every class, and room made in the scratch memory; on failure e is empty. */
int gq_evaluator_new(gq_scratch *m, gq_make *make, const void *arg, gq_evaluator *e);
void gq_evaluator_done(gq_evaluator *e);
/* Pointers of slice s in the scratch memory: boundaries and products are set, the others the caller's. */
void gq_evaluator_bind(const gq_evaluator *e, const gq_binding *b, int s, const gq_grads *grads, const void ***in,
                       void ***out);

/* Run an evaluator at time t. x[i]: the state-shaped inputs (z; z and a; ...), out[p]: whole arrays of
** all slices; of an SDE, out[1] and x[2] are those of the diffusion;
** products are added to grads_ (boundaries) and *time_ (time). */
int gq_evaluate_at(const gq_evaluator *e, const gq_binding *b, double t, void *const *x, void *const *out,
                   const gq_grads *grads_, double *time_);
/* The same, one phase of it. */
int gq_evaluate_phase(const gq_evaluator *e, const gq_binding *b, int phase, double t, void *const *x, void *const *out,
                      const gq_grads *grads_, double *time_);
/* A node program: t [rows], z [nslices] blocks of rows states (or, columns, those side by side), likewise
** a; products added to grads. For the defect slope_ likewise, z' of the path, and the tolerance, rtol and atol. probe_
** [nslices]: blocks that hold what is stored one after another, or NULL where that is nothing: the probes, the defect
** if there is one, and the probes' sizes. */
int gq_evaluate_nodes(const gq_evaluator *e, const gq_binding *b, const void *t, void *const *z, void *const *a,
                      void *const *slope_, const double tolerance[2], const gq_grads *grads, void *const *probe_);
/* Probes of a node program; numbers that what is stored at i has for one node,
** and bytes it takes for `points` nodes. */
int gq_probe_count(const gq_evaluator *e);
size_t gq_probe_size(const gq_evaluator *e, int i);
gq_dtype gq_probe_dtype(const gq_evaluator *e, int i);
size_t gq_probe_bytes(const gq_evaluator *e, int i, int points);

#endif
