-- prompt/commands.lua -- what the prompt's % commands and ?? do.

local gq = ...
local core = gq.core
local commands = {}

-- ---- %locals: functions as an error left them ----

local frames = {}

local function variables(level)
  local list, i = {}, 1
  local name, value = debug.getlocal(level, i)
  while name do
    if name:match("^[%a_][%w_]*$") then list[#list + 1] = { name, value } end
    i = i + 1
    name, value = debug.getlocal(level, i)
  end
  return list
end

-- Of the functions that are the user's, the innermost first.
local function remember()
  frames = {}
  for level = 3, 200 do
    local info = debug.getinfo(level, "Sln")
    if not info or info.source == "=gq/prompt/commands.lua" then return end
    if info.what ~= "C" and not info.source:find("^=gq/") then
      frames[#frames + 1] = { where = ("%s:%d"):format(info.short_src, info.currentline), name = info.name,
        list = variables(level + 1) }
    end
  end
end

-- f(), with a look at who was at work where it fails; true and its results.
function commands.watch(f)
  local list = table.pack(xpcall(f, function(message)
    if type(message) ~= "string" then return message end
    remember()
    return debug.traceback(message, 2)
  end))
  if not list[1] then error(list[2], 0) end
  return table.unpack(list, 1, list.n)
end

function commands.locals(show)
  local function text(value)
    local ok, shown = pcall(show, value)
    if not ok then shown = ("(cannot be shown: %s)"):format(type(shown) == "string" and shown or type(shown)) end
    return (shown:gsub("\n", "\n    "))
  end
  local lines = {}
  for _, frame in ipairs(frames) do
    lines[#lines + 1] = ("%s%s"):format(frame.where, frame.name and " in " .. frame.name or "")
    for _, entry in ipairs(frame.list) do
      lines[#lines + 1] = ("  %s = %s"):format(entry[1], text(entry[2]))
    end
  end
  return #lines > 0 and table.concat(lines, "\n") or "no error has left functions of yours"
end

-- ---- %timeit ----

local function seconds_text(s)
  for _, unit in ipairs { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "us" } } do
    if s >= unit[1] then return ("%.3g %s"):format(s / unit[1], unit[2]) end
  end
  return ("%.3g ns"):format(s * 1e9)
end

-- Seven rounds of as many runs as take a twentieth of a second.
function commands.timeit(f)
  local function round(n)
    local started = gq.clock()
    for _ = 1, n do f() end
    return (gq.clock() - started) / n
  end
  local n, once = 1, round(1)
  while once * n < 0.05 and n < 1e7 do
    n = math.max(2 * n, math.min(10 * n, math.ceil(0.05 / math.max(once, 1e-9))))
    once = round(n)
  end
  local times, mean, square = {}, 0, 0
  for k = 1, 7 do times[k] = round(n) end
  for _, t in ipairs(times) do mean = mean + t / 7 end
  for _, t in ipairs(times) do square = square + (t - mean) ^ 2 / 6 end
  table.sort(times)
  return ("%s +- %s a run, at best %s (7 rounds of %d)"):format(seconds_text(mean), seconds_text(math.sqrt(square)),
    seconds_text(times[1]), n)
end

-- ---- ??name ----

local function lines_between(text, first, last)
  local lines, at = {}, 0
  for line in (text .. "\n"):gmatch("(.-)\n") do
    at = at + 1
    if at >= first and at <= last then lines[#lines + 1] = line end
  end
  return table.concat(lines, "\n")
end

-- At "f", "gq.mse_loss", "nn.mlp" or "net:forward", of globals or else of gq's.
local function value_of(name)
  local function from(value)
    for key in name:gsub("^gq%.", ""):gmatch("[%w_]+") do
      local ok, inner = pcall(function() return value[key] end)
      value = ok and inner or nil
    end
    return value
  end
  return not name:find("^gq%.") and from(_G) or from(gq)
end

-- The text of a function: from its file, ours, or the last command that names it.
function commands.source(name, history)
  local value = name:match("^[%a_][%w_.:]*$") and value_of(name)
  if value == nil or value == false then return ("nothing is called %s"):format(name) end
  local meta = getmetatable(value)
  local call = type(meta) == "table" and rawget(meta, "__call")
  if type(value) ~= "function" and type(call) == "function" then value = call end
  if type(value) ~= "function" then return ("%s is no function but a %s"):format(name, type(value)) end
  local info = debug.getinfo(value, "S")
  local ours, file = info.source:match("^=gq/(.*)%.lua$"), info.source:match("^@(.*)")
  if info.what == "C" then return name .. " is written in C: runtime/ and bindings/ have it" end
  local ok, text = pcall(ours and core.source or gq.file_read, ours or file or "")
  if ok then
    return ("-- %s:%d\n%s"):format(ours and "lua/gq/" .. ours .. ".lua" or file, info.linedefined,
      lines_between(text, info.linedefined, info.lastlinedefined))
  end
  for k = #history, 1, -1 do
    local told = history[k]:find("%f[%w_]" .. name:gsub("%p", "%%%0") .. "%f[^%w_]")
    if told and history[k]:find("function", 1, true) then return history[k] end
  end
  return name .. ": its source is not known"
end

-- ---- %edit ----

-- What is then in the file, as a function; or nil and what is wrong.
function commands.edit(path, text)
  local own = path == ""
  if own then
    path = os.tmpname()
    gq.file_write(path, text .. "\n")
  end
  local editor = os.getenv "VISUAL" or os.getenv "EDITOR" or "vi"
  local done = os.execute(("%s '%s'"):format(editor, path:gsub("'", [['\'']])))
  local f, why
  if done then
    f, why = loadfile(path, "t")
  else
    why = ("%s did not end well: EDITOR names the program to edit with"):format(editor)
  end
  if own then os.remove(path) end
  return f, why
end

return commands
