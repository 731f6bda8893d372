-- plot/plot.lua -- gq.plot: what is to be drawn becomes a plot, a table of layers with their ranges, which
-- gnuplot.lua (files) and terminal.lua draw. A layer is one of
--   { draw = "line" | "points", x =, y = }          lists of numbers; NaN interrupts a line
--   { draw = "band", x =, y =, low = }              filled between two curves
--   { draw = "arrows", x =, y =, dx =, dy = }
--   { draw = "image", x =, y =, z = }               z[j][i] at (x[i], y[j])
-- with color (1, 2, ... of the palette, or "#rrggbb"), label, dashed.

local gq = ...
local core = gq.core
local options, describe, fail = core.options, core.describe, core.fail
local contour, gnuplot, terminal = core.plotting.contour, core.plotting.gnuplot, core.plotting.terminal

local plot = {}

local plot_options <const> = "title xlabel ylabel log out size xrange yrange legend equal"
local item_options <const> = "style label color class bins levels x y t points dashed"
local item_only <const> = { style = true, label = true, color = true, class = true, bins = true, levels = true }

-- ---- numbers from tensors and tables ----

local function finite(v) return v - v == 0 end

-- Nested lists of numbers, and how deep they are.
local function lists(v, what)
  if gq.is_tensor(v) then
    v = v.dtype == "bool" and v:to("int64") or v:detach()
    if v:dim() == 0 then v = v:reshape(1) end
    return v:totable(), v:dim()
  end
  if type(v) ~= "table" or #v == 0 then
    fail(("gq.plot.%s: numbers expected, a tensor or a list, got %s"):format(what, describe(v)))
  end
  if type(v[1]) == "table" or gq.is_tensor(v[1]) then
    local rows, deep = {}, 0
    for i = 1, #v do
      local row, depth = lists(v[i], what)
      if i > 1 and (#row ~= #rows[1] or depth ~= deep) then
        fail(("gq.plot.%s: rows of as many numbers expected, got %d at place 1 and %d at place %d"):format(what,
          #rows[1], #row, i))
      end
      rows[i], deep = row, depth
    end
    return rows, deep + 1
  end
  for i = 1, #v do
    if type(v[i]) == "boolean" then v = core.copy(v, { [i] = v[i] and 1 or 0 }) end
    if type(v[i]) ~= "number" then
      fail(("gq.plot.%s: numbers expected, got %s at place %d"):format(what, describe(v[i]), i))
    end
  end
  return v, 1
end

local function sequence(v, what)
  local list, depth = lists(v, what)
  if depth ~= 1 then
    fail(("gq.plot.%s: a list of numbers or a tensor of one dimension expected, got %s"):format(what,
      gq.is_tensor(v) and describe(v) or "a nested table"))
  end
  return list
end

local function column(rows, k)
  local list = {}
  for i, row in ipairs(rows) do list[i] = row[k] end
  return list
end

-- The columns of {n}, {n, k} or {n, ...}, the later dimensions as one.
local function columns(v, what)
  local list, depth = lists(v, what)
  if depth == 1 or #list == 0 then return { list } end
  if depth > 2 then return columns(gq.tensor(list):flatten(2), what) end
  local all = {}
  for k = 1, #list[1] do all[k] = column(list, k) end
  return all
end

local function count(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

-- {x, y} of every curve of an item: {x, y} with y {n} or {n, k}; {y}; {xy} with xy {..., 2}, points of the plane.
local function paths(item, what)
  local x, y = item[1], item[2]
  if y == nil then
    local list, depth = lists(x, what)
    if depth == 1 then return { { count(#list), list } } end
    local all, each = columns(list, what), {}
    if #all % 2 ~= 0 then
      fail(("gq.plot.%s: {x, y}, {y} or points {n, 2} expected, got %d columns"):format(what, #all))
    end
    for k = 1, #all, 2 do each[#each + 1] = { all[k], all[k + 1] } end
    return each
  end
  local xs, ys, each = columns(x, what), columns(y, what), {}
  if #xs ~= 1 and #xs ~= #ys then
    fail(("gq.plot.%s: x has %d columns and y %d: as many, or one of x, expected"):format(what, #xs, #ys))
  end
  for k = 1, #ys do
    each[k] = { xs[k] or xs[1], ys[k] }
    if #each[k][1] ~= #ys[k] then
      fail(("gq.plot.%s: x has %d numbers and y %d"):format(what, #each[k][1], #ys[k]))
    end
  end
  return each
end

-- x, y and z[j][i] of {z} or {x, y, z}
local function grid(item, what)
  local z, depth = lists(item[3] or item[1], what)
  if depth ~= 2 or #z == 0 then fail(("gq.plot.%s: z: a tensor {#y, #x} expected"):format(what)) end
  local x, y = count(#z[1]), count(#z)
  if item[3] then x, y = sequence(item[1], what), sequence(item[2], what) end
  if #x ~= #z[1] or #y ~= #z then
    fail(("gq.plot.%s: z is {%d, %d}; with %d numbers in x and %d in y it is {%d, %d}: a row for each y"):format(what,
      #z, #z[1], #x, #y, #y, #x))
  end
  if #x < 2 or #y < 2 then fail(("gq.plot.%s: at least two columns and two rows expected"):format(what)) end
  return x, y, z
end

local function bounds_of(list, low, high)
  low, high = low or math.huge, high or -math.huge
  for _, v in ipairs(list) do
    if finite(v) then low, high = math.min(low, v), math.max(high, v) end
  end
  return low, high
end

local function bounds_of_grid(z)
  local low, high
  for _, row in ipairs(z) do low, high = bounds_of(row, low, high) end
  return low, high
end

-- Round numbers from low to high, about n of them, and what is between two.
local function ticks(low, high, n)
  local raw = (high - low) / n
  local unit = 10 ^ math.floor(math.log(raw, 10))
  local step = unit
  for _, m in ipairs { 2, 5, 10 } do
    if step < raw * 0.8 then step = m * unit end
  end
  local list = {}
  for k = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) do list[#list + 1] = k * step + 0.0 end
  return list, step
end
core.plotting.ticks = ticks

-- ---- styles: an item's layers ----

local styles = {}

local function curves(draw, dashed)
  return function(item, what, add)
    for k, path in ipairs(paths(item, what)) do
      add { draw = draw, x = path[1], y = path[2], dashed = dashed or item.dashed, label = k == 1 and item.label or nil,
        color = item.color }
    end
  end
end
styles.line = curves("line")
styles.dashes = curves("line", true)

local points = curves("points")
-- class: a label for each point, and a colour for each label.
function styles.points(item, what, add)
  if item.class == nil then return points(item, what, add) end
  local path, class, of, order = paths(item, what)[1], sequence(item.class, what), {}, {}
  if #class ~= #path[1] then
    fail(("gq.plot.%s: class has %d labels for %d points"):format(what, #class, #path[1]))
  end
  for i, c in ipairs(class) do
    if not of[c] then
      of[c] = { {}, {} }
      order[#order + 1] = c
    end
    table.insert(of[c][1], path[1][i])
    table.insert(of[c][2], path[2][i])
  end
  table.sort(order)
  for k, c in ipairs(order) do
    local label = (item.label and item.label .. " " or "") .. ("%g"):format(c)
    add { draw = "points", x = of[c][1], y = of[c][2], label = label, color = k }
  end
end

-- {x, low, high}, {x, low_high} with {n, 2}, or {x, y}: from zero.
function styles.band(item, what, add)
  local x = sequence(item[1], what)
  if item[2] == nil then fail(("gq.plot.%s: a band is {x, low, high}"):format(what)) end
  local sides = columns(item[2], what)
  local low, high = sides[1], sides[2]
  if item[3] ~= nil then high = sequence(item[3], what) end
  if not high then
    high, low = low, {}
    for i = 1, #high do low[i] = 0 end
  end
  if #low ~= #x or #high ~= #x then
    fail(("gq.plot.%s: a band's x has %d numbers, its sides %d and %d"):format(what, #x, #low, #high))
  end
  add { draw = "band", x = x, y = high, low = low, label = item.label }
end

-- Counts between bins + 1 edges, as a band from zero with its outline.
function styles.hist(item, what, add)
  local values = {}
  for _, list in ipairs(columns(item[1], what)) do table.move(list, 1, #list, #values + 1, values) end
  local low, high = bounds_of(values)
  if low > high then fail(("gq.plot.%s: no finite number among %d"):format(what, #values)) end
  local bins = item.bins or math.max(5, math.min(100, math.ceil(2 * (#values) ^ (1 / 3))))       -- Rice's rule
  if math.type(bins) ~= "integer" or bins < 1 then
    fail(("gq.plot.%s: bins: an integer of at least 1 expected, got %s"):format(what, describe(bins)))
  end
  if low == high then low, high = low - 0.5, high + 0.5 end
  local counts, x, y, zero = {}, {}, {}, {}
  for i = 1, bins do counts[i] = 0 end
  for _, v in ipairs(values) do
    if finite(v) then
      local i = math.min(bins, (v - low) / (high - low) * bins // 1 + 1)
      counts[math.tointeger(i)] = counts[math.tointeger(i)] + 1
    end
  end
  for i, n in ipairs(counts) do
    for k = 0, 1 do
      x[#x + 1], y[#y + 1], zero[#zero + 1] = low + (high - low) * (i - 1 + k) / bins, n, 0
    end
  end
  add { draw = "band", x = x, y = y, low = zero, label = item.label }
  local outline = { { x[1] }, { 0 } }
  for k, list in ipairs { x, y } do table.move(list, 1, #list, 2, outline[k]) end
  table.insert(outline[1], x[#x])
  table.insert(outline[2], 0)
  add { draw = "line", x = outline[1], y = outline[2] }
end

function styles.heat(item, what, add)
  local x, y, z = grid(item, what)
  add { draw = "image", x = x, y = y, z = z }
end

function styles.contour(item, what, add)
  local x, y, z = grid(item, what)
  local low, high = bounds_of_grid(z)
  if low > high then fail(("gq.plot.%s: z has no finite number"):format(what)) end
  local levels = item.levels or 8
  if math.type(levels) == "integer" then
    levels = low < high and ticks(low, high, levels) or {}
  else
    levels = sequence(levels, what)
  end
  for _, level in ipairs(levels) do
    local xs, ys = contour(x, y, z, level)
    local color = item.color or gnuplot.shade(high > low and (level - low) / (high - low) or 0.5)
    if #xs > 0 then
      add { draw = "line", x = xs, y = ys, color = color, label = ("%.4g"):format(level) }
    end
  end
  add { draw = "frame", x = { x[1], x[#x] }, y = { y[1], y[#y] } }
end

-- The slopes f(t, z) over a grid of the plane.
local function slopes(item, what)
  local n, t, x, y = item.points or 15, gq.tensor(item.t or 0), item.x or { -1, 1 }, item.y or { -1, 1 }
  local xs, ys = gq.linspace(x[1], x[2], n), gq.linspace(y[1], y[2], n)
  local z = plot.grid(xs, ys)
  local dz = gq.no_grad(item[1], t, z)
  if not gq.is_tensor(dz) or dz:dim() ~= 2 or dz.shape[2] ~= 2 or #dz ~= #z then
    fail(("gq.plot.%s: f(t, z) of %d points {%d, 2} gives their slopes {%d, 2}, got %s"):format(what, #z, #z, #z,
      describe(dz)))
  end
  z, dz = columns(z, what), columns(dz, what)
  return z[1], z[2], dz[1], dz[2], n
end

-- {f, x = {a, b}, y = {a, b}, t =}: arrows of f(t, z), at the longest as long as they are apart; {x, y, u, v}: these
-- arrows; otherwise trajectories, as by line.
function styles.field(item, what, add)
  if not core.is_callable(item[1]) and item[4] == nil then return styles.line(item, what, add) end
  local x, y, dx, dy, n
  if item[4] then
    local list = {}
    for k = 1, 4 do
      list[k] = {}
      for _, part in ipairs(columns(item[k], what)) do table.move(part, 1, #part, #list[k] + 1, list[k]) end
      if #list[k] ~= #list[1] then
        fail(("gq.plot.%s: arrows are {x, y, dx, dy} of equal lengths, got %d and %d"):format(what, #list[1], #list[k]))
      end
    end
    x, y, dx, dy = table.unpack(list)
    n = math.sqrt(#x)
  else
    x, y, dx, dy, n = slopes(item, what)
  end
  local x1, x2 = bounds_of(x)
  local y1, y2 = bounds_of(y)
  local longest = 0
  for i = 1, #x do
    local length = math.max(math.abs(dx[i]) / (x2 - x1), math.abs(dy[i]) / (y2 - y1))
    if finite(length) then longest = math.max(longest, length) end
  end
  local scale = longest > 0 and 1 / (longest * n) or 0
  local u, v = {}, {}
  for i = 1, #x do u[i], v[i] = dx[i] * scale, dy[i] * scale end
  add { draw = "arrows", x = x, y = y, dx = u, dy = v, color = item.color or "#999999", label = item.label }
end

local style_names <const> = { "line", "points", "dashes", "band", "hist", "heat", "contour", "field" }

-- ---- ranges ----

-- What is drawn first, beneath the rest.
local depth <const> = { image = 1, frame = 1, band = 2, arrows = 3, line = 4, points = 5 }

local function sort_by_depth(layers)
  for k, layer in ipairs(layers) do layer.place = k end
  table.sort(layers, function(a, b)
    local p, q = depth[a.draw], depth[b.draw]
    if p ~= q then return p < q end
    return a.place < b.place
  end)
end

local log_of <const> = { x = { x = true }, y = { y = true }, xy = { x = true, y = true } }

-- From the layers' numbers, those above zero on a logarithmic axis, with some room.
local function range_of(layers, axis, log, given, what)
  local low, high = math.huge, -math.huge
  local function see(list)
    for _, v in ipairs(list or {}) do
      if finite(v) and not (log and v <= 0) then low, high = math.min(low, v), math.max(high, v) end
    end
  end
  local tight = false
  for _, layer in ipairs(layers) do
    see(layer[axis])
    if axis == "y" then see(layer.low) end
    tight = tight or layer.draw == "image" or layer.draw == "frame"
  end
  if given ~= nil then
    local g = sequence(given, what)
    local rising = #g == 2 and g[1] < g[2]
    if not rising or log and g[1] <= 0 then
      fail(("gq.plot.%s: %srange: {low, high} expected, above zero where the axis is logarithmic"):format(what, axis))
    end
    return g
  end
  if low > high then
    fail(("gq.plot.%s: no finite number%s to draw along %s"):format(what, log and " above zero" or "", axis))
  end
  if log then
    return low < high and { low, high } or { low / 2, high * 2 }
  end
  if low == high then
    local room = math.max(math.abs(low), 1) / 2
    return { low - room, high + room }
  end
  local room = (tight or axis == "x") and 0 or 0.05 * (high - low)
  return { low - room, high + room }
end

-- ---- making ----

local methods = {}
local meta = { __index = methods, __name = "gq.plot" }

function meta.__tostring(self) return table.concat(terminal.lines(self), "\n") end

local function style_of(item, default, what)
  local style = item.style or default
  for _, name in ipairs(style_names) do
    if name == style then return styles[style] end
  end
  local near = type(style) == "string" and core.nearest(style, style_names)
  fail(("gq.plot.%s: style: one of %s expected, got %s%s"):format(what, table.concat(style_names, ", "),
    describe(style), near and (", did you mean %q?"):format(near) or ""))
end

-- The named part of a table that also is a list.
local function named(t)
  local o = {}
  for k, v in next, t do
    if math.type(k) ~= "integer" or k < 1 then o[k] = v end
  end
  return o
end

-- Is the whole list one item's numbers: gq.plot.heat{ z } or gq.plot.line{ x, y }?
local function is_bare(given)
  local first = given[1]
  return gq.is_tensor(first) or core.is_callable(first) or
    type(first) == "table" and type(first[1]) == "number" and (given[2] == nil or type(given[2]) == "table" and
      type(given[2][1]) == "number")
end

local function make(kind, default, given)
  if type(given) ~= "table" or getmetatable(given) == meta then
    fail(("gq.plot.%s: a table of what to draw expected, as gq.plot.%s{ {x, y}, title = \"...\" }; got %s"):format(kind,
      kind, describe(given)))
  end
  local items = given
  if is_bare(given) then
    items = { {} }
    for k, v in next, given do
      if math.type(k) == "integer" or (" " .. item_options .. " "):find(" " .. tostring(k) .. " ", 1, true) then
        items[1][k] = v
      else
        items[k] = v
      end
    end
  end
  for key in next, named(items) do
    if item_only[key] then
      fail(("gq.plot.%s: %s stands with what is drawn: gq.plot.%s{ {x, y, %s = ...}, ... }"):format(kind, key, kind,
        key))
    end
  end
  local o = options(named(items), plot_options, "gq.plot." .. kind)
  local log = o.log == nil and {} or log_of[o.log]
  gq.core.expect(log, "gq.plot." .. kind, "log: \"x\", \"y\" or \"xy\"", o.log)
  if #items == 0 then fail(("gq.plot.%s: nothing to draw: give {x, y}, or several such"):format(kind)) end
  local self = { kind = kind, layers = {}, log = log }
  for k, item in ipairs(items) do
    if type(item) ~= "table" then
      fail(("gq.plot.%s: item %d: a table expected, as {x, y}; got %s"):format(kind, k, describe(item)))
    end
    options(named(item), item_options, "gq.plot." .. kind)
    style_of(item, default, kind)(item, kind, function(layer)
      layer.color = layer.color or item.color or k
      self.layers[#self.layers + 1] = layer
    end)
  end
  sort_by_depth(self.layers)
  for _, key in ipairs { "title", "xlabel", "ylabel" } do
    if o[key] ~= nil then self[key] = tostring(o[key]):gsub("%c", " ") end
  end
  self.equal, self.legend, self.size = o.equal, o.legend ~= false, o.size
  self.x = range_of(self.layers, "x", log.x, o.xrange, kind)
  self.y = range_of(self.layers, "y", log.y, o.yrange, kind)
  for _, layer in ipairs(self.layers) do
    if layer.draw == "image" then self.z = { bounds_of_grid(layer.z) } end
  end
  return setmetatable(self, meta), o
end

-- p:save("x.svg"): also .png and .pdf, through gnuplot.
function methods.save(self, path)
  gnuplot.save(self, path)
  return self
end

-- p:show(): in the terminal.
function methods.show(self)
  print(tostring(self))
  return self
end

local function finish(self, out, what)
  if out == nil or out == "-" then return self:show() end
  if out == false then return self end
  if type(out) ~= "string" then
    fail(("gq.plot.%s: out: a path that ends in .svg, .png or .pdf expected, or nothing for the terminal; got %s")
      :format(what, describe(out)))
  end
  return self:save(out)
end

local function define(kind, default, doc)
  plot[kind] = function(given)
    local self, o = make(kind, default, given)
    return finish(self, o.out, kind)
  end
  gq.docs[plot[kind]] = doc .. [[

  Options: title, xlabel, ylabel, log = "x" | "y" | "xy", xrange, yrange, legend = false, equal = true (one scale),
  size = {640, 400}, and out = "x.svg" | "x.png" | "x.pdf" (drawn by gnuplot), nil: in the terminal, false: not yet
  Items in one plot may have styles of their own: style = "line" | "points" | "dashes" | "band" | "hist" | "heat" |
  "contour" | "field", and color = "#rrggbb" | 1, 2, ...
  Gives the plot: p:save("x.svg"), p:show(), and an entry of gq.plot.panels]]
end

define("line", "line", "gq.plot.line{ {x, y, label = \"...\"}, ..., title = }: curves; y {n, k} is k of them, {y} " ..
  "counts x from 1, {xy} with {n, 2} are points of the plane")
define("scatter", "points", "gq.plot.scatter{ {x, y, label =}, ... }: points, as gq.plot.line takes them; class = " ..
  "labels gives each label its colour")
define("band", "band", "gq.plot.band{ {x, low, high}, ... }: filled between two curves")
define("hist", "hist", "gq.plot.hist{ {values, bins = n, label =}, ... }: how many values fall into each bin")
define("heat", "heat", "gq.plot.heat{ {x, y, z}, ... } or {z}: z {#y, #x} as colours, z[j][i] at x[i], y[j]")
define("contour", "contour", "gq.plot.contour{ {x, y, z, levels = n | {...}}, ... } or {z}: the curves of equal z")
define("field", "field", "gq.plot.field{ {f, x = {a, b}, y = {a, b}, t = 0, points = 15}, {path}, ... }: arrows of " ..
  "dynamics f(t, z) in the plane, or {x, y, dx, dy}, with trajectories {#t, 2} or {#t, n, 2}")

-- ---- panels ----

local function check_entry(p)
  if getmetatable(p) == meta and p.layers then return p end
  if type(p) == "table" and getmetatable(p) == nil then return (make("line", "line", p)) end
  fail(("gq.plot.panels: rows of plots expected, as {{p, q}, {r}} with p = gq.plot.line{..., out = false}; got %s")
    :format(describe(p)))
end

function plot.panels(given)
  gq.core.expect(type(given) == "table", "gq.plot.panels", "a table of rows", given)
  local o = options(named(given), "title size out", "gq.plot.panels")
  local self = { kind = "panels", rows = {}, columns = 0, title = o.title and tostring(o.title):gsub("%c", " "),
    size = o.size }
  for i, row in ipairs(given) do
    if getmetatable(row) == meta then row = { row } end      -- a row of one
    if type(row) ~= "table" then check_entry(row) end
    self.rows[i] = {}
    for k, p in ipairs(row) do self.rows[i][k] = check_entry(p) end
    self.columns = math.max(self.columns, #self.rows[i])
  end
  if self.columns == 0 then fail("gq.plot.panels: no plots given") end
  return finish(setmetatable(self, meta), o.out, "panels")
end
gq.docs[plot.panels] = [[
gq.plot.panels{ {p, q}, {r, s}, title =, size =, out = "x.svg" }: rows of plots in one picture]]

-- ---- helpers ----

-- Points of a grid: {#y * #x, 2}, x the faster; f(points):reshape(#y, #x) is a z for heat and contour.
function plot.grid(x, y)
  local function list(v) return gq.is_tensor(v) and v or gq.tensor(sequence(v, "grid")) end
  x, y = list(x), list(y)
  local n, m = #x, #y
  return gq.stack({ x:reshape(1, n):expand(m, n):flatten(), y:reshape(m, 1):expand(m, n):flatten() }, 2)
end
gq.docs[plot.grid] = [[
gq.plot.grid(x, y): the points of a grid, {#y * #x, 2}, x the faster, to evaluate what heat and contour draw]]

return plot
