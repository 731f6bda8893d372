-- Modules: values, parameters and their order, states, classes of one's own, inside solves.

local gq = require "gq"
local assert = require "luassert"
local helper = require "tests.helper"
local nn = gq.nn
local refused = helper.refused

local function names(m)
  local list = {}
  for name in m:named_parameters() do list[#list + 1] = name end
  return list
end

describe("layers", function()
  it("Linear is x W' + b, and starts within 1/sqrt(n_in)", function()
    local l = nn.Linear(3, 2)
    local x = gq.randn(5, 3)
    assert.close(l(x), x:matmul(l.weight:t()) + l.bias, 1e-6)
    assert.same({ 5, 2 }, l(x).shape)
    assert.same({ 2 }, l(x[1]).shape)
    assert.same({ 4, 5, 2 }, l(gq.randn(4, 5, 3)).shape)
    local big = nn.Linear(100, 100)
    assert.is_true(big.weight:abs():max():item() <= 0.1)
    assert.is_true(big.weight:abs():max():item() > 0.099)
    assert.close(big.weight:mean():item(), 0, 0, 3e-3)
    assert.is_nil(nn.Linear(2, 2, { bias = false }).bias)
    assert.same("float64", nn.Linear(2, 2, { dtype = "float64" }).weight.dtype)
  end)

  it("the same seed gives the same network, another one another", function()
    local function first(seed)
      gq.manual_seed(seed)
      return nn.Linear(4, 4).weight:totable()
    end
    assert.same(first(3), first(3))
    assert.not_same(first(3), first(4))
  end)

  it("wrong shapes and arguments say what was expected", function()
    assert.error_matches(function() nn.Linear(3, 2)(gq.randn(5, 4)) end, "{..., 3} expected, got tensor float32 {5, 4}")
    assert.error_matches(function() nn.Linear(0, 2) end, "n_in: an integer of at least 1 expected")
    assert.error_matches(function() nn.Linear(3, 2, { bais = false }) end, "did you mean 'bias'")
    assert.error_matches(function() nn.Sequential { 3 } end, "entry 1: a module or a function expected")
    assert.error_matches(function() nn.mlp { sizes = { 2 } } end, "at least two entries")
    assert.error_matches(function() nn.mlp { sizes = { 2, 2, 2 }, activation = "tan" } end, "activation: ")
    assert.error_matches(function() nn.mlp { sizes = { 2, 2 }, time = 1 } end, "option time: true or false")
    assert.error_matches(function() nn.Dropout(1) end, "p in %[0, 1%)")
    assert.error_matches(function() nn.Linear(3, 2, { bias = 0 }) end, "option bias: true or false expected")
    assert.error_matches(function() nn.Flatten(4)(gq.ones(2, 3)) end, "dimensions from 4 on, got tensor float32 {2, 3}")
    assert.error_matches(function() nn.Softmax { dim = 1 } end, "option dim: an integer expected")
  end)

  it("another library's arguments are refused, not passed over", function()
    for option, name in helper.each({ true, 2, "tanh", { inplace = true }, { approximate = "tanh" }, gq.ones(2) },
        { "ReLU", "GELU", "Softplus", "Tanh" }) do
      assert.error_matches(function() nn[name](option) end, "nn." .. name .. " takes no option")
    end
    assert.error_matches(function() nn.Softplus(2) end, "(beta * x):softplus() / beta", 1, true)
    for text, make in pairs {
      ["number 1 is one argument too many: write nn.MaxPool2d(k [, {stride, padding, dilation}])"] =
        function() nn.MaxPool2d(3, 2, 1) end,
      ["number 5 is one argument too many: write nn.AdaptiveAvgPool2d(size | {h, w})"] =
        function() nn.AdaptiveAvgPool2d(3, 5) end,
      ["number 2 is one argument too many: write nn.Flatten([first])"] = function() nn.Flatten(1, 2) end,
      ["boolean is one argument too many: write nn.Dropout([p])"] = function() nn.Dropout(0.5, true) end,
      ["sides are one list, as {left, right, top, bottom}; got number 3"] = function() nn.ZeroPad2d(1, 3) end,
    } do
      assert.error_matches(make, text, 1, true)
    end
    local Own = nn.Linear:extend("Own")                            -- a class of one's own takes what it likes
    function Own:init(n) nn.Linear.init(self, n, n) end
    assert.equal(3, Own(3, "anything").weight.shape[1])
  end)

  it("activations are those of gq", function()
    local x = gq.linspace(-2, 2, 9)
    for class, f in pairs { Tanh = gq.tanh, ReLU = gq.relu, Softplus = gq.softplus, Sigmoid = gq.sigmoid, ELU = gq.elu,
      GELU = gq.gelu, SiLU = gq.silu, LeakyReLU = gq.leaky_relu, Sin = gq.sin, Softmax = gq.softmax } do
      assert.same(f(x):totable(), nn[class]()(x):totable())
    end
    assert.same(gq.elu(x, 0.3):totable(), nn.ELU(0.3)(x):totable())
  end)

  it("shapes: Flatten, Unflatten, Augment, Select", function()
    local x = gq.randn(2, 3, 4)
    assert.same({ 2, 12 }, nn.Flatten()(x).shape)
    assert.same({ 2, 3, 2, 2 }, nn.Unflatten { 2, 2 } (x).shape)
    local a = nn.Augment(2)(x)
    assert.same({ 2, 3, 6 }, a.shape)
    assert.same(x:totable(), nn.Select(1, 4)(a):totable())
    assert.same(0, nn.Select(5, 6)(a):abs():max():item())
    local image = gq.randn(2, 3, 4, 4)
    local wide = nn.Augment(2, { dim = 2 })(image)
    assert.same({ 2, 5, 4, 4 }, wide.shape)
    assert.same(image:totable(), nn.Select(1, 3, { dim = 2 })(wide):totable())
    assert.same(0, nn.Select(5, { dim = -3 })(wide):abs():max():item())
    assert.same(image:totable(), nn.Augment(0, { dim = 2 })(image):totable())          -- none, as in ablations
    assert.error_matches(function() nn.Augment(-1) end, "at least 0 expected, got number %-1")
    assert.error_matches(function() nn.Augment(1, { dim = 0 }) end, "dim: a dimension, 1 the first and %-1 the last")
    assert.error_matches(function() nn.Augment(1, { dim = 5 })(image) end, "dim = 5, got tensor float32 {2, 3, 4, 4}")
  end)

  it("time and velocity stand in the dimension that is named", function()
    local image = gq.randn(2, 4, 3, 3)
    local seen
    local field = nn.TimeConcat(function(x) seen = x return x:narrow(2, 1, 4) end, { dim = 2 })
    field(0.25, image)
    assert.same({ 2, 5, 3, 3 }, seen.shape)
    assert.same({ 0.25, 0.25 }, { seen[{ {}, 5 }]:min():item(), seen[{ {}, 5 }]:max():item() })
    local push = nn.SecondOrder(function(_, z) return -z:narrow(2, 1, 2) end, { dim = 2 })
    local slope = push(0, image)
    assert.same(image:narrow(2, 3, 2):totable(), slope:narrow(2, 1, 2):totable())
    assert.same((-image:narrow(2, 1, 2)):totable(), slope:narrow(2, 3, 2):totable())
    assert.error_matches(function() push(0, gq.randn(2, 3, 4, 4)) end, "dimension 2 holds x and v")
    assert.error_matches(function() nn.TimeConcat(nn.Linear(3, 2), { dims = 2 }) end, "did you mean 'dim'")
  end)

  it("of one's own may take several values, and is given all of them", function()
    local Two, Three, Any = nn.Module:extend "Two", nn.Module:extend "Three", nn.Module:extend "Any"
    function Two:forward(x, h) return x * 10 + h end -- luacheck: ignore
    function Three:forward(x, times, mask) return x * #times * (mask or 1) end -- luacheck: ignore
    function Any:forward(...) return select("#", ...) end -- luacheck: ignore
    assert.same({ 12, 12 }, Two()(gq.ones(2), gq.full({ 2 }, 2)):totable())
    assert.same({ 6 }, Three()(gq.ones(1), { 1, 2 }, 3):totable())
    assert.same({ 2 }, Three()(gq.ones(1), { 1, 2 }):totable())
    assert.equal(3, Any()(gq.ones(1), 2, 3))
    Two.time = true
    assert.same({ 12, 12 }, Two()(1, gq.full({ 2 }, 2)):totable())
    local cell = Three()                                          -- inside dynamics, too
    local z = gq.odeint(function(_, y) return cell(y, { 1 }, -1) end, gq.ones(2), { 0, 1 }, { rtol = 1e-5 })
    assert.close(z[2], { math.exp(-1), math.exp(-1) }, 1e-3)
  end)

  it("are given all values of a call, or say which they do not take", function()
    local x, h = gq.ones(3, 2), gq.full({ 3, 2 }, 9)
    local one = "forward takes (x), got (tensor float32 {3, 2}, tensor float32 {3, 2}): write net(x);"
    refused("Linear: " .. one, nn.Linear(2, 2), x, h)
    refused("Tanh: " .. one, nn.Tanh(), x, h)
    refused("Sequential: " .. one, nn.Sequential { nn.Linear(2, 2) }, x, h)
    refused("a time in front, which is left out, is a number or a 0-d tensor", nn.Linear(2, 2), gq.ones(1), x)
    refused("Linear: forward takes (x), got (tensor float32 {3, 2}, number 2)", function()
      nn.Linear(2, 2)(1, x, 2)
    end)
    refused("Linear: forward takes (x), got (tensor float32 {3, 2}, nil, number 2)", nn.Linear(2, 2), x, nil, 2)
    refused("TimeConcat: forward takes (t, z), got (number 1, tensor float32 {3, 2}, number 2)",
      nn.TimeConcat(nn.Linear(3, 2)), 1, x, 2)
    refused("GRUCell: forward takes (x, h), got (tensor float32 {3, 2}, tensor float32 {3, 2}, number 2)",
      nn.GRUCell(2, 2), x, h, 2)
    local Own = nn.Module:extend "Own"
    function Own:forward(z, u) return u and z * u or z end -- luacheck: ignore
    refused("Own: forward takes (z, u), got (tensor float32 {3, 2}, tensor float32 {3, 2}, number 3): write net(z, u);",
      Own(), x, h, 3)
    assert.same({ 9, 9 }, Own()(x, h)[1]:totable())
    assert.same({ 1, 1 }, Own()(x, nil)[1]:totable())
  end)

  it("are given the time where the first parameter of forward is called as one", function()
    local z = gq.full({ 3, 2 }, 2)
    for _, f in ipairs { function(_, t, y) return y * t end, function(_, time, y) return y * time end,
      function(_, _, y) return y * 0.5 end, function(_, t, ...) return (...) * t end } do
      local Field = nn.Module:extend "Field"
      Field.forward = f
      assert.same({ 1, 1 }, Field()(0.5, z)[1]:totable())
      assert.same({ 1, 1 }, nn.Sequential { Field() }(0.5, z)[1]:totable())
      local end_of = gq.odeint(Field(), gq.ones(2), { 0, 1 }, { rtol = 1e-6, atol = 1e-6 })[2]
      assert.close(end_of, gq.full({ 2 }, math.exp(0.5)), 1e-5)
      Field.time = false                                          -- the class says otherwise
      assert.has_error(function() Field()(0.5, z) end)
    end
    local Field, Masked = nn.Module:extend "Field", nn.Module:extend "Masked"
    function Field:forward(t, y) return y * t end -- luacheck: ignore
    local Child, Grown = Field:extend "Child", Field:extend "Grown"
    function Child:forward(y) return y * 3 end -- luacheck: ignore
    assert.same({ 6, 6 }, Child()(0.5, z)[1]:totable())
    assert.same({ 6, 6 }, Child()(z)[1]:totable())
    assert.same({ 1, 1 }, Grown()(0.5, z)[1]:totable())
    function Masked:forward(t, mask) return mask and t * mask or -t end -- luacheck: ignore
    assert.same({ -2, -2 }, Masked()(z)[1]:totable())              -- of one value it is that, whatever its name
    assert.same({ 4, 4 }, Masked()(z, z)[1]:totable())
    refused("Field was called with one value: with the time write net(t, z)", Field(), z)
  end)

  it("leave out a time that is not for them", function()
    local x, layer = gq.randn(3, 2), nn.Linear(2, 2)
    for _, net in ipairs { layer, nn.Sequential { layer } } do
      for _, t in ipairs { 0.5, gq.tensor(0.5) } do assert.close(net(t, x), layer(x)) end
    end
    assert.same({ 3, 2 }, nn.mlp { sizes = { 2, 4, 2 }, time = true }(gq.tensor { 0.5 }, x).shape)
    local function several(where)
      local Own = nn.Module:extend "Own"
      function Own:forward(scale, z) return scale * (z or 7) end -- luacheck: ignore
      if where == "class" then Own.time = false end
      local own = Own()
      if where == "object" then own.time = false end
      return own
    end
    for _, where in ipairs { "class", "object", "nowhere" } do
      local own = several(where)
      assert.same({ 7, 14 }, own(0.5, gq.tensor { 1, 2 }):totable())
      assert.same({ 3, 6 }, own(0.5, gq.tensor { 1, 2 }, 3):totable())
      assert.same({ 3, 8 }, own(gq.tensor { 3, 4 }, gq.tensor { 1, 2 }):totable())
    end
    local given = several()
    given.time = true
    assert.same({ 2, 4 }, given(gq.tensor(2), gq.tensor { 1, 2 }):totable())
  end)

  it("a layer of another number of channels names no time", function()
    local f = nn.TimeConcat(nn.Sequential { nn.Conv2d(4, 3, 3, { padding = 1 }) })
    local _, problem = pcall(gq.odeint, f, gq.randn(1, 3, 8, 8), { 0, 1 })
    assert.is_nil(problem:find("called without t", 1, true))
    local z = gq.odeint(nn.TimeConcat(nn.Sequential { nn.Conv2d(4, 3, 3, { padding = 1 }) }, { dim = 2 }),
      gq.randn(1, 3, 8, 8), { 0, 1 })
    assert.same({ 2, 1, 3, 8, 8 }, z.shape)
  end)

  it("Dropout scales what it keeps, in training only", function()
    local d = nn.Dropout(0.25)
    local y = d(gq.ones(10000)):totable()
    local kept = 0
    for _, v in ipairs(y) do
      assert.is_true(v == 0 or math.abs(v - 4 / 3) < 1e-6)
      if v ~= 0 then kept = kept + 1 end
    end
    assert.close(kept / 10000, 0.75, 0.03)
    d:eval()
    assert.same({ 1, 1 }, d(gq.ones(2)):totable())
  end)
end)

describe("recurrent cells", function()
  local function sigmoid(x) return 1 / (1 + math.exp(-x)) end

  -- Row i of w times x plus b[i], in plain Lua.
  local function row(w, b, i, x)
    local sum = b and b[i] or 0
    for j = 1, #x do sum = sum + w[i][j] * x[j] end
    return sum
  end

  -- The formulas of PyTorch's documentation, number by number.
  local function gru(c, x, h)
    local wi, wh = c.weight_ih:totable(), c.weight_hh:totable()
    local bi, bh = c.bias_ih and c.bias_ih:totable(), c.bias_hh and c.bias_hh:totable()
    local next_h, m = {}, #h
    for i = 1, m do
      local r = sigmoid(row(wi, bi, i, x) + row(wh, bh, i, h))
      local z = sigmoid(row(wi, bi, m + i, x) + row(wh, bh, m + i, h))
      local n = row(wi, bi, 2 * m + i, x) + r * row(wh, bh, 2 * m + i, h)
      local e = math.exp(2 * n)
      next_h[i] = (1 - z) * (e - 1) / (e + 1) + z * h[i]
    end
    return next_h
  end

  it("GRUCell is PyTorch's, gate by gate", function()
    for _, bias in ipairs { true, false } do
      gq.manual_seed(3)
      local c = nn.GRUCell(3, 2, { bias = bias, dtype = "float64" })
      assert.same(bias and { "weight_ih", "weight_hh", "bias_ih", "bias_hh" } or { "weight_ih", "weight_hh" }, names(c))
      assert.same({ { 6, 3 }, { 6, 2 } }, { c.weight_ih.shape, c.weight_hh.shape })
      local x, h = { { 0.5, -1, 2 }, { -0.3, 0.8, 1.5 } }, { { 0.2, -0.7 }, { 1.1, 0.4 } }
      local want = { gru(c, x[1], h[1]), gru(c, x[2], h[2]) }
      local f64 = { dtype = "float64" }
      assert.close(c(gq.tensor(x, f64), gq.tensor(h, f64)), want, 1e-13)
      assert.close(c(gq.tensor(x[1], f64), gq.tensor(h[1], f64)), want[1], 1e-13)
      assert.close(c(gq.tensor(x[1], f64)), gru(c, x[1], { 0, 0 }), 1e-13)
    end
  end)

  it("GRUCell of known weights gives known numbers", function()
    local c = nn.GRUCell(1, 1, { dtype = "float64" })
    c:load_state_dict { weight_ih = gq.tensor { { 1 }, { 2 }, { 3 } }, weight_hh = gq.tensor { { -1 }, { 0.5 }, { 1 } },
      bias_ih = gq.tensor { 0.1, 0.2, 0.3 }, bias_hh = gq.tensor { 0, -0.1, 0.4 } }
    -- x = 0.5, h = -0.4: r = s(1), z = s(0.9), n = tanh(1.8 + r (-0.4 + 0.4)) = tanh(1.8)
    local z = sigmoid(0.9)
    local n = (math.exp(3.6) - 1) / (math.exp(3.6) + 1)
    local y = c(gq.tensor({ 0.5 }, { dtype = "float64" }), gq.tensor({ -0.4 }, { dtype = "float64" }))
    assert.close(y:totable(), { (1 - z) * n - 0.4 * z }, 1e-7)
  end)

  it("RNNCell is tanh or relu of both products", function()
    for _, f in ipairs { "tanh", "relu" } do
      local c = nn.RNNCell(3, 4, { nonlinearity = f })
      local x, h = gq.randn(5, 3), gq.randn(5, 4)
      local want = gq[f](x:matmul(c.weight_ih:t()) + c.bias_ih + h:matmul(c.weight_hh:t()) + c.bias_hh)
      assert.close(c(x, h), want, 1e-6, 1e-6)
    end
  end)

  it("start within 1/sqrt(n_hidden), and give gradients to every parameter", function()
    local c = nn.GRUCell(20, 25)
    for _, p in ipairs(c:parameters()) do
      assert.is_true(p:abs():max():item() <= 0.2 and p:abs():max():item() > 0.18)
    end
    c(gq.randn(5, 20), c(gq.randn(5, 20))):square():sum():backward()
    for _, p in ipairs(c:parameters()) do assert.is_true(p.grad:abs():max():item() > 0) end
    assert.matches("GRUCell(20, 25", tostring(c), 1, true)
  end)

  it("say what they expect", function()
    local c = nn.GRUCell(3, 2)
    assert.error_matches(function() c(gq.ones(4, 2)) end, "nn.GRUCell: x {n, 3} or {3} expected, got tensor")
    assert.error_matches(function() c(gq.ones(4, 3), gq.ones(3, 2)) end, "h {4, 2} expected for x {4, 3}, got tensor")
    assert.error_matches(function() nn.GRUCell(3) end, "n_in and n_hidden: integers of at least 1 expected")
    assert.error_matches(function() nn.RNNCell(3, 2, { nonlinearity = "sin" }) end, "one of tanh, relu expected")
    assert.error_matches(function() nn.RNNCell(3, 2, { bias = 1 }) end, "true or false expected")
  end)
end)

describe("time", function()
  it("a module without time ignores t when called with both", function()
    local l, x = nn.Linear(3, 2), gq.randn(5, 3)
    assert.same(l(x):totable(), l(0.5, x):totable())
    assert.same(l(x):totable(), l(gq.tensor(0.5), x):totable())
  end)

  it("mlp with time has t as a last input", function()
    local f, z = nn.mlp { sizes = { 2, 8, 2 }, activation = "tanh", time = true }, gq.randn(5, 2)
    local with_t = gq.cat({ z, gq.full({ 5, 1 }, 0.25) }, 2)
    assert.close(f(0.25, z), f.module(with_t), 1e-6)
    assert.close(f(gq.tensor(0.25), z), f.module(with_t), 1e-6)
    assert.error_matches(function() f(z) end, "call net%(t, z%)")
    assert.same({ 2 }, f(0.25, gq.randn(2)).shape)
  end)

  it("Sequential depends on time when a part does", function()
    local f = nn.Sequential { nn.mlp { sizes = { 2, 4, 2 }, time = true }, nn.Tanh(), function(x) return x * 2 end }
    assert.is_true(f.time)
    assert.same({ 3, 2 }, f(1, gq.randn(3, 2)).shape)
    assert.is_false(nn.Sequential { nn.Tanh() }.time)
  end)

  it("SecondOrder returns v and the acceleration", function()
    local f = nn.SecondOrder(function(t, z) return -z:narrow(-1, 1, 1) end)
    assert.same({ { 2, -1 } }, f(0, gq.tensor { { 1, 2 } }):totable())
    assert.error_matches(function() f(0, gq.randn(2, 3)) end, "size is even")
    local wrong = nn.SecondOrder(function(t, z) return z end)
    assert.error_matches(function() wrong(0, gq.randn(2, 4)) end, "has the shape of x")
  end)
end)

describe("parameters and state", function()
  it("are listed in the order of assignment, each once", function()
    local net = nn.mlp { sizes = { 2, 3, 1 }, time = true }
    assert.same({ "module.1.weight", "module.1.bias", "module.3.weight", "module.3.bias" }, names(net))
    local Tied = nn.Module:extend("Tied")
    function Tied:init()
      self.z = nn.Linear(2, 2)
      self.a = nn.Linear(2, 2)
      self.again = self.z
      self.scale = gq.ones(1, { requires_grad = true })
      self.list = { nn.Linear(1, 1), { deep = nn.Linear(1, 1) } }
      self.offset = gq.zeros(3)
      self._private = nn.Linear(5, 5)
    end
    local t = Tied()
    assert.same({ "z.weight", "z.bias", "a.weight", "a.bias", "scale", "list.1.weight", "list.1.bias",
      "list.2.deep.weight", "list.2.deep.bias" }, names(t))
    assert.same(9, #t:parameters())
    assert.is_not_nil(t:state_dict().offset)
  end)

  it("state_dict is a snapshot that load_state_dict puts back", function()
    local net = nn.mlp { sizes = { 2, 3, 1 } }
    local before, x = net:state_dict(), gq.randn(4, 2)
    local y = net(x):totable()
    gq.no_grad(function() for _, p in ipairs(net:parameters()) do p:copy_(p * 2) end end)
    assert.not_same(y, net(x):totable())
    net:load_state_dict(before)
    assert.same(y, net(x):totable())
    assert.is_true(net:parameters()[1].requires_grad)
  end)

  it("load_state_dict takes what gq.load gives, metadata and all", function()
    local path = helper.folder() .. "/m.safetensors"
    local from, to = nn.Linear(2, 3), nn.Linear(2, 3)
    for _, metadata in ipairs { false, {}, { epoch = "5" } } do
      gq.save(path, from:state_dict(), metadata or nil)
      assert.equal(to, to:load_state_dict(gq.load(path)))
      assert.close(to.weight, from.weight, 0)
      to = nn.Linear(2, 3)
    end
    for _, more in ipairs { { strict = false }, false, 1 } do
      helper.raises("one table strict = false", to.load_state_dict, to, from:state_dict(), more)
    end
    assert(os.remove(path) and os.remove(path:match("^(.*)/")))
  end)

  it("refuses what is no tensor by its name, and info behind states", function()
    local Own = nn.Module:extend("Own")
    function Own:forward(x) return x end
    local z0 = gq.ones(3, 2)
    local function f(_, z) return -z end
    local own = { nn.Linear(2, 2), nn.Flatten(), nn.Unflatten(2, { 1, 2 }), nn.Dropout(0.5), nn.Tanh(), nn.Augment(1),
      nn.Select(1, 2), nn.MaxPool2d(2), nn.TimeConcat(nn.Linear(3, 2)), nn.SecondOrder(nn.Linear(2, 1)) }
    for net, x in helper.each(own, { 3, "x", { z0 }, true }) do
      local text = helper.raises("nn. a tensor expected", function() return net(gq.tensor(0), x) end)
      assert.falsy(text:find("gq/", 1, true), text)
    end
    own[#own + 1], own[#own + 2] = Own(), nn.Sequential { function(x) return x end }
    for _, net in ipairs(own) do
      helper.raises("info parentheses", function() return (net(gq.odeint(f, z0, { 0, 1 }))) end)
    end
    assert.equal(4, Own()(4))
    local first = nn.Sequential { function(list) return list[1] end }
    assert.close(first { z0 }, z0, 0)
    local Child = nn.Linear:extend("Child")
    function Child:forward(list) return nn.Linear.forward(self, list[1]) end
    assert.same({ 3, 1 }, Child(2, 1)({ z0 }).shape)
  end)

  it("load_state_dict names what is missing, unexpected or of another shape, and changes nothing", function()
    local net = nn.mlp { sizes = { 2, 3, 1 } }
    local before, state = net:state_dict(), net:state_dict()
    state["1.weight"], state["1.bias"], state.extra = nil, gq.zeros(4), gq.zeros(1)
    helper.refused({ "missing: 1.weight", "unexpected: extra", "1.bias has shape {4}, expected {3}" },
      net.load_state_dict, net, state)
    for name, t in pairs(net:state_dict()) do assert.same(before[name]:totable(), t:totable()) end
    assert.error_matches(function() net:load_state_dict(3) end, "a table of tensors by name expected")
  end)

  it("to converts, train and eval reach every module", function()
    local net = nn.Sequential { nn.Linear(2, 2), nn.Dropout(), nn.Sequential { nn.Linear(2, 1) } }
    net:to("float64")
    for _, p in ipairs(net:parameters()) do
      assert.same("float64", p.dtype)
      assert.is_true(p.requires_grad)
    end
    assert.same("float64", net:eval()(gq.randn({ 2, 2 }, { dtype = "float64" })).dtype)
    for _, m in net:modules() do assert.is_false(m.training) end
    net:train()
    for _, m in net:modules() do assert.is_true(m.training) end
  end)

  it("what trains or averages parameters that to has replaced is refused", function()
    local makers = {
      function(p) local o = gq.optim.adam(p) return function() o:step() end end,
      function(p) local o = gq.optim.sgd { { params = p, lr = 0.1 } } return function() o:step() end end,
      function(p) local o = gq.optim.lbfgs(p) return function() o:step(function() return gq.tensor(0) end) end end,
      function(p) local e = gq.optim.ema(p) return function() e:update() end end,
      function(p) local e = gq.optim.ema(p) return function() e:with(function() end) end end,
      function(p) return function() gq.optim.clip_grad_norm(p, 1) end end,
      function(p) return function() gq.optim.adamw(p) end end,
    }
    for i, make in ipairs(makers) do
      local net = nn.Linear(2, 1)
      local x = gq.ones({ 3, 2 })
      local function backward(to) net(x:to(to)):sum():backward() end
      local use = make(net:parameters())
      backward("float32")
      net:to("float32"):to(x.device)                          -- as they are: the same tensors
      if i ~= 3 then use() end
      net:to("float64")
      backward("float64")
      assert.error_matches(use, "parameter 1 is not its module's any more: net:to(...) put tensor float64 {1, 2} in", 1,
        true)
      assert.error_matches(use, "after net:to(...)", 1, true)
      local again = make(net:parameters())
      if i ~= 3 then again() end
    end
    local net, other = nn.Linear(1, 1), nn.Linear(1, 1)
    local opt = gq.optim.sgd(net:parameters(), { lr = 1 })
    other:to("float64")                                     -- another module's
    net(gq.ones({ 1, 1 })):sum():backward()
    local before = net.bias:item()
    opt:step()
    assert.close(net.bias:item(), before - 1, 1e-6)
  end)

  it("prints its structure", function()
    local text = tostring(nn.mlp { sizes = { 2, 8, 1 }, time = true })
    assert.matches("TimeConcat(", text, 1, true)
    assert.matches("1: Linear(3, 8)", text, 1, true)
  end)

  it("gradients reach every parameter", function()
    local net = nn.mlp { sizes = { 2, 4, 1 }, activation = "tanh", dtype = "float64", time = true }
    local x = gq.randn({ 3, 2 }, { dtype = "float64", seed = 1 })
    net(0.5, x):sum():backward()
    for _, p in net:named_parameters() do assert.is_true(p.grad:abs():max():item() > 0) end
    net:zero_grad()
    for _, p in net:named_parameters() do assert.is_nil(p.grad) end
  end)

  it("gradients of frozen parameters are cleared, too", function()
    local net = nn.Sequential { nn.Linear(2, 3), nn.BatchNorm1d(3) }
    local p = net:parameters()[1]
    net(gq.randn({ 4, 2 }, { seed = 1 })):square():sum():backward()
    p.requires_grad = false
    net:zero_grad()
    assert.is_nil(p.grad)
  end)
end)

describe("classes of one's own", function()
  it("inherit, construct and compose", function()
    local Base = nn.Module:extend("Base")
    function Base:init(n) self.inner = nn.Linear(n, n) end
    function Base:forward(x) return self.inner(x) end
    function Base:twice(x) return self(self(x)) end
    local Child = Base:extend("Child")
    Child.time = true
    function Child:forward(t, x) return Base.forward(self, x) * t end
    local b, c = Base(3), Child(3)
    assert.same({ 2, 3 }, b:twice(gq.randn(2, 3)).shape)
    assert.same({ 2, 3 }, c(2, gq.randn(2, 3)).shape)
    assert.matches("Child(", tostring(c), 1, true)
    assert.same(2, #c:parameters())
    assert.error_matches(function() nn.Module:extend("Empty")()(1) end, "Empty has no forward function")
  end)
end)

describe("inside a solve", function()
  it("a module is a dynamics function whose parameters get gradients", function()
    local net = nn.mlp { sizes = { 2, 8, 2 }, activation = "tanh", time = true }
    local z = gq.odeint(net, gq.randn(3, 2), { 0, 1 })
    z[-1]:sum():backward()
    for _, p in net:named_parameters() do assert.is_true(p.grad:abs():max():item() > 0) end
  end)

  it("dropout uses one mask a solve", function()
    local drop = nn.Dropout(0.5)
    local z = gq.odeint(function(_, x) return drop(gq.ones(x.shape)) + x * 0 end, gq.zeros(1000), { 0, 1, 2 })
    local first, second = z[2]:totable(), (z[3] - z[2]):totable()
    local kept = 0
    for i = 1, 1000 do
      assert.close(second[i], first[i], 1e-4, 1e-5)
      if first[i] > 1 then kept = kept + 1 end
    end
    assert.close(kept / 1000, 0.5, 0.2)
  end)
end)
