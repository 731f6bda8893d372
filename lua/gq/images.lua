-- images.lua -- data sets of images, read from the files as they are published: gq.data.mnist, fashion_mnist, cifar10,
-- cifar100, svhn, and folders of PNG and JPEG files. x {n, channels, height, width} in float32 from 0 to 1, y {n}
-- classes from 1.

local gq = ...
local core, data = gq.core, gq.data
local options, need, fail, expect = core.options, core.need, core.fail, core.expect

local function define(name, f, doc)
  data[name] = f
  gq.docs[f] = doc
end

local function read_file(path)
  local f = io.open(path, "rb")
  if f then
    f:close()
    return true
  end
end

-- ---- where files are ----

-- set: title, folders (below the one given, and elsewhere), from, files {name, MD5}.
local function missing(set, where, what)
  local lines = { ("%s: the files of %s are not in %s"):format(what, set.title, table.concat(where, ", ")),
    "they come from " .. set.from .. " (MD5, name):" }
  for _, f in ipairs(set.files) do lines[#lines + 1] = ("  %s  %s"):format(f[2], f[1]) end
  lines[#lines + 1] = "say where they are: data = \"folder\"" .. (set.package and "; or apt-get install "
    .. set.package or "")
  fail(table.concat(lines, "\n"))
end

local function folders(set, o, what)
  local given = o.data ~= nil and need(o, "data", "string", nil, what) or nil
  local list = {}
  for _, root in ipairs { given or "data" } do
    list[#list + 1] = root
    for _, inner in ipairs(set.folders) do list[#list + 1] = root .. "/" .. inner end
  end
  if not given then table.move(set.elsewhere or {}, 1, #(set.elsewhere or {}), #list + 1, list) end
  return list
end

-- The first folder that has one of the names; its path there.
local function find(where, names)
  for _, folder in ipairs(where) do
    for _, name in ipairs(names) do
      local path = folder .. "/" .. name
      if read_file(path) then return path, name end
    end
  end
end

local function bad(path, text, ...) error(("%s: %s"):format(path, text:format(...)), 0) end

-- How many of the `there` entries are read: all without opts[key].
local function count_of(o, key, there, what)
  local n = o[key] ~= nil and need(o, key, "count", nil, what) or there
  if n > there then fail(("%s: %s = %d, there are %d"):format(what, key, n, there)) end
  return n
end

-- Labels 0 .. classes - 1, or `first` .., as classes from 1.
local function classes_from(y, classes, first, path)
  local low, high = y:min():item(), y:max():item()
  if low < first or high >= first + classes then
    local wrong = low < first and low or high
    bad(path, "label %d at entry %d: %d to %d expected", wrong, y:eq(wrong):to("int64"):argmax():item(), first,
      first + classes - 1)
  end
  return first == 1 and y or y + (1 - first)
end

local function options_of(opts, what) return options(opts, "data train test", what) end

-- ---- MNIST and its kin ----

local digits = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" }

local function idx_part(where, part, set, o, key, what)
  local function one(kind, rank)
    local name = ("%s-%s-idx%d-ubyte"):format(part, kind, rank)
    local path = find(where, { name, name .. ".gz" })
    if not path then missing(set, where, what) end
    local bytes = core.read_packed(path)
    local shape, type, first, count = core.idx_header(path, bytes)
    if #shape ~= rank or type ~= "u1" then
      bad(path, "bytes in %d dimensions expected, got %d dimensions of %s", rank, #shape, type)
    end
    if shape[1] == 0 then bad(path, "it is empty") end
    return path, bytes, shape, first, count
  end
  local path, pixels, shape, first = one("images", 3)
  local beside, labels, same, from = one("labels", 1)
  if shape[1] ~= same[1] then bad(beside, "%d labels for the %d images of %s", same[1], shape[1], path) end
  local n = count_of(o, key, shape[1], what)
  local x = core.numbers(pixels, first, n * shape[2] * shape[3], "u1", true, "float32", 1 / 255)
  local y = core.numbers(labels, from, n, "u1", true, "int64")
  return { x = x:reshape(n, 1, shape[2], shape[3]), y = classes_from(y, 10, 0, beside) }, path
end

local function define_idx(name, set, doc)
  set.names = set.names or digits
  define(name, function(opts)
    local what = "gq.data." .. name
    local o = options_of(opts, what)
    local where = folders(set, o, what)
    local train, path = idx_part(where, "train", set, o, "train", what)
    local test, beside = idx_part(where, "t10k", set, o, "test", what)
    local h, w, own_h, own_w = train.x.shape[3], train.x.shape[4], test.x.shape[3], test.x.shape[4]
    if own_h ~= h or own_w ~= w then
      bad(beside, "images of %d x %d, those of %s are %d x %d", own_h, own_w, path, h, w)
    end
    return { train = train, test = test, classes = 10, names = set.names }
  end, doc)
end

local general <const> = "{data = \"data\", train = n, test = n}: "
local gives <const> = "\n{train = {x {n, c, h, w} from 0 to 1, y {n} from 1}, test = {x, y}, classes, names}; train "
  .. "and test: how many, the first of each;\ndata: the folder of the published files, packed or not"

define_idx("mnist", { title = "MNIST", folders = { "mnist", "MNIST/raw" },
  from = "https://ossci-datasets.s3.amazonaws.com/mnist/", files = {
    { "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873" },
    { "train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432" },
    { "t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3" },
    { "t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c" } } },
  "gq.data.mnist" .. general .. "handwritten digits, 28 x 28 (LeCun et al. 1998); class 1 is digit 0" .. gives)

define_idx("fashion_mnist", { title = "Fashion-MNIST", folders = { "fashion-mnist", "FashionMNIST/raw" },
  elsewhere = { "/usr/share/datasets/fashion-mnist" }, package = "dataset-fashion-mnist",
  from = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
  names = { "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot" },
  files = {
    { "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d" },
    { "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe" },
    { "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79" },
    { "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310" } } },
  "gq.data.fashion_mnist" .. general .. "clothes, 28 x 28 (Xiao, Rasul & Vollgraf 2017); Debian's "
  .. "dataset-fashion-mnist is found by itself" .. gives)

-- ---- CIFAR ----

-- The files of a tar archive (POSIX ustar) by the last part of their names.
local function tar_files(s, path)
  local files, at = {}, 1
  while at + 511 <= #s and s:byte(at) ~= 0 do
    local name = s:sub(at, at + 99):match("^[^%z]*")
    local size = tonumber(s:sub(at + 124, at + 135):match("^[0-7]+") or "", 8)
    if not size or at + 511 + size > #s then bad(path, "the archive ends within %s", name) end
    files[name:match("[^/]*$")] = { at + 511, size }
    at = at + 512 + (size + 511) // 512 * 512
  end
  return files
end

-- Records of `ahead` bytes of labels, the last of which counts, and 3072 of a picture.
local function cifar_records(parts, ahead, classes, o, key, what)
  local size, total = ahead + 3072, 0
  for _, p in ipairs(parts) do
    if p.size == 0 or p.size % size ~= 0 then
      bad(p.path, "%d bytes: records of %d bytes expected", p.size, size)
    end
    total = total + p.size // size
  end
  local left, x, y = count_of(o, key, total, what), {}, {}
  local wanted = left
  for _, p in ipairs(parts) do
    local n = math.min(left, p.size // size)
    if n > 0 then
      x[#x + 1] = core.numbers(p.bytes, p.at + ahead, n * 3072, "u1", false, "float32", 1 / 255, size, 3072)
      y[#y + 1] = classes_from(core.numbers(p.bytes, p.at + ahead - 1, n, "u1", false, "int64", 1, size, 1), classes, 0,
        p.path)
    end
    left = left - n
  end
  return { x = gq.cat(x, 1):reshape(wanted, 3, 32, 32), y = gq.cat(y, 1) }
end

local function define_cifar(name, set, doc)
  define(name, function(opts)
    local what = "gq.data." .. name
    local o = options_of(opts, what)
    local where = folders(set, o, what)
    local archive, path
    local function part(file)
      local plain = find(where, { file })
      if plain then
        local bytes = gq.file_read(plain)
        return { path = plain, bytes = bytes, at = 0, size = #bytes }
      end
      if not archive then
        path = find(where, { set.files[1][1], (set.files[1][1]:gsub("%.gz$", "")) })
        if not path then missing(set, where, what) end
        local bytes = core.read_packed(path)
        archive = { bytes = bytes, files = tar_files(bytes, path) }
      end
      local f = archive.files[file]
      if not f then bad(path, "the archive has no %s", file) end
      return { path = path .. ": " .. file, bytes = archive.bytes, at = f[1], size = f[2] }
    end
    local train = {}
    for i, file in ipairs(set.train) do train[i] = part(file) end
    return { train = cifar_records(train, set.ahead, set.classes, o, "train", what),
      test = cifar_records({ part(set.test) }, set.ahead, set.classes, o, "test", what), classes = set.classes,
      names = set.names }
  end, doc)
end

define_cifar("cifar10", { title = "CIFAR-10 (binary version)", folders = { "cifar-10-batches-bin", "cifar10" },
  ahead = 1, classes = 10, from = "https://www.cs.toronto.edu/~kriz/",
  files = { { "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530" } },
  train = { "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin" },
  test = "test_batch.bin",
  names = { "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck" } },
  "gq.data.cifar10" .. general .. "photographs, 3 x 32 x 32 (Krizhevsky 2009), of the binary version" .. gives)

define_cifar("cifar100", { title = "CIFAR-100 (binary version)", folders = { "cifar-100-binary", "cifar100" },
  ahead = 2, classes = 100, from = "https://www.cs.toronto.edu/~kriz/",
  files = { { "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8" } }, train = { "train.bin" },
  test = "test.bin" },
  "gq.data.cifar100" .. general .. "photographs of 100 classes, 3 x 32 x 32 (Krizhevsky 2009), fine labels" .. gives)

-- ---- SVHN: MATLAB's files ----
-- libmatio reads them too, but a binding of it would be longer than these lines, and it brings HDF5 along.

local mat_types = { [1] = "i1", [2] = "u1", [3] = "i2", [4] = "u2", [5] = "i4", [7] = "f4", [9] = "f8" }

-- The tag of a data element: type, size, first byte (from 1), and where the next begins ("MAT-File Format", level 5).
local function mat_tag(s, at, path)
  if at + 7 > #s then bad(path, "it ends within an element at byte %d", at - 1) end
  local word, size = ("<I4I4"):unpack(s, at)
  local kind = word
  if word >> 16 ~= 0 then                                       -- four bytes at most, in the tag
    if word >> 16 > 4 then bad(path, "the small element at byte %d has %d bytes", at - 1, word >> 16) end
    return word & 0xffff, word >> 16, at + 4, at + 8
  end
  if at + 7 + size > #s then bad(path, "the element at byte %d has %d bytes, more than follow", at - 1, size) end
  return kind, size, at + 8, at + 8 + (kind == 15 and size or (size + 7) // 8 * 8)
end

-- The arrays of a level 5 file by name: {shape, type, bytes, first byte (from 0)}.
local function mat_arrays(path)
  local s, arrays = gq.file_read(path), {}
  if #s < 128 or s:sub(127, 128) ~= "IM" then bad(path, "no MATLAB file of level 5 (little-endian)") end
  local at = 129
  while at <= #s do
    local kind, size, from, next_at = mat_tag(s, at, path)
    local body, p, inner = s, from, kind
    if kind == 15 then
      local ok, inflated = pcall(core.inflate, s, from - 1, size, "zlib")
      if not ok then bad(path, "the element at byte %d: %s", at - 1, inflated) end
      body = inflated
      inner, size, p = mat_tag(body, 1, path)
    end
    if inner == 14 and size > 0 then
      local q = select(4, mat_tag(body, p, path))              -- behind the flags
      local _, n, dims, r = mat_tag(body, q, path)
      local _, length, name, t = mat_tag(body, r, path)
      if n < 8 or n % 4 ~= 0 or n > 128 then bad(path, "an array whose dimensions have %d bytes", n) end
      local shape = { ("<" .. ("i4"):rep(n // 4)):unpack(body, dims) }
      shape[n // 4 + 1] = nil
      local number, there, first = mat_tag(body, t, path)
      local wanted = tonumber((mat_types[number] or "0"):sub(-1)) * 1.0
      for _, d in ipairs(shape) do wanted = d >= 0 and wanted * d or 1 / 0 end
      if wanted > there then
        bad(path, "an array of %s numbers has %d bytes", table.concat(shape, " x "), there)
      end
      arrays[body:sub(name, name + length - 1)] = { shape = shape, type = mat_types[number], bytes = body,
        first = first - 1 }
    end
    at = next_at
  end
  return arrays
end

local svhn = { title = "SVHN (cropped digits)", folders = { "svhn", "SVHN" },
  from = "http://ufldl.stanford.edu/housenumbers/", files = {
    { "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373" },
    { "test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3" } } }

local function svhn_part(where, key, o, what)
  local path = find(where, { key .. "_32x32.mat" })
  if not path then missing(svhn, where, what) end
  local arrays = mat_arrays(path)
  local X, Y = arrays.X, arrays.y
  if not X or not Y or #X.shape ~= 4 or X.type ~= "u1" or not Y.type then
    bad(path, "arrays X {height, width, 3, n} of bytes and y {n, 1} expected")
  end
  local h, w, c, there = table.unpack(X.shape)
  if Y.shape[1] ~= there then bad(path, "%d labels for %d images", Y.shape[1], there) end
  local n = count_of(o, key, there, what)
  local x = core.numbers(X.bytes, X.first, n * c * w * h, X.type, false, "float32", 1 / 255)   -- columns first
  local y = core.numbers(Y.bytes, Y.first, n, Y.type, false, "float64"):to("int64")
  return { x = x:reshape(n, c, w, h):transpose(3, 4):contiguous(), y = classes_from(y, 10, 1, path) }
end

define("svhn", function(opts)
  local what = "gq.data.svhn"
  local o = options_of(opts, what)
  local where = folders(svhn, o, what)
  return { train = svhn_part(where, "train", o, what), test = svhn_part(where, "test", o, what), classes = 10,
    names = { "1", "2", "3", "4", "5", "6", "7", "8", "9", "0" } }
end, "gq.data.svhn" .. general .. "house numbers, 3 x 32 x 32 (Netzer et al. 2011); class 10 is digit 0" .. gives)

-- ---- folders of pictures ----

local function sorted_directory(path)
  local list, why = core.directory(path)
  if not list then error("gq.data.images: " .. why, 0) end
  table.sort(list)
  return list
end

local function dims(shape) return table.concat(shape, " x ", 2) end
local suffixes = { png = true, jpg = true, jpeg = true }

local function is_picture(name) return suffixes[(name:match("%.(%w+)$") or ""):lower()] or false end

-- The folders in `root` that hold pictures, in order: {name, files}; those whose names begin with a dot are no classes.
local function folders_of_pictures(root)
  local list = {}
  for _, name in ipairs(sorted_directory(root)) do
    local files, path = {}, root .. "/" .. name
    for _, file in ipairs(name:sub(1, 1) ~= "." and core.directory(path) and sorted_directory(path) or {}) do
      if is_picture(file) then files[#files + 1] = file end
    end
    if #files > 0 then list[#list + 1] = { name = name, files = files } end
  end
  if #list == 0 then bad(root, "no folders with PNG or JPEG files in it") end
  return list
end

-- Classes are those folders, or the names given where there are some.
local function pictures(root, names, channels)
  local found, class_of, x, y, shape = names or {}, {}, {}, {}, nil
  local list = folders_of_pictures(root)
  for i, folder in ipairs(names and {} or list) do found[i] = folder.name end
  for i, name in ipairs(found) do class_of[name] = i end
  for _, folder in ipairs(list) do
    if not class_of[folder.name] then
      bad(root .. "/" .. folder.name, "no class of the training images is called so (they are %s)",
        table.concat(found, ", "))
    end
    for _, file in ipairs(folder.files) do
      local path = ("%s/%s/%s"):format(root, folder.name, file)
      local picture = core.image(path, gq.file_read(path), channels)
      local size = table.concat(picture.shape, " x ")
      if shape and shape ~= size then bad(path, "an image of %s, those before it are %s", size, shape) end
      shape = size
      x[#x + 1], y[#y + 1] = picture, class_of[folder.name]
    end
  end
  return { x = gq.stack(x, 1), y = gq.tensor(y, { dtype = "int64" }) }, found
end

define("images", function(root, opts)
  local what = "gq.data.images"
  expect(type(root) == "string", what, "a folder", root)
  local o = options(opts, "channels", what)
  local channels = need(o, "channels", "integer", 3, what)
  if channels ~= 1 and channels ~= 3 then fail(what .. ": channels: 1 or 3 expected, got " .. channels) end
  if core.directory(root .. "/train") then
    local train, names = pictures(root .. "/train", nil, channels)
    local test = core.directory(root .. "/test") and pictures(root .. "/test", names, channels) or nil
    local ours, theirs = dims(train.x.shape), test and dims(test.x.shape)
    if test and ours ~= theirs then bad(root .. "/test", "images of %s, the training images are %s", theirs, ours) end
    return { train = train, test = test, classes = #names, names = names }
  end
  local train, names = pictures(root, nil, channels)
  return { train = train, classes = #names, names = names }
end, "gq.data.images(folder, {channels = 3}): PNG and JPEG files of one size in a folder for each class, or in "
  .. "train/CLASS and\ntest/CLASS; other folders and files are passed over; by libpng16-16 and libturbojpeg0, where "
  .. "they are installed\nchannels = 1: greys, of colours 0.299 R + 0.587 G + 0.114 B; transparency is left out; "
  .. "16 bits a number are read as 8\n"
  .. "{train = {x {n, channels, h, w} from 0 to 1, y {n} from 1}, test, classes, names}")

-- ---- more of the same ----

-- Of n images {c, h, w}: mirrored or not, rows down, columns right, as a function of the seed; {n, 3}, or nil for none.
function core.moves(n, shape, o, seed, what)
  local h, w = shape[3], shape[4]
  local flip, crop = need(o, "flip", "boolean", false, what), need(o, "crop", "integer", 0, what)
  if crop < 0 or crop > 0 and crop >= math.max(h, w) then
    fail(("%s: crop: an integer of at least 0, below the size of images, %d x %d, expected, got %d"):format(what, h, w,
      crop))
  end
  if not flip and crop == 0 then return nil end
  local i64 = { dtype = "int64" }
  local mirrored = flip and gq.rand({ n, 1 }, { seed = gq.split_seed(seed, "flip") }):lt(0.5):to("int64")
  local at = crop > 0 and gq.randint(1, 2 * crop + 1, n, 2, { seed = gq.split_seed(seed, "crop") }) - (crop + 1)
  return gq.cat({ mirrored or gq.zeros(n, 1, i64), at or gq.zeros(n, 2, i64) }, 2)
end

define("augment", function(x, opts)
  local what = "gq.data.augment"
  local o = options(opts, "flip crop seed", what)
  expect(gq.is_tensor(x) and x:dim() == 4, what, "images {n, c, h, w}", x)
  local moves = core.moves(x.shape[1], x.shape, o, need(o, "seed", "integer", 0, what), what)
  if not moves then return x end
  return core.moved(x:detach():to("cpu"):contiguous(), moves:to("cpu")):to(x.device)
end, "gq.data.augment(x, {flip = false, crop = 0, seed = 0}): images {n, c, h, w}, half of them mirrored, each moved "
  .. "by up to `crop` pixels with zeros behind; a function of the seed: give gq.split_seed(seed, epoch, batch);\n"
  .. "gq.data.batches takes augment = {flip, crop} itself")
