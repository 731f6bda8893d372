-- sweep/configs.lua -- what a sweep runs: configurations from a grid, a list or a function, with seeds, and a name
-- for each that depends on nothing else.

local gq = ...
local core = gq.core
local describe, fail, need = core.describe, core.fail, core.need

local function text_of(v)
  if math.type(v) == "float" then return ("%.17g"):format(v) end
  return tostring(v)
end

local function sorted_keys(t)
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys)
  return keys
end

-- FNV-1a in 64 bits
local function hash(text)
  local h = -3750763034362895579
  for k = 1, #text do h = (h ~ text:byte(k)) * 1099511628211 end
  return h
end

-- "width=8 gradient=gq seed=1" readable, and a hash of all of it with the script's name.
local function name_of(script, config)
  local parts = {}
  for _, k in ipairs(sorted_keys(config)) do parts[#parts + 1] = k .. "=" .. text_of(config[k]) end
  local text = table.concat(parts, "\n")
  local readable = table.concat(parts, "-"):gsub("[^%w=.+-]", "_"):sub(1, 60)
  return ("%s-%08x"):format(readable, hash(script:match("[^/]*$") .. "\n" .. text) >> 32)
end

local function check(config, what)
  if type(config) ~= "table" then
    fail(("gq.sweep: %s: a table of options expected, as {width = 8}; got %s"):format(what, describe(config)))
  end
  local clean = {}
  for k, v in pairs(config) do
    if type(k) ~= "string" or not k:match("^[%a][%w_-]*$") then
      fail(("gq.sweep: %s: names of options expected, got the key %s"):format(what, tostring(k)))
    end
    if type(v) ~= "number" and type(v) ~= "string" and type(v) ~= "boolean" then
      fail(("gq.sweep: %s: %s: a number, a string or true expected, got %s"):format(what, k, describe(v)))
    end
    clean[(k:gsub("-", "_"))] = v
  end
  return clean
end

-- Every combination, the last name (in their order) the fastest.
local function of_grid(grid)
  if type(grid) ~= "table" then
    fail(("gq.sweep: grid: a table of lists expected, as {width = {8, 16}}; got %s"):format(describe(grid)))
  end
  if grid[1] ~= nil then
    fail("gq.sweep: grid: names expected, as {width = {8, 16}}; a list of tables is the option list")
  end
  local all = { {} }
  for _, k in ipairs(sorted_keys(grid)) do
    local values, more = type(grid[k]) == "table" and grid[k] or { grid[k] }, {}
    if #values == 0 then fail(("gq.sweep: grid: %s has no values"):format(tostring(k))) end
    for _, config in ipairs(all) do
      for _, v in ipairs(values) do more[#more + 1] = core.copy(config, { [k] = v }) end
    end
    all = more
  end
  return all
end

local function of_list(list)
  if type(list) == "table" then return list end
  local all = {}
  while true do
    local config = list(#all + 1)
    if config == nil then return all end
    all[#all + 1] = config
    if #all > 1e6 then fail("gq.sweep: list: the function gives no end of configurations; nil ends them") end
  end
end

local function seeds_of(o)
  if o.seed ~= nil and type(o.seeds) ~= "number" then
    fail("gq.sweep: seed is the first of so many seeds: give seeds = n beside it, or options = {seed = ...}")
  end
  if o.seeds == nil then return { false } end
  if type(o.seeds) == "table" then
    for _, seed in ipairs(o.seeds) do
      if math.type(seed) ~= "integer" then
        fail(("gq.sweep: seeds: how many, or a list of integers expected, got %s in it"):format(describe(seed)))
      end
    end
    return o.seeds
  end
  local first, list = need(o, "seed", "integer", 1, "gq.sweep"), {}
  for k = 1, need(o, "seeds", "count|table", nil, "gq.sweep") do list[k] = first + k - 1 end
  return list
end

-- A list of {id =, config =}, each configuration once.
local function configs(o)
  local script, fixed = o.script, check(o.options or {}, "options")
  if (o.grid == nil) == (o.list == nil) then
    fail("gq.sweep: what to run: grid = {width = {8, 16}, ...}, or list = {{width = 8}, ...} or a function of 1, 2..")
  end
  local given = o.grid ~= nil and of_grid(o.grid) or of_list(need(o, "list", "table|callable", nil, "gq.sweep"))
  local runs, seen, seeds = {}, {}, seeds_of(o)
  for k, config in ipairs(given) do
    local whole = core.copy(fixed, check(config, o.grid and "grid" or ("list: entry %d"):format(k)))
    if whole.json ~= nil then fail("gq.sweep: json is the file that each run gets in out: leave it out") end
    if whole.seed ~= nil and seeds[1] then
      fail("gq.sweep: seed is in the configurations, and seeds would replace it: leave one of them out")
    end
    for _, seed in ipairs(seeds) do
      local one = core.copy(whole, seed and { seed = seed } or {})
      local id = name_of(script, one)
      if not seen[id] then runs[#runs + 1], seen[id] = { id = id, config = one }, true end
    end
  end
  if #runs == 0 then fail("gq.sweep: no configurations given") end
  return runs
end

-- --batch-size 8 --irregular
local function arguments(config, list)
  for _, k in ipairs(sorted_keys(config)) do
    local v, name = config[k], "--" .. k:gsub("_", "-")
    if v == true then
      list[#list + 1] = name
    elseif v ~= false then
      list[#list + 1] = name
      list[#list + 1] = text_of(v)
    end
  end
  return list
end

return { list = configs, arguments = arguments }
