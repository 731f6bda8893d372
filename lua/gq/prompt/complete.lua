-- prompt/complete.lua -- what Tab adds at the prompt, by what stands before it: files inside a string, methods and
-- engines where an option takes them, option names inside a call's table, methods after `:`, fields after `.`, names
-- of the help after `?`, and globals with keywords.

local gq = ...
local core = gq.core

local keywords <const> = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if",
  "in", "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }
local fields <const> = { "shape", "dtype", "device", "grad", "requires_grad" }

-- Values of options that are names.
local function choices_of(option)
  local names = {}
  local lists = { method = core.tableaux, gradient = core.engines, quadrature = core.quadratures }
  local fixed = { batch = "joint independent", dtype = "float32 float64 int64 bool", trajectory =
    "auto reverse dense checkpoint interpolated", impulses = "auto restart moments", nodes = "auto nfe step" }
  for _, row in ipairs(lists[option] and lists[option]() or {}) do names[#names + 1] = row.name end
  for word in (fixed[option] or ""):gmatch("%S+") do names[#names + 1] = word end
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

-- The function in whose table of options the line ends: "gq.odeint(f, z, t, {rt" gives gq.odeint.
local function enclosing_call(line)
  local depth = 0
  for i = #line, 1, -1 do
    local c = line:sub(i, i)
    if c == ")" or c == "}" then
      depth = depth + 1
    elseif c == "{" or c == "(" then
      depth = depth - 1
      if depth == -1 and c == "(" then return nil end
      if depth == -1 then
        local before = line:sub(1, i - 1)
        local direct = before:match("([%w_.]+)%s*$")
        if direct then return value_at(direct) end
        local open = 0
        for k = #before, 1, -1 do
          local d = before:sub(k, k)
          if d == ")" or d == "}" then open = open + 1 end
          if d == "(" or d == "{" then open = open - 1 end
          if open == -1 then return value_at(before:sub(1, k - 1):match("([%w_.]+)%s*$") or "") end
        end
        return nil
      end
    end
  end
end

-- Option names from a function's text: `name:` and `a, b:` that begin a line or stand after a semicolon, `name =`, and
-- words in braces.
local function options_in(text)
  local names, seen = {}, {}
  local function see(word)
    if #word > 1 and not seen[word] then seen[word], names[#names + 1] = true, word end
  end
  for list in ("\n" .. text):gmatch("[\n;] ?([%l_, ]+):") do
    for word in list:gmatch("[%l_]+") do see(word) end
  end
  for word in text:gmatch("([%a_][%w_]*) = ?") do see(word) end
  for braces in text:gmatch("%b{}") do
    for word in braces:gsub("=[^,}]*", ""):gmatch("[%a_][%w_]*") do see(word) end
  end
  return names
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

-- The candidates, and the part of the line that they complete.
local function candidates(line)
  local asked = line:match("^%s*%?%s*([%w_.:]*)$")
  if asked then return help_names(asked), asked end
  local quoted = open_string(line)
  if quoted then
    local start = line:sub(quoted + 1)
    local choices = choices_of(line:sub(1, quoted - 1):match("([%a_]+)%s*=%s*$") or "")
    return #choices > 0 and choices or files(start), start
  end
  local word = line:match("[%w_.:]*$")
  local path, separator, start = word:match("^(.-)([.:]?)([%w_]*)$")
  if separator ~= "" then return names_under(path, separator), start end
  local names = {}
  local call = line:sub(1, #line - #word):match("[{,]%s*$") and enclosing_call(line)
  if call and gq.docs[call] then
    for _, name in ipairs(options_in(gq.docs[call])) do names[#names + 1] = name .. " = " end
  end
  keys_of(_G, names)
  return table.move(keywords, 1, #keywords, #names + 1, names), start
end

local function common_prefix(names)
  local prefix = names[1]
  for i = 2, #names do
    while names[i]:sub(1, #prefix) ~= prefix do prefix = prefix:sub(1, -2) end
  end
  return prefix
end

local private <const> = { core = true, docs = true }

-- What to insert after `line`, and what to show where nothing can be inserted.
local function complete(line)
  if line:match("^%s*$") then return "    " end
  local names, start = candidates(line)
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
  return "", table.concat(matching, "  ")
end

return complete
