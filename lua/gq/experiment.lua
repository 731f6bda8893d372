-- experiment.lua -- gq.experiment{...}: what every script in examples/ does around its run: seeds, the record
-- of --json, and the figures at the end. Also gq.epoch_line, what they print of an epoch.
--
--   options  the table of gq.cli (seed, seeds, json, quiet and out are read)
--   metric   the figure that counts, "test_kl"
--   percent  true: the metric is a fraction and shown in percent
--   run      run(seed) -> rows, state: the results of gq.train
--
-- Returns the record {config, epochs, summary}. With several seeds every row of epochs names its seed, and
-- the summary holds means, with <metric>_std and the list <metric>_each.
--
-- The record's run tells version, date, host, threads and command.
--
-- A script that trains nothing gives its figures instead of metric and run: rows, a list of tables, and
-- summary, a table. Its record is {config, rows, summary}.

local gq = ...
local options, need, describe, fail = gq.core.options, gq.core.need, gq.core.describe, gq.core.fail

local function mean_and_deviation(list)
  local mean, sum = 0, 0
  for _, x in ipairs(list) do mean = mean + x / #list end
  for _, x in ipairs(list) do sum = sum + (x - mean) ^ 2 end
  return mean, #list > 1 and math.sqrt(sum / (#list - 1)) or 0
end

-- Figures of the last rows, averaged over the runs.
local function last_figures(runs)
  local lists, summary = {}, {}
  for _, rows in ipairs(runs) do
    for k, v in next, rows[#rows] do
      if type(v) == "number" and k:match("^t%a+_") then
        lists[k] = lists[k] or {}
        table.insert(lists[k], v)
      end
    end
  end
  for k, list in next, lists do summary[k] = mean_and_deviation(list) end
  return lists, summary
end

local function gather(o, runs, metric, steps)
  local lists, summary = last_figures(runs)
  local epochs, seconds = {}, 0
  for i, rows in ipairs(runs) do
    for _, row in ipairs(rows) do
      if #runs > 1 then row.seed = (o.seed or 0) + i - 1 end
      seconds = seconds + (type(row.seconds) == "number" and row.seconds or 0)
      epochs[#epochs + 1] = row
    end
  end
  if #runs > 1 and lists[metric] then
    summary[metric .. "_each"] = lists[metric]
    summary[metric .. "_std"] = select(2, mean_and_deviation(lists[metric]))
  end
  summary.seeds, summary.steps, summary.seconds = #runs, steps, seconds
  summary.seconds_per_step = steps > 0 and seconds / steps or nil
  summary.peak_bytes = select(2, gq.memory())
  return { config = o, epochs = epochs, summary = summary }
end

-- Four digits, or three of a small number.
local function number(x) return (x ~= 0 and math.abs(x) < 0.01 and "%.2e" or "%.4f"):format(x) end

local function report(o, record, metric, percent)
  if o.quiet then return end
  local s = record.summary
  local function show(x)
    if type(x) ~= "number" then return "-" end
    return percent and ("%.2f %%"):format(100 * x) or number(x)
  end
  local spread = s[metric .. "_std"] and (" +- %s over %d seeds"):format(show(s[metric .. "_std"]), s.seeds) or ""
  print(("%s %s%s  (%d steps, %.2f ms a step, peak %.1f MB)"):format(metric:gsub("_", " "), show(s[metric]), spread,
    s.steps, 1e3 * (s.seconds_per_step or 0), s.peak_bytes / 1e6))
end

-- What a reader of the record wants to know of the run.
local function circumstances()
  local words = { (arg and arg[0]) }
  for k = 1, arg and #arg or 0 do words[#words + 1] = tostring(arg[k]) end
  return { version = gq.version.gq, date = os.date("!%Y-%m-%dT%H:%M:%SZ"), host = gq.core.hostname(),
    threads = gq.threads(), command = table.concat(words, " ") }
end

local function write(o, record)
  record.run = circumstances()
  if o.json then gq.file_write(o.json, gq.json_encode(gq.core.plain(record)) .. "\n") end
  return record
end

local function experiment(given)
  local what = "gq.experiment"
  given = options(given, "options metric percent run rows summary", what)
  local o = need(given, "options", "table", nil, what)
  if given.rows then
    return write(o, { config = o, rows = given.rows, summary = need(given, "summary", "table", nil, what) })
  end
  local metric, run = need(given, "metric", "string", nil, what), need(given, "run", "callable", nil, what)
  local runs, steps = {}, 0
  if o.out then gq.make_directory(o.out) end
  gq.peak_reset()
  for i = 1, o.seeds or 1 do
    local rows, state = run((o.seed or 0) + i - 1)
    if type(rows) ~= "table" or #rows == 0 then
      fail(("%s: run(seed) returns what gq.train does, its rows; got %s"):format(what, describe(rows)))
    end
    runs[i], steps = rows, steps + (type(state) == "table" and state.step or 0)
  end
  local record = gather(o, runs, metric, steps)
  report(o, record, metric, given.percent)
  return write(o, record)
end

-- ---- what is printed of an epoch ----

-- train_* and test_* of a row in that order, accuracies in percent, then seconds and counts.
local function epoch_line(row)
  if type(row) ~= "table" then error(("gq.epoch_line: a row of gq.train expected, got %s"):format(describe(row)), 2) end
  local names, parts = {}, { ("epoch %3d"):format(need(row, "epoch", "integer", nil, "gq.epoch_line")) }
  for k, v in next, row do
    if type(k) == "string" and type(v) == "number" and k:match("^t%a+_") then names[#names + 1] = k end
  end
  table.sort(names, function(a, b)
    local x, y = a:match("^train_") ~= nil, b:match("^train_") ~= nil
    if x ~= y then return x end
    return a < b
  end)
  for _, k in ipairs(names) do
    local value = k:find("accuracy", 1, true) and ("%5.1f %%"):format(100 * row[k]) or number(row[k])
    parts[#parts + 1] = k:gsub("_", " ") .. " " .. value
  end
  if row.seconds then parts[#parts + 1] = ("%.2f s"):format(row.seconds) end
  if row.nfe then
    parts[#parts + 1] = ("%.0f + %.0f evaluations, %.1f nodes a step"):format(row.nfe, row.nfe_backward or 0,
      row.nodes or 0)
  end
  return table.concat(parts, "  ")
end
gq.epoch_line = epoch_line
gq.docs[epoch_line] = "gq.epoch_line(row): a row of gq.train as a line to print"

gq.docs[experiment] = "gq.experiment{ options, metric, run }: run(seed) for every seed, the --json record, the " ..
  "figures at the end"
return experiment
