-- What gq.train makes of the epochs' figures: early stopping, the best weights, plateau schedules; and on_step.

local gq = require "gq"
local helper = require "tests.helper"
local folder

setup(function() folder = helper.folder() end)

teardown(function() os.execute("rm -r " .. folder) end)

-- A training whose figure after each epoch is that of the list; a step adds 1 to the weight.
local function train(figures, given)
  local m = gq.nn.Module:extend("One")()
  m.w = gq.tensor({ 0 }, { requires_grad = true })
  local o = {
    model = m, data = { x = gq.zeros(1), y = gq.zeros(1) }, epochs = #figures - 1, progress = false,
    loss = function(net) return -net.w:sum() end, optimiser = gq.optim.sgd({ m.w }, { lr = 1 }),
    validate = function(_, epoch) return { test_loss = figures[epoch + 1] } end,
  }
  for k, v in pairs(given or {}) do o[k] = v end
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
    local plateau = gq.optim.schedule.plateau(optimiser)
    helper.raises("plateau schedule", plateau.load_state_dict, plateau, { bad = -1 })
  end)
end)

describe("a training that is killed", function()
  it("#slow ends with the same weights after 20 kills", function()
    local gqlua = os.getenv("GQLUA") or "./gqlua"
    local function run(place, before)
      return os.execute(("%s %s examples/nested_spheres.lua --epochs 60 --batch-size 400 --quiet --out %s/%s --resume")
        :format(before, gqlua, folder, place))
    end
    assert(run("whole", ""))
    for k = 1, 20 do run("killed", ("timeout -s KILL %.2f"):format(0.1 + 0.37 * k % 0.4)) end
    assert(run("killed", ""))
    local weights = {}
    for k, place in ipairs { "whole", "killed" } do
      weights[k] = gq.checkpoint.load(("%s/%s/nested_spheres-seed1.safetensors"):format(folder, place)).model
    end
    for name, t in pairs(weights[1]) do assert.same(t:totable(), weights[2][name]:totable()) end
  end)
end)
