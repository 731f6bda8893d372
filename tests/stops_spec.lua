-- stops_spec.lua -- where a solve stops besides its times: grid_points, where the dynamics jump, and events; and the
-- interpolant that opts.dense returns.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, message, refused, with = problems.vector, problems.leaf, helper.message, helper.refused, helper.with
local methods = gq.core.tableaux()

-- ---- grid points ----

-- z' = -a z before t = 0.4, b z after it.
local function switch(a, b)
  return function(t, z) return gq.where(t:lt(0.4), -a * z, b * z) end
end

local rough = { rtol = 1e-6, atol = 1e-6 }
local engines = problems.engines { gq = { gq = { nodes = "step" } }, check = { gq = { nodes = "step" } }, mali = rough,
  reversible = helper.with({ method = "reversible_heun" }, rough), auto = { memory_limit = 1000 } }
for _, o in ipairs {
  { gradient = "gq", gq = { nodes = 12 } },
  { gradient = "gq", adjoint = { trajectory = "dense" }, gq = { nodes = "step" } },
  { gradient = "gq", adjoint = { trajectory = "checkpoint" }, gq = { nodes = "step" } },
  { gradient = "direct", method = "rk4", step_size = 0.01 },
  { gradient = "direct", method = "euler", step_size = 1e-4 },
  { gradient = "direct", method = "dopri8" },
  { gradient = "gq", method = "alf", rtol = 1e-6, atol = 1e-6, gq = { nodes = "step" } },
} do table.insert(engines, o) end

local function name(o)
  return ("%s, %s%s"):format(o.gradient, o.method or "dopri5", o.adjoint and ", dense" or "")
end

describe("grid_points", function()
  local function error_of(o, t)
    local z, info = gq.odeint(switch(1, 2), vector { 1 }, t or { 0, 1 }, with(o, { gradient = "none" }))
    return math.abs(z[2]:item() / math.exp(t and 0.4 - 1.2 or -0.4 + 1.2) - 1), info
  end

  it("spare a solve the search for a jump", function()
    for _, t in ipairs { false, { 1, 0 } } do
      local blind, many = error_of({ rtol = 1e-9, atol = 1e-9 }, t or nil)
      local e, few = error_of({ rtol = 1e-9, atol = 1e-9, grid_points = { 0.4 } }, t or nil)
      assert.below(e, 1e-8, "error")
      assert.truthy(few.rejected <= 2 and many.rejected > 10, "rejected steps")
      assert.below(few.nfe, many.nfe / 2, "evaluations")
      assert.truthy(blind < 1e-4)
    end
  end)

  it("keep the order of every method", function()
    for _, m in ipairs(methods) do
      if m.kind ~= "symplectic" and m.order < 8 and math.max(0, table.unpack(m.c)) <= 1 then
        local hs, errors = {}, {}
        for i = 1, 4 do
          hs[i] = 0.1 / 2 ^ i
          errors[i] = error_of { method = m.name, step_size = hs[i], grid_points = { 0.4 } }
        end
        local e = errors[4] < 1e-13 and m.order or helper.slope(hs, errors)
        assert.below(math.abs(e - m.order), 0.4, m.name .. ": order off by")
      end
    end
  end)

  it("give the exact gradients on both sides, by every engine", function()
    for o, times in helper.each(engines, { { 0, 1 }, { 0, 0.3, 0.4, 0.7, 1 }, { 1, 0.1 } }) do
      local a, b, z0, t = leaf(1.1), leaf(1.7), leaf { 1.3 }, leaf(times)
      local z = gq.odeint(switch(a, b), z0, t,
        with({ rtol = 1e-9, atol = 1e-9, grid_points = { 0.4 }, max_steps = 1e6 }, o))
      local last = z[#times]
      local g = gq.grad(last:sum(), { a, b, z0, t })
      local t0, t1 = times[1], times[#times]
      local function before(x) return math.min(x, 0.4) end
      local function after(x) return math.max(x, 0.4) end
      local da, db = before(t1) - before(t0), after(t1) - after(t0)
      local want = 1.3 * math.exp(-1.1 * da + 1.7 * db)
      local tol = (o.method == "euler" or o.rtol) and 3e-4 or 1e-6
      local text = name(o)
      assert.close(last:item(), want, tol)
      local got = { g[1]:item(), g[2]:item(), g[3]:item() }
      assert.below(helper.relative(got, { -da * want, db * want, want / 1.3 }), tol, text)
      local slope = { t0 < 0.4 and -1.1 or 1.7, t1 < 0.4 and -1.1 or 1.7 }
      local gt = g[4]:totable()
      assert.below(helper.relative({ gt[1], gt[#gt] }, { -slope[1] * want, slope[2] * want }), tol, text .. ", times")
      assert.equal(#times, #gt)
    end
  end)

  it("let aca and the inverting engines give the gradients of direct", function()
    for _, method in ipairs { "dopri5", "bosh3", "alf", "reversible_heun" } do
      local a, b, z0 = leaf(1.1), leaf(1.7), gq.ones(40, 2, { dtype = "float64", requires_grad = true })
      local t, got = leaf { 0, 0.25, 0.9, 1 }, {}
      for i, engine in ipairs { "direct", "aca", "reversible" } do
        if i < 3 or method == "alf" or method == "reversible_heun" then
          local z, info = gq.odeint(switch(a, b), z0, t,
            { method = method, rtol = 1e-4, atol = 1e-4, gradient = engine, grid_points = { 0.4, 0.8 } })
          got[i] = {}
          for _, g in ipairs(gq.grad((z * z):sum(), { a, b, z0, t })) do helper.flatten(g, got[i]) end
          if i == 3 then assert.below(info.reconstruction * 1e-4, 1e-12, "reconstruction") end
        end
      end
      assert.same(got[1], got[2])
      if got[3] then assert.below(helper.relative(got[3], got[1]), 1e-10, method) end
    end
  end)

  it("may be times, ends, repeated, outside, out of order, a tensor or none", function()
    local want = math.exp(-0.4 + 1.2)
    for _, points in ipairs { { 0.4, 0.4, -3, 0, 1, 7, 0.2 }, vector { 0.6, 0.4 }, gq.tensor { 0.25 }, {} } do
      local z, info = gq.odeint(switch(1, 2), vector { 1 }, { 0, 0.4, 0.4, 1 },
        { rtol = 1e-9, atol = 1e-9, gradient = "none", grid_points = points })
      assert.equal(4, #z)
      assert.equal("ok", info.status)
      assert.close(z[4]:item(), want, 1e-4)
      assert.equal(z[2]:item(), z[3]:item())
    end
    -- a jump where the solve begins: f there is that of the other side
    local z = gq.odeint(function(t, y) return gq.where(t:le(0), 100 * y, y) end, vector { 1 }, { 0, 1 },
      { method = "euler", step_size = 0.5, gradient = "none", grid_points = { 0 } })
    assert.close(z[2]:item(), 2.25, 1e-12)
  end)

  it("work in float32", function()
    local z = gq.odeint(switch(1, 2), gq.tensor { 1 }, { 0, 1 },
      { method = "rk4", step_size = 0.05, gradient = "none", grid_points = { 0.4 } })
    assert.close(z[2]:item(), math.exp(0.8), 1e-5)
  end)

  -- 0.4 in float32 lies above 0.4: beside it an end of 0.4 was no grid point, and f was asked at the other side.
  it("that float32 cannot tell from a time are that time", function()
    local single = { dtype = "float32" }
    local given = { list = { 0.4 }, float32 = gq.tensor({ 0.4 }, single), leaf = gq.tensor({ 0.4 }, { dtype = "float32",
      requires_grad = true }) }
    for what, points in next, given do
      for _, t in ipairs { { 0, 0.4 }, { 0, 0.4, 1 }, { 0.4, 1 }, { 1, 0.4 }, { 1, 0.4, 0 } } do
        for _, times in ipairs { t, gq.tensor(t, single), gq.tensor(t, { dtype = "float64" }) } do
          local a = gq.tensor(1, { dtype = "float32", requires_grad = true })
          local z = gq.odeint(function(x, y) return gq.where(x:lt(0.4), 2 * a, 6 * a) + 0 * y end, gq.zeros(1, single),
            times, { grid_points = points, gradient = "direct" })
          local want = 0
          for k = 2, #t do
            want = want + (t[k] - t[k - 1]) * (t[k] + t[k - 1] < 0.8 and 2 or 6)
            assert.close(z[k]:item(), want, 1e-5, 1e-5, what)
          end
          assert.close(gq.grad(z[#t]:sum(), a):item(), want, 1e-5)
        end
      end
    end
    local function jump(x, y) return gq.where(x:lt(0.4), 0 * y + 2, 0 * y + 6) end
    assert.close(gq.odeint(jump, vector { 0 }, { 0, 0.4 },
      { grid_points = given.float32 })[2], { 0.8 }, 1e-9)
  end)

  it("that are no numbers, or with what steps over them, are errors", function()
    local function fails(o, word)
      helper.refused(word, gq.odeint, switch(leaf(1), 2), vector { 1 }, { 0, 1 }, o)
    end
    fails({ grid_points = 3 }, "grid_points")
    fails({ grid_points = { "x" } }, "grid_points[1]")
    fails({ grid_points = { 0 / 0 } }, "finite")
    fails({ grid_points = { 0.4 }, overshoot = true }, "overshoot")
    fails({ grid_points = { 0.4 }, adjoint = { impulses = "moments" } }, "moments")
    local a = leaf(1)
    local z = gq.odeint(switch(a, 2), vector { 1 }, { 0, 1 }, { gradient = "direct", grid_points = { 0.4 } })
    refused("grid_points", gq.grad, z[2]:sum(), a, { create_graph = true })
  end)
end)

-- ---- dense ----

describe("dense", function()
  local function wave(t, z) return z * gq.cos(t) end

  it("is the interpolant that times are read from", function()
    for _, shape in ipairs { { 1 }, { 5, 3 }, { 70, 2 } } do
      gq.manual_seed(5)
      local z0 = gq.randn(shape, { dtype = "float64" })
      for _, m in ipairs(methods) do
        if m.kind == "runge-kutta" then
          for _, ends in ipairs { { 0, 3 }, { 2, -1 } } do
            local first, span = ends[1], ends[2] - ends[1]
            local times = { first, first + 0.1 * span, first + 0.77 * span, ends[2] }
            local o = { method = m.name, gradient = "none", step_size = m.error_order == 0 and 0.1 or nil }
            local z = gq.odeint(wave, z0, times, o)
            local y, info, at = gq.odeint(wave, z0, ends, with(o, { dense = true }))
            for k, t in ipairs(times) do assert.close(at(t), z[k]:totable(), 1e-12, 1e-14) end
            assert.close(at(ends[2]), y[2]:totable(), 1e-12, 1e-14)
            assert.same(z0:totable(), at(ends[1]):totable())
            assert.equal(info.steps, at.steps)
          end
        end
      end
    end
  end)

  it("is of the method's order less one at least, also where the method carries more than z", function()
    for _, m in ipairs(methods) do
      if m.kind == "reversible" then
        local hs, errors = {}, {}
        for i = 1, 5 do
          hs[i], errors[i] = 0.2 / 2 ^ i, 0
          local _, _, at = gq.odeint(wave, vector { 1 }, { 0, 2 },
            { method = m.name, step_size = hs[i], gradient = "none", dense = true })
          for j = 0, 40 do
            errors[i] = math.max(errors[i], math.abs(at(j / 20):item() - math.exp(math.sin(j / 20))))
          end
        end
        assert.below(1.85, helper.slope(hs, errors), m.name .. ": order")
      end
    end
  end)

  it("takes a number, a table and tensors of times", function()
    local k = leaf(0.5)
    local solved = table.pack(gq.odeint(function(_, y) return k * y end, gq.ones(2, 3, { dtype = "float64" }), { 0, 1 },
      { dense = true, rtol = 1e-8, atol = 1e-8 }))
    local at = solved[3]
    assert.same({ 2, 3 }, at(0.5).shape)
    assert.same({ 2, 3 }, at(gq.tensor(0.5)).shape)
    assert.same({ 2, 2, 3 }, at({ 0.5, 0.1 }).shape)
    assert.same({ 3, 2, 3 }, at(vector { 0.5, 0.1, 1 }).shape)
    assert.same({ 0, 2, 3 }, at({}).shape)
    assert.close(at(0.5):sum():item(), 6 * math.exp(0.25), 1e-6)
    assert.same({ 0, 1, solved[2].steps }, { at.t0, at.t1, at.steps })
    assert.truthy(tostring(at):find("interpolant", 1, true))
    solved[1][2]:sum():backward()             -- the solve itself keeps its gradient
    assert.close(k.grad:item(), 6 * math.exp(0.5), 1e-6)
    solved[1], solved[2] = nil, nil
    collectgarbage()
    gq.core.plan_cache(false)
    assert.close(at(0.5):sum():item(), 6 * math.exp(0.25), 1e-6)
  end)

  it("refuses what is outside or no time", function()
    local _, _, at = gq.odeint(wave, vector { 1 }, { 0, 1 }, { dense = true, gradient = "none" })
    for _, t in ipairs { -0.1, 1.1, 0 / 0, 1 / 0 } do refused("outside", at, t) end
    for _, t in ipairs { "0.5", true, { "x" }, gq.ones(1, 1) } do assert.has_error(function() at(t) end) end
    assert.has_error(at)
    assert.has_error(function() return at.nothing end)
  end)

  it("of a solve that goes nowhere knows its one time", function()
    local _, _, at = gq.odeint(wave, vector { 7 }, { 2 }, { dense = true, gradient = "none" })
    assert.equal(7, at(2):item())
    assert.has_error(function() at(2.1) end)
  end)

  it("of a state without numbers knows every time of the solve", function()
    for _, shape in ipairs { { 0 }, { 0, 3 }, { 2, 0 } } do
      local _, _, at = gq.odeint(wave, gq.zeros(shape), { 0, 1 }, { dense = true, gradient = "none" })
      assert.same(shape, at(0.4).shape)
      assert.same({ 2, table.unpack(shape) }, at({ 0.2, 1 }).shape)
      refused("outside", at, 1.1)
    end
  end)

  it("of a failed solve with throw = false knows the part reached", function()
    for _, method in ipairs { "dopri5", "kvaerno5", "implicit_adams" } do
      local _, info, at = gq.odeint(function(_, z) return z * z end, vector { 1 }, { 0, 3 },
        { method = method, dense = true, throw = false, rtol = 1e-7, atol = 1e-7 })
      assert.not_equal("ok", info.status)
      assert.equal(info.t, at.t1)
      assert.close(at(0.5):item(), 2, 1e-5)
      refused("outside", at, 2)
    end
  end)

  it("goes with grid points", function()
    local _, _, at = gq.odeint(switch(1, 2), vector { 1 }, { 0, 1 },
      { dense = true, gradient = "none", rtol = 1e-10, atol = 1e-10, grid_points = { 0.4 } })
    for _, t in ipairs { 0.1, 0.399, 0.4, 0.401, 0.9 } do
      assert.close(at(t):item(), math.exp(-math.min(t, 0.4) + 2 * math.max(t - 0.4, 0)), 1e-7)
    end
  end)
end)

-- ---- events ----

describe("an event", function()
  local g0 = 9.81
  local function ball(g) return function(_, z) return gq.stack({ z[2], -g + 0 * z[1] }, 1) end end
  local function height(_, z) return z[1] end
  local fall = math.sqrt(2 * 10 / g0)

  it("ends the solve where its function changes sign", function()
    for _, m in ipairs(methods) do
      local o = { method = m.name, event = height, gradient = "none", rtol = 1e-5, atol = 1e-5, max_steps = 1e6,
        step_size = (m.error_order == 0 or m.order == 1) and 0.001 or nil }
      local z, info, t = gq.odeint(ball(g0), vector { 10, 0 }, { 0, 50 }, o)
      assert.close(info.event_t, fall, m.order == 1 and 1e-3 or 1e-4)
      assert.equal(info.event_t, t:item())
      assert.close(z, { 0, -g0 * fall }, 1e-3, 1e-2)
      assert.below(info.t, fall + 1e-3, "where it ended")
    end
  end)

  it("is told by nothing where it does not happen", function()
    local z, info, t = gq.odeint(ball(g0), vector { 10, 0 }, { 0, 1 }, { event = height, gradient = "none" })
    assert.is_nil(info.event_t)
    assert.equal(1, t:item())
    assert.close(z, { 10 - g0 / 2, -g0 }, 1e-6)
  end)

  it("and its time have exact gradients by every engine", function()
    for _, o in ipairs {
      { gradient = "direct" }, { gradient = "aca" }, { gradient = "gq", gq = { nodes = "step" } },
      { gradient = "adjoint" }, { gradient = "seminorm" }, { gradient = "mali", method = "alf" },
      { gradient = "reversible", method = "leapfrog" },
    } do
      local g, z0, times = leaf(g0), leaf { 10, 0 }, leaf { 0.5, 9 }
      local opts = with({ event = height, rtol = 1e-9, atol = 1e-9, max_steps = 1e6 }, o)
      if o.method then opts.step_size = 0.01 end
      local _, info, t = gq.odeint(ball(g), z0, times, opts)
      assert.equal(o.gradient, info.engine)
      assert.close(t:item(), 0.5 + fall, 1e-9)
      local by = gq.grad(t, { g, z0, times })
      assert.close(by[1]:item(), -fall / 2 / g0, 1e-7)
      assert.close(by[2], { fall / 2 / 10, 1 / g0 }, 1e-7, 1e-9)
      assert.close(by[3], { 1, 0 }, 1e-7, 1e-9)
      local z = gq.odeint(ball(g), z0, times, opts)
      by = gq.grad(z[2], { g, z0, times })             -- v = -sqrt(2 g h), whenever it started
      assert.close(by[1]:item(), -fall / 2, 1e-7)
      assert.close(by[2], { -math.sqrt(g0 / 2 / 10), 0 }, 1e-7, 1e-7)
      assert.close(by[3], { 0, 0 }, 0, 1e-7)
    end
  end)

  it("may depend on time and on parameters of its own", function()
    local level, k = leaf(0.3), leaf(0.7)
    local function event(t, z) return z:sum() - level * (1 + t) end
    local z, _, t = gq.odeint(function(_, y) return -k * y end, vector { 1 }, { 0, 9 },
      { event = event, rtol = 1e-10, atol = 1e-10, gradient = "direct" })
    local te = t:item()
    assert.close(math.exp(-0.7 * te), 0.3 * (1 + te), 1e-8)
    assert.close(z[1]:item(), 0.3 * (1 + te), 1e-8)
    local by = gq.grad(t, { level, k })
    local rate = -0.7 * math.exp(-0.7 * te) - 0.3
    assert.close(by[1]:item(), (1 + te) / rate, 1e-6)
    assert.close(by[2]:item(), te * math.exp(-0.7 * te) / rate, 1e-6)
  end)

  it("is the first of several, backwards too, and not where the solve begins", function()
    local function event(t) return gq.sin(t) end
    local _, info = gq.odeint(function(t) return gq.cos(t) + vector { 0 } end, vector { 0 }, { 0, 20 },
      { event = event, gradient = "none", rtol = 1e-6, atol = 1e-6 })
    assert.close(info.event_t, math.pi, 1e-12)
    _, info = gq.odeint(function(t) return gq.cos(t) + vector { 0 } end, vector { 0 }, { 2, -20 },
      { event = event, gradient = "none", rtol = 1e-6, atol = 1e-6 })
    assert.close(info.event_t, 0, 0, 1e-12)
  end)

  it("works for batches, float32, interpolants and grid points", function()
    local z, info, t, at = gq.odeint(function(_, y) return -y end, gq.ones(64, 2), { 0, 9 },
      { event = function(_, y) return y:mean() - 0.5 end, dense = true, rtol = 1e-5, atol = 1e-5, gradient = "none" })
    assert.same({ 64, 2 }, z.shape)
    assert.close(t:item(), math.log(2), 1e-4)
    assert.close(at(info.event_t), z:totable(), 1e-6)
    assert.has_error(function() at(1) end)
    local after = select(2, gq.odeint(switch(1, 2), vector { 1 }, { 0, 2 },
      { event = function(_, y) return y[1] - 1.5 end, gradient = "none", grid_points = { 0.4 }, rtol = 1e-10,
        atol = 1e-10 }))
    assert.close(after.event_t, 0.4 + (math.log(1.5) + 0.4) / 2, 1e-8)
  end)

  it("that is no event is an error", function()
    local function fails(o, times, ...)
      helper.refused({ ... }, gq.odeint, ball(leaf(g0)), vector { 10, 0 }, times, o)
    end
    fails({ event = function(_, z) return z end }, { 0, 5 }, "event", "one number")
    fails({ event = function() return 3 end }, { 0, 5 }, "event", "tensor")
    fails({ event = 3 }, { 0, 5 }, "event")
    fails({ event = height }, { 0 }, "two times")
    fails({ event = height, overshoot = true }, { 0, 5 }, "overshoot")
    fails({ event = function(_, z) return gq.log(z[1] - 9) end }, { 0, 5 }, "event function is not finite")
  end)

  it("can be interrupted, and fails where the solve does", function()
    local text = message(gq.odeint, function(_, y) return y * y end, vector { 1 }, { 0, 2 },
      { event = function(_, y) return y[1] + 1 end })
    assert.truthy(text:find("0.99999", 1, true) or text:find("t = 1", 1, true), text)
    if not gq.debug then return end
    gq.debug.interrupt()
    text = message(gq.odeint, ball(g0), vector { 10, 0 }, { 0, 5 }, { event = height })
    assert.truthy(text:find("interrupted", 1, true), text)
  end)
end)
