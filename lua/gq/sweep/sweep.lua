-- sweep/sweep.lua -- gq.sweep{...}: a script run over many configurations by worker processes. Each run has a folder
-- out/<id>/ with its record.json (what the script wrote for --json) and log.txt, and one line in out/results.jsonl:
--   {"id", "script", "config", "status": "ok"|"failed"|"timeout"|"memory"|"killed", "seconds", "tries",
--    "summary": the record's, or "error"}
-- whatever becomes of the worker. Runs with a line "ok" are not run again.

local gq = ...
local core = gq.core
local options, need, describe, fail, expect = core.options, core.need, core.describe, core.fail, core.expect
local configs, slurm, tabulate = core.sweeping.configs, core.sweeping.slurm, core.sweeping.tabulate

local known <const> = "script grid list options seeds seed workers threads out time_limit memory_limit retries " ..
  "shard slurm tasks submit quiet by mean"
local what <const> = "gq.sweep"

-- ---- the lines of a directory ----

local function lines_of(path)
  local ok, text = pcall(gq.file_read, path)
  local list = {}
  for _, t in ipairs(core.json_lines(ok and text or "")) do
    if t.id then list[#list + 1] = t end
  end
  return list
end

-- Of every run the last line, in the order of their first ones; results.jsonl and those of shards.
local function results(directory)
  expect(type(directory) == "string", "gq.sweep_results", "the directory of a sweep", directory)
  local names, why = core.directory(directory)
  if not names then fail("gq.sweep_results: " .. why) end
  table.sort(names)
  local order, of = {}, {}
  for _, name in ipairs(names) do
    if name:match("^results[%w-]*%.jsonl$") then
      for _, line in ipairs(lines_of(directory .. "/" .. name)) do
        if not of[line.id] then order[#order + 1] = line.id end
        if not (of[line.id] and of[line.id].status == "ok") then of[line.id] = line end
      end
    end
  end
  for k, id in ipairs(order) do order[k] = of[id] end
  return order
end
gq.sweep_results = results
gq.docs[results] = [[
gq.sweep_results(directory): the lines of gq.sweep's runs there, tables {id, config, status, seconds, summary}]]

-- ---- a worker ----

local function log_lines(path)
  local ok, text = pcall(gq.file_read, path)
  local lines = {}
  for line in (ok and text or ""):gmatch("[^\n]+") do lines[#lines + 1] = line end
  return lines
end

-- What a program said last before it failed: the line of "gqlua: ...", or the last one.
local function complaint(path)
  local lines = log_lines(path)
  for k = #lines, 1, -1 do
    local text = lines[k]:match("^[%w_./]*lua[%d.]*: (.*)")
    if text then return text end
  end
  return lines[#lines] or "it said nothing"
end

-- The record that the script wrote for --json; without one, the last line that it printed, if that is JSON.
local function record_of(run)
  local ok, text = pcall(gq.file_read, run.folder .. "/record.json")
  local lines = not ok and log_lines(run.folder .. "/log.txt") or {}
  local fine, record = pcall(gq.json.decode, ok and text or lines[#lines] or "")
  return fine and type(record) == "table" and record or nil
end

-- What becomes of a run whose worker has ended: status, the record or what is wrong.
local function verdict(o, run, how, code)
  local log = run.folder .. "/log.txt"
  if run.overdue then return "timeout", ("it ran past %g s"):format(o.time_limit) end
  if how == "signal" then return "killed", ("ended by signal %d"):format(code) end
  if code == 0 then
    local record = record_of(run)
    if record then return "ok", record end
    return "failed", "no record: the script writes {\"summary\": {...}} to the file of --json"
  end
  local text = complaint(log)
  local memory = o.memory_limit and text:lower():find("memory", 1, true)
  return memory and "memory" or "failed", text
end

local function words_of(o, run)
  local words = { o.program }
  if o.is_gqlua then table.move({ "--threads", tostring(o.threads) }, 1, 2, 2, words) end
  words[#words + 1] = o.script
  configs.arguments(run.config, words)
  words[#words + 1] = "--json"
  words[#words + 1] = run.folder .. "/record.json"
  if o.takes.quiet then words[#words + 1] = "--quiet" end
  if o.takes.out and o.takes.resume then
    table.move({ "--out", run.folder, "--resume" }, 1, 3, #words + 1, words)
  end
  if not o.memory_limit then return words end
  local limited = { "/bin/sh", "-c", 'ulimit -v "$1"; shift; exec "$@"', "sh",
    tostring(math.ceil(o.memory_limit / 1024)) }
  return table.move(words, 1, #words, #limited + 1, limited)
end

local function start(o, run)
  gq.make_directory(run.folder)
  os.remove(run.folder .. "/record.json")
  gq.file_write(run.folder .. "/config.json", gq.json.encode({ script = o.script, config = run.config }) .. "\n")
  run.tries, run.overdue = (run.tries or 0) + 1, nil
  run.started = gq.clock()
  run.process = core.spawn(words_of(o, run), run.folder .. "/log.txt")
end

-- The line of a run that has ended; nil while it runs, and where it is to be tried again.
local function look(o, run)
  local how, code = run.process:poll()
  local seconds = gq.clock() - run.started
  if not how then
    if o.time_limit and seconds > o.time_limit then
      run.process:kill(seconds > o.time_limit + 5)
      run.overdue = true
    end
    return nil
  end
  local status, found = verdict(o, run, how, code)
  if status == "killed" and run.tries <= o.retries then
    start(o, run)
    return nil
  end
  local line = { id = run.id, script = o.script, config = run.config, status = status, seconds = seconds,
    tries = run.tries }
  if status == "ok" then
    line.summary = type(found.summary) == "table" and found.summary or found
  else
    line.error = found
  end
  return line
end

-- ---- all of them ----

local function run_all(o, runs)
  local bar <close> = gq.progress(#runs, { desc = "sweep", shown = o.quiet and false or nil })
  local slots = {}
  -- Workers end with us: on an error, and on Ctrl-C.
  local ending <close> = setmetatable({}, { __close = function()
    for _, run in pairs(slots) do run.process:kill(true) end
  end })
  local next_run, done, failed = 1, 0, 0
  while done < #runs do
    for k = 1, o.workers do
      if not slots[k] and runs[next_run] then
        start(o, runs[next_run])
        slots[k], next_run = runs[next_run], next_run + 1
      end
      local line = slots[k] and look(o, slots[k])
      if line then
        gq.file_append(o.results, gq.json.encode(core.plain(line)))
        slots[k], done = nil, done + 1
        failed = failed + (line.status == "ok" and 0 or 1)
        bar:update(done, failed > 0 and failed .. " failed" or "")
      end
    end
    if done < #runs then core.nap(0.02) end
  end
  return ending and failed
end

-- ---- before and after ----

-- The options that the script's --help lists, asked of scripts that read them by gq.cli.
local function options_of(o)
  local ok, text = pcall(gq.file_read, o.script)
  if not ok then fail(("gq.sweep: script: %s"):format(core.bare(text))) end
  if not text:find("gq.cli", 1, true) then return { json = true } end
  local log = os.tmpname()
  local process <close> = core.spawn({ o.program, o.script, "--help" }, log)
  local started = gq.clock()
  while not process:poll() and gq.clock() - started < 60 do core.nap(0.005) end
  local takes, names = {}, {}
  for name in gq.file_read(log):gmatch("\n  %-%-([%w-]+)") do
    takes[name], names[#names + 1] = true, name
  end
  os.remove(log)
  return takes, names
end

local function check_options(o, runs)
  local takes, names = options_of(o)
  if not takes.json then
    fail(("gq.sweep: %s takes no --json FILE, to which its results go: see gq.cli and gq.experiment"):format(o.script))
  end
  for k in pairs(names and runs[1].config or {}) do
    local name = k:gsub("_", "-")
    if not takes[name] then
      local near = core.nearest(name, names)
      near = near and (", did you mean --%s?"):format(near) or ""
      fail(("gq.sweep: %s has no option --%s%s"):format(o.script, name, near))
    end
  end
  return takes
end

-- "i/n": those of every n-th place.
local function shard_of(o, runs)
  if o.shard == nil then return runs, o.out .. "/results.jsonl" end
  local i, n = tostring(o.shard):match("^(%d+)/(%d+)$")
  i, n = math.tointeger(tonumber(i)), math.tointeger(tonumber(n))
  if not i or i < 1 or i > n then
    fail(("gq.sweep: shard: \"i/n\" expected with i from 1 to n, got %s"):format(describe(o.shard)))
  end
  local own = {}
  for k = i, #runs, n do own[#own + 1] = runs[k] end
  return own, ("%s/results-%d-of-%d.jsonl"):format(o.out, i, n), ("%s/.lock-%d-of-%d"):format(o.out, i, n)
end

-- Shards of one sweep share the directory; two sweeps do not.
local function lock(o, own_path)
  local whole = core.lock(o.out .. "/.lock", own_path ~= nil)
  local own = whole and own_path and core.lock(own_path)
  if not whole or own_path and not own then
    fail(("gq.sweep: another sweep is at work in %s: wait for it, or give another out"):format(o.out))
  end
  return setmetatable({ whole, own }, { __close = function(t)
    for _, l in pairs(t) do l:close() end
  end })
end

-- Those without a line "ok"; their other lines are taken out of our file.
local function unfinished(o, runs)
  local fine, again, left = {}, {}, {}
  for _, line in ipairs(results(o.out)) do fine[line.id] = line.status == "ok" end
  for _, run in ipairs(runs) do
    run.folder = o.out .. "/" .. run.id
    if not fine[run.id] then left[#left + 1], again[run.id] = run, true end
  end
  local kept, all = {}, lines_of(o.results)
  for _, line in ipairs(all) do
    if not again[line.id] then kept[#kept + 1] = gq.json.encode(line) .. "\n" end
  end
  if #kept < #all then gq.file_write(o.results, table.concat(kept)) end
  return left
end

local function prepare(given)
  local o = core.copy(options(given, known, what), {})
  need(o, "script", "string", nil, what)
  o.out = need(o, "out", "string", "runs", what):gsub("(.)/+$", "%1")
  for _, key in ipairs { "time_limit", "memory_limit" } do
    if o[key] ~= nil then need(o, key, "positive", nil, what) end
  end
  o.workers = need(o, "workers", "count", 1, what)
  o.threads = need(o, "threads", "count", math.max(1, gq.threads() // o.workers), what)
  o.retries = need(o, "retries", "integer", 2, what)
  if o.tasks ~= nil then need(o, "tasks", "count", nil, what) end
  o.program = core.executable() or "gqlua"
  o.is_gqlua = o.program:match("[^/]*$"):find("gqlua", 1, true) ~= nil
  return o
end

local function say_table(o, lines)
  local ok, text = pcall(tabulate, lines, { by = o.by, mean = o.mean })
  print(ok and text or core.said(text, "gq.tabulate"))
  local why = core.sweep_reasons(lines, o.results)
  if why and not text:find(why, 1, true) then print(why) end
end

local function sweep(given)
  local o = prepare(given)
  local runs = configs.list(o)
  gq.make_directory(o.out)
  o.takes = check_options(o, runs)
  if o.slurm then
    local job = slurm.write(o, runs, o.is_gqlua and o.program or "gqlua")
    local said = o.submit ~= false and slurm.submit(job) or job
    if not o.quiet then print((said:gsub("%s+$", ""))) end
    return job
  end
  local own, path, own_lock = shard_of(o, runs)
  local ids = {}
  o.results = path
  local held <close> = lock(o, own_lock)
  run_all(o, unfinished(o, own))
  for _, run in ipairs(held and own) do ids[run.id] = true end
  local lines = {}
  for _, line in ipairs(results(o.out)) do
    if ids[line.id] then lines[#lines + 1] = line end
  end
  if not o.quiet then say_table(o, lines) end
  return lines
end

gq.docs[sweep] = [[
gq.sweep{ script, grid | list, seeds, workers = 1, out = "runs/" }: runs a script over configurations, by processes
  grid = {width = {20, 100}, gradient = {"gq", "adjoint"}}: every combination; list = {{width = 20}, ...}, or a function
  of 1, 2, ... that gives such a table, nil at the end; options = {epochs = 5}: the same for all; seeds = 5 or {1, 7}
  The script takes them as --width 20 --seed 1 and writes {"summary": {...}} to --json FILE, as gq.cli and gq.experiment
  do. Each run has a folder out/<id>/ and one line in out/results.jsonl, whatever becomes of its worker: "status" ok,
  failed, timeout, memory or killed. Runs that ended well are not run again, and --resume goes on from checkpoints
  time_limit (seconds), memory_limit (bytes of address space) of a run; retries = 2 of one that was killed; threads of
  each; shard = "i/n": every n-th run; slurm = true or {partition = "x"}: writes out/sweep.sbatch, a job array of
  at most `tasks` jobs, and submits it (submit = false: not); by, mean: of the table printed at the end; quiet = true
  Returns the lines. From the shell: gqlua sweep --help, gqlua table --help]]
return sweep
