-- memory_spec.lua -- out of memory at every allocation of the runtime (debug builds, where gq.debug can
-- set the trap): an error, nothing lost, and the next call works. c/luaalloc_test.c does the same to
-- Lua's allocator, and in every build.

local gq = require "gq"
local scenarios = dofile("tests/scenarios.lua")

local function settle()
  collectgarbage()
  collectgarbage()
  gq.core.plan_cache(false)           -- compiled solvers are kept otherwise
end

-- One run with the trap after n allocations: did it succeed, what did it say, was the trap reached?
local function trapped(f, n, persistent)
  settle()
  local blocks, before = gq.debug.live_blocks(), gq.debug.alloc_count()
  gq.debug.fail_alloc(n, persistent)
  local ok, message = pcall(f, gq)
  local reached = gq.debug.alloc_count() - before > n
  gq.debug.fail_alloc(-1)
  settle()
  return ok, message, reached, gq.debug.live_blocks() - blocks
end

local function every_allocation(name, f, persistent)
  settle()
  f(gq)
  local n, failures = 0, 0
  repeat
    local ok, message, reached, leaked = trapped(f, n, persistent)
    local where = ("%s, allocation %d"):format(name, n)
    assert.equal(0, leaked, where)
    if not ok then
      failures = failures + 1
      assert.truthy(tostring(message):find("memory", 1, true), where .. ": " .. tostring(message))
      assert.truthy(reached, where .. ": " .. tostring(message))
    end
    n = n + 1 + n // 100              -- every one of the first hundred, then fewer
  until not reached
  return failures
end

describe("out of memory in", function()
  for _, scenario in ipairs(scenarios) do
    for _, persistent in ipairs { false, true } do
      it(scenario[1] .. (persistent and ", from then on" or ", once"), function()
        if not gq.debug then
          pending("gq.debug is there in debug and asan builds only")
          return
        end
        local failures = every_allocation(scenario[1], scenario[2], persistent)
        if persistent then assert.truthy(failures > 0) end
      end)
    end
  end
end)

-- A further backward pass solves again; one that fails on the way leaves nothing that a third would take for whole.
describe("out of memory in a second backward pass", function()
  for _, engine in ipairs { "direct", "aca", "gqc", "kronrod" } do
    it("leaves the third right, by " .. engine, function()
      if not gq.debug then
        pending("gq.debug is there in debug and asan builds only")
        return
      end
      local f64 = { dtype = "float64" }
      local w, z0 = gq.tensor({ 0.7, -0.4 }, f64), gq.ones(9, 2, f64)
      w.requires_grad = true
      local z = gq.odeint(function(t, y) return gq.tanh(y * w) + t end, z0, { 0, 1 }, { gradient = engine })
      local loss = z[2]:sum()
      local first = gq.grad(loss, { w })[1]:totable()
      for n = 0, 120, 3 do
        gq.debug.fail_alloc(n, false)
        pcall(gq.grad, loss, { w })
        gq.debug.fail_alloc(-1)
        assert.same(first, gq.grad(loss, { w })[1]:totable())
      end
    end)
  end
end)

-- Memory that is found after a collection: the solve goes on, or begins anew, and its numbers are the same.
describe("an allocation that fails once and is made up for", function()
  for _, way in ipairs { { "aca", "alf" }, { "aca", "dopri5" }, { "reversible", "alf" }, { "gq", "dopri5" } } do
    it("does not change a bit, by " .. way[1] .. " with " .. way[2], function()
      if not gq.debug then
        pending("gq.debug is there in debug and asan builds only")
        return
      end
      gq.manual_seed(3)
      local net = gq.nn.mlp { sizes = { 2, 5, 2 }, activation = "tanh", time = true }
      local leaves = net:parameters()
      leaves[#leaves + 1] = gq.randn({ 3, 2 }, { seed = 4 })
      leaves[#leaves].requires_grad = true
      local function run()
        local z = gq.odeint(net, leaves[#leaves], { 0, 0.7, 1.5 },
          { gradient = way[1], method = way[2], audit = false })
        local numbers = { z:totable() }
        for i, g in ipairs(gq.grad((z * z):sum(), leaves)) do numbers[1 + i] = g:totable() end
        return numbers
      end
      local want, recovered, n = run(), 0, 0
      repeat
        local before = gq.debug.alloc_count()
        gq.debug.fail_alloc(n, false)
        local ok, got = pcall(run)
        local reached = gq.debug.alloc_count() - before > n
        gq.debug.fail_alloc(-1)
        if ok then assert.same(want, got, "allocation " .. n) end
        if ok and reached then recovered = recovered + 1 end
        n = n + 1 + n // 100
      until not reached
      assert.truthy(recovered > 20)
    end)
  end
end)
