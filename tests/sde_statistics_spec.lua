-- sde_statistics_spec.lua -- the laws of Brownian paths by Kolmogorov and Smirnov's test on 131,072 samples, alone and
-- given what is known of a larger interval; sums of increments; a thousand questions in any order.

local gq = require "gq"

local f64 <const> = { dtype = "float64" }
local N <const> = 131072
local normal = (gq.arange(1, N):to "float64" - 0.5) / N          -- the middles of the empirical distribution's steps

-- P(D > what x gives) if the numbers of x are N(0, 1): Stephens' form of Kolmogorov's distribution.
local function probability(x)
  local cdf = (gq.erf(x:flatten():sort(1) / math.sqrt(2)) + 1) * 0.5
  local d = (cdf - normal):abs():max():item() + 0.5 / N
  local lambda, p = (math.sqrt(N) + 0.12 + 0.11 / math.sqrt(N)) * d, 0
  for k = 1, 100 do p = p + 2 * (-1) ^ (k - 1) * math.exp(-2 * k * k * lambda * lambda) end
  return lambda < 0.2 and 1 or p
end

local function path(seed, area, tol)
  return gq.brownian { t0 = 0, t1 = 2, shape = { N }, seed = seed, dtype = "float64", levy_area = area, tol = tol }
end

local function scaled(x, variance) return x / math.sqrt(variance) end

-- What W is in the middle of its interval, or elsewhere, given that over the whole: the rest is N(0, 1).
local function bridge(b, s, t, r)
  local h = t - s
  return scaled(b(s, s + r * h) - r * b(s, t), h * r * (1 - r))
end

-- The same given H too.
local function arch(b, s, t, r)
  local h, w, H = t - s, b:areas(s, t)
  local left = b(s, s + r * h) - r * w - 6 * r * (1 - r) * H
  return scaled(left, h * (r * (1 - r) - 3 * r * r * (1 - r) * (1 - r)))
end

-- H of a half given W and H of the whole: W of the half tells the rest.
local function half(b, s, t)
  local h, w, H = t - s, b:areas(s, t)
  local _, first = b:areas(s, (s + t) / 2)
  local W = b(s, (s + t) / 2)
  local z = W - w / 2 - 1.5 * H                         -- N(0, h / 16)
  return scaled(first - H / 4 + z / 2, h / 48), z       -- h / 24, H of the half, less what those two have of it
end

local laws = {
  { "W", "none", function(b) return scaled(b(0.3, 1.1), 0.8) end },
  { "W, short", "none", function(b) return scaled(b(0.7, 0.7 + 2 ^ -12), 2 ^ -12) end },
  { "W given W, in the middle", "none", function(b) return bridge(b, 0.5, 1, 0.5) end },
  { "W given W, elsewhere", "none", function(b) return bridge(b, 0.3, 1.7, 0.29) end },
  { "W given W, inside a leaf", "none", function(b) return bridge(b, 0.5, 1, 0.3) end, 0.5 },
}
for _, area in ipairs { "space-time", "space-time-time" } do
  local function add(name, law) laws[#laws + 1] = { name .. ", " .. area, area, law } end
  add("W", function(b) return scaled((b:areas(0.3, 1.1)), 0.8) end)
  add("H", function(b) return scaled(select(2, b:areas(0.3, 1.1)), 0.8 / 12) end)
  add("H, dyadic", function(b) return scaled(select(2, b:areas(0.25, 0.5)), 0.25 / 12) end)
  add("W given W and H, in the middle", function(b) return arch(b, 0.5, 1, 0.5) end)
  add("W given W and H, elsewhere", function(b) return arch(b, 0.3, 1.7, 0.29) end)
  add("H of a half given W and H", function(b) return (half(b, 0.5, 1)) end)
end
local all = "space-time-time"
laws[#laws + 1] = { "K", all, function(b) return scaled(select(3, b:areas(0.3, 1.1)), 0.8 / 720) end }
laws[#laws + 1] = { "K, dyadic", all, function(b) return scaled(select(3, b:areas(0.5, 1)), 0.5 / 720) end }

local function holds(law, seed)
  local p = probability(law[3](path(seed, law[2], law[4])))
  assert.below(1e-5, p, ("%s, seed %d"):format(law[1], seed))
end

describe("the law of a Brownian path:", function()
  it("the test itself sees what is wrong by a hundredth of a deviation", function()
    local x = gq.randn(N, { seed = 1, dtype = "float64" })
    assert.below(1e-5, probability(x), "normal numbers")
    assert.below(probability(x + 0.02), 1e-5, "shifted")
    assert.below(probability(x * 1.03), 1e-5, "wider")
  end)

  for i, law in ipairs(laws) do
    it(law[1], function() holds(law, i) end)
    it(law[1] .. ", 50 draws #slow", function()
      for seed = 101, 150 do holds(law, seed) end
    end)
  end

  it("what is left of a half's W and H is independent", function()
    for _, area in ipairs { "space-time", "space-time-time" } do
      local rest, z = half(path(7, area), 0.5, 1)
      assert.below(math.abs((rest * scaled(z, 0.5 / 16)):mean():item()), 5 / math.sqrt(N))
    end
  end)
end)

describe("a Brownian path's", function()
  local function small(area)
    return gq.brownian { t0 = 0, t1 = 2, shape = { 40 }, seed = 9, dtype = "float64", levy_area = area }
  end

  -- A thousand intervals, some short, some of dyadic ends, from few numbers.
  local function intervals()
    local list, u = {}, gq.rand(3000, { seed = 4, dtype = "float64" }):totable()
    for i = 1, 1000 do
      local s, t = 2 * u[3 * i - 2], 2 * u[3 * i - 1]
      if i % 3 == 0 then s, t = (s * 64 // 1) / 64, (t * 64 // 1) / 64 end
      if i % 3 == 1 then t = math.min(2, s + 1e-5 * u[3 * i]) end
      if s > t then s, t = t, s end
      if s < t then list[#list + 1] = { s, t, u[3 * i] } end
    end
    return list
  end

  it("increments add up to four roundings of the largest", function()
    local four <const> = 4 * 2.0 ^ -52
    for _, area in ipairs { "none", "space-time", "space-time-time" } do
      local b, worst = small(area), 0
      local scale = b(2):abs():max():item()
      for k = 1, 40 do scale = math.max(scale, b(k / 20):abs():max():item()) end
      for _, i in ipairs(intervals()) do
        local s, u = i[1], i[2]
        local t = s + (u - s) * i[3]
        worst = math.max(worst, (b(s, t) + b(t, u) - b(s, u)):abs():max():item())
      end
      assert.below(worst, four * scale, area)
    end
  end)

  it("values are the same bits in any order of a thousand questions", function()
    for _, area in ipairs { "none", "space-time", "space-time-time" } do
      local list, one, two = intervals(), small(area), small(area)
      local order, asked = gq.randperm(#list):totable(), {}
      local function ask(b, i)
        if area == "none" then return b(i[1], i[2]):totable() end
        local all_of = {}
        for k, x in ipairs { b:areas(i[1], i[2]) } do all_of[k] = x:totable() end
        return all_of
      end
      for k, i in ipairs(list) do asked[k] = ask(one, i) end
      for _, k in ipairs(order) do assert.same(asked[k], ask(two, list[k])) end
      assert.is_true(#list > 990)
    end
  end)
end)

describe("the path that gq.sdeint draws itself", function()
  -- dz = dW from 0: z is the path at the ends of the steps.
  local sde = gq.sde { drift = function(_, z) return 0 * z end, diffusion = function(_, z) return 0 * z + 1 end }

  local grids = { ["on the grid of the steps"] = {}, ["off it, and cut steps short"] = { 0.051, 0.055, 0.147 } }
  for name, more in pairs(grids) do
    it("has independent normal increments where times lie " .. name, function()
      local times = {}
      for k = 0, 11 do times[k + 1] = 0.03 * k end
      for _, t in ipairs(more) do times[#times + 1] = t end
      table.sort(times)
      local z = gq.sdeint(sde, gq.zeros(N, f64), times, { dt = 0.03, seed = 6 })
      local last
      for k = 2, #times do
        local x = scaled(z[k] - z[k - 1], times[k] - times[k - 1])
        assert.below(1e-5, probability(x), k)
        if last then assert.below(math.abs((x * last):mean():item()), 5 / math.sqrt(N), k) end
        last = x
      end
    end)
  end
end)

describe("coefficients of gq.wong_zakai", function()
  it("are normal numbers, drawn or of a path", function()
    assert.below(1e-5, probability(gq.core.cosines(3, 8, { N // 8 }, "float64")))
    local b = gq.brownian { t0 = 0, t1 = 2, shape = { N // 4 }, seed = 3, dtype = "float64" }
    local sde = gq.sde { drift = function(_, z) return 0 * z end, diffusion = function(_, z) return 0 * z + 1 end }
    for _, expansion in ipairs { "karhunen-loeve", "polynomial", "piecewise-linear" } do
      local wz = gq.wong_zakai(sde, { t0 = 0, t1 = 2, cosines = 4, expansion = expansion, brownian = b })
      assert.below(1e-5, probability(wz.xi), expansion)
      assert.below(((wz.xi[1] * wz.xi[3]):mean():item()) ^ 2, 25 / (N // 4))
    end
  end)
end)
