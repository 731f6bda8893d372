-- prompt_spec.lua -- what the prompt knows of what is being typed: options of calls, values of options, colours.

local gq = require "gq"
local helper = require "tests.helper"

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

  local acts = {}
  for name in ("help cli free normal_ make_directory file_write file_append"):gmatch("%S+") do
    acts["gq." .. name] = true
  end

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

describe("code in colours", function()
  local paint = gq.core.prompt.paint

  -- With {keyword}, "string", ... for what is coloured.
  local function marked(...)
    local names = { ["35"] = "k", ["32"] = "s", ["36"] = "n", ["90"] = "c", ["1;4"] = "p", ["31"] = "w" }
    return (paint(...):gsub("\27%[([%d;]+)m(.-)\27%[0m", function(style, piece)
      return names[style] .. "{" .. piece .. "}"
    end))
  end

  it("has keywords, strings, numbers and comments", function()
    assert.equal("k{for} i = n{1}, n{0x1F}, n{1e-3} k{do} fora.end_, k{end}",
      marked("for i = 1, 0x1F, 1e-3 do fora.end_, end"))
    assert.equal([[s{"a'\"b"} .. s{'c'} k{or} n{nil} c{-- and "more}]], marked([["a'\"b" .. 'c' or nil -- and "more]]))
    assert.equal("n{3}-n{4} - n{.5} .. n{1e5}+n{2} n{0xe}+n{1} n{0x1p-4}", marked("3-4 - .5 .. 1e5+2 0xe+1 0x1p-4"))
    assert.equal("s{[[a]]} s{[==[b]]]==]} c{--[[c]]} x s{\"open}", marked("[[a]] [==[b]]]==] --[[c]] x \"open"))
    assert.equal("k{??}nn.mlp", marked("??nn.mlp"))
    assert.equal("k{%time} k{not} x", marked("%time not x"))
    assert.equal("k{!}ls for", marked("!ls for"))
  end)

  it("goes on from the lines of a block above", function()
    assert.equal("s{b]]} k{and} c", marked("b]] and c", nil, "x = [[a"))
    assert.equal("c{still} ", marked("still", nil, "--[[ a") .. " ")
    assert.equal("f(x)", marked("f(x)", nil, "-- a comment"))
    assert.equal("p{)}", marked(")", 1, "print("))
    assert.equal("!x", marked("!x", nil, "y ="))
  end)

  it("shows pairs of brackets at the cursor, and those that close nothing", function()
    assert.equal("fp{(}x[n{1}]p{)}", marked("f(x[1])", 7))
    assert.equal("f(xp{[}n{1}p{]})", marked("f(x[1])", 3))
    assert.equal("f(')')w{]}", marked("f(')')]"):gsub("s{(.-)}", "%1"))
    assert.equal("f(x)", marked("f(x)"))
  end)

  it("keeps the text of any line, of one like this in every part", function()
    local line = "for k = 1, #t do x[k] = 'a\\'' .. [=[b]=] .. \"ä日\\\\\" .. 0x1p-4 -- ]] 'end"
    for i = 1, #line do
      for j = i, #line, 7 do
        local part = line:sub(i, j)
        assert.equal(part, (paint(part, #part):gsub("\27%[[%d;]*m", "")))
        assert.equal(part, (paint(part, 0, line:sub(1, i - 1)):gsub("\27%[[%d;]*m", "")))
      end
    end
  end)
end)

-- What a terminal of so many columns shows after these bytes: its rows, and where the cursor is.
local function screen(bytes, columns)
  local rows, row, column, kept = { {} }, 1, 1, { 1, 1 }
  local function at(r)
    while #rows < r do rows[#rows + 1] = {} end
    return rows[r]
  end
  local function put(c)
    local width = utf8.codepoint(c) >= 0x1100 and 2 or 1
    if column + width - 1 > columns then row, column = row + 1, 1 end
    at(row)[column] = c
    if width == 2 then at(row)[column + 1] = "" end
    column = column + width
  end
  local function clear(r, from)
    for k = from, columns do at(r)[k] = nil end
  end
  local control = {
    A = function(n) row = math.max(1, row - n) end, B = function(n) row = row + n end,
    C = function(n) column = math.min(columns, column + n) end, D = function(n) column = math.max(1, column - n) end,
    G = function(n) column = n end,
    K = function() clear(row, column) end,
    J = function()
      clear(row, column)
      for r = row + 1, #rows do rows[r] = {} end
    end,
    P = function(n)
      for k = column, columns do at(row)[k] = at(row)[k + n] end
    end,
    ["@"] = function(n)
      for k = columns, column, -1 do at(row)[k] = k - n >= column and at(row)[k - n] or " " end
    end,
  }
  local i = 1
  while i <= #bytes do
    local arguments, letter, after = bytes:match("^\27%[([%d;?]*)(%a)()", i)
    if not letter then arguments, letter, after = bytes:match("^\27%[(%d*)(@)()", i) end
    local c = bytes:match("^" .. utf8.charpattern, i)
    if letter then
      if control[letter] then control[letter](tonumber(arguments) or 1) end
      i = after
    elseif bytes:find("^\27[78]", i) then
      if bytes:find("^7", i + 1) then kept = { row, column } end
      row, column = table.unpack(kept)
      i = i + 2
    elseif c == "\r" or c == "\n" or c == "\b" then
      column = c == "\r" and 1 or c == "\n" and column or math.max(1, math.min(column, columns) - 1)
      if c == "\n" then row = row + 1 end
      at(row)
      i = i + 1
    elseif c:byte() < 32 then
      i = i + 1
    else
      put(c)
      i = i + #c
    end
  end
  local lines = {}
  for r = 1, #rows do
    for k = 1, columns do rows[r][k] = rows[r][k] or " " end
    lines[r] = table.concat(rows[r]):gsub(" +$", "")
  end
  return table.concat(lines, "\n"):gsub("\n+$", ""), row, math.min(column, columns)
end

describe("a line in a terminal", function()
  -- All that the terminal was sent for these keys, each by itself.
  local function typed(environment, keys, columns)
    local folder = helper.folder()
    local greeted = ("grep -q leaves %s/out"):format(folder)
    local parts = { ("for i in $(seq 400); do %s && break; sleep 0.02; done; sleep 0.1"):format(greeted) }
    for _, key in ipairs(keys) do parts[#parts + 1] = ("printf '%%b' %s; sleep 0.03"):format(helper.quote(key)) end
    local command = ("(%s; sleep 0.1; printf '\\025\\004'; sleep 0.1) | env HOME=%s LC_ALL=C.UTF-8 %s timeout 20 " ..
      "script -qec %s /dev/null >%s/out 2>&1"):format(table.concat(parts, "; "), folder, environment,
      helper.quote(("stty cols %d rows 20; exec "):format(columns or 30) .. helper.quote(helper.gqlua)), folder)
    assert(os.execute(command))
    return helper.read(folder .. "/out")
  end

  local left, up, home = "\\033[D", "\\033[A", "\\001"
  local keys = { "x = [[one", "\\n", "t", "wo]] .. 'ä日本'", " -- and a comment that is long", left, left, "_", home, "y",
    "\\004", "\\n", "for i = 1, 2 do", "\\n", "print(i", ")", " end", "\\n", up, up, left, left, left, "\\b", "''",
    " .. 12345 .. 'a text that wraps' .. (1)", left, left, "9", "\\n", "string.for", "\\t", "\\003", "?nn.Li", "\\t",
    "\\003", "\\022for", "\\n", "print('" .. ("日"):rep(20), "'", ")", left, left, "a" }

  it("shows in colours what it shows without, with the cursor where it was", function()
    local plain, coloured = typed("TERM=xterm NO_COLOR=1", keys), typed("TERM=xterm", keys)
    assert.falsy(plain:find("\27%[3%dm"))
    for _, word in ipairs { "\27[35mfor\27[0m", "\27[32m'ä日本'\27[0m", "\27[36m1\27[0m" } do
      assert.truthy(coloured:find(word, 1, true), word)
    end
    assert.same({ screen(plain, 30) }, { screen(coloured, 30) })
    assert.falsy(typed("TERM=dumb", { "for i", " = 1" }):find("\27[35m", 1, true))
  end)

  it("has help and tensors as wide as it is, and stops where a screen is full", function()
    local out = typed("TERM=dumb", { "?event\\n", "q\\n", "1 + 1\\n", "gq.arange(1, 60) * gq.ones(2, 1)\\n" }, 50)
    local help = out:match("event: of gq.*%-%- Enter: more")
    local n, widest = 0, 0
    for line in help:gmatch("[^\r\n]+") do n, widest = n + 1, math.max(widest, #line) end
    assert.equal(20, n)
    assert.truthy(widest > 44 and widest <= 50, widest)
    assert.truthy(out:find("\n2\r?\n"))
    for line in out:match("tensor%b()"):gmatch("[^\r\n]+") do assert.truthy(#line <= 50, line) end
    assert.truthy(out:find("tensor%({{ 1,  2,  3,[^\n]*,\r?\n         %d"), out)
  end)
end)
