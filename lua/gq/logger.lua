-- logger.lua -- records of training, one line each: gq.logger.jsonl(path), gq.logger.csv(path). A logger is
-- called with a table; each line is written at once, so that a killed run leaves whole lines.

local gq = ...
local core = gq.core
local describe = core.describe
local logger = {}

-- NaN and infinities as null, which JSON lacks; tensors of one number as that number.
local function plain(v, seen)
  if gq.is_tensor(v) then v = v:numel() == 1 and v:item() or v:totable() end
  if type(v) == "table" then
    seen = seen or {}                    -- a table that is met again is copied once: tables may hold one another
    if seen[v] then return seen[v] end
    local t = setmetatable({}, getmetatable(v))
    seen[v] = t
    for k, x in next, v do t[k] = plain(x, seen) end
    return t
  end
  if type(v) == "number" and (v ~= v or v == math.huge or v == -math.huge) then return gq.json_null end
  return v
end
gq.core.plain = function(v) return plain(v) end

local function check_row(row, what)
  if type(row) ~= "table" then error(("%s: a table expected, got %s"):format(what, describe(row)), 3) end
end

local meta = {
  __call = function(self, row) return self.write(self, row) end,
}
meta.__index, meta.log = meta, meta.__call
function meta.close() end

local function new(path, what, write, epoch_of)
  if type(path) ~= "string" then error(("%s: a path expected, got %s"):format(what, describe(path)), 3) end
  return setmetatable({ path = path, write = write, epoch_of = epoch_of }, meta)
end

-- The last row goes where it is of this epoch: a training that was killed before its checkpoint does it again. So does
-- half a line, which only a kill leaves.
function meta:rewind(epoch)
  local ok, text = pcall(gq.file_read, self.path)
  if not ok then return end
  local whole = text:match("^.*\n") or ""
  local last = whole:match("([^\n]*)\n$")
  if last and self.epoch_of(last, whole) == epoch then whole = whole:sub(1, -#last - 2) end
  if whole ~= text then gq.file_write(self.path, whole) end
end

function logger.jsonl(path)
  return new(path, "gq.logger.jsonl", function(self, row)
    check_row(row, "gq.logger.jsonl")
    gq.file_append(self.path, gq.json_encode(plain(row)))
  end, function(line)
    local ok, row = pcall(gq.json_decode, line)
    return ok and type(row) == "table" and row.epoch or nil
  end)
end
gq.docs[logger.jsonl] = "local log = gq.logger.jsonl(path); log(row), or log:log(row): one JSON object a line, " ..
  "appended"

local function cell(v)
  if v == nil then return "" end
  if gq.is_tensor(v) and v:numel() == 1 then v = v:item() end
  local text = v ~= v and "nan" or math.type(v) == "float" and ("%.17g"):format(v) or tostring(v)
  if type(v) == "table" or gq.is_tensor(v) then text = gq.json_encode(plain(v)) end
  if text:find('[",\r\n]') then text = '"' .. text:gsub('"', '""'):gsub("[\r\n]+", " ") .. '"' end
  return text
end

local function sorted_keys(row)
  local keys = {}
  for k in next, row do
    if type(k) ~= "string" then
      core.fail(("gq.logger.csv: figures by name expected, as {epoch = 1, loss = 0.5}; got one called %s"):format(
        describe(k)))
    end
    keys[#keys + 1] = k
  end
  table.sort(keys, function(a, b)                 -- epoch first
    if (a == "epoch") ~= (b == "epoch") then return a == "epoch" end
    return a < b
  end)
  return keys
end

local function cells_of(list)
  local cells = {}
  for i, v in ipairs(list) do cells[i] = cell(v) end
  return table.concat(cells, ",")
end

-- Columns are those of the file's header, or of the first row.
local function columns_of(self, row)
  local ok, text = pcall(gq.file_read, self.path)
  local header = ok and text:match("^([^\n]+)\n")
  if not header then
    local keys = sorted_keys(row)
    gq.file_append(self.path, cells_of(keys))
    return keys
  end
  local keys = core.csv_record(header, 0, ",")
  for i, name in ipairs(keys) do keys[i] = name:gsub('""', '"') end
  return keys
end

-- The columns with those that the row adds: the lines that are there get empty cells.
local function widened(self, columns, row)
  local known, added = {}, {}
  for _, k in ipairs(columns) do known[k] = true end
  for _, k in ipairs(sorted_keys(row)) do
    if not known[k] then added[#added + 1] = k end
  end
  if #added == 0 then return columns end
  local header, rest = gq.file_read(self.path):match("^([^\n]*)\n(.*)$")
  rest = rest:gsub("\n", (","):rep(#added) .. "\n")
  gq.file_write(self.path, header .. "," .. cells_of(added) .. "\n" .. rest)
  return table.move(added, 1, #added, #columns + 1, table.move(columns, 1, #columns, 1, {}))
end

function logger.csv(path)
  return new(path, "gq.logger.csv", function(self, row)
    check_row(row, "gq.logger.csv")
    self.columns = widened(self, rawget(self, "columns") or columns_of(self, row), row)
    local cells = {}
    for i, k in ipairs(self.columns) do cells[i] = cell(row[k]) end
    gq.file_append(self.path, table.concat(cells, ","))
  end, function(line, text) return text:find("^epoch,") and tonumber(line:match("^[^,]*")) end)
end
gq.docs[logger.csv] = "local log = gq.logger.csv(path); log(row): a row under a header; columns may come later"

return logger
