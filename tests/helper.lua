-- helper.lua -- what every spec may use: assert.close(got, want, rtol, atol).
-- got and want: numbers, nested tables of numbers, or tensors (anything with totable).

local assert = require "luassert"
local say = require "say"

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

return { difference = difference }
