-- states_spec.lua -- states of several tensors: gq.odeint(f, {z1, z2, ...}, t) packs, solves and unpacks.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, message, refused = problems.vector, problems.leaf, helper.message, helper.refused
local f64 = { dtype = "float64" }

local engines = problems.engines { reversible = { method = "reversible_heun" } }
for _, o in ipairs { { gradient = "gq", gq = { nodes = "step" }, adjoint = { trajectory = "dense" } },
  { gradient = "direct", method = "rk4", step_size = 0.1 }, { gradient = "direct", method = "dopri8" } } do
  table.insert(engines, o)
end

local function name(o) return o.gradient .. ", " .. (o.method or "dopri5") end

-- A network over a state of 2 + 1 numbers a row, taken apart and whole.
local function setting()
  gq.manual_seed(3)
  local net = gq.nn.mlp { sizes = { 3, 6, 3 }, activation = "tanh", time = true }
  net:to("float64")
  local x, l = gq.randn(5, 2, f64), gq.randn(5, f64)
  x.requires_grad, l.requires_grad = true, true
  local function apart(t, s)
    local d = net(t, gq.cat({ s[1], s[2]:reshape(5, 1) }, 2))
    return { d:narrow(2, 1, 2), d:narrow(2, 3, 1):reshape(5) }
  end
  return net, x, l, apart
end

describe("a state of several tensors", function()
  it("gives the numbers and gradients of the same state in one tensor, by every engine", function()
    local net, x, l, apart = setting()
    for _, o in ipairs(engines) do
      local t = leaf { 0, 0.5, 1 }
      local inputs = { x, l, t, net:parameters()[1], net:parameters()[4] }
      local z, info = gq.odeint(apart, { x, l }, t, o)
      local whole, other = gq.odeint(net, gq.cat({ x, l:reshape(5, 1) }, 2), t, o)
      assert.same({ { 3, 5, 2 }, { 3, 5 }, 2 }, { z[1].shape, z[2].shape, #z })
      assert.same(whole:narrow(3, 1, 2):totable(), z[1]:totable(), name(o))
      assert.same(whole:narrow(3, 3, 1):reshape(3, 5):totable(), z[2]:totable(), name(o))
      assert.same({ other.nfe, other.engine }, { info.nfe, info.engine })
      local got = gq.grad(z[1]:sum() + (z[2] * z[2]):sum(), inputs)
      local want = gq.grad(whole:narrow(3, 1, 2):sum() + (whole:narrow(3, 3, 1) ^ 2):sum(), inputs)
      for i = 1, #inputs do assert.close(got[i], want[i], 1e-12, 1e-14) end
      assert.equal(other.nfe_backward, info.nfe_backward)
    end
  end)

  it("may have parts of any shape, which then are one vector", function()
    local a, b, c, k = leaf { 1, 2, 3 }, leaf { { 1, -1 }, { 0.5, 2 } }, leaf(0.7), leaf(0.3)
    for _, o in ipairs(engines) do
      if o.gradient ~= "gqc" then          -- gqc takes 8 numbers, rows alone
        local z = gq.odeint(function(t, s) return { -k * s[1], s[2] * t, s[1]:sum() + 0 * s[3] } end, { a, b, c },
          { 0, 1, 2 }, { rtol = 1e-9, atol = 1e-9, gradient = o.gradient, method = o.method,
            step_size = o.step_size and 0.01, max_steps = 1e6 })
        local tol = (o.method == "alf" or o.method == "reversible_heun") and 1e-5 or 1e-6
        local e = math.exp(-0.6)
        assert.same({ { 3, 3 }, { 3, 2, 2 }, { 3 } }, { z[1].shape, z[2].shape, z[3].shape })
        assert.close(z[1][3], { e, 2 * e, 3 * e }, tol)
        assert.close(z[2][3], (b:detach() * math.exp(2)), tol)
        assert.close(z[3][3]:item(), 0.7 + 6 * (1 - e) / 0.3, tol)
        local g = gq.grad(z[3][3] + z[2][2]:sum(), { a, b, c, k })
        local h = (1 - e) / 0.3
        assert.close(g[1], { h, h, h }, 10 * tol)
        assert.close(g[2], { { math.exp(0.5), math.exp(0.5) }, { math.exp(0.5), math.exp(0.5) } }, 10 * tol)
        assert.close(g[3]:item(), 1, tol)
        assert.close(g[4]:item(), 6 * (2 * e / 0.3 - (1 - e) / 0.09), 10 * tol)
      end
    end
  end)

  it("may be of one tensor, of float32, of empty ones, and go backwards in time", function()
    local z = gq.odeint(function(_, s) return { -s[1] } end, { gq.ones(2, 3) }, { 1, 0 })
    assert.same({ 2, 2, 3 }, z[1].shape)
    assert.equal("float32", z[1].dtype)
    assert.close(z[1][2][1][1]:item(), math.exp(1), 1e-3)
    z = gq.odeint(function(_, s) return { -s[1], s[2] } end, { gq.ones(2), gq.zeros(0, 3) }, { 0, 1 })
    assert.same({ 2, 0, 3 }, z[2].shape)
    assert.close(z[1][2], { math.exp(-1), math.exp(-1) }, 1e-3)
  end)

  it("is [x, v] to leapfrog where it has two equal parts", function()
    for _, shape in ipairs { { 4 }, { 4, 3 }, { 1 } } do
      local x, v = gq.ones(shape, f64), gq.full(shape, 0.5, f64)
      local function f(_, s) return { s[2], -s[1] } end
      local z = gq.odeint(f, { x, v }, { 0, 1 }, { method = "leapfrog", step_size = 0.01, gradient = "none" })
      local want = math.cos(1) + 0.5 * math.sin(1)
      assert.close(z[1][2], gq.full(shape, want, f64), 2e-5)
    end
  end)

  it("serves events, interpolants, grid points and throw = false", function()
    local x, v = leaf(1), leaf(0)
    local g = leaf(9.81)
    local function fall(_, s) return { s[2], -g + 0 * s[1] } end
    local z, info, t, at = gq.odeint(fall, { x, v }, { 0, 5 }, { event = function(_, s) return s[1] end, dense = true,
      rtol = 1e-9, atol = 1e-9, gradient = "direct" })
    assert.close(t:item(), math.sqrt(2 / 9.81), 1e-8)
    assert.close(info.event_t, t:item(), 1e-12)
    assert.same({ {}, {} }, { z[1].shape, z[2].shape })
    assert.close(z[2]:item(), -math.sqrt(2 * 9.81), 1e-8)
    assert.close(gq.grad(t, { x, g })[1]:item(), 0.5 * math.sqrt(2 / 9.81), 1e-7)
    assert.close(gq.grad(z[2], { x, g })[1]:item(), -math.sqrt(2 * 9.81) / 2, 1e-7)
    assert.close(at(0.2)[1]:item(), 1 - 9.81 * 0.02, 1e-9)
    assert.same({ 3 }, at { 0.1, 0.2, 0.3 }[2].shape)
    assert.close(at { 0.1, 0.2, 0.3 }[2], { -0.981, -1.962, -2.943 }, 1e-9)
    assert.same({ 0, info.steps }, { at.t0, at.steps })
    assert.truthy(tostring(at):find("interpolant", 1, true))
    refused("t0", function() return at.nothing end)

    local function jumps(s, y) return { gq.where(s:lt(0.4), y[1], -y[1]), y[2] * 0 } end
    z = gq.odeint(jumps, { vector { 1 }, vector { 2 } }, { 0, 1 },
      { grid_points = { 0.4 }, method = "rk4", step_size = 0.01, gradient = "none" })
    assert.close(z[1][2], { math.exp(-0.2) }, 1e-8)
    z, info = gq.odeint(function(_, y) return { y[1] * y[1], y[2] } end, { vector { 1 }, vector { 1 } }, { 0, 0.5, 2 },
      { throw = false })
    assert.same({ "step_underflow", 3, 3 }, { info.status, #z[1], #z[2] })
    assert.close(z[1][2]:item(), 2, 1e-4)
    assert.truthy(z[1][3]:item() ~= z[1][3]:item() and z[2][3]:item() ~= z[2][3]:item())
  end)

  it("costs no operation where f puts it together again", function()
    local net, x, l, apart = setting()
    local layout = gq.core.layout({ x, l }, "gq.odeint")
    local text = gq.core.trace(layout:field(apart), { vector(0), layout:pack { x, l } })
    local whole = gq.core.trace(net, { vector(0), layout:pack { x, l } })
    local function body(s)
      return s:gsub("%%%d+", "%%"):gsub("[^\n]*slice[^\n]*\n", ""):gsub("[^\n]*reshape[^\n]*\n", "")
    end
    assert.equal(body(whole), body(text))
  end)

  it("lets f ask for gradients of its parts, and of what was made of them", function()
    -- the divergence of dz/dt integrated beside z: a continuous normalising flow
    local x, l = leaf { { 0.3, -0.2 }, { 1, 0.5 } }, vector { 0, 0 }
    local a = leaf { { 0.2, -0.7 }, { 0.4, 0.1 } }
    local ways = {
      function(z) return z end,
      function(z) return gq.cat({ z:narrow(2, 1, 1), z:narrow(2, 2, 1) }, 2) end,
      function(z) return z:transpose(1, 2):transpose(1, 2) end,
      function(z) return z:reshape(4):reshape(2, 2) end,
    }
    for _, way in ipairs(ways) do
      local function f(_, s)
        local z = s[1]
        local d = way(z):matmul(a)
        local trace = 0
        for k = 1, 2 do
          trace = trace + gq.grad(d:narrow(2, k, 1):sum(), z):narrow(2, k, 1)
        end
        return { d, trace:reshape(2) }
      end
      local z = gq.odeint(f, { x, l }, { 0, 1 }, { gradient = "direct" })
      assert.close(z[2][2], { 0.3, 0.3 }, 1e-12)
      assert.close(gq.grad(z[2][2]:sum(), a), { { 2, 0 }, { 0, 2 } }, 1e-12, 1e-12)
    end
    -- with respect to a value between others, which folding would pass over
    local g = gq.core.run(function(z)
      local y = z:narrow(1, 1, 3)
      local w = gq.cat({ y:narrow(1, 1, 1), y:narrow(1, 3, 1) }, 1)
      return gq.grad((w * w):sum(), y)
    end, { vector { 1, 2, 3, 4 } })
    assert.same({ 2, 0, 6 }, g:totable())
  end)

  it("can be differentiated twice", function()
    local x, k = leaf { 1, 2 }, leaf(0.5)
    local z = gq.odeint(function(_, s) return { k * s[1], s[1] } end, { x, vector { 0, 0 } }, { 0, 1 },
      { gradient = "direct", rtol = 1e-10, atol = 1e-10 })
    local g = gq.grad(z[2][2]:sum(), { k }, { create_graph = true })[1]
    -- y = x (e^k - 1) / k
    local e = math.exp(0.5)
    assert.close(g:item(), 3 * (e / 0.5 - (e - 1) / 0.25), 1e-7)
    assert.close(gq.grad(g, { k })[1]:item(), 3 * (e / 0.5 - 2 * e / 0.25 + 2 * (e - 1) / 0.125), 1e-6)
  end)

  it("has errors of options and of the solve at the line of the script", function()
    local function f(_, s) return { -s[1], s[1] } end
    local function line(o, says, t)
      local here = debug.getinfo(1, "l").currentline + 2
      local text = message(function()
        return gq.odeint(f, { gq.ones(2), gq.ones(2) }, t or { 0, 1 }, o)
      end)
      assert.truthy(text:find(("states_spec.lua:%d:"):format(here), 1, true), text)
      assert.truthy(text:find(says, 1, true), text)
    end
    line({ batch = "independent", dense = true }, "dense")
    line({ gradient = "nonsense" }, "nonsense")
    line({ rtol = "small" }, "rtol")
    line({ max_steps = 1, rtol = 1e-7, atol = 1e-9, first_step = 1e-3 }, "1 steps")
    line({ regularise = { kinetic = true }, gradient = "nonsense" }, "nonsense")
    line({ regularise = { kinetic = true }, rtol = -1 }, "rtol = -1")
    line({ regularise = { kinetic = 1 } }, "kinetic: true or false")
    line({ regularise = { jacobian = { probe = "nrmal" } } }, "did you mean \"normal\"")
    line({ event = function(_, s) return s[1]:sum() end }, "two times or more", { 0 })
    line({ event = 3 }, "the event function of gq.odeint must be a function")
    line({ grid_points = { 0.5 } }, "bad argument #3 to 'odeint' (t[2] is string", { 0, "x" })
    line({ grid_points = { "x" } }, "grid_points[1] is string")
    line({}, "bad argument #3 to 'odeint' (times must be a tensor", 5)
  end)

  it("that is wrong is an error that says how", function()
    local x, y = vector { 1, 2 }, vector { 3, 4 }
    local function same(_, s) return s end
    local function fails(word, f, z0, opts)
      helper.refused(word, gq.odeint, f, z0, { 0, 1 }, opts)
    end
    fails("an empty table", same, {})
    fails("other keys", same, { x, v = y })
    fails("without [1]", same, { x = x })
    fails("element 2 is number 3", same, { x, 3 })
    fails("gq.tensor", same, { 1, 2 })
    fails("int64", same, { x, gq.ones(2, { dtype = "int64" }) })
    fails("element 1 is float64 and element 2 is float32", same, { x, gq.ones(2) })
    fails("element 2; expected", function(_, s) return { s[1], s[2]:narrow(1, 1, 1) } end, { x, y })
    fails("float32 of shape {2}", function(_, s) return { s[1], s[2]:to("float32") } end, { x, y })
    fails("returned 1 tensors; the state has 2", function(_, s) return { s[1] } end, { x, y })
    fails("returned 3 tensors", function(_, s) return { s[1], s[1], s[1] } end, { x, y })
    fails("must return a sequence", function(_, s) return s[1] end, { x, y })
    fails("without [1]", function(_, s) return { x = s[1] } end, { x, y })
    fails("element 2; a tensor expected", function(_, s) return { s[1], 3 } end, { x, y })
    fails("must be a function", 3, { x, y })
    fails("event function", same, { x, y }, { event = 3 })
    fails("did you mean 'event'", same, { x, y }, { evnt = same })
    fails("cannot solve", function(_, s)
      gq.odeint(same, { s, s }, { 0, 1 })
      return s
    end, x)
    fails("cannot solve", function(_, s) return { gq.odeint(same, s, { 0, 1 })[1][1] } end, { x })
  end)
end)
