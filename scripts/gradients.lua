-- gradients.lua -- how wrong gradients of the image classifier (Norcliffe & Deisenroth, appendix E.4) are, by engine,
-- on real images: beside direct differentiation at tight tolerances in float64, at the start and after some training.
--   ./gqlua scripts/gradients.lua --data DIR

local gq = require "gq"
local nn = gq.nn

local o = gq.cli {
  about = "Compare the gradients of a convolutional classifier with those of a tight solve, on Fashion-MNIST.",
  { "channels", 64, "hidden channels of the dynamics", "integer", 1 },
  { "batch-size", 16, "images of a gradient", "integer", 1 },
  { "batches", 3, "of which the worst is told", "integer", 1 },
  { "steps", { "0", "100" }, "training steps (Adam, 1e-3) before, with commas" },
  { "engines", { "direct", "adjoint", "seminorm", "gq" }, "with commas" },
  "rtol", "atol", "seed", "data", "json",
}
if not o then return end

local set = gq.data.fashion_mnist { data = o.data }.train
local n = o.channels
gq.manual_seed(o.seed)

local head = nn.Sequential { nn.BatchNorm2d(1), nn.ReLU(), nn.Conv2d(1, 10, 3), nn.MaxPool2d(2), nn.ReLU(),
  nn.Conv2d(10, 10, 3) }
local dynamics = nn.Sequential { nn.Conv2d(10, n, 3, { padding = 1 }), nn.Softplus(),
  nn.Conv2d(n, n, 3, { padding = 1 }), nn.Softplus(), nn.Conv2d(n, 10, 3, { padding = 1 }) }
local tail = nn.Sequential { nn.Flatten(), nn.Linear(10 * 11 * 11, 50), nn.ReLU(), nn.Linear(50, 10) }
local model = nn.Sequential { head, dynamics, tail }

local function loss_of(x, y, opts)
  local z, info = gq.odeint(dynamics, head(x), { 0, 1 }, opts)
  return gq.cross_entropy(tail(z[-1]), y), info
end

-- All parameters' gradients in float64, and info.
local function gradients(x, y, opts)
  model:zero_grad()
  local loss, info = loss_of(x, y, opts)
  loss:backward()
  local list = {}
  for i, p in ipairs(model:parameters()) do list[i] = p.grad:to("float64") end
  return list, info
end

local function tight(x, y)
  model:to("float64")
  local list = gradients(x:to("float64"), y, { gradient = "direct", rtol = 1e-9, atol = 1e-9 })
  model:to("float32")
  return list
end

-- |a - b| / |b| of all together, and the largest of one tensor.
local function differences(a, b)
  local off, all, worst = 0, 0, 0
  for i, g in ipairs(b) do
    local d, size = (a[i] - g):square():sum():item(), g:square():sum():item()
    off, all = off + d, all + size
    if size > 0 then worst = math.max(worst, math.sqrt(d / size)) end
  end
  return math.sqrt(off / all), worst
end

local function train(steps)
  local optimiser, k = gq.optim.adam(model:parameters(), { lr = 1e-3 }), 0   -- :to has made other tensors of them
  while k < steps do
    for x, y in gq.data.batches(set, { batch_size = o.batch_size, shuffle = true, seed = gq.split_seed(o.seed, k) }) do
      if k == steps then return end
      k = k + 1
      optimiser:zero_grad()
      loss_of(x, y, { gradient = "direct" }):backward()
      optimiser:step()
    end
  end
end

print(("%d channels, batches of %d; rtol %g, atol %g; relative to a tight solve in float64, the worst of %d batches"):
  format(n, o.batch_size, o.rtol, o.atol, o.batches))
print(("%9s  %-12s %14s %14s  steps forward / back"):format("training", "gradient", "all together", "worst tensor"))
local rows, done = {}, 0
for _, text in ipairs(o.steps) do
  local steps = assert(math.tointeger(tonumber(text)), "--steps: integers with commas expected")
  train(steps - done)
  done = steps
  local found, k = {}, 0
  for x, y in gq.data.batches(set, { batch_size = o.batch_size, shuffle = true, seed = o.seed }) do
    if k == o.batches then break end
    k = k + 1
    local exact = tight(x, y)
    for _, engine in ipairs(o.engines) do
      local got, info = gradients(x, y, { gradient = engine, rtol = o.rtol, atol = o.atol })
      local all, worst = differences(got, exact)
      local row = found[engine] or { training = steps, gradient = engine, all = 0, worst = 0 }
      row.all, row.worst = math.max(row.all, all), math.max(row.worst, worst)
      row.steps, row.steps_backward = info.steps, info.steps_backward
      found[engine] = row
    end
  end
  for _, engine in ipairs(o.engines) do
    local row = found[engine]
    rows[#rows + 1] = row
    print(("%9d  %-12s %14.2e %14.2e  %d / %d"):format(steps, engine, row.all, row.worst, row.steps,
      row.steps_backward))
  end
end
if o.json then gq.file_write(o.json, gq.json_encode(rows) .. "\n") end
