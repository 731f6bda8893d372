-- sweep/slurm.lua -- a sweep as a job array of Slurm: each task takes its share by --shard.

local gq = ...
local core = gq.core
local fail = core.fail

local function quoted(text) return "'" .. text:gsub("'", [['\'']]) .. "'" end

local function clock_of(seconds)
  local s = math.ceil(seconds)
  return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60)
end

-- sweep.json and sweep.sbatch in the sweep's directory; the path of the latter.
local function write(o, runs, program)
  local tasks = math.min(#runs, o.tasks or 1000)
  local configs = {}
  for k, run in ipairs(runs) do configs[k] = run.config end
  local description = { script = o.script, list = configs, out = o.out, time_limit = o.time_limit,
    memory_limit = o.memory_limit, retries = o.retries, threads = o.threads }
  gq.file_write(o.out .. "/sweep.json", gq.json.encode(description) .. "\n")
  local lines = { "#!/bin/sh", "#SBATCH --job-name=gqlua-" .. o.script:match("([^/]*)$"):gsub("[^%w._-]", "_"),
    ("#SBATCH --array=1-%d"):format(tasks), ("#SBATCH --output=%s/slurm-%%a.log"):format(o.out),
    ("#SBATCH --cpus-per-task=%d"):format(o.threads or 1) }
  local each = math.ceil(#runs / tasks)
  if o.time_limit then lines[#lines + 1] = "#SBATCH --time=" .. clock_of(o.time_limit * each + 60) end
  if o.memory_limit then lines[#lines + 1] = ("#SBATCH --mem=%dM"):format(math.ceil(o.memory_limit / 2 ^ 20) + 200) end
  local extra = {}
  for k in pairs(type(o.slurm) == "table" and o.slurm or {}) do extra[#extra + 1] = k end
  table.sort(extra)
  for _, k in ipairs(extra) do
    local v = tostring(o.slurm[k])
    if not tostring(k):match("^[%a-]+$") or v:find("%s") then
      fail(("gq.sweep: slurm: an option of sbatch and its value expected, got %s=%s"):format(tostring(k), v))
    end
    lines[#lines + 1] = ("#SBATCH --%s=%s"):format(k, v)
  end
  lines[#lines + 1] = ("exec %s sweep %s --workers 1 --shard \"$SLURM_ARRAY_TASK_ID/%d\""):format(quoted(program),
    quoted(o.out .. "/sweep.json"), tasks)
  local path = o.out .. "/sweep.sbatch"
  gq.file_write(path, table.concat(lines, "\n") .. "\n")
  return path
end

local function submit(path)
  local pipe = io.popen(("sbatch %s 2>&1"):format(quoted(path)))
  local said = pipe:read("a")
  local ok, _, code = pipe:close()
  if code == 127 then
    fail(("gq.sweep: sbatch is not installed here (apt-get install slurm-client); the job is written: sbatch %s")
      :format(path))
  end
  if not ok then fail(("gq.sweep: sbatch %s: %s"):format(path, said)) end
  return said
end

return { write = write, submit = submit }
