-- engines_spec.lua -- what aca and check add to the engines they stand on.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local a = gq.tensor(0.7, { requires_grad = true, dtype = "float64" })
local function field(t, z) return a * z + gq.sin(3 * t) end

local function gradients(options, t)
  local z0 = gq.full({ 40, 2 }, 1.5, { dtype = "float64", requires_grad = true })
  t = gq.tensor(t or { 0, 0.4, 1.5, 2 }, { dtype = "float64", requires_grad = true })
  local z, info = gq.odeint(field, z0, t, options)
  return gq.grad((z * z):sum(), { a, z0, t }), info
end

describe("aca", function()
  for _, method in ipairs { "dopri5", "tsit5", "dopri8", "bosh3", "rk4", "euler" } do
    it("gives direct's gradients to the last bit, " .. method, function()
      local options = { method = method, rtol = 1e-4, atol = 1e-4, gradient = "direct" }
      if method == "rk4" or method == "euler" then options.step_size = 0.1 end
      local direct = gradients(options)
      options.gradient = "aca"
      local aca, info = gradients(options)
      for i = 1, 3 do assert.same(direct[i]:totable(), aca[i]:totable()) end
      assert.is_true(info.nfe_backward > 0)
    end)
  end

  it("keeps less than direct", function()
    local _, direct = gradients({ gradient = "direct", rtol = 1e-8, atol = 1e-8 })
    local _, aca = gradients({ gradient = "aca", rtol = 1e-8, atol = 1e-8 })
    assert.is_true(aca.peak_bytes < direct.peak_bytes / 2)
  end)

  it("can be differentiated again", function()
    local z = gq.odeint(field, gq.ones(3, 1, { dtype = "float64" }), { 0, 1 },
      { gradient = "aca", rtol = 1e-9, atol = 1e-9 })
    local first = gq.grad(z[2]:sum(), a, { create_graph = true })
    assert.is_true(gq.grad(first, a):item() > 0)
  end)
end)

describe("check", function()
  -- eq. (9) cannot know w
  local function audit(w)
    local _, _, info = problems.hidden(w, { gradient = "check", rtol = 1e-3, atol = 1e-3, gq = { paper = true } })
    return info.audit
  end

  it("raises the alarm where eq. (9) asks for too few nodes, and only there", function()
    assert.is_true(audit(0.5) < 0.01)
    assert.is_true(audit(2) > 0.5)
    assert.is_true(audit(100) > 0.5)
  end)

  it("returns the gradient at twice the nodes", function()
    local options = { gradient = "check", rtol = 1e-6, atol = 1e-6, gq = { nodes = 3 } }
    local checked, info = gradients(options)
    local finer = gradients({ gradient = "gq", rtol = 1e-6, atol = 1e-6, gq = { nodes = 6 } })
    for i = 1, 3 do assert.same(finer[i]:totable(), checked[i]:totable()) end
    assert.is_true(info.audit > 0)
    assert.equal(3 * 6, info.nodes)
  end)
end)

describe("trajectory = checkpoint", function()
  local function options(trajectory, checkpoints, more)
    -- eq. (9) would count the evaluations of a dense forward solve's interpolants
    return helper.with({ rtol = 1e-8, atol = 1e-8, adjoint = { trajectory = trajectory, checkpoints = checkpoints },
      gq = { nodes = "step" } }, more)
  end

  it("gives the gradients of a dense trajectory to the last bit, whatever the budget, method and engine", function()
    for _, more in ipairs { {}, { method = "dopri8" }, { method = "bosh3" }, { method = "rk4", step_size = 0.01 },
      { gradient = "adjoint" }, { gradient = "seminorm" }, { gradient = "check" } } do
      for _, t in ipairs { { 0, 0.4, 1.5, 2 }, { 0, -0.7, -0.7, -2 }, { 0, 0, 2 } } do
        local dense = gradients(options("dense", nil, more), t)
        for _, checkpoints in ipairs { 2, 3, 7, 1000 } do
          local few, info = gradients(options("checkpoint", checkpoints, more), t)
          for i = 1, 3 do assert.same(dense[i]:totable(), few[i]:totable()) end
          assert.is_true(info.nfe_backward > 0)
        end
      end
    end
  end)

  it("keeps much less than a dense trajectory of many steps", function()
    local steps = { method = "bosh3", rtol = 1e-10, atol = 1e-10, gradient = "seminorm" }
    local _, dense = gradients(options("dense", nil, steps), { 0, 2 })
    local _, few = gradients(options("checkpoint", 24, steps), { 0, 2 })
    assert.is_true(dense.steps > 300)
    assert.is_true(few.peak_bytes < dense.peak_bytes / 3, ("%d of %d"):format(few.peak_bytes, dense.peak_bytes))
  end)

  it("joins moments", function()
    local t = {}
    for i = 0, 40 do t[i + 1] = i / 20 end
    local function moments(trajectory)
      return gradients(options(trajectory, 3, { adjoint = { trajectory = trajectory, checkpoints = 3,
        impulses = "moments" } }), t)
    end
    local dense, few = moments("dense"), moments("checkpoint")
    for i = 1, 3 do assert.same(dense[i]:totable(), few[i]:totable()) end
  end)
end)

describe("interpolated", function()
  local function distance(points, more)
    local o = helper.with({ gradient = "interpolated", rtol = 1e-10, atol = 1e-10, adjoint = { points = points } },
      more)
    local exact = gradients { gradient = "aca", rtol = 1e-12, atol = 1e-12 }
    local g, info = gradients(o)
    local d = (g[1] - exact[1]):abs():item() / exact[1]:abs():item()
    return d, info
  end

  it("converges with the number of points, and says how far it is from there", function()
    local last, told = math.huge, math.huge
    for _, points in ipairs { 3, 6, 9, 12 } do
      local d, info = distance(points)
      assert.is_true(d < math.max(0.2 * last, 1e-8), ("%g at %d"):format(d, points))
      assert.is_true(info.reconstruction < 0.2 * told)
      last, told = d, info.reconstruction
    end
    local _, info = distance(3)
    assert.truthy(info.warning:find("adjoint.points", 1, true))
  end)

  it("takes as many points as the tolerance asks for", function()
    local function pol(o, t)                              -- Van der Pol
      local mu = gq.tensor({ 1.5 }, { dtype = "float64", requires_grad = true })
      local z, info = gq.odeint(function(_, z)
        local x, v = z:narrow(1, 1, 1), z:narrow(1, 2, 1)
        return gq.cat({ v, mu * (1 - x * x) * v - x }, 1)
      end, gq.tensor({ 2, 0 }, { dtype = "float64" }), t, o)
      z[#t]:sum():backward()
      return mu.grad:item(), info
    end
    for _, t in ipairs { { 0, 5 }, { 0, 1, 5 }, { 5, 0.5 } } do
      local want = pol({ gradient = "direct", rtol = 1e-11, atol = 1e-11 }, t)
      for _, tol in ipairs { 1e-5, 1e-7, 1e-9 } do
        local got, info = pol({ gradient = "interpolated", rtol = tol, atol = tol }, t)
        assert.below(math.abs(got / want - 1), 300 * tol, ("%g"):format(tol))
        assert.truthy(info.reconstruction <= 1 and not info.warning, info.warning)
      end
      local _, info = pol({ gradient = "interpolated", rtol = 1e-9, atol = 1e-9, adjoint = { points = 16 } }, t)
      assert.truthy(info.reconstruction > 1)
    end
    local got, told = pol({ gradient = "interpolated", adjoint = { trajectory = "auto" } }, { 0, 1 })
    local same, info = pol({ gradient = "interpolated" }, { 0, 1 })
    assert.same({ same, info.trajectory }, { got, told.trajectory })
  end)

  it("is there as a trajectory for the other engines", function()
    for _, engine in ipairs { "gq", "adjoint", "seminorm" } do
      local d = distance(16, { gradient = engine, adjoint = { points = 16, trajectory = "interpolated" },
        gq = { nodes = "step" } })
      assert.is_true(d < 1e-8)
    end
  end)

  it("refuses what it cannot do, by name", function()
    helper.refused("seminorm", gradients, { gradient = "interpolated", adjoint = { trajectory = "dense" } })
    helper.refused("interpolated", gradients, { gradient = "interpolated", parity = true })
    helper.refused("points", gradients, { adjoint = { points = 1 } })
    helper.refused("checkpoints", gradients, { adjoint = { checkpoints = 1 } })
    helper.refused('"checkpoint"', gradients, { adjoint = { trajectory = "checkpoints" } })
  end)
end)

describe("kronrod", function()
  -- no solve sees w, the integrand does
  local function slope(w, tol, more)
    local got, exact, info = problems.hidden(w, helper.with({ gradient = "kronrod", rtol = tol, atol = tol }, more))
    return math.abs(got - exact), info
  end

  it("resolves integrands faster than the solution, with more points", function()
    local slow = select(2, slope(0.5, 1e-6)).nodes
    for _, w in ipairs { 0.5, 2, 20, 100 } do
      local error, info = slope(w, 1e-6)
      -- at w = 100 the sums of one long piece agree by chance, where a is small: no estimate sees everything
      assert.is_true(error < (w == 100 and 5e-5 or 1e-6), ("w = %g: %g"):format(w, error))
      assert.equal(0, info.nodes % 22)
      assert.equal(info.nodes, info.nodes_wanted)
      assert.is_true(w < 20 or info.nodes > slow)
      assert.is_nil(info.warning)
    end
    for _, w in ipairs { 20, 100 } do assert.is_true(slope(w, 1e-9) < 1e-8) end
  end)

  it("joins moments, checkpoints and interpolated trajectories", function()
    local t = {}
    for i = 0, 40 do t[i + 1] = i / 20 end
    local exact = gradients({ gradient = "direct", rtol = 1e-10, atol = 1e-10 }, t)
    for _, adjoint in ipairs { {}, { impulses = "moments" }, { trajectory = "checkpoint", checkpoints = 3 },
      { trajectory = "interpolated" } } do
      local g = gradients({ gradient = "kronrod", rtol = 1e-8, atol = 1e-8, adjoint = adjoint }, t)
      for i = 1, 3 do
        local off = (g[i] - exact[i]):abs():max():item() / exact[i]:abs():max():item()
        assert.is_true(off < 2e-6, ("%d: %g"):format(i, off))
      end
    end
  end)

  -- Steps get short about a jump that the solver is not told of; pieces end where they do.
  it("finds jumps by the steps", function()
    local c, k = 0.3712, 0.7
    local function exact(theta) return 1 / (math.exp(-theta * c) + 3 * theta * (1 - c)) end
    local want = (exact(k + 1e-5) - exact(k - 1e-5)) / 2e-5
    for _, points in ipairs { { c }, {} } do
      local theta = gq.tensor(k, { requires_grad = true, dtype = "float64" })
      local z, info = gq.odeint(function(t, z) return gq.where(t:lt(c), theta * z, -3 * theta * z * z) end,
        gq.ones(1, { dtype = "float64" }), { 0, 1 },
        { gradient = "kronrod", rtol = 1e-8, atol = 1e-8, grid_points = #points > 0 and points or nil })
      z[2]:sum():backward()
      assert.close(theta.grad:item(), want, #points > 0 and 1e-7 or 1e-5)
      assert.is_nil(info.warning)
      assert.is_true(info.nodes <= (#points > 0 and 44 or 22 * 25))
    end
  end)

  it("asks for no more than float32 can give", function()
    local k = gq.tensor(0.7, { requires_grad = true })
    local z, info = gq.odeint(function(_, z) return -k * z end, gq.ones(50, 2), { 0, 1 },
      { gradient = "kronrod", rtol = 1e-12, atol = 1e-12, step_size = 0.1, method = "rk4" })
    z[2]:sum():backward()
    assert.is_true(math.abs(k.grad:item() / (-100 * math.exp(-0.7)) - 1) < 1e-4)
    assert.is_true(info.nodes < 22 * 64)
  end)

  it("has no way without z at any time", function()
    helper.refused("dense", slope, 1, 1e-3, { adjoint = { trajectory = "reverse" } })
    assert.is_false((pcall(slope, 1, 1e-3, { parity = true })))
  end)
end)

describe("gqc", function()
  local f64 = { dtype = "float64" }
  local function leaf(x)
    local t = gq.is_tensor(x) and x or gq.tensor(x, f64)
    t.requires_grad = true
    return t
  end

  local function distance(x, y)
    local num, den = 0, 0
    for i = 1, #x do
      num = num + (x[i]:to("float64") - y[i]):square():sum():item()
      den = den + y[i]:square():sum():item()
    end
    return math.sqrt(num / den)
  end

  -- A network over rows of three numbers with a shift of each row; gradients in the shift, the weights, the start
  -- and the times.
  local function problem(rows, times, dtype)
    gq.manual_seed(7)
    local w, v = gq.randn(3, 16, f64), gq.randn(16, 3, f64) / 2
    local shift, start = gq.randn(rows, 3, f64), gq.randn(rows, 3, f64)
    local list = { w, v, shift, start, gq.tensor(times, f64) }
    for i, x in ipairs(list) do list[i] = leaf(x:to(dtype or "float64"):detach():clone()) end
    local weights = gq.randn(#times, rows, 3, f64):to(dtype or "float64")
    local function f(t, z) return gq.tanh(z:matmul(list[1]) + gq.sin(3 * t)):matmul(list[2]) + list[3] * gq.cos(t) end
    return function(options)
      local z, info = gq.odeint(f, list[4], list[5], options)
      return gq.grad((z * weights):sum(), list), info
    end
  end

  local function grid(n, from, to)
    local t = {}
    for i = 0, n - 1 do t[i + 1] = from + (to - from) * i / (n - 1) end
    return t
  end

  local exact = { gradient = "direct", rtol = 1e-12, atol = 1e-12 }

  it("meets direct at a tight tolerance and falls with the tolerance", function()
    for _, times in ipairs { { 0, 2 }, { 1, 0.4, -0.5 }, { 0, 0, 0.3, 0.3, 1, 1 }, grid(60, 0, 2), grid(60, 1, -1) } do
      for _, rows in ipairs { 1, 5, 43 } do
        local solve, last = problem(rows, times), math.huge
        local want = solve(exact)
        for _, tol in ipairs { 1e-4, 1e-6, 1e-8, 1e-10 } do
          local e = distance(solve { gradient = "gqc", rtol = tol, atol = tol }, want)
          assert.is_true(e < math.max(0.3 * last, 1e-9), ("%g after %g at %g"):format(e, last, tol))
          last = e
        end
        assert.is_true(last < 1e-8, tostring(last))
      end
    end
  end)

  it("in float32 is right to what float32 holds", function()
    for _, rows in ipairs { 3, 40 } do
      local times = grid(25, 0, 2)
      local want = problem(rows, times)(exact)
      local e = distance(problem(rows, times, "float32") { gradient = "gqc", rtol = 1e-6, atol = 1e-6 }, want)
      assert.is_true(e < 2e-5, tostring(e))
    end
  end)

  it("costs the same however many measurement times there are", function()
    local count
    for _, n in ipairs { 2, 10, 400 } do
      gq.manual_seed(3)
      local w, z0 = leaf(gq.randn(2, 2, f64)), gq.randn(20, 2, f64)
      local z, info = gq.odeint(function(_, z) return gq.tanh(z:matmul(w)) end, z0, grid(n, 0, 3), { gradient = "gqc" })
      z:sum():backward()
      assert.equal(4 * info.steps, info.nfe_backward)
      assert.equal(info.nfe_backward, info.nodes)
      assert.equal(info.steps, info.steps_backward)
      assert.equal(count or info.nfe_backward, info.nfe_backward)
      count = info.nfe_backward
    end
  end)

  it("leaves out the steps after the last cotangent", function()
    local z, info = gq.odeint(field, gq.ones(3, 2, f64), { 0, 1, 5 }, { gradient = "gqc", rtol = 1e-8, atol = 1e-8 })
    local g = gq.grad(z[2]:sum(), a):item()
    assert.is_true(info.steps_backward < info.steps / 3)
    assert.near(gq.grad(gq.odeint(field, gq.ones(3, 2, f64), { 0, 1 }, exact)[2]:sum(), a):item(), g, 1e-6)
  end)

  it("has the order of its nodes", function()
    local solve = problem(10, { 0, 1 })
    local want = solve(exact)
    for n = 1, 3 do
      local e = {}
      for i, count in ipairs { 10, 20 } do
        e[i] = distance(solve { gradient = "gqc", method = "dopri8", step_size = 1 / count, gq = { nodes = n } }, want)
      end
      local ratio = e[1] / e[2]
      assert.is_true(ratio > 2 ^ (2 * n - 0.5), ("%d nodes: %g / %g"):format(n, e[1], e[2]))
    end
    for n, limit in pairs { [1] = 1, [4] = 1e-5, [8] = 1e-9, [16] = 1e-9 } do
      local e, info = solve { gradient = "gqc", rtol = 1e-10, atol = 1e-10, gq = { nodes = n } }
      assert.is_true(distance(e, want) < limit)
      assert.equal(n * info.steps, info.nodes)
    end
  end)

  it("takes states of any shape, rows of up to 8 numbers", function()
    local function check(f, shape)
      gq.manual_seed(5)
      local z0, g = leaf(gq.randn(shape, f64)), {}
      local k = leaf(0.6)
      for i, o in ipairs { exact, { gradient = "gqc", rtol = 1e-9, atol = 1e-9 } } do
        local z = gq.odeint(function(t, z) return f(k, t, z) end, z0, { 0, 0.7, 1 }, o)
        g[i] = gq.grad((z * z):sum(), { k, z0 })
      end
      assert.is_true(distance(g[2], g[1]) < 1e-7)
    end
    local function plain(k, t, z) return k * gq.sin(z) + t end
    for _, shape in ipairs { {}, { 5 }, { 70 }, { 30, 8 }, { 3, 2, 2 }, { 20, 2, 3 }, { 40, 2, 2, 2 }, { 1, 8 } } do
      check(plain, shape)
    end
    -- rows run together, which has no form with rows innermost
    local function flat(k, t, z) return (k * gq.sin(z:reshape(z:numel())) * gq.cos(t)):reshape(z.shape) end
    for _, rows in ipairs { 4, 40, 65 } do check(flat, { rows, 3 }) end
    -- few numbers are one row, though the field mixes them
    local function mixed(k, t, z) return k * (z - z:mean()) * gq.sin(t + z:sum()) end
    for _, shape in ipairs { { 3 }, { 4, 2 }, { 8 }, { 2, 2, 2 } } do check(mixed, shape) end
    check(function(k) return (k * gq.ones(20, 3, f64)) end, { 20, 3 })      -- no state in it
  end)

  it("changes rows where a pivot is zero", function()
    -- z' = k N z with N N = 0, and k so that the first pivot of a step of length 1 with 4 nodes vanishes
    local N = gq.tensor({ { 1, 1 }, { -1, -1 } }, f64)
    local _, w = gq.core.gauss_legendre(4)
    local k, z0, c = leaf(4 / w[1]), leaf(gq.randn(20, 2, f64)), gq.randn(20, 2, f64)
    local z = gq.odeint(function(_, z) return k * z:matmul(N:t()) end, z0, { 0, 1 },
      { gradient = "gqc", method = "rk4", step_size = 1 })
    local g = gq.grad((c * z[2]):sum(), { k, z0 })
    assert.is_true(distance(g, { (c * z0:matmul(N:t())):sum():detach(), (c + k * c:matmul(N)):detach() }) < 1e-12)
  end)

  it("says what it cannot do, and what can", function()
    local function refused(f, z0, options, ...)
      z0.requires_grad = true
      options.gradient = "gqc"
      helper.refused({ ... }, gq.odeint, f, z0, { 0, 1 }, options)
      assert.equal(2, #gq.odeint(f, z0:detach(), { 0, 1 }, { gradient = "gqc" }))       -- nothing to differentiate
    end
    local function decay(_, z) return -z end
    refused(decay, gq.randn(20, 9), {}, "at most 8", "{20, 9} have 9", "\"aca\"")
    refused(function(_, z) return z - z:mean({ 1 }, true) end, gq.randn(20, 3), {}, "sum", "mixes rows", "dense")
    refused(function(_, z) return z - z:mean() end, gq.randn(9), {}, "mixes rows", "\"aca\"")
    refused(decay, gq.randn(20, 3), { gq = { nodes = 17 } }, "gq.nodes = 17", "1 to 16")
    refused(decay, gq.randn(20, 3), { parity = true }, "overshoot")
  end)

  it("tells where the adjoint is not finite", function()
    for _, rows in ipairs { 2, 30 } do
      local z = gq.odeint(function(_, z) return gq.sqrt(z) end, leaf(gq.zeros(rows, 2, f64)), { 0, 1 },
        { gradient = "gqc", method = "rk4", step_size = 0.25 })
      helper.refused("not finite before t = 1 (step 0.25)", z.backward, z, gq.ones(2, rows, 2, f64))
    end
  end)

  it("allocates nothing a step", function()
    if not gq.debug then return pending("gq.debug counts allocations in debug and asan builds only") end
    local function allocations(count)
      local n
      for _ = 1, 2 do                       -- programs are compiled the first time
        collectgarbage()                    -- and steps kept by a solve that is done are used again
        local solve = problem(20, { 0, 0.5, 1 })
        local options, before = { gradient = "gqc", method = "rk4", step_size = 1 / count }, gq.debug.alloc_count()
        solve(options)
        n = gq.debug.alloc_count() - before
      end
      return n
    end
    allocations(128)
    local most = allocations(64)
    for _, count in ipairs { 1, 2, 16 } do assert.equal(most, allocations(count)) end
  end)
end)

describe("what a solve keeps", function()
  local f64 = { dtype = "float64" }
  local function setup_problem(rows)
    gq.manual_seed(3)
    local W = (gq.randn(2, 2, f64) * 0.5):detach()
    W.requires_grad = true
    return W, gq.randn(rows, 2, f64), function(t, z) return z:matmul(W):tanh() + t end
  end

  it("is the start as it was, though its tensor is overwritten before a second pass", function()
    for _, engine in ipairs { "aca", "gqc", "kronrod", "gq", "mali", "reversible" } do
      local W, buffer, f = setup_problem(9)
      local method = (engine == "mali" or engine == "reversible") and "alf" or "dopri5"
      local z = gq.odeint(f, buffer, { 0, 1 }, { gradient = engine, method = method, rtol = 1e-5, atol = 1e-5 })
      local loss = (z * z):sum()
      local first = gq.grad(loss, { W })[1]
      for i = 1, 9 do buffer[i] = gq.tensor({ 5, -7 }, f64) end
      assert.close(gq.grad(loss, { W })[1], first, 1e-12)
    end
  end)

  it("is refused by gqc, and by auto passed on, where times have no form side by side", function()
    gq.manual_seed(1)
    local A, B = (gq.randn(2, 300, f64) * 0.1):detach(), gq.randn(300, 2, f64) * 0.1
    A.requires_grad = true
    local z0 = gq.randn(16, 2, f64)
    local function f(t, z) return z:matmul(A * (1 + t)):tanh():matmul(B) end
    local function gradient(engine)
      local z, info = gq.odeint(f, z0, { 0, 1 }, { gradient = engine, rtol = 1e-9, atol = 1e-9 })
      return gq.grad((z * z):sum(), { A })[1], info
    end
    local want = gradient "direct"
    local got, info = gradient "auto"
    assert.equal("direct", info.engine)
    assert.close(got, want, 1e-9)
    local ok, message = pcall(gradient, "gqc")
    if gq.default_device() == "cuda" then return assert.close(message, want, 1e-6) end  -- rows stay rows there
    assert.is_false(ok)
    assert.truthy(message:find("several times at once", 1, true), message)
  end)

  it("is by auto the steps taken where they are fixed", function()
    local _, z0, f = setup_problem(9)
    for _, method in ipairs { "euler", "rk4" } do
      local _, info = gq.odeint(f, z0, { 0, 1, 2 }, { gradient = "auto", method = method })
      assert.equal("direct", info.engine)
    end
    local _, info = gq.odeint(f, z0, { 0, 1 }, { gradient = "auto" })
    assert.equal(gq.default_device() == "cpu" and "gqc" or "direct", info.engine)
    assert.truthy(info.reason)
  end)

  it("is audited with other nodes, however few are in a panel", function()
    local W, z0, f = setup_problem(9)
    for _, quadrature in ipairs { "gauss-legendre", "trapezoid" } do
      local z, info = gq.odeint(f, z0, { 0, 2 }, { gradient = "check", rtol = 1e-9, atol = 1e-9,
        gq = { panels = 8, nodes = 3, quadrature = quadrature } })
      gq.grad((z * z):sum(), { W })
      assert.is_true(info.audit > 1e-9, quadrature)
    end
  end)
end)
