-- gqlua_spec.lua -- the command: options, exit codes, what scripts see, text-only loading, the REPL
-- driven both as a table of primitives and through a pseudo-terminal, and Ctrl-C.

local helper = require "tests.helper"

local read, quote = helper.read, helper.quote
local gqlua = helper.gqlua
local folder = helper.folder()

local function write(name, text) return helper.write(folder .. "/" .. name, text) end

-- Run a shell command in the scratch folder: stdout, stderr, exit code (128 + n for signal n).
local function shell(command)
  local ok, how, code = os.execute(("cd %s && { %s\n} >out 2>err </dev/null"):format(quote(folder), command))
  if how == "signal" then code = code + 128 end
  return read(folder .. "/out"), read(folder .. "/err"), ok and 0 or code
end

local function run(arguments) return shell(quote(gqlua) .. " " .. arguments) end

describe("options of gqlua", function()
  it("runs code, in order, with gq as a global", function()
    assert.equal("table\t3\n", (run("-e 'x = 1 + 1' -e'print(type(gq), x + 1)'")))
    assert.equal("nil\tnil\n", (run("-e 'x = nil' " .. write("noglobal.lua", "print(gq, x)"))))
  end)

  it("prints versions with -v and does not start the REPL", function()
    local out, _, code = run("-v")
    assert.equal(0, code)
    for _, word in ipairs { "gqlua %d", "Lua 5%.4", "device", "kernels", "BLAS", "threads" } do
      assert.truthy(out:find(word), word)
    end
  end)

  it("prints versions with --version, too", function()
    local out, _, code = run("--version")
    assert.equal(0, code)
    assert.truthy(out:find("^gqlua %d"))
  end)

  it("shows its usage on stdout for --help and -h", function()
    for _, option in ipairs { "--help", "-h" } do
      local out, err, code = run(option)
      assert.equal(0, code)
      assert.equal("", err)
      assert.truthy(out:find("usage: gqlua", 1, true) and out:find("LUA_INIT", 1, true))
    end
  end)

  it("refuses what it does not know, with the usage on stderr", function()
    for _, option in ipairs { "--bogus", "-x", "-ix", "--thread=2", "--seed", "--threads=", "-e", "-l", "---" } do
      local out, err, code = run(option)
      assert.equal(1, code, option)
      assert.equal("", out, option)
      assert.truthy(err:find("usage: gqlua", 1, true), option)
    end
  end)

  it("refuses values it cannot use", function()
    for _, option in ipairs { "--threads 0", "--threads x", "--threads 1.5", "--dtype float16", "--seed 1.5",
                              "--seed x", "--device tpu", "--device cuda" } do
      local _, err, code = shell("GQ_CUDA=/nowhere/gq_cuda.so " .. quote(gqlua) .. " " .. option .. " -e 'print(1)'")
      assert.equal(1, code, option)
      assert.truthy(err:find("gqlua: " .. option .. ": ", 1, true), err)
      assert.truthy(#err > #option + 20 and not err:find("traceback"), err)
    end
  end)

  it("sets defaults by long options, with = and with a space", function()
    assert.equal("float64\n", (run("--dtype=float64 -e 'print(gq.zeros(1).dtype)'")))
    assert.equal("float64\n", (run("--dtype float64 -e 'print(gq.zeros(1).dtype)'")))
    assert.truthy(run("--threads 1 -v"):find("threads +1\n"))
    assert.equal("cpu\n", (run("--device cpu -e 'print(gq.zeros(1).device)'")))
    assert.equal("mirror\tcpu\n", (shell("GQ_MIRROR=1 " .. quote(gqlua) ..
      " --device mirror -e 'print(gq.zeros(1).device, gq.zeros(1, {device = [[cpu]]}).device)'")))
    local a, b, c = run("--seed 7 -e 'print(gq.randn(3))'"), run("--seed=7 -e 'print(gq.randn(3))'"),
      run("--seed 8 -e 'print(gq.randn(3))'")
    assert.equal(a, b)
    assert.not_equal(a, c)
  end)

  it("requires modules with -l", function()
    write("mymodule.lua", "return { x = 5 }")
    assert.equal("5 5\n", (run("-l mymodule -l m=mymodule -e 'print(mymodule.x, m.x)'"):gsub("\t", " ")))
    local _, err, code = run("-l nothinghere -e 'print(1)'")
    assert.equal(1, code)
    assert.truthy(err:find("nothinghere", 1, true))
  end)

  it("stops reading options at -- and at the script", function()
    write("show.lua", "print(arg[0], ...)")
    assert.equal("show.lua -v --help\n", (run("-- show.lua -v --help"):gsub("\t", " ")))
    assert.equal("show.lua -i\n", (run("show.lua -i"):gsub("\t", " ")))
  end)

  it("ignores LUA_INIT", function()
    assert.equal("1\n", (shell("LUA_INIT='print(99)' LUA_INIT_5_4='print(98)' " .. quote(gqlua) .. " -e 'print(1)'")))
  end)
end)

describe("scripts", function()
  it("see arg as in stock Lua, and their arguments", function()
    local script = "for i = -3, 4 do io.write(tostring(arg[i]), ' ') end print(select('#', ...), ...)"
    write("args.lua", script)
    local ours = run("-e '' args.lua a 'b c'")
    local theirs = shell("lua5.4 -e '' args.lua a 'b c'")
    assert.equal((theirs:gsub("lua5%.4", "X")), (ours:gsub("%S*gqlua", "X")))
  end)

  it("come from standard input without a script or with -", function()
    assert.equal("nil 3\n", (shell("echo 'print(gq, 1 + 2)' | " .. quote(gqlua)):gsub("\t", " ")))
    assert.equal("a - b\n", (shell("echo 'print(..., arg[0], arg[2])' | " .. quote(gqlua) .. " - a b")
      :gsub("\t", " ")))
  end)

  it("may call their own values type, table, next or io, in which gq finds nothing of its own", function()
    write("names.lua", [[
      local gq = require "gq"
      for _, name in ipairs { "type", "table", "next", "io", "math", "select", "setmetatable", "string", "pairs" } do
        local kept = _G[name]
        _G[name] = gq.ones(3)
        local net = gq.nn.mlp { sizes = { 2, 4, 2 }, activation = "tanh" }
        local z = gq.odeint(net, gq.ones(2, 2), { 0, 1 }, { gradient = "gq", regularise = { kinetic = true } })
        z[2]:sum():backward()
        gq.save("names.csv", z[2]:detach())
        local shape = gq.load "names.csv".shape
        _G[name] = kept
        print(name, shape[1])
      end
      print = function() end
      gq.help "odeint"]])
    local out, err, code = run("names.lua")
    assert.equal(0, code, err)
    assert.equal(9, select(2, out:gsub("\t2\n", "")))
    assert.falsy(out:find("odeint", 1, true))
    out = shell("printf 'table = 3\\nipairs = nil\\nio = 1\\n{1}\\nprint(4)\\n' | " .. quote(gqlua) .. " -i")
    assert.truthy(out:find("{1}\n> 4\n", 1, true), out)
  end)

  it("may do so before gq is loaded, and take require away", function()
    write("before.lua", [[
      local names = "type next pairs ipairs table string math setmetatable tostring pcall select error io os"
      local say = print
      for name in names:gmatch "%a+" do _G[name] = "adam" end
      local gq = require "gq"
      say(gq.nn.mlp { sizes = { 2, 4, 2 }, activation = "tanh" }(gq.zeros(3, 2)).shape[1])]])
    assert.equal("3\n", (run("before.lua")))
    write("norequire.lua", "require = nil")
    local out, err, code = shell("echo 'print(gq.ones(2):sum():item())' | " .. quote(gqlua) .. " -i norequire.lua")
    assert.equal(0, code, err)
    assert.truthy(out:find("2.0", 1, true), out)
    out, err, code = run("--seed 3 -e 'require = 1' -e 'print(type(gq))' -l strings=string norequire.lua")
    assert.equal("table\n", out, err)
    assert.equal(0, code)
  end)

  it("end with a traceback and 1 on an uncaught error", function()
    write("boom.lua", "local function inner() error('boom') end\ninner()")
    local out, err, code = run("boom.lua")
    assert.equal(1, code)
    assert.equal("", out)
    assert.truthy(err:find("gqlua: boom.lua:1: boom", 1, true))
    assert.truthy(err:find("stack traceback", 1, true) and err:find("boom.lua:2", 1, true))
    local own = "error(setmetatable({}, {__tostring = function() return 'own' end}))"
    for _, what in ipairs { "error()", "error({})", own, "error(nil)", "syntax error here", "string.rep('x', -1)()",
                            "local x <close> = 3" } do
      local _, message, status = run("-e " .. quote(what))
      assert.equal(1, status, what)
      assert.truthy(#message > 5, what)
    end
    assert.truthy(select(2, run("-e " .. quote(own))):find("own", 1, true))
    assert.equal(1, select(3, run("missing.lua")))
  end)

  it("leave by os.exit with its code", function()
    assert.equal(3, select(3, run("-e 'os.exit(3)'")))
    assert.equal(0, select(3, run("-e 'os.exit(true, true)' -e 'error(1)'")))
  end)

  it("find the module of the binary, never one on disk", function()
    write("gq.lua", "error('the wrong gq')")
    os.execute("mkdir -p " .. quote(folder .. "/gq"))
    write("gq.so", "not a shared object")
    write("uses.lua", "local gq = require 'gq'; assert(gq == require 'gq'); print(gq.zeros(2):numel())")
    assert.equal("2\n", (shell("LUA_PATH='./?.lua' LUA_CPATH='./?.so' " .. quote(gqlua) .. " uses.lua")))
    os.remove(folder .. "/gq.lua")
    os.remove(folder .. "/gq.so")
  end)
end)

describe("binary chunks", function()
  setup(function()
    write("chunk.luac", string.dump(load("return 1")))
    write("onpath.lua", string.dump(load("return 1")))
  end)

  -- Each line is one door; its chunk must be refused with the same words.
  local doors = {
    ["load of a string"] = "load(string.dump(function() end))",
    ["load with mode b"] = "load(string.dump(function() end), 'x', 'b')",
    ["load with mode bt"] = "load(string.dump(function() end), 'x', 'bt', {})",
    ["load of a reader"] = "(function() local s, i = string.dump(function() end), 0 " ..
      "return load(function() i = i + 1 return i <= #s and s:sub(i, i) or nil end, 'x', 'b') end)()",
    ["loadfile"] = "loadfile('chunk.luac')",
    ["loadfile with mode b"] = "loadfile('chunk.luac', 'b')",
    ["dofile"] = "pcall(dofile, 'chunk.luac')",
    ["require"] = "pcall(require, 'onpath')",
    ["require through package.searchers"] = "pcall(package.searchers[2], 'onpath')",
  }
  for name, expression in pairs(doors) do
    it("are refused by " .. name, function()
      local out = run("-e " .. quote("print(select(-1, " .. expression .. "))"))
      assert.truthy(out:find("binary chunks are refused", 1, true), out)
    end)
  end

  it("are refused as scripts, from a file and from standard input", function()
    for _, command in ipairs { quote(gqlua) .. " chunk.luac", quote(gqlua) .. " - < chunk.luac",
                               quote(gqlua) .. " < chunk.luac" } do
      local _, err, code = shell(command)
      assert.equal(1, code)
      assert.truthy(err:find("binary chunks are refused", 1, true), err)
    end
  end)

  it("do not make load, loadfile and dofile other than stock for text", function()
    local same = [[
      print(load("return ...", "n", "t", {})(4), load("x =", "=n"))
      print(load("return x", "n", "t", { x = 5 })(), load(function() return nil end) ~= nil)
      print(pcall(load)) print(pcall(load, {})) print(pcall(loadfile, {}))
      print(loadfile("nosuchfile")) print(pcall(dofile, "nosuchfile"))
      local f = io.open("three.lua", "w") f:write("#!shebang\nreturn 1, x, 3") f:close()
      print(dofile("three.lua")) print(loadfile("three.lua", "t", { x = 2 })())
      print(coroutine.wrap(function() return dofile("yields.lua") end)())
      print(pcall(require, "nosuchmodule"))
    ]]
    write("yields.lua", "return coroutine.yield(7)")
    write("same.lua", same)
    local ours, theirs = run("same.lua"), shell("lua5.4 same.lua")
    assert.equal(theirs, ours)
  end)
end)

-- The REPL as a table of primitives: what it writes for the lines it is given. A line "^C" is Ctrl-C.
local function play(lines, more)
  local gq = require "gq"
  local chunk = assert(loadfile("lua/gq/repl.lua"))
  local repl, out, prompts = chunk(gq), {}, {}
  local i = 0
  local term = {
    read = function(prompt)
      i = i + 1
      prompts[#prompts + 1] = prompt
      if lines[i] == "^C" then return nil, "interrupt" end
      if lines[i] == nil then return nil, "end" end
      return lines[i]
    end,
    write = function(s) out[#out + 1] = s end,
  }
  for k, v in pairs(more or {}) do term[k] = v end
  repl.run(term)
  return table.concat(out, "", 2), table.concat(prompts), i, repl
end

describe("the REPL", function()
  it("prints expressions, with and without =", function()
    assert.equal("3\n4\n", (play { "1 + 2", "= 2 + 2", "local z = 1; z = 2" }))
    assert.equal("nil\n1\tx\n", (play { "nil", "1, 'x'" }))
    assert.equal("", (play { "", "   ", "-- a comment", "replx = 5", "replx = nil" }))
    assert.equal('{1, 2, {a = "b"}}\n', (play { "{1, 2, {a = 'b'}}" }))
  end)

  it("prints tensors", function()
    local gq = require "gq"
    _G.replx = gq.ones(2, 2)
    assert.equal(tostring(_G.replx) .. "\n", (play { "replx" }))
    _G.replx = nil
  end)

  it("asks for more only where more can help", function()
    local out, prompts = play { "for i = 1, 2 do", "x = i", "end", "(1 +", "2)", "x y", "[[a", "b]]", "1 +", "1" }
    assert.equal("> ... ... > ... > > ... > ... > ", prompts)
    assert.truthy(out:find("^3\nstdin:1: syntax error near 'y'\na\nb\n2\n$"), out)
    _G.x = nil
  end)

  it("discards what was typed on Ctrl-C and goes on", function()
    local out, prompts = play { "^C", "for i = 1, 2 do", "^C", "1" }
    assert.equal("1\n", out)
    assert.equal("> > ... > > ", prompts)
  end)

  it("says what is wrong at the end of input", function()
    assert.truthy(play({ "for i = 1, 2 do" }):find("<eof>", 1, true))
  end)

  it("survives every error", function()
    local out = play {
      "error('boom')", "error()", "error({})", "nosuch.field", "string.rep('x', 1 << 40)",
      "error(setmetatable({}, {__tostring = error}))", "setmetatable({}, {__tostring = function() return 1 end})",
      "local function f() return f() + 1 end f()", "1" }
    assert.truthy(out:find("stdin:1: boom", 1, true))
    assert.truthy(out:find("1\n$"))
    assert.falsy(out:find("repl.lua", 1, true), out)
  end)

  it("leaves at exit, and at the end of input", function()
    for _, word in ipairs { "exit", "quit", "exit()", " exit " } do
      local _, _, read_lines = play { word, "1" }
      assert.equal(1, read_lines)
    end
  end)

  it("shows the time of slow commands", function()
    local slow = "do local gq = require 'gq' local t = gq.clock() while gq.clock() < t + 0.12 do end end"
    assert.truthy(play({ slow }):find("^%(0%.%d%d s%)\n$"))
  end)

  it("explains names", function()
    local out = play { "?odeint", "?nn.Linear", "?nosuchname", "?", "?odein", "?gq.nn" }
    assert.truthy(#out > 200 and out:find("odeint", 1, true) and out:find("nothing is called nosuchname", 1, true))
  end)

  it("says once that locals do not last", function()
    local out = play { "local a = 1", "local b = 2", "local c = 3; print()" }
    local n = select(2, out:gsub("a local lasts", ""))
    assert.equal(1, n)
  end)

  it("keeps the last results", function()
    assert.equal("3\n6\n3\n{1, 6}\n", (play { "1 + 2", "_ * 2", "_2", "{1, _2}", "_ = nil" }))
  end)

  it("remembers a block as one entry, where that means the same", function()
    local remembered = {}
    local function remember(line) remembered[#remembered + 1] = line end
    local off = function() return false end
    local term = { remember = remember, private = off }
    play({ "for i = 1, 2 do", "  rx = i", "end", "rx = [[a", "b]]", "?ones", "x y" }, term)
    assert.same({ "for i = 1, 2 do rx = i end", "rx = [[a\nb]]", "?ones", "x y" }, remembered)
    _G.rx = nil
  end)

  it("prints to the width, cuts what is long, and tells what modules hold", function()
    local gq = require "gq"
    local out = play { "(function() local t = {} for i = 1, 100 do t[i] = i end return t end)()", "{('x'):rep(5000)}" }
    assert.truthy(out:find("20,\n  ... 100 in all }", 1, true), out)
    for line in out:gmatch("[^\n]+") do assert.truthy(#line < 2100) end
    assert.equal('{x = tensor float32 {200, 2}, y = tensor({1, 1}, float32)}\n', (play {
      "{x = require'gq'.ones(200, 2), y = require'gq'.ones(2)}" }))
    _G.replx, _G.gq = gq.nn.mlp { sizes = { 2, 3, 1 } }, gq
    out = play { "replx", "gq.nn", "gq" }
    assert.truthy(out:find("Linear(3, 1)\n)  13 parameters", 1, true), out)
    assert.truthy(out:find("gq.nn has", 1, true) and out:find("Subjects", 1, true), out)
    _G.replx, _G.gq = nil, nil
  end)

  it("knows %time, %who and !command", function()
    local out = play { "%time 1 + 1", "replw = 3", "%who", "!exit 3", "%nothing", "%time x y" }
    assert.truthy(out:find("^2\n%([%d.e-]+ s%)\n"), out)
    assert.truthy(out:find("\nreplw: number 3\n", 1, true) and out:find("\n(exit 3)\n", 1, true), out)
    assert.truthy(out:find("%time CODE", 1, true) and out:find("syntax error near 'y'", 1, true), out)
    _G.replw = nil
  end)

  it("prints no value before a semicolon, and takes lines pasted with their prompts", function()
    assert.equal("2\n", (play { "1 + 1;", "_" }))
    assert.equal("3\n", (play { "> for i = 1, 2 do", "... replw = i", "... end", "> replw + 1" }))
    _G.replw = nil
  end)

  it("shows sources, times of many runs, the last commands, and what functions held that an error left", function()
    local out = play { "function replf(a)", "  local b = a + 1", "  error('ouch')", "end", "replf(3)", "%locals",
      "??replf", "replf??", "??gq.split_seed", "??print", "??nosuch", "%history 1", "%timeit replf", "%timeit x y" }
    assert.truthy(out:find("stdin:3: ouch\nstack traceback:\n\t[C]: in function 'error'\n\tstdin:3: in function "
      .. "'replf'\nstdin:3\n  a = 3\n  b = 4\nfunction replf(a)\n  local b", 1, true), out)
    assert.equal(2, select(2, out:gsub("\nfunction replf%(a%)\n", "")), out)
    for _, part in ipairs { "-- lua/gq/data.lua:", "function gq.split_seed(seed, ...)", "print is written in C",
      "nothing is called nosuch", " a run, at best ", "near 'y'", "   2  replf(3)\n" } do
      assert.truthy(out:find(part, 1, true), part .. "\n" .. out)
    end
    _G.replf = nil
  end)

  it("says which values that an error left cannot be shown", function()
    local out = play { "function replf(a, b) error('ouch') end",
      "replf(setmetatable({}, { __index = function() error('no field', 2) end }), 3)", "%locals", "1 + 1" }
    assert.truthy(out:find("\n  a = %(cannot be shown: [^\n]*no [^\n]*%)\n  b = 3\n2\n"), out)
    _G.replf = nil
  end)

  it("edits the last command, or a file, and runs it", function()
    write("editor", "#!/bin/sh\nsed -i 's/one/two/' \"$1\"\n")
    write("edited.lua", "print 'file one'\n")
    local command = "chmod +x editor; printf 'print(\"one\")\\n%%%%edit\\n%%%%edit edited.lua\\n%%%%edit no.lua\\n'"
      .. " | EDITOR=%s/editor HOME=%s " .. quote(gqlua) .. " -i 2>&1"
    local out = shell(command:format(folder, folder))
    assert.truthy(out:find("one\n> two\n> file two\n> ", 1, true), out)
    assert.truthy(shell(command:format("/nowhere", folder)):find("EDITOR names the program", 1, true))
  end)

  it("explains values, methods, options and subjects", function()
    _G.replx = require("gq").ones(2, 3)
    for word, part in pairs { ["?replx"] = "a tensor float32 of shape {2, 3}", ["replx?"] = "of shape {2, 3}",
      ["?dopri5"] = "order 5", ["?seminorm"] = "gradient = \"seminorm\"", ["?shape"] = "x:numel()",
      ["?event"] = "t_hit",
      ["?indexing"] = "x[{", ["?train"] = "gq.train", ["?modules"] = "Module:extend", ["?step_size"] = "odeint",
      ["?tensors"] = "gq.zeros", ["?prompt"] = "%time", ["?plots"] = "gq.plot.field", ["?gq.odeint()"] = "odeint(f" } do
      assert.truthy(play({ word }):find(part, 1, true), word)
    end
    _G.replx = nil
  end)

  it("completes by what a value is", function()
    local gq = require "gq"
    local _, _, _, repl = play {}
    _G.gq, _G.replx, _G.repls = gq, gq.ones(2), "text"
    local function shows(line, ...)
      local insert, list = repl.complete(line)
      for _, word in ipairs { ... } do
        local told = (" %s "):format((list or ""):gsub("%s+", " "))
        assert.truthy(told:find(" " .. word .. " ", 1, true), line .. ": " .. tostring(list or insert))
      end
      return list
    end
    shows("replx:s", "sum", "sqrt")
    shows("replx.", "shape", "dtype", "grad")
    shows("repls:", "upper", "gsub")
    assert.equal("hape", (repl.complete("y = replx.s")))
    assert.equal("ear", (repl.complete("?nn.Lin")))
    assert.equal("i", (repl.complete("gq.odeint(f, z, t, {method = 'dopr")))
    assert.equal("orm", (repl.complete("gq.odeint(f, z, {0, 1}, { gradient = \"semin")))
    assert.equal("ize = ", (repl.complete("gq.odeint(f, z, {0, 1}, { rtol = 1e-3, step_s")))
    assert.equal("iser = ", (repl.complete("gq.train { model = net, optim")))
    assert.equal("n", (repl.complete("x = functio")))
    assert.equal("amples/", (repl.complete("dofile('ex")))
    assert.equal("nes.lua", (repl.complete("dofile('examples/si")))
    local list = select(2, repl.complete("gq."))
    assert.falsy(list:find("%f[%w]core%f[%W]") or list:find("%f[%w_]_"))
    _G.gq, _G.replx, _G.repls = nil, nil, nil
  end)

  it("completes names", function()
    local _, _, _, repl = play {}
    assert.equal("ring", (repl.complete("x = st")))
    assert.equal("mat", (repl.complete("string.for")))
    local insert, list = repl.complete("string.")
    assert.equal("", insert)
    assert.truthy(list:find("format", 1, true))
    assert.equal("", (repl.complete("nosuch.thing.at")))
  end)

  it("keeps its history in the state folder, or does without", function()
    local _, _, _, repl = play {}
    local function env(t) return function(k) return t[k] end end
    assert.equal("/s/gqlua/history", repl.history_path(env { XDG_STATE_HOME = "/s", HOME = "/h" }))
    assert.equal("/h/.local/state/gqlua/history", repl.history_path(env { XDG_STATE_HOME = "relative", HOME = "/h" }))
    assert.is_nil(repl.history_path(env {}))
    local remembered = {}
    local function remember(line) remembered[#remembered + 1] = line end
    play({ "1", "2" }, { remember = remember, private = function() return false end })
    assert.same({ "1", "2" }, remembered)
  end)

  it("reads plain input with -i, and keeps a history there", function()
    local command = "printf 'y = 6\\ny * 7\\nexit\\n' | HOME=%s XDG_STATE_HOME=%s " .. quote(gqlua) .. " -i"
    local out, err, code = shell(command:format(folder, folder .. "/state"))
    assert.equal(0, code)
    assert.equal("", err)
    assert.truthy(out:find("42", 1, true))
    assert.equal("y = 6\ny * 7\n", read(folder .. "/state/gqlua/history"))
    assert.truthy(shell("stat -c %a state/gqlua/history"):find("600", 1, true))
    out, err, code = shell(command:format("/dev/null", "/dev/null/x"))     -- nowhere to write
    assert.equal("", err)
    assert.equal(0, code)
    assert.truthy(out:find("42", 1, true))
  end)

  it("runs the rc file, and tells of one that fails", function()
    local _, _, _, repl = play {}
    assert.equal("/c/gqlua/rc.lua", repl.rc_path(function(k) return k == "XDG_CONFIG_HOME" and "/c" or "/h" end))
    assert.equal("/h/.config/gqlua/rc.lua", repl.rc_path(function(k) return k == "HOME" and "/h" or nil end))
    local command = "printf 'fromrc\\n1 + 1\\n' | HOME=%s XDG_CONFIG_HOME=%s " .. quote(gqlua) .. " -i"
    os.execute("mkdir -p " .. quote(folder .. "/config/gqlua"))
    write("config/gqlua/rc.lua", "fromrc = 'set by rc'")
    assert.truthy(shell(command:format(folder, folder .. "/config")):find("> set by rc\n> 2\n", 1, true))
    write("config/gqlua/rc.lua", "nosuch.field = 1")
    local out = shell(command:format(folder, folder .. "/config"))
    assert.truthy(out:find("rc.lua:1", 1, true) and out:find("2\n", 1, true), out)
  end)

  it("completes with Tab in a terminal", function()
    local keys = "sleep 0.4; printf 'x = gq.zeros\\t(2)\\n'; sleep 0.2; printf 'x:nume\\t()\\n'; sleep 0.2; " ..
      "printf '\\004'; sleep 0.1"
    local out, _, code = shell(("(%s) | HOME=%s TERM=xterm timeout 20 script -qec %s /dev/null"):format(keys, folder,
      quote("exec " .. quote(gqlua))))
    assert.equal(0, code, out)
    assert.truthy(out:find("\n2\r?\n"), out)
  end)

  it("has colours for errors in a terminal, unless NO_COLOR or TERM says no, finds old lines, and stops", function()
    local function typed(keys, environment)
      local command = "(%s; sleep 0.2; printf '\\004'; sleep 0.1) | env HOME=%s %s timeout 20 script -qec %s /dev/null"
      return (shell(command:format(keys, folder, environment, quote("exec " .. quote(gqlua)))))
    end
    local fails = "sleep 0.4; printf 'error(1 .. \"ouch\")\\n'"
    assert.truthy(typed(fails, "TERM=xterm"):find("\27[31mstdin:1: 1ouch\27[0m", 1, true))
    for _, environment in ipairs { "TERM=dumb", "TERM=xterm NO_COLOR=1" } do
      local out = typed(fails, environment)
      assert.truthy(out:find("1ouch", 1, true) and not out:find("\27[31m", 1, true), environment)
    end
    local out = typed("sleep 0.4; printf 'print(6 * 111)\\nprint(1)\\n'; sleep 0.2; printf '\\0226 \\052'; " ..
      "sleep 0.1; printf '\\n\\n'; sleep 0.1", "TERM=xterm")
    assert.equal(2, select(2, out:gsub("\n666\r?\n", "")), out)
  end)

  it("starts after a script with -i and sees its globals", function()
    write("sets.lua", "fromscript = 11")
    local out = shell("echo 'fromscript, gq ~= nil' | HOME=" .. folder .. " " .. quote(gqlua) .. " -i sets.lua")
    assert.truthy(out:find("11\ttrue", 1, true), out)
  end)
end)

-- A solve that would take hours; it writes the file `solving` when the first evaluation is traced.
local solve = [[
  local gq = require "gq"
  local function f(t, z) local file = io.open("solving", "w") file:close() return -z end
  gq.odeint(f, gq.ones(4), {0, 1e6}, {method = "rk4", step_size = 1e-5, max_steps = 1 << 40, gradient = "none"})
]]
local wait = "i=0; while [ ! -e solving ] && [ $i -lt 100 ]; do sleep 0.05; i=$((i+1)); done; sleep 0.2; "

describe("Ctrl-C", function()
  before_each(function() os.remove(folder .. "/solving") end)

  it("ends a script inside a solve with the place in one line, as SIGINT does", function()
    write("long.lua", solve)
    local out, err, code = shell("timeout --foreground -s INT 1 " .. quote(gqlua) .. " long.lua; echo $?")
    assert.truthy(out:find("124", 1, true) and code == 0, out .. err)     -- timeout's own word for it
    assert.truthy(err:find("^gqlua: long%.lua:3: interrupted at t = [^\n]*\n$"), err)
    write("loop.lua", "local x = 1\nwhile true do\n  x = x + 1\nend\n")
    out, err = shell("timeout --foreground -s INT 0.3 " .. quote(gqlua) .. " loop.lua")
    assert.truthy(err:find("^gqlua: loop%.lua:[234]: interrupted!\n$"), out .. err)
  end)

  it("raises an error that a script can catch, soon, and the state stays usable", function()
    write("catch.lua", [[
      local gq = require "gq"
      local solve = load(io.open("long.lua"):read("a"))
      for i = 1, 2 do
        print(pcall(solve))
        local pipe = io.popen("date +%s%N; cat killed")
        local now, killed = pipe:read("n", "n")
        io.stderr:write((now - killed) // 1000000, "\n")
      end
      print(gq.odeint(function(t, z) return -z end, gq.ones(1), {0, 1})[2]:item() < 0.5)
    ]])
    write("long.lua", solve)
    -- A shell starts background jobs with SIGINT ignored; env undoes that.
    local out, err, code = shell("env --default-signal=INT " .. quote(gqlua) .. " catch.lua & pid=$!; " ..
      "for k in 1 2; do " .. wait .. "rm -f solving; date +%s%N >killed; kill -INT $pid; done; wait $pid; exit $?")
    assert.equal(0, code, err)
    assert.truthy(out:find("^false[^\n]*interrupted[^\n]*\nfalse[^\n]*interrupted[^\n]*\ntrue\n$"), out)
    for milliseconds in err:gmatch("%d+") do assert.truthy(tonumber(milliseconds) < 1000, err) end
  end)

  it("stops a solve under a stock lua5.4, too, and only the solve", function()
    local place = gqlua:match("^(.*)/")
    if not io.open(place .. "/gq.so") then
      pending("this build has no gq.so")
      return
    end
    write("long.lua", solve)
    write("stock.lua", "print(pcall(loadfile('long.lua'))) print(require('gq').ones(2):sum():item())")
    local stock = ("LUA_CPATH='%s/?.so' timeout --foreground -s INT 1 lua5.4 "):format(place)
    local out, err, code = shell(stock .. "stock.lua")
    assert.equal(124, code)
    assert.truthy(out:find("^false[^\n]*interrupted at t[^\n]*\n2.0\n$"), out .. err)
    out, err, code = shell(stock .. "-e \"require 'gq' while true do end\"")      -- the handler of lua itself
    assert.equal(124, code)
    assert.truthy(out == "" and err:find("interrupted!", 1, true), err)
  end)

  it("stops plain Lua loops", function()
    local _, err, code = shell("timeout --foreground -s INT 0.5 " .. quote(gqlua) .. " -e 'while true do end'")
    assert.equal(124, code)
    assert.truthy(err:find("interrupted!", 1, true), err)
  end)

  it("returns to the prompt from inside a solve, a loop and a half-typed line", function()
    write("long.lua", solve)
    local keys = "sleep 0.3; printf 'dofile(\"long.lua\")\\n'; " .. wait .. "printf '\\003'; sleep 0.3; " ..
      "printf 'print(\"after\", 1)\\n'; sleep 0.1; printf 'while true do end\\n'; sleep 0.3; " ..
      "printf '\\003'; sleep 0.2; " ..
      "printf 'for i = 1, 2 do\\n'; sleep 0.1; printf '\\003'; sleep 0.1; printf 'half'; sleep 0.1; printf '\\003'; " ..
      "sleep 0.1; printf 'print(\"end\" .. \"ed\")\\n'; sleep 0.1; printf '\\004'; sleep 0.2"
    local command = "(%s) | HOME=%s TERM=dumb timeout 20 script -qec %s /dev/null"
    -- exec: a shell in between would die of SIGINT, and its end be the status.
    local out, _, code = shell(command:format(keys, folder, quote("exec " .. quote(gqlua))))
    assert.equal(0, code, out)
    assert.truthy(select(2, out:gsub("interrupted", "")) >= 2, out)
    assert.truthy(out:find("after%s+1") and out:find("\nended", 1, true), out)
  end)
end)

describe("the folder of Lua files on package.path", function()
  it("is said to be no module by itself", function()
    local _, err = shell(("LUA_PATH='%s/?/init.lua' lua5.4 -e 'require \"gq\"'"):format(helper.here .. "/lua"))
    assert.matches("gq.so, which is what require \"gq\" is to find: name it in package.cpath", err)
  end)
end)

describe("a condition on a tensor", function()
  it("in dynamics is told of, once: to Lua it is always true", function()
    local template = "gq.odeint(function(t, z) %s end, gq.ones(2), {0, 1})"
    local branch = template:format("if %s then return z end return -z")
    for _, condition in ipairs { "z:gt(0)", "t:lt(0.5)", "z:gt(0):any()", "z:eq(1):logical_and(z:gt(0))" } do
      local _, err = run(("-e %s -e %s"):format(quote(branch:format(condition)), quote(branch:format(condition))))
      assert.equal(1, select(2, err:gsub("compares values and makes no use of it", "")), condition)
      assert.matches("choose with gq.where", err)
    end
    local fine = template:format("return gq.where(z:gt(0), z, 0) * (t:lt(1)):to('float32') - z:clamp(0, 1):elu()")
    assert.equal("", select(2, run("-e " .. quote(fine))))
    assert.matches("the event function of gq.odeint compares", select(2, run("-e " .. quote(
      "gq.odeint(function(t, z) return -z end, gq.ones(1), {0, 1}, " ..
      "{event = function(t, z) return z:lt(0.5) and z - 0.2 or z - 0.8 end})"))))
  end)
end)

describe("what solves do", function()
  it("is told on stderr, of the topics that gq.narrate or GQ_TRACE names", function()
    local script = "local k = gq.tensor({50}, {requires_grad = true}) " ..
      "local z, info = gq.odeint(function(t, z) return -k * z * t end, gq.ones(1), {0, 2}, " ..
      " {gradient = 'gq', audit = false, method = 'bosh3', %s}); z:sum():backward() " ..
      "print(info.steps, info.rejected, info.nfe, info.rounds)"
    local function told(before, options, environment)
      local out, err = shell((environment or "") .. quote(gqlua) .. " -e " .. quote(before .. script:format(options)))
      return err, out:match("(%d+)%s+(%d+)%s+(%d+)%s+(%d+)")
    end
    local function count(text, pattern) return select(2, text:gsub(pattern, "")) end
    local err, steps, rejected, nfe = told("gq.narrate('step, mem') ", "first_step = 1")
    local there = err:match("^(.-mem: there.-\n)")
    assert.equal(tonumber(steps) + tonumber(rejected), count(there, "step: t "))
    assert.equal(tonumber(rejected), count(there, ": refused\n"))
    assert.truthy(tonumber(rejected) > 0)
    assert.matches(("mem: there for gq: %s steps, %s refused, %s evaluations"):format(steps, rejected, nfe), err)
    assert.matches("mem: back by gq: %d+ evaluations, %d+ nodes, %d+ bytes", err)
    assert.equal("", (told("gq.narrate('step,quad,mem,ir') gq.narrate(false) ", "")))
    local quad, _, _, _, rounds = told("", "gq = {nodes = 'auto'}", "GQ_TRACE=quad,ir ")
    assert.matches("ir: program: %d+ instructions", quad)
    assert.matches(("quad: t 2 to 0, round %s: pieces %%d+"):format(rounds), quad)
    assert.matches('^warning: GQ_TRACE: .*step, quad.* expected, got "steps"', (told("", "", "GQ_TRACE=steps ")))
    assert.matches('expected, got "all"', (told("gq.narrate('quad,all') ", "")))
    assert.matches("string expected, got no", (told("gq.narrate() ", "")))
  end)
end)
