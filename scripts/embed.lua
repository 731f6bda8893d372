-- embed.lua OUTPUT FILES... -- turn Lua files into a C table, so that the binary carries them.
-- Each becomes a row of gq_embedded_files: its name, the path below gq/ without suffix, its text, and its code as this
-- Lua compiles it, with lines and names, since compiling is most of what opening a state would take.

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
  local name = arg[i]:match("gq/(.+)%.lua$")
  local chunk, problem = load(text, "=gq/" .. name .. ".lua", "t")   -- a syntax error stops the build here
  if not chunk then
    io.stderr:write(problem, "\n")
    os.exit(1)
  end
  local code = string.dump(chunk)
  parts[#parts + 1] = ("static const char text_%d[] =\n%s;\n"):format(i - 1, literal(text))
  parts[#parts + 1] = ("static const char code_%d[] =\n%s;\n"):format(i - 1, literal(code))
  rows[#rows + 1] = ("  {\"%s\", text_%d, %d, code_%d, %d},\n"):format(name, i - 1, #text, i - 1, #code)
end
rows[#rows + 1] = "  {NULL, NULL, 0, NULL, 0},\n};\n"
parts[#parts + 1] = "\nconst gq_embedded gq_embedded_files[] = {\n" .. table.concat(rows)

local file = assert(io.open(output, "wb"))
assert(file:write(table.concat(parts)))
assert(file:close())
