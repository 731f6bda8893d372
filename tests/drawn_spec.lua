-- drawn_spec.lua -- scripts/drawn.lua: what its table must hold.

local helper = require "tests.helper"

local function rows(count)
  local text, code = helper.output(helper.gqlua .. " scripts/drawn.lua --problems " .. count)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local kind, gradient, numbers = line:match("^| (%a+) | (%a+) | ([%d |]+)|$")
    if kind then
      local row = {}
      for x in numbers:gmatch("%d+") do row[#row + 1] = tonumber(x) end
      list[kind .. " " .. gradient] = row
    end
  end
  assert.equal(0, code, text)
  return list
end

local function holds(list, passes)
  for _, gradient in ipairs { "default", "gq" } do
    local n = list["all " .. gradient]
    assert.equal(passes, n[1])
    assert.equal(0, n[8])                                 -- errors
    assert.truthy(n[3] >= 0.99 * n[2] - 1, gradient .. ": wrong, not reported")
    assert.equal(0, n[4])
    assert.below(n[5], 0.05 * n[1] + 1, gradient .. ": false alarms")
    assert.below(n[7], 0.01 * n[1] + 1, gradient .. ": gradients that are not even 7 % off")
  end
  assert.truthy(list["pulses gq"][2] > 0 and list["kinetics default"][2] > 0)
end

describe("drawn problems", function()
  it("few of them", function() holds(rows(10), 180) end)

  it("all of them #slow", function() holds(rows(200), 3600) end)
end)
