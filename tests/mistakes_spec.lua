-- What newcomers get wrong, and the words of the message that say what to write instead.

local gq = require "gq"
local helper = require "tests.helper"
local nn = gq.nn

local x = gq.randn(4, 2)
local net = nn.mlp { sizes = { 2, 4, 2 } }
local function f(_, z) return -z end
local z0 = gq.ones(3)
local int64 = { dtype = "int64" }

-- { what is done, the words that tell what to write, the doing }
local mistakes = {
  { "counting from 0", "indices count from 1", function() return x[0] end },
  { "dimension 0", "count from 1", function() return x:sum(0) end },
  { "pairs of a tensor", "for i, row in x:ipairs()", function() for k in pairs(x) do assert(k) end end },
  { "net.forward(x)", "write net(x)", function() return net.forward(x) end },
  { "SciPy's RK45", "did you mean \"dopri5\"", function() return gq.odeint(f, z0, { 0, 1 }, { method = "RK45" }) end },
  { "backprop", "did you mean \"direct\"", function()
    return gq.odeint(f, z0, { 0, 1 }, { gradient = "backprop" })
  end },
  { "labels from 0", "labels count from 1 add 1", function()
    return gq.cross_entropy(gq.randn(3, 2), gq.tensor({ 0, 1, 1 }, int64))
  end },
  { "smoothed labels", "(1 - s) * gq.cross_entropy(x, y) - s * x:log_softmax():mean()", function()
    return gq.cross_entropy(x, { 1, 2, 1, 1 }, { label_smoothing = 0.1 })
  end },
  { "weights of classes", "w = weight:index_select(1, y)", function()
    return gq.cross_entropy(x, { 1, 2, 1, 1 }, { weight = gq.ones(2) })
  end },
  { "labels that do not count", "gq.nll_loss(p[keep], y[keep])", function()
    return gq.nll_loss(x, { 1, 2, 1, 1 }, { ignore_index = 1 })
  end },
  { "weights of positives", "(pos_weight * y * (-x):softplus() + (1 - y) * x:softplus()):mean()", function()
    return gq.bce_loss(x, x:sigmoid(), { logits = true, pos_weight = 2 })
  end },
  { "beta of a smooth l1", "the loss divided by beta", function() return gq.huber_loss(x, x, { beta = 2 }) end },
  { "ceil_mode", "completes the last windows", function() return nn.MaxPool2d(2, { ceil_mode = true }) end },
  { "ceil_mode of a mean", "gq.ones_like(x)", function()
    return gq.avg_pool2d(gq.ones(1, 5, 5), 2, { ceil_mode = true })
  end },
  { "track_running_stats", "goes by the batch alone", function()
    return nn.BatchNorm2d(3, { track_running_stats = false })
  end },
  { "a layer's place", "net:to(", function() return nn.Linear(2, 2, { device = "cuda" }) end },
  { "padding_idx", "zero for entry i", function() return nn.Embedding(3, 2, { padding_idx = 1 }) end },
  { "the end of a cosine", "last = eta_min / lr", function()
    return gq.optim.schedule.cosine(gq.optim.sgd(net:parameters()), { steps = 3, eta_min = 0.1 })
  end },
  { "maximize", "the loss times -1", function() return gq.optim.adam(net:parameters(), { maximize = true }) end },
  { "PReLU", "gq.where(x:gt(0), x, x * a)", function() return nn.PReLU() end },
  { "labels that are floats", "labels are int64", function()
    return gq.cross_entropy(gq.randn(3, 2), gq.tensor { 1, 2, 1 })
  end },
  { "text .. of many numbers, in dynamics", "traced", function()
    return gq.odeint(function(_, z) return z, "at " .. z end, z0, { 0, 1 })
  end },
  { "text .. nil", "text, a number or a tensor", function() return x[1][1] .. nil end },
  { "masks by &", "a:logical_and(b)", function() return x:gt(0) & x:lt(1) end },
  { "x:sum{dim = 1}", "x:sum({1, 2}, keepdim)", function() return x:sum { dim = 1 } end },
  { "dimension 3 of 2", "dimension 3 of a tensor of 2 dimensions", function() return x:mean(3) end },
  { "no_grad without a function", "gq.no_grad(function() ... end)", function() return gq.no_grad(3) end },
  { "for p in net:parameters()", "for _, p in ipairs(net:parameters()) do", function()
    for p in net:parameters() do assert(p) end
  end },
  { "a module where options are", "a module given: name it", function()
    return gq.checkpoint.save("a.ckpt", net)
  end },
  { "a checkpoint of a number", "model: a module expected", function()
    gq.checkpoint.save("a.ckpt", { model = 3 })
  end },
  { "a checkpoint with a name for optimiser", "one of gq.optim", function()
    gq.checkpoint.save("a.ckpt", { model = net, optimiser = "adam" })
  end },
  { "an activation that is none", "function or one of gelu", function()
    return nn.mlp { sizes = { 2, 2 }, activation = "geluu" }
  end },
  { "bins beside the items", "{x, y, bins = ...}", function()
    return gq.plot.hist { { z0 }, bins = 3, out = false }
  end },
  { "T_max", "did you mean 'steps'", function()
    return gq.optim.schedule.cosine(gq.optim.adam(net:parameters()), { T_max = 10 })
  end },
  { "x:median()", "x:sort()", function() return x:median() end },
  { "gq.outer", "gq.einsum", function() return gq.outer(z0, z0) end },
  { "gq.log10", "math.log(10)", function() return gq.log10(x) end },
  { "x:masked_fill", "gq.where(mask, value, x)", function() return x:masked_fill(x:gt(0), 1) end },
  { "x:add_", "x[{}] = x + y", function() return x:add_(1) end },
  { "to a device and a dtype", "x:to(\"float64\"):to(\"cpu\")", function() return x:to("cpu", "float64") end },
  { "data that is no iterator", "returns an iterator gq.data.batches", function()
    return gq.train { model = net, optimiser = gq.optim.adam(net:parameters()), data = function() return x end,
      epochs = 1, loss = gq.mse_loss, progress = false }
  end },
  { "a heat map of nothing", "a tensor {#y, #x} expected", function() return gq.plot.heat { gq.zeros(0, 3) } end },
  { "checkgrad without inputs", "a list of float64 tensors", function() return gq.checkgrad(gq.sin) end },
  { "experiment without anything", "'options' is missing", function() return gq.experiment() end },
  { "gq.allow_tf32(1)", "true or false", function() return gq.allow_tf32(1) end },
  { "x:numpy()", "write x:totable()", function() return x:numpy() end },
  { "x:cuda()", "x:to(\"cuda\")", function() return x:cuda() end },
  { "x.T", "x:t()", function() return x.T end },
  { "x:astype", "x:to(\"float64\")", function() return x:astype("float64") end },
  { "x:Sum()", "write x:sum", function() return x:Sum() end },
  { "x:reshpe", "write x:reshape", function() return x:reshpe(8) end },
  { "item of many numbers", "x:totable()", function() return x:item() end },
  { "math.sin of a tensor", "gq.sin", function() return math.sin(x) end },
  { "x < 1", "x:lt(y)", function() return x < 1 end },
  { "a branch on a traced value", "gq.where trace = false", function()
    return gq.odeint(function(_, z) if z[1] > z[2] then return z end return -z end, z0, { 0, 1 })
  end },
  { "matmul that does not fit", "inner sizes 2 and 4", function() return x:matmul(x) end },
  { "float32 with float64", ":to(\"float32\")", function() return x + x:to("float64") end },
  { "a device called gpu", "this build has \"cpu\"", function() return gq.ones(2, { device = "gpu" }) end },
  { "dtype = \"float\"", "\"float32\"", function() return gq.ones(2, { dtype = "float" }) end },
  { "gq.Tensor", "gq.tensor{...}", function() return gq.Tensor { 1 } end },
  { "gq.array", "gq.tensor{...}", function() return gq.array { 1 } end },
  { "gq.seed", "gq.manual_seed(n)", function() return gq.seed(1) end },
  { "gq.linspce", "gq.linspace", function() return gq.linspce(0, 1, 3) end },
  { "cat without a list", "a list of tensors", function() return gq.cat(x, x) end },
  { "odeint_adjoint", "gradient = \"adjoint\"", function() return gq.odeint_adjoint(f, z0, { 0, 1 }) end },
  { "odeint with the state first", "the dynamics come first", function() return gq.odeint(z0, f, { 0, 1 }) end },
  { "one time", "times must be a tensor or a table", function() return gq.odeint(f, z0, 1) end },
  { "times that turn back", "must not change direction", function() return gq.odeint(f, z0, { 0, 2, 1 }) end },
  { "a state of plain numbers", "gq.tensor{...}", function() return gq.odeint(f, { 1, 2 }, { 0, 1 }) end },
  { "dynamics that return nothing", "must return a tensor", function()
    return gq.odeint(function() end, z0, { 0, 1 })
  end },
  { "dynamics that return a list", "got table: return the tensor itself", function()
    return gq.odeint(function(_, z) return { z } end, z0, { 0, 1 })
  end },
  { "a drift that returns a list", "the drift of gq.sdeint must return a tensor, got table", function()
    return gq.sdeint(gq.sde { drift = function(_, z) return { z } end, diffusion = f }, z0, { 0, 1 }, { dt = 0.1 })
  end },
  { "a diffusion that is a number", "the diffusion of gq.sdeint must return a tensor, got number 0.1: a constant",
    function()
    return gq.sdeint(gq.sde { drift = f, diffusion = function() return 0.1 end }, z0, { 0, 1 }, { dt = 0.1 })
  end },
  { "dt = 1e-300", "take longer steps", function()
    return gq.sdeint(gq.sde { drift = f, diffusion = f }, z0, { 0, 1 }, { dt = 1e-300 })
  end },
  { "step_size of a million steps", "on a fixed grid lengthen step_size", function()
    return gq.odeint(f, z0, { 0, 1 }, { method = "rk4", step_size = 1e-6 })
  end },
  { "method = \"dorpi5\"", "did you mean \"dopri5\"", function()
    return gq.odeint(f, z0, { 0, 1 }, { method = "dorpi5" })
  end },
  { "tol", "rtol and atol", function() return gq.odeint(f, z0, { 0, 1 }, { tol = 1e-3 }) end },
  { "dt", "step_size", function() return gq.odeint(f, z0, { 0, 1 }, { dt = 1e-3 }) end },
  { "nn.linear", "gq.nn.Linear", function() return nn.linear(2, 3) end },
  { "nn.MSELoss", "gq.mse_loss(x, y)", function() return nn.MSELoss() end },
  { "nn.mlp without names", "{sizes = ...}", function() return nn.mlp { 2, 3, 1 } end },
  { "a layer of another width", "{..., 3} expected", function() return nn.Linear(3, 2)(x) end },
  { "Adam", "gq.optim.adam", function() return gq.optim.Adam(net:parameters()) end },
  { "the network for its parameters", "net:parameters()", function() return gq.optim.adam(net) end },
  { "net.parameters()", "with a colon", function() return gq.optim.adam(net.parameters()) end },
  { "learning_rate", "here: lr", function() return gq.optim.adam(net:parameters(), { learning_rate = 1 }) end },
  { "optimiser.step()", "optimiser:step()", function() return gq.optim.adam(net:parameters()).step() end },
  { "backward of many numbers", ":sum() or :mean()", function() net(x):backward() end },
  { "backward of what has no gradient", "requires_grad = true", function() x:sum():backward() end },
  { "an assignment into a result", "gq.where", function() local y = net(x) y[1] = 3 end },
  { "optimizer", "did you mean 'optimiser'", function() gq.train { model = net, optimizer = 1 } end },
  { "n_epochs", "did you mean 'epochs'", function() gq.train { model = net, n_epochs = 1 } end },
  { "losses of different shapes", "{3, 1} and {3}", function() gq.mse_loss(gq.randn(3, 1), gq.randn(3)) end },
  { "saving to .pt", ".safetensors", function() gq.save("model.pt", { x = x }) end },
  { "saving a network", "net:state_dict()", function() gq.save("m.safetensors", net) end },
  { "loading what is not there", "No such file", function() gq.load("none.csv") end },
  { "gq.plot(x)", "gq.plot.line{ {x, y} }", function() gq.plot({ 1, 2 }) end },
  { "plots by x, y", "as {x, y}", function() gq.plot.line({ 1, 2 }, { 3, 4 }) end },
  { "savefig", "'out'", function() gq.plot.line { { { 1, 2 }, { 3, 4 } }, savefig = "a.svg" } end },
  { "imshow", "gq.plot.heat", function() gq.plot.imshow(x) end },
  { "gq.softplus(x, beta)", "knows no option: got number 2", function() return gq.softplus(x, 2) end },
  { "x:gelu(\"tanh\")", "knows no option: got string \"tanh\"", function() return x:gelu("tanh") end },
  { "nn.Softplus(beta)", "nn.Softplus takes no option", function() return nn.Softplus(2) end },
  { "selu", "x:elu", function() return x:selu() end },
  { "relu6", "x:clamp(0, 6)", function() return gq.relu6(x) end },
  { "NeuralODE", "gq.odeint(net, z0, t)", function() return nn.NeuralODE(nn.Linear(2, 2)) end },
  { "tqdm", "gq.progress(n)", function() return gq.tqdm(3) end },
  { "repeat", "x:expand(...)", function() return x["repeat"](x, 2, 1) end },
  { "named_modules", "net:modules()", function() return nn.Linear(2, 2):named_modules() end },
  { "odeint_event", "{event = g}", function() return gq.odeint_event(f, z0, 0, { event_fn = f }) end },
  { "BrownianInterval", "gq.brownian{...}", function() return gq.BrownianInterval() end },
  { "BCEWithLogitsLoss", "{logits = true}", function() return nn.BCEWithLogitsLoss() end },
  { "StepLR", "gq.optim.schedule.step", function() return gq.optim.schedule.StepLR() end },
  { "TensorDataset", "{x = ..., y = ...}", function() return gq.data.TensorDataset(x, x) end },
  { "the number that a jacobian is of", "f must be a function", function() return gq.jacobian(3, x) end },
  { "several states, one slope", "mistakes_spec.lua", function()
    return gq.odeint(function(_, z) return { z[1] } end, { z0, z0 }, { 0, 1 })
  end },
  { "numbers in a .safetensors", "argument #2 to 'save' 'lr': tensor expected", function()
    return gq.save("a.safetensors", { lr = 0.1 })
  end },
  { "less than no steps", "how many steps there are, got -1", function() return gq.progress(-1) end },
  { "dt = 0 of an Ito SDE", "dt is 0: expected a positive number", function()
    local sde = gq.sde { drift = f, diffusion = f, noise = "diagonal", calculus = "ito" }
    return gq.sdeint(sde, z0, { 0, 1 }, { dt = 0 })
  end },
  { "options among the times", "key 'method' options are the next argument", function()
    return gq.odeint(f, z0, { 0, 1, method = "rk4" })
  end },
  { "options twice", "got table behind them: options are one table", function()
    return gq.odeint(f, z0, { 0, 1 }, {}, { method = "rk4" })
  end },
  { "options twice, of an SDE", "got table behind them: options are one table", function()
    local sde = gq.sde { drift = f, diffusion = f, noise = "diagonal", calculus = "ito" }
    return gq.sdeint(sde, z0, { 0, 1 }, { dt = 0.1 }, { seed = 3 })
  end },
  { "max_pool2d with padding as a number", "{stride = 2, padding = 1}; got number 1", function()
    return gq.max_pool2d(gq.randn(1, 1, 4, 4), 2, 2, 1)
  end },
  { "x:softmax{dim = 2}", "write x:softmax(dim)", function() return x:softmax { dim = 2 } end },
  { "x:logsumexp{dim = 1}", "write x:logsumexp(dim)", function() return x:logsumexp { dim = 1 } end },
  { "step(closure) of Adam", "gq.optim.lbfgs", function()
    return gq.optim.adam(net:parameters()):step(function() return net(x):sum() end)
  end },
  { "the norm of clip_grad_norm", "that of squares, got number 1", function()
    return gq.optim.clip_grad_norm(net:parameters(), 1, 1)
  end },
  { "entries from behind to before", "got 3 to 2", function() return nn.Select(3, 2) end },
  { "a network to two places", "net:to(\"float64\"):to(\"cpu\")", function() return net:to("float64", "cpu") end },
  { "a width of 0", "mistakes_spec.lua n_out: an integer of at least 1", function()
    local empty = nn.mlp { sizes = { 2, 0, 2 } }
    return empty
  end },
  { "net:cuda()", "net:to(\"cuda\")", function() return net:cuda() end },
  { "net:double()", "net:to(\"float64\")", function() return net:double() end },
  { "register_buffer", "a tensor in a field", function()
    local Own = nn.Module:extend "Own"
    function Own:init() self:register_buffer("mean", x) end
    return Own()
  end },
  { "ipairs past the end", "for i = 1, #x", function() return x[5] end },
}

describe("what newcomers get wrong", function()
  for _, m in ipairs(mistakes) do
    it(m[1] .. ": the message says what to write", function()
      local text = helper.message(m[3])
      for word in m[2]:gmatch("%S+") do
        assert.truthy(text:find(word, 1, true), ("'%s' expected in: %s"):format(word, text))
      end
    end)
  end

  it("but asking for what has no likeness is nil", function()
    assert.is_nil(gq.nothing_of_the_kind)
    assert.is_nil(nn.QuantumLayer)
    assert.is_nil(x.whatever)
    assert.is_nil(gq._private)
    assert.equal(rawget(gq, "tensor"), gq.tensor)
  end)
end)

describe("tensors in text", function()
  it("are their number, or what print shows", function()
    assert.equal("loss 0.5", "loss " .. gq.tensor(0.5))
    assert.equal("0.5 is it", gq.tensor { { 0.5 } } .. " is it")
    assert.equal("3 and true", gq.tensor(3):to("int64") .. " and " .. gq.tensor(1):gt(0))
    assert.equal(("x: %s"):format(x), "x: " .. x)
    assert.equal("1.02", gq.ones(1) .. 2)
  end)

  it("of the library's own files are errors at the line of the script", function()
    for _, code in ipairs { "local y = gq.nn.Linear(2, 3)(gq.ones(2, {dtype = 'float64'}))", "gq.save('a.npy', 3)",
      "gq.optim.clip_grad_norm(gq.nn.Linear(2, 3):parameters())", "local y = gq.mse_loss(gq.ones(2))",
      "local y = gq.nn.Embedding(3, 2)(gq.tensor({0}, {dtype = 'int64'}))", "local y = gq.ones(2, 2):softmax(3)",
      "local o = gq.optim.adam({gq.ones(2, {requires_grad = true})}, {lr = 'x'})", "local y = gq.load('nothing.csv')",
      "local y = gq.load('nothing.npy')", "local c = gq.checkpoint.describe('nothing.ckpt')" } do
      local ok, e = pcall(load("local gq = ...\n" .. code .. "\nreturn 1", "=script"), gq)
      assert.is_false(ok, code)
      assert.matches("^script:2: ", e, nil, code)
      assert.falsy(e:find(":2: .*:2: "), e)
    end
  end)
end)
