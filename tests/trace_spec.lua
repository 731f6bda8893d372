-- Tracing: what becomes an input, a constant or a capture; errors that leave no trace open; gradients inside a
-- trace; closures whose values change between solves.

local gq = require "gq"
local raises = require("tests.helper").raises

local zero, pair = gq.tensor(0.0), gq.tensor({ 0.5, -1 })

local function trace(f, ...)
  return gq.core.trace(f, { zero, pair }, ...)
end

describe("a trace", function()
  it("records every operation, also on captured tensors alone", function()
    local p = gq.tensor({ 1, 2, 3 })
    local text, captures = trace(function(_, z) return z * (-p:narrow(1, 1, 2)) end)
    assert.truthy(text:find("slice", 1, true))
    assert.truthy(text:find("neg", 1, true))
    assert.equal(1, #captures)
    assert.is_true(captures[1] == p)
  end)

  it("finds a captured tensor again, and keeps numbers apart", function()
    local p = gq.ones(2)
    local _, captures = trace(function(_, z) return (z + p) * p + 3.5 * z + 3.5 * z end)
    assert.equal(3, #captures)
    assert.is_true(captures[1] == p)
    assert.equal(3.5, captures[2]:item())
    assert.equal(3.5, captures[3]:item())
    _, captures = trace(function(_, z) return (2 * z - 1) * 0.5 + z * 0 + 1 + z:mean() end)
    assert.equal(0, #captures)
  end)

  it("has a structure that does not depend on captured values", function()
    local k, p = 3, gq.ones(2)
    local function f(t, z) return gq.tanh(z * k + p) * t end
    local a = trace(f)
    k, p = 7.25, gq.full({ 2 }, 5)
    assert.equal(a, (trace(f)))
  end)

  it("leaves what is made inside to be captured", function()
    local _, captures = trace(function(_, z)
      local m = gq.zeros(2)
      m[1] = 5
      return z + m
    end)
    assert.same({ 5, 0 }, captures[1]:totable())
  end)

  it("may return a captured tensor, and several results", function()
    local p = gq.ones(2)
    local text = trace(function() return p end)
    assert.truthy(text:find("return", 1, true))
    local a, b = gq.core.run(function(t, z) return z + t, z * z end, { gq.tensor(1.0), pair }, 2)
    assert.close(a, { 1.5, 0 })
    assert.close(b, { 0.25, 1 })
  end)

  it("shows shapes and dtypes of traced values", function()
    trace(function(t, z)
      assert.same({ 2 }, z.shape)
      assert.same({}, t.shape)
      assert.equal("float32", z.dtype)
      assert.equal(2, #z)
      assert.equal("traced tensor float32 {2}", tostring(z))
      assert.same({ 2, 1 }, z:unsqueeze(2).shape)
      return z
    end)
  end)
end)

describe("inside a trace", function()
  it("values cannot be looked at", function()
    raises("item gq.where trace false", trace, function(_, z) return z[1]:item() > 0 and z or -z end)
    raises("totable gq.where", trace, function(_, z) return z:totable() and z end)
    raises("gq.where", trace, function(t, z) return t < 1 and z or -z end)
    raises("gq.where", trace, function(t, z) return t <= 1 and z or -z end)
    raises("gq.where", trace, function(t, z) return 1 < t and z or -z end)
    local p = gq.ones(1)
    raises("gq.where", trace, function(_, z) return (p * 2):item() > 0 and z or -z end)
    assert.is_string((trace(function(_, z) return p:item() > 0 and z or -z end)))      -- a captured value is known
  end)

  it("values cannot be written, detached or differentiated backwards", function()
    raises("gq.where gq.cat", trace, function(_, z) z[1] = 0 return z end)
    raises("gq.where gq.cat", trace, function(_, z) z[{ {} }] = 0 return z end)
    local store = gq.zeros(2)
    raises("traced gq.where", trace, function(_, z) store[1] = z[1] return z end)
    raises("detach", trace, function(_, z) return z:detach() end)
    raises("no_grad", trace, function(_, z) return gq.no_grad(function() return z * 2 end) end)
    raises("gq.grad", trace, function(_, z) z:sum():backward() return z end)
    raises("requires_grad", trace, function(_, z) z.requires_grad = true return z end)
    raises("writes", trace, function(_, z)
      local y = z + store
      store[1] = 1
      return y
    end)
  end)

  it("no other solve can start", function()
    raises("traced already", trace, function(_, z) return gq.core.trace(function(x) return x end, { pair }) and z end)
    raises("traced", trace, function(_, z) return gq.odeint(function(_, y) return -y end, pair, { 0, 1 }) + z end)
    assert.is_string((trace(function(_, z) return z end)))
  end)

  it("results must be tensors", function()
    raises("must return a tensor nil", trace, function() end)
    raises("must return a tensor number", trace, function() return 3 end)
    raises("2 tensors result 2", trace, function(_, z) return z end, 2)
    raises("function or a module", trace, 3)
    raises("traced function", trace, nil)
  end)

  it("an error is passed on as it is, and the next trace works", function()
    local what = setmetatable({}, { __tostring = function() return "mine" end })
    local ok, e = pcall(trace, function() error(what) end)
    assert.is_false(ok)
    assert.equal(what, e)
    raises("broadcast", trace, function(_, z) return z + gq.ones(3) end)
    raises("yield", coroutine.wrap(function() trace(function(_, z) coroutine.yield() return z end) end))
    local text = trace(function(_, z)
      assert.is_false(pcall(gq.add, z, gq.ones(3)))          -- caught inside: the graph is not spoilt
      assert.is_false(pcall(z.reshape, z, 7))
      return z * 2
    end)
    assert.truthy(text:find("return", 1, true))
  end)

  it("a value that outlives its trace is refused", function()
    local kept
    trace(function(_, z) kept = z * 2 return z end)
    for _, f in ipairs {
      function() return kept + 1 end, function() return kept:sum() end, function() return kept[1] end,
      function() return gq.cat { kept, kept } end, function() return kept:reshape(1, 2) end,
      function() return trace(function(_, z) return z + kept end) end,
      function() return kept:backward() end,
      function() return gq.grad(kept:sum(), kept) end,
    } do
      raises("trace", f)
    end
    raises("traced", function() return kept:item() end)
    raises("traced", function() return kept:clone() + 1 end)
    assert.truthy(tostring(kept):find("traced", 1, true))
    assert.same({ 2 }, kept.shape)
  end)
end)

describe("gq.grad inside a trace", function()
  local function check(f, x, want)
    for _, how in ipairs { "plain", "program" } do assert.close(gq.core.run(f, { x }, 1, how), want, 1e-6) end
  end

  it("differentiates what is traced", function()
    check(function(z) return gq.grad((z ^ 2):sum(), z) end, pair, { 1, -2 })
    check(function(z) return gq.grad(z * 3, z, { cotangents = z }) end, pair, { 1.5, -3 })
    check(function(z)
      local g = gq.grad((z ^ 3):sum(), z, { create_graph = true })
      return gq.grad(g:sum(), z)
    end, pair, { 3, -6 })
    check(function(z) return gq.grad(gq.ones(2):sum() + 0 * z:sum(), z) end, pair, { 0, 0 })
  end)

  it("reaches captured tensors, and gives zeros elsewhere", function()
    local w, other = gq.tensor({ 2, 3 }, { requires_grad = true }), gq.ones(2)
    check(function(z)
      local list = gq.grad((z * w):sum(), { w, z, other })
      return list[1] + 10 * list[2] + list[3]
    end, pair, { 20.5, 29 })
    raises("one number", trace, function(_, z) return gq.grad(z, z) end)
    raises("cotangent", trace, function(_, z) return gq.grad(z, z, { cotangents = gq.ones(3) }) end)
  end)
end)

describe("a closure", function()
  local times = { 0, 1 }
  local opts = { method = "rk4", step_size = 0.05, gradient = "direct" }
  local function last(f, z0) return (gq.odeint(f, z0, times, opts))[2] end

  it("is read anew at every solve", function()
    local k, p, net = 1, gq.tensor({ 1.0 }), nil
    local function f(_, z) return (net and net(z) or -z) * k * p end
    local z0 = gq.ones(1)
    assert.close(last(f, z0), { math.exp(-1) }, 1e-5)
    k = 0.3
    assert.close(last(f, z0), { math.exp(-0.3) }, 1e-5)
    p[1] = 2
    assert.close(last(f, z0), { math.exp(-0.6) }, 1e-5)
    p = gq.tensor({ 0.25 })
    assert.close(last(f, z0), { math.exp(-0.075) }, 1e-5)
    net = function(z) return 2 * z end
    assert.close(last(f, z0), { math.exp(0.15) }, 1e-5)
  end)

  it("sends gradients to every captured tensor that requires them, leaf or not", function()
    local a = gq.tensor({ 0.5 }, { dtype = "float64", requires_grad = true })
    local b = a * 2                                             -- no leaf
    local z0 = gq.tensor({ 1.0 }, { dtype = "float64" })
    local z = last(function(_, y) return -b * y + a:narrow(1, 1, 1) * 0 end, z0)
    z:sum():backward()                                          -- z = exp(-2a): dz/da = -2 exp(-2a)
    assert.close(a.grad, { -2 * math.exp(-1) }, 1e-5)
  end)

  it("must return what z is", function()
    local z0 = gq.ones(2)
    raises("shape", last, function(_, z) return z:sum() end, z0)
    raises("float64", last, function(_, z) return z:to("float64") end, z0)
    raises("tensor", last, function() return 1 end, z0)
    raises("stop here", last, function() error("stop here") end, z0)
    assert.same({ 2 }, last(function(_, z) return -z end, z0).shape)
  end)
end)

describe("order and linear algebra inside dynamics", function()
  local f64 = { dtype = "float64" }

  -- dz/dt = k f(z), traced and called: states, and the gradients of z0 and k.
  local function both(f, z0)
    local results = {}
    for i, is_traced in ipairs { true, false } do
      local z, k = z0:clone():detach(), gq.tensor(0.3, { dtype = "float64", requires_grad = true })
      z.requires_grad = true
      local states = gq.odeint(function(_, y) return k * f(y) end, z, { 0, 0.4 }, { method = "rk4", step_size = 0.2,
        trace = is_traced, gradient = "direct", params = { k } })
      local last_state = states[2]
      gq.sum(last_state ^ 2):backward()
      results[i] = { last_state:totable(), z.grad:totable(), k.grad:item() }
    end
    return results
  end

  local function agree(name, f, z0)
    local r = both(f, z0)
    assert.close(r[1][1], r[2][1], 1e-10, 1e-12, name)
    assert.close(r[1][2], r[2][2], 1e-9, 1e-11, name)
    assert.close(r[1][3], r[2][3], 1e-9, 1e-11, name)
  end

  local general = gq.tensor({ { 1e-9, 2, 1 }, { 3, 1, -1 }, { 1, -1, 4 } }, f64)          -- no first pivot
  local batch = gq.randn({ 2, 4, 4 }, { dtype = "float64", seed = 3 }) + 2 * gq.eye(4, f64)

  it("gives what LAPACK and the sort do where f is called", function()
    local b = gq.randn({ 3, 2 }, { dtype = "float64", seed = 4 })
    agree("solve", function(z) return gq.cat({ gq.solve(z, b), z:narrow(2, 1, 1) }, 2) end, general)
    agree("solve, a vector", function(z) return z * gq.solve(z, b:narrow(2, 1, 1):squeeze(2)) end, general)
    agree("inverse", function(z) return z:inverse() end, batch)
    agree("det", function(z) return z * z:det():tanh():reshape(2, 1, 1) end, batch)
    agree("det", function(z) return z * gq.det(z) * 0.01 end, general)
    agree("cholesky", function(z) return gq.cholesky(z:matmul(z:transpose(-1, -2))) end, batch)
    for dim = 1, 3 do
      agree("sort", function(z) return z:sort(dim) * 2 + z:sort(dim, { descending = true }) end, batch)
    end
    agree("topk", function(z) return z * z:topk(2, 3):sum(3, true) end, batch)
    agree("argsort", function(z) return z * z:argsort(2):to("float64") end, batch)
  end)

  it("finds eigenvalues and eigenvectors, with derivatives of both orders", function()
    local function symmetric(x) return x + x:transpose(-1, -2) end
    for n = 1, 5 do
      local x = gq.randn({ 2, n, n }, { dtype = "float64", seed = n })
      agree("eigenvalues of " .. n, function(z)
        local w = gq.eigh(symmetric(z))
        return z * (w * w):sum(-1):reshape(2, 1, 1) * 0.1 - w:unsqueeze(-1)
      end, x)
      agree("eigenvectors of " .. n, function(z)
        local w, v = gq.eigh(symmetric(z))
        return v * v * w:unsqueeze(-2)
      end, x)
      local function second(eigh)
        local z = x:clone()
        z.requires_grad = true
        local w, v = eigh(symmetric(z))
        local g = gq.grad((v ^ 4 * w:unsqueeze(-2)):sum(), { z }, { create_graph = true })[1]
        return gq.grad((g * g):sum(), { z })[1]:totable()
      end
      assert.close(second(gq.eigh), second(gq.core.unrolled.eigh), 1e-7, 1e-8)
    end
  end)

  it("finds them of clusters, of low rank, of any size of number; vectors of equal ones have no derivative", function()
    local unrolled = gq.core.unrolled.eigh
    for n = 1, 8 do
      local g = gq.randn({ 20, n, n }, { dtype = "float64", seed = n })
      local q = select(2, gq.eigh(g + g:transpose(-1, -2)))
      local two = g:narrow(-1, 1, math.min(n, 2))
      for k, a in ipairs { gq.zeros(1, n, n, f64), gq.eye(n, f64):unsqueeze(1), gq.ones(1, n, n, f64),
        (q * gq.linspace(1, 3, n):to("float64"):floor()):matmul(q:transpose(-1, -2)), two:matmul(two:transpose(-1, -2)),
        (g + g:transpose(-1, -2)) * 1e-200 } do
        a = (a + a:transpose(-1, -2)) * 0.5
        local w, v = unrolled(a)
        local size = math.max(a:abs():max():item(), 1e-300)
        assert.close(w / size, (gq.eigh(a) / size):totable(), 0, 1e-13, n .. ", " .. k)
        assert.close(v:transpose(-1, -2):matmul(v), gq.eye(n, f64):expand(v.shape):totable(), 0, 1e-13)
        assert.close(a:matmul(v) / size, (v * (w / size):unsqueeze(-2)):totable(), 0, 1e-10, n .. ", " .. k)
      end
    end
    local same = gq.eye(3, { dtype = "float64", requires_grad = true })
    assert.close(gq.grad(unrolled(same):sum(), { same })[1], gq.eye(3, f64):totable(), 0, 1e-12)
    assert.truthy(gq.grad(select(2, unrolled(same))[{ 1, 1 }], { same })[1]:isnan():all():item())
  end)

  it("orders equal numbers and NaN as outside, and knows determinants of singular matrices", function()
    local x = gq.tensor({ 2, 0 / 0, 1, 2, -math.huge, 1, 0 / 0 }, f64)
    for _, falling in ipairs { false, true } do
      assert.same(x:argsort(1, { descending = falling }):totable(), gq.core.unrolled.argsort(x, falling):totable())
    end
    assert.equal(0, gq.core.unrolled.det(gq.tensor({ { 1, 2, 3 }, { 2, 4, 6 }, { 1, 0, 1 } }, f64)):item())
    assert.equal(0, gq.core.unrolled.det(gq.zeros(3, 3, f64)):item())
    assert.equal(-1, gq.core.unrolled.det(gq.tensor({ { 0, 1 }, { 1, 0 } }, f64)):item())
  end)

  it("says what has no traced form, or is too large for it", function()
    local function refused(message, f, z0)
      assert.error_matches(function() gq.odeint(function(_, z) return f(z) end, z0, { 0, 1 }) end, message)
    end
    refused("gq.eigh: 9 entries; .* at most 8: .*trace = false", function(z) return z * gq.eigh(z) end, gq.eye(9))
    refused("gq.solve: 40 entries; .* at most 32: .*trace = false", function(z) return gq.inverse(z) end, gq.eye(40))
    refused("gq.sort: 300 entries", function(z) return (z:sort()) end, gq.ones(300))
  end)

  it("is freed when a solve ends, not when the collector comes", function()
    local net, z0 = gq.nn.mlp { sizes = { 2, 8, 2 } }, gq.ones(3, 2)
    local function solve() gq.no_grad(gq.odeint, net, z0, { 0, 1 }) end
    local function growth(n)
      local before = gq.memory()
      for _ = 1, n do solve() end
      return gq.memory() - before
    end
    solve()
    collectgarbage("collect")
    collectgarbage("stop")
    local each = growth(20) / 20       -- the results, and handles of traced values
    collectgarbage("restart")
    assert.truthy(each < 5000, each)
  end)
end)

describe("captured tensors", function()
  it("keep their gradients in a clone, which lost them in silence, and are sorted", function()
    local k = gq.tensor({ 0.5, -0.3 }, { dtype = "float64", requires_grad = true })
    for what, f in next, {
      clone = function() return k:clone() end, moved = function() return (k * 2):clone():flip(1) end,
      contiguous = function() return k:unsqueeze(1):t():contiguous():reshape(2) end,
      sort = function() return (k:sort()) * gq.tensor({ 1, 3 }, { dtype = "float64" }) end,
      topk = function() return (k:topk(1)) * 2 end,
    } do
      for _, traced in ipairs { true, false } do
        local z = gq.odeint(function(_, z) return f():sum() * z end, gq.ones(1, { dtype = "float64" }), { 0, 1 },
          { method = "euler", gradient = "direct", trace = traced, params = not traced and { k } or nil })
        assert.close(gq.grad(z[2]:sum(), k), gq.grad(f():sum(), k), 1e-14, 1e-14, what)
      end
    end
    -- what needs no gradient may be written to
    local z = gq.odeint(function(_, z)
      local b = k:detach():clone()
      b[1] = 4
      return b:sum() * z
    end, gq.ones(1, { dtype = "float64" }), { 0, 1 }, { method = "euler" })
    assert.close(z[2], { 4.7 }, 1e-14)
  end)
end)

describe("what looks at numbers before it computes", function()
  it("does without where dynamics are traced, over captured tensors too", function()
    local f64 = { dtype = "float64" }
    local w, list = gq.randn({ 4, 2 }, { dtype = "float64", seed = 5, requires_grad = true }), { 1, 3, 2 }
    local p, a, layer = w:detach():sigmoid(), gq.eye(2, f64) * 2 + 0.5, gq.nn.Embedding(4, 2, { dtype = "float64" })
    local rows = gq.tensor(list, { dtype = "int64" })
    for what, f in next, {
      embedding = function(_, z) return gq.embedding(rows, w) * z end,
      list = function(_, z) return gq.embedding({ list }, w)[1] * z end,
      module = function(_, z) return layer(rows) * z + w[rows] end,
      bce_loss = function(_, z) return gq.bce_loss(p, p) * z * w[rows] end,
      cholesky = function(_, z) return z:matmul(gq.cholesky(a)) * w[rows] end,
      eigh = function(_, z) return z * gq.eigh(a) * w[rows] end,
    } do
      local z0 = gq.ones(3, 2, f64)
      local z = gq.odeint(f, z0, { 0, 1 }, { method = "euler", gradient = "direct" })
      assert.close(z[2], (z0 + f(0, z0)):detach(), 1e-14, 1e-14, what)
      assert.close(gq.grad(z[2]:sum(), w), gq.grad(f(0, z0):sum(), w), 1e-14, 1e-14, what)
    end
    assert.has_error(function()
      gq.odeint(function(_, z) return gq.embedding({ 1, 7 }, w):sum() * z end, gq.ones(1, f64), { 0, 1 })
    end)
  end)
end)
