/*
** theta.c -- steps of SDEs whose drift is implicit: z1 = z + ((1 - theta) f(t, z) + theta f(t + h, z1)) h + G(t, z) dW.
** A step is a program for what is explicit (noise.c) and after it one implicit stage (implicit.c); backwards the same
** pieces in the other order.
*/
#include "explicit.h"
#include "implicit.h"

#include <math.h>

typedef struct theta {
  void *program, *stage; /* what each has of its own */
} theta;

static gq_attempt as_program(const gq_attempt *a) {
  gq_attempt part = *a;
  part.own = ((theta *)a->own)->program;
  return part;
}

static gq_attempt as_stage(const gq_attempt *a) {
  gq_attempt part = *a;
  part.own = ((theta *)a->own)->stage;
  return part;
}

static double h_theta(const gq_attempt *a) { return a->shared->h * a->st->kind.theta; }

static int init(gq_attempt *a) {
  theta *own = a->own = gq_calloc(1, sizeof *own);
  if (!own) return gq_nomem(sizeof *own);
  gq_attempt part = *a;
  part.own = NULL;
  int status = gq_program_init(&part);
  own->program = part.own, part.own = NULL;
  if (status == GQ_OK) status = gq_implicit_steps.init(&part);
  own->stage = part.own, a->bytes = part.bytes;
  return status;
}

static void done(gq_attempt *a) {
  theta *own = a->own;
  gq_attempt program = as_program(a), stage = as_stage(a);
  if (own->program) gq_program_done(&program);
  if (own->stage) gq_implicit_steps.done(&stage);
  gq_free(own);
}

static void moved(gq_attempt *a) {
  gq_attempt stage = as_stage(a);
  gq_implicit_steps.moved(&stage);
}

static int attempt(gq_attempt *a, gq_control *c, double *ratio) {
  gq_attempt program = as_program(a), stage = as_stage(a);
  GQ_TRY(gq_program_attempt(&program, c, ratio));
  stage.cost = program.cost;
  int status = *ratio == 0 ? gq_implicit_solve(&stage, h_theta(a), ratio) : GQ_OK;
  a->cost = stage.cost;
  return status;
}

/* The step again: its end is known, but for activations of the program. */
static int again(gq_attempt *a) {
  gq_attempt program = as_program(a);
  gq_control c = { 0 };
  double ratio;
  program.y1[0] = a->pull.pf; /* no slope is carried, which that is for */
  return gq_program_attempt(&program, &c, &ratio);
}

static int phase(gq_attempt *a, int phase) {
  gq_attempt program = as_program(a), stage = as_stage(a);
  if (phase == 1) return GQ_OK;
  if (phase == 0) return again(a);
  GQ_TRY(gq_implicit_solve_back(&stage, h_theta(a), &program.pull.cy));
  a->cost = stage.cost;
  return gq_program_phase(&program, 2);
}

const gq_stepclass gq_theta_steps = { .stiff = true,
                                      .build = gq_program_build,
                                      .init = init,
                                      .done = done,
                                      .attempt = attempt,
                                      .phase = phase,
                                      .moved = moved };
