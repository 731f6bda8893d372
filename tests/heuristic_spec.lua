-- heuristic_spec.lua -- regularise = { error, stiffness }: sums over the solver's steps, and their gradients, against
-- the same steps written as tensor operations, and against differences.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, message, with = problems.vector, problems.leaf, helper.message, helper.with
local methods = {}
for _, m in ipairs(gq.core.tableaux()) do methods[m.name] = m end

local both = { error = true, stiffness = true }

local function rms(x) return gq.sqrt((x * x):mean()) end

-- The steps {t, h} of a Runge-Kutta method from z0: the two sums and the end, recorded on the tape.
local function compose(name, f, z0, steps)
  local m, y, error, stiffness = methods[name], z0, 0, 0
  local last = m.end_slope <= m.stages and m.end_slope or m.stages
  for _, s in ipairs(steps) do
    local t, h, k, at = s[1], s[2], {}, {}
    local function moved(w, n)
      local sum = 0
      for j = 1, n do
        if w[j] ~= 0 then sum = sum + k[j] * w[j] end
      end
      return sum * h
    end
    for i = 1, last do
      at[i] = i == 1 and y or y + moved(m.a[i], i - 1)
      k[i] = f(t + h * m.c[i], at[i])
    end
    local scale = rms(moved(m.e, last))
    if m.e3 then
      local other = rms(moved(m.e3, last))
      scale = scale ^ 2 / gq.sqrt(scale ^ 2 + other ^ 2 / 100)
    end
    error = error + scale * (type(h) == "number" and math.abs(h) or h:abs())
    if m.c[last - 1] == 1 then
      stiffness = stiffness + rms(k[last] - k[last - 1]) / rms(at[last] - at[last - 1])
    end
    y = y + moved(m.b, last)
  end
  return error, stiffness, y
end

-- The accepted steps of a solve.
local function logged(solve)
  gq.core.steplog(true)
  local r = table.pack(solve())
  local steps = {}
  for _, row in ipairs(gq.core.steplog()) do
    if row[4] == 1 then steps[#steps + 1] = { row[1], row[2] } end
  end
  gq.core.steplog(false)
  return steps, table.unpack(r, 1, r.n)
end

local w = leaf { { 0.3, -1.5 }, { 1.8, 0.2 } }
local z0 = leaf { { 1, 0.5 }, { 0.2, -0.3 }, { 2, 0 } }
local function field(t, z) return gq.tanh(z:matmul(w)) * (1 + t) - z * z * 0.1 end

local hundred, one = vector(100), vector(1)

describe("the solver's heuristics", function()
  it("are what one step of dopri5 gives by hand", function()
    -- z' = a z: k_i = a (1 + ...) z, all of it polynomials in x = a h
    local m, a, h = methods.dopri5, -0.8, 0.5
    local y, k = {}, {}
    for i = 1, 7 do
      y[i] = 1
      for j = 1, i - 1 do y[i] = y[i] + h * m.a[i][j] * k[j] end
      k[i] = a * y[i]
    end
    local error = 0
    for i = 1, 7 do error = error + h * m.e[i] * k[i] end
    for _, dtype in ipairs { "float64", "float32" } do
      local _, info = gq.odeint(function(_, z) return a * z end, gq.tensor({ 3, 4 }, { dtype = dtype }), { 2, 2.5 },
        { first_step = 10, rtol = 1, atol = 1, gradient = "direct", regularise = both })
      local r, tol = info.regularisers, dtype == "float64" and 1e-12 or 1e-3
      assert.equal(1, info.steps)
      assert.same({ {}, {}, dtype, dtype }, { r.error.shape, r.stiffness.shape, r.error.dtype, r.stiffness.dtype })
      assert.close(r.error:item(), h * math.abs(error) * math.sqrt(25 / 2), tol)
      assert.close(r.stiffness:item(), 0.8, tol)
    end
  end)

  for _, case in ipairs {
    { "dopri5", "direct" }, { "dopri5", "aca" }, { "tsit5", "direct", { 1, 0.3, -0.5 } }, { "dopri8", "aca" },
    { "dopri8", "direct", { 1, 0.3, -0.5 } }, { "bosh3", "direct" }, { "adaptive_heun", "aca" },
    { "dopri5", "direct", nil, 0.15 }, { "adaptive_heun", "direct", nil, 0.3 }, { "fehlberg2", "direct" },
  } do
    local method, gradient, t, step_size = case[1], case[2], case[3] or { 0, 0.37, 1 }, case[4]
    local stiff = methods[method].c[methods[method].end_slope - 1] == 1 and methods[method].fsal
    it(("have the values and gradients of the steps, %s with %s%s"):format(method, gradient,
        step_size and ", fixed" or case[3] and ", back in time" or ""), function()
      local o = { method = method, gradient = gradient, step_size = step_size, rtol = 1e-4, atol = 1e-4,
        regularise = { error = true, stiffness = stiff } }
      -- two stages of dopri8 are so near each other that their difference has few digits left here
      local tol, slack = method == "dopri8" and 1e-6 or 1e-9, method == "dopri8" and 1e-5 or 1e-8
      local steps, z, info = logged(function() return gq.odeint(field, z0, t, o) end)
      local r = info.regularisers
      local error, stiffness, y = compose(method, field, z0, steps)
      assert.truthy(#steps > 2)
      assert.equal(stiff or nil, r.stiffness and true)
      assert.close(z[3], y, 1e-12)
      assert.close(r.error:item(), error:item(), 1e-9)
      if stiff then assert.close(r.stiffness:item(), stiffness:item(), tol) end
      local function pull(e, s, last)
        local out, cot = { e, last:sum() }, { hundred, vector(0.1) }
        if stiff then out[3], cot[3] = s, one end
        return gq.grad(out, { w, z0 }, { cotangents = cot })
      end
      assert.below(helper.relative(pull(r.error, r.stiffness, z[3]), pull(error, stiffness, y)), slack)
      -- each alone, the state not among the results
      assert.below(helper.relative(gq.grad(r.error, { w, z0 }), gq.grad(error, { w, z0 })), 1e-8)
      if stiff then
        assert.below(helper.relative(gq.grad(r.stiffness, { w, z0 }), gq.grad(stiffness, { w, z0 })), slack)
      end
    end)
  end

  it("have gradients in the times of steps that end there", function()
    for gradient, ends in helper.each({ "direct", "aca" }, { { 0.2, 0.6 }, { 0.6, 0.2 } }) do
      local t = leaf(ends)
      local _, info = gq.odeint(field, z0, t,
        { gradient = gradient, first_step = 10, rtol = 1, atol = 1, regularise = both })
      assert.equal(1, info.steps)
      local r = info.regularisers
      local error, stiffness = compose("dopri5", field, z0, { { t[1], t[2] - t[1] } })
      assert.close(r.error:item(), error:item(), 1e-9)
      assert.close(gq.grad(r.error, t), gq.grad(error, t), 1e-8)
      assert.close(gq.grad(r.stiffness, t), gq.grad(stiffness, t), 1e-8)
    end
  end)

  it("have gradients in the times of a grid, whose last step ends at one", function()
    local t = leaf { 0.1, 0.7 }
    local _, info = gq.odeint(field, z0, t, { gradient = "direct", step_size = 0.25, regularise = both })
    local r = info.regularisers
    local error, stiffness = compose("dopri5", field, z0,
      { { t[1], 0.25 }, { t[1] + 0.25, 0.25 }, { t[1] + 0.5, t[2] - (t[1] + 0.5) } })
    assert.close(r.error:item(), error:item(), 1e-9)
    assert.close(gq.grad(r.error, t), gq.grad(error, t), 1e-8)
    assert.close(gq.grad(r.stiffness, t), gq.grad(stiffness, t), 1e-8)
  end)

  it("have gradients with methods that carry a slope of their own", function()
    for _, method in ipairs { "alf", "reversible_heun" } do
      local o = { method = method, gradient = "direct", step_size = 0.1, regularise = { error = true } }
      local function loss(x)
        local _, info = gq.odeint(field, x, { 0, 0.25, 0.5 }, o)
        return info.regularisers.error
      end
      local ok, report = gq.checkgrad(loss, z0:detach())
      assert.truthy(ok, report.message)
    end
  end)

  it("are those of the whole batch, however threads share it", function()
    local wide = gq.randn(4096, 2, { seed = 1 })
    local small = w:detach():to("float32")
    small.requires_grad = true
    local function f(_, z) return gq.tanh(z:matmul(small)) end
    local o = { gradient = "direct", rtol = 1e-4, atol = 1e-4, regularise = both }
    local _, info = gq.odeint(f, wide, { 0, 1 }, o)
    local function g(_, z) return gq.tanh(z:matmul(w)) end
    local steps, _, exact = logged(function()
      return gq.odeint(g, wide:to("float64"), { 0, 1 }, o)
    end)
    assert.equal(exact.steps, info.steps)
    local r, q = info.regularisers, exact.regularisers
    local error, stiffness = compose("dopri5", g, wide:to("float64"), steps)
    assert.close({ q.error:item(), q.stiffness:item() }, { error:item(), stiffness:item() }, 1e-9)
    assert.close({ r.error:item(), r.stiffness:item() }, { error:item(), stiffness:item() }, 2e-3)
    assert.below(helper.relative(gq.grad(q.error, w), gq.grad(error, w)), 1e-8)
    assert.below(helper.relative(gq.grad(q.stiffness, w), gq.grad(stiffness, w)), 1e-8)
    assert.below(helper.relative(gq.grad(r.stiffness, small), gq.grad(q.stiffness, w)), 5e-3)
  end)

  it("leave the solution as it is without them, and the other way round", function()
    local function solve(r)
      local z, info = gq.odeint(field, z0, { 0, 0.4, 1 }, { gradient = "direct", regularise = r })
      return z, info, gq.grad(z[3]:sum(), { w, z0 })
    end
    local z, info, g = solve()
    local z1, info1, g1 = solve(both)
    local z2, info2 = solve { error = true }
    assert.close(z1, z, 1e-14)
    assert.close(z2, z, 1e-14)
    assert.below(helper.relative(g1, g), 1e-13)
    assert.same({ info.nfe, info.steps, info.nfe_backward }, { info1.nfe, info1.steps, info1.nfe_backward })
    assert.equal(nil, info.regularisers)
    assert.equal(nil, info2.regularisers.stiffness)
    assert.equal(info1.regularisers.error:item(), info2.regularisers.error:item())
    assert.same({}, select(2, solve { error = false }).regularisers)
    -- a second backward pass solves again
    local first = gq.grad(info1.regularisers.error, w)
    assert.same(first:totable(), gq.grad(info1.regularisers.error, w):totable())
  end)

  it("are there without gradients, and zero with gradients of zero where nothing moves", function()
    local _, info = gq.odeint(field, z0, { 0, 1 }, { gradient = "direct", regularise = both })
    for _, o in ipairs { { gradient = "none" }, { gradient = "aca" } } do
      local restore = o.gradient == "aca" and gq.no_grad or function(f) return f() end
      restore(function()
        local _, other = gq.odeint(field, z0, { 0, 1 }, with(o, { regularise = both }))
        assert.falsy(other.regularisers.error.requires_grad)
        assert.equal(info.regularisers.error:item(), other.regularisers.error:item())
        assert.equal(info.regularisers.stiffness:item(), other.regularisers.stiffness:item())
      end)
    end
    local a = leaf(0)
    for _, t in ipairs { { 0, 1 }, { 1, 1 }, { 2 } } do
      _, info = gq.odeint(function(_, z) return a * z end, z0, t, { gradient = "direct", regularise = both })
      local r = info.regularisers
      assert.same({ 0, 0 }, { r.error:item(), r.stiffness:item() })
      local g = gq.grad({ r.error, r.stiffness }, { a, z0 })
      assert.same({ 0, { { 0, 0 }, { 0, 0 }, { 0, 0 } } }, { g[1]:item(), g[2]:totable() })
    end
    _, info = gq.odeint(function(_, z) return a * z end, gq.zeros(0, 2), { 0, 1 },
      { gradient = "direct", regularise = both })
    assert.equal(0, info.regularisers.error:item())
  end)

  it("go along with integrals, several tensors, trace = false, events, grid points and a failing solve", function()
    local a = leaf(0.7)
    local function f(_, z) return a * z end
    local function grows(o, y, t)
      local z, info = gq.odeint(f, y, t, with({ gradient = "direct", rtol = 1e-6, atol = 1e-6 }, o))
      local r = info.regularisers
      assert.close(r.stiffness:item(), 0.7 * info.steps, 1e-6)
      assert.close(gq.grad(r.stiffness, a):item(), info.steps, 1e-5)
      assert.truthy(gq.grad(r.error, a):item() > 0)
      return info, z
    end
    local start = vector { { 1, 2 }, { 0.5, 3 } }
    grows({ regularise = both, trace = false, params = { a } }, start, { 0, 0.5, 1 })
    grows({ regularise = both, dense = true, grid_points = { 0.4 } }, start, { 0, 1 })
    local info = grows({ regularise = both, event = function(_, z) return z:sum() - 8 end }, start, { 0, 5 })
    assert.close(info.event_t, math.log(8 / 6.5) / 0.7, 1e-5)
    local z, _
    z, info = gq.odeint(function(_, s) return { a * s[2], -a * s[1] } end, { start, start }, { 0, 1 },
      { gradient = "direct", regularise = both })
    assert.same({ 2, 2, 2 }, z[1].shape)
    assert.close(info.regularisers.stiffness:item(), 0.7 * info.steps, 1e-6)
    _, info = gq.odeint(f, start, { 0, 1 },
      { gradient = "direct", regularise = { kinetic = true, error = true, stiffness = true } })
    local r = info.regularisers
    assert.same({ { 2, 2 }, {}, {} }, { r.kinetic.shape, r.error.shape, r.stiffness.shape })
    assert.truthy(gq.grad(r.error, a):item() > 0)
    assert.close(gq.grad(r.kinetic[2]:sum(), a):item() / r.kinetic[2]:sum():item(),
      1 / 0.7 + 2 / (1 - math.exp(-1.4)), 1e-4)
    _, info = gq.odeint(function(_, y) return y * y end, vector { { 1 } }, { 0, 0.5, 2 },
      { throw = false, gradient = "direct", regularise = both })
    assert.truthy(info.status ~= "ok")
    assert.truthy(info.regularisers.error:item() > 0)
  end)

  it("lower the evaluations of a trained field when they are added to its loss", function()
    -- a wiggle that the data have no use for: it leaves z(1) where it is
    local x = gq.linspace(-1, 1, 16):reshape(16, 1)
    local function train(weight)
      gq.manual_seed(1)
      local net = gq.nn.mlp { sizes = { 1, 8, 1 }, activation = "tanh", time = true }
      local size = gq.tensor(2, { requires_grad = true })
      local params = net:parameters()
      params[#params + 1] = size
      local opt = gq.optim.adam(params, { lr = 0.03 })
      local loss, info
      for _ = 1, 150 do
        local z
        z, info = gq.odeint(function(t, y) return net(t, y) + size * gq.sin(12 * math.pi * t) end, x, { 0, 1 },
          { gradient = "direct", rtol = 1e-5, atol = 1e-5, regularise = { error = true } })
        loss = (z[2] - 1.5 * x):pow(2):mean()
        opt:zero_grad();
        (loss + weight * info.regularisers.error):backward()
        opt:step()
      end
      return loss:item(), info.nfe, math.abs(size:item())
    end
    local loss, nfe, size = train(0)
    local other, fewer, less = train(1e4)
    assert.below(math.max(loss, other), 1e-3)
    assert.below(fewer, 0.8 * nfe)
    assert.below(less, 0.5 * size)
  end)

  it("asked for wrongly are errors that say how", function()
    local function fails(words, o, r)
      local text = message(gq.odeint, field, z0, { 0, 1 }, with({ gradient = "direct", regularise = r or both }, o))
      for word in words:gmatch("[^|]+") do assert.truthy(text:find(word, 1, true), text) end
    end
    for _, engine in ipairs { "gq", "adjoint", "seminorm", "interpolated", "kronrod", "gqc", "check" } do
      fails('regularise.error|gradient = "' .. engine .. '"|use gradient = "direct"', { gradient = engine })
    end
    fails('use gradient = "direct"', { gradient = "mali", method = "alf" }, { error = true })
    fails('regularise.stiffness|use gradient = "direct"', { gradient = "gq" }, { stiffness = true })
    fails('batch = "joint"', { batch = "independent" })
    fails("regularise.error|kvaerno5|dopri5", { method = "kvaerno5" })
    fails("regularise.error|rk4|dopri5", { method = "rk4", step_size = 0.1 })
    fails("regularise.error|euler|tsit5", { method = "euler" }, { error = true })
    fails("explicit_adams", { method = "explicit_adams", gradient = "none" })
    fails("regularise.stiffness|bosh3|one of dopri5, tsit5, dopri8", { method = "bosh3" })
    fails("regularise.stiffness|alf", { method = "alf" }, { stiffness = true })
    fails("true or false", {}, { error = 1 })
    fails("true or false", {}, { error = 1, kinetic = true })
    fails("did you mean 'error'", {}, { eror = true })
    fails('use gradient = "direct"', { gradient = "gq" }, { error = true, kinetic = true })
    local _, info = gq.odeint(field, z0, { 0, 1 }, { gradient = "direct", regularise = both })
    assert.truthy(message(gq.grad, info.regularisers.error, w, { create_graph = true })
      :find("first derivatives alone", 1, true))
    assert.truthy(message(gq.grad, info.regularisers.error, w, { cotangents = vector(0 / 0) })
      :find("regularisers.error", 1, true))
  end)
end)
