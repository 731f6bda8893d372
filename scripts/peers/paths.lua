-- paths.lua -- increments of Brownian paths, ours beside torchsde's BrownianInterval and diffrax's VirtualBrownianTree
-- (compiled), in rounds of a process each: steps one after the other, and intervals between random times.
--   scripts/peers/setup
--   ./gqlua scripts/peers/paths.lua --paths 4096 --steps 1000

local gq = require "gq"
local here = arg[0]:match("^(.*)/[^/]*$") or "."
local median = dofile(here .. "/../common.lua").median

local o = gq.cli {
  about = "Time increments of Brownian paths against torchsde and diffrax.",
  more = "A number is the median over the rounds, of the fastest of five passes in a process; ratio: theirs / ours.",
  { "paths", 4096, "numbers of a path", "integer", 1 },
  { "steps", 1000, "increments", "integer", 1 },
  { "tol", nil, "finest time that a tree knows (half a step)", "number" },
  { "peers", { "torch", "jax" }, "libraries, with commas" },
  { "rounds", 3, "processes of each", "integer", 1 },
  { "threads", 1, "threads of each", "integer", 1 },
  { "folder", "build/peers", "where scripts/peers/setup installed them" },
  { "ours", false, "time ours alone, in this process: a line of seconds, in order and at random" },
  "json",
}
if not o then return end
local tol = o.tol or 0.5 / o.steps

local function ours()
  gq.set_threads(o.threads)
  local ends = gq.rand(2 * o.steps, { seed = 2, dtype = "float64" }):totable()
  local function pass(seed, interval)
    local b = gq.brownian { t0 = 0, t1 = 1, shape = { o.paths }, seed = seed, tol = tol }
    local started = gq.clock()
    for i = 1, o.steps do b(interval(i)) end
    return gq.clock() - started
  end
  local best = { math.huge, math.huge }
  for seed = 1, 5 do
    best[1] = math.min(best[1], pass(seed, function(i) return (i - 1) / o.steps, i / o.steps end))
    best[2] = math.min(best[2], pass(seed, function(i)
      local s, t = ends[2 * i - 1], ends[2 * i]
      return math.min(s, t), math.max(s, t)
    end))
  end
  return best
end

if o.ours then
  local best = ours()
  return print(best[1], best[2])
end

local function quote(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end

local function command(name)
  local options = ("--paths %d --steps %d --tol %.17g --threads %d"):format(o.paths, o.steps, tol, o.threads)
  if name == "gqlua" then return ("%s %s --ours %s"):format(quote(arg[-1] or "./gqlua"), quote(arg[0]), options) end
  local python = ("%s/%s/bin/python"):format(o.folder, name)
  local file = io.open(python)
  if not file then return nil end
  file:close()
  return ("OMP_NUM_THREADS=%d %s %s %s %s"):format(o.threads, quote(python), quote(here .. "/paths.py"), name, options)
end

local parties = { "gqlua", table.unpack(o.peers) }
local names = { gqlua = "gqlua", torch = "torchsde BrownianInterval", jax = "diffrax VirtualBrownianTree" }
for _, name in ipairs(o.peers) do
  if name ~= "torch" and name ~= "jax" then
    io.stderr:write(("paths: --peers %s: torch or jax expected\n"):format(name))
    os.exit(2, true)
  end
end

local rows = {}
for _ = 1, o.rounds do
  for _, name in ipairs(parties) do
    local run = command(name)
    if run then
      local pipe = assert(io.popen(run))
      local in_order, random = pipe:read("a"):match("([%d.e+-]+)%s+([%d.e+-]+)%s*$")
      if not pipe:close() or not in_order then error(("paths: this failed: %s"):format(run), 0) end
      rows[name] = rows[name] or { {}, {} }
      table.insert(rows[name][1], tonumber(in_order))
      table.insert(rows[name][2], tonumber(random))
    else
      rows[name] = false
    end
  end
end

local best = { median(rows.gqlua[1]), median(rows.gqlua[2]) }
print(("%d numbers, %d increments, %d threads"):format(o.paths, o.steps, o.threads))
print(("%-28s %12s %8s %12s %8s"):format("", "in order", "ratio", "at random", "ratio"))
local record = {}
for _, name in ipairs(parties) do
  if rows[name] then
    local a, b = median(rows[name][1]), median(rows[name][2])
    print(("%-28s %12.4f %8.1f %12.4f %8.1f"):format(names[name], a, a / best[1], b, b / best[2]))
    record[#record + 1] = { name = names[name], in_order = a, random = b }
  else
    print(("%-28s not installed: scripts/peers/setup, or --folder"):format(names[name]))
  end
end
if o.json then gq.file_write(o.json, gq.json_encode(record) .. "\n") end
