-- losses.lua -- losses beside gq.mse_loss and gq.cross_entropy, with PyTorch's names and formulas.

local gq = ...
local core = gq.core
local define, is_float = core.define, core.is_float
local options, need, one_of, describe, fail = core.options, core.need, core.one_of, core.describe, core.fail

local function check(x, what, name)
  if not is_float(x) then fail(("%s: %s: a float tensor expected, got %s"):format(what, name, describe(x))) end
  return x
end

local function same_shape(x, y, what)
  check(x, what, "the prediction")
  if not gq.is_tensor(y) then fail(("%s: a tensor of targets expected, got %s"):format(what, describe(y))) end
  local a, b = table.concat(x.shape, ", "), table.concat(y.shape, ", ")
  if a ~= b then fail(("%s: shapes {%s} and {%s} differ"):format(what, a, b)) end
end

local function reduce(x, o, what)
  local how = one_of(o, "reduction", { "mean", "sum", "none" }, what)
  return how == "mean" and x:mean() or how == "sum" and x:sum() or x
end

define("l1_loss", function(x, y, opts)
  local o = options(opts, "reduction", "l1_loss")
  same_shape(x, y, "l1_loss")
  return reduce((x - y):abs(), o, "l1_loss")
end, "gq.l1_loss(x, y [, {reduction = \"mean\"|\"sum\"|\"none\"}]): absolute difference")

define("huber_loss", function(x, y, opts)
  local o = options(opts, "reduction delta", "huber_loss")
  same_shape(x, y, "huber_loss")
  local delta = need(o, "delta", "positive", 1, "huber_loss")
  local d = (x - y):abs()
  local inner = d:clamp(nil, delta)                 -- squares up to delta, straight lines beyond
  return reduce(inner * (d - inner * 0.5), o, "huber_loss")
end, "gq.huber_loss(x, y [, {delta = 1, reduction}]): d^2 / 2 where d = |x - y| is below delta, delta (d - delta / 2) "
  .. "beyond")

define("gaussian_nll_loss", function(mean, y, variance, opts)
  local what = "gaussian_nll_loss"
  local o = options(opts, "reduction full eps", what)
  same_shape(mean, y, what)
  if type(variance) == "number" then variance = mean * 0 + variance end
  check(variance, what, "the variance")
  local eps = need(o, "eps", "number", 1e-6, what)
  local v = variance:clamp(eps)
  local d = y - mean
  local nll = (v:log() + d * d / v) * 0.5
  if need(o, "full", "boolean", false, what) then nll = nll + 0.5 * math.log(2 * math.pi) end
  return reduce(nll, o, what)
end, "gq.gaussian_nll_loss(mean, y, variance [, {full = false, eps = 1e-6, reduction}]): -log density of a normal "
  .. "distribution, with its constant where full; variance below eps counts as eps")

-- log_p {..., classes}, labels {...} from 1.
define("nll_loss", function(log_p, labels, opts)
  local what = "nll_loss"
  local o = options(opts, "reduction", what)
  check(log_p, what, "the log-probabilities")
  if type(labels) == "table" then labels = gq.tensor(labels, { dtype = "int64" }) end
  local shape = log_p.shape
  local classes = table.remove(shape)
  if not gq.is_tensor(labels) or labels.dtype ~= "int64" or not classes
    or table.concat(shape, ",") ~= table.concat(labels.shape, ",") then
    fail(("%s: log-probabilities {..., classes} and int64 labels {...} from 1 expected, got %s and %s"):format(what,
      describe(log_p), describe(labels)))
  end
  return reduce(-core.at_labels(log_p, labels, what), o, what)
end, "gq.nll_loss(log_p, labels [, {reduction}]): minus the log-probability of each label, which count from 1; log_p "
  .. "from x:log_softmax()")

-- log p clamped at -100, as PyTorch has it, with its slope of 1e12 there; by logits max(x, 0) - x y + log(1 + e^-|x|).
define("bce_loss", function(p, y, opts)
  local what = "bce_loss"
  local o = options(opts, "reduction logits", what)
  same_shape(p, y, what)
  if y.dtype ~= p.dtype then y = y:to(p.dtype) end
  if need(o, "logits", "boolean", false, what) then
    return reduce(p:softplus() - p * y, o, what)
  end
  if core.solving() ~= true and p:numel() > 0 and gq.no_grad(function()
    return p:lt(0):any():item() or p:gt(1):any():item()
  end) then
    fail(what .. ": probabilities from 0 to 1 expected; of logits say {logits = true}")
  end
  local function log(x)
    local low = x:le(math.exp(-100))
    return gq.where(low, x * 1e12 - 100, gq.where(low, 1, x):log())
  end
  return reduce(-(y * log(p) + (1 - y) * log(1 - p)), o, what)
end, "gq.bce_loss(p, y [, {logits = false, reduction}]): binary cross entropy of probabilities, or of logits, with "
  .. "targets from 0 to 1 (bool too)")
