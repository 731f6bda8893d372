-- moments_spec.lua -- impulses = "moments": many measurement times without restarts.

local gq = require "gq"

local function network()
  gq.manual_seed(3)
  local list = {}
  local function p(scale, ...)
    local x = gq.randn(..., { dtype = "float64" }) * scale
    list[#list + 1] = x:detach()
    list[#list].requires_grad = true
    return list[#list]
  end
  local w1, b1, w2, b2 = p(0.7, { 20, 2 }), p(0.3, { 20 }), p(0.3, { 2, 20 }), p(0.1, { 2 })
  return function(_, z) return gq.tanh(z:matmul(w1:t()) + b1):matmul(w2:t()) + b2 end, list
end

local field, parameters = network()
local z0 = gq.randn(15, 2, { dtype = "float64" })

local function gradient(t, weights, options)
  local start, times = z0:clone():detach(), gq.tensor(t, { dtype = "float64" })
  start.requires_grad, times.requires_grad = true, true
  local z, info = gq.odeint(field, start, times, options)
  local g = gq.grad((z * weights):sum(), { start, times, table.unpack(parameters) })
  return g, info
end

local function distance(a, b)
  local num, den = 0, 0
  for i = 1, #a do
    num = num + (a[i] - b[i]):square():sum():item()
    den = den + b[i]:square():sum():item()
  end
  return math.sqrt(num / den)
end

local function times(n, direction)
  local t = {}
  for i = 1, n do t[i] = direction * (i - 1) / (n - 1) * 6 end
  return t
end

describe("impulses = moments", function()
  for _, engine in ipairs { "adjoint", "seminorm", "gq" } do
    for _, trajectory in ipairs { "reverse", "dense" } do
      it("meets the exact gradient, " .. engine .. ", " .. trajectory, function()
        for _, direction in ipairs { 1, -1 } do
          local t = times(60, direction)
          local weights = gq.randn(60, 15, 2, { dtype = "float64" })
          local exact = gradient(t, weights, { gradient = "direct", rtol = 1e-10, atol = 1e-10 })
          local last = math.huge
          for _, tol in ipairs { 1e-4, 1e-6, 1e-8 } do
            local g, info = gradient(t, weights, { gradient = engine, rtol = tol, atol = tol,
              adjoint = { trajectory = trajectory, impulses = "moments" }, gq = { nodes = "step" } })
            local error = distance(g, exact)
            assert.is_true(error < math.max(0.3 * last, 3e-6), ("%g after %g at %g"):format(error, last, tol))
            assert.is_true(info.restarts < 59)
            last = error
          end
          assert.is_true(last < 2e-5, tostring(last))
        end
      end)
    end
  end

  it("costs about the same for 50 and for 800 times", function()
    local function cost(n)
      local _, info = gradient(times(n, 1), gq.randn(n, 15, 2, { dtype = "float64" }) / n, { rtol = 1e-3, atol = 1e-3,
        adjoint = { trajectory = "dense", impulses = "moments" } })
      return info.nfe_backward - n      -- each time's own derivative asks for one evaluation
    end
    assert.is_true(cost(800) < 1.5 * cost(50))
  end)

  it("is restart where there is one interval", function()
    local weights = gq.randn(2, 15, 2, { dtype = "float64" })
    local a = gradient({ 0, 2 }, weights, { adjoint = { impulses = "moments" } })
    local b = gradient({ 0, 2 }, weights, { adjoint = { impulses = "restart" } })
    for i = 1, #a do assert.is_true(a[i]:eq(b[i]):to("float64"):min():item() == 1) end
  end)

  it("takes repeated times, and refuses overshoot", function()
    local t = { 0, 0, 1, 1, 1.5, 2, 2 }
    local weights = gq.randn(7, 15, 2, { dtype = "float64" })
    local exact = gradient(t, weights, { gradient = "direct", rtol = 1e-10, atol = 1e-10 })
    local g = gradient(t, weights, { rtol = 1e-8, atol = 1e-8, adjoint = { impulses = "moments" },
      gq = { nodes = "step" } })
    assert.is_true(distance(g, exact) < 1e-5)
    local ok, text = pcall(gradient, t, weights, { parity = true, adjoint = { impulses = "moments" } })
    assert.is_false(ok)
    assert.truthy(text:find("moments", 1, true))
  end)
end)
