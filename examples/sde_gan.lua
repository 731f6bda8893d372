-- sde_gan.lua -- a neural SDE as the generator of a Wasserstein GAN, a neural CDE as its critic (Kidger, Foster, Li &
-- Lyons, ICML 2021), on a time-dependent Ornstein-Uhlenbeck process: dx = (mu t - theta x) dt + (sigma + phi t) o dW.

local gq = require "gq"
local nn = gq.nn

local o, given = gq.cli {
  about = "Train a neural SDE as a GAN on sample paths of a time-dependent Ornstein-Uhlenbeck process.",
  more = "The generator's steps are reversible Heun's, with its exact gradient. Printed is the Gaussian KL of " ..
    "generated and\ntrue paths over the samples of one time, averaged over times (test kl).",
  { "times", 16, "observations of a path on [0, 3]", "integer", 2 },
  { "series", 4096, "paths to train on", "integer", 1 },
  { "hidden", 8, "numbers of the generator's and the critic's states", "integer", 1 },
  { "dt", 0.1, "step of the solver", "number" },
  { "noises", 3, "Brownian motions of the generator", "integer", 1 },
  { "epochs", 60 }, { "width", 16 }, { "lr", 2e-3, "learning rate of the generator; the critic's is four times that" },
  { "batch-size", 256, "paths a training step" },
  { "gradient", "reversible", "reversible, direct or aca: an engine of gq.sdeint" },
  "seed", "seeds", "device", "out", "json", "quick", "quiet",
}
if not o then return end

local test_series = 2048
if o.quick then
  test_series = 64
  if not given.times then o.times = 4 end
  if not given.series then o.series = 32 end
  if not given.epochs then o.epochs = 2 end
  if not given.batch_size then o.batch_size = 16 end
  if not given.dt then o.dt = 0.5 end
end
local shown = math.max(1, o.epochs // 15)
local times = gq.linspace(0, 3, o.times)

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- data: {paths, times} ----

local function paths(n, seed)
  local sde = gq.sde { drift = function(t, x) return 0.02 * t - 0.1 * x end,
    diffusion = function(t, x) return 0 * x + 0.4 * t / 3 + 0.2 end }
  local start = gq.rand(n, 1, { seed = gq.split_seed(seed, "start") }) * 2 - 1
  local x = gq.sdeint(sde, start, times, { dt = 0.02, seed = gq.split_seed(seed, "path"), gradient = "none" })
  return x:squeeze(3):transpose(1, 2):clone()
end

-- ---- generator and critic ----

local Generator = nn.Module:extend("Generator")

function Generator:init(n, width, noises)
  self.start = nn.mlp { sizes = { 3, width, n }, activation = "softplus" }
  self.drift = nn.mlp { sizes = { n, width, n }, activation = "softplus", time = true }
  self.noise = nn.mlp { sizes = { n, width, n * noises }, activation = "softplus", time = true }
  self.read = nn.Linear(n, 1)
end

function Generator:forward(n)
  local h, m = o.hidden, o.noises
  local sde = gq.sde { noise = "general",
    drift = function(t, z) return gq.tanh(self.drift(t, z)) end,
    diffusion = function(t, z) return gq.tanh(self.noise(t, z)):reshape { #z, h, m } end }
  local z, info = gq.sdeint(sde, self.start(gq.randn(n, 3)), times, { dt = o.dt, method = "reversible_heun",
    gradient = o.gradient })
  return self.read(z):squeeze(3):transpose(1, 2), info
end

-- dh = f(t, h) (1, dx/dt) dt along the path, which is linear between its times: Euler steps of the times' distance.
local Critic = nn.Module:extend("Critic")

function Critic:init(n, width)
  self.start = nn.mlp { sizes = { 1, width, n }, activation = "softplus", time = true }
  self.field = nn.mlp { sizes = { n, width, 2 * n }, activation = "softplus", time = true }
  self.read = nn.Linear(n, 1)
end

function Critic:forward(x)
  local h, step = self.start(gq.tensor(0), x:narrow(2, 1, 1)), 3 / (o.times - 1)
  for k = 1, o.times - 1 do
    local f = gq.tanh(self.field(times[k], h))
    local rise = x:narrow(2, k + 1, 1) - x:narrow(2, k, 1)
    h = h + f:narrow(2, 1, o.hidden) * step + f:narrow(2, o.hidden + 1, o.hidden) * rise
  end
  return self.read(h):mean()
end

-- ---- training ----

-- The critic's Lipschitz constant is held by its weights' size (the paper's clipping).
local function clip(critic)
  gq.no_grad(function()
    for _, p in ipairs(critic:parameters()) do
      local most = p:dim() > 1 and 1 / p.shape[2] or 1
      p:copy_(gq.clamp(p, -most, most))
    end
  end)
end

-- A step of the critic, and then the generator's loss.
local function game(critic, optimiser)
  return function(generator, x)
    local fake = gq.no_grad(generator.forward, generator, #x)
    optimiser:zero_grad()
    local score = critic(fake) - critic(x)
    score:backward()
    optimiser:step()
    clip(critic)
    local made, info = generator(#x)
    return -critic(made), info
  end
end

local function evaluate(generator, truth)
  return gq.no_grad(function()
    local x = generator(#truth)
    return { test_kl = gq.gaussian_kl(x:transpose(1, 2):narrow(1, 2, o.times - 1),
      truth:transpose(1, 2):narrow(1, 2, o.times - 1)):mean():item() }
  end)
end

local function run(seed)
  gq.manual_seed(seed)
  local train, test = paths(o.series, gq.split_seed(seed, "train")), paths(test_series, gq.split_seed(seed, "test"))
  local generator, critic = Generator(o.hidden, o.width, o.noises), Critic(o.hidden, o.width)
  clip(critic)
  return gq.train {
    model = generator, epochs = o.epochs, optimiser = gq.optim.rmsprop(generator:parameters(), { lr = o.lr }),
    loss = game(critic, gq.optim.rmsprop(critic:parameters(), { lr = 4 * o.lr })),
    data = function(epoch)
      return gq.data.batches({ x = train, y = train }, { batch_size = o.batch_size, shuffle = true,
        seed = gq.split_seed(seed, "epoch", epoch) })
    end,
    validate = function(m) return evaluate(m, test) end,
    progress = not o.quiet,
    on_epoch = function(row)
      if row.epoch % shown == 0 or row.epoch == o.epochs then say("%s", gq.epoch_line(row)) end
    end,
  }
end

say("SDE-GAN, %d paths of %d times, width %d, %d epochs, lr %g, %s", o.series, o.times, o.width, o.epochs, o.lr,
  o.gradient)
gq.experiment { options = o, metric = "test_kl", run = run }
