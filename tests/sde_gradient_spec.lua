-- sde_gradient_spec.lua -- gradients of gq.sdeint along a fixed path, by every engine.

local gq = require "gq"
local helper = require "tests.helper"
local refused = helper.refused

local f64 = { dtype = "float64" }

local times, rows = { 0, 0.42, 0.42, 1 }, 40
local calculus = {}
for _, m in ipairs(gq.core.schemes()) do calculus[m.name] = not m.stratonovich and "ito" or nil end

local diffusion = {
  diagonal = function(c) return function(t, z) return c * gq.cos(z) * (1 + t) end end,
  scalar = function(c) return function(_, z) return c * z end end,
  additive = function(c) return function(t) return gq.stack({ c, 2 * c, c * c }, -1) * (1 + t) end end,
  general = function(c) return function(_, z) return gq.stack({ c * z, gq.cos(z) * c }, -1) end end,
  commutative = function(c) return function(t, z) return gq.stack({ c * gq.cos(z), (2 + t) * gq.cos(z) }, -1) end end,
}

-- A loss over states at several times, of z0 and of what drift and diffusion capture.
local function problem(method, noise)
  local p = { gq.randn(2, 2, { seed = 3, dtype = "float64" }), gq.tensor({ 0.3, 0.7 }, f64),
    gq.randn(rows, 2, { seed = 1, dtype = "float64" }) }
  for _, x in ipairs(p) do x.requires_grad = true end
  local w = gq.randn(#times, rows, 2, { seed = 2, dtype = "float64" })
  local function loss(o, q)
    q = q or p
    o.dt, o.seed, o.method = o.dt or 0.05, 5, method
    local sde = gq.sde { drift = function(t, z) return gq.tanh(z:matmul(q[1])) - z * t end,
      diffusion = diffusion[noise](q[2]), noise = noise, calculus = calculus[method] }
    local z, info = gq.sdeint(sde, q[3], times, o)
    return (z * w):sum(), info
  end
  local function grads(o)
    local l, info = loss(o)
    return gq.grad({ l }, p), info
  end
  return grads, loss, p
end

-- Central differences along a random direction of all inputs.
local function slope(loss, p, e)
  local direction, at = {}, {}
  for i, x in ipairs(p) do direction[i] = gq.randn(x.shape, { seed = 10 + i, dtype = "float64" }) end
  for _, s in ipairs { 1, -1 } do
    local q = {}
    for i, x in ipairs(p) do q[i] = x:detach() + direction[i] * (s * e) end
    at[s] = loss({ gradient = "none" }, q):item()
  end
  return (at[1] - at[-1]) / (2 * e), direction
end

local cases = {}
for m, noise in helper.each(gq.core.schemes(), { "diagonal", "scalar", "additive", "general", "commutative" }) do
  if m.strong[noise] and not m.langevin then cases[#cases + 1] = { m.name, noise } end
end

describe("gradients of sdeint", function()
  for _, case in ipairs(cases) do
    local method, noise = case[1], case[2]
    local grads, loss, p = problem(method, noise)
    it(("direct are derivatives: %s, %s noise"):format(method, noise), function()
      local want, direction = slope(loss, p, 1e-5)
      local got, sum = grads { gradient = "direct" }, 0
      for i, g in ipairs(got) do sum = sum + (g * direction[i]):sum():item() end
      assert.close(sum, want, 1e-7)
    end)

    it(("of aca are those of direct: %s, %s noise"):format(method, noise), function()
      local want, got = grads { gradient = "direct" }, grads { gradient = "aca" }
      assert.below(helper.relative(got, want), 1e-14, "difference")
      local _, info = grads { gradient = "aca" }
      assert.equal("aca", info.engine)
      assert.equal(info.steps, info.steps_backward)
    end)
  end

  it("are the same for any number of threads, rows innermost or not", function()
    local threads = gq.threads()
    for _, noise in ipairs { "diagonal", "scalar", "additive", "general" } do
      local grads = problem("reversible_heun", noise)
      for _, engine in ipairs { "direct", "aca", "reversible", "adjoint" } do
        gq.set_threads(1)
        local want = grads { gradient = engine }
        gq.set_threads(2)
        assert.below(helper.relative(grads { gradient = engine }, want), 1e-12, engine)
      end
    end
    gq.set_threads(threads)
  end)

  local function wide(opts)
    local w = gq.randn({ 200, 200 }, { seed = 1, dtype = "float64" }) * 0.01
    w.requires_grad = true
    local z, info = gq.sdeint(gq.sde { drift = function(_, z) return gq.tanh(z:matmul(w)) end,
      diffusion = function(_, z) return 0.1 * z end }, gq.ones(2, 200, f64), { 0, 0.1 }, opts)
    return gq.grad({ z[2]:sum() }, { w }), info
  end

  it("are taken where something wants them, by direct, whatever the width", function()
    local grads, loss = problem("heun", "diagonal")
    local want = grads { gradient = "aca" }
    local got, info = grads {}
    assert.equal("direct", info.engine)
    assert.truthy(info.reason:find "within")
    assert.below(helper.relative(got, want), 1e-14, "difference")
    local _, told = wide { dt = 0.01, seed = 1 }
    assert.equal("direct", told.engine)
    assert.truthy(told.reason:find "within")
    assert.is_false(loss({ gradient = "none" }).requires_grad)
    assert.is_false(gq.no_grad(loss, {}).requires_grad)
  end)

  it("go over to aca where activations go over memory_limit", function()
    local want = wide { dt = 0.01, seed = 1, gradient = "direct" }
    local got, info = wide { dt = 0.01, seed = 1, memory_limit = 1000 }
    assert.equal("aca", info.engine)
    assert.truthy(info.reason:find "over the limit")
    assert.below(helper.relative(got, want), 1e-14, "difference")
  end)

  it("go over to reversible where the states of reversible_heun go over it too", function()
    local grads = problem("reversible_heun", "diagonal")
    local want = grads { gradient = "direct" }
    local kept, info = grads {}
    assert.equal("direct", info.engine)
    assert.below(helper.relative(kept, want), 1e-14, "difference of direct")
    local got, told = grads { memory_limit = 1000 }
    assert.equal("reversible", told.engine)
    assert.truthy(told.reason:find "states of .* over the limit .* reversible_heun steps are inverted")
    assert.below(helper.relative(got, want), 1e-7, "difference of reversible")
  end)

  it("tell of the limit where what auto chose for it has no second derivatives", function()
    local _, loss, p = problem("reversible_heun", "diagonal")
    refused("over the limit of 0.0 MB; reversible_heun steps are inverted): name one of those, or raise memory_limit",
      gq.grad, (loss { memory_limit = 1000 }), p, { create_graph = true })
    assert.is_true(gq.grad((loss {}), p, { create_graph = true })[1].requires_grad)
  end)

  it("by direct keep of a step what its derivative reads, and no scratch", function()
    local width, samples = 16, 64
    local net = gq.nn.mlp { sizes = { 2, width, 2 }, activation = "softplus" }
    local sde = gq.sde { drift = net, diffusion = function(_, z) return 0 * z + 0.1 end, noise = "diagonal",
      calculus = "ito" }
    local function bytes(steps)
      local _, info = gq.sdeint(sde, gq.ones(samples, 2), { 0, 1 }, { dt = 1 / steps, method = "euler", seed = 1,
        gradient = "direct" })
      return info.peak_bytes
    end
    local a_step = (bytes(512) - bytes(256)) / 256
    -- before and after softplus; z, its slope and the noise, rounded up to lines, and the step's record; a device keeps
    -- scratch, too: products, the drift and the diffusion
    local scratch = gq.default_device() == "cuda" and 2 * width + 2 * 2 or 0
    assert.below(a_step, samples * 4 * (2 * width + 3 * 2 + scratch) + 1024, "bytes")
  end)

  it("of reversible are those of direct, and go back to z0, on a field that turns", function()
    local turn = gq.tensor({ { 0, 1 }, { -1, 0 } }, f64)
    local k = gq.tensor(1.3, f64)
    local z0 = gq.randn(20, 2, { seed = 1, dtype = "float64" })
    k.requires_grad, z0.requires_grad = true, true
    local sde = gq.sde { drift = function(_, z) return k * z:matmul(turn) end, noise = "scalar",
      diffusion = function(_, z) return 0.1 * k * z:matmul(turn) end }
    local function solve(engine, steps)
      local z, info = gq.sdeint(sde, z0, { 0, steps * 1e-3 }, { dt = 1e-3, seed = 1, method = "reversible_heun",
        gradient = engine })
      return gq.grad({ z:square():sum() + z:sum() }, { k, z0 }), info
    end
    local want, got = solve("direct", 1000), solve("reversible", 1000)
    for i = 1, 2 do assert.below(helper.relative(got[i], want[i]), 1e-10, "difference") end
    local _, few = solve("reversible", 100)
    local _, many = solve("reversible", 10000)
    assert.below(many.reconstruction * 1e-6, 1e-12, "z0")
    assert.below((many.peak_bytes - few.peak_bytes) / 9900, 64, "bytes a step: its times")
  end)

  it("of the stochastic adjoint go to those of direct as dt falls", function()
    for method, noises in pairs { heun = { "diagonal", "scalar", "additive" }, midpoint = { "diagonal" },
      euler_heun = { "diagonal" }, euler = { "additive" } } do
      for _, noise in ipairs(noises) do
        local grads = problem(method, noise)
        local function difference(dt)
          return helper.relative(grads { gradient = "adjoint", dt = dt }, grads { gradient = "direct", dt = dt })
        end
        local dt, apart = {}, {}
        for k = 0, 5 do
          dt[#dt + 1] = 0.04 / 2 ^ k
          apart[#apart + 1] = difference(dt[#dt])
        end
        local name = ("%s %s"):format(method, noise)
        assert.below(0.65, helper.slope(dt, apart), name)     -- 1 in the mean: this is one path of few samples
        assert.below(apart[6], 2e-3, name)
      end
    end
  end)

  it("of the adjoint of an Ito SDE have its correction", function()
    for _, noise in ipairs { "diagonal", "scalar", "general" } do
      local grads = problem("euler", noise)
      local dt, apart = {}, {}
      for k = 0, 3 do
        dt[#dt + 1] = 0.02 / 4 ^ k
        apart[#apart + 1] = helper.relative(grads { gradient = "adjoint", dt = dt[#dt] },
          grads { gradient = "direct", dt = dt[#dt] })
      end
      assert.below(0.35, helper.slope(dt, apart), noise)    -- Euler's strong order is 1/2
      assert.below(apart[4], 0.01, noise)
    end
  end)

  it("go through the conversion to the other calculus", function()
    local p = { gq.tensor(0.6, f64), gq.randn(20, 2, { seed = 1, dtype = "float64" }) }
    for _, x in ipairs(p) do x.requires_grad = true end
    local function loss(q, o)
      local sde = gq.sde { drift = function(_, z) return -z end, calculus = "ito",
        diffusion = function(_, z) return q[1] * gq.sin(z + 0.5 * z:sum(-1, true)) end }
      return gq.sdeint(sde, q[2], { 0, 0.5, 1 }, o):square():sum()
    end
    local function opts(engine) return { dt = 0.01, seed = 5, calculus = "stratonovich", gradient = engine } end
    local want, direction = slope(function(o, q) return loss(q, opts(o.gradient)) end, p, 1e-5)
    local grads = { direct = gq.grad({ loss(p, opts "direct") }, p), aca = gq.grad({ loss(p, opts "aca") }, p) }
    local sum = 0
    for i, g in ipairs(grads.direct) do sum = sum + (g * direction[i]):sum():item() end
    assert.close(sum, want, 1e-7)
    assert.below(helper.relative(grads.aca, grads.direct), 1e-14, "aca")
    -- The adjoint of the same Ito SDE, solved by Euler: both go to one limit.
    local ito = { dt = 1 / 2048, seed = 5, gradient = "adjoint" }
    local fine = opts "direct"
    fine.dt = 1 / 2048
    assert.below(helper.relative(gq.grad({ loss(p, ito) }, p), gq.grad({ loss(p, fine) }, p)), 0.02, "adjoint")
  end)

  it("have second derivatives through direct", function()
    for _, case in ipairs { { "heun", "diagonal" }, { "reversible_heun", "general" }, { "euler", "additive" } } do
      local _, loss, p = problem(case[1], case[2])
      local function squares(q)
        local first = gq.grad({ (loss({ gradient = "direct" }, q)) }, q, { create_graph = true })
        local sum = 0
        for _, g in ipairs(first) do sum = sum + g:square():sum() end
        return sum
      end
      local got, sum, at = gq.grad({ squares(p) }, p), 0, {}
      local direction = {}
      for i, x in ipairs(p) do
        direction[i] = gq.randn(x.shape, { seed = 10 + i, dtype = "float64" })
        sum = sum + (got[i] * direction[i]):sum():item()
      end
      for _, s in ipairs { 1, -1 } do
        local q = {}
        for i, x in ipairs(p) do
          q[i] = (x:detach() + direction[i] * (s * 1e-5)):detach()
          q[i].requires_grad = true
        end
        at[s] = squares(q):item()
      end
      assert.close(sum, (at[1] - at[-1]) / 2e-5, 1e-6)
    end
  end)

  it("compile once", function()
    local grads = problem("heun", "diagonal")
    grads { gradient = "direct" }
    local _, before = gq.core.plan_cache()
    for dt = 1, 3 do grads { gradient = "direct", dt = 0.1 / dt } end
    assert.equal(before, (select(2, gq.core.plan_cache())))
  end)

  it("refuse what makes no sense", function()
    local grads = problem("heun", "diagonal")
    local k = gq.ones(40, 2, f64)
    k.requires_grad = true
    refused("reversible_heun", grads, { gradient = "reversible" })
    refused("did you mean", grads, { gradient = "adjont" })
    local mixed = gq.sde { drift = function(_, z) return -z end, calculus = "ito",
      diffusion = function(_, z) return z + z:sum() end }
    refused("80 numbers", gq.sdeint, mixed, k, { 0, 1 }, { dt = 0.1, method = "euler", gradient = "adjoint" })
    refused("heun", grads, { gradient = "adjoint", adjoint = { method = "euler" } })
    refused("method", grads, { gradient = "adjoint", adjoint = { methd = "heun" } })
    local sde = gq.sde { drift = function(_, z) return -z end, diffusion = function(_, z) return z end }
    local t = gq.tensor({ 0, 1 }, f64)
    t.requires_grad = true
    refused("t:detach()", gq.sdeint, sde, gq.ones(3, 1, f64), t, { dt = 0.1 })
    local part, info = gq.sdeint(gq.sde { drift = function(_, z) return z * z end,
      diffusion = function(_, z) return 0 * z end }, gq.full({ 1, 1 }, 2, f64), { 0, 0.1, 5 },
      { dt = 0.01, throw = false })
    assert.equal("non_finite", info.status)
    assert.truthy(part[2]:item() > 2)
    refused("max_steps", grads, { max_steps = 3 })
  end)

  it("keeps less of a step where the records of many leave the caches, with the same gradient", function()
    gq.manual_seed(3)
    local f = gq.nn.mlp { sizes = { 2, 32, 32, 2 }, activation = "softplus" }
    f:to "float64"
    local sde = gq.sde { drift = f, diffusion = function(_, z) return 0.1 * z end }
    local start = gq.randn(128, 2, { seed = 1, dtype = "float64" }) * 30
    local function solve(engine, steps)
      local z, info = gq.sdeint(sde, start, { 0, 1 }, { dt = 1 / steps, seed = 2, gradient = engine })
      return gq.grad({ z[2]:square():mean() }, f:parameters()), info.peak_bytes / steps
    end
    local many, each = solve("direct", 256)
    assert.below(helper.relative(many, (solve("aca", 256))), 1e-12)
    local _, more = solve("direct", 128)
    assert.below(each, (gq.default_device() == "cuda" and 0.9 or 0.75) * more, "bytes a step") -- with scratch there
  end)
end)
