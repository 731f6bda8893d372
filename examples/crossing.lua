-- crossing.lua -- an augmented neural ODE takes 1 to -1 and -1 to 1, which no one-dimensional flow can do
-- (Norcliffe & Deisenroth, appendix G).

local gq = require "gq"
local nn = gq.nn

local o, given = gq.cli {
  about = "Train an augmented neural ODE to swap 1 and -1.",
  more = "The paper's settings are the defaults, with --seeds 10; its widths are 5 to 3000.",
  { "epochs", 200 }, "width", "lr", { "batch-size", 2, "points a training step: both, or one" },
  "gradient", "C", "paper", "trajectory", "impulses", "rtol", "atol", "seed", "seeds", "device", "out", "json", "quick",
  "quiet",
  "resume",
}
if not o then return end
if o.quick and not given.epochs then o.epochs = 2 end
o.lr = o.lr or gq.paper.rate("crossing", o.width)
local shown = math.max(1, o.epochs // 20)          -- an epoch is one step: not all are printed

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- model: 1 -> 4 by zeros, an ODE on [0, 1], the first coordinate ----

local augmented, times = 3, { 0, 1 }

local Swap = nn.Module:extend("Swap")
function Swap:init(width)
  local n = 1 + augmented
  self.augment = nn.Augment(augmented)
  self.dynamics = nn.mlp { sizes = { n, width, width, n }, activation = "softplus" }
end

function Swap:forward(x)
  local z, info = gq.odeint(self.dynamics, self.augment(x), times, gq.solver_options(o))
  return z[-1]:narrow(2, 1, 1), info
end

local function loss(model, x, y)
  local z, info = model(x)
  return gq.mse_loss(z, y), info
end

-- ---- training ----

local function run(seed)
  gq.manual_seed(seed)
  local set, model = gq.data.crossing(), Swap(o.width)
  return gq.train {
    model = model, loss = loss, name = "mse", epochs = o.epochs,
    optimiser = gq.optim.adam(model:parameters(), { lr = o.lr }),
    data = set.train, batch_size = o.batch_size, shuffle = true, seed = seed,
    validate = function(m) return { test_mse = loss(m, set.test.x, set.test.y):item() } end,
    checkpoint = o.out and ("%s/crossing-seed%d.safetensors"):format(o.out, seed), resume = o.resume,
    progress = not o.quiet,
    on_epoch = function(row)
      if row.epoch % shown == 0 or row.epoch == o.epochs then say("%s", gq.epoch_line(row)) end
    end,
  }
end

say("crossing, width %d, %d epochs, lr %g, %s", o.width, o.epochs, o.lr, o.gradient)
gq.experiment { options = o, metric = "test_mse", run = run }
