-- nn/images.lua -- layers over images and signals, with PyTorch's names, parameters and initialisation.

local gq = ...
local core = gq.core
local options, need, describe, define, fail = core.options, core.need, core.describe, core.define_module, core.fail
local several, uniform = core.several, core.uniform_parameter

local function channels(n, what, name)
  core.expect(math.type(n) == "integer" and n >= 1, what, name .. ": an integer of at least 1", n)
  return n
end

local function shown(v) return type(v) == "table" and "{" .. table.concat(v, ", ") .. "}" or tostring(v) end

-- ---- convolutions ----

local function convolution(name, f, n, transposed, doc)
  local class = define(name, ("nn.%s(c_in, c_out, k [, {stride, padding, %sdilation, groups, bias = true, " ..
    "dtype}]): %s; entries start uniform in +-1/sqrt(c_in/groups k..)"):format(name,
    transposed and "output_padding, " or "padding_mode, ", doc))
  local what = "nn." .. name
  local names = "stride padding dilation groups bias dtype " .. (transposed and "output_padding" or "padding_mode")

  function class:init(c_in, c_out, k, opts)
    if type(c_in) == "table" or type(k) == "table" and k[1] == nil then
      fail(what .. " takes channels and kernel, then a table of options, as " .. what .. "(3, 16, 3, {padding = 1})")
    end
    local o = options(opts, names, what)
    channels(c_in, what, "c_in")
    channels(c_out, what, "c_out")
    local groups = need(o, "groups", "count", 1, what)
    if c_in % groups ~= 0 or c_out % groups ~= 0 then
      fail(("%s: groups = %d does not divide %d input channels and %d output channels"):format(what, groups, c_in,
        c_out))
    end
    local shape = transposed and { c_in, c_out // groups } or { c_out, c_in // groups }
    local fan = shape[2]
    k = several(k, n, 1, what, "k")
    for _, size in ipairs(k) do shape[#shape + 1], fan = size, fan * size end
    core.one_of(o, "padding_mode", core.padding_modes, what)
    local step, apart = several(o.stride or 1, n, 1, what, "stride"), several(o.dilation or 1, n, 1, what, "dilation")
    if transposed then several(o.padding or 0, n, 0, what, "padding")
    else core.padding_of(o.padding, k, apart, step, what) end
    rawset(self, "options", core.copy({ stride = o.stride, padding = o.padding, dilation = o.dilation, groups = groups,
      output_padding = o.output_padding, padding_mode = o.padding_mode }, {}))
    local bound = 1 / math.sqrt(fan)                 -- kaiming_uniform with a = sqrt(5), as PyTorch
    self.weight = uniform(shape, bound, o.dtype)
    if need(o, "bias", "boolean", true, what) then self.bias = uniform({ c_out }, bound, o.dtype) end
  end

  function class:forward(x) return f(x, self.weight, self.bias, self.options) end

  function class:extra()
    local s = self.weight.shape
    local c_in, c_out = s[2] * self.options.groups, s[1]
    if transposed then c_in, c_out = s[1], c_in end
    local parts = { c_in, c_out, shown { table.unpack(s, 3) } }
    for _, key in ipairs { "stride", "padding", "output_padding", "dilation", "padding_mode" } do
      if self.options[key] then parts[#parts + 1] = key .. " " .. shown(self.options[key]) end
    end
    if self.options.groups > 1 then parts[#parts + 1] = "groups " .. self.options.groups end
    if not self.bias then parts[#parts + 1] = "no bias" end
    return table.concat(parts, ", ")
  end
end

convolution("Conv1d", gq.conv1d, 1, false, "convolution of {batch, c_in, length}")
convolution("Conv2d", gq.conv2d, 2, false, "convolution of {batch, c_in, h, w}")
convolution("ConvTranspose1d", gq.conv_transpose1d, 1, true, "the adjoint of Conv1d")
convolution("ConvTranspose2d", gq.conv_transpose2d, 2, true, "the adjoint of Conv2d")

-- ---- pooling ----

local function pooling(name, f, n, names, doc)
  local class = define(name, ("nn.%s(k [, {%s}]): %s"):format(name, names:gsub(" ", ", "), doc))
  local what = "nn." .. name
  function class:init(k, opts)
    several(k, n, 1, what, "k")
    rawset(self, "k", k)
    rawset(self, "options", core.copy(core.pool_options(opts, names, what), {}))
  end
  function class:forward(x) return f(x, self.k, self.options) end
  function class:extra() return shown(self.k) end
end

pooling("MaxPool1d", gq.max_pool1d, 1, "stride padding dilation", "largest of each window")
pooling("MaxPool2d", gq.max_pool2d, 2, "stride padding dilation", "largest of each window")
pooling("AvgPool1d", gq.avg_pool1d, 1, "stride padding count_include_pad", "mean of each window")
pooling("AvgPool2d", gq.avg_pool2d, 2, "stride padding count_include_pad", "mean of each window")

local function sized(name, f, n, doc)
  local class = define(name, ("nn.%s(size%s): %s"):format(name, n == 2 and " | {h, w}" or "", doc))
  function class:init(size)
    several(size, n, 1, "nn." .. name, "size")
    rawset(self, "size", size)
  end
  function class:forward(x) return f(x, self.size) end
  function class:extra() return shown(self.size) end
end
sized("AdaptiveAvgPool1d", gq.adaptive_avg_pool1d, 1, "means of so many bins of the last dimension")
sized("AdaptiveAvgPool2d", gq.adaptive_avg_pool2d, 2, "means of so many bins of each dimension")
sized("AdaptiveMaxPool1d", gq.adaptive_max_pool1d, 1, "the largest of each of so many bins of the last dimension")
sized("AdaptiveMaxPool2d", gq.adaptive_max_pool2d, 2, "the largest of each of so many bins of each dimension")
sized("PixelShuffle", gq.pixel_shuffle, 1, "gq.pixel_shuffle: {batch, c r r, h, w} as {batch, c, h r, w r}")

local Upsample = define("Upsample", "nn.Upsample(factor | {size, scale_factor, mode = \"nearest\", align_corners}): " ..
  "images of another size, as gq.upsample")
function Upsample:init(factor, opts)
  if type(factor) == "table" then factor, opts = nil, factor end
  local o = core.copy(options(opts, "size scale_factor mode align_corners", "nn.Upsample"), {})
  o.scale_factor = factor or o.scale_factor
  if (o.scale_factor == nil) == (o.size == nil) then fail("nn.Upsample: either a scale factor or size is given") end
  rawset(self, "options", o)
end
function Upsample:forward(x) return gq.upsample(x, self.options) end
function Upsample:extra() return shown(self.options.size or self.options.scale_factor) end

local function padding(name, mode, n, doc)
  local sides = n == 4 and "{left, right, top, bottom}" or "{before, after}"
  local class = define(name, ("nn.%s(n | %s%s): gq.pad of %s"):format(name, sides,
    mode == "constant" and ", value" or "", doc))
  function class:init(pads, value)
    if mode ~= "constant" and value ~= nil then
      fail(("nn.%s: sides are one list, as %s; got %s behind the first"):format(name, sides, describe(value)))
    end
    rawset(self, "pads", several(pads, n, 0, "nn." .. name, "n"))
    rawset(self, "mode", { mode = mode, value = mode == "constant" and need({ value = value }, "value", "number", nil,
      "nn." .. name) or nil })
  end
  function class:forward(x) return gq.pad(x, self.pads, self.mode) end
  function class:extra() return shown(self.pads) end
end
for n, layout in ipairs { "signals", "images" } do
  padding(("ZeroPad%dd"):format(n), "zeros", 2 * n, layout .. ", zeros")
  padding(("ConstantPad%dd"):format(n), "constant", 2 * n, layout .. ", any number")
  padding(("ReflectionPad%dd"):format(n), "reflect", 2 * n, layout .. ", mode \"reflect\"")
  padding(("ReplicationPad%dd"):format(n), "replicate", 2 * n, layout .. ", mode \"replicate\"")
  padding(("CircularPad%dd"):format(n), "circular", 2 * n, layout .. ", mode \"circular\"")
end

-- ---- normalisations ----

local function affine(self, shape, o, what)
  rawset(self, "eps", need(o, "eps", "number", 1e-5, what))
  if not need(o, "affine", "boolean", true, what) then return end
  self.weight = gq.ones(shape, { dtype = o.dtype, requires_grad = true })
  self.bias = gq.zeros(shape, { dtype = o.dtype, requires_grad = true })
end

local GroupNorm = define("GroupNorm", "nn.GroupNorm(groups, c [, {eps = 1e-5, affine = true, dtype}]): mean 0 and " ..
  "variance 1 over each group of channels of each sample")
function GroupNorm:init(groups, c, opts)
  local what = "nn.GroupNorm"
  local o = options(opts, "eps affine dtype", what)
  channels(groups, what, "groups")
  if channels(c, what, "c") % groups ~= 0 then
    fail(("%s: groups = %d does not divide %d channels"):format(what, groups, c))
  end
  rawset(self, "groups", groups)
  rawset(self, "c", c)
  affine(self, { c }, o, what)
end
function GroupNorm:forward(x) return gq.group_norm(x, self.groups, self.weight, self.bias, { eps = self.eps }) end
function GroupNorm:extra() return ("%d, %d"):format(self.groups, self.c) end

local function instance_norm(name, rank, layout)
  local class = define(name, ("nn.%s(c [, {eps = 1e-5, affine = false, dtype}]): mean 0 and variance 1 over each " ..
    "channel of each sample, %s"):format(name, layout))
  local what = "nn." .. name
  function class:init(c, opts)
    local o = core.copy(options(opts, "eps affine dtype", what), {})
    if o.affine == nil then o.affine = false end
    rawset(self, "c", channels(c, what, "c"))
    affine(self, { c }, o, what)
  end
  function class:forward(x)
    if not gq.is_tensor(x) or x:dim() ~= rank or x.shape[2] ~= self.c then
      fail(("%s: %s with %d channels expected, got %s"):format(what, layout, self.c, describe(x)))
    end
    return gq.instance_norm(x, self.weight, self.bias, { eps = self.eps })
  end
  function class:extra() return tostring(self.c) end
end
instance_norm("InstanceNorm1d", 3, "{batch, c, length}")
instance_norm("InstanceNorm2d", 4, "{batch, c, h, w}")

local LayerNorm = define("LayerNorm", "nn.LayerNorm(n | {sizes} [, {eps = 1e-5, affine = true, dtype}]): mean 0 and " ..
  "variance 1 over the last dimensions of each sample")
function LayerNorm:init(sizes, opts)
  local what = "nn.LayerNorm"
  if type(sizes) == "number" then sizes = { sizes } end
  core.expect(type(sizes) == "table" and #sizes > 0, what, "sizes", sizes)
  rawset(self, "sizes", several(sizes, #sizes, 1, what, "sizes"))
  affine(self, self.sizes, options(opts, "eps affine dtype", what), what)
end
function LayerNorm:forward(x) return gq.layer_norm(x, self.sizes, self.weight, self.bias, { eps = self.eps }) end
function LayerNorm:extra() return shown(self.sizes) end

local function batch_norm(name, least, most, layout)
  local class = define(name, ("nn.%s(c [, {eps = 1e-5, momentum = 0.1, affine = true, dtype}]): %s; in training by " ..
    "the batch's mean and variance, which the running ones follow; else, and inside every solve, by the running " ..
    "ones"):format(name, layout))
  local what = "nn." .. name
  function class:init(c, opts)
    local o = options(opts, "eps momentum affine dtype", what)
    channels(c, what, "c")
    rawset(self, "momentum", need(o, "momentum", "number", 0.1, what))
    affine(self, { c }, o, what)
    self.running_mean = gq.zeros({ c }, { dtype = o.dtype })
    self.running_var = gq.ones({ c }, { dtype = o.dtype })
    self.num_batches_tracked = gq.zeros({}, { dtype = "int64" })
  end
  function class:forward(x)
    if not gq.is_tensor(x) or x:dim() < least or x:dim() > most or x.shape[2] ~= self.running_mean.shape[1] then
      fail(("%s: %s with %d channels expected, got %s"):format(what, layout, self.running_mean.shape[1],
        describe(x)))
    end
    local training = self.training and not core.solving()
    if training then self.num_batches_tracked:copy_(self.num_batches_tracked + 1) end
    return gq.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, { training = training,
      momentum = self.momentum, eps = self.eps })
  end
  function class:extra() return tostring(self.running_mean.shape[1]) end
end
batch_norm("BatchNorm1d", 2, 3, "{batch, c} or {batch, c, length}")
batch_norm("BatchNorm2d", 4, 4, "{batch, c, h, w}")

-- ---- embedding ----

local Embedding = define("Embedding", "nn.Embedding(entries, size [, {dtype}]): rows of a matrix by 1-based " ..
  "indices; entries start normal")
function Embedding:init(entries, size, opts)
  local what = "nn.Embedding"
  local o = options(opts, "dtype", what)
  self.weight = gq.randn({ channels(entries, what, "entries"), channels(size, what, "size") }, { dtype = o.dtype })
  self.weight.requires_grad = true
end
function Embedding:forward(indices) return gq.embedding(indices, self.weight) end
function Embedding:extra() return ("%d, %d"):format(table.unpack(self.weight.shape)) end
