-- arguments_spec.lua -- wrong arguments of every kind to every function and method: each call raises an
-- error that says something, or returns; none crashes, hangs or takes the process along. The calls are
-- made by arguments.lua in a process of its own, since a crash must be a failure with a name.

local helper = require "tests.helper"

local read, quote = helper.read, helper.quote

-- Run a mode in a new scratch folder; nothing it does may end it, and it has nothing to complain about.
local function run(mode)
  local folder = helper.folder()
  -- A sanitizer that aborts on a size it finds silly would hide how the runtime takes the refusal.
  local command = "cd %s && ASAN_OPTIONS=$ASAN_OPTIONS:allocator_may_return_null=1 " ..
    "timeout -k 5 1200 %s %s %s >out 2>err </dev/null"
  local script = quote(helper.here .. "/tests/arguments.lua")
  local ok, how, code = os.execute(command:format(folder, quote(helper.gqlua), script, mode))
  local last, report, err = read(folder .. "/last"), read(folder .. "/report"), read(folder .. "/err")
  os.execute("rm -rf " .. quote(folder))
  if not ok then
    local what = code == 124 and "did not end" or ("ended by %s %d"):format(how, code)
    error(("%s %s; last call: %s\n%s"):format(mode, what, last:match("[^\n]*"), err:sub(-4000)), 0)
  end
  local complaints = report:gsub("[^\n]*\n$", "")
  assert.equal("", complaints:sub(1, 4000))
  local functions, calls, raised = report:match("(%d+) functions, (%d+) calls, (%d+) raised\n$")
  return tonumber(functions), tonumber(calls), tonumber(raised)
end

describe("wrong arguments", function()
  it("to every function raise an error or return", function()
    local functions, calls, raised = run("matrix")
    assert.truthy(functions > 100 and calls > 1000 * functions and raised > calls / 2)
  end)

  it("and options in otherwise right calls raise an error or return", function()
    local _, calls, raised = run("templates")
    assert.truthy(calls > 2000 and raised > calls / 4)
  end)

  it("while a function is being traced raise an error or return", function()
    local functions, calls = run("traced")
    assert.truthy(calls > 50 * functions)
  end)

  it("at random, results feeding later calls, never crash", function()
    local _, calls = run("fuzz 1 10000")
    assert.truthy(calls > 9000)
  end)
end)

describe("wrong arguments #slow", function()
  for seed = 2, 9 do
    it("at random, seed " .. seed, function()
      local _, calls = run(("fuzz %d 200000"):format(seed))
      assert.truthy(calls > 150000)
    end)
  end
end)
