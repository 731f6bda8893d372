-- hostile_spec.lua -- what a script may do in the middle of a call: free what the call was given, raise, yield;
-- and what it may ask for: fields of very many operations, products where there is no room.

local gq = require "gq"
local helper = require "tests.helper"
local raises = helper.raises

local function decay(_, z) return -z end

-- An __index that frees x when it is first asked.
local function freeing(x, values)
  local freed = false
  return setmetatable({}, { __index = function(_, key)
    if not freed then freed = true x:free() end
    return values and values[key]
  end })
end

describe("options with an __index", function()
  it("may free what the call was given", function()
    local function z0() return gq.ones(2, 2) end
    local z = z0()
    raises("freed", gq.odeint, decay, z, { 0, 1 }, freeing(z))
    for _, key in ipairs { "adjoint", "gq", "controller" } do
      z = z0()
      local got = gq.odeint(decay, z, { 0, 1 }, { [key] = freeing(z) })
      assert.close(got[2], { { math.exp(-1), math.exp(-1) }, { math.exp(-1), math.exp(-1) } }, 1e-2)
    end
    z = z0()
    raises("freed", gq.odeint, decay, z, { 0, 1 }, { regularise = freeing(z, { kinetic = true }) })
    local t = gq.tensor { 0, 1 }
    raises("freed", gq.odeint, decay, z0(), t, freeing(t))
    z = z0()
    local sde = gq.sde { drift = decay, diffusion = function(_, x) return x end }
    raises("freed", gq.sdeint, sde, z, { 0, 1 }, freeing(z, { dt = 0.1 }))
    z = z0()
    raises("freed", gq.tensor, z, freeing(z))
    local x = z0()
    x.requires_grad = true
    local y = (x * x):sum()
    raises("freed", gq.grad, y, x, freeing(y))
    y = (x * x):sum()
    raises("freed", gq.grad, y, { x }, freeing(x))
    local p = z0()
    p.requires_grad = true
    pcall(gq.optim.adam, { p }, freeing(p))
    assert.same({ 2 }, gq.ones(2, freeing(z0())).shape)
  end)

  it("are what it says, also in texts that nothing else holds", function()
    local function fresh(values)
      return setmetatable({}, { __index = function(_, key)
        collectgarbage()
        local v = values[key]
        return type(v) == "string" and (v .. "?"):sub(1, -2) or v
      end })
    end
    local o = fresh { method = "rk4", step_size = 0.5, gradient = "direct", dtype = "float64" }
    local _, info = gq.odeint(decay, gq.ones(2), { 0, 1 }, o)
    assert.same({ 2, "direct" }, { info.steps, info.engine })
    _, info = gq.odeint(decay, gq.ones(2), { 0, 1 }, { adjoint = fresh { method = "bosh3", trajectory = "dense" } })
    assert.equal("ok", info.status)
    assert.equal("float64", gq.zeros(2, o).dtype)
    raises("method rk5 rk4", gq.odeint, decay, gq.ones(2), { 0, 1 }, fresh { method = "rk5" })
  end)
end)

-- Errors and yields inside of `run(f)`, in a coroutine that nobody closes: afterwards all is as before.
local function dies(run)
  for _, f in ipairs { function() error "boom" end, function() coroutine.yield(1) end, function() return 7 end,
                       function() return {} end } do
    for _, how in ipairs { "create", "wrap", "nested" } do
      local function body() run(f) error "no result is right" end
      if how == "create" then assert.is_false((coroutine.resume(coroutine.create(body))))
      elseif how == "wrap" then assert.is_false((pcall(coroutine.wrap(body))))
      else
        assert.is_false((pcall(coroutine.wrap(function() coroutine.wrap(body)() end))))
      end
      assert.is_true(gq.recording())
      local x = gq.ones(2)
      x.requires_grad = true
      local z = gq.odeint(decay, x, { 0, 1 })
      z[2]:sum():backward()
      assert.close(x.grad, { math.exp(-1), math.exp(-1) }, 1e-2)
    end
  end
end

describe("a coroutine that dies", function()
  local z, t = gq.ones(2), { 0, 1 }
  it("in dynamics leaves no trace open", function() dies(function(f) gq.odeint(f, z, t) end) end)
  it("in dynamics that are called leaves nothing", function()
    dies(function(f) gq.odeint(f, z, t, { trace = false, params = {} }) end)
  end)
  it("in events", function() dies(function(f) gq.odeint(decay, z, t, { event = f }) end) end)
  it("in dynamics of several tensors", function() dies(function(f) gq.odeint(f, { z, z }, t) end) end)
  it("in an SDE", function()
    dies(function(f) gq.sdeint(gq.sde { drift = f, diffusion = f }, z, t, { dt = 0.1 }) end)
  end)
  it("in jets", function()
    dies(function(f) gq.core.jet(f, gq.tensor(0.5), z, 2) end)
    dies(function(f) gq.odeint(function(s, x) gq.core.jet(f, s, x, 2) return x end, z, t) end)
  end)
  it("in a trace of tests", function() dies(function(f) gq.core.trace(f, { z }) end) end)
  it("in no_grad, which gives errors and results on", function()
    dies(function(f) gq.no_grad(f) end)
    assert.same({ true, 1, nil, 3 }, { coroutine.resume(coroutine.create(function()
      return gq.no_grad(function(...) return ... end, 1, nil, 3)
    end)) })
    local _, e = coroutine.resume(coroutine.create(function() gq.no_grad(error, { 1 }) end))
    assert.same({ 1 }, e)
    assert.is_false(coroutine.wrap(function() return gq.no_grad(gq.recording) end)())
  end)
end)

describe("a field of very many operations", function()
  local function chain(n)
    return function(_, z)
      for _ = 1, n do z = gq.sin(z) end
      return z
    end
  end
  local function wide(parameters)
    return function(_, z)
      local parts = {}
      for i, p in ipairs(parameters) do parts[i] = z * p end
      return gq.stack(parts):sum(1)
    end
  end
  local function seconds(f, parameters)
    local z0 = gq.ones(2)
    z0.requires_grad = true
    local start = gq.clock()
    local z = gq.odeint(f, z0, { 0, 0.1 }, { method = "euler", step_size = 0.1, gradient = "direct" })
    if parameters then z[2]:sum():backward() end
    return gq.clock() - start
  end

  it("is compiled in a time that grows like it", function()
    seconds(chain(100))
    local few, many = seconds(chain(1500)), seconds(chain(12000))
    assert.below(many / few, 30)                                   -- 64 where it is quadratic
    local parameters = {}
    for i = 1, 8000 do
      parameters[i] = gq.tensor(1 / i)
      parameters[i].requires_grad = true
    end
    many = seconds(wide(parameters), parameters)
    few = seconds(wide { table.unpack(parameters, 1, 1000) }, parameters)
    assert.below(many / few, 30)
  end)
end)

describe("a wide product", function()
  local asan = os.getenv "GQ_TEST_CONFIG" == "asan"                -- which takes terabytes of address space
  it("where OpenBLAS has no room for its buffers is an error, and then none where it has", function()
    if asan then return end
    local script = [[
      local gq = require "gq"
      local x = gq.ones(300, 300)
      local ok, e = pcall(x.matmul, x, x)
      print(ok, e)
      local net = gq.nn.mlp { sizes = { 400, 400, 400 } }
      print(pcall(gq.odeint, net, gq.ones(256, 400), { 0, 1 }))
      local y = gq.ones(5, 6)
      print(y:matmul(gq.ones(6, 20)):sum():item()) ]]
    local name = os.tmpname()
    local file = assert(io.open(name, "w"))
    file:write(script)
    file:close()
    local program = helper.quote(os.getenv "GQLUA" or "./gqlua")
    local function run(limit)
      local pipe = assert(io.popen(("ulimit -v %s; GQ_THREADS=2 timeout 60 %s %s 2>&1; echo end $?"):format(limit,
        program, name)))
      local text = pipe:read("a")
      pipe:close()
      return text
    end
    local text = run(350000)
    assert.matches("false\tout of memory: OpenBLAS takes %d+ MiB .*false.*out of memory.*600.0.*end 0", text)
    assert.matches("true.*true.*600.0.*end 0", run(2000000))
    os.remove(name)
  end)
end)
