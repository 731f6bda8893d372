-- independent_spec.lua -- gq.odeint with batch = "independent": every row of the state is solved with its own steps.
-- What a row gives, and what its gradients are, must not depend on which other rows there are, bit by bit.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local nn, message, with = gq.nn, helper.message, helper.with
local vector, leaf = problems.vector, problems.leaf

local threads = gq.threads()
teardown(function() gq.set_threads(threads) end)

local choose = helper.chooser(3)

local function randn(dtype, ...) return gq.randn({ ... }, { dtype = dtype }) end

local methods = {}                    -- those with an error estimate, fewest evaluations first
for _, m in ipairs(gq.core.tableaux()) do
  if m.kind == "runge-kutta" and m.error_order > 0 and not m.implicit then methods[#methods + 1] = m.name end
end

-- A random network with captures of every kind: weights, a context and a shift of each row, a scale of all.
-- solve(rows, options): those rows alone; results and gradients as tensors with the row in front.
local function problem(seed, options, activations)
  gq.manual_seed(seed)
  local dtype = choose { "float32", "float64" }
  local n, features = choose { 5, 33, 50, 81 }, choose { 1, 2, 3, 5 }
  local net = nn.mlp { sizes = { features + 2, choose { 3, 8, 20, 33 }, choose { 4, 17, 20 }, features },
    activation = choose(activations or { "softplus", "tanh", "relu", "silu" }), time = choose { true, false } }
  net:to(dtype)
  local tol = choose { 1e-3, 1e-5 }
  local given = { z0 = randn(dtype, n, features), context = randn(dtype, n, 2), shift = randn(dtype, n, features) }
  local scale, mix = gq.tensor(0.8, { dtype = dtype }), randn(dtype, 2, features)
  local times = choose { { 0, 1 }, { 0, 0.2, 0.5, 0.5, 2 }, { 1, 0.3, -1 } }
  local weights = randn(dtype, #times, n, features)
  local function solve(rows, more)
    local index, own = gq.tensor(rows, { dtype = "int64" }), {}
    for k, v in pairs(given) do
      own[k] = v:index_select(1, index)
      own[k].requires_grad = true
    end
    local function f(t, z)
      return net(t, gq.cat({ z, own.context }, 2)) * scale + own.shift * gq.cos(t) + gq.tanh(own.context:matmul(mix))
    end
    local z, info = gq.odeint(f, own.z0, times, with({ batch = "independent",
      rtol = tol, atol = tol }, with(options, more)))
    local inputs = net:parameters()
    local np = #inputs
    for _, k in ipairs { "z0", "context", "shift" } do inputs[#inputs + 1] = own[k] end
    local g = gq.grad((z * weights:index_select(2, index)):sum(), inputs)
    local s = info.samples
    if not s then return { z:transpose(1, 2), g[np + 1], g[np + 2], g[np + 3] }, { table.unpack(g, 1, np) }, info, z end
    return { z:transpose(1, 2), g[np + 1], g[np + 2], g[np + 3], s.nfe, s.steps, s.rejected, s.t, s.nfe_backward,
      s.steps_backward, s.nodes }, { table.unpack(g, 1, np) }, info, z
  end
  return solve, n
end

local function range(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

-- How far any number of got is from that of want at `rows`.
local function differ(got, want, rows)
  local index, worst = gq.tensor(rows, { dtype = "int64" }), 0
  for i = 1, #want do
    local a, b = got[i], want[i]:index_select(1, index)
    local d = (a - b):abs():to("float64"):max():item()
    worst = math.max(worst, d)
    assert.is_true(d == d)
  end
  return worst
end

describe("a row of batch = \"independent\"", function()
  for _, gradient in ipairs { "gq", "aca", "direct" } do
    it("gives the same bits alone, in any company, order, and number of threads: " .. gradient, function()
      for seed = 1, 8 do
        local options = { method = methods[seed % #methods + 1], gradient = gradient,
          gq = { nodes = choose { "nfe", "step", 5 } }, norm = choose { "rms", "max" },
          controller = seed % 3 == 0 and { pcoeff = 0.2, icoeff = 0.4, dcoeff = 0.05 } or nil }
        local solve, n = problem(seed, options)
        gq.set_threads(1)
        local all = range(n)
        local want = solve(all)
        local reversed, some = {}, {}
        for i = 1, n do reversed[i] = n + 1 - i end
        for i = 1, n, 3 do some[#some + 1] = (i * 7) % n + 1 end
        for _, count in ipairs { 1, 2, 3 } do
          gq.set_threads(count)
          assert.equal(0, differ(solve(all), want, all))
          assert.equal(0, differ(solve(reversed), want, reversed))
          assert.equal(0, differ(solve(some), want, some))
        end
        for i = 1, n, 9 do assert.equal(0, differ(solve { i }, want, { i })) end
      end
    end)
  end

  it("is what a solve of it alone gives, to the tolerance, and so are its gradients", function()
    for seed = 20, 27 do
      for _, gradient in ipairs { "direct", "gq", "check" } do
        local options = { method = choose { "dopri5", "tsit5", "dopri8" }, gradient = gradient, gq = { nodes = 20 } }
        local solve, n = problem(seed, options, { "softplus", "tanh", "silu" })
        local tight = { rtol = 1e-9, atol = 1e-9 }
        local got, shared, info, z = solve(range(n), tight)
        if z.dtype == "float64" then
          local want, shared_joint = solve(range(n), with(tight, { batch = "joint", gradient = "direct" }))
          for i = 1, 4 do assert.below(helper.relative(got[i], want[i]), 1e-6) end
          assert.below(helper.relative(shared, shared_joint), 1e-6)
          if gradient == "check" then assert.below(info.audit, 1e-8) end
        end
      end
    end
  end)

  it("takes steps of its own, for which its company pays nothing", function()
    local rate = vector { 1, 2000, 1.5, 30 }
    local function solve(rows)
      local k = rate:index_select(1, gq.tensor(rows, { dtype = "int64" }))
      return gq.odeint(function(_, z) return -k * z end, gq.ones(#rows, { dtype = "float64" }), { 0, 1 },
        { batch = "independent", gradient = "none" })
    end
    local z, info = solve { 1, 2, 3, 4 }
    local nfe = info.samples.nfe:totable()
    assert.is_true(nfe[2] > 20 * nfe[1] and nfe[4] > nfe[3])
    for i = 1, 4 do
      local alone, own = solve { i }
      assert.equal(nfe[i], own.nfe)
      assert.equal(z[2][i]:item(), alone[2][1]:item())
      assert.close(z[2][i]:item(), math.exp(-rate[i]:item()), 0, 2e-6)
    end
    assert.equal(nfe[1] + nfe[2] + nfe[3] + nfe[4], info.nfe)
    assert.equal(info.samples.steps:sum():item(), info.steps)
    assert.equal(info.samples.rejected:sum():item(), info.rejected)
    assert.same({ 1, 1, 1, 1 }, info.samples.t:totable())
    assert.same({ "ok", "ok", "ok", "ok" }, info.samples.status)
  end)

  it("is solved in the steps of a joint solve of it alone", function()
    for method, times, controller in helper.each(methods, { { 0, 3 }, { 0, 0.5, 3 }, { 2, -1 } },
        { {}, { pcoeff = 0.2, icoeff = 0.5 } }) do
      local o = { method = method, gradient = "none", rtol = 1e-5, atol = 1e-5, controller = controller }
      local function f(t, z) return gq.sin(3 * t) * z - 0.1 * z ^ 2 end
      local z0 = vector { { 0.3, 1 } }
      local z, joint = gq.odeint(f, z0, times, o)
      local z1, info = gq.odeint(f, z0, times, with(o, { batch = "independent" }))
      assert.same({ joint.nfe, joint.steps, joint.rejected }, { info.nfe, info.steps, info.rejected })
      assert.close(z1, z, 1e-12, 1e-14)
    end
  end)
end)

describe("gradients of independent rows", function()
  -- z' = a z, L = sum z(T)^2, rows of very different sizes.
  for _, gradient in ipairs { "direct", "aca", "gq" } do
    it("meet closed forms: " .. gradient, function()
      local a, T = leaf(0.2), 3
      local start = { 10, 0.01, -3, 0 }
      local z0 = leaf(start)
      for _, nodes in ipairs { 30, "step" } do
        local z = gq.odeint(function(_, y) return a * y end, z0, { 0, T }, { batch = "independent",
          gradient = gradient, gq = { nodes = nodes }, rtol = 1e-10, atol = 1e-13 })
        local ga, gz = table.unpack(gq.grad((z[2] ^ 2):sum(), { a, z0 }))
        local l, slope = 0, {}
        for i, x in ipairs(start) do
          l = l + x * x * math.exp(2 * 0.2 * T)
          slope[i] = 2 * x * math.exp(2 * 0.2 * T)
        end
        assert.close(ga:item(), 2 * T * l, 1e-7)
        assert.close(gz, slope, 1e-7)
      end
    end)
  end

  it("meet the oracles of a single system", function()
    for case, gradient in helper.each({ problems.oracle.G3(3), problems.oracle.G6(2), problems.oracle.G8(1) },
        { "aca", "gq" }) do
      local times = gq.is_tensor(case.t) and case.t:totable() or case.t
      local function f(t, z) return case.f(t, z:reshape(#case.z0)):reshape(1, #case.z0) end
      local ok, z = pcall(gq.odeint, f, case.z0:reshape(1, #case.z0), times,
        { batch = "independent", gradient = gradient, gq = { nodes = 40 }, rtol = 1e-10, atol = 1e-10 })
      if ok then
        local names, inputs = {}, {}
        for name, x in pairs(case.leaves) do
          if case.exact[name] and name ~= "t" then names[#names + 1], inputs[#inputs + 1] = name, x end
        end
        local g = gq.grad(case.loss(z:reshape(#times, #case.z0)), inputs)
        for i, name in ipairs(names) do assert.below(helper.relative(g[i], case.exact[name]), 1e-5) end
      else
        assert.truthy(tostring(z):find("independent", 1, true), z)
      end
    end
  end)

  it("have nodes by the rule from each row's own evaluations", function()
    local k = leaf { 1, 6 }
    local z, info = gq.odeint(function(_, y) return -k * y end, gq.ones(2, { dtype = "float64" }), { 0, 0.25, 1 },
      { batch = "independent", gq = { C = 0.1, max_nodes = 4000, nodes = "nfe" } })
    z:sum():backward()
    local wanted = 0
    for i = 1, 2 do
      local nfe, n = info.samples.nfe[i]:item(), info.samples.nodes[i]:item()
      assert.equal(math.ceil(0.1 * nfe * 0.25) + math.ceil(0.1 * nfe * 0.75), n)
      wanted = wanted + n
    end
    assert.same({ wanted, wanted }, { info.nodes, info.nodes_wanted })
    assert.equal(info.samples.nfe_backward:sum():item(), info.nfe_backward)
    assert.equal(info.samples.steps_backward:sum():item(), info.steps_backward)
    assert.equal(2, info.restarts)
    assert.below(info.reconstruction, 1e3)
  end)

  it("begin where a row's cotangents do", function()
    local k = leaf { 1, 1, 1 }
    local z0 = leaf { 1, 1, 1 }
    local z, info = gq.odeint(function(_, y) return -k * y end, z0, { 0, 1, 2 },
      { batch = "independent", gq = { nodes = 9 }, rtol = 1e-9, atol = 1e-9 })
    local gk, gz = table.unpack(gq.grad((z[2] * vector { 1, 0, 0 } + z[3] * vector { 0, 0, 2 }):sum(), { k, z0 }))
    assert.close(gz, { math.exp(-1), 0, 2 * math.exp(-2) }, 1e-7)
    assert.close(gk, { -math.exp(-1), 0, -4 * math.exp(-2) }, 1e-7)
    assert.same({ 9, 0, 18 }, info.samples.nodes:totable())
  end)

  it("can be asked for again, and do not read what a script writes into info.samples", function()
    for _, gradient in ipairs { "gq", "aca" } do
      local k, z0 = leaf { 1, 9 }, leaf { 1, 2 }
      local z, info = gq.odeint(function(_, y) return -k * y end, z0, { 0, 1 },
        { batch = "independent", gradient = gradient })
      local g = gq.grad(z[2]:sum(), { k, z0 })
      local nfe = info.samples.nfe_backward:totable()
      info.samples.nfe[1] = 1000000
      local again = gq.grad(z[2]:sum(), { k, z0 })
      assert.close(again[1], g[1], 0)
      assert.close(again[2], g[2], 0)
      assert.same(nfe, info.samples.nfe_backward:totable())
    end
  end)
end)

describe("gradients of times of independent rows", function()
  for _, gradient in ipairs { "direct", "gq" } do
    it("are those of a joint solve: " .. gradient, function()
      for seed = 1, 6 do
        gq.manual_seed(seed)
        local net = nn.mlp { sizes = { 3, 8, 3 }, activation = "tanh", time = true }
        net:to("float64")
        local z0, context = randn("float64", 41, 3), randn("float64", 41, 3)
        local times = choose { { 0, 1 }, { 0, 0, 0.3, 0.3, 0.7, 1, 1 }, { 1, 0.2, -0.5 } }
        local weights, results = randn("float64", #times, 41, 3), {}
        for i, batch in ipairs { "joint", "independent" } do
          local t = leaf(times)
          local z = gq.odeint(function(s, y) return net(s, y) + context * gq.sin(s) end, z0, t, { batch = batch,
            gradient = gradient, method = choose { "dopri5", "tsit5", "dopri8" }, rtol = 1e-9, atol = 1e-9 })
          results[i] = gq.grad({ (z * weights):sum() }, { t })[1]
        end
        assert.below(helper.relative(results[2], results[1]), 1e-6)
      end
    end)
  end

  it("need steps that adapt in direct", function()
    local t = leaf { 0, 1 }
    local text = message(gq.odeint, function(_, z) return -z end, vector { 1 }, t,
      { batch = "independent", gradient = "direct", step_size = 0.1 })
    assert.truthy(text:find("times that require gradients on a fixed grid", 1, true), text)
  end)
end)

describe("the end of a row", function()
  -- z' = z^2 leaves every bound at t = 1 / z0.
  local function solve(start, more)
    return gq.odeint(function(_, z) return z * z end, vector(start), { 0, 0.5, 1 },
      with({ batch = "independent", gradient = "none", max_steps = 200 }, more))
  end

  it("is told with its number, and leaves the others alone", function()
    helper.refused({ "sample 3: ", "t = 0.769" }, solve, { 0.5, 0.2, 1.3, 4 })
    local z, info = solve({ 0.5, 0.2, 1.3, 4 }, { throw = false })
    assert.same({ "ok", "ok", info.status, info.status }, info.samples.status)
    assert.is_not.equal("ok", info.status)
    assert.truthy(info.message:find("sample 3: ", 1, true), info.message)
    assert.equal(info.t, info.samples.t[3]:item())
    assert.close(info.samples.t, { 1, 1, 1 / 1.3, 0.25 }, 1e-3)
    local free = solve { 0.5, 0.2 }
    for k = 1, 3 do
      for i = 1, 2 do assert.equal(free[k][i]:item(), z[k][i]:item()) end
    end
    local nan = {}
    for k = 1, 3 do
      nan[k] = z[k]:totable()
      for i = 1, 4 do nan[k][i] = nan[k][i] ~= nan[k][i] end
    end
    assert.same({ { false, false, false, false }, { false, false, false, true }, { false, false, true, true } }, nan)
  end)

  it("comes at max_steps of its own", function()
    local rate = vector { 1, 2000, 1 }
    local function f(_, z) return -rate * z end
    local o = { batch = "independent", gradient = "none", max_steps = 60 }
    local text = message(gq.odeint, f, gq.ones(3, { dtype = "float64" }), { 0, 1 }, o)
    assert.truthy(text:find("sample 2: 60 steps", 1, true) and text:find("max_steps", 1, true), text)
    local _, info = gq.odeint(f, gq.ones(3, { dtype = "float64" }), { 0, 1 }, with(o, { throw = false }))
    assert.same({ "ok", "max_steps", "ok" }, info.samples.status)
    assert.equal("max_steps", info.status)
  end)

  it("comes with values that are not finite, at the start or later", function()
    local nan = 0 / 0
    helper.refused("sample 2: z0 is not finite", solve, { 1 / 3, nan })
    local function f(t, z) return gq.sqrt(0.5 - t) * gq.ones(3, { dtype = "float64" }) + z:lt(0):to("float64") * nan end
    local _, info = gq.odeint(f, vector { 1, -1, 1 }, { 0, 0.4 },
      { batch = "independent", gradient = "none", throw = false })
    assert.equal("non_finite", info.samples.status[2])
  end)

  it("on the way back names the sample", function()
    local k = leaf { 1, 3000, 1 }
    local z = gq.odeint(function(_, y) return -k * y end, gq.ones(3, { dtype = "float64" }), { 0, 0.5, 1 },
      { batch = "independent", adjoint = { max_steps = 50 }, rtol = 1e-4, atol = 1e-4 })
    local l = z:sum()
    local text = message(l.backward, l)
    assert.truthy(text:find("in the backward pass between t%[3%] and t%[2%]: sample 2: 50 steps"), text)
  end)

  it("by an interrupt leaves everything usable", function()
    if not gq.debug then pending("gq.debug is there in debug and asan builds only") return end
    for _, gradient in ipairs { "gq", "aca" } do
      local z0 = leaf { 1, 2 }
      local function start()
        return gq.odeint(function(_, z) return -z end, z0, { 0, 1 }, { batch = "independent", gradient = gradient })
      end
      gq.debug.interrupt()
      assert.truthy(message(start):find("interrupted", 1, true))
      local l = start():sum()
      gq.debug.interrupt()
      assert.truthy(message(l.backward, l):find("interrupted", 1, true))
      l = start()[2]:sum()
      l:backward()
      assert.close(z0.grad, { math.exp(-1), math.exp(-1) }, 1e-4)
    end
  end)
end)

describe("what independent rows cannot be", function()
  local function refused(f, z0, t, o)
    return message(gq.odeint, f, z0, t, with({ batch = "independent" }, o))
  end
  local function decay(_, z) return -z end

  it("rows that act on each other: the operation is named", function()
    local text = refused(function(_, z) return z - z:mean(1, true) end, gq.ones(4, 2), { 0, 1 })
    assert.truthy(text:find("rows must not act on each other", 1, true), text)
    assert.truthy(text:find("sum (giving {1, 2}) mixes rows", 1, true), text)
    assert.truthy(text:find("batch = \"joint\"", 1, true), text)
    text = refused(function(_, z) return gq.ones(4, 4):matmul(z) end, gq.ones(4, 2), { 0, 1 })
    assert.truthy(text:find("matmul", 1, true), text)
  end)

  it("a state without rows, or what goes with joint steps only", function()
    assert.truthy(refused(decay, gq.tensor(1), { 0, 1 }):find("state of no dimension", 1, true))
    local z0 = gq.ones(2, 2, { requires_grad = true })
    for _, case in ipairs {
      { "method = \"alf\"", { method = "alf" } }, { "overshoot", { overshoot = true } },
      { "overshoot", { parity = true } }, { "dense", { dense = true } }, { "grid_points", { grid_points = { 0.5 } } },
      { "event", { event = function(_, z) return z:sum() end } },
      { "gradient = \"adjoint\"", { gradient = "adjoint" } }, { "gradient = \"gqc\"", { gradient = "gqc" } },
      { "gradient = \"kronrod\"", { gradient = "kronrod" } },
      { "trajectory", { adjoint = { trajectory = "dense" } } }, { "moments", { adjoint = { impulses = "moments" } } },
      { "random points", { gq = { quadrature = "monte-carlo" } } },
      { "trace = false", { trace = false } },
      { "adjoint.method = \"kvaerno3\"", { adjoint = { method = "kvaerno3" } } },
      { "adjoint.method = \"implicit_midpoint\"",
        { gradient = "check", step_size = 0.1, adjoint = { method = "implicit_midpoint" } } },
    } do
      local text = refused(decay, z0, { 0, 1 }, case[2])
      assert.truthy(text:find(case[1], 1, true), text)
      assert.truthy(text:find("joint", 1, true), text)
    end
    local text = refused(decay, gq.ones(1, 2), { 0, 1 }, { trace = false })   -- lanes without a row would call it too
    assert.truthy(text:find("trace = false", 1, true), text)
    text = refused(decay, z0, { 0, 1 }, { batch = "independant" })
    assert.truthy(text:find("did you mean \"independent\"", 1, true), text)
    local z = gq.odeint(decay, z0, { 0, 1 }, { batch = "independent", gradient = "direct" })
    assert.truthy(message(gq.grad, z:sum(), z0, { create_graph = true }):find("independent", 1, true))
  end)
end)

describe("independent rows on", function()
  it("a fixed grid are those of a joint solve", function()
    local k = leaf { 1, 5 }
    for _, case in ipairs { { "rk4", 0.03 }, { "euler", 0.01 }, { "dopri5", 0.1 }, { "rk4" }, { "midpoint" } } do
      for _, gradient in ipairs { "direct", "gq" } do
        local results = {}
        for _, batch in ipairs { "joint", "independent" } do
          local o = { batch = batch, method = case[1], step_size = case[2], gradient = gradient,
            gq = { nodes = 7, paper = true } }
          local z, info = gq.odeint(function(t, y) return gq.cos(t) - k * y end, vector { 1, 2 },
            { 0, 0.1, 0.25, 0.3 }, o)
          results[#results + 1] = { z, gq.grad({ z:sum() }, { k })[1], info }
        end
        local joint, own = results[1], results[2]
        assert.close(own[1], joint[1], 1e-12)
        assert.close(own[2], joint[2], 1e-9)
        assert.equal(2 * joint[3].steps, own[3].steps)
        if gradient == "gq" then assert.equal(2 * joint[3].nfe, own[3].nfe) end   -- direct keeps every interpolant
      end
    end
  end)

  it("no time, no rows, or one time", function()
    local z0 = leaf { 1, 2 }
    local k = leaf(3)
    local function f(_, z) return -k * z end
    for _, t in ipairs { { 0 }, { 1, 1, 1 } } do
      local z, info = gq.odeint(f, z0, t, { batch = "independent" })
      assert.close(z[#t], { 1, 2 }, 0)
      assert.equal(0, info.nfe)
      local gz, gk = table.unpack(gq.grad(z:sum(), { z0, k }))
      assert.close(gz, { #t, #t }, 0)
      assert.equal(0, gk:item())
    end
    for _, shape in ipairs { { 0, 3 }, { 3, 0 } } do
      local z, info = gq.odeint(f, gq.zeros(shape, { dtype = "float64" }), { 0, 1 }, { batch = "independent" })
      assert.same({ 2, shape[1], shape[2] }, z.shape)
      assert.same({ shape[1] }, info.samples.nfe.shape)
    end
  end)

  -- Attention inside each row: products that the form with rows innermost does not have.
  it("states of any operation within a row, the same bits in any company", function()
    for gradient, dtype in helper.each({ "gq", "aca" }, { "float32", "float64" }) do
      gq.manual_seed(5)
      local w, z0, shift = randn(dtype, 3, 7), randn(dtype, 40, 5, 3), randn(dtype, 40, 5, 3)
      local function solve(rows)
        local index = gq.tensor(rows, { dtype = "int64" })
        local start, own = z0:index_select(1, index), shift:index_select(1, index)
        start.requires_grad = true
        local z = gq.odeint(function(t, y)
          local q = y:matmul(w)
          return gq.softmax(q:matmul(q:transpose(2, 3)), 3):matmul(y) * gq.cos(3 * t) - y + own
        end, start, { 0, 0.4, 1 }, { batch = "independent", gradient = gradient, rtol = 1e-4, atol = 1e-4 })
        return { z:transpose(1, 2), gq.grad({ (z ^ 2):sum() }, { start })[1] }
      end
      local want = solve(range(40))
      for _, rows in ipairs { { 40, 3, 17 }, { 8 } } do assert.equal(0, differ(solve(rows), want, rows)) end
    end
  end)

  -- Lanes without a row of their own would look up what no table has: entry 0, or a time outside of t.
  it("that look something up by a label of each row, and by the time", function()
    for _, n in ipairs { 1, 5, 40 } do
      gq.manual_seed(2)
      local labels, z0 = gq.randn(n, { seed = 4 }):argsort(), randn("float64", n, 2)
      local rows, table_of_t = randn("float64", 40, 2), randn("float64", 9, 2)
      for _, x in ipairs { rows, z0 } do x.requires_grad = true end
      local function solve(options)
        local z = gq.odeint(function(t, y)
          local at = ((t - 5) * 4):floor():to("int64") + 1
          return gq.tanh(y) * gq.embedding(labels, rows) + table_of_t:index_select(1, at:reshape(1)) * 1e-9
        end, z0, { 5, 6, 7 }, with({ rtol = 1e-9, atol = 1e-9 }, options))
        return { z, table.unpack(gq.grad({ (z ^ 2):sum() }, { z0, rows })) }
      end
      for _, gradient in ipairs { "direct", "aca", "gq" } do
        local want = solve { gradient = gradient }
        for i, got in ipairs(solve { gradient = gradient, batch = "independent" }) do
          assert.close(got, want[i], 1e-6)
        end
      end
    end
  end)

  -- 20 rows go to one thread, which must not share its products with the other then: 240 x 100 by 100 x 100.
  it("states that one thread could share with others, the same bits", function()
    gq.manual_seed(1)
    local net, z0 = nn.Linear(100, 100), gq.randn(80, 12, 100)
    local function solve(n, count)
      gq.set_threads(count)
      local start = z0:narrow(1, 1, n):detach()
      start.requires_grad = true
      local z = gq.odeint(function(t, y) return gq.tanh(net(y)) * gq.cos(t) end, start, { 0, 1 },
        { batch = "independent" })
      return { z:transpose(1, 2), gq.grad({ z:sum() }, { start })[1] }
    end
    local want = solve(80, 2)
    for _, case in ipairs { { 20, 2 }, { 20, 1 }, { 1, 2 } } do
      assert.equal(0, differ(solve(case[1], case[2]), want, range(case[1])))
    end
  end)

  it("states of several dimensions", function()
    local w = gq.randn(3, 3, { dtype = "float64" })
    w.requires_grad = true
    local z0 = gq.randn(37, 2, 3, { dtype = "float64" })
    local function f(t, z) return gq.tanh(z:matmul(w)) * gq.sin(t) - z end
    local results = {}
    for i, batch in ipairs { "joint", "independent" } do
      local z = gq.odeint(f, z0, { 0, 0.7, 1 }, { batch = batch, rtol = 1e-9, atol = 1e-9, gq = { nodes = 12 } })
      local g = gq.grad((z ^ 2):sum(), { w })
      results[i] = { z, g[1] }
    end
    assert.close(results[2][1], results[1][1], 1e-7, 1e-8)
    assert.below(helper.relative(results[2][2], results[1][2]), 1e-7)
  end)
end)
