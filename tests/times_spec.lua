-- times_spec.lua -- when f is evaluated, and what moving a time does: spans of no length, jumps at times, large times.

local gq = require "gq"
local helper = require "tests.helper"

-- Every engine, with a method it goes with; rows: with batch = "independent" too.
local engines = {
  { "gq", rows = true }, { "check", rows = true }, { "direct", rows = true }, { "aca", rows = true }, { "adjoint" },
  { "seminorm" }, { "interpolated" }, { "gqc" }, { "kronrod" }, { "auto" }, { "mali", method = "alf" },
  { "reversible", method = "reversible_heun" }, { "direct", method = "kvaerno3" },
  { "gq", method = "explicit_adams" },
}

-- f(name, options): for every engine, and every batch mode that it knows.
local function each(options, f)
  for _, e in ipairs(engines) do
    for _, batch in ipairs { "joint", e.rows and "independent" } do
      local o = { gradient = e[1], method = e.method, batch = batch }
      for key, value in pairs(options) do o[key] = value end
      f(("%s, %s, %s"):format(e[1], e.method or "dopri5", batch), o)
    end
  end
end

describe("the gradient of times where no time passes", function()
  -- z_k = z(t_k): moving t_k moves it along f, moving the first time moves all others the other way
  local weight = { 1, 10, 100, 1000 }
  local function slope(t) return 3 * t ^ 2 end

  for dtype, times in helper.each({ "float32", "float64" },
      { { 2, 2 }, { 2, 2, 2 }, { 2, 2, 3, 3 }, { 3, 3, 2, 2 } }) do
    each({ rtol = 1e-5, atol = 1e-5 }, function(name, o)
      it(("%s, %s, {%s}"):format(name, dtype, table.concat(times, ", ")), function()
        local t = gq.tensor(times, { requires_grad = true, dtype = dtype })
        local k = gq.full({ 3, 1 }, 3.0, { requires_grad = true, dtype = dtype })
        local z = gq.odeint(function(x, y) return k * x * x + 0 * y end, gq.zeros(3, 1, { dtype = dtype }), t, o)
        local w = gq.tensor(weight, { dtype = dtype }):narrow(1, 1, #times):reshape(#times, 1, 1)
        local want = { 0 }
        for i = 2, #times do
          want[i] = 3 * weight[i] * slope(times[i])
          want[1] = want[1] - 3 * weight[i] * slope(times[1])
        end
        assert.close(gq.grad((z * w):sum(), { t })[1], want, 1e-3)
      end)
    end)
  end

  it("of several tensors, and can be differentiated again", function()
    local t = gq.tensor({ 2, 2 }, { requires_grad = true, dtype = "float64" })
    local a = gq.tensor(5, { requires_grad = true, dtype = "float64" })
    local one = gq.ones(1, { dtype = "float64" })
    local function field(x, y) return { a * x * y[1], y[1] - y[2] } end
    local z = gq.odeint(field, { one, 0 * one }, t)
    assert.close(gq.grad((z[1][2] + 10 * z[2][2]):sum(), { t })[1], { -20, 20 }, 1e-12)
    z = gq.odeint(function(x, y) return a * x * y end, one, t, { gradient = "direct" })
    local g = gq.grad(z[2]:sum(), { t }, { create_graph = true })[1]
    assert.close(g, { -10, 10 }, 1e-12)
    assert.close(gq.grad(g[2], { a })[1], 2, 1e-12)
  end)

  it("by dynamics that are called back, and an error where they are not finite", function()
    local t = gq.tensor({ 0, 0 }, { requires_grad = true, dtype = "float64" })
    local z = gq.odeint(function(_, y) return 0 * y + 2 end, gq.zeros(1, { dtype = "float64" }), t,
      { trace = false, params = {} })
    assert.close(gq.grad(z[2]:sum(), { t })[1], { -2, 2 })
    z = gq.odeint(function(x, y) return y / x end, gq.ones(1, { dtype = "float64" }), t)
    assert.has_error(function() gq.grad(z[2]:sum(), { t }) end)
  end)
end)

-- ---- jumps ----

-- f is a * 2 before time 1 and a * 6 after it, z(t) the integral.
local function steps(a, at)
  return function(t, z) return a * gq.where(t:lt(at or 1), 0 * z + 2, 0 * z + 6) end
end

-- Those that take grid points; batch = "independent" does not.
local function each_joint(options, f)
  each(options, function(name, o)
    if o.batch == "joint" and o.method ~= "kvaerno5" then f(name, o) end
  end)
end

-- y' = -y cos t, so that y(T) = exp(-sin T).
describe("a table of times", function()
  local f64 = { dtype = "float64" }
  local function decay(_, z) return -2 * z end

  it("may hold tensors of one number, whose gradients it carries", function()
    local z0 = gq.ones(3, f64)
    local T = gq.tensor(0.75, { dtype = "float64", requires_grad = true })
    local several = { { gradient = "direct" }, { gradient = "gq" }, { method = "kvaerno5" }, { grid_points = { 0.5 } } }
    for _, o in ipairs(several) do
      o.rtol, o.atol = 1e-9, 1e-9
      local z = gq.odeint(decay, z0, { 0, gq.tensor { 0.25 }, T * 1 }, o)
      assert.close(z[2], z0 * math.exp(-0.5), 1e-7)
      assert.close(gq.grad(z[3]:sum(), T), -6 * math.exp(-1.5), 1e-6)
    end
    local t = gq.linspace(0, 1, 5)
    local want = gq.odeint(decay, z0, { 1, 0 })
    assert.close(gq.odeint(decay, z0, { t[-1], t[1] }), want, 0, 0)
    assert.close(gq.odeint(decay, z0, { t[-1], gq.tensor(0, { dtype = "int64" }) }), want, 0, 0)
    local function both(_, z) return { -2 * z[1], -2 * z[2] } end
    assert.close(gq.odeint(both, { z0, z0 }, { t[-1], 0 })[2], want, 1e-6)
    local sde = gq.sde { drift = decay, diffusion = function(_, z) return z end, noise = "diagonal" }
    assert.close(gq.sdeint(sde, z0, { t[1], t[-1] }, { dt = 0.1, seed = 1 }),
      gq.sdeint(sde, z0, { 0, 1 }, { dt = 0.1, seed = 1 }), 0, 0)
  end)
end)

describe("second derivatives in times", function()
  local function y2(t) return math.exp(-math.sin(t)) * (math.cos(t) ^ 2 + math.sin(t)) end
  local adaptive, grid = { rtol = 1e-8, atol = 1e-10 }, { step_size = 0.05 }
  for name, case in pairs {
    ["by stages behind the last time, kvaerno5"] = { "kvaerno5", adaptive, 1e-4 },
    ["dopri5"] = { "dopri5", adaptive, 1e-4 },
    ["at times on a fixed grid, rk4"] = { "rk4", grid, 1e-5 },
    ["at times on a fixed grid, kvaerno5"] = { "kvaerno5", grid, 1e-7 },
    ["at times on a fixed grid, implicit_midpoint"] = { "implicit_midpoint", grid, 1e-2 },
  } do
    it(name, function()
      for gradient, sign in helper.each({ "direct", "aca" }, { 1, -1 }) do
        local o = { method = case[1], gradient = gradient }
        for key, value in pairs(case[2]) do o[key] = value end
        local t = gq.tensor({ 0, 0.5 * sign, 1.2 * sign }, { dtype = "float64", requires_grad = true })
        local z = gq.odeint(function(at, y) return -y * at:cos() end, gq.ones(1, { dtype = "float64" }), t, o)
        local first = gq.grad((z[2] + z[3]):sum(), { t }, { create_graph = true })[1]
        local function second(k) return gq.grad(first[k], { t }, { create_graph = true })[1] end
        assert.close(second(2)[2], y2(0.5 * sign), case[3])
        assert.close(second(3)[3], y2(1.2 * sign), case[3])
        assert.close(second(3)[2], 0, 1e-12)
      end
    end)
  end
end)

describe("the gradient of the last time", function()
  for _, gradient in ipairs { "direct", "aca" } do
    it("is the slope there, whose stages kvaerno5 has behind it, " .. gradient, function()
      for _, how in ipairs { { step_size = 0.1 }, { rtol = 1e-10, atol = 1e-10 } } do
        local o = { method = "kvaerno5", gradient = gradient }
        for key, value in pairs(how) do o[key] = value end
        for _, sign in ipairs { 1, -1 } do
          local t = gq.tensor({ 0, 1.2 * sign }, { dtype = "float64", requires_grad = true })
          local z = gq.odeint(function(at, y) return -y * at:cos() end, gq.ones(1, { dtype = "float64" }), t, o)
          assert.close(gq.grad(z[2]:sum(), t)[2], -z[2][1]:item() * math.cos(1.2), 1e-13)
        end
      end
    end)
  end
end)

describe("the gradient of a measurement time at which f jumps", function()
  for _, dtype in ipairs { "float32", "float64" } do
    each_joint({}, function(name, o)
      it(("is that of the side it is reached from, of the first time the other, %s, %s"):format(name, dtype), function()
        for _, case in ipairs {               -- times, dL/dt for L = z_2 + 10 z_3 (+ 100 z_4)
          { { 0.2, 1, 1.7 }, { -22, 2, 60 } }, { { 1.7, 1, 0.2 }, { -66, 6, 20 } }, { { 1, 1.5, 1.7 }, { -66, 6, 60 } },
          { { 0.2, 0.5, 1 }, { -22, 2, 20 } }, { { 0.2, 1, 1, 1.7 }, { -222, 2, 20, 600 } },
          { { 1, 1, 1.7 }, { -66, 6, 60 } },
        } do
          local t = gq.tensor(case[1], { requires_grad = true, dtype = dtype })
          local a = gq.ones(1, { dtype = dtype, requires_grad = true })
          o.grid_points = { 1 }
          local z = gq.odeint(steps(a), gq.zeros(1, { dtype = dtype }), t, o)
          local loss = 0
          for k = 2, #case[1] do loss = loss + 10 ^ (k - 2) * z[k]:sum() end
          assert.close(gq.grad(loss, t), case[2], 1e-4, 1e-4)
        end
      end)
    end)
  end
end)

describe("the gradient of a grid point", function()
  for _, dtype in ipairs { "float32", "float64" } do
    each_joint({ rtol = 1e-6, atol = 1e-6 }, function(name, o)
      it(("is what the jump that moves with it leaves to either side, %s, %s"):format(name, dtype), function()
        local f = { dtype = dtype }
        local function leaf(x) return gq.tensor(x, { dtype = dtype, requires_grad = true }) end
        -- z' = -z + (t < s_1) + 3 (t > s_2): z(T) = .. e^(s_1 - T) .. - 3 e^(s_2 - T)
        local s = leaf { 1.25, 0.5 }
        local function field(t, z)
          return gq.where(t:lt(s[2]), 0 * z + 1, 0 * z) + gq.where(t:lt(s[1]), 0 * z, 0 * z + 3) - z
        end
        o.grid_points = s
        local z = gq.odeint(field, gq.ones(2, f), { 0, 1.25, 2 }, o)
        local g = gq.grad({ z[3]:sum() + 10 * z[2]:sum() }, { s })[1]
        assert.close(g, { -2 * 3 * math.exp(-0.75), 2 * (math.exp(-1.5) + 10 * math.exp(-0.75)) }, 1e-3)
        z = gq.odeint(field, gq.ones(2, f), { 2, 0 }, o)             -- against time
        g = gq.grad(z[2]:sum(), s)
        assert.close(g, { 2 * 3 * math.exp(1.25), -2 * math.exp(0.5) }, 1e-3)
      end)
    end)
  end

  it("and that of a time it coincides with are two", function()
    local s = gq.tensor({ 1 }, { dtype = "float64", requires_grad = true })
    local t = gq.tensor({ 0.2, 1, 1.7 }, { dtype = "float64", requires_grad = true })
    for _, gradient in ipairs { "gq", "direct", "adjoint", "gqc" } do
      local z = gq.odeint(steps(1, s[1]), gq.zeros(1, { dtype = "float64" }), t,
        { grid_points = s, gradient = gradient })
      local g = gq.grad({ z[2]:sum() + 10 * z[3]:sum() }, { t, s })
      assert.close(g[1], { -22, 2, 60 }, 1e-6)
      assert.close(g[2], { -40 }, 1e-6)
    end
  end)
end)

-- ---- where f is evaluated ----

-- Lowest and highest time at which `solve(f)` evaluates f(t, z), and what it returns.
local function span(f, solve)
  local low, high = math.huge, -math.huge
  local result = solve(function(t, z)
    low, high = math.min(low, t:item()), math.max(high, t:item())
    return f(t, z)
  end)
  return low, high, result
end

local function single(x) return gq.tensor(x, { dtype = "float32" }):item() end

describe("f is evaluated inside of the times alone", function()
  local function decay(t, z) return -0.1 * z + 0 * t end
  local methods = { "dopri5", "tsit5", "dopri8", "bosh3", "kvaerno5", "kvaerno3", "explicit_adams", "implicit_adams",
    "alf", "rk4", "midpoint" }
  for method, dtype in helper.each(methods, { "float32", "float64" }) do
    it(("%s, %s"):format(method, dtype), function()
      for _, times in ipairs { { 0, 0.05 }, { 0.05, 0 }, { 0.1, 0.7, 1.3 }, { 5, 5.1, 7.3 }, { -2.1, -2.3 } } do
        for _, gradient in ipairs { "gq", "direct" } do
          local z0 = gq.ones(1, { dtype = dtype, requires_grad = true })
          local fixed = (method == "rk4" or method == "midpoint") and 0.03 or nil
          local adams = method:find "adams"
          if not (adams and gradient == "direct") then
            local low, high, got = span(decay, function(f)
              local z = gq.odeint(f, z0, times, { trace = false, params = {}, method = method, gradient = gradient,
                step_size = fixed, adjoint = { trajectory = method == "alf" and "reverse" or "dense" } })
              return { z[#z]:item(), gq.grad(z[#z]:sum(), z0):item() }
            end)
            local first, last = math.min(times[1], times[#times]), math.max(times[1], times[#times])
            if dtype == "float32" then first, last = single(first), single(last) end
            assert.is_true(low >= first and high <= last, ("%s: [%.17g, %.17g]"):format(gradient, low, high))
            local want = math.exp(-0.1 * (times[#times] - times[1]))
            assert.close(got, { want, want }, 2e-3)
          end
        end
      end
    end)
  end

  it("row by row", function()
    for _, times in ipairs { { 0, 0.05 }, { 0.05, 0 }, { 0.1, 0.7, 1.3 } } do
      local first, last = math.min(times[1], times[#times]), math.max(times[1], times[#times])
      for _, gradient in ipairs { "gq", "direct" } do
        local z0 = gq.ones(9, 1, { dtype = "float64", requires_grad = true })
        local z = gq.odeint(function(t, y)
          return gq.where(t:lt(first), 0 / 0, gq.where(t:gt(last), 0 / 0, -0.1 * y))
        end, z0, times, { batch = "independent", gradient = gradient })
        assert.close(gq.grad(z[#z]:sum(), z0),
          gq.full({ 9, 1 }, math.exp(-0.1 * (times[#times] - times[1])), { dtype = "float64" }), 1e-5)
      end
    end
  end)

  it("also by stages beyond the step, which keep their order", function()
    -- z' = -z + cos t + sin t from 0: z = sin t
    local h, forward, back = { 1 / 4, 1 / 8, 1 / 16, 1 / 32 }, {}, {}
    for i, size in ipairs(h) do
      local k = gq.tensor(1, { dtype = "float64", requires_grad = true })
      local z = gq.odeint(function(t, y) return k * gq.cos(t) + gq.sin(t) - y end, gq.zeros(1, { dtype = "float64" }),
        { 0, 2 }, { method = "kvaerno5", step_size = size, adjoint = { step_size = size }, gradient = "seminorm" })
      forward[i] = math.abs(z[2]:item() - math.sin(2))
      -- dz/dk = e^(-t) int_0^t e^s cos s ds = (cos t + sin t - e^(-t)) / 2
      back[i] = math.abs(gq.grad(z[2]:sum(), k):item() - (math.cos(2) + math.sin(2) - math.exp(-2)) / 2)
    end
    assert.is_true(helper.slope(h, forward) > 4.5, table.concat(forward, " "))
    assert.is_true(helper.slope(h, back) > 4.5, table.concat(back, " "))
  end)
end)

describe("f is evaluated strictly between grid points", function()
  for dtype, at in helper.each({ "float32", "float64" }, { 0.3, 2020, -77 }) do
    it(("%s, around %g, in both directions"):format(dtype, at), function()
      local points = { at, at + 0.25, at + 0.5 }
      for _, times in ipairs { { at - 0.25, at + 0.75 }, { at + 0.75, at - 0.25 } } do
        for _, o in ipairs { { method = "dopri5" }, { method = "rk4", step_size = 0.1 }, { method = "kvaerno3" },
          { method = "explicit_adams" }, { method = "alf" } } do
          o.trace, o.params, o.grid_points = false, {}, points
          local z = gq.odeint(function(t, y)
            for _, p in ipairs(points) do
              assert.is_true(t:item() ~= (dtype == "float32" and single(p) or p))
            end
            return 0 * y + 1
          end, gq.zeros(1, { dtype = dtype }), times, o)
          assert.close(z[2]:item(), times[2] - times[1], 1e-5)
        end
      end
    end)
  end

  it("without a change of the step", function()
    local points = {}
    for i = 0, 30 do points[i + 1] = 2020 + i / 365 end
    for _, gradient in ipairs { "gq", "direct", "aca", "adjoint", "kronrod" } do
      local k = gq.tensor(1, { requires_grad = true })
      local z = gq.odeint(function(_, y) return 0 * y + k end, gq.zeros(1), { points[1], points[31] },
        { grid_points = points, gradient = gradient })
      assert.close(z[2]:item(), points[31] - points[1], 1e-5)
      assert.close(gq.grad(z[2]:sum(), k):item(), points[31] - points[1], 1e-5)
    end
  end)

  -- z' = a and 3 a by turns, which change where f is told so
  local function switching(points, dir, options)
    local a = gq.tensor(1, { dtype = options.dtype, requires_grad = true })
    local first, width = gq.tensor(points[1], { dtype = options.dtype }), math.abs(points[2] - points[1])
    options.dtype = nil
    local z = gq.odeint(function(t, y)
      local k = (dir * (t - first) / width):floor()
      return gq.where((k - 2 * (k / 2):floor()):gt(0.5), 0 * y + 3 * a, 0 * y + a)
    end, gq.zeros(2, { dtype = a.dtype }), { points[1], points[#points] }, options)
    return gq.grad(z[2]:sum(), a):item() / (4 * dir * (#points - 1) * width)
  end

  it("at nodes of rules that have some at the ends", function()
    for dir, nodes, rule in helper.each({ 1, -1 }, { "step", "nfe", 5 },
        { "gauss-lobatto", "clenshaw-curtis", "trapezoid", "simpson", "boole" }) do
      local points = { 0, 0.5 * dir, dir }
      for _, o in ipairs { {}, { adjoint = { trajectory = "reverse" } }, { step_size = 0.0625 } } do
        o.gradient, o.gq, o.grid_points, o.dtype = "gq", { nodes = nodes, quadrature = rule }, points, "float64"
        assert.close(switching(points, dir, o), 1, 1e-12)
      end
    end
  end)

  it("in float32, where steps begin and nodes are nearer to them than the next number", function()
    for spacings, dir in helper.each({ 4, 5, 8 }, { 1, -1 }) do
      local points = {}
      for i = 0, 10 do points[i + 1] = 2020 + dir * i * spacings / 8192 end
      for _, gradient in ipairs { "direct", "gq", "check", "gqc", "adjoint", "seminorm", "interpolated",
        "kronrod" } do
        local value = switching(points, dir, { gradient = gradient, grid_points = points, dtype = "float32" })
        assert.close(value, 1, 1e-5)
      end
    end
  end)

  it("or that is an error", function()
    local function solve(dtype, points)
      return gq.odeint(function(_, y) return 0 * y + 1 end, gq.zeros(1, { dtype = dtype }), { 2020, 2021 },
        { grid_points = points })
    end
    helper.raises("grid_points 2020.5002 float32 float64 offset", solve, "float32", { 2020.5, 2020.5002 })
    assert.close(solve("float64", { 2020.5, 2020.5002 })[2]:item(), 1, 1e-9)
  end)
end)

describe("large times", function()
  local f64 = { dtype = "float64" }
  for _, batch in ipairs { "joint", "independent" } do
    it("from Unix seconds to nanoseconds, " .. batch, function()
      for _, case in ipairs { { 1.6e9, 1e3 }, { 1.6e12, 1e3 }, { 1.6e15, 1e6 }, { 1.6e18, 1e9 }, { -1.6e12, 1e3 } } do
        local t = { case[1], case[1] + case[2] }
        local o = { batch = batch }
        local z = gq.odeint(function(_, y) return 0 * y + 1 end, gq.zeros(3, 1, f64), t, o)
        assert.close(z[2], gq.full({ 3, 1 }, case[2], f64), 1e-5)
        z = gq.odeint(function(_, y) return -y / case[2] end, gq.zeros(3, 1, f64), t, o)
        assert.close(z[2], gq.zeros(3, 1, f64))
        local k = gq.tensor(1 / case[2], { dtype = "float64", requires_grad = true })
        z = gq.odeint(function(_, y) return -k * y end, gq.ones(3, 1, f64), { t[2], t[1] }, o)
        assert.close(z[2], gq.full({ 3, 1 }, math.exp(1), f64), 1e-4)
        assert.close(gq.grad(z[2]:sum(), k):item(), 3 * math.exp(1) * case[2], 1e-3)
      end
    end)

    it("of a slow decay, " .. batch, function()
      local z = gq.odeint(function(_, y) return -1e-12 * y end, gq.ones(3, 1, f64), { 0, 1e12 }, { batch = batch })
      assert.close(z[2], gq.full({ 3, 1 }, math.exp(-1), f64), 1e-4)
    end)
  end
end)

describe("times that the state's dtype cannot tell apart", function()
  local function info(dtype, first, o, f)
    local z0 = gq.zeros(3, 1, { dtype = dtype, requires_grad = true })
    local z, i = gq.odeint(f or function(t, z) return gq.cos(t - first) + 0 * z end, z0, { first, first + 10 }, o)
    return i, z
  end

  it("are warned of where f depends on t, forwards and after the backward pass", function()
    gq.warnings(false)
    for _, o in ipairs { {}, { batch = "independent" }, { method = "rk4", step_size = 0.5 }, { method = "kvaerno3" },
      { gradient = "direct" }, { gradient = "none" } } do
      for _, first in ipairs { 1.6e9, 1e6, -1e6 } do
        local i, z = info("float32", first, o)
        assert.truthy(i.warning:find("float64", 1, true) and i.warning:find("offset", 1, true))
        if o.gradient ~= "none" then
          z:sum():backward()
          assert.truthy(i.warning:find("offset", 1, true))
        end
      end
      assert.is_nil(info("float64", 1.6e9, o).warning)
      assert.is_nil(info("float32", 0, o).warning)
      assert.is_nil(info("float32", 100, o).warning)
      assert.is_nil(info("float32", 1e6, o, function(_, z) return 1 - z end).warning)
    end
    gq.warnings(true)
  end)
end)

describe("a reverse solve that is lost", function()
  it("names what works", function()
    local k = gq.tensor(100, { requires_grad = true, dtype = "float64" })
    local function solve(o)
      local z = gq.odeint(function(_, y) return -k * (y - 1) end, gq.zeros(2, 1, { dtype = "float64" }), { 0, 10 }, o)
      return gq.grad(z[2]:sum(), k):item()
    end
    local reverse = { trajectory = "reverse" }
    for _, gradient in ipairs { "gq", "adjoint", "seminorm" } do
      helper.raises([[trajectory "dense" gradient "direct"]], solve, { gradient = gradient, adjoint = reverse })
      assert.close(solve { gradient = gradient, adjoint = { trajectory = "dense" } }, 0, 0, 1e-4)
    end
    helper.raises([[gradient "direct"]], solve, { gradient = "gq", batch = "independent" })
    assert.close(solve { gradient = "direct" }, 0, 0, 1e-4)
    assert.close(solve { gradient = "direct", batch = "independent" }, 0, 0, 1e-4)
  end)
end)

describe("max_step and min_step", function()
  -- a spike that no step of the solver's choice sees
  local function spike(k) return function(t, z) return k * gq.exp(-((t - 7.3) / 0.05) ^ 2) - 0.01 * z end end

  it("bound the steps that are chosen, there and back", function()
    for _, o in ipairs { {}, { batch = "independent" }, { method = "tsit5" }, { method = "kvaerno3" },
      { method = "implicit_adams" }, { gradient = "seminorm" }, { gradient = "direct" } } do
      local k = gq.tensor(1, { requires_grad = true, dtype = "float64" })
      o.max_step, o.gq = 0.05, { nodes = "step" }
      local z, info = gq.odeint(spike(k), gq.zeros(2, 1, { dtype = "float64" }), { 0, 10 }, o)
      -- int of e^(0.01 (t - 10)) times the spike
      local want = 0.05 * math.sqrt(math.pi) * math.exp(-0.01 * 2.7)
      assert.close(z[2], gq.full({ 2, 1 }, want, { dtype = "float64" }), 1e-3)
      assert.is_true(info.steps >= 200 * (o.batch and 2 or 1))
      assert.close(gq.grad(z[2]:sum(), k):item(), 2 * want, 1e-3)
      if o.gradient ~= "direct" then assert.is_true(info.steps_backward >= 200 * (o.batch and 2 or 1)) end
    end
    local k = gq.tensor(1, { requires_grad = true, dtype = "float64" })
    local z, info = gq.odeint(spike(k), gq.zeros(1, { dtype = "float64" }), { 0, 1 }, { adjoint = { max_step = 0.01 } })
    gq.grad(z[2]:sum(), k)
    assert.is_true(info.steps < 100 and info.steps_backward >= 100)
  end)

  it("make it an error where the tolerance wants shorter steps", function()
    local function solve(o)
      return gq.odeint(function(t, z) return 50 * gq.cos(50 * t) - z end, gq.zeros(2, 1), { 0, 1 }, o)
    end
    for _, batch in ipairs { "joint", "independent" } do
      helper.raises("min_step 0.2", solve, { min_step = 0.2, rtol = 1e-6, atol = 1e-6, batch = batch })
      assert.equal("ok", select(2, solve { min_step = 1e-7, batch = batch }).status)
    end
    local _, info = gq.odeint(function(_, z) return -z end, gq.ones(1), { 0, 1e-3 }, { min_step = 0.1 })
    assert.equal("ok", info.status)
    helper.raises("min_step max_step", solve, { min_step = 0.2, max_step = 0.1 })
    helper.raises("fixed step_size", solve, { max_step = 0.2, step_size = 0.1 })
    helper.raises("fixed step_size", solve, { max_step = 0.2, method = "rk4" })
    for _, x in ipairs { -1, 0 / 0, math.huge } do
      helper.raises("min_step positive", solve, { min_step = x })
      helper.raises("max_step positive", solve, { max_step = x == math.huge and -x or x })
    end
    local z = solve()[2]
    for _, o in ipairs { { max_step = math.huge }, { max_step = 0 }, { min_step = 0 },
      { adjoint = { max_step = math.huge } } } do
      assert.same(z:totable(), solve(o)[2]:totable())          -- no limits
    end
    solve { max_step = math.huge, min_step = 0, step_size = 0.1 }
  end)

  it("are free of grid points that are none inside", function()
    local function solve(o) return gq.odeint(function(_, z) return -z end, gq.ones(2, 1), { 0, 1 }, o)[2] end
    for _, o in ipairs { { method = "kvaerno5" }, { batch = "independent" }, { parity = true },
      { overshoot = true } } do
      local z = solve(o):totable()
      for _, points in ipairs { {}, { -1, 2 }, gq.zeros(0), gq.tensor { 5 } } do
        o.grid_points = points
        assert.same(z, solve(o):totable())
      end
      o.grid_points = { 0.5 }
      helper.raises("grid_points", solve, o)
    end
  end)
end)
