-- tableau_spec.lua -- Runge-Kutta tables: order conditions from rooted trees, error weights, interpolants,
-- slopes shared between steps, and the orders seen in solves. Quadrature rules.

local gq = require "gq"
local helper = require "tests.helper"
local problems = require "tests.problems"
local legendre = helper.legendre

-- Runge-Kutta tables, and all methods: those of other kinds are tested by their solves.
local methods, tableaux = gq.core.tableaux(), {}
for _, m in ipairs(methods) do
  if m.kind == "runge-kutta" then tableaux[#tableaux + 1] = m end
end

-- ---- rooted trees (Hairer, Norsett & Wanner II.2) ----

-- trees[n]: the trees with n vertices, {children, vertices, gamma}; children are trees, in order.
local function rooted_trees(order)
  local trees, all = { { { {}, 1, 1 } } }, {}
  trees[1][1].rank = 1
  all[1] = trees[1][1]
  for n = 2, order do
    trees[n] = {}
    -- children of decreasing rank with n - 1 vertices in all
    local function extend(children, left, rank)
      if left == 0 then
        local gamma = n
        for _, c in ipairs(children) do gamma = gamma * c[3] end
        local tree = { { table.unpack(children) }, n, gamma }
        trees[n][#trees[n] + 1] = tree
        return
      end
      for r = 1, rank do
        local c = all[r]
        if c[2] <= left then
          children[#children + 1] = c
          extend(children, left - c[2], r)
          children[#children] = nil
        end
      end
    end
    extend({}, n - 1, #all)
    for _, tree in ipairs(trees[n]) do all[#all + 1] = tree end
  end
  return trees
end

local trees = rooted_trees(9)

-- a and c of every slope an interpolant may use: the stages, then the end of the step.
local function extended(m)
  local a = {}
  for i = 1, m.stages do a[i] = m.a[i] end
  a[m.stages + 1] = m.b
  return a
end

-- Elementary weights of a tree at every slope, and the same with absolute values (the scale of rounding).
local function elementary(a, tree, memo)
  local known = memo[tree]
  if known then return known[1], known[2] end
  local phi, size = {}, {}
  for i = 1, #a do phi[i], size[i] = 1, 1 end
  for _, child in ipairs(tree[1]) do
    local p, q = elementary(a, child, memo)
    for i = 1, #a do
      local s, t = 0, 0
      for j = 1, #a[i] do
        s = s + a[i][j] * p[j]
        t = t + math.abs(a[i][j]) * q[j]
      end
      phi[i], size[i] = phi[i] * s, size[i] * t
    end
  end
  memo[tree] = { phi, size }
  return phi, size
end

-- Largest |sum w_i phi_i - want(tree)| over the trees with n vertices, in units of the rounding expected.
local function residual(m, w, n, want)
  local a, memo, worst, worst_absolute = extended(m), {}, 0, 0
  for _, tree in ipairs(trees[n]) do
    local phi, size = elementary(a, tree, memo)
    local sum, scale = -want(tree), 1
    for i = 1, #w do
      sum = sum + w[i] * phi[i]
      scale = scale + math.abs(w[i]) * size[i]
    end
    worst = math.max(worst, math.abs(sum) / scale)
    worst_absolute = math.max(worst_absolute, math.abs(sum))
  end
  return worst, worst_absolute
end

local ROUNDING = 1e-14           -- per unit of sum |terms|

local function interpolant(m, theta)
  local w = {}
  for i = 1, #m.d do
    local p = 0
    for j = #m.d[i], 1, -1 do p = (p + m.d[i][j]) * theta end
    w[i] = p
  end
  return w
end

describe("rooted trees", function()
  it("number 1, 1, 2, 4, 9, 20, 48, 115, 286", function()
    for n, count in ipairs { 1, 1, 2, 4, 9, 20, 48, 115, 286 } do assert.equal(count, #trees[n]) end
  end)
end)

describe("tableaux", function()
  it("hold the methods the interface names", function()
    local names = {}
    for _, m in ipairs(methods) do names[m.name] = m end
    local wanted = "euler midpoint heun ralston rk4 ssp33 bosh3 fehlberg2 adaptive_heun dopri5 tsit5 dopri8 " ..
      "implicit_euler implicit_midpoint trapezoid kvaerno3 kvaerno5 alf reversible_heun leapfrog explicit_adams " ..
      "implicit_adams"
    for name in wanted:gmatch("%S+") do
      assert.is_table(names[name], name)
      assert.truthy(#names[name].source > 5, name .. " names its source")
    end
  end)
end)

for _, m in ipairs(tableaux) do
  describe(m.name, function()
    it("has rows of a that sum to c", function()
      for i = 1, m.stages do
        local s, size = 0, 1
        for j = 1, m.stages do s, size = s + m.a[i][j], size + math.abs(m.a[i][j]) end
        assert.close(s, m.c[i], 0, ROUNDING * size)
      end
    end)

    it(m.implicit and "has one number on the diagonal, and an explicit first stage" or "is explicit", function()
      for i = 1, m.stages do
        for j = i, m.stages do
          assert.equal(m.implicit and j == i and i > 1 and m.a[2][2] or 0, m.a[i][j])
        end
      end
      assert.equal(m.implicit, m.a[2] ~= nil and m.a[2][2] > 0)
      assert.equal(0, m.c[1])
    end)

    it("meets the conditions of its order, and no more", function()
      for n = 1, m.order do
        assert.below(residual(m, m.b, n, function(tree) return 1 / tree[3] end), ROUNDING, "order " .. n)
      end
      local _, next_order = residual(m, m.b, m.order + 1, function(tree) return 1 / tree[3] end)
      assert.below(1e-7, next_order, "residual of the next order")
    end)

    it("has error weights that sum to zero and see its order less one", function()
      if not m.e then
        assert.equal(0, m.error_order)
        return
      end
      local function none() return 0 end
      -- dopri8 joins two estimates, of orders 5 and 3, into one of order 8 (HNW II.10)
      local seen = m.name == "dopri8" and 6 or m.error_order
      for n = 1, seen - 1 do assert.below(residual(m, m.e, n, none), ROUNDING, "order " .. n) end
      local _, first = residual(m, m.e, seen, none)
      assert.below(1e-7, first, "the error's first term")
      local sum = 0
      for i = 1, m.stages do sum = sum + m.e[i] end
      assert.close(sum, 0, 0, 2e-15)
    end)

    it("has an interpolant that joins both ends", function()
      local start, finish = interpolant(m, 0), interpolant(m, 1)
      for i = 1, #m.d do
        assert.equal(0, start[i])
        local size = 1
        for j = 1, #m.d[i] do size = size + math.abs(m.d[i][j]) end
        assert.close(finish[i], m.b[i] or 0, 0, ROUNDING * size)
      end
    end)

    it("has an interpolant with the slopes of both ends", function()
      local s0, s1, last = {}, {}, nil
      for i = 1, #m.d do
        s0[i], s1[i] = m.d[i][1], 0
        for j = 1, #m.d[i] do s1[i] = s1[i] + j * m.d[i][j] end
      end
      for i = 2, #m.d do                                 -- the first slope taken at the end of the step
        local same = i > m.stages or m.c[i] == 1
        for j = 1, m.stages do same = same and (i > m.stages or m.a[i][j] == m.b[j]) end
        if same then last = last or i end
      end
      for i = 1, #m.d do
        assert.close(s0[i], i == 1 and 1 or 0, 0, 1e-13)
        local size = 1
        for j = 1, #m.d[i] do size = size + j * math.abs(m.d[i][j]) end
        assert.close(s1[i], i == last and 1 or 0, 0, ROUNDING * size)
      end
    end)

    it("has an interpolant of the order it states, at least its own less one", function()
      assert.truthy(m.dense_order >= m.order - 1)
      for _, theta in ipairs { 0.1, 1 / math.sqrt(7), 0.5, 0.73, 0.95 } do
        local w = interpolant(m, theta)
        for n = 1, math.min(m.order, m.dense_order) do
          local worst = residual(m, w, n, function(tree) return theta ^ tree[2] / tree[3] end)
          assert.below(worst, ROUNDING, ("theta %g, order %d"):format(theta, n))
        end
      end
    end)
  end)
end

-- ---- orders seen in solves ----

-- Problems a method can solve: leapfrog takes x'' = a(t, x).
local function fitting(m)
  return m.kind == "symplectic" and { problems.by_name_exact.Kepler, problems.by_name_exact.pendulum } or problems.exact
end

local function solve(m, p, t, h)
  return gq.odeint(p.f, problems.vector(p.z0), t,
    { method = m.name, step_size = h, gradient = "none", max_steps = 1000000 })
end

-- Errors at four times on the grid, for grids finer by a factor of 2 (sqrt 2 for the high orders) down to rounding.
local function errors_by_step(m, p)
  local times, want, hs, errors = {}, {}, {}, {}
  for j = 0, 4 do
    times[j + 1] = p.t0 + (p.t1 - p.t0) * j / 4
    want[j + 1] = p.z(times[j + 1])
  end
  local ratio = m.order >= 5 and math.sqrt(2) or 2
  for k = 0, m.order >= 5 and 14 or 9 do
    local coarse = (m.order == 1 or m.kind ~= "runge-kutta") and 16 or 2
    local n = 4 * math.floor(coarse * ratio ^ k + 0.5)
    local h = (p.t1 - p.t0) / n
    local ok, z = pcall(solve, m, p, times, h)
    -- the coarsest grids may be too coarse for Newton's method
    if not ok and not (m.implicit and z:find("did not converge")) then error(z) end
    local e = ok and helper.relative(z, want)
    if ok and e < (p.floor or 5e-14) then break end
    if ok then hs[#hs + 1], errors[#errors + 1] = h, e end
  end
  return hs, errors
end

-- Multistep methods have tests of their own: adams_spec.lua.
local function single_step(m) return not m.kind:find("adams", 1, true) end

describe("observed order of", function()
  for _, m in ipairs(methods) do if single_step(m) then
    it(m.name .. " is its own within 0.15", function()
      for _, p in ipairs(fitting(m)) do
        local hs, errors = errors_by_step(m, p)
        local n = #hs
        assert.truthy(n >= 6, ("%s on %s: only %d errors above rounding"):format(m.name, p.name, n))
        local slope = helper.slope({ table.unpack(hs, n - 4) }, { table.unpack(errors, n - 4) }, true)
        assert.below(math.abs(slope - m.order), 0.15, ("%s on %s: order %.3f, off by"):format(m.name, p.name, slope))
      end
    end)
  end end
end)

describe("observed local order of the interpolant of", function()
  for _, m in ipairs(methods) do
    it(m.name, function()
      local want = math.min(m.order, m.dense_order) + 1
      for _, p in ipairs(fitting(m)) do
        local hs, errors = {}, {}
        local ratio = want > 5 and math.sqrt(2) or 2
        for k = 0, 8 do
          local h = (want > 5 and 0.5 or 0.2) / ratio ^ k
          local t = { p.t0, p.t0 + 0.3 * h, p.t0 + 0.62 * h, p.t0 + h }
          local z = solve(m, p, t, h)
          local e = math.max(helper.relative(z[2], p.z(t[2])), helper.relative(z[3], p.z(t[3])))
          if e < 2e-14 then break end
          hs[#hs + 1], errors[#errors + 1] = h, e
        end
        local n = #hs
        assert.truthy(n >= 4, ("%s on %s: only %d errors above rounding"):format(m.name, p.name, n))
        local slope = helper.slope({ table.unpack(hs, n - 3) }, { table.unpack(errors, n - 3) })
        assert.below(want - 0.25, slope, ("%s on %s: order"):format(m.name, p.name))
      end
    end)
  end
end)

describe("evaluations of a fixed grid", function()
  it("share the slope between steps where a stage is the end's", function()
    for _, m in ipairs(methods) do if single_step(m) then
      local last = 0
      for i = 2, m.stages do
        local same = m.c[i] == 1
        for j = 1, m.stages do same = same and m.a[i][j] == m.b[j] end
        if same then last = i break end
      end
      local _, info = solve(m, fitting(m)[1], { 0, 4 }, 4 / 16)
      local leaves = math.max(table.unpack(m.c)) > 1     -- steps shrink before the end, which no stage passes
      assert.truthy(leaves and info.steps > 16 or info.steps == 16, m.name)
      if m.implicit then                                 -- Newton's method decides
        assert.equal(info.steps, info.jacobians)
        assert.equal(info.nfe, info.newton + 1 + (last == 0 and info.steps or 0), m.name)
      end
      local each = m.kind ~= "runge-kutta" and 1 or last > 0 and last - 1 or m.stages
      assert.truthy(m.implicit or info.nfe == 16 * each or info.nfe == 16 * each + 1,
        ("%s: %d"):format(m.name, info.nfe))
    end end
  end)
end)

-- ---- Gauss-Legendre ----

describe("Gauss-Legendre", function()
  it("integrates degree 2n - 1 to rounding and no more, for n from 1 to 64 and some above", function()
    local sizes = { 100, 128, 200 }
    for n = 1, 64 do sizes[#sizes + 1] = n end
    for _, n in ipairs(sizes) do
      local x, w = gq.core.gauss_legendre(n)
      assert.equal(n, #x)
      assert.equal(n, #w)
      local total = 0
      for i = 1, n do
        total = total + w[i]
        assert.truthy(w[i] > 0 and x[i] > -1 and x[i] < 1)
        assert.truthy(i == 1 or x[i] > x[i - 1])
        assert.close(x[i], -x[n + 1 - i], 0, 4e-16)
        assert.close(w[i], w[n + 1 - i], 1e-13)
      end
      assert.close(total, 2, 2e-15 * math.sqrt(n) + 1e-15)
      for k = 1, 2 * n do
        local sum = 0
        for i = 1, n do sum = sum + w[i] * legendre(k, x[i]) end
        if k < 2 * n then
          assert.close(sum, 0, 0, 2e-14)
        else
          assert.truthy(math.abs(sum) > 1e-3, "degree 2n must not be exact")
        end
      end
    end
  end)

  it("refuses sizes that are not counts", function()
    for _, n in ipairs { 0, -1, 1.5, "3", 0 / 0, 1 / 0, {}, math.mininteger } do
      assert.has_error(function() gq.core.gauss_legendre(n) end)
    end
    assert.has_error(function() gq.core.gauss_legendre() end)
  end)
end)
