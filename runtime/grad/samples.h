/*
** samples.h -- the backward passes of batch = "independent": a worker's share, and what they have in common.
*/
#ifndef GQ_GRAD_SAMPLES_H
#define GQ_GRAD_SAMPLES_H

#include "../ode/lanes.h"

/* One worker: samples first, first + stride, ... of the batch. */
typedef struct gq_samplepull {
  gq_outcome outcome;          /* what ends everything */
  gq_outcome sample;           /* the first sample that failed, */
  int64_t failed;              /* or -1 */
  gq_pullback *b;
  gq_solution *s;
  gq_lanes lanes;
  gq_grads grads;              /* its own sums */
  int64_t next, stride;
  int64_t nodes, wanted, restarts;
  double reconstruction;
  bool capped;
  void *left;                  /* a whole array that all workers share. direct: cotangents of the first slopes; gq, with
                               ** gradients of times: a at t[0] before its own cotangent */
  double *gt;                  /* [nt] its own sums of dL/dt, or NULL */
} gq_samplepull;

static inline char *gq_sample_at(const gq_solution *s, gq_tensor *z, int k, int64_t sample) {
  return (char *)gq_at_time(s, z, k) + sample * s->samples->bytes;
}
/* x of lane j += scale * sample */
void gq_lanes_add(const gq_lanes *p, void *lanes, int j, double scale, const void *sample);

int gq_samples_backward(gq_pullback *b);
/* samples_device.c: all of it by the device that solved them. left: as in gq_samplepull, of direct and aca. */
int gq_samples_by_device(gq_pullback *b, void *left);
/* Tolerances and sizes of the adjoint's steps; only [0] of atol, which is z's. */
void gq_samples_back_rule(gq_lanerule *r, const gq_solution *s);
/* Fails for a lane that does so in the adjoint's solve; gq_message() tells why. */
int gq_samples_failed(const gq_lane *lane, int status);
/* f(t_0, z) of every sample, z and slope: whole states. */
int gq_samples_slope(gq_pullback *b, const void *z, void *slope);

#endif
