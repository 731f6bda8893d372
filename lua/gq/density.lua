-- density.lua -- gq.data.density{...}: the two-dimensional densities on which flows are shown, with the shapes of
-- FFJORD's toy data (Grathwohl et al. 2019), their exact log density where it can be had, and the entropy with it.

local gq = ...
local options, need, one_of = gq.core.options, gq.core.need, gq.core.one_of

-- ---- mixtures of round normals ----
-- Points are a centre and noise. Centres lie on curves, uniform in a parameter u of [0, 1): the density is the
-- integral over u, here the sum over so many midpoints, which for noise as wide as theirs leaves nothing visible.

local midpoints <const> = 256

-- centre(u, k): the point at u on curve k of `curves`; u is a tensor {n, 1} and k one of -1 or 1 a row, or 1 to 8
local mixtures = {
  moons = { curves = 2, noise = 0.2, centre = function(u, k)
    local a = u * math.pi
    local upper = k:eq(1):to(u.dtype)
    local side = upper * 2 - 1                     -- the lower one is turned round
    return a:cos() * side * 2 + (1 - upper) * 2 - 1, a:sin() * side * 2 + (1 - upper) - 0.2
  end },
  circles = { curves = 2, noise = 0.24, centre = function(u, k)
    local a, r = u * (2 * math.pi), 4.5 - k * 1.5     -- radii 3 and 1.5
    return a:cos() * r, a:sin() * r
  end },
  eight_gaussians = { curves = 8, noise = 0.5 / math.sqrt(2), points = true, centre = function(_, k)
    local a, r = k * (math.pi / 4), 4 / math.sqrt(2)
    return a:cos() * r, a:sin() * r
  end },
  spirals = { curves = 2, noise = 0.15, centre = function(u, k)
    local a = u:sqrt() * (3 * math.pi)
    local side = 3 - k * 2                          -- 1, -1: one is the other turned by half a turn
    return -a:cos() * a * side / 3, a:sin() * a * side / 3
  end },
}

local function draw_mixture(m, n, seed)
  local u = gq.rand({ n, 1 }, { seed = gq.split_seed(seed, "curve") })
  local which = (gq.rand({ n, 1 }, { seed = gq.split_seed(seed, "which") }) * m.curves):to("int64") + 1
  local x, y = m.centre(u, which:to(u.dtype))
  local noise = gq.randn({ n, 2 }, { seed = gq.split_seed(seed, "noise") }) * m.noise
  return gq.cat({ x, y }, 2) + noise, which:reshape(n)
end

-- All centres of the sum, {count, 2}
local function centres(m, dtype)
  local each, parts = m.points and 1 or midpoints, {}
  local u = ((gq.arange(1, each, 1, { dtype = dtype }) - 0.5) / each):reshape(each, 1)
  for k = 1, m.curves do
    local x, y = m.centre(u, gq.full({ each, 1 }, k, { dtype = dtype }))
    parts[k] = gq.cat({ x, y }, 2)
  end
  return gq.cat(parts, 1)
end

local function mixture_log_prob(m, x)
  local c = centres(m, x.dtype)
  local count = c.shape[1]
  local d = (x:unsqueeze(2) - c:unsqueeze(1)):square():sum(3) * (-0.5 / m.noise ^ 2)
  return d:logsumexp(2) - math.log(count * 2 * math.pi * m.noise ^ 2)
end

-- ---- the others ----

-- A label 1 to n for each row, {n, 1} of int64, from its own draw.
local function labels(n, classes, seed, purpose)
  return (gq.rand({ n, 1 }, { seed = gq.split_seed(seed, purpose) }) * classes):to("int64") + 1
end

-- Uniform on every other one of 4 x 4 squares of side 2, in [-4, 4]^2.
local function draw_checkerboard(n, seed)
  local square = labels(n, 8, seed, "which")
  local column = ((square - 1):to("float32") / 2):to("int64")          -- 0 to 3
  local row = (square - 1 - column * 2) * 2 + column:eq(1):to("int64") + column:eq(3):to("int64")
  local corner = gq.cat({ column, row }, 2):to("float32") * 2 - 4
  return corner + gq.rand({ n, 2 }, { seed = gq.split_seed(seed, "square") }) * 2, square:reshape(n)
end

local function checkerboard_log_prob(x)
  local cell = gq.clamp((x + 4) / 2, 0, 3.5):to("int64"):to(x.dtype)
  local sum = cell:sum(2)
  local even = sum:eq(0):to("int64") + sum:eq(2):to("int64") + sum:eq(4):to("int64") + sum:eq(6):to("int64")
  local inside = x:abs():max(2):lt(4):to("int64") * even
  local here = gq.full({ x.shape[1] }, -math.log(32), { dtype = x.dtype, device = x.device })
  return gq.where(inside:eq(1), here, -math.huge)
end

-- Five arms, each a long normal bent by an angle that grows with the radius.
local function draw_pinwheel(n, seed)
  local arm = labels(n, 5, seed, "which")
  local f = gq.randn({ n, 2 }, { seed = gq.split_seed(seed, "noise") })
  local along, across = f:narrow(2, 1, 1) * 0.3 + 1, f:narrow(2, 2, 1) * 0.1
  local a = arm:to("float32") * (2 * math.pi / 5) + along:exp() * 0.25
  local x = along * a:cos() + across * a:sin()
  local y = across * a:cos() - along * a:sin()
  return gq.cat({ x, y }, 2) * 2, arm:reshape(n)
end

-- ---- by name ----

local densities = {
  checkerboard = { draw = draw_checkerboard, log_prob = checkerboard_log_prob },
  pinwheel = { draw = draw_pinwheel },
}
for name, m in next, mixtures do
  densities[name] = {
    draw = function(n, seed) return draw_mixture(m, n, seed) end,
    log_prob = function(x) return mixture_log_prob(m, x) end,
  }
end

local function names()
  local list = {}
  for name in next, densities do list[#list + 1] = name end
  table.sort(list)
  return list
end

local function density(opts)
  local what = "gq.data.density"
  local o = options(opts, "name seed train test", what)
  local d = densities[o.name == nil and "moons" or one_of(o, "name", names(), what)]
  local seed = need(o, "seed", "integer", 0, what)
  local function set(part, default)
    local x, y = d.draw(need(o, part, "count", default, what), gq.split_seed(seed, part))
    return { x = x, y = y }
  end
  return { train = set("train", 5000), test = set("test", 2000), log_prob = d.log_prob }
end

gq.data.density, gq.data.densities = density, names()
gq.docs[density] = "gq.data.density{name = \"moons\", seed, train = 5000, test = 2000}: points of a density in the " ..
  "plane, x {n, 2}, and y {n}, which of its parts each is from: " .. table.concat(names(), ", ") ..
  " (gq.data.densities)\n" ..
  "also log_prob(x) -> {n}, its logarithm, but for the pinwheel: -log_prob(test.x):mean() is what no model can beat " ..
  "but by chance"
