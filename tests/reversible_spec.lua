-- reversible_spec.lua -- methods whose steps can be inverted, alf and reversible_heun: the steps themselves against
-- a few lines of Lua, the engines mali and reversible against direct through the same steps, and their memory.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, refused = problems.vector, problems.leaf, helper.refused

-- method, engine, damping: what can be inverted. An inverse of a damped step blows v up by 1 / |1 - 2 eta|, so few of
-- them are asked for.
local cases = {
  { "alf", "mali" }, { "alf", "reversible" }, { "alf", "mali", eta = 0.9 }, { "reversible_heun", "reversible" },
}
local grids = { { step_size = 0.07 }, { rtol = 1e-4, atol = 1e-4 }, { rtol = 1e-4, atol = 1e-4, norm = "max" }, {} }

local function options(case, grid, engine)
  return helper.with({ method = case[1], gradient = engine or case[2], eta = case.eta }, grid)
end

local function name(case) return case[1] .. (case.eta and " eta " .. case.eta or "") .. ", " .. case[2] end

-- ---- the steps ----

-- f(t, z) of one number; n steps of h.
local by_hand = {
  alf = function(f, z, h, n, eta)
    local v = f(0, z)
    for i = 0, n - 1 do
      local mid = z + h / 2 * v
      v = v + 2 * eta * (f((i + 0.5) * h, mid) - v)
      z = mid + h / 2 * v
    end
    return z
  end,
  reversible_heun = function(f, z, h, n)
    local x, s = z, f(0, z)
    for i = 1, n do
      x = 2 * z - x + h * s
      local s1 = f(i * h, x)
      z, s = z + h / 2 * (s + s1), s1
    end
    return z
  end,
}

describe("a solve by", function()
  local function field(t, z) return z * gq.cos(3 * t) - 0.3 * z * z end
  local function number(t, z) return z * math.cos(3 * t) - 0.3 * z * z end
  for method, steps in pairs(by_hand) do
    for _, eta in ipairs(method == "alf" and { 1, 0.8, 0.5, 0.25 } or { 1 }) do
      it(("%s, eta %g, takes the steps of its paper"):format(method, eta), function()
        for _, h in ipairs { 0.125, -0.125 } do
          local z, info = gq.odeint(field, vector { 1.2 }, { 0, 16 * h },
            { method = method, step_size = 0.125, eta = eta ~= 1 and eta or nil, gradient = "none" })
          assert.close(z[2]:item(), steps(number, 1.2, h, 16, eta), 1e-14)
          assert.equal(16, info.steps)
          assert.equal(17, info.nfe)
        end
      end)
    end
  end

  it("alf is of order 1 where it is damped", function()
    local errors, hs = {}, {}
    for i = 1, 6 do
      hs[i] = 0.1 / 2 ^ i
      local z = gq.odeint(function(t, z) return z * gq.cos(t) end, vector { 1 }, { 0, 2 },
        { method = "alf", eta = 0.75, step_size = hs[i], gradient = "none" })
      errors[i] = math.abs(z[2]:item() - math.exp(math.sin(2)))
    end
    assert.below(math.abs(helper.slope(hs, errors, true) - 1), 0.15, "order off by")
  end)

  it("alf and reversible_heun stops at every time, and its grid goes on from there", function()
    for method in pairs(by_hand) do
      local _, info = gq.odeint(field, vector { 1 }, { 0, 0.25, 0.3, 0.3, 0.6 },
        { method = method, step_size = 0.1, gradient = "none" })
      assert.equal(3 + 1 + 3, info.steps)
      local z = gq.odeint(field, vector { 1 }, { 0, 0.5, 1 }, { method = method, rtol = 1e-3, atol = 1e-3,
        gradient = "none" })
      local half = gq.odeint(field, vector { 1 }, { 0, 0.5 }, { method = method, rtol = 1e-3, atol = 1e-3,
        gradient = "none" })
      assert.equal(z[2]:item(), half[2]:item())
    end
  end)

  it("alf and reversible_heun meets its tolerance", function()
    for method in pairs(by_hand) do
      for _, tol in ipairs { 1e-3, 1e-5, 1e-7 } do
        local z = gq.odeint(function(t, y) return y * gq.cos(t) end, vector { 1, 2 }, { 0, 1, 3 },
          { method = method, rtol = tol, atol = tol, gradient = "none", max_steps = 1e6 })
        assert.close(z[3], { math.exp(math.sin(3)), 2 * math.exp(math.sin(3)) }, 30 * tol)
      end
    end
  end)
end)

-- ---- gradients ----

local function random(...) return gq.randn(..., { dtype = "float64" }) end

-- Gradients of a network's solve in the state, the times and every parameter, flat; info.
local function gradients(net, start, times, cotangent, o)
  local z0, t = start:detach(), leaf(times)
  z0.requires_grad = true
  local z, info = gq.odeint(net, z0, t, o)
  local leaves = { z0, t }
  for _, p in ipairs(net:parameters()) do leaves[#leaves + 1] = p end
  local list = {}
  for _, g in ipairs(gq.grad({ (z * cotangent):sum() }, leaves)) do helper.flatten(g, list) end
  return list, info
end

local function mlp(width, dim)
  return gq.nn.mlp { sizes = { dim, width, dim }, activation = "tanh", time = true }:to("float64")
end

describe("gradients of the state, the times and the parameters", function()
  local times = { { 0, 1 }, { 0, 0.4, 0.4, 1, 1.5 }, { 1, 0.3, -0.5 }, { 0, 0, 0.2, 2, 2 }, { 0.5 }, { 1, 1, 1 } }
  local shapes = { { 3 }, { 1, 2 }, { 5, 3 }, { 64, 3 }, { 3, 2, 4 } }
  for _, case in ipairs(cases) do
    it("are those of direct through the same steps: " .. name(case), function()
      gq.manual_seed(3)
      for i, shape in ipairs(shapes) do
        local dim = shape[#shape]
        local net, z0 = mlp(7, dim), random(shape)
        for j, t in ipairs(times) do
          local grid = grids[case.eta and 1 or (i + j) % #grids + 1]
          local c = random { #t, table.unpack(shape) }
          local want = gradients(net, z0, t, c, options(case, grid, "direct"))
          local got, info = gradients(net, z0, t, c, options(case, grid))
          assert.below(helper.relative(got, want), 1e-10, ("shape %d, times %d"):format(i, j))
          assert.equal(case[2], info.engine)
          assert.below(info.reconstruction * (grid.rtol or 1e-6), case.eta and 1e-8 or 1e-12, "reconstruction")
          assert.equal(info.steps, info.steps_backward)
          -- alf's inverse shares its evaluation with the derivative of its step, reversible Heun's with that of the
          -- step before, so that one more is made at the end; where no time passes there is the slope alone
          local passes = t[1] ~= t[#t]
          local more = (passes and case[1] == "reversible_heun" or (#t > 1 and not passes)) and 1 or 0
          for k = 2, passes and #t or 0 do more = more + (t[k] == t[k - 1] and 1 or 0) end     -- a slope of its own
          assert.equal(info.steps + more, info.nfe_backward)
          local aca = gradients(net, z0, t, c, options(case, grid, "aca"))
          assert.same(want, aca)
        end
      end
    end)
  end

  it("by every engine that goes with the method meet the closed form", function()
    for method, engine in helper.each({ "alf", "reversible_heun" },
        { "direct", "aca", "reversible", "gq", "adjoint", "seminorm", "gq dense" }) do
      local gradient, dense = engine:match("^(%S+) ?(%S*)$")
      local o = { method = method, gradient = gradient, rtol = 1e-7, atol = 1e-7, gq = { nodes = "step" },
        adjoint = { trajectory = dense ~= "" and dense or nil } }
      local worst, info = problems.gradient_error(problems.oracle.G5(3), o)
      assert.below(worst, 1e-5, method .. " by " .. engine)
      assert.equal(gradient, info.engine)
    end
  end)

  it("converge with the step as the method does", function()
    for _, case in ipairs(cases) do
      local errors, hs = {}, {}
      for i = 1, 5 do
        hs[i] = case.eta and 0.1 / (1 + i / 2) or 0.1 / 2 ^ i
        errors[i] = problems.gradient_error(problems.oracle.G5(2), options(case, { step_size = hs[i] }))
      end
      local order = helper.slope(hs, errors, true)
      assert.below(math.abs(order - (case.eta and 1 or 2)), 0.2, name(case) .. ": order off by")
    end
  end)

  it("do not mind threads, nor a float32 state", function()
    local before = gq.threads()
    local net, z0, c = mlp(9, 3), random { 70, 3 }, random { 2, 70, 3 }
    for _, case in ipairs(cases) do
      local by = {}
      for i, n in ipairs { 1, 2, 2 } do
        gq.set_threads(n)
        by[i] = gradients(net, z0, { 0, 1 }, c, options(case, grids[1]))
      end
      gq.set_threads(before)
      assert.below(helper.relative(by[2], by[1]), 1e-11, name(case))
      assert.same(by[2], by[3])
      local a = gq.tensor(0.2, { requires_grad = true })
      local z = gq.odeint(function(_, y) return a * y end, gq.tensor { 10 }, { 0, 5 },
        options(case, { step_size = case.eta and 0.1 or 0.01 }))
      gq.sum(z[2] ^ 2):backward()
      assert.close(a.grad:item(), 10 * 100 * math.exp(2), case.eta and 5e-2 or 1e-3)
    end
  end)

  it("are what auto falls back on where activations do not fit", function()
    for _, method in ipairs { "alf", "reversible_heun" } do
      local k, z0 = leaf(0.7), leaf { 1, 2 }
      local function gradient(o)
        o.method, o.step_size = method, 0.05
        local z, info = gq.odeint(function(_, y) return -k * gq.sin(y) end, z0, { 0, 2 }, o)
        return gq.grad(z[2]:sum(), k):item(), info
      end
      local want = gradient { gradient = "direct" }
      local got, info = gradient { gradient = "auto", memory_limit = 100 }
      assert.equal("reversible", info.engine)
      assert.truthy(info.reason:find("inverted", 1, true), info.reason)
      assert.close(got, want, 1e-12)
      got, info = gradient { gradient = "auto" }
      assert.equal("direct", info.engine)
      assert.equal(want, got)
    end
  end)

  it("may be asked for twice, and in any order", function()
    for _, case in ipairs(cases) do
      local k, z0 = leaf(0.7), leaf { 1, 2 }
      local solves = {}
      for i = 1, 3 do
        solves[i] = gq.odeint(function(_, y) return -k * y end, z0, { 0, i }, options(case, grids[1]))[2]:sum()
      end
      local first = {}
      for _, i in ipairs { 2, 3, 1 } do first[i] = gq.grad(solves[i], k):item() end
      for i = 1, 3 do assert.equal(first[i], gq.grad(solves[i], k):item()) end
    end
  end)

  it("tell how far the reconstruction is off where the way back is unstable", function()
    local z, info = gq.odeint(function(_, y) return -10 * y end, leaf { 1 }, { 0, 5 },
      { method = "alf", eta = 0.6, gradient = "mali", step_size = 0.05 })
    local ok, e = pcall(function() z[2]:sum():backward() end)
    if ok then
      assert.truthy(info.reconstruction > 100)
      assert.truthy(info.warning:find("aca", 1, true), info.warning)
    else
      assert.truthy(tostring(e):find("aca", 1, true), tostring(e))
    end
  end)
end)

-- ---- memory ----

describe("memory", function()
  it("holds the end state and the list of steps, not the states between", function()
    for _, case in ipairs(cases) do
      local net = mlp(8, 3)
      local function peak(steps)
        local z0 = random { 100, 3 }
        z0.requires_grad = true
        local z, info = gq.odeint(net, z0, { 0, 1 }, options(case, { step_size = 1 / steps }))
        z[2]:sum():backward()
        assert.equal(steps, info.steps)
        return info.peak_bytes
      end
      local list = 24                     -- bytes a step in the list, which doubles as it grows
      assert.equal(peak(8), peak(64))
      assert.equal((1024 - 64) * list, peak(1024) - peak(64))
    end
  end)

  it("is allocated for the list alone", function()
    if not gq.debug then return pending("gq.debug counts allocations in debug and asan builds only") end
    for _, case in ipairs(cases) do
      local k, z0 = leaf(0.7), leaf { 1, 2 }
      local function allocations(steps)
        return helper.allocations(function()
          local z = gq.odeint(function(_, y) return -k * y end, z0, { 0, 1 }, options(case, { step_size = 1 / steps }))
          z[2]:sum():backward()
        end)
      end
      assert.equal(allocations(10), allocations(60))
    end
  end)

  it("and interrupts on the way back leave everything usable", function()
    if not gq.debug then return pending("gq.debug is there in debug and asan builds only") end
    for _, case in ipairs(cases) do
      local a = leaf(0.5)
      local z = gq.odeint(function(_, y) return a * y end, leaf { 1 }, { 0, 1 }, options(case, { step_size = 0.05 }))
      local l = z[2]:sum()
      gq.debug.interrupt()
      refused("interrupted", l.backward, l)
      l:backward()
      assert.close(a.grad:item(), math.exp(0.5), 1e-2)
    end
  end)
end)

-- ---- what does not go together ----

describe("wrong combinations", function()
  local function fails(o, ...)
    local k = leaf(0.5)
    refused({ ... }, gq.odeint, function(_, y) return k * y end, vector { 1 }, { 0, 1 }, o)
    assert.has_error(function() gq.odeint(function(_, y) return y end, vector { 1 }, { 0, 1 }, o) end)
  end

  it("of engine and method name what fits", function()
    fails({ gradient = "mali" }, "mali", "dopri5", "method = alf")
    fails({ gradient = "mali", method = "reversible_heun" }, "mali", "reversible_heun", "method = alf")
    fails({ gradient = "reversible", method = "rk4" }, "reversible", "rk4", "alf", "reversible_heun")
  end)

  it("of the backward solve's method name what fits", function()
    fails({ method = "alf", gradient = "gq", adjoint = { method = "alf" } }, "adjoint.method", "alf", "dopri5")
    fails({ gradient = "gq", adjoint = { method = "reversible_heun" } }, "adjoint.method", "dopri5")
  end)

  it("of eta, overshoot and parity say why", function()
    fails({ eta = 0.8 }, "eta", "alf", "dopri5")
    fails({ method = "reversible_heun", eta = 0.8 }, "eta", "alf")
    for _, eta in ipairs { 0, -1, 1.5, 0 / 0 } do fails({ method = "alf", eta = eta }, "eta") end
    fails({ method = "alf", eta = 0.5, gradient = "mali" }, "eta", "aca")
    fails({ method = "alf", overshoot = true }, "overshoot", "alf", "dopri5")
    fails({ method = "reversible_heun", parity = true, gradient = "gq" }, "parity")
    fails({ method = "reversible_heun", adjoint = { trajectory = "checkpoint" } }, "checkpoint", "reversible", "dense")
  end)

  it("of create_graph name direct", function()
    for _, case in ipairs(cases) do
      local k = leaf(0.5)
      local z = gq.odeint(function(_, y) return k * y end, vector { 1 }, { 0, 1 }, options(case, grids[1]))
      refused("direct", gq.grad, { z[2]:sum() }, { k }, { create_graph = true })
    end
  end)
end)
