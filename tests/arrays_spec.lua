-- arrays_spec.lua -- order, running sums, pieces, einsum, masks and linear algebra, against plain loops.

local gq = require "gq"
local helper = require "tests.helper"

local raises = helper.raises
local f64, int64 = { dtype = "float64" }, { dtype = "int64" }

local function randn(...) return gq.randn({ ... }, { dtype = "float64", seed = 21 }) end
local function leaf(...) return gq.randn({ ... }, { dtype = "float64", seed = 22, requires_grad = true }) end
local function int(t) return gq.tensor(t, int64) end

-- f(i, j) as a matrix.
local function matrix(m, n, f)
  local rows = {}
  for i = 1, m do
    rows[i] = {}
    for j = 1, n do rows[i][j] = f(i, j) end
  end
  return rows
end

-- x -> df/dx of the sum of cubes, for second derivatives.
local function slope(f)
  return function(x, ...)
    if not x.requires_grad and x.is_leaf then
      x = x:clone()
      x.requires_grad = true
    end
    local y = f(x, ...)
    return gq.grad((y * y * y):sum(), x, { create_graph = true })
  end
end

local function smooth(f, ...)
  assert.is_true(gq.checkgrad(f, { ... }))
  assert.is_true(gq.checkgrad(slope(f), { ... }))
end

describe("tensors: the names of the interface", function()
  it("are functions and methods", function()
    local names = [[matmul exp log log1p expm1 sqrt rsqrt abs sign sin cos tan tanh sigmoid softplus relu elu gelu silu
      leaky_relu erf pow clamp maximum minimum where sum mean var std max min prod logsumexp softmax log_softmax norm
      argmax argmin reshape view transpose permute squeeze unsqueeze expand flatten split narrow index_select gather
      lt le gt ge eq ne cross_entropy mse_loss gaussian_kl sort argsort topk cumsum cumprod floor ceil round flip roll
      tril triu dot diag solve cholesky inverse det eigh normal_ uniform_ ipairs isnan isfinite]]
    for name in names:gmatch("%S+") do
      assert.equal("function", type(gq[name]), name)
      assert.equal(gq[name], gq.zeros(1)[name], name)
      assert.equal("string", type(gq.docs[gq[name]]), name)
    end
  end)
end)

describe("tensors: order", function()
  it("sort, argsort and topk, along any dimension, stable, NaN last", function()
    local x = gq.randint(1, 4, 3, 7, 2, { seed = 3 }):to("float64")
    for d = 1, 3 do
      for _, falling in ipairs { false, true } do
        local v, at = x:sort(d, { descending = falling })
        assert.same(x:gather(d, at):totable(), v:totable())
        assert.same(at:totable(), x:argsort(d, falling):totable())
        local a, p = v:transpose(d, 3):totable(), at:transpose(d, 3):totable()
        for i = 1, #a do
          for j = 1, #a[i] do
            for k = 2, #a[i][j] do
              local u, w = a[i][j][k - 1], a[i][j][k]
              assert.is_true(falling and u >= w or not falling and u <= w)
              if u == w then assert.is_true(p[i][j][k - 1] < p[i][j][k]) end
            end
          end
        end
      end
    end
    local y = gq.tensor { 2, 0 / 0, -math.huge, -0.0, 0, math.huge }
    assert.same({ 3, 4, 5, 1, 6, 2 }, y:argsort():totable())
    assert.same({ 2, 6, 1, 4, 5, 3 }, y:argsort({ descending = true }):totable())
    local v, at = gq.tensor({ 3, 9, 7, 1 }):topk(2)
    assert.same({ 9, 7 }, v:totable())
    assert.same({ 2, 3 }, at:totable())
    assert.same({ { 1 }, { 0 } }, gq.tensor({ { 3, 1 }, { 0, 2 } }):topk(1, 2, { largest = false }):totable())
    assert.same({ math.mininteger, -1, math.maxinteger },
      int({ math.maxinteger, math.mininteger, -1 }):sort():totable())
    assert.same({}, gq.zeros(0):sort():totable())
    smooth(function(z) return (z:sort(1)) end, leaf(4, 3))
    smooth(function(z) return (z:topk(2, 1)) end, leaf(4, 3))
  end)

  it("cumsum and cumprod", function()
    local x = randn(5, 3, 4)
    for d = 1, 3 do
      local sum, prod, n = x:cumsum(d), x:cumprod(d), x.shape[d]
      for i = 1, n do
        assert.close(sum:narrow(d, i, 1), x:narrow(d, 1, i):sum(d, true):totable(), 1e-12, 1e-14)
        assert.close(prod:narrow(d, i, 1), x:narrow(d, 1, i):prod(d, true):totable(), 1e-12, 1e-14)
      end
    end
    assert.same({ 1, 3, 6 }, int({ 1, 2, 3 }):cumsum():totable())
    assert.same({ 1, 1, 2 }, gq.tensor({ true, false, true }):cumsum():totable())
    assert.same({}, gq.zeros(0):cumsum():totable())
    smooth(function(z) return z:cumsum(1) end, leaf(5, 2))
    smooth(function(z) return z:cumprod(2) end, leaf(2, 5))
    local zero = gq.tensor({ 2, 0, 3, 4 }, { dtype = "float64", requires_grad = true })
    assert.close(gq.grad(zero:cumprod():sum(), zero), { 1, 32, 0, 0 }, 0)
  end)
end)

describe("tensors: pieces", function()
  it("flip, roll, tril, triu, diag, dot", function()
    local x = randn(3, 5)
    local v = x:totable()
    assert.same(matrix(3, 5, function(i, j) return v[4 - i][6 - j] end), x:flip({ 1, 2 }):totable())
    assert.same(matrix(3, 5, function(i, j) return v[i][(j - 3) % 5 + 1] end), x:roll(2, 2):totable())
    assert.same(x:roll(2, 2):totable(), x:roll(-3, -1):totable())
    assert.same(x:totable(), x:roll(3, 1):totable())
    for k = -3, 5 do
      assert.same(matrix(3, 5, function(i, j) return j - i <= k and v[i][j] or 0 end), x:tril(k):totable())
      assert.same(matrix(3, 5, function(i, j) return j - i >= k and v[i][j] or 0 end), x:triu(k):totable())
      local d = {}
      for i = 1, 3 do if v[i][i + k] then d[#d + 1] = v[i][i + k] end end
      assert.same(d, x:diag(k):totable())
    end
    for k = -2, 2 do
      local n = 3 + math.abs(k)
      assert.same(matrix(n, n, function(i, j) return j - i == k and v[1][math.min(i, j)] or 0 end),
        x[{ 1, { 1, 3 } }]:diag(k):totable())
    end
    assert.close(x[1]:dot(x[2]):item(), (x[1] * x[2]):sum():item(), 1e-14)
    assert.same({ 2, 2 }, randn(2, 2, 3):diag().shape)
    assert.same({ { true, false }, { false, false } }, gq.tensor({ true, false }):diag():totable())
    local none = gq.zeros({ 0 }, { requires_grad = true })
    for k = -1, 1 do assert.same({ 0 }, gq.grad(none:diag(k):sum(), none).shape) end
    smooth(function(z) return z:flip(2) * z:roll(1, 1) end, leaf(2, 3))
    smooth(function(z) return z:tril():diag(-1):diag() end, leaf(3, 3))
  end)

  it("// and % as Lua has them, floor, ceil, round", function()
    local x, y = { 7.5, -7.5, 0, 3, -0.25 }, { 2, -2, 0.3 }
    for _, dtype in ipairs { "float32", "float64" } do
      local t = gq.tensor(x, { dtype = dtype })
      for _, b in ipairs(y) do
        if dtype == "float64" then
          for i, a in ipairs(x) do
            assert.equal(a % b, (t % b)[i]:item())
            assert.equal(a // b, (t // b)[i]:item())
            if a ~= 0 then assert.equal(b % a, (b % t)[i]:item()) end
          end
        end
        assert.close((t % b - t) / b, ((t % b - t) / b):round():totable(), 0, 1e-5)
      end
      assert.same({ 8, -7, 0, 3, 0 }, t:ceil():totable())
    end
    for a, b in helper.each({ 7, -7, 0, math.mininteger, math.maxinteger }, { 3, -3, 1, -1, math.maxinteger }) do
      assert.equal(a // b, (int { a } // int { b })[1]:item())
      assert.equal(a % b, (int { a } % b)[1]:item())
    end
    assert.same({ -2, 0, 0, 2, 2 }, gq.tensor({ -2.5, -0.5, 0.5, 1.5, 2.5 }):round():totable())
    raises("integer divided by 0", function() return int { 1 } // 0 end)
    raises("integer divided by 0", function() return int { 1 } % int { 0 } end)
    raises("two bool tensors", function() return gq.tensor { true } % gq.tensor { true } end)
    local a, b = leaf(4), leaf(4)
    assert.close(gq.grad((a % b):sum(), b), (-(a // b)):totable(), 1e-14)
  end)

  it("loops over the first dimension", function()
    local x, n = randn(3, 2), 0
    for i, row in x:ipairs() do
      n = n + 1
      assert.equal(n, i)
      assert.same(x[i]:totable(), row:totable())
    end
    assert.equal(3, n)
    raises("x:ipairs()", function() for _ in ipairs(x) do n = n + 1 end end)
  end)
end)

describe("gq.einsum", function()
  local a, b, c = randn(3, 4), randn(4, 5), randn(2, 3, 4)

  it("sums over what the result does not name", function()
    local av, bv, cv = a:totable(), b:totable(), c:totable()
    local function sum(n, f)
      local s = 0
      for i = 1, n do s = s + f(i) end
      return s
    end
    assert.close(gq.einsum("ij,jk->ik", a, b),
      matrix(3, 5, function(i, k) return sum(4, function(j) return av[i][j] * bv[j][k] end) end), 1e-12, 1e-13)
    assert.close(gq.einsum("ij,jk->ki", a, b), gq.einsum("ij,jk", a, b):t():totable(), 0)
    assert.close(gq.einsum("ij->ji", a), a:t():totable(), 0)
    assert.close(gq.einsum("ij->", a):item(), a:sum():item(), 1e-13)
    assert.close(gq.einsum("bij,jk,bim->mk", c, b, c),
      matrix(4, 5, function(m, k)
        return sum(2, function(n)
          return sum(3, function(i) return sum(4, function(j) return cv[n][i][j] * bv[j][k] * cv[n][i][m] end) end)
        end)
      end), 1e-12, 1e-13)
    assert.close(gq.einsum("i,j->ij", a[1], b[1]), matrix(4, 5, function(i, j) return av[1][i] * bv[1][j] end), 1e-15)
    local s = randn(3, 3)
    assert.close(gq.einsum("ii", s):item(), s:diag():sum():item(), 1e-15)
    assert.close(gq.einsum("ii->i", s), s:diag():totable(), 0)
    assert.close(gq.einsum("bii->b", randn(2, 3, 3)), randn(2, 3, 3):diag():sum(2):totable(), 1e-15)
    assert.close(gq.einsum("...ij,jk->...ik", c, b), c:matmul(b):totable(), 1e-13)
    assert.close(gq.einsum("...,...->...", c, c:narrow(1, 1, 1)), (c * c:narrow(1, 1, 1)):totable(), 0)
    assert.close(gq.einsum("ij,ij->i", { a, a }), (a * a):sum(2):totable(), 1e-14)
  end)

  it("has gradients, and works in dynamics", function()
    smooth(function(x, y) return gq.einsum("bij,bik->bjk", x, y) end, leaf(2, 3, 2), leaf(2, 3, 4))
    local w = leaf(2, 2)
    local z = gq.odeint(function(_, z) return gq.einsum("ij,bj->bi", w, z) end, randn(3, 2), { 0, 1 }, { rtol = 1e-8 })
    local y = gq.odeint(function(_, y) return y:matmul(w:t()) end, randn(3, 2), { 0, 1 }, { rtol = 1e-8 })
    assert.close(gq.grad(z[2]:sum(), w), gq.grad(y[2]:sum(), w):totable(), 1e-6)
  end)

  it("says what is wrong", function()
    raises("operand 1 2 dimensions names 3", gq.einsum, "ijk->i", a)
    raises("more operands", gq.einsum, "ij,jk", a)
    raises("names 1 operands, 2 given", gq.einsum, "ij", a, b)
    raises("dimension 1 of operand 2, j, is 3", gq.einsum, "ij,jk->ik", a, a)
    raises("no operand index k", gq.einsum, "ij->ik", a)
    raises("i twice", gq.einsum, "ij->ii", a)
    raises("letters", gq.einsum, "i1->i", a)
    raises("a string", gq.einsum, a, b)
  end)
end)

describe("x[mask] and x[indices]", function()
  it("select, with gradients", function()
    local x = randn(3, 4)
    local kept, list = x:gt(0), {}
    for _, row in ipairs(x:totable()) do
      for _, v in ipairs(row) do if v > 0 then list[#list + 1] = v end end
    end
    assert.same(list, x[kept]:totable())
    assert.same({ x[1]:totable(), x[3]:totable() }, x[gq.tensor { true, false, true }]:totable())
    assert.same({ 0, 4 }, x[gq.tensor { false, false, false }].shape)
    assert.same({ x[3]:totable(), x[1]:totable() }, x[int { 3, 1 }]:totable())
    assert.same({ 2, 1, 4 }, x[int { { 3 }, { 1 } }].shape)
    local y = leaf(3, 4)
    assert.close(gq.grad((y[y:gt(0)] ^ 2):sum(), y), gq.where(y:gt(0), y * 2, 0):totable(), 0)
    smooth(function(z) return z[int { 2, 2, 1 }] end, leaf(2, 3))
  end)

  it("assign", function()
    local x, y = randn(3, 4), randn(3, 4)
    x[x:lt(0)] = 0
    assert.same(y:relu():totable(), x:totable())
    x[x:eq(0)] = gq.arange(1, x:eq(0):to("int64"):sum():item(), 1, f64)
    local k = 0
    for i, row in ipairs(y:totable()) do
      for j, v in ipairs(row) do
        if v <= 0 then k = k + 1 end
        assert.equal(v <= 0 and k or v, x[i][j]:item())
      end
    end
    x[gq.tensor { false, true, true }] = { 1, 2, 3, 4 }
    assert.same({ { 1, 2, 3, 4 }, { 1, 2, 3, 4 } }, x[{ { 2, 3 } }]:totable())
    x[gq.tensor { false, true, true }] = gq.tensor { { 1 }, { 2 } }
    assert.same({ { 1, 1, 1, 1 }, { 2, 2, 2, 2 } }, x[{ { 2, 3 } }]:totable())
    x[int { 3, 1 }] = gq.zeros(4)
    assert.same({ 0, 0, 0, 0 }, x[1]:totable())
    local m = gq.tensor { true, false, true }
    m[m] = false
    assert.same({ false, false, false }, m:totable())
  end)

  it("refuse what makes no sense", function()
    local x = randn(3, 4)
    raises("mask of shape {2} {3, 4}", function() return x[gq.tensor { true, false }] end)
    raises("bool mask or int64", function() return x[gq.tensor { 1, 2 }] end)
    raises("out of range", function() return x[int { 4 }] end)
    raises("gq.where", gq.odeint, function(_, z) return z[z:gt(0)] end, x, { 0, 1 })
    raises("carries a gradient", function() x[x:gt(0)] = leaf(1):sum() end)
    raises("expand", function() x[x:gt(0)] = gq.zeros(2) end)
    raises("requires", function() local y = leaf(2) y[y:gt(0)] = 0 end)
  end)
end)

describe("tensors: drawn", function()
  it("randint includes both ends, normal_ and uniform_ draw in place", function()
    local x = gq.randint(-1, 2, 2000, { seed = 5 })
    assert.equal("int64", x.dtype)
    for v = -1, 2 do assert.is_true(math.abs(x:eq(v):to("float32"):mean():item() - 0.25) < 0.05) end
    assert.same(x:totable(), gq.randint(-1, 2, { 2000 }, { seed = 5 }):totable())
    assert.equal("float64", gq.randint(1, 6, 3, f64).dtype)
    assert.same({ 7, 7 }, gq.randint(7, 7, 2):totable())
    raises("2 to 1", gq.randint, 2, 1, 3)
    raises("first integer", gq.randint, 0.5, 1, 3)
    raises("unknown option", gq.randint, 0, 1, 3, { sed = 1 })
    local y = gq.zeros(4000)
    assert.equal(y, y:normal_(3, 2, { seed = 6 }))
    assert.is_true(math.abs(y:mean():item() - 3) < 0.15 and math.abs(y:std():item() - 2) < 0.1)
    y:uniform_(-1, 1)
    assert.is_true(y:min():item() >= -1 and y:max():item() <= 1 and math.abs(y:mean():item()) < 0.1)
    raises("requires", function() leaf(2):normal_() end)
  end)
end)

-- A result is no view of what it was made of where that had nothing to do, either.
describe("operations that find nothing to do", function()
  local results = {
    sum = function(x) return x[1][1][1]:sum() end, max = function(x) return x[1][1][1]:max() end,
    prod = function(x) return x:prod(1) end, logsumexp = function(x) return x[1][1][1]:logsumexp() end,
    cumsum = function(x) return x:cumsum(1) end, cumprod = function(x) return x:cumprod(2) end,
    flip = function(x) return x:flip {} end, roll = function(x) return x:roll(3, 3) end,
    pad = function(x) return gq.pad(x, { 0, 0 }) end, ["pad by nothing"] = function(x) return gq.pad(x, {}) end,
    upsample = function(x) return gq.upsample(x, 1) end,
    linear = function(x) return gq.upsample(x, 1, { mode = "linear" }) end,
    adaptive = function(x) return gq.adaptive_avg_pool1d(x, 3) end, diag = function(x) return x[1]:diag() end,
    pixel_shuffle = function(x) return gq.pixel_shuffle(x, 1) end,
  }
  for name, f in pairs(results) do
    it(name, function()
      local x = gq.ones({ 1, 1, 3 }, { requires_grad = true })
      local y = f(x)
      assert.same(x.shape, gq.grad(y:sum(), x).shape)
      y:detach():copy_(gq.zeros(y.shape))
      assert.same({ { { 1, 1, 1 } } }, x:totable())
    end)
  end

  it("views of no numbers lie anywhere", function()
    local x = gq.zeros(4, 0, 4)
    assert.same({ 0, 4 }, x[4].shape)
    assert.same({ 1, 1, 0, 4 }, x:unsqueeze(1)[{ {}, { 4, 4 } }].shape)
    x:unsqueeze(1)[{ 1, { 4, 4 } }] = 1
  end)

  it("flip says which dimension it misses", function()
    assert.truthy(helper.message(gq.flip, gq.ones(2, 2)):find("flip: which of the 2 dimensions?", 1, true))
    assert.truthy(helper.message(gq.flip, gq.ones(2, 2), { 1, 1 }):find("twice", 1, true))
    assert.same({ 2, 1 }, gq.tensor({ 1, 2 }):flip():totable())
  end)
end)

describe("tensors: linear algebra", function()
  local function spd(x) return x:matmul(x:transpose(-1, -2)) + gq.eye(x.shape[x:dim()], f64) end

  it("solves equations: A x = b, by batches and for vectors", function()
    local a, b = randn(3, 4, 4), randn(4, 2)
    local x = gq.solve(a, b)
    assert.same({ 3, 4, 2 }, x.shape)
    assert.close(a:matmul(x), b:expand(3, 4, 2):totable(), 1e-10, 1e-12)
    assert.same({ 3, 4 }, a:solve(b:t()[1]).shape)
    assert.close(a:matmul(a:solve(randn(3, 4)):unsqueeze(-1)):squeeze(-1), randn(3, 4):totable(), 1e-10, 1e-12)
    assert.close(gq.tensor({ { 2, 1 }, { 1, 3 } }):solve(gq.tensor { 3, 5 }), { 0.8, 1.4 }, 1e-6)
    assert.close(a:inverse():matmul(a), gq.eye(4, f64):expand(3, 4, 4):totable(), 0, 1e-12)
    local many = gq.cat({ a, a:narrow(1, 1, 1) }, 1)                -- as many matrices as rows
    assert.close(many:inverse():matmul(many), gq.eye(4, f64):expand(4, 4, 4):totable(), 0, 1e-12)
    assert.same({ 0, 2 }, gq.solve(gq.zeros(0, 0), gq.zeros(0, 2)).shape)
  end)

  it("determinants: 3 x 3 by its formula, products, permutations", function()
    local m = randn(3, 3):totable()
    local want = m[1][1] * (m[2][2] * m[3][3] - m[2][3] * m[3][2]) - m[1][2] * (m[2][1] * m[3][3] - m[2][3] * m[3][1])
      + m[1][3] * (m[2][1] * m[3][2] - m[2][2] * m[3][1])
    assert.close(randn(3, 3):det():item(), want, 1e-12)
    assert.close(gq.tensor({ { 0, 1, 0 }, { 0, 0, 1 }, { 1, 0, 0 } }):det():item(), 1)
    assert.close(gq.tensor({ { 0, 2 }, { 3, 0 } }):det():item(), -6)
    assert.equal(0, gq.zeros(2, 2):det():item())
    assert.same({ 5 }, randn(5, 3, 3):det().shape)
    assert.equal(1, gq.zeros(0, 0):det():item())
  end)

  it("the determinant's derivative is the cofactors, of singular matrices too, traced and not", function()
    -- {n, n} of a list: without row i and column j
    local function minor(a, i, j)
      local rows = {}
      for r, row in ipairs(a) do
        local left = table.move(row, 1, #row, 1, {})
        table.remove(left, j)
        if r ~= i then rows[#rows + 1] = left end
      end
      return #rows == 0 and 1 or gq.det(gq.tensor(rows, f64)):item()
    end
    local function cofactors(a)
      local c = {}
      for i in ipairs(a) do
        c[i] = {}
        for j in ipairs(a) do c[i][j] = (-1) ^ (i + j) * minor(a, i, j) end
      end
      return c
    end
    local function gradient(det, a, dtype)
      local x = gq.tensor(a, { dtype = dtype, requires_grad = true })
      return gq.grad((det(x) * 3):sum(), x) / 3
    end
    for _, a in ipairs { { { 0 } }, { { 5 } }, { { 0, 0 }, { 0, 0 } }, { { 1, 2 }, { 2, 4 } }, { { 0, 1 }, { 0, 0 } },
      { { 0, 1, 0 }, { 0, 0, 0 }, { 0, 0, 1 } }, { { 1, 2, 3 }, { 2, 4, 6 }, { 1, 0, 1 } }, { { 1, 1, 1 }, { 1, 1, 1 },
        { 1, 1, 1 } }, { { 0, 0, 2, 1 }, { 3, 0, 1, 1 }, { 0, 0, 4, 2 }, { 1, 0, 5, -1 } }, { { 0, 2, 0, 0 },
        { 0, 0, 3, 0 }, { 0, 0, 0, 4 }, { 0, 0, 0, 0 } }, { { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 10 } } } do
      local want = cofactors(a)
      for dtype, close in pairs { float64 = 1e-13, float32 = 1e-5 } do
        for _, det in ipairs { gq.det, gq.core.unrolled.det } do
          assert.close(gradient(det, a, dtype), want, close, close)
        end
      end
    end
    local some = { { { 1, 2 }, { 3, 4 } }, { { 1, 2 }, { 2, 4 } }, { { 0 / 0, 2 }, { 0, 0 } }, { { 2, 0 }, { 0, 1 } } }
    local got = gradient(gq.det, some, "float64"):totable()
    for _, i in ipairs { 1, 2, 4 } do assert.close(got[i], cofactors(some[i]), 1e-13, 1e-13) end
    assert.truthy(got[3][2][2] ~= got[3][2][2])
    raises("det: a matrix is singular create_graph", function()
      local x = gq.tensor({ { 1, 2 }, { 2, 4 } }, { dtype = "float64", requires_grad = true })
      gq.grad(x:det(), x, { create_graph = true })
    end)
  end)

  it("Cholesky factors and eigenvectors", function()
    local a = spd(randn(2, 5, 5))
    local l = a:cholesky()
    assert.close(l:matmul(l:transpose(2, 3)), a:totable(), 1e-12, 1e-12)
    assert.same(l:tril():totable(), l:totable())
    local w, v = a:eigh()
    assert.close(a:matmul(v), (v * w:unsqueeze(2)):totable(), 1e-10, 1e-10)
    assert.close(v:transpose(2, 3):matmul(v), gq.eye(5, f64):expand(2, 5, 5):totable(), 0, 1e-12)
    assert.is_true((w:narrow(2, 2, 4) - w:narrow(2, 1, 4)):min():item() >= 0)
    local e = gq.tensor({ { 2, 1 }, { 1, 2 } }):eigh()
    assert.close(e, { 1, 3 }, 1e-6)
  end)

  it("have derivatives of the first and second order", function()
    local a, b = randn(2, 3, 3) + 2 * gq.eye(3, f64), leaf(2, 3, 2)
    a.requires_grad = true
    smooth(gq.solve, a, b)
    smooth(gq.inverse, a)
    smooth(gq.det, a)
    smooth(function(x) return gq.cholesky(spd(x)) end, a)
    smooth(function(x) return (gq.eigh(spd(x))) end, a)
    smooth(function(x)
      local w, v = gq.eigh(spd(x))
      return v * v * w:unsqueeze(2)
    end, a)
    assert.close(gq.grad(gq.det(a):sum(), a), (gq.det(a):reshape(2, 1, 1) * gq.inverse(a):transpose(2, 3)):totable(),
      1e-10, 1e-12)
  end)

  it("say what is wrong", function()
    raises("solve: matrix 2 is singular", gq.solve, gq.stack { gq.eye(2), gq.ones(2, 2) }, gq.ones(2))
    raises("matrix 1 is not positive definite", gq.cholesky, -gq.eye(3))
    raises("symmetric matrices", gq.cholesky, gq.tensor { { 1, 2 }, { 0, 1 } })
    raises("not finite", gq.eigh, gq.full({ 2, 2 }, math.huge))
    raises("square matrices", gq.det, gq.zeros(2, 3))
    raises("square matrices", gq.inverse, gq.zeros(2, 2):to("int64"))
    raises("right-hand side with 2 rows", gq.solve, gq.eye(2), gq.ones(3, 1))
    raises("batches {2} and {3}", gq.solve, gq.zeros(2, 2, 2), gq.zeros(3, 2, 1))
    raises("trace = false", gq.odeint, function(_, z) return gq.eigh(z) end, gq.ones(9, 9), { 0, 1 })
    local a = leaf(2, 2)
    local before = gq.grad(gq.solve(a, gq.ones(2, f64)):sum(), a)[1]:totable()
    local y = gq.solve(a, gq.ones(2, f64)):sum()
    gq.no_grad(function() a[1] = 3 end)
    if gq.default_device() == "cpu" then raises("solve modified in place", y.backward, y)
    else assert.close(gq.grad(y, a)[1], before) end      -- of numbers that are its own
  end)

  it("are the same in dynamics with trace = false", function()
    local m = gq.tensor({ { 2, 0 }, { 0, 4 } }, f64)
    local z = gq.odeint(function(_, z) return -gq.solve(m, z) end, gq.ones(2, f64), { 0, 1 }, { trace = false,
      params = {} })
    assert.close(z[2], { math.exp(-0.5), math.exp(-0.25) }, 1e-5)
  end)
end)
