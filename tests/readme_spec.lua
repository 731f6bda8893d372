-- README.md: every block of Lua runs as it stands, and prints what its comments --> say.

local gq = require "gq"
local helper = require "tests.helper"
local folder = helper.folder()

local blocks = {}
for code in ("\n" .. helper.read("README.md")):gmatch("\n```lua\n(.-)\n```") do blocks[#blocks + 1] = code end

setup(function()
  os.execute(("ln -s '%s/examples' %s/examples"):format(helper.here, folder))
end)

local function run(code)
  gq.file_write(folder .. "/block.lua", code .. "\n")
  return helper.output(("cd %s && '%s' block.lua"):format(folder, helper.gqlua))
end

describe("README.md", function()
  it("has blocks of Lua", function() assert.truthy(#blocks >= 9) end)

  for i, code in ipairs(blocks) do
    it(("block %d runs: %s"):format(i, code:match("\n([^\n]*)")), function()
      local out, status = run(code)
      assert.equal(0, status, out)
      local lines = {}
      for line in out:gmatch("[^\n]*") do lines[#lines + 1] = line:gsub("%s+", " ") end
      local n = 0
      for want in code:gmatch("%-%-> ([^\n]*)") do
        n = n + 1
        assert.equal(want, lines[n])
      end
    end)
  end

  it("prints what is said to be printed below the first script", function()
    local said = helper.read("README.md"):match("\nIt prints\n\n(.-)\n\nthe step")
    local printed, n = run(blocks[1]):gmatch("[^\n]+"), 0
    for want in said:gmatch("[^\n]+") do
      local step, loss, counts = want:match("^ +(%d+)\t([%d.]+)\t(.*)$")
      local own, other, others = printed():match("^(%d+)\t([%d.]+)\t(.*)$")
      n = n + 1
      assert.same({ step, counts }, { own, others })
      assert.close(tonumber(other), tonumber(loss), 1e-2)
    end
    assert.equal(3, n)
    assert.is_nil(printed())
  end)

  it("fits noisy observations in at most 25 lines, with a picture and a file", function()
    local code
    for _, block in ipairs(blocks) do code = block:find("noisy.csv", 1, true) and block or code end
    assert.truthy(select(2, code:gsub("\n", "")) + 1 <= 25)
    local p = run(code):match("tensor%({ *([%d.]+), *[%d.]+}")
    assert.close(tonumber(p), 1.4 ^ 2 + 0.15 ^ 2, 0.05)
    assert.truthy(helper.read(folder .. "/fit.svg"):find("fitted", 1, true))
    local fitted = gq.load(folder .. "/spring.safetensors")
    assert.close(fitted.p[2]:item(), 0.3, 0.15)
  end)

  it("tells what every status of a solve means", function()
    local text = helper.read("README.md")
    for _, status in ipairs { "ok", "max_steps", "step_underflow", "non_finite", "no_convergence", "out_of_memory",
      "interrupted" } do
      assert.truthy(text:find("| `" .. status .. "` |", 1, true), status)
    end
  end)

  it("counts drawn problems as ?guards does", function()
    local sums, text = { 0, 0, 0, 0, 0 }, helper.read("README.md")
    for row in text:match("\n## Drawn problems\n(.-)\n\nSix other"):gmatch("\n| all (|[^\n]*)") do
      local cells = {}
      for n in row:gmatch("| (%d+)") do cells[#cells + 1] = tonumber(n) end
      for i, k in ipairs { 1, 2, 3, 5, 7 } do sums[i] = sums[i] + cells[k] end
    end
    local passes, wrong, reported, alarms, under = table.unpack(sums)
    local said = {}
    for n in gq.docs.guards:match("drawn%s+problems: (.-) off"):gmatch("%d+") do said[#said + 1] = tonumber(n) end
    assert.same({ wrong, passes - wrong, alarms, 7 }, said)
    assert.equal(wrong, reported)
    assert.equal(1, under)
  end)

  it("names files to read that are there", function()
    local n = 0
    for path in helper.read("README.md"):match("\n## Reading the code\n(.-)\n## "):gmatch("`(%l+/[%w_/]+%.%l+)`") do
      local there = io.open(path) or io.open("runtime/" .. path)
      assert.truthy(there, path)
      there:close()
      n = n + 1
    end
    assert.truthy(n > 30)
  end)

  it("shows pictures that are there", function()
    local text = helper.read("README.md")
    for path in text:gmatch("!%[[^%]]*%]%(([^)]*)%)") do
      assert.truthy(helper.read(path):find("<svg", 1, true), path)
    end
  end)
end)
