-- reproduce.lua -- figures and tables of Norcliffe & Deisenroth (2023): runs the examples over their seeds, each a
-- process of its own, and writes our figures beside the paper's. Under --out:
--   runs.jsonl    a line for each finished run; such a run is not made again
--   records/      the runs' --json records, with their curves
--   fig1.json, fig1.txt ... and fig14.svg, fig15.svg
-- --finished makes no run, and says of every case how many of its runs there are.

local gq = require "gq"
local each = dofile((arg[0]:gsub("reproduce%.lua$", "common.lua"))).each

-- ---- what the paper reports: a row for each figure or table ----

-- A case is {label, options of the script, the paper's figures, within = the part of the summary}. The paper's
-- figure is {mean, deviation}, or {most =} or {least =} where it is a curve, says = the paper's words for it.

local engines = { "direct", "adjoint", "seminorm", "gq" }
local ways = { "gq", "sde-direct", "sde-reversible", "sde-adjoint" }      -- to train an SDE

local function by_engine(list, figures)
  local cases = {}
  for i, gradient in ipairs(list) do
    cases[i] = { gradient, { gradients = gradient }, figures(gradient), within = gradient }
  end
  return cases
end

-- The paper's widths by engine; figures(width) or nothing.
local function by_width(script, list, options, figures)
  local cases = {}
  for rate, gradient in each(gq.paper.rates[script], list) do
    local given = { width = rate[1], gradient = gradient }
    for k, v in pairs(options) do given[k] = v end
    cases[#cases + 1] = { ("width %d, %s"):format(rate[1], gradient), given, figures(rate[1]) }
  end
  return cases
end

-- Fig. 7 in a fifth of the epochs at larger rates, for machines on which 500 steps take hours: {width, rate}.
local short = { { 5, 5e-2 }, { 20, 5e-3 }, { 50, 2e-3 }, { 100, 1e-3 } }

local function in_short()
  local cases = {}
  for row, way in each(short, ways) do
    cases[#cases + 1] = { ("width %d, %s"):format(row[1], way), { width = row[1], lr = row[2], epochs = 20,
      gradient = way }, { test_kl = { most = 10 } } }
  end
  return cases
end

-- The image experiment by channels: where `large`, more than two cores are through with in a day. Seconds are of two
-- epochs, the paper's of 15: rows compare engines.
local function by_channels(dataset, batch, figures)
  local cases = {}
  for channels, gradient in each({ 64, 128, 256, 512 }, { "adjoint", "seminorm", "gq" }) do
    cases[#cases + 1] = { ("%d channels, %s"):format(channels, gradient), { dataset = dataset, channels = channels,
      gradient = gradient, epochs = 2, ["batch-size"] = batch }, figures, large = channels > 64 }
  end
  return cases
end

local accuracy = { "test_accuracy", "accuracy %", format = "%.1f", scale = 100, better = "more" }
local mse = { "test_mse", "mse", format = "%.3g" }
local kl = { "test_kl", "KL x 100", format = "%.2f", scale = 100 }
local step = { "seconds_per_step", "s a step", format = "%.3g" }

local experiments = {
  fig1 = { "largest relative error for T = 19 ... 29 where dz/dt = a z; the paper's are the ends of its axes",
    script = "toy_gradient",
    columns = { { "loss", "L", format = "%.1e" }, { "z0", "dL/dz0", format = "%.1e" },
      { "a", "dL/da", format = "%.1e" }, { "T", "dL/dT", format = "%.1e" } },
    cases = by_engine({ "direct", "aca", "adjoint", "seminorm", "gq" }, function()
      return { loss = { most = 1.2e-5 }, z0 = { most = 6e-6 }, a = { most = 3e-5 }, T = { most = 3.5e-5 } }
    end) },
  fig2 = { "peak memory where dz/dt = a z, and its growth from tolerance 1e-3 to 1e-7",
    script = "memory",
    columns = { { "first", "bytes at 1e-3", format = "%.0f" }, { "last", "at 1e-7", format = "%.0f" },
      { "growth", "growth", format = "%.3f" } },
    cases = by_engine({ "direct", "aca", "adjoint", "gq" }, function(gradient)
      local grows = gradient == "direct" or gradient == "aca"
      return { growth = grows and { least = 1.1, says = "grows" } or { most = 1.05, says = "constant" } }
    end) },
  fig4 = { "nested spheres by width", script = "nested_spheres", seeds = 10, columns = { accuracy },
    cases = by_width("nested_spheres", engines, {}, function(width)
      return width >= 20 and { test_accuracy = { least = 95 } } or {}
    end) },
  fig5 = { "sines by width; the paper's MSE is the end of its axis", script = "sines", seeds = 5, columns = { mse },
    cases = by_width("sines", engines, {}, function() return { test_mse = { most = 0.25 } } end) },
  fig6 = { "MNIST by channels, two of 15 epochs; the files are the user's", script = "images", seeds = 3,
    columns = { accuracy }, cases = by_channels("mnist", 16, { test_accuracy = { least = 97.5 } }) },
  fig6_fashion = { "the same with Fashion-MNIST, which the paper does not have", script = "images", seeds = 3,
    columns = { accuracy }, cases = by_channels("fashion_mnist", 16, {}) },
  fig11 = { "CIFAR-10 by channels, two of 15 epochs; the files are the user's", script = "images", seeds = 3,
    columns = { accuracy }, cases = by_channels("cifar10", 16, { test_accuracy = { least = 56 } }) },
  fig12 = { "SVHN by channels, two of 15 epochs; the files are the user's", script = "images", seeds = 3,
    columns = { accuracy }, cases = by_channels("svhn", 16, { test_accuracy = { least = 86 } }) },
  fig13 = { "MNIST in batches of 256, where the paper's gq is slower than the adjoint, two of 15 epochs",
    script = "images", seeds = 3, columns = { accuracy }, cases = by_channels("mnist", 256, {}) },
  fig13_fashion = { "the same with Fashion-MNIST", script = "images", seeds = 3, columns = { accuracy },
    cases = by_channels("fashion_mnist", 256, {}) },
  fig7 = { "Ornstein-Uhlenbeck by width; the paper's KL is the end of its axis", script = "train_ou", seeds = 5,
    columns = { kl, step }, paired = "gq",
    cases = by_width("train_ou", ways, { epochs = 100 }, function() return { test_kl = { most = 10 } } end) },
  fig7_short = { "the same in 20 epochs at 10 to 50 times the paper's rates", script = "train_ou", seeds = 3,
    columns = { kl, step }, paired = "gq", cases = in_short() },
  fig14 = { "Ornstein-Uhlenbeck, width 100: test KL by epoch and by seconds", script = "train_ou", seeds = 5,
    columns = { kl, step }, curve = "test_kl",
    cases = { { "sde-adjoint", { width = 100, epochs = 100, gradient = "sde-adjoint" }, {} },
      { "gq", { width = 100, epochs = 100, gradient = "gq" }, {} } } },
  fig15 = { "Ornstein-Uhlenbeck, width 20: what was learnt", script = "train_ou", picture = true, columns = { kl },
    cases = { { "gq", { width = 20, epochs = 100, gradient = "gq", seed = 1 }, {} } } },
  fig16 = { "crossing trajectories by width; the paper's MSE is a mark of its axis", script = "crossing", seeds = 10,
    columns = { mse },
    cases = by_width("crossing", engines, {}, function() return { test_mse = { most = 5e-4 } } end) },
  table2 = { "nested spheres, width 1500, by C", script = "nested_spheres", seeds = 5, columns = { accuracy }, cases = {
    { "C 1e-3", { width = 1500, C = 1e-3 }, { test_accuracy = { 79.0, 26.9 }, seconds = 61.4 } },
    { "C 0.1", { width = 1500, C = 0.1 }, { test_accuracy = { 95.6, 8.8 }, seconds = 89.8 } },
    { "C 1e2", { width = 1500, C = 1e2 }, { test_accuracy = { 95.8, 8.4 }, seconds = 141.0 } },
    { "C 1e5", { width = 1500, C = 1e5 }, { test_accuracy = { 95.8, 8.4 }, seconds = 141.7 } },
  } },
  table4 = { "sines, width 1000, by measurement times", script = "sines", seeds = 5, columns = { mse }, cases = {
    { "10 regular", { times = 10 }, { test_mse = { 0.08, 0.07 }, seconds = 48.5 } },
    { "10 irregular", { times = 10, irregular = true }, { test_mse = { 0.07, 0.06 }, seconds = 239.2 } },
    { "50 regular", { times = 50 }, { test_mse = { 0.11, 0.09 }, seconds = 96.7 } },
    { "50 irregular", { times = 50, irregular = true }, { test_mse = { 0.09, 0.08 }, seconds = 1880.5 } },
  } },
  table6 = { "Ornstein-Uhlenbeck, width 20, by cosines", script = "train_ou", seeds = 5, columns = { kl }, cases = {
    { "0 cosines", { width = 20, epochs = 100, cosines = 0 }, { test_kl = { 75.55, 32.30 }, seconds = 60 * 9.62 } },
    { "1 cosine", { width = 20, epochs = 100, cosines = 1 }, { test_kl = { 28.01, 2.48 }, seconds = 60 * 11.34 } },
    { "5 cosines", { width = 20, epochs = 100, cosines = 5 }, { test_kl = { 7.49, 0.86 }, seconds = 60 * 12.97 } },
    { "10 cosines", { width = 20, epochs = 100, cosines = 10 }, { test_kl = { 6.50, 0.74 }, seconds = 60 * 19.88 } },
    { "25 cosines", { width = 20, epochs = 100, cosines = 25 }, { test_kl = { 6.18, 0.68 }, seconds = 60 * 33.13 } },
    { "50 cosines", { width = 20, epochs = 100, cosines = 50 }, { test_kl = { 6.12, 0.66 }, seconds = 60 * 51.97 } },
  } },
}

local order = { "fig1", "fig2", "fig4", "fig5", "fig6", "fig6_fashion", "fig7", "fig7_short", "fig11", "fig12", "fig13",
  "fig13_fashion", "fig14", "fig15", "fig16", "table2", "table4", "table6" }

-- ---- options ----

local function contents()
  local lines = {}
  for i, name in ipairs(order) do lines[i] = ("  %-13s %s"):format(name, experiments[name][1]) end
  return table.concat(lines, "\n")
end

local o = gq.cli {
  about = "Run figures and tables of the paper, and write ours beside them.",
  more = "figures and tables (or all):\n" .. contents() .. "\nA run that is in --out is not made again. " ..
    "Fig. 10's curves are in the records of fig6.",
  words = "FIGURE...",
  { "seeds", nil, "seeds of each case (by default as many as the paper's)", "integer", n = 4 }, "seed",
  { "cases", nil, "only cases whose label contains this", "text" },
  { "large", false, "also the cases that take days: the image experiments with more than 64 channels" },
  { "extra", nil, "further options of every run, as one text", "text" },
  { "finished", false, "make no run: tables of those that were made" },
  { "out", "runs/reproduce", "directory of runs and tables" }, "quick", "quiet",
}
if not o then return end

local function refuse(...)
  io.stderr:write(("reproduce: %s\n"):format((...):format(select(2, ...))))
  os.exit(2, true)
end

if #o.words == 0 then refuse("a figure or table expected; there are\n%s", contents()) end
for _, name in ipairs(o.words) do
  if name ~= "all" and not experiments[name] then
    refuse("%s: no such figure or table; there are\n%s", name, contents())
  end
end

local function say(...)
  if not o.quiet then print(string.format(...)) end
end

-- ---- runs ----

local function quote(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end

-- gqlua as it was started, with its own options.
local program = {}
for i = -1, -math.huge, -1 do
  if not arg[i] then break end
  table.insert(program, 1, quote(arg[i]))
end
local examples = (arg[0]:match("^(.*)scripts/[^/]*$") or "") .. "examples/"

-- Options that quick runs have from their scripts.
local small = { epochs = true, channels = true, dataset = true, ["batch-size"] = true }

-- What a run is called: its script and options. Quick runs are of small models.
local function name_of(script, given, seed)
  local options = {}
  for k, v in pairs(given) do
    if o.quick and k == "width" then v = math.min(v, 20) end
    if not (o.quick and small[k]) then
      options[#options + 1] = v == true and "--" .. k or ("--%s %s"):format(k, v)
    end
  end
  options[#options + 1] = "--paper"
  table.sort(options)
  if seed then options[#options + 1] = "--seed " .. seed end
  if o.quick then options[#options + 1] = "--quick" end
  if o.extra then options[#options + 1] = o.extra end
  return ("%s %s"):format(script, table.concat(options, " "))
end

-- Finished runs by name. A line that is no JSON was cut off: that run is made again.
local log = gq.logger.jsonl(o.out .. "/runs.jsonl")
local finished = {}

local function read_log()
  gq.make_directory(o.out .. "/records")
  local file = io.open(log.path, "r")
  if not file then return end
  local text = file:read("a")
  file:close()
  for line in text:gmatch("[^\n]+") do
    local ok, row = pcall(gq.json.decode, line)
    if ok and type(row) == "table" and row.run then finished[row.run] = row end
  end
end

-- The run's line in the log; nil if it failed. picture_: where it draws what it learnt.
local function finish(name, picture_)
  if o.finished or finished[name] and (not picture_ or io.open(picture_)) then return finished[name] end
  local json = ("%s/records/%s.json"):format(o.out, name:gsub("[^%w.]+", "_"))
  local script, options = name:match("^(%S+) (.*)$")
  if picture_ then options = options .. " --plot " .. quote(picture_) end
  local command = ("exec %s %s %s --quiet --json %s </dev/null"):format(table.concat(program, " "),
    quote(examples .. script .. ".lua"), options, quote(json))
  local started = gq.clock()
  local ok, how, code = os.execute(command)
  if how == "signal" or code == 130 then error(("stopped by signal %d; call again to go on"):format(code), 0) end
  if not ok then
    io.stderr:write(("reproduce: this ended with status %d: %s\n"):format(code, command))
    return nil
  end
  local record = gq.json.decode(gq.file_read(json))
  local row = { run = name, config = record.config, summary = record.summary, record = json,
    wall_seconds = gq.clock() - started }
  log(row)
  finished[name] = row
  return row
end

-- ---- figures of a case ----

local function statistics(list)
  if #list == 0 then return nil end
  local mean, sum = 0, 0
  for _, x in ipairs(list) do mean = mean + x / #list end
  for _, x in ipairs(list) do sum = sum + (x - mean) ^ 2 end
  return { mean = mean, deviation = #list > 1 and math.sqrt(sum / (#list - 1)) or nil, each = list }
end

-- Ours is not worse than the paper's mean by more than its deviation, or within its bound.
local function agrees(ours, paper, better)
  if paper.most then return ours.mean <= paper.most end
  if paper.least then return ours.mean >= paper.least end
  if better == "more" then return ours.mean >= paper[1] - paper[2] end
  return ours.mean <= paper[1] + paper[2]
end

local function paper_figure(p)
  if not p then return nil end
  return { mean = p[1], deviation = p[2], most = p.most, least = p.least, says = p.says }
end

local function row_of(e, case, runs)
  local row = { case = case[1], runs = #runs, figures = {}, paper_seconds = case[3].seconds }
  local function gather(key, scale)
    local list = {}
    for _, run in ipairs(runs) do
      local summary = case.within and run.summary[case.within] or run.summary
      if type(summary[key]) == "number" then list[#list + 1] = summary[key] * (scale or 1) end
    end
    return statistics(list)
  end
  for _, column in ipairs(e.columns) do
    local ours, paper = gather(column[1], column.scale), case[3][column[1]]
    row.figures[column[1]] = { ours = ours, paper = paper_figure(paper) }
    if ours and paper and not o.quick then
      row.agrees = agrees(ours, paper, column.better) and row.agrees ~= false
    end
  end
  row.seconds = gather("seconds")
  return row
end

-- Differences of the first column to the case of the same width by gradient `to`, seed by seed, and their standard
-- error.
local function add_pairs(e, rows)
  local column, of = e.columns[1][1], {}
  for _, row in ipairs(rows) do of[row.case] = row end
  for _, row in ipairs(rows) do
    local other = of[row.case:gsub("[^ ]+$", e.paired)]
    local a, b, list = row.figures[column].ours, other and other ~= row and other.figures[column].ours, {}
    for i, seed in ipairs(a and b and row.seeds or {}) do
      for j, its in ipairs(other.seeds) do
        if its == seed then list[#list + 1] = a.each[i] - b.each[j] end
      end
    end
    local d = statistics(list)
    if d and d.deviation then row.paired = { mean = d.mean, error = d.deviation / math.sqrt(#list) } end
  end
end

-- Times as multiples of the first case's: machines differ.
local function add_ratios(rows)
  local first = rows[1]
  for _, row in ipairs(rows) do
    if row.seconds and first.seconds and first.seconds.mean > 0 then
      row.seconds_ratio = row.seconds.mean / first.seconds.mean
    end
    if row.paper_seconds and first.paper_seconds then row.paper_ratio = row.paper_seconds / first.paper_seconds end
  end
end

-- ---- tables as text ----

local function show(figure, format)
  if not figure then return "-" end
  if figure.says then return figure.says end
  if figure.most then return "at most " .. format:format(figure.most) end
  if figure.least then return "at least " .. format:format(figure.least) end
  local deviation = figure.deviation and " +- " .. format:format(figure.deviation) or ""
  return format:format(figure.mean) .. deviation
end

-- Lines of cells as text, columns as wide as their widest.
local function aligned(lines)
  local width, text = {}, {}
  for _, cells in ipairs(lines) do
    for i, cell in ipairs(cells) do width[i] = math.max(width[i] or 0, #cell) end
  end
  for k, cells in ipairs(lines) do
    local padded = {}
    for i, cell in ipairs(cells) do padded[i] = cell .. (" "):rep(width[i] - #cell) end
    text[k] = table.concat(padded, "  "):gsub("%s+$", "")
  end
  return table.concat(text, "\n") .. "\n"
end

-- Columns of the text: {head, cell(row)}; one that says nothing is left out.
local function columns_of(e)
  local columns = { { "case", function(row) return row.case end },
    { "runs", function(row) return row.runs < row.asked and ("%d of %d"):format(row.runs, row.asked)
      or tostring(row.runs) end } }
  local function add(head, cell) columns[#columns + 1] = { head, cell } end
  for _, column in ipairs(e.columns) do
    add(column[2], function(row) return show(row.figures[column[1]].ours, column.format) end)
    add("paper", function(row) return show(row.figures[column[1]].paper, column.format) end)
  end
  if e.paired then
    add("- " .. e.paired, function(row)
      local d, format = row.paired, e.columns[1].format
      return d and ("%s +- %s"):format(format:format(d.mean), format:format(d.error)) or "-"
    end)
  end
  local function ratio(x) return x and ("%.2f"):format(x) or "-" end
  add("seconds", function(row) return show(row.seconds, "%.3g") end)
  add("ratio", function(row) return ratio(row.seconds_ratio) end)
  add("paper", function(row) return ratio(row.paper_ratio) end)
  add("agrees", function(row) return row.agrees == nil and "-" or row.agrees and "yes" or "no" end)
  return columns
end

local function text_of(e, rows)
  local lines = {}
  for i = 0, #rows do lines[i + 1] = {} end
  for _, column in ipairs(columns_of(e)) do
    local cells, says = { column[1] }, false
    for i, row in ipairs(rows) do
      cells[i + 1] = column[2](row)
      says = says or cells[i + 1] ~= "-"
    end
    for i, cell in ipairs(says and cells or {}) do table.insert(lines[i], cell) end
  end
  return aligned(lines)
end

-- ---- one figure or table ----

local failed = 0

-- The curves of the runs, over epochs and over seconds: the mean of the runs that there are.
local function draw_curves(name, e, all)
  local panels = { {}, {} }
  for _, case in ipairs(all) do
    local n, epochs, seconds, values = 0, {}, {}, {}
    for _, run in ipairs(case.runs) do
      local record, at = gq.json.decode(gq.file_read(run.record)), 0
      for i, row in ipairs(record.epochs) do
        at = at + (row.epoch > 0 and row.seconds or 0)
        epochs[i], seconds[i], values[i] = row.epoch, (seconds[i] or 0) + at, (values[i] or 0) + row[e.curve]
      end
      n = n + 1
    end
    for i = 1, #values do seconds[i], values[i] = seconds[i] / n, values[i] / n end
    if n > 0 then
      table.insert(panels[1], { epochs, values, label = case.label })
      table.insert(panels[2], { seconds, values, label = case.label })
    end
  end
  if #panels[1] == 0 then return end
  for i, x in ipairs { "epoch", "seconds" } do
    panels[i].xlabel, panels[i].ylabel, panels[i].out = x, e.columns[1][1], false
    panels[i] = gq.plot.line(panels[i])
  end
  gq.plot.panels { panels, out = ("%s/%s%s.svg"):format(o.out, name, o.quick and "-quick" or "") }
end

local function reproduce(name)
  local e, rows = experiments[name], {}
  local first, last = o.seed, o.seed + (o.seeds or e.seeds and (o.quick and 1 or e.seeds) or 1) - 1
  if not e.seeds then last = first end                    -- nothing in it is random, or one is drawn
  local curves = {}
  for _, case in ipairs(e.cases) do
    if not o.cases or case[1]:find(o.cases, 1, true) then
      local runs, seeds = {}, {}
      for seed = first, case.large and not (o.large or o.quick) and first - 1 or last do
        if not o.finished then say("%s: %s%s", name, case[1], e.seeds and (", seed %d"):format(seed) or "") end
        local picture = e.picture and ("%s/%s%s.svg"):format(o.out, name, o.quick and "-quick" or "") or nil
        local run = finish(name_of(e.script, case[2], e.seeds and seed), picture)
        if run then runs[#runs + 1], seeds[#seeds + 1] = run, seed elseif not o.finished then failed = failed + 1 end
      end
      rows[#rows + 1] = row_of(e, case, runs)
      rows[#rows].asked, rows[#rows].seeds = last - first + 1, seeds
      curves[#curves + 1] = { label = case[1], runs = runs }
    end
  end
  if #rows == 0 then refuse("%s has no case whose label contains %q", name, o.cases) end
  add_ratios(rows)
  if e.paired then add_pairs(e, rows) end
  if e.curve then draw_curves(name, e, curves) end
  local text = ("%s: %s%s\n"):format(name, e[1], o.quick and " (quick: not comparable)" or "") .. text_of(e, rows)
  local path = ("%s/%s%s"):format(o.out, name, o.quick and "-quick" or "")
  gq.file_write(path .. ".txt", text)
  local record = { name = name, about = e[1], quick = o.quick, threads = gq.threads(), extra = o.extra, rows = rows }
  gq.file_write(path .. ".json", gq.json_encode(gq.core.plain(record)) .. "\n")
  say("\n%s", text)
end

read_log()
local all = o.words[1] == "all" and #o.words == 1
for _, name in ipairs(all and order or o.words) do reproduce(name) end
if failed > 0 then
  io.stderr:write(("reproduce: %d runs failed\n"):format(failed))
  os.exit(1, true)
end
