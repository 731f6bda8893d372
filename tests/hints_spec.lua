-- hints_spec.lua -- what a newcomer writes by the habits of other libraries: each is an error that names what to write.

local gq = require "gq"
local says = require("tests.helper").refused

local nn = gq.nn

local function decay(_, z) return -z end
local times = { 0, 1 }

describe("options that other libraries call otherwise", function()
  for theirs, ours in pairs { dt = "step_size", dt0 = "first_step", dtmax = "max_step", solver = "method",
    saveat = "third argument", ts = "third argument", t_eval = "third argument", args = "captures", reltol = "rtol",
    events = "event", tstops = "grid_points", adjoint_params = "params", sensealg = "gradient",
    step_t = "grid_points", perturb = "grid_points", grid_constructor = "step_size", adjoint_options = "adjoint",
    options = "beside the others", jac = "leave it out", reverse_time = "decrease" } do
    it(("gq.odeint: %s"):format(theirs), function()
      says("unknown option '" .. theirs .. "'; here: ", gq.odeint, decay, gq.ones(1), times, { [theirs] = 1 })
      says(ours, gq.odeint, decay, gq.ones(1), times, { [theirs] = 1 })
    end)
  end

  for key, place in pairs { nodes = "gq", C = "gq", paper = "gq", points = "adjoint", trajectory = "adjoint",
    impulses = "adjoint", kinetic = "regularise", safety = "controller", direction = "event" } do
    it(("gq.odeint: %s, an option of a table among its options"):format(key), function()
      says(("option '%s'; here: %s = {%s = ...} (known: "):format(key, place, key), gq.odeint, decay, gq.ones(1),
        times, { [key] = 1 })
    end)
  end

  it("gq.sdeint has some of them, and what is merely misspelt is found as before", function()
    local sde = gq.sde { drift = decay, diffusion = function(_, z) return z end }
    says("here: brownian", gq.sdeint, sde, gq.ones(1), times, { dt = 0.1, bm = 1 })
    says("here: brownian", gq.sdeint, sde, gq.ones(1), times, { dt = 0.1, levy_area = "foster" })
    says("here: dt", gq.sdeint, sde, gq.ones(1), times, { step_size = 0.1 })
    says("here: brownian = gq.brownian{seed", gq.sdeint, sde, gq.ones(1), times, { dt = 0.1, entropy = 1 })
    says("here: times are the third argument", gq.sdeint, sde, gq.ones(1), times, { dt = 0.1, saveat = 1 })
    says("did you mean 'rtol'", gq.odeint, decay, gq.ones(1), times, { rtoll = 1 })
  end)

  it("gq.odeint: a tensor of several numbers among the times", function()
    says("t[2] is tensor float32 {2}, not a number: a time is a number or a tensor of one", gq.odeint, decay,
      gq.ones(1), { 0, gq.ones(2) })
    says("t[1] is tensor bool {}, not a number", gq.odeint, decay, gq.ones(1), { gq.tensor(true), 1 })
  end)
end)

describe("names", function()
  it("of volumes, and of initialisers elsewhere", function()
    says("nn.Conv3d: there are signals and images, as gq.nn.Conv2d, and no volumes", function() return nn.Conv3d end)
    says("gq.max_pool3d: there are signals and images", function() return gq.max_pool3d end)
    says("write nn.init.kaiming_normal_(t)", function() return nn.init.he_normal end)
    says("write gq.nn.init.trunc_normal_", function() return nn.init.trunc_normal__ end)
  end)
end)

describe("modules", function()
  local net = nn.Sequential { nn.Linear(2, 2), nn.Tanh() }

  it("in other places than their parameters", function()
    says("net:parameters()", gq.optim.adam, net)
    says("net:parameters()", gq.optim.sgd, net, { lr = 0.1 })
    says("net:state_dict()", gq.save, "unused.safetensors", net)
  end)

  it("whose optimisers are asked for what PyTorch's have", function()
    for _, opt in ipairs { gq.optim.adam(net:parameters()), gq.optim.sgd { { params = net:parameters() } } } do
      says("write opt.lr", function() return opt.param_groups[1].lr end)
      says("{params = others}", function() opt:add_param_group {} end)
      says("set_to_none", opt.zero_grad, opt, { set_to_none = false })
      says("set_to_none", opt.zero_grad, opt, false)
      says("unknown option 'set_to_nune', did you mean 'set_to_none'?", opt.zero_grad, opt, { set_to_nune = false })
      opt:zero_grad(true)
      opt:zero_grad { set_to_none = true }
      assert.is_nil(opt.anything)
      says("schedule.optimiser.lr", function() return gq.optim.schedule.constant(opt):get_last_lr() end)
    end
    local lbfgs = gq.optim.lbfgs(net:parameters())
    says("set_to_none", lbfgs.zero_grad, lbfgs, false)
    says("set_to_none", net.zero_grad, net, false)
    says("retain_graph", function() net(gq.ones(1, 2)):sum():backward { retain_graph = true } end)
  end)

  it("that are frozen by a method", function()
    says("?freezing", function() return net:requires_grad_(false) end)
    local text
    gq.help("freezing", function(s) text = s end)
    assert.truthy(text:find("p.requires_grad = false", 1, true))
  end)

  it("that are put together without a list", function()
    says("nn.Sequential{a, b, ...}", nn.Sequential, nn.Linear(2, 2), nn.Tanh())
    says("nn.Sequential{a, b, ...}", nn.Sequential, nn.Linear(2, 2))
    says("nn.Sequential{a, b, ...}", nn.Sequential, { nn.Linear(2, 2) }, nn.Tanh())
  end)

  it("load_state_dict has no second argument", function()
    says("no strict = false", net.load_state_dict, net, net:state_dict(), { strict = false })
    says("no strict = false", net.load_state_dict, net, net:state_dict(), false)
  end)

  it("that take time without saying so", function()
    local Field = nn.Module:extend("Field")
    function Field:forward(s, z) return -z * s end -- luacheck: ignore
    says("Field was called without t: where forward takes (t, z), say Field.time = true", Field(), gq.tensor(1.0),
      gq.ones(2))
    says("say Field.time = true", gq.odeint, Field(), gq.ones(2), times)
    Field.time = true
    assert.close(gq.odeint(Field(), gq.ones(2), times, { rtol = 1e-6, atol = 1e-6 })[2], gq.full({ 2 }, math.exp(-0.5)),
      1e-5)
    local Masked = nn.Module:extend("Masked")
    function Masked:forward(z, mask) return mask and z * mask or -z end -- luacheck: ignore
    for _, t in ipairs { 1.0, gq.tensor(1.0) } do assert.close(Masked()(t, gq.ones(2)), -gq.ones(2)) end
  end)
end)

describe("sdeint in training", function()
  local k = gq.tensor(0.5, { requires_grad = true })
  local sde = gq.sde { drift = function(_, z) return -k * z end, diffusion = function(_, z) return 0.1 * z end }

  it("is silent where no gradient is wanted", function()
    local want = gq.sdeint(sde, gq.ones(3, 1), times, { dt = 0.1, seed = 1 })
    for _, o in ipairs { { dt = 0.1, seed = 1, gradient = "none" } } do
      local z = gq.sdeint(sde, gq.ones(3, 1), times, o)
      assert.is_false(z.requires_grad)
      assert.close(z, want:detach(), 0, 0)
    end
    local z = gq.no_grad(gq.sdeint, sde, gq.ones(3, 1), times, { dt = 0.1, seed = 1 })
    assert.is_false(z.requires_grad)
  end)
end)

describe("gq.train", function()
  local function run(changes)
    local net = nn.Linear(2, 1)
    local o = { model = net, loss = function(m, x, y) return (m(x) - y):square():mean() end, epochs = 2,
      optimiser = gq.optim.sgd(net:parameters(), { lr = 0.1 }), data = { x = gq.ones(4, 2), y = gq.ones(4, 1) },
      progress = false }
    for key, value in next, changes do o[key] = value end
    local rows = gq.train(o)                               -- no tail call: errors name this file
    return rows
  end

  it("checks its arguments", function()
    says("data: a set {x = ..., y = ...}", run, { data = { gq.ones(4, 2), gq.ones(4, 1) } })
    says("validate returns a table of figures", run, { validate = function() return 0.5 end })
    says("schedule: one of gq.optim.schedule expected, got string", run, { schedule = "cosine" })
    says("logger: a function of the row, as gq.logger.csv(path)", run, { logger = "log.csv" })
    says("logger: a function of the row", run, { logger = { "log.csv" } })
    says("option clip: a positive number expected", run, { clip = "1" })
    says("option batch_size: an integer of at least 1", run, { batch_size = 0 })
    says("option on_epoch: a function", run, { on_epoch = true })
    says("option every: an integer of at least 1", run, { checkpoint = { path = "unused", every = 0 } })
    says("hints_spec.lua", run, { clip = -1 })
    says("epochs: at least 0 expected, got -1", run, { epochs = -1 })
    says("steps: at least 0 expected, got -3", run, { steps = -3 })
    says("seed: without shuffle and augment", run, { seed = 3, shuffle = false })
    local net = nn.Linear(2, 1)
    local other = gq.optim.sgd(net:parameters(), { lr = 0.1 })
    says("gq.train: step: no gradient has come to any of the 2 parameters", run, { optimiser = other })
    says("no gradient has come", run, { optimiser = gq.optim.lbfgs(net:parameters()) })
    says("optimiser: one of gq.optim expected, got what belongs to schedule", run,
      { optimiser = gq.optim.schedule.constant(other) })
    says("schedule: one of gq.optim.schedule expected, got what belongs to optimiser", run, { schedule = other })
    says("schedule: it is of another optimiser", run, { schedule = gq.optim.schedule.constant(other) })
  end)

  it("writes csv from before the first epoch on", function()
    local path = os.tmpname()
    os.remove(path)
    local rows = run { logger = gq.logger.csv(path), validate = function() return { accuracy = 0.5 } end, name = "mse" }
    assert.equal(3, #rows)
    local lines = {}
    for line in io.lines(path) do lines[#lines + 1] = line end
    os.remove(path)
    assert.equal(4, #lines)
    assert.equal("epoch,accuracy,seconds,train_mse", lines[1])
    assert.equal("0,0.5,,", lines[2])
    assert.matches("^1,0%.5,[%d.e+-]+,[%d.e+-]+$", lines[3])
    assert.matches("^2,0%.5,[%d.e+-]+,[%d.e+-]+$", lines[4])
  end)
end)
