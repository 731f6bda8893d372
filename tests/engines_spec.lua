-- engines_spec.lua -- what aca and check add to the engines they stand on.

local gq = require "gq"

local a = gq.tensor(0.7, { requires_grad = true, dtype = "float64" })
local function field(t, z) return a * z + gq.sin(3 * t) end

local function gradients(options, t)
  local z0 = gq.full({ 40, 2 }, 1.5, { dtype = "float64", requires_grad = true })
  t = gq.tensor(t or { 0, 0.4, 1.5, 2 }, { dtype = "float64", requires_grad = true })
  local z, info = gq.odeint(field, z0, t, options)
  return gq.grad((z * z):sum(), { a, z0, t }), info
end

describe("aca", function()
  for _, method in ipairs { "dopri5", "tsit5", "dopri8", "bosh3", "rk4", "euler" } do
    it("gives direct's gradients to the last bit, " .. method, function()
      local options = { method = method, rtol = 1e-4, atol = 1e-4, gradient = "direct" }
      if method == "rk4" or method == "euler" then options.step_size = 0.1 end
      local direct = gradients(options)
      options.gradient = "aca"
      local aca, info = gradients(options)
      for i = 1, 3 do assert.same(direct[i]:totable(), aca[i]:totable()) end
      assert.is_true(info.nfe_backward > 0)
    end)
  end

  it("keeps less than direct", function()
    local _, direct = gradients({ gradient = "direct", rtol = 1e-8, atol = 1e-8 })
    local _, aca = gradients({ gradient = "aca", rtol = 1e-8, atol = 1e-8 })
    assert.is_true(aca.peak_bytes < direct.peak_bytes / 2)
  end)

  it("can be differentiated again", function()
    local z = gq.odeint(field, gq.ones(3, 1, { dtype = "float64" }), { 0, 1 },
      { gradient = "aca", rtol = 1e-9, atol = 1e-9 })
    local first = gq.grad(z[2]:sum(), a, { create_graph = true })
    assert.is_true(gq.grad(first, a):item() > 0)
  end)
end)

describe("check", function()
  -- z' = -z + theta sin(w t): the solves never see w where theta = 0, eq. (9) cannot know
  local function audit(w)
    local theta = gq.tensor(0, { requires_grad = true, dtype = "float64" })
    local z, info = gq.odeint(function(t, z) return theta * gq.sin(w * t) - z end, gq.ones(1, { dtype = "float64" }),
      { 0, 10 }, { gradient = "check", rtol = 1e-3, atol = 1e-3 })
    z[2]:sum():backward()
    return info.audit, theta.grad:item()
  end

  it("raises the alarm where eq. (9) asks for too few nodes, and only there", function()
    assert.is_true(audit(0.5) < 0.01)
    assert.is_true(audit(2) > 0.5)
    assert.is_true(audit(100) > 0.5)
  end)

  it("returns the gradient at twice the nodes", function()
    local options = { gradient = "check", rtol = 1e-6, atol = 1e-6, gq = { nodes = 3 } }
    local checked, info = gradients(options)
    local finer = gradients({ gradient = "gq", rtol = 1e-6, atol = 1e-6, gq = { nodes = 6 } })
    for i = 1, 3 do assert.same(finer[i]:totable(), checked[i]:totable()) end
    assert.is_true(info.audit > 0)
    assert.equal(3 * 6, info.nodes)
  end)
end)

describe("trajectory = checkpoint", function()
  local function options(trajectory, checkpoints, more)
    -- eq. (9) would count the evaluations of a dense forward solve's interpolants
    local o = { rtol = 1e-8, atol = 1e-8, adjoint = { trajectory = trajectory, checkpoints = checkpoints },
      gq = { nodes = "step" } }
    for k, v in pairs(more or {}) do o[k] = v end
    return o
  end

  it("gives the gradients of a dense trajectory to the last bit, whatever the budget, method and engine", function()
    for _, more in ipairs { {}, { method = "dopri8" }, { method = "bosh3" }, { method = "rk4", step_size = 0.01 },
      { gradient = "adjoint" }, { gradient = "seminorm" }, { gradient = "check" } } do
      for _, t in ipairs { { 0, 0.4, 1.5, 2 }, { 0, -0.7, -0.7, -2 }, { 0, 0, 2 } } do
        local dense = gradients(options("dense", nil, more), t)
        for _, checkpoints in ipairs { 2, 3, 7, 1000 } do
          local few, info = gradients(options("checkpoint", checkpoints, more), t)
          for i = 1, 3 do assert.same(dense[i]:totable(), few[i]:totable()) end
          assert.is_true(info.nfe_backward > 0)
        end
      end
    end
  end)

  it("keeps much less than a dense trajectory of many steps", function()
    local steps = { method = "bosh3", rtol = 1e-10, atol = 1e-10, gradient = "seminorm" }
    local _, dense = gradients(options("dense", nil, steps), { 0, 2 })
    local _, few = gradients(options("checkpoint", 24, steps), { 0, 2 })
    assert.is_true(dense.steps > 300)
    assert.is_true(few.peak_bytes < dense.peak_bytes / 3, ("%d of %d"):format(few.peak_bytes, dense.peak_bytes))
  end)

  it("joins moments", function()
    local t = {}
    for i = 0, 40 do t[i + 1] = i / 20 end
    local function moments(trajectory)
      return gradients(options(trajectory, 3, { adjoint = { trajectory = trajectory, checkpoints = 3,
        impulses = "moments" } }), t)
    end
    local dense, few = moments("dense"), moments("checkpoint")
    for i = 1, 3 do assert.same(dense[i]:totable(), few[i]:totable()) end
  end)
end)

describe("interpolated", function()
  local function distance(points, more)
    local o = { gradient = "interpolated", rtol = 1e-10, atol = 1e-10, adjoint = { points = points } }
    for k, v in pairs(more or {}) do o[k] = v end
    local exact = gradients { gradient = "aca", rtol = 1e-12, atol = 1e-12 }
    local g, info = gradients(o)
    local d = (g[1] - exact[1]):abs():item() / exact[1]:abs():item()
    return d, info
  end

  it("converges with the number of points, and says how far it is from there", function()
    local last, told = math.huge, math.huge
    for _, points in ipairs { 3, 6, 9, 12 } do
      local d, info = distance(points)
      assert.is_true(d < math.max(0.2 * last, 1e-8), ("%g at %d"):format(d, points))
      assert.is_true(info.reconstruction < 0.2 * told)
      last, told = d, info.reconstruction
    end
    local _, info = distance(3)
    assert.truthy(info.warning:find("adjoint.points", 1, true))
  end)

  it("is there as a trajectory for the other engines", function()
    for _, engine in ipairs { "gq", "adjoint", "seminorm" } do
      local d = distance(16, { gradient = engine, adjoint = { points = 16, trajectory = "interpolated" },
        gq = { nodes = "step" } })
      assert.is_true(d < 1e-8)
    end
  end)

  it("refuses what it cannot do, by name", function()
    local function message(o)
      local ok, text = pcall(gradients, o)
      assert.is_false(ok)
      return tostring(text)
    end
    assert.truthy(message({ gradient = "interpolated", adjoint = { trajectory = "dense" } }):find("seminorm", 1, true))
    assert.truthy(message({ gradient = "interpolated", parity = true }):find("interpolated", 1, true))
    assert.truthy(message({ adjoint = { points = 1 } }):find("points", 1, true))
    assert.truthy(message({ adjoint = { checkpoints = 1 } }):find("checkpoints", 1, true))
    assert.truthy(message({ adjoint = { trajectory = "checkpoints" } }):find('"checkpoint"', 1, true))
  end)
end)

describe("kronrod", function()
  -- z' = -z + theta sin(w t) at theta = 0, L = z(10): no solve sees w, the integrand does
  local function slope(w, tol, more)
    local theta = gq.tensor({ 0 }, { requires_grad = true, dtype = "float64" })
    local o = { gradient = "kronrod", rtol = tol, atol = tol }
    for k, v in pairs(more or {}) do o[k] = v end
    local z, info = gq.odeint(function(t, z) return theta * gq.sin(w * t) - z end, gq.ones(1, { dtype = "float64" }),
      { 0, 10 }, o)
    z[2]:sum():backward()
    local exact = (math.sin(w * 10) - w * math.cos(w * 10) + w * math.exp(-10)) / (1 + w * w)
    return math.abs(theta.grad:item() - exact), info
  end

  it("resolves integrands faster than the solution, with more points", function()
    local slow = select(2, slope(0.5, 1e-6)).nodes
    for _, w in ipairs { 0.5, 2, 20, 100 } do
      local error, info = slope(w, 1e-6)
      -- at w = 100 the sums of one long piece agree by chance, where a is small: no estimate sees everything
      assert.is_true(error < (w == 100 and 5e-5 or 1e-6), ("w = %g: %g"):format(w, error))
      assert.equal(0, info.nodes % 22)
      assert.equal(info.nodes, info.nodes_wanted)
      assert.is_true(w < 20 or info.nodes > slow)
      assert.is_nil(info.warning)
    end
    for _, w in ipairs { 20, 100 } do assert.is_true(slope(w, 1e-9) < 1e-8) end
  end)

  it("joins moments, checkpoints and interpolated trajectories", function()
    local t = {}
    for i = 0, 40 do t[i + 1] = i / 20 end
    local exact = gradients({ gradient = "direct", rtol = 1e-10, atol = 1e-10 }, t)
    for _, adjoint in ipairs { {}, { impulses = "moments" }, { trajectory = "checkpoint", checkpoints = 3 },
      { trajectory = "interpolated" } } do
      local g = gradients({ gradient = "kronrod", rtol = 1e-8, atol = 1e-8, adjoint = adjoint }, t)
      for i = 1, 3 do
        local off = (g[i] - exact[i]):abs():max():item() / exact[i]:abs():max():item()
        assert.is_true(off < 2e-6, ("%d: %g"):format(i, off))
      end
    end
  end)

  it("asks for no more than float32 can give", function()
    local k = gq.tensor(0.7, { requires_grad = true })
    local z, info = gq.odeint(function(_, z) return -k * z end, gq.ones(50, 2), { 0, 1 },
      { gradient = "kronrod", rtol = 1e-12, atol = 1e-12, step_size = 0.1, method = "rk4" })
    z[2]:sum():backward()
    assert.is_true(math.abs(k.grad:item() / (-100 * math.exp(-0.7)) - 1) < 1e-4)
    assert.is_true(info.nodes < 22 * 64)
  end)

  it("has no way without z at any time", function()
    local ok, text = pcall(slope, 1, 1e-3, { adjoint = { trajectory = "reverse" } })
    assert.is_false(ok)
    assert.truthy(text:find("dense", 1, true))
    assert.is_false((pcall(slope, 1, 1e-3, { parity = true })))
  end)
end)
