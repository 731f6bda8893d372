/*
** event.c -- the value of an event function on packed states.
*/
#include "dense.h"

#include <math.h>

struct gq_event {
  const gq_field *field;
  gq_program *prog;
  int ncapture;
  gq_tensor **capture; /* contiguous, referenced */
  const void **in;     /* t, z, captures */
  void *arena, *state; /* state: in the user's order */
  double t;
  float t32;
};

/* A program whose one output is the event's scalar. */
static int compile(gq_event *e, const gq_graph *g) {
  gq_outspec out = { gq_graph_output(g, 0), 0, GQ_STORE };
  const gq_node *n = gq_graph_node(g, out.ref);
  char shape[128];
  if (n->dtype != e->field->dtype || gq_numel(n->shape) != 1)
    return gq_fail(GQ_ESHAPE, "the event function gave %s %s: expected one number, %s {}",
                   gq_dtype_name(n->dtype), gq_shape_text(n->shape, shape, sizeof shape),
                   gq_dtype_name(e->field->dtype));
  return gq_program_new(e->field->on, g, 1, &out, &e->prog);
}

static int init(gq_event *e, const gq_graph *g, int ncapture, gq_tensor *const *capture) {
  GQ_TRY(compile(e, g));
  e->capture = gq_calloc(ncapture + 1, sizeof *e->capture);
  e->in = gq_calloc(ncapture + 2, sizeof *e->in);
  e->arena = gq_alloc(gq_program_arena(e->prog) + 64);
  e->state = gq_alloc(gq_part_bytes(e->field) + 64);
  if (!e->capture || !e->in || !e->arena || !e->state) return gq_nomem(gq_program_arena(e->prog));
  e->in[0] = e->field->dtype == GQ_F32 ? (void *)&e->t32 : (void *)&e->t;
  e->in[1] = e->state;
  for (; e->ncapture < ncapture; e->ncapture++) {
    GQ_TRY(gq_tensor_contiguous_get(capture[e->ncapture], &e->capture[e->ncapture]));
    e->in[2 + e->ncapture] = gq_tensor_data(e->capture[e->ncapture]);
  }
  return GQ_OK;
}

int gq_event_new(const gq_graph *g, int ncapture, gq_tensor *const *capture, const gq_field *f,
                 gq_event **out) {
  gq_event *e = gq_calloc(1, sizeof *e);
  if (!e) return gq_nomem(sizeof *e);
  e->field = f;
  int status = init(e, g, ncapture, capture);
  if (status != GQ_OK) gq_event_free(e);
  else *out = e;
  return status;
}

void gq_event_free(gq_event *e) {
  if (!e) return;
  for (int i = 0; i < e->ncapture; i++) gq_tensor_unref(e->capture[i]);
  gq_program_free(e->prog);
  gq_free(e->capture);
  gq_free(e->in);
  gq_free(e->arena);
  gq_free(e->state);
  gq_free(e);
}

int gq_event_value(gq_event *e, double t, const void *packed, double *value) {
  float out32 = 0;
  double out = 0;
  void *to[] = { e->field->dtype == GQ_F32 ? (void *)&out32 : (void *)&out };
  e->t = t, e->t32 = (float)t;
  gq_field_unpack(e->field, packed, e->state);
  GQ_TRY(gq_program_run(e->prog, 0, e->arena, e->in, to));
  *value = e->field->dtype == GQ_F32 ? out32 : out;
  if (!isfinite(*value)) return gq_fail(GQ_ENONFINITE, "the event function is not finite at t = %.9g", t);
  return GQ_OK;
}
