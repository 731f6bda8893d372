-- install_spec.lua -- what `make install` leaves: programs in C and C++ compile against it by the line that
-- examples/embed.c gives, and so does the program of runtime/gq.h's manual; the man page, what pkg-config says, what
-- editors are told, the examples; and what `make uninstall` leaves.

local helper = require "tests.helper"

local read = helper.read
local config = os.getenv("GQ_TEST_CONFIG") or "release"

local function run(command)
  local text, status = helper.output("env -u MAKEFLAGS -u MAKELEVEL sh -c " .. helper.quote(command))
  assert.equal(0, status, command .. "\n" .. text)
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
    helper.write(place .. "/manual.c", "#include <stdio.h>\n#include \"gq.h\"\n\nstatic int manual(void) {\n",
      table.concat(code, "\n"), "\n  return GQ_OK;\n}\n\nint main(void) {\n  if (manual() == GQ_OK) return 0;\n",
      "  return fprintf(stderr, \"%s\\n\", gq_message()), 1;\n}\n")
    local z, gk, k = build(compiler, "manual.c"):match("(%S+) (%S+) (%S+)")
    assert.close(tonumber(z), math.exp(-1), 1e-5)
    assert.close(tonumber(gk), -2 * math.exp(-1), 1e-5)
    assert.close(tonumber(k), 0.499, 1e-6)
  end

  test("examples/embed.c in C", function() embed("gcc -std=c11") end)
  cpp("examples/embed.c in C++", function() embed("g++ -x c++ -std=c++11") end)
  test("a program with the static library alone", function()
    local shared = line
    line = line:gsub("pkg%-config %-%-cflags", "pkg-config --static --cflags")
    run(("mv %s/lib/libgq.so %s/lib/aside"):format(place, place))
    local ok, why = pcall(embed, "gcc -std=c11")
    run(("mv %s/lib/aside %s/lib/libgq.so"):format(place, place))
    line = shared
    assert.truthy(ok, why)
  end)

  test("a shared library that knows its version", function()
    local said = run(("readelf -d %s/lib/libgq.so"):format(place))
    assert.truthy(said:find("soname: [libgq.so." .. require("gq").version.gq:match("^%d+%.%d+") .. "]", 1, true), said)
  end)

  test("a pkg-config file", function()
    local config_of = ("PKG_CONFIG_PATH=%s/lib/pkgconfig pkg-config "):format(place)
    assert.equal(require("gq").version.gq .. "\n", run(config_of .. "--modversion gqlua"))
    assert.truthy(run(config_of .. "--libs gqlua"):find("-lgq", 1, true))
  end)

  test("a man page with every option of --help", function()
    local page = read(place .. "/share/man/man1/gqlua.1"):gsub("\\", "")
    for option in run(place .. "/bin/gqlua --help"):gmatch("\n  (%-%-?[%a]+)") do
      assert.truthy(page:find(option:gsub("^%-%-", ""), 1, true), option)
    end
    assert.truthy(read("scripts/gqlua.1"):find('"gqlua ' .. require("gq").version.gq .. '"', 1, true))
  end)

  test("what editors are told: every function, in Lua that compiles", function()
    local gq, text = require "gq", read(place .. "/share/gqlua/library/gq.d.lua")
    assert.truthy(load(text))
    for k, v in pairs(gq) do
      if type(v) == "function" then assert.truthy(text:find("function gq." .. k .. "(", 1, true), k) end
    end
    for k in pairs(gq.core.methods) do
      if k ~= "repeat" then assert.truthy(text:find("function Tensor:" .. k .. "(", 1, true), k) end
    end
    for _, part in ipairs { "function gq.linspace(a, b, n, opts) end", "function gq.odeint(f, z0, t, opts) end",
      "gq.nn.Linear = nil", "function Tensor:matmul(", "---@param opts? gq.train.options\nfunction gq.train(opts) end",
      "---@class gq.odeint.options\n---@field method? any\n", "---@field gq? gq.odeint.gq.options\n" } do
      assert.truthy(text:find(part, 1, true), part)
    end
  end)

  test("examples that are found where the folder has none of that name", function()
    local said = run(("cd %s && bin/gqlua toy_gradient.lua --help"):format(place))
    local path = place .. "/bin/../share/gqlua/examples/toy_gradient.lua"
    assert.truthy(said:find("gqlua: running " .. path, 1, true), said)
    local own <close> = assert(io.open(place .. "/toy_gradient.lua", "w"))
    own:write("print(17)")
    own:flush()
    assert.equal("17\n", run(("cd %s && bin/gqlua toy_gradient.lua"):format(place)))
    run(("rm %s/toy_gradient.lua"):format(place))
    assert.truthy(run(("cd %s && bin/gqlua nosuch.lua || true"):format(place)):find("cannot open nosuch.lua", 1, true))
  end)

  test("the manual's program in C", function() manual("gcc -std=c11") end)
  cpp("the manual's program in C++", function() manual("g++ -x c++ -std=c++11") end)

  test("nothing after make uninstall", function()
    run(("rm -f %s/program %s/*.c %s/z.npy"):format(place, place, place))
    run(("make -s uninstall config=%s PREFIX=%s"):format(config, place))
    assert.equal("", run(("find %s ! -type d"):format(place)))
  end)
end)
