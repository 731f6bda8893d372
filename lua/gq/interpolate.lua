-- interpolate.lua -- data as a function of time, for use in dynamics: gq.interpolate; and gq.cde, the dynamics of a
-- neural controlled differential equation (Kidger, Morrill, Foster & Lyons 2020), dz = f(t, z) dX. A path is a
-- polynomial a piece; its coefficients are tensors made once, of the operations, so that gradients reach the data.

local gq = ...
local core = gq.core
local options, need, one_of, describe, fail = core.options, core.need, core.one_of, core.describe, core.fail
local is_float, expect = core.is_float, core.expect

-- ---- the data ----

-- Times as numbers, increasing.
local function check_times(t, what)
  if gq.is_tensor(t) then
    if core.traced(t) then fail(what .. ": times are known numbers, not traced values") end
    if t.requires_grad then fail(what .. ": times of data carry no gradient: give t:detach()") end
    expect(t:dim() == 1, what, "times {n}", t)
    t = t:totable()
  end
  expect(type(t) == "table", what, "times in a table or tensor", t)
  local list = {}
  for i = 1, rawlen(t) do
    local v = t[i]
    if type(v) ~= "number" or v - v ~= 0 then
      fail(("%s: t[%d] is %s: a finite number expected"):format(what, i, describe(v)))
    end
    if i > 1 and v <= list[i - 1] then
      fail(("%s: times increase, but t[%d] = %g and t[%d] = %g"):format(what, i - 1, list[i - 1], i, v))
    end
    list[i] = v
  end
  if #list < 2 then fail(("%s: at least two times expected, got %d"):format(what, #list)) end
  return list
end

-- The dimension of x that holds n times: the first, or that before the channels, as torchcde has it.
local function time_dim(x, n, o, what)
  local rank, shape = x:dim(), x.shape
  local text = table.concat(shape, ", ")
  if o.dim ~= nil then
    local d = need(o, "dim", "integer", nil, what)
    if d < 0 then d = d + rank + 1 end
    if shape[d] ~= n then
      fail(("%s: dim = %d: x {%s} has no %d times there"):format(what, o.dim, text, n))
    end
    return d
  end
  local first, before = shape[1] == n, rank > 2 and shape[rank - 1] == n
  if first and before then
    fail(("%s: x {%s} may have its %d times in dimension 1 or %d: say dim = 1 or dim = %d"):format(what, text, n,
      rank - 1, rank - 1))
  end
  if first then return 1 end
  if before then return rank - 1 end
  fail(("%s: x {#t, ..., channels} or {..., #t, channels} with %d times expected, got x {%s}"):format(what, n, text))
end

-- Entry k of a series, between its observed neighbours before and after (or nil).
local fills = {
  forward = function(v, _, _, before, after) return before and v[before] or v[after] end,
  linear = function(v, t, k, before, after)
    if not (before and after) then return v[before or after] end
    return v[before] + (v[after] - v[before]) * (t[k] - t[before]) / (t[after] - t[before])
  end,
}

-- x {n, ...} with its NaN filled; gradients reach what was observed.
local function filled(x, t, how, what)
  local n = #t
  local series, fill = x:detach():reshape(n, -1):t():totable(), fills[how]
  for c, v in ipairs(series) do
    local next_at, after = {}, nil
    for k = n, 1, -1 do
      if v[k] == v[k] then after = k end
      next_at[k] = after
    end
    if not after then fail(("%s: series %d has no value at all"):format(what, c)) end
    local before, own = nil, table.move(v, 1, n, 1, {})
    for k = 1, n do
      if own[k] == own[k] then before = k
      else v[k] = fill(own, t, k, before, next_at[k]) end
    end
  end
  local known = gq.tensor(series, { dtype = x.dtype }):t():reshape(x.shape)
  return gq.where(x:isnan(), known, x)
end

-- x with its times first.
local function check_data(x, t, o, what)
  local n = #t
  if type(x) == "table" then x = gq.tensor(x) end
  expect(is_float(x), what, "x: a float tensor", x)
  if core.traced(x) then fail(what .. ": x is a traced value: interpolate outside of the dynamics function") end
  local order = { time_dim(x, n, o, what) }
  for d = 1, x:dim() do
    if d ~= order[1] then order[#order + 1] = d end
  end
  x = x:permute(table.unpack(order))
  if o.missing ~= nil then x = filled(x, t, one_of(o, "missing", { "forward", "linear" }, what), what) end
  if not gq.no_grad(function() return x:isfinite():all():item() end) then
    fail(what .. ": x has entries that are NaN or infinite; where they are missing values say missing = \"linear\" or "
      .. "\"forward\"")
  end
  return x
end

-- ---- slopes at the times ----

-- Numbers, one a row, to multiply rows of x by.
local function beside(list, x)
  local shape = { #list }
  for d = 2, x:dim() do shape[d] = 1 end
  return gq.tensor(list, { dtype = x.dtype }):reshape(shape)
end

local function rows(x, first, count) return x:narrow(1, first, count) end

local slopes = {}

-- The natural spline, twice differentiable: its slopes solve
--   h_k m_{k-1} + 2 (h_{k-1} + h_k) m_k + h_{k-1} m_{k+1} = 3 (h_k D_{k-1} + h_{k-1} D_k)
-- with 2 m_1 + m_2 = 3 D_1 at either end (de Boor, A Practical Guide to Splines, IV), by elimination row by row.
function slopes.cubic(h, D)
  local n = #h + 1
  local function line(k)                     -- below, on, above the diagonal, right-hand side
    if k == 1 then return 0, 2, 1, D[1] * 3 end
    if k == n then return 1, 2, 0, D[n - 1] * 3 end
    local a, b = h[k - 1], h[k]
    return b / (a + b), 2, a / (a + b), (D[k - 1] * b + D[k] * a) * (3 / (a + b))
  end
  local above, right = {}, {}
  for k = 1, n do
    local a, b, c, r = line(k)
    if k > 1 then b, r = b - a * above[k - 1], r - right[k - 1] * a end
    above[k], right[k] = c / b, r / b
  end
  for k = n - 1, 1, -1 do right[k] = right[k] - right[k + 1] * above[k] end
  return gq.stack(right, 1)
end

-- Backward differences: a piece depends on no later data than its own end (Morrill et al. 2022; torchcde's
-- hermite_cubic_coefficients_with_backward_differences).
function slopes.hermite(_, D) return gq.cat({ rows(D, 1, 1), D }, 1) end

-- x / y, 0 with derivative 0 where not c.
local function quotient(c, x, y) return gq.where(c, x, 0) / gq.where(c, y, 1) end

-- The end of three points, limited so that the piece stays monotone (as in PCHIP, Moler, Numerical Computing 3.6).
local function monotone_end(h1, h2, D1, D2)
  local m = (D1 * (2 * h1 + h2) - D2 * h1) * (1 / (h1 + h2))
  m = gq.where((m * D1):gt(0), m, 0)
  return gq.where(gq.logical_and((D1 * D2):lt(0), m:abs():gt(D1:abs() * 3)), D1 * 3, m)
end

-- Fritsch and Butland's (1984): no piece leaves the range of its ends.
function slopes.monotone(h, D)
  local n = #h
  if n == 1 then return gq.cat({ D, D }, 1) end
  local before, after, v, w = rows(D, 1, n - 1), rows(D, 2, n - 1), {}, {}
  for k = 1, n - 1 do
    local a, b = h[k] + 2 * h[k + 1], 2 * h[k] + h[k + 1]
    v[k], w[k] = b / (a + b), a / (a + b)
  end
  local same = (before * after):gt(0)
  -- 1 / (v / before + w / after), written without quotients of small numbers
  local inner = quotient(same, before * after, after * beside(w, D) + before * beside(v, D))
  return gq.cat({ monotone_end(h[1], h[2], rows(D, 1, 1), rows(D, 2, 1)), inner,
    monotone_end(h[n], h[n - 1], rows(D, n, 1), rows(D, n - 1, 1)) }, 1)
end

-- ---- paths ----

local Path = { __name = "gq.path" }
Path.__index = Path

local function differences(t)
  local h = {}
  for k = 1, #t - 1 do h[k] = t[k + 1] - t[k] end
  return h
end

-- kind, the times and data (times first) as a path: coefficients {pieces, powers, ...} of t less a piece's start. Its
-- grid points are where it, its slope, or what its data's gradient is the integral of, jumps.
local function new_path(kind, t, coefficients, x)
  local self = { kind = kind, t0 = t[1], t1 = t[#t], coefficients = coefficients, pieces = #coefficients,
    knots = gq.tensor(t, { dtype = x.dtype }), shape = x.shape }
  table.remove(self.shape, 1)
  local jumps = kind == "linear" or kind == "rectilinear" or x.requires_grad
  self.grid_points = jumps and table.move(t, 1, #t, 1, {}) or nil
  return setmetatable(self, Path)
end

-- x_k and D_k of every piece.
local function secants(t, x)
  local n, h = #t, differences(t)
  return rows(x, 1, n - 1), (rows(x, 2, n - 1) - rows(x, 1, n - 1)) / beside(h, x), h
end

-- How far each of n - 1 inner knots, at times t, bends a cubic path off a smooth one, in parts of its series' range,
-- the largest of all series: where derivative 2 (3) jumps by J at knots h apart that is J h^2 / 81, as by backward
-- differences (J h^3 / 384, of a spline). c {pieces, 4, ...}.
local function bends(t, c)
  local n = #c - 1
  if n == 0 then return {} end
  local before, after, h, least = rows(c, 1, n), rows(c, 2, n), differences(t), {}
  for k = 1, n do least[k] = math.min(h[k], h[k + 1]) end
  local function power(y, i) return y:narrow(2, i + 1, 1):reshape(n, -1) end
  local x = c:narrow(2, 1, 1):reshape(n + 1, -1)
  local step, own = beside(least, power(after, 0)), beside(table.move(h, 1, n, 1, {}), power(after, 0))
  local second = 2 * (power(after, 2) - power(before, 2)) - 6 * power(before, 3) * own
  local third = 6 * (power(after, 3) - power(before, 3))
  local range = gq.maximum(x:max(1) - x:min(1), 1e-6 * x:abs():max())
  local size = second:abs() * step ^ 2 / 81 + third:abs() * step ^ 3 / 384
  return gq.where(range:gt(0), size / range, 0):max(2):totable()
end

-- The knots of a path that is smooth between them alone, as far as a solve to a tolerance would notice them: its error
-- estimates miss such jumps of higher derivatives.
local function noticed(path)
  local t = path.knots:totable()
  local size = gq.no_grad(bends, t, path.coefficients)
  return function(tolerance)
    local list = {}
    for k = 1, #size do
      if size[k] > 0.5 * tolerance then list[#list + 1] = t[k + 1] end
    end
    return list
  end
end

local make = {}

function make.linear(t, x)
  local start, D = secants(t, x)
  return new_path("linear", t, gq.stack({ start, D }, 2), x)
end

local function make_cubic(kind)
  make[kind] = function(t, x)
    local start, D, h = secants(t, x)
    local m, n = slopes[kind](h, D), #h
    local from, to = rows(m, 1, n), rows(m, 2, n)
    local each = beside(h, x)
    return new_path(kind, t, gq.stack({ start, from, (D * 3 - from * 2 - to) / each,
      (from + to - D * 2) / (each * each) }, 2), x)
  end
end
for kind in next, slopes do make_cubic(kind) end

-- Held from each time to the next, where it jumps; the channel `time` moves on. What a CDE follows is the same curve
-- (Morrill et al. 2022): in the first half of an interval the time moves, in the second the other channels do, so that
-- it has seen each datum at its time.
function make.rectilinear(t, x, time)
  local n = #t
  local moved = x
  if time then
    local is_time = {}
    for c = 1, x.shape[x:dim()] do is_time[c] = c == time end
    moved = gq.where(gq.tensor(is_time), gq.cat({ rows(x, 2, n - 1), rows(x, n, 1) }, 1), x)
  end
  local h = differences(t)
  h[n] = 1
  local path = new_path("rectilinear", t, gq.stack({ x, (moved - x) / beside(h, x) }, 2), x)
  local halves, data = {}, {}
  for k = 1, n do
    halves[2 * k - 1], data[2 * k - 1] = t[k], x[k]
    if k < n then halves[2 * k], data[2 * k] = t[k] + 0.5 * h[k], moved[k] end
  end
  path.control = make.linear(halves, gq.stack(data, 1))
  return path
end

-- t {m}, and its shape: nil for one time. In a trace t is NaN where it is outside of the data.
local function times_of(self, t)
  local t0, t1, what = self.t0, self.t1, "gq.interpolate's path"
  expect(type(t) == "number" or gq.is_tensor(t) or type(t) == "table", what,
    "a time, or several in a table or tensor,", t)
  local x = gq.is_tensor(t) and t or gq.tensor(t, { dtype = self.knots.dtype })
  expect(x:dim() <= 1, what, "one time or a list of them", x)
  if x.dtype ~= self.knots.dtype then x = x:to(self.knots.dtype) end
  local many, slack = x:dim() == 1, 2 ^ -21 * math.max(math.abs(t0), math.abs(t1))
  if not many then x = x:reshape(1) end
  if core.traced(x) then
    if not core.known_within(t, t0, t1, slack) then
      x = gq.where(gq.logical_and(x:ge(t0 - slack), x:le(t1 + slack)), x, 0 / 0)
    end
    return x, many
  end
  for _, s in ipairs(x:totable()) do
    if not (s >= t0 - slack and s <= t1 + slack) then
      fail(("%s: t = %.9g is outside of [%.9g, %.9g], where the data are"):format(what, s, t0, t1))
    end
  end
  return x, many
end

-- The coefficients at t, a list of {m, ...}, and the time since the start of the piece.
local function piece(self, t)
  local m, shape, powers = #t, self.shape, self.coefficients.shape[2]
  local place = self.knots:reshape { 1, #self.knots }:le(t:reshape { m, 1 }):sum(2):clamp(1, self.pieces)
  local all, c = self.coefficients:index_select(1, place), {}
  for i = 1, powers do c[i] = all:narrow(2, i, 1):reshape { m, table.unpack(shape) } end
  local one = { m }
  for i = 1, #shape do one[i + 1] = 1 end
  return c, (t - self.knots:index_select(1, place)):reshape(one)
end

local function shaped(self, y, many)
  if many then return y end
  return y:reshape(self.shape)
end

function Path:__call(time)
  local t, many = times_of(self, time)
  local c, s = piece(self, t)
  local y = c[#c]
  for i = #c - 1, 1, -1 do y = y * s + c[i] end
  return shaped(self, y, many)
end

function Path:derivative(time)
  if self.control then
    fail("gq.interpolate: a rectilinear path jumps, so it has no derivative; gq.cde(f, path) follows it")
  end
  local t, many = times_of(self, time)
  local c, s = piece(self, t)
  local y = c[#c] * (#c - 1)
  for i = #c - 1, 2, -1 do y = y * s + c[i] * (i - 1) end
  return shaped(self, y, many)
end

function Path:__tostring()
  return ("%s path on [%g, %g] of shape {%s}"):format(self.kind, self.t0, self.t1, table.concat(self.shape, ", "))
end

local kinds = { "linear", "cubic", "rectilinear", "monotone", "hermite" }

function gq.interpolate(t, x, opts)
  local what = "gq.interpolate"
  local o = options(opts, "kind dim time missing", what)
  local kind = one_of(o, "kind", kinds, what)
  local times = check_times(t, what)
  local data = check_data(x, times, o, what)
  if o.time == nil then return make[kind](times, data) end
  if kind ~= "rectilinear" then fail(what .. ": time names the channel that moves on in a rectilinear path") end
  local channel, channels = need(o, "time", "count", nil, what), data:dim() > 1 and data.shape[data:dim()] or 0
  if channel > channels then fail(("%s: time = %d: x has %d channels"):format(what, channel, channels)) end
  return make.rectilinear(times, data, channel)
end

gq.docs[gq.interpolate] = [[
gq.interpolate(t, x, {kind = "linear", dim, time, missing}): data x at rising times t as a function
x {#t, ...} or {..., #t, channels}, or with its times in dimension dim; path(t) has x's shape but
  for them; of a list of times {#list, ...}. path:derivative(t). Traced where dynamics use it, with
  gradients in x and t. Outside of the data an error
kind: "linear"; "cubic": the natural spline; "hermite": cubic with backward differences, which sees
  nothing later than the next time; "monotone": cubic without overshoot (PCHIP); "rectilinear": held
  until the next time, where it jumps; of channel `time` of the last dimension it is linear
missing: NaN in x are filled from the observed values of their own series: "linear" between them,
  "forward" with the last one (before the first: with it)
path.grid_points: where linear and rectilinear paths, and those whose data have gradients, are not
  smooth: gq.odeint(f, z0, t, {grid_points = path.grid_points}) steps to them]]

-- ---- controlled differential equations ----

local Cde = { __name = "gq.cde" }
Cde.__index = Cde

-- f(t, z) {..., hidden, channels}, or {..., hidden * channels}, times dX/dt {.., channels}.
function Cde:__call(t, z)
  local slope = self.control:derivative(t)
  local channels, shape, wanted = slope.shape[slope:dim()], z.shape, 1
  local y = self.f(t, z)
  if not gq.is_tensor(y) then fail("gq.cde: f returned " .. describe(y) .. ": a tensor expected") end
  if z:dim() == 0 then fail("gq.cde: a state {..., hidden} expected, got a single number") end
  shape[#shape + 1] = channels
  for _, n in ipairs(shape) do wanted = wanted * n end
  if y:numel() ~= wanted or y.shape[1] ~= shape[1] and z:dim() > 1 then
    fail(("gq.cde: f returned {%s}: {%s} expected, the state's shape and %d channels of the path"):format(
      table.concat(y.shape, ", "), table.concat(shape, ", "), channels))
  end
  return (y:reshape(shape) * slope:unsqueeze(-2)):sum(-1)
end

function Cde:parameters() return type(self.f) == "table" and self.f.parameters and self.f:parameters() or {} end

function Cde:__tostring() return "cde: " .. tostring(self.path) end

function gq.cde(f, path)
  local what = "gq.cde"
  core.callable(f, what .. ": f")
  expect(type(path) == "table" and core.is_callable(path.derivative), what,
    "a path made by gq.interpolate, or with a method derivative(t),", path)
  if getmetatable(path) == Path and #path.shape == 0 then
    fail(what .. ": the path has no channels: interpolate x:unsqueeze(-1)")
  end
  local control = path.control or path
  local points = control.grid_points
  if not points and getmetatable(path) == Path then points = noticed(path) end
  return setmetatable({ f = f, path = path, control = control, grid_points = points }, Cde)
end

gq.docs[gq.cde] = [[
gq.cde(f, path): dynamics f(t, z) dX/dt for gq.odeint, of a path X from gq.interpolate
f(t, z): {..., hidden, channels}, or so many numbers in {..., hidden * channels}, for z {..., hidden}
  and X(t) {..., channels}. Where the path is not smooth gq.odeint steps to (its grid_points, instead
  of the path's, give others; {} none): linear paths at all their times, cubic ones where that bends
  them by more than the tolerance notices, if steps are by error control, batch = "joint" and the
  method not "kvaerno5". Of a rectilinear path the state has followed each jump at the time where it
  happens]]
