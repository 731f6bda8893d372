-- nn/nets.lua -- layers put together: Sequential, TimeConcat, SecondOrder, mlp.

local gq = ...
local core, nn = gq.core, gq.nn
local options, need, describe, define = core.options, core.need, core.describe, core.define_module
local is_module, by_name = core.is_module, core.activations

local function check_layers(list, what, more)
  if more ~= nil or is_module(list) then
    core.fail(("%s takes one list: %s{a, b, ...}"):format(what, what))
  end
  core.expect(type(list) == "table", what, "a list of modules", list)
  for i, m in ipairs(list) do
    core.expect(is_module(m) or type(m) == "function", what, ("entry %d: a module or a function"):format(i), m)
  end
end

local Sequential = define("Sequential", "nn.Sequential{a, b, ...}: one after the other; depends on time if one " ..
  "of them does; plain functions of x may stand among them")
Sequential.time = false

function Sequential:init(list, more)
  check_layers(list, "nn.Sequential", more)
  local time = false
  for i, m in ipairs(list) do
    self[i] = m
    time = time or is_module(m) and m.time or false
  end
  rawset(self, "time", time)
end

-- m(x), or m(t, x) of a module that depends on time.
local function run(m, t, x)
  if is_module(m) and m.time then return m(t, x) end
  return m(x)
end

local function run_layers(self, t, x)
  for _, m in ipairs(self) do x = run(m, t, x) end
  return x
end

function Sequential:forward(t, x)
  if not is_module(self) then gq.core.fail("net.forward(x): a dot gives no net: write net(x), or net:forward(x)") end
  if self.time then return run_layers(self, t, x) end
  if x ~= nil then core.refuse_values(self, "x", t, x) end
  return run_layers(self, nil, t)
end

local function callable(f, what)
  core.expect(is_module(f) or type(f) == "function", what, "a module or a function", f)
  return f
end

local TimeConcat = define("TimeConcat", "nn.TimeConcat(module [, {dim = -1}]): f(t, z), where the module sees z " ..
  "with t as one more, last feature; of images, with dim = 2, as one more channel")
TimeConcat.time = true

function TimeConcat:init(module, opts)
  self.module = callable(module, "nn.TimeConcat")
  rawset(self, "dim", core.module_dimension(opts, "nn.TimeConcat"))
end

-- {..., n, ...} -> {..., n + 1, ...}
function TimeConcat:with_time(t, z)
  local shape, ones = core.resized(z, self.dim, 1, "nn.TimeConcat"), {}
  for d = 1, #shape do ones[d] = 1 end
  if type(t) == "number" then
    t = gq.full(shape, t, { dtype = z.dtype, device = z.device })
  else
    t = t:reshape(ones):to(z.dtype):expand(shape)
  end
  return gq.cat({ z, t }, self.dim)
end

function TimeConcat:forward(t, z)
  return run(self.module, t, self:with_time(t, z))
end

local SecondOrder = define("SecondOrder", "nn.SecondOrder(acceleration [, {dim = -1}]): state [x, v] in the last " ..
  "dimension, or in dim; returns [v, acceleration(t, [x, v])]")
SecondOrder.time = true

function SecondOrder:init(acceleration, opts)
  self.acceleration = callable(acceleration, "nn.SecondOrder")
  rawset(self, "dim", core.module_dimension(opts, "nn.SecondOrder"))
end

function SecondOrder:forward(t, z)
  local _, n = core.resized(z, self.dim, 0, "nn.SecondOrder")
  if n % 2 ~= 0 then
    core.fail(("nn.SecondOrder: %s holds x and v, so its size is even; got %s"):format(
      self.dim == -1 and "the last dimension" or "dimension " .. self.dim, describe(z)))
  end
  local v = z:narrow(self.dim, n // 2 + 1, n // 2)
  local a = self.acceleration(t, z)
  if not gq.is_tensor(a) or not core.same_shape(a, v) then
    core.fail(("nn.SecondOrder: the acceleration has the shape of x, %s; got %s"):format(core.dims(v.shape),
      describe(a)))
  end
  return gq.cat({ v, a }, self.dim)
end

local function activation_of(a)
  if type(a) == "string" and by_name[a:lower()] then return by_name[a:lower()]() end
  if type(a) == "function" or is_module(a) then return a end
  local names = {}
  for name in next, by_name do names[#names + 1] = name end
  table.sort(names)
  core.fail(("nn.mlp: activation: a function or one of %s expected, got %s"):format(table.concat(names, ", "),
    describe(a)))
end

-- Linear layers with an activation between them. With time = true the first has one more input, t, last.
function nn.mlp(opts)
  local o = options(opts, "sizes activation time bias dtype", "nn.mlp")
  need(o, "time", "boolean", false, "nn.mlp")
  local sizes = need(o, "sizes", "table", nil, "nn.mlp")
  if #sizes < 2 then core.fail("nn.mlp: sizes has at least two entries: {inputs, ..., outputs}") end
  local layers, activation = {}, o.activation or "softplus"
  activation_of(activation)
  for i = 1, #sizes - 1 do
    local extra = i == 1 and o.time and 1 or 0
    if math.type(sizes[i]) ~= "integer" then
      core.fail(("nn.mlp: sizes are integers, got %s"):format(describe(sizes[i])))
    end
    layers[#layers + 1] = nn.Linear(sizes[i] + extra, sizes[i + 1], { bias = o.bias, dtype = o.dtype })
    if i < #sizes - 1 then layers[#layers + 1] = activation_of(activation) end
  end
  local net = Sequential(layers)
  return o.time and TimeConcat(net) or net
end
gq.docs[nn.mlp] = "nn.mlp{ sizes = {2, 64, 2}, activation = \"softplus\", time = false }: Linear layers with an " ..
  "activation between them; time = true adds t as a last input"
