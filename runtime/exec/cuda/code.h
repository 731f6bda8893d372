/*
** code.h -- what the lowering makes of a program, and the way of the host's numbers to the device: code.c, side.c.
*/
#ifndef GQ_CUDA_CODE_H
#define GQ_CUDA_CODE_H

#include "cuda.h"

#include <pthread.h>

typedef struct gq_tile {
  gq_cufunction f;
  gq_cuda_module *held;
  int threads;                 /* of a block, */
  size_t shared;               /* which shares so many bytes */
  bool rests;                  /* it has values in gq_cuda_code.rest */
} gq_tile;

/* What a kernel makes of phases: one of them; an attempt, and what comes next; the same along a trail; a later phase of steps
** one after the other; a whole solve of lanes: that of the slope, of an attempt, of its interpolant; or its way back: those
** two, the step's derivative, that of the slope; or the adjoint's solve: as a solve, and that of points. */
typedef enum gq_way { GQ_WAY_ONCE, GQ_WAY_ATTEMPT, GQ_WAY_ALONG, GQ_WAY_AFTER, GQ_WAY_LANES, GQ_WAY_DIRECT, GQ_WAY_ADJOINT,
                      GQ_NWAY } gq_way;

/* What the text before a phase leaves without a barrier: nothing, what anyone may have written, times (lane j's by thread
** j). */
enum { GQ_PIECES = 4, GQ_LEAVES_NONE = 0, GQ_LEAVES_ROWS = -1, GQ_LEAVES_TIMES = sizeof(double) };

/* What is around the phases of a kernel: ways.c */
typedef struct gq_wayform {
  const char *name, *sections[8], *begin, *turn, *before[GQ_PIECES], *end;
  int leaves[GQ_PIECES];
  bool follows[GQ_PIECES];        /* the phase before, in the same round and arena */
  bool unread[GQ_PIECES];         /* nobody reads its outputs */
  const char *only[GQ_PIECES];    /* a condition of the phase, where it has instructions */
  size_t fixed;                   /* shared memory of its functions */
  bool lanes;                     /* of rows with steps of their own */
} gq_wayform;
extern const gq_wayform gq_cuda_ways[GQ_NWAY];

enum { GQ_CUDA_SLICES = 1024 };   /* of a batch */

typedef struct gq_cuda_step {
  gq_cufunction group;
  int blocks;
  gq_launch l;
  size_t zero;                 /* bytes of the result to clear first */
  int flag;                    /* which indexing of its phase */
} gq_cuda_step;

typedef struct gq_cuda_code {
  gq_pool own;                 /* its arrays */
  void *constant;              /* on the device */
  /* So many bytes, of whatever tiles run now: values that no other phase reads. Work is done in its order, so that all
  ** arenas have one. */
  char *rest;
  size_t room;
  bool grouped;                /* groups are compiled for running by operations: at the first time */
  gq_cuda_module *groups;
  gq_tile *tile;               /* [nphase] likewise, for slices side by side; then the other ways of phase 0 */
  int *used;                   /* of each phase, [nphase + 1] ends first: inputs, and outputs counted from nin */
  int *indexing;               /* [nphase] how many look at indices */
  gq_cuda_step at[];
} gq_cuda_code;

/* ---- tile.c: a phase as one kernel ---- */

/* Its operands (kernels.h): inputs and outputs that the phase uses, in that order, then these. */
enum { GQ_TILE_ARENA, GQ_TILE_REST, GQ_TILE_CONSTANT, GQ_TILE_FLAGS, GQ_TILE_MORE };
enum { GQ_TILE_DIRECT = 160 };    /* so many are arguments; of more, where they are */
#define GQ_TABLE INT64_MIN
typedef struct gq_operand {
  gq_u64 base;
  int64_t step, turn;
} gq_operand;
typedef struct gq_tile_args {
  gq_u64 loop, sums;              /* of attempts; loop: or of lanes, what gq_lanejob.lanes is */
  gq_u64 at, each;                /* bytes to where the first block's rows are in states, and of a block's rows; or bytes of
                                  ** a step's record, and how many steps there are */
  gq_operand of[];
} gq_tile_args;
typedef struct gq_phase {
  const gq_program *p;
  int phase;
  const gq_sharing *sharing;      /* lanes: which inputs are the same for all blocks */
  const gq_stepjob *job;          /* a later phase of steps: what is added before it */
} gq_phase;
int gq_cuda_tile(gq_way way, int n, const gq_phase *of, gq_tile *out);
static inline gq_tile *gq_cuda_tile_of(const gq_program *p, gq_way way) {
  return &((const gq_cuda_code *)p->code)->tile[p->nphase + way - 1];
}

/* ---- reach.c: who of a block reads and writes what ---- */

/* Bytes from .. to (period: the first `span` of each), of location loc of an instruction, or (-1) of what a reduction shares. each: thread i has number i of
** that size (row: where so many are a multiple of threads); 0: anyone any. own: of lanes, a number each; or all that is so. where: the caller's, of memory that is no other's; GQ_OUTSIDE and above may be in ANYWHERE. */
enum { GQ_ANYWHERE, GQ_NEAR, GQ_ARENA, GQ_SHARED, GQ_OUTSIDE };
typedef struct gq_reach {
  int loc, where;
  bool writes, own;
  int each;
  int64_t row, from, to, span, period;
} gq_reach;
typedef struct gq_reaches {
  int n;
  gq_reach at[2 * GQ_GROUP_VALUES];
} gq_reaches;
void gq_cuda_reaches(const gq_instr *in, const gq_launch *l, gq_reaches *r);
/* Do so many rows of at most GQ_ROW_MOST numbers lie innermost in instruction i, so that a thread a row reads and writes no
** other's? Then the bytes from a row to the next of location loc; 0: all have the same. */
enum { GQ_ROW_MOST = 16 };
bool gq_cuda_by_rows(const gq_program *p, int i, int64_t rows);
int gq_cuda_row_size(const gq_instr *in, int loc);
/* Does a thread read or write what another one writes? */
bool gq_cuda_meet(const gq_reach *a, const gq_reach *b, int threads);

/* ---- stage.c: what travels before a phase and after it ---- */

extern struct gq_cuda_stage {
  pthread_mutex_t lock;
  char *here, *there;
  size_t room;
} gq_stage;
int gq_cuda_stage_room(size_t bytes);
static inline size_t gq_cuda_rounded(size_t bytes) { return (bytes + 15) / 16 * 16; }

/* ---- side.c ---- */

int gq_cuda_side(const gq_program *p, int phase, int n, void *const *arena, const void *const *in, int nin,
                 void *const *out, int nout);
int gq_cuda_advance(gq_stepjob *c);
/* Room for the rest of n tiles. */
int gq_cuda_rest(const gq_program *p, int n);
static inline size_t gq_cuda_rest_bytes(const gq_program *p) { return (p->values - p->lasting + 63) / 64 * 64; }
/* Operands of the rest of an arena, constants and flags, after n others and the arena. */
void gq_cuda_put_rest(const gq_program *p, int n, void *flags, gq_operand *of);
int gq_cuda_tile_launch(const gq_tile *tile, int blocks, const gq_tile_args *args, int n, size_t at);
size_t gq_cuda_args_bytes(int n);
size_t gq_cuda_far_bytes(int n);
int gq_cuda_indexed(int indexing);

/* ---- lanes.c ---- */

int gq_cuda_lane_blocks(gq_lanejob *v, int *most);
int gq_cuda_solve_lanes(gq_lanejob *v);

#endif
