-- optim.lua -- optimisers over a list of parameters, and schedules of their learning rate. The update
-- itself, one fused loop over flat blocks, is gq.optimiser's; this gives it PyTorch's manners.

local gq = ...
local options, need, describe, one_of, fail = gq.core.options, gq.core.need, gq.core.describe, gq.core.one_of,
  gq.core.fail
local optim = {}

-- ---- optimisers ----

local Optimiser = {}

-- opt.lr and the other settings can be read and assigned between steps.
local meta = {
  __index = function(self, key)
    local method = Optimiser[key]
    if method ~= nil then return method end
    if rawget(self, "_settings")[key] then return rawget(self, "_core"):get(key) end
  end,
  __newindex = function(self, key, value)
    self._core:set(key, value)
  end,
  __tostring = function(self) return tostring(self._core) end,
  __len = function(self) return #self._core end,
}

local function check_params(params, what)
  if type(params) ~= "table" then
    error(("%s: a list of parameters expected, as from net:parameters(); got %s"):format(what, describe(params)), 3)
  end
  if gq.core.is_module(params) then
    error(("%s: a module given: pass its parameters, net:parameters()"):format(what), 3)
  end
  if #params == 0 then error(what .. ": the list of parameters is empty", 3) end
  for i, p in ipairs(params) do
    if not gq.is_tensor(p) or not p.requires_grad or not p.is_leaf then
      error(("%s: parameter %d: a leaf tensor that requires a gradient expected, got %s"):format(what, i,
        describe(p)), 3)
    end
  end
end

local function maker(kind)
  local what = "gq.optim." .. kind
  return function(params, config)
    check_params(params, what)
    local core = gq.optimiser(kind, params, config)
    local known = {}
    for key in next, core:settings() do known[key] = true end
    return setmetatable({ _core = core, _settings = known, params = params }, meta)
  end
end

local docs = {
  adam = "gq.optim.adam(params, {lr = 1e-3, betas = {0.9, 0.999}, eps = 1e-8, weight_decay = 0}): Kingma & Ba",
  adamw = "gq.optim.adamw(params, {lr, betas, eps, weight_decay = 1e-2}): Adam with decoupled weight decay",
  sgd = "gq.optim.sgd(params, {lr, momentum, dampening, nesterov, weight_decay}): gradient descent",
  rmsprop = "gq.optim.rmsprop(params, {lr, alpha, eps, momentum, centered, weight_decay}): RMSProp",
}
for kind, doc in next, docs do
  optim[kind] = maker(kind)
  gq.docs[optim[kind]] = doc
end

-- One update. Refused, with nothing changed, when a gradient is not finite.
function Optimiser:step() self._core:step() end
function Optimiser:zero_grad() self._core:zero_grad() end
function Optimiser:steps() return self._core:steps() end
function Optimiser:settings() return self._core:settings() end
function Optimiser:get(key) return self._core:get(key) end
function Optimiser:set(key, value) self._core:set(key, value) end
function Optimiser:kind() return self._core:kind() end

-- A snapshot: kind, settings, steps in all and of each parameter, moments (copies) of each parameter.
function Optimiser:state_dict()
  local core, steps, state = self._core, {}, {}
  for i = 1, #core do
    steps[i], state[i] = core:steps(i), {}
    for k = 1, 3 do
      local m = core:state(i, k)
      state[i][k] = m and m:clone() or false
    end
  end
  return { kind = core:kind(), settings = core:settings(), total = core:steps(), steps = steps, state = state }
end

local function is_count(v) return type(v) == "number" and v >= 0 and math.tointeger(v) ~= nil end

local function check_steps(core, t)
  if not is_count(t.total) then return "total is a number of steps, got " .. describe(t.total) end
  if #t.steps ~= #core or #t.state ~= #core then
    return ("the state has %d parameters, this has %d"):format(#t.steps, #core)
  end
  for i = 1, #core do
    if not is_count(t.steps[i]) then
      return ("steps of parameter %d: a number of steps expected, got %s"):format(i, describe(t.steps[i]))
    end
  end
end

local function check_moments(core, t)
  for i = 1, #core do
    if type(t.state[i]) ~= "table" then
      return ("moments of parameter %d: a table expected, got %s"):format(i, describe(t.state[i]))
    end
    for k = 1, 3 do
      local own, given = core:state(i, k), t.state[i][k]
      if own and not (gq.is_tensor(given) and table.concat(given.shape, ",") == table.concat(own.shape, ",")) then
        return ("moment %d of parameter %d: %s expected, got %s"):format(k, i, describe(own), describe(given))
      end
    end
  end
end

-- Settings have ranges, and go together: they are tried, and taken back.
local function check_settings(core, settings)
  local before = core:settings()
  local ok, problem = pcall(core.configure, core, settings)
  core:configure(before)
  return not ok and problem or nil
end

-- What is wrong with a state for this optimiser; nil: it fits.
function Optimiser:check_state_dict(t)
  local core = self._core
  if type(t) ~= "table" or type(t.steps) ~= "table" or type(t.state) ~= "table" or type(t.settings) ~= "table" then
    return "the table of a state_dict() expected, got " .. describe(t)
  end
  if t.kind ~= core:kind() then return ("the state is of %s, this is %s"):format(tostring(t.kind), core:kind()) end
  return check_steps(core, t) or check_moments(core, t) or check_settings(core, t.settings)
end

function Optimiser:load_state_dict(t)
  local core, problem = self._core, self:check_state_dict(t)
  if problem then error("load_state_dict: " .. problem, 2) end
  core:configure(t.settings)
  core:set_steps(math.tointeger(t.total))
  for i = 1, #core do
    core:set_steps(math.tointeger(t.steps[i]), i)
    for k = 1, 3 do
      local own = core:state(i, k)
      if own then own:copy_(t.state[i][k]) end
    end
  end
end

-- Scales all gradients so that their joint 2-norm is at most max; returns what it was.
function optim.clip_grad_norm(params, max)
  check_params(params, "gq.optim.clip_grad_norm")
  return gq.clip_grad_norm(params, max)
end
gq.docs[optim.clip_grad_norm] = "gq.optim.clip_grad_norm(params, max): scale the gradients to a joint norm of at " ..
  "most max; returns the norm they had"

-- ---- schedules: the learning rate as a function of the number of steps ----

local Schedule = {}
Schedule.__index = Schedule

-- Call after each step of the optimiser, or once an epoch: sets the learning rate for the next.
function Schedule:step()
  self.count = self.count + 1
  self.optimiser.lr = self.base * self.factor(self.count)
end
function Schedule:state_dict() return { count = self.count, base = self.base } end
function Schedule:check_state_dict(t)
  if type(t) ~= "table" or not is_count(t.count) or type(t.base) ~= "number" then
    return "the state of a schedule is {count, base}, a number of steps and a learning rate"
  end
  return check_settings(self.optimiser._core, { lr = t.base * self.factor(math.tointeger(t.count)) })
end
function Schedule:load_state_dict(t)
  local problem = self:check_state_dict(t)
  if problem then error("load_state_dict: " .. problem, 2) end
  self.count, self.base = math.tointeger(t.count), t.base
  self.optimiser.lr = self.base * self.factor(self.count)
end

local function schedule(optimiser, factor, what)
  if getmetatable(optimiser) ~= meta then
    error(("%s: an optimiser expected, got %s"):format(what, describe(optimiser)), 3)
  end
  local s = setmetatable({ optimiser = optimiser, factor = factor, base = optimiser.lr, count = 0 }, Schedule)
  optimiser.lr = s.base * factor(0)
  return s
end

-- ---- plateau: the learning rate by what a figure does ----

local Plateau = {}
Plateau.__index = Plateau

function Plateau:step() end                            -- steps alone tell nothing

-- The figure after an epoch: times factor where it has not become better for so many of them.
function Plateau:observe(value)
  if value ~= value then return end
  local best = self.best
  if best == nil or self.mode == "min" and value < best or self.mode == "max" and value > best then
    self.best, self.bad = value, 0
    return
  end
  self.bad = self.bad + 1
  if self.bad > self.patience then
    self.optimiser.lr = math.max(self.optimiser.lr * self.factor, math.min(self.least, self.optimiser.lr))
    self.bad = 0
  end
end
function Plateau:state_dict() return { best = self.best, bad = self.bad, lr = self.optimiser.lr } end
function Plateau:check_state_dict(t)
  if type(t) ~= "table" or not is_count(t.bad) or type(t.lr) ~= "number" then
    return "the state of a plateau schedule is {best, bad, lr}"
  end
  return check_settings(self.optimiser._core, { lr = t.lr })
end
function Plateau:load_state_dict(t)
  local problem = self:check_state_dict(t)
  if problem then error("load_state_dict: " .. problem, 2) end
  self.best, self.bad, self.optimiser.lr = type(t.best) == "number" and t.best or nil, math.tointeger(t.bad), t.lr
end

optim.schedule = {}
local function define(name, f, doc)
  optim.schedule[name] = f
  gq.docs[f] = doc
end

define("constant", function(optimiser)
  return schedule(optimiser, function() return 1 end, "gq.optim.schedule.constant")
end, "gq.optim.schedule.constant(optimiser): the learning rate as it is")

define("step", function(optimiser, opts)
  local what = "gq.optim.schedule.step"
  local o = options(opts, "every gamma", what)
  local every, gamma = need(o, "every", "count", nil, what), need(o, "gamma", "number", 0.1, what)
  return schedule(optimiser, function(n) return gamma ^ (n // every) end, what)
end, "gq.optim.schedule.step(optimiser, {every, gamma = 0.1}): times gamma after every so many steps")

define("exponential", function(optimiser, opts)
  local what = "gq.optim.schedule.exponential"
  local gamma = need(options(opts, "gamma", what), "gamma", "number", nil, what)
  return schedule(optimiser, function(n) return gamma ^ n end, what)
end, "gq.optim.schedule.exponential(optimiser, {gamma}): times gamma at each step")

define("cosine", function(optimiser, opts)
  local what = "gq.optim.schedule.cosine"
  local o = options(opts, "steps warmup last", what)
  local steps, last = need(o, "steps", "count", nil, what), need(o, "last", "number", 0, what)
  local warmup = need(o, "warmup", "integer", 0, what)
  return schedule(optimiser, function(n)
    if n < warmup then return (n + 1) / warmup end
    local x = math.min((n - warmup) / math.max(steps - warmup, 1), 1)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * x))
  end, what)
end, "gq.optim.schedule.cosine(optimiser, {steps, warmup = 0, last = 0}): linear warm-up, then half a cosine down " ..
  "to `last` times the learning rate")

define("linear", function(optimiser, opts)
  local what = "gq.optim.schedule.linear"
  local o = options(opts, "steps first last", what)
  local steps = need(o, "steps", "count", nil, what)
  local first, last = need(o, "first", "number", 1, what), need(o, "last", "number", 0, what)
  return schedule(optimiser, function(n) return first + (last - first) * math.min(n / steps, 1) end, what)
end, "gq.optim.schedule.linear(optimiser, {steps, first = 1, last = 0}): from first to last times the learning rate")

define("plateau", function(optimiser, opts)
  local what = "gq.optim.schedule.plateau"
  local o = options(opts, "factor patience mode least", what)
  if getmetatable(optimiser) ~= meta then
    error(("%s: an optimiser expected, got %s"):format(what, describe(optimiser)), 2)
  end
  local factor = need(o, "factor", "positive", 0.5, what)
  if factor >= 1 then fail(("%s: option factor: a number below 1 expected, got %g"):format(what, factor)) end
  return setmetatable({ optimiser = optimiser, factor = factor, patience = need(o, "patience", "integer", 10, what),
    mode = one_of(o, "mode", { "min", "max" }, what), least = need(o, "least", "number", 0, what), bad = 0 }, Plateau)
end, [[
gq.optim.schedule.plateau(optimiser, {factor = 0.5, patience = 10, mode = "min" | "max", least = 0}): times factor where
  a figure has not become better for more than `patience` epochs, not below least; gq.train gives it its figure
  (monitor), other loops call schedule:observe(value) after each epoch
  gq.train{ ..., schedule = gq.optim.schedule.plateau(optimiser, {patience = 5}), monitor = "test_loss" }]])

define("lambda", function(optimiser, f)
  if type(f) ~= "function" then
    error(("gq.optim.schedule.lambda: a function of the step number expected, got %s"):format(describe(f)), 2)
  end
  return schedule(optimiser, f, "gq.optim.schedule.lambda")
end, "gq.optim.schedule.lambda(optimiser, f): times f(n) after n steps")

return optim
