/*
** node.h -- what tape.c, backward.c and trace.c share: the node of an eager result, the small
** graph of its derivative, and a map from pointers to numbers.
*/
#ifndef GQ_NODE_H
#define GQ_NODE_H

#include "tape.h"

/* One operand of a recorded operation. */
typedef struct gq_slot {
  gq_tensor *t;                  /* held if it is a leaf that wants a gradient, or if its value is saved */
  struct gq_tape *from;          /* the node that made it, or NULL */
  int32_t out;                   /* which of that node's results */
  bool saved;                    /* the derivative needs the value */
  gq_dtype dtype;
  gq_shape shape;
  const gq_device *device;
  const gq_storage *storage;     /* of the saved value, and its version then */
  uint64_t version;
} gq_slot;

struct gq_tape {
  long refs;                     /* results, and slots that name this node */
  gq_op op;
  int nargs, nout;
  const gq_attr *attr;           /* behind the slots, or NULL */
  gq_custom *custom;             /* NULL: op's rule */
  const struct gq_tape *caller;  /* the nearest, it or one behind it, that calls or where ways to callers meet, or NULL */
  uint64_t number;               /* if that is this node: no other has it */
  gq_tensor *result;             /* saved value of the result, without tape, or NULL */
  uint64_t version;              /* of the result */
  struct gq_tape *next;          /* while being freed */
  gq_slot arg[];
};

/* The derivative of one operation as a small graph: grad[i] in terms of in[i], result and cot. */
typedef struct gq_mini {
  gq_graph *g;
  gq_ref result, cot;
  gq_ref *in, *grad;             /* [nargs]; grad GQ_NONE where nothing flows */
  bool *need;                    /* [nodes]: what grad depends on; not looked for below result if it is at hand */
} gq_mini;
int gq_mini_new(gq_mini *m, const struct gq_tape *node, const bool *want, bool have_result);
void gq_mini_free(gq_mini *m);

/* Pointers to numbers, open addressing. */
typedef struct gq_map {
  const void **key;
  int32_t *value;
  size_t size, count;            /* size: a power of two, or 0 */
} gq_map;
int32_t *gq_map_find(const gq_map *m, const void *key);               /* NULL: absent */
int gq_map_set(gq_map *m, const void *key, int32_t value);
void gq_map_free(gq_map *m);

/* trace.c: an operation inside the current trace. */
int gq_trace_emit(gq_trace *tr, gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr, gq_tensor **out);
int gq_trace_grad(gq_trace *tr, int nout, gq_tensor *const *out, gq_tensor *const *cots_, int nin, gq_tensor *const *in,
                  gq_tensor **grads);
int gq_trace_stale(void);        /* fail: a traced value outside its trace */

#endif
