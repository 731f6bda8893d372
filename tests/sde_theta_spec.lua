-- sde_theta_spec.lua -- method = "theta" of gq.sdeint: a drift that is implicit.

local gq = require "gq"
local helper = require "tests.helper"
local refused = helper.refused

local f64 = { dtype = "float64" }

local function solve(sde, z0, t, o) return gq.sdeint(sde, z0, t, helper.with({ method = "theta", seed = 7 }, o)) end

-- dz = (a cos t - 300 z^3 - 300 z) dt + g dW, stiff and not linear, with its leaves.
local function stiff(noise)
  local a, c = gq.tensor(2, f64), gq.tensor({ 0.3, 0.4 }, f64)
  a.requires_grad, c.requires_grad = true, true
  local kinds = {
    diagonal = function(_, z) return c * z end,
    scalar = function(_, z) return c[1] * gq.sin(z) end,
    additive = function(t) return gq.stack({ c, 2 * c, c * c }, -1) * (1 + t) end,
    general = function(_, z) return gq.stack({ c * z, gq.cos(z) * c }, -1) end,
  }
  local sde = gq.sde { drift = function(t, z) return a * gq.cos(t) - 300 * (z ^ 3 + z) end, diffusion = kinds[noise],
    noise = noise, calculus = "ito" }
  return sde, { a, c }
end

describe("theta", function()
  it("is its formula, step by step", function()
    local k, s, dt = 40, 0.6, 0.1
    local path = gq.brownian { t0 = 0, t1 = 0.5, shape = { 5, 1 }, seed = 3, dtype = "float64" }
    local sde = gq.sde { drift = function(t, z) return t - k * z end, diffusion = function(_, z) return s * z end,
      calculus = "ito" }
    for _, theta in ipairs { 0.5, 0.8, 1 } do
      local z = gq.linspace(-1, 1, 5):to("float64"):reshape(5, 1)
      local got = solve(sde, z, { 0, 0.5 }, { dt = dt, theta = theta, brownian = path })[2]
      for i = 0, 4 do
        local t = i * dt
        local known = z + (t - k * z) * ((1 - theta) * dt) + s * z * path(t, t + dt)
        z = (known + theta * dt * (t + dt)) / (1 + theta * dt * k)
      end
      assert.close(got:totable(), z:totable(), 1e-12)
    end
  end)

  it("is backward Euler by default, and stays where explicit steps explode", function()
    local sde = stiff "diagonal"
    local z0 = gq.full({ 20, 2 }, 0.1, f64)
    local z, info = solve(sde, z0, { 0, 1, 2 }, { dt = 0.05 })
    assert.close(z:totable(), solve(sde, z0, { 0, 1, 2 }, { dt = 0.05, theta = 1 }):totable(), 0)
    assert.is_true(z[3]:abs():max():item() < 0.05)
    assert.equal(40, info.steps)
    assert.is_true(info.newton >= 40 and info.jacobians >= 40)
    local fine = solve(sde, z0, { 0, 1, 2 }, { dt = 0.0005, method = "euler" })
    assert.close(z[3]:mean():item(), fine[3]:mean():item(), 0.05)
    refused("not finite", solve, sde, z0 + 1, { 0, 2 }, { dt = 0.05, method = "euler" })
  end)

  it("has order 2 without noise where theta is a half, 1 where it is more", function()
    local sde = gq.sde { drift = function(t, z) return gq.sin(3 * t) - z - z ^ 3 end, calculus = "ito",
      diffusion = function(_, z) return 0 * z end }
    for theta, order in pairs { [0.5] = 2, [0.75] = 1, [1] = 1 } do
      local function at(dt) return solve(sde, gq.ones(1, 1, f64), { 0, 1 }, { dt = dt, theta = theta })[2] end
      local fine = solve(sde, gq.ones(1, 1, f64), { 0, 1 }, { dt = 1 / 4096, theta = 0.5 })[2]
      local e = { (at(1 / 32) - fine):abs():item(), (at(1 / 64) - fine):abs():item() }
      assert.near(order, math.log(e[1] / e[2], 2), 0.1)
    end
  end)

  it("has the gradients of its steps, of any kind of noise", function()
    for _, noise in ipairs { "diagonal", "scalar", "additive", "general" } do
      local z0 = gq.randn(6, 2, { seed = 1, dtype = "float64" })
      z0.requires_grad = true
      local sde, p = stiff(noise)
      p[3] = z0
      local function loss(o)
        return solve(sde, z0, { 0, 0.2, 0.35 }, helper.with({ dt = 0.05, theta = 0.6 }, o)):sum()
      end
      local got, again = gq.grad({ loss {} }, p), gq.grad({ loss { gradient = "aca" } }, p)
      assert.below(helper.relative(again, got), 1e-14, noise)
      for i, x in ipairs(p) do
        local way, e, at = gq.randn(x.shape, { seed = i, dtype = "float64" }), 1e-5, {}
        local was = x:clone():detach()
        for _, s in ipairs { 1, -1 } do
          gq.no_grad(function() x:copy_(was + s * e * way) end)
          at[s] = loss { gradient = "none" }:item()
        end
        gq.no_grad(function() x:copy_(was) end)
        assert.close((got[i] * way):sum():item(), (at[1] - at[-1]) / (2 * e), 1e-6)
      end
    end
  end)

  it("gives the same numbers for any number of threads, and in float32", function()
    local threads, sde = gq.threads(), stiff "diagonal"
    local z0 = gq.randn(300, 2, { seed = 2, dtype = "float64" })
    gq.set_threads(1)
    local want = solve(sde, z0, { 0, 1 }, { dt = 0.1 })[2]
    gq.set_threads(2)
    assert.close(solve(sde, z0, { 0, 1 }, { dt = 0.1 })[2]:totable(), want:totable(), 0)
    gq.set_threads(threads)
    local plain = gq.sde { drift = function(_, z) return -200 * z end, calculus = "ito",
      diffusion = function(_, z) return 0.1 * z + 1 end }
    local one = solve(plain, z0:to "float32", { 0, 1 }, { dt = 0.1 })[2]
    local two = solve(plain, z0, { 0, 1 }, { dt = 0.1 })[2]
    assert.below((one:to "float64" - two):abs():max():item(), 1e-5)
  end)

  it("takes rows that act on each other, several tensors, one number, and no rows", function()
    local A = gq.tensor({ { -90, 30 }, { 20, -70 } }, f64)
    local sde = gq.sde { drift = function(_, z) return A:matmul(z) end, diffusion = function(_, z) return 0.1 * z end,
      calculus = "ito" }
    local z = solve(sde, gq.ones(2, f64), { 0, 1 }, { dt = 0.1 })
    assert.is_true(z[2]:abs():max():item() < 1e-3)
    local pair = gq.sde { drift = function(_, x) return { -50 * x[1] + x[2], -x[2] } end, calculus = "ito",
      diffusion = function(_, x) return { 0.1 * x[1], 0.2 * x[2] } end }
    local out = solve(pair, { gq.ones(3, 1, f64), gq.ones(3, 2, f64):narrow(2, 1, 1) }, { 0, 1 }, { dt = 0.1 })
    assert.same({ 2, 3, 1 }, out[1].shape)
    local number = gq.sde { drift = function(_, x) return -50 * x end, diffusion = function(_, x) return 0.1 * x end,
      calculus = "ito" }
    assert.is_true(solve(number, gq.tensor(1, f64), { 0, 1 }, { dt = 0.1 })[2]:abs():item() < 1e-3)
    assert.same({ 2, 0, 3 }, solve(number, gq.zeros(0, 3, f64), { 0, 1 }, { dt = 0.1 }).shape)
  end)

  it("solves a Stratonovich SDE as the Ito SDE that it is", function()
    local sde = gq.sde { drift = function(_, z) return -z end, diffusion = function(_, z) return 0.5 * z end }
    local z0 = gq.ones(2000, 1, f64)
    refused('calculus = "ito"', solve, sde, z0, { 0, 1 }, { dt = 0.01 })
    local o = { dt = 1 / 256, calculus = "ito" }
    local exact = gq.brownian { t0 = 0, t1 = 1, shape = { 2000, 1 }, seed = 7, dtype = "float64" }
    o.brownian = exact
    local z = solve(sde, z0, { 0, 1 }, o)[2]
    assert.below((z - gq.exp(0.5 * exact(1) - 1)):square():mean():item() ^ 0.5, 0.02)
  end)

  it("refuses what makes no sense", function()
    local sde = stiff "diagonal"
    local z0 = gq.ones(2, 2, f64)
    refused("0.5 (trapezoidal) to 1", solve, sde, z0, { 0, 1 }, { dt = 0.1, theta = 0.4 })
    refused("theta is inf", solve, sde, z0, { 0, 1 }, { dt = 0.1, theta = math.huge })
    refused("from 0.5", solve, sde, z0, { 0, 1 }, { dt = 0.1, theta = 0 / 0 })
    refused("theta", solve, sde, z0, { 0, 1 }, { dt = 0.1, theta = "half" })
    refused('method = "euler" has none', solve, sde, z0, { 0, 1 }, { dt = 0.1, method = "euler", theta = 1 })
    refused("adaptive", solve, sde, z0, { 0, 1 }, { adaptive = true })
    refused("cannot be inverted", solve, sde, z0, { 0, 1 }, { dt = 0.1, gradient = "reversible" })
    local adjoint = { method = "theta" }
    refused("backward solve", solve, sde, z0, { 0, 1 }, { dt = 0.1, gradient = "adjoint", adjoint = adjoint })
    local root = gq.sde { drift = function(_, z) return gq.sqrt(z) end, diffusion = function(_, z) return z end,
      calculus = "ito" }
    refused("first in component 1", solve, root, -z0, { 0, 1 }, { dt = 0.1 })
    local jump = gq.sde { drift = function(_, z) return gq.where(z:gt(0.5), -1e4 + 0 * z, 1e4) end, calculus = "ito",
      diffusion = function(_, z) return 0 * z end }
    refused("Newton's method", solve, jump, z0, { 0, 1 }, { dt = 0.1 })
  end)

  it("has second and third derivatives", function()
    local function leaf(x)
      local t = gq.tensor(x, f64)
      t.requires_grad = true
      return t
    end
    for _, theta in ipairs { 1, 0.5 } do
      local p = { leaf { { 0.5, -0.3 }, { 0.2, 0.8 } }, leaf { 0.4, 0.7 },
        leaf { { 1, 0.5 }, { 0.2, 0.3 }, { 0.3, -0.2 } } }
      local function states(q, engine)
        local sde = gq.sde { calculus = "ito", drift = function(_, z) return gq.tanh(z:matmul(q[1])) - q[2] * z ^ 3 end,
          diffusion = function(_, z) return 0.3 * gq.cos(z) * q[2] end }
        return (solve(sde, q[3], { 0, 0.35, 0.5 }, { theta = theta, dt = 0.1, seed = 1, gradient = engine }))
      end
      if gq.default_device() == "cpu" then helper.again(p, states)
      else refused("at most 64 numbers on the CPU", gq.grad, states(p, "direct"):sum(), p, { create_graph = true }) end
    end
  end)
end)
