-- rounds_spec.lua -- fixed steps taken slice after slice, many to each (runtime/field/rounds.h): with two threads, and
-- slices, the same as with one, where they are taken one by one.

local gq = require "gq"
local helper = require "tests.helper"

local rows = 1500

local function with_threads(n, f)
  local before = gq.threads()
  gq.set_threads(n)
  local results = table.pack(pcall(f))
  gq.set_threads(before)
  assert(results[1], results[2])
  return table.unpack(results, 2, results.n)
end

-- What f returns with one thread, and with two.
local function both(f) return with_threads(1, f), with_threads(2, f) end

local function starts(low, high, dtype)
  local z0 = (gq.rand(rows, { seed = 4, dtype = dtype or "float64" }) * (high - low) + low):detach()
  z0.requires_grad = true
  return z0
end

local function numbers(x) return x:to("float64"):totable() end

local function sde(drift)
  return gq.sde { drift = drift, diffusion = function(_, z) return 0.1 * gq.cos(z) end, calculus = "stratonovich" }
end

-- Counts and times of a solve; its memory is another with other slices.
local function told(info)
  local t = {}
  for _, k in ipairs { "nfe", "nfe_backward", "steps", "steps_backward", "rejected", "t_reached", "status" } do
    t[k] = info[k] or false
  end
  return t
end

local function outcome(z0, z, info, engine)
  if engine == "none" then return { numbers(z), told(info) } end
  return { numbers(z), numbers(gq.grad({ (z * z):sum() }, { z0 })[1]), told(info) }
end

describe("steps of several slices", function()
  local off = { 0, 0.013, 0.013, 0.31, 0.5 }

  for _, dtype in ipairs { "float32", "float64" } do
    for method, engine in helper.each({ "reversible_heun", "heun", "srk", "milstein", "log_ode" },
        { "direct", "aca", "reversible", "adjoint", "none" }) do
      local inverse = engine == "reversible" and method ~= "reversible_heun"
      if not inverse and not (engine == "adjoint" and method == "srk") then
        it(("of an SDE by %s, %s, %s, are those of one"):format(method, engine, dtype), function()
          for _, times in ipairs { off, { 0.5, 0.2, 0 } } do
            local one, two = both(function()
              local z0 = starts(0.5, 1, dtype)
              local s = gq.sde { drift = function(t, z) return gq.sin(z) - z * t end,
                diffusion = function(_, z) return 0.1 * gq.cos(z) end,
                calculus = method == "srk" and "ito" or "stratonovich" }
              if method == "srk" and times ~= off then return {} end
              local path = { levy_area = (method == "srk" or method == "log_ode") and "space-time" or nil }
              path.t0, path.t1, path.shape, path.seed, path.dtype = 0, 0.5, { rows }, 3, dtype
              local z, info = gq.sdeint(s, z0, times, { dt = 0.01, method = method, gradient = engine,
                brownian = gq.brownian(path) })
              return outcome(z0, z, info, engine)
            end)
            assert.same(one, two)
          end
        end)
      end
    end
  end

  local ways = { { "rk4", "direct" }, { "rk4", "aca" }, { "rk4", "adjoint" }, { "euler", "none" }, { "alf", "mali" },
    { "reversible_heun", "reversible" }, { "midpoint", "direct" } }
  for _, way in ipairs(ways) do
    it(("of an ODE by %s, %s, are those of one"):format(way[1], way[2]), function()
      for _, grid in ipairs { false, { 0.2 } } do
        local one, two = both(function()
          local z0 = starts(0.5, 1)
          local z, info = gq.odeint(function(t, z) return gq.sin(z) - z * t end, z0, off,
            { method = way[1], gradient = way[2], step_size = 0.01, grid_points = grid or nil })
          return outcome(z0, z, info, way[2])
        end)
        assert.same(one, two)
      end
    end)
  end

  it("wait in room that is there once: what the way there took is not counted on the way back", function()
    local more = {}
    for i, method in ipairs { "dopri5", "rk4" } do                 -- by error estimates none wait on the way there
      more[i] = select(2, both(function()
        local z, info = gq.odeint(function(_, z) return -gq.sin(z) end, starts(0.5, 1), { 0, 0.5 },
          { gradient = "direct", method = method, step_size = method == "rk4" and 0.05 or nil, audit = false })
        local there = info.peak_bytes
        z:sum():backward()
        return info.peak_bytes - there
      end))
    end
    assert.is_true(more[1] > 2.5e5)                                -- the room is 256 KB
    assert.below(more[2], 2e5)
  end)

  it("accepted by an error estimate go back as those of one", function()
    local one, two = both(function()
      local z0 = starts(0.5, 1)
      local z = gq.odeint(function(t, z) return gq.sin(z) - z * t end, z0, off, { gradient = "direct", rtol = 1e-3 })
      return gq.grad({ (z * z):sum() }, { z0 })[1]
    end)
    assert.close(two, one, 1e-9)
  end)
end)

describe("a failure in a step of several slices", function()
  -- Of row 1200, which is in the second slice, and later of row 100.
  local function uneven(first, second, other)
    local z = {}
    for i = 1, rows do z[i] = i == 1200 and first or i == 100 and second or other end
    local z0 = gq.tensor(z, { dtype = "float64" })
    z0.requires_grad = true
    return z0
  end

  local function blows_up(_, z) return z * z * z end

  it("is told as in one, and so is what was reached", function()
    for _, engine in ipairs { "direct", "aca", "reversible", "adjoint", "none" } do
      local function solve(options)
        options.dt, options.method, options.gradient, options.seed = 0.01, "reversible_heun", engine, 1
        local times = { 0, 0.1, 0.2, 0.3, 1 }
        return gq.sdeint(sde(blows_up), uneven(3, 2.5, 0.1), times, options)
      end
      local one, two = both(function() return helper.message(solve, {}) end)
      assert.equal(one, two)
      assert.truthy(one:find("component 1200", 1, true), one)
      one, two = both(function()
        local z, info = solve { throw = false }
        return { tostring(z), told(info) }
      end)
      assert.same(one, two)
    end
  end)

  -- The inverse starts anew at each grid point: what it starts from is kept once, though these steps are taken twice.
  it("behind many grid points is that of one", function()
    local points = {}
    for i = 1, 63 do points[i] = i * 0.01 end
    local function late(t, z) return gq.where(t:lt(0.6), 0 * z, 1e308 * z * 10) end
    for _ = 1, 3 do
      local one, two = both(function()
        local z, info = gq.odeint(late, uneven(1, 0, 0), { 0, 0.64 },
          { method = "alf", step_size = 0.01, gradient = "mali", grid_points = points, throw = false })
        return { numbers(z[1]), told(info) }
      end)
      assert.same(one, two)
    end
  end)

  it("of a fixed grid of an ODE, too", function()
    local one, two = both(function()
      return helper.message(gq.odeint, blows_up, uneven(3, 2.5, 0.1), { 0, 0.5, 1 },
        { method = "rk4", step_size = 0.01, gradient = "direct" })
    end)
    assert.equal(one, two)
    assert.truthy(one:find("component 1200", 1, true), one)
  end)

  it("on the way back names the step", function()
    local function kinked(_, z) return 1 + gq.sqrt(gq.relu(z - 0.5) * (2 + z)) end
    for _, engine in ipairs { "direct", "aca", "reversible", "adjoint" } do
      local one, two = both(function()
        local z0 = uneven(0.3, 0.4, 1)
        local z = gq.sdeint(sde(kinked), z0, { 0, 0.1, 0.2, 0.4, 1 },
          { dt = 0.01, method = "reversible_heun", gradient = engine, seed = 1 })
        return helper.message(gq.grad, { z:sum() }, { z0 })
      end)
      assert.equal(one, two)
      assert.truthy(one:find("in the backward pass", 1, true) and one:find("not finite", 1, true), one)
    end
  end)

  it("is no other where there are too many steps", function()
    local one, two = both(function()
      return helper.message(gq.odeint, function(_, z) return -z end, starts(0.5, 1), { 0, 1 },
        { method = "rk4", step_size = 0.01, gradient = "direct", max_steps = 37 })
    end)
    assert.equal(one, two)
  end)
end)
