-- solve_spec.lua -- what went wrong once in the solver and its gradients, and corners of both: time
-- gradients where times coincide, cotangents of any size, tolerances of zero, steps that do not move,
-- values that are not finite, inputs written over, interrupts, memory that runs out in the middle.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local message, refused, vector, leaf = helper.message, helper.refused, problems.vector, problems.leaf
local f64 = { dtype = "float64" }
local engines = { "direct", "adjoint", "seminorm", "gq", "gqc" }

-- ---- gradients of times ----

-- L = sum_k k z_k^2 of z' = a z + sin(t) / 2: its gradient in t by one engine, and the values that it must have
-- at every time but the first, 2 k z_k f(t_k, z_k), up to the method's error.
local function time_gradient(times, options, create_graph)
  local a, t, weights = leaf(0.5), leaf(times), {}
  local function f(s, y) return a * y + 0.5 * gq.sin(s) end
  for k = 1, #times do weights[k] = { k } end
  local z = gq.odeint(f, leaf { 1 }, t, options)
  local g = gq.grad({ (vector(weights) * z * z):sum() }, { t }, { create_graph = create_graph })[1]
  local want = {}
  for k, s in ipairs(times) do
    local y = z[k]:item()
    want[k] = 2 * k * y * (0.5 * y + 0.5 * math.sin(s))
  end
  return g:detach():totable(), want
end

local grids = { { 0, 0, 1, 1, 2 }, { 0, 0.25, 0.25, 1 }, { 0, 0.1, 1, 1 }, { 1, 0.5, 0.5, 0.5, 0, 0 } }

describe("gradients of times that coincide", function()
  for method, step in helper.each({ "euler", "rk4", "dopri5", "alf", "reversible_heun" }, { 0, 0.25 }) do
    it(("by direct, %s, step_size %g: create_graph agrees, a repetition moves along the slope"):format(method, step),
      function()
        local o = { method = method, gradient = "direct", rtol = 1e-8, atol = 1e-8 }
        if step > 0 then o.step_size = step end
        local rtol = method == "dopri5" and step == 0 and 1e-6 or 1e-9     -- the interpolant's slope
        for _, times in ipairs(grids) do
          local plain, want = time_gradient(times, o)
          assert.close(time_gradient(times, o, true), plain, 1e-9, 1e-12)
          for k = 2, #times do            -- at the end it may be the one that the last step is clamped to
            if times[k] == times[k - 1] and times[k] ~= times[#times] then assert.close(plain[k], want[k], rtol) end
          end
        end
      end)
  end

  it("meet those of the continuous engines", function()
    for _, times in ipairs(grids) do
      local direct = time_gradient(times, { gradient = "direct", rtol = 1e-10, atol = 1e-10 })
      for _, engine in ipairs { "adjoint", "seminorm", "gq", "gqc" } do
        local o = { gradient = engine, rtol = 1e-10, atol = 1e-10 }
        assert.close(time_gradient(times, o), direct, 1e-6, 1e-8)
      end
    end
  end)

  it("also on grid points that no step was clamped to", function()
    local g, want = time_gradient({ 0, 1, 2 }, { gradient = "direct", method = "rk4", step_size = 0.25 })
    assert.close(g[2], want[2], 1e-9)
    assert.close(g[3], want[3], 1e-3)
  end)
end)

-- ---- second derivatives ----

describe("create_graph", function()
  it("counts each path once where one input is made from another", function()
    local a = leaf(0.5)
    local b, y0 = a * a, a * vector { 1 }
    local function first(create_graph)
      local z = gq.odeint(function(_, y) return a * y + b * y end, y0, { 0, 1 },
        { gradient = "direct", rtol = 1e-9, atol = 1e-9 })
      return gq.grad({ z[2]:sum() }, { a }, { create_graph = create_graph })[1]
    end
    local e = math.exp(0.75)                              -- z = a e^(a + a^2)
    assert.close(first(false):item(), 2 * e, 1e-7)
    local g = first(true)
    assert.close(g:item(), 2 * e, 1e-7)
    assert.close(gq.grad({ g }, { a })[1]:item(), (2 + 2 * 2 + 2 * 0.5) * e, 1e-6)
  end)

  it("takes a state that wants no gradient", function()
    local a = leaf(0.5)
    local z = gq.odeint(function(_, y) return a * y end, vector { 1 }, { 0, 1 }, { gradient = "direct" })
    local g = gq.grad({ z[2]:sum() }, { a }, { create_graph = true })[1]
    assert.close(gq.grad({ g }, { a })[1]:item(), math.exp(0.5), 1e-4)
  end)
end)

-- ---- cotangents ----

describe("a cotangent", function()
  it("of any size gives the gradient in proportion", function()
    for engine, size in helper.each(engines, { 1e-310, 1e-200, 1e-170, 1, 1e170, 1e300 }) do
      local a = leaf(0.5)
      local z = gq.odeint(function(_, y) return a * y end, leaf { 1, 2 }, { 0, 1 }, { gradient = engine })
      z:backward(vector { { 0, 0 }, { size, 0 } })
      assert.close(a.grad:item() / size, math.exp(0.5), 1e-4)
    end
  end)

  it("that is not finite is an error by every engine, also where it overflows at one entry", function()
    for engine, bad in helper.each(engines, { 0 / 0, 1 / 0 }) do
      local z = gq.odeint(function(_, y) return y end, leaf { 1, 2 }, { 0, 1 }, { gradient = engine })
      helper.refused("element 4", z.backward, z, vector { { 0, 0 }, { 1, bad } })
    end
  end)
end)

-- ---- tolerances and steps ----

describe("atol = 0", function()
  it("is fine with a component that is zero and stays zero", function()
    for _, engine in ipairs(engines) do
      local a = leaf(0.5)
      local z = gq.odeint(function(_, y) return a * y end, leaf { 1, 0 }, { 0, 1 },
        { gradient = engine, atol = 0, rtol = 1e-6 })
      z[2][1]:backward()
      assert.close(a.grad:item(), math.exp(0.5), 1e-4)
    end
  end)

  it("is fine with a state that starts at zero", function()
    local z = gq.odeint(function(t, y) return gq.cos(t) + 0 * y end, vector { 0 }, { 0, 1 }, { atol = 0 })
    assert.close(z[2]:item(), math.sin(1), 1e-5)
  end)
end)

describe("a fixed step", function()
  it("that does not move t is an error, forwards and backwards", function()
    for engine, case in helper.each(engines, { { 1e9, 1e-9 }, { 1, 1e-20 } }) do
      local text = message(gq.odeint, function(_, y) return y end, leaf { 1 }, { case[1], case[1] + 1e-6 },
        { method = "rk4", step_size = case[2], gradient = engine })
      assert.truthy(text:find("does not move t", 1, true), text)
    end
  end)

  it("with overshoot takes no step past an end that is on its grid", function()
    for _, n in ipairs { 3, 7, 10, 49 } do
      local _, info = gq.odeint(function(_, y) return y end, vector { 1 }, { 0, 1 },
        { method = "rk4", step_size = 1 / n, overshoot = true })
      assert.equal(n, info.steps)
    end
  end)
end)

describe("the controller", function()
  it("never tries a refused step again as long as it was", function()
    for _, c in ipairs { { pcoeff = -2, icoeff = 0, dcoeff = 3 }, { dfactor = 1, safety = 1 } } do
      gq.core.steplog(true)
      gq.odeint(function(t, y) return -50 * y + gq.sin(60 * t) end, vector { 1 }, { 0, 1 },
        { controller = c, first_step = 0.9, max_steps = 3000 })
      local rows = gq.core.steplog()
      gq.core.steplog(false)
      local tried = 0
      for i = 2, #rows do
        local before = rows[i - 1]
        if before[1] == before[1] and before[4] == 0 then
          tried = tried + 1
          assert.below(rows[i][2], 0.995 * before[2], "step after a refused one")
        end
      end
      assert.truthy(tried > 0)
    end
  end)
end)

-- ---- values that are not finite ----

describe("a value that is not finite", function()
  it("at the start is told as such, infinite or not a number", function()
    for _, f in ipairs { function(t, y) return y / t end, function(t, y) return y * gq.sqrt(t - 1) end } do
      helper.refused("not finite at the start", gq.odeint, f, vector { 1 }, { 0, 1 })
    end
  end)

  it("in the slope at a step's end does not reach an interpolated state unseen", function()
    for _, method in ipairs { "euler", "bosh3" } do
      helper.refused("t[2] = 0.9", gq.odeint, function(t, y) return y / gq.sqrt(1 - t) end, vector { 1 }, { 0, 0.9, 1 },
        { method = method, step_size = 0.2 })
    end
  end)
end)

-- ---- inputs written over ----

describe("backward after writing", function()
  it("into the solution is an error where it starts from it", function()
    for _, engine in ipairs(engines) do
      local a = leaf(0.5)
      local z = gq.odeint(function(_, y) return a * y end, leaf { 1 }, { 0, 1 }, { gradient = engine })
      local l = z[2]:sum()
      z:detach()[2] = 5
      if engine == "direct" then
        l:backward()
        assert.close(a.grad:item(), math.exp(0.5), 1e-4)
      else
        refused("modified in place", l.backward, l)
      end
    end
  end)

  it("into a captured tensor is an error", function()
    for _, engine in ipairs(engines) do
      local w = leaf { { 0.5, 0 }, { 0, 0.5 } }
      local z = gq.odeint(function(_, y) return y:matmul(w) end, leaf { { 1, 2 } }, { 0, 1 }, { gradient = engine })
      gq.no_grad(function() w:copy_(w * 100) end)
      refused("modified in place", function() z[2]:sum():backward() end)
    end
  end)
end)

describe("opts.params", function()
  it("says what is wrong with it", function()
    local a = leaf(0.5)
    local function solve(params)
      return message(gq.odeint, function(_, y) return a * y end, vector { 1 }, { 0, 1 }, { params = params })
    end
    assert.truthy(solve(1):find("params must be a list of tensors, not number", 1, true))
    assert.truthy(solve { a, "x" }:find("params[2] must be a tensor, not string", 1, true))
  end)
end)

-- ---- solutions in flight ----

describe("solutions", function()
  it("may be finished in any order, twice, or never", function()
    for engine, trajectory in helper.each(engines, { "reverse", "dense" }) do
      local a, losses, want = leaf(0.5), {}, 0
      for i = 1, 6 do
        local z = gq.odeint(function(_, y) return a * y * (0.1 * i) end, vector { 1, 2 }, { 0, i },
          { gradient = engine, adjoint = { trajectory = trajectory }, rtol = 1e-9, atol = 1e-9 })
        losses[i] = z[2]:sum()
      end
      losses[3] = nil
      collectgarbage()
      for _, i in ipairs { 4, 1, 6, 2, 4 } do
        losses[i]:backward()
        want = want + 3 * 0.1 * i * i * math.exp(0.05 * i * i)
        if i == 1 then losses[i] = nil collectgarbage() end
      end
      assert.close(a.grad:item(), want, 1e-6)
    end
  end)

  it("do not mind other numbers of threads when they are finished", function()
    for _, engine in ipairs(engines) do
      local function gradient(before, after)
        gq.manual_seed(3)
        local z0, a = gq.randn(100, 2, f64), leaf(0.5)
        gq.set_threads(before)
        local z = gq.odeint(function(_, y) return a * gq.sin(y) end, z0, { 0, 0.3, 1 }, { gradient = engine })
        gq.set_threads(after)
        z:sum():backward()
        return a.grad:item()
      end
      local want = gradient(1, 1)
      for _, n in ipairs { { 4, 1 }, { 1, 4 }, { 3, 2 } } do assert.close(gradient(n[1], n[2]), want, 1e-6) end
    end
    gq.set_threads(2)
  end)
end)

-- ---- faults ----

local function field()
  gq.manual_seed(1)
  local w, b, z0 = gq.randn(3, 3, f64), gq.randn(40, 3, f64), gq.randn(40, 3, f64)
  w.requires_grad, b.requires_grad, z0.requires_grad = true, true, true
  return function(t, z) return gq.tanh(z:matmul(w * 0.5) + t) * b end, { w, b, z0, leaf { 0, 0.4, 0.4, 1 } }
end

local function sums(f, p, options, create_graph)
  local z = gq.odeint(f, p[3], p[4], options)
  local g = gq.grad({ (z * z):sum() }, p, { create_graph = create_graph })
  if create_graph then g = gq.grad({ (g[1] * g[1]):sum() }, p) end
  local out = {}
  for i = 1, #p do out[i] = g[i]:sum():item() end
  return out
end

local fault_cases = { { gradient = "direct", method = "bosh3", create = true, step_size = 0.5 } }
for engine, trajectory in helper.each(engines, { "reverse", "dense" }) do
  fault_cases[#fault_cases + 1] = { gradient = engine, adjoint = { trajectory = trajectory },
    rtol = 1e-4, atol = 1e-4, gq = { nodes = 7 } }
end

describe("memory that runs out", function()
  it("in a solve, its gradient or its second derivative leaves everything usable", function()
    if not gq.debug then return pending("gq.debug is there in debug and asan builds only") end
    local f, p = field()
    for _, case in ipairs(fault_cases) do
      local create, o = case.create, {}
      for k, v in pairs(case) do if k ~= "create" then o[k] = v end end
      local want = sums(f, p, o, create)
      for n = 0, 2000, 13 do
        collectgarbage()
        gq.core.plan_cache(false)               -- compiled again: half a plan must not stay behind
        gq.debug.fail_alloc(n, false)
        local ok, e = pcall(sums, f, p, o, create)
        gq.debug.fail_alloc(-1, false)
        if not ok then assert.truthy(tostring(e):find("memory", 1, true), tostring(e)) end
        assert.close(sums(f, p, o, create), want, 1e-9, 1e-12)
        if ok then break end
      end
    end
  end)
end)

describe("an interrupt", function()
  it("ends a solve or a backward pass with an error, once", function()
    if not gq.debug then return pending("gq.debug is there in debug and asan builds only") end
    for _, engine in ipairs(engines) do
      local a = leaf(0.5)
      local function f(_, y) return a * y end
      gq.debug.interrupt()
      refused("interrupted", gq.odeint, f, leaf { 1 }, { 0, 1 }, { gradient = engine })
      local z = gq.odeint(f, leaf { 1 }, { 0, 1 }, { gradient = engine })
      local l = z[2]:sum()
      gq.debug.interrupt()
      refused("interrupted", l.backward, l)
      l:backward()
      assert.close(a.grad:item(), math.exp(0.5), 1e-4)
    end
  end)
end)
