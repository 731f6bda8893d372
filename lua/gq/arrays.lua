-- arrays.lua -- functions of tensors made of the operations: order, running sums, masks, pieces turned and moved, sums
-- of products by their indices. Each is a method too.

local gq = ...
local core = gq.core
local define, expect = core.define, core.expect
local describe, fail, traced, need, options = core.describe, core.fail, core.traced, core.need, core.options

local function check(x, what)
  expect(gq.is_tensor(x), what, "tensor", x)
  return x
end

local function integer(v, name, what)
  if type(v) ~= "number" or v % 1 ~= 0 then
    fail(("%s: %s: an integer expected, got %s"):format(what, name, describe(v)))
  end
  return math.tointeger(v)
end

-- A dimension as a positive number. Without one: that of a vector, or `default`.
local function axis(x, d, what, default)
  local n = x:dim()
  if d == nil then d = n == 1 and 1 or default end
  if d == nil then fail(("%s: which of the %d dimensions?"):format(what, n)) end
  return core.axis(x, d, what)
end

-- A permutation that exchanges d with the last dimension is its own inverse.
local function swap_last(x, d)
  return d == x:dim() and x or x:transpose(d, x:dim())
end

-- ---- numbers ----

define("ceil", function(x) return -(-check(x, "ceil")):floor() end, "x:ceil(): smallest integer above or at x")
define("isnan", function(x) return check(x, "isnan"):ne(x) end, "x:isnan(): where x is no number, as bool")
define("isfinite", function(x) return (check(x, "isfinite") - x):eq(0) end,
  "x:isfinite(): where x is neither infinite nor NaN, as bool")

-- ---- order ----

-- The named option in a trailing table, or given plainly.
local function choice(v, name, default, what)
  if type(v) == "table" then v = need(options(v, name, what), name, "boolean", default, what) end
  if v == nil then v = default end
  if type(v) ~= "boolean" then fail(("%s: %s is true or false, got %s"):format(what, name, describe(v))) end
  return v
end

-- dim and an option after it in any prefix of that order.
local function order_of(x, dim, opts, name, default, what)
  check(x, what)
  if type(dim) == "table" or type(dim) == "boolean" then dim, opts = nil, dim end
  local flag = choice(opts, name, default, what)
  if x:dim() == 0 then return nil, flag end
  return axis(x, dim, what, -1), flag
end

local function sorted_places(x, d, falling)
  local along = swap_last(x, d)
  if core.solving() == true then return swap_last(core.unrolled.argsort(along, falling), d) end
  return swap_last(core.argsort(along, falling):to(x.device), d)
end

local function argsort(x, dim, opts)
  local d, falling = order_of(x, dim, opts, "descending", false, "argsort")
  return d and sorted_places(x, d, falling) or gq.tensor(1, { dtype = "int64", device = x.device })
end
define("argsort", argsort, "x:argsort([dim [, {descending = false}]]): positions that sort x along dim (the last); "
  .. "equal numbers stay in their order, NaN is largest")

define("sort", function(x, dim, opts)
  local d, falling = order_of(x, dim, opts, "descending", false, "sort")
  if not d then return x:clone(), gq.tensor(1, { dtype = "int64", device = x.device }) end
  local at = sorted_places(x, d, falling)
  return x:gather(d, at), at
end, "x:sort([dim [, {descending = false}]]): sorted along dim (the last), and the positions in x")

define("topk", function(x, k, dim, opts)
  local d, largest = order_of(x, dim, opts, "largest", true, "topk")
  if not d then fail("topk: a tensor of at least one dimension expected") end
  k = integer(k, "k", "topk")
  if k < 0 or k > x.shape[d] then
    fail(("topk: k = %d of the %d entries of dimension %d"):format(k, x.shape[d], d))
  end
  local at = sorted_places(x, d, largest):narrow(d, 1, k)
  return x:gather(d, at), at
end, "x:topk(k [, dim [, {largest = true}]]): the k largest along dim (the last), the largest first, and their places")

-- ---- running sums ----

-- y_i = op of x_1 .. x_i by doubling: log2 n operations, each with the derivatives of its own.
local function scan(x, d, op, one)
  local n, width = x.shape[d], 1
  while width < n do
    local shape = x.shape
    shape[d] = width
    local fill = gq.full(shape, one, { dtype = x.dtype, device = x.device })
    x = op(x, gq.cat({ fill, x:narrow(d, 1, n - width) }, d))
    width = 2 * width
  end
  return x
end

local function define_scan(name, op, one, doc)
  define(name, function(x, dim)
    check(x, name)
    local d = x:dim() > 0 and axis(x, dim, name)
    if x.dtype == "bool" then x = x:to("int64") end
    if not d or x.shape[d] < 2 then return x:clone() end
    return scan(x, d, op, one)
  end, doc)
end
define_scan("cumsum", function(a, b) return a + b end, 0, "x:cumsum(dim): sums of the entries up to each, along dim")
define_scan("cumprod", function(a, b) return a * b end, 1, "x:cumprod(dim): products of the entries up to each")

-- ---- turned and moved ----

define("flip", function(x, dims)
  check(x, "flip")
  if type(dims) ~= "table" then dims = { x:dim() > 0 and axis(x, dims, "flip") or dims } end
  if #dims == 0 then return x:clone() end
  for _, d in ipairs(core.axes(x, dims, "flip")) do
    local n = x.shape[d]
    x = x:index_select(d, gq.arange(n, 1, -1, { dtype = "int64" }))
  end
  return x
end, "x:flip(dim | {dims}): the other way round along each; of a vector without them")

define("roll", function(x, shift, dim)
  check(x, "roll")
  shift = integer(shift, "shift", "roll")
  local d = axis(x, dim, "roll")
  local n = x.shape[d]
  if n == 0 or shift % n == 0 then return x:clone() end
  local k = shift % n
  return gq.cat({ x:narrow(d, n - k + 1, k), x:narrow(d, 1, n - k) }, d)
end, "x:roll(shift, dim): entry i goes to i + shift, and those beyond the end to the beginning")

-- {m, n} of bool: j - i compared with k.
local function band(x, k, compare, what)
  check(x, what)
  expect(x:dim() >= 2, what, "at least two dimensions", x)
  k = integer(k or 0, "k", what)
  local rank, o = x:dim(), { dtype = "int64" }
  local m, n = x.shape[rank - 1], x.shape[rank]
  local i, j = gq.arange(1, m, 1, o):reshape(m, 1), gq.arange(1, n, 1, o):reshape(1, n)
  return gq.where(compare(j - i, k), x, x.dtype == "bool" and gq.tensor(false) or 0)
end
define("tril", function(x, k) return band(x, k, gq.le, "tril") end,
  "x:tril([k = 0]): matrices with zeros above diagonal k (1: the one above the main one)")
define("triu", function(x, k) return band(x, k, gq.ge, "triu") end,
  "x:triu([k = 0]): matrices with zeros below diagonal k")

-- Diagonal k of the last two dimensions, as a view where they are packed.
local function diagonal(x, k)
  local rank, shape = x:dim(), x.shape
  local m, n = shape[rank - 1], shape[rank]
  local i, j = math.max(-k, 0), math.max(k, 0)
  local count = math.max(0, math.min(m - i, n - j))
  shape[rank], shape[rank - 1] = nil, m * n
  if count == 0 then return x:reshape(shape):narrow(-1, 1, 0) end
  local key, first = {}, i * n + j + 1
  for d = 1, rank - 2 do key[d] = {} end
  key[rank - 1] = { first, first + (count - 1) * (n + 1), n + 1 }
  return x:reshape(shape)[key]
end

define("diag", function(x, k)
  local what = "diag"
  check(x, what)
  k = integer(k or 0, "k", what)
  if x:dim() ~= 1 then
    if x:dim() < 2 then fail("diag: a vector or matrices expected, got " .. describe(x)) end
    return diagonal(x, k):clone()
  end
  local n, size = #x, #x + math.abs(k)
  local there = gq.zeros({ n, size }, { dtype = "bool", device = x.device })
  for i = 1, n do there[{ i, i + math.max(k, 0) }] = true end
  local on = gq.where(there, x:unsqueeze(2), x.dtype == "bool" and gq.tensor(false) or 0)
  if k == 0 then return on end
  local rest = gq.zeros({ math.abs(k), size }, { dtype = x.dtype, device = x.device })
  return gq.cat(k > 0 and { on, rest } or { rest, on }, 1)
end, "x:diag([k = 0]): diagonal k of matrices; of a vector the matrix that has it there")

define("dot", function(x, y)
  check(x, "dot")
  check(y, "dot")
  if x:dim() ~= 1 or y:dim() ~= 1 or #x ~= #y then
    fail(("dot: two vectors of one length expected, got %s and %s"):format(describe(x), describe(y)))
  end
  return (x * y):sum()
end, "x:dot(y): the sum of products of two vectors")

-- ---- einsum ----

-- "bij,bjk->bik" as lists of labels for operands of the given ranks; "..." stands for labels of its own.
local function einsum_labels(spec, list, what)
  local left, arrow, right = spec:gsub("%s", ""):match("^([^>]*)(%->)(.*)$")
  if not arrow then left = spec:gsub("%s", "") end
  local function labels_of(text, rank)
    local before, dots, after = text:match("^(%a*)(%.%.%.)(%a*)$")
    if not dots then before, after = text:match("^(%a*)$"), "" end
    if not before then fail(("%s: letters and one ... expected, got %q in %q"):format(what, text, spec)) end
    local t = {}
    for c in before:gmatch(".") do t[#t + 1] = c end
    local hidden = dots and rank - #before - #after or 0
    for i = hidden, 1, -1 do t[#t + 1] = "." .. i end
    for c in after:gmatch(".") do t[#t + 1] = c end
    return t, hidden
  end
  local inputs, most, k = {}, 0, 0
  for text in (left .. ","):gmatch("([^,]*),") do
    k = k + 1
    local x = list[k]
    if x == nil then fail(("%s: %q names more operands than the %d given"):format(what, spec, #list)) end
    local t, hidden = labels_of(text, x:dim())
    if #t ~= x:dim() or hidden < 0 then
      fail(("%s: operand %d has %d dimensions, %q names %d"):format(what, k, x:dim(), text, #t))
    end
    inputs[k], most = t, math.max(most, hidden)
  end
  if k ~= #list then fail(("%s: %q names %d operands, %d given"):format(what, spec, k, #list)) end
  if arrow then return inputs, (labels_of(right, #right:gsub("%.", "") + most)) end
  local count, output = {}, {}                                 -- what occurs once, in order
  for _, t in ipairs(inputs) do
    for _, c in ipairs(t) do count[c] = (count[c] or 0) + 1 end
  end
  for i = most, 1, -1 do output[#output + 1] = "." .. i end
  local once = {}
  for c, n in next, count do
    if n == 1 and not c:find(".", 1, true) then once[#once + 1] = c end
  end
  table.sort(once)
  return inputs, table.move(once, 1, #once, #output + 1, output)
end

local function set_of(...)
  local s = {}
  for _, list in ipairs { ... } do
    for _, c in ipairs(list) do s[c] = true end
  end
  return s
end

local function place_of(labels, c)
  for i, l in ipairs(labels) do
    if l == c then return i end
  end
end

local function select_labels(labels, wanted)
  local t = {}
  for _, c in ipairs(labels) do
    if wanted(c) then t[#t + 1] = c end
  end
  return t
end

-- x with its dimensions in the order of `labels`.
local function arrange(x, from, labels)
  local order = {}
  for i, c in ipairs(labels) do order[i] = place_of(from, c) end
  if #order == 0 then return x:reshape {} end
  return x:permute(table.unpack(order))
end

-- Each label once (the diagonal where it was there twice), and none that nobody needs.
local function tidy(x, labels, needed)
  for i = #labels, 1, -1 do
    local c = labels[i]
    local j = place_of(labels, c)
    if j < i then
      local others = {}
      for k = 1, #labels do
        if k ~= i and k ~= j then others[#others + 1] = k end
      end
      local rest = {}
      for _, k in ipairs(others) do rest[#rest + 1] = labels[k] end
      others[#others + 1], others[#others + 2], rest[#rest + 1] = j, i, c
      return tidy(diagonal(x:permute(table.unpack(others)), 0), rest, needed)
    end
  end
  local gone, kept = {}, {}
  for i, c in ipairs(labels) do
    if needed[c] then kept[#kept + 1] = c else gone[#gone + 1] = i end
  end
  return #gone > 0 and x:sum(gone) or x, kept
end

local function sizes_of(x, labels, wanted)
  local t = {}
  for i, c in ipairs(labels) do
    if wanted[c] then t[#t + 1] = x.shape[i] end
  end
  return t
end

local function product(list)
  local n = 1
  for _, v in ipairs(list) do n = n * v end
  return n
end

-- The product of two operands, summed over what both have and nobody needs: one matmul.
local function contract(x, a, y, b, needed)
  local in_a, in_b = set_of(a), set_of(b)
  local batch = select_labels(a, function(c) return in_b[c] and needed[c] end)
  local inner = select_labels(a, function(c) return in_b[c] and not needed[c] end)
  local rows, columns = select_labels(a, function(c) return not in_b[c] end),
    select_labels(b, function(c) return not in_a[c] end)
  local function join(...)
    local t = {}
    for _, list in ipairs { ... } do table.move(list, 1, #list, #t + 1, t) end
    return t
  end
  local nb = sizes_of(x, a, set_of(batch))
  local nr, nc, ni = sizes_of(x, a, set_of(rows)), sizes_of(y, b, set_of(columns)), sizes_of(x, a, set_of(inner))
  x = arrange(x, a, join(batch, rows, inner)):reshape(join(nb, { product(nr), product(ni) }))
  y = arrange(y, b, join(batch, inner, columns)):reshape(join(nb, { product(ni), product(nc) }))
  return x:matmul(y):reshape(join(nb, nr, nc)), join(batch, rows, columns)
end

-- Every label has one size; dimensions of 1 under "..." are repeated.
local function check_sizes(list, inputs, what)
  local size = {}
  for k, x in ipairs(list) do
    for i, c in ipairs(inputs[k]) do
      local n = x.shape[i]
      local known = size[c]
      if known and known ~= n and not (c:find(".", 1, true) and (n == 1 or known == 1)) then
        fail(("%s: dimension %d of operand %d, %s, is %d, and %d elsewhere"):format(what, i, k, c, n, known))
      end
      if not known or known == 1 then size[c] = n end
    end
  end
  for k, x in ipairs(list) do
    local shape = {}
    for i, c in ipairs(inputs[k]) do shape[i] = size[c] end
    if table.concat(shape, ",") ~= table.concat(x.shape, ",") then list[k] = x:expand(shape) end
  end
end

function gq.einsum(spec, ...)
  local what = "gq.einsum"
  expect(type(spec) == "string", what, "a string as \"ij,jk->ik\"", spec)
  local list = { ... }
  if #list == 1 and type(list[1]) == "table" then list = table.move(list[1], 1, #list[1], 1, {}) end
  if #list == 0 then fail(what .. ": at least one tensor expected") end
  for i, x in ipairs(list) do check(x, ("%s: operand %d"):format(what, i)) end
  local inputs, output = einsum_labels(spec, list, what)
  local there, seen = set_of(table.unpack(inputs)), {}
  for _, c in ipairs(output) do
    if not there[c] then fail(("%s: no operand of %q has the index %s"):format(what, spec, c)) end
    if seen[c] then fail(("%s: the result of %q names %s twice"):format(what, spec, c)) end
    seen[c] = true
  end
  check_sizes(list, inputs, what)
  local x, labels = tidy(list[1], inputs[1], set_of(output, table.unpack(inputs, 2)))
  for k = 2, #list do
    local needed = set_of(output, table.unpack(inputs, k + 1))
    local y, b = tidy(list[k], inputs[k], set_of(output, labels, table.unpack(inputs, k + 1)))
    x, labels = tidy(x, labels, set_of(output, b, table.unpack(inputs, k + 1)))
    x, labels = contract(x, labels, y, b, needed)
  end
  return arrange(x, labels, output)
end
gq.docs[gq.einsum] = [[
gq.einsum("ij,jk->ik", x, y, ...): products of tensors, summed over the indices that the result does
  not name; an index twice in an operand is its diagonal, ... stands for all other dimensions,
  without -> the result has the indices that occur once, sorted]]

-- ---- x[mask], x[indices] ----

-- x {mask's shape, rest..}: the shape of the rest, and an error if that is not so.
local function behind(x, mask)
  local shape, rest = x.shape, {}
  for d, n in ipairs(mask.shape) do
    if shape[d] ~= n then
      fail(("x[mask]: a mask of shape {%s} for a tensor {%s}"):format(table.concat(mask.shape, ", "),
        table.concat(shape, ", ")))
    end
  end
  return table.move(shape, mask:dim() + 1, #shape, 1, rest)
end

local function check_key(key)
  if traced(key) then
    fail("x[mask]: how many entries a traced mask selects is not known: choose with gq.where")
  end
  if key.dtype ~= "bool" and key.dtype ~= "int64" then
    fail(("x[key]: a bool mask or int64 indices (as for index_select) expected, got %s: compare, as in x:gt(0), or "
      .. "convert with :to(\"int64\")"):format(describe(key)))
  end
end

function core.index_tensor(x, key)
  check_key(key)
  if key.dtype == "int64" then
    if x:dim() == 0 then fail("x[indices]: a 0-d tensor has no entries") end
    local shape, rest = key.shape, x.shape
    table.move(rest, 2, #rest, #shape + 1, shape)
    return x:index_select(1, key:reshape(key:numel())):reshape(shape)
  end
  local rest = behind(x, key)
  return x:reshape { key:numel(), table.unpack(rest) }:index_select(1, core.places(key))
end

-- v for each true entry of the mask, in their order, everywhere.
local function spread(x, mask, rest, v)
  local n = mask:to("int64"):sum():item()
  v = v:expand { n, table.unpack(rest) }
  if n == 0 then return x end
  local place = mask:flatten():cumsum(1):clamp(1)
  return v:index_select(1, place):reshape(x.shape)
end

function core.assign_tensor(x, key, v)
  check_key(key)
  if gq.is_tensor(v) and v.requires_grad and gq.recording() then
    fail("assignment: the value carries a gradient that would be lost; build the result with gq.where, gq.cat or "
      .. "gq.stack, or assign v:detach()")
  end
  if type(v) == "table" then v = gq.tensor(v, { dtype = x.dtype }) end
  if gq.is_tensor(v) then v = v:detach() end
  if key.dtype == "int64" then
    local many = gq.is_tensor(v) and v:dim() == x:dim() and key:dim() == 1 and #v == #key
    for k, i in ipairs(key:flatten():totable()) do
      if many then x[i] = v[k] else x[i] = v end
    end
    return
  end
  local rest = behind(x, key)
  local mask = key:reshape { table.unpack(key.shape) }
  for _ = 1, #rest do mask = mask:unsqueeze(-1) end
  gq.no_grad(function()
    if gq.is_tensor(v) then
      v = v:to(x.dtype)
      if v:dim() > 0 then v = spread(x, key, rest, v) end
    elseif type(v) == "boolean" then
      v = gq.tensor(v)
    end
    x[{}] = gq.where(mask, v, x)
  end)
end

-- ---- drawn ----

function gq.randint(first, last, ...)
  local what = "gq.randint"
  first, last = integer(first, "first", what), integer(last, "last", what)
  if last < first or last - first >= 2 ^ 53 then
    fail(("%s: %d to %d: a range of at least one and at most 2^53 integers expected"):format(what, first, last))
  end
  local sizes, n = { ... }, select("#", ...)
  local o = options(type(sizes[n]) == "table" and n > 1 and table.remove(sizes) or nil, "seed dtype device", what)
  if type(sizes[1]) == "table" then sizes = sizes[1] end
  local count = last - first + 1
  local u = gq.rand(sizes, { dtype = "float64", seed = o.seed, device = o.device })
  return (u * count):floor():clamp(0, count - 1):to("int64"):add(first):to(o.dtype or "int64")
end
gq.docs[gq.randint] = "gq.randint(first, last, sizes... | {sizes} [, {seed, dtype, device}]): integers from first to "
  .. "last, both included, as math.random has it"

-- In place: x itself.
local function define_fill(name, draw, doc)
  core.methods[name] = function(x, a, b, opts)
    check(x, name)
    if type(a) == "table" then a, opts = nil, a end
    if type(b) == "table" then b, opts = nil, b end
    local o = options(opts, "seed", name)
    x[{}] = draw(x, need({ a }, 1, "number", 0, name), need({ b }, 1, "number", 1, name),
      { dtype = x.dtype, seed = o.seed, device = x.device })
    return x
  end
  gq.docs[core.methods[name]] = doc
  gq[name] = core.methods[name]
end
define_fill("normal_", function(x, mean, std, o) return gq.randn(x.shape, o) * std + mean end,
  "x:normal_([mean = 0 [, std = 1]] [, {seed}]): drawn anew in place")
define_fill("uniform_", function(x, a, b, o) return gq.rand(x.shape, o) * (b - a) + a end,
  "x:uniform_([a = 0 [, b = 1]] [, {seed}]): drawn anew in place, uniform between a and b")

-- ---- loops ----

define("ipairs", function(x)
  check(x, "ipairs")
  local n = #x
  return function(_, i)
    if i < n then return i + 1, x[i + 1] end
  end, x, 0
end, "for i, row in x:ipairs() do: the entries of dimension 1, as views")
