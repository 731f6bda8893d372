-- paths.lua -- increments of Brownian paths, ours beside torchsde's BrownianInterval and diffrax's VirtualBrownianTree
-- (compiled), in rounds of a process each: steps one after the other, and intervals between random times; of ours too
-- where all of them are asked for in one call.
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
  local from, to = { {}, {} }, { {}, {} }                  -- in order, and at random
  for i = 1, o.steps do
    local s, t = ends[2 * i - 1], ends[2 * i]
    from[1][i], to[1][i], from[2][i], to[2][i] = (i - 1) / o.steps, i / o.steps, math.min(s, t), math.max(s, t)
  end
  local function pass(seed, ask)
    local b = gq.brownian { t0 = 0, t1 = 1, shape = { o.paths }, seed = seed, tol = tol }
    collectgarbage()
    local started = gq.clock()
    ask(b)
    return gq.clock() - started
  end
  local best = { math.huge, math.huge, math.huge, math.huge }
  for seed = 1, 5 do
    for k = 1, 2 do
      best[k] = math.min(best[k], pass(seed, function(b)
        for i = 1, o.steps do b(from[k][i], to[k][i]) end
      end))
      best[k + 2] = math.min(best[k + 2], pass(seed, function(b) b(from[k], to[k]) end))
    end
  end
  return best
end

if o.ours then return print(table.unpack(ours())) end

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
local names = { gqlua = "gqlua", at_once = "gqlua, in one call",
  torch = "torchsde BrownianInterval", jax = "diffrax VirtualBrownianTree" }
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
      local numbers = {}
      for x in pipe:read("a"):match("[^\n]*\n?$"):gmatch("[%d.e+-]+") do numbers[#numbers + 1] = tonumber(x) end
      if not pipe:close() or #numbers < 2 then error(("paths: this failed: %s"):format(run), 0) end
      for k, x in ipairs(numbers) do
        local row = k > 2 and "at_once" or name
        rows[row] = rows[row] or { {}, {} }
        table.insert(rows[row][(k - 1) % 2 + 1], x)
      end
    else
      rows[name] = false
    end
  end
end

local best = { median(rows.gqlua[1]), median(rows.gqlua[2]) }
print(("%d numbers, %d increments, %d threads"):format(o.paths, o.steps, o.threads))
print(("%-28s %12s %8s %12s %8s"):format("", "in order", "ratio", "at random", "ratio"))
local record = {}
table.insert(parties, 2, "at_once")
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
