-- prompt_spec.lua -- what the prompt knows of what is being typed: options of calls, values of options, colours.

local gq = require "gq"

-- Every function of the library that has a text, by name.
local function functions()
  local list = {}
  local function scan(t, prefix, depth)
    for k, v in next, t do
      local part = type(v) == "table" and (t == gq and k ~= "core" and k ~= "docs" or k == "schedule")
      if type(k) == "string" and k:sub(1, 1) ~= "_" and gq.docs[v] ~= nil then list[prefix .. k] = v end
      if type(k) == "string" and part and depth < 2 then scan(v, prefix .. k .. ".", depth + 1) end
    end
  end
  scan(gq, "gq.", 0)
  return list
end

describe("options at the prompt", function()
  local bad = { zz_ = 1 }
  local function f(_, z) return z end
  local x, w = gq.ones(2, 2), gq.ones(2, { requires_grad = true })
  local labels, image = gq.tensor({ 1, 2 }, { dtype = "int64" }), gq.ones(1, 1, 4, 4)
  local sde, set = gq.sde { drift = f, diffusion = f }, { x = x, y = x }
  local calls = { { bad }, { x, bad }, { x, x, bad }, { f, x, { 0, 1 }, bad }, { sde, x, { 0, 1 }, bad }, { sde, bad },
    { { w }, bad }, { 2, bad }, { 2, 2, bad }, { 0, 1, 3, bad }, { { 2 }, 1, bad }, { f, bad }, { x, x, x, bad },
    { x, labels, bad }, { gq.tensor { 0, 1 }, x, bad }, { gq.nn.Linear(2, 2), bad }, { gq.optim.sgd({ w }), bad },
    { image, 2, bad }, { image, { 1, 1 }, bad }, { image, image, nil, bad }, { set, bad }, { "runs", bad },
    { "examples/noisy.csv", bad }, { "/nowhere/x.safetensors", {}, bad } }

  local acts <const> = { ["gq.help"] = true, ["gq.cli"] = true, ["gq.free"] = true, ["gq.normal_"] = true }

  -- What a function says that it knows when it is given an option that it does not.
  local function known(g)
    for _, call in ipairs(calls) do
      local ok, message = pcall(g, table.unpack(call, 1, 4))
      local list = not ok and tostring(message):match("unknown option 'zz_'.*%(known: (.-)%)")
      if list then return list end
    end
  end

  local function words(text)
    local list = {}
    for word in text:gmatch("[%w_]+") do list[#list + 1] = word end
    table.sort(list)
    return table.concat(list, " ")
  end

  local function offered(call)
    _G.gq = gq
    local insert, list = gq.core.prompt.complete(call)
    if insert:find("^[%w_]+$") then insert, list = gq.core.prompt.complete(call .. insert) end    -- what all begin with
    _G.gq = nil
    return words(((list or "") .. insert:gsub(" = $", "")):gsub(" = ?", " "))
  end

  it("are those that functions know", function()
    local n, wrong = 0, {}
    for name, g in next, functions() do
      local list = not acts[name] and known(g)
      if list and list ~= "" then
        n = n + 1
        if words(list) ~= offered(name .. "({") then wrong[#wrong + 1] = name .. ": " .. list end
        if words(list) ~= offered(name .. " { x, ") then wrong[#wrong + 1] = name .. " {" end
      end
    end
    assert.same({}, wrong)
    assert.truthy(n > 85, n)
  end)

  it("are those of tables among them", function()
    for _, key in ipairs { "gq", "adjoint", "controller", "regularise", "event" } do
      local entry = key == "event" and { bad } or bad
      local ok, message = pcall(gq.odeint, f, x, { 0, 1 }, { [key] = entry })
      assert.falsy(ok)
      local call = "z = gq.odeint(f, x, {0, 1}, {" .. key .. " = " .. (key == "event" and "{ {" or "{")
      assert.equal(words(message:match("known: (.-)%)")), offered(call), key)
    end
    assert.equal("bins class color label levels style", offered("gq.plot.line { {a, b, "))
    assert.equal("every path", offered("gq.train { model = net, checkpoint = { "))
  end)

  it("stand alone where one begins, and make room for names otherwise", function()
    _G.gq = gq
    local complete = gq.core.prompt.complete
    assert.equal("rm = ", (complete("gq.odeint(f, z, {0, 1}, { rtol = f('}', {2}), no")))
    assert.equal("tor = ", (complete("  moni", "gq.train {\n  -- a comment ({\n  loss = function() return 1 end,")))
    assert.equal("nt", (complete("gq.odeint(f, z, t, { pri")))
    assert.equal("nt", (complete("x = { p = p, pri")))
    assert.equal("xt", (complete("gq.odeint(ne")))
    assert.equal("n-loeve", (complete("gq.wong_zakai(s, { expansion = 'karhune")))
    for line, choice in pairs { ["gq.sdeint(s, z, t, { method = '"] = "srk",
      ["gq.odeint(f, z, t, { method = '"] = "dopri5", ["gq.sde { noise = '"] = "diagonal" } do
      assert.truthy(select(2, complete(line)):find(choice, 1, true), line)
    end
    assert.equal("    ", (complete("")))
    _G.gq = nil
  end)

  it("are laid out in columns", function()
    local _, list = gq.core.prompt.complete("string.")
    assert.truthy(list:find("^byte +find +gsub +match +rep +unpack\nchar +format"), list)
  end)
end)
