-- moments_spec.lua -- impulses = "moments": many measurement times without restarts.

local gq = require "gq"
local helper = require "tests.helper"

local function network(sharpness)
  gq.manual_seed(3)
  local list = {}
  local function p(scale, ...)
    local x = gq.randn(..., { dtype = "float64" }) * scale
    list[#list + 1] = x:detach()
    list[#list].requires_grad = true
    return list[#list]
  end
  local w1, b1, w2, b2 = p(0.7 * (sharpness or 1), { 20, 2 }), p(0.3, { 20 }), p(0.3, { 2, 20 }), p(0.1, { 2 })
  return function(_, z) return gq.tanh(z:matmul(w1:t()) + b1):matmul(w2:t()) + b2 end, list
end

local field, parameters = network()
local z0 = gq.randn(15, 2, { dtype = "float64" })

local function gradient(t, weights, options)
  local start, times = z0:clone():detach(), gq.tensor(t, { dtype = "float64" })
  start.requires_grad, times.requires_grad = true, true
  local z, info = gq.odeint(field, start, times, options)
  local g = gq.grad((z * weights):sum(), { start, times, table.unpack(parameters) })
  return g, info
end

local function distance(a, b)
  local num, den = 0, 0
  for i = 1, #a do
    num = num + (a[i] - b[i]):square():sum():item()
    den = den + b[i]:square():sum():item()
  end
  return math.sqrt(num / den)
end

local function times(n, direction)
  local t = {}
  for i = 1, n do t[i] = direction * (i - 1) / (n - 1) * 6 end
  return t
end

describe("impulses = moments", function()
  for engine, trajectory in helper.each({ "adjoint", "seminorm", "gq" }, { "reverse", "dense" }) do
    it("meets the exact gradient, " .. engine .. ", " .. trajectory, function()
      for _, direction in ipairs { 1, -1 } do
        local t = times(60, direction)
        local weights = gq.randn(60, 15, 2, { dtype = "float64" })
        local exact = gradient(t, weights, { gradient = "direct", rtol = 1e-10, atol = 1e-10 })
        local last = math.huge
        for _, tol in ipairs { 1e-4, 1e-6, 1e-8 } do
          local g, info = gradient(t, weights, { gradient = engine, rtol = tol, atol = tol,
            adjoint = { trajectory = trajectory, impulses = "moments" }, gq = { nodes = "step" } })
          local error = distance(g, exact)
          assert.is_true(error < math.max(0.3 * last, 3e-6), ("%g after %g at %g"):format(error, last, tol))
          assert.is_true(info.restarts < 59)
          last = error
        end
        assert.is_true(last < 2e-5, tostring(last))
      end
    end)
  end

  it("costs about the same for 50 and for 800 times", function()
    local function cost(n)
      local _, info = gradient(times(n, 1), gq.randn(n, 15, 2, { dtype = "float64" }) / n, { rtol = 1e-3, atol = 1e-3,
        adjoint = { trajectory = "dense", impulses = "moments" } })
      return info.nfe_backward - n      -- each time's own derivative asks for one evaluation
    end
    assert.is_true(cost(800) < 1.5 * cost(50))
  end)

  it("is restart where there is one interval", function()
    local weights = gq.randn(2, 15, 2, { dtype = "float64" })
    local a = gradient({ 0, 2 }, weights, { adjoint = { impulses = "moments" } })
    local b = gradient({ 0, 2 }, weights, { adjoint = { impulses = "restart" } })
    for i = 1, #a do assert.is_true(a[i]:eq(b[i]):to("float64"):min():item() == 1) end
  end)

  it("takes repeated times, and refuses overshoot", function()
    local t = { 0, 0, 1, 1, 1.5, 2, 2 }
    local weights = gq.randn(7, 15, 2, { dtype = "float64" })
    local exact = gradient(t, weights, { gradient = "direct", rtol = 1e-10, atol = 1e-10 })
    local g = gradient(t, weights, { rtol = 1e-8, atol = 1e-8, adjoint = { impulses = "moments" },
      gq = { nodes = "step" } })
    assert.is_true(distance(g, exact) < 1e-5)
    helper.refused("moments", gradient, t, weights, { parity = true, adjoint = { impulses = "moments" } })
  end)
end)

describe("panels whose nodes serve", function()
  -- The gradient of the mean square at 101 times in p, of f(p, t, z), and what direct has in short steps.
  local function relative(f, p, tol, options)
    local t = {}
    for i = 0, 100 do t[i + 1] = i / 10 end
    local function solve(o)
      local x = gq.tensor({ p }, { dtype = "float64", requires_grad = true })
      local z, info = gq.odeint(function(s, z) return f(x, s, z) end, gq.ones(1, { dtype = "float64" }), t, o)
      z:square():mean():backward()
      return x.grad:item(), info
    end
    local o = helper.with({ gradient = "gq", audit = false, rtol = tol, atol = tol }, options)
    local want = solve { gradient = "direct", rtol = 1e-10, atol = 1e-10, max_step = 0.02 }
    local got, info = solve(o)
    return math.abs(got / want - 1), info
  end

  -- One step of a in a panel: its stages tell less than its four nodes.
  it("keep them", function()
    local error, info = relative(function(p, t, z) return p * z * gq.cos(3 * t) end, 0.7, 1e-3)
    assert.below(error, 3e-3)
    assert.below(info.nodes, 6 * info.panels)
    assert.equal("moments", info.impulses)
    assert.below(info.quadrature_error, 4e-3)
    assert.truthy(info.quadrature_error > 0)
    assert.equal(0, info.unresolved)
  end)

  it("keep them where another has a pulse, which alone is refined, without moments", function()
    local function pulse(p, t, z) return p * gq.exp(-((t - 4.4) / 0.2) ^ 2) - 0.3 * z end
    local error, info = relative(pulse, 1, 1e-6)
    local _, all = relative(pulse, 1, 1e-6, { adjoint = { impulses = "restart" } })
    assert.below(error, 2e-5)
    assert.truthy(info.rounds > 1 and info.panels > 20)
    assert.below(info.restarts, all.restarts / 2)
    assert.below(info.nodes, all.nodes / 2)
    assert.truthy(relative(pulse, 1, 1e-6, { adjoint = { impulses = "moments" } }) > 5e-5)
    local narrow, told = relative(function(p, t, z) return p * gq.exp(-((t - 4.4) / 0.1) ^ 2) - 0.3 * z end, 1, 1e-3)
    assert.truthy(narrow < 1e-2 or told.warning)
  end)

  -- theta sin(w t) - k z at theta = 0: between its times a jumps, and that is all that sin(w t) leaves of the integral.
  it("are solved without moments where the parameter alone knows of an oscillation", function()
    local t, weights = {}, gq.randn(73, 1, { seed = 3, dtype = "float64" }) / 73
    for i = 0, 72 do t[i + 1] = i / 7.2 end
    local function solve(o)
      local theta = gq.tensor({ 0 }, { dtype = "float64", requires_grad = true })
      o.rtol, o.atol = o.rtol or 1e-4, o.rtol or 1e-4
      local z, info = gq.odeint(function(s, z) return theta * gq.sin(40 * s) - 0.4 * z end,
        gq.ones(1, { dtype = "float64" }), t, o)
      ;(z * weights):sum():backward()
      return theta.grad:item(), info
    end
    local want = solve { gradient = "direct", rtol = 1e-10, max_step = 0.02 }
    for _, trajectory in ipairs { "dense", "checkpoint", "reverse" } do
      local got, info = solve { gradient = "gq", adjoint = { trajectory = trajectory } }
      assert.below(math.abs(got / want - 1), 1e-2, trajectory)
      assert.truthy(info.restarts > 50)
    end
    assert.truthy(math.abs(solve { gradient = "gq", adjoint = { impulses = "moments" } } / want - 1) > 0.1)
  end)
end)

-- The error estimate: panels that forward steps alone would make too long.
describe("panels of impulses = moments", function()
  local function irregular(n)
    local t = { 0 }
    for i = 2, n do t[i] = t[i - 1] + 6 / n * (0.2 + 1.6 * gq.rand(1):item()) end
    return t
  end

  -- Errors against restarts of the same solve at tolerances that fall, and the last info.
  local function ladder(f, list, start, t, options)
    local weights, errors, infos = gq.randn(#t, 15, 2, { dtype = "float64" }), {}, {}
    local function solve(tol, impulses)
      local state = start:detach()
      state.requires_grad = true
      local z, info = gq.odeint(f, state, t, { method = options.method, rtol = options.rtol or tol,
        atol = options.rtol or tol, step_size = options.step_size, gq = { nodes = "step" },
        adjoint = { rtol = tol, atol = tol, trajectory = "dense", impulses = impulses, method = "dopri5" } })
      return gq.grad((z * weights):sum(), { state, table.unpack(list) }), info
    end
    for i, tol in ipairs { 1e-3, 1e-5, 1e-7 } do
      local g, info = solve(tol, "moments")
      errors[i], infos[i] = distance(g, (solve(tol, "restart"))), info
      assert.is_true(errors[i] < 20 * tol, ("%g at %g"):format(errors[i], tol))
      assert.equal(info.restarts + 1, info.panels)
    end
    assert.is_true(errors[3] < 1e-2 * errors[1])
    return infos
  end

  it("are split where a sharp network's steps are long: forward by dopri8, loose forward tolerance", function()
    for _, sharpness in ipairs { 1, 3, 8 } do
      local f, list = network(sharpness)
      assert.is_true(ladder(f, list, z0, irregular(120), { method = "dopri8" })[3].panels_split > 0)
      assert.is_true(ladder(f, list, z0, irregular(120), { rtol = 1e-3 })[3].panels_split > 0)
    end
  end)

  it("are split where the state rests and forward steps grow without bound", function()
    local A = gq.tensor({ { -1, 1 }, { -1, -1 } }, { dtype = "float64", requires_grad = true })
    local infos = ladder(function(_, z) return z:matmul(A:t()) end, {}, gq.zeros(15, 2, { dtype = "float64" }),
      irregular(120), {})
    for i = 1, 3 do assert.is_true(infos[i].panels_split > 0) end
  end)

  it("are seldom split in usual solves", function()
    for _, sharpness in ipairs { 1, 3 } do
      local f, list = network(sharpness)
      for _, n in ipairs { 30, 120, 400 } do
        local t = irregular(n)
        local z, info = gq.odeint(f, z0, t, { rtol = 1e-3, atol = 1e-3, adjoint = { impulses = "moments" } })
        local weights = gq.randn(n, 15, 2, { dtype = "float64" }) / n
        gq.grad((z * weights):sum(), list)
        assert.is_true(info.panels_split <= info.panels / 2, ("%d of %d"):format(info.panels_split, info.panels))
        if n > 100 then assert.is_true(info.nfe_backward - info.nodes < 3.5 * (n - 1)) end  -- restarts: 7 each
      end
    end
  end)

  it("are as they come where steps are fixed, there is no tolerance to meet", function()
    local _, info = gradient(times(60, 1), gq.randn(60, 15, 2, { dtype = "float64" }),
      { method = "rk4", step_size = 0.5, adjoint = { impulses = "moments" } })
    assert.equal(0, info.panels_split)
  end)
end)
