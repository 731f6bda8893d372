-- opt_spec.lua -- optimisers against the update formulas of their papers, written once more here with
-- plain numbers; flat blocks, gradients that users replace or clear, refusals, clipping.

local gq = require "gq"
local helper = require "tests.helper"

-- ---- the formulas, one number at a time (PyTorch's documentation of torch.optim) ----

local reference = {}

function reference.adam(c)
  local betas, eps, wd = c.betas or { 0.9, 0.999 }, c.eps or 1e-8, c.weight_decay or 0
  local b1, b2 = betas[1], betas[2]
  local m, v, t = 0, 0, 0
  return function(p, g)
    t = t + 1
    g = g + wd * p
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    local mhat, vhat = m / (1 - b1 ^ t), v / (1 - b2 ^ t)
    return p - (c.lr or 1e-3) * mhat / (math.sqrt(vhat) + eps)
  end
end

function reference.adamw(c)
  local plain = reference.adam { lr = c.lr, betas = c.betas, eps = c.eps }
  return function(p, g)
    return plain(p * (1 - (c.lr or 1e-3) * (c.weight_decay or 1e-2)), g)
  end
end

function reference.sgd(c)
  local mu, tau, b = c.momentum or 0, c.dampening or 0, nil
  return function(p, g)
    g = g + (c.weight_decay or 0) * p
    if mu ~= 0 then
      b = b and mu * b + (1 - tau) * g or g
      g = c.nesterov and g + mu * b or b
    end
    return p - (c.lr or 1e-3) * g
  end
end

function reference.rmsprop(c)
  local alpha, eps, mu = c.alpha or 0.99, c.eps or 1e-8, c.momentum or 0
  local v, mean, b = 0, 0, 0
  return function(p, g)
    g = g + (c.weight_decay or 0) * p
    v = alpha * v + (1 - alpha) * g * g
    local second = v
    if c.centered then
      mean = alpha * mean + (1 - alpha) * g
      second = v - mean * mean
    end
    local step = g / (math.sqrt(second) + eps)
    if mu ~= 0 then
      b = mu * b + step
      step = b
    end
    return p - (c.lr or 1e-2) * step
  end
end

local configurations = {
  { "adam", {} },
  { "adam", { lr = 0.05, betas = { 0.8, 0.95 }, eps = 1e-4, weight_decay = 0.1 } },
  { "adam", { lr = 0.05, betas = { 0, 0 } } },
  { "adamw", {} },
  { "adamw", { lr = 0.05, weight_decay = 0.3, betas = { 0.7, 0.9 } } },
  { "sgd", {} },
  { "sgd", { lr = 0.1, weight_decay = 0.2 } },
  { "sgd", { lr = 0.1, momentum = 0.9 } },
  { "sgd", { lr = 0.1, momentum = 0.9, dampening = 0.4, weight_decay = 0.1 } },
  { "sgd", { lr = 0.1, momentum = 0.9, nesterov = true } },
  { "rmsprop", {} },
  { "rmsprop", { lr = 0.05, alpha = 0.9, weight_decay = 0.1 } },
  { "rmsprop", { lr = 0.05, alpha = 0.9, momentum = 0.8 } },
  { "rmsprop", { lr = 0.05, alpha = 0.9, centered = true } },
  { "rmsprop", { lr = 0.05, alpha = 0.9, centered = true, momentum = 0.5, eps = 1e-3 } },
}

-- Gradients that differ from number to number and step to step.
local function gradient(i, step)
  return math.sin(i * 1.7 + step * 0.9) * (1 + i % 3) + 0.1
end

local function text(config)
  local parts = {}
  for k, v in pairs(config) do
    parts[#parts + 1] = k .. " " .. (type(v) == "table" and table.concat(v, "/") or tostring(v))
  end
  table.sort(parts)
  return table.concat(parts, ", ")
end

local function leaf(values, dtype)
  return gq.tensor(values, { dtype = dtype or "float64", requires_grad = true })
end

-- The gradient of the parameters' numbers, counted through all of them.
local function set_gradients(params, step)
  local i = 0
  for _, p in ipairs(params) do
    local list = {}
    for k = 1, p:numel() do
      i = i + 1
      list[k] = gradient(i, step)
    end
    p.grad = gq.tensor(list, { dtype = p.dtype }):view(table.unpack(p.shape))
  end
end

local function numbers(params)
  return helper.flatten(params)
end

describe("update", function()
  for _, row in ipairs(configurations) do
    local kind, config = row[1], row[2]
    for dtype, rtol in pairs { float64 = 1e-13, float32 = 2e-5 } do
      it(("%s {%s} in %s follows its formula"):format(kind, text(config), dtype), function()
        local params = { leaf({ { 0.5, -1, 2 }, { 3, 0.25, -0.125 } }, dtype),
          leaf({ 1.5 }, dtype), leaf({ -4, 4, 0.75 }, dtype) }
        local opt = gq.optimiser(kind, params, config)
        local want, rules = numbers(params), {}
        for i = 1, #want do rules[i] = reference[kind](config) end
        for step = 1, 12 do
          set_gradients(params, step)
          opt:step()
          for i = 1, #want do want[i] = rules[i](want[i], gradient(i, step)) end
        end
        assert.close(numbers(params), want, rtol, rtol)
        assert.equal(12, opt:steps())
      end)
    end
  end

  it("of Adam moves by lr whatever the gradient's size at first", function()
    local p = leaf { 1, 1, 1 }
    local opt = gq.optimiser("adam", { p }, { lr = 0.1, eps = 0 })
    p.grad = gq.tensor({ 1e-6, 3, -1e6 }, { dtype = "float64" })
    opt:step()
    assert.close(p, { 0.9, 0.9, 1.1 }, 1e-12)
  end)

  it("is the same for a large block cut between threads", function()
    local n, got = 300001, {}
    for threads = 1, 2 do
      gq.set_threads(threads)
      local p = gq.linspace(-1, 1, n):detach()
      p.requires_grad = true
      local opt = gq.optimiser("adam", { p }, { lr = 0.1 })
      for _ = 1, 3 do
        opt:zero_grad();
        (p * p * p):sum():backward()
        opt:step()
      end
      got[threads] = p
    end
    assert.equal(0, (got[1]:detach() - got[2]:detach()):abs():max():item())
  end)
end)

describe("parameters", function()
  it("become views of one block, and their gradients stay theirs", function()
    local a, b = leaf { 1, 2, 3 }, leaf { { 4, 5 }, { 6, 7 } }
    local opt = gq.optimiser("sgd", { a, b }, { lr = 1 })
    assert.close(numbers { a, b }, { 1, 2, 3, 4, 5, 6, 7 })
    assert.is_nil(a.grad);
    (a:sum() * 2 + (b * b):sum()):backward()
    opt:step()
    assert.close(numbers { a, b }, { -1, 0, 1, -4, -5, -6, -7 })
    local kept = b.grad
    opt:zero_grad()
    assert.is_nil(b.grad);
    (b:sum() * 5):backward()
    opt:step()
    assert.same({ { 8, 10 }, { 12, 14 } }, kept:totable())
    assert.same({ { 5, 5 }, { 5, 5 } }, b.grad:totable())
  end)

  it("that no gradient reaches after zero_grad stay where they are, whatever momentum and weight decay", function()
    local kinds = { groups = function(list, o)
      return gq.optim.adamw({ { params = { list[1] } }, { params = { list[2] }, lr = 0.2 } }, o)
    end }
    local momentum = { sgd = 0.9, rmsprop = 0.9 }
    for kind in pairs(reference) do kinds[kind] = gq.optim[kind] end
    for name, make in pairs(kinds) do
      local p, q, clipped = leaf { 1, 2 }, leaf { 3 }, nil
      local opt = make({ p, q }, { lr = 0.1, weight_decay = 0.1, momentum = momentum[name] })
      local function step(loss)
        opt:zero_grad()
        loss():backward()
        clipped = gq.optim.clip_grad_norm({ p, q }, 1)
        opt:step()
      end
      step(function() return p:square():sum() + q:square():sum() end)
      local at, before = q:item(), p:totable()
      for _ = 1, 3 do step(function() return (p * 3):sum() end) end
      assert.equal(at, q:item(), name)
      assert.is_nil(q.grad)
      assert.close(clipped, 3 * math.sqrt(2), 1e-12)
      for i = 1, 2 do assert.is_true(p[i]:item() < before[i], name) end
      step(function() return q:square():sum() end)
      assert.is_true(q:item() < at, name)
    end
  end)

  it("that are views of other tensors are updated where they are", function()
    local base = gq.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = "float64" })
    local column = base:transpose(1, 2)[1]:detach()
    column.requires_grad = true
    local opt = gq.optimiser("sgd", { column, leaf { 1 } }, { lr = 1 });
    (column * gq.tensor({ 10, 20 }, { dtype = "float64" })):sum():backward()
    opt:step()
    assert.same({ -9, -16 }, column:totable())
  end)

  it("of both dtypes, of no numbers, and single numbers are served together", function()
    local params = { leaf({ 1, 2 }, "float32"), leaf({ 3 }, "float64"), gq.zeros(0, 3, { requires_grad = true }),
      leaf(5, "float32"), leaf({ 6, 7 }, "float64") }
    local opt = gq.optimiser("sgd", params, { lr = 0.5 })
    for _, p in ipairs(params) do p:sum():backward() end
    opt:step()
    assert.close(numbers { params[1], params[2], params[4], params[5] }, { 0.5, 1.5, 2.5, 4.5, 5.5, 6.5 })
  end)

  it("may belong to two optimisers in turn", function()
    local p, q = leaf { 1 }, leaf { 2 }
    local first, second = gq.optimiser("sgd", { p, q }, { lr = 1 }), gq.optimiser("sgd", { q, p }, { lr = 10 });
    (p + q):sum():backward()
    first:step()
    second:step()
    assert.same({ -10, -9 }, numbers { p, q })
  end)

  it("outlive the optimiser, and it outlives their names", function()
    local opt
    do
      local p = leaf { 1, 2 }
      opt = gq.optimiser("sgd", { p }, { lr = 1, momentum = 0.5 })
      p:sum():backward()
    end
    collectgarbage()
    collectgarbage()
    opt:step()
    assert.same({ 1, 1 }, opt:state(1, 1):totable())
  end)

  it("keep a gradient that they had before", function()
    local p = leaf { 1, 1 };
    (p * 3):sum():backward()
    local opt = gq.optimiser("sgd", { p }, { lr = 1 })
    opt:step()
    assert.same({ -2, -2 }, p:totable())
  end)

  it("without a gradient are left alone, and do not count the step", function()
    local a, b = leaf { 1 }, leaf { 1 }
    local opt = gq.optimiser("adamw", { a, b }, { lr = 0.1 })
    a.grad, b.grad = gq.tensor({ 1 }, { dtype = "float64" }), nil
    opt:step()
    assert.equal(1, b:totable()[1])
    assert.equal(1, opt:steps(1))
    assert.equal(0, opt:steps(2))
    assert.equal(1, opt:steps())
    b.grad = gq.tensor({ 1 }, { dtype = "float64" })
    opt:step()
    assert.close(b, { reference.adamw { lr = 0.1 }(1, 1) }, 1e-13)
    opt:zero_grad()
    assert.is_nil(b.grad)
  end)

  it("frozen between steps stay where they are, whatever momentum and weight decay they have, until thawed", function()
    for _, kind in ipairs { "adamw", "sgd", "rmsprop" } do
      local a, b, c = leaf { 1 }, leaf { 1 }, leaf { 1 }
      local opt = gq.optimiser(kind, { a, b, c }, { lr = 0.1, weight_decay = 0.1,
        momentum = kind ~= "adamw" and 0.9 or nil })
      local function step()
        opt:zero_grad();
        (a + b + c):sum():backward()
        opt:step()
      end
      step()
      b.requires_grad = false
      local at = b:item()
      step()
      step()
      assert.equal(at, b:item())
      assert.equal(a:item(), c:item())
      assert.equal(1, opt:steps(2))
      b.requires_grad = true
      step()
      assert.not_equal(at, b:item())
    end
  end)

  it("frozen stay whatever gradient was left to them: of another optimiser, put there, not finite", function()
    local kinds = { adam = gq.optim.adam, adamw = gq.optim.adamw, sgd = gq.optim.sgd, rmsprop = gq.optim.rmsprop,
      groups = function(list, o) return gq.optim.adamw({ { params = { list[1] } }, { params = { list[2] } } }, o) end }
    for name, make in pairs(kinds) do
      for left, gradient_of in pairs { stale = function() return gq.full({ 2 }, 3, { dtype = "float64" }) end,
        of_another = function(p, q)
          gq.optim.sgd { p, q }
          return p.grad
        end,
        inf = function() return gq.full({ 2 }, math.huge, { dtype = "float64" }) end,
        nan_in_block = function(p)
          gq.no_grad(function() p.grad[1] = 0 / 0 end)
          return p.grad
        end } do
        local p, q = leaf { 1, 2 }, leaf { 1, 2 }
        local opt = make({ p, q }, { lr = 0.1, weight_decay = 0.1 });
        (p * p + q):sum():backward()
        opt:step()
        local at, other = p:totable(), q:totable()
        p.grad = gradient_of(p, q)
        p.requires_grad = false
        for _ = 1, 3 do
          q.grad = nil;
          (p * p + q):sum():backward()
          opt:step()
        end
        assert.same(at, p:totable(), name .. ", " .. left)
        for i = 1, 2 do assert.is_true(q[i]:item() < other[i] - 0.1, name .. ", " .. left) end
        opt:zero_grad()
        p.requires_grad = true
        assert.is_nil(p.grad);
        (p * p + q):sum():backward()
        opt:step()
        for i = 1, 2 do assert.is_true(p[i]:item() < at[i], name .. ", " .. left) end
      end
    end
  end)

  it("all frozen at an optimiser's first step stay, and train once thawed", function()
    for _, kind in ipairs { "sgd", "lbfgs" } do
      local p = leaf { 1 }
      local opt = gq.optim[kind]({ p }, { lr = 0.5 })
      local function closure()
        opt:zero_grad()
        local loss = (p * p):sum()
        if loss.requires_grad then loss:backward() end
        return loss
      end
      local function step()
        if kind == "lbfgs" then opt:step(closure) else opt:step(closure() and nil) end
      end
      p.requires_grad = false
      step()
      assert.equal(1, p:item())
      p.requires_grad = true
      step()
      assert.is_true(p:item() < 1)
    end
  end)

  it("frozen are left alone by L-BFGS, which forgets what it learnt of them, and train once thawed", function()
    for _, line_search in ipairs { "strong_wolfe", "none" } do
      local p, q = leaf { 1, -1 }, leaf { 2 }
      local opts = { lr = 0.3, max_iter = 2, line_search = line_search }
      local opt, freeze = gq.optim.lbfgs({ p, q }, opts), false
      local function closure_of(o)
        return function()
          if freeze then p.requires_grad = false end
          for _, x in ipairs(o.params) do
            if x.requires_grad then x.grad = nil end        -- what was left to the others stays
          end
          local loss = (p - 3):square():sum() + (q * q + p:sum() - 4):square():sum()
          loss:backward()
          return loss
        end
      end
      local closure = closure_of(opt)
      for _ = 1, 3 do opt:step(closure) end
      assert.is_true(#opt:state_dict().state > 0)
      local at, other = p:totable(), q:item()
      freeze = true
      opt:step(closure)                                       -- frozen by the function itself
      local fresh, here = gq.optim.lbfgs({ q }, opts), q:item()
      gq.no_grad(function() q[1] = other end)
      fresh:step(closure_of(fresh))
      assert.close(here, q:item(), 1e-12)
      local saved = opt:state_dict()
      p.grad = gq.tensor({ 0 / 0, 1 }, { dtype = "float64" })
      for _ = 1, 3 do opt:step(closure) end
      assert.same(at, p:totable(), line_search)
      local more = gq.optim.lbfgs({ leaf(at), q }, opts)
      more:load_state_dict(saved)
      assert.same(saved.training, more:state_dict().training)
      for _, bad in ipairs { "y", "yx", 3, "yyy" } do
        helper.refused("training: y or n of each of the 2", more.load_state_dict, more,
          gq.core.copy(saved, { training = bad }))
      end
      freeze, p.requires_grad = false, true
      for _ = 1, 60 do opt:step(closure) end
      assert.is_true(closure():item() < 5 and p[1]:item() > at[1], line_search)
    end
  end)

  it("changed by a step fail a backward pass that saved them", function()
    local p = leaf { 2 }
    local opt = gq.optimiser("sgd", { p }, { lr = 1 })
    local loss = (p * p):sum()
    p.grad = gq.tensor({ 1 }, { dtype = "float64" })
    opt:step()
    assert.has_error(function() loss:backward() end)
  end)
end)

describe("settings and state", function()
  it("can be read and set, and a bad value changes nothing", function()
    local opt = gq.optimiser("adam", { leaf { 1 } }, { lr = 0.5 })
    assert.equal(0.5, opt:get "lr")
    assert.same({ 0.9, 0.999 }, opt:get "betas")
    opt:set("lr", 0.25)
    assert.equal(0.25, opt:get "lr")
    for _, bad in ipairs { -1, 0 / 0, math.huge } do
      assert.has_error(function() opt:set("lr", bad) end)
    end
    assert.has_error(function() opt:set("betas", { 0.9, 1 }) end)
    assert.equal(0.25, opt:get "lr")
    assert.same({ 0.9, 0.999 }, opt:get "betas")
    assert.truthy(helper.message(function() opt:set("momentum", 1) end):find("momentum", 1, true))
    assert.truthy(helper.message(function() opt:get "weight_deca" end):find("weight_decay", 1, true))
  end)

  it("moved to another optimiser continue as if nothing had happened", function()
    for _, row in ipairs(configurations) do
      local kind, config = row[1], row[2]
      local p, q = leaf { 1, -2 }, leaf { 1, -2 }
      local a, b = gq.optimiser(kind, { p }, config), gq.optimiser(kind, { q }, config)
      for step = 1, 3 do
        set_gradients({ p }, step)
        a:step()
      end
      gq.no_grad(function() q[{ {} }] = p:detach() end)
      b:set_steps(a:steps())
      for k = 1, 3 do
        local from, to = a:state(1, k), b:state(1, k)
        assert.equal(from == nil, to == nil)
        if from then to[{ {} }] = from end
      end
      set_gradients({ p }, 4)
      set_gradients({ q }, 4)
      a:step()
      b:step()
      assert.same(p:totable(), q:totable())
    end
  end)
end)

describe("refused", function()
  local refused = helper.refused

  it("are no parameters, and such that require no gradient", function()
    refused("no parameters", gq.optimiser, "adam", {})
    refused("parameter 2", gq.optimiser, "adam", { leaf { 1 }, gq.zeros(2) })
    refused("parameter 1", gq.optimiser, "adam", { leaf { 1 } * 2 })
    refused("again", function()
      local p = leaf { 1 }
      gq.optimiser("adam", { p, p })
    end)
    refused("number 3", gq.optimiser, "adam", { 3 })
  end)

  it("are settings that make no sense", function()
    refused("'adm'", gq.optimiser, "adm", { leaf { 1 } })
    refused("lr", gq.optimiser, "adam", { leaf { 1 } }, { lr = -1 })
    refused("betas", gq.optimiser, "adam", { leaf { 1 } }, { betas = { 1, 0 } })
    refused("nesterov", gq.optimiser, "sgd", { leaf { 1 } }, { nesterov = true })
    refused("momentum", gq.optimiser, "adam", { leaf { 1 } }, { momentum = 1 })
    refused("lr", gq.optimiser, "adam", { leaf { 1 } }, { lr = "1" })
  end)

  it("is a gradient that is not finite, with nothing changed", function()
    for _, bad in ipairs { 0 / 0, math.huge, -math.huge } do
      local p, q = leaf { 1, 2 }, leaf { 3, 4 }
      local opt = gq.optimiser("sgd", { p, q }, { lr = 1, momentum = 0.9 })
      p.grad, q.grad = gq.tensor({ 1, 1 }, { dtype = "float64" }), gq.tensor({ 1, bad }, { dtype = "float64" })
      refused("parameter 2", opt.step, opt)
      assert.same({ 1, 2, 3, 4 }, numbers { p, q })
      assert.equal(0, opt:steps())
      assert.same({ 0, 0 }, opt:state(1, 1):totable())
    end
  end)
end)

describe("a first step", function()
  local kinds = { adam = gq.optim.adam, sgd = gq.optim.sgd, groups = function(list, o)
    return gq.optim.adamw({ { params = { list[1] } }, { params = { list[2] } } }, o)
  end }
  for name, make in next, kinds do
    it(name .. " to which no gradient has come says so", function()
      local p, q, other = leaf { 1, 2 }, leaf { 3 }, leaf { 4 }
      local opt = make({ p, q }, { lr = 0.5 })
      helper.refused("no gradient has come to any of the 2 parameters", opt.step, opt)
      opt:zero_grad()
      other:sum():backward()
      helper.refused("no gradient has come", opt.step, opt)
      assert.same({ 1, 2, 3 }, numbers { p, q })
      q:sum():backward()                                  -- one is enough
      opt:step()
      assert.equal(1, opt:steps())
      opt:zero_grad()
      opt:step()
      local put = make({ leaf { 1 }, leaf { 1 } })        -- put there by hand, zeros too
      put.params[1].grad = gq.zeros(1, { dtype = "float64" })
      put:step()
    end)
  end

  it("of L-BFGS", function()
    local p, other = leaf { 1 }, leaf { 1 }
    local opt = gq.optim.lbfgs { p }
    helper.refused("no gradient has come to any of the 1 parameters", opt.step, opt, function()
      opt:zero_grad()
      local loss = other:square():sum()
      loss:backward()
      return loss
    end)
  end)
end)

describe("clip_grad_norm", function()
  it("scales the joint norm down to max, and never up", function()
    local p, q = leaf { 0, 0 }, leaf({ 0 }, "float32")
    p.grad, q.grad = gq.tensor({ 3, 0 }, { dtype = "float64" }), gq.tensor { 4 }
    assert.close(gq.clip_grad_norm({ p, q }, 10), 5, 1e-12)
    assert.same({ 3, 0 }, p.grad:totable())
    assert.close(gq.clip_grad_norm({ p, q }, 1), 5, 1e-12)
    assert.close(p.grad, { 0.6, 0 }, 1e-6)
    assert.close(q.grad, { 0.8 }, 1e-6)
  end)

  it("adds squares in double precision", function()
    local n = 100000
    local p = gq.zeros(n, { requires_grad = true })
    p.grad = gq.full({ n }, 0.1)
    assert.close(gq.clip_grad_norm({ p }, 1e9), math.sqrt(n) * 0.1, 1e-7)
  end)

  it("leaves out what has no gradient, and refuses what is not finite", function()
    local p, q = leaf { 0 }, leaf { 0 }
    assert.equal(0, gq.clip_grad_norm({ p, q }, 1))
    p.grad = gq.tensor({ 2 }, { dtype = "float64" })
    assert.equal(2, gq.clip_grad_norm({ p, q }, 5))
    q.grad = gq.tensor({ 0 / 0 }, { dtype = "float64" })
    assert.truthy(helper.message(gq.clip_grad_norm, { p, q }, 1):find("parameter 2", 1, true))
    assert.same({ 2 }, p.grad:totable())
    assert.has_error(function() gq.clip_grad_norm({ p }, -1) end)
  end)

  it("leaves out what was left to frozen parameters, as clip_grad_value does", function()
    local p, q = leaf { 1 }, leaf { 1 }
    p.grad, q.grad = gq.tensor({ 0 / 0 }, { dtype = "float64" }), gq.tensor({ 4 }, { dtype = "float64" })
    p.requires_grad = false
    for _, clip in ipairs { gq.clip_grad_norm, gq.optim.clip_grad_norm } do
      q.grad[1] = 4
      assert.equal(4, clip({ p, q }, 2))
      assert.close(q.grad, { 2 }, 1e-5)
    end
    p.grad = gq.tensor({ 7 }, { dtype = "float64" })
    gq.optim.clip_grad_value({ p, q }, 1)
    assert.same({ 7, 1 }, { p.grad:item(), q.grad:item() })
    for _, bad in ipairs { q * 2, gq.zeros(1, { dtype = "int64" }), 3 } do
      helper.refused("parameter 2: a leaf tensor", gq.optim.clip_grad_norm, { q, bad }, 1)
      helper.refused("parameter 2: a leaf tensor", gq.optim.clip_grad_value, { q, bad }, 1)
    end
  end)
end)

describe("a state_dict that is not whole", function()
  it("is refused with what it lacks, and changes nothing", function()
    local p = gq.ones(2)
    p.requires_grad = true
    local opt = gq.optim.adam({ p }, { lr = 0.1 })
    for _, name in ipairs { "steps", "state", "settings" } do
      local state = opt:state_dict()
      state[name] = nil
      helper.refused("state_dict() expected, got one without " .. name, opt.load_state_dict, opt, state)
    end
    helper.refused("state_dict() expected, got number 3", opt.load_state_dict, opt, 3)
    assert.equal(0.1, opt:state_dict().settings.lr)
  end)
end)
