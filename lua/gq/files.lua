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

-- Without blanks at either end; linear in the length, which "^%s*(.-)%s*$" is not.
local function trim(s) return s:match("^()%s*$") and "" or s:match("^%s*(.*%S)") end

local function csv_row(line)
  local row = {}
  for cell in (line .. ","):gmatch("([^,]*),") do
    local text = trim(cell):gsub("^[+]", "")
    local v = tonumber(text)
    local word = text:lower():gsub("^-", "")
    if not v and (word == "nan" or word == "inf") then
      v = word == "nan" and 0 / 0 or (text:sub(1, 1) == "-" and -math.huge or math.huge)
    end
    if not v then return nil, ("a number expected, got %s"):format(describe(cell):match("^string (.*)$")) end
    row[#row + 1] = v
  end
  return row
end

-- Numbers separated by commas; a first line of names is skipped and returned as second result.
local function csv_load(path)
  local rows, names, number = {}, nil, 0
  local function bad(...) error(("gq.load: %s: line %d"):format(path, number) .. (...):format(select(2, ...)), 0) end
  for line in gq.file_read(path):gmatch("([^\n]*)\n?") do
    line = line:gsub("\r$", "")
    number = number + 1
    if line:match("%S") then
      local row, problem = csv_row(line)
      if not row then
        if #rows > 0 or names then bad(": %s", problem) end
        names = {}
        for name in (line .. ","):gmatch("([^,]*),") do names[#names + 1] = trim(name) end
      elseif #rows > 0 and #row ~= #rows[1] then
        bad(" has %d numbers, the first has %d", #row, #rows[1])
      else
        rows[#rows + 1] = row
      end
    end
  end
  if #rows == 0 then error(("gq.load: %s has no numbers"):format(path), 0) end
  return gq.tensor(rows), names
end

-- What f(path, ...) returns; its error, out of memory too, names the file and the line of the script.
local function naming(path, what, level, f, ...)
  local function finish(ok, ...)
    if ok then return ... end
    local e = ...
    if type(e) == "string" then
      if not e:find(path, 1, true) then e = ("%s: %s: %s"):format(what, path, e) end
      error(e, level + 1)
    end
    error(e, 0)
  end
  return finish(pcall(f, path, ...))
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

function gq.load(path) return naming(path, "gq.load", 3, kind_of(path, "gq.load").load) end
gq.docs[gq.load] = "gq.load(path): what gq.save wrote: a table of tensors and its metadata (.safetensors), a tensor " ..
  "(.npy, .csv)"

-- ---- checkpoints ----

gq.checkpoint = {}

-- The generator's state as text: 64-bit integers have no place in JSON.
local function rng_text()
  local state = gq.rng_state()
  return ("%d %d"):format(state.seed, state.counter)
end

-- nil and what is wrong, where it is no text of rng_text.
local function rng_of(text)
  local seed, counter = (type(text) == "string" and text or ""):match("^(%-?%d+) (%d+)$")
  seed, counter = math.tointeger(seed), math.tointeger(counter)
  if seed and counter then return { seed = seed, counter = counter } end
  return nil, ("the generator's state is two integers, got %s"):format(describe(text))
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
  local state = {}
  for i = 1, type(s.steps) == "table" and #s.steps or 0 do
    state[i] = {}
    for k = 1, 3 do state[i][k] = tensors[("optimiser.%d.%d"):format(i, k)] or false end
  end
  return { kind = s.kind, settings = s.settings, total = s.total, steps = s.steps, state = state }
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
    error(("gq.checkpoint.load: %s is a safetensors file but no checkpoint: read it with gq.load"):format(path), 0)
  end
  for key, v in next, meta do
    if v == gq.json_null then meta[key] = nil end
  end
  return tensors, meta
end

-- { object, what it gets } in turn; everything is checked before anything is written.
local function check_parts(o, model, meta, tensors)
  local parts = { { o.model, model } }
  if o.optimiser then
    if type(meta.optimiser) ~= "table" then error("holds no optimiser", 0) end
    parts[#parts + 1] = { o.optimiser, unpack_optimiser(meta.optimiser, tensors) }
  end
  if o.schedule and meta.schedule then parts[#parts + 1] = { o.schedule, meta.schedule } end
  for _, part in ipairs(parts) do
    local check = part[1] and part[1].check_state_dict        -- an object of the script's own may have none
    local problem = check and check(part[1], part[2])
    if problem then error(problem, 0) end
  end
  return parts
end

local function load_checkpoint(path, o)
  local tensors, meta = read_checkpoint(path)
  local model = {}
  for name, t in next, tensors do
    local inner = name:match("^model%.(.+)$")
    if inner then model[inner] = t end
  end
  local parts = check_parts(o, model, meta, tensors)
  local rng
  if o.rng ~= false and meta.rng and (o.rng or o.model) then
    local problem
    rng, problem = rng_of(meta.rng)
    if problem then error(problem, 0) end
  end
  for _, part in ipairs(parts) do
    if part[1] then part[1]:load_state_dict(part[2]) end
  end
  if rng then gq.set_rng_state(rng) end
  return { epoch = meta.epoch, extra = meta.extra, model = model, rng = meta.rng }
end

-- Puts the numbers back into the model, optimiser, schedule and generator that are named, and returns the
-- rest: {epoch, extra, model = state_dict}.
function gq.checkpoint.load(path, into)
  local o = options(into, known, "gq.checkpoint.load")
  if type(path) ~= "string" then
    error(("gq.checkpoint.load: a path expected, got %s"):format(describe(path)), 2)
  end
  return naming(path, "gq.checkpoint.load", 3, load_checkpoint, o)
end
gq.docs[gq.checkpoint.load] = "gq.checkpoint.load(path [, {model, optimiser, schedule, rng}]): puts the numbers " ..
  "back into what is named; returns {epoch, extra, model = its state_dict}"
