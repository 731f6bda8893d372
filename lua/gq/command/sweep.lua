-- command/sweep.lua -- `gqlua sweep SCRIPT --width 20,100 --seeds 5`: gq.sweep from the shell. Options that are not
-- the sweep's own are the script's, lists with commas.

local gq = require "gq"

local usage = [[
usage: gqlua sweep SCRIPT [options] [--NAME A,B,...]...
       gqlua sweep FILE.json [options]
Run a script over every combination of the values given for its options, by worker processes.
Results: a line of JSON for each run in OUT/results.jsonl, which `gqlua table OUT` makes a table of.
What has ended well is not run again.

  --NAME A,B,...     an option of the script's, with a run for each value; --NAME alone: a flag
  --seeds N          seeds 1 to N for each; --seeds 3,7: these
  --workers N        so many runs at a time (1)
  --threads N        threads of each run (ours, divided among the workers)
  --out DIR          where results go (runs)
  --time-limit S     seconds after which a run is ended
  --memory-limit B   bytes of address space of a run: 500M, 4G
  --retries N        of a run whose worker was killed (2)
  --shard I/N        only every N-th run, from the I-th
  --slurm            write OUT/sweep.sbatch, a job array, and submit it; --slurm partition=short,account=x: with these
  --tasks N          jobs of that array at most (1000)
  --no-submit        only write it
  --by A,B --mean A,B    of the table at the end: gqlua table --help
  --quiet            print nothing but errors
  --help             print this

  gqlua sweep examples/nested_spheres.lua --width 20,100 --gradient gq,adjoint --seeds 5 --workers 2]]

local function stop(text)
  io.stderr:write("gqlua sweep: ", text, "\n")
  os.exit(2, true)
end

local function value_of(text)
  if text == "true" then return true end
  return math.tointeger(text) or tonumber(text) or text
end

local function list_of(text)
  local list = {}
  for item in text:gmatch("[^,]+") do list[#list + 1] = value_of(item) end
  return list
end

local units = { K = 2 ^ 10, M = 2 ^ 20, G = 2 ^ 30 }

local function bytes_of(text)
  local n, unit = text:match("^([%d.]+)([KMGkmg]?)[Bb]?$")
  if not tonumber(n) then return value_of(text) end
  return tonumber(n) * (units[unit:upper()] or 1)
end

local function pairs_of(text)
  local t = {}
  for key, value in text:gmatch("([^,=]+)=([^,]+)") do t[key] = value end
  return next(t) and t or true
end

local function seeds_of(text)
  return text:find(",", 1, true) and list_of(text) or value_of(text)
end

local function as_text(text) return text end

local own = { seeds = seeds_of, seed = value_of, workers = value_of, threads = value_of, out = as_text,
  ["time-limit"] = value_of, ["memory-limit"] = bytes_of, retries = value_of, shard = as_text, slurm = pairs_of,
  tasks = value_of, by = as_text, mean = as_text }
local flags = { quiet = true, ["no-submit"] = true }

local given, grid, i = {}, {}, 1
while i <= #arg do
  local name, text = arg[i]:match("^%-%-([%w-]+)=?(.*)$")
  if arg[i] == "--help" or arg[i] == "-h" then return print(usage) end
  if not name then
    if given.script then stop(("one script expected, got %s and %s"):format(given.script, arg[i])) end
    given.script = arg[i]
  elseif flags[name] then
    given[name] = true
  else
    if not arg[i]:find("=", 1, true) then
      text = arg[i + 1]
      if text == nil or text:match("^%-%-%a") then text = nil else i = i + 1 end
    end
    if own[name] and text == nil and name ~= "slurm" then stop(("--%s: a value is missing"):format(name)) end
    if own[name] then
      given[name:gsub("-", "_")] = own[name](text or "")
    else
      grid[name] = text and list_of(text) or { true }
    end
  end
  i = i + 1
end
if not given.script then stop("which script? gqlua sweep --help tells more") end
if given["no-submit"] then given.submit, given["no-submit"] = false, nil end

if given.script:match("%.json$") then
  if next(grid) then stop(("%s says what is run: --%s cannot change it"):format(given.script, (next(grid)))) end
  local ok, t = pcall(function() return gq.json.decode(gq.file_read(given.script)) end)
  if not ok or type(t) ~= "table" or not t.script then
    stop(("%s: no description of a sweep%s"):format(given.script, ok and "" or ": " .. tostring(t)))
  end
  for k, v in pairs(t) do
    if given[k] == nil or k == "script" then given[k] = v end
  end
else
  given.grid = grid
end

local ok, lines = pcall(gq.sweep, given)
if not ok then stop(gq.core.said(lines, "gq.sweep")) end
for _, line in ipairs(type(lines) == "table" and lines or {}) do
  if line.status ~= "ok" then os.exit(1, true) end
end
