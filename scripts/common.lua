-- common.lua -- what scripts share, and tests/helper.lua.

local common = {}

-- for a, b in each({1, 2}, {"x", "y"}): one entry of every list, in all ways; those of the last change fastest.
function common.each(...)
  local lists, count, at = { ... }, 1, -1
  for _, list in ipairs(lists) do count = count * #list end
  return function()
    at = at + 1
    if at == count then return nil end
    local entries, rest = {}, at
    for i = #lists, 1, -1 do
      entries[i], rest = lists[i][rest % #lists[i] + 1], rest // #lists[i]
    end
    return table.unpack(entries, 1, #lists)
  end
end

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
