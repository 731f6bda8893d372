-- adams_spec.lua -- the multistep methods: orders on fixed grids, their formulas, adaptive solves, the interpolant,
-- where they start anew, gradients, and what they refuse.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, refused, with = problems.vector, problems.leaf, helper.refused, helper.with
local exact = dofile("tests/data/detest.lua")
local methods = { "explicit_adams", "implicit_adams" }

local function none(o) return with(o, { gradient = "none" }) end

-- Evaluations of one step of the start, its end included.
local function start_cost(order) return ((order + 1) // 2) ^ 2 + 1 end

-- ---- fixed grids ----

describe("on a fixed grid", function()
  -- Errors at four times on ever finer grids, down to rounding.
  local function errors_by_step(p, order, o)
    local times, want, hs, errors = {}, {}, {}, {}
    for j = 0, 4 do
      times[j + 1] = p.t0 + (p.t1 - p.t0) * j / 4
      want[j + 1] = p.z(times[j + 1])
    end
    local coarse, ratio = o.method == "explicit_adams" and order > 5 and 32 or 16, order > 6 and math.sqrt(2) or 2
    for k = 0, order > 6 and 10 or 7 do
      local h = (p.t1 - p.t0) / (4 * math.floor(coarse * ratio ^ k + 0.5))
      local e = helper.relative(gq.odeint(p.f, vector(p.z0), times, with(o, { step_size = h })), want)
      if e < (p.floor and 2e-12 or 5e-14) then break end
      hs[#hs + 1], errors[#errors + 1] = h, e
    end
    return hs, errors
  end

  it("the order is max_order within 0.15", function()
    for method, orders in pairs { explicit_adams = { 1, 2, 3, 4, 5, 6 }, implicit_adams = { 2, 3, 4, 5, 6, 7, 8 } } do
      for order, p in helper.each(orders, problems.exact) do
        local hs, errors = errors_by_step(p, order, none { method = method, max_order = order })
        local n, text = #hs, ("%s %d on %s: "):format(method, order, p.name)
        assert.truthy(n >= 4, text .. n .. " errors above rounding")
        local from = math.max(1, n - 4)
        local slope = helper.slope({ table.unpack(hs, from) }, { table.unpack(errors, from) }, true)
        assert.below(math.abs(slope - order), 0.15, text .. slope .. ", off by")
      end
    end
  end)

  it("polynomials of degree max_order are exact, also between steps and in a shorter last step", function()
    for _, method in ipairs(methods) do
      for order = 2, 12 do
        local function f(t) return order * (t - 0.3) ^ (order - 1) * gq.ones(2, { dtype = "float64" }) end
        local function z(t) return (t - 0.3) ^ order - 0.3 ^ order * (-1) ^ order end
        local times = { 0, 0.07, 0.31, 0.55, 0.99, 1.03 }
        local got = gq.odeint(f, gq.zeros(2, { dtype = "float64" }), times,
          none { method = method, max_order = order, step_size = 0.05 })
        for k, t in ipairs(times) do
          assert.close(got[k], { z(t), z(t) }, 1e-12, 1e-13)
        end
      end
    end
  end)

  it("steps are those of Adams-Bashforth and of Adams-Moulton, once corrected", function()
    local ab = { { 1 }, { 3 / 2, -1 / 2 }, { 23 / 12, -16 / 12, 5 / 12 }, { 55 / 24, -59 / 24, 37 / 24, -9 / 24 } }
    local am = { { 1 / 2, 1 / 2 }, { 5 / 12, 8 / 12, -1 / 12 }, { 9 / 24, 19 / 24, -5 / 24, 1 / 24 } }
    local function f(t, y) return math.cos(t) * y - 0.3 * y * y end
    local function field(t, y) return gq.cos(t) * y - 0.3 * y * y end
    for _, h in ipairs { 0.1, -0.1 } do
      local times = {}
      for i = 0, 20 do times[i + 1] = i * h end
      for order = 1, 4 do
        for _, method in ipairs { "explicit_adams", order > 1 and "implicit_adams" or nil } do
          local z, info = gq.odeint(field, vector { 1 }, times,
            none { method = method, max_order = order, step_size = 0.1 })
          local y, k = z:totable(), method == "explicit_adams" and order or order - 1
          local function slope(i) return f(times[i], y[i][1]) end
          for i = order, 20 do                    -- after the start
            local p = y[i][1]
            for j = 1, k do p = p + h * ab[k][j] * slope(i + 1 - j) end
            if method == "implicit_adams" then
              local c = y[i][1] + h * am[k][1] * f(times[i + 1], p)
              for j = 2, k + 1 do c = c + h * am[k][j] * slope(i + 2 - j) end
              p = c
            end
            assert.close(y[i + 1][1], p, 1e-13)
          end
          assert.equal(20, info.steps)
          assert.equal(0, info.rejected)
          local each = method == "explicit_adams" and 1 or 2
          assert.equal(1 + (order - 1) * start_cost(order) + (21 - order) * each, info.nfe)
        end
      end
    end
  end)

  it("max_order is 4 if it is not given", function()
    for _, method in ipairs(methods) do
      local p = problems.exact[1]
      local o = { method = method, step_size = 0.1, gradient = "none" }
      assert.same(gq.odeint(p.f, vector(p.z0), { 0, 2 }, with(o, { max_order = 4 })):totable(),
        gq.odeint(p.f, vector(p.z0), { 0, 2 }, o):totable())
    end
  end)

  it("a solve of fewer steps than the start is one of that order", function()
    for _, n in ipairs { 1, 2, 3 } do
      local z, info = gq.odeint(problems.exact[1].f, vector { 1 }, { 0, n * 0.05 },
        none { method = "implicit_adams", max_order = 8, step_size = 0.05 })
      assert.equal(n, info.steps)
      assert.close(z[2]:item(), math.exp(math.sin(n * 0.05)), 1e-13)
    end
  end)

  it("the interpolant has the order of the method", function()
    for method, order in pairs { explicit_adams = 4, implicit_adams = 6 } do
      local hs, errors = {}, {}
      for i = 0, 3 do
        hs[i + 1], errors[i + 1] = 0.1 / 2 ^ (i / 2), 0
        local _, _, at = gq.odeint(problems.exact[1].f, vector { 1 }, { 0, 3 },
          none { method = method, max_order = order, step_size = hs[i + 1], dense = true })
        for j = 0, 150 do
          errors[i + 1] = math.max(errors[i + 1], math.abs(at(j / 50):item() - math.exp(math.sin(j / 50))))
        end
      end
      assert.below(order - 0.35, helper.slope(hs, errors), method)
    end
  end)
end)

-- ---- adaptive ----

local function detest(name, method, tol, more)
  local p = problems.by_name[name]
  local z, info = gq.odeint(p.f, vector(p.z0), { 0, 20 }, none(with({ method = method, rtol = tol, atol = tol }, more)))
  local worst, scale = 0, 1
  for i, want in ipairs(exact[name]) do
    local e = math.abs(z[2][i]:item() - want)
    worst, scale = e == e and math.max(worst, e) or math.huge, math.max(scale, math.abs(want))
  end
  return worst / scale, info
end

describe("adaptive", function()
  for _, method in ipairs(methods) do
    it(method .. " keeps to the tolerance on DETEST", function()
      for _, p in ipairs(problems.detest) do
        local before, nfe = math.huge, 0
        for _, tol in ipairs { 1e-3, 1e-6, 1e-8, 1e-10 } do
          local e, info = detest(p.name, method, tol)
          local text = ("%s at %g"):format(p.name, tol)
          assert.below(e, 5000 * tol, text)
          assert.below(e, math.max(0.5 * before, 10 * tol), text .. " against the tolerance before")
          assert.truthy(info.nfe > nfe, text)
          local each = method == "explicit_adams" and 1 or 2
          assert.equal(2 + each * info.steps + info.rejected, info.nfe)
          before, nfe = e, info.nfe
        end
      end
    end)
  end

  it("both take fewer evaluations than dopri5 at tight tolerances", function()
    for name, tol in helper.each({ "A3", "B1", "B5", "C5", "D3", "E1", "E2" }, { 1e-8, 1e-10 }) do
      local _, other = detest(name, "dopri5", tol)
      for _, method in ipairs(methods) do
        local _, info = detest(name, method, tol)
        assert.below(info.nfe, (tol < 1e-9 and 0.4 or 0.7) * other.nfe, ("%s on %s at %g"):format(method, name, tol))
      end
    end
  end)

  it("max_order bounds the order: a low one takes many more steps", function()
    for _, method in ipairs(methods) do
      local e2, low = detest("B5", method, 1e-6, { max_order = 2 })
      local e4, some = detest("B5", method, 1e-6, { max_order = 4 })
      local _, all = detest("B5", method, 1e-6)
      local _, twelve = detest("B5", method, 1e-6, { max_order = 12 })
      assert.truthy(low.nfe > 3 * some.nfe and some.nfe > 1.3 * all.nfe)
      assert.equal(twelve.nfe, all.nfe)
      assert.below(math.max(e2, e4), 1e-2, method)
    end
  end)

  it("solves backwards in time, in float32, and by either norm", function()
    local p = problems.exact[2]
    for method, norm in helper.each(methods, { "rms", "max" }) do
      local z = gq.odeint(p.f, vector(p.z(5)), { 5, 2.5, 0 },
        none { method = method, rtol = 1e-9, atol = 1e-9, norm = norm })
      assert.close(z[2], p.z(2.5), 1e-4)
      local y, info = gq.odeint(p.f, gq.tensor(p.z0), { 0, 2.5, 5 }, none { method = method, norm = norm })
      assert.equal("float32", y.dtype)
      assert.close(y[2], p.z(2.5), 2e-2)
      assert.close(y[3], p.z(5), 2e-2)
      assert.truthy(info.nfe < 100)
    end
  end)

  it("solves states of every shape and size like one number", function()
    local function f(t, z) return z * gq.cos(t) end
    for method, o in helper.each(methods, { { rtol = 1e-8, atol = 1e-8 }, { step_size = 0.05, max_order = 6 } }) do
      o.method = method
      local one = gq.odeint(f, vector { 1 }, { 0, 1.37, 3 }, none(o))
      for _, shape in ipairs { {}, { 1 }, { 63 }, { 65, 1 }, { 9, 7, 5 }, { 9000, 3 } } do
        local z = gq.odeint(f, gq.full(shape, 1, { dtype = "float64" }), { 0, 1.37, 3 }, none(o))
        for k = 2, 3 do
          local want = one[k]:item()
          assert.close(z[k]:max():item(), want, 1e-13)
          assert.close(z[k]:min():item(), want, 1e-13)
        end
      end
      assert.equal(2, #gq.odeint(f, gq.zeros(0, 3), { 0, 1 }, none(o)))
    end
  end)

  it("steps past the last time and reads it back where overshoot is asked for", function()
    for _, method in ipairs(methods) do
      local p = problems.exact[2]
      for _, o in ipairs { { rtol = 1e-8, atol = 1e-8 }, { step_size = 0.03, max_order = 6 } } do
        local z, info = gq.odeint(p.f, vector(p.z0), { 0, 5 }, none(with(o, { method = method, overshoot = true })))
        assert.close(z[2], p.z(5), 1e-5)
        assert.truthy(info.t > 5)
      end
    end
  end)

  it("keeps what is not finite out of the solution by both norms", function()
    for norm, method in helper.each({ "rms", "max" }, methods) do
      local _, info = gq.odeint(function(t, z) return gq.where(t:lt(0.5), z, z / 0) end, gq.ones(70, 2), { 0, 1 },
        none { method = method, norm = norm, throw = false })
      assert.close(info.t, 0.5, 1e-5)
    end
  end)

  it("starts by first_step, and recovers from one that is far too long", function()
    for method, first in helper.each(methods, { 1e-8, 0.1, 50 }) do
      local e, info = detest("E2", method, 1e-6, { first_step = first })
      assert.below(e, 5e-3, method)
      assert.truthy(info.nfe < 1000)
    end
  end)

  it("has an interpolant as exact as its steps, smooth where they join", function()
    for method, p, tol in helper.each(methods, { problems.exact[1], problems.exact[2] }, { 1e-5, 1e-9 }) do
      local z, info, at = gq.odeint(p.f, vector(p.z0), { p.t0, p.t1 },
        none { method = method, rtol = tol, atol = tol, dense = true })
      local e, worst = helper.relative(z[2], p.z(p.t1)), 0
      for j = 0, 400 do
        local t = p.t0 + (p.t1 - p.t0) * j / 400
        worst = math.max(worst, helper.relative(at(t), p.z(t)))
      end
      assert.below(worst, 200 * tol + 10 * e, p.name)
      assert.close(at(p.t1), z[2]:totable(), 1e-13)
      gq.core.steplog(true)
      gq.odeint(p.f, vector(p.z0), { p.t0, p.t1 }, none { method = method, rtol = tol, atol = tol })
      local rows, joined = gq.core.steplog(), 0
      gq.core.steplog(false)
      for i = 4, #rows - 1 do
        local t, h = rows[i][1], 1e-5 * rows[i][2]
        local left, here, right = at(t - h), at(t), at(t + h)
        assert.close(left + right, (2 * here):totable(), 1e-7)
        joined = joined + 1
      end
      assert.truthy(joined >= info.steps - 4)
    end
  end)
end)

-- ---- stops and failures ----

describe("multistep solves", function()
  -- z' = -a z before t = 0.4, b z after it.
  local function switch(a, b)
    return function(t, z) return gq.where(t:lt(0.4), -a * z, b * z) end
  end

  it("start anew at grid_points", function()
    for method, o, ends in helper.each(methods, { { rtol = 1e-9, atol = 1e-9 }, { step_size = 0.02, max_order = 6 } },
        { { 0, 1 }, { 1, 0 } }) do
      local z, info = gq.odeint(switch(1, 2), vector { 1 }, ends,
        none(with(o, { method = method, grid_points = { 0.4 } })))
      assert.close(z[2]:item(), math.exp((ends[2] - ends[1]) * 0.8), 1e-7)
      assert.truthy(info.rejected <= 4)
      if o.step_size then
        local each = method == "explicit_adams" and 1 or 2
        assert.equal(50, info.steps)
        assert.equal(2 + 2 * 5 * start_cost(6) + 40 * each, info.nfe)
      end
    end
  end)

  it("end at events", function()
    for method, o in helper.each(methods, { { rtol = 1e-10, atol = 1e-10 }, { step_size = 0.05, max_order = 8 } }) do
      local k = leaf(0.7)
      local z, info, t = gq.odeint(function(_, y) return -k * y end, vector { 1 }, { 0, 5 }, with(o,
        { method = method, event = function(_, y) return y[1] - 0.5 end }))
      assert.close(t:item(), math.log(2) / 0.7, 1e-7)
      assert.close(z[1]:item(), 0.5, 1e-7)
      assert.close(gq.grad(t, k):item(), -math.log(2) / 0.49, 1e-5)
      assert.close(info.event_t, t:item(), 1e-12)
    end
    -- in the start, all of whose steps are made at once
    local _, _, t = gq.odeint(function(_, y) return 0 * y + 1 end, vector { 0 }, { 0, 5 }, none {
      method = "explicit_adams", step_size = 0.5, max_order = 8, event = function(_, y) return y[1] - 0.7 end })
    assert.close(t:item(), 0.7, 1e-12)
  end)

  it("give the part reached where they fail", function()
    local function grow(_, z) return z * z end      -- infinite at t = 1
    for _, method in ipairs(methods) do
      local z, info = gq.odeint(grow, vector { 1 }, { 0, 0.5, 2 },
        none { method = method, rtol = 1e-8, atol = 1e-8, throw = false })
      assert.truthy(info.status == "non_finite" or info.status == "step_underflow", info.status)
      assert.close(info.t, 1, 1e-4)
      assert.close(z[2]:item(), 2, 1e-6)
      assert.truthy(z[3]:item() ~= z[3]:item())
      z, info = gq.odeint(grow, vector { 1 }, { 0, 0.5, 2 },
        none { method = method, step_size = 0.05, max_steps = 13, throw = false })
      assert.equal("max_steps", info.status)
      assert.close(info.t, 0.65, 1e-12)
      assert.close(z[2]:item(), 2, 1e-2)
      assert.equal(13, info.steps)
    end
  end)

  it("name a value that is not finite, at its step of the start too", function()
    local function wall(t, z) return gq.where(t:lt(0.35), z, z / 0) end
    for order = 2, 8, 3 do
      local o = none { method = "explicit_adams", step_size = 0.1, max_order = order }
      refused("not finite appeared after t = 0.3", gq.odeint, wall, vector { 1, 1 }, { 0, 1 }, o)
      local z, info = gq.odeint(wall, vector { 1, 1 }, { 0, 0.3, 1 }, with(o, { throw = false }))
      assert.equal("non_finite", info.status)
      assert.close(z[2][1]:item(), math.exp(0.3), 1e-2)
      assert.equal(3, info.steps)
    end
  end)

  it("stay where nothing changes, and repeat times", function()
    for _, method in ipairs(methods) do
      local z = gq.odeint(function(_, y) return 0 * y end, vector { 3 }, { 0, 0, 1e6, 1e6 }, none { method = method })
      assert.same({ { 3 }, { 3 }, { 3 }, { 3 } }, z:totable())
      z = gq.odeint(function(_, y) return y end, vector { 3 }, { 2 }, none { method = method })
      assert.same({ { 3 } }, z:totable())
    end
  end)
end)

-- ---- gradients ----

describe("gradients of multistep solves", function()
  local oracle = problems.oracle
  local cases = { G1 = { 5 }, G2 = { 0.5, 5 }, G3 = { 7 }, G4 = { 1, 2 }, G5 = { 3 }, G6 = { 10 } }
  local engines = {
    { gradient = "gq", gq = { nodes = "step" } }, { gradient = "adjoint" }, { gradient = "seminorm" },
    { gradient = "interpolated" }, { gradient = "kronrod" }, { gradient = "gqc" }, { gradient = "auto" },
    { gradient = "gq", gq = { nodes = "step" }, adjoint = { trajectory = "dense" } },
    { gradient = "gq", gq = { nodes = "step" }, adjoint = { trajectory = "dense", impulses = "moments" } },
    { gradient = "gq", gq = { nodes = "step" }, adjoint = { method = "dopri8" } },
    { gradient = "check", gq = { nodes = "step" } },
  }

  it("are those of the oracles by every continuous engine", function()
    for method, o in helper.each(methods, engines) do
      for name, arguments in pairs(cases) do
        local e, info = problems.gradient_error(oracle[name](table.unpack(arguments)),
          with(o, { method = method, rtol = 1e-8, atol = 1e-8 }))
        assert.below(e, 5e-7, ("%s, %s on %s"):format(method, o.gradient, name))
        assert.truthy(info.nfe_backward > 0)
      end
    end
  end)

  it("fall with the tolerance, by gq and by the adjoint", function()
    for _, o in ipairs { engines[1], engines[2], engines[8] } do
      local before = math.huge
      for _, tol in ipairs { 1e-4, 1e-6, 1e-8 } do
        local e = problems.gradient_error(oracle.G8(10), with(o, { method = "implicit_adams", rtol = tol, atol = tol }))
        assert.below(e, 0.1 * before, o.gradient)
        before = e
      end
      assert.below(before, 1e-5, o.gradient)
    end
  end)

  it("are right on a fixed grid, where the way back goes in steps of the same size", function()
    for _, method in ipairs(methods) do
      for order, most in pairs { [2] = 1e-2, [4] = 1e-5, [8] = 1e-9 } do
        for _, o in ipairs { engines[1], engines[2], engines[8] } do
          local e = problems.gradient_error(oracle.G3(3),
            with(o, { method = method, max_order = order, step_size = 0.02 }))
          assert.below(e, most, ("%s of order %d, %s"):format(method, order, o.gradient))
        end
      end
    end
  end)

  it("reach times in between, and the times", function()
    for method, o in helper.each(methods, { engines[1], engines[2], engines[6], engines[8] }) do
      local a, z0, t = leaf(-0.4), leaf { 2 }, leaf { 0, 0.3, 0.3, 1, 1.7 }
      local z = gq.odeint(function(_, y) return a * y end, z0, t,
        with(o, { method = method, rtol = 1e-9, atol = 1e-9 }))
      local g = gq.grad(z:sum(), { a, z0, t })
      local da, dz, dt, times = 0, 0, {}, t:totable()
      for k, s in ipairs(times) do
        local y = 2 * math.exp(-0.4 * s)
        da, dz, dt[k] = da + s * y, dz + y / 2, -0.4 * y
      end
      dt[1] = 0.4 * (2 * dz - 2)
      assert.close(g[1]:item(), da, 1e-6)
      assert.close(g[2]:item(), dz, 1e-6)
      assert.close(g[3], dt, 1e-6)
    end
  end)

  it("of a network agree with dopri5's", function()
    gq.manual_seed(3)
    local net = gq.nn.mlp { sizes = { 2, 16, 2 }, activation = "tanh", time = true }
    net:to("float64")
    local z0 = gq.randn(40, 2, { dtype = "float64" })
    local function gradients(o)
      local z = gq.odeint(net, z0, { 0, 0.4, 1 }, with({ rtol = 1e-9, atol = 1e-9 }, o))
      local list = {}
      for _, g in ipairs(gq.grad((z ^ 2):mean(), net:parameters())) do helper.flatten(g, list) end
      return list
    end
    local want = gradients { gradient = "direct" }
    for method, o in helper.each(methods, { engines[1], engines[2], engines[6], engines[8] }) do
      assert.below(helper.relative(gradients(with(o, { method = method })), want), 1e-6, method)
    end
  end)

  it("are chosen by auto: along the kept solution, or backwards where that does not fit", function()
    local k = leaf(0.7)
    local function solve(o)
      local z, info = gq.odeint(function(_, y) return -k * y end, gq.ones(300, 3, { dtype = "float64" }), { 0, 0.5, 1 },
        with({ method = "implicit_adams", gradient = "auto", rtol = 1e-8, atol = 1e-8 }, o))
      local g = gq.grad(z[3]:sum(), k):item()
      assert.close(g, -900 * math.exp(-0.7), 1e-6)
      return info
    end
    local dense, back = solve {}, solve { memory_limit = 1e5 }
    assert.equal("gq", dense.engine)
    assert.equal("gq", back.engine)
    assert.truthy(dense.reason:find("kept solution", 1, true) and back.reason:find("memory_limit", 1, true))
    assert.truthy(back.peak_bytes < dense.peak_bytes)
    assert.equal("gq", solve({ overshoot = true }).engine)
  end)
end)

-- ---- errors ----

describe("multistep methods refuse", function()
  local function fails(o, ...)
    refused({ ... }, gq.odeint, function(_, z) return -z end, vector { 1 }, { 0, 1 }, o)
  end

  it("engines that go back through single steps, and name others", function()
    for _, method in ipairs(methods) do
      for _, engine in ipairs { "direct", "aca" } do
        fails({ method = method, gradient = engine }, engine, method, '"gq"', '"adjoint"', "dopri5")
      end
      fails({ method = method, gradient = "reversible" }, method, "alf", "leapfrog")
      fails({ method = method, gradient = "mali" }, method, "alf")
      fails({ method = method, adjoint = { trajectory = "checkpoint" } }, method, "checkpoint", '"dense"')
      fails({ method = method, parity = true }, "parity", method)
      fails({ adjoint = { method = method } }, "adjoint.method", method, "dopri5")
    end
    local k = leaf(1)
    local z = gq.odeint(function(_, y) return -k * y end, vector { 1 }, { 0, 1 }, { method = "explicit_adams" })
    refused("direct", gq.grad, z[2]:sum(), k, { create_graph = true })
  end)

  it("orders that there are not", function()
    for _, order in ipairs { 0, 13, -1 } do fails({ method = "explicit_adams", max_order = order }, "max_order") end
    fails({ method = "implicit_adams", max_order = 1 }, "max_order", "2")
    fails({ method = "implicit_adams", max_order = 2.5 }, "max_order", "integer")
    fails({ method = "implicit_adams", max_order = "4" }, "max_order", "integer")
    fails({ method = "rk4", max_order = 4 }, "max_order", "rk4", "explicit_adams")
    fails({ max_order = 4 }, "max_order", "dopri5")
  end)
end)
