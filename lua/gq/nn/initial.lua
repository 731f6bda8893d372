-- nn/initial.lua -- gq.nn.init: numbers for parameters to start from, written in place, by PyTorch's names with or
-- without the underscore at the end.

local gq = ...
local core = gq.core
local options, need, one_of, describe, fail = core.options, core.need, core.one_of, core.describe, core.fail
local init = {}
gq.nn.init = init

local function define(name, f, doc)
  local function checked(t, ...)
    core.expect(core.is_float(t), "nn.init." .. name, "a float tensor", t)
    local x = f(t, ...)
    gq.no_grad(function() t:copy_(x) end)
    return t
  end
  init[name], init[name .. "_"] = checked, checked
  gq.docs[checked] = doc
end

local function like(t) return { dtype = t.dtype, device = t.device } end

-- Inputs and outputs of one number of a layer's: {out, in, k..}.
local function fans(t, what)
  local s = t.shape
  core.expect(#s >= 2, "nn.init." .. what, "at least 2 dimensions", t)
  local k = 1
  for i = 3, #s do k = k * s[i] end
  return s[2] * k, s[1] * k
end

local function uniform(t, a, b) return gq.rand(t.shape, like(t)) * (b - a) + a end
local function normal(t, std, mean) return gq.randn(t.shape, like(t)) * std + (mean or 0) end

local function number(v, default, what, name)
  return need({ [name] = v }, name, "number", default, "nn.init." .. what)
end

define("uniform", function(t, a, b) return uniform(t, number(a, 0, "uniform", "a"), number(b, 1, "uniform", "b")) end,
  "nn.init.uniform_(t [, a = 0 [, b = 1]]): uniform between a and b, in place; returns t")
define("normal", function(t, mean, std)
  return normal(t, number(std, 1, "normal", "std"), number(mean, 0, "normal", "mean"))
end, "nn.init.normal_(t [, mean = 0 [, std = 1]]): normal, in place; returns t")
define("constant", function(t, x) return gq.full(t.shape, number(x, nil, "constant", "value"), like(t)) end,
  "nn.init.constant_(t, value): one number, in place; returns t")
define("zeros", function(t) return gq.zeros(t.shape, like(t)) end, "nn.init.zeros_(t): zeros, in place; returns t")
define("ones", function(t) return gq.ones(t.shape, like(t)) end, "nn.init.ones_(t): ones, in place; returns t")

-- Uniform numbers taken back through the distribution function, by halving [a, b].
define("trunc_normal", function(t, mean, std, a, b)
  mean, std = number(mean, 0, "trunc_normal", "mean"), number(std, 1, "trunc_normal", "std")
  a, b = number(a, -2, "trunc_normal", "a"), number(b, 2, "trunc_normal", "b")
  if not (std > 0 and a < b) then
    fail(("nn.init.trunc_normal: std above 0 and a below b expected, got std = %s, a = %s, b = %s"):format(std, a, b))
  end
  local wide = { dtype = "float64", device = t.device }
  local function below(x) return ((x - mean) / (std * math.sqrt(2))):erf() end
  local low, high = gq.full(t.shape, math.max(a, math.min(mean, b) - 40 * std), wide),
    gq.full(t.shape, math.min(b, math.max(mean, a) + 40 * std), wide)
  local from, to = below(low), below(high)
  local u = from + gq.rand(t.shape, wide) * (to - from)
  for _ = 1, 60 do
    local middle = (low + high) / 2
    local left = below(middle):gt(u)
    low, high = gq.where(left, low, middle), gq.where(left, middle, high)
  end
  return low:to(t.dtype):clamp(a, b)
end, "nn.init.trunc_normal_(t [, mean = 0 [, std = 1 [, a = -2 [, b = 2]]]]): normal between a and b, in place; " ..
  "returns t")

define("eye", function(t)
  local s = t.shape
  core.expect(#s == 2, "nn.init.eye", "a matrix", t)
  local n = math.max(s[1], s[2])
  return gq.eye(n, like(t))[{ { 1, s[1] }, { 1, s[2] } }]
end, "nn.init.eye_(t): a matrix with ones on its diagonal, in place; returns t")

define("dirac", function(t, groups)
  local s, what = t.shape, "nn.init.dirac"
  groups = need({ groups = groups }, "groups", "count", 1, what)
  if #s < 3 or s[1] % groups ~= 0 then
    fail(("%s: a kernel {c_out, c_in/groups, k..} whose c_out groups = %d divides expected, got %s"):format(what,
      groups, describe(t)))
  end
  local x, middle, each = gq.zeros(s, like(t)), {}, s[1] // groups
  for d = 3, #s do middle[d - 2] = s[d] // 2 + 1 end
  for i = 0, s[1] - 1 do
    local channel = i % each + 1
    if channel <= s[2] then x[{ i + 1, channel, table.unpack(middle) }] = 1 end
  end
  return x
end, "nn.init.dirac_(t [, groups = 1]): a convolution that passes its channels on, in place; returns t")

define("sparse", function(t, sparsity, std)
  local s, what = t.shape, "nn.init.sparse"
  sparsity = need({ sparsity = sparsity }, "sparsity", "number", nil, what)
  if #s ~= 2 or not (sparsity >= 0 and sparsity <= 1) then
    fail(("%s: a matrix and a part of it, from 0 to 1, that is zero expected, got %s and %s"):format(what, describe(t),
      describe(sparsity)))
  end
  local x, zeros = normal(t, number(std, 0.01, "sparse", "std")), math.ceil(sparsity * s[1])
  local rank = gq.rand(s, { device = t.device }):argsort(1):argsort(1)
  return gq.where(rank:gt(zeros), x, 0)
end, "nn.init.sparse_(t, sparsity [, std = 0.01]): normal, a part of each column zero, in place; returns t")

-- What an activation makes of the size of its input: He et al. (2015) and PyTorch's table.
local function gain(name, a, what)
  local gains = { linear = 1, sigmoid = 1, identity = 1, tanh = 5 / 3, relu = math.sqrt(2), selu = 0.75,
    leaky_relu = math.sqrt(2 / (1 + a * a)) }
  return gains[one_of({ nonlinearity = name }, "nonlinearity", { "leaky_relu", "relu", "tanh", "sigmoid", "linear",
    "identity", "selu" }, what)]
end

local function kaiming(name, draw)
  define(name, function(t, opts)
    local what = "nn.init." .. name
    local o = options(opts, "a mode nonlinearity", what)
    local fan_in, fan_out = fans(t, name)
    local fan = one_of(o, "mode", { "fan_in", "fan_out" }, what) == "fan_in" and fan_in or fan_out
    return draw(t, gain(o.nonlinearity or "leaky_relu", need(o, "a", "number", 0, what), what) / math.sqrt(fan))
  end, ("nn.init.%s_(t [, {a = 0, mode = \"fan_in\", nonlinearity = \"leaky_relu\"}]): He et al. (2015), in place; " ..
    "returns t"):format(name))
end

local function xavier(name, draw)
  define(name, function(t, g)
    local fan_in, fan_out = fans(t, name)
    return draw(t, number(g, 1, name, "gain") * math.sqrt(2 / (fan_in + fan_out)))
  end, ("nn.init.%s_(t [, gain = 1]): Glorot and Bengio (2010), in place; returns t"):format(name))
end

local function draw_uniform(t, std) return uniform(t, -math.sqrt(3) * std, math.sqrt(3) * std) end
kaiming("kaiming_uniform", draw_uniform)
kaiming("kaiming_normal", normal)
xavier("xavier_uniform", draw_uniform)
xavier("xavier_normal", normal)

-- Rows that are orthonormal, by Gram and Schmidt twice over (Kahan: twice is enough).
local function orthonormal(n, m)
  local rows = {}
  for i = 1, n do
    local v = gq.randn({ m }, { dtype = "float64", device = "cpu" })
    for _ = 1, 2 do
      if i > 1 then
        local q = gq.stack(rows)
        v = v - q:t():matmul(q:matmul(v))
      end
    end
    rows[i] = v / v:norm()
  end
  return gq.stack(rows)
end

define("orthogonal", function(t, g)
  local s = t.shape
  core.expect(#s >= 2, "nn.init.orthogonal", "at least 2 dimensions", t)
  local n, m = s[1], t:numel() // math.max(s[1], 1)
  if n * m == 0 then return t end
  local q = n <= m and orthonormal(n, m) or orthonormal(m, n):t()
  return (q * number(g, 1, "orthogonal", "gain")):reshape(s):to(t.dtype):to(t.device)
end, "nn.init.orthogonal_(t [, gain = 1]): rows (or columns, where they are fewer) orthonormal, in place; returns t")

function init.calculate_gain(name, a)
  return gain(name, number(a, 0.01, "calculate_gain", "a"), "nn.init.calculate_gain")
end
gq.docs[init.calculate_gain] = "nn.init.calculate_gain(nonlinearity [, a]): what it makes of the size of its input"
