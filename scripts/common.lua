-- common.lua -- what bench.lua, errors.lua and peers/compare.lua share.

local common = {}

-- Of a list of numbers, which is sorted.
function common.median(x)
  table.sort(x)
  local n = #x
  return n % 2 == 1 and x[n // 2 + 1] or (x[n // 2] + x[n // 2 + 1]) / 2
end

-- Products of a solve and its backward pass, in evaluations of f: its derivatives by state and by parameters are one
-- each. A node is three; backward steps are two, three where they carry the parameters or go back through the steps
-- taken; direct does the latter without evaluating f again.
function common.work(info, engine)
  if engine == "direct" then return info.nfe * (1 + 2 * info.steps / (info.steps + info.rejected)) end
  local three = { adjoint = true, seminorm = true, interpolated = true, aca = true, mali = true, reversible = true }
  if three[engine] then return info.nfe + 3 * info.nfe_backward end
  return info.nfe + 2 * info.nfe_backward + info.nodes
end

return common
