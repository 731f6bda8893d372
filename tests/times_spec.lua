-- times_spec.lua -- when f is evaluated, and what moving a time does: spans of no length, jumps at times, large times.

local gq = require "gq"

-- Every engine, with a method it goes with; rows: with batch = "independent" too.
local engines = {
  { "gq", rows = true }, { "check", rows = true }, { "direct", rows = true }, { "aca", rows = true }, { "adjoint" },
  { "seminorm" }, { "interpolated" }, { "gqc" }, { "kronrod" }, { "auto" }, { "mali", method = "alf" },
  { "reversible", method = "reversible_heun" }, { "direct", method = "kvaerno3" },
  { "gq", method = "explicit_adams" },
}

-- f(name, options): for every engine, and every batch mode that it knows.
local function each(options, f)
  for _, e in ipairs(engines) do
    for _, batch in ipairs { "joint", e.rows and "independent" } do
      local o = { gradient = e[1], method = e.method, batch = batch }
      for key, value in pairs(options) do o[key] = value end
      f(("%s, %s, %s"):format(e[1], e.method or "dopri5", batch), o)
    end
  end
end

describe("the gradient of times where no time passes", function()
  -- z_k = z(t_k): moving t_k moves it along f, moving the first time moves all others the other way
  local weight = { 1, 10, 100, 1000 }
  local function slope(t) return 3 * t ^ 2 end

  for _, dtype in ipairs { "float32", "float64" } do
    for _, times in ipairs { { 2, 2 }, { 2, 2, 2 }, { 2, 2, 3, 3 }, { 3, 3, 2, 2 } } do
      each({ rtol = 1e-5, atol = 1e-5 }, function(name, o)
        it(("%s, %s, {%s}"):format(name, dtype, table.concat(times, ", ")), function()
          local t = gq.tensor(times, { requires_grad = true, dtype = dtype })
          local k = gq.full({ 3, 1 }, 3.0, { requires_grad = true, dtype = dtype })
          local z = gq.odeint(function(x, y) return k * x * x + 0 * y end, gq.zeros(3, 1, { dtype = dtype }), t, o)
          local w = gq.tensor(weight, { dtype = dtype }):narrow(1, 1, #times):reshape(#times, 1, 1)
          local want = { 0 }
          for i = 2, #times do
            want[i] = 3 * weight[i] * slope(times[i])
            want[1] = want[1] - 3 * weight[i] * slope(times[1])
          end
          assert.close(gq.grad((z * w):sum(), { t })[1], want, 1e-3)
        end)
      end)
    end
  end

  it("of several tensors, and can be differentiated again", function()
    local t = gq.tensor({ 2, 2 }, { requires_grad = true, dtype = "float64" })
    local a = gq.tensor(5, { requires_grad = true, dtype = "float64" })
    local one = gq.ones(1, { dtype = "float64" })
    local function field(x, y) return { a * x * y[1], y[1] - y[2] } end
    local z = gq.odeint(field, { one, 0 * one }, t)
    assert.close(gq.grad((z[1][2] + 10 * z[2][2]):sum(), { t })[1], { -20, 20 }, 1e-12)
    z = gq.odeint(function(x, y) return a * x * y end, one, t, { gradient = "direct" })
    local g = gq.grad(z[2]:sum(), { t }, { create_graph = true })[1]
    assert.close(g, { -10, 10 }, 1e-12)
    assert.close(gq.grad(g[2], { a })[1], 2, 1e-12)
  end)

  it("by dynamics that are called back, and an error where they are not finite", function()
    local t = gq.tensor({ 0, 0 }, { requires_grad = true, dtype = "float64" })
    local z = gq.odeint(function(_, y) return 0 * y + 2 end, gq.zeros(1, { dtype = "float64" }), t,
      { trace = false, params = {} })
    assert.close(gq.grad(z[2]:sum(), { t })[1], { -2, 2 })
    z = gq.odeint(function(x, y) return y / x end, gq.ones(1, { dtype = "float64" }), t)
    assert.has_error(function() gq.grad(z[2]:sum(), { t }) end)
  end)
end)
