-- orders.lua -- strong orders of gq.sdeint's methods by the kind of noise, measured, as the README's table:
--   ./gqlua scripts/orders.lua [METHOD ...]
-- Random networks of two numbers, 200 samples, float64; slopes of the error at t = 1 over steps of 2^-4 to 2^-8 against
-- steps of 2^-12 along the same path. In brackets what the method's row says. Langevin methods: a double well.

local gq = require "gq"
local here = arg[0]:match("^(.*)/[^/]*$") or "."
local helper, rows = require "tests.helper", 200
local noises, diffusion, drift = dofile(here .. "/../tests/problems.lua").noisy(rows)

local function slope(at)
  local fine, dts, errors = at(2 ^ -12), {}, {}
  for k = 4, 8 do
    dts[#dts + 1], errors[#errors + 1] = 2 ^ -k, (at(2 ^ -k) - fine):square():mean():item() ^ 0.5
  end
  return helper.slope(dts, errors)
end

local function measured(m, noise)
  local langevin = gq.langevin { grad = function(x) return x ^ 3 - x end }
  local sde = m.langevin and langevin or gq.sde { drift = drift,
    diffusion = diffusion[noise], noise = noise, calculus = m.stratonovich and "stratonovich" or "ito" }
  local z0 = gq.randn(rows, m.langevin and 4 or 2, { seed = 5, dtype = "float64" })
  return slope(function(dt)
    return gq.sdeint(sde, z0, { 0, 1 }, { dt = dt, method = m.name, seed = 3 })[2]
  end)
end

print("| method | calculus | " .. table.concat(noises, " | ") .. " |")
print("| --- | --- |" .. (" --- |"):rep(#noises))
gq.set_threads(1)
local asked = {}
for _, name in ipairs(arg) do asked[name] = true end
for _, m in ipairs(gq.core.schemes()) do
  if next(asked) and not asked[m.name] then goto continue end
  local cells = {}
  for i, noise in ipairs(noises) do
    local nominal = m.strong[noise]
    cells[i] = nominal and ("%.2f (%g)"):format(measured(m, noise), nominal) or "-"
  end
  local calculus = m.langevin and "Langevin" or m.ito and m.stratonovich and "both" or m.ito and "Ito" or "Stratonovich"
  print(("| %s | %s | %s |"):format(m.name, calculus, table.concat(cells, " | ")))
  ::continue::
end
