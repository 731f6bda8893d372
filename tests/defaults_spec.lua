-- What a user gets without options: gradient = "auto"; by gradient = "gq" dense z, moments and nodes that are judged
-- and, where eq. (9) is not enough, refined; gq = {paper = true}; what info says of each.
local gq = require "gq"
local each = require("tests.helper").each
local problems = require "tests.problems"
local leaf, vector = problems.leaf, problems.vector

local function hidden(w, options)
  local got, exact, info = problems.hidden(w, options)
  local size = 1 - math.exp(-10)                        -- what the integrand adds up to without its signs, and more
  return math.abs(got - exact) / size, info
end

-- z' = -k z + p exp(-((t - 5) / width)^2), to 10, with grid points about the pulse. dL/dp of L = z(10).
local function pulse(width, options)
  local p, k = leaf(1), leaf(0.1)
  options.grid_points = { 4.4, 5.6 }
  local z, info = gq.odeint(function(t, z) return p * gq.exp(-((t - 5) / width) ^ 2) - k * z end, vector { 1 },
    { 0, 10 }, options)
  z[2]:sum():backward()
  -- the integral of exp(-0.1 (10 - t)) over a pulse that is far from both ends
  local exact = width * math.sqrt(math.pi) * math.exp(-0.5 + 0.0025 * width * width)
  return math.abs(p.grad:item() - exact) / exact, info
end

local function network(options, rows)
  gq.manual_seed(5)
  local net = gq.nn.mlp { sizes = { 3, 16, 3 }, activation = "tanh", time = true }:to("float64")
  gq.no_grad(function()
    for _, p in ipairs(net:parameters()) do p:copy_(p * (options.larger or 1)) end
  end)
  local z, info = gq.odeint(net, gq.randn(rows or 40, 3, { dtype = "float64" }), options.t or { 0, 1 }, options[1])
  z[-1]:square():sum():backward()
  local grads = {}
  for i, p in ipairs(net:parameters()) do grads[i] = p.grad end
  return grads, info
end

local function largest_error(got, want)
  local worst = 0
  for i, g in ipairs(got) do worst = math.max(worst, ((g - want[i]):norm() / want[i]:norm()):item()) end
  return worst
end

describe("quadrature with error control", function()
  it("sees what eq. (9) misses, along every trajectory", function()
    for _, trajectory in ipairs { "dense", "checkpoint", "reverse" } do
      for _, w in ipairs { 2, 20 } do
        local missed = hidden(w, { gradient = "gq", rtol = 1e-3, atol = 1e-3, gq = { paper = true } })
        local error, info = hidden(w, { gradient = "gq", rtol = 1e-6, atol = 1e-6,
          adjoint = { trajectory = trajectory } })
        assert.truthy(missed > 0.01, "eq. (9)")
        assert.below(error, 1e-5, trajectory)
        assert.truthy(info.rounds > 0 and info.unresolved == 0 and info.quadrature_error < 1e-6)
        assert.is_nil(info.warning)
      end
      for width, gradient in each({ 0.5, 0.1 }, { "gq", "check" }) do
        local error = pulse(width, { gradient = gradient, rtol = 1e-6, atol = 1e-6,
          adjoint = { trajectory = trajectory } })
        assert.below(error, 1e-5, trajectory)
      end
    end
  end)

  it("refines over the steps that a has taken, where there is room to keep them", function()
    local function way_back(options)
      options.gradient, options.rtol, options.atol, options.audit = "gq", 1e-4, 1e-4, false
      local error, info = pulse(0.5, options)
      return error, info.nfe_backward - info.nodes, info
    end
    local error, kept, info = way_back {}
    local again_error, again = way_back { memory_limit = 1, adjoint = { trajectory = "dense" } }
    assert.truthy(info.rounds > 0)
    assert.below(error, 1e-3)
    assert.below(again_error, 1e-3)
    assert.truthy(again > 1.5 * kept, ("%d, %d"):format(kept, again))
  end)

  it("takes one rule over a few even steps", function()
    local want = network { { gradient = "direct", rtol = 1e-10, atol = 1e-10 } }
    local got, info = network { { gradient = "gq", gq = { C = 0.01 }, rtol = 1e-3, atol = 1e-3 } }
    assert.truthy(info.rounds == 1 and info.steps_backward > 1)
    assert.equal(1 + 6, info.nodes)
    assert.below(largest_error(got, want), 1e-4)
  end)

  it("takes a round whose estimates fail where the stages say the same", function()
    local function turning(gradient, tolerance)
      local p = gq.tensor({ 0.7, 0.3 }, { dtype = "float64", requires_grad = true })
      local options = { gradient = gradient, rtol = tolerance, atol = tolerance, gq = { C = 0.01 }, audit = false }
      local z, info = gq.odeint(function(_, z) return p[1] * gq.sin(6 * z) - p[2] * z * z end,
        gq.ones({ 2 }, { dtype = "float64" }), { 0, 4 }, options)
      z[2]:sum():backward()
      return p.grad, info
    end
    local got, info = turning("gq", 1e-3)
    assert.same({ 1, 0 }, { info.rounds, info.unresolved })
    assert.truthy(info.quadrature_error > 1e-3 and info.quadrature_error < 3e-3, info.quadrature_error)
    assert.below(largest_error({ got }, { turning("direct", 1e-10) }), 0.02) -- by the solve
  end)

  it("gives that rule more nodes the farther off the first one was", function()
    local last = 2 + 6
    for _, larger in ipairs { 3.5, 4 } do
      local want = network { larger = larger, { gradient = "gq", gq = { nodes = 64 }, rtol = 1e-3, atol = 1e-3 } }
      local got, info = network { larger = larger, { gradient = "gq", rtol = 1e-3, atol = 1e-3 } }
      assert.equal(1, info.rounds)
      assert.truthy(info.nodes > last and info.nodes <= 2 + 16, info.nodes)
      assert.below(largest_error(got, want), 1e-3)
      last = info.nodes
    end
  end)

  it("follows the tolerance of the way back", function()
    local _, info = hidden(2, { gradient = "gq", rtol = 1e-3, atol = 1e-3, adjoint = { rtol = 1e-8, atol = 1e-8 } })
    assert.truthy(info.rounds > 0 and info.unresolved == 0)
    assert.below(info.quadrature_error, 1e-8)
  end)

  it("keeps what some panels of many times have, where others are refined", function()
    local times = {}                                   -- far from the pulse its derivative is no number but zero
    for i = 0, 159 do times[i + 1] = 10 * i / 159 end
    local function solve(o)
      local a = leaf { 1 }
      local z, info = gq.odeint(function(t, x) return a * gq.exp(-((t - 5) / 0.05) ^ 2) - 0.1 * x end, vector { 1 },
        times, o)
      z:mean():backward()
      return a.grad:item(), info
    end
    local want = solve { gradient = "direct", rtol = 1e-10, atol = 1e-10, max_step = 0.02 }
    for method, most in each({ "bosh3", "dopri5" }, { 0.15625, 0.1 }) do
      local got, info = solve { gradient = "gq", method = method, rtol = 1e-4, atol = 1e-4, max_step = most }
      assert.equal("moments", info.impulses)
      assert.close(got, want, 2e-3)
    end
  end)

  it("is told where there is none", function()
    local function told(o, w)
      local a = leaf { 1 }
      if o.trace == false then o.params = { a } end
      local info = select(2, gq.odeint(function(_, z) return -a * z end, vector { { 1 }, { 2 } }, { 0, 1 }, o))
      if not w then assert.is_nil(info.uncontrolled)
      else assert.truthy(info.uncontrolled:find(w, 1, true), info.uncontrolled) end
    end
    told({})
    told({ gradient = "gq" })
    told({ memory_limit = 1 })                          -- gqc's states do not fit: gq with its own nodes
    told({ gradient = "direct" })
    told({ gradient = "adjoint", method = "explicit_adams" })
    told({ gradient = "none", method = "rk4", step_size = 0.1 })
    told({ batch = "independent", gradient = "direct" })
    told({ method = "rk4", step_size = 0.1, rtol = 1e-6 })
    told({ gradient = "gq", method = "rk4", step_size = 0.1, adjoint = { rtol = 1e-6 } })
    for _, gradient in ipairs { "auto", "gq", "direct", "adjoint", "gqc" } do
      told({ gradient = gradient, method = "rk4", step_size = 0.1 }, "steps of one size")
    end
    told({ gradient = "gq", gq = { nodes = "nfe" } }, "gq.nodes")
    told({ gradient = "gq", gq = { nodes = 5 } }, "gq.nodes")
    told({ gradient = "gq", batch = "independent" }, "samples")
    told({ gradient = "gq", trace = false }, "trace = false")
  end)

  it("is there along fixed steps where rtol is given, forwards or backwards, not without", function()
    local function solve(o)
      local p = leaf { 0 }
      o.gradient = "gq"
      local z, info = gq.odeint(function(t, z) return p * gq.sin(20 * t) - 0.3 * z end, vector { 1 }, { 0, 10 }, o)
      z[2]:sum():backward()
      -- the integral of exp(-0.3 (10 - t)) sin 20 t
      local exact = (0.3 * math.sin(200) - 20 * math.cos(200) + 20 * math.exp(-3)) / 400.09
      return math.abs(p.grad:item() / exact - 1), info
    end
    for method, trajectory in each({ "heun", "rk4", "dopri5", "trapezoid", "kvaerno3", "explicit_adams", "alf" },
        { "dense", "reverse" }) do
      local adjoint = { trajectory = trajectory }
      local off, info = solve { method = method, step_size = 0.25, adjoint = adjoint }
      assert.is_nil(info.rounds)
      assert.is_true(off > 0.01)
      off, info = solve { method = method, step_size = 0.25, adjoint = adjoint, rtol = 1e-4 }
      assert.is_true(off < 1e-3, off)
      assert.same({ true, 0 }, { info.rounds > 1, info.unresolved })
      adjoint.rtol = 1e-4
      assert.is_true(solve { method = method, step_size = 0.25, adjoint = adjoint } < 1e-3)
    end
  end)

  it("works in float32 and backwards in time", function()
    local theta = gq.tensor(0, { requires_grad = true })
    local function f(t, z) return theta * gq.sin(5 * t) + z end
    local z = gq.odeint(f, gq.ones(1), { 0, -10 }, { gradient = "gq" })
    z[2]:sum():backward()
    local exact = (math.sin(50) - 5 * math.cos(50) + math.exp(-10) * 5) / 26
    assert.close(theta.grad:item(), exact, 0, 5e-3)
  end)

  it("says which pieces it could not resolve", function()
    local _, info = hidden(300, { gradient = "gq", rtol = 1e-6, atol = 1e-6, audit = false })
    assert.truthy(info.unresolved > 0)
    assert.truthy(info.warning:find("not resolved", 1, true), info.warning)
  end)

  -- y' = a + (y - (a t + b))^5 along y = a t + b: b's gradient is the fourth power of rounding, 1e-62.
  it("does not chase what rounding alone makes and the loss cannot show", function()
    for _, tol in ipairs { 1e-3, 1e-6, 1e-9 } do
      local a, b = gq.tensor(0.2, { dtype = "float64", requires_grad = true }),
        gq.tensor(3, { dtype = "float64", requires_grad = true })
      local z, info = gq.odeint(function(t, y) return a + (y - (a * t + b)) ^ 5 end, b:detach():reshape(1), { 0, 1 },
        { gradient = "gq", audit = false, rtol = tol, atol = tol })
      z[2]:sum():backward()
      assert.close(a.grad:item(), 1, 1e-12)
      assert.below(info.nodes, 300)
      assert.equal(0, info.unresolved)
      assert.is_nil(info.warning)
    end
  end)

  it("costs nothing but the judgement where eq. (9) is right, whatever the threads and the batch", function()
    for _, rows in ipairs { 1, 40, 200 } do
      local want = network({ { gradient = "direct", rtol = 1e-9, atol = 1e-9 } }, rows)
      for _, threads in ipairs { 1, 2 } do
        local before = gq.threads()
        gq.set_threads(threads)
        local o = { gradient = "gq", rtol = 1e-3, atol = 1e-3, gq = { nodes = "auto", C = 0.3 } }
        local got, info = network({ o }, rows)
        gq.set_threads(before)
        assert.equal(0, info.rounds)
        assert.below(info.quadrature_error, 3e-3)
        assert.below(largest_error(got, want), 1e-2)
      end
    end
  end)

  -- An integral that cancels has less tolerance at its end than was spent on its beginning; what comes then has its
  -- own part all the same.
  it("does not halve for ever, interval by interval, where what was spent before is too much by now", function()
    for _, n in ipairs { 60, 100, 150 } do
      local t = gq.linspace(0, 1, n, { dtype = "float64" })
      local path = gq.interpolate(t, gq.stack({ (8 * t):cos(), t }, 2), { kind = "hermite" })
      local b, got = leaf { 0.2, -0.5 }, {}
      for _, engine in ipairs { "direct", "gq" } do
        local f = gq.cde(function(_, z) return gq.tanh(vector { 1.5, 0.5 } * z + b):unsqueeze(1) end, path)
        local z, info = gq.odeint(f, vector { 1 }, { 0, 1 }, { gradient = engine, rtol = 1e-3, atol = 1e-3,
          grid_points = t, audit = false })
        got[engine] = gq.grad(z[2]:sum(), b)
        if engine == "gq" then
          assert.same({ 0, true, true }, { info.unresolved, info.nodes < 10 * n, info.rounds < 4 })
          assert.is_nil(info.warning)
        end
      end
      assert.close(got.gq, got.direct, 1e-3)
    end
  end)

  it("meets tight tolerances", function()
    local want = network { { gradient = "direct", rtol = 1e-12, atol = 1e-12 } }
    for _, rtol in ipairs { 1e-6, 1e-9 } do
      local got, info = network { { gradient = "gq", rtol = rtol, atol = rtol } }
      assert.below(largest_error(got, want), 100 * rtol)
      assert.equal(0, info.unresolved)
    end
  end)
end)

describe("info.defect", function()
  local function solve(f, p, z0, last, o)
    local z, info = gq.odeint(f, z0, { 0, last }, o)
    z[2]:square():sum():backward()
    return info, p.grad:item()
  end

  local function alarm(info) return (info.warning or ""):find("between its stages", 1, true) end

  -- f, the decay whose gradient only the state tells of the pulse, z0
  local function pulse_of(width, middle, dtype)
    local p, k = gq.tensor(1, { dtype = dtype }), gq.tensor(0.1, { dtype = dtype, requires_grad = true })
    return function(t, z) return p * gq.exp(-((t - middle) / width) ^ 2) - k * z end, k, gq.ones(1, { dtype = dtype })
  end

  it("tells where the forward solve stepped over a pulse, in every dtype", function()
    local seen, wrong = 0, 0
    for dtype, middle, width, trajectory in each({ "float32", "float64" }, { 5, 5.3, 6.1 }, { 0.5, 0.1 },
        { "dense", "checkpoint" }) do
      local f, k, z0 = pulse_of(width, middle, dtype)
      local _, want = solve(f, k, z0, 10, { gradient = "direct", rtol = 1e-6, atol = 1e-6, max_step = width })
      local info, got = solve(f, k, z0, 10, { gradient = "gq", rtol = 1e-3, atol = 1e-3,
        gq = { nodes = "step" }, adjoint = { trajectory = trajectory, max_step = width } })
      got = got - want                                        -- both add to k's gradient
      local error = math.abs(got / want - 1)
      if error > 0.1 then wrong, seen = wrong + 1, seen + (alarm(info) and 1 or 0) end
      if error < 0.01 then assert.falsy(alarm(info)) end
    end
    assert.truthy(wrong >= 12 and seen >= 0.9 * wrong, ("%d of %d"):format(seen, wrong))
  end)

  it("is quiet over smooth problems, and where only a slope jumps", function()
    local list = { { "kinks", { 1 }, function(t, z) return gq.abs(gq.sin(3 * t)) - z end, 10 },
      { "bounce", { 1, 1 }, function(_, z) return gq.stack({ z[2], -z[1] - 5 * gq.relu(z[1]) }, 1) end, 10 } }
    for _, p in ipairs(problems.detest) do list[#list + 1] = { p.name, p.z0, p.f, 20 } end
    for dtype, rtol, method in each({ "float32", "float64" }, { 1e-3, 1e-6 },
        { "dopri5", "tsit5", "dopri8", "bosh3" }) do
      for i, p in ipairs(list) do
        local slow = p[1] == "C4" or p[1] == "C5" or rtol == 1e-6 and dtype == "float32"
        if i <= 2 or dtype == "float64" and not slow then
          local scale = gq.tensor(1, { dtype = dtype, requires_grad = true })
          local z0 = gq.tensor(p[2], { dtype = dtype })
          local info = solve(function(t, z) return scale * p[3](t, z) end, scale, z0, p[4],
            { gradient = "gq", method = method, rtol = rtol, atol = rtol, gq = { nodes = "step" } })
          assert.truthy(info.defect >= 0)
          assert.falsy(alarm(info), ("%s %s %g: %g"):format(p[1], method, rtol, info.defect))
        end
      end
    end
  end)

  it("comes of the forward solve's steps alone: not of a path solved backwards, and of no node by direct", function()
    local f, k, z0 = pulse_of(1, 5, "float64")
    for _, o in ipairs { { gradient = "gq", adjoint = { trajectory = "reverse" } }, { gradient = "direct" },
      { gradient = "adjoint" }, { gradient = "gq", method = "kvaerno5" },
      { gradient = "gq", method = "rk4", step_size = 0.1 }, { gradient = "gq", trace = false, params = { k } } } do
      assert.is_nil((solve(f, k, z0, 10, o)).defect)
    end
    for _, threads in ipairs { 1, 2 } do
      local before, rows = gq.threads(), gq.randn(50, 3, { dtype = "float64", seed = 4 })
      gq.set_threads(threads)
      local info = solve(function(t, z) return gq.tanh(k * z) * gq.cos(t) end, k, rows, 3, { gradient = "gq" })
      gq.set_threads(before)
      assert.truthy(info.defect > 0 and info.defect < 100)
    end
  end)
end)

describe("info.gradient_error", function()
  local function fresh()
    collectgarbage()
    collectgarbage()
    gq.core.plan_cache(false)
  end

  -- Of z' = f, z(0) = 1, L = z(last)^2 by k; every solve a structure of its own.
  local function solve(f, k, last, o)
    fresh()
    k.grad = nil
    local z, info = gq.odeint(f, gq.ones(1, { dtype = k.dtype }), { 0, last }, o)
    z[2]:square():sum():backward()
    return info, k.grad:item()
  end

  local function parameter(x, dtype) return gq.tensor(x, { dtype = dtype, requires_grad = true }) end
  local function alarm(info) return (info.warning or ""):find("a tenth of the tolerances", 1, true) end

  -- z' = theta sin(w t) - z / 2 at theta = 0: dz(10)/dtheta of the formula
  local function aliased(w, last)
    local c, e = 0.5, math.exp(-0.5 * last)
    return 2 * e * (c * math.sin(w * last) - w * math.cos(w * last) + w * e) / (c * c + w * w)
  end

  it("sees an oscillation that the parameter alone knows of, which direct aliases", function()
    for _, dtype in ipairs { "float32", "float64" } do
      local theta = parameter({ 0 }, dtype)
      local info, got = solve(function(t, z) return theta * gq.sin(20 * t) - z / 2 end, theta, 3,
        { rtol = 1e-3, atol = 1e-3 })
      assert.equal("direct", info.engine)
      assert.truthy(math.abs(got / aliased(20, 3) - 1) > 0.1)
      assert.truthy(info.gradient_error > 0.08)
      assert.truthy(alarm(info), info.warning)
      assert.truthy(info.nfe_audit > 0)
    end
  end)

  -- 10.4 % off in the frequency's square by bosh3 at 1e-3, and 3 % at 1e-4: the two are 7.1 % apart.
  it("tells of a gradient that is ten per cent off, whose tighter solve errs itself", function()
    local p, d = parameter({ 0.33006 }, "float64"), parameter({ 0.2628 }, "float64")
    local function f(_, z)
      local x, v = z:narrow(1, 1, 1), z:narrow(1, 2, 1)
      return gq.cat({ v, -p * x - d * v }, 1)
    end
    local function gradient(o)
      fresh()
      p.grad = nil
      local z, info = gq.odeint(f, gq.tensor({ 1, 0 }, { dtype = "float64" }), { 0, 10 }, o)
      ;(z[2] * gq.tensor({ 0.54, 1 }, { dtype = "float64" })):sum():backward()
      return p.grad:item(), info
    end
    local got, info = gradient { gradient = "gq", method = "bosh3", rtol = 1e-3, atol = 1e-3 }
    local want = gradient { gradient = "direct", rtol = 1e-10, atol = 1e-10 }
    assert.truthy(math.abs(got / want - 1) > 0.1)
    assert.truthy(alarm(info), info.gradient_error)
  end)

  -- z(10) = exp(-10 k) is small: at 1e-3 its derivative, too, is known to a few times that, 3.5 and 11 here.
  it("tells of what shows in the loss, not of a few tolerances", function()
    for dtype, case in each({ "float32", "float64" }, { { 0.75, false }, { 0.55, true } }) do
      fresh()
      local k = parameter({ case[1] }, dtype)
      local z, info = gq.odeint(function(_, z) return -k * z end, gq.ones(1, { dtype = dtype }), { 0, 10 },
        { method = "bosh3", gradient = "gq", rtol = 1e-3, atol = 1e-3 })
      z[2]:sum():backward()
      local off = math.abs(k.grad:item() + 10 * math.exp(-10 * case[1]))
      assert.truthy(off > (case[2] and 1e-2 or 3e-3) and off < (case[2] and 2e-2 or 5e-3), off)
      assert.equal(case[2], not not alarm(info))
    end
  end)

  it("sees it in rows side by side and in rows with steps of their own, and up to an event", function()
    local z0 = gq.ones(2, 1, { dtype = "float64" })
    local function stop(t) return t - 3 end
    local few = gq.default_device() == "cpu" and "gqc" or "direct"
    for _, o in ipairs { { engine = few }, { engine = "direct", batch = "independent" }, { engine = few, event = stop },
      { engine = "gq", batch = "independent", gradient = "gq" } } do
      local theta, want = parameter({ 0 }, "float64"), o.engine
      o.engine, o.rtol, o.atol = nil, 1e-3, 1e-3
      fresh()
      local z, info = gq.odeint(function(t, z) return theta * gq.sin(20 * t) - z / 2 end, z0,
        { 0, o.event and 9 or 3 }, o)
      z = o.event and z or z[2]
      z:square():sum():backward()
      assert.equal(want, info.engine)
      assert.truthy(math.abs(theta.grad:item() / (2 * aliased(20, 3)) - 1) > 0.1)
      assert.truthy(info.gradient_error > 0.08 and alarm(info), info.warning)
    end
  end)

  it("is not made where one row's steps would hold many", function()
    for last, made in pairs { [2] = true, [5000] = false } do
      local k = gq.ones(200, 1, { dtype = "float64" })
      k[7] = last
      k.requires_grad = true
      fresh()
      local z, info = gq.odeint(function(_, z) return -k * z end, gq.ones(200, 1, { dtype = "float64" }), { 0, 1 },
        { batch = "independent" })
      z[2]:sum():backward()
      assert.equal(made, info.gradient_error ~= nil, last)
      assert.is_nil(info.warning)
    end
  end)

  it("is small and quiet where steps resolve what there is, and leaves gradient and counts alone", function()
    for gradient, method in each({ "auto", "gq" }, { "dopri5", "bosh3", "kvaerno5", "explicit_adams" }) do
      local k = parameter({ 0.7 }, "float64")
      local function f(t, z) return -k * z * gq.cos(t) end
      local o = { gradient = gradient, method = method, rtol = 1e-4, atol = 1e-4 }
      local info, got = solve(f, k, 3, o)
      assert.truthy(info.gradient_error < 0.03 and not info.warning, info.warning)
      o.audit = false
      local bare, want = solve(f, k, 3, o)
      assert.is_nil(bare.gradient_error)
      assert.is_nil(bare.nfe_audit)
      assert.equal(want, got)
      for _, key in ipairs { "nfe", "nfe_backward", "steps", "nodes", "peak_bytes" } do
        assert.equal(bare[key], info[key], key)
      end
    end
  end)

  it("says of what it is", function()
    local function of(p, f, z0)
      local z, info = gq.odeint(f, z0, { 0, 10 }, { rtol = 1e-3, atol = 1e-3, audit = 1 })
      gq.grad(z[2]:sum(), p)
      assert.is_true(info.gradient_error > 0.07)
      assert.truthy(info.warning:find("the gradient of " .. info.gradient_of .. " is off", 1, true), info.warning)
      return info.gradient_of
    end
    local function short(t) return gq.exp(-((t - 4.3) / 0.05) ^ 2) end
    local a, b, z0 = leaf { 1, 1 }, gq.full({ 5, 4 }, 1, { dtype = "float64" }), vector { { 1, 1 } }
    assert.truthy(of(a, function(t, z) return gq.stack { a[1] + 0 * a[2], 5 * a[2] * short(t) } - 0.1 * z end,
      vector { 1, 1 }):find("^number 2 of a parameter {2} %(all of it by [%d.]+ %%%)$"))
    b.requires_grad = true
    assert.equal("a parameter {5, 4}", of(b, function(t, z) return 5 * b:mean() * short(t) - 0.1 * z end, z0))
  end)

  it("is made of a few that take many more steps, which training made stiff", function()
    local z0 = gq.ones(1)
    local function made(k)
      local p = parameter({ k }, "float32")
      local z, info = gq.odeint(function(t, z) return -p * (z - gq.cos(t)) end, z0, { 0, 1 })
      z[2]:sum():backward()
      return info.gradient_error
    end
    fresh()
    assert.truthy(made(1) < 0.05)
    for _, k in ipairs { 1.5, 2, 4 } do assert.is_nil(made(k)) end
    assert.truthy(made(1000) > 0.5)
    for _, k in ipairs { 1000, 1100, 700 } do assert.is_nil(made(k)) end
    assert.truthy(made(5000) > 0.5)
  end)

  it("has steps enough where times are many", function()
    local a, times = leaf { 1 }, {}
    for i = 0, 159 do times[i + 1] = 10 * i / 159 end
    for _, method in ipairs { "dopri5", "bosh3" } do
      local z, info = gq.odeint(function(t, x) return a * gq.exp(-((t - 5) / 0.05) ^ 2) - 0.1 * x end, vector { 1 },
        times, { method = method, rtol = 1e-3, atol = 1e-3 })
      z:mean():backward()
      assert.is_true(info.gradient_error > 0.07)
    end
  end)

  it("is made of the first solve of a structure, then of every audit-th, by 256", function()
    local k, z0 = parameter({ 0.7 }, "float64"), gq.ones(1, { dtype = "float64" })
    local function made(audit, n)
      fresh()
      local list = {}
      for i = 1, n do
        local z, info = gq.odeint(function(_, z) return -k * z end, z0, { 0, 1 }, { audit = audit })
        z[2]:sum():backward()
        if info.gradient_error then
          list[#list + 1] = i
          assert.equal(i == 1 or audit ~= nil, info.nfe_audit >= 192)
        end
      end
      return list
    end
    assert.same({ 1, 4, 7 }, made(3, 8))
    assert.same({ 1, 257 }, made(nil, 258))
    assert.same({}, made(false, 3))
    for _, bad in ipairs { 0, -1, 1.5, "x" } do
      assert.has_error(function() made(bad, 1) end)
    end
  end)

  -- The fast rate of two, a number among four: its gradient is 1e-5 of the others' and at 1e-3 noise, 900 tolerances.
  it("looks at each number of a short vector alone, and at no number of a long one", function()
    for _, length in ipairs { 4, 16, 17 } do
      fresh()
      local q = gq.zeros(length, { dtype = "float64" })
      q[1], q[2], q[3] = 1, 63.9, 0.1
      q.requires_grad = true
      local z, info = gq.odeint(function(_, z)
        return gq.stack({ -q[2] * z[1], q[1] * q[2] * z[1] - q[3] * z[2] }, 1)
      end, gq.tensor({ 1, 0 }, { dtype = "float64" }), { 0, 5 }, { rtol = 1e-3, atol = 1e-3 })
      z[2][2]:backward()
      assert.truthy(math.abs(q.grad[1]:item() / 0.6075 - 1) < 0.01)
      assert.truthy(math.abs(q.grad[2]:item()) > 500 * 1.5e-5)
      assert.equal(length <= 16, not not alarm(info), info.gradient_error)
    end
  end)

  it("is of z0's gradient and of the times', too, where nothing else is asked for", function()
    for which, gradient in each({ "z0", "t" }, { "auto", "gq" }) do
      local function solve_once(o)
        fresh()
        local z0, t = gq.ones(1, { dtype = "float64" }), gq.tensor({ 0, 10 }, { dtype = "float64" })
        local x = which == "z0" and z0 or t
        x.requires_grad = true
        local function f(s, z) return 2 * gq.exp(-((s - 6.3) / 0.6) ^ 2) * z - 0.1 * z end
        local z, info = gq.odeint(f, z0, t, o)
        z[2]:sum():backward()
        return x.grad[1]:item(), info
      end
      local got, info = solve_once { gradient = gradient, rtol = 1e-3, atol = 1e-3 }
      local want = solve_once { gradient = "direct", rtol = 1e-9, atol = 1e-9, max_step = 0.2 }
      local wrong = math.abs(got / want - 1) > 0.1
      assert.truthy(wrong or gradient == "gq", got)
      assert.truthy(not wrong or alarm(info), info.gradient_error)
    end
  end)

  it("is made of the first eight that capture other numbers, too", function()
    local k, z0 = parameter({ 0.7 }, "float64"), gq.ones(1, { dtype = "float64" })
    fresh()
    local list = {}
    for i = 1, 24 do
      local c = 0.37 + i // 2 * 0.1
      local z, info = gq.odeint(function(t, z) return gq.cos(t - c) - k * z end, z0, { 0, 1 })
      z[2]:sum():backward()
      if info.gradient_error then list[#list + 1] = i end
      k = parameter({ 0.7 + i / 10 }, "float64")
    end
    assert.same({ 1, 2, 4, 6, 8, 10, 12, 14, 16 }, list)
  end)

  it("sees what is shorter than steps, by methods whose interpolant tells nothing of it too", function()
    for method, gradient in each({ "dopri5", "tsit5", "bosh3", "kvaerno5", "kvaerno3", "explicit_adams" },
        { "auto", "gq" }) do
      local k = parameter({ 0.3 }, "float64")
      local function f(t, z) return 3 * gq.exp(-((t - 7.7) / 0.1) ^ 2) - k * z end
      local info, got = solve(f, k, 10, { method = method, gradient = gradient, rtol = 1e-3, atol = 1e-3 })
      local _, want = solve(f, k, 10, { gradient = "direct", rtol = 1e-8, atol = 1e-8, max_step = 0.05 })
      assert.truthy(math.abs(got / want - 1) > 0.4)
      assert.truthy(alarm(info), ("%s %s"):format(method, gradient))
    end
  end)

  it("is of solves whose steps are chosen by auto, by gq whose nodes are not given, by others if asked for", function()
    local k = parameter({ 0.7 }, "float64")
    local function f(_, z) return -k * z end
    for _, o in ipairs { { gradient = "direct" }, { gradient = "adjoint" }, { gradient = "seminorm" },
      { gradient = "interpolated" }, { gq = { paper = true } }, { gq = { nodes = 5 } }, { gradient = "kronrod" },
      { gradient = "gq", batch = "independent", gq = { nodes = 5 } }, { trace = false, params = { k } },
      { parity = true, asked = false }, { method = "rk4", step_size = 0.1, asked = false } } do
      local asked = o.asked == nil
      o.asked = nil
      assert.is_nil(solve(f, k, 1, o).gradient_error)
      o.audit = 1
      assert.equal(asked, solve(f, k, 1, o).gradient_error ~= nil)
    end
  end)

  it("tells of a named engine, and of dynamics in Lua, where it is asked for", function()
    for _, o in ipairs { { gradient = "direct" }, { gradient = "adjoint" }, { gradient = "seminorm" },
      { gradient = "adjoint", adjoint = { trajectory = "reverse" } }, { gq = { paper = true } }, { trace = false } } do
      local theta = parameter({ 0 }, "float64")
      o.rtol, o.atol, o.audit, o.params = 1e-3, 1e-3, 1, o.trace == false and { theta } or nil
      local info, got = solve(function(t, z) return theta * gq.sin(20 * t) - z / 2 end, theta, 3, o)
      local wrong = math.abs(got / aliased(20, 3) - 1) > 0.1
      assert.equal(wrong, not not alarm(info), ("%s: %g"):format(info.engine, info.gradient_error))
    end
  end)

  it("leaves nothing behind, with and without a backward pass", function()
    local k, z0 = parameter({ 0.7 }, "float64"), gq.ones(1, { dtype = "float64" })
    local function once(backward)
      local z = gq.odeint(function(_, z) return -k * z end, z0, { 0, 1 }, { audit = 1 })
      if backward then z[2]:sum():backward() end
    end
    local function alive() collectgarbage() collectgarbage() return (gq.memory()) end
    -- Graphs of launches keep copies until tensors lie where some have lain before.
    for i = 1, 4 do once(i % 2 == 0) end
    local rounds, before = gq.default_device() == "cuda" and 20 or 1
    repeat
      before, rounds = alive(), rounds - 1
      for i = 1, 40 do once(i % 2 == 0) end
    until before == alive() or rounds == 0
    assert.equal(before, alive())
  end)
end)

describe("by default", function()
  it("gradients come by auto, which says what it chose", function()
    local got, info = network { {} }
    assert.equal("direct", info.engine)
    assert.truthy(info.reason:find("within the limit", 1, true), info.reason)
    local want = network { { gradient = "direct" } }
    for i, g in ipairs(got) do assert.same(want[i]:totable(), g:totable()) end
  end)

  it("who says how the adjoint is solved gets gq", function()
    for _, o in ipairs { { gq = { C = 0.2 } }, { adjoint = { rtol = 1e-7 } }, { parity = true } } do
      local _, info = network { o }
      assert.equal("gq", info.engine)
    end
  end)

  it("z comes from the forward steps, and between checkpoints where they go over memory_limit", function()
    local want, info = network { { gradient = "gq", rtol = 1e-8, atol = 1e-8 } }
    assert.equal("dense", info.trajectory)
    local got, thin = network { { gradient = "gq", rtol = 1e-8, atol = 1e-8, memory_limit = 1 } }
    assert.equal("checkpoint", thin.trajectory)
    assert.truthy(thin.reason:find("memory_limit", 1, true), thin.reason)
    assert.below(largest_error(got, want), 1e-7)
  end)

  it("z is solved backwards there by methods whose steps cannot be run again one by one", function()
    local backwards = { explicit_adams = true, implicit_adams = true, reversible_heun = true }
    local methods = { "explicit_adams", "implicit_adams" }
    for _, m in ipairs(gq.core.tableaux()) do
      if m.name ~= "leapfrog" then methods[#methods + 1] = m.name end      -- whose state is [x, v]
    end
    for _, name in ipairs(methods) do
      local _, info = network { { gradient = "gq", method = name, step_size = 0.05, memory_limit = 1 } }
      assert.equal(backwards[name] and "reverse" or "checkpoint", info.trajectory, name)
    end
  end)

  it("many times are joined, few are not, and the paper restarts at each", function()
    local many = {}
    for i = 0, 40 do many[i + 1] = i / 40 end
    local function impulses(o, t) return select(2, network({ o, t = t })).impulses end
    assert.equal("moments", impulses({ gradient = "gq" }, many))
    assert.equal("restart", impulses({ gradient = "gq" }, { 0, 0.5, 1 }))
    assert.equal("restart", impulses({ gradient = "gq", grid_points = { 0.5 } }, many))
    local _, info = network { { gradient = "gq", gq = { paper = true } }, t = many }
    assert.same({ "restart", "reverse" }, { info.impulses, info.trajectory })
    assert.is_nil(info.rounds)
    assert.equal(39, info.restarts)
  end)
end)
