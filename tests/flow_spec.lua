-- flow_spec.lua -- continuous normalising flows: change of variables, traces, gradients; densities in the plane.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local nn, vector, leaf, message = gq.nn, problems.vector, problems.leaf, helper.message
local f64 = { dtype = "float64" }
local tight = { rtol = 1e-9, atol = 1e-9 }

local function normals(seed, ...) return gq.randn({ ... }, { dtype = "float64", seed = seed }) end

-- A network of float64 whose field is far from linear.
local function network(D, seed)
  gq.manual_seed(seed)
  return nn.mlp { sizes = { D, 8, D }, activation = "tanh", time = true, dtype = "float64" }
end

local function flow_of(net, D, more) return gq.flow(helper.with({ net = net, dim = D, solver = tight }, more)) end

-- Points of an n x n grid of cells over [-r, r]^2, {n n, 2}, and the area of a cell.
local function grid(n, r)
  local g = (gq.arange(1, n, 1, f64) - 0.5) * (2 * r / n) - r
  local x = gq.stack({ g:reshape(n, 1):expand(n, n), g:reshape(1, n):expand(n, n) }, 3)
  return x:reshape(n * n, 2), (2 * r / n) ^ 2
end

-- ---- the trace ----

-- Sum of dy_i/dz_i by central differences, {n}.
local function trace_by_differences(net, t, z)
  local h, sum = 1e-5, 0
  for i = 1, z.shape[2] do
    local step = gq.zeros(z.shape, f64)
    step[{ {}, i }] = h
    sum = sum + ((net(t, z + step) - net(t, z - step)) / (2 * h))[{ {}, i }]:detach()
  end
  return sum
end

describe("nn.CNF", function()
  it("returns the field and minus the trace of its Jacobian", function()
    for _, D in ipairs { 1, 2, 5 } do
      local net, z = network(D, D), normals(1, 4, D)
      local d = nn.CNF(net)(0.3, { z, gq.zeros(4, f64) })
      assert.same(net(0.3, z):totable(), d[1]:totable())
      assert.close(d[2], -trace_by_differences(net, 0.3, z), 1e-8, 1e-10)
    end
  end)

  it("takes samples of any shape, and delta as {n} or {n, 1}", function()
    local a = normals(2, 3, 2, 2)
    local cnf, z = nn.CNF(function(_, y) return a * y * y end), normals(3, 3, 2, 2)
    local want = (a * z * -2):reshape(3, 4):sum(2)
    assert.close(cnf(0, { z, gq.zeros(3, f64) })[2], want, 1e-12)
    assert.close(cnf(0, { z, gq.zeros(3, 1, f64) })[2], want:reshape(3, 1), 1e-12)
  end)

  it("with hutchinson's estimator is right on the average over all probes of signs", function()
    local net, z = network(2, 7), normals(4, 3, 2)
    local exact = nn.CNF(net)(0.3, { z, gq.zeros(3, f64) })[2]
    local mean, apart = 0, 0
    for a, b in helper.each({ -1, 1 }, { -1, 1 }) do
      local probe = vector { { a, b } }:expand(3, 2):clone()
      local one = nn.CNF(net, { trace = "hutchinson", probe = probe })(0.3, { z, gq.zeros(3, f64) })[2]
      mean, apart = mean + one / 4, math.max(apart, (one - exact):abs():max():item())
    end
    assert.close(mean, exact, 1e-12)
    assert.is_true(apart > 0.01)                    -- one probe alone is not
  end)

  it("draws one probe for a solve, another for the next", function()
    local A = vector { { 0.3, -0.5 }, { 0.8, 0.4 } }
    for _, noise in ipairs { "rademacher", "gaussian" } do
      local cnf = nn.CNF(function(_, z) return z:matmul(A:t()) end, { trace = "hutchinson", noise = noise })
      local function solve()
        return gq.odeint(cnf, { normals(1, 20, 2), gq.zeros(20, f64) }, { 0, 1, 2 }, tight)[2]
      end
      gq.manual_seed(5)
      local a, b = solve(), solve()
      assert.close(a[3], a[2] * 2, 1e-9)            -- -e' A e is constant in time
      assert.not_same(a:totable(), b:totable())
      gq.manual_seed(5)
      assert.same(a:totable(), solve():totable())
      local of_signs = 0                            -- tr A +- (a12 + a21)
      for _, v in ipairs((-a[2]):totable()) do
        if math.min(math.abs(v - 1), math.abs(v - 0.4)) < 1e-9 then of_signs = of_signs + 1 end
      end
      assert.equal(noise == "rademacher" and 20 or 0, of_signs)
    end
  end)

  it("is a module that says what it is, and refuses what it cannot use", function()
    local net = network(2, 1)
    local cnf = nn.CNF(net, { trace = "hutchinson" })
    assert.matches("CNF(hutchinson, rademacher", tostring(cnf), 1, true)
    assert.equal(#net:parameters(), #cnf:parameters())
    assert.error_matches(function() nn.CNF(3) end, "net: a function expected")
    assert.error_matches(function() nn.CNF(net, { trace = "exakt" }) end, 'trace: one of exact, hutchinson expected')
    assert.error_matches(function() nn.CNF(net, { nois = "gaussian" }) end, "did you mean 'noise'")
    assert.error_matches(function() nn.CNF(function() return 3 end)(0, { normals(1, 3, 2), gq.zeros(3, f64) }) end,
      "net returns dz/dt, a tensor float64 {3, 2}; got number 3")
    assert.error_matches(function() cnf(0, normals(1, 3, 2)) end, "a state {z, delta}")
    assert.error_matches(function() cnf(0, { normals(1, 3, 2) }) end, "{n} expected")
    assert.error_matches(function() cnf(0, { normals(1, 3, 2), gq.zeros(2, f64) }) end, "{n} expected")
    assert.error_matches(function() cnf({ normals(1, 3, 2), gq.zeros(3, f64) }) end, "depends on time")
    local fixed = nn.CNF(net, { trace = "hutchinson", probe = gq.ones(2, 2, f64) })
    assert.error_matches(function() fixed(0, { normals(1, 3, 2), gq.zeros(3, f64) }) end,
      "probe: a tensor float64 {3, 2} expected")
  end)
end)

-- ---- change of variables ----

describe("gq.flow", function()
  it("of a linear field has the map e^(A t) and log det t tr A", function()
    local w, t0, t1 = 0.7, 0.5, 2
    local c, s = math.cos(w * (t1 - t0)), math.sin(w * (t1 - t0))
    local k = math.exp(0.3 * (t1 - t0))
    local A = vector { { 0.3, -w }, { w, 0.3 } }
    local flow = flow_of(function(_, z) return z:matmul(A:t()) end, 2, { times = { t0, t1 } })
    local z = normals(1, 5, 2)
    local x, log_det, info = flow:forward(z)
    local map = vector { { k * c, -k * s }, { k * s, k * c } }
    assert.close(x, z:matmul(map:t()), 1e-7, 1e-8)
    assert.close(log_det, gq.full({ 5 }, 0.6 * (t1 - t0), f64), 1e-9)
    assert.is_true(info.nfe > 0)
    assert.same(log_det:totable(), select(2, flow(z, { trace = "exact" })):totable())
    local back, log_det_back = flow:inverse(x)
    assert.close(back, z, 1e-7, 1e-8)
    assert.close(log_det_back, -log_det, 1e-9)
    local want = z:square():sum(2) * -0.5 - math.log(2 * math.pi) - 0.6 * (t1 - t0)
    assert.close((flow:log_prob(x)), want, 1e-7)
  end)

  it("inverts itself, and both ways give the same determinant, by either trace", function()
    local flow = flow_of(network(3, 2), 3)
    local z = normals(2, 6, 3)
    for _, o in ipairs { { trace = "exact" }, { trace = "hutchinson", seed = 3 },
      { trace = "hutchinson", noise = "gaussian", seed = 3 } } do
      local x, log_det = flow:forward(z, o)
      local back, log_det_back = flow:inverse(x, o)
      assert.close(back, z, 1e-6, 1e-7)
      assert.close(log_det_back, -log_det, 1e-5, 1e-7)
    end
  end)

  it("has densities that integrate to one", function()
    local net = network(2, 3)
    for _, p in ipairs(net:parameters()) do gq.no_grad(function() p:copy_(p * 1.5) end) end
    local x, area = grid(64, 8)
    for _, times in ipairs { { 0, 1 }, { 0.5, -0.5 } } do
      local flow = flow_of(net, 2, { times = times, solver = { rtol = 1e-6, atol = 1e-6 } })
      assert.close(gq.no_grad(function() return (flow:log_prob(x)) end):exp():sum():item() * area, 1, 1e-4)
    end
  end)

  it("samples are the normal numbers of the seed, carried forwards", function()
    local flow = flow_of(network(2, 4), 2)
    local x, info = flow:sample(50, { seed = 9 })
    assert.same({ { 50, 2 }, "float64", false }, { x.shape, x.dtype, x.requires_grad })
    assert.is_true(info.nfe > 0)
    assert.close(x, (flow:forward(normals(9, 50, 2))), 1e-7, 1e-8)
    assert.same(x:totable(), (flow:sample(50, { seed = 9 })):totable())
    assert.not_same(x:totable(), (flow:sample(50)):totable())
    local square = gq.flow { net = function(_, z) return z * 0 end, dim = { 2, 3 } }
    assert.same({ 4, 2, 3 }, square:sample(4).shape)
    assert.close((square:log_prob(gq.zeros(1, 2, 3))), { -3 * math.log(2 * math.pi) }, 1e-6)
  end)

  it("has an estimate that is right on the average over probes of signs, for a linear field", function()
    local A = vector { { 0.3, -0.5 }, { 0.8, 0.4 } }
    local flow = flow_of(function(_, z) return z:matmul(A:t()) end, 2)
    local x, mean = normals(1, 3, 2), 0
    for a, b in helper.each({ -1, 1 }, { -1, 1 }) do
      local probe = vector { { a, b } }:expand(3, 2):clone()
      mean = mean + flow:log_prob(x, { trace = "hutchinson", probe = probe }) / 4
    end
    assert.close(mean, (flow:log_prob(x)), 1e-8)
  end)

  it("is a module with the parameters of its network, and passes the solver's options on", function()
    local net = network(2, 1)
    local flow = flow_of(net, 2, { solver = { rtol = 1e-6, atol = 1e-6, grid_points = vector { 0.5 },
      gradient = "direct", method = "rk4", step_size = 0.25 } })
    local names = {}
    for name in pairs(flow:state_dict()) do names[#names + 1] = name:match("^net%.") end
    assert.same({ #net:parameters(), #net:parameters() }, { #flow:parameters(), #names })
    local _, info = flow:log_prob(normals(1, 3, 2))
    assert.same({ 4, "direct" }, { info.steps, info.engine })
    local x = normals(1, 3, 2)
    local want = flow_of(net, 2):log_prob(x)
    for _, o in ipairs { { batch = "independent" }, { method = "kvaerno5" }, { method = "tsit5" } } do
      o.rtol, o.atol = 1e-8, 1e-8
      assert.close((flow_of(net, 2, { solver = o }):log_prob(x)), want, 1e-6)
    end
    assert.matches("Flow(exact, {2}", tostring(flow), 1, true)
  end)

  it("refuses what it cannot use", function()
    local net = network(2, 1)
    local flow = flow_of(net, 2)
    for wrong, text in pairs { [{ dim = 2 }] = "'net' is missing", [{ net = net }] = "'dim' is missing",
      [{ net = net, dim = 0 }] = "at least 1", [{ net = net, dim = {} }] = "at least one size",
      [{ net = net, dim = { 2, "a" } }] = "at least 1", [{ net = net, dim = 2, times = { 1, 1 } }] = "two different",
      [{ net = net, dim = 2, times = { 0, 1, 2 } }] = "two different", [{ net = net, dim = 2, trase = 1 }] = "'trace'",
      [{ net = net, dim = 2, solver = { throw = false } }] = "whole way",
      [{ net = net, dim = 2, solver = { event = print } }] = "whole way" } do
      assert.matches(text, message(gq.flow, wrong), 1, true)
    end
    assert.matches("samples {n, 2} expected, got tensor float64 {2}", message(flow.log_prob, flow, vector { 1, 2 }), 1,
      true)
    assert.matches("samples {n, 2} expected", message(flow.inverse, flow, gq.zeros(0, 2)), 1, true)
    assert.matches("got number 3", message(flow.forward, flow, 3), 1, true)
    assert.matches("did you mean 'probe'", message(flow.log_prob, flow, normals(1, 3, 2), { prob = 1 }), 1, true)
    assert.matches("at least 1 expected", message(flow.sample, flow, 0), 1, true)
    assert.matches("probe: a tensor float64 {3, 2} expected", message(flow.log_prob, flow, normals(1, 3, 2),
      { trace = "hutchinson", probe = gq.ones(3, 2) }), 1, true)
  end)
end)

-- ---- gradients ----

describe("gradients of log_prob", function()
  local net = network(2, 6)
  local x = leaf(normals(8, 5, 2):totable())
  local inputs = { x, table.unpack(net:parameters()) }

  local function gradients(o, solver)
    local flow = flow_of(net, 2, { solver = solver })
    return gq.grad(flow:log_prob(x, o):sum(), inputs)
  end

  it("are those of finite differences, for samples and parameters, by either trace", function()
    for _, o in ipairs { { trace = "exact" }, { trace = "hutchinson", seed = 1 } } do
      local flow = flow_of(net, 2, { solver = { rtol = 1e-10, atol = 1e-10 } })
      local function value() return gq.no_grad(function() return flow:log_prob(x, o):sum():item() end) end
      for i, g in ipairs(gradients(o, { rtol = 1e-10, atol = 1e-10, gradient = "direct" })) do
        local p, h = inputs[i], 1e-5
        local flat = p:detach():reshape(p:numel())
        for _, k in ipairs { 1, p:numel() } do
          local old = flat[k]:item()
          gq.no_grad(function() flat[k] = old + h end)
          local above = value()
          gq.no_grad(function() flat[k] = old - h end)
          local below = value()
          gq.no_grad(function() flat[k] = old end)
          assert.close(g:reshape(p:numel())[k]:item(), (above - below) / (2 * h), 1e-5, 1e-7)
        end
      end
    end
  end)

  it("agree between engines at tight tolerances", function()
    for _, o in ipairs { { trace = "exact" }, { trace = "hutchinson", noise = "gaussian", seed = 2 } } do
      local want = gradients(o, { rtol = 1e-9, atol = 1e-9, gradient = "direct" })
      for _, engine in ipairs { "aca", "adjoint", "seminorm", "gq", "gqc", "kronrod", "auto" } do
        local got = gradients(o, { rtol = 1e-9, atol = 1e-9, gradient = engine,
          gq = engine ~= "gqc" and { nodes = "step" } or nil })
        for i = 1, #inputs do assert.below(helper.relative(got[i], want[i]), 1e-6, engine .. " " .. i) end
      end
    end
  end)
end)

-- ---- densities in the plane ----

describe("gq.data.density", function()
  it("draws from the density it tells", function()
    local x, area = grid(60, 6)
    for _, name in ipairs(gq.data.densities) do
      local set = gq.data.density { name = name, seed = 1, train = 2000, test = 10 }
      assert.same({ { 2000, 2 }, { 2000 }, { 10, 2 } }, { set.train.x.shape, set.train.y.shape, set.test.x.shape })
      if set.log_prob then
        local p = set.log_prob(x)
        local mass = p:exp() * area
        assert.close(mass:sum():item(), 1, 1e-3)
        -- entropy and moments, of the grid against those of the points, within 4.5 deviations
        local own = set.log_prob(set.train.x:to("float64"))
        assert.is_true(own:min():item() > -math.huge)
        local function check(of_grid, of_points)
          local mean = gq.where(mass:gt(0), of_grid * mass, 0):sum():item()
          local error = of_points:std():item() / math.sqrt(2000)
          assert.close(of_points:mean():item(), mean, 0, 4.5 * error + 2e-3)
        end
        check(gq.where(mass:gt(0), p, 0), own)
        for k = 1, 2 do
          check(x[{ {}, k }], set.train.x[{ {}, k }])
          check(x[{ {}, k }]:square(), set.train.x[{ {}, k }]:square())
        end
        check(x[{ {}, 1 }] * x[{ {}, 2 }], set.train.x[{ {}, 1 }] * set.train.x[{ {}, 2 }])
      end
    end
  end)

  it("labels the parts", function()
    local parts = { moons = 2, circles = 2, eight_gaussians = 8, spirals = 2, checkerboard = 8, pinwheel = 5 }
    for name, n in pairs(parts) do
      local set = gq.data.density { name = name, seed = 2, train = 2000, test = 1 }
      local count = {}
      for _, k in ipairs(set.train.y:totable()) do count[k] = (count[k] or 0) + 1 end
      assert.equal(n, #count)
      for _, c in ipairs(count) do assert.close(c, 2000 / n, 0, 5 * math.sqrt(2000 / n)) end
    end
    assert.equal(6, #gq.data.densities)
    local circles = gq.data.density { name = "circles", seed = 3 }.train
    local r = circles.x:norm(2, 2)
    local outer = circles.y:eq(1)
    assert.close(gq.where(outer, r, 3):mean():item(), 3, 0, 0.02)
    assert.close(gq.where(outer, 1.5, r):mean():item(), 1.5, 0, 0.02)
  end)

  it("is decided by the seed, train and test apart", function()
    local function x(seed, part) return gq.data.density { name = "pinwheel", seed = seed }[part].x[1]:totable() end
    assert.same(x(1, "train"), x(1, "train"))
    assert.not_same(x(1, "train"), x(2, "train"))
    assert.not_same(x(1, "train"), x(1, "test"))
    assert.matches("one of checkerboard, .* expected, got string", message(gq.data.density, { name = "moon" }))
  end)
end)
