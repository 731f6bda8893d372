-- part_spec.lua -- throw = false: what was reached of a solve that failed, and the rows that did not, keep their
-- gradients.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local leaf, message, with = problems.leaf, helper.message, helper.with

local engines = {
  { gradient = "direct" }, { gradient = "aca" }, { gradient = "adjoint" }, { gradient = "seminorm" },
  { gradient = "gq" }, { gradient = "gq", adjoint = { trajectory = "dense" } },
  { gradient = "gq", adjoint = { trajectory = "checkpoint" } }, { gradient = "gq", adjoint = { impulses = "moments" } },
  { gradient = "gqc" }, { gradient = "kronrod" }, { gradient = "check" }, { gradient = "auto" },
  { gradient = "interpolated" }, { gradient = "mali", method = "alf", step_size = 0.0005 },
  { gradient = "reversible", method = "reversible_heun", step_size = 0.0005 },
  { gradient = "direct", method = "rk4", step_size = 0.01 }, { gradient = "gq", method = "implicit_adams" },
  { gradient = "direct", method = "kvaerno5" }, { gradient = "direct", trace = false },
}

local function name(o) return ("%s %s %s"):format(o.gradient, o.method, o.batch) end

-- z' = k z^2 from z0 explodes at 1 / (k z0): z = z0 / (1 - k z0 t).
local function blow(k) return function(_, z) return k * z * z end end

describe("the part reached", function()
  it("of a joint solve has its gradients, by every engine, in both directions", function()
    for o, way in helper.each(engines, { 1, -1 }) do
      local k, z0 = leaf(way), leaf { 1 }
      local t = leaf { 0, way * 0.25, way * 0.5, way * 3, way * 4 }
      local z, info = gq.odeint(blow(k), z0, t, with({ throw = false, rtol = 1e-8, atol = 1e-8,
        max_steps = o.step_size and 1e4 or 1000, params = o.trace == false and { k } or nil }, o))
      assert.not_equal("ok", info.status)
      assert.truthy(info.message and #info.message > 0)
      assert.close(z[3], { 2 }, 1e-4)
      assert.truthy(z[4]:item() ~= z[4]:item())
      local loss = z[2]:sum() + 3 * z[3]:sum()
      local g = gq.grad(loss, { k, z0, t })
      local got, times = { g[1]:item() * way, g[2]:item() }, g[3]:totable()
      -- dz/dk = z0^2 t / (1 - k z0 t)^2, dz/dz0 = 1 / (1 - k z0 t)^2
      assert.below(helper.relative(got, { 0.25 * (4 / 3) ^ 2 + 3 * 0.5 * 4, (4 / 3) ^ 2 + 12 }), 1e-4, name(o))
      local want = { -way * (16 / 9 + 12), way * 16 / 9, way * 12, 0, 0 }
      assert.below(helper.relative(times, want), 1e-4, name(o))
      assert.falsy(info.warning and info.warning:find("lost", 1, true))
    end
  end)

  it("may be the start alone, and what was not reached may be in the loss", function()
    for _, o in ipairs { { gradient = "direct" }, { gradient = "gq" } } do
      local z0 = leaf { 1 }
      local z, info = gq.odeint(blow(1), z0, { 0, 3 }, with({ throw = false }, o))
      assert.not_equal("ok", info.status)
      assert.close(gq.grad(z[1]:sum(), z0), { 1 })
      assert.close(gq.grad(gq.where(z:lt(1e9), z * z, 0):sum(), z0), { 2 })
      local text = message(gq.grad, z[1]:sum(), z0, { create_graph = true })
      if o.gradient == "direct" then assert.truthy(text:find("reached", 1, true), text) end
    end
  end)

  it("is of several tensors, and one without gradients has none", function()
    local a, b = leaf { 1 }, leaf { 2 }
    local function solve(o)
      return gq.odeint(function(_, z) return { z[1] * z[1], -z[2] } end, { a, b }, { 0, 0.5, 2 },
        with({ throw = false, rtol = 1e-8, atol = 1e-8 }, o))
    end
    local z = solve {}
    local g = gq.grad(z[1][2]:sum() + z[2][2]:sum(), { a, b })
    assert.close(g[1], { 4 }, 1e-5)
    assert.close(g[2], { math.exp(-0.5) }, 1e-5)
    assert.falsy(solve { gradient = "none" }[1].requires_grad)
  end)

  local rows = { { gradient = "direct" }, { gradient = "aca" }, { gradient = "gq" }, { gradient = "check" },
    { gradient = "direct", method = "rk4", step_size = 0.01 }, { gradient = "gq", gq = { nodes = "step" } } }

  it("of rows with steps of their own is each row's", function()
    for o, way, dtype in helper.each(rows, { 1, -1 }, { "float64", "float32" }) do
      local k = gq.tensor(way, { dtype = dtype, requires_grad = true })
      local z0 = gq.tensor({ { 0.1 }, { 2 }, { 0.2 }, { 0 / 0 }, { 5 } }, { dtype = dtype })
      z0.requires_grad = true
      local tol = dtype == "float64" and 1e-8 or 1e-5
      local t = not o.step_size and leaf { 0, way * 0.4, way } or { 0, way * 0.4, way }
      local z, info = gq.odeint(blow(k), z0, t, with({ batch = "independent", throw = false, rtol = tol, atol = tol,
        max_steps = 1000 }, o))
      assert.same({ "ok", "ok" }, { info.samples.status[1], info.samples.status[3] })
      for _, i in ipairs { 2, 4, 5 } do assert.not_equal("ok", info.samples.status[i]) end
      local last, inner = z[3], z[2]
      local loss = last[1]:sum() + last[3]:sum() + inner[2]:sum() + inner[1]:sum()
      local g = gq.grad(loss, { k, z0 })
      local function by_z0(x, s) return 1 / (1 - x * s) ^ 2 end
      local function by_k(x, s) return x * x * s / (1 - x * s) ^ 2 end
      local want = { by_z0(0.1, 1) + by_z0(0.1, 0.4), by_z0(2, 0.4), by_z0(0.2, 1), 0, 0 }
      local rough = dtype == "float64" and 1e-5 or 1e-3
      assert.below(helper.relative(g[2], want), rough, name(o))
      local sum = by_k(0.1, 1) + by_k(0.1, 0.4) + by_k(2, 0.4) + by_k(0.2, 1)
      assert.close(way * g[1]:item(), sum, rough)
      if gq.is_tensor(t) then
        local times = gq.grad(loss, t):totable()
        assert.close(times[3] * way, 0.01 * by_z0(0.1, 1) + 0.04 * by_z0(0.2, 1), rough)
        assert.close(times[2] * way, 0.01 * by_z0(0.1, 0.4) + 4 * by_z0(2, 0.4), rough)
      end
    end
  end)

  it("of rows in a large batch does not depend on those that failed", function()
    for _, o in ipairs(rows) do
      gq.manual_seed(3)
      local start = gq.rand(150, 1, { dtype = "float64" }) * 0.5
      local function gradient(spoil)
        local z0 = start:clone()
        for i = 1, 150, 7 do
          if spoil then z0[i] = i % 2 == 0 and 9 or 0 / 0 end
        end
        z0.requires_grad = true
        local z = gq.odeint(blow(1), z0, { 0, 0.5, 1 }, with({ batch = "independent", throw = false }, o))
        local good = gq.ones(150, 1, { dtype = "float64" })
        for i = 1, 150, 7 do good[i] = 0 end
        return gq.grad(gq.where(good:gt(0), z[3], 0):sum(), z0):totable()
      end
      assert.same(gradient(false), gradient(true))
    end
  end)
end)
