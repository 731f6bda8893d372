-- functional.lua -- functions made of the operations: reductions, softmax, norms, activations. They work at
-- once, in traces and to any order of derivative, and each is a method of tensors too.

local gq = ...
local describe, define, fail, expect = gq.core.describe, gq.core.define, gq.core.fail, gq.core.expect

local function checkfloat(x, what)
  expect(gq.is_tensor(x), what, "tensor", x)
  if x.dtype ~= "float32" and x.dtype ~= "float64" then
    fail(("%s: a float tensor expected, got %s: convert with :to(\"float32\")"):format(what, describe(x)))
  end
  return x
end

-- ---- dimensions ----

-- A dimension as a positive number.
local function axis(x, d, what)
  local n = x:dim()
  if math.type(d) ~= "integer" or d == 0 or d > n or d < -n then
    fail(("%s: dimension %s of a tensor of %d dimensions"):format(what, tostring(d), n))
  end
  return d > 0 and d or d + n + 1
end

gq.core.axis = axis

-- A dimension, a list of them, or nil for all, as a sorted list of positive ones.
local function axes(x, dims, what)
  local list, seen = {}, {}
  if type(dims) == "table" then
    for key in next, dims do
      if type(key) == "string" then
        fail(("%s: a list of dimensions expected, got the key '%s': write x:%s(dim)"):format(what, key, what))
      end
    end
  end
  if dims == nil or type(dims) == "table" and #dims == 0 then
    for d = 1, x:dim() do list[d] = d end
    return list
  end
  if type(dims) == "number" then dims = { dims } end
  expect(type(dims) == "table", what, "a dimension or a list of them", dims)
  for _, d in ipairs(dims) do
    d = axis(x, d, what)
    if seen[d] then fail(("%s: dimension %d is given twice"):format(what, d)) end
    seen[d], list[#list + 1] = true, d
  end
  table.sort(list)
  return list
end

gq.core.axes = axes

local function count(x, list)
  local n, shape = 1, x.shape
  for _, d in ipairs(list) do n = n * shape[d] end
  return n
end

-- Sum over the dimensions in list, kept as 1. (sum({}) would mean all of them.)
local function total(x, list)
  if #list == 0 then return x end
  return x:sum(list, true)
end

-- Without the dimensions in list, which have size 1.
local function drop(x, list)
  if #list == 0 then return x end
  local gone, shape = {}, {}
  for _, d in ipairs(list) do gone[d] = true end
  for d, n in ipairs(x.shape) do
    if not gone[d] then shape[#shape + 1] = n end
  end
  return x:reshape(shape)
end

-- The same numbers as a constant, which saves a backward pass. A traced value stays as it is: where this
-- is used, the value cancels, and its derivative with it.
local function constant(x)
  local ok, y = pcall(x.detach, x)
  return ok and y or x
end

-- ---- moments ----

-- x less its first entry along the dimensions, and that entry: sums of the difference are exact where all
-- entries are equal, and lose nothing where the mean is large.
local function shifted(x, list)
  local c = x
  for _, d in ipairs(list) do c = c:narrow(d, 1, 1) end
  c = constant(c)
  return x - c, c
end

-- Mean and variance over the dimensions in list, kept as 1.
local function moments(x, list, correction)
  local n = count(x, list)
  if n == 0 then return total(x, list) / 0, total(x, list) / 0 end
  if #list == 0 then return x, correction == 0 and x * 0 or x * 0 / 0 end
  local d, c = shifted(x, list)
  local mean = total(d, list) / n
  local e = d - mean
  local sum = total(e * e, list)
  return c + mean, sum / math.max(n - correction, 0)
end

gq.core.moments = moments

-- The root with derivative zero at zero, where the true one is infinite.
local function root(v)
  local zero = v:eq(0)
  return gq.where(zero, 0, gq.where(zero, 1, v):sqrt())
end

-- dims, keepdim and a trailing table of options in any prefix of that order.
local function reduction(x, dims, keepdim, opts, names, what)
  if names ~= "" and type(dims) == "table" and type(next(dims)) == "string" then dims, opts = nil, dims end
  if type(keepdim) == "table" then keepdim, opts = nil, keepdim end
  if keepdim ~= nil and type(keepdim) ~= "boolean" then
    fail(("%s: keepdim is true or false, got %s"):format(what, describe(keepdim)))
  end
  return axes(x, dims, what), keepdim, gq.core.options(opts, names, what)
end

local function variance(x, dims, keepdim, opts, what)
  checkfloat(x, what)
  local list, keep, o = reduction(x, dims, keepdim, opts, "correction", what)
  local correction = gq.core.need(o, "correction", "number", 1, what)
  local mean, v = moments(x, list, correction)
  return list, keep, v, mean
end

local function var(x, dims, keepdim, opts)
  local list, keep, v = variance(x, dims, keepdim, opts, "var")
  return keep and v or drop(v, list)
end
define("var", var, "x:var([dims [, keepdim [, {correction = 1}]]]): variance; unbiased unless correction = 0")

local function std(x, dims, keepdim, opts)
  local list, keep, v = variance(x, dims, keepdim, opts, "std")
  return keep and root(v) or drop(root(v), list)
end
define("std", std, "x:std([dims [, keepdim [, {correction = 1}]]]): standard deviation; derivative 0 where it is 0")

-- ---- softmax and its relations ----

-- The largest entry along the dimensions, 0 where it is infinite, as a constant shift.
local function shift(x, list)
  local m = constant(x:max(list, true))
  return gq.where(m:abs():lt(math.huge), m, 0)
end

local function logsumexp(x, dims, keepdim)
  checkfloat(x, "logsumexp")
  local list, keep = reduction(x, dims, keepdim, nil, "", "logsumexp")
  if #list == 0 then return x:clone() end
  local empty = count(x, list) == 0
  local m = empty and 0 or shift(x, list)
  local s = total((x - m):exp(), list):log() + m
  return keep and s or drop(s, list)
end
define("logsumexp", logsumexp, "x:logsumexp([dims [, keepdim]]): log of the sum of exponentials, without overflow")

local function softmax(x, dim)
  checkfloat(x, "softmax")
  local list = axes(x, dim or -1, "softmax")
  if count(x, list) == 0 then return x end
  local e = (x - shift(x, list)):exp()
  return e / total(e, list)
end
define("softmax", softmax, "x:softmax([dim]): exponentials that sum to one along dim (the last by default)")

local function log_softmax(x, dim)
  checkfloat(x, "log_softmax")
  local list = axes(x, dim or -1, "log_softmax")
  if count(x, list) == 0 then return x end
  local y = x - shift(x, list)
  return y - total(y:exp(), list):log()
end
define("log_softmax", log_softmax, "x:log_softmax([dim]): logarithm of softmax, without overflow")

-- ---- norms ----

-- As the other reductions take them, x:norm(dims, keepdim) is known by what no p is.
local function norm(x, p, dims, keepdim)
  checkfloat(x, "norm")
  if type(p) == "table" or type(dims) == "boolean" or math.type(p) == "integer" and p < 0 then
    p, dims, keepdim = nil, p, dims
  end
  local list, keep = reduction(x, dims, keepdim, nil, "", "norm")
  p = p or 2
  if type(p) ~= "number" or p <= 0 or p ~= p then
    fail(("norm: p is a positive number or math.huge, got %s"):format(describe(p)))
  end
  local y
  if p == 2 then
    y = root(total(x * x, list))
  elseif p == 1 then
    y = total(x:abs(), list)
  elseif p == math.huge then
    y = count(x, list) > 0 and #list > 0 and x:abs():max(list, true) or total(x:abs(), list)
  else
    local s = total(x:abs() ^ p, list)
    local zero = s:eq(0)
    y = gq.where(zero, 0, gq.where(zero, 1, s) ^ (1 / p))
  end
  return keep and y or drop(y, list)
end
define("norm", norm, "x:norm([p [, dims [, keepdim]]]): p-norm, 2 by default, math.huge for the largest; " ..
  "derivative 0 at 0; x:norm({dims}) or x:norm(-1), also with keepdim behind it, is the 2-norm along them")

-- ---- activations ----

-- A float tensor, or a number as one of the default dtype, as the operations take it.
local function operand(x, what) return math.type(x) and gq.tensor(x) or checkfloat(x, what) end

-- The number beside x, or the one by which it is without.
local function beside(v, default, what, name)
  return gq.core.need({ [name] = v }, name, "number|tensor", default, what)
end

local function elu(x, alpha)
  x = operand(x, "elu")
  local above = x:gt(0)
  return gq.where(above, x, gq.where(above, 0, x):expm1() * beside(alpha, 1, "elu", "alpha"))
end
define("elu", elu, "x:elu([alpha]): x above 0, alpha (e^x - 1) below")

local function gelu(x, other)
  gq.core.alone("gelu", other)
  x = operand(x, "gelu")
  return x * 0.5 * ((x * (1 / math.sqrt(2))):erf() + 1)
end
define("gelu", gelu, "x:gelu(): x times the normal distribution function at x")

local function silu(x, other)
  gq.core.alone("silu", other)
  x = operand(x, "silu")
  return x * x:sigmoid()
end
define("silu", silu, "x:silu(): x sigmoid(x)")

local function leaky_relu(x, slope)
  x = operand(x, "leaky_relu")
  return gq.where(x:gt(0), x, x * beside(slope, 0.01, "leaky_relu", "slope"))
end
define("leaky_relu", leaky_relu, "x:leaky_relu([slope]): x above 0, slope x below (0.01 by default)")

-- ---- trigonometry ----

local function asin(x, other)
  gq.core.alone("asin", other)
  x = operand(x, "asin")
  return (x / ((1 - x):sqrt() * (1 + x):sqrt() + 1)):atan() * 2
end
define("asin", asin, "x:asin(): arc sine, -pi/2 to pi/2; NaN beyond -1 and 1, where the derivative is infinite")

local function acos(x, other)
  gq.core.alone("acos", other)
  x = operand(x, "acos")
  return ((1 - x):sqrt() / ((1 + x):sqrt() + math.sqrt(2))):atan() * 4
end
define("acos", acos, "x:acos(): arc cosine, 0 to pi; NaN beyond -1 and 1, where the derivative is infinite")

-- e^(x / 2) - 1 and e^(-x / 2) - 1: sinh(x) = 2 sinh(x / 2) cosh(x / 2), cosh(x) = 1 + 2 sinh(x / 2)^2, which keep
-- small numbers and overflow no sooner than they must.
local function halves(x, what)
  x = operand(x, what) * 0.5
  return x:expm1(), (-x):expm1()
end

local function sinh(x, other)
  gq.core.alone("sinh", other)
  local e, f = halves(x, "sinh")
  return (e - f) * ((e + f) / 2 + 1)
end
define("sinh", sinh, "x:sinh(): hyperbolic sine")

local function cosh(x, other)
  gq.core.alone("cosh", other)
  local e, f = halves(x, "cosh")
  return (e - f) * ((e - f) / 2) + 1
end
define("cosh", cosh, "x:cosh(): hyperbolic cosine")

-- Has x a minus sign? -0 has.
local function minus(x) return gq.where(x:eq(0), x:reciprocal(), x):lt(0) end

-- The quotient of the smaller by the larger, and the quarter or half turns that it lacks. Two infinities lie on a
-- diagonal.
local function atan2(y, x)
  y, x = operand(y, "atan2"), operand(x, "atan2")
  local flat, far = x:abs():ge(y:abs()), gq.minimum(x:abs(), y:abs()):eq(math.huge)
  local above, below = gq.where(flat, y, x), gq.where(flat, x, y)
  local slope = gq.where(far, y:sign() * x:sign(), above / gq.where(below:eq(0), 1, below))
  local angle = slope:atan()
  local half = (1 - minus(y):to(angle.dtype) * 2) * math.pi
  return gq.where(flat, gq.where(minus(x), angle + half, angle), half / 2 - angle)
end
define("atan2", atan2, "gq.atan2(y, x): the angle of the point (x, y), -pi to pi; at the origin 0 or, where x is " ..
  "-0, pi")

-- ---- samples ----

-- x with dimension d behind the others
local function last(x, d)
  local order = {}
  for i = 1, x:dim() do
    if i ~= d then order[#order + 1] = i end
  end
  if d == #order + 1 then return x end
  order[#order + 1] = d
  return x:permute(table.unpack(order))
end

-- Mean and standard deviation over the samples of one dimension (the last by default), without it: one operation,
-- or, where dynamics are traced, those that they are made of.
local function normal_fit(x, dim)
  checkfloat(x, "normal_fit")
  local list = axes(x, dim or -1, "normal_fit")
  if #list == 1 and count(x, list) > 0 then
    local mean, deviation = gq.core.normal_fit(last(x, list[1]))
    if mean then return { mean = mean, std = deviation } end
  end
  local mean, v = moments(x, list, 1)
  return { mean = drop(mean, list), std = drop(root(v), list) }
end
gq.normal_fit = normal_fit
gq.docs[normal_fit] = "gq.normal_fit(x [, dim]): {mean, std} of the samples along dim, for gq.gaussian_kl"
