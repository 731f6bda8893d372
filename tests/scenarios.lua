-- scenarios.lua -- small pieces of everyday work, run by memory_spec.lua and c/luaalloc_test.c with an
-- allocator that fails at the n-th call, for every n. Returns a list of {name, function(gq)}; each function
-- checks its result, so that a failure that was swallowed shows.

local scenarios = {}
local function add(name, f) scenarios[#scenarios + 1] = { name, f } end

local function close(got, want)
  local off = math.abs(got / want - 1)
  if off > 1e-4 or off ~= off then
    error(("wrong result: got %.9g, expected %.9g"):format(got, want), 2)
  end
end

add("tensors", function(gq)
  local x = gq.tensor({ { 1, 2, 3 }, { 4, 5, 6 } })
  local y = (x * 2 + gq.ones(2, 3)):transpose(1, 2):narrow(1, 2, 2)
  close(gq.cat({ y, y }, 1):sum():item(), 2 * (5 + 11 + 7 + 13))
  close(x:matmul(x:transpose(1, 2)):max():item(), 77)
  x[1] = 0
  close(x:to("float64"):softmax(2):sum():item(), 2)
  assert(#tostring(x) > 10 and x:totable()[2][3] == 6)
end)

add("backward", function(gq)
  local x = gq.tensor({ 1, 2, 3 }, { dtype = "float64", requires_grad = true })
  gq.exp(x * 0.5):tanh():sum():backward()
  gq.sum(x * x):backward()
  assert(x.grad:numel() == 3)
  local z = gq.tensor(3, { dtype = "float64", requires_grad = true })
  local g = gq.grad(z ^ 3, z, { create_graph = true })
  if type(g) == "table" then g = g[1] end
  local h = gq.grad(g, z)
  if type(h) == "table" then h = h[1] end
  close(h:item(), 18)
end)

add("a fitted normal", function(gq)
  local x = gq.tensor({ { 1, 2, 6 } }, { dtype = "float64", requires_grad = true })
  local fit = gq.normal_fit(x)
  close(fit.mean:sum():item(), 3)
  local g = gq.grad(fit.std ^ 2, { x }, { create_graph = true })[1]
  close((g * x):sum():item(), 2 * 7)                 -- the variance is of degree 2
  close((gq.grad(g, { x }, { cotangents = x:detach() })[1] * x):sum():item(), 2 * 7)
  gq.gaussian_kl(x:t(), gq.tensor({ { 0 }, { 1 }, { 2 } }, { dtype = "float64" }), { dim = 1 }):backward()
  assert(x.grad:abs():max():item() < 10)
end)

add("indices captured by a trace", function(gq)
  local field = function(_, z)
    for k = 0, 8 do z = z:triu(-k) end
    return -z
  end
  local z = gq.odeint(field, gq.ones(2, 2), { 0, 1 }, { method = "euler", step_size = 0.5, gradient = "none" })
  close(z[2]:sum():item(), 1.75)
end)

for _, pair in ipairs { "direct", "adjoint", "seminorm", "gq", "gqc", "kronrod", "mali alf",
  "reversible reversible_heun", "direct kvaerno5", "aca kvaerno3", "adjoint kvaerno3", "gq kvaerno5" } do
  local gradient, method = pair:match("^(%S+) ?(.*)$")
  local tol = method == "" and 1e-8 or 1e-6
  add("odeint " .. pair, function(gq)
    local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
    local z0 = gq.tensor({ 1, 2 }, { dtype = "float64", requires_grad = true })
    local z = gq.odeint(function(_, y) return -k * y end, z0, { 0, 0.5, 1 },
      { gradient = gradient, method = method ~= "" and method or nil, rtol = tol, atol = tol, gq = { nodes = 8 } })
    z[3]:sum():backward()
    close(k.grad:item(), -3 * math.exp(-0.7))
    close(z0.grad[1]:item(), math.exp(-0.7))
  end)
end

for _, gradient in ipairs { "aca", "gq" } do
  add("odeint with independent rows, " .. gradient, function(gq)
    local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
    local shift = gq.tensor({ 0, 0, 0 }, { dtype = "float64", requires_grad = true })
    local z0 = gq.tensor({ 1, 2, 0 }, { dtype = "float64", requires_grad = true })
    local z, info = gq.odeint(function(_, y) return -k * y + shift end, z0, { 0, 0.5, 1 },
      { gradient = gradient, batch = "independent", rtol = 1e-8, atol = 1e-8, gq = { nodes = 8 } })
    z[3]:sum():backward()
    close(k.grad:item(), -3 * math.exp(-0.7))
    close(z0.grad[1]:item(), math.exp(-0.7))
    close(shift.grad[2]:item(), (1 - math.exp(-0.7)) / 0.7)
    assert(info.samples.nfe:sum():item() == info.nfe and #info.samples.status == 3)
  end)
end
-- The first pass of the structure is audited: the integrand is theta's sin, at nodes too few for it.
add("odeint with guards", function(gq)
  collectgarbage()
  gq.core.plan_cache(false)
  local theta = gq.zeros(1, { dtype = "float64", requires_grad = true })
  local z, info = gq.odeint(function(t, y) return theta * gq.sin(20 * t) - y end, gq.ones(1, { dtype = "float64" }),
    { 0, 1 }, { rtol = 1e-3, atol = 1e-3, gq = { nodes = 4, guards = true } })
  z[2]:sum():backward()
  assert(info.spectrum > 0.1 and (info.audit or 1) > 0.05)      -- a plan that is still in use has had its audit
end)

add("odeint with independent rows of several dimensions", function(gq)
  local w = gq.eye(2, { dtype = "float64" })
  w.requires_grad = true
  local z = gq.odeint(function(_, y) return -y:matmul(w) end, gq.ones(3, 2, 2, { dtype = "float64" }), { 0, 1 },
    { batch = "independent", rtol = 1e-8, atol = 1e-8, gq = { nodes = 8 } })
  z[2]:sum():backward()
  close(w.grad:sum():item(), -24 * math.exp(-1))
end)

add("odeint by Monte Carlo nodes", function(gq)
  local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
  local z = gq.odeint(function(_, y) return -k * y end, gq.ones(2, { dtype = "float64" }), { 0, 0.5, 1 },
    { rtol = 1e-8, atol = 1e-8, gq = { nodes = 70, quadrature = "monte-carlo", seed = 1 } })
  z[3]:sum():backward()
  close(k.grad:item(), -2 * math.exp(-0.7))   -- a'z is constant: any equal weights do
end)

-- A pulse, which eq. (9) misses: the backward solve is made again, in pieces.
add("odeint by refined nodes", function(gq)
  local a = gq.tensor({ 0.5 }, { dtype = "float64", requires_grad = true })
  local z, info = gq.odeint(function(t, y) return a * gq.exp(-((t - 0.5) / 0.05) ^ 2) - y end,
    gq.ones(2, 1, { dtype = "float64" }), { 0, 1 }, { gradient = "gq", audit = false, max_step = 0.05, rtol = 1e-4,
      atol = 1e-4, adjoint = { trajectory = "reverse" } })
  z[2]:sum():backward()
  assert(info.rounds > 0)
end)

add("odeint by moments", function(gq)
  local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
  local t = {}
  for i = 0, 20 do t[i + 1] = i / 20 end
  local z = gq.odeint(function(_, y) return -k * y end, gq.ones(2, { dtype = "float64" }), t,
    { rtol = 1e-7, atol = 1e-7, method = "dopri8", gq = { nodes = "step" }, adjoint = { impulses = "moments" } })
  z[21]:sum():backward()
  close(k.grad:item(), -2 * math.exp(-0.7))
end)

for _, gradient in ipairs { "direct", "gq" } do
  add("odeint of a Lua function, " .. gradient, function(gq)
    local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
    local double = k * 2
    local z = gq.odeint(function(t, y) return t:item() < 0.5 and -k * y or double * y * -0.5 end,
      gq.ones(2, { dtype = "float64" }), { 0, 0.5, 1 },
      { trace = false, params = { k, double }, gradient = gradient, rtol = 1e-6, atol = 1e-6, gq = { nodes = 8 },
        grid_points = { 0.5 } })
    z[3]:sum():backward()
    close(k.grad:item(), -2 * math.exp(-0.7))
  end)
end

for _, trajectory in ipairs { "checkpoint", "interpolated" } do
  add("odeint along trajectory " .. trajectory, function(gq)
    local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
    local z = gq.odeint(function(_, y) return -k * y end, gq.ones(2, { dtype = "float64" }), { 0, 0.5, 1 },
      { rtol = 1e-8, atol = 1e-8, gq = { nodes = 8 }, adjoint = { trajectory = trajectory, checkpoints = 3 } })
    z[3]:sum():backward()
    close(k.grad:item(), -2 * math.exp(-0.7))
  end)
end

add("an event, an interpolant and a jump", function(gq)
  local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
  local z, _, t, at = gq.odeint(function(s, y) return gq.where(s:lt(0.2), -k * y, -2 * k * y) end,
    gq.tensor({ 1 }, { dtype = "float64" }), { 0, 5 },
    { event = function(_, y) return y[1] - 0.5 end, dense = true, grid_points = { 0.2 }, rtol = 1e-7, atol = 1e-7 })
  close(t:item(), (math.log(2) / 0.7 + 0.2) / 2)
  close(at(t:item()):item(), 0.5)
  close(z[1]:item(), 0.5)
  close(gq.grad(t, k):item(), -math.log(2) / 0.7 ^ 2 / 2)
end)

add("a state of two tensors", function(gq)
  local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
  local z = gq.odeint(function(_, s) return { -k * s[1], s[1]:sum(2) } end,
    { gq.ones(2, 2, { dtype = "float64" }), gq.zeros(2, { dtype = "float64" }) }, { 0, 1 },
    { rtol = 1e-8, atol = 1e-8 })
  close(gq.grad(z[1][2]:sum(), k):item(), -4 * math.exp(-0.7))
  close(z[2][2]:sum():item(), 4 * (1 - math.exp(-0.7)) / 0.7)
end)
for _, o in ipairs { { method = "implicit_adams", rtol = 1e-7, atol = 1e-7, adjoint = { trajectory = "dense" } },
  { method = "explicit_adams", step_size = 0.05, max_order = 6 } } do
  add("odeint " .. o.method, function(gq)
    o.gq, o.dense, o.grid_points = { nodes = 8 }, true, { 0.5 }
    local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
    local z, _, at = gq.odeint(function(_, y) return -k * y end, gq.ones(2, { dtype = "float64" }), { 0, 0.33, 1 }, o)
    z[3]:sum():backward()
    close(k.grad:item(), -2 * math.exp(-0.7))
    close(z[2][1]:item(), math.exp(-0.7 * 0.33))
    close(at(0.8)[1]:item(), math.exp(-0.7 * 0.8))
  end)
end

add("regularised solves", function(gq)
  local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
  local t = gq.steer({ 0, 1 }, 0)
  local z, info = gq.odeint(function(_, y) return -k * y end, gq.ones(2, 2, { dtype = "float64" }), t,
    { rtol = 1e-8, atol = 1e-8, regularise = { kinetic = true, jacobian = { seed = 1 }, taylor = 2 } })
  local r = info.regularisers
  close(z[2][1][1]:item(), math.exp(-0.7))
  close(r.kinetic[2][2]:item(), 0.7 * (1 - math.exp(-1.4)))
  close(gq.grad(r.taylor[2]:sum(), k):item(), 6 * 0.7 ^ 2 * (1 - math.exp(-1.4)) + 4 * 0.7 ^ 3 * math.exp(-1.4))
  assert(r.jacobian[2]:sum():item() > 0)
end)

add("solves regularised by the solver's heuristics", function(gq)
  local k = gq.tensor(0.7, { dtype = "float64", requires_grad = true })
  local z, info = gq.odeint(function(_, y) return -k * y end, gq.ones(2, { dtype = "float64" }), { 0, 1 },
    { gradient = "direct", regularise = { error = true, stiffness = true } })
  local r = info.regularisers
  close(r.stiffness:item(), 0.7 * info.steps)
  close(gq.grad({ z[2]:sum(), r.stiffness }, k):item(), info.steps - 2 * math.exp(-0.7))
  assert(gq.grad(r.error, k):item() > 0)             -- its records are solved for again
end)

add("jets", function(gq)
  local z = gq.tensor({ 0, 0.5 }, { dtype = "float64", requires_grad = true })
  local d = gq.jet(function(t, y) return 1 + y * y + gq.tanh(t) * 0 end, 0, z, 5)
  close(d[5][1]:item(), 16)
  close(gq.grad(d[2][1], z)[1]:item(), 2)
end)

add("networks", function(gq)
  local net = gq.nn.mlp { sizes = { 2, 3, 1 }, activation = "tanh" }
  local loss = net(gq.ones(4, 2)):pow(2):mean()
  loss:backward()
  local copy = gq.nn.mlp { sizes = { 2, 3, 1 }, activation = "tanh" }
  copy:load_state_dict(net:state_dict())
  close(copy(gq.ones(4, 2)):pow(2):mean():item(), loss:item())
end)

add("a flow", function(gq)
  local A = gq.tensor({ { 0.3, 1 }, { -1, 0.2 } }, { requires_grad = true })
  local flow = gq.flow { net = function(_, z) return z:matmul(A) end, dim = 2, trace = "hutchinson" }
  local _, log_det = flow:inverse(gq.ones(1, 2), { seed = 1 })
  log_det:sum():backward()
  close(log_det:item(), -0.5)                       -- signs cancel the antisymmetric part
  close(A.grad[1][1]:item(), -1)
end)

add("a recurrent cell", function(gq)
  local cell = gq.nn.GRUCell(2, 3)
  cell(gq.ones(1, 2), cell(gq.ones(1, 2))):sum():backward()
  assert(cell.weight_hh.grad:numel() == 27)
end)

for _, name in ipairs { "adam", "sgd" } do
  add("optimiser " .. name, function(gq)
    local x = gq.tensor({ 1, 2 }, { requires_grad = true })
    local opt = gq.optim[name]({ x }, { lr = 0.1 })
    for _ = 1, 3 do
      opt:zero_grad()
      gq.sum(x * x):backward()
      gq.optim.clip_grad_norm({ x }, 1)
      opt:step()
    end
    assert(x:detach()[1]:item() < 0.9)
    opt:load_state_dict(opt:state_dict())
  end)
end

add("training an ODE", function(gq)
  local net = gq.nn.mlp { sizes = { 2, 4, 2 }, activation = "softplus", time = true }
  local opt = gq.optim.adam(net:parameters(), { lr = 0.01 })
  for _ = 1, 2 do
    local z = gq.odeint(net, gq.ones(3, 2), { 0, 1 }, { gradient = "gq" })
    opt:zero_grad()
    z[2]:pow(2):mean():backward()
    opt:step()
  end
end)

-- Rows enough for two threads: steps wait for each other.
add("gradients of an SDE in slices", function(gq)
  local sde = gq.sde { drift = function(_, z) return -z end, diffusion = function(_, z) return 0.1 * z end }
  for _, engine in ipairs { "reversible", "adjoint" } do
    local z0 = gq.ones(1500, { dtype = "float64", requires_grad = true })
    local z = gq.sdeint(sde, z0, { 0, 0.02 }, { method = "reversible_heun", dt = 0.01, gradient = engine, seed = 1 })
    z[2]:sum():backward()
    close(z0.grad:sum():item(), z[2]:sum():item())
  end
end)

add("a stochastic solve", function(gq)
  local sde = gq.sde {
    drift = function(_, y) return -y end, diffusion = function(_, y) return y * 0.1 end,
    noise = "diagonal", calculus = "stratonovich",
  }
  local z = gq.sdeint(sde, gq.ones(2, 2), { 0, 0.2 }, { method = "heun", dt = 0.05, gradient = "none" })
  assert(#z == 2)
  local field = gq.wong_zakai(sde, { cosines = 2, t0 = 0, t1 = 0.2, seed = 1 })
  assert(#gq.odeint(field, gq.ones(2, 2), { 0, 0.2 }) == 2)
end)

add("files", function(gq)
  local path = os.tmpname()
  local _ <close> = setmetatable({}, { __close = function()
    for _, suffix in ipairs { "", ".safetensors", ".npy" } do os.remove(path .. suffix) end
  end })
  gq.save(path .. ".safetensors", { a = gq.ones(2, 2), b = gq.zeros(3) })
  close(gq.load(path .. ".safetensors").a:sum():item(), 4)
  gq.save(path .. ".npy", gq.ones(5))
  close(gq.load(path .. ".npy"):sum():item(), 5)
end)

add("data", function(gq)
  local set, rows = gq.data.nested_spheres { train = 8, test = 4, seed = 1 }, 0
  for x in gq.data.batches(set.train, { batch_size = 3, shuffle = true, seed = 2 }) do rows = rows + #x end
  assert(rows > 0)
  assert(#gq.data.density { name = "moons", train = 8, test = 4, seed = 1 }.test.x == 4)
  assert(#gq.data.spirals { train = 3, test = 2, times = 4, seed = 1 }.train.y == 3)
end)

return scenarios
