-- sdeint.lua -- gq.sdeint where there is more to it than one tensor: states of several tensors, the path KL of two
-- SDEs with one diffusion (logqp), and noise whose word is not taken. Stage by stage the problem {sde, z0, t, opts}
-- becomes one that the core knows, as in solve.lua.

local gq = ...

local core = gq.core
local describe, fail = core.describe, core.fail

local function zeros(like, shape) return gq.zeros(shape, { dtype = like.dtype }) end

local but_last <const> = "diagonal (with logqp)"
local matrix = { additive = true, general = true, commutative = true }

-- ---- states of several tensors ----

-- The diffusions {.., d_i, m} of the tensors one under another.
local function stack(layout, list)
  local flat = {}
  if type(list) ~= "table" or rawlen(list) ~= #layout.parts then
    fail(("the diffusion of gq.sdeint gives a sequence of %d tensors, as the state has, got %s"):format(#layout.parts,
      describe(list)))
  end
  for i, part in ipairs(layout.parts) do
    local g = list[i]
    if not gq.is_tensor(g) or g:dim() ~= #part.shape + 1 then
      fail(("the diffusion of gq.sdeint gave %s as its element %d; with m columns of noise a tensor {%s, m} expected")
        :format(describe(g), i, table.concat(part.shape, ", ")))
    end
    local m = g.shape[g:dim()]
    flat[i] = g:reshape(layout.rows and { layout.rows, part.size, m } or { part.size, m })
  end
  return gq.cat(flat, layout.rows and 2 or 1)
end

local function several(p)
  if gq.is_tensor(p.z0) then return end
  local sde, layout, noise = p.sde, core.layout(p.z0, "gq.sdeint"), core.layout(p.z0, "gq.sdeint")
  layout.what, noise.what = "the drift of gq.sdeint ", "the diffusion of gq.sdeint "
  p.z0 = layout:pack(p.z0)
  p.sde = sde:with {
    drift = layout:field(sde.drift),
    prior_drift = sde.prior_drift and layout:field(sde.prior_drift),
    diffusion = not matrix[sde.noise] and noise:field(sde.diffusion)
      or function(t, z) return stack(noise, sde.diffusion(t, noise:unpack(z))) end,
  }
  return function(r) r.z = layout:unpack(r.z, #r.z) end
end

-- ---- noise that is said to commute ----

-- (dG u/dz) G v - (dG v/dz) G u is zero for all u and v: looked at where the solve starts.
local function commutes(p)
  if p.sde.noise ~= "commutative" then return end
  local t0 = gq.is_tensor(p.t) and p.t:totable() or p.t
  if type(t0) ~= "table" or type(t0[1]) ~= "number" then return end
  local z, t = p.z0:detach(), gq.tensor(t0[1], { dtype = p.z0.dtype })
  local m = p.sde.diffusion(t, z)
  m = gq.is_tensor(m) and m:dim() > 1 and m.shape[m:dim()] or 0
  if m < 2 then return end
  local function along(seed)
    local way = gq.randn(m, { seed = seed, dtype = z.dtype })
    return function(x) return (p.sde.diffusion(t, x) * way):sum(-1) end
  end
  local u, v = along(1), along(2)
  local way = v(z):detach()
  if way:dim() ~= z:dim() or z:numel() == 0 then return end        -- {d, m}: free of z
  local one, two = gq.jvp(u, z, way), gq.jvp(v, z, u(z):detach())
  local size, off = (one:abs() + two:abs()):max():item(), (one - two):abs():max():item()
  if off > (z.dtype == "float64" and 1e-8 or 1e-3) * size then
    fail(("gq.sdeint: the noise is said to be commutative, and at the start (dg_i/dz) g_j and (dg_j/dz) g_i differ " ..
      "by %.3g of %.3g: say noise = \"general\""):format(off, size))
  end
end

-- ---- the path KL ----

local TINY, MOST = 1e-7, 8        -- a diffusion is singular below; matrices up to this size are solved in the dynamics

-- Entry i of the last dimension but `behind`.
local function entry(x, i, behind) return x:narrow(x:dim() - behind, i, 1):squeeze(x:dim() - behind) end

-- x of M x = b for a list of lists M, symmetric and positive, by Cholesky; NaN where it is singular.
local function solve(M, b)
  local n, L, top = #b, {}, nil
  for i = 1, n do top = top and gq.maximum(top, M[i][i]) or M[i][i] end
  local least = top * (top.dtype == "float64" and TINY * TINY or 1e-6)
  for i = 1, n do
    L[i] = {}
    for j = 1, i do
      local s = M[i][j]
      for k = 1, j - 1 do s = s - L[i][k] * L[j][k] end
      L[i][j] = i == j and gq.sqrt(gq.where(s:gt(least), s, 0 / 0)) or s / L[j][j]
    end
  end
  local y = {}
  for i = 1, n do
    y[i] = b[i]
    for k = 1, i - 1 do y[i] = y[i] - L[i][k] * y[k] end
    y[i] = y[i] / L[i][i]
  end
  for i = n, 1, -1 do
    for k = i + 1, n do y[i] = y[i] - L[k][i] * y[k] end
    y[i] = y[i] / L[i][i]
  end
  return y
end

local function dot(a, b)
  local s = 0
  for i = 1, #a do s = s + a[i] * b[i] end
  return s
end

-- |u|^2 for the shortest u with g u = r: r {.., d}, g {.., d, m}; NaN where g is singular, or r not in its range.
local function shortest(r, g)
  local d, m = r.shape[r:dim()], g.shape[g:dim()]
  if math.min(d, m) > MOST then
    fail(("gq.sdeint: logqp of a diffusion {.., %d, %d}: matrices up to %d are solved; diagonal noise has no limit")
      :format(d, m, MOST))
  end
  local rows, columns, rest = {}, {}, {}
  for i = 1, d do
    rest[i], rows[i] = entry(r, i, 0), {}
    for j = 1, m do
      rows[i][j] = entry(entry(g, i, 1), j, 0)
      columns[j] = columns[j] or {}
      columns[j][i] = rows[i][j]
    end
  end
  local wide = m >= d
  local by, M, b = wide and rows or columns, {}, wide and rest or {}
  for i = 1, #by do
    M[i] = {}
    for j = 1, i do M[i][j] = dot(by[i], by[j]) end
    if not wide then b[i] = dot(by[i], rest) end
  end
  local x = solve(M, b)
  if wide then return dot(x, b) end
  local off, size = 0, 0
  for i = 1, d do
    local left = rest[i] - dot(rows[i], x)
    off, size = off + left * left, size + rest[i] * rest[i]
  end
  local slack = r.dtype == "float64" and 1e-12 or 1e-5
  return gq.where(off:le(size * slack), dot(x, x), 0 / 0)
end

-- 1/2 |u|^2 a row, with g u = f - h.
local function rate(noise, r, g, shape)
  if noise == "diagonal" then
    local flat, top = r:reshape(shape), g:abs():reshape(shape)
    local own = g:reshape(shape)
    own = gq.where(top:gt(top:max(#shape, true) * TINY), own, 0 / 0)
    local u = flat / own
    return (u * u):sum(#shape, true) * 0.5
  end
  if noise == "scalar" and g:dim() == r:dim() then g = g:unsqueeze(-1) end
  return shortest(r, g):unsqueeze(-1) * 0.5
end

-- The diffusion of [z, KL]: nothing moves the last number. noise: as it is then, of as many W's as before.
local function beside(noise, diagonal, g, z, shape)
  local rows = #shape > 1 and shape[1] or nil
  local D, behind = shape[#shape], rows and { rows, 1 } or { 1 }
  if not matrix[noise] then return gq.cat({ g:reshape(shape), zeros(z, behind) }, #shape) end
  if diagonal then
    g = g:reshape(shape):unsqueeze(-1) * gq.eye(D, { dtype = z.dtype })
  end
  local m = g.shape[g:dim()]
  behind[#behind + 1] = m
  if rows and g:dim() == 2 then g = g:expand(rows, D, m) end
  return gq.cat({ g, zeros(z, behind) }, #shape)
end

local function check_logqp(p)
  local what = "gq.sdeint: logqp = true: "
  if not p.sde.prior_drift then
    fail(what .. "the SDE has no prior_drift: give gq.sde{prior_drift = h} what its drift is compared with")
  end
  if not gq.is_tensor(p.z0) then fail(what .. "z0 is " .. describe(p.z0)) end
  if p.z0:dim() == 0 or p.z0:dim() > 2 and matrix[p.sde.noise] then
    fail(what .. "a state {batch, d} or {d} expected, got " .. describe(p.z0))
  end
end

local hint = " (logqp divides by the diffusion: it may not be singular, and drift - prior_drift must lie in its range)"

local function path_kl(p)
  local sde, on = p.sde, type(p.opts) == "table" and p.opts.logqp
  if not on then return end
  if on ~= true then fail("gq.sdeint: logqp: true or false expected, got " .. describe(on)) end
  check_logqp(p)
  local z0 = p.z0
  local rows = z0:dim() > 1 and z0.shape[1] or nil
  local D = 1
  for i = rows and 2 or 1, z0:dim() do D = D * z0.shape[i] end
  local shape = rows and { rows, D } or { D }
  local kl = rows and { rows, 1 } or { 1 }
  local function z_of(y) return y:narrow(#shape, 1, D):reshape(z0.shape) end
  local function rate_at(t, z)
    local f, h, g = sde.drift(t, z), sde.prior_drift(t, z), sde.diffusion(t, z)
    if D == 0 then return f, zeros(z, kl) end
    return f, rate(sde.noise, f - h, g, shape):reshape(kl)
  end
  local times, noise = gq.is_tensor(p.t) and p.t:totable() or p.t, sde.noise
  if type(times) == "table" and type(times[1]) == "number" then
    local t0 = gq.tensor(times[1], { dtype = z0.dtype })
    local _, first = rate_at(t0, z0:detach())
    local sum = first:sum():item()
    if sum ~= sum or sum == math.huge then
      fail(("gq.sdeint: at t = %g the path KL is not finite%s"):format(times[1], hint))
    end
    if noise == "diagonal" then
      local function both(t, z) return sde.drift(t, z), sde.diffusion(t, z) end
      noise = core.own(both, t0, z0:detach()) and but_last or "general"
    end
  end
  p.z0 = gq.cat({ z0:reshape(shape), zeros(z0, kl) }, #shape)
  p.sde = sde:with {
    drift = function(t, y)
      local f, q = rate_at(t, z_of(y))
      return gq.cat({ f:reshape(shape), q }, #shape)
    end,
    diffusion = function(t, y) return beside(noise, sde.noise == "diagonal", sde.diffusion(t, z_of(y)), y, shape) end,
    noise = noise,
  }
  p.hint = hint
  return function(r)
    local n, all = #r.z, r.z
    r.z = all:narrow(#shape + 1, 1, D):reshape { n, table.unpack(z0.shape) }
    local q = all:narrow(#shape + 1, D + 1, 1):reshape(rows and { n, rows } or { n })
    r.info.logqp = q:narrow(1, 2, n - 1) - q:narrow(1, 1, n - 1)
  end
end

-- ---- solving ----

-- gq.sdeint's part in Lua: bindings/l_sde.c calls it.
function core.sdeint(sde, z0, t, opts)
  local p, back = { sde = sde, z0 = z0, t = core.joined(t), opts = opts }, {}
  if getmetatable(sde) == core.Sde and type(opts) == "table" then
    back[#back + 1] = several(p)
    commutes(p)
    back[#back + 1] = path_kl(p)
  end
  local r = {}
  if p.hint then
    local ok, problem = pcall(function() r.z, r.info = core.solve_sde(p.sde, p.z0, p.t, p.opts) end)
    if not ok then error(core.status_of(problem) == "non_finite" and problem .. p.hint or problem, 0) end
  else
    r.z, r.info = core.solve_sde(p.sde, p.z0, p.t, p.opts)
  end
  for i = #back, 1, -1 do back[i](r) end
  return r.z, r.info
end
