-- The texts of gq.help: what can be typed is told of.

local gq = require "gq"
local helper = require "tests.helper"

local function text(what)
  local out = {}
  gq.help(what, function(s) out[#out + 1] = s end)
  return table.concat(out)
end

-- The words that the error of a wrong name lists after `mark`.
local function listed(opts, mark)
  local words, list = {}, helper.message(gq.odeint, function(_, z) return z end, gq.ones(1), { 0, 1 }, opts)
  for word in list:match(mark .. ": (.*)$"):gmatch("[%w_]+") do words[#words + 1] = word end
  assert.truthy(#words > 3)
  return words
end

local function tells(texts, word)
  return texts:find("%f[%w_]" .. word .. "%f[^%w_]") ~= nil
end

describe("gq.help", function()
  local odeint = text("odeint") .. text("methods") .. text("gradient") .. text("guards")

  it("tells of every option of gq.odeint and its tables", function()
    local wrong = { zzz = 1 }
    for _, opts in ipairs { wrong, { adjoint = wrong }, { gq = wrong }, { controller = wrong } } do
      for _, word in ipairs(listed(opts, "known")) do assert.truthy(tells(odeint, word), word) end
    end
  end)

  it("tells of every method, engine and quadrature", function()
    for _, m in ipairs(gq.core.tableaux()) do assert.truthy(tells(text("methods"), m.name), m.name) end
    for _, q in ipairs(gq.core.quadratures()) do assert.truthy(text("gradient"):find(q.name, 1, true), q.name) end
    for _, e in ipairs(gq.core.engines()) do
      assert.truthy(text("gradient"):find("\n  " .. e.name .. "[: ]"), e.name)
      assert.truthy(#e.doc > 0 and #e.kept > 0, e.name)
    end
  end)

  it("says of engines what the README says", function()
    local readme = helper.read("README.md")
    for _, e in ipairs(gq.core.engines()) do
      local row = ("| `%s`%s | %s | %s%s |"):format(e.name, e.default and " (default)" or "", e.kept, e.doc,
        e.source and (" (%s)"):format(e.source) or "")
      assert.equal(e.keeps ~= "nothing", readme:find(row, 1, true) ~= nil, row)
    end
  end)

  it("tells of every field of info", function()
    local f = gq.nn.mlp { sizes = { 2, 4, 2 } }
    for _, opts in ipairs { {}, { gradient = "check" }, { gradient = "auto" }, { gq = { nodes = "step" } },
      { batch = "independent" }, { method = "kvaerno3" }, { adjoint = { impulses = "moments" } } } do
      local z, info = gq.odeint(f, gq.ones(3, 2), { 0, 0.5, 1 }, opts)
      z:sum():backward()
      for key in pairs(info) do assert.truthy(tells(text("info"), key), key) end
      for key in pairs(info.samples or {}) do assert.truthy(tells(text("info"), key), key) end
    end
  end)

  it("keeps lines to 100 characters, and what goes on indented", function()
    for _, what in ipairs { "odeint", "methods", "gradient", "guards", "info", "sdes", "regularise", "cli" } do
      for line in text(what):gmatch("[^\n]+") do assert.truthy(#line <= 100, line) end
    end
    assert.truthy(text("methods"):find("\n    ", 1, true))
  end)

  it("leaves tables and code as they are laid out, and begins a line with each item", function()
    local sdes = text("sdes")
    for _, m in ipairs(gq.core.schemes()) do
      assert.truthy(sdes:find("\n  " .. m.name .. " +[%a.']+" .. (" +[%d.-]+ ?a?"):rep(5) .. " *\n"), m.name)
    end
    assert.truthy(text("event"):find("\n  bounce = {condition = function(t, z) return z[1] end, direction", 1, true))
    assert.truthy(text("plots"):find("\n  gq.plot.field{ {f, x = {-2, 2}, y = {-2, 2}}, {path}", 1, true))
    assert.truthy(text("info"):find("\n  events, parts: ", 1, true))
  end)

  it("begins a line with each function of a subject, and names it", function()
    for subject, names in pairs { operations = "add exp maximum matmul argmax", gradients = "backward jvp checkgrad",
      solving = "odeint interpolate cde steer jet", training = "train cross_entropy mse_loss gaussian_kl progress",
      sweeps = "sweep sweep_results tabulate cli experiment" } do
      for name in names:gmatch("%S+") do
        local found = 0
        for line in text(subject):gmatch("\n(  [^\n]*)") do
          if line:sub(1, 30):find("%f[%w_]" .. name .. "%f[^%w_]") then found = found + 1 end
          assert.truthy(#line <= 100, line)
        end
        assert.truthy(found > 0, subject .. ": " .. name)
      end
    end
  end)

  it("has two examples or more for every name, which run and give what they say", function()
    local folder = helper.folder()
    local said = helper.output(("cd %s && '%s' %s/tests/examples.lua"):format(folder, helper.gqlua, helper.here))
    local names = tonumber(said:match("(%d+) names\n$"))
    assert.truthy(names and names > 300, said)
    assert.falsy(said:find("gq%.[%w_.]+: "), said)
    assert.truthy(text("nn.Linear"):find("\n  gq.nn.Linear(2, 3)(gq.ones(4, 2)).shape[2] --> 3", 1, true))
    for line in text("split_seed"):gmatch("[^\n]+") do assert.truthy(#line <= 100, line) end
  end)

  it("lists the subjects that are no names", function()
    local all = text(nil)
    for _, what in ipairs { "methods", "gradient", "guards", "info", "sdes", "regularise" } do
      assert.truthy(all:find("?" .. what, 1, true), what)
    end
  end)
end)
