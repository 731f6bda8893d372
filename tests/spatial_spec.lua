-- Convolutions, pooling and padding against plain loops over numbers, their gradients against central differences, and
-- in dynamics with every engine.

local gq = require "gq"
local helper = require "tests.helper"
local nn = gq.nn

local check, refused, f64 = helper.checkgrad, helper.refused, { dtype = "float64" }
local function randn(...) return gq.randn({ ... }, { dtype = "float64", seed = 31 }) end

-- ---- by loops: lists of lists of numbers, {batch, channels, h, w} ----

local function zeros(...)
  local size = { ... }
  local function make(d)
    local t = {}
    for i = 1, size[d] do t[i] = d == #size and 0 or make(d + 1) end
    return t
  end
  return make(1)
end

local function at(x, i, j) return x[i] and x[i][j] or nil end

-- o: stride, padding, dilation each {h, w}; groups
local function conv_loops(x, w, b, o)
  x, w, b = x:totable(), w:totable(), b and b:totable()
  local per, rows, cols = #w[1], #x[1][1], #x[1][1][1]
  local kh, kw = #w[1][1], #w[1][1][1]
  local oh = (rows + 2 * o.padding[1] - o.dilation[1] * (kh - 1) - 1) // o.stride[1] + 1
  local ow = (cols + 2 * o.padding[2] - o.dilation[2] * (kw - 1) - 1) // o.stride[2] + 1
  local y = zeros(#x, #w, oh, ow)
  for n = 1, #x do for c = 1, #w do for i = 1, oh do for j = 1, ow do
    local sum, first = b and b[c] or 0, (c - 1) // (#w // o.groups) * per
    for d = 1, per do for p = 1, kh do for q = 1, kw do
      local v = at(x[n][first + d], (i - 1) * o.stride[1] + (p - 1) * o.dilation[1] + 1 - o.padding[1],
        (j - 1) * o.stride[2] + (q - 1) * o.dilation[2] + 1 - o.padding[2])
      sum = sum + (v or 0) * w[c][d][p][q]
    end end end
    y[n][c][i][j] = sum
  end end end end
  return y
end

local function transpose_loops(x, w, b, o)
  x, w, b = x:totable(), w:totable(), b and b:totable()
  local per, rows, cols = #w[1], #x[1][1], #x[1][1][1]
  local kh, kw = #w[1][1], #w[1][1][1]
  local H = (rows - 1) * o.stride[1] + o.dilation[1] * (kh - 1) + 1 + o.output_padding[1] - 2 * o.padding[1]
  local W = (cols - 1) * o.stride[2] + o.dilation[2] * (kw - 1) + 1 + o.output_padding[2] - 2 * o.padding[2]
  local y = zeros(#x, per * o.groups, H, W)
  for n = 1, #x do for d = 1, #w do for i = 1, rows do for j = 1, cols do
    local group = (d - 1) // (#w // o.groups)
    for c = 1, per do for p = 1, kh do for q = 1, kw do
      local r, s = (i - 1) * o.stride[1] + (p - 1) * o.dilation[1] + 1 - o.padding[1],
        (j - 1) * o.stride[2] + (q - 1) * o.dilation[2] + 1 - o.padding[2]
      local line = y[n][group * per + c][r]
      if line and line[s] then line[s] = line[s] + x[n][d][i][j] * w[d][c][p][q] end
    end end end
  end end end end
  for n = 1, #x do for c = 1, per * o.groups do for i = 1, H do for j = 1, W do
    y[n][c][i][j] = y[n][c][i][j] + (b and b[c] or 0)
  end end end end
  return y
end

local function check_traced(f, ...)
  local want = f(...)
  for _, how in ipairs { "plain", "program" } do
    assert.close(gq.core.run(f, { ... }, 1, how), want, 1e-12, 1e-13)
  end
end

-- c_in, c_out, h, w, kernel, options
local cases = {
  { 3, 4, 5, 6, { 3, 3 }, { stride = { 1, 1 }, padding = { 1, 1 }, dilation = { 1, 1 }, groups = 1 } },
  { 4, 6, 5, 6, { 3, 2 }, { stride = { 2, 1 }, padding = { 1, 0 }, dilation = { 1, 2 }, groups = 2 } },
  { 2, 4, 6, 4, { 2, 3 }, { stride = { 3, 2 }, padding = { 0, 2 }, dilation = { 2, 1 }, groups = 2 } },
  { 3, 2, 4, 4, { 1, 1 }, { stride = { 1, 1 }, padding = { 0, 0 }, dilation = { 1, 1 }, groups = 1 } },
  { 2, 2, 4, 5, { 4, 5 }, { stride = { 1, 1 }, padding = { 0, 0 }, dilation = { 1, 1 }, groups = 1 } },
}

describe("conv2d", function()
  for i, c in ipairs(cases) do
    it("has the values and derivatives of its sum, case " .. i, function()
      local o = c[6]
      local x, w = randn(2, c[1], c[3], c[4]), randn(c[2], c[1] // o.groups, c[5][1], c[5][2]) + 0.1
      local b = randn(c[2])
      local function f(v, u, e) return gq.conv2d(v, u, e, o) end
      assert.close(f(x, w, b), conv_loops(x, w, b, o), 1e-12, 1e-12)
      assert.close(f(x, w), conv_loops(x, w, nil, o), 1e-12, 1e-12)
      assert.close(f(x:to("float32"), w:to("float32")), conv_loops(x, w, nil, o), 1e-5, 1e-5)
      assert.close(f(x[1], w, b), f(x, w, b)[1], 1e-14, 1e-14)
      assert.close(x:conv2d(w, o), gq.conv2d(x, w, nil, o), 0)
      check(f, x:narrow(1, 1, 1), w, b)
      check_traced(f, x, w, b)
    end)
    it("has an adjoint, case " .. i, function()
      local o = gq.core.copy(c[6], { output_padding = { c[6].stride[1] - 1, 0 } })
      local x, w = randn(2, c[1], 3, 4), randn(c[1], c[2] // o.groups, c[5][1], c[5][2]) + 0.1
      local b = randn(c[2])
      local function f(v, u, e) return gq.conv_transpose2d(v, u, e, o) end
      assert.close(f(x, w, b), transpose_loops(x, w, b, o), 1e-12, 1e-12)
      check(f, x:narrow(1, 1, 1), w, b)
      check_traced(f, x, w, b)
    end)
  end

  it("is one instruction of a program, and so are its derivatives", function()
    local x, w, c = randn(4, 6, 5, 5), randn(8, 3, 3, 3), randn(4, 8, 3, 3)
    local o = { padding = 1, groups = 2, stride = 2 }
    local function f(v, u) return gq.conv2d(v, u, o) end
    local function pull(v, u, e)
      return table.unpack(gq.grad(f(v, u), { v, u }, { cotangents = { e }, create_graph = true }))
    end
    local text = gq.core.program(f, { x, w })
    assert.truthy(text:find("^program: 1 instr.* conv float64 8 of {3, 5, 5} by 4 x {3 x 3} to {3, 3} "), text)
    text = gq.core.program(pull, { x, w, c }, 2)
    assert.truthy(text:find("^program: 2 instr"), text)
    assert.truthy(text:find("conv of data", 1, true) and text:find("conv of weight", 1, true), text)
    x.requires_grad, w.requires_grad = true, true
    local a, b = pull(x, w, c)
    local d, e = gq.core.run(pull, { x, w, c }, 2, "program")
    assert.close(d, a, 1e-12, 1e-12)
    assert.close(e, b, 1e-12, 1e-12)
  end)

  it("pads to the same size", function()
    local x, w = randn(2, 3, 4, 5), randn(2, 3, 2, 3)
    local y = gq.conv2d(x, w, { padding = "same" })
    assert.same({ 2, 2, 4, 5 }, y.shape)
    assert.close(y, gq.conv2d(gq.pad(x, { 1, 1, 0, 1 }), w), 0)
    assert.close(gq.conv2d(x, w, { padding = "valid" }), gq.conv2d(x, w), 0)
  end)

  it("has one dimension", function()
    local x, w, b = randn(2, 4, 7), randn(6, 2, 3), randn(6)
    local o = { stride = 2, padding = 1, dilation = 2, groups = 2 }
    local y = gq.conv1d(x, w, b, o)
    local as2d = gq.conv2d(x:unsqueeze(3), w:unsqueeze(3), b, { stride = { 1, 2 }, padding = { 0, 1 },
      dilation = { 1, 2 }, groups = 2 })
    assert.close(y, as2d:squeeze(3), 0)
    check(function(v, u, e) return gq.conv1d(v, u, e, o) end, x, w, b)
    check_traced(function(v, u, e) return gq.conv1d(v, u, e, o) end, x, w, b)
    local function pull(v, u, e)
      return table.unpack(gq.grad(gq.conv1d(v, u, o), { v, u }, { cotangents = { e }, create_graph = true }))
    end
    x.requires_grad, w.requires_grad = true, true
    local c = randn(table.unpack(y.shape))
    local dx, dw = pull(x, w, c)
    local px, pw = gq.core.run(pull, { x, w, c }, 2, "program")
    assert.close(px, dx, 1e-12, 1e-12)
    assert.close(pw, dw, 1e-12, 1e-12)
    x.requires_grad, w.requires_grad = false, false
    local long = randn(2, 3, 3000)
    local u = randn(5, 3, 9)
    assert.close(gq.core.run(function(v) return gq.conv1d(v, u, { padding = 3 }) end, { long }, 1, "program"),
      gq.conv1d(long, u, { padding = 3 }), 1e-11, 1e-11)
    local text = gq.core.program(function(v) return gq.conv1d(v, u, { padding = 3 }) end, { long })
    assert.truthy(text:find("^program: 1 "), text)
    local t = gq.conv_transpose1d(y, w, { stride = 2, padding = 1, dilation = 2, groups = 2 })
    local part = x:narrow(3, 1, t.shape[3])
    assert.close((t * part):sum(), (y * gq.conv1d(part, w, nil, o)):sum(), 1e-12)
  end)

  it("takes empty batches, no channels and large strides", function()
    local function f(x, w) return gq.conv2d(x, w) end
    for w, x in helper.each({ gq.zeros(0, 3, 3, 3), gq.zeros(2, 3, 3, 3) },
        { gq.zeros(2, 3, 4, 5), gq.zeros(0, 3, 4, 5) }) do
      assert.same({ x.shape[1], w.shape[1], 2, 3 }, gq.core.run(f, { x, w }, 1, "program").shape)
    end
    assert.same({ 0, 2, 2, 3 }, gq.conv2d(gq.zeros(0, 3, 4, 5), gq.zeros(2, 3, 3, 3)).shape)
    assert.same({ 1, 2, 1, 1 }, gq.conv2d(gq.zeros(1, 3, 4, 5), gq.zeros(2, 3, 3, 3), { stride = 9 }).shape)
  end)

  it("says what is wrong", function()
    local x, w = gq.zeros(2, 4, 5, 5), gq.zeros(6, 4, 3, 3)
    refused("a kernel of 3 x 3 is larger than the input of 2 x 2, with its padding 2 x 2", gq.conv2d,
      gq.zeros(1, 4, 2, 2), w)
    refused("(7 x 7 with its dilation)", gq.conv2d, x, w, { dilation = 3 })
    refused("groups = 3 does not divide 4 input channels", gq.conv2d, x, w, { groups = 3 })
    refused("groups = 2 does not divide 4 input channels and 5 output channels", gq.conv2d, x, gq.zeros(5, 2, 3, 3),
      { groups = 2 })
    refused("needs a weight {c_out, 2, ...}, got {6, 4, 3, 3}", gq.conv2d, x, w, { groups = 2 })
    refused("{batch, channels, h, w}, or without batch, expected, got tensor float32 {5, 5}", gq.conv2d,
      gq.zeros(5, 5), w)
    refused("a weight {c_out, c_in/groups, kh, kw} expected, got tensor float32 {6, 4}", gq.conv2d, x, gq.zeros(6, 4))
    refused("got tensor int64", gq.conv2d, x:to("int64"), w)
    refused("the input is float64 and the weight float32", gq.conv2d, x:to("float64"), w)
    refused("a bias {6} expected, got tensor float32 {5}", gq.conv2d, x, w, gq.zeros(5))
    refused("stride: an integer of at least 1", gq.conv2d, x, w, { stride = 0 })
    refused("padding: an integer of at least 0", gq.conv2d, x, w, { padding = { 1, 2, 3 } })
    refused("needs stride 1", gq.conv2d, x, w, { padding = "same", stride = 2 })
    refused("did you mean 'padding'", gq.conv2d, x, w, { paddings = 1 })
    refused("a weight {4, ...}", gq.conv_transpose2d, x, gq.zeros(3, 4, 3, 3))
    refused("output_padding is smaller", gq.conv_transpose2d, x, w[{ { 1, 4 } }], { output_padding = 1 })
    refused("nothing is left", gq.conv_transpose2d, gq.zeros(1, 4, 1, 1), w[{ { 1, 4 } }], { padding = 2 })
  end)
end)

describe("pooling", function()
  local x = randn(2, 3, 5, 6)

  -- best(sum or maximum, value), over the windows of x
  local function pool_loops(k, stride, padding, start, step, done)
    local t = x:totable()
    local oh, ow = (5 + 2 * padding[1] - k[1]) // stride[1] + 1, (6 + 2 * padding[2] - k[2]) // stride[2] + 1
    local y = zeros(2, 3, oh, ow)
    for n = 1, 2 do for c = 1, 3 do for i = 1, oh do for j = 1, ow do
      local v, count = start, 0
      for p = 1, k[1] do for q = 1, k[2] do
        local e = at(t[n][c], (i - 1) * stride[1] + p - padding[1], (j - 1) * stride[2] + q - padding[2])
        if e then v, count = step(v, e), count + 1 end
      end end
      y[n][c][i][j] = done(v, count)
    end end end end
    return y
  end

  it("takes the largest", function()
    local function same(v) return v end
    assert.close(gq.max_pool2d(x, 3, 2), gq.max_pool2d(x, 3, { stride = 2 }), 0)
    assert.close(nn.MaxPool2d(3, 2)(x), gq.max_pool2d(x, 3, { stride = 2 }), 0)
    assert.close(gq.max_pool2d(x, 2), pool_loops({ 2, 2 }, { 2, 2 }, { 0, 0 }, -math.huge, math.max, same), 0)
    local o = { stride = { 2, 1 }, padding = { 1, 1 } }
    assert.close(gq.max_pool2d(x, { 3, 2 }, o), pool_loops({ 3, 2 }, { 2, 1 }, { 1, 1 }, -math.huge, math.max,
      same), 0)
    check(function(v) return gq.max_pool2d(v, { 3, 2 }, o) end, x:narrow(1, 1, 1))
    check_traced(function(v) return gq.max_pool2d(v, { 3, 2 }, o) end, x)
    assert.close(gq.max_pool1d(x[1], 2, { dilation = 2 }), gq.maximum(x[1]:narrow(3, 1, 4), x[1]:narrow(3, 3,
      4))[{ {}, {},
      { 1, 3, 2 } }], 0)
  end)

  it("takes the mean", function()
    local function sum(v, e) return v + e end
    assert.close(gq.avg_pool2d(x, 2), pool_loops({ 2, 2 }, { 2, 2 }, { 0, 0 }, 0, sum,
      function(v) return v / 4 end), 1e-14)
    local o = { stride = 2, padding = { 1, 0 } }
    assert.close(gq.avg_pool2d(x, { 3, 2 }, o), pool_loops({ 3, 2 }, { 2, 2 }, { 1, 0 }, 0, sum,
      function(v) return v / 6 end), 1e-14, 1e-14)
    o.count_include_pad = false
    assert.close(gq.avg_pool2d(x, { 3, 2 }, o), pool_loops({ 3, 2 }, { 2, 2 }, { 1, 0 }, 0, sum,
      function(v, n) return v / n end), 1e-14, 1e-14)
    check(function(v) return gq.avg_pool2d(v, { 3, 2 }, o) end, x:narrow(1, 1, 1))
    assert.close(gq.avg_pool1d(x[1], 2), (x[1][{ {}, {}, { 1, 6, 2 } }] + x[1][{ {}, {}, { 2, 6, 2 } }]) / 2, 1e-14)
  end)

  it("says what is wrong", function()
    refused("a kernel of 7 x 7 is larger than the input of 5 x 6", gq.max_pool2d, x, 7)
    refused("padding is at most half the kernel, got 2 for 3", gq.max_pool2d, x, 3, { padding = 2 })
    refused("kernel: an integer of at least 1", gq.avg_pool2d, x, 0)
    refused("{batch, channels, h, w}", gq.max_pool2d, x[1][1], 2)
  end)
end)

describe("pad", function()
  local x = gq.arange(1, 12):to("float64"):reshape(1, 3, 4)
  it("has PyTorch's modes", function()
    assert.same({ 0, 9, 10, 11, 12, 0, 0 }, gq.pad(x, { 1, 2, 0, 1 })[1][3]:totable())
    assert.same({ 0, 0, 0, 0, 0, 0, 0 }, gq.pad(x, { 1, 2, 0, 1 })[1][4]:totable())
    assert.same({ 3, 2, 1, 2, 3, 4, 3 }, gq.pad(x, { 2, 1 }, "reflect")[1][1]:totable())
    assert.same({ 1, 1, 1, 2, 3, 4, 4 }, gq.pad(x, { 2, 1 }, "replicate")[1][1]:totable())
    assert.same({ 3, 4, 1, 2, 3, 4, 1 }, gq.pad(x, { 2, 1 }, "circular")[1][1]:totable())
    assert.same({ 5, 1, 5, 9, 5 }, gq.pad(x, { 0, 0, 1, 1 }, { mode = "reflect" })[{ 1, {}, 1 }]:totable())
    assert.same({ 7, 1, 2, 3, 4 }, gq.pad(x, { 1, 0 }, { value = 7 })[1][1]:totable())
    assert.same(x:totable(), gq.pad(x, {}):totable())
    for _, mode in ipairs { "constant", "reflect", "replicate", "circular" } do
      local function f(v) return gq.pad(v, { 2, 1, 1, 2 }, mode) ^ 3 end
      check(f, randn(2, 3, 4))
      check_traced(f, randn(2, 3, 4))
    end
  end)
  it("says what is wrong", function()
    refused("at most 3", gq.pad, x, { 4, 0 }, "reflect")
    refused("at most 4", gq.pad, x, { 5, 0 }, "circular")
    refused("{before, after} of the last dimension", gq.pad, x, { 1 })
    refused("pads: an integer of at least 0", gq.pad, x, { -1, 0 })
    refused("one of constant, reflect", gq.pad, x, { 1, 1 }, "mirror")
    assert.close(gq.pad(x, { 1, 1 }, "constant", 3), gq.pad(x, { 1, 1 }, { value = 3 }), 0)
    refused("mode \"reflect\" takes no value", gq.pad, x, { 1, 1 }, "reflect", 3)
    refused("{value = 3} expected", gq.pad, x, { 1, 1 }, {}, 3)
  end)
end)

describe("modules", function()
  it("start as PyTorch's do", function()
    local m = nn.Conv2d(6, 4, { 3, 5 }, { groups = 2 })
    assert.same({ 4, 3, 3, 5 }, m.weight.shape)
    local bound = 1 / math.sqrt(3 * 3 * 5)
    assert.is_true(m.weight:abs():max():item() <= bound and m.bias:abs():max():item() <= bound)
    assert.is_true(m.weight:abs():max():item() > 0.9 * bound)
    local t = nn.ConvTranspose2d(4, 6, 3, { groups = 2, bias = false })
    assert.same({ 4, 3, 3, 3 }, t.weight.shape)
    assert.is_nil(t.bias)
    assert.equal("Conv2d(6, 4, {3, 5}, groups 2)", tostring(m))
    assert.equal("ConvTranspose2d(4, 6, {3, 3}, groups 2, no bias)", tostring(t))
  end)
  it("do what the functions do", function()
    local x = randn(2, 4, 6, 5)
    local m = nn.Conv2d(4, 2, 3, { padding = 1, stride = 2, dtype = "float64" })
    assert.close(m(x), gq.conv2d(x, m.weight, m.bias, { padding = 1, stride = 2 }), 0)
    local r = nn.Conv2d(4, 2, 3, { padding = { 1, 2 }, padding_mode = "reflect", dtype = "float64" })
    assert.close(r(x), gq.conv2d(gq.pad(x, { 2, 2, 1, 1 }, "reflect"), r.weight, r.bias), 0)
    local both = { reflect = "reflect", replicate = "replicate", circular = "circular", zeros = "constant" }
    for mode, name in next, both do                      -- "same", an even kernel: what is odd goes behind
      local same = nn.Conv2d(4, 2, { 4, 3 }, { padding = "same", padding_mode = mode, dilation = { 1, 2 },
        dtype = "float64" })
      local padded = gq.pad(x, { 2, 2, 1, 2 }, name)
      assert.close(same(x), gq.conv2d(padded, same.weight, same.bias, { dilation = { 1, 2 } }), 0)
      assert.close(gq.conv1d(x[{ {}, {}, 1 }], same.weight[{ {}, {}, {}, 2 }], { padding = 1, padding_mode = mode }),
        gq.conv1d(gq.pad(x[{ {}, {}, 1 }], { 1, 1 }, name), same.weight[{ {}, {}, {}, 2 }]), 0)
    end
    local t = nn.ConvTranspose2d(4, 2, 3, { output_padding = 1, stride = 2, dtype = "float64" })
    assert.same({ 2, 2, 14, 12 }, t(x).shape)
    assert.close(nn.MaxPool2d(2)(x), gq.max_pool2d(x, 2), 0)
    assert.close(nn.AvgPool2d({ 2, 1 }, { stride = 1 })(x), gq.avg_pool2d(x, { 2, 1 }, { stride = 1 }), 0)
    local net = nn.Sequential { nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2) }
    assert.same({ 5, 2 }, net(gq.randn(5, 1, 6, 6)).shape)
    assert.same({ 7, 3, 4 }, nn.Conv1d(2, 3, 3)(gq.randn(7, 2, 6)).shape)
    refused("groups = 4 does not divide", nn.Conv2d, 6, 4, 3, { groups = 4 })
    for _, f in ipairs { function() return nn.Conv2d { 6, 4, 3, padding = 1 } end,
      function() return nn.Conv2d(6, 4, { kernel_size = 3 }) end } do
      refused("then a table of options, as nn.Conv2d(3, 16, 3, {padding = 1})", f)
    end
    refused("stride: an integer of at least 1", nn.Conv2d, 6, 4, 3, { stride = 0 })
    refused("x:permute(1, 4, 2, 3) puts them in front", nn.Conv2d(6, 4, 3), gq.zeros(2, 8, 8, 6))
    refused("put nn.Flatten() in front of it", nn.Sequential { nn.Conv2d(6, 4, 3), nn.Linear(36, 2) },
      gq.zeros(2, 6, 5, 5))
    refused("gq.embedding: index 0 is out of range 1 to 5", nn.Embedding(5, 2), gq.zeros(1, { dtype = "int64" }))
    refused("c_in: an integer", nn.Conv2d, 0, 4, 3)
    refused("padding_mode", nn.Conv2d, 1, 4, 3, { padding_mode = "same" })
    refused("nn.Conv2d: padding = \"same\" needs stride 1", nn.Conv2d, 1, 4, 3, { padding = "same", stride = 2 })
    refused("gq.conv2d: 4 and 4 entries of dimension 3, of size 3", nn.Conv2d(1, 4, 3, { padding = 4,
      padding_mode = "circular" }), gq.zeros(1, 1, 3, 3))
  end)
end)

describe("resizing", function()
  local x = gq.tensor({ { { { 1, 2, 3, 4 }, { 5, 6, 7, 9 } } } }, f64)
  it("repeats the nearest", function()
    assert.same({ { { { 1, 1, 2, 2, 3, 3, 4, 4 }, { 1, 1, 2, 2, 3, 3, 4, 4 }, { 5, 5, 6, 6, 7, 7, 9, 9 },
      { 5, 5, 6, 6, 7, 7, 9, 9 } } } }, gq.upsample(x, 2):totable())
    assert.same({ 1, 2, 3 }, gq.upsample(x, { size = { 2, 3 } })[{ 1, 1, 1 }]:totable())
    assert.same({ { { 1, 3 } } }, gq.upsample(x[1]:narrow(2, 1, 1), 0.5):totable())
    local seven = gq.arange(1, 7):reshape(1, 1, 7)
    assert.same({ { { 1, 2, 3, 5 } } }, gq.upsample(seven, 0.7):to("int64"):totable())
  end)
  -- interpolated at (i + 1/2) n / m - 1/2, or with the corners on each other, dimension by dimension
  local function line(v, m, aligned)
    local y, n = {}, #v
    for i = 0, m - 1 do
      local p = aligned and i * (n - 1) / (m - 1) or math.max((i + 0.5) * n / m - 0.5, 0)
      local a = math.floor(p)
      y[i + 1] = v[a + 1] * (1 - (p - a)) + v[math.min(a + 2, n)] * (p - a)
    end
    return y
  end
  it("interpolates", function()
    for _, aligned in ipairs { false, true } do
      for _, m in ipairs { 3, 5, 8 } do
        local y = gq.upsample(x[1], { size = m, mode = "linear", align_corners = aligned })
        assert.close(y[1][2], line(x[1][1][2]:totable(), m, aligned), 1e-14)
      end
      local y = gq.upsample(x, { size = { 5, 3 }, mode = "bilinear", align_corners = aligned })
      local column = {}
      for r = 1, 2 do column[r] = line(x[1][1][r]:totable(), 3, aligned)[2] end
      assert.close(y[{ 1, 1, {}, 2 }], line(column, 5, aligned), 1e-14)
    end
    local uneven = gq.tensor({ { { 0, 1, 2, 3, 4 } } }, f64)       -- of 7 entries, 1 / 1.5 apart and not 5 / 7
    assert.close(gq.upsample(uneven, 1.5, { mode = "linear" })[{ 1, 1 }],
      { 0, 0.5, 7 / 6, 11 / 6, 2.5, 19 / 6, 23 / 6 }, 1e-14)
    assert.close(gq.upsample(uneven, 1.1, { mode = "linear" })[{ 1, 1, { 2, 3 } }],
      { 1.5 / 1.1 - 0.5, 2.5 / 1.1 - 0.5 }, 1e-14)
    local function f(v) return gq.upsample(v, { size = { 3, 5 }, mode = "bilinear" }) ^ 2 end
    check(f, randn(1, 2, 2, 3))
    check_traced(f, randn(2, 2, 4, 3))
    check(function(v) return gq.upsample(v, 2) ^ 2 end, randn(1, 2, 2, 3))
  end)
  it("averages bins", function()
    local v = randn(2, 3, 5, 7)
    assert.close(gq.adaptive_avg_pool2d(v, 1), v:mean({ 3, 4 }, true), 1e-13)
    assert.close(gq.adaptive_avg_pool2d(v, { 5, 7 }), v, 0)
    local y = gq.adaptive_avg_pool2d(v, { 2, 3 })
    assert.close(y[{ {}, {}, 2, 3 }], v:narrow(3, 3, 3):narrow(4, 5, 3):mean({ 3, 4 }), 1e-13)
    assert.close(y[{ {}, {}, 1, 2 }], v:narrow(3, 1, 3):narrow(4, 3, 3):mean({ 3, 4 }), 1e-13)
    check(function(u) return gq.adaptive_avg_pool2d(u, { 2, 3 }) ^ 2 end, v:narrow(1, 1, 1))
  end)
  it("takes the largest of bins", function()
    local v = randn(2, 3, 5, 7)
    assert.close(gq.adaptive_max_pool2d(v, 1), v:max({ 3, 4 }, true), 0)
    assert.close(gq.adaptive_max_pool2d(v, { 5, 7 }), v, 0)
    local y = gq.adaptive_max_pool2d(v, { 2, 3 })
    assert.same({ 2, 3, 2, 3 }, y.shape)
    assert.close(y[{ {}, {}, 2, 3 }], v:narrow(3, 3, 3):narrow(4, 5, 3):max({ 3, 4 }), 0)
    assert.close(y[{ {}, {}, 1, 2 }], v:narrow(3, 1, 3):narrow(4, 3, 3):max({ 3, 4 }), 0)
    assert.close(gq.adaptive_max_pool1d(v[1], 3)[{ {}, {}, 2 }], v[1]:narrow(3, 3, 3):max(3), 0)
    local function f(u) return gq.adaptive_max_pool2d(u, { 2, 3 }) ^ 2 end
    check(f, v:narrow(1, 1, 1))
    check_traced(f, v)
    assert.close(nn.AdaptiveMaxPool2d { 2, 3 }(v), y, 0)
    assert.close(nn.AdaptiveMaxPool1d(3)(v[1]), gq.adaptive_max_pool1d(v[1], 3), 0)
    assert.close(nn.AdaptiveAvgPool1d(3)(v[1]), gq.adaptive_avg_pool1d(v[1], 3), 0)
    refused("size: an integer of at least 1", gq.adaptive_max_pool2d, v, { 2, 0 })
    refused("the input is empty", gq.adaptive_max_pool2d, gq.zeros(2, 3, 0, 4), 1)
    refused("size: an integer of at least 1, or a list of 2", nn.AdaptiveMaxPool2d, { 2 })
  end)
  it("puts channels among the pixels", function()
    local v = randn(2, 8, 3, 2)
    local y = gq.pixel_shuffle(v, 2)
    assert.same({ 2, 2, 6, 4 }, y.shape)
    for i = 1, 6 do for j = 1, 4 do
      local place = (i - 1) % 2 * 2 + (j - 1) % 2 + 1
      assert.close(y[{ {}, {}, i, j }], v[{ {}, { place, 8, 4 }, (i + 1) // 2, (j + 1) // 2 }], 0)
    end end
    assert.close(nn.PixelShuffle(2)(v[1]), y[1], 0)
    assert.truthy(helper.message(gq.pixel_shuffle, v, { true }):find("factor: .* got {true}"))
    check(function(u) return gq.pixel_shuffle(u, 2) ^ 2 end, v)
    check_traced(function(u) return gq.pixel_shuffle(u, 2) ^ 2 end, v)
    refused("factor = 3 needs a multiple of 9 channels, got 8", gq.pixel_shuffle, v, 3)
  end)
  it("pads by modules", function()
    local v = randn(2, 3, 4, 5)
    for _, m in ipairs { { "Zero", "zeros" }, { "Reflection", "reflect" }, { "Replication", "replicate" },
      { "Circular", "circular" } } do
      assert.close(nn[m[1] .. "Pad2d"] { 1, 2, 3, 0 }(v), gq.pad(v, { 1, 2, 3, 0 }, m[2]), 0)
      assert.close(nn[m[1] .. "Pad1d"](2)(v[1]), gq.pad(v[1], { 2, 2 }, m[2]), 0)
    end
    assert.close(nn.ConstantPad2d(1, 7)(v), gq.pad(v, { 1, 1, 1, 1 }, { value = 7 }), 0)
    assert.close(nn.ConstantPad1d({ 1, 0 }, -2)(v[1]), gq.pad(v[1], { 1, 0 }, { value = -2 }), 0)
    refused("value: a number expected", nn.ConstantPad2d, 1, "7")
    refused("n: an integer of at least 0, or a list of 2", nn.ReflectionPad1d, { 1, 2, 3 })
  end)
  it("says what is wrong", function()
    refused("either a scale factor or size", gq.upsample, x)
    refused("mode \"linear\" is not for", gq.upsample, x, 2, { mode = "linear" })
    refused("did you mean \"bilinear\"", gq.upsample, x, 2, { mode = "bilinar" })
    refused("align_corners is of mode \"bilinear\"", gq.upsample, x, 2, { align_corners = true })
    refused("entries expected, got table", gq.upsample, x, { 2, 3, 4 })
    refused("a scale factor that leaves something of 2 entries", gq.upsample, x, 0.1)
    refused("size: an integer of at least 1", gq.adaptive_avg_pool2d, x, 0)
    refused("sizes are one list, as {3, 4}; got number 2", gq.adaptive_avg_pool2d, x, 1, 2)
    refused("sizes are one list, as {3, 4}; got number 2", gq.adaptive_max_pool2d, x, 1, 2)
  end)
end)

describe("normalisation", function()
  local x = randn(3, 4, 2, 3) * 2 + 1
  -- (x - mean) / sqrt(var + eps) of lists
  local function standard(list)
    local mean, var = 0, 0
    for _, v in ipairs(list) do mean = mean + v / #list end
    for _, v in ipairs(list) do var = var + (v - mean) ^ 2 / #list end
    for i, v in ipairs(list) do list[i] = (v - mean) / math.sqrt(var + 1e-5) end
    return list, mean, var
  end
  it("is over groups, layers and batches", function()
    local w, b = randn(4), randn(4) + 1
    local y = gq.group_norm(x, 2, w, b)
    local plain = standard(x[{ 2, { 3, 4 } }]:reshape(-1):totable())
    for c = 3, 4 do
      for i = 1, 6 do
        assert.close(y[2][c]:reshape(-1)[i], plain[(c - 3) * 6 + i] * w[c]:item() + b[c]:item(), 1e-12)
      end
    end
    assert.close(gq.layer_norm(x, { 2, 3 })[3][2]:reshape(-1), standard(x[3][2]:reshape(-1):totable()), 1e-12)
    local u, v = randn(3), randn(3)
    local inner = gq.tensor(standard(x[{ 1, 2, 2 }]:totable()), f64)
    assert.close(gq.layer_norm(x, 3, u, v)[{ 1, 2, 2 }], inner * u + v, 1e-12)
    local mean, var = gq.zeros(4, f64), gq.ones(4, f64)
    local z = gq.batch_norm(x, mean, var, w, b, { training = true })
    local column, m, s = standard(x[{ {}, 2 }]:reshape(-1):totable())
    assert.close(z[{ {}, 2 }]:reshape(-1), gq.tensor(column, f64) * w[2] + b[2], 1e-12)
    assert.close(mean[2], 0.1 * m, 1e-13)
    assert.close(var[2], 0.9 + 0.1 * s * 18 / 17, 1e-13)
    assert.close(gq.batch_norm(x, mean, var, w, b)[{ {}, 2 }],
      (x[{ {}, 2 }] - mean[2]) / (var[2] + 1e-5):sqrt() * w[2] + b[2], 1e-12)
  end)
  it("is over each channel of each sample", function()
    local y = gq.instance_norm(x)
    assert.close(y:mean({ 3, 4 }), gq.zeros(3, 4, f64), 0, 1e-13)
    assert.close(y, gq.group_norm(x, 4), 0)
    local w, b = gq.arange(1, 4, 1, f64), gq.arange(5, 8, 1, f64)
    assert.close(gq.instance_norm(x, w, b), y * w:reshape(4, 1, 1) + b:reshape(4, 1, 1), 1e-13)
    local m = nn.InstanceNorm2d(4, { dtype = "float64" })
    assert.equal(0, #m:parameters())
    assert.close(m(x), y, 0)
    assert.equal(2, #nn.InstanceNorm1d(4, { affine = true }):parameters())
    check(function(u) return gq.instance_norm(u, w, b) ^ 2 end, x:narrow(1, 1, 1))
    check_traced(function(u) return gq.instance_norm(u, w, b) ^ 2 end, x)
    refused("{batch, channels, ...} of images or signals expected", gq.instance_norm, gq.ones(3, 4))
    refused("with 4 channels expected", m, gq.ones(2, 3, 4, 4))
  end)
  it("has the derivatives of central differences", function()
    local w, b, v = randn(4), randn(4), randn(2, 4, 2, 1)
    check(function(y, u, e) return gq.group_norm(y, 2, u, e) end, v, w, b)
    check(function(y) return gq.layer_norm(y, { 2, 1 }) end, v:narrow(1, 1, 1))
    check(function(y, u, e) return gq.batch_norm(y, nil, nil, u, e, { training = true }) end, v, w, b)
    check_traced(function(y) return gq.group_norm(y, 2, w, b) end, x)
  end)
  it("has modules", function()
    local m = nn.BatchNorm2d(4, { dtype = "float64" })
    local y = m(x)
    assert.close(y:mean({ 1, 3, 4 }), { 0, 0, 0, 0 }, 0, 1e-12)
    assert.equal(1, m.num_batches_tracked:item())
    assert.equal(2, #m:parameters())
    assert.is_truthy(m:state_dict().running_var)
    local mean = m.running_mean:clone()
    m:eval()
    assert.close(m(x), gq.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias), 0)
    assert.close(m.running_mean, mean, 0)
    assert.close(nn.GroupNorm(2, 4, { dtype = "float64" })(x), gq.group_norm(x, 2), 0)
    assert.close(nn.LayerNorm({ 2, 3 }, { dtype = "float64", affine = false })(x), gq.layer_norm(x, { 2, 3 }), 0)
    assert.equal("BatchNorm2d(4)", tostring(m))
    assert.same({ 3, 4 }, nn.BatchNorm1d(4)(gq.randn(3, 4)).shape)
    assert.same({ 2, 3, 1, 1 }, nn.AdaptiveAvgPool2d(1)(gq.zeros(2, 3, 4, 4)).shape)
    assert.same({ 2, 3, 8, 8 }, nn.Upsample(2)(gq.zeros(2, 3, 4, 4)).shape)
    assert.same({ 2, 3, 6, 7 }, nn.ReflectionPad2d({ 1, 2, 0, 2 })(gq.zeros(2, 3, 4, 4)).shape)
    assert.same({ 2, 2, 3 }, nn.Unflatten(2, { 2, 3 })(gq.zeros(2, 6)).shape)
  end)
  it("says what is wrong", function()
    refused("groups = 3 does not divide 4 channels", gq.group_norm, x, 3)
    refused("weight: a tensor {4} expected, got tensor float64 {3}", gq.group_norm, x, 2, randn(3))
    refused("whose last dimensions are {2, 4} expected", gq.layer_norm, x, { 2, 4 })
    refused("mean: a tensor {4} expected", gq.batch_norm, x, randn(3), randn(4))
    refused("the running mean and variance are needed", gq.batch_norm, x)
    refused("more than one value a channel", gq.batch_norm, randn(1, 4), nil, nil, { training = true })
    refused("nn.BatchNorm2d: {batch, c, h, w} with 3 channels expected", nn.BatchNorm2d(3), x)
    refused("groups = 3 does not divide 4 channels", nn.GroupNorm, 3, 4)
  end)
end)

describe("dropout and embedding", function()
  it("drops by the generator", function()
    local x = gq.ones(100, 50)
    gq.manual_seed(4)
    local y = gq.dropout(x, 0.25)
    gq.manual_seed(4)
    assert.close(gq.dropout(x, 0.25), y, 0)
    assert.close(gq.dropout(x, 0.25, { seed = 8 }), gq.dropout(x, 0.25, { seed = 8 }), 0)
    assert.close(y:mean(), 1, 0, 0.05)
    assert.close(y:max(), 1 / 0.75, 1e-6)
    assert.close(gq.dropout(x, 0.25, { training = false }), x, 0)
    refused("p in [0, 1) expected, got number 1", gq.dropout, x, 1)
  end)
  it("drops whole channels", function()
    local x = gq.ones(40, 30, 3, 2)
    local y = gq.dropout2d(x, 0.25, { seed = 8 })
    assert.close(gq.dropout2d(x, 0.25, { seed = 8 }), y, 0)
    assert.close(y:max({ 3, 4 }), y:min({ 3, 4 }), 0)
    assert.close(y:mean(), 1, 0, 0.05)
    assert.close(y:max(), 1 / 0.75, 1e-6)
    gq.manual_seed(4)
    local m = nn.Dropout2d(0.25)
    local z = m(x)
    assert.close(z:max({ 3, 4 }), z:min({ 3, 4 }), 0)
    assert.close(z:mean(), 1, 0, 0.05)
    assert.close(m:eval()(x), x, 0)
    check(function(u) return gq.dropout2d(u, 0.5, { seed = 3 }) ^ 2 end, randn(2, 3, 2, 2))
    refused("{batch, channels, ...} expected", gq.dropout2d, gq.ones(3, 2))
    refused("nn.Dropout2d: images or signals {batch, channels, ...} expected", m, gq.ones(3, 2))
    refused("gq.dropout2d: p in [0, 1) expected", gq.dropout2d, x, -1)
    refused("nn.Dropout2d: p in [0, 1) expected", nn.Dropout2d, 1)
  end)
  it("selects rows", function()
    local w = randn(5, 3)
    local y = gq.embedding({ { 1, 5 }, { 2, 2 } }, w)
    assert.same({ 2, 2, 3 }, y.shape)
    assert.close(y[1][2], w[5], 0)
    check(function(u) return gq.embedding({ { 1, 5 }, { 2, 2 } }, u) ^ 2 end, w)
    assert.same({ 4, 3 }, nn.Embedding(5, 3)(gq.tensor({ 1, 2, 3, 4 }, { dtype = "int64" })).shape)
    refused("gq.embedding: index 6 is out of range 1 to 5", gq.embedding, { 6 }, w)
    refused("gq.embedding takes indices and a weight, and knows no option", gq.embedding, { 1 }, w, { padding_idx = 1 })
    refused("int64 tensor", gq.embedding, w, w)
  end)
end)

describe("nn.init", function()
  local init = nn.init
  it("draws as PyTorch does", function()
    local t = gq.zeros(64, 32, 3, 3)
    assert.equal(t, init.kaiming_normal_(t, { nonlinearity = "relu" }))
    assert.close(t:std(), math.sqrt(2 / (32 * 9)), 0.02)
    init.kaiming_uniform_(t, { a = math.sqrt(5), mode = "fan_out" })
    assert.close(t:abs():max(), 1 / math.sqrt(64 * 9), 0.01)
    init.xavier_uniform_(t, 2)
    assert.close(t:abs():max(), 2 * math.sqrt(6 / (96 * 9)), 0.01)
    init.xavier_normal(t)
    assert.close(t:std(), math.sqrt(2 / (96 * 9)), 0.02)
    init.normal_(t, 3, 0.5)
    assert.close(t:mean(), 3, 0.01)
    assert.close(t:std(), 0.5, 0.02)
    init.uniform_(t, -1, 3)
    assert.close(t:mean(), 1, 0, 0.05)
    assert.close(init.zeros_(t):abs():max(), 0)
    assert.close(init.ones_(t):min(), 1)
    assert.close(init.constant_(t, 7):min(), 7)
  end)
  it("trunc_normal_, eye_, dirac_ and sparse_, as PyTorch's", function()
    gq.manual_seed(1)
    local t = init.trunc_normal_(gq.zeros(20000, f64), 1, 0.5, 0.5, 3)
    assert.is_true(t:min():item() >= 0.5 and t:max():item() <= 3)
    -- the mean and deviation of a normal distribution cut off at -1 and 4 deviations
    local cut, all = math.exp(-0.5) / math.sqrt(2 * math.pi), 0.841313
    assert.close(t:mean(), 1 + 0.5 * cut / all, 0.01)
    assert.close(t:std(), 0.5 * math.sqrt(1 - cut / all - (cut / all) ^ 2), 0.02)
    assert.close(init.trunc_normal_(gq.zeros(20000), 0, 1, -math.huge, math.huge):std(), 1, 0.02)
    local far = init.trunc_normal_(gq.zeros(9), 0, 1, 50, 51)
    assert.is_true(far:min():item() >= 50 and far:max():item() <= 51)
    assert.same({ { 1, 0, 0 }, { 0, 1, 0 } }, init.eye_(gq.ones(2, 3)):totable())
    local x = gq.randn(2, 4, 5, 6)
    assert.close(gq.conv2d(x, init.dirac_(gq.zeros(4, 4, 3, 3)), { padding = 1 }), x, 0)
    assert.close(gq.conv2d(x, init.dirac_(gq.zeros(4, 2, 3, 3), 2), { padding = 1, groups = 2 }), x, 0)
    assert.same({ 4, 4, 4 }, init.sparse_(gq.ones(10, 3), 0.35):eq(0):sum(1):totable())
    refused("a below b", init.trunc_normal_, t, 0, 1, 2, 1)
    refused("a matrix expected", init.eye_, t)
    refused("groups = 3 divides", init.dirac_, gq.zeros(4, 2, 3), 3)
    refused("from 0 to 1", init.sparse_, gq.zeros(4, 2), 2)
    refused("'sparsity' is missing", init.sparse_, gq.zeros(4, 2))
  end)
  it("makes orthonormal rows or columns, of parameters too", function()
    local p = gq.zeros(4, 2, 3, { dtype = "float64", requires_grad = true })
    init.orthogonal_(p, 3)
    local q = p:detach():reshape(4, 6)
    assert.close(q:matmul(q:t()), gq.eye(4):to("float64") * 9, 1e-12, 1e-12)
    local tall = init.orthogonal(gq.zeros(5, 2, f64))
    assert.close(tall:t():matmul(tall), gq.eye(2):to("float64"), 1e-12, 1e-12)
    assert.is_true(p.requires_grad)
  end)
  it("says what is wrong", function()
    refused("at least 2 dimensions", init.kaiming_uniform_, gq.zeros(3))
    refused("a float tensor expected, got number 3", init.zeros_, 3)
    refused("one of leaky_relu", init.kaiming_normal_, gq.zeros(3, 3), { nonlinearity = "softplus" })
  end)
end)

-- ---- in dynamics ----

local function net(seed)
  gq.manual_seed(seed)
  return nn.Sequential { nn.Conv2d(2, 3, 3, { padding = 1, dtype = "float64" }), nn.Softplus(),
    nn.Conv2d(3, 2, 3, { padding = 1, dtype = "float64" }) }
end

local function gradients(f, z0, opts)
  local params = f:parameters()
  z0.requires_grad = true
  local z, info = gq.odeint(f, z0, { 0, 1 }, opts)
  local list = gq.grad((z[2] * z[2]):sum(), { z0, table.unpack(params) })
  z0.requires_grad = false
  return list, info
end

describe("a convolution in dynamics", function()
  local f, z0 = net(3), randn(3, 2, 4, 4)
  local want = gradients(f, z0, { rtol = 1e-9, atol = 1e-9, gradient = "direct" })

  for _, engine in ipairs { "direct", "aca", "adjoint", "seminorm", "gq", "kronrod", "interpolated", "auto" } do
    it("is differentiated by " .. engine, function()
      local got = gradients(f, z0, { rtol = 1e-7, atol = 1e-7, gradient = engine })
      for i = 1, #want do
        local error = (got[i] - want[i]):norm():item() / want[i]:norm():item()
        assert(error < 1e-4, ("gradient %d is %g off"):format(i, error))
      end
    end)
  end

  it("is differentiated by mali and reversible", function()
    local o = { method = "alf", step_size = 0.01 }
    for _, engine in ipairs { "mali", "reversible" } do
      o.gradient = engine
      local got = gradients(f, z0, o)
      for i = 1, #want do
        assert(((got[i] - want[i]):norm() / want[i]:norm()):item() < 1e-3)
      end
    end
  end)

  it("treats each image alone", function()
    local o = { batch = "independent", rtol = 1e-6, atol = 1e-6 }
    local together = gq.odeint(f, z0, { 0, 1 }, o)
    for i = 1, 3 do
      assert.close(together[2][i], gq.odeint(f, z0:narrow(1, i, 1), { 0, 1 }, o)[2][1], 0)
    end
  end)

  it("gives the same numbers where each thread has images of its own", function()
    local wide, before = randn(6, 2, 36, 36), gq.threads()
    for _, engine in ipairs { "direct", "adjoint", "gq" } do
      local of = {}
      for threads = 1, 2 do
        gq.set_threads(threads)
        of[threads] = gradients(f, wide, { method = "bosh3", rtol = 1e-4, atol = 1e-4, gradient = engine })
      end
      gq.set_threads(before)
      for i, g in ipairs(of[1]) do assert(((of[2][i] - g):norm() / g:norm()):item() < 1e-12, engine .. i) end
    end
  end)

  it("is refused by name where it mixes the batch", function()
    local function f_mixed(_, z) return gq.conv1d(z:transpose(1, 2), gq.ones(4, 4, 1, f64)):transpose(1, 2) end
    refused("mixes rows", gq.odeint, f_mixed, randn(4, 3, 5), { 0, 1 }, { batch = "independent" })
  end)
end)

describe("layers with a state of their own inside a solve", function()
  local z0 = randn(4, 3, 2, 2)
  for _, trace in ipairs { true, false } do
    it("use frozen statistics, trace = " .. tostring(trace), function()
      local norm = nn.BatchNorm2d(3, { dtype = "float64" })
      norm(z0 * 3 + 1)
      local mean = norm.running_mean:clone()
      local o = { batch = trace and "independent" or nil, trace = trace, gradient = "none" }
      local z = gq.odeint(function(_, v) return -norm(v) end, z0, { 0, 1 }, o)
      norm:eval()
      assert.close(z, gq.odeint(function(_, v) return -norm(v) end, z0, { 0, 1 }, o), 0)
      assert.close(norm.running_mean, mean, 0)
    end)
    it("drop by one mask, trace = " .. tostring(trace), function()
      local drop = nn.Dropout(0.5)
      local z = gq.odeint(function(_, v) return drop(v * 0 + 1) end, z0, { 0, 0.3, 1 }, { trace = trace,
        gradient = "none", method = "rk4", step_size = 0.1 })
      local moved = z[3] - z0
      assert.close(moved * (moved - 2), gq.zeros(4, 3, 2, 2), 0, 1e-12)      -- each entry dropped or kept throughout
      assert.is_true(moved:sum():item() > 0)
      local again = gq.odeint(function(_, v) return drop(v * 0 + 1) end, z0, { 0, 1 }, { trace = trace,
        gradient = "none" })
      assert.is_false((again[2] - z[3]):abs():max():item() < 0.5)            -- another solve, another mask
    end)
    it("refuse batch statistics by name, trace = " .. tostring(trace), function()
      refused("gq.batch_norm: in training its statistics are the batch's", gq.odeint, function(_, v)
        return gq.batch_norm(v, nil, nil, { training = true })
      end, z0, { 0, 1 }, { trace = trace, gradient = "none" })
    end)
  end
end)

-- Against a tight solve, at the tolerances of training; weights larger than at the start, so that steps are needed.
describe("the gradients of the paper's convolutional dynamics", function()
  local function worst(n, size, batch, scale)
    gq.manual_seed(4)
    local f = nn.Sequential { nn.Conv2d(10, n, 3, { padding = 1 }), nn.Softplus(), nn.Conv2d(n, n, 3, { padding = 1 }),
      nn.Softplus(), nn.Conv2d(n, 10, 3, { padding = 1 }) }
    gq.no_grad(function() for _, p in ipairs(f:parameters()) do p:copy_(p * scale) end end)
    local readout = nn.Linear(10 * size * size, 10)
    local y = gq.randint(1, 10, batch, { seed = 2 })
    local function by(o)
      local x = gq.randn({ batch, 10, size, size }, { seed = 1 })
      x.requires_grad = true
      f:zero_grad()
      local z, info = gq.odeint(f, x, { 0, 1 }, o)
      gq.cross_entropy(readout(z[-1]:flatten(2)), y):backward()
      local list = { x.grad }
      for _, p in ipairs(f:parameters()) do list[#list + 1] = p.grad:clone() end
      return list, info
    end
    local exact, errors = by { gradient = "direct", rtol = 1e-6, atol = 1e-7 }, {}
    for _, engine in ipairs { "direct", "adjoint", "seminorm", "gq" } do
      local got, info = by { gradient = engine, rtol = 1e-3, atol = 1e-3 }
      assert.is_true(info.steps >= 2)
      errors[engine] = 0
      for i, g in ipairs(exact) do
        errors[engine] = math.max(errors[engine], ((got[i] - g):norm() / g:norm()):item())
      end
    end
    return errors
  end

  local function all_below(limit, errors)
    for engine, e in pairs(errors) do assert.is_true(e > 0 and e < limit, engine .. ": " .. e) end
  end

  it("are within a hundredth, by each engine", function() all_below(1e-2, worst(8, 6, 3, 3)) end)
  it("are within a hundredth with 64 channels, #slow", function() all_below(1e-2, worst(64, 11, 16, 2)) end)
end)
