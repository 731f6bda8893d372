-- lanes_spec.lua -- batch = "independent" on CUDA: a whole solve in one launch. Rows must have the bits that the host's
-- loop over lanes gives them with the same programs, and the CPU's steps; halts, orders of blocks and company change
-- nothing.

local gq = require "gq"
local helper = require "tests.helper"

local temporary = os.tmpname()
os.remove(temporary)
teardown(function() os.remove(temporary) end)

-- Output and errors of a script in a process of its own.
local function run(environment, script)
  helper.write(temporary, "local gq = require 'gq'\n", script)
  local text = helper.output(("env %s '%s' %s"):format(environment, helper.gqlua, temporary))
  return (text:gsub("%-nan", "nan"))
end

-- Lotka-Volterra: rates of each row are cut with the rows.
local predators = [[
  local function there(x, o) return x:to(o.dtype or "float64"):to(o.device or "cuda") end
  local function volterra(n, times, o)
    local z0 = there(gq.rand({ n, 2 }, { seed = 1, device = "cpu" }) + 0.5, o)
    local p = there(gq.rand({ n, 4 }, { seed = 2, device = "cpu" }) + 0.5, o)
    o.dtype, o.device, o.batch, o.gradient = nil, nil, "independent", "none"
    return gq.odeint(function(_, z)
      local x, y = z:narrow(2, 1, 1), z:narrow(2, 2, 1)
      local a, b, c, d = p:narrow(2, 1, 1), p:narrow(2, 2, 1), p:narrow(2, 3, 1), p:narrow(2, 4, 1)
      return gq.cat({ a * x - b * x * y, c * x * y - d * y }, 2)
    end, z0, times, o)
  end
]]

-- Lines of each, with a sum of all bits; what is not a number has but one.
local cases = predators .. [[
  local function tell(name, ok, z, info)
    if not ok then return print(name, (tostring(z):gsub("0x%x+", ""))) end
    local bits = 0
    for _, x in ipairs(z:to("cpu"):flatten():totable()) do
      bits = bits * 31 + (x == x and string.unpack("i8", string.pack("d", x)) or 7)
    end
    print(name, bits, info.steps, info.rejected, info.nfe, info.t, info.status, info.message)
    for _, k in ipairs { "nfe", "steps", "rejected", "t" } do
      io.write(table.concat(info.samples[k]:totable(), " "), " ")
    end
    print(table.concat(info.samples.status, " "))
  end
  local function case(name, times, o) tell(name, pcall(volterra, o.rows or 41, times, o)) end
  case("plain", { 0, 3 }, { dtype = "float32" })
  case("times", { 0, 0, 0.1, 0.2, 1, 1, 2 }, { rtol = 1e-6 })
  case("back", { 2, 1.5, 0 }, { rtol = 1e-5, norm = "max" })
  case("dopri8", { 0, 0.3, 2 }, { method = "dopri8", rtol = 1e-7 })
  case("tsit5", { 0, 2 }, { method = "tsit5", first_step = 1.9 })
  case("pid", { 0, 1, 3 }, { controller = { pcoeff = 0.2, icoeff = 0.4, dcoeff = 0.1 }, rtol = 1e-5 })
  case("no slope", { 0, 1 }, { method = "fehlberg2", rtol = 1e-4 })
  case("fixed", { 0, 0.33, 1 }, { method = "rk4", step_size = 0.1 })
  case("each", { 0, 0.33, 1 }, { method = "euler" })
  case("most", { 0, 9 }, { max_steps = 9, rtol = 1e-6 })
  case("some", { 0, 1, 9 }, { max_steps = 38, rtol = 1e-6, throw = false })
  case("least", { 0, 9 }, { min_step = 0.2, rtol = 1e-6, throw = false })

  local w = there(gq.randn({ 3, 3 }, { seed = 3, device = "cpu" }), {})
  local shift = there(gq.randn({ 2, 40, 3 }, { seed = 4, device = "cpu" }), {})
  local z0 = there(gq.randn({ 40, 3 }, { seed = 5, device = "cpu" }), {})
  local function other(name, f, z, o)
    o = o or {}
    o.batch, o.gradient, o.throw = "independent", "none", false
    tell(name, pcall(gq.odeint, f, z, { 0, 0.7, 2 }, o))
  end
  local function drift(t, z) return gq.tanh(z:matmul(w) + shift:narrow(1, 1, 1):squeeze(1)) * (t * 4):cos() end
  other("weights", drift, z0)
  other("matrices", function(_, z) return (z:matmul(z) * 0.1 - z):tanh() end, z0:narrow(1, 1, 36):reshape { 12, 3, 3 })
  other("one", function(t, z) return gq.sin(z * t) end, z0:narrow(1, 1, 1))
  other("wild", function(t, z) return z * z:abs() * (t + 1) end, z0 * 3, { max_steps = 300 })
  other("slopes", function(_, z) return (z + 1):sqrt() end, z0)
  other("starts", function(_, z) return z end, 1 / (z0:gt(-1):to "float64") - z0, { method = "bosh3" })
]]

-- Gradients of z0 and of what is cut with the rows, with every bit, and of weights that all rows share.
local gradients = [[
  local function bits(x)
    local sum = 0
    for _, v in ipairs(x:to("cpu"):flatten():totable()) do
      sum = sum * 31 + (v == v and string.unpack("i8", string.pack("d", v)) or 7)
    end
    return sum
  end
  local function case(name, n, times, o, f)
    local dtype, device = o.dtype or "float64", o.device or "cuda"
    local function there(shape, seed)
      local x = gq.randn(shape, { seed = seed, device = "cpu", dtype = "float64" }):to(dtype):to(device)
      x.requires_grad = true
      return x
    end
    local z0, c, w = there({ n, 3 }, 1), there({ 2, n, 3 }, 2), there({ 3, 3 }, 3)
    o.dtype, o.device, o.batch = nil, nil, "independent"
    local z, info = gq.odeint(function(t, z)
      if f then return f(t, z, c, w) end
      return gq.tanh(z:matmul(w) + c:narrow(1, 1, 1):squeeze(1)) * (t * 4):cos()
    end, z0, times, o)
    local finite = gq.where(z:eq(z), z, 0)
    local ok, message = pcall(function() (finite * finite):sum():backward() end)
    if not ok then return print(name, (tostring(message):gsub("0x%x+", ""))) end
    print(name, bits(z), bits(z0.grad), bits(c.grad), info.steps, info.nfe, info.nfe_backward, info.steps_backward,
      info.status)
    print(table.concat(info.samples.nfe_backward:totable(), " "), table.concat(info.samples.status, " "))
    io.write("sums ", dtype)
    for _, v in ipairs(w.grad:to("cpu"):flatten():totable()) do io.write((" %.17g"):format(v)) end
    print()
    return z0.grad, w.grad, info
  end
]]
local ways_back = gradients .. [[
  case("direct", 41, { 0, 0.3, 2 }, { gradient = "direct" })
  case("aca", 41, { 2, 2, 1.5, 0 }, { gradient = "aca", rtol = 1e-6 })
  case("single", 70, { 0, 1 }, { gradient = "direct", dtype = "float32" })
  case("dopri8", 41, { 0, 0.3, 0.4, 2 }, { gradient = "direct", method = "dopri8", rtol = 1e-7 })
  case("no slope", 41, { 0, 0.3, 1 }, { gradient = "aca", method = "fehlberg2", rtol = 1e-4 })
  case("fixed", 41, { 0, 0.33, 1 }, { gradient = "direct", method = "rk4", step_size = 0.1 })
  case("many", 41, { 0, 0.3, 3 }, { gradient = "direct", rtol = 1e-9, atol = 1e-9 })
  case("some", 41, { 0, 0.3, 3 }, { gradient = "direct", throw = false, max_steps = 17 })
  case("roots", 41, { 0, 0.3, 3 }, { gradient = "direct", throw = false }, function(_, z, c, w)
    return (z + 1):sqrt():matmul(w) + c:narrow(1, 2, 1):squeeze(1)
  end)
  case("steep", 41, { 0, 1 }, { gradient = "direct" }, function(_, z, c)
    return (z * 0):sqrt() + c:narrow(1, 1, 1):squeeze(1)
  end)
  case("one", 1, { 0, 0.5 }, { gradient = "aca" }, function(t, z, c)
    return (z * c:narrow(1, 1, 1):squeeze(1) * t):sin()
  end)
  local function small(t, z, c)
    local x, y = z:narrow(2, 1, 1), z:narrow(2, 2, 2)
    return gq.cat({ y * x - t, x * x:exp() }, 2):tanh() * c:narrow(1, 2, 1):squeeze(1) + z:sum(2, true)
  end
  case("small", 41, { 0, 0.3, 2 }, { gradient = "direct" }, small)
  case("small, dopri8", 70, { 2, 0.3, 0.1 }, { gradient = "aca", method = "dopri8", dtype = "float32" }, small)
  case("small, on a grid", 33, { 0, 0.33, 1 }, { gradient = "direct", method = "rk4", step_size = 0.1 }, small)
]]

-- By the adjoint equation and its nodes; scale = false, since norms of cotangents are summed in another order.
local adjoints = gradients .. [[
  local function adjoint(name, n, times, o, backward, f)
    o.gradient, o.adjoint = o.gradient or "gq", { scale = false }
    for k, v in pairs(backward or {}) do o.adjoint[k] = v end
    local _, _, info = case(name, n, times, o, f)
    if info then
      print(info.nodes, info.nodes_wanted, info.restarts, ("%.3g %.3g"):format(info.reconstruction, info.audit or 0))
      print(table.concat(info.samples.nodes:totable(), " "))
    end
  end
  adjoint("step", 41, { 0, 0.3, 2 }, {})
  adjoint("back", 41, { 2, 2, 1.5, 0 }, { rtol = 1e-6 })
  adjoint("single", 70, { 0, 1 }, { dtype = "float32" })
  adjoint("nfe", 41, { 0, 0.3, 0.4, 2 }, { rtol = 1e-6, gq = { nodes = "nfe", C = 0.5 } })
  adjoint("capped", 41, { 0, 0.3, 2 }, { rtol = 1e-6, gq = { nodes = "nfe", C = 2, max_nodes = 20 } })
  adjoint("fixed nodes", 41, { 0, 0.3, 2 }, { gq = { nodes = 300, panels = 3 } })
  adjoint("lobatto", 41, { 0, 0.3, 2 }, { gq = { nodes = 7, quadrature = "gauss-lobatto" } })
  adjoint("dopri8", 41, { 0, 0.3, 0.4, 2 }, { method = "dopri8", rtol = 1e-7 })
  adjoint("no slope", 41, { 0, 0.3, 1 }, { method = "fehlberg2", rtol = 1e-4 })
  adjoint("fixed", 41, { 0, 0.33, 1 }, { method = "rk4", step_size = 0.1 })
  adjoint("check", 41, { 0, 0.3, 2 }, { gradient = "check" })
  adjoint("many", 300, { 0, 0.3, 3 }, { rtol = 1e-9, atol = 1e-9 })
  adjoint("steps", 41, { 0, 0.3, 2 }, {}, { max_steps = 3 })
  adjoint("roots", 41, { 0, 0.3, 1 }, { throw = false }, {}, function(_, z, c, w)
    return (z + 1):sqrt():matmul(w) + c:narrow(1, 2, 1):squeeze(1)
  end)
  adjoint("one", 1, { 0, 0.5 }, {}, {}, function(t, z, c)
    return (z * c:narrow(1, 1, 1):squeeze(1) * t):sin()
  end)
]]

-- The device's lines are those of the host's loop; sums over rows that differ in order are equal to rounding.
local function compare(script, patterns)
  local want = run("GQ_CUDA_HOST=1", script)
  for _, what in ipairs(patterns) do assert.truthy(want:find(what), what .. " in " .. want) end
  for _, environment in ipairs { "GQ_EMU=backwards GQ_EMU_CLOCK=6000000", "GQ_EMU_LATE=1 GQ_CUDA_POISON=1",
    "GQ_EMU=shuffled GQ_EMU_CLOCK=11000000" } do
    local got, line = run(environment, script):gmatch "[^\n]+", 0
    for text in want:gmatch "[^\n]+" do
      line = line + 1
      local other = got() or "nothing"
      local sums = text:find "^sums"
      assert.is_true(text == other or sums ~= nil, ("line %d, %s:\n%s\n%s"):format(line, environment, text, other))
      local numbers, most = other:gmatch "%S+", text:find "float32" and 2e-5 or 1e-12
      for x in (sums and text or ""):gmatch "%S+" do
        local word = numbers()
        local a, b = tonumber(x), tonumber(word)
        assert.is_true(x == word or math.abs(a - b) <= most * (math.abs(a) + 1), text .. "\n" .. other)
      end
    end
  end
end

describe("rows with steps of their own", function()
  it("have the bits of the host's loop, in any order of blocks and threads, halted or not", function()
    compare(cases, { "most\t[^\n]*sample 1: 9 steps", "ok max_steps", "ok step_underflow", "ok non_finite" })
  end)

  it("are differentiated as by the host's loop, to the same bits but for sums over all rows", function()
    compare(ways_back, { "\nsome\t[^\n]*\n[^\n]*ok max_steps", "steep\t[^\n]*not finite" })
  end)

  it("are solved backwards with nodes of their own as by the host's loop", function()
    compare(adjoints, { "steps\t[^\n]*sample 1: 3 steps" })
  end)

  it("have a thread each where they are short and no operation mixes them", function()
    local function kernels(script)
      os.execute("mkdir " .. temporary .. "_")
      run(("GQ_CUDA_CACHE= GQ_EMU_DUMP=%s_"):format(temporary), script)
      local text = helper.output(("cat %s_/*; rm -r %s_"):format(temporary, temporary))
      local _, rows = text:gsub("#define GQ_ROW 32\n", "")
      local _, all = text:gsub("GQ_ENTRY%(%l+, tile_of", "")
      return rows, all
    end
    local small = [[
      local w = gq.ones({ 2, 2 }, { device = "cuda" })
      local z0 = gq.randn({ 40, 2 }, { device = "cuda", requires_grad = true })
      gq.odeint(function(t, z) return gq.cat({ z:narrow(2, 2, 1), -z:narrow(2, 1, 1) * t }, 2):sin() end, z0, { 0, 1 },
        { batch = "independent", gradient = "%s" }):sum():backward()
    ]]
    assert.same({ 2, 2 }, { kernels(small:format "direct") })
    assert.same({ 0, 2 }, { kernels((small:gsub(":sin%(%)", ":matmul(w)")):format "direct") })
  end)

  it("are solved in one launch without a wait; halts are launches more", function()
    local count = predators .. [[
      local _, info = volterra(3000, { 0, 1, 5 }, { dtype = "float32" })
      print(info.lowering, info.steps, gq.core and "")
    ]]
    local text = run("GQ_EMU_COUNT=1", count)
    assert.equal(1, tonumber(text:match "(%d+) lanes"), text)
    assert.is_true(tonumber(text:match "(%d+) waits") < 20, text)
    local steps = assert(text:match "lanes\t(%d+)", text)
    text = run("GQ_EMU_COUNT=1 GQ_EMU_CLOCK=5000000", count)
    assert.equal(steps, text:match "lanes\t(%d+)")
    assert.is_true(tonumber(text:match "(%d+) lanes") > 1, text)
    assert.truthy(run("GQ_EMU_INTERRUPT=3 GQ_EMU_CLOCK=5000000", count):find "interrupted")
  end)

  it("go back with their nodes in one launch, halts are launches more; matrices and a state alone, too", function()
    local script = [[
      local z0 = gq.randn({ 200, 2, 2 }, { seed = 1, device = "cpu" }):to "cuda"
      local p = gq.randn({ 200, 2 }, { seed = 2, device = "cpu" }):to "cuda"
      local wants = { z0 = { z0 }, p = { p }, both = { z0, p } }
      for _, x in ipairs(wants[os.getenv "WANTS"]) do x.requires_grad = true end
      local z, info = gq.odeint(function(t, z) return (z:matmul(z) * 0.1 - z):tanh() * p:unsqueeze(3) * t end, z0,
        { 0, 1, 3 }, { batch = "independent", gradient = "gq", gq = { guards = false } })
      local sum = (z * z):sum()
      sum:backward()
      print("sums", (z0.grad or z0):to("cpu"):sum():item(), (p.grad or p):to("cpu"):sum():item(), info.nodes > 0)
    ]]
    for _, wants in ipairs { "z0", "p", "both" } do
      local host = run("GQ_CUDA_HOST=1 WANTS=" .. wants, script)
      local text = run("GQ_EMU_COUNT=1 WANTS=" .. wants, script)
      assert.equal(1, tonumber(text:match "(%d+) adjoint"), text)
      local halted = run("GQ_EMU_COUNT=1 GQ_EMU_CLOCK=4000000 WANTS=" .. wants, script)
      assert.is_true(tonumber(halted:match "(%d+) adjoint") > 1, halted)
      assert.equal(text:match "sums[^\n]*", halted:match "sums[^\n]*")
      local a, b = { host:match "sums%s+(%S+)%s+(%S+)" }, { text:match "sums%s+(%S+)%s+(%S+)" }
      for i = 1, 2 do
        assert.is_true(math.abs(a[i] - b[i]) <= 2e-5 * (math.abs(a[i]) + 1), host .. "\n" .. text)
      end
      assert.equal(host:match "(%a+)\n", text:match "sums[^\n]*%s(%a+)\n")
    end
  end)

  it("take the CPU's steps, to its numbers", function()
    local volterra = load("local gq = ... " .. predators .. " return volterra")(gq)
    local times = { 0, 0.4, 6 }
    local exact = volterra(300, times, { device = "cpu", rtol = 1e-11, atol = 1e-11 })
    for _, dtype in ipairs { "float32", "float64" } do
      local cpu, a = volterra(300, times, { device = "cpu", dtype = dtype, rtol = 1e-5, atol = 1e-5 })
      local cuda, b = volterra(300, times, { dtype = dtype, rtol = 1e-5, atol = 1e-5 })
      assert.equal("lanes", b.lowering)
      for _, k in ipairs { "nfe", "steps", "rejected", "t" } do
        assert.same(a.samples[k]:totable(), b.samples[k]:totable())
      end
      local function off(x) return (x:to("cpu"):to "float64" - exact):abs():max():item() end
      assert.below(off(cuda), 2 * off(cpu) + 1e-6)
      if dtype == "float64" then assert.below(helper.relative(cuda:to "cpu", cpu), 1e-12) end
    end
  end)

  it("have the CPU's gradients by nodes", function()
    local function solve(device, engine, tolerance)
      local z0 = gq.randn({ 50, 3 }, { seed = 1, device = "cpu", dtype = "float64" }):to(device)
      local w = gq.randn({ 3, 3 }, { seed = 2, device = "cpu", dtype = "float64" }):to(device)
      z0.requires_grad, w.requires_grad = true, true
      local z, info = gq.odeint(function(t, z) return (z:matmul(w) * t):tanh() end, z0, { 0, 0.4, 2 },
        { batch = "independent", gradient = engine, rtol = tolerance, atol = tolerance })
      local sum = (z * z):sum()
      sum:backward()
      return z0.grad:to "cpu", w.grad:to "cpu", info
    end
    for _, engine in ipairs { "gq", "check" } do
      local z0, w, info = solve("cpu", engine, 1e-6)
      local z0_, w_, info_ = solve("cuda", engine, 1e-6)
      assert.below(helper.relative(z0_, z0), 1e-11)
      assert.below(helper.relative(w_, w), 1e-11)
      assert.equal(info.restarts, info_.restarts)
      for _, k in ipairs { "nodes", "nfe_backward", "steps_backward" } do
        assert.equal(info[k], info_[k])
        assert.same(info.samples[k]:totable(), info_.samples[k]:totable())
      end
    end
  end)

  it("meet indices that samples know alone, where the first sample is none", function()
    local function solve(device)
      local z0 = gq.tensor({ { 0 / 0, 1 }, { 1, 2 }, { 2, 1 } }, { device = device, dtype = "float64" })
      local z, info = gq.odeint(function(_, z) return -z:gather(2, (z * 0 + 1):to "int64") end, z0, { 0, 1 },
        { batch = "independent", gradient = "none", throw = false })
      return { z[-1]:narrow(1, 2, 2):totable(), info.samples.status }
    end
    assert.same(solve "cpu", solve "cuda")
  end)

  it("are the same alone", function()
    local volterra = load("local gq = ... " .. predators .. " return volterra")(gq)
    local all, a = volterra(70, { 0, 1, 4 }, {})
    local few, b = volterra(33, { 0, 1, 4 }, {})
    assert.same({ 3, 33, 2 }, few.shape)
    assert.same(a.samples.steps:narrow(1, 1, 33):totable(), b.samples.steps:totable())
    assert.same(all:narrow(2, 1, 33):totable(), few:totable())
  end)
end)
