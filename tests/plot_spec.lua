-- gq.plot: what a plot holds, files through gnuplot, the terminal, and bad input.

local gq = require "gq"
local helper = require "tests.helper"
local plot = gq.plot

local gqlua = helper.gqlua

local function layers(p, draw)
  local list = {}
  for _, l in ipairs(p.layers) do
    if l.draw == draw then list[#list + 1] = l end
  end
  return list
end

local function with(given)
  given.out = false
  return given
end

-- Standard output and error of a script run by gqlua, with the environment before it.
local function run(environment, code)
  local path = helper.write(os.tmpname(), "local gq = require 'gq'\n", code)
  local text = helper.output(("env %s %s %s"):format(environment, gqlua, path))
  os.remove(path)
  return text
end

local circle = [[
local a = gq.linspace(0, 2 * math.pi, 200)
gq.plot.line{ {gq.cos(a), gq.sin(a), label = "round"}, title = "circle", xlabel = "x" }]]

describe("gq.plot", function()
  local x = gq.linspace(0, 1, 5)

  it("takes tensors, tables, columns and points of the plane", function()
    local p = plot.line(with { { x, x * 2, label = "a" }, { { 0, 1 }, { 3, 4 } }, { { 7, 8, 9 } }, title = "T" })
    local l = layers(p, "line")
    assert.close(l[1].y, { 0, 0.5, 1, 1.5, 2 })
    assert.same({ "a", 1, { 3, 4 }, { 1, 2, 3 }, 3 }, { l[1].label, l[1].color, l[2].y, l[3].x, l[3].color })
    assert.close(p.x, { 0, 3 })
    assert.equal("T", p.title)
    assert.equal(3, #layers(plot.line(with { { x, gq.rand(5, 3) } }), "line"))
    assert.equal(4, #layers(plot.line(with { { gq.rand(10, 4, 2) } }), "line"))
    assert.same({ 1, 3 }, layers(plot.scatter(with { { gq.tensor { { 1, 2 }, { 3, 4 } } } }), "points")[1].x)
    assert.same({ 1, 2, 3 }, layers(plot.line(with { gq.tensor { 5, 6, 7 } }), "line")[1].x)
    assert.same({ 0, 1 }, layers(plot.line(with { { 0, 1 }, { 5, 6 } }), "line")[1].x)
  end)

  it("takes tensors that carry gradients, of any dtype", function()
    local w = gq.tensor({ 1, 2 }, { requires_grad = true })
    local p = plot.line(with { { gq.tensor({ 1, 2 }, { dtype = "int64" }), w * 2 } })
    assert.close(layers(p, "line")[1].y, { 2, 4 })
  end)

  it("colours points by class", function()
    local p = plot.scatter(with { { { 1, 2, 3 }, { 4, 5, 6 }, class = gq.tensor({ 2, 1, 2 }, { dtype = "int64" }) } })
    local l = layers(p, "points")
    assert.same({ { 2 }, { 1, 3 } }, { l[1].x, l[2].x })
    assert.same({ "1", "2" }, { l[1].label, l[2].label })
  end)

  it("puts bands beneath lines, whatever their order", function()
    local p = plot.line(with { { x, x }, { x, x - 1, x + 1, style = "band" } })
    assert.same({ "band", "line" }, { p.layers[1].draw, p.layers[2].draw })
    assert.close(p.layers[1].low, { -1, -0.75, -0.5, -0.25, 0 })
    assert.same({ 0, 0 }, layers(plot.band(with { { { 1, 2 }, { 3, 4 } } }), "band")[1].low)
    assert.close(layers(plot.band(with { { x, gq.stack({ x, x + 1 }, 2) } }), "band")[1].y, { 1, 1.25, 1.5, 1.75, 2 })
  end)

  it("takes true and false as 1 and 0", function()
    local b = layers(plot.line(with { { gq.tensor { 3, 4 }, gq.tensor { true, false } } }), "line")[1]
    assert.same({ 1, 0 }, b.y)
  end)

  it("counts every value once in a histogram", function()
    local b = layers(plot.hist(with { { { 0, 0.1, 0.9, 1, 2, 0 / 0 }, bins = 2 } }), "band")[1]
    assert.same({ 3, 3, 2, 2 }, b.y)
    assert.close(b.x, { 0, 1, 1, 2 })
    local sum = 0
    for i, n in ipairs(layers(plot.hist(with { { gq.randn(1000) } }), "band")[1].y) do sum = sum + n * (i % 2) end
    assert.equal(1000, sum)
  end)

  it("finds the circles where x^2 + y^2 is a level, each one closed curve", function()
    local a = gq.linspace(-2, 2, 81)
    local g = plot.grid(a, a)
    local z = (g * g):sum(2):reshape(81, 81)
    local l = layers(plot.contour(with { { a, a, z, levels = { 1, 2.25 } } }), "line")
    assert.equal(2, #l)
    for k, radius in ipairs { 1, 1.5 } do
      local gaps, angle = 0, 0
      for i = 1, #l[k].x do
        if l[k].x[i] ~= l[k].x[i] then
          gaps = gaps + 1
        else
          assert.close(math.sqrt(l[k].x[i] ^ 2 + l[k].y[i] ^ 2), radius, 1e-3)
          if i > 1 then
            local turn = math.atan(l[k].y[i], l[k].x[i]) - math.atan(l[k].y[i - 1], l[k].x[i - 1])
            angle = angle + (turn + math.pi) % (2 * math.pi) - math.pi
          end
        end
      end
      assert.equal(1, gaps)
      assert.close(math.abs(angle), 2 * math.pi, 1e-6)
    end
  end)

  it("follows the ridge of a grid that is not square, past what is not finite", function()
    local z = { { 0, 1, 2 }, { 0, 1, 0 / 0 } }
    local l = layers(plot.contour(with { { { 0, 1, 2 }, { 0, 1 }, z, levels = { 0.5 } } }), "line")[1]
    assert.close({ l.x[1], l.x[2] }, { 0.5, 0.5 })
    assert.equal(3, #l.x)
  end)

  it("draws dynamics f(t, z) as arrows no longer than they are apart, with trajectories", function()
    local function f(_, z) return gq.cat({ z:narrow(2, 2, 1), -z:narrow(2, 1, 1) }, 2) end
    local p = plot.field(with { { f, x = { -1, 1 }, y = { -2, 2 }, points = 5 }, { gq.rand(9, 2), label = "path" } })
    local a = layers(p, "arrows")[1]
    assert.equal(25, #a.x)
    assert.equal("path", layers(p, "line")[1].label)
    local longest = 0
    for i = 1, 25 do
      assert.close(a.dx[i] * a.x[i] + a.dy[i] * a.y[i], 0, 0, 1e-6)
      longest = math.max(longest, math.abs(a.dx[i]) / 2, math.abs(a.dy[i]) / 4)
    end
    assert.close(longest, 1 / 5, 1e-6)
  end)

  it("leaves out what a logarithmic axis has not, and gives one value some room", function()
    local p = plot.line(with { { { 1, 10, 100 }, { 0, 1, 1000 } }, log = "xy" })
    assert.close({ p.x[2], p.y[1], p.y[2] }, { 100, 1, 1000 })
    p = plot.line(with { { { 1, 2 }, { 3, 3 } } })
    assert.truthy(p.y[1] < 3 and p.y[2] > 3)
  end)
end)

describe("files of gq.plot", function()
  local place = helper.folder()

  local x = gq.linspace(0.1, 3, 20)
  local z = gq.rand(20, 20)
  local function all(out)
    local list = {}
    for _, p in ipairs { plot.line(with { { x, x, label = "one's" }, { x, x, x + 1, style = "band" },
      title = "`touch x` $HOME 'it''s' \\ \"q\" {a}_b^c @d & <e>", xlabel = "t", log = "xy" }),
      plot.scatter(with { { x, x, label = "dots" } }), plot.hist(with { { gq.randn(100) } }),
      plot.heat(with { { x, x, z } }), plot.contour(with { z }),
      plot.field(with { { x, x, x, -x } }) } do list[#list + 1] = p end
    return plot.panels { { list[1], list[2], list[3] }, { list[4], list[5] }, { list[6] }, title = "All", out = out }
  end

  it("are svg, with texts as they were given", function()
    all(place .. "/a.svg")
    local text = gq.file_read(place .. "/a.svg")
    assert.truthy(text:find("^<%?xml"))
    assert.truthy(text:find("`touch x` $HOME 'it''s' \\ \"q\" {a}_b^c @d &amp; &lt;e>", 1, true))
    for _, label in ipairs { "one's", "dots", "All", ">t<" } do assert.truthy(text:find(label, 1, true), label) end
    assert.truthy(text:find("</svg>%s*$"))
  end)

  it("are png of the size that was asked for, and pdf", function()
    plot.line { { x, x }, size = { 300, 200 }, out = place .. "/a.png" }
    local bytes = gq.file_read(place .. "/a.png")
    assert.equal("\137PNG\r\n\26\n", bytes:sub(1, 8))
    local w, h = string.unpack(">I4I4", bytes, 17)
    assert.same({ 300, 200 }, { w, h })
  end)

  it("are pdf, too, and all styles together", function()
    all(place .. "/a.PDF")
    assert.equal("%PDF-", gq.file_read(place .. "/a.PDF"):sub(1, 5))
  end)

  it("appear whole or not at all", function()
    helper.raises("nowhere No such file", plot.line, { { x, x }, out = place .. "/nowhere/a.svg" })
    assert.is_nil(io.open(place .. "/a.svg.part"))
    helper.raises("a.gif .svg .png .pdf", plot.line, { { x, x }, out = place .. "/a.gif" })
    helper.raises("out: number", plot.line, { { x, x }, out = 3 })
  end)

  it("say how to install gnuplot where it is not", function()
    local text = run("PATH=/nonexistent", ("gq.plot.line{ {{1, 2}, {3, 4}}, out = '%s/b.svg' }"):format(place))
    assert.truthy(text:find("apt-get install gnuplot-nox", 1, true), text)
    assert.is_nil(io.open(place .. "/b.svg"))
  end)
end)

describe("gq.plot in the terminal", function()
  it("is braille where the locale is UTF-8, without colours in a file", function()
    local text = run("LC_ALL=C.UTF-8", circle)
    assert.truthy(text:find("[\u{2801}-\u{28ff}]"))
    assert.truthy(text:find("circle", 1, true) and text:find("round", 1, true))
    assert.is_nil(text:find("\27", 1, true))
    for line in text:gmatch("[^\n]+") do assert.truthy(utf8.len(line) <= 80, line) end
  end)

  it("is stars elsewhere", function()
    local text = run("LC_ALL=C", circle)
    assert.is_nil(text:find("[\128-\255]"))
    assert.truthy(text:find("***", 1, true))
  end)

  it("draws every style, panels side by side, and heat as shades", function()
    local text = run("LC_ALL=C", [[
      local x = gq.linspace(0, 1, 10)
      local z = x:reshape(1, 10):expand(10, 10)
      local p = gq.plot.heat{ z, out = false }
      local q = gq.plot.line{ {x, x, x + 1, style = "band"}, {x, x, style = "points"}, out = false }
      gq.plot.panels{ {p, q}, {gq.plot.hist{ {x}, out = false }, gq.plot.contour{ z, out = false }} }
      print(p)]])
    assert.truthy(text:find("...", 1, true) and text:find("@@", 1, true) and text:find("*", 1, true))
  end)

  it("leaves a plot alone with out = false", function()
    assert.equal("", run("LC_ALL=C", "gq.plot.line{ {{1, 2}, {3, 4}}, out = false }"))
  end)
end)

describe("gqlua plot", function()
  local place = helper.folder()
  local function file(name, text)
    gq.file_write(place .. "/" .. name, text)
    return place .. "/" .. name
  end
  local function command(arguments)
    return helper.output(("LC_ALL=C %s plot %s"):format(gqlua, arguments))
  end

  it("draws the rows of loggers and of records, a panel for each figure", function()
    local rows = '{"epoch": 0, "test_kl": 3, "test_accuracy": 0.5}\n{"epoch": 1, "train_kl": 2, "test_kl": 1}\n{"ep'
    local text = command(file("a.jsonl", rows))
    for _, label in ipairs { "test kl", "train kl", "accuracy against epoch" } do
      assert.truthy(text:find(label, 1, true), text)
    end
    text = command(file("b.csv", "epoch,train_mse,test_mse\n0,,2\n1,3,1\n") .. " " ..
      file("c.json", '{"config": {}, "epochs": [{"epoch": 0, "test_mse": 5}, {"epoch": 1, "test_mse": 4}]}'))
    assert.truthy(text:find("b train mse", 1, true) and text:find("c test mse", 1, true), text)
    local out = place .. "/p.svg"
    assert.equal("", (command(("%s/a.jsonl --y test_kl --log y --title T --out %s"):format(place, out))))
    assert.truthy(gq.file_read(out):find("<svg", 1, true))
  end)

  it("says what is wrong", function()
    local rows = file("d.jsonl", '{"epoch": 0, "test_kl": 3}')
    for arguments, words in pairs { [""] = "which files", [place .. "/none"] = "/none: cannot open: No such file",
      [rows .. " --y test_k"] = "did you mean test_kl",
      [file("e.jsonl", "")] = "no rows", [file("f.csv", "a,b\n1,2\n")] = "--y names" } do
      local text, status = command(arguments)
      assert.truthy(text:find(words, 1, true), text)
      assert.equal(1, status)
    end
  end)

  it("draws the results of the examples", function()
    for _, script in ipairs { "train_ou", "nested_spheres", "sines" } do
      local out = ("%s/%s.svg"):format(place, script)
      assert.truthy(os.execute(("%s examples/%s.lua --quick --quiet --plot %s"):format(gqlua, script, out)))
      assert.truthy(gq.file_read(out):find("</svg>", 1, true))
    end
  end)
end)

describe("bad input of gq.plot", function()
  local x, z = gq.linspace(0, 1, 5), gq.rand(3, 4)
  local cases = {
    { "line", "table of what to draw number", 3 }, { "line", "nothing to draw", {} },
    { "line", "x has 5 numbers and y 4", { { x, gq.rand(4) } } },
    { "line", "x has 2 columns and y 1: as many, or one of x", { { gq.rand(4, 2), gq.rand(4) } } },
    { "line", "numbers expected string place 2", { { { 1, "a" } } } },
    { "line", "rows of as many numbers 2 at place 1 1 at place 2", { { { { 1, 2 }, { 3 } } } } },
    { "line", "no finite number", { { gq.zeros(0, 2), gq.zeros(0) } } },
    { "line", "style points \"pionts\"", { { x, x, style = "pionts" } } },
    { "line", "unknown option 'lable' 'label'", { { x, x, lable = "a" } } },
    { "line", "unknown option 'titel' 'title'", { { x, x }, titel = "a" } },
    { "line", "log: \"xy\"", { { x, x }, log = true } },
    { "line", "no finite number along y", { { x, x * (0 / 0) } } },
    { "line", "no finite number above zero", { { x, -x - 1 }, log = "y" } },
    { "line", "xrange {low, high}", { { x, x }, xrange = { 2, 1 } } },
    { "line", "item 2 expected", { { x, x }, 7 } },
    { "scatter", "class has 2 labels for 5 points", { { x, x, class = { 1, 2 } } } },
    { "band", "a band is {x, low, high}", { { x } } }, { "band", "has 5 numbers 5 and 4", { { x, x, gq.rand(4) } } },
    { "hist", "bins integer", { { x, bins = 0 } } },
    { "heat", "z is {3, 4} it is {4, 3}", { { { 1, 2, 3 }, { 1, 2, 3, 4 }, z } } },
    { "heat", "z: a tensor", { { x } } }, { "contour", "z: a tensor", { { x, x, x } } },
    { "field", "gives their slopes {225, 2}", { { function(_, y) return y:sum(2) end } } },
    { "panels", "no plots", {} }, { "panels", "rows of plots number", { { 3 } } },
    { "panels", "table of rows", 3 },
  }
  for _, case in ipairs(cases) do
    it("gq.plot." .. case[1] .. ": " .. case[2], function()
      local given = case[3]
      if type(given) == "table" then given.out = false end
      helper.raises(case[2], plot[case[1]], given)
    end)
  end

  it("names colours and sizes that are none", function()
    local where = os.tmpname()
    helper.raises("color #rrggbb red", plot.line, { { x, x, color = "red" }, out = where .. ".svg" })
    helper.raises("size: {width, height}", plot.line, { { x, x }, size = 3, out = where .. ".svg" })
    assert.is_nil(io.open(where .. ".svg"))
    os.remove(where)
    os.remove(where .. ".svg.part")
  end)
end)
