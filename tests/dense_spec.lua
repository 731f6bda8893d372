-- dense_spec.lua -- gradients of what opts.dense returns: in the state, the parameters and the time asked for.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, refused, with = problems.vector, problems.leaf, helper.refused, helper.with

local engines = {
  { gradient = "direct" }, { gradient = "aca" }, { gradient = "adjoint" }, { gradient = "seminorm" },
  { gradient = "gq" },
  { gradient = "gq", adjoint = { trajectory = "dense" } }, { gradient = "gq", adjoint = { impulses = "moments" } },
  { gradient = "gqc" }, { gradient = "kronrod" }, { gradient = "check" }, { gradient = "auto" },
  { gradient = "interpolated" }, { gradient = "mali", method = "alf", step_size = 0.005 },
  { gradient = "reversible", method = "reversible_heun", step_size = 0.005 },
  { gradient = "direct", method = "rk4", step_size = 0.03 }, { gradient = "gq", method = "implicit_adams" },
  { gradient = "direct", method = "kvaerno5" }, { gradient = "gq", method = "dopri8" },
  { gradient = "direct", trace = false }, { gradient = "gq", trace = false },
}

local function name(o) return ("%s %s %s"):format(o.gradient, o.method, o.trace) end

describe("an interpolant", function()
  it("has gradients in the state, the parameters and the times, by every engine, in both directions", function()
    for o, way in helper.each(engines, { 1, -1 }) do
      local a, z0, t, q = leaf(0.8), leaf { 1.5 }, leaf { 1, 1 + 2 * way }, leaf(1 + 1.3 * way)
      local _, _, at = gq.odeint(function(_, z) return -way * a * z end, z0, t,
        with({ dense = true, rtol = 1e-9, atol = 1e-9, max_steps = 1e6,
          params = o.trace == false and { a } or nil }, o))
      local z, value = at(q), 1.5 * math.exp(-0.8 * 1.3)
      local tol = o.method and o.step_size and 1e-4 or 1e-6
      assert.close(z, { value }, tol)
      local g = gq.grad(z:sum(), { a, z0, q, t })
      local got = { g[1]:item(), g[2]:item(), g[3]:item(), g[4]:totable()[1], g[4]:totable()[2] }
      local want = { -1.3 * value, value / 1.5, -way * 0.8 * value, way * 0.8 * value, 0 }
      assert.below(helper.relative(got, want), 10 * tol, name(o))
      local slope = at:derivative(q)
      assert.close(slope, { -way * 0.8 * value }, tol)
      assert.below(helper.relative({ gq.grad(slope:sum(), a):item() }, { -way * value * (1 - 1.3 * 0.8) }), 10 * tol,
        name(o))
    end
  end)

  it("takes an end that is missed by the rounding of float32 as that end, and nothing beyond", function()
    for _, T in ipairs { 0.1, 1.7, 2.7, -1.7, 0.3 } do                   -- float32's are above those numbers
      local a = gq.tensor(0.8, { requires_grad = true })
      local z0 = gq.ones(2)
      for _, event in ipairs { false, function(t) return t - T end } do
        local out = { gq.odeint(function(_, z) return -a * z end, z0, { 0, event and 2 * T or T },
          { dense = true, event = event or nil, method = "rk4", step_size = 0.05 }) }
        local at, last = out[#out], gq.tensor(T, { requires_grad = true })
        local want = math.exp(-0.8 * T)
        assert.close(at(last), { want, want }, 1e-5)
        assert.close(at(last:item()), { want, want }, 1e-5)
        assert.close(at { 0, last:item() }, { { 1, 1 }, { want, want } }, 1e-5)
        local g = gq.grad(at(last)[1], { a, last })
        assert.close(g[1]:item(), -T * want, 1e-4)
        assert.close(g[2]:item(), -0.8 * want, 1e-4)
        assert.close(gq.grad(at(gq.linspace(0, T, 5)):sum(), a):item(), gq.grad(at(gq.linspace(0, T, 5):to("float64"))
          :sum(), a):item(), 1e-5)
        assert.close(at:derivative(last), { -0.8 * want, -0.8 * want }, 1e-5)
        refused("is outside of the solve", at, T * (1 + 1e-5))
        refused("is outside of the solve", at, { 0, T * (1 + 1e-5) })
      end
    end
    local _, _, at = gq.odeint(function(_, z) return -z end, vector { 1 }, { 0, 0.3 }, { dense = true })
    assert.close(at(0.1 + 0.2), { math.exp(-0.3) }, 1e-5)
    refused("is outside of the solve", at, 0.3 + 1e-8)
  end)

  -- z' = theta sin(20 t) - z / 2 at theta = 0: steps do not see what theta does.
  it("is audited where it has the gradient, and info tells", function()
    for _, gradient in ipairs { "auto", "gq" } do
      gq.core.plan_cache(false)
      local theta = leaf(0)
      local _, info, at = gq.odeint(function(t, z) return theta * gq.sin(20 * t) - z / 2 end, vector { 1 }, { 0, 3 },
        { rtol = 1e-3, atol = 1e-3, gradient = gradient, dense = true })
      local c, w, e = 0.5, 20, math.exp(-1.45)
      local want = (c * math.sin(2.9 * w) - w * math.cos(2.9 * w) + w * e) / (c * c + w * w)
      assert.is_nil(info.gradient_error)
      local got = gq.grad(at(2.9):sum(), theta):item()
      assert.equal(gradient == "auto", math.abs(got / want - 1) > 0.1)
      assert.equal(gradient == "auto", info.gradient_error > 0.1)
      assert.equal(gradient == "auto", info.warning ~= nil)
      assert.truthy(rawget(info, "steps") > 0 and info.nfe_backward >= 0)
    end
  end)

  it("has the same values with gradients as without", function()
    for _, dtype in ipairs { "float32", "float64" } do
      local z0 = gq.ones(3, 2, { dtype = dtype, requires_grad = true })
      local function f(t, z) return z * gq.cos(3 * t) end
      local z, info, at = gq.odeint(f, z0, { 0, 0.5, 2 }, { dense = true })
      local _, _, plain = gq.odeint(f, z0, { 0, 0.5, 2 }, { dense = true, gradient = "none" })
      for _, t in ipairs { 0.7, { 1.9, 0, 0.3, 0.3, 2, 0.5 }, gq.tensor { 1, 0.25 }, gq.tensor(0.125), {} } do
        local a, b = at(t), plain(t)
        assert.same(b:totable(), a:totable())
        assert.same(b.shape, a.shape)
        assert.same(b.dtype, a.dtype)
        if type(t) ~= "table" or #t > 0 then assert.truthy(a.requires_grad) end
        assert.falsy(b.requires_grad)
        assert.falsy(gq.no_grad(at, t).requires_grad)
        assert.close(at:derivative(t), plain:derivative(t):totable(), 1e-12)
      end
      assert.same({ 0, 2, info.steps }, { at.t0, at.t1, at.steps })
      assert.truthy(tostring(at):find("interpolant on", 1, true))
      assert.close(gq.grad(at { 1.9, 0.3 }[2]:sum(), z0), gq.grad(at(0.3):sum(), z0):totable(), 1e-5)
      assert.truthy(z.requires_grad)
    end
  end)

  it("has gradients for several tensors, grid points, events and what was reached", function()
    local k = leaf(1.5)
    local _, _, at = gq.odeint(function(_, z) return { -k * z[1], z[1] } end, { vector { 1, 2 }, vector { 0, 0 } },
      { 0, 1 }, { dense = true, rtol = 1e-9, atol = 1e-9 })
    local z, e = at(0.6), math.exp(-0.9)
    assert.close(gq.grad(z[1]:sum(), k):item(), -0.6 * 3 * e, 1e-6)
    assert.close(gq.grad(z[2]:sum(), k):item(), 3 * (0.6 * e / 1.5 - (1 - e) / 2.25), 1e-6)
    local slope = at:derivative { 0.6, 0.1 }
    assert.same({ 2, 2 }, slope[1].shape)
    assert.close(slope[2][1], { e, 2 * e }, 1e-6)

    _, _, at = gq.odeint(function(t, y) return gq.where(t:lt(0.4), -k * y, k * y) end, vector { 1 }, { 0, 1 },
      { dense = true, rtol = 1e-9, atol = 1e-9, grid_points = { 0.4 } })
    assert.close(gq.grad(at(0.7):sum(), k):item(), -0.1 * math.exp(-0.15), 1e-6)

    local _, info, _, until_event = gq.odeint(function(_, y) return -k * y end, vector { 1 }, { 0, 9 },
      { dense = true, rtol = 1e-9, atol = 1e-9, event = function(_, y) return y:sum() - 0.5 end })
    assert.equal(info.event_t, until_event.t1)
    assert.close(gq.grad(until_event(0.3):sum(), k):item(), -0.3 * math.exp(-0.45), 1e-6)

    local c = leaf(1)
    _, info, at = gq.odeint(function(_, y) return c * y * y end, vector { 1 }, { 0, 3 },
      { dense = true, throw = false, rtol = 1e-9, atol = 1e-9 })
    assert.not_equal("ok", info.status)
    if info.t == at.t1 then assert.close(at(0.5):item(), 2, 1e-6) end
  end)

  it("has those of grid points that move", function()
    for gradient, dir in helper.each({ "auto", "gq", "direct", "aca", "adjoint" }, { 1, -1 }) do
      local g = leaf { 0.4 * dir, 0.8 * dir }
      local _, _, at = gq.odeint(function(t, z)
        local past = gq.where((dir * t):lt(dir * g[1]), 0 * z + 1, 0 * z + 3)
        return gq.where((dir * t):lt(dir * g[2]), past, 0 * z + 7)
      end, vector { 0, 0 }, { 0, dir }, { dense = true, grid_points = g, gradient = gradient })
      for x, want in pairs { [0.3] = { 0, 0 }, [0.7] = { -4, 0 }, [0.9] = { -4, -8 }, [1] = { -4, -8 } } do
        assert.close(gq.grad(at(x * dir):sum(), g), want, 1e-9)
      end
    end
  end)

  it("has second derivatives where the engine has", function()
    local a = leaf(1.2)
    local _, _, at = gq.odeint(function(_, z) return a * z end, vector { 1 }, { 0, 1 },
      { dense = true, gradient = "direct", rtol = 1e-9, atol = 1e-9 })
    local g = gq.grad(at(0.5):sum(), a, { create_graph = true })
    assert.close(g:item(), 0.5 * math.exp(0.6), 1e-6)
    assert.close(gq.grad(g, a):item(), 0.25 * math.exp(0.6), 1e-6)
  end)

  it("whose solve's tensors were written to, or in a traced function, is an error", function()
    local a = vector { 1 }
    a.requires_grad = true
    local function f(_, z) return -a * z end
    local _, _, at = gq.odeint(f, vector { 1 }, { 0, 1 }, { dense = true })
    refused("traced", gq.odeint, function(_, z) return at(0.5) * z end, vector { 1 }, { 0, 1 })
    gq.no_grad(function() a[1] = 2 end)
    refused("modified in place", at, 0.5)
    assert.close(gq.no_grad(at, 0.5):item(), math.exp(-0.5), 1e-5)
  end)
end)
