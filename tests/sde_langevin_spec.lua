-- sde_langevin_spec.lua -- gq.langevin and the methods made for it: orders, the law they end in, gradients, refusals.

local gq = require "gq"
local helper = require "tests.helper"
local refused = helper.refused

local f64 = { dtype = "float64" }
local function well(x) return x ^ 3 - x + 0.5 * gq.sin(2 * x) end

local methods = {}
for _, m in ipairs(gq.core.schemes()) do methods[#methods + 1] = m.langevin and m or nil end

describe("Langevin methods", function()
  local n = 60
  local z0 = gq.randn(n, 4, { seed = 1, dtype = "float64" })

  it("are three", function() assert.equal(3, #methods) end)

  for _, m in ipairs(methods) do
    it(m.name .. " has its order, for small and large friction, on a path that all share", function()
      for _, gamma in ipairs { 1, 0.01, gq.tensor({ 0.5, 8 }, f64) } do
        local sde = gq.langevin { grad = well, gamma = gamma, u = 1.3 }
        local b = gq.brownian { t1 = 1, shape = { n, 2 }, seed = 3, dtype = "float64", levy_area = "space-time-time" }
        local function at(dt, method)
          return gq.sdeint(sde, z0, { 0, 1 }, { dt = dt, method = method or m.name, brownian = b })[2]
        end
        local fine, dts, errors = at(2 ^ -10, "quicsort"), {}, {}
        for k = 3, 6 do
          dts[#dts + 1] = 2 ^ -k
          errors[#errors + 1] = math.sqrt((at(2 ^ -k) - fine):square():mean():item())
        end
        assert.below(m.strong.additive - 0.15, helper.slope(dts, errors), m.name)
        assert.below(errors[4], 1e-3, "error")
        assert.below(errors[4], math.sqrt((at(2 ^ -6, "heun") - fine):square():mean():item()) / 3, "heun's")
      end
    end)

    it(m.name .. " has gradients by direct and aca", function()
      local k, start = gq.tensor(0.7, f64), z0:narrow(1, 1, 5):detach()
      k.requires_grad, start.requires_grad = true, true
      local function loss(x, y, engine)
        local sde = gq.langevin { grad = function(q) return x * well(q) end, gamma = 1 + x, u = 1.3 }
        local o = { dt = 0.1, method = m.name, seed = 2, gradient = engine }
        return gq.sdeint(sde, y, { 0, 0.4, 1 }, o):square():sum()
      end
      local function shifted(e) return loss(gq.tensor(0.7 + e, f64), start:detach(), "none"):item() end
      local want = (shifted(1e-5) - shifted(-1e-5)) / 2e-5
      local direct = gq.grad({ loss(k, start, "direct") }, { k, start })
      assert.close(direct[1]:item(), want, 1e-7)
      assert.below(helper.relative(gq.grad({ loss(k, start, "aca") }, { k, start }), direct), 1e-13, "aca")
      refused("direct", loss, k, start, "adjoint")
    end)
  end

  it("end in the law of the harmonic well", function()
    local sde = gq.langevin { grad = function(x) return 2 * x end, gamma = 1, u = 0.5 }
    local z = gq.sdeint(sde, gq.zeros(4000, 2), { 0, 12 }, { dt = 0.25, method = "quicsort", seed = 1 })[2]
    assert.close(z[{ {}, 1 }]:var():item(), 0.5, 0.07)       -- exp(-x^2 - v^2): that of u = 1 / 2
    assert.close(z[{ {}, 2 }]:var():item(), 0.5, 0.07)
  end)

  it("refuse what is no Langevin SDE", function()
    local plain = gq.sde { drift = function(_, z) return z end, diffusion = function(_, z) return z end }
    local sde = gq.langevin { grad = well }
    refused("gq.langevin", gq.sdeint, plain, z0, { 0, 1 }, { dt = 0.1, method = "align" })
    refused("even", gq.sdeint, sde, gq.ones(2, 3), { 0, 1 }, { dt = 0.1, method = "align" })
    refused("space-time-time", gq.sdeint, sde, z0, { 0, 1 }, { dt = 0.1, method = "should", brownian =
      gq.brownian { t1 = 1, shape = { n, 2 }, levy_area = "space-time", dtype = "float64" } })
    refused("grad", gq.langevin, {})
    refused("gamma", gq.langevin, { grad = well, gamma = -1 })
    refused("grad gave", gq.sdeint, gq.langevin { grad = function(x) return x:sum() end }, z0, { 0, 1 }, { dt = 0.1 })
    refused("milstein", gq.sdeint, gq.sde { drift = plain.drift, diffusion = plain.diffusion, calculus = "ito" }, z0,
      { 0, 1 }, { dt = 0.1, method = "heun" })
  end)
end)
