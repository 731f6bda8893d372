-- sde_independent_spec.lua -- gq.sdeint with batch = "independent": each row its own steps along its own path, the same
-- numbers alone and in company.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"
local refused = helper.refused

local f64 = { dtype = "float64" }
local n = 20
local noises, kinds, drift = problems.noisy(n)
local z0 = gq.randn(n, 2, { seed = 5, dtype = "float64" })
local times = { 0, 0.3, 1 }

local function path(noise, levy)
  return gq.brownian { t1 = 1, shape = noise == "scalar" and { n, 1 } or { n, 2 }, seed = 3, dtype = "float64",
    tol = 2 ^ -20, levy_area = levy or "space-time" }
end

local function each_method(f)
  for m, noise in helper.each(gq.core.schemes(), noises) do
    local areas = m.name == "log_ode" and noise == "general"
    if m.strong[noise] and not areas and m.name ~= "reversible_heun" and m.name ~= "theta" then
      local sde = m.langevin and gq.langevin { grad = function(x) return x ^ 3 - x end }
        or gq.sde { drift = drift, diffusion = kinds[noise], noise = noise,
          calculus = m.stratonovich and "stratonovich" or "ito" }
      local start = m.langevin and gq.cat({ z0, z0 * 0.5 }, 2) or z0
      f(m, noise, sde, start, path(noise, m.langevin and "space-time-time"))
    end
  end
end

-- Free of the batch's size: rows may be solved alone.
local kinds_of_rows = {
  diagonal = function(t, z) return (0.7 + 0.2 * t) * gq.sin(z + 0.5) + 0.5 end,
  scalar = function(t, z) return gq.sin(z) + t end,
  general = function(_, z) return gq.stack({ gq.sin(z), 0.3 + 0 * z }, -1) end,
  additive = function(t) return gq.tensor({ { 0.8, 0.3 }, { -0.2, 0.5 } }, f64) * (1 + t) end,
}

describe("samples of an SDE with steps of their own", function()
  it("are on a grid of dt what they are together", function()
    each_method(function(m, noise, sde, start, b)
      local o = { dt = 0.0625, method = m.name, brownian = b }
      local want = gq.sdeint(sde, start, times, o)
      local z, info = gq.sdeint(sde, start, times, helper.with(o, { batch = "independent" }))
      assert.below((z - want):abs():max():item(), 1e-13, m.name .. ", " .. noise)
      assert.equal(n * 17, info.steps)                    -- one of them short, at 0.3
      assert.equal(17, info.samples.steps[1]:item())
    end)
  end)

  it("converge to a fine solve by adaptive steps of their own", function()
    each_method(function(m, noise, sde, start, b)
      if not m.adapts[noise] then return end
      local fine = gq.sdeint(sde, start, times, { dt = 2 ^ -9, method = m.name, brownian = b })
      local o = { adaptive = true, dt = 0.25, rtol = 1e-3, atol = 1e-3, method = m.name, brownian = b }
      local z, info = gq.sdeint(sde, start, times, helper.with(o, { batch = "independent" }))
      assert.below((z - fine):square():mean():item() ^ 0.5, 1.5e-2, m.name .. ", " .. noise)
      local steps = info.samples.steps
      assert.below(steps:min():item(), steps:max():item(), m.name .. ", " .. noise)
      assert.same({ n }, info.samples.rejected.shape)
    end)
  end)

  for noise, g in pairs(kinds_of_rows) do
    it("have the same bits alone and in company, on any number of threads: " .. noise .. " noise", function()
      local net = gq.nn.mlp { sizes = { 2, 8, 2 }, activation = "tanh", time = true }
      net:to "float64"
      local sde = gq.sde { drift = function(t, z) return net(t, z) - z end, diffusion = g, noise = noise }
      local b = path(noise)
      local function solve(z, w, engine)
        z = z:clone()
        z.requires_grad = true
        local y, info = gq.sdeint(sde, z, times, { adaptive = true, dt = 0.25, rtol = 1e-2, atol = 1e-2, brownian = w,
          method = "spark", batch = "independent", gradient = engine })
        return y:detach(), gq.grad({ y:square():sum() }, { z })[1], info
      end
      local all, grad, info = solve(z0, b, "direct")
      for _, r in ipairs { 1, 7, n } do
        local one, g1, alone = solve(z0:narrow(1, r, 1), b:rows(r), "aca")
        assert.equal(0, (one - all:narrow(2, r, 1)):abs():max():item())
        assert.equal(0, (g1 - grad:narrow(1, r, 1)):abs():max():item())
        assert.equal(info.samples.steps[r]:item(), alone.steps)
      end
      local threads = gq.threads()
      gq.set_threads(threads == 1 and 2 or 1)
      local again, grad_again = solve(z0, b, "auto")
      gq.set_threads(threads)
      assert.equal(0, (again - all):abs():max():item())
      assert.equal(0, (grad_again - grad):abs():max():item())
    end)
  end

  it("have gradients by what is theirs and by what all share", function()
    local k, c = gq.tensor(0.7, f64), gq.rand(n, 1, { seed = 2, dtype = "float64" })
    k.requires_grad, c.requires_grad = true, true
    for _, calculus in ipairs { "ito", "stratonovich" } do
      local sde = gq.sde { calculus = calculus, drift = function(t, z) return gq.sin(k * z) - c * z + t end,
        diffusion = function(_, z) return 0.4 * k * z + 0.1 * c end }
      local o = { dt = 0.1, brownian = path "diagonal", method = calculus == "ito" and "srk" or "midpoint" }
      local function grads(more)
        return gq.grad({ gq.sdeint(sde, z0, times, helper.with(o, more)):square():sum() }, { k, c })
      end
      local want, got = grads {}, grads { batch = "independent" }
      for i = 1, 2 do assert.below(helper.relative({ got[i] }, { want[i] }), 1e-12) end
    end
  end)

  it("have gradients of adaptive steps: those of a linear SDE are known", function()
    local z = (z0 + 3):detach()
    z.requires_grad = true
    local gbm = gq.sde { drift = function(_, y) return 0.1 * y end, diffusion = function(_, y) return 0.8 * y end }
    for _, method in ipairs { "heun", "milstein", "slowrk" } do
      local y, info = gq.sdeint(gbm, z, times, { adaptive = true, rtol = 1e-2, atol = 1e-2, brownian = path "diagonal",
        method = method, batch = "independent" })
      local grad = gq.grad({ (y[2] * y[3]):sum() }, { z })[1]
      -- z2 = a z, z3 = b z, rows with steps of their own, which the derivative leaves as they are
      assert.close(grad, 2 * y[2]:detach() * y[3]:detach() / z:detach(), 1e-11)
      assert.equal(info.samples.steps:sum():item(), info.samples.steps_backward:sum():item())
    end
  end)

  it("come with logqp, several tensors, times that decrease, and fail one by one", function()
    local s = gq.sde { drift = function(_, z) return -z end, prior_drift = function(_, z) return 0 * z + 0.5 end,
      diffusion = function(_, z) return gq.cos(z) * 0.3 + 1 end }
    local o = { dt = 0.05, brownian = path "diagonal", logqp = true }
    local _, want = gq.sdeint(s, z0, times, o)
    local _, info = gq.sdeint(s, z0, times, helper.with(o, { batch = "independent" }))
    assert.close(info.logqp, want.logqp, 1e-12)
    local two = gq.sde { drift = function(_, z) return { -z[1], -2 * z[2] } end,
      diffusion = function(_, z) return { 0.3 * z[1], 0.2 * z[2] } end }
    o = { dt = 0.05, seed = 3 }
    local z = gq.sdeint(two, { z0, z0:narrow(2, 1, 1) }, times, o)
    local y = gq.sdeint(two, { z0, z0:narrow(2, 1, 1) }, times, helper.with(o, { batch = "independent" }))
    assert.close(y[1], z[1], 1e-12)
    assert.close(y[2], z[2], 1e-12)
    o = { adaptive = true, rtol = 1e-4, atol = 1e-4, brownian = path "diagonal", batch = "independent",
      method = "slowrk" }
    local gbm = gq.sde { drift = function(_, x) return 0.1 * x end, diffusion = function(_, x) return 0.8 * x end }
    local there = gq.sdeint(gbm, z0, { 0, 1 }, o)[2]
    assert.close(gq.sdeint(gbm, there, { 1, 0 }, o)[2], z0, 1e-2)
    local blow = gq.sde { drift = function(_, x) return gq.where(x:gt(100), x ^ 3, -x) end,
      diffusion = function(_, x) return 0.1 * x end }
    local start = gq.ones(4, 2, f64)
    start[3] = 1e4
    local r, told = gq.sdeint(blow, start, { 0, 1 }, { dt = 0.1, seed = 1, batch = "independent", throw = false })
    assert.same({ "ok", "ok", "non_finite", "ok" }, told.samples.status)
    assert.truthy(r[2][4][1]:item() == r[2][4][1]:item())
  end)

  it("are refused where they mean nothing", function()
    local s = gq.sde { drift = function(_, z) return -z end, diffusion = function(_, z) return 0.1 * z end }
    local function solve(o, sde, z)
      return gq.sdeint, sde or s, z or z0, { 0, 1 }, helper.with({ dt = 0.1, batch = "independent" }, o)
    end
    refused("carries more than z", solve { method = "reversible_heun" })
    refused("implicit", solve({ method = "theta" }, s:with { calculus = "ito" }))
    local general = s:with { noise = "general", diffusion = kinds_of_rows.general }
    refused("Levy areas", solve({ method = "log_ode" }, general))
    refused("gradient = \"adjoint\"", solve({ gradient = "adjoint" }, nil, gq.zeros(2, 2, { requires_grad = true })))
    refused("must not act on each other", solve({}, s:with { drift = function(_, z) return z - z:mean(1, true) end }))
    refused("{rows, d}", solve({}, s:with { noise = "scalar" }, gq.ones(3, f64)))
    refused("batch = \"each\" is not known", solve { batch = "each" })
  end)
end)

describe("rows of a Brownian path", function()
  it("are the path's", function()
    for _, levy in ipairs { "none", "space-time", "space-time-time", "foster" } do
      local o = { t1 = 2, shape = { 5, 3 }, seed = 4, dtype = "float64", levy_area = levy }
      if levy == "none" then o.W = gq.randn(5, 3, { seed = 9, dtype = "float64" }) end
      local b = gq.brownian(o)
      for _, range in ipairs { { 1, 5 }, { 2, 1 }, { 4, 2 }, { 5, 1 } } do
        local part = b:rows(range[1], range[2])
        assert.same({ range[2], 3 }, part.shape)
        for _, t in ipairs { 0.3, 1, 1.7, 2 } do
          assert.equal(0, (part(0.1, t) - b(0.1, t):narrow(1, range[1], range[2])):abs():max():item())
        end
        if levy ~= "none" then
          local all, some = { b:areas(0.2, 0.9) }, { part:areas(0.2, 0.9) }
          for i = 1, #all do
            assert.equal(0, (some[i] - all[i]:narrow(1, range[1], range[2])):abs():max():item())
          end
        end
      end
      refused("first row", function() b:rows(0) end)
      refused("number of rows", function() b:rows(4, 3) end)
    end
  end)
end)
