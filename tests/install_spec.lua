-- install_spec.lua -- what `make install` leaves: programs in C and C++ compile against it by the line that
-- examples/embed.c gives, and so does the program of runtime/gq.h's manual.

local config = os.getenv("GQ_TEST_CONFIG") or "release"

local function run(command)
  local pipe = assert(io.popen(("env -u MAKEFLAGS -u MAKELEVEL sh -c '%s' 2>&1; echo status $?"):format(
    command:gsub("'", [['\\'']]))))
  local text = pipe:read("a")
  pipe:close()
  local out, status = text:match("^(.*)status (%d+)\n$")
  assert.equal("0", status, command .. "\n" .. text)
  return out
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  return text
end

-- A sanitizer's library cannot be linked without it, and has no gq.so to install.
local test = config == "asan" and pending or it
local cpp = os.execute("g++ --version >/dev/null 2>&1") and test or pending

describe("make install", function()
  local place, line

  lazy_setup(function()
    if config == "asan" then return end
    place = run("mktemp -d"):match("%S+")
    run(("make -o all install config=%s PREFIX=%s"):format(config, place))
    line = read("examples/embed.c"):match("\n%*%*   cc (embed%.c .-) %-o embed\n"):gsub("\\\n%*%*", "")
  end)

  lazy_teardown(function()
    if place then os.execute("rm -r " .. place) end
  end)

  -- Compile the file by that line with `compiler`, and run it.
  local function build(compiler, file)
    return run(("cd %s && PREFIX=%s && %s -Wall -Werror %s -o program && ./program"):format(place, place, compiler,
      (line:gsub("^embed%.c", file))))
  end

  local function embed(compiler)
    run(("cp examples/embed.c %s"):format(place))
    local out = build(compiler, "embed.c")
    assert.close(tonumber(out:match("C%s+dL/dk (%S+),")), -12 * math.exp(-1.4), 1e-6)
    assert.close(tonumber(out:match("Lua%s+dL/dk (%S+)")), -12 * math.exp(-1.4), 1e-6)
  end

  local function manual(compiler)
    local code = {}
    for text in read("runtime/gq.h"):gmatch("\n%*%*     ([^\n]*)") do code[#code + 1] = "  " .. text end
    assert.is_true(#code > 40)
    local file = assert(io.open(place .. "/manual.c", "w"))
    file:write("#include <stdio.h>\n#include \"gq.h\"\n\nstatic int manual(void) {\n", table.concat(code, "\n"),
      "\n  return GQ_OK;\n}\n\nint main(void) {\n  if (manual() == GQ_OK) return 0;\n",
      "  return fprintf(stderr, \"%s\\n\", gq_message()), 1;\n}\n")
    file:close()
    local z, gk, k = build(compiler, "manual.c"):match("(%S+) (%S+) (%S+)")
    assert.close(tonumber(z), math.exp(-1), 1e-5)
    assert.close(tonumber(gk), -2 * math.exp(-1), 1e-5)
    assert.close(tonumber(k), 0.499, 1e-6)
  end

  test("examples/embed.c in C", function() embed("gcc -std=c11") end)
  cpp("examples/embed.c in C++", function() embed("g++ -x c++ -std=c++11") end)
  test("the manual's program in C", function() manual("gcc -std=c11") end)
  cpp("the manual's program in C++", function() manual("g++ -x c++ -std=c++11") end)
end)
