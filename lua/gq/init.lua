-- init.lua -- puts the module together: `gq` comes from C, load(name) runs a neighbour of this file.

local gq, load = ...
if type(gq) ~= "table" then
  error("lua/gq holds parts of gq.so, which is what require \"gq\" is to find: name it in package.cpath (LUA_CPATH) " ..
    "and leave this folder out of package.path (LUA_PATH)", 2)
end

load("options")                  -- gq.core.options and its kin, for all that follow
load("functional")               -- moments, softmax, norms, activations: gq.* and methods
load("spatial")                  -- gq.conv2d, max_pool2d, pad and their kin
load("normalise")                -- gq.batch_norm and its kin, dropout, embedding
gq.core.unrolled = load("traced") -- solve, det, cholesky and order where dynamics are traced
load("arrays")                   -- order, masks, running sums, gq.einsum: gq.* and methods
load("linear")                   -- gq.solve, gq.eigh and their kin
load("losses")                   -- gq.mse_loss, gq.cross_entropy, gq.gaussian_kl and their kin
gq.checkgrad = load("checkgrad")
load("derivatives")              -- gq.jvp, gq.jacobian, gq.hessian_vector
gq.nn = load("nn/module")
load("nn/layers")
load("nn/images")                -- nn.Conv2d, pooling, normalisation
load("nn/initial")               -- nn.init
load("nn/nets")                  -- nn.Sequential, nn.mlp and their kin
load("nn/cells")                 -- nn.RNNCell, nn.GRUCell
load("flow")                     -- gq.flow, gq.nn.CNF
gq.optim = load("optim")
load("lbfgs")                    -- gq.optim.lbfgs
load("together")                 -- lists of optimisers or schedules
gq.data = load("data")
load("density")                  -- gq.data.density
load("images")                   -- gq.data.mnist, cifar10, svhn, images and their kin
gq.logger = load("logger")
gq.progress = load("progress")
load("files")                    -- gq.save, gq.load, gq.checkpoint, gq.json
load("keeper")                   -- gq.checkpoint.keeper, gq.checkpoint.describe
load("interpolant")              -- odeint's opts.dense
load("solve")                    -- odeint's events and grid points
load("events")                   -- odeint's lists of events
load("states")                   -- odeint's states of several tensors
load("regularise")               -- gq.jet, gq.steer, odeint's regularisers
load("interpolate")              -- gq.interpolate, gq.cde
load("sde")                      -- gq.sde, gq.wong_zakai
load("sdeint")                   -- sdeint's states of several tensors, its path KL
gq.core.plotting = { contour = load("plot/marching"), gnuplot = load("plot/gnuplot") }
gq.core.plotting.terminal = load("plot/terminal")
gq.plot = load("plot/plot")
gq.tabulate = load("sweep/tabulate")
gq.core.sweeping = { configs = load("sweep/configs"), slurm = load("sweep/slurm"), tabulate = gq.tabulate }
gq.sweep = load("sweep/sweep")   -- with gq.sweep_results
gq.train = load("train")
gq.cli = load("cli")
gq.experiment = load("experiment")
gq.paper = load("paper")
load("topics")                   -- ?methods, ?gradient, ?guards, ?info
gq.core.examples = function() return load("examples") end     -- read when help is asked for
gq.core.accepts = function() return load("prompt/accepts") end -- at the first Tab in a call
load("help")
load("hints")                    -- names of other libraries
gq.core.prompt = { complete = load("prompt/complete"), show = load("prompt/show") }
gq.core.prompt.commands, gq.core.prompt.paint = load("prompt/commands"), load("prompt/paint")
