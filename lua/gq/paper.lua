-- paper.lua -- gq.paper.rate(experiment, width): learning rates of Norcliffe & Deisenroth (2023), Tables 1, 3,
-- 5 and 7, which are also the widths they tried: gq.paper.rates.

local gq = ...
local describe = gq.core.describe

local rates = {
  nested_spheres = { { 5, 5e-3 }, { 20, 5e-3 }, { 100, 1e-3 }, { 500, 1e-3 }, { 1000, 2e-4 }, { 1500, 2e-4 },
    { 2000, 1e-4 }, { 2500, 1e-4 }, { 3000, 1e-4 } },
  sines = { { 5, 2e-2 }, { 20, 8e-3 }, { 200, 5e-4 }, { 1000, 3e-5 }, { 2000, 1e-5 } },
  train_ou = { { 5, 1e-3 }, { 20, 5e-4 }, { 50, 1e-4 }, { 100, 1e-4 } },
  crossing = { { 5, 1e-2 }, { 20, 1e-2 }, { 100, 1e-3 }, { 500, 1e-3 }, { 1000, 7e-4 }, { 1500, 1e-4 },
    { 2000, 1e-4 }, { 2500, 1e-4 }, { 3000, 1e-4 } },
}

-- Between the paper's widths that of the nearest one, by their ratio.
local function rate(experiment, width)
  if type(width) ~= "number" or width <= 0 or width ~= width then
    error(("gq.paper.rate: a width expected, got %s"):format(describe(width)), 2)
  end
  local rows, best, least = type(experiment) == "string" and rates[experiment], nil, math.huge
  if not rows then
    error(("gq.paper.rate: nested_spheres, sines, train_ou or crossing expected, got %s"):format(
      describe(experiment)), 2)
  end
  for _, row in ipairs(rows) do
    local distance = math.abs(math.log(width / row[1]))
    if best == nil or distance < least then least, best = distance, row[2] end
  end
  return best
end

gq.docs[rate] = "gq.paper.rate(experiment, width): the paper's learning rate for \"nested_spheres\", \"sines\", " ..
  "\"train_ou\" or \"crossing\", at its nearest width"
return { rate = rate, rates = rates }
