-- lua_field_spec.lua -- trace = false: dynamics that are called at every evaluation. They may look at values, and
-- everything else is as with traced ones: numbers, gradients, events, errors.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local leaf, vector, raises = problems.leaf, problems.vector, helper.raises

local function with(o, more) return helper.with({ trace = false }, o, more) end

local f64 = { dtype = "float64" }

-- Every engine with a method it takes; fixed steps of several orders.
local loose = { rtol = 1e-5, atol = 1e-5 }
local engines = problems.engines { mali = loose, reversible = helper.with({ method = "reversible_heun" }, loose),
  gqc = false }
for _, o in ipairs {
  { gradient = "direct", method = "dopri8" }, { gradient = "direct", method = "tsit5" },
  { gradient = "direct", method = "rk4", step_size = 0.05 },
  { gradient = "aca", method = "bosh3" }, { gradient = "aca", method = "euler", step_size = 0.02 },
  { gradient = "mali", method = "alf", eta = 0.9, step_size = 0.05 },
  { gradient = "gq", gq = { nodes = "step" } },
  { gradient = "gq", gq = { nodes = 9, quadrature = "clenshaw-curtis" }, adjoint = { method = "bosh3" } },
  { gradient = "gq", adjoint = { trajectory = "dense" } }, { gradient = "gq", overshoot = true },
  { gradient = "gq", adjoint = { trajectory = "checkpoint", checkpoints = 3 }, gq = { nodes = "step" } },
  { gradient = "gq", adjoint = { impulses = "moments" } }, { gradient = "auto", memory_limit = 100 },
} do table.insert(engines, o) end

local function name(o) return ("%s, %s"):format(o.gradient, o.method or "dopri5") end

describe("dynamics with trace = false", function()
  it("may branch on values, with exact solutions and gradients by every engine", function()
    -- z' = a (2 - z) up to z = 1, then a z: z(t) = exp(a t) / (2 - z0)
    local a, z0, t = leaf(1.1), leaf { 0.5 }, leaf { 0, 0.2, 1.5 }
    local sides = {}
    local function f(_, z)
      local small = z[1]:item() < 1
      sides[small] = true
      return a * (small and 2 - z or z)
    end
    for _, o in ipairs(engines) do
      local z, info = gq.odeint(f, z0, t, with({ rtol = 1e-9, atol = 1e-9, max_steps = 1e6, params = { a } }, o))
      local want, rough = math.exp(1.1 * 1.5) / 1.5, o.rtol or o.step_size
      local tol = (o.method == "euler" or o.eta) and 0.1 or rough and 1e-2 or 1e-5
      local kink = math.max(5 * tol, 2e-3)                    -- the derivative jumps where a step knows nothing of it
      assert.close(z[2], { 2 - 1.5 * math.exp(-0.22) }, tol)
      assert.close(z[3], { want }, tol)
      local g = gq.grad(z[3]:sum(), { a, z0, t })
      local got = { g[1]:item(), g[2][1]:item(), g[3][1]:item(), g[3][3]:item() }
      assert.below(helper.relative(got, { 1.5 * want, want / 1.5, -1.1 * want, 1.1 * want }), kink, name(o))
      assert.equal("ok", info.status)
    end
    assert.is_true(sides[true] and sides[false])
  end)

  it("give the numbers of traced ones: a network's solution and all gradients, by every engine", function()
    for case, shape in ipairs { { 20, 2 }, { 3 } } do
      gq.manual_seed(7)
      local width = shape[#shape]
      local net = gq.nn.mlp { sizes = { width, 8, width }, activation = "tanh", time = true }:to("float64")
      local w = leaf(0.3)
      local z0 = gq.randn(shape, { dtype = "float64", requires_grad = true })
      local t = leaf { 0, 0.3, 0.3, 1 }
      local function f(s, z) return net(s, z) - w * z end
      local params = net:parameters()
      params[#params + 1] = w
      local function solve(o)
        local z, info = gq.odeint(f, z0, t, o)
        local list = { z0, t, table.unpack(params) }
        local numbers = helper.flatten(z)
        for _, g in ipairs(gq.grad((z * z):sum(), list)) do helper.flatten(g, numbers) end
        return numbers, info
      end
      for _, o in ipairs(engines) do
        local base = { rtol = 1e-7, atol = 1e-7 }
        if o.gradient == "auto" then base.gradient = nil end
        local given = with(base, o)
        given.params = params
        local mine, info = solve(given)
        given.trace = true
        given.gradient = info.engine
        if info.engine == "gq" then given.gq = given.gq or { nodes = "step" } end      -- as where nothing is traced
        if o.gradient == "auto" and info.trajectory then       -- what auto settles on there
          given.adjoint, given.gq = { trajectory = info.trajectory, impulses = info.impulses }, { nodes = "step" }
        end
        local traced, same = solve(given)
        assert.below(helper.relative(mine, traced), 1e-9, ("case %d, %s"):format(case, name(o)))
        assert.equal(same.nfe, info.nfe)
        assert.equal(same.steps, info.steps)
      end
    end
  end)

  it("are counted at every call", function()
    local count = 0
    local a = leaf(0.8)
    local function f(_, z)
      count = count + 1
      return gq.tanh(a * z)
    end
    for _, o in ipairs(engines) do
      count = 0
      local z, info = gq.odeint(f, gq.ones(2, f64), { 0, 0.5, 2 }, with(o, { params = { a } }))
      assert.equal(count, info.nfe, name(o))
      count = 0
      z[3]:sum():backward()
      assert.equal(count, info.nfe_backward, name(o))
      if o.gradient == "adjoint" or o.gradient == "seminorm" then
        -- one call for f and its derivative, but where a step begins
        local again, traced = gq.odeint(f, gq.ones(2, f64), { 0, 0.5, 2 }, { gradient = o.gradient,
          adjoint = o.adjoint })
        again[3]:sum():backward()
        local more = info.nfe_backward - traced.nfe_backward
        assert.truthy(more <= info.steps_backward + info.restarts, name(o))
      end
    end
  end)

  it("work in float32, for numbers, for empty states and without any time passing", function()
    local k = gq.tensor(0.5, { requires_grad = true })
    local function f(t, z)
      assert(t.dtype == "float32" and t:dim() == 0 and z.dtype == "float32")
      return -k * z
    end
    local z = gq.odeint(f, gq.tensor(2.0), { 0, 1 }, with { params = { k } })
    assert.same({ 2 }, z.shape)
    z[2]:backward()
    assert.close(k.grad:item(), -2 * math.exp(-0.5), 1e-3)
    assert.same({ 2, 0, 3 }, gq.odeint(f, gq.zeros(0, 3), { 0, 1 }, with { params = { k } }).shape)
    assert.same({ 1, 2 }, gq.odeint(f, gq.ones(2), { 3 }, with { params = { k } }).shape)
  end)

  it("go with events, interpolants and grid points", function()
    local g = leaf(9.81)
    local function ball(_, z) return gq.stack({ z[2], (z[1]:item() > -1 and -g or g) + 0 * z[1] }, 1) end
    local z, info, t, at = gq.odeint(ball, vector { 10, 0 }, { 0, 9 },
      { trace = false, params = { g }, rtol = 1e-9, atol = 1e-9, event = function(_, y) return y[1] end, dense = true })
    assert.close(info.event_t, math.sqrt(2 * 10 / 9.81), 1e-9)
    assert.close(gq.grad(t, g):item(), -info.event_t / 2 / 9.81, 1e-7)
    assert.close(at(info.event_t), z:totable(), 1e-9, 1e-9)
    local a, b = leaf(1), leaf(2)
    local function switch(s, y) return s:item() < 0.4 and -a * y or b * y end
    for _, times in ipairs { { 0, 1 }, { 1, 0.1 } } do
      local solved = gq.odeint(switch, vector { 1 }, times,
        { trace = false, params = { a, b }, rtol = 1e-9, atol = 1e-9, grid_points = { 0.4 }, gq = { nodes = "step" } })
      local da = math.min(times[2], 0.4) - math.min(times[1], 0.4)
      local db = math.max(times[2], 0.4) - math.max(times[1], 0.4)
      local want = math.exp(-da + 2 * db)
      assert.close(solved[2]:item(), want, 1e-7)
      local by = gq.grad(solved[2]:sum(), { a, b })
      assert.close({ by[1]:item(), by[2]:item() }, { -da * want, db * want }, 1e-6)
    end
  end)

  it("may keep what they are given, write to copies and use gq.grad", function()
    local kept = {}
    local function f(t, z)
      kept[#kept + 1] = { t, z, z:totable() }
      local y = z:detach():clone()
      y[1] = 7
      local energy = (z * z * z):sum() / 3 + t * 0
      return -gq.grad(energy, z, { create_graph = true })              -- z' = -z^2
    end
    local z0 = leaf { 1, 2 }
    for engine, run in helper.each({ "none", "direct", "gq" }, { function(g, ...) return g(...) end, gq.no_grad }) do
      local z = run(gq.odeint, f, z0, { 0, 1 }, { trace = false, gradient = engine, rtol = 1e-8, atol = 1e-8,
        gq = { nodes = 20 } })
      assert.close(z[2], { 1 / 2, 2 / 3 }, 1e-6)
      if z.requires_grad then assert.close(gq.grad(z[2]:sum(), z0), { 1 / 4, 1 / 9 }, 1e-6) end
    end
    for _, k in ipairs(kept) do assert.same(k[3], k[2]:totable()) end
    assert.not_equal(kept[1][2], kept[2][2])
  end)
end)

-- ---- parameters ----

describe("opts.params with trace = false", function()
  local options = { rtol = 1e-8, atol = 1e-8, gq = { nodes = 20 } }

  it("is a module's own parameters where nobody says otherwise", function()
    local other = leaf(0.7)
    local Field = gq.nn.Module:extend "Field"
    function Field:init() self.k = leaf(0.3) end
    function Field:forward(t, z) return -self.k * z * t * (self.other or 1) end
    local f, z0 = Field(), vector { 2 }
    for _, engine in ipairs { "direct", "gq", "adjoint" } do
      local z = gq.odeint(f, z0, { 0, 1 }, with(options, { gradient = engine }))
      assert.close(gq.grad(z[2]:sum(), f.k), -math.exp(-0.15), 1e-6)
    end
    assert.is_false(gq.odeint(f, z0, { 0, 1 }, with(options, { params = {} })).requires_grad)
    assert.is_false(gq.no_grad(gq.odeint, f, z0, { 0, 1 }, with(options)).requires_grad)
    local hidden = other * 1                                     -- that of nobody's: the error stays
    function Field:forward(t, z) return -self.k * z * t * hidden end
    raises("opts.params", gq.odeint, Field(), z0, { 0, 1 }, with(options))
  end)

  it("is asked for where a parameter is met that nobody named, at the first call", function()
    local k, calls = leaf(0.7), 0
    local function f(_, z)
      calls = calls + 1
      return -k * z
    end
    raises("float64 {} gradient opts.params net:parameters()", gq.odeint, f, vector { 1 }, { 0, 1 }, with(options))
    assert.equal(1, calls)
    raises("opts.params", gq.odeint, function(_, z) return calls > 3 and k * 2 * z or f(_, z:detach()) * 0 + z end,
      vector { 1 }, { 0, 1 }, with(options))
    local z = gq.odeint(f, vector { 1 }, { 0, 1 }, with(options, { params = {} }))
    assert.is_false(z.requires_grad)
    assert.is_false(gq.odeint(f, vector { 1 }, { 0, 1 }, with(options, { gradient = "none" })).requires_grad)
    assert.is_false(gq.no_grad(gq.odeint, f, vector { 1 }, { 0, 1 }, with(options)).requires_grad)
    local z0 = leaf { 1 }
    z = gq.odeint(f, z0, { 0, 1 }, with(options, { params = {} }))
    z[2]:sum():backward()
    assert.close(z0.grad, { math.exp(-0.7) }, 1e-6)
    assert.is_nil(k.grad)
  end)

  it("may hold results, the same twice, views, other dtypes and what is not used", function()
    local a, unused = leaf { 0.5, 9 }, leaf(3)
    local b = a * 2                                          -- no leaf, and made from another parameter
    local c = gq.tensor(0.25, { requires_grad = true })      -- float32
    local function f(_, z) return -(a[1] + b[1]) * z * (c:to("float64") * 4) + 0 * unused:detach() end
    for _, engine in ipairs { "direct", "aca", "gq", "adjoint" } do
      local z = gq.odeint(f, vector { 1 }, { 0, 1 },
        with(options, { gradient = engine, params = { b, a, unused, b, c, gq.ones(2) } }))
      a.grad, c.grad, unused.grad = nil, nil, nil
      z[2]:sum():backward()                                   -- z = exp(-4 c (a + b)), b = 2 a
      local e = math.exp(-1.5)
      assert.close(a.grad, { -3 * e, 0 }, 1e-6, 1e-12)
      assert.close(c.grad:item(), -4 * 1.5 * e, 1e-5)
      assert.equal(0, unused.grad:item())
    end
    assert.truthy(b.requires_grad and not b.is_leaf)
  end)

  it("must be tensors", function()
    raises("params", gq.odeint, function(_, z) return z end, vector { 1 }, { 0, 1 }, with { params = 3 })
    raises("params[1]", gq.odeint, function(_, z) return z end, vector { 1 }, { 0, 1 }, with { params = { 3 } })
  end)

  it("are what they are when the backward pass calls f again", function()
    local k, factor = leaf { 0.7 }, 1
    local function f(_, z) return -factor * k * z end
    local z = gq.odeint(f, vector { 1 }, { 0, 1 }, with(options, { gradient = "direct", params = { k } }))
    factor = 2               -- an upvalue: along the old solution the derivatives are those of another function,
    local want = -2 * math.exp(-1.4) * (math.exp(0.7) - 1) / 0.7 -- a = exp(-1.4 (1 - t)), df/dk = -2 exp(-0.7 t)
    assert.close(gq.grad(z[2]:sum(), k), { want }, 1e-6)
    factor = 1
    assert.close(gq.grad(z[2]:sum(), k), { -math.exp(-0.7) }, 1e-6)
    gq.no_grad(function() k[1] = 3 end)
    raises("modified in place", gq.grad, z[2]:sum(), k)
  end)
end)

-- ---- errors ----

describe("an error in dynamics with trace = false", function()
  local function plan(at, what)
    local calls = 0
    return function(_, z)
      calls = calls + 1
      if calls == at then return what(z) end
      return -z
    end
  end

  it("ends the solve and is raised as it is, at any evaluation", function()
    local mine = setmetatable({}, { __tostring = function() return "mine" end })
    for throw, at in helper.each({ true, false }, { 1, 2, 3, 8, 20 }) do
      local function solve(what)
        return pcall(gq.odeint, plan(at, function() error(what) end), leaf { 1 }, { 0, 1, 3 }, with { throw = throw })
      end
      local ok, e = solve(mine)
      assert.is_false(ok)
      assert.equal(mine, e)
      ok, e = solve("here")
      assert.truthy(not ok and e:find("lua_field_spec.lua:%d+: here$"), e)
    end
    assert.close(gq.odeint(plan(0), vector { 1 }, { 0, 1 }, with { rtol = 1e-8 })[2], { math.exp(-1) }, 1e-4)
  end)

  it("says what was wrong with a value, where the solve was called", function()
    for _, bad in ipairs {
      { function(z) return z:to("float32") end, "returned float32 of shape {2}; expected float64" },
      { function(z) return z:sum() end, "returned float64 of shape {}; expected {2}" },
      { function() return 3 end, "must return a tensor, got number 3" },
      { function() end, "must return a tensor, got nil" },
      { function(z) z:free() return z end, "tensor" },
      { function(z) local y = -z z:free() return y end, "freed" },
      { function() coroutine.yield() end, "yield" },
      { function(z) return z:reshape(3) end, "reshape" },
      { function(z) return z:item() end, "item" },
    } do
      for _, at in ipairs { 1, 9 } do
        local solve = coroutine.wrap(function()
          return gq.odeint(plan(at, bad[1]), leaf { 1, 2 }, { 0, 3 }, with {})
        end)
        local text = raises(bad[2], solve)
        assert.truthy(text:find("lua_field_spec.lua:%d+: ") or text:find("yield", 1, true), text)
      end
    end
    raises("function or a module", gq.odeint, 3, vector { 1 }, { 0, 1 }, with {})
  end)

  it("ends the backward pass, leaving no gradients and a solve that can be differentiated", function()
    for _, o in ipairs(engines) do
      local k, fail = leaf(0.7), nil
      local calls = 0
      local function f(_, z)
        calls = calls + 1
        if calls == fail then error { code = fail } end
        return -k * z
      end
      local z0 = leaf { 1 }
      local z = gq.odeint(f, z0, { 0, 0.5, 1 }, with(o, { params = { k } }))
      local total = z[3]:sum()
      local want
      for _, at in ipairs { 1, 2, 5, 1e9 } do
        calls, fail = 0, at
        local ok, e = pcall(total.backward, total)
        if at < 1e9 then
          assert.is_false(ok, name(o))
          assert.equal(at, e.code)
          assert.is_nil(k.grad)
        else
          assert.is_true(ok, name(o))
          want = -math.exp(-0.7)
          assert.close(k.grad:item(), want, 0.02)
        end
      end
      calls, fail = 0, 1
      assert.equal(1, select(2, pcall(gq.grad, total, k)).code)
    end
  end)

  it("of the solver is a status, with the part reached", function()
    local function f(t, y) return t:item() > 0.5 and y / 0 or y end
    local z, info = gq.odeint(f, vector { 1 }, { 0, 0.25, 1 }, with { throw = false, gradient = "none" })
    assert.equal("non_finite", info.status)
    assert.close(info.t, 0.5, 0.05)
    assert.close(z[2], { math.exp(0.25) }, 1e-4)
    assert.truthy(z[3]:item() ~= z[3]:item())
    raises("not finite", gq.odeint, f, vector { 1 }, { 0, 1 }, with {})
  end)

  it("names what does not go with them", function()
    local k = leaf(0.5)
    local function f(_, z) return -k * z end
    raises("gqc trace aca", gq.odeint, f, vector { 1 }, { 0, 1 }, with { params = { k }, gradient = "gqc" })
    raises("leapfrog trace", gq.odeint, f, vector { 1, 2 }, { 0, 1 },
      with { params = { k }, method = "leapfrog", step_size = 0.1 })
    local z = gq.odeint(f, vector { 1 }, { 0, 1 }, with { params = { k }, gradient = "direct" })
    raises("create_graph trace", gq.grad, z[2]:sum(), k, { create_graph = true })
    raises("trace", gq.odeint, f, vector { 1 }, { 0, 1 }, { trace = 3 })
    local function looks(_, y) return y[1]:item() > 0 and y or -y end
    raises("gq.where trace = false", gq.odeint, looks, vector { 1 }, { 0, 1 })
    local function solves(_, y) return gq.odeint(f, y, { 0, 1 }, { trace = false })[2] end
    raises("traced", gq.odeint, solves, vector { 1 }, { 0, 1 })
  end)

  it("can be an interrupt", function()
    if not gq.debug then
      pending("gq.debug is there in debug and asan builds only")
      return
    end
    local k = leaf(0.5)
    local calls, at = 0, 5
    local function f(_, z)
      calls = calls + 1
      if calls == at then gq.debug.interrupt() end
      return -k * z
    end
    raises("interrupted", gq.odeint, f, vector { 1 }, { 0, 1 }, with { params = { k } })
    assert.equal(at, calls)
    local z = gq.odeint(f, vector { 1 }, { 0, 1 }, with { params = { k } })
    calls = 0
    raises("interrupted", gq.grad, z[2]:sum(), k)
    assert.equal(at, calls)
    assert.close(gq.grad(z[2]:sum(), k):item(), -math.exp(-0.5), 1e-3)
  end)
end)

-- ---- solves inside ----

describe("dynamics with trace = false that solve themselves", function()
  local o = { trace = false, rtol = 1e-9, atol = 1e-9 }

  it("solve, whether the inner dynamics are traced or not, and have gradients", function()
    local k = leaf(0.7)
    for traced, engine in helper.each({ true, false }, { "direct", "gq", "adjoint" }) do
      local inner = { trace = traced, params = { k }, rtol = 1e-8, atol = 1e-8,
        gradient = engine, gq = { nodes = 12 } }
      local function f(_, z)                                -- -z exp(-k / 10)
        return -gq.odeint(function(_, y) return -k * y end, z, { 0, 0.1 }, inner)[2]
      end
      local outer = with(inner, { trace = false })
      k.grad = nil
      local z0 = leaf { 1, 2 }
      local z = gq.odeint(f, z0, { 0, 1 }, outer)
      local rate = math.exp(-0.07)
      assert.close(z[2], { math.exp(-rate), 2 * math.exp(-rate) }, 1e-7)
      z[2]:sum():backward()
      assert.close(k.grad:item(), 3 * math.exp(-rate) * 0.1 * rate, 1e-6)
      assert.close(z0.grad, { math.exp(-rate), math.exp(-rate) }, 1e-7)
    end
  end)

  it("may call themselves", function()
    local depth, most, once = 0, 0, { trace = false, method = "euler", gradient = "none" }
    local function f(_, z)
      depth = depth + 1
      most = math.max(most, depth)
      local y = depth < 4 and gq.odeint(f, z, { 0, 0.5 }, once)[2] or z
      depth = depth - 1
      return y:detach() * -1
    end
    local z = gq.odeint(f, vector { 1 }, { 0, 0.5 }, once)
    assert.equal(4, most)                                    -- g1 = 1/2, g(n+1) = 1 - g(n) / 2
    assert.close(z[2]:item(), 1 - (1 - (1 - 0.5 / 2) / 2) / 2, 1e-12)
    local function forever(_, y) return gq.odeint(forever, y, { 0, 1 }, o)[2] end
    raises("overflow", gq.odeint, forever, vector { 1 }, { 0, 1 }, o)
    assert.close(gq.odeint(function(_, y) return -y end, vector { 1 }, { 0, 1 }, o)[2], { math.exp(-1) }, 1e-7)
  end)

  it("pass on the error of an inner solve", function()
    local caught = 0
    local z = gq.odeint(function(_, y)
      if not pcall(gq.odeint, function() error "no" end, y, { 0, 1 }, { trace = false }) then caught = caught + 1 end
      return -y
    end, vector { 1 }, { 0, 1 }, o)
    assert.close(z[2], { math.exp(-1) }, 1e-7)
    assert.truthy(caught > 10)
    local function f(_, x)
      local function inner(_, y) return y:item() > 1.5 and error({ inner = true }) or y end
      return gq.odeint(inner, x, { 0, 0.1 }, { trace = false, gradient = "none" })[2]
    end
    local ok, e = pcall(gq.odeint, f, vector { 1 }, { 0, 3 }, { trace = false, gradient = "none" })
    assert.is_true(not ok and e.inner)
  end)

  it("cannot run a backward pass that needs the scratch memory of their own solve", function()
    local k = leaf(0.5)
    local function g(_, y) return -k * y end
    local options = with { params = { k } }
    local z = gq.odeint(g, vector { 1 }, { 0, 1 }, options)
    local first = gq.grad(z[2]:sum(), k):item()
    raises("backward inside same structure", gq.odeint, function(_, y)
      gq.grad(z[2]:sum(), k)
      return g(_, y)
    end, vector { 1 }, { 0, 1 }, options)
    assert.equal(first, gq.grad(z[2]:sum(), k):item())
  end)

  it("are told apart though their structure is the same, and let go", function()
    collectgarbage() -- plans that solves before hold would leave no room for this one
    collectgarbage()
    local _, compiled = gq.core.plan_cache()
    local weak = setmetatable({}, { __mode = "k" })
    local solves = {}
    for i = 1, 4 do
      local k = leaf(i / 4)
      local function f(_, z) return -k * z end
      weak[f] = true
      solves[i] = { k, gq.odeint(f, vector { 1 }, { 0, 1 }, with { params = { k }, rtol = 1e-8, atol = 1e-8 }) }
    end
    for i = 4, 1, -1 do
      assert.close(solves[i][2][2]:item(), math.exp(-i / 4), 1e-6)
      assert.close(gq.grad(solves[i][2][2]:sum(), solves[i][1]):item(), -math.exp(-i / 4), 1e-6)
    end
    assert.truthy(select(2, gq.core.plan_cache()) <= compiled + 1)
    solves = nil
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
    assert.is_nil(solves)
  end)
end)
