-- sde_adaptive_spec.lua -- adaptive steps of gq.sdeint: the error falls with the tolerance, without bias, in the
-- calculus that is asked for; gradients; refusals.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"
local refused = helper.refused

local f64 = { dtype = "float64" }

local function gbm(calculus)
  return gq.sde { drift = function(_, z) return 0.1 * z end, diffusion = function(_, z) return 0.8 * z end,
    calculus = calculus }
end

local function path(seed, kind, shape)
  return gq.brownian { t1 = 1, shape = shape or { 1, 1 }, seed = seed, dtype = "float64", tol = 2 ^ -22,
    levy_area = kind }
end

-- Of single samples, whose steps follow their own paths.
local function errors(method, tol, calculus)
  local square, bias, steps, n = 0, 0, 0, 40
  for seed = 1, n do
    local b = path(seed, method == "spark" and "space-time" or "none")
    local z, info = gq.sdeint(gbm(calculus), gq.ones(1, 1, f64), { 0, 0.37, 1 }, { adaptive = true, rtol = tol,
      atol = tol, brownian = b, method = method, calculus = "stratonovich" })
    local off = z[3]:item() - math.exp(0.1 + 0.8 * b(1):item() - (calculus == "ito" and 0.32 or 0))
    square, bias, steps = square + off * off / n, bias + off / n, steps + info.steps / n
    assert.equal("ok", info.status)
  end
  return math.sqrt(square), bias, steps
end

describe("adaptive steps", function()
  for _, method in ipairs { "heun", "ralston", "spark" } do
    it("of " .. method .. " have an error that falls with the tolerance", function()
      local tols, rms, last = { 1e-1, 1e-2, 1e-3 }, {}, 0
      for i, tol in ipairs(tols) do
        local _, steps
        rms[i], _, steps = errors(method, tol)
        assert.below(last, steps, "steps")
        last = steps
      end
      assert.below(0.6, helper.slope(tols, rms), method)
      assert.below(rms[3], 5e-3, method)
    end)
  end

  it("solve Ito SDEs in Stratonovich form", function()
    local rms, bias = errors("heun", 1e-3, "ito")
    assert.below(rms, 2e-3, "error")
    assert.below(math.abs(bias), 1e-3, "bias")
  end)

  for _, method in ipairs { "euler", "shark" } do
    it("of " .. method .. " do so where noise is additive, and there alone", function()
      local sde = gq.sde { calculus = "ito", noise = "additive",
        drift = function(t, z) return gq.sin(3 * z) - z * t end,
        diffusion = function(t) return gq.tensor({ { 0.8, 0.3 }, { -0.2, 0.5 } }, f64) * (1 + t) end }
      local tols, rms, last = { 1e-1, 1e-2, 1e-3 }, {}, 0
      for i, tol in ipairs(tols) do
        local square, steps = 0, 0
        for seed = 1, 12 do
          local b = path(seed, "space-time", { 1, 2 })
          local o = { adaptive = true, rtol = tol, atol = tol, brownian = b, method = method }
          local fine = gq.sdeint(sde, gq.ones(1, 2, f64), { 0, 1 }, { dt = 2 ^ -9, brownian = b, method = "sra3" })
          local z, info = gq.sdeint(sde, gq.ones(1, 2, f64), { 0, 1 }, o)
          square, steps = square + (z - fine)[2]:square():mean():item(), steps + info.steps
        end
        rms[i] = math.sqrt(square / 12)
        assert.below(last, steps, "steps")
        last = steps
      end
      assert.below(0.6, helper.slope(tols, rms), method)
    end)
  end

  it("converge to a fine solve along the same path, by method and noise", function()
    local noises, diffusion, drift = problems.noisy(2)
    for m, noise in helper.each(gq.core.schemes(), noises) do
      if m.adapts[noise] then
        local sde = m.langevin and gq.langevin { grad = function(x) return x ^ 3 - x end }
          or gq.sde { drift = drift, diffusion = diffusion[noise], noise = noise,
            calculus = m.stratonovich and "stratonovich" or "ito" }
        local z0 = gq.randn(2, m.langevin and 4 or 2, { seed = 5, dtype = "float64" })
        local shape = noise == "scalar" and { 2, 1 } or { 2, 2 }
        local square = { 0, 0, 0 }
        for seed = 1, 3 do
          local b = path(seed, m.langevin and "space-time-time" or "space-time", shape)
          local fine = gq.sdeint(sde, z0, { 0, 1 }, { dt = 2 ^ -10, brownian = b, method = m.name })[2]
          for i, tol in ipairs { 1e-1, 1e-2, 1e-4 } do
            local z = gq.sdeint(sde, z0, { 0, 1 }, { adaptive = true, dt = 0.25, rtol = tol, atol = tol, brownian = b,
              method = m.name })
            square[i] = square[i] + (z[2] - fine):square():mean():item() / 3
          end
        end
        local what = ("%s, %s noise: %.2g, %.2g, %.2g"):format(m.name, noise, square[1] ^ 0.5, square[2] ^ 0.5,
          square[3] ^ 0.5)
        assert.below(square[3] ^ 0.5, 5e-3, what)
        assert.below(square[3] ^ 0.5, 0.3 * square[1] ^ 0.5, what)
      end
    end
  end)

  it("stop at the ends of steps that were refused", function()
    gq.core.steplog(true)
    local _, info = gq.sdeint(gbm(), gq.ones(1, 1, f64), { 0, 1 }, { adaptive = true, dt = 0.5, rtol = 1e-2,
      atol = 1e-2, brownian = path(5) })
    local rows = gq.core.steplog()
    gq.core.steplog(false)
    assert.truthy(info.rejected > 0)
    local visited, refusals = {}, {}
    for _, r in ipairs(rows) do
      if r[1] == r[1] and r[4] ~= 0 then visited[r[1] + r[2]] = true
      elseif r[1] == r[1] then refusals[#refusals + 1] = r[1] + r[2] end
    end
    assert.equal(info.rejected, #refusals)
    for _, t in ipairs(refusals) do
      local near = false
      for v in pairs(visited) do near = near or math.abs(v - t) < 1e-12 end
      assert.truthy(near, ("t = %g"):format(t))
    end
  end)

  it("have gradients", function()
    for method, calculus in pairs { heun = "stratonovich", midpoint = "stratonovich", milstein = "ito", srk = "ito" } do
      local z0 = gq.ones(3, 1, f64)
      z0.requires_grad = true
      local b = path(2, method == "srk" and "space-time" or "none", { 3, 1 })
      local function grad(engine, more)
        local z = gq.sdeint(gbm(calculus), z0, { 0, 0.4, 1 }, { adaptive = true, rtol = 1e-3, atol = 1e-3, brownian = b,
          gradient = engine, method = method })
        return gq.grad({ (z[2] + z[3]):square():sum() }, { z0 }, { create_graph = more })[1], z:detach()
      end
      local direct, z = grad "direct"
      local want = 2 * (z[2] + z[3]):square()           -- the SDE is linear
      assert.close(direct, want, 1e-12)
      assert.close((grad "aca"), direct, 1e-13)
      assert.below(helper.relative({ (grad "adjoint") }, { direct }), method == "heun" and 5e-3 or 0.02, method)
      assert.close((grad "auto"), direct, 1e-13)
      local again = gq.grad({ grad("direct", true):sum() }, { z0 })[1]
      assert.close(again, want, 1e-12)
    end
  end)

  it("count what they evaluate", function()
    local function count_of(method, noise)
      local sde = gq.sde { noise = noise, calculus = "ito", drift = function(_, z) return gq.sin(z) end,
        diffusion = function(_, z) return noise and gq.eye(2, f64) or z end }
      local _, info = gq.sdeint(sde, gq.ones(1, 2, f64), { 0, 0.25 }, { adaptive = true, dt = 0.25, rtol = 1, atol = 1,
        method = method, seed = 1 })
      assert.equal(1, info.steps + info.rejected)
      return info.nfe
    end
    assert.equal(2, count_of "milstein")              -- where a step begins its first half does, too
    assert.equal(8, count_of("sra3", "additive"))
  end)

  it("go backwards too", function()
    local b = path(3, "none", { 4, 1 })
    local o = { adaptive = true, rtol = 1e-4, atol = 1e-4, brownian = b }
    local z = gq.sdeint(gbm(), gq.ones(4, 1, f64), { 0, 1 }, o)
    assert.close(gq.sdeint(gbm(), z[2], { 1, 0 }, o)[2], gq.ones(4, 1, f64), 5e-3)
  end)

  it("are refused where no estimate is known to serve", function()
    local function solve(o, sde)
      o.adaptive = true
      return gq.sdeint, sde or gbm(), gq.ones(2, 2, f64), { 0, 1 }, o
    end
    local general = gq.sde { drift = function(_, z) return -z end, noise = "general",
      diffusion = function(_, z) return gq.stack({ z, gq.sin(z) }, -1) end }
    refused("use heun, midpoint, euler_heun, milstein, ralston, log_ode, spark, slowrk",
      solve { method = "reversible_heun" })
    refused("use milstein, milstein_grad_free, srk", solve({ method = "euler" }, gbm "ito"))
    refused("use spark", solve({}, general))
    refused("none for Ito SDEs", solve({ calculus = "ito", method = "euler" }, general))
    refused("\"log_ode\" has none", solve({ method = "log_ode" }, general))
    local run = { solve({ method = "spark" }, general) }
    run[1](table.unpack(run, 2))
    refused("rtol", solve { rtol = -1 })
    refused("dt", solve { dt = -1 })
    refused("adaptive", gq.sdeint, gbm(), gq.ones(2, 2, f64), { 0, 1 }, { adaptive = 3 })
    refused("dt", gq.sdeint, gbm(), gq.ones(2, 2, f64), { 0, 1 }, { adaptive = false })
    refused("max_step is -1", solve { max_step = -1 })
    for _, key in ipairs { "rtol", "atol" } do
      refused(key .. " is -1", gq.sdeint, gbm(), gq.ones(2, 2, f64), { 0, 1 }, { dt = 0.1, [key] = -1 })
    end
    gq.sdeint(gbm(), gq.ones(2, 2, f64), { 0, 1 }, { dt = 0.1, rtol = 1e-5, atol = 1e-4 })
    refused("max_step is for adaptive = true", gq.sdeint, gbm(), gq.ones(2, 2, f64), { 0, 1 }, { dt = 0.1,
      max_step = 0.1 })
    local free = gq.sdeint(gbm(), gq.ones(2, 2, f64), { 0, 1 }, { adaptive = true, seed = 1 })
    for _, most in ipairs { 0, math.huge } do
      local o = { adaptive = true, seed = 1, max_step = most }
      assert.same(free:totable(), gq.sdeint(gbm(), gq.ones(2, 2, f64), { 0, 1 }, o):totable())
    end
    refused("below min_step", solve { rtol = 1e-9, atol = 1e-9, brownian = gq.brownian { t1 = 1, shape = { 2, 2 },
      tol = 1e-3, dtype = "float64" } })
  end)
end)
