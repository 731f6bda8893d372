-- normalise.lua -- what layers do besides products: normalisations, dropout, embedding.

local gq = ...
local core = gq.core
local define, is_float, dims, moments = core.define, core.is_float, core.dims, core.moments
local options, need, describe, fail, expect = core.options, core.need, core.describe, core.fail, core.expect

-- ---- normalisations ----

local function check_affine(v, shape, what, name)
  if v ~= nil and (not gq.is_tensor(v) or dims(v.shape) ~= dims(shape)) then
    fail(("%s: %s: a tensor %s expected, got %s"):format(what, name, dims(shape), describe(v)))
  end
end

local function check_channels(x, what)
  expect(is_float(x) and x:dim() >= 2, what, "a float tensor {batch, channels, ...}", x)
end

local function scaled(x, w, b)
  if w then x = x * w end
  if b then x = x + b end
  return x
end

-- (x - mean) / sqrt(variance + eps) over the dimensions in list
local function standardised(x, list, eps)
  local mean, v = moments(x, list, 0)
  return (x - mean) * (v + eps):rsqrt()
end

local function list_of(first, last)
  local list = {}
  for d = first, last do list[#list + 1] = d end
  return list
end

local function layer_norm(x, shape, w, b, opts)
  local what = "gq.layer_norm"
  if type(w) == "table" and not gq.is_tensor(w) then w, opts = nil, w end
  local o = options(opts, "eps", what)
  expect(is_float(x), what, "a float tensor", x)
  if type(shape) == "number" then shape = { shape } end
  expect(type(shape) == "table" and #shape > 0, what, "the sizes of the last dimensions", shape)
  local d = x:dim()
  if #shape > d or dims({ table.unpack(x.shape, d - #shape + 1) }) ~= dims(shape) then
    fail(("%s: an input whose last dimensions are %s expected, got %s"):format(what, dims(shape), describe(x)))
  end
  check_affine(w, shape, what, "weight")
  check_affine(b, shape, what, "bias")
  return scaled(standardised(x, list_of(d - #shape + 1, d), need(o, "eps", "number", 1e-5, what)), w, b)
end
define("layer_norm", layer_norm, "gq.layer_norm(x, n | {sizes} [, w, b] [, {eps = 1e-5}]): mean 0 and variance " ..
  "1 over the last dimensions of each sample, then w and b entry by entry")

-- v {c} beside {batch, c, ...}
local function by_channel(v, d)
  if v == nil then return nil end
  local shape = { v.shape[1] }
  for i = 2, d - 1 do shape[i] = 1 end
  return v:reshape(shape)
end

local function group_norm(x, groups, w, b, opts)
  local what = "gq.group_norm"
  if type(w) == "table" and not gq.is_tensor(w) then w, opts = nil, w end
  local o = options(opts, "eps", what)
  check_channels(x, what)
  local s = x.shape
  if math.type(groups) ~= "integer" or groups < 1 or s[2] % groups ~= 0 then
    fail(("%s: groups = %s does not divide %d channels"):format(what, tostring(groups), s[2]))
  end
  check_affine(w, { s[2] }, what, "weight")
  check_affine(b, { s[2] }, what, "bias")
  local size = s[2] // groups
  for d = 3, #s do size = size * s[d] end
  local y = x:reshape(s[1], groups, size)
  y = standardised(y, { 3 }, need(o, "eps", "number", 1e-5, what)):reshape(s)
  return scaled(y, by_channel(w, #s), by_channel(b, #s))
end
define("group_norm", group_norm, "gq.group_norm(x, groups [, w, b] [, {eps = 1e-5}]): mean 0 and variance 1 " ..
  "over each group of channels of each sample, then w and b channel by channel")

define("instance_norm", function(x, w, b, opts)
  local what = "gq.instance_norm"
  expect(is_float(x) and x:dim() >= 3, what, "a float tensor {batch, channels, ...} of images or signals", x)
  return group_norm(x, math.max(x.shape[2], 1), w, b, opts)
end, "gq.instance_norm(x [, w, b] [, {eps = 1e-5}]): mean 0 and variance 1 over each channel of each sample, then w " ..
  "and b channel by channel")

-- Follows batch statistics: mean and variance (unbiased) move by `momentum`.
local function follow(running, batch, momentum)
  gq.no_grad(function()
    running:copy_(running * (1 - momentum) + batch:detach():reshape(running.shape) * momentum)
  end)
end

local function batch_norm(x, mean, var, w, b, opts)
  local what = "gq.batch_norm"
  if type(w) == "table" and not gq.is_tensor(w) then w, opts = nil, w end
  local o = options(opts, "training momentum eps", what)
  check_channels(x, what)
  local d, shape = x:dim(), { x.shape[2] }
  for name, v in next, { mean = mean, var = var, weight = w, bias = b } do check_affine(v, shape, what, name) end
  local training, eps = need(o, "training", "boolean", false, what), need(o, "eps", "number", 1e-5, what)
  local momentum = need(o, "momentum", "number", 0.1, what)
  if not training then
    if not mean or not var then fail(what .. ": without training, the running mean and variance are needed") end
    local scale = (var + eps):rsqrt()
    if w then scale = scale * w end
    return (x - by_channel(mean, d)) * by_channel(scale, d) + (b and by_channel(b, d) or 0)
  end
  if core.solving() then
    fail(what .. ": in training its statistics are the batch's, which mixes the samples: inside dynamics use " ..
      "training = false (nn.BatchNorm2d freezes its statistics there by itself)")
  end
  local list, n = list_of(3, d), x:numel() // math.max(shape[1], 1)
  table.insert(list, 1, 1)
  expect(n > 1, what, "in training, more than one value a channel", x)
  local m, v = moments(x, list, 0)
  if mean then follow(mean, m, momentum) end
  if var then follow(var, v * (n / (n - 1)), momentum) end
  return scaled((x - m) * (v + eps):rsqrt(), by_channel(w, d), by_channel(b, d))
end
define("batch_norm", batch_norm, "gq.batch_norm(x, mean, var [, w, b] [, {training = false, momentum = 0.1, eps = " ..
  "1e-5}]): by the running mean and variance of each channel; in training by the batch's, which those follow")

-- ---- dropout, embedding ----

-- Of what is dropped together there is one number: of x itself, or of its channels.
local function whole_channels(x)
  local shape = x.shape
  for d = 3, #shape do shape[d] = 1 end
  return shape
end
core.whole_channels = whole_channels

local function dropout(x, p, opts, what, shape_of)
  if type(p) == "table" then p, opts = nil, p end
  local o = options(opts, "training seed", what)
  expect(is_float(x), what, "a float tensor", x)
  if p == nil then p = 0.5 end
  expect(type(p) == "number" and p >= 0 and p < 1, what, "p in [0, 1)", p)
  if p == 0 or not need(o, "training", "boolean", true, what) then return x end
  local keep = gq.rand(shape_of(x), { seed = o.seed, device = x.device }):ge(p)
  return gq.where(keep, x * (1 / (1 - p)), 0)
end
define("dropout", function(x, p, opts)
  return dropout(x, p, opts, "gq.dropout", function(y) return y.shape end)
end, "gq.dropout(x [, p = 0.5] [, {training = true, seed}]): zeros with probability p, " ..
  "the rest divided by 1 - p; the mask is a function of the generator, or of seed")

define("dropout2d", function(x, p, opts)
  local what = "gq.dropout2d"
  expect(not is_float(x) or x:dim() >= 3, what, "images or signals {batch, channels, ...}", x)
  return dropout(x, p, opts, what, whole_channels)
end, "gq.dropout2d(x [, p = 0.5] [, {training = true, seed}]): gq.dropout of whole channels of {batch, channels, ...}")

local function embedding(indices, w, more)
  local what = "gq.embedding"
  if more ~= nil then fail(("%s takes indices and a weight, and knows no option: got %s behind them"):format(what,
    describe(more))) end
  if type(indices) == "table" and not gq.is_tensor(indices) then
    indices = gq.tensor(indices, { dtype = "int64" })
  end
  if not gq.is_tensor(indices) or indices.dtype ~= "int64" then
    fail(("%s: indices are an int64 tensor and count from 1, got %s"):format(what, describe(indices)))
  end
  expect(gq.is_tensor(w) and w:dim() == 2, what, "a weight {entries, size}", w)
  local low, high = 1, w.shape[1]
  if indices:numel() > 0 and core.solving() ~= true then       -- in a trace there are no numbers yet
    low, high = math.min(low, indices:min():item()), math.max(high, indices:max():item())
  end
  if low < 1 or high > w.shape[1] then
    fail(("%s: index %d is out of range 1 to %d, the entries of the weight"):format(what, low < 1 and low or high,
      w.shape[1]))
  end
  local shape = indices.shape
  shape[#shape + 1] = w.shape[2]
  return w:index_select(1, indices:reshape(-1)):reshape(shape)
end
define("embedding", embedding, "gq.embedding(indices, w): rows of w {entries, size} by 1-based indices of any shape")
