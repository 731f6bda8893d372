-- states.lua -- states of several tensors: gq.odeint packs a sequence {z1, z2, ...} into one tensor, solves that, and
-- takes the solution apart. Tensors that share their first dimension B lie side by side as {B, numbers in a row}, so
-- that rows stay independent of each other; others one after another in a vector.

local gq = ...
local core = gq.core
local describe, fail = core.describe, core.fail

local function shape_text(s) return "{" .. table.concat(s, ", ") .. "}" end

-- ---- where each tensor lies ----

local Layout = {}
Layout.__index = Layout

-- A copy of z0, a plain sequence of float tensors of one dtype.
local function check_state(z0, what)
  local n, keys, list = rawlen(z0), 0, {}
  for _ in next, z0 do keys = keys + 1 end
  what = what .. ": a state of several tensors is a sequence {z1, z2, ...}: "
  if n == 0 then fail(what .. (keys == 0 and "an empty table given" or "a table without [1] given")) end
  if keys > n then fail(what .. "this table has other keys than 1 to " .. n) end
  for i = 1, n do
    local z = rawget(z0, i)
    if not gq.is_tensor(z) then
      local hint = type(z) == "number" and "; for a vector of numbers say gq.tensor{...}" or ""
      fail(("%selement %d is %s%s"):format(what, i, describe(z), hint))
    end
    if z.dtype ~= "float32" and z.dtype ~= "float64" then
      fail(("%selement %d is a %s; all must be float32 or float64"):format(what, i, describe(z)))
    end
    list[i] = z
    if z.dtype ~= list[1].dtype then
      fail(("%selement 1 is %s and element %d is %s; bring them to one dtype with :to"):format(what, list[1].dtype, i,
        z.dtype))
    end
  end
  return list
end

-- The first dimension that all share; nil if there is none.
local function common_rows(z0)
  local rows = z0[1].shape[1]
  for _, z in ipairs(z0) do
    if z.shape[1] ~= rows then return nil end
  end
  return rows ~= 0 and rows or nil
end

-- Layout of z0, a sequence or one tensor, for the function `what`. by_rows(list) false: as one vector, even if all
-- share a first dimension.
function core.layout(z0, what, by_rows)
  local single = gq.is_tensor(z0)
  local list, width, parts = single and { z0 } or check_state(z0, what), 0, {}
  local rows = common_rows(list)
  if rows and by_rows and not by_rows(list) then rows = nil end
  for i, z in ipairs(list) do
    local size = z:numel() // (rows or 1)
    parts[i] = { shape = z.shape, size = size, first = width + 1 }
    width = width + size
  end
  return setmetatable({ parts = parts, rows = rows, width = width, dtype = list[1].dtype,
    device = list[1].device, single = single, what = "the dynamics function of " .. what .. " " }, Layout)
end

-- One tensor {rows, width} or {width} of the state.
function Layout:pack(z)
  local list, flat = self.single and { z } or z, {}
  for i, part in ipairs(self.parts) do
    flat[i] = self.rows and list[i]:reshape { self.rows, part.size } or list[i]:reshape { part.size }
  end
  return #flat > 1 and gq.cat(flat, self.rows and 2 or 1) or flat[1]
end

-- The state that is in a packed tensor, or those at `times` times, packed {times, ...}.
function Layout:unpack(z, times)
  local list, dim = {}, (self.rows and 2 or 1) + (times and 1 or 0)
  for i, part in ipairs(self.parts) do
    local piece = part.size < z.shape[dim] and z:narrow(dim, part.first, part.size) or z
    list[i] = times and piece:reshape { times, table.unpack(part.shape) } or piece:reshape(part.shape)
  end
  return self.single and list[1] or list
end

-- What the dynamics function returned for part i, checked against it.
local function check_part(self, i, d)
  local part, which = self.parts[i], self.single and "" or " as its element " .. i
  if not gq.is_tensor(d) then fail(("%sreturned %s%s; a tensor expected"):format(self.what, describe(d), which)) end
  if d.dtype ~= self.dtype or shape_text(d.shape) ~= shape_text(part.shape) then
    fail(("%sreturned %s of shape %s%s; expected dz/dt of the state's dtype and shape, %s %s"):format(self.what,
      d.dtype, shape_text(d.shape), which, self.dtype, shape_text(part.shape)))
  end
end

function Layout:check(dz)
  if self.single then
    check_part(self, 1, dz)
    return dz
  end
  local n = #self.parts
  if type(dz) ~= "table" or rawlen(dz) == 0 then
    fail(("%sgot a state of %d tensors and must return a sequence of as many, got %s"):format(self.what, n,
      type(dz) == "table" and "a table without [1]" or describe(dz)))
  end
  if rawlen(dz) ~= n then fail(("%sreturned %d tensors; the state has %d"):format(self.what, rawlen(dz), n)) end
  for i = 1, n do check_part(self, i, rawget(dz, i)) end
  return dz
end

-- f over states as a function over packed tensors.
function Layout:field(f)
  return function(t, z) return self:pack(self:check(f(t, self:unpack(z)))) end
end

-- ---- solving ----

function core.callable(f, what)
  local m = getmetatable(f)
  if type(f) == "function" or type(m) == "table" and rawget(m, "__call") ~= nil then return f end
  fail(("%s must be a function or a module, got %s"):format(what, describe(f)))
end

-- Problem p over packed states from `start` on; read(z, times) makes of one what the script knows as its state, which
-- its event is given too. Returns what is then done with the results.
function core.packed(p, field, start, read)
  local event = type(p.opts) == "table" and p.opts.event
  if event then
    core.callable(event, "the event function of gq.odeint")
    p.opts = core.copy(p.opts, { event = function(s, z) return event(s, read(z)) end })
  end
  p.f, p.z0 = field, start
  return function(r)
    r.z = read(r.z, not event and #r.z or nil)
    if r.dense then core.read_by(r.dense, read) end
  end
end

-- A stage of gq.odeint: z0 is a sequence.
function core.pack(p)
  if type(p.z0) ~= "table" then return end
  core.callable(p.f, "the dynamics function of gq.odeint")
  local layout = core.layout(p.z0, "gq.odeint")
  p.tensors = {}
  for i, part in ipairs(layout.parts) do p.tensors[i] = part.size end
  return core.packed(p, layout:field(p.f), layout:pack(p.z0), function(z, times) return layout:unpack(z, times) end)
end
