-- combined_spec.lua -- options drawn at random, many at once: whatever is not refused gives the gradient that central
-- differences of tight solves give, in one random direction of everything that has one.

require "tests.helper"
local gq = require "gq"

local f64 = { dtype = "float64" }
local function normal(...) return gq.randn({ ... }, f64) end
local function one_of(...) return (select(math.random(select("#", ...)), ...)) end
local function chance(p) return math.random() < p end

-- A vector field of z {batch, n} and, with `pair`, of y {batch, 2}; p has matrices and vectors.
local function field(p, timed, pair)
  local function f(t, z)
    local slope = (z:matmul(p[1]) + p[3]):tanh():matmul(p[2]) - 0.3 * z
    return timed and slope + 0.5 * (3 * p[4] * t):sin() * z or slope
  end
  if not pair then return f end
  return function(t, s)
    return { f(t, s[1]) + 0.1 * s[2]:sum(2, true), s[1]:matmul(p[5]):tanh() - 0.2 * s[2] }
  end
end

local function draw_times(n, sign)
  local times, t = {}, 2 * math.random() - 1
  for i = 1, n do
    times[i] = t
    t = t + sign * (0.2 + math.random())
  end
  return times
end

-- d loss along `way` by backward() with opts, and by differences with exact; nil where opts are refused.
local function compare(loss, vars, opts, exact)
  local way, leaves = {}, {}
  for i, v in ipairs(vars) do
    way[i], leaves[i] = gq.randn(v.shape, f64), v:detach():clone()
    leaves[i].requires_grad = true
  end
  local ok, l = pcall(loss, leaves, opts)
  if not ok then return nil, l end
  l:backward()
  local got, scale = 0, 1e-3
  for i, v in ipairs(leaves) do
    local part = v.grad and (v.grad * way[i]):sum():item() or 0
    got, scale = got + part, scale + math.abs(part)
  end
  local function at(e)
    local moved = {}
    for i, v in ipairs(vars) do moved[i] = v + e * way[i] end
    return gq.no_grad(function() return loss(moved, exact):item() end)
  end
  return math.abs(got - (at(1e-5) - at(-1e-5)) / 2e-5) / scale
end

-- Refusals say what to do instead, and are never "attempt to index nil".
local function is_refusal(message)
  message = tostring(message)
  if message:find "attempt to" then return false end
  for _, word in ipairs { "use", "leave", "say", "choose", "give" } do
    if message:find("%f[%a]" .. word .. "%f[%A]") then return true end
  end
  return message:find "joint" ~= nil
end

local function odes(first, last)
  local refused, judged = 0, 0
  for k = first, last do
    math.randomseed(k)
    gq.manual_seed(k)
    local n, batch, nt = math.random(4), math.random(3), math.random(2, 5)
    local timed, pair, dense = chance(0.5), chance(0.3), chance(0.15)
    local times = draw_times(nt, one_of(1, 1, -1))
    local middle = times[1] + (times[nt] - times[1]) * math.random()
    local vars = { normal(n, n) * 0.5, normal(n, n) * 0.5, normal(n) * 0.3, normal(1), normal(n, 2) * 0.4,
      normal(batch, n) }
    if chance(0.4) then vars[7] = gq.tensor(times, f64) end
    local weights = normal(nt, batch, n)
    local opts = { rtol = 1e-7, atol = 1e-7, dense = dense or nil,
      method = one_of("dopri5", "tsit5", "bosh3", "dopri8", "kvaerno3", "kvaerno5", "adaptive_heun", "fehlberg2",
        "explicit_adams", "implicit_adams"),
      gradient = one_of("auto", "gq", "direct", "aca", "adjoint", "seminorm", "interpolated", "gqc", "kronrod",
        "check"),
      batch = chance(0.2) and "independent" or nil, norm = chance(0.1) and "max" or nil,
      grid_points = chance(0.2) and { middle, times[1] + 0.3 * (times[nt] - times[1]) } or nil,
      max_step = chance(0.1) and 0.1 + 0.3 * math.random() or nil, overshoot = chance(0.1) or nil,
      memory_limit = chance(0.1) and one_of(1e3, 1e4, 1e5) or nil, trace = not chance(0.08),
      gq = chance(0.2) and { nodes = one_of("auto", "nfe", "step") } or nil,
      adjoint = chance(0.3) and { trajectory = one_of("auto", "reverse", "dense", "checkpoint"),
        impulses = one_of("auto", "restart", "moments") } or nil }
    local function loss(p, o)
      local start, asked = pair and { p[6], gq.zeros({ batch, 2 }, f64) } or p[6], gq.json.decode(gq.json.encode(o))
      if not o.trace then asked.params = { table.unpack(p, 1, pair and 5 or 4) } end
      local z, _, at = gq.odeint(field(p, timed, pair), start, p[7] or times, asked)
      local x = pair and z[1] or z
      local l = (weights * x * (1 + 0.1 * x)):sum()
      if pair then l = l + z[2][nt]:sin():sum() end
      if not dense then return l end
      local y = at(gq.tensor({ middle }, f64))
      return l + (pair and y[1] or y):cos():sum()
    end
    local exact = { method = "dopri8", gradient = "none", rtol = 1e-12, atol = 1e-12, grid_points = opts.grid_points,
      dense = opts.dense, trace = true }
    local off, message = compare(loss, vars, opts, exact)
    if off then judged = judged + 1 else refused = refused + 1 end
    assert.truthy(off or is_refusal(message), ("%d: %s"):format(k, message))
    assert.truthy(not off or off < 2e-4, ("%d: %s: off by %s"):format(k, gq.json.encode(opts), off))
  end
  assert.truthy(judged > refused)
end

-- Diffusions of each kind of noise, of z {batch, n} and p.
local diffusions = {
  diagonal = function(p, z) return (p[3] * z):sin() * 0.4 + 0.2 end,
  scalar = function(p, z) return ((p[3] * z):sin() * 0.4 + 0.2):unsqueeze(3) end,
  additive = function(p, z, t) return (p[6] * (1 + 0.2 * t)) + gq.zeros({ z.shape[1], 1, 1 }, f64) end,
  general = function(p, z) return (z:unsqueeze(3) * p[6] + p[6]):tanh() * 0.5 end,
}
local ito = { euler = true, srk = true, theta = true }

local function sdes(first, last)
  local refused, judged = 0, 0
  for k = first, last do
    math.randomseed(k)
    gq.manual_seed(k)
    local n, batch, nt, m = math.random(3), math.random(3), math.random(2, 4), math.random(3)
    local noise, timed = one_of("diagonal", "scalar", "additive", "general"), chance(0.5)
    local method = one_of("euler", "milstein", "srk", "euler_heun", "heun", "midpoint", "ralston", "reversible_heun",
      "log_ode", "spark", "theta")
    local times = draw_times(nt, 1)
    local vars = { normal(n, n) * 0.5, normal(n, n) * 0.3, normal(n) * 0.3, normal(1), normal(batch, n),
      normal(n, m) * 0.3 }
    local weights = normal(nt, batch, n)
    local opts = { method = method, dt = one_of(0.03, 0.05, 0.1), seed = k,
      calculus = ito[method] and "ito" or method ~= "milstein" and "stratonovich" or one_of("ito", "stratonovich"),
      gradient = method == "reversible_heun" and chance(0.5) and "reversible" or one_of("auto", "direct", "aca") }
    local calculus = one_of("ito", "stratonovich")
    local function loss(p, o)
      local sde = gq.sde { noise = noise, calculus = calculus, drift = field(p, timed),
        diffusion = function(t, z) return diffusions[noise](p, z, t) end }
      local z = gq.sdeint(sde, p[5], times, o)
      return (weights * z * (1 + 0.1 * z)):sum()
    end
    local exact = { method = method, dt = opts.dt, seed = k, calculus = opts.calculus, gradient = "none" }
    local off, message = compare(loss, vars, opts, exact)
    if off then judged = judged + 1 else refused = refused + 1 end
    assert.truthy(off or is_refusal(message), ("%d: %s"):format(k, message))
    assert.truthy(not off or off < 1e-6,
      ("%d: %s %s %s: off by %s"):format(k, noise, calculus, gq.json.encode(opts), off))
  end
  assert.truthy(judged > refused)
end

describe("options together", function()
  setup(function() gq.warnings(false) end)
  teardown(function() gq.warnings(true) end)

  it("of odeint, a few", function() odes(1, 30) end)

  it("of odeint #slow", function() odes(31, 500) end)

  it("of sdeint, a few", function() sdes(1, 60) end)

  it("of sdeint #slow", function() sdes(61, 600) end)
end)
