-- prompt/show.lua -- values as the prompt prints them: to the terminal's width, long ones cut.

local gq = ...
local core = gq.core

local ENTRIES <const> = 20            -- of a table, at each depth
local TEXT <const> = 2000             -- characters of a string inside a table

local function width_of() return math.max(40, (gq.terminal_size()) or 80) end

local show

local function show_key(k)
  if type(k) == "string" and k:match("^[%a_][%w_]*$") then return k end
  return "[" .. show(k, 2) .. "]"
end

-- The keys beyond 1..n: names first, in order.
local function other_keys(t, n)
  local names, rest = {}, {}
  for k in next, t do
    if type(k) == "string" then
      names[#names + 1] = k
    elseif not (math.type(k) == "integer" and k >= 1 and k <= n) then
      rest[#rest + 1] = k
    end
  end
  table.sort(names)
  return table.move(rest, 1, #rest, #names + 1, names)
end

-- The parts on one line, or in lines as wide as the terminal.
local function braces(parts, depth)
  local line = "{" .. table.concat(parts, ", ") .. "}"
  if depth > 0 or #line <= width_of() then return line end
  local lines, row = {}, ""
  for k, part in ipairs(parts) do
    part = part .. (k < #parts and "," or "")
    if row ~= "" and #row + #part + 3 > width_of() then lines[#lines + 1], row = row, "" end
    row = row == "" and part or row .. " " .. part
  end
  lines[#lines + 1] = row
  return "{ " .. table.concat(lines, "\n  ") .. " }"
end

-- A plain table with its first entries, two levels deep.
local function show_table(t, depth)
  local parts, n, whole = {}, 0, #t
  for _, v in ipairs(t) do
    n = n + 1
    if n > ENTRIES then break end
    parts[n] = show(v, depth + 1)
  end
  local listed = n
  for _, k in ipairs(other_keys(t, whole)) do
    n = n + 1
    if n > ENTRIES then break end
    parts[n] = show_key(k) .. " = " .. show(rawget(t, k), depth + 1)
  end
  if n > ENTRIES then parts[ENTRIES + 1] = listed > ENTRIES and ("... %d in all"):format(whole) or "..." end
  return braces(parts, depth)
end

-- A module of the library: what it holds.
local function library_part(t)
  if t == gq then return "gq" end
  for k, v in next, gq do
    if v == t and k ~= "core" and k ~= "docs" and type(k) == "string" and core.is_part(v) then return "gq." .. k end
  end
end

-- A network: its layers, and how many numbers it has.
local function show_network(net)
  local ok, n = pcall(function()
    local sum = 0
    for _, p in ipairs(net:parameters()) do sum = sum + p:numel() end
    return sum
  end)
  return tostring(net) .. (ok and ("  %d parameters"):format(n) or "")
end

function show(v, depth)
  if type(v) == "string" and depth > 0 then
    if #v > TEXT then v = v:sub(1, TEXT) .. "..." end
    return (("%q"):format(v):gsub("\\\n", "\\n"))
  end
  if depth > 0 and gq.is_tensor(v) and v:numel() > ENTRIES then return core.describe(v) end
  if type(v) ~= "table" then return tostring(v) end
  local part = depth == 0 and library_part(v)
  if part then
    local out = {}
    gq.help(part, function(text) out[#out + 1] = text end)
    return (table.concat(out):gsub("\n$", ""))
  end
  if depth == 0 and getmetatable(v) ~= nil and type(v.parameters) == "function" then return show_network(v) end
  if getmetatable(v) ~= nil then return tostring(v) end
  if depth > 1 then return next(v) == nil and "{}" or "{...}" end
  return show_table(v, depth)
end

-- The results of a command on one line, or on one each if any of them is long.
return function(...)
  local parts, separator = {}, "\t"
  for i = 1, select("#", ...) do
    parts[i] = show((select(i, ...)), 0)
    if parts[i]:find("\n", 1, true) then separator = "\n" end
  end
  return table.concat(parts, separator)
end
