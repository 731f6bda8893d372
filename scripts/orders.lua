-- orders.lua -- strong orders of gq.sdeint's methods by the kind of noise, measured, as the README's table:
--   ./gqlua scripts/orders.lua [METHOD ...]
-- Random networks of two numbers, 200 samples, float64; slopes of the error at t = 1 over steps of 2^-4 to 2^-8 against
-- steps of 2^-12 along the same path. In brackets what the method's row says. Langevin methods: a double well.

local gq = require "gq"
local f64, rows = { dtype = "float64" }, 200

local function net(seed, out)
  gq.manual_seed(seed)
  local m = gq.nn.mlp { sizes = { 2, 8, out or 2 }, activation = "tanh", time = true }
  m:to "float64"
  return m
end

local F, G, GG = net(1), net(2), net(3, 4)
local A = gq.tensor({ { 0.6, 0.2 }, { -0.1, 0.5 } }, f64)
local noises = { "diagonal", "scalar", "additive", "general", "commutative" }
local diffusion = {
  diagonal = function(t, z) return (0.7 + 0.2 * t) * gq.sin(z + 0.5) + 0.5 end,
  scalar = G,
  additive = function(t) return A * (1 + t) end,
  general = function(t, z) return GG(t, z):reshape { rows, 2, 2 } end,
  commutative = function(t, z) return gq.stack({ 0.6 * gq.sin(z), (0.5 + 0.1 * t) * gq.sin(z) }, -1) end,
}

-- The slope of log(error) over log(dt), by least squares.
local function slope(at)
  local fine, n, sx, sy, sxx, sxy = at(2 ^ -12), 0, 0, 0, 0, 0
  for k = 4, 8 do
    local x, y = -k * math.log(2), 0.5 * math.log((at(2 ^ -k) - fine):square():mean():item())
    n, sx, sy, sxx, sxy = n + 1, sx + x, sy + y, sxx + x * x, sxy + x * y
  end
  return (n * sxy - sx * sy) / (n * sxx - sx * sx)
end

local function measured(m, noise)
  local langevin = gq.langevin { grad = function(x) return x ^ 3 - x end }
  local sde = m.langevin and langevin or gq.sde { drift = function(t, z) return F(t, z) - z end,
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
