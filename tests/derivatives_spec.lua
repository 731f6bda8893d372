-- derivatives_spec.lua -- gq.jvp, gq.jacobian, gq.hessian_vector against formulas and differences.

local gq = require "gq"
local refused = require("tests.helper").refused

local f64 = { dtype = "float64" }

describe("derivatives of a function", function()
  local A = gq.randn({ 4, 3 }, { dtype = "float64", seed = 1 })
  local x = gq.randn({ 3 }, { dtype = "float64", seed = 2 })
  local v = gq.randn({ 3 }, { dtype = "float64", seed = 3 })
  local function f(z) return gq.tanh(A:matmul(z)) end

  it("along a direction", function()
    local d, y = gq.jvp(f, x, v)
    assert.close(y, f(x), 0, 0)
    assert.close(d, (1 - y * y) * A:matmul(v), 1e-14)
    local h = 1e-6
    assert.close(d, (f(x + h * v) - f(x - h * v)) / (2 * h), 1e-8)
    assert.close(gq.jvp(function(z) return 2 * z end, x, v), 2 * v, 1e-15)
    assert.is_false(x.requires_grad)
  end)

  it("all of them", function()
    local J, y = gq.jacobian(f, x), f(x)
    assert.same({ 4, 3 }, J.shape)
    assert.close(J, (1 - y * y):unsqueeze(2) * A, 1e-14)
    assert.same({ 2, 2, 3 }, gq.jacobian(function(z) return gq.ones(2, 2, f64) * z:sum() end, x).shape)
    assert.close(gq.jacobian(function(z) return z:sum() end, x), gq.ones(3, f64))
    assert.close(gq.jacobian(function() return gq.ones(2, f64) end, x), gq.zeros(2, 3, f64))
    assert.same({ 0, 3 }, gq.jacobian(function(z) return z:narrow(1, 1, 0) end, x).shape)
    assert.close(gq.jacobian(function(z) return z * z end, gq.tensor(3, f64)), gq.tensor(6, f64))
  end)

  it("twice along a direction", function()
    local hv, y = gq.hessian_vector(function(z) return (z ^ 3):sum() end, x, v)
    assert.close(hv, 6 * x * v, 1e-14)
    assert.close(y, (x ^ 3):sum(), 1e-15)
    local function energy(z) return (f(z) * f(z)):sum() end
    local function slope(z) return gq.jacobian(energy, z) end
    assert.close(gq.hessian_vector(energy, x, v), gq.jvp(slope, x, v), 1e-13)
    assert.close(gq.hessian_vector(function(z) return z:sum() end, x, v), gq.zeros(3, f64))
  end)

  it("carry gradients of their own", function()
    local W = gq.randn({ 3, 3 }, { dtype = "float64", seed = 4 })
    local ok, report = gq.checkgrad(function(w, z)
      return gq.jvp(function(p) return gq.tanh(w:matmul(p)) end, z, v)
    end, { W, x })
    assert.is_true(ok, report.message)
    ok, report = gq.checkgrad(function(w)
      return gq.hessian_vector(function(p) return gq.tanh(w:matmul(p)):sum() end, x, v)
    end, { W })
    assert.is_true(ok, report.message)
  end)

  it("carry none where neither x nor what f captured does", function()
    local function cube(z) return (z ^ 3):sum() end
    local function all(g, z, w)
      local list = { gq.jacobian(g, z), gq.jvp(g, z, w or v) }
      local h, y = gq.hessian_vector(function(p) return (g(p) ^ 2):sum() end, z, w or v)
      return table.move({ h, y }, 1, 2, #list + 1, list)
    end
    local function solve(z)
      return gq.odeint(function(_, p) return gq.sin(p) end, z, { 0, 1 }, { gradient = "direct" })[2]
    end
    for _, g in ipairs { f, cube, solve } do
      for i, d in ipairs(all(g, x)) do
        assert.is_false(d.requires_grad, i)
        assert.is_true(d.is_leaf, i)
      end
    end
    local own, k = x:detach(), gq.tensor(2, { dtype = "float64", requires_grad = true })
    own.requires_grad = true
    for i, d in ipairs(all(cube, own)) do assert.is_true(d.requires_grad, i) end
    for i, d in ipairs(all(function(z) return solve(z) * k end, x)) do assert.is_true(d.requires_grad, i) end
    local w = v:detach()
    w.requires_grad = true
    assert.close(gq.grad(gq.jvp(cube, x, w), w), 3 * x * x, 1e-14)
    assert.close(gq.grad(gq.jacobian(function(z) return cube(z) * k end, x):sum(), k), (3 * x * x):sum(), 1e-14)
    assert.close(gq.grad(gq.jacobian(cube, own):sum(), own), 6 * x, 1e-14)
    assert.is_nil(k.grad)
  end)

  it("of a solve, and in a field", function()
    local function end_of(z0)
      local z = gq.odeint(function(_, z) return -z * z end, z0, { 0, 1 },
        { gradient = "direct", rtol = 1e-9, atol = 1e-9 })
      return z[2]
    end
    local z0 = gq.tensor({ 0.5, 1 }, f64)
    assert.close(gq.jacobian(end_of, z0), gq.eye(2, f64) * (1 / (1 + z0) ^ 2), 1e-7, 1e-9)
    local function descent(_, z) return -gq.jacobian(function(p) return (p * p):sum() / 2 end, z) end
    local z = gq.odeint(descent, z0, { 0, 1 }, { rtol = 1e-9, atol = 1e-9 })
    assert.close(z[2], z0 * math.exp(-1), 1e-8)
    local function along(_, p) return gq.jvp(gq.tanh, p, p) end
    local same = gq.odeint(function(_, p) return (1 - gq.tanh(p) ^ 2) * p end, z0, { 0, 1 })
    assert.close(gq.odeint(along, z0, { 0, 1 }), same, 1e-12)
  end)

  local wide = gq.nn.Linear(2, 2, { dtype = "float64" })
  local function map(o, net)
    o.rtol, o.atol = 1e-9, 1e-9
    return function(z0)
      local z, info = gq.odeint(net or function(_, z) return -z * z end, z0, { 0, 1 }, o)
      return z[2], info
    end
  end

  it("of a solve by auto, which takes an engine that has them", function()
    local z0 = gq.tensor({ { 0.5, 1 }, { 2, 0.1 }, { 1, 1 } }, f64)
    local engines = {}
    for limit, want in pairs { [1 << 30] = "direct", [1000] = "aca" } do
      local function solve(z)
        local y, info = map({ memory_limit = limit }, wide)(z)
        engines[#engines + 1] = info
        return y
      end
      local of = map({ gradient = "direct" }, wide)
      assert.close(gq.jacobian(solve, z0), gq.jacobian(of, z0), 1e-7, 1e-9)
      assert.close(gq.jvp(solve, z0, z0), gq.jvp(of, z0, z0), 1e-7, 1e-9)
      local function sum(g) return function(z) return (g(z) ^ 3):sum() end end
      assert.close(gq.hessian_vector(sum(solve), z0, z0), gq.hessian_vector(sum(of), z0, z0), 1e-7, 1e-9)
      for _, info in ipairs(engines) do assert.same(want, info.engine) end
      engines = {}
    end
    local leaf = z0:detach()
    leaf.requires_grad = true
    local few = z0.device == "cpu" and "gqc" or "direct"
    local _, info = map({})(leaf)
    assert.same(few, info.engine)                              -- elsewhere it chooses as ever
    pcall(gq.jacobian, function() error("on purpose") end, z0)
    _, info = map({})(leaf)
    assert.same(few, info.engine)
  end)

  it("all of them through any engine, where x alone has gradients", function()
    local z0 = gq.tensor({ 0.5, 1 }, f64)
    local want = gq.eye(2, f64) * (1 / (1 + z0) ^ 2)
    for _, o in ipairs { { gradient = "gq" }, { gradient = "gqc" }, { gradient = "adjoint" }, { trace = false } } do
      assert.close(gq.jacobian(map(o), z0), want, 1e-7, 1e-9)
    end
    local function fall(h)                                       -- when a stone reaches the ground
      local _, _, t = gq.odeint(function(_, z) return gq.stack { z[2], -2 + 0 * z[1] } end,
        gq.cat { h, gq.zeros(1, f64) }, { 0, 9 }, { event = function(_, z) return z[1] end, rtol = 1e-9, atol = 1e-9 })
      return t
    end
    assert.close(gq.jacobian(fall, gq.tensor({ 4 }, f64)), gq.tensor({ 0.25 }, f64), 1e-7)
  end)

  it("refuse what makes no sense", function()
    refused("float tensor", gq.jvp, f, 1, v)
    refused("float tensor", gq.jacobian, f, gq.tensor({ 1 }, { dtype = "int64" }))
    refused("{3} as float64", gq.jvp, f, x, gq.ones(4, f64))
    refused("{3} as float64", gq.hessian_vector, f, x, 1)
    refused("one number", gq.hessian_vector, f, x, v)
    refused("f returns a tensor", gq.jvp, function() return 1 end, x, v)
    refused("no_grad", gq.no_grad, gq.jvp, f, x, v)
  end)
end)
