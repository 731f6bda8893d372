-- events.lua -- gq.odeint's option event as a list: conditions that end the solve or change the state. Each is looked
-- for alone from where the solve is; the first to happen is solved to once more with gradients, applied, and the solve
-- goes on from there. So the results are made of solves with one event, and their gradients of those solves'.

local gq = ...
local core = gq.core
local options, need, one_of, fail, copy = core.options, core.need, core.one_of, core.fail, core.copy

local MOST <const> = 10000            -- events of a solve

-- ---- states of one tensor or several ----

local function map(z, f)
  if gq.is_tensor(z) then return f(z) end
  local list = {}
  for i, x in ipairs(z) do list[i] = f(x, i) end
  return list
end

local function dtype_of(z) return gq.is_tensor(z) and z.dtype or z[1].dtype end

local function row(z, k) return map(z, function(x) return x[k] end) end

-- z - h f(t, z), numbers alone.
local function step_back(f, t, z, h)
  local slope = f(core.leaf(t), map(z, core.leaf))
  return map(z, function(x, i) return x:detach() - h * (i and slope[i] or slope):detach() end)
end

-- ---- what was asked for ----

-- The condition may stand first, without its name.
local function check_event(e, i)
  local what = ("gq.odeint: event %d"):format(i)
  if core.is_callable(e) then e = { condition = e }
  elseif type(e) == "table" and e.condition == nil and core.is_callable(e[1]) then
    local own = core.copy(e, { condition = e[1] })
    own[1], e = nil, own
  end
  options(e, "condition direction terminal apply", what)
  local own = { condition = need(e, "condition", "callable", nil, what),
    direction = one_of({ direction = e.direction or "both" }, "direction", { "up", "down", "both" }, what),
    terminal = need(e, "terminal", "boolean", e.apply == nil, what) }
  if e.apply ~= nil then own.apply = need(e, "apply", "callable", nil, what) end
  return own
end

local function check_list(given)
  local list = {}
  for key in next, given do
    if type(key) == "string" then given = { given } break end -- one event
  end
  if #given == 0 then
    fail("gq.odeint: event: a function of (t, z), or a list of {condition = function(t, z) ... end, direction = " ..
      "\"up\" | \"down\" | \"both\", terminal = true | false, apply = function(t, z) ... end}, expected; got a " ..
      "table without [1]")
  end
  for i, e in ipairs(given) do list[i] = check_event(e, i) end
  return list
end

local function check_times(t)
  local times = gq.is_tensor(t) and t:totable() or t
  if type(times) ~= "table" or #times < 2 then fail("gq.odeint: with events give two times or more") end
  for i, x in ipairs(times) do
    if type(x) ~= "number" then fail(("gq.odeint: t[%d] is %s, not a number"):format(i, core.describe(x))) end
  end
  return times
end

-- ---- one stretch, from event to event ----

local Solve = {}
Solve.__index = Solve

-- The k-th time as a 0-d tensor with its gradient, or a number.
function Solve:time(k)
  local t = self.t
  return gq.is_tensor(t) and t.requires_grad and t[k]:to("float64") or self.times[k]
end

local function number(x) return gq.is_tensor(x) and x:item() or x end

function Solve:run(z, times, changes)
  local list = table.pack(gq.odeint(self.f, z, core.joined(times), copy(self.opts, changes)))
  self.parts[#self.parts + 1] = list[2]
  return table.unpack(list, 1, list.n)
end

-- Did the condition fall or rise to zero at t, on the way from `from`?
local function direction_at(self, e, z, t, from)
  local h = 1e-2 * (t - from)
  local function at(s) return gq.tensor(s, { dtype = dtype_of(z) }) end
  local before = step_back(self.f, at(t), z, h)
  return gq.no_grad(e.condition, at(t - h), before):sum():item() > 0 and "down" or "up"
end

-- z, moved along its slope as little as takes the condition past zero: f, which may jump there, is then that behind it.
-- By a condition of time alone it stays where it is.
local function behind(self, e, z, t, from)
  local side = direction_at(self, e, z, t, from) == "up" and 1 or -1
  local span, dtype = self.times[#self.times] - self.times[1], dtype_of(z)
  local now = gq.tensor(t, { dtype = dtype })
  for k = -52, -20 do
    local moved = step_back(self.f, now, z, -span * 2 ^ k)
    if side * gq.no_grad(e.condition, now, moved):sum():item() > 0 then
      return map(z, function(x, i) return x + ((i and moved[i] or moved) - x):detach() end)
    end
  end
  return z
end

-- When e happens from z at t, and after how many crossings the other way; nil: not before the end.
local function find(self, e, z, t)
  for crossings = 0, MOST do
    local from = t
    local there, info, hit = gq.odeint(self.f, z, { t, self.times[#self.times] }, copy(self.opts, { event = e.condition,
      gradient = "none" }))
    self.searched = self.searched + info.nfe
    if not info.event_t then return nil end
    z, t = there, hit:item()
    if e.direction == "both" or direction_at(self, e, z, t, from) == e.direction then return t, crossings end
  end
  fail(("gq.odeint: a condition crossed zero more than %d times"):format(MOST))
end

-- Those that happen first, by number; when, and the crossings of the first of them before.
local function first_of(self, z, t)
  local found, least, best = {}, nil, nil
  for i, e in ipairs(self.events) do
    local at, crossings = gq.no_grad(find, self, e, map(z, function(x) return x:detach() end), t)
    if at then
      found[#found + 1] = { i, at, crossings }
      if not least or self.sign * (least - at) > 0 then least, best = at, found[#found] end
    end
  end
  if not best then return nil end
  local list, near = {}, 1e-6 * math.abs(least - self.times[1]) + 1e-12
  for _, one in ipairs(found) do
    if math.abs(one[2] - least) <= near then list[#list + 1] = one[1] end
  end
  return list, least, best
end

-- The states at those of the times that come before `limit` (nil: all), and where the solve then is.
function Solve:measure(z, t, limit)
  local wanted, from = { t }, self.next
  while self.next <= #self.times and (not limit or self.sign * (limit - self.times[self.next]) > 0) do
    wanted[#wanted + 1], self.next = self:time(self.next), self.next + 1
  end
  if #wanted == 1 then return z, t end
  local states = self:run(z, wanted, {})
  for k = from, self.next - 1 do self.rows[k] = row(states, k - from + 2) end
  return self.rows[self.next - 1], wanted[#wanted]
end

-- ---- all of it ----

-- The sums of all parts, in the table that the last backward pass fills in.
local function summary(self)
  local info = self.parts[#self.parts]
  for _, key in ipairs { "nfe", "steps", "rejected" } do
    local sum = 0
    for _, part in ipairs(self.parts) do sum = sum + (part[key] or 0) end
    info[key] = sum
  end
  info.events, info.nfe_event, info.parts = self.fired, self.searched, self.parts
  return info
end

local function stacked(rows)
  if gq.is_tensor(rows[1]) then return gq.stack(rows, 1) end
  return map(rows[1], function(_, i)
    local list = {}
    for k, z in ipairs(rows) do list[k] = z[i] end
    return gq.stack(list, 1)
  end)
end

-- Events at times that converge (a ball that bounces ever faster) end what can be solved: behind them none is seen.
local function watch(e, t)
  local gap = e.last and math.abs(t - e.last)
  e.shorter = gap and e.gap and gap < e.gap and e.shorter + 1 or 0
  if gap then e.longest = math.max(e.longest or 0, gap) end
  if e.shorter >= 8 and gap < 1e-6 * e.longest then
    fail(("gq.odeint: events pile up at t = %g, each sooner than the one before: end the solve before, by the last " ..
      "time or by a terminal event, as when a speed is small"):format(t))
  end
  e.last, e.gap = t, gap
end

-- What apply gave, tensor by tensor as the state was.
local function check_state(z, before, i)
  local given, want = gq.is_tensor(z) and { z } or z, gq.is_tensor(before) and { before } or before
  for k, x in ipairs(want) do
    local y = type(given) == "table" and given[k] or nil
    if core.describe(y) ~= core.describe(x) then
      fail(("gq.odeint: event %d: apply returns the state, %s expected, got %s"):format(i, core.describe(x),
        core.describe(type(given) == "table" and y or z)))
    end
  end
end

-- z and t after the events of the numbers given, from where they were looked for: crossings are counted from there, and
-- the steps are the same. true: the solve ends.
local function happen(self, list, at, best, z, t)
  local from = number(t)
  for _ = 0, best[3] do
    local _
    z, _, t = self:run(z, { t, self:time(#self.times) }, { event = self.events[best[1]].condition })
  end
  local ends = false
  for _, i in ipairs(list) do
    local e = self.events[i]
    self.fired[#self.fired + 1] = { event = i, t = at }
    watch(e, at)
    if e.apply then
      local before = z
      z = e.apply(t:to(dtype_of(z)), z)
      check_state(z, before, i)
    elseif not e.terminal then
      z = behind(self, e, z, at, from)
    end
    ends = ends or e.terminal
  end
  if #self.fired > MOST then fail(("gq.odeint: %d events until t = %g"):format(#self.fired, number(t))) end
  return z, t, ends
end

-- gq.odeint with a list of events. With two times and an event that may end the solve: the state at the end, info and
-- its time; else the states at the times, those behind the end being that at the end.
function core.with_events(f, z0, t, opts)
  local times = check_times(t)
  for _, key in ipairs { "dense", "regularise" } do
    if opts[key] then
      fail(("gq.odeint: %s does not go with a list of events or many times; with one function as event and two " ..
        "times it does"):format(key))
    end
  end
  local own = copy(opts, {})
  own.event = nil
  local self = setmetatable({ f = f, t = t, times = times, sign = times[#times] < times[1] and -1 or 1, opts = own,
    events = check_list(opts.event), rows = { z0 }, next = 2, parts = {}, fired = {}, searched = 0 }, Solve)
  local z, now, may_end, ended = z0, self:time(1), false, false
  for _, e in ipairs(self.events) do may_end = may_end or e.terminal end
  repeat
    local list, at, best = first_of(self, z, number(now))
    local measured, reached = self:measure(z, now, at)
    if list then z, now, ended = happen(self, list, at, best, z, now)
    else z, now = measured, reached end
  until ended or not list
  if may_end and #times == 2 then
    return z, summary(self), gq.is_tensor(now) and now or gq.tensor(now, { dtype = "float64" })
  end
  for k = self.next, #times do self.rows[k] = z end
  return stacked(self.rows), summary(self), ended and now or nil
end
