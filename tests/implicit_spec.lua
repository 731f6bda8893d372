-- implicit_spec.lua -- diagonally implicit methods: stability, stiff problems against reference values, gradients
-- against finite differences and against each other, rows on their own, failures. Orders: tableau_spec.lua.

local gq = require "gq"
local helper = require "tests.helper"
local stiff = require "tests.data.stiff"
local refused = helper.refused

local METHODS = { "implicit_euler", "implicit_midpoint", "trapezoid", "kvaerno3", "kvaerno5" }

local function vector(x, grad) return gq.tensor(x, { dtype = "float64", requires_grad = grad }) end

-- y'' = mu (1 - y^2) y' - y
local function van_der_pol(p)
  return function(_, y)
    local a, b = y[1], y[2]
    return gq.stack({ b, p[1] * ((1 - a * a) * b) - a }, 1)
  end
end

local function robertson(p)
  return function(_, y)
    local slow, fast, back = p[1] * y[1], p[2] * y[2] * y[2], p[3] * y[2] * y[3]
    return gq.stack({ back - slow, slow - back - fast, fast }, 1)
  end
end

local PROBLEMS = {
  van_der_pol = { f = van_der_pol, p = { 1000 }, z0 = { 2, 0 } },
  robertson = { f = robertson, p = { 0.04, 3e7, 1e4 }, z0 = { 1, 0, 0 } },
}

local options = helper.with

-- sum of weights times the last state
local function loss(problem, p, z0, t, opts, weights)
  local z, info = gq.odeint(problem.f(p), z0, t, opts)
  return (z[#z] * vector(weights)):sum(), info
end

local function gradients(problem, t, opts, weights)
  local p, z0 = vector(problem.p, true), vector(problem.z0, true)
  local l, info = loss(problem, p, z0, t, opts, weights)
  l:backward()
  return p.grad:totable(), z0.grad:totable(), info
end

-- Central differences in the parameters, relative steps.
local function differences(problem, t, opts, weights, step)
  local g, quiet = {}, options(opts, { gradient = "none" })
  for i = 1, #problem.p do
    local function at(s)
      local p = { table.unpack(problem.p) }
      p[i] = p[i] * (1 + s * step)
      return loss(problem, vector(p), vector(problem.z0), t, quiet, weights):item()
    end
    g[i] = (at(1) - at(-1)) / (2 * step * problem.p[i])
  end
  return g
end

describe("one step of y' = s y is the stability function of", function()
  local function factor(method, s)
    local z = gq.odeint(function(_, y) return s * y end, vector { 1 }, { 0, 1 },
      { method = method, step_size = 1, gradient = "none" })
    return z[2]:item()
  end

  it("the classical methods", function()
    for _, s in ipairs { -0.5, 0.3, -20, -1e6 } do
      assert.close(factor("implicit_euler", s), 1 / (1 - s), 1e-12)
      assert.close(factor("implicit_midpoint", s), (1 + s / 2) / (1 - s / 2), 1e-9)
      assert.close(factor("trapezoid", s), (1 + s / 2) / (1 - s / 2), 1e-9)
    end
  end)

  it("Kvaerno's, which forget what decays fast", function()
    for _, method in ipairs { "kvaerno3", "kvaerno5" } do
      assert.close(factor(method, -0.1), math.exp(-0.1), 1e-5)
      assert.below(math.abs(factor(method, -1e3)), 0.1)
      assert.below(math.abs(factor(method, -1e6)), 1e-4)
      assert.below(math.abs(factor(method, -1e9)), 1e-6)
    end
  end)
end)

describe("stiff problems", function()
  for _, case in ipairs(stiff) do
    local problem = PROBLEMS[case.problem]
    for _, m in ipairs { { "kvaerno5", 1e-8, 1e-6, 1000 }, { "kvaerno3", 1e-6, 5e-5, 3600 } } do
      it(("%s to t = %g by %s are right to %g"):format(case.problem, case.t, m[1], m[3]), function()
        local z, info = gq.odeint(problem.f(vector(problem.p)), vector(problem.z0), { 0, case.t },
          { method = m[1], rtol = m[2], atol = m[2] * 1e-6, gradient = "none" })
        for i = 1, #case.z do assert.close(z[2][i]:item(), case.z[i], m[3]) end
        assert.below(info.steps + info.rejected, m[4] + 500, "steps")
        assert.equal(info.steps, info.jacobians)                    -- none for a step tried again
        assert.truthy(info.nfe >= info.newton and info.newton > info.steps)
      end)
    end
  end

  it("take explicit methods far more steps", function()
    local function steps(method)
      local _, info = gq.odeint(robertson(vector(PROBLEMS.robertson.p)), vector { 1, 0, 0 }, { 0, 10 },
        { method = method, rtol = 1e-4, atol = 1e-10, gradient = "none" })
      return info.steps
    end
    assert.below(20 * steps("kvaerno5"), steps("dopri5"))
  end)
end)

describe("states of any size", function()
  local function solve(method, size, opts)                        -- a forced van der Pol equation in units of `size`
    local z, info = gq.odeint(function(t, y)
      local a, b = y[1] / size, y[2] / size
      return gq.stack({ size * b, size * (2 * ((1 - a * a) * b) - a + gq.sin(t)) }, 1)
    end, vector { 2 * size, 0.5 * size }, { 0, 5 }, options({ method = method, gradient = "none" }, opts))
    return (z[2] / size):totable(), info
  end
  for _, method in ipairs(METHODS) do
    it("are solved alike by " .. method, function()
      for _, fixed in ipairs { true, false } do
        local function opts(size) return fixed and { step_size = 0.05 } or { rtol = 1e-4, atol = 1e-4 * size } end
        if fixed or method ~= "implicit_midpoint" then
          local want, info = solve(method, 1, opts(1))
          for _, size in ipairs { 2 ^ -27, 2 ^ 27, 2 ^ -60, 2 ^ 60 } do
            local z, scaled = solve(method, size, opts(size))
            assert.same(want, z)
            assert.equal(info.newton, scaled.newton)
          end
        end
      end
    end)
  end
end)

describe("stages of fixed steps", function()
  it("are solved to rounding, all of them: results are as smooth as the dynamics", function()
    local function f(t, z) return gq.stack({ 0.7 * gq.sin(z[2]) - 0.4 * z[1], gq.tanh(t) + 0.2 * z[2] }, 1) end
    local function solve(method, x)
      local o = { method = method, step_size = 0.1, gradient = "none" }
      return gq.odeint(f, gq.tensor({ 0.3, x }, { dtype = "float64" }), { -0.3, 0.1 }, o)[2]:sum():item()
    end
    for _, method in ipairs { "kvaerno3", "kvaerno5" } do
      local worst = 0
      for k = 0, 400 do
        local x = 1.16 + k * 1e-4
        worst = math.max(worst, math.abs(solve(method, x - 1e-6) - 2 * solve(method, x) + solve(method, x + 1e-6)))
      end
      assert.below(worst, 1e-12, method)
    end
  end)
end)

describe("gradients", function()
  local fixed = {                                  -- stages solved to rounding: differences are sharp
    { PROBLEMS.robertson, { 0, 0.03, 0.1 }, 0.004, { 1, 1e4, 1 } },
    { { f = van_der_pol, p = { 50 }, z0 = { 2, -0.6 } }, { 0, 0.2, 0.7, 1 }, 0.1, { 1, 30 } },
  }
  for _, method in ipairs(METHODS) do
    it("of fixed steps of " .. method .. " are those of finite differences", function()
      for _, c in ipairs(fixed) do
        local opts = { method = method, step_size = c[3], gradient = "direct" }
        local p = gradients(c[1], c[2], opts, c[4])
        assert.close(p, differences(c[1], c[2], opts, c[4], 1e-5), 2e-6)
        local again, z0 = gradients(c[1], c[2], options(opts, { gradient = "aca" }), c[4])
        assert.close(again, p, 1e-9)
        assert.equal(#c[1].z0, #z0)
      end
    end)

    it("of times, start and parameters by " .. method .. " at inner times", function()
      local times, h = { 0.1, 0.4, 0.93, 1.5 }, 1 / 16
      local function value(t, k, z0, gradient)
        local z = gq.odeint(function(s, y)
          return gq.stack({ y[2], k * ((1 - y[1] * y[1]) * y[2]) - y[1] + gq.sin(s) }, 1)
        end, z0, t, { method = method, step_size = h, gradient = gradient })
        return z[2][1] * z[3][2] + z[4]:pow(2):sum()
      end
      local function numbers(t, k, z0) return value(vector(t), vector(k), vector(z0), "none"):item() end
      local t, k, z0 = vector(times, true), vector(3, true), vector({ 2, 0.3 }, true)
      value(t, k, z0, "direct"):backward()
      local e = 1e-6
      local by_k = (numbers(times, 3 + e, { 2, 0.3 }) - numbers(times, 3 - e, { 2, 0.3 })) / (2 * e)
      assert.close(k.grad:item(), by_k, 1e-7)
      assert.close(z0.grad[2]:item(), (numbers(times, 3, { 2, 0.3 + e }) - numbers(times, 3, { 2, 0.3 - e })) / (2 * e),
        1e-7)
      for i = 1, 4 do                               -- the grid hangs on t[1]
        local function at(s)
          local u = { table.unpack(times) }
          u[i] = u[i] + s * e
          return numbers(u, 3, { 2, 0.3 })
        end
        assert.close(t.grad[i]:item(), (at(1) - at(-1)) / (2 * e), 1e-6, 1e-8)
      end
    end)
  end

  it("where a stage beyond a first time that is given twice reads an interpolated state", function()
    local z0 = vector({ 0.7 }, true)
    for _, t in ipairs { { -0.5, -0.5, 0.1, 1 }, { -0.5, -0.5, -0.5, 1 } } do
      gq.odeint(function(s, y) return gq.tanh(y) - 0.5 * y + gq.sin(s) end, z0, t,
        { method = "kvaerno5", gradient = "interpolated", rtol = 1e-7, atol = 1e-7 })[#t]:sum():backward()
      local got = z0.grad:item()
      z0.grad = nil
      gq.odeint(function(s, y) return gq.tanh(y) - 0.5 * y + gq.sin(s) end, z0, t,
        { method = "dopri8", gradient = "direct", rtol = 1e-9, atol = 1e-9 })[#t]:sum():backward()
      assert.close(got, z0.grad:item(), 1e-5)
      z0.grad = nil
    end
  end)

  it("of times keep their digits where the last step is all rounding", function()
    for _, method in ipairs(METHODS) do                   -- 0.2 in float32 is 3e-9 beyond four steps of 0.05
      for _, gradient in ipairs { "direct", "aca" } do
        local t = gq.tensor({ 0, 0.2 }, { requires_grad = true })
        local z = gq.odeint(function(s, y) return -2 * y + gq.sin(3 * s) end, gq.tensor { 0.7 }, t,
          { method = method, step_size = 0.05, gradient = gradient })
        z[2]:sum():backward()
        local last = gq.tensor(0.2)
        local slope = -2 * z[2][1]:item() + gq.sin(3 * last):item()
        assert.close(t.grad[2]:item(), slope, 1e-5)
      end
    end
  end)

  for _, c in ipairs {
    { "van der Pol, mu = 1000, to t = 700", PROBLEMS.van_der_pol, 700, { 1, 1 }, 1e-5 },
    { "Robertson to t = 40", PROBLEMS.robertson, 40, { 1, 1e5, 1 }, 1e-5 },
    { "Robertson to t = 1e4", PROBLEMS.robertson, 1e4, { 1, 1e6, 1 }, 1e-5 },
  } do
    it("of " .. c[1], function()
      local opts = { method = "kvaerno5", rtol = 1e-9, atol = 1e-13, gradient = "direct" }
      local want = differences(c[2], { 0, c[3] }, opts, c[4], 1e-4)
      local direct, z0 = gradients(c[2], { 0, c[3] }, opts, c[4])
      assert.close(direct, want, c[5])
      for _, engine in ipairs { "aca", "gq", "kronrod", "seminorm", "adjoint", "gqc" } do
        local p, start, info = gradients(c[2], { 0, c[3] }, options(opts, { gradient = engine }), c[4])
        assert.close(p, want, engine == "aca" and c[5] or 1e-4)
        assert.close(start, z0, 1e-4)
        assert.below(info.steps_backward, 4 * info.steps, engine)
      end
    end)
  end

  local moderate = { f = van_der_pol, p = { 30 }, z0 = { 2, -0.6 } }
  for _, method in ipairs { "trapezoid", "kvaerno3", "kvaerno5" } do
    it("of a moderately stiff problem by every engine and " .. method, function()
      local t, weights = { 0, 0.5, 2, 3 }, { 1, 3 }
      local tight = { method = "kvaerno5", rtol = 1e-10, atol = 1e-10, gradient = "direct" }
      local want, start = gradients(moderate, t, tight, weights)
      local tol = method == "trapezoid" and 1e-6 or 1e-8
      for _, engine in ipairs { "direct", "aca", "gq", "check", "kronrod", "seminorm", "adjoint", "interpolated", "gqc",
        "auto" } do
        local opts = { method = method, rtol = tol, atol = tol, gradient = engine }
        if engine == "interpolated" then opts.adjoint = { points = 64 } end
        local p, z0 = gradients(moderate, t, opts, weights)
        assert.close(p, want, 1000 * tol)
        assert.close(z0, start, 1000 * tol)
      end
    end)
  end

  -- The layer at the start, 1e-3 long, is between the points of any rule over the whole interval.
  it("of initial layers by adaptive quadrature, along kept steps and checkpoints", function()
    local opts = { method = "kvaerno5", rtol = 1e-7, atol = 1e-11, gradient = "direct" }
    for _, c in ipairs { { 40, { 1, 1e5, 1 } }, { 1e4, { 1, 1e6, 1 } } } do
      local want = gradients(PROBLEMS.robertson, { 0, c[1] }, opts, c[2])
      for _, trajectory in ipairs { "dense", "checkpoint" } do
        local p, _, info = gradients(PROBLEMS.robertson, { 0, c[1] },
          options(opts, { gradient = "kronrod", adjoint = { trajectory = trajectory } }), c[2])
        assert.close(p, want, 1e-3)
        assert.is_nil(info.warning)
        assert.below(info.nodes, 16 * info.steps, trajectory)
      end
    end
  end)

  it("along every trajectory, with moments, and with another method on the way back", function()
    local soft = { f = van_der_pol, p = { 3 }, z0 = { 2, 0.3 } }
    local t, weights, base = { 0, 0.1, 0.2, 0.3, 0.4, 1 }, { 1, 3 }, { method = "kvaerno5", rtol = 1e-8, atol = 1e-8 }
    local want, start = gradients(soft, t, options(base, { gradient = "direct" }), weights)
    for _, adjoint in ipairs { { trajectory = "reverse" }, { trajectory = "checkpoint", checkpoints = 3 },
      { trajectory = "interpolated" }, { impulses = "moments" }, { method = "dopri5" }, { method = "trapezoid" } } do
      local p, z0, info = gradients(soft, t, options(base, { gradient = "gq", adjoint = adjoint }), weights)
      assert.close(p, want, 1e-5)
      assert.close(z0, start, 1e-5)
      assert.below(info.reconstruction, adjoint.trajectory == "reverse" and 200 or 1)
    end
    local explicit = options(base, { method = "dopri5", gradient = "seminorm", adjoint = { method = "kvaerno5" } })
    local p, _, info = gradients(soft, t, explicit, weights)
    assert.close(p, want, 1e-5)
    assert.is_nil(info.jacobians)                                   -- the way there is explicit
  end)

  it("see a decay that the adjoint's own steps would cross", function()
    for _, method in ipairs { "kvaerno3", "kvaerno5" } do
      local F = gq.tensor(1, { dtype = "float64", requires_grad = true })
      local z = gq.odeint(function(_, y)
        local a, c = y:narrow(1, 1, 1), y:narrow(1, 2, 1)
        return gq.cat({ -1e3 * a, F * 1e3 * a - 0.1 * c }, 1)
      end, vector { 1, 0 }, { 0, 10 }, { method = method, gradient = "seminorm" })
      z[2][2]:backward()
      assert.close(F.grad:item(), 1e3 / (1e3 - 0.1) * (math.exp(-1) - math.exp(-1e4)), 1e-4)
    end
  end)

  it("go along the kept solution by default, where a reverse solve explodes", function()
    local t, opts = { 0, 5 }, { method = "kvaerno5", rtol = 1e-7, atol = 1e-7 }
    local function field(p) return function(s, y) return -p[1] * (y - gq.cos(s)) end end
    local decay = { f = field, p = { 1e4 }, z0 = { 2 } }
    local p, z0, info = gradients(decay, t, opts, { 1 })
    assert.equal(0, info.reconstruction)
    assert.close(p, differences(decay, t, opts, { 1 }, 1e-3), 1e-2, 1e-12)
    assert.below(math.abs(z0[1]), 1e-9)
  end)
end)

describe("rows", function()
  local function field(k)
    return function(s, y)
      local a, b = y:narrow(2, 1, 1), y:narrow(2, 2, 1)
      return gq.cat({ b, k * ((1 - a * a) * b) - a + gq.sin(s) }, 2)
    end
  end
  local function rows(n)
    local z = {}
    for i = 1, n do z[i] = { 2 - 0.1 * i, 0.3 + 0.05 * i } end
    return z
  end
  local function solve(z0, opts)
    local k, start = vector(5, true), vector(z0, true)
    local z = gq.odeint(field(k), start, { 0, 0.4, 1 }, opts)
    z:pow(2):sum():backward()
    return z:detach(), start.grad, k.grad:item()
  end

  it("are solved as if they were alone", function()
    for _, method in ipairs(METHODS) do
      local opts, all = { method = method, step_size = 0.1, gradient = "direct" }, rows(37)
      local z, g, sum = solve(all, opts)
      local total = 0
      for i, row in ipairs(all) do
        local z1, g1, k1 = solve({ row }, opts)
        for k = 2, 3 do assert.close(z1[k][1], z[k][i], 1e-13, 1e-14) end
        assert.close(g1[1], g[i], 1e-12, 1e-13)
        total = total + k1
      end
      assert.close(sum, total, 1e-12)
    end
  end)

  it("are dealt to threads", function()
    local threads = gq.threads()
    finally(function() gq.set_threads(threads) end)
    for _, engine in ipairs { "direct", "seminorm" } do
      local opts = { method = "kvaerno5", rtol = 1e-7, atol = 1e-7, gradient = engine }
      gq.set_threads(1)
      local z, g, k = solve(rows(37), opts)
      gq.set_threads(2)
      local z2, g2, k2 = solve(rows(37), opts)
      assert.close(z2, z, 1e-10, 1e-12)
      assert.close(g2, g, 1e-9, 1e-11)
      assert.close(k2, k, 1e-9)
    end
  end)

  it("that act on each other are one system", function()
    local w = vector { { 0, 1, 0 }, { 0, 0, 1 }, { 1, 0, 0 } }
    local function coupled(_, y) return -200 * (y - w:matmul(y)) - y end
    local z0 = vector { { 1, 2 }, { 0.5, -1 }, { 3, 0 } }
    local z, info = gq.odeint(coupled, z0, { 0, 1 },
      { method = "kvaerno5", rtol = 1e-8, atol = 1e-10, gradient = "none" })
    local mean = { 4.5 / 3 * math.exp(-1), 1 / 3 * math.exp(-1) }   -- the rest decays with exp(-300 t)
    assert.close(z[2], { mean, mean, mean }, 1e-6)
    assert.below(info.steps, 150)
  end)

  it("give float32 what float64 gives, to its tolerance", function()
    local z64 = gq.odeint(field(vector(5)), vector(rows(20)), { 0, 1 },
      { method = "kvaerno5", rtol = 1e-9, atol = 1e-9, gradient = "none" })
    for _, method in ipairs { "trapezoid", "kvaerno3", "kvaerno5" } do
      local z = gq.odeint(field(gq.tensor(5)), gq.tensor(rows(20)), { 0, 1 },
        { method = method, rtol = 1e-4, atol = 1e-4, gradient = "none" })
      assert.below(helper.relative(z[2], z64[2]), 2e-3)
    end
    local z = gq.odeint(field(gq.tensor(5)), gq.tensor(rows(20)), { 0, 1 },
      { method = "kvaerno5", step_size = 0.02, gradient = "none" })
    assert.below(helper.relative(z[2], z64[2]), 1e-5)
  end)
end)

describe("what other methods do, implicit ones do:", function()
  local function decay(_, y) return -0.7 * y end

  it("times that decrease, repeat and lie inside of steps; a function of time", function()
    for _, method in ipairs { "kvaerno3", "kvaerno5", "trapezoid", "implicit_midpoint" } do
      local opts = { method = method, rtol = 1e-8, atol = 1e-8, gradient = "none", dense = true }
      if method == "implicit_midpoint" then opts.step_size = 1e-3 end
      local z, _, at = gq.odeint(decay, vector { 1 }, { 2, 2, 1.3, 0.31, 0 }, opts)
      for i, t in ipairs { 2, 2, 1.3, 0.31, 0 } do assert.close(z[i][1]:item(), math.exp(0.7 * (2 - t)), 1e-6) end
      assert.close(at(0.77):item(), math.exp(0.7 * 1.23), 1e-6)
    end
  end)

  it("events and their derivatives", function()
    for _, method in ipairs { "kvaerno3", "kvaerno5", "trapezoid" } do
      local k = vector(0.7, true)
      local _, _, t = gq.odeint(function(_, y) return -k * y end, vector { 1 }, { 0, 5 },
        { method = method, gradient = "direct", rtol = 1e-8, atol = 1e-8,
          event = function(_, y) return y[1] - 0.5 end })
      assert.close(t:item(), math.log(2) / 0.7, 1e-6)
      assert.close(gq.grad(t, k):item(), -math.log(2) / 0.49, 1e-5)
    end
  end)

  it("grid points, but for stages outside of a step", function()
    local function jump(k) return function(s, y) return gq.where(s:lt(0.4), -k * y, -50 * k * y) end end
    for _, engine in ipairs { "direct", "aca", "gq" } do
      local k = vector(0.7, true)
      local z, info = gq.odeint(jump(k), vector { 1 }, { 0, 0.5 },
        { method = "kvaerno3", gradient = engine, rtol = 1e-8, atol = 1e-10, grid_points = { 0.4 } })
      z[2]:sum():backward()
      assert.close(z[2]:item(), math.exp(-0.7 * 5.4), 1e-6)
      assert.close(k.grad:item(), -5.4 * math.exp(-0.7 * 5.4), 1e-5)
      assert.below(info.rejected, 20)
    end
    local message = helper.message(gq.odeint, jump(0.7), vector { 1 }, { 0, 0.5 },
      { method = "kvaerno5", grid_points = { 0.4 } })
    assert.truthy(message:find("beyond the end of a step", 1, true) and message:find("kvaerno3", 1, true), message)
    message = helper.message(gq.odeint, jump(vector(0.7, true)), vector { 1 }, { 0, 0.5 },
      { adjoint = { method = "kvaerno5" }, grid_points = { 0.4 } })
    assert.truthy(message:find("adjoint.method = \"kvaerno5\"", 1, true), message)
  end)
end)

describe("failures", function()
  local function cliff(size)
    return function(_, y)
      local one = gq.ones(1, { dtype = "float64" })
      return gq.where(y:lt(0.5), size * one, -size * one)
    end
  end

  it("of Newton's method on a fixed grid are told with time and step", function()
    for _, method in ipairs { "implicit_euler", "trapezoid" } do
      local opts = { method = method, step_size = 0.1, gradient = "none" }
      helper.refused({ "did not converge after t = 0 (step 0.1)", "step_size" },
        gq.odeint, cliff(1e6), vector { 0.2 }, { 0, 1 }, opts)
      local z, info = gq.odeint(cliff(1e6), vector { 0.2 }, { 0, 1 }, options(opts, { throw = false }))
      assert.equal("no_convergence", info.status)
      assert.equal(0, info.t)
      assert.equal(0.2, z[1][1]:item())
      assert.not_equal(z[2][1]:item(), z[2][1]:item())            -- NaN: not reached
    end
  end)

  it("of matrices that are singular are Newton's method's", function()
    local message = helper.message(gq.odeint, function(_, y) return y + 0 end, vector { 1 }, { 0, 1 },
      { method = "implicit_euler", step_size = 1, gradient = "none" })            -- y1 = 1 + y1
    assert.truthy(message:find("did not converge after t = 0 (step 1)", 1, true), message)
  end)

  it("of Newton's method in adaptive steps shorten these, to an end", function()
    local _, info = gq.odeint(cliff(1e30), vector { 0.2 }, { 0, 1 },
      { method = "kvaerno3", first_step = 1, gradient = "none", throw = false })
    assert.equal("no_convergence", info.status)
    assert.equal(0, info.steps)
    assert.truthy(info.rejected >= 40)
    assert.truthy(info.message:find("kvaerno3 did not converge", 1, true), info.message)
  end)

  it("of the dynamics are not taken for those of Newton's method", function()
    for _, method in ipairs(METHODS) do
      local _, info = gq.odeint(function(_, y) return gq.log(y) - 1 end, vector { 0.5 }, { 0, 1 },
        { method = method, step_size = method == "implicit_midpoint" and 0.4 or nil, gradient = "none", throw = false })
      assert.truthy(info.status == "non_finite" or info.status == "step_underflow" or info.status == "no_convergence",
        method .. ": " .. info.status)
      assert.below(info.t, 0.5)
    end
    helper.refused("component 2", gq.odeint, function(_, y) return gq.stack({ y[1], gq.log(y[2]) }, 1) end,
      vector { 1, -1 }, { 0, 1 }, { method = "implicit_midpoint", step_size = 0.5, gradient = "none" })
    local _, info = gq.odeint(function(_, y) return y * y end, vector { 1 }, { 0, 2 },
      { method = "kvaerno3", gradient = "none", throw = false })
    assert.truthy(info.status == "step_underflow" or info.status == "non_finite", info.status)
    assert.close(info.t, 1, 1e-2)
  end)

  it("have second and third derivatives, by times too", function()
    for _, method in ipairs { "implicit_euler", "implicit_midpoint", "trapezoid", "kvaerno3", "kvaerno5" } do
      local p = { vector({ 0.4, 0.7 }, true), vector({ 1, 0.5, 0.2, 0.3 }, true) }
      if method ~= "kvaerno5" then p[3] = vector({ 0.02, 0.27, 0.45 }, true) end     -- its steps hang on the last
      local function states(q, engine)
        local function f(t, z) return gq.tanh(z:flip(2)) * (1 + t) - q[1] * z * z end
        return (gq.odeint(f, q[2]:reshape(2, 2), q[3] or { 0, 0.5 }, { method = method, gradient = engine,
          step_size = 0.1 }))
      end
      if gq.default_device() == "cpu" then helper.again(p, states)
      else
        helper.refused("at most 64 numbers on the CPU", gq.grad, states(p, "direct"):sum(), p, { create_graph = true })
      end
    end
  end)

  it("are refused where something cannot be done, with what can", function()
    local z0 = vector({ 1 }, true)
    local wide = vector(gq.ones(65):totable(), true)
    local z = gq.odeint(function(_, y) return -y * y:sum() end, wide, { 0, 1 },
      { method = "kvaerno5", gradient = "direct" })
    refused("at most 64 numbers on the CPU, here 65 on " .. gq.default_device() .. ": use an explicit", gq.grad,
      z:sum(), wide, { create_graph = true })
    for _, engine in ipairs { "mali", "reversible" } do
      refused("cannot be inverted", gq.odeint, function(_, y) return -y end, z0, { 0, 1 },
        { method = "kvaerno5", gradient = engine })
    end
    refused("linear systems of 3000000 numbers", gq.odeint, function(_, y) return y:sum() - y end, gq.ones(3000000),
      { 0, 1 }, { method = "kvaerno3", gradient = "none" })
    refused('did you mean "kvaerno', gq.odeint, function(_, y) return -y end, z0, { 0, 1 }, { method = "kvaerno" })
  end)

  it("leave nothing behind: a second solve is as the first", function()
    local function solve()
      local z, info = gq.odeint(robertson(vector(PROBLEMS.robertson.p)), vector { 1, 0, 0 }, { 0, 40 },
        { method = "kvaerno5", rtol = 1e-6, atol = 1e-10, gradient = "none" })
      return z:totable(), info.nfe
    end
    local z, nfe = solve()
    gq.odeint(cliff(1e30), vector { 0.2 }, { 0, 1 },
      { method = "kvaerno5", first_step = 1, gradient = "none", throw = false })
    local again, count = solve()
    assert.same(z, again)
    assert.equal(nfe, count)
  end)
end)
