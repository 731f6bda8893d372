-- train.lua -- gq.train{...}: the loop that most scripts need. Give it a model, a loss, an optimiser and data;
-- it steps, refuses non-finite steps, validates, logs, saves and resumes.
--
--   model      a module (put in training mode, saved in checkpoints)
--   loss       loss(model, x, y) -> scalar tensor [, info of odeint, whose counts are averaged]
--   optimiser  one, L-BFGS too, or a list of them, which all step on that loss; where loss is a list as well, each
--              steps on its own, in turn
--   ema        a gq.optim.ema: updated after each step; validate and keep_best see its averages as the weights
--   accumulate batches whose gradients make one step: the gradient of one batch of all their rows
--   data       data(epoch) -> iterator over x, y ...; or a set {x, y} with batch_size, shuffle, augment and seed
--   epochs     last epoch; epoch 0 is the state before training
--   validate   validate(model, epoch) -> table of figures, in eval mode and without recording
--   name       what the loss is called in the rows: train_<name>, "loss" by default
--   logger     called with each row; a list of such
--   checkpoint path, or {path =, every = steps between saves; after each epoch without it}
--   resume     true: continue from the checkpoint if there is one
--   progress   true (default): a bar on stderr; a line there now and then where it is no terminal and no on_epoch tells
--   on_epoch   on_epoch(row, bar): after each row; on_step(step, loss, info): after each step
--   clip, schedule, steps (stop after so many in all, with a row and a checkpoint)
--   monitor    the figure that tells which epoch is best: "test_<name>" by default, "train_<name>" without it
--   mode       "min" or "max"; by default "max" of an accuracy
--   patience   stop after so many epochs without a better figure
--   keep_best  true: the model ends with the weights of the best epoch, also kept in <checkpoint>-best.safetensors
--
-- Returns the rows: {epoch, train_<name>, seconds, nfe, nfe_backward, nodes, ... validate's figures}.

local gq = ...
local core = gq.core
local options, need, describe, fail, expect = core.options, core.need, core.describe, core.fail, core.expect

local known = "model loss optimiser data batch_size shuffle augment seed epochs validate name logger checkpoint " ..
  "resume progress on_epoch on_step clip schedule steps monitor mode patience keep_best accumulate ema"
local what = "gq.train"

-- Counts of info that the rows average over the steps.
local counts = { "nfe", "nfe_backward", "nodes" }

-- What a set alone takes.
local of_sets = { "batch_size", "shuffle", "augment", "seed" }

local function iterator_of(o)
  if type(o.data) == "function" then
    for _, key in ipairs(of_sets) do
      if o[key] ~= nil then
        fail(("gq.train: %s is for data = {x = ..., y = ...}: give it to gq.data.batches in the function"):format(key))
      end
    end
    return o.data
  end
  if type(o.data) ~= "table" or o.data.x == nil then
    fail(("gq.train: data: a set {x = ..., y = ...} or a function of the epoch expected, got %s"):format(
      type(o.data) == "table" and "a table without x" or describe(o.data)))
  end
  local seed, shuffle = need(o, "seed", "integer", 0, what), o.shuffle ~= false
  if o.seed ~= nil and not shuffle and o.augment == nil then
    fail("gq.train: seed: without shuffle and augment nothing is drawn by it: leave it out")
  end
  local function batches(epoch)
    return gq.data.batches(o.data, { batch_size = o.batch_size, shuffle = shuffle, augment = o.augment,
      seed = gq.split_seed(seed, "epoch", epoch) })
  end
  local _, _, _, _ <close> = batches(1)                         -- what they refuse is told before the first test
  return batches
end

local function checkpoint_of(o)
  local c = o.checkpoint
  if c == nil then return nil end
  if type(c) == "string" then return { path = c } end
  options(c, "path every", "gq.train: checkpoint")
  return { path = need(c, "path", "string", nil, "gq.train: checkpoint"),
    every = c.every ~= nil and need(c, "every", "count", nil, "gq.train: checkpoint") or nil }
end

-- ---- one step ----

-- How many there are of each of an info's counts that the rows average.
local function count(sums, info)
  if type(info) ~= "table" then
    fail(("gq.train: loss: the second value is the info of odeint, whose counts are averaged, got %s"):format(
      describe(info)))
  end
  for _, key in ipairs(counts) do
    local n = info[key] or 0
    if type(n) ~= "number" then fail(("gq.train: loss: info.%s is a number, got %s"):format(key, describe(n))) end
    sums[key] = (sums[key] or 0) + n
  end
end

local function finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

-- Rows of what a batch begins with: of its first tensor.
local function rows_of(x)
  while type(x) == "table" do x = select(2, next(x)) end
  return math.max(gq.is_tensor(x) and x.shape[1] or 1, 1)
end

-- f(...), refused where it fails of numbers that are not finite.
local function attempt(refuse, f, ...)
  local ok, problem = pcall(f, ...)
  if ok then return end
  if type(problem) ~= "string" then error(problem, 0) end
  if core.status_of(problem) == "non_finite" then refuse(core.bare(problem)) end
  fail("gq.train: " .. core.bare(problem))
end

-- Loss and gradient over the batches of a step. Each counts by its rows, so that together they are one batch.
local function evaluate(o, loss_of, batches, sums, refuse)
  o.optimiser:zero_grad()
  local total, info = 0, nil
  for _, batch in ipairs(batches) do
    local loss, one = loss_of(o.model, table.unpack(batch, 1, batch.n))
    if not gq.is_tensor(loss) or loss:numel() ~= 1 then
      fail(("gq.train: the loss is a tensor of one number, got %s"):format(describe(loss)))
    end
    if batch.share ~= 1 then loss = loss * batch.share end
    total, info = total + loss:item(), one or info
    if not finite(total) then break end
    attempt(refuse, loss.backward, loss)
    if one ~= nil then count(sums, one) end
  end
  return total, info
end

-- Forward, backward, update. A loss or gradient that is not finite stops training before the update, so the
-- weights are those of the last good step.
local function update(o, optimiser, loss, batches, state, refuse)
  local first, info
  local function closure()
    local value
    value, info = evaluate(o, loss, batches, state.sums, refuse)
    if first == nil and not finite(value) then refuse(("the loss is %s"):format(value ~= value and "nan" or value)) end
    first = first or value
    return value
  end
  if optimiser.closure then
    optimiser:step(closure)
    return first, info
  end
  closure()
  attempt(refuse, function()
    if o.clip then gq.optim.clip_grad_norm(optimiser.params, o.clip) end
    optimiser:step()
  end)
  return first, info
end

-- The loss, or where there are several their sum and a list of them; the info of the last one.
local function train_step(o, state, batches)
  local all, info, each = 0, nil, {}
  for i, stepper in ipairs(o.steppers) do
    each[i], info = update(o, stepper.optimiser, stepper.loss, batches, state, function(why)
      fail(("gq.train: epoch %d, step %d%s: %s; the weights are those before this step%s: lower the learning rate, " ..
        "clip gradients, or loosen the solver's tolerances"):format(state.epoch, state.step + 1,
        #o.steppers > 1 and (", loss %d"):format(i) or "", why,
        i > 1 and (" but for what optimiser %s did"):format(i == 2 and "1" or "1 to " .. i - 1) or ""))
    end)
    all = all + each[i]
  end
  if o.schedule then o.schedule:step() end
  if o.ema then o.ema:update() end
  return all, info, #each > 1 and each or nil
end

-- ---- where training is ----

local function fresh_sums() return { steps = 0, loss = 0, seconds = 0 } end

-- epoch: the one under way; batch: its batches done; step: all steps so far
local function fresh_state() return { epoch = 0, batch = 0, step = 0, sums = fresh_sums(), rows = {} } end

local function add(sums, value, each, seconds)
  sums.steps = sums.steps + 1
  sums.loss = sums.loss + value
  sums.seconds = sums.seconds + seconds
  for i, one in ipairs(each or {}) do
    local key = ("loss_%d"):format(i)
    sums[key] = (sums[key] or 0) + one
  end
end

local function save(o, saving, state)
  if not saving then return end
  gq.checkpoint.save(saving.path, { model = o.model, optimiser = o.optimiser, schedule = o.schedule, ema = o.ema,
    epoch = state.epoch, extra = gq.core.plain(state) })
end

local function exists(path)
  local f = io.open(path, "rb")
  if f then f:close() end
  return f ~= nil
end

local function is_state(s)
  if type(s) ~= "table" or type(s.sums) ~= "table" or type(s.rows) ~= "table" then return false end
  for _, v in next, s.sums do
    if type(v) ~= "number" then return false end
  end
  return math.type(s.epoch) == "integer" and math.type(s.batch) == "integer" and math.type(s.step) == "integer" and
    s.sums.steps ~= nil and s.sums.loss ~= nil and s.sums.seconds ~= nil and
    (s.began == nil or core.rng_of(s.began) ~= nil)
end

local function restore(o, saving)
  if o.resume and not saving then
    fail("gq.train: resume = true needs a checkpoint, the path to continue from")
  end
  if not (o.resume and saving and exists(saving.path)) then return fresh_state() end
  local state = gq.checkpoint.load(saving.path).extra          -- looked at before anything is put back
  if not is_state(state) then fail(("gq.train: %s is no checkpoint of gq.train"):format(saving.path)) end
  gq.checkpoint.load(saving.path, { model = o.model, optimiser = o.optimiser, schedule = o.schedule, ema = o.ema,
    rng = true })
  return state
end

-- f(...) with the averages as weights, where there are such.
local function averaged(o, f, ...)
  if o.ema then return o.ema:with(f, ...) end
  return f(...)
end

-- ---- the best epoch ----

local function best_path(saving) return saving and saving.path:gsub("%.safetensors$", "") .. "-best.safetensors" end

-- The monitored figure of a row: its name and value; nil where the row has none.
local function figure_of(o, row, name)
  local key = o.monitor or row["test_" .. name] ~= nil and "test_" .. name or "train_" .. name
  local value = row[key]
  if value == nil and row.epoch > 0 then
    local names = {}
    for k, v in next, row do
      if type(v) == "number" then names[#names + 1] = k end
    end
    table.sort(names)
    fail(("gq.train: monitor: no figure of the rows is called '%s' (they have %s)"):format(key,
      table.concat(names, ", ")))
  end
  if gq.is_tensor(value) and value:numel() == 1 then value = value:item() end
  if value ~= nil and type(value) ~= "number" then
    fail(("gq.train: monitor: %s is to be a number, got %s"):format(key, describe(value)))
  end
  return key, value
end

local function is_better(o, key, value, best)
  if best == nil then return true end
  local mode = o.mode or key:find("accuracy", 1, true) and "max" or "min"
  if mode == "max" then return value > best end
  return value < best
end

local function keep_weights(o, row, saving)
  o.best = {}
  for k, t in next, o.model:state_dict() do o.best[k] = t:detach():clone() end
  if saving then gq.checkpoint.save(best_path(saving), { model = o.model, epoch = row.epoch }) end
end

-- Is there anything that asks for the best epoch?
local function judges(o) return o.patience or o.keep_best or o.schedule and o.schedule.observe end

-- Keep weights and figure of the best epoch; true: there was no better one for too long.
local function judge(o, state, row, name, saving)
  if not judges(o) then return false end
  local key, value = figure_of(o, row, name)
  if value == nil then return false end
  if o.schedule and o.schedule.observe then o.schedule:observe(value) end
  if is_better(o, key, value, state.best and state.best.value) and finite(value) then
    state.best = { epoch = row.epoch, value = value }
    if o.keep_best then averaged(o, keep_weights, o, row, saving) end
  end
  return o.patience ~= nil and row.epoch - (state.best and state.best.epoch or 0) >= o.patience
end

-- The best weights into the model; those of an earlier run are in the file.
local function take_best(o, state, saving)
  if not (o.keep_best and state.best) then return end
  if o.best == nil and saving then o.best = gq.checkpoint.load(best_path(saving)).model end
  if o.best then o.model:load_state_dict(o.best) end
end

-- ---- epochs ----

local function row_of(o, state, name)
  local sums, row = state.sums, { epoch = state.epoch }
  if sums.steps > 0 then
    row["train_" .. name] = sums.loss / sums.steps
    for i = 1, #o.steppers > 1 and #o.steppers or 0 do
      row[("train_%s_%d"):format(name, i)] = sums["loss_" .. i] / sums.steps
    end
    row.seconds = sums.seconds
    for _, key in ipairs(counts) do row[key] = sums[key] and sums[key] / sums.steps end
  end
  return row
end

local function validate(o, row)
  if not o.validate then return end
  o.model:eval()
  local figures = averaged(o, gq.no_grad, o.validate, o.model, row.epoch)
  o.model:train()
  if figures ~= nil and type(figures) ~= "table" then
    fail(("gq.train: validate returns a table of figures, as {accuracy = 0.9}; got %s"):format(describe(figures)))
  end
  for k, v in next, figures or {} do
    if type(k) ~= "string" or k == "epoch" then
      fail(("gq.train: validate: figures by name expected, as {accuracy = 0.9}, the epoch is told anyway; got one " ..
        "called %s"):format(describe(k)))
    end
    row[k] = v
  end
end

local QUIET <const> = 30             -- seconds between lines where there is no terminal to draw a bar on

-- A line of the row.
local function tell(o, state, row)
  local now = gq.clock()
  o.told = o.told or now
  if o.progress == false or o.on_epoch or gq.isatty(2) or now - o.told < QUIET then return end
  o.told = now
  io.stderr:write(("%s of %d, step %d\n"):format(gq.epoch_line(row), o.epochs, state.step))
end

local function publish(o, state, row, bar)
  state.rows[#state.rows + 1] = row
  tell(o, state, row)
  if bar then bar:clear() end
  for _, log in ipairs(o.logger) do log(row) end
  if o.on_epoch then o.on_epoch(row, bar) end
end

-- Up to k batches, with the part that each has in their rows; nil: there is none left.
local function fetch(iterator, s, control, k)
  local batches, rows = {}, 0
  repeat
    local batch = table.pack(iterator(s, control))
    control = batch[1]
    if control == nil then break end
    batch.share = rows_of(batch[1])
    batches[#batches + 1], rows = batch, rows + batch.share
  until #batches == k
  for _, batch in ipairs(batches) do batch.share = batch.share / rows end
  return batches[1] and batches, control
end

-- The rest of the epoch that state is in; false when the limit of steps is reached. Batches that were done before a
-- checkpoint are drawn again, from the generator as it was then, and passed over.
local function run_epoch(o, state, data, saving, bar)
  local now = state.batch > 0 and core.rng_text()
  if now and state.began then gq.set_rng_state(core.rng_of(state.began)) end
  state.began = core.rng_text()
  local iterator, s, control, _ <close> = data(state.epoch)
  if not core.is_callable(iterator) then
    fail(("gq.train: data: a function of the epoch that returns an iterator expected, as function(epoch) return " ..
      "gq.data.batches(set, {batch_size = 32}) end; it returned %s"):format(describe(iterator)))
  end
  local done = 0
  repeat
    if now and done >= state.batch then now = gq.set_rng_state(core.rng_of(now)) end
    local enough = o.steps and state.step >= o.steps and core.rng_text()
    local batches
    batches, control = fetch(iterator, s, control, o.accumulate)
    if not batches then break end
    done = done + #batches
    if done > state.batch then
      if enough then                                    -- as before this batch was drawn
        gq.set_rng_state(core.rng_of(enough))
        return false
      end
      local started = gq.clock()
      local value, info, each = train_step(o, state, batches)
      add(state.sums, value, each, gq.clock() - started)
      state.batch, state.step = done, state.step + 1
      if o.on_step then o.on_step(state.step, value, info) end
      if saving and saving.every and state.step % saving.every == 0 then save(o, saving, state) end
      if bar then bar:update(state.step, ("epoch %d  %s %.4g"):format(state.epoch, o.name or "loss", value)) end
    end
  until control == nil
  if done == 0 then
    fail(("gq.train: data: no batch in epoch %d: return a new iterator for each epoch, as function(epoch) return " ..
      "gq.data.batches(set, {batch_size = 32}) end"):format(state.epoch))
  end
  return true
end

-- Options, of which epochs alone may not be left out.
local kinds = { epochs = "integer", batch_size = "count", shuffle = "boolean", seed = "integer", validate = "callable",
  name = "string", checkpoint = "string|table", resume = "boolean", progress = "boolean", on_epoch = "callable",
  on_step = "callable", clip = "positive", steps = "integer", monitor = "string", patience = "count",
  keep_best = "boolean", accumulate = "count" }

local function loggers(given)
  if given == nil then return {} end
  local list = (core.is_callable(given) or type(given) ~= "table") and { given } or given
  for key, log in next, list do
    if math.type(key) ~= "integer" or not core.is_callable(log) then
      fail(("gq.train: logger: a function of the row, as gq.logger.csv(path) or gq.logger.jsonl(path), or a list of " ..
        "such expected, got %s"):format(describe(log)))
    end
  end
  return list
end

-- Who steps on which loss, in turn.
local function steppers(o)
  local parts, list = o.optimiser.parts, {}
  if core.is_callable(o.loss) then
    if parts and o.optimiser.shared then
      fail(("gq.train: optimiser: a parameter is in the numbers %d and %d of the list: give each a loss of its own, " ..
        "loss = {f, g}"):format(table.unpack(o.optimiser.shared)))
    end
    list[1] = { optimiser = o.optimiser, loss = o.loss }
  else
    if not parts or #o.loss ~= #parts then
      fail(("gq.train: loss: a list of %d functions and %s: one each expected"):format(#o.loss,
        parts and ("a list of %d optimisers"):format(#parts) or "one optimiser"))
    end
    for i, part in ipairs(parts) do
      if not core.is_callable(o.loss[i]) then
        fail(("gq.train: loss: number %d of the list: a function expected, got %s"):format(i, describe(o.loss[i])))
      end
      list[i] = { optimiser = part, loss = o.loss[i] }
    end
  end
  for _, part in ipairs(parts or { o.optimiser }) do
    if part.closure and o.clip then
      fail("gq.train: clip: L-BFGS searches along the gradient as it is: leave clip out, or lower lr")
    elseif part.closure and parts and #list == 1 then
      fail("gq.train: L-BFGS in a list computes the loss by itself: give each optimiser its loss, loss = {f, f}")
    end
  end
  return list
end

-- What steps: o[key] or each of its list, which is not the other kind.
local function steps_of(o, key, kind, other)
  o[key] = core.together(o[key], "gq.train: " .. key, kind)
  for _, part in ipairs(type(o[key]) == "table" and o[key].parts or { o[key] or false }) do
    local steps = type(part) == "table" and part.step
    local is_optimiser = steps and part.zero_grad ~= nil
    if not steps or is_optimiser ~= (key == "optimiser") then
      fail(("gq.train: %s: %s expected, got %s"):format(key, kind, steps and "what belongs to " .. other or
        describe(part or nil)))
    end
  end
end

local function prepare(given)
  local o = {}
  for k, v in next, options(given, known, what) do o[k] = v end
  need(o, "loss", "callable|table", nil, what)
  for key, kind in next, kinds do
    if o[key] ~= nil or key == "epochs" then need(o, key, kind, nil, what) end
  end
  for _, key in ipairs { "epochs", "steps" } do
    if o[key] and o[key] < 0 then fail(("gq.train: %s: at least 0 expected, got %s"):format(key, o[key])) end
  end
  expect(type(o.model) == "table" and o.model.state_dict, "gq.train", "model: a module", o.model)
  steps_of(o, "optimiser", "one of gq.optim", "schedule")
  if o.schedule ~= nil then steps_of(o, "schedule", "one of gq.optim.schedule", "optimiser") end
  for _, part in ipairs(o.schedule and (o.schedule.parts or { o.schedule }) or {}) do
    local whose, own = rawget(part, "optimiser"), false
    for _, optimiser in ipairs(o.optimiser.parts or { o.optimiser }) do own = own or whose == optimiser end
    if whose and not own then fail("gq.train: schedule: it is of another optimiser than those that are given") end
  end
  if o.ema ~= nil then core.check_ema(o.ema, what) end
  o.accumulate = o.accumulate or 1
  o.steppers = steppers(o)
  if o.mode ~= nil then core.one_of(o, "mode", { "min", "max" }, what) end
  for _, key in ipairs { "monitor", "mode" } do
    if o[key] ~= nil and not judges(o) then
      fail(("gq.train: %s is for patience, keep_best or a plateau schedule: give one of them, or leave it out"):format(
        key))
    end
  end
  o.logger = loggers(o.logger)
  return o
end

-- Steps an epoch, for the bar: counted where the data is a set.
local function count_steps(o)
  if type(o.data) ~= "table" then return nil end
  local n = rows_of(o.data.x)
  return math.ceil(math.ceil(n / (o.batch_size or n)) / o.accumulate)
end

local function make_bar(o, state)
  local steps = count_steps(o)
  if o.progress == false or not steps then return nil end
  return gq.progress(steps * o.epochs, { desc = "training", at = state.step })
end

local function train(given)
  local o = prepare(given)
  local batches, saving, name = iterator_of(o), checkpoint_of(o), o.name or "loss"
  local state = restore(o, saving)
  for _, log in ipairs(o.resume and o.logger or {}) do          -- rows of what is done again
    if type(log) == "table" and log.rewind then log:rewind(state.epoch) end
  end
  local bar = make_bar(o, state)
  o.model:train()
  if state.epoch == 0 then
    local row = row_of(o, state, name)
    validate(o, row)
    publish(o, state, row, bar)
    judge(o, state, row, name, saving)
    state.epoch = 1
    save(o, saving, state)
  end
  while state.epoch <= o.epochs and not state.stopped do
    local whole = run_epoch(o, state, batches, saving, bar)
    if not whole and state.batch == 0 then break end
    if not whole then save(o, saving, state) end                  -- without the row below: it is made anew
    local row = row_of(o, state, name)
    validate(o, row)
    publish(o, state, row, bar)
    if not whole then break end
    state.stopped = judge(o, state, row, name, saving)
    state.epoch, state.batch, state.sums = state.epoch + 1, 0, fresh_sums()
    save(o, saving, state)
  end
  if bar then bar:close() end
  take_best(o, state, saving)
  return state.rows, state
end

gq.docs[train] = [[
gq.train{ model, loss, optimiser, data, epochs, ... } -> rows, state: the training loop; a row of figures an epoch
model: a module; loss: loss(model, x, y) -> a tensor of one number [, info of odeint, whose counts are averaged]
optimiser: one of gq.optim, L-BFGS too (with the whole set as one batch), or a list, which all step on the loss;
  where loss is a list as well, each steps on its own loss, in turn: the rows have train_loss_1, ... and their sum
accumulate: 1: so many batches make a step, by the gradient of one batch of all their rows
ema: a gq.optim.ema, updated after each step; validate and keep_best see its averages as the weights; ema:swap() puts
  them in at the end
data: a set {x =, y =}, or data(epoch) -> an iterator over x, y
epochs: the last one; 0 is before training; steps: stop after so many in all, with a row of the epoch that this cuts off
  and a checkpoint
batch_size: all of the set; shuffle: true; augment: none, {flip, crop}; seed: 0: of a set's batches alone
validate: validate(model, epoch) -> {test_loss = ...}, in eval mode and without recording; name: "loss", of train_<name>
logger: gq.logger.csv(path), gq.logger.jsonl(path), or a list of such; on_epoch(row, bar), on_step(step, loss, info)
checkpoint: a path, or {path =, every = steps}; resume: true goes on from it, to the same bytes
clip: largest norm of the gradient; schedule: one of gq.optim.schedule, or a list
monitor: the figure that tells which epoch is best, "test_<name>" by default; mode: "min", "max" of an accuracy
patience: stop after so many epochs without a better one; keep_best: true ends with the weights of the best one
progress: true, a bar on stderr with rate and time left; elsewhere a line each half minute where no on_epoch tells
A loss or gradient that is not finite ends the training, with the weights before that step]]
return train
