-- cli.lua -- options of scripts: gq.cli{ name, about, options... } reads arg, prints --help, and returns a table.
--
--   local o = gq.cli{
--     about = "Train a neural SDE.",
--     { "epochs", 100, "passes over the data" },          -- type by the default: integer, number, text, flag
--     { "width", 20, "hidden width", "integer" },
--     { "lr", nil, "learning rate", "number" },           -- no default: nil unless given
--     "seed", "json", "quick",                            -- the usual ones by name
--   }
--   if not o then return end                              -- --help was printed

local gq = ...
local describe = gq.core.describe

-- Options that mean the same in every script: default, help, kind, least value.
local usual = {
  epochs = { 100, "passes over the training data", "integer", 0 },
  width = { 20, "hidden width", "integer", 1 },
  lr = { nil, "learning rate (by default the paper's for the width)", "number" },
  ["batch-size"] = { 40, "examples a training step", "integer", 1 },
  gradient = { "gq", "gradient engine: direct, adjoint, seminorm or gq" },
  C = { 0.1, "quadrature nodes by eq. (9): ceil(C NFE dt / T)", "number" },
  cosines = { 10, "terms of the noise; 0 trains the drift alone", "integer", 0 },
  rtol = { 1e-3, "relative tolerance of the solver", "number" },
  atol = { 1e-3, "absolute tolerance of the solver", "number" },
  seed = { 1, "seed of everything random", "integer", 0 },
  seeds = { 1, "run so many seeds, from --seed on", "integer", 1 },
  device = { "cpu", "device to run on" },
  data = { nil, "directory of the data", "text" },
  out = { nil, "directory for checkpoints and logs", "text" },
  json = { nil, "write the record of the run to this file", "text" },
  quick = { false, "a few seconds' run, to see that everything works" },
  quiet = { false, "print nothing but errors" },
  resume = { false, "continue from the checkpoint in --out" },
}

local function kind_of(default)
  if type(default) == "boolean" then return "flag" end
  if math.type(default) == "integer" then return "integer" end
  if type(default) == "number" then return "number" end
  return "text"
end

-- {name, default, help, kind} of every entry.
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
        least = u[4] }
    end
    rows[#rows + 1], by_name[row.name] = row, row
  end
  return rows, by_name
end

local placeholder = { integer = " N", number = " X", text = " TEXT", flag = "" }

local function help(spec, rows)
  local script = arg and arg[0] or "script"
  local lines = { ("usage: gqlua %s [options]"):format(script) }
  if spec.about then lines[#lines + 1] = spec.about end
  lines[#lines + 1] = ""
  for _, r in ipairs(rows) do
    local default = r.default ~= nil and r.default ~= false and (" (%s)"):format(r.default) or ""
    lines[#lines + 1] = ("  %-22s %s%s"):format("--" .. r.name .. placeholder[r.kind], r.help, default)
  end
  lines[#lines + 1] = ("  %-22s %s"):format("--help", "print this")
  if spec.more then lines[#lines + 1] = "\n" .. spec.more end
  return table.concat(lines, "\n")
end

local convert = {
  integer = function(text) return math.tointeger(tonumber(text)), "an integer" end,
  number = function(text) return tonumber(text), "a number" end,
  text = function(text) return text, "a text" end,
}

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
  for _, name in ipairs(gq.devices()) do
    if name == o.device then return nil end
  end
  return ("--device %s: this build has %s"):format(o.device, table.concat(gq.devices(), ", "))
end

-- The table of values; nil and what is wrong; nil alone for --help.
local function parse(words, rows, by_name)
  local o, given, i = {}, {}, 1
  for _, r in ipairs(rows) do o[r.name:gsub("-", "_")] = r.default end
  while i <= #words do
    local word = words[i]
    if word == "--help" or word == "-h" then return nil end
    local name, value = word:match("^%-%-([^=]+)=(.*)$")
    name = name or word:match("^%-%-(.+)$")
    local r = name and by_name[name]
    if not r then return nil, unknown(word, rows) end
    local key = r.name:gsub("-", "_")
    if r.kind == "flag" then
      if value then return nil, ("--%s takes no value"):format(name) end
      o[key] = true
    else
      if not value then
        i = i + 1
        value = words[i]
      end
      if not value then return nil, ("--%s: a value is missing"):format(name) end
      local converted, expected = convert[r.kind](value)
      if converted == nil then return nil, ("--%s: %s expected, got %q"):format(name, expected, value) end
      if r.least and converted < r.least then
        return nil, ("--%s: at least %d expected, got %s"):format(name, r.least, value)
      end
      o[key] = converted
    end
    given[key], i = true, i + 1
  end
  local problem = conflict(o, by_name)
  if problem then return nil, problem end
  return o, given
end

local function cli(spec, words)
  if type(spec) ~= "table" then error(("gq.cli: a table expected, got %s"):format(describe(spec)), 2) end
  local rows, by_name = rows_of(spec)
  local o, other = parse(words or arg or {}, rows, by_name)
  if o then
    return o, other
  elseif other then
    io.stderr:write(("%s: %s\n"):format(arg and arg[0] or "script", other))
    os.exit(2, true)
  end
  print(help(spec, rows))
  return nil
end

gq.docs[cli] = "gq.cli{ about = ..., {name, default, help [, kind]}, \"seed\", ... }: the script's options as a " ..
  "table, with - as _ in names, and which were given; nil after --help was printed"
return cli
