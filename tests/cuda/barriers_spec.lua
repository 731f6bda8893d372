-- barriers_spec.lua -- what barriers of CUDA's kernels are for: the emulator watches who of a block reads and writes
-- what (races.c). No two threads meet in one interval; each barrier is between two that would.

local helper = require "tests.helper"

local temporary = os.tmpname()
os.remove(temporary)
teardown(function() os.remove(temporary) end)

local function run(environment, script)
  helper.write(temporary, script)
  return (helper.output(("env GQ_EMU=races GQ_CUDA_CACHE= %s '%s' %s"):format(environment, helper.gqlua, temporary)))
end

local problem = [[
  local gq = require "gq"
  local function leaf(n, m, seed) return gq.randn({ n, m }, { seed = seed, device = "cuda", requires_grad = true }) end
  local a, b, c = leaf(2, 20, 1), leaf(20, 2, 2), leaf(%d, 2, 3)
  local z, info = gq.odeint(function(t, x) return gq.tanh(x:matmul(a) + t):matmul(b) + c end, c:detach() * 2,
    { 0, 0.4, 1 }, %s)
  z:square():sum():backward()
  print(info.lowering, z:sum():item(), a.grad:sum():item(), b.grad:sum():item(), c.grad:sum():item())
]]
local together = problem:format(70, '{ gradient = "direct", max_steps = 50 }')
local back = problem:format(40, '{ gradient = "gq", max_steps = 50 }')
local apart = problem:format(40, '{ gradient = "direct", batch = "independent", max_steps = 50 }')
local nodes = problem:format(40, '{ gradient = "gq", batch = "independent", gq = { guards = false }, max_steps = 50 }')
local small = [[
  local gq = require "gq"
  local function leaf(n, m, seed) return gq.randn({ n, m }, { seed = seed, device = "cuda", requires_grad = true }) end
  local z0, c = leaf(40, 2, 1), leaf(40, 2, 2)
  local z, info = gq.odeint(function(t, z)
    return (gq.cat({ z:narrow(2, 2, 1), z:narrow(2, 1, 1) * t }, 2) * c):sin()
  end, z0, { 0, 0.4, 1 }, { gradient = "direct", batch = "independent", max_steps = 50 })
  z:square():sum():backward()
  print(info.lowering, z:sum():item(), z0.grad:sum():item(), c.grad:sum():item())
]]

-- By one node the diagonals of rows' systems are zero, and their rows change places.
local systems = [[
  local gq = require "gq"
  local z0 = gq.randn({ 3, 3 }, { seed = 1, device = "cuda", requires_grad = true })
  for nodes = 1, 2 do
    local z, info = gq.odeint(function(t, z) return z * 2 + z:flip({ 2 }) end, z0, { 0, 1, 3 },
      { gradient = "gqc", method = "rk4", step_size = 1, gq = { nodes = nodes } })
    z:square():sum():backward()
    print(info.lowering, z0.grad:sum():item())
  end
]]

-- Lines of a kernel's barriers that some thread would miss.
local function lines(text, kernel)
  local all = {}
  for line in text:gmatch("races: " .. kernel .. ": the barrier of line (%d+)[^\n]* needed\n") do
    all[#all + 1] = line
  end
  return all
end

-- spare_: so many of a kernel that no thread would miss.
local function holds(script, environment, kernels, spare_)
  local text = run(environment, script)
  assert.truthy(text:find "\nraces: 0\n", text)
  for kernel, least in pairs(kernels) do
    local _, needless = text:gsub("races: " .. kernel .. ": the barrier[^\n]*needless", "")
    assert.is_true(needless <= (spare_ and spare_[kernel] or 0), text)
    assert.is_true(#lines(text, kernel) >= least, text)
  end
end

describe("barriers", function()
  it("of attempts and of whole solves of rows are needed, and suffice", function()
    holds(together, "", { attempt = 25 })
    holds(apart, "", { lanes = 40, direct = 55 })
    holds(small, "", { lanes = 5, direct = 5 })  -- a thread a row
    holds(nodes, "", { adjoint = 45 }, { adjoint = 1 }) -- a thread has a point, where there are as many
    holds(back, "", { along = 25 })
    holds(systems, "", { gauss_f32 = 11 })
  end)

  it("of other methods, numbers and engines suffice #slow", function()
    for _, o in ipairs {
      '{ gradient = "aca", method = "fehlberg2", rtol = 1e-4 }', '{ gradient = "gq" }', '{ gradient = "seminorm" }',
      '{ gradient = "direct", batch = "independent", method = "dopri8" }',
      '{ gradient = "aca", batch = "independent", method = "rk4", step_size = 0.2 }',
    } do
      for _, tiles in ipairs { "", "GQ_CUDA_TILES=2" } do holds(problem:format(40, o), tiles, {}) end
      holds((problem:format(40, o):gsub('device = "cuda"', 'device = "cuda", dtype = "float64"')), "", {})
    end
    holds(problem:format(600, '{ gradient = "direct", max_steps = 50 }'), "GQ_CUDA_TILES=2", {}) -- sums of 300 blocks
  end)

  it("that are left out are missed #slow", function()
    for kernel, script in pairs { attempt = together, along = back, lanes = apart, direct = apart,
      adjoint = nodes } do
      for _, line in ipairs(lines(run("", script), kernel)) do
        local text = run(("GQ_EMU_KERNEL=%s GQ_EMU_BARRIER=%s timeout 60"):format(kernel, line), script)
        assert.falsy(text:find "\nraces: 0\n", kernel .. " without the barrier of line " .. line)
      end
    end
  end)
end)
