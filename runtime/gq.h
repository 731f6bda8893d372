/*
** gq.h -- the gqlua runtime, in the order in which work flows through it.
**
**   base     status codes and messages, the allocator, interrupts, Philox, threads
**   tensor   dtype, shape and strides over counted storage
**   ir       graphs of operations; vjp, jet, batch, rows, hoist: graph to graph
**   exec     one op at once, or a graph compiled to a program; the tape and tracing; code that is called back
**   field    dynamics made ready for solvers, systems derived from them
**   method   methods as table rows (explicit, implicit, multistep, reversible), steps as graphs
**   ode      the solver loop, and what it leaves for the way back
**   grad     the gradient engines behind ode.h: backpropagation, adjoints, quadratures of eq. (11), rows on their own
**   sde      Brownian paths and forward SDE solvers
**   opt      Adam, AdamW, SGD, RMSProp over flat blocks
**   io       .npy, .safetensors, atomic files
**
** Functions return GQ_OK or a status; gq_message() says what was given and what to do.
** Verbs tell ownership: _new pairs with _free, _ref with _unref; results through `gq_tensor **`
** are new references unless called lent. Dimensions and indices are 0-based in C.
*/
#ifndef GQ_H
#define GQ_H

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

#define GQ_VERSION "0.1.0"

#endif
