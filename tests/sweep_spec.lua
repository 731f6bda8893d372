-- gq.sweep and gq.tabulate: configurations, workers that end in every way, resuming, shards, Slurm, tables.

local gq = require "gq"
local helper = require "tests.helper"
local read = helper.read
local gqlua = helper.gqlua

-- A script that does what its options say; without gq.cli, so that no --help is asked of it.
local script_text = [[
local gq = require "gq"
local o, k = {}, 1
while arg[k] do
  local name = arg[k]:match("^%-%-(.*)")
  local value = arg[k + 1]
  if value == nil or value:match("^%-%-") then o[name], k = true, k + 1 else o[name], k = value, k + 2 end
end
local marker = o.json:gsub("record.json$", "was-here")
if o["kill-once"] and not io.open(marker) then
  io.open(marker, "w"):close()
  os.execute("kill -9 $PPID")
end
if o.how == "kill" then os.execute("kill -9 $PPID") end
if o.how == "hang" then while true do end end
if o.how == "fail" then error("the moon is full") end
if o.how == "memory" then local x = gq.zeros(2 ^ 28) end
if o.how == "silent" then return end
if o.how == "print" then return print('{"test_kl": 7}') end
local width, seed = tonumber(o.width or 1), tonumber(o.seed or 0)
gq.file_write(o.json, gq.json.encode { config = o, summary = { test_kl = width + 0.5 * seed, seconds = 2.0 } })
]]

local folder = helper.folder()
local script = helper.write(folder .. "/script.lua", script_text)

local fresh = 0
local function place()
  fresh = fresh + 1
  return ("%s/runs%d"):format(folder, fresh)
end

local function sweep(given)
  given.script, given.quiet, given.out = given.script or script, true, given.out or place()
  return gq.sweep(given), given.out
end

local function shell(command)
  local ok, _, code = os.execute(("{ %s\n} >%s/said 2>&1 </dev/null"):format(command, folder))
  return read(folder .. "/said"), ok and 0 or code
end

local function count_lines(path)
  local n, seen = 0, {}
  for line in io.lines(path) do
    n = n + 1
    local t = gq.json.decode(line)
    assert.is_nil(seen[t.id])
    seen[t.id] = true
  end
  return n
end

describe("gq.sweep", function()
  it("runs every combination with every seed, each with a line of its own", function()
    local lines, out = sweep { grid = { width = { 1, 2 }, ["batch-size"] = { 3, 4 } }, seeds = 3, workers = 2 }
    assert.equal(12, #lines)
    assert.equal(12, count_lines(out .. "/results.jsonl"))
    for _, line in ipairs(lines) do
      assert.equal("ok", line.status)
      assert.close(line.summary.test_kl, line.config.width + 0.5 * line.config.seed)
      local record = gq.json.decode(read(("%s/%s/record.json"):format(out, line.id)))
      assert.equal(tostring(line.config.batch_size), record.config["batch-size"])
    end
  end)

  it("takes lists, functions, flags and options for all", function()
    local twice = { width = 5, flag = true, other = false }
    local lines = sweep { list = { twice, twice }, options = { lr = 1e-3 } }
    assert.equal(1, #lines)
    assert.same({ width = 5, flag = true, other = false, lr = 1e-3 }, lines[1].config)
    lines = sweep { list = function(i) return i <= 3 and { width = i * i } or nil end, seeds = { 7 } }
    assert.same({ 1, 4, 9 }, { lines[1].config.width, lines[2].config.width, lines[3].config.width })
    assert.equal(7, lines[1].config.seed)
  end)

  it("names a run by its configuration alone", function()
    local a = sweep { grid = { width = 3, lr = { 0.1 } } }
    local b = sweep { list = { { lr = 0.1, width = 3 } } }
    assert.equal(a[1].id, b[1].id)
    assert.not_equal(a[1].id, sweep({ grid = { width = 4, lr = 0.1 } })[1].id)
  end)

  it("writes a line whatever becomes of a worker", function()
    local lines = sweep { grid = { how = { "fail", "kill", "hang", "silent", "print" } }, workers = 3, retries = 1,
      time_limit = 1.5 }
    local of = {}
    for _, line in ipairs(lines) do of[line.config.how] = line end
    assert.same({ "failed", "killed", "timeout", "failed", "ok" },
      { of.fail.status, of.kill.status, of.hang.status, of.silent.status, of.print.status })
    assert.truthy(of.fail.error:find("the moon is full", 1, true))
    assert.truthy(of.silent.error:find("--json", 1, true))
    assert.equal(2, of.kill.tries)
    assert.equal(1, of.hang.tries)
    assert.equal(7, of.print.summary.test_kl)
  end)

  it("holds runs to a limit of memory", function()
    if os.getenv("GQ_TEST_CONFIG") == "asan" then return end       -- its shadow alone is more
    local lines = sweep { grid = { how = { "memory", "none" } }, memory_limit = 2 ^ 30 }
    assert.same({ "memory", "ok" }, { lines[1].status, lines[2].status })
  end)

  it("ends with 24 lines where each of 24 workers was killed once", function()
    local grid = { width = { 1, 2, 3, 4, 5, 6, 7, 8 }, ["kill-once"] = true }
    local lines, out = sweep { grid = grid, seeds = 3, workers = 4 }
    assert.equal(24, #lines)
    assert.equal(24, count_lines(out .. "/results.jsonl"))
    for _, line in ipairs(lines) do assert.same({ "ok", 2 }, { line.status, line.tries }) end
  end)

  it("goes on where it was killed, and runs again what failed", function()
    local out = place()
    local command = ("%s sweep %s --width 1,2,3,4,5,6 --seeds 4 --out %s"):format(gqlua, script, out)
    shell("timeout -s KILL 0.4 " .. command)
    local text, code = shell(command .. " --workers 2")
    assert.equal(0, code, text)
    assert.equal(24, count_lines(out .. "/results.jsonl"))
    local before = read(out .. "/results.jsonl")
    sweep { grid = { width = { 1, 2, 3, 4, 5, 6 } }, seeds = 4, out = out }
    assert.equal(before, read(out .. "/results.jsonl"))
    sweep { grid = { how = { "fail" } }, out = out }
    assert.equal("failed", sweep({ grid = { how = { "fail" } }, out = out })[1].status)
    assert.equal(25, count_lines(out .. "/results.jsonl"))
  end)

  it("gives each shard its part, once", function()
    local out = place()
    for i = 1, 3 do
      local part = sweep { grid = { width = { 1, 2, 3, 4, 5, 6, 7 } }, shard = i .. "/3", out = out }
      assert.equal(i == 1 and 3 or 2, #part)
    end
    assert.equal(7, #gq.sweep_results(out))
    assert.equal(7, #sweep { grid = { width = { 1, 2, 3, 4, 5, 6, 7 } }, out = out })
    assert.is_nil(io.open(out .. "/results.jsonl"))
  end)

  it("refuses a second sweep in a directory at work, but shards share it", function()
    local out = place()
    gq.make_directory(out)
    local whole = gq.core.lock(out .. "/.lock")
    helper.raises("another sweep is at work in " .. out, sweep, { grid = { width = 1 }, out = out })
    helper.raises("another sweep", sweep, { grid = { width = 1 }, out = out, shard = "1/2" })
    whole:close()
    local shared <close> = gq.core.lock(out .. "/.lock", true)
    local first <close> = gq.core.lock(out .. "/.lock-1-of-2")
    helper.raises("another sweep", sweep, { grid = { width = { 1, 2 } }, out = out })
    helper.raises("another sweep", sweep, { grid = { width = { 1, 2 } }, out = out, shard = "1/2" })
    assert.equal(1, #sweep { grid = { width = { 1, 2 } }, out = out, shard = "2/2" })
    assert.truthy(shared and first)
  end)

  it("writes a job array of Slurm whose tasks do it all, and submits it", function()
    local out, bin = place(), folder .. "/bin"
    gq.make_directory(bin)
    gq.file_write(bin .. "/sbatch", [[#!/bin/sh
n=$(sed -n 's/^#SBATCH --array=1-//p' "$1")
for SLURM_ARRAY_TASK_ID in $(seq "$n"); do export SLURM_ARRAY_TASK_ID; sh "$1" || exit 1; done
echo "Submitted batch job 1"
]])
    os.execute("chmod +x " .. bin .. "/sbatch")
    local asan = os.getenv "GQ_TEST_CONFIG" == "asan"     -- which takes terabytes of address space
    local text, code = shell(("PATH=%s:$PATH %s sweep %s --width 1,2,3,4,5 --out %s --slurm partition=short --tasks 2 "
      .. "--time-limit 100 %s"):format(bin, gqlua, script, out, asan and "" or "--memory-limit 4G"))
    assert.equal(0, code, text)
    assert.truthy(text:find("Submitted batch job 1", 1, true))
    local job = read(out .. "/sweep.sbatch")
    for _, line in ipairs { "#SBATCH --array=1-2", "#SBATCH --partition=short", "#SBATCH --time=0:06:00",
      not asan and "#SBATCH --mem=4296M" or "#SBATCH --time=0:06:00" } do
      assert.truthy(job:find(line .. "\n", 1, true), job)
    end
    assert.equal(5, #gq.sweep_results(out))
    assert.equal(3, count_lines(out .. "/results-1-of-2.jsonl"))
  end)

  it("says where the job is when it cannot be submitted", function()
    local out = place()
    local text, code = shell(("PATH=/nonexistent %s sweep %s --width 1 --out %s --slurm"):format(gqlua, script, out))
    assert.equal(2, code)
    assert.truthy(text:find("slurm-client", 1, true) and text:find("sbatch " .. out, 1, true), text)
  end)

  it("is what an example makes of several values", function()
    local out = place()
    local script_and = "examples/nested_spheres.lua --quick --width 5,6 --gradient gq,direct --out "
    local text, code = shell(("%s %s%s"):format(gqlua, script_and, out))
    assert.equal(0, code, text)
    assert.truthy(text:find("gradient  width  test_accuracy", 1, true), text)
    assert.equal(4, count_lines(out .. "/results.jsonl"))
    assert.truthy(io.open(("%s/%s/nested_spheres-seed1.safetensors"):format(out, gq.sweep_results(out)[1].id)))
  end)

  it("#slow makes the tables of ablate_c and ablate_cosines", function()
    for _, name in ipairs { "ablate_c", "ablate_cosines" } do
      local text, code = shell(("%s examples/%s.lua --quick --format csv --out %s"):format(gqlua, name, place()))
      assert.equal(0, code, text)
      assert.truthy(text:find("seconds_mean,seconds_sd,runs", 1, true), text)
    end
  end)

  it("over the lists of a script's own command line takes its seeds", function()
    for k, seeds in ipairs { "", '"seeds",' } do
      local own = ("%s/own%d.lua"):format(folder, k)
      gq.file_write(own, ([[
local gq = require "gq"
local o = gq.cli { about = "x", { "width", 1, "how wide", "integer" }, "seed", %s "out", "json" }
if o then gq.file_write(o.json, gq.json.encode { config = o, summary = { test_kl = o.width + 10 * o.seed } }) end
]]):format(seeds))
      for words, values in pairs { ["--width 1,2 --seed 3"] = { 31, 32 }, ["--seed 3,4"] = { 31, 41 },
        ["--width 1,2 --seed 3,4"] = { 31, 32, 41, 42 }, ["--width 1,2"] = { 11, 12 } } do
        local out, got = ("%s/own%d"):format(folder, k), {}
        os.execute("rm -rf " .. out)
        local text, code = shell(("%s %s %s --out %s"):format(gqlua, own, words, out))
        assert.same(0, code, text)
        for i, line in ipairs(gq.sweep_results(out)) do got[i] = math.tointeger(line.summary.test_kl) end
        table.sort(got)
        assert.same(values, got, words)
      end
    end
    assert.truthy(shell(gqlua .. " " .. folder .. "/own2.lua --seed 1,2 --seeds 3"):find("give one of them", 1, true))
  end)

  it("refuses what cannot be run", function()
    for words, given in pairs {
      ["script missing"] = { grid = { width = 1 }, script = false },
      ["script No such file"] = { grid = { width = 1 }, script = "none.lua" },
      ["what to run: grid list"] = {}, ["grid table of lists number"] = { grid = 3 },
      ["names expected the option list"] = { grid = { { width = 1 } } },
      ["width has no values"] = { grid = { width = {} } },
      ["no option --widht did you mean --width"] = { script = "examples/sines.lua", grid = { widht = { 1 } } },
      ["takes no --json"] = { script = "examples/ablate_c.lua", grid = { width = 1 } },
      ["unknown option 'worker' 'workers'"] = { grid = { width = 1 }, worker = 2 },
      ["shard i/n"] = { grid = { width = 1 }, shard = "3/2" },
      ["time_limit positive"] = { grid = { width = 1 }, time_limit = 0 },
      ["width number string table"] = { list = { { width = {} } } },
      ["entry 2 string"] = { list = { { width = 1 }, "a" } },
      ["no configurations"] = { list = {} },
      ["seed in the configurations seeds would replace it"] = { grid = { seed = { 1, 2 } }, seeds = 2 },
      ["seed is the first of so many"] = { grid = { width = 1 }, seed = 3, seeds = { 1, 2 } },
      ["seeds list of integers number 1.5"] = { grid = { width = 1 }, seeds = { 1.5 } },
      ["json is the file leave it out"] = { grid = { json = { "x" } } },
    } do
      if given.script == false then
        helper.raises("script missing", gq.sweep, { grid = { width = 1 } })
      else
        helper.raises(words, sweep, given)
      end
    end
    helper.raises("make_directory", sweep, { grid = { width = 1 }, out = "/dev/null/x" })
    assert.truthy(shell(gqlua .. " sweep"):find("which script", 1, true))
    assert.truthy(shell(gqlua .. " sweep none.lua --width 1"):find("script: none.lua: cannot open", 1, true))
    assert.truthy(shell(("%s sweep %s --workers"):format(gqlua, script)):find("--workers: a value is missing", 1, true))
  end)
end)

describe("gq.tabulate", function()
  local lines = {}
  for _, width in ipairs { 8, 16 } do
    for seed = 1, 3 do
      lines[#lines + 1] = { status = "ok", config = { width = width, seed = seed, gradient = "gq_a" }, seconds = 1,
        summary = { test_kl = width / 8 + (seed - 2) * 0.1, seconds = seed * 10 } }
    end
  end
  lines[#lines + 1] = { status = "failed", config = { width = 8 } }

  it("gives means and deviations over seeds, by what was varied", function()
    assert.equal("width       test_kl   seconds  runs\n" .. "8      1.00 +- 0.10  20 +- 10     3\n" ..
      "16     2.00 +- 0.10  20 +- 10     3", gq.tabulate(lines))
  end)

  it("writes Markdown, LaTeX and CSV", function()
    local by = { by = "width,gradient", mean = "kl" }
    assert.equal("| width | gradient |          kl | runs |\n| ----- | -------- | ----------: | ---: |\n" ..
      "| 8     | gq_a     | 1.00 ± 0.10 |    3 |\n| 16    | gq_a     | 2.00 ± 0.10 |    3 |",
      gq.tabulate(lines, helper.with(by, { format = "markdown" })))
    assert.truthy(gq.tabulate(lines, helper.with(by, { format = "latex" })):find(
      "8 & gq\\_a & 1.00 $\\pm$ 0.10 & 3 \\\\\n", 1, true))
    local csv = gq.tabulate(lines, helper.with(by, { format = "csv" }))
    assert.equal("width,gradient,kl_mean,kl_sd,runs", csv:match("^[^\n]*"))
    assert.close(tonumber(csv:match("\n8,gq_a,[^,]*,([^,]*),3")), 0.1, 1e-12)
  end)

  it("takes all figures where none is called test_", function()
    local plain = { { config = { width = 1 }, summary = { kl = 2, name = "a" } },
      { config = { width = 2 }, summary = { kl = 3 } } }
    assert.equal("width   kl  seconds  runs\n1        2        -     1\n2        3        -     1", gq.tabulate(plain))
  end)

  it("refuses names that no run has, and sweeps that all failed", function()
    helper.raises("by: no run has 'widht' did you mean 'width'", gq.tabulate, lines, { by = { "widht" } })
    helper.raises("mean: no run has 'loss' known: seconds, test_kl", gq.tabulate, lines, { mean = "loss" })
    helper.raises("format markdown \"markdwn\"", gq.tabulate, lines, { format = "markdwn" })
    helper.raises("none of 1 runs a run: failed: no reason given", gq.tabulate, { lines[7] })
    local bad = {}
    for k = 1, 7 do bad[k] = { id = "run" .. k, status = "failed", error = "no good", config = {} } end
    helper.raises("none of 7 runs run1: failed: no good run5: failed and 2 more", gq.tabulate, bad)
    helper.raises("No such file", gq.sweep_results, "nowhere")
    local text, code = shell(gqlua .. " table nowhere")
    assert.truthy(code == 1 and text:find("gqlua table: nowhere", 1, true), text)
  end)
end)
