-- files.lua -- .safetensors, .npz and .npy between us and Python: ours read there, theirs read here, number for number.
--   ./gqlua scripts/peers/files.lua --python build/peers/jax/bin/python

local gq = require "gq"

local o = gq.cli {
  about = "Check that Python reads our files, and we its.",
  { "python", "build/peers/jax/bin/python", "a Python with numpy and safetensors (scripts/peers/setup)" },
}
if not o then return end

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local folder = os.tmpname()
os.remove(folder)
assert(os.execute("mkdir " .. folder))

local t = { a = gq.randn({ 2, 3 }, { seed = 1 }), b = gq.randn({ 4 }, { dtype = "float64", seed = 2 }),
  c = gq.tensor({ { true, false } }), d = gq.randint(-5, 5, 3, 2, { seed = 3 }), e = gq.zeros(0, 2) }
local numbers = {}
for name, x in pairs(t) do
  numbers[name] = { dtype = x.dtype, shape = gq.json.array(x.shape), numbers = gq.json.array(x:flatten():totable()) }
end
gq.file_write(folder .. "/numbers.json", gq.json.encode(numbers))
gq.save(folder .. "/ours.safetensors", t, { from = "gqlua" })
gq.save(folder .. "/ours.npz", t)
gq.save(folder .. "/deflated.npz", t, { compress = true })
gq.save(folder .. "/a.npy", t.a)

local ok = os.execute(("'%s' '%s/files.py' '%s'"):format(o.python, here, folder))
if ok then
  for _, name in ipairs { "theirs.safetensors", "theirs.npz", "packed.npz" } do
    local u, metadata = gq.load(folder .. "/" .. name)
    for k, x in pairs(t) do
      assert(u[k].dtype == x.dtype and table.concat(u[k].shape, ",") == table.concat(x.shape, ","), name)
      assert(u[k]:ne(x):any():item() == false, name)
    end
    if metadata then assert(metadata.from == "python") end
  end
  print("safetensors, npz stored and deflated, npy: equal, both ways")
end
os.execute("rm -r " .. folder)
os.exit(ok and true or false)
