-- sines.lua -- a second-order neural ODE learns x'' = -x from positions at regular or irregular times (Norcliffe
-- & Deisenroth, section 5.4 and appendix E.3).

local gq = require "gq"
local nn = gq.nn

local o, given = gq.cli {
  about = "Train the acceleration of a second-order neural ODE on sine curves x'' = -x.",
  more = "The paper's settings of Table 4 are the defaults, with --seeds 5, --times 10 or 50 and --irregular; the " ..
    "widths of\nits Figure 5 are 5 to 2000. Irregular times are those of all trajectories in one solve: there " ..
    "--impulses moments pays.",
  { "times", 50, "measurements of a trajectory on [0, 2 pi]" },
  { "irregular", false, "times of its own for each trajectory, drawn at random" },
  { "epochs", 250 }, { "width", 1000 }, "lr", { "batch-size", 15, "trajectories a training step" },
  "gradient", "C", "paper", "trajectory", "impulses", "rtol", "atol", "seed", "seeds", "device", "out", "json", "plot",
  "quick",
  "quiet",
  "resume",
}
if not o then return end

-- ---- settings ----

local trajectories, test_trajectories = 15, 5
if o.quick then
  trajectories = 4
  if not given.times then o.times = 5 end
  if not given.width then o.width = 5 end
  if not given.epochs then o.epochs = 2 end
  if not given.batch_size then o.batch_size = 4 end
end
o.lr = o.lr or gq.paper.rate("sines", o.width)
local shown = math.max(1, o.epochs // 25)          -- an epoch is one step: not all are printed

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- model: the state is position and velocity, {trajectories, 2} ----

local function oscillator(width)
  return nn.SecondOrder(nn.mlp { sizes = { 2, width, width, 1 }, activation = "softplus" })
end

-- Positions {n, times} at the rows of t, by one solve through all of them.
local function positions(model, z0, t)
  local times, index = gq.data.union_times(t)
  local z, info = gq.odeint(model, z0, times, gq.solver_options(o))
  return gq.data.at_times(z:narrow(3, 1, 1), index):squeeze(3), info
end

-- A batch's targets are positions and their times; regular ones are the same for all.
local function timed(set)
  local t = set.t
  if t:dim() == 1 then t = t:expand(#set.x, #t) end
  return { x = set.x, y = { position = set.y, t = t } }
end

local function loss(model, x, y)
  local position, info = positions(model, x, y.t)
  return gq.mse_loss(position, y.position), info
end

-- ---- the picture: trajectories from the test's starts, past the data ----

local function draw(model, set)
  local times = gq.linspace(0, 3 * math.pi, 150)
  local z = gq.odeint(model, set.x, times, gq.solver_options(o)):narrow(3, 1, 1):squeeze(3)
  local truth = gq.odeint(function(_, s) return gq.cat({ s:narrow(2, 2, 1), -s:narrow(2, 1, 1) }, 2) end, set.x, times,
    { rtol = 1e-6, atol = 1e-6 }):narrow(3, 1, 1):squeeze(3)
  local t = set.y.t
  gq.plot.line { { times, truth, style = "dashes", color = "#999999", label = "x'' = -x" },
    { times, z, color = 1, label = "learnt" }, { t:flatten(), set.y.position:flatten(), style = "points", color = 2,
    label = "test data" }, xlabel = "t", ylabel = "x", out = o.plot }
end

-- ---- training ----

local function run(seed)
  gq.manual_seed(seed)
  local set = gq.data.sines { seed = gq.split_seed(seed, "data"), train = trajectories, test = test_trajectories,
    times = o.times, regular = not o.irregular }
  local train_set, test_set, model = timed(set.train), timed(set.test), oscillator(o.width)
  local rows, state = gq.train {
    model = model, loss = loss, name = "mse", epochs = o.epochs,
    optimiser = gq.optim.adam(model:parameters(), { lr = o.lr }),
    data = train_set, batch_size = o.batch_size, shuffle = true, seed = seed,
    validate = function(m) return { test_mse = loss(m, test_set.x, test_set.y):item() } end,
    checkpoint = o.out and ("%s/sines-seed%d.safetensors"):format(o.out, seed), resume = o.resume,
    progress = not o.quiet,
    on_epoch = function(row)
      if row.epoch % shown == 0 or row.epoch == o.epochs then say("%s", gq.epoch_line(row)) end
    end,
  }
  if o.plot and seed == o.seed then gq.no_grad(draw, model, test_set) end
  return rows, state
end

say("sines, %d %s times, width %d, %d epochs, lr %g, %s", o.times, o.irregular and "irregular" or "regular", o.width,
  o.epochs, o.lr, o.gradient)
gq.experiment { options = o, metric = "test_mse", run = run }
