-- nn/module.lua -- what networks are made of. A module is a table whose fields hold tensors (leaves that require
-- gradients are its parameters, other leaves its buffers), modules, and plain lists or tables of either. Names that
-- start with "_" are left out. A class of one's own:
--
--   local Field = nn.Module:extend("Field")
--   function Field:init(width)
--     self.net = nn.mlp{ sizes = {2, width, 2}, time = true }
--   end
--   function Field:forward(t, z) return -self.net(t, z) end
--   local f = Field(64)                       -- f(t, z), f:parameters(), f:state_dict() ...
--
-- forward is given all values of a call, net(x) or net(x, h, ...); values that it does not take are an error. But
-- net(t, z) leaves out t, a number or a 0-d tensor, as solvers give it, unless the first parameter of forward is called
-- t (or time, or _ as what is not read), or the class says Field.time = true.

local gq = ...
local describe = gq.core.describe
local nn = {}

-- ---- modules ----

local Module = { training = true, _name = "Module" }        -- time: nil, nothing was said
nn.Module = Module

local function told(self, hint, ok, ...)
  if ok then return ... end
  local problem = ...
  if type(problem) == "string" then problem = problem .. "\n" .. hint:gsub("%%", self._name) end
  error(problem, 0)
end

-- gq.odeint(...) as the last argument of a call gives info behind the states.
local function is_info(v) return type(v) == "table" and type(rawget(v, "status")) == "string" and v.nfe ~= nil end

local function check_input(self, x)
  if is_info(x) then
    gq.core.fail(("%s: the info of a solve is given beside its states: write %s((gq.odeint(...))), the solve in " ..
      "parentheses of its own"):format(self._name, self._name))
  elseif rawget(getmetatable(self), "_tensors") and not gq.is_tensor(x) then
    gq.core.fail(("nn.%s: a tensor expected, got %s"):format(self._name, describe(x)))
  end
end

local function may_be_time(t) return type(t) == "number" or gq.is_tensor(t) and t:dim() == 0 end

-- How many values forward takes at most. One is always given.
local function takes(forward)
  local info = type(forward) == "function" and debug.getinfo(forward, "u")
  return info and not info.isvararg and math.max(info.nparams - 1, 1) or math.huge
end

local function names_of(forward)
  local names, most = {}, takes(forward)
  if most == math.huge then return "..." end
  for i = 1, most do names[i] = debug.getlocal(forward, i + 1) or "x" end
  return table.concat(names, ", ")
end

local function described(...)
  local list = {}
  for i = 1, select("#", ...) do list[i] = describe((select(i, ...))) end
  return table.concat(list, ", ")
end

local function refuse(self, names, ...)
  gq.core.fail(("%s: forward takes (%s), got (%s): write net(%s); %s"):format(self._name, names, described(...), names,
    self.time and "it takes no more" or "a time in front, which is left out, is a number or a 0-d tensor"))
end

-- forward(...), which is to take all that is given.
local function give(self, ...)
  local forward = self.forward
  for i = takes(forward) + 1, select("#", ...) do
    if (select(i, ...)) ~= nil then refuse(self, names_of(forward), ...) end
  end
  return forward(self, ...)
end

-- Is the first value of several the time, and is it for forward? time = true says both; otherwise a time is left out.
local function apply(self, t, z, ...)
  local time, x = self.time, t
  if z ~= nil and (time or may_be_time(t) or is_info(z)) then x = z end
  if not gq.is_tensor(x) then check_input(self, x) end
  if z == nil and time then
    if not self._by_name then error(("%s depends on time: call net(t, z)"):format(self._name), 2) end
    return told(self, "% was called with one value: with the time write net(t, z)", pcall(give, self, t))
  end
  if z == nil or time or not may_be_time(t) then return give(self, t, z, ...) end
  if time == false or takes(self.forward) == 1 then return give(self, z, ...) end
  local hint = "% was called without t: where forward takes (t, z), say %.time = true"
  return told(self, hint, pcall(give, self, z, ...))       -- forward(z, ...), or a forgotten time = true
end

-- New fields are remembered in the order in which they are assigned: the order of the parameters.
local function assign(self, key, value)
  rawset(self, key, value)
  local order = rawget(self, "_order")
  order[#order + 1] = key
end

local function is_module(v)
  local m = getmetatable(v)
  return type(v) == "table" and type(m) == "table" and m._module == true
end

local function construct(class, ...)
  local object = setmetatable({ _order = {} }, class)
  class.init(object, ...)
  return object
end

function Module:init() end

function Module:forward()
  error(("%s has no forward function"):format(self._name), 2)
end

-- What is shown between the parentheses of tostring.
function Module:extra() return "" end

local function indent(text) return (text:gsub("\n", "\n  ")) end

local times = { t = true, _t = true, time = true, _time = true, _ = true }

-- A forward whose first parameter of several is called as a time is given it, unless the class says whether it is.
local function define(class, key, value)
  rawset(class, key, value)
  if key == "time" then rawset(class, "_by_name", false) end
  if key ~= "forward" or rawget(class, "time") ~= nil and not rawget(class, "_by_name") then return end
  local named = type(value) == "function" and takes(value) > 1 and times[debug.getlocal(value, 2)] or false
  if named or class._by_name then rawset(class, "time", named) end
  rawset(class, "_by_name", named)
end

-- A class that inherits from this one. Instances are made by calling it; that runs init.
function Module:extend(name)
  local class = { _name = name or self._name, _module = true }
  for _, event in ipairs { "__call", "__newindex", "__tostring" } do class[event] = rawget(self, event) end
  class.__index = class
  return setmetatable(class, { __index = self, __call = construct, __newindex = define })
end

Module._module, Module.__index, Module.__call, Module.__newindex = true, Module, apply, assign
setmetatable(Module, { __call = construct })

-- Keys in a fixed order: a module's as assigned, then positions, then names in alphabetical order.
local function keys(t)
  local list, seen = {}, {}
  for _, k in ipairs(rawget(t, "_order") or {}) do
    if not seen[k] then list[#list + 1], seen[k] = k, true end
  end
  local rest = {}
  for k in next, t do
    if not seen[k] and (type(k) == "string" or math.type(k) == "integer") then rest[#rest + 1] = k end
  end
  table.sort(rest, function(a, b)
    if type(a) == type(b) then return a < b end
    return type(a) == "number"
  end)
  return table.move(rest, 1, #rest, #list + 1, list)
end

-- Calls visit(owner, key, value, name) for every tensor that is a leaf and every module, depth first.
local function walk(t, prefix, visit, seen)
  if seen[t] then return end
  seen[t] = true
  for _, k in ipairs(keys(t)) do
    local v = rawget(t, k)
    local name = prefix .. tostring(k)
    if type(k) == "string" and k:sub(1, 1) == "_" then v = nil end      -- private
    if gq.is_tensor(v) then
      if v.is_leaf then visit(t, k, v, name) end
    elseif is_module(v) then
      visit(t, k, v, name)
      walk(v, name .. ".", visit, seen)
    elseif type(v) == "table" and getmetatable(v) == nil then
      walk(v, name .. ".", visit, seen)
    end
  end
end

local function each_tensor(self, visit)
  local seen = {}
  walk(self, "", function(owner, key, v, name)
    if gq.is_tensor(v) and not seen[v] then
      seen[v] = true
      visit(owner, key, v, name)
    end
  end, {})
end

-- An iterator over a list of pairs.
local function over_pairs(list)
  local i = 0
  return function()
    i = i + 1
    if list[i] then return list[i][1], list[i][2] end
  end
end

-- An iterator over name, parameter. A parameter that is used twice appears once.
function Module:named_parameters()
  local list = {}
  each_tensor(self, function(_, _, p, name)
    if p.requires_grad then list[#list + 1] = { name, p } end
  end)
  return over_pairs(list)
end

-- What `for p in net:parameters() do` would call.
local a_list = { __call = function()
  gq.core.fail("net:parameters() is a list: write for _, p in ipairs(net:parameters()) do, or "
    .. "for name, p in net:named_parameters() do")
end }

function Module:parameters()
  if not is_module(self) then
    gq.core.fail("parameters: called without its module: write net:parameters(), with a colon")
  end
  local list = {}
  for _, p in self:named_parameters() do list[#list + 1] = p end
  return setmetatable(list, a_list)
end

-- Direct and indirect submodules with their names, itself (named "") first.
function Module:modules()
  local list = { { "", self } }
  walk(self, "", function(_, _, v, name)
    if is_module(v) then list[#list + 1] = { name, v } end
  end, {})
  return over_pairs(list)
end

function Module:train(on)
  if on == nil then on = true end
  for _, m in self:modules() do rawset(m, "training", on) end
  return self
end

function Module:eval() return self:train(false) end

-- Frozen ones too: what they have left would be there when they are thawed.
function Module:zero_grad(given)
  gq.core.check_zero_grad(given)
  each_tensor(self, function(_, _, t) t.grad = nil end)
end

-- Tensors that a conversion has put others in the place of; how many; and the lists in which there was none of so many.
local replaced, replacements = setmetatable({}, { __mode = "k" }), 0
local looked = setmetatable({}, { __mode = "k" })

-- What trains or averages `params` would do so in vain if a module no longer has them.
function gq.core.check_current(params, what)
  if looked[params] == replacements then return end
  for i, p in ipairs(params) do
    if replaced[p] then
      gq.core.fail(("%s: parameter %d is not its module's any more: net:to(...) put %s in its place; call "
        .. "net:parameters(), and make optimisers and averages, after net:to(...)"):format(what, i,
        describe(replaced[p])))
    end
  end
  looked[params] = replacements
end

-- Convert every float tensor to another dtype or device. Tensors that change are replaced by new ones, so
-- make the optimiser afterwards: the old ones' refuse their steps.
function Module:to(what, more)
  if more ~= nil then gq.core.fail("to: one dtype or device: write net:to(\"float64\"):to(\"cpu\")") end
  local new = {}
  walk(self, "", function(owner, key, v)
    if not gq.is_tensor(v) or v.dtype == "int64" or v.dtype == "bool" then return end
    if not new[v] then
      local converted = v:detach():to(what)
      if v.dtype ~= converted.dtype or v.device ~= converted.device then
        converted.requires_grad = v.requires_grad
        new[v] = converted
        replaced[v], replacements = converted, replacements + 1
      else
        new[v] = v
      end
    end
    rawset(owner, key, new[v])
  end, {})
  return self
end

-- Copies of every parameter and buffer by name.
function Module:state_dict()
  local state = {}
  each_tensor(self, function(_, _, v, name) state[name] = v:detach():clone() end)
  return state
end

local function sorted(list)
  table.sort(list)
  return table.concat(list, ", ")
end

local function check_state(own, given)
  local missing, unexpected, wrong = {}, {}, {}
  for name, v in next, own do
    local g = given[name]
    if g == nil then missing[#missing + 1] = name
    elseif not gq.is_tensor(g) then wrong[#wrong + 1] = ("%s is %s"):format(name, describe(g))
    elseif not gq.core.same_shape(g, v) then
      wrong[#wrong + 1] = ("%s has shape %s, expected %s"):format(name, gq.core.dims(g.shape),
        gq.core.dims(v.shape))
    end
  end
  for name in next, given do
    if own[name] == nil then unexpected[#unexpected + 1] = tostring(name) end
  end
  local parts = {}
  if #missing > 0 then parts[#parts + 1] = "missing: " .. sorted(missing) end
  if #unexpected > 0 then parts[#parts + 1] = "unexpected: " .. sorted(unexpected) end
  if #wrong > 0 then parts[#parts + 1] = sorted(wrong) end
  return #parts > 0 and table.concat(parts, "; ") or nil
end

local function tensors_of(module)
  local own = {}
  each_tensor(module, function(_, _, v, name) own[name] = v end)
  return own
end

-- What is wrong with a state_dict for this module; nil: it fits.
function Module:check_state_dict(state)
  if type(state) ~= "table" then return ("a table of tensors by name expected, got %s"):format(describe(state)) end
  return check_state(tensors_of(self), state)
end

-- Copies the numbers of a state_dict into the tensors of this module. All names and shapes must fit; if
-- one does not, nothing is changed.
function Module:load_state_dict(state, more)
  local is_strings = type(more) == "table"                    -- metadata, which gq.load gives behind the tensors
  for _, v in next, is_strings and more or {} do is_strings = is_strings and type(v) == "string" end
  if more ~= nil and not is_strings then
    error(("load_state_dict: one table of tensors by name expected, got %s beside it: all names and shapes must " ..
      "fit, there is no strict = false; put what is missing into the table, from this module's state_dict()"):format(
      describe(more)), 2)
  end
  local problem = self:check_state_dict(state)
  if problem then error("load_state_dict: " .. problem, 2) end
  local own, values = tensors_of(self), {}
  for name, v in next, own do values[name] = state[name]:to(v.dtype) end    -- memory may fail here, not below
  gq.no_grad(function()
    for name, v in next, own do v:copy_(values[name]) end
  end)
  return self
end

function Module:__tostring()
  local lines = {}
  for _, k in ipairs(keys(self)) do
    local v = rawget(self, k)
    if is_module(v) and tostring(k):sub(1, 1) ~= "_" then
      lines[#lines + 1] = ("  %s: %s"):format(k, indent(tostring(v)))
    end
  end
  local head = ("%s(%s"):format(self._name, self:extra())
  if #lines == 0 then return head .. ")" end
  return head .. "\n" .. table.concat(lines, "\n") .. "\n)"
end

gq.docs[Module] = "nn.Module:extend(name): a class of one's own: fields that hold tensors and modules are found; " ..
  "define init and forward; a forward(t, z), by that name or with time = true, is given the time"

-- ---- for the files beside this one ----

gq.core.is_module = is_module
gq.core.refuse_values = refuse

-- What is given behind the arguments of init is another library's, or options without their table.
local function construct_ours(class, ...)
  for i = debug.getinfo(class.init, "u").nparams, select("#", ...) do
    local more = (select(i, ...))
    if more ~= nil then
      gq.core.fail(("nn.%s: %s is one argument too many: write %s"):format(class._name, describe(more),
        gq.docs[class]:match("^(.-[)}]): ")))
    end
  end
  return construct(class, ...)
end

-- A class of nn, with its help.
function gq.core.define_module(name, doc)
  local class = Module:extend(name)
  getmetatable(class).__call = construct_ours
  nn[name] = class
  gq.docs[class] = doc
  class._tensors = name ~= "Sequential"                        -- whose first layer may be anything
  return class
end

return nn
