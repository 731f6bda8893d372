-- gradient_spec.lua -- every engine against gradients in closed form, against each other and against itself:
-- states, parameters, times; captures of every kind; rows, threads and directions; and the alarms.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, oracle, refused = problems.vector, problems.leaf, problems.oracle, helper.refused

-- Engines that go back along the steps, of which every one is there.
local stepwise = {}
for _, e in ipairs(gq.core.engines()) do
  stepwise[e.name] = e.keeps == "activations" or e.keeps == "steps" or e.chooses
end

-- What a user can choose, at sizes where none runs out of nodes, z solved backwards where an engine leaves the choice.
local backwards = { trajectory = "reverse" }
local many = { gq = { C = 0.5, max_nodes = 4000, nodes = "nfe" }, adjoint = backwards }
local own = { direct = true, aca = true, interpolated = true, kronrod = true, gqc = true, auto = true }
local engines, by_name = {}, {}
for i, o in ipairs(problems.engines { mali = false, reversible = false, gq = many, check = many,
  interpolated = { adjoint = { points = 300 } },
  adjoint = { adjoint = backwards }, seminorm = { adjoint = backwards } }) do
  engines[i] = { o.gradient, o }
  by_name[o.gradient] = engines[i]
end
local variants = {
  { "gq, nodes a step", { gradient = "gq", adjoint = backwards, gq = { nodes = "step" } } },
  { "gq, 320 nodes", { gradient = "gq", adjoint = backwards, gq = { nodes = 320 } } },
  { "gq, by default", { gradient = "gq" } },
  { "gq, nodes judged", { gradient = "gq", adjoint = backwards, gq = { nodes = "auto" } } },
  { "gq, dense", { gradient = "gq", adjoint = { trajectory = "dense" }, gq = { C = 0.5, max_nodes = 4000 } } },
  { "gq, dense, nodes a step", { gradient = "gq", adjoint = { trajectory = "dense" }, gq = { nodes = "step" } } },
  { "adjoint, dense", { gradient = "adjoint", adjoint = { trajectory = "dense" } } },
  { "seminorm, dense", { gradient = "seminorm", adjoint = { trajectory = "dense" } } },
  { "gq, checkpoints", { gradient = "gq", adjoint = { trajectory = "checkpoint", checkpoints = 3 },
    gq = { nodes = "step" } } },
}
table.move(variants, 1, #variants, #engines + 1, engines)
local main = { by_name.direct, by_name.adjoint, by_name.seminorm, by_name.gq, variants[#variants] }

local function with(engine, more) return helper.with(engine[2], more) end

local function stable(engine)
  return own[engine[1]] or (engine[2].adjoint or {}).trajectory ~= "reverse"
end

-- ---- closed forms ----

-- name, case, error allowed in units of the tolerance, only engines that do not solve z backwards
local cases = {
  { "z' = a z (G1), T = 19", function() return oracle.G1(19) end, 20 },
  { "z' = a z (G1), T = 29", function() return oracle.G1(29) end, 40 },
  { "z' = theta sin(t / 2) - z (G2)", function() return oracle.G2(0.5, 10) end, 2e4 },
  { "z' = theta sin t - z (G2)", function() return oracle.G2(1, 10) end, 2e4 },
  { "q'' = -theta q (G3)", function() return oracle.G3(20) end, 50 },
  { "z' = -lambda z (G4), lambda T = 5", function() return oracle.G4(1, 5) end, 120 },
  { "z' = -lambda z (G4), lambda T = 10", function() return oracle.G4(1, 10) end, 2e4 },
  { "z' = A z (G5)", function() return oracle.G5(4) end, 30 },
  { "x' = mu t - theta x (G6)", function() return oracle.G6(10) end, 50 },
  { "y' = a + (y - (a t + b))^5 (G7)", function() return oracle.G7(4) end, 1e-4 },
  { "Lotka-Volterra (G8), T = 1", function() return oracle.G8(1) end, 60 },
  { "Lotka-Volterra (G8), T = 10", function() return oracle.G8(10) end, 1500 },
  { "Van der Pol (G9)", function() return oracle.G9() end, 5000, true },
}

describe("gradients of", function()
  for case, engine in helper.each(cases, engines) do
    if not case[4] or stable(engine) then
      it(("%s by %s meet the closed form and fall with the tolerance"):format(case[1], engine[1]), function()
        local errors = {}
        for i, tol in ipairs { 1e-4, 1e-6, 1e-8, 1e-10 } do
          local worst, info = problems.gradient_error(case[2](), with(engine, { rtol = tol, atol = tol }))
          errors[i] = worst
          assert.equal("ok", info.status)
          -- the loosest tolerance may be outside the regime where errors are proportional to it
          assert.below(worst, math.max(case[3] * tol * (i == 1 and 4 or 1), 4e-15), "error at tol " .. tol)
        end
        assert.below(errors[4], math.max(1e-4 * errors[1], 1e-12), "error at 1e-10 against that at 1e-4")
        assert.below(errors[4], math.max(0.1 * errors[3], 1e-12), "error at 1e-10 against that at 1e-8")
      end)
    end
  end

  it("the paper's section 5.1: relative errors of about 1e-5 at rtol 1e-6, atol 1e-7 and C = 0.4", function()
    for _, engine in ipairs(main) do
      for T = 19, 29, 2 do
        local o = { gradient = engine[2].gradient, rtol = 1e-6, atol = 1e-7, gq = { C = 0.4 } }
        assert.below(problems.gradient_error(oracle.G1(T), o), 3e-5, engine[1])
        local a = gq.tensor(0.2, { requires_grad = true })      -- the paper's states are float32
        local z = gq.odeint(function(_, y) return a * y end, gq.tensor { 10 }, { 0, T }, o)
        local loss = gq.sum(z[2] ^ 2)
        loss:backward()
        local exact = 100 * math.exp(0.4 * T)
        assert.close(loss:item(), exact, 5e-5)
        assert.close(a.grad:item(), 2 * T * exact, 5e-5)
      end
    end
  end)

  it("every method by every engine meet the closed form", function()
    for _, method in ipairs { "bosh3", "tsit5", "dopri8", "adaptive_heun", "fehlberg2" } do
      local tol = (method == "adaptive_heun" or method == "fehlberg2") and 1e-5 or 1e-7
      for _, engine in ipairs(engines) do
        local worst = problems.gradient_error(oracle.G5(3), with(engine, { method = method, rtol = tol, atol = tol }))
        assert.below(worst, 2000 * tol, method .. " by " .. engine[1])
      end
    end
  end)

  it("fixed grids by every engine fall with the order of the method", function()
    local order = { euler = 1, midpoint = 2, heun = 2, ralston = 2, ssp33 = 3, rk4 = 4, dopri5 = 5 }
    for method, p in pairs(order) do
      for _, engine in ipairs(engines) do
        local e = {}
        for i, n in ipairs { 40, 80 } do
          local case = oracle.G5(2)
          e[i] = problems.gradient_error(case, with(engine, { method = method, step_size = 2 / n }))
        end
        -- nodes read from a cubic, or a fixed number of them, can only make it better or end in rounding
        assert.below(e[2], math.max(e[1] * 0.5 ^ (p - 0.4), 1e-11), method .. " by " .. engine[1])
      end
    end
  end)

  it("a backward method of its own", function()
    for _, engine in ipairs(engines) do
      if engine[1] ~= "direct" then
        local o = with(engine, { method = "dopri5", rtol = 1e-8, atol = 1e-8 })
        local adjoint = { method = "tsit5", rtol = 1e-9, atol = 1e-9, trajectory = (o.adjoint or {}).trajectory }
        o.adjoint = adjoint
        assert.below(problems.gradient_error(oracle.G5(3), o), 1e-6, engine[1])
      end
    end
  end)

  it("a float32 state", function()
    for _, engine in ipairs(engines) do
      local a = gq.tensor(0.2, { requires_grad = true })
      local z0 = gq.tensor({ 10 }, { requires_grad = true })
      local z = gq.odeint(function(_, y) return a * y end, z0, { 0, 5 }, with(engine, { rtol = 1e-5, atol = 1e-5 }))
      gq.sum(z[2] ^ 2):backward()
      local l = 100 * math.exp(2)
      assert.equal("float32", a.grad.dtype)
      assert.close(a.grad:item(), 10 * l, 1e-3)
      assert.close(z0.grad, { 2 * l / 10 }, 1e-3)
    end
  end)
end)

-- ---- times ----

-- z = z0 exp(k (sin t - sin t0)); L = sum c_i z(t_i).
local function wave_case(times, c)
  local p = { k = leaf(0.8), z0 = leaf { 1.3 }, t = leaf(times) }
  local weights = vector(c)
  local exact, sum, dk, dz = {}, 0, 0, 0
  for i, t in ipairs(times) do
    local z = 1.3 * math.exp(0.8 * (math.sin(t) - math.sin(times[1])))
    exact[i] = c[i] * 0.8 * math.cos(t) * z
    if i > 1 then sum = sum + c[i] * z end
    dk = dk + c[i] * z * (math.sin(t) - math.sin(times[1]))
    dz = dz + c[i] * z / 1.3
  end
  exact[1] = -0.8 * math.cos(times[1]) * sum
  return { leaves = p, z0 = p.z0, t = p.t, f = function(t, z) return p.k * z * gq.cos(t) end,
    loss = function(z) return (weights * z:reshape(#times)):sum() end, exact = { k = dk, z0 = { dz }, t = exact } }
end

describe("gradients of times", function()
  local grids = {
    { "two", { 0.2, 2 }, { 0.5, 1.5 } },
    { "several", { 0.1, 0.5, 0.55, 1.7, 3 }, { 0.3, -1, 2, 0.7, 1.1 } },
    { "decreasing", { 3, 1.2, 0.4, -1 }, { 0.5, -0.8, 1.4, 1 } },
    { "repeated", { 0.1, 0.1, 0.9, 0.9, 2, 2 }, { 0.3, 0.6, 1, -0.4, 0.8, 1.2 } },
    { "many", {}, {} },
  }
  for i = 0, 40 do grids[5][2][i + 1], grids[5][3][i + 1] = 0.1 + i / 12, 1 + math.sin(3 * i) / 2 end
  for grid, engine in helper.each(grids, engines) do
    it(("%s, by %s"):format(grid[1], engine[1]), function()
      local errors = {}
      for i, tol in ipairs { 1e-5, 1e-9 } do
        local case = wave_case(grid[2], grid[3])
        local worst, _, by = problems.gradient_error(case, with(engine, { rtol = tol, atol = tol }))
        errors[i] = worst
        assert.below(by.t, 500 * tol, "times at tol " .. tol)
        assert.below(by.k, 300 * tol, "parameter at tol " .. tol)
        assert.below(by.z0, 300 * tol, "state at tol " .. tol)
      end
      assert.below(errors[2], 1e-2 * errors[1], "falling")
    end)
  end

  it("that are float32 or a view come back as they are", function()
    for _, engine in ipairs(main) do
      local t = gq.tensor({ 0, 0.5, 1, 2 }, { requires_grad = true })
      local z = gq.odeint(function(_, y) return -y end, vector { 1 }, t:narrow(1, 2, 3), with(engine))
      z[3]:sum():backward()
      assert.equal("float32", t.grad.dtype)
      assert.close(t.grad, { 0, math.exp(-1.5), 0, -math.exp(-1.5) }, 1e-4, 1e-7)
    end
  end)
end)

-- ---- captures ----

describe("gradients reach", function()
  local options = { rtol = 1e-9, atol = 1e-9 }

  -- loss(w) by every engine against the gradient of the closed form
  local function check(f, w, z0, want)
    for _, engine in ipairs(engines) do
      w.grad = nil
      local z = gq.odeint(f, z0, { 0, 1 }, with(engine, options))
      z[2]:sum():backward()
      assert.close(w.grad, want, 1e-6, 1e-9)
    end
  end

  it("a view taken inside the function", function()
    local w = leaf { 0.3, 0.7, 0.2 }
    check(function(_, z) return w:narrow(1, 2, 1) * z end, w, vector { 2 }, { 0, 2 * math.exp(0.7), 0 })
    check(function(_, z) return -w[3] * z end, w, vector { 2 }, { 0, 0, -2 * math.exp(-0.2) })
  end)

  it("a view taken outside", function()
    local w = leaf { { 0.3, 0.7 }, { 0.1, 0.2 } }
    for _, engine in ipairs(engines) do
      w.grad = nil
      local v = w:transpose(1, 2)[2]                      -- {0.7, 0.2}
      local z = gq.odeint(function(_, z) return v * z end, vector { 1, 1 }, { 0, 1 }, with(engine, options))
      z[2]:sum():backward()
      assert.close(w.grad, { { 0, math.exp(0.7) }, { 0, math.exp(0.2) } }, 1e-6, 1e-9)
    end
  end)

  it("through a tensor that was computed, inside and outside", function()
    local w = leaf(0.3)
    check(function(_, z) return gq.exp(w) * z end, w, vector { 1 }, math.exp(0.3) * math.exp(math.exp(0.3)))
    for _, engine in ipairs(engines) do
      w.grad = nil
      local e = gq.exp(w)
      local z = gq.odeint(function(_, z) return e * z end, vector { 1 }, { 0, 1 }, with(engine, options))
      z[2]:sum():backward()
      assert.close(w.grad:item(), math.exp(0.3) * math.exp(math.exp(0.3)), 1e-6)
    end
  end)

  it("the state through what made it", function()
    for _, engine in ipairs(engines) do
      local w = leaf { 2, 3 }
      local z = gq.odeint(function(_, z) return -z end, w * w, { 0, 1 }, with(engine, options))
      gq.sum(2 * z[2]):backward()
      assert.close(w.grad, { 8 * math.exp(-1), 12 * math.exp(-1) }, 1e-6)
    end
  end)

  it("a parameter used twice, and one used as the state too", function()
    for _, engine in ipairs(engines) do
      local w = leaf { 0.5 }
      local z = gq.odeint(function(_, z) return w * z + w * w end, w, { 0, 1 }, with(engine, options))
      z[2]:sum():backward()                              -- z = (w + w) e^w - w
      assert.close(w.grad, { 2 * math.exp(0.5) + 2 * 0.5 * math.exp(0.5) - 1 }, 1e-6)
    end
  end)

  it("nothing that has no influence: exactly zero", function()
    for _, engine in ipairs(engines) do
      local w, unused = leaf { 0.5, 1 }, leaf { 1, 2 }
      local z = gq.odeint(function(_, z) return w:narrow(1, 1, 1) * z + 0 * unused:sum() end, vector { 1 }, { 0, 1 },
        with(engine, options))
      z[2]:sum():backward()
      assert.equal(0, w.grad[2]:item())
      if unused.grad then assert.same({ 0, 0 }, unused.grad:totable()) end
    end
  end)

  it("only the tensors of opts.params, where they are given", function()
    for _, engine in ipairs(engines) do
      local w, v = leaf(0.5), leaf(0.25)
      local z = gq.odeint(function(_, z) return w * z + v end, vector { 1 }, { 0, 1 },
        with(engine, { rtol = 1e-9, atol = 1e-9, params = { w } }))
      z[2]:sum():backward()
      -- z = e^w + v (e^w - 1) / w
      assert.close(w.grad:item(), math.exp(0.5) + 0.25 * (0.5 * math.exp(0.5) - math.exp(0.5) + 1) / 0.25, 1e-6)
      assert.is_nil(v.grad)
    end
  end)

  it("the values of each solve, though the closure has changed since", function()
    for _, engine in ipairs(engines) do
      local k, w = 1.5, leaf(0.2)
      local function f(_, z) return k * w * z end
      local first = gq.odeint(f, vector { 1 }, { 0, 1 }, with(engine, options))
      k = -3
      local second = gq.odeint(f, vector { 1 }, { 0, 1 }, with(engine, options))
      first[2]:sum():backward()
      assert.close(w.grad:item(), 1.5 * math.exp(0.3), 1e-6)
      w.grad = nil
      second[2]:sum():backward()
      assert.close(w.grad:item(), -3 * math.exp(-0.6), 1e-6)
    end
  end)

  it("the draw of each solve: two solves before the first backward", function()
    for _, engine in ipairs(engines) do
      local w, draws = leaf(0.2), {}
      local function f(_, z)
        local xi = gq.randn(1, { dtype = "float64" })
        draws[#draws + 1] = xi:item()
        return w * xi * z
      end
      local first = gq.odeint(f, vector { 1 }, { 0, 1 }, with(engine, options))
      local second = gq.odeint(f, vector { 1 }, { 0, 1 }, with(engine, options))
      assert.equal(2, #draws)
      for i, z in ipairs { first, second } do
        w.grad = nil
        z[2]:sum():backward()
        assert.close(w.grad:item(), draws[i] * math.exp(0.2 * draws[i]), 1e-6)
      end
    end
  end)

  it("never a value that was written over: that is an error, or the old value", function()
    for _, engine in ipairs(engines) do
      local w, m = leaf(0.2), vector { 1.5 }
      local z = gq.odeint(function(_, z) return m * w * z end, vector { 1 }, { 0, 1 }, with(engine, options))
      m[1] = 100
      if pcall(function() z[2]:sum():backward() end) then assert.close(w.grad:item(), 1.5 * math.exp(0.3), 1e-6) end
    end
  end)
end)

-- ---- properties ----

local function mlp(width, dim, seed)
  gq.manual_seed(seed)
  return gq.nn.mlp { sizes = { dim, width, width, dim }, activation = "softplus", time = true }:to("float64")
end

-- Gradients of sum_k c_k . z(t_k) with respect to the state and every parameter, flattened.
local function gradients(net, z0, times, cotangent, options)
  for _, p in ipairs(net:parameters()) do p.grad = nil end
  local start = z0:detach()
  start.requires_grad = true
  local z, info = gq.odeint(net, start, times, options)
  z:backward(cotangent)
  local list = helper.flatten(start.grad)
  for _, p in ipairs(net:parameters()) do helper.flatten(p.grad, list) end
  return list, info
end

local function random(...) return gq.randn(..., { dtype = "float64" }) end

describe("engines", function()
  it("agree on random networks, forwards and backwards in time", function()
    for i = 1, 24 do
      local width, dim, rows = 1 + (i * 13) % 40, 1 + i % 4, 1 + i % 5
      local net = mlp(width, dim, i)
      local times = i % 3 == 0 and { 1, 0.4, -0.5 } or i % 3 == 1 and { 0, 1 } or { 0, 0.2, 0.9, 1.1 }
      local z0, cotangent = random { rows, dim }, random { #times, rows, dim }
      local want = gradients(net, z0, times, cotangent, with(by_name.direct, { rtol = 1e-10, atol = 1e-10 }))
      for _, engine in ipairs(engines) do
        local got = gradients(net, z0, times, cotangent, with(engine, { rtol = 1e-10, atol = 1e-10 }))
        assert.below(helper.relative(got, want), 1e-7, ("network %d by %s"):format(i, engine[1]))
      end
    end
  end)

  it("are linear in the cotangent", function()
    local net, times = mlp(8, 3, 5), { 0, 0.7, 1.5 }
    local z0, c1, c2 = random { 4, 3 }, random { 3, 4, 3 }, random { 3, 4, 3 }
    for _, engine in ipairs(engines) do
      local o = with(engine, { rtol = 1e-8, atol = 1e-8 })
      local a, b = gradients(net, z0, times, c1, o), gradients(net, z0, times, c2, o)
      local both = gradients(net, z0, times, 2 * c1 - 3 * c2, o)
      local want = {}
      for i = 1, #a do want[i] = 2 * a[i] - 3 * b[i] end
      assert.below(helper.relative(both, want), engine[1] == "direct" and 1e-13 or 1e-6, engine[1])
    end
  end)

  it("keep their accuracy however small the cotangent: the adjoint's atol is scaled by it", function()
    local net, times = mlp(8, 3, 6), { 0, 0.7, 1.5 }
    local z0, c = random { 4, 3 }, random { 3, 4, 3 }
    for _, engine in ipairs(engines) do
      local o = with(engine, { rtol = 1e-4, atol = 1e-4 })
      local one, small = gradients(net, z0, times, c, o), gradients(net, z0, times, 1e-9 * c, o)
      for i = 1, #one do small[i] = small[i] * 1e9 end
      assert.below(helper.relative(small, one), 1e-9, engine[1])
    end
  end)

  it("give a split of the interval the same gradient", function()
    local net, z0, c = mlp(6, 2, 7), random { 3, 2 }, random { 3, 2 }
    local zero = gq.zeros(3, 2, { dtype = "float64" })
    for _, engine in ipairs(engines) do
      local o = with(engine, { rtol = 1e-9, atol = 1e-9 })
      local whole = gradients(net, z0, { 0, 2 }, gq.stack({ zero, c }, 1), o)
      local split = gradients(net, z0, { 0, 0.3, 1.4, 2 }, gq.stack({ zero, zero, zero, c }, 1), o)
      assert.below(helper.relative(split, whole), 1e-6, engine[1])
    end
  end)

  it("solve a problem and its mirror in time alike", function()
    for _, engine in ipairs(engines) do
      local o = with(engine, { rtol = 1e-7, atol = 1e-7 })
      local w = leaf { 0.4, -0.3 }
      local function f(t, z) return gq.tanh(w[1] * z + gq.sin(t)) + w[2] end
      local g = {}
      for i, sign in ipairs { 1, -1 } do
        w.grad = nil
        local z0 = leaf { 0.5, 1 }
        local field = sign == 1 and f or function(t, z) return -f(-t, z) end
        local z = gq.odeint(field, z0, { sign * 0.2, sign * 1, sign * 3 }, o)
        gq.sum(z[2] + z[3] ^ 2):backward()
        g[i] = helper.flatten { w.grad:totable(), z0.grad:totable() }
      end
      assert.below(helper.relative(g[2], g[1]), 1e-11, engine[1])
    end
  end)

  it("give a zero cotangent zero gradients without a solve, and one at the first time itself", function()
    local net, z0 = mlp(5, 2, 8), random { 3, 2 }
    for _, engine in ipairs(engines) do
      local zero = gq.zeros(3, 3, 2, { dtype = "float64" })
      local got, info = gradients(net, z0, { 0, 1, 2 }, zero, with(engine))
      for i = 1, #got do assert.equal(0, got[i]) end
      if not stepwise[info.engine] then assert.equal(0, info.nfe_backward) end
      local first = zero:clone()
      first[1] = gq.ones(3, 2, { dtype = "float64" })
      got = gradients(net, z0, { 0, 1, 2 }, first, with(engine))
      for i = 1, #got do assert.equal(i <= 6 and 1 or 0, got[i]) end
    end
  end)

  it("add up over calls of backward", function()
    for _, engine in ipairs(main) do
      local w = leaf(0.5)
      local function once()
        local z = gq.odeint(function(_, z) return w * z end, vector { 1 }, { 0, 1 }, with(engine))
        z[2]:sum():backward()
      end
      once()
      local g = w.grad:item()
      once()
      assert.close(w.grad:item(), 2 * g, 1e-14)
    end
  end)

  it("answer gq.grad and touch no .grad", function()
    for _, engine in ipairs(main) do
      local w, z0 = leaf(0.5), leaf { 2 }
      local z = gq.odeint(function(_, z) return w * z end, z0, { 0, 1 }, with(engine, { rtol = 1e-9, atol = 1e-9 }))
      local gw, gz = table.unpack(gq.grad({ z[2]:sum() }, { w, z0 }))
      assert.close(gw:item(), 2 * math.exp(0.5), 1e-6)
      assert.close(gz, { math.exp(0.5) }, 1e-6)
      assert.is_nil(w.grad)
      assert.is_nil(z0.grad)
    end
  end)

  it("return a state without gradient where none is asked for", function()
    local w = leaf(0.5)
    local z = gq.odeint(function(_, z) return w * z end, vector { 1 }, { 0, 1 }, { gradient = "none" })
    assert.is_false(z.requires_grad)
    local y = gq.no_grad(function()
      return (gq.odeint(function(_, x) return w * x end, vector { 1 }, { 0, 1 }))
    end)
    assert.is_false(y.requires_grad)
  end)

  it("refuse a cotangent that is not finite", function()
    for _, engine in ipairs(main) do
      local w = leaf(0.5)
      local z = gq.odeint(function(_, z) return w * z end, vector { 1 }, { 0, 1 }, with(engine))
      local ok, e = pcall(z.backward, z, vector { { 0 }, { 0 / 0 } })
      if ok then                                            -- direct: a product like any other
        assert.equal("direct", engine[1])
        assert.truthy(w.grad:item() ~= w.grad:item())
      else
        assert.truthy(tostring(e):find("finite", 1, true), tostring(e))
      end
    end
  end)

  it("handle one time, equal times and an empty state", function()
    for _, engine in ipairs(engines) do
      local w, z0 = leaf(0.5), leaf { 1, 2 }
      local function f(_, z) return w * z end
      gq.odeint(f, z0, { 3 }, with(engine)):sum():backward()
      assert.same({ 1, 1 }, z0.grad:totable())
      if w.grad then assert.equal(0, w.grad:item()) end
      z0.grad = nil
      gq.odeint(f, z0, { 3, 3, 3 }, with(engine)):sum():backward()
      assert.same({ 3, 3 }, z0.grad:totable())
      if w.grad then assert.equal(0, w.grad:item()) end
      local empty = gq.zeros(0, 2, { dtype = "float64" })
      empty.requires_grad = true
      gq.odeint(f, empty, { 0, 1 }, with(engine)):sum():backward()
      assert.same({ 0, 2 }, empty.grad.shape)
      gq.odeint(f, empty, { 0, 1 }, with(engine, { norm = "max" })):sum():backward()
      if w.grad then assert.equal(0, w.grad:item()) end
    end
  end)
end)

-- ---- derivatives of derivatives ----

describe("second derivatives", function()
  it("by direct meet the closed form", function()
    local a, z0 = leaf(0.2), leaf { 1.5 }
    local z = gq.odeint(function(_, y) return a * y end, z0, { 0, 1, 2 },
      { gradient = "direct", rtol = 1e-9, atol = 1e-9 })
    local l = (z[3] ^ 2):sum()                            -- z0^2 e^(4 a)
    local g = gq.grad({ l }, { a, z0 }, { create_graph = true })
    local value = 2.25 * math.exp(0.8)
    assert.close(g[1]:item(), 4 * value, 1e-7)
    local h = gq.grad({ g[1] }, { a, z0 })
    assert.close(h[1]:item(), 16 * value, 1e-6)
    assert.close(h[2], { 4 * 2 * value / 1.5 }, 1e-6)
  end)

  it("by direct meet finite differences of first ones, on a network", function()
    local net, z0, c = mlp(5, 2, 9), random { 3, 2 }, random { 2, 3, 2 }
    local p = net:parameters()[1]
    local o, v = { gradient = "direct", method = "rk4", step_size = 0.25 }, random(p.shape)
    local function first()
      local z = gq.odeint(net, z0, { 0, 1 }, o)
      return gq.grad({ (c * z * z):sum() }, { p }, { create_graph = true })[1]
    end
    local h = gq.grad({ (first() * v):sum() }, { p })[1]
    local eps, base = 1e-5, p:detach():clone()
    local side = {}
    for i, sign in ipairs { 1, -1 } do
      gq.no_grad(function() p:copy_(base + sign * eps * v) end)
      side[i] = first():detach()
    end
    gq.no_grad(function() p:copy_(base) end)
    assert.below(helper.relative(h, (side[1] - side[2]) / (2 * eps)), 1e-7, "Hessian times a vector")
  end)

  it("by other engines are an error that names direct", function()
    for _, engine in ipairs(engines) do
      if not stepwise[engine[1]] then
        local a = leaf(0.2)
        local z = gq.odeint(function(_, y) return a * y end, vector { 1 }, { 0, 1 }, with(engine))
        refused("direct", gq.grad, { z[2]:sum() }, { a }, { create_graph = true })
      end
    end
  end)
end)

-- ---- rows and threads ----

describe("rows", function()
  -- On a fixed grid steps do not depend on the batch, so a batch is the sum of its rows.
  it("of a batch add up", function()
    local net = mlp(10, 3, 11)
    for _, rows in ipairs { 1, 3, 7, 200 } do
      local z0, c = random { rows, 3 }, random { 2, rows, 3 }
      for _, engine in ipairs(main) do
        local o = with(engine, { method = "rk4", step_size = 0.25, gq = { nodes = 6 } })
        local whole = gradients(net, z0, { 0, 1 }, c, o)
        local sum, n = nil, rows * 3
        for i = 1, rows, rows > 7 and 40 or 1 do
          local last = math.min(rows, i + (rows > 7 and 39 or 0))
          local part = gradients(net, z0[{ { i, last } }], { 0, 1 }, c[{ {}, { i, last } }], o)
          local m = (last - i + 1) * 3
          for j = 1, m do assert.close(part[j], whole[(i - 1) * 3 + j], 1e-11, 1e-13) end
          sum = sum or {}
          for j = m + 1, #part do sum[j - m] = (sum[j - m] or 0) + part[j] end
        end
        assert.below(helper.relative(sum, { table.unpack(whole, n + 1) }), 1e-12, rows .. " rows by " .. engine[1])
      end
    end
  end)

  it("of a batch may be permuted", function()
    local net, z0, c = mlp(10, 3, 12), random { 9, 3 }, random { 2, 9, 3 }
    local order = gq.randperm(9)
    for _, engine in ipairs(engines) do
      local o = with(engine, { rtol = 1e-8, atol = 1e-8 })
      local a = gradients(net, z0, { 0, 1 }, c, o)
      local b = gradients(net, z0:index_select(1, order), { 0, 1 }, c:index_select(2, order), o)
      assert.below(helper.relative({ table.unpack(b, 28) }, { table.unpack(a, 28) }), 1e-8, engine[1])
    end
  end)

  it("that a field mixes are solved all the same", function()
    -- z' = M z with rows of z mixed: G5 with the batch as the first dimension
    for _, engine in ipairs(engines) do
      local case = oracle.G5(3)
      local A, z0 = case.leaves.A, case.leaves.z0
      local w = vector { 0.7, -1.2, 0.4 }
      local z = gq.odeint(function(_, x) return A:matmul(x) end, z0:reshape(3, 1):expand(3, 2), { 0, 3 },
        with(engine, { rtol = 1e-9, atol = 1e-9 }))
      gq.sum(w:reshape(3, 1) * z[2]):backward()
      assert.close(A.grad, (2 * vector(case.exact.A)):totable(), 1e-6)
      assert.close(z0.grad, (2 * vector(case.exact.z0)):totable(), 1e-6)
    end
  end)

  it("that a field couples by their mean", function()
    -- z' = -(z - mean z): the mean stays, the rest decays
    for _, engine in ipairs(engines) do
      local z0 = leaf { { 1 }, { 2 }, { 6 } }
      local k = leaf(1)
      local z = gq.odeint(function(_, x) return -k * (x - x:mean({ 1 }, true)) end, z0, { 0, 2 },
        with(engine, { rtol = 1e-9, atol = 1e-9 }))
      z[2][1]:sum():backward()
      local e = math.exp(-2)
      assert.close(z0.grad, { { (1 + 2 * e) / 3 }, { (1 - e) / 3 }, { (1 - e) / 3 } }, 1e-6)
      assert.close(k.grad:item(), -2 * (1 - 3) * e, 1e-6)
    end
  end)
end)

describe("threads", function()
  local before = gq.threads()
  after_each(function() gq.set_threads(before) end)

  it("change gradients by rounding alone, and the same number of them by nothing", function()
    for _, shape in ipairs { { 5, 3 }, { 64, 3 }, { 201, 4 } } do
      local net, z0, c = mlp(17, shape[2], 13), random(shape), random { 3, shape[1], shape[2] }
      for _, engine in ipairs(engines) do
        local o, g = with(engine, { rtol = 1e-7, atol = 1e-7 }), {}
        for i, n in ipairs { 1, 2, 2 } do
          gq.set_threads(n)
          g[i] = gradients(net, z0, { 0, 0.6, 1 }, c, o)
        end
        assert.below(helper.relative(g[2], g[1]), 1e-9, engine[1])
        assert.same(g[2], g[3])
      end
    end
  end)
end)

-- ---- nodes ----

describe("nodes", function()
  local function solve(options, times)
    local w = leaf(0.3)
    local z, info = gq.odeint(function(t, y) return w * y * gq.cos(t) end, vector { 1 }, times or { 0, 0.5, 2, 3 },
      options)
    z:sum():backward()
    return info, w.grad:item()
  end

  it("follow eq. (9) in every interval", function()
    for C, times in helper.each({ 1e-3, 0.1, 0.37, 1 },
        { { 0, 3 }, { 0, 0.5, 2, 3 }, { 1, 0.4, -2 }, { 0, 0, 1, 1, 2 } }) do
      local info = solve({ gq = { C = C, paper = true } }, times)
      local want, T = 0, math.abs(times[#times] - times[1])
      for k = 2, #times do
        local share = C * info.nfe * math.abs(times[k] - times[k - 1]) / T
        if share > 0 then want = want + math.max(1, math.ceil(share * (1 - 1e-12))) end
      end
      assert.equal(want, info.nodes)
      assert.equal(want, info.nodes_wanted)
    end
  end)

  it("are not added by rounding where the product is exact", function()
    -- 10 equal intervals, C nfe = 10 m: exactly m each
    local times = {}
    for i = 0, 10 do times[i + 1] = i / 10 end
    local nfe = solve({ gq = { nodes = 1 } }, times).nfe
    assert.equal(30, solve({ gq = { C = 30 / nfe, paper = true } }, times).nodes)
  end)

  it("are capped at max_nodes, with what was wanted told", function()
    local info = solve { rtol = 1e-8, atol = 1e-8, gq = { C = 1, max_nodes = 3, paper = true } }
    assert.equal(9, info.nodes)
    assert.truthy(info.nodes_wanted > 9)
    assert.truthy(info.warning:find("max_nodes", 1, true))
    assert.equal(64, solve({ rtol = 1e-8, atol = 1e-8, gq = { C = 100, paper = true } }, { 0, 3 }).nodes)
  end)

  it("may be any number, in panels above the largest rule", function()
    local exact = 0                                        -- sum over times of sin t e^(0.3 sin t)
    for _, t in ipairs { 0, 0.5, 2, 3 } do exact = exact + math.sin(t) * math.exp(0.3 * math.sin(t)) end
    for _, n in ipairs { 8, 63, 64, 65, 100, 127, 128, 129, 1000 } do
      local info, g = solve { rtol = 1e-11, atol = 1e-11, gq = { nodes = n } }
      assert.truthy(info.nodes >= 3 * n and info.nodes <= 3 * n + 48)
      assert.close(g, exact, 1e-8)
    end
  end)

  it("of a fixed number converge spectrally down to the solve's own error", function()
    local want = select(2, solve({ rtol = 1e-11, atol = 1e-11, gradient = "direct" }, { 0, 3 }))
    local previous = math.huge
    for _, n in ipairs { 1, 2, 4, 8 } do
      local _, g = solve({ rtol = 1e-11, atol = 1e-11, gq = { nodes = n } }, { 0, 3 })
      local e = math.abs(g / want - 1)
      assert.below(e, math.max(previous * 0.3, 1e-9), n .. " nodes")
      previous = e
    end
    assert.below(previous, 1e-6, "8 nodes")
  end)

  it("a step are (order + 2) / 2 in each accepted backward step", function()
    for method, each in pairs { dopri5 = 3, tsit5 = 3, dopri8 = 5, bosh3 = 2 } do
      local info = solve { method = method, gq = { nodes = "step" } }
      assert.equal(each * info.steps_backward, info.nodes)
    end
  end)

  it("leave the backward steps as they are", function()
    local steps = {}
    for _, n in ipairs { 1, 10, 64, 300 } do
      local info = solve { gq = { nodes = n } }
      steps[#steps + 1] = info.steps_backward
      assert.equal(info.nfe_backward - info.nodes, solve({ gq = { nodes = 1 } }).nfe_backward - 3)
    end
    assert.same({ steps[1], steps[1], steps[1], steps[1] }, steps)
  end)
end)

-- ---- alarms ----

describe("the reconstruction error", function()
  local reverse = { by_name.adjoint, by_name.seminorm, by_name.gq, variants[1] }

  it("is small where the way back is stable, zero where z is not solved backwards", function()
    for _, engine in ipairs(engines) do
      local _, info = problems.gradient_error(oracle.G6(5), with(engine, { rtol = 1e-6, atol = 1e-6 }))
      if engine[1] == "interpolated" then assert.below(info.reconstruction, 1)
      elseif stable(engine) then assert.equal(0, info.reconstruction)
      else assert.truthy(info.reconstruction > 0 and info.reconstruction < 20) end
      assert.is_nil(info.warning)
    end
  end)

  it("sees z' = -lambda z beyond lambda T = 10 (G4), where reverse engines go wrong", function()
    for engine, T in helper.each(reverse, { 15, 20, 25 }) do
      local worst, info = problems.gradient_error(oracle.G4(1, T), with(engine, { rtol = 1e-6, atol = 1e-6 }))
      assert.truthy(info.reconstruction > 1e4, engine[1] .. ": " .. info.reconstruction)
      assert.truthy(worst > 0.1)
      assert.truthy(info.warning and info.warning:find("dense", 1, true))
    end
  end)

  it("tracks the gradient's error over the ladder", function()
    for _, T in ipairs { 5, 8, 10, 12, 15 } do
      local worst, info = problems.gradient_error(oracle.G4(1, T), with(by_name.gq, { rtol = 1e-6, atol = 1e-6 }))
      local ratio = worst / (1e-6 * info.reconstruction)
      assert.truthy(ratio > 1 / 20 and ratio < 1000, ("T = %g: %g"):format(T, ratio))
    end
  end)

  it("sees Van der Pol backwards (G9), or the backward solve fails", function()
    for engine, tol in helper.each(reverse, { 1e-6, 1e-8 }) do
      local ok, worst, info = pcall(problems.gradient_error, oracle.G9(), with(engine, { rtol = tol, atol = tol }))
      if ok then
        assert.truthy(worst > 0.1)
        assert.truthy(info.reconstruction > 1e4)
      else
        assert.truthy(tostring(worst):find("backward", 1, true), tostring(worst))
      end
    end
  end)

  it("does not cry on the harmonic oscillator (G3) over many periods", function()
    local worst, info = problems.gradient_error(oracle.G3(60), with(by_name.gq, { rtol = 1e-6, atol = 1e-6 }))
    assert.below(worst, 1e-3, "gradient")
    assert.is_nil(info.warning)
  end)
end)

describe("an integrand faster than the solution (G2)", function()
  -- Neither the solve nor the reconstruction sees theta sin(w t) at theta = 0: twice the nodes do.
  local function slope(w, nodes)
    local case = oracle.G2(w, 10)
    local z, info = gq.odeint(case.f, case.z0, case.t, { rtol = 1e-3, atol = 1e-3, gq = { nodes = nodes } })
    case.loss(z):backward()
    return case.leaves.theta.grad:item(), info, case.exact.theta
  end

  it("shows in n against 2 n nodes and nowhere else", function()
    local _, slow = slope(0.5, 5)
    for _, w in ipairs { 2, 5, 20, 100 } do
      local g1, info = slope(w, 5)
      local g2 = slope(w, 10)
      assert.equal(slow.nfe, info.nfe)
      assert.equal(slow.reconstruction, info.reconstruction)
      assert.truthy(math.abs(g1 - g2) > 0.2 * math.abs(g2), ("w = %g: %g against %g"):format(w, g1, g2))
    end
  end)

  it("is met with nodes enough", function()
    for _, w in ipairs { 2, 5, 20 } do
      local case = oracle.G2(w, 10)
      local worst = problems.gradient_error(case, { rtol = 1e-10, atol = 1e-10, gq = { nodes = 400 } })
      assert.below(worst, 1e-4, "w = " .. w)
    end
  end)
end)
