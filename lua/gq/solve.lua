-- solve.lua -- what gq.odeint hands over: grid points that are not among the times, and events.

local gq = ...

local core = gq.core
local copy = core.copy

-- Numbers in a table or tensor.
local function numbers(t) return gq.is_tensor(t) and t:totable() or t end

-- The times (numbers) with the grid points between them, and where each time is.
local function merge(times, points)
  local sign = times[#times] < times[1] and -1 or 1
  local inside, merged, at, i = {}, {}, {}, 1
  for _, p in ipairs(points) do
    if sign * (p - times[1]) > 0 and sign * (times[#times] - p) > 0 then inside[#inside + 1] = p end
  end
  table.sort(inside, function(a, b) return sign * (b - a) > 0 end)
  for k, t in ipairs(times) do
    while i <= #inside and sign * (t - inside[i]) >= 0 do
      if inside[i] ~= t and inside[i] ~= merged[#merged] then merged[#merged + 1] = inside[i] end
      i = i + 1
    end
    merged[#merged + 1] = t
    at[k] = #merged
  end
  return merged, at
end

-- The merged times as a tensor through which the gradients of t flow.
local function with_gradient(t, merged, at)
  if not (gq.is_tensor(t) and t.requires_grad) then return merged end
  local parts, k = {}, 1
  for i, value in ipairs(merged) do
    local given = at[k] == i
    parts[i] = given and t:narrow(1, k, 1):to("float64") or gq.tensor({ value }, { dtype = "float64" })
    if given then k = k + 1 end
  end
  return gq.cat(parts, 1)
end

-- Grid points are times at which nobody wants the state.
function core.odeint_grid(f, z0, t, opts)
  local merged, at = merge(numbers(t), numbers(opts.grid_points))
  local z, info, dense = gq.odeint(f, z0, with_gradient(t, merged, at), opts)
  return z:index_select(1, gq.tensor(at, { dtype = "int64" })), info, dense
end

-- The slope of value(t, z(t)) in t: its own and that along dz/dt = f.
local function rate(f, event, t, z)
  local time, state = t:detach(), z:detach()
  time.requires_grad, state.requires_grad = true, true
  local slope = f(time, state):detach()
  local value = event(time, state) + 0 * (time + state:sum())  -- reaches both
  local by_t, by_z = table.unpack(gq.grad({ value:sum() }, { time, state }))
  return (by_t + (by_z * slope):sum()):item(), slope
end

-- A terminal event. The first solve finds its time; the second, to that time, is the one to be differentiated.
-- The time depends on what the solve does by the implicit function theorem: value(t, z(t)) stays zero.
function core.odeint_event(f, z0, t, opts)
  local times = numbers(t)
  if type(times) ~= "table" or #times ~= 2 then
    error("gq.odeint: with an event give two times: where the solve starts, and where it ends at the latest", 3)
  end
  local event = opts.event
  local to_look = opts.grid_points and merge(times, numbers(opts.grid_points)) or times
  local _, found = core.odeint_locate(f, z0:detach(), to_look, copy(opts, { gradient = "none", dense = false }))
  local start, last = t, found.event_t or times[2]
  if found.event_t then
    start = { times[1], last }
    if gq.is_tensor(t) and t.requires_grad then start = with_gradient(t:narrow(1, 1, 1), start, { 1 }) end
  end
  local rest = copy(opts, {})
  rest.event = nil
  local z, info, dense = gq.odeint(f, z0, start, rest)
  z = z[2]
  info.event_t, info.nfe_event = found.event_t, found.nfe
  if not found.event_t then
    return z, info, gq.is_tensor(t) and t[2] or gq.tensor(last, { dtype = "float64" }), dense
  end
  local time = gq.tensor(last, { dtype = "float64" })
  if not z.requires_grad then return z, info, time, dense end
  local now = time:to(z.dtype)
  local r, slope = rate(f, event, now, z)
  if r == 0 then
    error(("gq.odeint: the event at t = %g only touches zero there, so its time has no derivative; solve with " ..
      "gradient = \"none\""):format(last), 3)
  end
  local value = event(now, z):sum()
  local shift = (value:detach() - value) / r           -- zero, with the derivative of the event's time
  return z + slope * shift, info, time + shift:to("float64"), dense
end
