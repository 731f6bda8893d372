-- data.lua -- the paper's synthetic data sets, and batches. A generator returns
--   { train = {x = inputs, y = targets}, test = {x = ..., y = ...}, ... }
-- whose x and y are tensors with one example an entry of dimension 1. Everything is a function of the seed.

local gq = ...
local options, need, describe = gq.core.options, gq.core.need, gq.core.describe
local data = {}

-- ---- seeds ----

-- SplitMix64's finaliser (Steele, Lea & Flood 2014).
local function mix(x)
  x = (x ~ (x >> 30)) * 0xbf58476d1ce4e5b9
  x = (x ~ (x >> 27)) * 0x94d049bb133111eb
  return x ~ (x >> 31)
end

local function number_of(k)
  if math.type(k) == "integer" then return k end
  local h = 0
  for _, byte in ipairs { tostring(k):byte(1, -1) } do h = mix(h * 256 + byte + 1) end
  return h
end

-- A seed for one purpose: gq.split_seed(seed, "shuffle", epoch). Seeds that differ in any part give
-- unrelated draws.
function gq.split_seed(seed, ...)
  local x = mix(number_of(seed) + 0x9e3779b97f4a7c15)
  for i = 1, select("#", ...) do
    x = mix((x ~ number_of((select(i, ...)))) + 0x9e3779b97f4a7c15)
  end
  return x & math.maxinteger
end
gq.docs[gq.split_seed] = "gq.split_seed(seed, ...): a seed of its own for what the other arguments (integers, " ..
  "strings) name"

local function define(name, f, doc)
  data[name] = f
  gq.docs[f] = doc
end

local function uniform(sizes, a, b, seed, ...)
  return gq.rand(sizes, { seed = gq.split_seed(seed, ...) }) * (b - a) + a
end

-- ---- nested spheres (E.2) ----

-- n points uniform in the ring r1 <= |x| <= r2, in `dim` dimensions: a direction by normals, a radius by
-- the inverse of its distribution.
local function ring(n, dim, r1, r2, seed)
  local direction = gq.randn({ n, dim }, { seed = gq.split_seed(seed, "direction") })
  local u = uniform({ n, 1 }, r1 ^ dim, r2 ^ dim, seed, "radius")
  return direction * (u ^ (1 / dim) / direction:norm(2, -1, true))
end

local function two_rings(n, dim, r, seed)
  local inner = ring(n, dim, 0, r[1], gq.split_seed(seed, 1))
  local outer = ring(n, dim, r[2], r[3], gq.split_seed(seed, 2))
  local ones = gq.ones({ n }, { dtype = "int64" })
  return { x = gq.cat({ inner, outer }, 1), y = gq.cat({ ones, ones * 2 }, 1) }
end

define("nested_spheres", function(opts)
  local what = "gq.data.nested_spheres"
  local o = options(opts, "seed train test dim radii", what)
  local seed, dim = need(o, "seed", "integer", 0, what), need(o, "dim", "count", 2, what)
  local r = need(o, "radii", "table", { 0.4, 0.7, 0.9 }, what)
  local last = 0
  for i = 1, 3 do
    if type(r[i]) ~= "number" or not (r[i] >= last and r[i] < math.huge) then
      gq.core.fail(("%s: radii: three numbers that do not fall, of the ball and of the ring from one to the other, "
        .. "expected, got %s as number %d"):format(what, describe(r[i]), i))
    end
    last = r[i]
  end
  return {
    train = two_rings(need(o, "train", "count", 1000, what), dim, r, gq.split_seed(seed, "train")),
    test = two_rings(need(o, "test", "count", 50, what), dim, r, gq.split_seed(seed, "test")),
    classes = 2,
  }
end, "gq.data.nested_spheres{seed, train = 1000, test = 50, dim = 2, radii = {0.4, 0.7, 0.9}}: points of a ball " ..
  "(y = 1) and a ring (y = 2), so many of each; {train = {x, y}, test = {x, y}}")

-- ---- sines (E.3) ----

-- Times common to all trajectories, or `times` sorted uniform ones for each, the first 0: {n, times}
local function sine_times(n, times, regular, seed)
  if regular then return gq.linspace(0, 2 * math.pi, times) end
  local rows = uniform({ n, times }, 0, 2 * math.pi, seed, "times"):totable()
  for _, row in ipairs(rows) do
    row[1] = 0
    table.sort(row)
  end
  return gq.tensor(rows)
end

local function sine_set(n, times, regular, seed)
  local x = uniform({ n, 2 }, -1, 1, seed, "start")
  local t = sine_times(n, times, regular, seed)
  local x0, v0 = x:narrow(2, 1, 1), x:narrow(2, 2, 1)
  return { x = x, y = x0 * t:cos() + v0 * t:sin(), t = t }
end

define("sines", function(opts)
  local what = "gq.data.sines"
  local o = options(opts, "seed train test times regular", what)
  local seed, times = need(o, "seed", "integer", 0, what), need(o, "times", "count", 50, what)
  local regular = need(o, "regular", "boolean", true, what)
  local test = sine_set(need(o, "test", "count", 5, what), 50, true, gq.split_seed(seed, "test"))
  local train = sine_set(need(o, "train", "count", 15, what), times, regular, gq.split_seed(seed, "train"))
  return { train = train, test = test }
end, "gq.data.sines{seed, train = 15, test = 5, times = 50, regular = true}: x'' = -x; x: position and velocity at " ..
  "0, y: positions {n, times} at the times t in [0, 2 pi] ({times}, or {n, times} where they are irregular); the " ..
  "test set has 50 regular times")

-- ---- spirals, both ways round ----

-- Positions {n, times, 2} at t {n, times}: inwards, turning by one radian in a unit of time; way, phase and radius
-- {n, 1} are a series' own.
local function spiral_at(t, way, phase, radius)
  local r, a = (t * -0.1):exp() * radius, t * way + phase
  return gq.stack({ r * a:cos(), r * a:sin() }, 3)
end

local function spiral_set(n, times, noise, seed)
  local span = 2 * math.pi
  local way = gq.rand({ n, 1 }, { seed = gq.split_seed(seed, "way") }):ge(0.5):to("float32") * 2 - 1
  local phase, radius = uniform({ n, 1 }, 0, span, seed, "phase"), uniform({ n, 1 }, 1, 2, seed, "radius")
  local t = uniform({ n, times }, 0, span, seed, "times"):totable()
  for _, row in ipairs(t) do table.sort(row) end
  t = gq.tensor(t)
  local grid = gq.linspace(0, 1.5 * span, 61)
  local y = spiral_at(t, way, phase, radius)
  return { t = t, y = y + gq.randn(y.shape, { seed = gq.split_seed(seed, "noise") }) * noise, grid = grid,
    truth = spiral_at(grid:unsqueeze(1):expand(n, #grid), way, phase, radius) }
end

define("spirals", function(opts)
  local what = "gq.data.spirals"
  local o = options(opts, "seed train test times noise", what)
  local seed, times = need(o, "seed", "integer", 0, what), need(o, "times", "count", 30, what)
  local noise = need(o, "noise", "number", 0.1, what)
  return {
    train = spiral_set(need(o, "train", "count", 200, what), times, noise, gq.split_seed(seed, "train")),
    test = spiral_set(need(o, "test", "count", 50, what), times, noise, gq.split_seed(seed, "test")),
    span = 2 * math.pi,
  }
end, "gq.data.spirals{seed, train = 200, test = 50, times = 30, noise = 0.1}: inward spirals in the plane that turn " ..
  "either way, seen at irregular times of their own (after the data of Chen et al. 2018, section 5.1)\n" ..
  "y {n, times, 2}: noisy positions at the times t {n, times} in [0, span = 2 pi]; truth {n, 61, 2}: positions " ..
  "without noise at the times grid {61}, of [0, 1.5 span]")

-- ---- many times in one solve (E.3) ----

-- Where times are the rows of t {n, times}: all of them, sorted, each once, as a list, and which of them
-- every row reads, {n, times}.
define("union_times", function(t)
  if not gq.is_tensor(t) or t:dim() ~= 2 or t:numel() == 0 then
    error(("gq.data.union_times: times {n, times} expected, got %s"):format(describe(t)), 2)
  end
  local rows, times, position = t:totable(), {}, {}
  for _, row in ipairs(rows) do
    for _, s in ipairs(row) do
      if s ~= s then error("gq.data.union_times: a time is NaN", 2) end
      if not position[s] then position[s], times[#times + 1] = true, s end
    end
  end
  table.sort(times)
  for k, s in ipairs(times) do position[s] = k end
  for _, row in ipairs(rows) do
    for k, s in ipairs(row) do row[k] = position[s] end
  end
  return times, gq.tensor(rows, { dtype = "int64" })
end, "local times, index = gq.data.union_times(t): all times of trajectories t {n, times}, sorted, each once, for " ..
  "one solve of all; index {n, times} are those that each trajectory reads: gq.data.at_times(z, index)")

define("at_times", function(z, index)
  local what = "gq.data.at_times"
  if not gq.is_tensor(z) or z:dim() < 2 then
    error(("%s: states {times, n, ...} expected, got %s"):format(what, describe(z)), 2)
  end
  if not gq.is_tensor(index) or index.dtype ~= "int64" or index:dim() ~= 2 or index.shape[1] ~= z.shape[2] then
    error(("%s: an index {%d, times} of int64 expected for %s, got %s"):format(what, z.shape[2], describe(z),
      describe(index)), 2)
  end
  local n, shape = z.shape[2], table.pack(table.unpack(z.shape, 3))
  local rows = z:reshape(z.shape[1] * n, table.unpack(shape))
  local each = (index - 1) * n + gq.arange(1, n, 1, { dtype = "int64" }):reshape(n, 1)
  return rows:index_select(1, each:reshape(index:numel())):reshape(n, index.shape[2], table.unpack(shape))
end, "gq.data.at_times(z, index): of states z {times, n, ...} those at each trajectory's own times: {n, times, ...}")

-- ---- Ornstein-Uhlenbeck (F) ----

local function ou_set(o, starts, times, seed)
  local x = uniform({ starts, 1 }, -3, 3, seed, "start")
  local mu, theta, sigma, phi = o.mu or 0.2, o.theta or 0.1, o.sigma or 0.6, o.phi or 0.15
  local samples = o.samples or 45
  local sde = gq.sde {
    drift = function(t, z) return mu * t - theta * z end,
    diffusion = function(t, z) return (sigma + phi * t):expand(z.shape) end,
    noise = "diagonal", calculus = "stratonovich",
  }
  local z0 = x:expand(starts, samples):reshape(starts * samples, 1)
  local brownian = gq.brownian { t0 = times[1], t1 = times[#times], shape = z0.shape,
    seed = gq.split_seed(seed, "noise"), dtype = z0.dtype }
  local z = gq.sdeint(sde, z0, times, { method = "heun", dt = o.dt or 0.01, brownian = brownian, gradient = "none" })
  return { x = x, y = z:reshape(#times, starts, samples):permute(2, 1, 3):contiguous(), t = gq.tensor(times) }
end

define("ornstein_uhlenbeck", function(opts)
  local what = "gq.data.ornstein_uhlenbeck"
  local o = options(opts, "seed train test samples times dt mu theta sigma phi", what)
  local seed = need(o, "seed", "integer", 0, what)
  local times = need(o, "times", "table", data.ou_times(), what)
  return {
    train = ou_set(o, need(o, "train", "count", 200, what), times, gq.split_seed(seed, "train")),
    test = ou_set(o, need(o, "test", "count", 20, what), times, gq.split_seed(seed, "test")),
  }
end, "gq.data.ornstein_uhlenbeck{seed, train = 200, test = 20, samples = 45, times = 0, 0.1 ... 10, dt = 0.01, mu, " ..
  "theta, sigma, phi}: dx = (mu t - theta x) dt + (sigma + phi t) o dW from starts uniform in [-3, 3]; " ..
  "x {starts, 1}, y {starts, times, samples}")

-- 0, 0.1 ... 10
function data.ou_times()
  local t = {}
  for i = 0, 100 do t[i + 1] = i / 10 end
  return t
end

-- ---- crossing trajectories (G) ----

define("crossing", function(opts)
  options(opts, "seed", "gq.data.crossing")          -- as for its kin, though nothing is drawn
  local set = { x = gq.tensor { { 1 }, { -1 } }, y = gq.tensor { { -1 }, { 1 } } }
  return { train = set, test = set }
end, "gq.data.crossing{seed}: 1 to -1 and -1 to 1, which no one-dimensional flow can do; train and test are the same")

-- ---- batches ----

-- f of a tensor, or of every tensor of a table.
local function map(v, f)
  if gq.is_tensor(v) then return f(v) end
  local t = {}
  for k, x in next, v do t[k] = map(x, f) end
  return t
end

-- Entries idx of dimension 1.
local function select_rows(v, idx)
  return map(v, function(x) return x:index_select(1, idx) end)
end

local element = { float32 = 4, float64 = 8, int64 = 8, bool = 1 }
local function bytes(v)
  local n = 0
  map(v, function(x) n = n + x:numel() * element[x.dtype] end)
  return n
end

local function rows(v)
  if gq.is_tensor(v) then return v:dim() > 0 and v.shape[1] or nil end
  if type(v) ~= "table" then
    gq.core.fail(("gq.data: a set holds tensors, or tables of them; got %s in it"):format(describe(v)))
  end
  local n
  for _, x in next, v do
    local m = rows(x)
    if m == nil or n ~= nil and n ~= m then return nil end
    n = m
  end
  return n
end

local function check_set(set, what)
  local function usable(v) return gq.is_tensor(v) or type(v) == "table" end
  if type(set) ~= "table" or not usable(set.x) or not usable(set.y) then
    error(("%s: a set {x = ..., y = ...} of tensors expected, got %s"):format(what, describe(set)), 3)
  end
  local n, m = rows(set.x), rows(set.y)
  if n == nil or n ~= m then
    error(("%s: x and y have the same number of entries in dimension 1; got %s and %s"):format(what,
      describe(set.x), describe(set.y)), 3)
  end
  if n == 0 then error(what .. ": the set is empty", 3) end
  return n
end

local small <const> = 1 << 22

-- Tensors of x and y as a list, and what makes x and y of such a list.
local function flattened(set)
  local list = {}
  local function place(v)
    if gq.is_tensor(v) then
      list[#list + 1] = v
      local k = #list
      return function(from) return from[k] end
    end
    local parts = {}
    for key, inner in next, v do parts[key] = place(inner) end
    return function(from)
      local t = {}
      for key, part in next, parts do t[key] = part(from) end
      return t
    end
  end
  local x, y = place(set.x), place(set.y)
  return list, function(from) return x(from), y(from) end
end

local function plain(list)
  for _, t in ipairs(list) do
    if not gq.core.batchable(t) or t.requires_grad and gq.recording() then return false end
  end
  return true
end

-- How each image of an epoch is moved, by its place in the order.
local function moves_of(set, o, n, seed, what)
  if o.augment == nil then return nil end
  local where = what .. ": augment"
  local given = options(need(o, "augment", "table", nil, what), "flip crop", where)
  gq.core.expect(gq.is_tensor(set.x) and set.x:dim() == 4, where, "x: images {n, c, h, w}", set.x)
  seed = seed or gq.randint(0, 1 << 52, 1):item()
  return gq.core.moves(n, set.x.shape, given, gq.split_seed(seed, "augment"), where)
end

define("batches", function(set, opts)
  local what = "gq.data.batches"
  local o = options(opts, "batch_size shuffle seed drop_last augment ahead", what)
  local n = check_set(set, what)
  local size = need(o, "batch_size", "count", n, what)
  if size > n then
    gq.core.fail(("%s: batch_size = %d is larger than the set, which has %d entries"):format(what, size, n))
  end
  local shuffle, ahead = need(o, "shuffle", "boolean", false, what), need(o, "ahead", "boolean", true, what)
  local seed = o.seed ~= nil and need(o, "seed", "integer", nil, what) or nil
  if seed and o.shuffle == nil and o.augment == nil then
    gq.core.fail(what .. ": seed draws nothing by itself: say shuffle = true, or shuffle = false for the set's order")
  end
  local order
  if shuffle then
    order = gq.randperm(n, seed and { seed = gq.split_seed(seed, "shuffle") } or nil)
  else
    order = gq.arange(1, n, 1, { dtype = "int64" })
  end
  local moves = moves_of(set, o, n, seed, what)
  local at = 1
  local function count_of(from)
    local count = math.min(size, n - from + 1)
    return (count <= 0 or o.drop_last and count < size) and 0 or count
  end
  local list, joined = flattened(set)
  -- A large set, or one that is changed, is read where it is, ahead of the loop.
  if plain(list) and plain { order, moves } and (moves or bytes(set.x) + bytes(set.y) > small) then
    local loader, k = gq.core.batches(list, order, size, o.drop_last, ahead and gq.threads() > 1, moves and 1 or 0,
      moves)
    return function()
      local batch = gq.core.next_batch(loader, k)
      if batch == nil then return nil end
      local from = at
      at = at + count_of(at)
      local x, y = joined(batch)
      return x, y, order:narrow(1, from, at - from)
    end, nil, nil, loader
  end
  -- A small one is put in order once: its batches are views.
  local once = not moves and bytes(set.x) + bytes(set.y) <= small
  local function moved(v, how) return gq.core.moved(v:detach():to("cpu"):contiguous(), how:to("cpu")):to(v.device) end
  local x, y = once and select_rows(set.x, order), once and select_rows(set.y, order)
  return function()
    local from, count = at, count_of(at)
    if count == 0 then return nil end
    at = at + count
    local function batch(v) return v:narrow(1, from, count) end
    local idx = batch(order)
    if once then return map(x, batch), map(y, batch), idx end
    local part = select_rows(set.x, idx)
    return moves and moved(part, batch(moves)) or part, select_rows(set.y, idx), idx
  end
end, "for x, y, idx in gq.data.batches(set, {batch_size, shuffle = false, seed, drop_last = false, augment = {flip, " ..
  "crop}, ahead = true}) do: the set in parts; the same seed gives the same order;\n" ..
  "batch_size: at most the set, which it is by default\n" ..
  "augment: x, images {n, c, h, w}, half of them mirrored and each moved by up to `crop` pixels, by the seed alone; " ..
  "ahead:\nwhere there are threads the next two batches are prepared by one meanwhile, to the same bits")

-- ---- a set in parts, and scaled ----

define("split", function(set, opts)
  local what = "gq.data.split"
  local o = options(opts, "test validate shuffle seed", what)
  local n = gq.is_tensor(set) and rows(set) or check_set(set, what)
  if not n or n == 0 then error(("%s: at least one entry expected, got %s"):format(what, describe(set)), 2) end
  local function count_of(key, default)
    local v = need(o, key, "number", default, what)
    local k = v < 1 and math.floor(v * n + 0.5) or v
    if v < 0 or k % 1 ~= 0 or k >= n then
      error(("%s: %s = %s: a part below 1, or a number of entries below %d, expected"):format(what, key, tostring(v),
        n), 3)
    end
    return math.tointeger(k)
  end
  local test, validate = count_of("test", 0.2), count_of("validate", 0)
  if test + validate >= n then
    error(("%s: %d + %d of %d entries leave nothing to train with"):format(what, test, validate, n), 2)
  end
  local seed = gq.split_seed(need(o, "seed", "integer", 0, what), "split")
  local order = need(o, "shuffle", "boolean", true, what) and gq.randperm(n, { seed = seed })
    or gq.arange(1, n, 1, { dtype = "int64" })
  local function part(first, count)
    local idx = order:narrow(1, first, count)
    if gq.is_tensor(set) then return set:index_select(1, idx) end
    return { x = select_rows(set.x, idx), y = select_rows(set.y, idx) }
  end
  local train = n - test - validate
  return { train = part(1, train), validate = validate > 0 and part(train + 1, validate) or nil,
    test = part(n - test + 1, test) }
end, "gq.data.split(set, {test = 0.2, validate = 0, shuffle = true, seed = 0}): {train, validate, test} of a set " ..
  "{x, y} or a tensor; parts, or numbers of entries; without shuffle the last entries are the test")

local Scale = { __name = "gq.scale" }
Scale.__index = Scale
function Scale:__call(x) return (x - self.mean) / self.std end
function Scale:undo(x) return x * self.std + self.mean end
function Scale:__tostring() return ("scale: mean %s, std %s"):format(tostring(self.mean), tostring(self.std)) end

define("standardise", function(x, opts)
  local what = "gq.data.standardise"
  local o = options(opts, "dims", what)
  if not gq.is_tensor(x) or x:dim() == 0 or x:numel() == 0 or x.dtype ~= "float32" and x.dtype ~= "float64" then
    error(("%s: a float tensor of at least one dimension and entry expected, got %s"):format(what, describe(x)), 2)
  end
  local dims = need(o, "dims", "number|table", 1, what)
  return gq.no_grad(function()
    local std = x:std(dims, true, { correction = 0 })
    return setmetatable({ mean = x:mean(dims, true), std = gq.where(std:gt(0), std, 1) }, Scale)
  end)
end, "local scale = gq.data.standardise(x, {dims = 1}): scale(x) has mean 0 and deviation 1 over the dimensions; " ..
  "scale:undo(y) goes back; scale.mean, scale.std (1 where all are equal). Of images dims = {1, 3, 4}")

return data
