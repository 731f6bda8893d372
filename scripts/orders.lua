-- orders.lua -- orders of gq.sdeint's methods by the kind of noise, measured, as the README's tables. In brackets what
-- the method's row says.
-- Strong: random networks of two numbers, 200 samples, float64; slopes of the error at t = 1 over steps of 2^-4 to 2^-8
-- against steps of 2^-12 along the same path. Langevin methods: a double well.
-- Weak: E[X^2] at t = 1 over steps of 2^-2 to 2^-6, each less that of half the step along the same paths; the slope by
-- weights of their standard errors, and twice its own.
-- Adjoint: the stochastic adjoint's dL/dz0, L = |z(1)|^2, less that of direct, on the networks; the slope of the root
-- mean square over 400 samples and steps of 2^-5 to 2^-9, and how large it is at 2^-9, relative.

local gq = require "gq"
local here = arg[0]:match("^(.*)/[^/]*$") or "."
local helper = require "tests.helper"
local problems = dofile(here .. "/../tests/problems.lua")

local o = gq.cli {
  about = "Measure strong (or weak) orders of the methods of gq.sdeint, and print them as a table.",
  words = "METHOD...",
  { "weak", false, "orders of E[X^2] over many paths" },
  { "adjoint", false, "how the stochastic adjoint's gradient goes to direct's" },
  { "paths", 1000000, "of --weak", "integer", 1000 },
  { "noise", nil, "kinds of noise (all by default)", "list" },
}
if not o then return end

local function calculus_of(m)
  return m.langevin and "Langevin" or m.ito and m.stratonovich and "both" or m.ito and "Ito" or "Stratonovich"
end

local function sde_of(m, noise, drift, diffusion)
  if m.langevin then return gq.langevin { grad = function(x) return x ^ 3 - x end } end
  return gq.sde { drift = drift, diffusion = diffusion[noise], noise = noise,
    calculus = m.stratonovich and "stratonovich" or "ito" }
end

-- The order at which apart(dt) falls over steps of 2^-first to 2^-last, and the last of it.
local function falls(first, last, apart)
  local dts, list = {}, {}
  for k = first, last do dts[#dts + 1], list[#list + 1] = 2 ^ -k, apart(2 ^ -k) end
  return helper.slope(dts, list), list[#list]
end

-- ---- strong ----

local function strong()
  local rows = 200
  local noises, diffusion, drift = problems.noisy(rows)
  return noises, function(m, noise)
    local sde = sde_of(m, noise, drift, diffusion)
    local z0 = gq.randn(rows, m.langevin and 4 or 2, { seed = 5, dtype = "float64" })
    local function at(dt) return gq.sdeint(sde, z0, { 0, 1 }, { dt = dt, method = m.name, seed = 3 })[2] end
    local fine = at(2 ^ -12)
    local order = falls(4, 8, function(dt) return (at(dt) - fine):square():mean():item() ^ 0.5 end)
    return ("%.2f (%g)"):format(order, m.strong[noise])
  end
end

-- ---- weak ----

-- Elementwise, so that a million samples are few seconds; of each kind geometric Brownian motion where it can be.
local cheap = {
  diagonal = function(_, z) return 0.6 * z end,
  scalar = function(_, z) return 0.6 * z end,
  additive = function(t) return gq.tensor({ { 0.8, 0.3 }, { -0.2, 0.5 } }, { dtype = "float64" }) * (1 + t) end,
  general = function(_, z)
    local y = z:narrow(2, 2, 1)
    return gq.stack({ 0.5 * z, 0.4 * gq.cat({ y, 0 * y + 1 }, 2) }, -1)
  end,
  commutative = function(_, z) return gq.stack({ 0.6 * z, 0.5 * z }, -1) end,
}
local function pull(_, z) return 0.5 - z - 0.3 * gq.sin(z) end

-- Means and variances of their means of X_h^2 - X_(h/2)^2, by h.
local function differences(m, noise)
  local sde, rows, sums = sde_of(m, noise, pull, cheap), math.min(o.paths, 50000), {}
  local width = m.langevin and 2 or (noise == "diagonal" or noise == "scalar") and 1 or 2
  local chunks = math.max(1, o.paths // rows)
  for seed = 1, chunks do
    local before
    for k = 2, 7 do
      local x = gq.sdeint(sde, gq.ones(rows, width, { dtype = "float64" }), { 0, 1 },
        { dt = 2 ^ -k, method = m.name, seed = seed })[2]:square():mean(2)
      if before then
        local s = sums[k - 1] or { 0, 0 }
        s[1], s[2] = s[1] + (before - x):mean():item(), s[2] + (before - x):var():item() / rows
        sums[k - 1] = s
      end
      before = x
    end
  end
  local list = {}
  for k = 2, 6 do list[#list + 1] = { 2 ^ -k, sums[k][1] / chunks, sums[k][2] / chunks ^ 2 } end
  return list
end

-- Of log |mean| over log h, and its standard error; without those that are lost in their own error.
local function weighted_slope(list)
  local w, x, y, xx, xy, n = 0, 0, 0, 0, 0, 0
  for _, d in ipairs(list) do
    if math.abs(d[2]) > 3 * math.sqrt(d[3]) then
      local a, b, c = d[2] ^ 2 / d[3], math.log(d[1]), math.log(math.abs(d[2]))
      a = math.min(a, 1e4)                             -- what is left of a power of h counts too: a hundredth each
      w, x, y, xx, xy, n = w + a, x + a * b, y + a * c, xx + a * b * b, xy + a * b * c, n + 1
    end
  end
  local det = w * xx - x * x
  return n, (w * xy - x * y) / det, math.sqrt(w / det)
end

local function weak()
  return { "diagonal", "scalar", "additive", "general", "commutative" }, function(m, noise)
    local n, slope, error_ = weighted_slope(differences(m, noise))
    if n < 2 then return ("too small (%g)"):format(m.weak) end
    return ("%.2f +- %.2f (%g)"):format(slope, 2 * error_, m.weak)
  end
end

-- ---- the adjoint ----

local function adjoint()
  local rows = 400
  local noises, diffusion, drift = problems.noisy(rows)
  return noises, function(m, noise)
    local sde = sde_of(m, noise, drift, diffusion)
    local z0 = gq.randn(rows, 2, { seed = 5, dtype = "float64" })
    z0.requires_grad = true
    local function gradient(dt, engine)
      local z = gq.sdeint(sde, z0, { 0, 1 }, { dt = dt, method = m.name, seed = 3, gradient = engine })
      return gq.grad(z[2]:square():sum(), z0)
    end
    return ("%.2f (%.1e)"):format(falls(5, 9, function(dt)
      local want = gradient(dt, "direct")
      return ((gradient(dt, "adjoint") - want):square():mean() / want:square():mean()):item() ^ 0.5
    end))
  end
end

-- ---- the table ----

local function refuse(...)
  io.stderr:write("orders: ", string.format(...), "\n")
  os.exit(2, true)
end

local noises, measure = (o.adjoint and adjoint or o.weak and weak or strong)()
for _, name in ipairs(o.noise or {}) do
  if not cheap[name] then refuse("%s: no kind of noise; there are %s", name, table.concat(noises, ", ")) end
end
noises = o.noise or noises
local asked, known = {}, {}
for _, m in ipairs(gq.core.schemes()) do known[m.name] = true end
for _, name in ipairs(o.words) do
  if not known[name] then refuse("%s: no method of gq.sdeint; ?sdes lists them", name) end
  asked[name] = true
end
print("| method | calculus | " .. table.concat(noises, " | ") .. " |")
print("| --- | --- |" .. (" --- |"):rep(#noises))
gq.set_threads(1)
for _, m in ipairs(gq.core.schemes()) do
  if next(asked) and not asked[m.name] then goto continue end
  local cells = {}
  for i, noise in ipairs(noises) do
    cells[i] = m.strong[noise] and not (o.adjoint and m.langevin) and measure(m, noise) or "-"
  end
  print(("| %s | %s | %s |"):format(m.name, calculus_of(m), table.concat(cells, " | ")))
  io.stdout:flush()
  ::continue::
end
