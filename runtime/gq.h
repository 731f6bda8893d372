/*
** gq.h -- the manual of the C interface. It follows the way that work takes; each stage has its own header with the
** calls, a plain sentence each, and what is indented here is one program, which tests/install_spec.lua compiles and
** runs, as C and as C++. examples/embed.c is another, and shows the door to Lua.
**
** Functions return GQ_OK or a status; gq_message() then says what was given and what to do. Results that come through
** `gq_tensor **` are new references unless called lent. _new pairs with _free, _ref with _unref; a name that ends in _
** may be NULL. Dimensions and indices count from 0. The runtime never prints and never exits.
**
** == base: status codes and messages, the allocator, interrupts, random numbers, threads
**
**     GQ_TRY(gq_set_threads(2));         // returns the status if it is not GQ_OK
**
** == tensor: dtype, shape and strides over counted storage
**
**     const int64_t three[1] = { 3 };
**     gq_tensor *z0 = NULL, *k = NULL;
**     GQ_TRY(gq_tensor_new(GQ_F64, gq_shape_of(1, three), &z0));
**     GQ_TRY(gq_tensor_new(GQ_F64, gq_shape_of(0, NULL), &k));
**     GQ_TRY(gq_tensor_fill(z0, 1));
**     GQ_TRY(gq_tensor_fill(k, 0.5));
**
** == ir: graphs of operations, and passes from graph to graph: derivatives (vjp, jet), a new axis (batch), rows, hoist
** Dynamics are a graph with the inputs t, z and what else they read, and the output dz/dt. Emitting is sticky: one
** check at the end.
**
**     gq_graph *f = gq_graph_new();
**     if (!f) return GQ_ENOMEM;
**     gq_input(f, GQ_F64, k->shape);
**     gq_ref z = gq_input(f, GQ_F64, z0->shape);
**     gq_ref rate = gq_input(f, GQ_F64, k->shape);
**     gq_ref dz = gq_emit1(f, GQ_OP_NEG, gq_emit2(f, GQ_OP_MUL, rate, z));
**     gq_graph_set_outputs(f, 1, &dz);
**     GQ_TRY(gq_graph_status(f));
**
** == exec: one operation at once, or a graph compiled to a program; the tape, tracing, code that is called back
** What the tape has recorded goes backwards into .grad.
**
**     k->requires_grad = true;
**     gq_tensor *twice[2] = { k, k }, *square = NULL;
**     GQ_TRY(gq_op_call(GQ_OP_MUL, 2, twice, NULL, &square));
**     GQ_TRY(gq_backward(square, NULL));                       // k->grad holds 2 k
**
** == field, method, ode: dynamics made ready for solvers, methods as table rows and steps as graphs, the solver's loop
**
**     const double times[2] = { 0, 2 };
**     const bool wants[1] = { true };
**     gq_problem p = { 0 };
**     p.f = f, p.z0 = z0, p.nt = 2, p.t = times;
**     p.ncapture = 1, p.capture = &k, p.wants_grad = wants;
**     gq_ode_options o;
**     gq_ode_defaults(&o, GQ_F64);
**     o.rtol = o.atol = o.back_rtol = o.back_atol = 1e-9;
**     gq_tensor *zt = NULL;
**     gq_info info;
**     gq_solution *s = NULL;
**     GQ_TRY(gq_odeint(&p, &o, false, &zt, &info, &s));        // zt: {2, 3}
**
** == grad: the gradient engines behind ode.h, a row of gq_engines each; o.engine = gq_engine_find("direct") before the
** solve takes another one
**
**     gq_tensor *gz = NULL, *gz0 = NULL, *gt = NULL, *gk = NULL;
**     GQ_TRY(gq_tensor_new(GQ_F64, zt->shape, &gz));
**     const int64_t last[2] = { 1, 0 };
**     gq_tensor_set(gz, last, 1);                              // L = z(2), its first number
**     GQ_TRY(gq_odeint_backward(s, gz, &gz0, &gt, &gk));       // gk: -2 exp(-2 k)
**
** == sde: Brownian paths; an SDE is solved along one by gq_odeint (gq_problem.noise), with the engines
** of gq_noise_engines
**
**     gq_brownian *w = NULL;
**     double dw[3];
**     GQ_TRY(gq_brownian_new(0, 1, z0->shape, GQ_F64, 42, 1e-3, GQ_LEVY_NONE, &w));
**     GQ_TRY(gq_brownian_increment(w, 0.25, 0.5, dw));
**
** == opt: Adam, AdamW, SGD, RMSProp over flat blocks
**
**     gq_optimiser *adam = NULL;
**     GQ_TRY(gq_optimiser_new(GQ_ADAM, 1, &k, gq_opt_defaults(GQ_ADAM), &adam));
**     GQ_TRY(gq_optimiser_step(adam));                         // by k->grad
**
** == io: .npy, .safetensors, files that are replaced at once
**
**     GQ_TRY(gq_npy_save("z.npy", zt));
**     printf("%.6f %.6f %.3f\n", gq_tensor_get(zt, last), gq_tensor_get(gk, NULL), gq_tensor_get(k, NULL));
**     gq_optimiser_free(adam);
**     gq_brownian_free(w);
**     gq_solution_free(s);
**     gq_graph_free(f);
**     gq_tensor *mine[] = { z0, k, square, zt, gz, gz0, gt, gk };
**     for (size_t i = 0; i < sizeof mine / sizeof *mine; i++) gq_tensor_unref(mine[i]);
**
** Words, each for one thing:
**   sample       an entry of the batch, a row of the state
**   lane         a slot of a program in which one sample is solved with steps of its own
**   slice        a thread's share of the samples
**   point        a time of a batched evaluation
**   node         an operation of a graph; of a quadrature, a point with a weight, eq. (11)
**   capture      what a graph reads besides its inputs proper: a parameter, a constant of the script
**   program      a compiled graph: a flat list of instructions with a memory plan
**   phase        the part of a program that runs together
**   plan         the programs of one kind of solve; cached by its structure
**   step, stage  what a method does from t to t + h, and an evaluation of f within it
**   attempt      a step that is tried: accepted, or refused and made shorter
**   walk         one integration in progress, attempt after attempt
**   engine       how a backward pass finds the gradients: direct, adjoint, gq ...
**   trajectory   z(t) on the way back: solved in reverse, dense, from checkpoints, interpolated
**   cotangent    dL/dx of a value x
**   panel        a stretch of time over which a rule's nodes, or cotangents as moments, are spread
*/
#ifndef GQ_H
#define GQ_H

#ifdef __cplusplus
extern "C" {
#endif

#include "base/base.h"
#include "tensor/tensor.h"
#include "ir/ir.h"
#include "exec/exec.h"
#include "exec/tape.h"
#include "exec/backend.h"
#include "ode/ode.h"
#include "sde/sde.h"
#include "opt/opt.h"
#include "io/io.h"

#define GQ_VERSION "0.2.0"

#ifdef __cplusplus
}
#endif

#endif
