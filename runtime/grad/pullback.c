/*
** pullback.c -- the entry to the backward pass of every engine: what is checked before and collected after.
*/
#include "samples.h"

#include <math.h>
#include <string.h>

static int check_cotangent(const gq_solution *s, const gq_tensor *gz) {
  char a[128], b[128];
  if (gz->dtype == s->z->dtype && gq_shape_equal(gz->shape, s->z->shape)) return GQ_OK;
  return gq_fail(GQ_ESHAPE, "the cotangent of the solution is %s %s; expected %s %s",
                 gq_dtype_name(gz->dtype), gq_shape_text(gz->shape, a, sizeof a), gq_dtype_name(s->z->dtype),
                 gq_shape_text(s->z->shape, b, sizeof b));
}

/* The first state: z0 may have been overwritten since, or the solution. */
static int first_state(const gq_solution *s, const void **z) {
  *z = gq_tensor_data(s->z0);
  if (s->z0->storage->version == s->z0_version) return GQ_OK;
  *z = gq_at_time(s, s->z, 0);
  if (s->z->storage->version == s->version) return GQ_OK;
  return gq_fail(GQ_ESTATE, "z0 and the solution were both modified in place before the backward pass, which "
                            "needs one of them; write to a copy (x:clone())");
}

/* f(t_0, z_0) in the user's order. */
static int first_slope(gq_pullback *b, void *slope) {
  gq_solution *s = b->s;
  const gq_field *f = s->plan->field;
  const void *z;
  GQ_TRY(first_state(s, &z));
  if (s->samples) return gq_samples_slope(b, z, slope);
  void *packed = gq_allocate(f->on, 2 * gq_part_bytes(f) + 64),
       *at = (char *)packed + gq_round64(gq_part_bytes(f));
  if (!packed) return gq_nomem(2 * gq_part_bytes(f));
  gq_field_pack(f, z, packed);
  int status = gq_evaluate_at(&s->plan->f, s->bind, s->t[0], &packed, &at, NULL, NULL);
  if (status == GQ_OK) gq_field_unpack(f, at, slope);
  gq_release(f->on, packed);
  b->nfe++;
  return status;
}

int gq_slope_dot(gq_pullback *b, double t, void *z, const void *x, void *slope, double *xf) {
  const gq_solution *s = b->s;
  b->nfe++;
  GQ_TRY(gq_evaluate_at(&s->plan->f, s->bind, t, &z, &slope, NULL, NULL));
  *xf = gq_state_dot(s->plan->field, x, slope);
  return GQ_OK;
}

int gq_jump_gradient(gq_pullback *b, const gq_attempt *at, int k, void *z, const void *a, void *slope) {
  const gq_solution *s = b->s;
  double dir = s->t[s->nt - 1] < s->t[0] ? -1 : 1, before, after;
  if (!b->gt || !gq_jump_moves(s, k)) return GQ_OK;
  GQ_TRY(gq_slope_dot(b, gq_attempt_begin(at, s->t[k], -dir), z, a, slope, &before));
  GQ_TRY(gq_slope_dot(b, gq_attempt_begin(at, s->t[k], dir), z, a, slope, &after));
  b->gt[k] += before - after;
  return GQ_OK;
}

/* Moving t_k alone moves z_k along the slope; moving t_0 moves every other time away from it. */
static int trivial_times(gq_pullback *b, const void *slope) {
  const gq_solution *s = b->s;
  for (int k = 1; k < s->nt; k++) {
    double gf = gq_state_dot(s->plan->field, gq_at_time(s, b->gz, k), slope);
    if (!isfinite(gf))
      return gq_fail(GQ_ENONFINITE, "the dynamics are not finite at t = %.9g: times have no gradient there",
                     s->t[0]);
    b->gt[k] += gf, b->gt[0] -= gf;
  }
  return GQ_OK;
}

/* No time passes: cotangents add up in z0. */
static int backward_trivial(gq_pullback *b) {
  const gq_solution *s = b->s;
  size_t n = gq_numel(s->z0->shape);
  for (int k = 0; k < s->nt; k++)
    if (n) gq_state_add(s->plan->field, 1, gq_at_time(s, b->gz, k), b->a);
  if (!n || !b->gt || s->nt == 1) return GQ_OK;
  void *slope = gq_allocate(s->plan->field->on, gq_part_bytes(s->plan->field) + 64);
  if (!slope) return gq_nomem(gq_part_bytes(s->plan->field));
  int status = first_slope(b, slope);
  if (status == GQ_OK) status = trivial_times(b, slope);
  gq_release(s->plan->field->on, slope);
  return status;
}

/* The cotangents as the slices hold states. */
static int pack_cotangents(const gq_solution *s, gq_tensor **gz) {
  gq_tensor *packed;
  if (s->trivial || gq_field_plain(s->plan->field)) return GQ_OK;
  GQ_TRY(gq_tensor_new_on(gq_tensor_device(*gz), (*gz)->dtype, (*gz)->shape, &packed));
  for (int k = 0; k < s->nt; k++)
    gq_field_pack(s->plan->field, gq_at_time(s, *gz, k), gq_at_time(s, packed, k));
  gq_tensor_unref(*gz);
  *gz = packed;
  return GQ_OK;
}

static int backward_engine(gq_pullback *b) {
  gq_solution *s = b->s;
  if (s->trivial) return backward_trivial(b);
  if (s->samples) return gq_samples_backward(b);
  return s->o.engine->backward(b);
}

/* Times that an event took the place of have nothing to do with the state there. */
static int backward_run(gq_pullback *b) {
  const gq_solution *s = b->s;
  GQ_TRY(backward_engine(b));
  for (int k = 1; b->gt && s->info.event && k < s->nt; k++)
    if (s->t[k] == s->info.event_t) b->gt[k] = 0;
  return GQ_OK;
}

static int backward_once(gq_pullback *b, gq_tensor **gcapture) {
  GQ_TRY(gq_explain(b->s, backward_run(b)));
  return gq_grads_collect(b->s->bind, &b->grads, gcapture);
}

/* |x - y| / |y| over all wanted captures; 0 where both vanish. */
static double relative_difference(const gq_field *f, gq_tensor *const *x, gq_tensor *const *y) {
  double sum[2] = { 0, 0 };
  for (int i = 0; i < f->ncapture; i++) {
    if (x[i])
      f->on->vec->apart(x[i]->dtype, gq_numel(x[i]->shape), gq_tensor_data(x[i]), gq_tensor_data(y[i]), sum);
  }
  return sum[0] > 0 ? sqrt(sum[0] / sum[1]) : 0;
}

int gq_pullback_clear(gq_pullback *b) {
  gq_grads_done(&b->grads);
  return gq_grads_new(b->s->plan->field, true, &b->grads);
}

int gq_pullback_again(gq_pullback *b) {
  gq_solution *s = b->s;
  const gq_field *f = s->plan->field;
  GQ_TRY(gq_pullback_clear(b));
  gq_state_clear(f, b->a);
  if (b->gt) memset(b->gt, 0, s->nt * sizeof *b->gt);
  s->info.nodes_wanted = s->info.restarts = s->info.panels = s->info.panels_split = 0;
  return GQ_OK;
}

/* gq with n nodes, then with 2n, whose gradient is the one returned. */
static int backward_check(gq_pullback *b, gq_tensor **gcapture) {
  gq_solution *s = b->s;
  const gq_field *f = s->plan->field;
  gq_tensor **coarse = gq_calloc(f->ncapture + 1, sizeof *coarse);
  if (!coarse) return gq_nomem(f->ncapture * sizeof *coarse);
  int status = backward_once(b, coarse);
  if (status == GQ_OK) status = gq_pullback_again(b);
  b->refine = 2;
  if (status == GQ_OK) status = backward_once(b, gcapture);
  if (status == GQ_OK) s->info.audit = relative_difference(f, coarse, gcapture);
  for (int i = 0; i < f->ncapture; i++) gq_tensor_unref(coarse[i]);
  gq_free(coarse);
  return status;
}

/* Audit a gradient whose spectrum looks unresolved: the pass once more with twice the nodes, to compare. Nothing
** but info.audit comes of it, so that gradients do not depend on when audits are made. */
static int backward_audit(gq_pullback *b, gq_tensor *const *gcapture) {
  gq_solution *s = b->s;
  const gq_field *f = s->plan->field;
  gq_info info = s->info;
  gq_pullback again = { .s = s, .gz = b->gz, .refine = 2 };
  gq_tensor **fine = gq_calloc(f->ncapture + 1, sizeof *fine);
  again.a = gq_allocate(f->on, gq_part_bytes(f) + 1);
  if (again.a) gq_state_clear(f, again.a);
  int status = fine && again.a ? gq_grads_new(f, true, &again.grads) : gq_nomem(gq_part_bytes(f));
  s->bytes += again.grads.bytes + gq_part_bytes(f);
  if (status == GQ_OK) status = backward_once(&again, fine);
  s->info = info;
  if (status == GQ_OK) s->info.audit = relative_difference(f, gcapture, fine);
  s->info.nfe_audit = again.nfe;
  for (int i = 0; fine && i < f->ncapture; i++) gq_tensor_unref(fine[i]);
  gq_grads_done(&again.grads);
  gq_release(f->on, again.a);
  gq_free(fine);
  return status;
}

/* A spectrum may cry for nothing (the mean of an oscillation is exact long before it is resolved), so it asks for an
** audit: of the first such pass of a structure, then of every 50th, which costs a training loop 2 % at most. */
static bool asks_for_audit(const gq_solution *s) {
  return !(s->o.engine->traits & GQ_TWICE) && s->info.spectrum > 0.1 && s->plan->alarms++ % 50 == 0;
}

/* Cotangents of what was not reached are nobody's, whatever they are. */
static int drop_unreached(const gq_solution *s, gq_tensor **gz) {
  const gq_sampleset *r = s->samples;
  gq_tensor *own;
  if (!r || s->info.status == GQ_OK) return GQ_OK;
  const gq_backend *on = s->plan->field->on;
  GQ_TRY(gq_tensor_new_on(on->device, (*gz)->dtype, (*gz)->shape, &own));
  gq_copy(on, gq_tensor_data(own), gq_tensor_data(*gz), s->nt * gq_part_bytes(s->plan->field));
  for (int64_t i = 0; i < r->n; i++)
    for (int k = r->reached[i]; k < s->nt; k++) gq_zero(on, gq_sample_at(s, own, k, i), r->bytes);
  gq_tensor_unref(*gz);
  *gz = own;
  return GQ_OK;
}

static int backward_sums(gq_solution *s, gq_tensor *gz_, const double sums[2], gq_tensor **gz0,
                         gq_tensor **gt, gq_tensor **gcapture) {
  gq_pullback b = { .s = s, .refine = 1, .error = sums[0], .stiffness = sums[1] };
  gq_tensor *a = NULL, *times = NULL;
  const gq_device *on = gq_tensor_device(s->z);
  *gz0 = *gt = NULL;
  if (gz_) GQ_TRY(check_cotangent(s, gz_));
  if (!isfinite(sums[0]) || !isfinite(sums[1]))
    return gq_fail(GQ_ENONFINITE, "the cotangent of info.regularisers.%s is not finite",
                   isfinite(sums[0]) ? "stiffness" : "error");
  if (s->o.engine->keeps != GQ_KEEP_ACTIVATIONS && s->z->storage->version != s->version)
    return gq_fail(GQ_ESTATE,
                   "the solution was modified in place before its backward pass, which starts from it; write "
                   "to a copy (x:clone())");
  GQ_TRY(gq_plan_enter(s->plan));
  s->info.nfe_backward = s->info.steps_backward = s->info.rejected_backward = s->info.restarts = 0;
  s->info.nodes = s->info.nodes_wanted = s->info.rounds = s->info.unresolved = 0;
  s->info.reconstruction = 0, s->info.capped = false;
  s->info.panels = s->info.panels_split = s->info.nfe_audit = 0;
  s->info.quadrature_error = s->info.audit = s->info.spectrum = s->info.defect = NAN;
  if (!s->judged) s->info.gradient_error = s->info.quotient_error = NAN;
  int status =
    gz_ ? gq_tensor_contiguous_get(gz_, &b.gz) : gq_tensor_new_on(on, s->z->dtype, s->z->shape, &b.gz);
  if (status == GQ_OK) status = drop_unreached(s, &b.gz);
  if (status == GQ_OK) status = gq_solution_records(s);
  if (status == GQ_OK) status = gq_check_finite(b.gz, "the cotangent dL/dz of the solution");
  if (status == GQ_OK) status = pack_cotangents(s, &b.gz);
  if (status == GQ_OK) status = gq_tensor_new_on(on, s->z0->dtype, s->z0->shape, &a);
  if (status == GQ_OK)
    status = gq_tensor_new(GQ_F64, gq_shape_of(1, (int64_t[]){ s->nt + s->unreached }), &times);
  if (status == GQ_OK) status = gq_grads_new(s->plan->field, true, &b.grads);
  if (status == GQ_OK) {
    b.a = gq_tensor_data(a);
    b.gt = s->t_grad ? gq_tensor_data(times) : NULL;
    size_t held = s->bytes;
    s->bytes += b.grads.bytes;
    status = s->o.engine->traits & GQ_TWICE ? backward_check(&b, gcapture) : backward_once(&b, gcapture);
    bool collected = status == GQ_OK;
    if (collected && asks_for_audit(s)) status = backward_audit(&b, gcapture);
    if (s->bytes > s->info.peak_bytes) s->info.peak_bytes = s->bytes;
    s->bytes = held;
    s->info.nfe_backward = b.nfe;
    gq_tell(GQ_TELL_MEM, "back by %s: %lld evaluations, %lld nodes, %zu bytes at most", s->o.engine->name,
            (long long)b.nfe, (long long)s->info.nodes, s->info.peak_bytes);
    for (int i = 0; collected && status != GQ_OK && i < s->plan->field->ncapture; i++)
      gq_tensor_unref(gcapture[i]), gcapture[i] = NULL;
  }
  gq_plan_leave(s->plan);
  gq_grads_done(&b.grads);
  gq_tensor_unref(b.gz);
  if (status == GQ_OK) gq_solution_give_back(s);
  if (status == GQ_OK && s->z0_grad) *gz0 = a;
  else gq_tensor_unref(a);
  if (status == GQ_OK && s->t_grad) *gt = times;
  else gq_tensor_unref(times);
  return status;
}

int gq_solve_back(gq_solution *s, gq_tensor *gz_, const double sums[2], gq_tensor **gz0, gq_tensor **gt,
                  gq_tensor **gcapture) {
  if (!gz_ || !s->unreached) return backward_sums(s, gz_, sums, gz0, gt, gcapture);
  gq_tensor *part;
  gq_shape shape = gz_->shape;
  shape.dim[0] -= s->unreached;
  GQ_TRY(gq_tensor_view(gz_, shape, gz_->stride, gz_->offset, &part));
  int status = backward_sums(s, part, sums, gz0, gt, gcapture);
  gq_tensor_unref(part);
  return status;
}
