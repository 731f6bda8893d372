-- cli.lua -- options of scripts: gq.cli{ name, about, options... } reads arg, prints --help, and returns a table.
--
--   local o = gq.cli{
--     about = "Train a neural SDE.",
--     { "epochs", 100, "passes over the data" },          -- type by the default: integer, number, text, flag
--     { "width", 20, "hidden width", "integer", 1 },      -- at least 1
--     { "lr", nil, "learning rate", "number" },           -- no default: nil unless given
--     { "engines", { "gq", "aca" }, "what to compare" },  -- a list, given with commas; of numbers: "numbers"
--     { "dtype", "float32", "of the state", "float32|float64" },   -- one of these
--     "seed", "json", "quick",                            -- the usual ones by name
--     words = "FIGURE...",                                -- takes words without --, too: the list o.words
--   }
--   if not o then return end                              -- --help was printed

local gq = ...
local describe = gq.core.describe

-- What gradient = there is for any method: ?gradient tells more.
local listed <const> = {}
for _, e in ipairs(gq.core.engines()) do
  if e.keeps ~= "nothing" and not e.methods then listed[#listed + 1] = e.name end
end
local engines <const> = table.concat(listed, " ")

-- Options that mean the same in every script: default, help, kind, least value.
local usual = {
  epochs = { 100, "passes over the training data", "integer", 0 },
  width = { 20, "hidden width", "integer", 1 },
  lr = { nil, "learning rate (by default the paper's for the width)", "number" },
  ["batch-size"] = { 40, "examples a training step", "integer", 1 },
  gradient = { "auto", "gradient engine: " .. engines },
  gradients = { { "direct", "aca", "adjoint", "seminorm", "gq" }, "gradient engines, with commas: " .. engines },
  paper = { false, "the paper's choices: gq, nodes by eq. (9), a restart at every time, z solved backwards" },
  C = { 0.1, "quadrature nodes by eq. (9): ceil(C NFE dt / T)", "number" },
  trajectory = { nil, "state on the way back, if not the engine's own",
    "reverse|dense|checkpoint|interpolated" },
  impulses = { nil, "backward solve at inner times, new or continued", "restart|moments" },
  dtype = { gq.default_dtype, "numbers of the state", "float32|float64" },
  cosines = { 10, "terms of the noise (10: the paper's; 40: less bias); 0 trains the drift alone", "integer", 0 },
  rtol = { 1e-3, "relative tolerance of the solver", "number" },
  atol = { 1e-3, "absolute tolerance of the solver", "number" },
  seed = { 1, "seed of everything random", "integer", 0 },
  seeds = { 1, "run so many seeds, from --seed on", "integer", 1 },
  device = { gq.default_device, "device to run on" },
  data = { nil, "directory of the data", "text" },
  out = { nil, "directory for checkpoints and logs", "text" },
  json = { nil, "write the record of the run to this file", "text" },
  plot = { nil, "draw the result, in the terminal or --plot x.svg, .png, .pdf", "picture" },
  quick = { false, "a few seconds' run, to see that everything works" },
  quiet = { false, "print nothing but errors" },
  resume = { false, "continue from the checkpoint in --out" },
}

local function kind_of(default)
  if type(default) == "boolean" then return "flag" end
  if math.type(default) == "integer" then return "integer" end
  if type(default) == "number" then return "number" end
  if type(default) == "table" then return type(default[1]) == "number" and "numbers" or "list" end
  return "text"
end

-- {name, key, default, help, kind, least} of every entry.
local function rows_of(spec)
  local rows, by_name = {}, {}
  for _, entry in ipairs(spec) do
    local row
    if type(entry) == "string" then
      local u = usual[entry]
      if not u then error(("gq.cli: no usual option is called '%s'"):format(entry), 3) end
      row = { name = entry, default = u[1], help = u[2], kind = u[3] or kind_of(u[1]), least = u[4] }
    else
      local u = usual[entry[1]] or {}
      local default = entry[2]
      if default == nil and entry.n == nil then default = u[1] end
      row = { name = entry[1], default = default, help = entry[3] or u[2], kind = entry[4] or u[3] or kind_of(default),
        least = entry[5] or u[4] }
    end
    row.key = row.name:gsub("-", "_")
    if type(row.default) == "function" then row.default = row.default() end
    rows[#rows + 1], by_name[row.name] = row, row
  end
  return rows, by_name
end

local placeholder = { integer = " N", number = " X", text = " TEXT", flag = "", picture = " [FILE]", list = " A,B,...",
  numbers = " X,Y,..." }

-- "a|b|c" as a, b or c
local function either(kind) return (kind:gsub("|([^|]*)$", " or %1"):gsub("|", ", ")) end

local function help_row(r)
  local left, default = "--" .. r.name .. (placeholder[r.kind] or " TEXT"), r.default
  if type(default) == "table" then default = table.concat(default, ",") end
  local choices = r.kind:find("|", 1, true) and ": " .. either(r.kind) or ""
  return ("  %-22s %s%s%s"):format(left, r.help, choices, default and (" (%s)"):format(default) or "")
end

local function help(spec, rows, by_name)
  local script = arg and arg[0] or "script"
  local words = spec.words and " " .. spec.words or ""
  local lines = { ("usage: gqlua %s [options]%s"):format(script, words) }
  if spec.about then lines[#lines + 1] = spec.about end
  lines[#lines + 1] = ""
  for _, r in ipairs(rows) do lines[#lines + 1] = help_row(r) end
  lines[#lines + 1] = ("  %-22s %s"):format("--help", "print this")
  if by_name.json and not spec.words then
    lines[#lines + 1] = "Several values, as --width 8,16, make a run of each: gqlua sweep --help tells more."
  end
  if spec.more then lines[#lines + 1] = "\n" .. spec.more end
  return table.concat(lines, "\n")
end

local function items(text)
  local list = {}
  for item in text:gmatch("[^,%s]+") do list[#list + 1] = item end
  return #list > 0 and list or nil
end

local function numbers(text)
  local list = items(text) or {}
  for i, item in ipairs(list) do
    list[i] = tonumber(item)
    if not list[i] then return nil end
  end
  return #list > 0 and list or nil
end

-- The value, or nil; what is expected.
local convert = {
  integer = function(text) return math.tointeger(tonumber(text)), "an integer" end,
  number = function(text) return tonumber(text), "a number" end,
  text = function(text) return text, "a text" end,
  list = function(text) return items(text), "a list with commas" end,
  numbers = function(text) return numbers(text), "numbers with commas" end,
}

-- The next word, where it is the name of a picture; "-", the terminal, otherwise.
local function picture(text)
  local suffix = text and text:match("%.(%a+)$")
  return suffix and ("svg png pdf"):find(suffix:lower(), 1, true) and text or nil
end

local function choose(kind, text)
  for choice in kind:gmatch("[^|]+") do
    if choice == text then return text end
  end
  return nil, either(kind)
end

local function unknown(word, rows)
  local names = {}
  for i, r in ipairs(rows) do names[i] = r.name end
  local near = gq.core.nearest(word:gsub("^%-+", ""), names)
  near = near and (", did you mean --%s?"):format(near) or ""
  return ("unknown option %s%s; --help lists them"):format(word, near)
end

-- What does not fit together, or not this build.
local function conflict(o, by_name)
  if by_name.resume and o.resume and not o.out then return "--resume needs --out, the directory of the checkpoint" end
  if not by_name.device then return nil end
  local there, why = pcall(gq.set_default_device, o.device)
  return not there and ("--device %s: %s"):format(o.device, gq.core.said(why, "set_default_device")) or nil
end

-- The value of an option, or nil and what is wrong.
local function read(r, text)
  local value, expected
  if convert[r.kind] then
    value, expected = convert[r.kind](text)
  else
    value, expected = choose(r.kind, text)
  end
  if value == nil then return nil, ("--%s: %s expected, got %q"):format(r.name, expected, text) end
  if r.least and value < r.least then
    return nil, ("--%s: at least %d expected, got %s"):format(r.name, r.least, text)
  end
  return value
end

-- Several values of an option that takes one, "8,16": they ask for a sweep. nil: it is none.
local function several(r, text)
  local list = not (r.kind == "text" and r.name ~= "gradient") and text:find(",", 1, true) and items(text)
  for k, item in ipairs(list or {}) do
    local problem
    list[k], problem = read(r, item)
    if problem then return nil end
  end
  return list or nil
end

-- The table of values; nil and what is wrong; nil alone for --help.
local function parse(words, rows, by_name, free)
  local o, given, i = { words = free and {} or nil }, { lists = {} }, 1
  for _, r in ipairs(rows) do o[r.key] = r.default end
  while i <= #words do
    local word = words[i]
    if word == "--help" or word == "-h" then return nil end
    local name, text = word:match("^%-%-([^=]+)=(.*)$")
    name = name or word:match("^%-%-(.+)$")
    local r = name and by_name[name]
    if free and word:sub(1, 1) ~= "-" then
      table.insert(o.words, word)
    elseif not r then
      return nil, unknown(word, rows)
    elseif r.kind == "flag" then
      if text then return nil, ("--%s takes no value"):format(name) end
      o[r.key], given[r.key] = true, true
    elseif r.kind == "picture" then
      i = not text and picture(words[i + 1]) and i + 1 or i
      o[r.key], given[r.key] = picture(text or words[i]) or "-", true
      if text and o[r.key] == "-" then return nil, ("--%s: a name in .svg, .png or .pdf expected"):format(name) end
    else
      if not text then
        i = i + 1
        text = words[i]
        if text and by_name[text:match("^%-%-([^=]+)")] then text = nil end   -- the next option
      end
      if not text then return nil, ("--%s: a value is missing"):format(name) end
      local list = by_name.json and convert[r.kind] ~= convert.list and convert[r.kind] ~= convert.numbers and
        several(r, text)
      local value, problem = read(r, list and tostring(list[1]) or text)
      if problem then return nil, problem end
      given.lists[r.key] = list or nil
      o[r.key], given[r.key] = value, true
    end
    i = i + 1
  end
  local problem = conflict(o, by_name)
  if problem then return nil, problem end
  if given.lists.seed and given.seeds then return nil, "--seed of several values and --seeds: give one of them" end
  return o, given
end

-- The script over the lists that were given; seeds, the folder and the records are gq.sweep's. Returns nothing.
local own <const> = { seed = true, seeds = true, out = true, json = true, quiet = true, resume = true, plot = true }

local function sweep(o, given, lists)
  local fixed = {}
  for k in pairs(given) do
    if not own[k] and not lists[k] then fixed[k] = o[k] end
  end
  local seeds = lists.seed
  lists.seed = nil
  gq.sweep { script = arg[0], grid = lists, options = fixed, seeds = seeds or o.seeds or o.seed and 1,
    seed = not seeds and o.seed or nil, out = o.out, quiet = o.quiet }
end

local function cli(spec, words)
  if type(spec) ~= "table" then error(("gq.cli: a table expected, got %s"):format(describe(spec)), 2) end
  local rows, by_name = rows_of(spec)
  local o, other = parse(words or arg or {}, rows, by_name, spec.words ~= nil)
  if o then
    local lists = other.lists
    other.lists = nil
    if next(lists) then return sweep(o, other, lists) end
    if by_name.device then gq.set_default_device(o.device) end
    return o, other
  elseif other then
    io.stderr:write(("%s: %s\n"):format(arg and arg[0] or "script", other))
    os.exit(2, true)
  end
  print(help(spec, rows, by_name))
  return nil
end

-- What gq.odeint is told of them; an option that the script does not have is left to odeint.
local function solver_options(o)
  if type(o) ~= "table" then error(("gq.solver_options: gq.cli's table expected, got %s"):format(describe(o)), 2) end
  local gradient = o.paper and o.gradient == "auto" and "gq" or o.gradient
  return { rtol = o.rtol, atol = o.atol, gradient = gradient, gq = { C = o.C, paper = o.paper },
    adjoint = { trajectory = o.trajectory, impulses = o.impulses } }
end
gq.solver_options = solver_options
gq.docs[solver_options] = "gq.solver_options(o): gq.odeint's options from gq.cli's rtol, atol, gradient, C, " ..
  "paper, trajectory and impulses"

gq.docs[cli] = "gq.cli{ about = ..., {name, default, help [, kind [, least]]}, \"seed\", ... }: the script's " ..
  "options as a table, with - as _ in names, and which were given; nil after --help was printed"
return cli
