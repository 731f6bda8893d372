-- init.lua -- puts the module together: `gq` comes from C, load(name) runs a neighbour of this file.

local gq, load = ...

load("options")                  -- gq.core.options and its kin, for all that follow
load("functional")               -- softmax, losses, activations: gq.* and methods
gq.checkgrad = load("checkgrad")
load("derivatives")              -- gq.jvp, gq.jacobian, gq.hessian_vector
gq.nn = load("nn/module")
load("nn/layers")
load("nn/nets")                  -- nn.Sequential, nn.mlp and their kin
load("nn/cells")                 -- nn.RNNCell, nn.GRUCell
load("flow")                     -- gq.flow, gq.nn.CNF
gq.optim = load("optim")
gq.data = load("data")
load("density")                  -- gq.data.density
gq.logger = load("logger")
gq.progress = load("progress")
load("files")                    -- gq.save, gq.load, gq.checkpoint, gq.json
load("interpolant")              -- odeint's opts.dense
load("solve")                    -- odeint's events and grid points
load("states")                   -- odeint's states of several tensors
load("regularise")               -- gq.jet, gq.steer, odeint's regularisers
load("interpolate")              -- gq.interpolate, gq.cde
load("sde")                      -- gq.sde, gq.sdeint, gq.wong_zakai
gq.train = load("train")
gq.cli = load("cli")
gq.experiment = load("experiment")
gq.paper = load("paper")
load("topics")                   -- ?methods, ?gradient, ?guards, ?info
load("help")
