-- examples.lua -- run by help_spec in a folder of its own: every example of gq.help, as typed at the prompt. Prints
-- what is wrong, and the number of names.

local gq = require "gq"

local function compile(text, env)
  local f = load("return " .. text, "=example", "t", env)
  if f then return f end
  return load(text, "=example", "t", env)
end

local function words(values)
  for i = 1, values.n do values[i] = tostring(values[i]) end
  return table.concat(values, " ")
end

local function plain(text) return (text:gsub("%s+", " "):gsub("{ ", "{"):gsub("^ ", ""):gsub(" $", "")) end

-- The examples of a name: its statements one after the other; how many they are.
local function try(name, lines)
  local printed, text, count = {}, "", 0
  local env = setmetatable({ print = function(...) printed[#printed + 1] = words(table.pack(...)) end },
    { __index = function(_, key) return key == "gq" and gq or _G[key] end })
  for line in lines:gmatch("[^\n]+") do
    local code, want = line:match("^(.-) *%-%-> (.*)$")
    text = text .. (code or line) .. "\n"
    local f, why = compile(text, env)
    if f then
      count = count + 1
      local got = table.pack(pcall(f))
      local ok = table.remove(got, 1)
      got.n = got.n - 1
      local said = plain(#printed > 0 and table.concat(printed, " ") or words(got))
      if not ok or want and said ~= plain(want) then print(("%s:%s%s"):format(name, text, said)) end
      text, printed = "", {}
    elseif not why:find("<eof>", 1, true) then
      print(("%s: %s"):format(name, why))
      text = ""
    end
  end
  if text ~= "" then print(("%s: incomplete: %s"):format(name, text)) end
  return count
end

local threads, names, seen = gq.threads(), 0, {}

local function walk(t, prefix)
  for key, value in next, t do
    local own = type(key) == "string" and not key:find("^_") and value ~= gq and key ~= "core" and key ~= "docs"
    if own and gq.docs[value] and not seen[value] then
      names, seen[value] = names + 1, true
      local lines = gq.core.examples_of(value)
      if not lines then print(prefix .. key .. ": no examples")
      elseif try(prefix .. key, lines) < 2 then print(prefix .. key .. ": one example alone") end
      gq.set_threads(threads)
      gq.set_default_dtype("float32")
    end
    if own and type(value) == "table" then walk(value, prefix .. key .. ".") end
  end
end
walk(gq, "gq.")
print(("%d names"):format(names))
