-- toy_gradient.lua -- dz/dt = a z with L = z(T)^2, whose loss and gradients are known: how far every engine is from
-- them (Norcliffe & Deisenroth, section 5.1 and figure 1).

local gq = require "gq"

local o, given = gq.cli {
  about = "Relative errors of the loss L = z(T)^2 and of its gradients where dz/dt = a z.",
  more = "The paper's settings are the defaults. Its errors are of the order of 1e-5 (loss, a, T) and 1e-6 (z0).",
  "gradients", { "T", { 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29 }, "end times, with commas" },
  { "a", 0.2, "growth rate", "number" }, { "z0", 10.0, "start", "number" },
  "dtype", { "rtol", 1e-6 }, { "atol", 1e-7 }, { "C", 0.4 }, "paper", "trajectory", "json", "quick", "quiet",
}
if not o then return end
if o.quick and not given.T then o.T = { o.T[1], o.T[#o.T] } end

local quantities = { "loss", "z0", "a", "T" }

local function predicted(gradient, T)
  local leaf = { dtype = o.dtype, requires_grad = true }
  local a, z0 = gq.tensor(o.a, leaf), gq.tensor({ o.z0 }, leaf)
  local t = gq.tensor({ 0, T }, { dtype = "float64", requires_grad = true })
  local options = gq.solver_options(o)
  options.gradient = gradient
  local z, info = gq.odeint(function(_, y) return a * y end, z0, t, options)
  local loss = z[2]:square():sum()
  loss:backward()
  return { loss = loss:item(), z0 = z0.grad[1]:item(), a = a.grad:item(), T = t.grad[2]:item() }, info
end

local function exact(T)
  local loss = o.z0 ^ 2 * math.exp(2 * o.a * T)
  return { loss = loss, z0 = 2 * loss / o.z0, a = 2 * T * loss, T = 2 * o.a * loss }
end

local rows, summary, error_of = {}, {}, {}        -- error_of[engine][T][quantity]
for _, gradient in ipairs(o.gradients) do
  local largest = { loss = 0, z0 = 0, a = 0, T = 0 }
  error_of[gradient] = {}
  for _, T in ipairs(o.T) do
    local got, info = predicted(gradient, T)
    local errors, want = {}, exact(T)
    for _, q in ipairs(quantities) do
      errors[q] = math.abs((want[q] - got[q]) / want[q])
      largest[q] = math.max(largest[q], errors[q])
    end
    error_of[gradient][T] = errors
    rows[#rows + 1] = { gradient = gradient, time = T, error = errors, nfe = info.nfe, nfe_backward = info.nfe_backward,
      nodes = info.nodes }
  end
  summary[gradient] = largest
end

-- ---- a block for each panel of figure 1 ----

local title = { loss = "L", z0 = "dL/dz0", a = "dL/da", T = "dL/dT" }

local function line(first, value)
  local cells = { ("%6s"):format(first) }
  for _, gradient in ipairs(o.gradients) do cells[#cells + 1] = ("%11s"):format(value(gradient)) end
  print(table.concat(cells))
end

local function block(q)
  print(("\nrelative error of %s"):format(title[q]))
  line("T", function(gradient) return gradient end)
  for _, T in ipairs(o.T) do
    line(("%g"):format(T), function(gradient) return ("%.2e"):format(error_of[gradient][T][q]) end)
  end
  line("most", function(gradient) return ("%.2e"):format(summary[gradient][q]) end)
end

if not o.quiet then
  print(("dz/dt = %g z, z(0) = %g, %s, rtol %g, atol %g, C %g"):format(o.a, o.z0, o.dtype, o.rtol, o.atol, o.C))
  for _, q in ipairs(quantities) do block(q) end
end
gq.experiment { options = o, rows = rows, summary = summary }
