-- latent_sde.lua -- a latent SDE learns a stochastic Lorenz system from noisy series (Li, Wong, Chen & Duvenaud,
-- AISTATS 2020): an encoder reads a series backwards into a normal over z(0) and a context; posterior and prior
-- share one diffusion, so that their path KL is finite, and gq.sdeint gives it beside the states (logqp).

local gq = require "gq"
local nn = gq.nn

local o, given = gq.cli {
  about = "Train a latent SDE, a variational autoencoder with an SDE inside, on a stochastic Lorenz system.",
  more = "Printed are minus the evidence lower bound in nats a number (train and test loss), the mean squared error " ..
    "of a\npath of the posterior, and the path KL.",
  { "times", 40, "observations of a series on [0, 1]", "integer", 2 },
  { "series", 512, "series to train on", "integer", 1 },
  { "latent", 4, "numbers of the latent state", "integer", 1 },
  { "context", 16, "numbers that the encoder gives the posterior", "integer", 1 },
  { "dt", 0.025, "step of the solver", "number" },
  { "anneal", 20, "epochs in which the KL divergences' weight grows from 0 to 1", "integer", 0 },
  { "epochs", 100 }, { "width", 32 }, { "lr", 1e-2, "learning rate at the start; it falls by 0.985 an epoch" },
  { "batch-size", 64, "series a training step" },
  { "gradient", "auto", "auto, direct, aca or adjoint: an engine of gq.sdeint" },
  "seed", "seeds", "device", "out", "json", "plot", "quick", "quiet", "resume",
}
if not o then return end

local test_series, noise = 128, 0.05
if o.quick then
  test_series = 8
  if not given.times then o.times = 6 end
  if not given.series then o.series = 8 end
  if not given.width then o.width = 8 end
  if not given.epochs then o.epochs = 2 end
  if not given.batch_size then o.batch_size = 4 end
  if not given.dt then o.dt = 0.1 end
end
local shown = math.max(1, o.epochs // 15)

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- data ----

-- d(x, y, z) = (10 (y - x), x (28 - z) - y, x y - 8/3 z) dt + (0.1 x, 0.28 y, 0.3 z) dW, {series, times, 3}, of
-- deviation 1.
local function lorenz(n, seed)
  local scale = gq.tensor { 0.1, 0.28, 0.3 }
  local sde = gq.sde { calculus = "ito",
    drift = function(_, s)
      local x, y, z = s:narrow(2, 1, 1), s:narrow(2, 2, 1), s:narrow(2, 3, 1)
      return gq.cat({ 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z }, 2)
    end,
    diffusion = function(_, s) return scale * s end }
  local start = gq.randn(n, 3, { seed = gq.split_seed(seed, "start") })
  local path = gq.sdeint(sde, start, gq.linspace(0, 1, o.times), { dt = 2e-3, method = "milstein",
    seed = gq.split_seed(seed, "path"), gradient = "none" })
  path = (path - path:mean({ 1, 2 }, true)) / path:std({ 1, 2 }, true)
  path = path:transpose(1, 2):clone()
  return { truth = path, y = path + gq.randn(path.shape, { seed = gq.split_seed(seed, "noise") }) * noise }
end

-- ---- model ----

local LatentSDE = nn.Module:extend("LatentSDE")

function LatentSDE:init(n, context, width)
  self.encoder = nn.GRUCell(3, width)
  self.posterior = nn.Linear(width, 2 * n)
  self.context = nn.Linear(width, context)
  self.drift = nn.mlp { sizes = { n + context, width, width, n }, activation = "softplus", time = true }
  self.prior = nn.mlp { sizes = { n, width, width, n }, activation = "softplus" }
  self.slope, self.shift = nn.Linear(1, n), nn.Linear(1, n)         -- of the diffusion, a function of each z_i alone
  self.decoder = nn.mlp { sizes = { n, width, 3 }, activation = "softplus" }
  self.mean, self.log_std = nn.Linear(1, n), nn.Linear(1, n)        -- of the prior's z(0)
end

-- The SDE of a context; h is its prior.
function LatentSDE:sde(context)
  local one = gq.ones(1, 1)
  local slope, shift = self.slope(one), self.shift(one)
  return gq.sde { noise = "diagonal",
    drift = function(t, z) return self.drift(t, gq.cat({ z, context }, 2)) end,
    prior_drift = function(t, z) return self.prior(t, z) end,
    diffusion = function(_, z) return gq.sigmoid(slope * z + shift) * 0.9 + 0.1 end }
end

function LatentSDE:forward(y)
  local h
  for k = y.shape[2], 1, -1 do h = self.encoder(y[{ {}, k }], h) end
  local mean, log_std = table.unpack(self.posterior(h):split(o.latent, 2))
  local z0 = mean + log_std:exp() * gq.randn(mean.shape)
  local z, info = gq.sdeint(self:sde(self.context(h)), z0, gq.linspace(0, 1, y.shape[2]), { dt = o.dt, logqp = true,
    gradient = o.gradient })
  return self.decoder(z):transpose(1, 2), info, mean, log_std
end

-- ---- the evidence lower bound ----

local weight = 1                                    -- of the KL divergences, by the epoch

-- Of two normals, {n}
local function kl_divergence(mean, log_std, mean0, log_std0)
  local gap = (mean - mean0) / log_std0:exp()
  return ((2 * (log_std - log_std0)):exp() + gap:square() - 1 - 2 * (log_std - log_std0)):sum(2) * 0.5
end

local function bound(model, y)
  local predicted, info, mean, log_std = model:forward(y)
  local one = gq.ones(1, 1)
  local misfit = (y - predicted):square():reshape(#y, y:numel() // #y):sum(2) * (0.5 / noise ^ 2)
  local constant = math.log(noise) + 0.5 * math.log(2 * math.pi)
  local kl = kl_divergence(mean, log_std, model.mean(one), model.log_std(one)) + info.logqp:sum(1)
  return (misfit + kl * weight):sum() / y:numel() + constant, info, predicted
end

local function loss(model, y) return bound(model, y) end

local function evaluate(model, set)
  return gq.no_grad(function()
    local value, info, predicted = bound(model, set.y)
    return { test_loss = value:item(), test_mse = (predicted - set.truth):square():mean():item(),
      test_kl = info.logqp:sum(1):mean():item() }
  end)
end

-- A test series, and where paths of its posterior go: a panel a coordinate.
local function draw(model, set)
  local paths = model:forward(set.y:narrow(1, 1, 1):expand(200, o.times, 3):clone())
  local t, ordered, panels = gq.linspace(0, 1, o.times), paths:sort(1), {}
  for k = 1, 3 do
    local function label(text) return k == 1 and text or nil end
    panels[k] = gq.plot.line { { t, ordered[{ 10, {}, k }], ordered[{ 190, {}, k }], style = "band",
      label = label "nine paths of ten" }, { t, paths:mean(1)[{ {}, k }], label = label "their mean" },
      { t, set.truth[{ 1, {}, k }], style = "dashes", color = "#999999", label = label "true path" },
      { t, set.y[{ 1, {}, k }], style = "points", label = label "observed" }, title = ("xyz"):sub(k, k), xlabel = "t",
      out = false }
  end
  gq.plot.panels { panels, out = o.plot }
end

-- ---- training ----

local function run(seed)
  gq.manual_seed(seed)
  local train, test = lorenz(o.series, gq.split_seed(seed, "train")), lorenz(test_series, gq.split_seed(seed, "test"))
  local model = LatentSDE(o.latent, o.context, o.width)
  local optimiser = gq.optim.adam(model:parameters(), { lr = o.lr })
  local rows, state = gq.train {
    model = model, loss = loss, epochs = o.epochs, optimiser = optimiser, clip = 5,
    schedule = gq.optim.schedule.exponential(optimiser, { gamma = 0.985 ^ (o.batch_size / o.series) }),
    data = function(epoch)
      weight = math.min(1, epoch / math.max(1, o.anneal))
      return gq.data.batches({ x = train.y, y = train.truth }, { batch_size = o.batch_size, shuffle = true,
        seed = gq.split_seed(seed, "epoch", epoch) })
    end,
    validate = function(m) return evaluate(m, test) end,
    checkpoint = o.out and ("%s/latent_sde-seed%d.safetensors"):format(o.out, seed), resume = o.resume,
    progress = not o.quiet,
    on_epoch = function(row)
      if row.epoch % shown == 0 or row.epoch == o.epochs then say("%s", gq.epoch_line(row)) end
    end,
  }
  if o.plot and seed == o.seed then gq.no_grad(draw, model, test) end
  return rows, state
end

say("latent SDE, %d series of %d times, width %d, %d epochs, lr %g, %s", o.series, o.times, o.width, o.epochs, o.lr,
  o.gradient)
gq.experiment { options = o, metric = "test_mse", run = run }
