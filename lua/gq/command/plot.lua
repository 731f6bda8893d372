-- command/plot.lua -- `gqlua plot FILES`: curves from the rows of trainings: .jsonl and .csv of gq.logger, and
-- records of --json.

local gq = require "gq"

local o = gq.cli {
  about = "Draw the figures of trainings against the epoch: train_* and test_* of one name in a panel.",
  more = "FILES are what gq.logger.jsonl and gq.logger.csv wrote, or records of --json. Several are told apart by "
    .. "name.",
  { "x", "epoch", "what to draw against" },
  { "y", nil, "which figures (all that are named train_* and test_*)", "list" },
  { "log", nil, "logarithmic axes", "x|y|xy" },
  { "title", nil, "above the picture", "text" },
  { "out", nil, "picture to write: .svg, .png or .pdf; without it, in the terminal", "text" },
  words = "FILES...",
}
if not o then return end

local function stop(...)
  io.stderr:write("gqlua plot: ", string.format(...), "\n")
  os.exit(1, true)
end

-- ---- rows of a file ----

local function csv_rows(text)
  local rows, names = {}, nil
  for line in text:gmatch("[^\r\n]+") do
    local cells = {}
    for cell in (line .. ","):gmatch("([^,]*),") do cells[#cells + 1] = cell end
    if names then
      local row = {}
      for k, name in ipairs(names) do row[name] = tonumber(cells[k]) end
      rows[#rows + 1] = row
    else
      names = cells
    end
  end
  return rows
end

local function json_rows(text)
  local ok, whole = pcall(gq.json.decode, text)
  if ok and type(whole) == "table" then return whole.epochs or whole.rows or { whole } end
  return gq.core.json_lines(text)
end

local function rows_of(path)
  local ok, text = pcall(gq.file_read, path)
  if not ok then stop("%s", gq.core.bare(text)) end
  local rows = text:match("^%s*{") and json_rows(text) or csv_rows(text)
  if type(rows) ~= "table" or #rows == 0 then stop("%s: no rows of figures in it", path) end
  return rows
end

-- ---- which figures ----

local function figures_of(all)
  local names, seen = {}, {}
  for _, rows in ipairs(all) do
    for _, row in ipairs(rows) do
      for k, v in pairs(row) do
        if not seen[k] and k ~= o.x and math.type(v) and (o.y or k:match("^t%a+_")) then
          seen[k], names[#names + 1] = true, k
        end
      end
    end
  end
  for _, k in ipairs(o.y or {}) do
    if not seen[k] then
      local near = gq.core.nearest(k, names)
      stop("--y: no row has the figure %s%s", k, near and (", did you mean %s?"):format(near) or "")
    end
  end
  if #names == 0 then stop("no row has train_* or test_*; --y names what to draw") end
  table.sort(names)
  return o.y or names
end

-- "kl" of test_kl: what shares a panel
local function group_of(name) return name:match("^t%a+_(.+)") or name end

local function curve(rows, name, label)
  local x, y, seeds = {}, {}, {}
  for _, row in ipairs(rows) do
    if math.type(row[o.x]) and math.type(row[name]) then
      if #x > 0 and row.seed ~= seeds[#seeds] then                -- the next seed's curve
        x[#x + 1], y[#y + 1], seeds[#seeds + 1] = 0 / 0, 0 / 0, row.seed
      end
      x[#x + 1], y[#y + 1], seeds[#seeds + 1] = row[o.x], row[name], row.seed
    end
  end
  return #x > 0 and { x, y, label = label } or nil
end

local all, panels, order = {}, {}, {}
if #o.words == 0 then stop("which files? gqlua plot --help tells more") end
for k, path in ipairs(o.words) do all[k] = rows_of(path) end
for _, name in ipairs(figures_of(all)) do
  local group = group_of(name)
  if not panels[group] then
    panels[group] = { xlabel = o.x, ylabel = group:gsub("_", " "), log = o.log, out = false }
    order[#order + 1] = group
  end
  for k, rows in ipairs(all) do
    local label = name:gsub("_", " ")
    if #all > 1 then label = o.words[k]:match("([^/]*)$"):gsub("%.%w+$", "") .. " " .. label end
    panels[group][#panels[group] + 1] = curve(rows, name, label)
  end
end

local rows, across = { {} }, math.ceil(math.sqrt(#order))
for _, group in ipairs(order) do
  if #panels[group] == 0 then stop("--x: no row has both %s and %s", o.x, group) end
  if #rows[#rows] == across then rows[#rows + 1] = {} end
  table.insert(rows[#rows], gq.plot.line(panels[group]))
end
rows.title, rows.out = o.title, o.out
gq.plot.panels(rows)
