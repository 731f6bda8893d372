-- cnf.lua -- a continuous normalising flow learns a density in the plane from its points (Chen et al. 2018, section
-- 4; FFJORD: Grathwohl et al. 2019).

local gq = require "gq"
local nn = gq.nn

local o, given = gq.cli {
  about = "Train a continuous normalising flow on a density in the plane, by maximum likelihood.",
  more = "It prints the negative log-likelihood of test points (nll, in nats, the trace always exact), to compare " ..
    "with that\nunder the density they are drawn from, which no model beats but by chance, and under a normal fit. " ..
    "--out keeps\nsamples of the flow as .npy and .csv.",
  { "density", "moons", "what to learn", table.concat(gq.data.densities, "|") },
  { "trace", "exact", "of the Jacobian in training: products for every number, or one with a random probe a solve",
    "exact|hutchinson" },
  { "noise", "rademacher", "probes of hutchinson: signs or normal numbers", "rademacher|gaussian" },
  { "samples", 2000, "points to draw from the trained flow, with --out", "integer", 1 },
  { "epochs", 40 }, { "width", 64 },
  { "lr", 5e-3, "learning rate at the start; a tenth of it after 30 epochs, and so on" },
  { "batch-size", 250, "points a training step" },
  "gradient", "C", "paper", "trajectory", "impulses", "rtol", "atol", "seed", "seeds", "device", "out", "json", "quick",
  "quiet",
  "resume",
}
if not o then return end

local points, test_points = 5000, 2000
if o.quick then
  points, test_points = 100, 50
  if not given.epochs then o.epochs = 2 end
  if not given.width then o.width = 8 end
  if not given.batch_size then o.batch_size = 50 end
  if not given.samples then o.samples = 50 end
end

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- model: a normal at time 0, the data at time 1 ----

local function make_flow(width)
  return gq.flow {
    net = nn.mlp { sizes = { 2, width, width, width, 2 }, activation = "tanh", time = true },
    dim = 2, trace = o.trace, noise = o.noise, solver = gq.solver_options(o),
  }
end

local function loss(flow, x)
  local log_prob, info = flow:log_prob(x)
  return -log_prob:mean(), info
end

local function evaluate(flow, set)
  return { test_nll = -flow:log_prob(set.x, { trace = "exact" }):mean():item() }
end

-- ---- what to compare with ----

-- Mean negative log-likelihood of x under the normal with the mean and covariance of `fit`.
local function normal_nll(fit, x)
  local mean = fit:mean(1, true)
  local function covariance(y) return (y:t():matmul(y) / #y):totable() end
  local c, d = covariance(fit - mean), covariance(x - mean)
  local det = c[1][1] * c[2][2] - c[1][2] ^ 2
  local quadratic = (c[2][2] * d[1][1] + c[1][1] * d[2][2] - 2 * c[1][2] * d[1][2]) / det
  return math.log(2 * math.pi) + 0.5 * math.log(det) + 0.5 * quadratic
end

local function compare(set, row)
  row.test_nll_normal = normal_nll(set.train.x, set.test.x)
  local truth = ""
  if set.log_prob then
    row.test_nll_density = -set.log_prob(set.test.x):mean():item()
    truth = (", under the density itself %.4f"):format(row.test_nll_density)
  end
  say("test nll under the flow %.4f%s, under a normal fit %.4f", row.test_nll, truth, row.test_nll_normal)
end

local function keep_samples(flow, seed)
  local x = flow:sample(o.samples, { seed = gq.split_seed(seed, "samples") })
  local path = ("%s/cnf-%s-seed%d-samples"):format(o.out, o.density, seed)
  gq.save(path .. ".npy", x)
  gq.save(path .. ".csv", x)
end

-- ---- training ----

local function run(seed)
  gq.manual_seed(seed)
  local set = gq.data.density { name = o.density, seed = gq.split_seed(seed, "data"), train = points,
    test = test_points }
  local flow = make_flow(o.width)
  local optimiser = gq.optim.adam(flow:parameters(), { lr = o.lr })
  local gamma = 0.1 ^ (o.batch_size / (30 * points))          -- a tenth after 30 epochs
  local rows, state = gq.train {
    model = flow, loss = loss, name = "nll", epochs = o.epochs, optimiser = optimiser,
    schedule = gq.optim.schedule.exponential(optimiser, { gamma = gamma }),
    data = set.train, batch_size = o.batch_size, shuffle = true, seed = seed,
    validate = function(f) return evaluate(f, set.test) end,
    checkpoint = o.out and ("%s/cnf-%s-seed%d.safetensors"):format(o.out, o.density, seed), resume = o.resume,
    progress = not o.quiet,
    on_epoch = function(row) say("%s", gq.epoch_line(row)) end,
  }
  compare(set, rows[#rows])
  if o.out then keep_samples(flow, seed) end
  return rows, state
end

say("flow to %s, %s trace, width %d, %d epochs, lr %g, %s", o.density, o.trace, o.width, o.epochs, o.lr, o.gradient)
gq.experiment { options = o, metric = "test_nll", run = run }
