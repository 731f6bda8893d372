-- Data sets: their laws, their shapes, and that a seed decides everything.

local gq = require "gq"
local assert = require "luassert"
require "tests.helper"

describe("nested_spheres", function()
  it("is a disc and a ring, filled evenly", function()
    local set = gq.data.nested_spheres { seed = 1 }
    assert.same({ 2000, 2 }, set.train.x.shape)
    assert.same({ 100, 2 }, set.test.x.shape)
    assert.same("int64", set.train.y.dtype)
    local r, y = set.train.x:norm(2, 2):totable(), set.train.y:totable()
    local inner, outer = 0, 0
    for i = 1, 2000 do
      if y[i] == 1 then
        assert.is_true(r[i] <= 0.4 + 1e-6)
        if r[i] < 0.2 then inner = inner + 1 end
      else
        assert.same(2, y[i])
        assert.is_true(r[i] >= 0.7 - 1e-6 and r[i] <= 0.9 + 1e-6)
        if r[i] < 0.8 then outer = outer + 1 end
      end
    end
    assert.close(inner / 1000, 0.25, 0, 0.05)           -- areas grow with the square of the radius
    assert.close(outer / 1000, 15 / 32, 0, 0.06)
    assert.close(set.train.x:mean(1), { 0, 0 }, 0, 0.05)
  end)

  it("has as many dimensions as asked for", function()
    local set = gq.data.nested_spheres { dim = 3, train = 50, test = 10 }
    assert.same({ 100, 3 }, set.train.x.shape)
    assert.same({ 20 }, set.test.y.shape)
  end)
end)

describe("times of trajectories", function()
  it("are united for one solve, and read back by each", function()
    local t = gq.tensor { { 0, 2, 3 }, { 0, 1, 2 } }
    local times, index = gq.data.union_times(t)
    assert.same({ 0, 1, 2, 3 }, times)
    assert.same({ { 1, 3, 4 }, { 1, 2, 3 } }, index:totable())
    local z = gq.tensor { { { 0, 5 }, { 100, 5 } }, { { 1, 5 }, { 101, 5 } }, { { 2, 5 }, { 102, 5 } },
      { { 3, 5 }, { 103, 5 } } }
    assert.same({ { { 0, 5 }, { 2, 5 }, { 3, 5 } }, { { 100, 5 }, { 101, 5 }, { 102, 5 } } },
      gq.data.at_times(z, index):totable())
    assert.same(t:totable(), gq.data.at_times(gq.tensor { { 0, 0 }, { 1, 1 }, { 2, 2 }, { 3, 3 } }, index):totable())
    for _, wrong in ipairs { 3, gq.ones(3), gq.ones(0, 2), gq.tensor { { 0 / 0 } } } do
      assert.has_error(function() gq.data.union_times(wrong) end)
    end
    assert.has_error(function() gq.data.at_times(gq.ones(4, 3), index) end)
    assert.has_error(function() gq.data.at_times(gq.ones(4, 2), gq.ones(2, 3)) end)
  end)
end)

describe("sines", function()
  it("are solutions of x'' = -x", function()
    local set = gq.data.sines { seed = 2 }
    assert.same({ 15, 50 }, set.train.y.shape)
    assert.same({ 5, 50 }, set.test.y.shape)
    assert.close(set.train.t[-1]:item(), 2 * math.pi, 1e-6)
    local x0, v0 = table.unpack(set.train.x[3]:totable())
    local t = set.train.t[20]:item()
    assert.close(set.train.y[3][20]:item(), x0 * math.cos(t) + v0 * math.sin(t), 1e-5, 1e-6)
    assert.is_true(set.train.x:abs():max():item() <= 1)
  end)

  it("irregular times are sorted, start at 0 and differ between trajectories", function()
    local set = gq.data.sines { seed = 2, times = 10, regular = false }
    assert.same({ 15, 10 }, set.train.t.shape)
    for _, row in ipairs(set.train.t:totable()) do
      assert.same(0, row[1])
      for i = 2, 10 do assert.is_true(row[i] > row[i - 1]) end
    end
    assert.not_same(set.train.t[1]:totable(), set.train.t[2]:totable())
    assert.same({ 5, 50 }, set.test.y.shape)
  end)
end)

describe("ornstein_uhlenbeck", function()
  local set = gq.data.ornstein_uhlenbeck { seed = 3, train = 40, test = 5, samples = 200 }

  it("has starts first, then times, then samples", function()
    assert.same({ 40, 1 }, set.train.x.shape)
    assert.same({ 40, 101, 200 }, set.train.y.shape)
    assert.same({ 5, 101, 200 }, set.test.y.shape)
    assert.close(set.train.t[-1]:item(), 10, 1e-6)
    assert.is_true(set.train.x:abs():max():item() <= 3)
    assert.same(0, (set.train.y[{ {}, 1, {} }] - set.train.x):abs():max():item())
  end)

  it("has the mean and the variance of the process", function()
    local mu, theta, sigma, phi = 0.2, 0.1, 0.6, 0.15
    -- m' = mu t - theta m; v' = -2 theta v + (sigma + phi t)^2: additive noise, so no correction term
    local function exact(x0, t_end)
      local n, m, v = 20000, x0, 0
      local h = t_end / n
      for i = 0, n - 1 do
        local t = (i + 0.5) * h
        local mm = m + 0.5 * h * (mu * (t - h / 2) - theta * m)
        local vm = v + 0.5 * h * ((sigma + phi * t) ^ 2 - 2 * theta * v)
        m = m + h * (mu * t - theta * mm)
        v = v + h * ((sigma + phi * t) ^ 2 - 2 * theta * vm)
      end
      return m, v
    end
    for _, k in ipairs { 11, 51, 101 } do
      local t = (k - 1) / 10
      local z = set.train.y[{ {}, k, {} }]
      local residual, v = 0, nil
      for i = 1, 40 do
        local m
        m, v = exact(set.train.x[i][1]:item(), t)
        residual = residual + (z[i]:mean():item() - m) / 40
      end
      assert.close(residual, 0, 0, 4 * math.sqrt(v / 8000))
      assert.close(z:var(2):mean():item(), v, 0.08)
    end
  end)
end)

describe("spirals", function()
  it("turn either way, inwards, seen with noise at times of their own", function()
    local set = gq.data.spirals { seed = 2, train = 300, test = 10, times = 20 }
    local s = set.train
    assert.same({ { 300, 20 }, { 300, 20, 2 }, { 61 }, { 300, 61, 2 } }, { s.t.shape, s.y.shape, s.grid.shape,
      s.truth.shape })
    assert.same({ 10, 61, 2 }, set.test.truth.shape)
    assert.close(s.grid[-1]:item(), 3 * math.pi, 1e-6)
    assert.close(set.span, 2 * math.pi, 1e-12)
    local ways = 0
    local truth, y, t = s.truth:totable(), s.y:totable(), s.t:totable()
    local sum = 0
    for i = 1, 300 do
      local first, later = truth[i][1], truth[i][11]                 -- a quarter turn later
      local r, phase = math.sqrt(first[1] ^ 2 + first[2] ^ 2), math.atan(first[2], first[1])
      local way = first[1] * later[2] - first[2] * later[1] > 0 and 1 or -1
      assert.is_true(r >= 1 and r <= 2)
      ways = ways + way
      for k = 1, 20 do
        assert.is_true(t[i][k] >= 0 and t[i][k] <= set.span and (k == 1 or t[i][k] >= t[i][k - 1]))
        local a, rho = phase + way * t[i][k], r * math.exp(-0.1 * t[i][k])
        sum = sum + (y[i][k][1] - rho * math.cos(a)) ^ 2 + (y[i][k][2] - rho * math.sin(a)) ^ 2
      end
    end
    assert.close(math.sqrt(sum / 12000), 0.1, 0.05)
    assert.is_true(math.abs(ways) < 80)
    local exact = gq.data.spirals { seed = 2, train = 3, test = 1, times = 4, noise = 0 }.train
    assert.is_true(exact.y:norm(2, 3):max():item() <= 2)
  end)
end)

describe("crossing", function()
  it("is two points", function()
    local set = gq.data.crossing()
    assert.same({ { 1 }, { -1 } }, set.train.x:totable())
    assert.same({ { -1 }, { 1 } }, set.train.y:totable())
  end)
end)

describe("seeds", function()
  it("decide every set, whatever was drawn before", function()
    for name, opts in pairs { nested_spheres = { train = 20, test = 5 }, sines = { regular = false },
      ornstein_uhlenbeck = { train = 3, test = 2, samples = 4 } } do
      local function make(seed)
        opts.seed = seed
        return gq.data[name](opts).train.x:totable()
      end
      local a = make(5)
      gq.randn(3)
      assert.same(a, make(5))
      assert.not_same(a, make(6))
    end
  end)

  it("split into unrelated ones", function()
    local seen = {}
    for seed = 0, 20 do
      for _, s in ipairs { gq.split_seed(seed), gq.split_seed(seed, 1), gq.split_seed(seed, "a"),
        gq.split_seed(seed, "a", 1), gq.split_seed(seed, 1, "a"), gq.split_seed(seed, "") } do
        assert.is_true(math.type(s) == "integer" and s >= 0)
        assert.is_nil(seen[s])
        seen[s] = true
      end
    end
  end)
end)

describe("batches", function()
  local set = { x = gq.arange(1, 10):reshape(10, 1), y = { a = gq.arange(1, 10), b = gq.arange(11, 20) } }

  local function order(opts)
    local list, sizes = {}, {}
    for x, y in gq.data.batches(set, opts) do
      sizes[#sizes + 1] = #x
      for i = 1, #x do
        list[#list + 1] = math.tointeger(x[i][1]:item())
        assert.same(x[i][1]:item(), y.a[i]:item())
        assert.same(x[i][1]:item() + 10, y.b[i]:item())
      end
    end
    return list, sizes
  end

  it("cover the set once, the last one smaller", function()
    local list, sizes = order { batch_size = 4 }
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, list)
    assert.same({ 4, 4, 2 }, sizes)
    assert.same({ 4, 4 }, select(2, order { batch_size = 4, drop_last = true }))
    assert.same({ 10 }, select(2, order {}))
    assert.same({ 10 }, select(2, order { batch_size = 10 }))
  end)

  it("are shuffled by the seed", function()
    local a = order { batch_size = 3, shuffle = true, seed = 1 }
    assert.same(a, (order { batch_size = 3, shuffle = true, seed = 1 }))
    assert.not_same(a, (order { batch_size = 3, shuffle = true, seed = 2 }))
    table.sort(a)
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, a)
  end)

  -- Large enough to be read where it is: prepared by a thread, or not, or in order at once.
  local images = { x = gq.rand({ 2000, 1, 28, 28 }, { seed = 1 }),
    y = { label = gq.randint(1, 10, 2000, { seed = 2 }), weight = gq.rand({ 2000 }, { seed = 3, dtype = "float64" }) } }

  local function parts(opts, stop)
    local list = {}
    for x, y, idx in gq.data.batches(images, opts) do
      list[#list + 1] = gq.core.bytes(x) .. gq.core.bytes(y.label) .. gq.core.bytes(y.weight) .. gq.core.bytes(idx)
      if #list == stop then break end
    end
    return list
  end

  local function with_threads(n, f)
    local before = gq.threads()
    gq.set_threads(n)
    f()
    gq.set_threads(before)
  end

  it("are the same by a thread that works ahead, without it, and taken row by row", function()
    with_threads(2, function()
      for _, o in ipairs { { batch_size = 300, shuffle = true, seed = 4 }, { batch_size = 300, drop_last = true },
        { batch_size = 1999, augment = { flip = true, crop = 3 }, seed = 5 } } do
        local by_thread = parts(o)
        assert.same(o.batch_size == 1999 and 2 or o.drop_last and 6 or 7, #by_thread)
        o.ahead = false
        assert.same(by_thread, parts(o))
        assert.same({ by_thread[1] }, parts(o, 1))
      end
      for x, y, idx in gq.data.batches(images, { batch_size = 700, shuffle = true, seed = 4 }) do
        assert.equal(0, (x - images.x:index_select(1, idx)):abs():max():item())
        assert.equal(0, (y.weight - images.y.weight:index_select(1, idx)):abs():max():item())
      end
    end)
  end)

  it("are moved as gq.data.augment moves all, whatever their size", function()
    local o = { augment = { flip = true, crop = 2 }, seed = 6 }
    local whole = gq.data.augment(images.x, { flip = true, crop = 2, seed = gq.split_seed(6, "augment") })
    for _, size in ipairs { 2000, 333 } do
      o.batch_size = size
      local list = {}
      for x in gq.data.batches(images, o) do list[#list + 1] = x end
      assert.equal(0, (gq.cat(list, 1) - whole):abs():max():item())
    end
    assert.is_true((whole - images.x):abs():max():item() > 0)
    -- without a seed, as gq.manual_seed says
    o.seed = nil
    gq.manual_seed(3)
    local once = parts(o, 2)
    gq.manual_seed(3)
    assert.same(once, parts(o, 2))
    assert.not_same(once, parts(o, 2))
  end)

  it("have what stands in the set when they are taken, though a thread read it before", function()
    with_threads(2, function()
      local zeros = { x = gq.zeros(4000, 300), y = gq.zeros(4000) }
      local round = 0
      for x, y in gq.data.batches(zeros, { batch_size = 400 }) do
        assert.same({ round, round, round }, { x:min():item(), x:max():item(), y:max():item() })
        round = round + 1
        zeros.x[{ {}, {} }] = round
        zeros.y[{ {} }] = round
      end
      assert.equal(10, round)
    end)
  end)

  it("leave no memory or thread behind where a loop ends early or by an error", function()
    with_threads(2, function()
      local function once()
        pcall(function()
          for x in gq.data.batches(images, { batch_size = 100 }) do error(x) end
        end)
        parts({ batch_size = 100 }, 3)
        collectgarbage() collectgarbage()
      end
      once()
      local before = gq.memory()
      for _ = 1, 20 do once() end
      assert.is_true(gq.memory() <= before + 4096)
      local list = gq.core.directory("/proc/self/task")
      assert.is_true(#list <= 3)
    end)
  end)

  it("wrong sets and options are errors", function()
    assert.error_matches(function() gq.data.batches(3) end, "a set {x = ..., y = ...}")
    assert.error_matches(function() gq.data.batches { x = gq.zeros(3), y = gq.zeros(2) } end, "same number of entries")
    assert.error_matches(function() gq.data.batches(set, { batchsize = 2 }) end, "did you mean 'batch_size'")
    assert.error_matches(function() gq.data.batches(set, { batch_size = 11 }) end,
      "batch_size = 11 is larger than the set, which has 10 entries")
    assert.error_matches(function() gq.data.batches(set, { seed = 1 }) end, "say shuffle = true, or shuffle = false")
    assert.has_no_error(function() gq.data.batches(set, { seed = 1, shuffle = false }) end)
    for _, radii in ipairs { { 1 }, { 0.9, 0.7, 0.4 }, { "1", 2, 3 }, { 0.1, 0.2, 0 / 0 } } do
      assert.error_matches(function() gq.data.nested_spheres { radii = radii } end, "radii: three numbers that do not")
    end
    assert.error_matches(function() gq.data.batches(set, { batch_size = 0 }) end, "integer of at least 1")
    assert.error_matches(function() gq.data.batches(set, { augment = { flip = true } }) end,
      "augment: x: images {n, c, h, w} expected")
    assert.error_matches(function() gq.data.batches(images, { augment = { crops = 2 } }) end, "did you mean 'crop'")
    assert.error_matches(function() gq.data.batches(images, { augment = { crop = 28 } }) end, "28 x 28, expected, got")
    assert.error_matches(function() gq.data.batches(images, { augment = true }) end, "augment: a table expected")
    assert.error_matches(function() gq.data.sines { times = "many" } end, "times: an integer of at least 1 expected")
    assert.error_matches(function() gq.data.batches { x = { 1, 2 }, y = { 3, 4 } } end, "got number 1 in it")
  end)
end)
