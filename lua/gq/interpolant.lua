-- interpolant.lua -- what gq.odeint gives with dense = true: the solution as a function of time. Values are those of
-- the core's interpolant; where gradients are asked for they come from one more solve, with these measurement times.

local gq = ...

local core = gq.core
local copy = core.copy

local Interpolant = { __name = "gq.interpolant" }

local function numbers(t) return gq.is_tensor(t) and t:totable() or t end

-- Times as a list of numbers; nil if it is one time.
local function list_of(x)
  if type(x) == "number" or gq.is_tensor(x) and x:dim() == 0 then return nil end
  return numbers(x)
end

local function wants_gradient(own, x)
  return gq.recording() and own.problem.opts.gradient ~= "none" and
    (own.z.requires_grad or gq.is_tensor(x) and x.requires_grad)
end

local function float64(x)
  return gq.is_tensor(x) and x:to("float64"):to("cpu") or gq.tensor(x, { dtype = "float64", device = "cpu" })
end

-- Times that miss an end by the rounding of x's or the state's dtype are that end, with the gradient of x.
local function within(own, x)
  local a, b = own.at.t0, own.at.t1
  local low, high = math.min(a, b), math.max(a, b)
  local single = own.z.dtype == "float32" or gq.is_tensor(x) and x.dtype == "float32"
  local slack = (single and 2 ^ -21 or 2 ^ -50) * math.max(-low, high)
  local missed = false
  local function at_end(s)
    local past = type(s) == "number" and (s < low and low - s or s > high and s - high)
    if not past or past > slack then return s end
    missed = true
    return s < low and low or high
  end
  if type(x) == "number" then return at_end(x) end
  local times = type(x) == "table" or gq.is_tensor(x) and not core.traced(x) and x.dtype ~= "bool" and x:dim() < 2
  if not times then return x end
  local one, list = gq.is_tensor(x) and x:dim() == 0, {}
  for i, s in ipairs(one and { x:item() } or numbers(x)) do list[i] = at_end(s) end
  if not missed then return x end
  if not gq.is_tensor(x) then return list end
  local own_x, moved = float64(x), float64(one and list[1] or list)
  return own_x + (moved - own_x):detach()
end

-- The times of a solve that goes as the first did and passes the n times x, and where those are among them.
local function times_with(own, x, n)
  local first, last = own.at.t0, own.at.t1
  local sign, t = last < first and -1 or 1, own.problem.t
  local times, known = { first }, numbers(t)
  for i = 2, #known do
    if sign * (last - known[i]) > 0 then times[i] = known[i] end   -- sorted: those behind are behind
  end
  local kept = #times
  times[kept + 1] = last
  local before, order, where = #times, {}, {}
  for _, s in ipairs(float64(x):reshape(n):totable()) do times[#times + 1] = s end
  for i = 1, #times do order[i] = i end
  table.sort(order, function(a, b)
    if a == 1 or b == 1 or times[a] == times[b] then return a < b end
    return sign * (times[b] - times[a]) > 0
  end)
  for k, i in ipairs(order) do
    if i > before then where[i - before] = k end
  end
  local all = gq.cat({ float64(gq.is_tensor(t) and t or known):narrow(1, 1, kept), float64 { last },
    float64(x):reshape(n) }, 1)             -- grid points may move
  return all:index_select(1, gq.tensor(order, { dtype = "int64" })), gq.tensor(where, { dtype = "int64" })
end

-- The values, with the gradients of such a solve.
local function with_gradient(own, x, values)
  local list, p = list_of(x), own.problem
  local n = list and #list or 1
  if n == 0 then return values end
  core.unchanged(own.z)
  local times, where = times_with(own, x, n)
  local opts = copy(p.opts, { dense = false })
  opts.event, opts.regularise = nil, nil
  local z, info = core.solve(p.f, p.z0, times, opts, p.tensors)
  z = z:index_select(1, where)
  setmetatable(own.info, { __index = info })               -- what its backward pass tells, that solve's has not
  if not list then z = z[1] end
  return values + (z - z:detach())
end

local function packed_at(own, x)
  local values = own.at(x)
  return wants_gradient(own, x) and with_gradient(own, x, values) or values
end

local function read(own, z, list)
  if not own.read then return z end
  return own.read(z, list and #list or nil)
end

function Interpolant:__index(key)
  if key == "derivative" then return Interpolant.derivative end
  return rawget(self, Interpolant).at[key]
end

function Interpolant:__tostring() return tostring(rawget(self, Interpolant).at) end

function Interpolant:__call(x)
  local own = rawget(self, Interpolant)
  x = within(own, x)
  return read(own, packed_at(own, x), list_of(x))
end

-- dz/dt = f(t, z(t)).
function Interpolant:derivative(x)
  local own = rawget(self, Interpolant)
  x = within(own, x)
  local f, list = own.problem.f, list_of(x)
  local function slope()
    local z = packed_at(own, x)
    local t = gq.is_tensor(x) and x:to(z.dtype):to(z.device) or gq.tensor(x, { dtype = z.dtype, device = z.device })
    if not list then return f(t, z) end
    local rows = {}
    for i = 1, #list do rows[i] = f(t[i], z[i]) end
    return #rows > 0 and gq.stack(rows, 1) or z
  end
  local graded = own.problem.opts.gradient ~= "none"
  return read(own, graded and slope() or gq.no_grad(slope), list)
end

-- at: of the core, for problem p, whose results are z and info.
function core.interpolant(at, p, z, info)
  return setmetatable({ [Interpolant] = { at = at, problem = copy(p, {}), z = z, info = info } }, Interpolant)
end

-- It gives read(z, times) of packed states from now on.
function core.read_by(interpolant, how) rawget(interpolant, Interpolant).read = how end
