-- solve.lua -- gq.odeint where there is more to it than one tensor and times. Stage by stage the problem {f, z0, t,
-- opts} becomes one that the core knows, which solves it, and then its results what the script asked for: states of
-- several tensors and integrals are packed into one tensor (states.lua, regularise.lua), an event is looked for and
-- becomes the last time, grid points become times.

local gq = ...

local core = gq.core
local copy, fail = core.copy, core.fail

-- Numbers in a table or tensor.
local function numbers(t) return gq.is_tensor(t) and t:totable() or t end

-- Those grid points strictly inside the times, and none of them, sorted in their direction; nil if something is no
-- finite number, which the core says.
local function points_inside(times, points)
  local inside, known = {}, {}
  for _, t in ipairs(times) do
    if type(t) ~= "number" or t ~= t then return nil end
    known[t] = true
  end
  local sign = times[#times] < times[1] and -1 or 1
  for _, p in ipairs(points) do
    if type(p) ~= "number" or p ~= p then return nil end
    if sign * (p - times[1]) > 0 and sign * (times[#times] - p) > 0 and not known[p] then
      inside[#inside + 1], known[p] = p, true
    end
  end
  table.sort(inside, function(a, b) return sign * (b - a) > 0 end)
  return inside, sign
end

-- The times (numbers) with the grid points between them, and where each time is; nil: nothing to be done.
local function merge(times, points)
  if type(times) ~= "table" or type(points) ~= "table" or #times == 0 then return nil end
  local inside, sign = points_inside(times, points)
  local merged, at, i = {}, {}, 1
  if not inside or #inside == 0 then return nil end
  for k, t in ipairs(times) do
    while i <= #inside and sign * (t - inside[i]) > 0 do
      merged[#merged + 1], i = inside[i], i + 1
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
local function grid(p)
  local merged, at = merge(numbers(p.t), numbers(p.opts.grid_points))
  if not merged then return end
  p.t = with_gradient(p.t, merged, at)
  return function(r) r.z = r.z:index_select(1, gq.tensor(at, { dtype = "int64" })) end
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

-- The state at the event, and its time, which depends on what the solve does by the implicit function theorem:
-- value(t, z(t)) stays zero.
local function at_event(f, event, z, last)
  local time = gq.tensor(last, { dtype = "float64" })
  if not z.requires_grad then return z, time end
  local now = time:to(z.dtype)
  local r, slope = rate(f, event, now, z)
  if r == 0 then
    fail(("gq.odeint: the event at t = %g only touches zero there, so its time has no derivative; solve with " ..
      "gradient = \"none\""):format(last))
  end
  local value = event(now, z):sum()
  local shift = (value:detach() - value) / r           -- zero, with the derivative of the event's time
  return z + slope * shift, time + shift:to("float64")
end

-- A terminal event. A first solve finds its time; the one to be differentiated goes to that time.
local function locate(p)
  local event, t, times = p.opts.event, p.t, numbers(p.t)
  if event == nil then return end
  core.check(p.z0, p.opts)
  if type(times) ~= "table" or #times ~= 2 then
    fail("gq.odeint: with an event give two times: where the solve starts, and where it ends at the latest")
  end
  local look = p.opts.grid_points and merge(times, numbers(p.opts.grid_points)) or times
  local _, found = core.solve(p.f, p.z0:detach(), look, copy(p.opts, { gradient = "none", dense = false }))
  local last = found.event_t
  if last then
    p.t = { times[1], last }
    if gq.is_tensor(t) and t.requires_grad then p.t = with_gradient(t:narrow(1, 1, 1), p.t, { 1 }) end
  end
  p.opts = copy(p.opts, {})
  p.opts.event = nil
  return function(r)
    r.z, r.info.event_t, r.info.nfe_event = r.z[2], last, found.nfe
    if last then r.z, r.time = at_event(p.f, event, r.z, last)
    else r.time = gq.is_tensor(t) and t[2] or gq.tensor(times[2], { dtype = "float64" }) end
  end
end

-- gq.odeint's part in Lua: bindings/l_solve.c calls it.
function core.odeint(f, z0, t, opts)
  local p, back = { f = f, z0 = z0, t = t, opts = opts }, {}
  back[#back + 1] = core.regularised(p) or core.pack(p)
  if type(p.opts) == "table" then
    back[#back + 1] = locate(p)
    back[#back + 1] = grid(p)
  end
  local r = {}
  r.z, r.info, r.dense = core.solve(p.f, p.z0, p.t, p.opts)
  for i = #back, 1, -1 do back[i](r) end
  local list = { r.z, r.info, r.time or r.dense, r.time and r.dense }
  return table.unpack(list)
end
