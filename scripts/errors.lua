-- errors.lua -- gradient error against evaluations and time for every engine, on problems whose gradient is known:
-- closed forms, quadruple precision, or a tight solve.
--   ./gqlua scripts/errors.lua --help
--   ./gqlua scripts/errors.lua --problems G8,vdp --engines gq-step,adjoint --tols 1e-3,1e-6,1e-9
-- A line is one solve and its backward pass in float64, forward and backward at the tolerance rtol = atol. The last
-- lines say where gq, by default and with nodes in every step, is not at or below the adjoint's error at less work.

local gq = require "gq"
local here = arg[0]:match("^(.*)/[^/]*$") or "."
local common, problems = dofile(here .. "/common.lua"), dofile(here .. "/../tests/problems.lua")
local oracle, flat = problems.oracle, problems.flat

-- ---- problems: make() -> {leaves, z0, t, f, loss, exact = {leaf = gradient} or nil: by a tight solve} ----

local function van_der_pol()
  local case = oracle.G9()
  case.t, case.exact = { 0, 5 }, nil
  return case
end

local function network()
  gq.manual_seed(5)
  local net = gq.nn.mlp { sizes = { 2, 100, 100, 2 }, activation = "tanh", time = true }:to("float64")
  local leaves = { z0 = gq.randn({ 20, 2 }, { seed = 6, dtype = "float64" }) }
  leaves.z0.requires_grad = true
  for i, p in ipairs(net:parameters()) do leaves[i] = p end
  return { leaves = leaves, z0 = leaves.z0, t = { 0, 1 }, f = function(t, z) return 4 * net(t, z) end,
    loss = function(z) return (z[2] ^ 2):mean() end }
end

local list = {
  { "G1", "z' = a z, L = z(T)^2", function() return oracle.G1(5) end },
  { "G2", "z' = -z + theta sin(2 t), theta = 0", function() return oracle.G2(2, 5) end },
  { "G3", "q'' = -theta q", function() return oracle.G3(10) end },
  { "G4", "z' = -lambda z, lambda T = 5", function() return oracle.G4(1, 5) end },
  { "G5", "z' = A z", function() return oracle.G5(3) end },
  { "G6", "x' = mu t - theta x", function() return oracle.G6(5) end },
  { "G7", "y' = a + (y - (a t + b))^5", function() return oracle.G7(1) end },
  { "G8", "Lotka-Volterra to 1", function() return oracle.G8(1) end },
  { "lv10", "Lotka-Volterra to 10", function() return oracle.G8(10) end },
  { "vdp", "Van der Pol to 5", van_der_pol },
  { "net", "width 100, 20 rows", network },
}

-- ---- engines: name, options; the least tolerance, for methods of order 2 ----

local function with(gradient, options)
  options = options or {}
  options.gradient = gradient
  return options
end
local dense, step = { trajectory = "dense" }, { nodes = "step" }
local engines = {
  { "gq", with("gq") },
  { "gq-paper", with("gq", { gq = { paper = true } }) },
  { "gq-step", with("gq", { gq = step }) },
  { "gq-step-dense", with("gq", { gq = step, adjoint = dense }) },
  { "check", with("check") },
  { "adjoint", with("adjoint") },
  { "seminorm", with("seminorm") },
  { "gqc", with("gqc") },
  { "kronrod", with("kronrod") },
  { "interpolated", with("interpolated") },
  { "direct", with("direct") },
  { "aca", with("aca") },
  { "mali", with("mali", { method = "alf" }), least = 1e-4 },
  { "reversible", with("reversible", { method = "reversible_heun" }), least = 1e-4 },
}

local function names(of)
  local t = {}
  for i, x in ipairs(of) do t[i] = x[1] end
  return t
end

local o = gq.cli {
  about = "Gradient error, evaluations and time of every engine on problems whose gradient is known.",
  more = [[
problems: ]] .. table.concat(names(list), ", ") .. [[.
engines: ]] .. table.concat(names(engines), ", ") .. [[.
columns: error is |g - r| / |r| over z0 and parameters together, r exact or of dopri8 at 1e-13; forward and backward
are evaluations, of f forward, of f with its derivative backward (nodes among them); work is in evaluations of f, its
derivatives by state and parameters counted one each: a node is three, backward steps are two, three where they carry
the parameters (adjoint, seminorm); ms is the median.]],
  { "problems", names(list), "which problems, with commas" },
  { "engines", names(engines), "which engines, with commas" },
  { "tols", { 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9 }, "tolerances, with commas" },
  { "runs", 5, "solves a line, of which the median time is told; fewer where they are slow" },
  "json", "quick", "quiet",
}
if not o then return end
if o.quick then
  o.runs = 1
  o.tols = #o.tols == 7 and { 1e-3, 1e-6 } or o.tols
end
warn("@off")        -- a wrong gradient shows in its column

local function chosen(of, given, what)
  local by, picked = {}, {}
  for _, x in ipairs(of) do by[x[1]] = x end
  for _, name in ipairs(given) do
    if not by[name] then
      io.stderr:write(("there is no %s '%s'; there are: %s\n"):format(what, name, table.concat(names(of), ", ")))
      os.exit(2, true)
    end
    picked[#picked + 1] = by[name]
  end
  return picked
end
local picked_problems, picked_engines = chosen(list, o.problems, "problem"), chosen(engines, o.engines, "engine")
for _, tol in ipairs(o.tols) do
  if not (tol > 0 and tol < 1) then
    io.stderr:write(("--tols: %g is no tolerance; give numbers between 0 and 1, such as 1e-3,1e-6\n"):format(tol))
    os.exit(2, true)
  end
end

-- ---- one line ----

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- Gradients of all leaves but the times, by name.
local function gradients(case, options)
  local z, info = gq.odeint(case.f, case.z0, type(case.t) == "table" and case.t or case.t:totable(), options)
  case.loss(z):backward()
  local g = {}
  for name, x in pairs(case.leaves) do
    if name ~= "t" then g[name] = x.grad:totable() end
  end
  return g, info
end

local function as_list(x) return flat(type(x) == "table" and x or { x }) end

local function relative(got, want)
  local difference, size = 0, 0
  for name, g in pairs(got) do
    local r = as_list(want[name])
    for i, x in ipairs(as_list(g)) do
      difference, size = difference + (x - r[i]) ^ 2, size + r[i] ^ 2
    end
  end
  return math.sqrt(difference / size)
end

local function measure(make, engine, tol, exact)
  local options = { rtol = tol, atol = tol, max_steps = 30000, audit = false }
  for k, v in pairs(engine[2]) do options[k] = v end
  local times, spent = {}, 0
  local g, info, error
  repeat
    local case = make()
    collectgarbage()
    local started = gq.clock()
    g, info = gradients(case, options)
    times[#times + 1] = gq.clock() - started
    spent = spent + times[#times]
    error = error or relative(g, exact)
  until #times >= o.runs or spent > 0.3
  return { error = error, forward = info.nfe, backward = info.nfe_backward, nodes = info.nodes,
    work = common.work(info, options.gradient), ms = 1e3 * common.median(times), warning = info.warning }
end

-- ---- the summary ----

-- Errors count as equal within 5 % and where both are rounding.
local function at_or_below(e) return e <= 1.05 end

local function compare(records, engine)
  local by, s = {}, { lines = 0, error_at_or_below = 0, less_work = 0, less_time = 0, exceptions = {} }
  for _, r in ipairs(records) do by[("%s %s %g"):format(r.problem, r.engine, r.tol)] = r end
  for _, r in ipairs(records) do
    local a = r.engine == engine and by[("%s adjoint %g"):format(r.problem, r.tol)]
    if a and r.error and a.error then
      local e = { problem = r.problem, tol = r.tol, error = math.max(r.error, 1e-12) / math.max(a.error, 1e-12),
        work = r.work / a.work, ms = r.ms / a.ms }
      s.lines = s.lines + 1
      if at_or_below(e.error) then s.error_at_or_below = s.error_at_or_below + 1 end
      if e.work < 1 then s.less_work = s.less_work + 1 end
      if e.ms < 1 then s.less_time = s.less_time + 1 end
      if not at_or_below(e.error) or e.work >= 1 then s.exceptions[#s.exceptions + 1] = e end
    end
  end
  return s
end

-- Work of one engine's lines at a given error, by straight lines between tolerances in log-log; nil outside.
local function work_at(points, error)
  for i = 1, #points - 1 do
    local p, q = points[i], points[i + 1]
    local lo, hi = math.min(p.error, q.error), math.max(p.error, q.error)
    if error >= lo and error <= hi and lo > 1e-13 then
      local x = hi > lo and math.log(error / p.error) / math.log(q.error / p.error) or 0
      return p.work * (q.work / p.work) ^ x
    end
  end
end

-- Work at equal error: an engine's to the adjoint's, the geometric mean over a problem's tolerances.
local function equal_error(records, engine)
  local lines, ratios = {}, {}
  for _, r in ipairs(records) do
    if r.engine == engine and r.error then
      lines[r.problem] = lines[r.problem] or {}
      table.insert(lines[r.problem], r)
    end
  end
  for problem, points in pairs(lines) do
    local sum, n = 0, 0
    for _, r in ipairs(records) do
      local w = r.problem == problem and r.engine == "adjoint" and r.error and work_at(points, r.error)
      if w then sum, n = sum + math.log(w / r.work), n + 1 end
    end
    if n > 0 then ratios[problem] = math.exp(sum / n) end
  end
  return ratios
end

local function tell_equal(s)
  for _, engine in ipairs { "gq", "gq-step", "gq-step-dense" } do
    local cells = {}
    for _, p in ipairs(list) do
      local ratio = s.equal_error[engine][p[1]]
      if ratio then cells[#cells + 1] = ("%s %.2f"):format(p[1], ratio) end
    end
    if #cells > 0 then say("work of %s for the adjoint's error: %s", engine, table.concat(cells, ", ")) end
  end
end

local function tell(s, engine)
  if s.lines == 0 then return end
  say("%s against adjoint in %d lines: error at or below (within 5 %%) in %d, less work in %d, less time in %d%s",
    engine, s.lines, s.error_at_or_below, s.less_work, s.less_time,
    #s.exceptions == 0 and "" or "; exceptions in error or work, as ratios to the adjoint's:")
  for _, e in ipairs(s.exceptions) do
    say("  %-5s %-6g error x %.2f, work x %.2f, time x %.2f", e.problem, e.tol, e.error, e.work, e.ms)
  end
end

-- ---- all ----

local records = {}
for _, p in ipairs(picked_problems) do
  local name, about, make = p[1], p[2], p[3]
  local case = make()
  local exact = case.exact or gradients(case, { method = "dopri8", rtol = 1e-13, atol = 1e-13, gradient = "direct" })
  say("%s: %s\n  %-14s %6s  %9s %9s %9s %7s %9s %9s", name, about, "engine", "tol", "error", "forward", "backward",
    "nodes", "work", "ms")
  for engine, tol in common.each(picked_engines, o.tols) do
    if tol >= (engine.least or 0) then
      local ok, r = pcall(measure, make, engine, tol, exact)
      if not ok then r = { failed = tostring(r) } end
      r.problem, r.engine, r.tol = name, engine[1], tol
      records[#records + 1] = r
      if ok then
        say("  %-14s %6g  %9.1e %9d %9d %7d %9.0f %9.3f%s", engine[1], tol, r.error, r.forward, r.backward, r.nodes,
          r.work, r.ms, r.warning and "  warned" or "")
      else
        say("  %-14s %6g  %s", engine[1], tol, r.failed:match("^[^\n]*"):sub(1, 90))
      end
    end
  end
end
local summary = compare(records, "gq")
summary.equal_error, summary.step = {}, compare(records, "gq-step")
for _, engine in ipairs { "gq", "gq-step", "gq-step-dense" } do
  summary.equal_error[engine] = equal_error(records, engine)
end
tell(summary, "gq")
tell(summary.step, "gq-step")
tell_equal(summary)
if o.json then gq.file_write(o.json, gq.json_encode { rows = records, summary = summary } .. "\n") end
