-- keeper.lua -- checkpoints by number: gq.checkpoint.keeper keeps the last ones and the best; gq.checkpoint.describe
-- tells what is in one.

local gq = ...
local core = gq.core
local options, need, one_of, fail, describe = core.options, core.need, core.one_of, core.fail, core.describe

-- ---- what is in one ----

local SHOWN <const> = 200             -- characters of extra

local Description = { __name = "gq.checkpoint" }

local function shape_text(t) return ("%s {%s}"):format(t.dtype, table.concat(t.shape, ", ")) end

function Description:__tostring()
  local lines = { ("%s: %d bytes, %d parameters in %d tensors"):format(self.path, self.bytes, self.numbers,
    #self.names) }
  local function line(name, value) if value ~= nil then lines[#lines + 1] = ("  %s: %s"):format(name, value) end end
  line("epoch", self.epoch)
  line("value", self.value)
  if self.optimiser then
    line("optimiser", ("%s, %d steps, lr %g"):format(self.optimiser.kind, self.optimiser.steps,
      self.optimiser.lr or 0 / 0))
  end
  line("schedule", self.schedule and "yes" or nil)
  line("generator", self.rng)
  local ema = self.averages
  if ema then line("averages", ("%d updates, decay %g"):format(ema.count, ema.decay)) end
  local extra = self.extra ~= nil and gq.json_encode(self.extra)
  if extra then line("extra", #extra > SHOWN and extra:sub(1, SHOWN) .. "..." or extra) end
  for _, name in ipairs(self.names) do lines[#lines + 1] = ("  %s  %s"):format(name, shape_text(self.model[name])) end
  return table.concat(lines, "\n")
end

function gq.checkpoint.describe(path)
  local what = "gq.checkpoint.describe"
  core.expect(type(path) == "string", what, "a path", path)
  local tensors, meta = core.read_checkpoint(path, what)
  local o, ema = type(meta.optimiser) == "table" and meta.optimiser or nil, meta.ema
  if type(ema) ~= "table" or not (math.type(ema.count) == "integer" and math.type(ema.decay)) then ema = nil end
  local d = { path = path, epoch = meta.epoch, value = meta.value, extra = meta.extra, rng = meta.rng,
    schedule = meta.schedule ~= nil,
    averages = ema and { count = ema.count, decay = ema.decay }, model = {}, names = {}, numbers = 0, bytes = 0,
    optimiser = o and { kind = o.kind, steps = math.tointeger(o.total) or o.total, lr = o.settings and o.settings.lr } }
  for name, t in next, tensors do
    local inner = name:match("^model%.(.+)$")
    d.bytes = d.bytes + #core.bytes(t)
    if inner then
      d.names[#d.names + 1], d.model[inner], d.numbers = inner, { dtype = t.dtype, shape = t.shape },
        d.numbers + t:numel()
    end
  end
  table.sort(d.names)
  return setmetatable(d, Description)
end
gq.docs[gq.checkpoint.describe] = "gq.checkpoint.describe(path): what a checkpoint holds, printed in lines: {epoch, "
  .. "value, optimiser {kind, steps, lr}, averages {count, decay}, rng, extra, numbers, "
  .. "model = {name = {dtype, shape}}}"

-- ---- the last ones and the best ----

local Keeper = { __name = "gq.keeper" }
Keeper.__index = Keeper

-- Numbers of those that are there, rising.
local function numbers_of(self)
  local folder, base = self.stem:match("^(.*)/([^/]*)$")
  local list = core.directory(folder or ".") or {}
  local found, prefix = {}, (base or self.stem) .. "-"
  for _, name in ipairs(list) do
    local n = name:sub(1, #prefix) == prefix and name:sub(#prefix + 1):match("^(%d+)%.safetensors$")
    if n then found[#found + 1] = math.tointeger(n) end
  end
  table.sort(found)
  return found
end

function Keeper:file(n) return ("%s-%s.safetensors"):format(self.stem, n) end

-- The newest there is, and its number; nil: none.
function Keeper:latest()
  local found = numbers_of(self)
  local n = found[#found]
  if n then return self:file(n), n end
end

-- The best there is, and its value.
function Keeper:best()
  local path = self:file("best")
  local f = io.open(path, "rb")
  if not f then return nil end
  f:close()
  return path, self.value or gq.checkpoint.describe(path).value
end

local function better(self, value)
  local _, best = self:best()
  if best == nil then return true end
  if self.mode == "max" then return value > best end
  return value < best
end

-- what: as for gq.checkpoint.save, with an epoch; value: the figure that tells which is best. Returns its path, and
-- whether it is the best.
function Keeper:save(what, value)
  local name = "gq.keeper:save"
  local n = need(options(what, core.checkpoint_keys, name), "epoch", "integer", nil, name)
  if n < 0 then fail(name .. ": an epoch of at least 0 expected") end
  if value ~= nil and (type(value) ~= "number" or value ~= value) then
    fail(("%s: the value is a number, got %s"):format(name, describe(value)))
  end
  local all = core.copy(what, { value = value })
  local path = self:file(n)
  local folder = self.stem:match("^(.+)/")
  if folder then gq.make_directory(folder) end
  gq.checkpoint.save(path, all)
  local is_best = value ~= nil and better(self, value)
  if is_best then
    gq.checkpoint.save(self:file("best"), all)
    self.value = value
  end
  local found = numbers_of(self)
  for i = 1, #found - self.last do
    if found[i] ~= n then os.remove(self:file(found[i])) end
  end
  return path, is_best
end

-- The newest into what is named, as gq.checkpoint.load has it; nil: there is none.
function Keeper:load(into)
  local path = self:latest()
  if path then return gq.checkpoint.load(path, into) end
end

function Keeper:__tostring() return ("keeper of %s-*.safetensors, the last %d"):format(self.stem, self.last) end

function gq.checkpoint.keeper(path, opts)
  local what = "gq.checkpoint.keeper"
  core.expect(type(path) == "string" and path ~= "", what, "a path", path)
  local o = options(opts, "last mode", what)
  return setmetatable({ stem = path:gsub("%.safetensors$", ""), last = need(o, "last", "count", 3, what),
    mode = one_of(o, "mode", { "min", "max" }, what) }, Keeper)
end
gq.docs[gq.checkpoint.keeper] = [[
gq.checkpoint.keeper(path, {last = 3, mode = "min" | "max"}): checkpoints path-EPOCH.safetensors, of which
  the last ones stay, and path-best.safetensors
keeper:save({model =, optimiser =, epoch =, ...} [, value]): returns the path, and true where the value
  is the best one; keeper:load{model =, ...}: the newest one, nil if there is none; keeper:latest(),
  keeper:best()]]
