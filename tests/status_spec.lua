-- status_spec.lua -- every status of runtime/base/status.def, provoked from a script: what ends a solve, forward and
-- backward, tells the time it reached; what is refused or interrupted raises and says why.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, message, with = problems.vector, problems.leaf, helper.message, helper.with
local f64 = { dtype = "float64" }

local hint = {}
for _, s in ipairs(gq.core.statuses()) do hint[s.name] = s.hint end

-- The time that a message tells: "t = 0.5", after "reached" where it says so.
local function time_in(text)
  local t = text:match("reached t = ([%-%d%.e]+)") or text:match("t = ([%-%d%.e]+)")
  return assert(tonumber(t), text)
end

local function says(status, text)
  assert.truthy(text:find(hint[status], 1, true), text)
end

-- ---- forward ----
-- explicit: the Jacobian (0 / 0 on the side that is not taken) is finite nowhere.
-- f blows up, or stops, at t = `at`, known to `step`; z is the exact solution at `inner`, which lies before it.

local function after(t, z, x) return gq.where(t:gt(0.5), x, z) end

local ends = {
  step_underflow = {
    { "z' = z^2", f = function(_, z) return z * z end, z0 = { 1 }, t = { 0, 0.5, 2 }, at = 1, step = 1e-3,
      inner = { 2 } },
    { "z' = 1 / (1 - t)", f = function(t, z) return 1 / (1 - t) + 0 * z end, z0 = { 0 }, t = { 0, 0.5, 2 }, at = 1,
      step = 1e-6, inner = { math.log(2) } },
    { "z' = z^2 backwards", f = function(_, z) return -z * z end, z0 = { 1 }, t = { 3, 2.5, 0 }, at = 2, step = 1e-3,
      inner = { 2 } },
  },
  non_finite = {
    { "z' = sqrt(-z)", f = function(_, z) return gq.sqrt(-z) end, z0 = { -1 }, t = { 0, 1, 3 }, at = 2, step = 0.05,
      inner = { -0.25 } },
    { "infinite after 0.5", explicit = true, f = function(t, z) return after(t, z, z / 0) end, z0 = { 1 },
      t = { 0, 0.25, 1 }, at = 0.5, step = 1e-4, inner = { math.exp(0.25) } },
    { "no number after 0.5", explicit = true, f = function(t, z) return after(t, z, 0 / (0 * z)) end, z0 = { 1 },
      t = { 0, 0.25, 1 }, at = 0.5, step = 1e-4, inner = { math.exp(0.25) } },
  },
  max_steps = {
    { "ten steps of 0.01", f = function(_, z) return -z end, z0 = { 1 }, t = { 0, 0.05, 1 }, at = 0.1, step = 1e-12,
      inner = { math.exp(-0.05) }, options = { step_size = 0.01, max_steps = 10, method = "rk4" }, once = true },
  },
  no_convergence = {
    { "a cliff at z = 1/2", f = function(_, z) return gq.where(z:lt(0.5), 1 + 0 * z, -1e6) end, z0 = { 0 },
      t = { 0, 0.25, 1 }, at = 0.5, step = 0.051, inner = { 0.25 },
      options = { step_size = 0.05, method = "implicit_euler" }, once = true },
  },
}

local function solve(case, method, throw)
  local o = with({ method = method, gradient = "none", throw = throw, rtol = 1e-6, atol = 1e-6 }, case.options)
  return gq.odeint(case.f, gq.tensor(case.z0, f64), case.t, o)
end

local function forward(status)
  for case, m in helper.each(ends[status], gq.core.tableaux()) do
    local fits = m.error_order > 0 and m.kind ~= "symplectic" and not (m.implicit and case.explicit)
    if fits and (not case.once or m.name == "dopri5") then
      local z, info = solve(case, m.name, false)
      local what = case[1] .. ", " .. m.name
      assert.equal(status, info.status, what)
      local rough = m.name == "implicit_euler" and 3 or 1     -- its errors add up
      assert.below(math.abs(info.t - case.at), case.step * rough, what)
      assert.close(z[1], case.z0, 0)
      assert.close(z[2], case.inner, 1e-3 * rough)
      assert.truthy(z[3][1]:item() ~= z[3][1]:item())                 -- not reached
      local text = message(solve, case, m.name, true)
      says(status, text)
      assert.close(time_in(text), info.t, 1e-8, 1e-8)
      assert.truthy(info.message:find(hint[status], 1, true))
      assert.is_true(info.steps > 0 and info.nfe > 0)
    end
  end
end

-- ---- backward ----

-- (s, x)' = (1, sqrt(s - 1/2) after s = 1/2): finite, but its derivative is not for s <= 1/2.
local function wall(_, z)
  local s = z:narrow(1, 1, 1)
  return gq.cat({ gq.ones(1, f64), gq.sqrt((s - 0.5) * s:gt(0.5):to("float64")) }, 1)
end

local continuous = { { "adjoint" }, { "seminorm" }, { "gq" }, { "interpolated" }, { "kronrod" }, { "check" },
  { "gq", trajectory = "dense" }, { "gq", trajectory = "checkpoint" } }
local discrete = { { "direct" }, { "aca" }, { "mali", "alf" }, { "reversible", "reversible_heun" }, { "gqc" } }

-- The message of a backward pass from the last state's last component, and the solve's z0.
local function backward_message(f, z0, t, engine, more)
  z0 = leaf(z0)
  local z = gq.odeint(f, z0, t, with({ gradient = engine[1], method = engine[2], rtol = 1e-6, atol = 1e-6,
    gq = { paper = true } }, more))
  local total = z[#t][#z0]
  local text = message(total.backward, total)
  assert.is_nil(z0.grad)
  return text
end

local backward = {}

function backward.non_finite()
  for _, list in ipairs { continuous, discrete } do
    for _, engine in ipairs(list) do
      local text = backward_message(wall, { 0, 1 }, { 0, 1 }, engine, { adjoint = { trajectory = engine.trajectory } })
      says("non_finite", text)
      assert.truthy(text:find("in the backward pass", 1, true), text)
      local step = tonumber(text:match("step ([%-%d%.e]+)"))
      local slack = list == discrete and 2 * math.abs(step) or 1e-4      -- a slope is shared by two steps
      assert.below(math.abs(time_in(text) - 0.5), slack, engine[1] .. ": " .. text)
    end
  end
end

function backward.max_steps()
  local function f(t, z) return gq.sin(3 * t) * z end
  for _, engine in ipairs(continuous) do
    local text = backward_message(f, { 1 }, { 0, 1, 2 }, engine,
      { adjoint = { max_steps = 5, trajectory = engine.trajectory } })
    says("max_steps", text)
    assert.truthy(text:find("in the backward pass between t[3] and t[2]: 5 steps", 1, true), text)
    local t = time_in(text)
    assert.truthy(t < 2 and t > 1, text)
  end
  for _, engine in ipairs(continuous) do                               -- a fixed grid: to the digit
    local text = backward_message(f, { 1 }, { 0, 1, 2 }, engine,
      { adjoint = { max_steps = 5, step_size = 0.125, trajectory = engine.trajectory } })
    assert.close(time_in(text), 2 - 5 * 0.125, 1e-9)
  end
end

function backward.no_convergence()
  for _, engine in ipairs { { "adjoint" }, { "seminorm" }, { "gq" } } do   -- 1 = z - z^2, the first step back: no root
    local text = backward_message(function(_, z) return -z * z end, { 2 }, { 0, 0.5 }, engine,
      { adjoint = { method = "implicit_euler", step_size = 0.5, trajectory = "reverse" } })
    says("no_convergence", text)
    assert.truthy(text:find("in the backward pass", 1, true), text)
    assert.close(time_in(text), 0.5, 1e-9)
  end
end

function backward.step_underflow()
  -- z = 1 / (t + 1e-10): solved backwards it reaches its pole early
  for engine, method in helper.each({ { "adjoint" }, { "seminorm" }, { "gq" }, { "check" } }, { "dopri5", "tsit5" }) do
    local text = backward_message(function(_, z) return -z * z end, { 1e10 }, { 0, 1 }, engine,
      { adjoint = { method = method } })
    says("step_underflow", text)
    assert.truthy(text:find("in the backward pass between t[2] and t[1]", 1, true), text)
    assert.below(math.abs(time_in(text)), 1e-4, text)
  end
end

-- ---- errors: nothing was solved, or nothing is kept ----

local function decay(_, z) return -z end

local function refused(words, f, z0, t, o)
  for _, throw in ipairs { true, false } do                           -- a mistake is no part of a solution
    local text = message(gq.odeint, f, z0, t, with(o, { throw = throw }))
    for _, word in ipairs(words) do assert.truthy(text:find(word, 1, true), text) end
  end
end

local errors = {}

function errors.bad_shape()
  refused({ "expected dz/dt" }, function(_, z) return z:sum() end, vector { 1 }, { 0, 1 })
  refused({ "expected dz/dt", "has the time first" }, function(z) return -z end, vector { 1 }, { 0, 1 })
  refused({ "leapfrog", "even" }, decay, vector { 1, 2, 3 }, { 0, 1 }, { method = "leapfrog", step_size = 0.1 })
end

function errors.bad_dtype()
  refused({ "int64" }, decay, gq.tensor({ 1 }, { dtype = "int64" }), { 0, 1 })
  refused({ "returned float32" }, function(_, z) return z:to("float32") end, vector { 1 }, { 0, 1 })
  local function whole(_, z) return gq.softplus(z:to("int64")) end
  refused({ "softplus: int64", hint.bad_dtype }, whole, vector { 1 }, { 0, 1 })
end

function errors.bad_argument()
  refused({ "change direction", "t[3] = 0.5", "t[2] = 1" }, decay, vector { 1 }, { 0, 1, 0.5 })
  refused({ "t[2]", "finite" }, decay, vector { 1 }, { 0, 0 / 0 })
  refused({ "eta" }, decay, vector { 1 }, { 0, 1 }, { method = "alf", eta = 2 })
end

function errors.unsupported()
  local function mixes(_, z) return -z * leaf(1) + z:sum() end
  refused({ "gqc", "mixes rows", "aca" }, mixes, gq.ones(9, 2, f64), { 0, 1 }, { gradient = "gqc" })
end

function errors.bad_state()
  local k = leaf { 0.5 }
  local z = gq.odeint(function(_, y) return -k * y end, vector { 1 }, { 0, 1 })
  gq.no_grad(function() k[1] = 3 end)
  assert.truthy(message(gq.grad, z:sum(), k):find("modified in place", 1, true))
end

-- Indices are known when a program runs, so this ends a solve: it says where.
function errors.bad_index()
  local function f(_, z) return z:gather(1, (z * 2):to("int64")) * 0 + 1 end     -- z = 1 + t: index 3 of 1 at t = 1/2
  local o = { gradient = "none", method = "euler", step_size = 0.125 }
  local function g(t, z) return z:gather(1, gq.where(t:lt(0.5), 0 * z + 1, 0 * z + 7):to("int64")) * 0 + 1 end
  local z, info = gq.odeint(g, vector { 1 }, { 0, 0.25, 1 }, with(o, { throw = false }))
  assert.equal("bad_index", info.status)
  assert.equal(0.5, info.t)
  assert.close(z[2], { 1.25 }, 1e-12)
  local text = message(gq.odeint, g, vector { 1 }, { 0, 0.25, 1 }, o)
  says("bad_index", text)
  assert.truthy(text:find("7", 1, true), text)
  says("bad_index", message(gq.odeint, f, vector { 1 }, { 0, 1 }, o))
end

function errors.io_error()
  says("io_error", message(gq.load, "no/such/file.npy"))
  assert.truthy(message(gq.load, "no/such/file.npy"):find("no/such/file.npy", 1, true))
end

function errors.bad_file()
  local path = os.tmpname()
  helper.write(path, "this is no array")
  os.rename(path, path .. ".npy")
  local text = message(gq.load, path .. ".npy")
  os.remove(path .. ".npy")
  assert.truthy(text:find(path, 1, true), text)
end

-- The script's own process is sent SIGINT from inside its dynamics, at the fifth call.
local interrupted = [[
  local gq = require "gq"
  local k = gq.tensor(1, { dtype = "float64", requires_grad = true })
  local calls = 0
  local function f(_, z)
    calls = calls + 1
    if calls == 5 then io.popen("kill -INT $PPID"):close() end
    return -k * z
  end
  local function solve()
    return gq.odeint(f, gq.ones(1, { dtype = "float64" }), { 0, 1 }, { trace = false, params = { k }, throw = false })
  end
  print(pcall(solve))
  print(calls)
  local z = solve()
  calls = 0
  print(pcall(gq.grad, z[2]:sum(), k))
  print(calls, k.grad, math.abs(solve()[2]:item() - math.exp(-1)) < 1e-3)
]]

function errors.interrupted()
  local gqlua = helper.gqlua
  local path, out = helper.write(os.tmpname(), interrupted), os.tmpname()
  local hosts, place = { ("'%s'"):format(gqlua) }, gqlua:match("^(.*)/")
  if io.open(place .. "/gq.so") then hosts[2] = ("LUA_CPATH='%s/?.so' lua5.4"):format(place) end
  for _, host in ipairs(hosts) do
    os.execute(("env --default-signal=INT %s '%s' >'%s' 2>&1"):format(host, path, out))
    local text = helper.read(out)
    local pattern = "^false%s[^\n]*interrupted[^\n]*\n5\nfalse%s[^\n]*interrupted[^\n]*\n5\tnil\ttrue\n$"
    assert.truthy(text:find(pattern), host .. ": " .. text)
  end
  os.remove(path)
  os.remove(out)
  if not gq.debug then return end
  for _, throw in ipairs { true, false } do
    gq.debug.interrupt()
    local text = message(gq.odeint, decay, vector { 1 }, { 0.25, 1 }, { throw = throw, gradient = "none" })
    assert.equal(0.25, time_in(text))
  end
end

function errors.out_of_memory()
  if not gq.debug then return says("out_of_memory", message(gq.ones, 1 << 20, 1 << 19)) end
  local _, before = gq.odeint(decay, vector { 1 }, { 0, 1 }, { gradient = "none" }), gq.debug.live_blocks()
  for _, throw in ipairs { true, false } do
    gq.debug.fail_alloc(3, true)
    local text = message(gq.odeint, decay, vector { 1 }, { 0, 1 }, { throw = throw, gradient = "none" })
    gq.debug.fail_alloc(-1)
    assert.truthy(text:find("memory", 1, true), text)
  end
  collectgarbage()
  collectgarbage()
  assert.truthy(gq.debug.live_blocks() <= before)
end

-- ---- every row of the table ----

describe("status", function()
  for _, row in ipairs(gq.core.statuses()) do
    local status = row.name
    if ends[status] then
      it(status .. " ends a solve, which says where and gives the part reached", function() forward(status) end)
      it(status .. " ends a backward pass, which says where", function() backward[status]() end)
    elseif status == "ok" then
      it("ok is that of a solve that reached its last time", function()
        local _, info = gq.odeint(decay, vector { 1 }, { 0, 0.5, 1 }, { throw = false })
        assert.equal("ok", info.status)
        assert.equal(1, info.t)
        assert.is_nil(info.message)
      end)
    else
      it(status .. " is an error", function()
        if not errors[status] then error(("status %s has no test that provokes it"):format(status)) end
        errors[status]()
      end)
    end
  end

  -- Explicit methods meet stiffness with many short steps, seldom with an underflow.
  it("max_steps and step_underflow name the method for stiff problems", function()
    local function stiff(t, z) return -1e6 * (z - gq.cos(t)) end
    for _, method in ipairs { "dopri5", "dopri8", "implicit_adams" } do
      local text = message(gq.odeint, stiff, vector { 0 }, { 0, 2 }, { method = method, max_steps = 500 })
      assert.truthy(text:find("500 steps", 1, true) and text:find('stiff problem.*"kvaerno5"'), text)
    end
    local _, info = gq.odeint(stiff, vector { 0 }, { 0, 2 }, { method = "kvaerno5", max_steps = 500 })
    assert.equal("ok", info.status)
    assert.truthy(hint.step_underflow:find("kvaerno5", 1, true))
    local text = message(gq.odeint, function(_, z) return -1 / (2 * z) end, vector { 1 }, { 0, 2 },
      { method = "kvaerno5", rtol = 1e-6, atol = 1e-6 })
    assert.is_nil(text:find("adaptive method", 1, true))            -- it is one
    says("no_convergence", text)
  end)
end)
