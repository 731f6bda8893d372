-- cuda_spec.lua -- the CUDA backend beyond what the other specs show of it with cuda as default device: what is missing
-- is named, kernels are kept, errors come through, nothing is allocated twice. Run by `make test-cuda` on the emulator.

local helper = require "tests.helper"
local gq = require "gq"
local raises = helper.raises

local emulator = os.getenv "GQ_CUDA_EMULATOR"
local config = emulator:match "build/(%w+)/cuda$"
local temporary = os.tmpname()
os.remove(temporary)
os.execute("mkdir -p " .. temporary)
teardown(function() os.execute("rm -rf " .. temporary) end)

-- Output and errors of a script in a process of its own, with this environment; did it end well? its status.
local function run(environment, script, ...)
  local path = helper.write(temporary .. "/script.lua", "local gq = require 'gq'\n", script:format(...))
  local text, code = helper.output(("env %s '%s' %s"):format(environment, helper.gqlua, path))
  return text, code == 0, code
end

local training = [[
  local w = gq.randn({2, 2}, {seed = 1, device = "cuda", dtype = "float64", requires_grad = true})
  local step = gq.optim.adam({w}, {lr = 0.1})
  for i = 1, %d do
    local z = gq.odeint(function(t, x) return gq.tanh(x:matmul(w)) end,
      gq.ones({70, 2}, {device = "cuda", dtype = "float64"}), {0, 1}, {gradient = "%s"})
    local loss = (z * z):mean()
    step:zero_grad()
    loss:backward()
    step:step()
    collectgarbage()
    io.write(("%%a "):format(loss:item()))
  end
]]

describe("without", function()
  it("the driver, the compiler or a device, an error says which", function()
    local ask = "print(pcall(gq.zeros, 2, {device = 'cuda'}))"
    assert.truthy(run("LD_LIBRARY_PATH= ", ask):find("false.*libcuda.so.1 is missing"))
    os.execute(("cd %s; cp %s/libcuda.so.1 .; touch libnvrtc.so.13 libnvrtc.so.12"):format(temporary, emulator))
    assert.truthy(run("LD_LIBRARY_PATH=" .. temporary, ask):find("false.*libnvrtc.so.13 or .12 is missing"))
    os.execute(("cd %s; cp %s/libnvrtc.so.13 .; touch libcublasLt.so.13 libcublasLt.so.12"):format(temporary, emulator))
    assert.truthy(run("LD_LIBRARY_PATH=" .. temporary, ask):find("false.*libcublasLt.so.13 or .12 is missing"))
    assert.truthy(run("GQ_EMU_VERSION=12040", ask):find("false.*libnvrtc.so.12, which the driver wants, is missing"))
    for _, none in ipairs { "1", "init" } do
      assert.truthy(run("GQ_EMU_NONE=" .. none, ask):find("false.*finds no device"))
    end
    assert.truthy(run("GQ_CUDA=/nowhere/gq_cuda.so", ask):find("false.*gq_cuda.so cannot be opened.*make cuda"))
    assert.truthy(run("GQ_EMU_NONE=1", "print(table.concat(gq.devices()), gq.ones(2):sum():item())"):find("cpu\t2"))
    assert.truthy(run("", "print(pcall(gq.zeros, 2, {device = 'cuda:9'}))"):find('false.*"cuda:9".*"cpu", "cuda"'))
    local text, code = helper.output("LD_LIBRARY_PATH= scripts/gpu_tests " .. config)
    assert.truthy(text:find("no CUDA device to test on.*libcuda.so.1 is missing"))
    assert.not_equal(0, code)
  end)
end)

describe("what is declared of NVIDIA's interfaces", function()
  it("is what their headers say", function()
    local compile = "gcc -fsyntax-only -isystem /usr/local/cuda/include %s 2>&1"
    local missing = io.popen(("printf '#include <cuda.h>\n#include <cublasLt.h>\n' | " .. compile):format "-x c -")
    if not missing:close() then return pending "CUDA's headers are not here" end
    assert.equal("", io.popen(compile:format "tests/cuda/headers.c"):read "a")
  end)
end)

describe("$GQ_CUDA_LIBS", function()
  it("is where the compiler's other half is, too", function()
    local folder = temporary .. "/libs"
    os.execute(("mkdir -p %s; cp %s/libnvrtc.so.13 %s"):format(folder, emulator, folder))
    local environment = "GQ_EMU_BUILTINS=1 GQ_CUDA_CACHE= GQ_CUDA_LIBS=" .. folder
    local ask = "print(pcall(function() return gq.ones(3, {device = 'cuda'}):sum():item() end))"
    local name = run(environment, ask):match "false.*NVRTC refuses.*failed to open (%S+)%."
    os.execute(("gcc -shared -x c /dev/null -Wl,-soname,%s -o %s/%s"):format(name, folder, name))
    assert.equal("true\t3.0\n", (run(environment, ask)))
  end)
end)

describe("make install", function()
  it("puts gq_cuda.so where the installed program and gq.so find it", function()
    if config ~= "release" then return pending "the release is what is installed" end
    local place, there = temporary .. "/installed", "print(gq.devices(true).cuda)"
    assert.is_true(os.execute(("make -s -o all install PREFIX=%s >%s/log 2>&1"):format(place, temporary)))
    local path = temporary .. "/there.lua"
    helper.write(path, "local gq = require 'gq' ", there)
    for _, program in ipairs { place .. "/bin/gqlua", ("env LUA_CPATH='%s/lib/lua/5.4/?.so' lua5.4"):format(place) } do
      assert.truthy(helper.output(program .. " " .. path):find "^emulator, compute capability 9.0")
    end
    assert.is_true(os.execute(("make -s uninstall PREFIX=%s"):format(place)))
    assert.equal("", (helper.output(("find %s -name 'gq*.so'"):format(place))))
  end)
end)

describe("tensors on cuda", function()
  local x = gq.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { device = "cuda" })

  it("are there, print and come back", function()
    assert.same({ "cpu", "cuda" }, gq.devices())
    assert.equal("cuda", x.device)
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, x:totable())
    assert.equal(6, x[{ 2, 3 }]:item())
    assert.equal(tostring(x:to "cpu"), tostring(x))
    local name = temporary .. "/x.npy"
    gq.save(name, x)
    assert.same(x:totable(), gq.load(name):totable())
  end)

  it("meet those of the CPU in no operation, capture or optimiser", function()
    raises("add cuda cpu x:to", function() return x + gq.ones(2, 3) end)
    raises("captures cpu cuda", gq.odeint, function(_, y) return y * gq.ones(2, 3) end, x, { 0, 1 })
    local here = gq.ones(2, { requires_grad = true })
    local there = gq.ones(2, { requires_grad = true, device = "cuda" })
    raises("parameter cuda cpu", gq.optim.adam, { here, there })
  end)

  it("stay where they are in what is traced, and what runs on the CPU alone says so", function()
    raises("traced values move solve", gq.odeint, function(_, y) return y:to "cpu" end, x, { 0, 1 })
    raises("traced values move solve", gq.odeint, function(_, y) return y:to "cuda" end, gq.ones(2), { 0, 1 })
    raises("trace = false CPU cuda x:to", gq.odeint, function(_, y) return -y end, x, { 0, 1 }, { trace = false })
    raises('device "gpu" cpu cuda', gq.zeros, 2, { device = "gpu" })
    raises('"cuda:9" cpu cuda', x.to, x, "cuda:9")
  end)

  it("give orders where they are", function()
    assert.same({ "cuda", "cuda" }, { x:argsort(1).device, gq.tensor(3, { device = "cuda" }):argsort().device })
    assert.same({ { 1, 1, 1 }, { 2, 2, 2 } }, gq.where(x:argsort(1):gt(1), 2, 1):totable())
  end)

  it("take indices that are there alone", function()
    local one = gq.tensor({ 1 }, { dtype = "int64", device = "cuda" })
    for _, i in ipairs { 0, 4 } do
      local index = gq.tensor({ 1, i, 2 }, { dtype = "int64", device = "cuda" })
      raises("index_select " .. i, x.index_select, x, 2, index)
      raises("index_select index " .. i .. " position 2 1..3", gq.odeint, function(_, y)
        local third = (y:sum() * 0 + i):to("int64"):reshape { 1 }
        return y:index_select(2, gq.cat({ index:index_select(1, one), third, third * 0 + 1 }, 1))
      end, x, { 0, 1 })
    end
    local index = gq.tensor({ 3, 1 }, { dtype = "int64", device = "cuda" })
    assert.same({ { 3, 1 }, { 6, 4 } }, x:index_select(2, index):totable())
  end)

  it("are summed to the same bits, many or few, and as the CPU's", function()
    for _, shape in ipairs { { 70001 }, { 3, 5000 }, { 5000, 3 }, { 40, 50, 60 } } do
      local y = gq.randn(shape, { seed = 3 })
      local z = y:to "cuda"
      assert.close(z:sum(), y:sum(), 1e-6, 1e-4)
      assert.close(z:sum(#shape), y:sum(#shape), 1e-6, 1e-5)
      assert.close(z:sum(1), y:sum(1), 1e-6, 1e-5)
      assert.same(y:max(1):totable(), z:max(1):totable())
      assert.same(y:argmin(#shape):totable(), z:argmin(#shape):totable())
      assert.same(z:sum():item(), z:sum():item())
    end
  end)

  it("are multiplied by the library where its layouts do, and as the CPU's", function()
    local products = [[
      local function product(a, b) return function(device, dtype)
        local x, y = gq.randn(a, {seed = 1, dtype = dtype}), gq.randn(b, {seed = 2, dtype = dtype})
        return product_of(x:to(device), y:to(device)):to "cpu"
      end end
      local cases = {
        { {70, 33}, {33, 50} }, { {33, 70}, {33, 50}, function(x, y) return x:t():matmul(y) end },
        { {70, 33}, {50, 33}, function(x, y) return x:matmul(y:t()) end },
        { {33, 70}, {50, 33}, function(x, y) return x:t():matmul(y:t()) end },
        { {4, 7, 33}, {33, 5} }, { {4, 7, 33}, {4, 33, 5} }, { {33}, {33, 5} }, { {1, 33}, {33, 1} },
        { {70, 1}, {1, 9} },
        { {70, 35}, {33, 50}, function(x, y) return x:narrow(2, 2, 33):matmul(y) end },
        { {70, 33, 2}, {33, 50}, function(x, y) return x[{{}, {}, 1}]:matmul(y) end },
        { {3, 2, 7, 33}, {2, 33, 5} }, { {0, 4}, {4, 3} }, { {2, 0}, {0, 3} },
      }
      local worst = 0
      for _, dtype in ipairs {"float32", "float64"} do
        for _, c in ipairs(cases) do
          product_of = c[3] or function(x, y) return x:matmul(y) end
          local there, here = product(c[1], c[2])("cuda", dtype), product(c[1], c[2])("cpu", dtype)
          local apart = #here:reshape {-1} > 0 and ((there - here):abs():max() / (1 + here:abs():max())):item() or 0
          worst = math.max(worst, apart * (dtype == "float64" and 1e9 or 1))
        end
      end
      print("worst", worst, worst < 1e-6)]]
    local text = run("GQ_EMU_COUNT=1 GQ_EMU_LATE=1", "%s", products)
    assert.truthy(text:find "worst.*true", text)
    assert.is_true(tonumber(text:match "(%d+) product_f32") <= 3, text)        -- the rest are the library's
    local a, b = gq.randn({ 70, 33 }, { seed = 1 }), gq.randn({ 33, 50 }, { seed = 2 })
    local exact, there = a:matmul(b), a:to("cuda"):matmul(b:to "cuda")
    assert.is_false(gq.allow_tf32())
    assert.is_true(gq.allow_tf32(true))
    local rounded = a:to("cuda"):matmul(b:to "cuda")
    assert.is_true(helper.relative(rounded:to "cpu", exact) > 1e-5)
    assert.is_true(helper.relative(rounded:to "cpu", exact) < 2e-3)
    gq.allow_tf32(false)
    assert.same(there:totable(), a:to("cuda"):matmul(b:to "cuda"):totable())
  end)

  it("count in gq.memory, and what is larger than the device is refused", function()
    collectgarbage()
    local before = gq.memory()
    local y = gq.zeros(1000, 1000, { device = "cuda" })
    assert.is_true(gq.memory() - before >= 4000000)
    y:free()
    assert.is_true(gq.memory() - before < 4000000)
    local text = run("GQ_EMU_BYTES=50000000", [[
      print(pcall(gq.zeros, 100000000, {device = "cuda"}))
      print(gq.zeros(1000, {device = "cuda"}):sum():item())]])
    assert.truthy(text:find "false.*out of memory.*400000000 bytes wanted.*free")
    assert.truthy(text:find "\n0")
    text = run("GQ_EMU_BYTES=50000000", [[
      local x = gq.ones({50000, 100}, {device = "cuda"})
      print(pcall(gq.odeint, function(t, y) return y:sin() end, x, {0, 1}, {gradient = "none"}))
      print(x:sum():item())]])
    assert.truthy(text:find "false.*out of memory.*%d+ bytes wanted.*free", text)
    assert.truthy(text:find "\n5000000", text)
  end)
end)

describe("kernels", function()
  it("are kept on disk; a broken file is compiled again, a folder that takes none is told of once", function()
    local folder = temporary .. "/kernels"
    local sum = "print(gq.ones(3, {device = 'cuda'}):sum():item(), gq.ones(3, {device = 'cuda'}):exp():sum():item())"
    local first = run("GQ_CUDA_CACHE=" .. folder, sum)
    local list = helper.output("ls " .. folder)
    assert.truthy(list:find "%.sm_90")
    assert.equal(first, (run("GQ_EMU_CC=false GQ_CUDA_CACHE=" .. folder, "print(1)") and first))
    for name in list:gmatch "%S+" do
      local file = assert(io.open(folder .. "/" .. name, "r+b"))
      file:seek("set", 100)
      file:write "broken"
      file:close()
    end
    assert.equal(first, (run("GQ_CUDA_CACHE=" .. folder, sum)))
    assert.equal(first, (run("GQ_CUDA_CACHE=" .. folder, sum)))
    local names = {}
    for name in list:gmatch "%S+" do names[#names + 1] = folder .. "/" .. name end
    -- of another text; empty
    os.execute(("mv %s %s/other; cp %s %s; : >%s"):format(names[1], folder, names[2], names[1], names[2]))
    assert.equal(first, (run("GQ_CUDA_CACHE=" .. folder, sum)))
    local text = run("GQ_CUDA_CACHE=/dev/null/nowhere", sum)
    assert.truthy(text:find "warning.*cannot be kept in /dev/null/nowhere")
    local _, times = text:gsub("warning", "")
    assert.equal(1, times)
    assert.truthy(text:find(first, 1, true))
  end)
end)

describe("modules", function()
  it("of what is no longer there are given back", function()
    local text = run("GQ_EMU_COUNT=1 GQ_EMU_LATE=1", [[
      local w = gq.ones({2, 2}, {device = "cuda", requires_grad = true})
      for rows = 64, 134 do
        gq.odeint(function(t, x) return gq.tanh(x:matmul(w)) end, gq.ones({rows, 2}, {device = "cuda"}), {0, 1},
          {gradient = "direct"}):sum():backward()
        collectgarbage()
      end]])
    assert.is_true(tonumber(text:match "(%d+) modules left") < 70, text)
  end)
end)

describe("a process", function()
  it("whose device is lost is told so by each call that follows, and goes on with the CPU", function()
    local text = run("GQ_EMU_FAIL=60", [[
      local x, ok, e = gq.ones(3, {device = "cuda"}), true, nil
      while ok do ok, e = pcall(function() return (x * 2):sum():item() end) end
      print(e)
      local function lost(f, ...)
        local fine, why = pcall(f, ...)
        local want = "cuda: the device is lost %%(.*unspecified launch failure%%): tensors on the CPU go on"
        print(not fine and tostring(why):find(want) and "told" or why)
      end
      lost(gq.ones, 3, {device = "cuda"})
      lost(function() return x + x end)
      lost(x.sum, x)
      lost(x.item, x[1])
      lost(x.totable, x)
      lost(x.to, x, "cpu")
      lost(function() return x[1] < 2 end)
      lost(gq.odeint, function(t, y) return -y end, x, {0, 1})
      print(gq.ones(3):sum():item())]])
    assert.truthy(text:find "unspecified launch failure", text)
    local _, told = text:gsub("\ntold", "")
    assert.equal(8, told, text)
    assert.truthy(text:find "\n3", text)
  end)

  it("is interrupted between attempts that are queued, and goes on", function()
    local text, ended = run("GQ_EMU_INTERRUPT=40", [[
      local x = gq.ones({70, 2}, {device = "cuda"})
      local function solve(t)
        local z = gq.odeint(function(t, y) return (y * t):sin() end, x, {0, t}, {rtol = 1e-6})
        return z[-1]:sum():item()
      end
      print(pcall(solve, 1e4))
      print(solve(0))]])
    assert.truthy(ended, text)
    assert.truthy(text:find "false.*interrupted.*\n140", text)
  end)

  it("that was forked is told to use the device first after the fork; its parent goes on", function()
    local child = [[
      package.cpath = "%s/?.so;" .. package.cpath
      local fork = require "fork"
      local x = %s
      print("child ended", fork.child(function()
        print(pcall(gq.ones, 2, {device = "cuda"}))
        if x then print(pcall(function() return (x + x):sum():item() end)) end
        print(gq.ones(3):sum():item())
      end))
      print(gq.ones(4, {device = "cuda"}):sum():item())]]
    local text = run("", child, emulator, "gq.ones(2, {device = 'cuda'})")
    local _, told = text:gsub("false[^\n]*forked from one that used the device: use it first after the fork", "")
    assert.equal(2, told, text)
    assert.truthy(text:find "\n3%.0\nchild ended\t0\n4", text)
    assert.truthy(run("", child, emulator, "nil"):find "^true.*\n3%.0\nchild ended\t0\n4")
  end)

  it("that was forked solves on the CPU, however many kernels it lets go of", function()
    local text = run("", [=[
      package.cpath = "%s/?.so;" .. package.cpath
      local fork = require "fork"
      local function solved(i, device)              -- programs of their own for each i
        local w, names = gq.ones({2, 2}, {device = device}), {"tanh", "sin", "cos"}
        return gq.odeint(function(_, x)
          local h, k = x:matmul(w) * 0.1, i
          repeat h, k = h[names[k %% 3 + 1]](h), k // 3 until k == 0
          return h
        end, gq.ones({64, 2}, {device = device}), {0, 0.1}, {method = "rk4", step_size = 0.1})
      end
      local kept = {}
      for i = 1, 70 do kept[i] = solved(i, "cuda") end
      print("child ended", fork.child(function()
        kept = nil
        for i = 1, 70 do solved(i, "cpu") collectgarbage() end
        print "solved"
      end))]=], emulator)
    assert.truthy(text:find "\nsolved\nchild ended\t0\n" or text:find "^solved\nchild ended\t0\n", text)
  end)

  it("may end while work is queued", function()
    for _, last in ipairs { "", "os.exit(0)", "os.exit(0, true)", "error 'at last'" } do
      local text, ended, code = run("GQ_EMU_LATE=1", [[
        y = gq.ones({70, 70}, {device = "cuda", requires_grad = true})
        z = (y * 2):matmul(y)
        z:sum():backward()
        ]] .. last)
      assert.equal(last:find "error" and 1 or 0, code, text)
      assert.equal(not last:find "error" and "" or nil, ended and text or nil)
    end
  end)
end)

describe("a training step", function()
  -- By tiles (a slice of rows a block), and by operations.
  for how, tiles in pairs { tiles = "", ops = "GQ_CUDA_TILES=0 " } do
    it("gives the same bits in any order, with work done late and with memory of NaN, by " .. how, function()
      for _, engine in ipairs { "direct", "gq", 'direct", batch = "independent' } do
        local want = run(tiles, training, 2, engine)
        assert.truthy(want:find "0x")
        for _, way in ipairs { "backwards", "fiber", "reverse", "shuffled" } do
          assert.equal(want, (run(tiles .. "GQ_EMU=" .. way, training, 2, engine)))
        end
        assert.equal(want, (run(tiles .. "GQ_EMU_LATE=1 GQ_CUDA_POISON=1", training, 2, engine)))
        assert.equal(want, (run(tiles .. "GQ_EMU_SHARED=1", training, 2, engine)))   -- all in global memory
        local cpu = run("", (training:gsub('"cuda"', '"cpu"')), 2, engine)
        for a, b in (want .. cpu):gmatch "(%S+) %S+ (%S+) %S+" do assert.close(tonumber(a), tonumber(b), 1e-12) end
      end
    end)
  end

  it("touches no memory but the device's, and numbers where they may lie, as sanitizers see kernels #slow", function()
    local library = "LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 "
    local preload = config == "asan" and "" or library
    local gcc = "GQ_EMU_CC='env -u LD_PRELOAD gcc -O1 -ffp-contract=off -fsanitize=address,alignment " ..
      "-fsanitize-undefined-trap-on-error' GQ_CUDA_POISON=1 "
    for how, engine in helper.each({ "", "GQ_CUDA_TILES=0 ", "GQ_EMU_SHARED=1 " },
        { "gq", 'direct", batch = "independent' }) do
      assert.equal(run(how, training, 1, engine), (run(how .. preload .. gcc, training, 1, engine)))
    end
  end)

  it("asks the device for no memory the second time", function()
    local function count(n)
      local text = run("GQ_EMU_COUNT=1", training, n, "gq")
      return tonumber(text:match "(%d+) allocations")
    end
    assert.equal(count(2), count(5))
  end)

  it("keeps of a step what the way back reads, about what the CPU keeps", function()
    for _, width in ipairs { 20, 200 } do              -- by tiles, by operations
      local function peak(device)
        local w = gq.randn({ 5, width }, { seed = 1, device = device, requires_grad = true })
        local v = gq.randn({ width, 5 }, { seed = 2, device = device })
        local z, info = gq.odeint(function(_, x) return gq.softplus(x:matmul(w)):tanh():matmul(v) / width end,
          gq.ones({ 512, 5 }, { device = device }), { 0, 1 }, { gradient = "direct", method = "rk4", step_size = 0.05 })
        z:square():mean():backward()
        return info.peak_bytes
      end
      assert.below(peak "cuda", 1.25 * peak "cpu")
    end
  end)

  it("runs by tiles where rows are narrow, two launches an attempt", function()
    local function solve(rows, width)
      local w = gq.randn({ width, width }, { seed = 1, device = "cuda" }) * 0.1
      local z0 = gq.ones({ rows, width }, { device = "cuda" })
      return select(2, gq.odeint(function(_, x) return gq.tanh(x:matmul(w)) end, z0, { 0, 1 }))
    end
    assert.equal("tiles", solve(64, 4).lowering)
    assert.equal("ops", solve(64, 200).lowering)
    assert.equal("ops", solve(4, 4).lowering)
    local few = select(2, gq.odeint(function(_, x) return -x end, gq.ones({ 4, 2 }, { device = "cuda",
      requires_grad = true }), { 0, 1 }))
    assert.truthy(few.engine == "direct" and few.reason:find "gqc.*so few rows.*CPU")
    assert.equal("threads", select(2, gq.odeint(function(_, x) return -x end, gq.ones(40, 2), { 0, 1 })).lowering)
    local text = run("GQ_EMU_COUNT=1", [[
      local z, info = gq.odeint(function(t, x) return -x * t end, gq.ones({70, 2}, {device = "cuda"}), {0, 3})
      print("attempts", info.steps + info.rejected, info.lowering)]])
    local attempts, launches = tonumber(text:match "attempts\t(%d+)\ttiles"), tonumber(text:match "(%d+) tile\n")
    assert.is_true(launches <= 2 * (attempts + 2), text)   -- two sizes of slices: 70 = 3 * 18 + 16
  end)

  it("solves the systems of gqc's rows by a kernel, a launch for a group of steps, with the CPU's bits", function()
    local cases = [[
      local function gradient(device, dtype, rows, dim, nodes, step)
        local z0 = gq.randn({ rows, dim }, { seed = 4, dtype = dtype }):to(device)
        z0.requires_grad = true
        local z = gq.odeint(function(t, z) return z * (2 / step) + z:flip({ 2 }) * z:sin() * t end, z0,
          { 0, 0.4, 1, 1.01, 3 }, { gradient = "gqc", method = "rk4", step_size = step, gq = { nodes = nodes } })
        z:square():sum():backward()
        return z0.grad:to "cpu"
      end
      -- by one node diagonals are zero: rows change places
      local cases = { { 3, 1, 1, 1 }, { 70, 2, 4, 0.5 }, { 3, 3, 2, 1 }, { 20, 8, 1, 1 }, { 5, 8, 16, 1 } }
      for _, dtype in ipairs { "float32", "float64" } do
        for _, case in ipairs(cases) do
          local got, want = gradient("cuda", dtype, table.unpack(case)), gradient("cpu", dtype, table.unpack(case))
          if (got - want):abs():max():item() ~= 0 then print("not the same", dtype, table.unpack(case)) end
        end
      end
      print "done"]]
    local near = run("GQ_EMU_COUNT=1", cases)
    assert.truthy(near:find "^done" and near:find "gauss_f32", near)
    assert.truthy(run("GQ_EMU_SHARED=20000", cases):find "^done")      -- matrices in the device's memory
    local few = run("GQ_EMU_COUNT=1", [[
      local z0 = gq.ones({ 70, 2 }, { device = "cuda", requires_grad = true })
      local z, info = gq.odeint(function(_, z) return -z * z end, z0, { 0, 1 }, { gradient = "gqc", method = "rk4",
        step_size = 1 / 64 })
      z:sum():backward()
      print(info.steps_backward)]])
    assert.truthy(few:find "^64\n" and few:find " 1 gauss_f32\n", few)
  end)

  it("calls plainly what tables in constant memory have no room for", function()
    local text = run("GQ_CUDA_CACHE= GQ_EMU_DUMP=" .. temporary, [[
      local function solve(device)
        local w = (gq.randn({ 100, 3, 3 }, { seed = 1, dtype = "float64" }) * 0.5):to(device)
        local z0 = gq.randn({ 40, 3 }, { seed = 2, dtype = "float64" }):to(device)
        w.requires_grad = true
        local z, info = gq.odeint(function(t, x)
          for i = 1, 100 do x = gq.tanh(x:matmul(w[i]) + t) end
          return x
        end, z0, { 0, 1 }, { method = "dopri8", gradient = "direct", step_size = 1 })
        z:square():sum():backward()
        return z:to "cpu", w.grad:to "cpu", info.lowering
      end
      local z, g, lowering = solve "cuda"
      local z_cpu, g_cpu = solve "cpu"
      print(lowering, (z - z_cpu):abs():max():item() < 1e-13, (g - g_cpu):abs():max():item() < 1e-12)]])
    assert.equal("tiles\ttrue\ttrue\n", text)
    local both = 0                       -- kernels with as many steps as there is room for, and calls behind them
    for path in io.popen("ls " .. temporary .. "/*.cu"):lines() do
      if helper.read(path):find "\n  gq_run%(%d+, %d+%);\n.*\n  r%d+%(%d+, %d+" then both = both + 1 end
    end
    assert.equal(2, both)
    os.execute("rm -f " .. temporary .. "/*.cu")
  end)

  it("is decided over by the device as by the host, and halts where it should", function()
    local cases = [[
      local w
      local function f(t, x) return gq.sin(x * 3) * (t * 4):cos() - x * w end
      local function case(name, t, options, g)
        w = gq.full({ 3 }, 0.3, { device = "cuda", dtype = options.dtype, requires_grad = true })
        local z0 = gq.randn({ 70, 3 }, { seed = 5, device = "cuda", dtype = options.dtype, requires_grad = true })
        options.dtype = nil
        gq.core.steplog(true)
        local ok, z, info = pcall(gq.odeint, g or f, z0, t, options)
        for _, row in ipairs(gq.core.steplog()) do io.write(("%%a %%a %%a %%s; "):format(table.unpack(row))) end
        local why
        if ok then ok, why = pcall(function() z:square():sum():backward() end) end
        if not ok then return print(name, (tostring(why or z):gsub("0x%%x+", ""))) end
        io.write(("%%s\t%%a %%a %%a %%a "):format(name, z:sum():item(), z0.grad:sum():item(),
          w.grad and w.grad:sum():item() or 0, info.quadrature_error or 0))
        print(info.steps, info.rejected, info.nfe, info.t, info.steps_backward, info.rejected_backward, info.nodes)
      end
      case("plain", { 0, 2 }, { gradient = "direct" })
      case("back", { 2, 0.5, 0 }, { gradient = "direct", dtype = "float64" })
      case("times", { 0, 0.1, 0.2, 0.25, 1, 1.1, 2 }, { gradient = "gq", rtol = 1e-6, dtype = "float64" })
      case("dopri8", { 0, 0.3, 2 }, { method = "dopri8", gradient = "direct", rtol = 1e-7, dtype = "float64" })
      case("tsit5", { 0, 2 }, { method = "tsit5", gradient = "aca", first_step = 1.9 })
      case("norm", { 0, 1, 2 }, { norm = "max", gradient = "adjoint", overshoot = true },
        function(t, x) return gq.sin(x * 3) * (t * 4):cos() - x:mul(0.3) end)
      case("jumps", { 0, 0.5, 2 }, { grid_points = { 0.7, 1.3 }, gradient = "aca" },
        function(t, x) return gq.where(t:lt(0.7), x, gq.where(t:lt(1.3), -x, x * 2)) end)
      case("there and back", { 0, 0.4, 2 }, { gradient = "gq", gq = { paper = true }, rtol = 1e-5, dtype = "float64" })
      case("outside", { 0, 0.4, 2 }, { gradient = "seminorm", adjoint = { trajectory = "reverse" } })
      case("past", { 0, 0.4, 2 }, { gradient = "gq", gq = { paper = true, nodes = "step" }, overshoot = true })
      case("backwards", { 1, 0 }, { gradient = "gq", gq = { paper = true },
        adjoint = { max_step = 0.1, norm = "max" } })
      case("dopri8 back", { 0, 1 }, { gradient = "gq", gq = { paper = true }, adjoint = { method = "dopri8" } })
      case("most back", { 0, 2 }, { gradient = "gq", gq = { paper = true }, adjoint = { max_steps = 3 } })
      case("most", { 0, 2 }, { max_steps = 5 })
      case("least", { 0, 2 }, { min_step = 0.2, rtol = 1e-9 })
      case("along", { 0, 2 }, { gradient = "gq", rtol = 1e-5 })
      case("along, nodes in steps", { 0, 0.4, 2 }, { gradient = "gq", gq = { nodes = "step" }, rtol = 1e-6 })
      case("along, moments", gq.linspace(0, 2, 41):totable(), { gradient = "gq", dtype = "float64" })
      case("along dopri8", { 2, 0 }, { gradient = "gq", method = "dopri8", rtol = 1e-7, dtype = "float64" })
      case("along and past", { 0, 0.4, 2 }, { gradient = "gq", gq = { nodes = "step" }, overshoot = true })
      case("along to another", { 0, 2 }, { gradient = "gq", adjoint = { method = "dopri8", norm = "max" } })
      case("most along", { 0, 2 }, { gradient = "gq", rtol = 1e-5, adjoint = { max_steps = 3 } })
      case("jumps along", { 0, 0.5, 2 }, { grid_points = { 0.7, 1.3 }, gradient = "gq" },
        function(t, x) return gq.where(t:lt(0.7), x * w, gq.where(t:lt(1.3), -x, x * 2)) end)
      case("checked", { 0, 2 }, { gradient = "check" })
      case("longest", { 0, 2 }, { max_step = 0.05, gradient = "aca" })
      case("wild", { 0, 2 }, {}, function(_, x) return x:square() * 1e3 end)
      case("nan", { 0, 2 }, {}, function(t, x) return (1 - t):sqrt() * x end)
      case("pid", { 0, 3 }, { controller = { pcoeff = 0.2, icoeff = 0.4, dcoeff = 0.1 }, rtol = 1e-5, gradient = "gq" })
    ]]
    local function all(environment) return (run(environment, cases):gsub("%-nan", "nan")) end
    local want = all "GQ_CUDA_HOST=1"
    for _, what in ipairs { "most\t5 steps", "most back\t[^\n]*backward pass",
      "most along\t[^\n]*backward pass", "along\t%-?0x", "past\t%-?0x",
      "wild\tthe step", "nan\ta value that is not finite", "pid\t%-?0x" } do
      assert.truthy(want:find(what), want)
    end
    for _, environment in ipairs { "", "GQ_EMU=shuffled GQ_EMU_LATE=1 GQ_CUDA_POISON=1" } do
      local got, line = all(environment):gmatch "[^\n]+", 0
      for text in want:gmatch "[^\n]+" do
        line = line + 1
        assert.is_true(text == got(), "case " .. line .. " differs with " .. environment)
      end
    end
  end)

  it("waits once for eight attempts, each of which is three launches at most, there and back", function()
    local solve = [[
      local z0 = gq.ones({%d, 2}, {device = "cuda", requires_grad = true})
      local w = gq.ones({2}, {device = "cuda", requires_grad = %s})
      local z, info = gq.odeint(function(t, x) return gq.tanh(x) * (t * 5):cos() * w end, z0, {0, %d}, %s)
      if %s then z:square():mean():backward() end
      print("attempts", info.steps + info.rejected + (info.steps_backward or 0) + (info.rejected_backward or 0))]]
    local function count(rows, learns, t, options, back)
      local text = run("GQ_EMU_COUNT=1", solve, rows, learns, t, options, back)
      local attempts, launches, waits = text:match "attempts\t(%d+).- (%d+) launches, (%d+) waits"
      return tonumber(attempts), tonumber(launches), tonumber(waits)
    end
    local function bounded(options, back, rows, learns)
      local attempts, launches, waits = count(rows or 70, learns or false, 5, options, back)
      local more, launched, waited = count(rows or 70, learns or false, 40, options, back)
      assert.is_true(more - attempts >= 64, more - attempts)
      assert.is_true(launched - launches <= 3 * (more - attempts + 8), launched - launches)
      local nodes = learns and 5 or 0   -- batches of them, which are waited for
      assert.is_true(waited - waits <= (more - attempts) / 8 + 3 + nodes, waited - waits)
    end
    bounded('{gradient = "aca", rtol = 1e-6}', false)
    bounded('{gradient = "gq", gq = {paper = true}, rtol = 1e-6}', true)
    bounded('{gradient = "gq", rtol = 1e-6, audit = false}', true)   -- along the kept solution
    bounded('{gradient = "gq", gq = {nodes = "step"}, rtol = 1e-6, audit = false}', true, 64, true)
  end)

  it("launches together what solvers do to vectors: less than one more a time and a node", function()
    local solve = [[
      local w = gq.randn({2, 2}, {seed = 1, device = "cuda", requires_grad = true})
      local z, info = gq.odeint(function(t, x) return gq.tanh(x:matmul(w) + t) end,
        gq.ones({70, 2}, {device = "cuda"}), gq.linspace(0, 1, %d):totable(), {gradient = "gq", gq = {nodes = %d}})
      z:square():mean():backward()
      print("nodes", info.nodes)]]
    local function count(times, nodes)
      local text = run("GQ_EMU_COUNT=1", solve, times, nodes)
      local all, launches, waits = text:match "nodes\t(%d+).- (%d+) launches, (%d+) waits"
      assert.truthy(all, text)
      return tonumber(all), tonumber(launches), tonumber(waits)
    end
    local nodes, launches, waits = count(8, 5)
    local _, launched, waited = count(120, 5)
    assert.is_true(launched - launches < 112 / 2 and waited - waits < 10, launched - launches)
    local more
    more, launched, waited = count(8, 40)
    assert.is_true(launched - launches < more - nodes and waited - waits < 10, launched - launches)
  end)

  it("takes any number of tensors", function()
    local function sum(device)
      local parts = {}
      for i = 1, 260 do parts[i] = gq.full({ 2 }, i / 1000, { device = device, dtype = "float64" }) end
      return (gq.odeint(function(_, x)
        local y = -x
        for _, part in ipairs(parts) do y = y + part end
        return y
      end, gq.ones(40, 2, { device = device, dtype = "float64" }), { 0, 1 }))
    end
    assert.close(sum "cuda", sum "cpu", 1e-13)
  end)

  local function each_fails(tried, engine, environment)
    environment = environment or ""
    local calls = tonumber(run("GQ_EMU_COUNT=1 " .. environment, training, 1, engine):match "(%d+) calls")
    local checked = "local ok, e = pcall(function() " .. training:format(1, engine) ..
      " end) print(ok, e) print(gq.ones(3):sum():item())"
    for n = 1, calls - 1, math.max(1, calls // tried) do
      local text, ended = run(environment .. " GQ_EMU_FAIL=" .. n, (checked:gsub("%%", "%%%%")))
      assert.truthy(ended, n .. " of " .. calls .. ": " .. text)
      local told = text:find "false\t.*\n3"
      assert.truthy(told, n .. " of " .. calls .. ": " .. text)
    end
  end
  it("fails with an error where a call of the driver does, and leaves the CPU working", function()
    each_fails(25, "direct")
    each_fails(10, "gq")
    each_fails(10, 'direct", batch = "independent')
    each_fails(10, "gq", "GQ_CUDA_TILES=0")
  end)
  -- An error of its call alone: told, and then the numbers are those of a process that met none.
  local function each_recovers(tried, engine, as, environment)
    environment = (environment or "") .. " "
    local steps = training:format(2, engine .. '", audit = false, method = "dopri5')
    local text = run("GQ_EMU_COUNT=1 " .. environment, "%s", steps)
    local calls, want = tonumber(text:match "(%d+) calls"), text:match "0x%S+ 0x%S+ "
    local opened = tonumber(run("GQ_EMU_COUNT=1", "gq.ones(1, {device = 'cuda'})"):match "(%d+) calls")
    local again = "local told for _ = 1, 3 do local ok, e = pcall(function() " .. steps ..
      " end) io.write '\\n' if ok then break end told = e end print(told)"
    for n = opened + 1, calls - 1, math.max(1, calls // tried) do
      local got, ended = run(environment .. ("GQ_EMU_FAIL=%d GQ_EMU_FAIL_AS=%d"):format(n, as), "%s", again)
      local what = n .. " of " .. calls .. ": " .. got
      assert.is_true(ended and got:find(want, 1, true) ~= nil, what)
      -- of no memory nobody is told where the next try has some
      assert.is_true(as == 2 or got:find "\n[^\n]*cuda: cu" ~= nil, what)
      assert.falsy(got:find "the device is lost", what)
    end
  end
  it("goes on after an error that leaves the device as it is, to the same numbers", function()
    each_recovers(12, "direct", 1)
    each_recovers(12, "direct", 701, "GQ_CUDA_TILES=0")
    each_recovers(12, "gq", 1)
    each_recovers(12, 'gq", batch = "independent', 701)
    each_recovers(12, "direct", 2)
    each_recovers(12, "gq", 2)
  end)

  it("fails so at any call #slow", function()
    for _, engine in ipairs { "direct", "gq" } do each_fails(math.huge, engine) end
    each_fails(math.huge, 'direct", batch = "independent')
    each_fails(math.huge, 'gq", batch = "independent')
    each_fails(math.huge, "direct", "GQ_CUDA_TILES=0")
    for _, as in ipairs { 1, 2, 701 } do
      for _, engine in ipairs { "direct", "gq" } do each_recovers(math.huge, engine, as) end
    end
  end)

  it("launches phases by operations as graphs, to the same bits; plainly where a driver takes none", function()
    local function launches(text) return tonumber(text:match "(%d+) launches") end
    local function losses(text)
      local all = {}
      for x in text:gmatch "0x1%S+" do all[#all + 1] = x:match "^0x1[%x%.]*p[+-]%d+" end
      return all
    end
    for _, engine in ipairs { "direct", "gq" } do
      local plain = run("GQ_EMU_COUNT=1 GQ_CUDA_TILES=0 GQ_CUDA_GRAPHS=0", training, 6, engine)
      local graphs = run("GQ_EMU_COUNT=1 GQ_CUDA_TILES=0", training, 6, engine)
      assert.is_true(tonumber(graphs:match "(%d+) graph") > 20, graphs)
      assert.is_true(launches(graphs) < 0.7 * launches(plain), plain .. graphs)
      for _, environment in ipairs { "", "GQ_EMU_LATE=1 GQ_CUDA_POISON=1 ", "GQ_EMU_CAPTURE=none ",
        "GQ_EMU_CAPTURE=4 " } do
        local text = run(environment .. "GQ_EMU_COUNT=1 GQ_CUDA_TILES=0", training, 6, engine)
        assert.equal(6, #losses(text), text)
        assert.same(losses(plain), losses(text))
        if environment:find "none" then assert.falsy(text:find " graph\n") end
      end
    end
  end)

  it("makes products of a graph as before it: of a matrix that lies elsewhere each time, at no multiple of 16",
    function()
      local moving = [[
        gq.set_default_device "cuda"
        local kept = {}
        for i = 1, 4 do
          kept[i] = gq.randn({24 * 24 + 1}, {seed = 3})
          local w = kept[i][{ {2, 24 * 24 + 1} }]:view({24, 24})
          local y = gq.odeint(function(t, x) return gq.tanh(gq.tanh(x:matmul(w)):matmul(w)) end,
            gq.ones({70, 24}), {0, 1}, {method = "rk4", step_size = 0.25, gradient = "none"})
          io.write(("%%a "):format(y:sum():item()))
        end
      ]]
      local plain = run("GQ_CUDA_TILES=0 GQ_CUDA_GRAPHS=0", moving)
      local graphs = run("GQ_CUDA_TILES=0 GQ_EMU_COUNT=1", moving)
      assert.truthy(graphs:find " graph\n", graphs)
      assert.falsy(graphs:find "asked for", graphs)
      assert.equal(plain, graphs:sub(1, #plain))
      assert.equal(plain:match "%S+ " :rep(4), plain)
    end)
end)

-- What a quick run of an example arrives at.
local function example(environment, device, name, arguments)
  local command = "env %s '%s' --device %s examples/%s.lua --quick --quiet --json %s/record %s"
  local text, code = helper.output(command:format(environment, helper.gqlua, device, name, temporary, arguments))
  assert.equal(0, code, text)
  return gq.json.decode(helper.read(temporary .. "/record")).summary
end

describe("examples", function()
  local function same(environment, name, arguments)
    local here, there, seen = example("", "cpu", name, arguments), example(environment, "cuda", name, arguments), 0
    for key, value in pairs(here) do
      if key:find "^test_" or key:find "^train_" then
        seen = seen + 1
        assert.close(there[key], value, 1e-4, 1e-6)
      end
    end
    assert.equal(name == "nested_spheres" and 3 or 2, seen)
  end

  it("train as on the CPU, by tiles and by operations", function()
    for _, environment in ipairs { "", "GQ_CUDA_TILES=0" } do
      for _, name in ipairs { "nested_spheres", "sines", "train_ou" } do same(environment, name, "--gradient gq") end
    end
  end)

  it("train along Brownian paths, by each engine", function()
    for _, engine in ipairs { "direct", "aca", "adjoint", "reversible" } do
      same("", "train_ou", "--gradient sde-" .. engine)
    end
  end)
end)

describe("a Brownian path", function()
  it("is made by the device, the same bits", function()
    local function still(_, z) return 0 * z end
    local sde = gq.sde { drift = still, diffusion = function(_, z) return gq.ones_like(z) end, noise = "diagonal" }
    for dtype, times in helper.each({ "float32", "float64" }, { { 0, 0.3, 0.7, 1, 1.77, 2 }, { 1.9, 1.3, 0.01 } }) do
      local function solve(device)
        local z0 = gq.zeros(33, 3, { device = device, dtype = dtype })
        return gq.sdeint(sde, z0, times, { dt = 0.17, method = "heun",
          brownian = gq.brownian { t1 = 2, shape = { 33, 3 }, seed = 7, dtype = dtype, tol = 1e-3 } }):totable()
      end
      assert.same(solve "cpu", solve "cuda")
    end
    local z = gq.zeros(4, 3, { device = "cuda" })
    raises("Brownian path 0 1 times 3", gq.sdeint, sde, z, { 0, 3 }, { dt = 0.5,
      brownian = gq.brownian { t1 = 1, shape = { 4, 3 } } })
    local text = run("GQ_EMU_COUNT=1", [[
      local sde = gq.sde {drift = function(t, z) return -z end, diffusion = function(t, z) return z end,
        noise = "diagonal"}
      local z0 = gq.ones(50, 2, {device = "cuda"})
      print(gq.sdeint(sde, z0, {0, 1}, {dt = 0.1, gradient = "none", seed = 1}):sum():item())]])
    assert.truthy(text:find "%s+10 path_f32\n", text)
  end)

  it("is the CPU's, whichever engine goes along it", function()
    for _, c in ipairs { { "direct", "heun" }, { "aca", "euler" }, { "adjoint", "midpoint" }, { "aca", "srk" },
      { "direct", "log_ode" }, { "reversible", "reversible_heun" } } do
      local levy = c[2] == "srk" and "space-time" or c[2] == "log_ode" and "foster" or "none"
      local function solve(device)
        local o = { device = device, dtype = "float64", requires_grad = true }
        local w, z0 = gq.randn({ 2, 2 }, { seed = 1, device = device, dtype = "float64", requires_grad = true }),
          gq.ones(70, 2, o)
        local ito, general = c[2] == "euler" or c[2] == "srk", c[2] == "log_ode"
        local sde = gq.sde { drift = function(t, z) return gq.tanh(z:matmul(w)) - z * t end,
          noise = general and "general" or "diagonal", calculus = ito and "ito" or "stratonovich",
          diffusion = function(_, z) return general and z:unsqueeze(3) * gq.tanh(w) or z * 0.3 end }
        local z, info = gq.sdeint(sde, z0, { 0, 0.3, 1 }, { dt = 0.05, method = c[2], gradient = c[1],
          brownian = gq.brownian { t1 = 1, shape = { 70, 2 }, seed = 5, dtype = "float64", levy_area = levy,
            device = device } })
        z:square():mean():backward()
        return { z:to "cpu", z0.grad:to "cpu", w.grad:to "cpu" }, info
      end
      local got, info = solve "cuda"
      assert.equal("tiles", info.lowering)
      for i, x in ipairs(solve "cpu") do assert.close(got[i], x, 1e-12, 1e-14) end
    end
  end)
end)
