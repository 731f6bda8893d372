-- compare.lua -- training steps of scripts/bench.lua against those of other libraries, on this machine: a round
-- runs ours and each peer's as processes one after the other, so that all meet the same moods of the machine.
--   scripts/peers/setup
--   ./gqlua scripts/peers/compare.lua --work nested_spheres,sines50 --widths 20,200 --ours gq,direct
-- A line tells the median over the rounds of the median step, the fastest step, and how many times ours they are.

local gq = require "gq"

local o = gq.cli {
  about = "Compare training steps with torchdiffeq, torchsde and diffrax.",
  more = [[
peers: torch, jax, or some of their gradients:
  torch:direct torch:adjoint torch:seminorm, for ou also torch:sde_direct torch:sde_adjoint
  jax:checkpoint jax:backsolve jax:seminorm, for ou also jax:sde_checkpoint
ratios: theirs / ours of the medians, and of the fastest steps in parentheses; above 1 ours is faster.
compile: seconds of the first step, which no other column counts.]],
  { "work", { "nested_spheres" }, "problems of scripts/bench.lua" },
  { "widths", { "20", "100" }, "hidden widths" },
  { "ours", { "gq" }, "our gradients" },
  { "peers", { "torch", "jax" }, "libraries, or torch:direct and the like" },
  { "bench", "", "more options for scripts/bench.lua, as one text" },
  { "threads", 2, "threads of each" },
  { "rounds", 3, "processes of each" },
  { "steps", 15, "timed steps a process" },
  { "limit", 30.0, "seconds after which a process' step is its last, if it is the third or later" },
  { "folder", "build/peers", "where scripts/peers/setup installed them" },
  "seed", "json",
}
if not o then return end

local gqlua, here = arg[-1] or "./gqlua", arg[0]:match("^(.*)/[^/]*$") or "."
local common = dofile(here .. "/../common.lua")
local each, median = common.each, common.median

local function warn(...) io.stderr:write("compare: ", string.format(...), "\n") end

local function quote(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end

-- ---- parties: {name, gradients (with commas; empty for all), command} ----

local function peer_command(name)
  local python = ("%s/%s/bin/python"):format(o.folder, name)
  local file = io.open(python)
  if not file then
    warn("no %s: run scripts/peers/setup, or say where it installed with --folder; %s is left out", python, name)
    return nil
  end
  file:close()
  local run = ("exec %s %s"):format(quote(python), quote(("%s/%s_steps.py"):format(here, name)))
  if name ~= "torch" then return run end
  return (". %s && OMP_NUM_THREADS=%d %s"):format(quote(o.folder .. "/torch.env"), o.threads, run)
end

local function parties()
  local bench = ("exec %s %s %s"):format(quote(gqlua), quote(here .. "/../bench.lua"), o.bench)
  local found, by_name = { { name = "gqlua", gradients = table.concat(o.ours, ","), command = bench } }, {}
  for _, word in ipairs(o.peers) do
    local name, gradient = word:match("^([^:]+):?(.*)$")
    if name ~= "torch" and name ~= "jax" then
      warn("--peers %s: torch or jax expected, or one of their gradients as in torch:direct", word)
      os.exit(2, true)
    end
    local party = by_name[name]
    if party == nil then
      local command = peer_command(name)
      party = command and { name = name, gradients = gradient, command = command } or false
      by_name[name] = party
      if party then found[#found + 1] = party end
    elseif party then
      local every = gradient == "" or party.gradients == ""
      party.gradients = every and "" or party.gradients .. "," .. gradient
    end
  end
  return found
end

-- ---- one process ----

local function read_json(path)
  local text = gq.file_read(path)
  return text ~= "" and gq.json_decode(text) or {}
end

local function records_of(party, work, width, seed)
  local path = os.tmpname()
  local options = { work = work, widths = width, steps = o.steps, runs = 1, limit = o.limit, threads = o.threads,
    seed = seed, json = path, gradients = party.gradients ~= "" and party.gradients or nil }
  local words = { party.command }
  for name, value in pairs(options) do words[#words + 1] = ("--%s %s"):format(name, quote(value)) end
  local ok, how, code = os.execute(table.concat(words, " ") .. " >/dev/null")
  local records = ok and read_json(path) or {}
  os.remove(path)
  if how == "signal" or code >= 128 then os.exit(130, true) end
  if not ok then warn("%s failed at %s, width %s", party.name, work, width) end
  return records
end

-- ---- the rounds of one problem and width: rows of {package, gradient, seconds, minimum ...} ----

local function rows_of(all, work, width)
  local rows, by_name = {}, {}
  for round = 1, o.rounds do
    for _, party in ipairs(all) do
      for _, r in ipairs(records_of(party, work, width, o.seed + round - 1)) do
        local name = party.name .. " " .. r.gradient
        local row = by_name[name]
        if not row then
          row = { package = party.name, gradient = r.gradient, work = work, width = r.width, threads = o.threads,
            rounds = {}, minimum = math.huge }
          rows[#rows + 1], by_name[name] = row, row
        end
        table.insert(row.rounds, r.seconds)
        row.minimum = math.min(row.minimum, r.minimum)
        row.first = math.max(row.first or 0, r.first or 0)
        row.nfe, row.nfe_backward = r.nfe, r.nfe_backward
      end
    end
  end
  for _, row in ipairs(rows) do row.seconds = median(row.rounds) end
  table.sort(rows, function(a, b)                   -- ours first
    if (a.package == "gqlua") ~= (b.package == "gqlua") then return a.package == "gqlua" end
    return a.package > b.package or a.package == b.package and a.gradient < b.gradient
  end)
  return rows
end

local function add_ratios(rows)
  for _, row in ipairs(rows) do
    row.ratio = {}
    for _, ours in ipairs(rows) do
      if ours.package == "gqlua" then
        row.ratio[ours.gradient] = { median = row.seconds / ours.seconds, minimum = row.minimum / ours.minimum }
      end
    end
  end
end

-- ---- the table ----

local ours = o.ours

local function print_title()
  local cells = {}
  for i, gradient in ipairs(ours) do cells[i] = ("%17s"):format("/ " .. gradient) end
  print(("%-15s %5s  %-20s %10s %10s %7s %9s"):format("work", "width", "package, gradient", "seconds", "minimum",
    "compile", "evals") .. table.concat(cells))
end

local function count(n) return math.type(n) == "integer" and tostring(n) or "-" end

local function print_row(row)
  local cells = {}
  for i, gradient in ipairs(ours) do
    local r = row.ratio[gradient]
    cells[i] = ("%17s"):format(r and ("%.2f (%.2f)"):format(r.median, r.minimum) or "-")
  end
  print(("%-15s %5d  %-20s %10.6f %10.6f %7s %9s"):format(row.work, row.width, row.package .. " " .. row.gradient,
    row.seconds, row.minimum, row.package == "jax" and ("%.1f"):format(row.first) or "",
    count(row.nfe) .. "/" .. count(row.nfe_backward)) .. table.concat(cells))
end

-- The peer that comes nearest to each of ours.
local function print_nearest(rows)
  for _, gradient in ipairs(ours) do
    local nearest
    for _, row in ipairs(rows) do
      local r = row.package ~= "gqlua" and row.ratio[gradient]
      if r and not (nearest and nearest.ratio[gradient].median <= r.median) then nearest = row end
    end
    if nearest then
      print(("least ratio to %s: %.2f, by %s %s at %s, width %d"):format(gradient, nearest.ratio[gradient].median,
        nearest.package, nearest.gradient, nearest.work, nearest.width))
    end
  end
end

local all, everything = parties(), {}
print(("%d threads, %d rounds of %d steps"):format(o.threads, o.rounds, o.steps))
print_title()
for work, width in each(o.work, o.widths) do
  local rows = rows_of(all, work, width)
  add_ratios(rows)
  for _, row in ipairs(rows) do
    print_row(row)
    everything[#everything + 1] = row
  end
  io.stdout:flush()
end
print_nearest(everything)
if o.json then gq.file_write(o.json, gq.json_encode(everything) .. "\n") end
