-- paths_spec.lua -- the fast paths of solves against one another: the same numbers, to rounding, whatever the
-- number of threads and so of slices, with rows innermost (independent rows) or first (a row that reads another).

local gq = require "gq"
local helper = require "tests.helper"
local nn = gq.nn

local threads = gq.threads()
teardown(function() gq.set_threads(threads) end)

local choose = helper.chooser(7)

-- A random network of t and z, with a shift of each row and a scale of all, in float64.
local function problem(seed)
  gq.manual_seed(seed)
  local f64 = { dtype = "float64" }
  local rows, features = choose { 1, 2, 7, 8, 15, 16, 33, 64, 100, 131 }, choose { 1, 2, 3, 5 }
  local sizes = { features, choose { 3, 8, 20, 33 }, choose { 4, 17, 20 }, features }
  local activation = choose { "softplus", "tanh", "sigmoid", "silu" }
  local net = nn.mlp { sizes = sizes, activation = activation, time = choose { true, false } }
  net:to("float64")
  local shift, scale = gq.randn(rows, features, f64) / 3, gq.tensor(0.8, f64)
  shift.requires_grad, scale.requires_grad = true, true
  local z0 = gq.randn(rows, features, f64)
  z0.requires_grad = true
  local times = choose { { 0, 1 }, { 0, 0.2, 0.5, 0.5, 1 }, { 1, 0.3, 0 } }
  local inputs = net:parameters()
  inputs[#inputs + 1], inputs[#inputs + 2], inputs[#inputs + 3] = shift, scale, z0
  local weights = gq.randn(#times, rows, features, f64)
  -- mixed: every row reads the mean of all, times zero: the same numbers, and no slices.
  local function solve(mixed, gradient, options)
    local function f(t, z)
      local y = net(t, z) * scale + shift * gq.cos(t)
      return mixed and y + z:mean(1, true) * 0 or y
    end
    options.gradient, options.rtol, options.atol = gradient, 1e-9, 1e-9
    local z = gq.odeint(f, z0, times, options)
    return z, gq.grad((z * weights):sum(), inputs)
  end
  return solve
end

describe("fast paths", function()
  for _, gradient in ipairs { "direct", "aca", "adjoint", "seminorm", "gq" } do
    it("agree for " .. gradient, function()
      for seed = 1, 12 do
        local solve = problem(seed)
        local nodes, trajectory = choose { "step", 9 }, choose { "reverse", "dense" }
        local options = { gq = { nodes = nodes }, adjoint = { trajectory = trajectory } }
        gq.set_threads(1)
        local z, g = solve(true, gradient, options)
        for n = 1, 3 do
          gq.set_threads(n)
          local z1, g1 = solve(false, gradient, options)
          assert.close(z1, z, 1e-7, 1e-8)
          assert.below(helper.relative(g1, g), 1e-6, ("seed %d, %d threads"):format(seed, n))
        end
      end
    end)
  end
end)
