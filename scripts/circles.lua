-- circles.lua -- circles of files that use each other, for `make lint`. A file uses another if it names a function or
-- table that the other defines. Looked at are the files inside each folder of runtime/ and of bindings/, and the
-- folders themselves, which use each other also by what they include. Says, too, which structs of runtime's headers
-- have more than 25 fields and no reason in the comment above, in the words "fields: <why>".
-- usage: lua5.4 scripts/circles.lua, from the top of the checkout

-- Files that may use each other: two halves of one thing.
local allowed = {
  {"runtime/ir/emit.c", "runtime/ir/fold.c"},             -- every node is folded as it is emitted, into others
  {"runtime/tensor/tensor.c", "runtime/exec/tape.c"},     -- a tensor ends with its record, a record holds tensors
  {"runtime/tensor/tensor.c", "runtime/tensor/copy.c"},   -- what is not contiguous is copied, and a copy is a tensor
}

-- The runtime's functions under their names again, in a shared object of its own: no definition.
local again = { ["runtime/exec/cuda/core.c"] = true }

local MOST_FIELDS = 25

-- ---- reading ----

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local list = {}
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

-- Without comments, strings and characters; `keep`: with comments.
local function strip(text, keep)
  local out, at = {}, 1
  while true do
    local from = text:find("[/\"']", at)
    if not from then break end
    local c, two, to = text:sub(from, from), text:sub(from, from + 1)
    if two == "/*" then to = select(2, text:find("*/", from + 2, true)) or #text
    elseif two == "//" then to = (text:find("\n", from, true) or #text + 1) - 1
    elseif c ~= "/" then
      to = from + 1
      while to <= #text and text:sub(to, to) ~= c do to = to + (text:sub(to, to) == "\\" and 2 or 1) end
    end
    out[#out + 1] = text:sub(at, from - 1)
    if not to then out[#out + 1] = c
    elseif c == "/" then out[#out + 1] = keep and text:sub(from, to) or " "
    else out[#out + 1] = c .. c end
    at = (to or from) + 1
  end
  out[#out + 1] = text:sub(at)
  return table.concat(out)
end

-- The folder of a path; what lies below a folder of runtime/ belongs to it.
local function folder_of(path) return path:match("^runtime/[^/]+") or path:match("^[^/]+") end

-- What headers compile into their readers: inline functions, by name.
local function inlines(text)
  local bodies = {}
  for name, body in text:gmatch("static inline[^(;]-(gqL?_[%w_]+)%s*%b()%s*(%b{})") do bodies[name] = body end
  return bodies
end

local files, owner = {}, {}
local paths = lines_of("find runtime bindings -name '*.[ch]' | sort")
for _, path in ipairs(paths) do
  local text = read(path)
  local file = {path = path, folder = folder_of(path), includes = {}}
  for name in text:gmatch('#include "([^"]+)"') do file.includes[#file.includes + 1] = name end
  file.code = strip(text):gsub("\n[ \t]*#[^\n]*", function(line) return (line:gsub("[^\n]", " ")) end)
  files[#files + 1] = file
  if path:find("%.h$") then
    local bodies = inlines(file.code)
    file.code = ""
    for name, body in pairs(bodies) do
      owner[name] = file
      file.code = file.code .. body
    end
  elseif not again[file.path] then
    -- A definition stands at the start of a line: name(...) {, or name = , or name[...] =
    local flat = "\n" .. file.code
    for head, name in flat:gmatch("\n([%a_][%w_ *]-[ *])(gqL?_[%w_]+)%s*%b()%s*{") do
      if not head:find("^static") and not head:find("^typedef") then owner[name] = file end
    end
    for head, name in flat:gmatch("\n([%a_][%w_ *]-[ *])(gqL?_[%w_]+)[^=;{(,%s]*%s*=") do
      if not head:find("^static") then owner[name] = file end
    end
  end
end

-- ---- edges ----

local function pair(a, b) return a < b and a .. " " .. b or b .. " " .. a end
local pairs_allowed = {}
for _, p in ipairs(allowed) do pairs_allowed[pair(p[1], p[2])] = true end

-- graph[a][b] = why
local function edge(graph, a, b, why)
  graph[a] = graph[a] or {}
  graph[b] = graph[b] or {}
  graph[a][b] = graph[a][b] or why
end

local by_path = {}
for _, f in ipairs(files) do by_path[f.path] = f end

local inside, across = {}, {}
for _, f in ipairs(files) do
  for name in f.code:gmatch("[%a_][%w_]*") do
    local g = owner[name]
    if g and g ~= f and not pairs_allowed[pair(f.path, g.path)] then
      if f.folder == g.folder then
        inside[f.folder] = inside[f.folder] or {}
        edge(inside[f.folder], f.path, g.path, name)
      else edge(across, f.folder, g.folder, f.path .. " uses " .. name .. " of " .. g.path) end
    end
  end
  for _, name in ipairs(f.includes) do
    local base = f.path:match("^(.*)/") .. "/" .. name
    while base:find("[^/]+/%.%./") do base = base:gsub("[^/]+/%.%./", "", 1) end
    local g = by_path[base] or by_path[name]
    if g and g.folder ~= f.folder and not pairs_allowed[pair(f.path, g.path)] then
      edge(across, f.folder, g.folder, f.path .. " includes " .. g.path)
    end
  end
end

-- Sets of more than one node that reach each other (Tarjan 1972).
local function circles(graph)
  local index, low, on, stack, count, found = {}, {}, {}, {}, 0, {}
  local names = {}
  for name in pairs(graph) do names[#names + 1] = name end
  table.sort(names)
  local function visit(v)
    count = count + 1
    index[v], low[v], on[v] = count, count, true
    stack[#stack + 1] = v
    for w in pairs(graph[v]) do
      if not index[w] then
        visit(w)
        low[v] = math.min(low[v], low[w])
      elseif on[w] then low[v] = math.min(low[v], index[w]) end
    end
    if low[v] ~= index[v] then return end
    local set = {}
    repeat
      local w = table.remove(stack)
      on[w] = nil
      set[#set + 1] = w
    until w == v
    if #set > 1 then
      table.sort(set)
      found[#found + 1] = set
    end
  end
  for _, name in ipairs(names) do
    if not index[name] then visit(name) end
  end
  return found
end

local bad = false
local function report(graph, what)
  for _, set in ipairs(circles(graph)) do
    bad = true
    print(("%s: a circle of %d: %s"):format(what, #set, table.concat(set, ", ")))
    for _, a in ipairs(set) do
      for _, b in ipairs(set) do
        if graph[a][b] then print(("  %s -> %s (%s)"):format(a, b, graph[a][b])) end
      end
    end
  end
end

local folders = {}
for name in pairs(inside) do folders[#folders + 1] = name end
table.sort(folders)
for _, name in ipairs(folders) do report(inside[name], name) end
report(across, "folders")

-- ---- structs ----

-- Names declared in a struct's body: those between commas, outside of parentheses.
local function fields(body)
  local n = 0
  body = body:sub(2, -2)
  for _ = 1, 8 do body = body:gsub("%b{}", " "):gsub("%b()", " ") end
  for declaration in body:gmatch("[^;]+") do
    if declaration:find("%S") then n = n + 1 + select(2, declaration:gsub(",", "")) end
  end
  return n
end

for _, path in ipairs(paths) do
  if path:find("^runtime/.*%.h$") then
    local text = strip(read(path), true)
    for from, name, body in text:gmatch("()struct%s*([%w_]*)%s*(%b{})") do
      local n = fields(strip(body))
      local before = text:sub(1, from - 1):gsub("typedef%s*$", ""):gsub("%s+$", "")
      local comment = before:find("%*/$") and before:match(".*(/%*.-%*/)$") or ""
      if n > MOST_FIELDS and not comment:find("[Ff]ields: %S") then
        bad = true
        print(("%s: struct %s has %d fields; a reason above it begins with \"fields: \""):format(path, name, n))
      end
    end
  end
end

os.exit(not bad)
