-- spatial.lua -- functions of images and signals, {batch, channels, ...}: convolutions, pooling, padding, resizing. A
-- convolution is windows (a strided view) times a matrix, so derivatives of any order, batches and row independence are
-- those of the operations; programs know the pattern.

local gq = ...
local core = gq.core
local define, is_float, expect = core.define, core.is_float, core.expect
local options, need, one_of, describe, fail = core.options, core.need, core.one_of, core.describe, core.fail
local dims = core.dims

local function times(list) return table.concat(list, " x ") end

-- One integer of at least `least` for each of n dimensions, from one or a list of them.
local function several(v, n, least, what, name)
  local list = {}
  for i = 1, n do
    local x = v
    if type(v) == "table" and #v == n then x = v[i] end
    if type(x) ~= "number" or x % 1 ~= 0 or x < least or x > 2 ^ 31 then
      fail(("%s: %s: an integer of at least %d, or a list of %d of them, expected, got %s"):format(what, name, least, n,
        type(v) == "table" and not gq.is_tensor(v) and dims(v) or describe(v)))
    end
    list[i] = math.tointeger(x)
  end
  return list
end
core.several = several

local layouts = { "{batch, channels, length}", "{batch, channels, h, w}" }

-- x with a batch of one where it has none, and whether it had none.
local function images(x, n, what)
  if not is_float(x) or x:dim() ~= n + 2 and x:dim() ~= n + 1 then
    fail(("%s: a float tensor %s, or without batch, expected, got %s"):format(what, layouts[n], describe(x)))
  end
  if x:dim() == n + 1 then return x:unsqueeze(1), true end
  return x, false
end

local function back(y, single) return single and y:squeeze(1) or y end

local function pad_zeros(x, before, after)
  local a, b, any = {}, {}, false
  local lead = x:dim() - #before
  for d = 1, x:dim() do
    a[d], b[d] = before[d - lead] or 0, after[d - lead] or 0
    any = any or a[d] + b[d] > 0
  end
  return any and core.pad(x, a, b) or x
end

-- What k numbers `apart` from each other span.
local function span(k, apart) return (k - 1) * apart + 1 end

local function check_fits(x, k, apart, before, after, what)
  local n, too_large = #k, false
  local size, padded, whole = {}, {}, {}
  for i = 1, n do
    size[i] = x.shape[i + 2]
    padded[i] = size[i] + before[i] + after[i]
    whole[i] = span(k[i], apart[i])
    too_large = too_large or whole[i] > padded[i]
  end
  if too_large then
    fail(("%s: a kernel of %s%s is larger than the input of %s, with its padding %s"):format(what, times(k),
      times(k) ~= times(whole) and (" (%s with its dilation)"):format(times(whole)) or "", times(size), times(padded)))
  end
end

-- ---- padding ----

-- Position i of a line of n numbers continued to both sides; from 1.
local continued = {
  reflect = function(i, n) return i < 1 and 2 - i or i > n and 2 * n - i or i end,
  replicate = function(i, n) return math.min(math.max(i, 1), n) end,
  circular = function(i, n) return (i - 1) % n + 1 end,
}

local function pad_by_index(x, d, before, after, mode, what)
  local n, list = x.shape[d], {}
  local most = mode == "reflect" and n - 1 or mode == "circular" and n or math.huge
  if n < 1 or math.max(before, after) > most then
    fail(("%s: %d and %d entries of dimension %d, of size %d, cannot be padded by mode %q%s"):format(what, before,
      after, d, n, mode, n < 1 and "" or (": at most %d"):format(most)))
  end
  for i = 1 - before, n + after do list[#list + 1] = continued[mode](i, n) end
  return x:index_select(d, gq.tensor(list, { dtype = "int64", device = x.device }))
end

-- The last dimensions with so much before and after, zeros or as `continued` says.
local function padded(x, before, after, mode, what)
  if not continued[mode] then return pad_zeros(x, before, after) end
  local lead = x:dim() - #before
  for i = 1, #before do
    if before[i] + after[i] > 0 then x = pad_by_index(x, lead + i, before[i], after[i], mode, what) end
  end
  return x
end

-- pads: {before, after} of the last dimension, then of the one before it, as PyTorch has them.
local function pad(x, pads, opts, value)
  if type(opts) == "string" then opts, value = { mode = opts, value = value }, nil end
  if value ~= nil then fail(("gq.pad: {value = %s} expected, got %s behind the options"):format(tostring(value),
    describe(value))) end
  local o = options(opts, "mode value", "gq.pad")
  local mode = one_of(o, "mode", { "constant", "reflect", "replicate", "circular", "zeros" }, "gq.pad")
  if mode ~= "constant" and o.value ~= nil then
    fail(("gq.pad: mode %q takes no value, got %s: that is for mode \"constant\""):format(mode, describe(o.value)))
  end
  expect(gq.is_tensor(x), "gq.pad", "a tensor", x)
  if type(pads) ~= "table" or gq.is_tensor(pads) or #pads % 2 ~= 0 or #pads > 2 * x:dim() then
    fail(("gq.pad: {before, after} of the last dimension, then of the one before it expected, for at most %d, got %s"):
      format(x:dim(), type(pads) == "table" and not gq.is_tensor(pads) and dims(pads) or describe(pads)))
  end
  if #pads == 0 then return x:clone() end
  local n = #pads // 2
  local list = several(pads, #pads, 0, "gq.pad", "pads")
  local before, after, lead = {}, {}, x:dim() - n
  for i = 1, n do before[n + 1 - i], after[n + 1 - i] = list[2 * i - 1], list[2 * i] end
  value = need(o, "value", "number", 0, "gq.pad")
  if math.max(table.unpack(list)) == 0 then return x:clone() end
  local y = padded(x, before, after, mode, "gq.pad")
  if value == 0 or mode ~= "constant" then return y end
  local inside = gq.ones({ table.unpack(x.shape, lead + 1) }, { device = x.device })
  return gq.where(pad_zeros(inside, before, after):gt(0), y, value)
end
define("pad", pad, "gq.pad(x, {before, after of the last dimension, of the one before it, ...} [, mode | {mode = " ..
  "\"constant\"|\"reflect\"|\"replicate\"|\"circular\", value = 0}])")

-- ---- convolutions ----

local function product(list, first)
  local p = 1
  for i = first or 1, #list do p = p * list[i] end
  return p
end

local function check_weight(x, w, n, groups, what, transposed)
  if not is_float(w) or w:dim() ~= n + 2 then
    fail(("%s: a weight {%s%s} expected, got %s"):format(what, transposed and "c_in, c_out/groups" or
      "c_out, c_in/groups", n == 1 and ", k" or ", kh, kw", describe(w)))
  end
  if w.dtype ~= x.dtype then
    fail(("%s: the input is %s and the weight %s: convert one, as in x:to(%q) or net:to(%q)"):format(what, x.dtype,
      w.dtype, w.dtype, x.dtype))
  end
  local c, s = x.shape[2], w.shape
  if c % groups ~= 0 or not transposed and s[1] % groups ~= 0 then
    fail(("%s: groups = %d does not divide %d input channels%s"):format(what, groups, c,
      transposed and "" or (" and %d output channels"):format(s[1])))
  end
  local expected = transposed and c or c // groups
  if s[transposed and 1 or 2] ~= expected then
    local last = x:dim() == 4 and x.shape[4] == s[transposed and 1 or 2] * (transposed and 1 or groups)
    fail(("%s: an input with %d channels and groups = %d needs a weight %s, got %s%s"):format(what, c, groups,
      transposed and ("{%d, ...}"):format(c) or ("{c_out, %d, ...}"):format(expected), dims(s),
      last and ": where channels come last, x:permute(1, 4, 2, 3) puts them in front" or ""))
  end
end

local function add_bias(y, b, n, what)
  if b == nil then return y end
  local c = y.shape[2]
  if not gq.is_tensor(b) or b:dim() ~= 1 or b.shape[1] ~= c then
    fail(("%s: a bias {%d} expected, got %s"):format(what, c, describe(b)))
  end
  local column = { c }
  for i = 1, n do column[i + 1] = 1 end
  return y + b:reshape(column)
end

-- The bias may be left out before the options.
local function bias_and_options(b, opts, names, what)
  if opts == nil and type(b) == "table" and not gq.is_tensor(b) then b, opts = nil, b end
  return b, options(opts, names, what)
end

-- Before and after: "valid", "same" (steps of 1; what is odd goes behind), one number or one for each dimension.
local function padding_of(p, k, apart, step, what)
  local n, before, after = #k, {}, {}
  if p == "valid" then p = 0 end
  expect(type(p) ~= "string" or p == "same", what, "padding: integers, \"same\" or \"valid\"", p)
  local given = p ~= "same" and several(p or 0, n, 0, what, "padding")
  for i = 1, n do
    if not given and step[i] ~= 1 then
      fail(("%s: padding = \"same\" needs stride 1, got %d"):format(what, step[i]))
    end
    local all = span(k[i], apart[i]) - 1
    before[i], after[i] = given and given[i] or all // 2, given and given[i] or all - all // 2
  end
  return before, after
end

core.padding_of = padding_of
core.padding_modes = { "zeros", "reflect", "replicate", "circular" }

local function convolve(x, w, b, opts, n, what)
  local o
  b, o = bias_and_options(b, opts, "stride padding dilation groups padding_mode", what)
  local single
  x, single = images(x, n, what)
  local groups = need(o, "groups", "count", 1, what)
  check_weight(x, w, n, groups, what)
  local k = { table.unpack(w.shape, 3) }
  local step, apart = several(o.stride or 1, n, 1, what, "stride"), several(o.dilation or 1, n, 1, what, "dilation")
  local before, after = padding_of(o.padding, k, apart, step, what)
  check_fits(x, k, apart, before, after, what)
  local mode = one_of(o, "padding_mode", core.padding_modes, what)
  local windows = core.windows(padded(x, before, after, mode, what), 3, k, step, apart)
  local s, c_out = windows.shape, w.shape[1]
  local size = { table.unpack(s, n + 3) }
  local inner = s[2] // groups * product(k)
  local y
  if groups == 1 then
    y = w:reshape(c_out, inner):matmul(windows:reshape(s[1], inner, product(size)))
  else
    y = w:reshape(groups, c_out // groups, inner):matmul(windows:reshape(s[1], groups, inner, product(size)))
  end
  y = add_bias(y:reshape(s[1], c_out, table.unpack(size)), b, n, what)
  return back(y, single)
end

local function transpose(x, w, b, opts, n, what)
  local o
  b, o = bias_and_options(b, opts, "stride padding output_padding dilation groups", what)
  local single
  x, single = images(x, n, what)
  local groups = need(o, "groups", "count", 1, what)
  check_weight(x, w, n, groups, what, true)
  local s, k = x.shape, { table.unpack(w.shape, 3) }
  local step, apart = several(o.stride or 1, n, 1, what, "stride"), several(o.dilation or 1, n, 1, what, "dilation")
  local pads = several(o.padding or 0, n, 0, what, "padding")
  local more = several(o.output_padding or 0, n, 0, what, "output_padding")
  local size, whole = { table.unpack(s, 3) }, {}
  for i = 1, n do
    if more[i] >= math.max(step[i], apart[i]) then
      fail(("%s: output_padding is smaller than stride or dilation, got %d for stride %d and dilation %d"):format(what,
        more[i], step[i], apart[i]))
    end
    whole[i] = math.max(size[i] - 1, 0) * step[i] + span(k[i], apart[i]) + math.max(more[i] - pads[i], 0)
    if size[i] < 1 or (size[i] - 1) * step[i] + span(k[i], apart[i]) + more[i] - 2 * pads[i] < 1 then
      fail(("%s: nothing is left of an input of %s with a kernel of %s and padding %s"):format(what, times(size),
        times(k), times(pads)))
    end
  end
  local c_out, places = w.shape[2] * groups, product(size)
  local inner, all = s[2] // groups, w.shape[2] * product(k)
  local windows
  if groups == 1 then
    windows = w:reshape(inner, all):t():matmul(x:reshape(s[1], inner, places))
  else
    windows = w:reshape(groups, inner, all):transpose(2, 3):matmul(x:reshape(s[1], groups, inner, places))
  end
  local shape = { s[1], c_out, table.unpack(k) }
  local y = core.windows_add(windows:reshape(table.move(size, 1, n, n + 3, shape)), 3, whole, step, apart)
  for i = 1, n do
    local length = (size[i] - 1) * step[i] + span(k[i], apart[i]) + more[i] - 2 * pads[i]
    y = y:narrow(i + 2, pads[i] + 1, length)
  end
  return back(add_bias(y, b, n, what), single)
end

define("conv1d", function(x, w, b, opts) return convolve(x, w, b, opts, 1, "gq.conv1d") end,
  "gq.conv1d(x, w [, b] [, {stride, padding, dilation, groups, padding_mode}]): x {batch, c_in, length}, " ..
  "w {c_out, c_in/groups, k}")
define("conv2d", function(x, w, b, opts) return convolve(x, w, b, opts, 2, "gq.conv2d") end,
  "gq.conv2d(x, w [, b] [, {stride, padding, dilation, groups, padding_mode}]): x {batch, c_in, h, w}, w {c_out, " ..
  "c_in/groups, kh, kw}; padding: on each side, or \"same\"; padding_mode: \"zeros\", or another of gq.pad")
define("conv_transpose1d", function(x, w, b, opts) return transpose(x, w, b, opts, 1, "gq.conv_transpose1d") end,
  "gq.conv_transpose1d(x, w [, b] [, {stride, padding, output_padding, dilation, groups}]): the adjoint of conv1d, " ..
  "w {c_in, c_out/groups, k}")
define("conv_transpose2d", function(x, w, b, opts) return transpose(x, w, b, opts, 2, "gq.conv_transpose2d") end,
  "gq.conv_transpose2d(x, w [, b] [, {stride, padding, output_padding, dilation, groups}]): the adjoint of conv2d, " ..
  "w {c_in, c_out/groups, kh, kw}")

-- ---- pooling ----

-- A number instead of options is the stride, as PyTorch has it.
local function pool_options(opts, names, what)
  return options(type(opts) == "number" and { stride = opts } or opts, names, what)
end
core.pool_options = pool_options

local function pool(x, k, opts, names, n, what)
  local o = pool_options(opts, names, what)
  local single
  x, single = images(x, n, what)
  k = several(k, n, 1, what, "kernel")
  local step = several(o.stride or k, n, 1, what, "stride")
  local apart = several(o.dilation or 1, n, 1, what, "dilation")
  local pads = several(o.padding or 0, n, 0, what, "padding")
  for i = 1, n do
    if 2 * pads[i] > k[i] then
      fail(("%s: padding is at most half the kernel, got %d for %d"):format(what, pads[i], k[i]))
    end
  end
  check_fits(x, k, apart, pads, pads, what)
  local both, over = {}, {}
  for i = 1, n do both[2 * (n - i) + 1], both[2 * (n - i) + 2], over[i] = pads[i], pads[i], i + 2 end
  return x, single, k, step, apart, both, over, o
end

local function max_pool(x, k, opts, n, what)
  local single, step, apart, pads, over
  x, single, k, step, apart, pads, over = pool(x, k, opts, "stride padding dilation", n, what)
  return back(core.windows(pad(x, pads, { value = -math.huge }), 3, k, step, apart):max(over), single)
end

local function avg_pool(x, k, opts, n, what)
  local single, step, apart, pads, over, o
  x, single, k, step, apart, pads, over, o = pool(x, k, opts, "stride padding count_include_pad", n, what)
  local sum = core.windows(pad(x, pads), 3, k, step, apart):sum(over)
  if need(o, "count_include_pad", "boolean", true, what) then return back(sum / product(k), single) end
  local inside = gq.ones({ 1, 1, table.unpack(x.shape, 3) }, { dtype = x.dtype, device = x.device })
  return back(sum / core.windows(pad(inside, pads), 3, k, step, apart):sum(over), single)
end

-- The stride alone may be a number, as other libraries have it; padding behind it would be lost.
local function one(opts, more)
  if more == nil then return opts end
  fail(("options are one table, as {stride = 2, padding = 1}; got %s behind the stride"):format(describe(more)))
end

define("max_pool1d", function(x, k, opts, more) return max_pool(x, k, one(opts, more), 1, "gq.max_pool1d") end,
  "gq.max_pool1d(x, k [, {stride = k, padding, dilation}]): largest of each window; a tie shares the gradient")
define("max_pool2d", function(x, k, opts, more) return max_pool(x, k, one(opts, more), 2, "gq.max_pool2d") end,
  "gq.max_pool2d(x, k | {kh, kw} [, {stride = k, padding, dilation}]): largest of each window; a tie shares the " ..
  "gradient")
define("avg_pool1d", function(x, k, opts, more) return avg_pool(x, k, one(opts, more), 1, "gq.avg_pool1d") end,
  "gq.avg_pool1d(x, k [, {stride = k, padding, count_include_pad = true}]): mean of each window")
define("avg_pool2d", function(x, k, opts, more) return avg_pool(x, k, one(opts, more), 2, "gq.avg_pool2d") end,
  "gq.avg_pool2d(x, k | {kh, kw} [, {stride = k, padding, count_include_pad = true}]): mean of each window")

-- The places before bin i of n places, and its last: PyTorch's bins, which may overlap.
local function bin(i, n, size) return (i - 1) * n // size, -(-i * n // size) end

local function adaptive_matrix(n, size, like)
  local rows = {}
  for i = 1, size do
    local first, last = bin(i, n, size)
    rows[i] = {}
    for j = 1, n do rows[i][j] = j > first and j <= last and 1 / (last - first) or 0 end
  end
  return gq.tensor(rows, { dtype = like.dtype, device = like.device })
end

-- The matrix `of` makes for each of the last dimensions, applied to it. apart: how far entries of the result are from
-- each other among those of x, by default as many times as there are more of these.
local function along_each(given, sizes, of, apart)
  local x, n, d = given, #sizes, given:dim()
  for i = 1, n do
    local axis = d - n + i
    if sizes[i] ~= x.shape[axis] or apart and apart[i] ~= 1 then
      local m = of(x.shape[axis], sizes[i], x, apart and apart[i])
      if axis == d then x = x:matmul(m:t())
      else x = m:matmul(x) end
    end
  end
  return x == given and x:clone() or x
end

-- gq.adaptive_<kind>_pool1d and 2d: of(x {batch, channels, ..}, sizes) makes the result.
local function define_adaptive(kind, of, doc)
  for n, arguments in ipairs { "(x, size): %s `size` bins of the last dimension",
    "(x, size | {h, w}): %s so many bins of each dimension" } do
    local name = ("adaptive_%s_pool%dd"):format(kind, n)
    local what = "gq." .. name
    define(name, function(x, size, more)
      if more ~= nil then
        fail(("%s: sizes are one list, as {3, 4}; got %s behind the first"):format(what, describe(more)))
      end
      local y, single = images(x, n, what)
      local sizes = several(size, n, 1, what, "size")
      for i = 1, n do
        if y.shape[i + 2] < 1 then fail(("%s: the input is empty, got %s"):format(what, describe(x))) end
      end
      return back(of(y, sizes), single)
    end, what .. arguments:format(doc))
  end
end

define_adaptive("avg", function(x, sizes) return along_each(x, sizes, adaptive_matrix) end, "means of")

-- The numbers of each bin, the last once more where others are longer: a dimension more, behind d.
local function bins(x, d, size)
  local n, longest, list = x.shape[d], 0, {}
  for i = 1, size do
    local first, last = bin(i, n, size)
    longest = math.max(longest, last - first)
  end
  for i = 1, size do
    local first, last = bin(i, n, size)
    for j = 1, longest do list[#list + 1] = math.min(first + j, last) end
  end
  local shape = x.shape
  shape[d] = size
  table.insert(shape, d + 1, longest)
  return x:index_select(d, gq.tensor(list, { dtype = "int64", device = x.device })):reshape(shape)
end

define_adaptive("max", function(x, sizes)
  for i, size in ipairs(sizes) do x = bins(x, i + 2, size):max(i + 3) end
  return x
end, "the largest of each of")

-- ---- resizing ----

define("pixel_shuffle", function(x, factor)
  local what = "gq.pixel_shuffle"
  local y, single = images(x, 2, what)
  local r, s = several(factor, 1, 1, what, "factor")[1], y.shape
  if s[2] % (r * r) ~= 0 then
    fail(("%s: factor = %d needs a multiple of %d channels, got %d"):format(what, r, r * r, s[2]))
  end
  local c = s[2] // (r * r)
  y = y:reshape(s[1], c, r, r, s[3], s[4]):permute(1, 2, 5, 3, 6, 4):reshape(s[1], c, s[3] * r, s[4] * r)
  return back(r == 1 and y:clone() or y, single)
end, "gq.pixel_shuffle(x, r): {batch, c r r, h, w} as {batch, c, h r, w r}")

local function linear_matrix(n, size, like, apart, aligned)
  local rows = {}
  for i = 1, size do
    local at = aligned and (size > 1 and (i - 1) * (n - 1) / (size - 1) or 0) or math.max((i - 0.5) * apart - 0.5, 0)
    local first = math.min(at // 1, n - 1)
    local part = at - first
    rows[i] = {}
    for j = 1, n do rows[i][j] = 0 end
    rows[i][math.tointeger(first) + 1] = 1 - part
    local next = math.tointeger(math.min(first + 2, n))
    rows[i][next] = rows[i][next] + part
  end
  return gq.tensor(rows, { dtype = like.dtype, device = like.device })
end

local function nearest(given, sizes, apart)
  local x, n, d = given, #sizes, given:dim()
  for i = 1, n do
    local axis, list = d - n + i, {}
    local length = x.shape[axis]
    if sizes[i] ~= length or apart[i] ~= 1 then
      for j = 1, sizes[i] do list[j] = math.tointeger(math.min((j - 1) * apart[i] // 1, length - 1)) + 1 end
      x = x:index_select(axis, gq.tensor(list, { dtype = "int64", device = x.device }))
    end
  end
  return x == given and x:clone() or x
end

-- factor: a number, or one for each dimension; opts.size instead of it. By a factor, entries are 1 / factor apart also
-- where that leaves a part of one over, as in PyTorch.
local function upsample(x, factor, opts)
  local what = "gq.upsample"
  if type(factor) == "table" and next(factor) ~= nil and #factor == 0 then factor, opts = nil, factor end
  local o = options(opts, "size scale_factor mode align_corners", what)
  local mode = one_of(o, "mode", { "nearest", "linear", "bilinear" }, what)
  local n = gq.is_tensor(x) and x:dim() - 2 or 0
  expect(is_float(x) and (n == 1 or n == 2), what,
    "a float tensor {batch, channels, length} or {batch, channels, h, w}", x)
  if n ~= 1 and mode == "linear" or n ~= 2 and mode == "bilinear" then
    fail(("%s: mode %q is not for %s"):format(what, mode, describe(x)))
  end
  factor = factor or o.scale_factor
  if (factor == nil) == (o.size == nil) then fail(what .. ": either a scale factor or size is given") end
  local sizes, apart = o.size and several(o.size, n, 1, what, "size") or {}, {}
  for i = 1, o.size and n or 0 do apart[i] = x.shape[i + 2] / sizes[i] end
  for i = 1, o.size and 0 or n do
    local f = type(factor) == "table" and #factor == n and factor[i] or factor
    if type(f) ~= "number" or f <= 0 or f >= 2 ^ 31 or (x.shape[i + 2] * f) // 1 < 1 then
      fail(("%s: a scale factor that leaves something of %d entries expected, got %s"):format(what, x.shape[i + 2],
        describe(f)))
    end
    sizes[i], apart[i] = math.tointeger((x.shape[i + 2] * f) // 1), 1 / f
  end
  if product(x.shape, 3) == 0 then fail(("%s: the input is empty, got %s"):format(what, describe(x))) end
  local aligned = need(o, "align_corners", "boolean", false, what)
  if mode == "nearest" and aligned then
    fail(("%s: align_corners is of mode \"%s\", which is to be given: mode \"nearest\" has no corners"):format(what,
      n == 1 and "linear" or "bilinear"))
  end
  if mode == "nearest" then return nearest(x, sizes, apart) end
  return along_each(x, sizes, function(from, to, like, far) return linear_matrix(from, to, like, far, aligned) end,
    apart)
end
define("upsample", upsample, "gq.upsample(x, factor | {size = n | {h, w}, scale_factor, mode = \"nearest\"|" ..
  "\"linear\"|\"bilinear\", align_corners = false}): images of another size")
