-- scripts/errors.lua as a user runs it: every problem and engine once, its record, and what its summary says.

local gq = require "gq"
local assert = require "luassert"
local helper = require "tests.helper"

local function errors(arguments)
  local path = os.tmpname()
  local text, code = helper.output(("%s scripts/errors.lua --json %s %s"):format(helper.gqlua, path, arguments))
  local json = helper.read(path)
  os.remove(path)
  return code == 0, text, code == 0 and gq.json.decode(json)
end

describe("scripts/errors.lua", function()
  it("tells error and evaluations of every engine on every problem", function()
    local ok, text, record = errors("--quick")
    assert.truthy(ok, text)
    local seen, problems, engines = {}, {}, {}
    for _, r in ipairs(record.rows) do
      local name = ("%s %s %g"):format(r.problem, r.engine, r.tol)
      problems[r.problem], engines[r.engine], seen[name] = true, true, r
      if not r.failed then
        assert.truthy(r.error == r.error and r.forward > 0 and r.work >= r.forward and r.ms > 0, name)
        assert.equal(r.engine ~= "direct", r.backward > 0, name)
      end
    end
    local n, m = 0, 0
    for _ in pairs(problems) do n = n + 1 end
    for _ in pairs(engines) do m = m + 1 end
    assert.same({ 11, 14 }, { n, m })
    -- closed forms: what is solved to 1e-6 is near them, and nearer than at 1e-3
    for _, problem in ipairs { "G1", "G2", "G3", "G4", "G5", "G6", "G8" } do
      for _, engine in ipairs { "gq", "gq-step", "gq-step-dense", "check", "adjoint", "seminorm", "kronrod", "gqc",
        "direct" } do
        local fine, coarse = seen[problem .. " " .. engine .. " 1e-06"], seen[problem .. " " .. engine .. " 0.001"]
        assert.below(fine.error, 1e-3, problem .. " " .. engine)
        assert.below(fine.error, math.max(coarse.error, 1e-6), problem .. " " .. engine)
      end
    end
    -- and so are the two that have a tight solve for reference
    for _, problem in ipairs { "vdp", "net" } do
      for _, engine in ipairs { "gq-step-dense", "kronrod", "direct" } do
        assert.below(seen[problem .. " " .. engine .. " 1e-06"].error, 1e-4, problem .. " " .. engine)
      end
    end
  end)

  it("compares gq, nodes in every step, with the adjoint", function()
    local ok, text, record = errors("--quick --problems G1,G8 --engines gq-step,adjoint --tols 1e-4,1e-7")
    assert.truthy(ok, text)
    local s = record.summary.step
    assert.equal(4, s.lines)
    local listed = {}
    for _, e in ipairs(s.exceptions) do listed[e.problem .. e.tol] = e end
    local fewer, close = 0, 0
    for i = 1, #record.rows, 4 do
      for j = 0, 1 do
        local g, a = record.rows[i + j], record.rows[i + j + 2]
        assert.same({ "gq-step", "adjoint", a.tol }, { g.engine, a.engine, g.tol })
        local below = g.error <= 1.05 * a.error or (g.error < 1e-12 and a.error < 1e-12)
        fewer, close = fewer + (g.work < a.work and 1 or 0), close + (below and 1 or 0)
        local e = listed[g.problem .. g.tol]
        assert.equal(not below or g.work >= a.work, e ~= nil)
        if e then assert.close(e.work, g.work / a.work, 1e-12) end
      end
    end
    assert.same({ fewer, close }, { s.less_work, s.error_at_or_below })
    local ratio = record.summary.equal_error["gq-step"].G8
    assert.truthy(ratio > 0.5 and ratio < 2)
    assert.truthy(text:find("gq-step against adjoint in 4 lines", 1, true), text)
  end)

  it("says what there is", function()
    for _, bad in ipairs { "--problems G10", "--engines gauss", "--tols 2", "--tols x" } do
      local ok, text = errors(bad)
      assert.is_false(ok)
      assert.truthy(text:find("there are: G1", 1, true) or text:find("there are: gq, gq-paper", 1, true)
        or text:find("tols", 1, true), text)
    end
    local ok, text = errors("--quick --quiet --problems G7 --engines gqc")
    assert.truthy(ok)
    assert.equal("", text)
  end)
end)
