-- sde_spec.lua -- Brownian paths, forward solvers and their orders, Wong-Zakai fields.

local gq = require "gq"
local helper = require "tests.helper"
local refused = helper.refused

local f64 = { dtype = "float64" }

local function path(o)
  return gq.brownian { t0 = o.t0 or 0, t1 = o.t1 or 1, shape = o.shape or { 3 }, seed = o.seed or 1,
    dtype = o.dtype or "float64", tol = o.tol, levy_area = o.levy_area }
end

local function mean(x) return x:mean():item() end

local function rms(x) return math.sqrt(mean(x * x)) end

-- ---- Brownian paths ----

describe("a Brownian path", function()
  local times = { 0.3, 1, 0.1, 0.99, 0.5, 0.3000001, 0, 0.7, 0.25, 1 / 3, 0.1, 0.875, 1e-7 }

  it("is the same in every order of questions", function()
    local forward, backward, alone = path { seed = 7 }, path { seed = 7 }, {}
    for i, t in ipairs(times) do alone[i] = path { seed = 7 }(t):totable() end
    for i = 1, #times do assert.same(alone[i], forward(times[i]):totable()) end
    for i = #times, 1, -1 do assert.same(alone[i], backward(times[i]):totable()) end
  end)

  it("is the same for any number of threads, and component by component", function()
    local got = {}
    for threads = 1, 3 do
      gq.set_threads(threads)
      got[threads] = path { shape = { 5000 } }(0.37):totable()
    end
    gq.set_threads(2)
    assert.same(got[1], got[2])
    assert.same(got[1], got[3])
    local few = path { shape = { 10 } }(0.37):totable()
    for i = 1, 10 do assert.equal(got[1][i], few[i]) end
  end)

  it("is the same asked for at many times at once", function()
    local n = 60
    local s, t = table.unpack(gq.rand(2, n, { seed = 1, dtype = "float64" }) * 3 - 1)
    s[1], t[1], s[2], t[2] = -1, 2, 0.5, 0.5
    s[3] = t[4]:item()
    for _, o in ipairs { { shape = { 3 } }, { shape = { 700, 2 }, tol = 0.1 }, { shape = {}, dtype = "float64" },
      { shape = { 4 }, levy_area = "space-time" } } do
      o.t0, o.t1, o.seed = -1, 2, 4
      local alone, between, to = gq.brownian(o), {}, {}
      for i = 1, n do
        between[i], to[i] = alone(s[i]:item(), t[i]:item()), alone(t[i]:item())
      end
      for threads = 1, 2 do
        gq.set_threads(threads)
        local b = gq.brownian(o)
        assert.same({ n, table.unpack(o.shape) }, b(s, t).shape)
        assert.truthy(b(s, t):eq(gq.stack(between, 1)):all():item())
        assert.truthy(b(t:totable()):eq(gq.stack(to, 1)):all():item())
      end
    end
  end)

  it("goes where it is told to over the whole: W alone, or W, H and K", function()
    local drawn = path { seed = 7, t1 = 2, shape = { 3, 2 } }
    local function told(W, o)
      return gq.brownian(gq.core.copy({ W = W, t1 = 2, shape = { 3, 2 }, seed = 7, dtype = "float64" }, o or {}))
    end
    for _, t in ipairs { 0.1, 0.5, 1.3, 2 } do assert.same(drawn(t):totable(), told(drawn(2))(t):totable()) end
    local W = gq.arange(1, 6, f64):reshape(3, 2)
    assert.same(W:totable(), told(W)(2):totable())
    assert.close(told(W)(0.6) - told(0 * W)(0.6), 0.3 * W, 1e-14)
    local all = path { seed = 7, t1 = 2, shape = { 3, 2 }, levy_area = "space-time-time" }
    local w, h, k = all:areas(0, 2)
    local again = told(w, { H = h, K = k, levy_area = "space-time-time" })
    assert.close(again(0.3, 1.1), all(0.3, 1.1), 1e-13)
    assert.close(select(2, told(w, { H = 0.5 * W, levy_area = "space-time" }):areas(0, 2)), 0.5 * W, 1e-14)
    refused("W: expected a tensor of the path's shape {3, 2}, got {3}", told, gq.ones(3))
    refused("expected a tensor of the path's shape {3, 2}, got number", told, 1)
    local asked = (W + 0)
    asked.requires_grad = true
    refused("W requires a gradient, and paths carry none", told, asked)
    assert.same(W:totable(), told(asked:detach())(2):totable())
    refused("levy_area = \"none\" does not know: make it with \"space-time\"", told, W, { H = W })
    refused("W holds inf: expected finite numbers", told, W / 0)
  end)

  it("does not depend on the depth of the tree at dyadic times", function()
    for _, t in ipairs { 0.5, 0.125, 0.6875, 1 } do
      assert.same(path { tol = 1e-2 }(t):totable(), path { tol = 1e-9 }(t):totable())
    end
    assert.close(path { tol = 2 ^ -5 }(27 / 64), path { tol = 2 ^ -20 }(27 / 64), 1e-12)     -- a leaf's middle
  end)

  it("takes a time that misses an end by rounding for that end, and no other", function()
    local b = path { t0 = 0.1, t1 = 0.7 }
    local single = gq.tensor({ 0.1, 0.7 }, { dtype = "float32" }):totable()
    assert.close(b(single[1]), gq.zeros(3, f64), 0, 1e-3)
    assert.same(b(0.7):totable(), b(0.7 + 1e-8):totable())
    assert.same(b(0.1, 0.7):totable(), b(0.1 - 1e-9, 0.7 + 1e-8):totable())
    refused("outside", b, 0.7 + 1e-5)
    local sde = gq.sde { drift = function(_, z) return 0 * z end, diffusion = function(_, z) return 0 * z + 1 end }
    local late = gq.sdeint(sde, gq.zeros(3, f64), { 0.1, 0.7 + 1e-8 }, { dt = 0.05, brownian = b })
    assert.close(late[2], b(0.7), 1e-12)
    refused("lives on", gq.sdeint, sde, gq.zeros(3, f64), { 0.1, 0.7 + 1e-5 }, { dt = 0.05, brownian = b })
    refused("dt is -1", gq.sdeint, sde, gq.zeros(3, f64), { 0.1, 0.7 }, { dt = -1, brownian = b })
    local own = gq.brownian { t0 = 0, t1 = 1, shape = { 3 }, seed = 5, dtype = "float64" }
    for _, seed in ipairs { 1, 5 } do                   -- that of paths which a solve draws
      local z = gq.sdeint(sde, gq.zeros(3, f64), { 0, 1 }, { dt = 0.1, brownian = own, seed = seed })
      assert.close(z[2], own(1), 1e-12)
    end
  end)

  it("adds up", function()
    local b = path { shape = { 50 } }
    for i = 2, #times do
      local s, t = times[i - 1], times[i]
      assert.close(b(s, t), b(t) - b(s), 0, 0)
      assert.close(b(s, t) + b(t, 0.77), b(s, 0.77), 0, 1e-14)
    end
    assert.equal(0, b(0):abs():max():item())
    assert.equal(0, b(0.4, 0.4):abs():max():item())
  end)

  it("has increments of the right variance, independent of each other", function()
    local n, steps = 20000, 40
    local b, last = path { t1 = 10, shape = { n } }, nil
    local variance, covariance = 0, 0
    for i = 1, steps do
      local w = b((i - 1) * 0.01, i * 0.01)
      variance = variance + mean(w * w) / 0.01 / steps
      if last then covariance = covariance + mean(w * last) / 0.01 / steps end
      last = w
    end
    assert.close(variance, 1, 6e-3)             -- its own deviation: sqrt(2 / 8e5) = 1.6e-3
    assert.close(covariance, 0, 0, 4e-3)
  end)

  it("has the covariance min(s, t), fourth moment 3, mean 0", function()
    local b = path { shape = { 40000 } }
    for _, pair in ipairs { { 0.2, 0.7 }, { 1 / 3, 0.35 }, { 0.9, 0.1 }, { 0.5, 1 } } do
      local s, t = pair[1], pair[2]
      assert.close(mean(b(s) * b(t)), math.min(s, t), 0, 0.02)
    end
    local x = b(0.61) / math.sqrt(0.61)
    assert.close(mean(x), 0, 0, 0.02)
    assert.close(mean(x * x * x * x), 3, 0.05)
  end)

  it("is a bridge inside a leaf too", function()
    local b = path { shape = { 20000 }, tol = 0.25 }
    local lo, hi = b(0.25), b(0.5)
    local x = b(0.3) - (lo * 0.8 + hi * 0.2)
    assert.close(mean(x * x), 0.05 * 0.2 / 0.25, 0.04)
    assert.close(mean(x * (hi - lo)), 0, 0, 5e-3)
  end)

  it("is continuous", function()
    local b = path { shape = { 1000 } }
    for _, t in ipairs { 0.3, 0.5, 1 / 3, 0.999 } do
      assert.below((b(t) - b(t + 1e-12)):abs():max():item(), 1e-5, "jump")
    end
  end)

  it("differs between seeds and between components", function()
    local n = 20000
    local a, b = path { shape = { n }, seed = 1 }(1), path { shape = { n }, seed = 2 }(1)
    assert.close(mean(a * b), 0, 0, 0.03)
    assert.close(mean(a:narrow(1, 1, n - 1) * a:narrow(1, 2, n - 1)), 0, 0, 0.03)
  end)

  it("has the shape and dtype that were asked for", function()
    local b = gq.brownian { t1 = 2, shape = { 4, 2 }, seed = 3, dtype = "float32" }
    assert.same({ 4, 2 }, b(1).shape)
    assert.equal("float32", b(1).dtype)
    assert.same({ 4, 2 }, b.shape)
    assert.equal(3, b.seed)
    assert.same({ 0, 2 }, { b.t0, b.t1 })
    assert.equal(0, gq.brownian { t1 = 1, shape = { 0 } }(0.5):numel())
    assert.same({}, gq.brownian { t1 = 1, shape = {} }(0.5).shape)
  end)

  it("without a seed follows gq.manual_seed", function()
    local values = {}
    for i = 1, 3 do
      gq.manual_seed(i // 2)
      values[i] = gq.brownian { t1 = 1, shape = { 4 } }(1):totable()
    end
    assert.same(values[2], values[3])
    assert.are_not.same(values[1], values[2])
  end)

  it("refuses what makes no sense", function()
    refused("t1", gq.brownian, { shape = { 1 } })
    refused("shape", gq.brownian, { t1 = 1 })
    refused("smaller", gq.brownian, { t0 = 1, t1 = 1, shape = { 1 } })
    refused("smaller", gq.brownian, { t0 = 0, t1 = 0 / 0, shape = { 1 } })
    refused("levy_area", gq.brownian, { t1 = 1, shape = { 1 }, levy_area = "fostr" })
    refused("space-time", function() path {}:areas(0, 1) end)
    refused("earlier", function() path { levy_area = "space-time" }:areas(1, 0) end)
    refused("seed", gq.brownian, { t1 = 1, shape = { 1 }, sede = 1 })
    refused("float32", gq.brownian, { t1 = 1, shape = { 1 }, dtype = "int64" })
    refused("outside", path {}, 1.5)
    refused("outside", path {}, 0 / 0)
    refused("outside", path {}, 0.5, -1)
    refused("outside", path {}, { 0.5, 1.5 })
    refused("two lists", path {}, 0.5, { 0.7 })
    refused("two lists", path {}, { 0.5 }, 0.7)
    refused("1 times and 2", path {}, { 0.1 }, { 0.2, 0.3 })
    refused("at least one", path {}, {})
    refused("one dimension", path {}, gq.ones(2, 2))
    refused("not a number", path {}, { "x" })
  end)
end)

describe("a Brownian path with areas", function()
  local kinds = { "space-time", "space-time-time" }
  local intervals = { { 0, 2 }, { 0.3, 0.7 }, { 0.5, 1 }, { 0.1, 0.104 }, { 1.7, 2 }, { 0.25, 0.26 }, { 0, 1e-3 } }
  local variance = { 1, 1 / 12, 1 / 720 }

  it("has W, H and K of the right variances, independent of each other and of those of other intervals", function()
    for _, kind in ipairs(kinds) do
      local n = 20000
      local b = path { t1 = 2, shape = { n }, levy_area = kind }
      for _, i in ipairs(intervals) do
        local h = i[2] - i[1]
        local x = { b:areas(i[1], i[2]) }
        assert.equal(kind == "space-time" and 2 or 3, #x)
        for k = 1, #x do
          x[k] = x[k] / math.sqrt(h * variance[k])
          assert.close(mean(x[k]), 0, 0, 5 / math.sqrt(n))
          assert.close(mean(x[k] * x[k]), 1, 0, 5 * math.sqrt(2 / n))
          for l = 1, k - 1 do assert.close(mean(x[k] * x[l]), 0, 0, 5 / math.sqrt(n)) end
        end
      end
      local first, second = { b:areas(0.3, 0.7) }, { b:areas(0.7, 1.9) }
      for _, x in ipairs(first) do
        for _, y in ipairs(second) do assert.close(mean(x * y) / rms(x) / rms(y), 0, 0, 5 / math.sqrt(n)) end
      end
    end
  end)

  it("has those of its own values", function()
    local b = path { t1 = 2, shape = { 4 }, levy_area = "space-time-time" }
    local w, H, K = b:areas(0.2, 0.9)
    local n, h, k = 1000, 0, 0
    for i = 1, n do
      local r = (i - 0.5) / n
      local x = b(0.2, 0.2 + 0.7 * r) - r * w
      h, k = h + x / n, k + x * (0.5 - r) / n
    end
    assert.close(w, b(0.2, 0.9), 1e-14)
    assert.close(H, h, 0, 1e-3)
    assert.close(K, k, 0, 1e-3)
  end)

  it("adds up, in W and in the integral of it", function()
    for _, kind in ipairs(kinds) do
      local b = path { t1 = 2, shape = { 100 }, levy_area = kind }
      for _, i in ipairs { { 0.313, 0.77, 1.41 }, { 0, 0.5, 2 }, { 0.1, 0.10001, 1 }, { 0.25, 0.5, 0.75 } } do
        local s, m, t = table.unpack(i)
        local w, h = b:areas(s, t)
        local w1, h1 = b:areas(s, m)
        local w2, h2 = b:areas(m, t)
        assert.close(w1 + w2, w, 0, 1e-14)
        assert.close((w1 / 2 + h1) * (m - s) + (w2 / 2 + h2 + w1) * (t - m), (w / 2 + h) * (t - s), 0, 1e-14)
      end
    end
  end)

  it("is the same in every order of questions, for any number of threads and depth", function()
    local threads = gq.threads()
    for _, kind in ipairs(kinds) do
      local o = { t1 = 2, shape = { 700 }, levy_area = kind }
      local a, b = path(o), path(o)
      local got = {}
      for i, v in ipairs(intervals) do got[i] = { a:areas(v[1], v[2]) } end
      gq.set_threads(1)
      for i = #intervals, 1, -1 do
        for k, x in ipairs { b:areas(intervals[i][1], intervals[i][2]) } do
          assert.same(got[i][k]:totable(), x:totable())
        end
      end
      gq.set_threads(threads)
      local coarse = path { t1 = 2, shape = { 9 }, levy_area = kind, tol = 0.25 }
      local fine = path { t1 = 2, shape = { 9 }, levy_area = kind, tol = 1e-6 }
      for k, x in ipairs { coarse:areas(0.5, 1.25) } do
        assert.same(x:totable(), (select(k, fine:areas(0.5, 1.25))):totable())
      end
    end
  end)

  it("approximates Levy areas", function()
    for _, kind in ipairs { "davie", "foster" } do
      local b = path { shape = { 40000, 2 }, levy_area = kind }
      local _, _, area = b:areas(0.25, 0.75)
      local x = area[{ {}, 1, 2 }]
      assert.same({ 40000, 2, 2 }, area.shape)
      assert.same(x:totable(), (-area[{ {}, 2, 1 }]):totable())
      assert.equal(0, area[{ {}, 1, 1 }]:abs():max():item())
      assert.close(mean(x * x), 0.25 / 4, 0.04)
      assert.same(area:totable(), (select(3, b:areas(0.25, 0.75))):totable())
    end
    -- What they are for: noise that does not commute, here the worst of it.
    local A, B = gq.tensor({ { 0, 1 }, { 0, 0 } }, f64), gq.tensor({ { 0, 0 }, { 1, 0 } }, f64)
    local sde = gq.sde { drift = function(_, z) return -0.1 * z end, noise = "general",
      diffusion = function(_, z) return gq.stack({ z:matmul(A), z:matmul(B) }, -1) end }
    local function solve(method, dt, kind)
      local b = path { shape = { 300, 2 }, levy_area = kind or "foster" }
      return gq.sdeint(sde, gq.ones(300, 2, f64), { 0, 1 }, { dt = dt, method = method, brownian = b })[2]
    end
    local fine = solve("heun", 2 ^ -13)
    for kind, dt in helper.each({ "davie", "foster" }, { 2 ^ -5, 2 ^ -6 }) do
      assert.below(rms(solve("log_ode", dt, kind) - fine), 0.9 * rms(solve("midpoint", dt) - fine), kind)
    end
    local b = path { shape = { 300, 2 }, levy_area = "foster" }
    local function again(dt) return gq.sdeint, sde, gq.ones(300, 2, f64), { 0, 1 },
      { dt = dt, method = "log_ode", brownian = b } end
    gq.sdeint(select(2, again(0.1)))
    refused("steps of 0.1", again(0.05))
  end)

  it("is asked for by methods that read it", function()
    local sde = gq.sde { drift = function(_, z) return -z end, diffusion = function(_, z) return z end,
      calculus = "ito" }
    local z0 = gq.ones(3, f64)
    refused("space-time", gq.sdeint, sde, z0, { 0, 1 }, { dt = 0.1, method = "srk", brownian = path {} })
    local given = path { levy_area = "space-time-time" }
    local z = gq.sdeint(sde, z0, { 0, 1 }, { dt = 2 ^ -7, method = "srk", brownian = given })
    assert.close(z[2], gq.exp(given(1) - 1.5), 2e-3)
    local general = gq.sde { drift = function(_, x) return -x end, noise = "general",
      diffusion = function(_, x) return gq.stack({ x, x * x }, -1) end }
    refused("foster", gq.sdeint, general, z0, { 0, 1 }, { dt = 0.1, method = "log_ode", brownian =
      path { shape = { 2 }, levy_area = "space-time" } })
  end)
end)

-- ---- solvers ----

local function gbm(calculus)
  return gq.sde { drift = function(_, z) return 0.1 * z end, diffusion = function(_, z) return 0.8 * z end,
    calculus = calculus }
end

local function ornstein_uhlenbeck(calculus)
  return gq.sde {
    drift = function(t, z) return 0.2 * t - 0.7 * z end,
    diffusion = function(t, z) return (0.6 + 0.15 * t):expand(z.shape) end,
    calculus = calculus,
  }
end

local methods = { reversible_heun = "stratonovich", heun = "stratonovich", midpoint = "stratonovich",
  euler_heun = "stratonovich", euler = "ito" }

local function last(z) return z[#z] end

describe("sdeint", function()
  local n = 1000
  local b = path { shape = { n, 1 }, seed = 5 }
  local one = gq.ones(n, 1, f64)

  for method, calculus in pairs(methods) do
    local function error_at(sde, want, dt)
      return rms(last(gq.sdeint(sde, one, { 0, 1 }, { dt = dt, method = method, brownian = b })) - want)
    end

    local function order(sde, want)
      local h, e = {}, {}
      for k = 4, 8 do
        h[#h + 1] = 2 ^ -k
        e[#e + 1] = error_at(sde, want, 2 ^ -k)
      end
      return helper.slope(h, e), e[#e]
    end

    it(method .. " has its strong order with multiplicative noise, in the right calculus", function()
      local exact = gq.exp(b(1) * 0.8 + (calculus == "ito" and 0.1 - 0.32 or 0.1))
      local p, e = order(gbm(calculus), exact)
      assert.close(p, method == "euler" and 0.5 or 1, 0, 0.15)
      assert.below(e, 0.06, "error")
    end)

    it(method .. " has strong order 1 with additive noise", function()
      local sde = ornstein_uhlenbeck(calculus)
      local fine = last(gq.sdeint(sde, one, { 0, 1 }, { dt = 2 ^ -12, method = method, brownian = b }))
      assert.close(order(sde, fine), 1, 0, 0.15)
    end)

    it(method .. " counts its evaluations", function()
      local _, info = gq.sdeint(gbm(calculus), one, { 0, 0.5, 1 }, { dt = 0.1, method = method, brownian = b })
      local each = (method == "euler" or method == "reversible_heun") and 1 or 2
      assert.equal(10, info.steps)
      assert.equal(10 * each + (method == "reversible_heun" and 1 or 0), info.nfe)
      assert.equal("ok", info.status)
      assert.equal("integer", math.type(info.nfe))
    end)

    it(method .. " without noise is an ODE solver", function()
      local sde = gq.sde { drift = function(t, z) return t * z end, diffusion = function(_, z) return 0 * z end,
        calculus = calculus }
      local z = gq.sdeint(sde, gq.ones(2, 3, f64), { 0, 0.5, 2 }, { dt = 1e-3, method = method })
      assert.same({ 3, 2, 3 }, z.shape)
      for k, t in ipairs { 0, 0.5, 2 } do
        local second = method ~= "euler" and method ~= "euler_heun"       -- their drift is Euler's
      assert.close(z[k], gq.full({ 2, 3 }, math.exp(t * t / 2), f64), second and 1e-5 or 5e-3)
      end
    end)
  end

  it("meets the mean and variance of the Ornstein-Uhlenbeck process", function()
    local many = 20000
    local sde = gq.sde { drift = function(_, z) return -0.5 * z end,
      diffusion = function(_, z) return (0 * z + 0.6) end }
    local z = last(gq.sdeint(sde, gq.full({ many, 1 }, 2.0), { 0, 2 }, { dt = 0.02, seed = 11 }))
    local m, v = 2 * math.exp(-1), 0.36 * (1 - math.exp(-2))
    assert.close(mean(z), m, 0, 4 * math.sqrt(v / many))
    assert.close(mean((z - mean(z)) ^ 2), v, 0.04)
  end)

  it("has a default that is stable where the drift contracts", function()
    for _, dtype in ipairs { "float32", "float64" } do
      local sde = gq.sde { drift = function(_, z) return -z end, diffusion = function(_, z) return 0 * z + 1 end }
      local z, info = gq.sdeint(sde, gq.ones(5000, 1, { dtype = dtype }), { 0, 20 }, { dt = 0.1, seed = 3 })
      assert.equal("heun", info.method)
      assert.close(mean(z[2]), 0, 0, 0.04)
      assert.close(z[2]:var():item(), 0.5, 0.08)
    end
  end)

  it("gives the same numbers for any number of threads", function()
    local net = gq.nn.mlp { sizes = { 2, 9, 2 }, activation = "tanh", time = true }
    local sde = gq.sde { drift = net, diffusion = function(_, z) return gq.sigmoid(z) end }
    local z0, got = gq.randn(101, 2, { seed = 1 }), {}
    for threads = 1, 3 do
      gq.set_threads(threads)
      got[threads] = gq.sdeint(sde, z0, { 0, 1 }, { dt = 0.05, seed = 4 })
    end
    gq.set_threads(2)
    assert.close(got[2], got[1], 1e-5, 1e-6)
    assert.close(got[3], got[1], 1e-5, 1e-6)
  end)

  it("shortens the last step before a measurement time, and takes repeated ones", function()
    local z, info = gq.sdeint(gbm(), one, { 0, 0.25, 0.25, 0.3 }, { dt = 0.1, brownian = b })
    assert.equal(4, info.steps)
    assert.same(z[2]:totable(), z[3]:totable())
    local alone = gq.sdeint(gbm(), one, { 0 }, { dt = 0.1, brownian = b })
    assert.same({ 1, n, 1 }, alone.shape)
    assert.same(one:totable(), alone[1]:totable())
  end)

  it("takes one path whatever the measurement times are", function()
    local every, info = gq.sdeint(gbm(), one, gq.linspace(0, 1, 11), { dt = 0.02, brownian = b })
    local ends = gq.sdeint(gbm(), one, { 0, 1 }, { dt = 0.02, brownian = b })
    assert.equal(50, info.steps)
    assert.close(last(every), last(ends), 1e-4)      -- times in float32 are not quite 0.1 i
  end)

  it("takes what a function captures as it is at the call", function()
    local rate, shift = 1, gq.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, f64):transpose(1, 2)
    local sde = gq.sde { drift = function() return rate * shift end, diffusion = function(_, z) return 0 * z end }
    for k = 1, 3 do
      rate = k
      assert.close(last(gq.sdeint(sde, gq.zeros(3, 2, f64), { 0, 1 }, { dt = 0.5 })), shift * k, 1e-12)
    end
  end)

  it("knows scalar, additive and general noise", function()
    local z0 = gq.randn(70, 2, { seed = 2, dtype = "float64" })
    local times, o = { 0, 0.5 }, { dt = 0.01, brownian = path { shape = { 70, 2 } } }
    local function drift(_, z) return -z end
    local diagonal = gq.sdeint(gq.sde { drift = drift, diffusion = function(_, z) return gq.cos(z) end }, z0, times, o)
    local general = gq.sdeint(gq.sde { drift = drift, noise = "general", diffusion = function(_, z)
      return gq.cos(z):unsqueeze(3) * gq.eye(2, f64)
    end }, z0, times, o)
    assert.close(general, diagonal, 1e-9, 1e-12)

    local m = gq.tensor({ { 1, 0, 2 }, { 0.5, -1, 0 } }, f64)
    o.brownian = path { shape = { 70, 3 } }
    local rows = gq.sdeint(gq.sde { drift = drift, noise = "additive", diffusion = function(_, z)
      return m:expand(#z, 2, 3)
    end }, z0, times, o)
    local constant = gq.sde { drift = drift, noise = "additive", diffusion = function() return m end }
    local whole = gq.sdeint(constant, z0, times, o)
    assert.close(whole, rows, 1e-12)
    local function still(_, z) return 0 * z end
    local none = gq.sde { drift = still, noise = "additive", diffusion = function() return m end }
    assert.close(last(gq.sdeint(none, z0, times, o)), z0 + o.brownian(0.5):matmul(m:transpose(1, 2)), 1e-9, 1e-12)

    local w = path { shape = { 70, 1 } }
    local scalar = gq.sdeint(gq.sde { drift = function(_, z) return 0 * z end, noise = "scalar",
      diffusion = function(_, z) return 0.5 * z end }, z0, times, { dt = 1e-3, brownian = w })
    assert.close(last(scalar), z0 * gq.exp(0.5 * w(0.5)), 2e-2)
  end)

  it("solves one sample without a batch dimension", function()
    local w = path { shape = { 2 } }
    local sde = gq.sde { drift = function(_, z) return 0 * z end, noise = "general",
      diffusion = function() return gq.tensor({ { 1, 2 }, { 0, 1 }, { 3, 0 } }, f64) end }
    local z = last(gq.sdeint(sde, gq.zeros(3, f64), { 0, 1 }, { dt = 0.1, brownian = w }))
    local x = w(1):totable()
    assert.close(z, { x[1] + 2 * x[2], x[2], 3 * x[1] }, 1e-12)
    local number = gq.sdeint(gbm(), gq.tensor(1, f64), { 0, 1 }, { dt = 0.1 })
    assert.same({ 2 }, number.shape)
  end)

  it("solves float32 and float64 along the same path", function()
    local function solve(dtype)
      return last(gq.sdeint(gbm(), gq.ones(50, 1, { dtype = dtype }), { 0, 1 }, { dt = 0.01, seed = 8 }))
    end
    assert.close(solve "float32", solve "float64", 1e-4)
  end)

  describe("in the other calculus", function()
    local m = gq.tensor({ { 0.3, 0.4 }, { -0.5, 0.2 } }, f64)
    local few = 200
    local w, b1, z0 = path { shape = { few, 2 }, seed = 6 }, path { shape = { few, 1 } }, gq.ones(few, 2, f64)
    local kinds = {
      diagonal = function(t, z) return gq.sin(z) * (0.8 + 0.2 * t) end,
      scalar = function(_, z) return 0.8 * z end,
      general = function(_, z) return gq.stack({ 0.6 * z, gq.cos(z:matmul(m)) }, -1) end,
      mixed = function(_, z) return gq.sin(z:matmul(m)) + 0.3 * z end,
      ["rows mixed"] = function(_, z) return gq.sin(z) * (1 + 0.1 * z:sum()) end,
    }
    local function sde(kind, calculus)
      local noise = (kind == "scalar" or kind == "general") and kind or "diagonal"
      return gq.sde { drift = function(t, z) return 0.3 * gq.cos(z) - t * z end, diffusion = kinds[kind],
        noise = noise, calculus = calculus }
    end

    for kind in pairs(kinds) do
      it("meets the solution of its own: " .. kind, function()
        local whole = kind == "rows mixed"
        local start = whole and z0:narrow(1, 1, 3) or z0
        local b2 = whole and path { shape = { 3, 2 }, seed = 6 } or kind == "scalar" and b1 or w
        local function solve(given, method, dt, calculus)
          local z, info = gq.sdeint(sde(kind, given), start, { 0, 1 }, { dt = dt, method = method, brownian = b2,
            calculus = calculus })
          return last(z), info
        end
        local fine = 2 ^ -11
        for _, case in ipairs { { "ito", "euler", "heun", "stratonovich" },
          { "stratonovich", "heun", "euler", "ito" } } do
          local given, own, other, calculus = table.unpack(case)
          local want = solve(given, own, fine)
          local same, info = solve(given, other, fine, calculus)
          local as_it_is = solve(calculus, other, fine)
          local off = rms(same - want)
          assert.equal(other, info.method)
          assert.below(off, whole and 0.1 or 0.03, "converted")
          assert.below(4 * off, rms(as_it_is - want), "as it is, which is another SDE")
        end
      end)
    end

    it("has the correction of geometric Brownian motion", function()
      for _, method in ipairs { "heun", "midpoint", "reversible_heun" } do
        local z = gq.sdeint(gbm "ito", one, { 0, 1 }, { dt = 2 ^ -8, method = method, brownian = b,
          calculus = "stratonovich" })
        assert.below(rms(last(z) - gq.exp(b(1) * 0.8 - 0.22)), 0.01, method)
      end
    end)

    it("is Euler's for an Ito SDE by default", function()
      local _, info = gq.sdeint(gbm "ito", one, { 0, 1 }, { dt = 0.1 })
      assert.equal("euler", info.method)
      _, info = gq.sdeint(gbm "ito", one, { 0, 1 }, { dt = 0.1, calculus = "stratonovich" })
      assert.equal("heun", info.method)
    end)

    it("is refused where it does not fit, or costs too much", function()
      local wide = gq.tensor({ 1 }, f64):expand(80, 80) * 0.01
      local big = gq.sde { drift = function(_, z) return -z end, calculus = "ito",
        diffusion = function(_, z) return z:matmul(wide) end }
      refused("calculus", gq.sdeint, gbm "ito", one, { 0, 1 }, { dt = 0.1, method = "heun" })
      refused("80 numbers", gq.sdeint, big, gq.ones(2, 80, f64), { 0, 1 }, { dt = 0.1, calculus = "stratonovich" })
      refused("stratonovich", gq.sdeint, gbm "ito", one, { 0, 1 }, { dt = 0.1, calculus = "stratonovic" })
    end)
  end)

  it("allocates nothing in its loop, and leaves nothing behind", function()
    if not gq.debug then return pending "gq.debug is there in debug and asan builds only" end
    local z0 = gq.ones(40, 1)
    local function allocations(dt)
      return helper.allocations(function() gq.sdeint(gbm(), z0, { 0, 1 }, { dt = dt, seed = 1 }) end)
    end
    assert.equal(allocations(0.1), allocations(0.001))
  end)

  it("stops at the first state that is not finite, and says where", function()
    local sde = gq.sde { drift = function(_, z) return z * z end, diffusion = function(_, z) return 0 * z end }
    refused("component 2", gq.sdeint, sde, gq.tensor({ 0, 5, 0 }, f64), { 0, 1 }, { dt = 0.01 })
    refused("z0 is not finite", gq.sdeint, sde, gq.tensor({ 0 / 0 }, f64), { 0, 1 }, { dt = 0.01 })
  end)

  it("refuses what does not fit", function()
    local z0, o = gq.ones(3, 2, f64), { dt = 0.1 }
    local function plus(t)
      return setmetatable(t, { __index = o })
    end
    refused("reversible_heun, heun, midpoint, euler_heun", gq.sdeint, gbm(), z0, { 0, 1 }, plus { method = "euler" })
    refused("use euler", gq.sdeint, gbm "ito", z0, { 0, 1 }, { dt = 0.1, method = "heun" })
    refused("heun", gq.sdeint, gbm(), z0, { 0, 1 }, { dt = 0.1, method = "huen" })
    refused("adjoint", gq.sdeint, gbm(), z0, { 0, 1 }, { dt = 0.1, gradient = "adjont" })
    refused("dt", gq.sdeint, gbm(), z0, { 0, 1 }, {})
    refused("dt", gq.sdeint, gbm(), z0, { 0, 1 }, { dt = 0 })
    refused("dt", gq.sdeint, gbm(), z0, { 0, 1 }, { dt = 1e-300 })
    refused("table", gq.sdeint, gbm(), z0, { 0, 1 })
    refused("must not change direction", gq.sdeint, gbm(), z0, { 0, 1, 0.5 }, o)
    refused("time", gq.sdeint, gbm(), z0, {}, o)
    refused("t[2] is string", gq.sdeint, gbm(), z0, { 0, "1" }, o)
    refused("finite", gq.sdeint, gbm(), z0, { 0, math.huge }, o)
    refused("gq.sde", gq.sdeint, {}, z0, { 0, 1 }, o)
    refused("shape", gq.sdeint, gbm(), z0, { 0, 1 }, { dt = 0.1, brownian = path {} })
    refused("lives on", gq.sdeint, gbm(), z0, { 0, 2 }, { dt = 0.1, brownian = path { shape = { 3, 2 } } })
    refused("tol", gq.sdeint, gbm(), z0, { 0, 1 }, { dt = 1e-4, brownian = path { shape = { 3, 2 }, tol = 1e-3 } })
    local leaves = { dt = 0.1, brownian = path { shape = { 3, 2 }, tol = 0.1 } }
    gq.sdeint(gbm(), z0, { 0, 1 }, leaves)
    refused("tol of at most 0.05", gq.sdeint, gbm(), z0, { 0, 0.25, 1 }, leaves)
    local function bad(f, g, noise)
      return gq.sdeint, gq.sde { drift = f, diffusion = g, noise = noise }, z0, { 0, 1 }, o
    end
    local function same(_, z) return z end
    refused("the drift", bad(function(_, z) return z:sum() end, same))
    refused("diagonal", bad(same, function(_, z) return z:sum() end))
    refused("general", bad(same, same, "general"))
    refused("the drift", bad(function(_, z) return z:to "float32" end, same))
    refused("drift", gq.sde, { diffusion = same })
    refused("diagonal", gq.sde, { drift = same, diffusion = same, noise = "diagnal" })
    refused("calculus", gq.sde, { drift = same, diffusion = same, calculus = "strato" })
    refused("gq.sde", gq.sde, { drift = same, diffusion = same, nose = "scalar" })
  end)
end)

-- ---- Wong-Zakai ----

-- sqrt(2 c) sin((i - 1/2) pi s) / ((i - 1/2) pi), s = (t - t0) / c: eq. (14)
local function sine(i, t, t0, t1)
  local c, w = t1 - t0, (i - 0.5) * math.pi
  return math.sqrt(2 * c) * math.sin(w * (t - t0) / c) / w
end

local function plain_noise(noise)
  return gq.sde {
    drift = function(_, z) return 0 * z end, diffusion = function(_, z) return 0 * z + 1 end, noise = noise,
  }
end

describe("wong_zakai", function()
  it("is an error outside of its interval, however it is called", function()
    local wz = gq.wong_zakai(plain_noise(), { t0 = 0.1, t1 = 0.7, seed = 1, cosines = 5 })
    local z = gq.zeros(4, 1, f64)
    local function at(times, f, o) return gq.odeint, f or wz, z, times, o end
    for _, times in ipairs { { 0.1, 2 }, { 0, 0.7 }, { 0.7, 0 }, { 0.2, 0.3, 0.71 } } do
      refused("[0.1, 0.7]", at(times))
      refused("[0.1, 0.7]", at(times, function(t, x) return wz(t, x) - x end))
      refused("[0.1, 0.7]", at(times, wz, { trace = false, params = {} }))
      refused("[0.1, 0.7]", at(times, wz, { batch = "independent" }))
    end
    refused("not finite", at({ 0, 0.7 }, function(t, x) return wz(2 * t, x) end))
    refused("outside of [0.1, 0.7]", wz, 0.8, z)
    refused("outside of [0.1, 0.7]", wz, gq.tensor(0, f64), z)
  end)

  it("is there at its ends, whatever rounding does to them, and at times that come from others", function()
    local wz = gq.wong_zakai(plain_noise(), { t0 = 0.1, t1 = 0.7, seed = 1, cosines = 5 })
    local z = gq.zeros(4, 1, f64)
    local want = last(gq.odeint(wz, z, { 0.1, 0.7 }))
    assert.close(last(gq.odeint(wz, z, gq.tensor({ 0.1, 0.7 }, { dtype = "float32" }))), want, 1e-5, 1e-6)
    assert.close(last(gq.odeint(function(t, x) return 2 * wz(2 * t, x) end, z, { 0.05, 0.35 })), want, 1e-4, 1e-5)
    assert.close(last(gq.odeint(function(t, x) return wz(t + 5, x) end, z, { -4.9, -4.3 })), want, 1e-4, 1e-5)
  end)

  it("is the Karhunen-Loeve sum: its integral and the variance of that", function()
    for _, m in ipairs { 1, 4, 12 } do
      local t0, t1 = -1, 2
      local wz = gq.wong_zakai(plain_noise(), { t0 = t0, t1 = t1, xi = gq.eye(m):to "float64" })
      local times = { t0, -0.3, 0.5, t1 }
      local z = gq.odeint(wz, gq.zeros(m, f64), times, { rtol = 1e-9, atol = 1e-10 })
      for k, t in ipairs(times) do
        local variance, want = 0, {}
        for i = 1, m do
          want[i] = sine(i, t, t0, t1)
          variance = variance + want[i] ^ 2
        end
        assert.close(z[k], want, 0, 1e-7)
        assert.close((z[k] * z[k]):sum():item(), variance, 1e-6, 1e-12)
        assert.below(variance, t - t0 + 1e-12, "variance")
      end
    end
  end)

  it("has the variance of Brownian motion in the limit", function()
    local m, variance = 2000, 0
    for i = 1, m do variance = variance + sine(i, 0.37, 0, 1) ^ 2 end
    assert.close(variance, 0.37, 1e-3)
    local n = 20000
    local wz = gq.wong_zakai(plain_noise(), { t0 = 0, t1 = 1, cosines = 10, seed = 3 })
    local want = 0
    for i = 1, 10 do want = want + sine(i, 0.37, 0, 1) ^ 2 end
    local z = last(gq.odeint(wz, gq.zeros(n, 1), { 0, 0.37 }, { rtol = 1e-5, atol = 1e-5 }))
    assert.close(mean(z * z), want, 0.04)
  end)

  it("is the derivative of that sum at every time", function()
    local xi = gq.randn(5, 3, 2, { dtype = "float64", seed = 1 })
    local wz = gq.wong_zakai(plain_noise(), { t0 = 0.5, t1 = 2, xi = xi })
    for _, t in ipairs { 0.5, 1.1, 2 } do
      local want, c = gq.zeros(3, 2, f64), 1.5
      for i = 1, 5 do
        want = want + xi[i] * (math.sqrt(2 / c) * math.cos((i - 0.5) * math.pi * (t - 0.5) / c))
      end
      assert.close(wz(t, gq.zeros(3, 2, f64)), want, 1e-12, 1e-12)
      assert.close(wz(gq.tensor(t, f64), gq.zeros(3, 2, f64)), want, 1e-12, 1e-12)
    end
  end)

  it("has polynomials for noise too, which end where the path does", function()
    local xi = gq.randn(6, 3, 2, { dtype = "float64", seed = 1 })
    local wz = gq.wong_zakai(plain_noise(), { t0 = 0.5, t1 = 2, xi = xi, expansion = "polynomial" })
    local function legendre(k, x)
      if k == 0 then return 1 elseif k == 1 then return x end
      return ((2 * k - 1) * x * legendre(k - 1, x) - (k - 1) * legendre(k - 2, x)) / k
    end
    local z = gq.zeros(3, 2, f64)
    for _, t in ipairs { 0.5, 1.1, 2 } do
      local want = gq.zeros(3, 2, f64)
      for i = 1, 6 do
        want = want + xi[i] * (math.sqrt((2 * i - 1) / 1.5) * legendre(i - 1, 2 * (t - 0.5) / 1.5 - 1))
      end
      assert.close(wz(t, z), want, 1e-12, 1e-12)
      assert.close(wz(gq.tensor(t, f64), z), want, 1e-12, 1e-12)
    end
    local solution = gq.odeint(wz, z, { 0.5, 2 }, { rtol = 1e-10, atol = 1e-10 })
    assert.close(last(solution), xi[1] * math.sqrt(1.5), 1e-8)       -- W(t1): the others integrate to zero
    for m = 0, 3 do
      gq.odeint(gq.wong_zakai(plain_noise(), { t0 = 0, t1 = 1, cosines = m, expansion = "polynomial" }), z, { 0, 1 })
    end
  end)

  it("tells how far its expansion is from the path", function()
    local n = 20000
    for expansion, m in helper.each({ "karhunen-loeve", "polynomial", "piecewise-linear" }, { 0, 1, 4 }) do
      -- Of W only what is there can be seen: W's own mean square less the expansion's.
      local wz = gq.wong_zakai(plain_noise(), { t0 = 0, t1 = 2, cosines = m, expansion = expansion, seed = 3 })
      local times = gq.linspace(0, 2, 41)
      local z = gq.odeint(wz, gq.zeros(n, 1), times, { rtol = 1e-5, atol = 1e-5 })
      local square = z:square():mean(2):mean():item() * 41 / 40 - z[41]:square():mean():item() / 80
      assert.close(wz:error() ^ 2, 1 - square, 0, 0.05)
    end
  end)

  it("has pieces of lines, to whose ends solves step", function()
    local xi = gq.randn(4, 3, 2, { dtype = "float64", seed = 1 })
    local o = { t0 = 0.1, t1 = 0.8, xi = xi, expansion = "piecewise-linear" }
    local wz = gq.wong_zakai(plain_noise(), o)
    local z, size = gq.zeros(3, 2, f64), math.sqrt(4 / 0.7)
    for k, t in ipairs { 0.1, 0.3, 0.55, 0.8 } do
      assert.close(wz(t, z), xi[k] * size, 1e-12)
      assert.close(wz(gq.tensor(t, f64), z), xi[k] * size, 1e-12)
    end
    assert.close(wz.grid_points, { 0.275, 0.45, 0.625 }, 1e-12)
    assert.equal("wong_zakai: 4 pieces on [0.1, 0.8]", tostring(wz))
    for _, name in ipairs { "float64", "float32" } do
      o.xi = xi:to(name)
      local got, info = gq.odeint(gq.wong_zakai(plain_noise(), o), z:to(name), { 0.1, 0.45, 0.8 })
      assert.close(got[2]:to "float64", (xi[1] + xi[2]) * (0.7 / 4 * size), 0, 1e-6)      -- exact but for rounding
      assert.close(got[3]:to "float64", xi:sum(1) * (0.7 / 4 * size), 0, 1e-6)
      assert.below(info.rejected, 1, "a step over an end would be refused")
      local back = gq.odeint(gq.wong_zakai(plain_noise(), o), got[3], { 0.8, 0.1 })
      assert.below(back[2]:abs():max():item(), 1e-5)
    end
    local leaf = gq.ones(3, 2, f64)
    leaf.requires_grad = true
    o.xi = xi
    local sde = gbm()
    for _, engine in ipairs { "direct", "gq", "adjoint" } do
      local end_ = last(gq.odeint(gq.wong_zakai(sde, o), leaf, { 0.1, 0.8 }, { rtol = 1e-8, atol = 1e-8,
        gradient = engine }))
      assert.close(gq.grad(end_:sum(), leaf), gq.exp(0.07 + 0.8 * xi:sum(1) * (0.7 / 4 * size)), 1e-5)
    end
    gq.odeint(gq.wong_zakai(sde, { t0 = 0, t1 = 1, cosines = 1, expansion = "piecewise-linear" }), leaf, { 0, 1 })
    gq.odeint(gq.wong_zakai(sde, { t0 = 0, t1 = 1, cosines = 0, expansion = "piecewise-linear" }), leaf, { 0, 1 })
  end)

  it("goes along a path that is given, and tells how far from it", function()
    local own = gq.brownian { t0 = -1, t1 = 3, shape = { 200, 1 }, seed = 1 }
    local z0 = gq.ones(200, 1, f64)
    for expansion, m in helper.each({ "karhunen-loeve", "polynomial", "piecewise-linear" }, { 1, 3, 12 }) do
      local o = { t0 = 0, t1 = 2, cosines = m, expansion = expansion, brownian = own }
      local wz = gq.wong_zakai(gbm(), o)
      assert.close(wz:error(own), wz:error(), 0.12)
      local other = gq.brownian { t0 = 0, t1 = 2, shape = { 200, 1 }, seed = 2 }
      assert.is_true(wz:error(other) > wz:error(own))
      local drawn = gq.wong_zakai(gbm(), { t0 = 0, t1 = 2, cosines = m, expansion = expansion }):redraw(other)
      assert.close(drawn:error(other), wz:error(), 0.12)
      if expansion ~= "karhunen-loeve" then                        -- these end where the path does
        local z = last(gq.odeint(wz, z0, { 0, 2 }, { rtol = 1e-7, atol = 1e-7 }))
        assert.close(z, gq.exp(0.2 + 0.8 * own(0, 2):to "float64"), 2e-5)
      end
    end
  end)

  it("has gradients of times, of every expansion, by every engine that has them", function()
    local xi, n = gq.randn(3, 4, 1, { dtype = "float64", seed = 3 }), 4
    for _, expansion in ipairs { "karhunen-loeve", "polynomial", "piecewise-linear" } do
      local wz = gq.wong_zakai(gbm(), { t0 = 0, t1 = 1, xi = xi, expansion = expansion })
      local w = gq.randn(3, n, 1, { seed = 7, dtype = "float64" })
      local function slope(t, z) return wz(t, z) * 1 end
      for _, engine in ipairs { "direct", "aca", "gq", "adjoint" } do
        local t = gq.tensor({ 0.1, 0.45, 0.9 }, f64)
        t.requires_grad = true
        local z = gq.odeint(wz, gq.ones(n, 1, f64), t, { rtol = 1e-9, atol = 1e-9, gradient = engine })
        local got = gq.grad((z * w):sum(), t)
        for k = 2, 3 do
          assert.close(got[k]:item(), (w[k] * slope(t[k]:item(), z[k]:detach())):sum():item(), 1e-5)
        end
        -- a later start is less of the way: z is a multiple of z0
        local first = (w[2] * z[2] + w[3] * z[3]):detach() * slope(0.1, gq.ones(n, 1, f64))
        assert.close(got[1]:item(), -first:sum():item(), 1e-5)
      end
    end
    local t = gq.tensor({ 0, 1 }, f64)
    t.requires_grad = true
    refused("gq.wong_zakai", gq.sdeint, gbm(), gq.ones(2, 1, f64), t, { dt = 0.1 })
  end)

  it("gives geometric Brownian motion over its own smooth path", function()
    local m, n = 6, 40
    local xi = gq.randn(m, n, 1, { dtype = "float64", seed = 2 })
    local z = last(gq.odeint(gq.wong_zakai(gbm(), { t0 = 0, t1 = 1, xi = xi }), gq.ones(n, 1, f64), { 0, 1 },
      { rtol = 1e-10, atol = 1e-12 }))
    local b = gq.zeros(n, 1, f64)
    for i = 1, m do b = b + xi[i] * sine(i, 1, 0, 1) end
    assert.close(z, gq.exp(0.1 + 0.8 * b), 1e-7)
  end)

  it("gives an Ito SDE its correction, of every kind of noise, eager or traced, with gradients", function()
    local z, t = gq.randn(4, 2, { seed = 1, dtype = "float64" }), 0.3
    local m = gq.tensor({ { 0.3, 0.4 }, { -0.5, 0.2 } }, f64)
    local a = gq.tensor(0.8, { dtype = "float64", requires_grad = true })
    local kinds = {
      diagonal = { function(_, x) return a * gq.sin(x) end,
        function(x) return 0.5 * a * a * gq.sin(x) * gq.cos(x) end },
      scalar = { function(_, x) return a * x end, function(x) return 0.5 * a * a * x end },
      additive = { function() return m * a end, function(x) return 0 * x end },
      general = { function(_, x) return gq.stack({ a * x, a * gq.sin(x) }, -1) end,
        function(x) return 0.5 * a * a * (x + gq.sin(x) * gq.cos(x)) end },
    }
    for noise, pair in pairs(kinds) do
      local function field(calculus, drift)
        return gq.wong_zakai(gq.sde { drift = drift, diffusion = pair[1], noise = noise, calculus = calculus },
          { t0 = 0, t1 = 1, seed = 3, cosines = 4 })
      end
      local ito = field("ito", function(_, x) return -x end)
      local same = field("stratonovich", function(_, x) return -x - pair[2](x) end)
      assert.close(ito(t, z), same(t, z), 1e-12, 1e-12)
      local opts = { rtol = 1e-9, atol = 1e-9, gradient = "direct" }
      local got, want = gq.odeint(ito, z, { 0, 1 }, opts), gq.odeint(same, z, { 0, 1 }, opts)
      assert.close(got, want, 1e-9, 1e-9)
      assert.close(gq.grad(last(got):sum(), a), gq.grad(last(want):sum(), a), 1e-7, 1e-12)
    end
    local none = gq.wong_zakai(gbm "ito", { t0 = 0, t1 = 1, cosines = 0 })
    assert.close(none(t, z), z * (0.1 - 0.32), 1e-12)
  end)

  it("draws once for every shape, from its seed, more cosines refining the path", function()
    local z = gq.zeros(4, 2, f64)
    local function at(o, t) return gq.wong_zakai(plain_noise(), o)(t or 0.3, z):totable() end
    local wz = gq.wong_zakai(plain_noise(), { t0 = 0, t1 = 1, seed = 9 })
    assert.same(wz(0.3, z):totable(), wz(0.3, z):totable())
    assert.same(wz(0.3, z):totable(), at { t0 = 0, t1 = 1, seed = 9 })
    assert.same(at { t0 = 0, t1 = 1, seed = 9, cosines = 10 }, at { t0 = 0, t1 = 1, seed = 9 })
    local before = wz(0.3, z):totable()
    assert.are_not.same(before, wz:redraw()(0.3, z):totable())
    assert.same(before, wz:redraw(9)(0.3, z):totable())
    gq.manual_seed(1)
    local first = at { t0 = 0, t1 = 1 }
    assert.are_not.same(first, at { t0 = 0, t1 = 1 })
    gq.manual_seed(1)
    assert.same(first, at { t0 = 0, t1 = 1 })
    local few, more = gq.core.cosines(5, 3, { 7 }, "float64"), gq.core.cosines(5, 8, { 7 }, "float64")
    assert.same(few:totable(), more:narrow(1, 1, 3):totable())
  end)

  it("is the drift alone without cosines", function()
    local wz = gq.wong_zakai(gbm(), { t0 = 0, t1 = 1, cosines = 0 })
    local z = last(gq.odeint(wz, gq.ones(2, 1, f64), { 0, 1 }, { rtol = 1e-8, atol = 1e-8 }))
    assert.close(z, gq.full({ 2, 1 }, math.exp(0.1), f64), 1e-6)
  end)

  it("serves scalar, additive and general noise", function()
    local z0, m = gq.randn(5, 2, { seed = 1, dtype = "float64" }), 4
    local xi = gq.randn(m, 5, 3, { seed = 2, dtype = "float64" })
    local matrix = gq.tensor({ { 1, 0, 2 }, { 0.5, -1, 0 } }, f64)
    local b, s = gq.zeros(5, 3, f64), gq.zeros(5, 1, f64)
    for i = 1, m do
      b = b + xi[i] * sine(i, 1, 0, 1)
      s = s + xi[i]:narrow(2, 1, 1) * sine(i, 1, 0, 1)
    end
    local function solve(noise, g, draw)
      local sde = gq.sde { drift = function(_, z) return 0 * z end, diffusion = g, noise = noise }
      local wz = gq.wong_zakai(sde, { t0 = 0, t1 = 1, xi = draw })
      return last(gq.odeint(wz, z0, { 0, 1 }, { rtol = 1e-9, atol = 1e-9 }))
    end
    local want = z0 + b:matmul(matrix:transpose(1, 2))
    assert.close(solve("additive", function() return matrix end, xi), want, 1e-6, 1e-7)
    assert.close(solve("general", function() return matrix:expand(5, 2, 3) end, xi), want, 1e-6, 1e-7)
    assert.close(solve("scalar", function(_, z) return 0.5 * z end, xi:narrow(3, 1, 1)), z0 * gq.exp(0.5 * s), 1e-6)
  end)

  it("lets gradients through to the parameters and to xi", function()
    local a = gq.tensor(0.3, { dtype = "float64", requires_grad = true })
    local xi = gq.randn(3, 4, 1, { seed = 1, dtype = "float64" })
    xi.requires_grad = true
    local sde = gq.sde { drift = function(_, z) return 0 * z end, diffusion = function(_, z) return a * z end }
    local z = gq.odeint(gq.wong_zakai(sde, { t0 = 0, t1 = 1, xi = xi }), gq.ones(4, 1, f64), { 0, 1 },
      { rtol = 1e-9, atol = 1e-9, gradient = "direct" })
    last(z):sum():backward()
    local da, b = 0, {}
    for k = 1, 4 do
      b[k] = 0
      for i = 1, 3 do b[k] = b[k] + xi[i][k][1]:item() * sine(i, 1, 0, 1) end
      da = da + b[k] * math.exp(0.3 * b[k])
    end
    assert.close(a.grad:item(), da, 1e-6)
    for i = 1, 3 do
      assert.close(xi.grad[i][2][1]:item(), 0.3 * sine(i, 1, 0, 1) * math.exp(0.3 * b[2]), 1e-6)
    end
  end)

  it("gives the same gradient by every engine", function()
    gq.manual_seed(3)
    local net = gq.nn.mlp { sizes = { 2, 5, 2 }, activation = "tanh", time = true }
    net:to "float64"
    local sde = gq.sde { drift = net, diffusion = function(t, z) return 0.3 * gq.sigmoid(z) + 0.1 * t end }
    local wz = gq.wong_zakai(sde, { t0 = 0, t1 = 1, seed = 4, cosines = 5 })
    local z0, want = gq.randn(40, 2, { seed = 5, dtype = "float64" }), nil
    for _, engine in ipairs { "direct", "adjoint", "seminorm", "gq", "gqc" } do
      local opts = { rtol = 1e-8, atol = 1e-8, gradient = engine, gq = { nodes = "step" } }
      local z = gq.odeint(wz, z0, { 0, 0.5, 1 }, opts)
      local grads = gq.grad({ (z * z):mean() }, net:parameters())
      want = want or grads
      for i = 1, #want do assert.close(helper.relative(grads[i], want[i]), 0, 0, 1e-4) end
    end
  end)

  it("refuses what makes no sense", function()
    local z, sde = gq.zeros(2, 1), plain_noise()
    refused("t1", gq.wong_zakai, sde, { t0 = 0 })
    refused("smaller", gq.wong_zakai, sde, { t0 = 1, t1 = 1 })
    refused("cosines", gq.wong_zakai, sde, { t0 = 0, t1 = 1, cosines = -1 })
    refused("cosines", gq.wong_zakai, sde, { t0 = 0, t1 = 1, cosines = 1.5 })
    refused("expansion", gq.wong_zakai, sde, { t0 = 0, t1 = 1, expansion = "polynomia" })
    refused("cosines", gq.wong_zakai, sde, { t0 = 0, t1 = 1, cosins = 4 })
    refused("not both", gq.wong_zakai, sde, { t0 = 0, t1 = 1, xi = gq.zeros(2, 2, 1), seed = 1 })
    refused("gq.sde", gq.wong_zakai, {}, { t0 = 0, t1 = 1 })
    refused('did you mean "piecewise-linear"', gq.wong_zakai, sde, { t0 = 0, t1 = 1, expansion = "piecewise_linear" })
    local own = gq.brownian { t0 = 0, t1 = 1, shape = { 3, 1 }, seed = 1 }
    refused("a path of gq.brownian", gq.wong_zakai, sde, { t0 = 0, t1 = 1, brownian = 3 })
    refused("[0, 1], the noise on [0, 2]", gq.wong_zakai, sde, { t0 = 0, t1 = 2, brownian = own })
    refused("brownian or seed", gq.wong_zakai, sde, { t0 = 0, t1 = 1, brownian = own, seed = 1 })
    refused("brownian or xi", gq.wong_zakai, sde, { t0 = 0, t1 = 1, brownian = own, xi = gq.zeros(2, 3, 1) })
    local along = gq.wong_zakai(sde, { t0 = 0, t1 = 1, brownian = own, cosines = 2 })
    refused("of the Brownian path has shape {2, 3, 1}", along, 0, z)
    refused("a path of gq.brownian", along.error, along, "path")
    refused("{2, 3, 1}", along.error, along, gq.brownian { t0 = 0, t1 = 1, shape = { 4, 1 }, seed = 1 })
    refused("no cosines", function() gq.wong_zakai(sde, { t0 = 0, t1 = 1, cosines = 0 }):error(own) end)
    refused("{3, 2, 1}", gq.wong_zakai(sde, { t0 = 0, t1 = 1, xi = gq.zeros(3, 4, 1) }), 0, z)
    refused("a state of one tensor expected, got table: join several by gq.cat", gq.odeint,
      gq.wong_zakai(sde, { t0 = 0, t1 = 1 }), { z, z }, { 0, 1 })
  end)
end)
