-- losses.lua -- losses, with PyTorch's names and formulas, and the divergence of normals that are fitted to samples.
-- They work at once, in traces and to any order of derivative, and each is a method of tensors too.

local gq = ...
local core = gq.core
local define, is_float, expect = core.define, core.is_float, core.expect
local options, need, one_of, describe, fail = core.options, core.need, core.one_of, core.describe, core.fail

local function check(x, what, name)
  if not is_float(x) then fail(("%s: %s: a float tensor expected, got %s"):format(what, name, describe(x))) end
  return x
end

local function same_shape(x, y, what)
  expect(gq.is_tensor(x), what, "a tensor of predictions", x)
  expect(gq.is_tensor(y), what, "a tensor of targets", y)
  local a, b = core.dims(x.shape), core.dims(y.shape)
  if a ~= b then fail(("%s: shapes %s and %s differ"):format(what, a, b)) end
end

local function reduce(x, o, what)
  local how = one_of(o, "reduction", { "mean", "sum", "none" }, what)
  return how == "mean" and x:mean() or how == "sum" and x:sum() or x
end

-- ---- of predictions and targets ----

-- f(x, y, o, what): of each prediction and its target, with the options `names` beside reduction.
local function pointwise(what, names, f, doc)
  define(what, function(x, y, opts)
    local o = options(opts, "reduction " .. names, what)
    same_shape(x, y, what)
    return reduce(f(x, y, o, what), o, what)
  end, doc)
end

pointwise("mse_loss", "", function(x, y)
  local d = x - y
  return d * d
end, "gq.mse_loss(x, y [, {reduction = \"mean\"|\"sum\"|\"none\"}]): squared difference")

pointwise("l1_loss", "", function(x, y, _, what) return (check(x, what, "the prediction") - y):abs() end,
  "gq.l1_loss(x, y [, {reduction = \"mean\"|\"sum\"|\"none\"}]): absolute difference")

pointwise("huber_loss", "delta", function(x, y, o, what)
  local delta = need(o, "delta", "positive", 1, what)
  local d = (check(x, what, "the prediction") - y):abs()
  local inner = d:clamp(nil, delta)                 -- squares up to delta, straight lines beyond
  return inner * (d - inner * 0.5)
end, "gq.huber_loss(x, y [, {delta = 1, reduction}]): d^2 / 2 where d = |x - y| is below delta, delta (d - delta / 2) "
  .. "beyond")

-- log p clamped at -100, as PyTorch has it, with its slope of 1e12 there.
local function bounded_log(p)
  local low = p:le(math.exp(-100))
  return gq.where(low, p * 1e12 - 100, gq.where(low, 1, p):log())
end

local function is_probability(p)
  return gq.no_grad(function() return not (p:lt(0):any():item() or p:gt(1):any():item()) end)
end

pointwise("bce_loss", "logits", function(p, y, o, what)
  check(p, what, "the prediction")
  if y.dtype ~= p.dtype then y = y:to(p.dtype) end
  if need(o, "logits", "boolean", false, what) then return p:softplus() - p * y end
  if core.solving() ~= true and p:numel() > 0 and not is_probability(p) then
    fail(what .. ": probabilities from 0 to 1 expected; of logits say {logits = true}")
  end
  return -(y * bounded_log(p) + (1 - y) * bounded_log(1 - p))
end, "gq.bce_loss(p, y [, {logits = false, reduction}]): binary cross entropy of probabilities, or of logits, with "
  .. "targets from 0 to 1 (bool too)")

define("gaussian_nll_loss", function(mean, y, variance, opts)
  local what = "gaussian_nll_loss"
  local o = options(opts, "reduction full eps", what)
  check(mean, what, "the prediction")
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

-- ---- of classes ----

-- Labels {...} for x {..., classes}.
local function check_labels(x, labels, what, name)
  check(x, what, "the " .. name)
  if type(labels) == "table" then labels = gq.tensor(labels, { dtype = "int64" }) end
  local shape = x.shape
  local classes = table.remove(shape)
  if not gq.is_tensor(labels) or not classes or core.dims(shape) ~= core.dims(labels.shape) then
    fail(("%s: %s {..., classes} and labels {...} expected, got %s and %s"):format(what, name, describe(x),
      describe(labels)))
  end
  if labels.dtype ~= "int64" then
    fail(("%s: labels are int64 and count from 1, got %s"):format(what, describe(labels)))
  end
  return labels
end

-- Of x {..., classes} the entry at each of labels {...}.
local function at_labels(x, labels, what)
  local ok, picked = pcall(x.gather, x, -1, labels:unsqueeze(-1))
  if not ok then
    fail(("%s: labels count from 1 to %d, the classes (add 1 to labels that count from 0): %s"):format(what,
      x.shape[x:dim()], core.bare(tostring(picked))))
  end
  return picked:squeeze(-1)
end

define("cross_entropy", function(logits, labels, opts)
  local what = "cross_entropy"
  local o = options(opts, "reduction", what)
  labels = check_labels(logits, labels, what, "logits")
  return reduce(-at_labels(logits:log_softmax(-1), labels, what), o, what)
end, "gq.cross_entropy(logits, labels [, {reduction}]): -log softmax at the labels, which count from 1")

define("nll_loss", function(log_p, labels, opts)
  local what = "nll_loss"
  local o = options(opts, "reduction", what)
  return reduce(-at_labels(log_p, check_labels(log_p, labels, what, "log-probabilities"), what), o, what)
end, "gq.nll_loss(log_p, labels [, {reduction}]): minus the log-probability of each label, which count from 1; log_p "
  .. "from x:log_softmax()")

-- ---- of samples: the Kullback-Leibler divergence of the normals fitted to them ----

local function fitted(x, dim, what)
  if type(x) == "table" and gq.is_tensor(x.mean) and gq.is_tensor(x.std) then return x end
  expect(gq.is_tensor(x), what, "samples or {mean, std}", x)
  local n, along = 1, core.axes(x, dim or -1, what)
  for _, d in ipairs(along) do n = n * x.shape[d] end
  if n < 2 then
    fail(("%s: two samples or more are needed for a standard deviation, and dimension %s of {%s} has %d: dim = says " ..
      "which dimension they are along"):format(what, table.concat(along, ", "), table.concat(x.shape, ", "), n))
  end
  return gq.normal_fit(x, dim)
end

-- KL(x || y) of the normals with the samples' means and unbiased standard deviations plus eps, averaged.
-- time: a dimension of the means whose first entry counts as zero in the average: at t_0 every sample is
-- the start itself, and what rounding leaves of the means would be divided by eps.
define("gaussian_kl", function(x, y, opts)
  local what = "gaussian_kl"
  local o = options(opts, "dim time eps reduction", what)
  local p, q = fitted(x, o.dim, what), fitted(y, o.dim, what)
  same_shape(p.mean, q.mean, what)
  local eps = need(o, "eps", "number", 1e-9, what)
  local function part(v)
    if not o.time then return v end
    local d = core.axes(v, o.time, what)[1]
    return v:narrow(d, 2, v.shape[d] - 1)
  end
  local m, n = part(p.mean), part(q.mean)
  local s, r = part(p.std) + eps, part(q.std) + eps
  local difference = (m - n) / r
  local ratio = s / r
  local kl = (ratio * ratio + difference * difference) * 0.5 - ratio:log() - 0.5
  if o.time and (o.reduction or "mean") == "mean" then return kl:sum() / p.mean:numel() end
  return reduce(kl, o, what)
end, "gq.gaussian_kl(x, y [, {dim, time, eps, reduction}]): mean KL(x || y) of the normals fitted to samples along " ..
  "dim (the last); x, y may be gq.normal_fit's; the first entry of dimension `time` counts as zero")
