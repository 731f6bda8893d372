-- together.lua -- several optimisers, or several schedules, as one: a list of them where gq.train and gq.checkpoint
-- take one.

local gq = ...
local core = gq.core
local describe, fail = core.describe, core.fail

local Together = { __name = "gq.together" }
Together.__index = Together

function Together:zero_grad(given)
  for _, part in ipairs(self.parts) do part:zero_grad(given) end
end

-- All or none of them: they are asked first, and gradients looked at.
function Together:step()
  for _, part in ipairs(self.parts) do
    if part.check_step then part:check_step() end
  end
  if self.params then gq.clip_grad_norm(self.params, math.huge) end
  for _, part in ipairs(self.parts) do part:step() end
end

local function observe(self, value)
  for _, part in ipairs(self.parts) do
    if part.observe then part:observe(value) end
  end
end

function Together:state_dict()
  local list = {}
  for i, part in ipairs(self.parts) do list[i] = part:state_dict() end
  return { kind = "list", list = list }
end

function Together:check_state_dict(t)
  local list = type(t) == "table" and t.list
  if type(list) ~= "table" or #list ~= #self.parts then
    return ("the state is of %s, this is a list of %d"):format(type(list) == "table" and "a list of " .. #list or
      type(t) == "table" and tostring(t.kind or "one alone") or describe(t), #self.parts)
  end
  for i, part in ipairs(self.parts) do
    local problem = part.check_state_dict and part:check_state_dict(list[i])
    if problem then return ("number %d: %s"):format(i, problem) end
  end
end

function Together:load_state_dict(t)
  local problem = self:check_state_dict(t)
  if problem then error("load_state_dict: " .. problem, 2) end
  for i, part in ipairs(self.parts) do part:load_state_dict(t.list[i]) end
end

-- What was given, or the parts of a list as one. Optimisers have parameters, each in one of them.
function core.together(given, what, expected)
  if type(given) ~= "table" or getmetatable(given) ~= nil or given[1] == nil then return given end
  local self, owner = { parts = given }, {}
  for i, part in ipairs(given) do
    if type(part) ~= "table" or not part.step then
      fail(("%s: number %d of the list: %s expected, got %s"):format(what, i, expected, describe(part)))
    end
    if part.observe then self.observe = observe end
    for _, p in ipairs(part.params or {}) do
      if owner[p] == i then fail(("%s: a parameter is twice in number %d"):format(what, i)) end
      if not owner[p] then
        self.params = self.params or {}
        self.params[#self.params + 1] = p
      end
      self.shared = self.shared or owner[p] and { owner[p], i }
      owner[p] = i
    end
  end
  return setmetatable(self, Together)
end
