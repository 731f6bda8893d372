-- events_spec.lua -- events beyond where they happen (stops_spec.lua): the state lies on the event's surface, a solve
-- goes on from there, and the event's own parameters have gradients.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, message, with = problems.vector, problems.leaf, helper.message, helper.with
local methods = gq.core.tableaux()
local eps = { float32 = 2 ^ -23, float64 = 2 ^ -52 }

local engines = {
  { gradient = "direct" }, { gradient = "aca" }, { gradient = "adjoint" }, { gradient = "seminorm" },
  { gradient = "gq" },
  { gradient = "gq", adjoint = { trajectory = "dense" } }, { gradient = "gq", adjoint = { trajectory = "checkpoint" } },
  { gradient = "gqc" }, { gradient = "kronrod" }, { gradient = "check" }, { gradient = "auto" },
  { gradient = "interpolated" }, { gradient = "mali", method = "alf", step_size = 0.001 },
  { gradient = "reversible", method = "reversible_heun", step_size = 0.001 },
  { gradient = "direct", method = "rk4", step_size = 0.03 }, { gradient = "gq", method = "implicit_adams" },
  { gradient = "direct", method = "kvaerno5" }, { gradient = "gq", method = "dopri8" },
}

local function name(o) return ("%s %s %s"):format(o.gradient, o.method, o.adjoint and o.adjoint.trajectory) end

describe("the state at an event", function()
  -- x falls on a spring: 29.62 cos(sqrt(t^2 / 2)) - 19.62; terms of the height are some tens.
  local function ball(_, z) return gq.stack({ z[2], -9.81 - 0.5 * z[1] }, 1) end
  local function height(_, z) return z[1] end
  local fall = math.acos(19.62 / 29.62) * math.sqrt(2)

  it("lies on its surface or just before, by every method, in both directions", function()
    for dtype, e in pairs(eps) do
      for m, way in helper.each(methods, { 1, -1 }) do
        local fixed = m.error_order == 0 or m.order == 1
        local z, info, t = gq.odeint(ball, gq.tensor({ 10, 0 }, { dtype = dtype }),
          { 3, 3 + way * 20 }, { method = m.name, event = height, gradient = "none", max_steps = 1e6,
            rtol = 1e-5, atol = 1e-5, step_size = fixed and 0.01 or nil })
        local text = ("%s, %s, %d: "):format(m.name, dtype, way)
        assert.close(t:item(), 3 + way * fall, 0, m.order == 1 and 2e-2 or 4e-3)
        assert.truthy(z[1]:item() >= 0, text .. "past the crossing")
        assert.below(z[1]:item(), 8 * e * 20, text .. "off the surface by")
        assert.equal(info.event_t, info.t)
        assert.truthy(info.nfe_event > 0)
      end
    end
  end)

  it("is where the next solve begins, without the event again", function()
    for dtype, e in pairs(eps) do
      local o = { event = function(_, z) return z[1] - 0.3 end, gradient = "none" }
      local z, from, times = gq.tensor({ 1, 0 }, { dtype = dtype }), 0, {}
      for i = 1, 6 do                                  -- cos t = 0.3, on and on through the surface
        local now, _, t = gq.odeint(function(_, y) return gq.stack({ y[2], -y[1] }, 1) end, z, { from, from + 10 }, o)
        assert.below(math.abs(now[1]:item() - 0.3), 8 * e * 10, "off the surface by")
        z, from, times[i] = now, t:item(), t:item()
      end
      local first = math.acos(0.3)
      local want = { first, 2 * math.pi - first, 2 * math.pi + first, 4 * math.pi - first, 4 * math.pi + first,
        6 * math.pi - first }
      assert.close(times, want, dtype == "float32" and 2e-2 or 1e-4)
    end
  end)

  it("that begins at zero is found when it comes back, within one step too", function()
    for up, o in helper.each({ 1, -1 },
        { {}, { method = "rk4", step_size = 5 }, { method = "dopri8", first_step = 3 } }) do
      local _, _, t = gq.odeint(function(s, z) return 0 * z + up * (1 - s) end, vector { 0 }, { 0, 20 },
        with({ event = function(_, z) return z:sum() end, gradient = "none" }, o))
      assert.close(t:item(), 2, 1e-9)
    end
    local z, info = gq.odeint(function(_, z) return 0 * z end, vector { 0 }, { 0, 1 },
      { event = function(_, z) return z:sum() end, gradient = "none" })   -- always zero: no crossing
    assert.is_nil(info.event_t)
    assert.equal(0, z:item())
  end)

  it("has a place among grid points and with an interpolant", function()
    for _, gradient in ipairs { "none", "direct", "gq" } do
      local k = leaf(1)
      local z, info, t, at = gq.odeint(function(s, z) return gq.where(s:lt(1), 0 * z + k, 0 * z - k) end, vector { 0 },
        { 0, 9 }, { grid_points = { 1, 5 }, event = function(_, y) return y:sum() + 0.5 end, gradient = gradient,
          dense = true })
      assert.close(t:item(), 2.5, 1e-9)
      assert.truthy(z:item() >= -0.5 and z:item() < -0.5 + 8 * eps.float64)
      assert.equal(info.event_t, at.t1)
      if gradient ~= "none" then assert.close(gq.grad(z:sum(), k):item(), 0, 0, 1e-9) end
    end
  end)
end)

describe("parameters of an event", function()
  it("alone have the gradients of its time and state, by every engine", function()
    for _, o in ipairs(engines) do
      local q = leaf(0.4)
      local z, _, t = gq.odeint(function(_, y) return -y end, vector { 10 }, { 0, 50 },
        with({ event = function(_, y) return y:sum() - q end, rtol = 1e-9, atol = 1e-9, max_steps = 1e6 }, o))
      assert.truthy(t.requires_grad, name(o))
      assert.close(gq.grad(t, q):item(), -2.5, 1e-6)       -- t = log(10 / q)
      assert.close(gq.grad(z:sum(), q):item(), 1, 1e-6)
    end
  end)

  it("and of the solve have theirs together, by every engine, in both directions and dtypes", function()
    for o, way, dtype in helper.each(engines, { 1, -1 }, { "float32", "float64" }) do
      local opts = { dtype = dtype, requires_grad = true }
      local k, q, z0, times = gq.tensor(0.7, opts), gq.tensor(0.4, opts), gq.tensor({ 2 }, opts),
        gq.tensor({ 1, 1 + way * 50 }, opts)
      local tol = dtype == "float32" and 1e-5 or 1e-8
      local _, _, t = gq.odeint(function(_, y) return -way * k * y end, z0, times,
        with({ event = function(_, y) return y:sum() - q end, rtol = tol, atol = tol, max_steps = 1e6 }, o))
      local T = math.log(5) / 0.7                      -- t = 1 + way log(z0 / q) / k
      local g = gq.grad(t, { k, q, z0, times })
      local got = { g[1]:item(), g[2]:item(), g[3]:item(), g[4]:totable()[1], g[4]:totable()[2] }
      local want = { -way * T / 0.7, -way / 0.28, way / 1.4, 1, 0 }
      assert.below(helper.relative(got, want), dtype == "float32" and 1e-3 or 1e-5, name(o))
    end
  end)

  it("are those of slopes that hang on time, too", function()
    for _, o in ipairs(engines) do
      local k, q = leaf(2), leaf(1)
      local _, _, t = gq.odeint(function(time, y) return k * gq.cos(time) + 0 * y end, vector { 0 }, { 0, 3 },
        with({ event = function(_, y) return y:sum() - q end, rtol = 1e-9, atol = 1e-9, max_steps = 1e6 }, o))
      local by_q = 1 / math.sqrt(3)                        -- t = asin(q / k)
      assert.close(gq.grad(t, k):item(), -by_q / 2, 1e-5, 0, name(o))
      assert.close(gq.grad(t, q):item(), by_q, 1e-5, 0, name(o))
    end
  end)

  it("are those of states of several tensors too", function()
    local q = leaf(1)
    local z, _, t = gq.odeint(function(_, z) return { z[2], 0 * z[2] - 2 } end, { vector { 5 }, vector { 0 } },
      { 0, 9 }, { event = function(_, z) return (z[1] - q):sum() end })
    assert.close(t:item(), 2, 1e-8)                        -- 5 - t^2 = q
    assert.close(gq.grad(t, q):item(), -1 / 4, 1e-6)
    assert.close(gq.grad(z[2]:sum(), q):item(), 1 / 2, 1e-6)
  end)

  it("have none where gradients are not asked for", function()
    local q = leaf(0.4)
    local function solve(o)
      local z, _, t = gq.odeint(function(_, y) return -y end, vector { 10 }, { 0, 50 },
        with({ event = function(_, y) return y:sum() - q end }, o))
      return z.requires_grad or t.requires_grad
    end
    assert.truthy(solve {})
    assert.falsy(solve { gradient = "none" })
    assert.falsy(gq.no_grad(solve, {}))
  end)

  it("may be a time from which a second solve goes on", function()
    local T = leaf(0.7)                                    -- f is 2 before T and -1 after: z(1) = 2 T - (1 - T)
    for _, o in ipairs { {}, { gradient = "direct" }, { gradient = "adjoint" } } do
      local z1, _, t1 = gq.odeint(function(_, z) return 0 * z + 2 end, vector { 0 }, { 0, 1 },
        with({ event = function(t) return t - T end }, o))
      local z2 = gq.odeint(function(_, z) return 0 * z - 1 end, z1, gq.stack { t1, vector(1) }, o)
      assert.close(z2[2]:item(), 1.1, 1e-9)
      assert.close(gq.grad(z2[2]:sum(), T):item(), 3, 1e-9)
    end
  end)

  it("are no switch in f: comparing t with what wants a gradient is an error that says how", function()
    local T, w, k = leaf(0.7), leaf { 0.7, 2 }, leaf(1)
    local function solve(c, o)
      return gq.odeint(function(t, z) return gq.where(c(t, z), 0 * z + k, 0 * z - k) end, vector { 0, 1 }, { 0, 1 }, o)
    end
    for _, c in ipairs {
      function(t) return t:lt(T) end, function(t) return T:le(t) end, function(t) return (t - T):gt(0) end,
      function(t) return (2 * T + 0.1):ge(t * t) end, function(t) return (t / T):lt(1) end,
      function(t) return t:lt(w) end, function(t) return gq.sign(t - T):gt(0) end,
    } do
      for _, gradient in ipairs { "direct", "gq" } do
        helper.raises("event grid_points detach", solve, c, { gradient = gradient })
      end
      assert.truthy(solve(c, { gradient = "none" }))
      assert.truthy(gq.no_grad(solve, c))
    end
    for _, c in ipairs {
      function(t) return t:lt(T:detach()) end, function(t) return t:lt(0.7) end, function(_, z) return z:lt(T) end,
      function(t, z) return (T * t - z):gt(0) end,
    } do assert.truthy(solve(c, {}).requires_grad) end
    local layer = gq.nn.Linear(1, 4, { dtype = "float64" })    -- a network of t is continuous
    for _, act in ipairs { gq.leaky_relu, gq.elu, gq.relu } do
      local z = gq.odeint(function(t, z) return act(layer(t:reshape(1))) + act(t - T) - z end, gq.zeros(4, { dtype =
        "float64" }), { 0, 1 })
      assert.truthy(z.requires_grad)
    end
  end)

  it("of a crossing that only touches are an error, and without gradients none", function()
    local q = leaf(0)
    local touching = {
      { function(t, z) return 0 * z + 3 * (t - 1) ^ 2 end, -1, 0 },                      -- (t - 1)^3
      { function(t, z) return 0 * z + 2 * (t - 1) end, 1, 1e-8 },                        -- (t - 1)^2 - 1e-8
    }
    for i, case in ipairs(touching) do
      local function solve(o)
        return gq.odeint(case[1], vector { case[2] }, { 0, 3 },
          with({ event = function(_, z) return z:sum() - q - case[3] end, method = "rk4", step_size = 0.25 }, o))
      end
      assert.truthy(message(solve, {}):find("only touches zero", 1, true), "case " .. i)
      local _, info = solve { gradient = "none" }
      assert.close(info.event_t, 1, 0, 2e-2)
    end
  end)

  it("and those of the solve refuse a second derivative", function()
    local a = leaf(2)
    local z, _, t = gq.odeint(function(_, y) return a * y end, vector { 1 }, { 0, 9 },
      { gradient = "direct", event = function(_, y) return y:sum() - 3 end })
    assert.close(gq.grad(t, a):item(), -math.log(3) / 4, 1e-5)
    for _, x in ipairs { t, z:sum() } do
      assert.truthy(message(gq.grad, x, a, { create_graph = true }):find("first derivatives alone", 1, true))
    end
  end)
end)

-- z' = -p above 1/2 and -q z below: z(T) = exp(-q (T - t*)) / 2, t* = (z0 - 1/2) / p.
describe("an event where f jumps", function()
  local p, q, last = 1.444, 2, 1.4
  local function solve(o, dtype, sign, z0)
    local c = gq.tensor({ p, q }, { dtype = dtype, requires_grad = true })
    local function f(_, z) return sign * gq.where(z:gt(0.5), -c[1] + 0 * z, -c[2] * z) end
    local start = gq.tensor({ z0 }, { dtype = dtype, requires_grad = true })
    local z, info, t = gq.odeint(f, start, { 0, sign * last }, with({ rtol = 1e-7, atol = 1e-7 }, o))
    return z, c, start, info, t
  end

  it("has the time's derivative by the slope before it", function()
    for dtype, tol in pairs { float32 = 1e-3, float64 = 1e-4 } do
      for sign, gradient in helper.each({ 1, -1 }, { "auto", "gq", "adjoint" }) do
        local function half(_, z) return z[1] - 0.5 end
        local _, c, start, _, t = solve({ event = half, gradient = gradient }, dtype, sign, 1.5)
        t:backward()
        assert.close(t:item(), sign / p, tol)
        assert.close(c.grad[1]:item(), -sign / p ^ 2, tol)
        assert.close(start.grad:item(), sign / p, tol)
      end
    end
  end)

  it("gives the gradients of the solve that goes on, without a change of the state", function()
    for dtype, tol in pairs { float32 = 2e-3, float64 = 1e-4 } do
      for sign, gradient in helper.each({ 1, -1 }, { "auto", "gq", "aca" }) do
        local at = { condition = function(_, z) return z[1] - 0.5 end, terminal = false }
        local z, c, start, info = solve({ event = { at }, gradient = gradient }, dtype, sign, 1.5)
        local want = math.exp(-q * (last - 1 / p)) / 2
        z[2]:backward(gq.ones(1, { dtype = dtype }))
        assert.equal(1, #info.events)
        assert.close(z[2]:item(), want, tol)
        assert.close(c.grad[1]:item(), -q * want / p ^ 2, tol)
        assert.close(c.grad[2]:item(), -want * (last - 1 / p), tol)
        assert.close(start.grad:item(), q * want / p, tol)
      end
    end
  end)

  it("is what a warning asks for where there is none, and f does jump", function()
    for dtype in pairs(eps) do
      for _, gradient in ipairs { "auto", "gq", "direct" } do
        local o = { gradient = gradient, rtol = 1e-5, atol = 1e-5, audit = 1 }
        local z, c, _, info = solve(o, dtype, 1, 1.5)
        z[2]:backward(gq.ones(1, { dtype = dtype }))
        assert.truthy(c.grad[1]:item() < -1.3 * q / p ^ 2 * z[2]:item())
        assert.truthy(info.quotient_error > 0.3 and info.warning:find("that be an event", 1, true), info.warning)
        z, _, _, info = solve(o, dtype, 1, 0.4)                            -- nothing is passed
        z[2]:backward(gq.ones(1, { dtype = dtype }))
        assert.truthy(info.quotient_error < 0.01 and not info.warning, info.warning)
      end
    end
    local k, z0 = gq.tensor({ 0.7 }, { requires_grad = true }), gq.tensor({ 1, -1 })
    local function compares(f)
      local z, info = gq.odeint(f, z0, { 0, 3 }, { audit = 1, rtol = 1e-4, atol = 1e-4 })
      z[2]:sum():backward()
      return info
    end
    local bent = compares(function(_, z) return gq.where((z - 0.5):gt(0), -k * (z - 0.5), 0 * z) end)
    assert.truthy(bent.quotient_error < 0.02 and not bent.warning, bent.warning)
    assert.is_nil(compares(function(_, z) return gq.where(z:gt(0), -k * z, z) + gq.relu(z) end).quotient_error)
    assert.is_nil(compares(function(_, z) return z:softmax(-1) - k * z end).quotient_error)
    local function error_of(loss)
      local z, info = gq.odeint(function(_, z) return gq.where(z:gt(0.8), -k, -3 * k) + 0 * z end, gq.ones(3, 2),
        { 0, 0.5, 1 }, { audit = 1 })
      loss(z):backward()
      return info.quotient_error
    end
    local want = error_of(function(z) return (z * gq.ones(z.shape)):sum() end)
    assert.equal(want, error_of(function(z) return z:sum() end))
    assert.truthy(want > 0.3)
  end)
end)

-- Crossings the other way lie before times that are asked for, and between these and the event.
describe("events of one direction", function()
  it("happen where they do, whatever times are asked for", function()
    local function f(t, z) return 2 * math.pi * gq.cos(2 * math.pi * t) + 0 * z end
    local function solve(t, gradient)
      local z0 = gq.tensor({ 0.1 }, { dtype = "float64", requires_grad = true })
      local z, info = gq.odeint(f, z0, t, { gradient = gradient, event = { { condition = function(_, z) return z[1] end,
        direction = "up", terminal = false, apply = function(at, z) return z + 0.05 + 0.1 * at end } } })
      local times = {}
      for k, e in ipairs(info.events) do times[k] = e.t end
      return z[-1]:item(), times, gq.grad(z[-1]:sum(), z0):item()
    end
    for _, gradient in ipairs { "direct", "gq" } do
      local last, times, slope = solve({ 0, 2.6 }, gradient)
      assert.equal(2, #times)
      for _, t in ipairs { { 0, 0.8, 2.6 }, { 0, 0.6, 0.8, 1.2, 1.3, 2.6 } } do
        local other, when, moved = solve(t, gradient)
        assert.close(when, times, 1e-9)
        assert.close({ other, moved }, { last, slope }, 1e-6)
      end
    end
  end)
end)

describe("a list of events", function()
  local f64 = { dtype = "float64" }
  local tight = { rtol = 1e-9, atol = 1e-9 }
  local function fall(_, z) return gq.stack({ z[2], 0 * z[1] - 9.81 }, 1) end
  local function turn(_, z) return gq.stack({ z[2], -z[1] }, 1) end
  local function height(_, z) return z[1] end

  -- Height of a ball that falls from h and keeps the part e of its speed, at t; all that happens before.
  local function bounced(h, e, t)
    local hit, speed, times = math.sqrt(2 * h / 9.81), math.sqrt(2 * h * 9.81), {}
    if t < hit then return h - 9.81 / 2 * t * t, times end
    repeat
      times[#times + 1] = hit
      speed = e * speed
      local flight = 2 * speed / 9.81
      if t < hit + flight then return speed * (t - hit) - 9.81 / 2 * (t - hit) ^ 2, times end
      hit = hit + flight
    until false
  end

  it("changes the state, at every time asked for, with gradients by several engines", function()
    local times = { 0, 1, 2, 3.5, 5 }
    for _, o in ipairs { { gradient = "direct" }, { gradient = "gq" }, { gradient = "adjoint" } } do
      local e, z0 = leaf(gq.tensor(0.8, f64)), leaf(gq.tensor({ 10, 0 }, f64))
      local z, info = gq.odeint(fall, z0, times, with(with(o, tight), { event = { { condition = height,
        direction = "down", terminal = false,
        apply = function(_, y) return gq.stack({ y[1], -e * y[2] }, 1) end } } }))
      for k, t in ipairs(times) do assert.close(z[k][1]:item(), (bounced(10, 0.8, t)), 1e-6, 1e-7) end
      local _, hits = bounced(10, 0.8, 5)
      assert.equal(#hits, #info.events)
      for k, t in ipairs(hits) do assert.close(info.events[k].t, t, 1e-7) end
      z[5][1]:backward()
      local d = 1e-6
      assert.close(e.grad:item(), (bounced(10, 0.8 + d, 5) - bounced(10, 0.8 - d, 5)) / (2 * d), 1e-5)
      assert.close(z0.grad[1]:item(), (bounced(10 + d, 0.8, 5) - bounced(10 - d, 0.8, 5)) / (2 * d), 1e-5)
      assert.truthy(#info.parts > #info.events)
    end
  end)

  it("is also a function alone between many times, which ends there; info.events tells when", function()
    local function hit(t) return gq.odeint(fall, gq.tensor({ 10, 0 }, f64), t, with(tight, { event = height })) end
    local first = math.sqrt(2 * 10 / 9.81)
    local z, info, t = hit { 0, 1, 2, 3 }
    assert.same({ 4, 2 }, z.shape)
    assert.close(z[2][1]:item(), 10 - 9.81 / 2, 1e-7)
    assert.close(z[4], { 0, -9.81 * first }, 1e-7, 1e-7)
    assert.close(t:item(), first, 1e-7)
    assert.same({ 1 }, { #info.events })
    z, info = hit { 0, 3 }
    assert.same({ 2 }, z.shape)
    assert.same({ { event = 1, t = info.event_t } }, info.events)
    assert.close(info.event_t, first, 1e-7)
    z, info = hit(gq.tensor({ 0, 0.5, 1 }, f64))
    assert.same({}, info.events)
    assert.close(z[3][1]:item(), 10 - 9.81 / 2, 1e-7)
    assert.same({}, select(2, hit { 0, 1 }).events)
    assert.truthy(message(hit, { 0 }):find("two times or more", 1, true))
  end)

  it("goes on from the state that apply gives, unless it is to end there", function()
    local function run(terminal)
      local switched = { condition = function(_, z) return z[1] - 0.8 end, direction = "up", terminal = terminal,
        apply = function(_, z) return gq.stack({ z[1], 0 * z[2] }, 1) end }
      return gq.odeint(function(_, z) return gq.stack({ z[2] - z[1], 0 * z[2] }, 1) end, gq.tensor({ 0.5, 1 }, f64),
        { 0, 2 }, with({ event = { switched } }, tight))
    end
    local at = math.log(2.5)
    for _, given in ipairs { {}, { terminal = false } } do
      local z, info, ended = run(given.terminal)
      assert.close(z[2], { 0.8 * math.exp(at - 2), 0 }, 1e-7)
      assert.close(info.events[1].t, at, 1e-7)
      assert.is_nil(ended)
    end
    local z, _, ended = run(true)
    assert.close(z, { 0.8, 0 }, 1e-7)
    assert.close(ended:item(), at, 1e-7)
  end)

  it("goes by direction, the first that happens, and ends where one is terminal", function()
    local function level(x) return function(_, z) return z[1] - x end end
    local function times_of(direction, to)
      local _, info = gq.odeint(turn, gq.tensor({ 1, 0 }, f64), { 0, to }, with(tight, { event = { {
        condition = level(0.3), direction = direction, terminal = false } }, gradient = "none" }))
      local list = {}
      for k, e in ipairs(info.events) do list[k] = e.t end
      return list
    end
    local a = math.acos(0.3)
    assert.close(times_of("down", 14), { a, 2 * math.pi + a, 4 * math.pi + a }, 1e-7)
    assert.close(times_of("up", 14), { 2 * math.pi - a, 4 * math.pi - a }, 1e-7)
    assert.close(times_of("both", 7), { a, 2 * math.pi - a }, 1e-7)
    assert.close(times_of("up", -7), { a - 2 * math.pi }, 1e-7)                     -- as the solve goes
    local list = { { condition = level(0.5), terminal = false }, level(-0.5), { condition = level(-2) } }
    local z, info, t, _ = gq.odeint(turn, gq.tensor({ 1, 0 }, f64), { 0, 10 }, with(tight, { event = list }))
    assert.close(z, { -0.5, -math.sqrt(0.75) }, 1e-7)
    assert.close(t:item(), math.pi * 2 / 3, 1e-8)
    assert.same({ 1, 2 }, { info.events[1].event, info.events[2].event })
    z, _, t = gq.odeint(turn, gq.tensor({ 1, 0 }, f64), { 0, 1, 3, 4 }, with(tight, { event = list }))
    assert.close(z[2], { math.cos(1), -math.sin(1) }, 1e-7)
    assert.same(z[3]:totable(), z[4]:totable())
    assert.close(t:item(), math.pi * 2 / 3, 1e-8)
    assert.same({ 4, 2 }, z.shape)
    z, info, t = gq.odeint(turn, gq.tensor({ 1, 0 }, f64), { 0, 0.5 }, with(tight, { event = list }))
    assert.same({ {}, 0.5 }, { info.events, t:item() })
    assert.close(z, { math.cos(0.5), -math.sin(0.5) }, 1e-7)
  end)

  it("takes the condition without its name, and one event without a list", function()
    local function level(_, z) return z[1] - 0.3 end
    local a = math.acos(0.3)
    for _, event in ipairs { { level, direction = "up", terminal = false },
      { { level, direction = "up", terminal = false } }, { { condition = level, direction = "up", terminal = false } },
      { condition = level, direction = "up", terminal = false } } do
      local _, info = gq.odeint(turn, gq.tensor({ 1, 0 }, f64), { 0, 7 },
        with(tight, { event = event, gradient = "none" }))
      assert.equal(1, #info.events)
      assert.close(info.events[1].t, 2 * math.pi - a, 1e-7)
    end
  end)

  it("takes what happens at once in its order, and states of several tensors", function()
    local seen = {}
    local function note(k) return function(_, z) seen[#seen + 1] = k return z end end
    local z, info = gq.odeint(function(_, z) return { z[2], -z[1] } end, { gq.ones(1, f64), gq.zeros(1, f64) },
      { 0, 2, 4 }, with(tight, { event = {
        { condition = function(_, z) return z[1] - 0.5 end, terminal = false, apply = note "a" },
        { condition = function(_, z) return 2 * z[1] - 1 end, terminal = false, apply = note "b" } } }))
    assert.same({ "a", "b" }, seen)
    assert.equal(2, #info.events)
    assert.close(z[1][3]:item(), math.cos(4), 1e-7)
    assert.same({ 3, 1 }, z[2].shape)
  end)

  it("says what is wrong", function()
    local function refused(words, event, times, more)
      helper.raises(words, gq.odeint, turn, gq.ones(2), times or { 0, 1 }, with({ event = event }, more or {}))
    end
    refused("a function list condition direction", {})
    refused("event 1 unknown option 'when'", { { when = height } })
    refused("event 2 'condition' missing", { { condition = height }, {} })
    refused("without a name", { { height, height } })
    refused("event 1 unknown option 'when'", { height, when = 3 })
    refused("direction up, down, both \"rising\"", { { condition = height, direction = "rising" } })
    refused("terminal true or false", { { condition = height, terminal = "no" } })
    refused("apply a function", { { condition = height, apply = 3 } })
    refused("two times", { { condition = height } }, { 0 })
    refused("dense", { { condition = height } }, nil, { dense = true })
    refused("regularise", { { condition = height } }, nil, { regularise = { kinetic = true } })
    for _, state in ipairs { gq.ones(3), gq.ones(2, f64), 3 } do
      refused("event 1 apply returns the state float32 {2} expected got", { { terminal = false,
        condition = function(t) return t - 0.5 end, apply = function() return state end } })
    end
    for dtype in pairs(eps) do
      local z0 = gq.tensor({ 1, 0 }, { dtype = dtype })
      helper.raises("pile up at t = 1.354 terminal", gq.odeint, fall, z0, { 0, 5 }, { event = { { condition = height,
        direction = "down", terminal = false,
        apply = function(_, z) return gq.stack({ z[1], -0.5 * z[2] }, 1) end } } })
    end
    refused("apply returns the state", { { condition = function(_, z) return z[1] - 1.2 end, terminal = false,
      apply = function() end } })
  end)
end)
