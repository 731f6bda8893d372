-- derivatives.lua -- derivatives of a function of one tensor: gq.jvp, gq.jacobian, gq.hessian_vector. All are made of
-- gq.grad, so they work in traces, carry gradients where x or what f captured does, and go through gq.odeint where its
-- engine may be differentiated twice (direct, aca; auto is one of these), gq.jacobian by any where nothing but x has
-- gradients.

local gq = ...
local describe, traced, depends, twice = gq.core.describe, gq.core.traced, gq.core.depends, gq.core.twice

-- x in a place of its own in the graph, still behind x, and f there.
local function at(f, x, what)
  if not gq.core.is_float(x) then
    error(("%s: x: a float tensor expected, got %s"):format(what, describe(x)), 3)
  end
  if not gq.recording() then
    error(what .. ": derivatives are off inside gq.no_grad: call it outside, and detach the result", 3)
  end
  gq.core.callable(f, what .. ": f")
  local own = x
  if not x.requires_grad and not traced(x) then
    own = x:detach()
    own.requires_grad = true
  end
  local y = twice(f, own)
  if not gq.is_tensor(y) then error(("%s: f returns a tensor, got %s"):format(what, describe(y)), 3) end
  return own, y
end

-- A result of f at x as it is for the caller: not to be differentiated in own, where that only stood for x.
local function result(d, x, own, ...)
  if own == x or traced(d) or not d.requires_grad or depends(d, own, ...) then return d end
  return d:detach()
end

local function check_direction(v, x, what)
  local shape = table.concat(x.shape, ", ")
  if gq.is_tensor(v) and v.dtype == x.dtype and table.concat(v.shape, ", ") == shape then return end
  error(("%s: v: a tensor of x's shape and dtype expected, {%s} as %s, got %s"):format(what, shape, x.dtype,
    describe(v)), 3)
end

local function grad(y, x, c, once)
  if not y.requires_grad and not traced(y) then return gq.zeros_like(x) end      -- constant in x
  return gq.grad(y, x, { cotangents = c, create_graph = not once })
end

-- J v as the derivative of J' u in u, which is linear in u: two passes back for one forward.
function gq.jvp(f, x, v)
  local what = "gq.jvp"
  local own, y = at(f, x, what)
  check_direction(v, own, what)
  local u = traced(y) and y * 0 or gq.zeros(y.shape, { dtype = y.dtype, device = y.device, requires_grad = true })
  return result(grad(grad(y, own, u), u, v), x, own, u), result(y, x, own)
end

function gq.jacobian(f, x)
  local own, y = at(f, x, "gq.jacobian")
  local n, shape, rows = y:numel(), y.shape, {}
  local unit = gq.eye(math.max(n, 1), { dtype = y.dtype, device = y.device })
  local once = own ~= x and not traced(y) and not depends(y, own)                -- nothing else is behind them
  for i = 1, n do rows[i] = grad(y, own, unit[i]:reshape(shape), once) end
  table.move(x.shape, 1, x:dim(), #shape + 1, shape)
  if n == 0 then return gq.zeros(shape, { dtype = y.dtype, device = y.device }) end
  return result(gq.stack(rows, 1):reshape(shape), x, own)
end

function gq.hessian_vector(f, x, v)
  local what = "gq.hessian_vector"
  local own, y = at(f, x, what)
  check_direction(v, own, what)
  if y:numel() ~= 1 then
    error(("%s: f returns one number, got shape {%s}: reduce it, as by :sum()"):format(what,
      table.concat(y.shape, ", ")), 2)
  end
  return result(grad((grad(y:sum(), own) * v):sum(), own), x, own), result(y, x, own)
end

gq.docs[gq.jvp] = "gq.jvp(f, x, v): the derivative of f(x) along v (x's shape), in f(x)'s shape; and f(x)"
gq.docs[gq.jacobian] = "gq.jacobian(f, x): all derivatives of f(x), a pass for each number of f(x), with f(x)'s shape "
  .. "followed by x's"
gq.docs[gq.hessian_vector] = "gq.hessian_vector(f, x, v): the second derivatives of the number f(x) times v, in "
  .. "x's shape; and f(x)"
