-- luacats.lua OUTPUT -- what editors (lua-language-server) are told of gq: LuaCATS annotations, from the texts of
-- gq.help. Run by gqlua. A text begins with how its function is called: "gq.linspace(a, b, n [, opts]): ...".

local gq = require "gq"
local output = assert(arg[1], "usage: gqlua scripts/luacats.lua OUTPUT")

local lines = { "---@meta", "-- Made by scripts/luacats.lua from the texts of gq.help.", "",
  "---@class gq.Tensor", "---@field shape integer[]", "---@field dtype \"float32\"|\"float64\"|\"int64\"|\"bool\"",
  "---@field device string", "---@field grad gq.Tensor?", "---@field requires_grad boolean",
  "---@field [integer|table] gq.Tensor" }
for _, op in ipairs { "add", "sub", "mul", "div", "pow", "mod", "idiv" } do
  lines[#lines + 1] = ("---@operator %s(gq.Tensor|number): gq.Tensor"):format(op)
end
lines[#lines + 1] = "---@operator unm: gq.Tensor"
lines[#lines + 1] = "local Tensor = {}\n"

local function say(...) lines[#lines + 1] = string.format(...) end

local function comment(doc)
  for line in (doc or ""):gmatch("[^\n]+") do say("---%s", line) end
end

local reserved = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat return then true " ..
  "until while"):gmatch("%a+") do reserved[word] = true end

-- The names in the text's first parentheses; "..." where they are not plain names.
local function parameters(doc)
  local inside = (doc or ""):match("^[%w_.:=, ]*(%b())")
  local names, seen = {}, {}
  if not inside then return "..." end
  for word in inside:sub(2, -2):gsub("%b{}", "opts"):gsub("=[^,%])]*", ""):gmatch("[^,%[%]]+") do
    local name = word:match("^%s*([%a_][%w_]*)%s*$")
    if word:find("%.%.%.") or word:find("|") then
      names[#names + 1] = "..."
      break
    end
    if name and reserved[name] then name = name .. "_" end
    if name and not seen[name] then names[#names + 1], seen[name] = name, true end
  end
  return table.concat(names, ", ")
end

local function sorted(t, more)
  local keys, name = {}, "^[%a][%w_" .. (more or "") .. "]*$"
  for k in next, t do
    if type(k) == "string" and k:match(name) and not reserved[k] then keys[#keys + 1] = k end
  end
  table.sort(keys)
  return keys
end

local function callable(v)
  local meta = getmetatable(v)
  return type(v) == "function" or type(meta) == "table" and meta.__call ~= nil
end

-- Options by the functions that take them, and of tables in options: "odeint", "odeint.gq".
local options = {}
for _, row in ipairs(gq.core.accepts()) do options["gq." .. row[1]:gsub("/", ".")] = row[2] end

local function option_classes()
  for _, name in ipairs(sorted(options, ".")) do
    say("---@class %s.options", name)
    for option in options[name]:gmatch("%S+") do
      local inner = name .. "." .. option
      say("---@field %s? %s", option, options[inner] and inner .. ".options" or "any")
    end
    lines[#lines + 1] = ""
  end
end

-- Its parameters, the table of options with its class.
local function signature(name, doc)
  local list = parameters(doc)
  if not options[name] then return list end
  if list == "..." and doc:find("^[%w_.]+ ?{") then list = "opts" end
  if list:find("%f[%w]opts$") then say("---@param opts? %s.options", name) end
  return list
end

local function module(t, path, depth)
  say("%s = {}\n", path)
  for _, k in ipairs(sorted(t)) do
    local v, doc = t[k], gq.docs[t[k]]
    local inner = t == gq and (k == "core" or k == "docs" or k == "debug")
    if type(v) == "function" then
      comment(doc)
      say("function %s.%s(%s) end\n", path, k, signature(path .. "." .. k, doc))
    elseif type(v) == "table" and (callable(v) or v.__name) then       -- a class: nn.Linear
      comment(doc)
      say("---@type fun(...): any\n%s.%s = nil\n", path, k)
    elseif type(v) == "table" and depth < 3 and not inner then
      module(v, path .. "." .. k, depth + 1)
    end
  end
end

for _, k in ipairs(sorted(gq.core.methods)) do
  local doc = gq.docs[gq[k]] or gq.docs[gq.core.methods[k]]
  local rest = parameters(doc):gsub("^[%w_]+,? ?", "")
  comment(doc)
  say("function Tensor:%s(%s) end\n", k, rest)
end
option_classes()
say("---@class gq\nlocal gq")
lines[#lines] = "---@class gq\nlocal gq = {}"
local at = #lines
module(gq, "gq", 1)
table.remove(lines, at + 1)                              -- "gq = {}" once more
say("return gq")

local text = table.concat(lines, "\n") .. "\n"
assert(load(text, "=" .. output, "t"))
gq.file_write(output, text)
