-- files.lua -- gq.save and gq.load by suffix (.safetensors, .npy, .npz, .csv, .idx), JSON under gq.json, and
-- gq.checkpoint: a model, its optimiser and where training was, in one safetensors file.

local gq = ...
local core = gq.core
local options, describe, fail, copy, expect = core.options, core.describe, core.fail, core.copy, core.expect

-- The tables among lines of JSON, of which a killed run may leave half a one.
function core.json_lines(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local ok, t = pcall(gq.json_decode, line)
    if ok and type(t) == "table" then list[#list + 1] = t end
  end
  return list
end

gq.json = { encode = gq.json_encode, decode = gq.json_decode, array = gq.json_array, null = gq.json_null }

-- What f(...) returns; its error says `what` first instead of a line of a script.
local function saying(what, f, ...)
  local function finish(ok, ...)
    if ok then return ... end
    local e = ...
    error(type(e) == "string" and what .. ": " .. e:gsub("^[^\n]-:%d+: ", "") or e, 0)
  end
  return finish(pcall(f, ...))
end

-- ---- csv ----

-- A name as a cell: quoted where it has to be.
local function quoted(name)
  if not name:find('[,"\n]') then return name end
  return '"' .. name:gsub('"', '""') .. '"'
end

-- One row a line; a vector is one column. names: of the columns, a first line.
local function csv_save(path, t, names)
  if not gq.is_tensor(t) then error(("gq.save: .csv holds one tensor, got %s"):format(describe(t)), 3) end
  if t:dim() > 2 then
    error(("gq.save: .csv holds a vector or a matrix, got %s: use .npy"):format(describe(t)), 3)
  end
  local lines = {}
  if names ~= nil then
    local columns = t:dim() == 2 and t.shape[2] or 1
    if type(names) ~= "table" or #names ~= columns then
      error(("gq.save: .csv: a list of %d names of columns expected, got %s"):format(columns,
        type(names) == "table" and #names or describe(names)), 3)
    end
    local cells = {}
    for i, name in ipairs(names) do cells[i] = quoted(tostring(name)) end
    lines[1] = table.concat(cells, ",")
  end
  for _, row in ipairs(t:dim() == 0 and { t:item() } or t:totable()) do
    if type(row) ~= "table" then row = { row } end
    local cells = {}
    for j, v in ipairs(row) do
      cells[j] = math.type(v) == "float" and ("%.17g"):format(v) or type(v) == "boolean" and (v and "1" or "0") or
        tostring(v)
    end
    lines[#lines + 1] = table.concat(cells, ",")
  end
  lines[#lines + 1] = ""
  gq.file_write(path, table.concat(lines, "\n"))
end

local separators = { [","] = true, [";"] = true, ["\t"] = true, ["|"] = true, [" "] = true }

-- What stands most often in the line that begins at `at`, outside of quotes; a blank where nothing else does.
local function find_separator(text, at)
  local line, best, most = text:match("^[^\n]*", at):gsub('"[^"]*"', ""), ",", 0
  for _, c in ipairs { ",", ";", "\t", "|" } do
    local _, n = line:gsub(c, "")
    if n > most then best, most = c, n end
  end
  if most == 0 and line:find("%S +%S") then best = " " end
  return best
end

-- Columns by name or number: how many, for every column of the file which of them it is (0: none), and their names.
local function choose_columns(wanted, names, count)
  if wanted == nil then return count, nil, names end
  local places, chosen, n = {}, {}, 0
  for k = 1, count do places[k] = 0 end
  for _, w in ipairs(type(wanted) == "table" and wanted or { wanted }) do
    local at = math.type(w) == "integer" and w or nil
    for k, name in ipairs(names or {}) do
      if name == w and not at then at = k end
    end
    if not at or at < 1 or at > count then
      error(("no column %s; there are %s"):format(describe(w):gsub("^%a+ ", ""),
        names and table.concat(names, ", ") or "1 to " .. count), 0)
    end
    if places[at] > 0 then error(("column %s is named twice"):format(tostring(w)), 0) end
    n = n + 1
    places[at], chosen[n] = n, names and names[at] or nil
  end
  return n, places, names and chosen
end

-- A first line with a cell that is no number, date or missing is one of names.
local function csv_load(path, opts)
  local o = options(opts, "separator columns header dtype", "gq.load")
  if o.dtype ~= nil then core.one_of(o, "dtype", { "float32", "float64", "int64", "bool" }, "gq.load") end
  local text = gq.file_read(path)
  local at = text:sub(1, 3) == "\xef\xbb\xbf" and 4 or 1
  local first = text:find("%S", at)
  if not first then error(("gq.load: %s has no numbers"):format(path), 0) end
  local start, line = at, 1                                     -- of the first line with anything in it
  while true do
    local newline = text:find("\n", start, true)
    if not newline or newline >= first then break end
    start, line = newline + 1, line + 1
  end
  local separator = o.separator or find_separator(text, start)
  local odd = type(separator) ~= "string" or #separator ~= 1 or separator:find('[%w"%.\n+-]')
  if odd and not separators[separator] then
    error(("gq.load: separator: one character as \",\" or \"\\t\" expected, got %s"):format(describe(separator)), 0)
  end
  local cells, kinds, after = core.csv_record(text, start - 1, separator)
  local header = o.header
  if header == nil then
    for _, kind in ipairs(kinds) do header = header or kind == "text" end
  end
  local names
  if header then
    names = {}
    for k, cell in ipairs(cells) do names[k] = cell:gsub('""', '"') end
    local _, lines = text:sub(start, after):gsub("\n", "")
    start, line = after + 1, line + lines
  end
  local n, places, chosen = choose_columns(o.columns, names, #cells)
  local x, _, missing = saying("gq.load: " .. path, core.csv_numbers, text, start - 1, line, separator, #cells, places,
    n, o.dtype)
  if #x == 0 then error(("gq.load: %s has no numbers"):format(path), 0) end
  if missing > 0 and x.dtype:sub(1, 5) ~= "float" then
    error(("%d cells are missing, which %s cannot say: read it as float64"):format(missing, x.dtype), 0)
  end
  return x, chosen
end

-- ---- npz: a zip file of .npy files ----

local function field(format, s, at)
  if at < 1 or at + string.packsize(format) - 1 > #s then error(("it ends at byte %d"):format(#s), 0) end
  return string.unpack(format, s, at)
end

-- The directory at the end of a zip file: a list of {name, method, crc, packed, size, offset}.
local function zip_entries(s)
  local at
  for i = #s - 21, math.max(1, #s - 21 - 65535), -1 do
    if s:sub(i, i + 3) == "PK\5\6" then
      at = i
      break
    end
  end
  if not at then error("no zip file: its directory is missing", 0) end
  local count, _, offset = field("<I2I4I4", s, at + 10)
  if offset == 0xffffffff or count == 0xffff then              -- zip64
    if s:sub(at - 20, at - 17) ~= "PK\6\7" then error("the zip64 directory is missing", 0) end
    local far = field("<I8", s, at - 12) + 1
    count, _, offset = field("<I8I8I8", s, far + 32)
  end
  local list, p = {}, offset + 1
  for i = 1, count do
    if s:sub(p, p + 3) ~= "PK\1\2" then error(("entry %d of the zip directory is damaged"):format(i), 0) end
    local flags, method, _, crc, packed, size, n, m, k = field("<I2I2I4I4I4I4I2I2I2", s, p + 8)
    local start = field("<I4", s, p + 42)
    local name, extra = s:sub(p + 46, p + 45 + n), s:sub(p + 46 + n, p + 45 + n + m)
    local q = 1
    while q + 3 <= #extra do
      local id, length = field("<I2I2", extra, q)
      if id == 1 then
        local r = q + 4
        local function wide(v)
          if v ~= 0xffffffff then return v end
          r = r + 8
          return (field("<I8", extra, r - 8))
        end
        size, packed, start = wide(size), wide(packed), wide(start)
      end
      q = q + 4 + length
    end
    if flags & 1 ~= 0 then error(name .. " is encrypted", 0) end
    list[i] = { name = name, method = method, crc = crc, packed = packed, size = size, offset = start }
    p = p + 46 + n + m + k
  end
  return list
end

local function zip_bytes(s, e)
  if field("<c4", s, e.offset + 1) ~= "PK\3\4" then error(e.name .. ": its place in the zip file is damaged", 0) end
  local n, m = field("<I2I2", s, e.offset + 27)
  local at = e.offset + 30 + n + m
  if at < 0 or e.packed < 0 or at + e.packed > #s then error(("%s: it ends at byte %d"):format(e.name, #s), 0) end
  local bytes
  if e.method == 0 then bytes = s:sub(at + 1, at + e.packed)
  elseif e.method == 8 then
    bytes = saying(e.name, core.inflate, s, at, e.packed, "raw", e.size)
  else error(("%s: compression %d: stored and deflated entries are read"):format(e.name, e.method), 0) end
  if #bytes ~= e.size or core.crc32(bytes) ~= e.crc then error(e.name .. " is damaged: its checksum is another", 0) end
  return bytes
end

local function npz_load(path)
  local s, tensors = gq.file_read(path), {}
  for _, e in ipairs(zip_entries(s)) do
    local name = e.name:gsub("%.npy$", "")
    if tensors[name] then error(("two arrays are called %s"):format(name), 0) end
    tensors[name] = core.npy_read(("%s: %s"):format(path, e.name), zip_bytes(s, e))
  end
  return tensors
end

local descr = { float32 = "<f4", float64 = "<f8", int64 = "<i8", bool = "|b1" }

local function npy_bytes(t)
  local shape = table.concat(t.shape, ", ") .. (t:dim() == 1 and "," or "")
  local header = ("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }"):format(descr[t.dtype], shape)
  header = header .. (" "):rep(-(#header + 11) % 64) .. "\n"
  return "\x93NUMPY\1\0" .. ("<s2"):pack(header) .. core.bytes(t)
end

-- {compress = true}: deflated.
local function npz_save(path, t, opts)
  local o = options(opts, "compress", "gq.save")
  if gq.is_tensor(t) then t = { arr_0 = t } end
  if type(t) ~= "table" then error(("gq.save: .npz holds tensors by name, got %s"):format(describe(t)), 3) end
  local names = {}
  for name, x in next, t do
    if type(name) ~= "string" or name == "" or #name > 1000 or not gq.is_tensor(x) then
      error(("gq.save: .npz holds tensors by name; entry %s is %s"):format(tostring(name), describe(x)), 3)
    end
    names[#names + 1] = name
  end
  table.sort(names)
  local parts, directory, at = {}, {}, 0
  for i, name in ipairs(names) do
    local bytes = npy_bytes(t[name])
    local packed = o.compress and core.deflate(bytes) or bytes
    if #packed >= 0xffffffff or #bytes >= 0xffffffff or at >= 0xffffffff then
      error("gq.save: .npz: arrays of 4 GB and more go into .safetensors", 3)
    end
    local about = ("<I2I2I2I2I4I4I4I2I2"):pack(0x800, o.compress and 8 or 0, 0, 0x21, core.crc32(bytes), #packed,
      #bytes, #name + 4, 0)                                     -- names in UTF-8; 1980-01-01
    local head = "PK\3\4" .. ("<I2"):pack(20) .. about .. name .. ".npy"
    parts[2 * i - 1], parts[2 * i] = head, packed
    directory[i] = "PK\1\2" .. ("<I2I2"):pack(20, 20) .. about .. ("<I2I2I2I4I4"):pack(0, 0, 0, 0, at) .. name .. ".npy"
    at = at + #head + #packed
  end
  local list = table.concat(directory)
  parts[#parts + 1] = list .. "PK\5\6" .. ("<I2I2I2I2I4I4I2"):pack(0, 0, #names, #names, #list, at, 0)
  gq.file_write(path, table.concat(parts))
end

-- ---- idx: MNIST's format ----

local idx_types = { [8] = "u1", [9] = "i1", [11] = "i2", [12] = "i4", [13] = "f4", [14] = "f8" }
local idx_sizes = { u1 = 1, i1 = 1, i2 = 2, i4 = 4, f4 = 4, f8 = 8 }

-- The bytes of a file, unpacked if they are gzip's.
function core.read_packed(path)
  local bytes = gq.file_read(path)
  if bytes:sub(1, 2) ~= "\x1f\x8b" then return bytes end
  return saying(path .. ": damaged gzip", core.inflate, bytes, 0, #bytes, "gzip")
end

-- The sizes, type and first byte (from 0) of the numbers of an idx file.
function core.idx_header(path, bytes)
  local function bad(...) error(("%s: %s"):format(path, (...):format(select(2, ...))), 0) end
  if #bytes < 4 or bytes:sub(1, 2) ~= "\0\0" then bad("not an idx file: it does not begin with two zero bytes") end
  local code, rank = bytes:byte(3, 4)
  local kind = idx_types[code]
  if not kind then bad("numbers of type %d: 8, 9, 11, 12, 13 and 14 are read", code) end
  if rank < 1 or rank > 8 or #bytes < 4 + 4 * rank then bad("%d dimensions in %d bytes", rank, #bytes) end
  local shape, count = { (">" .. ("I4"):rep(rank)):unpack(bytes, 5) }, 1
  shape[rank + 1] = nil
  for _, n in ipairs(shape) do
    count = count * n
    if count > 1 << 40 then bad("too many numbers") end
  end
  local first = 4 + 4 * rank
  if #bytes ~= first + count * idx_sizes[kind] then
    bad("{%s} numbers of %d bytes follow %d, the file has %d", table.concat(shape, ", "), idx_sizes[kind], first,
      #bytes)
  end
  return shape, kind, first, count
end

local function idx_load(path)
  local bytes = core.read_packed(path)
  local shape, kind, first, count = core.idx_header(path, bytes)
  local dtype = kind == "f4" and "float32" or kind == "f8" and "float64" or "int64"
  return core.numbers(bytes, first, count, kind, true, dtype):reshape(shape)
end

-- What f(path, ...) returns; its error, out of memory too, names the file and the line of the script.
local function naming(path, what, f, ...)
  local function finish(ok, ...)
    if ok then return ... end
    local e = ...
    if type(e) == "string" then
      e = core.bare(e)                                      -- fail tells the place
      if not e:find(path, 1, true) then
        local rest = e:sub(1, #what + 2) == what .. ": " and e:sub(#what + 3) or e
        e = ("%s: %s: %s"):format(what, path, rest)
      end
      fail(e)
    end
    error(e, 0)
  end
  return finish(pcall(f, path, ...))
end

-- ---- by suffix ----

local save = gq.safetensors_save                             -- errors name the function by this name

local kinds = {
  safetensors = { save = function(path, t, meta)
    if gq.is_tensor(t) then t = { tensor = t } end
    save(path, t, meta)
  end, load = gq.safetensors_load },
  npy = { save = gq.npy_save, load = gq.npy_load, alone = true },
  npz = { save = npz_save, load = npz_load },
  csv = { save = csv_save, load = csv_load, options = true },
  idx = { load = idx_load },
}

local function kind_of(path, what)
  if type(path) ~= "string" then error(("%s: a path expected, got %s"):format(what, describe(path)), 3) end
  local plain = path:gsub("%.gz$", "")
  local suffix = plain:match("%-ubyte$") and "idx" or (plain:match("%.([^./]+)$") or ""):lower()
  local kind = kinds[suffix]
  if not kind or plain ~= path and suffix ~= "idx" then
    error(("%s: %s: a path ending in .safetensors, .npy or .csv expected, or in .npz or .idx"):format(what, path), 3)
  end
  return kind
end

function gq.save(path, t, metadata)
  if gq.core.is_module(t) then
    error("gq.save: a module given: save net:state_dict(), or all of a training run by gq.checkpoint.save(path, "
      .. "{model = net})", 2)
  end
  local kind = kind_of(path, "gq.save")
  if not kind.save then error(("gq.save: %s: .idx is read, not written: use .npy"):format(path), 2) end
  if kind.alone and metadata ~= nil then
    error(("gq.save: %s: a tensor alone goes into .npy; got %s beside it"):format(path, describe(metadata)), 2)
  end
  kind.save(path, t, metadata)
end
gq.docs[gq.save] = [[
gq.save(path, t [, more]): the file is replaced at once or not at all
.safetensors: a table of tensors by name; more: metadata, strings by name
.npy: one tensor; .npz: a table of tensors by name; more: {compress = true}
.csv: a vector or matrix; more: a list of the columns' names]]

function gq.load(path, opts)
  local kind = kind_of(path, "gq.load")
  if opts ~= nil and not kind.options then
    error(("gq.load: %s: only .csv takes options, got %s beside the path"):format(path, describe(opts)), 2)
  end
  return naming(path, "gq.load", kind.load, opts)
end
gq.docs[gq.load] = [[
gq.load(path [, opts]): what gq.save wrote, and what others did
.safetensors: a table of tensors by name, and its metadata; .npz: a table of tensors; .npy: a tensor
  of these, integers of other sizes become int64, half and bfloat16 float32
.idx, -ubyte, and these with .gz: MNIST's format; integers become int64
.csv: a matrix and the names of its columns, if it has a line of them; missing cells are NaN, dates
  seconds since 1970 (in float64)
  opts: {columns = {"t", "x"} or numbers: those in that order, separator: found, header: found, dtype}]]

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

core.rng_text, core.rng_of = rng_text, rng_of

-- Moments are tensors of the file, the rest is JSON. s: a state_dict; a list of optimisers has one of each.
local function pack_optimiser(s, tensors, prefix)
  local packed = copy(s, {})
  if s.list then
    packed.list = {}
    for i, part in ipairs(s.list) do packed.list[i] = pack_optimiser(part, tensors, ("%s%d."):format(prefix, i)) end
    return packed
  end
  for i, moments in ipairs(s.state or {}) do
    for k, m in ipairs(moments) do
      if m then tensors[("%s%d.%d"):format(prefix, i, k)] = m end
    end
  end
  packed.state, packed.kept = nil, s.state and #s.state
  return packed
end

local function is_count(n) return type(n) == "number" and n % 1 == 0 and n >= 0 and n < 1e9 end

local function unpack_optimiser(s, tensors, prefix)
  if type(s) ~= "table" then return s end
  local whole = copy(s, {})
  if type(s.list) == "table" then
    whole.list = {}
    for i, part in ipairs(s.list) do whole.list[i] = unpack_optimiser(part, tensors, ("%s%d."):format(prefix, i)) end
    return whole
  end
  whole.state = {}
  for i = 1, is_count(s.kept) and s.kept or type(s.steps) == "table" and #s.steps or 0 do
    whole.state[i] = {}
    for k = 1, 3 do whole.state[i][k] = tensors[("%s%d.%d"):format(prefix, i, k)] or false end
  end
  return whole
end

local FORMAT <const> = "gqlua checkpoint 1"
local known = "model optimiser schedule ema epoch rng extra"
core.checkpoint_keys = known .. " value"

-- Optimiser and schedule of what is saved or loaded, lists of them as one.
local function several(o, what)
  expect(o.model == nil or type(o.model) == "table" and o.model.state_dict, what, "model: a module", o.model)
  for _, key in ipairs { "optimiser", "schedule" } do
    if o[key] ~= nil and (type(o[key]) ~= "table" or rawget(o[key], 1) == nil and not o[key].state_dict) then
      fail(("%s: %s: one of gq.optim, or a list of them, expected, got %s"):format(what, key, describe(o[key])))
    end
  end
  if o.ema ~= nil then core.check_ema(o.ema, what) end
  return core.together(o.optimiser, what .. ": optimiser", "an optimiser"),
    core.together(o.schedule, what .. ": schedule", "a schedule")
end

-- extra: whatever else JSON can hold.
function gq.checkpoint.save(path, what)
  local o = options(what, core.checkpoint_keys, "gq.checkpoint.save")
  local tensors, meta = {}, { format = FORMAT, epoch = o.epoch, value = o.value, extra = o.extra }
  local optimiser, schedule = several(o, "gq.checkpoint.save")
  if o.epoch ~= nil then core.need(o, "epoch", "integer", nil, "gq.checkpoint.save") end
  if type(o.rng) == "string" then
    local _, problem = rng_of(o.rng)
    if problem then fail("gq.checkpoint.save: rng: " .. problem) end
  elseif o.rng ~= nil then
    core.need(o, "rng", "boolean", nil, "gq.checkpoint.save")
  end
  if o.model then
    for name, t in next, o.model:state_dict() do tensors["model." .. name] = t end
  end
  if optimiser then meta.optimiser = pack_optimiser(optimiser:state_dict(), tensors, "optimiser.") end
  if schedule then meta.schedule = schedule:state_dict() end
  if o.ema then
    meta.ema = o.ema:state_dict()
    for i, t in ipairs(meta.ema.average) do tensors["ema." .. i] = t end
    meta.ema.average = nil
  end
  if o.rng ~= false then meta.rng = type(o.rng) == "string" and o.rng or rng_text() end
  gq.safetensors_save(path, tensors, { gqlua = gq.json_encode(meta) })
end
gq.docs[gq.checkpoint.save] = "gq.checkpoint.save(path, {model, optimiser, schedule, ema, epoch, rng, value, " ..
  "extra}): all of it in one .safetensors file, at once; the generator's state is included unless rng = false; " ..
  "optimiser and schedule may be lists"

local function read_checkpoint(path)
  local tensors, metadata = gq.safetensors_load(path)
  local ok, meta = pcall(gq.json_decode, metadata.gqlua or "")
  local format = ok and type(meta) == "table" and tostring(meta.format) or ""
  if format ~= FORMAT and format:find("^gqlua checkpoint") then
    error(("gq.checkpoint.load: %s is a \"%s\", of another version of gqlua; this one (%s) reads \"%s\""):format(
      path, format, gq.version.gq, FORMAT), 0)
  elseif format ~= FORMAT then
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
  local optimiser, schedule = several(o, "gq.checkpoint.load")
  if optimiser then
    if type(meta.optimiser) ~= "table" then error("holds no optimiser", 0) end
    parts[#parts + 1] = { optimiser, unpack_optimiser(meta.optimiser, tensors, "optimiser.") }
  end
  if schedule then
    if type(meta.schedule) ~= "table" then error("holds no schedule", 0) end
    parts[#parts + 1] = { schedule, meta.schedule }
  end
  if o.ema then
    if type(meta.ema) ~= "table" then error("holds no averages of weights (ema)", 0) end
    local average, k = {}, 1
    while tensors["ema." .. k] do average[k], k = tensors["ema." .. k], k + 1 end
    parts[#parts + 1] = { o.ema, copy(meta.ema, { average = average }) }
  end
  for _, part in ipairs(parts) do
    local check = part[1] and part[1].check_state_dict        -- an object of the script's own may have none
    local problem = check and check(part[1], part[2])
    if problem then error(problem, 0) end
  end
  return parts
end

-- Tensors and the rest, for the function `what`, whose errors name the file.
function core.read_checkpoint(path, what) return naming(path, what, read_checkpoint) end

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
  return naming(path, "gq.checkpoint.load", load_checkpoint, o)
end
gq.docs[gq.checkpoint.load] = "gq.checkpoint.load(path [, {model, optimiser, schedule, ema, rng}]): puts the " ..
  "numbers back into what is named; returns {epoch, extra, model = its state_dict}"
