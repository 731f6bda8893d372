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

describe("a device #gpu", function()
  for _, engine in ipairs { "direct", "aca", "adjoint", "gq" } do
    it("solves and differentiates as the CPU does, by " .. engine, function()
      for _, dtype in ipairs { "float32", "float64" } do
        local options = { gradient = engine, rtol = 1e-5, audit = false }
        local got, info = solve("cuda", 20, dtype, options)
        local want, cpu = solve("cpu", 20, dtype, options)
        local again = solve("cuda", 20, dtype, options)
        assert.equal("tiles", info.lowering)
        assert.is_true(math.abs(info.steps - cpu.steps) <= 1)
        for i, x in ipairs(want) do
          assert.is_true(helper.relative(got[i], x) < (dtype == "float32" and 1e-3 or 1e-6))
          assert.same(got[i]:totable(), again[i]:totable())
        end
      end
    end)
  end

  it("tells how long things take", function()
    local f = field("cuda", 20, "float32")
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
    local one = seconds(function()
      local x = z0
      for _ = 1, 100 do x = x * 1 end
      return x:sum():item()
    end)
    io.write(("\nan operation %.1f us, an attempt %.1f us\n"):format(one * 1e4, solved / attempts * 1e6))
    assert.is_true(solved > 0 and one > 0)
  end)
end)
