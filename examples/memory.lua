-- memory.lua -- how the memory of a solve and its gradient depends on the solver's tolerance, by engine (Norcliffe &
-- Deisenroth, section 5.2 and figure 2).

local gq = require "gq"

local o, given = gq.cli {
  about = "Peak bytes of solving dz/dt = a z and of differentiating L = z(T)^2, against the tolerance.",
  more = "The paper's settings are the defaults. adjoint, seminorm and gq do not depend on the tolerance; direct\n" ..
    "and aca grow with the number of steps.",
  "gradients", { "tolerances", { 1e-3, 1e-4, 1e-5, 1e-6, 1e-7 }, "rtol and atol, with commas" },
  { "T", 15, "end time", "number" }, { "a", 0.2, "growth rate", "number" }, { "z0", 10.0, "start", "number" },
  "dtype", "C", "paper", "trajectory", "json", "quick", "quiet",
}
if not o then return end
if o.quick and not given.tolerances then o.tolerances = { o.tolerances[1], o.tolerances[#o.tolerances] } end

local function measure(gradient, tolerance)
  local leaf = { dtype = o.dtype, requires_grad = true }
  local a, z0 = gq.tensor(o.a, leaf), gq.tensor({ o.z0 }, leaf)
  local options = gq.solver_options(o)
  options.gradient, options.rtol, options.atol = gradient, tolerance, tolerance
  local z, info = gq.odeint(function(_, y) return a * y end, z0, { 0, o.T }, options)
  z[2]:square():sum():backward()
  return { gradient = gradient, tolerance = tolerance, peak_bytes = info.peak_bytes, steps = info.steps }
end

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

local rows, summary = {}, {}
local head = { ("%-10s"):format("tolerance") }
for _, tolerance in ipairs(o.tolerances) do head[#head + 1] = ("%9.0e"):format(tolerance) end
say("peak bytes, dz/dt = %g z, z(0) = %g, T = %g, %s\n%s    growth", o.a, o.z0, o.T, o.dtype, table.concat(head))
for _, gradient in ipairs(o.gradients) do
  local bytes, cells = {}, { ("%-10s"):format(gradient) }
  for i, tolerance in ipairs(o.tolerances) do
    local row = measure(gradient, tolerance)
    rows[#rows + 1], bytes[i], cells[i + 1] = row, row.peak_bytes, ("%9d"):format(row.peak_bytes)
  end
  local least, most = math.min(table.unpack(bytes)), math.max(table.unpack(bytes))
  summary[gradient] = { first = bytes[1], last = bytes[#bytes], growth = most / least }
  say("%s %9.3f", table.concat(cells), most / least)
end
gq.experiment { options = o, rows = rows, summary = summary }
