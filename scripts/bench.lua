-- bench.lua -- seconds a training step: zero_grad, solve, loss, backward, Adam step, with the batch ready in
-- memory. A fresh model, two untimed steps, then the median over the steps; the median of that over the runs.
--   ./gqlua scripts/bench.lua --help
--   ./gqlua scripts/bench.lua --work nested_spheres --widths 5,20,100 --gradients direct,adjoint,seminorm,gq
-- Training goes on during the timing, so evaluation counts move; those of the last step are shown.
-- Other libraries' steps of the same problems: scripts/peers/compare.lua.

local gq = require "gq"
local common = dofile((arg[0]:match("^(.*)/[^/]*$") or ".") .. "/common.lua")
local nn, median = gq.nn, common.median

local o = gq.cli {
  about = "Time training steps of the paper's problems.",
  more = [[
work: nested_spheres, sines50, sines10, sines_irregular, ou, crossing, or all; images, images256 (batches of 16, 256);
flow, a continuous normalising flow of 250 points of the plane, by the exact trace.
gradients: engines of gq.odeint; for ou also sde_direct, sde_aca, sde_reversible, sde_adjoint: those of gq.sdeint along
Brownian paths, by reversible Heun with steps of 0.01.
columns: seconds is the median step, minimum the fastest; GFLOP/s counts the products of f and its derivatives;
peak is the solver's memory; error is |g - r| / |r| of the gradient g by all parameters and of r, that of a tight
solve in float64; products, elementwise and rest are shares of a step, on the calling thread, of the solver's
programs; outside is the share of a step that is not the solver's: tracing f, loss, optimiser, Lua.]],
  { "work", { "nested_spheres" }, "which problems, with commas" },
  { "widths", nil, "hidden widths, with commas (the problem's own by default)", "numbers" },
  { "gradients", { "direct", "adjoint", "seminorm", "gq" } },
  "trajectory", "impulses", { "nodes", "nfe", "of gq: nfe, auto (gq.odeint's default), step or a number" },
  { "steps", 15, "timed steps a run" },
  { "runs", 3, "runs, of which the median is told" },
  { "limit", 60.0, "seconds after which a run's step is its last, if it is the third or later" },
  { "threads", 0, "threads (0: as many as there are)" },
  { "error", false, "show the gradient's relative error" },
  { "outside", false, "show the share of a step spent outside the solver" },
  { "profile", false, "show the shares of products, element-wise work and the rest of the solver's programs" },
  "C", "paper", "rtol", "atol", "seed", "json",
}
if not o then return end
if o.threads > 0 then gq.set_threads(o.threads) end

local function solver(gradient)
  local options, sde = gq.solver_options(o), gradient:match("^sde_(.+)$")
  if sde then return { gradient = sde, method = "reversible_heun", dt = 0.01 } end
  options.gradient, options.gq.nodes = gradient, math.tointeger(tonumber(o.nodes)) or o.nodes
  return options
end

-- The reference of --error.
local tight = { method = "dopri8", rtol = 1e-10, atol = 1e-10, gradient = "direct" }

local function mlp(n_in, width, n_out, time)
  return nn.mlp { sizes = { n_in, width, width, n_out }, activation = "softplus", time = time }
end

-- ---- problems: widths, rates of gq.paper, state and times, and make(width) -> a model of
--   net, the networks of the dynamics;  all, every module that trains
--   loss(z), of the solution;  field(step), the dynamics of a training step (net where there is none) ----

local problems = {}

function problems.nested_spheres()
  local set = gq.data.nested_spheres { seed = 1, train = 100 }.train
  local function make(width)
    local net, readout = mlp(5, width, 5, true), nn.Linear(5, 2)
    local function loss(z) return gq.cross_entropy(readout(z[2]), set.y) end
    return { net = net, all = nn.Sequential { net, readout }, loss = loss }
  end
  return { widths = { 5, 20, 100, 500, 1000, 1500, 3000 }, make = make, z0 = nn.Augment(3)(set.x), times = { 0, 1 },
    rates = "nested_spheres" }
end

-- Times of all trajectories in one solve; every trajectory reads its own.
local function sines(count, regular)
  return function()
    local set = gq.data.sines { seed = 1, times = count, regular = regular }.train
    local times, index = gq.data.union_times(set.t:expand(#set.x, count))
    local function loss(z)
      return gq.mse_loss(gq.data.at_times(z:narrow(3, 1, 1), index):squeeze(3), set.y:to(z.dtype))
    end
    local function make(width)
      local net = nn.SecondOrder(mlp(2, width, 1, false))
      return { net = net, all = net, loss = loss }
    end
    return { widths = { 20, 200, 1000, 2000 }, make = make, z0 = set.x, times = times, rates = "sines" }
  end
end
problems.sines50, problems.sines10, problems.sines_irregular = sines(50, true), sines(10, true), sines(10, false)

function problems.ou()
  local starts, samples, times, cosines = 40, 45, gq.data.ou_times(), 10
  local set = gq.data.ornstein_uhlenbeck { seed = 1, train = starts, test = 1, samples = samples, dt = 0.05 }.train
  local fit = gq.normal_fit(set.y)
  local z0 = set.x:expand(starts, samples):reshape(starts * samples, 1)
  local function loss(z)
    local target = { mean = fit.mean:t():to(z.dtype), std = fit.std:t():to(z.dtype) }
    return gq.gaussian_kl(z:reshape(#times, starts, samples), target, { time = 1 })
  end
  local function make(width)
    local drift, diffusion = mlp(1, width, 1, true), mlp(1, width, 1, true)
    local net = nn.Sequential { drift, diffusion }
    local sde = gq.sde { drift = drift, diffusion = diffusion, noise = "diagonal", calculus = "stratonovich" }
    local function field(step)
      local xi = gq.randn({ cosines, #z0, 1 }, { seed = step }):to(net:parameters()[1].dtype)
      return gq.wong_zakai(sde, { cosines = cosines, t0 = 0, t1 = 10, xi = xi })
    end
    return { net = net, all = net, loss = loss, field = field, sde = sde }
  end
  return { sde = true, widths = { 5, 20, 50, 100 }, make = make, z0 = z0, times = times, rates = "train_ou" }
end

function problems.crossing()
  local set = gq.data.crossing().train
  local function loss(z) return gq.mse_loss(z[2]:narrow(2, 1, 1), set.y:to(z.dtype)) end
  local function make(width)
    local net = mlp(4, width, 4, false)
    return { net = net, all = net, loss = loss }
  end
  return { widths = { 20, 100, 1000, 3000 }, make = make, z0 = nn.Augment(3)(set.x), times = { 0, 1 },
    rates = "crossing" }
end

-- The dynamics of the image experiment (E.4), width their hidden channels, on what its first layers make of 28 x 28.
local function images(batch)
  return function()
    local size, y = 11, gq.randint(1, 10, batch, { seed = 2 })
    local function make(width)
      local function conv(a, b) return nn.Conv2d(a, b, 3, { padding = 1 }) end
      local net = nn.Sequential { conv(10, width), nn.Softplus(), conv(width, width), nn.Softplus(), conv(width, 10) }
      local readout = nn.Linear(10 * size * size, 10)
      local function loss(z) return gq.cross_entropy(readout(z[2]:flatten(2)), y) end
      return { net = net, all = nn.Sequential { net, readout }, loss = loss }
    end
    return { widths = { 64, 128, 256 }, make = make, z0 = gq.randn({ batch, 10, size, size }, { seed = 1 }),
      times = { 0, 1 }, rate = 1e-5 }
  end
end
problems.images, problems.images256 = images(16), images(256)

-- A flow of 250 points of the plane to a normal, with the trace's integral as third number of the state (FFJORD).
function problems.flow()
  local x = gq.data.density { name = "moons", seed = 1, train = 250, test = 1 }.train.x
  local function loss(z)
    local y, delta = z[2]:narrow(2, 1, 2), z[2]:narrow(2, 3, 1)
    return ((y ^ 2):sum({ 2 }) / 2 + math.log(2 * math.pi) + delta:squeeze(2)):mean()
  end
  local function make(width)
    local net = mlp(2, width, 2, true)
    local flow = nn.CNF(net)
    local function field()
      return function(t, z) return gq.cat(flow(t, { z:narrow(2, 1, 2), z:narrow(2, 3, 1) }), 2) end
    end
    return { net = net, all = net, loss = loss, field = field }
  end
  return { widths = { 64 }, make = make, z0 = gq.cat({ x, gq.zeros(#x, 1) }, 2), times = { 1, 0 }, rate = 5e-3,
    products = 3 }
end

-- ---- one step ----

local function field_of(model, step) return model.field and model.field(step) or model.net end

local function solve(problem, model, options, step, f)
  if not options.dt then return gq.odeint(f or field_of(model, step), problem.z0, problem.times, options) end
  options.seed = step
  return gq.sdeint(model.sde, problem.z0, problem.times, options)
end

local function gradient_step(problem, model, options, step)
  local z, info = solve(problem, model, options, step)
  model.loss(z):backward()
  return info
end

-- The same with the solver's backward call by itself; also the seconds inside the solver: its two calls, less
-- those of tracing f.
local function gradient_step_in_parts(problem, model, options, step)
  local field, tracing = field_of(model, step), 0
  local function f(t, z)
    local started = gq.clock()
    local dz = field(t, z)
    tracing = tracing + gq.clock() - started
    return dz
  end
  local started = gq.clock()
  local z, info = solve(problem, model, options, step, f)
  local forward = gq.clock() - started
  local y = z:detach()
  y.requires_grad = true
  model.loss(y):backward()
  started = gq.clock()
  z:backward(y.grad)
  return info, forward + gq.clock() - started - tracing
end

-- ---- what is told of it ----

-- Floating-point operations of an evaluation's matrix products, 2 a weight and row (or place of an image), times how
-- often each weight multiplies, problem.products; nothing else counts.
local function unit_flops(problem, model)
  local weights = 0
  for _, p in ipairs(model.net:parameters()) do
    if p:dim() == 2 then weights = weights + p:numel() end
    if p:dim() == 4 then weights = weights + p:numel() * problem.z0.shape[3] * problem.z0.shape[4] end
  end
  return 2 * weights * #problem.z0 * (problem.products or 1)
end

-- |g - r| / |r|: r by the tight solve of a copy in float64.
local function gradient_error(problem, model, width, options, step)
  local double = problem.make(width)
  double.all:load_state_dict(model.all:state_dict())
  double.all:to("float64")
  model.all:zero_grad()
  gradient_step(problem, model, options, step)
  gradient_step({ z0 = problem.z0:to("float64"), times = problem.times }, double, tight, step)
  local want, difference, size = double.all:parameters(), 0, 0
  for i, p in ipairs(model.all:parameters()) do
    local r = want[i].grad
    difference = difference + ((p.grad:to("float64") - r) ^ 2):sum():item()
    size = size + (r ^ 2):sum():item()
  end
  return math.sqrt(difference / size)
end

-- ---- timing ----

local function run(problem, width, gradient, seed)
  gq.manual_seed(seed)
  local options, compute = solver(gradient), o.outside and gradient_step_in_parts or gradient_step
  local model = problem.make(width)
  local optimiser = gq.optim.adam(model.all:parameters(), { lr = problem.rate or gq.paper.rate(problem.rates, width) })
  local unit, begun = unit_flops(problem, model), gq.clock()
  local times, rates, outside, shares = {}, {}, {}, { {}, {}, {} }
  local info, inside
  for i = -1, o.steps do
    local started = gq.clock()
    if o.profile then gq.core.profile(true) end
    optimiser:zero_grad()
    info, inside = compute(problem, model, options, i + 2)
    optimiser:step()
    local now = gq.clock()
    local seconds = now - started
    if i > 0 then times[i], rates[i] = seconds, unit * common.work(info, info.engine) / seconds / 1e9 end
    if i > 0 and o.profile then
      for k, spent in ipairs { gq.core.profile(false) } do shares[k][i] = spent / seconds end
    end
    if i > 0 and inside then outside[i] = 1 - inside / seconds end
    if i >= 3 and now - begun > o.limit then break end
  end
  local seconds = median(times)
  local function share(k) return o.profile and median(shares[k]) or nil end
  local against = o.error and not options.dt and gradient_error(problem, model, width, options, #times + 2) or nil
  return { seconds = seconds, minimum = times[1], products = share(1), elementwise = share(2), rest = share(3),
    gflops = median(rates), outside = inside and median(outside),
    info = info, error = against }
end

-- The median over the runs of each number, and the last run's counts.
local function measure(problem, width, gradient)
  local lists, last = {}, nil
  for i = 1, o.runs do
    last = run(problem, width, gradient, o.seed + i - 1)
    for key, value in pairs(last) do
      if key ~= "info" then
        lists[key] = lists[key] or {}
        table.insert(lists[key], value)
      end
    end
  end
  local r, info = {}, last.info
  for key, values in pairs(lists) do r[key] = median(values) end
  r.minimum, r.fastest = lists.minimum[1], lists.seconds[1]        -- sorted by median
  for _, key in ipairs { "nfe", "nfe_backward", "nodes", "peak_bytes" } do r[key] = info[key] end
  return r
end

-- ---- the table ----

local columns = {          -- title, its width, format, value
  { "seconds", "%12s", "%12.6f", function(r) return r.seconds end },
  { "minimum", "%12s", "%12.6f", function(r) return r.minimum end },
  { "GFLOP/s", "%8s", "%8.2f", function(r) return r.gflops end },
  { "peak MB", "%8s", "%8.2f", function(r) return r.peak_bytes / 1e6 end },
}
if o.error then columns[#columns + 1] = { "error", "%9s", "%9.1e", function(r) return r.error or 0 / 0 end } end
if o.outside then
  columns[#columns + 1] = { "outside", "%8s", "%7.1f%%", function(r) return 100 * r.outside end }
end

if o.profile then
  for _, key in ipairs { "products", "elementwise", "rest" } do
    columns[#columns + 1] = { key, "%11s", "%10.1f%%", function(r) return 100 * r[key] end }
  end
end

local function print_title()
  local cells = { ("%-16s %6s  %-14s"):format("work", "width", "gradient") }
  for _, c in ipairs(columns) do cells[#cells + 1] = c[2]:format(c[1]) end
  print(table.concat(cells, " ") .. "  evaluations forward / back, nodes")
end

local function print_row(r)
  local cells = { ("%-16s %6d  %-14s"):format(r.work, r.width, r.gradient) }
  for _, c in ipairs(columns) do cells[#cells + 1] = c[3]:format(c[4](r)) end
  print(("%s  %d / %d, %d"):format(table.concat(cells, " "), r.nfe, r.nfe_backward, r.nodes))
end

local order = { "nested_spheres", "sines50", "sines10", "sines_irregular", "ou", "crossing" }
local records = {}
print(("%d threads, median of %d runs of %d steps, rtol %g"):format(gq.threads(), o.runs, o.steps, o.rtol))
print_title()
for _, name in ipairs(o.work[1] == "all" and order or o.work) do
  if not problems[name] then
    io.stderr:write(("there is no work '%s'; there are: %s, images, images256, flow\n"):format(name,
      table.concat(order, ", ")))
    os.exit(2, true)
  end
  local problem = problems[name]()
  for width, gradient in common.each(o.widths or problem.widths, o.gradients) do
    if gradient:find "^sde_" and not problem.sde then
      io.stderr:write(("%s is no stochastic equation: gradients %s is for ou\n"):format(name, gradient))
      os.exit(2, true)
    end
    local r = measure(problem, width, gradient)
    r.work, r.width, r.gradient, r.threads = name, width, gradient, gq.threads()
    print_row(r)
    records[#records + 1] = r
  end
end
if o.json then gq.file_write(o.json, gq.json_encode(records) .. "\n") end
