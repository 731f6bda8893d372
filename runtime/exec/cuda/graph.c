/*
** graph.c -- launches that recur as one: the second time they are captured as a CUDA graph, which is launched from then on.
** A graph keeps its addresses: what comes from elsewhere, as tensors of the last step do that nobody has collected yet, is
** copied to where the graph reads it, and back, together with other vectors (queue.c). The capture has a stream of its own, so
** that nobody else's work falls into it.
*/
#include "code.h"

#include <stdlib.h>
#include <string.h>

/* So many graphs are kept, in sets of WAYS. One that is used is not given up before PATIENCE others asked for its place: of
** more that come in turn some stay. */
enum { GRAPHS = 512, WAYS = 4, PATIENCE = 8 };
enum { MOST = 1 << 18 };    /* bytes that are copied rather than launched one by one */
enum { CAPTURE_LOCAL = 1 }; /* CU_STREAM_CAPTURE_MODE_THREAD_LOCAL */

typedef struct graph {
  const void *owner, *arena, *rest;
  int phase, n, life;
  bool tf32, seen, never; /* seen: once at least */
  void **at, **own;       /* [n] as they were; copies, or NULL */
  gq_cugraph_exec ready;
} graph;

static graph graphs[GRAPHS];
static gq_custream stream; /* of captures */
static bool off;

/* ---- the cache ---- */

static void free_ready(graph *g) {
  if (g->ready && gq_cuda_usable() == GQ_OK)
    gq_cuda_later(gq_cuda_check(gq_cu.graph_free(g->ready), "cuGraphExecDestroy"));
  g->ready = NULL;
}

/* Bytes past a multiple of 16, by which products have their algorithms. */
static size_t past(const void *p) { return (uintptr_t)p % 16; }

static void drop(graph *g) {
  free_ready(g);
  for (int i = 0; i < g->n; i++)
    if (g->own[i]) gq_cuda_release((char *)g->own[i] - past(g->own[i]));
  free(g->at);
  *g = (graph){ 0 };
}

/* Its place, which is new where it is not known; NULL: there is none for now. Its own books: not gq_alloc. */
static graph *place_of(const gq_recurring *r) {
  uint64_t h =
    gq_mix(gq_mix((uint64_t)(uintptr_t)r->owner + (uint64_t)r->phase) ^ (uint64_t)(uintptr_t)r->arena);
  graph *set = &graphs[h % (GRAPHS / WAYS) * WAYS], *least = set;
  for (graph *g = set; g < set + WAYS; g++) {
    if (g->owner == r->owner && g->phase == r->phase && g->arena == r->arena && g->rest == r->rest &&
        g->tf32 == *gq_core->tf32)
      return g;
    if (g->life < least->life) least = g;
  }
  if (least->life-- > 0) return NULL;
  drop(least);
  void **at = calloc(2 * (size_t)r->n + 1, sizeof *at);
  if (!at) return NULL;
  memcpy(at, r->at, (size_t)r->n * sizeof *at);
  *least =
    (graph){ r->owner, r->arena, r->rest, r->phase, r->n, 0, *gq_core->tf32, .at = at, .own = at + r->n };
  return least;
}

void gq_cuda_forget(const void *owner) {
  for (graph *g = graphs; g < graphs + GRAPHS; g++)
    if (g->owner == owner) drop(g);
}

/* ---- capturing ---- */

static bool wanted(void) {
  const char *given = getenv("GQ_CUDA_GRAPHS");
  return !off && !(given && strcmp(given, "0") == 0);
}

/* What is elsewhere now has a copy from now on, if it is small: one that lies as it did when it ran plainly, so that products
** are the same ones. No algorithm can be chosen during a capture. */
static void settle(graph *g, const gq_recurring *r) {
  for (int i = 0; i < r->n && !g->never; i++) {
    if (g->own[i] || g->at[i] == r->at[i]) continue;
    free_ready(g);
    char *copy = r->bytes[i] <= MOST ? gq_cuda_allocate(r->bytes[i] + past(g->at[i])) : NULL;
    g->own[i] = copy ? copy + past(g->at[i]) : NULL;
    g->never = !copy;
  }
}

/* An error that ends it, or GQ_OK; *done: there is a graph. */
static int take(int error, const char *what, bool *done) {
  *done = error == 0;
  return gq_cuda_uncaptured(error) || error == GQ_CU_NO_MEMORY ? GQ_OK : gq_cuda_check(error, what);
}

static int capture(const graph *g, const gq_recurring *r, gq_cugraph *out, bool *done) {
  void *at[g->n + 1];
  for (int i = 0; i < g->n; i++) at[i] = g->own[i] ? g->own[i] : g->at[i];
  if (!stream) GQ_TRY(gq_cuda_check(gq_cu.stream(&stream, GQ_CU_NON_BLOCKING), "cuStreamCreate"));
  GQ_TRY(take(gq_cu.capture(stream, CAPTURE_LOCAL), "cuStreamBeginCapture", done));
  off = !*done;
  if (!*done) return GQ_OK;
  gq_cuda_capturing = stream;
  int status = r->run(r->context, at);
  gq_cuda_capturing = NULL;
  int error = gq_cu.captured(stream, out);
  *done = status == GQ_OK && error == 0;
  if (gq_cuda_uncaptured(error)) return GQ_OK;
  return status != GQ_OK ? status : gq_cuda_check(error, "cuStreamEndCapture");
}

static int prepare(graph *g, const gq_recurring *r) {
  gq_cugraph all = NULL;
  bool done;
  GQ_TRY(gq_cuda_usable());
  int status = capture(g, r, &all, &done);
  if (status == GQ_OK && done)
    status = take(gq_cu.instantiate(&g->ready, all, 0), "cuGraphInstantiate", &done);
  if (status != GQ_OK || !done) g->never = true, g->ready = NULL;
  if (!all) return status;
  int freed = gq_cu.capture_free(all);
  return status == GQ_OK ? gq_cuda_check(freed, "cuGraphDestroy") : status;
}

static int launch(const graph *g, const gq_recurring *r) {
  for (int i = 0; i < r->n; i++)
    if (g->own[i]) GQ_TRY(gq_cuda_copy(g->own[i], r->at[i], r->bytes[i]));
  GQ_TRY(gq_cuda_enter());
  GQ_TRY(gq_cuda_check(gq_cu.graph(g->ready, gq_cuda.stream), "cuGraphLaunch"));
  for (int i = r->nin; i < r->n; i++)
    if (g->own[i]) GQ_TRY(gq_cuda_copy(r->at[i], g->own[i], r->bytes[i]));
  return GQ_OK;
}

int gq_cuda_recur(const gq_recurring *r) {
  graph *g = wanted() ? place_of(r) : NULL;
  if (g && g->life < PATIENCE) g->life += g->seen ? PATIENCE : 1;
  if (g && g->seen && !g->never) settle(g, r);
  if (g && g->seen && !g->never && !g->ready) GQ_TRY(prepare(g, r));
  if (g) g->seen = true;
  return g && g->ready ? launch(g, r) : r->run(r->context, r->at);
}
