-- scripts/bench.lua as a user runs it: every problem once, its record, and a check of the counts that it tells.

local gq = require "gq"
local assert = require "luassert"
local helper = require "tests.helper"
local gqlua = helper.gqlua

local function bench(arguments)
  local path = os.tmpname()
  local ok = os.execute(("%s scripts/bench.lua --runs 1 --json %s %s >/dev/null"):format(gqlua, path, arguments))
  local text = helper.read(path)
  os.remove(path)
  assert.truthy(ok)
  return gq.json.decode(text)
end

describe("scripts/bench.lua", function()
  it("tells time, work, memory, error and time outside of every problem", function()
    local records = bench("--work all --widths 4 --steps 2 --gradients gq,direct --error --outside --rtol 1e-4")
    assert.same(12, #records)
    for _, r in ipairs(records) do
      local name = r.work .. " " .. r.gradient
      assert.truthy(r.minimum > 0 and r.minimum <= r.seconds, name)
      assert.truthy(r.gflops > 0 and r.peak_bytes > 0, name)
      assert.truthy(r.outside > 0 and r.outside < 1, name)
      assert.truthy(r.error > 0 and r.error < 0.05, name .. ": error " .. r.error)
      assert.same(r.gradient == "gq", r.nodes > 0, name)
    end
  end)

  it("takes the engines of stochastic equations where there is one", function()
    local r = bench("--work ou --widths 4 --steps 1 --gradients sde_reversible --error --outside")[1]
    assert.same({ "sde_reversible", 1001, 1001 }, { r.gradient, r.nfe, r.nfe_backward })
    assert.truthy(r.seconds > 0 and r.outside < 1)
    assert.is_nil(r.error)                             -- the reference is that of another equation
    local text = helper.output(gqlua .. " scripts/bench.lua --work crossing --gradients sde_direct")
    assert.truthy(text:find("no stochastic equation", 1, true))
  end)

  it("times flows and images", function()
    for _, work in ipairs { "flow", "images" } do
      local r = bench(("--work %s --widths 8 --steps 1 --gradients gq --error"):format(work))[1]
      assert.truthy(r.seconds > 0 and r.gflops > 0 and r.error < 0.01, ("%s: error %s"):format(work, r.error))
    end
  end)

  it("counts 2 operations a weight, row and unit", function()
    -- One step, so that median rate times median seconds is its count.
    local r = bench("--work crossing --widths 10 --steps 1 --gradients gq")[1]
    local weights, rows = 4 * 10 + 10 * 10 + 10 * 4, 2
    local units = r.nfe + 2 * r.nfe_backward + r.nodes
    assert.close(2 * weights * rows * units, r.gflops * r.seconds * 1e9, 1e-9)
  end)

  it("takes the adjoint's trajectory and impulses", function()
    local restart = bench("--work sines10 --widths 4 --steps 1 --gradients gq --trajectory dense --impulses restart")[1]
    local moments = bench("--work sines10 --widths 4 --steps 1 --gradients gq --trajectory dense --impulses moments")[1]
    assert.truthy(moments.nfe_backward < restart.nfe_backward)
  end)
end)
