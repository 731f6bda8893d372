-- latent_ode.lua -- a latent ODE learns series seen with noise at irregular times (Chen et al. 2018, section 5;
-- Rubanova et al. 2019): an encoder reads a series backwards into a normal over z(0), an ODE carries z on, a decoder
-- reads positions from it.

local gq = require "gq"
local nn = gq.nn

local o, given = gq.cli {
  about = "Train a latent ODE, a variational autoencoder with an ODE inside, on spirals seen at irregular times.",
  more = "It prints mean squared errors of positions without noise: between the observations (test mse) and " ..
    "after the last\nof them (test extrapolation mse), from the mean of z(0). All series of a batch are one solve " ..
    "over all their times.",
  { "times", 30, "observations of a series", "integer", 1 },
  { "series", 1000, "series to train on", "integer", 1 },
  { "latent", 4, "numbers of the latent state", "integer", 1 },
  { "anneal", 5, "epochs in which the KL divergence's weight grows from 0 to 1", "integer", 0 },
  { "epochs", 80 }, { "width", 32 }, { "lr", 1e-2, "learning rate at the start; a tenth of it after 60 epochs" },
  { "batch-size", 50, "series a training step" },
  "gradient", "C", "paper", "trajectory", "impulses", "rtol", "atol", "seed", "seeds", "device", "out", "json",
  "quick", "quiet", "resume",
}
if not o then return end

-- ---- settings ----

local test_series, noise = 50, 0.1
if o.quick then
  test_series = 8
  if not given.times then o.times = 5 end
  if not given.series then o.series = 8 end
  if not given.width then o.width = 8 end
  if not given.epochs then o.epochs = 2 end
  if not given.batch_size then o.batch_size = 4 end
end
local shown = math.max(1, o.epochs // 15)          -- not all epochs are printed

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- model ----

local LatentODE = nn.Module:extend("LatentODE")

function LatentODE:init(n, width)
  self.encoder = nn.GRUCell(3, width)                               -- two numbers and a gap in time
  self.posterior = nn.Linear(width + 1, 2 * n)
  self.dynamics = nn.mlp { sizes = { n, width, width, n }, activation = "tanh" }
  self.decoder = nn.mlp { sizes = { n, width, 2 }, activation = "relu" }
end

-- Mean and logarithm of the deviation of z(0), from the last of y {n, times, 2} at t {n, times} to the first.
function LatentODE:encode(y, t)
  local n, times = t.shape[1], t.shape[2]
  local gap, h = gq.zeros(n, 1), nil
  for k = times, 1, -1 do
    h = self.encoder(gq.cat({ y[{ {}, k }], gap }, 2), h)
    gap = t:narrow(2, k, 1) - (k > 1 and t:narrow(2, k - 1, 1) or 0)
  end
  local p = self.posterior(gq.cat({ h, gap }, 2))
  return table.unpack(p:split(p.shape[2] // 2, 2))
end

-- Positions {n, times, 2} at t {n, times}, all >= 0, by one solve from z(0) through all of them.
function LatentODE:decode(z0, t)
  local with_start = gq.cat({ gq.zeros(t.shape[1], 1), t }, 2)
  local times, index = gq.data.union_times(with_start)
  local z, info = gq.odeint(self.dynamics, z0, times, gq.solver_options(o))
  return self.decoder(gq.data.at_times(z, index):narrow(2, 2, t.shape[2])), info
end

-- ---- the evidence lower bound ----

local weight = 1                                    -- of the KL divergence, by the epoch

-- KL(N(mean, e^(2 log_std)) || N(0, 1)), {n}
local function kl_divergence(mean, log_std)
  return ((log_std * 2):exp() + mean:square() - 1 - log_std * 2):sum(2) * 0.5
end

-- Minus the bound, in nats a number observed.
local function loss(model, y, t)
  local mean, log_std = model:encode(y, t)
  local z0 = mean + log_std:exp() * gq.randn(mean.shape)
  local predicted, info = model:decode(z0, t)
  local misfit = (y - predicted):square():reshape(#y, y:numel() // #y):sum(2) * (0.5 / noise ^ 2)
  local constant = math.log(noise) + 0.5 * math.log(2 * math.pi)
  return (misfit + kl_divergence(mean, log_std) * weight):sum() / y:numel() + constant, info
end

local function evaluate(model, set, span)
  local z0 = model:encode(set.y, set.t)
  local error2 = (model:decode(z0, set.grid:unsqueeze(1):expand(#set.y, #set.grid)) - set.truth):square():mean({ 1, 3 })
  local inside = set.grid:le(span + 1e-4):to("float32")
  return { test_mse = ((error2 * inside):sum() / inside:sum()):item(),
    test_extrapolation_mse = ((error2 * (1 - inside)):sum() / (1 - inside):sum()):item() }
end

-- ---- training ----

local function run(seed)
  gq.manual_seed(seed)
  local set = gq.data.spirals { seed = gq.split_seed(seed, "data"), train = o.series, test = test_series,
    times = o.times, noise = noise }
  local model = LatentODE(o.latent, o.width)
  local optimiser = gq.optim.adam(model:parameters(), { lr = o.lr })
  local pairs_of = { x = set.train.y, y = set.train.t }
  return gq.train {
    model = model, loss = loss, epochs = o.epochs, optimiser = optimiser, clip = 5,
    schedule = gq.optim.schedule.exponential(optimiser, { gamma = 0.1 ^ (o.batch_size / (60 * o.series)) }),
    data = function(epoch)
      weight = math.min(1, epoch / math.max(1, o.anneal))
      return gq.data.batches(pairs_of, { batch_size = o.batch_size, shuffle = true,
        seed = gq.split_seed(seed, "epoch", epoch) })
    end,
    validate = function(m) return evaluate(m, set.test, set.span) end,
    checkpoint = o.out and ("%s/latent_ode-seed%d.safetensors"):format(o.out, seed), resume = o.resume,
    progress = not o.quiet,
    on_epoch = function(row)
      if row.epoch % shown == 0 or row.epoch == o.epochs then say("%s", gq.epoch_line(row)) end
    end,
  }
end

say("latent ODE, %d series of %d times, width %d, %d epochs, lr %g, %s", o.series, o.times, o.width, o.epochs, o.lr,
  o.gradient)
gq.experiment { options = o, metric = "test_mse", run = run }
