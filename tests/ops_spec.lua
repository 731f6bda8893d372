-- Operations, generated from the op table: values against plain Lua, gradients against central differences
-- (first and second order, broadcasting, views, zero sizes), extremes, and the traced forms of each call.
-- A new row of ops.def without a case here fails.

local gq = require "gq"
local helper = require "tests.helper"

local check, f64 = helper.checkgrad, { dtype = "float64" }
local inf, nan = math.huge, 0 / 0

local function rand(...) return gq.rand({ ... }, { dtype = "float64", seed = 11 }) end
local function randn(...) return gq.randn({ ... }, { dtype = "float64", seed = 12 }) end
local function int(t) return gq.tensor(t, { dtype = "int64" }) end

-- Away from 0 by at least 0.2, where abs, relu and their like have corners.
local function away(...)
  local x = randn(...)
  return x + x:sign() * 0.2
end
local function positive(...) return rand(...) + 0.5 end

-- erf by its series, for |x| <= 3.
local function erf(x)
  local sum, term = x, x
  for n = 1, 100 do
    term = -term * x * x / n
    sum = sum + term / (2 * n + 1)
  end
  return 2 / math.sqrt(math.pi) * sum
end

-- name -> a function of numbers, and where its arguments come from
local unary = {
  neg = { function(x) return -x end }, exp = { math.exp }, log = { math.log, positive },
  log1p = { function(x) return math.log(1 + x) end, positive },
  expm1 = { function(x) return math.exp(x) - 1 end, away }, sqrt = { math.sqrt, positive },
  rsqrt = { function(x) return 1 / math.sqrt(x) end, positive }, abs = { math.abs, away },
  sign = { function(x) return x > 0 and 1 or x < 0 and -1 or 0 end, away },
  sin = { math.sin }, cos = { math.cos }, tan = { math.tan, rand },
  atan = { math.atan },
  tanh = { function(x) return (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)) end },
  sigmoid = { function(x) return 1 / (1 + math.exp(-x)) end },
  softplus = { function(x) return math.log(1 + math.exp(x)) end },
  relu = { function(x) return math.max(x, 0) end, away }, erf = { erf },
  floor = { math.floor }, round = { function(x)
    local y = math.floor(x)
    if x - y == 0.5 then return y % 2 == 0 and y or y + 1 end
    return math.floor(x + 0.5)
  end },
  square = { function(x) return x * x end }, reciprocal = { function(x) return 1 / x end, positive },
}
local binary = {
  add = { function(x, y) return x + y end }, sub = { function(x, y) return x - y end },
  mul = { function(x, y) return x * y end }, div = { function(x, y) return x / y end, randn, positive },
  pow = { function(x, y) return x ^ y end, positive, randn },
  floor_divide = { function(x, y) return x // y end, randn, positive },
  remainder = { function(x, y) return x % y end, randn, positive },
  maximum = { math.max }, minimum = { math.min },
}
local compare = {
  lt = function(x, y) return x < y end, le = function(x, y) return x <= y end,
  gt = function(x, y) return x > y end, ge = function(x, y) return x >= y end,
  eq = function(x, y) return x == y end, ne = function(x, y) return x ~= y end,
}

-- x -> df/dx, for any x: a leaf of its own where x wants no gradient.
local function gradient(f)
  return function(x)
    if not x.requires_grad and x.is_leaf then
      x = x:clone()
      x.requires_grad = true
    end
    return gq.grad(f(x), x, { create_graph = true })
  end
end

-- The rest: name -> list of {function, inputs...}; "internal" rows are derivatives or leaves of a graph.
local mask = gq.tensor({ { true, false, true }, { false, false, true } })
local other = {
  input = "internal", const = "internal", affine = "internal", conv = "internal",
  call = "internal", call_pull = "internal",
  pad = { { gradient(function(x) return (x[{ {}, { 1, 3, 2 } }] ^ 3):sum() end), randn(2, 3) } },
  index_add = { { gradient(function(x) return (x:index_select(2, { 3, 1, 3 }) ^ 3):sum() end), randn(2, 3) } },
  scatter_add = { { gradient(function(x) return (x:gather(2, int { { 3, 1 }, { 2, 2 } }) ^ 3):sum() end),
    randn(2, 3) } },
  where = {
    { function(x, y) return gq.where(mask, x, y) end, randn(2, 3), randn(3) },
    { function(x) return gq.where(x:gt(0), x * x, 0) end, away(4) },
    { function(x) return gq.where(mask, 1, x) end, randn(1, 3) },
  },
  cast = { { function(x) return x:to("float64") * 2 end, randn(3) },
    { function(x) return mask:to("float64") * x end, randn(2, 3) } },
  matmul = {
    { gq.matmul, randn(2, 3), randn(3, 4) }, { gq.matmul, randn(3), randn(3, 4) },
    { gq.matmul, randn(2, 3), randn(3) }, { gq.matmul, randn(3), randn(3) + 1 },
    { gq.matmul, randn(5, 2, 3), randn(3, 4) }, { gq.matmul, randn(2, 3), randn(5, 3, 4) },
    { gq.matmul, randn(2, 1, 2, 3), randn(3, 3, 2) }, { gq.matmul, randn(3), randn(2, 3, 2) },
    { function(a, b) return a:t():matmul(b:t()) end, randn(3, 2), randn(4, 3) },
    { gq.matmul, randn(2, 0), randn(0, 3) }, { gq.matmul, randn(0, 2), randn(2, 3) },
  },
  sum = {
    { gq.sum, randn(2, 3) }, { function(x) return x:sum(1) end, randn(2, 3) },
    { function(x) return x:sum({ 1, 3 }, true) end, randn(2, 3, 4) },
    { function(x) return x:sum(-1) end, randn(2, 3) },
    { gq.sum, randn(0, 3) }, { gq.sum, randn() }, { function(x) return x:mean({ 1, 2 }) end, randn(2, 3, 2) },
    { gq.mean, randn(5) }, { gq.prod, away(5) }, { function(x) return x:prod(2) end, away(2, 3, 2) },
    { function(x) return x:prod({ 1, 3 }, true) end, away(2, 3, 2) }, { gq.prod, away(1) },
  },
  amax = { { gq.max, randn(2, 3) }, { function(x) return (x:max(2)) end, randn(2, 3) },
    { function(x) return x:max({ 1, 3 }, true) end, randn(2, 3, 2) },
    { function(x) return (x:max(1, true)) end, randn(4) } },
  amin = { { gq.min, randn(2, 3) }, { function(x) return (x:min(2)) end, randn(2, 3) },
    { function(x) return x:min({ 1, 2 }) end, randn(2, 3, 2) } },
  argmax = { { function(x) return x:argmax(1):to("float64") + x:sum(1) end, randn(3, 2) } },
  argmin = { { function(x) return x:argmin(1, true):to("float64") + x end, randn(3, 2) } },
  reshape = { { function(x) return x:reshape(3, 2) end, randn(2, 3) },
    { function(x) return x:t():reshape(6) end, randn(2, 3) },
    { function(x) return x:flatten() * x:flatten() end, randn(2, 2) },
    { function(x) return x:unsqueeze(2):squeeze() end, randn(3) },
    { function(x) return x:reshape(0, 2) end, randn(3, 0) } },
  permute = { { function(x) return x:permute(3, 1, 2) end, randn(2, 3, 4) },
    { function(x) return x:t() * 2 end, randn(2, 3) } },
  expand = { { function(x) return x:expand(4, 2, 3) end, randn(2, 1) },
    { function(x) return x:expand(0, 3) end, randn(3) } },
  slice = { { function(x) return x[{ {}, { 1, 3, 2 } }] end, randn(2, 4) },
    { function(x) return x[2] * x[-1][1] end, randn(2, 3) },
    { function(x) return x:narrow(2, 2, 2) end, randn(2, 3) },
    { function(x) return x[{ { 1, 0 } }] end, randn(2, 3) },
    { function(x) local p = x:split(2) return p[1] * p[2] end, randn(4) } },
  cat = { { function(x, y) return gq.cat { x, y, x } end, randn(2, 3), randn(1, 3) },
    { function(x, y) return gq.cat({ x, y, y, x, x }, 2) end, randn(2, 1), randn(2, 3) },
    { function(x, y) return gq.stack({ x, y }, -1) end, randn(3), randn(3) + 1 },
    { function(x, y) return gq.cat { x, y } end, randn(0, 2), randn(1, 2) } },
  index_select = { { function(x) return x:index_select(1, { 2, 2, 1 }) end, randn(2, 3) },
    { function(x) return x:index_select(2, int {}) end, randn(2, 3) } },
  gather = { { function(x) return x:gather(2, int { { 3, 1 }, { 2, 2 } }) end, randn(2, 3) } },
}
other.window = {
  { function(x) return gq.core.windows(x, 1, { 2 }, { 2 }, { 1 }) end, randn(5, 2) },
  { function(x) return gq.core.windows(x, 2, { 2, 3 }, { 1, 2 }, { 2, 1 }) end, randn(2, 4, 5, 2) },
  { function(x) return gq.core.windows(x, 2, { 3 }, { 1 }, { 1 }):sum({ 2, 3 }) end, randn(2, 2) } }
other.window_add = {
  { function(x) return gq.core.windows_add(x, 1, { 6 }, { 2 }, { 1 }) end, randn(2, 3, 2) },
  { function(x) return gq.core.windows_add(x, 2, { 4, 6 }, { 1, 2 }, { 2, 1 }) end, randn(2, 2, 3, 2, 2, 2) } }
other.clamp = { { function(x) return x:clamp(-0.5, 0.5) end, away(5) },
    { function(x) return x:clamp(nil, 0.1) end, away(5) },
  { function(x, lo) return x:clamp(lo) end, away(5), gq.tensor({ 0.05 }, f64) } }
other.power = { { function(x) return x ^ 2 + x ^ 3 + x ^ 4 + x ^ -1 end, positive(4) },
    { function(x) return 2 ^ x end, randn(3) } }
other.operators = {
    { function(x, y) return -x * 2 + 3 / y - (1 - y) / 4 + x ^ y end, positive(2, 1), positive(3) } }
other.views = {
    { function(x) return x:t():narrow(1, 2, 2):sin() * x[{ {}, { 1, 3, 2 } }]:t():cos() end, randn(3, 3) } }
other.diamond = { { function(x) local y = x:tanh() return (y * y):sum() * y + y:exp() end, randn(3) } }

-- The traced graph, node by node and compiled, gives what evaluation at once gave.
local function check_traced(f, ...)
  local inputs = { ... }
  local want = f(table.unpack(inputs))
  for _, how in ipairs { "plain", "program" } do
    local got = gq.core.run(f, inputs, 1, how)
    assert.same(want.shape, got.shape)
    assert.equal(want.dtype, got.dtype)
    assert.close(got, want, 1e-12, 1e-14)
  end
end

-- numbers of f at the entries of x, y (equal shapes), in order
local function pointwise(f, x, y)
  local out, a, b = {}, x:reshape(-1):totable(), y and y:reshape(-1):totable()
  for i = 1, #a do out[i] = f(a[i], b and b[i]) end
  return out
end

for _, row in ipairs(gq.core.ops) do
  local f = rawget(gq, row.name)
  describe("op " .. row.name, function()
    if row.kind == "unary" then
      local case = assert(unary[row.name], "no test for this row")
      local reference, make = case[1], case[2] or randn
      it("has the values of its formula", function()
        local x = make(5, 7)
        assert.close(f(x):reshape(-1), pointwise(reference, x), 1e-12, 1e-13)
        assert.close(f(x:to("float32")):reshape(-1), pointwise(reference, x), 2e-5, 1e-5)
        assert.close(f(x:t()):t(), f(x), 0)
        assert.close(f(x[{ { 1, 5, 2 } }]), f(x)[{ { 1, 5, 2 } }], 1e-15)
        assert.same({ 0, 3 }, f(gq.zeros(0, 3)).shape)
        assert.same({}, f(make()).shape)
        assert.equal(f, getmetatable(x).__index(x, row.name))
        assert.is_string(gq.docs[f])
        for n = 1, 40 do                          -- every tail of a vector loop
          assert.close(f(make(n)), pointwise(reference, make(n)), 1e-12, 1e-13)
          assert.close(f(make(n):to("float32")), pointwise(reference, make(n)), 2e-5, 1e-5)
        end
      end)
      it("has the derivatives of central differences", function()
        check(f, make(2, 3))
        check(function(x) return f(x:t()[{ {}, { 1, 3, 2 } }]) end, make(3, 2))
        check(f, make(0, 2))
        check(f, make())
      end)
      it("is the same when traced", function() check_traced(f, make(6, 7)) end)
    elseif row.kind == "binary" then
      local case = assert(binary[row.name], "no test for this row")
      local reference, left, right = case[1], case[2] or randn,
        case[3] or function(...) return randn(...) * 1.5 + 0.3 end
      it("has the values of its formula", function()
        local x, y = left(5, 7), right(5, 7)
        assert.close(f(x, y):reshape(-1), pointwise(reference, x, y), 1e-12)
        assert.close(f(x:to("float32"), y:to("float32")):reshape(-1), pointwise(reference, x, y), 1e-4, 1e-6)
        assert.close(f(x:t(), y:t()):t(), f(x, y), 1e-15)
        assert.close(f(x[1], y), f(x[1]:expand(5, 7):clone(), y), 1e-15)
        assert.close(f(x, y[2][3]:item()), f(x, y[2][3]:expand(5, 7):clone()), 1e-15)
        assert.close(f(x[2][3]:item(), y), f(x[2][3]:expand(5, 7):clone(), y), 1e-15)
        assert.same({ 0, 7 }, f(x[{ { 1, 0 } }], y[1]).shape)
        assert.has_error(function() f(x) end)
        assert.has_error(function() f(x, gq.zeros(3, f64)) end)
      end)
      it("has the derivatives of central differences", function()
        check(f, left(2, 3), right(2, 3))
        check(f, left(2, 1), right(3))
        check(f, left(), right(2, 2))
        check(f, left(3), right())
        check(function(x, y) return f(x:t(), y[{ { 1, 3, 2 } }]) end, left(2, 2), right(3, 2))
        check(f, left(0, 2), right(2))
        check(function(x) return f(x, x) end, positive(3))
      end)
      it("is the same when traced", function()
        check_traced(f, left(6, 7), right(7))
        check_traced(f, left(6, 1), right())
      end)
    elseif row.kind == "compare" then
      local reference = assert(compare[row.name], "no test for this row")
      it("compares", function()
        local x, y = gq.tensor({ 1, 2, 3, nan }, f64), gq.tensor({ 2, 2, 2, 2 }, f64)
        assert.same(pointwise(reference, x, y), f(x, y):totable())
        assert.equal("bool", f(x, y).dtype)
        assert.same({ 4, 1 }, f(x:unsqueeze(2), 2).shape)
        assert.same(pointwise(reference, int { 1, 2, 3 }, int { 2, 2, 2 }), f(int { 1, 2, 3 }, 2):totable())
        assert.is_false(f(gq.ones(2, { requires_grad = true }), 1).requires_grad)
        check_traced(function(a) return f(a, y):to("float64") end, x[{ { 1, 3 } }]:sum() * gq.ones(4, f64))
      end)
    else
      local cases = row.name:find("^bare_") and "internal" or assert(other[row.name], "no test for this row")
      if cases ~= "internal" then
        it("has the derivatives of central differences", function()
          for _, case in ipairs(cases) do check(case[1], table.unpack(case, 2)) end
        end)
        it("is the same when traced", function()
          for _, case in ipairs(cases) do check_traced(case[1], table.unpack(case, 2)) end
        end)
      end
    end
  end)
end

describe("combinations", function()
  for _, name in ipairs { "clamp", "power", "operators", "views", "diamond" } do
    it(name, function()
      for _, case in ipairs(other[name]) do
        check(case[1], table.unpack(case, 2))
        check_traced(case[1], table.unpack(case, 2))
      end
    end)
  end
end)

describe("extremes", function()
  for _, dtype in ipairs { "float32", "float64" } do
    local function t(list) return gq.tensor(list, { dtype = dtype }) end
    it("give limits, not nonsense, in " .. dtype, function()
      assert.close(gq.softplus(t { 1000, -1000, inf, -inf }), { 1000, 0, inf, 0 }, 1e-6, 1e-30)
      assert.close(gq.sigmoid(t { 1000, -1000, inf, -inf }), { 1, 0, 1, 0 }, 0, 1e-30)
      assert.close(gq.tanh(t { 1000, -1000, inf, -inf }), { 1, -1, 1, -1 }, 0)
      assert.close(gq.erf(t { 100, -100 }), { 1, -1 }, 0)
      assert.close(gq.exp(t { 1000, -1000, inf, -inf }), { inf, 0, inf, 0 }, 0)
      assert.close(gq.log(t { 0, inf, -1 }), { -inf, inf, nan }, 0)
      assert.close(gq.sqrt(t { 0, inf, -1 }), { 0, inf, nan }, 0)
      assert.close(gq.log1p(t { 1e-10, -1 }), { 1e-10, -inf }, 1e-6)
      assert.close(gq.expm1(t { 1e-10, -1000 }), { 1e-10, -1 }, 1e-6)
      assert.close(t { 0 } ^ 0, { 1 }, 0)
      assert.close(t { -2 } ^ 3, { -8 }, 1e-7)
      assert.close(t { -8 } ^ t { 5 }, { -32768 }, 1e-6)
      assert.close(t { 1, -1, 0 } / 0, { inf, -inf, nan }, 0)
      for _, row in ipairs(gq.core.ops) do
        if row.kind == "unary" and row.name ~= "sign" then
          local y = gq[row.name](t { nan }):item()
          assert(y ~= y, row.name .. " loses a NaN")
        end
      end
      assert.close(gq.maximum(t { nan, 1 }, t { 1, nan }), { nan, nan }, 0)
      assert.close(gq.minimum(t { nan, 1 }, t { 1, nan }), { nan, nan }, 0)
      local m = t({ 1, nan, 3 }):max():item()
      assert.is_true(m ~= m)
      assert.close(t({ nan, -1, 9 }):clamp(0, 1), { nan, 0, 1 }, 0)
      assert.close(gq.sin(t { 1e5 }), { math.sin(1e5) }, 0, 1e-6)
    end)
    it("have finite derivatives where they have limits, in " .. dtype, function()
      for _, name in ipairs { "softplus", "sigmoid", "tanh", "erf", "relu", "abs" } do
        local x = t { 1000, -1000, 0 }
        x.requires_grad = true
        local g = gq.grad(gq[name](x):sum(), x):totable()
        for i = 1, 3 do assert(g[i] == g[i] and math.abs(g[i]) <= 1.2, name .. ": derivative " .. g[i]) end
      end
    end)
  end

  it("keep ties fair", function()
    local x = gq.ones(2, { dtype = "float64", requires_grad = true })
    assert.close(gq.grad(x:max(), x), { 0.5, 0.5 }, 0)
    assert.close(gq.grad(gq.maximum(x, 1):sum(), x), { 0.5, 0.5 }, 0)
    assert.close(gq.grad(gq.relu(x - 1):sum(), x), { 0, 0 }, 0)
    assert.close(gq.grad(x:clamp(1, 1):sum(), x), { 1, 1 }, 0)
  end)
end)

describe("reductions", function()
  local x = gq.tensor({ { 3, 1, 2 }, { 0, 5, 5 } })
  it("have values, positions and kept dimensions", function()
    local v, i = x:max(2)
    assert.same({ 3, 5 }, v:totable())
    assert.same({ 1, 2 }, i:totable())
    assert.equal("int64", i.dtype)
    v, i = x:min(1, true)
    assert.same({ { 0, 1, 2 } }, v:totable())
    assert.same({ { 2, 1, 1 } }, i:totable())
    assert.equal(5, x:argmax():item())
    assert.equal(4, x:argmin():item())
    assert.same({ 1, 2 }, x:argmax(2):totable())
    assert.same({ 1, 1 }, x:argmin(nil, true).shape)
    assert.equal(16, x:sum():item())
    assert.same({ 1, 1 }, x:sum(nil, true).shape)
    assert.equal(2, x:gt(2.5):sum(1)[3]:item() + x:gt(2.5):sum(1)[1]:item())
    assert.equal("int64", x:gt(2):sum().dtype)
    assert.close(x:gt(2):mean(), 0.5)
    assert.same({ 3, 5, 5 }, x:max(1):totable())
    assert.same({ 3, 4, 4 }, x:max(gq.tensor(3)):max(1):clamp(nil, 4):totable())
    assert.same({ 1, 1, 1 }, gq.zeros(0, 3):prod(1):totable())
    local none = gq.zeros({ 0, 3 }, { requires_grad = true })
    assert.same({ 0, 3 }, gq.grad(none:prod(1):sum(), none).shape)
    assert.same({ false, true }, gq.tensor({ { false, false }, { true, false } }):any(2):totable())
    assert.same({ true }, gq.tensor({ { true, true } }):all(2):totable())
    assert.is_false(gq.zeros(0):any():item())
    assert.is_true(gq.zeros(0):all():item())
  end)
  it("refuse", function()
    assert.truthy(helper.message(x.sum, x, 3):find("dimension 3", 1, true))
    assert.truthy(helper.message(x.sum, x, 0):find("count from 1", 1, true))
    assert.truthy(helper.message(x.sum, x, { 1, 1 }):find("twice", 1, true))
    assert.truthy(helper.message(x.sum, x, "1"):find("integer expected", 1, true))
    assert.truthy(helper.message(gq.max, gq.zeros(0)):find("no numbers", 1, true))
    assert.truthy(helper.message(gq.argmax, x, { 1 }):find("one dimension", 1, true))
  end)
  it("sum floats in double", function()
    assert.close(gq.full({ 1 << 20 }, 0.1):sum(), 0.1 * (1 << 20), 1e-6)
    assert.close((gq.full({ 1 << 20 }, 0.1) + 1000):mean(), 1000.1, 1e-6)
  end)
end)
