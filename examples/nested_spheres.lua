-- nested_spheres.lua -- an augmented neural ODE separates a disc from the ring around it (Norcliffe &
-- Deisenroth, section 5.3 and appendix E.2).

local gq = require "gq"
local nn = gq.nn

local o, given = gq.cli {
  about = "Train an augmented neural ODE to tell a disc (radius 0.4) from a ring (0.7 to 0.9).",
  more = "The paper's settings are the defaults, with --seeds 10; its widths are 5 to 3000.",
  "epochs", "width", "lr", { "batch-size", 200, "points a training step" }, "gradient", "C", "paper", "trajectory",
  "impulses", "rtol", "atol", "seed", "seeds", "device", "out", "json", "plot", "quick", "quiet", "resume",
}
if not o then return end

local points = 1000
if o.quick then
  points = 100
  if not given.epochs then o.epochs = 2 end
  if not given.batch_size then o.batch_size = 50 end
end
o.lr = o.lr or gq.paper.rate("nested_spheres", o.width)

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- model: 2 -> 5 by zeros, an ODE on [0, 1], a linear layer ----

local augmented, times = 3, { 0, 1 }

local Classifier = nn.Module:extend("Classifier")
function Classifier:init(width)
  local n = 2 + augmented
  self.augment = nn.Augment(augmented)
  self.dynamics = nn.mlp { sizes = { n, width, width, n }, activation = "softplus", time = true }
  self.readout = nn.Linear(n, 2)
end

function Classifier:forward(x)
  local z, info = gq.odeint(self.dynamics, self.augment(x), times, gq.solver_options(o))
  return self.readout(z[-1]), info
end

local function evaluate(model, set)
  local logits = model(set.x)
  local right = logits:argmax(-1):eq(set.y):to("float32"):mean():item()
  return { test_loss = gq.cross_entropy(logits, set.y):item(), test_accuracy = right }
end

-- ---- the picture: what the plane is taken for, and where the ODE takes the points ----

local function draw(model, set)
  local side = gq.linspace(-1, 1, 60)
  local logits = model(gq.plot.grid(side, side))
  local p = logits:softmax(2):narrow(2, 2, 1):reshape(60, 60)
  local some = math.min(#set.x, 200)
  local x, y = set.x:narrow(1, 1, some), set.y:narrow(1, 1, some)
  local z = gq.odeint(model.dynamics, model.augment(x), gq.linspace(0, 1, 20), gq.solver_options(o))
  local regions = { { side, side, p }, equal = true, title = "probability of the ring", out = false }
  local colors = { "#ffffff", "#ee6677" }
  local items = { equal = true, title = "flow of the first two numbers", out = false }
  for class, name in ipairs { "disc", "ring" } do
    local of = {}
    for i = 1, some do
      if y[i]:item() == class and #of < 40 then of[#of + 1] = i end
    end
    local of_class = z:index_select(2, gq.tensor(of, { dtype = "int64" })):narrow(3, 1, 2)
    items[class] = { of_class, label = name, color = class }
    regions[class + 1] = { of_class[1], style = "points", color = colors[class] }
    items[class + 2] = { of_class[-1], style = "points", color = class }
  end
  gq.plot.panels { { gq.plot.heat(regions), gq.plot.line(items) }, out = o.plot }
end

-- ---- training ----

local function run(seed)
  gq.manual_seed(seed)
  local set = gq.data.nested_spheres { seed = gq.split_seed(seed, "data"), train = points }
  local model = Classifier(o.width)
  local rows, state = gq.train {
    model = model, epochs = o.epochs,
    loss = function(m, x, y)
      local logits, info = m(x)
      return gq.cross_entropy(logits, y), info
    end,
    optimiser = gq.optim.adam(model:parameters(), { lr = o.lr }),
    data = set.train, batch_size = o.batch_size, shuffle = true, seed = seed,
    validate = function(m) return evaluate(m, set.test) end,
    checkpoint = o.out and ("%s/nested_spheres-seed%d.safetensors"):format(o.out, seed), resume = o.resume,
    progress = not o.quiet,
    on_epoch = function(row) say("%s", gq.epoch_line(row)) end,
  }
  if o.plot and seed == o.seed then gq.no_grad(draw, model, set.test) end
  return rows, state
end

say("nested spheres, width %d, %d epochs, lr %g, %s", o.width, o.epochs, o.lr, o.gradient)
gq.experiment { options = o, metric = "test_accuracy", percent = true, run = run }
