-- nn/images.lua -- layers over images and signals, with PyTorch's names, parameters and initialisation.

local gq = ...
local core = gq.core
local options, need, describe, define, fail = core.options, core.need, core.describe, core.define_module, core.fail
local several, uniform = core.several, core.uniform_parameter

local function channels(n, what, name)
  if math.type(n) ~= "integer" or n < 1 then
    fail(("%s: %s: an integer of at least 1 expected, got %s"):format(what, name, describe(n)))
  end
  return n
end

local function shown(v) return type(v) == "table" and "{" .. table.concat(v, ", ") .. "}" or tostring(v) end

-- ---- convolutions ----

local padding_modes = { zeros = true, reflect = true, replicate = true, circular = true }

local function convolution(name, f, n, transposed, doc)
  local class = define(name, ("nn.%s(c_in, c_out, k [, {stride, padding, %sdilation, groups, bias = true, " ..
    "dtype}]): %s; entries start uniform in +-1/sqrt(c_in/groups k..)"):format(name,
    transposed and "output_padding, " or "padding_mode, ", doc))
  local what = "nn." .. name
  local names = "stride padding dilation groups bias dtype " .. (transposed and "output_padding" or "padding_mode")

  function class:init(c_in, c_out, k, opts)
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
    for _, size in ipairs(several(k, n, 1, what, "k")) do
      shape[#shape + 1], fan = size, fan * size
    end
    local mode = o.padding_mode or "zeros"
    if not padding_modes[mode] then
      fail(("%s: padding_mode: zeros, reflect, replicate or circular expected, got %s"):format(what, describe(mode)))
    end
    if mode ~= "zeros" then several(o.padding or 0, n, 0, what, "padding") end
    rawset(self, "options", core.copy({ stride = o.stride, padding = o.padding, dilation = o.dilation, groups = groups,
      output_padding = o.output_padding }, {}))
    rawset(self, "padding_mode", mode)
    local bound = 1 / math.sqrt(fan)                 -- kaiming_uniform with a = sqrt(5), as PyTorch
    self.weight = uniform(shape, bound, o.dtype)
    if need(o, "bias", "boolean", true, what) then self.bias = uniform({ c_out }, bound, o.dtype) end
  end

  function class:forward(x)
    local o = self.options
    if self.padding_mode ~= "zeros" then
      local p, pads = several(o.padding or 0, n, 0, what, "padding"), {}
      for i = 1, n do pads[2 * (n - i) + 1], pads[2 * (n - i) + 2] = p[i], p[i] end
      x, o = gq.pad(x, pads, self.padding_mode), core.copy(o, {})
      o.padding = nil
    end
    return f(x, self.weight, self.bias, o)
  end

  function class:extra()
    local s = self.weight.shape
    local c_in, c_out = s[2] * self.options.groups, s[1]
    if transposed then c_in, c_out = s[1], c_in end
    local parts = { c_in, c_out, shown { table.unpack(s, 3) } }
    for _, key in ipairs { "stride", "padding", "output_padding", "dilation" } do
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
    rawset(self, "options", core.copy(options(opts, names, what), {}))
  end
  function class:forward(x) return f(x, self.k, self.options) end
  function class:extra() return shown(self.k) end
end

pooling("MaxPool1d", gq.max_pool1d, 1, "stride padding dilation", "largest of each window")
pooling("MaxPool2d", gq.max_pool2d, 2, "stride padding dilation", "largest of each window")
pooling("AvgPool1d", gq.avg_pool1d, 1, "stride padding count_include_pad", "mean of each window")
pooling("AvgPool2d", gq.avg_pool2d, 2, "stride padding count_include_pad", "mean of each window")
