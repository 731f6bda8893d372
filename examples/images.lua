-- images.lua -- a convolutional neural ODE sorts images into classes (Norcliffe & Deisenroth, section 5.5 and appendix
-- E.4): a few layers that make them smaller, dynamics of three convolutions on [0, 1], two linear layers.

local gq = require "gq"
local nn = gq.nn

local o, given = gq.cli {
  about = "Train a convolutional neural ODE to classify images.",
  more = "The paper's settings are the defaults, with --seeds 3, for mnist, cifar10 and svhn; 64 to 512 channels.",
  { "dataset", "fashion_mnist", "what to learn; bars: drawn by this script; images: --data DIR/train/CLASS/*.png",
    "mnist|fashion_mnist|cifar10|cifar100|svhn|images|bars" },
  { "channels", 64, "hidden channels of the dynamics", "integer", 1 },
  { "epochs", 15, "passes over the training data", "integer", 0 }, "lr",
  { "batch-size", 16, "images a training step", "integer", 1 },
  { "augment", false, "mirror (not digits) and shift the training images" },
  { "train", nil, "so many training images, of the first", "integer", 1 },
  { "test", nil, "so many test images, of the first", "integer", 1 },
  { "steps", nil, "stop after so many training steps", "integer", 1 },
  { "every", nil, "steps between checkpoints; by default after each epoch", "integer", 1 },
  "gradient", "C", "paper", "trajectory", "impulses", "rtol", "atol", "seed", "seeds", "device", "data", "out", "json",
  "quick", "quiet", "resume",
}
if not o then return end

if o.quick then
  for key, value in pairs { dataset = "bars", channels = 4, epochs = 2, batch_size = 20, train = 60, test = 40 } do
    if not given[key] then o[key] = value end
  end
end
o.lr = o.lr or ({ mnist = 1e-5, cifar10 = 6e-5, svhn = 6e-5, bars = 1e-2 })[o.dataset] or 1e-4

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- data ----

-- Images {n, 1, 14, 14} of noise with a bar in them, lying, standing or leaning one way or the other: four classes.
local function bars(n, seed)
  local x = gq.randn({ n, 1, 14, 14 }, { seed = seed }) * 0.1
  local y = gq.randint(1, 4, n, { seed = gq.split_seed(seed, "class") })
  local at = gq.randint(3, 12, n, { seed = gq.split_seed(seed, "place") }):totable()
  local step = { { 0, 1 }, { 1, 0 }, { 1, 1 }, { 1, -1 } }
  for i, class in ipairs(y:totable()) do
    local dr, dc = table.unpack(step[class])
    for k = -6, 6 do
      local r, c = dr == 0 and at[i] or 7 + k, dc == 0 and at[i] or 7 + dc * k
      x[{ i, 1, r, c }] = 1
    end
  end
  return { x = x, y = y }
end

local function load(seed)
  if o.dataset == "bars" then
    return { train = bars(o.train or 400, gq.split_seed(seed, "train")), test = bars(o.test or 200, 0), classes = 4,
      names = { "lying", "standing", "falling", "rising" } }
  end
  if o.dataset ~= "images" then
    return gq.data[o.dataset] { data = o.data, train = o.train, test = o.test }
  end
  if given.train or given.test then
    error("--dataset images takes all pictures, in their classes' order: leave --train and --test out", 0)
  end
  local set = gq.data.images(o.data or "data")
  if set.test then return set end
  local parts = gq.data.split(set.train, { test = 0.2, seed = seed })
  return { train = parts.train, test = parts.test, classes = set.classes, names = set.names }
end

local handed = { mnist = true, svhn = true, bars = true }         -- not the same when seen in a mirror

-- ---- model ----

local Classifier = nn.Module:extend("Classifier")
function Classifier:init(shape, classes)
  local c, n = shape[2], o.channels
  local h, w = (shape[3] - 2) // 2 - 2, (shape[4] - 2) // 2 - 2
  if h < 1 or w < 1 then
    error(("images of at least 8 x 8 pixels expected, got %d x %d"):format(shape[3], shape[4]), 0)
  end
  self.head = nn.Sequential { nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 10, 3), nn.MaxPool2d(2), nn.ReLU(),
    nn.Conv2d(10, 10, 3) }
  self.dynamics = nn.Sequential { nn.Conv2d(10, n, 3, { padding = 1 }), nn.Softplus(),
    nn.Conv2d(n, n, 3, { padding = 1 }), nn.Softplus(), nn.Conv2d(n, 10, 3, { padding = 1 }) }
  self.tail = nn.Sequential { nn.Flatten(), nn.Linear(10 * h * w, 50), nn.ReLU(), nn.Linear(50, classes) }
end

function Classifier:forward(x)
  local z, info = gq.odeint(self.dynamics, self.head(x), { 0, 1 }, gq.solver_options(o))
  return self.tail(z[-1]), info
end

-- ---- figures ----

-- confusion[i][j]: how many of class i were taken for class j
local function evaluate(model, set, classes)
  local loss, confusion = 0, gq.zeros(classes, classes, { dtype = "float64" })
  for x, y in gq.data.batches(set, { batch_size = math.min(250, #set.y) }) do
    local logits = model(x)
    loss = loss + gq.cross_entropy(logits, y, { reduction = "sum" }):item()
    local own, taken = y:totable(), logits:argmax(-1):totable()
    for i = 1, #own do confusion[{ own[i], taken[i] }] = confusion[{ own[i], taken[i] }]:item() + 1 end
  end
  local right = 0
  for i = 1, classes do right = right + confusion[{ i, i }]:item() end
  return { test_loss = loss / #set.y, test_accuracy = right / #set.y }, confusion
end

local function show(confusion, names)
  say("\nof these (rows), so many were taken for those:")
  for i, row in ipairs(confusion:totable()) do
    local line = {}
    for j, n in ipairs(row) do line[j] = ("%5d"):format(n) end
    say("%12s %s", names[i] or i, table.concat(line))
  end
end

-- ---- training ----

local function run(seed)
  gq.manual_seed(seed)
  local set = load(seed)
  local model = Classifier(set.train.x.shape, set.classes)
  local confusion
  local path = o.out and ("%s/images-%s-seed%d.safetensors"):format(o.out, o.dataset, seed)
  local rows, state = gq.train {
    model = model, epochs = o.epochs,
    loss = function(m, x, y)
      local logits, info = m(x)
      return gq.cross_entropy(logits, y), info
    end,
    optimiser = gq.optim.adam(model:parameters(), { lr = o.lr }),
    data = set.train, batch_size = o.batch_size, seed = seed, steps = o.steps,
    augment = o.augment and { flip = not handed[o.dataset], crop = 2 } or nil,
    validate = function(m)
      local figures
      figures, confusion = evaluate(m, set.test, set.classes)
      return figures
    end,
    checkpoint = path and { path = path, every = o.every }, resume = o.resume, progress = not o.quiet,
    on_epoch = function(row)
      local rate = row.epoch > 0 and row.seconds and ("  %.0f images/s"):format(#set.train.y / row.seconds) or ""
      say("%s%s", gq.epoch_line(row), rate)
    end,
  }
  if confusion and seed == o.seed then show(confusion, set.names) end
  return rows, state
end

say("%s, %d channels, %d epochs, batches of %d, lr %g, %s", o.dataset, o.channels, o.epochs, o.batch_size, o.lr,
  o.gradient)
gq.experiment { options = o, metric = "test_accuracy", percent = true, run = run }
