-- helper.lua -- what every spec may use: assert.close(got, want, rtol, atol) on numbers, nested tables and
-- tensors, and errors relative to a norm. Specs get the functions by require "tests.helper".

local assert = require "luassert"
local say = require "say"

-- What constructors make lives there: scripts/test --device.
local device = os.getenv "GQ_DEVICE"
if device then require("gq").set_default_device(device) end

-- There, a spec of something that runs on the CPU alone, and says so, is pending.
local function cpu_alone(test)
  local run = test.run
  return function(...)
    local ok, e = pcall(run, ...)
    local text = type(e) == "table" and e.message or e
    local only = type(text) == "string" and text:match "[^:]* runs on the CPU and z0 is on [^:]*"
    if only then test.env.pending(only) end
    if not ok then error(e, 0) end
  end
end
if device and device ~= "cpu" and not package.loaded.cpu_alone then
  package.loaded.cpu_alone = cpu_alone          -- once, though this file is also a module
  require("busted").subscribe({ "test", "start" }, function(test)
    test.run = cpu_alone(test)
    return nil, true
  end)
end

local function plain(x)
  if type(x) == "userdata" then return x:totable() end
  return x
end

-- The first place where got and want differ: nil if they agree.
local function difference(got, want, rtol, atol, where)
  if type(want) == "table" then
    if type(got) ~= "table" then return where .. ": a table expected, got " .. tostring(got) end
    if #got ~= #want then return ("%s: %d entries, expected %d"):format(where, #got, #want) end
    for i = 1, #want do
      local d = difference(got[i], want[i], rtol, atol, where .. "[" .. i .. "]")
      if d then return d end
    end
    return nil
  end
  if type(got) ~= "number" or type(want) ~= "number" then
    if got ~= want then return ("%s: got %s, expected %s"):format(where, tostring(got), tostring(want)) end
    return nil
  end
  if got == want or (got ~= got and want ~= want) then return nil end
  local error = math.abs(got - want)
  if error <= atol + rtol * math.abs(want) then return nil end     -- false for NaN
  return ("%s: got %.17g, expected %.17g, off by %.3g"):format(where, got, want, error)
end

local function close(state, arguments)
  local rtol, atol = arguments[3] or 1e-6, arguments[4] or 0
  local d = difference(plain(arguments[1]), plain(arguments[2]), rtol, atol, "value")
  state.failure_message = d and ("%s (rtol %g, atol %g)"):format(d, rtol, atol)
  return d == nil
end

say:set("assertion.close.positive", "Expected values to be close")
assert:register("assertion", "close", close, "assertion.close.positive")

-- below(x, limit, what): x is a number under the limit (NaN is not).
local function below(state, arguments)
  local x, limit = arguments[1], arguments[2]
  state.failure_message = ("%s: %s is not below %.6g"):format(tostring(arguments[3] or "value"),
    type(x) == "number" and ("%.6g"):format(x) or tostring(x), limit)
  return type(x) == "number" and x < limit
end
say:set("assertion.below.positive", "Expected a smaller number")
assert:register("assertion", "below", below, "assertion.below.positive")

-- Tensors in messages: their type and shape, not an address.
assert:add_formatter(function(x)
  local m = type(x) == "userdata" and getmetatable(x)
  if type(m) == "table" and m.__name == "gq.tensor" or m == "gq.tensor" then return tostring(x) end
end)

local helper = { difference = difference, each = dofile("scripts/common.lua").each }

-- Every number in x (a number, nested tables, a tensor, or tables of these), in order.
function helper.flatten(x, list)
  list = list or {}
  x = plain(x)
  if type(x) == "table" then
    for i = 1, #x do helper.flatten(x[i], list) end
  else
    list[#list + 1] = x
  end
  return list
end

function helper.rms(x)
  local list, sum = helper.flatten(x), 0
  for _, v in ipairs(list) do sum = sum + v * v end
  return #list > 0 and math.sqrt(sum / #list) or 0
end

-- |got - want| / |want| in the Euclidean norm; absolute where want is zero.
function helper.relative(got, want)
  got, want = helper.flatten(got), helper.flatten(want)
  if #got ~= #want then error(("%d numbers against %d"):format(#got, #want), 2) end
  local d, w = 0, 0
  for i = 1, #want do
    d = d + (got[i] - want[i]) ^ 2
    w = w + want[i] ^ 2
  end
  return math.sqrt(d) / (w > 0 and math.sqrt(w) or 1)
end

-- Observed order: p in log e = a + p log h by least squares; with `next` a term c h more, which takes up
-- what is left of the next order.
function helper.slope(h, errors, next)
  local n, m = next and 3 or 2, {}
  for j = 1, n do m[j] = { 0, 0, 0, 0 } end
  for i = 1, #h do
    local row = { 1, math.log(h[i]), h[i] / h[1], math.log(errors[i]) }
    for j = 1, n do
      for k = 1, 4 do m[j][k] = m[j][k] + row[j] * row[k] end
    end
  end
  for j = 1, n do                       -- Gauss-Jordan on the normal equations
    for i = 1, n do
      local f = i ~= j and m[i][j] / m[j][j] or 0
      for k = 1, 4 do m[i][k] = m[i][k] - f * m[j][k] end
    end
  end
  return m[2][4] / m[2][2]
end

-- The error that f(...) raises, as text; fails if it raises none.
function helper.message(f, ...)
  local ok, e = pcall(f, ...)
  if ok then error("an error was expected", 2) end
  return tostring(e)
end

-- f(...) raises an error that has all these words; returns its text.
function helper.raises(words, f, ...)
  local text = helper.message(f, ...)
  for word in words:gmatch("%S+") do
    assert(text:find(word, 1, true), ("'%s' expected in the message: %s"):format(word, text))
  end
  return text
end

-- f(...) raises an error that has this part, or all of a list, word for word; returns its text.
function helper.refused(part, f, ...)
  local text = helper.message(f, ...)
  for _, p in ipairs(type(part) == "table" and part or { part }) do
    assert(text:find(p, 1, true), ("'%s' expected in the message: %s"):format(p, text))
  end
  return text
end

-- Options: those of all the tables (nil: none), the last one's where several have a key.
function helper.with(...)
  local o = {}
  for i = 1, select("#", ...) do
    for k, v in pairs((select(i, ...)) or {}) do o[k] = v end
  end
  return o
end

-- choose(list) -> one of its entries: the same sequence of draws whenever it begins with this seed.
function helper.chooser(seed)
  return function(list)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return list[seed // 65536 % #list + 1]
  end
end

-- The Legendre polynomial P_k at x.
function helper.legendre(k, x)
  local a, b = 1, x
  if k == 0 then return a end
  for j = 2, k do a, b = b, ((2 * j - 1) * x * b - (j - 1) * a) / j end
  return b
end

-- All that a command of the shell prints, errors too, and its exit status, 128 + n for signal n.
function helper.output(command)
  local pipe = assert(io.popen(("{ %s\n} 2>&1"):format(command)))
  local text = pipe:read("a")
  local _, how, code = pipe:close()
  return text, how == "signal" and 128 + code or code
end

-- Where the tests run, and the command that they try, whole paths.
helper.here = helper.output("pwd"):gsub("\n", "")
helper.gqlua = os.getenv "GQLUA" or "./gqlua"
if helper.gqlua:sub(1, 1) ~= "/" then helper.gqlua = helper.here .. "/" .. helper.gqlua end

-- A file of these texts; its path.
function helper.write(path, ...)
  local file = assert(io.open(path, "wb"))
  file:write(...)
  file:close()
  return path
end

-- A file's text, "" if there is none.
function helper.read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("a") or ""
  if file then file:close() end
  return text
end

-- A new folder, which goes with this state.
local folders = setmetatable({}, { __gc = function(list)
  for _, path in ipairs(list) do os.execute("rm -rf " .. path) end
end })
function helper.folder()
  folders[#folders + 1] = helper.output("mktemp -d"):gsub("\n", "")
  return folders[#folders]
end

-- A word for the shell.
function helper.quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- Derivatives of both orders of f(...) against central differences.
function helper.checkgrad(f, ...)
  for order = 1, 2 do
    local ok, report = require("gq").checkgrad(f, { ... }, { order = order })
    assert(ok, ("order %d: %s"):format(order, type(report) == "table" and report.message or tostring(report)))
  end
end

-- Allocations of f() once everything that it needs is compiled; needs gq.debug.
function helper.allocations(f)
  local count = require("gq").debug.alloc_count
  f()
  f()
  collectgarbage("stop")
  local before = count()
  f()
  local n = count() - before
  collectgarbage("restart")
  return n
end

-- Derivatives of derivatives of the sum of solve(p, engine) against central differences along a direction, the first
-- also against those that no create_graph made; p: float64 leaves.
function helper.again(p, solve)
  local gq = require "gq"
  local function squares(q)
    local sum = 0
    local first = gq.grad(solve(q, "direct"):sum(), q, { create_graph = true })
    for _, g in ipairs(first) do sum = sum + g:square():sum() end
    return sum
  end
  local function third(q)
    local sum = 0
    for _, g in ipairs(gq.grad(squares(q), q, { create_graph = true })) do sum = sum + g:sum() end
    return sum
  end
  local once = gq.grad(solve(p, "aca"):sum(), p)
  assert.below(helper.relative(gq.grad(solve(p, "aca"):sum(), p, { create_graph = true }), once), 1e-11, "first")
  for _, f in ipairs { squares, third } do
    local got, at, way = gq.grad(f(p), p), {}, 0
    for s = -1, 1, 2 do
      local q = {}
      for i, x in ipairs(p) do
        local direction = gq.randn(x.shape, { seed = i, dtype = "float64" })
        if s > 0 then way = way + (got[i] * direction):sum():item() end
        q[i] = (x:detach() + direction * (s * 1e-5)):detach()
        q[i].requires_grad = true
      end
      at[s] = f(q):item()
    end
    assert.close((at[1] - at[-1]) / 2e-5, way, 1e-7)
  end
end

return helper
