-- regularise.lua -- what is added to a loss to keep dynamics easy to solve. Integrals along the solution are solved
-- beside the state, as one more number a sample, so that every method and engine has their gradients; random end
-- times (STEER) are drawn before the solve.

local gq = ...
local core = gq.core
local options, need, describe, fail = core.options, core.need, core.describe, core.fail

-- ---- Taylor mode ----

function gq.jet(f, t, z, order)
  core.callable(f, "gq.jet: the dynamics")
  if type(z) ~= "table" then return core.jet(f, t, z, order) end
  local layout = core.layout(z, "gq.jet")
  local d = core.jet(layout:field(f), t, layout:pack(z), order)
  for k = 1, #d do d[k] = layout:unpack(d[k]) end
  return d
end

-- ---- STEER ----

local function times_of(t)
  local list = gq.is_tensor(t) and t:dim() == 1 and t:totable() or t
  if type(list) ~= "table" or rawlen(list) < 2 then
    error(("gq.steer: a table or one-dimensional tensor of at least two times expected, got %s"):format(describe(t)), 3)
  end
  for i = 1, rawlen(list) do
    local v = rawget(list, i)
    if type(v) ~= "number" or v ~= v or v == math.huge or v == -math.huge then
      error(("gq.steer: t[%d] is %s; a finite number expected"):format(i, describe(v)), 3)
    end
  end
  return list, rawlen(list)
end

function gq.steer(t, b, opts)
  local what = "gq.steer"
  local o = options(opts, "seed", what)
  local seed = o.seed ~= nil and need(o, "seed", "integer", nil, what) or nil
  local list, n = times_of(t)
  local last = math.abs(list[n] - list[n - 1])
  if type(b) ~= "number" or not (b >= 0 and b < last) then
    error(("gq.steer: b = %s: a number of at least 0 and below the last interval, %g, expected"):format(
      describe(b), last), 2)
  end
  local shift = b * (2 * gq.rand(1, { dtype = "float64", seed = seed, device = "cpu" }):item() - 1)
  if gq.is_tensor(t) then return gq.cat({ t:narrow(1, 1, n - 1), t:narrow(1, n, 1) + shift }, 1) end
  local moved = table.move(list, 1, n - 1, 1, {})
  moved[n] = list[n] + shift
  return moved
end

-- ---- integrals along the solution ----

-- One number a sample: the sum of squares of its numbers.
local function energy(layout, x)
  local y = x * x
  return layout.rows and y:sum(2, true) or y:sum():reshape(1)
end

local probes = {}
function probes.normal(shape, o) return gq.randn(shape, o) end
function probes.rademacher(shape, o) return gq.rand(shape, o):lt(0.5):to(o.dtype) * 2 - 1 end

-- The probe of the whole solve, packed: drawn now, or what a script gave.
local function draw_probe(layout, given)
  local what = "gq.odeint's regularise.jacobian"
  local o = options(given ~= true and given or nil, "probe seed", what)
  local probe = o.probe
  if probe == nil then probe = "normal" end
  if type(probe) == "string" then
    if not probes[probe] then
      local near = core.nearest(probe, { "normal", "rademacher" })
      fail(("%s: probe = %q is not known%s; there are: normal, rademacher"):format(what, probe,
        near and (", did you mean %q?"):format(near) or ""))
    end
    local seed = o.seed ~= nil and need(o, "seed", "integer", nil, what) or nil
    local shape = layout.rows and { layout.rows, layout.width } or { layout.width }
    return probes[probe](shape, { dtype = layout.dtype, device = layout.device, seed = seed })
  end
  if o.seed ~= nil then fail(what .. ": give seed or a probe of your own, not both") end
  local own = core.layout(type(probe) == "table" and probe or need(o, "probe", "tensor|string|table", nil, what),
    what)
  local same = own.dtype == layout.dtype and #own.parts == #layout.parts and own.single == layout.single
  for i, part in ipairs(layout.parts) do same = same and core.same_shape(part, own.parts[i]) end
  if not same then fail(what .. ": the probe must have the dtype and shape of the state") end
  return layout:pack(probe)
end

local function taylor_order(given)
  local what = "gq.odeint's regularise.taylor"
  local o = type(given) == "number" and { order = given } or options(given, "order", what)
  local order = need(o, "order", "count", nil, what)
  if order > 32 then fail(what .. ": order at most 32 expected, got " .. order) end
  return order
end

-- {"kinetic", taylor = 3} is {kinetic = true, taylor = 3}.
local function by_name(given)
  if rawlen(given) == 0 then return given end
  local own = {}
  for k, v in next, given do
    local name = math.type(k) == "integer" and type(v) == "string" and rawget(given, v) == nil
    if name then own[v] = true else own[k] = v end
  end
  return own
end

-- What is asked for, in the order in which it lies behind the state: {name, function(z, dz, jets)} whose energy is
-- integrated, and the order of the jets; then what is left to the solver, or nil.
local function wanted(layout, given)
  local o = options(given, "kinetic jacobian taylor error stiffness", "gq.odeint's regularise")
  local list, order = {}, nil
  if o.kinetic ~= nil and need(o, "kinetic", "boolean", nil, "gq.odeint's regularise") then
    list[#list + 1] = { "kinetic", function(_, dz) return dz end }
  end
  if o.jacobian then
    need(o, "jacobian", "boolean|table", nil, "gq.odeint's regularise")
    local probe = draw_probe(layout, o.jacobian)
    list[#list + 1] = { "jacobian", function(z, dz)
      return gq.grad(dz, z, { cotangents = probe, create_graph = true })
    end }
  end
  if o.taylor then
    need(o, "taylor", "number|table", nil, "gq.odeint's regularise")
    order = taylor_order(o.taylor)
    list[#list + 1] = { "taylor", function(_, _, jets) return jets[order] end }
  end
  local own = nil
  for _, name in ipairs { "error", "stiffness" } do
    if o[name] ~= nil and need(o, name, "boolean", nil, "gq.odeint's regularise") then
      own = own or {}
      own[name] = true
    end
  end
  return list, order, own
end

-- The field of the state with the integrals behind it; dt counts as positive, so that they grow.
local function augmented(layout, f, list, order, sign)
  local field, dim = layout:field(f), layout.rows and 2 or 1
  return function(t, a)
    local z = a:narrow(dim, 1, layout.width)
    local jets = order and core.jet(field, t, z, order)
    local dz = jets and jets[1] or field(t, z)
    local parts = { dz }
    for i, e in ipairs(list) do parts[i + 1] = energy(layout, e[2](z, dz, jets)) * sign end
    return gq.cat(parts, dim)
  end
end

local function backwards(t)
  local list = gq.is_tensor(t) and t:dim() == 1 and t:totable() or t
  if type(list) ~= "table" then return false end     -- gq.odeint says what is wrong
  local first, last = list[1], list[#list]
  return type(first) == "number" and type(last) == "number" and last < first
end

-- Samples are rows, where the state has rows of several numbers; a vector is one sample.
local function by_rows(list)
  for _, z in ipairs(list) do
    if z:dim() > 1 then return true end
  end
  return false
end

-- Is there more in opts.regularise than the solver itself sums up, or nothing that makes sense?
local function has_integrals(given)
  if type(given) ~= "table" or next(given) == nil then return true end
  for key in next, given do
    if key ~= "error" and key ~= "stiffness" then return true end
  end
  return false
end

-- A stage of gq.odeint, in place of core.pack: opts.regularise asks for integrals.
function core.regularised(p)
  if type(p.opts) ~= "table" or p.opts.regularise == nil then return end
  if type(p.opts.regularise) == "table" then p.opts = core.copy(p.opts, { regularise = by_name(p.opts.regularise) }) end
  if not has_integrals(p.opts.regularise) then return end
  core.callable(p.f, "the dynamics function of gq.odeint")
  if p.opts.method == "leapfrog" then
    fail("gq.odeint: regularise puts integrals behind the state, which method = \"leapfrog\" takes for [x, v]; "
      .. "choose another method")
  end
  local layout = core.layout(p.z0, "gq.odeint", by_rows)
  local list, order, own = wanted(layout, p.opts.regularise)
  local rows, width = layout.rows, layout.width
  local none = gq.zeros(rows and { rows, #list } or { #list }, { dtype = layout.dtype, device = layout.device })
  local start = gq.cat({ layout:pack(p.z0), none }, rows and 2 or 1)
  local function read(a, times)
    local dim = (rows and 2 or 1) + (times and 1 or 0)
    return layout:unpack(a:narrow(dim, 1, width), times)
  end
  p.opts.regularise = own
  local finish = core.packed(p, augmented(layout, p.f, list, order, backwards(p.t) and -1 or 1), start, read)
  return function(r)
    local a, sums = r.z, r.info.regularisers or {}
    finish(r)
    for i, e in ipairs(list) do sums[e[1]] = a:narrow(a:dim(), width + i, 1):squeeze(a:dim()) end
    r.info.regularisers = sums
  end
end

gq.docs[gq.jet] = "gq.jet(f, t, z, K) -> {z', z'', ...}: the first K derivatives in time of the solution of dz/dt = "
  .. "f(t, z) through z at t, by Taylor mode; K at most 32. z: a tensor, or a sequence as in gq.odeint. At once or "
  .. "inside a traced function; gradients flow through them"
gq.docs[gq.steer] = "gq.steer(t, b [, {seed}]) -> times: the times of one training step, the last one drawn uniformly "
  .. "from (T - b, T + b), 0 <= b < its interval (STEER, Ghosh et al. 2020). A table gives a table, a tensor a tensor"
gq.docs.regularise = "gq.odeint(f, z0, t, {regularise = {...}}): integrals along the solution from t[1] to each time, "
  .. "one number a sample, in info.regularisers; add their means to the loss: "
  .. "loss + 0.01 * info.regularisers.kinetic[-1]:mean(). Any method and engine, see also gq.steer\n"
  .. "kinetic = true: of |dz/dt|^2 (Finlay et al. 2020)\n"
  .. "jacobian = true or {probe, seed}: of |e' df/dz|^2, whose mean over probes e is the squared Frobenius norm of "
  .. "df/dz (Finlay et al. 2020); one probe a solve, \"normal\" (default), \"rademacher\", or a tensor like z0 (a "
  .. "sequence where z0 is one); seed: of the draw, by default the next of gq.manual_seed's generator\n"
  .. "taylor = K or {order = K}: of |d^K z/dt^K|^2 by Taylor mode (Kelly et al. 2020), K at most 32\n"
  .. "Norms are sums of squares over the numbers of a sample. Samples are z0's rows; a z0 of one dimension is one "
  .. "sample, and so are tensors without a common first dimension. info.regularisers.kinetic has shape {#t, samples}, "
  .. "{#t} for one sample; with an event {samples}, or {}. The integrals are solved with the state: they count in the "
  .. "error norm, and among the 8 numbers of a row that gqc takes. They grow whichever way time runs\n"
  .. "error = true, stiffness = true: not integrals, but what the solver sees (Pal et al. 2021), summed over its "
  .. "accepted steps; numbers of shape {}, since a batch shares its steps, and no evaluations more. They take "
  .. "gradient = \"direct\" or \"aca\" (or none), batch = \"joint\" and an explicit method that estimates its error\n"
  .. "error: of |h| rms(e), e the estimated local error of a step of size h, over all numbers of the state and in its "
  .. "units: about tolerance times length of time, since steps are chosen so, and its weight is of the order of 0.1 / "
  .. "tolerance: loss + 1e2 * info.regularisers.error at 1e-3\n"
  .. "stiffness: of |f(a) - f(b)| / |a - b| for two stages a, b at the end of a step (dopri5, tsit5, dopri8). Where "
  .. "they differ by rounding alone (float32 and steps much shorter than the tolerance asks for) it is noise\n"
  .. "Both see the integrals above as part of the state. In their gradients a step size is a constant, but for steps "
  .. "that end at a time of t; an event's time is a constant too. create_graph does not reach them"
