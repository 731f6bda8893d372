-- losses_spec.lua -- losses, sets in parts and scaled, groups of parameters, L-BFGS, clipping, averages of weights,
-- checkpoints kept by number.

local gq = require "gq"
local helper = require "tests.helper"

local raises, f64 = helper.raises, { dtype = "float64" }

local function leaf(...) return gq.randn({ ... }, { dtype = "float64", seed = 31, requires_grad = true }) end
local function numbers(x) return x:flatten():totable() end

describe("losses", function()
  local x, y = leaf(4, 3), gq.randn({ 4, 3 }, { dtype = "float64", seed = 32 })

  -- loss(x, y, ...) by its formula for each entry.
  local function agrees(loss, formula, a, b, ...)
    local args, opts = table.pack(...), nil
    local extra = args[1]
    local sum, list, p, q = 0, {}, numbers(a), numbers(b)
    for i = 1, #p do
      list[i] = formula(p[i], q[i])
      sum = sum + list[i]
    end
    local function call(o)
      if extra ~= nil then return loss(a, b, extra, helper.with(args[2], o)) end
      return loss(a, b, helper.with(args[2], o))
    end
    assert.close(call(opts):item(), sum / #p, 1e-12)
    assert.close(call { reduction = "sum" }:item(), sum, 1e-12)
    assert.close(call { reduction = "none" }:flatten(), list, 1e-12)
    assert.is_true(gq.checkgrad(function(z)
      if extra ~= nil then return loss(z, b, extra, args[2]) end
      return loss(z, b, args[2])
    end, { a }))
  end

  it("l1, huber, Gaussian likelihood", function()
    agrees(gq.l1_loss, function(a, b) return math.abs(a - b) end, x, y)
    for _, delta in ipairs { 0.5, 1 } do
      agrees(function(a, b, o) return gq.huber_loss(a, b, helper.with({ delta = delta }, o)) end, function(a, b)
        local d = math.abs(a - b)
        return d < delta and d * d / 2 or delta * (d - delta / 2)
      end, x, y)
    end
    agrees(gq.gaussian_nll_loss, function(a, b) return 0.5 * (math.log(0.3) + (a - b) ^ 2 / 0.3) end, x, y, 0.3)
    agrees(gq.gaussian_nll_loss, function(a, b)
      return 0.5 * (math.log(0.3) + (a - b) ^ 2 / 0.3 + math.log(2 * math.pi))
    end, x, y, gq.full({ 4, 3 }, 0.3, f64), { full = true })
    assert.close(gq.gaussian_nll_loss(x, y, 0):item(), gq.gaussian_nll_loss(x, y, 1e-6):item(), 1e-12)
    local v = gq.full({ 4, 3 }, 0.5, f64)
    v.requires_grad = true
    assert.is_true(gq.checkgrad(function(s) return gq.gaussian_nll_loss(x:detach(), y, s) end, { v }))
  end)

  -- what messages say to write for options of PyTorch, by the options' definitions
  it("smoothed, weighted and left out are made of the others", function()
    local labels, s = gq.tensor({ 1, 3, 2, 2 }, { dtype = "int64" }), 0.1
    local p, of = x:detach():log_softmax():totable(), labels:totable()
    local weight, smooth, weighted, weights, kept = { 0.5, 1, 2 }, 0, 0, 0, 0
    for i = 1, 4 do
      local target = 0
      for c = 1, 3 do target = target - p[i][c] * ((of[i] == c and 1 - s or 0) + s / 3) end
      smooth = smooth + target / 4
      weighted, weights = weighted - weight[of[i]] * p[i][of[i]], weights + weight[of[i]]
      kept = kept - (of[i] ~= 2 and p[i][of[i]] / 2 or 0)
    end
    assert.close(((1 - s) * gq.cross_entropy(x, labels) - s * x:log_softmax():mean()):item(), smooth, 1e-12)
    local w = gq.tensor(weight, f64):index_select(1, labels)
    assert.close(((gq.cross_entropy(x, labels, { reduction = "none" }) * w):sum() / w:sum()):item(), weighted / weights,
      1e-12)
    local keep = labels:ne(2)
    assert.close(gq.cross_entropy(x[keep], labels[keep]):item(), kept, 1e-12)
  end)

  it("binary cross entropy, by probabilities and by logits", function()
    local t, p = y:gt(0):to("float64"), x:sigmoid()
    local function formula(a, b) return -(b * math.log(a) + (1 - b) * math.log(1 - a)) end
    agrees(gq.bce_loss, formula, p:detach(), t)
    assert.close(gq.bce_loss(x, t, { logits = true }):item(), gq.bce_loss(p, t):item(), 1e-12)
    assert.close(gq.bce_loss(x, y:gt(0), { logits = true }):item(), gq.bce_loss(p, y:gt(0)):item(), 1e-12)
    assert.is_true(gq.checkgrad(function(z) return gq.bce_loss(z, t, { logits = true }) end, { x }))
    assert.close(gq.bce_loss(gq.tensor { 0, 1 }, gq.tensor { 1, 0 }):item(), 100)
    assert.equal(0, gq.bce_loss(gq.tensor { 0, 1 }, gq.tensor { 0, 1 }):item())
    for _, dtype in ipairs { "float32", "float64" } do             -- a sigmoid that is full has a gradient
      local ends = gq.tensor({ 0, 1, 0, 1 }, { dtype = dtype, requires_grad = true })
      local right = gq.tensor({ 0, 1, 1, 0 }, { dtype = dtype })
      local slope = gq.grad(gq.bce_loss(ends, right, { reduction = "sum" }), { ends })[1]
      assert.close(slope, { 1, -1, -1e12, 1e12 }, 1e-6)
    end
    assert.close(gq.bce_loss(gq.tensor { 1000, -1000 }, gq.tensor { 1, 1 }, { logits = true }):item(), 500)
  end)

  it("likelihood of labels, which with log_softmax is cross entropy", function()
    local labels = gq.tensor({ 3, 1, 2, 2 }, { dtype = "int64" })
    assert.close(gq.nll_loss(x:log_softmax(), labels):item(), gq.cross_entropy(x, labels):item(), 1e-12)
    assert.close(gq.nll_loss(x, { 1, 1, 1, 1 }):item(), -x[{ {}, 1 }]:mean():item(), 1e-12)
  end)

  it("say what is wrong", function()
    raises("l1_loss shapes {4, 3} and {3} differ", gq.l1_loss, x, gq.zeros(3, f64))
    raises("huber_loss float tensor int64", gq.huber_loss, gq.zeros(2):to("int64"), gq.zeros(2))
    raises("delta positive", gq.huber_loss, x, y, { delta = 0 })
    raises("variance", gq.gaussian_nll_loss, x, y)
    raises("logits = true", gq.bce_loss, x, y)
    raises("labels from 1", gq.nll_loss, x, gq.zeros(4))
    raises("nll_loss: labels count from 1 to 3, the classes (add 1 to labels that count from 0): gather: index " ..
      "0 is out of range", gq.nll_loss, x, { 0, 1, 2, 3 })
    raises("reduction", gq.l1_loss, x, y, { reduction = "avg" })
  end)
end)

describe("gq.data.split and standardise", function()
  it("deal out every entry once, by seed", function()
    local set = { x = gq.arange(1, 50):reshape(50, 1), y = gq.arange(1, 50) * 2 }
    local p = gq.data.split(set, { test = 0.2, validate = 5, seed = 3 })
    assert.same({ 35, 5, 10 }, { #p.train.x, #p.validate.x, #p.test.x })
    local seen = {}
    for _, part in pairs(p) do
      assert.same(numbers(part.x * 2), numbers(part.y))
      for _, v in ipairs(numbers(part.x)) do
        assert.is_nil(seen[v])
        seen[v] = true
      end
    end
    assert.equal(50, #seen)
    assert.same(numbers(p.test.x), numbers(gq.data.split(set, { validate = 5, seed = 3 }).test.x))
    assert.not_same(numbers(p.test.x), numbers(gq.data.split(set, { validate = 5, seed = 4 }).test.x))
    local plain = gq.data.split(gq.arange(1, 10), { test = 3, shuffle = false })
    assert.same({ 8, 9, 10 }, numbers(plain.test))
    assert.is_nil(plain.validate)
    raises("test = 50 below 50", gq.data.split, set, { test = 50 })
    raises("leave nothing", gq.data.split, set, { test = 0.5, validate = 0.5 })
    raises("a set", gq.data.split, { x = 1 })
  end)

  it("standardise, and go back", function()
    local x = gq.randn({ 50, 3 }, { dtype = "float64", seed = 33 }) * gq.tensor({ 1, 5, 0 }, f64) + 4
    local scale = gq.data.standardise(x)
    local y = scale(x)
    assert.close(y:mean(1), { 0, 0, 0 }, 0, 1e-12)
    assert.close(y:std(1, { correction = 0 }), { 1, 1, 0 }, 1e-12, 1e-12)
    assert.close(scale:undo(y), x:totable(), 1e-12)
    assert.same({ 1, 3 }, scale.mean.shape)
    local images = gq.rand({ 6, 2, 4, 4 }, { seed = 34 })
    assert.same({ 1, 2, 1, 1 }, gq.data.standardise(images, { dims = { 1, 3, 4 } }).std.shape)
    raises("a float tensor", gq.data.standardise, gq.zeros(0, 2))
  end)
end)

describe("groups of parameters", function()
  local function start()
    local a, b = gq.ones(3, { requires_grad = true }), gq.ones(2, { requires_grad = true })
    return a, b, function() ((a * a):sum() + (b * b * b):sum()):backward() end
  end

  it("are optimisers of their own, step by step", function()
    for _, kind in ipairs { "adam", "adamw", "sgd", "rmsprop" } do
      local a, b, pull = start()
      local c, d, pull_too = start()
      local both = gq.optim[kind]({ { params = { a }, lr = 0.1 }, { params = { b } } }, { lr = 0.01,
        weight_decay = 0.1 })
      local one, two = gq.optim[kind]({ c }, { lr = 0.1, weight_decay = 0.1 }), gq.optim[kind]({ d }, { lr = 0.01,
        weight_decay = 0.1 })
      for _ = 1, 5 do
        both:zero_grad()
        one:zero_grad()
        two:zero_grad()
        pull()
        pull_too()
        both:step()
        one:step()
        two:step()
      end
      assert.same(c:totable(), a:totable())
      assert.same(d:totable(), b:totable())
      assert.equal(2, #both)
    end
  end)

  it("keep the proportions of their rates under schedules, and are saved and loaded", function()
    local a, b, pull = start()
    local opt = gq.optim.adam({ { params = { a }, lr = 0.1 }, { params = { b }, lr = 0.02 } })
    local schedule = gq.optim.schedule.linear(opt, { steps = 4 })
    for _ = 1, 3 do
      pull()
      opt:step()
      schedule:step()
    end
    assert.close({ opt.lr, opt.groups[2].lr }, { 0.025, 0.005 }, 1e-12)
    local path = os.tmpname() .. ".safetensors"
    gq.checkpoint.save(path, { optimiser = opt, schedule = schedule })
    local c, d, pull_too = start()
    gq.no_grad(function()
      c:copy_(a)
      d:copy_(b)
    end)
    local other = gq.optim.adam({ { params = { c } }, { params = { d } } })
    local later = gq.optim.schedule.linear(other, { steps = 4 })
    gq.checkpoint.load(path, { optimiser = other, schedule = later, rng = false })
    assert.close(other.groups[2].lr, 0.005, 1e-12)
    for _, o in ipairs { opt, other } do o:zero_grad() end
    pull()
    pull_too()
    opt:step()
    other:step()
    assert.same(a:totable(), c:totable())
    assert.same(b:totable(), d:totable())
    raises("groups", function() gq.optim.adam({ { params = { c, d } } }):load_state_dict(opt:state_dict()) end)
    os.remove(path)
  end)

  it("change nothing where a gradient is not finite, and refuse what makes no sense", function()
    local a, b = start()
    local opt = gq.optim.sgd({ { params = { a } }, { params = { b } } }, { lr = 0.1 })
    a.grad, b.grad = gq.ones(3), gq.tensor { 0 / 0, 1 }
    raises("finite", opt.step, opt)
    assert.same({ 1, 1, 1 }, a:totable())
    raises("in the groups 1 and 2", gq.optim.sgd, { { params = { a } }, { params = { a } } })
    raises("group 2 empty", gq.optim.sgd, { { params = { a } }, { params = {} } })
    raises("unknown option 'lrr'", gq.optim.sgd, { { params = { a }, lrr = 1 } })
  end)
end)

describe("gq.optim.lbfgs", function()
  -- Rosenbrock's function in n dimensions: its least value 0 at ones.
  local function rosenbrock(n, opts)
    local x = (gq.ones(n, f64) * -1.2):detach()
    x.requires_grad = true
    local opt, calls = gq.optim.lbfgs({ x }, opts), 0
    local function closure()
      calls = calls + 1
      opt:zero_grad()
      local a, b = x:narrow(1, 1, n - 1), x:narrow(1, 2, n - 1)
      local loss = (100 * (b - a * a) ^ 2 + (1 - a) ^ 2):sum()
      loss:backward()
      return loss
    end
    return x, opt, closure, function() return calls end
  end

  it("finds the minimum of Rosenbrock's function, and of a quadratic in as many steps as it has dimensions", function()
    local x, opt, closure, calls = rosenbrock(2, { max_iter = 100 })
    local first = opt:step(closure)
    assert.close(first, 100 * (-1.2 - 1.44) ^ 2 + 2.2 ^ 2, 1e-12)
    assert.close(x, { 1, 1 }, 1e-6)
    assert.is_true(calls() < 80, calls())
    local y, more, other = rosenbrock(10, { max_iter = 20 })
    for _ = 1, 10 do more:step(other) end
    assert.close(closure():item(), 0, 0, 1e-10)
    assert.close(other():item(), 0, 0, 1e-8)
    assert.close((y - 1):abs():max():item() > 2 and 1 or 0, 0)
    local m = gq.randn({ 5, 5 }, { dtype = "float64", seed = 35 })
    local a, target = m:matmul(m:t()) + gq.eye(5, f64), gq.randn({ 5 }, { dtype = "float64", seed = 36 })
    local z = gq.zeros(5, { dtype = "float64", requires_grad = true })
    local quadratic = gq.optim.lbfgs({ z }, { max_iter = 30 })
    quadratic:step(function()
      quadratic:zero_grad()
      local loss = z:dot(a:matmul(z)) * 0.5 - z:dot(target)
      loss:backward()
      return loss
    end)
    assert.close(z, gq.solve(a, target):totable(), 1e-5, 1e-7)
  end)

  it("fits a network, several parameters at once, and goes on after loading", function()
    gq.manual_seed(7)
    local net, x = gq.nn.mlp { sizes = { 1, 8, 1 }, activation = "tanh" }, gq.linspace(-1, 1, 20):reshape(20, 1)
    local opt = gq.optim.lbfgs(net:parameters(), { history_size = 10 })
    local function closure()
      opt:zero_grad()
      local loss = gq.mse_loss(net(x), (3 * x):sin())
      loss:backward()
      return loss
    end
    local first = opt:step(closure)
    for _ = 1, 4 do opt:step(closure) end
    assert.is_true(closure():item() < 1e-2 * first)
    local other = gq.optim.lbfgs(net:parameters())
    other:load_state_dict(opt:state_dict())
    assert.equal(10, other.history_size)
    assert.equal(5, other:steps())
  end)

  it("says what is wrong", function()
    local _, opt = rosenbrock(2)
    raises("takes a function", opt.step, opt)
    raises("returns the loss", opt.step, opt, function() end)
    raises("not finite; nothing was changed", opt.step, opt, function() return 0 / 0 end)
    raises("empty", gq.optim.lbfgs, {})
    raises("unknown option", gq.optim.lbfgs, { leaf(2) }, { history = 3 })
    raises("strong_wolfe", gq.optim.lbfgs, { leaf(2) }, { line_search = "wolfe" })
  end)
end)

describe("clip_grad_value and averages of weights", function()
  it("limits each entry", function()
    local a, b = leaf(3), leaf(2)
    a.grad = gq.tensor({ -5, 0.5, 2 }, f64)
    gq.optim.clip_grad_value({ a, b }, 1)
    assert.same({ -1, 0.5, 1 }, a.grad:totable())
    assert.is_nil(b.grad)
    raises("limit", gq.optim.clip_grad_value, { a }, -1)
    raises("limit", gq.optim.clip_grad_value, { a }, 0 / 0)
  end)

  it("follows the weights, changes places with them, and is saved", function()
    local w = gq.zeros(2, { dtype = "float64", requires_grad = true })
    local ema, want = gq.optim.ema({ w }, { decay = 0.9 }), 0
    for i = 1, 5 do
      gq.no_grad(function() w[{}] = i end)
      ema:update()
      want = 0.9 * want + 0.1 * i
    end
    assert.same({ 5, 5 }, w:totable())
    ema:swap()
    assert.close(w, { want, want }, 1e-12)
    ema:swap()
    assert.same({ 5, 5 }, w:totable())
    assert.close(ema:with(function(k) return w[1]:item() * k end, 2), 2 * want, 1e-12)
    raises("oh", ema.with, ema, function() error("oh") end)
    assert.same({ 5, 5 }, w:totable())
    local other = gq.optim.ema({ gq.zeros(2, { dtype = "float64", requires_grad = true }) })
    other:load_state_dict(ema:state_dict())
    assert.close(other.average[1], { want, want }, 1e-12)
    assert.equal(0.9, other.decay)
    raises("decay", gq.optim.ema, { w }, { decay = 1 })
    raises("averages of 1", other.load_state_dict, other, {})
    assert.equal(4, #gq.optim.ema(gq.nn.mlp { sizes = { 1, 2, 1 }, activation = "tanh" }).average)
  end)
end)

describe("checkpoints by number", function()
  local folder = helper.folder()

  it("keep the last ones and the best, and tell what is in them", function()
    local net = gq.nn.mlp { sizes = { 2, 3, 2 }, activation = "tanh" }
    local opt = gq.optim.adam(net:parameters(), { lr = 0.25 })
    local keep, values = gq.checkpoint.keeper(folder .. "/net.safetensors", { last = 2 }), { 5, 3, 4, 2.5, 6 }
    assert.is_nil(keep:load { model = net })
    assert.is_nil(keep:best())
    for epoch, v in ipairs(values) do
      local path, best = keep:save({ model = net, optimiser = opt, epoch = epoch, extra = { note = "x" } }, v)
      assert.equal(("%s/net-%d.safetensors"):format(folder, epoch), path)
      assert.equal(v == 5 or v == 3 or v == 2.5, best)
    end
    local files = gq.core.directory(folder)
    table.sort(files)
    assert.same({ "net-4.safetensors", "net-5.safetensors", "net-best.safetensors" }, files)
    local again = gq.checkpoint.keeper(folder .. "/net", { last = 2 })
    assert.same({ folder .. "/net-5.safetensors", 5 }, { again:latest() })
    assert.same({ folder .. "/net-best.safetensors", 2.5 }, { again:best() })
    assert.equal(5, again:load({ model = net, optimiser = opt }).epoch)
    local _, best = again:save({ model = net, epoch = 6 }, 3)
    assert.is_false(best)
    local d = gq.checkpoint.describe((again:best()))
    assert.same({ 4, 2.5, 17, "adam", 0, 0.25, "x" },
      { d.epoch, d.value, d.numbers, d.optimiser.kind, d.optimiser.steps, d.optimiser.lr, d.extra.note })
    assert.equal(4, #d.names)
    local text = tostring(d)
    for _, word in ipairs { "17 parameters in 4 tensors", "epoch: 4", "value: 2.5", "adam, 0 steps, lr 0.25",
      "float32 {3, 2}" } do
      assert.truthy(text:find(word, 1, true), text)
    end
    local max = gq.checkpoint.keeper(folder .. "/max", { mode = "max" })
    max:save({ model = net, epoch = 1 }, 0.5)
    assert.is_true(select(2, max:save({ model = net, epoch = 2 }, 0.6)))
  end)

  it("say what is wrong", function()
    gq.save(folder .. "/plain.safetensors", gq.ones(2))
    raises("plain.safetensors no checkpoint", gq.checkpoint.describe, folder .. "/plain.safetensors")
    raises("nothing.safetensors", gq.checkpoint.describe, folder .. "/nothing.safetensors")
    local keep = gq.checkpoint.keeper(folder .. "/x")
    raises("epoch missing", keep.save, keep, {})
    raises("value is a number", keep.save, keep, { epoch = 1 }, "low")
    raises("unknown option", keep.save, keep, { epoch = 1, net = 3 })
    raises("a path", gq.checkpoint.keeper)
    raises("last", gq.checkpoint.keeper, "x", { last = 0 })
  end)
end)
