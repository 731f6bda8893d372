-- sde_orders_spec.lua -- the strong orders of gq.sdeint's methods, row by row of their table, on random networks.

local gq = require "gq"
local helper = require "tests.helper"
local refused = helper.refused

local f64 = { dtype = "float64" }
local rows = 100

local function net(seed, out)
  gq.manual_seed(seed)
  local m = gq.nn.mlp { sizes = { 2, 8, out or 2 }, activation = "tanh", time = true }
  m:to "float64"
  return m
end

local F, G, GG = net(1), net(2), net(3, 4)
local A = gq.tensor({ { 0.6, 0.2 }, { -0.1, 0.5 } }, f64)
local kinds = {
  diagonal = function(t, z) return (0.7 + 0.2 * t) * gq.sin(z + 0.5) + 0.5 end,
  scalar = G,
  additive = function(t) return A * (1 + t) end,
  general = function(t, z) return GG(t, z):reshape { rows, 2, 2 } end,
  commutative = function(t, z) return gq.stack({ 0.6 * gq.sin(z), (0.5 + 0.1 * t) * gq.sin(z) }, -1) end,
}

local function problem(noise, calculus, g)
  return gq.sde { drift = function(t, z) return F(t, z) - z end, diffusion = g or kinds[noise], noise = noise,
    calculus = calculus }
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

  for _, m in ipairs(ordinary()) do
    for _, noise in ipairs { "diagonal", "scalar", "additive", "general", "commutative" } do
      for _, calculus in ipairs { "ito", "stratonovich" } do
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
    end
  end

  it("what the noise is, not what it is called", function()
    local function solve(noise, g, method)
      return gq.sdeint, problem(noise, "stratonovich", g), z0, { 0, 1 }, { dt = 0.1, method = method }
    end
    refused("other z_j", solve("diagonal", G, "milstein"))
    refused("use reversible_heun, heun", solve("diagonal", G, "milstein"))
    refused("commutative", solve("general", kinds.general, "milstein"))
    refused("depends on z", solve("additive", kinds.general, "heun"))
    assert.below(0.35, order(problem("diagonal", "stratonovich", G), "heun"))
  end)
end)
