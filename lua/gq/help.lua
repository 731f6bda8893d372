-- help.lua -- gq.help(what): what a name or a function does, from the texts in gq.docs.

local gq = ...

-- Modules worth a look without a full name: ?Linear finds nn.Linear.
local inner = { "nn", "optim", "data", "logger", "checkpoint", "paper" }

local function field(value, key)
  if type(value) == "table" then return value[key] end
end

-- The value at "odeint", "nn.Linear" or "gq.nn.Linear"; nil if there is none.
local function lookup(name)
  local value = gq
  for part in name:gsub("^gq%.", ""):gmatch("[^.:]+") do
    value = field(value, part)
    if value == nil then return nil end
  end
  return value
end

local function find(name)
  local value = lookup(name)
  if value ~= nil then return value, name end
  for _, module in ipairs(inner) do
    value = lookup(module .. "." .. name)
    if value ~= nil then return value, module .. "." .. name end
  end
  local method = name:match("^%w*:([%w_]+)$")
  if method then return gq[method], method end
end

local function sorted_names(t)
  local names = {}
  for k, v in next, t do
    if type(k) == "string" and k:sub(1, 1) ~= "_" then
      names[#names + 1] = type(v) == "table" and k .. "." or k
    end
  end
  table.sort(names)
  return names
end

-- Words in lines of at most 100 characters, each of which begins with `indent`.
local function wrap(words, indent)
  indent = indent or "  "
  local lines, line = {}, ""
  for _, word in ipairs(words) do
    if #line + #word > 98 then lines[#lines + 1], line = line, "" end
    line = line .. (line == "" and indent or " ") .. word
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

-- Names that contain what was asked for, wherever they are.
local function similar(name)
  local last, found = name:match("[^.:]*$"):lower(), {}
  local function scan(t, prefix)
    for _, k in ipairs(sorted_names(t)) do
      if #last > 1 and k:lower():find(last, 1, true) then found[#found + 1] = prefix .. k end
    end
  end
  scan(gq, "")
  for _, module in ipairs(inner) do
    if type(gq[module]) == "table" then scan(gq[module], module .. ".") end
  end
  return found
end

-- The text in lines of at most 100 characters where it has longer ones; what goes on is indented by two more.
local function fold(text)
  return (text:gsub("[^\n]+", function(line)
    if #line <= 100 then return line end
    local words = {}
    for word in line:gmatch("%S+") do words[#words + 1] = word end
    return (wrap(words, line:match("^ *") .. "  "):gsub("^  ", ""))
  end))
end

local function describe(value, name)
  local doc = gq.docs and gq.docs[value]
  if doc then return fold(doc) end
  if type(value) == "table" then
    return ("%s has\n%s"):format(name or "a table with", wrap(sorted_names(value)))
  end
  return ("%s: a %s without a text of its own"):format(name or "this", type(value))
end

-- What has a text but is no name: topics.lua.
local function subjects()
  local list = {}
  for k in next, gq.docs do
    if type(k) == "string" then list[#list + 1] = "?" .. k end
  end
  table.sort(list)
  return table.concat(list, " ")
end

local function text_of(what)
  if what == nil then
    return "gq has\n" .. wrap(sorted_names(gq)) .. "\n?name explains one, as in ?odeint or ?nn.Linear; there are also "
      .. subjects()
  end
  if type(what) ~= "string" then return describe(what) end
  local value, name = find(what)
  if value ~= nil then return describe(value, name) end
  if gq.docs[what] then return fold(gq.docs[what]) end     -- a subject
  local near = similar(what)
  if #near > 0 then return ("nothing is called %s; perhaps\n%s"):format(what, wrap(near)) end
  return ("nothing is called %s; ? alone lists the names"):format(what)
end

-- gq.help([name or function]): print the text. write: where to, print by default.
function gq.help(what, write)
  if write ~= nil and type(write) ~= "function" then
    error(("gq.help: the second argument is a function that writes, got %s"):format(type(write)), 2)
  end
  local text = text_of(what)
  if write then write(text .. "\n") else print(text) end
end
