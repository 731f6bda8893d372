-- progress.lua -- a progress bar on stderr, for people: silent where stderr is no terminal.

local gq = ...
local Bar = {}
Bar.__index = Bar

local function duration(s)
  s = math.floor(s + 0.5)
  if s >= 3600 then return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60) end
  return ("%d:%02d"):format(s // 60, s % 60)
end

local WIDTH = 24

function Bar:text()
  local part = self.n > 0 and math.min(self.at / self.n, 1) or 1
  local full = math.floor(part * WIDTH + 0.5)
  local elapsed = gq.clock() - self.started
  local left = self.at > self.first and elapsed / (self.at - self.first) * (self.n - self.at) or nil
  local done, rate = self.at - self.first, ""
  if done > 0 and elapsed > 0 then rate = (" %.3g/s"):format(done / elapsed) end
  return ("%s [%s%s] %d/%d %s%s%s%s"):format(self.desc, ("#"):rep(full), ("."):rep(WIDTH - full), self.at, self.n,
    duration(elapsed), left and self.at < self.n and " left " .. duration(left) or "", rate,
    self.note ~= "" and "  " .. self.note or "")
end

-- Redrawn ten times a second at most.
function Bar:draw(now)
  if not self.shown then return end
  local clock = gq.clock()
  if not now and clock - self.drawn < 0.1 then return end
  self.drawn = clock
  self.out:write("\r", self:text(), "\27[K")
  self.out:flush()
end

-- One step further, or to step `at`; note: text shown behind the bar.
function Bar:update(at, note)
  if type(at) == "string" then at, note = nil, at end
  self.at = at or self.at + 1
  self.note = note or self.note
  self:draw(self.at >= self.n)
end

-- Remove the bar, so that a line can be printed in its place; the next update draws it again.
function Bar:clear()
  if self.shown then
    self.out:write("\r\27[K")
    self.out:flush()
    self.drawn = -math.huge
  end
end

-- for i in gq.progress(n) do ... end
function Bar:__call(_, i)
  if i then self:update(i) end
  i = i or self.first
  if i < self.n then return i + 1 end
  self:close()
end

function Bar:close() self:clear() end
Bar.__close = Bar.close

-- opts: desc, a text before the bar; at, where it begins (0); shown, true or false instead of looking at stderr; out,
-- a file.
local function progress(n, opts)
  local o = gq.core.options(opts, "desc at shown out", "gq.progress")
  n = gq.core.need({ n = n }, "n", "integer", nil, "gq.progress")
  if n < 0 then gq.core.fail(("gq.progress: n: how many steps there are, got %d"):format(n)) end
  local shown = o.shown
  if shown == nil then shown = gq.isatty(2) end
  local at = gq.core.need(o, "at", "integer", 0, "gq.progress")
  return setmetatable({ n = n, at = at, first = at, desc = o.desc or "", note = "", shown = shown,
    out = o.out or io.stderr, started = gq.clock(), drawn = -math.huge }, Bar)
end

gq.docs[progress] = [=[
local bar = gq.progress(n, {desc, at = 0}); bar:update([at [, note]]); bar:close(), or for i in gq.progress(n) do: a
  progress bar on stderr with the rate and the time that is left, silent where that is no terminal]=]
return progress
