-- examples.lua -- the examples of gq.help: a name, then its lines, which run one after the other. --> is what the line
-- gives, or prints. tests/examples.lua runs them all.

return [==[
abs
  gq.abs(gq.tensor {-1.5, 2}) --> tensor({1.5, 2}, float32)
  gq.tensor {{-1, 3}}:abs():sum():item() --> 4.0
acos
  gq.acos(gq.tensor {1, -1}) * (1 / math.pi) --> tensor({0, 1}, float32)
  gq.tensor(2):acos():isnan():item() --> true
adaptive_avg_pool1d
  gq.adaptive_avg_pool1d(gq.arange(1, 6):reshape(1, 1, 6), 3) --> tensor({{{1.5, 3.5, 5.5}}}, float32)
  gq.adaptive_avg_pool1d(gq.randn(2, 3, 7), 1).shape[3] --> 1
adaptive_avg_pool2d
  gq.adaptive_avg_pool2d(gq.randn(2, 3, 8, 8), 4).shape[4] --> 4
  gq.adaptive_avg_pool2d(gq.ones(1, 1, 6, 5), {1, 1}):item() --> 1.0
adaptive_max_pool1d
  gq.adaptive_max_pool1d(gq.arange(1, 6):reshape(1, 1, 6), 3) --> tensor({{{2, 4, 6}}}, float32)
  gq.adaptive_max_pool1d(gq.randn(2, 3, 7), 1).shape[3] --> 1
adaptive_max_pool2d
  gq.adaptive_max_pool2d(gq.randn(2, 3, 8, 8), 4).shape[4] --> 4
  gq.adaptive_max_pool2d(gq.arange(1, 6):reshape(1, 1, 2, 3), {1, 2}) --> tensor({{{{5, 6}}}}, float32)
add
  gq.tensor {1, 2} + 10 --> tensor({11, 12}, float32)
  gq.add(gq.ones(2, 1), gq.tensor {1, 2}) --> tensor({{2, 3}, {2, 3}}, float32)
all
  gq.tensor {1, 2}:gt(0):all():item() --> true
  gq.tensor {{1, 0}, {1, 1}}:gt(0):all(2) --> tensor({false, true}, bool)
allow_tf32
  gq.allow_tf32() --> false
  gq.allow_tf32(false)
any
  gq.tensor {1, -2}:lt(0):any():item() --> true
  gq.tensor {{1, 0}, {0, 0}}:gt(0):any(2) --> tensor({true, false}, bool)
arange
  gq.arange(1, 4) --> tensor({1, 2, 3, 4}, float32)
  gq.arange(0, 1, 0.25, {dtype = "float64"}) --> tensor({0, 0.25, 0.5, 0.75, 1}, float64)
argmax
  gq.tensor {3, 9, 2}:argmax():item() --> 2
  gq.tensor {{1, 2}, {4, 3}}:argmax(2) --> tensor({2, 1}, int64)
argmin
  gq.tensor {3, 9, 2}:argmin():item() --> 3
  gq.tensor {{1, 2}, {4, 3}}:argmin(1) --> tensor({1, 1}, int64)
argsort
  gq.tensor {3, 1, 2}:argsort() --> tensor({2, 3, 1}, int64)
  gq.argsort(gq.tensor {3, 1, 2}, 1, {descending = true}) --> tensor({1, 3, 2}, int64)
asin
  gq.asin(gq.tensor {0, 1}) * (2 / math.pi) --> tensor({0, 1}, float32)
  gq.tensor(-1):asin():item() < -1.57 --> true
atan
  gq.atan(gq.tensor {0}):item() --> 0.0
  gq.tensor {math.huge}:atan():item() > 1.57 --> true
atan2
  gq.atan2(gq.tensor {1, 0}, gq.tensor {0, -1}) * (2 / math.pi) --> tensor({1, 2}, float32)
  gq.atan2(gq.tensor {0}, gq.tensor {1}):item() --> 0.0
avg_pool1d
  gq.avg_pool1d(gq.arange(1, 6):reshape(1, 1, 6), 2) --> tensor({{{1.5, 3.5, 5.5}}}, float32)
  gq.avg_pool1d(gq.randn(4, 3, 10), 3, {stride = 1}).shape[3] --> 8
avg_pool2d
  gq.avg_pool2d(gq.ones(1, 1, 4, 4), 2).shape[3] --> 2
  gq.avg_pool2d(gq.ones(1, 1, 4, 6), {2, 3}, {stride = 1}).shape[4] --> 4
backward
  w = gq.tensor({1, 2}, {requires_grad = true})
  (w * w):sum():backward()
  print(w.grad) --> tensor({2, 4}, float32)
  (3 * w):backward(gq.tensor {1, 10})
  print(w.grad) --> tensor({5, 34}, float32)
batch_norm
  x = gq.randn(8, 3)
  gq.batch_norm(x, gq.zeros(3), gq.ones(3)).shape[2] --> 3
  y = gq.batch_norm(x, gq.zeros(3), gq.ones(3), gq.ones(3), gq.zeros(3), {training = true})
  y:mean():abs():item() < 1e-6 --> true
bce_loss
  gq.bce_loss(gq.tensor {0.5, 0.5}, gq.tensor {0, 1}) --> tensor(0.693147, float32)
  gq.bce_loss(gq.tensor {4, -4}, gq.tensor {1, 0}, {logits = true, reduction = "sum"}):item() < 0.04 --> true
brownian
  b = gq.brownian {t1 = 1, shape = {3}, seed = 7}
  b(0.5).shape[1] --> 3
  b({0, 0.5}, {0.5, 1}).shape[1] --> 2
  (b(0, 1) - b(0, 0.3) - b(0.3, 1)):abs():max():item() < 1e-6 --> true
cat
  gq.cat {gq.ones(2), gq.zeros(1)} --> tensor({1, 1, 0}, float32)
  gq.cat({gq.ones(2, 1), gq.zeros(2, 1)}, 2) --> tensor({{1, 0}, {1, 0}}, float32)
cde
  t, x = gq.linspace(0, 1, 5), gq.randn(5, 2)
  path = gq.interpolate(t, x, {kind = "cubic"})
  net = gq.nn.mlp {sizes = {3, 8, 3 * 2}}
  gq.odeint(gq.cde(net, path), gq.zeros(3), {path.t0, path.t1}).shape[2] --> 3
  z = gq.odeint(gq.cde(function(t, z) return gq.ones(3, 2) end, path), gq.zeros(3), {0, 1})
  z.shape[1] --> 2
ceil
  gq.ceil(gq.tensor {1.2, -1.2}) --> tensor({2, -1}, float32)
  gq.tensor(0.1):ceil():item() --> 1.0
checkgrad
  x = gq.tensor({1, 2}, {dtype = "float64", requires_grad = true})
  (gq.checkgrad(function(x) return (x ^ 3):sum() end, {x})) --> true
  (gq.checkgrad(function(x) return x:sin():sum() end, {x}, {order = 2})) --> true
checkpoint.describe
  net = gq.nn.mlp {sizes = {2, 4, 1}}
  gq.checkpoint.save("net.safetensors", {model = net, epoch = 3})
  gq.checkpoint.describe("net.safetensors").epoch --> 3
  gq.checkpoint.describe("net.safetensors").numbers --> 17
checkpoint.keeper
  net = gq.nn.mlp {sizes = {2, 4, 1}}
  keep = gq.checkpoint.keeper("runs/net", {last = 2})
  from = keep:load {model = net}
  for epoch = (from and from.epoch or 0) + 1, 4 do keep:save({model = net, epoch = epoch}, 1 / epoch) end
  keep:latest() --> runs/net-4.safetensors 4
  keep:best() --> runs/net-best.safetensors 0.25
checkpoint.load
  net = gq.nn.mlp {sizes = {2, 4, 1}}
  opt = gq.optim.adam(net:parameters())
  gq.checkpoint.save("run.safetensors", {model = net, optimiser = opt, epoch = 7})
  gq.checkpoint.load("run.safetensors", {model = net, optimiser = opt}).epoch --> 7
  gq.checkpoint.load("run.safetensors").model["1.weight"].shape[1] --> 4
checkpoint.save
  net = gq.nn.mlp {sizes = {2, 4, 1}}
  gq.checkpoint.save("a.safetensors", {model = net, epoch = 1})
  opt = gq.optim.adam(net:parameters())
  gq.checkpoint.save("b.safetensors", {model = net, optimiser = opt, extra = {note = "tried"}})
cholesky
  gq.cholesky(gq.tensor {{4, 2}, {2, 5}}) --> tensor({{2, 0}, {1, 2}}, float32)
  a = gq.randn(3, 3); a = a:matmul(a:t()) + gq.eye(3)
  l = a:cholesky()
  (l:matmul(l:t()) - a):abs():max():item() < 1e-5 --> true
clamp
  gq.tensor {-2, 0.5, 3}:clamp(-1, 1) --> tensor({-1, 0.5, 1}, float32)
  gq.clamp(gq.tensor {-2, 3}, 0) --> tensor({0, 3}, float32)
cli
  o = gq.cli({about = "A script.", "epochs", {"width", 20, "hidden width"}}, {"--width", "8"})
  o.width --> 8
  gq.cli({"lr"}, {"--lr=0.5"}).lr --> 0.5
clip_grad_norm
  w = gq.tensor({3, 4}, {requires_grad = true}); (w * w / 2):sum():backward()
  gq.clip_grad_norm({w}, 1) --> 5.0
  w.grad --> tensor({0.6, 0.8}, float32)
clock
  started = gq.clock()
  gq.clock() - started < 1 --> true
  gq.clock() > 0 --> true
clone
  x = gq.ones(2); y = x:clone(); y[1] = 5
  x --> tensor({1, 1}, float32)
  gq.clone(y) --> tensor({5, 1}, float32)
contiguous
  x = gq.tensor {{1, 2}, {3, 4}}:t()
  x:is_contiguous() --> false
  x:contiguous():is_contiguous() --> true
conv1d
  gq.conv1d(gq.arange(1, 5):reshape(1, 1, 5), gq.ones(1, 1, 3)) --> tensor({{{6, 9, 12}}}, float32)
  gq.conv1d(gq.randn(4, 2, 16), gq.randn(6, 2, 3), {padding = "same"}).shape[3] --> 16
conv2d
  x, w = gq.randn(4, 3, 8, 8), gq.randn(6, 3, 3, 3)
  gq.conv2d(x, w, {padding = 1}).shape[3] --> 8
  gq.conv2d(x, w, gq.zeros(6), {stride = 2}).shape[3] --> 3
conv_transpose1d
  gq.conv_transpose1d(gq.ones(1, 1, 2), gq.ones(1, 1, 2), {stride = 2}) --> tensor({{{1, 1, 1, 1}}}, float32)
  gq.conv_transpose1d(gq.randn(4, 6, 8), gq.randn(6, 2, 3)).shape[3] --> 10
conv_transpose2d
  gq.conv_transpose2d(gq.randn(4, 6, 8, 8), gq.randn(6, 3, 2, 2), {stride = 2}).shape[4] --> 16
  gq.conv_transpose2d(gq.ones(1, 1, 1, 1), gq.ones(1, 1, 2, 2)):sum():item() --> 4.0
copy_
  x = gq.zeros(2, 2)
  x:copy_(gq.tensor {1, 2}) --> tensor({{1, 2}, {1, 2}}, float32)
  x:copy_(7) --> tensor({{7, 7}, {7, 7}}, float32)
cos
  gq.cos(gq.zeros(1)):item() --> 1.0
  gq.tensor {0, math.pi}:cos() --> tensor({1, -1}, float32)
cosh
  gq.cosh(gq.tensor {0}):item() --> 1.0
  gq.tensor {1}:cosh():item() > 1.54 --> true
cross_entropy
  gq.cross_entropy(gq.tensor {{2, 0}, {0, 2}}, gq.tensor({1, 2}, {dtype = "int64"})):item() < 0.13 --> true
  gq.cross_entropy(gq.zeros(2, 4), gq.tensor({1, 4}, {dtype = "int64"}), {reduction = "none"}).shape[1] --> 2
cumprod
  gq.tensor {1, 2, 3}:cumprod(1) --> tensor({1, 2, 6}, float32)
  gq.cumprod(gq.tensor {{1, 2}, {3, 4}}, 2) --> tensor({{1, 2}, {3, 12}}, float32)
cumsum
  gq.tensor {1, 2, 3}:cumsum(1) --> tensor({1, 3, 6}, float32)
  gq.cumsum(gq.tensor {{1, 2}, {3, 4}}, 1) --> tensor({{1, 2}, {4, 6}}, float32)
data.at_times
  t = gq.tensor {{0, 1}, {0, 2}}
  times, index = gq.data.union_times(t)
  z = gq.odeint(function(_, z) return -z end, gq.ones(2, 1), times)
  gq.data.at_times(z, index).shape[2] --> 2
  gq.data.at_times(z, index)[1][1]:item() --> 1.0
data.augment
  x = gq.rand(4, 3, 8, 8)
  gq.data.augment(x, {flip = true, seed = 1}).shape[4] --> 8
  gq.data.augment(x, {crop = 2, seed = gq.split_seed(1, 2, 3)}).shape[3] --> 8
data.batches
  set = {x = gq.arange(1, 5):reshape(5, 1), y = gq.zeros(5)}
  for x, y in gq.data.batches(set, {batch_size = 2}) do print(#x) end --> 2 2 1
  n = 0
  for x in gq.data.batches(set, {batch_size = 2, shuffle = true, seed = 1, drop_last = true}) do n = n + #x end
  n --> 4
data.cifar10
  pcall(gq.data.cifar10, {data = "nowhere"}) -- false, and where the files are from
  ok, set = pcall(gq.data.cifar10, {train = 1000, test = 100})
data.cifar100
  pcall(gq.data.cifar100, {data = "nowhere"}) -- false, and where the files are from
  ok, set = pcall(gq.data.cifar100, {train = 1000, test = 100})
data.crossing
  set = gq.data.crossing {}
  set.train.x --> tensor({{1}, {-1}}, float32)
  set.test.y --> tensor({{-1}, {1}}, float32)
data.density
  set = gq.data.density {name = "moons", train = 100, test = 10, seed = 1}
  set.train.x.shape[1] --> 100
  set.log_prob(set.test.x).shape[1] --> 10
data.fashion_mnist
  pcall(gq.data.fashion_mnist, {data = "nowhere"}) -- the set where Debian's package is installed
  ok, set = pcall(gq.data.fashion_mnist, {train = 100, test = 10})
data.images
  pcall(gq.data.images, "photographs") -- false, and what is missing
  pcall(gq.data.images, "photographs", {channels = 1})
data.mnist
  pcall(gq.data.mnist, {data = "nowhere"}) -- false, and where the files are from
  ok, set = pcall(gq.data.mnist, {train = 1000, test = 100})
data.nested_spheres
  set = gq.data.nested_spheres {seed = 1, train = 100, test = 10}
  #set.train.x --> 200
  gq.data.nested_spheres({seed = 1, dim = 3}).train.x.shape[2] --> 3
data.ornstein_uhlenbeck
  set = gq.data.ornstein_uhlenbeck {seed = 1, train = 4, test = 2, samples = 5, times = {0, 0.5, 1}}
  set.train.y.shape[2] --> 3
  set = gq.data.ornstein_uhlenbeck {train = 1, test = 1, samples = 2, theta = 1, times = {0, 1}}
  #set.test.x --> 1
data.sines
  set = gq.data.sines {seed = 1, train = 3, times = 10}
  set.train.y.shape[2] --> 10
  gq.data.sines({seed = 1, train = 3, times = 10, regular = false}).train.t.shape[1] --> 3
data.spirals
  set = gq.data.spirals {seed = 1, train = 5, test = 2, times = 12}
  set.train.y.shape[3] --> 2
  gq.data.spirals({train = 2, test = 2, noise = 0}).train.t.shape[2] --> 30
data.split
  parts = gq.data.split(gq.arange(1, 10), {test = 0.3, seed = 1})
  #parts.train, #parts.test --> 7 3
  #gq.data.split({x = gq.randn(8, 2), y = gq.zeros(8)}, {test = 2, validate = 1, shuffle = false}).train.x --> 5
data.standardise
  x = gq.tensor {{1}, {3}}
  scale = gq.data.standardise(x)
  scale(x) --> tensor({{-1}, {1}}, float32)
  scale:undo(gq.zeros(1, 1)):item() --> 2.0
data.svhn
  pcall(gq.data.svhn, {data = "nowhere"}) -- false, and where the files are from
  ok, set = pcall(gq.data.svhn, {train = 1000, test = 100})
data.union_times
  times, index = gq.data.union_times(gq.tensor {{0, 1}, {0, 2}})
  #times --> 3
  index --> tensor({{1, 2}, {1, 3}}, int64)
default_device
  gq.default_device() --> cpu
  gq.zeros(2).device == gq.default_device() --> true
default_dtype
  gq.default_dtype() --> float32
  gq.zeros(2).dtype == gq.default_dtype() --> true
det
  gq.det(gq.tensor {{2, 1}, {1, 3}}):round():item() --> 5.0
  gq.eye(3):det():item() --> 1.0
detach
  w = gq.ones(2, {requires_grad = true})
  (2 * w):detach().requires_grad --> false
  w:detach() --> tensor({1, 1}, float32)
devices
  gq.devices()[1] --> cpu
  for _, name in ipairs(gq.devices()) do print(name) end
  gq.devices(true).cpu --> cpu
diag
  gq.tensor {1, 2}:diag() --> tensor({{1, 0}, {0, 2}}, float32)
  gq.diag(gq.tensor {{1, 2}, {3, 4}}) --> tensor({1, 4}, float32)
dim
  gq.zeros(2, 3):dim() --> 2
  gq.tensor(1):dim() --> 0
div
  gq.tensor {1, 2} / 4 --> tensor({0.25, 0.5}, float32)
  gq.div(gq.ones(2, 1), gq.tensor {2, 4}) --> tensor({{0.5, 0.25}, {0.5, 0.25}}, float32)
dot
  gq.tensor {1, 2}:dot(gq.tensor {3, 4}):item() --> 11.0
  gq.dot(gq.ones(3), gq.ones(3)):item() --> 3.0
dropout
  gq.dropout(gq.ones(4), 0.5, {seed = 1}).shape[1] --> 4
  gq.dropout(gq.ones(2), 0.5, {training = false}) --> tensor({1, 1}, float32)
dropout2d
  gq.dropout2d(gq.ones(2, 3, 4, 4), 0.5, {seed = 1}).shape[2] --> 3
  gq.dropout2d(gq.ones(1, 2, 1, 2), 0.5, {training = false}):sum():item() --> 4.0
eigh
  values, vectors = gq.eigh(gq.tensor {{2, 1}, {1, 2}})
  values --> tensor({1, 3}, float32)
  gq.eye(2):eigh() --> tensor({1, 1}, float32) tensor({{1, 0}, {0, 1}}, float32)
einsum
  a, b = gq.tensor {{1, 2}, {3, 4}}, gq.ones(2, 2)
  gq.einsum("ij,jk->ik", a, b) --> tensor({{3, 3}, {7, 7}}, float32)
  gq.einsum("ii", a) --> tensor(5, float32)
  gq.einsum("bi,bj->bij", a, b).shape[3] --> 2
elu
  gq.tensor {1, -100}:elu() --> tensor({1, -1}, float32)
  gq.elu(gq.tensor {-100}, 2):item() --> -2.0
embedding
  w = gq.tensor {{1, 1}, {2, 2}, {3, 3}}
  gq.embedding(gq.tensor({3, 1}, {dtype = "int64"}), w) --> tensor({{3, 3}, {1, 1}}, float32)
  gq.embedding(gq.randint(1, 3, 4, 5), w).shape[3] --> 2
epoch_line
  gq.epoch_line {epoch = 3, train_loss = 0.25, seconds = 1.5} --> epoch 3 train loss 0.2500 1.50 s
  gq.epoch_line {epoch = 0, test_loss = 0.5} --> epoch 0 test loss 0.5000
eq
  gq.tensor {1, 2}:eq(2) --> tensor({false, true}, bool)
  gq.eq(gq.tensor {1, 2}, gq.tensor {1, 3}):all():item() --> false
erf
  gq.erf(gq.tensor {0}):item() --> 0.0
  gq.tensor {10, -10}:erf() --> tensor({1, -1}, float32)
exp
  gq.exp(gq.tensor {0}):item() --> 1.0
  gq.tensor {0, 1}:log1p():exp() --> tensor({1, 2}, float32)
expand
  gq.tensor {{1}, {2}}:expand(2, 3) --> tensor({{1, 1, 1}, {2, 2, 2}}, float32)
  gq.ones(3):expand(2, -1).shape[1] --> 2
expand_as
  gq.tensor {{1}, {2}}:expand_as(gq.zeros(2, 2)) --> tensor({{1, 1}, {2, 2}}, float32)
  gq.tensor(1):expand_as(gq.zeros(2)) --> tensor({1, 1}, float32)
experiment
  o = gq.cli({about = "A fit.", "seed", "seeds", "json", "quiet"}, {"--quiet", "--seed", "4"})
  run = function(seed) return {{epoch = 0, test_loss = seed / 8}} end
  gq.experiment({options = o, metric = "test_loss", run = run}).summary.test_loss --> 0.5
  gq.help "experiment"
expm1
  gq.expm1(gq.tensor {0}):item() --> 0.0
  gq.tensor({1e-20}, {dtype = "float64"}):expm1():item() --> 1e-20
eye
  gq.eye(2) --> tensor({{1, 0}, {0, 1}}, float32)
  gq.eye(3, {dtype = "float64"}):sum():item() --> 3.0
file_append
  gq.file_append("notes.txt", "first"); gq.file_append("notes.txt", "second")
  gq.file_read("notes.txt") --> first second
file_read
  gq.file_write("a.txt", "some text")
  gq.file_read("a.txt") --> some text
  #gq.file_read("a.txt") --> 9
file_write
  gq.file_write("a.txt", "some text")
  gq.file_read("a.txt") --> some text
  gq.file_write("a.json", gq.json.encode {a = 1})
  gq.file_read("a.json") --> {"a":1}
flatten
  gq.zeros(2, 3, 4):flatten().shape[1] --> 24
  gq.zeros(2, 3, 4):flatten(2).shape[2] --> 12
flip
  gq.tensor {1, 2, 3}:flip(1) --> tensor({3, 2, 1}, float32)
  gq.flip(gq.tensor {{1, 2}, {3, 4}}, {1, 2}) --> tensor({{4, 3}, {2, 1}}, float32)
floor
  gq.floor(gq.tensor {1.7, -1.2}) --> tensor({1, -2}, float32)
  gq.tensor(2.5):floor():item() --> 2.0
floor_divide
  gq.tensor {7, -7} // 2 --> tensor({3, -4}, float32)
  gq.floor_divide(gq.tensor {7}, gq.tensor {3}):item() --> 2.0
flow
  flow = gq.flow {net = gq.nn.mlp {sizes = {2, 8, 2}, time = true}, dim = 2}
  flow:log_prob(gq.randn(5, 2)).shape[1] --> 5
  flow:sample(3).shape[1] --> 3
free
  x = gq.zeros(1000); x:free()
  y = gq.ones(3); gq.free(y)
full
  gq.full({2, 2}, 7) --> tensor({{7, 7}, {7, 7}}, float32)
  gq.full({3}, 0.5, {dtype = "float64"}) --> tensor({0.5, 0.5, 0.5}, float64)
gather
  x = gq.tensor {{1, 2}, {3, 4}}
  x:gather(2, gq.tensor({{2}, {1}}, {dtype = "int64"})) --> tensor({{2}, {3}}, float32)
  gq.gather(x, 1, gq.tensor({{2, 1}}, {dtype = "int64"})) --> tensor({{3, 2}}, float32)
gaussian_kl
  x, y = gq.randn({100, 5}, {seed = 1}), gq.randn({100, 5}, {seed = 2}) * 2
  gq.gaussian_kl(x, y):item() > 0 --> true
  gq.gaussian_kl(x, gq.normal_fit(x)):item() < 1e-6 --> true
gaussian_nll_loss
  gq.gaussian_nll_loss(gq.zeros(2), gq.zeros(2), gq.ones(2)):item() --> 0.0
  gq.gaussian_nll_loss(gq.zeros(2), gq.ones(2), gq.ones(2), {reduction = "none"}) --> tensor({0.5, 0.5}, float32)
ge
  gq.tensor {1, 2, 3}:ge(2) --> tensor({false, true, true}, bool)
  gq.ge(gq.tensor {1}, gq.tensor {2}):item() --> false
gelu
  gq.tensor {0, 100}:gelu() --> tensor({0, 100}, float32)
  gq.gelu(gq.tensor {-100}):abs():item() --> 0.0
grad
  w = gq.tensor({1, 2}, {requires_grad = true})
  gq.grad((w ^ 3):sum(), {w})[1] --> tensor({3, 12}, float32)
  g = gq.grad((w ^ 3):sum(), {w}, {create_graph = true})[1]
  gq.grad(g:sum(), {w})[1] --> tensor({6, 12}, float32)
group_norm
  gq.group_norm(gq.randn(2, 4, 8, 8), 2).shape[2] --> 4
  gq.group_norm(gq.randn(2, 4), 2, gq.ones(4), gq.zeros(4)):mean():abs():item() < 1e-5 --> true
gt
  gq.tensor {1, 2, 3}:gt(2) --> tensor({false, false, true}, bool)
  gq.gt(gq.tensor {1}, 0):item() --> true
help
  gq.help "odeint"
  gq.help(gq.nn.Linear)
hessian_vector
  f = function(x) return (x ^ 3):sum() end
  product, value = gq.hessian_vector(f, gq.tensor {1, 2}, gq.tensor {1, 0})
  product:detach() --> tensor({6, 0}, float32)
  gq.hessian_vector(function(x) return x:prod() end, gq.tensor {2, 3}, gq.tensor {0, 1}):totable()[1] --> 1.0
huber_loss
  gq.huber_loss(gq.tensor {0, 3}, gq.zeros(2), {reduction = "none"}) --> tensor({0, 2.5}, float32)
  gq.huber_loss(gq.tensor {4}, gq.zeros(1), {delta = 2}):item() --> 6.0
index_select
  gq.tensor {10, 20, 30}:index_select(1, gq.tensor({3, 1}, {dtype = "int64"})) --> tensor({30, 10}, float32)
  gq.index_select(gq.eye(3), 2, gq.tensor({2}, {dtype = "int64"})) --> tensor({{0}, {1}, {0}}, float32)
instance_norm
  gq.instance_norm(gq.randn(2, 4, 8, 8)):mean():abs():item() < 1e-5 --> true
  gq.instance_norm(gq.randn(2, 4, 8), gq.ones(4), gq.zeros(4)).shape[3] --> 8
interpolate
  path = gq.interpolate({0, 1, 3}, gq.tensor {0, 10, 30})
  path(2):item() --> 20.0
  gq.interpolate({0, 1, 2}, gq.tensor {{0}, {1}, {4}}, {kind = "cubic"})({0.5, 1}).shape[1] --> 2
inverse
  gq.inverse(gq.tensor {{2, 0}, {0, 4}}) --> tensor({{0.5, 0}, {0, 0.25}}, float32)
  a = gq.tensor {{1, 2}, {3, 5}}
  (a:matmul(a:inverse()) - gq.eye(2)):abs():max():item() < 1e-5 --> true
ipairs
  for i, row in gq.eye(2):ipairs() do print(i, row:sum():item()) end --> 1 1.0 2 1.0
  for i, x in gq.ipairs(gq.tensor {5, 6}) do print(x:item()) end --> 5.0 6.0
is_contiguous
  gq.eye(2):is_contiguous() --> true
  gq.zeros(2, 3):t():is_contiguous() --> false
is_tensor
  gq.is_tensor(gq.zeros(1)) --> true
  gq.is_tensor {1, 2} --> false
isatty
  gq.isatty(1) or "a file or a pipe"
  if gq.isatty(2) then io.stderr:write("someone looks\n") end
isfinite
  gq.tensor {1, math.huge, 0 / 0}:isfinite() --> tensor({true, false, false}, bool)
  gq.isfinite(gq.ones(3)):all():item() --> true
isnan
  gq.tensor {1, 0 / 0}:isnan() --> tensor({false, true}, bool)
  gq.isnan(gq.ones(2)):any():item() --> false
item
  gq.tensor(3):item() --> 3.0
  gq.tensor {1, 2}:sum():item() --> 3.0
jacobian
  gq.jacobian(function(x) return x ^ 2 end, gq.tensor {1, 2}) --> tensor({{2, 0}, {0, 4}}, float32)
  gq.jacobian(function(x) return x:sum() end, gq.tensor {1, 2}) --> tensor({1, 1}, float32)
jet
  gq.jet(function(t, z) return -z end, 0, gq.ones(1), 3)[2]:item() --> 1.0
  #gq.jet(gq.nn.mlp {sizes = {2, 4, 2}, activation = "tanh"}, 0, gq.ones(2), 4) --> 4
json.decode
  gq.json.decode('{"a": [1, 2]}').a[2] --> 2
  gq.json.decode("null") == gq.json.null --> true
json.encode
  gq.json.encode {1, 2.5, "x"} --> [1,2.5,"x"]
  gq.json.encode {a = true} --> {"a":true}
json_array
  gq.json.encode(gq.json_array()) --> []
  gq.json.encode {list = gq.json_array {}} --> {"list":[]}
jvp
  along, value = gq.jvp(function(x) return x ^ 2 end, gq.tensor {1, 2}, gq.tensor {1, 1})
  along --> tensor({2, 4}, float32)
  (gq.jvp(function(x) return x:sum() end, gq.zeros(3), gq.ones(3))):item() --> 3.0
l1_loss
  gq.l1_loss(gq.tensor {1, -3}, gq.zeros(2)):item() --> 2.0
  gq.l1_loss(gq.tensor {1, -3}, gq.zeros(2), {reduction = "none"}) --> tensor({1, 3}, float32)
langevin
  sde = gq.langevin {grad = function(x) return x end, gamma = 2}
  gq.sdeint(sde, gq.zeros(5, 4), {0, 1}, {dt = 0.1, method = "align"}).shape[3] --> 4
  quartic = gq.langevin {grad = function(x) return x ^ 3 end}
  gq.sdeint(quartic, gq.ones(2), {0, 1}, {dt = 0.1, method = "quicsort"}).shape[1] --> 2
layer_norm
  gq.layer_norm(gq.randn(2, 8), 8):mean():abs():item() < 1e-6 --> true
  gq.layer_norm(gq.randn(2, 4, 4), {4, 4}).shape[3] --> 4
le
  gq.tensor {1, 2, 3}:le(2) --> tensor({true, true, false}, bool)
  gq.le(gq.tensor {1}, gq.tensor {1}):item() --> true
leaky_relu
  gq.tensor {1, -100}:leaky_relu() --> tensor({1, -1}, float32)
  gq.leaky_relu(gq.tensor {-10}, 0.5):item() --> -5.0
linspace
  gq.linspace(0, 1, 3) --> tensor({0, 0.5, 1}, float32)
  gq.linspace(5, 1, 5, {dtype = "float64"}) --> tensor({5, 4, 3, 2, 1}, float64)
load
  gq.save("x.csv", gq.tensor {{0, 1}, {1, 3}}, {"t", "x"})
  (gq.load "x.csv") --> tensor({{0, 1}, {1, 3}}, float32)
  (gq.load("x.csv", {columns = {"x"}})) --> tensor({{1}, {3}}, float32)
log
  gq.log(gq.tensor {1}):item() --> 0.0
  gq.tensor {1, 0}:log() --> tensor({0, -inf}, float32)
log1p
  gq.log1p(gq.tensor {0}):item() --> 0.0
  gq.tensor({1e-20}, {dtype = "float64"}):log1p():item() --> 1e-20
log_softmax
  gq.tensor {{1, 1}}:log_softmax():exp() --> tensor({{0.5, 0.5}}, float32)
  gq.log_softmax(gq.randn(2, 5), 1).shape[2] --> 5
logger.csv
  log = gq.logger.csv("log.csv")
  log {epoch = 0, loss = 1}; log {epoch = 1, loss = 0.5}
  gq.load("log.csv").shape[1] --> 2
  net, x = gq.nn.Linear(1, 1), gq.ones(4, 1)
  rows = gq.train {model = net, loss = function(m, a, b) return gq.mse_loss(m(a), b) end, data = {x = x, y = 2 * x},
    optimiser = gq.optim.adam(net:parameters()), epochs = 3, logger = gq.logger.csv("training.csv")}
logger.jsonl
  log = gq.logger.jsonl("log.jsonl")
  log {epoch = 0, loss = 1}
  gq.json.decode(gq.file_read("log.jsonl")).loss --> 1
  log {epoch = 1, loss = gq.tensor(0.5)}
logical_and
  gq.logical_and(gq.tensor {1, 1}:gt(0), gq.tensor {1, -1}:gt(0)) --> tensor({true, false}, bool)
  x = gq.tensor {1, 2, 3}
  x:gt(1):logical_and(x:lt(3)) --> tensor({false, true, false}, bool)
logical_not
  gq.logical_not(gq.tensor {1, -1}:gt(0)) --> tensor({false, true}, bool)
  gq.tensor {1, 2}:eq(1):logical_not() --> tensor({false, true}, bool)
logical_or
  gq.logical_or(gq.tensor {1, -1}:gt(0), gq.tensor {1, -1}:lt(-2)) --> tensor({true, false}, bool)
  x = gq.tensor {1, 2, 3}
  x:lt(2):logical_or(x:gt(2)) --> tensor({true, false, true}, bool)
logsumexp
  gq.tensor {1000, -1000}:logsumexp():item() --> 1000.0
  gq.logsumexp(gq.zeros(2, 1), 2) --> tensor({0, 0}, float32)
lt
  gq.tensor {1, 2, 3}:lt(2) --> tensor({true, false, false}, bool)
  gq.where(gq.tensor {1, -1}:lt(0), 0, gq.tensor {1, -1}) --> tensor({1, 0}, float32)
make_directory
  gq.make_directory("runs/one")
  gq.make_directory("runs/one") -- it may be there already
manual_seed
  gq.manual_seed(1); a = gq.randn(3); gq.manual_seed(1)
  (gq.randn(3) - a):abs():max():item() --> 0.0
  gq.manual_seed(7)
matmul
  gq.tensor {{1, 2}, {3, 4}}:matmul(gq.tensor {1, 1}) --> tensor({3, 7}, float32)
  gq.matmul(gq.randn(5, 2, 3), gq.randn(3, 4)).shape[3] --> 4
max
  gq.tensor {3, 9, 2}:max():item() --> 9.0
  values, places = gq.tensor {{1, 2}, {4, 3}}:max(2)
  places --> tensor({2, 1}, int64)
max_pool1d
  gq.max_pool1d(gq.arange(1, 6):reshape(1, 1, 6), 2) --> tensor({{{2, 4, 6}}}, float32)
  gq.max_pool1d(gq.randn(4, 3, 10), 3, {stride = 1}).shape[3] --> 8
max_pool2d
  gq.max_pool2d(gq.randn(4, 3, 8, 8), 2).shape[4] --> 4
  gq.max_pool2d(gq.randn(4, 3, 8, 8), {2, 4}, {stride = 2}).shape[4] --> 3
maximum
  gq.maximum(gq.tensor {1, 5}, gq.tensor {3, 2}) --> tensor({3, 5}, float32)
  gq.tensor {-1, 1}:maximum(0) --> tensor({0, 1}, float32)
mean
  gq.tensor {1, 2, 6}:mean():item() --> 3.0
  gq.tensor {{1, 3}, {5, 7}}:mean(1) --> tensor({3, 5}, float32)
memory
  x = gq.zeros(1000)
  gq.memory() >= 4000 --> true
  x = gq.zeros(1000); alive, peak = gq.memory()
  alive <= peak --> true
min
  gq.tensor {3, 9, 2}:min():item() --> 2.0
  values, places = gq.tensor {{1, 2}, {4, 3}}:min(1)
  values --> tensor({1, 2}, float32)
minimum
  gq.minimum(gq.tensor {1, 5}, gq.tensor {3, 2}) --> tensor({1, 2}, float32)
  gq.tensor {-1, 1}:minimum(0) --> tensor({-1, 0}, float32)
mse_loss
  gq.mse_loss(gq.tensor {1, 3}, gq.zeros(2)):item() --> 5.0
  gq.mse_loss(gq.tensor {1, 3}, gq.zeros(2), {reduction = "sum"}):item() --> 10.0
mul
  gq.tensor {1, 2} * 3 --> tensor({3, 6}, float32)
  gq.mul(gq.tensor {{1}, {2}}, gq.tensor {1, 10}) --> tensor({{1, 10}, {2, 20}}, float32)
narrate
  gq.narrate("step,mem")       -- solves tell of their steps and bytes on stderr
  gq.narrate(false)            -- no more
narrow
  gq.tensor {1, 2, 3, 4}:narrow(1, 2, 2) --> tensor({2, 3}, float32)
  gq.narrow(gq.eye(3), 2, 1, 1) --> tensor({{1}, {0}, {0}}, float32)
ne
  gq.tensor {1, 2}:ne(2) --> tensor({true, false}, bool)
  gq.ne(gq.tensor {1, 2}, gq.tensor {1, 3}):any():item() --> true
neg
  -gq.tensor {1, -2} --> tensor({-1, 2}, float32)
  gq.neg(gq.tensor {1}):item() --> -1.0
nll_loss
  labels = gq.tensor({1, 2}, {dtype = "int64"})
  gq.nll_loss(gq.zeros(2, 2):log_softmax(), labels):exp() --> tensor(2, float32)
  gq.nll_loss(gq.zeros(2, 2):log_softmax(), labels, {reduction = "none"}).shape[1] --> 2
nn.AdaptiveAvgPool1d
  gq.nn.AdaptiveAvgPool1d(2)(gq.randn(1, 3, 7)).shape[3] --> 2
  gq.nn.AdaptiveAvgPool1d(1)(gq.ones(1, 1, 4)):item() --> 1.0
nn.AdaptiveAvgPool2d
  gq.nn.AdaptiveAvgPool2d(1)(gq.randn(2, 3, 8, 8)).shape[4] --> 1
  gq.nn.Sequential {gq.nn.Conv2d(3, 4, 3), gq.nn.AdaptiveAvgPool2d(2)}(gq.randn(1, 3, 8, 8)).shape[3] --> 2
nn.AdaptiveMaxPool1d
  gq.nn.AdaptiveMaxPool1d(2)(gq.randn(1, 3, 7)).shape[3] --> 2
  gq.nn.AdaptiveMaxPool1d(1)(gq.arange(1, 4):reshape(1, 1, 4)):item() --> 4.0
nn.AdaptiveMaxPool2d
  gq.nn.AdaptiveMaxPool2d(2)(gq.randn(1, 3, 8, 8)).shape[3] --> 2
  gq.nn.AdaptiveMaxPool2d({1, 2})(gq.randn(1, 3, 8, 8)).shape[4] --> 2
nn.Augment
  gq.nn.Augment(2)(gq.ones(1, 2)) --> tensor({{1, 1, 0, 0}}, float32)
  gq.nn.Sequential {gq.nn.Augment(3), gq.nn.Linear(5, 5)}(gq.ones(4, 2)).shape[2] --> 5
nn.AvgPool1d
  gq.nn.AvgPool1d(2)(gq.randn(1, 3, 8)).shape[3] --> 4
  gq.nn.AvgPool1d(3, {stride = 1, padding = 1})(gq.randn(1, 3, 8)).shape[3] --> 8
nn.AvgPool2d
  gq.nn.AvgPool2d(2)(gq.randn(1, 3, 8, 8)).shape[3] --> 4
  gq.nn.AvgPool2d(3, {stride = 1, padding = 1})(gq.randn(1, 3, 8, 8)).shape[3] --> 8
nn.BatchNorm1d
  gq.nn.BatchNorm1d(4)(gq.randn(8, 4)).shape[2] --> 4
  gq.nn.BatchNorm1d(4, {affine = false})(gq.randn(8, 4, 10)).shape[3] --> 10
nn.BatchNorm2d
  gq.nn.BatchNorm2d(3)(gq.randn(2, 3, 4, 4)).shape[4] --> 4
  gq.nn.BatchNorm2d(3, {momentum = 0.01}):eval()(gq.ones(1, 3, 2, 2)):round():max():item() --> 1.0
nn.CNF
  cnf = gq.nn.CNF(gq.nn.mlp {sizes = {2, 8, 2}, time = true})
  z = gq.odeint(cnf, {gq.randn(5, 2), gq.zeros(5)}, {1, 0})
  z[2].shape[2] --> 5
  gq.nn.CNF(gq.nn.mlp {sizes = {3, 8, 3}}, {trace = "hutchinson"})
nn.CircularPad1d
  gq.nn.CircularPad1d(1)(gq.arange(1, 3):reshape(1, 1, 3)) --> tensor({{{3, 1, 2, 3, 1}}}, float32)
  gq.nn.CircularPad1d({2, 0})(gq.ones(1, 1, 3)).shape[3] --> 5
nn.CircularPad2d
  gq.nn.CircularPad2d(1)(gq.ones(1, 1, 2, 2)):sum():item() --> 16.0
  gq.nn.CircularPad2d({1, 0, 0, 0})(gq.arange(1, 2):reshape(1, 1, 1, 2)) --> tensor({{{{2, 1, 2}}}}, float32)
nn.ConstantPad1d
  gq.nn.ConstantPad1d(1, 2)(gq.ones(1, 1, 2)) --> tensor({{{2, 1, 1, 2}}}, float32)
  gq.nn.ConstantPad1d({0, 2}, 3)(gq.ones(1, 1, 2)):sum():item() --> 8.0
nn.ConstantPad2d
  gq.nn.ConstantPad2d(1, -1)(gq.ones(1, 1, 1, 1)):sum():item() --> -7.0
  gq.nn.ConstantPad2d({1, 0, 0, 0}, 3)(gq.ones(1, 1, 1, 1)) --> tensor({{{{3, 1}}}}, float32)
nn.Conv1d
  gq.nn.Conv1d(2, 4, 3)(gq.randn(1, 2, 10)).shape[3] --> 8
  gq.nn.Conv1d(2, 4, 3, {padding = 1, stride = 2})(gq.randn(1, 2, 10)).shape[3] --> 5
nn.Conv2d
  gq.nn.Conv2d(3, 8, 3, {padding = 1})(gq.randn(2, 3, 8, 8)).shape[2] --> 8
  gq.nn.Conv2d(3, 8, {3, 5}, {bias = false})(gq.randn(2, 3, 8, 8)).shape[4] --> 4
nn.ConvTranspose1d
  gq.nn.ConvTranspose1d(4, 2, 2, {stride = 2})(gq.randn(1, 4, 5)).shape[3] --> 10
  gq.nn.ConvTranspose1d(4, 2, 3)(gq.randn(1, 4, 5)).shape[3] --> 7
nn.ConvTranspose2d
  gq.nn.ConvTranspose2d(8, 3, 2, {stride = 2})(gq.randn(1, 8, 4, 4)).shape[4] --> 8
  gq.nn.ConvTranspose2d(8, 3, 3, {padding = 1})(gq.randn(1, 8, 4, 4)).shape[4] --> 4
nn.Dropout
  gq.nn.Dropout(0.2):eval()(gq.ones(3)) --> tensor({1, 1, 1}, float32)
  gq.nn.Sequential {gq.nn.Linear(2, 8), gq.nn.Dropout(0.5), gq.nn.Linear(8, 1)}(gq.ones(4, 2)).shape[2] --> 1
nn.Dropout2d
  gq.nn.Dropout2d(0.2):eval()(gq.ones(1, 2, 1, 1)):sum():item() --> 2.0
  gq.nn.Sequential {gq.nn.Conv2d(1, 4, 3), gq.nn.Dropout2d()}(gq.ones(2, 1, 5, 5)).shape[2] --> 4
nn.ELU
  gq.nn.ELU()(gq.tensor {1, -100}) --> tensor({1, -1}, float32)
  gq.nn.ELU(0.5)(gq.tensor {-100}):item() --> -0.5
nn.Embedding
  gq.nn.Embedding(10, 4)(gq.tensor({1, 10}, {dtype = "int64"})).shape[2] --> 4
  gq.nn.Embedding(5, 2)(gq.randint(1, 5, 3, 4)).shape[3] --> 2
nn.Flatten
  gq.nn.Flatten()(gq.zeros(2, 3, 4)).shape[2] --> 12
  gq.nn.Sequential {gq.nn.Flatten(), gq.nn.Linear(12, 5)}(gq.zeros(2, 3, 4)).shape[2] --> 5
nn.GELU
  gq.nn.GELU()(gq.tensor {0, 100}) --> tensor({0, 100}, float32)
  gq.nn.Sequential {gq.nn.Linear(2, 8), gq.nn.GELU()}(gq.ones(2)).shape[1] --> 8
nn.GRUCell
  cell = gq.nn.GRUCell(3, 5)
  h = cell(gq.randn(2, 3))
  h.shape[2] --> 5
  cell(gq.randn(2, 3), h).shape[1] --> 2
nn.GroupNorm
  gq.nn.GroupNorm(2, 4)(gq.randn(3, 4, 5, 5)).shape[3] --> 5
  gq.nn.GroupNorm(1, 4, {affine = false})(gq.randn(3, 4)):mean():abs():item() < 1e-5 --> true
nn.Identity
  gq.nn.Identity()(gq.tensor {1, 2}) --> tensor({1, 2}, float32)
  gq.nn.Sequential {gq.nn.Identity(), gq.nn.Linear(2, 3)}(gq.ones(2)).shape[1] --> 3
nn.InstanceNorm1d
  gq.nn.InstanceNorm1d(4)(gq.randn(3, 4, 5)).shape[3] --> 5
  gq.nn.InstanceNorm1d(4, {affine = true}).weight:sum():item() --> 4.0
nn.InstanceNorm2d
  gq.nn.InstanceNorm2d(4)(gq.randn(3, 4, 5, 5)).shape[3] --> 5
  gq.nn.InstanceNorm2d(4)(gq.randn(3, 4, 5, 5)):mean():abs():item() < 1e-5 --> true
nn.LayerNorm
  gq.nn.LayerNorm(8)(gq.randn(2, 8)).shape[2] --> 8
  gq.nn.LayerNorm({4, 4}, {affine = false})(gq.randn(2, 4, 4)):mean():abs():item() < 1e-5 --> true
nn.LeakyReLU
  gq.nn.LeakyReLU()(gq.tensor {1, -100}) --> tensor({1, -1}, float32)
  gq.nn.LeakyReLU(0.5)(gq.tensor {-4}):item() --> -2.0
nn.Linear
  gq.nn.Linear(2, 3)(gq.ones(4, 2)).shape[2] --> 3
  #gq.nn.Linear(2, 3, {bias = false}):parameters() --> 1
nn.LogSoftmax
  gq.nn.LogSoftmax()(gq.zeros(1, 2)):exp():sum():item() --> 1.0
  #gq.nn.Sequential {gq.nn.Linear(2, 3), gq.nn.LogSoftmax()}(gq.ones(4, 2)) --> 4
nn.MaxPool1d
  gq.nn.MaxPool1d(2)(gq.tensor {{{1, 5, 2, 3}}}) --> tensor({{{5, 3}}}, float32)
  gq.nn.MaxPool1d(3, {stride = 1})(gq.randn(1, 2, 8)).shape[3] --> 6
nn.MaxPool2d
  gq.nn.MaxPool2d(2)(gq.randn(1, 3, 8, 8)).shape[3] --> 4
  gq.nn.MaxPool2d(3, {stride = 2, padding = 1})(gq.randn(1, 3, 8, 8)).shape[3] --> 4
nn.Module
  Scaled = gq.nn.Module:extend "Scaled"
  function Scaled:init(n) self.net, self.gain = gq.nn.Linear(n, n), gq.ones(1, {requires_grad = true}) end
  function Scaled:forward(x) return self.net(x) * self.gain end
  Scaled(2)(gq.ones(2)).shape[1] --> 2
  #Scaled(2):parameters() --> 3
nn.PixelShuffle
  gq.nn.PixelShuffle(2)(gq.randn(1, 8, 3, 3)).shape[2] --> 2
  gq.nn.Sequential {gq.nn.Conv2d(1, 9, 3, {padding = 1}), gq.nn.PixelShuffle(3)}(gq.ones(1, 1, 4, 4)).shape[4] --> 12
nn.RNNCell
  cell = gq.nn.RNNCell(3, 5)
  h = cell(gq.randn(2, 3))
  h.shape[2] --> 5
  gq.nn.RNNCell(3, 5, {nonlinearity = "relu"})(gq.randn(2, 3), h).shape[2] --> 5
nn.ReLU
  gq.nn.ReLU()(gq.tensor {1, -1}) --> tensor({1, 0}, float32)
  gq.nn.Sequential {gq.nn.Linear(2, 4), gq.nn.ReLU(), gq.nn.Linear(4, 1)}(gq.ones(2)).shape[1] --> 1
nn.ReflectionPad1d
  gq.nn.ReflectionPad1d(1)(gq.arange(1, 3):reshape(1, 1, 3)) --> tensor({{{2, 1, 2, 3, 2}}}, float32)
  gq.nn.ReflectionPad1d({2, 0})(gq.ones(1, 1, 3)).shape[3] --> 5
nn.ReflectionPad2d
  gq.nn.ReflectionPad2d(1)(gq.randn(1, 1, 4, 4)).shape[4] --> 6
  gq.nn.ReflectionPad2d({1, 2, 0, 0})(gq.randn(1, 1, 4, 4)).shape[4] --> 7
nn.ReplicationPad1d
  gq.nn.ReplicationPad1d(1)(gq.arange(1, 2):reshape(1, 1, 2)) --> tensor({{{1, 1, 2, 2}}}, float32)
  gq.nn.ReplicationPad1d({2, 0})(gq.ones(1, 1, 3)).shape[3] --> 5
nn.ReplicationPad2d
  gq.nn.ReplicationPad2d(1)(gq.randn(1, 1, 4, 4)).shape[4] --> 6
  gq.nn.ReplicationPad2d({1, 2, 0, 0})(gq.randn(1, 1, 4, 4)).shape[4] --> 7
nn.SecondOrder
  f = gq.nn.SecondOrder(function(t, z) return -z:narrow(-1, 1, 1) end)
  f(0, gq.tensor {{1, 2}}) --> tensor({{2, -1}}, float32)
  gq.odeint(f, gq.tensor {{1, 0}}, {0, math.pi})[2][1][1]:item() < -0.99 --> true
nn.Select
  gq.nn.Select(2)(gq.tensor {{1, 2, 3}}) --> tensor({{2}}, float32)
  gq.nn.Select(1, 2)(gq.tensor {{1, 2, 3}}) --> tensor({{1, 2}}, float32)
  gq.nn.Select(1, 2, {dim = 2})(gq.ones(1, 3, 8, 8)).shape[2] --> 2
nn.Sequential
  net = gq.nn.Sequential {gq.nn.Linear(2, 8), gq.nn.Tanh(), gq.nn.Linear(8, 1)}
  net(gq.ones(4, 2)).shape[2] --> 1
  gq.nn.Sequential {function(x) return x * 2 end, gq.nn.Identity()}(gq.ones(2)) --> tensor({2, 2}, float32)
nn.SiLU
  gq.nn.SiLU()(gq.tensor {0, 100}) --> tensor({0, 100}, float32)
  gq.nn.Sequential {gq.nn.Linear(2, 8), gq.nn.SiLU()}(gq.ones(2)).shape[1] --> 8
nn.Sigmoid
  gq.nn.Sigmoid()(gq.tensor {0}):item() --> 0.5
  gq.nn.Sequential {gq.nn.Linear(2, 1), gq.nn.Sigmoid()}(gq.ones(2)):lt(1):item() --> true
nn.Sin
  gq.nn.Sin()(gq.tensor {0}):item() --> 0.0
  gq.nn.Sequential {gq.nn.Linear(1, 8), gq.nn.Sin()}(gq.ones(1)).shape[1] --> 8
nn.Softmax
  gq.nn.Softmax()(gq.zeros(1, 2)) --> tensor({{0.5, 0.5}}, float32)
  gq.nn.Softmax(1)(gq.zeros(2, 3)):sum():item() --> 3.0
nn.Softplus
  gq.nn.Softplus()(gq.tensor {100}):item() --> 100.0
  gq.nn.mlp({sizes = {2, 4, 2}, activation = "softplus"})(gq.ones(2)).shape[1] --> 2
nn.Tanh
  gq.nn.Tanh()(gq.tensor {0, 100}) --> tensor({0, 1}, float32)
  gq.nn.mlp({sizes = {2, 4, 2}, activation = "tanh"})(gq.ones(2)).shape[1] --> 2
nn.TimeConcat
  f = gq.nn.TimeConcat(gq.nn.Linear(3, 2))
  f(0.5, gq.ones(4, 2)).shape[2] --> 2
  gq.odeint(f, gq.ones(4, 2), {0, 1}).shape[1] --> 2
  g = gq.nn.TimeConcat(gq.nn.Conv2d(4, 3, 3, {padding = 1}), {dim = 2})
  gq.odeint(g, gq.ones(1, 3, 8, 8), {0, 1}).shape[3] --> 3
nn.Unflatten
  gq.nn.Unflatten {2, 3}(gq.zeros(4, 6)).shape[3] --> 3
  gq.nn.Unflatten(1, {2, 2})(gq.zeros(4, 6)).shape[2] --> 2
nn.Upsample
  gq.nn.Upsample(2)(gq.randn(1, 3, 4, 4)).shape[4] --> 8
  gq.nn.Upsample({size = {6, 8}, mode = "bilinear"})(gq.randn(1, 3, 4, 4)).shape[4] --> 8
nn.ZeroPad1d
  gq.nn.ZeroPad1d(1)(gq.ones(1, 1, 2)) --> tensor({{{0, 1, 1, 0}}}, float32)
  gq.nn.ZeroPad1d({0, 2})(gq.ones(1, 1, 2)).shape[3] --> 4
nn.ZeroPad2d
  gq.nn.ZeroPad2d(1)(gq.ones(1, 1, 2, 2)):sum():item() --> 4.0
  gq.nn.ZeroPad2d({1, 2, 0, 0})(gq.ones(1, 1, 2, 2)).shape[4] --> 5
nn.init.calculate_gain
  gq.nn.init.calculate_gain("tanh") --> 1.6666666666667
  gq.nn.init.calculate_gain("leaky_relu", 1) --> 1.0
nn.init.constant_
  gq.nn.init.constant_(gq.zeros(2), 3) --> tensor({3, 3}, float32)
  net = gq.nn.Linear(2, 1)
  gq.nn.init.constant_(net.bias, 0.5):item() --> 0.5
nn.init.dirac_
  gq.conv1d(gq.ones(1, 2, 3), gq.nn.init.dirac_(gq.zeros(2, 2, 1))):sum():item() --> 6.0
  gq.nn.init.dirac_(gq.zeros(4, 2, 3), 2):sum():item() --> 4.0
nn.init.eye_
  gq.nn.init.eye_(gq.ones(2, 2)) --> tensor({{1, 0}, {0, 1}}, float32)
  gq.nn.init.eye_(gq.nn.Linear(3, 2).weight):sum():item() --> 2.0
nn.init.kaiming_normal_
  gq.nn.init.kaiming_normal_(gq.zeros(4, 4)):isfinite():all():item() --> true
  gq.nn.init.kaiming_normal_(gq.nn.Linear(4, 4).weight, {nonlinearity = "relu"}).shape[1] --> 4
nn.init.kaiming_uniform_
  gq.nn.init.kaiming_uniform_(gq.zeros(4, 4)):isfinite():all():item() --> true
  gq.nn.init.kaiming_uniform_(gq.nn.Linear(4, 4).weight, {mode = "fan_out"}).shape[1] --> 4
nn.init.normal_
  gq.nn.init.normal_(gq.zeros(3)):isfinite():all():item() --> true
  gq.nn.init.normal_(gq.nn.Linear(4, 4).weight, 0, 0.02).shape[1] --> 4
nn.init.ones_
  gq.nn.init.ones_(gq.zeros(2)) --> tensor({1, 1}, float32)
  gq.nn.init.ones_(gq.nn.Linear(2, 1).bias):item() --> 1.0
nn.init.orthogonal_
  q = gq.nn.init.orthogonal_(gq.zeros(3, 3))
  (q:matmul(q:t()) - gq.eye(3)):abs():max():item() < 1e-5 --> true
  gq.nn.init.orthogonal_(gq.nn.Linear(4, 2).weight, 2).shape[2] --> 4
nn.init.sparse_
  gq.nn.init.sparse_(gq.zeros(4, 3), 0.5):eq(0):sum():item() --> 6
  gq.nn.init.sparse_(gq.nn.Linear(4, 2).weight, 0.5, 0.1).shape[2] --> 4
nn.init.trunc_normal_
  gq.nn.init.trunc_normal_(gq.zeros(9)):abs():max():item() <= 2 --> true
  gq.nn.init.trunc_normal_(gq.nn.Linear(4, 4).weight, 0, 0.02, -0.04, 0.04).shape[1] --> 4
nn.init.uniform_
  gq.nn.init.uniform_(gq.zeros(9)):lt(1):all():item() --> true
  gq.nn.init.uniform_(gq.nn.Linear(4, 4).weight, -0.1, 0.1):abs():max():item() <= 0.1 --> true
nn.init.xavier_normal_
  gq.nn.init.xavier_normal_(gq.zeros(4, 4)):isfinite():all():item() --> true
  gq.nn.init.xavier_normal_(gq.nn.Linear(4, 4).weight, 2).shape[1] --> 4
nn.init.xavier_uniform_
  gq.nn.init.xavier_uniform_(gq.zeros(4, 4)):isfinite():all():item() --> true
  gq.nn.init.xavier_uniform_(gq.nn.Linear(4, 4).weight, gq.nn.init.calculate_gain("tanh")).shape[1] --> 4
nn.init.zeros_
  gq.nn.init.zeros_(gq.ones(2)) --> tensor({0, 0}, float32)
  gq.nn.init.zeros_(gq.nn.Linear(2, 1).bias):item() --> 0.0
nn.mlp
  gq.nn.mlp({sizes = {2, 64, 64, 2}})(gq.ones(5, 2)).shape[2] --> 2
  f = gq.nn.mlp {sizes = {2, 16, 2}, activation = "tanh", time = true}
  f(0.5, gq.ones(5, 2)).shape[1] --> 5
no_grad
  w = gq.ones(2, {requires_grad = true})
  gq.no_grad(function() return (w * 2):sum() end).requires_grad --> false
  gq.no_grad(function(a, b) return a * b end, w, 3) --> tensor({3, 3}, float32)
norm
  gq.tensor {3, 4}:norm():item() --> 5.0
  gq.norm(gq.tensor {{3, -4}, {1, 0}}, math.huge, 2) --> tensor({4, 1}, float32)
normal_
  gq.zeros(4):normal_().shape[1] --> 4
  gq.zeros(2, 2):normal_(5, 0):mean():item() --> 5.0
normal_fit
  gq.normal_fit(gq.randn(100, 5)).mean.shape[1] --> 100
  gq.normal_fit(gq.tensor {{1, 2}, {3, 6}}, 1).mean --> tensor({2, 4}, float32)
npy_load
  gq.npy_save("x.npy", gq.tensor {1, 2})
  gq.npy_load("x.npy") --> tensor({1, 2}, float32)
  gq.npy_load("x.npy").dtype --> float32
npy_save
  gq.npy_save("x.npy", gq.tensor {1, 2})
  gq.npy_save("y.npy", gq.eye(3))
  gq.load("y.npy").shape[1] --> 3
numel
  gq.zeros(2, 3):numel() --> 6
  gq.tensor(1):numel() --> 1
odeint
  z, info = gq.odeint(function(t, z) return -z end, gq.ones(2), {0, 1})
  info.status --> ok
  net = gq.nn.mlp {sizes = {2, 16, 2}, time = true}
  z = gq.odeint(net, gq.randn(8, 2), gq.linspace(0, 1, 5), {method = "tsit5", rtol = 1e-4, gradient = "gq"})
  z.shape[1] --> 5
  z[-1]:sum():backward()
ones
  gq.ones(2, 2) --> tensor({{1, 1}, {1, 1}}, float32)
  gq.ones({3}, {dtype = "float64"}) --> tensor({1, 1, 1}, float64)
ones_like
  gq.ones_like(gq.zeros(2)) --> tensor({1, 1}, float32)
  gq.ones_like(gq.zeros(2, 3, {dtype = "float64"})).dtype --> float64
optim.adam
  net = gq.nn.mlp {sizes = {1, 8, 1}}
  opt = gq.optim.adam(net:parameters(), {lr = 1e-2})
  opt:zero_grad(); gq.mse_loss(net(gq.ones(4, 1)), gq.zeros(4, 1)):backward(); opt:step()
  opt.lr = opt.lr / 2
  opt.lr --> 0.005
  groups = {{params = net[1]:parameters(), lr = 1e-3}, {params = net[3]:parameters()}}
  gq.optim.adam(groups, {lr = 1e-2}).groups[2].lr --> 0.01
optim.adamw
  opt = gq.optim.adamw(gq.nn.Linear(2, 1):parameters(), {lr = 1e-3, weight_decay = 0.1})
  opt.weight_decay --> 0.1
  gq.optim.adamw({gq.ones(3, {requires_grad = true})}).lr --> 0.001
optim.clip_grad_norm
  w = gq.tensor({3, 4}, {requires_grad = true}); (w * w / 2):sum():backward()
  gq.optim.clip_grad_norm({w}, 1) --> 5.0
  w.grad --> tensor({0.6, 0.8}, float32)
optim.clip_grad_value
  w = gq.tensor({3, -4}, {requires_grad = true}); (w * w / 2):sum():backward()
  gq.optim.clip_grad_value({w}, 1)
  w.grad --> tensor({1, -1}, float32)
  net = gq.nn.Linear(2, 1); gq.optim.clip_grad_value(net:parameters(), 0.5)
optim.ema
  net = gq.nn.mlp {sizes = {1, 8, 1}}
  ema = gq.optim.ema(net, {decay = 0.99}); ema:update()
  ema:with(function() return net(gq.ones(1)).shape[1] end) --> 1
  gq.optim.ema(net:parameters()).decay --> 0.999
optim.lbfgs
  x = gq.tensor({3, -2}, {requires_grad = true})
  opt = gq.optim.lbfgs({x}, {max_iter = 20})
  opt:step(function()
    opt:zero_grad()
    local loss = (x * x):sum()
    loss:backward()
    return loss
  end) --> 13.0
  x:abs():max():item() < 1e-3 --> true
  gq.optim.lbfgs(gq.nn.Linear(2, 1):parameters(), {history_size = 10, line_search = "none"})
optim.rmsprop
  gq.optim.rmsprop({gq.ones(3, {requires_grad = true})}, {lr = 1e-3, alpha = 0.9}).alpha --> 0.9
  gq.optim.rmsprop(gq.nn.Linear(2, 1):parameters(), {momentum = 0.9, centered = true}).centered --> true
optim.schedule.constant
  opt = gq.optim.sgd({gq.ones(1, {requires_grad = true})}, {lr = 0.1})
  schedule = gq.optim.schedule.constant(opt); schedule:step()
  opt.lr --> 0.1
  gq.optim.schedule.constant(gq.optim.adam({gq.ones(1, {requires_grad = true})}))
optim.schedule.cosine
  opt = gq.optim.sgd({gq.ones(1, {requires_grad = true})}, {lr = 0.5})
  schedule = gq.optim.schedule.cosine(opt, {steps = 2}); schedule:step()
  opt.lr --> 0.25
  gq.optim.schedule.cosine(opt, {steps = 100, warmup = 10, last = 0.1})
optim.schedule.exponential
  opt = gq.optim.sgd({gq.ones(1, {requires_grad = true})}, {lr = 1})
  schedule = gq.optim.schedule.exponential(opt, {gamma = 0.5}); schedule:step()
  opt.lr --> 0.5
  gq.optim.schedule.exponential(opt, {gamma = 0.99})
optim.schedule.lambda
  opt = gq.optim.sgd({gq.ones(1, {requires_grad = true})}, {lr = 1})
  schedule = gq.optim.schedule.lambda(opt, function(n) return 1 / (1 + n) end); schedule:step()
  opt.lr --> 0.5
  gq.optim.schedule.lambda(opt, function(n) return n < 100 and 1 or 0.1 end)
optim.schedule.linear
  opt = gq.optim.sgd({gq.ones(1, {requires_grad = true})}, {lr = 1})
  schedule = gq.optim.schedule.linear(opt, {steps = 4}); schedule:step()
  opt.lr --> 0.75
  gq.optim.schedule.linear(opt, {steps = 100, first = 1, last = 0.1})
optim.schedule.plateau
  opt = gq.optim.sgd({gq.ones(1, {requires_grad = true})}, {lr = 1})
  schedule = gq.optim.schedule.plateau(opt, {patience = 0}); schedule:observe(3); schedule:observe(3)
  opt.lr --> 0.5
  gq.optim.schedule.plateau(opt, {factor = 0.1, patience = 5, mode = "max", least = 1e-5})
optim.schedule.step
  opt = gq.optim.sgd({gq.ones(1, {requires_grad = true})}, {lr = 1})
  schedule = gq.optim.schedule.step(opt, {every = 1, gamma = 0.5}); schedule:step()
  opt.lr --> 0.5
  gq.optim.schedule.step(opt, {every = 30})
optim.sgd
  w = gq.tensor({1}, {requires_grad = true}); opt = gq.optim.sgd({w}, {lr = 0.25})
  (w * w):sum():backward(); opt:step()
  w:item() --> 0.5
  gq.optim.sgd({w}, {lr = 0.1, momentum = 0.9, nesterov = true}).momentum --> 0.9
optimiser
  gq.optimiser("adam", {gq.ones(1, {requires_grad = true})}, {lr = 0.1}):kind() --> adam
  gq.optimiser("sgd", {gq.ones(1, {requires_grad = true})}):steps() --> 0
pad
  gq.pad(gq.tensor {1, 2}, {1, 0}) --> tensor({0, 1, 2}, float32)
  gq.pad(gq.tensor {{1, 2, 3}}, {2, 0}, "reflect") --> tensor({{3, 2, 1, 2, 3}}, float32)
paper.rate
  gq.paper.rate("sines", 100) --> 0.0005
  gq.paper.rate("nested_spheres", 20) > 0 --> true
peak_reset
  gq.peak_reset()
  gq.peak_reset(); x = gq.zeros(10); alive, peak = gq.memory()
  peak >= alive --> true
permute
  gq.zeros(2, 3, 4):permute(3, 1, 2).shape[1] --> 4
  gq.permute(gq.tensor {{1, 2}, {3, 4}}, 2, 1) --> tensor({{1, 3}, {2, 4}}, float32)
pixel_shuffle
  gq.pixel_shuffle(gq.randn(1, 8, 3, 3), 2).shape[4] --> 6
  gq.pixel_shuffle(gq.arange(1, 4):reshape(1, 4, 1, 1), 2) --> tensor({{{{1, 2}, {3, 4}}}}, float32)
plot.band
  x = gq.linspace(0, 1, 20)
  gq.plot.band {{x, x - 0.1, x + 0.1, label = "2 sd"}, {x, x, style = "line"}}
  p = gq.plot.band {{x, x - 0.1, x + 0.1}, out = false}
plot.contour
  x = gq.linspace(-1, 1, 20); z = (gq.plot.grid(x, x) ^ 2):sum(2):reshape(20, 20)
  gq.plot.contour {{x, x, z, levels = 5}}
  p = gq.plot.contour {z, title = "a bowl", out = false}
plot.field
  turn = function(t, z) return gq.stack({-z[{{}, 2}], z[{{}, 1}]}, 2) end
  gq.plot.field {{turn, x = {-1, 1}, y = {-1, 1}}}
  path = gq.odeint(turn, gq.ones(1, 2), gq.linspace(0, 3, 20))[{{}, 1}]
  p = gq.plot.field {{turn, x = {-2, 2}, y = {-2, 2}, points = 9}, {path}, out = false}
plot.grid
  x, y = gq.linspace(-1, 1, 5), gq.linspace(-1, 1, 4)
  gq.plot.grid(x, y).shape[1] --> 20
  gq.plot.heat {{x, y, gq.plot.grid(x, y):sum(2):reshape(#y, #x)}}
plot.heat
  x = gq.linspace(-1, 1, 20); z = (gq.plot.grid(x, x) ^ 2):sum(2):reshape(20, 20)
  gq.plot.heat {{x, x, z}}
  p = gq.plot.heat {z, title = "a bowl", out = false}
plot.hist
  gq.plot.hist {{gq.randn(500), bins = 20}}
  p = gq.plot.hist {{gq.randn(500), label = "normal"}, {gq.rand(500), label = "uniform"}, out = false}
plot.line
  x = gq.linspace(0, 6, 50)
  gq.plot.line {{x, x:sin(), label = "sin"}, {x, x:cos(), label = "cos"}, xlabel = "t"}
  gq.plot.line {{x, (-x):exp(), style = "points"}, log = "y", title = "decay"}
plot.panels
  x = gq.linspace(0, 1, 20); p = gq.plot.line {{x, x ^ 2}, out = false}
  gq.plot.panels {{p, p}}
  q = gq.plot.panels {{p}, {p}, title = "twice", out = false}
plot.scatter
  gq.plot.scatter {{gq.randn(50, 2), label = "points"}}
  p = gq.plot.scatter {{gq.randn(50), gq.randn(50), class = gq.randint(1, 2, 50)}, out = false}
pow
  gq.tensor {1, 2, 3} ^ 2 --> tensor({1, 4, 9}, float32)
  gq.pow(2, gq.tensor {1, 3}) --> tensor({2, 8}, float32)
prod
  gq.tensor {2, 3, 4}:prod():item() --> 24.0
  gq.tensor {{1, 2}, {3, 4}}:prod(2) --> tensor({2, 12}, float32)
progress
  bar = gq.progress(100, {desc = "solving"})
  for i = 1, 100 do bar:update(i, "step " .. i) end
  bar:close()
  for i in gq.progress(3) do gq.ones(i) end
  for _ = 1, 2 do local short <close> = gq.progress(10); short:update() end
rand
  gq.rand(2, 3).shape[2] --> 3
  gq.rand({4}, {seed = 1, dtype = "float64"}):lt(1):all():item() --> true
randint
  gq.randint(1, 6, 10):le(6):all():item() --> true
  gq.randint(0, 1, {2, 2}, {seed = 1}).dtype --> int64
randn
  gq.randn(2, 3).shape[2] --> 3
  gq.randn({4}, {seed = 1, requires_grad = true}).requires_grad --> true
randperm
  gq.randperm(4):sum():item() --> 10
  x = gq.tensor {10, 20, 30}
  x:index_select(1, gq.randperm(3)):sum():item() --> 60.0
reciprocal
  gq.reciprocal(gq.tensor {2, 4}) --> tensor({0.5, 0.25}, float32)
  gq.tensor {0.5}:reciprocal():item() --> 2.0
recording
  gq.recording() --> true
  gq.no_grad(gq.recording) --> false
relu
  gq.relu(gq.tensor {1, -1}) --> tensor({1, 0}, float32)
  gq.tensor {-2, 0, 2}:relu():sum():item() --> 2.0
remainder
  gq.tensor {5, -5} % 3 --> tensor({2, 1}, float32)
  gq.remainder(gq.tensor {5.5}, 2):item() --> 1.5
reshape
  gq.arange(1, 4):reshape(2, 2) --> tensor({{1, 2}, {3, 4}}, float32)
  gq.reshape(gq.zeros(2, 6), 3, -1).shape[2] --> 4
rng_state
  state = gq.rng_state(); a = gq.randn(2)
  gq.set_rng_state(state)
  (gq.randn(2) - a):abs():max():item() --> 0.0
  gq.rng_state().seed ~= nil --> true
roll
  gq.tensor {1, 2, 3}:roll(1, 1) --> tensor({3, 1, 2}, float32)
  gq.roll(gq.tensor {{1, 2}, {3, 4}}, -1, 2) --> tensor({{2, 1}, {4, 3}}, float32)
round
  gq.round(gq.tensor {1.4, 2.5, 3.5}) --> tensor({1, 2, 4}, float32)
  gq.tensor {-1.6}:round():item() --> -2.0
rsqrt
  gq.rsqrt(gq.tensor {4}):item() --> 0.5
  gq.tensor {1, 0.25}:rsqrt() --> tensor({1, 2}, float32)
safetensors_load
  gq.safetensors_save("t.safetensors", {w = gq.ones(2)}, {made = "today"})
  tensors, metadata = gq.safetensors_load("t.safetensors")
  metadata.made --> today
  tensors.w --> tensor({1, 1}, float32)
safetensors_save
  gq.safetensors_save("t.safetensors", {w = gq.ones(2), b = gq.zeros(1)})
  gq.safetensors_save("t.safetensors", gq.nn.Linear(2, 1):state_dict(), {made = "today"})
save
  gq.save("x.npy", gq.eye(2))
  gq.load("x.npy") --> tensor({{1, 0}, {0, 1}}, float32)
  gq.save("x.csv", gq.tensor {{0, 1}, {1, 3}}, {"t", "x"})
  gq.save("net.safetensors", gq.nn.Linear(2, 1):state_dict())
scope
  do
    local s <close> = gq.scope()
    kept = s:keep(gq.ones(2) * 2)
  end
  kept --> tensor({2, 2}, float32)
  do local s <close> = gq.scope(); total = (gq.randn(100) ^ 2):sum():item() end
sde
  sde = gq.sde {drift = function(t, z) return -z end, diffusion = function(t, z) return 0.3 * gq.ones(z.shape) end,
    noise = "diagonal", calculus = "stratonovich"}
  gq.sdeint(sde, gq.ones(5, 1), {0, 1}, {dt = 0.1}).shape[2] --> 5
  ito = gq.sde {drift = function(t, z) return -z end, diffusion = function(t, z) return 0.3 * z end,
    noise = "diagonal", calculus = "ito"}
sdeint
  sde = gq.sde {drift = function(t, z) return -z end, diffusion = function(t, z) return 0.3 * gq.ones(z.shape) end,
    noise = "diagonal", calculus = "stratonovich"}
  z, info = gq.sdeint(sde, gq.ones(100, 1), gq.linspace(0, 1, 5), {dt = 0.05, seed = 1})
  z.shape[1] --> 5
  gq.sdeint(sde, gq.ones(3, 1), {0, 1}, {adaptive = true, rtol = 1e-2, dt = 0.1, method = "heun"}).shape[2] --> 3
set_default_device
  gq.set_default_device("cpu")
  gq.set_default_device(gq.devices()[1])
set_default_dtype
  gq.set_default_dtype("float64")
  gq.zeros(1).dtype --> float64
  gq.set_default_dtype("float32")
set_rng_state
  state = gq.rng_state(); a = gq.randn(2)
  gq.set_rng_state(state)
  (gq.randn(2) - a):abs():max():item() --> 0.0
  gq.set_rng_state(gq.rng_state())
set_threads
  gq.set_threads(1)
  gq.set_threads(2)
  gq.threads() --> 2
sigmoid
  gq.sigmoid(gq.tensor {0}):item() --> 0.5
  gq.tensor {100, -100}:sigmoid():round() --> tensor({1, 0}, float32)
sign
  gq.sign(gq.tensor {-3, 0, 2}) --> tensor({-1, 0, 1}, float32)
  gq.tensor {-0.5}:sign():item() --> -1.0
silu
  gq.tensor {0, 100}:silu() --> tensor({0, 100}, float32)
  gq.silu(gq.tensor {-200}):abs():item() --> 0.0
sin
  gq.sin(gq.tensor {0}):item() --> 0.0
  gq.linspace(0, math.pi, 3):sin():abs():round() --> tensor({0, 1, 0}, float32)
sinh
  gq.sinh(gq.tensor {0}):item() --> 0.0
  gq.tensor {1}:sinh():item() > 1.17 --> true
size
  gq.zeros(2, 3):size(2) --> 3
  gq.zeros(2, 3):size()[1] --> 2
softmax
  gq.softmax(gq.zeros(1, 2)) --> tensor({{0.5, 0.5}}, float32)
  gq.zeros(2, 5):softmax(1)[1][1]:item() --> 0.5
softplus
  gq.softplus(gq.tensor {100}):item() --> 100.0
  gq.tensor {-100}:softplus():item() < 1e-30 --> true
solve
  gq.solve(gq.tensor {{2, 0}, {0, 4}}, gq.tensor {2, 2}) --> tensor({1, 0.5}, float32)
  gq.solve(gq.eye(2), gq.ones(2, 3)).shape[2] --> 3
solver_options
  o = gq.cli({"rtol", "gradient", "C"}, {"--gradient", "gq", "--rtol", "1e-4"})
  gq.solver_options(o).gradient --> gq
  gq.odeint(function(t, z) return -z end, gq.ones(1), {0, 1}, gq.solver_options(o)).shape[1] --> 2
sort
  gq.tensor {3, 1, 2}:sort() --> tensor({1, 2, 3}, float32) tensor({2, 3, 1}, int64)
  values, places = gq.sort(gq.tensor {3, 1, 2}, 1, {descending = true})
  places --> tensor({1, 3, 2}, int64)
split
  #gq.arange(1, 6):split(2) --> 3
  gq.split(gq.zeros(2, 5), {2, 3}, 2)[2].shape[2] --> 3
split_seed
  gq.split_seed(1, "noise") == gq.split_seed(1, "noise") --> true
  gq.split_seed(1, "epoch", 2) ~= gq.split_seed(1, "epoch", 3) --> true
sqrt
  gq.sqrt(gq.tensor {4, 9}) --> tensor({2, 3}, float32)
  gq.tensor {2.25}:sqrt():item() --> 1.5
square
  gq.square(gq.tensor {1, -3}) --> tensor({1, 9}, float32)
  gq.tensor {4}:square():item() --> 16.0
squeeze
  gq.zeros(1, 3, 1):squeeze().shape[1] --> 3
  gq.squeeze(gq.zeros(1, 3, 1), 1).shape[1] --> 3
stack
  gq.stack {gq.tensor {1, 2}, gq.tensor {3, 4}} --> tensor({{1, 2}, {3, 4}}, float32)
  gq.stack({gq.tensor {1, 2}, gq.tensor {3, 4}}, 2) --> tensor({{1, 3}, {2, 4}}, float32)
std
  gq.tensor {1, 3}:std(1, false, {correction = 0}):item() --> 1.0
  gq.std(gq.tensor {{1, 1}, {2, 2}}, 2) --> tensor({0, 0}, float32)
steer
  gq.steer({0, 1}, 0.5, {seed = 1})[1] --> 0
  gq.steer(gq.tensor {0, 1}, 0.2)[2]:item() < 1.2 --> true
sub
  gq.tensor {1, 2} - 1 --> tensor({0, 1}, float32)
  gq.sub(10, gq.tensor {1, 2}) --> tensor({9, 8}, float32)
sum
  gq.tensor {1, 2, 3}:sum():item() --> 6.0
  gq.tensor {{1, 2}, {3, 4}}:sum(2, true) --> tensor({{3}, {7}}, float32)
sweep
  gq.file_write("fit.lua", [[
    local gq = require "gq"
    local o = gq.cli({"seed", "json", "quiet", {"width", 8, "width"}}, arg)
    gq.file_write(o.json, gq.json.encode {summary = {loss = 1 / o.width + o.seed / 100}})]])
  lines = gq.sweep {script = "fit.lua", grid = {width = {8, 16}}, seeds = 2, out = "runs/fit", quiet = true}
  #lines --> 4
  lines = gq.sweep {script = "fit.lua", list = {{width = 4}}, out = "runs/list", quiet = true}
  lines[1].summary.loss --> 0.26
sweep_results
  gq.file_write("fit2.lua", [[
    local gq = require "gq"
    local o = gq.cli({"seed", "json", "quiet", {"width", 8, "width"}}, arg)
    gq.file_write(o.json, gq.json.encode {summary = {loss = 1 / o.width}})]])
  gq.sweep {script = "fit2.lua", grid = {width = {8, 16}}, out = "runs/two", quiet = true}
  for _, run in ipairs(gq.sweep_results("runs/two")) do print(run.summary.loss) end --> 0.125 0.0625
  gq.tabulate(gq.sweep_results("runs/two"), {by = "width", mean = "loss"})
t
  gq.tensor {{1, 2}, {3, 4}}:t() --> tensor({{1, 3}, {2, 4}}, float32)
  gq.t(gq.zeros(2, 3)).shape[1] --> 3
tabulate
  runs = {{config = {width = 8}, status = "ok", summary = {loss = 0.5}}, {config = {width = 8}, status = "ok",
    summary = {loss = 0.25}}}
  print(gq.tabulate(runs, {by = "width", mean = "loss"}))
  print(gq.tabulate(runs, {by = "width", mean = "loss", format = "latex"}))
tan
  gq.tan(gq.tensor {0}):item() --> 0.0
  gq.tensor {math.pi / 4}:tan():round():item() --> 1.0
tanh
  gq.tanh(gq.tensor {0, 100}) --> tensor({0, 1}, float32)
  gq.tensor {-100}:tanh():item() --> -1.0
tensor
  gq.tensor {{1, 2}, {3, 4}} --> tensor({{1, 2}, {3, 4}}, float32)
  gq.tensor({1, 2}, {dtype = "float64", requires_grad = true}).dtype --> float64
terminal_size
  columns, rows = gq.terminal_size()
  print(gq.terminal_size() or "no terminal")
threads
  gq.threads() >= 1 --> true
  print(gq.threads())
to
  gq.tensor {1, 2}:to("float64").dtype --> float64
  gq.tensor {1.9}:to("int64"):item() --> 1
topk
  gq.tensor {3, 1, 2}:topk(2) --> tensor({3, 2}, float32) tensor({1, 3}, int64)
  values, places = gq.topk(gq.tensor {3, 1, 2}, 1, 1, {largest = false})
  places --> tensor({2}, int64)
totable
  gq.tensor {{1, 2}}:totable()[1][2] --> 2.0
  #gq.zeros(3):totable() --> 3
train
  net = gq.nn.mlp {sizes = {1, 16, 1}}
  x = gq.linspace(-1, 1, 64):reshape(64, 1)
  rows = gq.train {model = net, data = {x = x, y = gq.sin(3 * x)}, batch_size = 16, epochs = 50,
    loss = function(model, a, b) return gq.mse_loss(model(a), b) end,
    optimiser = gq.optim.adam(net:parameters(), {lr = 1e-2}), patience = 10, keep_best = true}
  rows[#rows].train_loss < 0.2 --> true
  gq.train {model = net, data = {x = x, y = gq.sin(3 * x)}, epochs = 5,
    loss = function(model, a, b) return gq.mse_loss(model(a), b) end,
    optimiser = gq.optim.lbfgs(net:parameters(), {max_iter = 10})}
transpose
  gq.tensor {{1, 2}, {3, 4}}:transpose(1, 2) --> tensor({{1, 3}, {2, 4}}, float32)
  gq.transpose(gq.zeros(2, 3, 4), 1, 3).shape[1] --> 4
tril
  gq.ones(2, 2):tril() --> tensor({{1, 0}, {1, 1}}, float32)
  gq.tril(gq.ones(2, 2), -1) --> tensor({{0, 0}, {1, 0}}, float32)
triu
  gq.ones(2, 2):triu() --> tensor({{1, 1}, {0, 1}}, float32)
  gq.triu(gq.ones(2, 2), 1) --> tensor({{0, 1}, {0, 0}}, float32)
unflatten
  gq.zeros(2, 6):unflatten(2, {2, 3}).shape[3] --> 3
  gq.unflatten(gq.arange(1, 4), 1, {2, 2}) --> tensor({{1, 2}, {3, 4}}, float32)
uniform_
  gq.zeros(4):uniform_():lt(1):all():item() --> true
  gq.zeros(4):uniform_(-1, 1, {seed = 1}):abs():le(1):all():item() --> true
unsqueeze
  gq.tensor {1, 2}:unsqueeze(1) --> tensor({{1, 2}}, float32)
  gq.unsqueeze(gq.zeros(3), 2).shape[2] --> 1
upsample
  gq.upsample(gq.randn(1, 3, 4, 4), 2).shape[4] --> 8
  gq.upsample(gq.randn(1, 3, 4, 4), {size = {6, 6}, mode = "bilinear"}).shape[3] --> 6
var
  gq.tensor {1, 3}:var():item() --> 2.0
  gq.var(gq.tensor {{1, 3}, {5, 5}}, 2) --> tensor({2, 0}, float32)
view
  gq.arange(1, 4):view(2, 2) --> tensor({{1, 2}, {3, 4}}, float32)
  gq.zeros(2, 3):view(-1).shape[1] --> 6
warnings
  gq.warnings(false) -- solves say nothing; info.warning does
  gq.warnings(true)
where
  x = gq.tensor {1, -1}
  gq.where(x:gt(0), x, 0) --> tensor({1, 0}, float32)
  gq.where(x:gt(0), gq.ones(2), -gq.ones(2)) --> tensor({1, -1}, float32)
wong_zakai
  sde = gq.sde {drift = function(t, z) return -z end, diffusion = function(t, z) return 0.3 * gq.ones(z.shape) end,
    noise = "diagonal", calculus = "stratonovich"}
  f = gq.wong_zakai(sde, {cosines = 10, t0 = 0, t1 = 1, seed = 1})
  gq.odeint(f, gq.ones(5, 1), {0, 1}, {gradient = "gq"}).shape[2] --> 5
  f:redraw(2)
zeros
  gq.zeros(2, 2) --> tensor({{0, 0}, {0, 0}}, float32)
  gq.zeros({2}, {dtype = "int64"}) --> tensor({0, 0}, int64)
zeros_like
  gq.zeros_like(gq.ones(2)) --> tensor({0, 0}, float32)
  gq.zeros_like(gq.ones(2, 3, {dtype = "float64"})).dtype --> float64
]==]
