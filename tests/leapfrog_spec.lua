-- leapfrog_spec.lua -- the symplectic method: its steps against a few lines of Lua, energy over long times, its
-- gradients by every engine, and the dynamics it refuses.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, refused = problems.vector, problems.leaf, helper.refused

local k = leaf(1.7)
local function pull(t, z) return -k * gq.sin(z:narrow(-1, 1, z.shape[z:dim()] // 2)) + 0.1 * gq.cos(t) end
local swing = gq.nn.SecondOrder(pull)

local function solve(z0, t, o)
  o.method = "leapfrog"
  return gq.odeint(swing, z0, t, o)
end

describe("leapfrog", function()
  it("takes the steps of velocity Verlet, one evaluation each", function()
    for _, h in ipairs { 0.1, -0.1 } do
      local z, info = solve(vector { 0.4, 1.1 }, { 0, 20 * h }, { step_size = 0.1, gradient = "none" })
      local x, v = 0.4, 1.1
      local function a(i) return -1.7 * math.sin(x) + 0.1 * math.cos(i * h) end
      for i = 1, 20 do
        v = v + h / 2 * a(i - 1)
        x = x + h * v
        v = v + h / 2 * a(i)
      end
      assert.close(z[2], { x, v }, 1e-13)
      assert.equal(20, info.steps)
      assert.equal(21, info.nfe)
    end
  end)

  it("keeps the energy of an oscillator over 1000 periods, where rk4 loses it", function()
    local function energy(method)
      local function f(_, z) return gq.stack({ z[2], -z[1] }, 1) end
      local z = gq.odeint(f, vector { 1, 0 }, { 0, 2000 * math.pi },
        { method = method, step_size = 0.5, gradient = "none" })
      return z[2][1]:item() ^ 2 + z[2][2]:item() ^ 2
    end
    assert.below(math.abs(energy("leapfrog") - 1), 0.1, "energy")
    assert.below(energy("rk4"), 0.5, "energy by rk4")
  end)

  it("solves every row of a batch, whatever its layout", function()
    local one, info = solve(vector { 0.4, 1.1 }, { 0, 1 }, { step_size = 0.1, gradient = "none" })
    assert.equal("ok", info.status)
    for _, shape in ipairs { { 1, 2 }, { 3, 2 }, { 70, 2 }, { 9, 2, 2 } } do
      local rows = vector { 0.4, 1.1 }:expand(shape)
      if #shape == 3 then -- [x, x, v, v] in the last dimension
        shape[3] = 4
        rows = vector { 0.4, 0.4, 1.1, 1.1 }:expand(shape)
      end
      local z = solve(rows, { 0, 1 }, { step_size = 0.1, gradient = "none" })
      local want = #shape == 3 and gq.cat({ one[2]:narrow(1, 1, 1), one[2]:narrow(1, 1, 1), one[2]:narrow(1, 2, 1),
        one[2]:narrow(1, 2, 1) }, 1) or one[2]
      assert.close(z[2], want:expand(shape):totable(), 1e-13)
    end
  end)

  it("reads times between its steps from a cubic", function()
    local coarse = solve(vector { 0.4, 1.1 }, { 0, 0.33, 0.5, 1 }, { step_size = 0.05, gradient = "none" })
    local fine = gq.odeint(swing, vector { 0.4, 1.1 }, { 0, 0.33, 0.5, 1 },
      { rtol = 1e-10, atol = 1e-10, gradient = "none" })
    assert.close(coarse, fine:totable(), 0, 2e-3)
  end)

  it("has the same gradients by direct, aca and reversible, and close ones by the continuous engines", function()
    local t = leaf { 0, 0.33, 0.5, 0.5, 1 }
    for _, shape in ipairs { { 2 }, { 5, 4 }, { 40, 2 } } do
      gq.manual_seed(4)
      local z0 = gq.randn(shape, { dtype = "float64" })
      z0.requires_grad = true
      local function gradients(engine, dense)
        local z, info = solve(z0, t, { gradient = engine, step_size = 0.02, gq = { nodes = 20 },
          adjoint = { trajectory = dense and "dense" or nil } })
        local list = {}
        for _, g in ipairs(gq.grad((z * z):sum(), { k, z0, t })) do helper.flatten(g, list) end
        return list, info
      end
      local want = gradients("direct")
      assert.same(want, gradients("aca"))
      local got, info = gradients("reversible")
      assert.below(helper.relative(got, want), 1e-12, "reversible")
      assert.below(info.reconstruction * 1e-6, 1e-12, "reconstruction")
      for _, engine in ipairs { "gq", "adjoint", "seminorm" } do
        assert.below(helper.relative(gradients(engine), want), 1e-3, engine)
        assert.below(helper.relative(gradients(engine, true), want), 2e-3, engine .. ", dense")
      end
    end
  end)

  it("can be differentiated again", function()
    local z0 = leaf { 0.4, 1.1 }
    local z = solve(z0, { 0, 0.25, 1 }, { gradient = "direct", step_size = 0.1 })
    local g = gq.grad((z * z):sum(), { k, z0 }, { create_graph = true })
    local plain = gq.grad((z * z):sum(), { k, z0 })
    for i = 1, 2 do assert.close(g[i], plain[i]:totable(), 1e-12) end
    assert.truthy(gq.grad(g[1], { k })[1]:item() ~= 0)
  end)
end)

describe("leapfrog refuses", function()
  local function fails(f, z0, ...)
    refused({ ... }, gq.odeint, f, z0, { 0, 1 }, { method = "leapfrog", step_size = 0.1 })
  end

  it("a state that is no [x, v]", function()
    fails(function(_, z) return z end, vector { 1, 2, 3 }, "leapfrog", "even", "{3}")
    fails(function(_, z) return z end, gq.ones(4, 3, { dtype = "float64" }), "even", "{4, 3}")
    fails(function(_, z) return z end, gq.tensor(1, { dtype = "float64" }), "even")
  end)

  it("dynamics of another form", function()
    fails(function(_, z) return -z end, vector { 1, 2 }, "first half is not v", "SecondOrder")
    fails(function(_, z) return -z end, gq.ones(64, 2, { dtype = "float64" }), "first half is not v")
    fails(gq.nn.SecondOrder(function(_, z) return -z:narrow(1, 1, 1) - 0.1 * z:narrow(1, 2, 1) end), vector { 1, 2 },
      "depends on v")
    fails(gq.nn.SecondOrder(function(_, z) return z:narrow(1, 2, 1) end), vector { 1, 2 }, "depends on v") -- v itself
    fails(gq.nn.SecondOrder(function(_, z) return z:narrow(2, 3, 2) end), gq.ones(5, 4, { dtype = "float64" }),
      "depends on v")
  end)

  it("a tolerance-driven backward solve of its own kind", function()
    refused("dopri5", gq.odeint, swing, vector { 1, 2 }, { 0, 1 }, { adjoint = { method = "leapfrog" } })
  end)
end)
