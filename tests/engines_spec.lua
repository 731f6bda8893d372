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
