-- plot/terminal.lua -- plots in the terminal: braille, two by four dots a character, with colours where the terminal
-- has them; stars where the locale is not UTF-8.

local gq = ...
local core = gq.core
local gnuplot = core.plotting.gnuplot
local terminal = {}

local function environment(name) return os.getenv(name) or "" end

-- What stdout can show. NO_COLOR is https://no-color.org.
local function abilities()
  local locale = environment("LC_ALL")
  if locale == "" then locale = environment("LC_CTYPE") end
  if locale == "" then locale = environment("LANG") end
  local dumb = environment("TERM") == "dumb"
  return { braille = locale:upper():find("UTF%-?8") ~= nil and not dumb,
    color = gq.isatty(1) and not dumb and environment("NO_COLOR") == "" }
end

-- Columns and rows; 80 by 24 where stdout is no terminal.
local function screen()
  local columns, rows = gq.terminal_size()
  return math.max(columns or 80, 30), math.max(rows or 24, 10)
end

-- ---- a canvas of w x h characters ----

local Canvas = {}
Canvas.__index = Canvas

local function canvas(w, h)
  return setmetatable({ w = w, h = h, bits = {}, solid = {}, fg = {}, bg = {} }, Canvas)
end

-- Bits of a braille character by column and row of its dots.
local dots <const> = { { 1, 2, 4, 64 }, { 8, 16, 32, 128 } }

-- The dot at x in 0..2w - 1, y in 0..4h - 1 from above.
function Canvas:dot(x, y, color, faint)
  if x < 0 or y < 0 or x >= 2 * self.w or y >= 4 * self.h then return end
  local cell = (y // 4) * self.w + x // 2
  self.bits[cell] = (self.bits[cell] or 0) | dots[x % 2 + 1][y % 4 + 1]
  self.fg[cell] = color
  self.solid[cell] = self.solid[cell] or not faint
end

-- Clip p + s d, s in 0..1, to 0..1 along an axis: the s that remain (Liang and Barsky).
local function clip(p, d, from, to)
  for _, side in ipairs { { -d, p }, { d, 1 - p } } do
    local q, r = side[1], side[2]
    if q == 0 and r < 0 then return 1, 0 end
    if q < 0 then from = math.max(from, r / q) end
    if q > 0 then to = math.min(to, r / q) end
  end
  return from, to
end

-- A line between points of the unit square, y upwards, as far as it is inside.
function Canvas:segment(x1, y1, x2, y2, color, dashed)
  local whole = x1 + x2 + y1 + y2
  if whole - whole ~= 0 then return end
  local from, to = clip(x1, x2 - x1, 0, 1)
  from, to = clip(y1, y2 - y1, from, to)
  if from > to then return end
  local w, h = 2 * self.w - 1, 4 * self.h - 1
  local function place(s) return (x1 + s * (x2 - x1)) * w, (1 - y1 - s * (y2 - y1)) * h end
  local a, b = place(from)
  local c, d = place(to)
  local n = math.max(1, math.ceil(math.max(math.abs(c - a), math.abs(d - b))))
  for k = 0, n do
    if not dashed or (math.floor(a + k) // 4) % 2 == 0 then
      self:dot(math.floor(a + (c - a) * k / n + 0.5), math.floor(b + (d - b) * k / n + 0.5), color)
    end
  end
end

local ansi <const> = { 34, 31, 32, 33, 36, 35, 90 }
-- viridis among the 256 colours, and how dark without colours
local levels <const> = { 53, 54, 60, 61, 25, 31, 30, 36, 35, 71, 77, 113, 149, 185, 220, 226 }
local shades <const> = { " ", ".", ":", "-", "=", "+", "*", "#", "%", "@" }

-- SGR code of a layer's colour
local function code_of(layer)
  if math.type(layer.color) == "integer" then return tostring(ansi[(layer.color - 1) % #ansi + 1]) end
  local r, g, b = gnuplot.color_of(layer):match("#(%x%x)(%x%x)(%x%x)")
  local function six(c) return (tonumber(c, 16) * 5 + 127) // 255 end
  return ("38;5;%d"):format(16 + 36 * six(r) + 6 * six(g) + six(b))
end

local function painted(text, fg, bg, can)
  if not can.color or not (fg or bg) then return text end
  local codes = {}
  if fg then codes[1] = fg end
  if bg then codes[#codes + 1] = "48;5;" .. levels[math.floor(bg * (#levels - 1) + 0.5) + 1] end
  return ("\27[%sm%s\27[0m"):format(table.concat(codes, ";"), text)
end

function Canvas:row(j, can)
  local cells = {}
  for i = 0, self.w - 1 do
    local k = j * self.w + i
    local bits, bg, text = self.bits[k] or 0, self.bg[k], " "
    if bits > 0 then
      text = can.braille and utf8.char(0x2800 + bits) or self.solid[k] and "*" or "."
    elseif bg and not can.color then
      text = shades[math.floor(bg * (#shades - 1) + 0.5) + 1]
    end
    cells[#cells + 1] = painted(text, bits > 0 and self.fg[k], bg, can)
  end
  return table.concat(cells)
end

-- ---- layers ----

-- From an axis's numbers to 0..1.
local function scale(range, log)
  local a, b = range[1], range[2]
  if not log then return function(v) return (v - a) / (b - a) end end
  a, b = math.log(a), math.log(b)
  return function(v) return v > 0 and (math.log(v) - a) / (b - a) or 0 / 0 end
end

local drawn = {}

function drawn.line(c, l, x, y, color)
  for i = 2, #l.x do
    c:segment(x(l.x[i - 1]), y(l.y[i - 1]), x(l.x[i]), y(l.y[i]), color, l.dashed)
  end
  if #l.x == 1 then drawn.points(c, l, x, y, color) end
end

function drawn.points(c, l, x, y, color)
  for i = 1, #l.x do
    local a, b = x(l.x[i]), y(l.y[i])
    c:segment(a, b, a, b, color)
  end
end

-- Every other dot between the curves.
function drawn.band(c, l, x, y, color)
  local w, h = 2 * c.w - 1, 4 * c.h - 1
  for i = 2, #l.x do
    local a, b = x(l.x[i - 1]) * w, x(l.x[i]) * w
    if a - a + b - b == 0 then
      if a > b then a, b = b, a end
      for column = math.max(0, math.ceil(a)), math.min(w, math.floor(b)) do
        local s = b > a and (column - x(l.x[i - 1]) * w) / (x(l.x[i]) * w - x(l.x[i - 1]) * w) or 0
        local low = y(l.low[i - 1] + s * (l.low[i] - l.low[i - 1]))
        local high = y(l.y[i - 1] + s * (l.y[i] - l.y[i - 1]))
        if low ~= low then low = 0 end                   -- below a logarithmic axis
        if high - high == 0 then
          low, high = math.max(0, math.min(low, high)), math.min(1, math.max(low, high))
          for row = math.ceil((1 - high) * h), math.floor((1 - low) * h) do
            if (row + column) % 2 == 0 and row % 2 == 0 then c:dot(column, row, color, true) end
          end
        end
      end
    end
  end
end

function drawn.arrows(c, l, x, y, color)
  for i = 1, #l.x do
    c:segment(x(l.x[i]), y(l.y[i]), x(l.x[i] + l.dx[i]), y(l.y[i] + l.dy[i]), color)
  end
end

-- The entry of a sorted list nearest to v.
local function nearest(list, v)
  local best, least = 1, math.huge
  for i, x in ipairs(list) do
    if math.abs(x - v) < least then best, least = i, math.abs(x - v) end
  end
  return best
end

function drawn.image(c, l, _, _, _, p)
  local span = p.z[2] > p.z[1] and p.z[2] - p.z[1] or 1
  local columns = {}
  for i = 0, c.w - 1 do columns[i] = nearest(l.x, p.x[1] + (i + 0.5) / c.w * (p.x[2] - p.x[1])) end
  for j = 0, c.h - 1 do
    local row = l.z[nearest(l.y, p.y[2] - (j + 0.5) / c.h * (p.y[2] - p.y[1]))]
    for i = 0, c.w - 1 do
      local v = (row[columns[i]] - p.z[1]) / span
      if v - v == 0 then c.bg[j * c.w + i] = v end
    end
  end
end

-- ---- the frame ----

local function short(v) return (("%.4g"):format(v):gsub("e([+-])0*(%d)", "e%1%2")) end

local function centred(text, width)
  local n = utf8.len(text) or #text
  if n > width then return text:sub(1, (utf8.offset(text, width + 1) or width + 1) - 1) end
  local left = (width - n) // 2
  return (" "):rep(left) .. text .. (" "):rep(width - n - left)
end

-- place -> text of the marks along an axis of n characters
local function marks_of(range, log, n, count)
  local marks, to = {}, scale(range, log)
  local list = {}
  if not log then
    list = core.plotting.ticks(range[1], range[2], count)
  else
    for e = math.ceil(math.log(range[1], 10) - 1e-9), math.floor(math.log(range[2], 10) + 1e-9) do
      list[#list + 1] = 10.0 ^ e
    end
    if #list < 2 then list = { range[1], range[2] } end
  end
  for _, v in ipairs(list) do marks[math.floor(to(v) * (n - 1) + 0.5)] = short(math.abs(v) < 1e-12 and 0 or v) end
  return marks
end

-- The labels beneath the axis, where they do not touch.
local function below(marks, n)
  local line, free = {}, 0
  for i = 1, n do line[i] = " " end
  for place = 0, n - 1 do
    local text = marks[place]
    local from = text and math.max(0, math.min(place - #text // 2, n - #text))
    if text and from >= free then
      for k = 1, #text do line[from + k] = text:sub(k, k) end
      free = from + #text + 1
    end
  end
  return table.concat(line)
end

local function legend_of(p, width, can)
  local parts, used = {}, 0
  local sign = { line = can.braille and "──" or "--", points = can.braille and "••" or "**",
    band = can.braille and "▒▒" or "::", arrows = "->" }
  for _, l in ipairs(p.legend and p.layers or {}) do
    local label = l.label and tostring(l.label):gsub("%c", " ")
    local n = label and 5 + (utf8.len(label) or #label)
    if n and used + n <= width then
      parts[#parts + 1], used = painted(sign[l.draw] or "  ", code_of(l), nil, can) .. " " .. label .. "  ", used + n
    end
  end
  return #parts > 0 and table.concat(parts) .. (" "):rep(width - used) or nil
end

-- Lines of a plot, each `width` characters wide; `height` of them at most.
local function lines_of(p, width, height, can)
  local legend, title = legend_of(p, width, can), p.title and centred(p.title, width)
  local marks_y, margin
  local rows = math.max(4, height - 2 - (title and 1 or 0) - (legend and 1 or 0) -
    ((p.xlabel or p.ylabel) and 1 or 0))
  marks_y, margin = marks_of(p.y, p.log.y, rows, math.max(2, rows // 4)), 1
  for _, text in pairs(marks_y) do margin = math.max(margin, #text) end
  local w = math.max(10, width - margin - 2)
  local c, x, y = canvas(w, rows), scale(p.x, p.log.x), scale(p.y, p.log.y)
  for _, l in ipairs(p.layers) do
    if drawn[l.draw] then drawn[l.draw](c, l, x, y, code_of(l), p) end
  end
  local lines = { title or legend, title and legend }
  local bar, corner, flat = can.braille and "│" or "|", can.braille and "└" or "+", can.braille and "─" or "-"
  for j = 0, rows - 1 do
    local text = marks_y[rows - 1 - j] or ""
    lines[#lines + 1] = (" "):rep(margin - #text) .. text .. " " .. bar .. c:row(j, can)
  end
  lines[#lines + 1] = (" "):rep(margin + 1) .. corner .. flat:rep(w)
  lines[#lines + 1] = (" "):rep(margin + 2) .. below(marks_of(p.x, p.log.x, w, math.max(2, w // 12)), w)
  if p.xlabel or p.ylabel then
    lines[#lines + 1] = centred((p.ylabel and p.ylabel .. " against " or "") .. (p.xlabel or "x"), width)
  end
  return lines
end

-- The same lines side by side, with blank ones where one is shorter.
local function beside(blocks, width)
  local lines, most = {}, 0
  for _, block in ipairs(blocks) do most = math.max(most, #block) end
  for i = 1, most do
    local parts = {}
    for k, block in ipairs(blocks) do parts[k] = block[i] or (" "):rep(width) end
    lines[i] = table.concat(parts, "  ")
  end
  return lines
end

function terminal.lines(p)
  local can, width, height = abilities(), screen()
  width, height = math.min(width, 160), math.min(height - 2, width // 3, 40)
  if not p.rows then return lines_of(p, width, height, can) end
  local lines = { p.title and centred(p.title, width) }
  local each = (width - 2 * (p.columns - 1)) // p.columns
  for _, row in ipairs(p.rows) do
    local blocks = {}
    for k, q in ipairs(row) do blocks[k] = lines_of(q, each, math.max(12, height // math.min(#p.rows, 2)), can) end
    local joined = beside(blocks, each)
    table.move(joined, 1, #joined, #lines + 1, lines)
  end
  return lines
end

return terminal
