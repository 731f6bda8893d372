-- bits.lua -- what scripts/bits runs for one set of kernels: cases, a line each:
--   quick | full  TAB  name  TAB  aspect=hash aspect=hash ...     quick: those of --quick
--   message  TAB  hash  TAB  text                                 of an error, once
-- Run by the interpreter of bits.c:  HOST scripts/bits.lua KERNELS (quick | full) (first | -) WORDS
-- first: and what does not depend on kernels. Only the cases whose names contain WORDS.

local gq = require "gq"
local each = dofile((arg[0]:gsub("bits%.lua$", "common.lua"))).each
local kernels, extent, first, only = arg[1], arg[2], arg[3] == "first", arg[4]
local full, now = extent == "full", "quick"
local host = bits_host  -- luacheck: globals bits_host
if not host.kernels(kernels) then return end
warn("@off")
io.stdout:setvbuf("line")

-- ---- hashes: FNV-1a over 64-bit words, folded; every NaN is one ----

local OFFSET, PRIME = -3750763034362895579, 1099511628211

local function word(h, w)
  h = (h ~ w) * PRIME
  return h ~ (h >> 29)
end

local function sorted_keys(t)
  local keys = {}
  for k in pairs(t) do
    if type(k) == "string" then keys[#keys + 1] = k end
  end
  table.sort(keys)
  return keys
end

local function add(h, x)
  local kind = math.type(x) or type(x)
  if kind == "float" then
    return word(h, x ~= x and 1 or string.unpack("<i8", string.pack("<d", x)))
  elseif kind == "integer" then
    return word(h, x)
  elseif kind == "string" then
    for i = 1, #x - 7, 8 do h = word(h, string.unpack("<i8", x, i)) end
    for i = #x - #x % 8 + 1, #x do h = word(h, x:byte(i)) end
    return word(h, #x)
  elseif gq.is_tensor(x) then
    h = add(h, x.dtype)
    for _, n in ipairs(x.shape) do h = word(h, n) end
    if x:numel() == 0 then return h end
    return add(h, x:dim() == 0 and x:item() or x:detach():reshape(-1):totable())
  elseif kind == "table" then
    for i = 1, #x do h = add(h, x[i]) end
    for _, k in ipairs(sorted_keys(x)) do h = add(add(h, k), x[k]) end
    return h
  end
  return add(h, kind == "boolean" and tostring(x) or kind)
end

local function hash(x) return ("%012x"):format(add(OFFSET, x) & 0xffffffffffff) end

-- ---- lines ----

-- An error's text without the place in a file that it begins with; kept apart, once.
local told = {}
local function failure(e)
  local text = tostring(e):gsub("^[^%s:]+:%d+: ", ""):gsub("\nstack traceback:.*", "")
  local h = hash(text)
  if not told[h] then
    told[h] = true
    print("message\t" .. h .. "\t" .. text:gsub("[\n\t]", " "))
  end
  return "error=" .. h
end

local function line(name, parts)
  if name:find(only, 1, true) then print(now .. "\t" .. name .. "\t" .. parts) end
end

-- Like the first one of its structure: nothing compiled before.
local function fresh()
  collectgarbage()
  collectgarbage()
  gq.core.plan_cache(false)
  host.programs()
end

-- case(name, f): f() gives pairs {aspect, value}, ...; what raises is a result as well. Once a name.
local done = {}
local function case(name, f)
  if done[name] or not (kernels .. " " .. name):find(only, 1, true) then return end
  done[name] = true
  fresh()
  gq.manual_seed(17)
  gq.core.steplog(true)
  local ok, list = pcall(f)
  local log = gq.core.steplog()
  gq.core.steplog(false)
  local parts = {}
  if ok then
    for _, p in ipairs(list) do parts[#parts + 1] = p[1] .. "=" .. (p[2] == nil and "none" or hash(p[2])) end
  else
    parts[1] = failure(list)
  end
  if #log > 0 then parts[#parts + 1] = "log=" .. hash(log) end
  parts[#parts + 1] = "programs=" .. hash(host.programs())
  line(kernels .. " " .. name, table.concat(parts, " "))
end

-- ---- what there is: the names that the error of an unknown one lists ----

local function there_are(key)
  local _, e = pcall(gq.odeint, function(_, z) return z end, gq.ones(1), { 0, 1 }, { [key] = "?" })
  local names = {}
  for name in tostring(e):match("[Tt]here are: (.*)"):gmatch("[%w_]+") do names[#names + 1] = name end
  return names
end
local engines, methods = there_are("gradient"), there_are("method")
local dtypes = { "float32", "float64" }
local short = { float32 = "f32", float64 = "f64" }
local fixed = {}                  -- methods without an error estimate
for _, m in ipairs(methods) do
  fixed[m] = not pcall(gq.odeint, function(_, z) return -z end, gq.ones(2), { 0, 1 }, { method = m, gradient = "none" })
end

local function copy(...)
  local o = {}
  for i = 1, select("#", ...) do
    for k, v in pairs((select(i, ...)) or {}) do o[k] = v end
  end
  return o
end

-- The method that an engine of its own takes.
local own = { mali = "alf", reversible = "reversible_heun" }

-- ---- problems: fixed numbers from seeds ----

local function values(shape, seed, dtype, scale)
  return gq.randn(shape, { seed = seed, dtype = dtype }) * (scale or 1)
end

local function leaf(x)
  x = x:detach():clone()
  x.requires_grad = true
  return x
end

-- What a field adds to its slope: operations that rows, batches, columns and derivatives each have rules for.
local kinds = {
  none = function(_, z) return z * 0 end,
  coupled = function(p, z) return p.b * (z - z:mean(1, true)) + z:sum() * 0.01 end,
  attention = function(p, z) return z:matmul(p.w):matmul(z:t()):softmax(2):matmul(z) - z end,
  select = function(p, z) return z:index_select(2, { 3, 1, 2, 4 }) * p.b - z end,
  gather = function(p, z)
    return z:gather(2, gq.tensor({ { 2, 2, 1, 4 } }, { dtype = "int64" }):expand(z.shape[1], 4)) * p.b - z
  end,
  where = function(p, z) return gq.where(z:gt(0.1), p.b * z, -z:abs()) end,
  turned = function(p, z) return gq.cat({ z:narrow(2, 3, 2) * p.b[1], -z:narrow(2, 1, 2) }, 2) end,
  strided = function(_, z) return gq.cat({ z[{ {}, { 1, 3, 2 } }], z[{ {}, { 2, 4, 2 } }] * -0.5 }, 2) end,
  largest = function(p, z) return (z:max(2, true)) * p.b - (z:min(1, true)) end,
  blocks = function(p, z)
    return z:reshape(-1, 2, 2):matmul(p.w:reshape(4, 2, 2):narrow(1, 1, 1)):transpose(2, 3):reshape(z.shape) - z
  end,
  statistics = function(p, z) return z / (1 + z:norm()) * p.b - z:logsumexp(2, true) * 0.1 + z:var(2, true) - z end,
  powers = function(p, z) return (z:abs() + 0.5) ^ (p.b + 1) - z:clamp(-1, 0.4) ^ 3 - gq.gelu(z) end,
  transposed = function(p, z) return z:t():tanh():narrow(1, 1, 4):t():matmul(p.w:t()) - z end,
  outer = function(p, z) return (z:unsqueeze(3) * p.w:unsqueeze(1)):sum(2) - gq.tanh(z * z:prod(2, true)) end,
}

-- A small nonlinear field of rows {.., 4} that depends on t, on leaves, on what is made of a leaf, on a constant.
local function small(dtype, rows, kind)
  local p = { w = leaf(values({ 4, 4 }, 3, dtype, 0.4)), b = leaf(values({ 4 }, 4, dtype, 0.3)),
    k = leaf(values({ 4 }, 5, dtype, 0.2)), z0 = leaf(values(rows and { rows, 4 } or { 4 }, 6, dtype, 0.7)) }
  local k, shift = gq.exp(p.k), values({ 4 }, 7, dtype)
  p.extra = k
  function p.f(t, z)
    local slope = gq.tanh(z:reshape(-1, 4):matmul(p.w) + p.b * gq.sin(3 * t)):reshape(z.shape)
    slope = slope - k * z * 0.5 + 0.1 * shift
    return kind and slope + kinds[kind](p, z) or slope
  end
  return p
end

-- x'' of rows {.., 2}, for the method that takes nothing else.
local function second_order(p)
  function p.f(t, z)
    local x, v = z:narrow(-1, 1, 2), z:narrow(-1, 3, 2)
    local a = gq.tanh(x:reshape(-1, 2):matmul(p.w:narrow(1, 1, 2):narrow(2, 1, 2))):reshape(x.shape)
    return gq.cat({ v, a - x * gq.exp(p.k[1]) + p.b[2] * gq.sin(3 * t) }, -1)
  end
end

local function field_of(method, dtype, rows)
  local p = small(dtype, rows)
  if method == "leapfrog" then second_order(p) end
  return p
end

local function mlp(dtype, width, batch)
  gq.manual_seed(5)
  local net = gq.nn.mlp { sizes = { 2, width, width, 2 }, activation = "tanh", time = true }:to(dtype)
  local p = { z0 = leaf(values({ batch, 2 }, 8, dtype)), f = function(t, z) return net(t, z) end }
  for i, w in ipairs(net:parameters()) do p[("p%02d"):format(i)] = w end
  return p
end

local function sorted_leaves(p)
  local list = {}
  for _, k in ipairs(sorted_keys(p)) do
    local v = p[k]
    if gq.is_tensor(v) and v.is_leaf and v.requires_grad then list[#list + 1] = v.grad or "none" end
  end
  return list
end

-- Fixed weights of every number of the result.
local function weigh(z, seed)
  if type(z) == "table" then
    local sum = weigh(z[1], seed)
    for i = 2, #z do sum = sum + weigh(z[i], seed + i) end
    return sum
  end
  return (z * values(z.shape, seed, z.dtype)):sum()
end

-- What info tells, but for bytes.
local fact_names = {}
for key in ([[engine status reason warning nfe steps rejected jacobians newton t event_t nfe_event regularisers samples
  nfe_backward steps_backward rejected_backward restarts nodes nodes_wanted reconstruction audit nfe_audit spectrum
  quadrature_error panels panels_split]]):gmatch("%S+") do fact_names[#fact_names + 1] = key end

local function facts(info)
  local o = {}
  for _, key in ipairs(fact_names) do o[key] = info[key] end
  return o
end

-- A solve, its loss and its gradients.
local function solve(p, t, o)
  if type(t) == "table" then t = gq.tensor(t, { dtype = "float64", requires_grad = o.gradient ~= "none" }) end
  p.t = t
  local z, info, a, b = gq.odeint(p.f, p.z0, t, o)
  local loss, more = weigh(z, 21), {}
  local of = facts(info)                       -- before backward fills it in
  for _, x in ipairs { a, b } do
    if gq.is_tensor(x) then
      more[#more + 1], loss = x, loss + 0.3 * x:sum()
    elseif x ~= nil then
      for i = 0, 10 do more[#more + 1] = x(x.t0 + i / 10 * (x.t1 - x.t0)) end
    end
  end
  if info.regularisers then
    for _, k in ipairs(sorted_keys(info.regularisers)) do loss = loss + 0.01 * info.regularisers[k]:sum() end
  end
  local list = { { "z", { z, more } }, { "forward", of } }
  if o.gradient == "none" or not loss.requires_grad then return list end
  loss:backward()
  list[3], list[4] = { "grad", sorted_leaves(p) }, { "backward", facts(info) }
  return list
end

-- ---- engines by methods ----

local times = { 0, 0.3, 0.35, 1 }

local function grid(threads, rows, every)
  gq.set_threads(threads)
  for i, m in ipairs(methods) do
    for j, e in ipairs(engines) do
      for d, dtype in ipairs(dtypes) do
        if every or (i + j + d) % 2 == 0 then
          case(("%dT %s %s %s rows %d"):format(threads, short[dtype], m, e, rows), function()
            local o = { gradient = e, method = m, step_size = fixed[m] and 0.1 or nil }
            return solve(field_of(m, dtype, rows), times, o)
          end)
        end
      end
    end
  end
end

-- ---- options: {name, options, more = {t =, rows =, prepare = function(p, o)}} ----

local many = {}
for i = 0, 24 do many[i + 1] = i / 24 + 0.01 * math.sin(7 * i) * (i % 24 == 0 and 0 or 1) end

local function height(t, z) return z:reshape(-1)[1] - 0.3 + 0.5 * t - 0.6 end

local function several(p)
  local z0 = p.z0
  p.x, p.v = leaf(z0[{ {}, { 1, 2 } }]), leaf(z0[{ {}, { 3, 4 } }])
  p.z0 = { p.x, p.v }
  local f = p.f
  p.f = function(t, z)
    local s = f(t, gq.cat({ z[1], z[2] }, 2))
    return { s:narrow(2, 1, 2), s:narrow(2, 3, 2) }
  end
end

local function untimed(_, _, t) return gq.tensor(t, { dtype = "float64" }) end
local function untraced(p, o) o.params = { p.w, p.b, p.extra } end

local options = {
  { "step_size", { step_size = 0.07 } },
  { "decreasing", {}, t = { 1, 0.5, 0.2 } },
  { "irregular", {}, t = { 0, 0.01, 0.013, 0.5, 0.5, 0.51, 1 } },
  { "negative", {}, t = { -0.4, 0.1, 0.7 } },
  { "one time", {}, t = { 0.5 } },
  { "times without gradient", {}, prepare = untimed },
  { "vector", {}, rows = false },
  { "first_step", { first_step = 0.3 } },
  { "max_steps", { max_steps = 3, rtol = 1e-5, throw = false }, t = { 0, 0.01, 1 } },
  { "norm", { norm = "max" } },
  { "tight", { rtol = 1e-6, atol = 1e-8 } },
  { "controller",
    { controller = { safety = 0.8, ifactor = 5, dfactor = 0.3, pcoeff = 0.2, icoeff = 0.7, dcoeff = 0.1 } } },
  { "reverse", { adjoint = { trajectory = "reverse" } } },
  { "dense trajectory", { adjoint = { trajectory = "dense" } } },
  { "checkpoint", { adjoint = { trajectory = "checkpoint", checkpoints = 3 } } },
  { "interpolated", { adjoint = { trajectory = "interpolated", points = 5 } } },
  { "moments", { adjoint = { impulses = "moments" } }, t = many },
  { "moments dense", { adjoint = { impulses = "moments", trajectory = "dense" }, gq = { nodes = "step" } }, t = many },
  { "restarts", {}, t = many },
  { "unscaled", { adjoint = { scale = false } } },
  { "adjoint.method", { adjoint = { method = "bosh3", rtol = 1e-4, atol = 1e-5 } } },
  { "adjoint.method implicit", { adjoint = { method = "kvaerno3" } } },
  { "adjoint.step_size", { adjoint = { step_size = 0.05 } } },
  { "adjoint.norm", { adjoint = { norm = "max", max_steps = 500 } } },
  { "nodes step", { gq = { nodes = "step" } } },
  { "nodes step dense", { gq = { nodes = "step" }, adjoint = { trajectory = "dense" } } },
  { "nodes nfe", { gq = { nodes = "nfe", C = 1, max_nodes = 9 } } },
  { "nodes 5", { gq = { nodes = 5 } } },
  { "panels", { gq = { nodes = 3, panels = 4 } } },
  { "guards", { gq = { nodes = 4, guards = true } } },
  { "parity", { parity = true } },
  { "overshoot", { overshoot = true } },
  { "independent", { batch = "independent" } },
  { "independent step", { batch = "independent", step_size = 0.07 }, prepare = untimed },
  { "independent nodes step", { batch = "independent", gq = { nodes = "step" }, adjoint = { trajectory = "dense" } } },
  { "independent checkpoint", { batch = "independent", adjoint = { trajectory = "checkpoint", checkpoints = 3 } } },
  { "independent moments", { batch = "independent", adjoint = { impulses = "moments" } }, t = many },
  { "untraced", { trace = false }, prepare = untraced },
  { "params", {}, prepare = function(p, o) o.params = { p.w } end },
  { "grid_points", { grid_points = { 0.2, 0.77 } } },
  { "event", { event = height }, t = { 0, 3 } },
  { "dense", { dense = true } },
  { "several", {}, prepare = several },
  { "regularise kinetic", { regularise = { kinetic = true } } },
  { "regularise", { regularise = { kinetic = true, jacobian = { seed = 3 }, taylor = { order = 2 } } } },
  { "regularise error", { regularise = { error = true } } },
  { "regularise stiffness", { regularise = { stiffness = true } } },
  { "memory_limit", { memory_limit = 3000 } },
  { "eta", { eta = 0.8 } },
  { "max_order", { max_order = 3 } },
}
for _, rule in ipairs(gq.core.quadratures()) do
  options[#options + 1] = { rule.name, { gq = { quadrature = rule.name, nodes = 6, seed = 2 } } }
  options[#options + 1] = { rule.name .. " step",
    { gq = { quadrature = rule.name, nodes = "step", seed = 2 }, adjoint = { trajectory = "dense" } } }
end

local function with_option(name, option, dtype, o, rows)
  case(name, function()
    local p, t = field_of(o.method, dtype, option.rows ~= false and rows or nil), option.t or times
    o = copy(o, option[2])
    if fixed[o.method] and not o.step_size then o.step_size = 0.1 end
    if option.prepare then t = option.prepare(p, o, t) or t end
    return solve(p, t, o)
  end)
end

-- Every engine with every option; other methods by the engines in turn.
local function each_option(threads, rows, more, every)
  gq.set_threads(threads)
  for i, option in ipairs(options) do
    for j, e in ipairs(engines) do
      for d, dtype in ipairs(dtypes) do
        if every or (i + j + d) % 2 == 0 then
          for _, m in ipairs { own[e] or "dopri5", table.unpack(more) } do
            local name = ("%dT %s %s %s rows %d: %s"):format(threads, short[dtype], m, e, rows, option[1])
            with_option(name, option, dtype, { gradient = e, method = m }, rows)
          end
        end
      end
    end
  end
end

-- ---- fields of every kind, and derivatives of gradients ----

local function fields(threads, rows, list_of_engines, o, what)
  gq.set_threads(threads)
  for i, kind in ipairs(sorted_keys(kinds)) do
    for j, e in ipairs(list_of_engines) do
      local dtype = dtypes[(i + j) % 2 + 1]
      case(("%dT %s field %s %s rows %d%s"):format(threads, short[dtype], kind, e, rows, what or ""), function()
        return solve(small(dtype, rows, kind), times, copy({ gradient = e, method = own[e] }, o))
      end)
    end
  end
end

local function second_derivatives()
  gq.set_threads(1)
  for e, dtype in each(engines, dtypes) do
    for _, m in ipairs { own[e] or "dopri5", "rk4" } do
      case(("1T %s %s %s of gradients"):format(short[dtype], m, e), function()
        local p = small(dtype, 3)
        local z = gq.odeint(p.f, p.z0, times, { gradient = e, method = m, step_size = fixed[m] and 0.1 or nil })
        local g = gq.grad(weigh(z, 21), { p.z0, p.w }, { create_graph = true })
        return { { "grad", g }, { "second", gq.grad(weigh(g, 40), { p.z0, p.w, p.k }) } }
      end)
    end
  end
end

-- ---- networks, again in a loop of training ----

local function networks(list_of_engines, widths, batches, thread_counts)
  for _, threads in ipairs(thread_counts) do
    gq.set_threads(threads)
    for e, width, batch, dtype in each(list_of_engines, widths, batches, dtypes) do
      case(("%dT %s mlp %d x %d %s"):format(threads, short[dtype], width, batch, e), function()
        return solve(mlp(dtype, width, batch), { 0, 0.4, 1 },
          { gradient = e, method = own[e], rtol = 1e-3, atol = 1e-3 })
      end)
    end
  end
end

local function training(threads, kind, config, e, dtype)
  gq.set_threads(threads)
  case(("%dT %s training by %s %s"):format(threads, short[dtype], kind, e), function()
    local p, params, losses = mlp(dtype, 5, 30), {}, {}
    for _, k in ipairs(sorted_keys(p)) do
      if k ~= "z0" and k ~= "f" then params[#params + 1] = p[k] end
    end
    local opt = gq.optim[kind](params, config)
    for i = 1, 4 do
      opt:zero_grad()
      local z, info = gq.odeint(p.f, p.z0, { 0, 0.5, 1 }, { gradient = e, method = own[e] })
      local loss = weigh(z, 30)
      if e ~= "none" then loss:backward() end
      gq.optim.clip_grad_norm(params, 5)
      opt:step()
      losses[i] = { loss, facts(info) }
    end
    return { { "params", params }, { "losses", losses } }
  end)
end

local configs = {
  { "adam", {} }, { "adam", { lr = 0.1, betas = { 0.7, 0.9 }, eps = 1e-4, weight_decay = 0.1 } },
  { "adamw", { weight_decay = 0.1 } }, { "sgd", { lr = 0.1 } },
  { "sgd", { lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 0.01 } },
  { "sgd", { lr = 0.1, momentum = 0.9, dampening = 0.2 } }, { "rmsprop", { lr = 0.01 } },
  { "rmsprop", { lr = 0.01, alpha = 0.9, momentum = 0.5, centered = true, weight_decay = 0.1 } },
}

local function optimisers(threads)
  gq.set_threads(threads)
  for i, c in ipairs(configs) do
    for _, dtype in ipairs(dtypes) do
      case(("%dT %s optimiser %d %s"):format(threads, short[dtype], i, c[1]), function()
        local params = {}
        for j, n in ipairs { 1, 7, 1000, 20000 } do params[j] = leaf(values({ n }, j, dtype)) end
        local opt, norms = gq.optim[c[1]](params, c[2]), {}
        for s = 1, 5 do
          for j, x in ipairs(params) do x.grad = values(x.shape, 10 * s + j, dtype) end
          norms[s] = gq.optim.clip_grad_norm(params, s % 2 == 0 and 1 or 1e9)
          opt:step()
        end
        return { { "params", params }, { "norms", norms }, { "state", opt:state_dict() } }
      end)
    end
  end
end

-- ---- SDEs ----

local diffusion = {
  diagonal = function(k) return function(_, z) return k * gq.sigmoid(z) end end,
  scalar = function(k) return function(_, z) return (k * z):unsqueeze(-1) end end,
  additive = function(k) return function(t) return (gq.stack({ k, k * 2, k }, 2)) * (1 + t) end end,
  general = function(k) return function(_, z) return gq.stack({ k * z, gq.cos(z) }, -1) end end,
}

local function sde_methods()
  local function f(_, z) return z end
  local sde = gq.sde { drift = f, diffusion = f, noise = "diagonal", calculus = "ito" }
  local _, e = pcall(gq.sdeint, sde, gq.ones(1), { 0, 1 }, { method = "?" })
  local names, list = {}, tostring(e):match("[Tt]here are: (.*)") or tostring(e):match("expected one of (.*)") -- once
  for name in list:gmatch("[%w_]+") do names[#names + 1] = name end
  return names
end

local function sdes(threads, sizes)
  gq.set_threads(threads)
  local noises = { "diagonal", "scalar", "additive", "general" }
  for m, noise, calculus, dtype, rows in each(sde_methods(), noises, { "ito", "stratonovich" }, dtypes, sizes) do
    case(("%dT %s sde %s %s %s rows %d"):format(threads, short[dtype], m, noise, calculus, rows), function()
      local k = values({ 4 }, 2, dtype, 0.3)
      local sde = gq.sde { drift = function(t, z) return gq.tanh(k - z) * (1 + t) end,
        diffusion = diffusion[noise](k), noise = noise, calculus = calculus }
      local z, info = gq.sdeint(sde, values({ rows, 4 }, 1, dtype), { 0, 0.3, 1 },
        { method = m, dt = 0.06, seed = 5 })
      return { { "z", z }, { "info", facts(info) } }
    end)
  end
  for _, dtype in ipairs(dtypes) do
    case(("%dT %s brownian"):format(threads, short[dtype]), function()
      local b = gq.brownian { t0 = 0, t1 = 2, shape = { 700 }, seed = 3, dtype = dtype }
      return { { "paths", { b(0.3), b(1.1, 1.7), b(2), b(1e-5) } } }
    end)
    for _, noise in ipairs(noises) do
      case(("%dT %s wong_zakai %s"):format(threads, short[dtype], noise), function()
        local p = { k = leaf(values({ 4 }, 2, dtype, 0.3)), z0 = leaf(values({ 40, 4 }, 1, dtype)) }
        p.f = gq.wong_zakai(gq.sde { drift = function(t, z) return gq.tanh(p.k - z) * (1 + t) end,
          diffusion = diffusion[noise](p.k), noise = noise, calculus = "stratonovich" }, { t0 = 0, t1 = 1, seed = 4 })
        return solve(p, { 0, 0.4, 1 }, { gradient = "gq" })
      end)
    end
  end
end

-- ---- operations ----

local int = function(t) return gq.tensor(t, { dtype = "int64" }) end
local mask = gq.tensor({ { true, false, true }, { false, false, true } })
local others = {
  where = { function(x) return gq.where(mask, x, x * x) end, { 2, 3 } },
  where_number = { function(x) return gq.where(x:gt(0), x * x, 0) end, { 9 } },
  cast = { function(x) return x:to("float64") * 2 + x:to("float32"):to("float64") end, { 5 } },
  matmul = { function(x) return x:matmul(x:t()) end, { 5, 3 } },
  matmul_batch = { function(x) return x:matmul(x:transpose(2, 3)) end, { 2, 5, 3 } },
  matmul_vector = { function(x) return x:matmul(x[1]) end, { 5, 3 } },
  matmul_large = { function(x) return x:t():matmul(x) end, { 130, 70 } },
  linear = { function(x) return gq.tanh(x:matmul(x:narrow(1, 1, 8)) + x[1]) end, { 40, 8 } },
  sum = { function(x) return x:sum(1) + x:sum() end, { 33, 5 } },
  sum_last = { function(x) return x:sum({ 1, 3 }, true) end, { 2, 3, 40 } },
  mean = { function(x) return x:mean(2) * x:var(2) + x:std(2) end, { 4, 9 } },
  prod = { function(x) return x:prod(2) end, { 3, 4 } },
  max = { function(x) return (x:max(2)) + x:max() end, { 5, 7 } },
  min = { function(x) return (x:min(1)) + x:min() end, { 5, 7 } },
  argmax = { function(x) return x:argmax(1):to(x.dtype) + x:argmin(1):to(x.dtype) + x:sum(1) end, { 5, 7 } },
  softmax = { function(x) return x:softmax(2) + x:log_softmax(1) + x:logsumexp(2, true) end, { 5, 7 } },
  norm = { function(x) return x:norm() * x end, { 5, 7 } },
  reshape = { function(x) return x:t():reshape(6) * x:flatten() end, { 2, 3 } },
  permute = { function(x) return x:permute(3, 1, 2):sin() end, { 2, 3, 4 } },
  expand = { function(x) return x:expand(4, 2, 3):exp() end, { 2, 1 } },
  slice = { function(x) return x[{ {}, { 1, 7, 2 } }] * x:narrow(2, 3, 4) end, { 5, 8 } },
  pad = { function(x) return x[{ {}, { 1, 3, 2 } }] ^ 3 end, { 2, 3 } },
  cat = { function(x) return gq.cat({ x, x * x, x:narrow(1, 1, 1) }, 1) end, { 3, 2 } },
  stack = { function(x) return gq.stack({ x, x:exp() }, -1) end, { 5 } },
  index_select = { function(x) return x:index_select(2, { 3, 1, 3 }) ^ 2 end, { 2, 3 } },
  gather = { function(x) return x:gather(2, int { { 3, 1 }, { 2, 2 } }) ^ 2 end, { 2, 3 } },
  clamp = { function(x) return x:clamp(-0.5, 0.5) * x end, { 20 } },
  powers = { function(x) return x ^ 2 + x ^ 3 + (x * x + 1) ^ -1 + 2 ^ x + (x * x + 0.5) ^ x end, { 20 } },
  operators = { function(x) return -x * 2 + 3 / (x * x + 1) - (1 - x) / 4 end, { 20 } },
  activations = { function(x) return gq.gelu(x) + gq.silu(x) + gq.elu(x) + gq.leaky_relu(x) end, { 20 } },
}

-- Values, gradient, second derivative, the same compiled, and the printed graphs of f and of its gradient.
local function operation(name, f, make)
  for _, dtype in ipairs(dtypes) do
    case(("op %s %s"):format(name, short[dtype]), function()
      local x = leaf(make(dtype))
      local y = f(x)
      local list = { { "y", y } }
      if not (y.dtype == "float32" or y.dtype == "float64") then return list end
      local function slope(v)
        local out = f(v)
        return gq.grad((out * values(out.shape, 9, out.dtype)):sum(), v, { create_graph = true })
      end
      if y.requires_grad then
        local g = slope(x)
        list[2] = { "grad", g }
        if g.requires_grad then
          list[3] = { "second", gq.grad((g * values(g.shape, 11, g.dtype)):sum(), x) }
        end
      end
      for _, how in ipairs { "plain", "program" } do
        list[#list + 1] = { how, gq.core.run(f, { x:detach() }, 1, how) }
      end
      list[#list + 1] = { "graph", (gq.core.trace(f, { x:detach() })) }
      if y.requires_grad then
        list[#list + 1] = { "vjp", gq.core.run(slope, { x:detach() }, 1, "program") }
        list[#list + 1] = { "vjpgraph", (gq.core.trace(slope, { x:detach() })) }
      end
      return list
    end)
  end
end

local function maker(shape, positive)
  return function(dtype)
    local x = values(shape, 12, dtype)
    return positive and gq.abs(x) + 0.3 or x
  end
end

local function operations(threads, shapes)
  gq.set_threads(threads)
  local positive = { log = true, log1p = true, sqrt = true, rsqrt = true, reciprocal = true }
  for _, row in ipairs(gq.core.ops) do
    local f = rawget(gq, row.name)
    for _, shape in ipairs(shapes) do
      local name = ("%dT %s {%s}"):format(threads, row.name, table.concat(shape, ", "))
      if row.kind == "unary" then
        operation(name, f, maker(shape, positive[row.name]))
        operation(name .. " view", function(x) return f(x:transpose(1, -1)) end, maker(shape, positive[row.name]))
      elseif row.kind == "binary" then
        operation(name, function(x) return f(x:abs() + 0.3, x * 0.7 - 0.2) end, maker(shape))
        operation(name .. " broadcast", function(x) return f(x:narrow(1, 1, 1):abs() + 0.3, x) end, maker(shape))
      elseif row.kind == "compare" then
        operation(name, function(x) return f(x, x:abs() * 0.5) end, maker(shape))
      end
    end
  end
  for _, name in ipairs(sorted_keys(others)) do
    operation(("%dT %s"):format(threads, name), others[name][1], maker(others[name][2]))
  end
end

-- ---- what is refused: the error of every engine, method and option, and of pairs of options ----

-- What merges the sub-tables of two options.
local function merged(a, b)
  local o = copy(a)
  for k, v in pairs(b) do o[k] = type(v) == "table" and type(o[k]) == "table" and copy(o[k], v) or v end
  return o
end

local refusals = {}
local refused_names = { "step_size", "reverse", "dense trajectory", "checkpoint", "interpolated", "moments",
  "adjoint.method implicit", "nodes step", "guards", "parity", "overshoot", "independent", "untraced", "grid_points",
  "event", "dense", "several", "regularise kinetic", "regularise error", "regularise stiffness", "eta", "max_order",
  "memory_limit", "params" }
for name, option in each(refused_names, options) do
  if option[1] == name then refusals[#refusals + 1] = option end
end
for _, more in ipairs {
  { "eta half", { eta = 0.5 } }, { "nodes 200", { gq = { nodes = 200 } } },
  { "bad method", { adjoint = { method = "alf" } } },
  { "no tolerance", { rtol = 0, atol = 0 } }, { "points", { adjoint = { points = 1 } } },
  { "misspelt", { gradeint = "gq" } },
} do refusals[#refusals + 1] = more end

-- Results of a row of the table in one line: "+" where it went, else the message's hash.
local function refuse(name, e, m, list)
  if done[name] or not name:find(only, 1, true) then return end
  done[name] = true
  fresh()
  gq.set_threads(1)
  local results = {}
  for i, option in ipairs(list) do
    local o = merged({ gradient = e, method = m, rtol = 1e-2, atol = 1e-2 }, option[2])
    if fixed[m] and not o.step_size then o.step_size = 0.05 end
    local k, z0 = gq.ones(1, { requires_grad = true }), gq.ones(2, 2, { requires_grad = true })
    local ok, why = pcall(function()
      o.params = (o.trace == false or o.params) and { k } or nil
      local both = option.prepare == several or option.several
      local z = gq.odeint(function(t, y) return both and { -k * y[1] } or -k * y * t end, both and { z0 } or z0,
        o.event and { 0, 0.1 } or { 0, 0.05, 0.1 }, o)
      if both then z = z[1] end
      if e ~= "none" then z:sum():backward() end
    end)
    results[i] = option[1]:gsub(" ", "_") .. "=" .. (ok and "+" or failure(why):sub(7))
  end
  line(name, table.concat(results, " "))
end

local function refused(list_of_methods)
  for _, e in ipairs(engines) do
    for _, m in ipairs(list_of_methods) do refuse(("refused %s %s"):format(e, m), e, m, refusals) end
  end
end

local function refused_pairs()
  for e, a in each(engines, refusals) do
    local list = {}
    for _, b in ipairs(refusals) do
      if a ~= b then
        list[#list + 1] = { b[1], merged(a[2], b[2]), several = a.prepare == several or b.prepare == several }
      end
    end
    refuse(("refused %s: %s"):format(e, a[1]), e, own[e] or "dopri5", list)
  end
end

-- ---- scripts/errors.lua ----

local function errors()
  if only ~= "" and not only:find("errors", 1, true) then return end
  local json = os.tmpname()
  local path = arg[0]:gsub("bits%.lua$", "errors.lua")
  fresh()
  gq.set_threads(1)
  local saved = arg
  arg = { [0] = path, "--tols", "1e-3,1e-6", "--quick", "--quiet", "--json", json }  -- luacheck: ignore 121
  local ok, e = pcall(dofile, path)
  arg = saved                                                                         -- luacheck: ignore 121
  if not ok then error(e, 0) end
  local rows = gq.json_decode(gq.file_read(json)).rows
  os.remove(json)
  for _, r in ipairs(rows) do
    r.ms = nil
    r.error = r.error and ("%.6g"):format(r.error)        -- a sum over a table: its order is not fixed
    line(("%s errors %s %s %g"):format(kernels, r.problem, r.engine, r.tol), "row=" .. hash(r))
  end
end

-- ---- all: what is quick is in both ----

grid(1, 3, true)
each_option(1, 3, {}, true)
fields(1, 4, { "gq", "direct" })
fields(1, 4, { "gq" }, { batch = "independent" }, " independent")
second_derivatives()
networks({ "gq", "direct" }, { 5, 100 }, { 1, 40 }, { 2 })
training(2, "adam", {}, "gq", "float32")
optimisers(1)
sdes(1, { 5 })
operations(1, { { 5, 7 } })
if first then refused { "dopri5", "kvaerno3", "alf", "leapfrog", "explicit_adams" } end
if not full then return end

now = "full"
grid(2, 40, true)
fields(2, 41, engines)
fields(1, 1, engines)
fields(2, 41, { "direct", "aca", "gq", "check" }, { batch = "independent" }, " independent")
fields(1, 4, { "direct", "gq" }, { regularise = { kinetic = true, jacobian = { seed = 3 }, taylor = { order = 3 } } },
  " regularised")
fields(1, 4, { "adjoint", "gq", "aca" }, { method = "kvaerno3" }, " kvaerno3")
each_option(2, 41, { "kvaerno3", "implicit_adams", "rk4" }, false)
networks({ "gq", "direct" }, { 5, 20, 100 }, { 1, 7, 40, 200 }, { 1, 2 })
networks({ "adjoint", "aca", "gqc", "kronrod", "mali", "reversible" }, { 5, 20 }, { 7, 200 }, { 2 })
for _, e in ipairs(engines) do
  for i, dtype in ipairs(dtypes) do training(i, "adamw", { lr = 0.01 }, e, dtype) end
end
optimisers(2)
sdes(2, { 300 })
operations(2, { { 1, 1 }, { 13, 1 }, { 2, 17 }, { 3000, 7 } })
errors()
if first then
  refused(methods)
  refused_pairs()
end
