/*
** batches.c -- rows of a data set, a batch at a time, the next few put together by a thread while the caller computes.
** The caller makes the tensors and takes them; the thread fills them and does nothing that can fail. Storages count
** their writes, so a batch whose rows were written to after it was asked for is filled again by the caller. Without
** a thread, or in a process that was forked meanwhile, the caller fills all.
*/
#include "io.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { AHEAD = 2 };

typedef struct slot {
  gq_tensor **to; /* none yet: NULL */
  int64_t first, count;
  uint64_t version; /* of what it is taken from */
  bool wanted, filled;
} slot;

struct gq_batches {
  gq_batches_of of;
  gq_tensor **from;
  int64_t rows, asked; /* rows in all, and those of batches that were asked for */
  slot slot[AHEAD];
  int head; /* the slot that is taken next */
  bool running, stop;
  pid_t pid;
  pthread_t thread;
  pthread_mutex_t lock; /* guards wanted, filled and stop */
  pthread_cond_t work, done;
};

/* ---- rows ---- */

#define MOVE(T)                                                                             \
  static void move_##T(int64_t c, int64_t h, int64_t w, const T *from, gq_moved m, T *to) { \
    for (int64_t k = 0; k < c; k++, from += h * w)                                          \
      for (int64_t i = 0; i < h; i++)                                                       \
        for (int64_t j = 0; j < w; j++) {                                                   \
          int64_t y = i + m.down, x = j + m.right;                                          \
          bool inside = y >= 0 && y < h && x >= 0 && x < w;                                 \
          *to++ = inside ? from[y * w + (m.mirrored ? w - 1 - x : x)] : 0;                  \
        }                                                                                   \
  }
MOVE(uint8_t)
MOVE(uint32_t)
MOVE(uint64_t)

void gq_image_move(size_t number, int64_t c, int64_t h, int64_t w, const void *from, gq_moved m, void *to) {
  if (number == 1) move_uint8_t(c, h, w, from, m, to);
  else if (number == 4) move_uint32_t(c, h, w, from, m, to);
  else move_uint64_t(c, h, w, from, m, to);
}

static void fill_one(const gq_batches *b, int i, const slot *s) {
  const gq_tensor *from = b->from[i];
  size_t number = gq_dtype_size(from->dtype);
  int64_t each = from->shape.dim[0] ? gq_numel(from->shape) / from->shape.dim[0] : 0;
  size_t row = (size_t)each * number;
  const int64_t *order = gq_tensor_data(b->of.order),
                *move = i == b->of.moved ? gq_tensor_data(b->of.moves_) : NULL;
  const char *x = gq_tensor_data(from);
  char *to = gq_tensor_data(s->to[i]);
  for (int64_t r = s->first; r < s->first + s->count; r++, to += row) {
    const char *at = x + (size_t)(order[r] - 1) * row;
    const int64_t *d = from->shape.dim;
    if (move)
      gq_image_move(number, d[1], d[2], d[3], at, (gq_moved){ move[3 * r], move[3 * r + 1], move[3 * r + 2] },
                    to);
    else memcpy(to, at, row);
  }
}

static void fill(const gq_batches *b, const slot *s) {
  for (int i = 0; i < b->of.n; i++) fill_one(b, i, s);
}

static uint64_t version(const gq_batches *b) {
  uint64_t v = 0;
  for (int i = 0; i < b->of.n; i++) v += b->from[i]->storage->version;
  return v;
}

/* ---- the thread ---- */

static void *work(void *arg) {
  gq_batches *b = arg;
  pthread_mutex_lock(&b->lock);
  for (int k = 0; !b->stop;) {
    slot *s = &b->slot[k];
    if (!s->wanted || s->filled) {
      pthread_cond_wait(&b->work, &b->lock);
      continue;
    }
    pthread_mutex_unlock(&b->lock);
    fill(b, s);
    pthread_mutex_lock(&b->lock);
    s->filled = true;
    pthread_cond_signal(&b->done);
    k = (k + 1) % AHEAD;
  }
  pthread_mutex_unlock(&b->lock);
  return NULL;
}

/* Signals stay with the threads that the program knows of. */
static bool start(gq_batches *b) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = pthread_create(&b->thread, NULL, work, b) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return started;
}

static bool accompanied(const gq_batches *b) { return b->running && b->pid == getpid(); }

static void stop(gq_batches *b) {
  if (!accompanied(b)) return;
  pthread_mutex_lock(&b->lock);
  b->stop = true;
  pthread_cond_signal(&b->work);
  pthread_mutex_unlock(&b->lock);
  pthread_join(b->thread, NULL);
  b->running = false;
}

/* ---- the caller ---- */

static void drop(gq_batches *b, slot *s) {
  for (int i = 0; i < b->of.n; i++) gq_tensor_unref(s->to[i]), s->to[i] = NULL;
}

/* Tensors for the next batch, which the thread may fill from now on. Behind the last row: nothing. */
static int ask(gq_batches *b, slot *s) {
  int64_t left = b->rows - b->asked, count = left < b->of.size ? left : b->of.size;
  if (count == 0 || (b->of.drop_last && count < b->of.size)) return GQ_OK;
  for (int i = 0; i < b->of.n; i++) {
    gq_shape shape = b->from[i]->shape;
    shape.dim[0] = count;
    int status = gq_tensor_empty(b->from[i]->dtype, shape, &s->to[i]);
    if (status != GQ_OK) {
      drop(b, s);
      return status;
    }
  }
  s->first = b->asked, s->count = count, s->version = version(b);
  b->asked += count;
  bool thread = accompanied(b);
  if (thread) pthread_mutex_lock(&b->lock);
  s->wanted = true, s->filled = false;
  if (thread) pthread_cond_signal(&b->work), pthread_mutex_unlock(&b->lock);
  return GQ_OK;
}

static void wait_for(gq_batches *b, slot *s) {
  if (!accompanied(b)) {
    fill(b, s);
    return;
  }
  pthread_mutex_lock(&b->lock);
  while (!s->filled) pthread_cond_wait(&b->done, &b->lock);
  pthread_mutex_unlock(&b->lock);
  if (version(b) != s->version) fill(b, s);
}

int gq_batches_next(gq_batches *b, gq_tensor **to) {
  slot *s = &b->slot[b->head];
  for (int i = 0; i < b->of.n; i++) to[i] = NULL;
  if (!s->wanted) GQ_TRY(ask(b, s));
  if (!s->wanted) return GQ_OK;
  wait_for(b, s);
  for (int i = 0; i < b->of.n; i++) to[i] = s->to[i], s->to[i] = NULL;
  bool thread = accompanied(b);
  if (thread) pthread_mutex_lock(&b->lock);
  s->wanted = false;
  if (thread) pthread_mutex_unlock(&b->lock);
  b->head = (b->head + 1) % AHEAD;
  for (int k = 0; thread && k < AHEAD; k++) {
    slot *next = &b->slot[(b->head + k) % AHEAD];
    if (!next->wanted && ask(b, next) != GQ_OK) break; /* asked for again when it is needed */
  }
  return GQ_OK;
}

static int check(const gq_batches_of *w) {
  int64_t rows = gq_numel(w->order->shape);
  const int64_t *order = gq_tensor_data(w->order);
  for (int i = 0; i < w->n; i++)
    for (int64_t r = 0; r < rows; r++)
      if (order[r] < 1 || order[r] > w->from[i]->shape.dim[0])
        return gq_fail(GQ_EARG, "row %lld of %lld", (long long)order[r], (long long)w->from[i]->shape.dim[0]);
  return GQ_OK;
}

int gq_batches_new(const gq_batches_of *what, gq_batches **out) {
  *out = NULL;
  GQ_TRY(check(what));
  size_t pointers = (size_t)what->n * (AHEAD + 1) * sizeof(gq_tensor *);
  gq_batches *b = gq_calloc(1, sizeof *b + pointers);
  if (!b) return gq_nomem(sizeof *b + pointers);
  b->of = *what, b->of.from = b->from = (gq_tensor **)(void *)(b + 1);
  for (int i = 0; i < what->n; i++) b->from[i] = gq_tensor_ref(what->from[i]);
  for (int k = 0; k < AHEAD; k++) b->slot[k].to = b->from + (k + 1) * what->n;
  gq_tensor_ref(what->order);
  if (what->moves_) gq_tensor_ref(what->moves_);
  b->rows = gq_numel(what->order->shape), b->pid = getpid();
  pthread_mutex_init(&b->lock, NULL), pthread_cond_init(&b->work, NULL), pthread_cond_init(&b->done, NULL);
  b->running = what->thread && start(b);
  *out = b;
  return GQ_OK;
}

void gq_batches_free(gq_batches *b_) {
  if (!b_) return;
  stop(b_);
  for (int k = 0; k < AHEAD; k++) drop(b_, &b_->slot[k]);
  for (int i = 0; i < b_->of.n; i++) gq_tensor_unref(b_->from[i]);
  gq_tensor_unref(b_->of.order);
  gq_tensor_unref(b_->of.moves_);
  gq_free(b_);
}
