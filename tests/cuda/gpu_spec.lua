-- gpu_spec.lua -- what a device must show, by `make test-gpu`: the numbers of the CPU, the same bits twice, and how
-- long operations and attempts take. The emulator runs it too.

local helper = require "tests.helper"
local gq = require "gq"

local function field(device, width, dtype)
  local function weight(n, m, seed)
    return gq.randn({ n, m }, { seed = seed, dtype = dtype }):mul(1 / math.sqrt(n)):to(device)
  end
  local w = { weight(3, width, 1), weight(width, width, 2), weight(width, 3, 3) }
  for _, x in ipairs(w) do x.requires_grad = true end
  local function f(t, x) return gq.tanh(gq.softplus(x:matmul(w[1]) + t):matmul(w[2])):matmul(w[3]) end
  return f, w
end

local function solve(device, width, dtype, options)
  local f, w = field(device, width, dtype)
  local z0 = gq.randn({ 200, 3 }, { seed = 4, dtype = dtype }):to(device)
  local z, info = gq.odeint(f, z0, { 0, 0.4, 1 }, options)
  z:square():mean():backward()
  local out = { z:to("cpu") }
  for i, x in ipairs(w) do out[i + 1] = x.grad:to("cpu") end
  return out, info
end

-- Lotka-Volterra, each row with rates of its own.
local function rows(device, n, dtype, options)
  local function given(columns, seed)
    local x = (gq.rand({ n, columns }, { seed = seed, dtype = "float32" }) + 0.5):to(dtype):to(device)
    x.requires_grad = options.gradient ~= "none"
    return x
  end
  local z0, p = given(2, 1), given(4, 2)
  local z, info = gq.odeint(function(_, z)
    local x, y = z:narrow(2, 1, 1), z:narrow(2, 2, 1)
    local a, b, c, d = p:narrow(2, 1, 1), p:narrow(2, 2, 1), p:narrow(2, 3, 1), p:narrow(2, 4, 1)
    return gq.cat({ a * x - b * x * y, c * x * y - d * y }, 2)
  end, z0, { 0, 1.3, 6 }, options)
  if options.gradient == "none" then return { z:to("cpu") }, info end
  z:square():mean():backward()
  return { z:to("cpu"), z0.grad:to("cpu"), p.grad:to("cpu") }, info
end

-- The numbers and about the steps of the CPU, and the same bits twice.
local function agrees(run, size, options, lowering, steps)
  for _, dtype in ipairs { "float32", "float64" } do
    local got, info = run("cuda", size, dtype, options)
    local want, cpu = run("cpu", size, dtype, options)
    local again = run("cuda", size, dtype, options)
    assert.equal(lowering, info.lowering)
    assert.is_true(math.abs(info.steps - cpu.steps) <= steps)
    for i, x in ipairs(want) do
      assert.is_true(helper.relative(got[i], x) < (dtype == "float32" and 1e-3 or 1e-6))
      assert.same(got[i]:totable(), again[i]:totable())
    end
  end
end

describe("a device #gpu", function()
  for _, engine in ipairs { "direct", "aca", "adjoint", "gq" } do
    it("solves and differentiates as the CPU does, by " .. engine, function()
      agrees(solve, 20, { gradient = engine, rtol = 1e-5, audit = false }, "tiles", 1)
    end)
  end

  for _, engine in ipairs { "none", "direct", "aca", "gq" } do
    it("solves rows with steps of their own as the CPU does, by " .. engine, function()
      agrees(rows, 300, { gradient = engine, batch = "independent", rtol = 1e-5 }, "lanes", 3)
    end)
  end

  it("tells how long things take", function()
    local f, weights = field("cuda", 20, "float32")
    local z0 = gq.randn({ 2048, 3 }, { seed = 4 }):to("cuda")
    local function seconds(run)
      run()
      local start = gq.clock()
      run()
      return gq.clock() - start
    end
    local attempts
    local solved = seconds(function()
      local z, info = gq.odeint(f, z0, { 0, 10 }, { gradient = "none", rtol = 1e-6 })
      attempts = info.steps + info.rejected
      return z:sum():item()
    end)
    -- the way back by so many nodes
    local function back(nodes)
      local took, info
      for _ = 1, 2 do
        local z
        z, info = gq.odeint(f, z0, { 0, 10 }, { gradient = "gq", gq = { paper = true, nodes = nodes }, rtol = 1e-6 })
        local loss = z:square():mean()
        local start = loss:item() and gq.clock()
        loss:backward()
        weights[1].grad:sum():item()
        took = gq.clock() - start
      end
      return took, info.steps_backward + info.rejected_backward, info.nodes
    end
    local few, returned, some = back(8)
    local more, _, many = back(256)
    local one = seconds(function()
      local x = z0
      for _ = 1, 100 do x = x * 1 end
      return x:sum():item()
    end)
    local n = os.getenv "GQ_CUDA_EMULATOR" and 1000 or 1000000
    local apart = seconds(function() rows("cuda", n, "float32", { gradient = "none", batch = "independent",
      rtol = 1e-5 }) end)
    io.write(("\nan operation %.1f us, an attempt %.1f us, one of the way back %.1f us, a node %.1f us\n"):format(
      one * 1e4, solved / attempts * 1e6, few / returned * 1e6, (more - few) / (many - some) * 1e6))
    io.write(("%d Lotka-Volterra rows with steps of their own %.1f ms\n"):format(n, apart * 1e3))
    assert.is_true(solved > 0 and one > 0 and apart > 0 and many > some)
  end)
end)
