-- repl.lua -- the prompt of gqlua. repl.run(terminal) drives a table of primitives, so that tests can
-- play the user:
--   read(prompt)      a line; or nil, "interrupt" (Ctrl-C at the prompt); or nil, "end"
--   write(text)
--   call(f, ...)      true, results... or false, message; Ctrl-C stops f        (default: xpcall)
--   remember(line)    add to the history of the line editor                     (optional)
--   completer(f)      f(line) -> text to insert, list to show                   (optional)
--   painter(f)        f(line, cursor) -> the line in colours                    (optional)
--   private(path)     make a file that only the user can read; false: it cannot (optional)

local gq = ...
local load = load                     -- what scripts do to the globals must not break the prompt
local repl = {}

local SLOW = 0.1                      -- seconds after which a command's time is shown
local KEPT = 500                      -- lines of history read at start
local TRIM = 65536                    -- bytes at which the history file is cut to the lines kept

repl.show, repl.complete = gq.core.prompt.show, gq.core.prompt.complete
local commands = gq.core.prompt.commands

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

-- The function for the next command and its text; nil and what is wrong; nil for a discarded one.
local function read_chunk(term, text)
  local pasted                                         -- with the prompts it was copied with
  text, pasted = text:gsub("^%s*> ", "")
  while true do
    local f, message, more = repl.compile(text)
    if f then return f, text end
    if not more then return nil, message, text end
    repl.before = text
    local next_line, why = term.read("... ")
    repl.before = nil
    if not next_line then return nil, why == "end" and message or nil end
    text = text .. "\n" .. (pasted > 0 and next_line:gsub("^%.%.%. ", "") or next_line)
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
  local head = message:match("^(.-)\n%s*[%w_./]*gq/prompt/commands%.lua:%d+: in ") or message
  local text, trace = head:match("^(.-)\nstack traceback:(.*)$")
  if not text then return head end
  trace = trace:gsub("\n%s*%[C%]: in function 'xpcall'$", ""):gsub("\n%s*%(%.%.%.tail calls%.%.%.%)$", "")
  local beyond = trace:gsub("\n%s*%[C%][^\n]*", ""):gsub("\n%s*stdin:%d+: in main chunk", "")
  return beyond:find("%S") and text .. "\nstack traceback:" .. trace or text
end

-- _ and _1 are the last result, _2 to _9 those before it.
local function keep(values)
  if values.n == 0 or values[1] == nil then return end
  for k = 9, 2, -1 do rawset(_G, "_" .. k, rawget(_G, "_" .. k - 1)) end
  rawset(_G, "_1", values[1])
  rawset(_G, "_", values[1])
end

local function run_chunk(f, quiet)
  local started = gq.clock()
  local values = table.pack(select(2, commands.watch(f)))
  local seconds = gq.clock() - started
  keep(values)
  local text = values.n > 0 and not quiet and repl.show(table.unpack(values, 1, values.n)) or nil
  return text, seconds
end

local function complain(term, message)
  term.write(term.colours and ("\27[31m%s\27[0m\n"):format(message) or message .. "\n")
end

-- timed: the time is shown however short it was; quiet: not the value.
local function execute(term, f, timed, quiet)
  local ok, text, seconds = term.call(run_chunk, f, quiet)
  if not ok then
    complain(term, own_traceback(text))
    return
  end
  if text then term.write(text .. "\n") end
  if timed or seconds > SLOW then term.write((seconds > SLOW and "(%.2f s)\n" or "(%.3g s)\n"):format(seconds)) end
end

-- A text longer than the screen, a screen at a time.
local function page(term, text)
  local _, rows = gq.terminal_size()
  local at = 0
  for line in text:gmatch("[^\n]*\n") do
    term.write(line)
    at = at + 1
    if rows and at % (rows - 1) == 0 and at < select(2, text:gsub("\n", "")) then
      local answer, why = term.read("-- Enter: more, q: enough -- ")
      if why or answer:match("^%s*q") then return end
    end
  end
end

-- ?name, or a global of the user's: what it is.
local function help(term, name)
  local value = name:match("^[%a_][%w_]*$") and rawget(_G, name)
  local ours = value == nil or type(value) == "function" and gq.docs[value] == nil or value == gq
  local out = {}
  local ok, message = term.call(gq.help, not ours and value or name ~= "" and name or nil,
    function(text) out[#out + 1] = text end)
  if ok and not ours and type(value) ~= "string" then table.insert(out, 1, repl.show(value) .. "\n") end
  if ok then page(term, table.concat(out)) else complain(term, own_traceback(message)) end
end

-- ---- % and ! ----

local percent = {}

-- The code as a function, for g; or what is wrong with it.
local function with_code(term, code, g)
  local f, why = repl.compile(code)
  if f then g(f) else complain(term, why) end
end

-- %time code: run it and say how long it took.
function percent.time(term, code)
  with_code(term, code, function(f) execute(term, f, true) end)
end

-- %timeit code: run it for a third of a second or so.
function percent.timeit(term, code)
  with_code(term, code, function(f)
    local ok, text = term.call(commands.timeit, f)
    if ok then term.write(text .. "\n") else complain(term, own_traceback(text)) end
  end)
end

-- %locals: what the functions that an error left held.
function percent.locals(term) term.write(commands.locals(repl.show) .. "\n") end

-- %history [n]: the last commands.
function percent.history(term, text, state)
  local list, n = state.history, math.tointeger(tonumber(text)) or 20
  for k = math.max(1, #list - n + 1), #list do term.write(("%4d  %s\n"):format(k, list[k])) end
end

-- %edit [file]: the last command, or a file, in the user's editor, and then run.
function percent.edit(term, path, state)
  local f, why = commands.edit(path, state.history[#state.history] or "")
  if f then execute(term, f) else complain(term, why) end
end

-- %who: the user's own globals.
local at_start = {}
for k in next, _G do at_start[k] = true end

function percent.who(term)
  local names = {}
  for k in next, _G do
    if not at_start[k] and type(k) == "string" and not k:match("^_%d?$") and k ~= "gq" then names[#names + 1] = k end
  end
  table.sort(names)
  for _, k in ipairs(names) do
    local v = rawget(_G, k)
    local what = gq.core.describe(v)
    local meta = type(v) == "table" and getmetatable(v)
    if type(meta) == "table" and type(meta.__name) == "string" then what = meta.__name end
    term.write(("%s: %s\n"):format(k, what))
  end
end

local function magic(term, word, state)
  local name, rest = word:match("^%%(%a*)%s*(.*)$")
  if percent[name] then return percent[name](term, rest, state) end
  term.write([[
% commands: %time CODE runs it and says how long it took, %timeit CODE many times; %who lists your globals,
  %locals those of functions that an error left; %history [N] the last commands; %edit [FILE] opens the last
  one, or a file, in $EDITOR and runs it
]])
end

-- !ls runs in a shell.
local function shell(term, code)
  local ok, how, n = os.execute(code)
  if not ok then term.write(("(%s %d)\n"):format(how, n)) end
end

-- A local of one command is gone in the next: say so, once.
local function note_local(term, state, text)
  if state.noted or not text:match("^%s*local%s") or text:find("[;\n]") then return end
  state.noted = true
  term.write("(a local lasts for one command only; without `local` the next one can use it)\n")
end

-- A command of several lines as one line of the history, where that means the same.
local function as_entry(text)
  for _, kept in ipairs { "%-%-", "%[%[", "%[=", "\\\n", "\\z" } do
    if text:find(kept) then return text end
  end
  return (text:gsub("%s*\n%s*", " "))
end

local leaves = { exit = true, quit = true, ["exit()"] = true, ["quit()"] = true }

-- false: the user leaves.
local function command(term, state, line)
  local word = line:match("^%s*(.-)%s*$")
  if leaves[word] then return false end
  if word == "" then return true end
  local first, rest = word:match("^([?!%%])%s*(.*)$")
  local asked, twice = word:match("^([%w_.:]+)(%?%??)$")
  if first or asked then
    term.remember(line)
    if first == "!" then
      shell(term, rest)
    elseif first == "%" then
      magic(term, word, state)
    elseif twice == "??" or rest and rest:sub(1, 1) == "?" then
      page(term, commands.source(asked or rest:match("^%?*%s*(.*)$"), state.history) .. "\n")
    else
      help(term, rest or asked)
    end
    return true
  end
  local f, text, failed = read_chunk(term, line)
  if f or failed then
    term.remember(as_entry(failed or text))
    state.history[#state.history + 1] = failed or text
  end
  if f then
    note_local(term, state, text)
    execute(term, f, false, text:match(";%s*$") ~= nil)
  elseif text then
    complain(term, text)
  end
  return true
end

-- ---- history, and files of the user's ----

-- A file of the user's: $VARIABLE/gqlua/name, by default under a folder of the home; nil where there is no home.
local function own_path(getenv, variable, folder, name)
  getenv = getenv or os.getenv
  local given, home = getenv(variable), getenv("HOME")
  if given and given:sub(1, 1) == "/" then return given .. "/gqlua/" .. name end
  return home and home:sub(1, 1) == "/" and home .. folder .. "/gqlua/" .. name or nil
end

function repl.history_path(getenv) return own_path(getenv, "XDG_STATE_HOME", "/.local/state", "history") end
function repl.rc_path(getenv) return own_path(getenv, "XDG_CONFIG_HOME", "/.config", "rc.lua") end

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

-- The user's own settings; one that fails is told of and left.
local function run_rc(term, path)
  local file = path and io.open(path, "r")
  if not file then return end
  file:close()
  local f, why = loadfile(path, "t")
  local ok, message = true, why
  if f then ok, message = term.call(f) end
  if not (f and ok) then term.write(own_traceback(message) .. "\n") end
end

function repl.run(terminal)
  local term = setmetatable({ call = terminal.call or plain_call }, { __index = terminal })
  term.remember = open_history(terminal)
  if term.completer then term.completer(function(line) return repl.complete(line, repl.before) end) end
  local state = { history = {} }
  term.colours = gq.isatty(1) and (os.getenv("NO_COLOR") or "") == "" and (os.getenv("TERM") or "dumb") ~= "dumb"
  if term.colours and term.painter then
    term.painter(function(line, cursor) return gq.core.prompt.paint(line, cursor, repl.before) end)
  end
  term.write(("gqlua %s, %s: ? explains, Tab completes, exit or Ctrl-D leaves\n"):format(gq.version.gq, _VERSION))
  if terminal.private then run_rc(term, repl.rc_path()) end
  while true do
    local line, why = term.read("> ")
    if why == "end" then return end
    if line and not command(term, state, line) then return end
  end
end

return repl
