-- Training: gq.train, optimisers' states, schedules, checkpoints, files, loggers, progress, options of scripts.

local gq = require "gq"
local assert = require "luassert"
local helper = require "tests.helper"
local nn = gq.nn

local folder = helper.folder()

local function temporary(name) return folder .. "/" .. name end

local function model_of(seed)
  gq.manual_seed(seed)
  return nn.mlp { sizes = { 2, 6, 1 }, activation = "tanh" }
end

-- y = x1 x2
local function set_of(n)
  local x = gq.rand({ n, 2 }, { seed = 11 }) * 2 - 1
  return { x = x, y = x:narrow(2, 1, 1) * x:narrow(2, 2, 1) }
end

local function loss(m, x, y) return gq.mse_loss(m(x), y) end

-- Everything that training changes, as text that shows every bit.
local function bits(model, optimiser)
  local parts = {}
  for name, p in model:named_parameters() do
    for _, v in ipairs(p:reshape(-1):totable()) do parts[#parts + 1] = ("%s %a"):format(name, v) end
  end
  local state = optimiser:state_dict()
  for i, moments in ipairs(state.state) do
    parts[#parts + 1] = ("steps %s of %d"):format(state.steps[i], optimiser:steps())
    for _, m in ipairs(moments) do
      for _, v in ipairs(m and m:reshape(-1):totable() or {}) do parts[#parts + 1] = ("%a"):format(v) end
    end
  end
  return table.concat(parts, "\n")
end

describe("gq.train", function()
  it("lowers the loss and returns a row for each epoch, from epoch 0", function()
    local m = model_of(1)
    local seen = {}
    local rows, state = gq.train { model = m, loss = loss, optimiser = gq.optim.adam(m:parameters(), { lr = 2e-2 }),
      data = set_of(64), batch_size = 16, seed = 1, epochs = 30, progress = false,
      validate = function(net, epoch)
        assert.is_false(net.training)
        assert.is_false(gq.recording())
        return { test_loss = loss(net, set_of(64).x, set_of(64).y):item(), test_epoch = epoch }
      end,
      on_epoch = function(row) seen[#seen + 1] = row.epoch end }
    assert.same(31, #rows)
    assert.same(120, state.step)
    assert.same(0, rows[1].epoch)
    assert.is_nil(rows[1].train_loss)
    assert.same(30, rows[31].test_epoch)
    assert.is_true(rows[31].test_loss < 0.3 * rows[1].test_loss)
    assert.is_true(rows[31].train_loss < rows[2].train_loss)
    assert.same({ 0, 1, 2 }, { seen[1], seen[2], seen[3] })
    assert.is_true(m.training)
  end)

  it("averages the counts of odeint's info, those of the backward pass too", function()
    gq.manual_seed(3)
    local f = nn.mlp { sizes = { 2, 4, 2 }, activation = "tanh", time = true }
    local rows = gq.train { model = f, epochs = 1, progress = false,
      optimiser = gq.optim.sgd(f:parameters(), { lr = 0.1 }), name = "mse",
      data = { x = gq.randn(4, 2), y = gq.randn(4, 2) },
      loss = function(net, x, y)
        local z, info = gq.odeint(net, x, { 0, 1 }, { gradient = "gq" })
        return gq.mse_loss(z[-1], y), info
      end }
    assert.is_true(rows[2].nfe > 0 and rows[2].nfe_backward > 0 and rows[2].nodes >= 1)
    assert.is_not_nil(rows[2].train_mse)
  end)

  it("refuses a step whose loss or gradient is not finite and keeps the good weights", function()
    for _, bad in ipairs { function(l) return l * (0 / 0) end, function(l) return (l * 0):sqrt() end } do
      local m = model_of(1)
      local optimiser = gq.optim.adam(m:parameters(), { lr = 1e-2 })
      local steps, before = 0, nil
      local ok, message = pcall(gq.train, { model = m, optimiser = optimiser, data = set_of(8), batch_size = 2,
        epochs = 2, progress = false, loss = function(net, x, y)
          steps = steps + 1
          local l = loss(net, x, y)
          if steps < 3 then return l end
          before = bits(net, optimiser)
          return bad(l)
        end })
      assert.is_false(ok)
      assert.matches("epoch 1, step 3", message, 1, true)
      assert.matches("the weights are those before this step", message, 1, true)
      assert.same(before, bits(m, optimiser))
    end
  end)

  it("goes on where parameters are frozen and thawed between epochs, clipping or not", function()
    local clip = { clip = 1 }
    for name, options in pairs { adam = clip, sgd = {}, groups = clip, list = clip, lbfgs = {} } do
      local m = model_of(1)
      local all, at = m:parameters(), {}
      local optimiser = name == "groups" and gq.optim.adamw { { params = { all[1], all[2] }, lr = 1e-2 },
        { params = { all[3], all[4] } } } or name == "list" and { gq.optim.adam { all[1], all[2] },
        gq.optim.adam { all[3], all[4] } } or gq.optim[name](all, name == "lbfgs" and { max_iter = 2 } or nil)
      gq.train(gq.core.copy({ model = m, loss = loss, optimiser = optimiser, data = set_of(8), epochs = 6,
        progress = false, ema = gq.optim.ema(m), on_epoch = function(row)
          at[row.epoch] = { all[1]:clone(), all[3]:clone() }
          if row.epoch == 2 then all[1].requires_grad, all[2].requires_grad = false, false end
          if row.epoch == 4 then all[1].requires_grad, all[2].requires_grad = true, true end
        end }, options))
      for epoch = 1, 6 do
        local frozen = epoch == 3 or epoch == 4
        for i = 1, 2 do
          local moved = (at[epoch][i] - at[epoch - 1][i]):abs():max():item()
          assert.equal(i == 2 or not frozen, moved > 0, ("%s, epoch %d"):format(name, epoch))
        end
      end
    end
  end)

  it("tells such a step by what failed, not by the words of the message", function()
    local m = model_of(1)
    local function run(l, optimiser)
      return helper.message(gq.train, { model = m, optimiser = optimiser or gq.optim.adam(m:parameters()), epochs = 1,
        data = set_of(4), progress = false, loss = l })
    end
    local own = run(loss, { zero_grad = function() end, step = function() error("a definite matrix, not finite") end })
    assert.truthy(own:find("gq.train: a definite matrix", 1, true) and not own:find("epoch", 1, true), own)
    for _, engine in ipairs { "direct", "gq" } do
      local back = run(function(net, x)
        return gq.odeint(function(_, z) return net(z) * gq.sqrt(0 * z) end, x, { 0, 1 }, { gradient = engine })[2]:sum()
      end)
      for _, part in ipairs { "epoch 1, step 1: in the backward pass", "the weights are those before this step" } do
        assert.truthy(back:find(part, 1, true), back)
      end
    end
    assert.truthy(run(function(_, x) return x:sum() end):find("gq.train: this tensor does not require", 1, true))
  end)

  it("clips gradients and follows a schedule", function()
    local m = model_of(1)
    local optimiser = gq.optim.sgd(m:parameters(), { lr = 1 })
    local before = m:state_dict()
    gq.train { model = m, loss = function(...) return loss(...) * 1e6 end, optimiser = optimiser, data = set_of(8),
      epochs = 1, clip = 1e-3, progress = false,
      schedule = gq.optim.schedule.step(optimiser, { every = 1, gamma = 0.5 }) }
    local moved = 0
    for name, t in pairs(m:state_dict()) do moved = moved + ((t - before[name]) ^ 2):sum():item() end
    assert.close(math.sqrt(moved), 1e-3, 1e-3)
    assert.close(optimiser.lr, 0.5)
  end)

  it("stopped at any step and resumed, it ends with the same bits", function()
    local function run(path, steps, resume, every)
      gq.manual_seed(resume and 999 or 5)               -- a resumed run starts with another generator
      local m = nn.Sequential { nn.Linear(2, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 1) }
      local optimiser = gq.optim.adam(m:parameters(), { lr = 1e-2 })
      local schedule = gq.optim.schedule.cosine(optimiser, { steps = 12 })
      local rows = gq.train { model = m, loss = loss, optimiser = optimiser, schedule = schedule, data = set_of(20),
        batch_size = 6, seed = 2, epochs = 3, progress = false, steps = steps, resume = resume,
        checkpoint = path and { path = path, every = every },
        validate = function(net) return { test_draw = net(gq.randn(1, 2)):item() } end }
      local losses = {}
      for i, row in ipairs(rows) do losses[i] = ("%a %a"):format(row.train_loss or 0, row.test_draw) end
      return bits(m, optimiser) .. "\n" .. table.concat(losses, "\n") .. ("\nlr %a"):format(optimiser.lr)
    end
    local whole = run(nil)
    for stop = 0, 12 do
      for _, every in ipairs { 1, 100 } do
        local path = temporary(("stop%d.%d.safetensors"):format(stop, every))
        run(path, stop, false, every)
        assert.same(whole, run(path, nil, true, every), "stopped after step " .. stop)
      end
    end
  end)

  it("stopped within an epoch by steps, it has a row of that epoch's part", function()
    local function run(steps)
      local m = model_of(1)
      return gq.train { model = m, loss = loss, optimiser = gq.optim.adam(m:parameters(), { lr = 1e-2 }),
        data = set_of(12), batch_size = 4, epochs = 3, progress = false, steps = steps,
        validate = function(net) return { test_loss = loss(net, set_of(12).x, set_of(12).y):item() } end }
    end
    local rows, whole = run(5), run(nil)
    assert.same({ 3, 2 }, { #rows, rows[3].epoch })
    assert.equal(rows[2].test_loss, whole[2].test_loss)
    assert.is_true(rows[3].test_loss < rows[2].test_loss and rows[3].test_loss > whole[3].test_loss)
    assert.equal(2, #run(3))
    assert.equal(1, #run(0))
  end)

  -- f(m) -> optimiser, schedule, what else gq.train gets
  local function resumes(name, f, last)
    local function run(path, steps, resume)
      gq.manual_seed(resume and 999 or 5)
      local m = nn.Sequential { nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1) }
      local o = f(m)
      local options = gq.core.copy({ model = m, loss = loss, data = set_of(20), epochs = 3,
        seed = not o.data and 2 or nil, batch_size = not o.data and 6 or nil, progress = false, steps = steps,
        resume = resume, checkpoint = path and { path = path, every = 1 } }, o)
      local rows, state = gq.train(options)
      local list = { ("%d steps"):format(state.step) }
      for i, optimiser in ipairs(o.optimiser.step and { o.optimiser } or o.optimiser) do
        list[#list + 1] = i .. bits(m, optimiser)
      end
      for _, row in ipairs(rows) do
        list[#list + 1] = ("%a %a"):format(row.train_loss or 0, row.train_loss_2 or 0)
      end
      return table.concat(list, "\n")
    end
    local whole = run(nil)
    assert.matches("^" .. last .. " steps", whole)
    for _, stop in ipairs { 0, 1, last // 2 + 1, last } do
      local path = temporary(("%s%d.safetensors"):format(name, stop))
      run(path, stop)
      assert.same(whole, run(path, nil, true), name .. ", stopped after step " .. stop)
    end
  end

  local function halves(m)
    return { gq.optim.adam(m[1]:parameters(), { lr = 1e-2 }), gq.optim.sgd(m[3]:parameters(), { lr = 1e-2,
      momentum = 0.9 }) }
  end

  it("takes several optimisers, L-BFGS and several batches a step, and resumes them to the same bits", function()
    resumes("two", function(m)
      local list = halves(m)
      return { optimiser = list, clip = 1, schedule = { gq.optim.schedule.cosine(list[1], { steps = 12 }),
        gq.optim.schedule.plateau(list[2], { patience = 1 }) } }
    end, 12)
    resumes("turns", function(m)
      return { optimiser = halves(m), loss = { loss, function(...) return loss(...) * 2 end } }
    end, 12)
    resumes("lbfgs", function(m)
      return { optimiser = gq.optim.lbfgs(m:parameters(), { max_iter = 3, history_size = 4 }), batch_size = 20,
        epochs = 5 }
    end, 5)
    resumes("some", function(m) return { optimiser = gq.optim.adam(m:parameters()), accumulate = 3 } end, 6)
    resumes("drawn", function(m)
      local set = set_of(8)
      return { optimiser = gq.optim.adam(m:parameters()), accumulate = 2, data = function()
        local order, i = gq.randperm(8), -1
        return function()
          i = i + 2
          local rows = i < 8 and order[{ { i, i + 1 } }]
          if rows then return set.x:index_select(1, rows) + gq.randn(2, 2) * 0.1, set.y:index_select(1, rows) end
        end
      end }
    end, 6)
  end)

  it("accumulates the gradient of one large batch, also where the last one is smaller", function()
    for _, size in ipairs { 4, 5, 12 } do
      local ends = {}
      for i, k in ipairs { 1, 3 } do
        local m = model_of(1)
        gq.train { model = m, loss = loss, optimiser = gq.optim.sgd(m:parameters(), { lr = 0.1 }), epochs = 1,
          data = set_of(12), batch_size = i == 1 and 12 or size, accumulate = k, shuffle = false, progress = false }
        ends[i] = m:state_dict()["1.weight"]
      end
      assert.close(ends[2], ends[1]:totable(), 1e-6, 1e-7)
    end
  end)

  it("changes the images of a set as its batches do, and tells before the first test what does not fit", function()
    local set = { x = gq.randn({ 9, 2, 5, 4 }, { seed = 1 }), y = gq.randn({ 9, 3 }, { seed = 2 }) }
    local function trained(more)
      gq.manual_seed(1)
      local m = nn.Sequential { nn.Flatten(), nn.Linear(40, 3) }
      local o = helper.with({ model = m, loss = loss, optimiser = gq.optim.adam(m:parameters()), data = set, epochs = 2,
        seed = not more.data and 3 or nil, progress = false }, more)
      gq.train(o)
      return bits(m, o.optimiser)
    end
    local augment = { flip = true, crop = 1 }
    local own = trained { data = function(epoch)
      return gq.data.batches(set, { batch_size = 4, shuffle = true, augment = augment,
        seed = gq.split_seed(3, "epoch", epoch) })
    end }
    assert.equal(own, trained { batch_size = 4, augment = augment })
    assert.not_equal(own, trained { batch_size = 4 })
    local tested = 0
    local function test() tested = tested + 1 end
    for more, why in pairs { [{ batch_size = 10 }] = "batch_size = 10 is larger than the set, which has 9 entries",
      [{ augment = { crop = 5 } }] = "crop",
      [{ augment = augment, data = { x = set.y, y = set.y } }] = "images {n, c, h, w}",
      [{ augment = augment, data = function() return next, {} end }] = "give it to gq.data.batches in the function" } do
      more.validate = test
      helper.refused(why, trained, more)
    end
    assert.equal(0, tested)
  end)

  it("counts the evaluations of all batches of a step, and gives each optimiser of a list its loss", function()
    local m = nn.mlp { sizes = { 2, 4, 2 }, activation = "tanh" }
    local function solve(net, x, y)
      local z, info = gq.odeint(net, x, { 0, 1 }, { method = "rk4", step_size = 0.5 })
      return gq.mse_loss(z[-1], y), info
    end
    local rows = gq.train { model = m, loss = solve, optimiser = gq.optim.adam(m:parameters()), epochs = 1,
      data = { x = gq.randn(6, 2), y = gq.randn(6, 2) }, batch_size = 2, accumulate = 3, progress = false }
    assert.equal(24, rows[2].nfe)                             -- three solves of two steps of four
    local a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    local both = nn.Sequential { a, b }
    local before, order = { a.weight:item(), b.weight:item() }, {}
    rows = gq.train { model = both, data = { x = gq.ones(1, 1), y = gq.ones(1) }, epochs = 1, progress = false,
      name = "part",
      optimiser = { gq.optim.sgd(a:parameters(), { lr = 1 }), gq.optim.sgd(b:parameters(), { lr = 1 }) },
      loss = { function()
        order[#order + 1] = "a"
        return a.weight:sum() + b.weight:sum()
      end, function()
        order[#order + 1] = ("%.4f"):format(a.weight:item())
        return -b.weight:sum()
      end } }
    assert.same({ "a", ("%.4f"):format(before[1] - 1) }, order)       -- in turn, the second after the first's step
    assert.close(b.weight:item(), before[2] + 1, 1e-6)                -- by its own loss alone
    assert.close({ rows[2].train_part_1, rows[2].train_part_2 }, { before[1] + before[2], -before[2] }, 1e-6)
    assert.close(rows[2].train_part, before[1], 1e-5, 1e-6)
  end)

  it("takes no step by any of several optimisers where one of them cannot", function()
    local a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    local before = a.weight:totable()
    local function train(of)
      gq.train { model = nn.Sequential { a, b }, data = { x = gq.ones(4, 2), y = gq.ones(4) }, epochs = 1,
        progress = false, loss = of,
        optimiser = { gq.optim.sgd(a:parameters(), { lr = 1 }), gq.optim.sgd { { params = b:parameters() } } } }
    end
    helper.refused("no gradient has come to any of the 2 parameters", train, function(_, x) return a(x):sum() end)
    assert.same(before, a.weight:totable())
    train(function(_, x) return (a(x) + b(x)):sum() end)
    assert.not_same(before, a.weight:totable())
  end)

  it("fits by L-BFGS, and keeps the weights where a trial of its line search fails", function()
    local m = model_of(3)
    local rows = gq.train { model = m, loss = loss, optimiser = gq.optim.lbfgs(m:parameters()), data = set_of(32),
      epochs = 12, progress = false }
    assert.is_true(rows[13].train_loss < 1e-3 * rows[2].train_loss)
    local calls, before = 0, nil
    local optimiser = gq.optim.lbfgs(m:parameters(), { max_iter = 4 })
    local function train(f)
      calls, before = 0, bits(m, optimiser)
      return select(2, pcall(gq.train, { model = m, optimiser = optimiser, data = set_of(8), epochs = 1,
        progress = false, loss = f }))
    end
    assert.matches("no way", train(function(...)
      calls = calls + 1
      if calls > 2 then error("no way") end
      return loss(...) * 100
    end))
    assert.equal(3, calls)
    assert.same(before, bits(m, optimiser))
    assert.matches("epoch 1, step 1: the loss is nan; the weights are those before", train(function(...)
      return loss(...) * (0 / 0)
    end))
    assert.same(before, bits(m, optimiser))
  end)

  it("says what goes together", function()
    local m = model_of(1)
    local p = m:parameters()
    local adam, lbfgs = gq.optim.adam(p), gq.optim.lbfgs(p)
    local function refused(message, o)
      helper.refused(message, gq.train, helper.with({ model = m, loss = loss, data = set_of(4), epochs = 1,
        progress = false, optimiser = adam }, o))
    end
    refused("is in the numbers 1 and 2 of the list: give each a loss of its own", { optimiser = { adam, adam } })
    refused("optimiser: number 2 of the list: one of gq.optim expected, got number 3", { optimiser = { adam, 3 } })
    refused("a list of 2 functions and one optimiser: one each expected", { loss = { loss, loss } })
    refused("a list of 1 functions and a list of 2 optimisers", { loss = { loss }, optimiser = { adam, lbfgs } })
    refused("number 2 of the list: a function expected", { loss = { loss, "mse" }, optimiser = { adam, adam } })
    refused("clip: L-BFGS searches along the gradient", { optimiser = lbfgs, clip = 1 })
    local two = { gq.optim.adam { p[1], p[2] }, gq.optim.lbfgs { p[3], p[4] } }
    refused("L-BFGS in a list computes the loss by itself", { optimiser = two })
    refused("accumulate: an integer of at least 1 expected", { accumulate = 0 })
    refused("schedule: number 1 of the list", { schedule = { 3 } })
    local function empty() return function() end end
    refused("seed is for data = {x = ..., y = ...}: give it to gq.data.batches", { data = empty, seed = 3 })
    refused("mode is for patience, keep_best or a plateau schedule", { mode = "max" })
    refused("monitor is for patience, keep_best or a plateau schedule", { monitor = "train_loss" })
    refused("optimiser: one of gq.optim expected, got table", { optimiser = {} })
    local path = temporary("list.safetensors")
    gq.checkpoint.save(path, { model = m, optimiser = two })
    local function load(optimiser) gq.checkpoint.load(path, { model = m, optimiser = optimiser }) end
    assert.error_matches(function() load(adam) end, "list.safetensors: .*state_dict%(%) expected")
    assert.error_matches(function() load { two[1] } end, "a list of 2, this is a list of 1")
    assert.error_matches(function() load { two[2], two[1] } end, "number 1: the state is of adam, this is lbfgs")
    load(two)
    gq.checkpoint.save(path, { model = m, optimiser = adam })
    assert.error_matches(function() load(two) end, "the state is of adam, this is a list of 2")
    local s = lbfgs:state_dict()
    for _, change in ipairs { { total = 1.5 }, { settings = { lr = -1 } }, { state = 3 }, { state = { {} } },
      { state = { { gq.ones(3), gq.ones(3) } } }, { settings = { rate = 1 } } } do
      assert.has_error(function() lbfgs:load_state_dict(gq.core.copy(s, change)) end)
    end
  end)

  it("names wrong options", function()
    local m = model_of(1)
    local optimiser = gq.optim.adam(m:parameters())
    assert.error_matches(function() gq.train { modle = m } end, "did you mean 'model'")
    assert.error_matches(function() gq.train { model = m, epochs = 1, optimiser = optimiser } end, "'loss' is missing")
    assert.error_matches(function()
      gq.train { model = m, epochs = 1, optimiser = optimiser, loss = loss, data = 3 }
    end, "data: a set")
    assert.error_matches(function()
      gq.train { model = m, epochs = 1, optimiser = optimiser, loss = loss, data = set_of(4), resume = true }
    end, "needs a checkpoint")
    assert.error_matches(function()
      gq.train { model = m, epochs = 1, optimiser = optimiser, loss = function() return 3 end, data = set_of(4),
        progress = false }
    end, "the loss is a tensor of one number, got number 3")
  end)

  it("names what a script's functions return that cannot be used", function()
    local m = model_of(1)
    local function refused(message, o)
      helper.refused(message, gq.train, helper.with({ model = m, loss = loss, data = set_of(4), epochs = 2,
        progress = false, optimiser = gq.optim.adam(m:parameters()) }, o))
    end
    local function with(info) return function(...) return loss(...), info end end
    refused("loss: the second value is the info of odeint, whose counts are averaged, got number 5",
      { loss = with(5) })
    refused("loss: info.nfe is a number, got string \"a\"", { loss = with { nfe = "a" } })
    local batches = table.pack(gq.data.batches(set_of(4), { batch_size = 2 }))
    refused("data: no batch in epoch 2: return a new iterator for each epoch",
      { data = function() return table.unpack(batches, 1, 3) end })
    refused("validate: figures by name expected", { validate = function() return { 0.5 } end })
    refused("got one called string \"epoch\"", { validate = function() return { epoch = 3 } end })
    for _, value in ipairs { "low", gq.ones(2), {} } do
      refused("monitor: test_loss is to be a number, got",
        { validate = function() return { test_loss = value } end, patience = 1 })
    end
  end)
end)

describe("optimisers", function()
  it("refuse lists without parameters that require gradients", function()
    for name in pairs { adam = 1, adamw = 1, sgd = 1, rmsprop = 1 } do
      assert.error_matches(function() gq.optim[name] {} end, "the list of parameters is empty")
      assert.error_matches(function() gq.optim[name] { gq.ones(2) } end, "requires_grad = true expected")
      assert.error_matches(function() gq.optim[name](3) end, "a list of parameters expected")
    end
    assert.error_matches(function() gq.optim.adam(model_of(1):parameters(), { learning = 1 }) end, "unknown option")
  end)

  it("settings can be read and assigned", function()
    local optimiser = gq.optim.sgd(model_of(1):parameters(), { lr = 0.5, momentum = 0.9 })
    assert.same(0.5, optimiser.lr)
    assert.is_false(optimiser.nesterov)
    optimiser.lr = 0.25
    assert.same(0.25, optimiser:get("lr"))
    assert.has_error(function() optimiser.lr = "much" end)
    assert.has_error(function() optimiser.rate = 1 end)
  end)

  it("states go round, and are refused where they do not fit, with nothing changed", function()
    local m = model_of(1)
    local optimiser = gq.optim.adam(m:parameters(), { lr = 1e-2 })
    gq.train { model = m, loss = loss, optimiser = optimiser, data = set_of(8), epochs = 2, progress = false }
    local other = model_of(2)
    local copy = gq.optim.adam(other:parameters())
    copy:load_state_dict(optimiser:state_dict())
    other:load_state_dict(m:state_dict())
    assert.same(bits(m, optimiser), bits(other, copy))
    assert.same(0.01, copy.lr)
    local sgd = gq.optim.sgd(other:parameters())
    assert.error_matches(function() sgd:load_state_dict(optimiser:state_dict()) end, "load_state_dict")
    assert.same(1e-3, sgd.lr)
    local small = gq.optim.adam(nn.Linear(1, 1):parameters())
    assert.error_matches(function() small:load_state_dict(optimiser:state_dict()) end,
      "the state has 4 parameters, this has 2")
    assert.same(1e-3, small.lr)
    assert.error_matches(function() small:load_state_dict(3) end, "state_dict")
  end)
end)

describe("schedules", function()
  local function rates(name, options, n)
    local optimiser = gq.optim.adam(model_of(1):parameters(), { lr = 2 })
    local s = gq.optim.schedule[name](optimiser, options)
    local list = { optimiser.lr }
    for i = 1, n do
      s:step()
      list[i + 1] = optimiser.lr
    end
    return list
  end

  it("follow their formulas", function()
    assert.close(rates("constant", nil, 2), { 2, 2, 2 })
    assert.close(rates("step", { every = 2, gamma = 0.1 }, 4), { 2, 2, 0.2, 0.2, 0.02 })
    assert.close(rates("exponential", { gamma = 0.5 }, 2), { 2, 1, 0.5 })
    assert.close(rates("linear", { steps = 2, last = 0.5 }, 3), { 2, 1.5, 1, 1 })
    assert.close(rates("cosine", { steps = 2, last = 0.1 }, 3), { 2, 1.1, 0.2, 0.2 }, 1e-9)
    assert.close(rates("cosine", { steps = 4, warmup = 2 }, 2), { 1, 2, 2 })
    assert.close(rates("lambda", function(n) return n + 1 end, 2), { 2, 4, 6 })
  end)

  it("want an optimiser", function()
    assert.error_matches(function() gq.optim.schedule.step(3, { every = 1 }) end, "an optimiser expected")
    assert.error_matches(function() rates("step", {}, 1) end, "'every' is missing")
  end)
end)

describe("checkpoints", function()
  it("put everything back", function()
    local path = temporary("c.safetensors")
    local m = model_of(1)
    local optimiser = gq.optim.adam(m:parameters())
    gq.train { model = m, loss = loss, optimiser = optimiser, data = set_of(8), epochs = 2, progress = false }
    gq.manual_seed(77)
    gq.randn(3)
    gq.checkpoint.save(path, { model = m, optimiser = optimiser, epoch = 2,
      extra = { note = "hello", list = { 1, 2.5 } } })
    local want, draw = bits(m, optimiser), gq.randn(3):totable()
    local m2 = model_of(2)
    local optimiser2 = gq.optim.adam(m2:parameters(), { lr = 7 })
    local c = gq.checkpoint.load(path, { model = m2, optimiser = optimiser2 })
    assert.same(want, bits(m2, optimiser2))
    assert.same(draw, gq.randn(3):totable())
    assert.same(2, c.epoch)
    assert.same({ note = "hello", list = { 1, 2.5 } }, c.extra)
    assert.same(m:state_dict()["1.weight"]:totable(), gq.checkpoint.load(path).model["1.weight"]:totable())
  end)

  -- Everything is looked at before anything is written.
  it("that are damaged change nothing, and the error names the file", function()
    local path, damaged = temporary("whole.ckpt"), temporary("damaged.ckpt")
    local m = nn.Linear(2, 2)
    local o = gq.optim.adam(m:parameters(), { lr = 0.1 })
    local schedule = gq.optim.schedule.exponential(o, { gamma = 0.9 })
    m:forward(gq.ones(1, 2)):sum():backward()
    o:step()
    gq.checkpoint.save(path, { model = m, optimiser = o, schedule = schedule })
    local tensors, meta = gq.safetensors_load(path)
    local function try(what, with, change)
      local json, n = meta.gqlua:gsub(what, with)
      assert.is_true(n > 0, what)
      local t = gq.core.copy(tensors, change or {})
      for name, v in pairs(t) do t[name] = v or nil end
      gq.safetensors_save(damaged, t, { gqlua = json })
      gq.manual_seed(7)
      local m2 = nn.Linear(2, 2)
      local o2 = gq.optim.adam(m2:parameters(), { lr = 0.3 })
      local schedule2 = gq.optim.schedule.exponential(o2, { gamma = 0.5 })
      local rng, before = gq.rng_state(), bits(m2, o2)
      local ok, e = pcall(gq.checkpoint.load, damaged, { model = m2, optimiser = o2, schedule = schedule2 })
      local case = ("%s -> %s"):format(what, with)
      assert.is_false(ok, case)
      assert.matches("gq.checkpoint.load: .*damaged%.ckpt", e)
      assert.same({ rng, before, 0.3, 0 }, { gq.rng_state(), bits(m2, o2), o2.lr, schedule2.count }, case)
      return e
    end
    for _, rng in ipairs { '"x y"', "7", '"1.5 2"', '"3 -1"', '"5"', '"99999999999999999999 1"', "{}", "true" } do
      assert.matches("two integers", try('"rng":"[^"]*"', '"rng":' .. rng))
    end
    try('"steps":%[1,1%],', "")
    for _, steps in ipairs { "[1,1.5]", "[1,-1]", "[1]", "7", '["1","1"]', "[1,null]" } do
      try('"steps":%[1,1%]', '"steps":' .. steps)
    end
    for _, total in ipairs { "1.5", "-1", "null", '"1"' } do try('"total":1', '"total":' .. total) end
    try('"optimiser":{.*},"rng"', '"optimiser":null,"rng"')
    try('"optimiser":{.*},"rng"', '"optimiser":7,"rng"')
    try('"settings":{.*},"steps"', '"settings":7,"steps"')
    for _, kind in ipairs { '"sgd"', "7", "null" } do try('"kind":"adam"', '"kind":' .. kind) end
    for _, lr in ipairs { "-1.0", '"x"', "null", "{}" } do try('"lr":[^,]*', '"lr":' .. lr) end
    try('"eps":', '"epsilon":')
    for _, count in ipairs { "1.5", "-1", '"1"', "null" } do try('"count":%d+', '"count":' .. count) end
    try('"base":[^,}]*', '"base":-1.0')
    try('"base":[^,}]*', '"base":"x"')
    try("gqlua checkpoint 1", "gqlua checkpoint 9")
    try("{", "[")
    try("{", "{", { ["model.weight"] = false })
    try("{", "{", { ["model.weight"] = gq.ones(3, 2) })
    try("{", "{", { ["model.more"] = gq.ones(2) })
    try("{", "{", { ["optimiser.2.1"] = false })
    try("{", "{", { ["optimiser.1.2"] = gq.ones(3) })
  end)

  it("of gq.train are looked at before anything is put back", function()
    local path = temporary("other.ckpt")
    local m, m2 = model_of(1), model_of(2)
    local o = gq.optim.adam(m2:parameters())
    local before = bits(m2, o)
    local function sums(x) return { steps = 1, loss = x, seconds = 1 } end
    for _, extra in ipairs { {}, { sums = {}, rows = {}, epoch = 1, batch = 0, step = 0 },
                             { sums = sums(1), rows = {}, epoch = 1.5, batch = 0, step = 0 },
                             { sums = sums "x", rows = {}, epoch = 1, batch = 0, step = 0 } } do
      gq.checkpoint.save(path, { model = m, optimiser = gq.optim.adam(m:parameters()), extra = extra })
      assert.error_matches(function()
        gq.train { model = m2, loss = loss, optimiser = o, data = set_of(8), epochs = 2, progress = false,
          checkpoint = { path = path, every = 1 }, resume = true }
      end, "no checkpoint of gq.train")
      assert.same(before, bits(m2, o))
    end
  end)

  it("that do not fit or are none are refused", function()
    local path = temporary("d.safetensors")
    gq.checkpoint.save(path, { model = model_of(1) })
    assert.error_matches(function() gq.checkpoint.load(path, { model = nn.Linear(2, 2) }) end, "missing: ")
    assert.error_matches(function()
      gq.checkpoint.load(path, { optimiser = gq.optim.adam(model_of(1):parameters()) })
    end, "holds no optimiser")
    local schedule = gq.optim.schedule.exponential(gq.optim.adam(model_of(1):parameters()), { gamma = 0.5 })
    assert.error_matches(function() gq.checkpoint.load(path, { schedule = schedule }) end,
      "d.safetensors: holds no schedule")
    assert.error_matches(function() gq.checkpoint.save(path, { epoch = "3" }) end, "option epoch: an integer expected")
    assert.error_matches(function() gq.checkpoint.save(path, { rng = "x" }) end, "rng: .* two integers, got string")
    assert.error_matches(function() gq.checkpoint.save(path, { rng = 3 }) end, "option rng: true or false expected")
    gq.save(path, { a = gq.ones(2) })
    assert.error_matches(function() gq.checkpoint.load(path) end, "no checkpoint: read it with gq.load")
    gq.safetensors_save(path, { ["model.w"] = gq.ones(2) }, { gqlua = '{"format": "gqlua checkpoint 2"}' })
    assert.error_matches(function() gq.checkpoint.load(path) end, '"gqlua checkpoint 2", of another version of gqlua')
    assert.has_error(function() gq.checkpoint.load(temporary("nothing.safetensors")) end)
    assert.has_error(function() gq.checkpoint.save(temporary("no/such/place.safetensors"), {}) end)
    assert.error_matches(function() gq.checkpoint.save(path, { modl = 1 }) end, "did you mean 'model'")
  end)
end)

describe("files", function()
  it("go round by suffix", function()
    local x = gq.randn(3, 4)
    gq.save(temporary("x.npy"), x)
    assert.same(x:totable(), gq.load(temporary("x.npy")):totable())
    gq.save(temporary("x.csv"), x)
    assert.same(x:totable(), gq.load(temporary("x.csv")):totable())
    gq.save(temporary("x.safetensors"), { x = x, y = x[1] }, { made = "today" })
    local t, meta = gq.load(temporary("x.safetensors"))
    assert.same(x:totable(), t.x:totable())
    assert.same("today", meta.made)
    gq.save(temporary("v.csv"), gq.tensor { 1, 2, 3 })
    assert.same({ { 1 }, { 2 }, { 3 } }, gq.load(temporary("v.csv")):totable())
  end)

  it("csv: names, spaces, infinities; and what is wrong is named by line", function()
    gq.file_write(temporary("a.csv"), "time, x\r\n0, +1.5\r\n\r\n 1,-inf\r\n")
    local t, names = gq.load(temporary("a.csv"))
    assert.same({ { 0, 1.5 }, { 1, -math.huge } }, t:totable())
    assert.same({ "time", "x" }, names)
    gq.file_write(temporary("b.csv"), "1,2\n3\n")
    assert.error_matches(function() gq.load(temporary("b.csv")) end, "line 2 has 1 numbers, the first has 2")
    gq.file_write(temporary("b.csv"), "1,2\n3,four\n")
    assert.error_matches(function() gq.load(temporary("b.csv")) end, 'line 2: a number expected, got "four"')
    gq.file_write(temporary("b.csv"), "")
    assert.error_matches(function() gq.load(temporary("b.csv")) end, "no numbers")
  end)

  it("other suffixes are errors that name those that work", function()
    assert.error_matches(function() gq.load("x.pt") end, "%.safetensors, %.npy or %.csv expected")
    assert.error_matches(function() gq.load("x") end, "expected")
    assert.error_matches(function() gq.save(temporary("x.csv"), gq.zeros(2, 2, 2)) end, "use %.npy")
    assert.error_matches(function() gq.save(3) end, "a path expected")
  end)
end)

describe("loggers", function()
  it("jsonl writes an object a line; NaN is null", function()
    local path = temporary("log.jsonl")
    local log = gq.logger.jsonl(path)
    log { epoch = 0, loss = 0 / 0 }
    log:log { epoch = 1, loss = gq.tensor(0.5), list = { 1, math.huge } }
    local lines = {}
    for line in io.lines(path) do lines[#lines + 1] = gq.json.decode(line) end
    assert.same({ epoch = 0, loss = gq.json.null }, lines[1])
    assert.same({ epoch = 1, loss = 0.5, list = { 1, gq.json.null } }, lines[2])
    assert.error_matches(function() log(3) end, "a table expected")
  end)

  it("csv keeps the columns of the header, also when it is opened again, and takes others later", function()
    local path = temporary("log.csv")
    gq.logger.csv(path) { loss = 0.1, epoch = 0, note = 'a "b", c' }
    gq.logger.csv(path) { epoch = 1, loss = gq.tensor(2, { dtype = "int64" }) }
    assert.same('epoch,loss,note\n0,0.10000000000000001,"a ""b"", c"\n1,2,\n', gq.file_read(path))
    local log = gq.logger.csv(path)
    log { accuracy = 1 }
    log { epoch = 2, accuracy = 0.5, best = true }
    assert.same('epoch,loss,note,accuracy,best\n0,0.10000000000000001,"a ""b"", c",,\n1,2,,,\n,,,1,\n2,,,0.5,true\n',
      gq.file_read(path))
  end)

  it("may be made before their folder is, and a training that cannot write stops before its first step", function()
    for _, kind in ipairs { "csv", "jsonl" } do
      local place = temporary("later-" .. kind)
      local log = gq.logger[kind](place .. "/log")
      local model, steps = gq.nn.Linear(1, 1), 0
      local function run()
        gq.train { model = model, optimiser = gq.optim.sgd(model:parameters(), { lr = 0.1 }), epochs = 1,
          data = { x = gq.ones(2, 1), y = gq.ones(2, 1) }, progress = false, logger = log, on_step = function()
            steps = steps + 1
          end, loss = function(m, x, y) return gq.mse_loss(m(x), y) end }
      end
      assert.error_matches(run, "No such file")
      assert.equal(0, steps)
      gq.make_directory(place)
      run()
      assert.truthy(gq.file_read(place .. "/log"):find "epoch")
    end
  end)

  it("csv quotes names, writes what is no number as JSON, and wants names", function()
    local path = temporary("names.csv")
    local log = gq.logger.csv(path)
    log { epoch = 0, ["a,b"] = 1 }
    log { epoch = 1, ["a,b"] = 2, ['say "c"'] = 3 }
    gq.logger.csv(path) { epoch = 2, ["a,b"] = 0 / 0, ['say "c"'] = gq.tensor { 1, 2 }, d = { 1, "x" } }
    assert.equal('epoch,"a,b","say ""c""",d\n0,1,,\n1,2,3,\n2,nan,"[1.0,2.0]","[1,""x""]"\n', gq.file_read(path))
    assert.error_matches(function() log { 0.5, epoch = 3 } end, "figures by name expected.*called number 1")
  end)

  it("begins a new line behind half a one, and takes that back where the training goes on", function()
    local whole = { csv = "epoch,loss\n0,1\n", jsonl = '{"epoch":0,"loss":1}\n' }
    local half, row = { csv = "1,0.", jsonl = '{"epoch":1,"lo' }, { csv = "1,2", jsonl = '{"epoch":1,"loss":2}' }
    for _, kind in ipairs { "csv", "jsonl" } do
      local path = temporary("half." .. kind)
      gq.file_write(path, whole[kind] .. half[kind])
      gq.logger[kind](path) { epoch = 1, loss = 2 }
      assert.equal(("%s%s\n%s\n"):format(whole[kind], half[kind], row[kind]), gq.file_read(path))
      gq.file_write(path, whole[kind] .. half[kind])
      local log = gq.logger[kind](path)
      log:rewind(1)
      log { epoch = 1, loss = 2 }
      assert.equal(whole[kind] .. row[kind] .. "\n", gq.file_read(path))
    end
  end)

  it("takes back the row of an epoch that is done again, and no other", function()
    for _, kind in ipairs { "csv", "jsonl" } do
      local path = temporary("again." .. kind)
      local log = gq.logger[kind](path)
      log:rewind(0)                                                                   -- there is no file
      for epoch = 0, 2 do log { epoch = epoch, loss = 1 } end
      local whole = gq.file_read(path)
      for _, epoch in ipairs { 0, 1, 3 } do log:rewind(epoch) end
      assert.equal(whole, gq.file_read(path))
      log:rewind(2)
      log { epoch = 2, loss = 1 }
      assert.equal(whole, gq.file_read(path))
    end
  end)
end)

describe("progress", function()
  local function fake()
    local out = { text = "" }
    function out:write(...) self.text = self.text .. table.concat { ... } end
    function out:flush() end
    return out
  end

  it("is silent where stderr is no terminal, and drawn where it is shown", function()
    local silent, shown = fake(), fake()
    local bar = gq.progress(2, { out = silent, shown = false })
    bar:update()
    bar:close()
    assert.same("", silent.text)
    bar = gq.progress(4, { desc = "training", out = shown, shown = true })
    for i = 1, 4 do bar:update(i, "loss 0.5") end
    assert.matches("training [######..................] 1/4", shown.text, 1, true)
    assert.matches("[########################] 4/4", shown.text, 1, true)
    assert.matches("loss 0.5", shown.text, 1, true)
    assert.is_false(gq.isatty(0) and gq.isatty(2) and not bar.shown)
  end)

  it("counts a loop", function()
    local shown, steps = fake(), {}
    for i in gq.progress(3, { out = shown, shown = true }) do steps[#steps + 1] = i end
    assert.same({ 1, 2, 3 }, steps)
    assert.matches("3/3", shown.text, 1, true)
    for i in gq.progress(5, { at = 3 }) do steps[#steps + 1] = i end
    assert.same({ 1, 2, 3, 4, 5 }, steps)
    for _ in gq.progress(0) do error("no step") end
  end)
end)

describe("gq.cli", function()
  local spec = { about = "A test.", "epochs", "lr", "quick", { "width", 5, "hidden width" },
    { "batch-size", 7, "examples" }, { "name", nil, "a name", "text" } }

  it("reads options of every kind", function()
    local o, given = gq.cli(spec, { "--epochs", "3", "--lr=1e-2", "--quick", "--name", "x y", "--batch-size", "9" })
    assert.same({ epochs = 3, lr = 1e-2, quick = true, name = "x y", batch_size = 9, width = 5 }, o)
    assert.same({ epochs = true, lr = true, quick = true, name = true, batch_size = true }, given)
    assert.same({ epochs = 100, quick = false, batch_size = 7, width = 5 }, (gq.cli(spec, {})))
  end)

  it("reads lists, choices and words", function()
    local lists = { "gradients", "dtype", { "T", { 1, 2 }, "times" }, words = "NAME..." }
    local o = gq.cli(lists, { "b", "--gradients", "gq,aca", "--T=3,4.5", "a", "--dtype", "float64" })
    assert.same({ gradients = { "gq", "aca" }, T = { 3, 4.5 }, dtype = "float64", words = { "b", "a" } }, o)
    o = gq.cli(lists, {})
    assert.same({ { 1, 2 }, "float32", {} }, { o.T, o.dtype, o.words })
  end)

  it("gives odeint its options", function()
    local o = gq.cli({ "gradient", "C", "rtol", "impulses" }, { "--impulses", "moments", "--C", "1" })
    assert.same({ gradient = "auto", gq = { C = 1 }, rtol = 1e-3, adjoint = { impulses = "moments" } },
      gq.solver_options(o))
    o = gq.cli({ "gradient", "paper" }, { "--paper" })
    assert.same({ gradient = "gq", gq = { paper = true }, adjoint = {} }, gq.solver_options(o))
  end)
end)

describe("gq.paper.rate", function()
  it("is the paper's at its widths, and the nearest one's between", function()
    for name, rows in pairs(gq.paper.rates) do
      for _, row in ipairs(rows) do assert.equal(row[2], gq.paper.rate(name, row[1])) end
    end
    assert.equal(5e-4, gq.paper.rate("sines", 100))
    assert.equal(1e-5, gq.paper.rate("sines", 1e6))
    assert.has_error(function() gq.paper.rate("sinus", 5) end)
    assert.has_error(function() gq.paper.rate("sines", 0) end)
  end)
end)
