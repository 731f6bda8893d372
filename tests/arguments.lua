-- arguments.lua MODE -- what arguments_spec.lua runs in a process of its own, in a scratch folder, so that a crash
-- or a hang is one failure with a name: the file "last" always holds the call being made.
--   matrix       every function with wrong arguments of every kind
--   templates    right calls with each argument, and each option, replaced by wrong ones
--   traced       every function while a dynamics function is being traced
--   fuzz SEED N  N random calls whose results become arguments

local gq = require "gq"
local mode, seed, count = arg[1], tonumber(arg[2] or 1), tonumber(arg[3] or 1000)

-- Data sets that are installed are not found: to load one takes seconds, and tells nothing of arguments.
local open = io.open
rawset(io, "open", function(path, ...)
  if type(path) == "string" and path:find("^/usr/share/datasets/") then return nil, path .. ": hidden" end
  return open(path, ...)
end)

-- ---- the wrong things ----

local file = io.open("afile", "w+")
local nan, inf = 0 / 0, math.huge
local function float(...) return gq.zeros({ ... }, { dtype = "float32" }) end

local function freed()
  local x = float(2, 2)
  x:free()
  return x
end

local function leaf()
  local x = gq.ones(2, 3, { dtype = "float64", requires_grad = true })
  return x
end

local escaped                         -- a traced tensor that outlived its trace
gq.odeint(function(_, z) escaped = z * 2 return -z end, gq.ones(2), { 0, 0.1 }, { gradient = "none" })

-- Each makes a fresh value, since a call may free or change what it is given.
local kinds = {
  { "nil", function() return nil end },
  { "false", function() return false end },
  { "true", function() return true end },
  { "0", function() return 0 end },
  { "3", function() return 3 end },
  { "-1", function() return -1 end },
  { "2^40", function() return 1 << 40 end },
  { "mininteger", function() return math.mininteger end },
  { "maxinteger", function() return math.maxinteger end },
  { "0.5", function() return 0.5 end },
  { "2^53+2.0", function() return 2.0 ^ 53 + 2 end },
  { "nan", function() return nan end },
  { "-inf", function() return -inf end },
  { '"10"', function() return "10" end },
  { '""', function() return "" end },
  { "{}", function() return {} end },
  { "{2, 3}", function() return { 2, 3 } end },
  { "{{1}, {2, 3}}", function() return { { 1 }, { 2, 3 } } end },
  { "{a = 1}", function() return { a = 1 } end },
  { "{nan, {}}", function() return { nan, {} } end },
  { "{tensor}", function() return { float(2, 2), float(2, 2) } end },
  { "cycle", function() local t = {} t[1], t.x = t, t return t end },
  { "function", function() return function() end end },
  { "identity", function() return function(...) return ... end end },
  { "error", function() return function() error("raised by the argument") end end },
  { "raises nil", function() return function() error() end end },
  { "C function", function() return math.sin end },
  { "callable", function() return setmetatable({}, { __call = function(_, x) return x end }) end },
  { "hostile", function()
    return setmetatable({}, { __index = error, __len = error, __tostring = error, __call = error, __name = 5 })
  end },
  { "thread", function() return coroutine.create(print) end },
  { "file", function() return file end },
  { "tensor {2, 3}", function() return float(2, 3) end },
  { "tensor {3, 2}", function() return float(3, 2) end },
  { "tensor 0-d", function() return gq.tensor(2) end },
  { "tensor {0, 3}", function() return float(0, 3) end },
  { "tensor {1, 2, 3, 4}", function() return float(1, 2, 3, 4) end },
  { "int64", function() return gq.ones(3, { dtype = "int64" }) end },
  { "bool", function() return gq.ones(2, 3, { dtype = "bool" }) end },
  { "NaNs", function() return gq.full({ 2, 2 }, nan) end },
  { "leaf", leaf },
  { "result", function() return leaf() * 2 end },
  { "view", function() return float(4, 6):transpose(1, 2):narrow(1, 2, 3) end },
  { "expanded", function() return float(1, 3):expand(5, 3) end },
  { "freed", freed },
  { "escaped trace", function() return escaped end },
  { "module", function() return gq.nn.Linear(2, 2) end },
  { "optimiser", function() return gq.optim.sgd({ leaf() }, { lr = 0.1 }) end },
  { "gq", function() return gq end },
}

-- The few that go in every position of a call with three arguments.
local short = {}
for _, name in ipairs { "nil", "3", "-1", "nan", '"10"', "{}", "{2, 3}", "{a = 1}", "hostile", "function",
                        "tensor {2, 3}", "int64", "freed", "escaped trace", "leaf" } do
  for _, kind in ipairs(kinds) do
    if kind[1] == name then short[#short + 1] = kind end
  end
end

-- ---- everything that can be called ----

-- What would test something else, or end the process: gq.debug sets traps in the allocator, gq.cli and the
-- experiments over it exit with the usage of a script.
-- What the modules of plots, sweeps and the prompt share among their files is Lua that checks nothing, and slow.
local skip = { ["gq.debug"] = true, ["gq.docs"] = true, ["gq.cli"] = true, ["gq.experiment"] = true,
  ["gq.core.plotting"] = true, ["gq.core.sweeping"] = true, ["gq.core.prompt"] = true }

local functions = {}                  -- {name, function}, sorted
do
  local seen = {}
  local function scan(t, prefix, depth)
    for k, v in next, t do
      local name = prefix .. "." .. tostring(k)
      if not seen[v] and not skip[name] then
        if type(v) == "function" then
          seen[v] = true
          functions[#functions + 1] = { name, v }
        elseif type(v) == "table" and depth < 5 then
          seen[v] = true
          scan(v, name, depth + 1)
          local meta = getmetatable(v)
          if type(meta) == "table" and not seen[meta] then
            seen[meta] = true
            scan(meta, name .. "<meta>", depth + 1)
          end
        end
      end
    end
  end
  scan(gq, "gq", 1)
  local objects = {
    tensor = float(1), optimiser = gq.optim.sgd({ leaf() }, { lr = 0.1 }), net = gq.nn.Linear(2, 2),
    mlp = gq.nn.mlp { sizes = { 2, 2 }, time = true }, scope = gq.scope(),
    brownian = gq.brownian { t0 = 0, t1 = 1, shape = { 2 }, seed = 1 },
  }
  for name, object in pairs(objects) do
    local meta = debug.getmetatable(object)
    if meta and not seen[meta] then
      seen[meta] = true
      scan(meta, name, 1)
    end
  end
  table.sort(functions, function(a, b) return a[1] < b[1] end)
end

-- ---- one call ----

local last = io.open("last", "w")
last:setvbuf("no")
local calls, raised, bad = 0, 0, {}
local clock, slow = gq.clock, {}
local work = {}                       -- seconds spent in successful calls, by function

local function complain(name, what)
  bad[#bad + 1] = name .. ": " .. what
end

local function text_of(e)
  if type(e) == "string" then return e end
  local ok, s = pcall(tostring, e)
  return ok and type(s) == "string" and s or nil
end

local function finish(name, f, started, ok, ...)
  calls = calls + 1
  local seconds = clock() - started
  if seconds > 20 then slow[#slow + 1] = ("%s took %.1f s"):format(name, seconds) end
  if ok then
    work[f] = (work[f] or 0) + seconds
    return ...
  end
  raised = raised + 1
  local e = ...
  if e == nil then
    -- An argument may raise what it likes.
    if not (name:find("raises nil", 1, true) or name:find("hostile", 1, true) or name:find("error", 1, true)) then
      complain(name, "raised nil")
    end
  elseif text_of(e) == "" then
    complain(name, "raised an empty message")
  end
end

-- A function that has worked for a second (it makes a data set, say) has had its share.
local function call(name, f, ...)
  if (work[f] or 0) > 1 then return end
  last:seek("set", 0)
  last:write(name, "\n")
  return finish(name, f, clock(), pcall(f, ...))
end

-- What calls may have changed.
local function restore()
  gq.set_default_dtype("float32")
  gq.set_threads(2)
end

local modes = {}

function modes.matrix()
  for _, entry in ipairs(functions) do
    local name, f = entry[1], entry[2]
    call(name .. "()", f)
    for _, a in ipairs(kinds) do
      call(("%s(%s)"):format(name, a[1]), f, a[2]())
      for _, b in ipairs(short) do
        call(("%s(%s, %s)"):format(name, a[1], b[1]), f, a[2](), b[2]())
        call(("%s(%s, %s)"):format(name, b[1], a[1]), f, b[2](), a[2]())
      end
    end
    for _, b in ipairs(short) do
      for _, c in ipairs(short) do
        call(("%s(tensor, %s, %s)"):format(name, b[1], c[1]), f, float(2, 3), b[2](), c[2]())
        call(("%s(tensor, 1, %s, %s)"):format(name, b[1], c[1]), f, float(2, 3), 1, b[2](), c[2]())
      end
    end
    restore()
  end
end

-- ---- right calls, spoilt in one place ----

local function field(_, z) return -z end

local templates = {
  { "odeint", function() return field, gq.ones(2), { 0, 0.5, 1 }, {
    method = "dopri5", rtol = 1e-2, atol = 1e-2, step_size = 0.5, first_step = 0.1, max_steps = 10, norm = "rms",
    controller = { safety = 0.9, ifactor = 10, dfactor = 0.2, pcoeff = 0, icoeff = 1, dcoeff = 0 },
    gradient = "gq", adjoint = { method = "dopri5", rtol = 1e-2, atol = 1e-2, trajectory = "reverse", scale = true },
    gq = { C = 0.1, max_nodes = 4, nodes = "nfe" },
    parity = false, overshoot = false, throw = true, params = {}, batch = "joint", trace = true } end },
  { "odeint", function() return field, gq.ones(2), { 0, 0.5, 1 }, { batch = "independent", gradient = "aca",
    first_step = 0.1, max_steps = 10, throw = false, controller = { pcoeff = 0.1 } } end },
  { "odeint", function() return field, gq.ones(2), { 0, 0.5 },
    { trace = false, params = { leaf() }, method = "rk4", step_size = 0.5, gradient = "gq", dense = true,
      max_steps = 100 } end },
  { "odeint", function()
    return function(_, s) return { s[2], -s[1] } end, { gq.ones(2, 2), gq.ones(2, 2) }, { 0, 0.5 }, {
      gradient = "gq",
      regularise = { kinetic = true, jacobian = { probe = "normal", seed = 1 }, taylor = { order = 2 } } }
  end },
  { "odeint", function()
    return field, gq.ones(2), { 0, 0.5 }, { gradient = "direct", regularise = { error = true, stiffness = true } }
  end },
  { "jet", function() return field, 0, gq.ones(2), 3 end },
  { "steer", function() return { 0, 1, 2 }, 0.5, { seed = 1 } end },
  { "sdeint", function()
    return gq.sde { drift = field, diffusion = field, noise = "diagonal" }, gq.ones(2, 2), { 0, 0.2 },
      { method = "heun", dt = 0.1 }
  end },
  { "sde", function() return { drift = field, diffusion = field, noise = "diagonal", calculus = "stratonovich" } end },
  { "wong_zakai", function() return gq.sde { drift = field, diffusion = field, noise = "diagonal" },
    { cosines = 2, t0 = 0, t1 = 1, seed = 1 } end },
  { "brownian", function() return { t0 = 0, t1 = 1, shape = { 2 }, seed = 1 } end },
  { "zeros", function() return 2, 3, { dtype = "float32", requires_grad = true } end },
  { "rand", function() return { 2, 3 }, { dtype = "float32" } end },
  { "tensor", function() return { { 1, 2 }, { 3, 4 } }, { dtype = "float32", requires_grad = true } end },
  { "full", function() return { 2, 3 }, 1.5, { dtype = "float32" } end },
  { "eye", function() return 3 end },
  { "arange", function() return 1, 5, 2 end },
  { "linspace", function() return 0, 1, 5 end },
  { "cat", function() return { gq.ones(2, 3), gq.ones(2, 3) }, 1 end },
  { "stack", function() return { gq.ones(2, 3), gq.ones(2, 3) }, 1 end },
  { "where", function() return gq.ones(2):gt(0), gq.ones(2), gq.zeros(2) end },
  { "clamp", function() return gq.ones(2), 0, 1 end },
  { "matmul", function() return gq.ones(2, 3), gq.ones(3, 2) end },
  { "sum", function() return gq.ones(2, 3), { 1, 2 }, true end },
  { "reshape", function() return gq.ones(2, 3), 3, 2 end },
  { "permute", function() return gq.ones(2, 3), 2, 1 end },
  { "transpose", function() return gq.ones(2, 3), 1, 2 end },
  { "expand", function() return gq.ones(1, 3), 2, 3 end },
  { "narrow", function() return gq.ones(4, 3), 1, 2, 2 end },
  { "split", function() return gq.ones(4, 3), 2, 1 end },
  { "index_select", function() return gq.ones(4, 3), 1, gq.tensor({ 1, 2 }, { dtype = "int64" }) end },
  { "gather", function() return gq.ones(2, 3), 2, gq.ones(2, 1, { dtype = "int64" }) end },
  { "cross_entropy", function() return gq.ones(2, 3), gq.ones(2, { dtype = "int64" }) end },
  { "grad", function() local x = leaf() return { (x * x):sum() }, { x }, { create_graph = true } end },
  { "no_grad", function() return function(x) return x * 2 end, leaf() end },
  { "gauss_legendre", function() return 3 end },
  { "nn.Linear", function() return 2, 3 end },
  { "nn.GRUCell", function() return 2, 3, { bias = true, dtype = "float32" } end },
  { "nn.RNNCell", function() return 2, 3, { nonlinearity = "relu", bias = false } end },
  { "nn.GRUCell.forward", function() return gq.nn.GRUCell(2, 3), gq.ones(4, 2), gq.ones(4, 3) end },
  { "nn.CNF", function()
    return gq.nn.Linear(2, 2), { trace = "exact", noise = "gaussian", probe = gq.ones(3, 2) }
  end },
  { "nn.CNF.forward", function() return gq.nn.CNF(gq.nn.Linear(2, 2)), 0.5, { gq.ones(3, 2), gq.ones(3) } end },
  { "flow", function()
    return { net = gq.nn.Linear(2, 2), dim = { 2 }, trace = "exact", noise = "gaussian", times = { 0, 1 }, solver = {} }
  end },
  { "flow.log_prob", function()
    return gq.flow { net = gq.nn.Linear(2, 2), dim = 2 }, gq.ones(3, 2), { trace = "hutchinson", seed = 1,
      noise = "gaussian", probe = gq.ones(3, 2) }
  end },
  { "flow.sample", function()
    return gq.flow { net = gq.nn.Linear(2, 2), dim = 2 }, 3, { seed = 1, dtype = "float32" }
  end },
  { "nn.mlp", function() return { sizes = { 2, 3, 2 }, activation = "softplus", time = true } end },
  { "nn.Sequential", function() return { gq.nn.Linear(2, 3), gq.nn.Linear(3, 2) } end },
  { "optim.adam", function()
    return { leaf() }, { lr = 0.1, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0 }
  end },
  { "optim.adamw", function() return { leaf() }, { lr = 0.1 } end },
  { "optim.sgd", function() return { leaf() }, { lr = 0.1, momentum = 0.9 } end },
  { "optim.rmsprop", function() return { leaf() }, { lr = 0.1 } end },
  { "optim.clip_grad_norm", function() return { leaf() }, 1 end },
  { "data.batches", function() return { gq.ones(4, 2), gq.ones(4) }, { batch_size = 2, shuffle = true, seed = 1 } end },
  { "data.density", function() return { name = "pinwheel", train = 8, test = 4, seed = 1 } end },
  { "data.spirals", function() return { train = 8, test = 4, times = 3, noise = 0.1, seed = 1 } end },
  { "data.nested_spheres", function() return { train = 8, test = 4, seed = 1 } end },
  { "save", function() return "x.safetensors", { a = gq.ones(2), b = gq.ones(2, 2) } end },
  { "load", function() return "x.safetensors" end },
  { "checkpoint.save", function() return "x.ckpt", { model = gq.nn.Linear(2, 2), epoch = 1 } end },
}

local function find(path)
  local value = gq
  for part in path:gmatch("[^.]+") do value = value[part] end
  return value
end

-- Replace each entry of a table argument, and of tables in it, by every kind.
local function spoil_table(name, t, again)
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = k end
  keys[#keys + 1] = "nosuchkey"
  for _, k in ipairs(keys) do
    local was = t[k]
    for _, kind in ipairs(kinds) do
      t[k] = kind[2]()
      again(("%s.%s = %s"):format(name, tostring(k), kind[1]))
      restore()
    end
    t[k] = was
    if type(was) == "table" and getmetatable(was) == nil then
      spoil_table(name .. "." .. tostring(k), was, again)
    end
  end
end

function modes.templates()
  for _, template in ipairs(templates) do
    local name, make = template[1], template[2]
    local f = find(name)
    if f then
      local n = select("#", make())
      for i = 1, n do
        for _, kind in ipairs(kinds) do
          local args = table.pack(make())
          args[i] = kind[2]()
          call(("%s, argument %d = %s"):format(name, i, kind[1]), f, table.unpack(args, 1, args.n))
          restore()
        end
        local args = table.pack(make())
        if type(args[i]) == "table" and getmetatable(args[i]) == nil then
          spoil_table(("%s, argument %d"):format(name, i), args[i], function(what)
            local fresh = table.pack(make())
            fresh[i] = args[i]
            call(what, f, table.unpack(fresh, 1, fresh.n))
          end)
        end
      end
    end
  end
end

function modes.traced()
  for _, entry in ipairs(functions) do
    local name, f = entry[1], entry[2]
    call("trace of " .. name, gq.odeint, function(t, z)
      call(name .. " while tracing (z)", f, z)
      call(name .. " while tracing (t)", f, t)
      for _, kind in ipairs(kinds) do
        call(("%s while tracing (z, %s)"):format(name, kind[1]), f, z, kind[2]())
        call(("%s while tracing (%s, z)"):format(name, kind[1]), f, kind[2](), z)
        call(("%s while tracing (%s)"):format(name, kind[1]), f, kind[2]())
      end
      return -z
    end, gq.ones(2, 3), { 0, 0.1 }, { gradient = "none" })
    restore()
  end
end

-- ---- random calls ----

local random = math.random
local pool, tensors = {}, {}          -- what earlier calls returned: {value, name}; tensors also apart

local function keep(name, ...)
  for i = 1, math.min(3, select("#", ...)) do
    local v = select(i, ...)
    local sized, n = pcall(gq.numel, v)
    local size = type(v) == "number" and v > 1e6                  -- bytes, say: a tensor of so many tries patience
    if v ~= nil and not size and (not sized or n < 1000) then
      pool[#pool < 60 and #pool + 1 or random(#pool)] = { v, name }
      if sized then tensors[#tensors < 60 and #tensors + 1 or random(#tensors)] = { v, name } end
    end
  end
end

local function draw_from(list)
  local entry = list[random(#list)]
  return entry[1], entry[2]
end

-- Mostly a tensor in the first place and a small number elsewhere: such calls tend to succeed.
local function draw(place)
  local r = random()
  if r < (place == 1 and 0.5 or 0.2) and #tensors > 0 then return draw_from(tensors) end
  if r < 0.6 and #pool > 0 then return draw_from(pool) end
  if r < 0.75 then
    local n = random(-2, 4)
    return n, tostring(n)
  end
  local kind = kinds[random(#kinds)]
  return kind[2](), kind[1]
end

local function draw_some()
  local args, names, n = {}, {}, random(0, 4)
  for k = 1, n do args[k], names[k] = draw(k) end
  return args, n, table.concat(names, ", "):sub(1, 200)
end

-- A field of a few random operations that keep the state's shape and dtype, and a solve of it, differentiated.
local engines = { "direct", "adjoint", "seminorm", "gq", "gqc", "none" }

local function random_field(names)
  local steps = {}
  for i = 1, random(5) do
    local entry, args, n, text = functions[random(#functions)], draw_some()
    steps[i] = function(y)
      local ok, r = pcall(entry[2], y, table.unpack(args, 1, n))
      local like = ok and gq.is_tensor(r) and r.dtype == y.dtype
      return like and table.concat(r.shape, " ") == table.concat(y.shape, " ") and r or y
    end
    names[i] = ("%s(_, %s)"):format(entry[1], text)
  end
  return function(_, z)
    local y = -z
    for _, step in ipairs(steps) do y = step(y) end
    return y
  end
end

local function random_solve()
  local names, z0 = {}, #tensors > 0 and draw_from(tensors) or leaf()
  local f, engine = random_field(names), engines[random(#engines)]
  call(("odeint %s of %s"):format(engine, table.concat(names, " ; ")), function()
    local start = z0:detach():clone()
    start.requires_grad = true
    local z = gq.odeint(f, start, { 0, 0.1, 0.3 }, { gradient = engine, max_steps = 20, rtol = 1e-2, atol = 1e-2,
      batch = random(3) == 1 and "independent" or nil, trace = random(3) > 1, params = { leaf(), start } })
    if engine ~= "none" then z:sum():backward() end
  end)
end

function modes.fuzz()
  math.randomseed(seed)
  for i = 1, count do
    if random(20) == 1 then
      random_solve()
    else
      local entry, args, n, names = functions[random(#functions)], draw_some()
      local name = ("%s(%s)"):format(entry[1], names)
      keep(name:sub(1, 60), call(name, entry[2], table.unpack(args, 1, n)))
    end
    if i % 100 == 0 then
      restore()
      collectgarbage()
    end
  end
end

modes[mode]()
local report = assert(io.open("report", "w"))
for _, line in ipairs(bad) do report:write(line, "\n") end
for _, line in ipairs(slow) do report:write(line, "\n") end
report:write(("%d functions, %d calls, %d raised\n"):format(#functions, calls, raised))
report:close()
