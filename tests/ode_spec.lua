-- ode_spec.lua -- gq.odeint forwards: accuracy on DETEST, times of every kind, step control, what a failed
-- solve says, options, traced functions, and what a solve allocates.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, message, refused = problems.vector, helper.message, helper.refused
local exact = dofile("tests/data/detest.lua")

local function none(options)
  options = options or {}
  options.gradient = "none"
  return options
end

-- Error over max(1, |y|), both in the largest component.
local function global_error(z, want)
  local worst, scale = 0, 1
  for i, y in ipairs(want) do
    local e = math.abs(z[i] - y)
    worst = e == e and math.max(worst, e) or math.huge
    scale = math.max(scale, math.abs(y))
  end
  return worst / scale
end

describe("DETEST with", function()
  for method, p in helper.each({ "dopri5", "tsit5", "dopri8" }, problems.detest) do
    it(("%s, %s"):format(method, p.name), function()
      local errors, nfe = {}, {}
      for i, tol in ipairs { 1e-3, 1e-6, 1e-9 } do
        local z, info = gq.odeint(p.f, vector(p.z0), { 0, 20 }, none { method = method, rtol = tol, atol = tol })
        errors[i], nfe[i] = global_error(z[2]:totable(), exact[p.name]), info.nfe
        assert.equal("ok", info.status)
        assert.below(errors[i], 5000 * tol, "error at tol " .. tol)
        if i > 1 then
          assert.below(errors[i], math.max(errors[i - 1], 0.01 * tol), "error that falls with tol, at " .. tol)
        end
      end
      assert.below(errors[3], math.max(1e-3 * errors[1], 1e-9), "error at 1e-9 against that at 1e-3")
      assert.truthy(nfe[3] > nfe[1])
    end)
  end

  -- The problems whose way back is no worse than the way there.
  for _, method in ipairs { "dopri5", "tsit5", "dopri8" } do
    it(method .. ", from the end to the start", function()
      for _, p in ipairs(problems.detest) do
        if ("A3 A4 B1 B5 D1 D3 E1 E3 E5"):find(p.name, 1, true) then
          local from, to = exact[p.name], p.z0
          local errors = {}
          for i, tol in ipairs { 1e-6, 1e-9 } do
            local z = gq.odeint(p.f, vector(from), { 20, 0 }, none { method = method, rtol = tol, atol = tol })
            errors[i] = global_error(z[2]:totable(), to)
            assert.below(errors[i], 1e5 * tol, p.name .. " backwards")
          end
          assert.below(errors[2], 0.1 * errors[1], p.name .. " backwards, falling")
        end
      end
    end)
  end

  it("bosh3, adaptive_heun and fehlberg2 at looser tolerances", function()
    for method, p in helper.each({ "bosh3", "adaptive_heun", "fehlberg2" }, problems.detest) do
      if ("A B E"):find(p.name:sub(1, 1), 1, true) then
        for _, tol in ipairs { 1e-4, 1e-6 } do
          local z = gq.odeint(p.f, vector(p.z0), { 0, 20 }, none { method = method, rtol = tol, atol = tol })
          assert.below(global_error(z[2]:totable(), exact[p.name]), 2e4 * tol, method .. " on " .. p.name)
        end
      end
    end
  end)
end)

-- ---- times ----

local function decay(_, z) return -z end
local function wave(t, z) return z * gq.cos(t) end

describe("times", function()
  it("may be one: the state itself, without an evaluation that counts", function()
    local z, info = gq.odeint(decay, vector { 1, 2 }, { 3 }, none())
    assert.same({ { 1, 2 } }, z:totable())
    assert.equal(0, info.steps)
    assert.equal("ok", info.status)
  end)

  it("may repeat, at the start, inside and at the end", function()
    local z = gq.odeint(wave, vector { 1 }, { 0, 0, 1, 1, 1, 2, 2 }, none { rtol = 1e-9, atol = 1e-9 })
    local want = {}
    for i, t in ipairs { 0, 0, 1, 1, 1, 2, 2 } do want[i] = { math.exp(math.sin(t)) } end
    assert.close(z, want, 1e-7)
    for _, k in ipairs { { 1, 2 }, { 3, 4 }, { 4, 5 }, { 6, 7 } } do
      assert.same(z[k[1]]:totable(), z[k[2]]:totable())
    end
  end)

  it("may all be equal", function()
    local z, info = gq.odeint(decay, vector { 4 }, { 2, 2, 2 }, none())
    assert.same({ { 4 }, { 4 }, { 4 } }, z:totable())
    assert.equal(0, info.steps)
  end)

  it("may decrease: the reversed problem, step for step", function()
    local times = { 2, 1.3, 0.4, -1 }
    local negated = {}
    for i, t in ipairs(times) do negated[i] = -t end
    local start = vector { math.exp(math.sin(2)) }
    local z, info = gq.odeint(wave, start, times, none { rtol = 1e-8, atol = 1e-8 })
    local y, mirror = gq.odeint(function(s, x) return -wave(-s, x) end, start, negated,
      none { rtol = 1e-8, atol = 1e-8 })
    assert.close(z, y, 1e-14)
    assert.equal(info.nfe, mirror.nfe)
    for i, t in ipairs(times) do assert.close(z[i][1]:item(), math.exp(math.sin(t)), 1e-6) end
  end)

  it("between steps are read from the interpolant: more of them cost no evaluations", function()
    local many = {}
    for i = 0, 200 do many[#many + 1] = i / 50 end
    local options = none { rtol = 1e-6, atol = 1e-6 }
    local z, info = gq.odeint(wave, vector { 1 }, many, options)
    local _, few = gq.odeint(wave, vector { 1 }, { 0, 4 }, options)
    assert.equal(few.nfe, info.nfe)
    assert.equal(few.steps, info.steps)
    for i, t in ipairs(many) do assert.close(z[i][1]:item(), math.exp(math.sin(t)), 1e-4) end
  end)

  it("may be a tensor of any number type", function()
    local want = gq.odeint(decay, vector { 1 }, { 0, 1, 2 }, none()):totable()
    for _, dtype in ipairs { "float64", "float32", "int64" } do
      local z = gq.odeint(decay, vector { 1 }, gq.tensor({ 0, 1, 2 }, { dtype = dtype }), none())
      assert.same(want, z:totable())
    end
    local view = gq.tensor({ 2, 1, 0 }):index_select(1, { 3, 2, 1 })
    assert.same(want, gq.odeint(decay, vector { 1 }, view, none()):totable())
  end)

  it("not monotone are an error with the index and both values", function()
    for _, case in ipairs { { { 0, 1, 0.5 }, "3", "0.5", "1" }, { { 3, 1, 2 }, "3", "2", "1" },
                            { { 0, 0, 1, 2, 1.25 }, "5", "1.25", "2" } } do
      refused({ table.unpack(case, 2, 4) }, gq.odeint, decay, vector { 1 }, case[1], none())
    end
  end)

  it("of the wrong kind are errors", function()
    for _, t in ipairs { {}, { 0, "1" }, { 0, {} }, { 0, 0 / 0 }, { 0, 1 / 0 }, { -1 / 0, 0 }, { 0, true }, "0 1", 1,
                         { x = 1 } } do
      assert.has_error(function() gq.odeint(decay, vector { 1 }, t, none()) end)
    end
    assert.has_error(function() gq.odeint(decay, vector { 1 }, nil, none()) end)
    assert.has_error(function() gq.odeint(decay, vector { 1 }, gq.zeros(2, 2), none()) end)
    assert.has_error(function() gq.odeint(decay, vector { 1 }, gq.zeros(0), none()) end)
    assert.has_error(function() gq.odeint(decay, vector { 1 }, gq.tensor(1), none()) end)
  end)

  it("far from zero keep their step", function()
    local z = gq.odeint(decay, vector { 1 }, { 1e9, 1e9 + 1 }, none { rtol = 1e-8, atol = 1e-8 })
    assert.close(z[2][1]:item(), math.exp(-1), 1e-6)
  end)

  it("closer than a rounding of t end in a status or a result, not in a loop", function()
    local z, info = gq.odeint(decay, vector { 1 }, { 1e9, 1e9 + 1e-7 }, none { throw = false })
    if info.status == "ok" then assert.close(z[2][1]:item(), 1, 1e-6) end
    assert.truthy(info.steps < 10)
  end)
end)

-- ---- steps ----

describe("steps", function()
  it("on a fixed grid are as many as fit, the last clamped", function()
    for _, method in ipairs { "euler", "midpoint", "rk4", "dopri5" } do
      local _, info = gq.odeint(decay, vector { 1 }, { 0, 1 }, none { method = method, step_size = 0.25 })
      assert.equal(4, info.steps, method)
      _, info = gq.odeint(decay, vector { 1 }, { 0, 1 }, none { method = method, step_size = 0.3 })
      assert.equal(4, info.steps, method)
      _, info = gq.odeint(decay, vector { 1 }, { 1, 0 }, none { method = method, step_size = 0.1 })
      assert.equal(10, info.steps, method)
      assert.equal(0, info.rejected)
    end
    local z = gq.odeint(decay, vector { 1 }, { 0, 1 }, none { method = "euler", step_size = 0.3 })
    assert.close(z[2][1]:item(), 0.7 ^ 3 * 0.9, 1e-14)
  end)

  it("of a method without an error estimate follow the measurement times when no step_size is given", function()
    local z, info = gq.odeint(decay, vector { 1 }, { 0, 0.5, 1, 3 }, none { method = "euler" })
    assert.equal(3, info.steps)
    assert.close(z, { { 1 }, { 0.5 }, { 0.25 }, { -0.25 } }, 1e-14)
  end)

  it("longer than the whole interval are clamped to it", function()
    local z, info = gq.odeint(decay, vector { 1 }, { 0, 0.1 }, none { method = "rk4", step_size = 7 })
    assert.equal(1, info.steps)
    assert.close(z[2][1]:item(), math.exp(-0.1), 1e-6)
  end)

  it("begin with first_step, and save its search", function()
    gq.core.steplog(true)
    local _, chosen = gq.odeint(decay, vector { 1 }, { 0, 1 }, none { first_step = 0.01 })
    local rows = gq.core.steplog()
    gq.core.steplog(false)
    local _, searched = gq.odeint(decay, vector { 1 }, { 0, 1 }, none())
    assert.equal(0.01, rows[2][2])
    assert.equal(1 + 6 * (chosen.steps + chosen.rejected), chosen.nfe)
    assert.equal(2 + 6 * (searched.steps + searched.rejected), searched.nfe)
  end)

  it("that were tried and the counts agree with the log, t and h joined", function()
    gq.core.steplog(true)
    local p = problems.by_name.E2
    local _, info = gq.odeint(p.f, vector(p.z0), { 0, 20 }, none { rtol = 1e-4, atol = 1e-4 })
    local rows = gq.core.steplog()
    gq.core.steplog(false)
    local accepted, rejected, t = 0, 0, 0
    for i = 2, #rows do
      local r = rows[i]
      assert.close(r[1], t, 1e-14, 1e-14)
      if r[4] == 1 then
        assert.truthy(r[3] <= 1)
        accepted, t = accepted + 1, r[1] + r[2]
      else
        assert.truthy(r[3] > 1)
        rejected = rejected + 1
      end
    end
    assert.close(t, 20, 1e-14)
    assert.equal(accepted, info.steps)
    assert.equal(rejected, info.rejected)
    assert.truthy(rejected > 0)
  end)

  it("are counted exactly by the controller I, PI and PID, which all keep the error under control", function()
    local p = problems.by_name.E2
    local seen = {}
    for _, c in ipairs { { 0, 1, 0 }, { 0.4, 0.3, 0 }, { 0.1, 0.3, 0.05 } } do
      local z, info = gq.odeint(p.f, vector(p.z0), { 0, 20 },
        none { rtol = 1e-6, atol = 1e-6, controller = { pcoeff = c[1], icoeff = c[2], dcoeff = c[3] } })
      assert.below(global_error(z[2]:totable(), exact.E2), 5e-3, table.concat(c, " "))
      seen[#seen + 1] = info.steps + info.rejected
    end
    assert.truthy(seen[1] ~= seen[2] and seen[2] ~= seen[3])
  end)

  it("obey safety, ifactor and dfactor", function()
    local function longest(controller)
      gq.core.steplog(true)
      gq.odeint(decay, vector { 1 }, { 0, 10 }, none { first_step = 1e-4, controller = controller })
      local rows = gq.core.steplog()
      gq.core.steplog(false)
      local growth = 0
      for i = 3, #rows - 1 do growth = math.max(growth, rows[i][2] / rows[i - 1][2]) end
      return growth
    end
    assert.close(longest { ifactor = 3 }, 3, 1e-12)
    assert.close(longest(), 10, 1e-12)
  end)

  it("measure errors in the RMS or in the largest component", function()
    -- one fast component of a hundred: the RMS sees a tenth of its error
    local function f(t, z) return gq.cat({ 50 * gq.cos(50 * t):reshape(1), 0 * z:narrow(1, 2, 99) }, 1) end
    local z0 = gq.zeros(100, { dtype = "float64" })
    local errors = {}
    for i, norm in ipairs { "rms", "max" } do
      local z, info = gq.odeint(f, z0, { 0, 3 }, none { norm = norm, rtol = 1e-6, atol = 1e-6 })
      errors[i] = { math.abs(z[2][1]:item() - math.sin(150)), info.steps }
    end
    assert.truthy(errors[2][2] > errors[1][2] * 1.2)
    assert.below(errors[2][1], errors[1][1], "error in the maximum norm")
  end)

  it("with overshoot end past the last time and read it from the interpolant", function()
    gq.core.steplog(true)
    local z = gq.odeint(wave, vector { 1 }, { 0, 1, 2 }, none { overshoot = true, rtol = 1e-7, atol = 1e-7 })
    local rows = gq.core.steplog()
    gq.core.steplog(false)
    local last = rows[#rows]
    assert.truthy(last[1] + last[2] > 2)
    assert.close(z, { { 1 }, { math.exp(math.sin(1)) }, { math.exp(math.sin(2)) } }, 1e-5)
  end)

  it("clamped to the end change neither the steps before nor the error they allow", function()
    local function trace(overshoot)
      gq.core.steplog(true)
      local z = gq.odeint(wave, vector { 1 }, { 0, 3 }, none { overshoot = overshoot, rtol = 1e-6, atol = 1e-6 })
      local rows = gq.core.steplog()
      gq.core.steplog(false)
      return rows, math.abs(z[2][1]:item() - math.exp(math.sin(3)))
    end
    local clamped, e1 = trace(false)
    local past, e2 = trace(true)
    for i = 2, math.min(#clamped, #past) - 1 do assert.same(past[i], clamped[i]) end
    assert.close(clamped[#clamped][1] + clamped[#clamped][2], 3, 1e-15)
    assert.below(e1, e2 * 2, "clamped error")
  end)

  it("stay the same when the state is repeated over rows", function()
    local p = problems.by_name.C2
    local m = p.f
    local one, a = gq.odeint(m, vector(p.z0), { 0, 20 }, none { rtol = 1e-6, atol = 1e-6 })
    local rows = vector(p.z0):unsqueeze(1):expand(33, 10)
    local many, b = gq.odeint(function(t, z) return m(t, z:transpose(1, 2)):transpose(1, 2) end, rows, { 0, 20 },
      none { rtol = 1e-6, atol = 1e-6 })
    assert.equal(a.nfe, b.nfe)
    for _, i in ipairs { 1, 17, 33 } do assert.close(many[2][i], one[2]:totable(), 1e-9, 1e-9) end
  end)
end)

-- ---- dtypes and sizes ----

describe("a state", function()
  it("of float32 has the paper's tolerance, of float64 a tighter one", function()
    local single, a = gq.odeint(wave, gq.tensor { 1 }, { 0, 3 }, none())
    local double, b = gq.odeint(wave, vector { 1 }, { 0, 3 }, none())
    local _, c = gq.odeint(wave, vector { 1 }, { 0, 3 }, none { rtol = 1e-3, atol = 1e-3 })
    assert.equal("float32", single.dtype)
    assert.equal("float64", double.dtype)
    assert.equal(c.nfe, a.nfe)
    assert.truthy(b.nfe > a.nfe)
    assert.close(single[2][1]:item(), math.exp(math.sin(3)), 1e-2)
    assert.close(double[2][1]:item(), math.exp(math.sin(3)), 1e-5)
  end)

  it("of float32 keeps time in float64", function()
    -- 1e5 steps of 1e-5: a float32 clock would drift
    local z = gq.odeint(function(t, z) return 0 * z + 2 * t end, gq.tensor { 0 }, { 0, 1 },
      none { method = "midpoint", step_size = 1e-4 })
    assert.close(z[2][1]:item(), 1, 1e-4)
  end)

  it("of any shape comes back with time in front", function()
    for _, shape in ipairs { { 1 }, { 3 }, { 2, 3 }, { 1, 1, 4 }, { 2, 2, 2, 2 } } do
      local z0 = gq.randn(shape, { dtype = "float64" })
      local z = gq.odeint(decay, z0, { 0, 0.5, 1 }, none())
      assert.same({ 3, table.unpack(shape) }, z.shape)
      assert.close(z[3], (z0 * math.exp(-1)):totable(), 1e-5)
    end
  end)

  it("of no dimension works", function()
    local z = gq.odeint(decay, gq.tensor(2, { dtype = "float64" }), { 0, 1 }, none())
    assert.same({ 2 }, z.shape)
    assert.close(z[2]:item(), 2 * math.exp(-1), 1e-5)
  end)

  it("of zero rows is returned empty", function()
    for _, shape in ipairs { { 0 }, { 0, 3 }, { 2, 0 } } do
      local z, info = gq.odeint(decay, gq.zeros(shape), { 0, 1, 2 }, none())
      assert.same({ 3, table.unpack(shape) }, z.shape)
      assert.equal("ok", info.status)
    end
  end)

  it("that is a view is read as it stands", function()
    local base = vector { { 1, 2, 3 }, { 4, 5, 6 } }
    local z = gq.odeint(decay, base:transpose(1, 2), { 0, 1 }, none())
    assert.close(z[2], (base:transpose(1, 2) * math.exp(-1)):totable(), 1e-5)
    local y = gq.odeint(decay, base[{ {}, 2 }], { 0, 1 }, none())
    assert.close(y[2], { 2 * math.exp(-1), 5 * math.exp(-1) }, 1e-5)
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, base:totable())
  end)

  it("of integers, booleans or no tensor is an error", function()
    assert.has_error(function() gq.odeint(decay, gq.tensor({ 1, 2 }, { dtype = "int64" }), { 0, 1 }, none()) end)
    assert.has_error(function() gq.odeint(decay, gq.tensor({ 1, 2 }):gt(0), { 0, 1 }, none()) end)
    for _, z0 in ipairs { 1, "1", true, { 1 } } do
      assert.has_error(function() gq.odeint(decay, z0, { 0, 1 }, none()) end)
    end
  end)
end)

-- ---- statuses ----

describe("a failed solve", function()
  local function status(f, z0, t, options)
    options = none(options)
    options.throw = false
    local z, info = gq.odeint(f, z0, t, options)
    options.throw = true
    local text = message(gq.odeint, f, z0, t, options)
    return z, info, text
  end

  it("by blow-up says where: z' = z^2 from 1 ends at t = 1", function()
    for _, method in ipairs { "dopri5", "tsit5", "dopri8", "bosh3" } do
      local z, info, text = status(function(_, z) return z * z end, vector { 1 }, { 0, 0.5, 2 }, { method = method })
      assert.truthy(info.status == "step_underflow" or info.status == "non_finite", info.status)
      assert.close(info.t, 1, 0, 1e-3)
      assert.truthy(text:find("t = ", 1, true), text)
      assert.close(z[2][1]:item(), 2, 1e-3)
      local last = z[3][1]:item()
      assert.truthy(last ~= last)
    end
  end)

  it("by a singular right side: z' = 1 / (1 - t)", function()
    local _, info = status(function(t, z) return 0 * z + 1 / (1 - t) end, vector { 0 }, { 0, 2 }, {})
    assert.truthy(info.status == "step_underflow" or info.status == "non_finite", info.status)
    assert.close(info.t, 1, 0, 1e-3)
  end)

  it("by a right side that is not a number from the start", function()
    local _, info, text = status(function(_, z) return gq.sqrt(-z) end, vector { 1 }, { 0, 2 }, {})
    assert.equal("non_finite", info.status)
    assert.equal(0, info.t)
    assert.truthy(text:find("finite", 1, true), text)
  end)

  it("by a right side that is not a number later names the component and the time", function()
    -- the second component leaves the domain of the root at t = 1
    local function f(_, z) return gq.stack({ -z[1], -1 / (2 * gq.sqrt(z[2])) - 1 }, 1) end
    local _, info, text = status(f, vector { 1, 1 }, { 0, 5 }, {})
    assert.truthy(info.status == "non_finite" or info.status == "step_underflow", info.status)
    assert.truthy(info.t > 0.1 and info.t < 1.01)
    if info.status == "non_finite" then assert.truthy(text:find("component 2", 1, true), text) end
  end)

  it("on a fixed grid stops at the first value that is not finite", function()
    for _, method in ipairs { "euler", "rk4", "dopri5" } do
      local _, info = status(function(_, z) return z * z end, vector { 1 }, { 0, 20 },
        { method = method, step_size = 0.1 })
      assert.equal("non_finite", info.status, method)
      assert.truthy(info.t > 0.5 and info.t < 4)
    end
  end)

  it("by its step limit says how far it got", function()
    local z, info, text = status(wave, vector { 1 }, { 0, 0.001, 50 }, { max_steps = 7 })
    assert.equal("max_steps", info.status)
    assert.equal(7, info.steps + info.rejected)
    assert.truthy(info.t > 0 and info.t < 50)
    assert.truthy(text:find("max_steps", 1, true) and text:find("7", 1, true), text)
    assert.close(z[2][1]:item(), math.exp(math.sin(0.001)), 1e-6)
    local _, fixed = status(wave, vector { 1 }, { 0, 1 }, { method = "euler", step_size = 1e-3, max_steps = 10 })
    assert.equal("max_steps", fixed.status)
    assert.close(fixed.t, 0.01, 1e-12)
  end)

  it("by a state that is not finite names it before any step", function()
    for _, bad in ipairs { 0 / 0, 1 / 0, -1 / 0 } do
      refused({ "z0", "finite", "2" }, gq.odeint, decay, vector { 1, bad, 2 }, { 0, 1 }, none())
    end
  end)

  it("by a captured parameter that is not finite says so", function()
    local k = vector { { 1, 0 }, { 0 / 0, 1 } }
    refused({ "captured", "finite" }, gq.odeint, function(_, z) return k:matmul(z) end, vector { 1, 1 }, { 0, 1 },
      none())
    for _, bad in ipairs { 0 / 0, 1 / 0, -1 / 0 } do
      local x = gq.tensor(bad, { dtype = "float64" })
      refused("captured float64 tensor {} holds", gq.odeint, function(_, z) return x * z end, vector { 1, 1 }, { 0, 1 },
        none())
      local text = refused("finite", gq.odeint, function(_, z) return gq.where(z:gt(2), z, bad) end, vector { 1, 1 },
        { 0, 1 }, none())
      assert.falsy(text:find("captured", 1, true), text)
    end
  end)

  it("leaves the solver usable", function()
    pcall(gq.odeint, function(_, z) return z * z end, vector { 1 }, { 0, 2 }, none())
    assert.close(gq.odeint(decay, vector { 1 }, { 0, 1 }, none())[2][1]:item(), math.exp(-1), 1e-5)
  end)
end)

-- ---- info ----

describe("info", function()
  it("counts in integers", function()
    local z0, k = problems.leaf { 1, 2 }, problems.leaf(0.7)
    for _, gradient in ipairs { "direct", "adjoint", "seminorm", "gq", "gqc" } do
      local z, info = gq.odeint(function(t, z) return k * wave(t, z) end, z0, { 0, 1, 3 }, { gradient = gradient })
      for _, key in ipairs { "nfe", "steps", "rejected", "peak_bytes" } do
        assert.equal("integer", math.type(info[key]), key)
      end
      assert.equal(gradient, info.engine)
      assert.is_nil(info.nfe_backward)
      z:sum():backward()
      for _, key in ipairs { "nfe_backward", "steps_backward", "restarts", "nodes", "nodes_wanted" } do
        assert.equal("integer", math.type(info[key]), gradient .. " " .. key)
      end
      assert.equal("number", type(info.reconstruction))
      assert.equal(gradient:find("gq", 1, true) == 1, info.nodes > 0)
    end
  end)

  it("counts every evaluation, the two of the first step's choice included", function()
    local _, info = gq.odeint(wave, vector { 1 }, { 0, 3 }, none { rtol = 1e-5, atol = 1e-5 })
    assert.equal(2 + 6 * (info.steps + info.rejected), info.nfe)
  end)
end)

-- ---- options ----

describe("options", function()
  local function fails(options, ...)
    helper.refused({ ... }, gq.odeint, decay, vector { 1 }, { 0, 1 }, options)
  end

  it("that are unknown suggest the nearest", function()
    fails({ rtl = 1e-3 }, "rtl", "rtol")
    fails({ metod = "rk4" }, "metod", "method")
    fails({ gradiant = "gq" }, "gradiant", "gradient")
    fails({ adjoint = { trajectroy = "dense" } }, "trajectroy", "trajectory")
    fails({ gq = { node = 3 } }, "node", "nodes")
    fails({ controller = { safty = 0.9 } }, "safty", "safety")
    fails({ method = "dopri4" }, "dopri4", "dopri5")
    fails({ gradient = "adjiont" }, "adjiont", "adjoint")
    fails({ adjoint = { trajectory = "densse" } }, "densse", "dense")
    fails({ gq = { nodes = "nef" } }, "nef", "nfe")
    fails({ norm = "rmss" }, "rmss", "rms")
    fails({ norm = function(x) return x:abs():max() end }, "no function of the script is called", "scaled down")
    fails({ adjoint = { norm = function(x) return x:abs():max() end } }, "adjoint.norm = a function", "scaled down")
    fails({ [1] = "dopri5" })
  end)

  it("of the wrong type or out of range are errors that name them", function()
    for _, bad in ipairs {
      { "rtol", { rtol = -1 } }, { "rtol", { rtol = "1e-3" } }, { "atol", { atol = 0 / 0 } },
      { "rtol", { rtol = 1 / 0 } }, { "rtol", { rtol = 0, atol = 0 } },
      { "step_size", { step_size = 0 } }, { "step_size", { step_size = -0.1 } },
      { "step_size", { step_size = "1" } }, { "first_step", { first_step = -1 } }, { "max_steps", { max_steps = 0 } },
      { "max_steps", { max_steps = 1.5 } }, { "max_steps", { max_steps = "9" } }, { "method", { method = 5 } },
      { "gradient", { gradient = true } }, { "adjoint", { adjoint = "dense" } }, { "gq", { gq = 3 } },
      { "throw", { throw = 1 } }, { "parity", { parity = "yes" } }, { "C", { gq = { C = 0 } } },
      { "C", { gq = { C = -1 } } }, { "nodes", { gq = { nodes = 0 } } }, { "nodes", { gq = { nodes = 2.5 } } },
      { "max_nodes", { gq = { max_nodes = 0 } } },
      { "safety", { controller = { safety = 0 } } }, { "ifactor", { controller = { ifactor = 0.5 } } },
      { "dfactor", { controller = { dfactor = 2 } } }, { "rtol", { adjoint = { rtol = -1 } } },
    } do
      fails(bad[2], bad[1])
    end
    assert.has_error(function() gq.odeint(decay, vector { 1 }, { 0, 1 }, "dopri5") end)
    assert.has_error(function() gq.odeint(decay, vector { 1 }, { 0, 1 }, 1e-3) end)
  end)

  it("with one tolerance zero work", function()
    for _, o in ipairs { { rtol = 0, atol = 1e-6 }, { rtol = 1e-6, atol = 0 } } do
      local z = gq.odeint(decay, vector { 1 }, { 0, 1 }, none(o))
      assert.close(z[2][1]:item(), math.exp(-1), 1e-5)
    end
  end)
end)

-- ---- the traced function ----

describe("a dynamics function", function()
  local function fails(f, ...)
    local text = helper.refused({ ... }, gq.odeint, f, vector { 1, 2 }, { 0, 1 }, none())
    return text
  end

  it("that looks at values is an error that names gq.where", function()
    fails(function(_, z) if z[1]:item() > 0 then return z end return -z end, "gq.where")
    fails(function(_, z) if z[1] > 0 then return z end return -z end, "gq.where")
    fails(function(t, z) if t < 1 then return z end return -z end, "gq.where")
    fails(function(_, z) return z * z:totable()[1] end, "gq.where")
  end)

  it("that chooses with gq.where is solved", function()
    -- z' = 1 up to t = 1, then -1
    local z = gq.odeint(function(t, z) return gq.where(t:lt(1), 0 * z + 1, 0 * z - 1) end, vector { 0 }, { 0, 1, 2 },
      none { rtol = 1e-8, atol = 1e-8 })
    assert.close(z, { { 0 }, { 1 }, { 0 } }, 1e-6, 1e-6)
  end)

  it("of the wrong shape, dtype or number of results is an error", function()
    fails(function(_, z) return z[1] end, "shape")
    fails(function(_, z) return z:sum() end)
    fails(function(_, z) return z:reshape(2, 1) end)
    fails(function(_, z) return z:to("float32") end, "float32")
    fails(function() return nil end)
    fails(function() end)
    fails(function() return 1 end)
    fails(function() return { 1, 2 } end)
    fails(function() return "z" end)
  end)

  it("that raises passes its error on", function()
    fails(function() error("my own trouble") end, "my own trouble")
    local token = {}
    local ok, e = pcall(gq.odeint, function() error(token) end, vector { 1 }, { 0, 1 }, none())
    assert.is_false(ok)
    assert.equal(token, e)
  end)

  it("cannot yield, and says so", function()
    local co = coroutine.wrap(function()
      return pcall(gq.odeint, function(_, z) coroutine.yield() return z end, vector { 1 }, { 0, 1 }, none())
    end)
    local ok, e = co()
    assert.is_false(ok)
    assert.truthy(tostring(e):find("yield", 1, true), tostring(e))
  end)

  it("may be solved from inside a coroutine", function()
    local z = coroutine.wrap(function() return gq.odeint(decay, vector { 1 }, { 0, 1 }, none()) end)()
    assert.close(z[2][1]:item(), math.exp(-1), 1e-5)
  end)

  it("may be any callable, and a wrong one is an error", function()
    local callable = setmetatable({}, { __call = function(_, _, z) return -z end })
    assert.close(gq.odeint(callable, vector { 1 }, { 0, 1 }, none())[2][1]:item(), math.exp(-1), 1e-5)
    for _, f in ipairs { 1, "f", {}, true } do
      assert.has_error(function() gq.odeint(f, vector { 1 }, { 0, 1 }, none()) end)
    end
    assert.has_error(function() gq.odeint(nil, vector { 1 }, { 0, 1 }, none()) end)
  end)

  it("is called once a solve and never in the loop", function()
    local calls = 0
    local function f(_, z) calls = calls + 1 return -z end
    gq.odeint(f, vector { 1 }, { 0, 50 }, none { rtol = 1e-10, atol = 1e-10 })
    assert.equal(1, calls)
  end)

  it("gets t as a number without dimension, of the state's dtype", function()
    local shape, dtype
    gq.odeint(function(t, z) shape, dtype = t.shape, t.dtype return -z end, gq.tensor { 1 }, { 0, 1 }, none())
    assert.same({}, shape)
    assert.equal("float32", dtype)
  end)

  it("may return its argument, a constant, or ignore the state", function()
    assert.close(gq.odeint(function(_, z) return z end, vector { 1 }, { 0, 1 }, none())[2][1]:item(), math.exp(1), 1e-5)
    local c = vector { 3 }
    assert.close(gq.odeint(function() return c end, vector { 1 }, { 0, 2 }, none())[2][1]:item(), 7, 1e-12)
    assert.close(gq.odeint(function(t) return t:reshape(1) end, vector { 1 }, { 0, 2 }, none())[2][1]:item(), 3, 1e-9)
  end)

  it("reads captured numbers, tensors and draws anew at each solve", function()
    local k, m = 1, vector { 2 }
    local function f(_, z) return -k * m * z end
    local function at() return gq.odeint(f, vector { 1 }, { 0, 1 }, none { rtol = 1e-9, atol = 1e-9 })[2][1]:item() end
    assert.close(at(), math.exp(-2), 1e-7)
    k = 0.5
    assert.close(at(), math.exp(-1), 1e-7)
    m = vector { 0.1 }
    assert.close(at(), math.exp(-0.05), 1e-7)
    m[1] = 3
    assert.close(at(), math.exp(-1.5), 1e-7)
  end)

  it("of the same structure is compiled once", function()
    local k = 7
    local function f(_, z) return -k * gq.tanh(z) + 0.25 * z end
    gq.odeint(f, vector { 1 }, { 0, 1 }, none())
    local _, before = gq.core.plan_cache()
    for i = 2, 5 do
      k = i
      gq.odeint(f, vector { 1 }, { 0, 1 / i }, none { rtol = 10.0 ^ -i, atol = 1e-9 })
    end
    local _, after = gq.core.plan_cache()
    assert.equal(before, after)
  end)
end)

-- ---- memory ----

describe("a solve", function()
  local allocations = helper.allocations

  it("allocates nothing in its step loop", function()
    if not gq.debug then return pending("gq.debug counts allocations in debug and asan builds only") end
    for _, method in ipairs { "dopri5", "dopri8", "rk4" } do
      local function solve(steps)
        return function()
          local _, info = gq.odeint(wave, vector { 1, 2, 3 }, { 0, 10 },
            none { method = method, step_size = 10 / steps, max_steps = 1e6 })
          assert.equal(steps, info.steps)
        end
      end
      assert.equal(allocations(solve(5)), allocations(solve(500)), method)
    end
    local function adaptive(tol)
      return function() gq.odeint(wave, vector { 1 }, { 0, 10 }, none { rtol = tol, atol = tol }) end
    end
    assert.equal(allocations(adaptive(1e-2)), allocations(adaptive(1e-9)))
  end)

  for _, gradient in ipairs { "adjoint", "seminorm", "gq" } do
    it("with gradient = " .. gradient .. " needs memory that does not grow with its steps", function()
      local z0, k = problems.leaf { 1, 2, 3 }, problems.leaf(0.3)
      local function step(tol, nodes)
        return function()
          local z, info = gq.odeint(function(t, z) return k * wave(t, z) end, z0, { 0, 10 },
            { gradient = gradient, rtol = tol, atol = tol, adjoint = { scale = false },
              gq = { nodes = nodes, paper = true } })
          z[2]:sum():backward()
          return info
        end
      end
      local few, many = step(1e-2, 128)(), step(1e-11, 2048)()
      assert.truthy(many.steps > 10 * few.steps)
      assert.equal(few.peak_bytes, many.peak_bytes)
      if gq.debug then assert.equal(allocations(step(1e-2, 128)), allocations(step(1e-11, 2048))) end
    end)
  end

  it("with gradient = direct keeps its steps, and says so", function()
    local z0 = problems.leaf { 1, 2, 3 }
    local function peak(tol)
      local z, info = gq.odeint(wave, z0, { 0, 10 }, { gradient = "direct", rtol = tol, atol = tol })
      z[2]:sum():backward()
      return info.peak_bytes
    end
    assert.truthy(peak(1e-10) > 3 * peak(1e-2))
  end)
end)
