-- plot/gnuplot.lua -- pictures in files: a plot as a gnuplot script. Texts go in single quotes, in which gnuplot
-- replaces nothing; numbers are the only other thing that comes from outside.

local gq = ...
local fail = gq.core.fail
local gnuplot = {}

-- Colours that differ for the colour-blind, too (Paul Tol's bright scheme), and viridis for values.
local palette <const> = { "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777" }
local viridis <const> = { { 68, 1, 84 }, { 59, 82, 139 }, { 33, 145, 140 }, { 94, 201, 98 }, { 253, 231, 37 } }

-- The colour of a value in 0..1.
function gnuplot.shade(v)
  local at = math.max(0, math.min(v, 1)) * (#viridis - 1)
  local i = math.min(math.floor(at), #viridis - 2)
  local rgb = {}
  for k = 1, 3 do
    local a, b = viridis[i + 1][k], viridis[i + 2][k]
    rgb[k] = math.floor(a + (b - a) * (at - i) + 0.5)
  end
  return ("#%02x%02x%02x"):format(table.unpack(rgb))
end

local function color_of(layer)
  local c = layer.color
  if math.type(c) == "integer" then return palette[(c - 1) % #palette + 1] end
  gq.core.expect(type(c) == "string" and c:match("^#%x%x%x%x%x%x$"), "gq.plot", "color: \"#rrggbb\" or 1, 2, ...", c)
  return c
end
gnuplot.color_of = color_of

local function quoted(text) return "('" .. text:gsub("%c", " "):gsub("'", [[' . "'" . ']]) .. "')" end

local function number(v) return v - v == 0 and ("%.6g"):format(v) or "NaN" end

-- Rows of the lists' numbers as a block of data; NaN leaves an empty line, which interrupts a line.
local function block(name, lists)
  local lines = { "$" .. name .. " << EOD" }
  for i = 1, #lists[1] do
    local row, whole = {}, true
    for k, list in ipairs(lists) do
      row[k] = number(list[i])
      whole = whole and row[k] ~= "NaN"
    end
    lines[#lines + 1] = whole and table.concat(row, " ") or ""
  end
  lines[#lines + 1] = "EOD"
  return table.concat(lines, "\n")
end

local function image_block(name, layer)
  local lists = { {}, {}, {} }
  for j, y in ipairs(layer.y) do
    for i, x in ipairs(layer.x) do
      local n = #lists[1] + 1
      lists[1][n], lists[2][n], lists[3][n] = x, y, layer.z[j][i]
    end
  end
  local text = block(name, lists)
  return (text:gsub("\n\n", "\n"))                     -- what is not finite stays out
end

-- draw -> the block of data, and what follows `plot $name using`
local drawn = {
  line = function(name, l)
    return block(name, { l.x, l.y }), ("1:2 with lines lw 2 lc rgb '%s'%s"):format(color_of(l),
      l.dashed and " dt 2" or "")
  end,
  points = function(name, l)
    return block(name, { l.x, l.y }), ("1:2 with points pt 7 ps %s lc rgb '%s'"):format(#l.x > 300 and "0.35" or "0.6",
      color_of(l))
  end,
  band = function(name, l)
    return block(name, { l.x, l.low, l.y }),
      ("1:2:3 with filledcurves fs transparent solid 0.25 noborder lc rgb '%s'"):format(color_of(l))
  end,
  arrows = function(name, l)
    return block(name, { l.x, l.y, l.dx, l.dy }), ("1:2:3:4 with vectors head size graph 0.01,20 filled lc rgb '%s'")
      :format(color_of(l))
  end,
  image = function(name, l) return image_block(name, l), "1:2:3 with image" end,
}

-- The corner in which the fewest points are.
local function free_corner(p)
  local crowd = { ["left top"] = 0, ["right top"] = 0, ["left bottom"] = 0, ["right bottom"] = 0 }
  local function place(v, range, log)
    local a, b = range[1], range[2]
    if log then a, b, v = math.log(a), math.log(b), v > 0 and math.log(v) or 0 end
    return (v - a) / (b - a)
  end
  for _, l in ipairs(p.layers) do
    for i = 1, l.draw == "frame" and 0 or l.draw ~= "image" and #l.x or 0 do
      for _, v in ipairs { l.y[i], l.low and l.low[i] } do
        local x, y = place(l.x[i], p.x, p.log.x), place(v, p.y, p.log.y)
        local side = x < 0.35 and "left" or x > 0.65 and "right"
        local level = y < 0.35 and "bottom" or y > 0.65 and "top"
        if side and level then crowd[side .. " " .. level] = crowd[side .. " " .. level] + 1 / #l.x end
      end
    end
  end
  local best = "right top"
  for _, corner in ipairs { "left top", "right bottom", "left bottom" } do
    if crowd[corner] < crowd[best] - 0.02 then best = corner end
  end
  return best
end

local function range(axis, r, log)
  local _, step = gq.core.plotting.ticks(r[1], r[2], 6)
  return ("set %srange [%.9g:%.9g]\n%s"):format(axis, r[1], r[2], log and ("set logscale %s"):format(axis) or
    ("set %stics %.9g"):format(axis, step))
end

local function script_of(p, prefix)
  local lines, parts = { "set style fill solid", "set border 3 lc rgb '#444444'", "set tics nomirror out",
    "unset colorbox", "set format cb '%.3g'" }, {}
  local function say(...) lines[#lines + 1] = string.format(...) end
  say("set palette defined (%s)", (function()
    local stops = {}
    for k, c in ipairs(viridis) do stops[k] = ("%d '#%02x%02x%02x'"):format(k - 1, table.unpack(c)) end
    return table.concat(stops, ", ")
  end)())
  say("set title %s", quoted(p.title or ""))
  say("set xlabel %s", quoted(p.xlabel or ""))
  say("set ylabel %s", quoted(p.ylabel or ""))
  say(range("x", p.x, p.log.x))
  say(range("y", p.y, p.log.y))
  if p.equal then say("set size ratio -1") end
  if p.z and p.z[1] < p.z[2] then say("set cbrange [%.9g:%.9g]\nset colorbox", p.z[1], p.z[2]) end
  local labelled = 0
  for k, l in ipairs(p.layers) do
    local draw = drawn[l.draw]
    if draw then
      local name = prefix .. k
      local data, how = draw(name, l)
      lines[#lines + 1] = data
      parts[#parts + 1] = ("$%s using %s %s"):format(name, how, l.label and "title " .. quoted(tostring(l.label)) or
        "notitle")
      labelled = labelled + (l.label and 1 or 0)
    end
  end
  if #parts == 0 then parts[1] = "NaN notitle" end       -- axes alone
  lines[#lines + 1] = p.legend and labelled > 0 and ("set key %s opaque samplen 2 spacing 1.1"):format(
    labelled > 6 and "outside right top" or free_corner(p)) or "unset key"
  lines[#lines + 1] = "plot " .. table.concat(parts, ", \\\n  ")
  return table.concat(lines, "\n") .. "\n"
end

local function panels_script(p)
  local parts = { ("set multiplot layout %d,%d%s"):format(#p.rows, p.columns, p.title and " title " .. quoted(p.title)
    or "") }
  for i, row in ipairs(p.rows) do
    for k = 1, p.columns do
      parts[#parts + 1] = row[k] and "reset\n" .. script_of(row[k], ("d%d_%d_"):format(i, k)) or "set multiplot next"
    end
  end
  parts[#parts + 1] = "unset multiplot"
  return table.concat(parts, "\n")
end

local terminals = {
  svg = function(w, h) return ("svg size %d,%d noenhanced font 'sans-serif,12' background 'white'"):format(w, h) end,
  png = function(w, h) return ("pngcairo size %d,%d noenhanced font 'sans,10'"):format(w, h) end,
  pdf = function(w, h) return ("pdfcairo size %.3f,%.3f noenhanced font 'sans,10'"):format(w / 100, h / 100) end,
}

local function size_of(p)
  local size = p.size
  if size == nil then return p.rows and 420 * p.columns or 640, p.rows and 320 * #p.rows or 400 end
  local w, h
  if type(size) == "table" then w, h = math.tointeger(size[1]), math.tointeger(size[2]) end
  if not (w and h and w >= 50 and h >= 50 and w <= 10000 and h <= 10000) then
    fail("gq.plot: size: {width, height} in points expected, from 50 to 10000")
  end
  return w, h
end

local function write(path, text)
  local file, why = io.open(path, "wb")
  if not file then fail(("gq.plot: %s"):format(why)) end
  local ok, problem = file:write(text)
  if ok then ok, problem = file:close() else file:close() end
  if not ok then fail(("gq.plot: %s: %s"):format(path, problem)) end
end

-- f(...), which fails with the file at the path taken away.
local function or_without(path, f, ...)
  local list = table.pack(pcall(f, ...))
  if list[1] then return table.unpack(list, 2, list.n) end
  os.remove(path)
  error(list[2], 0)
end

-- Run the script; what gnuplot complains of, or nil. It is handed over in a file: a pipe to a program that is not
-- there would end ours by SIGPIPE.
local function run(script)
  local path = os.tmpname()
  or_without(path, write, path, script)
  local pipe = io.popen(("gnuplot -d '%s' 2>&1"):format(path))    -- -d: without the user's ~/.gnuplot
  local said = pipe:read("a")
  local ok, _, code = pipe:close()
  os.remove(path)
  if code == 127 then
    fail("gq.plot: pictures in files are drawn by gnuplot, which is not installed: apt-get install gnuplot-nox " ..
      "(without out = the plot is drawn in the terminal)")
  end
  return not ok and said or nil
end

-- gnuplot ends well where the disk is full, too: does the picture have its end?
local ends = { svg = "</svg>%s*$", png = "IEND....$", pdf = "%%%%EOF%s*$" }

local function is_whole(path, suffix)
  local file <close> = io.open(path, "rb")
  return file and file:seek("end", -math.min(64, file:seek("end"))) and file:read("a"):find(ends[suffix]) ~= nil
end

-- The picture appears at the path whole, or not at all.
function gnuplot.save(p, path)
  gq.core.expect(type(path) == "string", "gq.plot", "a path that ends in .svg, .png or .pdf", path)
  local suffix = path:match("%.(%w+)$")
  local terminal = suffix and terminals[suffix:lower()]
  if not terminal or path:find("[%c]") then
    fail(("gq.plot: %s: the path of a picture ends in .svg, .png or .pdf"):format(path))
  end
  local part = path .. ".part"
  write(part, "")                                       -- the reason, where it cannot be
  local script = ("set encoding utf8\nset terminal %s\nset output %s\n%s\nunset output\n"):format(terminal(size_of(p)),
    quoted(part), p.rows and panels_script(p) or script_of(p, "d"))
  local problem = or_without(part, run, script)
  if problem then
    os.remove(part)
    fail(("gq.plot: gnuplot: %s"):format(problem:match("%S.*") or "it failed"))
  end
  if not is_whole(part, suffix:lower()) then
    os.remove(part)
    fail(("gq.plot: %s: gnuplot could not write all of it: is the disk full?"):format(path))
  end
  local ok, why = os.rename(part, path)
  if not ok then fail(("gq.plot: %s"):format(why)) end
end

return gnuplot
