-- sweep/tabulate.lua -- gq.tabulate(lines, {by, mean, format}): means and deviations over the runs of a sweep, a row
-- for each configuration, as the paper's tables.

local gq = ...
local core = gq.core
local options, one_of, describe, fail, expect = core.options, core.one_of, core.describe, core.fail, core.expect

-- ---- figures of a line {config, summary, seconds, ...} ----

-- "kl" also finds test_kl
local function figure(line, name)
  local s = type(line.summary) == "table" and line.summary or {}
  local v = s[name] or s["test_" .. name] or line[name]
  return math.type(v) and v or nil
end

local function setting(line, name) return line.config and line.config[(name:gsub("-", "_"))] end

local function keys_of(lines, part)
  local list, seen = {}, {}
  for _, line in ipairs(lines) do
    for k in pairs(type(line[part]) == "table" and line[part] or {}) do
      if not seen[k] then seen[k], list[#list + 1] = true, k end
    end
  end
  table.sort(list)
  return list
end

-- What was varied, but for the seed.
local function usual_by(lines)
  local varied = {}
  for _, k in ipairs(keys_of(lines, "config")) do
    for _, line in ipairs(k ~= "seed" and lines or {}) do
      if setting(line, k) ~= setting(lines[1], k) then
        varied[#varied + 1] = k
        break
      end
    end
  end
  return varied
end

-- The figures of the test, or all where none is called so, and the time.
local function usual_mean(lines)
  local test, all = {}, {}
  for _, k in ipairs(keys_of(lines, "summary")) do
    local plain = not k:match("_std$") and not k:match("_each$") and k ~= "seconds" and figure(lines[1], k)
    if plain then all[#all + 1] = k end
    if plain and k:match("^test_") then test[#test + 1] = k end
  end
  local names = #test > 0 and test or all
  names[#names + 1] = "seconds"
  return names
end

-- Why runs did not end well, a line each for the first of them; nil where all did.
local function reasons(lines, where)
  local list, bad = {}, 0
  for _, line in ipairs(lines) do
    if line.status ~= nil and line.status ~= "ok" then
      bad = bad + 1
      local why = ("%s: %s: %s"):format(line.id or "a run", line.status, line.error or "no reason given")
      if bad <= 5 then list[bad] = why end
    end
  end
  if bad > 5 then list[6] = ("and %d more; %s tells of each"):format(bad - 5, where) end
  return bad > 0 and table.concat(list, "\n") or nil, bad
end

-- The names of an option, each of which some line must have by get.
local function names_of(o, key, lines, usual, get, part)
  local names = o[key]
  if names == nil then return usual(lines) end
  if type(names) == "string" then
    names = {}
    for name in o[key]:gmatch("[^,%s]+") do names[#names + 1] = name end
  end
  if type(names) ~= "table" then
    fail(("gq.tabulate: %s: a list of names expected, got %s"):format(key, describe(names)))
  end
  for _, name in ipairs(names) do
    local found = false
    for _, line in ipairs(lines) do found = found or get(line, name) ~= nil end
    if not found then
      local known = keys_of(lines, part)
      local near = core.nearest(name, known)
      fail(("gq.tabulate: %s: no run has '%s'%s (known: %s)"):format(key, name,
        near and (", did you mean '%s'?"):format(near) or "", table.concat(known, ", ")))
    end
  end
  return names
end

-- ---- groups ----

local function text_of(v)
  if v == nil then return "-" end
  return math.type(v) == "float" and ("%.6g"):format(v) or tostring(v)
end

local function before(a, b)
  for k, text in ipairs(a.texts) do
    local x, y = a.values[k], b.values[k]
    if math.type(x) and math.type(y) then
      if x ~= y then return x < y end
    elseif text ~= b.texts[k] then
      return text < b.texts[k]
    end
  end
  return false
end

local function groups_of(lines, by)
  local groups, found = {}, {}
  for _, line in ipairs(lines) do
    local values, texts = {}, {}
    for k, name in ipairs(by) do
      values[k] = setting(line, name)
      texts[k] = text_of(values[k])
    end
    local key = table.concat(texts, "\0")
    if not found[key] then
      found[key] = { values = values, texts = texts, lines = {} }
      groups[#groups + 1] = found[key]
    end
    table.insert(found[key].lines, line)
  end
  table.sort(groups, before)
  return groups
end

-- Mean and deviation, nil where there are too few.
local function moments(lines, name)
  local n, mean, sum = 0, 0, 0
  for _, line in ipairs(lines) do
    local v = figure(line, name)
    if v then
      n = n + 1
      local d = v - mean
      mean = mean + d / n
      sum = sum + d * (v - mean)
    end
  end
  return n > 0 and mean or nil, n > 1 and math.sqrt(sum / (n - 1)) or nil
end

-- The deviation with two digits, the mean with as many places.
local function spread(mean, sd, sign)
  if mean == nil then return "-" end
  if sd == nil then return ("%.4g"):format(mean) end
  if sd == 0 then return ("%.4g%s0"):format(mean, sign) end
  if not (sd >= 1e-4 and sd < 1e6) then return ("%.3g%s%.2g"):format(mean, sign, sd) end
  local places = math.max(0, 1 - math.floor(math.log(sd, 10) + 1e-12))
  local format = ("%%.%df"):format(places)
  return format:format(mean) .. sign .. format:format(sd)
end

-- ---- forms ----

local forms = {}

local function pad(text, width, right)
  local room = (" "):rep(width - (utf8.len(text) or #text))
  return right and room .. text or text .. room
end

-- Lines of cells in columns; names to the left, figures to the right.
local function joined(rows, left, between, right, by)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for k, text in ipairs(row) do widths[k] = math.max(widths[k] or 3, utf8.len(text) or #text) end
  end
  for i, row in ipairs(rows) do
    local cells = {}
    for k, text in ipairs(row) do cells[k] = pad(text, widths[k], k > by) end
    lines[i] = (left .. table.concat(cells, between) .. right):gsub(" +$", "")
  end
  return lines, widths
end

function forms.text(rows, by) return table.concat(joined(rows, "", "  ", "", by), "\n") end

function forms.markdown(rows, by)
  local lines, widths = joined(rows, "| ", " | ", " |", by)
  local rule = {}
  for k, w in ipairs(widths) do rule[k] = k > by and ("-"):rep(w - 1) .. ":" or ("-"):rep(w) end
  table.insert(lines, 2, "| " .. table.concat(rule, " | ") .. " |")
  return table.concat(lines, "\n")
end

function forms.latex(rows, by)
  local lines = { ("\\begin{tabular}{%s%s}"):format(("l"):rep(by), ("r"):rep(#rows[1] - by)), "\\hline" }
  for i, row in ipairs(rows) do
    local cells = {}
    for k, text in ipairs(row) do cells[k] = text:gsub("[_%%&#{}]", "\\%0") end
    lines[#lines + 1] = table.concat(cells, " & ") .. " \\\\"
    if i == 1 then lines[#lines + 1] = "\\hline" end
  end
  return table.concat(lines, "\n") .. "\n\\hline\n\\end{tabular}"
end

local function csv(groups, by, mean)
  local header = { table.unpack(by) }
  for _, name in ipairs(mean) do
    header[#header + 1] = name .. "_mean"
    header[#header + 1] = name .. "_sd"
  end
  header[#header + 1] = "runs"
  local lines = { table.concat(header, ",") }
  for _, g in ipairs(groups) do
    local cells = {}
    for k, text in ipairs(g.texts) do cells[k] = text:find('[,"\n]') and '"' .. text:gsub('"', '""') .. '"' or text end
    for _, name in ipairs(mean) do
      local m, sd = moments(g.lines, name)
      cells[#cells + 1] = m and ("%.17g"):format(m) or ""
      cells[#cells + 1] = sd and ("%.17g"):format(sd) or ""
    end
    cells[#cells + 1] = tostring(#g.lines)
    lines[#lines + 1] = table.concat(cells, ",")
  end
  return table.concat(lines, "\n")
end

local signs <const> = { text = " +- ", markdown = " ± ", latex = " $\\pm$ " }

local function tabulate(lines, given)
  local what = "gq.tabulate"
  expect(type(lines) == "table", what, "the lines of a sweep", lines)
  local o = options(given, "by mean format", what)
  local format = one_of(o, "format", { "text", "markdown", "latex", "csv" }, what)
  local good = {}
  for _, line in ipairs(lines) do
    if line.status == nil or line.status == "ok" then good[#good + 1] = line end
  end
  if #good == 0 then
    fail(("%s: none of %d runs has ended well\n%s"):format(what, #lines, reasons(lines, "its results") or ""))
  end
  local by = names_of(o, "by", good, usual_by, setting, "config")
  local mean = names_of(o, "mean", good, usual_mean, figure, "summary")
  local groups = groups_of(good, by)
  if format == "csv" then return csv(groups, by, mean) end
  local rows = { { table.unpack(by) } }
  table.move(mean, 1, #mean, #by + 1, rows[1])
  table.insert(rows[1], "runs")
  for _, g in ipairs(groups) do
    local row = { table.unpack(g.texts) }
    for _, name in ipairs(mean) do
      local m, sd = moments(g.lines, name)
      row[#row + 1] = spread(m, sd, signs[format])
    end
    row[#row + 1] = tostring(#g.lines)
    rows[#rows + 1] = row
  end
  return forms[format](rows, #by)
end

gq.docs[tabulate] = [[
gq.tabulate(lines [, {by = {"width"}, mean = {"kl", "seconds"}, format = "text" | "markdown" | "latex" | "csv"}]): means
  and deviations over the runs of gq.sweep, a row for each configuration; by what was varied, of the test's figures]]
core.sweep_reasons = reasons
return tabulate
