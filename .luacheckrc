-- What luacheck holds Lua files to. The language is that of the embedded interpreter; nothing sets globals.
std = "lua54"
max_line_length = 120
unused_args = false
files["tests/**/*_spec.lua"] = { std = "+busted" }
files["tests/helper.lua"] = { std = "+busted" }
