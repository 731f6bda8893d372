-- regularise_spec.lua -- gq.jet against derivatives in closed form, by repeated gq.grad and by differences; the
-- integrals of opts.regularise against closed forms, and their gradients by every engine; gq.steer.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"

local vector, leaf, refused, with = problems.vector, problems.leaf, helper.refused, helper.with
local f64 = { dtype = "float64" }

-- ---- Taylor mode ----

-- d^k z/dt^k by repeated differentiation: D = d/dt + f d/dz of each entry.
local function nested(f, t, z, order)
  local out = {}
  local now, state = t:detach(), z:detach()
  now.requires_grad, state.requires_grad = true, true
  local d = f(now, state)
  local slope = d
  out[1] = d:detach()
  for k = 2, order do
    local list = {}
    local flat = d:reshape(-1)
    for i = 1, flat:numel() do
      local reaches = flat[i] + 0 * (now + state:sum())          -- both
      local by_t, by_z = table.unpack(gq.grad({ reaches }, { now, state }, { create_graph = true }))
      list[i] = by_t + (by_z * slope):sum()
    end
    d = gq.stack(list, 1):reshape(z.shape)
    out[k] = d:detach()
  end
  return out
end

describe("gq.jet", function()
  it("gives the derivatives of solutions in closed form", function()
    local function scalars(f, t, z, order)
      local d = gq.jet(f, t, vector(z), order)
      for k = 1, order do d[k] = d[k]:item() end
      return d
    end
    assert.close(scalars(function(_, z) return z end, 0, 1.5, 8), { 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5 }, 1e-14)
    -- tan, 1 / (1 - t), logistic at its middle, e^(t^2), and a field of t alone
    assert.close(scalars(function(_, z) return 1 + z * z end, 0, 0, 9), { 1, 0, 2, 0, 16, 0, 272, 0, 7936 }, 1e-14)
    assert.close(scalars(function(_, z) return z ^ 2 end, 0, 1, 6), { 1, 2, 6, 24, 120, 720 }, 1e-14)
    assert.close(scalars(function(_, z) return z * (1 - z) end, 3, 0.5, 5), { 0.25, 0, -0.125, 0, 0.25 }, 1e-14, 1e-16)
    assert.close(scalars(function(t, z) return 2 * t * z end, 0, 1, 6), { 0, 2, 0, 12, 0, 120 }, 1e-14)
    assert.close(scalars(function(t, z) return gq.sin(t) + 0 * z end, 0, 1, 6), { 0, 1, 0, -1, 0, 1 }, 1e-14)
    assert.close(scalars(function(t) return t ^ 4 end, 0, 1, 6), { 0, 0, 0, 0, 24, 0 }, 1e-14)
  end)

  it("reaches order 32, exactly where numbers are", function()
    local d = gq.jet(function(_, z) return -2 * z end, 0, vector { 1 }, 32)
    assert.equal(32, #d)
    for k = 1, 32 do assert.close(d[k]:item(), (-2) ^ k, 1e-12) end
  end)

  -- Every operation, by the derivative of a field that holds it.
  local a = vector { { 0.3, -0.5 }, { 0.8, 0.2 } }
  local idx = gq.tensor({ 2, 1 }, { dtype = "int64" })
  local fields = {
    neg = function(_, z) return -z end, exp = function(_, z) return gq.exp(z * 0.3) end,
    log = function(t, z) return gq.log(2 + z * z + t) end, log1p = function(t, z) return gq.log1p(z * z + t) end,
    expm1 = function(_, z) return gq.expm1(0.4 * z) end, sqrt = function(t, z) return gq.sqrt(2 + t + gq.sin(z)) end,
    rsqrt = function(t, z) return gq.rsqrt(2 + t + gq.sin(z)) end, abs = function(_, z) return gq.abs(z) * z end,
    sign = function(_, z) return gq.sign(z) + z end, sin = function(t, z) return gq.sin(z + t) end,
    cos = function(t, z) return gq.cos(z * t) end, tan = function(_, z) return gq.tan(0.4 * z) end,
    tanh = function(t, z) return gq.tanh(z + t) end, sigmoid = function(_, z) return gq.sigmoid(2 * z) end,
    softplus = function(t, z) return gq.softplus(3 * z - t) end, relu = function(_, z) return gq.relu(z) * z + z end,
    erf = function(t, z) return gq.erf(z + t) end, square = function(_, z) return z:square() end,
    reciprocal = function(t, z) return gq.reciprocal(2 + z + t) end,
    add = function(t, z) return (z + t) + (z + z:narrow(1, 1, 1)) end,
    sub = function(t, z) return (t - z) - (z - t * t) end, mul = function(t, z) return z * t * (z * gq.sin(z)) end,
    div = function(t, z) return (z + t) / (3 + z) / (2 + t) end,
    cube = function(_, z) return z ^ 3 end, root = function(_, z) return (2 + gq.cos(z)) ^ 1.7 end,
    power = function(t, z) return (2 + gq.cos(z)) ^ (t + z) end,
    base = function(t, z) return gq.tensor(2, f64) ^ (t * z) end,
    maximum = function(t, z) return gq.maximum(z, t) * z end, minimum = function(t, z) return gq.minimum(z * z, t) end,
    where = function(t, z) return gq.where(z:gt(0), z * t, z * z) end,
    matmul = function(t, z) return gq.tanh(z:matmul(a)) + a:matmul(z) * t + z:transpose(1, 2):matmul(z) end,
    sum = function(t, z) return z:sum(1, true) * z + t * z:mean() end,
    amax = function(_, z) return z * z:max(2, true) - z:min() end, softmax = function(_, z) return z:softmax(2) end,
    permute = function(_, z) return z:transpose(1, 2) * z:reshape(4):reshape(2, 2) end,
    slice = function(t, z) return gq.cat({ z:narrow(2, 2, 1) * t, z:narrow(2, 1, 1) * 0.5 }, 2) end,
    cat = function(t, z) return gq.cat({ z:narrow(2, 2, 1), t:expand(2, 1) }, 2) * z end,
    index = function(_, z) return z:index_select(2, idx) * z end,
    gather = function(_, z) return z:gather(2, gq.tensor({ { 1, 1 }, { 2, 1 } }, { dtype = "int64" })) * z end,
    pad = function(_, z) return gq.grad(z:narrow(2, 1, 1):pow(3):sum(), z) + z end,
    index_add = function(_, z) return gq.grad(z:index_select(1, idx):pow(3):sum(), z) + z end,
    scatter_add = function(_, z)
      return gq.grad(z:gather(2, gq.tensor({ { 1, 1 }, { 2, 1 } }, { dtype = "int64" })):pow(3):sum(), z)
    end,
    cast = function(_, z) return (z:gt(0)):to("float64") * z end,
    logsumexp = function(t, z) return z:logsumexp(1, true) * z + t end, gelu = function(_, z) return gq.gelu(z) end,
    silu = function(_, z) return gq.silu(z) end, elu = function(_, z) return gq.elu(z) * z end,
  }

  -- No nested gq.grad outside a trace in these: against differences only.
  local inner = { pad = true, index_add = true, scatter_add = true }

  it("agrees with repeated gq.grad on every operation", function()
    local z, t = vector { { 0.4, -0.7 }, { 0.9, 0.25 } }, vector(0.3)
    local n = 0
    for name, f in pairs(fields) do
      if not inner[name] then
        local got, want = gq.jet(f, t, z, 4), nested(f, t, z, 4)
        for k = 1, 4 do
          assert.below(helper.relative(got[k], want[k]), 1e-11, name .. ", order " .. k)
          n = n + 1
        end
      end
    end
    assert.truthy(n > 150)
  end)

  it("agrees with differences of the solution", function()
    local z, t = vector { { 0.4, -0.7 }, { 0.9, 0.25 } }, 0.3
    for _, name in ipairs { "pad", "index_add", "scatter_add", "matmul", "softplus" } do
      local d = gq.jet(fields[name], t, z, 3)
      local h = 0.01
      local y = gq.odeint(fields[name], z, { t, t + h, t + 2 * h }, { rtol = 1e-12, atol = 1e-12, method = "dopri8",
        gradient = "none" })
      local x = gq.odeint(fields[name], z, { t, t - h, t - 2 * h }, { rtol = 1e-12, atol = 1e-12, method = "dopri8",
        gradient = "none" })
      local third = (y[3] - 2 * y[2] + 2 * x[2] - x[3]) / (2 * h ^ 3)
      local second = (-y[3] + 16 * y[2] - 30 * z + 16 * x[2] - x[3]) / (12 * h ^ 2)
      assert.below(helper.relative(d[2], second), 1e-4, name .. ", second")
      assert.below(helper.relative(d[3], third), 2e-2, name .. ", third")
    end
  end)

  it("holds where a power's base is zero", function()
    local d = gq.jet(function(t, z) return z ^ 3 + t end, 0, vector { 0 }, 8)
    -- z = t^2 / 2 + t^7 / 56 + ...
    local want = { 0, 1, 0, 0, 0, 0, 5040 / 56, 0 }
    for k = 1, 8 do assert.close(d[k]:item(), want[k], 1e-13, 1e-13) end
  end)

  it("may be differentiated, at once and in a field", function()
    local w, z = leaf { { 0.3, -0.5 }, { 0.8, 0.2 } }, leaf { { 0.4, -0.7 }, { 0.9, 0.25 } }
    local ok, report = gq.checkgrad(function(p, y)
      return gq.jet(function(t, x) return gq.tanh(x:matmul(p)) * t + gq.softplus(x) end, 0.4, y, 4)[4]
    end, { w:detach(), z:detach() })
    assert.truthy(ok, report.message)
    -- the same expression inside and outside of a trace
    local function jerk(t, y)
      local k = y * 2                       -- a value of the outer trace, a constant to the inner one
      return gq.jet(function(s, x) return gq.tanh(x:matmul(w)) * s + k end, t, y, 3)[3]
    end
    assert.close(gq.core.run(jerk, { vector(0.4), z:detach() }), jerk(vector(0.4), z:detach()), 1e-13)
    assert.close(gq.core.run(function(y) return gq.jet(function(t) return t * y end, 0, y, 2)[2] end, { vector { 3 } }),
      { 3 }, 1e-15)
    -- constants as time and state are not mistaken for the constants of the field
    assert.close(gq.jet(function(_, y) return y * 0.5 + 1 end, 1, vector(0.5), 2)[2]:item(), 0.625, 1e-15)
  end)

  it("takes states of several tensors and float32", function()
    local d = gq.jet(function(_, s) return { s[2], -s[1] } end, 0, { vector { 1 }, vector { 2 } }, 3)
    assert.same({ { -2 }, { 1 } }, { d[3][1]:totable(), d[3][2]:totable() })
    d = gq.jet(function(_, s) return { s[2]:sum(), -s[2] } end, 0, { vector(1), vector { 2, 3 } }, 2)
    assert.same({ -5, { 2, 3 } }, { d[2][1]:item(), d[2][2]:totable() })
    d = gq.jet(function(_, z) return -z end, 0, gq.ones(2, 3), 2)
    assert.same({ "float32", { 2, 3 } }, { d[2].dtype, d[2].shape })
  end)

  it("called wrongly is an error that says how", function()
    local z = vector { 1, 2 }
    local function fails(word, ...)
      refused(word, gq.jet, ...)
    end
    local function id(_, y) return y end
    fails("order", id, 0, z, 0)
    fails("order", id, 0, z, 33)
    fails("order", id, 0, z, 1.5)
    fails("function or a module", 3, 0, z, 2)
    fails("0-d", id, z, z, 2)
    fails("float32 or float64", id, 0, gq.ones(2, { dtype = "int64" }), 2)
    fails("expected dz/dt", function(_, y) return y:narrow(1, 1, 1) end, 0, z, 2)
    fails("gq.jet", function(_, s) return s[1] end, 0, { z, z }, 2)
    fails("must return a tensor", function() end, 0, z, 2)
  end)
end)

-- ---- integrals along the solution ----

local tight = { rtol = 1e-10, atol = 1e-10 }
local engines = {
  { gradient = "direct" }, { gradient = "aca" }, { gradient = "adjoint" }, { gradient = "seminorm" },
  { gradient = "gq" }, { gradient = "gq", gq = { nodes = "step" }, adjoint = { trajectory = "dense" } },
  { gradient = "gqc" }, { gradient = "kronrod" }, { gradient = "check" },
}

describe("regularise", function()
  local z0 = vector { { 1, 2 }, { -0.5, 0.3 }, { 0, 0 } }
  local square = { 5, 0.34, 0 }

  it("gives the integrals of z' = az up to each time, per sample, either way in time", function()
    local a = 0.7
    local probe = vector { { 1, -2 }, { 0.5, 0.5 }, { 3, 0 } }
    for _, t in ipairs { { 0, 0.5, 1 }, { 0, -0.5, -1 }, { 0, 1 } } do
      local z, info = gq.odeint(function(_, z) return a * z end, z0, t, with(tight,
        { regularise = { kinetic = true, jacobian = { probe = probe }, taylor = { order = 3 } }, gradient = "none" }))
      assert.same({ #t, 3, 2 }, z.shape)
      local r = info.regularisers
      for k = 1, #t do
        local growth = math.abs(math.exp(2 * a * t[k]) - 1) / (2 * a)
        for i = 1, 3 do
          assert.close(r.kinetic[k][i]:item(), a ^ 2 * square[i] * growth, 1e-8, 1e-9)
          assert.close(r.taylor[k][i]:item(), a ^ 6 * square[i] * growth, 1e-8, 1e-9)
          assert.close(r.jacobian[k][i]:item(), a ^ 2 * ({ 5, 0.5, 9 })[i] * math.abs(t[k]), 1e-8, 1e-9)
        end
      end
      assert.same({ #t, 3 }, r.kinetic.shape)
    end
  end)

  it("has the Frobenius norm as its mean over probes: exactly over a basis, nearly over draws", function()
    local a = vector { { 0.3, -0.5 }, { 0.8, 0.2 } }
    local want, sum = 0.09 + 0.25 + 0.64 + 0.04, 0
    local function jacobian(o)
      local _, info = gq.odeint(function(_, z) return z:matmul(a) end, z0, { 0, 2 },
        { regularise = { jacobian = o }, gradient = "none" })
      return info.regularisers.jacobian[2]
    end
    for i = 1, 2 do
      local probe = gq.zeros(3, 2, f64)
      probe[{ {}, i }] = 1
      sum = sum + jacobian { probe = probe }
    end
    assert.close(sum, { 2 * want, 2 * want, 2 * want }, 1e-12)
    for _, kind in ipairs { "normal", "rademacher" } do
      local many = gq.zeros(2000, 2, f64)
      local _, info = gq.odeint(function(_, z) return z:matmul(a) end, many, { 0, 1 },
        { regularise = { jacobian = { probe = kind, seed = 5 } }, gradient = "none" })
      assert.close(info.regularisers.jacobian[2]:mean():item(), want, 0.1)
    end
  end)

  it("draws one probe a solve: by its seed, or the next of gq.manual_seed's generator", function()
    local f = function(_, z) return gq.tanh(z * z) end
    local function draw(o)
      local _, info = gq.odeint(f, z0, { 0, 1 }, { regularise = { jacobian = o or true }, gradient = "none" })
      return info.regularisers.jacobian:totable()
    end
    assert.same(draw { seed = 3 }, draw { seed = 3 })
    assert.not_same(draw { seed = 3 }, draw { seed = 4 })
    assert.not_same(draw { seed = 3 }, draw { seed = 3, probe = "rademacher" })
    gq.manual_seed(1)
    local first, second = draw(), draw()
    gq.manual_seed(1)
    assert.not_same(first, second)
    assert.same(first, draw())
    assert.same(second, draw())
    -- a probe drawn again inside the field would leave the integral without a limit
    local function at(tol)
      local _, info = gq.odeint(f, z0, { 0, 1 }, { regularise = { jacobian = { seed = 3 } }, gradient = "none",
        rtol = tol, atol = tol })
      return info.regularisers.jacobian[2]
    end
    assert.close(at(1e-7), at(1e-11), 1e-5)
  end)

  -- sum of all three and of the end state, as a function of the parameters
  local function problem()
    gq.manual_seed(4)
    local net = gq.nn.mlp { sizes = { 2, 3, 2 }, activation = "tanh", time = true }
    net:to("float64")
    local x = gq.randn(3, 2, f64)
    local function loss(o)
      local z, info = gq.odeint(net, x, { 0, 0.4, 1 }, with(tight, with(o,
        { regularise = { kinetic = true, jacobian = { seed = 2 }, taylor = 2 } })))
      local r = info.regularisers
      return z[3]:sum() + r.kinetic[2]:mean() + r.kinetic[3]:mean() + r.jacobian[3]:sum() + 0.5 * r.taylor[3]:mean()
    end
    return net, loss
  end

  it("has gradients by every engine that agree with differences", function()
    local net, loss = problem()
    local want = {}
    for _, p in ipairs(net:parameters()) do
      local flat = p:detach():reshape(-1)
      for j = 1, flat:numel() do
        local v, h = flat[j]:item(), 1e-4
        flat[j] = v + h
        local up = loss { gradient = "none" }:item()
        flat[j] = v - h
        local down = loss { gradient = "none" }:item()
        flat[j] = v
        want[#want + 1] = (up - down) / (2 * h)
      end
    end
    for _, o in ipairs(engines) do
      local l = loss(o)
      local g = gq.grad(l, net:parameters())
      local name = o.gradient .. (o.gq and o.gq.nodes or "")
      local error = helper.relative(g, want)
      assert.below(error, o.gradient == "gq" and not o.gq and 1e-4 or 2e-6, name)
    end
  end)

  it("goes along with events, interpolants, grid points and a failing solve", function()
    local a = leaf(0.7)
    local function f(_, z) return a * z end
    local _
    local z, info, t, at = gq.odeint(f, vector { { 1, 0 } }, { 0, 5 }, with(tight, { gradient = "direct", dense = true,
      event = function(_, y) return y:sum() - 2 end, regularise = { kinetic = true } }))
    assert.same({ { 1, 2 }, { 1 } }, { z.shape, info.regularisers.kinetic.shape })
    assert.close(t:item(), math.log(2) / 0.7, 1e-8)
    local k = info.regularisers.kinetic
    assert.close(k:item(), 0.7 * 3 / 2, 1e-7)               -- a (e^(2 a t) - 1) / 2
    assert.close(gq.grad(k:sum(), a):item(), 3 / 2, 1e-6)
    assert.same({ { 1, 2 }, { 2, 1, 2 } }, { at(0.5).shape, at { 0.1, 0.5 }.shape })
    assert.close(at(0.5)[1][1]:item(), math.exp(0.35), 1e-8)
    _, info = gq.odeint(f, vector { { 1, 0 } }, { 0, 5 }, with(tight, { gradient = "direct",
      event = function(_, y) return y:sum() - 2 end, regularise = { jacobian = { seed = 1 }, taylor = 2 } }))
    local j = info.regularisers.jacobian                     -- |e|^2 a^2 t, where t = log 2 / a
    assert.close(gq.grad(j:sum(), a):item() / j:item(), 1 / 0.7, 1e-7)
    z, info = gq.odeint(function(s, y) return gq.where(s:lt(0.4), y, -y) end, vector { { 1, 0 } }, { 0, 1 },
      with(tight, { grid_points = { 0.4 }, regularise = { taylor = 1 }, gradient = "none" }))
    assert.same({ 2, 1, 2 }, z.shape)
    local top = math.exp(0.8)
    assert.close(info.regularisers.taylor[2]:item(), (top - 1) / 2 + top * (1 - math.exp(-1.2)) / 2, 1e-6)
    z, info = gq.odeint(function(_, y) return y * y end, vector { { 1 } }, { 0, 0.5, 2 },
      { throw = false, regularise = { kinetic = true } })
    assert.close(z[2]:item(), 2, 1e-4)
    assert.truthy(info.status ~= "ok")
    assert.close(info.regularisers.kinetic[2]:item(), (2 ^ 3 - 1) / 3, 1e-3)
  end)

  it("takes states of several tensors, vectors and numbers", function()
    local function two(_, s) return { s[2], -s[1] } end
    local z, info = gq.odeint(two, { vector { { 1 }, { 0 } }, vector { { 0 }, { 2 } } }, { 0, 1 },
      with(tight, { regularise = { kinetic = true, taylor = 4, jacobian = { probe = { gq.ones(2, 1, f64),
        gq.zeros(2, 1, f64) } } } }))
    assert.same({ 2, 2, 1 }, z[2].shape)
    assert.close(info.regularisers.kinetic[2], { 1, 4 }, 1e-8)
    assert.close(info.regularisers.taylor[2], { 1, 4 }, 1e-8)
    assert.close(info.regularisers.jacobian[2], { 1, 1 }, 1e-8)
    for _, z1 in ipairs { vector { 3, 4 }, vector(5) } do
      z, info = gq.odeint(function(_, y) return -y end, z1, { 0, 1 }, with(tight, { regularise = { kinetic = true } }))
      assert.same({ 2, table.unpack(z1.shape) }, z.shape)
      assert.same({ 2 }, info.regularisers.kinetic.shape)
      assert.close(info.regularisers.kinetic[2]:item(), 25 * (1 - math.exp(-2)) / 2, 1e-8)
    end
    z, info = gq.odeint(function(_, y) return -y end, gq.ones(2, 3), { 0, 1 }, { regularise = { kinetic = true } })
    assert.same({ "float32", "float32" }, { z.dtype, info.regularisers.kinetic.dtype })
    assert.same({}, select(2, gq.odeint(function(_, y) return -y end, z0, { 0, 1 }, { regularise = {} })).regularisers)
  end)

  it("leaves the state as it is without it", function()
    local f = function(t, z) return gq.tanh(z) * t end
    local plain = gq.odeint(f, z0, { 0, 1 }, with(tight, { gradient = "none" }))
    local z = gq.odeint(f, z0, { 0, 1 },
      with(tight, { gradient = "none", regularise = { kinetic = true, taylor = 2 } }))
    assert.close(z, plain, 1e-9, 1e-12)
  end)

  it("takes names in a list", function()
    local asked = { "kinetic", "error", taylor = 2 }
    local _, info = gq.odeint(function(_, z) return -z end, z0, { 0, 1 }, { regularise = asked })
    local _, want = gq.odeint(function(_, z) return -z end, z0, { 0, 1 },
      { regularise = { kinetic = true, error = true, taylor = 2 } })
    for _, name in ipairs { "kinetic", "error", "taylor" } do
      assert.same(want.regularisers[name]:totable(), info.regularisers[name]:totable())
    end
    assert.same({ "kinetic", "error", taylor = 2 }, asked)
  end)

  it("asked for wrongly is an error that says how", function()
    local function fails(word, r, o, f)
      refused(word, gq.odeint, f or function(_, z) return -z end, z0, { 0, 1 }, with({ regularise = r }, o))
    end
    fails("options are one table", 3)
    fails("did you mean 'kinetic'", { kinetc = true })
    fails("did you mean 'kinetic'", { "kinetc" })
    fails("without a name", { 3 })
    fails("true or false", { kinetic = 3 })
    fails("did you mean \"normal\"", { jacobian = { probe = "norml" } })
    fails("not both", { jacobian = { probe = z0, seed = 1 } })
    fails("dtype and shape of the state", { jacobian = { probe = gq.ones(3, 2) } })
    fails("dtype and shape of the state", { jacobian = { probe = vector { 1 } } })
    fails("did you mean 'probe'", { jacobian = { prob = z0 } })
    fails("an integer of at least 1", { taylor = 0 })
    fails("at most 32", { taylor = 33 })
    fails("missing", { taylor = {} })
    fails("leapfrog", { kinetic = true }, { method = "leapfrog" })
    fails("returned float64 of shape {3, 1}; expected dz/dt", { kinetic = true }, nil,
      function(_, z) return z:narrow(2, 1, 1) end)
    fails("returned nil", { taylor = 2 }, nil, function() end)
    fails("must be a function", { taylor = 2 }, nil, 3)
  end)
end)

describe("gq.steer", function()
  it("draws the last time from its interval, by a seed", function()
    local least, most, sum = math.huge, -math.huge, 0
    gq.manual_seed(7)
    for _ = 1, 400 do
      local t = gq.steer({ 0, 0.5, 1 }, 0.3)
      assert.same({ 0, 0.5 }, { t[1], t[2] })
      least, most, sum = math.min(least, t[3]), math.max(most, t[3]), sum + t[3] / 400
    end
    assert.truthy(least >= 0.7 and least < 0.72 and most <= 1.3 and most > 1.28)
    assert.close(sum, 1, 0.03)
    assert.equal(gq.steer({ 0, 1 }, 0.5, { seed = 3 })[2], gq.steer({ 0, 1 }, 0.5, { seed = 3 })[2])
    assert.same({ 1, 0 }, gq.steer({ 1, 0 }, 0))
    local given = { 0, 1 }
    gq.steer(given, 0.5)
    assert.same({ 0, 1 }, given)
  end)

  it("keeps tensors tensors, with their gradients", function()
    local t = leaf { 1, 0.5, 0 }
    local moved = gq.steer(t, 0.2, { seed = 1 })
    assert.same({ 1, 0.5 }, moved:narrow(1, 1, 2):totable())
    assert.truthy(moved[3]:item() ~= 0 and math.abs(moved[3]:item()) <= 0.2)
    assert.same({ 1, 1, 1 }, gq.grad(moved:sum(), t):totable())
    local z = gq.odeint(function(_, y) return -y end, vector { 1 }, moved, { gradient = "direct" })
    assert.close(z[3]:item(), math.exp(1 - moved[3]:item()), 1e-5)
  end)

  it("called wrongly is an error that says how", function()
    local function fails(word, ...)
      refused(word, gq.steer, ...)
    end
    fails("at least two", { 1 }, 0.1)
    fails("at least two", vector(1), 0.1)
    fails("at least two", nil, 0.1)
    fails("t[2]", { 0, "x" }, 0.1)
    fails("below the last interval, 0.5", { 0, 0.5, 1 }, 0.5)
    fails("at least 0", { 0, 1 }, -0.1)
    fails("at least 0", { 0, 1 })
    fails("did you mean 'seed'", { 0, 1 }, 0.1, { sed = 1 })
  end)
end)
