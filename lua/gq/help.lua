-- help.lua -- gq.help(what): what a name or a function does, from the texts in gq.docs.

local gq = ...

-- Modules worth a look without a full name: ?Linear finds nn.Linear.
local inner = { "nn", "optim", "data", "logger", "checkpoint", "paper", "plot", "json", "flow" }

local function field(value, key)
  if type(value) == "table" then return rawget(value, key) end
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

gq.core.lookup = lookup

local function find(name)
  local value = lookup(name)
  if value ~= nil then return value, name end
  for _, module in ipairs(inner) do
    value = lookup(module .. "." .. name)
    if value ~= nil then return value, module .. "." .. name end
  end
  local owner, method = name:match("^([%w_]*)[.:]([%w_]+)$")
  if method and field(gq, owner) == nil then return gq[method], method end
end

local function sorted_names(t)
  local names = {}
  for k, v in next, t do
    if type(k) == "string" and k:sub(1, 1) ~= "_" and not (t == gq and (k == "core" or k == "docs")) then
      names[#names + 1] = type(v) == "table" and k .. "." or k
    end
  end
  table.sort(names)
  return names
end

local function width() return math.max(40, math.min(100, (gq.terminal_size()) or 100)) end

-- Words in lines as wide as the terminal, of at most 100 characters, each of which begins with `indent`.
local function wrap(words, indent)
  indent = indent or "  "
  local lines, line, most = {}, "", width() - 1
  for _, word in ipairs(words) do
    if line ~= "" and #line + #word >= most then lines[#lines + 1], line = line, "" end
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

-- Lines that keep their places: rows of a table, code, and items with a name and a colon in front.
local function stands_alone(line)
  if line:find("%S  +%S") or line:find(" %-%->") or line:find("^ *[%w_]+[%w_, ]-:") then return true end
  return load(line, "", "t") or line:find("^ *[%w_, ]+ = {")
end

-- The text in such lines; what goes on is indented by two more. Where it went on already, because the next word had no
-- room in the source, it is one line first.
local function fold(text)
  local lines, previous = {}, ""
  for line in text:gmatch("[^\n]+") do
    local indent, word = line:match("^( *)(%S*)")
    local last = lines[#lines]
    local deeper = #indent - (last and #last:match("^ *") or 0)
    local goes_on = deeper == 2 or deeper == 0 and #indent > 0
    if last and goes_on and #previous + 1 + #word > 100 and not word:find("^%u") and not stands_alone(line) then
      lines[#lines] = last .. " " .. line:match("^ *(.*)")
    else
      lines[#lines + 1] = line
    end
    previous = line
  end
  for k, line in ipairs(lines) do
    if #line > width() and not line:find("%S  +%S") then
      local words = {}
      for word in line:gmatch("%S+") do words[#words + 1] = word end
      lines[k] = wrap(words, line:match("^ *") .. "  "):gsub("^  ", "")
    end
  end
  return table.concat(lines, "\n")
end

-- The lines of examples by value, those of nn.Linear under gq.nn.Linear.
local examples

local function examples_of(value)
  if not examples then
    examples = {}
    local of
    for line in gq.core.examples():gmatch("[^\n]+") do
      if line:find("^%S") then
        of = lookup(line) or line
        examples[of] = ""
      else
        examples[of] = ("%s\n%s"):format(examples[of], line)
      end
    end
  end
  return examples[value]
end
gq.core.examples_of = examples_of

-- A line whose result makes it too long has it below.
local function example_text(lines)
  return (lines:gsub("\n( *)([^\n]-)( %-%->[^\n]*)", function(indent, code, result)
    local long = #indent + #code + #result > width()
    return ("\n%s%s%s%s"):format(indent, code, long and "\n  " .. indent or "", long and result:sub(2) or result)
  end))
end

local function describe(value, name)
  local doc = gq.docs and gq.docs[value]
  if doc then
    local lines = examples_of(value)
    return fold(doc) .. (lines and "\n" .. fold(example_text(lines)) or "")
  end
  if type(value) == "table" then
    return ("%s has\n%s"):format(name or "a table with", wrap(sorted_names(value)))
  end
  return ("%s: a %s without a text of its own"):format(name or "this", type(value))
end

-- ---- subjects: what ? alone lists ----

local subjects <const> = {
  { "tensors", "making, reading and changing them: ?shape, ?indexing",
    "tensor zeros ones full rand randn randperm arange linspace eye cat stack where" },
  { "operations", "on numbers, broadcasting: exp, tanh, matmul, sum ...",
    "add sub mul div pow neg exp log sqrt sin cos atan atan2 tanh sigmoid softplus " ..
    "relu clamp maximum minimum matmul sum mean " ..
    "var std max min softmax logsumexp norm argmax" },
  { "gradients", "x:backward(), gq.grad and derivatives of functions",
    "backward grad no_grad jvp jacobian hessian_vector checkgrad" },
  { "modules", "networks: nn.mlp, nn.Sequential, layers, your own", nil },
  { "solving", "gq.odeint: ?methods, ?gradient, ?event, ?info, ?guards", "odeint interpolate cde steer jet" },
  { "sdes", "noise: gq.sde, gq.sdeint, gq.wong_zakai", "sde sdeint brownian wong_zakai" },
  { "training", "gq.train, gq.optim, gq.data, losses, checkpoints",
    "train optim data cross_entropy mse_loss gaussian_kl progress logger checkpoint" },
  { "files", "gq.save and gq.load by suffix, JSON, checkpoints", "save load checkpoint json file_read file_write" },
  { "plots", "pictures in the terminal and in files: gq.plot", nil },
  { "sweeps", "scripts over many settings: gq.sweep, gq.tabulate", "sweep sweep_results tabulate cli experiment" },
  { "machine", "threads, seeds, dtypes, devices, memory, time",
    "set_threads manual_seed set_default_dtype devices allow_tf32 memory clock warnings narrate version" },
  { "prompt", "what can be typed here: Tab, _, %time, !ls", nil },
}

local subject_of = {}
for _, s in ipairs(subjects) do subject_of[s[1]] = s end

-- What a text begins with, in one line, with the name in front where it does not say it.
local function summary(name, doc)
  local line = doc:match("^[^\n]*")
  if not line:find("%f[%w_]" .. name .. "%f[^%w_]") then line = ("gq.%s: %s"):format(name, line) end
  local most = width() - 2
  if #line <= most then return line end
  return (line:sub(1, most - 3):gsub("%s*%S*$", "")) .. " ..."
end

local function subject_text(s)
  if gq.docs[s[1]] then return fold(gq.docs[s[1]]) end
  local lines = { ("%s: %s"):format(s[1], s[2]) }
  for name in (s[3] or ""):gmatch("%S+") do
    local value = gq[name]
    local doc = value ~= nil and gq.docs[value]
    if doc then lines[#lines + 1] = "  " .. summary(name, doc) end
    if type(value) == "table" and not doc then lines[#lines + 1] = "  gq." .. name .. ": ?" .. name end
  end
  return table.concat(lines, "\n")
end

-- What has a text but is no name: topics.lua.
local function topics()
  local list = {}
  for k in next, gq.docs do
    if type(k) == "string" and not subject_of[k] then list[#list + 1] = "?" .. k end
  end
  table.sort(list)
  return list
end

local function overview()
  local lines = { "Subjects; ?name tells more of each, and of every name" }
  for _, s in ipairs(subjects) do lines[#lines + 1] = ("  ?%-11s %s"):format(s[1], s[2]) end
  lines[#lines + 1] = "Texts on their own\n" .. wrap(topics())
  lines[#lines + 1] = "gq has\n" .. wrap(sorted_names(gq))
  return table.concat(lines, "\n")
end

-- ---- what is no name: methods, engines, and words of the texts ----

local function row_text(name)
  for _, m in ipairs(gq.core.tableaux()) do
    if m.name == name then
      return ("%s: a solver of order %d, for method = \"%s\" in gq.odeint; %s\n?methods tells of all"):format(name,
        m.order, name, m.source)
    end
  end
  for _, m in ipairs(gq.core.schemes()) do
    if m.name == name then
      return ("%s: a method of gq.sdeint, method = \"%s\"; ?sdes tells of all"):format(name, name)
    end
  end
  for _, e in ipairs(gq.core.engines()) do
    if e.name == name then
      return ("%s: gradient = \"%s\" in gq.odeint: %s; keeps %s\n?gradient tells of all"):format(name, name, e.doc,
        e.kept)
    end
  end
end

-- Functions that have an option of this name.
local function takers(option)
  local found = {}
  for _, row in ipairs(gq.core.accepts()) do
    if (" " .. row[2] .. " "):find(" " .. option .. " ", 1, true) then
      found[#found + 1] = "gq." .. row[1]:gsub("/item", ""):gsub("/", "'s ")
    end
  end
  return #found > 0 and ("%s: an option of %s"):format(option, table.concat(found, ", ")) or nil
end

-- The lines of the texts that have the word.
local function mentions(word)
  local pattern, found = "%f[%w_]" .. word:gsub("%p", "%%%0") .. "%f[^%w_]", {}
  for value, doc in next, #word > 2 and gq.docs or {} do
    for line in doc:gmatch("[^\n]+") do
      if line:find(pattern) then
        local head = type(value) == "string" and "?" .. value or doc:match("^[%w_.]+") or ""
        found[#found + 1] = ("  %s: %s"):format(head, line:gsub("^ +", ""):sub(1, width() - 4 - #head))
        break
      end
    end
  end
  table.sort(found)
  if #found > 15 then found = table.move(found, 1, 15, 1, { [16] = ("  and %d more"):format(#found - 15) }) end
  local texts, taken = ("%s is in the texts of\n%s"):format(word, table.concat(found, "\n")), takers(word)
  return #found == 0 and taken or taken and taken .. "\n" .. texts or #found > 0 and texts or nil
end

-- ---- values ----

local function value_text(v)
  if gq.is_tensor(v) then
    return ("a tensor %s of shape {%s} on %s%s\n?tensors, ?shape and ?indexing tell what can be done with it"):format(
      v.dtype, table.concat(v.shape, ", "), v.device, v.requires_grad and ", whose gradient is kept" or "")
  end
  if gq.docs[v] == nil and type(v) == "table" and type(v.parameters) == "function" then
    return fold("a network: x -> net(x), or net(t, z) as dynamics of gq.odeint; net:parameters(), net:state_dict(): "
      .. "?modules")
  end
  return describe(v)
end

-- Is this table one of the library's parts, as gq.nn?
function gq.core.is_part(v)
  for _, name in ipairs(inner) do
    if gq[name] == v then return true end
  end
  return false
end

local function text_of(what)
  if what == nil or what == "gq" then return overview() end
  if type(what) ~= "string" then return value_text(what) end
  what = what:gsub("^%s+", ""):gsub("[%s()?]+$", "")
  if subject_of[what] then return subject_text(subject_of[what]) end
  if gq.docs[what] and lookup(what) == nil then return fold(gq.docs[what]) end
  local of_tensor = lookup(what) == nil and what:match("^[%w_]+(%.[%w_]+)$")
  if of_tensor and gq.docs.shape:find("x" .. of_tensor, 1, true) then return fold(gq.docs.shape) end
  local value, name = find(what)
  if value ~= nil then return describe(value, name) end
  local text = row_text(what)
  if text then return fold(text) end
  local near = similar(what)
  text = what:match("^[%w_]+$") and mentions(what)
  if text then return fold(text) end
  if #near > 0 then return ("nothing is called %s; perhaps\n%s"):format(what, wrap(near)) end
  return ("nothing is called %s; ? alone lists subjects and names"):format(what)
end

-- gq.help([name or value]): print the text. write: where to, print by default.
function gq.help(what, write)
  if write ~= nil and type(write) ~= "function" then
    error(("gq.help: the second argument is a function that writes, got %s"):format(type(write)), 2)
  end
  local text = text_of(what)
  if write then write(text .. "\n") else print(text) end
end
gq.docs[gq.help] = [[
gq.help([name | value]): what it is, with examples; at the prompt ?name, and ? for the subjects]]
