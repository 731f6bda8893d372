/*
** l_ode.c -- gq.odeint, its help and its parts: options (l_odeopts.c), one call of the solver (l_solve.c), the tape
** (l_backward.c), info (l_info.c), dynamics that are called and not traced (l_call.c).
*/
#include "l_ode.h"

/* clang-format off */
static const gqL_function functions[] = {
  { "odeint", gqL_odeint, false,
    "odeint(f, z0, t, opts) -> z, info: solve dz/dt = f(t, z) from z0 at t[1]; z has shape {#t, z0's}\n"
    "f: a module or function of (t, z) that returns dz/dt of z's shape and dtype; traced at every solve, so it must "
    "not look at values (use gq.where, or trace = false); t < 0 is an error then, but t == 0 is false without a word, "
    "since Lua asks no tensor whether it equals a number: t:eq(0)\n"
    "z0: a tensor, or a sequence {z1, z2, ...} of tensors of one dtype: then f is given a sequence and returns one, "
    "and z is a sequence too, z[i] of shape {#t, z0[i]'s}; the error norm is over all their numbers together. "
    "Tensors that share their first dimension are solved as rows side by side, others as one vector\n"
    "t: increasing or decreasing, a table or a tensor (which may require gradients)\n"
    "info: counts, status and warnings: ?info\n"
    "options, with their defaults\n"
    "method: \"dopri5\"; all of them, implicit and multistep ones too, with eta, controller and max_order: ?methods\n"
    "rtol, atol: 1e-3 in float32, 1e-6 in float64: what a step may add to the error (of a solve: ?methods); norm: "
    "\"rms\" or \"max\"\n"
    "step_size: a fixed grid; first_step: found; max_step, min_step: no limits, adjoint's are these; max_steps: "
    "100000\n"
    "gradient: \"auto\"; all engines, with params, adjoint, gq and memory_limit: ?gradient; when to trust them: "
    "?guards\n"
    "trace: true; false calls f in Lua at every evaluation, on tensors with numbers: it may look at values, branch "
    "and solve itself, and must be a function of (t, z) alone (no dropout, no noise); slower. Gradients flow to z0, "
    "t and what params names (of a module its own parameters), by every engine but gqc (direct calls f again too); the backward pass calls f as it is "
    "then, so do not change in between what f captures. In f, t and z require gradients: gq.grad(x, z, {create_graph "
    "= true}) works, and z:detach():clone() can be written to. An error of f is raised as it is. f is kept as long "
    "as the result's gradient may be asked for. Not with leapfrog or create_graph; an event is traced all the same\n"
    "batch: \"joint\", one step size for all; \"independent\": each row (dimension 1) of the state has its own "
    "steps, and its result and gradients do not depend on the other rows, bit by bit; for explicit Runge-Kutta "
    "methods with gradient \"gq\", check, aca, direct or none, and traced dynamics whose rows do not act on each other. "
    "info.samples tells what each took\n"
    "grid_points: times where f may jump, a table or a tensor\n"
    "event: a function of (t, z) that ends the solve where it changes sign: between two times the results are z there, "
    "info, the time as a tensor, between more z at the times, as of a list; or a list: ?event\n"
    "dense: false; true gives one result more, the solution as a function of time: at(t), with gradients in the state, "
    "the parameters and t (by one more solve), and at:derivative(t)\n"
    "regularise: {kinetic = true, ...}: info.regularisers then holds what keeps dynamics easy when it is added to a "
    "loss: ?regularise\n"
    "throw: true; false returns the part reached, with its gradients, and info.status\n"
    "overshoot: false; true lets the last step pass the last time, which is then interpolated\n"
    "parity: false; true goes step for step as the paper's PyTorch code (overshoot among that), by dopri5 alone" },
  { NULL, NULL, false, NULL },
};
/* clang-format on */

/* core.check(z0, opts): what is wrong with the options by themselves */
static int check(lua_State *L) {
  gq_ode_options o;
  gqL_odeoptions(L, 2, gqL_checktensor(L, 1)->dtype, &o);
  return 0;
}

void gqL_open_ode(lua_State *L) {
  static const luaL_Reg core[] = {
    { "solve", gqL_solveode }, { "unchanged", gqL_unchanged }, { "check", check }, { NULL, NULL }
  };
  gqL_core(L, core);
  gqL_register(L, functions);
}
