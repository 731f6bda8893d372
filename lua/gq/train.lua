-- train.lua -- gq.train{...}: the loop that most scripts need. Give it a model, a loss, an optimiser and data;
-- it steps, refuses non-finite steps, validates, logs, saves and resumes.
--
--   model      a module (put in training mode, saved in checkpoints)
--   loss       loss(model, x, y) -> scalar tensor [, info of odeint, whose counts are averaged]
--   optimiser
--   data       data(epoch) -> iterator over x, y ...; or a set {x, y} with batch_size, shuffle and seed
--   epochs     last epoch; epoch 0 is the state before training
--   validate   validate(model, epoch) -> table of figures, in eval mode and without recording
--   name       what the loss is called in the rows: train_<name>, "loss" by default
--   logger     called with each row; a list of such
--   checkpoint path, or {path =, every = steps between saves; after each epoch without it}
--   resume     true: continue from the checkpoint if there is one
--   progress   true (default): a bar on stderr, where that is a terminal
--   on_epoch   on_epoch(row, bar): after each row
--   clip, schedule, steps (stop after so many in all)
--
-- Returns the rows: {epoch, train_<name>, seconds, nfe, nfe_backward, nodes, ... validate's figures}.

local gq = ...
local core = gq.core
local options, need, describe, fail = core.options, core.need, core.describe, core.fail

local known = "model loss optimiser data batch_size shuffle seed epochs validate name logger checkpoint resume " ..
  "progress on_epoch clip schedule steps"
local what = "gq.train"

-- Counts of info that the rows average over the steps.
local counts = { "nfe", "nfe_backward", "nodes" }

local function iterator_of(o)
  if type(o.data) == "function" then return o.data end
  if type(o.data) ~= "table" or o.data.x == nil then
    fail(("gq.train: data: a set {x = ..., y = ...} or a function of the epoch expected, got %s"):format(
      type(o.data) == "table" and "a table without x" or describe(o.data)))
  end
  local seed = need(o, "seed", "integer", 0, what)
  return function(epoch)
    return gq.data.batches(o.data, { batch_size = o.batch_size, shuffle = o.shuffle ~= false,
      seed = gq.split_seed(seed, "epoch", epoch) })
  end
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

local function finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

-- Forward, backward, update. A loss or gradient that is not finite stops training before the update, so the
-- weights are those of the last good step.
local function train_step(o, state, batch)
  o.optimiser:zero_grad()
  local loss, info = o.loss(o.model, table.unpack(batch, 1, batch.n))
  if not gq.is_tensor(loss) or loss:numel() ~= 1 then
    error(("gq.train: the loss is a tensor of one number, got %s"):format(describe(loss)), 0)
  end
  local value = loss:item()
  local function refuse(why)
    error(("gq.train: epoch %d, step %d: %s; the weights are those before this step: lower the learning rate, clip " ..
      "gradients, or loosen the solver's tolerances"):format(state.epoch, state.step + 1, why), 0)
  end
  if not finite(value) then refuse(("the loss is %g"):format(value)) end
  loss:backward()
  local ok, problem = pcall(function()
    if o.clip then gq.optim.clip_grad_norm(o.optimiser.params, o.clip) end
    o.optimiser:step()
  end)
  if not ok then refuse(tostring(problem)) end
  if o.schedule then o.schedule:step() end
  return value, info
end

-- ---- where training is ----

local function fresh_sums() return { steps = 0, loss = 0, seconds = 0 } end

-- epoch: the one under way; batch: its batches done; step: all steps so far
local function fresh_state() return { epoch = 0, batch = 0, step = 0, sums = fresh_sums(), rows = {} } end

local function add(sums, value, info, seconds)
  sums.steps = sums.steps + 1
  sums.loss = sums.loss + value
  sums.seconds = sums.seconds + seconds
  if info then
    for _, key in ipairs(counts) do sums[key] = (sums[key] or 0) + (info[key] or 0) end
  end
end

local function save(o, saving, state)
  if not saving then return end
  gq.checkpoint.save(saving.path, { model = o.model, optimiser = o.optimiser, schedule = o.schedule,
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
    s.sums.steps ~= nil and s.sums.loss ~= nil and s.sums.seconds ~= nil
end

local function restore(o, saving)
  if o.resume and not saving then
    fail("gq.train: resume = true needs a checkpoint, the path to continue from")
  end
  if not (o.resume and saving and exists(saving.path)) then return fresh_state() end
  local state = gq.checkpoint.load(saving.path).extra          -- looked at before anything is put back
  if not is_state(state) then fail(("gq.train: %s is no checkpoint of gq.train"):format(saving.path)) end
  gq.checkpoint.load(saving.path, { model = o.model, optimiser = o.optimiser, schedule = o.schedule, rng = true })
  return state
end

-- ---- epochs ----

local function row_of(o, state, name)
  local sums, row = state.sums, { epoch = state.epoch }
  if sums.steps > 0 then
    row["train_" .. name] = sums.loss / sums.steps
    row.seconds = sums.seconds
    for _, key in ipairs(counts) do row[key] = sums[key] and sums[key] / sums.steps end
  end
  return row
end

local function validate(o, row)
  if not o.validate then return end
  o.model:eval()
  local figures = gq.no_grad(o.validate, o.model, row.epoch)
  o.model:train()
  if figures ~= nil and type(figures) ~= "table" then
    fail(("gq.train: validate returns a table of figures, as {accuracy = 0.9}; got %s"):format(describe(figures)))
  end
  for k, v in next, figures or {} do row[k] = v end
end

local function publish(o, state, row, bar)
  state.rows[#state.rows + 1] = row
  if bar then bar:clear() end
  for _, log in ipairs(o.logger) do log(row) end
  if o.on_epoch then o.on_epoch(row, bar) end
end

-- The rest of the epoch that state is in; false when the limit of steps is reached.
local function run_epoch(o, state, batches, saving, bar)
  local iterator, s, control = batches(state.epoch)
  local done = 0
  while true do
    local batch = table.pack(iterator(s, control))
    control = batch[1]
    if control == nil then return true end
    done = done + 1
    if done > state.batch then                    -- earlier ones were done before the checkpoint
      if o.steps and state.step >= o.steps then return false end
      local started = gq.clock()
      local value, info = train_step(o, state, batch)
      add(state.sums, value, info, gq.clock() - started)
      state.batch, state.step = done, state.step + 1
      if saving and saving.every and state.step % saving.every == 0 then save(o, saving, state) end
      if bar then bar:update(state.step, ("epoch %d  %s %.4g"):format(state.epoch, o.name or "loss", value)) end
    end
  end
end

-- Options that may be left out, and what they are otherwise.
local kinds = { batch_size = "count", shuffle = "boolean", seed = "integer", validate = "callable", name = "string",
  checkpoint = "string|table", resume = "boolean", progress = "boolean", on_epoch = "callable", clip = "positive",
  steps = "integer" }

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

local function prepare(given)
  local o = {}
  for k, v in next, options(given, known, what) do o[k] = v end
  need(o, "loss", "callable", nil, what)
  need(o, "epochs", "integer", nil, what)
  for key, kind in next, kinds do
    if o[key] ~= nil then need(o, key, kind, nil, what) end
  end
  if type(o.model) ~= "table" or not o.model.state_dict then
    fail(("gq.train: model: a module expected, got %s"):format(describe(o.model)))
  end
  if type(o.optimiser) ~= "table" or not o.optimiser.step then
    fail(("gq.train: optimiser: one of gq.optim expected, got %s"):format(describe(o.optimiser)))
  end
  if o.schedule ~= nil and (type(o.schedule) ~= "table" or not o.schedule.step) then
    fail(("gq.train: schedule: one of gq.optim.schedule expected, got %s"):format(describe(o.schedule)))
  end
  o.logger = loggers(o.logger)
  return o
end

-- Steps an epoch, for the bar: counted where the data is a set.
local function count_steps(o)
  if type(o.data) ~= "table" then return nil end
  local x = o.data.x
  while type(x) == "table" do x = select(2, next(x)) end
  return math.ceil(x.shape[1] / math.min(o.batch_size or x.shape[1], x.shape[1]))
end

local function make_bar(o, state)
  local steps = count_steps(o)
  if o.progress == false or not steps then return nil end
  local bar = gq.progress(steps * o.epochs, { desc = "training" })
  bar.at = state.step
  return bar
end

local function train(given)
  local o = prepare(given)
  local batches, saving, name = iterator_of(o), checkpoint_of(o), o.name or "loss"
  local state = restore(o, saving)
  local bar = make_bar(o, state)
  o.model:train()
  if state.epoch == 0 then
    local row = row_of(o, state, name)
    validate(o, row)
    publish(o, state, row, bar)
    state.epoch = 1
    save(o, saving, state)
  end
  while state.epoch <= o.epochs do
    if not run_epoch(o, state, batches, saving, bar) then break end
    local row = row_of(o, state, name)
    validate(o, row)
    publish(o, state, row, bar)
    state.epoch, state.batch, state.sums = state.epoch + 1, 0, fresh_sums()
    save(o, saving, state)
  end
  if bar then bar:close() end
  return state.rows, state
end

gq.docs[train] = "gq.train{ model, loss, optimiser, data, batch_size, epochs, validate, logger, checkpoint, resume, " ..
  "progress ... }: the training loop; returns a row of figures for each epoch"
return train
