-- problems.lua -- initial value problems with known solutions and known gradients.
--   detest: the 25 problems of Hull, Enright, Fellen and Sedgwick (1972), values at t = 20 in data/detest.lua
--   exact:  nonlinear or non-autonomous problems with solutions in closed form
--   oracle: losses with gradients in closed form or in quadruple precision

local gq = require "gq"
local helper = require "tests.helper"

local problems = {}

local function vector(x) return gq.tensor(x, { dtype = "float64" }) end
problems.vector = vector

local function components(z)
  local list = {}
  for i = 1, #z do list[i] = z[i] end
  return table.unpack(list)
end

-- SDEs of two numbers by random networks, float64: the kinds of noise; by kind the diffusion; the drift.
function problems.noisy(rows)
  local function net(seed, out)
    gq.manual_seed(seed)
    local m = gq.nn.mlp { sizes = { 2, 8, out or 2 }, activation = "tanh", time = true }
    m:to "float64"
    return m
  end
  local F, G, GG, A = net(1), net(2), net(3, 4), vector { { 0.6, 0.2 }, { -0.1, 0.5 } }
  return { "diagonal", "scalar", "additive", "general", "commutative" }, {
    diagonal = function(t, z) return (0.7 + 0.2 * t) * gq.sin(z + 0.5) + 0.5 end,
    scalar = G,
    additive = function(t) return A * (1 + t) end,
    general = function(t, z) return GG(t, z):reshape { rows, 2, 2 } end,
    commutative = function(t, z) return gq.stack({ 0.6 * gq.sin(z), (0.5 + 0.1 * t) * gq.sin(z) }, -1) end,
  }, function(t, z) return F(t, z) - z end
end

-- Options of every engine of the table, with a method that it takes; own[name] over them, false leaves it out.
function problems.engines(own)
  local list = {}
  for _, e in ipairs(gq.core.engines()) do
    local o = own[e.name]
    if e.keeps ~= "nothing" and o ~= false then
      list[#list + 1] = helper.with({ gradient = e.name, method = e.methods and e.methods[1] }, o)
    end
  end
  return list
end

-- f(t, y1, ..., yn) -> y1', ..., yn' as a function of one tensor.
local function split(f)
  return function(t, z) return gq.stack({ f(t, components(z)) }, 1) end
end

-- ---- DETEST ----

local detest = {}
problems.detest = detest

problems.by_name = {}

local function add(name, z0, f)
  detest[#detest + 1] = { name = name, z0 = z0, f = f }
  problems.by_name[name] = detest[#detest]
end

add("A1", { 1 }, function(_, y) return -y end)
add("A2", { 1 }, function(_, y) return -y ^ 3 / 2 end)
add("A3", { 1 }, function(t, y) return y * gq.cos(t) end)
add("A4", { 1 }, function(_, y) return y / 4 * (1 - y / 20) end)
add("A5", { 4 }, function(t, y) return (y - t) / (y + t) end)

add("B1", { 1, 3 }, split(function(_, x, y) return 2 * (x - x * y), -(y - x * y) end))
add("B2", { 2, 0, 1 }, split(function(_, x, y, z) return y - x, x - 2 * y + z, y - z end))
add("B3", { 1, 0, 0 }, split(function(_, x, y) return -x, x - y * y, y * y end))
add("B4", { 3, 0, 0 }, split(function(_, x, y, z)
  local r = gq.sqrt(x * x + y * y)
  return -y - x * z / r, x - y * z / r, x / r
end))
add("B5", { 0, 1, 1 }, split(function(_, x, y, z) return y * z, -x * z, -0.51 * x * y end))

-- y' = A y with the rows of A given by entry(i, j).
local function linear(n, entry)
  local rows = {}
  for i = 1, n do
    rows[i] = {}
    for j = 1, n do rows[i][j] = entry(i, j) end
  end
  local a = vector(rows)
  local z0 = { 1 }
  for i = 2, n do z0[i] = 0 end
  return z0, function(_, y) return a:matmul(y) end
end

add("C1", linear(10, function(i, j)
  if i == j then return i < 10 and -1 or 0 end
  return i == j + 1 and 1 or 0
end))
add("C2", linear(10, function(i, j)
  if i == j then return i < 10 and -i or 0 end
  return i == j + 1 and j or 0
end))
local function chain(i, j) return i == j and -2 or math.abs(i - j) == 1 and 1 or 0 end
add("C3", linear(10, chain))
add("C4", linear(51, chain))

do -- C5: five outer planets about the sun; state: positions {axis, body}, then velocities {axis, body}
  local k2, m0 = 2.95912208286, 1.00000597682
  local mass = { 0.000954786104043, 0.000285583733151, 0.0000437273164546, 0.0000517759138449, 0.00000277777777778 }
  local z0 = { 3.42947415189, 6.64145542550, 11.2630437207, -30.1552268759, -21.1238353380,
    3.35386959711, 5.97156957878, 14.6952576794, 1.65699966404, 28.4465098142,
    1.35494901715, 2.18231499728, 6.27960525067, 1.43785752721, 15.3882659679,
    -0.557160570446, -0.415570776342, -0.325325669158, -0.0240476254170, -0.176860753121,
    0.505696783289, 0.365682722812, 0.189706021964, -0.287659532608, -0.216393453025,
    0.230578543901, 0.169143213293, 0.0877265322780, -0.117219543175, -0.0148647893090 }
  local m, same = vector(mass), gq.eye(5, { dtype = "float64" })
  add("C5", z0, function(_, z)
    local x = z:narrow(1, 1, 15):reshape(3, 5)
    local r3 = (x * x):sum({ 1 }, true) ^ 1.5                       -- {1, 5}
    local d = x:unsqueeze(2) - x:unsqueeze(3)                       -- d[:, j, k] = y_k - y_j
    local d3 = ((d * d):sum({ 1 }, true) + same) ^ 1.5              -- {1, j, k}; d = 0 where j = k
    local pull = (m * (d / d3)):sum({ 3 }) - ((1 - same) * m * (x / r3):unsqueeze(2)):sum({ 3 })
    local a = k2 * (pull - (m0 + m) * x / r3)
    return gq.cat({ z:narrow(1, 16, 15), a:reshape(15) }, 1)
  end)
end

for i, e in ipairs { 0.1, 0.3, 0.5, 0.7, 0.9 } do
  add("D" .. i, { 1 - e, 0, 0, math.sqrt((1 + e) / (1 - e)) }, split(function(_, x, y, u, v)
    local r3 = (x * x + y * y) ^ 1.5
    return u, v, -x / r3, -y / r3
  end))
end

add("E1", { 0.6713967071418030, 0.09540051444747446 }, split(function(t, x, v)
  return v, -(v / (t + 1) + (1 - 0.25 / (t + 1) ^ 2) * x)
end))
add("E2", { 2, 0 }, split(function(_, x, v) return v, (1 - x * x) * v - x end))
add("E3", { 0, 0 }, split(function(t, x, v) return v, x ^ 3 / 6 - x + 2 * gq.sin(2.78535 * t) end))
add("E4", { 30, 0 }, split(function(_, _, v) return v, 0.032 - 0.4 * v * v end))
add("E5", { 0, 0 }, split(function(t, _, v) return v, gq.sqrt(1 + v * v) / (25 - t) end))

-- ---- solutions in closed form, for orders ----

-- Kepler's equation u - e sin u = t.
local function kepler(e, t)
  local u = t
  for _ = 1, 50 do u = u - (u - e * math.sin(u) - t) / (1 - e * math.cos(u)) end
  local s, c, q = math.sin(u), math.cos(u), math.sqrt(1 - e * e)
  return { c - e, q * s, -s / (1 - e * c), q * c / (1 - e * c) }
end

-- f(t, z) for a curve u(t) = (sin t + 2, cos 2t): its slope plus a nonlinear pull towards it.
local function manufactured(t, x, y)
  local a, b = gq.sin(t) + 2, gq.cos(2 * t)
  return gq.cos(t) + x * y - a * b, -2 * gq.sin(2 * t) + gq.tanh(a * a - x * x) * 0.5 - (y ^ 3 - b ^ 3) * 0.3
end

problems.exact = {
  { name = "y' = y cos t", z0 = { 1 }, t0 = 0, t1 = 9, f = function(t, z) return z * gq.cos(t) end,
    z = function(t) return { math.exp(math.sin(t)) } end },
  { name = "a pull towards a curve", z0 = { 2, 1 }, t0 = 0, t1 = 7, f = split(manufactured),
    z = function(t) return { math.sin(t) + 2, math.cos(2 * t) } end },
  { name = "Kepler", z0 = kepler(0.1, 0), t0 = 0, t1 = 9, floor = 3e-13, f = problems.by_name.D1.f,
    z = function(t) return kepler(0.1, t) end },
}
problems.by_name_exact = { Kepler = problems.exact[3],
  -- x'' = -x + 3 sin 2t
  pendulum = { name = "a forced oscillator", z0 = { 1, -2 }, t0 = 0, t1 = 5,
    f = split(function(t, x, v) return v, 3 * gq.sin(2 * t) - x end),
    z = function(t) return { math.cos(t) - math.sin(2 * t), -math.sin(t) - 2 * math.cos(2 * t) } end } }

-- ---- gradients ----
-- An oracle: make() gives leaves {name = tensor}, f, z0, t, loss(z); exact: the gradient of each leaf.

local oracle = {}
problems.oracle = oracle

local function leaf(x) return gq.tensor(x, { dtype = "float64", requires_grad = true }) end
problems.leaf = leaf

-- z' = a z, L = z(T)^2 (the paper's 5.1); all times have gradients.
function oracle.G1(T)
  local a, z0 = 0.2, 10
  local l = z0 * z0 * math.exp(2 * a * T)
  local p = { a = leaf(a), z0 = leaf { z0 }, t = leaf { 0, T } }
  return { leaves = p, z0 = p.z0, t = p.t, f = function(_, z) return p.a * z end,
    loss = function(z) return (z[2] ^ 2):sum() end,
    exact = { a = 2 * T * l, z0 = { 2 * l / z0 }, t = { -2 * a * l, 2 * a * l } } }
end

-- z' = -z + theta sin(w t) at theta = 0, L = z(T): the integrand's frequency is not the solution's.
function oracle.G2(w, T)
  local p = { theta = leaf(0), z0 = leaf { 1 } }
  return { leaves = p, z0 = p.z0, t = { 0, T }, f = function(t, z) return p.theta * gq.sin(w * t) - z end,
    loss = function(z) return z[2]:sum() end,
    exact = { z0 = { math.exp(-T) },
      theta = (math.sin(w * T) - w * math.cos(w * T) + w * math.exp(-T)) / (1 + w * w) } }
end

-- q'' = -theta q, L = q(T).
function oracle.G3(T)
  local p = { theta = leaf(1), z0 = leaf { 1, 0 } }
  return { leaves = p, z0 = p.z0, t = { 0, T }, f = function(_, z) return gq.stack({ z[2], -p.theta * z[1] }, 1) end,
    loss = function(z) return z[2][1] end,
    exact = { theta = -T / 2 * math.sin(T), z0 = { math.cos(T), math.sin(T) } } }
end

-- z' = -lambda z, L = z(T): unstable backwards.
function oracle.G4(lambda, T)
  local p = { lambda = leaf(lambda), z0 = leaf { 1.5 } }
  local e = math.exp(-lambda * T)
  return { leaves = p, z0 = p.z0, t = { 0, T }, f = function(_, z) return -p.lambda * z end,
    loss = function(z) return z[2]:sum() end, exact = { lambda = -T * 1.5 * e, z0 = { e } } }
end

local function multiply(a, b)
  local c = {}
  for i = 1, #a do
    c[i] = {}
    for j = 1, #b[1] do
      local s = 0
      for k = 1, #b do s = s + a[i][k] * b[k][j] end
      c[i][j] = s
    end
  end
  return c
end

-- exp(m t) by the Taylor series of m t / 2^10, squared ten times.
local function expm(m, t)
  local n, e, power = #m, {}, {}
  local x = {}
  for i = 1, n do
    e[i], power[i], x[i] = {}, {}, {}
    for j = 1, n do
      x[i][j] = m[i][j] * t / 1024
      e[i][j] = i == j and 1 or 0
      power[i][j] = e[i][j]
    end
  end
  for k = 1, 16 do
    power = multiply(power, x)
    for i = 1, n do
      for j = 1, n do
        power[i][j] = power[i][j] / k
        e[i][j] = e[i][j] + power[i][j]
      end
    end
  end
  for _ = 1, 10 do e = multiply(e, e) end
  return e
end

-- z' = A z, L = w . z(T): dL/dA is the integral of a z', a block of exp of [A', w z0'; 0, A'] (Van Loan 1978).
function oracle.G5(T)
  local A = { { -0.3, 1.1, 0.2 }, { -0.9, 0.1, -0.4 }, { 0.3, 0.5, -0.2 } }
  local z0, w, n = { 1, -0.5, 2 }, { 0.7, -1.2, 0.4 }, 3
  local m = {}
  for i = 1, n do
    m[i], m[i + n] = {}, {}
    for j = 1, n do
      m[i][j], m[i][j + n], m[i + n][j], m[i + n][j + n] = A[j][i], w[i] * z0[j], 0, A[j][i]
    end
  end
  local e, dA, dz = expm(m, T), {}, {}
  for i = 1, n do
    dA[i], dz[i] = {}, 0
    for j = 1, n do
      dA[i][j] = e[i][j + n]
      dz[i] = dz[i] + e[i][j] * w[j]
    end
  end
  local p, weights = { A = leaf(A), z0 = leaf(z0) }, vector(w)
  return { leaves = p, z0 = p.z0, t = { 0, T }, f = function(_, z) return p.A:matmul(z) end,
    loss = function(z) return (weights * z[2]):sum() end, exact = { A = dA, z0 = dz } }
end

-- x' = mu t - theta x: the drift of the paper's Ornstein-Uhlenbeck process.
function oracle.G6(T)
  local mu, th, x0 = 0.2, 0.1, -1.7
  local e = math.exp(-th * T)
  local p = { mu = leaf(mu), theta = leaf(th), z0 = leaf { x0 }, t = leaf { 0, T } }
  local slope = mu * T - th * (x0 * e + mu * (T / th - (1 - e) / th ^ 2))
  return { leaves = p, z0 = p.z0, t = p.t, f = function(t, z) return p.mu * t - p.theta * z end,
    loss = function(z) return z[2]:sum() end,
    exact = { mu = T / th - (1 - e) / th ^ 2, z0 = { e },
      theta = -T * x0 * e + mu * (-T / th ^ 2 + 2 * (1 - e) / th ^ 3 - T * e / th ^ 2),
      t = { th * x0 * e, slope } } }       -- x'(0) = -theta x0, carried to T by e
end

-- y' = a + (y - (a t + b))^5 on the solution y = a t + b.
function oracle.G7(T)
  local p = { a = leaf(0.2), b = leaf(3), z0 = leaf { 3 } }
  return { leaves = p, z0 = p.z0, t = { 0, T }, f = function(t, z) return p.a + (z - (p.a * t + p.b)) ^ 5 end,
    loss = function(z) return z[2]:sum() end, exact = { a = T, b = 0, z0 = { 1 } } }
end

-- Lotka-Volterra, L = |1 - u(T)|^2 / 2, T = 1 or 10; quadruple precision.
local lotka = {
  [1] = { p = { 4.341147542533406571, -2.000933816791804629, 1.010120676762906017, -1.395594326733801850 },
    z0 = { 3.520256895266154827, -2.192713376465072008 } },
  [10] = { p = { 0.6219615855512808841, 0.06800140415087433656, 0.1691764639958928173, 0.2725606939500075051 },
    z0 = { 0.2995995083036823018, -0.01415181634485350553 } },
}
function oracle.G8(T)
  local p = { p = leaf { 1.5, 1, 3, 1 }, z0 = leaf { 1, 1 } }
  return { leaves = p, z0 = p.z0, t = { 0, T }, exact = lotka[T],
    f = function(_, u)
      local xy = u[1] * u[2]
      return gq.stack({ p.p[1] * u[1] - p.p[2] * xy, p.p[4] * xy - p.p[3] * u[2] }, 1)
    end,
    loss = function(z) return 0.5 * ((1 - z[2]) ^ 2):sum() end }
end

-- Van der Pol, mu = 1, L = x(20); quadruple precision. Backwards it blows up.
function oracle.G9()
  local p = { mu = leaf(1), z0 = leaf { 2, 0 } }
  return { leaves = p, z0 = p.z0, t = { 0, 20 },
    f = function(_, z) return gq.stack({ z[2], p.mu * (1 - z[1] ^ 2) * z[2] - z[1] }, 1) end,
    loss = function(z) return z[2][1] end,
    exact = { mu = 0.1058186370170661587, z0 = { 0.05764346825711547701, 0.02125443763660107349 } } }
end

-- Relative error of all of an oracle's gradients together, the errors by leaf, and info.
function problems.gradient_error(case, options)
  local z, info = gq.odeint(case.f, case.z0, case.t, options)
  case.loss(z):backward()
  local errors, worst = {}, 0
  for name, x in pairs(case.leaves) do
    local got, want = x.grad:totable(), case.exact[name]
    if type(got) ~= "table" then got, want = { got }, { want } end
    local d, w = 0, 0
    for i, g in ipairs(problems.flat(got)) do
      local v = problems.flat(want)[i]
      d, w = d + (g - v) ^ 2, w + v ^ 2
    end
    errors[name] = math.sqrt(d) / (w > 0 and math.sqrt(w) or 1)
    worst = errors[name] == errors[name] and math.max(worst, errors[name]) or math.huge
  end
  return worst, info, errors
end

-- G2 to t = 10, where no solve sees w: dL/dtheta, what it should be, and info.
function problems.hidden(w, options)
  local case = oracle.G2(w, 10)
  local z, info = gq.odeint(case.f, case.z0, case.t, options)
  case.loss(z):backward()
  return case.leaves.theta.grad:item(), case.exact.theta, info
end

problems.flat = helper.flatten

return problems
