-- traced.lua -- what LAPACK and a sort do elsewhere, made of operations: inside dynamics that are traced, where numbers
-- are not known yet. Derivatives come from those operations. Loops over rows are unrolled, so sizes are small.

local gq = ...
local core = gq.core
local fail = core.fail
local traced = {}

local ROWS <const> = 32               -- of a matrix
local ENTRIES <const> = 256           -- of what is sorted
local EIGEN <const> = 8                -- rows of a matrix whose eigenvalues are wanted

local function check_size(n, most, name)
  if n > most then
    fail(("gq.%s: %d entries; inside a traced function at most %d: call it outside of the dynamics function, or "
      .. "solve with trace = false"):format(name, n, most))
  end
end

-- 1 .. n as a column {n, 1} or row {1, n} of x's dtype.
local function numbers(n, x, as_row)
  local k = gq.arange(1, n, { dtype = x.dtype, device = x.device })
  return as_row and k:reshape(1, n) or k:reshape(n, 1)
end

-- a with the entries k and `place` of dimension dim, which `index` counts, in each other's place; what is at k then;
-- where k is.
local function swap(a, dim, k, place, index)
  local chosen, own = index:eq(place), index:eq(k)
  local there = gq.where(chosen, a, 0):sum(dim, true)
  return gq.where(own, there, gq.where(chosen, a:narrow(dim, k, 1), a)), there, own
end

-- Rows of a swapped such that row k is the one below whose entry in column k is largest: a, row k, where that was.
local function pivot(a, k, rows)
  local column = gq.where(rows:lt(k), -1, a:narrow(-1, k, 1):abs())
  local place = column:argmax(-2, true):to(a.dtype)
  local swapped, row, own = swap(a, -2, k, place, rows)
  return swapped, row, own, place
end

-- Gauss and Jordan, with pivots: x with a x = b.
function traced.solve(a, b)
  local n = a.shape[a:dim()]
  check_size(n, ROWS, "solve")
  local all, rows = gq.cat({ a, b }, -1), numbers(n, a)
  for k = 1, n do
    local swapped, row, own = pivot(all, k, rows)
    row = row / row:narrow(-1, k, 1)
    all = gq.where(own, row, swapped - swapped:narrow(-1, k, 1) * row)
  end
  return all:narrow(-1, n + 1, b.shape[b:dim()])
end

-- Gauss, the largest of what is left as pivot, so that one which is zero leaves nothing: then the derivative is right
-- for a singular matrix, too. The last four entries by their formula.
function traced.det(a)
  local n = a.shape[a:dim()]
  check_size(n, ROWS, "det")
  local rows, columns = numbers(n, a), numbers(n, a, true)
  local product = 1
  for k = 1, n - 2 do
    local largest = gq.where(rows:lt(k), -1, gq.where(columns:lt(k), -1, a:abs())):max(-2, true)
    local across = largest:argmax(-1, true):to(a.dtype)
    local swapped, row, _, place = pivot(swap(a, -1, k, across, columns), k, rows)
    local head = row:narrow(-1, k, 1)
    product = product * gq.where(place:eq(k):eq(across:eq(k)), head, -head)
    row = row / gq.where(head:eq(0), 1, head)
    a = gq.where(rows:gt(k), swapped - swapped:narrow(-1, k, 1) * row, swapped)
  end
  local function entry(i, j) return a:narrow(-2, i, 1):narrow(-1, j, 1) end
  product = product * (n < 2 and entry(n, n) or entry(n - 1, n - 1) * entry(n, n) - entry(n - 1, n) * entry(n, n - 1))
  return product:squeeze(-1):squeeze(-1)
end

function traced.cholesky(a)
  local n = a.shape[a:dim()]
  check_size(n, ROWS, "cholesky")
  local columns, rows = {}, numbers(n, a)
  for k = 1, n do
    local column = a:narrow(-1, k, 1)
    column = gq.where(rows:lt(k), 0, column / column:narrow(-2, k, 1):sqrt())
    columns[k] = column
    a = a - column * column:transpose(-1, -2)
  end
  return gq.cat(columns, -1)
end

-- ---- eigenvalues: Jacobi's rotations, as many at once as there are disjoint pairs (Golub and Van Loan, 8.5) ----

-- For each round of a tournament of 1 .. n, who meets whom: {n, n} of zeros and ones, symmetric; and -1 for one of each
-- pair, 1 for the others.
local function tournament(n, options)
  local circle, rounds, even = {}, {}, n + n % 2
  for k = 1, even do circle[k] = k end
  for round = 1, even - 1 do
    local meets, first = gq.zeros(n, n, options), gq.ones(n, options)
    for k = 1, even // 2 do
      local p, q = circle[k], circle[even + 1 - k]
      if p <= n and q <= n then meets[{ p, q }], meets[{ q, p }], first[q] = 1, 1, -1 end
    end
    rounds[round] = { meets, first }
    table.insert(circle, 2, table.remove(circle))
  end
  return rounds
end

-- The rotation by the smaller angle that makes a's entries of pairs zero; none where they are and the
-- diagonal's are alike.
local function rotation(a, whole, meets, first)
  local diagonal = (a * whole):sum(-1)
  local gap = diagonal:unsqueeze(-2):matmul(meets):squeeze(-2) - diagonal
  local off = ((a + a:transpose(-1, -2)) * meets):sum(-1)                  -- of a pair the same, bit by bit
  local square = gap * gap + off * off
  local t = off / (gap + gq.where(gap:eq(0), first, gap:sign()) * gq.where(square:eq(0), 1, square):sqrt())
  local c = (1 + t * t):rsqrt()
  return c:unsqueeze(-1) * whole + (c * t):unsqueeze(-1) * meets
end

function traced.eigh(a)
  local n = a.shape[a:dim()]
  check_size(n, EIGEN, "eigh")
  local o = { dtype = a.dtype, device = a.device }
  local whole, rounds = gq.eye(n, o), tournament(n, o)
  local size = a:abs():flatten(-2, -1):max(-1, true):unsqueeze(-1)         -- squares of small numbers would vanish
  size = gq.where(size:eq(0), 1, size)
  local v = whole
  a = a / size
  for _ = 1, n > 2 and n + 3 or n - 1 do               -- sweeps: at 2,000 matrices each to 1e-12
    for _, round in ipairs(rounds) do
      local j = rotation(a, whole, table.unpack(round))
      a, v = j:transpose(-1, -2):matmul(a):matmul(j), v:matmul(j)
    end
  end
  local w = (a * whole * size):sum(-1)
  local rising = traced.argsort(w)
  w = w:gather(-1, rising)
  v = (v + 0 * a):gather(-1, rising:unsqueeze(-2):expand(a.shape))         -- of a batch, too
  if n == 1 then return w, v end
  local gaps = w:narrow(-1, 2, n - 1) - w:narrow(-1, 1, n - 1)
  return w, v + (0 * gaps:sqrt()):sum(-1, true):unsqueeze(-1)         -- nothing; its derivative NaN where gaps are 0
end

-- The places that sort the last dimension: how many come before each entry, and then who has which place.
function traced.argsort(x, falling)
  local n = x.shape[x:dim()]
  check_size(n, ENTRIES, "sort")
  local one, other = x:unsqueeze(-1), x:unsqueeze(-2)
  local k, row = numbers(n, x), numbers(n, x, true)
  local lost, found = one:isnan(), other:isnan()
  local before = falling and other:gt(one):logical_or(found:logical_and(lost:logical_not())) or
    other:lt(one):logical_or(lost:logical_and(found:logical_not()))
  local alike = other:eq(one):logical_or(lost:logical_and(found)):logical_and(row:lt(k))
  local place = before:logical_or(alike):to(x.dtype):sum(-1, true) + 1
  return gq.where(place:eq(row), k, 0):sum(-2):to("int64")
end

return traced
