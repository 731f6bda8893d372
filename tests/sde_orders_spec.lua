-- sde_orders_spec.lua -- the strong orders of gq.sdeint's methods, row by row of their table, on random networks.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"
local refused = helper.refused

local rows = 100
local noises, kinds, drift = problems.noisy(rows)

local function problem(noise, calculus, g)
  return gq.sde { drift = drift, diffusion = g or kinds[noise], noise = noise, calculus = calculus }
end

local z0 = gq.randn(rows, 2, { seed = 5, dtype = "float64" })

-- The order over steps of 2^-4 to 2^-7 against a fine solve along the same path, that of a seed.
local function order(sde, method)
  local function at(dt) return gq.sdeint(sde, z0, { 0, 1 }, { dt = dt, method = method, seed = 3 })[2] end
  local fine, dts, errors = at(2 ^ -11), {}, {}
  for k = 4, 7 do
    dts[#dts + 1] = 2 ^ -k
    errors[#errors + 1] = math.sqrt((at(2 ^ -k) - fine):square():mean():item())
  end
  return helper.slope(dts, errors)
end

local function ordinary()
  local list = {}
  for _, m in ipairs(gq.core.schemes()) do list[#list + 1] = not m.langevin and m or nil end
  return list
end

describe("strong order of", function()
  local threads = gq.threads()
  setup(function() gq.set_threads(1) end)
  teardown(function() gq.set_threads(threads) end)

  for m, noise, calculus in helper.each(ordinary(), noises, { "ito", "stratonovich" }) do
    local nominal = m.strong[noise]
    if m[calculus] and nominal then
      it(("%s, %s noise, %s"):format(m.name, noise, calculus), function()
        assert.below(nominal - 0.15, order(problem(noise, calculus), m.name))
      end)
    elseif m[calculus] then
      it(("%s is refused for %s noise, %s"):format(m.name, noise, calculus), function()
        local o = { dt = 0.1, method = m.name }
        refused("does not converge", gq.sdeint, problem(noise, calculus), z0, { 0, 1 }, o)
      end)
    end
  end

  it("what the noise is, not what it is called", function()
    local function solve(noise, g, method)
      return gq.sdeint, problem(noise, "stratonovich", g), z0, { 0, 1 }, { dt = 0.1, method = method }
    end
    refused("other z_j", solve("diagonal", kinds.scalar, "milstein"))
    refused("use reversible_heun, heun", solve("diagonal", kinds.scalar, "milstein"))
    refused("commutative", solve("general", kinds.general, "milstein"))
    refused("depends on z", solve("additive", kinds.general, "heun"))
    assert.below(0.35, order(problem("diagonal", "stratonovich", kinds.scalar), "heun"))
  end)
end)

describe("scripts/orders", function()
  local function run(words)
    local text, code = helper.output(("%s scripts/orders.lua %s"):format(helper.gqlua, words))
    return text, code == 0
  end

  -- The slope and its interval lie above the order below the method's and, unless it may do better, under the next.
  local function holds(text, words, better)
    local slope, width, nominal = text:match("([%d.]+) %+%- ([%d.]+) %(([%d.]+)%)")
    assert.is_true(slope ~= nil, words .. "\n" .. text)
    assert.below(nominal - slope + width, 0.5, words .. "\n" .. text)
    if not better then assert.below(slope - nominal + width, 0.5, words .. "\n" .. text) end
  end

  it("measures weak orders", function()
    for _, words in ipairs { "heun --noise diagonal", "heun --noise general", "align --noise additive" } do
      holds(run("--weak --paths 20000 " .. words), words)
    end
  end)

  it("measures those of all methods, but of two whose differences are too small along so few paths #slow", function()
    local small = {}
    for _, m in ipairs(gq.core.schemes()) do
      if m.strong.diagonal then
        local text = run("--weak --paths 100000 --noise diagonal " .. m.name)
        if text:find "too small" then small[#small + 1] = m.name else holds(text, m.name, true) end
      end
    end
    assert.same({ "euler_heun", "milstein" }, small)
  end)

  it("refuses what it does not know", function()
    local text, ok = run("heunn")
    assert.is_false(ok)
    assert.truthy(text:find("heunn: no method", 1, true))
    text = run("--noise pink")
    assert.truthy(text:find("pink: no kind of noise", 1, true))
  end)
end)
