-- interpolate_spec.lua -- data as a function of time, and controlled differential equations, against closed forms.

local gq = require "gq"
local helper = require "tests.helper"

local f64 = { dtype = "float64" }
local kinds = { "linear", "cubic", "hermite", "monotone", "rectilinear" }
local times = { 0, 0.4, 1, 1.3, 2.5 }

local function tensor(x) return gq.tensor(x, f64) end
local function leaf(x) return gq.tensor(x, { dtype = "float64", requires_grad = true }) end
local function numbers(x) return tensor(x):totable() end

-- The second derivative at t.
local function bend(path, t)
  local s = leaf(t)
  return gq.grad(path:derivative(s):sum(), s):item()
end

describe("gq.interpolate", function()
  it("passes through the data, wherever their times are, at one time and at many", function()
    local x = gq.randn(5, 3, 2, { dtype = "float64", seed = 1 })
    for kind, dim in helper.each(kinds, { 1, 2, 3 }) do
      local order = { { 1, 2, 3 }, { 2, 1, 3 }, { 2, 3, 1 } }
      local path = gq.interpolate(tensor(times), x:permute(table.unpack(order[dim])), { kind = kind, dim = dim })
      assert.same({ 3, 2 }, path(0.7).shape)
      assert.same({ 5, 3, 2 }, path(times).shape)
      assert.close(path(times), x:totable(), 1e-14, 1e-14)
      assert.close(path(0.7), path { 0.2, 0.7 }[2]:totable(), 1e-14)
      assert.close(path(tensor(0.7)), path(0.7):totable(), 1e-14)
      if dim < 3 then           -- found without being told
        local same = gq.interpolate(times, x:permute(table.unpack(order[dim])), { kind = kind })
        assert.same(path(0.7):totable(), same(0.7):totable())
      end
    end
    local path = gq.interpolate({ 0, 1, 2 }, { 1, 3, 2 })
    assert.same({}, path(0.5).shape)
    assert.close(path(0.5):item(), 2)
    assert.equal("float32", path(0.5).dtype)
    assert.equal("linear path on [0, 2] of shape {}", tostring(path))
  end)

  it("is linear, or held, between the times", function()
    local x = numbers { 1, 3, 2, 2, -1 }
    local line, held = gq.interpolate(times, tensor(x)), gq.interpolate(times, tensor(x), { kind = "rectilinear" })
    for k = 1, 4 do
      local h = times[k + 1] - times[k]
      for _, r in ipairs { 0.1, 0.5, 0.99 } do
        local t = times[k] + r * h
        assert.close(line(t):item(), x[k] + r * (x[k + 1] - x[k]), 1e-12)
        assert.close(line:derivative(t):item(), (x[k + 1] - x[k]) / h, 1e-12)
        assert.equal(x[k], held(t):item())
      end
    end
    assert.same(times, line.grid_points)
    assert.same(times, held.grid_points)
    local timed = gq.interpolate({ 0, 1, 3 }, tensor { { 0, 5 }, { 1, 6 }, { 3, 7 } },
      { kind = "rectilinear", time = 1 })
    assert.close(timed { 0.25, 2, 2.9, 3 }, { { 0.25, 5 }, { 2, 6 }, { 2.9, 6 }, { 3, 7 } }, 1e-12)
  end)

  it("cubic is the natural spline: twice differentiable, straight at its ends, of order 4 inside", function()
    local path = gq.interpolate(times, gq.randn(5, { dtype = "float64", seed = 2 }), { kind = "cubic" })
    for k = 2, 4 do
      assert.close(path:derivative(times[k] - 1e-12):item(), path:derivative(times[k]):item(), 1e-9, 1e-9)
      assert.close(bend(path, times[k] - 1e-12), bend(path, times[k]), 1e-9, 1e-9)
    end
    assert.close({ bend(path, 0), bend(path, 2.5) }, { 0, 0 }, 0, 1e-9)
    local errors, steps = {}, {}
    for i, n in ipairs { 9, 17, 33 } do
      local t = gq.linspace(0, math.pi, n, f64)            -- sin'' is 0 at both ends
      local at = gq.linspace(0, math.pi, 200, f64)
      errors[i] = (gq.interpolate(t, t:sin(), { kind = "cubic" })(at) - at:sin()):abs():max():item()
      steps[i] = 1 / (n - 1)
    end
    assert.is_true(math.abs(helper.slope(steps, errors) - 4) < 0.1)
    local two = gq.interpolate({ 0, 2 }, tensor { 1, 5 }, { kind = "cubic" })
    assert.close(two(0.5):item(), 2, 1e-12)
  end)

  it("hermite knows nothing later than the next time", function()
    local x = gq.randn(5, { dtype = "float64", seed = 3 })
    local y = x:clone()
    y[{ { 4, 5 } }] = 7
    local a, b = gq.interpolate(times, x, { kind = "hermite" }), gq.interpolate(times, y, { kind = "hermite" })
    for _, t in ipairs { 0.2, 0.7, 0.99 } do assert.equal(a(t):item(), b(t):item()) end
    local v = x:totable()
    assert.close(a:derivative(1.0):item(), (v[3] - v[2]) / 0.6, 1e-12)
    assert.close(a:derivative(1 - 1e-13):item(), (v[3] - v[2]) / 0.6, 1e-9)
  end)

  it("monotone stays between its data, is flat at their extrema, and has PCHIP's slopes", function()
    local x = numbers { 0, 0.1, 4, 4.2, 1 }
    local path = gq.interpolate(times, tensor(x), { kind = "monotone" })
    for k = 1, 4 do
      local last, low, high = x[k], math.min(x[k], x[k + 1]), math.max(x[k], x[k + 1])
      for i = 1, 20 do
        local y = path(times[k] + (times[k + 1] - times[k]) * i / 20):item()
        assert.is_true(y >= low - 1e-12 and y <= high + 1e-12)
        assert.is_true((y - last) * (x[k + 1] - x[k]) >= -1e-12)
        last = y
      end
    end
    local h1, h2, d1, d2 = 0.4, 0.6, 0.1 / 0.4, 3.9 / 0.6
    local w1, w2 = 2 * h2 + h1, h2 + 2 * h1                 -- the weighted harmonic mean
    assert.close(path:derivative(0.4):item(), (w1 + w2) / (w1 / d1 + w2 / d2), 1e-12)
    assert.close(path:derivative(1.3):item(), 0, 0, 1e-12)
    assert.close(path:derivative(0):item(), 0, 0, 1e-12)     -- (2 h1 + h2) d1 < h1 d2
    local line = gq.interpolate({ 0, 1 }, tensor { 1, 2 }, { kind = "monotone" })
    assert.close(line(0.25):item(), 1.25, 1e-12)
  end)

  it("has gradients in the data and in time", function()
    for _, kind in ipairs(kinds) do
      local x = gq.randn(5, 2, { dtype = "float64", seed = 4, requires_grad = true })
      assert.is_true(gq.checkgrad(function(y)
        return gq.interpolate(times, y, { kind = kind }) { 0.1, 0.9, 1.2, 2.1 }
      end, { x }), kind)
      if kind ~= "rectilinear" then
        local path, t = gq.interpolate(times, x, { kind = kind }), leaf { 0.1, 1.2, 2.1 }
        assert.close(gq.grad(path(t):sum(), t), path:derivative(t):sum(2):totable(), 1e-10)
      end
    end
  end)

  it("drives a field: integrals and their gradients in the data by every engine", function()
    for engine, kind in helper.each({ "direct", "aca", "adjoint", "seminorm", "gq", "gqc", "kronrod" },
        { "linear", "rectilinear" }) do
      local x, want = leaf { 1, 3, 2, 2, -1 }, {}
      local path = gq.interpolate(times, x, { kind = kind })
      local z = gq.odeint(function(t, z) return z * 0 + path(t) end, gq.zeros(2, 1, f64), { 0, 2.5 },
        { gradient = engine, grid_points = path.grid_points, rtol = 1e-9, atol = 1e-9 })
      for k = 1, 5 do
        local before, after = (times[k] - (times[k - 1] or 0)) / 2, ((times[k + 1] or 2.5) - times[k]) / 2
        want[k] = kind == "linear" and before + after or 2 * after
      end
      assert.close(z[2][1]:item(), (tensor(want) * x):sum():item(), 1e-8)
      assert.close(gq.grad(z[2][1]:sum(), x), want, 1e-7, 1e-8)
    end
  end)

  it("that all rows share is read at several times at once", function()
    local x = gq.randn({ 5, 2 }, { dtype = "float64", seed = 9, requires_grad = true })
    local w = gq.randn({ 4, 2 }, { dtype = "float64", seed = 10, requires_grad = true })
    local z0, want = gq.randn({ 64, 2 }, { dtype = "float64", seed = 11 }), nil
    for kind, engine in helper.each({ "linear", "monotone" }, { "direct", "gqc", "gq", "adjoint" }) do
      local path = gq.interpolate(times, x, { kind = kind })
      local z = gq.odeint(function(t, z)
        return gq.cat({ z, path(t):expand(64, 2) }, 2):matmul(w):tanh()
      end, z0, { 0, 2.5 }, { gradient = engine, grid_points = path.grid_points, rtol = 1e-9, atol = 1e-9 })
      local g = gq.grad((z[2] * z[2]):sum(), { x, w })
      if engine == "direct" then want = g end
      for i = 1, 2 do assert.below(helper.relative(g[i], want[i]), 1e-6, kind .. " " .. engine) end
    end
  end)

  it("fills missing values from the observed ones of their own series", function()
    local nan = 0 / 0
    local x = leaf { { nan, 1 }, { 2, nan }, { nan, nan }, { 6, 4 }, { nan, 5 } }
    local t = { 0, 1, 2, 4, 5 }
    local line, held = gq.interpolate(t, x, { missing = "linear" }), gq.interpolate(t, x, { missing = "forward" })
    assert.close(line(t), { { 2, 1 }, { 2, 1.75 }, { 2 + 4 / 3, 2.5 }, { 6, 4 }, { 6, 5 } }, 1e-12)
    assert.close(held(t), { { 2, 1 }, { 2, 1 }, { 2, 1 }, { 6, 4 }, { 6, 5 } }, 1e-12)
    assert.close(gq.grad(held(1):sum(), x), { { 0, 0 }, { 1, 0 }, { 0, 0 }, { 0, 0 }, { 0, 0 } }, 0)
    local by_batch = gq.interpolate(t, gq.stack({ x, x }, 1):detach(), { missing = "linear" })
    assert.close(by_batch(2)[2], line(2):totable(), 1e-12)
    helper.raises("series 1 no value", gq.interpolate, { 0, 1 }, gq.tensor { { nan, 1 }, { nan, 2 } },
      { missing = "linear" })
    helper.raises("missing forward", gq.interpolate, { 0, 1 }, gq.zeros(2), { missing = "mean" })
    helper.raises("infinite", gq.interpolate, { 0, 1 }, gq.tensor { 1, math.huge }, { missing = "linear" })
  end)

  it("refuses what makes no sense, saying what would", function()
    local x = gq.zeros(3, 2)
    helper.raises("times increase t[2] t[3]", gq.interpolate, { 0, 1, 1 }, x)
    helper.raises("at least two times", gq.interpolate, { 0 }, gq.zeros(1, 2))
    helper.raises("t[2] finite", gq.interpolate, { 0, 0 / 0, 2 }, x)
    helper.raises("t[1] is string", gq.interpolate, { "a", 1, 2 }, x)
    helper.raises("4 times {3, 2}", gq.interpolate, { 0, 1, 2, 3 }, x)
    helper.raises("say dim = 1 or dim = 2", gq.interpolate, { 0, 1, 2 }, gq.zeros(3, 3, 2))
    helper.raises("dim = 2 no 3 times", gq.interpolate, { 0, 1, 2 }, x, { dim = 2 })
    helper.raises("NaN missing = linear forward", gq.interpolate, { 0, 1, 2 }, gq.tensor { 0, 0 / 0, 1 })
    helper.raises("x: a float tensor", gq.interpolate, { 0, 1, 2 }, x:to("int64"))
    helper.raises("'kinds' 'kind'", gq.interpolate, { 0, 1, 2 }, x, { kinds = "linear" })
    helper.raises("did you mean \"cubic\"", gq.interpolate, { 0, 1, 2 }, x, { kind = "cubik" })
    helper.raises("time rectilinear", gq.interpolate, { 0, 1, 2 }, x, { time = 1 })
    helper.raises("time = 3 2 channels", gq.interpolate, { 0, 1, 2 }, x, { kind = "rectilinear", time = 3 })
    helper.raises("t:detach()", gq.interpolate, leaf { 0, 1, 2 }, x)
    local path = gq.interpolate({ 0, 1, 2 }, x)
    helper.raises("t = 2.5 outside [0, 2]", path, 2.5)
    helper.raises("t = nan outside", path, 0 / 0)
    helper.raises("a time got string", path, "1")
    helper.raises("known for t in [0, 2] 3", gq.odeint, function(t) return path(t) end, gq.zeros(2), { 0, 3 })
    helper.raises("jumps gq.cde", function()
      return gq.interpolate({ 0, 1, 2 }, x, { kind = "rectilinear" }):derivative(1)
    end)
  end)
end)

describe("gq.cde", function()
  -- dz = z d(X_1 - X_2) + dX_3
  local function field(_, z) return gq.stack({ z, -z, z * 0 + 1 }, -1) end

  it("depends on the path by what it goes through: dz = z dX gives z_0 exp(X(T) - X(0))", function()
    local x = gq.randn(2, 5, 1, { dtype = "float64", seed = 5 })
    for kind, flat in helper.each(kinds, { false, true }) do
      local path = gq.interpolate(times, x, { kind = kind })
      local f = gq.cde(function(_, z) return flat and z or z:unsqueeze(-1) end, path)
      local z = gq.odeint(f, gq.ones(2, 3, f64), times, { rtol = 1e-9, atol = 1e-9 })
      for b = 1, 2 do
        for k = 1, 5 do
          assert.close(z[k][b], (x[b][k] - x[b][1]):exp():expand(3):totable(), 1e-5)
        end
      end
    end
  end)

  it("steps to where the path is not smooth, unless told otherwise", function()
    local path = gq.interpolate(times, gq.randn(5, 1, { dtype = "float64", seed = 6 }))
    local f = gq.cde(function(_, z) return -z:unsqueeze(-1) end, path)
    local function solve(o)
      local z, info = gq.odeint(f, gq.ones(1, f64), { 0, 2.5 }, helper.with({ rtol = 1e-6, atol = 1e-6 }, o))
      return z[2]:item(), info
    end
    local a, told = solve()
    local b, alone = solve { grid_points = {} }
    assert.close(a, b, 1e-2)
    assert.is_true(told.rejected < alone.rejected, told.rejected .. " " .. alone.rejected)
    assert.equal("cde: " .. tostring(path), tostring(f))
    for _, o in ipairs { { batch = "independent" }, { method = "kvaerno5" } } do
      helper.raises("grid_points", gq.odeint, f, gq.ones(2, 1, f64), { 0, 2.5 }, o)
      o.grid_points, o.rtol, o.atol = {}, 1e-9, 1e-9
      assert.close(gq.odeint(f, gq.ones(2, 1, f64), { 0, 2.5 }, o)[2][1]:item(), a, 1e-4)
    end
  end)

  -- dz = z d(X_1 - X_2), whose solution depends on the ends of the path alone.
  it("keeps to the tolerance along cubic paths, whose knots error estimates miss", function()
    local times_of, x = gq.linspace(0, 9, 10):totable(), gq.randn({ 3, 10, 2 }, { dtype = "float64", seed = 1 })
    local way = tensor { 1, -1 }
    local want = ((x[{ {}, 10 }] - x[{ {}, 1 }]) * way):sum(2):exp()
    for _, kind in ipairs { "cubic", "hermite", "monotone" } do
      local f = gq.cde(function(_, z) return z:unsqueeze(-1) * way end, gq.interpolate(times_of, x, { kind = kind }))
      local function error_of(tol, o)
        local z, info = gq.odeint(f, gq.ones(3, 1, f64), { 0, 9 }, helper.with({ rtol = tol, atol = tol }, o))
        return helper.relative(z[2]:squeeze(2), want), info
      end
      for _, method in ipairs { "dopri5", "tsit5" } do
        local off, info = error_of(1e-6, { method = method })
        local alone, missed = error_of(1e-6, { method = method, grid_points = {} })
        assert.below(off, 1e-4, kind .. " " .. method)
        assert.below(off, 0.3 * alone, kind .. " " .. method)
        assert.below(info.rejected, missed.rejected, kind)
      end
      for _, o in ipairs { { batch = "independent" }, { method = "kvaerno5" }, { parity = true, gradient = "none" } } do
        assert.below(error_of(1e-9, o), 1e-5, kind)             -- where no grid points may be
      end
      local _, fixed = error_of(1e-6, { method = "rk4", step_size = 0.75 })
      assert.equal(12, fixed.steps)
    end
  end)

  it("passes over knots of a cubic path that its tolerance cannot notice", function()
    local n = 200
    local t = gq.linspace(0, 5, n, f64)
    for _, kind in ipairs { "cubic", "hermite" } do
      local flat = gq.stack({ t:sin(), gq.ones(n, f64) }, 2)
      local path = gq.interpolate(t, flat, { kind = kind })
      local f = gq.cde(function(_, z) return gq.stack({ z * 0 + 1, z }, -1) end, path)
      local function solve(tol)
        local z, info = gq.odeint(f, gq.zeros(1, f64), { 0, 5 }, { rtol = tol, atol = tol })
        assert.close(z[2]:item(), math.sin(5), 0, 20 * tol)
        return info.steps
      end
      assert.below(solve(1e-2), 40, kind)
      assert.below(150, solve(1e-10), kind)
    end
    local plain = gq.cde(field, gq.interpolate({ 0, 1 }, gq.ones(2, 3, f64), { kind = "cubic" }))
    assert.equal(1, gq.odeint(plain, gq.ones(2, f64), { 0, 1 })[2][1]:item())
  end)

  it("of rectilinear data lets time pass, then takes the jump: dz = -z dt + dx", function()
    local x = leaf { { 0, 1 }, { 0.5, 3 }, { 2, -1 } }
    local path = gq.interpolate({ 0, 0.5, 2 }, x, { kind = "rectilinear", time = 1 })
    local z = gq.odeint(gq.cde(function(_, z) return gq.stack({ -z, z * 0 + 1 }, -1) end, path), tensor { 1 },
      { 0, 0.5, 2 }, { rtol = 1e-10, atol = 1e-10 })
    local one = math.exp(-0.5) + 2
    assert.close(z:squeeze(2), { 1, one, one * math.exp(-1.5) - 4 }, 1e-8)
    local e = math.exp(-1.5)
    assert.close(gq.grad(z[3]:sum(), x):narrow(2, 2, 1):squeeze(2), { -e, e - 1, 1 }, 1e-7)
  end)

  it("has the same gradients in the data by every engine", function()
    for _, kind in ipairs { "linear", "cubic", "rectilinear" } do
      local x, want = gq.randn(5, 3, { dtype = "float64", seed = 7, requires_grad = true }), nil
      local f = gq.cde(field, gq.interpolate(times, x, { kind = kind }))
      for _, engine in ipairs { "direct", "adjoint", "gq", "gqc" } do
        local z = gq.odeint(f, gq.ones(2, 2, f64), { 0, 2.5 }, { gradient = engine, rtol = 1e-9, atol = 1e-9 })
        local g = gq.grad(z[2]:sum(), x)
        want = want or g
        assert.below(helper.relative(g, want), 1e-5, kind .. " " .. engine)
      end
      assert.close(want:sum(1), { 0, 0, 0 }, 0, 1e-8)          -- a constant added to the data changes nothing
    end
  end)

  it("learns which way a spiral turns", function()
    gq.manual_seed(8)
    local n, t = 32, gq.linspace(0, 1, 12)
    local way = gq.rand(n, 1):ge(0.5):to("float32") * 2 - 1
    local angle = t:unsqueeze(1) * way * 4 + gq.rand(n, 1) * 6
    local x = gq.stack({ angle:cos(), angle:sin(), t:unsqueeze(1):expand(n, 12) }, 3)
    local first, net = gq.nn.Linear(3, 6), gq.nn.mlp { sizes = { 6, 16, 6 * 3 }, activation = "tanh" }
    local last, all = gq.nn.Linear(6, 1), {}
    for _, m in ipairs { first, net, last } do
      for _, p in ipairs(m:parameters()) do all[#all + 1] = p end
    end
    local optimiser, path = gq.optim.adam(all, { lr = 2e-2 }), gq.interpolate(t, x, { kind = "cubic" })
    local f, losses = gq.cde(net, path), {}
    assert.equal(#net:parameters(), #f:parameters())
    for step = 1, 30 do
      optimiser:zero_grad()
      local z = gq.odeint(f, first(path(0)), { 0, 1 }, { gradient = "gq" })
      local loss = (last(z[2]) * -way):softplus():mean()
      loss:backward()
      optimiser:step()
      losses[step] = loss:item()
    end
    assert.below(losses[30], 0.25 * losses[1])
  end)

  it("refuses what makes no sense, saying what would", function()
    local path = gq.interpolate({ 0, 1 }, gq.zeros(2, 3))
    helper.raises("f must be a function", gq.cde, 3, path)
    helper.raises("gq.interpolate derivative(t)", gq.cde, field, function() end)
    helper.raises("unsqueeze(-1)", gq.cde, field, gq.interpolate({ 0, 1 }, gq.zeros(2)))
    helper.raises("{4, 3} expected 3 channels", gq.odeint, gq.cde(function(_, z) return z end, path), gq.zeros(4),
      { 0, 1 })
    helper.raises("tensor expected", gq.odeint, gq.cde(function() return 1 end, path), gq.zeros(4), { 0, 1 })
  end)
end)
