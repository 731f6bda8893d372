-- nn/cells.lua -- recurrent cells, cell(x, h) -> the next h: nn.RNNCell and nn.GRUCell, with PyTorch's parameters.

local gq = ...
local core = gq.core
local options, need, one_of, describe = core.options, core.need, core.one_of, core.describe
local uniform = core.uniform_parameter

local function cell(name, doc)
  local class = core.define_module(name, doc)
  -- Called with two values, neither of them a time.
  function class.__call(self, x, h, more)
    if more ~= nil then core.refuse_values(self, "x, h", x, h, more) end
    return self:forward(x, h)
  end
  function class:extra() return ("%d, %d"):format(self.weight_ih.shape[2], self.weight_hh.shape[2]) end
  return class
end

-- PyTorch's parameters, names and start: rows of the gates one after the other, uniform in +-1/sqrt(n_hidden).
local function init_cell(self, n_in, n_hidden, o, gates, what)
  if math.type(n_in) ~= "integer" or n_in < 1 or math.type(n_hidden) ~= "integer" or n_hidden < 1 then
    core.fail(("%s: n_in and n_hidden: integers of at least 1 expected, got %s and %s"):format(what, describe(n_in),
      describe(n_hidden)))
  end
  local bound, rows = 1 / math.sqrt(n_hidden), gates * n_hidden
  self.weight_ih = uniform({ rows, n_in }, bound, o.dtype)
  self.weight_hh = uniform({ rows, n_hidden }, bound, o.dtype)
  if need(o, "bias", "boolean", true, what) then
    self.bias_ih = uniform({ rows }, bound, o.dtype)
    self.bias_hh = uniform({ rows }, bound, o.dtype)
  end
end

-- x {n, n_in} and h {n, n_hidden}, or one of each without n; no h is zeros. Returns W_ih x + b_ih,
-- W_hh h + b_hh, h with rows, and whether they are one each.
local function cell_inputs(self, x, h, what)
  local n_in, n_hidden = self.weight_ih.shape[2], self.weight_hh.shape[2]
  if not gq.is_tensor(x) or x:dim() < 1 or x:dim() > 2 or x.shape[x:dim()] ~= n_in then
    core.fail(("%s: x {n, %d} or {%d} expected, got %s"):format(what, n_in, n_in, describe(x)))
  end
  local want = x.shape
  want[#want] = n_hidden
  if h == nil then h = gq.zeros(want, { dtype = x.dtype, device = x.device }) end
  if not gq.is_tensor(h) or core.dims(h.shape) ~= core.dims(want) then
    core.fail(("%s: h %s expected for x %s, got %s"):format(what, core.dims(want), core.dims(x.shape), describe(h)))
  end
  if #want == 1 then x, h = x:unsqueeze(1), h:unsqueeze(1) end
  local a, b = x:matmul(self.weight_ih:transpose(1, 2)), h:matmul(self.weight_hh:transpose(1, 2))
  if self.bias_ih then a, b = a + self.bias_ih, b + self.bias_hh end
  return a, b, h, #want == 1
end

local RNNCell = cell("RNNCell", "nn.RNNCell(n_in, n_hidden [, {nonlinearity = \"tanh\"|\"relu\", bias = true, " ..
  "dtype}]): cell(x, h) -> h' = tanh(W_ih x + b_ih + W_hh h + b_hh); x {n, n_in}, h {n, n_hidden}, zeros without it")

function RNNCell:init(n_in, n_hidden, opts)
  local o = options(opts, "nonlinearity bias dtype", "nn.RNNCell")
  rawset(self, "nonlinearity", one_of(o, "nonlinearity", { "tanh", "relu" }, "nn.RNNCell"))
  init_cell(self, n_in, n_hidden, o, 1, "nn.RNNCell")
end

function RNNCell:forward(x, h)
  local a, b, _, single = cell_inputs(self, x, h, "nn.RNNCell")
  local y = gq[self.nonlinearity](a + b)
  return single and y:squeeze(1) or y
end

-- Cho et al. 2014, with PyTorch's place of the reset gate: on W_hh h + b_hh, not on h.
local GRUCell = cell("GRUCell", "nn.GRUCell(n_in, n_hidden [, {bias = true, dtype}]): cell(x, h) -> h' = " ..
  "(1 - z) n + z h, with PyTorch's gates, their rows of the weights in this order: r, z sigmoids, n = tanh(W_in x " ..
  "+ b_in + r (W_hn h + b_hn)); x {n, n_in}, h {n, n_hidden}, zeros without it")

function GRUCell:init(n_in, n_hidden, opts)
  init_cell(self, n_in, n_hidden, options(opts, "bias dtype", "nn.GRUCell"), 3, "nn.GRUCell")
end

function GRUCell:forward(x, h)
  local a, b, old, single = cell_inputs(self, x, h, "nn.GRUCell")
  local m = old.shape[2]
  local gates = (a:narrow(2, 1, 2 * m) + b:narrow(2, 1, 2 * m)):sigmoid()
  local r, z = gates:narrow(2, 1, m), gates:narrow(2, m + 1, m)
  local n = (a:narrow(2, 2 * m + 1, m) + r * b:narrow(2, 2 * m + 1, m)):tanh()
  local y = n + z * (old - n)
  return single and y:squeeze(1) or y
end
