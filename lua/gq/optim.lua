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

-- Those that train, or with `frozen` such that did and whose requires_grad is false now.
local function check_params(params, what, frozen)
  if type(params) ~= "table" then
    error(("%s: a list of parameters expected, as from net:parameters(); got %s"):format(what, describe(params)), 3)
  end
  if gq.core.is_module(params) then
    error(("%s: a module given: pass its parameters, net:parameters()"):format(what), 3)
  end
  if #params == 0 then error(what .. ": the list of parameters is empty", 3) end
  for i, p in ipairs(params) do
    if not gq.is_tensor(p) or not p.is_leaf or not p.requires_grad and not (frozen and p.dtype:find("^float")) then
      error(("%s: parameter %d: a leaf tensor with requires_grad = true expected, got %s"):format(what, i,
        describe(p)), 3)
    end
  end
  gq.core.check_current(params, what)
end

local grouped                                          -- below

local function maker(kind)
  local what = "gq.optim." .. kind
  local function make(params, config)
    check_params(params, what)
    local core = gq.optimiser(kind, params, config)
    local known = {}
    for key in next, core:settings() do known[key] = true end
    return setmetatable({ _core = core, _settings = known, params = params }, meta)
  end
  return function(params, config)
    local first = type(params) == "table" and rawget(params, 1)
    if type(first) ~= "table" or first.params == nil then return make(params, config) end
    return grouped(kind, params, config, make)
  end
end

-- ---- groups: parameters with settings of their own ----

-- Several optimisers of one kind as one. Its lr is that of the first group; set, the others keep their proportion.
local Groups = setmetatable({}, { __index = Optimiser })
local groups_meta = {
  __index = function(self, key)
    local method = Groups[key]
    if method ~= nil then return method end
    return rawget(self, "groups")[1][key]
  end,
  __newindex = function(self, key, value)
    for i, g in ipairs(self.groups) do g[key] = key == "lr" and value * self.ratio[i] or value end
  end,
  __tostring = function(self)
    local list = {}
    for i, g in ipairs(self.groups) do list[i] = tostring(g) end
    return table.concat(list, "\n")
  end,
  __len = function(self) return #self.params end,
}

local function is_optimiser(x)
  local m = getmetatable(x)
  return m == meta or m == groups_meta or type(x) == "table" and x.closure == true     -- L-BFGS
end

function grouped(kind, list, config, make)
  local what, groups, params, ratio, seen = "gq.optim." .. kind, {}, {}, {}, {}
  for i, g in ipairs(list) do
    local own = {}
    for k, v in next, config or {} do own[k] = v end
    for k, v in next, g do own[k] = k ~= "params" and v or nil end
    check_params(g.params, ("%s: group %d"):format(what, i))
    for _, p in ipairs(g.params) do
      if seen[p] then error(("%s: a parameter is in the groups %d and %d"):format(what, seen[p], i), 3) end
      seen[p], params[#params + 1] = i, p
    end
    groups[i] = make(g.params, own)
    ratio[i] = groups[1].lr ~= 0 and groups[i].lr / groups[1].lr or 1
  end
  return setmetatable({ groups = groups, params = params, ratio = ratio }, groups_meta)
end

-- PyTorch's step(closure) computes the gradients; lbfgs alone needs to.
local function no_closure(closure)
  if closure == nil then return end
  fail(("step: takes nothing, got %s: compute the gradients before it; gq.optim.lbfgs takes a function"):format(
    describe(closure)))
end

-- Nobody means a first step to which no gradient has come, unless all is frozen.
function gq.core.check_reached(reached, params)
  if reached then return end
  for _, p in ipairs(params) do reached = reached or p.requires_grad end
  if not reached then return end
  fail(("step: no gradient has come to any of the %d parameters of this optimiser: call loss:backward() before its " ..
    "first step; the loss is to be made of these parameters, those of the model that is trained"):format(#params))
end

-- All or none of them: gradients are looked at first.
function Groups:check_step()
  gq.core.check_current(self.params, "step")
  local reached = self:steps() > 0
  for _, g in ipairs(self.groups) do reached = reached or g._core:reached() end
  gq.core.check_reached(reached, self.params)
  gq.clip_grad_norm(self.params, math.huge)
end
function Groups:step(closure)
  no_closure(closure)
  self:check_step()
  for _, g in ipairs(self.groups) do g._core:step() end
end
-- PyTorch's set_to_none = true is what there is.
function gq.core.check_zero_grad(given)
  local none = given
  if type(given) == "table" then none = options(given, "set_to_none", "zero_grad").set_to_none end
  if none == nil or none == true then return end
  fail(("zero_grad: takes nothing, got %s: it takes gradients away, as set_to_none = true does; for zeros set p.grad = "
    .. "gq.zeros_like(p) for each of net:parameters()"):format(describe(given)))
end
function Groups:zero_grad(given)
  gq.core.check_zero_grad(given)
  for _, g in ipairs(self.groups) do g:zero_grad() end
end
function Groups:steps() return self.groups[1]:steps() end
function Groups:settings() return self.groups[1]:settings() end
function Groups:get(key) return self[key] end
function Groups:set(key, value) self[key] = value end
function Groups:kind() return self.groups[1]:kind() end

function Groups:state_dict()
  local d = self.groups[1]:state_dict()
  d.groups = {}
  for i, g in ipairs(self.groups) do
    local s = i == 1 and d or g:state_dict()
    d.groups[i] = { settings = s.settings, ratio = self.ratio[i] }
    if i > 1 then
      table.move(s.steps, 1, #s.steps, #d.steps + 1, d.steps)
      table.move(s.state, 1, #s.state, #d.state + 1, d.state)
    end
  end
  return d
end

-- What is wrong with the table of a state_dict() that should have these tables; nil: nothing.
local function lacks(t, names)
  for name in names:gmatch("%S+") do
    if type(t) ~= "table" or type(t[name]) ~= "table" then
      local got = type(t) == "table" and "one without " .. name or describe(t)
      return "the table of a state_dict() expected, got " .. got
    end
  end
end

-- The part of a state that belongs to each group; nil and what is wrong.
local function parts_of(self, t)
  local wrong = lacks(t, "steps state")
  if wrong then return nil, wrong end
  if type(t.groups) ~= "table" or #t.groups ~= #self.groups then
    return nil, ("the state has %s groups of parameters, this has %d"):format(
      type(t.groups) == "table" and #t.groups or "no", #self.groups)
  end
  local parts, at = {}, 0
  for i, g in ipairs(self.groups) do
    local own, n = t.groups[i], #g
    if type(own) ~= "table" or type(own.ratio) ~= "number" then return nil, "a group is {settings, ratio}" end
    parts[i] = { kind = t.kind, settings = own.settings, total = t.total, steps = table.move(t.steps, at + 1, at + n, 1,
      {}), state = table.move(t.state, at + 1, at + n, 1, {}) }
    at = at + n
  end
  if #t.steps ~= at then return nil, ("the state has %d parameters, this has %d"):format(#t.steps, at) end
  return parts
end

function Groups:check_state_dict(t)
  local parts, problem = parts_of(self, t)
  for i, g in ipairs(parts and self.groups or {}) do problem = problem or g:check_state_dict(parts[i]) end
  return problem
end

function Groups:load_state_dict(t)
  local problem = self:check_state_dict(t)
  if problem then error("load_state_dict: " .. problem, 2) end
  for i, part in ipairs((parts_of(self, t))) do
    self.groups[i]:load_state_dict(part)
    self.ratio[i] = t.groups[i].ratio
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
  gq.docs[optim[kind]] = doc .. "\nparams: a list, or groups {{params = list, lr = 1e-4}, {params = ...}} with "
    .. "settings of their own; opt.groups[i]"
end

-- One update. Refused, with nothing changed, when a gradient is not finite.
local function check_self(self, name)
  if getmetatable(self) ~= meta then
    fail(("%s: called without its optimiser: write optimiser:%s(), with a colon"):format(name, name))
  end
  return self._core
end
-- Raises where step would before it looks at the numbers.
function Optimiser:check_step()
  gq.core.check_current(self.params, "step")
  gq.core.check_reached(self:steps() > 0 or self._core:reached(), self.params)
end
function Optimiser:step(closure)
  local core = check_self(self, "step")
  no_closure(closure)
  self:check_step()
  core:step()
end
function Optimiser:zero_grad(given)
  local core = check_self(self, "zero_grad")
  gq.core.check_zero_grad(given)
  core:zero_grad()
end
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
      if own and not (gq.is_tensor(given) and gq.core.same_shape(given, own)) then
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
  local wrong = lacks(t, "steps state settings")
  if wrong then return wrong end
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
function optim.clip_grad_norm(params, max, p)
  if p ~= nil and p ~= 2 then
    fail(("gq.optim.clip_grad_norm: the norm is that of squares, got %s behind the limit"):format(describe(p)))
  end
  check_params(params, "gq.optim.clip_grad_norm", true)
  return gq.clip_grad_norm(params, max)
end
gq.docs[optim.clip_grad_norm] = "gq.optim.clip_grad_norm(params, max): scale the gradients to a joint norm of at " ..
  "most max; returns the norm they had; parameters whose requires_grad is false now are left out"

-- Each entry of the gradients to [-max, max].
function optim.clip_grad_value(params, max)
  check_params(params, "gq.optim.clip_grad_value", true)
  if type(max) ~= "number" or max < 0 or max ~= max then
    error(("gq.optim.clip_grad_value: a limit of at least 0 expected, got %s"):format(describe(max)), 2)
  end
  gq.no_grad(function()
    for _, p in ipairs(params) do
      if p.requires_grad and p.grad then p.grad[{}] = p.grad:clamp(-max, max) end
    end
  end)
end
gq.docs[optim.clip_grad_value] = "gq.optim.clip_grad_value(params, max): the gradients' entries to between -max and max"

-- ---- averages of weights ----

local Ema = { __name = "gq.ema" }
Ema.__index = Ema

-- After each step of the optimiser: average = decay average + (1 - decay) weights.
function Ema:update()
  gq.core.check_current(self.params, "update")
  self.count = self.count + 1
  gq.no_grad(function()
    for i, p in ipairs(self.params) do
      local a = self.average[i]
      a[{}] = a + (p:detach() - a) * (1 - self.decay)
    end
  end)
end

-- Weights and averages change places: once before validating, once after.
function Ema:swap()
  gq.core.check_current(self.params, "swap")
  gq.no_grad(function()
    for i, p in ipairs(self.params) do
      local own = p:detach():clone()
      p[{}] = self.average[i]
      self.average[i] = own
    end
  end)
end

-- What f(...) returns with the averages as weights, which are then what they were.
function Ema:with(f, ...)
  local function back(ok, ...)
    self:swap()
    if not ok then error((...), 0) end
    return ...
  end
  self:swap()
  return back(pcall(f, ...))
end

function Ema:state_dict()
  local list = {}
  for i, a in ipairs(self.average) do list[i] = a:clone() end
  return { count = self.count, decay = self.decay, average = list }
end

function Ema:check_state_dict(t)
  local average = type(t) == "table" and type(t.average) == "table" and t.average or {}
  local fits = type(t) == "table" and math.type(t.count) == "integer" and type(t.decay) == "number" and
    #average == #self.average
  for i, a in ipairs(fits and self.average or {}) do
    fits = fits and gq.is_tensor(average[i]) and describe(average[i]) == describe(a)
  end
  if not fits then return ("the averages of %d parameters expected, got %s"):format(#self.average, describe(t)) end
end

function Ema:load_state_dict(t)
  local problem = self:check_state_dict(t)
  if problem then error("load_state_dict: " .. problem, 2) end
  for i, a in ipairs(self.average) do a[{}] = t.average[i] end
  self.count, self.decay = t.count, t.decay
end

function gq.core.check_ema(ema, what)
  gq.core.expect(getmetatable(ema) == Ema, what, "ema: what gq.optim.ema(net) returns", ema)
end

function optim.ema(params, opts)
  local what = "gq.optim.ema"
  if gq.core.is_module(params) then params = params:parameters() end
  check_params(params, what)
  local decay = need(options(opts, "decay", what), "decay", "number", 0.999, what)
  if not (decay >= 0 and decay < 1) then
    fail(("%s: decay: a number from 0 to below 1 expected, got %g"):format(what, decay))
  end
  local average = {}
  for i, p in ipairs(params) do average[i] = p:detach():clone() end
  return setmetatable({ params = params, average = average, decay = decay, count = 0 }, Ema)
end
gq.docs[optim.ema] = [[
gq.optim.ema(net | params, {decay = 0.999}): an exponential average of the weights, which often does better
  than they do: ema:update() after each step; ema:with(f, ...) calls f with the averages as weights;
  ema:swap() exchanges them until the next swap; ema:state_dict(), ema:load_state_dict(t); gq.train{ ema = ema, ... }
  updates it after each step, validates with it and keeps it in checkpoints]]

-- ---- schedules: the learning rate as a function of the number of steps ----

-- What is wrong with a learning rate. The first of several groups stands for all.
local function check_rate(optimiser, lr)
  local core = (getmetatable(optimiser) == groups_meta and optimiser.groups[1] or optimiser)._core
  if core then return check_settings(core, { lr = lr }) end
  return not (lr > 0 and lr < math.huge) and ("lr: a positive number expected, got %g"):format(lr) or nil
end

local Schedule = {}
Schedule.__index = Schedule

-- PyTorch's step of a plateau takes the figure, that of others once took the epoch.
local function no_figure(value)
  if value == nil then return end
  fail(("step: takes nothing, got %s: a plateau schedule gets its figure by schedule:observe(value)"):format(
    describe(value)))
end

-- Call after each step of the optimiser, or once an epoch: sets the learning rate for the next.
function Schedule:step(value)
  no_figure(value)
  self.count = self.count + 1
  self.optimiser.lr = self.base * self.factor(self.count)
end
function Schedule:state_dict() return { count = self.count, base = self.base } end
function Schedule:check_state_dict(t)
  if type(t) ~= "table" or not is_count(t.count) or type(t.base) ~= "number" then
    return "the state of a schedule is {count, base}, a number of steps and a learning rate"
  end
  return check_rate(self.optimiser, t.base * self.factor(math.tointeger(t.count)))
end
function Schedule:load_state_dict(t)
  local problem = self:check_state_dict(t)
  if problem then error("load_state_dict: " .. problem, 2) end
  self.count, self.base = math.tointeger(t.count), t.base
  self.optimiser.lr = self.base * self.factor(self.count)
end

local function schedule(optimiser, factor, what)
  if not is_optimiser(optimiser) then
    error(("%s: an optimiser expected, got %s"):format(what, describe(optimiser)), 3)
  end
  local s = setmetatable({ optimiser = optimiser, factor = factor, base = optimiser.lr, count = 0 }, Schedule)
  optimiser.lr = s.base * factor(0)
  return s
end

-- ---- plateau: the learning rate by what a figure does ----

local Plateau = {}
Plateau.__index = Plateau

function Plateau:step(value) no_figure(value) end       -- steps alone tell nothing

-- The figure after an epoch: times factor where it has not become better for so many of them.
function Plateau:observe(value)
  if gq.is_tensor(value) and value:numel() == 1 then value = value:item() end
  value = need({ value = value }, "value", "number", nil, "observe")
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
  return check_rate(self.optimiser, t.lr)
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

define("constant", function(optimiser, opts)
  if opts ~= nil then
    fail(("gq.optim.schedule.constant: takes the optimiser alone, got %s beside it"):format(describe(opts)))
  end
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
  if not is_optimiser(optimiser) then
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
  return schedule(optimiser, function(n)
    local x = f(n)
    if type(x) ~= "number" then
      fail(("gq.optim.schedule.lambda: f(%d): a number, times the rate, expected, got %s"):format(n, describe(x)))
    end
    return x
  end, "gq.optim.schedule.lambda")
end, "gq.optim.schedule.lambda(optimiser, f): times f(n) after n steps")

gq.core.check_params = check_params
gq.core.optimiser_methods, gq.core.schedule_methods = Optimiser, Schedule
return optim
