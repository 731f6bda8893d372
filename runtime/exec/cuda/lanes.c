/*
** lanes.c -- samples with steps of their own, a whole solve as one kernel: a block takes samples into its
** lanes until none is left. What it holds is in the device's memory, so that a launch may end at any round and the next go on.
*/
#include "code.h"

#include <string.h>

enum { SLOPE, STEP, POINTS };

/* Phases of the kernel: the slope, an attempt, its interpolant (and points); back an attempt, its interpolant, its
** derivative, the slope's. */
typedef struct piece {
  int prog, phase;
} piece;
static const struct {
  gq_way way;
  piece at[GQ_PIECES];
} passes[] = {
  [GQ_PASS_FORWARD] = { GQ_WAY_LANES, { { SLOPE, 0 }, { STEP, 0 }, { STEP, 1 }, { POINTS, 0 } } },
  [GQ_PASS_DIRECT] = { GQ_WAY_DIRECT, { { STEP, 0 }, { STEP, 1 }, { STEP, 2 }, { SLOPE, 0 } } },
  [GQ_PASS_ADJOINT] = { GQ_WAY_ADJOINT, { { SLOPE, 0 }, { STEP, 0 }, { STEP, 1 }, { POINTS, 0 } } },
};

static const piece *pieces_of(const gq_lanejob *v, int *n) {
  const piece *x = passes[v->pass].at;
  for (*n = 0; *n < GQ_PIECES && v->prog[x[*n].prog];) ++*n;
  return x;
}

static gq_way way_of(const gq_lanejob *v) { return passes[v->pass].way; }
static gq_tile *tile_of(const gq_lanejob *v) { return gq_cuda_tile_of(v->prog[STEP], way_of(v)); }

int gq_cuda_lane_blocks(gq_lanejob *v, int *most) {
  gq_tile *tile = tile_of(v);
  gq_phase of[GQ_PIECES];
  int n, each;
  const piece *x = pieces_of(v, &n);
  for (int i = 0; i < n; i++) {
    int g = x[i].prog;
    of[i] = (gq_phase){ .p = v->prog[g], .phase = x[i].phase, .sharing = &v->sharing[g] };
  }
  if (!tile->f) GQ_TRY(gq_cuda_tile(way_of(v), n, of, tile));
  GQ_TRY(gq_cuda_check(gq_cu.occupancy(&each, tile->f, tile->threads, tile->shared),
                       "cuOccupancyMaxActiveBlocksPerMultiprocessor"));
  int fit = (each > 1 ? each : 1) * gq_cuda.processors;
  if (fit < *most) *most = fit;
  return GQ_OK;
}

static gq_operand operand_at(const gq_lanejob *v, const void *at) {
  const char *p = at;
  bool own = p >= v->room && p < v->room + v->each;
  return (gq_operand){ gq_far(p), own ? (int64_t)v->each : 0, 0 };
}

static int used_by(const gq_lanejob *v, piece x, const int **used) {
  const gq_program *p = v->prog[x.prog];
  const gq_cuda_code *c = p->code;
  if (x.phase >= p->nphase) return 0;
  *used = c->used + c->used[x.phase];
  return c->used[x.phase + 1] - c->used[x.phase];
}

static void put_operands(const gq_lanejob *v, void *flags, gq_operand *of) {
  int count;
  const piece *x = pieces_of(v, &count);
  for (int i = 0; i < count; i++) {
    const int *used = NULL;
    int g = x[i].prog, n = used_by(v, x[i], &used), nin = v->prog[g]->nin;
    for (int u = 0; u < n; u++)
      of[u] = operand_at(v, used[u] < nin ? v->in[g][used[u]] : v->out[g][used[u] - nin]);
    of[n + GQ_TILE_ARENA] = operand_at(v, v->arena[g]);
    gq_cuda_put_rest(v->prog[g], n, flags, of);
    of += n + GQ_TILE_MORE;
  }
}

static int indexing(const gq_lanejob *v) {
  int most = 0, count;
  const piece *x = pieces_of(v, &count);
  for (int i = 0; i < count; i++) {
    const gq_program *p = v->prog[x[i].prog];
    int n = x[i].phase < p->nphase ? ((const gq_cuda_code *)p->code)->indexing[x[i].phase] : 0;
    if (n > most) most = n;
  }
  return most;
}

static int solve_lanes(gq_lanejob *v, int n) {
  size_t at = gq_cuda_rounded(v->bytes), far = gq_cuda_far_bytes(n);
  _Alignas(8) char room[gq_cuda_args_bytes(n)];
  gq_tile_args *args = (gq_tile_args *)(void *)room;
  void *flags = NULL;
  for (int g = 0; g < GQ_LANEJOB_PROGRAMS; g++)
    if (v->prog[g] && tile_of(v)->rests) GQ_TRY(gq_cuda_rest(v->prog[g], v->blocks));
  GQ_TRY(gq_cuda_stage_room(at + far));
  if (indexing(v)) GQ_TRY(gq_cuda_flag(0, &flags));
  *args = (gq_tile_args){ .loop = gq_far(gq_stage.there) };
  put_operands(v, flags, args->of);
  memcpy(gq_stage.here, v->lanes, v->bytes);
  if (far) memcpy(gq_stage.here + at, args->of, (size_t)n * sizeof(gq_operand));
  GQ_TRY(gq_cuda_put(gq_stage.there, gq_stage.here, at + far));
  GQ_TRY(gq_cuda_tile_launch(tile_of(v), v->blocks, args, n, at));
  GQ_TRY(gq_cuda_get(v->lanes, gq_stage.there, v->bytes));
  return gq_cuda_indexed(indexing(v));
}

int gq_cuda_solve_lanes(gq_lanejob *v) {
  int n = 0, count;
  const int *used;
  const piece *x = pieces_of(v, &count);
  for (int i = 0; i < count; i++) n += used_by(v, x[i], &used) + GQ_TILE_MORE;
  pthread_mutex_lock(&gq_stage.lock);
  int status = solve_lanes(v, n);
  pthread_mutex_unlock(&gq_stage.lock);
  return status;
}
