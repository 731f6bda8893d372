-- solve.lua -- gq.odeint where there is more to it than one tensor and times. Stage by stage the problem {f, z0, t,
-- opts} becomes one that the core knows, which solves it, and then its results what the script asked for: states of
-- several tensors and integrals are packed into one tensor (states.lua, regularise.lua), an event is looked for and
-- becomes the last time, grid points become times.

local gq = ...

local core = gq.core
local fail, copy = core.fail, core.copy

-- Numbers in a table or tensor.
local function numbers(t) return gq.is_tensor(t) and t:totable() or t end

-- Times of a table in which some are tensors of one number: one tensor where one of these has a gradient, numbers where
-- none has. Other tables as they are.
function core.joined(t)
  if type(t) ~= "table" then return t end
  local any, moves = false, false
  for _, x in ipairs(t) do
    if gq.is_tensor(x) and x:numel() == 1 and x.dtype ~= "bool" then any, moves = true, moves or x.requires_grad
    elseif type(x) ~= "number" then return t end
  end
  if not any then return t end
  local list = {}
  for i, x in ipairs(t) do
    if not gq.is_tensor(x) then list[i] = moves and gq.tensor({ x }, { dtype = "float64", device = "cpu" }) or x
    elseif moves then list[i] = x:reshape(1):to("float64"):to("cpu")
    else list[i] = x:item() end
  end
  return moves and gq.cat(list, 1) or list
end

-- Those grid points strictly inside the times, {time, place among the points}, sorted in their direction; nil if
-- something is no finite number, which the core says. But for those that move, none of the times themselves.
local function points_inside(times, points)
  local inside, known = {}, {}
  local moves = gq.is_tensor(points) and points.requires_grad
  for _, t in ipairs(times) do
    if type(t) ~= "number" or t ~= t then return nil end
    known[t] = not moves
  end
  local sign = times[#times] < times[1] and -1 or 1
  for i, p in ipairs(numbers(points)) do
    if type(p) ~= "number" or p ~= p then return nil end
    if sign * (p - times[1]) > 0 and sign * (times[#times] - p) > 0 and not known[p] then
      inside[#inside + 1], known[p] = { p, i }, true
    end
  end
  table.sort(inside, function(a, b) return sign * (b[1] - a[1]) > 0 end)
  return inside, sign
end

-- The times (numbers) with the grid points between them, those that equal a time behind it; where each time is, and
-- which grid point is where; nil: nothing to be done.
local function merge(times, points)
  if type(times) ~= "table" or type(numbers(points)) ~= "table" or #times == 0 then return nil end
  local inside, sign = points_inside(times, points)
  local merged, at, from, i = {}, {}, {}, 1
  if not inside or #inside == 0 then return nil end
  for k, t in ipairs(times) do
    while i <= #inside and sign * (t - inside[i][1]) > 0 do
      merged[#merged + 1], from[#merged + 1], i = inside[i][1], inside[i][2], i + 1
    end
    merged[#merged + 1] = t
    at[k] = #merged
  end
  return merged, at, from
end

-- The merged times as a tensor through which the gradients of t, and of the grid points, flow.
local function with_gradient(t, merged, at, points, from)
  local function wants(x) return gq.is_tensor(x) and x.requires_grad end
  if not wants(t) and not wants(points) then return merged end
  local parts, k = {}, 1
  for i, value in ipairs(merged) do
    local given = at[k] == i
    local source, place = t, k
    if not given then source, place = points, from and from[i] end
    parts[i] = wants(source) and place and source:narrow(1, place, 1):to("float64"):to("cpu")
      or gq.tensor({ value }, { dtype = "float64", device = "cpu" })
    if given then k = k + 1 end
  end
  return gq.cat(parts, 1)
end

local adaptive                                         -- methods that do, and evaluate f inside of their steps alone

-- May a tolerance add grid points of its own: is there an error estimate, and are they allowed?
local function is_free(o)
  if o.step_size ~= nil or o.batch == "independent" or o.overshoot or o.parity then return false end
  if not adaptive then
    adaptive = {}
    for _, m in ipairs(core.tableaux()) do
      adaptive[m.name] = m.error_order > 0 and math.max(0, table.unpack(m.c)) <= 1
    end
  end
  return adaptive[o.method or "dopri5"]
end

-- rtol and atol of a solve for z.
local function tolerances(o, z)
  local usual = gq.is_tensor(z) and z.dtype == "float32" and 1e-3 or 1e-6
  return tonumber(o.rtol) or usual, tonumber(o.atol) or usual
end

-- Dynamics that know where they are not smooth (gq.cde) say so, as a list or by the tolerance, unless the options do,
-- {} for nowhere. Error estimates alone miss kinks: by dopri5 at 1e-6 the error can be 1e-3.
local function own_points(f, z0, opts)
  local points = type(f) == "table" and rawget(f, "grid_points")
  if not points or opts ~= nil and type(opts) ~= "table" then return opts end
  if type(points) == "function" then
    local o = opts or {}
    points = is_free(o) and points(math.max(tolerances(o, z0))) or nil
  end
  local own = copy(opts or {}, {})
  local given = own.grid_points
  if given == nil then own.grid_points = points end
  if type(given) == "table" and next(given) == nil then own.grid_points = nil end
  return own
end

local function rounded(x) return (string.unpack("f", string.pack("f", x))) end

-- The grid points, those which float32, the state's or their own, cannot tell from a time being that time: f is asked
-- at the rounded one, which may lie on the other side of a jump.
local function at_times(points, times, dtype)
  local single = dtype == "float32" or gq.is_tensor(points) and points.dtype == "float32"
  if not single or type(times) ~= "table" or type(numbers(points)) ~= "table" then return points end
  local time_of, list, moved = {}, {}, false
  for _, t in ipairs(times) do
    if type(t) == "number" then time_of[rounded(t)] = t end
  end
  for i, x in ipairs(numbers(points)) do
    list[i] = type(x) == "number" and time_of[rounded(x)] or x
    moved = moved or list[i] ~= x
  end
  if not moved then return points end
  if not gq.is_tensor(points) or not points.requires_grad then return list end
  local own = points:to("float64"):to("cpu")
  return own + (gq.tensor(list, { dtype = "float64", device = "cpu" }) - own):detach()
end

-- Grid points are times at which nobody wants the state.
local function grid(p)
  local points = p.opts.grid_points
  if points ~= nil and gq.is_tensor(p.z0) then
    points = at_times(points, numbers(p.t), p.z0.dtype)
    if points ~= p.opts.grid_points then p.opts = copy(p.opts, { grid_points = points }) end
  end
  local merged, at, from = merge(numbers(p.t), points)
  if not merged then return end
  p.t = with_gradient(p.t, merged, at, points, from)
  return function(r) r.z = r.z:index_select(1, gq.tensor(at, { dtype = "int64" })) end
end

-- The numbers of x, of which dynamics that differentiate may ask for gradients.
function core.leaf(x)
  local own = x:detach()
  own.requires_grad = true
  return own
end

-- A state beside z, by rounding alone, where the event has the sign that it had at the start: f may jump on its
-- surface. By an event of time alone it is z.
local function just_before(p, event, t, z)
  local times = numbers(p.t)
  local function time(x) return gq.tensor(x, { dtype = z.dtype, device = z.device, requires_grad = true }) end
  local span, now, y = times[#times] - times[1], time(t), core.leaf(z)
  local sign = event(time(times[1]), core.leaf(p.z0)):sum():item()
  local slope = p.f(now, y):detach()
  for k = -52, -20 do
    for _, way in ipairs { -1, 1 } do
      y = core.leaf(z + way * span * 2 ^ k * slope)
      local v = event(now, y):sum():item()
      if v * sign > 0 or sign == 0 and v ~= 0 then return y end
    end
  end
  return core.leaf(z)
end

-- The slope of value(t, z(t)) in t: its own and that along dz/dt = f, as it is at y beside z; with f, and the
-- derivatives in z.
local function rate(f, event, t, z, y)
  local time, state = core.leaf(t), core.leaf(z)
  local slope = f(time, y or state):detach()
  local value = event(time, state) + 0 * (time + state:sum())  -- reaches both
  local by_t, by_z = table.unpack(gq.grad({ value:sum() }, { time, state }))
  return (by_t + (by_z * slope):sum()):item(), slope, by_z
end

-- Does the event only touch zero? It is told from a crossing by its rate: that must not be another one as far before
-- (z goes along its slope) as the solve's tolerance leaves the time uncertain.
local function touches(p, z, t, r, slope, by_z, rate_at)
  local rtol, atol = tolerances(p.opts, z)
  local uncertain = (by_z:abs() * (rtol * z:abs() + atol)):sum():item() / math.abs(r)
  local back = t - numbers(p.t)[1]
  if uncertain < math.abs(back) then back = back < 0 and -uncertain or uncertain end
  local change = math.abs(rate_at(t - back, z - back * slope) - r)
  return change ~= change or change >= 0.5 * math.abs(r)
end

-- The state at the event, and its time, which depends on what the solve does and on the event's own parameters by the
-- implicit function theorem: value(t, z(t)) stays zero.
local function at_event(p, event, r)
  local last, z = r.info.event_t, r.z:detach()
  local time = gq.tensor(last, { dtype = "float64", device = z.device })
  if p.opts.gradient == "none" or not gq.recording() then return r.z, time end
  local value = event(time:to(z.dtype), r.z):sum()
  if not value.requires_grad and not r.z.requires_grad then return r.z, time end
  local function rate_at(t, y, beside)
    return rate(p.f, event, gq.tensor(t, { dtype = y.dtype, device = y.device }), y, beside)
  end
  local speed, slope, by_z = rate_at(last, z, just_before(p, event, last, z))
  if speed == 0 or touches(p, z, last, speed, slope, by_z, rate_at) then
    fail(("gq.odeint: the event at t = %g only touches zero there, so its time has no derivative; solve with " ..
      "gradient = \"none\""):format(last))
  end
  local shift = core.once((value:detach() - value) / speed, "the time of an event")   -- zero, with its derivative
  return r.z + slope * shift, time + shift:to("float64")
end

-- A terminal event between two times: the core ends where it happens.
local function locate(p)
  local event, t = p.opts.event, p.t
  if event == nil then return end
  core.check(p.z0, p.opts)
  local times = numbers(t)
  if type(times) ~= "table" or #times ~= 2 then
    fail("gq.odeint: with an event give two times or more: where the solve starts, and where it ends at the latest")
  end
  return function(r)
    r.z, r.info.events = r.z[2], { r.info.event_t and { event = 1, t = r.info.event_t } }
    if r.info.event_t then r.z, r.time = at_event(p, event, r)
    else r.time = gq.is_tensor(t) and t[2] or gq.tensor(times[2], { dtype = "float64", device = r.z.device }) end
  end
end

local function many(t)
  local times = numbers(t)
  return type(times) == "table" and #times > 2
end

-- gq.odeint's part in Lua: bindings/l_solve.c calls it.
function core.odeint(f, z0, t, opts)
  t = core.joined(t)
  local event = type(opts) == "table" and opts.event
  if event and core.is_callable(event) and many(t) then event, opts = {}, copy(opts, { event = { event } }) end
  if type(event) == "table" and not core.is_callable(event) then return core.with_events(f, z0, t, opts) end
  local p, back = { f = f, z0 = z0, t = t, opts = own_points(f, z0, opts) }, {}
  back[#back + 1] = core.regularised(p) or core.pack(p)
  if type(p.opts) == "table" then
    back[#back + 1] = locate(p)
    back[#back + 1] = grid(p)
  end
  local z, info, dense = core.solve(p.f, p.z0, p.t, p.opts, p.tensors)
  local r = { z = z, info = info, dense = dense }
  if r.dense then r.dense = core.interpolant(r.dense, p, r.z, r.info) end
  for i = #back, 1, -1 do back[i](r) end
  local list = { r.z, r.info, r.time or r.dense, r.time and r.dense }
  return table.unpack(list)
end
