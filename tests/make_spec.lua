-- make_spec.lua -- what a packager gives to make: his flags count, and what the numbers depend on stays.

local helper = require "tests.helper"

local function commands(settings, environment)
  local command = "env -u MAKEFLAGS -u CFLAGS -u CPPFLAGS -u LDFLAGS %s make -n -B objects gqlua gq.so embed CC=gcc " ..
    "config=release %s"
  return (helper.output(command:format(environment or "", settings)))
end

local function each(text, pattern, check)
  local n = 0
  for line in text:gsub("\\\n", " "):gmatch("[^\n]+") do
    if line:find(pattern) then n = n + 1 check(line) end
  end
  assert.is_true(n > 0, pattern)
end

local function last(line, pattern)
  local found
  for word in line:gmatch("%S+") do found = word:match(pattern) or found end
  return found
end

describe("make", function()
  local function said(arguments) return (helper.output("env -u MAKEFLAGS -u MAKELEVEL make " .. arguments)) end

  it("lists its targets", function()
    local text = said("help")
    for _, target in ipairs { "run", "test", "check", "install", "uninstall", "lint", "embed" } do
      assert.truthy(text:find("make " .. target, 1, true) or text:find("; make " .. target, 1, true) or
        text:find(target .. ",", 1, true), target)
    end
  end)

  it("is quiet, unless V=1", function()
    local one = "-B -o all build/release/runtime/base/status.o CC=gcc config=release"
    assert.equal("  CC  build/release/runtime/base/status.o\n", said(one))
    assert.truthy(said(one .. " V=1"):find("^gcc .* %-c runtime/base/status.c"))
  end)
end)

describe("make with a packager's flags", function()
  local text = commands([[CFLAGS="-O3 -std=c99 -ffast-math -ffp-contract=fast" CPPFLAGS=-DPACKAGED ]] ..
    "LDFLAGS=-Wl,-z,relro")

  it("compiles with them, by the C standard and the arithmetic of the sources", function()
    each(text, "^gcc .* %-c ", function(line)
      assert.equal("3", last(line, "^%-O(.)$"))
      assert.equal("gnu11", last(line, "^%-std=(.*)$"))
      assert.equal("no-fast-math", last(line, "^%-f(.*fast%-math)$"))
      assert.equal("off", last(line, "^%-ffp%-contract=(.*)$"))
      assert.is_truthy(line:find("-DPACKAGED", 1, true))
    end)
  end)

  it("links with them", function()
    each(text, "^gcc .* %-o %S*gqlua.new", function(line) assert.is_truthy(line:find("relro", 1, true)) end)
    each(text, "^gcc .* %-o %S*gq.so.new", function(line) assert.is_truthy(line:find("relro", 1, true)) end)
    each(text, "^gcc .*examples/embed.c", function(line) assert.is_truthy(line:find("relro", 1, true)) end)
  end)

  it("takes them from the environment too", function()
    each(commands "", "^gcc .* %-c ", function(line) assert.equal("2", last(line, "^%-O(.)$")) end)
    each(commands("", "CFLAGS=-O1"), "^gcc .* %-c ", function(line) assert.equal("1", last(line, "^%-O(.)$")) end)
  end)
end)
