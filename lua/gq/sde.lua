-- sde.lua -- stochastic differential equations: gq.sde, gq.wong_zakai. Paths and solves are l_sde.c's.

local gq = ...
local core = gq.core

local noises, calculi = { "diagonal", "scalar", "additive", "general", "commutative" }, { "stratonovich", "ito" }

local function place(list, name)
  for i, x in ipairs(list) do
    if x == name then return i end
  end
end

-- ---- the equation ----

-- dz = f(t, z) dt + g(t, z) dW, or o dW with calculus = "stratonovich".
local Sde = {}
Sde.__index = Sde
Sde.__name = "gq.sde"

-- Parameters of drift and diffusion where they are modules; each once.
function Sde:parameters()
  local list, seen = {}, {}
  for _, f in pairs { self.drift, self.diffusion, self.prior_drift } do
    if type(f) == "table" and f.parameters then
      for _, p in ipairs(f:parameters()) do
        if not seen[p] then
          seen[p] = true
          list[#list + 1] = p
        end
      end
    end
  end
  return list
end

-- The same with changes.
function Sde:with(changes) return setmetatable(core.copy(self, changes), Sde) end

core.Sde = Sde

function Sde:__tostring()
  return ("sde: %s noise, %s"):format(self.noise, self.calculus)
end

function gq.sde(o)
  local what = "gq.sde"
  core.options(o, "drift diffusion noise calculus prior_drift", what)
  o = o or {}
  return setmetatable({
    drift = core.need(o, "drift", "callable", nil, what),
    diffusion = core.need(o, "diffusion", "callable", nil, what),
    prior_drift = o.prior_drift ~= nil and core.need(o, "prior_drift", "callable", nil, what) or nil,
    noise = core.one_of(o, "noise", noises, what),
    calculus = core.one_of(o, "calculus", calculi, what),
  }, Sde)
end

-- ---- Langevin ----

-- dx = v dt, dv = -gamma v dt - u grad(x) dt + sqrt(2 gamma u) dW for z = [x, v] in its last dimension. `langevin`
-- gives what methods made for it evaluate: [gamma, -u grad(x)].
function gq.langevin(o)
  local what = "gq.langevin"
  core.options(o, "grad gamma u", what)
  o = o or {}
  local grad = core.need(o, "grad", "callable", nil, what)
  local gamma, u = core.need(o, "gamma", "number|tensor", 1, what), core.need(o, "u", "number|tensor", 1, what)
  for name, x in pairs { gamma = gamma, u = u } do
    if type(x) == "number" and not (x > 0 and x < math.huge) then
      error(("%s: %s: a positive number expected, got %g"):format(what, name, x), 2)
    end
  end
  local function parts(z)
    local n = z:dim() > 0 and z.shape[z:dim()] or 1
    if n % 2 == 1 then
      core.fail(("%s: the state holds [x, v] in its last dimension, of an even size, got {%s}"):format(what,
        table.concat(z.shape, ", ")))
    end
    return z:narrow(-1, 1, n // 2), z:narrow(-1, n // 2 + 1, n // 2), n // 2
  end
  local function force(t, x)
    local g = grad(x, t)
    if not gq.is_tensor(g) or not core.same_shape(g, x) then
      core.fail(("%s: grad gave %s: a tensor like x expected, %s"):format(what, core.describe(g), core.dims(x.shape)))
    end
    return g * -u
  end
  local sde = gq.sde {
    noise = "additive",
    drift = function(t, z)
      local x, v = parts(z)
      return gq.cat({ v, force(t, x) - gamma * v }, z:dim())
    end,
    diffusion = function(_, z)
      local _, _, d = parts(z)
      local rho = gq.sqrt(2 * gamma * u + gq.zeros(d, { dtype = z.dtype }))
      return gq.cat({ gq.zeros(d, d, { dtype = z.dtype }), rho:unsqueeze(-1) * gq.eye(d, { dtype = z.dtype }) }, 1)
    end,
  }
  function sde.langevin(t, z)
    local x = parts(z)
    return gq.cat({ gamma + 0 * x, force(t, x) }, z:dim())
  end
  function sde:parameters() return type(grad) == "table" and grad.parameters and grad:parameters() or {} end
  return sde
end

-- ---- Wong-Zakai: an SDE as an ODE over smooth noise ----

-- dz/dt = f(t, z) + g(t, z) dB/dt with the Karhunen-Loeve sum of eq. (15),
--   dB/dt = sqrt(2 / c) sum_i xi_i cos((i - 1/2) pi (t - t0) / c),  c = t1 - t0,
-- or the polynomials of Foster, Lyons & Oberhauser (SIAM J. Numer. Anal. 58, 2020), which end where W does,
--   dB/dt = sum_i sqrt((2 i - 1) / c) xi_i P_(i-1)(2 (t - t0) / c - 1),
-- or lines between the m + 1 ends of equal pieces, dB/dt = sqrt(m / c) xi_i in piece i, which is W there:
-- a {1, m} row of them by xi, so that one small product serves the whole state. Each has a square of integral 1, so
-- that of a given path xi_i is its integral against dW.
local Field = {}
Field.__index = Field
Field.__name = "gq.wong_zakai"

-- (i - 1/2) pi / c and sqrt(2 / c) as z's numbers are, made once.
local function basis(self, z)
  local name = z.dtype .. z.device
  local b = self._basis[name]
  if b then return b end
  local c, w = self.t1 - self.t0, {}
  for i = 1, self.cosines do w[i] = (i - 0.5) * math.pi / c end
  b = gq.tensor({ w }, { dtype = z.dtype, device = z.device })
  self._basis[name] = b
  return b
end

local function cosine_row(self, t, z)
  return gq.cos(basis(self, z) * (t - self.t0)) * math.sqrt(2 / (self.t1 - self.t0))
end

-- Legendre's polynomials by their recurrence.
local function polynomial_row(self, t, z)
  local c = self.t1 - self.t0
  t = gq.is_tensor(t) and t or gq.tensor(t, { dtype = z.dtype, device = z.device })
  local x, row = (t - self.t0) * (2 / c) - 1, {}
  local before, now = nil, 0 * x + 1
  for i = 1, self.cosines do
    row[i] = now * math.sqrt((2 * i - 1) / c)
    before, now = now, before and (x * now * (2 * i - 1) - before * (i - 1)) / i or x
  end
  return gq.stack(row, 1):reshape { 1, self.cosines }
end

-- Where the pieces begin and end, as the solver's times are rounded: between them dB/dt jumps.
local function edges(self)
  local list, m = {}, self.cosines
  for i = 1, m - 1 do list[i] = self.t0 + (self.t1 - self.t0) * i / m end
  return list
end

local function piece_row(self, t, z)
  local name, m = "ends" .. z.dtype .. z.device, self.cosines
  local b = self._basis[name]
  t = gq.is_tensor(t) and t or gq.tensor(t, { dtype = z.dtype, device = z.device })
  if not b then
    local inner = edges(self)
    local from, to = { -math.huge, table.unpack(inner) }, { table.unpack(inner) }
    to[m] = math.huge
    local o = { dtype = z.dtype, device = z.device }
    b = { gq.tensor({ from }, o), gq.tensor({ to }, o) }
    self._basis[name] = b
  end
  return gq.where(t:lt(b[1]), 0 * t, gq.where(t:lt(b[2]), 0 * t + math.sqrt(m / (self.t1 - self.t0)), 0 * t))
end

local names = { ["karhunen-loeve"] = "cosines", polynomial = "polynomials", ["piecewise-linear"] = "pieces" }
local expansions = { ["karhunen-loeve"] = cosine_row, polynomial = polynomial_row, ["piecewise-linear"] = piece_row }

-- The root of the mean square, over the interval and draws, of what m terms leave of W.
local rest_of = {
  ["karhunen-loeve"] = function(m)
    local s = 0.5
    for i = 1, m do s = s - 1 / ((i - 0.5) * math.pi) ^ 2 end
    return math.max(s, 0)
  end,
  polynomial = function(m) return m == 0 and 0.5 or (1 / (2 * m - 1) + 1 / (2 * m + 1)) / 8 end,
  ["piecewise-linear"] = function(m) return m == 0 and 0.5 or 1 / (6 * m) end,
}

-- ---- and a path ----

local function is_path(x)
  local meta = type(x) == "userdata" and getmetatable(x)
  return type(meta) == "table" and meta.__name == "gq.brownian"
end

local function check_path(self, path, what)
  if not is_path(path) then
    error(("%s: brownian is %s: a path of gq.brownian expected"):format(what, core.describe(path)), 3)
  end
  if path.t0 > self.t0 or path.t1 < self.t1 then
    error(("%s: the Brownian path lives on [%g, %g], the noise on [%g, %g]"):format(what, path.t0, path.t1, self.t0,
      self.t1), 3)
  end
  return path
end

local PIECES <const> = 32       -- of a path for each term: what integrals against it are sums over

-- W less W(t0) at the ends of pieces {N + 1, ...}, and the terms in their middles {N, m}, of the path's dtype.
local function sampled(self, path)
  local from, to, rows, N = {}, {}, {}, self.cosines * PIECES
  local like = { dtype = path.dtype, device = path.device }
  for j = 0, N do from[j + 1], to[j + 1] = self.t0, self.t0 + (self.t1 - self.t0) * (j / N) end
  for j = 1, N do rows[j] = expansions[self.expansion](self, self.t0 + (self.t1 - self.t0) * (j - 0.5) / N, like) end
  return path(from, to), gq.cat(rows, 1)
end

-- xi {m, ...} of the path: its integrals against the terms.
local function coefficients(self, path)
  if self.cosines == 0 then return nil end
  local w, terms = sampled(self, path)
  local N = #terms
  local dw = (w:narrow(1, 2, N) - w:narrow(1, 1, N)):reshape(N, -1)
  return terms:t():matmul(dw):reshape { self.cosines, table.unpack(path.shape) }
end

-- The draw for noise of one shape: given, or made at first need and kept until redraw.
local function draw(self, shape, z)
  local want = { self.cosines, table.unpack(shape) }
  local name = table.concat(want, ",")
  if self.xi then
    if table.concat(self.xi.shape, ",") ~= name then
      core.fail(("gq.wong_zakai: xi%s has shape {%s}: this state and noise need {%s}"):format(
        self.brownian and " of the Brownian path" or "", table.concat(self.xi.shape, ", "),
        table.concat(want, ", ")))
    end
    return self.brownian and self.xi:to(z.dtype):to(z.device) or self.xi
  end
  name = name .. z.dtype .. z.device
  local xi = self._draws[name]
  if not xi then
    xi = core.cosines(self.seed, self.cosines, shape, z.dtype):to(z.device)
    self._draws[name] = xi
  end
  return xi
end

-- Without a path what is to be expected.
function Field:error(path)
  if path == nil then return math.sqrt(rest_of[self.expansion](self.cosines) * (self.t1 - self.t0)) end
  check_path(self, path, "gq.wong_zakai:error")
  if self.cosines == 0 then error("gq.wong_zakai:error: no cosines, no noise to compare with a path", 2) end
  local w, terms = sampled(self, path)
  local xi = draw(self, path.shape, terms):to(path.device)
  local N = #terms
  local steps = terms:matmul(xi:reshape(self.cosines, -1)) * ((self.t1 - self.t0) / N)
  return (steps:cumsum(1) - w:narrow(1, 2, N):reshape(N, -1)):square():mean():item() ^ 0.5
end

-- t, which may miss an end by rounding alone. A traced time that is not the solver's own is NaN where it does more.
local function within(self, t)
  local t0, t1, slack = self.t0, self.t1, 2^-21 * math.max(math.abs(self.t0), math.abs(self.t1))
  local known = core.known_within(t, t0, t1, slack)
  if known == nil then return gq.where(t:lt(t0 - slack), 0 / 0, gq.where(t:gt(t1 + slack), 0 / 0, t)) end
  if known then return t end
  core.fail(("gq.wong_zakai: t = %.9g is outside of [%.9g, %.9g], where the noise lives"):format(
    gq.is_tensor(t) and t:item() or t, t0, t1))
end

-- dB/dt at t, of a shape {rows, ...} with D numbers a row: {1, m} by {m, rows}, or by {D, m, rows}, so that
-- rows stay an axis of their own and every thread can take its share of them.
local function noise(self, t, shape, z)
  local m, rows = self.cosines, shape[1] or 1
  local D, xi = 1, draw(self, shape, z)
  for i = 2, #shape do D = D * shape[i] end
  local row = expansions[self.expansion](self, t, z)
  if D == 1 then return row:matmul(xi:reshape { m, rows }):reshape(shape) end
  local by_row = xi:reshape { m, rows, D }:permute(3, 1, 2)
  return row:matmul(by_row):reshape { D, rows }:transpose(1, 2):reshape(shape)
end

local function scalar_shape(z)
  local shape = z.shape
  if #shape > 0 then shape[#shape] = 1 end
  return shape
end

-- g dB/dt for g {.., d, m} or {d, m}: dB/dt has shape {.., m}.
local function matrix_product(self, g, t, z)
  local shape = z.shape
  if #shape == 0 or g:dim() < 2 then
    core.fail(("gq.wong_zakai: the diffusion has shape {%s}: %s noise needs {.., d, m}"):format(
      table.concat(g.shape, ", "), self.sde.noise))
  end
  local m = g.shape[g:dim()]
  shape[#shape] = m
  local b = noise(self, t, shape, z):unsqueeze(#shape)
  return (g * b):sum(#shape + 1)
end

local function product(self, g, t, z)
  local kind = self.sde.noise
  if kind ~= "diagonal" and kind ~= "scalar" then return matrix_product(self, g, t, z) end
  if kind == "diagonal" then return g * noise(self, t, z.shape, z) end
  if g:dim() == z:dim() + 1 then g = g:squeeze(-1) end
  return g * noise(self, t, scalar_shape(z), z)
end

-- Smooth noise converges to the Stratonovich solution: the drift of an Ito SDE loses its correction.
function Field:__call(t, z)
  if not gq.is_tensor(z) then
    core.fail(("gq.wong_zakai: a state of one tensor expected, got %s: join several by gq.cat, and take them apart in "
      .. "drift and diffusion by narrow"):format(core.describe(z)))
  end
  local ito, f, g = self.sde.calculus == "ito", nil, nil
  if ito then f, g = core.stratonovich(self._both, t, z, self._noise) end
  f = f or self.sde.drift(t, z)
  if self.cosines == 0 then return f end
  return f + product(self, g or self.sde.diffusion(t, z), within(self, t), z)
end

-- A new draw: along a path, of `seed`, or of the next seed of gq.manual_seed's generator. Returns itself.
function Field:redraw(of)
  self.brownian = is_path(of) and check_path(self, of, "gq.wong_zakai:redraw") or nil
  self.seed = not self.brownian and core.seed(of) or nil
  self.xi, self._draws = self.brownian and coefficients(self, of), {}
  return self
end

function Field:parameters() return self.sde:parameters() end

function Field:__tostring()
  return ("wong_zakai: %d %s on [%g, %g]"):format(self.cosines, names[self.expansion], self.t0, self.t1)
end

local function check_xi(o, what)
  local xi = core.need(o, "xi", "tensor", nil, what)
  if #xi.shape < 1 then error(what .. ": xi: shape {cosines, ...} expected, got a single number", 3) end
  if o.cosines and o.cosines ~= xi.shape[1] then
    error(("%s: xi holds %d cosines, but cosines = %s"):format(what, xi.shape[1], tostring(o.cosines)), 3)
  end
  if o.seed then error(what .. ": give xi or seed, not both", 3) end
  return xi, xi.shape[1]
end

function gq.wong_zakai(sde, o)
  local what = "gq.wong_zakai"
  if getmetatable(sde) ~= Sde then
    error(("%s: %s given: an SDE made by gq.sde{drift, diffusion} expected"):format(what, core.describe(sde)), 2)
  end
  core.options(o, "cosines t0 t1 seed xi expansion brownian", what)
  o = o or {}
  local expansion = core.one_of(o, "expansion", { "karhunen-loeve", "polynomial", "piecewise-linear" }, what)
  local t0, t1 = core.need(o, "t0", "number", nil, what), core.need(o, "t1", "number", nil, what)
  if not (t1 > t0 and t1 - t0 < math.huge) then
    error(("%s: t0 is %s and t1 is %s: two times expected, the first one smaller"):format(what, t0, t1), 2)
  end
  local self = { sde = sde, t0 = t0, t1 = t1, expansion = expansion, _basis = {}, _draws = {},
    _noise = place(noises, sde.noise) }
  function self._both(t, z) return sde.drift(t, z), sde.diffusion(t, z) end
  if o.xi ~= nil then
    self.xi, self.cosines = check_xi(o, what)
  else
    self.cosines = core.need(o, "cosines", "integer", 10, what)
    if self.cosines < 0 then error(what .. ": cosines: an integer of at least 0 expected", 2) end
    self.brownian = o.brownian ~= nil and check_path(self, o.brownian, what) or nil
    self.xi = self.brownian and coefficients(self, self.brownian)
    self.seed = not self.brownian and core.seed(o.seed and core.need(o, "seed", "integer", nil, what)) or nil
  end
  for _, other in ipairs { "xi", "seed" } do
    if o.brownian and o[other] then error(("%s: give brownian or %s, not both"):format(what, other), 2) end
  end
  if expansion == "piecewise-linear" then self.grid_points = edges(self) end
  return setmetatable(self, Field)
end

gq.docs[gq.sde] = "gq.sde{drift = f, diffusion = g, noise = 'diagonal'|'scalar'|'additive'|'general'|'commutative', "
  .. "calculus = 'stratonovich'|'ito'}: dz = f(t, z) dt + g(t, z) dW, for gq.sdeint and gq.wong_zakai; "
  .. "prior_drift = h: the drift that logqp compares f with; ?sdes"
gq.docs[gq.langevin] = "gq.langevin{grad = function(x, t), gamma = 1, u = 1}: the Langevin SDE dx = v dt, "
  .. "dv = -gamma v dt - u grad(x) dt + sqrt(2 gamma u) dW for z = [x, v] in its last dimension, W {.., d}; methods "
  .. "align, should and quicsort of gq.sdeint are made for it, others take it as additive noise"
gq.docs[gq.wong_zakai] = "gq.wong_zakai(sde, {cosines = 10, t0, t1, seed | xi | brownian, expansion}): dynamics for "
  .. "gq.odeint over smooth noise, those of an Ito SDE with its correction; :redraw(seed) for the next training step. "
  .. "expansion: 'karhunen-loeve', 'polynomial' (as many polynomials as cosines says, ends where W does) or "
  .. "'piecewise-linear' (as many pieces; W at their ends, which are its grid_points: solves stop there). brownian = "
  .. "path: along that path of gq.brownian. :error() is the root mean square of what an expansion leaves of W, "
  .. ":error(path) of what this draw misses of that path. 10 cosines are the paper's; what they leave out biases what "
  .. "is learnt (its OU example: mean gradients 4.4 % off those along Brownian paths, 1.1 % with 40; polynomials 3.3 "
  .. "and 0.8 %). The times of gq.odeint have gradients, which white noise "
  .. "has not"
