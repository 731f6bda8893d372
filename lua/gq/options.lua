-- options.lua -- one trailing table of options, checked: an unknown key is an error that names the
-- nearest known one. Errors name the line of the script that called into this library.

local gq = ...
local fail = gq.core.fail

-- Changes that make one word of the other, neighbours that changed places being one.
local function distance(a, b)
  local row, above, last = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    above, last = last, row
    row = { [0] = i }
    for j = 1, #b do
      row[j] = math.min(last[j - 1] + (a:byte(i) == b:byte(j) and 0 or 1), last[j] + 1, row[j - 1] + 1)
      if above and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], above[j - 2] + 1)
      end
    end
  end
  return row[#b]
end

-- The known name nearest to what was given; nil if none is near.
local function nearest(name, known)
  local best, least = nil, 3 + #name // 4
  for _, k in ipairs(known) do
    local d = distance(name:sub(1, 64), k)
    if d < least then best, least = k, d end
  end
  return best
end

local function words(text)
  local list = {}
  for w in text:gmatch("%S+") do list[#list + 1], list[w] = w, true end
  return list
end

-- What other libraries call options.
local elsewhere = { learning_rate = "lr", wd = "weight_decay", weight_decay_rate = "weight_decay", bs = "batch_size",
  batch = "batch_size", n_epochs = "epochs", num_epochs = "epochs", max_epochs = "epochs", iterations = "steps",
  max_steps = "steps", criterion = "loss", loss_fn = "loss", net = "model", dataset = "data", train_data = "data",
  train_loader = "data", callbacks = "on_epoch", callback = "on_epoch", early_stopping = "patience",
  save_best = "keep_best", scheduler = "schedule", grad_clip = "clip", clip_grad = "clip", hidden = "sizes",
  layers = "sizes", dims = "sizes", hidden_sizes = "sizes", filename = "out", path = "out", file = "out", save = "out",
  savefig = "out", linestyle = "style", marker = "style", colour = "color", c = "color", legend = "label",
  name = "label", xlim = "xrange", ylim = "yrange", scale = "log", n_workers = "workers", jobs = "workers",
  n_jobs = "workers", params = "grid", timeout = "time_limit", t_max = "steps", total_steps = "steps", eta_min = "last",
  step_size = "every", warmup_steps = "warmup", decay = "gamma", pad = "padding", act = "activation",
  nonlinearity = "activation", optimizer = "optimiser", f = "drift", g = "diffusion",
  noise_type = "noise", sde_type = "calculus" }

-- What to write for options of PyTorch that there are none of here: option, whose, words.
local instead = {
  { "ceil_mode", "max_pool", "gq.pad(x, {0, n, 0, n}, {value = -math.huge}) in front completes the last windows" },
  { "ceil_mode", "avg_pool", "with p = {0, n, 0, n}, which completes the last windows, the mean of gq.pad(x, p) "
    .. "divided by that of gq.pad(gq.ones_like(x), p)" },
  { "return_indices", "max_pool", "x:argmax(dim) tells where the largest of a dimension is" },
  { "divisor_override", "avg_pool", "times the size of the kernel and divided by the divisor" },
  { "track_running_stats", "batch_norm", "gq.batch_norm(x, nil, nil, w, b, {training = true}) goes by the batch "
    .. "alone" },
  { "elementwise_affine", "layer_norm", "affine" },
  { "bias", "layer_norm", "affine = false, which leaves out weight and bias" },
  { "padding_idx", "embedding", "times indices:ne(i):to(w.dtype):unsqueeze(-1), zero for entry i, and so its "
    .. "gradient" },
  { "output_size", "conv_transpose", "output_padding, what is to come behind" },
  { "label_smoothing", "cross_entropy", "(1 - s) * gq.cross_entropy(x, y) - s * x:log_softmax():mean()" },
  { "weight", "cross_entropy", "with w = weight:index_select(1, y), (gq.cross_entropy(x, y, {reduction = \"none\"}) * "
    .. "w):sum() / w:sum()" },
  { "weight", "nll_loss", "with w = weight:index_select(1, y), (gq.nll_loss(p, y, {reduction = \"none\"}) * w):sum() / "
    .. "w:sum()" },
  { "ignore_index", "cross_entropy", "with keep = y:ne(i), gq.cross_entropy(x[keep], y[keep])" },
  { "ignore_index", "nll_loss", "with keep = y:ne(i), gq.nll_loss(p[keep], y[keep])" },
  { "weight", "bce_loss", "(gq.bce_loss(p, y, {reduction = \"none\"}) * weight):mean()" },
  { "pos_weight", "bce_loss", "(pos_weight * y * (-x):softplus() + (1 - y) * x:softplus()):mean()" },
  { "beta", "huber_loss", "delta = beta, and the loss divided by beta" },
  { "size_average", "loss", "reduction = \"mean\" or \"sum\"" },
  { "eta_min", "cosine", "last = eta_min / lr, as a part of the learning rate" },
  { "min_lr", "plateau", "least" },
  { "device", "nn.", "net:to(\"cuda\")" },
}

-- The words for an option of `what`, as "gq.max_pool2d" or "nn.MaxPool2d".
local function instead_of(key, what)
  local plain = what:gsub("(%l)(%u)", "%1_%2"):lower()
  for _, row in ipairs(instead) do
    if row[1] == key and plain:find(row[2], 1, true) then return row[3] end
  end
end

-- "gq = {nodes = ...}" where a table among the options of `what` has the key.
function gq.core.place_of(key, what)
  local prefix = what:gsub("^gq%.", "") .. "/"
  for _, row in ipairs(gq.core.accepts()) do
    if row[1]:sub(1, #prefix) == prefix and (" " .. row[2] .. " "):find(" " .. key .. " ", 1, true) then
      return ("%s = {%s = ...}"):format(row[1]:sub(#prefix + 1), key)
    end
  end
end

local cache = {}

-- options(given, "batch_size shuffle seed", "gq.data.batches"): the table itself, or an empty one.
local function options(given, names, what)
  if given == nil then return {} end
  if type(given) ~= "table" then
    fail(("%s: options are one table, as {%s = ...}; got %s"):format(what, names:match("%S+"),
      gq.core.describe(given)))
  end
  if gq.core.is_module and gq.core.is_module(given) then
    fail(("%s: options are one table, as {%s = ...}; a module given: name it"):format(what, names:match("%S+")))
  end
  local known = cache[names] or words(names)
  cache[names] = known
  for k in next, given do
    if type(k) ~= "string" then
      local entry = math.type(k) == "integer" and "an entry without a name" or "the key " .. tostring(k)
      fail(("%s: options have names, as {%s = ...}; got %s"):format(what, names:match("%S+"), entry))
    elseif not known[k] then
      local ours, near = instead_of(k, what), elsewhere[k:lower()]
      near = near and known[near] and near or nearest(k, known)
      fail(("%s: unknown option '%s'%s (known: %s)"):format(what, k,
        ours and "; here: " .. ours or near and (", did you mean '%s'?"):format(near) or "", table.concat(known, ", ")))
    end
  end
  return given
end

-- Sizes, or what was given for them, for messages.
local function dims(list)
  local text = {}
  for i = 1, #list do text[i] = tostring(list[i]) end
  return "{" .. table.concat(text, ", ") .. "}"
end

local function same_shape(x, y) return dims(x.shape) == dims(y.shape) end

-- What a value is, for messages.
local function describe(v)
  if gq.is_tensor(v) then return ("tensor %s %s"):format(v.dtype, dims(v.shape)) end
  if type(v) == "string" then return ("string %q"):format(#v > 40 and v:sub(1, 40) .. "..." or v) end
  if type(v) == "number" then return "number " .. tostring(v) end
  return type(v)
end

-- expect(ok, "gq.dot", "a vector", v): unless ok, the error "gq.dot: a vector expected, got number 3".
local function expect(ok, what, wanted, v)
  if not ok then fail(("%s: %s expected, got %s"):format(what, wanted, describe(v))) end
end

-- need(o, "epochs", "integer", default, what): one option of the right type. kind: a Lua type, "integer",
-- "positive" (a number above 0), "count" (an integer of at least 1), "callable" or "tensor"; any of several
-- with "|" between them.
local tests = {
  integer = function(v) return math.type(v) == "integer" or (type(v) == "number" and v % 1 == 0) end,
  count = function(v) return type(v) == "number" and v >= 1 and v % 1 == 0 and v < 2 ^ 53 end,
  positive = function(v) return type(v) == "number" and v > 0 and v < math.huge end,
  callable = function(v)
    local m = getmetatable(v)
    return type(v) == "function" or (type(m) == "table" and m.__call ~= nil)
  end,
  tensor = function(v) return gq.is_tensor(v) end,
}
local names = { integer = "an integer", count = "an integer of at least 1", positive = "a positive number",
  callable = "a function", tensor = "a tensor", number = "a number", string = "a string", table = "a table",
  boolean = "true or false" }

local function need(o, key, kinds, default, what)
  local v = o[key]
  if v == nil then v = default end
  if v == nil then fail(("%s: the option '%s' is missing"):format(what, key)) end
  local expected = {}
  for kind in kinds:gmatch("[^|]+") do
    local test = tests[kind]
    if test and test(v) or not test and type(v) == kind then
      if kind == "count" or kind == "integer" then return math.tointeger(v) end
      return v
    end
    expected[#expected + 1] = names[kind] or kind
  end
  fail(("%s: option %s: %s expected, got %s"):format(what, key, table.concat(expected, " or "), describe(v)))
end

-- One option of a list of names, the first of them by default.
local function one_of(o, key, choices, what)
  local v = o[key]
  if v == nil then return choices[1] end
  for _, choice in ipairs(choices) do
    if v == choice then return v end
  end
  local near = type(v) == "string" and nearest(v, choices)
  fail(("%s: option %s: one of %s expected, got %s%s"):format(what, key, table.concat(choices, ", "), describe(v),
    near and (", did you mean %q?"):format(near) or ""))
end

-- The options with changes, in a table of their own.
local function copy(opts, changes)
  local o = {}
  for k, v in next, opts do o[k] = v end
  for k, v in next, changes do o[k] = v end
  return o
end

local function is_float(x) return gq.is_tensor(x) and (x.dtype == "float32" or x.dtype == "float64") end

-- A function that is a method of tensors too.
local function define(name, f, doc)
  gq[name] = f
  gq.core.methods[name] = f
  gq.docs[f] = doc
end

-- An error's text without the place it happened at.
function gq.core.bare(text) return text:match("^[^\n:]+:%d+: (.*)$") or text end

-- Of an error by `name`, as "gq.sweep", what it says.
function gq.core.said(e, name) return (tostring(e):gsub("^.-" .. name .. ": ", "")) end

gq.core.options = options
gq.core.is_float = is_float
gq.core.define = define
gq.core.is_callable = tests.callable
gq.core.expect = expect
gq.core.need = need
gq.core.one_of = one_of
gq.core.copy = copy
gq.core.describe = describe
gq.core.dims = dims
gq.core.same_shape = same_shape
gq.core.nearest = nearest
gq.core.distance = distance
