-- files_spec.lua -- npz, idx, csv, data sets of images: small files of every format, written here byte by byte, what is
-- wrong with files, and every truncation and flipped bit of some.

local gq = require "gq"
local helper = require "tests.helper"

local raises, core = helper.raises, gq.core
local folder = helper.folder()

local function path(name) return folder .. "/" .. name end
local function put(name, bytes)
  local inner = name:match("^(.*)/")
  if inner and not core.directory(path(inner)) then os.execute("mkdir -p " .. path(inner)) end
  return helper.write(path(name), bytes)
end

local function gzip(s) return "\x1f\x8b\8\0\0\0\0\0\0\3" .. core.deflate(s) .. ("<I4I4"):pack(core.crc32(s), #s) end

local function zlib(s)
  local a, b = 1, 0
  for i = 1, #s do
    a = (a + s:byte(i)) % 65521
    b = (b + a) % 65521
  end
  return "\x78\x9c" .. core.deflate(s) .. (">I4"):pack(b << 16 | a)
end

local function bytes_of(n, f)
  local t = {}
  for i = 1, n do t[i] = string.char(f(i - 1)) end
  return table.concat(t)
end

local function idx(code, shape, body)
  return "\0\0" .. string.char(code, #shape) .. (">" .. ("I4"):rep(#shape)):pack(table.unpack(shape)) .. body
end

-- Every truncation, and a bit flipped in each byte (every one in the slow tests), gives a value or an error that names
-- the file. step: of bytes.
local thorough = false
local function damaged(name, bytes, load, step)
  local function try(s)
    local p = put("damaged/" .. name, s)
    local ok, e = pcall(load, p)
    assert.is_true(ok or tostring(e):find(name, 1, true) ~= nil, tostring(e))
  end
  for n = 0, #bytes - 1, step or 1 do try(bytes:sub(1, n)) end
  for i = 1, #bytes, step or 1 do
    for bit = thorough and 0 or i % 8, thorough and 7 or i % 8 do
      try(bytes:sub(1, i - 1) .. string.char(bytes:byte(i) ~ 1 << bit) .. bytes:sub(i + 1))
    end
  end
end

describe("npz", function()
  local t = { a = gq.randn(2, 3), b = gq.randn({ 4 }, { dtype = "float64" }), ["x/y"] = gq.tensor { true, false },
    n = gq.tensor(7, { dtype = "int64" }), none = gq.zeros(0, 2) }

  it("comes back as it was, stored and deflated", function()
    for _, compress in ipairs { false, true } do
      gq.save(path("t.npz"), t, { compress = compress })
      local u = gq.load(path("t.npz"))
      for name, x in pairs(t) do
        assert.same(x:totable(), u[name]:totable())
        assert.same({ x.dtype, x.shape }, { u[name].dtype, u[name].shape })
      end
    end
    gq.save(path("zeros.npz"), gq.zeros(1000), { compress = true })
    assert.is_true(#helper.read(path("zeros.npz")) < 400)
    assert.same({ 1000 }, gq.load(path("zeros.npz")).arr_0.shape)
    gq.save(path("empty.npz"), {})
    assert.same({}, gq.load(path("empty.npz")))
  end)

  it("has the bytes of .npy files within, and unzip reads it", function()
    gq.save(path("one.npz"), { a = t.a })
    gq.save(path("a.npy"), t.a)
    local npy = helper.read(path("a.npy"))
    assert.truthy(helper.read(path("one.npz")):find(npy, 1, true))
    if os.execute("command -v unzip >/dev/null") then
      assert.is_true(os.execute("cd " .. folder .. " && unzip -qo one.npz -d out && cmp a.npy out/a.npy"))
    end
  end)

  it("that is damaged, or no tensors, is an error", function()
    gq.save(path("s.npz"), { a = gq.ones(2) }, { compress = true })
    damaged("s.npz", helper.read(path("s.npz")), gq.load)
    raises("x.npz no zip file", gq.load, put("x.npz", "nothing"))
    local s = helper.read(path("one.npz"))
    raises("a.npy checksum", gq.load, put("y.npz", s:sub(1, 150) .. string.char(s:byte(151) ~ 1) .. s:sub(152)))
    raises("tensors by name", gq.save, path("z.npz"), { 1 })
    raises("tensors by name", gq.save, path("z.npz"), { [1] = gq.ones(1) })
    raises("unknown option", gq.save, path("z.npz"), { a = gq.ones(1) }, { zip = true })
  end)
end)

describe("idx", function()
  it("of every type, packed or not", function()
    local cases = { { 8, "\0\1\255", { 0, 1, 255 } }, { 9, "\0\1\255", { 0, 1, -1 } },
      { 11, (">i2i2i2"):pack(0, 300, -2), { 0, 300, -2 } }, { 12, (">i4i4i4"):pack(1, -70000, 2), { 1, -70000, 2 } },
      { 13, (">fff"):pack(0.5, -1, 2), { 0.5, -1, 2 } }, { 14, (">ddd"):pack(0.1, -1, 2), { 0.1, -1, 2 } } }
    for _, c in ipairs(cases) do
      local bytes = idx(c[1], { 3 }, c[2])
      assert.same(c[3], gq.load(put("a.idx", bytes)):totable())
      assert.same(c[3], gq.load(put("a-idx1-ubyte.gz", gzip(bytes))):totable())
    end
    assert.same({ { 1, 2 }, { 3, 4 } }, gq.load(put("b-ubyte", idx(8, { 2, 2 }, "\1\2\3\4"))):totable())
  end)

  it("that is damaged is an error", function()
    local bytes = idx(8, { 2, 2 }, "\1\2\3\4")
    damaged("d.idx", bytes, gq.load)
    damaged("d.idx.gz", gzip(bytes), gq.load)
    raises("c.idx two zero bytes", gq.load, put("c.idx", "abcdefgh"))
    raises("c.idx {2, 2} the file has 15", gq.load, put("c.idx", bytes:sub(1, -2)))
    raises("read, not written", gq.save, path("c.idx"), gq.ones(2))
    raises("only .csv takes options", gq.load, path("c.idx"), {})
    raises("a.npy: a tensor alone goes into .npy; got table beside it", gq.save, path("a.npy"), gq.ones(2),
      { compress = true })
  end)
end)

describe("csv", function()
  local function load(text, opts)
    return gq.load(put("a.csv", text), opts)
  end

  it("finds separators and names, reads quotes, missing cells and dates, chooses columns", function()
    for _, c in ipairs { ",", ";", "\t", "|", " " } do
      local x, names = load(("a%sb\n1%s-2.5\n3e1%s4\n"):format(c, c, c))
      assert.same({ { 1, -2.5 }, { 30, 4 } }, x:totable())
      assert.same({ "a", "b" }, names)
    end
    local x, names = load('\xef\xbb\xbf"a, b","say ""x""",z\r\n\r\n"1",2,\r\n NA , null,"3"\r\n')
    assert.same({ "a, b", 'say "x"', "z" }, names)
    local v = x:totable()
    assert.same({ 1, 2, 3 }, { v[1][1], v[1][2], v[2][3] })
    assert.is_true(v[1][3] ~= v[1][3] and v[2][1] ~= v[2][1] and v[2][2] ~= v[2][2])
    x = load("day,x\n1970-01-02,1\n2000-03-01T00:00:01.5Z,2\n2024-02-29 12:30,3\n")
    assert.equal("float64", x.dtype)
    assert.same({ 86400, 951868801.5, 1709209800 }, x[{ {}, 1 }]:totable())
    x, names = load("name,t,x\nbob,1,2\neve,3,4\n", { columns = { "x", "t" } })
    assert.same({ { 2, 1 }, { 4, 3 } }, x:totable())
    assert.same({ "x", "t" }, names)
    assert.same({ { 4 }, { 6 } }, load("3,4\n5,6\n", { columns = 2 }):totable())
    assert.same({ { 3, 4 } }, load("1,2\n3,4\n", { header = true }):totable())
    assert.equal("int64", load("1,2\n", { dtype = "int64" }).dtype)
    assert.same({ { 1, 2 } }, load('"line\nbreak",b\n1,2\n'):totable())
    assert.same({ { 12 }, { 3 } }, load("12\n3"):totable())
  end)

  it("reads numbers to the last bit", function()
    local list, lines = {}, {}
    for i = 1, 400 do
      local m = gq.rand({ 2 }, { seed = i, dtype = "float64" }):totable()
      local e = math.floor(m[2] * 60 - 30)
      list[i] = tonumber(("%.17ge%d"):format(m[1] - 0.5, e))
      lines[i] = (i % 2 == 0 and "%.17g" or "%.6e"):format(list[i])
      list[i] = tonumber(lines[i])
    end
    for _, s in ipairs { "123456789012345678901234567890", "1e400", "-1e-400", "0.1", ".5", "5.", "+7", "-0", "1E5",
      "9007199254740993", "inf", "-inf", "Infinity" } do
      lines[#lines + 1] = s
      list[#list + 1] = s:lower():find("inf") and (s:sub(1, 1) == "-" and -1 or 1) * math.huge or tonumber((s:gsub("%+",
        "")))
    end
    local x = gq.load(put("n.csv", table.concat(lines, "\n")), { dtype = "float64", header = false }):flatten()
    for i, v in ipairs(list) do assert.equal(v + 0.0, x[i]:item(), lines[i]) end
  end)

  it("numbers of every dtype come back", function()
    for _, dtype in ipairs { "float32", "float64", "int64", "bool" } do
      local x = gq.tensor({ { 1, 0, 3 }, { 0, -2, (1 << 53) - 1 } }, { dtype = "float64" }):to(dtype)
      gq.save(path("d.csv"), x)
      assert.same(x:totable(), gq.load(path("d.csv"), { dtype = dtype }):totable())
    end
  end)

  it("writes names that come back", function()
    gq.save(path("w.csv"), gq.tensor { { 1, 2 } }, { "a,b", 'c"d' })
    local x, names = gq.load(path("w.csv"))
    assert.same({ { 1, 2 } }, x:totable())
    assert.same({ "a,b", 'c"d' }, names)
    raises("list of 2 names", gq.save, path("w.csv"), gq.ones(1, 2), { "a" })
  end)

  it("says what is wrong, and where", function()
    raises("a.csv: line 3: a number expected, got \"x\" in column 2 columns", load, "a,b\n1,2\n3,x\n")
    raises("a.csv: line 4: a number expected", load, '"a\n",b\n1,2\n3,x\n')
    raises("line 2 has 3 numbers, the first has 2", load, "1,2\n3,4,5\n")
    raises("no column \"z\"; there are a, b", load, "a,b\n1,2\n", { columns = { "z" } })
    raises("no column 3; there are 1 to 2", load, "1,2\n", { columns = { 3 } })
    raises("a is named twice", load, "a,b\n1,2\n", { columns = { "a", "a" } })
    raises("separator: one character", load, "1,2\n", { separator = "ab" })
    raises("1 cells are missing", load, "1,\n", { dtype = "int64" })
    raises("1 cells are missing, which bool cannot say", load, "1,\n", { dtype = "bool" })
    for _, number in ipairs { "1.5", "1e300", "-inf", "9007199254740993" } do
      raises("a.csv: row 2 of the numbers, column 1 is no integer below 2^53", load, "1\n" .. number .. "\n",
        { dtype = "int64" })
    end
    raises("a.csv: option dtype: one of float32, float64, int64, bool expected, got string \"float16\"", load, "1\n",
      { dtype = "float16" })
    raises("unknown option 'sep' separator,", load, "1\n", { sep = "," })
    raises("has no numbers", load, "a,b\n")
    damaged("d.csv", 'a,"b"\n1,-2e1\n2020-01-01,\n', gq.load)
  end)

  it("with any bit flipped #slow", function()
    thorough = true
    damaged("d.csv", 'a,"b"\n1,-2e1\n2020-01-01,\n', gq.load)
    gq.save(path("s.npz"), { a = gq.ones(2) }, { compress = true })
    damaged("s.npz", helper.read(path("s.npz")), gq.load)
    damaged("d.idx.gz", gzip(idx(8, { 2, 2 }, "\1\2\3\4")), gq.load)
    thorough = false
  end)

  it("reads 50 MB a second of its own time #slow", function()
    local lines = {}
    for i = 1, 200000 do lines[i] = ("%.6f,%.6f,%d,%.4e"):format(i * 0.37, -i / 7, i, i * 1e-5) end
    local text = table.concat(lines, "\n")
    put("big.csv", text)
    local best = math.huge
    for _ = 1, 3 do
      local start = os.clock()
      assert.same({ 200000, 4 }, gq.load(path("big.csv")).shape)
      best = math.min(best, os.clock() - start)
    end
    assert.is_true(#text / best > 50e6, ("%.0f MB/s"):format(#text / best / 1e6))
  end)
end)

describe("gq.data.mnist and fashion_mnist", function()
  local function files(name, h, w, labels)
    local n = #labels
    local function pixel(i) return (i * 7) % 256 end
    for part, suffix in pairs { train = "", t10k = ".gz" } do
      local pack = suffix == "" and function(s) return s end or gzip
      put(("%s/%s-images-idx3-ubyte%s"):format(name, part, suffix),
        pack(idx(8, { n, h, w }, bytes_of(n * h * w, pixel))))
      put(("%s/%s-labels-idx1-ubyte%s"):format(name, part, suffix), pack(idx(8, { n }, labels)))
    end
  end

  it("read idx files, packed or not, where torchvision puts them too", function()
    files("m/MNIST/raw", 2, 3, "\0\9\4")
    for _, o in ipairs { { data = path("m") }, { data = path("m/MNIST/raw"), train = 2 } } do
      local d = gq.data.mnist(o)
      assert.same({ o.train or 3, 1, 2, 3 }, d.train.x.shape)
      assert.same(o.train and { 1, 10 } or { 1, 10, 5 }, d.train.y:totable())
      assert.equal("int64", d.train.y.dtype)
      local list = {}
      for i = 0, 17 do list[i + 1] = (i * 7) % 256 / 255 end
      assert.close(d.test.x:flatten(), list, 1e-6)
      assert.equal(10, d.classes)
      assert.equal("9", d.names[10])
      for x, y in gq.data.batches(d.train, { batch_size = 2 }) do assert.equal(#x, #y) end
    end
    files("f/fashion-mnist", 2, 2, "\1")
    assert.equal("Trouser", gq.data.fashion_mnist({ data = path("f") }).names[2])
  end)

  it("say which files are missing, from where, with their checksums; and what is wrong with one", function()
    raises("MNIST not in x, data = train-images-idx3-ubyte.gz f68b3c2dcbeaaa9fbdd348bbdeb94873 https",
      gq.data.mnist, { data = "x" })
    raises("fashion-mnist dataset-fashion-mnist bb300cfdad3c16e7a12a480ee83cd310",
      gq.data.fashion_mnist, { data = "x" })
    files("w", 2, 2, "\0\1")
    local set = { data = path("w") }
    put("w/train-labels-idx1-ubyte", idx(8, { 2 }, "\0\10"))
    raises("train-labels-idx1-ubyte label 10 at entry 2: 0 to 9", gq.data.mnist, set)
    put("w/train-labels-idx1-ubyte", idx(8, { 3 }, "\0\1\2"))
    raises("3 labels for the 2 images", gq.data.mnist, set)
    put("w/train-labels-idx1-ubyte", idx(8, { 2, 2, 1 }, "\0\1\2\3"))
    raises("1 dimensions expected, got 3", gq.data.mnist, set)
    put("w/train-images-idx3-ubyte", "\0\0\8")
    raises("train-images-idx3-ubyte", gq.data.mnist, set)
    raises("unknown option", gq.data.mnist, { dir = "x" })
    files("w", 2, 2, "\0\1")
    put("w/t10k-images-idx3-ubyte.gz", gzip(idx(8, { 2, 2, 3 }, ("\1"):rep(12))))
    raises("t10k-images-idx3-ubyte.gz images of 2 x 3, those of train-images-idx3-ubyte are 2 x 2", gq.data.mnist, set)
    files("w", 2, 2, "\0\1")
    files("damaged", 2, 2, "\0\1")
    local function load() return gq.data.mnist { data = path("damaged") } end
    damaged("train-images-idx3-ubyte", helper.read(path("w/train-images-idx3-ubyte")), load)
    files("damaged", 2, 2, "\0\1")
    damaged("train-labels-idx1-ubyte", helper.read(path("w/train-labels-idx1-ubyte")), function()
      local ok, e = pcall(load)
      assert(ok or e:find("labels for the", 1, true) or e:find("train-labels", 1, true), e)
    end)
    files("damaged", 2, 2, "\0\1")
    damaged("t10k-images-idx3-ubyte.gz", helper.read(path("w/t10k-images-idx3-ubyte.gz")), load)
    raises("train = 3, there are 2", gq.data.mnist, { data = path("w"), train = 3 })
  end)
end)

-- A tar archive of {name, bytes}.
local function tar(list)
  local parts = {}
  for _, f in ipairs(list) do
    local head = f[1] .. ("\0"):rep(100 - #f[1]) .. ("0"):rep(24) .. ("%011o\0"):format(#f[2])
    parts[#parts + 1] = head .. ("\0"):rep(512 - #head) .. f[2] .. ("\0"):rep(-#f[2] % 512)
  end
  return table.concat(parts) .. ("\0"):rep(1024)
end

describe("gq.data.cifar10 and cifar100", function()
  local function record(labels, seed) return labels .. bytes_of(3072, function(i) return (i + seed) % 256 end) end
  local function archive()
    local list = { { "cifar-10-batches-bin/test_batch.bin", record("\3", 9) .. record("\9", 1) } }
    for i = 1, 5 do
      list[i + 1] = { ("cifar-10-batches-bin/data_batch_%d.bin"):format(i), record(string.char(i), i) }
    end
    return list
  end

  it("read the archive, or what was in it", function()
    put("c/cifar-10-binary.tar.gz", gzip(tar(archive())))
    for _, f in ipairs(archive()) do put("d/" .. f[1], f[2]) end
    for _, name in ipairs { "c", "d" } do
      local d = gq.data.cifar10 { data = path(name) }
      assert.same({ 5, 3, 32, 32 }, d.train.x.shape)
      assert.same({ 2, 3, 4, 5, 6 }, d.train.y:totable())
      assert.same({ 4, 10 }, d.test.y:totable())
      assert.close(d.test.x[{ 1, 2, 3, 5 }]:item(), (1024 + 64 + 4 + 9) % 256 / 255, 1e-6)
      assert.same({ 3, 3, 32, 32 }, gq.data.cifar10({ data = path(name), train = 3 }).train.x.shape)
      assert.equal("truck", d.names[10])
    end
    put("h/cifar-100-binary.tar.gz", gzip(tar { { "cifar-100-binary/train.bin", record("\1\99", 0) },
      { "cifar-100-binary/test.bin", record("\1\0", 0) } }))
    local d = gq.data.cifar100 { data = path("h") }
    assert.same({ 100 }, d.train.y:totable())
    assert.same({ 1 }, d.test.y:totable())
    assert.equal(100, d.classes)
  end)

  it("say what is missing or wrong", function()
    raises("cifar-10-binary.tar.gz c32a1d4ab5d03f1284b67883e8d87530", gq.data.cifar10, { data = "x" })
    local list = archive()
    list[3] = { list[3][1], "short" }
    put("e/cifar-10-binary.tar.gz", gzip(tar(list)))
    raises("data_batch_2.bin 5 bytes records of 3073", gq.data.cifar10, { data = path("e") })
    table.remove(list, 3)
    put("e/cifar-10-binary.tar.gz", gzip(tar(list)))
    raises("no data_batch_2.bin", gq.data.cifar10, { data = path("e") })
    put("e/cifar-10-binary.tar.gz", gzip(tar(archive())):sub(1, -100))
    raises("cifar-10-binary.tar.gz damaged gzip", gq.data.cifar10, { data = path("e") })
    put("e/cifar-10-binary.tar.gz", gzip(tar(archive()):sub(1, 5000)))
    raises("archive ends within", gq.data.cifar10, { data = path("e") })
    local small = tar { { "train.bin", record("\1\99", 0) }, { "test.bin", record("\1\0", 0) } }
    local function load() return gq.data.cifar100 { data = path("damaged") } end
    damaged("cifar-100-binary.tar", small, load, thorough and 1 or 37)
    os.remove(path("damaged/cifar-100-binary.tar"))
    damaged("cifar-100-binary.tar.gz", gzip(small), load, thorough and 1 or 5)
    os.remove(path("damaged/cifar-100-binary.tar.gz"))
  end)
end)

describe("gq.data.svhn", function()
  local function element(kind, body) return ("<I4I4"):pack(kind, #body) .. body .. ("\0"):rep(-#body % 8) end
  local function array(name, class, shape, kind, body)
    return element(14, element(6, ("<I4I4"):pack(class, 0)) .. element(5, ("<" .. ("i4"):rep(#shape)):pack(
      table.unpack(shape))) .. ("<I2I2c4"):pack(1, #name, name .. ("\0"):rep(4 - #name)) .. element(kind, body))
  end
  local function mat(n, labels, packed)
    local x = array("X", 9, { 2, 3, 3, n }, 2, bytes_of(18 * n, function(i) return i % 256 end))
    local y = array("y", 6, { n, 1 }, 2, labels)
    if packed then x, y = ("<I4I4"):pack(15, #zlib(x)) .. zlib(x), ("<I4I4"):pack(15, #zlib(y)) .. zlib(y) end
    return ("MATLAB 5.0 MAT-file" .. (" "):rep(105)) .. "\0\1IM" .. x .. y
  end

  it("reads MATLAB's files, whose columns come first", function()
    for _, packed in ipairs { true, false } do
      put("s/train_32x32.mat", mat(2, "\1\10", packed))
      put("s/test_32x32.mat", mat(1, "\5", packed))
      local d = gq.data.svhn { data = path("s") }
      assert.same({ 2, 3, 2, 3 }, d.train.x.shape)
      assert.same({ 1, 10 }, d.train.y:totable())
      assert.close(d.train.x[{ 2, 3, 2, 1 }]:item(), (18 + 2 * 6 + 0 * 2 + 1) / 255, 1e-6)   -- n, c, h, w
      assert.same({ 1, 3, 2, 3 }, gq.data.svhn({ data = path("s"), train = 1 }).train.x.shape)
      assert.equal("0", d.names[10])
    end
  end)

  it("says what is missing or wrong", function()
    raises("train_32x32.mat e26dedcc434d2e4c54c9b2d4a06d8373", gq.data.svhn, { data = "x" })
    put("s/train_32x32.mat", mat(2, "\1\11", true))
    raises("train_32x32.mat label 11 at entry 2: 1 to 10", gq.data.svhn, { data = path("s") })
    put("s/train_32x32.mat", ("x"):rep(200))
    raises("no MATLAB file of level 5", gq.data.svhn, { data = path("s") })
    local bytes = mat(1, "\5", false)
    for n = 0, #bytes - 1, 3 do
      put("s/train_32x32.mat", bytes:sub(1, n))
      assert.is_false((pcall(gq.data.svhn, { data = path("s") })))
    end
    put("damaged/test_32x32.mat", bytes)
    for _, packed in ipairs { false, true } do
      damaged("train_32x32.mat", mat(1, "\5", packed), function() return gq.data.svhn { data = path("damaged") } end)
    end
  end)
end)

describe("gq.data.images", function()
  local function chunk(kind, body)
    return (">I4"):pack(#body) .. kind .. body .. (">I4"):pack(core.crc32(kind .. body))
  end
  -- kind: bits a number, colour type, interlacing; n: bytes a pixel; more: chunks
  local function png_of(w, h, n, kind, pixel, more)
    local rows = {}
    for y = 1, h do
      rows[y] = "\0" .. bytes_of(n * w, function(i) return pixel(i // n, y - 1, i % n) end)
    end
    local head = (">I4I4"):pack(w, h) .. kind[1] .. kind[2] .. "\0\0" .. (kind[3] or "\0")
    return "\x89PNG\r\n\x1a\n" .. chunk("IHDR", head) .. (more or "") .. chunk("IDAT", zlib(table.concat(rows)))
      .. chunk("IEND", "")
  end
  local function png(w, h, pixel) return png_of(w, h, 3, { "\8", "\2" }, pixel) end
  local function has(what) return (pcall(core.image, "x", what, 3)) end
  local picture = png(3, 2, function(x, y, c) return 10 * x + 100 * y + c end)
  local jpeg = helper.read("tests/data/red.jpg.hex"):gsub("%s", ""):gsub("%x%x", function(h)
    return string.char(tonumber(h, 16))
  end)

  it("reads PNG files of a folder a class", function()
    if not has(picture) then return pending("libpng is not installed") end
    put("i/train/cat/1.png", picture)
    put("i/train/dog/1.PNG", picture)
    put("i/train/dog/2.png", png(3, 2, function() return 255 end))
    put("i/train/dog/notes.txt", "none")
    put("i/test/dog/1.png", picture)
    local d = gq.data.images(path("i"))
    assert.same({ 3, 3, 2, 3 }, d.train.x.shape)
    assert.same({ 1, 2, 2 }, d.train.y:totable())
    assert.same({ "cat", "dog" }, d.names)
    assert.close(d.train.x[{ 1, 3, 2, 3 }]:item(), 122 / 255, 1e-6)
    assert.equal(1, d.train.x[3]:min():item())
    assert.same({ 3, 1, 2, 3 }, gq.data.images(path("i/train"), { channels = 1 }).train.x.shape)
    put("i/train/.thumbs/1.png", picture)                       -- no classes: hidden, or without pictures
    put("i/train/another/notes.txt", "none")
    assert.same({ "cat", "dog" }, gq.data.images(path("i")).names)
    put("i/test/Cat/1.png", picture)
    raises("test/Cat no class of the training images is called so cat, dog", gq.data.images, path("i"))
    os.remove(path("i/test/Cat/1.png"))
    put("i/test/dog/1.png", png(4, 2, function() return 0 end))
    raises("i/test 3 x 2 x 4 3 x 2 x 3", gq.data.images, path("i"))
    put("i/test/dog/1.png", picture)
    put("i/train/dog/3.png", png(2, 2, function() return 0 end))
    raises("3.png 3 x 2 x 2 3 x 2 x 3", gq.data.images, path("i"))
    put("i/train/dog/3.png", picture:sub(1, 40))
    raises("3.png", gq.data.images, path("i"))
    put("i/train/dog/3.png", "text")
    raises("3.png neither a PNG nor a JPEG", gq.data.images, path("i"))
    damaged("p.png", picture, function(p) return core.image(p, gq.file_read(p), 3) end)
  end)

  -- As PIL's convert("RGB") and ("L") do: numbers are neither bent nor composed.
  it("reads PNG files of every kind as their numbers are", function()
    if not has(picture) then return pending("libpng is not installed") end
    local function value(x, y, c) return (37 * x + 91 * y + 53 * c) % 256 end
    local function read(bytes, channels) return core.image("x.png", bytes, channels) * 255 end
    local want, luma = gq.zeros(3, 2, 3), { 0.299, 0.587, 0.114 }
    for x = 0, 2 do
      for y = 0, 1 do
        for c = 0, 2 do want[{ c + 1, y + 1, x + 1 }] = value(x, y, c) end
      end
    end
    local grey = gq.zeros(1, 2, 3)
    for c = 1, 3 do grey[1] = grey[1] + want[c] * luma[c] end
    local palette = bytes_of(3 * 6, function(i) return value(i // 3 % 3, i // 9, i % 3) end)
    local colours = {
      png(3, 2, value),
      png_of(3, 2, 4, { "\8", "\6" }, function(x, y, c) return c == 3 and 100 * y or value(x, y, c) end),
      png_of(3, 2, 6, { "\16", "\2" }, function(x, y, i) return value(x, y, i // 2) end),
      png_of(3, 2, 8, { "\16", "\6" }, function(x, y, i) return i > 5 and 99 or value(x, y, i // 2) end),
      png_of(3, 2, 1, { "\8", "\3" }, function(x, y) return 3 * y + x end,
        chunk("PLTE", palette) .. chunk("tRNS", "\0\90\255")),
    }
    local linear = chunk("gAMA", (">I4"):pack(100000))
    local said = { linear, chunk("tEXt", "k\0v") .. linear, chunk("gAMA", (">I4"):pack(55556)) .. chunk("cHRM",
      (">I4I4I4I4I4I4I4I4"):pack(31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)), chunk("sRGB", "\0") }
    for _, more in ipairs(said) do
      local function deep(x, y, i) return value(x, y, i // 2) end
      colours[#colours + 1] = png_of(3, 2, 3, { "\8", "\2" }, value, more)
      colours[#colours + 1] = png_of(3, 2, 6, { "\16", "\2" }, deep, more)
      colours[#colours + 1] = png_of(3, 2, 1, { "\8", "\3" }, function(x, y) return 3 * y + x end,
        more .. chunk("PLTE", palette))
    end
    for _, bytes in ipairs(colours) do
      assert.is_true((read(bytes, 3) - want):abs():max():item() < 0.01)
      assert.is_true((read(bytes, 1) - grey):abs():max():item() < 0.51)
    end
    local greys = {
      png_of(3, 2, 1, { "\8", "\0" }, function(x, y) return value(x, y, 0) end),
      png_of(3, 2, 2, { "\8", "\4" }, function(x, y, i) return i > 0 and 7 or value(x, y, 0) end),
      png_of(3, 2, 2, { "\16", "\0" }, function(x, y) return value(x, y, 0) end),
    }
    for _, bytes in ipairs(greys) do
      for channels = 1, 3, 2 do
        assert.is_true((read(bytes, channels) - want[{ { 1, 1 } }]):abs():max():item() < 0.01)
      end
    end
    local interlaced = png_of(1, 1, 2, { "\16", "\0", "\1" }, function() return 1 end)
    raises("an interlaced PNG of 16 bits a number", read, interlaced, 1)
    local bent = png_of(3, 2, 3, { "\8", "\2" }, value, linear)
    damaged("p.png", bent, function(p) return core.image(p, gq.file_read(p), 3) end)
    for _, size in ipairs { 5, 0x7fffffff, 0xfffffff3, 0xfffffff4, 0xffffffff } do
      raises("x.png", read, bent:sub(1, 33) .. (">I4"):pack(size) .. bent:sub(38), 3)
    end
  end)

  it("reads JPEG files", function()
    if not has(jpeg) then return pending("libturbojpeg is not installed") end
    put("j/red/1.jpg", jpeg)
    local x = gq.data.images(path("j")).train.x
    assert.same({ 1, 3, 8, 8 }, x.shape)
    assert.is_true((x[{ 1, 1 }] - 1):abs():max():item() < 0.05)
    assert.is_true((x[{ 1, 2, 1 }] - gq.arange(0, 7) * 36 / 255):abs():max():item() < 0.05)
    put("j/red/2.jpg", jpeg:sub(1, 100))
    raises("2.jpg", gq.data.images, path("j"))
    damaged("p.jpg", jpeg, function(p) return core.image(p, gq.file_read(p), 3) end)
  end)

  it("refuses what is no folder of pictures", function()
    raises("nothing", gq.data.images, path("nothing"))
    os.execute("mkdir -p " .. path("k/a"))
    raises("no folders with PNG", gq.data.images, path("k"))
    raises("channels", gq.data.images, path("k"), { channels = 2 })
    raises("a folder expected", gq.data.images)
  end)
end)

describe("gq.data.augment", function()
  it("mirrors half of the images, and moves each, as its seed says", function()
    local x = gq.rand({ 200, 1, 4, 4 }, { seed = 1 })
    local y, flipped = gq.data.augment(x, { flip = true, seed = 3 }), 0
    for i = 1, 200 do
      local same = (y[i] - x[i]):abs():max():item() == 0
      if not same then assert.equal(0, (y[i] - x[i]:flip(3)):abs():max():item()) end
      flipped = flipped + (same and 0 or 1)
    end
    assert.is_true(flipped > 70 and flipped < 130)
    assert.same(y:totable(), gq.data.augment(x, { flip = true, seed = 3 }):totable())
    local z, places = gq.data.augment(x, { crop = 1, seed = 4 }), {}
    for i = 1, 200 do
      for dy = -1, 1 do
        for dx = -1, 1 do
          local inner = x[{ i, 1, { math.max(1, 1 + dy), math.min(4, 4 + dy) }, { math.max(1, 1 + dx),
            math.min(4, 4 + dx) } }]
          local there = z[{ i, 1, { math.max(1, 1 - dy), math.min(4, 4 - dy) }, { math.max(1, 1 - dx),
            math.min(4, 4 - dx) } }]
          if (inner - there):abs():max():item() == 0 then places[dy * 3 + dx] = (places[dy * 3 + dx] or 0) + 1 end
        end
      end
    end
    local sum = 0
    for _, n in pairs(places) do sum = sum + n end
    assert.equal(200, sum)
    for k = -4, 4 do assert.is_true((places[k] or 0) > 5) end
    raises("images", gq.data.augment, gq.zeros(2, 2))
    raises("crop", gq.data.augment, x, { crop = -1 })
  end)
end)
