-- Convolutions, pooling and padding against plain loops over numbers, their gradients against central differences, and
-- in dynamics with every engine.

local gq = require "gq"
local helper = require "tests.helper"
local nn = gq.nn

local f64 = { dtype = "float64" }
local function randn(...) return gq.randn({ ... }, { dtype = "float64", seed = 31 }) end
local function refuses(text, f, ...)
  local said = helper.message(f, ...)
  assert.truthy(said:find(text, 1, true), said)
end

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

local function check(f, ...)
  for order = 1, 2 do
    local ok, report = gq.checkgrad(f, { ... }, { order = order })
    assert(ok, ("order %d: %s"):format(order, type(report) == "table" and report.message or tostring(report)))
  end
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
    local t = gq.conv_transpose1d(y, w, { stride = 2, padding = 1, dilation = 2, groups = 2 })
    local part = x:narrow(3, 1, t.shape[3])
    assert.close((t * part):sum(), (y * gq.conv1d(part, w, nil, o)):sum(), 1e-12)
  end)

  it("takes empty batches and large strides", function()
    assert.same({ 0, 2, 2, 3 }, gq.conv2d(gq.zeros(0, 3, 4, 5), gq.zeros(2, 3, 3, 3)).shape)
    assert.same({ 1, 2, 1, 1 }, gq.conv2d(gq.zeros(1, 3, 4, 5), gq.zeros(2, 3, 3, 3), { stride = 9 }).shape)
  end)

  it("says what is wrong", function()
    local x, w = gq.zeros(2, 4, 5, 5), gq.zeros(6, 4, 3, 3)
    refuses("a kernel of 3 x 3 is larger than the input of 2 x 2, with its padding 2 x 2", gq.conv2d,
      gq.zeros(1, 4, 2, 2), w)
    refuses("(7 x 7 with its dilation)", gq.conv2d, x, w, { dilation = 3 })
    refuses("groups = 3 does not divide 4 input channels", gq.conv2d, x, w, { groups = 3 })
    refuses("groups = 2 does not divide 4 input channels and 5 output channels", gq.conv2d, x, gq.zeros(5, 2, 3, 3),
      { groups = 2 })
    refuses("needs a weight {c_out, 2, ...}, got {6, 4, 3, 3}", gq.conv2d, x, w, { groups = 2 })
    refuses("{batch, channels, h, w}, or without batch, expected, got tensor float32 {5, 5}", gq.conv2d,
      gq.zeros(5, 5), w)
    refuses("a weight {c_out, c_in/groups, kh, kw} expected, got tensor float32 {6, 4}", gq.conv2d, x, gq.zeros(6, 4))
    refuses("got tensor int64", gq.conv2d, x:to("int64"), w)
    refuses("a bias {6} expected, got tensor float32 {5}", gq.conv2d, x, w, gq.zeros(5))
    refuses("stride: an integer of at least 1", gq.conv2d, x, w, { stride = 0 })
    refuses("padding: an integer of at least 0", gq.conv2d, x, w, { padding = { 1, 2, 3 } })
    refuses("needs stride 1", gq.conv2d, x, w, { padding = "same", stride = 2 })
    refuses("did you mean 'padding'", gq.conv2d, x, w, { paddings = 1 })
    refuses("a weight {4, ...}", gq.conv_transpose2d, x, gq.zeros(3, 4, 3, 3))
    refuses("output_padding is smaller", gq.conv_transpose2d, x, w[{ { 1, 4 } }], { output_padding = 1 })
    refuses("nothing is left", gq.conv_transpose2d, gq.zeros(1, 4, 1, 1), w[{ { 1, 4 } }], { padding = 2 })
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
    refuses("a kernel of 7 x 7 is larger than the input of 5 x 6", gq.max_pool2d, x, 7)
    refuses("padding is at most half the kernel, got 2 for 3", gq.max_pool2d, x, 3, { padding = 2 })
    refuses("kernel: an integer of at least 1", gq.avg_pool2d, x, 0)
    refuses("{batch, channels, h, w}", gq.max_pool2d, x[1][1], 2)
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
    refuses("at most 3", gq.pad, x, { 4, 0 }, "reflect")
    refuses("at most 4", gq.pad, x, { 5, 0 }, "circular")
    refuses("{before, after} of the last dimension", gq.pad, x, { 1 })
    refuses("pads: an integer of at least 0", gq.pad, x, { -1, 0 })
    refuses("one of constant, reflect", gq.pad, x, { 1, 1 }, "mirror")
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
    local t = nn.ConvTranspose2d(4, 2, 3, { output_padding = 1, stride = 2, dtype = "float64" })
    assert.same({ 2, 2, 14, 12 }, t(x).shape)
    assert.close(nn.MaxPool2d(2)(x), gq.max_pool2d(x, 2), 0)
    assert.close(nn.AvgPool2d({ 2, 1 }, { stride = 1 })(x), gq.avg_pool2d(x, { 2, 1 }, { stride = 1 }), 0)
    local net = nn.Sequential { nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2) }
    assert.same({ 5, 2 }, net(gq.randn(5, 1, 6, 6)).shape)
    assert.same({ 7, 3, 4 }, nn.Conv1d(2, 3, 3)(gq.randn(7, 2, 6)).shape)
    refuses("groups = 4 does not divide", nn.Conv2d, 6, 4, 3, { groups = 4 })
    refuses("c_in: an integer", nn.Conv2d, 0, 4, 3)
    refuses("padding_mode", nn.Conv2d, 1, 4, 3, { padding_mode = "same" })
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

  it("is refused by name where it mixes the batch", function()
    local function f_mixed(_, z) return gq.conv1d(z:transpose(1, 2), gq.ones(4, 4, 1, f64)):transpose(1, 2) end
    refuses("mixes rows", gq.odeint, f_mixed, randn(4, 3, 5), { 0, 1 }, { batch = "independent" })
  end)
end)
