-- What gq.train makes of the epochs' figures: early stopping, the best weights, plateau schedules; and on_step.

local gq = require "gq"
local helper = require "tests.helper"
local folder = helper.folder()

-- A training whose figure after each epoch is that of the list; a step adds 1 to the weight.
local function train(figures, given)
  local m = gq.nn.Module:extend("One")()
  m.w = gq.tensor({ 0 }, { requires_grad = true })
  local o = helper.with({
    model = m, data = { x = gq.zeros(1), y = gq.zeros(1) }, epochs = #figures - 1, progress = false,
    loss = function(net) return -net.w:sum() end, optimiser = gq.optim.sgd({ m.w }, { lr = 1 }),
    validate = function(_, epoch) return { test_loss = figures[epoch + 1] } end,
  }, given)
  if type(o.schedule) == "table" and o.schedule.patience then
    o.schedule = gq.optim.schedule.plateau(o.optimiser, o.schedule)
  end
  local rows, state = gq.train(o)
  return rows, m.w:item(), state, o.optimiser
end

describe("gq.train", function()
  it("stops after `patience` epochs without a better figure", function()
    assert.equal(6, #train({ 5, 3, 4, 4, 2, 1 }, { patience = 4 }))
    local rows, w, state = train({ 5, 3, 4, 4, 2, 1 }, { patience = 2 })
    assert.same({ 4, 3, 1, true }, { #rows, w, state.best.epoch, state.stopped })
    assert.equal(4, #train({ 0.5, 0.7, 0.6, 0.7, 0.9 }, { patience = 2, monitor = "test_loss", mode = "max" }))
    assert.equal(6, #train({ 5, 0 / 0, 4, 3, 2, 1 }, { patience = 2 }))
    local none = 0 / 0
    assert.equal(3, #train({ none, none, none, none, none }, { patience = 2 }))     -- nor is there any good one
  end)

  it("takes the figure of the training where nothing else is", function()
    local rows = train({ 1, 1, 1, 1, 1 }, { validate = function() end, patience = 1 })
    assert.equal(5, #rows)                             -- it falls by 1 with each step
  end)

  it("knows that accuracies are better when they are higher", function()
    local accuracies = { 0.1, 0.5, 0.4, 0.3 }
    local rows, w = train({ 1, 1, 1, 1 }, { keep_best = true, monitor = "test_accuracy",
      validate = function(_, epoch) return { test_accuracy = accuracies[epoch + 1] } end })
    assert.same({ 4, 1 }, { #rows, w })
  end)

  it("ends with the weights of the best epoch, those of before training too", function()
    assert.equal(2, select(2, train({ 5, 3, 1, 4, 2 }, { keep_best = true })))
    assert.equal(0, select(2, train({ 0, 3, 1, 4, 2 }, { keep_best = true })))
    assert.equal(4, select(2, train { 5, 3, 1, 4, 2 }))
  end)

  it("keeps them in a file, from which a resumed training takes them", function()
    local path = folder .. "/c.safetensors"
    local _, w = train({ 5, 3, 1, 4, 2, 6 }, { keep_best = true, checkpoint = path, steps = 4 })
    assert.equal(2, w)
    assert.equal(2, gq.checkpoint.load(folder .. "/c-best.safetensors").model.w:item())
    local rows, again, state = train({ 5, 3, 1, 4, 2, 6 }, { keep_best = true, checkpoint = path, resume = true })
    assert.same({ 6, 2, 5 }, { #rows, again, state.step })
    path = folder .. "/d.safetensors"
    local given = { patience = 1, checkpoint = path, resume = true }
    assert.same(train({ 5, 3, 4, 1 }, given), train({ 5, 3, 4, 1 }, given))        -- stopped stays stopped
  end)

  it("halves the learning rate on a plateau", function()
    local _, _, _, optimiser = train({ 5, 3, 3, 3, 3, 3, 3 }, { schedule = { patience = 1, factor = 0.5 } })
    assert.close(optimiser.lr, 0.25)
    _, _, _, optimiser = train({ 5, 4, 3, 2, 1 }, { schedule = { patience = 1 } })
    assert.close(optimiser.lr, 1)
    _, _, _, optimiser = train({ 1, 1, 1, 1, 1, 1, 1 }, { schedule = { patience = 0, factor = 0.1, least = 0.05 } })
    assert.close(optimiser.lr, 0.05)
    local path = folder .. "/e.safetensors"
    local figures = { 5, 3, 3, 3, 3, 3, 3 }
    train(figures, { schedule = { patience = 1 }, checkpoint = path, steps = 3 })
    _, _, _, optimiser = train(figures, { schedule = { patience = 1 }, checkpoint = path, resume = true })
    assert.close(optimiser.lr, 0.25)
  end)

  it("calls on_step with step, loss and info", function()
    local seen = {}
    train({ 1, 1, 1 }, { on_step = function(step, loss) seen[step] = loss end })
    assert.same({ 0, -1 }, { seen[1] + 0, seen[2] })
  end)

  it("names wrong options and figures", function()
    helper.raises("monitor: no figure 'test_los' (they have epoch, seconds, test_loss, train_loss)", train, { 1, 1 },
      { patience = 1, monitor = "test_los" })
    helper.raises("patience: an integer of at least 1", train, { 1, 1 }, { patience = 0 })
    helper.raises("keep_best: true or false", train, { 1, 1 }, { keep_best = 1 })
    helper.raises("mode min, max \"maximum\"", train, { 1, 1 }, { mode = "maximum" })
    helper.raises("on_step: a function", train, { 1, 1 }, { on_step = 3 })
    local optimiser = gq.optim.sgd({ gq.ones(1, { requires_grad = true }) })
    helper.raises("factor: a number below 1", gq.optim.schedule.plateau, optimiser, { factor = 2 })
    helper.raises("unknown option 'patient' 'patience'", gq.optim.schedule.plateau, optimiser, { patient = 2 })
    helper.raises("an optimiser expected", gq.optim.schedule.plateau, 3)
    helper.raises("takes the optimiser alone", gq.optim.schedule.constant, optimiser, { steps = 3 })
    helper.raises("f(0): a number", gq.optim.schedule.lambda, optimiser, function() end)
    local plateau = gq.optim.schedule.plateau(optimiser)
    helper.raises("takes nothing, got number 0.3 schedule:observe(value)", plateau.step, plateau, 0.3)
    helper.raises("observe: option value: a number expected", plateau.observe, plateau, "0.3")
    plateau:observe(gq.tensor(0.5))
    assert.equal(0.5, plateau.best)
    local constant = gq.optim.schedule.constant(optimiser)
    helper.raises("takes nothing, got number 4", constant.step, constant, 4)
    helper.raises("plateau schedule", plateau.load_state_dict, plateau, { bad = -1 })
  end)
end)

describe("averages of weights in gq.train", function()
  it("are updated by steps, validated with, kept as the best and in checkpoints", function()
    local m, seen = gq.nn.Module:extend("One")(), {}
    m.w = gq.tensor({ 0 }, { requires_grad = true })
    local function run(o)
      o.ema = o.ema or gq.optim.ema(m, { decay = 0.5 })
      gq.train(helper.with({ model = m, data = { x = gq.zeros(1), y = gq.zeros(1) }, epochs = 3, progress = false,
        loss = function(net) return -net.w:sum() end, optimiser = gq.optim.sgd({ m.w }, { lr = 1 }),
        validate = function(net)
          seen[#seen + 1] = net.w:item()
          return { test_loss = math.abs(net.w:item() - 0.5) }
        end }, o))
      return o.ema
    end
    local path = folder .. "/ema.safetensors"
    local ema = run { checkpoint = path }
    assert.same({ { 0, 0.5, 1.25, 2.125 }, 3, 2.125 }, { seen, m.w:item(), ema.average[1]:item() })
    local other = gq.optim.ema(m)
    gq.checkpoint.load(path, { ema = other })
    assert.same({ 2.125, 0.5, 3 }, { other.average[1]:item(), other.decay, other.count })
    assert.truthy(tostring(gq.checkpoint.describe(path)):find("averages: 3 updates, decay 0.5", 1, true))
    gq.no_grad(function() m.w[1] = 0 end)
    run { keep_best = true }
    assert.equal(0.5, m.w:item())
    helper.raises("ema gq.optim.ema(net)", run, { ema = 3 })
    helper.raises("ema gq.optim.ema(net)", gq.checkpoint.save, path, { ema = {} })
    helper.raises("averages of 2 parameters", gq.checkpoint.load, path, { ema = gq.optim.ema(gq.nn.Linear(1, 1)) })
    gq.checkpoint.save(path, { model = m })
    helper.raises("holds no averages", gq.checkpoint.load, path, { ema = other })
  end)
end)

describe("a training without a terminal", function()
  it("tells an epoch each half minute, where nothing else does", function()
    gq.file_write(folder .. "/tells.lua", [[
local gq = require "gq"
local now, net = 0, gq.nn.Linear(1, 1)
function gq.clock() return now end
for k = 1, 3 do
  now = 0
  gq.train { model = net, data = { x = gq.ones(2, 1), y = gq.ones(2, 1) }, epochs = 5, progress = k < 3,
    on_epoch = k == 2 and function() now = now + 20 end or nil, optimiser = gq.optim.sgd(net:parameters(), { lr = 0 }),
    loss = function(m, x, y) now = now + 20 return gq.mse_loss(m(x), y) end }
end]])
    assert(os.execute(("%s %s/tells.lua 2>%s/told"):format(helper.gqlua, folder, folder)))
    local told = gq.file_read(folder .. "/told")
    assert.equal(2, select(2, told:gsub("\n", "")), told)
    assert.truthy(told:find("^epoch   2  train loss %d[^\n]* of 5, step 2\nepoch   4 "), told)
  end)
end)

-- A training with all that has a state, in the folder arg[1]; ends itself before step arg[2].
local whole_training = [[
local gq = require "gq"
local folder, last = arg[1], tonumber(arg[2])
gq.manual_seed(3)
local nn = gq.nn
local net = nn.Sequential { nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1) }
local x = gq.randn(51, 2, { seed = 1 })
local optimiser = gq.optim.adam(net:parameters(), { lr = 5e-2 })
local paths = { csv = folder .. "/log.csv", jsonl = folder .. "/log.jsonl" }
local ema = gq.optim.ema(net, { decay = 0.9 })
gq.train { model = net, data = { x = x, y = gq.sin(x:sum(2, true)) }, batch_size = 7, shuffle = true, accumulate = 2,
  epochs = 12, patience = 8, keep_best = true, optimiser = optimiser, ema = ema, clip = 1, progress = false,
  schedule = gq.optim.schedule.plateau(optimiser, { patience = 1 }), resume = true,
  loss = function(m, a, b) return gq.mse_loss(m(a + 0.01 * gq.randn(a.shape)), b) end,
  validate = function(m) return { test_loss = gq.mse_loss(m(x), gq.sin(x:sum(2, true))) } end,
  logger = { gq.logger.csv(paths.csv), gq.logger.jsonl(paths.jsonl) },
  checkpoint = { path = folder .. "/c.safetensors", every = 3 },
  on_step = function(step) if step == last then os.execute "kill -9 $PPID" end end }
gq.checkpoint.save(folder .. "/end.safetensors", { model = net, optimiser = optimiser, ema = ema })
]]

describe("a training that is killed", function()
  local gqlua = helper.gqlua

  -- What is in its files at the end, but for times.
  local function outcome(place)
    local rows = {}
    for line in io.lines(place .. "/log.jsonl") do
      local row = gq.json.decode(line)
      row.seconds = nil
      rows[#rows + 1] = row
    end
    local lines = select(2, gq.file_read(place .. "/log.csv"):gsub("\n", ""))
    return { gq.file_read(place .. "/end.safetensors"), gq.file_read(place .. "/c-best.safetensors"), rows, lines }
  end

  local function run(place, before, last)
    os.execute("mkdir -p " .. place)
    return os.execute(("%s %s %s/whole.lua %s %s 2>%s/said"):format(before, gqlua, folder, place, last or "", place))
  end

  setup(function()
    gq.file_write(folder .. "/whole.lua", whole_training)
    assert(run(folder .. "/once", ""))
  end)

  it("ends with the same files, whichever step it was killed at", function()
    local once = outcome(folder .. "/once")
    for k, last in ipairs { 1, 3, 4, 17 } do
      local place = ("%s/stopped%d"):format(folder, k)
      assert.falsy(run(place, "", last))
      assert(run(place, ""))
      assert.same(once, outcome(place))
    end
  end)

  it("#slow ends with the same files after 20 kills at random moments", function()
    local place = folder .. "/killed"
    for k = 1, 20 do run(place, ("timeout -s KILL %.3f"):format(0.05 + 0.37 * k % 0.11)) end
    assert(run(place, ""))
    assert.same(outcome(folder .. "/once"), outcome(place))
  end)

  it("#slow ends with the same weights after 20 kills, by an ODE", function()
    local function solve(place, before)
      return os.execute(("%s %s examples/nested_spheres.lua --epochs 60 --batch-size 400 --quiet --out %s/%s --resume")
        :format(before, gqlua, folder, place))
    end
    assert(solve("whole", ""))
    for k = 1, 20 do solve("killed", ("timeout -s KILL %.2f"):format(0.1 + 0.37 * k % 0.4)) end
    assert(solve("killed", ""))
    local weights = {}
    for k, place in ipairs { "whole", "killed" } do
      weights[k] = gq.checkpoint.load(("%s/%s/nested_spheres-seed1.safetensors"):format(folder, place)).model
    end
    for name, t in pairs(weights[1]) do assert.same(t:totable(), weights[2][name]:totable()) end
  end)
end)
