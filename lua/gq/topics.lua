-- topics.lua -- subjects of gq.help that are no names: ?methods, ?gradient, ?guards and ?info tell what would make
-- ?odeint too long. They are printed as they stand here.

local gq = ...

local docs = gq.docs

-- ---- ?methods: the solvers, from their table ----

local kinds = {
  { "runge-kutta", "explicit Runge-Kutta" },
  { "implicit", "implicit Runge-Kutta, for stiff problems" },
  { "adams", "multistep" },
  { "reversible", "reversible" },
  { "symplectic", "symplectic and reversible, for [x, v] with x'' = a(t, x)" },
}

local function method_list()
  local lines, by_kind = {}, {}
  for _, m in ipairs(gq.core.tableaux()) do
    local kind = m.implicit and "implicit" or m.kind:match("^adams") or m.kind
    by_kind[kind] = by_kind[kind] or {}
    local order = kind == "adams" and "max_order" or m.order
    local control = m.error_order > 0 and "adaptive" or "fixed steps"
    table.insert(by_kind[kind], ("  %s: order %s, %s; %s"):format(m.name, order, control, m.source))
  end
  for _, k in ipairs(kinds) do
    lines[#lines + 1] = k[2]
    table.move(by_kind[k[1]], 1, #by_kind[k[1]], #lines + 1, lines)
  end
  return table.concat(lines, "\n")
end

docs.methods = "gq.odeint's option method, \"dopri5\" by default\n" .. method_list() .. [[

rtol and atol are what a step may add to the error. That of a solve is a multiple: on the DETEST
  problems mostly below 20, near collisions thousands; of fehlberg2, which estimates little of it,
  hundreds (take 1e-4 at most); of implicit_euler it falls as their root only.
With step_size a method takes fixed steps of it; one that is not adaptive steps without it from time
  to time.
controller: {safety 0.9, ifactor 10, dfactor 0.2, pcoeff 0, icoeff 1, dcoeff 0}: step sizes of
  adaptive methods
eta: damping of alf, 1 (none) by default
implicit: Newton's method with exact Jacobians, for each row of the state if rows do not act on each
  other, else for all numbers at once (a Jacobian costs as many backward passes as a row has
  numbers). Fixed steps solve their stages to rounding and fail with status no_convergence where
  Newton's method does. kvaerno5 evaluates f up to 0.23 of a step beyond its end, so it takes no
  grid_points. adjoint.trajectory is "dense" by default: ?gradient
multistep: with step_size of the order max_order 4, the first steps by extrapolation; without of
  variable order up to max_order 12 and variable step. Gradients by the continuous engines, the way
  back by dopri5, on a fixed grid of an order above 5 by dopri8]]

-- ---- ?gradient: the engines and their options ----

-- An engine solves the adjoint equation, goes back along the steps taken, or neither.
local function engine_list()
  local groups = { { "discrete engines, which go back along the steps taken" },
    { "continuous engines, which solve the adjoint equation backwards" }, { "others" } }
  for _, e in ipairs(gq.core.engines()) do
    local group = (e.chooses or e.keeps == "nothing") and 3 or e.keeps == "trajectory" and 2 or 1
    table.insert(groups[group], ("  %s%s: %s%s; keeps %s"):format(e.name, e.default and " (default)" or "", e.doc,
      e.source and (" (%s)"):format(e.source) or "", e.kept))
  end
  for i, group in ipairs(groups) do groups[i] = table.concat(group, "\n") end
  return table.concat(groups, "\n")
end

docs.gradient = [[
gq.odeint's option gradient: how the backward pass finds the gradients of z0, t and the parameters
]] .. engine_list() .. "\n" .. [[
audit: 256: of auto and gq, one of so many solves of a structure, the first of all, is made again at
  a tenth of the tolerances, to compare the gradients (info.gradient_error, ?guards); of an engine
  named otherwise, and with trace = false, only where a number is given; false: none. Up to eight
  that capture other numbers (tensors that want gradients aside) are audited, too
params: a list of tensors: of the parameters differentiate these only (trace = false: needed where f
  uses something that requires a gradient, but for the parameters of a module f; {} for none)
adjoint: {...}, of the continuous engines
  method, rtol, atol, step_size, max_steps, norm: the forward solve's by default
  trajectory: where z is on the way back: "dense" (every step kept), "checkpoint" (checkpoints 16
    states kept, the steps between run again), "interpolated" (from points Chebyshev points an
    interval; by default 16, doubled while the error is over a tolerance), "reverse" (solved again:
    memory does not grow, but what decays fast explodes backwards);
    "auto" (default): dense, and checkpoint where that passes memory_limit
  impulses: "restart" at every time; "moments": many times at the cost of few; "auto" (default):
    moments from 9 times on, but restarts where the integrand bends within what they join
  scale: true: atol of the adjoint is relative to the size of the loss's gradients
gq: {...}, the quadrature
  nodes: "nfe": ceil(C NFE dt / T) in each interval, C 0.1 and at most max_nodes 64 (Norcliffe &
    Deisenroth 2023, eq. 9; no error control); "auto" (default): those, where the solver's own
    weights agree or, panel by panel of moments, one node more makes no difference, else pieces
    refined until rtol is met (info.rounds, info.quadrature_error; info.unresolved pieces miss it,
    which warns); "step": in every step (the default of fixed
    steps without rtol or adjoint.rtol, trace = false and independent samples); or a number (gqc: in
    each forward step, 1 to 16, for dopri5 4)
  paper: true: the paper's choices: nodes "nfe", impulses "restart", trajectory "reverse"
  quadrature: "gauss-legendre", gauss-lobatto clenshaw-curtis trapezoid simpson boole monte-carlo
    (the number rounded up to what the rule takes; pieces that "auto" refines are gauss-legendre's,
    so "nfe", "step" or a number keeps to another rule); panels 1: equal parts of an interval that share
    its nodes; seed: of monte-carlo
  guards: false; true for check: ?guards]]

-- ---- ?guards ----

docs.guards = [[
What tells that a gradient by gq may be wrong; where it is likely gq.odeint warns, once for each
  kind, and in info.warning
info.gradient_error: gradients by auto and by gq whose nodes are not given (by others where audit is
  a number), in steps that are chosen, are compared with those of one more solve, by gq at a tenth of
  rtol and atol, of the first and then every 256th solve of a structure, and of a few between that
  take over twice the steps (option audit, a number, or false: never). The largest relative
  difference that shows in the loss, of the parameters, z0 and t (of up to 16 numbers each alone, of
  more together), info.gradient_of tells which, such as "number 3 of a parameter {8} (all of it by
  4 %)"; over 7 % it warns: the steps missed something short, errors added up, or a stiff problem's
  steps are held by stability. A number that is small beside others of its tensor matters little
  where a network is trained, much where it is what is asked for.
  The gradient is what it is without; of create_graph the first derivatives are. info.nfe_audit tells
  what it took; peak_bytes leaves it out.
  But for later ones (unless audit is a number) it takes 192 evaluations at least. README's drawn
  problems: of 1796 wrong gradients it missed none, of 5404 others it warned of 217, one of them
  under 7 % off
info.uncontrolled: why nothing bounds the error of a gradient: steps of one size without rtol (with
  it, gq's nodes are refined), nodes in every step of trace = false and independent samples, and
  nodes that were given. Absent otherwise. An audit tells of a gradient all the same, where it is made
info.quotient_error: where f compares the state (gq.where, sign, floor), that audit also moves the
  parameters and z0 a little at random; how far the loss then changes otherwise than the gradient
  says. Over 7 % it warns: f jumps where the state passes something: ?event
reconstruction: the state solved backwards misses the stored one, in tolerances
gradient = "check": solves backwards with n and with 2n nodes; warns where they differ by over 5 %
  (info.audit) or the state is over 5 % off (1 % with rtol under 1e-4; its gradient is 10 % off
  then)
gq = {guards = true}: watches info.spectrum, the integrand's last two Legendre coefficients against
  its largest, of four random sums of its probes; costs 2 % of a backward pass, 10 % with 16
  nodes. Near 1: too few nodes, though the gradient may be right; over 0.1 an audit is made in the
  first pass and every 50th such, its evaluations in info.nfe_audit. Absent with fewer than 3 nodes
  an interval, with other rules than gauss-legendre and with nodes "step"
gq = {nodes = "auto"} (default) or "step": info.quadrature_error compares the integrals with those by
  the solver's own weights, parameter by parameter, or is what refinement estimates; over 10 %, or
  where info.unresolved pieces are left, warns
info.defect: h |z' - f| at the nodes, in tolerances of the forward solve, z' the slope of its
  interpolant, h the step: what that solve itself did not see. Over 600, and 3 % of the state, it
  warns: a pulse that steps jumped over. Only along trajectories "dense" and "checkpoint" (so not
  where gradient = "auto" takes "direct", which evaluates f at no node), not of fixed steps, implicit
  methods (stiff dynamics make much of little), trace = false or independent samples, and only what
  a node happens to meet
What no guard sees
  an integrand that n and 2n nodes mistake alike: z' = -z + theta sin(60.14 t) at theta = 0, L =
    z(10), rtol 1e-3: n = 5, an audit of 0.3 %, a gradient 165 times wrong; a spectrum of 0.77 with
    a small audit is reason to raise nodes by hand
  without an audit, the error of the forward solve, which gradient = "direct" has too:
    Lotka-Volterra to t = 10 at rtol = atol = 3e-4 is off by 60 %. Solve once at a tenth of rtol and
    atol and compare]]

-- ---- ?info ----

docs.info = [[
The second result of gq.odeint, a table; a backward pass adds to it
after the solve
  status: "ok", or with throw = false what ended it, and message; t: the time reached
  uncontrolled: ?guards
  engine: of the gradient, with auto the one it chose, and reason; where that solves the adjoint
    equation, trajectory and impulses
  nfe: evaluations of f; steps, rejected; of implicit methods jacobians, and newton: iterations, one
    evaluation each, in nfe
  peak_bytes: the most that the solve held, an SDE's path not counted, which keeps up to 8 MB
  lowering: how programs ran, on the CPU "threads", on CUDA "tiles" (a kernel for all slices of rows), "lanes" (one
    for a whole solve of batch = "independent") or "ops" (a kernel an operation)
  event_t, nfe_event: of an event, the time (absent if there was none) and what it took to find it
  events, parts: of events, which happened when; of a list of them the info of each solve between them (nfe, steps and
    rejected are their sums; what the backward pass counts is in each)
  regularisers: ?regularise
after a backward pass
  nfe_backward: evaluations, nodes included; steps_backward, rejected_backward, restarts
  nodes, nodes_wanted (more than nodes where max_nodes was in the way)
  panels and panels_split, with impulses = "moments": panels solved; how often one was made shorter
    for its error's sake
  rounds, unresolved: with gq = {nodes = "auto"}, rounds of refinement (0: eq. (9) was enough) and
    pieces that miss the tolerance
  reconstruction, gradient_error, gradient_of, quotient_error, audit, nfe_audit, spectrum,
    quadrature_error, defect: ?guards
  warning: what was said on stderr, or would have been for the first time
samples, with batch = "independent": what each row took: tensors nfe steps rejected t nfe_backward
  steps_backward nodes, and a table status. The counts above are then sums over the rows; status, t
  and message those of the first row that failed; the others' results are whole]]

-- ---- ?sdes ----

local noises = { "diagonal", "scalar", "additive", "general", "commutative" }

local function scheme_list()
  local lines = { ("  %-18s %-13s %s"):format("method", "calculus", table.concat(noises, " ")) }
  for _, m in ipairs(gq.core.schemes()) do
    local cells = {}
    for i, noise in ipairs(noises) do
      local order = m.strong[noise]
      cells[i] = ("%-" .. #noise .. "s"):format(order and order .. (m.adapts[noise] and " a" or "") or "-")
    end
    local calculus = m.ito and m.stratonovich and "both" or m.ito and "ito" or "stratonovich"
    if m.langevin then calculus = "gq.langevin's" end
    lines[#lines + 1] = ("  %-18s %-13s %s"):format(m.name, calculus, table.concat(cells, " "):gsub(" +$", ""))
  end
  return table.concat(lines, "\n")
end

docs.sdes = "Methods of gq.sdeint with their strong orders by the kind of noise (-: refused; a: adaptive steps too)\n"
  .. scheme_list() .. [[

noise: of g, that is diagonal: z's shape, g_i for dW_i; scalar: z's shape or {.., d, 1}, one W; the
  others {.., d, m} or {d, m}, m W's: additive is free of z, commutative means that the columns
  commute, (dg_i/dz) g_j = (dg_j/dz) g_i. Correlated noise is general noise, g:unsqueeze(-1) * L with
  correlations L L' (gq.cholesky). Diagonal noise whose g_i depends on z_i alone, which the graph
  shows, commutes; where it depends on other z_j it is general noise to a method
calculus = "ito" or "stratonovich" of a solve: an SDE of the other one is converted by its graph
method: "heun" by default, "euler" for Ito SDEs. reversible_heun is stable on the imaginary axis
  only: it grows without bound wherever the drift contracts for long
theta is for drifts that are stiff: by Newton's method z1 = z + ((1 - theta) f(t, z) + theta f(t + h, z1)) h +
  g(t, z) dW; theta = 1 (backward Euler) to 0.5 (the trapezoidal rule). gradient: direct or aca
areas: srk, slowrk, spark, log_ode and, of additive noise, sea, shark and sra3 read H = 1/h int (W_s,r -
  (r - s)/h W_s,t) dr of a step beside W, log_ode of general noise Levy areas too. A path of the solve's
  own has them; one given is made with
  levy_area = "space-time" ("space-time-time" has K too), "foster" or "davie". The latter are drawn
  for a step and do not add up: one path, one dt. Paths with areas are other paths than those without
logqp = true, with gq.sde{prior_drift = h}: info.logqp {#t - 1, batch}, the integrals of |u|^2 / 2 where
  g u = f - h, with gradients; g may not be singular (1e-7 of its largest entry), f - h lies in its
  range, matrices are at most 8 wide or high
z0 = {z1, z2}: f and g get and return such lists, g of matrix noise {.., d_i, m} each
t may decrease: back along the solutions, in Stratonovich calculus
adaptive = true: by rtol and atol, 1e-3 by default, beginning with dt. heun, ralston, spark, euler and shark
  estimate the error within a step; the others take two half steps, whose result they keep, and compare
  with a whole one. Steps stop at the ends of those that were refused, since what was seen of the path
  there would choose them. Such steps hang on the path, so a method must be close to the solution along
  every path and not on average alone: of noise that does not commute spark is proved to be, of additive
  noise euler is, which of other noise converges to something else. Refused besides:
  reversible_heun, whose second solution is not known to stay near, theta, whose implicit stage is solved
  once a step, and log_ode with Levy areas, which belong to one grid
batch = "independent": each row of z0 with steps of its own along its own row of the path, the same bits alone
  (b:rows(i) is the path of row i) and in company; adaptive steps need not be those of the worst row then.
  info.samples tells what each took. Refused: reversible_heun, theta and log_ode with Levy areas; gradients by
  direct and aca
align, should and quicsort solve gq.langevin{grad, gamma, u} alone, the latter two with K
gq.wong_zakai makes an ODE of an SDE, for gq.odeint: with gradients of times too, which white noise has not]]

-- ---- what newcomers ask for by name ----

docs.shape = [[
x.shape: the sizes of a tensor, a plain table; #x is the first, x:dim() how many, x:numel() all numbers
x.dtype: "float32", "float64", "int64" or "bool"; x.device: where it lives
x.requires_grad: assignable on tensors that you made (?freezing); x.grad: what x:backward() left, nil before
  x = gq.zeros(3, 2) print(x.shape[1], #x, x:numel(), x.dtype)        --> 3 3 6 float32
  y = x:reshape(2, 3):transpose(1, 2):unsqueeze(1)                    --> shape {1, 3, 2}
Change it with x:reshape(...), :flatten(), :squeeze(d), :unsqueeze(d), :transpose(a, b), :permute(...), :expand(...)]]

docs.indexing = [[
x[i]: entry i of dimension 1, a view; counted from 1, negative from the end
x[{i, {a, b}, {}}]: an entry for each dimension: an index drops it, {a, b} is a to b with both, {a, b, step}, {} is all
x[i] = v, x[{...}] = v: assign; not on traced tensors or those with gradients: gq.where and gq.cat make new ones
  x = gq.rand(4, 5) print(x[1], x[-1][2]:item(), x[{{1, 2}, 3}])      --> a row, a number, two numbers
  x[{{}, 1}] = 0                                                      --> the first column
A 0-d tensor's number is x:item(); x < 1 and x <= 1 compare it, but x == 1 is false whatever it is (Lua
asks no tensor whether it equals a number): x:eq(1), or x:item() == 1; loops count: for i = 1, #x do ... x[i] end]]

docs.modules = [[
gq.nn: modules are called like functions, net(x), or net(t, z) as dynamics; ?nn lists them
net:parameters(), net:named_parameters(); net:train(), net:eval(); net:state_dict(), net:load_state_dict(t);
  net:to("float64"), net:to("cuda"): with other tensors, so optimisers are made after it
  net = gq.nn.mlp{ sizes = {2, 64, 2}, activation = "tanh", time = true }
  net = gq.nn.Sequential{ gq.nn.Linear(2, 16), gq.nn.Tanh(), gq.nn.Linear(16, 1) }
Your own: local Net = gq.nn.Module:extend("Net"); function Net:init(n) self.layer = gq.nn.Linear(n, n) end;
  function Net:forward(x) return self.layer(x) end; Net(3). Tensors with requires_grad in fields are parameters.
  Forward may take several, (x, h): net(x, h). As dynamics with the time: forward(t, z); a first parameter that
  is called otherwise than t, time or _ needs Net.time = true, or net(t, z) leaves out t, a number or a 0-d tensor]]

docs.freezing = [[
freezing: p.requires_grad = false freezes a parameter, true thaws it; solves spend nothing on its gradient, and an
  optimiser that has it leaves it as it is, without weight decay and momentum, too, as clipping and L-BFGS do
  frozen = encoder:parameters()                          -- kept: net:parameters() lists those that train alone
  for _, p in ipairs(frozen) do p.requires_grad = false end
  optimiser = gq.optim.adam(net:parameters())            -- refuses a list with one that is frozen
To freeze is not to hold what a layer counts: net:eval() does that for batch norm. state_dict() has frozen ones, too.
Settings of their own for some: gq.optim.adam{ {params = list, lr = 1e-4}, {params = others} }
opt:zero_grad() takes x.grad away (nil), so that one which no gradient reaches until the step is
  left alone, too, as in PyTorch 2; zeros put there are a gradient: weight decay and momentum move]]

docs.event = [[
event: of gq.odeint: a function of (t, z), and the solve ends where it changes sign; the state there lies on the
  surface, and its gradient is that of the event's time, too
  function hits(t, z) return z:narrow(1, 1, 1):squeeze(1) end
  z, info, t_hit = gq.odeint(f, z0, {0, 10}, {event = hits})
  where it does not change sign, z and t_hit are those of the end, and info.event_t is nil; between more times than
  two z is the states at the times, as of a list
or a list of {[condition =] function(t, z), direction = "up" | "down" | "both" (default), terminal = true | false
  (default: true without apply), apply = function(t, z) -> the state from which the solve goes on}: then also between
  many times; gradients go through all of it. info.events: {{event = which of the list, t = when}, ...}; behind a
  terminal event the states are that one, and with two times the result is the state at the end, info and its time
  bounce = {condition = function(t, z) return z[1] end, direction = "down", terminal = false,
    apply = function(t, z) return gq.stack{z[1], -0.8 * z[2]} end}
  z, info = gq.odeint(f, z0, gq.linspace(0, 4, 41), {event = {bounce}})
Where f itself jumps at known times: grid_points = {1, 2}; where it jumps as the state passes something
  (gq.where(z:gt(0.5), a, b)): an event there that is not terminal, without apply. Gradients of the solve
  alone leave out what the place adds
  switch = {condition = function(t, z) return z[1] - 0.5 end, terminal = false}]]

docs.plots = [[
gq.plot: line, scatter, band, hist, heat, contour, field, panels; in the terminal, or out = "x.svg" | "x.png" | "x.pdf"
  gq.plot.line{ {x, y, style = "points", label = "data"}, {x, fit, label = "fit"}, title = "a fit" }
  gq.plot.field{ {f, x = {-2, 2}, y = {-2, 2}}, {path}, out = "flow.svg" }
?line, ?heat ... tell of each; `gqlua plot run.jsonl` draws what a training logged]]

docs.prompt = [[
name or an expression prints its value; _ is the last one, _1 to _9 the last nine; a local lasts for one command
?name or name? explains; Tab completes globals, x: methods, x. fields, option names in a call's table, method = "...,
  files in strings; the arrows and Ctrl-R go through the history, a block of lines as one entry
a ; at the end keeps the value from being printed; ??name shows the source of a function; lines may be pasted with
  their prompts
%time code says how long it took, %timeit tells it from many runs, %who lists your globals, %locals those of the
  functions that an error left, %history the last commands; %edit opens the last one in $EDITOR; !command runs in a
  shell, Ctrl-C stops what runs; colours are off where NO_COLOR is set or TERM is dumb
~/.config/gqlua/rc.lua is run at the start; gqlua -i script.lua comes here after a script
  > ?odeint
  > %time gq.randn(500, 500):matmul(gq.randn(500, 500)):sum()]]
