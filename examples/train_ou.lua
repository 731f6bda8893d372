-- train_ou.lua -- a neural SDE learns a time-dependent Ornstein-Uhlenbeck process (Norcliffe & Deisenroth,
-- section 5.6 and appendix F): trained as a Wong-Zakai ODE with the GQ adjoint, or as an SDE; evaluated with reversible
-- Heun.

local gq = require "gq"
local nn = gq.nn

local o, given = gq.cli {
  about = "Train a neural SDE, dx = f(t, x) dt + g(t, x) o dW, on samples of an Ornstein-Uhlenbeck process.",
  more = "The paper's settings: --paper --width 20 --epochs 100 --seeds 5 (--width 5, 50, 100; --cosines 0, 1, 5). "
    .. "--gradient sde-direct, sde-aca, sde-reversible and sde-adjoint train along Brownian paths instead.",
  "width", { "epochs", 40 },
  { "lr", nil, "learning rate (5e-3 in the default run; with --width or --epochs the paper's)", "number" },
  { "batch-size", 40, "starts a training step, each with all its samples" },
  "gradient", "C", "paper", "cosines", "trajectory", "impulses", "rtol", "atol", "seed", "seeds", "device", "out",
  "json",
  "plot", "quick", "quiet", "resume",
}
if not o then return end

-- ---- settings ----

local samples, starts, test_starts, dt = 45, 200, 20, 0.01
if o.quick then
  samples, starts, test_starts, dt = 8, 8, 4, 0.05
  if not given.width then o.width = 5 end
  if not given.epochs then o.epochs = 2 end
  if not given.batch_size then o.batch_size = 4 end
end
local default_run = not (given.width or given.epochs or given.quick)
o.lr = o.lr or (default_run and 5e-3 or gq.paper.rate("train_ou", o.width))

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- model ----

-- Drift and diffusion are separate networks of (x, t).
local NeuralSDE = nn.Module:extend("NeuralSDE")
function NeuralSDE:init(width)
  local sizes = { 1, width, width, 1 }
  self.drift = nn.mlp { sizes = sizes, activation = "softplus", time = true }
  self.diffusion = nn.mlp { sizes = sizes, activation = "softplus", time = true }
  rawset(self, "_sde", gq.sde { drift = self.drift, diffusion = self.diffusion, noise = "diagonal",
    calculus = "stratonovich" })
end

-- Every start as often as there are samples: {starts, 1} -> {starts * samples, 1}
local function repeated(x) return x:expand(#x, samples):reshape(#x * samples, 1) end

-- ---- loss and evaluation ----

-- z {times, starts * samples, 1} against fits of the data {times, starts}
local function divergence(z, fit)
  return gq.gaussian_kl(z:reshape(z.shape[1], -1, samples), fit, { time = 1 })
end

-- The data's means and deviations do not change: fit them once. A batch is its entries, times first.
local function fitted(set)
  local fit = gq.normal_fit(set.y)                   -- y {starts, times, samples}
  return { x = set.x, y = fit }
end

local function times_first(fit) return { mean = fit.mean:t(), std = fit.std:t() } end

-- Steps of reversible Heun along the path of a seed, with gradients by one of gq.sdeint's engines.
local function along(model, z0, times, seed, gradient, tol)
  local brownian = gq.brownian { t0 = times[1], t1 = times[#times], shape = z0.shape, seed = seed, tol = tol }
  return gq.sdeint(model._sde, z0, times, { method = "reversible_heun", dt = dt, brownian = brownian,
    gradient = gradient })
end

local function evaluate(model, set, times, seed)
  local z = along(model, repeated(set.x), times, seed, "none")
  return divergence(z, times_first(set.y)):item()
end

-- ---- the picture: Fig. 15 ----

local shown = { 0.3, 5, 10 }                          -- times of its upper row

local function bell(x, values)
  local mean, sd = values:mean():item(), values:std():item()
  return gq.exp(((x - mean) / sd):square() * -0.5) / (sd * math.sqrt(2 * math.pi))
end

-- The entry of times that is nearest to t.
local function nearest(times, t) return (gq.tensor(times) - t):abs():argmin():item() end

-- y {starts, times, samples} of the data, z likewise of the model
local function draw(model, set, times, seed)
  local z = along(model, repeated(set.x), times, seed, "none"):reshape(#times, -1, samples):transpose(1, 2)
  local upper, lower = {}, {}
  for k, t in ipairs(shown) do
    local i = nearest(times, t)
    local y, p = set.y[1][i], z[1][i]
    local both = gq.cat({ y, p }, 1)
    local x = gq.linspace(both:min():item(), both:max():item(), 100)
    upper[k] = gq.plot.line { { x, bell(x, y), label = "true" }, { x, bell(x, p), label = "learnt" },
      title = ("t = %.1f"):format(times[i]), xlabel = "x", ylabel = "p(x)", out = false }
    local n = math.min(samples, 8)
    lower[k] = gq.plot.line { { times, set.y[k]:narrow(2, 1, n), label = "true" },
      { times, z[k]:narrow(2, 1, n), label = "learnt" }, xlabel = "t", ylabel = "x",
      title = ("x(0) = %.2f"):format(set.x[k]:item()), out = false }
  end
  gq.plot.panels { upper, lower, out = o.plot }
end

-- ---- training ----

local function run(seed)
  gq.manual_seed(seed)
  local times = gq.data.ou_times()
  local made = gq.data.ornstein_uhlenbeck { seed = gq.split_seed(seed, "data"), train = starts, test = test_starts,
    samples = samples, times = times, dt = dt }
  local train_set, test_set = fitted(made.train), fitted(made.test)
  local model = NeuralSDE(o.width)
  local optimiser = gq.optim.adam(model:parameters(), { lr = o.lr })

  -- A new draw of the noise for each step; the same one whenever that step is run.
  local engine = o.gradient:match "^sde%-(.+)$"
  local function loss(m, x, y)
    if engine then
      local path = gq.split_seed(seed, "path", optimiser:steps())
      local z, info = along(m, repeated(x), times, path, engine, dt / 4)
      return divergence(z, times_first(y)), info
    end
    local field = gq.wong_zakai(m._sde, { cosines = o.cosines, t0 = times[1], t1 = times[#times],
      seed = gq.split_seed(seed, "cosines", optimiser:steps()) })
    local z, info = gq.odeint(field, repeated(x), times, gq.solver_options(o))
    return divergence(z, times_first(y)), info
  end

  local rows, state = gq.train {
    model = model, loss = loss, optimiser = optimiser, name = "kl", epochs = o.epochs,
    data = train_set, batch_size = o.batch_size, shuffle = true, seed = seed,
    validate = function(m, epoch)
      return { test_kl = evaluate(m, test_set, times, gq.split_seed(seed, "evaluate", epoch)) }
    end,
    checkpoint = o.out and ("%s/train_ou-seed%d.safetensors"):format(o.out, seed), resume = o.resume,
    progress = not o.quiet,
    on_epoch = function(row) say("%s", gq.epoch_line(row)) end,
  }
  if o.plot and seed == o.seed then draw(model, made.test, times, gq.split_seed(seed, "picture")) end
  return rows, state
end

say("Ornstein-Uhlenbeck, width %d, %d epochs, lr %g, %d cosines, %s", o.width, o.epochs, o.lr, o.cosines, o.gradient)
gq.experiment { options = o, metric = "test_kl", run = run }
if default_run then
  say("To train with the paper's settings, where it reports a test KL of 0.065 +- 0.007:\n" ..
    "  gqlua examples/train_ou.lua --paper --width 20 --epochs 100 --seeds 5")
end
