-- lbfgs.lua -- gq.optim.lbfgs: the limited-memory BFGS method with a line search for the strong Wolfe conditions
-- (Nocedal & Wright, Numerical Optimization, algorithms 7.4, 7.5, 3.5 and 3.6), with PyTorch's manners: step takes a
-- function that zeroes the gradients, computes the loss, calls backward and returns the loss.

local gq = ...
local core = gq.core
local options, need, one_of, describe, fail = core.options, core.need, core.one_of, core.describe, core.fail

local Lbfgs = { __name = "gq.lbfgs", closure = true }      -- step takes the function that computes loss and gradients
Lbfgs.__index = Lbfgs

local names <const> = "lr max_iter history_size tolerance_grad tolerance_change line_search"

function Lbfgs:zero_grad(given)
  core.check_zero_grad(given)
  for _, p in ipairs(self.params) do p.grad = nil end
end
function Lbfgs:steps() return self.total end
function Lbfgs:kind() return "lbfgs" end
function Lbfgs:__len() return #self.params end
function Lbfgs:__tostring()
  return ("lbfgs: %d parameters, lr %g, %d steps"):format(#self.params, self.lr, self.total)
end

-- Which parameters train, a letter each: n for those whose requires_grad is false now.
local function who_trains(params)
  local list = {}
  for i, p in ipairs(params) do list[i] = p.requires_grad and "y" or "n" end
  return table.concat(list)
end

local function trains(self, i) return self.training:byte(i) == ("y"):byte() end

-- Numbers of all parameters that train, or of their gradients, one after the other; zeros where there is none.
local function flat(self, of)
  local list = {}
  for i, p in ipairs(self.params) do
    local x = trains(self, i) and of(p)
    list[i] = x and x:detach():reshape(p:numel()) or gq.zeros({ p:numel() }, { dtype = p.dtype, device = p.device })
  end
  return gq.cat(list, 1)
end
local function weights(self) return flat(self, function(p) return p end) end
local function gradients(self) return flat(self, function(p) return p.grad end) end

local function set_weights(self, x)
  local at = 1
  gq.no_grad(function()
    for i, p in ipairs(self.params) do
      if trains(self, i) then p[{}] = x:narrow(1, at, p:numel()):reshape(p.shape) end
      at = at + p:numel()
    end
  end)
end

-- The loss at the weights as they are; its gradients are left in the parameters.
local function evaluate(closure)
  local loss = closure()
  local f = gq.is_tensor(loss) and loss:numel() == 1 and loss:item() or loss
  if type(f) ~= "number" then
    fail(("gq.optim.lbfgs: the function given to step returns the loss, got %s"):format(describe(loss)))
  end
  return f
end

-- Parameters were frozen or thawed: what was learnt of the curvature is of other directions.
local function look(self)
  local training = who_trains(self.params)
  if training ~= self.training then self.training, self.pairs, self.scale = training, {}, 1 end
end

-- -H g by the last pairs of steps and differences of gradients.
local function direction(self, g)
  local q, alpha, pairs_ = g, {}, self.pairs
  for i = #pairs_, 1, -1 do
    local p = pairs_[i]
    alpha[i] = p.rho * p.s:dot(q):item()
    q = q - p.y * alpha[i]
  end
  q = q * self.scale
  for i, p in ipairs(pairs_) do q = q + p.s * (alpha[i] - p.rho * p.y:dot(q):item()) end
  return -q
end

-- The minimum of the cubic through two points with slopes, in [low, high]; the middle where there is none.
local function cubic(a, fa, ga, b, fb, gb, low, high)
  local d1 = ga + gb - 3 * (fa - fb) / (a - b)
  local square = d1 * d1 - ga * gb
  local t = (low + high) / 2
  if square >= 0 then
    local d2 = math.sqrt(square) * (b > a and 1 or -1)
    local x = b - (b - a) * ((gb + d2 - d1) / (gb - ga + 2 * d2))
    if x == x then t = math.max(low, math.min(high, x)) end
  end
  return t
end

local function finite(p) return p.f - p.f == 0 and p.slope == p.slope end

-- phi(t) -> point {t, f, slope, g}. A point with the strong Wolfe conditions from p0 on, or the best that was found.
local function search(phi, p0, t)
  local c1, c2, most = 1e-4, 0.9, 25
  local function too_high(p) return not finite(p) or p.f > p0.f + c1 * p.t * p0.slope end
  local function flat_enough(p) return math.abs(p.slope) <= -c2 * p0.slope end
  local low, high, before, tries = nil, nil, p0, 0
  while not low and tries < most do
    local p = phi(t)
    tries = tries + 1
    if too_high(p) or tries > 1 and p.f >= before.f then low, high = before, p
    elseif flat_enough(p) then return p
    elseif p.slope >= 0 then low, high = p, before
    else
      t = cubic(before.t, before.f, before.slope, p.t, p.f, p.slope, p.t + 0.01 * (p.t - before.t), 10 * p.t)
      before = p
    end
  end
  if not low then return before end
  while tries < most do
    local a, b = math.min(low.t, high.t), math.max(low.t, high.t)
    if (b - a) * math.abs(low.slope) < 1e-12 * math.max(1, math.abs(low.f)) then break end
    local margin = 0.1 * (b - a)
    t = finite(high) and cubic(low.t, low.f, low.slope, high.t, high.f, high.slope, a + margin, b - margin)
      or (a + b) / 2
    local p = phi(t)
    tries = tries + 1
    if too_high(p) or p.f >= low.f then high = p
    else
      if flat_enough(p) then return p end
      if p.slope * (high.t - low.t) >= 0 then high = low end
      low = p
    end
  end
  return low
end

local function remember(self, s, y)
  local sy = s:dot(y):item()
  if sy <= 1e-10 * y:dot(y):item() then return end         -- no curvature: the pair would spoil the matrix
  if #self.pairs == self.history_size then table.remove(self.pairs, 1) end
  self.pairs[#self.pairs + 1] = { s = s, y = y, rho = 1 / sy }
  self.scale = sy / y:dot(y):item()
end

local function largest(x) return x:abs():max():item() end

-- One iteration from point p at x; the next point, and where it is; nil: no way down.
local function iterate(self, closure, x, p)
  local d = direction(self, p.g)
  local slope = p.g:dot(d):item()
  if slope >= 0 or slope ~= slope then                                  -- rounding has spoiled the pairs
    self.pairs, self.scale = {}, 1
    d, slope = -p.g, -p.g:dot(p.g):item()
  end
  local t = #self.pairs > 0 and self.lr or math.min(1, 1 / p.g:abs():sum():item()) * self.lr
  local function phi(at)
    set_weights(self, x + d * at)
    local f = evaluate(closure)
    local g = gradients(self)
    return { t = at, f = f, g = g, slope = g:dot(d):item() }
  end
  local next_point = self.line_search == "none" and phi(t) or search(phi, { t = 0, f = p.f, slope = slope, g = p.g }, t)
  if not finite(next_point) or next_point.t == 0 then return nil end
  local to = x + d * next_point.t
  remember(self, to - x, next_point.g - p.g)
  return next_point, to
end

local function iterations(self, closure, x, p)
  for _ = 1, self.max_iter do
    if largest(p.g) <= self.tolerance_grad then break end
    local q, to = iterate(self, closure, x, p)
    if not q then break end
    local moved, change = largest(to - x), math.abs(q.f - p.f)
    x, p = to, q
    if moved <= self.tolerance_change or change <= self.tolerance_change * math.max(1, math.abs(p.f)) then break end
  end
  return x
end

-- At most max_iter iterations; returns the loss before them. An error of the function leaves everything as it was.
function Lbfgs:step(closure)
  if not core.is_callable(closure) then
    fail("gq.optim.lbfgs: step takes a function that zeroes the gradients, computes the loss, calls its backward and "
      .. "returns it; got " .. describe(closure))
  end
  core.check_current(self.params, "step")
  local f = evaluate(closure)
  look(self)
  local g = gradients(self)
  if f - f ~= 0 or not g:isfinite():all():item() then
    fail(("gq.optim.lbfgs: the loss is %g or a gradient is not finite; nothing was changed"):format(f))
  end
  local reached = self.total > 0
  for i, p in ipairs(self.params) do reached = reached or trains(self, i) and p.grad ~= nil end
  core.check_reached(reached, self.params)
  local x, learnt, scale = weights(self), table.move(self.pairs, 1, #self.pairs, 1, {}), self.scale
  local ok, to = pcall(iterations, self, closure, x, { f = f, g = g })
  set_weights(self, ok and to or x)
  if not ok then
    self.pairs, self.scale = learnt, scale
    error(to, 0)
  end
  self.total = self.total + 1
  return f
end

function Lbfgs:settings()
  local t = {}
  for name in names:gmatch("%S+") do t[name] = self[name] end
  return t
end

local function checked_settings(opts, what)
  local o = options(opts, names, what)
  return { lr = need(o, "lr", "positive", 1, what), max_iter = need(o, "max_iter", "count", 20, what),
    history_size = need(o, "history_size", "count", 100, what),
    tolerance_grad = need(o, "tolerance_grad", "number", 1e-7, what),
    tolerance_change = need(o, "tolerance_change", "number", 1e-9, what),
    line_search = one_of(o, "line_search", { "strong_wolfe", "none" }, what) }
end

-- Settings, the count, what was learnt of the curvature, a step and a difference of gradients each, and of whom.
function Lbfgs:state_dict()
  local state = {}
  for i, p in ipairs(self.pairs) do state[i] = { p.s:clone(), p.y:clone() } end
  return { kind = "lbfgs", settings = self:settings(), total = self.total, steps = {}, state = state,
    training = self.training }
end

function Lbfgs:check_state_dict(t)
  if type(t) ~= "table" or t.kind ~= "lbfgs" then
    return ("the state is of %s, this is lbfgs"):format(type(t) == "table" and tostring(t.kind) or describe(t))
  end
  if type(t.settings) ~= "table" or type(t.state) ~= "table" then
    return "the table of a state_dict() expected, got one without settings or state"
  end
  if math.tointeger(t.total) == nil or t.total < 0 then
    return "total is a number of steps, got " .. describe(t.total)
  end
  if t.training ~= nil and (type(t.training) ~= "string" or t.training:gsub("[yn]", "") ~= ""
      or #t.training ~= #self.params) then
    return ("training: y or n of each of the %d parameters expected, got %s"):format(#self.params,
      describe(t.training))
  end
  local ok, problem = pcall(checked_settings, t.settings, "settings")
  if not ok then return problem end
  local n = weights(self):numel()
  for i, pair in ipairs(t.state) do
    for k = 1, 2 do
      local x = type(pair) == "table" and pair[k] or nil
      if not gq.is_tensor(x) or x:dim() ~= 1 or x:numel() ~= n or x.dtype ~= self.params[1].dtype then
        return ("pair %d: two tensors %s {%d} expected, got %s"):format(i, self.params[1].dtype, n, describe(x))
      end
    end
  end
end

function Lbfgs:load_state_dict(t)
  local problem = self:check_state_dict(t)
  if problem then error("load_state_dict: " .. problem, 2) end
  for name, value in next, checked_settings(t.settings, "load_state_dict") do self[name] = value end
  self.total, self.pairs, self.scale = math.tointeger(t.total), {}, 1
  self.training = t.training or ("y"):rep(#self.params)
  for _, pair in ipairs(t.state) do remember(self, pair[1]:clone(), pair[2]:clone()) end
end

function gq.optim.lbfgs(params, opts)
  local what = "gq.optim.lbfgs"
  core.check_params(params, what)
  for _, p in ipairs(params) do
    if p.dtype ~= params[1].dtype then fail(what .. ": parameters of one dtype expected") end
  end
  return setmetatable(core.copy(checked_settings(opts, what), { params = params, pairs = {}, scale = 1, total = 0,
    training = who_trains(params) }), Lbfgs)
end
gq.docs[gq.optim.lbfgs] = [[
gq.optim.lbfgs(params, {lr = 1, max_iter = 20, history_size = 100, tolerance_grad = 1e-7,
  tolerance_change = 1e-9, line_search = "strong_wolfe" | "none"}): for losses without noise (the whole set)
opt:step(closure): up to max_iter iterations; the function is called at every trial]]
