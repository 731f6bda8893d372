-- linear.lua -- linear algebra by LAPACK, with derivatives of any order (runtime/exec/linear.c): matrices are the last
-- two dimensions, those before them a batch.

local gq = ...
local core = gq.core
local define = core.define
local describe, fail, unrolled, expect = core.describe, core.fail, core.unrolled, core.expect

local function check(a, what)
  local shape = gq.is_tensor(a) and a.shape or {}
  if #shape < 2 or shape[#shape] ~= shape[#shape - 1] or a.dtype ~= "float32" and a.dtype ~= "float64" then
    fail(("gq.%s: square matrices {..., n, n} of floats expected, got %s"):format(what, describe(a)))
  end
  return a
end

-- f of tensors where LAPACK can read them, its results back where they were; made of operations where they are traced.
local function on_host(f, otherwise, a, b)
  if core.traced(a) or b and core.traced(b) then return otherwise(a, b) end
  if a.device == "cpu" then return f(a, b) end
  local x, y = f(a:to("cpu"), b and b:to("cpu"))
  return x:to(a.device), y and y:to(a.device)
end

local tolerance = { float32 = 2 ^ -11, float64 = 2 ^ -26 }

-- Its symmetric part, of what is symmetric but for rounding.
local function symmetric(a, what)
  check(a, what)
  local t = a:transpose(-1, -2)
  if core.solving() ~= true and a:numel() > 0 then
    local off, size = gq.no_grad(function() return (a - t):abs():max():item(), a:abs():max():item() end)
    if off > tolerance[a.dtype] * size then
      fail(("gq.%s: symmetric matrices expected; entries across the diagonal differ by %g of %g"):format(what, off,
        size))
    end
  end
  return (a + t) * 0.5
end

-- The common batch of two lists of sizes.
local function broadcast(a, b, what)
  local shape = {}
  for i = 1, math.max(#a, #b) do
    local m, n = a[#a + 1 - i] or 1, b[#b + 1 - i] or 1
    if m ~= n and m ~= 1 and n ~= 1 then
      fail(("gq.%s: batches {%s} and {%s} do not go together"):format(what, table.concat(a, ", "),
        table.concat(b, ", ")))
    end
    table.insert(shape, 1, m == 1 and n or m)
  end
  return shape
end

local function expanded(x, batch)
  local shape = table.move(batch, 1, #batch, 1, {})
  local s = x.shape
  table.move(s, #s - 1, #s, #shape + 1, shape)
  return x:expand(shape)
end

local function leading(x) return table.move(x.shape, 1, x:dim() - 2, 1, {}) end

define("solve", function(a, b)
  local what = "solve"
  check(a, what)
  expect(gq.is_tensor(b) and b:dim() > 0, "gq.solve", "a right-hand side {..., n} or {..., n, k}", b)
  local rank, n = a:dim(), a.shape[a:dim()]
  local vector = b:dim() == 1 or b:dim() == rank - 1 and table.concat(b.shape, ",") == table.concat(a.shape, ",", 1,
    rank - 1)
  if vector then b = b:unsqueeze(-1) end
  if b.shape[b:dim() - 1] ~= n or b.dtype ~= a.dtype then
    fail(("gq.solve: a right-hand side with %d rows of %s expected for %s, got %s"):format(n, a.dtype, describe(a),
      describe(b)))
  end
  local batch = broadcast(leading(a), leading(b), what)
  local x = on_host(core.solve_equations, unrolled.solve, expanded(a, batch), expanded(b, batch))
  return vector and x:squeeze(-1) or x
end, "gq.solve(a, b): x with a:matmul(x) = b, for b {..., n, k}, or a vector {n} or {..., n}; a singular matrix is "
  .. "an error")

define("inverse", function(a)
  check(a, "inverse")
  return gq.solve(a, gq.eye(a.shape[a:dim()], { dtype = a.dtype, device = a.device }):expand(a.shape))
end, "gq.inverse(a): the inverse; to solve equations gq.solve is better")

define("det", function(a)
  return (on_host(core.det, unrolled.det, check(a, "det")))
end, "gq.det(a): the determinant; its derivative, the cofactors, is right for singular matrices, too; "
  .. "outside of dynamics second derivatives need an inverse")

define("cholesky", function(a)
  return (on_host(core.cholesky, unrolled.cholesky, symmetric(a, "cholesky")))
end, "gq.cholesky(a): lower triangular l with l:matmul(l:t()) = a, of positive definite a")

define("eigh", function(a) return on_host(core.eigh, unrolled.eigh, symmetric(a, "eigh")) end,
  "gq.eigh(a): eigenvalues of symmetric a, rising, and eigenvectors in columns, their signs as they come; "
  .. "the vectors' derivatives need eigenvalues that differ and are NaN otherwise")
