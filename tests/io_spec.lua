-- Files from Lua: .npy, .safetensors, JSON, whole files and lines. What a damaged file may do to the
-- loaders is tried byte by byte in tests/c/io_test.c; here is what scripts see.

local gq = require "gq"
local helper = require "tests.helper"

local message = helper.message
local folder = helper.folder()

local function path(name) return folder .. "/" .. name end

local function put(name, bytes)
  return helper.write(path(name), bytes)
end

local function get(name) return helper.read(path(name)) end

local function flipped(bytes, bit)
  local at = bit // 8 + 1
  return bytes:sub(1, at - 1) .. string.char(bytes:byte(at) ~ (1 << bit % 8)) .. bytes:sub(at + 1)
end

-- A file cut anywhere is an error that names it; with one bit of it turned over it is that, or what it holds works.
local function check_damaged(seed, load, works)
  local bytes, name = get(seed), seed:gsub("seed", "damaged")
  for cut = 0, #bytes - 1 do
    put(name, bytes:sub(1, cut))
    assert.matches(name, message(load, path(name)))
  end
  for bit = 0, 8 * #bytes - 1 do
    put(name, flipped(bytes, bit))
    local ok, x = pcall(load, path(name))
    if ok then works(x) else assert.matches(name, x) end
  end
end

describe("files", function()
  describe("whole", function()
    it("come back as they were written, zero bytes and all", function()
      local bytes = "a\0b\r\n\xff"
      gq.file_write(path("bytes"), bytes)
      assert.equal(bytes, gq.file_read(path("bytes")))
      gq.file_write(path("bytes"), "")
      assert.equal("", gq.file_read(path("bytes")))
    end)

    it("grow by lines", function()
      gq.file_append(path("log"), "one")
      gq.file_append(path("log"), "")
      assert.equal("one\n\n", get("log"))
      assert.matches("newline", message(gq.file_append, path("log"), "a\nb"))
    end)

    it("that cannot be read or written are named", function()
      assert.matches("nothing: cannot open: No such file", message(gq.file_read, path("nothing")))
      assert.matches("not a regular file", message(gq.file_read, folder))
      assert.matches("not a regular file", message(gq.file_read, "/dev/zero"))
      assert.matches("No space left", message(gq.file_write, "/dev/full", "x"))
      assert.matches("No space left", message(gq.file_append, "/dev/full", "x"))
      assert.matches("no/folder", message(gq.file_write, path("no/folder"), "x"))
    end)

    it("take a path that is a string", function()
      for _, f in ipairs { gq.file_read, gq.file_write, gq.file_append, gq.npy_load, gq.npy_save,
                           gq.safetensors_load, gq.safetensors_save } do
        assert.matches("path", message(f, 12, "x"))
        assert.matches("path", message(f))
        assert.matches("zero byte", message(f, "a\0b", "x"))
        assert.matches("empty", message(f, "", "x"))
      end
    end)
  end)

  describe(".npy", function()
    it("keeps shape, dtype and numbers", function()
      for _, dtype in ipairs { "float32", "float64", "int64", "bool" } do
        local x = gq.tensor({ { 1, 0, 1 }, { 0, 1, 0 } }, { dtype = dtype })
        gq.npy_save(path("x.npy"), x)
        local y = gq.npy_load(path("x.npy"))
        assert.same(x.shape, y.shape)
        assert.equal(dtype, y.dtype)
        assert.same(x:totable(), y:totable())
      end
    end)

    it("keeps single numbers, empty tensors and views", function()
      gq.npy_save(path("x.npy"), gq.tensor(2.5))
      assert.equal(2.5, gq.npy_load(path("x.npy")):item())
      gq.npy_save(path("x.npy"), gq.zeros(2, 0))
      assert.same({ 2, 0 }, gq.npy_load(path("x.npy")).shape)
      gq.npy_save(path("x.npy"), gq.tensor({ { 1, 2 }, { 3, 4 } }):transpose(1, 2))
      assert.same({ { 1, 3 }, { 2, 4 } }, gq.npy_load(path("x.npy")):totable())
    end)

    it("reads Fortran's order", function()
      local header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n"
      put("f.npy", "\x93NUMPY\1\0" .. string.pack("<I2", #header) .. header .. string.pack("<ffffff", 1, 2, 3, 4, 5, 6))
      local x = gq.npy_load(path("f.npy"))
      assert.same({ { 1, 3, 5 }, { 2, 4, 6 } }, x:totable())
      assert.same({ 9, 12 }, x:sum(2):totable())
    end)

    it("reads NumPy's other integers as int64, half and turned floats as floats", function()
      local function npy(descr, n, numbers)
        local header = ("{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }\n"):format(descr, n)
        return gq.npy_load(put("k.npy", "\x93NUMPY\1\0" .. string.pack("<I2", #header) .. header .. numbers))
      end
      for _, row in ipairs {
        { "|u1", ("BB"):pack(0, 255), { 0, 255 } }, { "|i1", ("bb"):pack(-128, 127), { -128, 127 } },
        { "<u2", ("<HH"):pack(1, 65535), { 1, 65535 } },
        { ">i2", (">hh"):pack(-2, 300), { -2, 300 } },
        { "<i4", ("<i4i4"):pack(-1, 1 << 30), { -1, 1 << 30 } },
        { ">u4", (">I4I4"):pack(7, 0xffffffff), { 7, 0xffffffff } },
        { ">i8", (">i8i8"):pack(-5, 1 << 60), { -5, 1 << 60 } }, { "<u8", ("<I8I8"):pack(5, 1 << 60), { 5, 1 << 60 } },
      } do
        local x = npy(row[1], 2, row[2])
        assert.equal("int64", x.dtype)
        assert.same(row[3], x:totable(), row[1])
      end
      local halves = npy("<f2", 7, ("<HHHHHHH"):pack(0x3c00, 0xc000, 0x0001, 0x03ff, 0x7bff, 0x7c00, 0xfc00))
      assert.equal("float32", halves.dtype)
      assert.same({ 1, -2, 2 ^ -24, 1023 * 2 ^ -24, 65504, math.huge, -math.huge }, halves:totable())
      local nan = npy(">f2", 1, (">H"):pack(0x7e00)):item()
      assert.is_true(nan ~= nan)
      assert.same({ 1.5, -2.5 }, npy(">f4", 2, (">ff"):pack(1.5, -2.5)):totable())
      local double = npy(">f8", 1, (">d"):pack(0.1))
      assert.equal("float64", double.dtype)
      assert.equal(0.1, double:item())
      local many = {}
      for i = 1, 20000 do many[i] = ("<h"):pack(i - 10000) end
      local want = gq.arange(-9999, 10000, { dtype = "int64" })
      assert.same(want:totable(), npy("<i2", 20000, table.concat(many)):totable())
      assert.matches("k.npy: .* 18446744073709551615 is larger than int64", message(npy, "<u8", 1, ("i8"):pack(-1)))
    end)

    it("names file, byte and reason of what it refuses", function()
      local header = "{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }\n"
      put("big.npy", "\x93NUMPY\1\0" .. string.pack("<I2", #header) .. header .. "12345678")
      local text = message(gq.npy_load, path("big.npy"))
      assert.matches("big.npy: byte %d+: dtype '<c8'", text)
      assert.matches("bool, integers and floats of 2, 4 and 8 bytes", text)
      assert.matches("tensor expected", message(gq.npy_save, path("x.npy"), { 1, 2 }))
    end)

    it("cut or damaged is an error, or a tensor that works", function()
      gq.npy_save(path("seed.npy"), gq.tensor({ { 1, 2 }, { 3, 4 } }))
      check_damaged("seed.npy", gq.npy_load, function(x) assert.is_number((x * 2):sum():item()) end)
    end)
  end)

  describe(".csv", function()
    it("with cells and names of blanks takes time as its length", function()
      local blanks = (" "):rep(100000)
      local start = gq.clock()
      put("blank.csv", "2\n1" .. blanks .. "1\n")
      local text = message(gq.load, path("blank.csv"))
      assert.matches("blank.csv: line 2: a number expected", text)
      assert.is_true(#text < 300)
      put("blank.csv", blanks .. "a" .. blanks .. "b" .. blanks .. "," .. blanks .. "\n" .. blanks .. "1" .. blanks ..
        ",\t2\r\n")
      local x, names = gq.load(path("blank.csv"))
      assert.same({ { 1, 2 } }, x:totable())
      assert.same({ "a" .. blanks .. "b", "" }, names)
      put("blank.csv", "1,2\n3," .. blanks .. "\n")
      x = gq.load(path("blank.csv")):totable()
      assert.is_true(x[2][1] == 3 and x[2][2] ~= x[2][2])
      put("blank.csv", blanks .. "\n")
      assert.matches("blank.csv has no numbers", message(gq.load, path("blank.csv")))
      assert.is_true(gq.clock() - start < 20)
    end)

    it("errors name the file and the line of the script", function()
      put("ragged.csv", "1,2\n3\n")
      assert.matches("^%S*io_spec.lua:%d+: gq.load: .*ragged.csv: line 2 has 1 numbers", message(function()
        return gq.load(path("ragged.csv")), nil                     -- no tail call: the line is in this function
      end))
      for _, suffix in ipairs { "csv", "npy", "safetensors" } do
        assert.matches("^%S*io_spec.lua:%d+: .*nothing." .. suffix .. ": cannot open", message(function()
          return gq.load(path("nothing." .. suffix)), nil
        end))
      end
    end)
  end)

  describe(".safetensors", function()
    it("keeps names, tensors and metadata", function()
      local set = { weight = gq.rand(3, 4), ["layer.1.bias"] = gq.tensor({ 1, 2, 3 }, { dtype = "int64" }),
                    flag = gq.tensor({ 1, 0 }, { dtype = "bool" }), ["é\n\""] = gq.tensor(1.5, { dtype = "float64" }) }
      gq.safetensors_save(path("m.safetensors"), set, { epoch = "3", note = "a \"b\"\n" })
      local got, meta = gq.safetensors_load(path("m.safetensors"))
      assert.same({ epoch = "3", note = "a \"b\"\n" }, meta)
      for name, x in pairs(set) do
        assert.equal(x.dtype, got[name].dtype)
        assert.same(x:totable(), got[name]:totable())
        got[name] = nil
      end
      assert.is_nil(next(got))
    end)

    it("makes equal files of equal tables", function()
      local names, one, two = {}, {}, {}
      for i = 1, 50 do names[i] = ("p%d"):format(i) end
      for i = 1, 50 do one[names[i]] = gq.tensor(i) end
      for i = 50, 1, -1 do two[names[i]] = gq.tensor(i) end
      gq.safetensors_save(path("one"), one)
      gq.safetensors_save(path("two"), two)
      assert.equal(get("one"), get("two"))
    end)

    it("refuses what it could not load again", function()
      local x = gq.tensor(1)
      assert.matches("tensor expected, got string", message(gq.safetensors_save, path("b"), { a = "x" }))
      assert.matches("gq.checkpoint.save", message(gq.safetensors_save, path("b"), { model = { a = gq.ones(1) } }))
      assert.matches("names are strings", message(gq.safetensors_save, path("b"), { x }))
      assert.matches("UTF%-8", message(gq.safetensors_save, path("b"), { ["\xff"] = x }))
      assert.matches("zero byte", message(gq.safetensors_save, path("b"), { ["a\0"] = x }))
      assert.matches("__metadata__", message(gq.safetensors_save, path("b"), { __metadata__ = x }))
      assert.matches("string expected", message(gq.safetensors_save, path("b"), { a = x }, { epoch = 3 }))
      assert.matches("table expected", message(gq.safetensors_save, path("b"), x))
      assert.is_nil(io.open(path("b")))
    end)

    it("reads half floats and other integers", function()
      local function safe(dtype, size, bytes)
        local header = ('{"a":{"dtype":"%s","shape":[2],"data_offsets":[0,%d]}}'):format(dtype, 2 * size)
        return gq.safetensors_load(put("k", ("<I8"):pack(#header) .. header .. bytes)).a
      end
      assert.same({ 1.5, -2 }, safe("F16", 2, ("<HH"):pack(0x3e00, 0xc000)):totable())
      assert.same({ 1.5, -2 }, safe("BF16", 2, ("<HH"):pack(0x3fc0, 0xc000)):totable())
      assert.equal("float32", safe("BF16", 2, "1234").dtype)
      for dtype, format in pairs { I8 = "b", I16 = "<h", I32 = "<i4" } do
        local x = safe(dtype, format:packsize(), format:pack(-3) .. format:pack(100))
        assert.equal("int64", x.dtype)
        assert.same({ -3, 100 }, x:totable())
      end
      for dtype, format in pairs { U16 = "<H", U32 = "<I4", U64 = "<I8" } do
        assert.same({ 3, 60000 }, safe(dtype, format:packsize(), format:pack(3) .. format:pack(60000)):totable())
      end
      assert.matches("dtype F8_E4M3", message(safe, "F8_E4M3", 1, "12"))
    end)

    it("keeps the old file when saving fails", function()
      gq.safetensors_save(path("kept"), { a = gq.tensor(1) })
      local before = get("kept")
      pcall(gq.safetensors_save, path("kept"), { a = gq.tensor(2), b = "no tensor" })
      assert.equal(before, get("kept"))
    end)

    it("cut or damaged is an error, or tensors that work", function()
      local flag = gq.tensor({ 1 }, { dtype = "bool" })
      gq.safetensors_save(path("seed"), { w = gq.tensor({ 1, 2 }), b = flag }, { k = "v" })
      check_damaged("seed", gq.safetensors_load, function(set)
        for _, x in pairs(set) do assert.is_table(x:totable()) end
      end)
    end)
  end)

  describe("JSON", function()
    it("says the same again", function()
      local value = { name = "é\"\\\n\t", list = { 1, 2, 3 }, nested = { a = { b = { true, false } } }, x = 0.1,
                      big = 1e300, n = -9007199254740991, none = gq.json_null, empty = {}, array = gq.json_array {} }
      local text = gq.json_encode(value)
      assert.is_nil(text:find("\n"))
      local got = gq.json_decode(text)
      assert.same(value, got)
      assert.equal("integer", math.type(got.n))
      assert.equal("integer", math.type(got.list[1]))
      assert.equal(text, gq.json_encode(got))
    end)

    it("sorts keys and tells {} from []", function()
      assert.equal('{"a":1,"b":{},"c":[]}', gq.json_encode { c = gq.json_array(), b = {}, a = 1 })
      assert.equal("[]", gq.json_encode(gq.json_decode("[]")))
      assert.equal("{}", gq.json_encode(gq.json_decode("{}")))
    end)

    it("writes numbers so that they read back the same", function()
      for _, x in ipairs { 0.1, 1 / 3, 1e-300, 5e-324, 1.7976931348623157e308, 123456.789, -0.0, 2.0, 1e15, 1e21 } do
        assert.equal(x, gq.json_decode(gq.json_encode(x)))
      end
      assert.equal("9223372036854775807", gq.json_encode(math.maxinteger))
      assert.equal("2.0", gq.json_encode(2.0))
      assert.equal("2", gq.json_encode(2))
    end)

    it("refuses what JSON cannot say", function()
      local loop = {}
      loop[1] = loop
      assert.matches("contains itself", message(gq.json_encode, loop))
      assert.matches("NaN", message(gq.json_encode, { x = 0 / 0 }))
      assert.matches("infinity", message(gq.json_encode, -math.huge))
      assert.matches("function", message(gq.json_encode, { f = print }))
      assert.matches("tensor", message(gq.json_encode, { x = gq.tensor(1) }))
      assert.matches("neither", message(gq.json_encode, { 1, 2, x = 3 }))
      assert.matches("1, 2", message(gq.json_encode, { [1] = 1, [5] = 2 }))
      assert.matches("zero byte", message(gq.json_encode, "a\0b"))
      assert.matches("UTF%-8", message(gq.json_encode, { ["\xff"] = 1 }))
      assert.is_false((pcall(gq.json_encode)))
    end)

    it("names the byte where a text is no JSON", function()
      for _, text in ipairs { "", " ", "{", "[1,]", "{\"a\" 1}", "nul", "1 2", "{'a': 1}", "[1", "\"abc", "NaN",
                              "1e999" } do
        assert.matches("json_decode", message(gq.json_decode, text))
      end
      assert.matches("byte 8", message(gq.json_decode, "[1, 2, x]"))
      for _, bad in ipairs { "\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xc3", "\x80" } do
        assert.matches("byte 5: the text is not UTF%-8", message(gq.json_decode, '["a' .. "b" .. bad .. '"]'))
        assert.matches("byte 3: the text is not UTF%-8", message(gq.json_decode, '{"' .. bad .. '": 1}'))
      end
      assert.matches("zero", message(gq.json_decode, "1\0"))
      assert.matches("u0000", message(gq.json_decode, '"a\\u0000"'))
      assert.equal("\\u0000", gq.json_decode('"\\\\u0000"'))
      assert.matches("json_decode", message(gq.json_decode, ("["):rep(100000)))
      assert.matches("deep", message(gq.json_decode, ("["):rep(500) .. ("]"):rep(500)))
      assert.matches("string expected", message(gq.json_decode, 12))
    end)

    it("marks arrays only where it may", function()
      assert.matches("metatable", message(gq.json_array, setmetatable({}, {})))
      local t = {}
      assert.equal(t, gq.json_array(t))
      assert.equal(t, gq.json_array(t))
    end)

    it("leaves nothing behind", function()
      local before = collectgarbage() and collectgarbage("count")
      for _ = 1, 2000 do
        pcall(gq.json_encode, { 1, { 2, print } })
        pcall(gq.json_decode, "[1, [2, {")
        gq.json_decode(gq.json_encode({ a = { 1, 2, 3 } }))
      end
      collectgarbage()
      collectgarbage()
      assert.is_true(collectgarbage("count") < before + 64)
    end)
  end)
end)
