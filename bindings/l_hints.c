/*
** l_hints.c -- what solvers of other libraries call things, for messages about options and values that
** are not known here.
*/
#include <string.h>
#include <strings.h>
#include "bind.h"

static const char times[] = "times are the third argument", captured[] = "f captures what it needs";

/* theirs, ours (shown where the function has such an option; NULL: shown for every solver), what it is */
static const struct hint {
  const char *theirs, *ours, *text;
} hints[] = {
  { "dt", "step_size", "step_size is a fixed grid, first_step the first of steps that are chosen" },
  { "h", "step_size", "step_size is a fixed grid, first_step the first of steps that are chosen" },
  { "dt0", "first_step", "first_step" },
  { "h0", "first_step", "first_step" },
  { "dtmax", "max_step", "max_step" },
  { "hmax", "max_step", "max_step" },
  { "dtmin", "min_step", "min_step" },
  { "hmin", "min_step", "min_step" },
  { "tstops", "grid_points", "grid_points" },
  { "jump_t", "grid_points", "grid_points" },
  { "d_discontinuities", "grid_points", "grid_points" },
  { "step_t", "grid_points", "grid_points" },
  { "perturb", "grid_points", "f is evaluated on its own side of grid_points" },
  { "grid_constructor", "step_size", "step_size, or the times themselves with a method of fixed steps" },
  { "saveat", NULL, times },
  { "ts", NULL, times },
  { "tspan", NULL, times },
  { "t_span", NULL, times },
  { "t_eval", NULL, times },
  { "y0", NULL, "the state is the second argument" },
  { "args", NULL, captured },
  { "p", NULL, captured },
  { "solver", "method", "method" },
  { "alg", "method", "method" },
  { "reltol", "rtol", "rtol" },
  { "abstol", "atol", "atol" },
  { "tol", "rtol", "rtol and atol" },
  { "maxiters", "max_steps", "max_steps" },
  { "stepsize_controller", "controller", "controller, and rtol, atol beside it" },
  { "events", "event", "event" },
  { "event_fn", "event", "event" },
  { "callback", "event", "event" },
  { "dense_output", "dense", "dense" },
  { "sensealg", "gradient", "gradient" },
  { "adjoint_method", "adjoint", "adjoint = {method = ...}" },
  { "adjoint_rtol", "adjoint", "adjoint = {rtol = ...}" },
  { "adjoint_atol", "adjoint", "adjoint = {atol = ...}" },
  { "adjoint_options", "adjoint", "adjoint = {...}" },
  { "adjoint_params", "params", "params" },
  { "options", NULL, "each of them stands beside the others" },
  { "jac", NULL, "f is differentiated: leave it out" },
  { "reverse_time", NULL, "times may decrease" },
  { "step_size", "dt", "dt" },
  { "bm", "brownian", "brownian" },
  { "levy_area", "brownian", "brownian = gq.brownian{levy_area = ...}" },
  { "entropy", "brownian", "brownian = gq.brownian{seed = ...}" },
  { "learning_rate", "lr", "lr" },
  { "rate", "lr", "lr" },
  { "wd", "weight_decay", "weight_decay" },
  { "decay", "weight_decay", "weight_decay" },
  { "maximize", "weight_decay", "the loss times -1" },
  { "beta1", "betas", "betas = {beta1, beta2}" },
  { "beta2", "betas", "betas = {beta1, beta2}" },
  { "rho", "alpha", "alpha" },
};

static bool among(const char *name, const char *const *known) {
  for (; *known; known++)
    if (!strcmp(*known, name)) return true;
  return false;
}

const char *gqL_hint(const char *name, const char *const *known, const char *what) {
  bool solver = !strcmp(what, "gq.odeint") || !strcmp(what, "gq.sdeint");
  for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
    if (!strcmp(hints[i].theirs, name) && (hints[i].ours ? among(hints[i].ours, known) : solver))
      return hints[i].text;
  return NULL;
}

/* What SciPy, torchdiffeq, diffrax and Julia call methods and engines. */
static const char *const elsewhere[][2] = {
  { "RK45", "dopri5" },     { "ode45", "dopri5" },      { "DP5", "dopri5" },
  { "RK23", "bosh3" },      { "BS3", "bosh3" },         { "DOP853", "dopri8" },
  { "BDF", "kvaerno5" },    { "Radau", "kvaerno5" },    { "LSODA", "kvaerno5" },
  { "Rodas5", "kvaerno5" }, { "backprop", "direct" },   { "autograd", "direct" },
  { "discrete", "direct" }, { "backsolve", "adjoint" }, { "continuous", "adjoint" },
  { "checkpoint", "aca" },  { "checkpointed", "aca" },  { "recursive", "aca" },
  { "verlet", "leapfrog" },
};

const char *gqL_alike(const char *given, const char *const *names) {
  for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
    for (int k = 0; names[k] && !strcasecmp(elsewhere[i][0], given); k++)
      if (!strcmp(names[k], elsewhere[i][1])) return names[k];
  return NULL;
}
