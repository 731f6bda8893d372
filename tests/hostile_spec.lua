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
    local start = os.clock()
    local z = gq.odeint(f, z0, { 0, 0.1 }, { method = "euler", step_size = 0.1, gradient = "direct" })
    if parameters then z[2]:sum():backward() end
    return os.clock() - start
  end

  it("is compiled in a time that grows like it", function()
    -- Eight times as many: 64 where it is quadratic, every time; a busy machine has its moments.
    local function grows(many, few)
      local least = math.huge
      for _ = 1, 3 do
        least = math.min(least, many() / few())
        if least < 30 then break end
      end
      assert.below(least, 30)
    end
    seconds(chain(100))
    grows(function() return seconds(chain(12000)) end, function() return seconds(chain(1500)) end)
    local parameters = {}
    for i = 1, 8000 do
      parameters[i] = gq.tensor(1 / i)
      parameters[i].requires_grad = true
    end
    grows(function() return seconds(wide(parameters), parameters) end,
      function() return seconds(wide { table.unpack(parameters, 1, 1000) }, parameters) end)
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
    local name = helper.write(os.tmpname(), script)
    local function run(limit)
      return (helper.output(("ulimit -v %s; GQ_THREADS=2 timeout 60 %s %s; echo end $?"):format(limit,
        helper.quote(helper.gqlua), name)))
    end
    local text = run(350000)
    assert.matches("false\tout of memory: OpenBLAS takes %d+ MiB .*false.*out of memory.*600.0.*end 0", text)
    assert.matches("true.*true.*600.0.*end 0", run(2000000))
    os.remove(name)
  end)
end)

local both = { "float32", "float64" }

describe("never NaN or inf as success:", function()
  it("fixed steps that overflow, by either norm", function()
    for _, norm in ipairs { "max", "rms" } do
      for _, method in ipairs { "euler", "midpoint", "rk4", "bosh3", "dopri5", "alf", "implicit_midpoint",
                                "explicit_adams", "implicit_adams", "reversible_heun", "leapfrog" } do
        for sign, shape in helper.each({ 10, -10 }, { { 2 }, { 200, 2 }, { 1000 } }) do
          local function f(_, z)
            if method ~= "leapfrog" then return z * sign end
            return gq.cat({ z:narrow(#shape, shape[#shape] // 2 + 1, shape[#shape] // 2),
                            z:narrow(#shape, 1, shape[#shape] // 2) * sign * 1e30 }, #shape)
          end
          local _, info = gq.odeint(f, gq.full(shape, 1e38), { 0, 1 },
            { method = method, step_size = 1, norm = norm, gradient = "none", throw = false })
          assert.equal("non_finite", info.status, method .. " " .. sign)
        end
      end
    end
    for _, sign in ipairs { 10, -10 } do
      raises("sample 1 finite", gq.odeint, function(_, z) return z * sign end, gq.full({ 3, 2 }, 1e38), { 0, 1 },
        { method = "euler", step_size = 1, norm = "max", gradient = "none", batch = "independent" })
    end
  end)

  it("a start that is not finite, where no time passes", function()
    for _, dtype in ipairs(both) do
      for _, bad in ipairs { 0 / 0, 1 / 0, -1 / 0 } do
        for _, t in ipairs { { 0 }, { 1, 1 }, { 2, 2, 2 }, { 0, 1 } } do
          for _, batch in ipairs { "joint", "independent" } do
            local z0 = gq.ones(3, 2, { dtype = dtype })
            z0[{ 2, 1 }] = bad
            raises(batch == "joint" and "z0 not finite element 3" or "sample 2: z0 not finite component 1", gq.odeint,
              decay, z0, t, { batch = batch })
            local z, info = gq.odeint(decay, z0, t, { batch = batch, throw = false })
            assert.equal("non_finite", info.status)
            assert.same({ #t, 3, 2 }, z.shape)
            if batch == "independent" then assert.same({ "ok", "non_finite", "ok" }, info.samples.status) end
          end
          local parts = { gq.ones(2, { dtype = dtype }), gq.full({ 2 }, bad, { dtype = dtype }) }
          raises("finite", gq.odeint, function(_, z) return { -z[1], -z[2] } end, parts, t)
        end
      end
    end
  end)

  it("gradients of rows with steps of their own", function()
    for dtype, batch, gradient in helper.each(both, { "joint", "independent" }, { "direct", "aca", "gq" }) do
      local z0 = gq.tensor({ { 0.5, 0.4 }, { 1, 0.3 }, { 0.2, 0.1 } }, { dtype = dtype })
      z0.requires_grad = true
      local z = gq.odeint(function(_, z) return gq.sqrt(gq.abs(z - 1)) end, z0, { 0, 0.1 },
        { gradient = gradient, batch = batch })
      raises("finite", function() z[2]:sum():backward() end)
    end
  end)
end)

describe("an implicit step", function()
  it("whose h gamma rounds to nothing is one all the same", function()
    for _, method in ipairs { "kvaerno3", "kvaerno5", "implicit_midpoint", "trapezoid" } do
      for gradient, t1 in helper.each({ "gqc", "direct", "aca", "gq", "kronrod" },
          { 5e-324, 1e-323, 1e-310, -5e-324 }) do
        local z0 = gq.tensor({ { 1e-40, 1e-45 } }, { dtype = "float64" })
        z0.requires_grad = true
        local ok, z = pcall(gq.odeint, function(t, z) return (gq.cos(t) - z) * 1e14 end, z0, { 0, t1 },
          { method = method, gradient = gradient, step_size = 1e300 })
        if ok then
          assert.close(z[2], z0:totable(), 1e-12, 1e-300)
          local done, e = pcall(function() z[2]:sum():backward() end)
          if done then assert.close(z0.grad, { { 1, 1 } }, 1e-12)
          else assert.truthy(e:find("moves t", 1, true) or e:find("move t", 1, true), e) end
        else
          assert.matches("is not known", z)
        end
      end
    end
  end)
end)

describe("more times than max_steps", function()
  it("end no backward solve", function()
    for _, batch in ipairs { "joint", "independent" } do
      local function gradient(n, max_steps)
        local z0 = gq.ones(1, 2, { dtype = "float64" })
        z0.requires_grad = true
        local z = gq.odeint(decay, z0, gq.linspace(0, 1, n, { dtype = "float64" }),
          { max_steps = max_steps, batch = batch, gradient = "gq", adjoint = { trajectory = "reverse" } })
        z[n]:sum():backward()
        return z0.grad
      end
      assert.close(gradient(300, 50), { { math.exp(-1), math.exp(-1) } }, 1e-4)
      raises("max_steps", function()
        local z0 = gq.ones(1, 2, { dtype = "float64" })
        z0.requires_grad = true
        local z = gq.odeint(decay, z0, { 0, 1 }, { batch = batch, gradient = "gq", rtol = 1e-9, atol = 1e-9,
          adjoint = { trajectory = "reverse", max_steps = 2 } })
        z[2]:sum():backward()
      end)
    end
  end)

  it("and max_steps is 100000 by itself", function()
    local o = { method = "euler", step_size = 1, gradient = "none" }
    local _, info = gq.odeint(function(_, z) return z * 0 end, gq.ones(1), { 0, 100000 }, o)
    assert.equal(100000, info.steps)
    raises("max_steps", gq.odeint, function(_, z) return z * 0 end, gq.ones(1), { 0, 100001 }, o)
  end)

  it("as steps of one size tells before the first of them", function()
    local calls = 0
    local function f(_, z) calls = calls + 1; return z * 0 end
    raises("1e+09, and 100000 (max_steps)", gq.odeint, f, gq.ones(1), { 0, 1 },
      { method = "euler", step_size = 1e-9, trace = false })
    assert.equal(0, calls)
    local sde = gq.sde { drift = f, diffusion = f }
    raises("1e+09, and 1000000 (max_steps)", gq.sdeint, sde, gq.ones(1), { 0, 1 }, { dt = 1e-9 })
    raises("99 (max_steps)", gq.sdeint, sde, gq.ones(1), { 1, 0 }, { dt = 0.01, max_steps = 99 })
    local _, info = gq.sdeint(sde, gq.ones(1), { 0, 1 }, { dt = 1e-9, max_steps = 50, throw = false })
    assert.equal("max_steps", info.status)
    assert.equal(50, info.steps)
    local z = gq.sdeint(sde, gq.ones(1), { 0, 1 }, { dt = 0.01, max_steps = 100 })
    assert.equal(1, z[2]:item())
  end)
end)

describe("dynamics that are called at every evaluation", function()
  local w = gq.ones(2)
  w.requires_grad = true
  local function settle() for _ = 1, 2 do collectgarbage() end end
  local options = { trace = false, params = { w } }

  it("may see their own result and are collected all the same", function()
    for _, mode in ipairs { "incremental", "generational" } do
      collectgarbage(mode)
      local seen = setmetatable({}, { __mode = "k" })
      local first = gq.odeint(function(_, y) return -y * w end, gq.ones(100, 2), { 0, 1 }, options)
      first:sum():backward()                  -- what a plan keeps for its next solve is no leak
      first = nil                             -- luacheck: ignore
      settle()
      local before = (gq.memory())
      for step = 1, 50 do
        local z, l
        local function f(_, y)
          local _, _ = z, l
          return -y * w
        end
        seen[f] = true
        z = gq.odeint(f, gq.ones(100, 2), { 0, 1 }, options)
        l = z[2]:sum()
        if step % 2 == 0 then l:backward() end
      end
      settle()
      assert.is_nil(next(seen))
      assert.below(gq.memory() - before, 10000)
    end
    collectgarbage("incremental")
  end)

  it("live as long as something asks for their gradient", function()
    local seen = setmetatable({}, { __mode = "k" })
    local losses = {}
    for i = 1, 10 do
      local function f(_, y) return -y * w * i end
      seen[f] = true
      losses[i] = gq.odeint(f, gq.ones(2), { 0, 1 }, options)[2]:sum()
    end
    for _ = 1, 5 do
      settle()
      for i, l in ipairs(losses) do
        local g = gq.grad(l, w)
        assert.close(g, { -i * math.exp(-i), -i * math.exp(-i) }, 0.2, 1e-3)
        for _ = 1, 20 do collectgarbage("step") end
      end
    end
    losses = nil                                                   -- luacheck: ignore
    settle()
    assert.is_nil(next(seen))
  end)

  -- One step of the state z: k, which nothing else holds, is seen by the function alone.
  local function solved(z, more)
    local k = gq.tensor { 1, 2 }
    local function f(_, y) return -y * w * k end
    local o = { trace = false, params = { w }, rtol = 1e-5, atol = 1e-5 }
    for name, value in pairs(more or {}) do o[name] = value end
    local y, info = gq.odeint(f, z, { 0, 1 }, o)
    return y[2], info
  end
  local want = { -math.exp(-1), -2 * math.exp(-2) }

  it("keep what they alone see, whatever was made of the result", function()
    local ways = {
      function(y) return y:sum() end,
      function(y) return y:clone():sum() end,
      function(y) return gq.solve(gq.eye(2), y:reshape(2, 1)):sum() end,
      function(y) return gq.var(y) + gq.cholesky(gq.eye(2) + gq.diag(y * 0)):sum() * 0 + y:sum() - gq.var(y) end,
      function(y) return gq.core.once(y, "it"):sum() end,
      function(y) return gq.odeint(function(_, x) return 0 * x end, y, { 0, 1 })[2]:sum() end,
      function(y) return gq.einsum("i,j->ij", y, gq.tensor { 0.5, 0.5 }):to("float64"):sum():to("float32") end,
      function(y) return gq.jet(function(_, x) return x * y end, 0, gq.ones(2), 1)[1]:sum() end,
    }
    for i, way in ipairs(ways) do
      local l = way(solved(gq.ones(2)))
      settle()
      assert.close(gq.grad(l, w), want, 1e-3, 1e-4, i)
    end
  end)

  it("keep it through solves of solves, and sums of them", function()
    local z, l = gq.ones(2), 0
    for _ = 1, 3 do
      z = solved(z)
      l = l + z:sum()
    end
    settle()
    local g = {}
    for i = 1, 2 do
      g[i] = 0
      for n = 1, 3 do g[i] = g[i] - n * i * math.exp(-n * i) end
    end
    assert.close(gq.grad(l, w), g, 1e-3, 1e-4)
  end)

  it("keep it where one operation sums many of them", function()
    local function sums(n)
      local y = {}
      for i = 1, n do y[i] = solved(gq.ones(2)) end
      return gq.jet(function(_, x)
        local all = y[1]
        for i = 2, n do all = (all + y[i]) + (all - all) end
        return x * all
      end, 0, gq.ones(2), 2)
    end
    local r = sums(12)
    settle()
    assert.close(gq.grad(r[1]:sum(), w), { 12 * want[1], 12 * want[2] }, 1e-3, 1e-4)
    settle()
    assert.is_true(gq.grad(r[2]:sum(), w):abs():min():item() > 0)
  end)

  it("cost the collector as much for each of many that are summed", function()
    local same = function(_, y) return -y * w end
    local function grown(n, other)
      settle()
      collectgarbage("stop")
      local before, l = collectgarbage("count"), 0
      for i = 1, n do
        local f = other and function(_, y) return -y * w * i end or same
        l = l + gq.odeint(f, gq.ones(2), { 0, 0.1 },
          { trace = false, params = { w }, method = "euler", step_size = 0.1 })[2]:sum()
      end
      local after = collectgarbage("count")
      collectgarbage("restart")
      return after - before
    end
    for _, other in ipairs { false, true } do
      assert.below(grown(800, other), 2.3 * grown(400, other))
    end
  end)

  it("are named where they are gone all the same", function()
    local y = solved(gq.ones(2))
    debug.setuservalue(y, nil, 1)
    settle()
    raises("was collected, but trace = false calls it for this gradient too", gq.grad, y:sum(), w)
  end)

  it("keep it for regularisers", function()
    local _, info = solved(gq.ones(2), { regularise = { kinetic = true, stiffness = true, jacobian = true },
                                         gradient = "direct" })
    local r = info.regularisers
    local kinetic, stiffness, jacobian = r.kinetic, r.stiffness, r.jacobian
    info, r = nil, nil                                             -- luacheck: ignore
    settle()
    assert.is_true(gq.grad(kinetic[2], w):abs():min():item() > 0)
    settle()
    assert.equal(2, #gq.grad(stiffness, w))
    assert.is_true(gq.grad(jacobian[2], w):abs():max():item() > 0)
  end)
end)

describe("warnings", function()
  local script = [[
    local gq = require "gq"
    local quiet = ...
    if quiet then print(gq.warnings(false), gq.warnings()) end
    local z0 = gq.ones(2, { dtype = "float64" })
    z0.requires_grad = true
    for _ = 1, 3 do
      local z, info = gq.odeint(function(_, z) return -10 * z end, z0, { 0, 5 },
        { gradient = "gq", adjoint = { trajectory = "reverse" }, rtol = 1e-3, atol = 1e-6, audit = false })
      z[2]:sum():backward()
      print(info.warning and "told")
    end ]]
  it("reach stderr once for each kind, under a stock Lua too", function()
    local name = helper.write(os.tmpname(), script)
    local programs = { helper.quote(helper.gqlua) }
    if os.getenv "GQ_TEST_CONFIG" == "release" then programs[2] = "lua5.4" end
    for program, quiet in helper.each(programs, { "", "quiet" }) do
      local text = helper.output(("%s %s %s"):format(program, name, quiet))
      local _, warned = text:gsub("warning: gq.odeint", "")
      local _, told = text:gsub("told", "")
      assert.same({ quiet == "" and 1 or 0, 3 }, { warned, told }, text)
      if quiet ~= "" then assert.matches("true\tfalse", text) end
    end
    os.remove(name)
  end)
end)
