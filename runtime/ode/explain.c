/*
** explain.c -- where what is not finite came from.
*/
#include "solution.h"

#include <string.h>

int gq_check_finite(const gq_tensor *packed, const char *what) {
  size_t i =
    gq_backend_of(packed)->vec->nonfinite(packed->dtype, gq_numel(packed->shape), gq_tensor_data(packed));
  if (!i) return GQ_OK;
  return gq_fail(GQ_ENONFINITE, "%s is not finite (element %zu of the flattened tensor)", what, i);
}

int gq_explain(const gq_solution *s, int status) {
  if (status != GQ_ENONFINITE) return status;
  char message[512];
  strncpy(message, gq_message(), sizeof message - 1), message[sizeof message - 1] = 0;
  for (int i = 0; i < s->plan->field->ncapture; i++) {
    gq_tensor *c = s->bind->capture[i];
    char shape[128];
    if (!gq_is_float(c->dtype) ||
        !gq_backend_of(c)->vec->nonfinite(c->dtype, gq_numel(c->shape), gq_tensor_data(c)))
      continue;
    return gq_fail(status, "%s; a captured %s tensor %s holds a value that is not finite", message,
                   gq_dtype_name(c->dtype), gq_shape_text(c->shape, shape, sizeof shape));
  }
  return gq_fail(status, "%s", message);
}

int gq_interrupted_back(double t) {
  return gq_fail(GQ_EINTERRUPT, "interrupted in the backward pass at t = %.9g", t);
}
