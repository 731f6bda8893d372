-- repl.lua -- the prompt of gqlua. repl.run(terminal) drives a table of primitives, so that tests can
-- play the user:
--   read(prompt)      a line; or nil, "interrupt" (Ctrl-C at the prompt); or nil, "end"
--   write(text)
--   call(f, ...)      true, results... or false, message; Ctrl-C stops f        (default: xpcall)
--   remember(line)    add to the history of the line editor                     (optional)
--   completer(f)      f(line) -> text to insert, list to show                   (optional)
--   private(path)     make a file that only the user can read; false: it cannot (optional)

local gq = ...
local load = load                     -- what scripts do to the globals must not break the prompt
local repl = {}

local SLOW = 0.1                      -- seconds after which a command's time is shown
local KEPT = 500                      -- lines of history read at start
local TRIM = 65536                    -- bytes at which the history file is cut to the lines kept

-- ---- showing values ----

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

-- A plain table with its first entries, two levels deep.
local function show_table(t, depth)
  local parts, n = {}, 0
  for _, v in ipairs(t) do
    n = n + 1
    if n > 20 then break end
    parts[n] = show(v, depth + 1)
  end
  for _, k in ipairs(other_keys(t, n)) do
    n = n + 1
    if n > 20 then break end
    parts[n] = show_key(k) .. " = " .. show(rawget(t, k), depth + 1)
  end
  if n > 20 then parts[21] = "..." end
  return "{" .. table.concat(parts, ", ") .. "}"
end

function show(v, depth)
  if type(v) == "string" and depth > 0 then return (("%q"):format(v):gsub("\\\n", "\\n")) end
  if type(v) ~= "table" or getmetatable(v) ~= nil then return tostring(v) end
  if depth > 1 then return next(v) == nil and "{}" or "{...}" end
  return show_table(v, depth)
end

-- The results of a command on one line each, if any of them is long, or on one line in all.
function repl.show(...)
  local parts, separator = {}, "\t"
  for i = 1, select("#", ...) do
    parts[i] = show((select(i, ...)), 0)
    if parts[i]:find("\n", 1, true) then separator = "\n" end
  end
  return table.concat(parts, separator)
end

-- ---- reading ----

local function incomplete(message)
  return message:match("<eof>'?$") ~= nil
end

-- A function, or nil with the message and whether more lines may complete the chunk. An expression
-- is a chunk that returns its value.
function repl.compile(text)
  local expression = text:match("^%s*=(.*)")
  local f, why = load("return " .. (expression or text), "=stdin", "t")
  if f then return f end
  if expression then return nil, why, incomplete(why) end
  local g, message = load(text, "=stdin", "t")
  if g then return g end
  return nil, message, incomplete(message) or incomplete(why)
end

-- The function for the next command; nil, "end" at the end of input; nil for a discarded one.
local function read_chunk(term, text)
  while true do
    local f, message, more = repl.compile(text)
    if f then return f, text end
    if not more then return nil, message end
    local line, why = term.read("... ")
    if not line then return nil, why == "end" and message or nil end
    term.remember(line)
    text = text .. "\n" .. line
  end
end

-- ---- running ----

local function text_of(message)
  local ok, text = pcall(tostring, message)
  return ok and text or ("(error object is a %s value)"):format(type(message))
end

-- The part of a traceback that is the user's own; none where it says only that a line was typed.
local function own_traceback(message)
  message = text_of(message)
  local head = message:match("^(.-)\n%s*[%w_./]*gq/repl%.lua:%d+: in ") or message
  local text, trace = head:match("^(.-)\nstack traceback:(.*)$")
  if not text then return head end
  trace = trace:gsub("in local 'f'$", "in main chunk")
  local beyond = trace:gsub("\n%s*%[C%][^\n]*", ""):gsub("\n%s*stdin:%d+: in main chunk", "")
  return beyond:find("%S") and text .. "\nstack traceback:" .. trace or text
end

local function run_chunk(f)
  local started = gq.clock()
  local values = table.pack(f())
  local seconds = gq.clock() - started
  local text = values.n > 0 and repl.show(table.unpack(values, 1, values.n)) or nil
  return text, seconds
end

local function execute(term, f)
  local ok, text, seconds = term.call(run_chunk, f)
  if not ok then
    term.write(own_traceback(text) .. "\n")
    return
  end
  if text then term.write(text .. "\n") end
  if seconds > SLOW then term.write(("(%.2f s)\n"):format(seconds)) end
end

local function help(term, name)
  local ok, message = term.call(gq.help, name ~= "" and name or nil, term.write)
  if not ok then term.write(own_traceback(message) .. "\n") end
end

-- A local of one command is gone in the next: say so, once.
local function note_local(term, state, text)
  if state.noted or not text:match("^%s*local%s") or text:find("[;\n]") then return end
  state.noted = true
  term.write("(a local lasts for one command only; without `local` the next one can use it)\n")
end

local leaves = { exit = true, quit = true, ["exit()"] = true, ["quit()"] = true }

-- false: the user leaves.
local function command(term, state, line)
  local word = line:match("^%s*(.-)%s*$")
  if leaves[word] then return false end
  if word == "" then return true end
  if word:sub(1, 1) == "?" then
    help(term, word:match("^%?%s*(.*)$"))
    return true
  end
  local f, text = read_chunk(term, line)
  if f then
    note_local(term, state, text)
    execute(term, f)
  elseif text then
    term.write(text .. "\n")
  end
  return true
end

-- ---- completing names ----

local function keys_of(value, found)
  local seen = 0
  while type(value) == "table" and seen < 10 do
    for k in next, value do
      if type(k) == "string" then found[#found + 1] = k end
    end
    local meta = getmetatable(value)
    value = type(meta) == "table" and rawget(meta, "__index")
    seen = seen + 1
  end
end

local function names_under(path, method)
  local value = _G
  for part in path:gmatch("[%w_]+") do
    if type(value) ~= "table" then return {} end
    value = rawget(value, part)
  end
  local found = {}
  if type(value) ~= "table" then
    local meta = debug.getmetatable(value)
    value = meta and method and (type(meta.__index) == "table" and meta.__index or gq)   -- a tensor's are gq's
  end
  keys_of(value, found)
  return found
end

local function common_prefix(names)
  local prefix = names[1]
  for i = 2, #names do
    while names[i]:sub(1, #prefix) ~= prefix do prefix = prefix:sub(1, -2) end
  end
  return prefix
end

-- What to insert after `line`, and what to show where nothing can be inserted.
function repl.complete(line)
  local word = line:match("[%w_.:]*$")
  if line == "" then return "    " end
  local path, sep, start = word:match("^(.-)([.:]?)([%w_]*)$")
  local names, matching, seen = names_under(path, sep == ":"), {}, {}
  for _, name in ipairs(names) do
    if name:sub(1, #start) == start and not seen[name] then
      matching[#matching + 1], seen[name] = name, true
    end
  end
  if #matching == 0 then return "" end
  local insert = common_prefix(matching):sub(#start + 1)
  if insert ~= "" or #matching == 1 then return insert end
  table.sort(matching)
  return "", table.concat(matching, "  ")
end

-- ---- history ----

-- $XDG_STATE_HOME/gqlua/history, by default under ~/.local/state; nil where there is no home.
function repl.history_path(getenv)
  getenv = getenv or os.getenv
  local state, home = getenv("XDG_STATE_HOME"), getenv("HOME")
  if state and state:sub(1, 1) == "/" then return state .. "/gqlua/history" end
  return home and home:sub(1, 1) == "/" and home .. "/.local/state/gqlua/history" or nil
end

local function read_history(path)
  local file = io.open(path, "r")
  if not file then return {} end
  local text = file:read("a") or ""
  file:close()
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  local kept = table.move(lines, math.max(1, #lines - KEPT + 1), #lines, 1, {})
  return kept, #text > TRIM
end

local function rewrite(path, lines)
  local file = io.open(path, "w")
  if not file then return end
  file:write(table.concat(lines, "\n"), "\n")
  file:close()
end

-- Read the history, and return a function that adds a line to editor and file. Where no file can be
-- made the session goes on without one.
local function open_history(term)
  local path = term.private and repl.history_path()
  if not path or not term.private(path) then return term.remember or function() end end
  local lines, long = read_history(path)
  if long then rewrite(path, lines) end
  local remember = term.remember or function() end
  for _, line in ipairs(lines) do remember(line) end
  return function(line)
    remember(line)
    local file = line:match("%S") and io.open(path, "a")
    if not file then return end
    file:write(line, "\n")
    file:close()
  end
end

-- ---- the loop ----

local function plain_call(f, ...)
  return xpcall(f, debug.traceback, ...)
end

function repl.run(terminal)
  local term = setmetatable({ call = terminal.call or plain_call }, { __index = terminal })
  term.remember = open_history(terminal)
  if term.completer then term.completer(repl.complete) end
  local state = {}
  term.write(("gqlua %s, %s: ?name explains a name, exit or Ctrl-D leaves\n"):format(gq.version.gq, _VERSION))
  while true do
    local line, why = term.read("> ")
    if why == "end" then return end
    if line then
      term.remember(line)
      if not command(term, state, line) then return end
    end
  end
end

return repl
