-- bench.lua -- seconds a training step: zero_grad, solve, loss, backward, Adam step, with the batch ready in
-- memory. A fresh model, two untimed steps, then the median over the steps; the median of that over the runs.
--   ./gqlua scripts/bench.lua --help
--   ./gqlua scripts/bench.lua --work nested_spheres --widths 5,20,100 --gradients direct,adjoint,seminorm,gq
-- Training goes on during the timing, so evaluation counts move; those of the last step are shown.

local gq = require "gq"
local nn = gq.nn

local o = gq.cli {
  about = "Time training steps of the paper's problems.",
  more = "work: nested_spheres, sines50, sines10, sines_irregular, ou, crossing, or all.",
  { "work", { "nested_spheres" }, "which problems, with commas" },
  { "widths", nil, "hidden widths, with commas (the problem's own by default)", "numbers" },
  { "gradients", { "direct", "adjoint", "seminorm", "gq" } },
  "trajectory", "impulses", { "nodes", "nfe", "of gq: nfe, step or a number" },
  { "steps", 15, "timed steps a run" },
  { "runs", 3, "runs, of which the median is told" },
  { "threads", 0, "threads (0: as many as there are)" },
  "C", "rtol", "atol", "seed", "json",
}
if not o then return end
if o.threads > 0 then gq.set_threads(o.threads) end

local function solver(gradient)
  local options = gq.solver_options(o)
  options.gradient, options.gq.nodes = gradient, math.tointeger(tonumber(o.nodes)) or o.nodes
  return options
end

local function mlp(n_in, width, n_out, time)
  return nn.mlp { sizes = { n_in, width, width, n_out }, activation = "softplus", time = time }
end

-- ---- problems: widths, rates of gq.paper, and make(width, options) -> parameters, loss() -> loss, info ----

local problems = {}

function problems.nested_spheres()
  local set = gq.data.nested_spheres { seed = 1, train = 100 }.train
  local augment = nn.Augment(3)
  local function make(width, options)
    local net, readout = mlp(5, width, 5, true), nn.Linear(5, 2)
    local model = nn.Sequential { net, readout }
    return model:parameters(), function()
      local z, info = gq.odeint(net, augment(set.x), { 0, 1 }, options)
      return gq.cross_entropy(readout(z[2]), set.y), info
    end
  end
  return { widths = { 5, 20, 100, 500, 1000, 1500 }, make = make, rates = "nested_spheres" }
end

-- Times of all trajectories in one solve; every trajectory reads its own.
local function sines(count, regular)
  return function()
    local set = gq.data.sines { seed = 1, times = count, regular = regular }.train
    local times, index = gq.data.union_times(set.t:expand(#set.x, count))
    local z0 = set.x                                    -- position and velocity
    local function make(width, options)
      local net = nn.SecondOrder(mlp(2, width, 1, false))
      return net:parameters(), function()
        local z, info = gq.odeint(net, z0, times, options)
        return gq.mse_loss(gq.data.at_times(z:narrow(3, 1, 1), index):squeeze(3), set.y), info
      end
    end
    return { widths = { 20, 200, 1000 }, make = make, rates = "sines" }
  end
end
problems.sines50, problems.sines10, problems.sines_irregular = sines(50, true), sines(10, true), sines(10, false)

function problems.ou()
  local starts, samples, times = 40, 45, gq.data.ou_times()
  local set = gq.data.ornstein_uhlenbeck { seed = 1, train = starts, test = 1, samples = samples, dt = 0.05 }.train
  local fit = gq.normal_fit(set.y)
  local target = { mean = fit.mean:t(), std = fit.std:t() }
  local z0 = set.x:expand(starts, samples):reshape(starts * samples, 1)
  local function make(width, options)
    local drift, diffusion, draw = mlp(1, width, 1, true), mlp(1, width, 1, true), 0
    local sde = gq.sde { drift = drift, diffusion = diffusion, noise = "diagonal", calculus = "stratonovich" }
    return nn.Sequential({ drift, diffusion }):parameters(), function()
      draw = draw + 1
      local field = gq.wong_zakai(sde, { cosines = 10, t0 = 0, t1 = 10, seed = draw })
      local z, info = gq.odeint(field, z0, times, options)
      return gq.gaussian_kl(z:reshape(#times, starts, samples), target, { time = 1 }), info
    end
  end
  return { widths = { 5, 20, 50, 100 }, make = make, rates = "train_ou" }
end

function problems.crossing()
  local set, augment = gq.data.crossing().train, nn.Augment(3)
  local function make(width, options)
    local net = mlp(4, width, 4, false)
    return net:parameters(), function()
      local z, info = gq.odeint(net, augment(set.x), { 0, 1 }, options)
      return gq.mse_loss(z[2]:narrow(2, 1, 1), set.y), info
    end
  end
  return { widths = { 20, 100, 1000 }, make = make, rates = "crossing" }
end

-- ---- timing ----

local function median(x)
  table.sort(x)
  local n = #x
  return n % 2 == 1 and x[n // 2 + 1] or (x[n // 2] + x[n // 2 + 1]) / 2
end

local function measure(problem, width, gradient)
  local runs, info = {}, nil
  for run = 1, o.runs do
    gq.manual_seed(o.seed + run - 1)
    local parameters, loss = problem.make(width, solver(gradient))
    local optimiser = gq.optim.adam(parameters, { lr = gq.paper.rate(problem.rates, width) })
    local times = {}
    for i = -1, o.steps do
      local started = gq.clock()
      optimiser:zero_grad()
      local l
      l, info = loss()
      l:backward()
      optimiser:step()
      if i > 0 then times[i] = gq.clock() - started end
    end
    runs[run] = median(times)
  end
  return { seconds = median(runs), fastest = runs[1], nfe = info.nfe, nfe_backward = info.nfe_backward,
    nodes = info.nodes, peak_bytes = info.peak_bytes }
end

local order = { "nested_spheres", "sines50", "sines10", "sines_irregular", "ou", "crossing" }
local records = {}
print(("%d threads, median of %d runs of %d steps, rtol %g"):format(gq.threads(), o.runs, o.steps, o.rtol))
print(("%-16s %6s  %-9s %12s  %s"):format("work", "width", "gradient", "seconds", "evaluations forward / back, nodes"))
for _, name in ipairs(o.work[1] == "all" and order or o.work) do
  if not problems[name] then
    io.stderr:write(("there is no work '%s'; there are: %s\n"):format(name, table.concat(order, ", ")))
    os.exit(2, true)
  end
  local problem = problems[name]()
  for _, width in ipairs(o.widths or problem.widths) do
    for _, gradient in ipairs(o.gradients) do
      local r = measure(problem, width, gradient)
      print(("%-16s %6d  %-9s %12.6f  %d / %d, %d"):format(name, width, gradient, r.seconds, r.nfe, r.nfe_backward,
        r.nodes))
      r.work, r.width, r.gradient, r.threads = name, width, gradient, gq.threads()
      records[#records + 1] = r
    end
  end
end
if o.json then
  local file = assert(io.open(o.json, "w"))
  assert(file:write(gq.json_encode(records), "\n"))
  assert(file:close())
end
