-- Reductions, activations and losses against closed forms, and their derivatives of first and second order.

local gq = require "gq"
local assert = require "luassert"
local helper = require "tests.helper"

local function f64(t) return gq.tensor(t, { dtype = "float64" }) end
local function randn(...) return gq.randn({ ... }, { dtype = "float64", seed = 7 }) end

describe("moments", function()
  it("var and std are unbiased unless told otherwise", function()
    local x = f64 { { 1, 2, 4 }, { 3, 3, 3 } }
    assert.close(x:var(-1), { 7 / 3, 0 }, 1e-14)
    assert.close(x:std(2), { math.sqrt(7 / 3), 0 }, 1e-14)
    assert.close(x:var(2, { correction = 0 }), { 14 / 9, 0 }, 1e-14)
    assert.same({ 1, 1 }, x:var(nil, true).shape)
    assert.close(x:var(), 16 / 15, 1e-14)
    assert.same({ 3 }, x:std({ 1 }).shape)
    assert.close(x:var { correction = 0 }, 16 / 18, 1e-14)
  end)

  it("equal samples have exactly zero deviation, whatever their size", function()
    for _, v in ipairs { 0.1, -2.7182817, 1e8, 3e-30 } do
      local x = gq.full({ 3, 45 }, v)
      assert.same({ 0, 0, 0 }, x:std(-1):totable())
      local fit = gq.normal_fit(x)
      assert.same(x[{ {}, 1 }]:totable(), fit.mean:totable())
    end
  end)

  it("a large mean costs no digits", function()
    local x = f64 { 1e8 + 1, 1e8 + 2, 1e8 + 3 }
    assert.close(x:var(), 1, 1e-12)
  end)

  it("the derivative of std is zero where std is zero", function()
    local x = gq.full({ 4 }, 0.3)
    x.requires_grad = true
    x:std():backward()
    assert.same({ 0, 0, 0, 0 }, x.grad:totable())
  end)

  it("one sample and none have no variance, and NaN stays NaN", function()
    local v = f64({ 5 }):var():item()
    assert.is_true(v ~= v)
    local e = gq.zeros({ 2, 0 }, { dtype = "float64" }):var(2)
    assert.same({ 2 }, e.shape)
    local s = f64({ 1, 0 / 0, 2 }):std():item()
    assert.is_true(s ~= s)
  end)

  it("wrong arguments are errors that say so", function()
    local x = f64 { 1, 2 }
    assert.has_error(function() x:var(3) end, "var: dimension 3 of a tensor of 1 dimensions")
    assert.has_error(function() x:var(1, 2) end, "var: keepdim is true or false, got number 2")
    assert.error_matches(function() x:std(1, true, { corection = 0 }) end, "did you mean 'correction'")
    assert.error_matches(function() gq.var(3) end, "tensor expected, got number 3")
    assert.error_matches(function() gq.tensor({ 1, 2 }, { dtype = "int64" }):var() end, "float tensor expected")
  end)
end)

describe("softmax and logsumexp", function()
  it("agree with their definitions", function()
    local x = f64 { { 0, 1, 2 }, { -1, 0.5, 3 } }
    local e = x:exp()
    assert.close(x:softmax(), e / e:sum(-1, true), 1e-14)
    assert.close(x:softmax(1), e / e:sum(1, true), 1e-14)
    assert.close(x:log_softmax(), (e / e:sum(-1, true)):log(), 1e-13)
    assert.close(x:logsumexp(2), e:sum(2):log(), 1e-14)
    assert.close(x:logsumexp(), e:sum():log(), 1e-14)
    assert.same({ 2, 1 }, x:logsumexp(-1, true).shape)
  end)

  it("go over all dimensions where none is named, as sums do", function()
    local x = randn(3, 4)
    for _, name in ipairs { "logsumexp", "var", "std", "mean" } do assert.close(x[name](x, {}), x[name](x), 0, 0) end
  end)

  it("do not overflow, and know infinities", function()
    local x = f64 { { 1000, 1001 }, { -1e4, -1e4 } }
    assert.close(x:logsumexp(2), { 1001 + math.log(1 + math.exp(-1)), -1e4 + math.log(2) }, 1e-14)
    assert.close(x:softmax()[2], { 0.5, 0.5 }, 1e-14)
    assert.same(math.huge, f64({ 1, math.huge }):logsumexp():item())
    assert.same(-math.huge, f64({ -math.huge, -math.huge }):logsumexp():item())
    assert.same(-math.huge, gq.zeros({ 0 }, { dtype = "float64" }):logsumexp():item())
  end)
end)

describe("norm", function()
  it("is the p-norm", function()
    local x = f64 { { 3, -4 }, { 0, 0 } }
    assert.close(x:norm(), 5, 1e-14)
    assert.close(x:norm(2, -1), { 5, 0 }, 1e-14)
    assert.close(x:norm(1, 2), { 7, 0 }, 1e-14)
    assert.close(x:norm(math.huge, 2), { 4, 0 }, 1e-14)
    assert.close(x:norm(3, 2), { (27 + 64) ^ (1 / 3), 0 }, 1e-14)
    assert.error_matches(function() x:norm(-1.5) end, "p is a positive number")
    assert.error_matches(function() x:norm(0) end, "p is a positive number")
  end)

  it("takes dimensions as the other reductions do, where they can be no p", function()
    local x = gq.randn({ 2, 3, 4 }, { dtype = "float64", seed = 1 })
    local want = (x * x):sum(2):sqrt()
    assert.close(x:norm(2, true), want:unsqueeze(2), 1e-14)
    assert.close(x:norm({ 2 }), want, 1e-14)
    assert.close(x:norm(-2), want, 1e-14)
    assert.close(x:norm(-2, true), want:unsqueeze(2), 1e-14)
    assert.close(x:norm({ 1, 3 }, true), (x * x):sum({ 1, 3 }, true):sqrt(), 1e-14)
  end)

  it("has derivative zero at zero", function()
    for _, p in ipairs { 1, 2, 3, math.huge } do
      local x = gq.zeros({ 3 }, { dtype = "float64", requires_grad = true })
      x:norm(p):backward()
      assert.same({ 0, 0, 0 }, x.grad:totable())
    end
  end)
end)

describe("activations", function()
  it("agree with their formulas", function()
    local list = { -30, -1.5, -0.2, 0, 0.3, 2, 40 }
    local x = f64(list)
    local function each(f)
      local t = {}
      for i, v in ipairs(list) do t[i] = f(v) end
      return t
    end
    assert.close(x:elu(), each(function(v) return v > 0 and v or math.exp(v) - 1 end), 1e-12, 1e-15)
    assert.close(x:elu(0.5), each(function(v) return v > 0 and v or 0.5 * (math.exp(v) - 1) end), 1e-12, 1e-15)
    assert.close(x:leaky_relu(), each(function(v) return v > 0 and v or 0.01 * v end), 1e-14)
    assert.close(x:silu(), each(function(v) return v / (1 + math.exp(-v)) end), 1e-12, 1e-15)
    assert.close(gq.gelu(f64 { 0, 1, -1 }), { 0, 0.8413447460685429, -0.15865525393145707 }, 1e-12)
  end)

  it("take a number as the operations do, and what a call leaves behind x", function()
    for _, name in ipairs { "tanh", "softplus", "elu", "gelu", "silu", "leaky_relu" } do
      assert.close(gq[name](-0.5), gq[name](gq.tensor(-0.5)), 0, 0)
    end
    local function solve() return f64 { 1 }, { status = "ok" } end
    for _, name in ipairs { "tanh", "softplus", "gelu", "silu" } do
      assert.close(gq[name](solve()), gq[name](f64 { 1 }), 0, 0)
    end
  end)

  it("large values do not spoil the derivative", function()
    local x = f64 { -1000, 1000 }
    x.requires_grad = true
    x:elu():sum():backward()
    assert.same({ 0, 1 }, x.grad:totable())
  end)

  it("take no other library's options", function()
    local x = f64 { 0.5, -1 }
    helper.raises("softplus takes one tensor, and knows no option: got table", gq.softplus, x, { beta = 2 })
    helper.raises("relu takes one tensor, and knows no option: got table", gq.relu, x, { inplace = true })
    helper.raises("gelu takes one tensor, and knows no option: got table", gq.gelu, x, { approximate = "tanh" })
    helper.raises("elu: option alpha: a number or a tensor expected", gq.elu, x, { alpha = 2 })
    helper.raises("leaky_relu: option slope: a number or a tensor expected", gq.leaky_relu, x, "0.1")
    assert.close(gq.softplus(x, { nfe = 3 }), gq.softplus(x), 0)   -- info behind the z of a solve
  end)

  it("elu has the derivative of its lower branch at 0", function()
    local x = gq.tensor({ 0, -0.0, 1 }, { dtype = "float64", requires_grad = true })
    local y = gq.elu(x, 1.7)
    assert.same({ 0, 0, 1 }, y:totable())
    assert.same({ 1.7, 1.7, 1 }, gq.grad(y:sum(), { x })[1]:totable())
  end)
end)

describe("trigonometry", function()
  local list = { -1e30, -20, -1, -0.999, -0.3, -1e-9, 0, 1e-9, 0.3, 0.999, 1, 20, 1e30 }
  local exact = { atan = math.atan, asin = math.asin, acos = math.acos,
    sinh = function(x) return x == 0 and 0 or math.abs(x) < 1e-5 and x or (math.exp(x) - math.exp(-x)) / 2 end,
    cosh = function(x) return (math.exp(x) + math.exp(-x)) / 2 end }
  for name, f in pairs(exact) do
    it(name .. " has the values of its closed form, and the derivatives", function()
      local x = {}
      for _, v in ipairs(list) do
        if (name ~= "asin" and name ~= "acos") or math.abs(v) <= 1 then x[#x + 1] = v end
      end
      local y = gq[name](f64(x)):totable()
      for i, v in ipairs(x) do
        local want = f(v)
        local near = y[i] == want or math.abs(y[i] - want) <= 4e-15 * math.abs(want)
        assert.is_true(near, ("%s of %s: %s"):format(name, v, y[i]))
      end
      helper.checkgrad(gq[name], gq.rand({ 2, 3 }, { dtype = "float64", seed = 3 }) * 1.8 - 0.9)
    end)
  end

  it("sinh and cosh keep small slopes, and overflow with what they are", function()
    local x = gq.tensor({ 1e-5, 88.9 }, { requires_grad = true })
    assert.close(x:cosh(), { 1, 2.03118e38 }, 1e-4)
    assert.close(x:sinh(), { 1e-5, 2.03118e38 }, 1e-4)
    assert.close(gq.grad(x:cosh()[1], x)[1], 1e-5, 1e-5)
  end)

  it("atan2 is the angle in every quadrant, and on the axes", function()
    local y, x = {}, {}
    for i = -2, 2 do
      for j = -2, 2 do y[#y + 1], x[#x + 1] = i * 0.7, j end
    end
    local angle = gq.atan2(f64(y), f64(x)):totable()
    for i = 1, #y do assert.close(angle[i], math.atan(y[i], x[i]), 1e-15) end
    helper.checkgrad(gq.atan2, randn(3, 4), randn(4))
  end)

  it("atan2 reads signs of zeros and infinities as C's", function()
    local y, x = {}, {}
    for _, a in ipairs { -0.0, 0.0, 1, -1, math.huge, -math.huge } do
      for _, b in ipairs { -0.0, 0.0, 1, -1, math.huge, -math.huge } do y[#y + 1], x[#x + 1] = a, b end
    end
    local angle = gq.atan2(f64(y), f64(x)):totable()
    for i = 1, #y do
      local want = math.atan(y[i], x[i])
      assert.close(angle[i], want, 1e-15)
      assert.same(1 / want < 0, 1 / angle[i] < 0)
    end
  end)

  it("slopes of arcs are infinite at their ends", function()
    for name, sign in pairs { asin = 1, acos = -1 } do
      local x = gq.tensor({ -1, 0, 1 }, { dtype = "float64", requires_grad = true })
      assert.same({ sign * math.huge, sign, sign * math.huge }, gq.grad(gq[name](x):sum(), x):totable())
    end
  end)

  it("arcs are NaN where there are none", function()
    assert.is_true(gq.asin(f64 { 1.5 }):isnan():item() and gq.acos(f64 { -1.5 }):isnan():item())
  end)
end)

describe("losses", function()
  it("mse_loss", function()
    local x, y = f64 { 1, 2, 3 }, f64 { 1, 4, 6 }
    assert.close(gq.mse_loss(x, y), 13 / 3, 1e-14)
    assert.close(x:mse_loss(y, { reduction = "sum" }), 13, 1e-14)
    assert.same({ 0, 4, 9 }, gq.mse_loss(x, y, { reduction = "none" }):totable())
    assert.error_matches(function() gq.mse_loss(x, x:unsqueeze(2)) end, "shapes {3} and {3, 1} differ")
    assert.error_matches(function() gq.mse_loss(x, y, { reduction = "avg" }) end, "option reduction: one of mean, sum")
  end)

  it("cross_entropy counts labels from 1", function()
    local logits = f64 { { 0, 1, 2 }, { 3, 0, 0 } }
    local function row(a, b, c, i)
      return math.log(math.exp(a) + math.exp(b) + math.exp(c)) - ({ a, b, c })[i]
    end
    local want = { row(0, 1, 2, 3), row(3, 0, 0, 2) }
    assert.close(gq.cross_entropy(logits, { 3, 2 }, { reduction = "none" }), want, 1e-14)
    assert.close(gq.cross_entropy(logits, gq.tensor({ 3, 2 }, { dtype = "int64" })), (want[1] + want[2]) / 2, 1e-14)
    assert.has_error(function() gq.cross_entropy(logits, { 0, 1 }) end)
    assert.has_error(function() gq.cross_entropy(logits, { 4, 1 }) end)
    assert.error_matches(function() gq.cross_entropy(logits, { 1, 2, 3 }) end, "labels {...} expected")
    assert.error_matches(function() gq.cross_entropy(logits, f64 { 1, 2 }) end, "labels are int64")
  end)

  it("gaussian_kl is that of the fitted normals", function()
    local x, y = randn(4, 3, 9), randn(4, 3, 9) * 1.3 + 0.2
    local m, s, n, r = x:mean(-1), x:std(-1) + 1e-9, y:mean(-1), y:std(-1) + 1e-9
    local kl = (r / s):log() + (s * s + (m - n) * (m - n)) / (r * r * 2) - 0.5
    assert.close(gq.gaussian_kl(x, y), kl:mean(), 1e-11)
    assert.close(gq.gaussian_kl(x, gq.normal_fit(y)), kl:mean(), 1e-11)
    assert.close(gq.gaussian_kl(x, y, { reduction = "none" }), kl, 1e-10)
    assert.close(gq.gaussian_kl(x:permute(3, 1, 2), y:permute(3, 1, 2), { dim = 1 }), kl:mean(), 1e-11)
    assert.close(gq.gaussian_kl(x, x), 0, 0, 1e-14)
    assert.error_matches(function() gq.gaussian_kl(x:unsqueeze(-1), y:unsqueeze(-1)) end, "two samples or more")
    assert.error_matches(function() gq.gaussian_kl(x, y:narrow(1, 1, 1), { dim = 1 }) end, "has 1")
  end)

  it("gaussian_kl counts the first time as zero, in the value and in the gradient", function()
    local x, y = gq.randn({ 4, 3, 9 }, { seed = 1 }), gq.randn({ 4, 3, 9 }, { seed = 2 })
    x[1], y[1] = 0.1, 0.1
    local all = gq.gaussian_kl(x, y, { reduction = "none" })
    x.requires_grad = true
    local kl = gq.gaussian_kl(x, y, { time = 1 })
    assert.close(kl, all[{ { 2, 4 } }]:sum() / 12, 1e-6)
    kl:backward()
    assert.same(0, x.grad[1]:abs():max():item())
    assert.is_true(x.grad[2]:abs():max():item() > 0)
  end)

  it("gaussian_kl of samples without spread is large but finite, with finite gradients", function()
    local x, y = gq.full({ 5, 8 }, 0.25), gq.randn({ 5, 8 }, { seed = 2 })
    x.requires_grad = true
    local kl = gq.gaussian_kl(x, y)
    assert.is_true(kl:item() > 10 and kl:item() < 30)
    kl:backward()
    assert.is_true(x.grad:abs():max():item() < 10)
  end)
end)

describe("normal_fit", function()
  -- by the operations that it stands for; the weights make both results count
  local function loss(mean, std, seed)
    local w = gq.randn(mean.shape, { dtype = mean.dtype, seed = seed })
    return (w * mean * mean):sum() + (w:sin() * std * std * std):sum()
  end

  it("is mean and std in one operation, with their derivatives", function()
    for _, case in ipairs { { { 9 }, 1 }, { { 3, 1 }, 2 }, { { 5, 2 }, 1 }, { { 7, 45 }, -1 }, { { 4, 8, 3 }, 2 },
      { { 33, 70, 17 }, 3 }, { { 0, 4 }, 2 } } do
      for _, dtype in ipairs { "float32", "float64" } do
        local shape, dim, close = case[1], case[2], dtype == "float32" and 2e-5 or 1e-12
        local x = gq.randn(shape, { dtype = dtype, seed = 4, requires_grad = true })
        local fit = gq.normal_fit(x, dim)
        assert.close(fit.mean, x:mean(dim), close, close)
        if shape[dim] == 1 then
          assert.is_true(fit.std:ne(fit.std):all():item())
        else
          assert.close(fit.std, x:std(dim), close)
          local got = gq.grad(loss(fit.mean, fit.std, 5), { x })[1]
          assert.close(got, gq.grad(loss(x:mean(dim), x:std(dim), 5), { x })[1], close, 3 * close)
        end
      end
    end
  end)

  it("takes one of its results alone, and no notice of another", function()
    local x = randn(6, 5)
    x.requires_grad = true
    for _, key in ipairs { "mean", "std" } do
      local got = gq.grad(gq.normal_fit(x)[key]:sum(), { x }, { create_graph = true })[1]
      local want = gq.grad(x[key](x, -1):sum(), { x }, { create_graph = true })[1]
      assert.close(got, want, 1e-12)
      if key == "std" then
        assert.close(gq.grad((got ^ 3):sum(), { x })[1], gq.grad((want ^ 3):sum(), { x })[1], 1e-11)
      end
    end
  end)

  it("refuses samples that were written to before the backward pass", function()
    local leaf = randn(6, 5)
    leaf.requires_grad = true
    local kl = gq.gaussian_kl(leaf, randn(6, 5))
    gq.no_grad(function() leaf[1] = 0 end)
    assert.error_matches(function() kl:backward() end, "modified in place")
  end)

  it("serves inside dynamics", function()
    local z0 = gq.randn({ 4, 3 }, { dtype = "float64", seed = 2 })
    local z = gq.odeint(function(_, z) return gq.normal_fit(z).std:unsqueeze(-1) - z * 0 end, z0, { 0, 1 })
    assert.close(z[2], z0 + z0:std(-1, true), 1e-6)
  end)
end)

describe("derivatives", function()
  local x = randn(3, 4)
  local other = gq.randn({ 3, 4 }, { dtype = "float64", seed = 8 })
  local functions = {
    var = function(a) return a:var(1) end,
    std = function(a) return a:std(-1) end,
    logsumexp = function(a) return a:logsumexp(2) end,
    softmax = function(a) return a:softmax() end,
    log_softmax = function(a) return a:log_softmax(1) end,
    norm = function(a) return a:norm(2, 1) end,
    ["norm 3"] = function(a) return a:norm(3) end,
    elu = function(a) return a:elu() end,
    gelu = function(a) return a:gelu() end,
    silu = function(a) return a:silu() end,
    leaky_relu = function(a) return a:leaky_relu() end,
    mse_loss = function(a) return gq.mse_loss(a, other) end,
    cross_entropy = function(a) return gq.cross_entropy(a, { 1, 4, 2 }) end,
    gaussian_kl = function(a) return gq.gaussian_kl(a, other) end,
    ["gaussian_kl, second argument"] = function(a) return gq.gaussian_kl(other, a) end,
  }
  for name, f in pairs(functions) do
    it("of " .. name, function()
      local ok, report = gq.checkgrad(f, { x }, { order = 2 })
      assert.is_true(ok, report.message)
    end)
  end

  it("checkgrad finds a wrong one", function()
    local ok, report = gq.checkgrad(function(a) return a * a:detach() end, { x })
    assert.is_false(ok)
    assert.matches("input 1, entry 1", report.message)
    assert.error_matches(function() gq.checkgrad(gq.exp, { gq.randn(2) }) end, "float64 tensor expected")
    assert.error_matches(function() gq.checkgrad(true, f64 { 1 }) end, "f must be a function or a module, got boolean")
  end)
end)
