-- embed.lua OUTPUT FILES... -- turn Lua files into a C table, so that the binary carries them.
-- Each becomes {name, source, length} of gq_embedded_files; the name is the path below gq/ without suffix.

local output = assert(arg[1], "usage: lua5.4 embed.lua OUTPUT FILES...")

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

-- One C string a line; octal escapes cannot run into what follows them, as hexadecimal ones would.
local function literal(text)
  local lines = {}
  for line in text:gmatch("[^\n]*\n?") do
    local safe = line:gsub('["?\\]', "\\%0"):gsub("[^%w%p ]", function(c) return ("\\%03o"):format(c:byte()) end)
    lines[#lines + 1] = '"' .. safe .. '"'
  end
  return table.concat(lines, "\n")
end

local parts = {"/* Made by scripts/embed.lua from lua/gq. */\n#include \"bindings/bind.h\"\n\n"}
local rows = {}
for i = 2, #arg do
  local text = read(arg[i])
  local ok, problem = load(text, "@" .. arg[i], "t")   -- a syntax error stops the build here
  if not ok then
    io.stderr:write(problem, "\n")
    os.exit(1)
  end
  local name = arg[i]:match("gq/(.+)%.lua$")
  parts[#parts + 1] = ("static const char file_%d[] =\n%s;\n"):format(i - 1, literal(text))
  rows[#rows + 1] = ("  {\"%s\", file_%d, %d},\n"):format(name, i - 1, #text)
end
parts[#parts + 1] = "\nconst gq_embedded gq_embedded_files[] = {\n" .. table.concat(rows) .. "  {NULL, NULL, 0},\n};\n"

local file = assert(io.open(output, "wb"))
assert(file:write(table.concat(parts)))
assert(file:close())
