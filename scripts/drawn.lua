-- drawn.lua -- drawn problems: how often a gradient is wrong without a word, and how often a warning is wrong.
-- Pulses of random width, place and height, kinetics of two and three scales, oscillators, oscillations that only the
-- parameter knows of, random tanh networks; each by three methods (or those named), three tolerances and both dtypes.
-- Wrong: some tensor's gradient is over 10 % off that of the equation, found by "direct" at 1e-10 in steps that no
-- feature fits between, and by more than shows: ten tolerances of the loss when the tensor changes by its own size, or
-- by 1. Each solve is audited, as the first of a training is. Of false alarms those are counted again whose gradients
-- are over 10 % off, though it shows less than that, and those under 7 % off, or by no more than the audit lets pass;
-- the rest are between.

local gq = require "gq"
local each = dofile((arg[0]:gsub("drawn%.lua$", "common.lua"))).each
gq.warnings(false)

local o = gq.cli {
  about = "How often gradients of drawn problems are wrong, and how many of these, and of the others, are told of.",
  { "problems", 200, "how many", "integer", 5 },
  { "seed", 20230717, "what they are drawn by", "integer", 0 },
  { "methods", { "dopri5", "tsit5", "bosh3" }, "with commas" },
  { "rows", "one", "two: of pulses and hidden oscillations alone; at last with own steps", "one|two|independent" },
  { "times", 2, "so many, evenly, of which a mean is taken; 2: z at the last", "integer", 2 },
}
if not o then return end

local state = o.seed
local function random()                                   -- the same everywhere
  state = (state * 6364136223846793005 + 1442695040888963407) & 0xffffffffffffffff
  return (state >> 33) / (1 << 31)
end
local function between(a, b) return a + (b - a) * random() end
local function spread(a, b) return a * (b / a) ^ random() end

local function states() return o.rows == "one" and { 1 } or { { 1 }, { 0.5 } } end

-- kind -> {numbers of the parameters, z0, f(p, t, z), last time, width of what is short}
local kinds = {
  { "pulses", function()
    local w, c, a, k = spread(0.05, 1), between(2, 8), spread(0.3, 3), spread(0.05, 0.5)
    return { p = { { a }, { k } }, z0 = states(), last = 10, width = w,
      f = function(p, t, z) return p[1] * gq.exp(-((t - c) / w) ^ 2) - p[2] * z end }
  end },
  { "kinetics", function()
    local three, fast, slow = random() < 0.5, spread(10, 1000), spread(0.05, 0.5)
    local p = { { 1 }, { fast }, { slow }, { spread(1, 10) } }
    return { p = p, z0 = three and { 1, 0, 0 } or { 1, 0 }, last = 5, f = function(q, _, z)
      local a, b = z:narrow(1, 1, 1), z:narrow(1, 2, 1)
      if not three then return gq.cat({ -q[2] * a, q[1] * q[2] * a - q[3] * b + 0 * q[4] }, 1) end
      return gq.cat({ -q[2] * a, q[1] * q[2] * a - q[4] * b, q[4] * b - q[3] * z:narrow(1, 3, 1) }, 1)
    end }
  end },
  { "oscillators", function()
    local w, d = spread(0.5, 8), between(0, 0.3)
    return { p = { { w * w }, { d } }, z0 = { 1, 0 }, last = 10, f = function(p, _, z)
      local x, v = z:narrow(1, 1, 1), z:narrow(1, 2, 1)
      return gq.cat({ v, -p[1] * x - p[2] * v }, 1)
    end }
  end },
  { "hidden", function()
    local w = spread(0.5, 50)
    return { p = { { 0 }, { spread(0.3, 1) } }, z0 = states(), last = 10, width = 1 / w,
      f = function(p, t, z) return p[1] * gq.sin(w * t) - p[2] * z end }
  end },
  { "networks", function()
    local function numbers(n, size)
      local x = {}
      for i = 1, n do x[i] = size * between(-1, 1) end
      return x
    end
    local size = spread(0.5, 3)
    return { p = { numbers(48, size), numbers(32, size / 2) }, z0 = { 1, -0.5 }, last = 3, f = function(p, t, z)
      local x = gq.cat({ z, gq.cos(t):reshape(1) }, 1)
      return p[2]:reshape(2, 16):matmul(gq.tanh(p[1]:reshape(16, 3):matmul(x)))
    end }
  end },
}

local function loss(case, z, dtype)
  local weights = gq.tensor(case.z0, { dtype = dtype }):cos()
  if o.times == 2 then return (z[2] * weights):sum() end
  local shape = { o.times, 1, 1 }
  local w = 1 + (7 * gq.arange(1, o.times)):to(dtype):sin()
  return (z * weights * w:reshape(table.unpack(shape, 1, #z.shape))):sum() / o.times
end

-- Gradients by tensor, info, the longest step.
local function solve(case, dtype, options)
  local p, times = {}, gq.linspace(0, case.last, o.times):totable()
  for i, x in ipairs(case.p) do p[i] = gq.tensor(x, { dtype = dtype, requires_grad = true }) end
  gq.core.steplog(true)
  local ok, z, info = pcall(gq.odeint, function(t, x) return case.f(p, t, x) end,
    gq.tensor(case.z0, { dtype = dtype }), times, options)
  local longest = 0
  for _, row in ipairs(gq.core.steplog()) do
    if row[4] == 1 then longest = math.max(longest, math.abs(row[2])) end
  end
  gq.core.steplog(false)
  if ok then ok = pcall(function() loss(case, z, dtype):backward() end) end
  if not ok then return nil end
  local g = {}
  for i, x in ipairs(p) do g[i] = x.grad and x.grad:to("float64") or gq.zeros(#case.p[i], { dtype = "float64" }) end
  return g, info, longest
end

-- Is it wrong? Is it over 10 % off in what shows a seventh of that? Is it 7 % off there?
local function judge(case, got, want, tol)
  local wrong, much, near = false, false, false
  for i, w in ipairs(want) do
    local size, off = w:norm():item(), (got[i] - w):norm():item()
    local shows = off * math.max(1, gq.tensor(case.p[i]):norm():item()) / (10 * tol)
    wrong = wrong or off ~= off or off > 0.1 * size and shows > 1
    much = much or off > 0.1 * size and shows > 0.15
    near = near or off > 0.07 * size and shows > 0.15
  end
  return wrong, much, near
end

local drawn = {}
for _, kind in ipairs(kinds) do
  if o.rows == "one" or kind[1] == "pulses" or kind[1] == "hidden" then drawn[#drawn + 1] = kind end
end
kinds = drawn

local engines = { { "default", nil }, { "gq", "gq" } }
local tally = {}
for _, kind in ipairs(kinds) do
  for _, e in ipairs(engines) do tally[kind[1] .. e[1]] = { 0, 0, 0, 0, 0, 0, 0, 0 } end
end

for i = 1, o.problems do
  local kind = kinds[(i - 1) % #kinds + 1]
  local case = kind[2]()
  local want = solve(case, "float64", { gradient = "direct", rtol = 1e-10, atol = 1e-10, max_steps = 1e6,
    max_step = case.width and case.width / 2 or nil })
  for method, tol, dtype, e in each(o.methods, { 1e-3, 1e-4, 1e-6 }, { "float32", "float64" }, engines) do
    local n = tally[kind[1] .. e[1]]
    local got, info, longest = solve(case, dtype, { gradient = e[2], audit = 1, method = method, rtol = tol,
      atol = tol, max_steps = 1e5, batch = o.rows == "independent" and o.rows or nil })
    local wrong, much, near = false, false, false
    if got then wrong, much, near = judge(case, got, want, tol) end
    n[1] = n[1] + 1
    if not got then
      n[8] = n[8] + 1
    elseif wrong then
      n[2] = n[2] + 1
      if info.warning then n[3] = n[3] + 1
      elseif not case.width or case.width > 0.3 * longest then n[4] = n[4] + 1 end
    elseif info.warning then
      n[5] = n[5] + 1
      if much then n[6] = n[6] + 1
      elseif not near then n[7] = n[7] + 1 end
    end
  end
end

print("| problems | gradient | passes | wrong | reported | silent, longer than 0.3 of a step | false alarms | " ..
  "over 10 % off | under 7 % off | errors |")
print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
for _, e in ipairs(engines) do
  local all = { 0, 0, 0, 0, 0, 0, 0, 0 }
  for _, kind in ipairs(kinds) do
    local n = tally[kind[1] .. e[1]]
    for k, x in ipairs(n) do all[k] = all[k] + x end
    print(("| %s | %s | %d | %d | %d | %d | %d | %d | %d | %d |"):format(kind[1], e[1], table.unpack(n)))
  end
  print(("| all | %s | %d | %d | %d | %d | %d | %d | %d | %d |"):format(e[1], table.unpack(all)))
end
