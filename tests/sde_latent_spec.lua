-- sde_latent_spec.lua -- gq.sdeint beyond one tensor and increasing times: the path KL, states of several tensors,
-- times that decrease, noise whose word is not taken.

local gq = require "gq"
local helper = require "tests.helper"
local refused = helper.refused

local f64 = { dtype = "float64" }
local z0 = gq.randn(6, 2, { seed = 1, dtype = "float64" })
local G = gq.tensor({ { 2, 0.5 }, { 0.1, 1.5 } }, f64)

-- {drift, prior, diffusion, the rate 1/2 |u|^2 a row as it is by hand}
local function half(u) return (u * u):sum(-1) * 0.5 end
local function away(z) return -z - 0.5 end       -- drift less prior below
local kinds = {
  diagonal = { function(_, z) return gq.cos(z) * 0.3 + 1 end,
    function(z) return half(away(z) / (gq.cos(z) * 0.3 + 1)) end },
  additive = { function() return G end, function(z) return half(away(z):matmul(gq.inverse(G):transpose(1, 2))) end },
  general = { function(_, z) return G * (1 + 0.1 * z:sum(-1, true):unsqueeze(-1)) end,
    function(z) return half((away(z) / (1 + 0.1 * z:sum(-1, true))):matmul(gq.inverse(G):transpose(1, 2))) end },
}
-- More columns than rows: u is the shortest.
local W = gq.tensor({ { 1, 0, 1 }, { 0, 1, 1 } }, f64)
kinds.wide = { function() return W end, function(z)
  local u = away(z):matmul(gq.inverse(W:matmul(W:transpose(1, 2))))
  return half(u:matmul(W))
end, "additive" }

local function sde(kind, k)
  return gq.sde { drift = function(_, z) return (k or 1) * -z end, prior_drift = function(_, z) return 0.5 + 0 * z end,
    diffusion = kinds[kind][1], noise = kinds[kind][3] or kind }
end

describe("logqp", function()
  for kind in pairs(kinds) do
    it("is the path KL of " .. kind .. " noise", function()
      local times = { 0, 0.5, 1.25 }
      local o = { dt = 2 ^ -7, seed = 3, logqp = true }
      local z, info = gq.sdeint(sde(kind), z0, times, o)
      assert.same({ 2, 6 }, info.logqp.shape)
      local every = gq.linspace(0, 1.25, 161):totable()
      local path = gq.sdeint(sde(kind), z0, every, { dt = 2 ^ -7, seed = 3 })
      assert.close(z[2], path[65], 1e-12)
      assert.close(z[3], path[161], 1e-12)
      local want = { gq.zeros(6, f64), gq.zeros(6, f64) }
      for i = 1, 160 do
        local k = i <= 64 and 1 or 2
        want[k] = want[k] + (kinds[kind][2](path[i]) + kinds[kind][2](path[i + 1])) * 2 ^ -8
      end
      for k = 1, 2 do assert.close(info.logqp[k], want[k], 1e-2) end
    end)
  end

  it("is known for geometric noise, one sample, and equal drifts", function()
    local gbm = gq.sde { drift = function(_, z) return -z end, prior_drift = function(_, z) return -1.3 * z end,
      diffusion = function(_, z) return 0.7 * z end, noise = "scalar" }
    local _, info = gq.sdeint(gbm, z0, { 0, 0.5, 1 }, { dt = 0.01, seed = 3, logqp = true })
    assert.close(info.logqp, gq.full({ 2, 6 }, 0.25 * (0.3 / 0.7) ^ 2, f64), 1e-12)
    _, info = gq.sdeint(gbm, z0[1], { 0, 0.5, 1 }, { dt = 0.01, logqp = true })
    assert.close(info.logqp, gq.full({ 2 }, 0.25 * (0.3 / 0.7) ^ 2, f64), 1e-12)
    gbm.prior_drift = gbm.drift
    _, info = gq.sdeint(gbm, gq.zeros(0, 2, f64), { 0, 0.5, 1 }, { dt = 0.1, logqp = true })
    assert.same({ 2, 0 }, info.logqp.shape)
    _, info = gq.sdeint(gbm, z0, { 0, 1 }, { dt = 0.01, logqp = true })
    assert.equal(0, info.logqp:abs():max():item())
  end)

  it("of diagonal noise takes what commuting noise does, where the graph shows that it commutes", function()
    local function kl(o, s)
      local all = gq.core.copy(o, { seed = 3, logqp = true })
      return select(2, gq.sdeint(s or sde "diagonal", z0, { 0, 1 }, all)).logqp
    end
    local want = kl { dt = 2 ^ -7 }
    assert.below(helper.relative({ kl { dt = 2 ^ -7, method = "milstein" } }, { want }), 2e-2, "milstein")
    local adaptive = kl { dt = 2 ^ -4, adaptive = true, rtol = 1e-3, atol = 1e-3 }
    assert.below(helper.relative({ adaptive }, { want }), 1, "adaptive")     -- another path
    refused("general noise", kl, { dt = 0.1, method = "milstein" },
      sde "diagonal":with { diffusion = function(_, z) return gq.cos(z:sum(2, true)) + 2 + 0 * z end })
  end)

  it("of diagonal noise by methods of order 1 and 1.5 is what the path says", function()
    local A = gq.randn(2, 2, { seed = 4, dtype = "float64" })
    local s = gq.sde { calculus = "ito", drift = function(_, z) return gq.tanh(z:matmul(A)) - z end,
      prior_drift = function(_, z) return 0.5 + gq.sin(z) end,
      diffusion = function(t, z) return gq.cos(z) * 0.3 + 1 + t end }
    local y0, b = gq.randn(20, 2, { seed = 1, dtype = "float64" }), gq.brownian { t1 = 1, shape = { 20, 2 }, seed = 3,
      tol = 2 ^ -14, dtype = "float64", levy_area = "space-time" }
    local every = gq.linspace(0, 1, 1025):totable()
    local path = gq.sdeint(s, y0, every, { dt = 2 ^ -10, brownian = b, method = "srk" })
    local want = gq.zeros(20, f64)
    for i = 1, 1025 do
      local z, t = path[i], every[i]
      local rate = half((s.drift(t, z) - s.prior_drift(t, z)) / s.diffusion(t, z))
      want = want + rate * ((i % 1024 == 1 and 0.5 or 1) / 1024)
    end
    local function off(dt, o)
      local all = gq.core.copy({ dt = dt, brownian = b, logqp = true }, o)
      return (select(2, gq.sdeint(s, y0, { 0, 1 }, all)).logqp[1] - want):square():mean():item() ^ 0.5
    end
    local rms = want:square():mean():item() ^ 0.5
    assert.below(off(2 ^ -6, { method = "srk" }), 2e-3 * rms)
    assert.below(off(2 ^ -6, { method = "milstein_grad_free" }), 2e-2 * rms)
    assert.below(off(2 ^ -6, { method = "slowrk", calculus = "stratonovich" }), 2e-3 * rms)
    assert.below(off(0.1, { method = "srk", adaptive = true, rtol = 1e-4, atol = 1e-4 }), 2e-3 * rms)
    want = select(2, gq.sdeint(s, y0, { 0, 1 }, { dt = 2 ^ -10, brownian = b, logqp = true, method = "srk" })).logqp[1]
    local dts, errors = { 2 ^ -4, 2 ^ -5, 2 ^ -6, 2 ^ -7 }, {}
    for i, dt in ipairs(dts) do errors[i] = off(dt, { method = "srk" }) end
    assert.below(1.35, helper.slope(dts, errors), "order")
  end)

  it("of diagonal noise by srk has gradients", function()
    local k = gq.tensor({ 0.7, 1.2 }, { dtype = "float64", requires_grad = true })
    local s = gq.sde { calculus = "ito", drift = function(_, z) return -k * z end,
      prior_drift = function(_, z) return -z end, diffusion = function(_, z) return 0.5 + 0.1 * gq.sin(k * z) end }
    local function loss(engine)
      local z, info = gq.sdeint(s, z0, { 0, 1 }, { dt = 2 ^ -5, seed = 3, logqp = true, method = "srk",
        gradient = engine })
      return info.logqp:sum() + z[2]:sum()
    end
    local direct = gq.grad({ loss "direct" }, { k })[1]
    assert.close(gq.grad({ loss "aca" }, { k })[1], direct, 1e-12)
    assert.below(helper.relative(gq.grad({ loss "adjoint" }, { k }), { direct }), 2e-2)
    assert.truthy(gq.checkgrad(function() return loss "direct" end, { k }))
  end)

  it("of a solve that fails says so at the script's line", function()
    local ok, problem = pcall(function()
      local z = gq.sdeint(sde "diagonal", z0, { 0, 1 }, { dt = 0.1, logqp = true, method = "theta", adaptive = true })
      return z
    end)
    assert.is_false(ok)
    assert.truthy(problem:match("^[^\n]*sde_latent_spec.lua:%d+: "), problem)
  end)

  it("takes options from a table behind the table", function()
    local o = setmetatable({ logqp = true }, { __index = { dt = 0.1, seed = 3 } })
    local _, info = gq.sdeint(sde "diagonal", z0, { 0, 1 }, o)
    local _, same = gq.sdeint(sde "diagonal", z0, { 0, 1 }, { dt = 0.1, seed = 3, logqp = true })
    assert.same(same.logqp:totable(), info.logqp:totable())
  end)

  it("of rows without numbers is zero, and of no rows nothing", function()
    for noise in pairs { diagonal = 1, scalar = 1, additive = 1, general = 1, commutative = 1 } do
      for rows, shape in pairs { [3] = { 3, 0 }, [1] = { 0 }, [0] = { 0, 2 } } do
        local size = { table.unpack(shape) }
        if noise ~= "diagonal" and noise ~= "scalar" then size[#size + 1] = 2 end
        local s = gq.sde { noise = noise, drift = function(_, z) return -z end,
          prior_drift = function(_, z) return z end, diffusion = function() return gq.ones(size, f64) end }
        local z, info = gq.sdeint(s, gq.ones(shape, f64), { 0, 0.5, 1 }, { dt = 0.1, logqp = true })
        assert.same({ 3, table.unpack(shape) }, z.shape)
        assert.same(#shape > 1 and { 2, rows } or { 2 }, info.logqp.shape, noise)
        assert.equal(0, info.logqp:sum():item())
      end
    end
  end)

  it("has gradients, by every engine that the method has", function()
    local k = gq.tensor(0.8, { dtype = "float64", requires_grad = true })
    local function loss(x, engine)
      local z, info = gq.sdeint(sde("diagonal", x), z0, { 0, 0.5, 1 }, { dt = 0.05, seed = 3, logqp = true,
        gradient = engine })
      return info.logqp:sum() + z:sum()
    end
    local want = (loss(gq.tensor(0.8 + 1e-5, f64), "none") - loss(gq.tensor(0.8 - 1e-5, f64), "none")):item() / 2e-5
    assert.close(gq.grad(loss(k, "direct"), k):item(), want, 1e-7)
    assert.close(gq.grad(loss(k, "aca"), k):item(), want, 1e-7)
    assert.close(gq.grad(loss(k, "adjoint"), k):item(), want, 0.05)
  end)

  for kind in pairs(kinds) do
    it("has the gradients of direct where reversible_heun is undone, of " .. kind .. " noise", function()
      local x = gq.tensor(0.8, { dtype = "float64", requires_grad = true })
      local start = z0:clone():detach()
      start.requires_grad = true
      local s = sde(kind, x):with { diffusion = function(t, z) return kinds[kind][1](t, z) * x end }
      local function grads(engine)
        local z, info = gq.sdeint(s, start, { 0, 0.3, 1 }, { dt = 0.1, seed = 3, logqp = true, gradient = engine,
          method = "reversible_heun" })
        return gq.grad(info.logqp:sum() + (z ^ 2):sum(), { x, start })
      end
      local want, got = grads "direct", grads "reversible"
      for i = 1, 2 do assert.close(got[i], want[i], 1e-9) end
    end)
  end

  it("refuses what has no path KL", function()
    local o = { dt = 0.1, logqp = true }
    local function bad(change) return gq.sdeint, sde("diagonal"):with(change), z0, { 0, 1 }, o end
    local plain = gq.sde { drift = function(_, z) return z end, diffusion = function(_, z) return z end }
    refused("prior_drift", gq.sdeint, plain, z0, { 0, 1 }, o)
    refused("singular", bad { diffusion = function(_, z) return 0 * z end })
    refused("singular", bad { diffusion = function(_, z) return gq.stack({ z[{ {}, 1 }] * 0 + 1,
      z[{ {}, 2 }] * 1e-9 }, -1) end })
    refused("range", bad { noise = "scalar", diffusion = function(_, z) return z * 0 + 1 end })
    refused("singular", bad { noise = "additive", diffusion = function() return gq.ones(2, 2, f64) end })
    -- Only later: g passes zero.
    local later = helper.message(bad { diffusion = function(t, z) return 0 * z + gq.relu(0.5 - t) end })
    assert.truthy(later:find("singular", 1, true) and not later:find("captured", 1, true), later)
    local own = helper.message(bad { drift = function() error("not finite, says f") end })
    assert.truthy(own:find("says f", 1, true) and not own:find("singular", 1, true), own)
    refused("true or false", gq.sdeint, sde "diagonal", z0, { 0, 1 }, { dt = 0.1, logqp = "yes" })
    refused("matrices up to 8", gq.sdeint, gq.sde { drift = function(_, z) return z end, noise = "additive",
      prior_drift = function(_, z) return -z end, diffusion = function() return gq.eye(9, f64) end },
      gq.ones(2, 9, f64), { 0, 1 }, o)
    refused("prior_drift", gq.sde, { drift = math.sin, diffusion = math.sin, prior_drift = 3 })
  end)
end)

describe("a state of several tensors", function()
  local function drift(_, z) return { -z[1], z[1]:sum(-1, true) - z[2] } end
  local together = function(_, z) return gq.cat({ -z:narrow(2, 1, 2), z:narrow(2, 1, 2):sum(-1, true)
    - z:narrow(2, 3, 1) }, 2) end
  local start, packed = { z0, gq.ones(6, 1, f64) }, gq.cat({ z0, gq.ones(6, 1, f64) }, 2)
  local several = {
    diagonal = { function(_, z) return { 0.1 * z[1], 0 * z[2] + 0.2 } end,
      function(_, z) return gq.cat({ 0.1 * z:narrow(2, 1, 2), 0 * z:narrow(2, 3, 1) + 0.2 }, 2) end },
    scalar = { function(_, z) return { gq.sin(z[1]), z[2] } end,
      function(_, z) return gq.cat({ gq.sin(z:narrow(2, 1, 2)), z:narrow(2, 3, 1) }, 2) end },
    general = { function(_, z) return { gq.stack({ z[1], gq.cos(z[1]) }, -1), gq.ones(6, 1, 2, f64) } end,
      function(_, z)
        local x = z:narrow(2, 1, 2)
        return gq.cat({ gq.stack({ x, gq.cos(x) }, -1), gq.ones(6, 1, 2, f64) }, 2)
      end },
  }

  it("is that of one, with its gradients", function()
    for noise, pair in pairs(several) do
      local o = { dt = 0.05, seed = 4 }
      for _, x in ipairs { start[1], start[2], packed } do x.requires_grad = true end
      local z, info = gq.sdeint(gq.sde { drift = drift, diffusion = pair[1], noise = noise }, start, { 0, 0.5, 1 }, o)
      local y = gq.sdeint(gq.sde { drift = together, diffusion = pair[2], noise = noise }, packed, { 0, 0.5, 1 }, o)
      assert.equal("ok", info.status)
      assert.same({ 3, 6, 2 }, z[1].shape)
      assert.close(gq.cat(z, 3), y, 1e-13, 1e-14)
      local got = gq.grad({ z[1]:square():sum() + z[2]:sum() }, start)
      local want = gq.grad({ y:narrow(3, 1, 2):square():sum() + y:narrow(3, 3, 1):sum() }, packed)
      assert.close(gq.cat(got, 2), want, 1e-12, 1e-13)
    end
  end)

  -- Each number of 80 a row moved by a W of its own that it alone feels, as in one tensor; and one that another feels.
  it("has diagonal noise that commutes where the graph shows that of each tensor", function()
    local x, y = gq.randn(3, 4, 10, { seed = 2, dtype = "float64" }), gq.randn(3, 40, { seed = 3, dtype = "float64" })
    local function f(z) return -z end
    local function g(z) return 0.3 + 0.1 * gq.sin(z) end
    local two = gq.sde { drift = function(_, z) return { f(z[1]), f(z[2]) } end,
      diffusion = function(_, z) return { g(z[1]), z[2] * 0 + 0.2 } end, calculus = "ito" }
    local one = gq.sde { drift = function(_, z) return f(z) end, calculus = "ito", diffusion = function(_, z)
      return gq.cat({ g(z:narrow(2, 1, 40)), z:narrow(2, 41, 40) * 0 + 0.2 }, 2)
    end }
    local whole = gq.cat({ x:reshape(3, 40), y }, 2)
    for _, o in ipairs { { method = "milstein" }, { method = "srk" }, { calculus = "stratonovich" } } do
      o.dt, o.seed = 0.1, 5
      local z = gq.sdeint(two, { x, y }, { 0, 1 }, o)
      assert.close(gq.cat({ z[1][2]:reshape(3, 40), z[2][2] }, 2), gq.sdeint(one, whole, { 0, 1 }, o)[2], 1e-13, 1e-14)
    end
    local function with(diffusion) return gq.sdeint, two:with { diffusion = diffusion }, { y, y }, { 0, 1 },
      { dt = 0.1, method = "milstein" } end
    for _, diffusion in ipairs {
      function(_, z) return { g(z[1]), g(z[1]) } end,
      function(_, z) return { g(z[2]), g(z[1]) } end,
      function(_, z) return { g(z[1]), g(z[2]) + z[1] } end,
      function(_, z) return { g(z[1]), g(z[2]:flip(2)) } end,
      function(_, z) return { g(z[1]), g(gq.cat({ z[2]:narrow(2, 2, 39), z[2]:narrow(2, 1, 1) }, 2)) } end,
    } do refused("whose g_i depends on other z_j than z_i", with(diffusion)) end
    gq.sdeint(select(2, with(function(_, z)
      return { g(z[1]), gq.cat({ g(z[2]:narrow(2, 1, 3)), z[2]:narrow(2, 4, 37) }, 2) }
    end)))
  end)

  it("takes logqp, and tensors that share no rows", function()
    local s = gq.sde { drift = drift, diffusion = several.diagonal[1],
      prior_drift = function(_, z) return { 0 * z[1], 0 * z[2] } end }
    local _, info = gq.sdeint(s, start, { 0, 1 }, { dt = 0.1, logqp = true })
    assert.same({ 1, 6 }, info.logqp.shape)
    local z = gq.sdeint(gq.sde { drift = function(_, x) return { -x[1], -x[2] } end,
      diffusion = function(_, x) return { 0 * x[1], 0 * x[2] } end }, { gq.ones(3, f64), gq.ones(2, 2, f64) }, { 0, 1 },
      { dt = 0.01 })
    assert.close(z[2][2], gq.full({ 2, 2 }, math.exp(-1), f64), 1e-4)
  end)

  it("refuses what does not fit", function()
    local function solve(change)
      return gq.sdeint, gq.sde { drift = drift, diffusion = several.diagonal[1] }:with(change), start, { 0, 1 },
        { dt = 0.1 }
    end
    refused("the drift of gq.sdeint returned 1 tensors", solve { drift = function(_, z) return { z[1] } end })
    refused("the diffusion of gq.sdeint", solve { diffusion = function(_, z) return z[1] end })
    refused("{6, 2, m}", solve { noise = "general", diffusion = function(_, z) return { z[1], z[2] } end })
    refused("element 2", gq.sdeint, gq.sde { drift = drift, diffusion = drift }, { z0, 3 }, { 0, 1 }, { dt = 0.1 })
  end)
end)

describe("decreasing times", function()
  local b = gq.brownian { t0 = 0, t1 = 1, shape = { 6, 2 }, seed = 2, dtype = "float64" }
  local areas = gq.brownian { t0 = 0, t1 = 1, shape = { 6, 2 }, seed = 2, dtype = "float64", levy_area = "space-time" }
  local function turning(calculus)
    return gq.sde { drift = function(t, z) return -z * t end, diffusion = function(_, z) return 0.5 * gq.cos(z) end,
      calculus = calculus }
  end

  it("go back along the solution", function()
    for _, m in ipairs { "heun", "midpoint", "ralston", "euler_heun", "milstein", "reversible_heun", "spark",
      "log_ode" } do
      local last
      for _, dt in ipairs { 2 ^ -5, 2 ^ -8 } do
        local o = { dt = dt, brownian = (m == "spark" or m == "log_ode") and areas or b, method = m }
        local z = gq.sdeint(turning(), z0, { 0, 0.25, 1 }, o)
        local y = gq.sdeint(turning(), z[3], { 1, 0.25, 0 }, o)
        local off = math.max((y[3] - z0):abs():max():item(), (y[2] - z[2]):abs():max():item())
        if last then assert.below(off, last / 4, m) end
        assert.below(off, 0.05, m)
        last = off
      end
    end
  end)

  it("have gradients", function()
    local start = z0:detach()
    start.requires_grad = true
    local function grads(engine, dt)
      local z = gq.sdeint(turning(), start, { 1, 0.4, 0 }, { dt = dt or 0.05, brownian = b, gradient = engine })
      return gq.grad({ z:square():sum() }, start)
    end
    assert.close(grads "aca", grads "direct", 1e-13)
    assert.below(helper.relative({ grads("adjoint", 2 ^ -9) }, { grads("direct", 2 ^ -9) }), 5e-3, "adjoint")
  end)

  it("are no Ito SDE's", function()
    refused("calculus = \"stratonovich\"", gq.sdeint, turning "ito", z0, { 1, 0 }, { dt = 0.1 })
    refused("must not change direction", gq.sdeint, turning(), z0, { 1, 0.2, 0.5, 0 }, { dt = 0.1 })
    local o = { dt = 2 ^ -9, brownian = b, calculus = "stratonovich" }
    local z = gq.sdeint(turning "ito", z0, { 0, 1 }, o)
    assert.close(gq.sdeint(turning "ito", z[2], { 1, 0 }, o)[2], z0, 0, 0.01)
  end)
end)

describe("an SDE", function()
  it("whose noise is said to commute is looked at", function()
    local function solve(g) return gq.sdeint, gq.sde { drift = function(_, z) return -z end, diffusion = g,
      noise = "commutative" }, z0, { 0, 1 }, { dt = 0.1, method = "milstein" } end
    refused("said to be commutative", solve(function(_, z) return gq.stack({ z, gq.sin(z) }, -1) end))
    local run = { solve(function(_, z) return gq.stack({ z, 0.3 * z }, -1) end) }
    run[1](table.unpack(run, 2))
  end)
end)
