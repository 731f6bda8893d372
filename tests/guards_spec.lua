-- guards_spec.lua -- where gradients of gq are wrong, something says so: the reconstruction of the state, n against
-- 2n nodes (gradient = "check"), the integrand's spectrum. And where they are right nothing does.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"
local oracle, flat = problems.oracle, problems.flat

-- Relative error of the gradient by the parameters alone, or by z0 too, against the closed form; and info.
local function solve(case, options, with_z0)
  local _, info, errors = problems.gradient_error(case, options)
  local worst = 0
  for name, e in pairs(errors) do
    if with_z0 or name ~= "z0" then worst = e == e and math.max(worst, e) or math.huge end
  end
  return worst, info
end

-- gradient = "check" by the n nodes that its 2n are compared with.
local function wrong(make, options, with_z0)
  local error, info = solve(make(), helper.with(options, { gradient = "gq" }), with_z0)
  local fine, check = solve(make(), helper.with(options, { gradient = "check" }), with_z0)
  return math.max(error, fine), info, check
end

local rows = {}
local function row(name, make, options, more)
  rows[#rows + 1] = { name = name, make = make, options = options, more = more or {} }
end
local function at(tol, more)
  -- the paper's choices: what has no error control of its own
  return helper.with({ rtol = tol, atol = tol }, more, { gq = helper.with(more and more.gq, { paper = true }) })
end

-- z' = -z + theta sin(w t) at theta = 0: n = 5 whatever w is. Errors in theta: 2e-4, 5e-2, 10, 0.08 (0.7 with 2n),
-- 11, 25, 106.
for _, w in ipairs { 0.5, 1, 2, 5, 10, 20, 100 } do
  row("P1, w = " .. w, function() return oracle.G2(w, 10) end, at(1e-3), { dense = true })
end
-- The cap of 64 nodes: Lotka-Volterra is off by 2.7e-4 whatever the tolerance, by 0.6 at 1e-3.
for _, tol in ipairs { 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10 } do
  row("Lotka-Volterra to 10 at " .. tol, function() return oracle.G8(10) end, at(tol), { z0 = true })
end
-- z' = -z to T: unstable backwards; wrong by 0.17 at T = 7, 1e-3; by 0.17 at T = 15, 1e-6.
for tol, T in helper.each({ 1e-2, 1e-3, 1e-4, 1e-6, 1e-9 }, { 1, 2, 3, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50 }) do
  row(("decay to %d at %g"):format(T, tol), function() return oracle.G4(1, T) end, at(tol), { z0 = true })
end
-- The harmonic oscillator, q'' = -theta q: the mean carries the gradient long before its integrand is resolved.
for _, T in ipairs { 10, 60, 160 } do
  row("oscillator to " .. T, function() return oracle.G3(T) end, at(1e-6, { gq = { max_nodes = 1000 } }))
  row("oscillator to " .. T .. ", few nodes", function() return oracle.G3(T) end,
    at(1e-6, { gq = { nodes = 30 } }))
end

describe("gradient = \"check\"", function()
  for _, r in ipairs(rows) do
    it("flags what is wrong by over 10 %: " .. r.name, function()
      local options = r.options
      if r.more.dense then      -- so that reconstruction says nothing
        options = at(options.rtol, { adjoint = { trajectory = "dense" } })
      end
      local error, info, check = wrong(r.make, options, r.more.z0)
      local told = ("error %.2g, audit %.2g, reconstruction %.3g"):format(error, check.audit, check.reconstruction)
      if error > 0.1 then assert.truthy(check.warning, told) end
      if error < 0.01 then
        local quiet = not check.warning or check.warning:find("max_nodes", 1, true) or check.reconstruction > 1e4
        assert.truthy(quiet, told)
        assert.truthy(not info.warning or info.warning:find("max_nodes", 1, true) or info.reconstruction > 1e4, told)
      end
    end)
  end

  -- See ode.h: both are the gradient of some other integrand.
  it("cannot see what n and 2n nodes mistake alike", function()
    local options = at(1e-3, { gradient = "check", adjoint = { trajectory = "dense" } })
    local error, info = solve(oracle.G2(60.14, 10), options)
    assert.truthy(error > 100 and info.audit < 0.01 and info.spectrum > 0.5)
    assert.is_nil(info.warning)
  end)

  it("cannot see the error of the forward solve", function()
    local error, info = solve(oracle.G8(10), at(3e-4, { gradient = "check", gq = { nodes = 100 } }), true)
    local direct = solve(oracle.G8(10), at(3e-4, { gradient = "direct" }), true)
    assert.truthy(error > 0.4 and direct > 0.4 and info.audit < 0.01 and info.reconstruction < 50)
    assert.is_nil(info.warning)
  end)

  it("tells the error of n nodes", function()
    for _, nodes in ipairs { 12, 16, 20, 24 } do
      local case = oracle.G8(10)
      local o = at(1e-9, { gq = { nodes = nodes } })
      local error = solve(case, o)
      local _, info = solve(oracle.G8(10), at(1e-9, { gradient = "check", gq = { nodes = nodes } }))
      assert.truthy(info.audit > error / 4 and info.audit < 4 * error, ("%g told, %g true"):format(info.audit, error))
    end
  end)
end)

describe("info.spectrum", function()
  local function spectrum(case, options)
    options.gq = options.gq or {}
    options.gq.guards = true
    local _, info = solve(case, options)
    return info.spectrum, info
  end

  it("is the ratio of Legendre coefficients", function()
    -- z' = theta P_k(2 t - 1), a = 1: the integrand is P_k itself, for k = 0 and k = n - 1 mixed half and half
    local function mix(first, second)
      local theta = gq.tensor(0, { dtype = "float64", requires_grad = true })
      local z, info = gq.odeint(function(t) return theta * (first(2 * t - 1) + second(2 * t - 1)):reshape(1) end,
        gq.zeros(1, { dtype = "float64" }), { 0, 1 }, { gq = { nodes = 4, guards = true } })
      z[2]:sum():backward()
      return info.spectrum
    end
    local P = {
      [0] = function(x) return 0 * x + 1 end, [1] = function(x) return x end,
      [2] = function(x) return 1.5 * x ^ 2 - 0.5 end, [3] = function(x) return 2.5 * x ^ 3 - 1.5 * x end,
    }
    local none = function(x) return 0 * x end
    assert.below(mix(P[0], none), 1e-14)
    assert.below(mix(P[1], none), 1e-14)
    assert.close(mix(P[2], none), 1, 1e-14)
    assert.close(mix(P[3], none), 1, 1e-14)
    assert.close(mix(P[0], P[3]), (2 / 7) / 2, 1e-13)      -- the sum of w P_k^2 is 2 / (2k + 1), that of P_3^2 too
    assert.close(mix(P[1], P[2]), (2 / 5) / (2 / 3), 1e-13)
  end)

  it("is large where the nodes do not resolve the integrand, small where they do", function()
    for _, w in ipairs { 1, 2, 5, 10, 20, 100 } do
      assert.truthy(spectrum(oracle.G2(w, 10), at(1e-3)) > 0.15, "w = " .. w)
    end
    for _, w in ipairs { 0.5, 1, 2, 5 } do
      assert.below(spectrum(oracle.G2(w, 10), at(1e-3, { gq = { nodes = 64 } })), 1e-4, "w = " .. w)
    end
    assert.below(spectrum(oracle.G3(10), at(1e-6)), 1e-3, "oscillator")
  end)

  it("asks for an audit in the first unresolved pass of a structure, which leaves the gradient alone", function()
    local function run(guards)
      local case = oracle.G2(2, 10)
      local theta = case.leaves.theta
      case.f = function(t, z) return theta * gq.sin(2 * t) - (z + z) * 0.5 end      -- solved nowhere else
      local _, info = problems.gradient_error(case, at(1e-3, { gq = { guards = guards } }))
      return case.leaves.theta.grad:item(), info
    end
    local plain, unguarded = run(false)
    local first, audited = run(true)
    local second, later = run(true)
    assert.is_nil(unguarded.spectrum)
    assert.is_nil(unguarded.audit)
    assert.close(first, plain, 1e-14)
    assert.equal(first, second)
    assert.truthy(audited.audit > 1 and audited.nfe_audit > 0, "audit")
    assert.truthy(audited.warning:find("twice the quadrature nodes", 1, true), audited.warning)
    assert.is_nil(later.audit)
    for _, key in ipairs { "nfe_backward", "nodes", "nodes_wanted", "restarts", "reconstruction" } do
      assert.equal(unguarded[key], audited[key], key)
    end
    assert.truthy(later.spectrum > 0.1)
    local audits = 0
    for _ = 1, 100 do
      local _, info = run(true)
      audits = audits + (info.audit and 1 or 0)
    end
    assert.equal(2, audits)
  end)

  local function network(options, more)
    more = more or {}
    local threads = gq.threads()
    gq.set_threads(more.threads or threads)
    gq.manual_seed(4)
    local net = gq.nn.mlp { sizes = { 3, 16, 3 }, activation = "tanh", time = true }:to("float64")
    local x = gq.randn(more.rows or 64, 3, { dtype = "float64" })
    local z, info = gq.odeint(net, x, more.times or { 0, 1 }, options)
    z[-1]:square():sum():backward()
    gq.set_threads(threads)
    local grads = {}
    for _, p in ipairs(net:parameters()) do flat(p.grad:totable(), grads) end
    return info, grads
  end
  local function guarded(n, more) return helper.with({ gq = { nodes = n, guards = true } }, more) end

  it("does not depend on rows at once, threads, the size of the batch or panels' order", function()
    for _, rows_ in ipairs { 1, 7, 64, 200 } do
      local one = network(guarded(9), { threads = 1, rows = rows_ })
      local two = network(guarded(9), { threads = 2, rows = rows_ })
      assert.close(two.spectrum, one.spectrum, 1e-6)
      assert.truthy(one.spectrum > 0 and one.spectrum < 1e-2)
    end
    -- nine nodes an interval do not fill the programs' sizes evenly
    local there, back = network(guarded(9), { times = { 0, 0.3, 0.5, 1 } }), network(guarded(9, { parity = true }))
    assert.truthy(there.spectrum > 0 and there.spectrum < 1e-4)
    assert.truthy(back.spectrum > 0 and back.spectrum < 1e-2)
  end)

  it("leaves the gradient as it is", function()
    for n, rows_ in helper.each({ 1, 2, 7, 64, 100 }, { 1, 40 }) do
      local _, want = network({ gq = { nodes = n } }, { rows = rows_ })
      local info, got = network(guarded(n), { rows = rows_ })
      for i, g in ipairs(got) do assert.close(g, want[i], 1e-11, 1e-13) end
      assert.equal(n >= 3, info.spectrum ~= nil)
    end
  end)

  it("falls with the number of nodes", function()
    local last = math.huge
    for _, n in ipairs { 4, 6, 8, 12 } do
      local s = network(guarded(n)).spectrum
      assert.below(s, 0.3 * last)
      last = s
    end
  end)

  it("is there for every trajectory, dtype and check; absent with other rules", function()
    for _, trajectory in ipairs { "reverse", "dense", "checkpoint", "interpolated" } do
      assert.truthy(network(guarded(5, { adjoint = { trajectory = trajectory } })).spectrum, trajectory)
    end
    assert.truthy(network({ gradient = "check", gq = { nodes = 5 } }).spectrum)
    assert.is_nil(network({ gradient = "check", gq = { nodes = 5, guards = false } }).spectrum)
    for _, o in ipairs { { gq = { nodes = 6, quadrature = "simpson", guards = true } },
      { gq = { nodes = "step", guards = true } }, { gradient = "kronrod", gq = { guards = true } },
      { gradient = "seminorm", gq = { guards = true } }, { gradient = "direct", gq = { guards = true } } } do
      assert.is_nil(network(o).spectrum)
    end
    local W = gq.randn(2, 2, { dtype = "float64", requires_grad = true })
    local z, info = gq.odeint(function(_, z) return z:matmul(W) end, gq.ones(3, 2, { dtype = "float64" }), { 0, 1 },
      guarded(5))
    z[2]:sum():backward()
    assert.below(info.spectrum, 0.1)                     -- a matrix alone
    local b = gq.zeros(2, { requires_grad = true })      -- float32
    z, info = gq.odeint(function(t, y) return b * gq.sin(30 * t) - y end, gq.ones(3, 2), { 0, 1 }, guarded(4))
    z[2]:sum():backward()
    assert.truthy(info.spectrum > 0.1)
  end)
end)

describe("an interpolant that misses the state", function()
  it("is told of", function()
    for _, tol in ipairs { 1e-2, 1e-3, 1e-4, 1e-6 } do
      local error, info = solve(oracle.G8(10), at(tol, { gradient = "interpolated", adjoint = { points = 16 } }), true)
      assert.truthy(error > 1 and info.warning:find("adjoint.points", 1, true), "Lotka-Volterra to 10")
      error, info = solve(oracle.G8(10), at(tol, { gradient = "interpolated", adjoint = { points = 200 } }), true)
      assert.truthy(tol > 1e-4 or error < 0.1)
      assert.is_nil(info.warning)
      error, info = solve(oracle.G3(10), at(tol, { gradient = "interpolated" }))
      assert.truthy(tol > 1e-3 or error < 0.05)
      assert.is_nil(info.warning)
    end
  end)

  it("is told of where no number of points meets the tolerance", function()
    local p = gq.ones(1, { dtype = "float64", requires_grad = true })
    for tol, warned in pairs { [1e-6] = false, [1e-12] = true } do
      local z, info = gq.odeint(function(t, z) return p * gq.sign(gq.sin(20 * t)) - z end,
        gq.ones(1, { dtype = "float64" }), { 0, 1 }, { gradient = "interpolated", rtol = tol, atol = tol })
      z[2]:sum():backward()
      assert.equal(warned, (info.warning or ""):find("adjoint.points", 1, true) ~= nil, tol)
    end
  end)
end)

describe("the guards", function()
  it("say nothing in a few epochs of each of the paper's experiments", function()
    for _, example in ipairs { "nested_spheres --epochs 30", "sines --epochs 4", "crossing --epochs 60",
      "train_ou --epochs 2", "toy_gradient" } do
      local script = example:gsub("^%S+", "%0.lua", 1)
      local text, code = helper.output(("%s examples/%s --quick"):format(helper.gqlua, script))
      assert.equal(0, code, text)
      assert.is_nil(text:lower():find("warning", 1, true), example .. ":\n" .. text)
    end
  end)

  it("compares the first derivatives of create_graph with a tighter solve and leaves both alone", function()
    local function run(audit, centre)
      local theta = gq.tensor({ 1 }, { dtype = "float64", requires_grad = true })
      local z0 = gq.ones(2, 3, { dtype = "float64" }):t()
      local t = gq.tensor({ 0, 5, 10 }, { requires_grad = true })
      z0.requires_grad = true
      local function f(s, z) return -z + theta * gq.exp(-((s - centre) / 0.05) ^ 2) end
      local z, info = gq.odeint(f, z0, t, { gradient = "direct", audit = audit })
      local g = gq.grad({ z:permute(3, 2, 1):square():sum() }, { theta, z0, t }, { create_graph = true })
      return info, g, gq.grad({ g[1]:sum() + g[2]:sum() }, { theta })[1]
    end
    gq.warnings(false)
    local info, g, h = run(1, 9.5)
    gq.warnings(true)
    local without, same, other = run(false, 9.5)
    assert.truthy(info.gradient_error > 0.9 and info.nfe_audit > 192, info.gradient_error)
    assert.equal("t[3]", info.gradient_of)            -- f there hangs on the state that is missed
    assert.truthy(info.warning:find("off that of a solve at a tenth", 1, true))
    assert.is_nil(without.gradient_error)
    for k = 1, 3 do assert.same(g[k]:totable(), same[k]:totable()) end
    assert.same(h:totable(), other:totable())
    local right = run(1, -9)                          -- nothing there
    assert.truthy(right.gradient_error < 0.01 and right.warning == nil, right.gradient_error)
  end)
end)
