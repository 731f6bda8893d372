-- hints.lua -- names of other libraries, and slips of the keyboard: asking for them is an error that says what to write
-- here. What has no likeness to any name stays nil, so that scripts can ask what there is.

local gq = ...
local core = gq.core

-- theirs = what to write; of gq, of its parts, and of tensors.
local trapezoid <const> = "((y[{{2, -1}}] + y[{{1, -2}}]) / 2 * (x[{{2, -1}}] - x[{{1, -2}}])):sum()"
local theirs = {
  gq = {
    Tensor = "gq.tensor{...}", array = "gq.tensor{...}", FloatTensor = "gq.tensor{...}",
    from_numpy = "gq.load(\"x.npy\")",
    odeint_adjoint = "gq.odeint(f, z0, t, {gradient = \"adjoint\"})", solve = "gq.odeint(f, z0, t), or x:solve(b)",
    solve_ivp = "gq.odeint(f, z0, t)", seed = "gq.manual_seed(n)", set_seed = "gq.manual_seed(n)",
    set_num_threads = "gq.set_threads(n)", device = "gq.devices(), or {device = \"cpu\"} of a constructor",
    concat = "gq.cat({a, b}, dim)", concatenate = "gq.cat({a, b}, dim)", hstack = "gq.cat({a, b}, 2)",
    vstack = "gq.cat({a, b}, 1)", range = "gq.arange(first, last), with the last", uniform = "gq.rand(sizes...)",
    normal = "gq.randn(sizes...)", random = "gq.rand(sizes...)", mm = "gq.matmul(a, b)", bmm = "gq.matmul(a, b)",
    power = "gq.pow(a, b), or a ^ b", ln = "gq.log(x)", DataLoader = "gq.data.batches(set, {batch_size = 32})",
    Adam = "gq.optim.adam(params)", Linear = "gq.nn.Linear(n_in, n_out)", mlp = "gq.nn.mlp{ sizes = {...} }",
    Sequential = "gq.nn.Sequential{...}", fit = "gq.train{...}", backprop = "loss:backward()",
    enable_grad = "gq.no_grad(f, ...) is the exception; everything else records",
    log10 = "gq.log(x) / math.log(10)", log2 = "gq.log(x) / math.log(2)", empty = "gq.zeros(sizes...)",
    empty_like = "gq.zeros_like(x)", full_like = "gq.ones_like(x) * value", randn_like = "gq.randn(x.shape)",
    rand_like = "gq.rand(x.shape)",
    meshgrid = "gq.plot.grid(x, y), or x:unsqueeze(1) and y:unsqueeze(2), which broadcast",
    allclose = "(x - y):abs():max():item() < 1e-6", equal = "x:eq(y):all():item()",
    kron = "gq.einsum(\"ij,kl->ikjl\", a, b)",
    svd = "gq.eigh(x:t():matmul(x))", pinv = "gq.solve(x:t():matmul(x), x:t())",
    lstsq = "gq.solve(x:t():matmul(x), x:t():matmul(b))",
    qr = "gq.cholesky(x:t():matmul(x)):t(), its r", sigmoid_ = "gq.sigmoid(x)", as_tensor = "gq.tensor{...}",
    set_grad_enabled = "gq.no_grad(f, ...)", save_checkpoint = "gq.checkpoint.save(path, {model = net})",
    compile = "nothing: dynamics are traced and compiled anyway",
    jit = "nothing: dynamics are traced and compiled anyway",
    odeint_event = "gq.odeint(f, z0, t, {event = g})", diffeqsolve = "gq.odeint(f, z0, t)",
    sdeint_adjoint = "gq.sdeint(sde, z0, t, {gradient = \"adjoint\"})", BrownianInterval = "gq.brownian{...}",
    BrownianPath = "gq.brownian{...}", VirtualBrownianTree = "gq.brownian{...}",
    binary_cross_entropy = "gq.bce_loss(p, y)",
    smooth_l1_loss = "gq.huber_loss(x, y, {delta = beta}) / beta",
    bce_with_logits_loss = "gq.bce_loss(logits, y, {logits = true})",
    bce_with_logits = "gq.bce_loss(logits, y, {logits = true})",
    binary_cross_entropy_with_logits = "gq.bce_loss(logits, y, {logits = true})",
    kl_div = "(p * (p:log() - q:log())):sum()",
    one_hot = "gq.eye(n):index_select(1, labels)", isclose = "(x - y):abs():lt(1e-6)",
    linalg = "gq.solve, gq.inverse, gq.det, gq.cholesky or gq.eigh",
    autograd = "gq.grad(outputs, inputs, {create_graph = true}), or gq.jacobian(f, x)",
    functional = "gq.relu(x), gq.softmax(x, dim) ...", distributions = "gq.randn(sizes...), and densities by hand",
    vmap = "the function of a batch: operations broadcast", trapezoid = trapezoid, trapz = trapezoid,
    cdist = "((x:unsqueeze(2) - y:unsqueeze(1)) ^ 2):sum(3):sqrt()",
    bernoulli = "gq.rand(p.shape):lt(p):to(p.dtype)",
    multinomial = "u:gt((p / p:sum()):cumsum(1)):sum(2) + 1, with u = gq.rand(n, 1): n draws, counted from 1",
    tqdm = "gq.progress(n)", ode = "gq.odeint(f, z0, t)",
    inf = "math.huge", nan = "0 / 0", pi = "math.pi", clip = "x:clamp(a, b)", logspace = "10 ^ gq.linspace(a, b, n)",
    float32 = "the string \"float32\"", float64 = "the string \"float64\"", int64 = "the string \"int64\"",
  },
  nn = {
    MSELoss = "gq.mse_loss(x, y)", CrossEntropyLoss = "gq.cross_entropy(logits, labels)",
    MLP = "nn.mlp{ sizes = {...} }", NeuralODE = "gq.odeint(net, z0, t)",
    NeuralSDE = "gq.sdeint(sde, z0, t, {dt = ...})",
    Dense = "nn.Linear(n_in, n_out)", Parameter = "a tensor with requires_grad = true in a field of the module",
    ModuleList = "a plain table of modules in a field", functional = "gq.relu(x), gq.softmax(x, dim) ...",
    Tensor = "gq.tensor{...}", L1Loss = "gq.l1_loss(x, y)", NLLLoss = "gq.nll_loss(log_p, labels)",
    BCELoss = "gq.bce_loss(p, y)", BCEWithLogitsLoss = "gq.bce_loss(logits, y, {logits = true})",
    HuberLoss = "gq.huber_loss(x, y)", SmoothL1Loss = "gq.huber_loss(x, y, {delta = beta}) / beta",
    PReLU = "function(x) return gq.where(x:gt(0), x, x * a) end, with a tensor a that requires gradients",
    Hardtanh = "function(x) return x:clamp(-1, 1) end", ReLU6 = "function(x) return x:clamp(0, 6) end",
    GRU = "nn.GRUCell(n_in, n) in a loop", LSTM = "nn.GRUCell(n_in, n) in a loop",
    RNN = "nn.RNNCell(n_in, n) in a loop",
    LSTMCell = "nn.GRUCell(n_in, n)", ModuleDict = "a plain table of modules in a field",
    ParameterList = "a plain table of tensors in a field", Lambda = "the function itself in nn.Sequential{...}",
    utils = "gq.optim.clip_grad_norm(params, max)",
  },
  ["nn.init"] = {
    he_normal = "nn.init.kaiming_normal_(t)", he_uniform = "nn.init.kaiming_uniform_(t)",
    glorot_normal = "nn.init.xavier_normal_(t)", glorot_uniform = "nn.init.xavier_uniform_(t)",
    kaiming = "nn.init.kaiming_uniform_(t)", xavier = "nn.init.xavier_uniform_(t)",
    lecun_normal = "nn.init.kaiming_normal_(t, {nonlinearity = \"linear\"})",
    lecun_uniform = "nn.init.kaiming_uniform_(t, {nonlinearity = \"linear\"})",
  },
  optim = {
    lr_scheduler = "gq.optim.schedule", zero_grad = "optimiser:zero_grad()", SGD = "gq.optim.sgd(params, {lr = ...})",
    ReduceLROnPlateau = "gq.optim.schedule.plateau(optimiser)", adagrad = "gq.optim.rmsprop(params) or adam",
    Adagrad = "gq.optim.rmsprop(params) or adam", adadelta = "gq.optim.rmsprop(params) or adam",
    clip_grad_norm_ = "gq.optim.clip_grad_norm(params, max)",
  },
  ["optim.schedule"] = {
    StepLR = "gq.optim.schedule.step(optimiser, {every = 30, gamma = 0.1})",
    ExponentialLR = "gq.optim.schedule.exponential(optimiser, {gamma = 0.99})",
    CosineAnnealingLR = "gq.optim.schedule.cosine(optimiser, {steps = n})",
    LinearLR = "gq.optim.schedule.linear(optimiser, {steps = n})",
    LambdaLR = "gq.optim.schedule.lambda(optimiser, f)",
    MultiStepLR = "gq.optim.schedule.lambda(optimiser, function(n) return n < 30 and 1 or n < 80 and 0.1 or 0.01 end)",
    multistep = "gq.optim.schedule.lambda(optimiser, function(n) return n < 30 and 1 or n < 80 and 0.1 or 0.01 end)",
    OneCycleLR = "gq.optim.schedule.cosine(optimiser, {steps = n, warmup = m})",
    ReduceLROnPlateau = "gq.optim.schedule.plateau(optimiser)",
  },
  data = { TensorDataset = "a table {x = ..., y = ...}", Dataset = "a table {x = ..., y = ...}",
    DataLoader = "gq.data.batches(set, {batch_size = 32})", load = "gq.load(path)",
    moons = "gq.data.density{name = \"moons\"}", circles = "gq.data.density{name = \"circles\"}",
    random_split = "gq.data.split(set, {test = 0.2})", normalize = "gq.data.standardise(x)" },
  plot = { plot = "gq.plot.line{ {x, y} }", show = "p:show(), of what gq.plot.line gave", savefig = "out = \"x.svg\"",
    heatmap = "gq.plot.heat{ {x, y, z} }", histogram = "gq.plot.hist{ {values} }", figure = "gq.plot.panels{ {p, q} }",
    loglog = "log = \"xy\" of gq.plot.line", semilogy = "log = \"y\" of gq.plot.line",
    errorbar = "gq.plot.band{ {x, low, high} }", surface = "gq.plot.contour{ {x, y, z} }",
    bar = "gq.plot.hist{ {values} }", imshow = "gq.plot.heat{ {x, y, z} }", quiver = "gq.plot.field{ {x, y, u, v} }",
    subplots = "gq.plot.panels{ {p, q}, out = ... }", fill_between = "gq.plot.band{ {x, low, high} }" },
}

local of_tensors = {
  numpy = "x:totable()", tolist = "x:totable()", cuda = "x:to(\"cuda\")", cpu = "x:to(\"cpu\")",
  float = "x:to(\"float32\")",
  double = "x:to(\"float64\")", long = "x:to(\"int64\")", int = "x:to(\"int64\")",
  type = "x.dtype, or x:to(\"float64\")",
  astype = "x:to(\"float64\")", T = "x:t(), or x:transpose(1, 2)", ndim = "x:dim()", len = "#x", length = "#x",
  copy = "x:clone()", requires_grad_ = "x.requires_grad = true", zero_grad = "optimiser:zero_grad()",
  mm = "x:matmul(y)", view_as = "x:reshape(y.shape)", new_zeros = "gq.zeros(sizes, {dtype = x.dtype})",
  new_ones = "gq.ones(sizes, {dtype = x.dtype})", new_tensor = "gq.tensor(list, {dtype = x.dtype})",
  bool = "x:to(\"bool\")", ndimension = "x:dim()", rows = "for i, row in x:ipairs() do",
  retain_grad = "gq.grad(loss, {x})", clip = "x:clamp(a, b)",
  bmm = "x:matmul(y)", data = "x:detach()", value = "x:item()", get = "x[i]:item()", set = "x[i] = v",
  repeat_ = "x:expand(...), or gq.cat{x, x}",
  ["repeat"] = "x:expand(...), or gq.cat{x, x}",
  plus = "x + y", minus = "x - y", zero_ = "x[{}] = 0", fill_ = "x[{}] = v",
}

-- gq.trace(x) as well as x:trace().
local both = {
  median = "x:sort()[(#x + 1) // 2], of a vector", quantile = "x:sort()[k], of a vector", trace = "x:diag():sum()",
  outer = "x:unsqueeze(2) * y:unsqueeze(1), or gq.einsum(\"i,j->ij\", x, y)", chunk = "x:split(size, dim)",
  unbind = "x[1], x[2], ..., or for i, row in x:ipairs() do",
  tile = "x:expand(...), or gq.cat{x, x}", diff = "x[{{2, -1}}] - x[{{1, -2}}]",
  nonzero = "gq.arange(1, #x)[mask]", unique = "x:sort(), and compare neighbours", lerp = "x + (y - x) * w",
  masked_fill = "gq.where(mask, value, x)", masked_fill_ = "x[mask] = value", masked_select = "x[mask]",
  scatter = "gq.where(mask, y, x), or x[{...}] = v",
  index_put_ = "x[{...}] = v", select = "x[i], or x[{{}, i}]", swapaxes = "x:transpose(a, b)", add_ = "x[{}] = x + y",
  sub_ = "x[{}] = x - y", mul_ = "x[{}] = x * y", div_ = "x[{}] = x / y", clamp_ = "x[{}] = x:clamp(a, b)",
  copy_to = "y:copy_(x)", contains = "x:eq(v):any():item()",
  relu6 = "x:clamp(0, 6)", hardtanh = "x:clamp(-1, 1)", selu = "1.0507 * x:elu(1.67326)",
  celu = "a * (x / a):elu()", softsign = "x / (1 + x:abs())", mish = "x * x:softplus():tanh()",
  amax = "x:max(dim), whose first result it is", amin = "x:min(dim), whose first result it is",
  isinf = "x:abs():eq(math.huge)", count_nonzero = "x:ne(0):sum()", exp2 = "2 ^ x",
  normalize = "x / x:norm(2, dim, true)",
  mv = "a:matmul(v)", diagonal = "x:diag()", diag_embed = "x:unsqueeze(-1) * gq.eye(n)",
  logdet = "2 * gq.cholesky(a):diag():log():sum(), of a positive definite matrix", slogdet = "a:det():abs():log()",
  square_ = "x[{}] = x * x", is_cuda = "x.device", to_list = "x:totable()",
}
for key, advice in next, both do
  of_tensors[key], theirs.gq[key] = advice, theirs.gq[key] or advice
end
of_tensors.log10, of_tensors.log2 = "x:log() / math.log(10)", "x:log() / math.log(2)"

local function say(what, key, advice)
  core.fail(("%s.%s: there is no such name here; write %s"):format(what, key, advice))
end

-- The key in another case, or one letter away.
local function likeness(t, key)
  local names = {}
  for k in next, t do
    if type(k) == "string" and k ~= "core" and k ~= "docs" then
      if k:lower() == key:lower() then return k end
      names[#names + 1] = k
    end
  end
  local near = #key > 3 and core.nearest(key, names)
  return near and #near > 3 and math.abs(#near - #key) <= 1 and core.distance(near, key) == 1 and near or nil
end

local function index(what, t, known)
  local unlike, n = {}, 0                                 -- asked for before: duck typing asks again and again
  return function(_, key)
    if type(key) ~= "string" or key:sub(1, 1) == "_" or key == "debug" or unlike[key] then return nil end
    if known[key] then say(what, key, known[key]) end
    local plane = key:match("3d$") and key:gsub("3d$", "2d")
    if plane and rawget(t, plane) ~= nil then
      core.fail(("%s.%s: there are signals and images, as %s.%s, and no volumes"):format(what, key, what, plane))
    end
    local near = likeness(t, key)
    if near then say(what, key, what .. (what == "x" and ":" or ".") .. near) end
    if n == 1000 then unlike, n = {}, 0 end
    unlike[key], n = true, n + 1
  end
end

for name, known in next, theirs do
  local t = gq
  for part in name:gmatch("%w+") do t = part == "gq" and gq or t[part] end
  setmetatable(t, { __index = index(name == "gq" and "gq" or "gq." .. name, t, known) })
end
getmetatable(gq.plot).__call = function()
  core.fail("gq.plot: one of its functions draws: gq.plot.line{ {x, y} }, gq.plot.scatter{...}: ?plots")
end
setmetatable(core.methods, { __index = index("x", core.methods, of_tensors) })

-- What a module is asked for and nothing of it has: a field that may be there or not is nil as ever.
local of_modules = {
  cuda = "net:to(\"cuda\")", cpu = "net:to(\"cpu\")", float = "net:to(\"float32\")", double = "net:to(\"float64\")",
  half = "net:to(\"float32\")",
  requires_grad_ = "for _, p in ipairs(net:parameters()) do p.requires_grad = false end (?freezing)",
  register_buffer = "a tensor in a field of the module",
  register_parameter = "a tensor with requires_grad = true in a field",
  add_module = "a module in a field of the module", named_modules = "for name, m in net:modules() do",
  named_children = "for name, m in net:modules() do",
}
local of_optimisers = { param_groups = "opt.lr, or opt.groups[i].lr of several",
  add_param_group = "gq.optim.adam{ {params = list, lr = 1e-4}, {params = others} }" }
setmetatable(core.optimiser_methods, { __index = function(_, key)
  if of_optimisers[key] then say("opt", key, of_optimisers[key]) end
end })
local of_schedules = { get_last_lr = "schedule.optimiser.lr", get_lr = "schedule.optimiser.lr" }
setmetatable(core.schedule_methods, { __index = function(_, key)
  if of_schedules[key] then say("schedule", key, of_schedules[key]) end
end })
getmetatable(gq.nn.Module).__index = function(_, key)
  if of_modules[key] then say("net", key, of_modules[key]) end
end
