-- prompt/complete.lua -- what Tab adds at the prompt, by what stands before it: files inside a string, methods and
-- engines where an option takes them, option names inside a call's table, methods after `:`, fields after `.`, names
-- of the help after `?`, and globals with keywords.

local gq = ...
local core = gq.core

local keywords <const> = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if",
  "in", "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }
core.keywords = keywords
local fields <const> = { "shape", "dtype", "device", "grad", "requires_grad" }

-- Values of options that are names.
local values <const> = { batch = "joint independent", dtype = "float32 float64 int64 bool", nodes = "auto nfe step",
  trajectory = "auto reverse dense checkpoint interpolated", impulses = "auto restart moments", norm = "rms max",
  direction = "up down both", noise = "diagonal scalar additive general commutative", calculus = "ito stratonovich",
  levy_area = "none space-time space-time-time davie foster", reduction = "mean sum none",
  expansion = "karhunen-loeve polynomial piecewise-linear",
  kind = "linear cubic rectilinear monotone", style = "line points band dashed", log = "x y xy" }

local function choices_of(option, f)
  local lists = { method = f == gq.sdeint and core.schemes or core.tableaux, gradient = core.engines,
    quadrature = core.quadratures }
  local names = {}
  for _, row in ipairs(lists[option] and lists[option]() or {}) do names[#names + 1] = row.name end
  for word in (values[option] or ""):gmatch("%S+") do names[#names + 1] = word end
  return names
end

-- ---- the value of a path of names ----

local function value_at(path)
  local value = _G
  for part in path:gmatch("[%w_]+") do
    if type(value) ~= "table" then return nil end
    local found = rawget(value, part)
    local meta = found == nil and getmetatable(value)
    local index = type(meta) == "table" and rawget(meta, "__index")
    if type(index) == "table" then found = index[part] end
    value = found
  end
  return value
end

-- Keys of a table and of what it inherits; only what can be called where `callable`.
local function keys_of(value, names, callable)
  local seen = 0
  while type(value) == "table" and seen < 10 do
    for k, v in next, value do
      if type(k) == "string" and (not callable or core.is_callable(v)) then names[#names + 1] = k end
    end
    local meta = getmetatable(value)
    value = type(meta) == "table" and rawget(meta, "__index")
    seen = seen + 1
  end
end

local function names_under(path, separator)
  local value, names = value_at(path), {}
  if gq.is_tensor(value) then
    if separator == "." then return table.move(fields, 1, #fields, 1, {}) end
    for k in next, core.methods do names[#names + 1] = k end
  elseif type(value) == "string" then
    keys_of(string, names)
  else
    keys_of(value, names, separator == ":")
  end
  return names
end

-- ---- contexts ----

-- Where the line's last string begins, if it is still open.
local function open_string(line)
  local quote, from
  local i = 1
  while i <= #line do
    local c = line:sub(i, i)
    if quote and c == "\\" then
      i = i + 1
    elseif quote then
      if c == quote then quote = nil end
    elseif c == "'" or c == '"' then
      quote, from = c, i
    elseif line:find("^%-%-", i) then
      return nil
    end
    i = i + 1
  end
  return quote and from
end

local function files(start)
  local folder, rest = start:match("^(.*/)([^/]*)$")
  local names = core.directory(folder or ".") or {}
  local list = {}
  for _, name in ipairs(names) do
    if rest == nil or name:sub(1, 1) ~= "." or rest:sub(1, 1) == "." then
      local path = (folder or "") .. name
      list[#list + 1] = core.directory(path) and path .. "/" or path
    end
  end
  return list
end

-- The call in whose table the text ends: the function, and the option that is that table, "item" where it has no
-- name, "" for the function's own options. "gq.odeint(f, z, t, {gq = {" gives gq.odeint, "gq".
local function enclosing_call(text)
  text = text:gsub('%b""', '""'):gsub("%b''", "''"):gsub("%-%-[^\n]*", "")
  local open, key = {}, ""
  for at, c in text:gmatch("()([%(%){}])") do
    open[c:find("[({]") and #open + 1 or #open] = c:find("[({]") and at or nil
  end
  for k = #open, 1, -1 do
    if text:sub(open[k], open[k]) ~= "{" then return nil end
    local before = text:sub(1, open[k] - 1)
    local name = before:match("([%w_.]+)%s*$")
    if not name and k > 1 then name = text:sub(1, open[k - 1]):match("([%w_.]+)%s*%($") end
    if name then return value_at(name), key end
    key = before:match("([%a_]+)%s*=%s*$") or "item"
  end
end

-- Names of options: of[function][option that is a table, or ""].
local accepted

local function options_of(f, key)
  if not accepted then
    accepted = {}
    for _, row in ipairs(core.accepts()) do
      local name, part = row[1]:match("([%w_.]+)/?(%a*)")
      local g = core.lookup(name)
      accepted[g] = accepted[g] or {}
      accepted[g][part] = row[2]
    end
  end
  return f and accepted[f] and accepted[f][key]
end

-- Names that ?name explains.
local function help_names(start)
  local path = start:match("^(.*)[.:]")
  if path then
    local list = {}
    for _, k in ipairs(names_under("gq." .. path:gsub("^gq%.?", ""), ".")) do
      list[#list + 1] = start:sub(1, #path + 1) .. k
    end
    return list
  end
  local list = {}
  keys_of(gq, list)
  for k in next, gq.docs do
    if type(k) == "string" then list[#list + 1] = k end
  end
  for _, row in ipairs(core.tableaux()) do list[#list + 1] = row.name end
  return list
end

-- Options of the call that the text ends in, which begin with start; nil where none does.
local function option_names(text, start)
  local list = {}
  local options = text:match("[{,;]%s*$") and options_of(enclosing_call(text)) or ""
  for name in options:gmatch("%S+") do
    if name:sub(1, #start) == start then list[#list + 1] = name .. " = " end
  end
  return #list > 0 and list or nil
end

-- The candidates, and the part of the line that they complete; before: the lines that a block has so far.
local function candidates(line, before)
  local asked = line:match("^%s*%?%s*([%w_.:]*)$")
  if asked then return help_names(asked), asked end
  local quoted = open_string(line)
  if quoted then
    local start, text = line:sub(quoted + 1), before .. line:sub(1, quoted - 1)
    local choices = choices_of(text:match("([%a_]+)%s*=%s*$") or "", enclosing_call(text))
    return #choices > 0 and choices or files(start), start
  end
  local word = line:match("[%w_.:]*$")
  local path, separator, start = word:match("^(.-)([.:]?)([%w_]*)$")
  if separator ~= "" then return names_under(path, separator), start end
  local options = option_names(before .. line:sub(1, #line - #word), start)
  if options then return options, start end
  local names = table.move(keywords, 1, #keywords, 1, {})
  keys_of(_G, names)
  return names, start
end

local function common_prefix(names)
  local prefix = names[1]
  for i = 2, #names do
    while names[i]:sub(1, #prefix) ~= prefix do prefix = prefix:sub(1, -2) end
  end
  return prefix
end

-- In columns as wide as the terminal, down before across.
local function in_columns(names)
  local wide = 0
  for _, name in ipairs(names) do wide = math.max(wide, utf8.len(name) or #name) end
  local columns = math.max(1, ((gq.terminal_size() or 80) + 1) // (wide + 2))
  local rows, lines = (#names + columns - 1) // columns, {}
  for row = 1, rows do
    local line = {}
    for k = row, #names, rows do line[#line + 1] = names[k] .. (" "):rep(wide - (utf8.len(names[k]) or #names[k])) end
    lines[row] = table.concat(line, "  "):gsub(" +$", "")
  end
  return table.concat(lines, "\n")
end

local private <const> = { core = true, docs = true }

-- What to insert after `line`, and what to show where nothing can be inserted. before: the lines of a block above it.
local function complete(line, before)
  if line:match("^%s*$") and not before then return "    " end
  local names, start = candidates(line, before and before .. "\n" or "")
  local matching, seen = {}, {}
  for _, name in ipairs(names) do
    local hidden = start == "" and (name:sub(1, 1) == "_" or private[name])
    if name:sub(1, #start) == start and not seen[name] and not hidden then
      matching[#matching + 1], seen[name] = name, true
    end
  end
  if #matching == 0 then return "" end
  local insert = common_prefix(matching):sub(#start + 1)
  if insert ~= "" or #matching == 1 then return insert end
  table.sort(matching)
  return "", in_columns(matching)
end

return complete
