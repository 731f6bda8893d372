-- checkgrad.lua -- gq.checkgrad(f, inputs, opts): gradients of f against central differences.

local gq = ...
local options, need, describe = gq.core.options, gq.core.need, gq.core.describe

-- A fixed cotangent of no special direction, so that errors of single entries cannot cancel.
local function weights(y)
  return gq.rand(y.shape, { dtype = y.dtype, device = y.device, seed = 20230801 }) + 0.5
end

local function functional(f, inputs)
  local y = f(table.unpack(inputs))
  if not gq.is_tensor(y) then error(("gq.checkgrad: f returns a tensor, got %s"):format(describe(y)), 4) end
  return (y * weights(y)):sum(), y
end

-- d (w . f) / d x[j] for every entry j of input i, by central differences.
local function differences(f, inputs, i, eps)
  local x = inputs[i]:detach():clone()
  local flat = x:reshape(-1)
  local list = table.move(inputs, 1, #inputs, 1, {})
  list[i] = x
  local out = {}
  for j = 1, flat:numel() do
    local value = flat[j]:item()
    local h = eps * math.max(1, math.abs(value))
    local up, down = value + h, value - h
    flat[j] = up
    local a = functional(f, list):item()
    flat[j] = down
    local b = functional(f, list):item()
    flat[j] = value
    out[j] = (a - b) / (up - down)
  end
  return out
end

local function compare(got, want, i, rtol, atol, report)
  for j = 1, #want do
    local err = math.abs(got[j] - want[j])
    report.error = math.max(report.error, err / (atol + rtol * math.abs(want[j])))
    local fine = err <= atol + rtol * math.abs(want[j])      -- false for NaN
    if not fine and not report.message then
      report.message = ("input %d, entry %d: gradient %.10g, central difference %.10g, off by %.3g"):format(i, j,
        got[j], want[j], err)
    end
  end
end

-- The inputs as leaves of their own: what f sees is not the user's tensors.
local function leaves(inputs)
  local list = {}
  for i, x in ipairs(inputs) do
    if not gq.is_tensor(x) or x.dtype ~= "float64" then
      error(("gq.checkgrad: input %d: a float64 tensor expected, got %s"):format(i, describe(x)), 3)
    end
    list[i] = x:detach():clone()
    list[i].requires_grad = true
  end
  return list
end

local function check_first(f, inputs, o, report)
  local list = leaves(inputs)
  local y = functional(f, list)
  local grads = y.requires_grad and gq.grad(y, list)      -- a constant has none, and the differences are zero
  for i, x in ipairs(list) do
    local g = grads and grads[i] or gq.zeros(x.shape, { dtype = "float64", device = x.device })
    local want = differences(f, inputs, i, o.eps)
    compare(g:reshape(-1):totable(), want, i, o.rtol, o.atol, report)
  end
end

-- The gradient of w . f with respect to input i, as a function of all inputs that can be differentiated.
local function gradient_of(f, i)
  return function(...)
    local list = { ... }
    for k, x in ipairs(list) do
      if not x.requires_grad then                 -- inside a central difference
        list[k] = x:detach()
        list[k].requires_grad = true
      end
    end
    return gq.grad(functional(f, list), { list[i] }, { create_graph = true })[1]
  end
end

-- true and a report {error = largest error in units of the tolerance}, or false and one with a message that
-- names the first entry that is off. order = 2 checks the gradients of the gradients too.
local function checkgrad(f, inputs, opts)
  local what = "gq.checkgrad"
  local given = options(opts, "eps rtol atol order", what)
  local o = { eps = need(given, "eps", "positive", 1e-6, what), rtol = need(given, "rtol", "positive", 1e-5, what),
    atol = need(given, "atol", "positive", 1e-7, what) }
  gq.core.callable(f, what .. ": f")
  if gq.is_tensor(inputs) then inputs = { inputs } end
  if type(inputs) ~= "table" then
    gq.core.fail(("gq.checkgrad: inputs: a list of float64 tensors expected, got %s"):format(gq.core.describe(inputs)))
  end
  local report = { error = 0 }
  check_first(f, inputs, o, report)
  for i = 1, need(given, "order", "count", 1, what) > 1 and #inputs or 0 do
    if report.message then break end
    check_first(gradient_of(f, i), inputs, o, report)
    report.message = report.message and ("gradient %d differentiated again: %s"):format(i, report.message)
  end
  return report.message == nil, report
end

gq.docs[checkgrad] = "gq.checkgrad(f, inputs, {eps = 1e-6, rtol = 1e-5, atol = 1e-7, order = 1}): compares the " ..
  "gradients of f(table.unpack(inputs)), float64, with central differences; returns true or false, and a report"
return checkgrad
