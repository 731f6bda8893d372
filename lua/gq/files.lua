-- files.lua -- gq.save and gq.load by suffix (.safetensors, .npy, .csv), JSON under gq.json, and
-- gq.checkpoint: a model, its optimiser and where training was, in one safetensors file.

local gq = ...
local options, describe = gq.core.options, gq.core.describe

gq.json = { encode = gq.json_encode, decode = gq.json_decode, array = gq.json_array, null = gq.json_null }

-- ---- csv ----

-- One row a line; a vector is one column.
local function csv_save(path, t)
  if not gq.is_tensor(t) then error(("gq.save: .csv holds one tensor, got %s"):format(describe(t)), 3) end
  if t:dim() > 2 then
    error(("gq.save: .csv holds a vector or a matrix, got %s: use .npy"):format(describe(t)), 3)
  end
  local lines = {}
  for i, row in ipairs(t:dim() == 0 and { t:item() } or t:totable()) do
    if type(row) ~= "table" then row = { row } end
    local cells = {}
    for j, v in ipairs(row) do
      cells[j] = math.type(v) == "float" and ("%.17g"):format(v) or tostring(v)
    end
    lines[i] = table.concat(cells, ",")
  end
  lines[#lines + 1] = ""
  gq.file_write(path, table.concat(lines, "\n"))
end

local function csv_row(line, number, path)
  local row = {}
  for cell in (line .. ","):gmatch("([^,]*),") do
    local text = cell:match("^%s*(.-)%s*$"):gsub("^[+]", "")
    local v = tonumber(text)
    local word = text:lower():gsub("^-", "")
    if not v and (word == "nan" or word == "inf") then
      v = word == "nan" and 0 / 0 or (text:sub(1, 1) == "-" and -math.huge or math.huge)
    end
    if not v then
      return nil, ("gq.load: %s: line %d: a number expected, got %q"):format(path, number, cell)
    end
    row[#row + 1] = v
  end
  return row
end

-- Numbers separated by commas; a first line of names is skipped and returned as second result.
local function csv_load(path)
  local rows, names, number = {}, nil, 0
  for line in gq.file_read(path):gmatch("([^\n]*)\n?") do
    line = line:gsub("\r$", "")
    number = number + 1
    if line:match("%S") then
      local row, problem = csv_row(line, number, path)
      if not row then
        if #rows > 0 or names then error(problem, 3) end
        names = {}
        for name in (line .. ","):gmatch("%s*(.-)%s*,") do names[#names + 1] = name end
      elseif #rows > 0 and #row ~= #rows[1] then
        error(("gq.load: %s: line %d has %d numbers, the first has %d"):format(path, number, #row, #rows[1]), 3)
      else
        rows[#rows + 1] = row
      end
    end
  end
  if #rows == 0 then error(("gq.load: %s has no numbers"):format(path), 3) end
  return gq.tensor(rows), names
end

-- ---- by suffix ----

local kinds = {
  safetensors = { save = function(path, t, meta)
    if gq.is_tensor(t) then t = { tensor = t } end
    gq.safetensors_save(path, t, meta)
  end, load = gq.safetensors_load },
  npy = { save = gq.npy_save, load = gq.npy_load },
  csv = { save = csv_save, load = csv_load },
}

local function kind_of(path, what)
  if type(path) ~= "string" then error(("%s: a path expected, got %s"):format(what, describe(path)), 3) end
  local suffix = (path:match("%.([^./]+)$") or ""):lower()
  if suffix == "npz" then
    error(("%s: %s: .npz is not read or written; use .safetensors for several tensors, .npy for one"):format(what,
      path), 3)
  end
  local kind = kinds[suffix]
  if not kind then
    error(("%s: %s: a path ending in .safetensors, .npy or .csv expected"):format(what, path), 3)
  end
  return kind
end

function gq.save(path, t, metadata)
  if gq.core.is_module(t) then
    error("gq.save: a module given: save net:state_dict(), or all of a training run by gq.checkpoint.save(path, "
      .. "{model = net})", 2)
  end
  kind_of(path, "gq.save").save(path, t, metadata)
end
gq.docs[gq.save] = "gq.save(path, t [, metadata]): .safetensors a table of tensors by name, .npy one tensor, .csv a " ..
  "vector or matrix; the file is replaced at once or not at all"

function gq.load(path) return kind_of(path, "gq.load").load(path) end
gq.docs[gq.load] = "gq.load(path): what gq.save wrote: a table of tensors and its metadata (.safetensors), a tensor " ..
  "(.npy, .csv)"

-- ---- checkpoints ----

gq.checkpoint = {}

-- The generator's state as text: 64-bit integers have no place in JSON.
local function rng_text()
  local state = gq.rng_state()
  return ("%d %d"):format(state.seed, state.counter)
end

local function set_rng(text)
  local seed, counter = text:match("^(%S+) (%S+)$")
  gq.set_rng_state { seed = math.tointeger(seed), counter = math.tointeger(counter) }
end

-- Moments are tensors of the file, the rest is JSON.
local function pack_optimiser(optimiser, tensors)
  local s = optimiser:state_dict()
  for i, moments in ipairs(s.state) do
    for k, m in ipairs(moments) do
      if m then tensors[("optimiser.%d.%d"):format(i, k)] = m end
    end
  end
  return { kind = s.kind, settings = s.settings, total = s.total, steps = s.steps }
end

local function unpack_optimiser(s, tensors)
  s.state = {}
  for i = 1, #s.steps do
    s.state[i] = {}
    for k = 1, 3 do s.state[i][k] = tensors[("optimiser.%d.%d"):format(i, k)] or false end
  end
  return s
end

local known = "model optimiser schedule epoch rng extra"

-- extra: whatever else JSON can hold.
function gq.checkpoint.save(path, what)
  local o = options(what, known, "gq.checkpoint.save")
  local tensors, meta = {}, { format = "gqlua checkpoint 1", epoch = o.epoch, extra = o.extra }
  if o.model then
    for name, t in next, o.model:state_dict() do tensors["model." .. name] = t end
  end
  if o.optimiser then meta.optimiser = pack_optimiser(o.optimiser, tensors) end
  if o.schedule then meta.schedule = o.schedule:state_dict() end
  if o.rng ~= false then meta.rng = type(o.rng) == "string" and o.rng or rng_text() end
  gq.safetensors_save(path, tensors, { gqlua = gq.json_encode(meta) })
end
gq.docs[gq.checkpoint.save] = "gq.checkpoint.save(path, {model, optimiser, schedule, epoch, rng, extra}): all of it " ..
  "in one .safetensors file, at once; the generator's state is included unless rng = false"

local function read_checkpoint(path)
  local tensors, metadata = gq.safetensors_load(path)
  local ok, meta = pcall(gq.json_decode, metadata.gqlua or "")
  if not ok or type(meta) ~= "table" or meta.format ~= "gqlua checkpoint 1" then
    error(("gq.checkpoint.load: %s is a safetensors file but no checkpoint: read it with gq.load"):format(path), 3)
  end
  return tensors, meta
end

-- Puts the numbers back into the model, optimiser, schedule and generator that are named, and returns the
-- rest: {epoch, extra, model = state_dict}.
function gq.checkpoint.load(path, into)
  local o = options(into, known, "gq.checkpoint.load")
  local tensors, meta = read_checkpoint(path)
  local model = {}
  for name, t in next, tensors do
    local inner = name:match("^model%.(.+)$")
    if inner then model[inner] = t end
  end
  if o.model then o.model:load_state_dict(model) end
  if o.optimiser then
    if not meta.optimiser then error(("gq.checkpoint.load: %s holds no optimiser"):format(path), 2) end
    o.optimiser:load_state_dict(unpack_optimiser(meta.optimiser, tensors))
  end
  if o.schedule and meta.schedule then o.schedule:load_state_dict(meta.schedule) end
  if o.rng ~= false and meta.rng and (o.rng or o.model) then set_rng(meta.rng) end
  return { epoch = meta.epoch, extra = meta.extra, model = model, rng = meta.rng }
end
gq.docs[gq.checkpoint.load] = "gq.checkpoint.load(path [, {model, optimiser, schedule, rng}]): puts the numbers " ..
  "back into what is named; returns {epoch, extra, model = its state_dict}"
