-- Reverse mode: accumulation, gq.grad, higher derivatives, saved values and versions, long chains, no_grad,
-- failures that leave everything as it was.

local gq = require "gq"
local raises = require("tests.helper").raises

local function leaf(t) return gq.tensor(t, { dtype = "float64", requires_grad = true }) end

describe("backward", function()
  it("adds to .grad", function()
    local x = leaf { 1, 2, 3 };
    (x * x):sum():backward()
    assert.same({ 2, 4, 6 }, x.grad:totable());
    (x * 2):sum():backward()
    assert.same({ 4, 6, 8 }, x.grad:totable())
    x.grad = nil
    assert.is_nil(x.grad)
    x:sum():backward()
    assert.same({ 1, 1, 1 }, x.grad:totable())
  end)

  it("adds in place, so that a flat block of gradients stays flat", function()
    local x = leaf { 1, 2 }
    local block = gq.zeros(4, { dtype = "float64" })
    x.grad = block[{ { 2, 3 } }];
    (x * 3):sum():backward()
    assert.same({ 0, 3, 3, 0 }, block:totable())
    x.grad = gq.zeros(2, 2, { dtype = "float64" }):t()[1];      -- not packed
    (x * 3):sum():backward()
    assert.same({ 3, 3 }, x.grad:totable())
  end)

  it("gives each leaf a gradient of its own", function()
    local x, y = leaf { 1, 2 }, leaf { 3, 4 }
    local c = gq.tensor({ 1, 1 }, { dtype = "float64" });
    (x + y):backward(c)
    x.grad[1] = 9
    assert.same({ 1, 1 }, y.grad:totable())
    assert.same({ 1, 1 }, c:totable())
    x.grad = nil
    x:sum():backward()                                          -- an expanded cotangent becomes packed
    x.grad[1] = 5
    assert.same({ 5, 1 }, x.grad:totable())
  end)

  it("takes a cotangent", function()
    local x = leaf { 1, 2 };
    (x * x):backward(gq.tensor({ 1, 10 }, { dtype = "float64" }))
    assert.same({ 2, 40 }, x.grad:totable())
    x.grad = nil;
    (x * x):backward(2)
    assert.same({ 4, 8 }, x.grad:totable())
    raises("one number {2} :sum()", function() (x * x):backward() end)
    raises("cotangent {3} {2}", function() (x * x):backward(gq.zeros(3, { dtype = "float64" })) end)
    raises("cotangent float32 float64", function() (x * x):backward(gq.zeros(2)) end)
    raises("tensor string", function() (x * x):backward("1") end)
  end)

  it("needs something that requires gradients", function()
    raises("requires_grad", function() gq.ones(1):backward() end)
    raises("requires_grad", function() leaf { 1 }:detach():backward() end)
    raises("requires_grad", function() leaf({ 1 }):to("int64"):backward() end)
    local x = leaf { 2 }
    x:backward()
    assert.same({ 1 }, x.grad:totable())
  end)

  it("can be done again, and through shared parts", function()
    local x = leaf { 2 }
    local y = x * x
    local z = y * y + y
    z:backward()
    assert.same({ 36 }, x.grad:totable())
    z:backward()
    assert.same({ 72 }, x.grad:totable())
    y:backward()
    assert.same({ 76 }, x.grad:totable())
  end)

  it("walks a million operations without recursion", function()
    local x = leaf(1.0)
    local y = x
    for _ = 1, 200000 do y = y * 1.00001 end
    y:backward()
    assert.close(x.grad, 1.00001 ^ 200000, 1e-9)
    y = nil                                                     -- luacheck: ignore
    collectgarbage()
    local list = {}
    for i = 1, 5000 do list[i] = x * i end
    x.grad = nil
    gq.stack(list):sum():backward()
    assert.close(x.grad, 5000 * 5001 / 2, 1e-12)
  end)

  it("does not reach past detach, no_grad and integers", function()
    local x = leaf { 1, 2 }
    assert.is_false(x:detach().requires_grad)
    assert.is_false(gq.no_grad(function() return x * 2 end).requires_grad)
    assert.is_false(x:gt(1).requires_grad)
    assert.is_false(x:to("int64").requires_grad)
    assert.is_true(x:to("float32").requires_grad)
    local s = (x:to("float32") * 2):sum()
    s:backward()
    assert.equal("float64", x.grad.dtype)
    assert.same({ 2, 2 }, x.grad:totable())
  end)

  it("gives zeros where the derivative is zero, and nothing to what the result is not made of", function()
    local x, unused = leaf { 2, -1 }, leaf { 1 }
    x:sign():sum():backward()
    assert.same({ 0, 0 }, x.grad:totable())
    assert.is_nil(unused.grad)
    local p, z0 = leaf { 3 }, leaf { 1 }
    local z = gq.odeint(function(_, z) return p:sign() * z end, z0, { 0, 1 }, { gradient = "direct" })
    z[2]:sum():backward()
    assert.same({ 0 }, p.grad:totable())
    assert.close(z0.grad, { math.exp(1) }, 1e-5)
    x.grad = nil;
    (x:sign() + x):sum():backward()
    assert.same({ 1, 1 }, x.grad:totable())
    x:floor():sum():backward()
    assert.same({ 1, 1 }, x.grad:totable())
  end)

  it("handles leaves that stop requiring gradients", function()
    local x, y = leaf { 1, 2 }, leaf { 3, 4 }
    local s = (x * y):sum()
    y.requires_grad = false
    s:backward()
    assert.same({ 3, 4 }, x.grad:totable())
    assert.is_nil(y.grad)
    raises("leaves", function() s.requires_grad = false end)
    raises("int64", function() gq.zeros(2, { dtype = "int64" }).requires_grad = true end)
    raises("boolean", function() x.requires_grad = 1 end)
    raises("shape", function() x.grad = gq.zeros(3, { dtype = "float64" }) end)
    raises("shape", function() x.grad = gq.zeros(2) end)
    raises("detach", function() x.grad = y:detach() * x end)
  end)
end)

describe("values saved for backward", function()
  it("are checked by version", function()
    local x = leaf { 1, 2 }
    for _, name in ipairs { "exp", "tanh", "sin", "square", "sqrt" } do
      local a = gq.ones(2, { dtype = "float64" })
      local s = (gq[name](x) * a):sum()
      a[1] = 3
      raises("modified in place", function() s:backward() end)
      assert.is_nil(x.grad)
    end
    local base = x:detach():clone()
    local w = leaf { 1, 1 }
    local s = (w * base[{ {} }]):sum()
    base[2] = 7                                       -- through another view of the same storage
    raises("modified in place mul", function() s:backward() end)
  end)

  it("are not looked at where the derivative does not need them", function()
    local x, a = leaf { 1, 2 }, gq.ones(2, { dtype = "float64" })
    local s = (x + a):reshape(2, 1):expand(2, 3):sum()
    a[1] = 5
    s:backward()
    assert.same({ 3, 3 }, x.grad:totable())
  end)

  it("are let go with the result", function()
    local x = gq.ones(1 << 16, { requires_grad = true })
    collectgarbage()
    local before = gq.memory()
    do
      local y = x
      for _ = 1, 20 do y = gq.tanh(y) end
      assert.is_true(gq.memory() - before >= 20 << 18)
      y = nil                                         -- luacheck: ignore
    end
    collectgarbage()
    assert.is_true(gq.memory() - before < 1 << 18)
    local y = x
    for _ = 1, 20 do y = y + 1 end                    -- sums keep nothing
    collectgarbage()
    assert.is_true(gq.memory() - before < 2 << 18)
    assert.is_true(y.requires_grad)
  end)
end)

describe("gq.grad", function()
  it("touches no .grad", function()
    local x, y = leaf { 1, 2 }, leaf { 3, 4 }
    local s = (x * y):sum()
    local g = gq.grad(s, x)
    assert.same({ 3, 4 }, g:totable())
    assert.is_false(g.requires_grad)
    local list = gq.grad({ s }, { x, y })
    assert.same({ 3, 4 }, list[1]:totable())
    assert.same({ 1, 2 }, list[2]:totable())
    assert.is_nil(x.grad)
    assert.is_nil(y.grad)
    list[1][1] = 100
    assert.same({ 3, 4 }, y:totable())
  end)

  it("takes results as inputs, several outputs and cotangents", function()
    local x = leaf { 1, 2 }
    local y = x * x
    local z = y * 3
    assert.same({ 3, 3 }, gq.grad(z:sum(), y):totable())
    assert.same({ 5, 6 }, gq.grad(z, y, { cotangents = gq.tensor({ 5 / 3, 2 }, { dtype = "float64" }) }):totable())
    assert.same({ 8, 16 }, gq.grad({ y, z }, x, { cotangents = { 1, 1 } }):totable())
    assert.same({ 1, 1 }, gq.grad(y, y, { cotangents = 1 }):totable())
    assert.same({ 2, 2 }, gq.grad({ y, y }, y, { cotangents = { 1, 1 } }):totable())
    raises("cotangents 2", gq.grad, { y, z }, x, { cotangents = { 1 } })
  end)

  it("gives zeros where nothing flows", function()
    local x, y = leaf { 1, 2 }, leaf { { 3 } }
    local list = gq.grad((x * 2):sum(), { x, y })
    assert.same({ { 0 } }, list[2]:totable())
    assert.same({ 0, 0 }, gq.grad(gq.sign(x):sum(), x):totable())
  end)

  it("refuses", function()
    local x = leaf { 1, 2 }
    raises("require a gradient", gq.grad, x:sum(), gq.ones(2))
    raises("require a gradient", gq.grad, gq.ones(1), x)
    raises("one number", gq.grad, x * 2, x)
    raises("inputs nil", gq.grad, x:sum())
    raises("outputs number", gq.grad, 3, x)
    raises("inputs", gq.grad, x:sum(), {})
    raises("create_graph", gq.grad, x:sum(), x, { creategraph = true })
  end)

  it("differentiates to any order", function()
    local x = leaf { 0.3, -0.7 }
    local want = { math.exp, math.exp, math.exp, math.exp }
    local y = gq.exp(x)
    for i = 1, 4 do
      y = gq.grad(y:sum(), x, { create_graph = true })
      assert.close(y, { want[i](0.3), want[i](-0.7) }, 1e-14)
    end
    local function nth(f, n)
      local d = f(x)
      for _ = 1, n do d = gq.grad(d:sum(), x, { create_graph = true }) end
      return d
    end
    assert.close(nth(function(v) return v ^ 5 end, 3), { 60 * 0.09, 60 * 0.49 }, 1e-12)
    assert.close(nth(gq.sin, 4), { math.sin(0.3), math.sin(-0.7) }, 1e-14)
    local t = (math.exp(0.6) - 1) / (math.exp(0.6) + 1)           -- tanh 0.3
    assert.close(nth(gq.tanh, 2)[1], -2 * t * (1 - t * t), 1e-13)
    local g = gq.grad((x ^ 3):sum(), x, { create_graph = true })
    assert.is_true(g.requires_grad);
    (g * g):sum():backward()                          -- d/dx (3x^2)^2
    assert.close(x.grad, { 36 * 0.3 ^ 3, 36 * -0.7 ^ 3 }, 1e-13)
  end)

  it("differentiates mixed partials", function()
    local x, y = leaf { 2.0 }, leaf { 3.0 }
    local f = (x ^ 2 * y ^ 3):sum()
    local fx = gq.grad(f, x, { create_graph = true })
    assert.close(gq.grad(fx, y), { 2 * 2 * 3 * 9 }, 1e-14)
    local h = gq.grad(gq.grad(f, y, { create_graph = true }), { x, y }, { create_graph = true })
    assert.close(h[1], { 108 }, 1e-14)
    assert.close(h[2], { 4 * 6 * 3 }, 1e-14)
  end)
end)

describe("no_grad", function()
  it("passes arguments and results", function()
    assert.same({ 1, 2, nil, 3 }, { gq.no_grad(function(...) return ... end, 1, 2, nil, 3) })
    assert.equal(0, select("#", gq.no_grad(function() end)))
    assert.is_true(gq.recording())
    gq.no_grad(function()
      assert.is_false(gq.recording())
      gq.no_grad(function() end)
      assert.is_false(gq.recording())
    end)
  end)

  it("switches recording on again after an error, which it passes on", function()
    local what = {}
    local ok, e = pcall(gq.no_grad, function() error(what) end)
    assert.is_false(ok)
    assert.equal(what, e)
    assert.is_true(gq.recording())
    raises("a function expected", gq.no_grad)
    assert.is_true(gq.recording())
    local co = coroutine.wrap(function() gq.no_grad(coroutine.yield) end)
    assert.has_error(co)
    assert.is_true(gq.recording())
  end)

  it("lets leaves be written", function()
    local w = leaf { 1, 2 }
    gq.no_grad(function() w[{}] = w - 0.5 end)
    assert.same({ 0.5, 1.5 }, w:totable())
    assert.is_true(w.requires_grad)
  end)
end)

if gq.debug then
  describe("a failing allocator", function()
    local function run()
      local x = leaf { { 0.1, 0.2 }, { 0.3, 0.4 } }
      local y = gq.cat({ x, x, x * 2, x:exp(), x:sin() }):matmul(x:t()):tanh()
      local g = gq.grad(y:sum(), x, { create_graph = true })
      local h = gq.grad((g * g):sum(), x);
      (y * y):mean():backward()
      local v, i = y:max(2)
      gq.core.trace(function(a) return (a * x * 7 + h):softplus():sum() end, { x })
      return { h, x.grad, v, i, y:prod(1), y[{ {}, 1 }]:totable(), tostring(y) }
    end
    for _, persistent in ipairs { false, true } do
      it("leaves an error and no leak" .. (persistent and ", again and again" or ""), function()
        run()
        collectgarbage()
        collectgarbage()
        local blocks, ok = gq.debug.live_blocks(), false
        for n = 0, 2000 do
          gq.debug.fail_alloc(n, persistent)
          local e
          ok, e = pcall(run)
          gq.debug.fail_alloc(-1, false)
          if not ok then assert.truthy(tostring(e):find("memory", 1, true), tostring(e)) end
          assert.is_true(gq.recording())
          e = nil                                       -- luacheck: ignore
          if ok and persistent then break end           -- the one that fails once may be tried again
          if n % 50 == 0 then
            collectgarbage()
            collectgarbage()
            assert.is_true(gq.debug.live_blocks() <= blocks)
          end
        end
        assert.is_true(ok)
        collectgarbage()
        collectgarbage()
        assert.is_true(gq.debug.live_blocks() <= blocks)
      end)
    end
  end)
end
