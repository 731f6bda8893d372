-- prompt/accepts.lua -- names of options, for completion, help and editors: a list of {function, options}, tables in
-- options by "function/option". tests/gqlua_spec.lua holds them against what each function says that it knows.

local text <const> = [[
arange eye full linspace ones tensor zeros: dtype device requires_grad
rand randn: dtype device requires_grad seed
randint: seed dtype device
randperm steer normal_ uniform_: seed
set_rng_state: seed counter
grad: cotangents create_graph
checkgrad: eps rtol atol order
argsort sort: descending
topk: largest
std var: correction
dropout dropout2d: training seed
batch_norm: training momentum eps
group_norm instance_norm layer_norm: eps
pad: mode value
conv1d conv2d: stride padding dilation groups padding_mode
conv_transpose1d conv_transpose2d: stride padding output_padding dilation groups
max_pool1d max_pool2d nn.MaxPool1d nn.MaxPool2d: stride padding dilation
avg_pool1d avg_pool2d nn.AvgPool1d nn.AvgPool2d: stride padding count_include_pad
upsample nn.Upsample: size scale_factor mode align_corners
cross_entropy l1_loss mse_loss nll_loss: reduction
bce_loss: reduction logits
huber_loss: reduction delta
gaussian_kl: dim time eps reduction
gaussian_nll_loss: reduction full eps

nn.Augment nn.SecondOrder nn.Select nn.TimeConcat: dim
nn.mlp: sizes activation time bias dtype
nn.Linear nn.GRUCell: bias dtype
nn.RNNCell: nonlinearity bias dtype
nn.Embedding: dtype
nn.Conv1d nn.Conv2d: stride padding dilation groups bias dtype padding_mode
nn.ConvTranspose1d nn.ConvTranspose2d: stride padding dilation groups bias dtype output_padding
nn.BatchNorm1d nn.BatchNorm2d: eps momentum affine dtype
nn.GroupNorm nn.InstanceNorm1d nn.InstanceNorm2d nn.LayerNorm: eps affine dtype
nn.CNF: trace noise probe
flow: net dim trace noise times solver

odeint: method rtol atol step_size first_step max_steps norm controller gradient adjoint gq parity overshoot throw
  params memory_limit eta dense event grid_points trace batch max_order regularise max_step min_step audit
odeint/gq: C max_nodes nodes quadrature panels seed guards paper
odeint/adjoint: method rtol atol step_size max_steps norm trajectory impulses scale points checkpoints max_step min_step
odeint/controller: safety ifactor dfactor pcoeff icoeff dcoeff
odeint/regularise: kinetic jacobian taylor error stiffness
odeint/event: condition direction terminal apply
interpolate: kind dim time missing
sde: drift diffusion noise calculus prior_drift
langevin: grad gamma u
brownian: t0 t1 shape seed levy_area dtype tol device W H K
sdeint: method dt brownian gradient seed adjoint max_steps params memory_limit throw calculus logqp batch adaptive rtol
  atol max_step theta
wong_zakai: cosines t0 t1 seed xi expansion brownian

optim.adam optim.adamw: lr betas eps weight_decay
optim.sgd: lr weight_decay momentum dampening nesterov
optim.rmsprop: lr eps weight_decay momentum alpha centered
optim.lbfgs: lr max_iter history_size tolerance_grad tolerance_change line_search
optim.ema: decay
optim.schedule.cosine: steps warmup last
optim.schedule.exponential: gamma
optim.schedule.linear: steps first last
optim.schedule.plateau: factor patience mode least
optim.schedule.step: every gamma
train: model loss optimiser data batch_size shuffle augment seed epochs validate name logger checkpoint resume progress
  on_epoch on_step clip schedule steps monitor mode patience keep_best accumulate ema
train/checkpoint: path every
progress: desc at shown out
checkpoint.save: model optimiser schedule ema epoch rng extra value
checkpoint.load: model optimiser schedule ema epoch rng extra
checkpoint.keeper: last mode
load: separator columns header dtype
experiment: options metric percent run rows summary
sweep: script grid list options seeds seed workers threads out time_limit memory_limit retries shard slurm tasks submit
  quiet by mean
tabulate: by mean format

data.batches: batch_size shuffle seed drop_last augment ahead
data.augment: flip crop seed
data.split: test validate shuffle seed
data.standardise: dims
data.images: channels
data.mnist data.fashion_mnist data.cifar10 data.cifar100 data.svhn: data train test
data.crossing: seed
data.density: name seed train test
data.nested_spheres: seed train test dim radii
data.ornstein_uhlenbeck: seed train test samples times dt mu theta sigma phi
data.sines: seed train test times regular
data.spirals: seed train test times noise

plot.line plot.scatter plot.band plot.heat plot.contour plot.field plot.hist: title xlabel ylabel log out size xrange
  yrange legend equal
plot.line/item plot.scatter/item plot.band/item plot.heat/item plot.contour/item plot.field/item
  plot.hist/item: style label color class bins levels
plot.panels: title size out
]]

local list = {}
for names, options in text:gsub("\n  ", " "):gmatch("([^\n:]+): ([^\n]*)") do
  for name in names:gmatch("%S+") do list[#list + 1] = { name, options } end
end
return list
