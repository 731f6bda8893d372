-- device_spec.lua -- where tensors live: moving them, what mixes, and that operations give on a second device (the
-- mirror: the CPU behind addresses that fault when read directly, whose memory starts as NaN) what they give on the
-- first, bit by bit.

local helper = require "tests.helper"
local gq = require "gq"

local raises = helper.raises

-- Programs in the cache hold memory at addresses that the leak checker does not take for pointers.
teardown(function()
  collectgarbage()
  collectgarbage()
  gq.core.plan_cache(false)
end)

local function same(a, b)
  assert.same(a.shape, b.shape)
  assert.equal(a.dtype, b.dtype)
  assert.same(a:totable(), b:totable())
end

-- f of tensors, and gradients in those that ask for one, on both devices.
local function on_both(f, ...)
  local results = {}
  for i, device in ipairs { "cpu", "mirror" } do
    local x, r = {}, { n = 0 }
    for k, t in ipairs { ... } do
      x[k] = t:detach():clone():to(device):detach()
      x[k].requires_grad = t.requires_grad
    end
    local y = f(table.unpack(x))
    assert.equal(device, y.device)
    if y.requires_grad then (y * y):sum():backward() end
    r[1] = y
    for _, t in ipairs(x) do
      if t.grad then
        assert.equal(device, t.grad.device)
        r[#r + 1] = t.grad
      end
    end
    results[i] = r
  end
  assert.equal(#results[1], #results[2])
  for i, t in ipairs(results[1]) do same(t, results[2][i]) end
end

local function leaf(shape, dtype)
  local x = gq.randn(shape, { dtype = dtype, seed = #shape * 7 + shape[1] })
  x.requires_grad = true
  return x
end

describe("devices", function()
  it("are listed, and named by their tensors", function()
    assert.equal("cpu mirror", (table.concat(gq.devices(), " "):gsub(" cuda", "")))   -- which a machine may have
    local x = gq.zeros(2, 3, { device = "mirror" })
    assert.equal("mirror", x.device)
    assert.equal("cpu", gq.zeros(2).device)
    assert.same({ { 0, 0, 0 }, { 0, 0, 0 } }, x:totable())
    assert.equal("mirror", gq.ones_like(x).device)
    assert.equal("mirror", gq.tensor(x).device)
    raises("tpu cpu mirror", gq.zeros, 2, { device = "tpu" })
    raises("tpu cpu mirror", x.to, x, "tpu")
  end)

  it("have a default, where constructors, files and modules put their tensors", function()
    assert.equal("cpu", gq.default_device())
    raises("set_default_device tpu cpu mirror", gq.set_default_device, "tpu")
    raises("set_default_device number cpu mirror", gq.set_default_device, 1)
    local name = os.tmpname()
    gq.save(name .. ".npy", gq.tensor { 1, 2 })
    gq.save(name .. ".safetensors", { x = gq.tensor { 1, 2 } })
    gq.set_default_device "mirror"
    local ok, message = pcall(function()
      for _, x in ipairs { gq.tensor { 1 }, gq.tensor(1), gq.zeros(2), gq.ones({ 2 }), gq.full({ 2 }, 3), gq.eye(2),
                           gq.arange(1, 3), gq.linspace(0, 1, 3), gq.rand(2), gq.randn(2), gq.randperm(3),
                           gq.load(name .. ".npy"), gq.load(name .. ".safetensors").x,
                           gq.nn.Linear(2, 2).weight } do
        assert.equal("mirror", x.device)
      end
      assert.equal("cpu", gq.zeros(2, { device = "cpu" }).device)
      assert.equal("cpu", gq.zeros_like(gq.zeros(2, { device = "cpu" })).device)
      assert.equal("cpu", gq.tensor(gq.zeros(2, { device = "cpu" })).device)
      assert.same({ 2, 4 }, gq.tensor({ 1, 2, 3, 4 }):index_select(1, gq.tensor { 2, 4 }):totable())
      assert.equal(1, gq.linspace(0, 1, 3)[3]:item())
      local t = gq.linspace(0, 1, 3, { dtype = "float32", requires_grad = true })
      gq.odeint(function(s, z) return z * s end, gq.ones(2), t, { gradient = "direct" }):sum():backward()
      assert.equal("mirror", t.grad.device)
      assert.equal("float32", t.grad.dtype)
    end)
    gq.set_default_device "cpu"
    for _, suffix in ipairs { "", ".npy", ".safetensors" } do os.remove(name .. suffix) end
    assert(ok, message)
    same(gq.randn(5, { seed = 3 }), gq.randn(5, { seed = 3, device = "mirror" }):to("cpu"))
  end)

  it("are known inside a traced function", function()
    local seen
    local z = gq.odeint(function(_, x)
      seen = { x.device, gq.zeros_like(x).device, gq.zeros(2, { device = x.device }).device }
      return -x:index_select(1, { 2, 1 }) + gq.ones(2, { device = x.device }) * 0
    end, gq.ones(2, { device = "mirror" }), { 0, 1 })
    assert.same({ "mirror", "mirror", "mirror" }, seen)
    assert.equal("mirror", z.device)
  end)

  it("are crossed before the solve by what wants a gradient: inside it was lost in silence", function()
    local k, z0 = gq.tensor({ 0.5 }, { requires_grad = true }), gq.ones(1, { device = "mirror" })
    local function slope(x) return function(_, z) return -x:to("mirror") * z end end
    raises("move what it captures before the solve", gq.odeint, slope(k), z0, { 0, 1 })
    local z = gq.odeint(slope(k:to("mirror")), z0, { 0, 1 }, { method = "euler" })
    assert.close(gq.grad(z[2]:sum(), k):item(), -1, 1e-6)
    assert.close(gq.odeint(slope(k:detach()), z0, { 0, 1 }, { method = "euler" })[2]:item(), 0.5, 1e-6)
  end)

  it("give their numbers to item, totable, print and indices", function()
    local x = gq.tensor({ { 1.5, 2 }, { 3, 4 } }, { device = "mirror" })
    assert.equal(1.5, x[{ 1, 1 }]:item())
    assert.equal("tensor({{1.5,   2},\n        {  3,   4}}, float32)", tostring(x))
    x[{ 1, 2 }] = 7
    assert.same({ { 1.5, 7 }, { 3, 4 } }, x:totable())
    x:copy_(gq.tensor({ 8, 9 }))
    assert.same({ { 8, 9 }, { 8, 9 } }, x:totable())
  end)

  it("take views, other dtypes and strides both ways", function()
    for _, dtype in ipairs { "float32", "float64", "int64", "bool" } do
      local x = gq.tensor({ { 1, 0, 3 }, { 4, 5, 0 } }, { dtype = "float64" }):to(dtype)
      local there = x:transpose(1, 2):to("mirror")
      assert.equal("mirror", there.device)
      same(x:transpose(1, 2), there:to("cpu"))
      same(x, there:transpose(1, 2):contiguous():to("cpu"))
      same(x:to("float32"), there:transpose(1, 2):to("float32"):to("cpu"))
    end
  end)

  it("are crossed by gradients", function()
    local x = gq.tensor({ 1, 2, 3 }, { requires_grad = true })
    local y = x:to("mirror")
    assert.equal(x, x:to("cpu"));
    (y * y):sum():backward()
    assert.equal("cpu", x.grad.device)
    assert.same({ 2, 4, 6 }, x.grad:totable())
    local g = gq.grad((y * y * y):sum(), x, { create_graph = true })
    assert.same({ 3, 12, 27 }, g:totable())
    assert.same({ 6, 12, 18 }, gq.grad(g:sum(), x):totable())
  end)

  it("let numbers of the CPU meet tensors anywhere, and nothing else", function()
    local x = gq.tensor({ 1, 2, 3 }, { device = "mirror" })
    local w = gq.tensor(2, { requires_grad = true })
    local y = (w * x):sum()
    assert.equal("mirror", y.device)
    y:backward()
    assert.equal("cpu", w.grad.device)
    assert.equal(6, w.grad:item())
    same((x + 1):to("cpu"), gq.tensor({ 2, 3, 4 }))
    raises("add mirror cpu x:to", function() return x + gq.ones(3) end)
    raises("add mirror cpu x:to", function() return gq.ones(3) + gq.tensor(1, { device = "mirror" }) end)
    raises("cat mirror cpu", gq.cat, { x, gq.ones(3) }, 1)
    raises("cotangent cpu mirror", function() (w * x):backward(gq.ones(3)) end)
    local far = gq.ones(2, { device = "mirror", requires_grad = true })
    raises("parameter mirror cpu", gq.optim.adam, { leaf { 2 }, far })
  end)

  it("are one for a solve: z0's, and what cannot run there is refused by name", function()
    local z = gq.ones(4, 2, { device = "mirror" })
    local function refused(words, o)
      raises(words .. " mirror cpu", gq.odeint, function(_, x) return -x end, z, { 0, 1 }, o)
    end
    refused("trace false", { trace = false })
    local w = gq.ones(2, { device = "mirror", requires_grad = true })
    raises("mirror cpu", gq.odeint, function(_, x) return x * w end, gq.ones(4, 2), { 0, 1 })
  end)
end)

describe("on another device", function()
  for _, dtype in ipairs { "float32", "float64" } do
    it("operations give the same bits, " .. dtype, function()
      local a, b, c = leaf({ 5, 4 }, dtype), leaf({ 4, 3 }, dtype), leaf({ 5, 1 }, dtype)
      on_both(function(x, y) return gq.softplus(x:matmul(y)) end, a, b)
      on_both(function(x, y) return gq.where(gq.gt(x, y), x, y * 2) end, a, c)
      on_both(function(x, y) return gq.cat({ x, y }, 2):sum(1) end, a, c)
      on_both(function(x) return x:max(2) + x:mean(2) end, a)
      on_both(function(x) return x:index_select(2, { 4, 1, 1 }):transpose(1, 2):reshape { 15 } end, a)
      on_both(function(x) return x[{ { 2, 4 }, 3 }]:exp() end, a)
      on_both(function(x) return x:argmax(2) end, a:detach())
    end)

    it("optimisers and clipping give the same bits, " .. dtype, function()
      for _, name in ipairs { "adam", "adamw", "sgd", "rmsprop" } do
        local at = {}
        for i, device in ipairs { "cpu", "mirror" } do
          local x = gq.randn({ 70 }, { dtype = dtype, seed = 3 }):to(device):detach()
          x.requires_grad = true
          local o = gq.optim[name]({ x }, { lr = 0.1 })
          for _ = 1, 3 do
            o:zero_grad();
            (x * x * x):sum():backward()
            gq.optim.clip_grad_norm({ x }, 0.5)
            o:step()
          end
          at[i] = x
        end
        assert.equal("mirror", at[2].device)
        same(at[1], at[2])
      end
    end)
  end

  -- Solution and gradients of a solve on one device, as tables.
  local function solved(device, dtype, rows, o)
    local w = gq.randn({ 3, 3 }, { seed = 1, dtype = dtype }):to(device):detach()
    local z = gq.randn({ rows, 3 }, { seed = 2, dtype = dtype }):to(device):detach()
    local t = gq.tensor({ 0, 0.3, 1, 1.5 }, { dtype = "float64", requires_grad = true })
    w.requires_grad, z.requires_grad = true, true
    local y = gq.odeint(function(s, x) return gq.tanh(x:matmul(w)) * (1 + s) - x end, z, t, o);
    (y * y):mean():backward()
    for _, x in ipairs { y, z.grad, w.grad } do assert.equal(device, x.device) end
    assert.equal("cpu", t.grad.device)
    return { y:totable(), z.grad:totable(), w.grad:totable(), t.grad:totable() }
  end

  for _, c in ipairs {
    { gradient = "direct" }, { gradient = "aca" }, { gradient = "seminorm" }, { gradient = "adjoint" },
    { gradient = "adjoint", adjoint = { trajectory = "reverse" } }, { gradient = "gq" },
    { gradient = "gq", gq = { paper = true } }, { gradient = "gq", adjoint = { trajectory = "checkpoint" } },
    { gradient = "check" }, { gradient = "gqc" }, { gradient = "kronrod" }, { gradient = "interpolated" },
    { gradient = "direct", memory_limit = 1000 }, { gradient = "gq", method = "dopri8" },
    { gradient = "direct", method = "rk4", step_size = 0.1 }, { gradient = "gq", method = "rk4", step_size = 0.1 },
    { gradient = "mali", method = "alf" }, { gradient = "reversible", method = "reversible_heun" },
    { gradient = "direct", batch = "independent" }, { gradient = "aca", batch = "independent" },
    { gradient = "gq", batch = "independent" }, { gradient = "check", batch = "independent" },
    { gradient = "gq", method = "implicit_adams" }, { gradient = "gq", method = "explicit_adams", step_size = 0.05 },
    { gradient = "direct", method = "kvaerno3" }, { gradient = "gq", method = "kvaerno5" },
    { gradient = "adjoint", method = "implicit_euler", step_size = 0.1 },
  } do
    local name = c.gradient .. " " .. (c.method or "dopri5") .. (c.gq and " paper" or "") ..
      (c.batch and " " .. c.batch or "") ..
      (c.adjoint and " " .. c.adjoint.trajectory or "") .. (c.memory_limit and " over its limit" or "")
    it("a solve and its gradients give the same bits: " .. name, function()
      for dtype, rows in helper.each({ "float32", "float64" }, { 4, 70 }) do
        assert.same(solved("cpu", dtype, rows, c), solved("mirror", dtype, rows, c))
      end
    end)
  end

  -- f(device) gives tables: the same on both devices.
  local function both(f) assert.same(f "cpu", f "mirror") end

  it("an SDE goes along the same path, with the same gradients", function()
    for _, c in ipairs { { "direct", "heun" }, { "aca", "euler" }, { "adjoint", "midpoint" }, { "aca", "srk" },
      { "reversible", "reversible_heun" } } do
      both(function(device)
        local w = gq.randn({ 2, 2 }, { seed = 1, device = device, requires_grad = true })
        local z0 = gq.ones(70, 2, { device = device, requires_grad = true })
        local calculus = (c[2] == "euler" or c[2] == "srk") and "ito" or "stratonovich"
        local sde = gq.sde { drift = function(t, z) return gq.tanh(z:matmul(w)) - z * t end, calculus = calculus,
          diffusion = function(_, z) return z * 0.3 end, noise = "diagonal" }
        local z = gq.sdeint(sde, z0, { 0, 0.3, 1 }, { dt = 0.05, seed = 4, method = c[2], gradient = c[1] })
        z:square():mean():backward()
        return { z:totable(), z0.grad:totable(), w.grad:totable() }
      end)
    end
  end)

  it("Brownian paths say where what is asked of them goes", function()
    local function path(o) return gq.brownian { shape = { 3 }, t1 = 1, seed = 2, levy_area = "foster", device = o } end
    local here, far = path(), path "mirror"
    assert.equal("cpu", here.device)
    assert.equal("mirror", far.device)
    assert.equal("mirror", far(0.3).device)
    same(here(0.3), far(0.3):to "cpu")
    for i, x in ipairs { far:areas(0.1, 0.4) } do same((select(i, here:areas(0.1, 0.4))), x:to "cpu") end
    raises("brownian gpu cpu", path, "gpu")
  end)

  local function there(x, device)
    x = x:to(device):detach()
    x.requires_grad = true
    return x
  end

  it("the solution as a function of time gives the same bits, with its gradients", function()
    for _, o in ipairs { {}, { method = "rk4", step_size = 0.05 }, { method = "dopri8" } } do
      both(function(device)
        local w, z = there(gq.randn({ 3, 3 }, { seed = 1 }), device), there(gq.randn({ 70, 3 }, { seed = 2 }), device)
        local _, _, at = gq.odeint(function(t, x) return gq.tanh(x:matmul(w)) * t - x end, z, { 0, 4 },
          helper.with(o, { dense = true, gradient = "direct" }))
        local t = gq.tensor({ 0.1, 3.2 }, { device = device, requires_grad = true })
        local y, slope = at(t), at:derivative(1)
        assert.equal(device, y.device)
        assert.equal(device, slope.device);
        (y:sum() + slope:sum()):backward()
        return { y:totable(), slope:totable(), w.grad:totable(), z.grad:totable(), t.grad:totable(), at.steps }
      end)
    end
  end)

  it("a state of several tensors gives the same bits, with parity too", function()
    for _, o in ipairs { {}, { parity = true } } do
      both(function(device)
        local w, z = there(gq.randn({ 3, 3 }, { seed = 1 }), device), there(gq.randn({ 70, 3 }, { seed = 2 }), device)
        local v = there(gq.ones { 70 }, device)
        local y, info = gq.odeint(function(_, x) return { gq.tanh(x[1]:matmul(w)), x[1]:sum(2) - x[2] } end, { z, v },
          { 0, 0.7, 1 }, helper.with(o, { gradient = "gq" }));
        (y[1]:sum() + y[2]:sum()):backward()
        return { y[1]:totable(), y[2]:totable(), w.grad:totable(), z.grad:totable(), v.grad:totable(), info.nfe }
      end)
    end
  end)

  -- Numbers of the CPU's go there one by one, so their gradients' sums have another order.
  it("second derivatives are the same to rounding, with times and numbers of the CPU's", function()
    local function solve(device)
      local w, z = there(gq.randn({ 3, 3 }, { seed = 1 }), device), there(gq.randn({ 4, 3 }, { seed = 2 }), device)
      local k = gq.tensor(0.5, { requires_grad = true })
      local t = gq.tensor({ 0, 0.4, 1 }, { dtype = "float64", requires_grad = true })
      local y = gq.odeint(function(s, x)
        return gq.cat({ x, (k * s):reshape(1, 1):expand(4, 1) }, 2):narrow(2, 2, 3):matmul(w):tanh()
      end, z, t, { gradient = "direct" })
      local g = gq.grad((y * y):sum(), { w, z, k, t }, { create_graph = true })
      local sum = (g[1] * g[1]):sum() + g[3] * g[3] + (g[4]:to(device):to("float32") ^ 2):sum()
      local h = gq.grad(sum, { w, z, k, t })
      for i, x in ipairs { w, z, k, t } do assert.equal(x.device, h[i].device) end
      return { g[2]:totable(), h[1]:totable(), h[2]:totable(), h[3]:item(), h[4]:totable() }
    end
    local here, far = solve "cpu", solve "mirror"
    for i, x in ipairs(here) do assert.below(helper.relative(far[i], x), 1e-6) end
  end)

  it("events give the same bits, with their gradients", function()
    for _, o in ipairs { {}, { method = "rk4", step_size = 0.05 }, { dense = true } } do
      for _, start in ipairs { 1, 0 } do                            -- 0: the event is zero where the solve begins
        both(function(device)
          local k, z = there(gq.tensor { 0.7, 1.1 }, device), there(gq.tensor { { start, 2 } }, device)
          local level = gq.tensor(0, { requires_grad = true })
          local function f(_, x) return gq.cat({ x:narrow(2, 2, 1), -x:narrow(2, 1, 1) }, 2) * k end
          local y, info, t = gq.odeint(f, z, { 0, 10 }, helper.with(o, { gradient = "direct",
            event = function(_, x) return x[{ 1, 1 }] - level end }))
          assert.equal(device, y.device);
          (y:sum() + t):backward()
          return { y:totable(), t:item(), info.nfe, k.grad:totable(), z.grad:totable(), level.grad:item() }
        end)
      end
    end
    local far, near = gq.ones(2, { device = "mirror" }), gq.ones(2)
    local function f(_, x) return -x end
    local function event(_, x) return (x * near):sum() - 1 end
    raises("captures cpu mirror", gq.odeint, f, far, { 0, 1 }, { event = event })
  end)

  it("rows that did not fail keep their gradients, the same bits", function()
    for _, gradient in ipairs { "direct", "gq" } do
      both(function(device)
        local k = there(gq.tensor { { 1 }, { 0.2 }, { 1 } }, device)
        local z = there(gq.tensor { { 1 }, { 1 }, { 0.1 } }, device)
        local y, info = gq.odeint(function(_, x) return k * x * x end, z, { 0, 0.5, 2 },
          { batch = "independent", gradient = gradient, throw = false, max_steps = 200 })
        gq.where(y:lt(1e30), y, 0):sum():backward()
        return { info.status, info.samples.status, y[2]:totable(), k.grad:totable(), z.grad:totable() }
      end)
    end
  end)

  it("images are moved there as here, and convolutional dynamics are solved by each engine", function()
    local set = { x = gq.rand({ 20, 2, 6, 6 }, { seed = 1 }), y = gq.randint(1, 4, 20, { seed = 2 }) }
    local moved = { x = set.x:to("mirror"), y = set.y:to("mirror") }
    local o = { batch_size = 8, shuffle = true, seed = 3, augment = { flip = true, crop = 2 } }
    local next_there = gq.data.batches(moved, o)
    for x, y in gq.data.batches(set, o) do
      local u, v = next_there()
      assert.same({ "mirror", "mirror" }, { u.device, v.device })
      same(x, u)
      same(y, v)
    end
    assert.is_nil(next_there())
    for _, engine in ipairs { "direct", "adjoint", "seminorm", "gq" } do
      local grads = {}
      for i, x in ipairs { set.x, moved.x } do
        local w = leaf({ 2, 2, 3, 3 }):to(x.device):detach()
        w.requires_grad = true
        local z = gq.odeint(function(_, z) return gq.conv2d(z, w, { padding = 1 }):tanh() end, x, { 0, 1 },
          { gradient = engine })
        z[2]:square():mean():backward()
        grads[i] = w.grad:to("cpu")
      end
      assert.close(grads[1], grads[2], 1e-4)
    end
  end)

  it("auto takes an engine that runs there", function()
    local z = gq.randn({ 4, 3 }, { seed = 2 }):to("mirror"):detach()
    z.requires_grad = true
    local y, info = gq.odeint(function(_, x) return -x end, z, { 0, 1 })
    assert.equal("direct", info.engine)
    y:sum():backward()
    assert.equal("mirror", z.grad.device)
  end)

  it("a gradient that is not finite is found", function()
    local x = leaf({ 3 }):to("mirror"):detach()
    x.requires_grad = true
    local o = gq.optim.sgd({ x }, { lr = 0.1 });
    (x / gq.tensor(0)):sum():backward()
    raises("finite", o.step, o)
  end)
end)
