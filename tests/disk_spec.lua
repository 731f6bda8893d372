-- Where files cannot grow (a full disk, tried as a limit of their size): errors that name the file, nothing half
-- written, and what was there before.

local gq = require "gq"
local helper = require "tests.helper"
local gqlua = helper.gqlua
local folder = helper.folder()

-- What the script prints with files of at most so many KiB.
local function limited(kib, code)
  gq.file_write(folder .. "/script.lua", "local gq, folder = require 'gq', '" .. folder .. [[/'
local function try(name, f, ...)
  local ok, e = pcall(f, ...)
  print(name, ok, (tostring(e):gsub("\n.*", "")))
end
]] .. code)
  local command = ("trap '' XFSZ; ulimit -f %d; exec '%s' %s/script.lua"):format(2 * kib, gqlua, folder)
  return (helper.output(("sh -c %q"):format(command)))
end

local function names()
  local list = gq.core.directory(folder)
  table.sort(list)
  return list
end

describe("on a full disk", function()
  it("files are refused by name, whole or not at all, and what was there stays", function()
    gq.checkpoint.save(folder .. "/c.safetensors", { model = gq.nn.Linear(2, 2), epoch = 1 })
    gq.save(folder .. "/x.csv", gq.ones(2, 2))
    local before = names()
    local said = limited(8, [[
      local x = gq.randn(100, 100)
      try("checkpoint", gq.checkpoint.save, folder .. "c.safetensors", { model = gq.nn.Linear(100, 100), epoch = 2 })
      try("npy", gq.save, folder .. "x.npy", x)
      try("npz", gq.save, folder .. "x.npz", { x = x })
      try("compressed", gq.save, folder .. "y.npz", { x = x }, { compress = true })
      try("csv", gq.save, folder .. "x.csv", x)
      try("text", gq.file_write, folder .. "t.txt", ("x"):rep(20000))
    ]])
    for _, what in ipairs { "checkpoint", "npy", "npz", "compressed", "csv", "text" } do
      assert.matches(("\n%s\tfalse\t[^\n]*%s[^\n]*: cannot write"):format(what, folder), "\n" .. said, nil, said)
    end
    table.insert(before, 2, "script.lua")
    assert.same(before, names())
    assert.equal(1, gq.checkpoint.load(folder .. "/c.safetensors").epoch)
    assert.same({ 2, 2 }, gq.load(folder .. "/x.csv").shape)
  end)

  it("logs end on a whole line, and a training leaves its last checkpoint", function()
    local said = limited(6, [[
      local net = gq.nn.Linear(2, 1)
      local log = gq.logger.jsonl(folder .. "l.jsonl")
      try("train", gq.train, { model = net, optimiser = gq.optim.adam(net:parameters()), progress = false,
        epochs = 1000, data = { x = gq.ones(4, 2), y = gq.ones(4, 1) }, checkpoint = folder .. "t.safetensors",
        logger = log, loss = function(m, x, y) return gq.mse_loss(m(x), y) end })
    ]])
    assert.truthy(said:find("train\tfalse", 1, true) and said:find(folder, 1, true), said)
    local text = helper.read(folder .. "/l.jsonl")
    assert.equal("\n", text:sub(-1))
    for line in text:gmatch("[^\n]+") do assert.truthy(gq.json.decode(line).epoch) end
    local kept = gq.checkpoint.load(folder .. "/t.safetensors")
    assert.truthy(kept.extra.epoch >= 1 and #kept.extra.rows >= 1)
  end)

  it("pictures are whole or not there", function()
    if not os.execute("command -v gnuplot >/dev/null") then return pending("gnuplot is not installed") end
    for _, suffix in ipairs { "svg", "pdf", "png" } do
      local said = limited(4, ([[
        try("picture", gq.plot.line, { { gq.randn(2000) }, out = folder .. "p.%s" })
      ]]):format(suffix))
      assert.truthy(said:find("picture\tfalse", 1, true), said)
      assert.is_nil(io.open(folder .. "/p." .. suffix))
      assert.is_nil(io.open(folder .. "/p." .. suffix .. ".part"))
    end
  end)

  it("what was printed and is lost is a failure", function()
    local said, code = helper.output(("'%s' -e 'print(1)' >/dev/full"):format(gqlua))
    assert.truthy(said:find("standard output could not be written", 1, true) and code == 1, said)
  end)
end)
