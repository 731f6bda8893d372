-- flow.lua -- continuous normalising flows (Chen et al. 2018; FFJORD: Grathwohl et al. 2019).
--
--   nn.CNF(net)                  dynamics of {z, delta}: dz/dt = net(t, z), d delta/dt = -tr(d net/d z)
--   gq.flow{ net =, dim = 2 }    the distribution of z(1) where z(0) is normal: log_prob(x), sample(n)
--
-- Both are modules. Entries of dimension 1 are samples; the trace takes it that net treats each alone.

local gq = ...
local core = gq.core
local options, need, one_of, describe, fail = core.options, core.need, core.one_of, core.describe, core.fail
local is_float = core.is_float
local nn = gq.nn

local traces, noises = { "exact", "hutchinson" }, { "rademacher", "gaussian" }

local function text(shape) return table.concat(shape, ", ") end
-- ---- the trace of the Jacobian ----

-- The sum of dy_i/dz_i over the D numbers of a sample, {n}: D products with the Jacobian.
local function exact_trace(y, z)
  local n = z.shape[1]
  local rows, sum = y:reshape(n, z:numel() // n), nil
  for i = 1, rows.shape[2] do
    local g = gq.grad(rows:narrow(2, i, 1):sum(), z, { create_graph = true })
    local own = g:reshape(rows.shape):narrow(2, i, 1)
    sum = sum and sum + own or own
  end
  return sum:reshape(n)
end

-- e' J e, {n}, whose mean over probes e of covariance one is tr J (Hutchinson 1989): one product.
local function hutchinson_trace(y, z, probe)
  local n = z.shape[1]
  local g = gq.grad(y, z, { cotangents = probe, create_graph = true }) * probe
  return g:reshape(n, z:numel() // n):sum(2)
end

local function draw_probe(z, noise, seed)
  local o = { dtype = z.dtype, device = z.device, seed = seed }
  if noise == "gaussian" then return gq.randn(z.shape, o) end
  return gq.rand(z.shape, o):ge(0.5):to(z.dtype) * 2 - 1
end

local function check_probe(probe, z, what)
  if gq.is_tensor(probe) and probe.dtype == z.dtype and text(probe.shape) == text(z.shape) then return probe end
  error(("%s: probe: a tensor %s {%s} expected, as z has, got %s"):format(what, z.dtype, text(z.shape),
    describe(probe)))
end

-- ---- nn.CNF ----

local CNF = nn.Module:extend("CNF")
nn.CNF, CNF.time = CNF, true
gq.docs[CNF] = "nn.CNF(net [, {trace = \"exact\"|\"hutchinson\", noise = \"rademacher\"|\"gaussian\", probe}]): " ..
  "dynamics of a continuous normalising flow: f(t, {z, delta}) returns {net(t, z), -tr(d net/d z)}\n" ..
  "z {n, ...} are n samples that net treats one by one, delta {n} or {n, 1}: solved from 0 it is the change of log " ..
  "p(z(t)), for gq.odeint(cnf, {x, zeros}, {1, 0}): log p(x) = log p(z) - delta\n" ..
  "exact: D products with the Jacobian for samples of D numbers; hutchinson: one, with a random probe that is drawn " ..
  "anew for each solve, or that is given as a tensor of z's shape"

local function init_trace(self, o, what)
  rawset(self, "trace", one_of(o, "trace", traces, what))
  rawset(self, "noise", one_of(o, "noise", noises, what))
end

function CNF:init(net, opts)
  local what = "nn.CNF"
  need({ net = net }, "net", "callable", nil, what)
  local o = options(opts, "trace noise probe", what)
  self.net = net
  init_trace(self, o, what)
  if o.probe ~= nil then rawset(self, "probe", need(o, "probe", "tensor", nil, what)) end
end

function CNF:extra() return self.trace == "exact" and "exact" or self.trace .. ", " .. self.noise end

local function velocity(net, t, z)
  local y = net(t, z)
  if gq.is_tensor(y) and y.dtype == z.dtype and text(y.shape) == text(z.shape) then return y end
  error(("nn.CNF: net returns dz/dt, a tensor %s {%s}; got %s"):format(z.dtype, text(z.shape), describe(y)), 3)
end

local function check_state(state)
  local z, delta
  if type(state) == "table" then z, delta = state[1], state[2] end
  if is_float(z) and z:dim() >= 2 and z:numel() > 0 and gq.is_tensor(delta) and delta:numel() == z.shape[1] then
    return z, delta
  end
  error(("nn.CNF: a state {z, delta} of tensors {n, D} and {n} expected, got %s"):format(
    type(state) == "table" and ("{%s, %s}"):format(describe(z), describe(delta)) or describe(state)), 4)
end

function CNF:forward(t, state)
  local z, delta = check_state(state)
  if z.is_leaf and not z.requires_grad then         -- called outside of a solve
    z = z:detach()
    z.requires_grad = true
  end
  local y = velocity(self.net, t, z)
  if self.trace == "exact" then return { y, -exact_trace(y, z):reshape(delta.shape) } end
  local probe = self.probe and check_probe(self.probe, z, "nn.CNF") or draw_probe(z, self.noise)
  return { y, -hutchinson_trace(y, z, probe):reshape(delta.shape) }
end

-- ---- gq.flow ----

local Flow = nn.Module:extend("Flow")
gq.flow = Flow
gq.docs[Flow] = "gq.flow{ net, dim, trace = \"exact\"|\"hutchinson\", noise = \"rademacher\"|\"gaussian\", times = " ..
  "{0, 1}, solver = {gq.odeint's options} }: a distribution: z normal at times[1] moves by dz/dt = net(t, z) to x " ..
  "at times[2]; a module\n" ..
  "net: a module or function of (t, z) that treats samples one by one; dim: numbers a sample, or the sizes of one\n" ..
  "flow:log_prob(x [, {trace, noise, probe, seed}]) -> {n}, info: log densities of x {n, dim}, to be maximised\n" ..
  "flow:sample(n [, {seed, dtype}]) -> x, info: n samples, without gradients\n" ..
  "flow:inverse(x [, {trace, ...}]) -> z, log_det {n}, info; flow:forward(z [, ...]) -> x, log_det, info: the map " ..
  "and the logarithm of its Jacobian's determinant, both ways\n" ..
  "hutchinson: log_prob and log_det are unbiased estimates, with one probe a solve: drawn from noise (seed), or given"

local function read_sizes(o, what)
  local dim = need(o, "dim", "count|table", nil, what)
  if type(dim) == "number" then return { dim } end
  if #dim == 0 then fail(what .. ": option dim: at least one size expected") end
  local sizes = {}
  for i, n in ipairs(dim) do sizes[i] = need({ dim = n }, "dim", "count", nil, what) end
  return sizes
end

local function read_times(o, what)
  local t = need(o, "times", "table", { 0, 1 }, what)
  if #t ~= 2 or type(t[1]) ~= "number" or type(t[2]) ~= "number" or t[1] == t[2] then
    fail(what .. ": option times: two different numbers expected, where z and x are")
  end
  return { t[1], t[2] }
end

-- A density needs the whole way.
local function read_solver(o, what)
  local solver = need(o, "solver", "table", {}, what)
  if solver.event ~= nil or solver.throw == false then
    fail(what .. ": option solver: without event and throw = false, since densities need the whole way")
  end
  return solver
end

function Flow:init(opts)
  local what = "gq.flow"
  local o = options(opts, "net dim trace noise times solver", what)
  self.net = need(o, "net", "callable", nil, what)
  init_trace(self, o, what)
  rawset(self, "sizes", read_sizes(o, what))
  rawset(self, "times", read_times(o, what))
  rawset(self, "_solver", read_solver(o, what))         -- private: its tensors are no buffers
end

-- flow(z, {trace, ...}): neither is a time.
function Flow.__call(self, ...) return self:forward(...) end

function Flow:extra() return ("%s, {%s}"):format(self.trace, text(self.sizes)) end

local function check_samples(self, x, what)
  local shape = { "n", table.unpack(self.sizes) }
  if is_float(x) and x:dim() == #shape and x.shape[1] > 0 then
    shape[1] = x.shape[1]
    if text(x.shape) == text(shape) then return x end
  end
  shape[1] = "n"
  fail(("%s: samples {%s} expected, got %s"):format(what, text(shape), describe(x)))
end

-- The dynamics for one solve: its probe is drawn here, once.
local function dynamics(self, z, opts, what)
  local o = options(opts, "trace noise probe seed", what)
  local trace = one_of({ trace = o.trace or self.trace }, "trace", traces, what)
  local noise = one_of({ noise = o.noise or self.noise }, "noise", noises, what)
  if trace == "exact" then return CNF(self.net, { trace = trace }) end
  local seed = o.seed and need(o, "seed", "integer", nil, what)
  local probe = o.probe and check_probe(o.probe, z, what) or draw_probe(z, noise, seed)
  return CNF(self.net, { trace = trace, probe = probe })
end

-- z from times t[1] to t[2]: the state there, and delta {n}
local function carry(self, z, t, opts, what)
  check_samples(self, z, what)
  local start = { z, gq.zeros({ #z }, { dtype = z.dtype, device = z.device }) }
  local s, info = gq.odeint(dynamics(self, z, opts, what), start, t, self._solver)
  return s[1][2], s[2][2], info
end

local function backwards(t) return { t[2], t[1] } end

function Flow:forward(z, opts)
  local x, delta, info = carry(self, z, self.times, opts, "flow:forward")
  return x, -delta, info
end

function Flow:inverse(x, opts)
  local z, delta, info = carry(self, x, backwards(self.times), opts, "flow:inverse")
  return z, -delta, info
end

-- log N(z; 0, I), {n}
local function normal_log_prob(z)
  local n = z.shape[1]
  local D = z:numel() // n
  return z:square():reshape(n, D):sum(2) * -0.5 - 0.5 * D * math.log(2 * math.pi)
end

function Flow:log_prob(x, opts)
  local z, delta, info = carry(self, x, backwards(self.times), opts, "flow:log_prob")
  return normal_log_prob(z) - delta, info
end

-- As the first parameter is; for a net that is a plain function, the defaults.
local function like(self, o)
  local first = self:parameters()[1]
  return { dtype = o.dtype or first and first.dtype, device = first and first.device, seed = o.seed }
end

function Flow:sample(n, opts)
  local what = "flow:sample"
  n = need({ n = n }, "n", "count", nil, what)
  local o = options(opts, "seed dtype", what)
  if o.seed then need(o, "seed", "integer", nil, what) end
  local z = gq.randn({ n, table.unpack(self.sizes) }, like(self, o))
  return gq.no_grad(function()
    local x, info = gq.odeint(self.net, z, self.times, self._solver)
    return x[2], info
  end)
end
