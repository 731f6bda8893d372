-- quadrature_spec.lua -- gq.quadrature: the rules themselves, and the gradients they give.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"
local legendre = helper.legendre

local rules = gq.core.quadratures()

-- What n points promise: the degree that is exact, and for composite rules the power of h by which the error
-- falls. A rule without a line here fails.
local promised = {
  ["gauss-legendre"] = { degree = function(n) return 2 * n - 1 end },
  ["gauss-lobatto"] = { degree = function(n) return 2 * n - 3 end, ends = true },
  ["clenshaw-curtis"] = { degree = function(n) return n - 1 + n % 2 end, ends = true },
  trapezoid = { degree = function() return 1 end, order = 2, ends = true },
  simpson = { degree = function() return 3 end, order = 4, ends = true },
  boole = { degree = function() return 5 end, order = 6, ends = true },
  ["monte-carlo"] = { degree = function() return 0 end, random = true },
}

local function integral(x, w, f)
  local sum = 0
  for i = 1, #x do sum = sum + w[i] * f(x[i]) end
  return sum
end

for _, rule in ipairs(rules) do
  local promise = promised[rule.name]

  describe("the " .. rule.name .. " rule", function()
    it("has points in order, weights that sum to the length, and says where it is from", function()
      assert.truthy(#rule.source > 10)
      for n = 1, 64 do
        local x, w = gq.core.quadrature(rule.name, n, n)
        local total = 0
        assert.equal(#x, #w)
        assert.truthy(#x >= n and #x < n + rule.step + rule.least)
        assert.equal(0, (#x - rule.least) % rule.step)
        for i = 1, #x do
          assert.truthy(x[i] >= -1 and x[i] <= 1 and w[i] > 0)
          assert.truthy(i == 1 or x[i] > x[i - 1])
          total = total + w[i]
        end
        assert.close(total, 2, 1e-14)
        if promise.ends then assert.same({ -1, 1 }, { x[1], x[#x] }) end
      end
    end)

    it("is exact to its degree, and no more", function()
      for n = 1, 33 do
        local x, w = gq.core.quadrature(rule.name, n, n)
        local degree = promise.degree(#x)
        for k = 1, degree do
          assert.below(math.abs(integral(x, w, function(t) return legendre(k, t) end)), 3e-14, n .. ", degree " .. k)
        end
        -- further on Clenshaw and Curtis err by too little to see
        local exact = degree % 2 == 1 and 2 / (degree + 2) or 0
        local off = integral(x, w, function(t) return t ^ (degree + 1) end) - exact
        if #x < 9 then assert.truthy(math.abs(off) > 1e-6, n .. " points, degree " .. degree + 1) end
      end
    end)

    if not rule.random then
      it("is symmetric", function()
        for n = 1, 64 do
          local x, w = gq.core.quadrature(rule.name, n)
          for i = 1, #x do
            assert.close(x[i], -x[#x + 1 - i], 0, 1e-15)
            assert.close(w[i], w[#x + 1 - i], 1e-13)
          end
        end
      end)
    else
      it("draws the same points from the same seed, others from another", function()
        local x = gq.core.quadrature(rule.name, 20, 7)
        assert.same(x, (gq.core.quadrature(rule.name, 20, 7)))
        assert.not_same(x, (gq.core.quadrature(rule.name, 20, 8)))
      end)
    end

    if promise.order then
      it("errs by the power of its order", function()
        local function error(n)
          local x, w = gq.core.quadrature(rule.name, n)
          return math.abs(integral(x, w, math.exp) - (math.exp(1) - math.exp(-1)))
        end
        assert.close(math.log(error(17) / error(33), 2), promise.order, 0.03)
      end)
    end
  end)
end

-- The error of dL/da for z' = a z cos 3t, L = z(T)^2; without the cosine the integrand would be constant.
local function gradient(options, times)
  local a = gq.tensor(0.7, { requires_grad = true, dtype = "float64" })
  local z, info = gq.odeint(function(t, z) return a * z * gq.cos(3 * t) end, gq.ones(1, { dtype = "float64" }),
    times or { 0, 2 }, options)
  z[#z]:square():sum():backward()
  local s = math.sin(3 * (times and times[#times] or 2)) / 3
  return a.grad:item() / (2 * s * math.exp(1.4 * s)) - 1, info
end

describe("gq.quadrature", function()
  for rule, trajectory in helper.each(rules, { "reverse", "dense" }) do
    local function options(n, more)
      local o = { rtol = 1e-11, atol = 1e-11, adjoint = { trajectory = trajectory },
        gq = { quadrature = rule.name, nodes = n, seed = 5 } }
      for k, v in pairs(more or {}) do o.gq[k] = v end
      return o
    end

    if not rule.random then
      it(("%s, %s: the gradient converges with n"):format(rule.name, trajectory), function()
        local last = math.huge
        for _, n in ipairs { 6, 12, 24, 48, 96 } do
          local error, info = gradient(options(n))
          error = math.abs(error)
          assert.below(error, math.max(0.5 * last, 1e-8), n .. " nodes")
          assert.truthy(info.nodes >= n and info.nodes < n + 5)
          last = error
        end
        assert.below(last, rule.name == "trapezoid" and 1e-2 or 1e-5, "96 nodes")
      end)

      it(("%s, %s: several intervals, panels, backwards in time"):format(rule.name, trajectory), function()
        assert.below(math.abs(gradient(options(60), { 0, 0.3, 1.1, 2 })), 3e-3, "intervals")
        assert.below(math.abs(gradient(options(60), { 0, -0.3, -1.1, -2 })), 3e-3, "backwards")
        local whole, one = gradient(options(40))
        local parts, four = gradient(options(40, { panels = 4 }))
        assert.below(math.abs(parts), math.max(30 * math.abs(whole), 1e-4), "panels")
        assert.truthy(four.nodes >= one.nodes and four.nodes <= one.nodes + 16)
        local every = options("step")
        assert.below(math.abs(gradient(every)), 3e-3, "nodes in every step")
        every.method = "rk4"
        every.step_size = 0.07            -- does not divide the interval
        assert.below(math.abs(gradient(every)), 1e-2, "fixed steps")
      end)
    else
      it(("%s, %s: the error falls as n to the power -1/2"):format(rule.name, trajectory), function()
        local function rms(n)
          local sum = 0
          for seed = 1, 24 do sum = sum + gradient(options(n, { seed = seed })) ^ 2 end
          return math.sqrt(sum / 24)
        end
        assert.close(math.log(rms(20) / rms(320), 16), 0.5, 0.4)
      end)
    end
  end

  it("of parity mode (overshoot) takes every rule", function()
    for _, rule in ipairs(rules) do
      local error = gradient { rtol = 1e-9, atol = 1e-9, parity = true,
        gq = { quadrature = rule.name, nodes = 400, seed = 1 } }
      assert.below(math.abs(error), rule.random and 0.3 or 1e-3, rule.name)
    end
  end)

  it("monte-carlo repeats with gq.seed and with gq.manual_seed, and otherwise does not", function()
    local function draw(seed)
      return (gradient { gq = { quadrature = "monte-carlo", nodes = 9, seed = seed } })
    end
    assert.equal(draw(3), draw(3))
    assert.not_equal(draw(3), draw(4))
    gq.manual_seed(11)
    local first = draw()
    assert.not_equal(first, draw())
    gq.manual_seed(11)
    assert.equal(first, draw())
    -- other rules leave the generator alone
    gq.manual_seed(11)
    gradient { gq = { quadrature = "boole" } }
    assert.equal(first, draw())
  end)

  it("nodes are judged, and refined where they do not serve, whatever the rule, panels too", function()
    local function pulse(options, times)
      local p = gq.tensor({ 0.7 }, { dtype = "float64", requires_grad = true })
      local z, info = gq.odeint(function(t, z) return p * gq.exp(-((t - 5.3) / 0.3) ^ 2) - 0.3 * z end,
        gq.ones({ 1 }, { dtype = "float64" }), times, options)
      z:sum():backward()
      return p.grad:item(), info
    end
    local many = {}
    for i = 0, 60 do many[i + 1] = i / 6 end
    for _, times in ipairs { { 0, 10 }, many } do
      local right = pulse({ gradient = "direct", rtol = 1e-10, atol = 1e-10, max_step = 0.1 }, times)
      for _, rule in ipairs(rules) do
        for panels = 1, 3, 2 do
          local g, info = pulse({ gradient = "gq", rtol = 1e-6, atol = 1e-6,
            gq = { quadrature = rule.name, panels = panels, seed = 2 } }, times)
          assert.close(right, g, 1e-4 * math.abs(right))
          assert.is_true(info.quadrature_error < 1e-4 and info.unresolved == 0, rule.name)
          if #times == 2 then assert.is_true(info.rounds > 0, rule.name) end
        end
      end
    end
    -- where eq. (9) serves, its nodes stay the rule's
    local a = gq.tensor({ 0.5 }, { dtype = "float64", requires_grad = true })
    local z, info = gq.odeint(function(_, z) return -a * z end, gq.ones({ 1 }, { dtype = "float64" }), { 0, 1 },
      { gradient = "gq", rtol = 1e-3, atol = 1e-3, gq = { quadrature = "simpson" } })
    z[2]:sum():backward()
    assert.same({ 0, 3 }, { info.rounds, info.nodes })
    assert.is_true(info.quadrature_error < 3e-3)
  end)

  it("many steps are refined in the pass that took them, or in a second where memory_limit leaves no room", function()
    local function long(limit)
      local p = gq.tensor({ 0.7, 0.3 }, { dtype = "float64", requires_grad = true })
      local z, info = gq.odeint(function(t, z) return p[1] * gq.sin(3 * t) - p[2] * z * z end,
        gq.ones({ 1 }, { dtype = "float64" }), { 0, 20 }, { gradient = "gq", rtol = 1e-9, atol = 1e-9, audit = false,
          adjoint = { trajectory = "dense" }, memory_limit = limit })
      z[2]:sum():backward()
      local steps = info.nfe_backward - info.nodes
      return p.grad:totable(), steps / (info.steps_backward + info.rejected_backward), info
    end
    local g, each, info = long()
    assert.is_true(info.steps_backward > 100 and info.rounds > 0 and each < 6.2, each)
    local again, twice = long(info.peak_bytes // 2)
    assert.is_true(twice > 11, twice)
    for i = 1, 2 do assert.close(g[i], again[i], 1e-7 * math.abs(g[i])) end
  end)

  it("check compares n and 2 n of every rule", function()
    for _, rule in ipairs(rules) do
      local _, info = gradient { gradient = "check", rtol = 1e-9, atol = 1e-9,
        gq = { quadrature = rule.name, nodes = 12, seed = 2 } }
      assert.truthy(info.audit > 0)
    end
  end)

  it("is capped by max_nodes like any other", function()
    local _, info = gradient { gq = { nodes = "nfe", C = 10, max_nodes = 9, quadrature = "simpson" } }
    assert.equal(9, info.nodes)
    assert.truthy(info.nodes_wanted > 9)
  end)

  it("names the rules and the options there are", function()
    helper.refused({ 'did you mean "simpson"', "clenshaw-curtis" }, gradient, { gq = { quadrature = "simpsons" } })
    assert.truthy(helper.message(gradient, { gq = { panel = 2 } }):find("panels", 1, true))
    assert.truthy(helper.message(gradient, { gq = { panels = 0 } }):find("panels", 1, true))
    assert.truthy(helper.message(gradient, { gq = { seed = "x" } }):find("seed", 1, true))
  end)
end)

it("a parameter whose gradient is rounding alone asks for no more nodes", function()
  gq.manual_seed(0)
  local query, key, value = gq.nn.Linear(16, 16), gq.nn.Linear(16, 16), gq.nn.Linear(16, 16)
  local z0 = gq.randn(8, 16, 16)
  local function attention(_, z) -- softmax takes from each row what the key's bias adds to all of it
    local scores = query(z):matmul(key(z):transpose(2, 3)) / 4
    return scores:softmax(-1):matmul(value(z)) - z
  end
  local nodes = {}
  for _, with in ipairs { true, false } do
    key.bias.requires_grad = with
    local z, info = gq.odeint(attention, z0, { 0, 1 }, { gradient = "gq", rtol = 1e-3, atol = 1e-3 })
    z[2]:square():sum():backward()
    nodes[#nodes + 1] = info.nodes
    assert.below(info.quadrature_error, 1e-3)
  end
  assert.below(key.bias.grad:norm():item(), 1e-6)
  assert.equal(nodes[2], nodes[1])
end)

describe("info.quadrature_error of nodes in every step", function()
  -- the solve does not see w, the integrand does
  local function slope(w, quadrature, more)
    local o = helper.with({ rtol = 1e-3, atol = 1e-3, gq = { nodes = "step", quadrature = quadrature } }, more)
    local got, exact, info = problems.hidden(w, o)
    return math.abs(got / exact - 1), info.quadrature_error
  end

  it("is near the error of the gradient's quadrature", function()
    for _, quadrature in ipairs { "gauss-legendre", "trapezoid" } do
      for more, w in helper.each({ {}, { adjoint = { trajectory = "dense" } } }, { 0.5, 1, 2, 5, 20 }) do
        local error, told = slope(w, quadrature, more)
        assert.truthy(told > error / 5 and told < 5 * error, ("w = %g: %g told, %g true"):format(w, told, error))
      end
    end
    assert.truthy(select(2, slope(100, "gauss-legendre")) > 1)
  end)

  local function network(options, threads)
    local before = gq.threads()
    gq.set_threads(threads or before)
    gq.manual_seed(4)
    local net = gq.nn.mlp { sizes = { 3, 16, 3 }, activation = "tanh", time = true }:to("float64")
    local z, info = gq.odeint(net, gq.randn(64, 3, { dtype = "float64" }), { 0, 0.4, 1 }, options)
    z:square():sum():backward()
    gq.set_threads(before)
    return info
  end

  it("is there for networks, whatever the threads", function()
    for _, options in ipairs { { rtol = 1e-4, atol = 1e-4 }, { rtol = 1e-4, atol = 1e-4, overshoot = true },
      { rtol = 1e-4, atol = 1e-4, adjoint = { impulses = "moments" } }, { method = "rk4", step_size = 0.1 } } do
      options.gq = { nodes = "step" }
      local one, two = network(options, 1), network(options, 2)
      assert.close(two.quadrature_error, one.quadrature_error, 1e-4)
      assert.below(one.quadrature_error, 1e-2)
    end
  end)

  it("is absent without nodes in every step, there for a matrix alone", function()
    assert.is_nil(network({}).quadrature_error)
    assert.is_nil(network({ gradient = "seminorm", gq = { nodes = "step" } }).quadrature_error)
    local W = gq.randn(2, 2, { dtype = "float64", requires_grad = true })
    local z, info = gq.odeint(function(_, z) return z:matmul(W) end, gq.ones(3, 2, { dtype = "float64" }), { 0, 1 },
      { gq = { nodes = "step" } })
    z[2]:sum():backward()
    assert.below(info.quadrature_error, 1e-4)
  end)
end)

describe("a matrix spread out of few numbers", function()
  local function of(how)
    local w = gq.zeros(1, 32, { dtype = "float64" })
    w.requires_grad = true
    local function f(t, z)
      local m = w:expand(32, 32)
      if how == "made" then m = m * (1 + 2 ^ -50) end
      return z:matmul(m) * gq.sin(3 * t + 1) - z
    end
    local z, info = gq.odeint(f, gq.ones(8, 32, { dtype = "float64" }), { 0, 4 },
      { gradient = "gq", method = "dopri8", rtol = 1e-9, atol = 1e-9, adjoint = { rtol = 1e-4 }, audit = false })
    z[2]:square():sum():backward()
    return w.grad:clone(), info
  end

  it("takes the nodes that the same matrix takes", function()
    local spread, info = of("spread")
    local made, other = of("made")
    assert.equal(other.nodes, info.nodes)
    assert.equal(0, info.unresolved)
    assert.is_true((spread - made):norm():item() <= 1e-9 * made:norm():item())
  end)
end)
