-- nn/layers.lua -- the layers: Linear, activations, and what changes the shape.

local gq = ...
local core = gq.core
local options, need, describe, define = core.options, core.need, core.describe, core.define_module

local function size(n, what, name, least)
  least = least or 1
  if math.type(n) ~= "integer" or n < least then
    core.fail(("%s: %s: an integer of at least %d expected, got %s"):format(what, name, least, describe(n)))
  end
  return n
end

-- The dimension that a module works along, opts.dim: the last, or for images that of the channels, 2.
local function dimension(opts, what)
  local dim = options(opts, "dim", what).dim
  if dim == nil then return -1 end
  core.expect(math.type(dim) == "integer" and dim ~= 0, what, "dim: a dimension, 1 the first and -1 the last,", dim)
  return dim
end

-- The shape of x with n entries along dim, and how many there are now.
local function resized(x, dim, n, what)
  local shape = x.shape
  local d = dim < 0 and #shape + 1 + dim or dim
  local now = shape[d]
  if not now then core.fail(("%s: dim = %d, got %s"):format(what, dim, describe(x))) end
  shape[d] = n
  return shape, now
end
core.module_dimension, core.resized = dimension, resized

local function extra_of(text, dim) return dim == -1 and text or ("%s, {dim = %d}"):format(text, dim) end

local Linear = define("Linear", "nn.Linear(n_in, n_out [, {bias = true, dtype}]): x W' + b; entries start uniform " ..
  "in +-1/sqrt(n_in)")

-- A parameter, uniform in +-bound.
local function uniform(sizes, bound, dtype)
  local x = gq.rand(sizes, { dtype = dtype }) * (2 * bound) - bound
  x.requires_grad = true
  return x
end
core.uniform_parameter = uniform

function Linear:init(n_in, n_out, opts)
  local o = options(opts, "bias dtype", "nn.Linear")
  size(n_in, "nn.Linear", "n_in")
  size(n_out, "nn.Linear", "n_out")
  local bound = 1 / math.sqrt(n_in)                -- PyTorch's initialisation of weight and bias
  self.weight = uniform({ n_out, n_in }, bound, o.dtype)
  if need(o, "bias", "boolean", true, "nn.Linear") then self.bias = uniform({ n_out }, bound, o.dtype) end
end

function Linear:forward(x)
  local n_in = self.weight.shape[2]
  if not gq.is_tensor(x) or x:dim() == 0 or x.shape[x:dim()] ~= n_in then
    local flat = gq.is_tensor(x) and x:dim() > 2 and x:numel() == x.shape[1] * n_in
    core.fail(("nn.Linear: {..., %d} expected, got %s%s"):format(n_in, describe(x),
      flat and ": put nn.Flatten() in front of it" or ""))
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

-- What to write for options that other libraries' classes take.
local instead = {
  Softplus = "function(x) return (beta * x):softplus() / beta end",
  GELU = "of the approximation by tanh, function(x) return x * (1.5957691 * (x + 0.044715 * x ^ 3)):sigmoid() end",
}

local function activation(name, f, doc)
  local class = define(name, ("nn.%s(): %s"):format(name, doc))
  function class:init(option)
    if option ~= nil then
      core.fail(("nn.%s takes no option, got %s: write nn.%s()%s"):format(name, describe(option), name,
        instead[name] and ", or " .. instead[name] or ""))
    end
  end
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
    rawset(self, "value", need({ value = value }, "value", "number", default, "nn." .. name))
  end
  function class:forward(x) return f(x, self.value) end
  function class:extra() return ("%g"):format(self.value) end
  return class
end

by_name.elu = parametric("ELU", gq.elu, 1.0, "nn.ELU([alpha]): x above 0, alpha (e^x - 1) below")
by_name.leaky_relu = parametric("LeakyReLU", gq.leaky_relu, 0.01, "nn.LeakyReLU([slope]): x above 0, slope x below")

core.activations = by_name                         -- classes, for nn.mlp

for name, f in next, { Softmax = gq.softmax, LogSoftmax = gq.log_softmax } do
  local log = name == "LogSoftmax" and "logarithms of " or ""
  local class = define(name, ("nn.%s([dim]): %sexponentials that sum to one along dim, the last by default"):format(
    name, log))
  function class:init(dim) rawset(self, "dim", need({ dim = dim }, "dim", "integer", -1, "nn." .. name)) end
  function class:forward(x) return f(x, self.dim) end
end

-- One mask is drawn for each call. Inside a solve the function is called once; where it is called at every evaluation
-- (trace = false) the mask is kept for the solve.
local function draw(self, x) return gq.rand(self.together(x), { dtype = x.dtype, device = x.device }):ge(self.p) end

local function mask(self, x)
  local solve, shape = core.solving(), table.concat(x.shape, ",")
  if math.type(solve) == nil then return draw(self, x) end
  local kept = rawget(self, "_kept")
  if not kept or kept.solve ~= solve then kept = { solve = solve } end
  kept[shape] = kept[shape] or draw(self, x)
  rawset(self, "_kept", kept)
  return kept[shape]
end

local function dropout(name, least, together, doc)
  local class = define(name, ("nn.%s([p]): in training, %s"):format(name, doc))
  local what = "nn." .. name
  class.together = together                        -- the shape of what is dropped together
  function class:init(p)
    p = need({ p = p }, "p", "number", 0.5, what)
    if not (p >= 0 and p < 1) then core.fail(("%s: p in [0, 1) expected, got %g"):format(what, p)) end
    rawset(self, "p", p)
  end
  function class:forward(x)
    core.expect(not gq.is_tensor(x) or x:dim() >= least, what, "images or signals {batch, channels, ...}", x)
    if not self.training or self.p == 0 then return x end
    return gq.where(mask(self, x), x * (1 / (1 - self.p)), 0)
  end
  function class:extra() return ("%g"):format(self.p) end
end
dropout("Dropout", 0, function(x) return x.shape end,
  "zeros with probability p (0.5) and the rest scaled by 1/(1-p); one mask a solve")
dropout("Dropout2d", 3, core.whole_channels, "nn.Dropout of whole channels of {batch, channels, ...}; one mask a solve")

local Flatten = define("Flatten", "nn.Flatten([first]): dimensions from `first` (2) on as one")
function Flatten:init(first) rawset(self, "first", size(first or 2, "nn.Flatten", "first")) end
function Flatten:forward(x)
  if gq.is_tensor(x) and self.first > x:dim() + 1 then
    core.fail(("nn.Flatten: dimensions from %d on, got %s"):format(self.first, describe(x)))
  end
  local shape, n = {}, 1
  for d, s in ipairs(x.shape) do
    if d < self.first then shape[d] = s else n = n * s end
  end
  shape[self.first] = n
  return x:reshape(shape)
end

local Unflatten = define("Unflatten", "nn.Unflatten{sizes...} or nn.Unflatten(dim, {sizes...}): the last " ..
  "dimension, or dim, as several")
function Unflatten:init(dim, sizes)
  if sizes == nil then dim, sizes = -1, dim end
  core.expect(math.type(dim) == "integer", "nn.Unflatten", "a dimension and sizes", dim)
  rawset(self, "dim", dim)
  core.expect(type(sizes) == "table" and #sizes > 0, "nn.Unflatten", "a list of sizes", sizes)
  for _, n in ipairs(sizes) do size(n, "nn.Unflatten", "size") end
  rawset(self, "sizes", { table.unpack(sizes) })
end
function Unflatten:forward(x) return x:unflatten(self.dim, self.sizes) end
function Unflatten:extra() return table.concat(self.sizes, ", ") end

local Augment = define("Augment", "nn.Augment(n [, {dim = -1}]): n zeros more in the last dimension, or in dim: " ..
  "dim = 2 adds channels to images")
function Augment:init(n, opts)
  rawset(self, "n", size(n, "nn.Augment", "n", 0))
  rawset(self, "dim", dimension(opts, "nn.Augment"))
end
function Augment:forward(x)
  local shape = resized(x, self.dim, self.n, "nn.Augment")
  return gq.cat({ x, gq.zeros(shape, { dtype = x.dtype, device = x.device }) }, self.dim)
end
function Augment:extra() return extra_of(tostring(self.n), self.dim) end

local Select = define("Select", "nn.Select(a [, b [, {dim = -1}]]): entries a to b of the last dimension, or of dim")
function Select:init(a, b, opts)
  if type(b) == "table" then b, opts = nil, b end
  rawset(self, "a", size(a, "nn.Select", "a"))
  rawset(self, "b", size(b or a, "nn.Select", "b"))
  if self.b < self.a then core.fail(("nn.Select: a to b expected, got %d to %d"):format(self.a, self.b)) end
  rawset(self, "dim", dimension(opts, "nn.Select"))
end
function Select:forward(x) return x:narrow(self.dim, self.a, self.b - self.a + 1) end
function Select:extra() return extra_of(("%d, %d"):format(self.a, self.b), self.dim) end
