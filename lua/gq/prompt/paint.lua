-- prompt/paint.lua -- a line of code in colours, as it is typed: keywords, strings, numbers, comments, brackets of a
-- pair where the cursor is at one of them, and those that close nothing.

local gq = ...

local styles <const> = { keyword = "35", string = "32", number = "36", comment = "90", pair = "1;4", wrong = "31",
  command = "35" }
local closes <const> = { [")"] = "(", ["]"] = "[", ["}"] = "{" }

local kinds = { ["false"] = "number", ["nil"] = "number", ["true"] = "number" }      -- of words
for _, word in ipairs(gq.core.keywords) do kinds[word] = kinds[word] or "keyword" end

-- The kind of the token at `at` and where it ends. What is not closed goes on to the end of its line, or of the text.
local function token(text, at)
  local dashes, level = text:match("^(%-?%-?)%[(=*)%[", at)
  if dashes == "" or dashes == "--" then
    local _, last = text:find("]" .. level .. "]", at + #dashes + #level + 2, true)
    return dashes == "" and "string" or "comment", last or #text
  end
  local c = text:sub(at, at)
  if c == "-" and text:find("^%-", at + 1) then return "comment", (text:find("\n", at, true) or #text + 1) - 1 end
  if c == '"' or c == "'" then
    local last = at + 1
    while last <= #text and not text:find("^[" .. c .. "\n]", last) do
      last = last + (text:find("^\\", last) and 2 or 1)
    end
    return "string", math.min(last, #text)
  end
  local _, last = text:find("^%.?%d[%w.]*", at)
  if last and text:find(text:find("^0[xX]", at) and "^[pP][+-]" or "^[eE][+-]", last) then
    _, last = text:find("^[%w.]*", last + 2)
  end
  if last then return "number", last end
  _, last = text:find("^[%a_][%w_]*", at)
  if last then return kinds[text:sub(at, last)], last end
  return c:find("[%[%](){}]") and "bracket", at
end

-- Kinds of tokens by where they begin, and their ends; brackets are "pair" where the cursor is, else nothing.
local function tokens(text, from, cursor)
  local list, open, at = {}, {}, from
  while at <= #text do
    local kind, last = token(text, at)
    if kind == "bracket" then
      local c, other = text:sub(at, at), open[#open]
      kind = nil
      if not closes[c] then
        open[#open + 1] = at
      elseif other and text:sub(other, other) == closes[c] then
        open[#open] = nil
        if cursor and (at == cursor or at == cursor + 1 or other == cursor or other == cursor + 1) then
          kind, list[other] = "pair", { "pair", other }
        end
      else
        kind = "wrong"
      end
    end
    if kind then list[at] = { kind, last } end
    at = last + 1
  end
  return list
end

-- line in colours; cursor: the bytes before it, nil where the line is done; before: the lines of a block above it.
return function(line, cursor, before)
  local text, start = line, 0
  if before then text, start = before .. "\n" .. line, #before + 1 end
  local command = not before and (line:match("^%s*[?!]+") or line:match("^%s*%%%a*"))
  local code = not command or command:match("^%s*%%time") ~= nil
  local list = code and tokens(text, command and #command + 1 or 1, cursor and cursor + start) or {}
  if command then list[1] = { "command", #command } end
  local out, at = {}, 1
  while at <= #text do
    local kind, last = table.unpack(list[at] or { nil, at })
    local piece = text:sub(math.max(at, start + 1), last)
    if piece ~= "" then out[#out + 1] = kind and ("\27[%sm%s\27[0m"):format(styles[kind], piece) or piece end
    at = last + 1
  end
  return table.concat(out)
end
