-- nn.lua -- networks. A module is a table whose fields hold tensors (leaves that require gradients are
-- its parameters, other leaves its buffers), modules, and plain lists or tables of either. Names that start
-- with "_" are left out. A class of one's own:
--
--   local Field = nn.Module:extend("Field")
--   Field.time = true                         -- forward takes (t, z); without it, forward takes (x)
--   function Field:init(width)
--     self.net = nn.mlp{ sizes = {2, width, 2}, time = true }
--   end
--   function Field:forward(t, z) return -self.net(t, z) end
--   local f = Field(64)                       -- f(t, z), f:parameters(), f:state_dict() ...

local gq = ...
local options, need, describe = gq.core.options, gq.core.need, gq.core.describe
local nn = {}

-- ---- modules ----

local Module = { time = false, training = true, _name = "Module" }
nn.Module = Module

local function apply(self, t, z)
  if z ~= nil then
    if self.time then return self:forward(t, z) end
    return self:forward(z)
  end
  if self.time then
    error(("%s depends on time: call net(t, z)"):format(self._name), 2)
  end
  return self:forward(t)
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

-- A class that inherits from this one. Instances are made by calling it; that runs init.
function Module:extend(name)
  local class = { _name = name or self._name, _module = true }
  for _, event in ipairs { "__call", "__newindex", "__tostring" } do class[event] = rawget(self, event) end
  class.__index = class
  return setmetatable(class, { __index = self, __call = construct })
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

-- An iterator over name, parameter. A parameter that is used twice appears once.
function Module:named_parameters()
  local list = {}
  each_tensor(self, function(_, _, p, name)
    if p.requires_grad then list[#list + 1] = { name, p } end
  end)
  local i = 0
  return function()
    i = i + 1
    if list[i] then return list[i][1], list[i][2] end
  end
end

function Module:parameters()
  local list = {}
  for _, p in self:named_parameters() do list[#list + 1] = p end
  return list
end

-- Direct and indirect submodules with their names, itself (named "") first.
function Module:modules()
  local list = { { "", self } }
  walk(self, "", function(_, _, v, name)
    if is_module(v) then list[#list + 1] = { name, v } end
  end, {})
  local i = 0
  return function()
    i = i + 1
    if list[i] then return list[i][1], list[i][2] end
  end
end

function Module:train(on)
  if on == nil then on = true end
  for _, m in self:modules() do rawset(m, "training", on) end
  return self
end

function Module:eval() return self:train(false) end

function Module:zero_grad()
  for _, p in self:named_parameters() do p.grad = nil end
end

-- Convert every float tensor to another dtype or device. Tensors that change are replaced by new ones, so
-- make the optimiser afterwards.
function Module:to(what)
  local new = {}
  walk(self, "", function(owner, key, v)
    if not gq.is_tensor(v) or v.dtype == "int64" or v.dtype == "bool" then return end
    if not new[v] then
      local converted = v:detach():to(what)
      if v.dtype ~= converted.dtype or v.device ~= converted.device then
        converted.requires_grad = v.requires_grad
        new[v] = converted
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
    elseif table.concat(g.shape, ",") ~= table.concat(v.shape, ",") then
      wrong[#wrong + 1] = ("%s has shape {%s}, expected {%s}"):format(name, table.concat(g.shape, ", "),
        table.concat(v.shape, ", "))
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

-- Copies the numbers of a state_dict into the tensors of this module. All names and shapes must fit; if
-- one does not, nothing is changed.
function Module:load_state_dict(state)
  if type(state) ~= "table" then
    error(("load_state_dict: a table of tensors by name expected, got %s"):format(describe(state)), 2)
  end
  local own = {}
  each_tensor(self, function(_, _, v, name) own[name] = v end)
  local problem = check_state(own, state)
  if problem then error("load_state_dict: " .. problem, 2) end
  gq.no_grad(function()
    for name, v in next, own do v:copy_(state[name]:to(v.dtype)) end
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

local function define(name, doc, parent)
  local class = (parent or Module):extend(name)
  nn[name] = class
  gq.docs[class] = doc
  return class
end
gq.docs[Module] = "nn.Module:extend(name): a class of one's own: fields that hold tensors and modules are found; " ..
  "define init and forward, and set time = true if forward takes (t, z)"

-- ---- layers ----

local function size(n, what, name)
  if math.type(n) ~= "integer" or n < 1 then
    error(("%s: %s: an integer of at least 1 expected, got %s"):format(what, name, describe(n)), 4)
  end
  return n
end

local Linear = define("Linear", "nn.Linear(n_in, n_out [, {bias = true, dtype}]): x W' + b; entries start uniform " ..
  "in +-1/sqrt(n_in)")

local function uniform(sizes, bound, dtype)
  local x = gq.rand(sizes, { dtype = dtype }) * (2 * bound) - bound
  x.requires_grad = true
  return x
end

function Linear:init(n_in, n_out, opts)
  local o = options(opts, "bias dtype", "nn.Linear", 3)
  size(n_in, "nn.Linear", "n_in")
  size(n_out, "nn.Linear", "n_out")
  local bound = 1 / math.sqrt(n_in)                -- PyTorch's initialisation of weight and bias
  self.weight = uniform({ n_out, n_in }, bound, o.dtype)
  if o.bias ~= false then self.bias = uniform({ n_out }, bound, o.dtype) end
end

function Linear:forward(x)
  local n_in = self.weight.shape[2]
  if not gq.is_tensor(x) or x:dim() == 0 or x.shape[x:dim()] ~= n_in then
    error(("nn.Linear: {..., %d} expected, got %s"):format(n_in, describe(x)), 2)
  end
  local single = x:dim() == 1
  if single then x = x:unsqueeze(1) end
  local y = x:matmul(self.weight:transpose(1, 2))
  if self.bias then y = y + self.bias end
  return single and y:squeeze(1) or y
end

function Linear:extra()
  local s = self.weight.shape
  return ("%d, %d%s"):format(s[2], s[1], self.bias and "" or ", no bias")
end

local function activation(name, f, doc)
  local class = define(name, ("nn.%s(): %s"):format(name, doc))
  function class:forward(x) return f(x) end
  return class
end

local by_name = {
  tanh = activation("Tanh", gq.tanh, "tanh(x)"),
  relu = activation("ReLU", gq.relu, "max(x, 0)"),
  softplus = activation("Softplus", gq.softplus, "log(1 + e^x)"),
  sigmoid = activation("Sigmoid", gq.sigmoid, "1 / (1 + e^-x)"),
  gelu = activation("GELU", gq.gelu, "x times the normal distribution function at x"),
  silu = activation("SiLU", gq.silu, "x sigmoid(x)"),
  sin = activation("Sin", gq.sin, "sin(x)"),
  identity = activation("Identity", function(x) return x end, "x"),
}

local function parametric(name, f, default, doc)
  local class = define(name, doc)
  function class:init(value)
    rawset(self, "value", need({ value = value }, "value", "number", default, "nn." .. name, 4))
  end
  function class:forward(x) return f(x, self.value) end
  function class:extra() return ("%g"):format(self.value) end
  return class
end

by_name.elu = parametric("ELU", gq.elu, 1.0, "nn.ELU([alpha]): x above 0, alpha (e^x - 1) below")
by_name.leaky_relu = parametric("LeakyReLU", gq.leaky_relu, 0.01, "nn.LeakyReLU([slope]): x above 0, slope x below")

local Softmax = define("Softmax", "nn.Softmax([dim]): exponentials that sum to one along dim, the last by default")
function Softmax:init(dim) rawset(self, "dim", dim or -1) end
function Softmax:forward(x) return gq.softmax(x, self.dim) end

-- One mask is drawn for each call. Inside a solve the function is called once, so there it is one mask a solve.
local Dropout = define("Dropout", "nn.Dropout([p]): in training, zeros with probability p (0.5) and the rest scaled " ..
  "by 1/(1-p); one mask a solve")

function Dropout:init(p)
  p = need({ p = p }, "p", "number", 0.5, "nn.Dropout", 4)
  if not (p >= 0 and p < 1) then error(("nn.Dropout: p in [0, 1) expected, got %g"):format(p), 3) end
  rawset(self, "p", p)
end

function Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  local keep = gq.rand(x.shape, { dtype = x.dtype }):ge(self.p)
  return gq.where(keep, x * (1 / (1 - self.p)), 0)
end

function Dropout:extra() return ("%g"):format(self.p) end

local Flatten = define("Flatten", "nn.Flatten([first]): dimensions from `first` (2) on as one")
function Flatten:init(first) rawset(self, "first", size(first or 2, "nn.Flatten", "first")) end
function Flatten:forward(x)
  local shape, n = {}, 1
  for d, s in ipairs(x.shape) do
    if d < self.first then shape[d] = s else n = n * s end
  end
  shape[self.first] = n
  return x:reshape(shape)
end

local Unflatten = define("Unflatten", "nn.Unflatten{sizes...}: the last dimension as several")
function Unflatten:init(sizes)
  if type(sizes) ~= "table" or #sizes == 0 then
    error(("nn.Unflatten: a list of sizes expected, got %s"):format(describe(sizes)), 3)
  end
  for _, n in ipairs(sizes) do size(n, "nn.Unflatten", "size") end
  rawset(self, "sizes", { table.unpack(sizes) })
end
function Unflatten:forward(x)
  local shape = x.shape
  table.remove(shape)
  for _, n in ipairs(self.sizes) do shape[#shape + 1] = n end
  return x:reshape(shape)
end
function Unflatten:extra() return table.concat(self.sizes, ", ") end

local Augment = define("Augment", "nn.Augment(n): n zeros more in the last dimension")
function Augment:init(n) rawset(self, "n", size(n, "nn.Augment", "n")) end
function Augment:forward(x)
  local shape = x.shape
  shape[#shape] = self.n
  return gq.cat({ x, gq.zeros(shape, { dtype = x.dtype }) }, -1)
end
function Augment:extra() return tostring(self.n) end

local Select = define("Select", "nn.Select(a [, b]): entries a to b of the last dimension")
function Select:init(a, b)
  rawset(self, "a", size(a, "nn.Select", "a"))
  rawset(self, "b", size(b or a, "nn.Select", "b"))
end
function Select:forward(x) return x:narrow(-1, self.a, self.b - self.a + 1) end
function Select:extra() return ("%d, %d"):format(self.a, self.b) end

-- ---- putting them together ----

local function check_layers(list, what)
  if type(list) ~= "table" or is_module(list) then
    error(("%s: a list of modules expected, got %s"):format(what, describe(list)), 4)
  end
  for i, m in ipairs(list) do
    if not is_module(m) and type(m) ~= "function" then
      error(("%s: entry %d: a module or a function expected, got %s"):format(what, i, describe(m)), 4)
    end
  end
end

local Sequential = define("Sequential", "nn.Sequential{a, b, ...}: one after the other; depends on time if one " ..
  "of them does; plain functions of x may stand among them")

function Sequential:init(list)
  check_layers(list, "nn.Sequential")
  local time = false
  for i, m in ipairs(list) do
    self[i] = m
    time = time or is_module(m) and m.time
  end
  rawset(self, "time", time)
end

local function run_layers(self, t, x)
  for _, m in ipairs(self) do
    if is_module(m) and m.time then x = m(t, x)
    else x = m(x) end
  end
  return x
end

function Sequential:forward(t, x)
  if not self.time then return run_layers(self, nil, t) end
  return run_layers(self, t, x)
end

-- t as one more feature of z: {..., n} -> {..., n + 1}
local function with_time(t, z)
  local shape, ones = z.shape, {}
  for d = 1, #shape do ones[d] = 1 end
  shape[#shape] = 1
  if type(t) == "number" then
    t = gq.full(shape, t, { dtype = z.dtype })
  else
    t = t:reshape(ones):to(z.dtype):expand(shape)
  end
  return gq.cat({ z, t }, -1)
end

local TimeConcat = define("TimeConcat", "nn.TimeConcat(module): f(t, z), where the module sees z with t as one " ..
  "more, last feature")
TimeConcat.time = true

function TimeConcat:init(module)
  if not is_module(module) and type(module) ~= "function" then
    error(("nn.TimeConcat: a module or a function expected, got %s"):format(describe(module)), 3)
  end
  self.module = module
end

function TimeConcat:forward(t, z)
  if is_module(self.module) then return self.module(t, with_time(t, z)) end
  return self.module(with_time(t, z))
end

local SecondOrder = define("SecondOrder", "nn.SecondOrder(acceleration): state [x, v] in the last dimension; " ..
  "returns [v, acceleration(t, [x, v])]")
SecondOrder.time = true

function SecondOrder:init(acceleration)
  if not is_module(acceleration) and type(acceleration) ~= "function" then
    error(("nn.SecondOrder: a module or a function expected, got %s"):format(describe(acceleration)), 3)
  end
  self.acceleration = acceleration
end

function SecondOrder:forward(t, z)
  local n = z.shape[z:dim()]
  if n == nil or n % 2 ~= 0 then
    error(("nn.SecondOrder: the last dimension holds x and v, so its size is even; got %s"):format(describe(z)), 2)
  end
  local v = z:narrow(-1, n // 2 + 1, n // 2)
  local a = self.acceleration(t, z)
  if not gq.is_tensor(a) or table.concat(a.shape, ",") ~= table.concat(v.shape, ",") then
    error(("nn.SecondOrder: the acceleration has the shape of x, {%s}; got %s"):format(
      table.concat(v.shape, ", "), describe(a)), 2)
  end
  return gq.cat({ v, a }, -1)
end

local function activation_of(a)
  if type(a) == "string" and by_name[a:lower()] then return by_name[a:lower()]() end
  if type(a) == "function" or is_module(a) then return a end
  local names = {}
  for name in next, by_name do names[#names + 1] = name end
  error(("nn.mlp: activation: a function or one of %s expected, got %s"):format(sorted(names), describe(a)), 3)
end

-- Linear layers with an activation between them. With time = true the first has one more input, t, last.
function nn.mlp(opts)
  local o = options(opts, "sizes activation time bias dtype", "nn.mlp")
  local sizes = need(o, "sizes", "table", nil, "nn.mlp")
  if #sizes < 2 then error("nn.mlp: sizes has at least two entries: {inputs, ..., outputs}", 2) end
  local layers = {}
  for i = 1, #sizes - 1 do
    local extra = i == 1 and o.time and 1 or 0
    if math.type(sizes[i]) ~= "integer" then
      error(("nn.mlp: sizes are integers, got %s"):format(describe(sizes[i])), 2)
    end
    layers[#layers + 1] = Linear(sizes[i] + extra, sizes[i + 1], { bias = o.bias, dtype = o.dtype })
    if i < #sizes - 1 then layers[#layers + 1] = activation_of(o.activation or "softplus") end
  end
  local net = Sequential(layers)
  return o.time and TimeConcat(net) or net
end
gq.docs[nn.mlp] = "nn.mlp{ sizes = {2, 64, 2}, activation = \"softplus\", time = false }: Linear layers with an " ..
  "activation between them; time = true adds t as a last input"

return nn
